//! Keys of a scratch home, as somebody else describes them: made for `explain`, which needs no real key.
//!
//! The material of such a key is made up. What is wrapped under it opens here and nowhere else.

use jiff::SignedDuration;
use rusqlite::params;
use serde::Deserialize;
use serde_json::Value;

use crate::clock::Time;
use crate::gate::{Call, ServiceError};
use crate::iam::{Policy, PolicyKind};
use crate::ids::{AccountId, Region};
use crate::secret::SecretBytes;
use crate::store::{self, Home, StoreError, Transaction};

use super::blob::Blob;
use super::context::EncryptionContext;
use super::envelope::{self, BlobHeader};
use super::grant::{self, Grant, GrantConstraints};
use super::keyring::{self, Key, MultiRegionKeyType};
use super::managed::ManagedAlias;
use super::materials;
use super::root::RootKey;
use super::states::{KeyState, Origin};

/// Bytes of a made-up data key, as EBS asks for them.
const DATA_KEY_BYTES: usize = 64;

/// What `kms describe-key` prints of a key, as far as it decides anything.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    arn: String,
    #[serde(default)]
    description: String,
    key_state: String,
    #[serde(default)]
    key_spec: Option<String>,
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    multi_region: bool,
    #[serde(default)]
    multi_region_configuration: Option<MultiRegionConfiguration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MultiRegionConfiguration {
    multi_region_key_type: String,
}

fn wrong(what: impl Into<String>) -> ServiceError {
    ServiceError::machine(what.into())
}

fn write<T>(home: &Home, body: impl FnOnce(&Transaction<'_>) -> Result<T, ServiceError>) -> Result<T, ServiceError> {
    if home.is_scratch() { home.write(body) } else { Err(wrong("nothing is assumed of a real home")) }
}

/// Something about a key that a description may leave out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    Grants,
    Aliases,
    Tags,
}

fn untold(what: Told, row: &str) -> String {
    format!("untold {what:?} {row}")
}

/// Whether it is known of the key: always, unless the key was described without it.
pub(super) fn is_told(tx: &Transaction<'_>, key: &Key, what: Told) -> Result<bool, StoreError> {
    Ok(store::setting(tx, &untold(what, &key.id))?.is_none())
}

fn tell(tx: &Transaction<'_>, key: &Key, what: Told) -> Result<(), ServiceError> {
    tx.execute("DELETE FROM settings WHERE name = ?1", [untold(what, &key.id)])?;
    Ok(())
}

/// The policy of a key that was described without one. Both what it allows and what it denies hang on a condition that
/// cannot be told, so that whatever is asked of it cannot be told.
const UNTOLD_POLICY: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Sid": "NotTold", "Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*",
     "Condition": {"Bool": {"untold:key-policy": "true"}}},
    {"Sid": "NotTold", "Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*",
     "Condition": {"Bool": {"untold:key-policy": "true"}}}]}"#;

/// Account, Region and id in a key's ARN.
fn parts(arn: &str) -> Result<(Region, AccountId, &str), ServiceError> {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    if let ["arn", _, "kms", region, account, resource] = parts[..]
        && let (Ok(region), Ok(account), Some(id)) = (region.parse(), account.parse(), resource.strip_prefix("key/"))
    {
        return Ok((region, account, id));
    }
    Err(wrong(format!("'{arn}' is not the ARN of a key")))
}

/// Puts a key into a scratch home as `kms describe-key` prints it (its `KeyMetadata`); answers its ARN. Its policy, grants,
/// aliases and tags are not known until they are told.
///
/// # Errors
/// If it is not such a key. One that EBS and RDS cannot use is left out: `None`.
pub fn assume_key(home: &Home, metadata: &Value) -> Result<Option<String>, ServiceError> {
    let described: Described = serde_json::from_value(metadata.clone()).map_err(ServiceError::machine)?;
    let (region, account, id) = parts(&described.arn)?;
    if described.key_spec.is_some_and(|spec| spec != "SYMMETRIC_DEFAULT") {
        return Ok(None);
    }
    let unknown = |what: &str, found: &str| wrong(format!("{}: {what} '{found}' is not known", described.arn));
    let state = KeyState::from_name(&described.key_state).ok_or_else(|| unknown("KeyState", &described.key_state))?;
    // Of a key in a key store of the user's own nothing is known that a state or a policy could ask for.
    let Some(origin) = Origin::from_name(described.origin.as_deref().unwrap_or("AWS_KMS")) else { return Ok(None) };
    let replica = described.multi_region_configuration.is_some_and(|of| of.multi_region_key_type == "REPLICA");
    let kind = if replica { MultiRegionKeyType::Replica } else { MultiRegionKeyType::Primary };
    RootKey::ensure(home)?;
    write(home, |tx| {
        if key(tx, &described.arn).is_ok() {
            return Ok(Some(described.arn.clone()));
        }
        let now = store::clock(tx)?.now();
        let key = Key {
            id: if replica { keyring::replica_row(id, &region) } else { id.to_owned() },
            account,
            region,
            only_via: None,
            description: described.description,
            state: KeyState::Enabled,
            created: now,
            deletion: None,
            window_days: None,
            origin,
            multi_region: described.multi_region.then_some(kind),
            material_id: None,
            rotation: None,
        };
        let key = keyring::create(tx, &RootKey::load(home, tx)?, key)?;
        put_policy(tx, &key, UNTOLD_POLICY)?;
        for what in [Told::Grants, Told::Aliases, Told::Tags] {
            store::set_setting(tx, &untold(what, &key.id), "")?;
        }
        match state {
            KeyState::PendingDeletion => keyring::set_deletion(tx, &key, in_days(now, 30))?,
            state => keyring::set_state(tx, &key, state)?,
        }
        Ok(Some(key.arn()))
    })
}

fn in_days(now: Time, days: i64) -> Time {
    now.after(SignedDuration::from_hours(24 * days))
}

fn key(tx: &Transaction<'_>, arn: &str) -> Result<Key, ServiceError> {
    let (region, account, id) = parts(arn)?;
    keyring::find_in(tx, id, &region)?
        .filter(|key| key.account == account)
        .ok_or_else(|| wrong(format!("{arn} is not described")))
}

/// Gives a key of a scratch home another policy.
///
/// # Errors
/// If the policy cannot be read, or the key is not there.
pub fn assume_policy(home: &Home, key_arn: &str, policy: &str) -> Result<(), ServiceError> {
    Policy::parse(policy, PolicyKind::Key).map_err(ServiceError::machine)?;
    write(home, |tx| put_policy(tx, &key(tx, key_arn)?, policy))
}

/// Gives every key of a scratch home that is not AWS's own another policy.
///
/// # Errors
/// If the policy cannot be read.
pub fn assume_policy_everywhere(home: &Home, policy: &str) -> Result<(), ServiceError> {
    Policy::parse(policy, PolicyKind::Key).map_err(ServiceError::machine)?;
    write(home, |tx| {
        tx.execute(
            "INSERT OR REPLACE INTO kms_key_policies (key_id, policy)
             SELECT key_id, ?1 FROM kms_keys WHERE manager = 'CUSTOMER'",
            [policy],
        )?;
        Ok(())
    })
}

fn put_policy(tx: &Transaction<'_>, key: &Key, policy: &str) -> Result<(), ServiceError> {
    tx.execute("INSERT OR REPLACE INTO kms_key_policies (key_id, policy) VALUES (?1, ?2)", [&key.id, policy])?;
    Ok(())
}

/// What `kms list-grants` prints of a grant.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedGrant {
    key_id: String,
    grant_id: String,
    #[serde(default)]
    name: Option<String>,
    grantee_principal: String,
    #[serde(default)]
    retiring_principal: Option<String>,
    #[serde(default)]
    issuing_account: String,
    operations: Vec<String>,
    #[serde(default)]
    constraints: Option<GrantConstraints>,
}

/// Puts the grants of a key into a scratch home as `kms list-grants` prints them (its `Grants`): these and no others.
///
/// # Errors
/// If one is not such a grant, or the key is not there.
pub fn assume_grants(home: &Home, key_arn: &str, described: &[Value]) -> Result<(), ServiceError> {
    write(home, |tx| {
        let now = store::clock(tx)?.now();
        let key = key(tx, key_arn)?;
        for described in described {
            let described: DescribedGrant = serde_json::from_value(described.clone()).map_err(ServiceError::machine)?;
            if described.key_id != key_arn {
                return Err(wrong(format!("grants of {key_arn} and of {} in one list", described.key_id)));
            }
            let grant = Grant {
                id: described.grant_id,
                key_id: key.id.clone(),
                name: described.name.filter(|name| !name.is_empty()),
                grantee: described.grantee_principal,
                retiring: described.retiring_principal,
                issuer: described.issuing_account,
                operations: described.operations,
                constraints: described.constraints,
                created: now,
                effective: now,
            };
            grant::insert(tx, &grant)?;
        }
        tell(tx, &key, Told::Grants)
    })
}

/// What `kms list-resource-tags` prints of a tag.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedTag {
    tag_key: String,
    tag_value: String,
}

/// Puts the tags of a key into a scratch home as `kms list-resource-tags` prints them (its `Tags`).
///
/// # Errors
/// If one is not such a tag, or the key is not there.
pub fn assume_tags(home: &Home, key_arn: &str, described: &[Value]) -> Result<(), ServiceError> {
    write(home, |tx| {
        let key = key(tx, key_arn)?;
        for described in described {
            let tag: DescribedTag = serde_json::from_value(described.clone()).map_err(ServiceError::machine)?;
            tx.execute(
                "INSERT OR REPLACE INTO kms_tags (key_id, name, value) VALUES (?1, ?2, ?3)",
                [&key.id, &tag.tag_key, &tag.tag_value],
            )?;
        }
        tell(tx, &key, Told::Tags)
    })
}

/// What `kms list-aliases` prints of an alias.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedAlias {
    alias_name: String,
    alias_arn: String,
    #[serde(default)]
    target_key_id: Option<String>,
}

/// Puts aliases into a scratch home as `kms list-aliases` prints them (its `Aliases`). Those whose key is not described are
/// left out, as are those of AWS's that have no key yet; every described key then has these and no others.
///
/// # Errors
/// If one is not such an alias.
pub fn assume_aliases(home: &Home, described: &[Value]) -> Result<(), ServiceError> {
    write(home, |tx| {
        for described in described {
            assume_alias(tx, serde_json::from_value(described.clone()).map_err(ServiceError::machine)?)?;
        }
        tx.execute("DELETE FROM settings WHERE name LIKE ?1", [untold(Told::Aliases, "%")])?;
        Ok(())
    })
}

fn assume_alias(tx: &Transaction<'_>, described: DescribedAlias) -> Result<(), ServiceError> {
    let Some(target) = described.target_key_id else { return Ok(()) };
    let prefix = described.alias_arn.trim_end_matches(&described.alias_name);
    let Ok(key) = key(tx, &format!("{prefix}key/{target}")) else { return Ok(()) };
    let now = store::clock(tx)?.now().micros();
    tx.execute(
        "INSERT OR REPLACE INTO kms_aliases (account, region, name, target, created, updated)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        params![key.account.as_str(), key.region.as_str(), described.alias_name, key.id, now],
    )?;
    if let Some(managed) = ManagedAlias::from_name(&described.alias_name) {
        tx.execute(
            "UPDATE kms_keys SET manager = 'AWS', only_via = ?2 WHERE key_id = ?1",
            [&key.id, &managed.service(&key.region)],
        )?;
        // The policy of such a key is AWS's own and the same everywhere.
        tx.execute("DELETE FROM kms_key_policies WHERE key_id = ?1 AND policy = ?2", [&key.id, UNTOLD_POLICY])?;
    }
    Ok(())
}

/// A made-up data key, wrapped under a key of a scratch home and `context`: no call, no record. `None` if the key is not
/// there.
///
/// # Errors
/// If the state cannot be read.
pub fn wrap_assumed(home: &Home, key_arn: &str, context: &EncryptionContext) -> Result<Option<Blob>, ServiceError> {
    home.read(|tx| {
        let Ok(key) = key(tx, key_arn) else { return Ok(None) };
        let header = BlobHeader { key_id: key.public_id().to_owned(), material_id: key.current_material()?.to_owned() };
        let Some(backing) = materials::open(tx, &RootKey::load(home, tx)?, &key, &header.material_id)? else {
            return Ok(None);
        };
        let data_key = SecretBytes::random(DATA_KEY_BYTES).map_err(ServiceError::machine)?;
        let blob = envelope::encrypt(&backing, &header, context, data_key.expose()).map_err(ServiceError::machine)?;
        Ok(Some(Blob(blob)))
    })
}

/// The ARN of the key that an id, ARN or alias names in the call's account and Region.
///
/// # Errors
/// `NotFoundException`.
pub fn arn_of(call: &Call<'_>, key_id: &str) -> Result<String, ServiceError> {
    call.home.read(|tx| arn_in(tx, call, key_id))
}

/// As [`arn_of`], in a transaction.
///
/// # Errors
/// As [`arn_of`].
pub fn arn_in(tx: &Transaction<'_>, call: &Call<'_>, key_id: &str) -> Result<String, ServiceError> {
    Ok(keyring::resolve(tx, call, key_id)?.arn())
}

/// Disables a key of a scratch home.
///
/// # Errors
/// If it is not there.
pub fn assume_disabled(home: &Home, key_arn: &str) -> Result<(), ServiceError> {
    write(home, |tx| Ok(keyring::set_state(tx, &key(tx, key_arn)?, KeyState::Disabled)?))
}

/// Schedules the deletion of a key of a scratch home, at the end of the longest waiting period; one that is scheduled already
/// stays so.
///
/// # Errors
/// If it is not there.
pub fn assume_deletion(home: &Home, key_arn: &str) -> Result<(), ServiceError> {
    write(home, |tx| {
        let key = key(tx, key_arn)?;
        if key.state.is_ending() {
            return Ok(());
        }
        let now = store::clock(tx)?.now();
        Ok(keyring::set_deletion(tx, &key, in_days(now, 30))?)
    })
}

/// When the key of that ARN is deleted, if that is scheduled.
///
/// # Errors
/// If it is not there.
pub fn deletion_of(home: &Home, key_arn: &str) -> Result<Option<Time>, ServiceError> {
    home.read(|tx| Ok(key(tx, key_arn)?.deletion))
}
