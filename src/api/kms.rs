//! The operations of KMS (KMS API reference; names, types and smallest sizes as in the service model).

use super::{Kind, Operation, Paging, Parameter, Service, kms_unsupported as unsupported};
use crate::kms;
use crate::operation;

/// AWS Key Management Service.
pub(super) static KMS: Service =
    Service { name: "kms", help: "Customer master keys, data keys, aliases and grants", operations: &ALL };

/// What is supported, and behind it what is refused by name.
const ALL: [Operation; OPERATIONS.len() + unsupported::OPERATIONS.len()] = {
    let mut all = [OPERATIONS[0]; OPERATIONS.len() + unsupported::OPERATIONS.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = if index < OPERATIONS.len() {
            OPERATIONS[index]
        } else {
            unsupported::OPERATIONS[index - OPERATIONS.len()]
        };
        index += 1;
    }
    all
};

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
    operation!(
        "DeleteImportedKeyMaterial",
        MALFORMED,
        kms::DeleteImportedKeyMaterialRequest,
        kms::delete_imported_key_material,
        "Takes imported key material away; the key cannot be used until it is imported again"
    )
    .takes(&[
        key_id("Id or ARN of the key").required(),
        Parameter::string("KeyMaterialId", "Which material; the current one unless given").at_least(64),
    ]),
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
    operation!(
        "DisableKeyRotation",
        MALFORMED,
        kms::DisableKeyRotationRequest,
        kms::disable_key_rotation,
        "Ends the automatic rotation of a key"
    )
    .takes(&[key_id("Id or ARN of the key").required()]),
    operation!("EnableKey", MALFORMED, kms::EnableKeyRequest, kms::enable_key, "Lets a disabled key be used again")
        .takes(&[key_id("Id or ARN of the key").required()]),
    operation!(
        "EnableKeyRotation",
        MALFORMED,
        kms::EnableKeyRotationRequest,
        kms::enable_key_rotation,
        "Has a key rotated automatically; what earlier material encrypted still decrypts"
    )
    .takes(&[
        key_id("Id or ARN of the key").required(),
        Parameter::integer("RotationPeriodInDays", "Days between rotations: 90 to 2560, 365 unless given").at_least(90),
    ]),
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
    operation!(
        "GetKeyPolicy",
        MALFORMED,
        kms::GetKeyPolicyRequest,
        kms::get_key_policy,
        "Shows who may do what with a key"
    )
    .takes(&[key_id("Id or ARN of the key").required(), POLICY_NAME]),
    operation!("GenerateRandom", MALFORMED, kms::GenerateRandomRequest, kms::generate_random, "Makes random bytes")
        .takes(&[
            Parameter::integer("NumberOfBytes", "How many: 1 to 1024").at_least(1),
            Parameter::string("CustomKeyStoreId", "A custom key store; not supported").at_least(1),
            Parameter::new("Recipient", Kind::Structure(RECIPIENT), "A Nitro enclave; not supported"),
        ]),
    operation!(
        "GetKeyLastUsage",
        MALFORMED,
        kms::GetKeyLastUsageRequest,
        kms::get_key_last_usage,
        "Tells when a key was last used, for what, and under which record of the trail"
    )
    .takes(&[key_id("Id or ARN of the key").required()]),
    operation!(
        "GetKeyRotationStatus",
        MALFORMED,
        kms::GetKeyRotationStatusRequest,
        kms::get_key_rotation_status,
        "Tells whether and when a key is rotated automatically"
    )
    .takes(&[key_id("Id or ARN of the key").required()]),
    operation!(
        "GetParametersForImport",
        MALFORMED,
        kms::GetParametersForImportRequest,
        kms::get_parameters_for_import,
        "Makes a public key and a token with which key material is imported"
    )
    .takes(&[
        key_id("Id or ARN of a key of origin EXTERNAL").required(),
        Parameter::choice("WrappingAlgorithm", WRAPPING_ALGORITHMS, "How the material will be wrapped").required(),
        Parameter::choice("WrappingKeySpec", WRAPPING_KEY_SPECS, "The kind of public key").required(),
    ]),
    operation!(
        "ImportKeyMaterial",
        MALFORMED,
        kms::ImportKeyMaterialRequest,
        kms::import_key_material,
        "Brings 256 bits of key material of your own into a key"
    )
    .takes(&[
        key_id("Id or ARN of a key of origin EXTERNAL").required(),
        Parameter::blob("ImportToken", "The token that GetParametersForImport answered").required(),
        Parameter::blob("EncryptedKeyMaterial", "The material, wrapped under the public key").required(),
        Parameter::new("ValidTo", Kind::Timestamp, "When the material expires, at most 365 days from now"),
        Parameter::choice(
            "ExpirationModel",
            &["KEY_MATERIAL_EXPIRES", "KEY_MATERIAL_DOES_NOT_EXPIRE"],
            "Whether it expires; it does unless said otherwise",
        ),
        Parameter::choice(
            "ImportType",
            &["NEW_KEY_MATERIAL", "EXISTING_KEY_MATERIAL"],
            "Whether it is new, to rotate to, or one that was there before",
        ),
        Parameter::string("KeyMaterialDescription", "What the material is"),
        Parameter::string("KeyMaterialId", "Which existing material it is").at_least(64),
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
    operation!(
        "ListKeyPolicies",
        MALFORMED,
        kms::ListKeyPoliciesRequest,
        kms::list_key_policies,
        "Lists the names of a key's policies, of which there is one: default"
    )
    .takes(&[key_id("Id or ARN of the key").required(), LIMIT, MARKER])
    .pages(pages("PolicyNames")),
    operation!(
        "ListKeyRotations",
        MALFORMED,
        kms::ListKeyRotationsRequest,
        kms::list_key_rotations,
        "Lists the rotations of a key, or all of its materials"
    )
    .takes(&[
        key_id("Id or ARN of the key").required(),
        Parameter::choice(
            "IncludeKeyMaterial",
            &["ALL_KEY_MATERIAL", "ROTATIONS_ONLY"],
            "Also materials that no rotation brought",
        ),
        LIMIT,
        MARKER,
    ])
    .pages(pages("Rotations")),
    operation!("ListKeys", MALFORMED, kms::ListKeysRequest, kms::list_keys, "Lists the keys of the account")
        .takes(&[LIMIT, MARKER])
        .pages(pages("Keys")),
    operation!(
        "ListResourceTags",
        MALFORMED,
        kms::ListResourceTagsRequest,
        kms::list_resource_tags,
        "Lists the tags of a key"
    )
    .takes(&[key_id("Id or ARN of the key").required(), LIMIT, MARKER])
    .pages(pages("Tags")),
    operation!(
        "ListRetirableGrants",
        MALFORMED,
        kms::ListRetirableGrantsRequest,
        kms::list_retirable_grants,
        "Lists the grants that a principal may retire"
    )
    .takes(&[
        LIMIT,
        MARKER,
        Parameter::string("RetiringPrincipal", "ARN of who may retire them").required().at_least(1),
    ])
    .pages(pages("Grants")),
    operation!(
        "PutKeyPolicy",
        MALFORMED,
        kms::PutKeyPolicyRequest,
        kms::put_key_policy,
        "Says who may do what with a key"
    )
    .takes(&[
        key_id("Id or ARN of the key").required(),
        POLICY_NAME,
        Parameter::string("Policy", "The key policy as JSON, up to 32 KB").required().at_least(1),
        Parameter::boolean("BypassPolicyLockoutSafetyCheck", "Takes a policy that locks the caller out"),
    ]),
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
        "ReplicateKey",
        MALFORMED,
        kms::ReplicateKeyRequest,
        kms::replicate_key,
        "Makes a replica of a multi-Region key in another Region"
    )
    .takes(&[
        key_id("Id or ARN of a multi-Region primary key").required(),
        Parameter::string("ReplicaRegion", "The Region of the replica").required().at_least(1),
        Parameter::string("Policy", "The replica's key policy as JSON").at_least(1),
        Parameter::boolean("BypassPolicyLockoutSafetyCheck", "Takes a policy that locks the caller out"),
        Parameter::string("Description", "What the replica is for"),
        Parameter::new("Tags", Kind::List(&Kind::Structure(TAG)), "Tags of the replica"),
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
        "RotateKeyOnDemand",
        MALFORMED,
        kms::RotateKeyOnDemandRequest,
        kms::rotate_key_on_demand,
        "Rotates a key now"
    )
    .takes(&[key_id("Id or ARN of the key").required()]),
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
    operation!("TagResource", MALFORMED, kms::TagResourceRequest, kms::tag_resource, "Gives a key tags").takes(&[
        key_id("Id or ARN of the key").required(),
        Parameter::new("Tags", Kind::List(&Kind::Structure(TAG)), "Tags to add, or to give another value").required(),
    ]),
    operation!("UntagResource", MALFORMED, kms::UntagResourceRequest, kms::untag_resource, "Takes tags from a key")
        .takes(&[
            key_id("Id or ARN of the key").required(),
            Parameter::strings("TagKeys", "Keys of the tags to take away").required(),
        ]),
    operation!("UpdateAlias", MALFORMED, kms::UpdateAliasRequest, kms::update_alias, "Gives a name to another key")
        .takes(&[ALIAS_NAME, target_key("Id or ARN of the key that has the name from now on")]),
    operation!(
        "UpdateKeyDescription",
        MALFORMED,
        kms::UpdateKeyDescriptionRequest,
        kms::update_key_description,
        "Says anew what a key is for"
    )
    .takes(&[
        key_id("Id or ARN of the key").required(),
        Parameter::string("Description", "What the key is for").required(),
    ]),
    operation!(
        "UpdatePrimaryRegion",
        MALFORMED,
        kms::UpdatePrimaryRegionRequest,
        kms::update_primary_region,
        "Makes a replica the primary of its multi-Region key"
    )
    .takes(&[
        key_id("Id or ARN of the primary key, which is in this Region").required(),
        Parameter::string("PrimaryRegion", "The Region of the replica that becomes the primary").required().at_least(1),
    ]),
];

/// What KMS answers to a request that is not of its operation's type.
pub(super) const MALFORMED: &str = "SerializationException";

const KEY: Parameter = key_id("The key: id, ARN or alias").required();
const ALIAS_NAME: Parameter = Parameter::string("AliasName", "The name, with alias/ in front").required().at_least(1);
const CIPHERTEXT_BLOB: Parameter =
    Parameter::blob("CiphertextBlob", "What Encrypt or GenerateDataKey answered").required();
pub(super) const GRANT_TOKENS: Parameter =
    Parameter::strings("GrantTokens", "Tokens of grants that may not be known everywhere yet");
pub(super) const DRY_RUN: Parameter = Parameter::boolean("DryRun", "Only says whether the call would be allowed");
const ALGORITHM: Parameter = Parameter::choice("EncryptionAlgorithm", ALGORITHMS, "How it is encrypted");
const NUMBER_OF_BYTES: Parameter =
    Parameter::integer("NumberOfBytes", "Length of the data key in bytes, unless --key-spec says it").at_least(1);
const KEY_SPEC: Parameter = Parameter::choice("KeySpec", &["AES_256", "AES_128"], "Length of the data key");
pub(super) const LIMIT: Parameter = Parameter::integer("Limit", "The most items in one page").at_least(1);
pub(super) const MARKER: Parameter =
    Parameter::string("Marker", "The page to go on with: NextMarker of the one before").at_least(1);

const POLICY_NAME: Parameter = Parameter::string("PolicyName", "default, the only name there is").at_least(1);

pub(super) const fn key_id(help: &'static str) -> Parameter {
    Parameter::string("KeyId", help).at_least(1)
}

const fn target_key(help: &'static str) -> Parameter {
    Parameter::string("TargetKeyId", help).required().at_least(1)
}

pub(super) const fn context(name: &'static str, help: &'static str) -> Parameter {
    Parameter::map(name, help)
}

pub(super) const fn pages(results: &'static str) -> Paging {
    Paging { input: "Marker", output: "NextMarker", more: Some("Truncated"), limit: "Limit", results }
}

const TAG: &[Parameter] =
    &[Parameter::string("TagKey", "").required().at_least(1), Parameter::string("TagValue", "").required()];
pub(super) const RECIPIENT: &[Parameter] = &[
    Parameter::choice("KeyEncryptionAlgorithm", &["RSAES_OAEP_SHA_256"], ""),
    Parameter::blob("AttestationDocument", "").at_least(1),
];
const WRAPPING_ALGORITHMS: &[&str] = &[
    "RSAES_PKCS1_V1_5",
    "RSAES_OAEP_SHA_1",
    "RSAES_OAEP_SHA_256",
    "RSA_AES_KEY_WRAP_SHA_1",
    "RSA_AES_KEY_WRAP_SHA_256",
    "SM2PKE",
];
const WRAPPING_KEY_SPECS: &[&str] = &["RSA_2048", "RSA_3072", "RSA_4096", "SM2"];
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
