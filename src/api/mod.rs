//! The table of operations: what each is called, what it takes, and the function that runs it.
//!
//! Everything that a front end needs stands here and nothing of any front end does: the command line builds its
//! grammar and help from this table, a wire endpoint its dispatch and its documentation. One file per service holds
//! that service's entries.
//!
//! An operation is added by adding one entry to its service's file:
//!
//! ```
//! # use blockseal::api::{Operation, Parameter};
//! # use blockseal::gate::{Call, ServiceError};
//! # #[derive(serde::Deserialize)] #[serde(rename_all = "PascalCase", deny_unknown_fields)]
//! # struct EnableKeyRequest { key_id: String }
//! # fn enable_key(_: &Call<'_>, _: EnableKeyRequest) -> Result<serde_json::Value, ServiceError> { unreachable!() }
//! const ENABLE_KEY: Operation = blockseal::operation!(
//!     "EnableKey", "ValidationException", EnableKeyRequest, enable_key,
//!     "Lets a disabled key be used again."
//! )
//! .takes(&[Parameter::string("KeyId", "Id or ARN of the key.").required()]);
//! # assert_eq!(ENABLE_KEY.command(), "enable-key");
//! # assert_eq!((ENABLE_KEY.members)(), ["KeyId"]);
//! ```

mod check;
mod cloudtrail;
mod ec2;
mod iam;
pub mod init;
mod kms;
mod kms_unsupported;
mod limits;
mod members;
mod names;
mod parameter;
mod sts;
mod validate;
mod wire;

pub use members::members_of;
pub use names::dashed;
pub use parameter::{Kind, Need, Parameter};
pub use validate::validate;
pub use wire::{Form, Wire};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroize as _;

use crate::gate::{Call, ServiceError};

/// Every service, in the order in which help lists them.
pub static SERVICES: &[&Service] = &[&kms::KMS, &ec2::EC2, &iam::IAM, &sts::STS, &cloudtrail::CLOUDTRAIL];

/// A service of AWS: its endpoint prefix and its operations.
#[derive(Debug)]
pub struct Service {
    /// Its name as the AWS CLI and request signatures spell it: `kms`.
    pub name: &'static str,
    /// What it is, in one line.
    pub help: &'static str,
    /// Its operations.
    pub operations: &'static [Operation],
}

/// The service of that name.
pub fn service(name: &str) -> Option<&'static Service> {
    SERVICES.iter().find(|service| service.name == name).copied()
}

impl Service {
    /// The operation whose AWS name is `name`.
    pub fn operation(&self, name: &str) -> Option<&'static Operation> {
        self.operations.iter().find(|operation| operation.name == name)
    }
}

/// An operation of AWS.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its AWS name: `CreateKey`.
    pub name: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// What it takes, in the order in which help lists it.
    pub parameters: &'static [Parameter],
    /// How its results come in pages, if they do.
    pub paging: Option<Paging>,
    /// Runs it: a request as a JSON object spelled as in the AWS API, and its result likewise; an operation without a
    /// result answers an empty object.
    pub run: fn(&Call<'_>, Value) -> Result<Value, ServiceError>,
    /// The member names that its request's struct accepts.
    pub members: fn() -> &'static [&'static str],
}

/// How an operation hands out long results, as botocore's paginators describe it.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// The request's member that takes the token: `Marker`.
    pub input: &'static str,
    /// The result's member that holds the next one: `NextMarker`.
    pub output: &'static str,
    /// The result's member that says whether there is more; without one, a token says so.
    pub more: Option<&'static str>,
    /// The request's member that bounds a page: `Limit`.
    pub limit: &'static str,
    /// The result's member that holds the list: `Keys`.
    pub results: &'static str,
}

impl Paging {
    /// By `NextToken` and `MaxResults`, as EC2 and CloudTrail have it.
    const fn by_token(results: &'static str) -> Self {
        Self { input: "NextToken", output: "NextToken", more: None, limit: "MaxResults", results }
    }
}

impl Operation {
    /// An operation without parameters; [`crate::operation!`] writes the two functions.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        run: fn(&Call<'_>, Value) -> Result<Value, ServiceError>,
        members: fn() -> &'static [&'static str],
    ) -> Self {
        Self { name, help, parameters: &[], paging: None, run, members }
    }

    /// The same operation with `parameters`.
    #[must_use]
    pub const fn takes(self, parameters: &'static [Parameter]) -> Self {
        Self { parameters, ..self }
    }

    /// The same operation with its results in pages.
    #[must_use]
    pub const fn pages(self, paging: Paging) -> Self {
        Self { paging: Some(paging), ..self }
    }

    /// Its name on the command line: `create-key`.
    pub fn command(&self) -> String {
        dashed(self.name)
    }
}

/// Runs the operation called `name` on a request in JSON. One that breaks the limits of its service's model is refused and
/// recorded by the operation's own gate.
///
/// # Errors
/// Those of the operation, and a refusal with the code `malformed` if the request is not of its type.
pub fn typed<Q: DeserializeOwned, R: Serialize>(
    [name, malformed]: [&'static str; 2],
    call: &Call<'_>,
    mut request: Value,
    operation: fn(&Call<'_>, Q) -> Result<R, ServiceError>,
) -> Result<Value, ServiceError> {
    let refusal = check::refusal(name, &mut request);
    let request =
        serde_json::from_value(request).map_err(|error| ServiceError::refused(malformed, error.to_string()))?;
    let result = match refusal {
        None => operation(call, request),
        Some(refusal) => operation(&call.refused(refusal), request),
    };
    match serde_json::to_value(result?).map_err(ServiceError::machine)? {
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        result => Ok(result),
    }
}

/// Overwrites every text in a result, which may hold a plaintext or a secret access key; lists and names stay.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// An [`Operation`] that runs `$function` on a `$request`; a request of another shape is refused with `$malformed`.
#[macro_export]
macro_rules! operation {
    ($name:literal, $malformed:expr, $request:ty, $function:path, $help:literal) => {
        $crate::api::Operation::new(
            $name,
            $help,
            |call, request| $crate::api::typed::<$request, _>([$name, $malformed], call, request, $function),
            $crate::api::members_of::<$request>,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every operation with its service.
    fn operations() -> impl Iterator<Item = (&'static Service, &'static Operation)> {
        SERVICES.iter().flat_map(|service| service.operations.iter().map(|operation| (*service, operation)))
    }

    #[test]
    fn the_table_has_the_members_of_the_structs_and_no_others() {
        for (service, operation) in operations() {
            let mut listed: Vec<_> = operation.parameters.iter().map(|parameter| parameter.name).collect();
            let mut accepted = (operation.members)().to_vec();
            listed.sort_unstable();
            accepted.sort_unstable();
            assert_eq!(listed, accepted, "{} {}", service.name, operation.name);
        }
    }

    /// An operation's limits are found by its name.
    #[test]
    fn no_two_services_have_an_operation_of_one_name() {
        let mut names: Vec<_> = operations().map(|(_, operation)| operation.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    /// What breaks a limit is refused through the operation's gate, whatever else is wrong, and recorded there.
    #[test]
    fn a_request_beyond_its_limits_is_refused_and_recorded() {
        let base = tempfile::tempdir().unwrap();
        let home = crate::store::Home::open(&base.path().join("home")).unwrap();
        let principal = "123456789012".parse().unwrap();
        let call = Call::direct(&home, principal, "us-east-1".parse().unwrap());
        for (service, operation) in operations() {
            let code = match service.name {
                "kms" | "cloudtrail" => "ValidationException",
                "iam" | "sts" => "ValidationError",
                _ => "MissingParameter",
            };
            let said = if service.name == "ec2" { "must contain the parameter" } else { "Member must not be null" };
            let prefix = if service.name == "ec2" { "Client." } else { "" };
            let unsupported = kms_unsupported::OPERATIONS.iter().any(|other| other.name == operation.name);
            if unsupported || operation.parameters.iter().all(|parameter| parameter.need != Need::Required) {
                continue;
            }
            let error = (operation.run)(&call, json!({})).unwrap_err();
            assert_eq!(error.code(), code, "{}: {error}", operation.name);
            assert!(error.message().contains(said), "{}: {error}", operation.name);
            let request =
                json!({"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": operation.name}]});
            let found = (cloudtrail::CLOUDTRAIL.operation("LookupEvents").unwrap().run)(&call, request).unwrap();
            let record = found["Events"][0]["CloudTrailEvent"].as_str().unwrap();
            let record: Value = serde_json::from_str(record).unwrap();
            assert_eq!(record["errorCode"], format!("{prefix}{code}"), "{}", operation.name);
        }
    }

    /// A value of each kind, as the structs want it.
    fn sample(kind: Kind) -> Value {
        match kind {
            Kind::String => json!("x"),
            Kind::Choice(choices) => json!(choices[0]),
            Kind::Integer | Kind::Long => json!(7),
            Kind::Boolean => json!(true),
            Kind::Blob => json!("eA=="),
            Kind::Timestamp => json!("2026-11-24T04:29:58Z"),
            Kind::List(member) => json!([sample(*member)]),
            Kind::Map(member) => json!({"k": sample(*member)}),
            Kind::Structure(members) => {
                Value::Object(members.iter().map(|member| (member.name.to_owned(), sample(member.kind))).collect())
            }
        }
    }

    #[test]
    fn a_request_with_every_member_is_of_its_operations_type() {
        let base = tempfile::tempdir().unwrap();
        let home = crate::store::Home::open(&base.path().join("home")).unwrap();
        let principal = "123456789012".parse().unwrap();
        let call = Call::direct(&home, principal, "us-east-1".parse().unwrap());
        for (service, operation) in operations() {
            let request = sample(Kind::Structure(operation.parameters));
            if let Err(error) = (operation.run)(&call, request) {
                let error = error.to_string();
                let of_another_type =
                    ["unknown field", "missing field", "invalid type"].iter().any(|what| error.contains(what));
                assert!(!of_another_type, "{} {}: {error}", service.name, operation.name);
            }
            let error = (operation.run)(&call, json!({"Surely": "unknown"})).unwrap_err();
            assert!(error.to_string().contains("unknown field"), "{} {}: {error}", service.name, operation.name);
        }
    }

    #[test]
    fn a_wiped_result_holds_no_text() {
        let mut result = serde_json::json!({"Plaintext": "c2VjcmV0", "Keys": [{"Name": "k"}], "Size": 1});
        wipe(&mut result);
        assert_eq!(result, serde_json::json!({"Plaintext": "", "Keys": [{"Name": ""}], "Size": 1}));
    }
}
