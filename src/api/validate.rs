//! What botocore checks before anything is sent: names, types, required members and smallest sizes, with its messages.

use serde_json::{Map, Value};

use super::{Kind, Need, Parameter};

/// Checks a request against its parameters; every complaint is one line, as botocore's `ParamValidator` words it.
pub fn validate(parameters: &[Parameter], request: &Map<String, Value>) -> Vec<String> {
    let mut complaints = Vec::new();
    structure("", parameters, request, &mut complaints);
    complaints
}

fn structure(path: &str, members: &[Parameter], given: &Map<String, Value>, complaints: &mut Vec<String>) {
    let place = if path.is_empty() { "input" } else { path };
    for member in members.iter().filter(|member| member.need == Need::Required) {
        if !given.contains_key(member.name) {
            complaints.push(format!("Missing required parameter in {place}: \"{}\"", member.name));
        }
    }
    for (name, value) in given {
        let Some(member) = members.iter().find(|member| member.name == name) else {
            let known: Vec<_> = members.iter().map(|member| member.name).collect();
            complaints.push(format!("Unknown parameter in {place}: \"{name}\", must be one of: {}", known.join(", ")));
            continue;
        };
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        check(&path, member.kind, member.min, value, complaints);
    }
}

fn check(path: &str, kind: Kind, min: Option<i64>, value: &Value, complaints: &mut Vec<String>) {
    let size = match (kind, value) {
        (Kind::String | Kind::Choice(_) | Kind::Timestamp, Value::String(text)) => {
            Some((text.chars().count(), "length"))
        }
        (Kind::Blob, Value::String(_)) | (Kind::Timestamp, Value::Number(_)) | (Kind::Boolean, Value::Bool(_)) => None,
        (Kind::Integer | Kind::Long, Value::Number(number)) if number.is_i64() => {
            if let (Some(number), Some(min)) = (number.as_i64(), min)
                && number < min
            {
                complaints.push(format!("Invalid value for parameter {path}, value: {number}, valid min value: {min}"));
            }
            None
        }
        (Kind::List(member), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(&format!("{path}[{index}]"), *member, None, item, complaints);
            }
            Some((items.len(), "length"))
        }
        (Kind::Map(member), Value::Object(pairs)) => {
            for (name, item) in pairs {
                check(&format!("{path}.{name}"), *member, None, item, complaints);
            }
            Some((pairs.len(), "length"))
        }
        (Kind::Structure(members), Value::Object(given)) => {
            structure(path, members, given, complaints);
            None
        }
        _ => {
            complaints.push(format!(
                "Invalid type for parameter {path}, value: {}, type: {}, valid types: {}",
                shown(value),
                type_of(value),
                valid_types(kind)
            ));
            None
        }
    };
    if let (Some((size, noun)), Some(min)) = (size, min)
        && i64::try_from(size).unwrap_or(i64::MAX) < min
    {
        complaints.push(format!("Invalid {noun} for parameter {path}, value: {size}, valid min {noun}: {min}"));
    }
}

/// A value as a complaint shows it: what is short stands there, what is long is cut.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().take(80).collect(),
        other => other.to_string().chars().take(80).collect(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

const fn valid_types(kind: Kind) -> &'static str {
    match kind {
        Kind::String | Kind::Choice(_) => "string",
        Kind::Integer | Kind::Long => "integer",
        Kind::Boolean => "boolean",
        Kind::Blob => "base64 string",
        Kind::Timestamp => "timestamp string",
        Kind::List(_) => "list",
        Kind::Map(_) | Kind::Structure(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TAG: &[Parameter] =
        &[Parameter::string("TagKey", "").required(), Parameter::string("TagValue", "").required()];
    const PARAMETERS: &[Parameter] = &[
        Parameter::string("KeyId", "").required().at_least(1),
        Parameter::integer("Days", "").at_least(1),
        Parameter::boolean("DryRun", ""),
        Parameter::map("EncryptionContext", ""),
        Parameter::new("Tags", Kind::List(&Kind::Structure(TAG)), ""),
    ];

    fn complaints(request: Value) -> Vec<String> {
        let Value::Object(request) = request else { panic!("a request is an object") };
        validate(PARAMETERS, &request)
    }

    #[test]
    fn a_whole_request_passes() {
        let request = json!({"KeyId": "k", "Days": 7, "DryRun": false, "EncryptionContext": {"a": "b"},
                             "Tags": [{"TagKey": "a", "TagValue": ""}]});
        assert_eq!(complaints(request), Vec::<String>::new());
    }

    #[test]
    fn every_complaint_is_reported_in_botocores_words() {
        assert_eq!(complaints(json!({})), ["Missing required parameter in input: \"KeyId\""]);
        assert_eq!(
            complaints(json!({"KeyId": "", "Days": 0, "Nope": 1, "Tags": [{"TagKey": 7}], "EncryptionContext": []})),
            [
                "Invalid length for parameter KeyId, value: 0, valid min length: 1",
                "Invalid value for parameter Days, value: 0, valid min value: 1",
                "Unknown parameter in input: \"Nope\", must be one of: KeyId, Days, DryRun, EncryptionContext, Tags",
                "Missing required parameter in Tags[0]: \"TagValue\"",
                "Invalid type for parameter Tags[0].TagKey, value: 7, type: number, valid types: string",
                "Invalid type for parameter EncryptionContext, value: [], type: list, valid types: object",
            ]
        );
    }
}
