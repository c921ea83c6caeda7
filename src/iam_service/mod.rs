//! IAM: users and roles, their inline policies, tags and credentials (IAM API reference), and STS, which makes more of these.
//!
//! As much of IAM as decides what a call may do: there are no groups, and policies have one version. A principal
//! that was never made here is an administrator of its account; one that was made has what its policies say
//! (`docs/iam.md`). IAM is global: its records are in us-east-1, whatever the Region of the call.

mod access_keys;
pub mod credentials;
mod entities;
pub mod given;
mod linked_roles;
mod managed;
mod policies;
pub mod sts;
mod tags;

pub use access_keys::{
    AccessKey, AccessKeyMetadata, CreateAccessKeyRequest, CreateAccessKeyResponse, DeleteAccessKeyRequest,
    ListAccessKeysRequest, ListAccessKeysResponse, UpdateAccessKeyRequest, create_access_key, delete_access_key,
    list_access_keys, update_access_key,
};

pub use entities::{
    CreateRoleRequest, CreateUserRequest, DeleteRoleRequest, DeleteUserRequest, GetRoleRequest, GetUserRequest,
    ListRolesRequest, ListRolesResponse, ListUsersRequest, ListUsersResponse, Role, RoleResponse,
    UpdateAssumeRolePolicyRequest, User, UserResponse, create_role, create_user, delete_role, delete_user, get_role,
    get_user, list_roles, list_users, update_assume_role_policy,
};
pub use linked_roles::{
    CreateServiceLinkedRoleRequest, DeleteServiceLinkedRoleRequest, DeleteServiceLinkedRoleResponse,
    create_service_linked_role, delete_service_linked_role,
};
pub use managed::{
    AttachRolePolicyRequest, AttachUserPolicyRequest, AttachedPolicy, CreatePolicyRequest, DeletePolicyRequest,
    DetachRolePolicyRequest, DetachUserPolicyRequest, GetPolicyRequest, GetPolicyVersionRequest,
    GetPolicyVersionResponse, ListAttachedPoliciesResponse, ListAttachedRolePoliciesRequest,
    ListAttachedUserPoliciesRequest, ListManagedPoliciesResponse, ListPoliciesRequest, ManagedPolicy, PolicyResponse,
    PolicyVersion, attach_role_policy, attach_user_policy, create_policy, delete_policy, detach_role_policy,
    detach_user_policy, get_policy, get_policy_version, list_attached_role_policies, list_attached_user_policies,
    list_policies,
};
pub use policies::{
    DeleteRolePolicyRequest, DeleteUserPolicyRequest, GetRolePolicyRequest, GetRolePolicyResponse,
    GetUserPolicyRequest, GetUserPolicyResponse, ListPoliciesResponse, ListRolePoliciesRequest,
    ListUserPoliciesRequest, PutRolePolicyRequest, PutUserPolicyRequest, delete_role_policy, delete_user_policy,
    get_role_policy, get_user_policy, list_role_policies, list_user_policies, put_role_policy, put_user_policy,
};
pub use tags::{
    ListRoleTagsRequest, ListTagsResponse, ListUserTagsRequest, Tag, TagRoleRequest, TagUserRequest, UntagRoleRequest,
    UntagUserRequest, list_role_tags, list_user_tags, tag_role, tag_user, untag_role, untag_user,
};

use serde_json::Value;

use crate::gate::{self, Call, Operation, Refusal, Service, ServiceError, Step};
use crate::iam::Context;
use crate::iam::directory::{self, Entity, EntityKind};

/// IAM.
pub static SERVICE: Service =
    Service { event_source: "iam.amazonaws.com", error_prefix: "", lists_resources: false, settlers: &[] };

const fn reading(name: &'static str) -> Operation {
    Operation { name, read_only: true, service: &SERVICE }
}

const fn changing(name: &'static str) -> Operation {
    Operation { name, read_only: false, service: &SERVICE }
}

/// The Region in which IAM's records are.
const REGION: &str = "us-east-1";

fn refused(code: &'static str, status: u16, message: impl Into<String>) -> ServiceError {
    ServiceError::Refused(Refusal { code, message: message.into(), status, hint: None })
}

fn invalid(message: impl Into<String>) -> ServiceError {
    refused("ValidationError", 400, message)
}

/// `User` or `Role`, as messages have it.
const fn title(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::User => "User",
        EntityKind::Role => "Role",
    }
}

fn not_found(kind: EntityKind, name: &str) -> ServiceError {
    refused("NoSuchEntity", 404, format!("The {} with name {name} cannot be found.", kind.name()))
}

/// Runs an operation through the gate, in IAM's own Region.
fn run<T>(
    call: &Call<'_>,
    operation: &Operation,
    parameters: Value,
    body: impl FnOnce(&mut Step<'_>) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    run_steps(call, operation, parameters, |_| Ok(()), |step, &mut ()| body(step))
}

/// As [`run`], with a preparation outside the transaction.
fn run_steps<P, T>(
    call: &Call<'_>,
    operation: &Operation,
    parameters: Value,
    prepare: impl FnOnce(&mut gate::Draft) -> Result<P, ServiceError>,
    commit: impl FnOnce(&mut Step<'_>, &mut P) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    let region = REGION.parse().map_err(ServiceError::machine)?;
    gate::run_steps(&Call { region, ..call.clone() }, operation, parameters, prepare, commit)
}

/// Lets the caller through or refuses it: `AccessDenied`, as IAM calls it.
fn authorise(step: &Step<'_>, operation: &Operation, resource: &str) -> Result<(), ServiceError> {
    match gate::authorise(step, &format!("iam:{}", operation.name), Some(resource), &Context::default()) {
        Err(ServiceError::Refused(refusal)) if refusal.code == "AccessDeniedException" => {
            Err(refused("AccessDenied", 403, refusal.message))
        }
        outcome => outcome,
    }
}

/// An operation on the user or role of that name, which must be there.
fn on_entity<T>(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    name: &str,
    parameters: Value,
    body: impl FnOnce(&mut Step<'_>, &Entity) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    run(call, operation, parameters, |step| {
        check_name(&format!("{}Name", kind.name()), name)?;
        let found = directory::find(step.tx, &call.account, kind, name)?;
        let arn =
            found.as_ref().map_or_else(|| format!("arn:aws:iam::{}:{}/{name}", call.account, kind.name()), Entity::arn);
        authorise(step, operation, &arn)?;
        body(step, &found.ok_or_else(|| not_found(kind, name))?)
    })
}

/// Names are 1-64 (policies: 128) letters, digits and `+=,.@_-`.
fn check_name(member: &str, name: &str) -> Result<(), ServiceError> {
    let most = if member == "policyName" { 128 } else { 64 };
    if name.is_empty() || name.chars().count() > most {
        return Err(invalid(format!(
            "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have length between 1 and {most}, inclusive"
        )));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte)) {
        return Err(invalid(format!(
            "The specified value for {member} is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
