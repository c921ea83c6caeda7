//! Modifications of volumes as `state.db` has them, and their states as they fall due.
//!
//! One is `modifying` while its command is at it: the volume's file grows. It is `optimizing` from the commit on, and
//! `completed` by the home's clock. How long that takes AWS says of one case, six hours for a full TiB (EBS user guide,
//! "Monitor the progress of volume modifications"); that the time follows the size is *assumed*.

use jiff::SignedDuration;
use rusqlite::{OptionalExtension as _, Row, params};

use crate::clock::Time;
use crate::gate::{ServiceError, Settled, Settler};
use crate::ids::VolumeId;
use crate::store::{Home, StoreError, Transaction};

use super::events::{self, Happened};
use super::table::{self, VolumeRow, parsed, time};

/// The completion of modifications.
pub(super) const SETTLER: Settler = Settler { next_due, settle_one };

/// Within this time a volume can be modified so often (EBS user guide, "Limitations for EBS volume modifications").
const PERIOD: SignedDuration = SignedDuration::from_hours(24);

/// How often.
pub(super) const MOST: usize = 4;

/// The states that `DescribeVolumesModifications` shows; `failed` is none here: what fails is refused at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ModificationState {
    Modifying,
    Optimizing,
    Completed,
}

impl ModificationState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Modifying => "modifying",
            Self::Optimizing => "optimizing",
            Self::Completed => "completed",
        }
    }
}

/// What a modification can change. Size in GiB, throughput in MiB per second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Form {
    pub(super) size: i64,
    pub(super) volume_type: String,
    pub(super) iops: Option<i64>,
    pub(super) throughput: Option<i64>,
}

impl Form {
    pub(super) fn of(row: &VolumeRow) -> Self {
        Self { size: row.size, volume_type: row.volume_type.clone(), iops: row.iops, throughput: row.throughput }
    }
}

/// A modification's row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ModificationRow {
    pub(super) seq: i64,
    pub(super) volume: VolumeId,
    pub(super) state: ModificationState,
    pub(super) from: Form,
    pub(super) to: Form,
    pub(super) started: Time,
    /// When it is completed.
    pub(super) due: Option<Time>,
    pub(super) ended: Option<Time>,
    /// The call that asked for it.
    pub(super) request_id: String,
}

impl ModificationRow {
    /// How far it is at `now`, in percent.
    pub(super) fn progress(&self, now: Time) -> i64 {
        match (self.state, self.due) {
            (ModificationState::Completed, _) => 100,
            (ModificationState::Optimizing, Some(due)) => {
                let passed = (now.micros() - self.started.micros()).max(0);
                let whole = (due.micros() - self.started.micros()).max(1);
                (passed.saturating_mul(100) / whole).clamp(0, 99)
            }
            _ => 0,
        }
    }
}

/// How long a volume of `size` GiB is optimised.
fn optimising(size: i64) -> SignedDuration {
    SignedDuration::from_millis(size.saturating_mul(6 * 3_600_000) / 1024)
}

const COLUMNS: &str = "seq, volume_id, state, from_size, from_type, from_iops, from_throughput, to_size, to_type, to_iops, \
    to_throughput, started, due, ended, request_id";

fn modification_of(row: &Row<'_>) -> rusqlite::Result<ModificationRow> {
    let state = match row.get_ref(2)?.as_str()? {
        "modifying" => ModificationState::Modifying,
        "optimizing" => ModificationState::Optimizing,
        _ => ModificationState::Completed,
    };
    let form = |first: usize| {
        Ok::<_, rusqlite::Error>(Form {
            size: row.get(first)?,
            volume_type: row.get(first + 1)?,
            iops: row.get(first + 2)?,
            throughput: row.get(first + 3)?,
        })
    };
    let point =
        |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.and_then(Time::from_micros));
    Ok(ModificationRow {
        seq: row.get(0)?,
        volume: parsed(row, 1)?,
        state,
        from: form(3)?,
        to: form(7)?,
        started: time(row, 11)?,
        due: point(12)?,
        ended: point(13)?,
        request_id: row.get(14)?,
    })
}

/// Notes that a modification begins: from here on a crash leaves something for the repair to find. Answers its row.
pub(super) fn begin(
    tx: &Transaction<'_>,
    row: &VolumeRow,
    to: &Form,
    now: Time,
    request_id: &str,
) -> Result<ModificationRow, StoreError> {
    let from = Form::of(row);
    tx.prepare_cached(
        "INSERT INTO volume_modifications (volume_id, state, from_size, from_type, from_iops, from_throughput, to_size,
                                           to_type, to_iops, to_throughput, started, request_id)
         VALUES (?1, 'modifying', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        row.id.as_str(),
        from.size,
        from.volume_type,
        from.iops,
        from.throughput,
        to.size,
        to.volume_type,
        to.iops,
        to.throughput,
        now.micros(),
        request_id,
    ])?;
    Ok(ModificationRow {
        seq: tx.last_insert_rowid(),
        volume: row.id.clone(),
        state: ModificationState::Modifying,
        from,
        to: to.clone(),
        started: now,
        due: None,
        ended: None,
        request_id: request_id.to_owned(),
    })
}

/// The file is as long as it is to be: so is the volume's row from now on. Answers whether the modification was there.
pub(super) fn take_effect(
    tx: &Transaction<'_>,
    row: &VolumeRow,
    modification: &ModificationRow,
    now: Time,
) -> Result<bool, StoreError> {
    let changed = tx
        .prepare_cached(
            "UPDATE volume_modifications SET state = 'optimizing', due = ?2 WHERE seq = ?1 AND state = 'modifying'",
        )?
        .execute(params![modification.seq, now.after(optimising(modification.to.size)).micros()])?;
    if changed == 0 {
        return Ok(false);
    }
    let to = &modification.to;
    tx.prepare_cached("UPDATE volumes SET size_gib = ?2, volume_type = ?3, iops = ?4, throughput = ?5 WHERE id = ?1")?
        .execute(params![row.id.as_str(), to.size, to.volume_type, to.iops, to.throughput])?;
    // Nobody asks for those of long ago, but for the last of each volume.
    tx.prepare_cached("DELETE FROM volume_modifications WHERE volume_id = ?1 AND seq < ?2 AND started < ?3")?
        .execute(params![row.id.as_str(), modification.seq, now.after(-PERIOD).micros()])?;
    events::note(tx, now, row, Happened::Optimizing, &modification.request_id)?;
    Ok(true)
}

/// Takes a modification back that did not come to be.
pub(super) fn forget(tx: &Transaction<'_>, modification: &ModificationRow) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM volume_modifications WHERE seq = ?1")?.execute([modification.seq])?;
    Ok(())
}

/// The last modification of the volume.
pub(super) fn last_of(tx: &Transaction<'_>, id: &VolumeId) -> Result<Option<ModificationRow>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM volume_modifications WHERE volume_id = ?1 ORDER BY seq DESC LIMIT 1"
    ))?;
    Ok(statement.query_row([id.as_str()], modification_of).optional()?)
}

/// The modification that is being made to the volume, or was when its process was killed.
pub(super) fn begun(tx: &Transaction<'_>, id: &VolumeId) -> Result<Option<ModificationRow>, StoreError> {
    Ok(last_of(tx, id)?.filter(|last| last.state == ModificationState::Modifying))
}

/// The volumes to which that is happening, in every account and Region.
pub(super) fn all_begun(tx: &Transaction<'_>) -> Result<Vec<VolumeId>, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT volume_id FROM volume_modifications WHERE state = 'modifying' ORDER BY volume_id")?;
    let rows = statement.query_map([], |row| parsed(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How often the volume was modified within the last day.
pub(super) fn recent(tx: &Transaction<'_>, id: &VolumeId, now: Time) -> Result<usize, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT count(*) FROM volume_modifications WHERE volume_id = ?1 AND started > ?2")?;
    let count: i64 = statement.query_row(params![id.as_str(), now.after(-PERIOD).micros()], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn next_due(tx: &Transaction<'_>) -> Result<Option<Time>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT min(due) FROM volume_modifications WHERE due IS NOT NULL")?;
    Ok(statement.query_row([], |row| row.get::<_, Option<i64>>(0))?.and_then(Time::from_micros))
}

fn settle_one(_: &Home, tx: &Transaction<'_>, due: Time) -> Result<Settled, ServiceError> {
    let mut statement =
        tx.prepare_cached(&format!("SELECT {COLUMNS} FROM volume_modifications WHERE due = ?1 ORDER BY seq LIMIT 1"))?;
    let Some(found) = statement.query_row([due.micros()], modification_of).optional()? else {
        return Ok(Settled::Done);
    };
    tx.prepare_cached("UPDATE volume_modifications SET state = 'completed', due = NULL, ended = ?2 WHERE seq = ?1")?
        .execute([found.seq, due.micros()])?;
    if let Some(row) = table::volume(tx, &found.volume)? {
        events::note(tx, due, &row, Happened::Completed, &found.request_id)?;
    }
    Ok(Settled::Done)
}
