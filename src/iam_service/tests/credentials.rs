//! Access keys, sessions and service-linked roles: who gets credentials, what they are good for, and until when.

use jiff::SignedDuration;

use super::*;
use crate::iam_service::credentials::{Credentials, CredentialsError, epoch, find};
use crate::iam_service::sts::{assume_role, get_caller_identity};

const ROLE: &str = "arn:aws:iam::123456789012:role/team/App";

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn new_access_key(home: &Home) -> (String, String) {
    let made = ask(&root(home), create_access_key, json!({"UserName": "alice"})).unwrap();
    (text(&made["AccessKey"]["AccessKeyId"]), text(&made["AccessKey"]["SecretAccessKey"]))
}

fn make_role(home: &Home, trust: &str) {
    let role = json!({"RoleName": "App", "Path": "/team/", "AssumeRolePolicyDocument": trust});
    ask(&root(home), create_role, role).unwrap();
}

fn assume(call: &Call<'_>, more: &Value) -> Result<Value, ServiceError> {
    let mut request = json!({"RoleArn": ROLE, "RoleSessionName": "s1"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(call, assume_role, request)
}

/// The code with which a JSON service refuses such credentials; `""` if they are good.
fn found(outcome: &Result<Credentials, CredentialsError>) -> &'static str {
    outcome.as_ref().err().map_or("", CredentialsError::code_json)
}

fn trusting_everyone_of_the_account(home: &Home) {
    make_role(home, &trust(&json!({"AWS": "123456789012"}), &json!({})));
}

#[test]
fn an_access_key_is_its_users_until_it_is_inactive_or_deleted() {
    let (_base, home) = temporary();
    make_alice(&home);
    let (id, secret) = new_access_key(&home);
    assert!(id.starts_with("AKIA") && id.len() == 20 && secret.len() == 40, "{id}");
    let credentials = find(&home, &id, None).unwrap();
    assert_eq!((credentials.principal.arn().as_str(), credentials.secret.expose()), (ALICE, secret.as_bytes()));
    assert_eq!(format!("{:?}", credentials.secret), "[REDACTED]");
    // Her call is recorded under her own key.
    let call = credentials.call(&home, "us-east-1".parse().unwrap());
    assert_eq!(ask(&call, get_caller_identity, json!({})).unwrap()["Arn"], ALICE);
    let record = newest(&root(&home), "GetCallerIdentity");
    assert_eq!(record["userIdentity"]["accessKeyId"], id.as_str());

    let before = epoch(&home).unwrap();
    let set = |status: &str| {
        let request = json!({"UserName": "alice", "AccessKeyId": id, "Status": status});
        ask(&root(&home), update_access_key, request)
    };
    set("Inactive").unwrap();
    assert_ne!(epoch(&home).unwrap(), before);
    assert_eq!(found(&find(&home, &id, None)), "UnrecognizedClientException");
    set("Active").unwrap();
    assert_eq!(found(&find(&home, &id, None)), "");
    assert_eq!(code(set("Asleep")), "ValidationError");
    let listed = ask(&root(&home), list_access_keys, json!({"UserName": "alice"})).unwrap();
    assert_eq!(listed["AccessKeyMetadata"][0]["AccessKeyId"], id.as_str());
    assert!(!listed.to_string().contains(&secret));
    new_access_key(&home);
    assert_eq!(code(ask(&root(&home), create_access_key, json!({"UserName": "alice"}))), "LimitExceeded");
    assert_eq!(code(ask(&root(&home), delete_user, json!({"UserName": "alice"}))), "DeleteConflict");
    let delete = json!({"UserName": "alice", "AccessKeyId": id});
    ask(&root(&home), delete_access_key, delete.clone()).unwrap();
    assert_eq!(code(ask(&root(&home), delete_access_key, delete)), "NoSuchEntity");
    assert_eq!(found(&find(&home, &id, None)), "UnrecognizedClientException");
}

#[test]
fn who_names_nobody_means_himself() {
    let (_base, home) = temporary();
    make_alice(&home);
    let own = ask(&root(&home), create_access_key, json!({})).unwrap();
    let id = text(&own["AccessKey"]["AccessKeyId"]);
    assert_eq!(find(&home, &id, None).unwrap().principal.arn(), "arn:aws:iam::123456789012:root");
    let alice = by(&home, ALICE);
    assert_eq!(code(ask(&alice, create_access_key, json!({}))), "AccessDenied");
    put_alice(&root(&home), &policy("iam:*AccessKey*", &json!({"Resource": ALICE}))).unwrap();
    let own = ask(&alice, create_access_key, json!({})).unwrap();
    assert_eq!(own["AccessKey"]["UserName"], "alice");
    // Another's key is none of hers.
    assert_eq!(code(ask(&alice, delete_access_key, json!({"AccessKeyId": id}))), "NoSuchEntity");
    assert_eq!(code(ask(&by(&home, SESSION), create_access_key, json!({}))), "ValidationError");
    let bob = by(&home, "arn:aws:iam::123456789012:user/bob");
    assert_eq!(code(ask(&bob, create_access_key, json!({}))), "NoSuchEntity");
}

/// Everything that the home keeps on the disk, in one piece.
fn on_disk(home: &Home) -> Vec<u8> {
    let files = ["state.db", "state.db-wal"].map(|name| home.dir().path_of(name));
    files.iter().flat_map(|file| std::fs::read(file).unwrap_or_default()).collect()
}

#[test]
fn a_secret_access_key_rests_sealed_and_never_reaches_the_trail() {
    let (_base, home) = temporary();
    make_alice(&home);
    trusting_everyone_of_the_account(&home);
    let bob = by(&home, "arn:aws:iam::123456789012:user/bob");
    let session = assume(&bob, &json!({})).unwrap();
    let (id, secret) = new_access_key(&home);
    let secrets =
        [secret, text(&session["Credentials"]["SecretAccessKey"]), text(&session["Credentials"]["SessionToken"])];
    let holds = |disk: &[u8], text: &str| disk.windows(16).any(|part| part == &text.as_bytes()[..16]);
    let disk = on_disk(&home);
    assert!(secrets.iter().all(|secret| !holds(&disk, secret)));
    // The row is bound to its key: moved to another it does not open.
    let (other, _) = new_access_key(&home);
    home.write(|tx| {
        tx.execute(
            "UPDATE iam_access_keys SET sealed = (SELECT sealed FROM iam_access_keys WHERE id = ?1) WHERE id = ?2",
            [&id, &other],
        )?;
        Ok::<_, ServiceError>(())
    })
    .unwrap();
    assert!(matches!(find(&home, &other, None), Err(CredentialsError::Home(_))));
    // Twin: without the seal it is there to be read.
    ask(&root(&home), delete_access_key, json!({"UserName": "alice", "AccessKeyId": other})).unwrap();
    let (_, open) = without(Protection::SealedCredentials, || new_access_key(&home));
    assert!(holds(&on_disk(&home), &open));
}

#[test]
fn a_session_is_its_roles_until_it_ends() {
    let (_base, home) = temporary();
    trusting_everyone_of_the_account(&home);
    let bob = by(&home, "arn:aws:iam::123456789012:user/bob");
    let made = assume(&bob, &json!({"DurationSeconds": 900})).unwrap();
    let session = "arn:aws:sts::123456789012:assumed-role/App/s1";
    assert_eq!(made["AssumedRoleUser"]["Arn"], session);
    let (id, token) = (text(&made["Credentials"]["AccessKeyId"]), text(&made["Credentials"]["SessionToken"]));
    let credentials = find(&home, &id, Some(&token)).unwrap();
    assert_eq!(credentials.secret.expose(), text(&made["Credentials"]["SecretAccessKey"]).as_bytes());
    let call = credentials.call(&home, "us-east-1".parse().unwrap());
    let who = ask(&call, get_caller_identity, json!({})).unwrap();
    assert_eq!((&who["Arn"], &who["UserId"]), (&json!(session), &made["AssumedRoleUser"]["AssumedRoleId"]));
    let identity = newest(&root(&home), "GetCallerIdentity")["userIdentity"].clone();
    assert_eq!(identity["accessKeyId"], id.as_str());
    assert_eq!(identity["sessionContext"]["sessionIssuer"]["arn"], ROLE);

    // Only with its own token, and an access key only without any.
    let refused = "UnrecognizedClientException";
    for wrong in [None, Some(""), Some("x"), Some(&token[1..])] {
        assert_eq!(found(&find(&home, &id, wrong)), refused);
        assert_eq!(found(&without(Protection::SessionToken, || find(&home, &id, wrong))), "", "the twin takes any");
    }
    make_alice(&home);
    assert_eq!(found(&find(&home, &new_access_key(&home).0, Some(&token))), refused);

    home.advance_clock(SignedDuration::from_secs(890)).unwrap();
    assert_eq!(found(&find(&home, &id, Some(&token))), "");
    home.advance_clock(SignedDuration::from_secs(10)).unwrap();
    assert_eq!(found(&find(&home, &id, Some(&token))), "ExpiredTokenException");
    assert_eq!(found(&without(Protection::Expiry, || find(&home, &id, Some(&token)))), "", "the twin never ends");
    // A day later nobody remembers it.
    home.advance_clock(SignedDuration::from_hours(25)).unwrap();
    let made = assume(&bob, &json!({})).unwrap();
    assert_eq!(found(&find(&home, &id, Some(&token))), refused);
    // A role takes its sessions with it.
    let (id, token) = (text(&made["Credentials"]["AccessKeyId"]), text(&made["Credentials"]["SessionToken"]));
    let before = epoch(&home).unwrap();
    ask(&root(&home), delete_role, json!({"RoleName": "App"})).unwrap();
    assert_eq!(found(&find(&home, &id, Some(&token))), refused);
    assert_ne!(epoch(&home).unwrap(), before);
}

#[test]
fn a_role_is_assumed_by_whom_its_trust_policy_and_his_own_let() {
    let (_base, home) = temporary();
    make_alice(&home);
    let (alice, bob) = (by(&home, ALICE), by(&home, "arn:aws:iam::123456789012:user/bob"));
    let foreign = by(&home, "arn:aws:iam::210987654321:user/eve");
    trusting_everyone_of_the_account(&home);
    // A statement that names the account leaves it to identity policies: alice has none, bob is an administrator.
    let said = message(assume(&alice, &json!({})));
    assert_eq!(said, format!("User: {ALICE} is not authorized to perform: sts:AssumeRole on resource: {ROLE}"));
    assume(&bob, &json!({})).unwrap();
    assert_eq!(code(assume(&foreign, &json!({}))), "AccessDenied");
    assert!(without(Protection::Policy, || assume(&foreign, &json!({}))).is_ok(), "the twin trusts everybody");
    put_alice(&root(&home), &policy("sts:AssumeRole", &json!({"Resource": ROLE}))).unwrap();
    assume(&alice, &json!({})).unwrap();

    let update = |document: &str| {
        let request = json!({"RoleName": "App", "PolicyDocument": document});
        ask(&root(&home), update_assume_role_policy, request)
    };
    // One that names the caller is enough within the account, and half of what is needed from another.
    update(&trust(&json!({"AWS": [ALICE, "arn:aws:iam::210987654321:user/eve"]}), &json!({}))).unwrap();
    put_alice(&root(&home), &policy("kms:*", &json!({}))).unwrap();
    assume(&alice, &json!({})).unwrap();
    assert_eq!(code(assume(&bob, &json!({}))), "AccessDenied");
    assume(&foreign, &json!({})).unwrap();
    // The record of a session for another account's caller is in both trails.
    assert_eq!(newest(&root(&home), "AssumeRole")["userIdentity"]["type"], "AWSAccount");

    update(&trust(&json!({"AWS": ALICE}), &json!({"Condition": {"StringEquals": {"sts:ExternalId": "42"}}}))).unwrap();
    assert_eq!(code(assume(&alice, &json!({}))), "AccessDenied");
    assert_eq!(code(assume(&alice, &json!({"ExternalId": "43"}))), "AccessDenied");
    assume(&alice, &json!({"ExternalId": "42"})).unwrap();
    update(&trust(&json!({"AWS": ALICE}), &json!({"Condition": {"StringEquals": {"made:up": "1"}}}))).unwrap();
    assert_eq!(code(assume(&alice, &json!({}))), "UndeterminedException");
    assert_eq!(message(assume(&root(&home), &json!({}))), "Roles may not be assumed by root accounts.");
    for bad in [json!({}).to_string(), "x".to_owned(), policy("sts:AssumeRole", &json!({"Principal": {"AWS": ALICE}}))]
    {
        assert_eq!(code(update(&bad)), "MalformedPolicyDocument", "{bad}");
    }
}

#[test]
fn what_is_wrong_with_a_session_is_refused_by_its_code() {
    let (_base, home) = temporary();
    trusting_everyone_of_the_account(&home);
    let bob = by(&home, "arn:aws:iam::123456789012:user/bob");
    for (code_wanted, more) in [
        ("ValidationError", json!({"RoleArn": "arn:aws:iam::123456789012:user/bob"})),
        ("ValidationError", json!({"RoleArn": "App"})),
        ("ValidationError", json!({"RoleSessionName": "a b"})),
        ("ValidationError", json!({"RoleSessionName": "a"})),
        ("ValidationError", json!({"DurationSeconds": 899})),
        ("ValidationError", json!({"DurationSeconds": 3601})),
        ("AccessDenied", json!({"RoleArn": "arn:aws:iam::123456789012:role/App"})),
        ("AccessDenied", json!({"RoleArn": "arn:aws:iam::123456789012:role/Nobody"})),
    ] {
        assert_eq!(code(assume(&bob, &more)), code_wanted, "{more}");
    }
    let longer = json!({"RoleName": "Long", "AssumeRolePolicyDocument": trust(&json!({"AWS": "*"}), &json!({})),
        "MaxSessionDuration": 43200});
    ask(&root(&home), create_role, longer).unwrap();
    let arn = json!({"RoleArn": "arn:aws:iam::123456789012:role/Long", "DurationSeconds": 43200});
    assume(&bob, &arn).unwrap();
    assert!(message(assume(&by(&home, SESSION), &arn)).contains("role chaining"));
}

#[test]
fn a_service_linked_role_is_aws_s_own() {
    let (_base, home) = temporary();
    let request = json!({"AWSServiceName": "autoscaling.amazonaws.com"});
    let name = "AWSServiceRoleForAutoScaling";
    let arn = format!("arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/{name}");
    let scaling = by(&home, &format!("arn:aws:sts::123456789012:assumed-role/{name}/s"));
    let key = new_key(&root(&home));
    let judged = || {
        let why = message(describe(&scaling, &key));
        assert!(why.contains("no identity-based policy allows the kms:DescribeKey action"), "{why}");
    };
    // Its policy is AWS's, whether the account has made the role or not: nothing in it is about keys.
    judged();
    let made = ask(&root(&home), create_service_linked_role, request.clone()).unwrap();
    assert_eq!(made["Role"]["Arn"], arn.as_str());
    judged();
    assert!(message(ask(&root(&home), create_service_linked_role, request)).contains("has been taken in this account"));
    for more in [
        json!({"AWSServiceName": "x.amazonaws.com"}),
        json!({"AWSServiceName": "ecs.amazonaws.com", "CustomSuffix": "a"}),
    ] {
        assert_eq!(code(ask(&root(&home), create_service_linked_role, more)), "InvalidInput");
    }
    let all = policy("kms:*", &json!({}));
    let put = json!({"RoleName": name, "PolicyName": "p", "PolicyDocument": all});
    assert_eq!(code(ask(&root(&home), put_role_policy, put)), "UnmodifiableEntity");
    assert_eq!(code(ask(&root(&home), delete_role, json!({"RoleName": name}))), "UnmodifiableEntity");
    let own = json!({"RoleName": name, "AssumeRolePolicyDocument": trust(&json!({"AWS": "*"}), &json!({}))});
    assert_eq!(code(ask(&root(&home), create_role, own)), "InvalidInput");
    // Only the service assumes it.
    let bob = by(&home, "arn:aws:iam::123456789012:user/bob");
    assert_eq!(code(assume(&bob, &json!({"RoleArn": arn}))), "AccessDenied");
    let service = crate::iam::Principal::parse_in("autoscaling.amazonaws.com", &root(&home).account).unwrap();
    let service = Call { principal: service, ..root(&home) };
    let session = assume(&service, &json!({"RoleArn": arn})).unwrap();
    assert_eq!(session["AssumedRoleUser"]["Arn"], format!("arn:aws:sts::123456789012:assumed-role/{name}/s1"));
    ask(&root(&home), delete_service_linked_role, json!({"RoleName": name})).unwrap();
    assert_eq!(code(ask(&root(&home), get_role, json!({"RoleName": name}))), "NoSuchEntity");
}

/// The newest record of an operation in any of the Regions that these tests call in.
fn newest(call: &Call<'_>, name: &str) -> Value {
    let request = json!({"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": name}]});
    ["us-east-1", "eu-west-1"]
        .iter()
        .flat_map(|region| {
            let call = Call { region: region.parse().unwrap(), ..call.clone() };
            lookup_events(&call, serde_json::from_value(request.clone()).unwrap()).unwrap().events
        })
        .map(|event| serde_json::from_str(&event.cloud_trail_event).unwrap())
        .next()
        .unwrap()
}
