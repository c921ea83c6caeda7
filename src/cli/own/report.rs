//! `trail report`: what the trail tells of one key, for people, programs and eyes.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::{Outcome, Verb, arguments};
use crate::api::{Kind, Parameter};
use crate::cli::session::Output;
use crate::cli::{CliError, Session};
use crate::clock::Time;
use crate::kms;
use crate::trail::{self, KeyReport, ReportError, ReportQuery};

pub(super) const REPORT: Verb = Verb {
    name: "report",
    help: "Who used a key, for which volume, when, through which service, what was refused, and how near to the quotas",
    parameters: &[
        Parameter::string("KeyId", "A key id, key ARN or alias; with --from an id or ARN.").required().ours(),
        Parameter::string("From", "A folder of CloudTrail log files (.json, .json.gz), instead of this home's trail.")
            .ours(),
        Parameter::string("Svg", "A file for a picture of the calls over time.").ours(),
        Parameter::new("StartTime", Kind::Timestamp, "Not before.").ours(),
        Parameter::new("EndTime", Kind::Timestamp, "Not after.").ours(),
    ],
    run: report,
};

/// Most rows of a table for people; JSON has all.
const ROWS: usize = 20;

fn report(session: &Session, given: Value) -> Result<Outcome, CliError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given {
        key_id: String,
        from: Option<PathBuf>,
        svg: Option<PathBuf>,
        start_time: Option<Time>,
        end_time: Option<Time>,
    }
    let given: Given = arguments(given)?;
    let query = |key| ReportQuery { key, start: given.start_time, end: given.end_time };
    let told = if let Some(from) = &given.from {
        if given.key_id.contains("alias/") {
            let why = "what an alias stands for is not in log files: give the key's id or ARN".to_owned();
            return Err(CliError::parameter("--key-id", why));
        }
        trail::of_folder(from, &query(given.key_id))
    } else {
        let call = session.call()?;
        // A key that is gone still has its records.
        let key = kms::arn_of(&call, &given.key_id).unwrap_or(given.key_id);
        trail::of_home(call.home, &query(key))
    };
    let told = told.map_err(|error| match error {
        ReportError::Folder(error) => CliError::parameter("--from", crate::gate::chain(&error)),
        other => CliError::machine(other),
    })?;
    if let Some(path) = &given.svg {
        std::fs::write(path, trail::timeline(&told))
            .map_err(|error| CliError::parameter("--svg", format!("cannot write {}: {error}", path.display())))?;
    }
    let globals = &session.globals;
    let for_people = globals.output.map_or_else(|| session.on_terminal(), |output| output == Output::Table);
    if for_people && globals.query.is_none() {
        return Ok(Outcome::text(text(&told.report)));
    }
    Ok(Outcome::value(serde_json::to_value(&told.report).map_err(CliError::machine)?))
}

fn text(report: &KeyReport) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words.trim_end());
        text.push('\n');
    };
    for key in &report.keys {
        line(key);
    }
    match (&report.first, &report.last) {
        (Some(first), Some(last)) => {
            line(&format!("{} calls, {} refused or failed, {first} to {last}", report.calls, report.refused));
        }
        _ => line("no call of this key is recorded"),
    }
    let callers = report.callers.iter().map(|caller| {
        let through = caller.through.clone().unwrap_or_else(|| "-".to_owned());
        let (calls, refused) = (caller.calls.to_string(), caller.refused.to_string());
        vec![caller.principal.clone(), through, caller.operation.clone(), calls, refused, caller.last.clone()]
    });
    let head = ["who", "through", "operation", "calls", "refused", "last"];
    table(&mut line, &head, &[3, 4], callers.collect());
    let contexts = report.contexts.iter().map(|used| {
        let others = used.context.iter().filter(|(name, _)| !matches!(name.as_str(), "aws:ebs:id" | "aws:rds:db-id"));
        let others = others.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ");
        let shown = |value: Option<&str>| value.filter(|value| !value.is_empty()).unwrap_or("-").to_owned();
        let operations = used.operations.iter().map(|(name, calls)| format!("{name} {calls}"));
        vec![
            shown(used.volume_id.as_deref()),
            shown(used.db_id.as_deref()),
            shown(Some(&others)),
            used.calls.to_string(),
            used.refused.to_string(),
            used.last.clone(),
            operations.collect::<Vec<_>>().join(", "),
        ]
    });
    let head = ["volume", "instance", "other context", "calls", "refused", "last", "operations"];
    table(&mut line, &head, &[3, 4], contexts.collect());
    let refusals = report.refusals.iter().map(|refused| {
        let message = refused.message.clone().unwrap_or_else(|| "-".to_owned());
        let calls = refused.calls.to_string();
        vec![
            refused.code.clone(),
            refused.principal.clone(),
            refused.operation.clone(),
            calls,
            refused.last.clone(),
            message,
        ]
    });
    table(&mut line, &["refused as", "who", "operation", "calls", "last", "message"], &[3], refusals.collect());
    let quotas = report.quotas.iter().map(|used| {
        let (second, hour) = (&used.busiest_second, &used.busiest_hour);
        vec![
            used.quota.to_owned(),
            used.per_second.to_string(),
            format!("{} ({} %)", second.calls, second.percent),
            second.at.clone(),
            format!("{} ({} %)", hour.calls, hour.percent),
            hour.at.clone(),
        ]
    });
    let head = ["quota", "a second", "busiest second", "at", "busiest hour", "from"];
    table(&mut line, &head, &[1], quotas.collect());
    if let Some(files) = report.files {
        line("");
        line(
            &format!("{files} files were read; {} could not be:", report.unread.len()).replace("; 0 could not be:", ""),
        );
        for file in &report.unread {
            line(&format!("  {file}"));
        }
    }
    text
}

/// Columns as wide as their longest cell, numbers to the right.
fn table(line: &mut impl FnMut(&str), head: &[&str], numbers: &[usize], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let shown = &rows[..rows.len().min(ROWS)];
    let widths: Vec<_> = (0..head.len())
        .map(|column| {
            let cells = shown.iter().map(|row| row[column].chars().count());
            cells.chain([head[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let row = |cells: &[String]| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            // Writing to a String does not fail.
            let _ = if numbers.contains(&column) {
                write!(text, "{cell:>width$}  ")
            } else {
                write!(text, "{cell:<width$}  ")
            };
        }
        text
    };
    line("");
    line(&row(&head.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()));
    for cells in shown {
        line(&row(cells));
    }
    if rows.len() > ROWS {
        line(&format!("and {} more: --output json has them all", rows.len() - ROWS));
    }
}
