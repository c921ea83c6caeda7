//! What a crash left behind, found by the next command and put right.
//!
//! A row in a passing state whose lease can be had belongs to a process that ended; an attached volume whose file nobody
//! holds has lost its exporter. Each case is finished in the direction that loses nothing: a volume that was never
//! answered is taken away, a deletion is completed, an attachment stands if its exporter does.

use crate::gate::{ServiceError, Trace};
use crate::ids::VolumeId;
use crate::kms;
use crate::store::{self, Home};
use crate::twin::{self, Protection};

use super::events::Happened;
use super::exporter::Sign;
use super::lease::Lease;
use super::table::{self, AttachmentRow, State, VolumeRow};
use super::{create, disk, events, exporter, instance, instance_end, keys, modify};

/// Looks at every volume that is not at rest. Runs at the start of every operation on volumes.
///
/// # Errors
/// If the state or a volume's file cannot be read or written.
pub fn repair(home: &Home) -> Result<(), ServiceError> {
    // What a scratch home knows of files and processes is its original's.
    if home.is_scratch() || twin::is_off(Protection::Repair) {
        return Ok(());
    }
    modify::finish_all(home)?;
    instance_end::repair(home)?;
    for id in home.read(table::restless)? {
        // Cheap first look without the lease: an attached volume whose exporter lives needs nothing.
        let attachment = home.read(|tx| table::attachment(tx, &id))?;
        if attachment.is_some_and(|attachment| attachment.state == "attached") && disk::is_held(home, &id)? {
            continue;
        }
        if let Some(_lease) = Lease::try_take(home, &id)? {
            repair_one(home, &id)?;
        }
    }
    Ok(())
}

/// Repairs one volume whose lease the caller holds. The rows are read again: they were another's a moment ago.
fn repair_one(home: &Home, id: &VolumeId) -> Result<(), ServiceError> {
    let (row, attachment) =
        home.read(|tx| Ok::<_, ServiceError>((table::volume(tx, id)?, table::attachment(tx, id)?)))?;
    let Some(row) = row else { return Ok(()) };
    if let Some(attachment) = &attachment
        && home.read(|tx| instance::is_passing(tx, &attachment.instance))?
    {
        // Whoever ends the instance, or its launch, knows what becomes of its volumes.
        return Ok(());
    }
    match (row.state, attachment) {
        (State::Creating, _) => {
            create::discard(home, id)?;
            tell(home, &format!("volume {id} was being made when its command ended; it was taken away"))
        }
        (State::Deleting, _) => {
            disk::remove(home, id)?;
            home.write(|tx| {
                events::note(tx, store::clock(tx)?.now(), &row, Happened::Deleted, "")?;
                table::remove(tx, id)
            })?;
            Ok(())
        }
        (State::InUse, Some(attachment)) => repair_attachment(home, &row, attachment),
        (State::InUse, None) => Ok(home.write(|tx| table::set_state(tx, id, State::Available))?),
        (State::Available, _) => Ok(()),
    }
}

fn repair_attachment(home: &Home, row: &VolumeRow, attachment: AttachmentRow) -> Result<(), ServiceError> {
    let id = &row.id;
    if disk::is_held(home, id)? {
        if attachment.state == "attached" {
            return Ok(());
        }
        let exporter = match exporter::sign_of(home, id) {
            // Its command ended after the exporter began to serve: the attachment stands.
            Sign::Serves(pid) => Some(pid),
            // So it does if nobody can tell; and a volume at rest is not asked again by every command.
            Sign::Silent => attachment.exporter,
            Sign::Ends | Sign::Nobody => return Ok(()),
        };
        let attachment = AttachmentRow { state: "attached".to_owned(), exporter, ..attachment };
        home.write(|tx| table::put_attachment(tx, &attachment))?;
        return Ok(());
    }
    let orphaned = exporter::is_alive(home, id)?;
    if orphaned && !exporter::end_orphan(home, id)? {
        return Ok(());
    }
    let process = attachment.exporter.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    let told = match attachment.state.as_str() {
        _ if orphaned => Some(format!(
            "the file of volume {id} was removed or replaced while it was attached; its exporter{process} was ended"
        )),
        "attached" => Some(format!(
            "the exporter of volume {id}{process} ended without a detach; what was flushed is on disk, the volume is \
             available again: blockseal ec2 attach-volume --volume-id {id}",
        )),
        _ => None,
    };
    if let Some(used) = exporter::let_go(home, id) {
        // Told once; whoever uses the device gets errors, and this is looked at again by every command.
        if attachment.state != "busy" {
            home.write(|tx| {
                table::put_attachment(tx, &AttachmentRow { state: "busy".to_owned(), ..attachment.clone() })
            })?;
            tell(
                home,
                &format!(
                    "the exporter of volume {id}{process} ended and its device gives only errors, but {used}; unmount it, or: \
                     blockseal ec2 detach-volume --force --volume-id {id}"
                ),
            )?;
        }
        return Ok(());
    }
    end_attachment(home, row, &attachment, None)?;
    told.map_or(Ok(()), |text| tell(home, &text))
}

/// Takes an attachment away whose exporter is gone: retires its grant, then the row.
pub(super) fn end_attachment(
    home: &Home,
    row: &VolumeRow,
    attachment: &AttachmentRow,
    trace: Option<&Trace>,
) -> Result<(), ServiceError> {
    end_attachment_in(home, row, attachment, State::Available, trace)
}

/// As [`end_attachment`], with the state in which the volume is afterwards.
pub(super) fn end_attachment_in(
    home: &Home,
    row: &VolumeRow,
    attachment: &AttachmentRow,
    state: State,
    trace: Option<&Trace>,
) -> Result<(), ServiceError> {
    let grant = match (&attachment.grant_id, &row.encryption) {
        (Some(id), _) => Some(id.clone()),
        (None, Some(encryption)) => {
            home.read(|tx| kms::grant_named(tx, &encryption.key_arn, &attachment.grant_name))?
        }
        (None, None) => None,
    };
    if let Some(grant) = grant {
        keys::retire(home, row, &grant, trace)?;
    }
    exporter::clear(home, &row.id)?;
    home.write(|tx| {
        table::remove_attachment(tx, &row.id)?;
        table::set_state(tx, &row.id, state)?;
        Ok(())
    })
}

/// Ends an exporter that a failed `AttachVolume` may have left running, as far as that can be done: the attachment that
/// bears this call's grant name, and no other that came before or after.
pub(super) fn withdraw(home: &Home, id: &VolumeId, grant_name: &str) {
    let Ok(_lease) = Lease::take(home, id) else { return };
    let found = home.read(|tx| Ok::<_, ServiceError>((table::volume(tx, id)?, table::attachment(tx, id)?)));
    if let Ok((Some(row), Some(attachment))) = found
        && attachment.grant_name == grant_name
        && exporter::stop(home, &attachment, true).is_ok()
    {
        // What fails here is found by the next command.
        let _ = end_attachment(home, &row, &attachment, None);
    }
}

pub(super) fn tell(home: &Home, text: &str) -> Result<(), ServiceError> {
    home.write(|tx| {
        let now = store::clock(tx)?.now();
        table::notice(tx, now, text)?;
        Ok(())
    })
}

/// What was found out of order and put right since this was last asked; each is told once.
pub fn take_notices(home: &Home) -> Result<Vec<String>, ServiceError> {
    let waiting = home.read(table::has_notices)?;
    if waiting { Ok(home.write(table::take_notices)?) } else { Ok(Vec::new()) }
}
