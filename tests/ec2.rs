//! EBS operations through the command line: what they refuse, what they remember, who wins.

use std::io::Read as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Home, both, eventually, full, succeed};
use crate::scene::Scene;

fn volume_of(answer: &Value) -> String {
    answer["VolumeId"].as_str().unwrap().to_owned()
}

/// The records of one operation, oldest first.
fn records(home: &Home, name: &str) -> Vec<Value> {
    let attribute = format!("AttributeKey=EventName,AttributeValue={name}");
    let found = home.json(&format!("cloudtrail lookup-events --lookup-attributes {attribute}"));
    let events = found["Events"].as_array().unwrap().iter().rev();
    events.map(|event| serde_json::from_str(event["CloudTrailEvent"].as_str().unwrap()).unwrap()).collect()
}

#[test]
fn a_volume_is_shown_as_aws_shows_it() {
    let home = Home::new();
    let created = home.json("ec2 create-volume --size 3 --volume-type gp3 --availability-zone us-east-1b");
    let id = volume_of(&created);
    assert_eq!(created["State"], "creating");
    assert_eq!(
        (created["Size"].clone(), created["Iops"].clone(), created["Throughput"].clone()),
        (json!(3), json!(3000), json!(125))
    );
    let shown = home.json(&format!("ec2 describe-volumes --volume-ids {id}"))["Volumes"][0].clone();
    assert_eq!(shown["State"], "available");
    assert_eq!((shown["Encrypted"].clone(), shown["SnapshotId"].clone()), (json!(false), json!("")));
    assert_eq!((shown["AvailabilityZone"].clone(), shown["Attachments"].clone()), (json!("us-east-1b"), json!([])));
    assert!(shown["KmsKeyId"].is_null() && shown["SectorSize"].is_null());
    assert!(home.path().join(format!("volumes/{id}.raw")).exists());
    home.json(&format!("ec2 delete-volume --volume-id {id}"));
    assert!(!home.path().join(format!("volumes/{id}.raw")).exists());
    let gone = home.refused(254, &["ec2", "describe-volumes", "--volume-ids", &id]);
    assert!(
        gone.contains(&format!(
            "(InvalidVolume.NotFound) when calling the DescribeVolumes operation: The volume '{id}' does not exist."
        )),
        "{gone}"
    );
}

#[test]
fn requests_that_are_not_right_are_refused_in_aws_s_words_and_leave_nothing() {
    let home = Home::new();
    for (options, code, words) in [
        ("--size 0", "InvalidParameterValue", "must be at least 1 GiB"),
        (
            "--size 65537 --volume-type gp3",
            "InvalidParameterValue",
            "too large for volume type gp3; maximum is 65536GiB",
        ),
        ("--size 16385", "InvalidParameterValue", "maximum is 16384GiB"),
        ("--encrypted", "MissingParameter", "size/snapshot"),
        ("--size 1 --kms-key-id alias/x", "InvalidParameterDependency", "requires the parameter Encrypted"),
        ("--size 1 --availability-zone eu-west-1a", "InvalidZone.NotFound", "eu-west-1a"),
        ("--size 1 --encrypted --sector-size 1024", "InvalidParameterValue", "512 or 4096"),
        ("--size 1 --encrypted --db-instance-resource-id db-lower", "InvalidParameterValue", "db-lower"),
        ("--size 1 --volume-type io2", "InvalidParameterCombination", "iops must be specified"),
        ("--size 1 --dry-run", "DryRunOperation", "would have succeeded"),
        (
            "--size 1 --tag-specifications ResourceType=instance,Tags=[{Key=a,Value=b}]",
            "InvalidParameterValue",
            "taggable",
        ),
    ] {
        let line = format!("ec2 create-volume {options}");
        let said = home.refused(254, &line.split_whitespace().collect::<Vec<_>>());
        assert!(said.contains(&format!("({code})")) && said.contains(words), "{options}: {said}");
    }
    assert_eq!(home.json("ec2 describe-volumes")["Volumes"], json!([]));
    assert_eq!(std::fs::read_dir(home.path().join("volumes")).unwrap().count(), 0);
    let refusals = records(&home, "CreateVolume");
    assert_eq!(refusals.len(), 11, "every refusal is recorded");
    assert!(refusals.iter().all(|record| record["errorCode"].as_str().unwrap().starts_with("Client.")));
}

#[test]
fn a_client_token_makes_one_volume() {
    let home = Home::new();
    let make = |size: &str| home.run(["ec2", "create-volume", "--size", size, "--client-token", "once"]);
    let first: Value = serde_json::from_slice(&make("1").stdout).unwrap();
    let again: Value = serde_json::from_slice(&make("1").stdout).unwrap();
    assert_eq!(first, again);
    let other = both(&make("2"));
    assert!(
        other.contains("(IdempotentParameterMismatch)") && other.contains("inconsistent with parameters"),
        "{other}"
    );
    home.json(&format!("ec2 delete-volume --volume-id {}", volume_of(&first)));
    let gone = both(&make("1"));
    assert!(gone.contains("(IdempotentParameterMismatch)") && gone.contains("already deleted"), "{gone}");
    assert_eq!(home.json("ec2 describe-volumes")["Volumes"], json!([]));
}

#[test]
fn a_key_that_cannot_be_used_answers_creating_and_leaves_no_volume() {
    let home = Home::new();
    let key = home.json("kms create-key")["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    home.text(&format!("kms disable-key --key-id {key}"));
    for key_id in [key.as_str(), "alias/nobody", "8f0c2f3e-0000-4000-8000-000000000000"] {
        let token = format!("token-{key_id}");
        let create =
            ["ec2", "create-volume", "--size", "1", "--encrypted", "--kms-key-id", key_id, "--client-token", &token];
        let answer = home.json_of(&create);
        assert_eq!((answer["State"].clone(), answer["KmsKeyId"].clone()), (json!("creating"), json!(key_id)));
        let id = volume_of(&answer);
        let gone = home.refused(254, &["ec2", "describe-volumes", "--volume-ids", &id]);
        assert!(gone.contains("(InvalidVolume.NotFound)"), "{gone}");
        let again = home.refused(254, &create);
        assert!(again.contains("(IdempotentParameterMismatch)") && again.contains("already deleted"), "{again}");
    }
    assert_eq!(std::fs::read_dir(home.path().join("volumes")).unwrap().count(), 0);
    let asked = records(&home, "GenerateDataKeyWithoutPlaintext");
    assert_eq!(asked[0]["errorCode"], "DisabledException");
    assert!(asked.iter().all(|record| record["userIdentity"]["invokedBy"] == "ec2-frontend-api.amazonaws.com"));

    // The control: the same key enabled makes a volume.
    home.text(&format!("kms enable-key --key-id {key}"));
    let id = volume_of(&home.json(&format!("ec2 create-volume --size 1 --encrypted --kms-key-id {key}")));
    assert_eq!(home.json(&format!("ec2 describe-volumes --volume-ids {id}"))["Volumes"][0]["State"], "available");
}

#[test]
fn the_records_of_an_attachment_are_those_of_ec2() {
    let scene = Scene::new();
    scene.attach();
    scene.detach();
    let home = &scene.home;
    let instance = records(home, "AttachVolume")[0]["responseElements"]["instanceId"].as_str().unwrap().to_owned();
    let context = json!({"aws:rds:db-id": crate::scene::DATABASE, "aws:ebs:id": scene.volume});

    let made = &records(home, "GenerateDataKeyWithoutPlaintext")[0];
    assert_eq!(
        made["requestParameters"],
        json!({"encryptionContext": context, "numberOfBytes": 64, "keyId": scene.cmk})
    );
    assert!(made["responseElements"].is_null());

    let grant = &records(home, "CreateGrant")[0];
    let front = "ec2-frontend-api.amazonaws.com";
    assert_eq!(grant["userIdentity"]["type"], "Root");
    for field in ["sourceIPAddress", "userAgent"] {
        assert_eq!(grant[field], front);
    }
    assert_eq!(grant["userIdentity"]["invokedBy"], front);
    let mut asked = grant["requestParameters"].clone();
    asked.as_object_mut().unwrap().remove("name");
    assert_eq!(
        asked,
        json!({
            "keyId": scene.cmk,
            "granteePrincipal": format!("arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/{instance}"),
            "retiringPrincipal": "ec2.us-east-1.amazonaws.com",
            "operations": ["Decrypt"],
            "constraints": {"encryptionContextSubset": context},
        })
    );

    let opened = &records(home, "Decrypt")[0];
    assert_eq!(opened["requestID"], grant["requestID"]);
    assert_eq!(opened["sourceIPAddress"], "AWS Internal");
    assert_eq!(opened["userIdentity"]["invokedBy"], "AWS Internal");
    assert_eq!(opened["userIdentity"]["principalId"], format!("123456789012:aws:ec2-infrastructure:{instance}"));
    assert_eq!(
        opened["requestParameters"],
        json!({"encryptionContext": context, "encryptionAlgorithm": "SYMMETRIC_DEFAULT"})
    );

    let retired = &records(home, "RetireGrant")[0];
    assert_eq!(retired["userIdentity"], json!({"type": "AWSService", "invokedBy": "AWS Internal"}));
    assert!(retired["requestParameters"].is_null());
    assert_eq!(retired["additionalEventData"]["grantId"], grant["responseElements"]["grantId"]);

    let created = &records(home, "CreateVolume")[0];
    assert_eq!(created["requestParameters"]["size"], "1");
    assert_eq!(created["responseElements"]["volumeId"], scene.volume.as_str());
    assert_eq!(created["responseElements"]["status"], "creating");
    assert!(created["responseElements"]["createTime"].is_i64());
    let found = home.json(&format!(
        "cloudtrail lookup-events --lookup-attributes AttributeKey=ResourceName,AttributeValue={}",
        scene.volume
    ));
    assert_eq!(
        found["Events"].as_array().unwrap().len(),
        3,
        "CreateVolume, AttachVolume and DetachVolume by the volume's id"
    );
}

#[test]
fn a_volume_without_encryption_is_attached_without_kms() {
    let home = Home::new();
    let id = volume_of(&home.json("ec2 create-volume --size 1"));
    let attached = home.json(&format!("ec2 attach-volume --volume-id {id} --device /dev/sdh"));
    assert_eq!((attached["State"].clone(), attached["Device"].clone()), (json!("attaching"), json!("/dev/sdh")));
    std::fs::write(home.scratch().join("words"), "as they are").unwrap();
    home.json(&format!("volume write {id} --offset 512 --file words"));
    let raw = std::fs::read(home.path().join(format!("volumes/{id}.raw"))).unwrap();
    assert_eq!(&raw[512..523], b"as they are");
    let drawn = home.text(&format!("volume inspect {id} --envelope"));
    assert!(drawn.contains("is not encrypted"), "{drawn}");
    for (options, code) in [
        ("--instance-id i-12345678", "InvalidInstanceID.NotFound"),
        ("--instance-id nobody", "InvalidInstanceID.Malformed"),
    ] {
        let line = format!("ec2 attach-volume --volume-id {id} {options}");
        let said = home.refused(254, &line.split_whitespace().collect::<Vec<_>>());
        assert!(said.contains(code), "{said}");
    }
    let said = home.refused(254, &["ec2", "detach-volume", "--volume-id", &id, "--device", "/dev/sdf"]);
    assert!(said.contains("(InvalidAttachment.NotFound)"), "{said}");
    home.json(&format!("ec2 detach-volume --volume-id {id} --device /dev/sdh"));
    let said = home.refused(254, &["ec2", "detach-volume", "--volume-id", &id]);
    assert!(
        said.contains(&format!(
            "(IncorrectState) when calling the DetachVolume operation: Volume '{id}' is in the 'available' state."
        )),
        "{said}"
    );
    let found = home
        .json("cloudtrail lookup-events --lookup-attributes AttributeKey=EventSource,AttributeValue=kms.amazonaws.com");
    assert_eq!(found["Events"], json!([]));
}

/// A command that reads a detached volume holds it: nobody attaches or deletes it under its hands.
#[test]
fn a_volume_that_is_being_read_is_in_use() {
    let scene = Scene::new();
    let home = &scene.home;
    let mut reader = home.command(["volume", "export", &scene.volume, "-"]).stdout(Stdio::piped()).spawn().unwrap();
    // Its first byte comes when the volume is open, and nobody takes the rest.
    reader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    for verb in ["attach-volume", "delete-volume"] {
        let said = home.refused(254, &["ec2", verb, "--volume-id", &scene.volume]);
        assert!(said.contains("(VolumeInUse)"), "{said}");
    }
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(records(home, "CreateGrant").is_empty(), "KMS was not asked in vain");
    scene.attach();
}

/// Two programs attach the same volume at the same moment, again and again: one wins each time and the other is told.
#[test]
fn of_two_that_attach_at_once_exactly_one_wins() {
    let scene = Scene::new();
    let arguments = ["ec2", "attach-volume", "--volume-id", &scene.volume];
    for round in 0..8 {
        let start = || scene.home.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let both_at_once = [start(), start(), start()];
        let ended: Vec<_> = both_at_once.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let winners = ended.iter().filter(|output| output.status.success()).count();
        let texts: Vec<_> = ended.iter().map(both).collect();
        assert_eq!(winners, 1, "round {round}: {texts:?}");
        assert!(texts.iter().filter(|text| text.contains("(VolumeInUse)")).count() == 2, "round {round}: {texts:?}");
        let grants = scene.home.json(&format!("kms list-grants --key-id {}", scene.cmk));
        assert_eq!(grants["Grants"].as_array().unwrap().len(), 1, "the losers leave no grant");
        assert_eq!(scene.home.processes().len(), 1, "and no process");
        scene.detach();
    }
    let grants = scene.home.json(&format!("kms list-grants --key-id {}", scene.cmk));
    assert_eq!(grants["Grants"], json!([]), "a detached volume has no grant");
}

/// Eight shells make, look at, attach, detach and delete volumes at once: every answer is true afterwards.
#[test]
fn no_volume_is_lost_in_a_storm_of_commands() {
    let home = Home::new();
    let (shells, rounds) = (8, if full() { 25 } else { 6 });
    home.json("ec2 describe-volumes");
    let shell = &|number: usize| {
        let mut kept = Vec::new();
        for round in 0..rounds {
            let made = home.run(["ec2", "create-volume", "--size", "1"]);
            assert!(made.status.success(), "shell {number}, round {round}: {}", both(&made));
            let id = volume_of(&serde_json::from_slice(&made.stdout).unwrap());
            let seen = home.json(&format!("ec2 describe-volumes --volume-ids {id}"));
            assert_eq!(seen["Volumes"][0]["State"], "available", "shell {number}, round {round}");
            match (number + round) % 4 {
                0 => drop(home.json(&format!("ec2 delete-volume --volume-id {id}"))),
                1 => {
                    home.json(&format!("ec2 attach-volume --volume-id {id}"));
                    home.json(&format!("ec2 detach-volume --volume-id {id}"));
                    kept.push(id);
                }
                _ => kept.push(id),
            }
        }
        kept
    };
    let mut kept: Vec<String> = std::thread::scope(|scope| {
        let shells: Vec<_> = (0..shells).map(|number| scope.spawn(move || shell(number))).collect();
        shells.into_iter().flat_map(|shell| shell.join().unwrap()).collect()
    });
    let listed = home.json("ec2 describe-volumes");
    let listed = listed["Volumes"].as_array().unwrap();
    assert!(listed.iter().all(|volume| volume["State"] == "available"), "{listed:?}");
    let mut shown: Vec<String> = listed.iter().map(volume_of).collect();
    kept.sort();
    shown.sort();
    assert_eq!(shown, kept, "what was acknowledged is there, and nothing else");
    let mut files: Vec<String> = std::fs::read_dir(home.path().join("volumes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    // One that was opened has its latch beside it; nothing else is left of those that were deleted.
    let latches: Vec<String> = files.extract_if(.., |name| name.contains(".latch")).collect();
    assert!(latches.iter().all(|latch| files.contains(&latch.replace(".latch", ""))), "{latches:?}");
    assert_eq!(files, kept.iter().map(|id| format!("{id}.raw")).collect::<Vec<_>>());
    assert!(home.processes().is_empty());
}

/// A header with the token of another volume: its wrapped key was made under another context and does not open here.
#[test]
fn a_wrapped_key_from_another_volume_does_not_attach() {
    let scene = Scene::new();
    let home = &scene.home;
    let other = volume_of(&home.json(&format!("ec2 create-volume --size 1 --encrypted --kms-key-id {}", scene.cmk)));
    let own = std::fs::read(scene.file()).unwrap()[..16 << 20].to_vec();
    let moved = std::fs::read(home.path().join(format!("volumes/{other}.luks"))).unwrap()[..16 << 20].to_vec();
    write_start(&scene, &moved);
    let said = home.refused(254, &["ec2", "attach-volume", "--volume-id", &scene.volume]);
    assert!(said.contains("(CustomerKeyHasBeenRevoked)"), "{said}");
    let refused = records(home, "Decrypt").pop().unwrap();
    assert_eq!(refused["errorCode"], "InvalidCiphertextException");
    let attach = records(home, "AttachVolume").pop().unwrap();
    assert_eq!(attach["errorCode"], "Client.CustomerKeyHasBeenRevoked");
    assert_eq!(home.json(&format!("kms list-grants --key-id {}", scene.cmk))["Grants"], json!([]));
    let verdict = home.run(["volume", "verify", "--volume-id", &scene.volume]);
    assert_eq!(verdict.status.code(), Some(1), "{}", both(&verdict));
    assert!(both(&verdict).contains("made for another volume"), "{}", both(&verdict));
    // The control: the volume's own header attaches.
    write_start(&scene, &own);
    scene.attach();
}

fn write_start(scene: &Scene, header: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().write(true).open(scene.file()).unwrap();
    file.write_all_at(header, 0).unwrap();
}

#[test]
fn filters_tags_and_pages() {
    let home = Home::new();
    let mut made = Vec::new();
    for index in 0..7 {
        let tags = format!("ResourceType=volume,Tags=[{{Key=Name,Value=disk-{index}}}]");
        let size = (index % 3 + 1).to_string();
        made.push(volume_of(&home.json_of(&["ec2", "create-volume", "--size", &size, "--tag-specifications", &tags])));
    }
    let ids = |line: &str| {
        let listed = home.json(line);
        let volumes = listed["Volumes"].as_array().unwrap().clone();
        volumes.iter().map(volume_of).collect::<Vec<_>>()
    };
    assert_eq!(ids("ec2 describe-volumes"), made);
    assert_eq!(ids("ec2 describe-volumes --filters Name=tag:Name,Values=disk-3"), [made[3].clone()]);
    assert_eq!(ids("ec2 describe-volumes --filters Name=size,Values=1,2 Name=tag:Name,Values=disk-?").len(), 5);
    assert_eq!(ids("ec2 describe-volumes --page-size 5"), made, "pages are followed");
    let first = home.json("ec2 describe-volumes --max-results 5 --no-paginate");
    assert_eq!(first["Volumes"].as_array().unwrap().len(), 5);
    let token = first["NextToken"].as_str().unwrap();
    let rest = home.json_of(&["ec2", "describe-volumes", "--max-results", "5", "--next-token", token, "--no-paginate"]);
    assert_eq!(rest["Volumes"].as_array().unwrap().iter().map(volume_of).collect::<Vec<_>>(), made[5..]);
    assert!(rest["NextToken"].is_null());
    let said = home.refused(254, &["ec2", "describe-volumes", "--filters", "Name=colour,Values=red"]);
    assert!(said.contains("The filter 'colour' is invalid"), "{said}");
    let said = home.refused(254, &["ec2", "describe-volumes", "--next-token", "nonsense", "--no-paginate"]);
    assert!(said.contains("(InvalidParameterValue)"), "{said}");
}

#[test]
fn volumes_belong_to_their_account_and_region() {
    let home = Home::new();
    let id = volume_of(&home.json("ec2 create-volume --size 1"));
    for elsewhere in ["--region eu-west-1", "--account 210987654321"] {
        for verb in [
            "ec2 describe-volumes --volume-ids",
            "ec2 attach-volume --volume-id",
            "ec2 delete-volume --volume-id",
            "volume verify --volume-id",
        ] {
            let line = format!("{verb} {id} {elsewhere}");
            let said = home.refused(254, &line.split_whitespace().collect::<Vec<_>>());
            assert!(said.contains("(InvalidVolume.NotFound)"), "{line}: {said}");
        }
        assert_eq!(home.json(&format!("ec2 describe-volumes {elsewhere}"))["Volumes"], json!([]));
    }
}

#[test]
fn content_goes_in_and_out_attached_and_detached() {
    let scene = Scene::new();
    let home = &scene.home;
    let image: Vec<u8> =
        (0..3_000_001_u32).map(|index| if index % 500_000 < 200_000 { 0 } else { (index % 251) as u8 }).collect();
    std::fs::write(home.scratch().join("image"), &image).unwrap();
    let volume = &scene.volume;
    let moved = home.json(&format!("volume import --volume-id {volume} --file image"));
    assert_eq!((moved["Bytes"].clone(), moved["ThroughExporter"].clone()), (json!(3_000_001), json!(false)));
    assert!(moved["StoredBytes"].as_u64().unwrap() < 2_200_000, "zeros take no space: {moved}");

    home.json(&format!("volume export --volume-id {volume} --file out"));
    let out = std::fs::read(home.scratch().join("out")).unwrap();
    assert!(out.len() == 1 << 30 && out[..image.len()] == image && out[image.len()..].iter().all(|byte| *byte == 0));
    let said = home.refused(255, &["volume", "export", "--volume-id", volume, "--file", "out"]);
    assert!(said.contains("--overwrite"), "{said}");

    scene.attach();
    let said = home.refused(254, &["volume", "import", "--volume-id", volume, "--file", "image"]);
    assert!(said.contains("(VolumeInUse)"), "{said}");
    assert!(home.refused(254, &["volume", "fill", "--volume-id", volume]).contains("(VolumeInUse)"));
    std::fs::write(home.scratch().join("patch"), b"patched").unwrap();
    let moved = home.json(&format!("volume write --volume-id {volume} --offset 1M --file patch"));
    assert_eq!(moved["ThroughExporter"], true);
    let read = |offset: &str, length: &str| {
        succeed(&mut home.command(["volume", "read", "--volume-id", volume, "--offset", offset, "--length", length]))
    };
    assert_eq!(read("1048575", "9"), [&image[1_048_575..1_048_576], b"patched", &image[1_048_583..1_048_584]].concat());
    scene.detach();
    assert_eq!(read("1048575", "9"), [&image[1_048_575..1_048_576], b"patched", &image[1_048_583..1_048_584]].concat());
    let said = home.refused(255, &["volume", "read", "--volume-id", volume, "--offset", "1G", "--length", "1"]);
    assert!(said.contains("not inside the volume"), "{said}");

    // An image that is longer than the volume changes nothing.
    std::fs::File::create(home.scratch().join("long")).unwrap().set_len((1 << 30) + 1).unwrap();
    let said = home.refused(255, &["volume", "import", "--volume-id", volume, "--file", "long"]);
    assert!(said.contains("does not fit"), "{said}");
    assert_eq!(read("1M", "7"), b"patched");
}

/// A use of the key without an attachment is a Decrypt by the user through EC2, and one that KMS refuses gives nothing.
#[test]
fn reading_a_detached_volume_is_recorded_and_needs_the_key() {
    let scene = Scene::new();
    let home = &scene.home;
    let read = ["volume", "read", "--volume-id", &scene.volume, "--length", "512"];
    assert_eq!(succeed(&mut home.command(read)), [0; 512]);
    let used = records(home, "Decrypt").pop().unwrap();
    assert_eq!(used["userIdentity"]["invokedBy"], "ec2-frontend-api.amazonaws.com");
    assert_eq!(used["requestParameters"]["encryptionContext"]["aws:ebs:id"], scene.volume.as_str());
    home.text(&format!("kms disable-key --key-id {}", scene.cmk));
    let said = home.refused(254, &read);
    assert!(said.contains("(DisabledException)"), "{said}");
    let drawn = home.text(&format!("volume inspect --volume-id {} --envelope", scene.volume));
    assert!(drawn.contains("not to be had") && drawn.contains("DisabledException"), "{drawn}");
    assert!(drawn.contains(&scene.cmk) && drawn.contains("aws:rds:db-id"), "{drawn}");
}

/// Everything about an attachment is put right after its exporter was killed, by whichever command comes next.
#[test]
fn a_dead_exporter_is_noticed_by_any_command() {
    for next in ["kms list-keys", "ec2 describe-volumes", "clock show"] {
        let scene = Scene::new();
        scene.attach();
        let pid = scene.home.processes()[0];
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        eventually("the exporter is gone", || scene.home.processes().is_empty());
        let output = scene.home.run(next.split_whitespace());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && said.contains(&scene.volume) && said.contains("ended without a detach"),
            "{said}"
        );
        assert_eq!(scene.home.json("ec2 describe-volumes")["Volumes"][0]["State"], "available");
        let again = scene.home.run(next.split_whitespace());
        assert!(again.stderr.is_empty(), "it is told once");
        assert_eq!(scene.home.json(&format!("kms list-grants --key-id {}", scene.cmk))["Grants"], json!([]));
        scene.attach();
    }
}

/// A plain detach waits for an exporter that does not answer; another shell need not wait with it.
#[test]
fn a_forced_detach_does_not_wait_behind_another_detach() {
    let home = Home::new();
    let volume = home.json("ec2 create-volume --size 1")["VolumeId"].as_str().unwrap().to_owned();
    home.json(&format!("ec2 attach-volume --volume-id {volume}"));
    let exporter = nix::unistd::Pid::from_raw(home.processes()[0]);
    nix::sys::signal::kill(exporter, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let plain = home
        .command(["ec2", "detach-volume", "--volume-id", &volume])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let plain = plain.unwrap();
    let state = || home.json("ec2 describe-volumes")["Volumes"][0]["Attachments"][0]["State"].clone();
    eventually("the other shell is detaching", || state() == "detaching");
    let began = std::time::Instant::now();
    let output = home.run(["ec2", "detach-volume", "--force", "--volume-id", &volume]);
    let took = began.elapsed();
    assert!(output.status.success(), "{}", both(&output));
    assert!(took < std::time::Duration::from_secs(5), "it waited {took:?}");
    let plain = plain.wait_with_output().unwrap();
    assert!(plain.status.success(), "{}", both(&plain));
    let told = [both(&output), both(&plain)].concat();
    assert_eq!(told.matches("was killed; what no flush had acknowledged may be lost").count(), 1, "{told}");
    assert_eq!(home.json("ec2 describe-volumes")["Volumes"][0]["State"], "available");
    assert!(home.processes().is_empty());
    // It is whole and free.
    home.json(&format!("ec2 attach-volume --volume-id {volume}"));
    home.json(&format!("ec2 detach-volume --volume-id {volume}"));
}
