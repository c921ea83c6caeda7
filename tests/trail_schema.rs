//! What every record of the trail looks like, in `fixtures/trail-schema`: `record.json` has the fields of all records and who
//! may have called, one file per service what each operation's parameters, response and additional data are.
//!
//! A type is `string`, `integer`, `boolean`, `null`, `object` (of texts under names of the caller's choice), or the name of a pattern
//! in `record.json`; alternatives stand in a list behind `one of`. An object lists its members, `name?` those that may be
//! absent; `[type]` is a list. Members that a file does not list are faults.
//!
//! `BLOCKSEAL_BLESS=1 cargo test --test all trail_schema` adds what operations show beside what is there; look at the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

use blockseal::api::{self, Kind, Need, Parameter, SERVICES};
use blockseal::gate::Call;
use blockseal::store::Home;
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::harness::root;
use crate::trail;

fn folder() -> PathBuf {
    root().join("fixtures/trail-schema")
}

fn file(name: &str) -> Value {
    let path = folder().join(format!("{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

static COMMON: LazyLock<Value> = LazyLock::new(|| file("record"));

static PATTERNS: LazyLock<BTreeMap<String, Regex>> = LazyLock::new(|| {
    let patterns = COMMON["patterns"].as_object().unwrap();
    patterns.iter().map(|(name, text)| (name.clone(), Regex::new(text.as_str().unwrap()).unwrap())).collect()
});

/// Notes what of `value` is not of the type `wanted`.
fn check(path: &str, wanted: &Value, value: &Value, faults: &mut Vec<String>) {
    match (wanted, value) {
        (Value::String(name), value) => {
            let fits = match (name.as_str(), value) {
                ("string", Value::String(_)) | ("boolean", Value::Bool(_)) | ("null", Value::Null) => true,
                ("integer", Value::Number(number)) => number.is_i64(),
                ("object", Value::Object(members)) => members.values().all(Value::is_string),
                (name, Value::String(text)) => PATTERNS.get(name).is_some_and(|pattern| pattern.is_match(text)),
                _ => false,
            };
            if !fits {
                faults.push(format!("{path} is no {name}: {value}"));
            }
        }
        (Value::Object(wanted), value) if wanted.contains_key("one of") => {
            let fits = |wanted: &Value| {
                let mut faults = Vec::new();
                check(path, wanted, value, &mut faults);
                faults.is_empty()
            };
            if !wanted["one of"].as_array().unwrap().iter().any(fits) {
                faults.push(format!("{path} is none of what it may be: {value}"));
            }
        }
        (Value::Object(wanted), Value::Object(value)) => {
            for (name, wanted) in wanted {
                match (value.get(name.trim_end_matches('?')), name.ends_with('?')) {
                    (Some(value), _) => check(&format!("{path}.{}", name.trim_end_matches('?')), wanted, value, faults),
                    (None, true) => {}
                    (None, false) => faults.push(format!("{path} has no {name}")),
                }
            }
            let known = |name: &str| wanted.contains_key(name) || wanted.contains_key(&format!("{name}?"));
            faults.extend(value.keys().filter(|name| !known(name)).map(|name| format!("{path} has {name}")));
        }
        (Value::Array(wanted), Value::Array(items)) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| check(&format!("{path}[{index}]"), &wanted[0], item, faults));
        }
        _ => faults.push(format!("{path} is of another kind: {value}")),
    }
}

/// The fields that each operation has its own of.
const OWN: [&str; 4] = ["requestParameters", "responseElements", "additionalEventData", "serviceEventDetails"];

/// What of a record is not as the schema says.
fn faults(schema: &Value, record: &Value) -> Vec<String> {
    let mut faults = trail::faults(record);
    let mut common = record.clone();
    let own: Vec<(&str, Option<Value>)> =
        OWN.iter().map(|name| (*name, common.as_object_mut().unwrap().shift_remove(*name))).collect();
    check("record", &COMMON["record"], &common, &mut faults);
    let operation = record["eventName"].as_str().unwrap_or_default();
    let Some(operation) = schema.get(operation) else {
        faults.push(format!("no schema for {operation}"));
        return faults;
    };
    let has_failed = record.get("errorCode").is_some();
    for (name, value) in own {
        let wanted = operation.get(name).or_else(|| operation.get(format!("{name}?")));
        let may_be_absent = operation.get(name).is_none();
        match (wanted, value) {
            // A failure has no result, and tells no more than was asked.
            (_, Some(Value::Null)) if has_failed && name == "responseElements" => {}
            (_, None) if may_be_absent || (has_failed && name == "additionalEventData") => {}
            (Some(_), Some(value)) if value["omitted"] == true => {
                check(name, &COMMON["omitted"], &value, &mut faults);
            }
            (Some(wanted), Some(value)) => check(name, wanted, &value, &mut faults),
            (Some(_), None) => faults.push(format!("no {name}")),
            (None, Some(value)) => faults.push(format!("{name}: {value}")),
            (None, None) => {}
        }
    }
    faults
}

/// A value of each kind; only what is required, if `least`.
fn sample(kind: Kind, least: bool) -> Value {
    match kind {
        Kind::Choice(choices) => json!(choices[0]),
        Kind::Integer | Kind::Long => json!(7),
        Kind::Boolean => json!(false),
        Kind::Blob => json!("eA=="),
        Kind::Timestamp => json!("2026-11-24T04:29:58Z"),
        Kind::List(member) => json!([sample(*member, least)]),
        Kind::Map(member) => json!({"k": sample(*member, least)}),
        Kind::Structure(members) => {
            let wanted = members.iter().filter(|member| !least || member.need == Need::Required);
            Value::Object(wanted.map(|member| (member.name.to_owned(), of_name(member, least))).collect())
        }
        _ => json!("x"),
    }
}

/// What comes far enough to be recorded with all that was asked.
fn of_name(member: &Parameter, least: bool) -> Value {
    match member.name {
        "VolumeId" => json!("vol-0123456789abcdef0"),
        "KeyMaterialId" => json!("0".repeat(64)),
        "ImageId" => json!("ami-12345678"),
        _ => sample(member.kind, least),
    }
}

/// Every operation of the table, asked for the least and for all that can be asked, of things that are not there; and those of IAM,
/// of STS and of EC2 that no other scene has as they succeed. The records of all.
fn table() -> Vec<Value> {
    let base = tempfile::tempdir().unwrap();
    let home = Home::open(&base.path().join("home")).unwrap();
    let root = Call::direct(&home, "123456789012".parse().unwrap(), "us-east-1".parse().unwrap());
    let admin =
        Call::direct(&home, "arn:aws:iam::123456789012:user/admin".parse().unwrap(), "us-east-1".parse().unwrap());
    let run = |call: &Call<'_>, service: &str, operation: &str, request: Value| {
        (api::service(service).unwrap().operation(operation).unwrap().run)(call, request)
    };
    let document =
        json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}});
    let document = document.to_string();
    let trust = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}});
    let trust = trust.to_string();
    let policy = "arn:aws:iam::123456789012:policy/p";
    for (operation, request) in [
        ("CreateUser", json!({"UserName": "u", "Tags": [{"Key": "k", "Value": "v"}]})),
        ("GetUser", json!({"UserName": "u"})),
        ("ListUsers", json!({})),
        ("TagUser", json!({"UserName": "u", "Tags": [{"Key": "k", "Value": "v"}]})),
        ("ListUserTags", json!({"UserName": "u"})),
        ("UntagUser", json!({"UserName": "u", "TagKeys": ["k"]})),
        ("PutUserPolicy", json!({"UserName": "u", "PolicyName": "p", "PolicyDocument": document})),
        ("GetUserPolicy", json!({"UserName": "u", "PolicyName": "p"})),
        ("ListUserPolicies", json!({"UserName": "u"})),
        ("DeleteUserPolicy", json!({"UserName": "u", "PolicyName": "p"})),
        ("CreateRole", json!({"RoleName": "r", "AssumeRolePolicyDocument": trust})),
        ("GetRole", json!({"RoleName": "r"})),
        ("ListRoles", json!({})),
        ("TagRole", json!({"RoleName": "r", "Tags": [{"Key": "k", "Value": "v"}]})),
        ("ListRoleTags", json!({"RoleName": "r"})),
        ("UntagRole", json!({"RoleName": "r", "TagKeys": ["k"]})),
        ("UpdateAssumeRolePolicy", json!({"RoleName": "r", "PolicyDocument": trust})),
        ("PutRolePolicy", json!({"RoleName": "r", "PolicyName": "p", "PolicyDocument": document})),
        ("GetRolePolicy", json!({"RoleName": "r", "PolicyName": "p"})),
        ("ListRolePolicies", json!({"RoleName": "r"})),
        ("DeleteRolePolicy", json!({"RoleName": "r", "PolicyName": "p"})),
        ("CreatePolicy", json!({"PolicyName": "p", "PolicyDocument": document})),
        ("GetPolicy", json!({"PolicyArn": policy})),
        ("GetPolicyVersion", json!({"PolicyArn": policy, "VersionId": "v1"})),
        ("ListPolicies", json!({})),
        ("AttachUserPolicy", json!({"UserName": "u", "PolicyArn": policy})),
        ("AttachRolePolicy", json!({"RoleName": "r", "PolicyArn": policy})),
        ("ListAttachedUserPolicies", json!({"UserName": "u"})),
        ("ListAttachedRolePolicies", json!({"RoleName": "r"})),
        ("DetachUserPolicy", json!({"UserName": "u", "PolicyArn": policy})),
        ("DetachRolePolicy", json!({"RoleName": "r", "PolicyArn": policy})),
        ("DeletePolicy", json!({"PolicyArn": policy})),
        ("CreateServiceLinkedRole", json!({"AWSServiceName": "autoscaling.amazonaws.com"})),
        ("DeleteServiceLinkedRole", json!({"RoleName": "AWSServiceRoleForAutoScaling"})),
        ("CreateAccessKey", json!({"UserName": "u"})),
        ("ListAccessKeys", json!({"UserName": "u"})),
    ] {
        run(&root, "iam", operation, request).unwrap_or_else(|error| panic!("{operation}: {error}"));
    }
    let role = "arn:aws:iam::123456789012:role/r";
    run(&admin, "sts", "AssumeRole", json!({"RoleArn": role, "RoleSessionName": "s1"})).unwrap();
    run(&admin, "sts", "GetCallerIdentity", json!({})).unwrap();
    let key = run(&root, "kms", "CreateKey", json!({})).unwrap()["KeyMetadata"]["KeyId"].clone();
    let volume = run(&root, "ec2", "CreateVolume", json!({"Size": 1})).unwrap()["VolumeId"].clone();
    for (operation, request) in [
        ("ModifyVolume", json!({"VolumeId": volume, "Size": 20, "VolumeType": "gp3", "Iops": 4000, "Throughput": 200})),
        ("DescribeVolumesModifications", json!({"VolumeIds": [volume]})),
        ("DescribeVolumeStatus", json!({"VolumeIds": [volume]})),
        ("CreateTags", json!({"Resources": [volume], "Tags": [{"Key": "k", "Value": "v"}]})),
        ("DescribeTags", json!({"Filters": [{"Name": "resource-id", "Values": [volume]}]})),
        ("DeleteTags", json!({"Resources": [volume], "Tags": [{"Key": "k"}]})),
        ("EnableEbsEncryptionByDefault", json!({})),
        ("GetEbsEncryptionByDefault", json!({})),
        ("ModifyEbsDefaultKmsKeyId", json!({"KmsKeyId": key})),
        ("GetEbsDefaultKmsKeyId", json!({})),
        ("ResetEbsDefaultKmsKeyId", json!({})),
        ("DisableEbsEncryptionByDefault", json!({})),
    ] {
        run(&root, "ec2", operation, request).unwrap_or_else(|error| panic!("{operation}: {error}"));
    }
    for service in SERVICES {
        for operation in service.operations {
            for least in [true, false] {
                let _ = (operation.run)(&root, sample(Kind::Structure(operation.parameters), least));
            }
        }
    }
    for (operation, request) in [("DeleteRole", json!({"RoleName": "r"})), ("ListRoles", json!({}))] {
        run(&root, "iam", operation, request).unwrap();
    }
    home.read(|tx| blockseal::trail::behind(tx, 0)).unwrap()
}

/// The records of all scenes.
static SCENES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let (_base, home) = trail::temporary();
    let of_kms = trail::one_of_each(&home).into_iter();
    let all = of_kms.chain(trail::one_of_each_of_ec2()).chain(crate::credentials::one_of_each());
    all.map(|(_, record)| record).chain(table()).collect()
});

fn schemas() -> BTreeMap<&'static str, Value> {
    SERVICES.iter().map(|service| (service.name, file(service.name))).collect()
}

fn service_of(record: &Value) -> &str {
    record["eventSource"].as_str().unwrap().split('.').next().unwrap()
}

#[test]
fn every_record_of_every_operation_is_as_its_schema() {
    let records = &*SCENES;
    let mut seen = BTreeSet::new();
    for record in records {
        seen.insert((service_of(record), record["eventName"].as_str().unwrap()));
    }
    for service in SERVICES {
        for operation in service.operations {
            assert!(seen.contains(&(service.name, operation.name)), "no scene has {}", operation.name);
        }
    }
    if std::env::var_os("BLOCKSEAL_BLESS").is_some() {
        bless(records);
    }
    let schemas = schemas();
    for record in records {
        let faults = faults(&schemas[service_of(record)], record);
        assert_eq!(faults, Vec::<String>::new(), "{record:#}");
    }
    // No schema without a record.
    for (service, schema) in &schemas {
        for operation in schema.as_object().unwrap().keys() {
            assert!(seen.contains(&(*service, operation.as_str())), "{service} {operation}");
        }
    }
}

/// For every record of a scene and every member in it, at any depth: without it, with one more beside it, or with a value of
/// another type it is as no schema says, unless the schema leaves that open.
#[test]
fn a_record_with_a_member_too_few_or_too_many_is_not_as_its_schema() {
    let schemas = schemas();
    let mut spoilt = 0;
    for record in &*SCENES {
        let schema = &schemas[service_of(record)];
        let found = |record: &Value| !faults(schema, record).is_empty();
        for place in &places(record) {
            let member = record.pointer(place).unwrap();
            let (parent, name) = place.rsplit_once('/').unwrap();
            let name = name.replace("~1", "/").replace("~0", "~");
            let with = |change: &dyn Fn(&mut Map<String, Value>)| {
                let mut changed = record.clone();
                change(changed.pointer_mut(parent).unwrap().as_object_mut().unwrap());
                found(&changed)
            };
            assert!(
                with(&|members| drop(members.insert(name.clone(), json!([[7.5]])))),
                "{place} as a number: {record:#}"
            );
            if member.is_object() && !is_free(place) {
                assert!(
                    {
                        let mut changed = record.clone();
                        changed.pointer_mut(place).unwrap()["surely"] = json!("too much");
                        found(&changed)
                    },
                    "{place} with a member too many: {record:#}"
                );
            }
            spoilt += 1;
        }
        for name in record.as_object().unwrap().keys() {
            let optional =
                ["errorCode", "errorMessage", "additionalEventData", "sharedEventID", "resources", "requestID"];
            let mut changed = record.clone();
            changed.as_object_mut().unwrap().shift_remove(name);
            assert!(found(&changed) || optional.contains(&name.as_str()), "without {name}: {record:#}");
        }
        let mut changed = record.clone();
        changed["grantToken"] = json!("t");
        assert!(found(&changed));
    }
    assert!(spoilt > 5_000, "{spoilt}");
}

/// Whether callers name the members of the object at this place.
fn is_free(place: &str) -> bool {
    FREE.iter().any(|name| place.ends_with(name))
}

/// JSON pointers to every member of an object, at any depth, but to those that callers name.
fn places(record: &Value) -> Vec<String> {
    fn below(path: &str, value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(members) if !is_free(path) => {
                for (name, member) in members {
                    let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                    below(&path, member, into);
                    into.push(path);
                }
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, item)| below(&format!("{path}/{index}"), item, into));
            }
            _ => {}
        }
    }
    let mut places = Vec::new();
    below("", record, &mut places);
    places
}

/// Members in which callers name what they like.
const FREE: [&str; 5] = [
    "encryptionContext",
    "sourceEncryptionContext",
    "destinationEncryptionContext",
    "encryptionContextSubset",
    "encryptionContextEquals",
];

/// Members whose texts have a pattern wherever they stand.
const PATTERNED: [(&str, &str); 8] = [
    ("keyMaterialId", "hex64"),
    ("sourceKeyMaterialId", "hex64"),
    ("destinationKeyMaterialId", "hex64"),
    ("requestId", "uuid"),
    ("reservationId", "reservation"),
    ("ownerId", "account"),
    ("attachTime", "integer"),
    ("createTime", "integer"),
];

/// Adds to the files what these records have and their schemas do not.
fn bless(records: &[Value]) {
    for service in SERVICES {
        let path = folder().join(format!("{}.json", service.name));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned());
        let mut schema: Value = serde_json::from_str(&text).unwrap();
        for record in records.iter().filter(|record| service_of(record) == service.name) {
            let operation = record["eventName"].as_str().unwrap();
            let has_failed = record.get("errorCode").is_some();
            let mut shown = Map::new();
            for name in OWN {
                let Some(value) = record.get(name) else { continue };
                let is_failures = has_failed && name == "responseElements";
                if !is_failures && value["omitted"] != true {
                    shown.insert(name.to_owned(), type_of(name, value));
                }
            }
            let before = schema.get(operation).cloned();
            // What only a success tells is not missing in a failure.
            if let (true, Some(before)) = (has_failed, before.as_ref().and_then(Value::as_object)) {
                for (name, kind) in before {
                    shown.entry(name.trim_end_matches('?')).or_insert_with(|| kind.clone());
                }
            }
            schema[operation] = before
                .map_or_else(|| Value::Object(shown.clone()), |before| merged(before, Value::Object(shown.clone())));
        }
        // Either is in every record, in a failure's as null.
        for operation in schema.as_object_mut().unwrap().values_mut().filter_map(Value::as_object_mut) {
            for name in &OWN[..2] {
                if let Some(kind) = operation.remove(&format!("{name}?")) {
                    operation.insert((*name).to_owned(), kind);
                }
            }
        }
        let sorted: BTreeMap<String, Value> = schema.as_object().unwrap().clone().into_iter().collect();
        std::fs::write(path, serde_json::to_string_pretty(&sorted).unwrap() + "\n").unwrap();
    }
}

fn type_of(name: &str, value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(_) => json!("integer"),
        Value::String(_) => {
            let pattern = PATTERNED.iter().find(|(member, _)| *member == name);
            json!(pattern.map_or("string", |(_, pattern)| pattern))
        }
        Value::Array(items) => {
            let items = items.iter().map(|item| type_of("", item)).reduce(merged);
            json!([items.unwrap_or_else(|| json!("string"))])
        }
        Value::Object(_) if FREE.contains(&name) => json!("object"),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, member)| (name.clone(), type_of(name, member))).collect())
        }
    }
}

/// A type that takes what either takes.
fn merged(one: Value, other: Value) -> Value {
    let is_plain = |kind: &str| ["string", "integer", "boolean", "null", "object"].contains(&kind);
    match (one, other) {
        (one, other) if one == other => one,
        // What somebody made narrower stays so, and tells of what it does not fit.
        (Value::String(pattern), other) if other == "string" && !is_plain(&pattern) => Value::String(pattern),
        (Value::Object(one), Value::Object(other)) if !one.contains_key("one of") && !other.contains_key("one of") => {
            let mut all = Map::new();
            let bare = |members: Map<String, Value>| {
                members
                    .into_iter()
                    .map(|(name, kind)| (name.trim_end_matches('?').to_owned(), (name.ends_with('?'), kind)))
            };
            let mut rest: BTreeMap<_, _> = bare(other).collect();
            for (name, (optional, kind)) in bare(one) {
                let (optional, kind) = match rest.remove(&name) {
                    Some((also, other)) => (optional || also, merged(kind, other)),
                    None => (true, kind),
                };
                all.insert(if optional { format!("{name}?") } else { name }, kind);
            }
            all.extend(rest.into_iter().map(|(name, (_, kind))| (format!("{name}?"), kind)));
            Value::Object(all)
        }
        (Value::Array(one), Value::Array(other)) => json!([merged(one[0].clone(), other[0].clone())]),
        (one, other) => {
            let alternatives = |kind: Value| match kind.get("one of") {
                Some(kinds) => kinds.as_array().unwrap().clone(),
                None => vec![kind],
            };
            let mut all = alternatives(one);
            for kind in alternatives(other) {
                let alike = all
                    .iter()
                    .position(|known| (known.is_object() && kind.is_object()) || (known.is_array() && kind.is_array()));
                match alike {
                    Some(place) => all[place] = merged(all[place].clone(), kind),
                    None if !all.contains(&kind) => all.push(kind),
                    None => {}
                }
            }
            all.sort_by_key(|kind| (!kind.is_string(), kind.to_string()));
            json!({"one of": all})
        }
    }
}
