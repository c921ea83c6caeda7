//! Users and roles: made, looked at, listed, removed.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::tags::{self, Tag};
use super::{
    authorise, changing, check_name, credentials, invalid, linked_roles, on_entity, reading, refused, run, title,
};
use crate::clock::Time;
use crate::gate::{Call, Operation, ServiceError, Step};
use crate::iam::directory::{self, Entity, EntityKind};
use crate::iam::{self, Policy, PolicyKind, Principal, linked};
use crate::store::{StoreError, Transaction};

static CREATE_USER: Operation = changing("CreateUser");
static GET_USER: Operation = reading("GetUser");
static LIST_USERS: Operation = reading("ListUsers");
static DELETE_USER: Operation = changing("DeleteUser");
static CREATE_ROLE: Operation = changing("CreateRole");
static GET_ROLE: Operation = reading("GetRole");
static LIST_ROLES: Operation = reading("ListRoles");
static DELETE_ROLE: Operation = changing("DeleteRole");
static UPDATE_ASSUME_ROLE_POLICY: Operation = changing("UpdateAssumeRolePolicy");

/// `CreateUser`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateUserRequest {
    /// 1-64 letters, digits and `+=,.@_-`; unique in any case.
    pub user_name: String,
    /// `/` if absent, else with a slash at both ends.
    pub path: Option<String>,
    /// Up to 50 tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// `CreateRole`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateRoleRequest {
    /// 1-64 letters, digits and `+=,.@_-`; unique in any case.
    pub role_name: String,
    /// Who may assume it, as JSON.
    pub assume_role_policy_document: String,
    /// `/` if absent, else with a slash at both ends.
    pub path: Option<String>,
    /// What it is for, up to 1000 characters.
    pub description: Option<String>,
    /// Its longest session in seconds: 3600 (if absent) to 43,200.
    pub max_session_duration: Option<i64>,
    /// Up to 50 tags, which a session's principal tags are.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// `UpdateAssumeRolePolicy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateAssumeRolePolicyRequest {
    /// The role.
    pub role_name: String,
    /// Who may assume it, as JSON.
    pub policy_document: String,
}

macro_rules! name_request {
    ($($(#[$doc:meta])* $name:ident { $field:ident }),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        pub struct $name {
            /// Its name.
            pub $field: String,
        }
    )+};
}

name_request!(
    /// `GetUser`.
    GetUserRequest { user_name },
    /// `DeleteUser`.
    DeleteUserRequest { user_name },
    /// `GetRole`.
    GetRoleRequest { role_name },
    /// `DeleteRole`.
    DeleteRoleRequest { role_name },
);

macro_rules! list_request {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        pub struct $name {
            /// Only those whose path begins so.
            pub path_prefix: Option<String>,
        }
    )+};
}

list_request!(
    /// `ListUsers`.
    ListUsersRequest,
    /// `ListRoles`.
    ListRolesRequest,
);

/// A user.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct User {
    /// `/`, or `/a/b/`.
    pub path: String,
    /// Its name.
    pub user_name: String,
    /// `AIDA…`, derived from the ARN (ours).
    pub user_id: String,
    /// Its ARN.
    pub arn: String,
    /// When it was made.
    pub create_date: Option<Time>,
    /// Its tags, if it has any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// A role.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Role {
    /// `/`, or `/a/b/`.
    pub path: String,
    /// Its name.
    pub role_name: String,
    /// `AROA…`, derived from the ARN (ours).
    pub role_id: String,
    /// Its ARN.
    pub arn: String,
    /// When it was made.
    pub create_date: Option<Time>,
    /// Its trust policy.
    pub assume_role_policy_document: Value,
    /// What it is for; not in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its longest session in seconds; not in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_session_duration: Option<i64>,
    /// Its tags, if it has any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// What `CreateUser` and `GetUser` answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UserResponse {
    /// The user.
    pub user: User,
}

/// What `CreateRole` and `GetRole` answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RoleResponse {
    /// The role.
    pub role: Role,
}

/// What `ListUsers` answers: all of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListUsersResponse {
    /// In the order of their names.
    pub users: Vec<User>,
    /// `false`.
    pub is_truncated: bool,
}

/// What `ListRoles` answers: all of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListRolesResponse {
    /// In the order of their names.
    pub roles: Vec<Role>,
    /// `false`.
    pub is_truncated: bool,
}

/// Makes a user, who may do nothing until a policy says so.
pub fn create_user(call: &Call<'_>, req: CreateUserRequest) -> Result<UserResponse, ServiceError> {
    let new =
        New { kind: EntityKind::User, name: &req.user_name, path: req.path.as_deref(), tags: &req.tags, role: None };
    create(call, &CREATE_USER, &new, |step, entity| Ok(UserResponse { user: user(step, entity)? }))
}

/// Makes a role, whose sessions may do nothing until a policy says so.
pub fn create_role(call: &Call<'_>, req: CreateRoleRequest) -> Result<RoleResponse, ServiceError> {
    let (name, path) = (req.role_name.as_str(), req.path.as_deref());
    let new = New { kind: EntityKind::Role, name, path, tags: &req.tags, role: Some(&req) };
    create(call, &CREATE_ROLE, &new, |step, entity| {
        // As AWS answers: what a role is for and its longest session are shown by those who look at it.
        let role = Role { description: None, max_session_duration: None, ..role(step, entity)? };
        Ok(RoleResponse { role })
    })
}

/// Says anew who may assume a role.
pub fn update_assume_role_policy(call: &Call<'_>, req: UpdateAssumeRolePolicyRequest) -> Result<(), ServiceError> {
    let parameters = json!({"roleName": req.role_name, "policyDocument": req.policy_document});
    on_entity(call, &UPDATE_ASSUME_ROLE_POLICY, EntityKind::Role, &req.role_name, parameters, |step, entity| {
        linked_roles::check_unprotected(entity)?;
        check_trust(&req.policy_document)?;
        step.tx.execute(
            "UPDATE iam_entities SET trust = ?2 WHERE entity = ?1",
            params![entity.row, req.policy_document],
        )?;
        Ok(())
    })
}

struct New<'a> {
    kind: EntityKind,
    name: &'a str,
    path: Option<&'a str>,
    tags: &'a [Tag],
    role: Option<&'a CreateRoleRequest>,
}

impl New<'_> {
    fn recorded(&self) -> Value {
        let mut parameters = json!({format!("{}Name", self.kind.name()): self.name});
        let role = self.role;
        for (name, value) in [
            ("path", self.path),
            ("assumeRolePolicyDocument", role.map(|role| role.assume_role_policy_document.as_str())),
            ("description", role.and_then(|role| role.description.as_deref())),
        ] {
            if let Some(value) = value {
                parameters[name] = value.into();
            }
        }
        if let Some(seconds) = role.and_then(|role| role.max_session_duration) {
            parameters["maxSessionDuration"] = seconds.into();
        }
        if !self.tags.is_empty() {
            parameters["tags"] = tags::recorded(self.tags);
        }
        parameters
    }

    fn check(&self) -> Result<(), ServiceError> {
        check_name(&format!("{}Name", self.kind.name()), self.name)?;
        check_path(self.path.unwrap_or("/"))?;
        tags::check(self.tags)?;
        let Some(role) = self.role else { return Ok(()) };
        if linked::is_linked(self.name) {
            // That the name is reserved is documented, its error is *assumed*.
            return Err(refused("InvalidInput", 400, "Names that begin with AWSServiceRoleFor are reserved."));
        }
        if role.description.as_ref().is_some_and(|description| description.chars().count() > 1000) {
            return Err(invalid(
                "1 validation error detected: Value at 'description' failed to satisfy constraint: Member must have length less than or equal to 1000",
            ));
        }
        if let Some(seconds) = role.max_session_duration.filter(|seconds| !(3600..=43_200).contains(seconds)) {
            let bound = if seconds < 3600 { "greater than or equal to 3600" } else { "less than or equal to 43200" };
            return Err(invalid(format!(
                "1 validation error detected: Value '{seconds}' at 'maxSessionDuration' failed to satisfy constraint: Member must have value {bound}"
            )));
        }
        check_trust(&role.assume_role_policy_document)
    }
}

fn check_trust(document: &str) -> Result<(), ServiceError> {
    match Policy::parse(document, PolicyKind::Trust) {
        Ok(_) => Ok(()),
        Err(error) => Err(refused("MalformedPolicyDocument", 400, error.to_string())),
    }
}

fn create<T: Serialize>(
    call: &Call<'_>,
    operation: &Operation,
    new: &New<'_>,
    answer: impl FnOnce(&Step<'_>, &Entity) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    let kind = new.kind;
    run(call, operation, new.recorded(), |step| {
        new.check()?;
        let trust = new.role.map(|role| role.assume_role_policy_document.as_str());
        let entity = new_entity(call, kind, new.name, new.path.unwrap_or("/"), trust, step.now);
        let entity = Entity {
            description: new.role.and_then(|role| role.description.clone()),
            max_session: new.role.and_then(|role| role.max_session_duration).unwrap_or(entity.max_session),
            ..entity
        };
        authorise(step, operation, &entity.arn())?;
        if directory::find(step.tx, &call.account, kind, new.name)?.is_some() {
            let message = format!("{} with name {} already exists.", title(kind), new.name);
            return Err(refused("EntityAlreadyExists", 409, message));
        }
        let entity = insert(step.tx, entity)?;
        tags::put(step.tx, &entity, new.tags)?;
        step.draft.set_response(json!({kind.name(): recorded(&entity, step.now)}));
        answer(step, &entity)
    })
}

/// A user or role that is not in the store yet.
pub(super) fn new_entity(
    call: &Call<'_>,
    kind: EntityKind,
    name: &str,
    path: &str,
    trust: Option<&str>,
    now: Time,
) -> Entity {
    let account = call.account.clone();
    let principal = match kind {
        EntityKind::User => Principal::User { account, name: format!("{}{name}", &path[1..]) },
        EntityKind::Role => Principal::AssumedRole { account, role: name.to_owned(), session: String::new() },
    };
    Entity {
        row: 0,
        account: call.account.clone(),
        kind,
        name: name.to_owned(),
        path: path.to_owned(),
        id: iam::unique_id(&principal).unwrap_or_default(),
        created: now.micros(),
        trust: trust.map(str::to_owned),
        description: None,
        max_session: 3600,
    }
}

pub(super) fn insert(tx: &Transaction<'_>, entity: Entity) -> Result<Entity, StoreError> {
    tx.prepare_cached(
        "INSERT INTO iam_entities (account, kind, name, path, id, created, trust, description, max_session)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        entity.account.as_str(),
        entity.kind.name(),
        entity.name,
        entity.path,
        entity.id,
        entity.created,
        entity.trust,
        entity.description,
        entity.max_session
    ])?;
    Ok(Entity { row: tx.last_insert_rowid(), ..entity })
}

/// A new user or role as CloudTrail shows it.
pub(super) fn recorded(entity: &Entity, now: Time) -> Value {
    let kind = entity.kind.name();
    let mut recorded = json!({
        "path": entity.path, format!("{kind}Name"): entity.name, format!("{kind}Id"): entity.id,
        "arn": entity.arn(), "createDate": now.to_trail_date_string(),
    });
    if let Some(trust) = &entity.trust {
        recorded["assumeRolePolicyDocument"] = trust.as_str().into();
    }
    recorded
}

/// A path is `/`, or begins and ends with a slash; up to 512 printable characters.
pub(super) fn check_path(path: &str) -> Result<(), ServiceError> {
    let fits = path == "/" || path.len() > 2 && path.starts_with('/') && path.ends_with('/');
    if fits && path.len() <= 512 && path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(invalid(
        "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.",
    ))
}

/// A user with its tags.
pub fn get_user(call: &Call<'_>, req: GetUserRequest) -> Result<UserResponse, ServiceError> {
    let parameters = json!({"userName": req.user_name});
    on_entity(call, &GET_USER, EntityKind::User, &req.user_name, parameters, |step, entity| {
        Ok(UserResponse { user: user(step, entity)? })
    })
}

/// A role with its tags.
pub fn get_role(call: &Call<'_>, req: GetRoleRequest) -> Result<RoleResponse, ServiceError> {
    let parameters = json!({"roleName": req.role_name});
    on_entity(call, &GET_ROLE, EntityKind::Role, &req.role_name, parameters, |step, entity| {
        Ok(RoleResponse { role: role(step, entity)? })
    })
}

/// The account's users.
pub fn list_users(call: &Call<'_>, req: ListUsersRequest) -> Result<ListUsersResponse, ServiceError> {
    let users = list(call, &LIST_USERS, EntityKind::User, req.path_prefix.as_deref(), user)?;
    Ok(ListUsersResponse { users, is_truncated: false })
}

/// The account's roles.
pub fn list_roles(call: &Call<'_>, req: ListRolesRequest) -> Result<ListRolesResponse, ServiceError> {
    let roles = list(call, &LIST_ROLES, EntityKind::Role, req.path_prefix.as_deref(), role)?;
    Ok(ListRolesResponse { roles, is_truncated: false })
}

fn list<T>(
    call: &Call<'_>,
    operation: &Operation,
    kind: EntityKind,
    prefix: Option<&str>,
    shown: impl Fn(&Step<'_>, &Entity) -> Result<T, ServiceError>,
) -> Result<Vec<T>, ServiceError> {
    let parameters = prefix.map_or(Value::Null, |prefix| json!({"pathPrefix": prefix}));
    run(call, operation, parameters, |step| {
        authorise(step, operation, &format!("arn:aws:iam::{}:{}/", call.account, kind.name()))?;
        let mut statement =
            step.tx.prepare_cached("SELECT name FROM iam_entities WHERE account = ?1 AND kind = ?2 ORDER BY name")?;
        let names = statement.query_map([call.account.as_str(), kind.name()], |row| row.get::<_, String>(0))?;
        let mut found = Vec::new();
        for name in names.collect::<Result<Vec<_>, _>>()? {
            if let Some(entity) = directory::find(step.tx, &call.account, kind, &name)?
                && entity.path.starts_with(prefix.unwrap_or("/"))
            {
                found.push(shown(step, &entity)?);
            }
        }
        Ok(found)
    })
}

/// Removes a user that has no policies and no access keys.
pub fn delete_user(call: &Call<'_>, req: DeleteUserRequest) -> Result<(), ServiceError> {
    delete(call, &DELETE_USER, EntityKind::User, &req.user_name)
}

/// Removes a role that has no policies.
pub fn delete_role(call: &Call<'_>, req: DeleteRoleRequest) -> Result<(), ServiceError> {
    delete(call, &DELETE_ROLE, EntityKind::Role, &req.role_name)
}

fn delete(call: &Call<'_>, operation: &Operation, kind: EntityKind, name: &str) -> Result<(), ServiceError> {
    let parameters = json!({format!("{}Name", kind.name()): name});
    on_entity(call, operation, kind, name, parameters, |step, entity| {
        linked_roles::check_unprotected(entity)?;
        if step.tx.prepare_cached("SELECT 1 FROM iam_access_keys WHERE entity = ?1")?.exists([entity.row])? {
            return Err(refused("DeleteConflict", 409, "Cannot delete entity, must delete access keys first."));
        }
        if step.tx.prepare_cached("SELECT 1 FROM iam_attached WHERE entity = ?1")?.exists([entity.row])? {
            return Err(refused("DeleteConflict", 409, "Cannot delete entity, must detach all policies first."));
        }
        if step.tx.prepare_cached("SELECT 1 FROM iam_policies WHERE entity = ?1")?.exists([entity.row])? {
            return Err(refused("DeleteConflict", 409, "Cannot delete entity, must delete policies first."));
        }
        step.tx.execute("DELETE FROM iam_entities WHERE entity = ?1", [entity.row])?;
        Ok(credentials::changed(step.tx)?)
    })
}

fn user(step: &Step<'_>, entity: &Entity) -> Result<User, ServiceError> {
    Ok(User {
        path: entity.path.clone(),
        user_name: entity.name.clone(),
        user_id: entity.id.clone(),
        arn: entity.arn(),
        create_date: Time::from_micros(entity.created),
        tags: tags::of(step.tx, entity)?,
    })
}

pub(super) fn role(step: &Step<'_>, entity: &Entity) -> Result<Role, ServiceError> {
    Ok(Role {
        path: entity.path.clone(),
        role_name: entity.name.clone(),
        role_id: entity.id.clone(),
        arn: entity.arn(),
        create_date: Time::from_micros(entity.created),
        assume_role_policy_document: serde_json::from_str(entity.trust.as_deref().unwrap_or("null"))
            .map_err(ServiceError::machine)?,
        description: entity.description.clone(),
        max_session_duration: Some(entity.max_session),
        tags: tags::of(step.tx, entity)?,
    })
}
