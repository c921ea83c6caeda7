//! The wire forms: what SDKs send and what they are answered, byte by byte where that matters.

use serde_json::{Value, json};

use crate::harness::Home;
use crate::harness::server::{ROOT, Server, element};

#[test]
fn a_json_service_answers_as_kms_does() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let call = |operation: &str, body: &Value| {
        server.send(&server.json(&format!("TrentService.{operation}"), body).sign("kms", &ROOT))
    };
    let created = call("CreateKey", &json!({"Description": null}));
    assert_eq!((created.status, created.header("content-type")), (200, Some("application/x-amz-json-1.1")));
    let key = created.json()["KeyMetadata"].clone();
    let date = key["CreationDate"].as_f64().unwrap();
    assert!((date * 1000.0 - (date * 1000.0).round()).abs() < 1e-3, "milliseconds: {date}");

    let id = json!({"KeyId": key["KeyId"]});
    let disabled = call("DisableKey", &id);
    assert_eq!((disabled.status, disabled.text()), (200, String::new()), "an operation without a result");
    let refused = call("Encrypt", &json!({"KeyId": key["KeyId"], "Plaintext": "eA=="}));
    assert_eq!(refused.status, 400);
    let message = format!("{} is disabled.", key["Arn"].as_str().unwrap());
    assert_eq!(refused.json(), json!({"__type": "DisabledException", "message": message}));
    assert_eq!(refused.header("x-amzn-errortype"), Some("DisabledException"));

    for (target, body, code, status) in [
        ("TrentService.CreateKeys", "{}", "UnknownOperationException", 400),
        ("TrentService", "{}", "UnknownOperationException", 400),
        ("DynamoDB_20120810.GetItem", "{}", "UnknownOperationException", 400),
        ("TrentService.ListKeys", "{", "SerializationException", 400),
        ("TrentService.ListKeys", "[]", "SerializationException", 400),
        ("TrentService.ListKeys", r#"{"Limit": "7"}"#, "SerializationException", 400),
        ("TrentService.ListKeys", r#"{"Surely": 7}"#, "SerializationException", 400),
        ("TrentService.ListKeys", "", "", 200),
        ("TrentService.ListKeys", "{}", "", 200),
    ] {
        let request = server.request("POST", "/", body).header("X-Amz-Target", target);
        let answer = server.send(&request.header("Content-Type", "application/x-amz-json-1.1").sign("kms", &ROOT));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{target} {body}: {}", answer.text());
    }
    // CloudTrail has operations that are not here, and says so by name.
    let target = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.CreateTrail";
    let answer = server.send(&server.json(target, &json!({})).sign("cloudtrail", &ROOT));
    assert_eq!((answer.status, answer.code().as_str()), (501, "UnsupportedOperation"));
    assert!(answer.message().contains("cloudtrail:CreateTrail"), "{}", answer.message());
}

#[test]
fn the_query_services_answer_as_ec2_and_iam_do() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let ec2 = |form: &str| server.send(&server.query(&format!("{form}&Version=2016-11-15")).sign("ec2", &ROOT));
    let created = ec2("Action=CreateVolume&Size=1&AvailabilityZone=us-east-1a&TagSpecification.1.ResourceType=volume&\
         TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value=a%20%3C%26%3E");
    let text = created.text();
    assert!(text.starts_with(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CreateVolumeResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>"
    ), "{text}");
    assert!(text.contains("<tagSet><item><key>Name</key><value>a &lt;&amp;&gt;</value></item></tagSet>"), "{text}");
    assert!(text.contains("<status>creating</status>") && text.contains("<encrypted>false</encrypted>"), "{text}");
    let time = element(&text, "createTime");
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let volume = element(&text, "volumeId");
    let shown = ec2(&format!("Action=DescribeVolumes&VolumeId.1={volume}&Filter.1.Name=size&Filter.1.Value.1=1"));
    assert!(shown.text().contains("<volumeSet><item>"), "{}", shown.text());
    for (form, status, code) in [
        ("Action=DeleteVolume&DryRun=true&VolumeId=".to_owned() + &volume, 412, "DryRunOperation"),
        ("Action=DeleteVolume&VolumeId=vol-00000000000000000".to_owned(), 400, "InvalidVolume.NotFound"),
        ("Action=DeleteVolume&Nope=1".to_owned(), 400, "UnknownParameter"),
        ("Action=CreateVolume&Size=big".to_owned(), 400, "InvalidParameterValue"),
        ("Action=CopySnapshot".to_owned(), 501, "UnsupportedOperation"),
        ("Action=CopySnap".to_owned(), 400, "InvalidAction"),
        ("Nothing=1".to_owned(), 400, "MissingAction"),
    ] {
        let answer = ec2(&form);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{form}: {}", answer.text());
        let text = answer.text();
        assert!(text.contains("<Response><Errors><Error><Code>") && text.contains("</Errors><RequestID>"), "{text}");
    }
    let deleted = ec2(&format!("Action=DeleteVolume&VolumeId={volume}"));
    assert!(deleted.text().contains("</requestId><return>true</return></DeleteVolumeResponse>"), "{}", deleted.text());

    let iam = |form: &str| server.send(&server.query(&format!("{form}&Version=2010-05-08")).sign("iam", &ROOT));
    let user = iam("Action=CreateUser&UserName=alice&Tags.member.1.Key=team&Tags.member.1.Value=a");
    let text = user.text();
    assert!(
        text.contains(
            "<CreateUserResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><CreateUserResult><User>"
        )
    );
    assert!(text.contains("<Tags><member><Key>team</Key><Value>a</Value></member></Tags>"), "{text}");
    assert!(text.contains("</User></CreateUserResult><ResponseMetadata><RequestId>"), "{text}");
    let missing = iam("Action=GetUser&UserName=bob");
    assert_eq!((missing.status, missing.code().as_str()), (404, "NoSuchEntity"));
    assert!(missing.text().contains("<Error><Type>Sender</Type><Code>NoSuchEntity</Code>"), "{}", missing.text());
    let deleted = iam("Action=DeleteUser&UserName=alice");
    assert!(deleted.text().contains("/2010-05-08/\"><ResponseMetadata><RequestId>"), "no result element");
}

#[test]
fn an_answers_request_id_is_its_records() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let request = server.json("TrentService.CreateKey", &json!({})).header("User-Agent", "a-client/1.0");
    let answer = server.send(&request.sign("kms", &ROOT));
    let refused = server.json("TrentService.DescribeKey", &json!({"KeyId": "alias/none"})).sign("kms", &ROOT);
    let refused = server.send(&refused);
    for (answer, name) in [(answer, "CreateKey"), (refused, "DescribeKey")] {
        let found = home.json(&format!(
            "cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue={name}"
        ));
        let record: Value = serde_json::from_str(found["Events"][0]["CloudTrailEvent"].as_str().unwrap()).unwrap();
        assert_eq!(record["requestID"].as_str(), answer.header("x-amzn-requestid"));
        assert_eq!(record["sourceIPAddress"], "127.0.0.1");
        if name == "CreateKey" {
            assert_eq!(record["userAgent"], "a-client/1.0");
        }
        let log = crate::harness::server::log_of(&home);
        assert!(log.contains(answer.header("x-amzn-requestid").unwrap()), "{log}");
    }
}

/// A time that went out as text is one that a strict SDK does not read.
#[test]
fn no_json_answer_has_a_time_as_text() {
    fn look(path: &str, value: &Value) {
        match value {
            Value::String(text) => {
                assert!(!text.starts_with("20") || text.parse::<jiff::Timestamp>().is_err(), "{path}");
            }
            Value::Array(items) => items.iter().for_each(|item| look(path, item)),
            Value::Object(members) => members.iter().for_each(|(name, value)| look(&format!("{path}.{name}"), value)),
            _ => {}
        }
    }
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let key = server.kms("CreateKey", &json!({"MultiRegion": true}))["KeyMetadata"]["KeyId"].clone();
    let external = server.kms("CreateKey", &json!({"Origin": "EXTERNAL"}))["KeyMetadata"]["KeyId"].clone();
    server.kms("CreateAlias", &json!({"AliasName": "alias/a", "TargetKeyId": key}));
    server.kms("EnableKeyRotation", &json!({"KeyId": key}));
    server.kms("RotateKeyOnDemand", &json!({"KeyId": key}));
    let grantee = "arn:aws:iam::123456789012:user/alice";
    server.kms("CreateGrant", &json!({"KeyId": key, "GranteePrincipal": grantee, "Operations": ["Decrypt"]}));
    server.kms("Encrypt", &json!({"KeyId": key, "Plaintext": "eA=="}));
    for (operation, body) in [
        ("DescribeKey", json!({"KeyId": key})),
        ("ListAliases", json!({})),
        ("ListGrants", json!({"KeyId": key})),
        ("GetKeyRotationStatus", json!({"KeyId": key})),
        ("ListKeyRotations", json!({"KeyId": key})),
        ("GetKeyLastUsage", json!({"KeyId": key})),
        ("ReplicateKey", json!({"KeyId": key, "ReplicaRegion": "eu-west-1"})),
        (
            "GetParametersForImport",
            json!({"KeyId": external, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}),
        ),
        ("ScheduleKeyDeletion", json!({"KeyId": external})),
        ("DescribeKey", json!({"KeyId": external})),
    ] {
        look(operation, &server.kms(operation, &body));
    }
    let target = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents";
    let events =
        server.send(&server.json(target, &json!({"StartTime": 1.0e9, "MaxResults": 5})).sign("cloudtrail", &ROOT));
    assert_eq!(events.json()["Events"].as_array().map(Vec::len), Some(5));
    look("LookupEvents", &events.json());
}
