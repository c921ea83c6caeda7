//! An explanation as a tree, for people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::gate::{Basis, Finding, Leaning, TracedCall};

use super::{Explanation, NOT_EVALUATED, Verdict, context_of, key_of};

/// The explanation as lines: the verdict first, then every call with what was looked at, then what would have to change,
/// and last the sources that numbers in brackets stand for.
pub fn text(explanation: &Explanation) -> String {
    let mut text = Text { out: String::new(), sources: Vec::new() };
    let Explanation { verdict, basis, command, principal, .. } = explanation;
    let _ = writeln!(text.out, "{} ({}): {command} by {principal}", verdict.name(), basis.name());
    if let Some(sight) = &explanation.sight {
        let source = text.source(sight.basis);
        let _ = writeln!(text.out, "the caller sees: {} {source}", sight.says);
    }
    let _ = writeln!(text.out, "not evaluated: {NOT_EVALUATED}\n");
    text.branch(&explanation.calls, None, "");
    if !explanation.remedies.is_empty() {
        let heading =
            if explanation.verdict == Verdict::Refused { "what would have to change" } else { "what is not known" };
        let _ = writeln!(text.out, "\n{heading}:");
        for remedy in &explanation.remedies {
            let _ = writeln!(text.out, "- {remedy}");
        }
    }
    let Text { mut out, sources } = text;
    if !sources.is_empty() {
        out.push('\n');
    }
    for (number, source) in sources.iter().enumerate() {
        let _ = writeln!(out, "[{}] {}: {}", number + 1, source.name(), source.source());
    }
    out
}

struct Text {
    out: String,
    /// The sources named so far; their numbers are their places, from 1.
    sources: Vec<Basis>,
}

impl Text {
    /// The number in brackets by which a source is named.
    fn source(&mut self, basis: Basis) -> String {
        let place = self.sources.iter().position(|known| *known == basis).unwrap_or_else(|| {
            self.sources.push(basis);
            self.sources.len() - 1
        });
        format!("[{}]", place + 1)
    }

    /// The calls inside `parent`, each with its findings and what is inside it.
    fn branch(&mut self, calls: &[TracedCall], parent: Option<usize>, indent: &str) {
        let children: Vec<_> = calls.iter().enumerate().filter(|(_, call)| call.parent == parent).collect();
        for (nth, (place, call)) in children.iter().enumerate() {
            let last = nth + 1 == children.len();
            let (joint, below) = match (parent, last) {
                (None, _) => ("", ""),
                (Some(_), true) => ("└─ ", "   "),
                (Some(_), false) => ("├─ ", "│  "),
            };
            let _ = writeln!(self.out, "{indent}{joint}{}", headline(call));
            let below = format!("{indent}{below}");
            let inner = if calls.iter().any(|other| other.parent == Some(*place)) { "│  " } else { "   " };
            self.call(call, parent.is_none(), &format!("{below}{inner}"));
            self.branch(calls, Some(*place), &below);
        }
    }

    fn call(&mut self, call: &TracedCall, is_first: bool, margin: &str) {
        if let Some(key) = key_of(call) {
            let context = context_of(call).map(|context| format!(" under {context}")).unwrap_or_default();
            let _ = writeln!(self.out, "{margin}on {key}{context}");
        }
        if !is_first {
            let via = call.via.as_ref().map(|via| format!(" through {via}")).unwrap_or_default();
            let source = call.basis.map(|basis| format!(" {}", self.source(basis))).unwrap_or_default();
            let _ = writeln!(self.out, "{margin}by {}{via}{source}", call.principal);
        }
        for (place, finding) in call.findings.iter().enumerate() {
            // What holds for each of several resources is said once.
            if call.findings[..place].iter().any(|said| line(said) == line(finding)) {
                continue;
            }
            let source = self.source(finding.basis);
            let _ = writeln!(self.out, "{margin}{} {source}", line(finding));
        }
        for record in &call.records {
            let _ = writeln!(self.out, "{margin}record in the trail of {}", brief(record));
        }
    }
}

fn headline(call: &TracedCall) -> String {
    let service = call.source.split('.').next().unwrap_or_default();
    let outcome = match &call.outcome {
        Some(Err(refused)) => format!("refused, {}", refused.code),
        _ if call.findings.iter().any(|finding| finding.leaning == Leaning::Undetermined) => {
            "succeeds if it is let through".to_owned()
        }
        Some(Ok(())) | None => "succeeds".to_owned(),
    };
    format!("{service} {}: {outcome}", call.operation).trim_start().to_owned()
}

fn line(finding: &Finding) -> String {
    let mark = match finding.leaning {
        Leaning::Allows => '+',
        Leaning::Refuses => '-',
        Leaning::Neutral => '.',
        Leaning::Undetermined => '?',
    };
    format!("{mark} {}: {}", finding.subject, finding.says)
}

/// What of a record tells it from others: the rest is in the JSON form.
fn brief(record: &Value) -> String {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let invoked_by = word(&record["userIdentity"]["invokedBy"]);
    let parameters = Some(&record["requestParameters"]).filter(|value| !value.is_null()).map(Value::to_string);
    let parts = [
        ("errorCode", word(&record["errorCode"])),
        ("invokedBy", invoked_by),
        ("sharedEventID", word(&record["sharedEventID"])),
        ("requestParameters", parameters),
    ];
    let parts = parts.into_iter().filter_map(|(name, value)| Some(format!(", {name} {}", value?)));
    let account = record["recipientAccountId"].as_str().unwrap_or_default();
    format!("{account}: {}{}", record["eventName"].as_str().unwrap_or_default(), parts.collect::<String>())
}
