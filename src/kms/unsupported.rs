//! Operations on what EBS and RDS cannot use: asymmetric and HMAC keys, data-key pairs, custom key stores. Each is refused
//! by name, and leaves its record.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gate::{self, Call, Operation, ServiceError};

use super::operations::SERVICE;

/// The answer of an operation that never gives one.
#[derive(Debug, Serialize)]
pub enum Never {}

/// For each operation a request that has AWS's members, whatever is in them, and a function that refuses it.
macro_rules! unsupported {
    ($($function:ident $name:literal $request:ident $read_only:literal { $($member:ident),* })+) => {
        /// The operations that are refused by name.
        pub const UNSUPPORTED: &[&str] = &[$($name),+];

        $(
        #[doc = concat!("`", $name, "`, which is not supported. Its members are taken as they are.")]
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
        pub struct $request {
            $(#[doc = "As in AWS; not looked at."] pub $member: Option<Value>,)*
        }

        #[doc = concat!("Refuses `", $name, "`.")]
        pub fn $function(call: &Call<'_>, _: $request) -> Result<Never, ServiceError> {
            static OPERATION: Operation = Operation { name: $name, read_only: $read_only, service: &SERVICE };
            refuse(call, &OPERATION)
        }
        )+
    };
}

unsupported! {
    sign "Sign" SignRequest true { key_id, message, message_type, grant_tokens, signing_algorithm, dry_run }
    verify "Verify" VerifyRequest true {
        key_id, message, message_type, signature, signing_algorithm, grant_tokens, dry_run
    }
    generate_mac "GenerateMac" GenerateMacRequest true { message, key_id, mac_algorithm, grant_tokens, dry_run }
    verify_mac "VerifyMac" VerifyMacRequest true { message, key_id, mac_algorithm, mac, grant_tokens, dry_run }
    get_public_key "GetPublicKey" GetPublicKeyRequest true { key_id, grant_tokens }
    derive_shared_secret "DeriveSharedSecret" DeriveSharedSecretRequest true {
        key_id, key_agreement_algorithm, public_key, grant_tokens, dry_run, recipient
    }
    generate_data_key_pair "GenerateDataKeyPair" GenerateDataKeyPairRequest true {
        encryption_context, key_id, key_pair_spec, grant_tokens, recipient, dry_run
    }
    generate_data_key_pair_without_plaintext
    "GenerateDataKeyPairWithoutPlaintext" GenerateDataKeyPairWithoutPlaintextRequest true {
        encryption_context, key_id, key_pair_spec, grant_tokens, dry_run
    }
    create_custom_key_store "CreateCustomKeyStore" CreateCustomKeyStoreRequest false {
        custom_key_store_name, cloud_hsm_cluster_id, trust_anchor_certificate, key_store_password,
        custom_key_store_type, xks_proxy_uri_endpoint, xks_proxy_uri_path, xks_proxy_vpc_endpoint_service_name,
        xks_proxy_vpc_endpoint_service_owner, xks_proxy_authentication_credential, xks_proxy_connectivity
    }
    connect_custom_key_store "ConnectCustomKeyStore" ConnectCustomKeyStoreRequest false { custom_key_store_id }
    disconnect_custom_key_store "DisconnectCustomKeyStore" DisconnectCustomKeyStoreRequest false { custom_key_store_id }
    delete_custom_key_store "DeleteCustomKeyStore" DeleteCustomKeyStoreRequest false { custom_key_store_id }
    describe_custom_key_stores "DescribeCustomKeyStores" DescribeCustomKeyStoresRequest true {
        custom_key_store_id, custom_key_store_name, limit, marker
    }
    update_custom_key_store "UpdateCustomKeyStore" UpdateCustomKeyStoreRequest false {
        custom_key_store_id, new_custom_key_store_name, key_store_password, cloud_hsm_cluster_id,
        xks_proxy_uri_endpoint, xks_proxy_uri_path, xks_proxy_vpc_endpoint_service_name,
        xks_proxy_vpc_endpoint_service_owner, xks_proxy_authentication_credential, xks_proxy_connectivity
    }
}

/// Nothing of the request is recorded: most of these carry what must not be.
fn refuse(call: &Call<'_>, operation: &'static Operation) -> Result<Never, ServiceError> {
    gate::run(call, operation, Value::Null, |_| {
        let message = format!("{} is not supported: EBS and RDS use symmetric encryption keys of KMS.", operation.name);
        Err(ServiceError::refused("UnsupportedOperationException", message))
    })
}
