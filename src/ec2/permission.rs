//! Who may call EC2: the principals of the account whose volumes are meant, as their identity policies say.
//!
//! EC2 knows no policies on volumes, so nothing gives another account's principal a right to one (IAM user guide,
//! "Cross-account resource access"). Of the condition keys of EC2 (service authorization reference, "Actions, resources,
//! and condition keys for Amazon EC2") the Region is set and what volumes and their tags tell: a policy that asks for another
//! decides nothing here.

use crate::clock::Time;
use crate::gate::{self, Call, Refusal, ServiceError};
use crate::iam::{Context, Outcome};
use crate::store::{self, StoreError, Transaction};
use crate::twin::{self, Protection};

use super::table::{self, VolumeRow};
use super::types::Tag;

/// Refuses a caller who may not do `action` (such as `ec2:DeleteVolume`) to every one of `resources` ([`volume`]; `*` for
/// an action on none).
///
/// # Errors
/// `UnauthorizedOperation` (the wording is *assumed*: AWS puts an encoded message behind it);
/// [`gate::UNDETERMINED`] where it cannot be told what the policies say.
pub(super) fn check(call: &Call<'_>, action: &str, resources: &[String]) -> Result<(), ServiceError> {
    call.home.read(|tx| check_in(tx, call, action, resources))
}

/// As [`check`], in a transaction.
pub(super) fn check_in(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    action: &str,
    resources: &[String],
) -> Result<(), ServiceError> {
    if twin::is_off(Protection::Policy) {
        return Ok(());
    }
    let now = store::clock(tx)?.now();
    for resource in resources {
        let keys = keys_of(tx, call, resource)?;
        check_one(tx, call, now, action, resource, &keys)?;
    }
    Ok(())
}

/// Refuses a caller who may not make this volume: `ec2:CreateVolume`, and `ec2:CreateTags` for one with tags.
///
/// # Errors
/// As [`check`].
pub(super) fn check_creation(call: &Call<'_>, row: &VolumeRow, tags: &[Tag]) -> Result<(), ServiceError> {
    if twin::is_off(Protection::Policy) {
        return Ok(());
    }
    call.home.read(|tx| {
        let now = store::clock(tx)?.now();
        let mut keys = Context::default();
        keys.set("ec2:Region", call.region.as_str());
        shape_keys(row, &mut keys);
        for tag in tags {
            keys.set_named("aws:RequestTag/", &tag.key, &tag.value);
        }
        keys.set_all("aws:TagKeys", tags.iter().map(|tag| tag.key.as_str()));
        let resource = volume(call, "*");
        check_one(tx, call, now, "ec2:CreateVolume", &resource, &keys)?;
        if tags.is_empty() {
            return Ok(());
        }
        keys.set("ec2:CreateAction", "CreateVolume");
        check_one(tx, call, now, "ec2:CreateTags", &resource, &keys)
    })
}

/// What is set for volumes and not for other resources.
const OF_VOLUMES: [&str; 12] = [
    "aws:RequestTag/",
    "aws:ResourceTag/",
    "aws:TagKeys",
    "ec2:AvailabilityZone",
    "ec2:CreateAction",
    "ec2:Encrypted",
    "ec2:ResourceTag/",
    "ec2:VolumeID",
    "ec2:VolumeIops",
    "ec2:VolumeSize",
    "ec2:VolumeThroughput",
    "ec2:VolumeType",
];

/// The condition keys of a resource that is there.
fn keys_of(tx: &Transaction<'_>, call: &Call<'_>, resource: &str) -> Result<Context, StoreError> {
    let mut keys = Context::default();
    keys.set("ec2:Region", call.region.as_str());
    if resource == "*" {
        return Ok(keys);
    }
    let id = resource.split_once(":volume/").and_then(|(_, id)| id.parse().ok());
    let Some(id) = id else {
        for key in OF_VOLUMES {
            keys.set_unknown(key, "it is a condition key of volumes alone here");
        }
        return Ok(keys);
    };
    if let Some(row) = table::volume(tx, &id)?.filter(|row| row.account == call.account && row.region == call.region) {
        shape_keys(&row, &mut keys);
        keys.set("ec2:VolumeID", id.as_str());
        for tag in table::tags_of(tx, &id)? {
            keys.set_named("aws:ResourceTag/", &tag.key, &tag.value);
            keys.set_named("ec2:ResourceTag/", &tag.key, &tag.value);
        }
    }
    Ok(keys)
}

/// What a volume is, or is to be.
fn shape_keys(row: &VolumeRow, keys: &mut Context) {
    keys.set("ec2:AvailabilityZone", &row.zone)
        .set("ec2:Encrypted", row.encryption.is_some().to_string())
        .set("ec2:VolumeSize", row.size.to_string())
        .set("ec2:VolumeType", &row.volume_type)
        .set_opt("ec2:VolumeIops", row.iops.map(|iops| iops.to_string()))
        .set_opt("ec2:VolumeThroughput", row.throughput.map(|throughput| throughput.to_string()));
}

fn check_one(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    now: Time,
    action: &str,
    resource: &str,
    keys: &Context,
) -> Result<(), ServiceError> {
    let decision = gate::decide(tx, call, now, action, resource, keys)?;
    let open = gate::note(call, &decision, action, resource);
    match decision.outcome {
        Outcome::Allowed => {}
        _ if open => {}
        Outcome::Undetermined => return Err(gate::refusal(&decision, call, action, &format!("on {resource} "))),
        _ => {
            let clause = decision.clause(action);
            return Err(ServiceError::Refused(Refusal {
                code: "UnauthorizedOperation",
                message: format!(
                    "You are not authorized to perform this operation. User: {} is not authorized to perform: {action} on resource: {resource} {clause}.",
                    call.principal
                ),
                status: 403,
                hint: None,
            }));
        }
    }
    Ok(())
}

/// As [`check`], of an action on a volume and an instance, this machine's if none is named.
pub(super) fn check_attachment(
    call: &Call<'_>,
    action: &str,
    volume_id: &str,
    instance_id: Option<&str>,
) -> Result<(), ServiceError> {
    call.home.write(|tx| {
        let this = table::this_instance(tx)?;
        let instance = instance(call, instance_id.unwrap_or(this.as_str()));
        check_in(tx, call, action, &[volume(call, volume_id), instance])
    })
}

/// The ARN of an instance; of all that could be launched, for `*`.
pub(super) fn instance(call: &Call<'_>, id: &str) -> String {
    format!("arn:aws:ec2:{}:{}:instance/{id}", call.region, call.account)
}

/// The ARN of a volume; of all that could be made, for `*`.
pub(super) fn volume(call: &Call<'_>, id: &str) -> String {
    format!("arn:aws:ec2:{}:{}:volume/{id}", call.region, call.account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Home;
    use rusqlite::params;

    /// Records the user alice with `policy`.
    fn record(home: &Home, policy: &str) {
        home.write(|tx| {
            tx.execute(
                "INSERT INTO iam_entities (entity, account, kind, name, path, id, created)
                 VALUES (1, '123456789012', 'user', 'alice', '/', 'AIDAX', 0)",
                [],
            )?;
            tx.execute("INSERT INTO iam_policies VALUES (1, 'p', ?1)", params![policy])?;
            Ok::<_, ServiceError>(())
        })
        .unwrap();
    }

    /// Codes of what a user with `policy` gets who deletes, attaches and describes volumes that are not there.
    fn codes(policy: &str) -> [&'static str; 3] {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        record(&home, policy);
        let alice = "arn:aws:iam::123456789012:user/alice".parse().unwrap();
        let call = Call::direct(&home, alice, "us-east-1".parse().unwrap());
        let volume_id = "vol-0123456789abcdef0".to_owned();
        let code = |outcome: Result<(), ServiceError>| outcome.err().map_or("", |error| error.code());
        [
            code(
                crate::ec2::delete_volume(
                    &call,
                    crate::ec2::DeleteVolumeRequest { volume_id: volume_id.clone(), ..Default::default() },
                )
                .map(drop),
            ),
            code(
                crate::ec2::attach_volume(&call, crate::ec2::AttachVolumeRequest { volume_id, ..Default::default() })
                    .map(drop),
            ),
            code(crate::ec2::describe_volumes(&call, crate::ec2::DescribeVolumesRequest::default()).map(drop)),
        ]
    }

    #[test]
    fn identity_policies_decide_on_volumes() {
        let policy = |statement: &str| format!(r#"{{"Version": "2012-10-17", "Statement": [{statement}]}}"#);
        let no_volume = "InvalidVolume.NotFound";
        let no = "UnauthorizedOperation";
        let only_read = policy(r#"{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}"#);
        assert_eq!(codes(&only_read), [no, no, ""]);
        // Attaching asks for the volume and the instance.
        let volumes =
            policy(r#"{"Effect": "Allow", "Action": "ec2:*", "Resource": "arn:aws:ec2:us-east-1:*:volume/*"}"#);
        assert_eq!(codes(&volumes), [no_volume, no, no]);
        assert_eq!(
            codes(&policy(r#"{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}"#)),
            [no_volume, no_volume, ""]
        );
        let unknown = policy(
            r#"{"Effect": "Allow", "Action": "ec2:*", "Resource": "*", "Condition": {"Bool": {"ec2:EbsOptimized": "true"}}}"#,
        );
        assert_eq!(codes(&unknown), ["UndeterminedException"; 3]);
        assert_eq!(twin::without(Protection::Policy, || codes(&only_read)), [no_volume, no_volume, ""]);
    }

    #[test]
    fn policies_ask_what_a_volume_is_and_how_it_is_tagged() {
        use crate::ec2::{
            CreateVolumeRequest, DeleteVolumeRequest, Tag, TagSpecification, create_volume, delete_volume,
        };
        let policy = r#"{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["ec2:CreateVolume", "ec2:DescribeVolumes"], "Resource": "*"},
            {"Effect": "Deny", "Action": "ec2:CreateVolume", "Resource": "*",
             "Condition": {"NumericGreaterThan": {"ec2:VolumeSize": "10"}}},
            {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "arn:aws:ec2:*:*:volume/*", "Condition": {
             "StringEquals": {"ec2:CreateAction": "CreateVolume", "aws:RequestTag/team": "db"},
             "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}},
            {"Effect": "Allow", "Action": "ec2:DeleteVolume", "Resource": "*", "Condition": {
             "StringEquals": {"aws:ResourceTag/Team": "db"}, "Bool": {"ec2:Encrypted": "false"}}}]}"#;
        let attempts = || {
            let base = tempfile::tempdir().unwrap();
            let home = Home::open(&base.path().join("home")).unwrap();
            record(&home, policy);
            let by = |who: &str| Call::direct(&home, who.parse().unwrap(), "us-east-1".parse().unwrap());
            let alice = by("arn:aws:iam::123456789012:user/alice");
            let create = |call: &Call<'_>, size, tags: &[(&str, &str)]| {
                let tags: Vec<_> = tags
                    .iter()
                    .map(|(key, value)| Tag { key: (*key).to_owned(), value: (*value).to_owned() })
                    .collect();
                let specification = TagSpecification { resource_type: Some("volume".to_owned()), tags };
                let request = CreateVolumeRequest {
                    size: Some(size),
                    tag_specifications: if specification.tags.is_empty() { Vec::new() } else { vec![specification] },
                    ..Default::default()
                };
                create_volume(call, request)
            };
            let delete = |volume_id: String| {
                delete_volume(&alice, DeleteVolumeRequest { volume_id, ..Default::default() }).map(drop)
            };
            let root = by("arn:aws:iam::123456789012:root");
            let plain = create(&root, 1, &[]).unwrap().volume_id;
            let tagged = create(&root, 1, &[("team", "db")]).unwrap().volume_id;
            let code = |outcome: Result<(), ServiceError>| outcome.err().map_or("", |error| error.code());
            [
                code(create(&alice, 10, &[]).map(drop)),
                code(create(&alice, 11, &[]).map(drop)),
                code(create(&alice, 1, &[("team", "db")]).map(drop)),
                code(create(&alice, 1, &[("team", "web")]).map(drop)),
                code(create(&alice, 1, &[("team", "db"), ("more", "")]).map(drop)),
                code(delete(plain)),
                code(delete(tagged)),
            ]
        };
        let no = "UnauthorizedOperation";
        assert_eq!(attempts(), ["", no, "", no, no, no, ""]);
        assert_eq!(twin::without(Protection::Policy, attempts), [""; 7]);
    }
}
