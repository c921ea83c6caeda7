//! Faults to order: what they do to a call, that they are kept, and that each call leaves its record.

use std::time::{Duration, Instant};

use blockseal::ec2;
use blockseal::gate::ServiceError;
use blockseal::gate::faults::{self, Fault};
use blockseal::kms;
use blockseal::store::Home;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::kms::{new_key, refused, root, run, temporary};

fn order(home: &Home, operation: &str, fault: &str) {
    faults::set(home, operation, fault.parse().unwrap()).unwrap();
}

/// Code, message and HTTP status of what became of a Decrypt, if it was refused.
fn decrypt(home: &Home, blob: &Value) -> Option<(&'static str, String, u16)> {
    match run(&root(home), kms::decrypt, json!({"CiphertextBlob": blob})) {
        Ok(_) => None,
        Err(ServiceError::Refused(refusal)) => Some((refusal.code, refusal.message, refusal.status)),
        Err(error) => panic!("{error}"),
    }
}

fn blob(home: &Home) -> Value {
    let call = root(home);
    let key = new_key(&call);
    run(&call, kms::encrypt, json!({"KeyId": key, "Plaintext": "eA=="})).unwrap()["CiphertextBlob"].clone()
}

/// Error codes of the Decrypt records, oldest first.
fn recorded(home: &Home) -> Vec<Option<String>> {
    home.read(|tx| {
        let mut statement = tx
            .prepare(
                "SELECT record ->> '$.errorCode' FROM trail_records WHERE record ->> '$.eventName' = 'Decrypt'
                 ORDER BY seq",
            )
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        Ok::<_, ServiceError>(rows.map(Result::unwrap).collect())
    })
    .unwrap()
}

#[test]
fn a_throttled_operation_says_so_as_kms_does_and_leaves_a_record() {
    let (base, home) = temporary();
    let blob = blob(&home);
    order(&home, "kms.Decrypt", "throttle:1");
    let throttled = (
        "ThrottlingException",
        "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.".to_owned(),
        400,
    );
    assert_eq!(decrypt(&home, &blob), Some(throttled.clone()));
    let other = Home::open(&base.path().join("home")).unwrap();
    assert_eq!(decrypt(&other, &blob), Some(throttled), "in every process");
    run(&root(&home), kms::list_keys, json!({})).unwrap();
    order(&home, "kms.Decrypt", "throttle:0");
    assert_eq!(decrypt(&home, &blob), None);
    let code = Some("ThrottlingException".to_owned());
    assert_eq!(recorded(&home), [code.clone(), code, None]);
}

#[test]
fn a_part_of_the_calls_is_throttled() {
    let (_base, home) = temporary();
    let blob = blob(&home);
    order(&home, "kms.Decrypt", "throttle:0.5");
    let hit = (0..100).filter(|_| decrypt(&home, &blob).is_some()).count();
    // Seven standard deviations to either side.
    assert!((15..85).contains(&hit), "{hit} of 100");
}

#[test]
fn what_is_out_of_service_answers_with_an_error_of_the_server() {
    let (_base, home) = temporary();
    let blob = blob(&home);
    for operation in ["kms.Decrypt", "kms.ListKeys"] {
        order(&home, operation, "unavailable");
    }
    let (code, _, status) = decrypt(&home, &blob).unwrap();
    assert_eq!((code, status), ("KeyUnavailableException", 500));
    assert_eq!(refused(run(&root(&home), kms::list_keys, json!({}))).0, "KMSInternalException");
    assert_eq!(faults::clear(&home, Some("kms.Decrypt")).unwrap(), 1);
    assert_eq!(decrypt(&home, &blob), None);
    assert_eq!(faults::list(&home).unwrap(), [("kms.ListKeys".to_owned(), Fault::Unavailable)]);
    assert_eq!(faults::clear(&home, None).unwrap(), 1);
    run(&root(&home), kms::list_keys, json!({})).unwrap();
}

#[test]
fn a_slow_operation_waits_and_holds_nobody_up() {
    let (base, home) = temporary();
    let blob = blob(&home);
    order(&home, "kms.Decrypt", "latency:400ms");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let began = Instant::now();
            assert_eq!(decrypt(&home, &blob), None);
            began.elapsed()
        });
        let other = Home::open(&base.path().join("home")).unwrap();
        let began = Instant::now();
        run(&root(&other), kms::create_key, json!({})).unwrap();
        assert!(began.elapsed() < Duration::from_millis(400), "another process's call goes on meanwhile");
        assert!(slow.join().unwrap() >= Duration::from_millis(400));
    });
}

/// EC2 uses KMS through the same gate: its attach meets the fault, and says what EC2 says.
#[test]
fn ec2_has_its_own_words() {
    let (_base, home) = temporary();
    order(&home, "ec2.DescribeVolumes", "throttle:1");
    let asked = serde_json::from_value(json!({})).unwrap();
    let error = ec2::describe_volumes(&root(&home), asked).unwrap_err();
    assert_eq!((error.code(), error.message().as_str()), ("RequestLimitExceeded", "Request limit exceeded."));
}

/// What befalls KMS on the way of an attach: its own record names it, EC2's and the caller's code are EC2's, nothing is left.
#[test]
fn an_attach_tells_a_fault_of_kms_in_ec2s_words() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let wanted = json!({"Size": 1, "AvailabilityZone": "us-east-1a", "Encrypted": true, "KmsKeyId": key});
    let volume = run(&call, ec2::create_volume, wanted).unwrap()["VolumeId"].clone();
    let newest = |name: &str| {
        let asked = json!({"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": name}]});
        let events = run(&call, blockseal::cloudtrail::lookup_events, asked).unwrap();
        serde_json::from_str::<Value>(events["Events"][0]["CloudTrailEvent"].as_str().unwrap()).unwrap()
    };
    for (operation, fault, code) in [
        ("CreateGrant", "throttle:1", "ThrottlingException"),
        ("CreateGrant", "unavailable", "KMSInternalException"),
        ("Decrypt", "throttle:1", "ThrottlingException"),
        ("Decrypt", "unavailable", "KeyUnavailableException"),
    ] {
        order(&home, &format!("kms.{operation}"), fault);
        let Err(ServiceError::Refused(refusal)) = run(&call, ec2::attach_volume, json!({"VolumeId": volume})) else {
            panic!("{operation} {fault}")
        };
        assert_eq!((refusal.code, refusal.status), ("CustomerKeyHasBeenRevoked", 400), "{operation} {fault}");
        assert!(!refusal.message.contains(code) && refusal.hint.unwrap().contains(code), "{operation} {fault}");
        faults::clear(&home, None).unwrap();
        assert_eq!(newest(operation)["errorCode"], code, "KMS's codes have no prefix");
        assert_eq!(newest("AttachVolume")["errorCode"], "Client.CustomerKeyHasBeenRevoked");
        let grants = run(&call, kms::list_grants, json!({"KeyId": key})).unwrap();
        assert_eq!(grants["Grants"], json!([]), "the grant is taken back");
        let shown = run(&call, ec2::describe_volumes, json!({"VolumeIds": [volume]})).unwrap();
        assert_eq!(shown["Volumes"][0]["State"], "available");
    }
}

#[test]
fn a_grant_known_late_lets_its_token_in_at_once() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let blob = run(&call, kms::encrypt, json!({"KeyId": key, "Plaintext": "eA=="})).unwrap()["CiphertextBlob"].clone();
    let host = "arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/i-0123456789abcdef0";
    let request = json!({"KeyId": key, "GranteePrincipal": host, "Operations": ["Decrypt", "DescribeKey"]});
    order(&home, "kms.CreateGrant", "eventual:5m");
    let late = run(&call, kms::create_grant, request.clone()).unwrap();
    let host = call.by(host.parse().unwrap());
    let decrypt = |tokens: Value| {
        run(&host, kms::decrypt, json!({"CiphertextBlob": blob, "GrantTokens": tokens})).map(drop).map_err(|e| e.code())
    };
    assert_eq!(decrypt(json!([])), Err("AccessDeniedException"));
    assert_eq!(decrypt(json!([late["GrantToken"]])), Ok(()));
    let describe = json!({"KeyId": key, "GrantTokens": [late["GrantToken"]]});
    run(&host, kms::describe_key, describe).unwrap();
    assert_eq!(refused(run(&host, kms::describe_key, json!({"KeyId": key}))).0, "AccessDeniedException");
    // The token is good for whom the grant was made, for nobody else.
    let stranger = call.by("arn:aws:iam::210987654321:user/eve".parse().unwrap());
    let request_by_stranger = json!({"CiphertextBlob": blob, "GrantTokens": [late["GrantToken"]]});
    assert_eq!(refused(run(&stranger, kms::decrypt, request_by_stranger)).0, "AccessDeniedException");
    home.advance_clock(SignedDuration::from_mins(5)).unwrap();
    assert_eq!(decrypt(json!([])), Ok(()));
    run(&call, kms::revoke_grant, json!({"KeyId": key, "GrantId": late["GrantId"]})).unwrap();
    assert_eq!(decrypt(json!([late["GrantToken"]])), Err("AccessDeniedException"), "a token outlives no grant");
    faults::clear(&home, None).unwrap();
    run(&call, kms::create_grant, request).unwrap();
    assert_eq!(decrypt(json!([])), Ok(()), "off by default: known at once");
}
