//! `explain`: what it says is what happens, and it changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use blockseal::ec2::outcomes::{KmsAnswer, Seen, UserOf, seen};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::harness::{Home, both, root};

/// The rows of each table.
type Tables = BTreeMap<String, Vec<Vec<Cell>>>;

/// Everything in a home: every row of every table, and every other file with its length.
fn contents(home: &Home) -> (Tables, Vec<(String, u64)>) {
    let state = home.path().join("state.db");
    let connection = Connection::open_with_flags(&state, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    let mut statement = connection.prepare(names).unwrap();
    let tables: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let rows = |table: &String| {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap();
        rows.collect::<Result<Vec<Vec<Cell>>, _>>().unwrap()
    };
    let tables = tables.iter().map(|table| (table.clone(), rows(table))).collect();
    let mut files = Vec::new();
    list(&home.path(), &mut files);
    files.retain(|(path, _)| !path.contains("/state.db"));
    files.sort();
    (tables, files)
}

fn list(folder: &Path, files: &mut Vec<(String, u64)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), files);
        }
        files.push((entry.path().display().to_string(), entry.metadata().unwrap().len()));
    }
}

/// The trail's records behind the first `after`.
fn records(home: &Home, after: usize) -> Vec<Value> {
    let (tables, _) = contents(home);
    let record = |row: &Vec<Cell>| match &row[3] {
        Cell::Text(text) => serde_json::from_str(text).unwrap(),
        other => panic!("{other:?}"),
    };
    tables["trail_records"].iter().skip(after).map(record).collect()
}

/// What of a record does not differ from one run to the next.
fn lasting(record: &Value) -> String {
    let mut parameters = record["requestParameters"].clone();
    // Made anew by every call, as is the volume's id where a volume is made.
    if let Some(parameters) = parameters.as_object_mut() {
        parameters.remove("name");
        if record["eventName"] == "GenerateDataKeyWithoutPlaintext" {
            parameters.remove("encryptionContext");
        }
    }
    let mut identity = record["userIdentity"].clone();
    if identity["sessionContext"].is_object() {
        identity["sessionContext"]["attributes"] = Value::Null;
    }
    let parts = ["eventSource", "eventName", "errorCode", "recipientAccountId", "sourceIPAddress", "resources"];
    let parts: Vec<_> = parts.iter().map(|name| record[*name].to_string()).collect();
    format!("{} {identity} {parameters}", parts.join(" "))
}

fn explain(home: &Home, command: &[&str]) -> (Value, i32) {
    let output = home.run([&["explain", "--output", "json"], command].concat());
    let explained = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", both(&output)));
    (explained, output.status.code().unwrap())
}

/// Explains a command, then runs it: the explanation must have changed nothing, and what happens must be what it said, down
/// to the records. Answers the explanation and what was printed.
#[track_caller]
fn agree(home: &Home, command: &[&str]) -> (Value, Output) {
    let before = contents(home);
    let (explained, code) = explain(home, command);
    assert!(contents(home) == before, "explaining {command:?} changed the home");
    let ran = home.run(command);
    let said = format!("{command:?}: {explained:#}\n{}", both(&ran));
    let error = explained["caller_sees"]["error"].as_str();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    match (explained["verdict"].as_str().unwrap(), code) {
        ("allowed", 0) if command.contains(&"--dry-run") => assert!(stderr.contains("(DryRunOperation"), "{said}"),
        ("allowed", 0) => assert!(ran.status.success(), "{said}"),
        ("refused", 1) if command[1] == "create-volume" && error == Some("InvalidVolume.NotFound") => {
            let made: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{said}"));
            let volume = made["VolumeId"].as_str().unwrap();
            let gone = home.refused(254, &["ec2", "describe-volumes", "--volume-ids", volume]);
            assert!(gone.contains("InvalidVolume.NotFound"), "{said}");
        }
        ("refused", 1) => {
            let (code, message) = (error.unwrap(), explained["caller_sees"]["says"].as_str().unwrap());
            assert_eq!(ran.status.code(), Some(254), "{said}");
            assert!(stderr.contains(&format!("({code})")), "{said}");
            let message = message.strip_prefix(code).unwrap().trim_start_matches(": ");
            assert!(stderr.contains(message), "{said}");
        }
        ("undetermined", 3) => assert!(stderr.contains("(UndeterminedException)"), "{said}"),
        other => panic!("{other:?}: {said}"),
    }
    assert!(contents(home) != before, "{command:?} left no record, so that a comparison would see nothing");
    if explained["verdict"] != "undetermined" {
        let calls = explained["calls"].as_array().unwrap();
        let mut foretold: Vec<_> =
            calls.iter().flat_map(|call| call["records"].as_array().unwrap()).map(lasting).collect();
        let left = records(home, before.0["trail_records"].len());
        // The look for the volume that vanished has a record of its own.
        let mut left: Vec<_> =
            left.iter().filter(|record| record["eventName"] != "DescribeVolumes").map(lasting).collect();
        foretold.sort();
        left.sort();
        assert_eq!(foretold, left, "{said}");
    }
    (explained, ran)
}

fn arn(user: &str) -> String {
    format!("arn:aws:iam::123456789012:user/{user}")
}

/// A user with one policy of statements.
fn user(home: &Home, name: &str, statements: &Value) {
    home.json(&format!("iam create-user --user-name {name}"));
    let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let put = ["iam", "put-user-policy", "--user-name", name, "--policy-name", "p", "--policy-document", &policy];
    home.json_of(&put);
}

fn key(home: &Home, policy: Option<&Value>) -> String {
    let mut create = vec!["kms", "create-key"];
    let policy = policy.map(Value::to_string);
    create.extend(policy.iter().flat_map(|policy| ["--policy", policy]));
    home.json_of(&create)["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
}

fn volume(home: &Home, key: &str) -> String {
    let create = ["ec2", "create-volume", "--size", "1", "--encrypted", "--kms-key-id", key];
    home.json_of(&create)["VolumeId"].as_str().unwrap().to_owned()
}

fn attach(volume: &str) -> [&str; 4] {
    ["ec2", "attach-volume", "--volume-id", volume]
}

const ATTACH: [&str; 2] = ["ec2", "attach-volume"];
const DETACH: [&str; 2] = ["ec2", "detach-volume"];

const ROOT: &str = "arn:aws:iam::123456789012:root";

fn statement(effect: &str, action: &Value, more: &Value) -> Value {
    let mut statement = json!({"Effect": effect, "Action": action, "Resource": "*"});
    statement.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    statement
}

fn own_key_policy(more: Value) -> Value {
    let root = statement("Allow", &json!("kms:*"), &json!({"Principal": {"AWS": ROOT}}));
    json!({"Version": "2012-10-17", "Statement": [root, more]})
}

#[test]
fn what_is_explained_is_what_happens() {
    let home = Home::new();
    let ebs = json!(["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext"]);
    let ec2 = statement("Allow", &json!("ec2:*"), &json!({}));
    user(&home, "full", &json!([ec2, statement("Allow", &ebs, &json!({}))]));
    user(&home, "nogrant", &json!([ec2, statement("Allow", &json!(["kms:Decrypt", "kms:Generate*"]), &json!({}))]));
    user(&home, "nobody", &json!([statement("Deny", &json!("s3:*"), &json!({}))]));
    let plain = key(&home, None);
    let only_ec2 = json!({"StringNotEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}});
    let guarded = key(
        &home,
        Some(&own_key_policy(statement(
            "Deny",
            &json!(["kms:Encrypt", "kms:Decrypt"]),
            &json!({"Principal": "*", "Condition": only_ec2}),
        ))),
    );
    let new = json!({"StringEquals": {"kms:SomethingNew": "x"}});
    let unknown = key(
        &home,
        Some(&own_key_policy(statement("Deny", &json!("kms:Encrypt"), &json!({"Principal": "*", "Condition": new})))),
    );
    let (disabled, pending) = (key(&home, None), key(&home, None));
    let [on_plain, on_guarded, on_disabled] = [&plain, &guarded, &disabled].map(|key| volume(&home, key));
    home.json(&format!("kms disable-key --key-id {disabled}"));
    home.json(&format!("kms schedule-key-deletion --key-id {pending}"));
    home.json(&format!("kms create-alias --alias-name alias/app --target-key-id {plain}"));
    let bare = home.json("ec2 create-volume --size 1")["VolumeId"].as_str().unwrap().to_owned();
    // The home's one instance and its default key are made when they are first needed, each time under another id.
    home.json("ec2 create-volume --size 1 --encrypted");
    home.json_of(&attach(&bare));
    home.json(&format!("ec2 detach-volume --volume-id {bare}"));
    let (full, nogrant, nobody) = (arn("full"), arn("nogrant"), arn("nobody"));
    let verdict = |command: &[&str]| {
        let (explained, _) = agree(&home, command);
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        (word(&explained["verdict"]), word(&explained["decided_by"]), word(&explained["basis"]))
    };
    let is = |verdict: &str, by: &str, basis: &str| (verdict.to_owned(), by.to_owned(), basis.to_owned());

    // Attaching: policies, states, and everything that refuses before a key is asked for.
    let by = |command: [&'static str; 2], volume: &str, principal: &str| {
        verdict(&[command[0], command[1], "--volume-id", volume, "--principal", principal])
    };
    assert_eq!(by(ATTACH, &on_plain, &nobody), is("refused", "identity policy", "documented"));
    assert_eq!(by(ATTACH, &on_plain, &nogrant), is("refused", "identity policy", "recorded"));
    assert_eq!(by(ATTACH, &on_disabled, &full), is("refused", "key state", "documented"));
    assert_eq!(by(ATTACH, &on_plain, &full), is("allowed", "grant", "documented"));
    assert_eq!(by(ATTACH, &on_plain, &full), is("refused", "-", "documented"));
    assert_eq!(by(ATTACH, &on_guarded, ROOT).0, "allowed");
    // When EBS retires the grant is not documented.
    let detached = by(DETACH, &on_plain, &full);
    assert_eq!((&*detached.0, &*detached.2), ("allowed", "assumed"));
    assert_eq!(by(DETACH, &on_plain, &full).0, "refused");
    assert_eq!(by(ATTACH, &bare, &full).0, "allowed");
    assert_eq!(verdict(&["ec2", "delete-volume", "--volume-id", &bare]).0, "refused");
    assert_eq!(by(ATTACH, "vol-0123456789abcdef0", ROOT).0, "refused");
    assert_eq!(by(ATTACH, "no-volume", ROOT).0, "refused");

    // Making volumes: a key that cannot be used makes the volume vanish.
    let create = |options: &[&str]| verdict(&[&["ec2", "create-volume", "--size", "1"], options].concat());
    assert_eq!(create(&["--encrypted", "--kms-key-id", "alias/app", "--principal", &nogrant]).0, "allowed");
    assert_eq!(create(&["--encrypted", "--kms-key-id", &disabled]), is("refused", "key state", "documented"));
    assert_eq!(create(&["--encrypted", "--kms-key-id", &pending]).0, "refused");
    assert_eq!(create(&["--encrypted", "--principal", &nobody]).0, "refused");
    assert_eq!(create(&["--encrypted"]).0, "allowed");
    assert_eq!(create(&["--kms-key-id", &plain]).0, "refused");
    assert_eq!(create(&["--dry-run"]).0, "allowed");
    assert_eq!(create(&["--volume-type", "io1"]).0, "refused");

    // KMS itself.
    let encrypt = |key: &str, options: &[&str]| {
        verdict(&[&["kms", "encrypt", "--plaintext", "eA==", "--key-id", key], options].concat())
    };
    assert_eq!(encrypt(&plain, &[]), is("allowed", "key policy", "documented"));
    assert_eq!(encrypt(&plain, &["--dry-run"]).0, "allowed");
    assert_eq!(encrypt(&guarded, &[]), is("refused", "key policy", "documented"));
    assert_eq!(encrypt(&unknown, &[]), is("undetermined", "policy", "assumed"));
    assert_eq!(encrypt(&plain, &["--principal", &full]), is("refused", "identity policy", "documented"));
    let unrecorded = arn("unrecorded");
    assert_eq!(encrypt(&plain, &["--principal", &unrecorded]), is("allowed", "identity policy", "assumed"));
    assert_eq!(encrypt("alias/aws/ebs", &[]), is("refused", "key policy", "documented"));
    assert_eq!(encrypt("alias/none", &[]).0, "refused");
    assert_eq!(encrypt("arn:aws:kms:us-east-1:210987654321:key/none", &[]).0, "refused");
    let grant = ["kms", "create-grant", "--operations", "Encrypt", "--constraints", "EncryptionContextSubset={App=a}"];
    assert_eq!(verdict(&[&grant[..], &["--key-id", &plain, "--grantee-principal", &nobody]].concat()).0, "allowed");
    let as_nobody = ["--principal", &nobody];
    assert_eq!(
        encrypt(&plain, &[&as_nobody[..], &["--encryption-context", "App=a,Env=x"]].concat()),
        is("allowed", "grant", "documented")
    );
    assert_eq!(encrypt(&plain, &[&as_nobody[..], &["--encryption-context", "App=b"]].concat()).0, "refused");
    let blob = home.json_of(&["kms", "encrypt", "--plaintext", "eA==", "--key-id", &plain]);
    let blob = blob["CiphertextBlob"].as_str().unwrap();
    let decrypt = |options: &[&str]| verdict(&[&["kms", "decrypt", "--ciphertext-blob", blob], options].concat()).0;
    assert_eq!(decrypt(&[]), "allowed");
    assert_eq!(decrypt(&["--encryption-context", "a=b"]), "refused");
    assert_eq!(decrypt(&["--key-id", &guarded]), "refused");
    assert_eq!(decrypt(&["--principal", &nobody]), "refused");
    assert_eq!(verdict(&["kms", "enable-key", "--key-id", &pending]).0, "refused");
    assert_eq!(verdict(&["kms", "enable-key", "--key-id", &disabled]).0, "allowed");
    assert_eq!(by(ATTACH, &on_disabled, &full).0, "allowed");
    assert_eq!(verdict(&["kms", "list-keys", "--principal", &nobody]).0, "refused");
    // Another account, whose uses are in both trails and whose refusals are in its own.
    let (eve, partner) = ("arn:aws:iam::210987654321:root", json!({"Principal": {"AWS": "210987654321"}}));
    let shared = key(&home, Some(&own_key_policy(statement("Allow", &json!("kms:Encrypt"), &partner))));
    assert_eq!(encrypt(&shared, &["--principal", eve]).0, "allowed");
    assert_eq!(encrypt(&plain, &["--principal", eve]), is("refused", "key policy", "documented"));
    assert_eq!(verdict(&["iam", "list-users", "--principal", &nobody]).0, "refused");
    assert_eq!(verdict(&["cloudtrail", "lookup-events", "--max-items", "1"]).0, "allowed");
}

/// The result of an explained call is nobody's: neither a plaintext nor a blob that could be opened is shown or left.
#[test]
fn an_explanation_shows_no_plaintext() {
    let home = Home::new();
    let cmk = key(&home, None);
    let secret = "bWFya2VyIG9mIGEgcGxhaW50ZXh0IHRoYXQgaXMgdG9sZCBub2JvZHk=";
    let blob = home.json_of(&["kms", "encrypt", "--plaintext", secret, "--key-id", &cmk])["CiphertextBlob"].clone();
    let decrypt = ["kms", "decrypt", "--ciphertext-blob", blob.as_str().unwrap()];
    let shows = |command: &[&str]| both(&home.run(command)).contains(secret);
    for output in ["json", "text"] {
        assert!(!shows(&[&["explain", "--output", output], &decrypt[..]].concat()));
    }
    assert!(!shows(&["explain", "kms", "encrypt", "--plaintext", secret, "--key-id", &cmk]));
    assert!(shows(&decrypt), "the twin: the command itself shows it");
    let (made, _) = explain(&home, &["kms", "generate-data-key", "--key-id", &cmk, "--key-spec", "AES_256"]);
    assert_eq!(made["verdict"], "allowed");
    assert!(!made.to_string().contains("Plaintext") && !made.to_string().contains("CiphertextBlob"));
    assert_eq!(fs::read_dir(home.scratch()).unwrap().count(), 0);
}

/// Every operation on a key, by somebody who may nothing and by its owner: one that the owner is refused says so too.
#[test]
fn every_operation_on_a_key_does_what_its_explanation_says() {
    let home = Home::new();
    user(&home, "nobody", &json!([statement("Deny", &json!("s3:*"), &json!({}))]));
    let nobody = arn("nobody");
    let cmk = home.json("kms create-key --multi-region")["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    let other = key(&home, None);
    let empty = home.json("kms create-key --origin EXTERNAL")["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    let policy = own_key_policy(statement("Allow", &json!("kms:Sign"), &json!({"Principal": {"AWS": nobody}})));
    let grant = home.json(&format!("kms create-grant --key-id {cmk} --grantee-principal {ROOT} --operations Decrypt"));
    let grant = grant["GrantId"].as_str().unwrap();
    let blob = home.json(&format!("kms encrypt --plaintext eA== --key-id {cmk}"));
    let blob = blob["CiphertextBlob"].as_str().unwrap();
    let on = |operation: &str| format!("{operation} --key-id {cmk}");
    let commands = [
        on("describe-key"),
        on("get-key-policy"),
        on("list-key-policies"),
        on("list-grants"),
        on("list-resource-tags"),
        on("list-key-rotations"),
        on("get-key-last-usage"),
        format!("list-retirable-grants --retiring-principal {ROOT}"),
        on("list-aliases"),
        format!("create-alias --alias-name alias/one --target-key-id {cmk}"),
        format!("create-alias --alias-name alias/one --target-key-id {cmk}"),
        format!("update-alias --alias-name alias/one --target-key-id {other}"),
        "delete-alias --alias-name alias/one".to_owned(),
        on("tag-resource --tags TagKey=Team,TagValue=blue"),
        on("untag-resource --tag-keys Team"),
        on("update-key-description --description d"),
        on("enable-key-rotation --rotation-period-in-days 90"),
        on("get-key-rotation-status"),
        on("rotate-key-on-demand"),
        on("disable-key-rotation"),
        on("generate-data-key --number-of-bytes 64 --encryption-context a=b"),
        on("generate-data-key-without-plaintext --key-spec AES_256"),
        on("generate-data-key"),
        format!("re-encrypt --ciphertext-blob {blob} --destination-key-id {other}"),
        "generate-random --number-of-bytes 8".to_owned(),
        on("sign --message eA== --signing-algorithm RSASSA_PSS_SHA_256"),
        on("get-parameters-for-import --wrapping-algorithm RSAES_OAEP_SHA_256 --wrapping-key-spec RSA_2048"),
        format!("encrypt --plaintext eA== --key-id {empty}"),
        on(&format!("revoke-grant --grant-id {grant}")),
        on("replicate-key --replica-region eu-west-1"),
        on("update-primary-region --primary-region eu-west-1"),
        on("schedule-key-deletion --pending-window-in-days 7"),
        on("encrypt --plaintext eA=="),
        on("cancel-key-deletion"),
        on("disable-key"),
        on("generate-data-key --key-spec AES_256"),
        on("enable-key"),
    ];
    let mut verdicts = BTreeMap::new();
    for command in commands {
        let words: Vec<&str> = std::iter::once("kms").chain(command.split(' ')).collect();
        let (refused, _) = agree(&home, &[&words[..], &["--principal", &nobody]].concat());
        let (explained, _) = agree(&home, &words);
        assert_eq!(refused["verdict"], "refused", "{command} by nobody");
        *verdicts.entry(explained["verdict"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    let put = ["kms", "put-key-policy", "--key-id", &other, "--policy", &policy.to_string()];
    assert_eq!(agree(&home, &put).0["verdict"], "allowed");
    assert!(verdicts["allowed"] >= 25 && verdicts["refused"] >= 6 && verdicts.len() == 2, "{verdicts:?}");
}

/// One row of the table for each answer that KMS can be brought to give; the two columns that are built are held against
/// what really happens.
#[test]
fn what_services_make_of_every_answer_of_kms_is_what_the_table_says() {
    let home = Home::new();
    let deny = |action: &str| own_key_policy(statement("Deny", &json!(action), &json!({"Principal": "*"})));
    let use_of = |action| key(&home, Some(&deny(action)));
    let disabled = key(&home, None);
    let [pending, gone] = [key(&home, None), key(&home, None)];
    let plain = key(&home, None);
    let denied = use_of("kms:CreateGrant");
    let volumes: Vec<_> = [&denied, &disabled, &pending, &gone, &plain].iter().map(|key| volume(&home, key)).collect();
    home.json(&format!("kms disable-key --key-id {disabled}"));
    home.json(&format!("kms schedule-key-deletion --key-id {gone} --pending-window-in-days 7"));
    home.text("clock advance 8d");
    home.json(&format!("kms schedule-key-deletion --key-id {pending} --pending-window-in-days 7"));
    let never = use_of("kms:GenerateDataKeyWithoutPlaintext");
    let other = volume(&home, &plain);
    let file = |volume: &str| home.path().join("volumes").join(format!("{volume}.luks"));
    let swapped = volume(&home, &plain);
    fs::copy(file(&other), file(&swapped)).unwrap();

    // What KMS is brought to answer, by a key to make a volume under, and by a volume to attach.
    let cases = [
        (KmsAnswer::Denied, Some(never.as_str()), Some(volumes[0].as_str()), None),
        (KmsAnswer::Disabled, Some(&disabled), Some(&volumes[1]), None),
        (KmsAnswer::InvalidState, Some(&pending), Some(&volumes[2]), None),
        (KmsAnswer::NotFound, Some(&gone), Some(&volumes[3]), None),
        // No ciphertext comes with the request for a new data key.
        (KmsAnswer::InvalidCiphertext, None, Some(&swapped), None),
        (KmsAnswer::Throttled, Some(&plain), Some(&volumes[4]), Some("throttle:1")),
        (KmsAnswer::Other, Some(&plain), Some(&volumes[4]), Some("unavailable")),
    ];
    let mut walked = Vec::new();
    for (answer, key, volume, fault) in cases {
        for operation in ["kms.CreateGrant", "kms.GenerateDataKeyWithoutPlaintext"] {
            if let Some(fault) = fault {
                home.text(&format!("faults set {operation}={fault}"));
            }
        }
        if let Some(key) = key {
            let (table, _) = seen(answer, UserOf::CreateVolume);
            let create = ["ec2", "create-volume", "--size", "1", "--encrypted", "--kms-key-id", key];
            let made = home.json_of(&create)["VolumeId"].as_str().unwrap().to_owned();
            let described = home.refused(254, &["ec2", "describe-volumes", "--volume-ids", &made]);
            assert!(described.contains("InvalidVolume.NotFound") && table == Seen::VolumeVanishes, "{answer:?}");
        }
        if let Some(volume) = volume {
            let (Seen::Error(code, message), _) = seen(answer, UserOf::AttachVolume) else { panic!("{answer:?}") };
            let refused = home.refused(254, &attach(volume));
            let message = message.replace("{id}", volume);
            assert!(refused.contains(&format!("({code})")) && refused.contains(&message), "{answer:?}: {refused}");
        }
        home.text("faults clear");
        // The record of the KMS call says which answer it was.
        let last = records(&home, 0);
        let of_kms = |record: &&Value| record["eventSource"] == "kms.amazonaws.com" && record["errorCode"].is_string();
        let code = last.iter().rev().find(of_kms).unwrap()["errorCode"].as_str().unwrap();
        assert_eq!(KmsAnswer::of_code(code), answer, "{code}");
        walked.push(answer);
    }
    assert_eq!(walked, KmsAnswer::ALL);
}

/// What our own CLI prints of a home, read as the state of an account.
#[test]
fn what_the_command_line_prints_is_a_state_to_explain_in() {
    let home = Home::new();
    let cmk = key(&home, None);
    let made = volume(&home, &cmk);
    let id = cmk.rsplit('/').next().unwrap();
    let state = home.scratch().join("state");
    fs::create_dir(&state).unwrap();
    let save = |name: &str, command: &str| fs::write(state.join(name), home.text(command)).unwrap();
    let explained = |command: &[&str]| {
        let (explained, _) = explain(&home, &[&["--account-state", state.to_str().unwrap()], command].concat());
        (explained["verdict"].as_str().unwrap().to_owned(), explained["to_change"].to_string())
    };
    save("key.json", &format!("kms describe-key --key-id {cmk}"));
    // What is not told is not known: neither the policy, nor who has grants, nor whose user it is.
    let (verdict, unknown) = explained(&["kms", "encrypt", "--plaintext", "eA==", "--key-id", &cmk]);
    assert!(verdict == "undetermined" && unknown.contains("untold:key-policy"), "{verdict} {unknown}");
    save(&format!("policy-{id}.json"), &format!("kms get-key-policy --key-id {cmk} --policy-name default"));
    assert_eq!(explained(&["kms", "encrypt", "--plaintext", "eA==", "--key-id", &cmk]).0, "allowed");
    let alice = arn("alice");
    let as_alice = ["kms", "encrypt", "--plaintext", "eA==", "--key-id", &cmk, "--principal", &alice];
    let (verdict, unknown) = explained(&as_alice);
    assert!(verdict == "undetermined" && unknown.contains("identity policies"), "{verdict} {unknown}");
    let details = json!({"UserDetailList": [{"UserName": "alice", "Arn": alice, "Path": "/", "UserId": "AIDAX"}]});
    fs::write(state.join("details.json"), details.to_string()).unwrap();
    let (verdict, unknown) = explained(&as_alice);
    assert!(verdict == "undetermined" && unknown.contains("grants"), "{verdict} {unknown}");
    save(&format!("grants-{id}.json"), &format!("kms list-grants --key-id {cmk}"));
    assert_eq!(explained(&as_alice).0, "refused");
    assert_eq!(explained(&["kms", "encrypt", "--plaintext", "eA==", "--key-id", "alias/app"]).0, "undetermined");
    assert_eq!(explained(&attach(&made)).0, "undetermined");
    save("volumes.json", "ec2 describe-volumes");
    save("aliases.json", "kms list-aliases");
    assert_eq!(explained(&attach(&made)).0, "allowed");
    // A volume under a key that was not described, a key of another kind, the policy alone, a file of something else.
    let other = key(&home, None);
    let unknown = volume(&home, &other);
    save("volumes.json", "ec2 describe-volumes");
    let rsa = json!({"KeyMetadata": {"Arn": other, "KeyState": "Enabled", "KeySpec": "RSA_2048"}});
    fs::write(state.join("rsa.json"), rsa.to_string()).unwrap();
    fs::write(state.join("else.json"), "{\"Snapshots\": []}").unwrap();
    save(&format!("policy-{id}.json"), &format!("kms get-key-policy --key-id {cmk} --query Policy --output text"));
    assert_eq!(explained(&attach(&made)).0, "allowed");
    assert_eq!(explained(&attach(&unknown)).0, "undetermined");
    let output = home.run([&["explain", "--account-state", state.to_str().unwrap()], &attach(&made)[..]].concat());
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(["rsa.json", "else.json", &*unknown].iter().all(|what| notes.contains(what)), "{notes}");
    assert_eq!(notes.lines().count(), 3, "{notes}");
    // What is no state at all.
    for (name, text) in [("bad.json", "{"), ("grants-x.json", "{\"Grants\": [{\"KeyId\": \"x\"}]}")] {
        fs::write(state.join(name), text).unwrap();
        let refused = home.refused(253, &["explain", "--account-state", state.to_str().unwrap(), "kms", "list-keys"]);
        assert!(refused.contains(name), "{refused}");
        fs::remove_file(state.join(name)).unwrap();
    }
    home.refused(253, &["explain", "--account-state", "/nowhere", "kms", "list-keys"]);
}

/// A home that is not there is an empty one, and stays away.
#[test]
fn explaining_makes_no_home() {
    let home = Home::new();
    let (explained, code) = explain(&home, &["kms", "create-key"]);
    assert_eq!((explained["verdict"].as_str(), code), (Some("allowed"), 0));
    home.refused(253, &["explain", "--profile", "none", "kms", "create-key"]);
    assert!(!home.path().exists());
    assert_eq!(fs::read_dir(home.scratch()).unwrap().count(), 0, "nothing is left in the temporary folder");
}

/// A trail of ours, run again: nothing differs until the policy does.
#[test]
fn a_trail_is_run_again_under_another_policy() {
    let home = Home::new();
    let cmk = key(&home, None);
    let made = volume(&home, &cmk);
    home.json(&format!("kms create-alias --alias-name alias/app --target-key-id {cmk}"));
    home.json_of(&attach(&made));
    home.json(&format!("ec2 detach-volume --volume-id {made}"));
    home.json(&format!("kms encrypt --plaintext eA== --key-id {cmk} --encryption-context App=a"));
    home.refused(254, &["kms", "encrypt", "--plaintext", "eA==", "--key-id", "alias/none"]);
    home.text("trail deliver");
    let trail = home.path().join("trail");
    let trail = trail.to_str().unwrap();
    let before = contents(&home);
    let replay = |options: &[&str]| {
        let output = home.run([&["explain", "--output", "json", "--replay", trail], options].concat());
        let replayed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", both(&output)));
        (replayed, output.status.code().unwrap())
    };
    let (same, code) = replay(&[]);
    assert_eq!((same["changed"].as_array().map(Vec::len), code), (Some(0), 0), "{same:#}");
    assert!(same["replayed"].as_u64().unwrap() >= 5, "{same:#}");
    let only_b = json!({"StringNotEquals": {"kms:EncryptionContext:App": "b"}});
    let deny = statement("Deny", &json!(["kms:Encrypt"]), &json!({"Principal": "*", "Condition": only_b}));
    let (changed, code) = replay(&["--policy", &own_key_policy(deny).to_string()]);
    let changed = changed["changed"].as_array().unwrap();
    assert_eq!((changed.len(), code), (1, 1), "{changed:#?}");
    assert_eq!(
        [&changed[0]["operation"], &changed[0]["then"], &changed[0]["now"]],
        ["Encrypt", "succeeded", "AccessDeniedException"]
    );
    assert!(contents(&home) == before);
}

/// Records in the shapes that AWS writes, run in an account that was described: what changes is named, and what cannot be
/// run again is counted with its reason.
#[test]
fn a_trail_of_aws_is_run_again_in_a_described_account() {
    let home = Home::new();
    let folder = root().join("fixtures/explain");
    let replay = |state: &str| {
        let state = folder.join("states").join(state);
        let (state, trail) = (state.to_str().unwrap(), folder.join("trail"));
        let arguments = ["explain", "--output", "json", "--account-state", state, "--replay", trail.to_str().unwrap()];
        let output = home.run(arguments);
        let replayed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", both(&output)));
        let changed: Vec<_> = replayed["changed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| format!("{} {} {}", call["operation"], call["then"], call["now"]).replace('"', ""))
            .collect();
        (changed, replayed["replayed"].as_u64().unwrap(), replayed["not_replayed"].clone(), output.status.code())
    };
    let (changed, count, not_replayed, code) = replay("orders");
    assert_eq!((changed, count, code), (Vec::new(), 4, Some(0)));
    let left_out = [
        "Decrypt by a grant that was made before the trail begins, and is gone",
        "a session with MFA",
        "a call through a VPC endpoint",
        "RotateKey: done by KMS itself",
    ];
    assert_eq!(not_replayed, json!(left_out.map(|reason| (reason, 1))));
    let (changed, .., code) = replay("disabled");
    // The host has no grant where none could be made.
    let wanted = [
        ("GenerateDataKeyWithoutPlaintext", "DisabledException"),
        ("CreateGrant", "DisabledException"),
        ("Decrypt", "AccessDeniedException"),
    ];
    assert_eq!(changed, wanted.map(|(operation, now)| format!("{operation} succeeded {now}")));
    assert_eq!(code, Some(1));
    assert!(!home.path().exists());
}

/// What becomes of what a key wraps.
#[test]
fn the_impact_of_a_key_is_told_per_volume() {
    let home = Home::new();
    let cmk = key(&home, None);
    let [idle, busy] = [volume(&home, &cmk), volume(&home, &cmk)];
    volume(&home, &key(&home, None));
    home.json_of(&attach(&busy));
    let before = contents(&home);
    let impact = |options: &[&str]| {
        let answer = home.json_of(&[&["kms", "impact", "--key-id", &cmk], options].concat());
        let affected = answer["Affected"].as_array().unwrap().clone();
        let of = |id: &str| affected.iter().find(|item| item["Id"] == id).unwrap().clone();
        assert_eq!(affected.len(), 2);
        (of(&idle), of(&busy))
    };
    let (idle_now, busy_now) = impact(&[]);
    assert_eq!([&idle_now["Effect"], &busy_now["Effect"]], ["nothing changes"; 2]);
    let (idle_then, busy_then) = impact(&["--if", "disabled"]);
    assert_eq!(idle_then["Error"], "CustomerKeyHasBeenRevoked");
    assert!(busy_then["Effect"].as_str().unwrap().starts_with("runs on"), "{busy_then:#}");
    let (lost, lost_later) = impact(&["--if", "deleted"]);
    assert!(lost["LostAt"].is_string() && lost["LostAt"] == lost_later["LostAt"], "{lost:#}");
    assert!(idle_then["LostAt"].is_null());
    let deny = statement("Deny", &json!("kms:CreateGrant"), &json!({"Principal": "*"}));
    fs::write(home.scratch().join("policy.json"), own_key_policy(deny).to_string()).unwrap();
    let (refused, _) = impact(&["--if", "policy=file://policy.json"]);
    assert_eq!(refused["Error"], "CustomerKeyHasBeenRevoked");
    home.refused(252, &["kms", "impact", "--key-id", &cmk, "--if", "lost"]);
    assert!(contents(&home) == before);
    // What is said of a deletion comes true when the clock is moved past its date.
    let scheduled = home.json(&format!("kms schedule-key-deletion --key-id {cmk} --pending-window-in-days 7"));
    let (lost, _) = impact(&[]);
    let date = scheduled["DeletionDate"].as_str().unwrap();
    assert_eq!(lost["LostAt"].as_str().unwrap(), date, "{lost:#}");
    assert!(lost["Effect"].as_str().unwrap().contains("lost for good"), "{lost:#}");
    home.text("clock advance 8d");
    assert_eq!(agree(&home, &attach(&idle)).0["verdict"], "refused");
    // The grant is gone with the key, which keeps nobody from detaching.
    assert_eq!(agree(&home, &["ec2", "detach-volume", "--volume-id", &busy]).0["verdict"], "allowed");
}

/// The cases of the documentation through the program, with what continuous integration reads.
#[test]
fn the_suite_of_the_documentation_is_green() {
    let home = Home::new();
    let cases = root().join("fixtures/explain/cases");
    let text = home.text(&format!("explain --suite {} --junit ran.xml --output text", cases.display()));
    assert!(text.ends_with(" 0 failed\n"), "{text}");
    let xml = fs::read_to_string(home.scratch().join("ran.xml")).unwrap();
    assert!(xml.contains("failures=\"0\"") && xml.matches("<testcase ").count() >= 20, "{xml}");
    assert!(!home.path().exists());
}
