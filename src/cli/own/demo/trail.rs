//! The records that the demo left behind.

use serde_json::Value;

use super::stage::{Halt, Stage};

const LINE: &str = "blockseal cloudtrail lookup-events --query 'Events[].CloudTrailEvent'";

/// Every record so far, oldest first.
pub(super) fn events(stage: &Stage) -> Result<Vec<Value>, Halt> {
    let listed = stage.execute(LINE)?.json()?;
    let texts = listed.as_array().into_iter().flatten().rev().filter_map(Value::as_str);
    let events = texts.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let mut events = events.map_err(|error| Halt::Machine(error.into()))?;
    // The demo's own look-ups are no part of the story.
    events.retain(|event| event["eventName"] != "LookupEvents");
    Ok(events)
}

/// Shows what was called, under which context, and how it ended: the calls that EC2 made on the way in brackets behind the
/// user's.
pub(super) fn show(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("The trail: each call, in brackets what EC2 called for it, in braces the encryption context")?;
    stage.run(LINE)?;
    let events = events(stage)?;
    let names = [(stage.variable("VOL"), "V"), (stage.variable("OTHER"), "O"), (stage.variable("DB"), "D")];
    stage.note(&told(&events, &names))?;
    let with_context =
        events.iter().filter(|event| event["requestParameters"]["encryptionContext"].is_object()).count();
    let wrapped = count(&events, "GenerateDataKeyWithoutPlaintext");
    let grants = count(&events, "CreateGrant");
    stage.claim(
        wrapped == 2 && grants > 0 && with_context > 0,
        &format!("{} records; V, O = aws:ebs:id $VOL, $OTHER; D = aws:rds:db-id $DB; ! = refused", events.len()),
    )
}

/// Every record in a word or two.
fn told(events: &[Value], names: &[(&str, &str)]) -> String {
    let mut calls: Vec<(String, Vec<String>)> = Vec::new();
    for event in events {
        let context = context(event, names).map(|context| format!("{{{context}}}")).unwrap_or_default();
        let refused = event["errorCode"].as_str().map(|code| format!("!{}", code.trim_start_matches("Client.")));
        let call =
            format!("{}{context}{}", event["eventName"].as_str().unwrap_or_default(), refused.unwrap_or_default());
        let for_another = event["userIdentity"]["invokedBy"].is_string();
        match calls.last_mut().filter(|_| for_another) {
            Some((_, inner)) => inner.push(call),
            None => calls.push((call, Vec::new())),
        }
    }
    let call = |(call, inner): &(String, Vec<String>)| {
        if inner.is_empty() { call.clone() } else { format!("{call}({})", inner.join(" ")) }
    };
    calls.iter().map(call).collect::<Vec<_>>().join(" ")
}

fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["eventName"] == name && event["errorCode"].is_null()).count()
}

/// The values of the encryption context, or of that in a grant's constraint, by their short names where they have one.
fn context(event: &Value, names: &[(&str, &str)]) -> Option<String> {
    let parameters = &event["requestParameters"];
    let pairs = parameters["encryptionContext"]
        .as_object()
        .or_else(|| parameters["constraints"]["encryptionContextSubset"].as_object())?;
    let shown = pairs.values().map(|value| {
        let value = value.as_str().unwrap_or_default();
        names.iter().find(|(known, _)| *known == value).map_or(value, |(_, name)| name)
    });
    Some(shown.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn calls_for_another_stand_behind_it_in_brackets() {
        let events = [
            json!({"eventName": "AttachVolume", "errorCode": "Client.CustomerKeyHasBeenRevoked"}),
            json!({
                "eventName": "Decrypt",
                "userIdentity": {"invokedBy": "AWS Internal"},
                "requestParameters": {"encryptionContext": {"aws:ebs:id": "vol-1", "aws:rds:db-id": "db-2"}},
                "errorCode": "DisabledException",
            }),
            json!({"eventName": "EnableKey"}),
        ];
        assert_eq!(
            told(&events, &[("vol-1", "V")]),
            "AttachVolume!CustomerKeyHasBeenRevoked(Decrypt{V,db-2}!DisabledException) EnableKey"
        );
    }
}
