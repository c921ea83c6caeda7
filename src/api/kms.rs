//! The operations of KMS (KMS API reference; names, types and smallest sizes as in the service model).

use super::{Kind, Operation, Paging, Parameter, Service};
use crate::kms;
use crate::operation;

/// AWS Key Management Service.
pub(super) static KMS: Service =
    Service { name: "kms", help: "Customer master keys, data keys, aliases and grants", operations: OPERATIONS };

const OPERATIONS: &[Operation] = &[
    operation!(
        "CancelKeyDeletion",
        MALFORMED,
        kms::CancelKeyDeletionRequest,
        kms::cancel_key_deletion,
        "Takes a scheduled deletion back; the key is disabled then"
    )
    .takes(&[key_id("Id or ARN of the key").required()]),
    operation!("CreateAlias", MALFORMED, kms::CreateAliasRequest, kms::create_alias, "Gives a key a name")
        .takes(&[ALIAS_NAME, target_key("Id or ARN of the key")]),
    operation!("CreateGrant", MALFORMED, kms::CreateGrantRequest, kms::create_grant, "Lets a principal use a key")
        .takes(&[
            key_id("Id or ARN of the key").required(),
            Parameter::string("GranteePrincipal", "ARN of who may use the key").required().at_least(1),
            Parameter::string("RetiringPrincipal", "ARN of who may take the grant back").at_least(1),
            Parameter::new("Operations", Kind::List(&Kind::Choice(GRANT_OPERATIONS)), "What the grantee may do")
                .required(),
            Parameter::new("Constraints", Kind::Structure(GRANT_CONSTRAINTS), "Under which encryption contexts"),
            GRANT_TOKENS,
            Parameter::string("Name", "Makes a repeated call find the same grant").at_least(1),
            DRY_RUN,
        ]),
    operation!("CreateKey", MALFORMED, kms::CreateKeyRequest, kms::create_key, "Makes a customer master key").takes(&[
        Parameter::string("Policy", "The key policy as JSON").at_least(1),
        Parameter::string("Description", "What the key is for"),
        Parameter::choice("KeyUsage", KEY_USAGES, "What the key does"),
        Parameter::string("CustomerMasterKeySpec", "The older name of --key-spec"),
        Parameter::string("KeySpec", "The kind of key; SYMMETRIC_DEFAULT unless given"),
        Parameter::choice("Origin", ORIGINS, "Where the key material comes from"),
        Parameter::string("CustomKeyStoreId", "A custom key store").at_least(1),
        Parameter::boolean("BypassPolicyLockoutSafetyCheck", "Takes a policy that locks the caller out"),
        Parameter::new("Tags", Kind::List(&Kind::Structure(TAG)), "Tags of the key"),
        Parameter::boolean("MultiRegion", "Whether the key can be replicated to other Regions"),
    ]),
    operation!("Decrypt", MALFORMED, kms::DecryptRequest, kms::decrypt, "Decrypts a ciphertext blob").takes(&[
        CIPHERTEXT_BLOB,
        context("EncryptionContext", "The context under which it was encrypted, every pair of it"),
        GRANT_TOKENS,
        key_id("The key that must have encrypted it: id, ARN or alias"),
        ALGORITHM,
        DRY_RUN,
    ]),
    operation!("DeleteAlias", MALFORMED, kms::DeleteAliasRequest, kms::delete_alias, "Takes a name away")
        .takes(&[ALIAS_NAME]),
    operation!("DescribeKey", MALFORMED, kms::DescribeKeyRequest, kms::describe_key, "Describes a key")
        .takes(&[key_id("Id or ARN of the key, or an alias").required(), GRANT_TOKENS]),
    operation!(
        "DisableKey",
        MALFORMED,
        kms::DisableKeyRequest,
        kms::disable_key,
        "Keeps a key from being used until it is enabled again"
    )
    .takes(&[key_id("Id or ARN of the key").required()]),
    operation!("EnableKey", MALFORMED, kms::EnableKeyRequest, kms::enable_key, "Lets a disabled key be used again")
        .takes(&[key_id("Id or ARN of the key").required()]),
    operation!("Encrypt", MALFORMED, kms::EncryptRequest, kms::encrypt, "Encrypts up to 4096 bytes").takes(&[
        KEY,
        Parameter::blob("Plaintext", "What to encrypt; fileb://FILE keeps it out of the process list").required(),
        context("EncryptionContext", "Pairs that must be given again to decrypt"),
        GRANT_TOKENS,
        ALGORITHM,
        DRY_RUN,
    ]),
    operation!(
        "GenerateDataKey",
        MALFORMED,
        kms::GenerateDataKeyRequest,
        kms::generate_data_key,
        "Makes a data key: its plaintext, and the same encrypted under a key"
    )
    .takes(&[
        KEY,
        context("EncryptionContext", "Pairs that must be given again to decrypt"),
        NUMBER_OF_BYTES,
        KEY_SPEC,
        GRANT_TOKENS,
        DRY_RUN,
    ]),
    operation!(
        "GenerateDataKeyWithoutPlaintext",
        MALFORMED,
        kms::GenerateDataKeyWithoutPlaintextRequest,
        kms::generate_data_key_without_plaintext,
        "Makes a data key and shows it only encrypted under a key"
    )
    .takes(&[
        KEY,
        context("EncryptionContext", "Pairs that must be given again to decrypt"),
        KEY_SPEC,
        NUMBER_OF_BYTES,
        GRANT_TOKENS,
        DRY_RUN,
    ]),
    operation!("ListAliases", MALFORMED, kms::ListAliasesRequest, kms::list_aliases, "Lists names of keys")
        .takes(&[key_id("The key whose names are wanted: id or ARN"), LIMIT, MARKER])
        .pages(pages("Aliases")),
    operation!("ListGrants", MALFORMED, kms::ListGrantsRequest, kms::list_grants, "Lists the grants of a key")
        .takes(&[
            LIMIT,
            MARKER,
            key_id("Id or ARN of the key").required(),
            Parameter::string("GrantId", "The one grant with this id").at_least(1),
            Parameter::string("GranteePrincipal", "Only grants to this principal").at_least(1),
        ])
        .pages(pages("Grants")),
    operation!("ListKeys", MALFORMED, kms::ListKeysRequest, kms::list_keys, "Lists the keys of the account")
        .takes(&[LIMIT, MARKER])
        .pages(pages("Keys")),
    operation!(
        "ReEncrypt",
        MALFORMED,
        kms::ReEncryptRequest,
        kms::re_encrypt,
        "Decrypts a blob and encrypts it anew, under another key or context, without showing what is in it"
    )
    .takes(&[
        CIPHERTEXT_BLOB,
        context("SourceEncryptionContext", "The context under which it was encrypted"),
        Parameter::string("SourceKeyId", "The key that must have encrypted it").at_least(1),
        Parameter::string("DestinationKeyId", "The key that encrypts it now").required().at_least(1),
        context("DestinationEncryptionContext", "The context under which it is encrypted now"),
        Parameter::choice("SourceEncryptionAlgorithm", ALGORITHMS, "How it was encrypted"),
        Parameter::choice("DestinationEncryptionAlgorithm", ALGORITHMS, "How it is encrypted now"),
        GRANT_TOKENS,
        DRY_RUN,
    ]),
    operation!(
        "RetireGrant",
        MALFORMED,
        kms::RetireGrantRequest,
        kms::retire_grant,
        "Takes a grant back, as the one for whom it was made"
    )
    .takes(&[
        Parameter::string("GrantToken", "The grant's token, or else its key and id").at_least(1),
        key_id("ARN of the key"),
        Parameter::string("GrantId", "The grant's id").at_least(1),
        DRY_RUN,
    ]),
    operation!(
        "RevokeGrant",
        MALFORMED,
        kms::RevokeGrantRequest,
        kms::revoke_grant,
        "Takes a grant away, as the one who rules the key"
    )
    .takes(&[
        key_id("Id or ARN of the key").required(),
        Parameter::string("GrantId", "The grant's id").required().at_least(1),
        DRY_RUN,
    ]),
    operation!(
        "ScheduleKeyDeletion",
        MALFORMED,
        kms::ScheduleKeyDeletionRequest,
        kms::schedule_key_deletion,
        "Deletes a key after a time in which that can be taken back"
    )
    .takes(&[
        key_id("Id or ARN of the key").required(),
        Parameter::integer("PendingWindowInDays", "How long: 7 to 30 days, 30 unless given").at_least(1),
    ]),
    operation!("UpdateAlias", MALFORMED, kms::UpdateAliasRequest, kms::update_alias, "Gives a name to another key")
        .takes(&[ALIAS_NAME, target_key("Id or ARN of the key that has the name from now on")]),
];

/// What KMS answers to a request that is not of its operation's type.
const MALFORMED: &str = "SerializationException";

const KEY: Parameter = key_id("The key: id, ARN or alias").required();
const ALIAS_NAME: Parameter = Parameter::string("AliasName", "The name, with alias/ in front").required().at_least(1);
const CIPHERTEXT_BLOB: Parameter =
    Parameter::blob("CiphertextBlob", "What Encrypt or GenerateDataKey answered").required();
const GRANT_TOKENS: Parameter =
    Parameter::strings("GrantTokens", "Tokens of grants that may not be known everywhere yet");
const DRY_RUN: Parameter = Parameter::boolean("DryRun", "Only says whether the call would be allowed");
const ALGORITHM: Parameter = Parameter::choice("EncryptionAlgorithm", ALGORITHMS, "How it is encrypted");
const NUMBER_OF_BYTES: Parameter =
    Parameter::integer("NumberOfBytes", "Length of the data key in bytes, unless --key-spec says it").at_least(1);
const KEY_SPEC: Parameter = Parameter::choice("KeySpec", &["AES_256", "AES_128"], "Length of the data key");
const LIMIT: Parameter = Parameter::integer("Limit", "The most items in one page").at_least(1);
const MARKER: Parameter =
    Parameter::string("Marker", "The page to go on with: NextMarker of the one before").at_least(1);

const fn key_id(help: &'static str) -> Parameter {
    Parameter::string("KeyId", help).at_least(1)
}

const fn target_key(help: &'static str) -> Parameter {
    Parameter::string("TargetKeyId", help).required().at_least(1)
}

const fn context(name: &'static str, help: &'static str) -> Parameter {
    Parameter::map(name, help)
}

const fn pages(results: &'static str) -> Paging {
    Paging { input: "Marker", output: "NextMarker", more: Some("Truncated"), limit: "Limit", results }
}

const TAG: &[Parameter] =
    &[Parameter::string("TagKey", "").required().at_least(1), Parameter::string("TagValue", "").required()];
const GRANT_CONSTRAINTS: &[Parameter] =
    &[Parameter::map("EncryptionContextSubset", ""), Parameter::map("EncryptionContextEquals", "")];
const KEY_USAGES: &[&str] = &["SIGN_VERIFY", "ENCRYPT_DECRYPT", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT"];
const ORIGINS: &[&str] = &["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"];
const ALGORITHMS: &[&str] = &["SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"];
const GRANT_OPERATIONS: &[&str] = &[
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
    "Sign",
    "Verify",
    "GetPublicKey",
    "CreateGrant",
    "RetireGrant",
    "DescribeKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateMac",
    "VerifyMac",
    "DeriveSharedSecret",
];
