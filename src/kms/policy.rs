//! Key policies: `GetKeyPolicy`, `PutKeyPolicy`, `ListKeyPolicies`, the default ones, and the check against locking oneself out.

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::gate::{self, Call, ServiceError, Step};
use crate::iam::{Context, NamedPolicy, Outcome, Policy, PolicyKind};
use crate::ids::AccountId;
use crate::store::{StoreError, Transaction};

use super::access::{self, named_key, named_key_with};
use super::keyring::Key;
use super::keys::paging_parameters;
use super::operations::{GET_KEY_POLICY, LIST_KEY_POLICIES, PUT_KEY_POLICY};
use super::page::page_limit;
use super::states;
use super::validate::Validation;

/// The only name that a key policy can have.
const NAME: &str = "default";

/// Most bytes of a key policy (AWS KMS developer guide, "Quotas": 32 KB).
pub const MAX_POLICY_BYTES: usize = 32 << 10;

/// `GetKeyPolicy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetKeyPolicyRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// `default`.
    pub policy_name: Option<String>,
}

/// What `GetKeyPolicy` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetKeyPolicyResponse {
    /// The policy, as it was put.
    pub policy: String,
    /// `default`.
    pub policy_name: &'static str,
}

/// `PutKeyPolicy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PutKeyPolicyRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// `default`.
    pub policy_name: Option<String>,
    /// The policy, up to 32 KB.
    pub policy: String,
    /// Take a policy under which the caller cannot put another.
    pub bypass_policy_lockout_safety_check: Option<bool>,
}

/// `ListKeyPolicies`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListKeyPoliciesRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// At most so many, 1-1000.
    pub limit: Option<i64>,
    /// Where the last answer ended.
    pub marker: Option<String>,
}

/// What `ListKeyPolicies` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeyPoliciesResponse {
    /// `default`.
    pub policy_names: Vec<&'static str>,
    /// `false`.
    pub truncated: bool,
}

/// The policy of a key.
pub fn get_key_policy(call: &Call<'_>, req: GetKeyPolicyRequest) -> Result<GetKeyPolicyResponse, ServiceError> {
    let mut parameters = json!({"keyId": req.key_id});
    if let Some(name) = &req.policy_name {
        parameters["policyName"] = name.as_str().into();
    }
    gate::run(call, &GET_KEY_POLICY, parameters, |step| {
        let mut validation = Validation::default();
        validation.key_id("keyId", &req.key_id).finish()?;
        let (key, _) = named_key(step, &req.key_id, "GetKeyPolicy", None)?;
        states::check("GetKeyPolicy", &key)?;
        check_name(req.policy_name.as_deref())?;
        Ok(GetKeyPolicyResponse { policy: text_of(step.tx, &key)?, policy_name: NAME })
    })
}

/// Replaces the policy of a key.
pub fn put_key_policy(call: &Call<'_>, req: PutKeyPolicyRequest) -> Result<(), ServiceError> {
    let bypass = req.bypass_policy_lockout_safety_check.unwrap_or(false);
    let parameters = json!({
        "keyId": req.key_id, "policyName": req.policy_name.as_deref().unwrap_or(NAME), "policy": req.policy,
        "bypassPolicyLockoutSafetyCheck": bypass,
    });
    gate::run(call, &PUT_KEY_POLICY, parameters, |step| {
        let mut validation = Validation::default();
        validation.key_id("keyId", &req.key_id).policy(&req.policy).finish()?;
        let mut more = Context::default();
        more.set("kms:BypassPolicyLockoutSafetyCheck", bypass.to_string());
        let (key, _) = named_key_with(step, &req.key_id, "PutKeyPolicy", None, &more)?;
        states::check("PutKeyPolicy", &key)?;
        check_name(req.policy_name.as_deref())?;
        put(step, &key, &req.policy, bypass)?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// The names of a key's policies, of which there is one.
pub fn list_key_policies(
    call: &Call<'_>,
    req: ListKeyPoliciesRequest,
) -> Result<ListKeyPoliciesResponse, ServiceError> {
    let mut parameters = paging_parameters(req.limit, req.marker.as_deref());
    if parameters == Value::Null {
        parameters = json!({});
    }
    parameters["keyId"] = req.key_id.as_str().into();
    gate::run(call, &LIST_KEY_POLICIES, parameters, |step| {
        let mut validation = Validation::default();
        validation.key_id("keyId", &req.key_id);
        page_limit(&mut validation, req.limit, 100, 1000);
        validation.finish()?;
        if req.marker.is_some() {
            return Err(ServiceError::refused("InvalidMarkerException", "Could not deserialize marker"));
        }
        let (key, _) = named_key(step, &req.key_id, "ListKeyPolicies", None)?;
        states::check("ListKeyPolicies", &key)?;
        Ok(ListKeyPoliciesResponse { policy_names: vec![NAME], truncated: false })
    })
}

fn check_name(name: Option<&str>) -> Result<(), ServiceError> {
    match name {
        None | Some(NAME) => Ok(()),
        Some(other) => Err(ServiceError::refused("NotFoundException", format!("No such policy exists: {other}"))),
    }
}

/// Gives `key` the policy `text`, if the caller could put another under it.
///
/// # Errors
/// `MalformedPolicyDocumentException`, also for a policy that locks the caller out; `LimitExceededException`.
pub(super) fn put(step: &Step<'_>, key: &Key, text: &str, bypass: bool) -> Result<(), ServiceError> {
    let policy = NamedPolicy::new(POLICY_NAME, read(text)?);
    if !bypass {
        check_lockout(step, key, &policy)?;
    }
    step.tx
        .prepare_cached("INSERT OR REPLACE INTO kms_key_policies (key_id, policy) VALUES (?1, ?2)")
        .map_err(StoreError::from)?
        .execute(params![key.id, text])?;
    Ok(())
}

/// Reads a policy that somebody wants to put.
///
/// # Errors
/// `LimitExceededException` above 32 KB, `MalformedPolicyDocumentException` with AWS's message where it is known and else the
/// place of what is wrong.
pub(super) fn read(text: &str) -> Result<Policy, ServiceError> {
    if text.len() > MAX_POLICY_BYTES {
        return Err(ServiceError::refused("LimitExceededException", "The key policy exceeds the size limit of 32 KB."));
    }
    Policy::parse(text, PolicyKind::Key).map_err(|error| {
        let found = error.to_string();
        match error.aws {
            Some(message) => ServiceError::refused("MalformedPolicyDocumentException", message).with_hint(found),
            None => ServiceError::refused("MalformedPolicyDocumentException", found),
        }
    })
}

/// AWS's check of a new policy: whoever puts it must be able to put the next.
fn check_lockout(step: &Step<'_>, key: &Key, policy: &NamedPolicy) -> Result<(), ServiceError> {
    let mut more = Context::default();
    more.set("kms:BypassPolicyLockoutSafetyCheck", "false");
    let decision = access::decide_under(step, key, policy, "PutKeyPolicy", None, None, &more)?;
    let message = match decision.outcome {
        Outcome::Allowed => return Ok(()),
        Outcome::Undetermined => format!(
            "Whether the new key policy will allow you to update the key policy in the future cannot be told: {}",
            decision.undetermined.join("; ")
        ),
        _ => "The new key policy will not allow you to update the key policy in the future.".to_owned(),
    };
    Err(ServiceError::refused("MalformedPolicyDocumentException", message)
        .with_hint("--bypass-policy-lockout-safety-check takes it as it is"))
}

/// The name of a key's policy in decisions.
const POLICY_NAME: &str = "key policy";

/// The policy of `key`.
///
/// # Errors
/// If the store has a text there that is no policy, which nothing of ours writes.
pub(super) fn of(tx: &Transaction<'_>, key: &Key) -> Result<NamedPolicy, ServiceError> {
    tx.recall(&key.id, || {
        let policy = Policy::parse(&text_of(tx, key)?, PolicyKind::Key).map_err(ServiceError::machine)?;
        Ok(NamedPolicy::new(POLICY_NAME, policy))
    })
}

/// The text of `key`'s policy: the one that was put, else the default one of its kind.
pub(super) fn text_of(tx: &Transaction<'_>, key: &Key) -> Result<String, StoreError> {
    let mut statement = tx.prepare_cached("SELECT policy FROM kms_key_policies WHERE key_id = ?1")?;
    let put: Option<String> = statement.query_row([key.id.as_str()], |row| row.get(0)).optional()?;
    Ok(put.unwrap_or_else(|| match &key.only_via {
        Some(service) => managed_policy(&key.account, service),
        None => default_policy(&key.account),
    }))
}

/// The policy of a key for which none was given (AWS KMS developer guide, "Default key policy"; layout as recorded).
pub fn default_policy(account: &AccountId) -> String {
    format!(
        r#"{{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {{
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "arn:aws:iam::{account}:root"
    }},
    "Action" : "kms:*",
    "Resource" : "*"
  }} ]
}}"#
    )
}

/// The policy of an AWS managed key (AWS KMS developer guide, "Viewing a key policy"; that of `aws/rds` differs in the
/// service and in `ListGrants`).
pub fn managed_policy(account: &AccountId, service: &str) -> String {
    let rds = service.starts_with("rds.");
    let (id, name) = if rds { ("auto-rds-2", "RDS") } else { ("auto-ebs-2", "EBS") };
    let list_grants = if rds { r#", "kms:ListGrants""# } else { "" };
    format!(
        r#"{{
  "Version" : "2012-10-17",
  "Id" : "{id}",
  "Statement" : [ {{
    "Sid" : "Allow access through {name} for all principals in the account that are authorized to use {name}",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "*"
    }},
    "Action" : [ "kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:CreateGrant"{list_grants}, "kms:DescribeKey" ],
    "Resource" : "*",
    "Condition" : {{
      "StringEquals" : {{
        "kms:CallerAccount" : "{account}",
        "kms:ViaService" : "{service}"
      }}
    }}
  }}, {{
    "Sid" : "Allow direct access to key metadata to the account",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "arn:aws:iam::{account}:root"
    }},
    "Action" : [ "kms:Describe*", "kms:Get*", "kms:List*", "kms:RevokeGrant" ],
    "Resource" : "*"
  }} ]
}}"#
    )
}
