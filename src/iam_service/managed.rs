//! Managed policies: those of the account, a few of AWS's own, and which users and roles they are attached to.
//!
//! A policy of the account has one version, `v1`.

use rusqlite::{OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{authorise, changing, check_name, linked_roles, on_entity, reading, refused, run};
use crate::clock::Time;
use crate::gate::{Call, Operation, ServiceError};
use crate::iam::directory::{self, AWS_POLICIES, EntityKind};
use crate::iam::{Policy, PolicyKind, made_up_id};
use crate::store::{StoreError, Transaction};

static CREATE_POLICY: Operation = changing("CreatePolicy");
static DELETE_POLICY: Operation = changing("DeletePolicy");
static GET_POLICY: Operation = reading("GetPolicy");
static GET_POLICY_VERSION: Operation = reading("GetPolicyVersion");
static LIST_POLICIES: Operation = reading("ListPolicies");
static ATTACH_USER_POLICY: Operation = changing("AttachUserPolicy");
static DETACH_USER_POLICY: Operation = changing("DetachUserPolicy");
static LIST_ATTACHED_USER_POLICIES: Operation = reading("ListAttachedUserPolicies");
static ATTACH_ROLE_POLICY: Operation = changing("AttachRolePolicy");
static DETACH_ROLE_POLICY: Operation = changing("DetachRolePolicy");
static LIST_ATTACHED_ROLE_POLICIES: Operation = reading("ListAttachedRolePolicies");

/// Most characters of a managed policy, white space aside, and most of them on a user or role (IAM user guide, "IAM and STS
/// quotas").
const MOST_CHARACTERS: usize = 6144;
const MOST_ATTACHED: i64 = 10;

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty = $what:literal),+ }),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        pub struct $name {
            $(#[doc = $what] pub $field: $kind,)+
        }
    )+};
}

requests!(
    /// `CreatePolicy`.
    CreatePolicyRequest {
        policy_name: String = "The policy's name.",
        path: Option<String> = "`/` if absent, else with a slash at both ends.",
        policy_document: String = "The policy as JSON.",
        description: Option<String> = "What it is for."
    },
    /// `DeletePolicy`.
    DeletePolicyRequest { policy_arn: String = "The policy." },
    /// `GetPolicy`.
    GetPolicyRequest { policy_arn: String = "The policy." },
    /// `GetPolicyVersion`.
    GetPolicyVersionRequest { policy_arn: String = "The policy.", version_id: String = "`v1`." },
    /// `ListPolicies`.
    ListPoliciesRequest {
        scope: Option<String> = "`All` (if absent), `AWS` or `Local`.",
        only_attached: Option<bool> = "Only those that are attached to something.",
        path_prefix: Option<String> = "Only those whose path begins so."
    },
    /// `AttachUserPolicy`.
    AttachUserPolicyRequest { user_name: String = "The user.", policy_arn: String = "The policy." },
    /// `DetachUserPolicy`.
    DetachUserPolicyRequest { user_name: String = "The user.", policy_arn: String = "The policy." },
    /// `ListAttachedUserPolicies`.
    ListAttachedUserPoliciesRequest { user_name: String = "The user." },
    /// `AttachRolePolicy`.
    AttachRolePolicyRequest { role_name: String = "The role.", policy_arn: String = "The policy." },
    /// `DetachRolePolicy`.
    DetachRolePolicyRequest { role_name: String = "The role.", policy_arn: String = "The policy." },
    /// `ListAttachedRolePolicies`.
    ListAttachedRolePoliciesRequest { role_name: String = "The role." },
);

/// A managed policy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagedPolicy {
    /// Its name.
    pub policy_name: String,
    /// `ANPA…`, derived from the ARN (ours).
    pub policy_id: String,
    /// Its ARN.
    pub arn: String,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// `v1`.
    pub default_version_id: String,
    /// How many users and roles have it.
    pub attachment_count: i64,
    /// `true`.
    pub is_attachable: bool,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was made; of one of AWS's, when 1970 began (ours).
    pub create_date: Option<Time>,
    /// The same.
    pub update_date: Option<Time>,
    #[serde(skip)]
    document: String,
}

/// What `CreatePolicy` and `GetPolicy` answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyResponse {
    /// The policy.
    pub policy: ManagedPolicy,
}

/// A version of a policy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyVersion {
    /// The policy, as a JSON object as the AWS CLI shows it.
    pub document: Value,
    /// `v1`.
    pub version_id: String,
    /// `true`.
    pub is_default_version: bool,
    /// When it was made.
    pub create_date: Option<Time>,
}

/// What `GetPolicyVersion` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetPolicyVersionResponse {
    /// The version.
    pub policy_version: PolicyVersion,
}

/// What `ListPolicies` answers: all of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListManagedPoliciesResponse {
    /// In the order of their names.
    pub policies: Vec<ManagedPolicy>,
    /// `false`.
    pub is_truncated: bool,
}

/// A policy that is attached.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AttachedPolicy {
    /// Its name.
    pub policy_name: String,
    /// Its ARN.
    pub policy_arn: String,
}

/// What `ListAttachedUserPolicies` and `ListAttachedRolePolicies` answer: all of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListAttachedPoliciesResponse {
    /// In the order of their ARNs.
    pub attached_policies: Vec<AttachedPolicy>,
    /// `false`.
    pub is_truncated: bool,
}

/// Makes a managed policy of the account, which allows nothing until it is attached.
pub fn create_policy(call: &Call<'_>, req: CreatePolicyRequest) -> Result<PolicyResponse, ServiceError> {
    let mut parameters = json!({"policyName": req.policy_name, "policyDocument": req.policy_document});
    for (name, value) in [("path", &req.path), ("description", &req.description)] {
        if let Some(value) = value {
            parameters[name] = value.as_str().into();
        }
    }
    run(call, &CREATE_POLICY, parameters, |step| {
        check_name("policyName", &req.policy_name)?;
        let path = req.path.as_deref().unwrap_or("/");
        super::entities::check_path(path)?;
        if let Err(error) = Policy::parse(&req.policy_document, PolicyKind::Identity) {
            return Err(refused("MalformedPolicyDocument", 400, error.to_string()));
        }
        if req.policy_document.chars().filter(|letter| !letter.is_whitespace()).count() > MOST_CHARACTERS {
            return Err(refused(
                "LimitExceeded",
                409,
                format!("Cannot exceed quota for PolicySize: {MOST_CHARACTERS}"),
            ));
        }
        let arn = format!("arn:aws:iam::{}:policy{path}{}", call.account, req.policy_name);
        authorise(step, &CREATE_POLICY, &arn)?;
        let taken = step
            .tx
            .prepare_cached("SELECT 1 FROM iam_managed_policies WHERE account = ?1 AND name = ?2")?
            .exists([call.account.as_str(), &req.policy_name])?;
        if taken {
            let message =
                format!("A policy called {} already exists. Duplicate names are not allowed.", req.policy_name);
            return Err(refused("EntityAlreadyExists", 409, message));
        }
        step.tx.execute(
            "INSERT INTO iam_managed_policies (arn, account, name, path, description, document, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                arn,
                call.account.as_str(),
                req.policy_name,
                path,
                req.description,
                req.policy_document,
                step.now.micros()
            ],
        )?;
        let policy = find(step.tx, call, &arn)?;
        step.draft.set_response(json!({"policy": {
            "policyName": policy.policy_name, "policyId": policy.policy_id, "arn": policy.arn, "path": policy.path,
            "defaultVersionId": "v1", "attachmentCount": 0, "isAttachable": true,
            "createDate": step.now.to_trail_date_string(), "updateDate": step.now.to_trail_date_string(),
        }}));
        // As AWS answers: what it is for is shown by GetPolicy.
        Ok(PolicyResponse { policy: ManagedPolicy { description: None, ..policy } })
    })
}

/// Removes a policy of the account that nothing has.
pub fn delete_policy(call: &Call<'_>, req: DeletePolicyRequest) -> Result<(), ServiceError> {
    let arn = &req.policy_arn;
    run(call, &DELETE_POLICY, json!({"policyArn": arn}), |step| {
        authorise(step, &DELETE_POLICY, arn)?;
        let policy = find(step.tx, call, arn)?;
        if AWS_POLICIES.iter().any(|(_, known, _)| known == arn) {
            return Err(refused("AccessDenied", 403, "Policy is outside your own account."));
        }
        if policy.attachment_count > 0 {
            return Err(refused("DeleteConflict", 409, "Cannot delete a policy attached to entities."));
        }
        step.tx.execute("DELETE FROM iam_managed_policies WHERE arn = ?1", [arn])?;
        Ok(())
    })
}

/// A policy without its document.
pub fn get_policy(call: &Call<'_>, req: GetPolicyRequest) -> Result<PolicyResponse, ServiceError> {
    run(call, &GET_POLICY, json!({"policyArn": req.policy_arn}), |step| {
        authorise(step, &GET_POLICY, &req.policy_arn)?;
        Ok(PolicyResponse { policy: find(step.tx, call, &req.policy_arn)? })
    })
}

/// The document of a policy.
pub fn get_policy_version(
    call: &Call<'_>,
    req: GetPolicyVersionRequest,
) -> Result<GetPolicyVersionResponse, ServiceError> {
    let parameters = json!({"policyArn": req.policy_arn, "versionId": req.version_id});
    run(call, &GET_POLICY_VERSION, parameters, |step| {
        authorise(step, &GET_POLICY_VERSION, &req.policy_arn)?;
        let policy = find(step.tx, call, &req.policy_arn)?;
        if req.version_id != policy.default_version_id {
            let version: String = req.version_id.chars().take(20).collect();
            let message = format!("Policy {} version {version} does not exist or is not attachable.", policy.arn);
            return Err(refused("NoSuchEntity", 404, message));
        }
        Ok(GetPolicyVersionResponse {
            policy_version: PolicyVersion {
                document: serde_json::from_str(&policy.document).map_err(ServiceError::machine)?,
                version_id: policy.default_version_id,
                is_default_version: true,
                create_date: policy.create_date,
            },
        })
    })
}

/// The policies of the account and of AWS, those of AWS as far as they are known here.
pub fn list_policies(call: &Call<'_>, req: ListPoliciesRequest) -> Result<ListManagedPoliciesResponse, ServiceError> {
    let scope = req.scope.as_deref().unwrap_or("All");
    run(call, &LIST_POLICIES, json!({"scope": scope}), |step| {
        authorise(step, &LIST_POLICIES, &format!("arn:aws:iam::{}:policy/", call.account))?;
        let mut arns: Vec<String> = Vec::new();
        if scope != "Local" {
            arns.extend(AWS_POLICIES.iter().map(|(_, arn, _)| (*arn).to_owned()));
        }
        if scope != "AWS" {
            let mut statement = step.tx.prepare_cached("SELECT arn FROM iam_managed_policies WHERE account = ?1")?;
            let own = statement.query_map([call.account.as_str()], |row| row.get(0))?;
            arns.extend(own.collect::<Result<Vec<String>, _>>()?);
        }
        let mut policies = arns.iter().map(|arn| find(step.tx, call, arn)).collect::<Result<Vec<_>, _>>()?;
        policies.retain(|policy| {
            policy.path.starts_with(req.path_prefix.as_deref().unwrap_or("/"))
                && (req.only_attached != Some(true) || policy.attachment_count > 0)
        });
        policies.sort_by(|left, right| left.policy_name.cmp(&right.policy_name));
        Ok(ListManagedPoliciesResponse { policies, is_truncated: false })
    })
}

/// Gives a user a managed policy.
pub fn attach_user_policy(call: &Call<'_>, req: AttachUserPolicyRequest) -> Result<(), ServiceError> {
    attach(call, &ATTACH_USER_POLICY, EntityKind::User, [&req.user_name, &req.policy_arn])
}

/// Takes a managed policy from a user.
pub fn detach_user_policy(call: &Call<'_>, req: DetachUserPolicyRequest) -> Result<(), ServiceError> {
    detach(call, &DETACH_USER_POLICY, EntityKind::User, [&req.user_name, &req.policy_arn])
}

/// The managed policies of a user.
pub fn list_attached_user_policies(
    call: &Call<'_>,
    req: ListAttachedUserPoliciesRequest,
) -> Result<ListAttachedPoliciesResponse, ServiceError> {
    list_attached(call, &LIST_ATTACHED_USER_POLICIES, EntityKind::User, &req.user_name)
}

/// Gives a role a managed policy.
pub fn attach_role_policy(call: &Call<'_>, req: AttachRolePolicyRequest) -> Result<(), ServiceError> {
    attach(call, &ATTACH_ROLE_POLICY, EntityKind::Role, [&req.role_name, &req.policy_arn])
}

/// Takes a managed policy from a role.
pub fn detach_role_policy(call: &Call<'_>, req: DetachRolePolicyRequest) -> Result<(), ServiceError> {
    detach(call, &DETACH_ROLE_POLICY, EntityKind::Role, [&req.role_name, &req.policy_arn])
}

/// The managed policies of a role.
pub fn list_attached_role_policies(
    call: &Call<'_>,
    req: ListAttachedRolePoliciesRequest,
) -> Result<ListAttachedPoliciesResponse, ServiceError> {
    list_attached(call, &LIST_ATTACHED_ROLE_POLICIES, EntityKind::Role, &req.role_name)
}

fn attach(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    [name, arn]: [&str; 2],
) -> Result<(), ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name, "policyArn": arn});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        linked_roles::check_unprotected(entity)?;
        find(step.tx, call, arn)?;
        step.tx.execute("INSERT OR IGNORE INTO iam_attached VALUES (?1, ?2)", params![entity.row, arn])?;
        let attached: i64 =
            step.tx.query_row("SELECT count(*) FROM iam_attached WHERE entity = ?1", [entity.row], |row| row.get(0))?;
        if attached > MOST_ATTACHED {
            let what = super::title(kind);
            return Err(refused(
                "LimitExceeded",
                409,
                format!("Cannot exceed quota for PoliciesPer{what}: {MOST_ATTACHED}"),
            ));
        }
        Ok(())
    })
}

fn detach(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    [name, arn]: [&str; 2],
) -> Result<(), ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name, "policyArn": arn});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        linked_roles::check_unprotected(entity)?;
        let gone =
            step.tx.execute("DELETE FROM iam_attached WHERE entity = ?1 AND policy = ?2", params![entity.row, arn])?;
        if gone == 0 {
            let arn: String = arn.chars().take(200).collect();
            return Err(refused("NoSuchEntity", 404, format!("Policy {arn} was not found.")));
        }
        Ok(())
    })
}

fn list_attached(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    name: &str,
) -> Result<ListAttachedPoliciesResponse, ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        let attached = directory::attached(step.tx, entity)?.into_iter().map(|(arn, _)| AttachedPolicy {
            policy_name: arn.rsplit('/').next().unwrap_or(&arn).to_owned(),
            policy_arn: arn,
        });
        Ok(ListAttachedPoliciesResponse { attached_policies: attached.collect(), is_truncated: false })
    })
}

/// A policy that the account may attach.
fn find(tx: &Transaction<'_>, call: &Call<'_>, arn: &str) -> Result<ManagedPolicy, ServiceError> {
    let attachment_count = tx
        .prepare_cached(
            "SELECT count(*) FROM iam_attached JOIN iam_entities USING (entity) WHERE policy = ?1 AND account = ?2",
        )
        .map_err(StoreError::from)?
        .query_row([arn, call.account.as_str()], |row| row.get(0))
        .map_err(StoreError::from)?;
    let policy = |name: String, path: String, description, document, created: i64| ManagedPolicy {
        policy_name: name,
        policy_id: made_up_id("ANPA", arn),
        arn: arn.to_owned(),
        path,
        default_version_id: "v1".to_owned(),
        attachment_count,
        is_attachable: true,
        description,
        create_date: Time::from_micros(created),
        update_date: Time::from_micros(created),
        document,
    };
    if let Some((name, _, document)) = AWS_POLICIES.iter().find(|(_, known, _)| *known == arn) {
        return Ok(policy((*name).to_owned(), "/".to_owned(), None, (*document).to_owned(), 0));
    }
    let mut statement = tx.prepare_cached(
        "SELECT name, path, description, document, created FROM iam_managed_policies WHERE arn = ?1 AND account = ?2",
    )?;
    let own = |row: &Row<'_>| Ok(policy(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    let found = statement.query_row([arn, call.account.as_str()], own).optional()?;
    found.ok_or_else(|| {
        let arn: String = arn.chars().take(200).collect();
        refused("NoSuchEntity", 404, format!("Policy {arn} does not exist or is not attachable."))
    })
}
