//! The operations of KMS that are refused by name, with the parameters that AWS's service model has for them.

use super::{Kind, Operation, Parameter};
use crate::kms;
use crate::operation;

use super::kms::{DRY_RUN, GRANT_TOKENS, LIMIT, MALFORMED, MARKER, RECIPIENT, context, key_id, pages};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "ConnectCustomKeyStore",
        MALFORMED,
        kms::ConnectCustomKeyStoreRequest,
        kms::connect_custom_key_store,
        "Not supported: there are no custom key stores"
    )
    .takes(&[STORE_ID.required()]),
    operation!(
        "CreateCustomKeyStore",
        MALFORMED,
        kms::CreateCustomKeyStoreRequest,
        kms::create_custom_key_store,
        "Not supported: there are no custom key stores"
    )
    .takes(&[
        Parameter::string("CustomKeyStoreName", "").required().at_least(1),
        CLUSTER_ID,
        Parameter::string("TrustAnchorCertificate", "").at_least(1),
        PASSWORD,
        Parameter::choice("CustomKeyStoreType", &["AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"], ""),
        XKS_ENDPOINT,
        XKS_PATH,
        XKS_VPC_NAME,
        XKS_VPC_OWNER,
        XKS_CREDENTIAL,
        XKS_CONNECTIVITY,
    ]),
    operation!(
        "DeleteCustomKeyStore",
        MALFORMED,
        kms::DeleteCustomKeyStoreRequest,
        kms::delete_custom_key_store,
        "Not supported: there are no custom key stores"
    )
    .takes(&[STORE_ID.required()]),
    operation!(
        "DeriveSharedSecret",
        MALFORMED,
        kms::DeriveSharedSecretRequest,
        kms::derive_shared_secret,
        "Not supported: keys are symmetric"
    )
    .takes(&[
        key_id("").required(),
        Parameter::choice("KeyAgreementAlgorithm", &["ECDH"], "").required(),
        Parameter::blob("PublicKey", "").required(),
        GRANT_TOKENS,
        DRY_RUN,
        Parameter::new("Recipient", Kind::Structure(RECIPIENT), ""),
    ]),
    operation!(
        "DescribeCustomKeyStores",
        MALFORMED,
        kms::DescribeCustomKeyStoresRequest,
        kms::describe_custom_key_stores,
        "Not supported: there are no custom key stores"
    )
    .takes(&[STORE_ID, Parameter::string("CustomKeyStoreName", "").at_least(1), LIMIT, MARKER])
    .pages(pages("CustomKeyStores")),
    operation!(
        "DisconnectCustomKeyStore",
        MALFORMED,
        kms::DisconnectCustomKeyStoreRequest,
        kms::disconnect_custom_key_store,
        "Not supported: there are no custom key stores"
    )
    .takes(&[STORE_ID.required()]),
    operation!(
        "GenerateDataKeyPair",
        MALFORMED,
        kms::GenerateDataKeyPairRequest,
        kms::generate_data_key_pair,
        "Not supported: EBS and RDS use no key pairs"
    )
    .takes(&[
        context("EncryptionContext", ""),
        key_id("").required(),
        PAIR_SPEC,
        GRANT_TOKENS,
        Parameter::new("Recipient", Kind::Structure(RECIPIENT), ""),
        DRY_RUN,
    ]),
    operation!(
        "GenerateDataKeyPairWithoutPlaintext",
        MALFORMED,
        kms::GenerateDataKeyPairWithoutPlaintextRequest,
        kms::generate_data_key_pair_without_plaintext,
        "Not supported: EBS and RDS use no key pairs"
    )
    .takes(&[context("EncryptionContext", ""), key_id("").required(), PAIR_SPEC, GRANT_TOKENS, DRY_RUN]),
    operation!(
        "GenerateMac",
        MALFORMED,
        kms::GenerateMacRequest,
        kms::generate_mac,
        "Not supported: there are no HMAC keys"
    )
    .takes(&[
        Parameter::blob("Message", "").required(),
        key_id("").required(),
        MAC_ALGORITHM,
        GRANT_TOKENS,
        DRY_RUN,
    ]),
    operation!(
        "GetPublicKey",
        MALFORMED,
        kms::GetPublicKeyRequest,
        kms::get_public_key,
        "Not supported: keys are symmetric"
    )
    .takes(&[key_id("").required(), GRANT_TOKENS]),
    operation!("Sign", MALFORMED, kms::SignRequest, kms::sign, "Not supported: keys are symmetric").takes(&[
        key_id("").required(),
        Parameter::blob("Message", "").required(),
        MESSAGE_TYPE,
        GRANT_TOKENS,
        SIGNING_ALGORITHM,
        DRY_RUN,
    ]),
    operation!(
        "UpdateCustomKeyStore",
        MALFORMED,
        kms::UpdateCustomKeyStoreRequest,
        kms::update_custom_key_store,
        "Not supported: there are no custom key stores"
    )
    .takes(&[
        STORE_ID.required(),
        Parameter::string("NewCustomKeyStoreName", "").at_least(1),
        PASSWORD,
        CLUSTER_ID,
        XKS_ENDPOINT,
        XKS_PATH,
        XKS_VPC_NAME,
        XKS_VPC_OWNER,
        XKS_CREDENTIAL,
        XKS_CONNECTIVITY,
    ]),
    operation!("Verify", MALFORMED, kms::VerifyRequest, kms::verify, "Not supported: keys are symmetric").takes(&[
        key_id("").required(),
        Parameter::blob("Message", "").required(),
        MESSAGE_TYPE,
        Parameter::blob("Signature", "").required(),
        SIGNING_ALGORITHM,
        GRANT_TOKENS,
        DRY_RUN,
    ]),
    operation!("VerifyMac", MALFORMED, kms::VerifyMacRequest, kms::verify_mac, "Not supported: there are no HMAC keys")
        .takes(&[
            Parameter::blob("Message", "").required(),
            key_id("").required(),
            MAC_ALGORITHM,
            Parameter::blob("Mac", "").required(),
            GRANT_TOKENS,
            DRY_RUN,
        ]),
];

const STORE_ID: Parameter = Parameter::string("CustomKeyStoreId", "").at_least(1);
const CLUSTER_ID: Parameter = Parameter::string("CloudHsmClusterId", "").at_least(19);
const PASSWORD: Parameter = Parameter::string("KeyStorePassword", "").at_least(7);
const XKS_ENDPOINT: Parameter = Parameter::string("XksProxyUriEndpoint", "").at_least(10);
const XKS_PATH: Parameter = Parameter::string("XksProxyUriPath", "").at_least(10);
const XKS_VPC_NAME: Parameter = Parameter::string("XksProxyVpcEndpointServiceName", "").at_least(20);
const XKS_VPC_OWNER: Parameter = Parameter::string("XksProxyVpcEndpointServiceOwner", "").at_least(12);
const XKS_CREDENTIAL: Parameter = Parameter::new("XksProxyAuthenticationCredential", Kind::Structure(CREDENTIAL), "");
const XKS_CONNECTIVITY: Parameter =
    Parameter::choice("XksProxyConnectivity", &["PUBLIC_ENDPOINT", "VPC_ENDPOINT_SERVICE"], "");
const CREDENTIAL: &[Parameter] = &[
    Parameter::string("AccessKeyId", "").required().at_least(20),
    Parameter::string("RawSecretAccessKey", "").required().at_least(43),
];
const PAIR_SPEC: Parameter = Parameter::string("KeyPairSpec", "").required();
const MAC_ALGORITHM: Parameter =
    Parameter::choice("MacAlgorithm", &["HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"], "").required();
const MESSAGE_TYPE: Parameter = Parameter::choice("MessageType", &["RAW", "DIGEST", "EXTERNAL_MU"], "");
const SIGNING_ALGORITHM: Parameter = Parameter::string("SigningAlgorithm", "").required();
