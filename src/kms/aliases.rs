//! `CreateAlias`, `UpdateAlias`, `DeleteAlias`, `ListAliases`.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::Time;
use crate::gate::{self, Call, ServiceError, Step};
use crate::iam::Context;
use crate::store::StoreError;

use super::access::{Subject, authorise, authorise_account, authorise_account_with, named_key};
use super::keyring::{self, Key, alias_arn};
use super::managed::ManagedAlias;
use super::operations::{CREATE_ALIAS, DELETE_ALIAS, LIST_ALIASES, UPDATE_ALIAS};
use super::page::{Marker, page_limit};
use super::validate::{Validation, invalid};
use super::{keys, states};

/// `CreateAlias`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateAliasRequest {
    /// `alias/` and letters, digits, `/`, `_`, `-`; not `alias/aws/`.
    pub alias_name: String,
    /// A key id or key ARN.
    pub target_key_id: String,
}

/// `UpdateAlias`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateAliasRequest {
    /// An alias that exists.
    pub alias_name: String,
    /// A key id or key ARN.
    pub target_key_id: String,
}

/// `DeleteAlias`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteAliasRequest {
    /// An alias that exists.
    pub alias_name: String,
}

/// `ListAliases`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListAliasesRequest {
    /// Only those of this key.
    pub key_id: Option<String>,
    /// At most so many, 1-100; 50 if absent.
    pub limit: Option<i64>,
    /// Where the last answer ended.
    pub marker: Option<String>,
}

/// What `ListAliases` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListAliasesResponse {
    /// In the order of their names.
    pub aliases: Vec<AliasListEntry>,
    /// With which the rest is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
    /// Whether there is a rest.
    pub truncated: bool,
}

/// One alias of `ListAliases`. A predefined one has no target and no dates until its key is needed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AliasListEntry {
    /// With `alias/`.
    pub alias_name: String,
    /// Its ARN.
    pub alias_arn: String,
    /// The key that it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_key_id: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_date: Option<Time>,
    /// When it last came to another key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated_date: Option<Time>,
}

/// Gives a key a name.
pub fn create_alias(call: &Call<'_>, req: CreateAliasRequest) -> Result<(), ServiceError> {
    let parameters = json!({"aliasName": req.alias_name, "targetKeyId": req.target_key_id});
    gate::run(call, &CREATE_ALIAS, parameters, |step| {
        let mut validation = Validation::default();
        validation.length("aliasName", &req.alias_name, 1..=256).key_id("targetKeyId", &req.target_key_id).finish()?;
        check_name(&req.alias_name)?;
        authorise_alias(step, "CreateAlias", &req.alias_name)?;
        let key = target(step, &req.target_key_id, "CreateAlias")?;
        note(step, &req.alias_name);
        if keyring::alias_target(step.tx, &call.account, &call.region, &req.alias_name)?.is_some() {
            let arn = alias_arn(&call.region, &call.account, &req.alias_name);
            let message = format!("An alias with the name {arn} already exists");
            return Err(ServiceError::refused("AlreadyExistsException", message));
        }
        states::check("CreateAlias", &key)?;
        step.tx.execute(
            "INSERT INTO kms_aliases (account, region, name, target, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
            params![call.account.as_str(), call.region.as_str(), req.alias_name, key.id, step.now.micros()],
        )?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Gives an alias to another key.
pub fn update_alias(call: &Call<'_>, req: UpdateAliasRequest) -> Result<(), ServiceError> {
    let parameters = json!({"aliasName": req.alias_name, "targetKeyId": req.target_key_id});
    gate::run(call, &UPDATE_ALIAS, parameters, |step| {
        let mut validation = Validation::default();
        validation.length("aliasName", &req.alias_name, 1..=256).key_id("targetKeyId", &req.target_key_id).finish()?;
        check_name(&req.alias_name)?;
        note(step, &req.alias_name);
        authorise_alias(step, "UpdateAlias", &req.alias_name)?;
        let old = current(step, &req.alias_name)?;
        authorise(step, &old, "UpdateAlias", None, Subject::Key)?;
        let key = target(step, &req.target_key_id, "UpdateAlias")?;
        states::check("UpdateAlias", &key)?;
        step.tx.execute(
            "UPDATE kms_aliases SET target = ?4, updated = ?5 WHERE account = ?1 AND region = ?2 AND name = ?3",
            params![call.account.as_str(), call.region.as_str(), req.alias_name, key.id, step.now.micros()],
        )?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Takes a name from a key.
pub fn delete_alias(call: &Call<'_>, req: DeleteAliasRequest) -> Result<(), ServiceError> {
    gate::run(call, &DELETE_ALIAS, json!({"aliasName": req.alias_name}), |step| {
        let mut validation = Validation::default();
        validation.length("aliasName", &req.alias_name, 1..=256).finish()?;
        check_name(&req.alias_name)?;
        note(step, &req.alias_name);
        authorise_alias(step, "DeleteAlias", &req.alias_name)?;
        let key = current(step, &req.alias_name)?;
        authorise(step, &key, "DeleteAlias", None, Subject::Key)?;
        states::check("DeleteAlias", &key)?;
        step.tx.execute(
            "DELETE FROM kms_aliases WHERE account = ?1 AND region = ?2 AND name = ?3",
            [call.account.as_str(), call.region.as_str(), &req.alias_name],
        )?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

fn check_name(name: &str) -> Result<(), ServiceError> {
    if !name.starts_with("alias/") {
        return Err(invalid(
            "Alias must start with the prefix \"alias/\". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html",
        ));
    }
    if name.starts_with("alias/aws/") {
        return Err(ServiceError::refused("NotAuthorizedException", ""));
    }
    if name.contains(':') {
        return Err(invalid(format!("{name} contains invalid characters for an alias")));
    }
    let mut validation = Validation::default();
    validation
        .pattern("aliasName", name, "^[a-zA-Z0-9:/_-]+$", |c| c.is_ascii_alphanumeric() || ":/_-".contains(c))
        .finish()?;
    if name == "alias/" {
        return Err(invalid("Invalid identifier"));
    }
    Ok(())
}

/// Whether the caller may do this to the alias: identity policies say so, beside what is asked of its key (AWS KMS developer
/// guide, "Controlling access to aliases").
fn authorise_alias(step: &Step<'_>, operation: &str, name: &str) -> Result<(), ServiceError> {
    let arn = alias_arn(&step.call.region, &step.call.account, name);
    authorise_account_with(step, operation, &arn, &Context::default())
}

/// The key that an alias comes to. AWS takes a key id or key ARN here, no other alias.
fn target(step: &mut Step<'_>, key_id: &str, operation: &str) -> Result<Key, ServiceError> {
    if keyring::as_alias(step.call, key_id).is_some() {
        return Err(invalid("Aliases must refer to keys. Not aliases"));
    }
    named_key(step, key_id, operation, None).map(|(key, _)| key)
}

/// The key that an alias stands for now.
fn current(step: &mut Step<'_>, name: &str) -> Result<Key, ServiceError> {
    let (account, region) = (&step.call.account, &step.call.region);
    let id = keyring::alias_target(step.tx, account, region, name)?
        .ok_or_else(|| keyring::alias_not_found(region, account, name))?;
    let key = keyring::find(step.tx, &id)?.ok_or_else(|| keyring::alias_not_found(region, account, name))?;
    key.note(step.draft);
    Ok(key)
}

/// Puts the alias into the record, with the type of a key, as the KMS guide's examples have it.
fn note(step: &mut Step<'_>, name: &str) {
    let arn = alias_arn(&step.call.region, &step.call.account, name);
    step.draft.resource("AWS::KMS::Key", &arn, &step.call.account);
}

/// The account's aliases, or a key's, page by page.
pub fn list_aliases(call: &Call<'_>, req: ListAliasesRequest) -> Result<ListAliasesResponse, ServiceError> {
    let mut parameters = keys::paging_parameters(req.limit, req.marker.as_deref());
    if let Some(key_id) = &req.key_id {
        parameters["keyId"] = key_id.as_str().into();
    }
    gate::run(call, &LIST_ALIASES, parameters, |step| {
        let mut validation = Validation::default();
        if let Some(key_id) = &req.key_id {
            validation.key_id("keyId", key_id);
        }
        let limit = page_limit(&mut validation, req.limit, 50, 100);
        let after = Marker::read(&mut validation, req.marker.as_deref());
        validation.finish()?;
        let after = after?;
        let key = if let Some(key_id) = &req.key_id {
            Some(target(step, key_id, "ListAliases")?)
        } else {
            authorise_account(step, "ListAliases")?;
            None
        };
        let mut aliases = stored(step, key.as_ref(), &after, limit + 1)?;
        if key.is_none() {
            add_predefined(step, &mut aliases, &after);
        }
        let next_marker = Marker::next(&mut aliases, limit, |alias| &alias.alias_name);
        Ok(ListAliasesResponse { aliases, truncated: next_marker.is_some(), next_marker })
    })
}

fn stored(step: &Step<'_>, key: Option<&Key>, after: &str, limit: usize) -> Result<Vec<AliasListEntry>, StoreError> {
    let (account, region) = (&step.call.account, &step.call.region);
    let mut statement = step.tx.prepare_cached(
        "SELECT name, target, created, updated FROM kms_aliases
         WHERE account = ?1 AND region = ?2 AND name > ?3 AND (?4 IS NULL OR target = ?4) ORDER BY name LIMIT ?5",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let key = key.map(|key| key.id.as_str());
    let entries = statement.query_map(params![account.as_str(), region.as_str(), after, key, limit], |row| {
        let name: String = row.get(0)?;
        Ok(AliasListEntry {
            alias_arn: alias_arn(region, account, &name),
            alias_name: name,
            target_key_id: row.get::<_, Option<String>>(1)?.map(|row| keyring::public_id(&row).to_owned()),
            creation_date: Some(keyring::time(row, 2)?),
            last_updated_date: Some(keyring::time(row, 3)?),
        })
    })?;
    Ok(entries.collect::<Result<_, _>>()?)
}

/// Adds the predefined aliases that stand for no key yet, in their places. (A page that ends before such a place is cut
/// there by the caller.)
fn add_predefined(step: &Step<'_>, aliases: &mut Vec<AliasListEntry>, after: &str) {
    for alias in ManagedAlias::ALL {
        let place = aliases.partition_point(|entry| entry.alias_name.as_str() < alias.name());
        let known = aliases.get(place).is_some_and(|entry| entry.alias_name == alias.name());
        if !known && alias.name() > after {
            let entry = AliasListEntry {
                alias_name: alias.name().to_owned(),
                alias_arn: alias_arn(&step.call.region, &step.call.account, alias.name()),
                target_key_id: None,
                creation_date: None,
                last_updated_date: None,
            };
            aliases.insert(place, entry);
        }
    }
}
