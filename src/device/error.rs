//! Why a device refused or failed.

use std::error::Error;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// What a caller can match on. It crosses the border between an exporter and its starter as a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeviceErrorKind {
    /// The range ends past the end of the device, or does not fit 64 bits.
    OutOfRange,
    /// The device takes no writes.
    ReadOnly,
    /// The disk below is full (`ENOSPC`) or a quota is used up.
    NoSpace,
    /// The storage failed, or its file shrank under us.
    Io,
    /// An earlier flush failed: nothing is served until the device is opened anew.
    Latched,
    /// Another process holds the volume.
    Locked,
    /// The file is not what its header, the state or the key say it should be.
    Damaged,
    /// The header is whole, but not of the one profile that we accept.
    Refused,
    /// The key does not belong to the volume, is missing, or must not be used (equal halves).
    WrongKey,
    /// There is no such volume file.
    NotFound,
    /// There is a volume file of that name already.
    Exists,
    /// A length or a range that no volume can have.
    Invalid,
}

/// A failed operation on a device: a kind to match on, what was tried, and the system's own error where there is one.
#[derive(Debug)]
pub struct DeviceError {
    kind: DeviceErrorKind,
    context: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl DeviceError {
    /// An error of `kind`; `context` says what was tried, on what and where.
    pub fn new(kind: DeviceErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// An error of the operating system: `ENOSPC` and `EDQUOT` become [`DeviceErrorKind::NoSpace`].
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                DeviceErrorKind::NoSpace
            }
            _ => DeviceErrorKind::Io,
        };
        Self { kind, context: context.into(), source: Some(Box::new(source)) }
    }

    /// The same error with the one that caused it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// What to match on.
    pub fn kind(&self) -> DeviceErrorKind {
        self.kind
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl Error for DeviceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}
