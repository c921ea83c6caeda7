//! Volume files: making, opening, growing, checking and deleting `volumes/vol-….luks` and `volumes/vol-….raw`.
//!
//! `docs/volume-format.md` has the bytes, the order in which they are written and why a crash leaves no half of it.

mod create;
pub(super) mod header_io;
pub(super) mod latch;
pub(super) mod locks;
mod open;
mod report;

pub use create::{NewEncryption, create, sweep};
pub use open::{Expected, OpenOptions, Volume, grow, open};
pub use report::{Inspection, Verification, inspect, stored_bytes, verify};

use std::fs::File;

use nix::fcntl::OFlag;

use super::{DeviceError, DeviceErrorKind};
use crate::dir::{DirError, HomeDir};
use crate::ids::VolumeId;
use crate::luks2::{DATA_OFFSET, HeaderError};
use crate::units::SectorSize;

/// The directory of volume files, below the home.
pub(super) const DIRECTORY: &str = "volumes";

/// The longest volume that can be made, in bytes: 64 TiB, as EBS's io2 volumes end (EC2 user guide, "EBS volume types").
pub const MAX_BYTES: u64 = 64 << 40;

/// How a volume's bytes are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// As AES-XTS ciphertext behind a LUKS2 header, in `vol-….luks`.
    Encrypted(SectorSize),
    /// As they are, in `vol-….raw`.
    Plain,
}

impl Format {
    fn file_length(self, length: u64) -> u64 {
        match self {
            Self::Encrypted(_) => length + DATA_OFFSET,
            Self::Plain => length,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Encrypted(_) => "luks",
            Self::Plain => "raw",
        }
    }
}

/// Name of a volume's file, relative to the home.
pub fn relative_path(id: &VolumeId, format: Format) -> String {
    format!("{DIRECTORY}/{id}.{}", format.suffix())
}

/// Whether some process has the volume open, found by asking for its lock.
///
/// # Errors
/// [`DeviceErrorKind::NotFound`] if there is no such volume file.
pub fn is_open(dir: &HomeDir, id: &VolumeId) -> Result<bool, DeviceError> {
    let Found { file, .. } = find(dir, id, OFlag::O_RDONLY)?;
    locks::is_owned(&file)
}

/// Whether some process has the volume for itself, as an exporter does: not those that only read it and share it.
///
/// # Errors
/// [`DeviceErrorKind::NotFound`] if there is no such volume file.
pub fn is_attached(dir: &HomeDir, id: &VolumeId) -> Result<bool, DeviceError> {
    let Found { file, .. } = find(dir, id, OFlag::O_RDONLY)?;
    locks::is_owned_alone(&file)
}

/// Whether a flush of the volume failed since it was last opened, so that what is served from it, if anything, is less than
/// what was written. A latch that cannot be read counts as set.
pub fn has_failed(dir: &HomeDir, id: &VolumeId, format: Format) -> bool {
    latch::is_set(dir, &relative_path(id, format)).unwrap_or(true)
}

/// Deletes a volume's file. Its space is given back; the wrapped data key goes with it.
///
/// # Errors
/// [`DeviceErrorKind::Locked`] while a process has it open, [`DeviceErrorKind::NotFound`] if there is none.
pub fn delete(dir: &HomeDir, id: &VolumeId) -> Result<(), DeviceError> {
    let Found { file, name, .. } = find(dir, id, OFlag::O_RDWR)?;
    let _owner = locks::own(&file, id)?;
    dir.remove_file(&name).map_err(dir_error)?;
    dir.remove_file(&latch::relative_path(&name)).map_err(dir_error)?;
    dir.sync_dir(DIRECTORY).map_err(dir_error)
}

/// A volume's file, whichever format it has.
struct Found {
    file: File,
    /// Relative to the home.
    name: String,
    encrypted: bool,
}

fn find(dir: &HomeDir, id: &VolumeId, flags: OFlag) -> Result<Found, DeviceError> {
    for format in [Format::Encrypted(SectorSize::default()), Format::Plain] {
        let name = relative_path(id, format);
        match dir.open_file(&name, flags) {
            Ok(file) => return Ok(Found { file, name, encrypted: format != Format::Plain }),
            Err(error) if not_found(&error) => {}
            Err(error) => return Err(dir_error(error)),
        }
    }
    Err(DeviceError::new(DeviceErrorKind::NotFound, format!("there is no file of volume {id} in {DIRECTORY}/")))
}

fn not_found(error: &DirError) -> bool {
    matches!(error, DirError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

fn dir_error(error: DirError) -> DeviceError {
    match error {
        DirError::Io { action, path, source } => {
            let not_found = source.kind() == std::io::ErrorKind::NotFound;
            let exists = source.kind() == std::io::ErrorKind::AlreadyExists;
            let context = format!("cannot {action} {}", path.display());
            match (not_found, exists) {
                (true, _) => DeviceError::new(DeviceErrorKind::NotFound, context).with_source(source),
                (_, true) => DeviceError::new(DeviceErrorKind::Exists, context).with_source(source),
                _ => DeviceError::io(context, source),
            }
        }
        other => DeviceError::new(DeviceErrorKind::Io, other.to_string()),
    }
}

fn header_error(error: HeaderError) -> DeviceError {
    let kind = match error {
        HeaderError::BothDamaged { .. } => DeviceErrorKind::Damaged,
        HeaderError::Random(_) => DeviceErrorKind::Io,
        HeaderError::TooLarge { .. } => DeviceErrorKind::Invalid,
        _ => DeviceErrorKind::Refused,
    };
    DeviceError::new(kind, "the volume's header cannot be used").with_source(error)
}

fn check_length(length: u64) -> Result<(), DeviceError> {
    if length == 0 || length > MAX_BYTES || !length.is_multiple_of(4096) {
        return Err(DeviceError::new(
            DeviceErrorKind::Invalid,
            format!("a volume has a multiple of 4096 bytes, at least 4096 and at most 64 TiB; {length} is not that"),
        ));
    }
    Ok(())
}
