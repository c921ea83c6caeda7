//! The records of what KMS does by itself.

use serde_json::{Map, Value, json};

use crate::clock::Time;
use crate::ids;
use crate::trail::{EventType, Record, Resource};

use super::keyring::Key;

/// A record of `name`, done to `key` at `time`. `details` are its `serviceEventDetails`, `response` its response elements.
pub(super) fn by_kms(key: &Key, name: &str, time: Time, details: Option<Value>, response: Value) -> Record {
    Record {
        event_id: ids::event_id(time.millis()),
        time,
        recipient: key.account.clone(),
        region: key.region.clone(),
        source: "kms.amazonaws.com".to_owned(),
        name: name.to_owned(),
        event_type: EventType::ServiceEvent,
        identity: json!({"accountId": key.account.as_str(), "invokedBy": "AWS Internal"}),
        username: None,
        access_key_id: None,
        source_ip: "AWS Internal".to_owned(),
        user_agent: "AWS Internal".to_owned(),
        request_id: None,
        read_only: false,
        request: Value::Null,
        response,
        additional: Map::new(),
        service_event_details: details,
        shared_event_id: None,
        error: None,
        lists_resources: true,
        resources: vec![Resource { account: key.account.clone(), kind: "AWS::KMS::Key".to_owned(), name: key.arn() }],
        mentioned: Vec::new(),
    }
}
