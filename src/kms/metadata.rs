//! What `CreateKey`, `DescribeKey` and `ReplicateKey` say of a key.

use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::Time;
use crate::store::{StoreError, Transaction};

use super::keyring::{self, Key, MultiRegionKeyType};
use super::materials;
use super::states::{KeyState, Origin};

pub(super) const SYMMETRIC: &str = "SYMMETRIC_DEFAULT";
pub(super) const USAGE: &str = "ENCRYPT_DECRYPT";

/// Of imported material.
pub(super) const EXPIRES: &str = "KEY_MATERIAL_EXPIRES";
/// Of imported material.
pub(super) const DOES_NOT_EXPIRE: &str = "KEY_MATERIAL_DOES_NOT_EXPIRE";

/// A key as the API describes it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyMetadata {
    /// The account that owns it.
    #[serde(rename = "AWSAccountId")]
    pub aws_account_id: String,
    /// A UUID, or `mrk-` and 32 hex digits.
    pub key_id: String,
    /// Its ARN.
    pub arn: String,
    /// When it was made.
    pub creation_date: Time,
    /// Whether its state is `Enabled`.
    pub enabled: bool,
    /// As given.
    pub description: String,
    /// `ENCRYPT_DECRYPT`.
    pub key_usage: &'static str,
    /// `Enabled`, `Disabled`, `PendingImport`, `PendingDeletion` or `PendingReplicaDeletion`.
    pub key_state: &'static str,
    /// When a scheduled deletion is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_date: Option<Time>,
    /// When the first of its imported materials expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<Time>,
    /// `AWS_KMS` or `EXTERNAL`.
    pub origin: &'static str,
    /// `KEY_MATERIAL_EXPIRES` or `KEY_MATERIAL_DOES_NOT_EXPIRE`, of a key whose imported material is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_model: Option<&'static str>,
    /// `CUSTOMER` or `AWS`.
    pub key_manager: &'static str,
    /// `SYMMETRIC_DEFAULT`, under its old name.
    pub customer_master_key_spec: &'static str,
    /// `SYMMETRIC_DEFAULT`.
    pub key_spec: &'static str,
    /// `SYMMETRIC_DEFAULT` alone.
    pub encryption_algorithms: [&'static str; 1],
    /// Whether it can have, or is, a replica.
    pub multi_region: bool,
    /// The related keys of a multi-Region key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_region_configuration: Option<MultiRegionConfiguration>,
    /// The waiting period in days of a primary key that waits for its replicas' end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_deletion_window_in_days: Option<i64>,
    /// The material that encrypts now: 64 hex digits. Absent until the first import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_key_material_id: Option<String>,
}

/// Which keys are related.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MultiRegionConfiguration {
    /// `PRIMARY` or `REPLICA`: what the described key is.
    pub multi_region_key_type: &'static str,
    /// The primary.
    pub primary_key: MultiRegionKey,
    /// All replicas, in the order of their Regions.
    pub replica_keys: Vec<MultiRegionKey>,
}

/// One of several related keys.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MultiRegionKey {
    /// Its ARN.
    pub arn: String,
    /// Its Region.
    pub region: String,
}

pub(super) fn metadata(tx: &Transaction<'_>, key: &Key) -> Result<KeyMetadata, StoreError> {
    let imported = match key.origin {
        Origin::External if key.state != KeyState::PendingImport && key.material_id.is_some() => {
            materials::list(tx, key)?
        }
        _ => Vec::new(),
    };
    let valid_to = imported.iter().filter_map(|material| material.expires).min();
    let expiration = if valid_to.is_some() { EXPIRES } else { DOES_NOT_EXPIRE };
    Ok(KeyMetadata {
        aws_account_id: key.account.to_string(),
        key_id: key.public_id().to_owned(),
        arn: key.arn(),
        creation_date: key.created,
        enabled: key.state == KeyState::Enabled,
        description: key.description.clone(),
        key_usage: USAGE,
        key_state: key.state.name(),
        deletion_date: key.deletion,
        valid_to,
        origin: key.origin.name(),
        expiration_model: (!imported.is_empty()).then_some(expiration),
        key_manager: if key.only_via.is_some() { "AWS" } else { "CUSTOMER" },
        customer_master_key_spec: SYMMETRIC,
        key_spec: SYMMETRIC,
        encryption_algorithms: [SYMMETRIC],
        multi_region: key.multi_region.is_some(),
        multi_region_configuration: configuration(tx, key)?,
        pending_deletion_window_in_days: key.window_days,
        current_key_material_id: key.material_id.clone(),
    })
}

fn configuration(tx: &Transaction<'_>, key: &Key) -> Result<Option<MultiRegionConfiguration>, StoreError> {
    let Some(kind) = key.multi_region else { return Ok(None) };
    let of = |key: &Key| MultiRegionKey { arn: key.arn(), region: key.region.to_string() };
    let related = keyring::related(tx, key)?;
    let (primary, replicas): (Vec<_>, Vec<_>) =
        related.iter().partition(|key| key.multi_region == Some(MultiRegionKeyType::Primary));
    Ok(Some(MultiRegionConfiguration {
        multi_region_key_type: kind.name(),
        primary_key: of(primary.first().copied().unwrap_or(key)),
        replica_keys: replicas.into_iter().map(of).collect(),
    }))
}

/// The metadata in CloudTrail's spelling, which begins members in lower case and writes dates out.
pub(super) fn recorded(metadata: &KeyMetadata) -> Value {
    let mut recorded = json!({
        "aWSAccountId": metadata.aws_account_id, "keyId": metadata.key_id, "arn": metadata.arn,
        "creationDate": metadata.creation_date.to_trail_date_string(), "enabled": metadata.enabled,
        "description": metadata.description, "keyUsage": metadata.key_usage, "keyState": metadata.key_state,
        "origin": metadata.origin, "keyManager": metadata.key_manager,
        "customerMasterKeySpec": metadata.customer_master_key_spec, "keySpec": metadata.key_spec,
        "encryptionAlgorithms": metadata.encryption_algorithms, "multiRegion": metadata.multi_region,
    });
    if let Some(configuration) = &metadata.multi_region_configuration {
        let of = |key: &MultiRegionKey| json!({"arn": key.arn, "region": key.region});
        recorded["multiRegionConfiguration"] = json!({
            "multiRegionKeyType": configuration.multi_region_key_type,
            "primaryKey": of(&configuration.primary_key),
            "replicaKeys": configuration.replica_keys.iter().map(of).collect::<Value>(),
        });
    }
    if let Some(material) = &metadata.current_key_material_id {
        recorded["currentKeyMaterialId"] = material.as_str().into();
    }
    recorded
}
