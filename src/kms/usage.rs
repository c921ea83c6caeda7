//! `GetKeyLastUsage`: when a key was last used for a cryptographic operation that succeeded.
//!
//! The trail knows: nothing else is kept. A multi-Region key's relatives have trails of their own, so each is counted alone.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Time;
use crate::gate::{Call, ServiceError, Step};
use crate::trail::{self, Attribute, Query};

use super::keyring::Key;
use super::keys;
use super::operations::GET_KEY_LAST_USAGE;

/// What counts as use (AWS KMS API reference, `GetKeyLastUsage`), of the operations that there are here.
const TRACKED: [&str; 5] = ["Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncrypt"];

/// `GetKeyLastUsage`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetKeyLastUsageRequest {
    /// A key id or key ARN.
    pub key_id: String,
}

/// What `GetKeyLastUsage` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetKeyLastUsageResponse {
    /// The key's id.
    pub key_id: String,
    /// The last use; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_last_usage: Option<KeyLastUsageData>,
    /// Since when uses are known: since the key was made.
    pub tracking_start_date: Time,
    /// When the key was made.
    pub key_creation_date: Time,
}

/// One use of a key.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyLastUsageData {
    /// `Decrypt`, `Encrypt` and so on.
    pub operation: String,
    /// When, in whole seconds.
    pub timestamp: Time,
    /// The record in the trail.
    pub cloud_trail_event_id: String,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_request_id: Option<String>,
}

/// When, by which operation and under which record a key was last used.
pub fn get_key_last_usage(
    call: &Call<'_>,
    req: GetKeyLastUsageRequest,
) -> Result<GetKeyLastUsageResponse, ServiceError> {
    keys::on_key(call, &GET_KEY_LAST_USAGE, &req.key_id, json!({"keyId": req.key_id}), Ok(()), |step, key| {
        Ok(GetKeyLastUsageResponse {
            key_id: key.public_id().to_owned(),
            key_last_usage: last_use(step, key)?,
            tracking_start_date: key.created,
            key_creation_date: key.created,
        })
    })
}

/// The last use of `key` that succeeded.
pub(super) fn last_use(step: &Step<'_>, key: &Key) -> Result<Option<KeyLastUsageData>, ServiceError> {
    let query = Query {
        account: key.account.clone(),
        region: key.region.clone(),
        attribute: Some((Attribute::ResourceName, key.arn())),
        start: None,
        end: None,
        oldest: key.created,
    };
    let mut token = None;
    loop {
        let page = trail::look_up(step.tx, &query, 50, token.as_deref())?.map_err(ServiceError::machine)?;
        for event in page.events {
            let record: Value = serde_json::from_str(&event.record).unwrap_or_default();
            if TRACKED.contains(&event.name.as_str()) && record.get("errorCode").is_none() {
                return Ok(Some(KeyLastUsageData {
                    operation: event.name,
                    timestamp: event.time,
                    cloud_trail_event_id: event.event_id,
                    kms_request_id: record["requestID"].as_str().map(str::to_owned),
                }));
            }
        }
        token = page.next;
        if token.is_none() {
            return Ok(None);
        }
    }
}
