//! What the server has beside AWS: ids that are the same every time, explanations, and counters.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::server::{Answer, Key, ROOT, Request, Server, element};
use crate::harness::{Home, both, program, succeed, tool};

fn ec2(server: &Server, form: &str) -> Answer {
    server.send(&server.query(&format!("{form}&Version=2016-11-15")).sign("ec2", &ROOT))
}

/// What a run with this seed makes: first what must be the same every time, then what must never be.
fn made(seed: &str) -> (Vec<String>, Vec<String>) {
    let home = Home::new();
    let server = Server::start(&home, &["--ephemeral", "--enable-reset", "--seed", seed]);
    let first = all_of(&home, &server);
    assert_eq!(server.send(&server.request("POST", "/_blockseal/reset", "")).status, 200);
    let again = all_of(&home, &server);
    assert_eq!(first.0, again.0, "a reset begins anew");
    for (first, again) in first.1.iter().zip(&again.1) {
        assert_ne!(first, again);
    }
    first
}

fn all_of(home: &Home, server: &Server) -> (Vec<String>, Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let answer = server.send(&server.json("TrentService.CreateKey", &json!({})).sign("kms", &ROOT));
    let key = text(&answer.json()["KeyMetadata"]["KeyId"]);
    let data_key = server.kms("GenerateDataKey", &json!({"KeyId": key, "KeySpec": "AES_256"}));
    let material = text(&data_key["KeyMaterialId"]);
    let sealed = server.kms("Encrypt", &json!({"KeyId": key, "Plaintext": "eA=="}));
    let grant = json!({"KeyId": key, "GranteePrincipal": "arn:aws:iam::123456789012:root", "Operations": ["Decrypt"]});
    let grant = server.kms("CreateGrant", &grant);
    let iam = |form: &str| server.send(&server.query(&format!("{form}&Version=2010-05-08")).sign("iam", &ROOT)).text();
    iam("Action=CreateUser&UserName=alice");
    let access_key = iam("Action=CreateAccessKey&UserName=alice");
    let volume = format!("Action=CreateVolume&Size=1&AvailabilityZone=us-east-1a&Encrypted=true&KmsKeyId={key}");
    let volume = element(&ec2(server, &volume).text(), "volumeId");
    let instance = ec2(server, "Action=RunInstances&ImageId=ami-12345678&MinCount=1&MaxCount=1").text();
    let trail = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents";
    let events = server.send(&server.json(trail, &json!({})).sign("cloudtrail", &ROOT)).json();
    let mut same = vec![
        key,
        material,
        answer.header("x-amzn-requestid").unwrap().to_owned(),
        text(&grant["GrantId"]),
        element(&access_key, "AccessKeyId"),
        volume.clone(),
        element(&instance, "instanceId"),
        element(&instance, "reservationId"),
    ];
    // An event's id begins with its time.
    same.extend(events["Events"].as_array().unwrap().iter().map(|event| text(&event["EventId"])[19..].to_owned()));
    assert!(same.len() > 14, "{same:?}");

    let (uuid, salt) = header(home, &volume);
    same.push(uuid);
    let random = server.kms("GenerateRandom", &json!({"NumberOfBytes": 32}));
    let drawn = vec![
        text(&data_key["Plaintext"]),
        text(&data_key["CiphertextBlob"]),
        text(&sealed["CiphertextBlob"]),
        text(&grant["GrantToken"]),
        text(&random["Plaintext"]),
        element(&access_key, "SecretAccessKey"),
        salt,
    ];
    (same, drawn)
}

/// UUID and salt in the header of a volume's file: at bytes 168 and 104 of LUKS2's binary header.
fn header(home: &Home, volume: &str) -> (String, String) {
    let folders = std::fs::read_dir(home.scratch()).unwrap().flatten().map(|entry| entry.path());
    let files: Vec<PathBuf> =
        folders.map(|folder| folder.join(format!("home/volumes/{volume}.luks"))).filter(|path| path.exists()).collect();
    let file = std::fs::File::open(&files[0]).unwrap();
    let (mut uuid, mut salt) = ([0; 36], [0; 64]);
    file.read_exact_at(&mut uuid, 168).unwrap();
    file.read_exact_at(&mut salt, 104).unwrap();
    (String::from_utf8(uuid.to_vec()).unwrap(), hex::encode(salt))
}

/// Whoever knows the seed of a server knows the names of its keys, and not one key.
#[test]
fn a_seed_fixes_ids_and_nothing_that_is_secret() {
    let (one, two, other) = (made("7"), made("7"), made("-8"));
    assert_eq!(one.0, two.0);
    for ((one, two), other) in one.0.iter().zip(&two.0).zip(&other.0) {
        assert!(one == two && one != other, "{one} {two} {other}");
    }
    for (one, two) in one.1.iter().zip(&two.1) {
        assert_ne!(one, two);
    }
}

/// The key of one server does not open what the key of the same id of another closed.
#[test]
fn the_same_id_is_not_the_same_key() {
    let homes = [Home::new(), Home::new()];
    let servers = homes.each_ref().map(|home| Server::start(home, &["--ephemeral", "--seed", "7"]));
    let keys = servers.each_ref().map(|server| server.kms("CreateKey", &json!({}))["KeyMetadata"]["KeyId"].clone());
    assert_eq!(keys[0], keys[1]);
    let sealed = servers[0].kms("Encrypt", &json!({"KeyId": keys[0], "Plaintext": "eA=="}));
    let blob = json!({"CiphertextBlob": sealed["CiphertextBlob"]});
    let decrypt = servers[1].json("TrentService.Decrypt", &blob).sign("kms", &ROOT);
    assert_eq!(servers[1].send(&decrypt).code(), "InvalidCiphertextException");
    assert_eq!(servers[0].kms("Decrypt", &blob)["Plaintext"], "eA==");
}

#[test]
fn a_home_that_stays_has_no_seed() {
    let home = Home::new();
    let said = home.refused(252, &["serve", "--listen", "127.0.0.1:0", "--seed", "7"]);
    assert!(said.contains("--ephemeral"), "{said}");
}

fn asked(server: &Server, body: &Value, key: &Key<'_>) -> Request {
    server.request("POST", "/_blockseal/explain", body.to_string()).sign("kms", key)
}

#[test]
fn an_explanation_over_http_is_the_command_lines() {
    let home = Home::new();
    let key = home.json("kms create-key")["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    let volume = home.json(&format!("ec2 create-volume --size 1 --encrypted --kms-key-id {key}"))["VolumeId"].clone();
    let volume = volume.as_str().unwrap().to_owned();
    let server = Server::start(&home, &[]);
    let explain = |body: &Value| server.send(&asked(&server, body, &ROOT)).json();
    let attach = json!({"Service": "ec2", "Operation": "AttachVolume", "Parameters": {"VolumeId": volume}});
    assert_eq!(explain(&attach)["verdict"], "allowed");
    home.text(&format!("kms disable-key --key-id {key}"));
    let mut refused = explain(&attach);
    assert_eq!(
        (&refused["verdict"], &refused["caller_sees"]["error"]),
        (&json!("refused"), &json!("CustomerKeyHasBeenRevoked"))
    );
    let line = ["--output", "json", "explain", "ec2", "attach-volume", "--volume-id", &volume];
    let output = home.run(line);
    let mut told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", both(&output)));
    // The records of the two differ in their ids, times and agents.
    for explanation in [&mut refused, &mut told] {
        for call in explanation["calls"].as_array_mut().unwrap() {
            call["records"].take();
        }
    }
    assert_eq!(refused, told);
    assert_eq!(home.json("ec2 describe-volumes")["Volumes"][0]["State"], "available", "nothing was done");
    // A policy to try: nobody but alice.
    home.text(&format!("kms enable-key --key-id {key}"));
    let policy = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:user/alice"}, "Action": "kms:*", "Resource": "*"}});
    for policy in [policy.clone(), json!(policy.to_string())] {
        let tried =
            json!({"Service": "kms", "Operation": "DescribeKey", "Parameters": {"KeyId": key}, "Policy": policy});
        assert_eq!(explain(&tried)["verdict"], "refused", "{tried}");
    }
    // No secret comes out of a dry run, and no record comes of it.
    let data_key =
        json!({"Service": "kms", "Operation": "GenerateDataKey", "Parameters": {"KeyId": key, "KeySpec": "AES_256"}});
    let shown = explain(&data_key);
    assert_eq!(shown["verdict"], "allowed");
    assert!(!shown.to_string().contains("Plaintext\":\""), "{shown}");
    let filter = "AttributeKey=EventName,AttributeValue=GenerateDataKey";
    assert_eq!(home.json(&format!("cloudtrail lookup-events --lookup-attributes {filter}"))["Events"], json!([]));
}

#[test]
fn who_may_not_call_may_not_ask_either() {
    let home = Home::new();
    home.json("iam create-user --user-name alice");
    let made = home.json("iam create-access-key --user-name alice");
    let text = |name: &str| made["AccessKey"][name].as_str().unwrap();
    let alice = Key { id: text("AccessKeyId"), secret: text("SecretAccessKey"), token: None };
    let server = Server::start(&home, &["--auth", "strict"]);
    let question = json!({"Service": "kms", "Operation": "ListKeys"});
    let explained = server.send(&asked(&server, &question, &alice)).json();
    assert_eq!(explained["verdict"], "refused");
    assert_eq!(explained["principal"], "arn:aws:iam::123456789012:user/alice");
    let code = |request: &Request| server.send(request).code();
    let bare = server.request("POST", "/_blockseal/explain", question.to_string());
    assert_eq!(code(&bare), "MissingAuthenticationTokenException");
    assert_eq!(code(&asked(&server, &question, &ROOT)), "UnrecognizedClientException");
    assert_eq!(code(&asked(&server, &question, &Key { secret: "wrong", ..alice })), "InvalidSignatureException");
    let alice = Key { id: text("AccessKeyId"), secret: text("SecretAccessKey"), token: None };
    let page = asked(&server, &question, &alice).header("Origin", "http://evil.example");
    assert_eq!(server.send(&page).status, 403);
    let foreign = asked(&server, &question, &alice).without("Host").header("Host", "evil.example");
    assert_eq!(server.send(&foreign).status, 403);
    let get = server.request("GET", "/_blockseal/explain", "").sign("kms", &alice);
    assert_eq!(server.send(&get).status, 405);
    for (body, code) in [
        (json!({"Service": "rds", "Operation": "CreateDBInstance"}), "UnsupportedOperation"),
        (json!({"Service": "ec2", "Operation": "CopyImage"}), "UnsupportedOperation"),
        (json!({"Service": "kms", "Operation": "Fly"}), "UnknownOperationException"),
        (json!({"Service": "kms"}), "SerializationException"),
        (json!({"Service": "kms", "Operation": "ListKeys", "Surely": 1}), "SerializationException"),
        (json!({"Service": "kms", "Operation": "ListKeys", "Policy": "{}"}), "ValidationException"),
        (json!([]), "SerializationException"),
    ] {
        let answer = server.send(&asked(&server, &body, &alice));
        assert_eq!(answer.code(), code, "{body}: {}", answer.text());
    }
}

/// The value of a counter.
fn counter(server: &Server, line: &str) -> Option<u64> {
    let text = server.send(&server.request("GET", "/metrics", "")).text();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
    assert!(text.contains("# TYPE blockseal_kms_uses_total counter"), "{text}");
    found
}

#[test]
fn counters_tell_the_bytes_of_volumes_and_the_uses_of_keys() {
    let home = Home::new();
    home.json("kms create-key");
    let server = Server::start(&home, &["--enable-reset"]);
    let uses = |operation: &str, via: &str, code: &str| {
        let labels = format!("operation=\"{operation}\",via=\"{via}\",code=\"{code}\"");
        counter(&server, &format!("blockseal_kms_uses_total{{{labels}}}")).unwrap_or_default()
    };
    assert_eq!(uses("CreateKey", "direct", "ok"), 0, "what was there before is not counted");
    let key = server.kms("CreateKey", &json!({}))["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        server.kms("Encrypt", &json!({"KeyId": key, "Plaintext": "eA=="}));
    }
    server.send(&server.json("TrentService.DescribeKey", &json!({"KeyId": "alias/none"})).sign("kms", &ROOT));
    // Another process's use of the home is one too.
    home.json(&format!("kms describe-key --key-id {key}"));
    let volume = format!("Action=CreateVolume&Size=1&AvailabilityZone=us-east-1a&Encrypted=true&KmsKeyId={key}");
    let volume = element(&ec2(&server, &volume).text(), "volumeId");
    assert_eq!(ec2(&server, &format!("Action=AttachVolume&VolumeId={volume}")).status, 200);
    assert_eq!(uses("CreateKey", "direct", "ok"), 1);
    assert_eq!(uses("Encrypt", "direct", "ok"), 3);
    assert_eq!(uses("DescribeKey", "direct", "NotFoundException"), 1);
    assert_eq!(uses("DescribeKey", "direct", "ok"), 1);
    assert_eq!(uses("GenerateDataKeyWithoutPlaintext", "ec2-frontend-api.amazonaws.com", "ok"), 1);
    assert_eq!(uses("CreateGrant", "ec2-frontend-api.amazonaws.com", "ok"), 1);
    assert_eq!(uses("Decrypt", "AWS Internal", "ok"), 1);

    let bytes = |what: &str| counter(&server, &format!("blockseal_volume_{what}_bytes_total{{volume=\"{volume}\"}}"));
    assert_eq!(bytes("written"), Some(0));
    let uri = format!("nbd+unix:///{volume}?socket={}", home.path().join(format!("run/{volume}.sock")).display());
    let file = home.scratch().join("data");
    std::fs::write(&file, vec![7; 1 << 20]).unwrap();
    succeed(tool("qemu-io").args(["-f", "raw", "-c", "write -P 7 0 64k", "-c", "read 0 32k", &uri]));
    assert_eq!(bytes("written"), Some(64 << 10));
    assert!(bytes("read").is_some_and(|read| read >= 32 << 10), "qemu-io may look at more");
    ec2(&server, &format!("Action=DetachVolume&VolumeId={volume}"));
    assert_eq!(bytes("written"), None);

    assert_eq!(server.send(&server.request("POST", "/_blockseal/reset", "")).status, 200);
    server.kms("CreateKey", &json!({}));
    assert_eq!(uses("CreateKey", "direct", "ok"), 2, "counters do not go back, and the new home's records are counted");
}

/// A client that does not say how many instances it wants, or of which volume it speaks, hears what it left out.
#[test]
fn what_ec2_must_be_told_and_is_not_is_named_and_recorded() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    for (form, missing) in [
        ("Action=RunInstances&ImageId=ami-12345678", "MinCount"),
        ("Action=RunInstances&ImageId=ami-12345678&MinCount=1", "MaxCount"),
        ("Action=RunInstances&ImageId=ami-12345678&MaxCount=1", "MinCount"),
        ("Action=AttachVolume", "VolumeId"),
        ("Action=TerminateInstances", "InstanceId"),
        ("Action=DescribeVolumes&Filter.1.Name=size", "Filter.1.Value"),
    ] {
        let answer = ec2(&server, form);
        assert_eq!((answer.status, answer.code().as_str()), (400, "MissingParameter"), "{form}");
        assert_eq!(answer.message(), format!("The request must contain the parameter {missing}"));
        let operation = form.split(['=', '&']).nth(1).unwrap();
        let filter = format!("AttributeKey=EventName,AttributeValue={operation}");
        let found = home.json(&format!("cloudtrail lookup-events --lookup-attributes {filter}"));
        let record: Value = serde_json::from_str(found["Events"][0]["CloudTrailEvent"].as_str().unwrap()).unwrap();
        assert_eq!(record["errorCode"], "Client.MissingParameter");
    }
    // The command line sends one, as the AWS CLI does.
    let mut command = Command::new(program());
    command.args(["--home"]).arg(home.path()).args(["ec2", "run-instances", "--image-id", "ami-12345678"]);
    succeed(&mut command);
}
