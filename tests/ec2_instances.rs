//! Instances through the command line: what a launch asks of KMS for whom, what it comes to where KMS refuses, and what
//! becomes of the volumes.

use serde_json::{Value, json};

use crate::harness::{Home, both};

const IMAGE: &str = "--image-id ami-12345678";

fn key_of(home: &Home) -> String {
    home.json("kms create-key")["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
}

fn encrypted(device: &str, key: &str) -> String {
    format!("DeviceName={device},Ebs={{VolumeSize=1,Encrypted=true,KmsKeyId={key}}}")
}

fn id_of(answer: &Value) -> String {
    answer["Instances"][0]["InstanceId"].as_str().unwrap().to_owned()
}

/// The one instance as it is shown now.
fn shown(home: &Home, id: &str) -> Value {
    home.json(&format!("ec2 describe-instances --instance-ids {id}"))["Reservations"][0]["Instances"][0].clone()
}

fn volumes(home: &Home) -> Vec<Value> {
    home.json("ec2 describe-volumes")["Volumes"].as_array().unwrap().clone()
}

/// The records of one operation, oldest first.
fn records(home: &Home, name: &str) -> Vec<Value> {
    let attribute = format!("AttributeKey=EventName,AttributeValue={name}");
    let found = home.json(&format!("cloudtrail lookup-events --lookup-attributes {attribute}"));
    let events = found["Events"].as_array().unwrap().iter().rev();
    events.map(|event| serde_json::from_str(event["CloudTrailEvent"].as_str().unwrap()).unwrap()).collect()
}

#[test]
fn a_launch_makes_and_attaches_its_volumes_as_the_caller() {
    let home = Home::new();
    let key = key_of(&home);
    let alice = "--principal arn:aws:iam::123456789012:user/alice";
    let plain = "DeviceName=/dev/sdg,Ebs={VolumeSize=2,DeleteOnTermination=false}";
    let answer = home.json(&format!(
        "ec2 run-instances {IMAGE} {alice} --block-device-mappings {} {plain} --tag-specifications \
         ResourceType=volume,Tags=[{{Key=a,Value=b}}] ResourceType=instance,Tags=[{{Key=c,Value=d}}]",
        encrypted("/dev/sdf", &key)
    ));
    let launched = &answer["Instances"][0];
    assert_eq!(launched["State"], json!({"Code": 0, "Name": "pending"}));
    assert_eq!(launched["StateReason"], json!({"Code": "pending", "Message": "pending"}));
    let id = id_of(&answer);
    let now = shown(&home, &id);
    assert_eq!((&now["State"]["Name"], &now["Tags"]), (&json!("running"), &json!([{"Key": "c", "Value": "d"}])));
    assert!(now["StateReason"].is_null() && now["StateTransitionReason"] == "");
    let mappings = now["BlockDeviceMappings"].as_array().unwrap();
    assert_eq!(mappings.len(), 2);
    assert_eq!(
        (&mappings[0]["DeviceName"], &mappings[0]["Ebs"]["DeleteOnTermination"]),
        (&json!("/dev/sdf"), &json!(true))
    );
    assert_eq!(mappings[1]["Ebs"]["DeleteOnTermination"], false);
    for volume in volumes(&home) {
        assert_eq!((&volume["State"], &volume["Tags"]), (&json!("in-use"), &json!([{"Key": "a", "Value": "b"}])));
        assert_eq!(volume["Attachments"][0]["InstanceId"], id.as_str());
    }
    assert_eq!(home.processes().len(), 2);

    // Forward access: what KMS was asked, it was asked as alice by EC2; the host opened the volume by its grant.
    let asked = &records(&home, "GenerateDataKeyWithoutPlaintext")[0];
    let grant = &records(&home, "CreateGrant")[0];
    for record in [asked, grant] {
        assert_eq!(record["userIdentity"]["userName"], "alice");
        assert_eq!(record["userIdentity"]["invokedBy"], "ec2-frontend-api.amazonaws.com");
    }
    let host = format!("arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/{id}");
    assert_eq!(grant["requestParameters"]["granteePrincipal"], host.as_str());
    assert_eq!(records(&home, "Decrypt")[0]["userIdentity"]["arn"], host.as_str());
    assert!(records(&home, "CreateVolume").is_empty() && records(&home, "AttachVolume").is_empty());

    // Its volumes and its attachments are as any.
    let second = home.json("ec2 create-volume --size 1 --availability-zone us-east-1a")["VolumeId"].clone();
    let second = second.as_str().unwrap();
    home.json(&format!("ec2 attach-volume --volume-id {second} --instance-id {id} --device /dev/sdh"));
    assert_eq!(shown(&home, &id)["BlockDeviceMappings"].as_array().unwrap().len(), 3);
    let elsewhere = home.json("ec2 create-volume --size 1 --availability-zone us-east-1b")["VolumeId"].clone();
    let line = format!("ec2 attach-volume --volume-id {} --instance-id {id}", elsewhere.as_str().unwrap());
    let said = home.refused(254, &line.split(' ').collect::<Vec<_>>());
    assert!(said.contains("(InvalidVolume.ZoneMismatch)"), "{said}");

    let ended = home.json(&format!("ec2 terminate-instances --instance-ids {id}"));
    let change = &ended["TerminatingInstances"][0];
    assert_eq!((&change["PreviousState"]["Name"], &change["CurrentState"]["Code"]), (&json!("running"), &json!(32)));
    let now = shown(&home, &id);
    assert_eq!((&now["State"]["Name"], &now["BlockDeviceMappings"]), (&json!("terminated"), &json!([])));
    assert_eq!(now["StateReason"]["Code"], "Client.UserInitiatedShutdown");
    let left: Vec<_> = volumes(&home).iter().map(|volume| (volume["Size"].clone(), volume["State"].clone())).collect();
    let free = json!("available");
    assert_eq!(left, [(json!(2), free.clone()), (json!(1), free.clone()), (json!(1), free)], "the unmarked ones stay");
    assert_eq!(home.json(&format!("kms list-grants --key-id {key}"))["Grants"], json!([]));
    assert_eq!(home.processes(), Vec::<i32>::new());
    // Again is no error, and an hour later nobody remembers it.
    let again = home.json(&format!("ec2 terminate-instances --instance-ids {id}"));
    assert_eq!(again["TerminatingInstances"][0]["CurrentState"]["Name"], "terminated");
    home.text("clock advance 61m");
    let gone = home.refused(254, &["ec2", "describe-instances", "--instance-ids", &id]);
    assert!(gone.contains(&format!("(InvalidInstanceID.NotFound) when calling the DescribeInstances operation: The instance ID '{id}' does not exist")), "{gone}");
}

/// The instance comes to nothing, for the one reason that EC2 has for it, and leaves nothing.
fn comes_to_nothing(home: &Home, key: &str, principal: &str) {
    let line = format!(
        "ec2 run-instances {IMAGE} --principal {principal} --block-device-mappings {} {}",
        "DeviceName=/dev/sdb,Ebs={VolumeSize=1,DeleteOnTermination=false}",
        encrypted("/dev/sdf", key)
    );
    let answer = home.json(&line);
    assert_eq!(answer["Instances"][0]["State"]["Name"], "pending");
    let now = shown(home, &id_of(&answer));
    assert_eq!(now["State"], json!({"Code": 48, "Name": "terminated"}));
    let reason = "Client.InvalidKMSKey.InvalidState";
    assert_eq!(
        now["StateReason"],
        json!({"Code": reason, "Message": format!("{reason}: The KMS key provided is in an incorrect state")})
    );
    assert_eq!(now["StateTransitionReason"], "Client.InternalError");
    assert_eq!((volumes(home), home.processes()), (vec![], vec![]));
    assert_eq!(std::fs::read_dir(home.path().join("volumes")).unwrap().count(), 0);
    assert_eq!(home.json(&format!("kms list-grants --key-id {key}"))["Grants"], json!([]));
}

#[test]
fn a_launch_that_kms_refuses_ends_as_in_real_life() {
    let home = Home::new();
    let key = key_of(&home);
    let root = "arn:aws:iam::123456789012:root";
    home.text(&format!("kms disable-key --key-id {key}"));
    comes_to_nothing(&home, &key, root);
    assert_eq!(records(&home, "GenerateDataKeyWithoutPlaintext")[0]["errorCode"], "DisabledException");
    home.text(&format!("kms enable-key --key-id {key}"));
    let scaling =
        "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";
    comes_to_nothing(&home, &key, scaling);

    // A key that makes data keys for the caller and no grants: the volume is made, and not attached.
    home.json("iam create-user --user-name alice");
    let allow = |actions: &str| {
        let policy =
            format!(r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":{actions},"Resource":"*"}}}}"#);
        home.text(&format!("iam put-user-policy --user-name alice --policy-name p --policy-document {policy}"));
    };
    allow(r#"["ec2:*","kms:GenerateDataKey*"]"#);
    let alice = "arn:aws:iam::123456789012:user/alice";
    comes_to_nothing(&home, &key, alice);
    assert_eq!(records(&home, "CreateGrant").last().unwrap()["errorCode"], "AccessDeniedException");
    // The twin: the missing permission is all that it was.
    allow(r#"["ec2:*","kms:GenerateDataKey*","kms:CreateGrant"]"#);
    let line = format!(
        "ec2 run-instances {IMAGE} --principal {alice} --block-device-mappings {}",
        encrypted("/dev/sdf", &key)
    );
    let id = id_of(&home.json(&line));
    assert_eq!(shown(&home, &id)["State"]["Name"], "running");
}

#[test]
fn auto_scaling_launches_once_the_key_lets_its_role_in() {
    let home = Home::new();
    let key = key_of(&home);
    let role = "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";
    home.json("iam create-service-linked-role --aws-service-name autoscaling.amazonaws.com");
    comes_to_nothing(&home, &key, role);
    let grant = format!(
        "kms create-grant --key-id {key} --grantee-principal {role} --operations CreateGrant Decrypt GenerateDataKeyWithoutPlaintext"
    );
    home.json(&grant);
    let line =
        format!("ec2 run-instances {IMAGE} --principal {role} --block-device-mappings {}", encrypted("/dev/sdf", &key));
    let id = id_of(&home.json(&line));
    assert_eq!(shown(&home, &id)["State"]["Name"], "running");
    let identity = records(&home, "RunInstances").last().unwrap()["userIdentity"].clone();
    assert_eq!(identity["sessionContext"]["sessionIssuer"]["arn"], role);
}

#[test]
fn requests_that_are_not_right_are_refused_and_leave_nothing() {
    let home = Home::new();
    for (options, code, words) in [
        ("", "MissingParameter", "ImageId"),
        ("--image-id ami-1", "InvalidAMIID.Malformed", "Invalid id: \"ami-1\""),
        (
            "--image-id ami-12345678 --instance-type big",
            "InvalidParameterValue",
            "Invalid value 'big' for InstanceType.",
        ),
        ("--image-id ami-12345678 --min-count 0", "InvalidParameterValue", "minCount"),
        ("--image-id ami-12345678 --min-count 2 --max-count 1", "InvalidParameterValue", "maxCount"),
        ("--image-id ami-12345678 --count 1:x", "InvalidParameterValue", "MINCOUNT:MAXCOUNT"),
        ("--image-id ami-12345678 --count 21", "InstanceLimitExceeded", "21"),
        ("--image-id ami-12345678 --placement AvailabilityZone=eu-west-1a", "InvalidZone.NotFound", "eu-west-1a"),
        ("--image-id ami-12345678 --placement Tenancy=host", "UnsupportedOperation", "tenancy"),
        ("--image-id ami-12345678 --block-device-mappings Ebs={VolumeSize=1}", "MissingParameter", "deviceName"),
        (
            "--image-id ami-12345678 --block-device-mappings DeviceName=/dev/sdf,Ebs={VolumeType=gp3}",
            "MissingParameter",
            "size",
        ),
        ("--image-id ami-12345678 --block-device-mappings DeviceName=/dev/sdf", "InvalidParameterValue", "EBS"),
        (
            "--image-id ami-12345678 --block-device-mappings DeviceName=/dev/sdf,Ebs={VolumeSize=1,KmsKeyId=x}",
            "InvalidParameterDependency",
            "requires the parameter Encrypted",
        ),
        (
            "--image-id ami-12345678 --block-device-mappings DeviceName=/dev/sdf,Ebs={VolumeSize=1} DeviceName=/dev/sdf,Ebs={VolumeSize=1}",
            "InvalidParameterValue",
            "already in use",
        ),
        (
            "--image-id ami-12345678 --tag-specifications ResourceType=snapshot,Tags=[{Key=a,Value=b}]",
            "InvalidParameterValue",
            "taggable",
        ),
    ] {
        let line = format!("ec2 run-instances {options}");
        let said = home.refused(254, &line.split_whitespace().collect::<Vec<_>>());
        assert!(said.contains(&format!("({code})")) && said.contains(words), "{options}: {said}");
    }
    assert_eq!(home.json("ec2 describe-instances")["Reservations"], json!([]));
    assert_eq!(volumes(&home), Vec::<Value>::new());
}

#[test]
fn a_client_token_launches_once() {
    let home = Home::new();
    let run = |more: &str| home.run(format!("ec2 run-instances {IMAGE} --client-token once {more}").split_whitespace());
    let first: Value = serde_json::from_slice(&run("--count 2").stdout).unwrap();
    let again: Value = serde_json::from_slice(&run("--count 2").stdout).unwrap();
    let ids = |answer: &Value| {
        answer["Instances"].as_array().unwrap().iter().map(|one| one["InstanceId"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((ids(&first), &first["ReservationId"]), (ids(&again), &again["ReservationId"]));
    let other = both(&run("--count 3"));
    assert!(other.contains("(IdempotentParameterMismatch)"), "{other}");
    let shown = home.json("ec2 describe-instances");
    assert_eq!(shown["Reservations"][0]["Instances"].as_array().unwrap().len(), 2);
    for id in ids(&first) {
        home.json(&format!("ec2 terminate-instances --instance-ids {}", id.as_str().unwrap()));
    }
    home.text("clock advance 2h");
    let gone = both(&run("--count 2"));
    assert!(gone.contains("(IdempotentInstanceTerminated)"), "{gone}");
}

#[test]
fn instances_are_shown_by_filter_and_in_pages() {
    let home = Home::new();
    for (kind, count) in [("m7i.large", 4), ("t3.micro", 3)] {
        home.json(&format!(
            "ec2 run-instances {IMAGE} --instance-type {kind} --count {count} --tag-specifications \
             ResourceType=instance,Tags=[{{Key=kind,Value={kind}}}]"
        ));
    }
    let count = |line: &str| {
        let found = home.json(&format!("ec2 describe-instances {line}"))["Reservations"].clone();
        let found = found.as_array().unwrap().clone();
        found.iter().map(|one| one["Instances"].as_array().unwrap().len()).sum::<usize>()
    };
    assert_eq!(count(""), 7);
    assert_eq!(count("--filters Name=instance-type,Values=t3.*"), 3);
    assert_eq!(count("--filters Name=tag:kind,Values=m7i.large Name=instance-state-name,Values=running"), 4);
    assert_eq!(count("--filters Name=instance-state-code,Values=48"), 0);
    assert_eq!(count("--page-size 5"), 7);
    let page = home.json("ec2 describe-instances --max-results 5 --no-paginate");
    let token = page["NextToken"].as_str().unwrap();
    assert_eq!(count(&format!("--max-results 5 --no-paginate --next-token {token}")), 2);
    for (options, code) in [
        ("--filters Name=colour,Values=red", "InvalidParameterValue"),
        ("--max-results 4", "InvalidParameterValue"),
        ("--instance-ids i-1", "InvalidInstanceID.Malformed"),
        ("--instance-ids i-12345678 i-87654321", "InvalidInstanceID.NotFound"),
        ("--next-token x", "InvalidParameterValue"),
    ] {
        let line = format!("ec2 describe-instances --no-paginate {options}");
        let said = home.refused(254, &line.split_whitespace().collect::<Vec<_>>());
        assert!(said.contains(&format!("({code})")), "{options}: {said}");
    }
    // Another account and another Region see nothing of them.
    assert_eq!(count("--region eu-west-1") + count("--account 210987654321"), 0);
    // This machine's own instance is there for who asks for it, and is not ended.
    let volume = home.json("ec2 create-volume --size 1")["VolumeId"].clone();
    let own = home.json(&format!("ec2 attach-volume --volume-id {}", volume.as_str().unwrap()))["InstanceId"].clone();
    assert_eq!(count(""), 8);
    assert_eq!(shown(&home, own.as_str().unwrap())["State"]["Name"], "running");
    let said = home.refused(254, &["ec2", "terminate-instances", "--instance-ids", own.as_str().unwrap()]);
    assert!(said.contains("(OperationNotPermitted)"), "{said}");
}

#[test]
fn regions_and_zones_are_shown_by_name_and_filter() {
    let home = Home::new();
    let names = |line: &str, list: &str, name: &str| {
        let found = home.json(&format!("ec2 {line}"))[list].clone();
        found.as_array().unwrap().iter().map(|one| one[name].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let regions = |line: &str| names(&format!("describe-regions {line}"), "Regions", "RegionName");
    assert!(regions("").contains(&"us-east-1".to_owned()) && !regions("").contains(&"af-south-1".to_owned()));
    assert!(regions("--all-regions").contains(&"af-south-1".to_owned()));
    assert_eq!(regions("--filters Name=region-name,Values=eu-central-*"), ["eu-central-1"]);
    assert_eq!(regions("--region-names eu-west-1 us-east-1").len(), 2);
    let zones = |line: &str| names(&format!("describe-availability-zones {line}"), "AvailabilityZones", "ZoneName");
    assert_eq!(zones("--region eu-west-1 --zone-ids euw1-az1"), ["eu-west-1a"]);
    assert_eq!(zones("").len(), 6);
    for line in ["describe-regions --region-names moon-1", "describe-availability-zones --zone-names eu-west-1a"] {
        let said = home.refused(254, &format!("ec2 {line}").split(' ').collect::<Vec<_>>());
        assert!(said.contains("(InvalidParameterValue)"), "{said}");
    }
}

#[test]
fn a_launch_is_explained_without_being_done() {
    let home = Home::new();
    let key = key_of(&home);
    let mapping = encrypted("/dev/sdf", &key);
    let explain = |principal: &str, code: i32| {
        let line =
            format!("--principal {principal} explain ec2 run-instances {IMAGE} --block-device-mappings {mapping}");
        let output = home.run(line.split(' '));
        assert_eq!(output.status.code(), Some(code), "{}", both(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let allowed = explain("arn:aws:iam::123456789012:root", 0);
    let asked: Vec<_> = allowed["calls"].as_array().unwrap().iter().map(|call| call["operation"].clone()).collect();
    assert_eq!(asked, ["RunInstances", "GenerateDataKeyWithoutPlaintext", "CreateGrant", "Decrypt"]);
    let role = "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";
    let refused = explain(role, 1);
    let seen = refused["caller_sees"]["says"].as_str().unwrap();
    assert!(seen.contains("StateReason Client.InvalidKMSKey.InvalidState"), "{seen}");
    assert_eq!(refused["decided_by"], "identity policy");
    assert_eq!(home.json("ec2 describe-instances")["Reservations"], json!([]));
    assert_eq!((volumes(&home), home.processes()), (vec![], vec![]));
    assert!(records(&home, "RunInstances").is_empty() && records(&home, "CreateGrant").is_empty());
}
