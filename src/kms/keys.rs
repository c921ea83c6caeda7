//! Keys and their lives: `CreateKey`, `DescribeKey`, `ListKeys`, `UpdateKeyDescription`, `EnableKey`, `DisableKey`,
//! `ScheduleKeyDeletion`, `CancelKeyDeletion`.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Time;
use crate::gate::{self, Call, Operation, ServiceError, Step};
use crate::iam::Context;

use super::access::{authorise_account, authorise_account_with, named_key, named_key_with};
use super::given::Given;
use super::keyring::{self, Key, MultiRegionKeyType, Rotation};
use super::managed::{self, ManagedAlias};
use super::metadata::{self, KeyMetadata, SYMMETRIC, USAGE, metadata};
use super::operations::{
    CANCEL_KEY_DELETION, CREATE_KEY, DESCRIBE_KEY, DISABLE_KEY, ENABLE_KEY, LIST_KEYS, SCHEDULE_KEY_DELETION,
    UPDATE_KEY_DESCRIPTION,
};
use super::page::{Marker, page_limit};
use super::policy;
use super::request;
use super::root::RootKey;
use super::states::{self, KeyState, Origin};
use super::tags::{self, Tag};
use super::validate::{Validation, invalid};

/// `CreateKey`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateKeyRequest {
    /// The key policy as JSON, up to 32 KB; the default policy if absent.
    pub policy: Option<String>,
    /// Up to 8192 characters.
    pub description: Option<String>,
    /// `ENCRYPT_DECRYPT`.
    pub key_usage: Option<String>,
    /// The old name of `KeySpec`.
    pub customer_master_key_spec: Option<String>,
    /// `SYMMETRIC_DEFAULT`.
    pub key_spec: Option<String>,
    /// `AWS_KMS` or `EXTERNAL`.
    pub origin: Option<String>,
    /// Does not apply: there are no other key stores.
    pub custom_key_store_id: Option<String>,
    /// Take a policy under which the caller cannot put another.
    pub bypass_policy_lockout_safety_check: Option<bool>,
    /// Up to 50 tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Whether the key can have replicas in other Regions.
    pub multi_region: Option<bool>,
}

/// What `CreateKey` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateKeyResponse {
    /// The new key.
    pub key_metadata: KeyMetadata,
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

/// `UpdateKeyDescription`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateKeyDescriptionRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// Up to 8192 characters.
    pub description: String,
}

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
    /// When it will be deleted; absent for a primary key that waits for its replicas' end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_date: Option<Time>,
    /// `PendingDeletion` or `PendingReplicaDeletion`.
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

/// Makes a symmetric encryption key, with fresh material unless its material is to be imported.
pub fn create_key(call: &Call<'_>, req: CreateKeyRequest) -> Result<CreateKeyResponse, ServiceError> {
    create_given_key(call, req, Given::default())
}

/// As [`create_key`], with what is chosen of the key.
///
/// # Errors
/// Also `AlreadyExistsException` for an id that a key has, `IncorrectKeyMaterialException` for material that cannot be this key's.
pub fn create_given_key(
    call: &Call<'_>,
    req: CreateKeyRequest,
    given: Given<'_>,
) -> Result<CreateKeyResponse, ServiceError> {
    let root = RootKey::ensure(call.home);
    gate::run(call, &CREATE_KEY, create_parameters(&req), |step| {
        root?;
        check_create(&req)?;
        authorise_account_with(step, "CreateKey", "*", &create_keys(&req))?;
        if !req.tags.is_empty() {
            authorise_account_with(step, "TagResource", "*", &create_keys(&req))?;
        }
        let mut key = keyring::new(call, step.now, req.description.as_deref().unwrap_or_default());
        if req.multi_region == Some(true) {
            key.id = format!("{}{}", keyring::MULTI_REGION_PREFIX, &crate::ids::hex64()[..32]);
            key.multi_region = Some(MultiRegionKeyType::Primary);
        }
        given.name(step.tx, &mut key)?;
        if req.origin.as_deref() == Some(Origin::External.name()) {
            key.origin = Origin::External;
            key.state = KeyState::PendingImport;
            keyring::insert(step.tx, &key)?;
            if given.material.is_some() {
                given.fill(step.tx, &RootKey::load(call.home, step.tx)?, &mut key)?;
            }
        } else {
            key = keyring::create(step.tx, &RootKey::load(call.home, step.tx)?, key)?;
        }
        if let Some(policy) = &req.policy {
            policy::put(step, &key, policy, req.bypass_policy_lockout_safety_check.unwrap_or(false))?;
        }
        tags::put(step.tx, &key, &req.tags)?;
        key.note(step.draft);
        let key_metadata = metadata(step.tx, &key)?;
        step.draft.set_response(json!({"keyMetadata": metadata::recorded(&key_metadata)}));
        Ok(CreateKeyResponse { key_metadata })
    })
}

fn create_parameters(req: &CreateKeyRequest) -> Value {
    let spec = req.key_spec.as_deref().or(req.customer_master_key_spec.as_deref()).unwrap_or(SYMMETRIC);
    let mut parameters = json!({
        "description": req.description.as_deref().unwrap_or_default(),
        "keyUsage": req.key_usage.as_deref().unwrap_or(USAGE),
        "customerMasterKeySpec": spec,
        "keySpec": spec,
        "origin": req.origin.as_deref().unwrap_or(Origin::AwsKms.name()),
        "bypassPolicyLockoutSafetyCheck": req.bypass_policy_lockout_safety_check.unwrap_or(false),
        "multiRegion": req.multi_region.unwrap_or(false),
    });
    if let Some(policy) = &req.policy {
        parameters["policy"] = policy.as_str().into();
    }
    if !req.tags.is_empty() {
        parameters["tags"] = tags::recorded(&req.tags);
    }
    parameters
}

fn check_create(req: &CreateKeyRequest) -> Result<(), ServiceError> {
    let mut validation = Validation::default();
    if let Some(policy) = &req.policy {
        validation.policy(policy);
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
        validation.one_of("origin", origin, &["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"]);
    }
    validation.finish()?;
    tags::check(&req.tags)?;
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
        (_, Some(origin), _) if Origin::from_name(origin).is_none() => {
            return unsupported(format!("Keys of origin {origin} are not supported."));
        }
        (_, _, Some(_)) => return unsupported("Custom key stores are not supported.".to_owned()),
        _ => {}
    }
    Ok(())
}

/// The condition keys of a `CreateKey`.
fn create_keys(req: &CreateKeyRequest) -> Context {
    let mut keys = request::create_key(
        req.key_spec.as_deref().or(req.customer_master_key_spec.as_deref()).unwrap_or(SYMMETRIC),
        req.key_usage.as_deref().unwrap_or(USAGE),
        req.origin.as_deref().unwrap_or(Origin::AwsKms.name()),
        req.multi_region.unwrap_or(false),
        req.bypass_policy_lockout_safety_check.unwrap_or(false),
    );
    request::request_tags(tags::pairs(&req.tags), &mut keys);
    keys
}

/// What is known of a key.
pub fn describe_key(call: &Call<'_>, req: DescribeKeyRequest) -> Result<DescribeKeyResponse, ServiceError> {
    // Describing a predefined alias is a first use of its key (API reference, DescribeKey).
    let managed = keyring::as_alias(call, &req.key_id).and_then(ManagedAlias::from_name);
    let root = managed.map(|_| RootKey::ensure(call.home)).transpose();
    gate::run(call, &DESCRIBE_KEY, json!({"keyId": req.key_id}), |step| {
        let mut validation = Validation::default();
        validation.key_id("keyId", &req.key_id).grant_tokens(&req.grant_tokens).finish()?;
        super::grant::present(step, &req.grant_tokens)?;
        root?;
        if let Some(alias) = managed {
            authorise_account(step, "DescribeKey")?;
            managed::ensure(step.tx, call, step.now, alias)?;
        }
        let (key, _) = named_key(step, &req.key_id, "DescribeKey", None)?;
        states::check("DescribeKey", &key)?;
        Ok(DescribeKeyResponse { key_metadata: metadata(step.tx, &key)? })
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
        let entry = |key: &Key| KeyListEntry { key_id: key.public_id().to_owned(), key_arn: key.arn() };
        Ok(ListKeysResponse { keys: keys.iter().map(entry).collect(), truncated: next_marker.is_some(), next_marker })
    })
}

/// Says anew what a key is for.
pub fn update_key_description(call: &Call<'_>, req: UpdateKeyDescriptionRequest) -> Result<(), ServiceError> {
    let parameters = json!({"keyId": req.key_id, "description": req.description});
    let mut validation = Validation::default();
    validation.key_id("keyId", &req.key_id).length("description", &req.description, 0..=8192);
    let checked = validation.finish();
    on_key(call, &UPDATE_KEY_DESCRIPTION, &req.key_id, parameters, checked, |step, key| {
        step.tx.execute(
            "UPDATE kms_keys SET description = ?2 WHERE key_id = ?1",
            [key.id.as_str(), req.description.as_str()],
        )?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Makes a disabled key usable again. A rotation that it missed while it was disabled is due at once.
pub fn enable_key(call: &Call<'_>, req: EnableKeyRequest) -> Result<(), ServiceError> {
    on_key(call, &ENABLE_KEY, &req.key_id, json!({"keyId": req.key_id}), Ok(()), |step, key| {
        keyring::set_state(step.tx, key, KeyState::Enabled)?;
        if let Some(rotation) = key.rotation.filter(|rotation| rotation.next < step.now) {
            keyring::set_rotation(step.tx, key, Some(Rotation { next: step.now, ..rotation }))?;
        }
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Makes a key unusable until it is enabled again.
pub fn disable_key(call: &Call<'_>, req: DisableKeyRequest) -> Result<(), ServiceError> {
    on_key(call, &DISABLE_KEY, &req.key_id, json!({"keyId": req.key_id}), Ok(()), |step, key| {
        keyring::set_state(step.tx, key, KeyState::Disabled)?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Makes a key unusable and lets it be deleted, with all that it encrypts, when the waiting period is over. That of a
/// primary key begins when its last replica is gone.
pub fn schedule_key_deletion(
    call: &Call<'_>,
    req: ScheduleKeyDeletionRequest,
) -> Result<ScheduleKeyDeletionResponse, ServiceError> {
    let days = req.pending_window_in_days.unwrap_or(30);
    let parameters = json!({"keyId": req.key_id, "pendingWindowInDays": days});
    let mut validation = Validation::default();
    validation.key_id("keyId", &req.key_id).number("pendingWindowInDays", days, 7..=30);
    let checked = validation.finish();
    let mut more = Context::default();
    more.set("kms:ScheduleKeyDeletionPendingWindowInDays", days.to_string());
    on_key_with(call, &SCHEDULE_KEY_DELETION, &req.key_id, parameters, checked, &more, |step, key| {
        let has_replicas =
            key.multi_region == Some(MultiRegionKeyType::Primary) && keyring::related(step.tx, key)?.len() > 1;
        let (state, deletion_date) = if has_replicas {
            keyring::set_replica_deletion(step.tx, key, days)?;
            (KeyState::PendingReplicaDeletion, None)
        } else {
            let deletion = step.now.after(SignedDuration::from_hours(24 * days));
            keyring::set_deletion(step.tx, key, deletion)?;
            (KeyState::PendingDeletion, Some(deletion))
        };
        let mut response = json!({"keyId": key.arn(), "keyState": state.name()});
        if let Some(date) = deletion_date {
            response["deletionDate"] = date.to_trail_date_string().into();
        }
        response["pendingWindowInDays"] = days.into();
        step.draft.set_response(response);
        Ok(ScheduleKeyDeletionResponse {
            key_id: key.arn(),
            deletion_date,
            key_state: state.name(),
            pending_window_in_days: days,
        })
    })
}

/// Keeps a key whose deletion was scheduled. It is disabled then, or pending import if material of it is missing.
pub fn cancel_key_deletion(
    call: &Call<'_>,
    req: CancelKeyDeletionRequest,
) -> Result<CancelKeyDeletionResponse, ServiceError> {
    on_key(call, &CANCEL_KEY_DELETION, &req.key_id, json!({"keyId": req.key_id}), Ok(()), |step, key| {
        let whole = key.origin == Origin::AwsKms || super::materials::are_whole(step.tx, key)?;
        let state = if whole { KeyState::Disabled } else { KeyState::PendingImport };
        keyring::set_state(step.tx, key, state)?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(CancelKeyDeletionResponse { key_id: key.arn() })
    })
}

/// An operation on one key that the caller names by id or ARN, and to which grants do not apply. `checked` is what a look
/// at its other parameters found, which comes before everything else.
pub(super) fn on_key<T>(
    call: &Call<'_>,
    operation: &Operation,
    key_id: &str,
    parameters: Value,
    checked: Result<(), ServiceError>,
    apply: impl FnOnce(&mut Step<'_>, &Key) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    on_key_with(call, operation, key_id, parameters, checked, &Context::default(), apply)
}

/// As [`on_key`], for a request with more condition keys.
pub(super) fn on_key_with<T>(
    call: &Call<'_>,
    operation: &Operation,
    key_id: &str,
    parameters: Value,
    checked: Result<(), ServiceError>,
    more: &Context,
    apply: impl FnOnce(&mut Step<'_>, &Key) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    gate::run(call, operation, parameters, |step| {
        checked?;
        let mut validation = Validation::default();
        validation.key_id("keyId", key_id).finish()?;
        let (key, _) = named_key_with(step, key_id, operation.name, None, more)?;
        states::check(operation.name, &key)?;
        apply(step, &key)
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

/// `requestParameters` that name a key, with what `more` has.
pub(super) fn with_key(key_id: &str, more: Value) -> Value {
    let mut parameters = json!({"keyId": key_id});
    if let (Some(fields), Value::Object(more)) = (parameters.as_object_mut(), more) {
        fields.extend(more);
    }
    parameters
}
