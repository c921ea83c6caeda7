//! Volumes and attachments as `state.db` has them.

use rusqlite::{OptionalExtension as _, Row, params};

use crate::clock::Time;
use crate::ids::{AccountId, DbiResourceId, InstanceId, Region, VolumeId};
use crate::store::{StoreError, Transaction, set_setting, setting};
use crate::units::{GIB, SectorSize};

use super::lineage::Lineage;
use super::types::Tag;

/// The states that `DescribeVolumes` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Creating,
    Available,
    InUse,
    Deleting,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::InUse => "in-use",
            Self::Deleting => "deleting",
        }
    }
}

/// What encrypts a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encryption {
    pub(super) key_arn: String,
    pub(super) sector_size: SectorSize,
}

/// A volume's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VolumeRow {
    pub(super) id: VolumeId,
    pub(super) account: AccountId,
    pub(super) region: Region,
    pub(super) zone: String,
    pub(super) state: State,
    pub(super) size: i64,
    pub(super) volume_type: String,
    pub(super) iops: Option<i64>,
    pub(super) throughput: Option<i64>,
    pub(super) encryption: Option<Encryption>,
    pub(super) db: Option<DbiResourceId>,
    pub(super) created: Time,
}

impl VolumeRow {
    /// Its length in bytes: at most 64 TiB.
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.size).unwrap_or_default().saturating_mul(GIB)
    }
}

/// An attachment's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttachmentRow {
    pub(super) volume: VolumeId,
    pub(super) instance: InstanceId,
    pub(super) device: String,
    pub(super) state: String,
    pub(super) attached_at: Time,
    pub(super) grant_name: String,
    pub(super) grant_id: Option<String>,
    pub(super) exporter: Option<i64>,
    pub(super) delete_on_termination: bool,
}

const VOLUME_COLUMNS: &str = "id, account, region, zone, state, size_gib, volume_type, iops, throughput, kms_key_arn, sector_size, db_id, created_at";

/// A value in a row that this program never writes there: the file was changed by something else.
fn foreign(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err = crate::ids::IdError>,
{
    row.get_ref(column)?.as_str()?.parse().map_err(|error| foreign(column, error))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Time> {
    let micros = row.get(column)?;
    Time::from_micros(micros).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, micros))
}

fn volume_of(row: &Row<'_>) -> rusqlite::Result<VolumeRow> {
    let state = match row.get_ref(4)?.as_str()? {
        "creating" => State::Creating,
        "available" => State::Available,
        "in-use" => State::InUse,
        _ => State::Deleting,
    };
    let encryption = match row.get::<_, Option<String>>(9)? {
        None => None,
        Some(key_arn) => {
            let bytes: i64 = row.get(10)?;
            let sector_size = u64::try_from(bytes)
                .ok()
                .and_then(SectorSize::from_bytes)
                .ok_or(rusqlite::Error::IntegralValueOutOfRange(10, bytes))?;
            Some(Encryption { key_arn, sector_size })
        }
    };
    let db = match row.get_ref(11)?.as_str_or_null()? {
        None => None,
        Some(text) => Some(text.parse().map_err(|error: crate::ids::IdError| foreign(11, error))?),
    };
    Ok(VolumeRow {
        id: parsed(row, 0)?,
        account: parsed(row, 1)?,
        region: parsed(row, 2)?,
        zone: row.get(3)?,
        state,
        size: row.get(5)?,
        volume_type: row.get(6)?,
        iops: row.get(7)?,
        throughput: row.get(8)?,
        encryption,
        db,
        created: time(row, 12)?,
    })
}

fn attachment_of(row: &Row<'_>) -> rusqlite::Result<AttachmentRow> {
    Ok(AttachmentRow {
        volume: parsed(row, 0)?,
        instance: parsed(row, 1)?,
        device: row.get(2)?,
        state: row.get(3)?,
        attached_at: time(row, 4)?,
        grant_name: row.get(5)?,
        grant_id: row.get(6)?,
        exporter: row.get(7)?,
        delete_on_termination: row.get(8)?,
    })
}

pub(super) fn insert(tx: &Transaction<'_>, volume: &VolumeRow, tags: &[Tag]) -> Result<(), StoreError> {
    let (key_arn, sector_size) = match &volume.encryption {
        None => (None, None),
        Some(encryption) => (Some(&encryption.key_arn), i64::try_from(encryption.sector_size.bytes()).ok()),
    };
    tx.prepare_cached(&format!(
        "INSERT INTO volumes ({VOLUME_COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)"
    ))?
    .execute(params![
        volume.id.as_str(),
        volume.account.as_str(),
        volume.region.as_str(),
        volume.zone,
        volume.state.as_str(),
        volume.size,
        volume.volume_type,
        volume.iops,
        volume.throughput,
        key_arn,
        sector_size,
        volume.db.as_ref().map(DbiResourceId::as_str),
        volume.created.micros(),
    ])?;
    for tag in tags {
        tx.prepare_cached("INSERT INTO volume_tags (volume_id, key, value) VALUES (?1, ?2, ?3)")?.execute(params![
            volume.id.as_str(),
            tag.key,
            tag.value
        ])?;
    }
    Ok(())
}

/// The volume, whoever owns it.
pub(super) fn volume(tx: &Transaction<'_>, id: &VolumeId) -> Result<Option<VolumeRow>, StoreError> {
    let mut statement = tx.prepare_cached(&format!("SELECT {VOLUME_COLUMNS} FROM volumes WHERE id = ?1"))?;
    Ok(statement.query_row([id.as_str()], volume_of).optional()?)
}

/// Every volume of the account in the Region, oldest first.
pub(super) fn volumes_of(
    tx: &Transaction<'_>,
    account: &AccountId,
    region: &Region,
) -> Result<Vec<VolumeRow>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {VOLUME_COLUMNS} FROM volumes WHERE account = ?1 AND region = ?2 ORDER BY created_at, id"
    ))?;
    let rows = statement.query_map([account.as_str(), region.as_str()], volume_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Volumes whose data key is wrapped under the key of that ARN, in every account and Region.
pub(super) fn volumes_under(tx: &Transaction<'_>, key_arn: &str) -> Result<Vec<VolumeRow>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {VOLUME_COLUMNS} FROM volumes WHERE kms_key_arn = ?1 ORDER BY created_at, id"
    ))?;
    let rows = statement.query_map([key_arn], volume_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Volumes that are not at rest, in every account and Region: those that a crash can have left behind.
pub(super) fn restless(tx: &Transaction<'_>) -> Result<Vec<VolumeId>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT id FROM volumes WHERE state <> 'available'")?;
    let rows = statement.query_map([], |row| parsed(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn tags_of(tx: &Transaction<'_>, id: &VolumeId) -> Result<Vec<Tag>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT key, value FROM volume_tags WHERE volume_id = ?1 ORDER BY key")?;
    let rows = statement.query_map([id.as_str()], |row| Ok(Tag { key: row.get(0)?, value: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn set_state(tx: &Transaction<'_>, id: &VolumeId, state: State) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE volumes SET state = ?2 WHERE id = ?1")?.execute([id.as_str(), state.as_str()])?;
    Ok(())
}

/// Removes the volume's row, and its lineage's if nothing else is of that lineage.
pub(super) fn remove(tx: &Transaction<'_>, id: &VolumeId) -> Result<(), StoreError> {
    let lineage = lineage_of(tx, id)?;
    tx.prepare_cached("DELETE FROM volumes WHERE id = ?1")?.execute([id.as_str()])?;
    if let Some(lineage) = lineage {
        tx.prepare_cached(
            "DELETE FROM lineages WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM volumes WHERE lineage = lineages.id)",
        )?
        .execute([lineage.id])?;
    }
    Ok(())
}

/// The volume's lineage; `None` if it is not encrypted or not made yet.
pub(super) fn lineage_of(tx: &Transaction<'_>, id: &VolumeId) -> Result<Option<Lineage>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT lineages.id, manifest_key FROM volumes JOIN lineages ON lineages.id = volumes.lineage WHERE volumes.id = ?1",
    )?;
    let lineage = |row: &Row<'_>| Ok(Lineage { id: row.get(0)?, sealed: row.get(1)? });
    Ok(statement.query_row([id.as_str()], lineage).optional()?)
}

const ATTACHMENT_COLUMNS: &str =
    "volume_id, instance_id, device, state, attached_at, grant_name, grant_id, exporter, delete_on_termination";

pub(super) fn attachment(tx: &Transaction<'_>, id: &VolumeId) -> Result<Option<AttachmentRow>, StoreError> {
    let mut statement =
        tx.prepare_cached(&format!("SELECT {ATTACHMENT_COLUMNS} FROM volume_attachments WHERE volume_id = ?1"))?;
    Ok(statement.query_row([id.as_str()], attachment_of).optional()?)
}

pub(super) fn put_attachment(tx: &Transaction<'_>, attachment: &AttachmentRow) -> Result<(), StoreError> {
    tx.prepare_cached(&format!(
        "INSERT INTO volume_attachments ({ATTACHMENT_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (volume_id) DO UPDATE SET state = excluded.state, grant_id = excluded.grant_id, exporter = excluded.exporter"
    ))?
    .execute(params![
        attachment.volume.as_str(),
        attachment.instance.as_str(),
        attachment.device,
        attachment.state,
        attachment.attached_at.micros(),
        attachment.grant_name,
        attachment.grant_id,
        attachment.exporter,
        attachment.delete_on_termination,
    ])?;
    Ok(())
}

pub(super) fn remove_attachment(tx: &Transaction<'_>, id: &VolumeId) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM volume_attachments WHERE volume_id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// The instance's attachments, in the order of their device names.
pub(super) fn attachments_of(tx: &Transaction<'_>, instance: &InstanceId) -> Result<Vec<AttachmentRow>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {ATTACHMENT_COLUMNS} FROM volume_attachments WHERE instance_id = ?1 ORDER BY device"
    ))?;
    let rows = statement.query_map([instance.as_str()], attachment_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Device names in use at the instance.
pub(super) fn devices_of(tx: &Transaction<'_>, instance: &InstanceId) -> Result<Vec<String>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT device FROM volume_attachments WHERE instance_id = ?1")?;
    let rows = statement.query_map([instance.as_str()], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

const INSTANCE_ID: &str = "instance_id";

/// The instance that stands for this machine, made at first use.
pub(super) fn this_instance(tx: &Transaction<'_>) -> Result<InstanceId, StoreError> {
    if let Some(id) = setting(tx, INSTANCE_ID)?.and_then(|text| text.parse().ok()) {
        return Ok(id);
    }
    let id = InstanceId::random();
    set_setting(tx, INSTANCE_ID, id.as_str())?;
    Ok(id)
}

/// What a client token was used for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenUse {
    pub(super) request: String,
    pub(super) resource: String,
}

/// Which token of which operation in which account and Region.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenKey<'a> {
    pub(super) account: &'a AccountId,
    pub(super) region: &'a Region,
    pub(super) operation: &'a str,
    pub(super) token: &'a str,
}

impl TokenKey<'_> {
    fn columns(&self) -> [&str; 4] {
        [self.account.as_str(), self.region.as_str(), self.operation, self.token]
    }

    pub(super) fn used(&self, tx: &Transaction<'_>) -> Result<Option<TokenUse>, StoreError> {
        let mut statement = tx.prepare_cached(
            "SELECT request, resource FROM ec2_client_tokens
             WHERE account = ?1 AND region = ?2 AND operation = ?3 AND token = ?4",
        )?;
        let found = statement
            .query_row(self.columns(), |row| Ok(TokenUse { request: row.get(0)?, resource: row.get(1)? }))
            .optional()?;
        Ok(found)
    }

    pub(super) fn remember(&self, tx: &Transaction<'_>, request: &str, resource: &str) -> Result<(), StoreError> {
        let [account, region, operation, token] = self.columns();
        tx.prepare_cached(
            "INSERT INTO ec2_client_tokens (account, region, operation, token, request, resource)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute([account, region, operation, token, request, resource])?;
        Ok(())
    }
}

/// Remembers something that the next command is to tell its user.
pub(super) fn notice(tx: &Transaction<'_>, at: Time, text: &str) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO notices (at, text) VALUES (?1, ?2)")?.execute(params![at.micros(), text])?;
    Ok(())
}

/// What nobody was told yet; told from now on.
pub(super) fn take_notices(tx: &Transaction<'_>) -> Result<Vec<String>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT text FROM notices WHERE told = 0 ORDER BY id")?;
    let texts = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    if !texts.is_empty() {
        tx.prepare_cached("UPDATE notices SET told = 1 WHERE told = 0")?.execute([])?;
    }
    Ok(texts)
}

/// The volume is made: it is available, under the key that was found for it, and of a new lineage if it is encrypted.
/// Answers whether its row was there.
pub(super) fn finish(tx: &Transaction<'_>, volume: &VolumeRow, lineage: Option<&Lineage>) -> Result<bool, StoreError> {
    if let Some(lineage) = lineage {
        tx.prepare_cached("INSERT INTO lineages (id, manifest_key) VALUES (?1, ?2)")?
            .execute(params![lineage.id, lineage.sealed])?;
    }
    let key_arn = volume.encryption.as_ref().map(|encryption| &encryption.key_arn);
    let changed = tx
        .prepare_cached("UPDATE volumes SET state = 'available', kms_key_arn = ?2, lineage = ?3 WHERE id = ?1")?
        .execute(params![volume.id.as_str(), key_arn, lineage.map(|lineage| &lineage.id)])?;
    Ok(changed == 1)
}

/// Forgets the client tokens that led to a resource that never came to be.
pub(super) fn forget_tokens_of(tx: &Transaction<'_>, resource: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM ec2_client_tokens WHERE resource = ?1")?.execute([resource])?;
    Ok(())
}

/// Whether there is something that nobody was told yet.
pub(super) fn has_notices(tx: &Transaction<'_>) -> Result<bool, StoreError> {
    let mut statement = tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM notices WHERE told = 0)")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}
