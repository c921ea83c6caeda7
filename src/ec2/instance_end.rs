//! The end of an instance: its volumes are detached, and those that go with it deleted. Also what a kill left of a launch or
//! of an end.

use crate::clock::Time;
use crate::gate::ServiceError;
use crate::ids::InstanceId;
use crate::store::{self, Home, Transaction};

use super::events::Happened;
use super::exporter::{self, Unstopped};
use super::instance::{self, InstanceRow, InstanceState};
use super::lease::Lease;
use super::table::{self, State};
use super::{disk, events, settle};

/// Which of an instance's volumes are deleted with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deleted {
    /// Those that are marked so.
    Marked,
    /// All: nobody was told of them.
    All,
}

/// Detaches the instance's volumes, as a machine that is switched off lets go of them, and deletes those that are meant. What
/// was flushed of one that stays is on disk; its exporter is asked to end first and killed if it does not.
///
/// Cut short anywhere it leaves attachments and volumes in `deleting`, which it, or the repair of volumes, finishes.
///
/// # Errors
/// If a process cannot be ended or a file not removed.
pub(super) fn empty(home: &Home, id: &InstanceId, deleted: Deleted) -> Result<(), ServiceError> {
    for attachment in home.read(|tx| table::attachments_of(tx, id))? {
        let volume = &attachment.volume;
        let _lease = Lease::take(home, volume)?;
        // They were another's a moment ago.
        let (row, attachment) =
            home.read(|tx| Ok::<_, ServiceError>((table::volume(tx, volume)?, table::attachment(tx, volume)?)))?;
        let (Some(row), Some(attachment)) = (row, attachment.filter(|found| found.instance == *id)) else { continue };
        let goes = deleted == Deleted::All || attachment.delete_on_termination;
        let told = match exporter::stop(home, &attachment, goes) {
            Err(Unstopped::Ending(_) | Unstopped::Failed(_)) if !goes => exporter::stop(home, &attachment, true),
            outcome => outcome,
        };
        match told {
            Ok(None) => {}
            Ok(Some(told)) => settle::tell(home, &told)?,
            Err(Unstopped::Ending(error) | Unstopped::Failed(error)) => return Err(error),
        }
        settle::end_attachment_in(
            home,
            &row,
            &attachment,
            if goes { State::Deleting } else { State::Available },
            None,
        )?;
        events::note_now(home, &row, Happened::Detached, "")?;
        if goes {
            disk::remove(home, volume)?;
            home.write(|tx| {
                events::note(tx, store::clock(tx)?.now(), &row, Happened::Deleted, "")?;
                table::remove(tx, volume)
            })?;
        }
    }
    Ok(())
}

/// Takes a launch back of which nobody was told: volumes, tokens, instance.
pub(super) fn withdraw(home: &Home, row: &InstanceRow) -> Result<(), ServiceError> {
    empty(home, &row.id, Deleted::All)?;
    Ok(home.write(|tx| {
        table::forget_tokens_of(tx, &row.reservation)?;
        instance::remove(tx, &row.id)
    })?)
}

/// Lets an instance whose volumes are let go be terminated from now on.
pub(super) fn finish(tx: &Transaction<'_>, row: InstanceRow, now: Time) -> Result<(), ServiceError> {
    instance::update(tx, &InstanceRow { due: Some(now), ..row })?;
    Ok(())
}

/// Finishes what a process was at when it was killed: a launch of which nobody was told is taken back, an end is completed.
pub(super) fn repair(home: &Home) -> Result<(), ServiceError> {
    for id in home.read(instance::passing)? {
        let Some(_lease) = Lease::try_take(home, &id)? else { continue };
        let Some(row) = home.read(|tx| instance::find(tx, &id))?.filter(|row| row.due.is_none()) else { continue };
        match row.state {
            InstanceState::Pending => {
                withdraw(home, &row)?;
                settle::tell(
                    home,
                    &format!("instance {id} was being launched when its command ended; it was taken away"),
                )?;
            }
            InstanceState::ShuttingDown => {
                empty(home, &id, Deleted::Marked)?;
                home.write(|tx| finish(tx, row, store::clock(tx)?.now()))?;
            }
            InstanceState::Running | InstanceState::Terminated => {}
        }
    }
    Ok(())
}
