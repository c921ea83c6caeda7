//! Why bytes are not a header that we accept.

use std::fmt;

/// Why a header cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Neither copy is valid.
    #[error(
        "both copies of the LUKS2 header are damaged (primary: {primary}; secondary: {secondary}); \
         restore the first 32 KiB of the file from a backup"
    )]
    BothDamaged {
        /// What is wrong with the copy at offset 0.
        primary: Damage,
        /// What is wrong with the copy at offset 16384.
        secondary: Damage,
    },
    /// A valid LUKS2 header, but not of the one profile that we accept.
    #[error("the LUKS2 header is refused: {field} is {found}, and only {wanted} is accepted")]
    Refused {
        /// The field, as a path in the JSON area or the name in the binary part.
        field: &'static str,
        /// What it holds, shortened.
        found: String,
        /// What it must hold.
        wanted: String,
    },
    /// The JSON area is not an object of the accepted form.
    #[error("the JSON area of the LUKS2 header is refused")]
    Json(#[source] serde_json::Error),
    /// Something does not fit its place in the header.
    #[error("{what} does not fit the LUKS2 header, which has room for {limit}")]
    TooLarge {
        /// What does not fit.
        what: &'static str,
        /// How much would fit: bytes, unless `what` says otherwise.
        limit: u64,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes for the header's salts")]
    Random(#[source] getrandom::Error),
}

impl HeaderError {
    /// A refusal of `field`; `found` is shortened to what fits a line.
    pub(super) fn refused(field: &'static str, found: impl fmt::Display, wanted: impl fmt::Display) -> Self {
        let found = format!("'{found}'").chars().take(80).collect();
        Self::Refused { field, found, wanted: format!("'{wanted}'") }
    }
}

/// What is wrong with one copy of the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Damage {
    /// The file ends inside it.
    Short,
    /// It does not begin with LUKS's magic bytes.
    Magic,
    /// Its version is not 2.
    Version(u16),
    /// Its size is not 16 KiB.
    Size(u64),
    /// It says that it stands somewhere else.
    Offset(u64),
    /// Its checksum algorithm is not SHA-256.
    ChecksumName,
    /// A byte that must be zero is not, or a text is not UTF-8.
    Padding,
    /// The SHA-256 over the copy is another one.
    Checksum,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the file ends inside it"),
            Self::Magic => f.write_str("no LUKS magic"),
            Self::Version(version) => write!(f, "version {version}, not 2"),
            Self::Size(size) => write!(f, "header size {size}, not 16384"),
            Self::Offset(offset) => write!(f, "header offset {offset}"),
            Self::ChecksumName => f.write_str("checksum algorithm is not sha256"),
            Self::Padding => f.write_str("padding is not zero"),
            Self::Checksum => f.write_str("wrong checksum"),
        }
    }
}
