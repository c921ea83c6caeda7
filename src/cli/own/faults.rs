//! `faults`: operations that are throttled, out of service or slow, and attached volumes that are slow, fail or are stuck, as
//! ordered.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Group, Outcome, Verb, arguments};
use crate::api::{self, Parameter};
use crate::cli::{CliError, Session};
use crate::ec2;
use crate::export::{DeviceFault, DeviceFaultError};
use crate::gate::ServiceError;
use crate::gate::faults::{self, Fault};
use crate::ids::{IdError, VolumeId};

pub(super) static GROUP: Group = Group {
    name: "faults",
    help: "Faults to order, kept until they are cleared, so that retries can be rehearsed",
    verbs: &[
        Verb {
            name: "set",
            help: "Orders a fault: SERVICE.OPERATION=throttle:PART, =unavailable, =latency:TIME or =eventual:TIME; of an attached volume VOLUME=latency:TIME, =error:N or =stuck[:TIME]",
            parameters: &[Parameter::string(
                "Fault",
                "Such as kms.Decrypt=throttle:0.2, kms.Decrypt=latency:200ms, kms.CreateGrant=eventual:5m or vol-0123456789abcdef0=stuck:30s",
            )
            .required()
            .ours()
            .positional()],
            run: set,
        },
        Verb { name: "list", help: "Lists the faults that were ordered", parameters: &[], run: list },
        Verb {
            name: "clear",
            help: "Clears the faults of an operation or a volume, or all",
            parameters: &[Parameter::string("Operation", "Such as kms.Decrypt or vol-0123456789abcdef0; all unless given").ours().positional()],
            run: clear,
        },
    ],
};

fn set(session: &Session, given: Value) -> Result<Outcome, CliError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Set {
        fault: String,
    }
    let Set { fault: text } = arguments(given)?;
    let refused = |what: String| CliError::parameter("FAULT", what);
    let (operation, fault) =
        text.split_once('=').ok_or_else(|| refused(format!("'{text}' has no = between operation and fault")))?;
    if let Some(volume) = volume(operation).map_err(refused)? {
        let fault: DeviceFault = fault.parse().map_err(|error: DeviceFaultError| refused(error.to_string()))?;
        ec2::order_fault(session.home()?, &volume, Some(fault)).map_err(failed)?;
        return list(session, Value::Null);
    }
    check_operation(operation).map_err(refused)?;
    let fault: Fault = fault.parse().map_err(|error: faults::FaultError| refused(error.to_string()))?;
    if matches!(fault, Fault::Eventual(_)) && operation != "kms.CreateGrant" {
        return Err(refused(format!("{operation} takes effect at once: eventual is for kms.CreateGrant")));
    }
    faults::set(session.home()?, operation, fault)?;
    list(session, Value::Null)
}

/// Whether `name` is a service and an operation that the table has, joined by a dot.
fn check_operation(name: &str) -> Result<(), String> {
    let known = name.split_once('.').and_then(|(service, operation)| {
        api::SERVICES.iter().find(|known| known.name == service)?.operation(operation)
    });
    known.map(drop).ok_or_else(|| format!("'{name}' is not an operation: give service and name, as in kms.Decrypt"))
}

fn list(session: &Session, _: Value) -> Result<Outcome, CliError> {
    let faults = faults::list(session.home()?)?;
    let item = |(operation, fault): &(String, Fault)| json!({"Operation": operation, "Fault": fault.to_string()});
    let mut shown: Vec<Value> = faults.iter().map(item).collect();
    for (volume, fault) in ec2::ordered_faults(session.home()?).map_err(failed)? {
        shown.push(json!({"Volume": volume, "Fault": fault.to_string()}));
    }
    Ok(Outcome::value(json!({"Faults": shown})))
}

/// The volume that `name` means, if it does not mean an operation.
fn volume(name: &str) -> Result<Option<VolumeId>, String> {
    if !name.starts_with("vol-") {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|error: IdError| error.to_string())
}

fn failed(error: ServiceError) -> CliError {
    CliError::service("faults", error)
}

fn clear(session: &Session, given: Value) -> Result<Outcome, CliError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Clear {
        operation: Option<String>,
    }
    let Clear { operation } = arguments(given)?;
    let refused = |what| CliError::parameter("OPERATION", what);
    match operation.as_deref().map(volume).transpose().map_err(refused)?.flatten() {
        Some(volume) => {
            ec2::order_fault(session.home()?, &volume, None).map_err(failed)?;
            return list(session, Value::Null);
        }
        None if operation.is_none() => ec2::clear_faults(session.home()?).map_err(failed)?,
        None => {}
    }
    if let Some(operation) = &operation {
        check_operation(operation).map_err(refused)?;
    }
    faults::clear(session.home()?, operation.as_deref())?;
    list(session, Value::Null)
}
