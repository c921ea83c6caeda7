//! The error of every operation: an AWS error with its code and message, or a failure of this machine.

use std::error::Error;
use std::fmt;

use crate::dir::DirError;
use crate::store::StoreError;

/// Why an operation was refused or failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServiceError {
    /// AWS would refuse it too: code and message are AWS's own.
    Refused(Refusal),
    /// This machine failed: its disk, its home, its memory. AWS has no word for it.
    Machine(Box<dyn Error + Send + Sync>),
}

/// A refusal as AWS words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// AWS's error code, such as `InvalidCiphertextException` or `VolumeInUse`, without CloudTrail's `Client.` prefix.
    pub code: &'static str,
    /// AWS's message; empty where AWS sends none.
    pub message: String,
    /// The HTTP status that AWS answers with, 400 for most.
    pub status: u16,
    /// What the user can do about it, in our words; shown on a terminal only.
    pub hint: Option<String>,
}

impl ServiceError {
    /// A refusal with status 400.
    pub fn refused(code: &'static str, message: impl Into<String>) -> Self {
        Self::Refused(Refusal { code, message: message.into(), status: 400, hint: None })
    }

    /// A failure of this machine.
    pub fn machine(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Machine(error.into())
    }

    /// The same refusal with a hint; a machine failure stays as it is.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(Refusal { hint: Some(hint.into()), ..refusal }),
            machine @ Self::Machine(_) => machine,
        }
    }

    /// AWS's error code; `InternalFailure` for a failure of this machine.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Machine(_) => "InternalFailure",
        }
    }

    /// The message alone. A machine failure's is its whole chain.
    pub fn message(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.message.clone(),
            Self::Machine(error) => chain(error.as_ref()),
        }
    }
}

/// An error and its sources, joined with `: `.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) if refusal.message.is_empty() => f.write_str(refusal.code),
            Self::Refused(refusal) => write!(f, "{}: {}", refusal.code, refusal.message),
            Self::Machine(error) => f.write_str(&chain(error.as_ref())),
        }
    }
}

impl Error for ServiceError {}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        Self::machine(error)
    }
}

impl From<rusqlite::Error> for ServiceError {
    fn from(error: rusqlite::Error) -> Self {
        Self::machine(StoreError::from(error))
    }
}

impl From<DirError> for ServiceError {
    fn from(error: DirError) -> Self {
        Self::machine(error)
    }
}
