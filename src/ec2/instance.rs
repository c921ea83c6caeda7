//! Launched instances as `state.db` has them, and their states as they fall due.
//!
//! An instance has no machine: it owns attachments. Its states follow one another when they are due by the home's clock,
//! which is at once but for the hour in which a terminated one is still shown (EC2 user guide, "Terminate Amazon EC2
//! instances").

use jiff::SignedDuration;
use rusqlite::{OptionalExtension as _, Row, params};

use crate::clock::Time;
use crate::gate::{Call, ServiceError, Settled, Settler};
use crate::ids::{AccountId, InstanceId, Region};
use crate::kms;
use crate::store::{Home, StoreError, Transaction};

use super::modification;
use super::params as words;
use super::table::{self, VolumeRow, parsed, time};
use super::types::Tag;

/// What is due by the clock in EC2, and in KMS, which it calls.
pub static SETTLERS: &[Settler] = &WITH_OURS;

const WITH_OURS: [Settler; kms::SETTLERS.len() + 2] = {
    let mut all = [INSTANCES; kms::SETTLERS.len() + 2];
    all[kms::SETTLERS.len() + 1] = modification::SETTLER;
    let mut index = 0;
    while index < kms::SETTLERS.len() {
        all[index] = kms::SETTLERS[index];
        index += 1;
    }
    all
};

const INSTANCES: Settler = Settler { next_due, settle_one };

/// How long a terminated instance is shown.
const SHOWN: SignedDuration = SignedDuration::from_hours(1);

/// The states of an instance, with the codes that the API has for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InstanceState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
}

impl InstanceState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    pub(super) const fn code(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
        }
    }
}

/// Why an instance is in its state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reason {
    pub(super) code: String,
    pub(super) message: String,
}

impl Reason {
    /// A reason whose message repeats its code, as EC2's do.
    pub(super) fn new(code: &str, message: &str) -> Self {
        Self { code: code.to_owned(), message: format!("{code}: {message}") }
    }
}

/// An instance's row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct InstanceRow {
    pub(super) id: InstanceId,
    pub(super) account: AccountId,
    pub(super) region: Region,
    pub(super) zone: String,
    pub(super) reservation: String,
    pub(super) launch_index: i64,
    pub(super) image_id: String,
    pub(super) instance_type: String,
    pub(super) key_name: Option<String>,
    pub(super) ebs_optimized: bool,
    pub(super) client_token: String,
    pub(super) state: InstanceState,
    /// Why it ends or ended; of a pending one, why it will.
    pub(super) reason: Option<Reason>,
    pub(super) transition_reason: String,
    pub(super) launched: Time,
    /// When its next state is due; `None` at rest, and while an operation is at it.
    pub(super) due: Option<Time>,
}

const COLUMNS: &str = "id, account, region, zone, reservation, launch_index, image_id, instance_type, key_name, \
    ebs_optimized, client_token, state, reason_code, reason_message, transition_reason, launched, due";

fn instance_of(row: &Row<'_>) -> rusqlite::Result<InstanceRow> {
    let state = match row.get_ref(11)?.as_str()? {
        "pending" => InstanceState::Pending,
        "running" => InstanceState::Running,
        "shutting-down" => InstanceState::ShuttingDown,
        _ => InstanceState::Terminated,
    };
    let reason = match row.get::<_, Option<String>>(12)? {
        None => None,
        Some(code) => Some(Reason { code, message: row.get::<_, Option<String>>(13)?.unwrap_or_default() }),
    };
    Ok(InstanceRow {
        id: parsed(row, 0)?,
        account: parsed(row, 1)?,
        region: parsed(row, 2)?,
        zone: row.get(3)?,
        reservation: row.get(4)?,
        launch_index: row.get(5)?,
        image_id: row.get(6)?,
        instance_type: row.get(7)?,
        key_name: row.get(8)?,
        ebs_optimized: row.get(9)?,
        client_token: row.get(10)?,
        state,
        reason,
        transition_reason: row.get(14)?,
        launched: time(row, 15)?,
        due: row.get::<_, Option<i64>>(16)?.and_then(Time::from_micros),
    })
}

pub(super) fn insert(tx: &Transaction<'_>, row: &InstanceRow, tags: &[Tag]) -> Result<(), StoreError> {
    tx.prepare_cached(&format!(
        "INSERT INTO instances ({COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
    ))?
    .execute(params![
        row.id.as_str(),
        row.account.as_str(),
        row.region.as_str(),
        row.zone,
        row.reservation,
        row.launch_index,
        row.image_id,
        row.instance_type,
        row.key_name,
        row.ebs_optimized,
        row.client_token,
        row.state.name(),
        row.reason.as_ref().map(|reason| &reason.code),
        row.reason.as_ref().map(|reason| &reason.message),
        row.transition_reason,
        row.launched.micros(),
        row.due.map(Time::micros),
    ])?;
    for tag in tags {
        tx.prepare_cached("INSERT INTO instance_tags (instance_id, key, value) VALUES (?1, ?2, ?3)")?.execute([
            row.id.as_str(),
            &tag.key,
            &tag.value,
        ])?;
    }
    Ok(())
}

/// Writes what changes in an instance's life. Answers whether its row was there.
pub(super) fn update(tx: &Transaction<'_>, row: &InstanceRow) -> Result<bool, StoreError> {
    let changed = tx
        .prepare_cached(
            "UPDATE instances SET state = ?2, reason_code = ?3, reason_message = ?4, transition_reason = ?5, due = ?6
             WHERE id = ?1",
        )?
        .execute(params![
            row.id.as_str(),
            row.state.name(),
            row.reason.as_ref().map(|reason| &reason.code),
            row.reason.as_ref().map(|reason| &reason.message),
            row.transition_reason,
            row.due.map(Time::micros),
        ])?;
    Ok(changed == 1)
}

/// The instance, whoever owns it.
pub(super) fn find(tx: &Transaction<'_>, id: &InstanceId) -> Result<Option<InstanceRow>, StoreError> {
    let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM instances WHERE id = ?1"))?;
    Ok(statement.query_row([id.as_str()], instance_of).optional()?)
}

/// The instance, if it is the caller's account's in the call's Region.
pub(super) fn owned(tx: &Transaction<'_>, call: &Call<'_>, id: &InstanceId) -> Result<Option<InstanceRow>, StoreError> {
    Ok(find(tx, id)?.filter(|row| row.account == call.account && row.region == call.region))
}

/// Every instance of the account in the Region, oldest first.
pub(super) fn all_of(tx: &Transaction<'_>, call: &Call<'_>) -> Result<Vec<InstanceRow>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM instances WHERE account = ?1 AND region = ?2 ORDER BY launched, launch_index, id"
    ))?;
    let rows = statement.query_map([call.account.as_str(), call.region.as_str()], instance_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn tags_of(tx: &Transaction<'_>, id: &InstanceId) -> Result<Vec<Tag>, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT key, value FROM instance_tags WHERE instance_id = ?1 ORDER BY key")?;
    let rows = statement.query_map([id.as_str()], |row| Ok(Tag { key: row.get(0)?, value: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn remove(tx: &Transaction<'_>, id: &InstanceId) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM instances WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

const IN_PASSING: &str = "due IS NULL AND state IN ('pending', 'shutting-down')";

/// The instances that some process is launching or ending, or was when it was killed.
pub(super) fn passing(tx: &Transaction<'_>) -> Result<Vec<InstanceId>, StoreError> {
    let mut statement = tx.prepare_cached(&format!("SELECT id FROM instances WHERE {IN_PASSING}"))?;
    let rows = statement.query_map([], |row| parsed(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether that is so of this instance.
pub(super) fn is_passing(tx: &Transaction<'_>, id: &InstanceId) -> Result<bool, StoreError> {
    Ok(tx.prepare_cached(&format!("SELECT 1 FROM instances WHERE id = ?1 AND {IN_PASSING}"))?.exists([id.as_str()])?)
}

/// The instance that a volume is to be attached to: this machine's if none is named, else a running one in the volume's zone.
pub(super) fn to_attach_to(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    given: Option<&str>,
    volume: &VolumeRow,
) -> Result<InstanceId, ServiceError> {
    let this = table::this_instance(tx)?;
    let Some(given) = given.map(words::instance_id).transpose()?.filter(|given| *given != this) else {
        return Ok(this);
    };
    let Some(row) = owned(tx, call, &given)? else {
        let hint = format!("this machine is instance {this}; --instance-id may be left out");
        return Err(words::no_such_instance(&given).with_hint(hint));
    };
    if row.state != InstanceState::Running {
        return Err(ServiceError::refused("IncorrectState", format!("Instance '{given}' is not 'running'.")));
    }
    if row.zone != volume.zone {
        return Err(ServiceError::refused(
            "InvalidVolume.ZoneMismatch",
            format!("The volume '{}' is not in the same availability zone as instance '{given}'", volume.id),
        ));
    }
    Ok(given)
}

fn next_due(tx: &Transaction<'_>) -> Result<Option<Time>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT min(due) FROM instances WHERE due IS NOT NULL")?;
    Ok(statement.query_row([], |row| row.get::<_, Option<i64>>(0))?.and_then(Time::from_micros))
}

fn settle_one(_: &Home, tx: &Transaction<'_>, due: Time) -> Result<Settled, ServiceError> {
    let mut statement =
        tx.prepare_cached(&format!("SELECT {COLUMNS} FROM instances WHERE due = ?1 ORDER BY id LIMIT 1"))?;
    let Some(row) = statement.query_row([due.micros()], instance_of).optional()? else { return Ok(Settled::Done) };
    let (state, due) = match row.state {
        InstanceState::Pending if row.reason.is_some() => (InstanceState::ShuttingDown, Some(due)),
        InstanceState::Pending | InstanceState::Running => (InstanceState::Running, None),
        InstanceState::ShuttingDown => (InstanceState::Terminated, Some(due.after(SHOWN))),
        InstanceState::Terminated => {
            remove(tx, &row.id)?;
            return Ok(Settled::Done);
        }
    };
    update(tx, &InstanceRow { state, due, ..row })?;
    Ok(Settled::Done)
}
