//! What a service says of a request that breaks the limits of its model, in AWS's words: everything at once, before the
//! operation looks at anything.
//!
//! Wording as recorded of KMS (`Value '1025' at 'numberOfBytes' failed to satisfy constraint: …`, `Value null at 'keyId' …`) and of
//! services with the same framework (`tags.1.member.tagKey`, `Member must satisfy constraint: […]` for a list's items); the order in which
//! several complaints stand is that of the parameters (*assumed*: AWS's follows no rule).

use serde_json::{Map, Value};

use super::limits::{self, Limits};
use super::{Kind, Need, Parameter, SERVICES, Wire, kms_unsupported};
use crate::gate::Refusal;

/// The refusal of a request to the operation called `name`; `None` if it keeps all limits, or if its service has none. Members that
/// must be there and are not are put in, empty, so that the refused request can be read and recorded.
pub(super) fn refusal(name: &str, request: &mut Value) -> Option<Refusal> {
    let Value::Object(request) = request else { return None };
    let service = SERVICES.iter().find(|service| service.operation(name).is_some())?;
    // What is not supported says so, whatever the request.
    if kms_unsupported::OPERATIONS.iter().any(|operation| operation.name == name) {
        return None;
    }
    let code = match service.name {
        "ec2" => return missing_of_ec2("", service.operation(name)?.parameters, request),
        "kms" | "cloudtrail" => "ValidationException",
        "iam" | "sts" => "ValidationError",
        _ => return None,
    };
    let mut checker = Checker { service: service.name, operation: name, complaints: Vec::new() };
    checker.structure("", service.operation(name)?.parameters, request);
    let complaints = checker.complaints;
    let errors = if complaints.len() == 1 { "error" } else { "errors" };
    (!complaints.is_empty()).then(|| Refusal {
        code,
        message: format!("{} validation {errors} detected: {}", complaints.len(), complaints.join("; ")),
        status: 400,
        hint: None,
    })
}

/// EC2 says of one parameter that it is missing, by the name under which it is sent (the sentence is recorded of several
/// parameters; that the first one in the request's order is told, and how one inside a list is named, are *assumed*).
fn missing_of_ec2(path: &str, members: &[Parameter], given: &mut Map<String, Value>) -> Option<Refusal> {
    let mut refusal = None;
    for member in members {
        let name = Wire::of("ec2").map_or_else(
            || member.name.to_owned(),
            |wire| match member.kind {
                Kind::List(_) => wire.input_name(member.name),
                _ => member.name.to_owned(),
            },
        );
        let path = format!("{path}{name}");
        let inner = match (member.kind, given.get_mut(member.name)) {
            (kind, None | Some(Value::Null)) if member.need == Need::Required => {
                given.insert(member.name.to_owned(), empty(kind));
                let message = format!("The request must contain the parameter {path}");
                Some(Refusal { code: "MissingParameter", message, status: 400, hint: None })
            }
            (Kind::Structure(members), Some(Value::Object(given))) => {
                missing_of_ec2(&format!("{path}."), members, given)
            }
            (Kind::List(Kind::Structure(members)), Some(Value::Array(items))) => {
                let missing = items.iter_mut().enumerate().filter_map(|(index, item)| {
                    missing_of_ec2(&format!("{path}.{}.", index + 1), members, item.as_object_mut()?)
                });
                // Every item is filled in, whichever is told.
                missing.collect::<Vec<_>>().into_iter().next()
            }
            _ => None,
        };
        refusal = refusal.or(inner);
    }
    refusal
}

struct Checker<'a> {
    service: &'a str,
    operation: &'a str,
    complaints: Vec<String>,
}

impl Checker<'_> {
    fn structure(&mut self, path: &str, members: &[Parameter], given: &mut Map<String, Value>) {
        for member in members {
            let mut letters = member.name.chars();
            let first = letters.next().map(|letter| letter.to_ascii_lowercase()).into_iter();
            let path: String = path.chars().chain(first).chain(letters).collect();
            match given.get_mut(member.name) {
                None | Some(Value::Null) if member.need == Need::Required => {
                    self.complaints
                        .push(format!("Value null at '{path}' failed to satisfy constraint: Member must not be null"));
                    given.insert(member.name.to_owned(), empty(member.kind));
                }
                None | Some(Value::Null) => {}
                Some(value) => self.value(&path, member, value),
            }
        }
    }

    /// A value of another type than the member's is left to the reading of the request, which refuses it.
    fn value(&mut self, path: &str, member: &Parameter, value: &mut Value) {
        let limits = limits::of(self.service, self.operation, member.name);
        let size = limits.and_then(|limits| limits.size);
        match (member.kind, value) {
            (Kind::Structure(members), Value::Object(given)) => self.structure(&format!("{path}."), members, given),
            (Kind::List(item), Value::Array(items)) => {
                if let Some(broken) = broken_length(items.len(), size) {
                    self.complain(path, &list_shown(items), limits, &broken);
                }
                match item {
                    Kind::Structure(members) => {
                        for (index, item) in items.iter_mut().enumerate() {
                            if let Value::Object(given) = item {
                                self.structure(&format!("{path}.{}.member.", index + 1), members, given);
                            }
                        }
                    }
                    Kind::Choice(choices) => {
                        let unknown = |item: &Value| item.as_str().is_some_and(|item| !choices.contains(&item));
                        if items.iter().any(unknown) {
                            let set = format!("Member must satisfy constraint: [{}]", enumeration(choices));
                            self.complain(path, &list_shown(items), limits, &set);
                        }
                    }
                    _ => self.items(path, items, limits),
                }
            }
            // CloudTrail has exceptions of its own for what is none of its values.
            (Kind::Choice(choices), Value::String(text))
                if !choices.contains(&text.as_str()) && self.service != "cloudtrail" =>
            {
                self.complain(path, text, limits, &enumeration(choices));
            }
            (Kind::String, Value::String(text)) => {
                if let Some(broken) = broken_length(text.chars().count(), size) {
                    self.complain(path, text, limits, &broken);
                }
                if let Some(pattern) = limits.and_then(|limits| limits.pattern)
                    && !text.is_empty()
                    && !(pattern.fits)(text)
                {
                    let broken = format!("Member must satisfy regular expression pattern: {}", pattern.text);
                    self.complain(path, text, limits, &broken);
                }
            }
            (Kind::Blob, Value::String(text)) => {
                if let Some(broken) = blob_bytes(text).and_then(|bytes| broken_length(bytes, size)) {
                    self.complain(path, "", limits, &broken);
                }
            }
            (Kind::Integer | Kind::Long, Value::Number(number)) => {
                if let (Some(number), Some([least, most])) = (number.as_i64(), size) {
                    let bound = match number {
                        number if number < least => format!("greater than or equal to {least}"),
                        number if number > most => format!("less than or equal to {most}"),
                        _ => return,
                    };
                    self.complain(path, &number.to_string(), limits, &format!("Member must have value {bound}"));
                }
            }
            _ => {}
        }
    }

    /// Texts of a list: what is wrong with one is said of the list, with all that is asked of each.
    fn items(&mut self, path: &str, items: &[Value], limits: Option<&Limits>) {
        let Some(Limits { each: Some(each), pattern, .. }) = limits else { return };
        let wrong = |item: &str| {
            broken_length(item.chars().count(), Some(*each)).is_some()
                || pattern.is_some_and(|pattern| !(pattern.fits)(item))
        };
        if !items.iter().filter_map(Value::as_str).any(wrong) {
            return;
        }
        let [least, most] = each;
        let mut asked = format!(
            "Member must have length less than or equal to {most}, Member must have length greater than or equal to {least}"
        );
        if let Some(pattern) = pattern {
            asked = format!("{asked}, Member must satisfy regular expression pattern: {}", pattern.text);
        }
        self.complain(path, &list_shown(items), limits, &format!("Member must satisfy constraint: [{asked}]"));
    }

    fn complain(&mut self, path: &str, value: &str, limits: Option<&Limits>, constraint: &str) {
        let value = if limits.is_some_and(|limits| limits.unsaid) { String::new() } else { format!(" '{value}'") };
        self.complaints.push(format!("Value{value} at '{path}' failed to satisfy constraint: {constraint}"));
    }
}

fn broken_length(length: usize, size: Option<[i64; 2]>) -> Option<String> {
    let [least, most] = size?;
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let bound = match length {
        length if length < least => format!("greater than or equal to {least}"),
        length if length > most => format!("less than or equal to {most}"),
        _ => return None,
    };
    Some(format!("Member must have length {bound}"))
}

fn enumeration(choices: &[&str]) -> String {
    format!("Member must satisfy enum value set: [{}]", choices.join(", "))
}

/// A list as Java prints one.
fn list_shown(items: &[Value]) -> String {
    let texts: Vec<_> = items.iter().map(|item| item.as_str().unwrap_or_default()).collect();
    format!("[{}]", texts.join(", "))
}

/// How many bytes base64 text stands for; `None` if that cannot be told from its length.
fn blob_bytes(text: &str) -> Option<usize> {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len().is_multiple_of(4) && padding <= 2).then(|| text.len() / 4 * 3 - padding.min(text.len()))
}

/// A value of that kind with nothing in it.
fn empty(kind: Kind) -> Value {
    match kind {
        Kind::String | Kind::Choice(_) | Kind::Blob => Value::String(String::new()),
        Kind::Timestamp => Value::String("1970-01-01T00:00:00Z".to_owned()),
        Kind::Integer | Kind::Long => Value::from(0),
        Kind::Boolean => Value::Bool(false),
        Kind::List(_) => Value::Array(Vec::new()),
        Kind::Map(_) => Value::Object(Map::new()),
        Kind::Structure(members) => {
            let required = members.iter().filter(|member| member.need == Need::Required);
            Value::Object(required.map(|member| (member.name.to_owned(), empty(member.kind))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(name: &str, mut request: Value) -> String {
        refusal(name, &mut request).map_or_else(String::new, |refusal| format!("{}: {}", refusal.code, refusal.message))
    }

    /// Messages as the services send them: recorded of KMS where it is KMS's, else of services with the same framework.
    #[test]
    fn what_is_wrong_is_said_in_awss_words() {
        let one = "ValidationException: 1 validation error detected: Value";
        let failed = "failed to satisfy constraint: Member must";
        let long = "k".repeat(2049);
        for (name, request, wanted) in [
            ("DescribeKey", json!({}), format!("{one} null at 'keyId' {failed} not be null")),
            ("DescribeKey", json!({"KeyId": null}), format!("{one} null at 'keyId' {failed} not be null")),
            (
                "DescribeKey",
                json!({"KeyId": long}),
                format!("{one} '{long}' at 'keyId' {failed} have length less than or equal to 2048"),
            ),
            (
                "DescribeKey",
                json!({"KeyId": ""}),
                format!("{one} '' at 'keyId' {failed} have length greater than or equal to 1"),
            ),
            (
                "GenerateRandom",
                json!({"NumberOfBytes": 1025}),
                format!("{one} '1025' at 'numberOfBytes' {failed} have value less than or equal to 1024"),
            ),
            (
                "GenerateDataKey",
                json!({"KeyId": "k", "KeySpec": "AES_512"}),
                format!("{one} 'AES_512' at 'keySpec' {failed} satisfy enum value set: [AES_256, AES_128]"),
            ),
            (
                "TagResource",
                json!({"KeyId": "k", "Tags": [{"TagKey": "a", "TagValue": "b"}, {"TagKey": "", "TagValue": "b"}]}),
                format!("{one} '' at 'tags.2.member.tagKey' {failed} have length greater than or equal to 1"),
            ),
            (
                "TagResource",
                json!({"KeyId": "k", "Tags": [{"TagKey": "a"}]}),
                format!("{one} null at 'tags.1.member.tagValue' {failed} not be null"),
            ),
            (
                "UntagResource",
                json!({"KeyId": "k", "TagKeys": ["a", ""]}),
                format!(
                    "{one} '[a, ]' at 'tagKeys' {failed} satisfy constraint: [Member must have length less than or equal to \
                     128, Member must have length greater than or equal to 1]"
                ),
            ),
            (
                "CreateAlias",
                json!({"AliasName": "alias/a b", "TargetKeyId": "k"}),
                format!(
                    "{one} 'alias/a b' at 'aliasName' {failed} satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"
                ),
            ),
        ] {
            assert_eq!(said(name, request), wanted);
        }
        assert_eq!(
            said("CreateAlias", json!({"AliasName": ""})),
            "ValidationException: 2 validation errors detected: Value '' at 'aliasName' failed to satisfy constraint: Member must \
             have length greater than or equal to 1; Value null at 'targetKeyId' failed to satisfy constraint: Member must not be null"
        );
        let session =
            said("AssumeRole", json!({"RoleArn": "arn:aws:iam::123456789012:role/r", "RoleSessionName": "s"}));
        assert!(
            session.starts_with("ValidationError: 1 validation error detected: Value 's' at 'roleSessionName'"),
            "{session}"
        );
        let operations =
            said("CreateGrant", json!({"KeyId": "k", "GranteePrincipal": "p", "Operations": ["Decrypt", "Fly"]}));
        let list = "Value '[Decrypt, Fly]' at 'operations' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [Decrypt, ";
        assert!(operations.contains(list), "{operations}");
    }

    #[test]
    fn ec2_names_the_one_parameter_that_is_missing() {
        let missing = |name: &str| format!("MissingParameter: The request must contain the parameter {name}");
        for (name, request, parameter) in [
            ("AttachVolume", json!({}), "VolumeId"),
            ("DeleteVolume", json!({"VolumeId": null}), "VolumeId"),
            ("TerminateInstances", json!({}), "InstanceId"),
            ("DescribeVolumes", json!({"Filters": [{"Name": "size", "Values": ["1"]}, {}]}), "Filter.2.Name"),
            (
                "CreateVolume",
                json!({"TagSpecifications": [{"ResourceType": "volume", "Tags": [{"Value": "v"}]}]}),
                "TagSpecification.1.Tag.1.Key",
            ),
        ] {
            assert_eq!(said(name, request), missing(parameter), "{name}");
        }
        assert_eq!(said("CreateVolume", json!({"Size": 1})), "");
    }

    #[test]
    fn secrets_are_not_repeated() {
        use base64::Engine as _;
        let blob = base64::engine::general_purpose::STANDARD.encode([7; 4097]);
        let plaintext = said("Encrypt", json!({"KeyId": "k", "Plaintext": blob}));
        assert!(plaintext.ends_with(
            "Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096"
        ));
        let token = "t".repeat(8193);
        let grants = said("Decrypt", json!({"CiphertextBlob": "eA==", "GrantTokens": [token]}));
        assert!(grants.contains("Value at 'grantTokens'") && !grants.contains("ttt"), "{grants}");
        let many: Vec<_> = (0..11).map(|_| "token").collect();
        assert!(!said("Decrypt", json!({"CiphertextBlob": "eA==", "GrantTokens": many})).contains("'["));
    }

    #[test]
    fn what_keeps_the_limits_passes() {
        for (name, request) in [
            ("DescribeKey", json!({"KeyId": "k"})),
            ("Encrypt", json!({"KeyId": "k", "Plaintext": "eA==", "EncryptionContext": {"": ""}})),
            ("DescribeKey", json!({"KeyId": 7})),
            ("DescribeKey", json!([])),
            ("CreateVolume", json!({})),
            ("NoSuchOperation", json!({})),
            ("LookupEvents", json!({"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "x"}]})),
        ] {
            assert_eq!(said(name, request), "");
        }
        assert_eq!(
            [0, 1, 2, 3].map(|bytes| blob_bytes(["", "eA==", "eHg=", "eHh4"][bytes])),
            [Some(0), Some(1), Some(2), Some(3)]
        );
        assert_eq!(blob_bytes("eA"), None);
    }
}
