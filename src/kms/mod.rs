//! KMS: customer master keys, their states, the envelope, encryption contexts, aliases and grants.
//!
//! Every operation of the API is one function that takes a [`Call`] and a request and runs through the gate. Requests and
//! responses are spelled as in the AWS API; formats and reasons are in `docs/ciphertext-blob.md`.
//!
//! [`Call`]: crate::gate::Call

mod access;
mod aliases;
mod assume;
mod blob;
mod context;
mod crypto;
mod deletion;
pub mod digests;
mod envelope;
mod event;
mod given;
mod grant;
mod grants;
mod import;
mod keyring;
mod keys;
mod managed;
mod materials;
mod metadata;
mod operations;
mod page;
mod policy;
mod random;
mod regions;
pub mod request;
mod root;
mod rotation;
pub mod states;
mod tags;
mod trace;
mod unsupported;
mod usage;
mod validate;
mod wrapping;

pub use aliases::{
    AliasListEntry, CreateAliasRequest, DeleteAliasRequest, ListAliasesRequest, ListAliasesResponse,
    UpdateAliasRequest, create_alias, delete_alias, list_aliases, update_alias,
};
pub use assume::{
    arn_in, arn_of, assume_aliases, assume_deletion, assume_disabled, assume_grants, assume_key, assume_policy,
    assume_policy_everywhere, assume_tags, deletion_of, wrap_assumed,
};
pub use blob::{Blob, SecretBlob};
pub use context::{EncryptionContext, MAX_CONTEXT_BYTES};
pub use crypto::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, GenerateDataKeyRequest, GenerateDataKeyResponse,
    GenerateDataKeyWithoutPlaintextRequest, GenerateDataKeyWithoutPlaintextResponse, ReEncryptRequest,
    ReEncryptResponse, decrypt, encrypt, generate_data_key, generate_data_key_without_plaintext,
    generate_data_key_without_plaintext_with, re_encrypt,
};
pub use given::{Given, alias_target, has_given_key, has_policy};
pub use grant::{GrantConstraints, grant_named};
pub use grants::{
    CreateGrantRequest, CreateGrantResponse, GrantListEntry, ListGrantsRequest, ListGrantsResponse,
    ListRetirableGrantsRequest, RetireGrantRequest, RevokeGrantRequest, create_grant, list_grants,
    list_retirable_grants, retire_grant, revoke_grant,
};
pub use import::{
    DeleteImportedKeyMaterialRequest, DeleteImportedKeyMaterialResponse, GetParametersForImportRequest,
    GetParametersForImportResponse, ImportKeyMaterialRequest, ImportKeyMaterialResponse, delete_imported_key_material,
    get_parameters_for_import, import_key_material,
};
pub use keys::{
    CancelKeyDeletionRequest, CancelKeyDeletionResponse, CreateKeyRequest, CreateKeyResponse, DescribeKeyRequest,
    DescribeKeyResponse, DisableKeyRequest, EnableKeyRequest, KeyListEntry, ListKeysRequest, ListKeysResponse,
    ScheduleKeyDeletionRequest, ScheduleKeyDeletionResponse, UpdateKeyDescriptionRequest, cancel_key_deletion,
    create_given_key, create_key, describe_key, disable_key, enable_key, list_keys, schedule_key_deletion,
    update_key_description,
};
pub use managed::{ManagedAlias, managed_key};
pub use metadata::{KeyMetadata, MultiRegionConfiguration, MultiRegionKey};
pub use operations::SERVICE;
pub(crate) use operations::SETTLERS;
pub use policy::{
    GetKeyPolicyRequest, GetKeyPolicyResponse, ListKeyPoliciesRequest, ListKeyPoliciesResponse, MAX_POLICY_BYTES,
    PutKeyPolicyRequest, default_policy, get_key_policy, list_key_policies, managed_policy, put_key_policy,
};
pub use random::{GenerateRandomRequest, GenerateRandomResponse, RecipientInfo, generate_random};
pub use regions::{
    ReplicateKeyRequest, ReplicateKeyResponse, UpdatePrimaryRegionRequest, replicate_key, update_primary_region,
};
pub use root::{RootKey, RootKeyError};
pub use rotation::{
    DisableKeyRotationRequest, EnableKeyRotationRequest, GetKeyRotationStatusRequest, GetKeyRotationStatusResponse,
    ListKeyRotationsRequest, ListKeyRotationsResponse, RotateKeyOnDemandRequest, RotateKeyOnDemandResponse,
    RotationsListEntry, disable_key_rotation, enable_key_rotation, get_key_rotation_status, list_key_rotations,
    rotate_key_on_demand,
};
pub use states::KEY_STATE;
pub use tags::{
    ListResourceTagsRequest, ListResourceTagsResponse, Tag, TagResourceRequest, UntagResourceRequest,
    list_resource_tags, tag_resource, untag_resource,
};
pub use trace::{ACCOUNT_STATE, UNTOLD};
pub use unsupported::{
    ConnectCustomKeyStoreRequest, CreateCustomKeyStoreRequest, DeleteCustomKeyStoreRequest, DeriveSharedSecretRequest,
    DescribeCustomKeyStoresRequest, DisconnectCustomKeyStoreRequest, GenerateDataKeyPairRequest,
    GenerateDataKeyPairWithoutPlaintextRequest, GenerateMacRequest, GetPublicKeyRequest, Never, SignRequest,
    UNSUPPORTED, UpdateCustomKeyStoreRequest, VerifyMacRequest, VerifyRequest, connect_custom_key_store,
    create_custom_key_store, delete_custom_key_store, derive_shared_secret, describe_custom_key_stores,
    disconnect_custom_key_store, generate_data_key_pair, generate_data_key_pair_without_plaintext, generate_mac,
    get_public_key, sign, update_custom_key_store, verify, verify_mac,
};
pub use usage::{GetKeyLastUsageRequest, GetKeyLastUsageResponse, KeyLastUsageData, get_key_last_usage};

use crate::gate::ServiceError;

/// The end of an operation that was only to be tried.
fn dry_run(asked: Option<bool>) -> Result<(), ServiceError> {
    if asked == Some(true) {
        return Err(ServiceError::refused(
            "DryRunOperationException",
            "The request would have succeeded, but the DryRun option is set.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
