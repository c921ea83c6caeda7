//! Looking at a volume file without serving it.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use nix::fcntl::OFlag;

use super::open::Expected;
use super::{Format, Found, find, latch, locks, relative_path};
use crate::device::protections::Protections;
use crate::device::{DeviceError, DeviceErrorKind};
use crate::dir::HomeDir;
use crate::ids::VolumeId;
use crate::luks2::{Copies, CopyState, HEADER_BYTES, Header, HeaderError};
use crate::secret::SecretBytes;

/// What a volume file shows to anybody who can read it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Name of the file, relative to the home.
    pub file: String,
    /// Its length in bytes.
    pub file_bytes: u64,
    /// How many bytes of the disk it takes.
    pub allocated_bytes: u64,
    /// Whether a process has it for itself, as an exporter does.
    pub attached: bool,
    /// Whether a flush failed and the volume was not opened since.
    pub latched: bool,
    /// The header and what its copies are like, or why there is none to show; `None` for an unencrypted volume.
    pub header: Option<Result<(Header, Copies), HeaderError>>,
}

/// Looks at a volume's file and header. Needs no key, changes nothing, and works while the volume is attached.
///
/// # Errors
/// [`DeviceErrorKind::NotFound`], or if the file cannot be read.
pub fn inspect(dir: &HomeDir, id: &VolumeId) -> Result<Inspection, DeviceError> {
    let Found { file, name, encrypted } = find(dir, id, OFlag::O_RDONLY)?;
    let fail = |error| DeviceError::io(format!("cannot read {name}"), error);
    let metadata = file.metadata().map_err(fail)?;
    let attached = locks::is_owned_alone(&file)?;
    let header = if encrypted {
        let _lock = locks::HeaderLock::shared(&file, Protections::ON)?;
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX).min(HEADER_BYTES);
        let mut area = vec![0; length];
        file.read_exact_at(&mut area, 0).map_err(fail)?;
        Some(Header::parse(&area))
    } else {
        None
    };
    Ok(Inspection {
        file_bytes: metadata.len(),
        allocated_bytes: metadata.blocks() * 512,
        attached,
        latched: latch::is_set(dir, &name)?,
        header,
        file: name,
    })
}

/// What is right and wrong with a volume.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verification {
    /// What anybody can see.
    pub inspection: Inspection,
    /// Whether the key belongs to the volume; `None` if no key was given or there is no header to check it against.
    pub key_matches: Option<bool>,
    /// What is wrong, as sentences; empty if nothing is.
    pub problems: Vec<String>,
    /// What is worth knowing and not wrong, as sentences.
    pub notes: Vec<String>,
}

/// Checks a volume's file against the caller's records, and its key, if given, against the digest. Changes nothing and
/// works while the volume is attached.
///
/// # Errors
/// As [`inspect`]; what is wrong with the volume is no error but in the answer.
pub fn verify(
    dir: &HomeDir,
    id: &VolumeId,
    expected: Expected,
    key: Option<&SecretBytes>,
) -> Result<Verification, DeviceError> {
    let inspection = inspect(dir, id)?;
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    let mut key_matches = None;
    let wanted_bytes = expected.format.file_length(expected.length);
    if inspection.file != relative_path(id, expected.format) {
        problems.push(format!("the home's records do not say that the volume's file is {}", inspection.file));
    }
    if inspection.file_bytes < wanted_bytes {
        problems.push(format!(
            "the file has {} bytes and should have {wanted_bytes}: it was cut short",
            inspection.file_bytes
        ));
    } else if inspection.file_bytes > wanted_bytes {
        notes.push(format!(
            "the file has {} bytes and needs {wanted_bytes}: a grow was cut short, repeat it",
            inspection.file_bytes
        ));
    }
    if inspection.latched {
        problems.push("a flush failed: writes after the last good flush may be lost".to_owned());
    }
    match &inspection.header {
        Some(Ok((header, copies))) => {
            for (name, state) in [("primary", copies.primary), ("secondary", copies.secondary)] {
                match state {
                    CopyState::Current => {}
                    CopyState::Stale => problems.push(format!(
                        "the {name} copy of the header is older than the other; attaching the volume repairs it"
                    )),
                    CopyState::Damaged(damage) => problems.push(format!(
                        "the {name} copy of the header is damaged ({damage}); attaching the volume repairs it"
                    )),
                }
            }
            if header.length() != expected.length {
                problems.push(format!("the header says {} bytes, the records {}", header.length(), expected.length));
            }
            if expected.format != Format::Encrypted(header.sector_size()) {
                problems.push(format!("the header says sectors of {} bytes, the records differ", header.sector_size()));
            }
            if header.label() != id.as_str() {
                notes.push(format!("the header's label is '{}', not the volume's id", header.label()));
            }
            if !header.keyslots().is_empty() {
                notes.push(format!(
                    "keyslot {} opens the volume without the KMS: disabling the key does not close it",
                    header.keyslots().join(", ")
                ));
            }
            key_matches = key.map(|key| header.digest().matches(key));
            if key_matches == Some(false) {
                problems.push("the data key is not the one that the header's digest was made of".to_owned());
            }
        }
        Some(Err(error)) => problems.push(with_sources(error)),
        None => {}
    }
    Ok(Verification { inspection, key_matches, problems, notes })
}

/// An error and its sources in one sentence.
fn with_sources(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// Bytes of a volume's file as they lie on the disk, header included: for showing that they are ciphertext.
///
/// # Errors
/// [`DeviceErrorKind::NotFound`]; [`DeviceErrorKind::OutOfRange`] if the file ends before.
pub fn stored_bytes(dir: &HomeDir, id: &VolumeId, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
    let Found { file, name, .. } = find(dir, id, OFlag::O_RDONLY)?;
    file.read_exact_at(into, offset).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => DeviceError::new(
            DeviceErrorKind::OutOfRange,
            format!("{name} ends before {} bytes at offset {offset}", into.len()),
        ),
        _ => DeviceError::io(format!("cannot read {name}"), error),
    })
}
