//! Service-linked roles (IAM user guide, "Create a service-linked role"). Their policies are AWS's and are not kept here
//! ([`crate::iam::linked`]).

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::entities::{self, RoleResponse};
use super::{authorise, changing, credentials, not_found, refused, run};
use crate::gate::{Call, Operation, ServiceError};
use crate::iam::directory::{self, Entity, EntityKind};
use crate::iam::linked::{self, Linked};

static CREATE_SERVICE_LINKED_ROLE: Operation = changing("CreateServiceLinkedRole");
static DELETE_SERVICE_LINKED_ROLE: Operation = changing("DeleteServiceLinkedRole");

/// `CreateServiceLinkedRole`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateServiceLinkedRoleRequest {
    /// The service, such as `autoscaling.amazonaws.com`.
    #[serde(rename = "AWSServiceName")]
    pub aws_service_name: String,
    /// What the role is for.
    pub description: Option<String>,
    /// Tells several roles of one service apart, where it may have several.
    pub custom_suffix: Option<String>,
}

/// `DeleteServiceLinkedRole`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteServiceLinkedRoleRequest {
    /// The role.
    pub role_name: String,
}

/// What `DeleteServiceLinkedRole` answers. The role is gone by then, where AWS may still be at it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteServiceLinkedRoleResponse {
    /// `task/aws-service-role/SERVICE/ROLE/UUID`.
    pub deletion_task_id: String,
}

/// Makes the role of a service, which only the service may assume and only AWS may change.
pub fn create_service_linked_role(
    call: &Call<'_>,
    req: CreateServiceLinkedRoleRequest,
) -> Result<RoleResponse, ServiceError> {
    let mut parameters = json!({"aWSServiceName": req.aws_service_name});
    for (name, value) in [("description", &req.description), ("customSuffix", &req.custom_suffix)] {
        if let Some(value) = value {
            parameters[name] = value.as_str().into();
        }
    }
    run(call, &CREATE_SERVICE_LINKED_ROLE, parameters, |step| {
        let invalid = |message: String| Err(refused("InvalidInput", 400, message));
        let service: String = req.aws_service_name.chars().take(128).collect();
        let Some(linked) = Linked::of_service(&service) else {
            // The wording is *assumed*.
            return invalid(format!("The service {service} has no service-linked role that is supported here."));
        };
        let suffix = req.custom_suffix.as_deref();
        let word = |suffix: &str| suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte));
        if suffix.is_some_and(|suffix| !linked.takes_suffix || suffix.is_empty() || suffix.len() > 32 || !word(suffix))
        {
            return invalid(format!("Custom suffix is not allowed for {service}"));
        }
        let (name, path, trust) = (linked.role(suffix), linked.path(), linked.trust());
        let entity = Entity {
            description: req.description.clone(),
            ..entities::new_entity(call, EntityKind::Role, &name, &path, Some(&trust), step.now)
        };
        authorise(step, &CREATE_SERVICE_LINKED_ROLE, &entity.arn())?;
        if directory::find(step.tx, &call.account, EntityKind::Role, &name)?.is_some() {
            return invalid(format!(
                "Service role name {name} has been taken in this account, please try a different suffix."
            ));
        }
        let entity = entities::insert(step.tx, entity)?;
        step.draft.set_response(json!({"role": entities::recorded(&entity, step.now)}));
        Ok(RoleResponse { role: entities::role(step, &entity)? })
    })
}

/// Removes the role of a service, at once: nothing here uses it behind its caller's back.
pub fn delete_service_linked_role(
    call: &Call<'_>,
    req: DeleteServiceLinkedRoleRequest,
) -> Result<DeleteServiceLinkedRoleResponse, ServiceError> {
    run(call, &DELETE_SERVICE_LINKED_ROLE, json!({"roleName": req.role_name}), |step| {
        let found = directory::find(step.tx, &call.account, EntityKind::Role, &req.role_name)?;
        let found = found.filter(|role| linked::is_linked(&role.name));
        let arn =
            found.as_ref().map_or_else(|| format!("arn:aws:iam::{}:role/{}", call.account, req.role_name), Entity::arn);
        authorise(step, &DELETE_SERVICE_LINKED_ROLE, &arn)?;
        let role = found.ok_or_else(|| not_found(EntityKind::Role, &req.role_name))?;
        step.tx.execute("DELETE FROM iam_entities WHERE entity = ?1", [role.row])?;
        credentials::changed(step.tx)?;
        let path = role.path.trim_end_matches('/');
        let task = format!("task{path}/{}/{}", role.name, crate::ids::uuid());
        step.draft.set_response(json!({"deletionTaskId": task}));
        Ok(DeleteServiceLinkedRoleResponse { deletion_task_id: task })
    })
}

/// Refuses to change what only AWS may change.
pub(super) fn check_unprotected(entity: &Entity) -> Result<(), ServiceError> {
    if entity.kind != EntityKind::Role || !linked::is_linked(&entity.name) {
        return Ok(());
    }
    let message = format!(
        "Cannot perform the operation on the protected role '{}' - this role is only modifiable by AWS",
        entity.name
    );
    Err(refused("UnmodifiableEntity", 400, message))
}
