//! Every attachment of a home at once: how many there are, and their end.

use std::time::{Duration, Instant};

use rusqlite::params;

use crate::export::control::{self, Change, ControlError};
use crate::export::{DeviceFault, Statistics};
use crate::gate::ServiceError;
use crate::ids::VolumeId;
use crate::store::{Home, StoreError};

use super::exporter::{self, Unstopped};
use super::table;

/// How many volumes are attached, as the state has it.
pub fn count_attached(home: &Home) -> Result<usize, ServiceError> {
    Ok(attached(home)?.len())
}

/// What the exporters of attached volumes did so far. One that is slow to answer is left out, and so are those behind it once
/// `patience` is over.
///
/// # Errors
/// If the state cannot be read.
pub fn traffic(home: &Home, patience: Duration) -> Result<Vec<(VolumeId, Statistics)>, ServiceError> {
    let deadline = Instant::now() + patience;
    let mut told = Vec::new();
    for id in attached(home)? {
        if Instant::now() < deadline
            && let Ok(status) = control::probe(home.dir(), &id)
        {
            told.push((id, status.statistics));
        }
    }
    Ok(told)
}

/// Ends the process of every attached volume, by force if one does not end by itself. The state is left as it is: this is for
/// a home that is thrown away, of which nothing may go on running.
///
/// # Errors
/// If one does not die.
pub fn end_all_exporters(home: &Home) -> Result<(), ServiceError> {
    for id in attached(home)? {
        let Some(attachment) = home.read(|tx| table::attachment(tx, &id))? else { continue };
        match exporter::stop(home, &attachment, true) {
            Ok(_) => {}
            Err(Unstopped::Ending(error) | Unstopped::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Orders a fault on an attached volume, or takes all of its faults away.
///
/// # Errors
/// `IncorrectState` (ours) if it is not attached: faults are its exporter's, and end with it.
pub fn order_fault(home: &Home, id: &VolumeId, fault: Option<DeviceFault>) -> Result<(), ServiceError> {
    match control::faults(home.dir(), id, fault.map_or(Change::Clear, Change::Set)) {
        Ok(_) => Ok(()),
        Err(ControlError::NobodyThere(_) | ControlError::Died(_)) => Err(ServiceError::refused(
            "IncorrectState",
            format!("Volume '{id}' is not attached: faults come over a volume while it is."),
        )),
        Err(error) => Err(ServiceError::machine(error)),
    }
}

/// The faults of every attached volume.
///
/// # Errors
/// That of the store; an exporter that does not answer has no faults to show.
pub fn ordered_faults(home: &Home) -> Result<Vec<(VolumeId, DeviceFault)>, ServiceError> {
    let mut found = Vec::new();
    for id in attached(home)? {
        let faults = control::faults(home.dir(), &id, Change::None).unwrap_or_default();
        found.extend(faults.into_iter().map(|fault| (id.clone(), fault)));
    }
    Ok(found)
}

/// Takes the faults of every attached volume away.
///
/// # Errors
/// If an exporter lives and does not answer.
pub fn clear_faults(home: &Home) -> Result<(), ServiceError> {
    for id in attached(home)? {
        match order_fault(home, &id, None) {
            Err(ServiceError::Refused(_)) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn attached(home: &Home) -> Result<Vec<VolumeId>, ServiceError> {
    let ids: Vec<String> = home.read(|tx| {
        let mut statement = tx.prepare_cached("SELECT volume_id FROM volume_attachments ORDER BY volume_id")?;
        let ids = statement.query_map(params![], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok::<_, StoreError>(ids)
    })?;
    ids.iter().map(|id| id.parse().map_err(ServiceError::machine)).collect()
}
