//! Finding records by one attribute, newest first, page by page (CloudTrail API reference, `LookupEvents`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{Transaction, named_params};
use sha2::{Digest as _, Sha256};

use crate::clock::Time;
use crate::ids::{AccountId, Region};
use crate::store::StoreError;

use super::record::{Summary, find_trail};

/// What records can be looked up by. The numbers are those of the store's index and never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Attribute {
    /// The event's UUID.
    EventId = 1,
    /// The operation's name.
    EventName = 2,
    /// `true` or `false`.
    ReadOnly = 3,
    /// The caller's name.
    Username = 4,
    /// Such as `AWS::KMS::Key`.
    ResourceType = 5,
    /// A key's or alias's ARN, a volume's or instance's id.
    ResourceName = 6,
    /// Such as `kms.amazonaws.com`.
    EventSource = 7,
    /// The access key that signed the call.
    AccessKeyId = 8,
}

impl Attribute {
    /// All of them, by the names that `LookupEvents` gives them, in AWS's order.
    pub const ALL: [(&'static str, Self); 8] = [
        ("EventId", Self::EventId),
        ("EventName", Self::EventName),
        ("ReadOnly", Self::ReadOnly),
        ("Username", Self::Username),
        ("ResourceType", Self::ResourceType),
        ("ResourceName", Self::ResourceName),
        ("EventSource", Self::EventSource),
        ("AccessKeyId", Self::AccessKeyId),
    ];
}

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whose trail.
    pub account: AccountId,
    /// In which Region.
    pub region: Region,
    /// The attribute that must have this very value; every record otherwise.
    pub attribute: Option<(Attribute, String)>,
    /// Not before this time.
    pub start: Option<Time>,
    /// Not after this time.
    pub end: Option<Time>,
    /// Nothing from before this time is answered, whatever `start` says: CloudTrail looks back 90 days.
    pub oldest: Time,
}

/// A record that was found.
#[derive(Clone, Debug)]
pub struct Event {
    /// The event's UUID.
    pub event_id: String,
    /// The operation.
    pub name: String,
    /// The service.
    pub source: String,
    /// Whether the operation changes nothing.
    pub read_only: bool,
    /// The caller's name; services have none.
    pub username: Option<String>,
    /// The access key that signed the call.
    pub access_key_id: Option<String>,
    /// When it was called.
    pub time: Time,
    /// What it touched.
    pub resources: Vec<EventResource>,
    /// The whole record as JSON.
    pub record: String,
}

/// A resource of a found record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventResource {
    /// Such as `AWS::KMS::Key`.
    pub kind: String,
    /// An ARN, or an id.
    pub name: String,
}

/// Some of the records that were found.
#[derive(Clone, Debug)]
pub struct Page {
    /// Newest first.
    pub events: Vec<Event>,
    /// With which the next page is asked for; absent on the last.
    pub next: Option<String>,
}

/// A token that no look-up with this query gave out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the token does not belong to this query")]
pub struct TokenError;

/// At most `limit` records that match `query`, newest first, after those of the page that gave out `token`.
///
/// # Errors
/// The outer error is the store's, the inner one a token that does not belong to the query.
pub fn look_up(
    tx: &Transaction<'_>,
    query: &Query,
    limit: usize,
    token: Option<&str>,
) -> Result<Result<Page, TokenError>, StoreError> {
    let after = match token.map(|token| Position::from_token(query, token)) {
        None => Position { time: query.end.map_or(i64::MAX, Time::micros), seq: i64::MAX },
        Some(Some(position)) => position,
        Some(None) => return Ok(Err(TokenError)),
    };
    let Some(trail) = find_trail(tx, &query.account, &query.region)? else {
        return Ok(Ok(Page { events: Vec::new(), next: None }));
    };
    let mut statement = tx.prepare_cached(if query.attribute.is_some() { BY_ATTRIBUTE } else { BY_TIME })?;
    let (attribute, value) = match &query.attribute {
        Some((attribute, value)) => (*attribute as u8, value.as_str()),
        None => (0, ""),
    };
    let rows = statement.query_map(
        named_params! {
            ":trail": trail,
            ":attribute": attribute,
            ":value": value,
            ":time": after.time,
            ":seq": after.seq,
            ":start": query.start.map_or(query.oldest, |start| start.max(query.oldest)).micros(),
            ":limit": i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1),
        },
        |row| Ok((Position { seq: row.get(0)?, time: row.get(1)? }, row.get(2)?, row.get::<_, String>(3)?)),
    )?;
    let mut events = Vec::new();
    let mut last = None;
    for row in rows {
        let (position, record, summary): (Position, String, String) = row?;
        if events.len() == limit {
            let next = last.map(|last: Position| last.to_token(query));
            return Ok(Ok(Page { events, next }));
        }
        events.push(event(position.time, record, &summary)?);
        last = Some(position);
    }
    Ok(Ok(Page { events, next: None }))
}

/// A row-value comparison keeps the walk inside one index, so that a page costs the same wherever it starts.
const BY_ATTRIBUTE: &str = "SELECT r.seq, r.time, r.record, r.summary
    FROM trail_index i JOIN trail_records r ON r.seq = i.seq
    WHERE i.trail = :trail AND i.attribute = :attribute AND i.value = :value
      AND (i.time, i.seq) < (:time, :seq) AND i.time >= :start
    ORDER BY i.time DESC, i.seq DESC LIMIT :limit";

/// The same without an attribute, whose number and value are then 0 and empty.
const BY_TIME: &str = "SELECT seq, time, record, summary FROM trail_records
    WHERE trail = :trail AND (time, seq) < (:time, :seq) AND time >= :start AND :attribute = 0 AND :value = ''
    ORDER BY time DESC, seq DESC LIMIT :limit";

fn event(time: i64, record: String, summary: &str) -> Result<Event, StoreError> {
    let damaged = |error: Box<dyn std::error::Error + Send + Sync>| {
        StoreError::from(rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, error))
    };
    let summary: Summary = serde_json::from_str(summary).map_err(|error| damaged(error.into()))?;
    let time = Time::from_micros(time).ok_or_else(|| damaged("a time outside the calendar".into()))?;
    let resource = |(kind, name)| EventResource { kind, name };
    Ok(Event {
        event_id: summary.event_id,
        name: summary.name,
        source: summary.source,
        read_only: summary.read_only,
        username: summary.username,
        access_key_id: summary.access_key_id,
        time,
        resources: summary.resources.into_iter().map(resource).collect(),
        record,
    })
}

/// Where a page ended.
#[derive(Clone, Copy)]
struct Position {
    time: i64,
    seq: i64,
}

impl Position {
    /// The position and a hash of the query, because CloudTrail wants a token used with the parameters that gave it.
    fn to_token(self, query: &Query) -> String {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend_from_slice(&self.time.to_be_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        let hash = self.hash(query);
        bytes.extend_from_slice(&hash);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn from_token(query: &Query, token: &str) -> Option<Self> {
        let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let number = |at: usize| bytes[at..at + 8].try_into().map(i64::from_be_bytes).ok();
        let position = Self { time: number(0)?, seq: number(8)? };
        (position.hash(query) == bytes[16..]).then_some(position)
    }

    fn hash(self, query: &Query) -> [u8; 16] {
        let attribute = query.attribute.as_ref().map(|(attribute, value)| (*attribute as u8, value));
        let range = (query.start.map(Time::micros), query.end.map(Time::micros));
        let text =
            format!("{}\n{}\n{range:?}\n{attribute:?}\n{}\n{}", query.account, query.region, self.time, self.seq);
        let digest = Sha256::digest(text);
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Home;

    /// Both queries walk an index from where the page begins: no scan, no sort, however long the trail is.
    #[test]
    fn a_page_is_a_walk_along_an_index() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        for (query, index) in [(BY_ATTRIBUTE, "PRIMARY KEY"), (BY_TIME, "trail_records_by_time")] {
            let plan: Vec<String> = home
                .read(|tx| {
                    let mut statement = tx.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
                    let nothing = vec![0; statement.parameter_count()];
                    let rows = statement
                        .query_map(rusqlite::params_from_iter(nothing), |row| row.get(3))?
                        .collect::<Result<_, _>>()?;
                    Ok::<_, StoreError>(rows)
                })
                .unwrap();
            let plan = plan.join("\n");
            assert!(plan.contains(index) && plan.contains("SEARCH"), "{plan}");
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
