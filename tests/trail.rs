//! The trail: the shape of every kind of record, and `LookupEvents`.

use std::collections::HashMap;
use std::path::PathBuf;

use blockseal::cloudtrail::{self, LookupEventsResponse};
use blockseal::gate::{self, Call, Operation, Service, ServiceError};
use blockseal::iam::Principal;
use blockseal::kms::{self, EncryptionContext, ManagedAlias};
use blockseal::store::Home;
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const ACCOUNT: &str = "123456789012";
const VOLUME: &str = "vol-0123456789abcdef0";

pub fn temporary() -> (tempfile::TempDir, Home) {
    let base = tempfile::tempdir().unwrap();
    let home = Home::open(&base.path().join("home")).unwrap();
    (base, home)
}

fn by<'h>(home: &'h Home, principal: &str) -> Call<'h> {
    Call::direct(home, principal.parse().unwrap(), "us-east-1".parse().unwrap())
}

fn alice(home: &Home) -> Call<'_> {
    by(home, "arn:aws:iam::123456789012:user/ops/alice")
}

fn request<Q: DeserializeOwned>(request: Value) -> Q {
    serde_json::from_value(request).unwrap()
}

fn look_up(call: &Call<'_>, asked: Value) -> Result<LookupEventsResponse, ServiceError> {
    cloudtrail::lookup_events(call, request(asked))
}

fn by_attribute(key: &str, value: &str) -> Value {
    json!({"LookupAttributes": [{"AttributeKey": key, "AttributeValue": value}]})
}

/// The newest record of `call`'s trail.
fn newest(call: &Call<'_>) -> Value {
    let events = look_up(call, json!({"MaxResults": 1})).unwrap().events;
    serde_json::from_str(&events[0].cloud_trail_event).unwrap()
}

/// The newest record of one operation: one that calls others is older than their records, as it began before them.
fn newest_of(call: &Call<'_>, name: &str) -> Value {
    let events = look_up(call, by_attribute("EventName", name)).unwrap().events;
    serde_json::from_str(&events[0].cloud_trail_event).unwrap()
}

static EC2: Service =
    Service { event_source: "ec2.amazonaws.com", error_prefix: "Client.", lists_resources: false, settlers: &[] };
static ATTACH_VOLUME: Operation = Operation { name: "AttachVolume", read_only: false, service: &EC2 };

/// Runs one operation of every kind and collects the record of each under a name.
pub fn one_of_each(home: &Home) -> Vec<(&'static str, Value)> {
    let call = alice(home);
    let mut records = Vec::new();
    let mut keep = |name, record| records.push((name, record));
    let context = json!({"aws:ebs:id": VOLUME, "aws:rds:db-id": "db-CQYSMDPBRZ7BPMH7Y3RTDG5QY"});

    let made = kms::create_key(
        &call,
        request(json!({"Description": "for the database", "Tags": [{"TagKey": "team", "TagValue": "db"}]})),
    )
    .unwrap();
    let key = made.key_metadata.arn;
    keep("create-key", newest(&call));
    let other = kms::create_key(&by(home, ACCOUNT), kms::CreateKeyRequest::default()).unwrap().key_metadata.arn;
    keep("create-key-by-root", newest(&by(home, ACCOUNT)));
    kms::describe_key(&call, request(json!({"KeyId": key}))).unwrap();
    keep("describe-key", newest(&call));
    kms::list_keys(&call, request(json!({"Limit": 5}))).unwrap();
    keep("list-keys", newest(&call));

    kms::create_alias(&call, request(json!({"AliasName": "alias/app", "TargetKeyId": key}))).unwrap();
    keep("create-alias", newest(&call));
    kms::update_alias(&call, request(json!({"AliasName": "alias/app", "TargetKeyId": other}))).unwrap();
    keep("update-alias", newest(&call));
    kms::list_aliases(&call, kms::ListAliasesRequest::default()).unwrap();
    keep("list-aliases", newest(&call));
    kms::delete_alias(&call, request(json!({"AliasName": "alias/app"}))).unwrap();
    keep("delete-alias", newest(&call));

    let role = by(home, "arn:aws:sts::123456789012:assumed-role/Admin/session-1");
    let plain = json!({"KeyId": key, "Plaintext": "c2VjcmV0", "EncryptionContext": context});
    let blob = kms::encrypt(&role, request(plain)).unwrap().ciphertext_blob;
    keep("encrypt-by-role", newest(&call));
    kms::decrypt(&call, request(json!({"CiphertextBlob": blob, "EncryptionContext": context, "KeyId": key}))).unwrap();
    keep("decrypt", newest(&call));
    kms::decrypt(&call, request(json!({"CiphertextBlob": blob}))).unwrap_err();
    keep("decrypt-with-wrong-context", newest(&call));
    let asked = json!({"CiphertextBlob": blob, "EncryptionContext": context, "DryRun": true});
    kms::decrypt(&call, request(asked)).unwrap_err();
    keep("decrypt-dry-run", newest(&call));
    let asked = json!({
        "CiphertextBlob": blob, "SourceEncryptionContext": context, "DestinationKeyId": other,
        "DestinationEncryptionContext": {"aws:ebs:id": VOLUME},
    });
    kms::re_encrypt(&call, request(asked)).unwrap();
    keep("re-encrypt", newest(&call));
    kms::generate_data_key(&call, request(json!({"KeyId": key, "KeySpec": "AES_256"}))).unwrap();
    keep("generate-data-key", newest(&call));
    kms::generate_data_key(&call, request(json!({"KeyId": key, "NumberOfBytes": 2000}))).unwrap_err();
    keep("generate-data-key-invalid", newest(&call));

    let front_end = call.through_as("ec2.us-east-1.amazonaws.com", "ec2-frontend-api.amazonaws.com");
    let asked = json!({"KeyId": key, "NumberOfBytes": 64, "EncryptionContext": context});
    let wrapped = kms::generate_data_key_without_plaintext(&front_end, request(asked)).unwrap();
    keep("generate-data-key-without-plaintext-by-ec2", newest(&call));
    attach(&front_end, &key, &wrapped.ciphertext_blob, &context, &mut keep);

    let grant =
        json!({"KeyId": key, "GranteePrincipal": "arn:aws:iam::123456789012:user/bob", "Operations": ["Decrypt"]});
    let grant = kms::create_grant(&call, request(grant)).unwrap();
    kms::list_grants(&call, request(json!({"KeyId": key, "Limit": 10}))).unwrap();
    keep("list-grants", newest(&call));
    kms::revoke_grant(&call, request(json!({"KeyId": key, "GrantId": grant.grant_id}))).unwrap();
    keep("revoke-grant", newest(&call));

    further_operations(&call, &key, &mut keep);
    policies(&call, &key, &mut keep);
    imported_material(&call, &mut keep);
    several_regions(&call, &mut keep);

    kms::disable_key(&call, request(json!({"KeyId": key}))).unwrap();
    keep("disable-key", newest(&call));
    kms::encrypt(&call, request(json!({"KeyId": key, "Plaintext": "eA=="}))).unwrap_err();
    keep("encrypt-with-disabled-key", newest(&call));
    kms::enable_key(&call, request(json!({"KeyId": key}))).unwrap();
    keep("enable-key", newest(&call));
    kms::schedule_key_deletion(&call, request(json!({"KeyId": key, "PendingWindowInDays": 7}))).unwrap();
    keep("schedule-key-deletion", newest(&call));
    kms::cancel_key_deletion(&call, request(json!({"KeyId": key}))).unwrap();
    keep("cancel-key-deletion", newest(&call));
    kms::schedule_key_deletion(&call, request(json!({"KeyId": key}))).unwrap();
    home.advance_clock(SignedDuration::from_hours(24 * 30)).unwrap();
    keep("delete-key-by-kms", newest_of(&call, "DeleteKey"));
    keep("lookup-events", newest(&call));
    records
}

/// Tags, rotation, regions and what is not supported.
fn further_operations(call: &Call<'_>, key: &str, keep: &mut impl FnMut(&'static str, Value)) {
    kms::update_key_description(call, request(json!({"KeyId": key, "Description": "new"}))).unwrap();
    keep("update-key-description", newest(call));
    kms::tag_resource(call, request(json!({"KeyId": key, "Tags": [{"TagKey": "a", "TagValue": "b"}]}))).unwrap();
    keep("tag-resource", newest(call));
    kms::untag_resource(call, request(json!({"KeyId": key, "TagKeys": ["a"]}))).unwrap();
    keep("untag-resource", newest(call));
    kms::list_resource_tags(call, request(json!({"KeyId": key}))).unwrap();
    keep("list-resource-tags", newest(call));
    kms::generate_random(call, request(json!({"NumberOfBytes": 8}))).unwrap();
    keep("generate-random", newest(call));
    kms::enable_key_rotation(call, request(json!({"KeyId": key, "RotationPeriodInDays": 90}))).unwrap();
    keep("enable-key-rotation", newest(call));
    kms::get_key_rotation_status(call, request(json!({"KeyId": key}))).unwrap();
    keep("get-key-rotation-status", newest(call));
    kms::disable_key_rotation(call, request(json!({"KeyId": key}))).unwrap();
    keep("disable-key-rotation", newest(call));
    kms::rotate_key_on_demand(call, request(json!({"KeyId": key}))).unwrap();
    keep("rotate-key-on-demand", newest_of(call, "RotateKeyOnDemand"));
    keep("rotate-key-by-kms", newest_of(call, "RotateKey"));
    kms::list_key_rotations(call, request(json!({"KeyId": key}))).unwrap();
    keep("list-key-rotations", newest(call));
    kms::get_key_last_usage(call, request(json!({"KeyId": key}))).unwrap();
    keep("get-key-last-usage", newest(call));
    kms::list_retirable_grants(call, request(json!({"RetiringPrincipal": "arn:aws:iam::123456789012:root"}))).unwrap();
    keep("list-retirable-grants", newest(call));
    kms::sign(call, request(json!({"KeyId": key, "Message": "eA==", "SigningAlgorithm": "x"}))).unwrap_err();
    keep("sign-unsupported", newest(call));
}

/// Key policies: what is put is recorded, what is got is not.
fn policies(call: &Call<'_>, key: &str, keep: &mut impl FnMut(&'static str, Value)) {
    let got = kms::get_key_policy(call, request(json!({"KeyId": key, "PolicyName": "default"}))).unwrap();
    keep("get-key-policy", newest(call));
    kms::put_key_policy(call, request(json!({"KeyId": key, "Policy": got.policy}))).unwrap();
    keep("put-key-policy", newest(call));
    kms::list_key_policies(call, request(json!({"KeyId": key}))).unwrap();
    keep("list-key-policies", newest(call));
    let none = json!({"KeyId": key, "Policy": "{}", "BypassPolicyLockoutSafetyCheck": true});
    kms::put_key_policy(call, request(none)).unwrap_err();
    keep("put-key-policy-malformed", newest(call));
    // More than 100 KB, which the record does not keep.
    let long = json!({"KeyId": key, "Policy": format!("{}{}", got.policy, " ".repeat(110_000 - got.policy.len()))});
    kms::put_key_policy(call, request(long)).unwrap_err();
    keep("put-key-policy-too-long", newest(call));
}

/// Imported material: how it is asked for, brought, deleted and lost at its time.
fn imported_material(call: &Call<'_>, keep: &mut impl FnMut(&'static str, Value)) {
    let made = kms::create_key(call, request(json!({"Origin": "EXTERNAL"}))).unwrap();
    keep("create-key-external", newest(call));
    let key = made.key_metadata.arn;
    let import = |after: i64| {
        let valid_to = call.home.now().unwrap().after(SignedDuration::from_hours(after));
        let expires = json!({"ExpirationModel": "KEY_MATERIAL_EXPIRES", "ValidTo": valid_to});
        crate::kms_import::import(call, &key, &[7; 32], expires).unwrap();
    };
    import(48);
    keep("get-parameters-for-import", newest_of(call, "GetParametersForImport"));
    keep("import-key-material", newest_of(call, "ImportKeyMaterial"));
    kms::delete_imported_key_material(call, request(json!({"KeyId": key}))).unwrap();
    keep("delete-imported-key-material", newest(call));
    import(1);
    call.home.advance_clock(SignedDuration::from_hours(1)).unwrap();
    kms::list_keys(call, kms::ListKeysRequest::default()).unwrap();
    keep("delete-expired-key-material-by-kms", newest_of(call, "DeleteExpiredKeyMaterial"));
}

/// A multi-Region key: what its operations leave in each of its Regions.
fn several_regions(call: &Call<'_>, keep: &mut impl FnMut(&'static str, Value)) {
    let there = Call { region: "eu-west-1".parse().unwrap(), ..alice(call.home) };
    let key = kms::create_key(call, request(json!({"MultiRegion": true}))).unwrap().key_metadata.arn;
    kms::replicate_key(call, request(json!({"KeyId": key, "ReplicaRegion": "eu-west-1"}))).unwrap();
    keep("replicate-key", newest(call));
    keep("create-key-by-replicate-key", newest(&there));
    kms::update_primary_region(call, request(json!({"KeyId": key, "PrimaryRegion": "eu-west-1"}))).unwrap();
    keep("update-primary-region", newest(call));
    keep("update-primary-region-there", newest_of(&there, "UpdatePrimaryRegion"));
}

/// What an attach leaves: `CreateGrant`, Decrypt, `AttachVolume`, and later `RetireGrant`.
fn attach(
    front_end: &Call<'_>,
    key: &str,
    blob: &kms::Blob,
    context: &Value,
    keep: &mut impl FnMut(&'static str, Value),
) {
    let host: Principal =
        "arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/i-0123456789abcdef0".parse().unwrap();
    let user = alice(front_end.home);
    let token = gate::run_steps(
        &user,
        &ATTACH_VOLUME,
        json!({"volumeId": VOLUME, "instanceId": "i-0123456789abcdef0", "device": "/dev/sdf"}),
        |draft| {
            draft.mention("AWS::EC2::Volume", VOLUME, &user.account);
            let asked = json!({
                "KeyId": key, "GranteePrincipal": host.arn(), "RetiringPrincipal": "ec2.us-east-1.amazonaws.com",
                "Operations": ["Decrypt"], "Constraints": {"EncryptionContextSubset": {"aws:ebs:id": VOLUME}},
            });
            let grant = kms::create_grant(front_end, request(asked))?;
            keep("create-grant-by-ec2", newest(&user));
            let internal = front_end.through_as("ec2.us-east-1.amazonaws.com", "AWS Internal");
            let internal = Call { request_id: front_end.request_id.clone(), ..internal }.by(host);
            let asked = json!({
                "CiphertextBlob": blob, "EncryptionContext": context, "GrantTokens": [grant.grant_token],
            });
            kms::decrypt(&internal, request(asked))?;
            keep("decrypt-by-host", newest(&user));
            Ok(grant.grant_token)
        },
        |step, token| {
            step.draft.set_response(json!({"volumeId": VOLUME, "status": "attaching"}));
            Ok(token.clone())
        },
    )
    .unwrap();
    let service =
        Principal::Service { account: ACCOUNT.parse().unwrap(), name: "ec2.us-east-1.amazonaws.com".to_owned() };
    let internal = user.through_as("ec2.us-east-1.amazonaws.com", "AWS Internal").by(service);
    kms::retire_grant(&internal, request(json!({"GrantToken": token}))).unwrap();
    keep("retire-grant-by-ec2", newest(&user));
}

/// Puts fixed values in the place of random ids and times, the same for the same, so that records can be compared.
#[derive(Default)]
struct Normaliser {
    seen: HashMap<String, usize>,
}

impl Normaliser {
    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                let mut normal = serde_json::Map::new();
                for (name, field) in fields {
                    let field = match name.as_str() {
                        "creationDate" | "deletionDate" | "validTo" | "createDate" | "expiration"
                            if field.as_str().is_some_and(|text| text.contains(", ")) =>
                        {
                            json!("Jan 2, 2026 3:04:05 AM")
                        }
                        "creationDate" | "eventTime" => json!("2026-01-02T03:04:05Z"),
                        "createTime" | "attachTime" | "launchTime" if field.is_i64() => json!(1_767_323_045_000_i64),
                        "userAgent" if field.as_str().is_some_and(|text| text.starts_with("blockseal/")) => {
                            json!("blockseal/0.0.0")
                        }
                        _ => self.value(field),
                    };
                    normal.insert(name.clone(), field);
                }
                Value::Object(normal)
            }
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str) -> String {
        let hex64 = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let of_many = |text: &str| {
            let digits = text.strip_prefix("mrk-");
            digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let short = |at: usize, is: &dyn Fn(&str) -> bool| text.get(at..at + 36).is_some_and(is);
        let start = (0..text.len()).find(|&at| {
            let id = short(at, &blockseal::ids::is_uuid) || short(at, &of_many);
            id || text.get(at..at + 64).is_some_and(hex64)
        });
        let Some(start) = start else { return text.to_owned() };
        let uuid = short(start, &blockseal::ids::is_uuid);
        let length = if uuid || short(start, &of_many) { 36 } else { 64 };
        let random = &text[start..start + length];
        let next = self.seen.len() + 1;
        let number = *self.seen.entry(random.to_owned()).or_insert(next);
        let fixed = match length {
            36 if uuid => format!("00000000-0000-0000-0000-{number:012}"),
            36 => format!("mrk-{number:032}"),
            _ => format!("{number:064}"),
        };
        format!("{}{fixed}{}", &text[..start], self.text(&text[start + length..]))
    }
}

/// One record of every kind that EC2 leaves, made by the program, because only it can start an exporter.
pub fn one_of_each_of_ec2() -> Vec<(&'static str, Value)> {
    let home = crate::harness::Home::new();
    let user = "--principal arn:aws:iam::123456789012:user/ops/alice";
    let run = |line: &str| home.json(&format!("{user} {line}"));
    let key = run("kms create-key")["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    let mut records = Vec::new();
    let mut ids: Vec<(String, &'static str)> = Vec::new();
    let mut keep = |kind: &'static str, ids: &[(String, &str)]| {
        let name = match kind.split('-').next().unwrap() {
            "create" => "CreateVolume",
            "describe" if kind == "describe-instances" => "DescribeInstances",
            "describe" if kind == "describe-regions" => "DescribeRegions",
            "describe" if kind == "describe-availability-zones" => "DescribeAvailabilityZones",
            "describe" => "DescribeVolumes",
            "attach" => "AttachVolume",
            "detach" => "DetachVolume",
            "run" => "RunInstances",
            "terminate" => "TerminateInstances",
            _ => "DeleteVolume",
        };
        let found = home.json(&format!(
            "cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue={name} --max-results 1"
        ));
        let mut text = found["Events"][0]["CloudTrailEvent"].as_str().unwrap().to_owned();
        for (random, fixed) in ids {
            text = text.replace(random, fixed);
        }
        records.push((kind, serde_json::from_str(&text).unwrap()));
    };

    let made = run(&format!(
        "ec2 create-volume --size 1 --volume-type gp3 --encrypted --kms-key-id {key} --availability-zone us-east-1a \
         --db-instance-resource-id db-CQYSMDPBRZ7BPMH7Y3RTDG5QY --client-token once \
         --tag-specifications ResourceType=volume,Tags=[{{Key=team,Value=db}}]"
    ));
    let volume = made["VolumeId"].as_str().unwrap().to_owned();
    ids.push((volume.clone(), VOLUME));
    keep("create-volume", &ids);
    home.refused(254, &format!("{user} ec2 create-volume --size 0").split(' ').collect::<Vec<_>>());
    keep("create-volume-invalid", &ids);
    run(&format!("ec2 describe-volumes --volume-ids {volume} --filters Name=status,Values=available,in-use"));
    keep("describe-volumes", &ids);
    let attached = run(&format!("ec2 attach-volume --volume-id {volume} --device /dev/sdf"));
    ids.push((attached["InstanceId"].as_str().unwrap().to_owned(), "i-0123456789abcdef0"));
    keep("attach-volume", &ids);
    home.refused(254, &format!("{user} ec2 delete-volume --volume-id {volume}").split(' ').collect::<Vec<_>>());
    keep("delete-volume-in-use", &ids);
    home.refused(
        254,
        &format!("{user} ec2 detach-volume --volume-id {volume} --dry-run").split(' ').collect::<Vec<_>>(),
    );
    keep("detach-volume-dry-run", &ids);
    run(&format!("ec2 detach-volume --volume-id {volume}"));
    keep("detach-volume", &ids);
    for (fault, kind) in [("unavailable", "attach-volume-unavailable"), ("throttle:1", "attach-volume-throttled")] {
        run(&format!("faults set ec2.AttachVolume={fault}"));
        home.refused(254, &format!("{user} ec2 attach-volume --volume-id {volume}").split(' ').collect::<Vec<_>>());
        keep(kind, &ids);
        run("faults clear");
    }
    run(&format!("kms disable-key --key-id {key}"));
    home.refused(254, &format!("{user} ec2 attach-volume --volume-id {volume}").split(' ').collect::<Vec<_>>());
    keep("attach-volume-revoked-key", &ids);
    run(&format!("ec2 delete-volume --volume-id {volume}"));
    keep("delete-volume", &ids);
    instances_of_ec2(&run, &key, &mut ids, &mut keep);
    records
}

/// The records of operations on instances, Regions and zones.
fn instances_of_ec2(
    run: &dyn Fn(&str) -> Value,
    key: &str,
    ids: &mut Vec<(String, &'static str)>,
    keep: &mut impl FnMut(&'static str, &[(String, &str)]),
) {
    let answer = run(&format!(
        "ec2 run-instances --image-id ami-0123456789abcdef0 --instance-type m7i.large --count 1 --client-token launch \
         --placement AvailabilityZone=us-east-1b --tag-specifications ResourceType=instance,Tags=[{{Key=team,Value=db}}] \
         --block-device-mappings DeviceName=/dev/sdf,Ebs={{VolumeSize=1,VolumeType=gp3,Encrypted=true,KmsKeyId={key}}}"
    ));
    let launched = answer["Instances"][0]["InstanceId"].as_str().unwrap().to_owned();
    ids.push((answer["ReservationId"].as_str().unwrap().to_owned(), "r-0123456789abcdef0"));
    ids.push((launched.clone(), "i-00000000000000001"));
    keep("run-instances", ids);
    run(&format!("ec2 describe-instances --instance-ids {launched} --filters Name=instance-type,Values=m7i.*"));
    keep("describe-instances", ids);
    run(&format!("ec2 terminate-instances --instance-ids {launched}"));
    keep("terminate-instances", ids);
    run("ec2 describe-regions --region-names us-east-1");
    keep("describe-regions", ids);
    run("ec2 describe-availability-zones --zone-names us-east-1a");
    keep("describe-availability-zones", ids);
}

/// Compares records with `fixtures/trail/FOLDER/NAME.json`. `SNAPSHOTS=overwrite` writes them anew; look at the difference.
pub fn compare(folder: &str, records: Vec<(&'static str, Value)>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/trail").join(folder);
    let mut names: Vec<_> = records.iter().map(|(name, _)| format!("{name}.json")).collect();
    for (name, record) in records {
        let normal = serde_json::to_string_pretty(&Normaliser::default().value(&record)).unwrap() + "\n";
        let path = folder.join(format!("{name}.json"));
        let expected = snapbox::Data::read_from(&path, Some(snapbox::data::DataFormat::Text));
        snapbox::Assert::new().action_env("SNAPSHOTS").eq(normal, expected.raw());
    }
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    names.sort();
    assert_eq!(files, names, "every fixture is the record of something");
}

/// The record of each kind that KMS and CloudTrail leave.
#[test]
fn every_kind_of_record_is_as_its_fixture() {
    let (_base, home) = temporary();
    compare("kms", one_of_each(&home));
}

/// The record of each kind that EC2 leaves, with the schema of all records.
#[test]
fn every_kind_of_ec2_record_is_as_its_fixture_and_follows_the_schema() {
    let records = one_of_each_of_ec2();
    for (name, record) in &records {
        assert_eq!(faults(record), Vec::<String>::new(), "{name}");
        assert!(record.get("resources").is_none(), "EC2's records have no such field: {name}");
        let code = record["errorCode"].as_str().unwrap_or("Client.");
        let side = if name.ends_with("-unavailable") { "Server." } else { "Client." };
        assert!(code.starts_with(side) || record.get("errorCode").is_none(), "{name}: {code}");
    }
    compare("ec2", records);
}

/// The fields of a record in their order, with the type of each and whether it may be missing.
const SCHEMA: [(&str, &str, bool); 23] = [
    ("eventVersion", "string", false),
    ("userIdentity", "object", false),
    ("eventTime", "string", false),
    ("eventSource", "string", false),
    ("eventName", "string", false),
    ("awsRegion", "string", false),
    ("sourceIPAddress", "string", false),
    ("userAgent", "string", false),
    ("errorCode", "string", true),
    ("errorMessage", "string", true),
    ("requestParameters", "object or null", false),
    ("responseElements", "object or null", false),
    ("additionalEventData", "object", true),
    ("requestID", "string", true),
    ("eventID", "string", false),
    ("readOnly", "boolean", false),
    ("resources", "array", true),
    ("eventType", "string", false),
    ("managementEvent", "boolean", false),
    ("recipientAccountId", "string", false),
    ("serviceEventDetails", "object", true),
    ("sharedEventID", "string", true),
    ("eventCategory", "string", false),
];

/// What of `record` is not as the schema says.
pub fn faults(record: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let fields = record.as_object().unwrap();
    let order = fields.keys().filter_map(|name| SCHEMA.iter().position(|(known, ..)| known == name));
    if !order.is_sorted_by(|a, b| a < b) {
        faults.push("fields out of order".to_owned());
    }
    faults.extend(
        fields
            .keys()
            .filter(|name| !SCHEMA.iter().any(|(known, ..)| known == name))
            .map(|name| format!("unknown {name}")),
    );
    for (name, kind, optional) in SCHEMA {
        let fits = match fields.get(name) {
            None => optional,
            Some(Value::String(_)) => kind == "string",
            Some(Value::Bool(_)) => kind == "boolean",
            Some(Value::Array(_)) => kind == "array",
            Some(Value::Object(_)) => kind.starts_with("object"),
            Some(Value::Null) => kind.ends_with("null"),
            Some(Value::Number(_)) => false,
        };
        if !fits {
            faults.push(format!("{name} is no {kind}"));
        }
    }
    if record.get("errorCode").is_some() && !record["responseElements"].is_null() {
        faults.push("a failure with a response".to_owned());
    }
    let text = record.to_string();
    for secret in ["laintext\":", "iphertextBlob", "rantToken\":", "rantTokens\":"] {
        if text.contains(secret) {
            faults.push(format!("it has {secret}"));
        }
    }
    faults
}

#[test]
fn every_record_follows_the_schema_and_the_schema_notices_what_does_not() {
    let (_base, home) = temporary();
    let records = one_of_each(&home);
    for (name, record) in &records {
        assert_eq!(faults(record), Vec::<String>::new(), "{name}");
    }
    let good = &records[0].1;
    for (spoil, value) in [
        ("readOnly", json!("true")),
        ("eventID", Value::Null),
        ("more", json!(1)),
        ("errorCode", json!("X")),
        ("grantToken", json!("t")),
    ] {
        let mut bad = good.clone();
        bad[spoil] = value;
        assert!(!faults(&bad).is_empty(), "{spoil}");
    }
    let mut bad = good.clone();
    bad.as_object_mut().unwrap().remove("userIdentity");
    assert!(!faults(&bad).is_empty());
}

#[test]
fn events_are_found_by_every_attribute() {
    let (_base, home) = temporary();
    let call = alice(&home);
    let records = one_of_each(&home);
    let find = |key: &str, value: &str| {
        let mut asked = by_attribute(key, value);
        let mut names = Vec::new();
        loop {
            let page = look_up(&call, asked.clone()).unwrap();
            assert!(page.events.iter().all(|event| matches!(event.read_only, "true" | "false")));
            names.extend(page.events.into_iter().map(|event| event.event_name));
            match page.next_token {
                Some(token) => asked["NextToken"] = json!(token),
                None => return names,
            }
        }
    };
    let decrypt = &records.iter().find(|(name, _)| *name == "decrypt").unwrap().1;
    assert_eq!(find("EventId", decrypt["eventID"].as_str().unwrap()), ["Decrypt"]);
    assert_eq!(find("EventName", "Decrypt").len(), 4);
    assert_eq!(find("EventName", "decrypt"), [""; 0]);
    assert_eq!(find("Username", "session-1"), ["Encrypt"]);
    assert_eq!(find("Username", "root"), ["LookupEvents", "CreateKey"]);
    assert_eq!(find("Username", "i-0123456789abcdef0"), ["Decrypt"]);
    assert_eq!(find("ResourceName", VOLUME), ["AttachVolume"]);
    assert_eq!(find("ResourceType", "AWS::EC2::Volume"), ["AttachVolume"]);
    assert_eq!(find("EventSource", "ec2.amazonaws.com"), ["AttachVolume"]);
    assert_eq!(
        find("ResourceName", "arn:aws:kms:us-east-1:123456789012:alias/app"),
        ["DeleteAlias", "UpdateAlias", "CreateAlias"]
    );
    let key = decrypt["resources"][0]["ARN"].as_str().unwrap();
    let by_key = find("ResourceName", key);
    assert_eq!((by_key.first().unwrap().as_str(), by_key.last().unwrap().as_str()), ("DeleteKey", "CreateKey"));
    let access_key = decrypt["userIdentity"]["accessKeyId"].as_str().unwrap();
    assert!(find("AccessKeyId", access_key).contains(&"Decrypt".to_owned()));
    assert!(find("ReadOnly", "false").iter().all(|name| !name.starts_with("List") && name != "Decrypt"));
    assert!(find("ReadOnly", "true").contains(&"Decrypt".to_owned()));
}

#[test]
fn pages_cover_everything_once_newest_first_while_the_trail_grows() {
    let (_base, home) = temporary();
    let call = alice(&home);
    for _ in 0..23 {
        kms::create_key(&call, kms::CreateKeyRequest::default()).unwrap();
    }
    let mut seen = Vec::new();
    let mut asked = by_attribute("EventName", "CreateKey");
    asked["MaxResults"] = json!(5);
    loop {
        let page = look_up(&call, asked.clone()).unwrap();
        seen.extend(page.events);
        kms::create_key(&call, kms::CreateKeyRequest::default()).unwrap();
        match page.next_token {
            Some(token) => asked["NextToken"] = json!(token),
            None => break,
        }
    }
    assert_eq!(seen.len(), 23);
    assert!(seen.is_sorted_by(|newer, older| newer.event_time >= older.event_time));
    let ids: std::collections::HashSet<_> = seen.iter().map(|event| &event.event_id).collect();
    assert_eq!(ids.len(), 23);
    asked["LookupAttributes"][0]["AttributeValue"] = json!("Encrypt");
    assert_eq!(look_up(&call, asked).unwrap_err().code(), "InvalidNextTokenException");
}

#[test]
fn a_time_range_bounds_the_answer_and_so_do_ninety_days() {
    let (_base, home) = temporary();
    let call = alice(&home);
    kms::create_key(&call, kms::CreateKeyRequest::default()).unwrap();
    let first = home.now().unwrap();
    home.advance_clock(SignedDuration::from_hours(24 * 60)).unwrap();
    kms::create_key(&call, kms::CreateKeyRequest::default()).unwrap();
    let count = |more: Value| {
        let mut asked = by_attribute("EventName", "CreateKey");
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        look_up(&call, asked).unwrap().events.len()
    };
    let hour = SignedDuration::from_hours(1);
    assert_eq!(count(json!({})), 2);
    assert_eq!(count(json!({"EndTime": first.after(hour)})), 1);
    assert_eq!(count(json!({"StartTime": first.after(hour)})), 1);
    assert_eq!(count(json!({"StartTime": first.after(hour), "EndTime": first.after(hour + hour)})), 0);
    assert_eq!(count(json!({"StartTime": first.after(-hour), "EndTime": first})), 1);
    home.advance_clock(SignedDuration::from_hours(24 * 40)).unwrap();
    assert_eq!(count(json!({})), 1, "the older one is 100 days old");
    assert_eq!(count(json!({"StartTime": "2020-01-01"})), 1);
}

#[test]
fn bad_look_ups_are_refused_with_cloudtrails_errors() {
    let (_base, home) = temporary();
    let call = alice(&home);
    let code = |asked: Value| look_up(&call, asked).unwrap_err().code();
    assert_eq!(code(json!({"MaxResults": 0})), "InvalidMaxResultsException");
    assert_eq!(code(json!({"MaxResults": 51})), "InvalidMaxResultsException");
    assert_eq!(code(by_attribute("Region", "us-east-1")), "InvalidLookupAttributesException");
    assert_eq!(code(by_attribute("EventName", "")), "InvalidLookupAttributesException");
    let one = json!({"AttributeKey": "EventName", "AttributeValue": "Decrypt"});
    assert_eq!(code(json!({"LookupAttributes": [one, one]})), "InvalidLookupAttributesException");
    assert_eq!(code(json!({"StartTime": "2026-01-02", "EndTime": "2026-01-01"})), "InvalidTimeRangeException");
    assert_eq!(code(json!({"NextToken": "made up"})), "InvalidNextTokenException");
    assert_eq!(code(json!({"EventCategory": "all"})), "InvalidEventCategoryException");
    assert!(look_up(&call, json!({"EventCategory": "insight"})).unwrap().events.is_empty());
    let stranger = Call { account: ACCOUNT.parse().unwrap(), ..by(&home, "arn:aws:iam::210987654321:root") };
    assert_eq!(look_up(&stranger, json!({})).unwrap_err().code(), "AccessDeniedException");
}

#[test]
fn trails_are_kept_apart_by_account_and_region() {
    let (_base, home) = temporary();
    let here = alice(&home);
    let elsewhere = Call { region: "eu-west-1".parse().unwrap(), ..alice(&home) };
    let other = by(&home, "210987654321");
    for call in [&here, &elsewhere, &other] {
        kms::create_key(call, kms::CreateKeyRequest::default()).unwrap();
        assert_eq!(look_up(call, by_attribute("EventName", "CreateKey")).unwrap().events.len(), 1);
    }
}

/// A failing step undoes what the operation changed, keeps what it called, and records the failure under EC2's prefix.
#[test]
fn an_operation_of_several_steps_records_its_failure() {
    let (_base, home) = temporary();
    let call = alice(&home);
    let through = call.through("ec2.us-east-1.amazonaws.com");
    let key = kms::managed_key(&call, ManagedAlias::Ebs).unwrap();
    let outcome: Result<(), _> = gate::run_steps(
        &call,
        &ATTACH_VOLUME,
        json!({"volumeId": VOLUME}),
        |_| {
            kms::generate_data_key_without_plaintext(
                &through,
                kms::GenerateDataKeyRequest {
                    key_id: key.clone(),
                    number_of_bytes: Some(64),
                    encryption_context: [("aws:ebs:id", VOLUME)].into_iter().collect::<EncryptionContext>(),
                    ..Default::default()
                },
            )
            .map(drop)
        },
        |step, ()| {
            blockseal::store::set_setting(step.tx, "changed", "yes")?;
            step.draft.set_response(json!({"volumeId": VOLUME}));
            Err(ServiceError::refused("VolumeInUse", "it is in use"))
        },
    );
    assert_eq!(outcome.unwrap_err().code(), "VolumeInUse");
    let changed = home.read(|tx| blockseal::store::setting(tx, "changed")).unwrap();
    assert_eq!(changed, None);
    let record = newest_of(&call, "AttachVolume");
    assert_eq!((&record["errorCode"], &record["responseElements"]), (&json!("Client.VolumeInUse"), &Value::Null));
    assert!(record.get("resources").is_none());
    assert_eq!(look_up(&call, by_attribute("EventName", "GenerateDataKeyWithoutPlaintext")).unwrap().events.len(), 1);
    let failed: Result<(), _> = gate::run_steps(
        &call,
        &ATTACH_VOLUME,
        Value::Null,
        |_| Err::<(), _>(ServiceError::refused("InvalidVolume.NotFound", "no such volume")),
        |_, ()| Ok(()),
    );
    assert_eq!(failed.unwrap_err().code(), "InvalidVolume.NotFound");
    assert_eq!(newest_of(&call, "AttachVolume")["errorCode"], "Client.InvalidVolume.NotFound");
}
