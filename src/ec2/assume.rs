//! Volumes of a scratch home, as somebody else describes them, and what is wrapped under a key.

use serde::Deserialize;
use serde_json::Value;

use crate::gate::{Call, ServiceError};
use crate::ids::{AccountId, DbiResourceId, Region, VolumeId};
use crate::kms::{self, EncryptionContext};
use crate::luks2::WrappedKey;
use crate::store::{self, Home};
use crate::units::SectorSize;

use super::table::{self, Encryption, State, VolumeRow};
use super::{disk, keys, params};

/// What `ec2 describe-volumes` prints of a volume, as far as it decides anything.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    volume_id: VolumeId,
    availability_zone: String,
    size: i64,
    #[serde(default)]
    volume_type: String,
    #[serde(default)]
    encrypted: bool,
    kms_key_id: Option<String>,
    iops: Option<i64>,
    throughput: Option<i64>,
    #[serde(default)]
    tags: Vec<super::Tag>,
}

/// Puts a volume into a scratch home as `ec2 describe-volumes` prints it, detached, with a data key that is wrapped under
/// its key and context. The account is its key's, or `123456789012` for a volume without one. One whose key is not in the
/// home is left out: `false`.
///
/// A tag `aws:rds:db-id` stands for the owner's part of the context, which EC2 does not print (ours).
///
/// # Errors
/// If it is not such a volume.
pub fn assume_volume(home: &Home, volume: &Value) -> Result<bool, ServiceError> {
    let volume: Described = serde_json::from_value(volume.clone()).map_err(ServiceError::machine)?;
    let wrong = |what: &str| ServiceError::machine(format!("volume {}: {what}", volume.volume_id));
    let region = volume.availability_zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let key_arn = volume.kms_key_id.filter(|_| volume.encrypted);
    let account = key_arn.as_deref().and_then(|arn| arn.split(':').nth(4)).unwrap_or("123456789012");
    let db = volume.tags.iter().find(|tag| tag.key == "aws:rds:db-id").map(|tag| tag.value.parse::<DbiResourceId>());
    let row = VolumeRow {
        id: volume.volume_id.clone(),
        account: account.parse().map_err(|_| wrong("its key's ARN names no account"))?,
        region: region.parse().map_err(|_| wrong("its Availability Zone is in no Region"))?,
        zone: volume.availability_zone.clone(),
        state: State::Available,
        size: volume.size,
        volume_type: volume.volume_type,
        iops: volume.iops,
        throughput: volume.throughput,
        encryption: key_arn.clone().map(|key_arn| Encryption { key_arn, sector_size: SectorSize::default() }),
        db: db.transpose().map_err(|_| wrong("its tag aws:rds:db-id is no DbiResourceId"))?,
        created: home.now()?,
    };
    if let Some(key_arn) = key_arn {
        let context = keys::context(&row);
        let Some(blob) = kms::wrap_assumed(home, &key_arn, &context)? else { return Ok(false) };
        let wrapped = WrappedKey { blob: blob.0, key_arn, encryption_context: context.0 };
        disk::remember_wrapped_key(home, &row.id, &wrapped)?;
    }
    home.write(
        |tx| if table::volume(tx, &row.id)?.is_none() { table::insert(tx, &row, &volume.tags) } else { Ok(()) },
    )?;
    Ok(true)
}

/// A volume that a key wraps.
#[derive(Debug)]
pub struct Wrapped {
    /// Its id.
    pub id: VolumeId,
    /// Whose it is.
    pub account: AccountId,
    /// Where it is.
    pub region: Region,
    /// Its state, as `DescribeVolumes` shows it.
    pub state: String,
    /// The context of its wrapped data key.
    pub context: EncryptionContext,
    /// Whether it is attached, so that its host has the data key.
    pub attached: bool,
}

/// The volumes that the key of that ARN wraps, of every account, oldest first.
///
/// # Errors
/// If the state cannot be read.
pub fn wrapped_under(home: &Home, key_arn: &str) -> Result<Vec<Wrapped>, ServiceError> {
    home.read(|tx| {
        let mut found = Vec::new();
        for row in table::volumes_under(tx, key_arn)? {
            found.push(Wrapped {
                attached: table::attachment(tx, &row.id)?.is_some(),
                state: row.state.as_str().to_owned(),
                context: keys::context(&row),
                account: row.account,
                region: row.region,
                id: row.id,
            });
        }
        Ok(found)
    })
}

/// The ARN of the key that wraps a volume's data key.
///
/// # Errors
/// `InvalidVolume.NotFound`; if it is not encrypted.
pub fn key_of(call: &Call<'_>, volume: &str) -> Result<String, ServiceError> {
    let id = params::volume_id(volume)?;
    let row = call.home.read(|tx| table::volume(tx, &id))?.ok_or_else(|| params::no_such_volume(&id))?;
    let encryption = row.encryption.ok_or_else(|| ServiceError::machine(format!("volume {id} is not encrypted")))?;
    Ok(encryption.key_arn)
}

/// Takes an attachment of a scratch home away, as if it had been detached.
///
/// # Errors
/// If the home is a real one, or its state cannot be written.
pub fn assume_detached(home: &Home, id: &VolumeId) -> Result<(), ServiceError> {
    if !home.is_scratch() {
        return Err(ServiceError::machine("nothing is assumed of a real home"));
    }
    home.write(|tx| {
        table::remove_attachment(tx, id)?;
        table::set_state(tx, id, State::Available)?;
        Ok::<_, store::StoreError>(())
    })?;
    Ok(())
}
