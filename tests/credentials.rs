//! Credentials in the trail: a record of every kind that IAM's access keys and STS leave, and none of them with a secret.

use serde_json::Value;

use crate::harness::Home;
use crate::trail::{compare, faults};

/// The newest record of an operation, with what is random in it replaced.
fn newest(home: &Home, name: &str, ids: &[(String, &str)]) -> Value {
    let attribute = format!("AttributeKey=EventName,AttributeValue={name}");
    let found = home.json(&format!("cloudtrail lookup-events --lookup-attributes {attribute} --max-results 1"));
    let mut text = found["Events"][0]["CloudTrailEvent"].as_str().unwrap().to_owned();
    for (random, fixed) in ids {
        text = text.replace(random, fixed);
    }
    serde_json::from_str(&text).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// One record of every kind that credentials leave.
pub fn one_of_each() -> Vec<(&'static str, Value)> {
    let home = Home::new();
    let mut records = Vec::new();
    let mut ids: Vec<(String, &str)> = Vec::new();
    let alice = "--principal arn:aws:iam::123456789012:user/alice";
    home.json("iam create-user --user-name alice");
    let made = home.json("iam create-access-key --user-name alice")["AccessKey"].clone();
    let mut secrets = vec![text(&made["SecretAccessKey"])];
    ids.push((text(&made["AccessKeyId"]), "AKIAIOSFODNN7EXAMPLE"));
    records.push(("create-access-key", newest(&home, "CreateAccessKey", &ids)));
    home.json("iam list-access-keys --user-name alice");
    records.push(("list-access-keys", newest(&home, "ListAccessKeys", &ids)));
    let (id, change) = (text(&made["AccessKeyId"]), "access-key --user-name alice --access-key-id");
    home.json(&format!("iam update-{change} {id} --status Inactive"));
    records.push(("update-access-key", newest(&home, "UpdateAccessKey", &ids)));
    home.json(&format!("iam delete-{change} {id}"));
    records.push(("delete-access-key", newest(&home, "DeleteAccessKey", &ids)));
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/alice"},"Action":"sts:AssumeRole"}]}"#;
    home.json(&format!("iam create-role --role-name App --path /team/ --assume-role-policy-document {trust}"));
    let role = "arn:aws:iam::123456789012:role/team/App";
    let assume = format!("sts assume-role --role-arn {role} --role-session-name s1");
    let made = home.json(&format!("{assume} --duration-seconds 900 {alice}"))["Credentials"].clone();
    secrets.extend([text(&made["SecretAccessKey"]), text(&made["SessionToken"])]);
    ids.push((text(&made["AccessKeyId"]), "ASIAIOSFODNN7EXAMPLE"));
    records.push(("assume-role", newest(&home, "AssumeRole", &ids)));
    let eve = format!("{assume} --principal arn:aws:iam::210987654321:user/eve");
    home.refused(254, &eve.split(' ').collect::<Vec<_>>());
    let denied = home.json("--account 210987654321 cloudtrail lookup-events");
    records.push(("assume-role-denied", serde_json::from_str(&text(&denied["Events"][0]["CloudTrailEvent"])).unwrap()));
    home.json(&format!("sts get-caller-identity {alice}"));
    records.push(("get-caller-identity", newest(&home, "GetCallerIdentity", &ids)));
    home.json("iam create-service-linked-role --aws-service-name autoscaling.amazonaws.com");
    records.push(("create-service-linked-role", newest(&home, "CreateServiceLinkedRole", &ids)));
    for (name, record) in &records {
        let said = record.to_string();
        assert!(secrets.iter().all(|secret| !said.contains(secret.as_str())), "{name}");
    }
    records
}

#[test]
fn every_kind_of_record_of_credentials_is_as_its_fixture_and_holds_no_secret() {
    let records = one_of_each();
    for (name, record) in &records {
        assert_eq!(faults(record), Vec::<String>::new(), "{name}");
    }
    compare("iam", records);
}
