//! KMS: customer master keys, their states, the envelope, encryption contexts, aliases and grants.
//!
//! Every operation of the API is one function that takes a [`Call`] and a request and runs through the gate. Requests and
//! responses are spelled as in the AWS API; formats and reasons are in `docs/ciphertext-blob.md`.
//!
//! [`Call`]: crate::gate::Call

mod access;
mod aliases;
mod blob;
mod context;
mod crypto;
mod deletion;
mod envelope;
mod grant;
mod grants;
mod keyring;
mod keys;
mod managed;
mod operations;
mod page;
mod root;
pub mod states;
mod validate;

pub use aliases::{
    AliasListEntry, CreateAliasRequest, DeleteAliasRequest, ListAliasesRequest, ListAliasesResponse,
    UpdateAliasRequest, create_alias, delete_alias, list_aliases, update_alias,
};
pub use blob::{Blob, SecretBlob};
pub use context::{EncryptionContext, MAX_CONTEXT_BYTES};
pub use crypto::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, GenerateDataKeyRequest, GenerateDataKeyResponse,
    GenerateDataKeyWithoutPlaintextRequest, GenerateDataKeyWithoutPlaintextResponse, ReEncryptRequest,
    ReEncryptResponse, decrypt, encrypt, generate_data_key, generate_data_key_without_plaintext,
    generate_data_key_without_plaintext_with, re_encrypt,
};
pub use grant::{GrantConstraints, grant_named};
pub use grants::{
    CreateGrantRequest, CreateGrantResponse, GrantListEntry, ListGrantsRequest, ListGrantsResponse, RetireGrantRequest,
    RevokeGrantRequest, create_grant, list_grants, retire_grant, revoke_grant,
};
pub use keys::{
    CancelKeyDeletionRequest, CancelKeyDeletionResponse, CreateKeyRequest, CreateKeyResponse, DescribeKeyRequest,
    DescribeKeyResponse, DisableKeyRequest, EnableKeyRequest, KeyListEntry, KeyMetadata, ListKeysRequest,
    ListKeysResponse, ScheduleKeyDeletionRequest, ScheduleKeyDeletionResponse, Tag, cancel_key_deletion, create_key,
    describe_key, disable_key, enable_key, list_keys, schedule_key_deletion,
};
pub use managed::{ManagedAlias, managed_key};
pub use operations::SERVICE;
pub use root::{RootKey, RootKeyError};

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
