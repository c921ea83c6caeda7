//! Keys and their lives: `CreateKey`, `DescribeKey`, `ListKeys`, `EnableKey`, `DisableKey`, `ScheduleKeyDeletion`, `CancelKeyDeletion`.

use jiff::SignedDuration;
use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Time;
use crate::gate::{self, Call, Operation, ServiceError, Step};
use crate::store::StoreError;

use super::access::{authorise_account, named_key};
use super::keyring::{self, Key};
use super::managed::{self, ManagedAlias};
use super::operations::{
    CANCEL_KEY_DELETION, CREATE_KEY, DESCRIBE_KEY, DISABLE_KEY, ENABLE_KEY, LIST_KEYS, SCHEDULE_KEY_DELETION,
};
use super::page::{Marker, page_limit};
use super::root::RootKey;
use super::states::{self, KeyState};
use super::validate::{Validation, invalid};

/// `CreateKey`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateKeyRequest {
    /// The key policy as JSON. Only the default policy is accepted, because no other is evaluated yet.
    pub policy: Option<String>,
    /// Up to 8192 characters.
    pub description: Option<String>,
    /// `ENCRYPT_DECRYPT`.
    pub key_usage: Option<String>,
    /// The old name of `KeySpec`.
    pub customer_master_key_spec: Option<String>,
    /// `SYMMETRIC_DEFAULT`.
    pub key_spec: Option<String>,
    /// `AWS_KMS`.
    pub origin: Option<String>,
    /// Does not apply: there are no other key stores.
    pub custom_key_store_id: Option<String>,
    /// Accepted; the default policy locks nobody out.
    pub bypass_policy_lockout_safety_check: Option<bool>,
    /// Up to 50 tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// `false`: multi-Region keys come later.
    pub multi_region: Option<bool>,
}

/// A tag of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// 1-128 characters.
    pub tag_key: String,
    /// 0-256 characters.
    pub tag_value: String,
}

/// What `CreateKey` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateKeyResponse {
    /// The new key.
    pub key_metadata: KeyMetadata,
}

/// What `CreateKey` and `DescribeKey` say of a key.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyMetadata {
    /// The account that owns it.
    #[serde(rename = "AWSAccountId")]
    pub aws_account_id: String,
    /// A UUID.
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
    /// `Enabled`, `Disabled` or `PendingDeletion`.
    pub key_state: &'static str,
    /// When a scheduled deletion is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_date: Option<Time>,
    /// `AWS_KMS`.
    pub origin: &'static str,
    /// `CUSTOMER` or `AWS`.
    pub key_manager: &'static str,
    /// `SYMMETRIC_DEFAULT`, under its old name.
    pub customer_master_key_spec: &'static str,
    /// `SYMMETRIC_DEFAULT`.
    pub key_spec: &'static str,
    /// `SYMMETRIC_DEFAULT` alone.
    pub encryption_algorithms: [&'static str; 1],
    /// `false`.
    pub multi_region: bool,
    /// The material that encrypts now: 64 hex digits.
    pub current_key_material_id: String,
}

/// `DescribeKey`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeKeyRequest {
    /// A key id, key ARN, alias or alias ARN.
    pub key_id: String,
    /// Tokens of grants that may not be known everywhere yet.
    #[serde(default)]
    pub grant_tokens: Vec<String>,
}

/// What `DescribeKey` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeKeyResponse {
    /// The key.
    pub key_metadata: KeyMetadata,
}

/// `ListKeys`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListKeysRequest {
    /// At most so many, 1-1000; 100 if absent.
    pub limit: Option<i64>,
    /// Where the last answer ended.
    pub marker: Option<String>,
}

/// What `ListKeys` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeysResponse {
    /// In the order of their ids.
    pub keys: Vec<KeyListEntry>,
    /// With which the rest is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
    /// Whether there is a rest.
    pub truncated: bool,
}

/// One key of `ListKeys`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyListEntry {
    /// Its id.
    pub key_id: String,
    /// Its ARN.
    pub key_arn: String,
}

macro_rules! key_id_request {
    ($(#[$doc:meta] $name:ident),+) => {$(
        #[$doc]
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        pub struct $name {
            /// A key id or key ARN.
            pub key_id: String,
        }
    )+};
}

key_id_request!(
    /// `EnableKey`.
    EnableKeyRequest,
    /// `DisableKey`.
    DisableKeyRequest,
    /// `CancelKeyDeletion`.
    CancelKeyDeletionRequest
);

/// `ScheduleKeyDeletion`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ScheduleKeyDeletionRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// Days until the key is deleted, 7-30; 30 if absent.
    pub pending_window_in_days: Option<i64>,
}

/// What `ScheduleKeyDeletion` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduleKeyDeletionResponse {
    /// The key's ARN.
    pub key_id: String,
    /// When it will be deleted.
    pub deletion_date: Time,
    /// `PendingDeletion`.
    pub key_state: &'static str,
    /// As asked, or 30.
    pub pending_window_in_days: i64,
}

/// What `CancelKeyDeletion` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CancelKeyDeletionResponse {
    /// The key's ARN.
    pub key_id: String,
}

const SYMMETRIC: &str = "SYMMETRIC_DEFAULT";
const USAGE: &str = "ENCRYPT_DECRYPT";
const ORIGIN: &str = "AWS_KMS";

/// In the order of a recorded answer; what AWS added since follows.
const KEY_SPECS: [&str; 17] = [
    "RSA_2048",
    "ECC_NIST_P384",
    "ECC_NIST_P256",
    "ECC_NIST_P521",
    "HMAC_384",
    "RSA_3072",
    "ECC_SECG_P256K1",
    "RSA_4096",
    SYMMETRIC,
    "HMAC_256",
    "HMAC_224",
    "HMAC_512",
    "SM2",
    "ML_DSA_44",
    "ML_DSA_65",
    "ML_DSA_87",
    "ECC_NIST_EDWARDS25519",
];

/// Makes a symmetric encryption key with fresh material.
pub fn create_key(call: &Call<'_>, req: CreateKeyRequest) -> Result<CreateKeyResponse, ServiceError> {
    let root = RootKey::ensure(call.home);
    gate::run(call, &CREATE_KEY, create_parameters(&req), |step| {
        root?;
        check_create(call, &req)?;
        authorise_account(step, "CreateKey")?;
        let root = RootKey::load(call.home, step.tx)?;
        let description = req.description.as_deref().unwrap_or_default();
        let key = keyring::create(step.tx, &root, call, step.now, description, None)?;
        for tag in &req.tags {
            step.tx
                .prepare_cached("INSERT INTO kms_tags (key_id, name, value) VALUES (?1, ?2, ?3)")
                .map_err(StoreError::from)?
                .execute(params![key.id, tag.tag_key, tag.tag_value])?;
        }
        key.note(step.draft);
        step.draft.set_response(json!({"keyMetadata": recorded_metadata(&key)}));
        Ok(CreateKeyResponse { key_metadata: metadata(&key) })
    })
}

fn create_parameters(req: &CreateKeyRequest) -> Value {
    let spec = req.key_spec.as_deref().or(req.customer_master_key_spec.as_deref()).unwrap_or(SYMMETRIC);
    let mut parameters = json!({
        "description": req.description.as_deref().unwrap_or_default(),
        "keyUsage": req.key_usage.as_deref().unwrap_or(USAGE),
        "customerMasterKeySpec": spec,
        "keySpec": spec,
        "origin": req.origin.as_deref().unwrap_or(ORIGIN),
        "bypassPolicyLockoutSafetyCheck": req.bypass_policy_lockout_safety_check.unwrap_or(false),
        "multiRegion": req.multi_region.unwrap_or(false),
    });
    if !req.tags.is_empty() {
        let tag = |tag: &Tag| json!({"tagKey": tag.tag_key, "tagValue": tag.tag_value});
        parameters["tags"] = req.tags.iter().map(tag).collect();
    }
    parameters
}

fn check_create(call: &Call<'_>, req: &CreateKeyRequest) -> Result<(), ServiceError> {
    let mut validation = Validation::default();
    if let Some(policy) = &req.policy {
        validation.bytes("policy", policy.len(), 1..=131_072);
    }
    if let Some(description) = &req.description {
        validation.length("description", description, 0..=8192);
    }
    if let Some(usage) = &req.key_usage {
        validation.one_of("keyUsage", usage, &[USAGE, "SIGN_VERIFY", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT"]);
    }
    for (member, spec) in [("customerMasterKeySpec", &req.customer_master_key_spec), ("keySpec", &req.key_spec)] {
        if let Some(spec) = spec {
            validation.one_of(member, spec, &KEY_SPECS);
        }
    }
    if let Some(origin) = &req.origin {
        validation.one_of("origin", origin, &[ORIGIN, "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"]);
    }
    validation.finish()?;
    check_tags(&req.tags)?;
    let unsupported = |what: String| Err(ServiceError::refused("UnsupportedOperationException", what));
    for spec in [&req.customer_master_key_spec, &req.key_spec].into_iter().flatten() {
        if spec != SYMMETRIC {
            if req.key_usage.is_none() {
                return Err(invalid(
                    "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
                ));
            }
            return unsupported(format!("Keys of spec {spec} are not supported: EBS and RDS cannot use them."));
        }
    }
    match (&req.key_usage, &req.origin, &req.custom_key_store_id) {
        (Some(usage), ..) if usage != USAGE => {
            let message = format!("KeyUsage {usage} is not compatible with KeySpec {SYMMETRIC}");
            return Err(invalid(message));
        }
        (_, Some(origin), _) if origin != ORIGIN => {
            return unsupported(format!("Keys of origin {origin} are not supported."));
        }
        (_, _, Some(_)) => return unsupported("Custom key stores are not supported.".to_owned()),
        _ => {}
    }
    if req.multi_region == Some(true) {
        return unsupported("Multi-Region keys are not supported.".to_owned());
    }
    match &req.policy {
        Some(policy) if !is_default_policy(call, policy) => {
            unsupported("Only the default key policy is supported; a policy that is not evaluated would promise what it does not keep.".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_tags(tags: &[Tag]) -> Result<(), ServiceError> {
    let refuse = |message: String| Err(ServiceError::refused("TagException", message));
    if tags.len() > 50 {
        return refuse("Too many tags".to_owned());
    }
    for (index, tag) in tags.iter().enumerate() {
        let mut validation = Validation::default();
        validation
            .length(&format!("tags.{}.member.tagKey", index + 1), &tag.tag_key, 1..=128)
            .length(&format!("tags.{}.member.tagValue", index + 1), &tag.tag_value, 0..=256)
            .finish()?;
        if tag.tag_key.to_ascii_lowercase().starts_with("aws:") {
            return refuse("Tags beginning with aws: are reserved".to_owned());
        }
        if tags[..index].iter().any(|earlier| earlier.tag_key == tag.tag_key) {
            return refuse("Duplicate tag keys".to_owned());
        }
    }
    Ok(())
}

/// Whether `policy` says what the default key policy says: the account's root may do everything.
fn is_default_policy(call: &Call<'_>, policy: &str) -> bool {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return false };
    let statements = match &policy["Statement"] {
        Value::Array(statements) => statements.as_slice(),
        statement => std::slice::from_ref(statement),
    };
    let [statement] = statements else { return false };
    let only = |value: &Value, wanted: &str| match value {
        Value::Array(items) => items.len() == 1 && items[0] == *wanted,
        value => *value == *wanted,
    };
    let root = format!("arn:aws:iam::{}:root", call.account);
    let fields = statement.as_object().map_or(0, |fields| fields.len() - usize::from(fields.contains_key("Sid")));
    fields == 4
        && statement["Effect"] == "Allow"
        && statement["Principal"].as_object().is_some_and(|principal| principal.len() == 1)
        && (only(&statement["Principal"]["AWS"], &root) || only(&statement["Principal"]["AWS"], call.account.as_str()))
        && only(&statement["Action"], "kms:*")
        && only(&statement["Resource"], "*")
}

/// What is known of a key.
pub fn describe_key(call: &Call<'_>, req: DescribeKeyRequest) -> Result<DescribeKeyResponse, ServiceError> {
    // Describing a predefined alias is a first use of its key (API reference, DescribeKey).
    let managed = keyring::as_alias(call, &req.key_id).and_then(ManagedAlias::from_name);
    let root = managed.map(|_| RootKey::ensure(call.home)).transpose();
    gate::run(call, &DESCRIBE_KEY, json!({"keyId": req.key_id}), |step| {
        let mut validation = Validation::default();
        validation.key_id("keyId", &req.key_id).grant_tokens(&req.grant_tokens).finish()?;
        super::grant::check_tokens(&req.grant_tokens)?;
        root?;
        if let Some(alias) = managed {
            authorise_account(step, "DescribeKey")?;
            managed::ensure(step.tx, call, step.now, alias)?;
        }
        let (key, _) = named_key(step, &req.key_id, "DescribeKey", None)?;
        states::check("DescribeKey", key.state, &key.arn())?;
        Ok(DescribeKeyResponse { key_metadata: metadata(&key) })
    })
}

/// The account's keys, page by page.
pub fn list_keys(call: &Call<'_>, req: ListKeysRequest) -> Result<ListKeysResponse, ServiceError> {
    gate::run(call, &LIST_KEYS, paging_parameters(req.limit, req.marker.as_deref()), |step| {
        let mut validation = Validation::default();
        let limit = page_limit(&mut validation, req.limit, 100, 1000);
        let after = Marker::read(&mut validation, req.marker.as_deref());
        validation.finish()?;
        authorise_account(step, "ListKeys")?;
        let wanted = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut keys = keyring::list(step.tx, &call.account, &call.region, &after?, wanted)?;
        let next_marker = Marker::next(&mut keys, limit, |key| &key.id);
        let entry = |key: &Key| KeyListEntry { key_id: key.id.clone(), key_arn: key.arn() };
        Ok(ListKeysResponse { keys: keys.iter().map(entry).collect(), truncated: next_marker.is_some(), next_marker })
    })
}

/// Makes a disabled key usable again.
pub fn enable_key(call: &Call<'_>, req: EnableKeyRequest) -> Result<(), ServiceError> {
    change(call, &ENABLE_KEY, &req.key_id, json!({"keyId": req.key_id}), |step, key| {
        keyring::set_state(step.tx, key, KeyState::Enabled, None)?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Makes a key unusable until it is enabled again.
pub fn disable_key(call: &Call<'_>, req: DisableKeyRequest) -> Result<(), ServiceError> {
    change(call, &DISABLE_KEY, &req.key_id, json!({"keyId": req.key_id}), |step, key| {
        keyring::set_state(step.tx, key, KeyState::Disabled, None)?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Makes a key unusable and lets it be deleted, with all that it encrypts, when the waiting period is over.
pub fn schedule_key_deletion(
    call: &Call<'_>,
    req: ScheduleKeyDeletionRequest,
) -> Result<ScheduleKeyDeletionResponse, ServiceError> {
    let days = req.pending_window_in_days.unwrap_or(30);
    let parameters = json!({"keyId": req.key_id, "pendingWindowInDays": days});
    let mut validation = Validation::default();
    validation.key_id("keyId", &req.key_id).number("pendingWindowInDays", days, 7..=30);
    let checked = validation.finish();
    change(call, &SCHEDULE_KEY_DELETION, &req.key_id, parameters, |step, key| {
        checked?;
        let deletion_date = step.now.after(SignedDuration::from_hours(24 * days));
        let state = KeyState::PendingDeletion;
        keyring::set_state(step.tx, key, state, Some(deletion_date))?;
        step.draft.set_response(json!({
            "keyId": key.arn(), "keyState": state.name(), "deletionDate": deletion_date.to_trail_date_string(),
            "pendingWindowInDays": days,
        }));
        Ok(ScheduleKeyDeletionResponse {
            key_id: key.arn(),
            deletion_date,
            key_state: state.name(),
            pending_window_in_days: days,
        })
    })
}

/// Keeps a key whose deletion was scheduled. It stays disabled.
pub fn cancel_key_deletion(
    call: &Call<'_>,
    req: CancelKeyDeletionRequest,
) -> Result<CancelKeyDeletionResponse, ServiceError> {
    change(call, &CANCEL_KEY_DELETION, &req.key_id, json!({"keyId": req.key_id}), |step, key| {
        keyring::set_state(step.tx, key, KeyState::Disabled, None)?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(CancelKeyDeletionResponse { key_id: key.arn() })
    })
}

/// An operation that changes the state of one key.
fn change<T>(
    call: &Call<'_>,
    operation: &Operation,
    key_id: &str,
    parameters: Value,
    apply: impl FnOnce(&mut Step<'_>, &Key) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    gate::run(call, operation, parameters, |step| {
        let mut validation = Validation::default();
        validation.key_id("keyId", key_id).finish()?;
        let (key, _) = named_key(step, key_id, operation.name, None)?;
        states::check(operation.name, key.state, &key.arn())?;
        apply(step, &key)
    })
}

pub(super) fn metadata(key: &Key) -> KeyMetadata {
    KeyMetadata {
        aws_account_id: key.account.to_string(),
        key_id: key.id.clone(),
        arn: key.arn(),
        creation_date: key.created,
        enabled: key.state == KeyState::Enabled,
        description: key.description.clone(),
        key_usage: USAGE,
        key_state: key.state.name(),
        deletion_date: key.deletion,
        origin: ORIGIN,
        key_manager: if key.only_via.is_some() { "AWS" } else { "CUSTOMER" },
        customer_master_key_spec: SYMMETRIC,
        key_spec: SYMMETRIC,
        encryption_algorithms: [SYMMETRIC],
        multi_region: false,
        current_key_material_id: key.material_id.clone(),
    }
}

/// The metadata in CloudTrail's spelling, which begins members in lower case and writes dates out.
fn recorded_metadata(key: &Key) -> Value {
    let metadata = metadata(key);
    json!({
        "aWSAccountId": metadata.aws_account_id, "keyId": metadata.key_id, "arn": metadata.arn,
        "creationDate": metadata.creation_date.to_trail_date_string(), "enabled": metadata.enabled,
        "description": metadata.description, "keyUsage": metadata.key_usage, "keyState": metadata.key_state,
        "origin": metadata.origin, "keyManager": metadata.key_manager,
        "customerMasterKeySpec": metadata.customer_master_key_spec, "keySpec": metadata.key_spec,
        "encryptionAlgorithms": metadata.encryption_algorithms, "multiRegion": metadata.multi_region,
        "currentKeyMaterialId": metadata.current_key_material_id,
    })
}

/// `requestParameters` of a list operation; null without any, as CloudTrail has it.
pub(super) fn paging_parameters(limit: Option<i64>, marker: Option<&str>) -> Value {
    let mut parameters = json!({});
    if let Some(limit) = limit {
        parameters["limit"] = limit.into();
    }
    if let Some(marker) = marker {
        parameters["marker"] = marker.into();
    }
    if parameters == json!({}) { Value::Null } else { parameters }
}

/// Adds `dryRun` where it was given.
pub(super) fn add_dry_run(parameters: &mut Value, asked: Option<bool>) {
    if let Some(asked) = asked {
        parameters["dryRun"] = asked.into();
    }
}
