//! The verbs for which AWS has no word: `clock`, `faults`, `volume`, `bench` and their like.
//!
//! They are listed as AWS's operations are and take their parameters in the same ways. What they do and how they
//! answer is theirs: a value to be rendered, text drawn for a person, or an exit code of 1 for *refused, differs or
//! damaged*.

mod account;
mod bench;
mod clock;
mod demo;
mod envelope;
mod events;
mod explain;
mod faults;
mod impact;
mod init;
mod made;
mod report;
mod serve;
mod trail;
mod volume;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{CliError, Session};
use crate::api::Parameter;

/// Every command of ours, in the order in which help lists them.
pub static COMMANDS: &[Own] = &[
    Own::Verb(&explain::EXPLAIN),
    Own::InService("kms", &impact::IMPACT),
    Own::Group(&account::GROUP),
    Own::Group(&clock::GROUP),
    Own::Group(&events::GROUP),
    Own::Group(&faults::GROUP),
    Own::Group(&trail::GROUP),
    Own::Group(&volume::GROUP),
    Own::Verb(&bench::BENCH),
    Own::Verb(&demo::DEMO),
    Own::Verb(&init::INIT),
    Own::Verb(&serve::SERVE),
];

/// A command of ours.
#[derive(Debug)]
#[non_exhaustive]
pub enum Own {
    /// `blockseal <group> <verb>`.
    Group(&'static Group),
    /// `blockseal <verb>`.
    Verb(&'static Verb),
    /// `blockseal <service> <verb>`: beside the operations of that service of AWS.
    InService(&'static str, &'static Verb),
}

impl Own {
    /// Its first word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Group(group) => group.name,
            Self::Verb(verb) => verb.name,
            Self::InService(service, _) => service,
        }
    }
}

/// Verbs that belong together.
#[derive(Debug)]
pub struct Group {
    /// Its name: `clock`.
    pub name: &'static str,
    /// What it is for, in one line.
    pub help: &'static str,
    /// Its verbs.
    pub verbs: &'static [Verb],
}

/// One thing that can be done.
#[derive(Debug)]
pub struct Verb {
    /// Its name: `advance`.
    pub name: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// What it takes, its positional parameters in their order.
    pub parameters: &'static [Parameter],
    /// Runs it on its parameters: an object that holds what was given, spelled as in `parameters`.
    pub run: fn(&Session, Value) -> Result<Outcome, CliError>,
}

/// What a verb answers.
#[derive(Debug)]
pub struct Outcome {
    /// What is printed.
    pub body: Body,
    /// The exit code: 0, 1 for *refused, differs or damaged*, or 3 for *undetermined*.
    pub code: u8,
}

/// What a verb prints on standard output.
#[derive(Debug)]
#[non_exhaustive]
pub enum Body {
    /// Nothing.
    Nothing,
    /// A value, through `--query` and `--output` as an operation's result.
    Value(Value),
    /// Lines for a person, as they are.
    Text(String),
}

impl Outcome {
    /// Success with a value.
    pub const fn value(value: Value) -> Self {
        Self { body: Body::Value(value), code: 0 }
    }

    /// Success with text.
    pub const fn text(text: String) -> Self {
        Self { body: Body::Text(text), code: 0 }
    }

    /// Success with nothing to say.
    pub const fn done() -> Self {
        Self { body: Body::Nothing, code: 0 }
    }

    /// The same answer with exit code 1: *refused, differs or damaged*.
    #[must_use]
    pub fn failed(self) -> Self {
        Self { code: 1, ..self }
    }
}

/// A verb's parameters as its own struct.
pub fn arguments<T: DeserializeOwned>(given: Value) -> Result<T, CliError> {
    serde_json::from_value(given).map_err(|error| CliError::value(error.to_string()))
}
