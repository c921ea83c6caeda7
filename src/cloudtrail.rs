//! The CloudTrail API: `LookupEvents` (CloudTrail API reference).

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Time;
use crate::gate::{self, Call, Operation, Service, ServiceError};
use crate::iam::Context;
use crate::kms;
use crate::trail::{self, Attribute, Query};

/// CloudTrail.
pub static SERVICE: Service = Service {
    event_source: "cloudtrail.amazonaws.com",
    error_prefix: "",
    lists_resources: false,
    settlers: kms::SERVICE.settlers,
};

static LOOKUP_EVENTS: Operation = Operation { name: "LookupEvents", read_only: true, service: &SERVICE };

/// How far back `LookupEvents` looks.
const HISTORY: SignedDuration = SignedDuration::from_hours(90 * 24);

/// `LookupEvents`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct LookupEventsRequest {
    /// At most one.
    #[serde(default)]
    pub lookup_attributes: Vec<LookupAttribute>,
    /// Not before.
    pub start_time: Option<Time>,
    /// Not after.
    pub end_time: Option<Time>,
    /// `insight`, of which there are none.
    pub event_category: Option<String>,
    /// 1-50; 50 if absent.
    pub max_results: Option<i64>,
    /// Where the last answer ended, with the same parameters.
    pub next_token: Option<String>,
}

/// What to look for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct LookupAttribute {
    /// `EventId`, `EventName`, `ReadOnly`, `Username`, `ResourceType`, `ResourceName`, `EventSource` or `AccessKeyId`.
    pub attribute_key: String,
    /// Its very value.
    pub attribute_value: String,
}

/// What `LookupEvents` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LookupEventsResponse {
    /// Newest first.
    pub events: Vec<Event>,
    /// With which the rest is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// One event of `LookupEvents`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// A UUID.
    pub event_id: String,
    /// The operation.
    pub event_name: String,
    /// `true` or `false`, as a string.
    pub read_only: &'static str,
    /// The access key that signed the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// When it was called, in whole seconds.
    pub event_time: Time,
    /// The service.
    pub event_source: String,
    /// The caller's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// What it touched.
    pub resources: Vec<EventResource>,
    /// The record, as a string of JSON.
    pub cloud_trail_event: String,
}

/// A resource of an event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct EventResource {
    /// Such as `AWS::KMS::Key`.
    pub resource_type: String,
    /// An ARN, or an id.
    pub resource_name: String,
}

/// Finds the records of the caller's account and Region, newest first. The look-up is itself recorded.
pub fn lookup_events(call: &Call<'_>, req: LookupEventsRequest) -> Result<LookupEventsResponse, ServiceError> {
    gate::run(call, &LOOKUP_EVENTS, parameters(&req), |step| {
        gate::authorise(step, "cloudtrail:LookupEvents", None, &Context::default())?;
        let limit = match req.max_results.unwrap_or(50) {
            results @ 1..=50 => usize::try_from(results).map_err(ServiceError::machine)?,
            results => {
                let message = format!("Invalid value {results} for MaxResults: specify a value between 1 and 50.");
                return Err(ServiceError::refused("InvalidMaxResultsException", message));
            }
        };
        let attribute = attribute(&req.lookup_attributes)?;
        if let Some(category) = &req.event_category {
            if category != "insight" {
                let message = format!("Invalid event category {category}: the only valid value is insight.");
                return Err(ServiceError::refused("InvalidEventCategoryException", message));
            }
            return Ok(LookupEventsResponse { events: Vec::new(), next_token: None });
        }
        if let (Some(start), Some(end)) = (req.start_time, req.end_time)
            && start > end
        {
            let message = "The start time must be before the end time.";
            return Err(ServiceError::refused("InvalidTimeRangeException", message));
        }
        let query = Query {
            account: call.account.clone(),
            region: call.region.clone(),
            attribute,
            start: req.start_time,
            // The range ends with the whole second that was named, since that is as fine as records are.
            end: req.end_time.map(|end| end.after(SignedDuration::from_micros(999_999))),
            oldest: step.now.after(-HISTORY),
        };
        let page = trail::look_up(step.tx, &query, limit, req.next_token.as_deref())?.map_err(|_| {
            ServiceError::refused("InvalidNextTokenException", "Invalid NextToken: use the parameters that gave it.")
        })?;
        Ok(LookupEventsResponse { events: page.events.into_iter().map(event).collect(), next_token: page.next })
    })
}

fn parameters(req: &LookupEventsRequest) -> Value {
    let mut parameters = json!({});
    if !req.lookup_attributes.is_empty() {
        let one =
            |one: &LookupAttribute| json!({"attributeKey": one.attribute_key, "attributeValue": one.attribute_value});
        parameters["lookupAttributes"] = req.lookup_attributes.iter().map(one).collect();
    }
    for (name, time) in [("startTime", req.start_time), ("endTime", req.end_time)] {
        if let Some(time) = time {
            parameters[name] = time.to_trail_date_string().into();
        }
    }
    if let Some(results) = req.max_results {
        parameters["maxResults"] = results.into();
    }
    if let Some(token) = &req.next_token {
        parameters["nextToken"] = token.as_str().into();
    }
    if parameters == json!({}) { Value::Null } else { parameters }
}

fn attribute(given: &[LookupAttribute]) -> Result<Option<(Attribute, String)>, ServiceError> {
    let refuse = |message: String| Err(ServiceError::refused("InvalidLookupAttributesException", message));
    let one = match given {
        [] => return Ok(None),
        [one] => one,
        _ => return refuse("You can specify only one lookup attribute.".to_owned()),
    };
    let Some((_, attribute)) = Attribute::ALL.into_iter().find(|(name, _)| *name == one.attribute_key) else {
        let names: Vec<_> = Attribute::ALL.iter().map(|(name, _)| *name).collect();
        return refuse(format!("Invalid attribute key {}: use one of {}.", one.attribute_key, names.join(", ")));
    };
    if one.attribute_value.is_empty() || one.attribute_value.chars().count() > 2000 {
        return refuse("The attribute value must have 1 to 2000 characters.".to_owned());
    }
    Ok(Some((attribute, one.attribute_value.clone())))
}

fn event(event: trail::Event) -> Event {
    let resource =
        |resource: trail::EventResource| EventResource { resource_type: resource.kind, resource_name: resource.name };
    Event {
        event_id: event.event_id,
        event_name: event.name,
        read_only: if event.read_only { "true" } else { "false" },
        access_key_id: event.access_key_id,
        event_time: whole_seconds(event.time),
        event_source: event.source,
        username: event.username,
        resources: event.resources.into_iter().map(resource).collect(),
        cloud_trail_event: event.record,
    }
}

fn whole_seconds(time: Time) -> Time {
    Time::from_micros(time.micros().div_euclid(1_000_000) * 1_000_000).unwrap_or(time)
}
