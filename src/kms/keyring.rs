//! Keys in the store: rows, ARNs, and the four ways to name a key.

use rusqlite::{OptionalExtension as _, Row, params};

use crate::clock::Time;
use crate::gate::{Call, Draft, ServiceError};
use crate::ids::{self, AccountId, Region};
use crate::store::{StoreError, Transaction};

use super::envelope::KEY_ID_BYTES;
use super::materials;
use super::root::RootKey;
use super::states::{KeyState, Origin};

/// A key as the store has it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Names its row; what the API calls its id is [`Key::public_id`].
    pub(super) id: String,
    pub(super) account: AccountId,
    pub(super) region: Region,
    /// The one service that may use an AWS managed key; `None` for a customer managed one.
    pub(super) only_via: Option<String>,
    pub(super) description: String,
    pub(super) state: KeyState,
    pub(super) created: Time,
    pub(super) deletion: Option<Time>,
    /// The waiting period in days that begins when the last replica is gone.
    pub(super) window_days: Option<i64>,
    pub(super) origin: Origin,
    pub(super) multi_region: Option<MultiRegionKeyType>,
    /// The material that encrypts now; `None` before the first import.
    pub(super) material_id: Option<String>,
    pub(super) rotation: Option<Rotation>,
}

/// Which of the related multi-Region keys a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MultiRegionKeyType {
    Primary,
    Replica,
}

impl MultiRegionKeyType {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Replica => "REPLICA",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Primary, Self::Replica].into_iter().find(|kind| kind.name() == name)
    }
}

/// Automatic rotation that is switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rotation {
    pub(super) days: i64,
    pub(super) next: Time,
}

impl Key {
    /// Its id in the API, which related multi-Region keys share.
    pub(super) fn public_id(&self) -> &str {
        public_id(&self.id)
    }

    pub(super) fn arn(&self) -> String {
        key_arn(&self.region, &self.account, self.public_id())
    }

    /// Puts the key into the record's resources.
    pub(super) fn note(&self, draft: &mut Draft) {
        draft.resource("AWS::KMS::Key", &self.arn(), &self.account);
    }

    /// The material that encrypts now. A key without one is pending import, which stops every operation that asks for it.
    pub(super) fn current_material(&self) -> Result<&str, ServiceError> {
        let missing = || ServiceError::machine(format!("the home's state lacks the material of {}", self.arn()));
        self.material_id.as_deref().ok_or_else(missing)
    }

    pub(super) fn is_replica(&self) -> bool {
        self.multi_region == Some(MultiRegionKeyType::Replica)
    }
}

/// What the API calls the id of the key in that row.
pub(super) fn public_id(row: &str) -> &str {
    row.split_once('/').map_or(row, |(id, _)| id)
}

pub(super) fn key_arn(region: &Region, account: &AccountId, id: &str) -> String {
    format!("arn:aws:kms:{region}:{account}:key/{id}")
}

pub(super) fn alias_arn(region: &Region, account: &AccountId, name: &str) -> String {
    format!("arn:aws:kms:{region}:{account}:{name}")
}

const COLUMNS: &str = "key_id, account, region, only_via, description, state, created, deletion, window_days, origin, \
                       multi_region, material_id, rotation_days, next_rotation";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Key> {
    let multi_region: Option<String> = row.get(10)?;
    Ok(Key {
        id: row.get(0)?,
        account: parsed(row, 1, |text| text.parse().ok())?,
        region: parsed(row, 2, |text| text.parse().ok())?,
        only_via: row.get(3)?,
        description: row.get(4)?,
        state: parsed(row, 5, KeyState::from_name)?,
        created: time(row, 6)?,
        deletion: optional_time(row, 7)?,
        window_days: row.get(8)?,
        origin: parsed(row, 9, Origin::from_name)?,
        multi_region: multi_region.as_deref().and_then(MultiRegionKeyType::from_name),
        material_id: row.get(11)?,
        rotation: row
            .get::<_, Option<i64>>(12)?
            .zip(optional_time(row, 13)?)
            .map(|(days, next)| Rotation { days, next }),
    })
}

pub(super) fn parsed<T>(row: &Row<'_>, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse(&text).ok_or_else(|| damaged(column))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Time> {
    Time::from_micros(row.get(column)?).ok_or_else(|| damaged(column))
}

pub(super) fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Time>> {
    row.get::<_, Option<i64>>(column)?.map(|_| time(row, column)).transpose()
}

fn damaged(column: usize) -> rusqlite::Error {
    let reason = "a value that this program does not write".into();
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, reason)
}

/// The key in that row.
pub(super) fn find(tx: &Transaction<'_>, row: &str) -> Result<Option<Key>, StoreError> {
    tx.recall(row, || {
        let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM kms_keys WHERE key_id = ?1"))?;
        Ok(statement.query_row([row], from_row).optional()?)
    })
}

/// The key of that id in that Region.
pub(super) fn find_in(tx: &Transaction<'_>, id: &str, region: &Region) -> Result<Option<Key>, StoreError> {
    match find(tx, id)? {
        Some(key) if key.region == *region => Ok(Some(key)),
        _ if id.starts_with(MULTI_REGION_PREFIX) => find(tx, &replica_row(id, region)),
        _ => Ok(None),
    }
}

/// What the ids of multi-Region keys begin with.
pub(super) const MULTI_REGION_PREFIX: &str = "mrk-";

/// The row of a replica in `region` of the multi-Region key `id`.
pub(super) fn replica_row(id: &str, region: &Region) -> String {
    format!("{id}/{region}")
}

/// The multi-Region keys that are related to `key`, itself among them, in the order of their Regions.
pub(super) fn related(tx: &Transaction<'_>, key: &Key) -> Result<Vec<Key>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        // '0' is the character behind '/'.
        "SELECT {COLUMNS} FROM kms_keys WHERE key_id = ?1 OR (key_id > ?1 || '/' AND key_id < ?1 || '0') ORDER BY region"
    ))?;
    let keys = statement.query_map([key.public_id()], from_row)?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// The keys of an account and Region, at most `limit` after `after`, in the order of their ids.
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
    first(tx, "deletion IS NOT NULL ORDER BY deletion, key_id")
}

/// The key whose automatic rotation is due first. A key that is not enabled waits until it is.
pub(super) fn next_rotation(tx: &Transaction<'_>) -> Result<Option<Key>, StoreError> {
    first(tx, "next_rotation IS NOT NULL AND state = 'Enabled' ORDER BY next_rotation, key_id")
}

fn first(tx: &Transaction<'_>, what: &str) -> Result<Option<Key>, StoreError> {
    let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM kms_keys WHERE {what} LIMIT 1"))?;
    Ok(statement.query_row([], from_row).optional()?)
}

/// Stores a new key. Its materials come afterwards.
pub(super) fn insert(tx: &Transaction<'_>, key: &Key) -> Result<(), StoreError> {
    tx.prepare_cached(&format!(
        "INSERT INTO kms_keys ({COLUMNS}, manager)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    ))?
    .execute(params![
        key.id,
        key.account.as_str(),
        key.region.as_str(),
        key.only_via,
        key.description,
        key.state.name(),
        key.created.micros(),
        key.deletion.map(Time::micros),
        key.window_days,
        key.origin.name(),
        key.multi_region.map(MultiRegionKeyType::name),
        key.material_id,
        key.rotation.map(|rotation| rotation.days),
        key.rotation.map(|rotation| rotation.next.micros()),
        if key.only_via.is_some() { "AWS" } else { "CUSTOMER" },
    ])?;
    Ok(())
}

/// A new key of the caller's account and Region, enabled, without material yet and not stored.
pub(super) fn new(call: &Call<'_>, now: Time, description: &str) -> Key {
    Key {
        id: ids::uuid(),
        account: call.account.clone(),
        region: call.region.clone(),
        only_via: None,
        description: description.to_owned(),
        state: KeyState::Enabled,
        created: now,
        deletion: None,
        window_days: None,
        origin: Origin::AwsKms,
        multi_region: None,
        material_id: None,
        rotation: None,
    }
}

/// Stores `key` with a first material of its own.
pub(super) fn create(tx: &Transaction<'_>, root: &RootKey, mut key: Key) -> Result<Key, ServiceError> {
    insert(tx, &key)?;
    let (material_id, secret) = materials::fresh()?;
    materials::put(tx, root, &key, &material_id, &secret)?;
    materials::make_current(tx, &key, &material_id, None)?;
    key.material_id = Some(material_id);
    Ok(key)
}

pub(super) fn set_rotation(tx: &Transaction<'_>, key: &Key, rotation: Option<Rotation>) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE kms_keys SET rotation_days = ?2, next_rotation = ?3 WHERE key_id = ?1")?.execute(
        params![key.id, rotation.map(|rotation| rotation.days), rotation.map(|rotation| rotation.next.micros())],
    )?;
    Ok(())
}

/// Puts a key into a state in which no deletion waits.
pub(super) fn set_state(tx: &Transaction<'_>, key: &Key, state: KeyState) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE kms_keys SET state = ?2, deletion = NULL, window_days = NULL WHERE key_id = ?1")?
        .execute([key.id.as_str(), state.name()])?;
    Ok(())
}

/// Lets a key be deleted at `deletion`.
pub(super) fn set_deletion(tx: &Transaction<'_>, key: &Key, deletion: Time) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE kms_keys SET state = 'PendingDeletion', deletion = ?2, window_days = NULL WHERE key_id = ?1",
        params![key.id, deletion.micros()],
    )?;
    Ok(())
}

/// Lets a primary key be deleted `days` after its last replica is gone.
pub(super) fn set_replica_deletion(tx: &Transaction<'_>, key: &Key, days: i64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE kms_keys SET state = 'PendingReplicaDeletion', deletion = NULL, window_days = ?2 WHERE key_id = ?1",
        params![key.id, days],
    )?;
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
        Name::Id(id) => find_in(tx, id, &call.region)?
            .filter(|key| key.account == account)
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

/// Whether `text` names a key whose material is imported, as far as a look outside the operation can tell.
pub(super) fn is_importable(call: &Call<'_>, text: &str) -> bool {
    let found = call.home.read(|tx| resolve(tx, call, text));
    found.is_ok_and(|key| key.origin == Origin::External && !key.state.is_ending())
}

/// Whether `text` names a key or alias of the caller's own account, or nothing at all.
pub(super) fn is_of_account(call: &Call<'_>, text: &str) -> bool {
    parse_name(call, text).map_or(true, |(account, _)| account == *call.principal.account())
}

/// Whether `text` is an alias or an alias ARN, of whatever account.
pub(super) fn is_alias(call: &Call<'_>, text: &str) -> bool {
    matches!(parse_name(call, text), Ok((_, Name::Alias(_))))
}

/// The alias (`alias/...`) that `text` means, if it is an alias or an alias ARN of the caller's account and Region.
pub(super) fn as_alias<'a>(call: &Call<'_>, text: &'a str) -> Option<&'a str> {
    match parse_name(call, text) {
        Ok((account, Name::Alias(alias))) if account == call.account => Some(alias),
        _ => None,
    }
}

/// The alias by which `text` names `key`; `None` if it names it otherwise.
pub(super) fn as_alias_of<'a>(call: &Call<'_>, text: &'a str, key: &Key) -> Option<&'a str> {
    match parse_name(call, text) {
        Ok((account, Name::Alias(alias))) if account == key.account => Some(alias),
        _ => None,
    }
}

/// The names (`alias/...`) that stand for `key`.
pub(super) fn aliases_of(tx: &Transaction<'_>, key: &Key) -> Result<Vec<String>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT name FROM kms_aliases WHERE target = ?1 ORDER BY name")?;
    let names = statement.query_map([key.id.as_str()], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// The tags of `key`, by name.
pub(super) fn tags_of(tx: &Transaction<'_>, key: &Key) -> Result<Vec<(String, String)>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT name, value FROM kms_tags WHERE key_id = ?1 ORDER BY name")?;
    let tags = statement.query_map([key.id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(tags.collect::<Result<_, _>>()?)
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
    text.len() == KEY_ID_BYTES
        && (ids::is_uuid(text) || text.strip_prefix(MULTI_REGION_PREFIX).is_some_and(multi_region))
}

/// The row of the key that an alias stands for.
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
