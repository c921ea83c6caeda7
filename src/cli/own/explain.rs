//! `explain`: whether and why a command would be refused.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Outcome, Verb, arguments};
use crate::api::{self, Kind, Operation, Parameter};
use crate::cli::grammar::{self, Action, Invocation, Parsed};
use crate::cli::{CliError, Globals, Output, Session, values};
use crate::explain::{self, Explanation, suite};
use crate::gate::ServiceError;
use crate::kms;
use crate::store::Home;

pub(super) static EXPLAIN: Verb = Verb {
    name: "explain",
    help: "Says whether and why a command would be refused, without doing it; exit code 1 if it would, 3 if that cannot be told",
    parameters: &[
        Parameter::string("AccountState", "A folder of what the AWS CLI printed, instead of the home.").ours(),
        Parameter::string("Policy", "A key policy to try: its JSON, or file://FILE.").ours(),
        Parameter::string("Replay", "A folder of CloudTrail files: lists every KMS call whose outcome changes.").ours(),
        Parameter::string("Suite", "A folder of cases to run.").ours(),
        Parameter::string("Junit", "Where the cases' outcomes are written to as JUnit XML.").ours(),
        Parameter::new("Command", Kind::List(&Kind::String), "The command, with its options.").ours().positional(),
    ],
    run,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    account_state: Option<PathBuf>,
    policy: Option<String>,
    replay: Option<PathBuf>,
    suite: Option<PathBuf>,
    junit: Option<PathBuf>,
    #[serde(default)]
    command: Vec<String>,
}

fn run(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given: Given = arguments(given)?;
    let asked = [given.replay.is_some(), given.suite.is_some(), !given.command.is_empty()];
    if asked.iter().filter(|asked| **asked).count() != 1 {
        return Err(CliError::grammar("explain takes one of these: a command, --replay TRAIL or --suite DIR"));
    }
    if given.junit.is_some() && given.suite.is_none() {
        return Err(CliError::grammar("--junit goes with --suite"));
    }
    let folder = given.account_state.as_deref();
    let policy = given.policy.as_deref();
    if let Some(dir) = &given.suite {
        if folder.is_some() || policy.is_some() {
            return Err(CliError::grammar("the cases of a suite name their own account_state and policy"));
        }
        return run_suite(session, dir, given.junit.as_deref());
    }
    if let Some(trail) = &given.replay {
        return replay(session, &state(&apart(session), folder)?, policy, trail);
    }
    let command = read(given.command, session)?;
    let (explanation, caller) = explained(command, folder, policy)?;
    shown(&caller, &explanation)
}

/// A session with the same home and the same caller, of which the program knows nothing: what is out of order in its home is
/// left as it is, and told by the next command that does something.
pub(super) fn apart(session: &Session) -> Session {
    Session::new(Globals { query: None, ..with_those_of(Globals::default(), &session.globals) })
}

/// `globals`, and where they say nothing, what the outer command says.
fn with_those_of(globals: Globals, outer: &Globals) -> Globals {
    Globals {
        home: globals.home.or_else(|| outer.home.clone()),
        passphrase_file: globals.passphrase_file.or_else(|| outer.passphrase_file.clone()),
        output: globals.output.or(outer.output),
        account: globals.account.or_else(|| outer.account.clone()),
        region: globals.region.or_else(|| outer.region.clone()),
        principal: globals.principal.or_else(|| outer.principal.clone()),
        profile: globals.profile.or_else(|| outer.profile.clone()),
        ..globals
    }
}

/// The state in which commands are explained: the folder's, or a copy of the home's. A home that is not there is an empty
/// one, and is not made.
pub(super) fn state(session: &Session, folder: Option<&Path>) -> Result<Home, CliError> {
    if let Some(folder) = folder {
        let (home, passed_over) = explain::load_account_state(folder).map_err(CliError::configuration)?;
        for what in passed_over {
            note(&format!("passed over {what}"));
        }
        return Ok(home);
    }
    if !session.home_path()?.exists() {
        return Ok(Home::scratch()?);
    }
    let home = session.home()?;
    let copy = home.scratch_copy()?;
    kms::RootKey::lend(home, &copy).map_err(failed)?;
    Ok(copy)
}

fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "blockseal: note: {text}");
}

fn failed(error: ServiceError) -> CliError {
    CliError::service("explain", error)
}

/// A command of AWS's, ready to be run.
struct Command {
    service: &'static str,
    operation: &'static Operation,
    request: Value,
    globals: Globals,
}

/// The explanation, and the session in which the command would have run.
fn explained(
    command: Command,
    folder: Option<&Path>,
    policy: Option<&str>,
) -> Result<(Explanation, Session), CliError> {
    let Command { service, operation, request, globals } = command;
    let caller = Session::new(globals);
    let state = state(&caller, folder)?;
    let call = caller.call_in(&state)?;
    if let Some(policy) = policy {
        let wrong = |error: ServiceError| CliError::parameter("--policy", error.message());
        let key = explain::key_of_request(&call, &request).map_err(wrong)?;
        kms::assume_policy(&state, &key, policy).map_err(wrong)?;
    }
    let explanation = explain::explain(&call, service, operation, request).map_err(failed)?;
    Ok((explanation, caller))
}

/// A tree for people, JSON for programs.
fn shown(session: &Session, explanation: &Explanation) -> Result<Outcome, CliError> {
    let outcome = if for_people(session) {
        Outcome::text(explain::text(explanation))
    } else {
        value(session, explanation.to_json())?
    };
    Ok(Outcome { code: explanation.verdict.exit_code(), ..outcome })
}

/// `value` as the session's `--query` picks it: the program's own session may be another.
fn value(session: &Session, value: Value) -> Result<Outcome, CliError> {
    Ok(Outcome::value(match &session.globals.query {
        Some(query) => query.search(&value)?,
        None => value,
    }))
}

fn for_people(session: &Session) -> bool {
    let Globals { query, output, .. } = &session.globals;
    query.is_none() && output.map_or_else(|| session.on_terminal(), |output| output != Output::Json)
}

fn read(words: Vec<String>, outer: &Session) -> Result<Command, CliError> {
    let args = std::iter::once("blockseal".to_owned()).chain(words).map(OsString::from);
    let Parsed::Run(invocation) = grammar::parse(args)? else {
        return Err(CliError::grammar("explain takes a command: blockseal explain ec2 attach-volume --volume-id ..."));
    };
    let Invocation { globals, action, given, extra } = *invocation;
    let Action::Operation(operation) = action else {
        return Err(CliError::grammar(
            "explain takes a command of a service, such as kms decrypt or ec2 attach-volume",
        ));
    };
    let service = api::SERVICES
        .iter()
        .find(|service| service.operations.iter().any(|known| std::ptr::eq(known, operation)))
        .map_or("", |service| service.name);
    let input = match &extra.input_json {
        Some(word) => values::read_input(operation.parameters, word, globals.binary_format)?,
        None => Map::new(),
    };
    let request = Value::Object(crate::cli::request(operation.parameters, input, given, &globals)?);
    Ok(Command { service, operation, request, globals: with_those_of(globals, &outer.globals) })
}

fn replay(session: &Session, state: &Home, policy: Option<&str>, trail: &Path) -> Result<Outcome, CliError> {
    if let Some(policy) = policy {
        kms::assume_policy_everywhere(state, policy)
            .map_err(|error| CliError::parameter("--policy", error.message()))?;
    }
    let records = explain::records(trail).map_err(CliError::configuration)?;
    let replay = explain::replay(state, &records).map_err(CliError::machine)?;
    let changed = !replay.changed.is_empty();
    let outcome = if for_people(session) {
        Outcome::text(explain::replay_text(&replay))
    } else {
        Outcome::value(serde_json::to_value(&replay).map_err(CliError::machine)?)
    };
    Ok(if changed { outcome.failed() } else { outcome })
}

fn run_suite(session: &Session, dir: &Path, junit: Option<&Path>) -> Result<Outcome, CliError> {
    let ran = suite::run(dir, |case, dir| one_case(session, case, dir).map_err(|error| error.report(false)))
        .map_err(CliError::configuration)?;
    if let Some(file) = junit {
        std::fs::write(file, suite::junit(&ran)).map_err(CliError::machine)?;
    }
    let outcome =
        if for_people(session) { Outcome::text(suite::text(&ran)) } else { Outcome::value(suite::to_json(&ran)) };
    Ok(if ran.iter().any(|case| case.failure.is_some()) { outcome.failed() } else { outcome })
}

fn one_case(session: &Session, case: &suite::Case, dir: &Path) -> Result<Explanation, CliError> {
    let folder = case.account_state.as_ref().map(|folder| dir.join(folder));
    let policy = match &case.policy {
        None => None,
        Some(Value::String(text)) => match text.strip_prefix("file://") {
            Some(file) => Some(values::text("policy", &format!("file://{}", dir.join(file).display()))?),
            None => Some(text.clone()),
        },
        Some(policy) => Some(policy.to_string()),
    };
    let mut words = case.command.words();
    if let Some(principal) = &case.principal {
        words.extend(["--principal".to_owned(), principal.clone()]);
    }
    let command = read(words, session)?;
    Ok(explained(command, folder.as_deref(), policy.as_deref())?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{Protection, without};

    /// The cases of `docs/explain.md`, in the order of their files: what each expects, and whether it went so.
    fn golden() -> Vec<(String, bool)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/explain/cases");
        let base = tempfile::tempdir().unwrap();
        let session = Session::new(Globals { home: Some(base.path().join("home")), ..Globals::default() });
        let mut expected = Vec::new();
        let ran = suite::run(&dir, |case, dir| {
            expected.push(case.expect.outcome.clone());
            one_case(&session, case, dir).map_err(|error| error.report(false))
        });
        let ran = ran.unwrap();
        assert!(!base.path().join("home").exists(), "a case with a state of its own needs no home");
        assert_eq!(ran.len(), expected.len(), "every file is a case");
        for case in &ran {
            if let Some(failure) = &case.failure {
                eprintln!("{}: {failure}", case.file.display());
            }
        }
        expected.into_iter().zip(ran.iter().map(|case| case.failure.is_none())).collect()
    }

    #[test]
    fn every_golden_case_comes_to_what_it_expects() {
        let cases = golden();
        assert!(cases.len() >= 20);
        assert!(cases.iter().all(|(_, right)| *right));
        for outcome in ["allowed", "refused", "undetermined"] {
            assert!(cases.iter().any(|(expected, _)| expected == outcome), "{outcome}");
        }
        // The twin: where neither policies nor a key's state keep anybody out, no refusal comes true.
        let without_any = without(Protection::Policy, || without(Protection::KeyState, golden));
        for (number, (expected, right)) in without_any.iter().enumerate() {
            assert!(expected != "refused" || !right, "case {} is refused by nothing", number + 1);
        }
    }
}
