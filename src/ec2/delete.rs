//! `DeleteVolume`.

use crate::gate::{Call, Draft, ServiceError, Step, run_steps};
use crate::ids::VolumeId;

use super::events::Happened;
use super::lease::Lease;
use super::table::{self, State, VolumeRow};
use super::types::{DeleteVolumeRequest, NoResult};
use super::{describe, disk, events, params, permission, record, settle};

/// Deletes a volume that is not attached, and its file.
pub fn delete_volume(call: &Call<'_>, request: DeleteVolumeRequest) -> Result<NoResult, ServiceError> {
    settle::repair(call.home)?;
    run_steps(
        call,
        &record::DELETE_VOLUME,
        record::delete_request(&request),
        |draft| prepare(call, &request, draft),
        |step: &mut Step<'_>, deleted| {
            table::remove(step.tx, &deleted.row.id)?;
            events::note(step.tx, step.now, &deleted.row, Happened::Deleted, &call.request_id)?;
            step.draft.set_response(record::done(&call.request_id));
            Ok(NoResult {})
        },
    )
}

struct Deleted {
    row: VolumeRow,
    _lease: Option<Lease>,
}

/// Marks the row and removes the file. A crash from here on leaves a row in `deleting`, which `settle` finishes.
fn prepare(call: &Call<'_>, request: &DeleteVolumeRequest, draft: &mut Draft) -> Result<Deleted, ServiceError> {
    permission::check(call, "ec2:DeleteVolume", &[permission::volume(call, &request.volume_id)])?;
    let id = params::volume_id(&request.volume_id)?;
    let lease = Lease::take(call.home, &id)?;
    let row = call.home.write(|tx| {
        let row = describe::owned(tx, call, &id)?.ok_or_else(|| params::no_such_volume(&id))?;
        record::volume(draft, &row);
        if let Some(attachment) = table::attachment(tx, &id)? {
            return Err(ServiceError::refused(
                "VolumeInUse",
                format!("Volume {id} is currently attached to {}", attachment.instance),
            )
            .with_hint(format!("blockseal ec2 detach-volume --volume-id {id}")));
        }
        if row.state != State::Available {
            return Err(not_available(&id));
        }
        params::dry_run(request.dry_run)?;
        if disk::is_held(call.home, &id)? {
            return Err(ServiceError::refused("VolumeInUse", format!("Volume {id} is in use by another command")));
        }
        table::set_state(tx, &id, State::Deleting)?;
        Ok(row)
    })?;
    disk::remove(call.home, &id)?;
    Ok(Deleted { row, _lease: lease.until_commit() })
}

pub(super) fn not_available(id: &VolumeId) -> ServiceError {
    ServiceError::refused("IncorrectState", format!("{id} is not 'available'."))
}
