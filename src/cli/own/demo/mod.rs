//! `demo`: the main job on one screen, in a temporary home, by the commands that it prints.
//!
//! Every line behind a `$` is run as it stands there, by `sh`, with this program as `blockseal`. Nothing is staged: what a
//! step claims is checked on what its commands printed, and the demo ends with exit code 1 at the first claim that does
//! not hold.

mod database;
mod fixture;
mod stage;
mod story;
mod trail;

use serde::Deserialize;
use serde_json::Value;

use self::stage::{Halt, Stage};
use super::{Outcome, Verb, arguments};
use crate::api::Parameter;
use crate::cli::{CliError, Session};

pub(super) static DEMO: Verb = Verb {
    name: "demo",
    help: "Shows the whole story in a temporary home: key, volume, attach, write, refuse, recover, trail",
    parameters: &[
        Parameter::boolean("Step", "Wait for Enter before each step.").ours(),
        Parameter::boolean("Postgres", "Show a PostgreSQL on an encrypted kernel device instead; needs root.").ours(),
        Parameter::boolean("Keep", "Leave the temporary home behind, and say where it is.").ours(),
    ],
    run,
};

fn run(_: &Session, given: Value) -> Result<Outcome, CliError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given {
        step: Option<bool>,
        keep: Option<bool>,
        postgres: Option<bool>,
    }
    let given: Given = arguments(given)?;
    let mut stage = Stage::build(given.step == Some(true))?;
    let outcome = if given.postgres == Some(true) { database::tell(&mut stage) } else { story::tell(&mut stage) };
    stage.clear(given.keep == Some(true))?;
    match outcome {
        Ok(()) => Ok(Outcome::done()),
        Err(Halt::NotAsItSays(what)) => {
            eprintln_failed(&what);
            Ok(Outcome::done().failed())
        }
        Err(Halt::Interrupted) => Err(CliError::machine("the demo was interrupted")),
        Err(Halt::Machine(error)) => Err(CliError::machine(error)),
    }
}

fn eprintln_failed(what: &str) {
    use std::io::Write as _;
    // Where standard error is closed the exit code still tells.
    let _ = writeln!(std::io::stderr(), "\nblockseal: the demo is not as it says: {what}");
}
