//! The end of a key: its material is overwritten, and everything else of it is gone.

use rusqlite::{Transaction, params};
use serde_json::{Map, Value, json};

use crate::clock::Time;
use crate::gate::{ServiceError, Settler, require_truncation};
use crate::ids;
use crate::store::StoreError;
use crate::trail::{self, EventType, Record, Resource};
use crate::twin::{self, Protection};

use super::keyring::{self, Key};

/// Deletes keys when their waiting period is over.
pub(super) const DELETION: Settler = Settler { next_due, settle_one };

fn next_due(tx: &Transaction<'_>) -> Result<Option<Time>, StoreError> {
    Ok(keyring::next_deletion(tx)?.and_then(|key| key.deletion))
}

fn settle_one(tx: &Transaction<'_>, due: Time) -> Result<(), ServiceError> {
    if let Some(key) = keyring::next_deletion(tx)? {
        shred(tx, &key, due)?;
        trail::append(tx, &record(&key, due))?;
    }
    Ok(())
}

/// Overwrites the sealed material in place, with as many zeros (see `schema.sql` for why the row stays), and asks for the
/// write-ahead log, which still holds the old page, to be truncated.
fn shred(tx: &Transaction<'_>, key: &Key, due: Time) -> Result<(), StoreError> {
    let overwrite = if twin::is_off(Protection::Overwrite) {
        "UPDATE kms_materials SET destroyed = ?2 WHERE key_id = ?1"
    } else {
        "UPDATE kms_materials SET destroyed = ?2, sealed = zeroblob(length(sealed)) WHERE key_id = ?1"
    };
    tx.execute(overwrite, params![key.id, due.micros()])?;
    tx.execute("DELETE FROM kms_keys WHERE key_id = ?1", [&key.id])?;
    require_truncation(tx)
}

/// KMS's own record of the deletion (AWS KMS developer guide, "`DeleteKey`" in the CloudTrail examples).
fn record(key: &Key, due: Time) -> Record {
    Record {
        event_id: ids::uuid(),
        time: due,
        recipient: key.account.clone(),
        region: key.region.clone(),
        source: "kms.amazonaws.com".to_owned(),
        name: "DeleteKey".to_owned(),
        event_type: EventType::ServiceEvent,
        identity: json!({"accountId": key.account.as_str(), "invokedBy": "AWS Internal"}),
        username: None,
        access_key_id: None,
        source_ip: "AWS Internal".to_owned(),
        user_agent: "AWS Internal".to_owned(),
        request_id: None,
        read_only: false,
        request: Value::Null,
        response: json!({"keyId": key.arn()}),
        additional: Map::new(),
        shared_event_id: None,
        error: None,
        lists_resources: true,
        resources: vec![Resource { account: key.account.clone(), kind: "AWS::KMS::Key".to_owned(), name: key.arn() }],
        mentioned: Vec::new(),
    }
}
