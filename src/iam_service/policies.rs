//! Inline policies of users and roles.

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{changing, check_name, linked_roles, on_entity, reading, refused};
use crate::gate::{Call, Operation, ServiceError};
use crate::iam::directory::{Entity, EntityKind};
use crate::iam::{Policy, PolicyKind};
use crate::store::StoreError;

static PUT_USER_POLICY: Operation = changing("PutUserPolicy");
static GET_USER_POLICY: Operation = reading("GetUserPolicy");
static LIST_USER_POLICIES: Operation = reading("ListUserPolicies");
static DELETE_USER_POLICY: Operation = changing("DeleteUserPolicy");
static PUT_ROLE_POLICY: Operation = changing("PutRolePolicy");
static GET_ROLE_POLICY: Operation = reading("GetRolePolicy");
static LIST_ROLE_POLICIES: Operation = reading("ListRolePolicies");
static DELETE_ROLE_POLICY: Operation = changing("DeleteRolePolicy");

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $what:literal),+ }),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        pub struct $name {
            $(#[doc = $what] pub $field: String,)+
        }
    )+};
}

requests!(
    /// `PutUserPolicy`.
    PutUserPolicyRequest { user_name: "The user.", policy_name: "The policy's name.", policy_document: "The policy as JSON." },
    /// `GetUserPolicy`.
    GetUserPolicyRequest { user_name: "The user.", policy_name: "The policy's name." },
    /// `ListUserPolicies`.
    ListUserPoliciesRequest { user_name: "The user." },
    /// `DeleteUserPolicy`.
    DeleteUserPolicyRequest { user_name: "The user.", policy_name: "The policy's name." },
    /// `PutRolePolicy`.
    PutRolePolicyRequest { role_name: "The role.", policy_name: "The policy's name.", policy_document: "The policy as JSON." },
    /// `GetRolePolicy`.
    GetRolePolicyRequest { role_name: "The role.", policy_name: "The policy's name." },
    /// `ListRolePolicies`.
    ListRolePoliciesRequest { role_name: "The role." },
    /// `DeleteRolePolicy`.
    DeleteRolePolicyRequest { role_name: "The role.", policy_name: "The policy's name." },
);

/// What `GetUserPolicy` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetUserPolicyResponse {
    /// The user.
    pub user_name: String,
    /// The policy's name.
    pub policy_name: String,
    /// The policy, as a JSON object as the AWS CLI shows it.
    pub policy_document: Value,
}

/// What `GetRolePolicy` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetRolePolicyResponse {
    /// The role.
    pub role_name: String,
    /// The policy's name.
    pub policy_name: String,
    /// The policy, as a JSON object as the AWS CLI shows it.
    pub policy_document: Value,
}

/// What `ListUserPolicies` and `ListRolePolicies` answer: all of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListPoliciesResponse {
    /// In their order.
    pub policy_names: Vec<String>,
    /// `false`.
    pub is_truncated: bool,
}

/// Gives a user a policy, or another one of that name.
pub fn put_user_policy(call: &Call<'_>, req: PutUserPolicyRequest) -> Result<(), ServiceError> {
    put(call, &PUT_USER_POLICY, EntityKind::User, [&req.user_name, &req.policy_name, &req.policy_document])
}

/// Gives a role a policy, or another one of that name.
pub fn put_role_policy(call: &Call<'_>, req: PutRolePolicyRequest) -> Result<(), ServiceError> {
    put(call, &PUT_ROLE_POLICY, EntityKind::Role, [&req.role_name, &req.policy_name, &req.policy_document])
}

/// A policy of a user.
pub fn get_user_policy(call: &Call<'_>, req: GetUserPolicyRequest) -> Result<GetUserPolicyResponse, ServiceError> {
    let (user_name, policy_document) = get(call, &GET_USER_POLICY, EntityKind::User, &req.user_name, &req.policy_name)?;
    Ok(GetUserPolicyResponse { user_name, policy_name: req.policy_name, policy_document })
}

/// A policy of a role.
pub fn get_role_policy(call: &Call<'_>, req: GetRolePolicyRequest) -> Result<GetRolePolicyResponse, ServiceError> {
    let (role_name, policy_document) = get(call, &GET_ROLE_POLICY, EntityKind::Role, &req.role_name, &req.policy_name)?;
    Ok(GetRolePolicyResponse { role_name, policy_name: req.policy_name, policy_document })
}

/// The names of a user's policies.
pub fn list_user_policies(call: &Call<'_>, req: ListUserPoliciesRequest) -> Result<ListPoliciesResponse, ServiceError> {
    list(call, &LIST_USER_POLICIES, EntityKind::User, &req.user_name)
}

/// The names of a role's policies.
pub fn list_role_policies(call: &Call<'_>, req: ListRolePoliciesRequest) -> Result<ListPoliciesResponse, ServiceError> {
    list(call, &LIST_ROLE_POLICIES, EntityKind::Role, &req.role_name)
}

/// Takes a policy from a user, who stays without rights when it was the last.
pub fn delete_user_policy(call: &Call<'_>, req: DeleteUserPolicyRequest) -> Result<(), ServiceError> {
    delete(call, &DELETE_USER_POLICY, EntityKind::User, &req.user_name, &req.policy_name)
}

/// Takes a policy from a role.
pub fn delete_role_policy(call: &Call<'_>, req: DeleteRolePolicyRequest) -> Result<(), ServiceError> {
    delete(call, &DELETE_ROLE_POLICY, EntityKind::Role, &req.role_name, &req.policy_name)
}

/// Most characters of all inline policies of a user and of a role, white space aside (IAM user guide, "IAM and STS
/// quotas").
const fn most_characters(kind: EntityKind) -> usize {
    match kind {
        EntityKind::User => 2048,
        EntityKind::Role => 10_240,
    }
}

fn put(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    [name, policy, document]: [&str; 3],
) -> Result<(), ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name, "policyName": policy, "policyDocument": document});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        check_name("policyName", policy)?;
        linked_roles::check_unprotected(entity)?;
        if let Err(error) = Policy::parse(document, PolicyKind::Identity) {
            let found = error.to_string();
            let message = error.aws.unwrap_or_else(|| "Syntax errors in policy.".to_owned());
            return Err(refused("MalformedPolicyDocument", 400, message).with_hint(found));
        }
        let mut statement =
            step.tx.prepare_cached("SELECT document FROM iam_policies WHERE entity = ?1 AND name <> ?2")?;
        let others = statement.query_map(params![entity.row, policy], |row| row.get::<_, String>(0))?;
        let characters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
        let mut total = characters(document);
        for other in others {
            total += characters(&other?);
        }
        let most = most_characters(kind);
        if total > most {
            let message = format!("Maximum policy size of {most} bytes exceeded for {} {}", kind.name(), entity.name);
            return Err(refused("LimitExceeded", 409, message));
        }
        step.tx
            .prepare_cached("INSERT OR REPLACE INTO iam_policies (entity, name, document) VALUES (?1, ?2, ?3)")
            .map_err(StoreError::from)?
            .execute(params![entity.row, policy, document])?;
        Ok(())
    })
}

fn get(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    name: &str,
    policy: &str,
) -> Result<(String, Value), ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name, "policyName": policy});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        let mut statement =
            step.tx.prepare_cached("SELECT document FROM iam_policies WHERE entity = ?1 AND name = ?2")?;
        let document: Option<String> = statement.query_row(params![entity.row, policy], |row| row.get(0)).optional()?;
        let document = document.ok_or_else(|| no_such_policy(entity, policy))?;
        Ok((entity.name.clone(), serde_json::from_str(&document).map_err(ServiceError::machine)?))
    })
}

fn list(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    name: &str,
) -> Result<ListPoliciesResponse, ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        let mut statement = step.tx.prepare_cached("SELECT name FROM iam_policies WHERE entity = ?1 ORDER BY name")?;
        let names = statement.query_map([entity.row], |row| row.get(0))?;
        Ok(ListPoliciesResponse { policy_names: names.collect::<Result<_, _>>()?, is_truncated: false })
    })
}

fn delete(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    name: &str,
    policy: &str,
) -> Result<(), ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name, "policyName": policy});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        linked_roles::check_unprotected(entity)?;
        let gone =
            step.tx.execute("DELETE FROM iam_policies WHERE entity = ?1 AND name = ?2", params![entity.row, policy])?;
        if gone == 0 { Err(no_such_policy(entity, policy)) } else { Ok(()) }
    })
}

fn no_such_policy(entity: &Entity, policy: &str) -> ServiceError {
    let message = format!("The {} policy with name {policy} cannot be found.", entity.kind.name());
    refused("NoSuchEntity", 404, message)
}
