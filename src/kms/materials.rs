//! Backing keys in the store: one row of sealed bytes each, and what is known of each beside it (`schema.sql` says why).

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};

use crate::clock::Time;
use crate::gate::{ServiceError, require_truncation};
use crate::ids;
use crate::secret::SecretBytes;
use crate::store::{Home, StoreError, Transaction};
use crate::twin::{self, Protection};

use super::keyring::{self, Key};
use super::root::{self, RootKey, Stamp};

/// Length of a backing key in bytes.
pub(super) const BACKING_BYTES: usize = 32;
const PURPOSE: &str = "backing key";

/// What made a material take over from the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RotationType {
    Automatic,
    OnDemand,
}

impl RotationType {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Automatic => "AUTOMATIC",
            Self::OnDemand => "ON_DEMAND",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Automatic, Self::OnDemand].into_iter().find(|kind| kind.name() == name)
    }
}

/// What a material is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It encrypts and decrypts.
    Current,
    /// It decrypts.
    NonCurrent,
    /// It waits for the next rotation on demand.
    PendingRotation,
}

impl Standing {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Current => "CURRENT",
            Self::NonCurrent => "NON_CURRENT",
            Self::PendingRotation => "PENDING_ROTATION",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Current, Self::NonCurrent, Self::PendingRotation].into_iter().find(|state| state.name() == name)
    }
}

/// What is known of a material.
#[derive(Clone, Debug)]
pub(super) struct Material {
    pub(super) id: String,
    pub(super) standing: Standing,
    /// Whether its bytes are there; `false` after it was deleted or expired.
    pub(super) present: bool,
    /// When it took over, and why; `None` for a key's first and for one that waits.
    pub(super) rotated: Option<(Time, RotationType)>,
    pub(super) expires: Option<Time>,
    pub(super) description: Option<String>,
}

/// A key's materials in the order in which they came to it.
pub(super) fn list(tx: &Transaction<'_>, key: &Key) -> Result<Vec<Material>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT material_id, state, present, rotated, rotation_type, expires, description
         FROM kms_material_states WHERE key_id = ?1 ORDER BY seq",
    )?;
    let materials = statement.query_map([&key.id], |row| {
        let rotation_type: Option<String> = row.get(4)?;
        let rotation_type = rotation_type.as_deref().and_then(RotationType::from_name);
        Ok(Material {
            id: row.get(0)?,
            standing: keyring::parsed(row, 1, Standing::from_name)?,
            present: row.get(2)?,
            rotated: keyring::optional_time(row, 3)?.zip(rotation_type),
            expires: keyring::optional_time(row, 5)?,
            description: row.get(6)?,
        })
    })?;
    Ok(materials.collect::<Result<_, _>>()?)
}

/// The materials of a replica's primary.
pub(super) fn of_primary(tx: &Transaction<'_>, replica: &Key) -> Result<Vec<Material>, StoreError> {
    match keyring::related(tx, replica)?.iter().find(|key| !key.is_replica()) {
        Some(primary) => list(tx, primary),
        None => Ok(Vec::new()),
    }
}

/// Whether a key has material and all that ever encrypted is there. What a replica should have its primary tells.
pub(super) fn are_whole(tx: &Transaction<'_>, key: &Key) -> Result<bool, StoreError> {
    let own = list(tx, key)?;
    let mut used = if key.is_replica() { of_primary(tx, key)? } else { own.clone() };
    used.retain(|material| material.standing != Standing::PendingRotation);
    let is_there = |wanted: &Material| own.iter().any(|material| material.id == wanted.id && material.present);
    Ok(!used.is_empty() && used.iter().all(is_there))
}

/// Opens one of a key's materials; `None` if the key never had it or has it no more.
pub(super) fn open(
    tx: &Transaction<'_>,
    root: &RootKey,
    key: &Key,
    material_id: &str,
) -> Result<Option<SecretBytes>, ServiceError> {
    let mut statement = tx.prepare_cached(
        "SELECT m.sealed FROM kms_materials AS m JOIN kms_material_states AS s USING (key_id, seq)
         WHERE m.key_id = ?1 AND m.material_id = ?2 AND s.present",
    )?;
    let sealed: Option<Vec<u8>> =
        statement.query_row([key.id.as_str(), material_id], |row| row.get(0)).optional().map_err(StoreError::from)?;
    sealed.map(|sealed| root.open(PURPOSE, &binding(&key.id, material_id), &sealed)).transpose()
}

/// Backing keys that were opened, each with what the root key's file looked like then.
#[derive(Default)]
struct Opened(HashMap<String, (Option<Stamp>, Arc<SecretBytes>)>);

/// Most backing keys that are kept in memory.
const MOST_OPENED: usize = 256;

/// As [`open`] under the home's root key, for the operations that use keys: what was opened stays in secret memory until
/// the state changes in anything but its trail.
///
/// # Errors
/// Those of [`RootKey::load`], also while the root key's file is away or another.
pub(super) fn opened(
    home: &Home,
    tx: &Transaction<'_>,
    key: &Key,
    material_id: &str,
) -> Result<Option<Arc<SecretBytes>>, ServiceError> {
    let (name, stamp) = (binding(&key.id, material_id), root::stamp(home));
    let known = tx.remembered(|opened: &mut Opened| {
        let (under, secret) = opened.0.get(&name)?;
        (*under == stamp).then(|| secret.clone())
    });
    if known.is_some() {
        return Ok(known);
    }
    let root = RootKey::load(home, tx)?;
    let Some(secret) = open(tx, &root, key, material_id)?.map(Arc::new) else { return Ok(None) };
    tx.remembered(|opened: &mut Opened| {
        if opened.0.len() >= MOST_OPENED {
            opened.0.clear();
        }
        opened.0.insert(name, (stamp, secret.clone()));
    });
    Ok(Some(secret))
}

/// Fresh bytes for a backing key, and an id for them.
pub(super) fn fresh() -> Result<(String, SecretBytes), ServiceError> {
    Ok((ids::hex64(), SecretBytes::random(BACKING_BYTES).map_err(ServiceError::machine)?))
}

/// Adds a material to a key, or puts one back that was deleted or expired. Its standing is for the caller to say.
pub(super) fn put(
    tx: &Transaction<'_>,
    root: &RootKey,
    key: &Key,
    material_id: &str,
    secret: &SecretBytes,
) -> Result<(), ServiceError> {
    let sealed = root.seal(PURPOSE, &binding(&key.id, material_id), secret)?;
    let known: Option<i64> = tx
        .prepare_cached("SELECT seq FROM kms_materials WHERE key_id = ?1 AND material_id = ?2")
        .map_err(StoreError::from)?
        .query_row([key.id.as_str(), material_id], |row| row.get(0))
        .optional()
        .map_err(StoreError::from)?;
    let seq = if let Some(seq) = known {
        tx.execute("UPDATE kms_materials SET sealed = ?2 WHERE seq = ?1", params![seq, sealed])?;
        seq
    } else {
        tx.prepare_cached("INSERT INTO kms_materials (material_id, key_id, sealed) VALUES (?1, ?2, ?3)")
            .map_err(StoreError::from)?
            .execute(params![material_id, key.id, sealed])?;
        tx.last_insert_rowid()
    };
    tx.prepare_cached(
        "INSERT INTO kms_material_states (key_id, seq, material_id, state, present) VALUES (?1, ?2, ?3, ?4, 1)
         ON CONFLICT DO UPDATE SET present = 1",
    )
    .map_err(StoreError::from)?
    .execute(params![key.id, seq, material_id, Standing::PendingRotation.name()])?;
    Ok(())
}

/// Says what is to be known of an imported material.
pub(super) fn describe(
    tx: &Transaction<'_>,
    key: &Key,
    material_id: &str,
    expires: Option<Time>,
    description: Option<&str>,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE kms_material_states SET expires = ?3, description = coalesce(?4, description)
         WHERE key_id = ?1 AND material_id = ?2",
        params![key.id, material_id, expires.map(Time::micros), description],
    )?;
    Ok(())
}

pub(super) fn set_standing(
    tx: &Transaction<'_>,
    key: &Key,
    material_id: &str,
    standing: Standing,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE kms_material_states SET state = ?3 WHERE key_id = ?1 AND material_id = ?2",
        [key.id.as_str(), material_id, standing.name()],
    )?;
    Ok(())
}

/// The imported material that expires first: when, the row of its key, and its id.
pub(super) fn next_expiry(tx: &Transaction<'_>) -> Result<Option<(Time, String, String)>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT expires, key_id, material_id FROM kms_material_states WHERE expires IS NOT NULL AND present
         ORDER BY expires, key_id, seq LIMIT 1",
    )?;
    Ok(statement.query_row([], |row| Ok((keyring::time(row, 0)?, row.get(1)?, row.get(2)?))).optional()?)
}

/// Makes `material_id` the one that encrypts; the one before only decrypts from now on.
pub(super) fn make_current(
    tx: &Transaction<'_>,
    key: &Key,
    material_id: &str,
    rotation: Option<(Time, RotationType)>,
) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE kms_material_states SET state = 'NON_CURRENT' WHERE key_id = ?1 AND state = 'CURRENT'")?
        .execute([&key.id])?;
    tx.prepare_cached(
        "UPDATE kms_material_states SET state = 'CURRENT', rotated = ?3, rotation_type = ?4
         WHERE key_id = ?1 AND material_id = ?2",
    )?
    .execute(params![
        key.id,
        material_id,
        rotation.map(|(time, _)| time.micros()),
        rotation.map(|(_, kind)| kind.name())
    ])?;
    tx.prepare_cached("UPDATE kms_keys SET material_id = ?2 WHERE key_id = ?1")?
        .execute([key.id.as_str(), material_id])?;
    Ok(())
}

/// Gives `to` all materials of `from`, with their standing.
pub(super) fn copy(tx: &Transaction<'_>, root: &RootKey, from: &Key, to: &Key) -> Result<(), ServiceError> {
    for material in list(tx, from)? {
        let missing = || ServiceError::machine(format!("the home's state lacks a material of {}", from.arn()));
        let secret = open(tx, root, from, &material.id)?.ok_or_else(missing)?;
        put(tx, root, to, &material.id, &secret)?;
        tx.execute(
            "UPDATE kms_material_states SET state = ?3, rotated = ?4, rotation_type = ?5
             WHERE key_id = ?1 AND material_id = ?2",
            params![
                to.id,
                material.id,
                material.standing.name(),
                material.rotated.map(|(time, _)| time.micros()),
                material.rotated.map(|(_, kind)| kind.name())
            ],
        )?;
    }
    Ok(())
}

/// Overwrites the sealed bytes of one of a key's materials, or of all, in place with as many zeros, and asks for the
/// write-ahead log, which still holds the old page, to be truncated.
pub(super) fn destroy(tx: &Transaction<'_>, key: &Key, material_id: Option<&str>) -> Result<(), StoreError> {
    if !twin::is_off(Protection::Overwrite) {
        tx.execute(
            "UPDATE kms_materials SET sealed = zeroblob(length(sealed))
             WHERE key_id = ?1 AND (?2 IS NULL OR material_id = ?2)",
            params![key.id, material_id],
        )?;
    }
    tx.execute(
        "UPDATE kms_material_states SET present = 0 WHERE key_id = ?1 AND (?2 IS NULL OR material_id = ?2)",
        params![key.id, material_id],
    )?;
    require_truncation(tx)
}

/// Destroys a material that never encrypted, and forgets it.
pub(super) fn forget(tx: &Transaction<'_>, key: &Key, material_id: &str) -> Result<(), StoreError> {
    destroy(tx, key, Some(material_id))?;
    tx.execute(
        "DELETE FROM kms_material_states WHERE key_id = ?1 AND material_id = ?2",
        [key.id.as_str(), material_id],
    )?;
    Ok(())
}

fn binding(key_id: &str, material_id: &str) -> String {
    format!("{key_id} {material_id}")
}
