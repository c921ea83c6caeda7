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

/// Shows who did what, through whom, under which context, and how it ended.
pub(super) fn show(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("The trail of it all, as CloudTrail records it")?;
    stage.run(LINE)?;
    let events = events(stage)?;
    let mut names: Vec<(&str, &str)> = vec![(stage.variable("VOLUME"), "VOLUME")];
    names.extend([(stage.variable("OTHER"), "OTHER"), (stage.variable("DB"), "DB")]);
    for event in &events {
        let context = context(event, &names).unwrap_or_default();
        let line = format!("{} {:<30} {:<19} {context}", time(event), text(event, "eventName"), who(event));
        match event["errorCode"].as_str() {
            None => stage.note(line.trim_end())?,
            Some(code) => stage.refusal(&format!("{line} {code}"))?,
        }
    }
    let with_context =
        events.iter().filter(|event| event["requestParameters"]["encryptionContext"].is_object()).count();
    let wrapped = count(&events, "GenerateDataKeyWithoutPlaintext");
    let grants = count(&events, "CreateGrant");
    stage.claim(
        wrapped == 2 && grants > 0 && with_context > 0,
        &format!(
            "{} records; {with_context} uses of the key name their encryption context; {wrapped} data keys, {grants} grants",
            events.len()
        ),
    )
}

fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["eventName"] == name && event["errorCode"].is_null()).count()
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

/// The time of day.
fn time(event: &Value) -> &str {
    text(event, "eventTime").get(11..19).unwrap_or_default()
}

/// Who called, or through whom.
fn who(event: &Value) -> &'static str {
    let identity = &event["userIdentity"];
    let invoked_by = identity["invokedBy"].as_str();
    match (identity["type"].as_str(), invoked_by) {
        (Some("AssumedRole"), Some(_)) => "instance's host",
        (Some("AWSService"), Some(_)) => "EC2 itself",
        (_, Some(_)) => "user, by way of EC2",
        _ => "user",
    }
}

/// The encryption context, or that of a grant's constraint, with the names of the demo's variables for their values.
fn context(event: &Value, names: &[(&str, &str)]) -> Option<String> {
    let parameters = &event["requestParameters"];
    let pairs = parameters["encryptionContext"]
        .as_object()
        .or_else(|| parameters["constraints"]["encryptionContextSubset"].as_object())?;
    let shown = pairs.iter().map(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        let known = names.iter().find(|(known, _)| *known == value);
        let value = known.map_or_else(|| value.to_owned(), |(_, name)| format!("${name}"));
        format!("{}={value}", key.trim_start_matches("aws:"))
    });
    Some(shown.collect::<Vec<_>>().join(" "))
}
