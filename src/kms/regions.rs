//! Multi-Region keys: `ReplicateKey`, `UpdatePrimaryRegion`.
//!
//! Related keys share their id, their material and their rotation, and are keys of their own in everything else. Each has
//! its copy of the sealed material, so that the end of one leaves nothing of it and takes nothing from the others.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::gate::{self, Call, Elsewhere, ServiceError, Step};
use crate::iam::Context;
use crate::ids::Region;
use crate::store::StoreError;

use super::access::{Asked, Subject, authorise_account_with, authorise_with, named_key_with};
use super::keyring::{self, Key, MultiRegionKeyType};
use super::keys;
use super::metadata::{self, KeyMetadata, SYMMETRIC, USAGE, metadata};
use super::operations::{REPLICATE_KEY, UPDATE_PRIMARY_REGION};
use super::policy;
use super::request;
use super::root::RootKey;
use super::states::{self, KeyState, Origin};
use super::tags::{self, Tag};
use super::validate::Validation;
use super::{materials, validate};

/// `ReplicateKey`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ReplicateKeyRequest {
    /// Id or ARN of a multi-Region primary key of this Region.
    pub key_id: String,
    /// Where the replica shall be.
    pub replica_region: String,
    /// The replica's key policy as JSON.
    pub policy: Option<String>,
    /// Takes a policy that locks the caller out.
    pub bypass_policy_lockout_safety_check: Option<bool>,
    /// The replica's description, up to 8192 characters; empty if absent.
    pub description: Option<String>,
    /// The replica's tags, up to 50.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// What `ReplicateKey` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReplicateKeyResponse {
    /// The replica.
    pub replica_key_metadata: KeyMetadata,
    /// Its key policy as JSON.
    pub replica_policy: String,
    /// Its tags.
    pub replica_tags: Vec<Tag>,
}

/// `UpdatePrimaryRegion`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdatePrimaryRegionRequest {
    /// Id or ARN of the primary key, which is in this Region.
    pub key_id: String,
    /// The Region of the replica that shall be the primary.
    pub primary_region: String,
}

/// Makes a replica of a primary key in another Region.
pub fn replicate_key(call: &Call<'_>, req: ReplicateKeyRequest) -> Result<ReplicateKeyResponse, ServiceError> {
    let mut parameters = json!({
        "keyId": req.key_id, "replicaRegion": req.replica_region,
        "bypassPolicyLockoutSafetyCheck": req.bypass_policy_lockout_safety_check.unwrap_or(false),
        "description": req.description.as_deref().unwrap_or_default(),
    });
    if let Some(policy) = &req.policy {
        parameters["policy"] = policy.as_str().into();
    }
    if !req.tags.is_empty() {
        parameters["tags"] = tags::recorded(&req.tags);
    }
    let region = check_replicate(&req);
    gate::run(call, &REPLICATE_KEY, parameters, |step| {
        let region = region?;
        let mut more = Context::default();
        more.set("kms:ReplicaRegion", region.as_str());
        let (primary, _) = named_key_with(step, &req.key_id, "ReplicateKey", None, &more)?;
        let bypass = req.bypass_policy_lockout_safety_check.unwrap_or(false);
        let mut keys = request::create_key(SYMMETRIC, USAGE, primary.origin.name(), true, bypass);
        keys.set("kms:MultiRegionKeyType", MultiRegionKeyType::Replica.name());
        request::request_tags(tags::pairs(&req.tags), &mut keys);
        authorise_account_with(step, "CreateKey", "*", &keys)?;
        if !req.tags.is_empty() {
            authorise_account_with(step, "TagResource", "*", &keys)?;
        }
        states::check("ReplicateKey", &primary)?;
        require_primary(&primary)?;
        let related = keyring::related(step.tx, &primary)?;
        if let Some(there) = related.iter().find(|key| key.region == region) {
            let message = format!("{} exists already.", there.arn());
            return Err(ServiceError::refused("AlreadyExistsException", message));
        }
        let replica = make_replica(step, &primary, &region, req.description.as_deref().unwrap_or_default())?;
        tags::put(step.tx, &replica, &req.tags)?;
        let replica_key_metadata = metadata(step.tx, &replica)?;
        if let Some(policy) = &req.policy {
            policy::put(step, &replica, policy, bypass)?;
        }
        let replica_policy = policy::text_of(step.tx, &replica)?;
        record(step, &replica, &replica_key_metadata, &replica_policy, &req.tags);
        Ok(ReplicateKeyResponse { replica_key_metadata, replica_policy, replica_tags: req.tags.clone() })
    })
}

fn check_replicate(req: &ReplicateKeyRequest) -> Result<Region, ServiceError> {
    let mut validation = Validation::default();
    validation.key_id("keyId", &req.key_id);
    if let Some(policy) = &req.policy {
        validation.policy(policy);
    }
    if let Some(description) = &req.description {
        validation.length("description", description, 0..=8192);
    }
    let region = region(&mut validation, "replicaRegion", &req.replica_region)?;
    tags::check(&req.tags)?;
    Ok(region)
}

fn region(validation: &mut Validation, member: &str, text: &str) -> Result<Region, ServiceError> {
    validation.length(member, text, 1..=32).finish()?;
    let constraint = "Member must satisfy regular expression pattern: ^([a-z]+-){2,3}\\d+$";
    text.parse().map_err(|_| {
        let message = format!("Value '{text}' at '{member}' failed to satisfy constraint: {constraint}");
        validate::invalid(format!("1 validation error detected: {message}"))
    })
}

/// Only a primary key is replicated, and only it hands its part on; the wording is assumed.
fn require_primary(key: &Key) -> Result<(), ServiceError> {
    if key.multi_region == Some(MultiRegionKeyType::Primary) {
        return Ok(());
    }
    let message = format!("{} is not a multi-Region primary key.", key.arn());
    Err(ServiceError::refused("UnsupportedOperationException", message))
}

fn make_replica(step: &Step<'_>, primary: &Key, region: &Region, description: &str) -> Result<Key, ServiceError> {
    let root = RootKey::load(step.call.home, step.tx)?;
    let mut replica = Key {
        id: keyring::replica_row(primary.public_id(), region),
        region: region.clone(),
        description: description.to_owned(),
        created: step.now,
        multi_region: Some(MultiRegionKeyType::Replica),
        rotation: None,
        ..primary.clone()
    };
    match primary.origin {
        Origin::AwsKms => {
            keyring::insert(step.tx, &replica)?;
            materials::copy(step.tx, &root, primary, &replica)?;
        }
        // Its material is imported into each Region (developer guide, "Importing key material into multi-Region keys").
        Origin::External => {
            replica.state = KeyState::PendingImport;
            replica.material_id = None;
            keyring::insert(step.tx, &replica)?;
        }
    }
    Ok(replica)
}

/// In the primary's Region stands `ReplicateKey`, in the replica's a `CreateKey` (developer guide, `ReplicateKey` in the
/// CloudTrail examples), whose request is assumed.
fn record(step: &mut Step<'_>, replica: &Key, described: &KeyMetadata, policy: &str, tags: &[Tag]) {
    let recorded = metadata::recorded(described);
    let mut response = json!({"replicaKeyMetadata": recorded, "replicaPolicy": policy});
    if !tags.is_empty() {
        response["replicaTags"] = tags::recorded(tags);
    }
    step.draft.set_response(response);
    let request = json!({
        "description": described.description, "keyUsage": described.key_usage, "keySpec": described.key_spec,
        "origin": described.origin, "multiRegion": true,
    });
    elsewhere(step, replica, "CreateKey", request, json!({"keyMetadata": recorded}));
}

fn elsewhere(step: &mut Step<'_>, key: &Key, name: &'static str, request: Value, response: Value) {
    step.draft.also(Elsewhere {
        region: key.region.clone(),
        name,
        request,
        response,
        resource: ("AWS::KMS::Key", key.arn(), key.account.clone()),
    });
}

/// Makes a replica the primary, and the primary a replica. Its rotation goes with it.
pub fn update_primary_region(call: &Call<'_>, req: UpdatePrimaryRegionRequest) -> Result<(), ServiceError> {
    let parameters = json!({"keyId": req.key_id, "primaryRegion": req.primary_region});
    let mut validation = Validation::default();
    validation.key_id("keyId", &req.key_id);
    let region = region(&mut validation, "primaryRegion", &req.primary_region);
    let (checked, region) = match region {
        Ok(region) => (Ok(()), Some(region)),
        Err(error) => (Err(error), None),
    };
    let mut more = Context::default();
    more.set("kms:PrimaryRegion", req.primary_region.as_str());
    keys::on_key_with(call, &UPDATE_PRIMARY_REGION, &req.key_id, parameters.clone(), checked, &more, |step, key| {
        require_primary(key)?;
        let related = keyring::related(step.tx, key)?;
        let replica = related.iter().find(|other| other.is_replica() && Some(&other.region) == region.as_ref());
        let Some(replica) = replica else {
            let arn = region.map(|region| keyring::key_arn(&region, &key.account, key.public_id())).unwrap_or_default();
            return Err(ServiceError::refused("NotFoundException", format!("Key '{arn}' does not exist")));
        };
        authorise_with(
            step,
            replica,
            &Asked { operation: "UpdatePrimaryRegion", context: None, named: None, subject: Subject::Key, more: &more },
        )?;
        states::check("UpdatePrimaryRegion", replica)?;
        keyring::set_rotation(step.tx, replica, key.rotation)?;
        keyring::set_rotation(step.tx, key, None)?;
        for (key, kind) in [(key, MultiRegionKeyType::Replica), (replica, MultiRegionKeyType::Primary)] {
            step.tx
                .prepare_cached("UPDATE kms_keys SET multi_region = ?2 WHERE key_id = ?1")
                .map_err(StoreError::from)?
                .execute(params![key.id, kind.name()])?;
        }
        step.draft.set_response(json!({"keyId": key.arn()}));
        // One record in each of the two Regions (developer guide, "UpdatePrimaryRegion" in the CloudTrail examples).
        let there = json!({"keyId": replica.arn(), "primaryRegion": parameters["primaryRegion"]});
        elsewhere(step, replica, "UpdatePrimaryRegion", there, json!({"keyId": replica.arn()}));
        Ok(())
    })
}
