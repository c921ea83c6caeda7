//! `CreateGrant`, `ListGrants`, `ListRetirableGrants`, `RetireGrant`, `RevokeGrant`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Time;
use crate::gate::{self, Call, ServiceError, Step, faults};
use crate::iam::Principal;
use crate::ids;

use super::access::{self, Basis, Subject, authorise_account, denied_unknown, named_key, named_key_with};
use super::grant::{self, Grant, GrantConstraints};
use super::keyring::{self, Key};
use super::operations::{CREATE_GRANT, LIST_GRANTS, LIST_RETIRABLE_GRANTS, RETIRE_GRANT, REVOKE_GRANT};
use super::page::{Marker, page_limit};
use super::validate::{Validation, invalid};
use super::{dry_run, keys, request, states};

/// What a grant can allow, in the order of the API's model.
const OPERATIONS: [&str; 17] = [
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
    "Sign",
    "Verify",
    "GetPublicKey",
    "CreateGrant",
    "RetireGrant",
    "DescribeKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateMac",
    "VerifyMac",
    "DeriveSharedSecret",
];

/// What of these a symmetric encryption key does not know.
const NOT_FOR_SYMMETRIC: [&str; 6] =
    ["Sign", "Verify", "GetPublicKey", "GenerateMac", "VerifyMac", "DeriveSharedSecret"];

/// `CreateGrant`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateGrantRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// Who may: an ARN.
    pub grantee_principal: String,
    /// Who may retire it: an ARN, or a service.
    pub retiring_principal: Option<String>,
    /// What: names as in the API (`Decrypt`, `ReEncryptFrom` ...).
    pub operations: Vec<String>,
    /// Under which contexts.
    pub constraints: Option<GrantConstraints>,
    /// Tokens of grants that may not be known everywhere yet.
    #[serde(default)]
    pub grant_tokens: Vec<String>,
    /// Makes the call idempotent.
    pub name: Option<String>,
    /// Only say whether it would succeed.
    pub dry_run: Option<bool>,
}

/// What `CreateGrant` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateGrantResponse {
    /// The token, good for using the grant at once.
    pub grant_token: String,
    /// 64 hex digits.
    pub grant_id: String,
}

/// `ListGrants`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListGrantsRequest {
    /// At most so many, 1-100; 50 if absent.
    pub limit: Option<i64>,
    /// Where the last answer ended.
    pub marker: Option<String>,
    /// A key id or key ARN.
    pub key_id: String,
    /// Only this one.
    pub grant_id: Option<String>,
    /// Only those to this principal.
    pub grantee_principal: Option<String>,
}

/// What `ListGrants` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListGrantsResponse {
    /// In the order of their ids.
    pub grants: Vec<GrantListEntry>,
    /// With which the rest is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
    /// Whether there is a rest.
    pub truncated: bool,
}

/// One grant of `ListGrants`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GrantListEntry {
    /// The key's ARN.
    pub key_id: String,
    /// 64 hex digits.
    pub grant_id: String,
    /// As given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it was made.
    pub creation_date: Time,
    /// Who may.
    pub grantee_principal: String,
    /// Who may retire it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retiring_principal: Option<String>,
    /// The account under which it was made.
    pub issuing_account: String,
    /// What it allows.
    pub operations: Vec<String>,
    /// Under which contexts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<GrantConstraints>,
}

/// `ListRetirableGrants`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListRetirableGrantsRequest {
    /// At most so many, 1-100; 50 if absent.
    pub limit: Option<i64>,
    /// Where the last answer ended.
    pub marker: Option<String>,
    /// Who may retire them: an ARN, or a service.
    pub retiring_principal: String,
}

/// `RetireGrant`: by token, or by key ARN and grant id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RetireGrantRequest {
    /// The grant's token.
    pub grant_token: Option<String>,
    /// The key's ARN.
    pub key_id: Option<String>,
    /// The grant's id.
    pub grant_id: Option<String>,
    /// Only say whether it would succeed.
    pub dry_run: Option<bool>,
}

/// `RevokeGrant`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RevokeGrantRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// The grant's id.
    pub grant_id: String,
    /// Only say whether it would succeed.
    pub dry_run: Option<bool>,
}

/// Lets a principal do certain operations with a key, under certain contexts.
pub fn create_grant(call: &Call<'_>, req: CreateGrantRequest) -> Result<CreateGrantResponse, ServiceError> {
    gate::run(call, &CREATE_GRANT, create_parameters(&req), |step| {
        check_create(&req)?;
        grant::present(step, &req.grant_tokens)?;
        let keys = request::create_grant(
            &req.operations,
            &req.grantee_principal,
            req.retiring_principal.as_deref(),
            req.constraints.as_ref(),
        );
        let (key, basis) = named_key_with(step, &req.key_id, "CreateGrant", None, &keys)?;
        if basis == Basis::Grant {
            refuse_wider(step, &key, &req)?;
        }
        states::check("CreateGrant", &key)?;
        dry_run(req.dry_run)?;
        let wanted = wanted(step, &key, &req)?;
        let grant_id = if let Some(id) = grant::same_named(step.tx, &wanted)? {
            id
        } else if grant::is_full(step.tx, &key)? {
            let message = format!("{} has as many grants as a key may have.", key.arn());
            return Err(ServiceError::refused("LimitExceededException", message));
        } else {
            grant::insert(step.tx, &wanted)?;
            wanted.id
        };
        let grant_token = grant::new_token(&grant_id)?;
        step.draft.set_response(json!({"grantId": grant_id, "keyId": key.arn()}));
        Ok(CreateGrantResponse { grant_token, grant_id })
    })
}

fn create_parameters(req: &CreateGrantRequest) -> Value {
    let mut parameters = json!({"keyId": req.key_id, "granteePrincipal": req.grantee_principal});
    if let Some(retiring) = &req.retiring_principal {
        parameters["retiringPrincipal"] = retiring.as_str().into();
    }
    parameters["operations"] = req.operations.clone().into();
    if let Some(constraints) = &req.constraints {
        let mut shown = json!({});
        if let Some(part) = &constraints.encryption_context_subset {
            shown["encryptionContextSubset"] = json!(part);
        }
        if let Some(whole) = &constraints.encryption_context_equals {
            shown["encryptionContextEquals"] = json!(whole);
        }
        parameters["constraints"] = shown;
    }
    if let Some(name) = &req.name {
        parameters["name"] = name.as_str().into();
    }
    keys::add_dry_run(&mut parameters, req.dry_run);
    parameters
}

fn check_create(req: &CreateGrantRequest) -> Result<(), ServiceError> {
    let mut validation = Validation::default();
    validation.key_id("keyId", &req.key_id);
    for (member, principal) in
        [("granteePrincipal", Some(&req.grantee_principal)), ("retiringPrincipal", req.retiring_principal.as_ref())]
    {
        if let Some(principal) = principal {
            validation.length(member, principal, 1..=256);
        }
    }
    for operation in &req.operations {
        validation.one_of("operations", operation, &OPERATIONS);
    }
    if let Some(name) = &req.name {
        validation.length("name", name, 1..=256);
        validation.pattern("name", name, "^[a-zA-Z0-9:/_-]+$", |c| c.is_ascii_alphanumeric() || ":/_-".contains(c));
    }
    validation.grant_tokens(&req.grant_tokens);
    validation.finish()?;
    for principal in [Some(&req.grantee_principal), req.retiring_principal.as_ref()].into_iter().flatten() {
        if !is_principal_name(principal) {
            return Err(no_principal(principal));
        }
    }
    if let Some(operation) = req.operations.iter().find(|operation| NOT_FOR_SYMMETRIC.contains(&operation.as_str())) {
        return Err(invalid(format!(
            "The operation {operation} in the Operations parameter is not valid for a symmetric encryption KMS key."
        )));
    }
    let constraints = req.constraints.as_ref();
    for context in [
        constraints.and_then(|both| both.encryption_context_subset.as_ref()),
        constraints.and_then(|both| both.encryption_context_equals.as_ref()),
    ]
    .into_iter()
    .flatten()
    {
        if context.0.len() > 8 || context.0.values().any(|value| value.chars().count() > 384) {
            return Err(invalid(
                "A grant constraint can have up to 8 encryption context pairs, with values of up to 384 characters.",
            ));
        }
    }
    Ok(())
}

/// The refusal of a name that is nobody's, as recorded.
fn no_principal(name: &str) -> ServiceError {
    ServiceError::refused("InvalidArnException", format!("ARN does not refer to a valid principal: {name}"))
}

/// An ARN of an account, user, role or session, or the name of a service.
fn is_principal_name(text: &str) -> bool {
    let arn = |service: &str, kinds: &[&str]| {
        text.strip_prefix(service).and_then(|rest| rest.split_once(':')).is_some_and(|(account, resource)| {
            account.parse::<ids::AccountId>().is_ok()
                && kinds
                    .iter()
                    .any(|kind| resource.starts_with(kind) && (*kind == "root" || resource.len() > kind.len()))
        })
    };
    arn("arn:aws:iam::", &["root", "user/", "role/"])
        || arn("arn:aws:sts::", &["assumed-role/", "federated-user/"])
        || text.strip_suffix(".amazonaws.com").is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        })
}

/// A grantee may pass on no more than one of its grants gives it.
fn refuse_wider(step: &Step<'_>, key: &Key, req: &CreateGrantRequest) -> Result<(), ServiceError> {
    let child = req.constraints.clone().unwrap_or_default();
    let covers = |parent: &Grant| {
        req.operations.iter().all(|operation| parent.operations.contains(operation))
            && parent.constraints.as_ref().is_none_or(|constraints| constraints.covers(&child))
    };
    match grant::allowing_and(step, key, "CreateGrant", None, covers)? {
        Some(_) => Ok(()),
        None => Err(denied_unknown(step, "CreateGrant", Subject::Key, &key.arn())),
    }
}

fn wanted(step: &Step<'_>, key: &Key, req: &CreateGrantRequest) -> Result<Grant, ServiceError> {
    Ok(Grant {
        id: ids::hex64(),
        key_id: key.id.clone(),
        name: req.name.clone(),
        grantee: req.grantee_principal.clone(),
        retiring: req.retiring_principal.clone(),
        issuer: Principal::Root(step.call.principal.account().clone()).arn(),
        operations: req.operations.clone(),
        constraints: req.constraints.clone(),
        created: step.now,
        effective: step.now.after(faults::eventual(step.tx, &CREATE_GRANT)?),
    })
}

/// The grants of a key, page by page.
pub fn list_grants(call: &Call<'_>, req: ListGrantsRequest) -> Result<ListGrantsResponse, ServiceError> {
    let mut parameters = json!({"keyId": req.key_id});
    for (name, value) in
        [("grantId", &req.grant_id), ("granteePrincipal", &req.grantee_principal), ("marker", &req.marker)]
    {
        if let Some(value) = value {
            parameters[name] = value.as_str().into();
        }
    }
    if let Some(limit) = req.limit {
        parameters["limit"] = limit.into();
    }
    gate::run(call, &LIST_GRANTS, parameters, |step| {
        let mut validation = Validation::default();
        validation.key_id("keyId", &req.key_id);
        if let Some(id) = &req.grant_id {
            validation.length("grantId", id, 1..=128);
        }
        let limit = page_limit(&mut validation, req.limit, 50, 100);
        let after = Marker::read(&mut validation, req.marker.as_deref());
        validation.finish()?;
        let after = after?;
        let (key, _) = named_key(step, &req.key_id, "ListGrants", None)?;
        let filter = (req.grant_id.as_deref(), req.grantee_principal.as_deref());
        let mut grants = grant::list(step.tx, &key, filter, &after, limit + 1)?;
        let next_marker = Marker::next(&mut grants, limit, |grant| &grant.id);
        Ok(ListGrantsResponse {
            grants: grants.into_iter().map(|grant| entry(grant, key.arn())).collect(),
            truncated: next_marker.is_some(),
            next_marker,
        })
    })
}

fn entry(grant: Grant, key_id: String) -> GrantListEntry {
    GrantListEntry {
        key_id,
        grant_id: grant.id,
        name: grant.name,
        creation_date: grant.created,
        grantee_principal: grant.grantee,
        retiring_principal: grant.retiring,
        issuing_account: grant.issuer,
        operations: grant.operations,
        constraints: grant.constraints,
    }
}

/// The grants in this Region that a principal of the caller's account may retire, page by page.
pub fn list_retirable_grants(
    call: &Call<'_>,
    req: ListRetirableGrantsRequest,
) -> Result<ListGrantsResponse, ServiceError> {
    let mut parameters = json!({"retiringPrincipal": req.retiring_principal});
    for (name, value) in [("limit", json!(req.limit)), ("marker", json!(req.marker))] {
        if !value.is_null() {
            parameters[name] = value;
        }
    }
    gate::run(call, &LIST_RETIRABLE_GRANTS, parameters, |step| {
        let mut validation = Validation::default();
        validation.length("retiringPrincipal", &req.retiring_principal, 1..=256);
        let limit = page_limit(&mut validation, req.limit, 50, 100);
        let after = Marker::read(&mut validation, req.marker.as_deref());
        validation.finish()?;
        let after = after?;
        if !is_principal_name(&req.retiring_principal) {
            return Err(no_principal(&req.retiring_principal));
        }
        authorise_account(step, "ListRetirableGrants")?;
        // "You must specify a principal in your AWS account"; how others are refused is assumed.
        let account = req.retiring_principal.split(':').nth(4);
        if account.is_some_and(|account| account != call.principal.account().as_str()) {
            return Err(denied_unknown(step, "ListRetirableGrants", Subject::Key, &req.retiring_principal));
        }
        let mut grants = grant::list_retirable(step.tx, &req.retiring_principal, &call.region, &after, limit + 1)?;
        let next_marker = Marker::next(&mut grants, limit, |grant| &grant.id);
        let mut listed = Vec::with_capacity(grants.len());
        for grant in grants {
            if let Some(key) = keyring::find(step.tx, &grant.key_id)? {
                listed.push(entry(grant, key.arn()));
            }
        }
        Ok(ListGrantsResponse { grants: listed, truncated: next_marker.is_some(), next_marker })
    })
}

/// Ends a grant, called by those for whom it was made: its retiring principal, its grantee if the grant says so, or the
/// account that issued it.
pub fn retire_grant(call: &Call<'_>, req: RetireGrantRequest) -> Result<(), ServiceError> {
    gate::run(call, &RETIRE_GRANT, Value::Null, |step| {
        let mut validation = Validation::default();
        if let Some(id) = &req.key_id {
            validation.key_id("keyId", id);
        }
        if let Some(id) = &req.grant_id {
            validation.length("grantId", id, 1..=128);
        }
        validation.grant_tokens(req.grant_token.as_slice());
        validation.finish()?;
        let (grant_id, key) = match (&req.grant_token, &req.key_id, &req.grant_id) {
            (Some(token), None, None) => (grant::read_token(token)?, None),
            (None, Some(key_id), Some(grant_id)) => {
                access::refuse_alias(step, key_id, "RetireGrant")?;
                (grant_id.clone(), Some(keyring::resolve(step.tx, call, key_id)?))
            }
            _ => return Err(invalid("Please specify either a grant token, or a key ARN and a grant ID.")),
        };
        let (grant, key) = find(step, &grant_id, key)?;
        access::authorise_retire(step, &key, &grant)?;
        states::check("RetireGrant", &key)?;
        dry_run(req.dry_run)?;
        grant::remove(step.tx, &grant.id)?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// The grant of that id, which must be `key`'s if one was named, with its key; both go into the record.
fn find(step: &mut Step<'_>, grant_id: &str, key: Option<Key>) -> Result<(Grant, Key), ServiceError> {
    step.draft.add("grantId", grant_id);
    let not_found = || ServiceError::refused("NotFoundException", format!("Grant ID {grant_id} not found"));
    let grant = grant::find(step.tx, grant_id)?.ok_or_else(not_found)?;
    let key = match key {
        Some(key) => key,
        None => keyring::find(step.tx, &grant.key_id)?.ok_or_else(not_found)?,
    };
    key.note(step.draft);
    if grant.key_id == key.id { Ok((grant, key)) } else { Err(not_found()) }
}

/// Ends a grant, called by those who manage the key.
pub fn revoke_grant(call: &Call<'_>, req: RevokeGrantRequest) -> Result<(), ServiceError> {
    let mut parameters = json!({"keyId": req.key_id, "grantId": req.grant_id});
    keys::add_dry_run(&mut parameters, req.dry_run);
    gate::run(call, &REVOKE_GRANT, parameters, |step| {
        let mut validation = Validation::default();
        validation.key_id("keyId", &req.key_id).length("grantId", &req.grant_id, 1..=128).finish()?;
        let (key, _) = named_key(step, &req.key_id, "RevokeGrant", None)?;
        let (grant, key) = find(step, &req.grant_id, Some(key))?;
        states::check("RevokeGrant", &key)?;
        dry_run(req.dry_run)?;
        grant::remove(step.tx, &grant.id)?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}
