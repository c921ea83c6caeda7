//! The operations of CloudTrail (CloudTrail API reference).

use super::{Kind, Operation, Paging, Parameter, Service};
use crate::cloudtrail;
use crate::operation;

/// AWS CloudTrail.
pub(super) static CLOUDTRAIL: Service =
    Service { name: "cloudtrail", help: "The record of every operation", operations: OPERATIONS };

const OPERATIONS: &[Operation] = &[operation!(
    "LookupEvents",
    "SerializationException",
    cloudtrail::LookupEventsRequest,
    cloudtrail::lookup_events,
    "Finds records by one attribute, newest first"
)
.takes(&[
    Parameter::new("LookupAttributes", Kind::List(&Kind::Structure(ATTRIBUTE)), "What to look for: one attribute"),
    Parameter::new("StartTime", Kind::Timestamp, "Not before"),
    Parameter::new("EndTime", Kind::Timestamp, "Not after"),
    Parameter::choice("EventCategory", &["insight"], "Insight events, of which there are none"),
    Parameter::integer("MaxResults", "The most events in one page: 1 to 50").at_least(1),
    Parameter::string("NextToken", "The page to go on with"),
])
.pages(Paging::by_token("Events"))];

const ATTRIBUTE: &[Parameter] = &[
    Parameter::choice("AttributeKey", ATTRIBUTE_KEYS, "").required(),
    Parameter::string("AttributeValue", "").required(),
];

const ATTRIBUTE_KEYS: &[&str] =
    &["EventId", "EventName", "ReadOnly", "Username", "ResourceType", "ResourceName", "EventSource", "AccessKeyId"];
