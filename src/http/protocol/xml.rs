//! A result as XML. The names are [`Wire::name`]'s, so that no operation is written out by hand.

use serde_json::Value;

use crate::api::Wire;
use crate::clock::parse_time;
use crate::http::request::encode;

/// The members of a structure, each as an element. `parent` is the member that the structure is the value of, or the name of
/// the operation.
pub(super) fn members(wire: &Wire, parent: &str, value: &Value, into: &mut String) {
    let Value::Object(members) = value else { return };
    for (member, value) in members {
        let name = wire.name(parent, member, value.is_array());
        match value {
            Value::Null => {}
            Value::Array(items) => {
                open(&name, into);
                for item in items {
                    element(wire, wire.item(), member, item, into);
                }
                close(&name, into);
            }
            value => element(wire, &name, member, value, into),
        }
    }
}

/// An element `name` with the value of `member`, or of an item of it.
fn element(wire: &Wire, name: &str, member: &str, value: &Value, into: &mut String) {
    open(name, into);
    if wire.documents.contains(&member) {
        let text = match value {
            Value::String(text) => text.clone(),
            document => document.to_string(),
        };
        encode(&text, into);
    } else {
        match value {
            Value::String(text) => match parse_time(text).filter(|_| wire.times.contains(&member)) {
                Some(time) => into.push_str(&time.format_utc(wire.time_format())),
                None => escape(text, into),
            },
            Value::Object(_) => members(wire, member, value, into),
            Value::Array(items) => items.iter().for_each(|item| element(wire, wire.item(), member, item, into)),
            scalar => into.push_str(&scalar.to_string()),
        }
    }
    close(name, into);
}

/// `<name>text</name>`.
pub(super) fn text(name: &str, text: &str, into: &mut String) {
    open(name, into);
    escape(text, into);
    close(name, into);
}

pub(super) fn open(name: &str, into: &mut String) {
    into.push('<');
    into.push_str(name);
    into.push('>');
}

/// Closes an element that [`open`] opened: the name ends where its attributes begin.
pub(super) fn close(name: &str, into: &mut String) {
    into.push_str("</");
    into.push_str(name.split(' ').next().unwrap_or(name));
    into.push('>');
}

/// Text that XML 1.0 takes: what has a meaning there is escaped, what it cannot hold at all is replaced.
fn escape(text: &str, into: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' => into.push_str("&quot;"),
            '\r' => into.push_str("&#13;"),
            '\t' | '\n' => into.push(letter),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => into.push('\u{fffd}'),
            letter => into.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn xml(service: &str, operation: &str, value: &Value) -> String {
        let mut text = String::new();
        members(Wire::of(service).unwrap(), operation, value, &mut text);
        text
    }

    #[test]
    fn ec2s_lists_are_sets_of_items() {
        let value = json!({"Volumes": [{"VolumeId": "vol-1", "State": "in-use", "Encrypted": true, "Size": 8,
            "CreateTime": "2026-11-24T04:29:58.123456+00:00", "SnapshotId": "",
            "Attachments": [{"State": "attached"}], "Tags": [{"Key": "a", "Value": "<&>\u{1}"}]}]});
        assert_eq!(
            xml("ec2", "DescribeVolumes", &value),
            "<volumeSet><item><volumeId>vol-1</volumeId><status>in-use</status><encrypted>true</encrypted><size>8</size>\
             <createTime>2026-11-24T04:29:58.123Z</createTime><snapshotId></snapshotId><attachmentSet><item><status>attached\
             </status></item></attachmentSet><tagSet><item><key>a</key><value>&lt;&amp;&gt;\u{fffd}</value></item></tagSet>\
             </item></volumeSet>"
        );
    }

    #[test]
    fn iams_documents_are_percent_encoded() {
        let value = json!({"PolicyDocument": {"Version": "2012-10-17"}, "PolicyNames": ["a", "b"],
                           "CreateDate": "2026-11-24T04:29:58.123456+00:00"});
        assert_eq!(
            xml("iam", "GetUserPolicy", &value),
            "<PolicyDocument>%7B%22Version%22%3A%222012-10-17%22%7D</PolicyDocument><PolicyNames><member>a</member>\
             <member>b</member></PolicyNames><CreateDate>2026-11-24T04:29:58Z</CreateDate>"
        );
    }
}
