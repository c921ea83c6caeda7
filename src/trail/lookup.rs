//! Finding records by one attribute, newest first, page by page (CloudTrail API reference, `LookupEvents`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::named_params;
use sha2::{Digest as _, Sha256};

use crate::clock::Time;
use crate::ids::{self, AccountId, Region};
use crate::store::{StoreError, Transaction};

use super::damaged;
use super::facets::{self, Facet};
use super::record::find_trail;

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
    let start = query.start.map_or(query.oldest, |start| start.max(query.oldest)).micros();
    let walk = Walk { tx, before: after, start, limit: limit.saturating_add(1) };
    let mut found = match &query.attribute {
        None => walk.along(&[Facet::whole(trail)])?,
        Some((Attribute::EventId, id)) => walk.of_id(trail, id)?,
        Some((attribute, value)) => walk.along(&Facet::named(tx, trail, *attribute, value)?)?,
    };
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.to_token(query));
    let events = found.into_iter().map(|position| event(tx, position)).collect::<Result<_, _>>()?;
    Ok(Ok(Page { events, next }))
}

/// A row-value comparison keeps the walk inside the index, so that a page costs the same wherever it starts.
const WALK: &str = "SELECT time, seq FROM trail_index
    WHERE facet = :facet AND (time, seq) < (:time, :seq) AND time >= :start
    ORDER BY time DESC, seq DESC LIMIT :limit";

/// A walk from the newest position before `before` back to `start`, as far as `limit` reaches.
struct Walk<'a> {
    tx: &'a Transaction<'a>,
    before: Position,
    start: i64,
    limit: usize,
}

impl Walk<'_> {
    /// The newest positions under any of `facets`, newest first, each once.
    fn along(&self, facets: &[Facet]) -> Result<Vec<Position>, StoreError> {
        let mut statement = self.tx.prepare_cached(WALK)?;
        let mut newest: Vec<Position> = Vec::new();
        let mut start = self.start;
        for facet in facets {
            let rows = statement.query_map(
                named_params! {
                    ":facet": facet.0, ":time": self.before.time, ":seq": self.before.seq, ":start": start,
                    ":limit": i64::try_from(self.limit).unwrap_or(i64::MAX),
                },
                |row| Ok(Position { time: row.get(0)?, seq: row.get(1)? }),
            )?;
            newest.extend(rows.collect::<Result<Vec<_>, _>>()?);
            newest.sort_unstable_by(|one, other| other.cmp(one));
            newest.dedup();
            newest.truncate(self.limit);
            if newest.len() == self.limit {
                // Nothing older than the last of a full page matters in the facets to come.
                start = newest.last().map_or(start, |last| last.time);
            }
        }
        Ok(newest)
    }

    /// The position of one event. Ids of ours tell the millisecond; others have a facet of their own.
    fn of_id(&self, trail: i64, id: &str) -> Result<Vec<Position>, StoreError> {
        let mut found = self.along(&[Facet::of_event(trail, id)])?;
        if let Some(millis) = ids::time_of_event_id(id) {
            let (first, last) = (millis.saturating_mul(1000), millis.saturating_mul(1000).saturating_add(999));
            let after = Position { time: last, seq: i64::MAX }.min(self.before);
            let of_that_time = Walk { tx: self.tx, before: after, start: first.max(self.start), limit: usize::MAX };
            for position in of_that_time.along(&[Facet::whole(trail)])? {
                if event(self.tx, position)?.event_id == id {
                    found.push(position);
                }
            }
        }
        Ok(found)
    }
}

fn event(tx: &Transaction<'_>, position: Position) -> Result<Event, StoreError> {
    let (record, bytes): (String, Vec<u8>) = tx
        .prepare_cached("SELECT record, facets FROM trail_records WHERE seq = ?1")?
        .query_row([position.seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let event_id = event_id(&record)?;
    let time = Time::from_micros(position.time).ok_or_else(|| damaged("a time outside the calendar".into()))?;
    let mut event = Event {
        event_id,
        name: String::new(),
        source: String::new(),
        read_only: false,
        username: None,
        access_key_id: None,
        time,
        resources: Vec::new(),
        record,
    };
    for facet in Facet::from_bytes(&bytes) {
        match facet.value(tx)?.ok_or_else(|| damaged("a facet that is not there".into()))? {
            facets::Value::Shape { name, source, read_only, .. } => {
                (event.name, event.source, event.read_only) = (name, source, read_only);
            }
            facets::Value::Caller { username, access_key_id } => {
                (event.username, event.access_key_id) = (username, access_key_id);
            }
            facets::Value::Resource { kind, resource } => event.resources.push(EventResource { kind, name: resource }),
        }
    }
    Ok(event)
}

/// `eventID` of a record.
fn event_id(record: &str) -> Result<String, StoreError> {
    #[derive(serde::Deserialize)]
    struct Ids {
        #[serde(rename = "eventID")]
        event_id: String,
    }
    Ok(serde_json::from_str::<Ids>(record).map_err(|error| damaged(error.into()))?.event_id)
}

/// Where a page ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    /// The query walks the index from where the page begins: no scan, no sort, however long the trail is.
    #[test]
    fn a_page_is_a_walk_along_an_index() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        let plan: Vec<String> = home
            .read(|tx| {
                let mut statement = tx.prepare(&format!("EXPLAIN QUERY PLAN {WALK}"))?;
                let nothing = vec![0; statement.parameter_count()];
                let rows = statement
                    .query_map(rusqlite::params_from_iter(nothing), |row| row.get(3))?
                    .collect::<Result<_, _>>()?;
                Ok::<_, StoreError>(rows)
            })
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains("PRIMARY KEY") && plan.contains("SEARCH"), "{plan}");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
