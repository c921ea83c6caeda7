//! A command line read by the grammar of [`tree`]: plain data, nothing looked up and nothing done.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;

use super::own::{self, Own, Verb};
use super::tree::{self, HELP, TOPIC};
use super::values::shown_name;
use super::{BinaryFormat, CliError, Globals, Output, Query};
use crate::api::{Kind, Need, Operation, Parameter, SERVICES};
use crate::iam::Principal;

/// What a command line asks for. Nothing is looked up yet and nothing is done.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Text to print: help, or the version.
    Print(String),
    /// A command to run.
    Run(Box<Invocation>),
}

/// A command with what was given to it.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) globals: Globals,
    pub(super) action: Action,
    /// The words given for each parameter.
    pub(super) given: Vec<(&'static Parameter, Given)>,
    pub(super) extra: Extra,
}

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Operation(&'static Operation),
    Verb(&'static Verb),
}

impl Action {
    pub(super) fn parameters(self) -> &'static [Parameter] {
        match self {
            Self::Operation(operation) => operation.parameters,
            Self::Verb(verb) => verb.parameters,
        }
    }
}

/// What was given for one parameter.
#[derive(Debug)]
pub(super) enum Given {
    Switch(bool),
    Words(Vec<String>),
}

/// Options that operations have besides their parameters.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) input_json: Option<String>,
    pub(super) skeleton: bool,
    pub(super) max_items: Option<u64>,
    pub(super) page_size: Option<u64>,
    pub(super) starting_token: Option<String>,
}

/// Reads a command line, the program's own name in front.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, CliError> {
    let matches = match tree::tree().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            return Ok(Parsed::Print(error.render().to_string()));
        }
        Err(error) => return Err(explain(&error)),
    };
    let mut path = Vec::new();
    let mut leaf = &matches;
    while let Some((name, below)) = leaf.subcommand() {
        if name == HELP {
            let below = below.get_many::<String>(TOPIC).unwrap_or_default().map(String::as_str);
            return help(&path.into_iter().chain(below).collect::<Vec<_>>());
        }
        path.push(name);
        leaf = below;
    }
    if leaf.get_flag(tree::HELP_FLAG) {
        return help(&path);
    }
    let missing = |what| Err(CliError::grammar(format!("the following arguments are required: {what}")));
    let action = match path[..] {
        [] => return missing("command"),
        [first] => match own::COMMANDS.iter().find(|own| own.name() == first) {
            Some(Own::Verb(verb)) => Action::Verb(verb),
            _ => return missing("operation"),
        },
        [first, second, ..] => match find(first, second) {
            Some(action) => action,
            None => return missing("operation"),
        },
    };
    let extra = match action {
        Action::Operation(operation) => extra(operation, leaf)?,
        Action::Verb(_) => Extra::default(),
    };
    let given = given(action.parameters(), leaf);
    let can_be_missing = extra.skeleton || extra.input_json.is_some();
    let required: Vec<_> = action
        .parameters()
        .iter()
        .filter(|parameter| parameter.need == Need::Required && !can_be_missing)
        .filter(|parameter| !given.iter().any(|(known, _)| known.name == parameter.name))
        .map(shown_name)
        .collect();
    if !required.is_empty() {
        return missing(&required.join(", "));
    }
    Ok(Parsed::Run(Box::new(Invocation { globals: globals(leaf)?, action, given, extra })))
}

fn find(first: &str, second: &str) -> Option<Action> {
    if let Some(service) = SERVICES.iter().find(|service| service.name == first) {
        let operation = service.operations.iter().find(|operation| operation.command() == second);
        if let Some(operation) = operation {
            return Some(Action::Operation(operation));
        }
    }
    own::COMMANDS.iter().find_map(|own| match own {
        Own::Group(group) if group.name == first => {
            group.verbs.iter().find(|verb| verb.name == second).map(Action::Verb)
        }
        Own::InService(service, verb) if *service == first && verb.name == second => Some(Action::Verb(verb)),
        _ => None,
    })
}

fn given(parameters: &'static [Parameter], matches: &ArgMatches) -> Vec<(&'static Parameter, Given)> {
    let mut given = Vec::new();
    for parameter in parameters {
        if matches.value_source(parameter.name) != Some(ValueSource::CommandLine) {
            let no = matches!(parameter.kind, Kind::Boolean) && matches.get_flag(&tree::negated(parameter.name));
            if no {
                given.push((parameter, Given::Switch(false)));
            }
            continue;
        }
        given.push(match parameter.kind {
            Kind::Boolean => (parameter, Given::Switch(true)),
            _ => (parameter, Given::Words(matches.get_many(parameter.name).unwrap_or_default().cloned().collect())),
        });
    }
    given
}

fn extra(operation: &Operation, matches: &ArgMatches) -> Result<Extra, CliError> {
    let mut extra = Extra {
        input_json: matches.get_one(tree::INPUT_JSON).cloned(),
        skeleton: matches.contains_id(tree::SKELETON),
        ..Extra::default()
    };
    if operation.paging.is_some() {
        extra.max_items = matches.get_one(tree::MAX_ITEMS).copied();
        extra.page_size = matches.get_one(tree::PAGE_SIZE).copied();
        extra.starting_token = matches.get_one(tree::STARTING_TOKEN).cloned();
        let paging = [
            ("--max-items", extra.max_items.is_some()),
            ("--page-size", extra.page_size.is_some()),
            ("--starting-token", extra.starting_token.is_some()),
        ];
        let paging: Vec<_> = paging.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect();
        if matches.get_flag(tree::NO_PAGINATE) && !paging.is_empty() {
            return Err(CliError::value(format!(
                "Cannot specify --no-paginate along with pagination arguments: {}",
                paging.join(", ")
            )));
        }
    }
    Ok(extra)
}

fn globals(matches: &ArgMatches) -> Result<Globals, CliError> {
    fn parsed<T: FromStr<Err: Display>>(matches: &ArgMatches, id: &str, name: &str) -> Result<Option<T>, CliError> {
        let text: Option<&String> = matches.get_one(id);
        text.map(|text| text.parse().map_err(|error: T::Err| CliError::parameter(name, error.to_string()))).transpose()
    }
    let word = |id| matches.get_one::<String>(id).map(String::as_str);
    Ok(Globals {
        home: matches.get_one::<PathBuf>(tree::HOME).cloned(),
        passphrase_file: matches.get_one::<PathBuf>(tree::PASSPHRASE_FILE).cloned(),
        output: match word(tree::OUTPUT) {
            Some("table") => Some(Output::Table),
            Some("text") => Some(Output::Text),
            Some(_) => Some(Output::Json),
            None => None,
        },
        query: word(tree::QUERY).map(Query::new).transpose()?,
        account: parsed(matches, tree::ACCOUNT, "--account")?,
        region: parsed(matches, tree::REGION, "--region")?,
        principal: principal(matches)?,
        profile: word(tree::PROFILE).map(str::to_owned),
        binary_format: match word(tree::BINARY_FORMAT) {
            Some("raw-in-base64-out") => BinaryFormat::RawInBase64Out,
            _ => BinaryFormat::Base64,
        },
        paginate: !matches.get_flag(tree::NO_PAGINATE),
    })
}

/// Who calls, as it was given; that it names somebody is checked here, in which account it is found when it is known.
fn principal(matches: &ArgMatches) -> Result<Option<String>, CliError> {
    let Some(text) = matches.get_one::<String>(tree::PRINCIPAL) else { return Ok(None) };
    let any = super::DEFAULT_ACCOUNT.parse().map_err(CliError::machine)?;
    match Principal::parse_in(text, &any) {
        Ok(_) => Ok(Some(text.clone())),
        Err(error) => Err(CliError::parameter("--principal", error.to_string())),
    }
}

fn help(path: &[&str]) -> Result<Parsed, CliError> {
    match tree::help(path) {
        Some(text) => Ok(Parsed::Print(text)),
        None => Err(CliError::grammar(format!("there is no help on '{}': no such command", path.join(" ")))),
    }
}

/// What the AWS CLI says about a command line that does not follow its grammar.
fn explain(error: &clap::Error) -> CliError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    // `--key-id <string>` is how clap names an option.
    let option = || {
        let name = context(ContextKind::InvalidArg).unwrap_or_default();
        name.split(' ').next().unwrap_or_default().to_owned()
    };
    let maybe = |suggestions: Option<Vec<String>>| {
        suggestions.filter(|words| !words.is_empty()).map_or_else(String::new, |words| {
            words.iter().fold("\n\nmaybe you meant:\n".to_owned(), |text, word| format!("{text}\n  * {word}"))
        })
    };
    let suggested = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(vec![text.clone()]),
        Some(ContextValue::Strings(texts)) => Some(texts.clone()),
        _ => None,
    };
    CliError::grammar(match error.kind() {
        ErrorKind::InvalidSubcommand => format!(
            "Invalid choice: '{}'{}",
            context(ContextKind::InvalidSubcommand).unwrap_or_default(),
            maybe(suggested(ContextKind::SuggestedSubcommand))
        ),
        ErrorKind::UnknownArgument => {
            format!("Unknown options: {}{}", option(), maybe(suggested(ContextKind::SuggestedArg)))
        }
        ErrorKind::ArgumentConflict => format!(
            "argument {}: not allowed with argument {}",
            option(),
            context(ContextKind::PriorArg).unwrap_or_default()
        ),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8; give such bytes as fileb://FILE".to_owned(),
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            match context(ContextKind::InvalidValue).filter(|value| !value.is_empty()) {
                Some(value) => format!(
                    "argument {}: Invalid choice: '{value}', valid choices are: {}",
                    option(),
                    context(ContextKind::ValidValue).unwrap_or_default()
                ),
                None => format!("argument {}: expected one argument", option()),
            }
        }
        _ => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    })
}
