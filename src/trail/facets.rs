//! What many records have in common, kept once, so that a record costs a few numbers in the index and not its strings.
//!
//! A record has one *shape* (operation, service, kinds of resources), one *caller* at most, and its *resources*. Shapes are
//! as few as operations, and look-ups by what a shape says merge over them; callers and resources are looked up by name.

use std::collections::HashSet;

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::store::{StoreError, Transaction};

use super::lookup::Attribute;
use super::record::Record;

/// A facet's number: the hash of its trail, kind and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Facet(pub(super) i64);

/// A facet's value, as the store has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    /// Operation, service, whether it changes nothing, kinds of resources.
    Shape { name: String, source: String, read_only: bool, kinds: Vec<String> },
    /// Kind and name of a resource.
    Resource { kind: String, resource: String },
    /// Name and access key of who called. Last, because any object reads as one.
    Caller { username: Option<String>, access_key_id: Option<String> },
}

/// Facets that are in the store.
#[derive(Default)]
struct Known(HashSet<i64>);

/// As many as are remembered.
const MOST_KNOWN: usize = 16 << 10;

impl Value {
    /// What the record looks like beside its ids and times.
    pub(super) fn all_of(record: &Record) -> Vec<Self> {
        let resources = || record.resources.iter().chain(&record.mentioned);
        let mut kinds: Vec<_> = resources().map(|resource| resource.kind.clone()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut values = vec![Self::Shape {
            name: record.name.clone(),
            source: record.source.clone(),
            read_only: record.read_only,
            kinds,
        }];
        if record.username.is_some() || record.access_key_id.is_some() {
            values
                .push(Self::Caller { username: record.username.clone(), access_key_id: record.access_key_id.clone() });
        }
        for resource in resources() {
            values.push(Self::Resource { kind: resource.kind.clone(), resource: resource.name.clone() });
        }
        values
    }

    /// By what the facet is looked up.
    fn names(&self) -> Vec<(Attribute, &str)> {
        match self {
            Self::Shape { name, source, read_only, kinds } => {
                let read_only = if *read_only { "true" } else { "false" };
                let own = [
                    (Attribute::EventName, name.as_str()),
                    (Attribute::EventSource, source),
                    (Attribute::ReadOnly, read_only),
                ];
                own.into_iter().chain(kinds.iter().map(|kind| (Attribute::ResourceType, kind.as_str()))).collect()
            }
            Self::Caller { username, access_key_id } => {
                let username = username.as_deref().map(|name| (Attribute::Username, name));
                username.into_iter().chain(access_key_id.as_deref().map(|id| (Attribute::AccessKeyId, id))).collect()
            }
            Self::Resource { resource, .. } => vec![(Attribute::ResourceName, resource.as_str())],
        }
    }
}

impl Facet {
    /// The facet of a value in a trail; stored with its names if it is new there.
    pub(super) fn of(tx: &Transaction<'_>, trail: i64, value: &Value) -> Result<Self, StoreError> {
        let text = serde_json::to_string(value).expect("strings and lists of strings have a JSON form");
        let facet = Self::hashed(trail, &text);
        if tx.remembered(|known: &mut Known| known.0.contains(&facet.0)) {
            return Ok(facet);
        }
        let known = tx
            .prepare_cached("SELECT 1 FROM trail_facets WHERE facet = ?1")?
            .query_row([facet.0], |_| Ok(()))
            .optional()?;
        if known.is_none() {
            tx.prepare_cached("INSERT INTO trail_facets (facet, value) VALUES (?1, ?2)")?
                .execute(params![facet.0, text])?;
            let mut insert = tx.prepare_cached(
                "INSERT OR IGNORE INTO trail_names (trail, attribute, value, facet) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for (attribute, name) in value.names() {
                insert.execute(params![trail, attribute as u8, name, facet.0])?;
            }
        }
        tx.remembered(|known: &mut Known| {
            if known.0.len() >= MOST_KNOWN {
                known.0.clear();
            }
            known.0.insert(facet.0);
        });
        Ok(facet)
    }

    /// The facet under which an event is found whose id does not tell its time.
    pub(super) fn of_event(trail: i64, event_id: &str) -> Self {
        Self::hashed(trail, event_id)
    }

    /// The facet of every record of a trail: small numbers, which no hash is.
    pub(super) const fn whole(trail: i64) -> Self {
        Self(trail)
    }

    fn hashed(trail: i64, text: &str) -> Self {
        let digest = Sha256::new().chain_update(trail.to_be_bytes()).chain_update(text).finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self((i64::from_be_bytes(first) & i64::MAX) | 1 << 62)
    }

    /// What the store has under the facet's number.
    pub(super) fn value(self, tx: &Transaction<'_>) -> Result<Option<Value>, StoreError> {
        let mut statement = tx.prepare_cached("SELECT value FROM trail_facets WHERE facet = ?1")?;
        let text: Option<String> = statement.query_row([self.0], |row| row.get(0)).optional()?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| super::damaged(error.into()))).transpose()
    }

    /// The facets of a trail that have `value` as `attribute`.
    pub(super) fn named(
        tx: &Transaction<'_>,
        trail: i64,
        attribute: Attribute,
        value: &str,
    ) -> Result<Vec<Self>, StoreError> {
        let mut statement =
            tx.prepare_cached("SELECT facet FROM trail_names WHERE trail = ?1 AND attribute = ?2 AND value = ?3")?;
        let facets = statement.query_map(params![trail, attribute as u8, value], |row| row.get(0).map(Self))?;
        Ok(facets.collect::<Result<_, _>>()?)
    }

    /// Puts a record into the index under this facet.
    pub(super) fn index(self, tx: &Transaction<'_>, time: i64, seq: i64) -> Result<(), StoreError> {
        tx.prepare_cached("INSERT OR IGNORE INTO trail_index (facet, time, seq) VALUES (?1, ?2, ?3)")?
            .execute([self.0, time, seq])?;
        Ok(())
    }

    /// Facets in the form in which a record's row has them.
    pub(super) fn to_bytes(facets: &[Self]) -> Vec<u8> {
        facets.iter().flat_map(|facet| facet.0.to_be_bytes()).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks::<8>().0.iter().map(|number| Self(i64::from_be_bytes(*number))).collect()
    }
}
