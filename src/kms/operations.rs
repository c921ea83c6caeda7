//! The operations of KMS as the trail names them. Those that use a key without changing it count as read-only.

use crate::gate::{Operation, Service, Settler};

use super::deletion::DELETION;
use super::digests::{DELIVERY, DIGEST};
use super::import::EXPIRY;
use super::rotation::ROTATION;

/// KMS.
pub static SERVICE: Service =
    Service { event_source: "kms.amazonaws.com", error_prefix: "", lists_resources: true, settlers: &SETTLERS };

/// What is due by the clock in KMS. Services that call it have these among their own.
pub(crate) const SETTLERS: [Settler; 5] = [DELETION, EXPIRY, ROTATION, DELIVERY, DIGEST];

const fn reading(name: &'static str) -> Operation {
    Operation { name, read_only: true, service: &SERVICE }
}

const fn changing(name: &'static str) -> Operation {
    Operation { name, read_only: false, service: &SERVICE }
}

pub(super) static CREATE_KEY: Operation = changing("CreateKey");
pub(super) static DESCRIBE_KEY: Operation = reading("DescribeKey");
pub(super) static LIST_KEYS: Operation = reading("ListKeys");
pub(super) static ENABLE_KEY: Operation = changing("EnableKey");
pub(super) static DISABLE_KEY: Operation = changing("DisableKey");
pub(super) static SCHEDULE_KEY_DELETION: Operation = changing("ScheduleKeyDeletion");
pub(super) static CANCEL_KEY_DELETION: Operation = changing("CancelKeyDeletion");
pub(super) static UPDATE_KEY_DESCRIPTION: Operation = changing("UpdateKeyDescription");
pub(super) static GET_KEY_LAST_USAGE: Operation = reading("GetKeyLastUsage");
pub(super) static TAG_RESOURCE: Operation = changing("TagResource");
pub(super) static UNTAG_RESOURCE: Operation = changing("UntagResource");
pub(super) static LIST_RESOURCE_TAGS: Operation = reading("ListResourceTags");
pub(super) static ENABLE_KEY_ROTATION: Operation = changing("EnableKeyRotation");
pub(super) static DISABLE_KEY_ROTATION: Operation = changing("DisableKeyRotation");
pub(super) static GET_KEY_ROTATION_STATUS: Operation = reading("GetKeyRotationStatus");
pub(super) static ROTATE_KEY_ON_DEMAND: Operation = changing("RotateKeyOnDemand");
pub(super) static LIST_KEY_ROTATIONS: Operation = reading("ListKeyRotations");
pub(super) static GET_PARAMETERS_FOR_IMPORT: Operation = reading("GetParametersForImport");
pub(super) static IMPORT_KEY_MATERIAL: Operation = changing("ImportKeyMaterial");
pub(super) static DELETE_IMPORTED_KEY_MATERIAL: Operation = changing("DeleteImportedKeyMaterial");
pub(super) static REPLICATE_KEY: Operation = changing("ReplicateKey");
pub(super) static UPDATE_PRIMARY_REGION: Operation = changing("UpdatePrimaryRegion");
pub(super) static CREATE_ALIAS: Operation = changing("CreateAlias");
pub(super) static UPDATE_ALIAS: Operation = changing("UpdateAlias");
pub(super) static DELETE_ALIAS: Operation = changing("DeleteAlias");
pub(super) static LIST_ALIASES: Operation = reading("ListAliases");
pub(super) static ENCRYPT: Operation = reading("Encrypt");
pub(super) static DECRYPT: Operation = reading("Decrypt");
pub(super) static RE_ENCRYPT: Operation = reading("ReEncrypt");
pub(super) static GENERATE_DATA_KEY: Operation = reading("GenerateDataKey");
pub(super) static GENERATE_DATA_KEY_WITHOUT_PLAINTEXT: Operation = reading("GenerateDataKeyWithoutPlaintext");
pub(super) static GENERATE_RANDOM: Operation = reading("GenerateRandom");
pub(super) static CREATE_GRANT: Operation = changing("CreateGrant");
pub(super) static LIST_GRANTS: Operation = reading("ListGrants");
pub(super) static LIST_RETIRABLE_GRANTS: Operation = reading("ListRetirableGrants");
pub(super) static RETIRE_GRANT: Operation = changing("RetireGrant");
pub(super) static REVOKE_GRANT: Operation = changing("RevokeGrant");
pub(super) static GET_KEY_POLICY: Operation = reading("GetKeyPolicy");
pub(super) static PUT_KEY_POLICY: Operation = changing("PutKeyPolicy");
pub(super) static LIST_KEY_POLICIES: Operation = reading("ListKeyPolicies");
