//! `CreateVolume`: the row, the data key, the file, in that order, and nothing left behind if one of them fails.

use crate::gate::{Call, Draft, ServiceError, Step, run_steps};
use crate::ids::VolumeId;
use crate::store::Home;

use super::events::Happened;
use super::keys::NewDataKey;
use super::lease::Lease;
use super::lineage::Lineage;
use super::outcomes::{self, KmsAnswer, UserOf};
use super::rules::Shape;
use super::table::{self, Encryption, State, TokenKey, VolumeRow};
use super::types::{CreateVolumeRequest, Tag, Volume};
use super::{default_encryption, describe, disk, events, keys, params, permission, record, settle};

/// Makes a volume.
///
/// An encrypted one gets a data key of its own, made and wrapped by KMS under the volume's context. As with EBS, a key
/// that cannot be used is no error here: the answer says `creating`, and the volume is gone when somebody looks for it
/// (EC2 API reference, "CreateVolume": the key is checked asynchronously).
pub fn create_volume(call: &Call<'_>, request: CreateVolumeRequest) -> Result<Volume, ServiceError> {
    create(call, &request, None)
}

/// As [`create_volume`], with an id that was chosen. Answers whether the volume is new.
///
/// # Errors
/// Also `InvalidVolume.Duplicate` (ours) for an id that is another account's or Region's, and `InvalidVolume.NotFound` for a volume
/// whose key KMS refuses.
pub fn create_given_volume(call: &Call<'_>, request: CreateVolumeRequest, id: &VolumeId) -> Result<bool, ServiceError> {
    let is_there = || {
        call.home.read(|tx| match table::volume(tx, id)? {
            Some(row) if row.account != call.account || row.region != call.region => {
                let message = format!("The volume '{id}' is another account's, or in another Region.");
                Err(ServiceError::refused("InvalidVolume.Duplicate", message))
            }
            found => Ok(found.is_some()),
        })
    };
    if is_there()? {
        return Ok(false);
    }
    create(call, &request, Some(id))?;
    if is_there()? {
        Ok(true)
    } else {
        Err(params::no_such_volume(id).with_hint("KMS refused its key; the trail says why"))
    }
}

fn create(call: &Call<'_>, request: &CreateVolumeRequest, id: Option<&VolumeId>) -> Result<Volume, ServiceError> {
    settle::repair(call.home)?;
    run_steps(
        call,
        &record::CREATE_VOLUME,
        record::create_request(request),
        |draft| prepare(call, request, id, draft),
        |step, prepared| commit(step, prepared),
    )
}

/// A volume on its way into being.
pub(super) struct Prepared {
    row: VolumeRow,
    tags: Vec<Tag>,
    outcome: Outcome,
    _lease: Option<Lease>,
}

pub(super) enum Outcome {
    /// Its file is there; what begins with its data key, if it is encrypted.
    Made(Option<Lineage>),
    /// KMS refused the key with this message: there is no volume.
    KeyRefused(String),
    /// An earlier call with the same token made it.
    Earlier,
}

pub(super) fn prepare(
    call: &Call<'_>,
    request: &CreateVolumeRequest,
    id: Option<&VolumeId>,
    draft: &mut Draft,
) -> Result<Prepared, ServiceError> {
    let (mut row, tags) = plan(call, request)?;
    if let Some(id) = id {
        row.id = id.clone();
    }
    permission::check_creation(call, &row, &tags)?;
    params::dry_run(request.dry_run)?;
    let lease = Lease::take(call.home, &row.id)?;
    if let Some((row, tags)) = announce(call, request, &row, &tags)? {
        record::volume(draft, &row);
        return Ok(Prepared { row, tags, outcome: Outcome::Earlier, _lease: lease.until_commit() });
    }
    record::volume(draft, &row);
    match make(call, &mut row) {
        Ok(outcome) => Ok(Prepared { row, tags, outcome, _lease: lease.until_commit() }),
        Err(error) => {
            // The call's own error is the one to tell; what cannot be cleared away now, the next command clears away.
            let _ = discard(call.home, &row.id);
            Err(error)
        }
    }
}

pub(super) fn commit(step: &mut Step<'_>, prepared: &Prepared) -> Result<Volume, ServiceError> {
    let row = &prepared.row;
    match &prepared.outcome {
        Outcome::Made(lineage) if table::finish(step.tx, row, lineage.as_ref())? => {
            events::note(step.tx, step.now, row, Happened::Created, &step.call.request_id)?;
        }
        Outcome::Made(_) => return Err(ServiceError::machine(format!("the record of volume {} is gone", row.id))),
        // The client token stays: used again it answers that its volume is gone.
        Outcome::KeyRefused(cause) => {
            table::remove(step.tx, &row.id)?;
            events::note(step.tx, step.now, row, Happened::NotCreated(cause), &step.call.request_id)?;
        }
        Outcome::Earlier => {}
    }
    let answer = describe::created(row, prepared.tags.clone());
    step.draft.set_response(record::create_response(&answer));
    Ok(answer)
}

/// What the request asks for, if all of it is right.
pub(super) fn plan(call: &Call<'_>, request: &CreateVolumeRequest) -> Result<(VolumeRow, Vec<Tag>), ServiceError> {
    let defaults = call.home.read(|tx| default_encryption::of(tx, &call.account, &call.region))?;
    let encrypted = request.encrypted.unwrap_or(false) || defaults.encrypted;
    if request.kms_key_id.is_some() && !encrypted {
        return Err(ServiceError::refused(
            "InvalidParameterDependency",
            "The parameter KmsKeyId requires the parameter Encrypted to be set.",
        ));
    }
    let shape = Shape::of(request)?;
    let sector_size = params::sector_size(request.sector_size, encrypted)?;
    let db = params::db_id(request.db_instance_resource_id.as_deref())?;
    let tags = params::volume_tags(&request.tag_specifications)?;
    let row = VolumeRow {
        id: VolumeId::random(),
        account: call.account.clone(),
        region: call.region.clone(),
        zone: params::zone(request.availability_zone.as_deref(), &call.region)?,
        state: State::Creating,
        size: shape.size,
        volume_type: shape.volume_type.to_owned(),
        iops: shape.iops,
        throughput: shape.throughput,
        encryption: encrypted.then(|| Encryption {
            key_arn: request.kms_key_id.as_deref().unwrap_or_else(|| defaults.key()).to_owned(),
            sector_size,
        }),
        db,
        created: call.home.now()?,
    };
    Ok((row, tags))
}

/// Writes the row that says that the volume is coming; from here on a crash leaves something for `settle` to find. If
/// the request's token made a volume already, that one.
fn announce(
    call: &Call<'_>,
    request: &CreateVolumeRequest,
    row: &VolumeRow,
    tags: &[Tag],
) -> Result<Option<(VolumeRow, Vec<Tag>)>, ServiceError> {
    let parameters = CreateVolumeRequest { client_token: None, dry_run: None, ..request.clone() };
    let parameters = serde_json::to_string(&parameters).map_err(ServiceError::machine)?;
    call.home.write(|tx| {
        if let Some(token) = &request.client_token {
            let token = token_key(call, "CreateVolume", token)?;
            if let Some(used) = token.used(tx)? {
                let mismatch = |message: &str| Err(ServiceError::refused("IdempotentParameterMismatch", message));
                if used.request != parameters {
                    return mismatch(OTHER_PARAMETERS);
                }
                let earlier = match used.resource.parse() {
                    Ok(id) => describe::owned(tx, call, &id)?,
                    Err(_) => None,
                };
                let Some(earlier) = earlier else {
                    return mismatch(
                        "The client token you have provided is associated with a resource that is already deleted. Please \
                         use a different client token.",
                    );
                };
                let tags = table::tags_of(tx, &earlier.id)?;
                return Ok(Some((earlier, tags)));
            }
            token.remember(tx, &parameters, row.id.as_str())?;
        }
        table::insert(tx, row, tags)?;
        Ok(None)
    })
}

/// What EC2 says where a client token comes back with another request.
pub(super) const OTHER_PARAMETERS: &str =
    "Parameters on this idempotent request are inconsistent with parameters used in previous request(s)";

pub(super) fn token_key<'a>(
    call: &'a Call<'_>,
    operation: &'a str,
    token: &'a str,
) -> Result<TokenKey<'a>, ServiceError> {
    if token.is_empty() || token.len() > 64 || !token.is_ascii() {
        return Err(ServiceError::refused(
            "InvalidParameterValue",
            "Value for parameter clientToken is invalid. Expected: 1 to 64 ASCII characters.",
        ));
    }
    Ok(TokenKey { account: &call.account, region: &call.region, operation, token })
}

/// Asks for the data key and makes the file.
pub(super) fn make(call: &Call<'_>, row: &mut VolumeRow) -> Result<Outcome, ServiceError> {
    let Some(encryption) = row.encryption.clone() else {
        disk::create(call.home, row, None)?;
        return Ok(Outcome::Made(None));
    };
    let NewDataKey { wrapped, digest, lineage } = match keys::new_data_key(call, row, &encryption.key_arn) {
        Ok(made) => made,
        Err(ServiceError::Refused(refusal)) => {
            let (seen, _) = outcomes::seen(KmsAnswer::of_code(refusal.code), UserOf::CreateVolume);
            return match seen.refusal(row.id.as_str()) {
                Some(shown) => Err(ServiceError::Refused(shown)),
                None => Ok(Outcome::KeyRefused(refusal.message)),
            };
        }
        Err(machine) => return Err(machine),
    };
    if let Some(encryption) = &mut row.encryption {
        encryption.key_arn.clone_from(&wrapped.key_arn);
    }
    disk::create(call.home, row, Some((wrapped, digest)))?;
    Ok(Outcome::Made(Some(lineage)))
}

/// Takes a volume that did not come to be out of the world: the file first, then the row and the token, so that a crash
/// in between leaves the row that leads back here.
pub(super) fn discard(home: &Home, id: &VolumeId) -> Result<(), ServiceError> {
    disk::remove(home, id)?;
    home.write(|tx| {
        table::forget_tokens_of(tx, id.as_str())?;
        table::remove(tx, id)?;
        Ok(())
    })
}
