//! A home from a file: what it holds then, that the same file changes nothing, and what is wrong with a file.

use std::fs;

use base64::Engine as _;
use blockseal::iam_service::credentials;
use serde_json::{Value, json};

use crate::harness::Home;

const KEY: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
const SEALED: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// 32 bytes that are found if they are anywhere.
const MATERIAL: &[u8; 32] = b"material that everybody may know";

fn file() -> Value {
    let allow = |action: &str| json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}});
    let trust = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::123456789012:user/ops/alice"}, "Action": "sts:AssumeRole"}});
    json!({
        "AccessKeys": [{"AccessKeyId": "test", "SecretAccessKey": "test"}],
        "Users": [{"UserName": "alice", "Path": "/ops/", "Tags": [{"Key": "Team", "Value": "blue"}],
            "Policies": {"use": allow("kms:*")},
            "AccessKeys": [{"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": SECRET}]}],
        "Roles": [{"RoleName": "App", "AssumeRolePolicyDocument": trust, "Policies": {"use": allow("kms:Encrypt")}}],
        "Keys": [
            {"KeyId": KEY, "Description": "orders", "Aliases": ["alias/orders"], "Tags": [{"TagKey": "a", "TagValue": "b"}]},
            {"KeyId": SEALED, "Material": base64::engine::general_purpose::STANDARD.encode(MATERIAL), "Enabled": false},
        ],
        "Volumes": [{"VolumeId": "vol-0123456789abcdef0", "Size": 1, "Encrypted": true, "KmsKeyId": "alias/orders"}],
    })
}

fn write(home: &Home, file: &Value) -> String {
    let path = home.scratch().join("home.json");
    fs::write(&path, file.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn load(home: &Home, file: &Value) -> Value {
    home.json_of(&["init", &write(home, file)])
}

fn refused(home: &Home, file: &Value) -> String {
    home.refused(254, &["init", &write(home, file)])
}

fn records(home: &Home) -> Vec<String> {
    let all = ["us-east-1"].iter().flat_map(|region| {
        let found = home.json(&format!("cloudtrail lookup-events --region {region}"));
        found["Events"].as_array().unwrap().clone()
    });
    let names = all.map(|event| event["EventName"].as_str().unwrap().to_owned());
    names.filter(|name| name != "LookupEvents").collect()
}

#[test]
fn a_home_has_what_its_file_says_and_the_same_file_changes_nothing() {
    let home = Home::new();
    let report = load(&home, &file());
    let made = report["Made"].as_array().unwrap();
    assert_eq!((made.len(), &report["Kept"]), (10, &json!(0)), "{report}");
    let key = home.json("kms describe-key --key-id alias/orders")["KeyMetadata"].clone();
    assert_eq!(
        (&key["KeyId"], &key["Description"], &key["Origin"]),
        (&json!(KEY), &json!("orders"), &json!("AWS_KMS"))
    );
    let sealed = home.json(&format!("kms describe-key --key-id {SEALED}"))["KeyMetadata"].clone();
    assert_eq!((&sealed["Origin"], &sealed["KeyState"]), (&json!("EXTERNAL"), &json!("Disabled")));
    home.json(&format!("kms enable-key --key-id {SEALED}"));
    home.json(&format!("kms encrypt --key-id {SEALED} --plaintext eA=="));
    let alice = home.json("iam get-user --user-name alice")["User"].clone();
    assert_eq!((&alice["Path"], &alice["Tags"][0]["Value"]), (&json!("/ops/"), &json!("blue")));
    let assume = "sts assume-role --role-arn arn:aws:iam::123456789012:role/App --role-session-name s1";
    home.json(&format!("{assume} --principal arn:aws:iam::123456789012:user/ops/alice"));
    assert_eq!(home.json("ec2 describe-volumes")["Volumes"][0]["VolumeId"], "vol-0123456789abcdef0");

    let before = records(&home);
    assert_eq!(load(&home, &file()), json!({"Made": [], "Kept": 10}));
    assert_eq!(records(&home), before, "nothing was done that the trail would have");

    // The credentials are good, and neither they nor the material lie in the open.
    let store = blockseal::store::Home::open(&home.path()).unwrap();
    for (id, secret, arn) in [
        ("AKIAIOSFODNN7EXAMPLE", SECRET, "arn:aws:iam::123456789012:user/ops/alice"),
        ("test", "test", "arn:aws:iam::123456789012:root"),
    ] {
        let found = credentials::find(&store, id, None).unwrap();
        assert_eq!((found.secret.expose(), found.principal.arn().as_str()), (secret.as_bytes(), arn));
    }
    let disk: Vec<u8> = ["state.db", "state.db-wal"]
        .iter()
        .flat_map(|name| fs::read(home.path().join(name)).unwrap_or_default())
        .collect();
    for secret in [SECRET.as_bytes(), MATERIAL] {
        assert!(!disk.windows(secret.len()).any(|part| part == secret));
    }
    assert!(disk.windows(20).any(|part| part == b"AKIAIOSFODNN7EXAMPLE"), "the hunt sees what is there");
}

#[test]
fn policies_and_aliases_become_what_the_file_says_and_the_rest_is_left() {
    let home = Home::new();
    load(&home, &file());
    let mut changed = file();
    changed["Users"][0]["Policies"]["use"]["Statement"]["Action"] = json!("kms:Decrypt");
    changed["Users"][0]["Path"] = json!("/other/");
    changed["Roles"][0]["AssumeRolePolicyDocument"]["Statement"]["Principal"] = json!({"AWS": "123456789012"});
    changed["Keys"][0]["Description"] = json!("other");
    changed["Keys"][0]["Aliases"] = json!([]);
    changed["Keys"][1]["Aliases"] = json!(["alias/orders"]);
    changed["Keys"][0]["Policy"] = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow",
        "Principal": {"AWS": "123456789012"}, "Action": "kms:*", "Resource": "*"}});
    let report = load(&home, &changed);
    assert_eq!(
        report["Made"],
        json!([
            "arn:aws:iam::123456789012:user/ops/alice use",
            "arn:aws:iam::123456789012:role/App",
            format!("{KEY} policy"),
            "alias/orders",
        ])
    );
    assert_eq!(load(&home, &changed)["Made"], json!([]));
    let key = home.json("kms describe-key --key-id alias/orders")["KeyMetadata"]["KeyId"].clone();
    assert_eq!(key, SEALED);
    assert_eq!(home.json(&format!("kms describe-key --key-id {KEY}"))["KeyMetadata"]["Description"], "orders");
}

#[test]
fn what_is_wrong_with_a_file_is_said_by_its_place() {
    let home = Home::new();
    load(&home, &file());
    let other = |place: &str, value: Value| {
        let mut file = file();
        *file.pointer_mut(place).unwrap() = value;
        file
    };
    let material = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    for (file, words) in [
        (json!({"Surely": 1}), "(ValidationException)"),
        (json!({"Keys": [{"KeyId": "mine"}]}), "Keys[0]: Invalid keyId 'mine'"),
        (
            json!({"Keys": [{"KeyId": SEALED, "Material": material}]}),
            "Keys[0]: The key '0f0e0d0c-0b0a-4908-8706-050403020100' has other material.",
        ),
        (
            json!({"Keys": [{"KeyId": "8f0c2f3e-0000-4000-8000-000000000000", "Material": "eA=="}]}),
            "Keys[0]: The key material must have 256 bits",
        ),
        (json!({"Account": "210987654321", "Keys": [{"KeyId": KEY}]}), "another account's"),
        (
            json!({"Region": "eu-west-1", "Volumes": [{"VolumeId": "vol-0123456789abcdef0", "Size": 1}]}),
            "Volumes[0]: The volume",
        ),
        (json!({"Volumes": [{"Size": 1}]}), "Volumes[0]: A volume has a VolumeId."),
        (
            json!({"Volumes": [{"VolumeId": "vol-00000001", "Size": 1, "Encrypted": true, "KmsKeyId": SEALED}]}),
            "Volumes[0]: The volume 'vol-00000001' does not exist.",
        ),
        (json!({"Users": [{"UserName": "a b"}]}), "Users[0]: "),
        (
            json!({"AccessKeys": [{"AccessKeyId": "123456789012", "SecretAccessKey": "x"}]}),
            "AccessKeys[0]: '123456789012' is no access key id",
        ),
        (
            json!({"AccessKeys": [{"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": SECRET}]}),
            "(EntityAlreadyExists)",
        ),
        (other("/Users/0/AccessKeys/0/SecretAccessKey", json!("another")), "(EntityAlreadyExists)"),
    ] {
        let said = refused(&home, &file);
        assert!(said.contains(words), "{words}: {said}");
        assert!(!said.contains(SECRET) && !said.contains(&material), "{said}");
    }
    home.refused(252, &["init"]);
    home.refused(252, &["init", "/nowhere/home.json"]);
    // What came before the error stays, and the rest comes when it is right.
    let mut twice = json!({"Keys": [{"KeyId": "8f0c2f3e-0000-4000-8000-000000000000"}, {"KeyId": "mine"}]});
    refused(&home, &twice);
    twice["Keys"][1]["KeyId"] = json!("8f0c2f3e-0000-4000-8000-000000000001");
    assert_eq!(load(&home, &twice), json!({"Made": ["8f0c2f3e-0000-4000-8000-000000000001"], "Kept": 1}));
}
