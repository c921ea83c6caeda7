//! Access keys of users and of the account's root (IAM user guide, "Manage access keys for IAM users").

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::credentials::{self, SecretText};
use super::{authorise, changing, check_name, invalid, not_found, reading, refused, run, run_steps};
use crate::clock::Time;
use crate::gate::{self, Call, Operation, ServiceError, Step};
use crate::iam::Principal;
use crate::iam::directory::{self, Entity, EntityKind};
use crate::kms::RootKey;

static CREATE_ACCESS_KEY: Operation = changing("CreateAccessKey");
static LIST_ACCESS_KEYS: Operation = reading("ListAccessKeys");
static UPDATE_ACCESS_KEY: Operation = changing("UpdateAccessKey");
static DELETE_ACCESS_KEY: Operation = changing("DeleteAccessKey");

/// Most access keys of a user (IAM user guide, "IAM and STS quotas").
const MOST_KEYS: i64 = 2;

/// `CreateAccessKey`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateAccessKeyRequest {
    /// The user; the caller if absent.
    pub user_name: Option<String>,
}

/// `ListAccessKeys`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListAccessKeysRequest {
    /// The user; the caller if absent.
    pub user_name: Option<String>,
}

/// `UpdateAccessKey`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateAccessKeyRequest {
    /// The user; the caller if absent.
    pub user_name: Option<String>,
    /// The key.
    pub access_key_id: String,
    /// `Active` or `Inactive`.
    pub status: String,
}

/// `DeleteAccessKey`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteAccessKeyRequest {
    /// The user; the caller if absent.
    pub user_name: Option<String>,
    /// The key.
    pub access_key_id: String,
}

/// A new access key, with its secret: the only answer that has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AccessKey {
    /// Whose it is.
    pub user_name: String,
    /// `AKIA…`.
    pub access_key_id: String,
    /// `Active`.
    pub status: String,
    /// 40 letters.
    pub secret_access_key: SecretText,
    /// When it was made.
    pub create_date: Time,
}

/// What `CreateAccessKey` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateAccessKeyResponse {
    /// The key.
    pub access_key: AccessKey,
}

/// An access key as it is listed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AccessKeyMetadata {
    /// Whose it is.
    pub user_name: String,
    /// `AKIA…`.
    pub access_key_id: String,
    /// `Active` or `Inactive`.
    pub status: String,
    /// When it was made.
    pub create_date: Option<Time>,
}

/// What `ListAccessKeys` answers: all of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListAccessKeysResponse {
    /// The oldest first.
    pub access_key_metadata: Vec<AccessKeyMetadata>,
    /// `false`.
    pub is_truncated: bool,
}

/// Makes an access key. Its secret is in this answer and, sealed, in the home.
pub fn create_access_key(
    call: &Call<'_>,
    req: CreateAccessKeyRequest,
) -> Result<CreateAccessKeyResponse, ServiceError> {
    let user = req.user_name.as_deref();
    run_steps(
        call,
        &CREATE_ACCESS_KEY,
        named(user),
        |_| RootKey::of(call.home),
        |step, root| {
            let owner = Owner::of(step, &CREATE_ACCESS_KEY, user)?;
            let mut statement =
                step.tx.prepare_cached("SELECT count(*) FROM iam_access_keys WHERE account = ?1 AND entity IS ?2")?;
            let keys: i64 = statement.query_row(params![call.account.as_str(), owner.row()], |row| row.get(0))?;
            if keys >= MOST_KEYS {
                let message = format!("Cannot exceed quota for AccessKeysPerUser: {MOST_KEYS}");
                return Err(refused("LimitExceeded", 409, message));
            }
            let entity = owner.entity.as_ref();
            let (id, secret) = credentials::new_access_key(step.tx, root, &call.account, entity, step.now)?;
            step.draft.set_response(json!({"accessKey": {
                "userName": owner.name, "accessKeyId": id, "status": "Active",
                "createDate": step.now.to_trail_date_string(),
            }}));
            Ok(CreateAccessKeyResponse {
                access_key: AccessKey {
                    user_name: owner.name,
                    access_key_id: id,
                    status: "Active".to_owned(),
                    secret_access_key: secret,
                    create_date: step.now,
                },
            })
        },
    )
}

/// The access keys of a user, without their secrets.
pub fn list_access_keys(call: &Call<'_>, req: ListAccessKeysRequest) -> Result<ListAccessKeysResponse, ServiceError> {
    let user = req.user_name.as_deref();
    run(call, &LIST_ACCESS_KEYS, named(user), |step| {
        let owner = Owner::of(step, &LIST_ACCESS_KEYS, user)?;
        let mut statement = step.tx.prepare_cached(
            "SELECT id, status, created FROM iam_access_keys WHERE account = ?1 AND entity IS ?2 ORDER BY created, id",
        )?;
        let keys = statement.query_map(params![call.account.as_str(), owner.row()], |row| {
            Ok(AccessKeyMetadata {
                user_name: owner.name.clone(),
                access_key_id: row.get(0)?,
                status: row.get(1)?,
                create_date: Time::from_micros(row.get(2)?),
            })
        })?;
        Ok(ListAccessKeysResponse { access_key_metadata: keys.collect::<Result<_, _>>()?, is_truncated: false })
    })
}

/// Makes an access key active or inactive.
pub fn update_access_key(call: &Call<'_>, req: UpdateAccessKeyRequest) -> Result<(), ServiceError> {
    let mut parameters = named(req.user_name.as_deref());
    parameters["accessKeyId"] = req.access_key_id.as_str().into();
    parameters["status"] = req.status.as_str().into();
    run(call, &UPDATE_ACCESS_KEY, parameters, |step| {
        if !matches!(req.status.as_str(), "Active" | "Inactive") {
            return Err(invalid(
                "1 validation error detected: Value at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]",
            ));
        }
        let owner = Owner::of(step, &UPDATE_ACCESS_KEY, req.user_name.as_deref())?;
        owner.key(step, &req.access_key_id)?;
        step.tx.execute("UPDATE iam_access_keys SET status = ?2 WHERE id = ?1", [&req.access_key_id, &req.status])?;
        Ok(credentials::changed(step.tx)?)
    })
}

/// Deletes an access key. What was sealed of it is overwritten and truncated from the write-ahead log, as a key's material.
pub fn delete_access_key(call: &Call<'_>, req: DeleteAccessKeyRequest) -> Result<(), ServiceError> {
    let mut parameters = named(req.user_name.as_deref());
    parameters["accessKeyId"] = req.access_key_id.as_str().into();
    run(call, &DELETE_ACCESS_KEY, parameters, |step| {
        let owner = Owner::of(step, &DELETE_ACCESS_KEY, req.user_name.as_deref())?;
        owner.key(step, &req.access_key_id)?;
        step.tx.execute("DELETE FROM iam_access_keys WHERE id = ?1", [&req.access_key_id])?;
        gate::require_truncation(step.tx)?;
        Ok(credentials::changed(step.tx)?)
    })
}

fn named(user: Option<&str>) -> Value {
    user.map_or_else(|| json!({}), |user| json!({"userName": user}))
}

/// Whose keys are meant.
struct Owner {
    /// `None`: the account's root.
    entity: Option<Entity>,
    name: String,
}

impl Owner {
    /// The user of that name, or the caller; refuses who may not do `operation` to it.
    fn of(step: &Step<'_>, operation: &Operation, name: Option<&str>) -> Result<Self, ServiceError> {
        let call = step.call;
        let name = match (name, &call.principal) {
            (Some(name), _) => {
                check_name("userName", name)?;
                name
            }
            (None, Principal::Root(account)) if *account == call.account => {
                authorise(step, operation, &call.principal.arn())?;
                // Which name AWS gives the root here is *assumed*.
                return Ok(Self { entity: None, name: "root".to_owned() });
            }
            (None, Principal::User { name, .. }) => name.rsplit('/').next().unwrap_or(name),
            (None, _) => return Err(invalid("Must specify userName when calling with non-User credentials")),
        };
        let found = directory::find(step.tx, &call.account, EntityKind::User, name)?;
        let arn = found.as_ref().map_or_else(|| format!("arn:aws:iam::{}:user/{name}", call.account), Entity::arn);
        authorise(step, operation, &arn)?;
        let entity = found.ok_or_else(|| not_found(EntityKind::User, name))?;
        Ok(Self { name: entity.name.clone(), entity: Some(entity) })
    }

    fn row(&self) -> Option<i64> {
        self.entity.as_ref().map(|entity| entity.row)
    }

    /// Refuses a key that is not the owner's.
    fn key(&self, step: &Step<'_>, id: &str) -> Result<(), ServiceError> {
        let mut statement =
            step.tx.prepare_cached("SELECT 1 FROM iam_access_keys WHERE id = ?1 AND account = ?2 AND entity IS ?3")?;
        let found = statement.query_row(params![id, step.call.account.as_str(), self.row()], |_| Ok(())).optional()?;
        let id: String = id.chars().take(128).collect();
        found.ok_or_else(|| refused("NoSuchEntity", 404, format!("The Access Key with id {id} cannot be found.")))
    }
}
