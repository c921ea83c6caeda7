//! The end of a key: its material is overwritten, and everything else of it is gone.

use jiff::SignedDuration;
use serde_json::json;

use crate::clock::Time;
use crate::gate::{ServiceError, Settled, Settler};
use crate::store::{Home, StoreError, Transaction};
use crate::trail;

use super::keyring::{self, Key};
use super::states::KeyState;
use super::{event, materials};

/// Deletes keys when their waiting period is over.
pub(super) const DELETION: Settler = Settler { next_due, settle_one };

fn next_due(tx: &Transaction<'_>) -> Result<Option<Time>, StoreError> {
    Ok(keyring::next_deletion(tx)?.and_then(|key| key.deletion))
}

fn settle_one(_: &Home, tx: &Transaction<'_>, due: Time) -> Result<Settled, ServiceError> {
    if let Some(key) = keyring::next_deletion(tx)? {
        materials::destroy(tx, &key, None)?;
        tx.execute("DELETE FROM kms_keys WHERE key_id = ?1", [&key.id])?;
        // AWS KMS developer guide, "DeleteKey" in the CloudTrail examples.
        trail::append(tx, &event::by_kms(&key, "DeleteKey", due, None, json!({"keyId": key.arn()})))?;
        if key.is_replica() {
            start_primarys_window(tx, &key, due)?;
        }
    }
    Ok(Settled::Done)
}

/// A primary key whose deletion waited for its replicas is deleted when its own waiting period has passed after the last.
fn start_primarys_window(tx: &Transaction<'_>, replica: &Key, now: Time) -> Result<(), StoreError> {
    if let [primary] = &keyring::related(tx, replica)?[..]
        && primary.state == KeyState::PendingReplicaDeletion
        && let Some(days) = primary.window_days
    {
        keyring::set_deletion(tx, primary, now.after(SignedDuration::from_hours(24 * days)))?;
    }
    Ok(())
}
