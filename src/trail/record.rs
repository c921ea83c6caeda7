//! A CloudTrail record, event version 1.11 (CloudTrail user guide, "CloudTrail record contents").

use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::Time;
use crate::ids::{AccountId, Region};
use crate::store::StoreError;

use super::lookup::Attribute;

/// CloudTrail cuts `errorCode` and `errorMessage` at 1 KB.
const ERROR_BYTES: usize = 1024;

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
/// a ciphertext blob, a grant token or a policy.
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

impl Record {
    /// The record as CloudTrail writes it, its fields in CloudTrail's order.
    pub fn to_json(&self) -> Value {
        let mut json = Map::new();
        let mut put = |name: &str, value: Value| json.insert(name.to_owned(), value);
        put("eventVersion", "1.11".into());
        put("userIdentity", self.identity.clone());
        put("eventTime", self.time.to_seconds_string().into());
        put("eventSource", self.source.clone().into());
        put("eventName", self.name.clone().into());
        put("awsRegion", self.region.as_str().into());
        put("sourceIPAddress", self.source_ip.clone().into());
        put("userAgent", self.user_agent.clone().into());
        if let Some((code, message)) = &self.error {
            put("errorCode", cut(code).into());
            if !message.is_empty() {
                put("errorMessage", cut(message).into());
            }
        }
        put("requestParameters", self.request.clone());
        put("responseElements", self.response.clone());
        if !self.additional.is_empty() {
            put("additionalEventData", Value::Object(self.additional.clone()));
        }
        if let Some(id) = &self.request_id {
            put("requestID", id.clone().into());
        }
        put("eventID", self.event_id.clone().into());
        put("readOnly", self.read_only.into());
        if self.lists_resources {
            let item = |r: &Resource| json!({"accountId": r.account.as_str(), "type": r.kind, "ARN": r.name});
            put("resources", self.resources.iter().map(item).collect());
        }
        let event_type = match self.event_type {
            EventType::ApiCall => "AwsApiCall",
            EventType::ServiceEvent => "AwsServiceEvent",
        };
        put("eventType", event_type.into());
        put("managementEvent", true.into());
        put("recipientAccountId", self.recipient.as_str().into());
        if let Some(details) = &self.service_event_details {
            put("serviceEventDetails", details.clone());
        }
        if let Some(id) = &self.shared_event_id {
            put("sharedEventID", id.clone().into());
        }
        put("eventCategory", "Management".into());
        Value::Object(json)
    }

    fn attributes(&self) -> Vec<(Attribute, &str)> {
        let mut list = vec![
            (Attribute::EventId, self.event_id.as_str()),
            (Attribute::EventName, &self.name),
            (Attribute::EventSource, &self.source),
            (Attribute::ReadOnly, if self.read_only { "true" } else { "false" }),
        ];
        list.extend(self.username.as_deref().map(|name| (Attribute::Username, name)));
        list.extend(self.access_key_id.as_deref().map(|id| (Attribute::AccessKeyId, id)));
        for resource in self.resources.iter().chain(&self.mentioned) {
            list.push((Attribute::ResourceType, &resource.kind));
            list.push((Attribute::ResourceName, &resource.name));
        }
        list
    }
}

/// What `LookupEvents` says of a record beside the record itself.
#[derive(Deserialize)]
pub(super) struct Summary {
    pub(super) event_id: String,
    pub(super) name: String,
    pub(super) source: String,
    pub(super) read_only: bool,
    pub(super) username: Option<String>,
    pub(super) access_key_id: Option<String>,
    pub(super) resources: Vec<(String, String)>,
}

/// Appends `record` to its trail, in the transaction of the operation that it tells of.
pub fn append(tx: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    let trail = trail_number(tx, &record.recipient, &record.region)?;
    let touched: Vec<_> =
        record.resources.iter().chain(&record.mentioned).map(|resource| (&resource.kind, &resource.name)).collect();
    let summary = json!({
        "event_id": record.event_id, "name": record.name, "source": record.source, "read_only": record.read_only,
        "username": record.username, "access_key_id": record.access_key_id, "resources": touched,
    })
    .to_string();
    tx.prepare_cached("INSERT INTO trail_records (trail, time, record, summary) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![trail, record.time.micros(), record.to_json().to_string(), summary])?;
    let seq = tx.last_insert_rowid();
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO trail_index (trail, attribute, value, time, seq) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (attribute, value) in record.attributes() {
        insert.execute(params![trail, attribute as u8, value, record.time.micros(), seq])?;
    }
    Ok(())
}

/// The number of an account's trail in a Region; made at its first record.
fn trail_number(tx: &Transaction<'_>, account: &AccountId, region: &Region) -> Result<i64, StoreError> {
    if let Some(trail) = find_trail(tx, account, region)? {
        return Ok(trail);
    }
    tx.execute("INSERT INTO trails (account, region) VALUES (?1, ?2)", [account.as_str(), region.as_str()])?;
    Ok(tx.last_insert_rowid())
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
