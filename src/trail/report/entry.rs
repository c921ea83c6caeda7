//! A record, of CloudTrail or of ours, as far as a report needs it. Fields that are missing or of another kind than
//! expected make it tell less, never fail, as there are events of every shape.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::clock::{Time, parse_time};

use super::ReportQuery;

/// What is looked for, and what was found already.
#[derive(Debug)]
pub(super) struct Asked {
    key: String,
    start: i64,
    end: i64,
    /// Event ids, because CloudTrail may deliver a record twice and a folder hold a file twice.
    seen: Mutex<HashSet<u128>>,
}

impl Asked {
    pub(super) fn of(query: &ReportQuery) -> Self {
        let seconds = |time: Time| time.micros().div_euclid(1_000_000);
        Self {
            key: query.key.clone(),
            start: query.start.map_or(i64::MIN, seconds),
            end: query.end.map_or(i64::MAX, seconds),
            seen: Mutex::default(),
        }
    }

    /// What every record about the key has in it somewhere.
    pub(super) fn needle(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }

    fn is(&self, name: &str) -> bool {
        let is_id_of = |arn: &str| arn.split_once(":key/").is_some_and(|(_, id)| id == self.key);
        name == self.key || !self.key.starts_with("arn:") && is_id_of(name)
    }

    fn is_new(&self, id: u128) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }
}

/// A use of the key that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// Seconds since 1970.
    pub(super) at: i64,
    pub(super) key: Option<String>,
    pub(super) region: String,
    pub(super) operation: String,
    pub(super) principal: String,
    pub(super) through: Option<String>,
    pub(super) context: BTreeMap<String, String>,
    pub(super) error: Option<(String, Option<String>)>,
    pub(super) shared: Option<String>,
    /// Whether it says who called, and not only from which account.
    pub(super) names_caller: bool,
}

impl Use {
    /// The use that a record tells of, if it is about the key and was not seen before.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub(super) fn read(text: &str, asked: &Asked) -> Result<Option<Self>, serde_json::Error> {
        Ok(serde_json::from_str::<Loose<Entry>>(text)?.0.and_then(|entry| entry.into_use(asked)))
    }

    /// The uses in a log file: `{"Records":[…]}`, or what `lookup-events` prints.
    ///
    /// # Errors
    /// If it is no JSON, or has no records.
    pub(super) fn read_file(text: &[u8], asked: &Asked, found: impl FnMut(Self)) -> Result<(), String> {
        let entries = match serde_json::from_slice::<LogFile>(text) {
            Ok(file) => file.records,
            Err(_) => any_entries(serde_json::from_slice(text).map_err(|error| error.to_string())?)
                .ok_or("it has no Records")?,
        };
        entries.into_iter().filter_map(|entry| entry.0?.into_use(asked)).for_each(found);
        Ok(())
    }
}

/// The slow way, for files in which something is of an unknown kind: one record at a time.
fn any_entries(file: Value) -> Option<Vec<Loose<Entry>>> {
    let list = match file {
        Value::Array(list) => list,
        Value::Object(mut file) => match (file.remove("Records"), file.remove("Events")) {
            (Some(Value::Array(list)), _) => list,
            (_, Some(Value::Array(events))) => events.into_iter().filter_map(looked_up).collect(),
            _ => return None,
        },
        _ => return None,
    };
    Some(list.into_iter().filter_map(|record| serde_json::from_value(record).ok()).collect())
}

/// The record in an event of `lookup-events`.
fn looked_up(event: Value) -> Option<Value> {
    serde_json::from_str(event.get("CloudTrailEvent")?.as_str()?).ok()
}

#[derive(Deserialize)]
struct LogFile {
    #[serde(rename = "Records")]
    records: Vec<Loose<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    event_time: String,
    event_name: String,
    event_source: String,
    #[serde(default)]
    aws_region: Option<String>,
    #[serde(default, rename = "sourceIPAddress")]
    source_ip: Option<String>,
    #[serde(default)]
    error_code: Option<String>,
    #[serde(default)]
    error_message: Option<String>,
    #[serde(default, rename = "eventID")]
    event_id: Option<String>,
    #[serde(default, rename = "sharedEventID")]
    shared_event_id: Option<String>,
    #[serde(default)]
    user_identity: Loose<Identity>,
    #[serde(default)]
    request_parameters: Loose<Parameters>,
    #[serde(default)]
    resources: Option<Vec<Loose<Resource>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    arn: Option<String>,
    #[serde(default)]
    principal_id: Option<String>,
    #[serde(default)]
    account_id: Option<String>,
    #[serde(default)]
    invoked_by: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Parameters {
    key_id: Value,
    destination_key_id: Value,
    encryption_context: Loose<BTreeMap<String, Value>>,
    source_encryption_context: Loose<BTreeMap<String, Value>>,
    destination_encryption_context: Loose<BTreeMap<String, Value>>,
    constraints: Loose<Constraints>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Constraints {
    encryption_context_subset: Loose<BTreeMap<String, Value>>,
    encryption_context_equals: Loose<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default, rename = "ARN")]
    arn: Option<String>,
}

impl Entry {
    fn into_use(self, asked: &Asked) -> Option<Use> {
        if self.event_source != "kms.amazonaws.com" {
            return None;
        }
        let parameters = self.request_parameters.0.unwrap_or_default();
        let listed = self.resources.into_iter().flatten().filter_map(|resource| resource.0?.arn);
        let key = listed.into_iter().find(|arn| asked.is(arn));
        let is_named = |value: &Value| value.as_str().is_some_and(|name| asked.is(name) || name == asked.needle());
        if key.is_none() && !is_named(&parameters.key_id) && !is_named(&parameters.destination_key_id) {
            return None;
        }
        let at = seconds(&self.event_time)?;
        let id = self.event_id.as_deref().and_then(number);
        if at < asked.start || at > asked.end || id.is_some_and(|id| !asked.is_new(id)) {
            return None;
        }
        let is_destination = is_named(&parameters.destination_key_id);
        let (principal, through, names_caller) = who(self.user_identity.0, self.source_ip);
        Some(Use {
            at,
            key,
            region: self.aws_region.unwrap_or_default(),
            operation: self.event_name,
            principal,
            through,
            context: parameters.context(is_destination),
            error: self.error_code.map(|code| (code, self.error_message.filter(|message| !message.is_empty()))),
            shared: self.shared_event_id,
            names_caller,
        })
    }
}

impl Parameters {
    /// The context of the call, that of the key's side for a `ReEncrypt`, or what a new grant is limited to.
    fn context(self, is_destination: bool) -> BTreeMap<String, String> {
        let constraints = self.constraints.0.unwrap_or_default();
        let (first, second) = (self.source_encryption_context.0, self.destination_encryption_context.0);
        let of_re_encrypt = if is_destination { second.or(first) } else { first.or(second) };
        let context = self.encryption_context.0.or(of_re_encrypt);
        let context = context.or(constraints.encryption_context_equals.0).or(constraints.encryption_context_subset.0);
        let text = |(name, value)| if let Value::String(value) = value { Some((name, value)) } else { None };
        context.into_iter().flatten().filter_map(text).collect()
    }
}

/// Who called, through which service, and whether that is more than an account.
fn who(identity: Option<Identity>, source_ip: Option<String>) -> (String, Option<String>, bool) {
    let service = source_ip.filter(|source| source.ends_with(".amazonaws.com") || source == "AWS Internal");
    let Some(identity) = identity else { return ("unknown".to_owned(), service, false) };
    let Identity { kind, arn, principal_id, account_id, invoked_by } = identity;
    let kind = kind.unwrap_or_default();
    if let Some(arn) = arn {
        return (arn, invoked_by.or(service), true);
    }
    match kind.as_str() {
        "AWSService" => (invoked_by.or(service).unwrap_or(kind), None, true),
        "AWSAccount" => {
            let account = account_id.or(principal_id).unwrap_or_default();
            (format!("account {account}"), invoked_by.or(service), false)
        }
        _ => (principal_id.or(account_id).unwrap_or(kind), invoked_by.or(service), false),
    }
}

/// Seconds since 1970 of `2026-11-24T04:29:58Z`, or of any other form of a time.
fn seconds(text: &str) -> Option<i64> {
    parse_time(text).map(|time| time.micros().div_euclid(1_000_000))
}

/// A UUID as a number.
fn number(id: &str) -> Option<u128> {
    let mut digits = id.bytes().filter(|byte| *byte != b'-');
    let value = digits.by_ref().try_fold((0u128, 0), |(value, count), digit| {
        let digit = char::from(digit).to_digit(16)?;
        (count < 32).then(|| (value << 4 | u128::from(digit), count + 1))
    });
    value.filter(|(_, count)| *count == 32).map(|(value, _)| value)
}

/// A structure, or nothing where something else is.
struct Loose<T>(Option<T>);

impl<T> Default for Loose<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor(PhantomData))
    }
}

struct LooseVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LooseVisitor<T> {
    type Value = Loose<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Loose<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|value| Loose(Some(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Loose<T>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose(None))
    }

    fn visit_unit<E>(self) -> Result<Loose<T>, E> {
        Ok(Loose(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose<T>, E> {
        Ok(Loose(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose<T>, E> {
        Ok(Loose(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Loose<T>, E> {
        Ok(Loose(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose<T>, E> {
        Ok(Loose(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Loose<T>, E> {
        Ok(Loose(None))
    }
}
