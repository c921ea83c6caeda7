//! `docs/api.md`, which is made from the table of operations and kept true by this test.
//!
//! `BLOCKSEAL_BLESS=1 cargo test --test all api_page` writes it anew.

use std::fmt::Write as _;

use blockseal::api::{Form, Kind, Need, Operation, Parameter, SERVICES, Wire};

use crate::harness::root;

const HEAD: &str = "\
# What is supported

Made from the table of operations by `tests/api_page.rs`, which fails when this page is not what the table says. Parameters are spelled as in the
AWS API; below a list or a structure stand its members. *Required* and *ours* (AWS has no such parameter) are said; *assumed* behaviour is said on the page
of its subject: [kms.md](kms.md), [iam.md](iam.md), [volumes.md](volumes.md), [trail.md](trail.md), [serve.md](serve.md). What is not listed is not there: over HTTP
it is answered with `UnsupportedOperation` (501) or refused as a parameter that is unknown.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for service in SERVICES {
        let wire = Wire::of(service.name).unwrap();
        let (protocol, version) = match wire.form {
            Form::Json { target } => ("AWS JSON 1.1", format!("target `{target}`")),
            Form::Ec2 { version, .. } => ("EC2 Query", format!("version {version}")),
            Form::Query { version, .. } => ("Query", format!("version {version}")),
            _ => panic!("a protocol that this page does not know"),
        };
        let (refused, supported): (Vec<&Operation>, Vec<&Operation>) =
            service.operations.iter().partition(|operation| operation.help.starts_with("Not supported"));
        let _ = write!(page, "\n## {}\n\n{}. {protocol}, {version}.\n", service.name, service.help);
        for operation in supported {
            let _ = write!(page, "\n### {}\n\n{}.", operation.name, operation.help.trim_end_matches('.'));
            if let Some(paging) = operation.paging {
                let _ = write!(page, " In pages of `{}`: `{}`, `{}`.", paging.limit, paging.input, paging.output);
            }
            page.push('\n');
            if !operation.parameters.is_empty() {
                page.push('\n');
            }
            parameters(operation.parameters, 0, &mut page);
        }
        if !refused.is_empty() {
            let names: Vec<_> = refused.iter().map(|operation| format!("`{}`", operation.name)).collect();
            let _ = write!(page, "\n### Refused by name\n\n{}.\n", names.join(", "));
        }
    }
    page
}

fn parameters(parameters_: &[Parameter], depth: usize, page: &mut String) {
    for parameter in parameters_ {
        let _ = write!(page, "{}- `{}` ({}", "  ".repeat(depth), parameter.name, kind(parameter.kind));
        if parameter.need == Need::Required {
            page.push_str(", required");
        }
        if parameter.ours {
            page.push_str(", *ours*");
        }
        page.push(')');
        if !parameter.help.is_empty() {
            let _ = write!(page, ": {}", parameter.help.trim_end_matches('.'));
        }
        page.push('\n');
        if let Kind::Structure(members) | Kind::List(&Kind::Structure(members)) = parameter.kind {
            parameters(members, depth + 1, page);
        }
    }
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Choice(choices) => choices.join(" \\| "),
        Kind::List(member) => format!("list of {}", self::kind(*member)),
        Kind::Map(member) => format!("map to {}", self::kind(*member)),
        other => other.name().to_owned(),
    }
}

#[test]
fn the_page_is_what_the_table_says() {
    let path = root().join("docs/api.md");
    let page = page();
    if std::env::var_os("BLOCKSEAL_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    let differs = found.lines().zip(page.lines()).find(|(found, made)| found != made);
    assert!(found == page, "docs/api.md is not what the table says; first difference: {differs:?}");
}
