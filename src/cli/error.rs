//! Why a command failed, what it prints and the exit code it ends with: the AWS CLI's own codes.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use super::hints::hint;
use crate::dir::DirError;
use crate::gate::{ServiceError, chain};
use crate::kms::RootKeyError;
use crate::store::StoreError;

/// A command that failed. Its exit codes are those of the AWS CLI v2 user guide, "Command line return codes".
#[derive(Debug)]
#[non_exhaustive]
pub enum CliError {
    /// AWS would refuse it too: exit code 254.
    Refused {
        /// The operation that refused, by its AWS name.
        operation: String,
        /// The refusal.
        error: ServiceError,
    },
    /// The command line is not one that can be run: exit code 252.
    Usage {
        /// What is wrong with it.
        message: String,
        /// Whether the reminder of the grammar stands in front.
        grammar: bool,
    },
    /// The environment or the home is not fit to run in: exit code 253.
    Configuration(Box<dyn Error + Send + Sync>),
    /// Anything else: exit code 255.
    Machine(Box<dyn Error + Send + Sync>),
}

impl CliError {
    /// The error of an operation that ran.
    pub fn service(operation: &str, error: ServiceError) -> Self {
        match error {
            ServiceError::Machine(error) => Self::of_machine(ServiceError::Machine(error)),
            refused => Self::Refused { operation: operation.to_owned(), error: refused },
        }
    }

    /// A failure that is no refusal: of the home, where that is not fit to run in, else of this machine.
    pub(super) fn of_machine(error: ServiceError) -> Self {
        match error {
            ServiceError::Machine(error) if error.is::<RootKeyError>() => Self::Configuration(error),
            ServiceError::Machine(error) => Self::Machine(error),
            refused => Self::machine(refused),
        }
    }

    /// A home that could not be opened: its state's errors have exit codes of their own.
    pub(super) fn of_home(error: ServiceError) -> Self {
        match error {
            ServiceError::Machine(error) => match error.downcast::<StoreError>() {
                Ok(error) => Self::from(*error),
                Err(error) => Self::of_machine(ServiceError::Machine(error)),
            },
            refused @ ServiceError::Refused(_) => Self::of_machine(refused),
        }
    }

    /// A value that cannot be used: no reminder of the grammar, which was understood.
    pub fn value(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), grammar: false }
    }

    /// A value of the option or place `name` that cannot be used.
    pub fn parameter(name: &str, message: impl AsRef<str>) -> Self {
        Self::value(format!("Error parsing parameter '{name}': {}", message.as_ref()))
    }

    /// A command line that does not follow the grammar.
    pub fn grammar(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), grammar: true }
    }

    /// An environment or a home that is not fit to run in.
    pub fn configuration(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Configuration(error.into())
    }

    /// A failure of this machine.
    pub fn machine(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Machine(error.into())
    }

    /// The exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 252,
            Self::Configuration(_) => 253,
            Self::Refused { .. } => 254,
            Self::Machine(_) => 255,
        }
    }

    /// Whether the reader of our output went away, which is success: it has all that it wanted.
    pub fn is_broken_pipe(&self) -> bool {
        let Self::Machine(error) = self else { return false };
        let mut cause: Option<&(dyn Error + 'static)> = Some(error.as_ref());
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// What stands on standard error; the hint only on a terminal.
    pub fn report(&self, terminal: bool) -> String {
        let mut text = String::from("\n");
        match self {
            Self::Refused { operation, error } => {
                let message = error.message();
                let _ = writeln!(
                    text,
                    "An error occurred ({}) when calling the {operation} operation: {message}",
                    error.code()
                );
                let own = match error {
                    ServiceError::Refused(refusal) => refusal.hint.as_deref(),
                    ServiceError::Machine(_) => None,
                };
                if let (true, Some(hint)) = (terminal, own.or_else(|| hint(error.code()))) {
                    let _ = writeln!(text, "hint: {hint}");
                }
            }
            Self::Usage { message, grammar } => {
                let message = message.trim_end();
                if *grammar {
                    text.push_str(GRAMMAR);
                    text.push_str("blockseal: error: ");
                }
                let _ = writeln!(text, "{message}");
            }
            Self::Configuration(error) | Self::Machine(error) => {
                let _ = writeln!(text, "blockseal: {}", chain(error.as_ref()));
            }
        }
        text
    }
}

const GRAMMAR: &str = "\
usage: blockseal [options] <command> <subcommand> [parameters]
To see help text, you can run:

  blockseal help
  blockseal <command> help
  blockseal <command> <subcommand> help

";

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Dir(
                DirError::SymbolicLink(_)
                | DirError::NotADirectory(_)
                | DirError::Missing(_)
                | DirError::Lax(..)
                | DirError::Foreign(..)
                | DirError::Part { .. },
            )
            | StoreError::StateMissing { .. }
            | StoreError::Damaged { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::NotOurs(_) => Self::configuration(error),
            _ => Self::machine(error),
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::machine(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_the_aws_cli_prints_it() {
        let error = ServiceError::refused("NotFoundException", "Alias arn:x is not found.").with_hint("list them");
        let error = CliError::service("DescribeKey", error);
        assert_eq!(error.exit_code(), 254);
        let line = "\nAn error occurred (NotFoundException) when calling the DescribeKey operation: Alias arn:x is not found.\n";
        assert_eq!(error.report(false), line);
        assert_eq!(error.report(true), format!("{line}hint: list them\n"));
    }

    #[test]
    fn a_chain_is_printed_once() {
        let inner = io::Error::other("disk on fire");
        let error = CliError::from(StoreError::Dir(DirError::Io { action: "open", path: "/h".into(), source: inner }));
        assert_eq!(
            (error.exit_code(), error.report(true).as_str()),
            (255, "\nblockseal: cannot open /h: disk on fire\n")
        );
    }

    #[test]
    fn a_closed_pipe_is_seen_through_its_wrapping() {
        let closed = DirError::Io { action: "write", path: "x".into(), source: io::ErrorKind::BrokenPipe.into() };
        assert!(CliError::machine(closed).is_broken_pipe());
        assert!(!CliError::from(io::Error::other("broken")).is_broken_pipe());
    }
}
