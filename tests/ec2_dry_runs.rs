//! `DryRun` of every EC2 operation: it says what would be, changes nothing, and is recorded.

use std::fs;

use serde_json::{Value, json};

use crate::harness::Home;
use crate::scene::Scene;

/// What the account's trail has of dry runs of an operation.
fn recorded(home: &Home, name: &str) -> Vec<Value> {
    let attribute = format!("AttributeKey=EventName,AttributeValue={name}");
    let found = home.json(&format!("cloudtrail lookup-events --lookup-attributes {attribute}"));
    let events = found["Events"].as_array().unwrap().iter();
    let records = events.map(|event| serde_json::from_str(event["CloudTrailEvent"].as_str().unwrap()).unwrap());
    records.filter(|record: &Value| record["requestParameters"]["dryRun"] == true).collect()
}

fn files(home: &Home) -> Vec<(String, u64)> {
    let mut files: Vec<_> = fs::read_dir(home.path().join("volumes"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    files.sort();
    files
}

/// Everything that an operation on volumes changes.
fn state(scene: &Scene) -> Value {
    let home = &scene.home;
    json!([
        home.json("ec2 describe-volumes"),
        home.json("ec2 describe-instances"),
        home.json("ec2 get-ebs-encryption-by-default"),
        home.json("ec2 get-ebs-default-kms-key-id"),
        home.json(&format!("kms list-grants --key-id {}", scene.cmk)),
        files(home),
        home.processes(),
    ])
}

#[test]
fn a_dry_run_of_an_ec2_operation_says_what_would_be_and_changes_nothing() {
    let scene = Scene::new();
    let home = &scene.home;
    let create = format!("create-volume --size 1 --encrypted --kms-key-id {} --client-token once", scene.cmk);
    let on = |operation: &str| format!("{operation} --volume-id {}", scene.volume);
    let launched = home.json("ec2 run-instances --image-id ami-12345678")["Instances"][0]["InstanceId"].clone();
    let mapping = format!("DeviceName=/dev/sdf,Ebs={{VolumeSize=1,Encrypted=true,KmsKeyId={}}}", scene.cmk);
    let operations = [
        ("CreateVolume", create),
        ("DescribeVolumes", "describe-volumes".to_owned()),
        ("AttachVolume", on("attach-volume")),
        ("DetachVolume", on("detach-volume")),
        ("ModifyVolume", on("modify-volume") + " --size 2"),
        ("DescribeVolumesModifications", "describe-volumes-modifications".to_owned()),
        ("DescribeVolumeStatus", "describe-volume-status".to_owned()),
        ("CreateTags", format!("create-tags --resources {} --tags Key=a,Value=b", scene.volume)),
        ("DeleteTags", format!("delete-tags --resources {} --tags Key=a", scene.volume)),
        ("DescribeTags", "describe-tags".to_owned()),
        ("EnableEbsEncryptionByDefault", "enable-ebs-encryption-by-default".to_owned()),
        ("DisableEbsEncryptionByDefault", "disable-ebs-encryption-by-default".to_owned()),
        ("GetEbsEncryptionByDefault", "get-ebs-encryption-by-default".to_owned()),
        ("ModifyEbsDefaultKmsKeyId", format!("modify-ebs-default-kms-key-id --kms-key-id {}", scene.cmk)),
        ("GetEbsDefaultKmsKeyId", "get-ebs-default-kms-key-id".to_owned()),
        ("ResetEbsDefaultKmsKeyId", "reset-ebs-default-kms-key-id".to_owned()),
        ("DeleteVolume", on("delete-volume")),
        ("RunInstances", format!("run-instances --image-id ami-12345678 --block-device-mappings {mapping}")),
        ("DescribeInstances", "describe-instances".to_owned()),
        ("TerminateInstances", format!("terminate-instances --instance-ids {}", launched.as_str().unwrap())),
        ("DescribeRegions", "describe-regions".to_owned()),
        ("DescribeAvailabilityZones", "describe-availability-zones".to_owned()),
    ];
    let stranger = "--principal arn:aws:iam::210987654321:user/eve --account 123456789012";
    let own = "--principal arn:aws:iam::123456789012:user/ops";
    for (name, line) in &operations {
        let before = state(&scene);
        for (who, code, message) in [
            (own, "DryRunOperation", "Request would have succeeded, but DryRun flag is set."),
            (stranger, "UnauthorizedOperation", "You are not authorized to perform this operation."),
        ] {
            let line = format!("{who} ec2 {line} --dry-run");
            let said = home.refused(254, &line.split_whitespace().collect::<Vec<_>>());
            let wanted = format!("An error occurred ({code}) when calling the {name} operation: {message}");
            assert!(said.contains(&wanted), "{said}");
            assert_eq!(state(&scene), before, "{line}");
        }
        // A stranger's refusal is in the stranger's own trail.
        let found = recorded(home, name);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!(
            (&found[0]["errorCode"], &found[0]["responseElements"]),
            (&json!("Client.DryRunOperation"), &Value::Null)
        );
        // The twin: without the flag the same call does it.
        home.text(&format!("{own} ec2 {line}"));
        if !name.starts_with("Describe") && !name.starts_with("Get") {
            assert_ne!(state(&scene), before, "{line}");
        }
    }
    assert!(!scene.file().exists());
}
