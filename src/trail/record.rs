//! A CloudTrail record, event version 1.11 (CloudTrail user guide, "CloudTrail record contents").

use rusqlite::{OptionalExtension as _, params};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::clock::Time;
use crate::ids::{self, AccountId, Region};
use crate::store::{StoreError, Transaction};

use super::facets::{self, Facet};

/// CloudTrail cuts `errorCode` and `errorMessage` at 1 KB.
const ERROR_BYTES: usize = 1024;

/// Most bytes of `requestParameters` and `responseElements`; CloudTrail omits a larger one.
const PARAMETERS_BYTES: usize = 100 << 10;

/// Most bytes of `additionalEventData`.
const ADDITIONAL_BYTES: usize = 28 << 10;

/// How a record came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EventType {
    /// Somebody called an operation: `AwsApiCall`.
    ApiCall,
    /// The service did it by itself: `AwsServiceEvent`.
    ServiceEvent,
}

/// A resource that an event touched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resource {
    /// The account that owns it.
    pub account: AccountId,
    /// Its type, such as `AWS::KMS::Key`.
    pub kind: String,
    /// Its ARN, or its id where CloudTrail looks events up by id (`vol-…`).
    pub name: String,
}

/// What is said of one operation. Request and response are given as CloudTrail spells them, and never hold a plaintext,
/// a ciphertext blob or a grant token.
#[derive(Clone, Debug)]
pub struct Record {
    /// A UUID.
    pub event_id: String,
    /// When the operation was called.
    pub time: Time,
    /// The account whose trail it goes to.
    pub recipient: AccountId,
    /// The Region whose trail it goes to.
    pub region: Region,
    /// The service, such as `kms.amazonaws.com`.
    pub source: String,
    /// The operation, such as `Decrypt`.
    pub name: String,
    /// `AwsApiCall` or `AwsServiceEvent`.
    pub event_type: EventType,
    /// `userIdentity`.
    pub identity: Value,
    /// By which name `LookupEvents` finds the caller; services have none.
    pub username: Option<String>,
    /// The access key that signed the call, where there is one.
    pub access_key_id: Option<String>,
    /// `sourceIPAddress`: an address or a service's name.
    pub source_ip: String,
    /// `userAgent`.
    pub user_agent: String,
    /// The request id; a service's own event has none.
    pub request_id: Option<String>,
    /// Whether the operation changes nothing.
    pub read_only: bool,
    /// `requestParameters`, or null.
    pub request: Value,
    /// `responseElements`, or null.
    pub response: Value,
    /// `additionalEventData`; left out when empty.
    pub additional: Map<String, Value>,
    /// `serviceEventDetails`, of what a service did by itself.
    pub service_event_details: Option<Value>,
    /// The id that the records of one call in the trails of two accounts share.
    pub shared_event_id: Option<String>,
    /// Error code and message of a refused or failed operation.
    pub error: Option<(String, String)>,
    /// Whether the record has a `resources` list even when it is empty; without this it has none at all.
    pub lists_resources: bool,
    /// What the operation touched: listed in the record if it lists any, and always a way to find it.
    pub resources: Vec<Resource>,
    /// Resources by which the event is found but which its record never lists.
    pub mentioned: Vec<Resource>,
}

/// The record as CloudTrail writes it, its fields in CloudTrail's order.
impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Item<'a> {
            #[serde(rename = "accountId")]
            account: &'a str,
            #[serde(rename = "type")]
            kind: &'a str,
            #[serde(rename = "ARN")]
            name: &'a str,
        }
        impl<'a> Item<'a> {
            fn of(resource: &'a Resource) -> Self {
                Self { account: resource.account.as_str(), kind: &resource.kind, name: &resource.name }
            }
        }
        let mut json = serializer.serialize_map(None)?;
        json.serialize_entry("eventVersion", "1.11")?;
        json.serialize_entry("userIdentity", &self.identity)?;
        json.serialize_entry("eventTime", &self.time.to_seconds_string())?;
        json.serialize_entry("eventSource", &self.source)?;
        json.serialize_entry("eventName", &self.name)?;
        json.serialize_entry("awsRegion", self.region.as_str())?;
        json.serialize_entry("sourceIPAddress", &self.source_ip)?;
        json.serialize_entry("userAgent", &self.user_agent)?;
        if let Some((code, message)) = &self.error {
            json.serialize_entry("errorCode", cut(code))?;
            if !message.is_empty() {
                json.serialize_entry("errorMessage", cut(message))?;
            }
        }
        for (name, value) in [("requestParameters", &self.request), ("responseElements", &self.response)] {
            match omitted(name, value, most_bytes(value), PARAMETERS_BYTES) {
                None => json.serialize_entry(name, value)?,
                Some(note) => json.serialize_entry(name, &note)?,
            }
        }
        if !self.additional.is_empty() {
            let (name, most) = ("additionalEventData", most_bytes_of(&self.additional));
            match omitted(name, &self.additional, most, ADDITIONAL_BYTES) {
                None => json.serialize_entry(name, &self.additional)?,
                Some(note) => json.serialize_entry(name, &note)?,
            }
        }
        if let Some(id) = &self.request_id {
            json.serialize_entry("requestID", id)?;
        }
        json.serialize_entry("eventID", &self.event_id)?;
        json.serialize_entry("readOnly", &self.read_only)?;
        if self.lists_resources {
            json.serialize_entry("resources", &self.resources.iter().map(Item::of).collect::<Vec<_>>())?;
        }
        let event_type = match self.event_type {
            EventType::ApiCall => "AwsApiCall",
            EventType::ServiceEvent => "AwsServiceEvent",
        };
        json.serialize_entry("eventType", event_type)?;
        json.serialize_entry("managementEvent", &true)?;
        json.serialize_entry("recipientAccountId", self.recipient.as_str())?;
        if let Some(details) = &self.service_event_details {
            json.serialize_entry("serviceEventDetails", details)?;
        }
        if let Some(id) = &self.shared_event_id {
            json.serialize_entry("sharedEventID", id)?;
        }
        json.serialize_entry("eventCategory", "Management")?;
        json.end()
    }
}

/// Appends `record` to its trail, in the transaction of the operation that it tells of.
pub fn append(tx: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    Prepared::of(tx, record)?.append(tx)
}

/// A record as the store will have it: all that is left to do is to add its rows.
#[derive(Debug)]
pub struct Prepared {
    trail: i64,
    time: i64,
    text: String,
    facets: Vec<Facet>,
    /// Under which the event is found if its id does not tell its time.
    event: Option<Facet>,
}

impl Prepared {
    /// Prepares `record` in the transaction in which it will be appended.
    ///
    /// # Errors
    /// The store's.
    pub fn of(tx: &Transaction<'_>, record: &Record) -> Result<Self, StoreError> {
        let trail = trail_number(tx, &record.recipient, &record.region)?;
        let time = record.time.micros();
        let text = serde_json::to_string(record).map_err(|error| super::damaged(error.into()))?;
        let facets = facets::Value::all_of(record)
            .iter()
            .map(|value| Facet::of(tx, trail, value))
            .collect::<Result<Vec<_>, _>>()?;
        let is_told = ids::time_of_event_id(&record.event_id) == Some(time.div_euclid(1000));
        let event = (!is_told).then(|| Facet::of_event(trail, &record.event_id));
        Ok(Self { trail, time, text, facets, event })
    }

    /// Appends it: its number is the next.
    ///
    /// # Errors
    /// The store's.
    pub fn append(self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        let Self { trail, time, text, facets, event } = self;
        tx.prepare_cached("INSERT INTO trail_records (trail, time, record, facets) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![trail, time, text, Facet::to_bytes(&facets)])?;
        let seq = tx.last_insert_rowid();
        Facet::whole(trail).index(tx, time, seq)?;
        event.iter().chain(&facets).try_for_each(|facet| facet.index(tx, time, seq))
    }
}

/// The place of the newest record of any trail; 0 if there is none.
pub fn newest(tx: &Transaction<'_>) -> Result<i64, StoreError> {
    Ok(tx.query_row("SELECT coalesce(max(seq), 0) FROM trail_records", [], |row| row.get(0))?)
}

/// The records behind that place, as CloudTrail writes them.
pub fn behind(tx: &Transaction<'_>, place: i64) -> Result<Vec<Value>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT record FROM trail_records WHERE seq > ?1 ORDER BY seq")?;
    let rows = statement.query_map([place], |row| row.get::<_, String>(0))?;
    rows.map(|text| serde_json::from_str(&text?).map_err(|error| super::damaged(error.into()))).collect()
}

/// A trail's number.
#[derive(Clone, Copy)]
struct Number(i64);

/// The number of an account's trail in a Region; made at its first record.
fn trail_number(tx: &Transaction<'_>, account: &AccountId, region: &Region) -> Result<i64, StoreError> {
    let number = tx.recall(&format!("{account} {region}"), || {
        if let Some(trail) = find_trail(tx, account, region)? {
            return Ok(Number(trail));
        }
        tx.execute("INSERT INTO trails (account, region) VALUES (?1, ?2)", [account.as_str(), region.as_str()])?;
        Ok::<_, StoreError>(Number(tx.last_insert_rowid()))
    })?;
    Ok(number.0)
}

pub(super) fn find_trail(
    tx: &Transaction<'_>,
    account: &AccountId,
    region: &Region,
) -> Result<Option<i64>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT trail FROM trails WHERE account = ?1 AND region = ?2")?;
    Ok(statement.query_row([account.as_str(), region.as_str()], |row| row.get(0)).optional()?)
}

/// `text` cut at CloudTrail's limit for error fields, at a character's border.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(ERROR_BYTES)]
}

/// What stands for a field of more than `limit` bytes of JSON: that it was omitted, and how large it was (CloudTrail user
/// guide, "CloudTrail record contents"; the names are recorded, their types *assumed*). `None` for one that fits.
fn omitted(name: &str, value: &impl Serialize, most: usize, limit: usize) -> Option<Value> {
    // Nearly every field fits by far, which is seen without writing it twice.
    let bytes = if most <= limit { 0 } else { serde_json::to_vec(value).map_or(usize::MAX, |json| json.len()) };
    (bytes > limit)
        .then(|| serde_json::json!({"reason": format!("{name} too large"), "omitted": true, "originalSize": bytes}))
}

/// More bytes than `value` has as JSON: no character takes more than the six of `\\u001f`.
fn most_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 32,
        Value::String(text) => 6 * text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| most_bytes(item) + 1).sum::<usize>(),
        Value::Object(members) => most_bytes_of(members),
    }
}

fn most_bytes_of(members: &Map<String, Value>) -> usize {
    2 + members.iter().map(|(name, value)| 6 * name.len() + 4 + most_bytes(value)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_over_its_limit_is_omitted_and_says_so() {
        let of = |bytes: usize| json!({"policy": "a".repeat(bytes - r#"{"policy":""}"#.len())});
        let noted = |value: &Value| omitted("requestParameters", value, most_bytes(value), PARAMETERS_BYTES);
        assert_eq!(noted(&of(PARAMETERS_BYTES)), None);
        let note =
            json!({"reason": "requestParameters too large", "omitted": true, "originalSize": PARAMETERS_BYTES + 1});
        assert_eq!(noted(&of(PARAMETERS_BYTES + 1)), Some(note));
        assert_eq!(noted(&json!(["\u{1f}".repeat(PARAMETERS_BYTES / 6 + 1)])).unwrap()["omitted"], true);
    }

    #[test]
    fn no_value_has_more_bytes_than_the_most() {
        for value in
            [json!(null), json!(-1.5e-300), json!(u64::MAX), json!({"\u{1}": ["\u{1f}\"\\", true, {}], "é": "😀"})]
        {
            assert!(most_bytes(&value) >= value.to_string().len(), "{value}");
        }
    }
}
