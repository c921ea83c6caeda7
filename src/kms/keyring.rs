//! Keys in the store: rows, ARNs, and the four ways to name a key.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use crate::clock::Time;
use crate::gate::{Call, Draft, ServiceError};
use crate::ids::{self, AccountId, Region};
use crate::secret::SecretBytes;
use crate::store::StoreError;

use super::envelope::KEY_ID_BYTES;
use super::root::RootKey;
use super::states::KeyState;

/// Length of a backing key in bytes.
const BACKING_BYTES: usize = 32;
const CMK_PURPOSE: &str = "backing key";

/// A key as the store has it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) account: AccountId,
    pub(super) region: Region,
    /// The one service that may use an AWS managed key; `None` for a customer managed one.
    pub(super) only_via: Option<String>,
    pub(super) description: String,
    pub(super) state: KeyState,
    pub(super) created: Time,
    pub(super) deletion: Option<Time>,
    pub(super) material_id: String,
}

impl Key {
    pub(super) fn arn(&self) -> String {
        key_arn(&self.region, &self.account, &self.id)
    }

    /// Puts the key into the record's resources.
    pub(super) fn note(&self, draft: &mut Draft) {
        draft.resource("AWS::KMS::Key", &self.arn(), &self.account);
    }
}

pub(super) fn key_arn(region: &Region, account: &AccountId, id: &str) -> String {
    format!("arn:aws:kms:{region}:{account}:key/{id}")
}

pub(super) fn alias_arn(region: &Region, account: &AccountId, name: &str) -> String {
    format!("arn:aws:kms:{region}:{account}:{name}")
}

const COLUMNS: &str = "key_id, account, region, only_via, description, state, created, deletion, material_id";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        id: row.get(0)?,
        account: parsed(row, 1, |text| text.parse().ok())?,
        region: parsed(row, 2, |text| text.parse().ok())?,
        only_via: row.get(3)?,
        description: row.get(4)?,
        state: parsed(row, 5, KeyState::from_name)?,
        created: time(row, 6)?,
        deletion: row.get::<_, Option<i64>>(7)?.map(|_| time(row, 7)).transpose()?,
        material_id: row.get(8)?,
    })
}

fn parsed<T>(row: &Row<'_>, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse(&text).ok_or_else(|| damaged(column))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Time> {
    Time::from_micros(row.get(column)?).ok_or_else(|| damaged(column))
}

fn damaged(column: usize) -> rusqlite::Error {
    let reason = "a value that this program does not write".into();
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, reason)
}

pub(super) fn find(tx: &Transaction<'_>, id: &str) -> Result<Option<Key>, StoreError> {
    let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM kms_keys WHERE key_id = ?1"))?;
    Ok(statement.query_row([id], from_row).optional()?)
}

/// The key of an account and Region behind `id`, at most `limit` after `after`, in the order of their ids.
pub(super) fn list(
    tx: &Transaction<'_>,
    account: &AccountId,
    region: &Region,
    after: &str,
    limit: i64,
) -> Result<Vec<Key>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM kms_keys WHERE account = ?1 AND region = ?2 AND key_id > ?3 ORDER BY key_id LIMIT ?4"
    ))?;
    let keys = statement.query_map(params![account.as_str(), region.as_str(), after, limit], from_row)?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// The key whose scheduled deletion is due first.
pub(super) fn next_deletion(tx: &Transaction<'_>) -> Result<Option<Key>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM kms_keys WHERE deletion IS NOT NULL ORDER BY deletion, key_id LIMIT 1"
    ))?;
    Ok(statement.query_row([], from_row).optional()?)
}

/// Makes a key with fresh material, sealed under `root` before it is stored.
pub(super) fn create(
    tx: &Transaction<'_>,
    root: &RootKey,
    call: &Call<'_>,
    now: Time,
    description: &str,
    only_via: Option<&str>,
) -> Result<Key, ServiceError> {
    let key = Key {
        id: ids::uuid(),
        account: call.account.clone(),
        region: call.region.clone(),
        only_via: only_via.map(str::to_owned),
        description: description.to_owned(),
        state: KeyState::Enabled,
        created: now,
        deletion: None,
        material_id: ids::hex64(),
    };
    let backing = SecretBytes::random(BACKING_BYTES).map_err(ServiceError::machine)?;
    let sealed = root.seal(CMK_PURPOSE, &binding(&key.id, &key.material_id), &backing)?;
    tx.execute(
        "INSERT INTO kms_keys (key_id, account, region, manager, only_via, description, state, created, material_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            key.id,
            key.account.as_str(),
            key.region.as_str(),
            if only_via.is_some() { "AWS" } else { "CUSTOMER" },
            only_via,
            description,
            key.state.name(),
            now.micros(),
            key.material_id
        ],
    )?;
    tx.execute(
        "INSERT INTO kms_materials (material_id, key_id, created, sealed) VALUES (?1, ?2, ?3, ?4)",
        params![key.material_id, key.id, now.micros(), sealed],
    )?;
    Ok(key)
}

/// Opens one of a key's materials; `None` if the key never had it.
pub(super) fn backing(
    tx: &Transaction<'_>,
    root: &RootKey,
    key: &Key,
    material_id: &str,
) -> Result<Option<SecretBytes>, ServiceError> {
    let mut statement = tx.prepare_cached(
        "SELECT sealed FROM kms_materials WHERE material_id = ?1 AND key_id = ?2 AND destroyed IS NULL",
    )?;
    let sealed: Option<Vec<u8>> =
        statement.query_row([material_id, key.id.as_str()], |row| row.get(0)).optional().map_err(StoreError::from)?;
    sealed.map(|sealed| root.open(CMK_PURPOSE, &binding(&key.id, material_id), &sealed)).transpose()
}

fn binding(key_id: &str, material_id: &str) -> String {
    format!("{key_id} {material_id}")
}

pub(super) fn set_state(
    tx: &Transaction<'_>,
    key: &Key,
    state: KeyState,
    deletion: Option<Time>,
) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE kms_keys SET state = ?2, deletion = ?3 WHERE key_id = ?1")?.execute(params![
        key.id,
        state.name(),
        deletion.map(Time::micros)
    ])?;
    Ok(())
}

/// How a caller named a key.
enum Name<'a> {
    Id(&'a str),
    Alias(&'a str),
}

/// The key that `text` names: a key id, a key ARN, an alias or an alias ARN.
///
/// # Errors
/// `NotFoundException` with the message that fits the kind of name.
pub(super) fn resolve(tx: &Transaction<'_>, call: &Call<'_>, text: &str) -> Result<Key, ServiceError> {
    let (account, name) = parse_name(call, text)?;
    let not_found = |message| ServiceError::refused("NotFoundException", message);
    match name {
        Name::Id(id) => find(tx, id)?
            .filter(|key| key.account == account && key.region == call.region)
            .ok_or_else(|| not_found(format!("Key '{}' does not exist", key_arn(&call.region, &account, id)))),
        Name::Alias(alias) => match alias_target(tx, &account, &call.region, alias)? {
            Some(id) => find(tx, &id)?.ok_or_else(|| not_found(format!("Invalid keyId '{text}'"))),
            None => Err(alias_not_found(&call.region, &account, alias)),
        },
    }
}

pub(super) fn alias_not_found(region: &Region, account: &AccountId, alias: &str) -> ServiceError {
    let arn = alias_arn(region, account, alias);
    ServiceError::refused("NotFoundException", format!("Alias {arn} is not found."))
}

/// Whether `text` names a key or alias of the caller's own account, or nothing at all.
pub(super) fn is_of_account(call: &Call<'_>, text: &str) -> bool {
    parse_name(call, text).map_or(true, |(account, _)| account == *call.principal.account())
}

/// The alias (`alias/...`) that `text` means, if it is an alias or an alias ARN of the caller's account and Region.
pub(super) fn as_alias<'a>(call: &Call<'_>, text: &'a str) -> Option<&'a str> {
    match parse_name(call, text) {
        Ok((account, Name::Alias(alias))) if account == call.account => Some(alias),
        _ => None,
    }
}

fn parse_name<'a>(call: &Call<'_>, text: &'a str) -> Result<(AccountId, Name<'a>), ServiceError> {
    let not_found = |message| ServiceError::refused("NotFoundException", message);
    let invalid = || not_found(format!("Invalid keyId '{text}'"));
    let Some(arn) = text.strip_prefix("arn:") else {
        return match text {
            alias if alias.starts_with("alias/") => Ok((call.account.clone(), Name::Alias(alias))),
            id if is_key_id(id) => Ok((call.account.clone(), Name::Id(id))),
            _ => Err(invalid()),
        };
    };
    let parts: Vec<_> = arn.splitn(5, ':').collect();
    let ["aws", "kms", region, account, resource] = parts[..] else { return Err(invalid()) };
    if region != call.region.as_str() {
        return Err(not_found(format!("Invalid arn {region}")));
    }
    let account = account.parse().map_err(|_| invalid())?;
    match resource.strip_prefix("key/") {
        Some(id) if is_key_id(id) => Ok((account, Name::Id(id))),
        None if resource.starts_with("alias/") => Ok((account, Name::Alias(resource))),
        _ => Err(invalid()),
    }
}

/// Whether `text` has the shape of a key id: a UUID, or `mrk-` and 32 hex digits.
pub(super) fn is_key_id(text: &str) -> bool {
    let multi_region = |digits: &str| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.len() == KEY_ID_BYTES && (ids::is_uuid(text) || text.strip_prefix("mrk-").is_some_and(multi_region))
}

pub(super) fn alias_target(
    tx: &Transaction<'_>,
    account: &AccountId,
    region: &Region,
    alias: &str,
) -> Result<Option<String>, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT target FROM kms_aliases WHERE account = ?1 AND region = ?2 AND name = ?3")?;
    Ok(statement.query_row([account.as_str(), region.as_str(), alias], |row| row.get(0)).optional()?)
}
