//! AWS JSON 1.1 (Smithy, "AWS JSON 1.1 protocol"): KMS and CloudTrail.

use axum::http::Method;
use serde_json::{Map, Number, Value, json};
use zeroize::Zeroizing;

use super::{Answer, Protocol};
use crate::api::{Kind, Operation, Parameter, Wire};
use crate::clock::parse_time;
use crate::http::failure::{Failure, Worded, Words};
use crate::http::request::Request;

/// The protocol.
pub(super) struct Json;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// Room for any answer that holds a plaintext, so that the buffer is not moved while it grows.
const CAPACITY: usize = 8 << 10;

/// Errors whose message has a capital letter in front (*assumed*: recorded answers have both).
const CAPITAL: &[&str] = &["AccessDeniedException", "SerializationException"];

impl Protocol for Json {
    fn words(&self, _: &Wire) -> Words {
        Words::Json
    }

    fn operation(&self, wire: &Wire, request: &Request) -> Result<String, Failure> {
        let target = request.header("x-amz-target").ok_or(Failure::MissingAction)?;
        let is_json = request.header("content-type").is_none_or(|kind| kind.starts_with("application/"));
        match Wire::of_target(target) {
            Some((meant, operation))
                if meant.service == wire.service
                    && request.method == Method::POST
                    && request.path == "/"
                    && is_json =>
            {
                Ok(operation.to_owned())
            }
            _ => Err(Failure::UnknownOperation(target.to_owned())),
        }
    }

    fn arguments(&self, _: &Wire, operation: &Operation, request: &Request) -> Result<Map<String, Value>, Failure> {
        // An operation that takes nothing may be called with nothing.
        let body = request.body.trim_ascii();
        let given = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) };
        match given {
            Ok(Value::Object(given)) => structure(operation.parameters, given),
            Ok(_) => Err(malformed("Start of structure or map expected")),
            // The parser's words tell where, and nothing of what stands there.
            Err(error) => {
                Err(malformed(&format!("The body is not JSON: line {} column {}", error.line(), error.column())))
            }
        }
    }

    fn result(&self, wire: &Wire, _: &Operation, result: &mut Value, _: &str) -> Answer {
        // An operation that answers nothing has an empty body (KMS API reference, "DisableKey" and its like).
        if result.as_object().is_some_and(Map::is_empty) {
            return answer(200, None, Vec::new());
        }
        times(wire, result);
        let mut body = Vec::with_capacity(CAPACITY);
        serde_json::to_writer(&mut body, result).expect("a JSON value has text keys, and a vector takes every byte");
        answer(200, None, body)
    }

    fn error(&self, _: &Wire, error: Worded, _: &str) -> Answer {
        let member = if CAPITAL.contains(&error.code.as_str()) { "Message" } else { "message" };
        let mut body = json!({ "__type": error.code });
        if !error.message.is_empty() {
            body[member] = error.message.into();
        }
        answer(error.status, Some(error.code), body.to_string().into_bytes())
    }
}

fn answer(status: u16, error: Option<String>, body: Vec<u8>) -> Answer {
    Answer { status, content_type: CONTENT_TYPE, error, body: Zeroizing::new(body) }
}

fn malformed(what: &str) -> Failure {
    Failure::Malformed(what.to_owned())
}

/// Points in time as seconds since 1970, to the millisecond.
fn times(wire: &Wire, value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| times(wire, item)),
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if wire.times.contains(&name.as_str()) => {
                        let seconds = parse_time(text).and_then(|time| seconds(time.millis()));
                        if let Some(seconds) = seconds {
                            *member = Value::Number(seconds);
                        }
                    }
                    // What a caller named is no member of ours.
                    _ if wire.maps.contains(&name.as_str()) => {}
                    _ => times(wire, member),
                }
            }
        }
        _ => {}
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of the years until 9999 have 48 bits, a double takes 53")]
fn seconds(millis: i64) -> Option<Number> {
    Number::from_f64(millis as f64 / 1000.0)
}

/// A structure whose members are of their types; what is null is as if it were absent.
fn structure(members: &[Parameter], given: Map<String, Value>) -> Result<Map<String, Value>, Failure> {
    let mut read = Map::with_capacity(given.len());
    for (name, value) in given {
        if value.is_null() {
            continue;
        }
        let Some(member) = members.iter().find(|member| member.name == name) else {
            return Err(Failure::UnknownParameter(name.chars().take(100).collect()));
        };
        read.insert(name, typed(member.kind, value)?);
    }
    Ok(read)
}

/// A value of a kind; the messages are those of AWS's JSON services (as recorded from DynamoDB; for KMS *assumed*).
fn typed(kind: Kind, value: Value) -> Result<Value, Failure> {
    match (kind, value) {
        (Kind::Structure(members), Value::Object(given)) => Ok(Value::Object(structure(members, given)?)),
        (Kind::Map(member), Value::Object(given)) => {
            let pairs = given.into_iter().map(|(name, value)| Ok((name, typed(*member, value)?)));
            Ok(Value::Object(pairs.collect::<Result<_, Failure>>()?))
        }
        (Kind::List(member), Value::Array(items)) => {
            let items = items.into_iter().map(|item| typed(*member, item));
            Ok(Value::Array(items.collect::<Result<_, Failure>>()?))
        }
        (Kind::Timestamp, Value::Number(number)) => Ok(Value::String(number.to_string())),
        (Kind::String | Kind::Choice(_) | Kind::Blob | Kind::Timestamp, text @ Value::String(_))
        | (Kind::Boolean, text @ Value::Bool(_)) => Ok(text),
        (Kind::Integer | Kind::Long, Value::Number(number)) if number.is_i64() => Ok(Value::Number(number)),
        (kind, value) => Err(malformed(&conversion(kind, &value))),
    }
}

fn conversion(kind: Kind, value: &Value) -> String {
    let wanted = match kind {
        Kind::List(_) => return "Expected list or null".to_owned(),
        Kind::Map(_) | Kind::Structure(_) => return "Expected map or null".to_owned(),
        Kind::String | Kind::Choice(_) => "String",
        Kind::Integer => "Integer",
        Kind::Long => "Long",
        Kind::Boolean => "Boolean",
        Kind::Blob => "Blob",
        Kind::Timestamp => "Date",
    };
    let found = match value {
        Value::Object(_) => return "Start of structure or map found where not expected.".to_owned(),
        Value::Array(_) => return "Start of list found where not expected".to_owned(),
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(number) if number.is_f64() => "DECIMAL_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
    };
    format!("{found} cannot be converted to {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: &[Parameter] = &[
        Parameter::string("KeyId", ""),
        Parameter::integer("Days", ""),
        Parameter::boolean("DryRun", ""),
        Parameter::map("EncryptionContext", ""),
        Parameter::strings("GrantTokens", ""),
        Parameter::new("StartTime", Kind::Timestamp, ""),
    ];

    fn read(given: Value) -> Result<Value, String> {
        let Value::Object(given) = given else { panic!("an object") };
        match structure(MEMBERS, given) {
            Ok(read) => Ok(Value::Object(read)),
            Err(Failure::Malformed(text) | Failure::UnknownParameter(text)) => Err(text),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn null_is_absent_and_a_time_is_text() {
        let given = json!({"KeyId": "k", "Days": null, "StartTime": 1_500_000_000.25, "EncryptionContext": {"a": "b"}});
        let read = read(given).unwrap();
        assert_eq!(read, json!({"KeyId": "k", "StartTime": "1500000000.25", "EncryptionContext": {"a": "b"}}));
    }

    #[test]
    fn what_is_of_another_type_is_refused_in_awss_words() {
        for (given, said) in [
            (json!({"KeyId": 7}), "NUMBER_VALUE cannot be converted to String"),
            (json!({"Days": "7"}), "STRING_VALUE cannot be converted to Integer"),
            (json!({"Days": 7.5}), "DECIMAL_VALUE cannot be converted to Integer"),
            (json!({"DryRun": "true"}), "STRING_VALUE cannot be converted to Boolean"),
            (json!({"KeyId": []}), "Start of list found where not expected"),
            (json!({"KeyId": {}}), "Start of structure or map found where not expected."),
            (json!({"EncryptionContext": []}), "Expected map or null"),
            (json!({"EncryptionContext": {"a": null}}), "NULL_VALUE cannot be converted to String"),
            (json!({"GrantTokens": "a"}), "Expected list or null"),
            (json!({"Surely": 1}), "Surely"),
        ] {
            assert_eq!(read(given), Err(said.to_owned()));
        }
    }

    #[test]
    fn times_are_seconds_and_a_callers_own_names_are_left_alone() {
        let time = "2026-11-24T04:29:58.123456+00:00";
        let mut value = json!({"Grants": [{"CreationDate": time, "Name": time,
            "Constraints": {"EncryptionContextSubset": {"CreationDate": time}}}]});
        times(Wire::of("kms").unwrap(), &mut value);
        let expected = json!({"Grants": [{"CreationDate": 1_795_494_598.123, "Name": time,
            "Constraints": {"EncryptionContextSubset": {"CreationDate": time}}}]});
        assert_eq!(value, expected);
    }
}
