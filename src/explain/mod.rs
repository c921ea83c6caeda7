//! Whether and why a command would be refused, without doing it.
//!
//! The command is run by the very functions that run it otherwise, in a scratch home: a copy of the home's state in
//! memory, where no file is made and no exporter started. A trace follows it. So the explanation is what the program
//! does, and cannot drift from it.
//!
//! ```
//! use blockseal::explain::{self, Verdict};
//! use blockseal::{api, gate::Call, store::Home};
//!
//! let home = Home::scratch()?;
//! let call = Call::direct(&home, "arn:aws:iam::123456789012:root".parse()?, "us-east-1".parse()?);
//! let operation = api::service("kms").and_then(|kms| kms.operation("Encrypt")).ok_or("no such operation")?;
//! let request = serde_json::json!({"KeyId": "alias/none", "Plaintext": "eA=="});
//! let explained = explain::explain(&call, "kms", operation, request)?;
//! assert_eq!(explained.verdict, Verdict::Refused);
//! assert_eq!(explained.sight.and_then(|sight| sight.error).as_deref(), Some("NotFoundException"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod account_state;
mod impact;
mod render;
mod replay;
pub mod suite;
#[cfg(test)]
mod tests;

pub use account_state::{StateError, load as load_account_state};
pub use impact::{Affected, Change, impact};
pub use render::text;
pub use replay::{Replay, ReplayError, Replayed, records, replay, text as replay_text};

use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroize as _;

use crate::api::{self, Operation};
use crate::ec2;
use crate::ec2::outcomes::{self, KmsAnswer, Seen, UserOf};
use crate::gate::{Basis, Call, Finding, Leaning, Refused, ServiceError, Trace, TracedCall};
use crate::iam;
use crate::kms;

/// What a verdict leaves out, in one line.
pub const NOT_EVALUATED: &str = "service control policies, resource control policies, permissions boundaries, session policies, VPC endpoint policies";

/// What would become of the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// It would succeed.
    Allowed,
    /// It, or a call that it depends on, would be refused.
    Refused,
    /// It depends on something that is not known here.
    Undetermined,
}

impl Verdict {
    /// The exit code of `blockseal explain`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Allowed => 0,
            Self::Refused => 1,
            Self::Undetermined => 3,
        }
    }

    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Undetermined => "undetermined",
        }
    }
}

/// What the caller sees in the end.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sight {
    /// In a sentence.
    pub says: String,
    /// The error's code, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// On what that rests.
    #[serde(flatten)]
    pub basis: Basis,
}

/// The explanation of a command.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// What would become of it.
    pub verdict: Verdict,
    /// The weakest of what the verdict rests on.
    pub basis: Basis,
    /// The command: service and operation.
    pub command: String,
    /// Who would call.
    pub principal: String,
    /// What the caller would see, if it is not a plain success.
    pub sight: Option<Sight>,
    /// What decided: the subject of the last finding that let through or refused.
    pub decided_by: Option<String>,
    /// Every operation that would run, the command itself first.
    pub calls: Vec<TracedCall>,
    /// What would have to change.
    pub remedies: Vec<String>,
}

/// Runs `operation` dry. `call.home` must be a scratch home; the call's own trace, if it has one, is not used.
///
/// # Errors
/// A failure of this machine, which explains nothing.
pub fn explain(
    call: &Call<'_>,
    service: &str,
    operation: &Operation,
    request: Value,
) -> Result<Explanation, ServiceError> {
    if !call.home.is_scratch() {
        return Err(ServiceError::machine("a command is explained in a scratch home only"));
    }
    let trace = Trace::default();
    let traced = Call { trace: Some(&trace), ..call.clone() };
    // A result may hold a plaintext, and is nobody's: nothing of it stays in memory.
    let outcome = (operation.run)(&traced, request).map(|mut result| wipe(&mut result));
    if let Err(error @ ServiceError::Machine(_)) = outcome {
        return Err(error);
    }
    let mut calls = trace.calls();
    if calls.is_empty() {
        // A request that is refused before it comes to the gate leaves no trace and no record.
        calls.push(TracedCall {
            parent: None,
            source: "",
            operation: operation.name,
            principal: call.principal.arn(),
            via: None,
            basis: None,
            findings: Vec::new(),
            outcome: Some(outcome.map_err(|error| refused(&error))),
            records: Vec::new(),
        });
    }
    if call.home.read(iam::directory::is_described)? {
        add_untold(&mut calls);
    }
    Ok(judge(calls, format!("{service} {}", api::dashed(operation.name)), call.principal.arn()))
}

fn wipe(result: &mut Value) {
    match result {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The ARN of the key that a request is about: the one that it names, or the one of its volume.
///
/// # Errors
/// If it names neither, or they are not there.
pub fn key_of_request(call: &Call<'_>, request: &Value) -> Result<String, ServiceError> {
    for member in ["KeyId", "KmsKeyId", "DestinationKeyId", "TargetKeyId"] {
        if let Some(key) = request[member].as_str() {
            return kms::arn_of(call, key);
        }
    }
    match request["VolumeId"].as_str() {
        Some(volume) => ec2::key_of(call, volume),
        None => Err(ServiceError::machine(
            "a policy is a key's, and the command names neither a key nor a volume under one",
        )),
    }
}

fn refused(error: &ServiceError) -> Refused {
    Refused { code: error.code().to_owned(), message: error.message() }
}

/// A call that was only tried and would have succeeded.
fn is_tried(refused: &Refused) -> bool {
    matches!(refused.code.as_str(), "DryRunOperationException" | "DryRunOperation")
}

fn refusal(call: &TracedCall) -> Option<&Refused> {
    match &call.outcome {
        Some(Err(refused)) if !is_tried(refused) => Some(refused),
        _ => None,
    }
}

/// What is not in the state that somebody described may well be there: that it was not found says nothing.
fn add_untold(calls: &mut [TracedCall]) {
    for call in calls {
        if let Some(refused) = refusal(call)
            && matches!(refused.code.as_str(), "NotFoundException" | "InvalidVolume.NotFound")
        {
            let says = format!("it is not in the account state: {}", refused.message);
            call.findings.push(Finding::new(kms::ACCOUNT_STATE, Leaning::Undetermined, says, kms::UNTOLD));
        }
    }
}

fn judge(calls: Vec<TracedCall>, command: String, principal: String) -> Explanation {
    let cause = cause(&calls);
    let cause = cause.filter(|cause| !calls[*cause].findings.iter().any(|of| of.subject == kms::ACCOUNT_STATE));
    let findings = || calls.iter().flat_map(|call| &call.findings);
    let verdict = match cause {
        Some(_) => Verdict::Refused,
        None if findings().any(|finding| finding.leaning == Leaning::Undetermined) => Verdict::Undetermined,
        None => Verdict::Allowed,
    };
    let sight = cause.and_then(|cause| sight(&calls, cause));
    let counted = |finding: &&Finding| match verdict {
        Verdict::Refused => finding.leaning == Leaning::Refuses,
        Verdict::Allowed => finding.leaning == Leaning::Allows,
        Verdict::Undetermined => matches!(finding.leaning, Leaning::Allows | Leaning::Undetermined),
    };
    let decisive: Vec<&Finding> = match cause {
        Some(cause) => calls[cause].findings.iter().filter(counted).collect(),
        None => findings().filter(counted).collect(),
    };
    // The calls that had to be made for it to come so far.
    let steps = calls.iter().take(cause.map_or(calls.len(), |cause| cause + 1)).filter_map(|call| call.basis);
    let basis = decisive
        .iter()
        .map(|finding| finding.basis)
        .chain(steps)
        .chain(sight.as_ref().map(|sight| sight.basis))
        .max()
        .unwrap_or(Basis::Documented("AWS API reference of the operation"));
    let undetermined = || decisive.iter().rfind(|finding| finding.leaning == Leaning::Undetermined);
    // A state that lets a call through does not decide that it is let through: it keeps nobody from it.
    let deciding = decisive.iter().rfind(|finding| verdict == Verdict::Refused || finding.subject != kms::KEY_STATE);
    let decided_by = undetermined().or(deciding).map(|finding| finding.subject.clone());
    let remedy = |finding: &&Finding| match finding.leaning {
        Leaning::Undetermined => Some(finding.says.clone()),
        _ => finding.remedy.clone(),
    };
    let remedies = decisive.iter().filter_map(remedy).collect();
    Explanation { verdict, basis, command, principal, sight, decided_by, calls, remedies }
}

/// The refusal that all comes down to: the first that is not the echo of one inside it. One that the operation around it
/// takes in its stride, such as that of a grant that is gone already, is none.
fn cause(calls: &[TracedCall]) -> Option<usize> {
    let outer = calls.first()?;
    if refusal(outer).is_none() && UserOf::of_operation(outer.operation).is_none() {
        return None;
    }
    let echoes = |place: usize| calls.iter().any(|call| call.parent == Some(place) && refusal(call).is_some());
    (0..calls.len()).find(|place| refusal(&calls[*place]).is_some() && !echoes(*place))
}

/// What the caller of the outermost operation sees of the refusal `cause`.
fn sight(calls: &[TracedCall], cause: usize) -> Option<Sight> {
    let inner = refusal(&calls[cause])?;
    let outer = calls.first()?;
    if cause > 0
        && let Some(user) = UserOf::of_operation(outer.operation)
    {
        let (seen, basis) = outcomes::seen(KmsAnswer::of_code(&inner.code), user);
        return Some(match (refusal(outer), seen) {
            (Some(shown), _) => Sight { says: wording(shown), error: Some(shown.code.clone()), basis },
            (None, Seen::VolumeVanishes) => {
                Sight { says: seen.says(), error: Some("InvalidVolume.NotFound".to_owned()), basis }
            }
            (None, _) => Sight { says: seen.says(), error: None, basis },
        });
    }
    let shown = refusal(outer).unwrap_or(inner);
    Some(Sight {
        says: wording(shown),
        error: Some(shown.code.clone()),
        basis: Basis::Documented("AWS API reference, errors of the operation"),
    })
}

/// The caller's record of the call itself, beside those of what the service did by itself on the way.
fn own_record(call: &TracedCall) -> Option<&Value> {
    call.records.iter().find(|record| record["eventName"] == call.operation)
}

/// The key that a call to KMS was about, as its record says.
fn key_of(call: &TracedCall) -> Option<&str> {
    let resource = &own_record(call)?["resources"][0];
    resource["ARN"].as_str().filter(|_| resource["type"] == "AWS::KMS::Key")
}

/// The encryption context of a call to KMS, or the one that the grant which it makes is bound to.
fn context_of(call: &TracedCall) -> Option<&Value> {
    let parameters = &own_record(call)?["requestParameters"];
    let constraints = &parameters["constraints"];
    [
        &parameters["encryptionContext"],
        &parameters["sourceEncryptionContext"],
        &constraints["encryptionContextSubset"],
        &constraints["encryptionContextEquals"],
    ]
    .into_iter()
    .find(|context| context.is_object())
}

fn wording(refused: &Refused) -> String {
    if refused.message.is_empty() { refused.code.clone() } else { format!("{}: {}", refused.code, refused.message) }
}

impl Explanation {
    /// For programs.
    pub fn to_json(&self) -> Value {
        let call = |call: &TracedCall| {
            json!({
                "service": call.source,
                "operation": call.operation,
                "parent": call.parent,
                "principal": call.principal,
                "via": call.via,
                "key": key_of(call),
                "encryption_context": context_of(call),
                "basis": call.basis.map(Basis::name),
                "source": call.basis.map(Basis::source),
                "outcome": match &call.outcome {
                    Some(Err(refused)) => json!(refused),
                    Some(Ok(())) | None => json!("succeeds"),
                },
                "findings": call.findings,
                "records": call.records,
            })
        };
        json!({
            "verdict": self.verdict,
            "basis": self.basis.name(),
            "command": self.command,
            "principal": self.principal,
            "caller_sees": self.sight,
            "decided_by": self.decided_by,
            "to_change": self.remedies,
            "calls": self.calls.iter().map(call).collect::<Vec<_>>(),
            "not_evaluated": NOT_EVALUATED,
        })
    }
}
