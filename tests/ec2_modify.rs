//! `ModifyVolume`: volumes that grow and change, detached and attached, on full disks and under kills.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use blockseal::export::Client;
use serde_json::{Value, json};

use crate::harness::mount::SmallFs;
use crate::harness::server::{ROOT, Server, element};
use crate::harness::{Home, both, full};
use crate::scene::Scene;

const GIB: u64 = 1 << 30;

impl Scene {
    fn socket(&self) -> PathBuf {
        self.home.path().join("run").join(format!("{}.sock", self.volume))
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket(), &self.volume).unwrap()
    }

    fn modify(&self, options: &str) -> Value {
        let modified = self.home.json(&format!("ec2 modify-volume --volume-id {} {options}", self.volume));
        modified["VolumeModification"].clone()
    }

    fn refused_to_modify(&self, options: &str) -> String {
        let line = format!("ec2 modify-volume --volume-id {} {options}", self.volume);
        self.home.refused(254, &line.split(' ').collect::<Vec<_>>())
    }

    /// The state of the volume's last modification.
    fn modification(&self) -> Value {
        let described = format!("ec2 describe-volumes-modifications --volume-ids {}", self.volume);
        self.home.json(&described)["VolumesModifications"][0].clone()
    }

    fn size(&self) -> Value {
        self.home.json(&format!("ec2 describe-volumes --volume-ids {}", self.volume))["Volumes"][0]["Size"].clone()
    }

    /// `event` and `result` of what `EventBridge` was told of the volume.
    fn told(&self) -> Vec<String> {
        let lines = self.home.text(&format!("events list --volume-id {}", self.volume));
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["detail"].clone());
        events.map(|detail| format!("{} {}", detail["event"], detail["result"]).replace('"', "")).collect()
    }
}

fn read(client: &mut Client, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    client.read(offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_detached_volume_grows_and_keeps_what_it_has() {
    let scene = Scene::new();
    scene.attach();
    let mut client = scene.client();
    client.write(GIB - 4096, &[0x5a; 4096]).unwrap();
    client.flush().unwrap();
    drop(client);
    scene.detach();
    let key = scene.data_key();

    let begun = scene.modify("--size 3 --volume-type gp3 --throughput 200");
    let wanted = json!({
        "VolumeId": scene.volume, "ModificationState": "modifying", "Progress": 0, "StartTime": begun["StartTime"],
        "TargetSize": 3, "TargetVolumeType": "gp3", "TargetIops": 3000, "TargetThroughput": 200,
        "TargetMultiAttachEnabled": false, "OriginalSize": 1, "OriginalVolumeType": "gp2", "OriginalIops": 100,
        "OriginalMultiAttachEnabled": false,
    });
    assert_eq!(begun, wanted);
    assert_eq!(scene.modification()["ModificationState"], "optimizing");
    let shown = scene.home.json("ec2 describe-volumes")["Volumes"][0].clone();
    assert_eq!(
        (&shown["Size"], &shown["VolumeType"], &shown["Iops"], &shown["Throughput"]),
        (&json!(3), &json!("gp3"), &json!(3000), &json!(200))
    );
    assert_eq!(std::fs::metadata(scene.file()).unwrap().len(), (16 << 20) + 3 * GIB);
    assert_eq!(scene.data_key(), key, "the same data key");
    scene.home.text(&format!("volume verify {}", scene.volume));

    scene.attach();
    let mut client = scene.client();
    assert_eq!(client.size(), 3 * GIB);
    assert_eq!(read(&mut client, GIB - 4096, 8192), [[0x5a; 4096], [0; 4096]].concat(), "what is new is zeros");
    client.write(3 * GIB - 512, &[0x77; 512]).unwrap();
    client.flush().unwrap();
    drop(client);
    scene.detach();
    let stored = scene.decrypted(&key, 3 * GIB - 512, 512);
    assert_eq!(stored, [0x77; 512], "the second reader finds it where it belongs");

    let refused = scene.refused_to_modify("--size 4");
    let said = format!(
        "(IncorrectModificationState) when calling the ModifyVolume operation: Volume {} cannot be modified in \
                        modification state OPTIMIZING.",
        scene.volume
    );
    assert!(refused.contains(&said), "{refused}");
    scene.home.text("clock advance 30s");
    assert!(scene.modification()["Progress"].as_i64().unwrap() >= 40, "{}", scene.modification());
    scene.home.text("clock advance 1m");
    let completed = scene.modification();
    assert_eq!((&completed["ModificationState"], &completed["Progress"]), (&json!("completed"), &json!(100)));
    assert!(completed["EndTime"].is_string());
    assert_eq!(
        scene.told(),
        [
            "createVolume available",
            "attachVolume attached",
            "detachVolume detached",
            "modifyVolume optimizing",
            "attachVolume attached",
            "detachVolume detached",
            "modifyVolume completed",
        ]
    );
}

#[test]
fn what_a_volume_cannot_be_is_refused_as_ec2_refuses_it() {
    let scene = Scene::new();
    for (options, code, part) in [
        ("", "MissingParameter", "at least one of the parameters"),
        ("--size 0", "InvalidParameterValue", "New size cannot be smaller than existing size"),
        ("--size -1", "InvalidParameterValue", "Value (-1) for parameter size"),
        ("--size 16385", "InvalidParameterValue", "too large for volume type gp2; maximum is 16384GiB"),
        ("--iops 3000", "InvalidParameterCombination", "iops is not supported for gp2"),
        ("--volume-type gp3 --iops 100", "InvalidParameterValue", "100 is too low; minimum is 3000"),
        ("--volume-type gp3 --throughput 2001", "InvalidParameterValue", "2001 is too high"),
        ("--volume-type io1 --size 4", "InvalidParameterValue", "ratio of 750.000000 is too high; maximum is 50"),
        ("--volume-type st1", "InvalidParameterValue", "must be at least 125 GiB"),
        ("--volume-type standard", "InvalidParameterValue", "does not support volume modification"),
    ] {
        let line = format!("ec2 modify-volume --volume-id {} {options}", scene.volume);
        let said = scene.home.refused(254, &line.split_whitespace().collect::<Vec<_>>());
        assert!(said.contains(&format!("({code})")) && said.contains(part), "{options}: {said}");
    }
    let gone = ["ec2", "modify-volume", "--volume-id", "vol-00000000000000000", "--size", "2"];
    assert!(scene.home.refused(254, &gone).contains("(InvalidVolume.NotFound)"));
    assert_eq!(scene.size(), 1);
    let never = format!("ec2 describe-volumes-modifications --volume-ids {}", scene.volume);
    let said = scene.home.refused(254, &never.split(' ').collect::<Vec<_>>());
    assert!(said.contains("(InvalidVolumeModification.NotFound)"), "{said}");
}

#[test]
fn an_attached_volume_grows_under_its_clients() {
    let scene = Scene::new();
    scene.attach();
    let mut old = scene.client();
    old.write(0, &[0x31; 4096]).unwrap();
    scene.modify("--size 2");
    // Who was connected keeps the size that it was told, and goes on.
    assert_eq!(old.size(), GIB);
    assert_eq!(read(&mut old, 0, 4096), [0x31; 4096]);
    old.write(GIB - 512, &[0x32; 512]).unwrap();
    old.flush().unwrap();
    let mut new = scene.client();
    assert_eq!(new.size(), 2 * GIB);
    assert_eq!(read(&mut new, GIB - 512, 1024), [[0x32; 512], [0; 512]].concat());
    new.write(2 * GIB - 4096, &[0x33; 4096]).unwrap();
    new.flush().unwrap();
    // The twin: without the modification the range is none of the volume's.
    assert!(old.read(2 * GIB - 4096, &mut [0; 4096]).is_err());
    drop((old, new));
    scene.detach();
    scene.home.text(&format!("volume verify {}", scene.volume));
    scene.attach();
    let mut client = scene.client();
    assert_eq!((client.size(), read(&mut client, 2 * GIB - 4096, 4096)), (2 * GIB, vec![0x33; 4096]));
    drop(client);
    scene.detach();
}

#[test]
fn a_volume_is_modified_four_times_a_day() {
    let scene = Scene::new();
    for size in 2..=5 {
        scene.modify(&format!("--size {size}"));
        scene.home.text("clock advance 5m");
    }
    let said = scene.refused_to_modify("--size 6");
    assert!(said.contains("(VolumeModificationRateExceeded)"), "{said}");
    assert_eq!(scene.size(), 5);
    scene.home.text("clock advance 24h");
    scene.modify("--size 6");
    assert_eq!(scene.size(), 6);
}

#[test]
fn modifications_come_in_pages_and_through_filters() {
    let home = Home::new();
    let volumes: Vec<String> =
        (0..7).map(|_| home.json("ec2 create-volume --size 1")["VolumeId"].as_str().unwrap().to_owned()).collect();
    for (volume, size) in volumes.iter().zip(2..) {
        home.json(&format!("ec2 modify-volume --volume-id {volume} --size {size}"));
    }
    let ids = |found: &Value| -> Vec<String> {
        let found = found["VolumesModifications"].as_array().unwrap().iter();
        found.map(|one| one["VolumeId"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&home.json("ec2 describe-volumes-modifications")), volumes);
    let first = home.json("ec2 describe-volumes-modifications --max-results 5 --no-paginate");
    assert_eq!(ids(&first), volumes[..5]);
    let token = first["NextToken"].as_str().unwrap();
    let second =
        home.json(&format!("ec2 describe-volumes-modifications --max-results 5 --no-paginate --next-token {token}"));
    assert_eq!((ids(&second), &second["NextToken"]), (volumes[5..].to_vec(), &Value::Null));
    let filtered = home.json("ec2 describe-volumes-modifications --filters Name=target-size,Values=3,8");
    assert_eq!(ids(&filtered), [volumes[1].clone(), volumes[6].clone()]);
    let none = ["ec2", "describe-volumes-modifications", "--filters", "Name=colour,Values=red"];
    assert!(home.refused(254, &none).contains("(InvalidParameterValue)"));
}

#[test]
fn a_modification_is_recorded_as_ec2_records_it() {
    let scene = Scene::new();
    scene.modify("--size 2");
    scene.refused_to_modify("--size 3");
    let found = scene
        .home
        .json("cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue=ModifyVolume");
    let record = |index: usize| -> Value {
        serde_json::from_str(found["Events"][index]["CloudTrailEvent"].as_str().unwrap()).unwrap()
    };
    let (refused, made) = (record(0), record(1));
    assert_eq!(made["requestParameters"], json!({"ModifyVolumeRequest": {"VolumeId": scene.volume, "Size": 2}}));
    let response = &made["responseElements"]["ModifyVolumeResponse"];
    assert_eq!(response["volumeModification"]["targetSize"], 2);
    assert_eq!(response["requestId"], made["requestID"]);
    assert_eq!(
        (&refused["errorCode"], &refused["responseElements"]),
        (&json!("Client.IncorrectModificationState"), &Value::Null)
    );
}

/// Killed at any moment of its run: the volume has the old size or the new one, its file agrees, and it is attached.
#[test]
fn a_modify_that_is_killed_leaves_size_and_file_in_agreement() {
    let scene = Scene::new();
    let modify = |size: u32| {
        let size = size.to_string();
        scene.home.command(["ec2", "modify-volume", "--volume-id", &scene.volume, "--size", &size])
    };
    let quietly = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    assert!(quietly(&mut modify(2)).wait().unwrap().success());
    let whole = began.elapsed();
    let rounds: u32 = if full() { 100 } else { 12 };
    let mut grew = 0;
    for round in 0..rounds {
        scene.home.text("clock advance 1d");
        let attached = round % 2 == 1;
        if attached {
            scene.attach();
        }
        let before = scene.size().as_u64().unwrap();
        let mut child = quietly(&mut modify(u32::try_from(before).unwrap() + 1));
        std::thread::sleep(whole * round / rounds);
        child.kill().unwrap();
        child.wait().unwrap();
        if !attached {
            scene.attach();
        }
        let after = scene.size().as_u64().unwrap();
        assert!([before, before + 1].contains(&after), "{before} {after}");
        assert_eq!(scene.client().size(), after * GIB, "round {round}");
        scene.detach();
        scene.home.text(&format!("volume verify {}", scene.volume));
        grew += after - before;
    }
    assert!(grew > 0, "no kill came late enough");
}

#[test]
fn a_full_disk_refuses_to_grow_a_volume_and_keeps_it() {
    let disk = SmallFs::ext4(64);
    let mut home = Home::new();
    home.move_to(&disk.path().join("home"));
    let scene = Scene::in_home(home, &[]);
    scene.attach();
    let mut client = scene.client();
    client.write(0, &[0x44; 4096]).unwrap();
    client.flush().unwrap();
    let filler = disk.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write(&mut file, &[1; 1 << 12]).is_ok_and(|written| written > 0) {}
    let modify = ["ec2", "modify-volume", "--volume-id", &scene.volume, "--size", "2"];
    let output = scene.home.run(modify);
    assert!(!output.status.success() && !both(&output).contains("panicked"), "{}", both(&output));
    assert_eq!(read(&mut client, 0, 4096), [0x44; 4096]);
    assert_eq!((scene.size(), scene.client().size()), (json!(1), GIB));
    drop(client);
    scene.detach();
    // The twin: with room it grows.
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    scene.modify("--size 2");
    scene.attach();
    let mut client = scene.client();
    assert_eq!((client.size(), read(&mut client, 0, 4096)), (2 * GIB, vec![0x44; 4096]));
    drop(client);
    scene.detach();
    // Longer than a file of this file system can be (16 TiB): refused, and as it was.
    scene.home.text("clock advance 1d");
    let output = scene.home.run(["ec2", "modify-volume", "--volume-id", &scene.volume, "--size", "16384"]);
    assert!(!output.status.success() && !both(&output).contains("panicked"), "{}", both(&output));
    assert_eq!(scene.size(), 2);
    scene.attach();
    scene.detach();
}

#[test]
fn sdks_are_answered_in_ec2s_xml() {
    let home = Home::new();
    let volume = home.json("ec2 create-volume --size 1")["VolumeId"].as_str().unwrap().to_owned();
    let server = Server::start(&home, &[]);
    let ec2 = |form: &str| {
        let answer = server.send(&server.query(&format!("{form}&Version=2016-11-15")).sign("ec2", &ROOT));
        (answer.status, answer.text())
    };
    let (status, text) = ec2(&format!("Action=ModifyVolume&VolumeId={volume}&Size=2"));
    assert!(status == 200 && text.contains("<volumeModification><volumeId>"), "{text}");
    assert_eq!((element(&text, "targetSize"), element(&text, "startTime").len()), ("2".to_owned(), 24));
    let (_, text) = ec2(&format!("Action=DescribeVolumesModifications&VolumeId.1={volume}"));
    assert!(text.contains("<volumeModificationSet><item><volumeId>"), "{text}");
    let (_, text) = ec2(&format!("Action=CreateTags&ResourceId.1={volume}&Tag.1.Key=team&Tag.1.Value=db"));
    assert!(text.contains("<return>true</return>"), "{text}");
    let (_, text) = ec2("Action=DescribeTags&Filter.1.Name=key&Filter.1.Value.1=team");
    assert!(text.contains("<tagSet><item><key>team</key><resourceId>"), "{text}");
    let (_, text) = ec2(&format!("Action=DescribeVolumeStatus&VolumeId.1={volume}"));
    assert!(
        text.contains("<volumeStatusSet><item><actionsSet></actionsSet>") || text.contains("<actionsSet/>"),
        "{text}"
    );
    assert!(text.contains("<details><item><name>io-enabled</name><status>passed</status></item>"), "{text}");
    let (_, text) = ec2("Action=EnableEbsEncryptionByDefault");
    assert!(text.contains("<ebsEncryptionByDefault>true</ebsEncryptionByDefault>"), "{text}");
    let (_, text) = ec2("Action=GetEbsDefaultKmsKeyId");
    assert_eq!(element(&text, "kmsKeyId"), "alias/aws/ebs");
}

#[test]
fn tags_come_and_go() {
    let scene = Scene::new();
    let home = &scene.home;
    let launched = home.json("ec2 run-instances --image-id ami-12345678")["Instances"][0]["InstanceId"].clone();
    let instance = launched.as_str().unwrap();
    home.text(&format!(
        "ec2 create-tags --resources {} {instance} --tags Key=team,Value=db Key=stage,Value=test",
        scene.volume
    ));
    home.text(&format!("ec2 create-tags --resources {} --tags Key=stage,Value=live", scene.volume));
    let tags = |filters: &str| -> Vec<String> {
        let found = home.json(&format!("ec2 describe-tags {filters}"))["Tags"].clone();
        let line = |tag: &Value| format!("{} {}={}", tag["ResourceType"], tag["Key"], tag["Value"]).replace('"', "");
        found.as_array().unwrap().iter().map(line).collect()
    };
    let all = ["instance stage=test", "instance team=db", "volume stage=live", "volume team=db"];
    assert_eq!(tags(""), all);
    assert_eq!(tags("--filters Name=resource-type,Values=volume Name=key,Values=st*"), ["volume stage=live"]);
    assert_eq!(tags("--filters Name=tag:stage,Values=test"), ["instance stage=test"]);
    home.text(&format!("ec2 delete-tags --resources {} --tags Key=stage,Value=test Key=none", scene.volume));
    assert_eq!(tags(""), all, "another value");
    home.text(&format!("ec2 delete-tags --resources {} --tags Key=stage", scene.volume));
    assert_eq!(tags("--filters Name=resource-id,Values=vol-*"), ["volume team=db"]);
    for (line, code) in [
        (format!("create-tags --resources {} --tags Key=aws:x,Value=y", scene.volume), "InvalidParameterValue"),
        ("create-tags --resources vol-00000000000000000 --tags Key=a,Value=b".to_owned(), "InvalidVolume.NotFound"),
        ("create-tags --resources snap-1 --tags Key=a,Value=b".to_owned(), "InvalidID"),
    ] {
        let said = home.refused(254, &format!("ec2 {line}").split(' ').collect::<Vec<_>>());
        assert!(said.contains(&format!("({code})")), "{line}: {said}");
    }
    assert_eq!(tags("--filters Name=key,Values=a"), [""; 0]);
}

/// Who follows the events hears of each as it comes, also from another process.
#[test]
fn events_are_followed_as_they_come() {
    let scene = Scene::new();
    let follow = ["events", "tail", "--follow", "--lines", "1", "--volume-id", &scene.volume];
    let mut follower = scene.home.command(follow).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let mut next = || {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        event["detail"]["result"].clone()
    };
    assert_eq!(next(), "available", "what was there; it follows from here on");
    scene.modify("--size 2");
    scene.home.json("ec2 create-volume --size 1");
    scene.home.json(&format!("ec2 delete-volume --volume-id {}", scene.volume));
    let heard = [next(), next()];
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert_eq!(heard, ["optimizing", "deleted"]);
}
