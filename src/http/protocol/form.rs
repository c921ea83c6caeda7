//! A form's flat names as nested values: `Filter.1.Value.2`, `Tags.member.1.Key`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::api::{Form, Kind, Parameter, Wire};
use crate::http::failure::Failure;

/// What stands below one part of a name.
#[derive(Default, Debug)]
struct Node {
    value: Option<String>,
    below: BTreeMap<String, Node>,
}

/// Deeper than any parameter is.
const MAX_DEPTH: usize = 12;

/// What belongs to the protocol and to no operation.
fn is_protocols(name: &str) -> bool {
    name.starts_with("X-Amz-")
        || matches!(
            name,
            "Action"
                | "Version"
                | "AWSAccessKeyId"
                | "Signature"
                | "SignatureMethod"
                | "SignatureVersion"
                | "Timestamp"
        )
}

/// The request that a form's pairs mean to an operation with `parameters`.
pub(super) fn read(
    wire: &Wire,
    parameters: &[Parameter],
    pairs: Vec<(String, String)>,
) -> Result<Map<String, Value>, Failure> {
    let mut root = Node::default();
    for (name, value) in pairs {
        if is_protocols(&name) {
            continue;
        }
        let mut node = &mut root;
        for (depth, part) in name.split('.').enumerate() {
            if depth == MAX_DEPTH {
                return Err(Failure::UnknownParameter(shown(&name)));
            }
            node = node.below.entry(part.to_owned()).or_default();
        }
        if node.value.replace(value).is_some() {
            return Err(Failure::Malformed(format!("The parameter {} is there more than once", shown(&name))));
        }
    }
    structure(wire, "", parameters, root)
}

fn structure(wire: &Wire, path: &str, members: &[Parameter], node: Node) -> Result<Map<String, Value>, Failure> {
    let mut read = Map::new();
    for (name, below) in node.below {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let member = members.iter().find(|member| match member.kind {
            Kind::List(_) => wire.input_name(member.name) == name,
            _ => member.name == name,
        });
        let Some(member) = member else { return Err(Failure::UnknownParameter(shown(&path))) };
        read.insert(member.name.to_owned(), typed(wire, &path, member.kind, below)?);
    }
    Ok(read)
}

fn typed(wire: &Wire, path: &str, kind: Kind, mut node: Node) -> Result<Value, Failure> {
    let is_one_word = node.below.is_empty();
    match (kind, node.value.take()) {
        (Kind::Structure(members), None) => Ok(Value::Object(structure(wire, path, members, node)?)),
        (Kind::List(member), None) => {
            let numbered = match wire.form {
                Form::Ec2 { .. } => node,
                _ => only(path, "member", node)?,
            };
            let items = in_order(path, numbered)?;
            let items = items.into_iter().map(|(path, item)| typed(wire, &path, *member, item));
            Ok(Value::Array(items.collect::<Result<_, Failure>>()?))
        }
        // An empty list, as SDKs send it.
        (Kind::List(_), Some(text)) if text.is_empty() && is_one_word => Ok(Value::Array(Vec::new())),
        (Kind::Map(member), None) => {
            let mut pairs = Map::new();
            for (path, mut entry) in in_order(path, only(path, "entry", node)?)? {
                let key = entry.below.remove("key").and_then(|key| key.value);
                let value = entry.below.remove("value");
                let (Some(key), Some(value), true) = (key, value, entry.below.is_empty()) else {
                    return Err(Failure::Malformed(format!("{} needs a key and a value", shown(&path))));
                };
                pairs.insert(key, typed(wire, &path, *member, value)?);
            }
            Ok(Value::Object(pairs))
        }
        (Kind::String | Kind::Choice(_) | Kind::Blob | Kind::Timestamp, Some(text)) if is_one_word => {
            Ok(Value::String(text))
        }
        (Kind::Integer | Kind::Long, Some(text)) if is_one_word => {
            text.parse::<i64>().map(Value::from).map_err(|_| invalid(wire, path, &text, "Integer"))
        }
        (Kind::Boolean, Some(text)) if is_one_word => match text.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(invalid(wire, path, &text, "Boolean")),
        },
        _ => Err(Failure::Malformed(format!("The parameter {} is not a {}", shown(path), kind.name()))),
    }
}

/// The one thing that stands below a list or a map.
fn only(path: &str, name: &str, mut node: Node) -> Result<Node, Failure> {
    match (node.below.remove(name), node.below.is_empty()) {
        (Some(found), true) => Ok(found),
        _ => Err(Failure::Malformed(format!("{} is followed by .{name}.N", shown(path)))),
    }
}

/// Numbered items in their order; numbers may be left out, as AWS has it.
fn in_order(path: &str, node: Node) -> Result<Vec<(String, Node)>, Failure> {
    let mut items = Vec::with_capacity(node.below.len());
    for (number, item) in node.below {
        let path = format!("{path}.{number}");
        let Ok(number) = number.parse::<u32>() else { return Err(Failure::UnknownParameter(shown(&path))) };
        items.push((number, path, item));
    }
    items.sort_by_key(|(number, _, _)| *number);
    Ok(items.into_iter().map(|(_, path, item)| (path, item)).collect())
}

fn invalid(wire: &Wire, path: &str, text: &str, wanted: &str) -> Failure {
    let text = shown(text);
    Failure::Malformed(match wire.form {
        Form::Ec2 { .. } => format!("Value ({text}) for parameter {path} is invalid. Expected: '{wanted}'."),
        _ => format!("The value '{text}' of {path} is not of the type {wanted}"),
    })
}

/// What was sent, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TAG: &[Parameter] = &[Parameter::string("Key", ""), Parameter::string("Value", "")];
    const SPECIFICATION: &[Parameter] =
        &[Parameter::string("ResourceType", ""), Parameter::new("Tags", Kind::List(&Kind::Structure(TAG)), "")];
    const PARAMETERS: &[Parameter] = &[
        Parameter::strings("VolumeIds", ""),
        Parameter::integer("Size", ""),
        Parameter::boolean("DryRun", ""),
        Parameter::new("TagSpecifications", Kind::List(&Kind::Structure(SPECIFICATION)), ""),
        Parameter::new("Tags", Kind::List(&Kind::Structure(TAG)), ""),
        Parameter::map("Context", ""),
    ];

    fn read_of(service: &str, pairs: &[(&str, &str)]) -> Result<Value, String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match read(Wire::of(service).unwrap(), PARAMETERS, pairs) {
            Ok(read) => Ok(Value::Object(read)),
            Err(Failure::UnknownParameter(name)) => Err(format!("unknown {name}")),
            Err(Failure::Malformed(text)) => Err(text),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn ec2s_lists_are_numbered_and_query_lists_have_members() {
        let given = [
            ("Action", "X"),
            ("VolumeId.2", "b"),
            ("VolumeId.10", "c"),
            ("VolumeId.1", "a"),
            ("Size", "8"),
            ("DryRun", "true"),
            ("TagSpecification.1.ResourceType", "volume"),
            ("TagSpecification.1.Tag.1.Key", "k"),
            ("TagSpecification.1.Tag.1.Value", ""),
        ];
        assert_eq!(
            read_of("ec2", &given).unwrap(),
            json!({"VolumeIds": ["a", "b", "c"], "Size": 8, "DryRun": true,
                   "TagSpecifications": [{"ResourceType": "volume", "Tags": [{"Key": "k", "Value": ""}]}]})
        );
        let given = [
            ("Tags.member.1.Key", "k"),
            ("Tags.member.1.Value", "v"),
            ("Context.entry.1.key", "a"),
            ("Context.entry.1.value", "b"),
            ("VolumeIds", ""),
        ];
        assert_eq!(
            read_of("iam", &given).unwrap(),
            json!({"Tags": [{"Key": "k", "Value": "v"}], "Context": {"a": "b"}, "VolumeIds": []})
        );
    }

    #[test]
    fn what_is_not_a_parameter_or_not_of_its_type_is_refused() {
        for (given, said) in [
            (&[("Surely", "1")][..], "unknown Surely"),
            (&[("VolumeIds.1", "a")], "unknown VolumeIds"),
            (&[("VolumeId.x", "a")], "unknown VolumeId.x"),
            (&[("VolumeId", "a")], "The parameter VolumeId is not a list"),
            (&[("Size", "8x")], "Value (8x) for parameter Size is invalid. Expected: 'Integer'."),
            (&[("DryRun", "yes")], "Value (yes) for parameter DryRun is invalid. Expected: 'Boolean'."),
            (&[("Size", "1"), ("Size", "2")], "The parameter Size is there more than once"),
            (&[("Size", "1"), ("Size.1", "2")], "The parameter Size is not a integer"),
            (&[("TagSpecification.1.Tag.1.Nope", "")], "unknown TagSpecification.1.Tag.1.Nope"),
            (&[("a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a", "")], "unknown a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a"),
        ] {
            assert_eq!(read_of("ec2", given), Err(said.to_owned()));
        }
        assert_eq!(read_of("iam", &[("Tags.1.Key", "k")]), Err("Tags is followed by .member.N".to_owned()));
    }
}
