//! Who is judged by what: users and roles with policies of their own, on keys with the default policy.

use serde_json::{Value, json};

use super::*;
use crate::cloudtrail::{LookupEventsRequest, lookup_events};
use crate::kms;
use crate::store::Home;
use crate::twin::{Protection, without};

const ALICE: &str = "arn:aws:iam::123456789012:user/ops/alice";
const SESSION: &str = "arn:aws:sts::123456789012:assumed-role/App/s1";

fn temporary() -> (tempfile::TempDir, Home) {
    let base = tempfile::tempdir().unwrap();
    let home = Home::open(&base.path().join("home")).unwrap();
    (base, home)
}

fn by<'h>(home: &'h Home, arn: &str) -> Call<'h> {
    Call::direct(home, arn.parse().unwrap(), "eu-west-1".parse().unwrap())
}

fn root(home: &Home) -> Call<'_> {
    by(home, "arn:aws:iam::123456789012:root")
}

fn ask<Q: serde::de::DeserializeOwned, R: serde::Serialize>(
    call: &Call<'_>,
    operation: fn(&Call<'_>, Q) -> Result<R, ServiceError>,
    request: Value,
) -> Result<Value, ServiceError> {
    operation(call, serde_json::from_value(request).unwrap()).map(|answer| serde_json::to_value(answer).unwrap())
}

fn code<T>(outcome: Result<T, ServiceError>) -> &'static str {
    outcome.err().map_or("", |error| error.code())
}

fn message<T>(outcome: Result<T, ServiceError>) -> String {
    outcome.err().map(|error| error.message()).unwrap_or_default()
}

fn policy(action: &str, more: &Value) -> String {
    let mut statement = json!({"Effect": "Allow", "Action": action, "Resource": "*"});
    statement.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
}

fn put_alice(call: &Call<'_>, document: &str) -> Result<Value, ServiceError> {
    ask(call, put_user_policy, json!({"UserName": "alice", "PolicyName": "p", "PolicyDocument": document}))
}

fn make_alice(home: &Home) {
    ask(&root(home), create_user, json!({"UserName": "alice", "Path": "/ops/"})).unwrap();
}

fn describe(call: &Call<'_>, key: &str) -> Result<Value, ServiceError> {
    ask(call, kms::describe_key, json!({"KeyId": key}))
}

fn new_key(call: &Call<'_>) -> String {
    kms::create_key(call, kms::CreateKeyRequest::default()).unwrap().key_metadata.arn
}

#[test]
fn whoever_was_made_is_judged_and_whoever_was_not_is_an_administrator() {
    let (_base, home) = temporary();
    let (call, alice) = (root(&home), by(&home, ALICE));
    let key = new_key(&call);
    describe(&alice, &key).unwrap();
    make_alice(&home);
    assert_eq!(
        message(describe(&alice, &key)),
        format!(
            "User: {ALICE} is not authorized to perform: kms:DescribeKey on resource: {key} because no identity-based \
             policy allows the kms:DescribeKey action"
        )
    );
    put_alice(&call, &policy("kms:Describe*", &json!({}))).unwrap();
    describe(&alice, &key).unwrap();
    assert_eq!(code(ask(&alice, kms::list_keys, json!({}))), "AccessDeniedException");
    put_alice(&call, &policy("kms:*", &json!({"Effect": "Deny"}))).unwrap();
    assert!(message(describe(&alice, &key)).ends_with("with an explicit deny in an identity-based policy"));
    // The name is the user's in any case and under any path: no other spelling gets around the policies.
    for spelling in ["arn:aws:iam::123456789012:user/alice", "arn:aws:iam::123456789012:user/ops/ALICE"] {
        assert_eq!(code(describe(&by(&home, spelling), &key)), "UndeterminedException", "{spelling}");
    }
    describe(&by(&home, "arn:aws:iam::123456789012:user/bob"), &key).unwrap();
    ask(&call, delete_user_policy, json!({"UserName": "alice", "PolicyName": "p"})).unwrap();
    ask(&call, delete_user, json!({"UserName": "Alice"})).unwrap();
    describe(&alice, &key).unwrap();
}

#[test]
fn a_sessions_policies_and_tags_are_its_roles() {
    let (_base, home) = temporary();
    let (call, session) = (root(&home), by(&home, SESSION));
    let key = new_key(&call);
    let trust = trust(&json!({"AWS": "123456789012"}), &json!({}));
    let role = json!({"RoleName": "App", "Path": "/team/", "AssumeRolePolicyDocument": trust,
        "Tags": [{"Key": "Team", "Value": "blue"}]});
    let made = ask(&call, create_role, role).unwrap();
    assert_eq!(made["Role"]["Arn"], "arn:aws:iam::123456789012:role/team/App");
    assert_eq!(code(describe(&session, &key)), "AccessDeniedException");
    let tagged = policy(
        "kms:*",
        &json!({"Condition": {
            "StringEquals": {"aws:PrincipalTag/team": "blue"},
            "ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/team/App"},
        }}),
    );
    let put = json!({"RoleName": "App", "PolicyName": "p", "PolicyDocument": tagged});
    ask(&call, put_role_policy, put).unwrap();
    describe(&session, &key).unwrap();
    ask(&call, tag_role, json!({"RoleName": "App", "Tags": [{"Key": "TEAM", "Value": "red"}]})).unwrap();
    assert_eq!(code(describe(&session, &key)), "AccessDeniedException");
    let tags = ask(&call, list_role_tags, json!({"RoleName": "App"})).unwrap();
    assert_eq!(tags["Tags"], json!([{"Key": "TEAM", "Value": "red"}]));
    ask(&call, untag_role, json!({"RoleName": "App", "TagKeys": ["team"]})).unwrap();
    assert_eq!(ask(&call, list_role_tags, json!({"RoleName": "App"})).unwrap()["Tags"], json!([]));
}

#[test]
fn iam_is_judged_as_everything_else() {
    let (_base, home) = temporary();
    make_alice(&home);
    let alice = by(&home, ALICE);
    assert_eq!(code(put_alice(&alice, &policy("*", &json!({})))), "AccessDenied");
    put_alice(
        &root(&home),
        &policy("iam:Get*", &json!({"Resource": "arn:aws:iam::123456789012:user/ops/${aws:username}"})),
    )
    .unwrap();
    ask(&alice, get_user, json!({"UserName": "alice"})).unwrap();
    assert_eq!(code(put_alice(&alice, &policy("*", &json!({})))), "AccessDenied");
    let stranger = Call { account: "123456789012".parse().unwrap(), ..by(&home, "arn:aws:iam::210987654321:root") };
    assert_eq!(code(put_alice(&stranger, &policy("*", &json!({})))), "AccessDenied");
    // Twin: without policies she makes herself an administrator.
    assert!(without(Protection::Policy, || put_alice(&alice, &policy("*", &json!({})))).is_ok());
}

#[test]
fn what_is_wrong_is_refused_by_its_code() {
    let (_base, home) = temporary();
    let call = root(&home);
    make_alice(&home);
    for (wanted, outcome) in [
        ("EntityAlreadyExists", ask(&call, create_user, json!({"UserName": "ALICE"}))),
        ("ValidationError", ask(&call, create_user, json!({"UserName": "a b"}))),
        ("ValidationError", ask(&call, create_user, json!({"UserName": "a", "Path": "ops/"}))),
        ("NoSuchEntity", ask(&call, get_user, json!({"UserName": "bob"}))),
        ("NoSuchEntity", ask(&call, get_role, json!({"RoleName": "alice"}))),
        ("NoSuchEntity", ask(&call, get_user_policy, json!({"UserName": "alice", "PolicyName": "p"}))),
        ("NoSuchEntity", ask(&call, delete_user_policy, json!({"UserName": "alice", "PolicyName": "p"}))),
        ("MalformedPolicyDocument", put_alice(&call, "{}")),
        ("MalformedPolicyDocument", put_alice(&call, &policy("kms:*", &json!({"Principal": "*"})))),
        ("MalformedPolicyDocument", ask(&call, create_role, json!({"RoleName": "r", "AssumeRolePolicyDocument": "x"}))),
        ("LimitExceeded", put_alice(&call, &policy(&format!("kms:{}", "a".repeat(2048)), &json!({})))),
        ("InvalidInput", ask(&call, tag_user, json!({"UserName": "alice", "Tags": [{"Key": "aws:x", "Value": ""}]}))),
    ] {
        assert_eq!(code(outcome), wanted);
    }
    for (statement, wanted) in [
        (json!({"Principal": "*"}), "Policy document should not specify a principal."),
        (
            json!({"Sid": "a b"}),
            "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*",
        ),
        (json!({"Resource": "key/*"}), "Resource key/* must be in ARN format or \"*\"."),
        (json!({"Action": "Decrypt"}), "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."),
        (json!({"Effect": "Maybe"}), "Syntax errors in policy."),
    ] {
        assert_eq!(message(put_alice(&call, &policy("kms:*", &statement))), wanted);
    }
    put_alice(&call, &policy("kms:*", &json!({}))).unwrap();
    assert_eq!(code(ask(&call, delete_user, json!({"UserName": "alice"}))), "DeleteConflict");
    let shown = ask(&call, get_user_policy, json!({"UserName": "alice", "PolicyName": "p"})).unwrap();
    assert_eq!(shown["PolicyDocument"]["Statement"][0]["Action"], "kms:*");
    let users = ask(&call, list_users, json!({"PathPrefix": "/ops/"})).unwrap();
    assert_eq!((users["Users"][0]["Arn"].as_str(), users["Users"].as_array().unwrap().len()), (Some(ALICE), 1));
}

#[test]
fn iams_records_are_in_its_own_region() {
    let (_base, home) = temporary();
    make_alice(&home);
    let look = |region: &str| {
        let call = Call { region: region.parse().unwrap(), ..root(&home) };
        lookup_events(&call, LookupEventsRequest::default()).unwrap().events
    };
    assert!(look("eu-west-1").is_empty());
    let record: Value = serde_json::from_str(&look("us-east-1")[0].cloud_trail_event).unwrap();
    assert_eq!((&record["eventSource"], &record["awsRegion"]), (&json!("iam.amazonaws.com"), &json!("us-east-1")));
    assert_eq!(record["responseElements"]["user"]["arn"], ALICE);
    assert_eq!(record["requestParameters"], json!({"userName": "alice", "path": "/ops/"}));
}

#[test]
fn a_managed_policy_allows_what_it_is_attached_to() {
    let (_base, home) = temporary();
    make_alice(&home);
    let (call, alice) = (root(&home), by(&home, ALICE));
    let key = new_key(&call);
    let create = json!({"PolicyName": "Use", "Path": "/team/", "PolicyDocument": policy("kms:Describe*", &json!({})),
        "Description": "uses keys"});
    let made = ask(&call, create_policy, create.clone()).unwrap()["Policy"].clone();
    assert_eq!(
        (&made["Arn"], &made["DefaultVersionId"]),
        (&json!("arn:aws:iam::123456789012:policy/team/Use"), &json!("v1"))
    );
    let on = json!({"UserName": "alice", "PolicyArn": made["Arn"]});
    assert_eq!(code(describe(&alice, &key)), "AccessDeniedException");
    ask(&call, attach_user_policy, on.clone()).unwrap();
    describe(&alice, &key).unwrap();
    let listed = ask(&call, list_attached_user_policies, json!({"UserName": "alice"})).unwrap();
    assert_eq!(listed["AttachedPolicies"], json!([{"PolicyName": "Use", "PolicyArn": made["Arn"]}]));
    let arn = json!({"PolicyArn": made["Arn"]});
    assert_eq!(ask(&call, get_policy, arn.clone()).unwrap()["Policy"]["AttachmentCount"], 1);
    let version = ask(&call, get_policy_version, json!({"PolicyArn": made["Arn"], "VersionId": "v1"})).unwrap();
    assert_eq!(version["PolicyVersion"]["Document"]["Statement"][0]["Action"], "kms:Describe*");
    for (wanted, outcome) in [
        ("EntityAlreadyExists", ask(&call, create_policy, create)),
        ("DeleteConflict", ask(&call, delete_policy, arn.clone())),
        ("DeleteConflict", ask(&call, delete_user, json!({"UserName": "alice"}))),
        ("MalformedPolicyDocument", ask(&call, create_policy, json!({"PolicyName": "x", "PolicyDocument": "{}"}))),
        ("NoSuchEntity", ask(&call, get_policy_version, json!({"PolicyArn": made["Arn"], "VersionId": "v2"}))),
        (
            "NoSuchEntity",
            ask(
                &call,
                attach_user_policy,
                json!({"UserName": "alice", "PolicyArn": "arn:aws:iam::210987654321:policy/x"}),
            ),
        ),
        (
            "AccessDenied",
            ask(&call, delete_policy, json!({"PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"})),
        ),
        (
            "AccessDenied",
            ask(
                &alice,
                attach_user_policy,
                json!({"UserName": "alice", "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}),
            ),
        ),
    ] {
        assert_eq!(code(outcome), wanted);
    }
    ask(&call, detach_user_policy, on.clone()).unwrap();
    assert_eq!(code(describe(&alice, &key)), "AccessDeniedException");
    assert_eq!(code(ask(&call, detach_user_policy, on)), "NoSuchEntity");
    ask(&call, delete_policy, arn.clone()).unwrap();
    assert_eq!(code(ask(&call, get_policy, arn)), "NoSuchEntity");
    // One of AWS's, on a role.
    let role =
        json!({"RoleName": "App", "AssumeRolePolicyDocument": trust(&json!({"AWS": "123456789012"}), &json!({}))});
    ask(&call, create_role, role).unwrap();
    let power = "arn:aws:iam::aws:policy/PowerUserAccess";
    ask(&call, attach_role_policy, json!({"RoleName": "App", "PolicyArn": power})).unwrap();
    let session = by(&home, SESSION);
    describe(&session, &key).unwrap();
    assert_eq!(code(ask(&session, create_user, json!({"UserName": "x"}))), "AccessDenied");
    let names = |request: Value| {
        let listed = ask(&call, list_policies, request).unwrap()["Policies"].clone();
        listed.as_array().unwrap().iter().map(|one| text_of(&one["PolicyName"])).collect::<Vec<_>>()
    };
    assert_eq!(names(json!({"OnlyAttached": true})), ["PowerUserAccess"]);
    assert!(
        names(json!({"Scope": "Local"})).is_empty() && names(json!({})).contains(&"AdministratorAccess".to_owned())
    );
    for (_, _, document) in directory::AWS_POLICIES {
        assert!(crate::iam::Policy::parse(document, crate::iam::PolicyKind::Identity).is_ok());
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A trust policy for `principal`, with more in its statement.
fn trust(principal: &Value, more: &Value) -> String {
    let mut statement = json!({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"});
    statement.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
}

mod credentials;
