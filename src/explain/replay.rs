//! A recorded trail run again: which calls would have another outcome under the state as it is now.
//!
//! Only what KMS was asked is replayed. What a record does not hold is made up so that it decides nothing: the ciphertext
//! of a Decrypt is one that is right for the recorded key and context, and a plaintext is one byte. Grants that the trail
//! makes are kept for the calls behind them; every other change is forgotten before the next record.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Explanation;
use crate::api::{self, Operation};
use crate::gate::{Call, ServiceError};
use crate::iam::Principal;
use crate::ids::Region;
use crate::kms::{self, EncryptionContext};
use crate::store::Home;
use crate::trail;

/// A record whose outcome was compared.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Replayed {
    /// `eventID`.
    pub event_id: String,
    /// `eventTime`.
    pub time: String,
    /// The operation.
    pub operation: String,
    /// Who called.
    pub principal: String,
    /// The key, if one was meant.
    pub key: Option<String>,
    /// The recorded error code, or `succeeded`.
    pub then: String,
    /// The error code that it would have now, or `succeeded`.
    pub now: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a replay found.
#[derive(Debug, Default, Serialize)]
pub struct Replay {
    /// How many records of KMS were run again.
    pub replayed: usize,
    /// Those whose outcome changes.
    pub changed: Vec<Replayed>,
    /// Those that cannot be run again, by reason.
    pub not_replayed: Vec<(String, usize)>,
}

/// Why a trail cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The folder cannot be read, or has no log file.
    #[error(transparent)]
    Folder(#[from] trail::FolderError),
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not CloudTrail's.
    #[error("{path} is not a file of CloudTrail's: {what}")]
    NotATrail {
        /// Which.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// This machine failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// Every record in the log files below `folder`, oldest first.
///
/// # Errors
/// If there is no log file, or one cannot be read or is not CloudTrail's.
pub fn records(folder: &Path) -> Result<Vec<Value>, ReplayError> {
    let mut records = Vec::new();
    for path in trail::log_files(folder)? {
        records.extend(records_of(&path)?);
    }
    records.sort_by_cached_key(|record| (word(&record["eventTime"]).to_owned(), word(&record["eventID"]).to_owned()));
    Ok(records)
}

fn records_of(path: &Path) -> Result<Vec<Value>, ReplayError> {
    let not_a_trail = |what: String| ReplayError::NotATrail { path: path.display().to_string(), what };
    let bytes = trail::read_log_file(path)
        .map_err(|source| ReplayError::Unreadable { path: path.display().to_string(), source })?;
    let mut value: Value = serde_json::from_slice(&bytes).map_err(|error| not_a_trail(error.to_string()))?;
    match value["Records"].take() {
        Value::Array(records) => Ok(records),
        _ => Err(not_a_trail("it has no list of Records".to_owned())),
    }
}

/// Runs the KMS records among `records` again in `home`, a scratch home.
///
/// # Errors
/// If this machine fails; a record that cannot be run again is counted.
pub fn replay(home: &Home, records: &[Value]) -> Result<Replay, ReplayError> {
    let mut replay = Replay::default();
    let mut granted: HashSet<&str> = HashSet::new();
    for record in records.iter().filter(|record| record["eventSource"] == "kms.amazonaws.com") {
        if record["eventName"] == "CreateGrant" {
            granted.insert(word(&record["requestParameters"]["granteePrincipal"]));
        }
        match one(home, record, &granted)? {
            Ok(found) => {
                replay.replayed += 1;
                if found.then != found.now {
                    replay.changed.push(found);
                }
            }
            Err(reason) => match replay.not_replayed.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => replay.not_replayed.push((reason, 1)),
            },
        }
    }
    Ok(replay)
}

/// What a replay found, for people.
pub fn text(replay: &Replay) -> String {
    let mut out = String::new();
    for call in &replay.changed {
        let key = call.key.as_deref().unwrap_or("no key");
        let _ = writeln!(out, "{} {} by {} on {key}", call.time, call.operation, call.principal);
        let _ = writeln!(out, "  then {}, now {}", call.then, call.now);
        if let Some(why) = &call.why {
            let _ = writeln!(out, "  {why}");
        }
    }
    for (reason, count) in &replay.not_replayed {
        let _ = writeln!(out, "not replayed: {count} ({reason})");
    }
    let _ = writeln!(out, "{} calls replayed, {} of them with another outcome", replay.replayed, replay.changed.len());
    out
}

/// One record, or why it cannot be run again. To `granted` the trail shows grants.
fn one(home: &Home, record: &Value, granted: &HashSet<&str>) -> Result<Result<Replayed, String>, ServiceError> {
    let name = word(&record["eventName"]);
    if record["eventType"] == "AwsServiceEvent" {
        return Ok(Err(format!("{name}: done by KMS itself")));
    }
    let Some(operation) = api::service("kms").and_then(|kms| kms.operation(name)) else {
        return Ok(Err(format!("{name}: not an operation that is known here")));
    };
    // Policies can ask for these, and no call here has them.
    if record["vpcEndpointId"].is_string() {
        return Ok(Err("a call through a VPC endpoint".to_owned()));
    }
    if record["userIdentity"]["sessionContext"]["attributes"]["mfaAuthenticated"] == "true" {
        return Ok(Err("a session with MFA".to_owned()));
    }
    let Ok(region) = word(&record["awsRegion"]).parse::<Region>() else {
        return Ok(Err("no Region".to_owned()));
    };
    let Some(principal) = principal(record) else {
        return Ok(Err("a caller that is no principal known here".to_owned()));
    };
    let key = record["resources"][0]["ARN"].as_str();
    let request = match request(home, operation, record, key)? {
        Ok(request) => request,
        Err(reason) => return Ok(Err(reason)),
    };
    let keeps = name == "CreateGrant";
    let forked;
    let home = if keeps || record["readOnly"] == true {
        home
    } else {
        forked = home.scratch_copy()?;
        &forked
    };
    let mut call = Call::direct(home, principal, region);
    if let Some(via) = via(record, &call.region) {
        call = call.through(&via);
    }
    word(&record["sourceIPAddress"]).clone_into(&mut call.source_ip);
    word(&record["userAgent"]).clone_into(&mut call.user_agent);
    let explanation = super::explain(&call, "kms", operation, request)?;
    let then = record["errorCode"].as_str().map_or("succeeded", |code| code);
    let now = now(&explanation);
    if !keeps && record["readOnly"] != true && then == "succeeded" && !is_refusal_of_use(&now) {
        // It was done, and cannot be done twice: that a key has its alias says nothing of who may give it one.
        return Ok(Err(format!("{name}: it was done already ({now})")));
    }
    let of_a_host = matches!(call.principal, Principal::Ec2Infrastructure { .. });
    if of_a_host && then == "succeeded" && now == "AccessDeniedException" && !granted.contains(&*explanation.principal)
    {
        return Ok(Err(format!("{name} by a grant that was made before the trail begins, and is gone")));
    }
    Ok(Ok(Replayed {
        event_id: word(&record["eventID"]).to_owned(),
        time: word(&record["eventTime"]).to_owned(),
        operation: name.to_owned(),
        principal: explanation.principal.clone(),
        key: key.map(str::to_owned),
        then: then.to_owned(),
        now,
        why: why(&explanation),
    }))
}

/// What is not the effect of the call itself having been made before.
fn is_refusal_of_use(outcome: &str) -> bool {
    let codes = ["succeeded", "undetermined", "AccessDeniedException", "DisabledException", "KMSInvalidStateException"];
    codes.contains(&outcome)
}

fn now(explanation: &Explanation) -> String {
    match (&explanation.sight, explanation.verdict) {
        (_, super::Verdict::Undetermined) => "undetermined".to_owned(),
        (Some(sight), _) => sight.error.clone().unwrap_or_else(|| sight.says.clone()),
        (None, _) => "succeeded".to_owned(),
    }
}

fn why(explanation: &Explanation) -> Option<String> {
    explanation.sight.as_ref().map(|sight| sight.says.clone()).or_else(|| explanation.decided_by.clone())
}

fn principal(record: &Value) -> Option<Principal> {
    let identity = &record["userIdentity"];
    if identity["type"] == "AWSService" {
        let account = word(&record["recipientAccountId"]).parse().ok()?;
        return Some(Principal::Service { account, name: word(&identity["invokedBy"]).to_owned() });
    }
    word(&identity["arn"]).parse().ok()
}

/// The service through which the call was made, as `kms:ViaService` has it. The names in records are others: those of
/// the service's front ends, or of AWS's own machines.
fn via(record: &Value, region: &Region) -> Option<String> {
    let invoked_by = record["userIdentity"]["invokedBy"].as_str()?;
    if record["userIdentity"]["type"] == "AWSService" {
        return None;
    }
    let service = match invoked_by.strip_suffix(".amazonaws.com") {
        Some("ec2-frontend-api") => "ec2",
        Some(service) => service,
        None if word(&record["userIdentity"]["arn"]).contains("aws:ec2-infrastructure") => "ec2",
        None => return None,
    };
    Some(format!("{service}.{region}.amazonaws.com"))
}

/// The recorded parameters as a request; CloudTrail begins their names in lower case.
fn request(
    home: &Home,
    operation: &Operation,
    record: &Value,
    key: Option<&str>,
) -> Result<Result<Value, String>, ServiceError> {
    let members = (operation.members)();
    let mut request = Map::new();
    for (name, value) in record["requestParameters"].as_object().into_iter().flatten() {
        let name = capital(name);
        if members.contains(&name.as_str()) && !value.is_null() {
            let value = member(&name, value);
            request.insert(name, value);
        }
    }
    if members.contains(&"CiphertextBlob") {
        let context = request.get("EncryptionContext").or_else(|| request.get("SourceEncryptionContext"));
        let context = context.cloned().unwrap_or_else(|| json!({}));
        let Ok(context) = serde_json::from_value::<EncryptionContext>(context) else {
            return Ok(Err(format!("{}: its encryption context is not one", operation.name)));
        };
        let Some(blob) = key.map(|key| kms::wrap_assumed(home, key, &context)).transpose()?.flatten() else {
            return Ok(Err(format!("{}: its key is not in this state", operation.name)));
        };
        request.insert("CiphertextBlob".to_owned(), json!(blob));
    }
    if members.contains(&"Plaintext") {
        request.insert("Plaintext".to_owned(), "AA==".into());
    }
    Ok(Ok(Value::Object(request)))
}

/// A parameter's value as a request has it. The pairs of a context are the caller's own words and stay as they are.
fn member(name: &str, value: &Value) -> Value {
    match (name, value) {
        (context, value) if context.ends_with("EncryptionContext") => value.clone(),
        ("Constraints", Value::Object(constraints)) => {
            Value::Object(constraints.iter().map(|(name, context)| (capital(name), context.clone())).collect())
        }
        (_, value) => capitals(value),
    }
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn capitals(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (capital(name), capitals(value))).collect())
        }
        Value::Array(items) => items.iter().map(capitals).collect(),
        scalar => scalar.clone(),
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
