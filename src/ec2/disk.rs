//! A volume's file as its row describes it.

use crate::device::volume::{self, Expected, Format, NewEncryption};
use crate::device::{DeviceError, DeviceErrorKind};
use crate::gate::ServiceError;
use crate::ids::VolumeId;
use crate::luks2::{Header, KeyDigest, WrappedKey};
use crate::store::{Home, set_setting, setting};

use super::table::VolumeRow;

impl From<DeviceError> for ServiceError {
    fn from(error: DeviceError) -> Self {
        Self::machine(error)
    }
}

/// How the row says that the file is.
pub(super) fn expected(row: &VolumeRow) -> Expected {
    let format = row.encryption.as_ref().map_or(Format::Plain, |encryption| Format::Encrypted(encryption.sector_size));
    Expected { length: row.bytes(), format }
}

/// Makes the file of an encrypted volume, or a raw one for a row without encryption; sparse, whole or not there.
pub(super) fn create(home: &Home, row: &VolumeRow, key: Option<(WrappedKey, KeyDigest)>) -> Result<(), ServiceError> {
    if home.is_scratch() {
        // Whoever attaches it next, as a launch does at once, looks for its key there.
        return key.map_or(Ok(()), |(wrapped, _)| remember_wrapped_key(home, &row.id, &wrapped));
    }
    let encryption = match (&row.encryption, key) {
        (Some(encryption), Some((wrapped_key, digest))) => {
            Some(NewEncryption { sector_size: encryption.sector_size, digest, wrapped_key })
        }
        _ => None,
    };
    Ok(volume::create(home.dir(), &row.id, row.bytes(), encryption)?)
}

/// Removes the file, and what a kill left of one that was being made; neither need be there.
pub(super) fn remove(home: &Home, id: &VolumeId) -> Result<(), ServiceError> {
    if home.is_scratch() {
        return Ok(());
    }
    match volume::delete(home.dir(), id) {
        Err(error) if error.kind() == DeviceErrorKind::NotFound => {}
        outcome => outcome?,
    }
    for suffix in ["luks.new", "raw.new", "luks.latch", "raw.latch", "luks.latch.new", "raw.latch.new"] {
        home.dir().remove_file(&format!("volumes/{id}.{suffix}"))?;
    }
    home.dir().remove_file(&format!("run/{id}.log"))?;
    Ok(())
}

/// Whether some process holds the file's lock: for a volume in use, the one proof that it is attached.
pub(super) fn is_held(home: &Home, id: &VolumeId) -> Result<bool, ServiceError> {
    // Who has the original's file for a moment decides nothing.
    if home.is_scratch() {
        return Ok(false);
    }
    there(volume::is_open(home.dir(), id))
}

/// Whether some process has the file for itself: readers that share it do not count.
pub(super) fn is_held_alone(home: &Home, id: &VolumeId) -> Result<bool, ServiceError> {
    if home.is_scratch() {
        return Ok(false);
    }
    there(volume::is_attached(home.dir(), id))
}

/// A file that is not there is held by nobody.
fn there(held: Result<bool, DeviceError>) -> Result<bool, ServiceError> {
    match held {
        Err(error) if error.kind() == DeviceErrorKind::NotFound => Ok(false),
        outcome => Ok(outcome?),
    }
}

/// The wrapped data key in the file's header. In a scratch home it is the original's, or what was remembered for a volume
/// that has no file.
pub(super) fn wrapped_key(home: &Home, row: &VolumeRow) -> Result<WrappedKey, ServiceError> {
    if home.is_scratch()
        && let Some(remembered) = home.read(|tx| setting(tx, &remembered_as(&row.id)))?
    {
        let (blob, key_arn, encryption_context) = serde_json::from_str(&remembered).map_err(ServiceError::machine)?;
        return Ok(WrappedKey { blob, key_arn, encryption_context });
    }
    Ok(header(home, row)?.wrapped_key().clone())
}

/// Gives a volume of a scratch home, which has no file, its wrapped data key.
pub(super) fn remember_wrapped_key(home: &Home, id: &VolumeId, wrapped: &WrappedKey) -> Result<(), ServiceError> {
    let text = serde_json::to_string(&(&wrapped.blob, &wrapped.key_arn, &wrapped.encryption_context))
        .map_err(ServiceError::machine)?;
    Ok(home.write(|tx| set_setting(tx, &remembered_as(id), &text))?)
}

fn remembered_as(id: &VolumeId) -> String {
    format!("scratch wrapped key of {id}")
}

/// The file's header, read without a key.
pub(super) fn header(home: &Home, row: &VolumeRow) -> Result<Header, ServiceError> {
    match volume::inspect(home.original().unwrap_or(home.dir()), &row.id)?.header {
        Some(Ok((header, _))) => Ok(header),
        Some(Err(error)) => Err(ServiceError::machine(error)),
        None => Err(ServiceError::machine(format!("volume {} is encrypted, and its file is not", row.id))),
    }
}
