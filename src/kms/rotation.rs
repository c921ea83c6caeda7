//! Rotation of key material: `EnableKeyRotation`, `DisableKeyRotation`, `GetKeyRotationStatus`, `RotateKeyOnDemand`,
//! `ListKeyRotations`, and the automatic rotation that falls due.
//!
//! A rotation adds a material and keeps all earlier ones: what they encrypted decrypts until the key is deleted.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Time;
use crate::gate::{self, Call, ServiceError, Settled, Settler};
use crate::iam::Context;
use crate::store::{Home, StoreError, Transaction};
use crate::trail;

use super::access::named_key;
use super::keyring::{self, Key, Rotation};
use super::materials::{self, Material, RotationType, Standing};
use super::metadata::{DOES_NOT_EXPIRE, EXPIRES};
use super::operations::{
    DISABLE_KEY_ROTATION, ENABLE_KEY_ROTATION, GET_KEY_ROTATION_STATUS, LIST_KEY_ROTATIONS, ROTATE_KEY_ON_DEMAND,
};
use super::page::{Marker, page_limit};
use super::root::RootKey;
use super::states::{self, Origin};
use super::validate::Validation;
use super::{event, keys};

/// Rotations on demand that a key may have over its life (AWS KMS API reference, `RotateKeyOnDemand`).
const MOST_ON_DEMAND: usize = 25;
const DEFAULT_PERIOD: i64 = 365;

/// `EnableKeyRotation`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EnableKeyRotationRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// Days between rotations, 90-2560; 365 if absent.
    pub rotation_period_in_days: Option<i64>,
}

/// `DisableKeyRotation`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DisableKeyRotationRequest {
    /// A key id or key ARN.
    pub key_id: String,
}

/// `GetKeyRotationStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetKeyRotationStatusRequest {
    /// A key id or key ARN.
    pub key_id: String,
}

/// What `GetKeyRotationStatus` answers. A rotation on demand takes no time here, so none is ever under way.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetKeyRotationStatusResponse {
    /// Whether the key is rotated automatically; `false` while its deletion waits.
    pub key_rotation_enabled: bool,
    /// The key's ARN.
    pub key_id: String,
    /// Days between rotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_period_in_days: Option<i64>,
    /// When the next one is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_rotation_date: Option<Time>,
}

/// `RotateKeyOnDemand`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RotateKeyOnDemandRequest {
    /// A key id or key ARN.
    pub key_id: String,
}

/// What `RotateKeyOnDemand` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RotateKeyOnDemandResponse {
    /// The key's ARN.
    pub key_id: String,
}

/// `ListKeyRotations`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListKeyRotationsRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// `ROTATIONS_ONLY` (if absent) or `ALL_KEY_MATERIAL`.
    pub include_key_material: Option<String>,
    /// At most so many, 1-1000; 100 if absent.
    pub limit: Option<i64>,
    /// Where the last answer ended.
    pub marker: Option<String>,
}

/// What `ListKeyRotations` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeyRotationsResponse {
    /// In the order in which the materials came to the key.
    pub rotations: Vec<RotationsListEntry>,
    /// With which the rest is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
    /// Whether there is a rest.
    pub truncated: bool,
}

/// One material of `ListKeyRotations`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RotationsListEntry {
    /// The key's ARN.
    pub key_id: String,
    /// 64 hex digits.
    pub key_material_id: String,
    /// Of imported material: as given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_material_description: Option<String>,
    /// Of imported material: `IMPORTED` or `PENDING_IMPORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import_state: Option<&'static str>,
    /// `CURRENT`, `NON_CURRENT` or `PENDING_ROTATION`.
    pub key_material_state: &'static str,
    /// Of imported material: `KEY_MATERIAL_EXPIRES` or `KEY_MATERIAL_DOES_NOT_EXPIRE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_model: Option<&'static str>,
    /// Of imported material: when it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<Time>,
    /// When it took over; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_date: Option<Time>,
    /// `AUTOMATIC` or `ON_DEMAND`; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_type: Option<&'static str>,
}

/// Has a key rotated automatically, for the first time one period from now. Each call begins the period anew (assumed).
pub fn enable_key_rotation(call: &Call<'_>, req: EnableKeyRotationRequest) -> Result<(), ServiceError> {
    let days = req.rotation_period_in_days.unwrap_or(DEFAULT_PERIOD);
    let mut parameters = json!({"keyId": req.key_id});
    if let Some(days) = req.rotation_period_in_days {
        parameters["rotationPeriodInDays"] = days.into();
    }
    let mut validation = Validation::default();
    validation.key_id("keyId", &req.key_id).number("rotationPeriodInDays", days, 90..=2560);
    let checked = validation.finish();
    let mut more = Context::default();
    more.set_opt("kms:RotationPeriodInDays", req.rotation_period_in_days.map(|days| days.to_string()));
    keys::on_key_with(call, &ENABLE_KEY_ROTATION, &req.key_id, parameters, checked, &more, |step, key| {
        refuse_replica(key)?;
        keyring::set_rotation(step.tx, key, Some(Rotation { days, next: later(step.now, days) }))?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Ends the automatic rotation of a key.
pub fn disable_key_rotation(call: &Call<'_>, req: DisableKeyRotationRequest) -> Result<(), ServiceError> {
    keys::on_key(call, &DISABLE_KEY_ROTATION, &req.key_id, json!({"keyId": req.key_id}), Ok(()), |step, key| {
        refuse_replica(key)?;
        keyring::set_rotation(step.tx, key, None)?;
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(())
    })
}

/// Whether and when a key is rotated automatically. A replica says what its primary does.
pub fn get_key_rotation_status(
    call: &Call<'_>,
    req: GetKeyRotationStatusRequest,
) -> Result<GetKeyRotationStatusResponse, ServiceError> {
    keys::on_key(call, &GET_KEY_ROTATION_STATUS, &req.key_id, json!({"keyId": req.key_id}), Ok(()), |step, key| {
        let related = if key.is_replica() { keyring::related(step.tx, key)? } else { vec![key.clone()] };
        // A key that is about to be deleted is not rotated, and says so (developer guide, "Rotating keys").
        let rotation = related.iter().find_map(|key| key.rotation).filter(|_| !key.state.is_ending());
        Ok(GetKeyRotationStatusResponse {
            key_rotation_enabled: rotation.is_some(),
            key_id: key.arn(),
            rotation_period_in_days: rotation.map(|rotation| rotation.days),
            next_rotation_date: rotation.map(|rotation| rotation.next),
        })
    })
}

/// Rotates a key now: to fresh material, or to the imported one that waits for it. Its automatic rotation is unaffected.
pub fn rotate_key_on_demand(
    call: &Call<'_>,
    req: RotateKeyOnDemandRequest,
) -> Result<RotateKeyOnDemandResponse, ServiceError> {
    keys::on_key(call, &ROTATE_KEY_ON_DEMAND, &req.key_id, json!({"keyId": req.key_id}), Ok(()), |step, key| {
        refuse_replica(key)?;
        let known = materials::list(step.tx, key)?;
        let on_demand = |material: &&Material| material.rotated.is_some_and(|(_, kind)| kind == RotationType::OnDemand);
        if known.iter().filter(on_demand).count() >= MOST_ON_DEMAND {
            return Err(ServiceError::refused(
                "LimitExceededException",
                format!(
                    "The on-demand rotations limit has been reached for the given keyId. \
                     No more on-demand rotations can be performed for this key: {}",
                    key.arn()
                ),
            ));
        }
        let root = RootKey::load(call.home, step.tx)?;
        match key.origin {
            Origin::AwsKms => rotate(step.tx, &root, key, step.now, RotationType::OnDemand)?,
            Origin::External => take_over(step.tx, key, &known, step.now)?,
        }
        step.draft.set_response(json!({"keyId": key.arn()}));
        Ok(RotateKeyOnDemandResponse { key_id: key.arn() })
    })
}

/// The materials of a key: those that rotations brought, or all.
pub fn list_key_rotations(
    call: &Call<'_>,
    req: ListKeyRotationsRequest,
) -> Result<ListKeyRotationsResponse, ServiceError> {
    let mut parameters = keys::with_key(&req.key_id, keys::paging_parameters(req.limit, req.marker.as_deref()));
    if let Some(include) = &req.include_key_material {
        parameters["includeKeyMaterial"] = include.as_str().into();
    }
    gate::run(call, &LIST_KEY_ROTATIONS, parameters, |step| {
        let include = req.include_key_material.as_deref().unwrap_or("ROTATIONS_ONLY");
        let mut validation = Validation::default();
        validation.key_id("keyId", &req.key_id).one_of(
            "includeKeyMaterial",
            include,
            &["ALL_KEY_MATERIAL", "ROTATIONS_ONLY"],
        );
        let limit = page_limit(&mut validation, req.limit, 100, 1000);
        let after = Marker::read(&mut validation, req.marker.as_deref());
        validation.finish()?;
        let after = after?;
        let (key, _) = named_key(step, &req.key_id, "ListKeyRotations", None)?;
        states::check("ListKeyRotations", &key)?;
        let mut known = materials::list(step.tx, &key)?;
        known.retain(|material| include == "ALL_KEY_MATERIAL" || material.rotated.is_some());
        let begin = known.iter().position(|material| material.id == after).map_or(0, |place| place + 1);
        let mut page = known.split_off(begin);
        let next_marker = Marker::next(&mut page, limit, |material| &material.id);
        let rotations = page.into_iter().map(|material| entry(&key, material)).collect();
        Ok(ListKeyRotationsResponse { rotations, truncated: next_marker.is_some(), next_marker })
    })
}

fn entry(key: &Key, material: Material) -> RotationsListEntry {
    let imported = |value: &'static str| (key.origin == Origin::External).then_some(value);
    RotationsListEntry {
        key_id: key.arn(),
        key_material_id: material.id,
        key_material_description: material.description,
        import_state: imported(if material.present { "IMPORTED" } else { "PENDING_IMPORT" }),
        key_material_state: material.standing.name(),
        expiration_model: imported(if material.expires.is_some() { EXPIRES } else { DOES_NOT_EXPIRE }),
        valid_to: material.expires,
        rotation_date: material.rotated.map(|(time, _)| time),
        rotation_type: material.rotated.map(|(_, kind)| kind.name()),
    }
}

/// Rotates keys when their period is over.
pub(super) const ROTATION: Settler = Settler { next_due, settle_one };

fn next_due(tx: &Transaction<'_>) -> Result<Option<Time>, StoreError> {
    Ok(keyring::next_rotation(tx)?.and_then(|key| key.rotation).map(|rotation| rotation.next))
}

/// Without the root key no material can be sealed: the rotation then waits, and what needs no key goes on.
fn settle_one(home: &Home, tx: &Transaction<'_>, due: Time) -> Result<Settled, ServiceError> {
    let Ok(root) = RootKey::load(home, tx) else { return Ok(Settled::Later) };
    if let Some(key) = keyring::next_rotation(tx)?
        && let Some(rotation) = key.rotation
    {
        rotate(tx, &root, &key, due, RotationType::Automatic)?;
        keyring::set_rotation(tx, &key, Some(Rotation { next: later(due, rotation.days), ..rotation }))?;
    }
    Ok(Settled::Done)
}

/// Gives a key, and its replicas, fresh material.
fn rotate(tx: &Transaction<'_>, root: &RootKey, key: &Key, now: Time, kind: RotationType) -> Result<(), ServiceError> {
    let (material_id, secret) = materials::fresh()?;
    let related = if key.multi_region.is_some() { keyring::related(tx, key)? } else { vec![key.clone()] };
    for key in &related {
        materials::put(tx, root, key, &material_id, &secret)?;
        materials::make_current(tx, key, &material_id, Some((now, kind)))?;
    }
    record(tx, key, now, kind)
}

/// Makes the imported material that waits the current one. Where a replica lacks it, nothing is rotated.
fn take_over(tx: &Transaction<'_>, key: &Key, known: &[Material], now: Time) -> Result<(), ServiceError> {
    let invalid_state = |message: String| Err(ServiceError::refused("KMSInvalidStateException", message));
    let Some(next) = known.iter().find(|material| material.standing == Standing::PendingRotation && material.present)
    else {
        return invalid_state(format!("No available key material pending rotation for the key: {}.", key.arn()));
    };
    let related = if key.multi_region.is_some() { keyring::related(tx, key)? } else { vec![key.clone()] };
    for key in &related {
        if !materials::list(tx, key)?.iter().any(|material| material.id == next.id && material.present) {
            return invalid_state(format!("{} lacks the key material {}.", key.arn(), next.id));
        }
        materials::make_current(tx, key, &next.id, Some((now, RotationType::OnDemand)))?;
    }
    record(tx, key, now, RotationType::OnDemand)
}

/// KMS's own record of the rotation (AWS CloudTrail user guide, "AWS service events").
fn record(tx: &Transaction<'_>, key: &Key, now: Time, kind: RotationType) -> Result<(), ServiceError> {
    let details = json!({"rotationType": kind.name(), "keyId": key.public_id()});
    Ok(trail::append(tx, &event::by_kms(key, "RotateKey", now, Some(details), Value::Null))?)
}

fn later(time: Time, days: i64) -> Time {
    time.after(SignedDuration::from_hours(24 * days))
}

/// Rotation is the primary key's to change (developer guide, "Rotating multi-Region keys"); the wording is assumed.
fn refuse_replica(key: &Key) -> Result<(), ServiceError> {
    if key.is_replica() {
        let message = format!("{} is a multi-Region replica key, which is not valid for this operation.", key.arn());
        return Err(ServiceError::refused("UnsupportedOperationException", message));
    }
    Ok(())
}
