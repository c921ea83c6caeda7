//! The command line: parse, call an operation, render.
//!
//! The grammar is the AWS CLI v2's and is built from the table in [`crate::api`]; verbs of our own stand in [`own`].

mod error;
mod grammar;
mod hints;
pub mod own;
mod paging;
mod passphrase;
mod profile;
mod progress;
mod query;
mod render;
mod session;
mod shorthand;
mod tree;
mod values;

pub use error::CliError;
pub use progress::Progress;
pub use query::Query;
pub use session::{BinaryFormat, DEFAULT_ACCOUNT, DEFAULT_REGION, Globals, Output, Session};

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use self::grammar::{Action, Extra, Given, Invocation, Parsed};
use self::own::{Body, Outcome};
use crate::api::{self, Parameter};

/// Runs a command line, the program's own name in front, and answers its exit code: 0; 1 for *refused, differs or
/// damaged*; 252 usage; 253 configuration; 254 service error; 255 anything else.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = io::stderr();
            // Where standard error is closed too there is nobody left to tell.
            let _ = stderr.write_all(error.report(stderr.is_terminal()).as_bytes());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: impl IntoIterator<Item = OsString>) -> Result<u8, CliError> {
    let Invocation { globals, action, given, extra } = match grammar::parse(args)? {
        Parsed::Print(text) => return print(text.as_bytes()).map(|()| 0),
        Parsed::Run(invocation) => *invocation,
    };
    if extra.skeleton {
        return show(&Globals::default(), "", values::skeleton(action.parameters())).map(|()| 0);
    }
    let input = match &extra.input_json {
        Some(word) => values::read_input(action.parameters(), word, globals.binary_format)?,
        None => Map::new(),
    };
    let request = request(action.parameters(), input, given, &globals)?;
    let session = Session::new(globals);
    let outcome = perform(&session, action, request, &extra);
    tell_notices(&session);
    if crate::secret::unlocked_bytes() > 0 {
        let told = "keys lay in memory that could not be locked and may have reached swap; raise ulimit -l";
        let _ = writeln!(io::stderr(), "blockseal: note: {told}");
    }
    outcome
}

fn perform(session: &Session, action: Action, request: Map<String, Value>, extra: &Extra) -> Result<u8, CliError> {
    match action {
        Action::Operation(operation) => {
            let (result, next) = paging::call(session, operation, request, extra)?;
            show_page(&session.globals, operation.name, result, next)?;
            Ok(0)
        }
        Action::Verb(verb) => {
            let Outcome { body, code } = (verb.run)(session, Value::Object(request))?;
            match body {
                Body::Nothing => {}
                Body::Text(text) => print(text.as_bytes())?,
                Body::Value(value) => show(&session.globals, verb.name, value)?,
            }
            Ok(code)
        }
    }
}

/// Says what was found out of order, on standard error: an exporter that died is reported by the next command, whatever
/// that command is about.
fn tell_notices(session: &Session) {
    let Some(home) = session.opened_home() else { return };
    let notices = crate::ec2::repair(home).and_then(|()| crate::ec2::take_notices(home));
    // The command's own outcome stands; what cannot be told now is told later.
    for notice in notices.unwrap_or_default() {
        let _ = writeln!(io::stderr(), "blockseal: note: {notice}");
    }
}

/// The request that a command line means: the input's members, and over them what was given as options.
fn request(
    parameters: &'static [Parameter],
    input: Map<String, Value>,
    given: Vec<(&'static Parameter, Given)>,
    globals: &Globals,
) -> Result<Map<String, Value>, CliError> {
    let mut request = input;
    for (parameter, given) in given {
        let value = match given {
            Given::Switch(on) => on.into(),
            Given::Words(words) => values::read(parameter, words, globals.binary_format)?,
        };
        request.insert(parameter.name.to_owned(), value);
    }
    for parameter in parameters {
        if let Some(number) = parameter.filled {
            request.entry(parameter.name).or_insert_with(|| number.into());
        }
    }
    let complaints = api::validate(parameters, &request);
    if complaints.is_empty() {
        Ok(request)
    } else {
        Err(CliError::value(format!("Parameter validation failed:\n{}", complaints.join("\n"))))
    }
}

/// Prints a result and the token with which `--starting-token` goes on; in text that is a line of its own, as the AWS
/// CLI has it, whatever `--query` picks.
fn show_page(globals: &Globals, title: &str, mut result: Value, next: Option<String>) -> Result<(), CliError> {
    match (next, &mut result) {
        (Some(token), Value::Object(members)) if globals.output != Some(Output::Text) => {
            members.insert("NextToken".to_owned(), token.into());
            show(globals, title, result)
        }
        (Some(token), _) => {
            show(globals, title, result)?;
            print(format!("NEXTTOKEN\t{token}\n").as_bytes())
        }
        (None, _) => show(globals, title, result),
    }
}

/// Prints a result. It may hold a plaintext data key, so that nothing of it is left in memory afterwards.
fn show(globals: &Globals, title: &str, mut result: Value) -> Result<(), CliError> {
    if let Some(query) = &globals.query {
        let found = query.search(&result)?;
        api::wipe(&mut result);
        result = found;
    }
    let width = if io::stdout().is_terminal() { comfy_table::Table::new().width() } else { None };
    let mut text = Zeroizing::new(Vec::with_capacity(OUTPUT_CAPACITY));
    let rendered = render::render(&result, globals.output.unwrap_or_default(), title, width, &mut *text);
    api::wipe(&mut result);
    rendered?;
    print(&text)
}

/// Room for any result with a plaintext in it, so that the buffer is not moved while it grows.
const OUTPUT_CAPACITY: usize = 64 << 10;

fn print(text: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything of a run that comes before the operation.
    fn read(args: Vec<OsString>) -> Result<(), CliError> {
        let Parsed::Run(invocation) = grammar::parse(args)? else { return Ok(()) };
        let Invocation { globals, action, given, extra } = *invocation;
        let input = match &extra.input_json {
            Some(word) => values::read_input(action.parameters(), word, globals.binary_format)?,
            None => Map::new(),
        };
        request(action.parameters(), input, given, &globals).map(|_| ())
    }

    /// The words of the grammar, so that generated command lines get past its first branch.
    fn words() -> Vec<String> {
        let mut words: Vec<String> =
            ["--", "-", "-h", "help", "--version", "a=1,b=[{c=d}]", "{\"a\": [1]}", "[", "-1", "7d"]
                .map(str::to_owned)
                .to_vec();
        for command in tree::tree().get_subcommands() {
            for command in std::iter::once(command).chain(command.get_subcommands()) {
                words.push(command.get_name().to_owned());
                words.extend(command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))));
            }
        }
        words
    }

    fn argument() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => proptest::sample::select(words()),
            1 => "\\PC{0,20}",
            1 => "(--)?[a-z-]{0,12}(=[\\PC]{0,8})?",
            1 => "file://[a-z]{0,3}/[\\PC]{0,5}",
        ]
    }

    fn command_line() -> impl Strategy<Value = Vec<OsString>> {
        let operations: Vec<_> = api::SERVICES
            .iter()
            .flat_map(|service| service.operations.iter().map(|operation| (service.name, operation.command())))
            .collect();
        let start = prop_oneof![
            3 => proptest::sample::select(operations).prop_map(|(service, operation)| vec![service.to_owned(), operation]),
            1 => Just(Vec::new()),
        ];
        (start, proptest::collection::vec(argument(), 0..8)).prop_map(|(start, rest)| {
            std::iter::once("blockseal".to_owned()).chain(start).chain(rest).map(OsString::from).collect()
        })
    }

    proptest! {
        #[test]
        fn no_command_line_panics(args in command_line()) {
            if let Err(error) = read(args) {
                prop_assert_eq!(error.exit_code(), 252);
                prop_assert!(error.report(true).starts_with('\n'));
            }
        }
    }

    #[test]
    fn a_request_is_the_input_under_the_options() {
        let parse = |args: &[&str]| {
            let args = std::iter::once("blockseal").chain(args.iter().copied()).map(OsString::from);
            let Ok(Parsed::Run(invocation)) = grammar::parse(args) else { panic!("no command") };
            *invocation
        };
        let Invocation { globals, action, given, .. } =
            parse(&["kms", "create-key", "--description", "d", "--no-multi-region"]);
        let input = serde_json::from_str(r#"{"Description": "i", "Policy": "p"}"#).unwrap();
        let request = request(action.parameters(), input, given, &globals).unwrap();
        assert_eq!(
            Value::Object(request),
            serde_json::json!({"Description": "d", "Policy": "p", "MultiRegion": false})
        );
    }
}
