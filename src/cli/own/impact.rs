//! `kms impact`: what becomes of everything that a key wraps.

use serde::Deserialize;
use serde_json::{Value, json};

use super::explain::{apart, state};
use super::{Outcome, Verb, arguments};
use crate::api::Parameter;
use crate::cli::{CliError, Session, values};
use crate::explain::{self, Change};

pub(super) static IMPACT: Verb = Verb {
    name: "impact",
    help: "Lists what a key wraps, and what becomes of it if the key is disabled, deleted or gets another policy",
    parameters: &[
        Parameter::string("KeyId", "The key: its id, ARN or an alias.").required(),
        Parameter::string("If", "What happens to it: disabled, deleted or policy=file://FILE.").ours(),
    ],
    run,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    key_id: String,
    r#if: Option<String>,
}

fn run(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let Given { key_id, r#if } = arguments(given)?;
    let change = match r#if.as_deref() {
        None => Change::Nothing,
        Some("disabled") => Change::Disabled,
        Some("deleted") => Change::Deleted,
        Some(other) => {
            let policy = other.strip_prefix("policy=").ok_or_else(|| {
                CliError::parameter("--if", format!("'{other}' is none of disabled, deleted, policy=file://FILE"))
            })?;
            Change::Policy(values::text("--if", policy)?)
        }
    };
    let apart = apart(session);
    let scratch = state(&apart, None)?;
    let call = apart.call_in(&scratch)?;
    let affected = explain::impact(&call, &key_id, &change).map_err(|error| CliError::service("impact", error))?;
    Ok(Outcome::value(json!({"Affected": affected})))
}
