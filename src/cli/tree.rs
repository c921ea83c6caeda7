//! Every command with its options, built from the table of operations and the list of our own verbs.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, value_parser};

use super::own::{self, Own, Verb};
use crate::api::{Kind, Need, Operation, Parameter, SERVICES};

pub(super) const HELP: &str = "help";
pub(super) const TOPIC: &str = "topic";

// Identifiers of options that are no parameter; the space keeps them apart from every AWS name.
pub(super) const HOME: &str = "global home";
pub(super) const PASSPHRASE_FILE: &str = "global passphrase-file";
pub(super) const OUTPUT: &str = "global output";
pub(super) const QUERY: &str = "global query";
pub(super) const ACCOUNT: &str = "global account";
pub(super) const REGION: &str = "global region";
pub(super) const PRINCIPAL: &str = "global principal";
pub(super) const PROFILE: &str = "global profile";
pub(super) const BINARY_FORMAT: &str = "global cli-binary-format";
pub(super) const NO_PAGINATE: &str = "global no-paginate";
const NO_CLI_PAGER: &str = "global no-cli-pager";
pub(super) const HELP_FLAG: &str = "global help";
pub(super) const INPUT_JSON: &str = "extra cli-input-json";
pub(super) const SKELETON: &str = "extra generate-cli-skeleton";
pub(super) const MAX_ITEMS: &str = "extra max-items";
pub(super) const PAGE_SIZE: &str = "extra page-size";
pub(super) const STARTING_TOKEN: &str = "extra starting-token";

/// The help of the command at `path`; `None` if there is no such command. Options that every command takes are listed
/// once, at the top.
pub(super) fn help(path: &[&str]) -> Option<String> {
    let mut tree = tree();
    tree.build();
    let mut command = path.iter().try_fold(&mut tree, |command, name| command.find_subcommand_mut(name))?.clone();
    if !path.is_empty() {
        for option in global_options() {
            command = command.mut_arg(option.get_id(), |option| option.hide(true));
        }
        command = command.after_help("Options that every command takes: blockseal help");
    }
    Some(command.render_help().to_string())
}

/// The identifier of the switch that says no to the boolean `name`.
pub(super) fn negated(name: &str) -> String {
    format!("no {name}")
}

/// The whole grammar, for parsing, help and completions.
pub(super) fn tree() -> Command {
    let mut tree = Command::new("blockseal")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Storage encryption as RDS on EBS does it, real down to the bytes on disk")
        .override_usage("blockseal [options] <command> <subcommand> [parameters]")
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .args_override_self(true)
        .args(global_options());
    for service in SERVICES {
        let operations = service.operations.iter().map(|operation| operation_command(service.name, operation));
        let ours = own::COMMANDS.iter().filter_map(|own| match own {
            Own::InService(of, verb) if *of == service.name => {
                Some(verb_command(&format!("{} {}", service.name, verb.name), verb))
            }
            _ => None,
        });
        tree = tree.subcommand(branch(service.name, service.help).subcommands(operations.chain(ours)));
    }
    for own in own::COMMANDS {
        tree = match own {
            Own::Group(group) => {
                let verbs = group.verbs.iter().map(|verb| verb_command(&format!("{} {}", group.name, verb.name), verb));
                tree.subcommand(branch(group.name, group.help).subcommands(verbs))
            }
            Own::Verb(verb) => tree.subcommand(verb_command(verb.name, verb)),
            // Listed with its service.
            Own::InService(..) => tree,
        };
    }
    tree.subcommand(help_command().about("Shows help: blockseal help [command [subcommand]]"))
}

fn branch(name: &'static str, help: &'static str) -> Command {
    Command::new(name)
        .about(help)
        .override_usage(format!("blockseal [options] {name} <subcommand> [parameters]"))
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .subcommand(help_command().hide(true))
}

fn help_command() -> Command {
    Command::new(HELP).arg(Arg::new(TOPIC).num_args(0..).hide(true))
}

fn operation_command(service: &str, operation: &'static Operation) -> Command {
    let name = operation.command();
    let path = format!("{service} {name}");
    leaf(name, &path, operation.help, operation.parameters).args(extra_options(operation))
}

fn verb_command(path: &str, verb: &'static Verb) -> Command {
    leaf(verb.name.to_owned(), path, verb.help, verb.parameters)
}

fn leaf(name: String, path: &str, help: &'static str, parameters: &'static [Parameter]) -> Command {
    let mut usage = format!("blockseal {path}");
    for parameter in parameters.iter().filter(|parameter| parameter.need == Need::Required || parameter.positional) {
        let word = if parameter.positional {
            parameter.option().to_uppercase()
        } else {
            format!("--{} {}", parameter.option(), value_name(parameter.kind))
        };
        let word = if parameter.need == Need::Required { word } else { format!("[{word}]") };
        usage = format!("{usage} {word}");
    }
    Command::new(name)
        .about(help)
        .override_usage(format!("{usage} [options]"))
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .subcommand(help_command().hide(true))
        .args(parameters.iter().flat_map(parameter_options))
}

/// The option of a parameter, and for a switch the one that says no.
fn parameter_options(parameter: &'static Parameter) -> Vec<Arg> {
    let help = parameter_help(parameter);
    let arg = Arg::new(parameter.name).help(help).help_heading("Parameters");
    if parameter.positional {
        let arg = arg.value_name(parameter.option().to_uppercase()).help_heading("Operands");
        let arg = match parameter.kind {
            // A command with options of its own, and so the last of the line.
            Kind::List(_) => arg.num_args(0..).trailing_var_arg(true).allow_hyphen_values(true),
            _ => arg.allow_negative_numbers(true),
        };
        return vec![arg];
    }
    let option = parameter.option();
    match parameter.kind {
        Kind::Boolean => {
            let no = Arg::new(negated(parameter.name))
                .long(format!("no-{option}"))
                .action(ArgAction::SetTrue)
                .conflicts_with(parameter.name)
                .help("The opposite")
                .help_heading("Parameters");
            vec![arg.long(option).action(ArgAction::SetTrue), no]
        }
        kind => {
            let arg = arg.long(option).value_name(value_name(kind)).allow_negative_numbers(true);
            vec![if matches!(kind, Kind::List(_)) { arg.num_args(0..) } else { arg.num_args(1) }]
        }
    }
}

fn parameter_help(parameter: &Parameter) -> String {
    let mut help = parameter.help.trim_end_matches('.').to_owned();
    match parameter.need {
        Need::Required if !parameter.positional => help.push_str(" [required]"),
        Need::Obvious => help.push_str(" [AWS requires it; here it may be left out]"),
        Need::Required | Need::Optional => {}
    }
    let kind = if let Kind::List(member) = parameter.kind { *member } else { parameter.kind };
    if let Kind::Choice(choices) = kind {
        help = format!("{help} [{}]", choices.join(" | "));
    }
    if parameter.ours && !parameter.positional {
        help.push_str(" [ours, not in AWS]");
    }
    help
}

/// A type as help shows it, complex ones in shorthand: `KeyName1=string,KeyName2=string`.
fn value_name(kind: Kind) -> String {
    match kind {
        Kind::List(member) => shorthand(*member, true),
        kind => shorthand(kind, true),
    }
}

fn shorthand(kind: Kind, outermost: bool) -> String {
    let text = match kind {
        Kind::Map(member) => format!("KeyName1={0},KeyName2={0}", shorthand(*member, false)),
        Kind::Structure(members) => members
            .iter()
            .map(|member| format!("{}={}", member.name, shorthand(member.kind, false)))
            .collect::<Vec<_>>()
            .join(","),
        Kind::List(member) => return format!("[{0},{0}]", shorthand(*member, false)),
        kind => return kind.name().to_owned(),
    };
    if outermost { text } else { format!("{{{text}}}") }
}

/// What every operation takes besides its parameters.
fn extra_options(operation: &Operation) -> Vec<Arg> {
    let option = |id, name, value, help| {
        Arg::new(id).long(name).value_name(value).num_args(1).help(help).help_heading("Input and pages")
    };
    let mut options = vec![
        option(
            INPUT_JSON,
            "cli-input-json",
            "JSON",
            "Members of the request as JSON or file://FILE; options win over them",
        ),
        option(
            SKELETON,
            "generate-cli-skeleton",
            "input",
            "Prints an empty request for --cli-input-json and does nothing",
        )
        .num_args(0..=1)
        .default_missing_value("input")
        .value_parser(PossibleValuesParser::new(["input"])),
    ];
    if operation.paging.is_some() {
        let number = |id, name, help| option(id, name, "integer", help).value_parser(value_parser!(u64).range(1..));
        options.extend([
            number(MAX_ITEMS, "max-items", "The most items to print; NextToken goes on from there"),
            number(PAGE_SIZE, "page-size", "How many items one call asks for; all are printed anyway"),
            option(STARTING_TOKEN, "starting-token", "string", "Goes on where --max-items stopped: its NextToken"),
        ]);
    }
    options
}

/// What every command takes, in front of it or behind it.
fn global_options() -> Vec<Arg> {
    let option = |id: &'static str, value: &'static str, help: &'static str| {
        let name = id.split_once(' ').map_or(id, |(_, name)| name);
        let arg = Arg::new(id).long(name).global(true).help(help).help_heading("Global options");
        if value.is_empty() { arg.action(ArgAction::SetTrue) } else { arg.value_name(value).num_args(1) }
    };
    vec![
        option(HOME, "DIR", "Where keys, volumes and trail are kept [BLOCKSEAL_HOME, else in the XDG data directory]")
            .value_parser(value_parser!(std::path::PathBuf)),
        option(
            PASSPHRASE_FILE,
            "FILE",
            "Holds the passphrase of which the root key is made [BLOCKSEAL_PASSPHRASE_FILE, else the key is a file]",
        )
        .value_parser(value_parser!(std::path::PathBuf)),
        option(OUTPUT, "format", "How results are printed [default: json]")
            .value_parser(PossibleValuesParser::new(["json", "table", "text"])),
        option(QUERY, "JMESPath", "What of a result is printed"),
        option(ACCOUNT, "id", "The account that is meant [default: 123456789012]"),
        option(REGION, "name", "The Region that is meant [AWS_REGION, AWS_DEFAULT_REGION, else us-east-1]"),
        option(PRINCIPAL, "ARN", "Who calls [default: the root of the account]"),
        option(PROFILE, "name", "Principal, account and Region of that name in the home's file config"),
        option(BINARY_FORMAT, "format", "How blobs are given; fileb:// is always bytes [default: base64]")
            .value_parser(PossibleValuesParser::new(["base64", "raw-in-base64-out"])),
        option(NO_PAGINATE, "", "Makes one call and prints its page as it is"),
        option(NO_CLI_PAGER, "", "Accepted as in the AWS CLI: there is no pager here"),
        option(HELP_FLAG, "", "Shows help, as does the word help behind a command").short('h'),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_has_no_two_options_of_one_name() {
        tree().debug_assert();
    }
}
