//! What a service was used for, counted from the records of it: the trail knows every use, whichever process made it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::store::{StoreError, Transaction};

use super::damaged;

/// A use of a service, as counters tell it apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Use {
    /// The operation.
    pub operation: String,
    /// Which service made it on somebody's behalf, as the record's `invokedBy` has it; `None` for a direct call.
    pub via: Option<String>,
    /// The error's code; `None` for a result.
    pub code: Option<String>,
}

/// What of a record is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    event_source: String,
    event_name: String,
    event_type: String,
    error_code: Option<String>,
    recipient_account_id: String,
    #[serde(rename = "sharedEventID")]
    shared_event_id: Option<String>,
    user_identity: Caller,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Caller {
    account_id: Option<String>,
    invoked_by: Option<String>,
}

/// Counts the API calls to the service `source` (`kms.amazonaws.com`) among the `most` records behind `place`, and answers the
/// place of the last record that it saw; `place` itself if there are no more. A call that is also in another account's trail
/// is one use.
///
/// # Errors
/// The store's; a record that is none.
pub fn count_uses(
    tx: &Transaction<'_>,
    source: &str,
    place: i64,
    most: usize,
    into: &mut BTreeMap<Use, u64>,
) -> Result<i64, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT seq, record FROM trail_records WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut rows = statement.query([place, most])?;
    let mut last = place;
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        let text = row.get_ref(1)?.as_str().map_err(|error| damaged(error.into()))?;
        let seen: Seen = serde_json::from_str(text).map_err(|error| damaged(error.into()))?;
        let is_copy = seen.shared_event_id.is_some()
            && seen.user_identity.account_id.is_some_and(|account| account != seen.recipient_account_id);
        if seen.event_source == source && seen.event_type == "AwsApiCall" && !is_copy {
            let used = Use { operation: seen.event_name, via: seen.user_identity.invoked_by, code: seen.error_code };
            *into.entry(used).or_default() += 1;
        }
    }
    Ok(last)
}
