//! What a home is filled with from a file: principals, keys with chosen ids, aliases, policies, volumes.
//!
//! What is there already is left as it is, but for policies, trust policies and aliases, which become what the file says; so the
//! same file again changes nothing. Everything is made by the operations that a user would call, and is recorded as theirs.
//! `docs/init.md` is the file's format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ec2;
use crate::gate::{Call, Refusal, ServiceError};
use crate::iam::Principal;
use crate::iam::directory::EntityKind;
use crate::iam_service::credentials::SecretText;
use crate::iam_service::{self as iam, given};
use crate::ids::{AccountId, Region, VolumeId};
use crate::kms::{self, SecretBlob};

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct File {
    account: Option<AccountId>,
    region: Option<Region>,
    access_keys: Vec<AccessKeyItem>,
    users: Vec<UserItem>,
    roles: Vec<RoleItem>,
    keys: Vec<KeyItem>,
    volumes: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct AccessKeyItem {
    access_key_id: String,
    secret_access_key: SecretText,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct UserItem {
    user_name: String,
    path: Option<String>,
    #[serde(default)]
    tags: Vec<iam::Tag>,
    #[serde(default)]
    policies: BTreeMap<String, Value>,
    #[serde(default)]
    access_keys: Vec<AccessKeyItem>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RoleItem {
    role_name: String,
    path: Option<String>,
    description: Option<String>,
    max_session_duration: Option<i64>,
    assume_role_policy_document: Value,
    #[serde(default)]
    tags: Vec<iam::Tag>,
    #[serde(default)]
    policies: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct KeyItem {
    key_id: String,
    description: Option<String>,
    policy: Option<Value>,
    #[serde(default)]
    tags: Vec<kms::Tag>,
    #[serde(default)]
    aliases: Vec<String>,
    material: Option<SecretBlob>,
    enabled: Option<bool>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// What was made or changed, in the order of the file: ARNs, key and volume ids, aliases, access key ids.
    pub made: Vec<String>,
    /// How many other things the file names, which were there.
    pub kept: usize,
}

impl Report {
    fn note(&mut self, name: impl Into<String>, is_new: bool) {
        if is_new { self.made.push(name.into()) } else { self.kept += 1 }
    }
}

/// Fills the home with what the file says, as the root of its account (the call's, unless the file names one).
///
/// # Errors
/// `ValidationException` for a file that is not one; else the error of the operation that failed, which says of which item of the
/// file. What came before it stays.
pub fn load(call: &Call<'_>, file: &[u8]) -> Result<Report, ServiceError> {
    let file: File = serde_json::from_slice(file)
        .map_err(|error| ServiceError::refused("ValidationException", format!("The file is not one: {error}")))?;
    let account = file.account.clone().unwrap_or_else(|| call.account.clone());
    let region = file.region.clone().unwrap_or_else(|| call.region.clone());
    let call = &Call::direct(call.home, Principal::Root(account), region);
    let mut report = Report::default();
    for (index, key) in file.access_keys.iter().enumerate() {
        access_key(call, None, key, &mut report).map_err(|error| of("AccessKeys", index, error))?;
    }
    for (index, item) in file.users.iter().enumerate() {
        user(call, item, &mut report).map_err(|error| of("Users", index, error))?;
    }
    for (index, item) in file.roles.iter().enumerate() {
        role(call, item, &mut report).map_err(|error| of("Roles", index, error))?;
    }
    for (index, item) in file.keys.iter().enumerate() {
        key(call, item, &mut report).map_err(|error| of("Keys", index, error))?;
    }
    for (index, item) in file.volumes.into_iter().enumerate() {
        volume(call, item, &mut report).map_err(|error| of("Volumes", index, error))?;
    }
    Ok(report)
}

/// The error with its place in the file.
fn of(list: &str, index: usize, error: ServiceError) -> ServiceError {
    match error {
        ServiceError::Refused(refusal) => {
            let message = format!("{list}[{index}]: {}", refusal.message);
            ServiceError::Refused(Refusal { message, ..refusal })
        }
        machine => machine,
    }
}

fn access_key(
    call: &Call<'_>,
    user: Option<&str>,
    item: &AccessKeyItem,
    report: &mut Report,
) -> Result<(), ServiceError> {
    let is_new = given::put_access_key(call, user, &item.access_key_id, &item.secret_access_key)?;
    report.note(&item.access_key_id, is_new);
    Ok(())
}

fn user(call: &Call<'_>, item: &UserItem, report: &mut Report) -> Result<(), ServiceError> {
    let name = &item.user_name;
    let found = given::entity(call, EntityKind::User, name)?;
    let is_new = found.is_none();
    if is_new {
        let tags = item.tags.clone();
        iam::create_user(call, iam::CreateUserRequest { user_name: name.clone(), path: item.path.clone(), tags })?;
    }
    let entity = given::entity(call, EntityKind::User, name)?.ok_or_else(|| gone(name))?;
    report.note(entity.arn(), is_new);
    for (policy, document) in &item.policies {
        let differs = !given::has_policy(call, &entity, policy, document)?;
        if differs {
            let request = iam::PutUserPolicyRequest {
                user_name: name.clone(),
                policy_name: policy.clone(),
                policy_document: document.to_string(),
            };
            iam::put_user_policy(call, request)?;
        }
        report.note(format!("{} {policy}", entity.arn()), differs);
    }
    item.access_keys.iter().try_for_each(|key| access_key(call, Some(name), key, report))
}

fn role(call: &Call<'_>, item: &RoleItem, report: &mut Report) -> Result<(), ServiceError> {
    let name = &item.role_name;
    let trust = &item.assume_role_policy_document;
    let is_new = match given::entity(call, EntityKind::Role, name)? {
        None => {
            let request = iam::CreateRoleRequest {
                role_name: name.clone(),
                assume_role_policy_document: trust.to_string(),
                path: item.path.clone(),
                description: item.description.clone(),
                max_session_duration: item.max_session_duration,
                tags: item.tags.clone(),
            };
            iam::create_role(call, request)?;
            true
        }
        Some(found) => {
            let had = found.trust.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
            let differs = had.as_ref() != Some(trust);
            if differs {
                let request =
                    iam::UpdateAssumeRolePolicyRequest { role_name: name.clone(), policy_document: trust.to_string() };
                iam::update_assume_role_policy(call, request)?;
            }
            differs
        }
    };
    let entity = given::entity(call, EntityKind::Role, name)?.ok_or_else(|| gone(name))?;
    report.note(entity.arn(), is_new);
    for (policy, document) in &item.policies {
        let differs = !given::has_policy(call, &entity, policy, document)?;
        if differs {
            let request = iam::PutRolePolicyRequest {
                role_name: name.clone(),
                policy_name: policy.clone(),
                policy_document: document.to_string(),
            };
            iam::put_role_policy(call, request)?;
        }
        report.note(format!("{} {policy}", entity.arn()), differs);
    }
    Ok(())
}

fn gone(name: &str) -> ServiceError {
    ServiceError::machine(format!("{name} was removed while the file was being read"))
}

fn key(call: &Call<'_>, item: &KeyItem, report: &mut Report) -> Result<(), ServiceError> {
    let key_id = &item.key_id;
    let material = item.material.as_ref().map(|material| &material.0);
    let given = kms::Given { id: Some(key_id), material };
    let is_new = !kms::has_given_key(call, given)?;
    if is_new {
        let request = kms::CreateKeyRequest {
            description: item.description.clone(),
            origin: material.map(|_| "EXTERNAL".to_owned()),
            policy: item.policy.as_ref().map(Value::to_string),
            bypass_policy_lockout_safety_check: Some(true),
            multi_region: Some(key_id.starts_with("mrk-")),
            tags: item.tags.clone(),
            ..kms::CreateKeyRequest::default()
        };
        kms::create_given_key(call, request, given)?;
        if item.enabled == Some(false) {
            kms::disable_key(call, kms::DisableKeyRequest { key_id: key_id.clone() })?;
        }
    }
    report.note(key_id, is_new);
    if let Some(policy) = item.policy.as_ref().filter(|_| !is_new) {
        let differs = !kms::has_policy(call, key_id, policy)?;
        if differs {
            let request = kms::PutKeyPolicyRequest {
                key_id: key_id.clone(),
                policy: policy.to_string(),
                bypass_policy_lockout_safety_check: Some(true),
                ..kms::PutKeyPolicyRequest::default()
            };
            kms::put_key_policy(call, request)?;
        }
        report.note(format!("{key_id} policy"), differs);
    }
    for alias in &item.aliases {
        let target = kms::alias_target(call, alias)?;
        let (alias_name, target_key_id) = (alias.clone(), key_id.clone());
        match &target {
            Some(target) if target == key_id => {}
            Some(_) => kms::update_alias(call, kms::UpdateAliasRequest { alias_name, target_key_id })?,
            None => kms::create_alias(call, kms::CreateAliasRequest { alias_name, target_key_id })?,
        }
        report.note(alias, target.as_ref() != Some(key_id));
    }
    Ok(())
}

/// A volume is a request of `CreateVolume` with its id beside it.
fn volume(call: &Call<'_>, mut item: Value, report: &mut Report) -> Result<(), ServiceError> {
    let wrong = |message: String| ServiceError::refused("InvalidParameterValue", message);
    let id = item.as_object_mut().and_then(|item| item.remove("VolumeId"));
    let id = id.as_ref().and_then(Value::as_str).ok_or_else(|| wrong("A volume has a VolumeId.".to_owned()))?;
    let id: VolumeId = id.parse().map_err(|error| wrong(format!("{error}")))?;
    let request: ec2::CreateVolumeRequest = serde_json::from_value(item).map_err(|error| wrong(error.to_string()))?;
    let is_new = ec2::create_given_volume(call, request, &id)?;
    report.note(id.as_str(), is_new);
    Ok(())
}
