//! What an operation takes: names, types and where they come from.

use super::dashed;

/// The type of a value, as AWS's service models have it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// Text.
    String,
    /// Text, one of these. The service checks it; help and completions list it.
    Choice(&'static [&'static str]),
    /// A 32-bit number.
    Integer,
    /// A 64-bit number.
    Long,
    /// Yes or no.
    Boolean,
    /// Bytes, base64 in JSON.
    Blob,
    /// A point in time: ISO 8601 or seconds since 1970.
    Timestamp,
    /// A list of values of one kind.
    List(&'static Kind),
    /// Text to values of one kind.
    Map(&'static Kind),
    /// Named members.
    Structure(&'static [Parameter]),
}

impl Kind {
    /// What the AWS CLI's help calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String | Self::Choice(_) => "string",
            Self::Integer => "integer",
            Self::Long => "long",
            Self::Boolean => "boolean",
            Self::Blob => "blob",
            Self::Timestamp => "timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Structure(_) => "structure",
        }
    }

    /// Whether a value is one word: neither a list, a map nor a structure.
    pub const fn is_scalar(self) -> bool {
        !matches!(self, Self::List(_) | Self::Map(_) | Self::Structure(_))
    }
}

/// Whether a parameter must be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Need {
    /// Always, as in AWS.
    Required,
    /// Never.
    Optional,
    /// AWS requires it; a person at the command line may leave it out, because there is one obvious value.
    Obvious,
}

/// A parameter of an operation, or a member of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its AWS name: `KmsKeyId`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it is for, in one line.
    pub help: &'static str,
    /// Whether it must be given.
    pub need: Need,
    /// Whether it is ours: AWS has no such parameter.
    pub ours: bool,
    /// Whether the command line takes it by its place, without an option's name.
    pub positional: bool,
    /// The smallest number, or the shortest length of text or list, that botocore lets pass.
    pub min: Option<i64>,
    /// The number that the command line sends where none is given, as the AWS CLI does.
    pub filled: Option<i64>,
}

impl Parameter {
    /// An optional parameter of AWS.
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, kind, help, need: Need::Optional, ours: false, positional: false, min: None, filled: None }
    }

    /// An optional text.
    pub const fn string(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::String, help)
    }

    /// An optional text out of `choices`.
    pub const fn choice(name: &'static str, choices: &'static [&'static str], help: &'static str) -> Self {
        Self::new(name, Kind::Choice(choices), help)
    }

    /// An optional 32-bit number.
    pub const fn integer(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Integer, help)
    }

    /// An optional switch: `--name` or `--no-name`.
    pub const fn boolean(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Boolean, help)
    }

    /// Optional bytes.
    pub const fn blob(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Blob, help)
    }

    /// An optional list of texts.
    pub const fn strings(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::List(&Kind::String), help)
    }

    /// An optional map of text to text.
    pub const fn map(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Map(&Kind::String), help)
    }

    /// The same parameter, required.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { need: Need::Required, ..self }
    }

    /// The same parameter, which AWS requires and a person may leave out: see [`Need::Obvious`].
    #[must_use]
    pub const fn obvious(self) -> Self {
        Self { need: Need::Obvious, ..self }
    }

    /// The same parameter, marked as ours.
    #[must_use]
    pub const fn ours(self) -> Self {
        Self { ours: true, ..self }
    }

    /// The same parameter, given by its place on the command line.
    #[must_use]
    pub const fn positional(self) -> Self {
        Self { positional: true, ..self }
    }

    /// The same parameter with a smallest number or length.
    #[must_use]
    pub const fn at_least(self, min: i64) -> Self {
        Self { min: Some(min), ..self }
    }

    /// The same parameter, for which the command line sends a number of its own where none is given.
    #[must_use]
    pub const fn filled(self, number: i64) -> Self {
        Self { filled: Some(number), ..self }
    }

    /// Its option on the command line, without dashes in front: `kms-key-id`.
    pub fn option(&self) -> String {
        dashed(self.name)
    }
}
