//! `AttachVolume` and `DetachVolume`.
//!
//! A volume is attached while an exporter holds its file's lock. The row of an attachment is written before the exporter
//! starts and removed after it ended; whatever ends in between, [`super::settle`] finds the row and looks at the lock.

use std::time::Duration;

use crate::gate::{self, Call, Draft, ServiceError, Step, run_steps};
use crate::ids::{self, VolumeId};

use super::delete::not_available;
use super::events::Happened;
use super::exporter::{Unstopped, Way};
use super::lease::Lease;
use super::outcomes::{self, KmsAnswer, UserOf};
use super::table::{self, AttachmentRow, State, VolumeRow};
use super::types::{AttachVolumeRequest, DetachVolumeRequest, VolumeAttachment};
use super::{describe, disk, events, exporter, instance, keys, modify, params, permission, record, settle};

/// Attaches a volume as EBS does: a grant for the instance's host, Decrypt through that grant under the volume's context,
/// then an exporter that checks the key against the header's digest and serves the volume over NBD.
///
/// # Errors
/// `VolumeInUse` if it is attached or held by another command; `CustomerKeyHasBeenRevoked` if KMS refuses the grant or
/// the key, whatever its reason (EC2 API reference, "Error codes"); the record of the KMS call says which.
pub fn attach_volume(call: &Call<'_>, request: AttachVolumeRequest) -> Result<VolumeAttachment, ServiceError> {
    settle::repair(call.home)?;
    if request.instance_id.is_some() {
        // A launched instance may be waiting to be running.
        gate::settle(call.home, super::SETTLERS)?;
    }
    let mut attempt = None;
    let outcome = run_steps(
        call,
        &record::ATTACH_VOLUME,
        record::attach_request(&request),
        |draft| prepare_attach(call, &request, draft, &mut attempt),
        |step, prepared| commit_attach(step, prepared),
    );
    if outcome.is_err()
        && let Some(attempt) = attempt
    {
        // The commit itself may have failed with the exporter running: nobody was told, so it must not go on.
        settle::withdraw(call.home, &attempt.volume, &attempt.grant_name);
    }
    outcome
}

struct Attached {
    row: VolumeRow,
    attachment: AttachmentRow,
    /// Another command ended this attachment meanwhile: nothing is left to do.
    ended: bool,
    _lease: Option<Lease>,
}

/// `attempt` becomes what was claimed for this call, also if it fails later on.
fn prepare_attach(
    call: &Call<'_>,
    request: &AttachVolumeRequest,
    draft: &mut Draft,
    attempt: &mut Option<AttachmentRow>,
) -> Result<Attached, ServiceError> {
    permission::check_attachment(call, "ec2:AttachVolume", &request.volume_id, request.instance_id.as_deref())?;
    let id = params::volume_id(&request.volume_id)?;
    let way = Way::of(call.home, request.attach_as.as_deref())?;
    let lease = Lease::take(call.home, &id)?;
    modify::finish(call.home, &id)?;
    let (row, mut attachment) = claim(call, request, &id, draft)?;
    *attempt = Some(attachment.clone());
    record::instance(draft, &row, &attachment);
    match open(call, &row, &mut attachment, way) {
        Ok(()) => Ok(Attached { row, attachment, ended: false, _lease: lease.until_commit() }),
        Err(error) => {
            settle::end_attachment(call.home, &row, &attachment, call.trace)?;
            Err(error)
        }
    }
}

/// Checks everything that the state can tell and takes the volume for this call.
fn claim(
    call: &Call<'_>,
    request: &AttachVolumeRequest,
    id: &VolumeId,
    draft: &mut Draft,
) -> Result<(VolumeRow, AttachmentRow), ServiceError> {
    call.home.write(|tx| {
        let row = describe::owned(tx, call, id)?.ok_or_else(|| params::no_such_volume(id))?;
        record::volume(draft, &row);
        let instance = instance::to_attach_to(tx, call, request.instance_id.as_deref(), &row)?;
        if table::attachment(tx, id)?.is_some() {
            return Err(ServiceError::refused("VolumeInUse", format!("{id} is already attached to an instance")));
        }
        if row.state != State::Available {
            return Err(not_available(id));
        }
        // A command that imports or reads holds the file: KMS need not be asked in vain.
        if disk::is_held(call.home, id)? {
            return Err(exporter::in_use(id));
        }
        let device = params::device(request.device.as_deref(), &table::devices_of(tx, &instance)?)?;
        params::dry_run(request.dry_run)?;
        let attachment = AttachmentRow {
            volume: id.clone(),
            instance,
            device,
            state: "attaching".to_owned(),
            attached_at: crate::store::clock(tx)?.now(),
            grant_name: ids::uuid(),
            grant_id: None,
            exporter: None,
            delete_on_termination: false,
        };
        table::put_attachment(tx, &attachment)?;
        table::set_state(tx, id, State::InUse)?;
        Ok((row, attachment))
    })
}

/// Grant, key, exporter.
pub(super) fn open(
    call: &Call<'_>,
    row: &VolumeRow,
    attachment: &mut AttachmentRow,
    way: Way,
) -> Result<(), ServiceError> {
    let key = match &row.encryption {
        None => None,
        Some(encryption) => {
            let wrapped = disk::wrapped_key(call.home, row)?;
            let grant = keys::grant(call, row, &encryption.key_arn, &attachment.instance, &attachment.grant_name)
                .map_err(|error| revoked(call, error, row))?;
            attachment.grant_id = Some(grant.id.clone());
            call.home.write(|tx| table::put_attachment(tx, attachment))?;
            let key = keys::unwrap_by_grant(call, row, &wrapped, &attachment.instance, &grant)
                .map_err(|error| revoked(call, error, row))?;
            Some(key)
        }
    };
    attachment.exporter = Some(exporter::start(call.home, row, key, way)?);
    Ok(())
}

/// EC2's code for a volume whose key KMS refuses.
pub(super) const REVOKED: &str = "CustomerKeyHasBeenRevoked";

/// What a user of EC2 sees of a refusal by KMS; the volume's owner is told by an event too.
fn revoked(call: &Call<'_>, error: ServiceError, row: &VolumeRow) -> ServiceError {
    let ServiceError::Refused(refusal) = error else { return error };
    let id = &row.id;
    // The refusal is the error to tell, also where this cannot be noted.
    let _ = events::note_now(call.home, row, Happened::NotAttached(&refusal.message), &call.request_id);
    let (seen, _) = outcomes::seen(KmsAnswer::of_code(refusal.code), UserOf::AttachVolume);
    let Some(shown) = seen.refusal(id.as_str()) else { return ServiceError::Refused(refusal) };
    let reason = if refusal.message.is_empty() { String::new() } else { format!(": {}", refusal.message) };
    let remedy = refusal.hint.map_or_else(String::new, |hint| format!(" Try: {hint}"));
    ServiceError::Refused(shown).with_hint(format!(
        "KMS answered {}{reason}{remedy} (blockseal explain in front of the same command says why)",
        refusal.code
    ))
}

fn commit_attach(step: &mut Step<'_>, attached: &Attached) -> Result<VolumeAttachment, ServiceError> {
    let attachment = AttachmentRow { state: "attached".to_owned(), ..attached.attachment.clone() };
    table::put_attachment(step.tx, &attachment)?;
    events::note(step.tx, step.now, &attached.row, Happened::Attached, &step.call.request_id)?;
    let answer = describe::attachment(step.call, &attachment, "attaching");
    step.draft.set_response(record::attachment_response(&step.call.request_id, &answer));
    Ok(answer)
}

/// Ends the exporter, which first makes everything durable that it answered, and retires the grant.
///
/// # Errors
/// `IncorrectState` if the volume is not attached, if its kernel device is in use, or if its exporter gives no sign of life for some seconds or is not
/// done within a minute; it then goes on ending, and `Force` kills it. `Force` does so too under the hands of a detach that
/// still waits, and itself waits for other operations no longer than five seconds.
pub fn detach_volume(call: &Call<'_>, request: DetachVolumeRequest) -> Result<VolumeAttachment, ServiceError> {
    settle::repair(call.home)?;
    run_steps(
        call,
        &record::DETACH_VOLUME,
        record::detach_request(&request),
        |draft| prepare_detach(call, &request, draft),
        |step: &mut Step<'_>, detached| {
            if !detached.ended {
                table::remove_attachment(step.tx, &detached.row.id)?;
                table::set_state(step.tx, &detached.row.id, State::Available)?;
                events::note(step.tx, step.now, &detached.row, Happened::Detached, &step.call.request_id)?;
            }
            let answer = describe::attachment(step.call, &detached.attachment, "detaching");
            step.draft.set_response(record::attachment_response(&step.call.request_id, &answer));
            Ok(answer)
        },
    )
}

fn prepare_detach(call: &Call<'_>, request: &DetachVolumeRequest, draft: &mut Draft) -> Result<Attached, ServiceError> {
    permission::check_attachment(call, "ec2:DetachVolume", &request.volume_id, request.instance_id.as_deref())?;
    let id = params::volume_id(&request.volume_id)?;
    let force = request.force.unwrap_or(false);
    let (lease, killed) =
        if force { lease_by_force(call, request, &id)? } else { (Lease::take(call.home, &id)?, None) };
    let mut ended = false;
    let (row, attachment) = call.home.write(|tx| {
        let row = describe::owned(tx, call, &id)?.ok_or_else(|| params::no_such_volume(&id))?;
        record::volume(draft, &row);
        let found = table::attachment(tx, &id)?;
        if let Some(killed) =
            killed.filter(|killed| found.as_ref().is_none_or(|found| found.grant_name != killed.grant_name))
        {
            record::instance(draft, &row, &killed);
            ended = true;
            return Ok((row, killed));
        }
        let Some(attachment) = found else {
            return Err(ServiceError::refused(
                "IncorrectState",
                format!("Volume '{id}' is in the '{}' state.", row.state.as_str()),
            ));
        };
        record::instance(draft, &row, &attachment);
        check_names(request, &attachment)?;
        params::dry_run(request.dry_run)?;
        table::put_attachment(tx, &AttachmentRow { state: "detaching".to_owned(), ..attachment.clone() })?;
        Ok((row, attachment))
    })?;
    if ended {
        return Ok(Attached { row, attachment, ended, _lease: lease.until_commit() });
    }
    match exporter::stop(call.home, &attachment, force) {
        Ok(None) => {}
        Ok(Some(told)) => settle::tell(call.home, &told)?,
        // The row stays as it is: whichever command comes after its end retires the grant.
        Err(Unstopped::Ending(error)) => return Err(error),
        Err(Unstopped::Failed(error)) => {
            call.home.write(|tx| table::put_attachment(tx, &attachment))?;
            return Err(error);
        }
    }
    if let Some(grant) = &attachment.grant_id {
        keys::retire(call.home, &row, grant, call.trace)?;
    }
    Ok(Attached { row, attachment, ended, _lease: lease.until_commit() })
}

/// How long a forced detach waits for another operation on the volume, and then for what it did to take effect.
const FORCE_PATIENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// The lease of a detach that does not wait its turn: an exporter that another detach waits for is killed, which ends that
/// detach as well. Answers the attachment whose exporter was killed.
fn lease_by_force(
    call: &Call<'_>,
    request: &DetachVolumeRequest,
    id: &VolumeId,
) -> Result<(Lease, Option<AttachmentRow>), ServiceError> {
    let [turn, effect] = FORCE_PATIENCE;
    if let Some(lease) = Lease::take_within(call.home, id, turn)? {
        return Ok((lease, None));
    }
    let attachment = call.home.read(|tx| {
        describe::owned(tx, call, id)?.ok_or_else(|| params::no_such_volume(id))?;
        Ok::<_, ServiceError>(table::attachment(tx, id)?)
    })?;
    let killed = match attachment.filter(|attachment| attachment.state == "detaching") {
        None => None,
        Some(attachment) => {
            check_names(request, &attachment)?;
            params::dry_run(request.dry_run)?;
            exporter::kill(call.home, id)?;
            Some(attachment)
        }
    };
    if let Some(lease) = Lease::take_within(call.home, id, effect)? {
        return Ok((lease, killed));
    }
    let what = if killed.is_some() {
        "its exporter was killed, and the detach that waited for it"
    } else {
        "another operation"
    };
    Err(ServiceError::refused(
        "IncorrectState",
        format!("Volume '{id}' is not detached: {what} has not ended for {} seconds. Try again.", effect.as_secs()),
    ))
}

/// Instance and device, where given, must be those of the attachment.
fn check_names(request: &DetachVolumeRequest, attachment: &AttachmentRow) -> Result<(), ServiceError> {
    let other = |given: &Option<String>, actual: &str| given.as_deref().is_some_and(|given| given != actual);
    if let Some(instance) = &request.instance_id {
        params::instance_id(instance)?;
    }
    if other(&request.instance_id, attachment.instance.as_str()) || other(&request.device, &attachment.device) {
        return Err(ServiceError::refused(
            "InvalidAttachment.NotFound",
            format!(
                "The volume '{}' is not attached to instance '{}' as device '{}'.",
                attachment.volume,
                request.instance_id.as_deref().unwrap_or(attachment.instance.as_str()),
                request.device.as_deref().unwrap_or(&attachment.device)
            ),
        ));
    }
    Ok(())
}
