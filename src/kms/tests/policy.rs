//! Key policies in the product: put, read, judged by, and the ways in which they must not be trusted.

use super::*;
use crate::kms::{
    CreateAliasRequest, CreateGrantRequest, DescribeKeyRequest, GetKeyPolicyRequest, GrantConstraints,
    ListGrantsRequest, ListKeyPoliciesRequest, ManagedAlias, PutKeyPolicyRequest, ReEncryptRequest,
};
use crate::twin::{Protection, without};

const ALICE: &str = "arn:aws:iam::123456789012:user/alice";
const EVE: &str = "arn:aws:iam::210987654321:user/eve";

fn ebs() -> EncryptionContext {
    context(&[("aws:ebs:id", "vol-1")])
}

/// A policy in which the root may everything, with `more` statements.
fn policy(more: &str) -> String {
    format!(
        r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Principal": {{"AWS": "123456789012"}},
            "Action": "kms:*", "Resource": "*"}}, {more}]}}"#
    )
}

fn put(call: &Call<'_>, key: &str, policy: &str) -> Result<(), ServiceError> {
    let request = PutKeyPolicyRequest { key_id: key.to_owned(), policy: policy.to_owned(), ..Default::default() };
    kms::put_key_policy(call, request)
}

fn get(call: &Call<'_>, key: &str) -> Result<String, ServiceError> {
    let request = GetKeyPolicyRequest { key_id: key.to_owned(), policy_name: Some("default".to_owned()) };
    kms::get_key_policy(call, request).map(|answer| answer.policy)
}

#[test]
fn a_policy_comes_back_as_it_was_put_and_else_as_aws_has_it() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    assert_eq!(get(&call, &key).unwrap(), kms::default_policy(&"123456789012".parse().unwrap()));
    let names =
        kms::list_key_policies(&call, ListKeyPoliciesRequest { key_id: key.clone(), ..Default::default() }).unwrap();
    assert_eq!((names.policy_names, names.truncated), (vec!["default"], false));
    let own = policy(r#"{"Effect": "Deny", "Principal": "*", "Action": "kms:Encrypt", "Resource": "*"}"#);
    put(&call, &key, &own).unwrap();
    assert_eq!(get(&call, &key).unwrap(), own);
    let (code, message) = refusal(encrypt(&call, &key, b"x", &ebs()));
    assert_eq!(code, "AccessDeniedException");
    assert!(message.ends_with("with an explicit deny in a resource-based policy"), "{message}");
    let other = GetKeyPolicyRequest { key_id: key.clone(), policy_name: Some("other".to_owned()) };
    assert_eq!(refusal(kms::get_key_policy(&call, other)).0, "NotFoundException");
    let made = kms::create_key(&call, CreateKeyRequest { policy: Some(own.clone()), ..Default::default() }).unwrap();
    assert_eq!(get(&call, &made.key_metadata.arn).unwrap(), own);
}

#[test]
fn what_is_no_policy_is_refused_and_the_old_one_stays() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let before = get(&call, &key).unwrap();
    let padded = |bytes: usize| {
        let policy = policy(r#"{"Sid": "", "Effect": "Deny", "Principal": "*", "Action": "x:y", "Resource": "*"}"#);
        policy.replace(r#""Sid": """#, &format!(r#""Sid": "{}""#, "a".repeat(bytes - policy.len())))
    };
    for (policy, code) in [
        ("{}".to_owned(), "MalformedPolicyDocumentException"),
        (policy(r#"{"Effect": "Maybe"}"#), "MalformedPolicyDocumentException"),
        (padded((32 << 10) + 1), "LimitExceededException"),
        (padded((128 << 10) + 1), "ValidationException"),
    ] {
        assert_eq!(refusal(put(&call, &key, &policy)).0, code);
        assert_eq!(get(&call, &key).unwrap(), before);
    }
    let nobody = r#"{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:user/*"}, "Action": "kms:*", "Resource": "*"}"#;
    assert_eq!(
        refusal(put(&call, &key, &policy(nobody))),
        (
            "MalformedPolicyDocumentException",
            "Policy contains a statement with one or more invalid principals.".to_owned()
        )
    );
    assert_eq!(refusal(put(&call, &key, &policy("\u{2028}"))).0, "ValidationException", "Latin-1 alone");
    put(&call, &key, &padded(32 << 10)).unwrap();
    // A statement without action or resource is taken and does nothing.
    put(&call, &key, &policy(r#"{"Effect": "Deny", "Principal": "*", "Resource": "*"}"#)).unwrap();
    encrypt(&call, &key, b"x", &ebs()).unwrap();
}

#[test]
fn nobody_locks_himself_out_unless_he_says_so() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let alone = format!(
        r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Principal": {{"AWS": "{ALICE}"}}, "Action": "kms:*", "Resource": "*"}}]}}"#
    );
    let locked = (
        "MalformedPolicyDocumentException",
        "The new key policy will not allow you to update the key policy in the future.".to_owned(),
    );
    assert_eq!(refusal(put(&call, &key, &alone)), locked);
    let create = CreateKeyRequest { policy: Some(alone.clone()), ..Default::default() };
    assert_eq!(refusal(kms::create_key(&call, create.clone())), locked);
    // Alice may put it: she can put the next.
    put(&by(&home, ALICE), &key, &alone).unwrap();
    assert_eq!(
        refusal(get(&call, &key)).0,
        "AccessDeniedException",
        "the root is out, as the key policy is the root of trust"
    );
    let bypass = CreateKeyRequest { bypass_policy_lockout_safety_check: Some(true), ..create };
    kms::create_key(&call, bypass).unwrap();
    let unknown = policy(
        r#"{"Effect": "Deny", "Principal": "*", "Action": "kms:Put*", "Resource": "*", "Condition": {"Bool": {"x:y": "true"}}}"#,
    );
    let (code, message) = refusal(put(&by(&home, ALICE), &key, &unknown));
    assert_eq!(code, "MalformedPolicyDocumentException");
    assert!(message.contains("cannot be told") && message.contains("'x:y' is not known"), "{message}");
}

/// A call that may be refused.
type Attempt<'a> = &'a dyn Fn() -> Result<(), ServiceError>;

#[test]
fn what_a_policy_asks_is_what_the_request_has() {
    let (_base, home) = temporary();
    let call = root(&home);
    let alice = by(&home, ALICE);
    let through = alice.through("ec2.us-east-1.amazonaws.com");
    let (key, other) = (new_key(&call), new_key(&call));
    let alias = CreateAliasRequest { alias_name: "alias/app".to_owned(), target_key_id: key.clone() };
    kms::create_alias(&call, alias).unwrap();
    let blob = encrypt(&call, &key, b"x", &ebs()).unwrap();
    let grant = |call: &Call<'_>, operations: &[&str], constraints: Option<GrantConstraints>| {
        let operations = operations.iter().map(|&name| name.to_owned()).collect();
        let request = CreateGrantRequest {
            key_id: key.clone(),
            grantee_principal: ALICE.to_owned(),
            operations,
            constraints,
            ..Default::default()
        };
        kms::create_grant(call, request).map(drop)
    };
    let subset = || Some(GrantConstraints { encryption_context_subset: Some(ebs()), ..Default::default() });
    let re_encrypt = |to: &str| {
        let request = ReEncryptRequest {
            ciphertext_blob: blob.clone(),
            source_encryption_context: ebs(),
            destination_key_id: to.to_owned(),
            ..Default::default()
        };
        kms::re_encrypt(&alice, request).map(drop)
    };
    let decrypt_alice = || decrypt(&alice, &blob, &ebs()).map(drop);
    let describe = |named: &str| {
        kms::describe_key(&alice, DescribeKeyRequest { key_id: named.to_owned(), ..Default::default() }).map(drop)
    };
    let delete = |days: i64| {
        let request = ScheduleKeyDeletionRequest { key_id: other.clone(), pending_window_in_days: Some(days) };
        kms::schedule_key_deletion(&alice, request).map(drop)
    };
    // A statement that denies all to Alice where the condition holds: what it hits, and what it leaves.
    let cases: &[(&str, Attempt<'_>, Attempt<'_>)] = &[
        (r#"{"StringEquals": {"kms:EncryptionContext:aws:ebs:id": "vol-1"}}"#, &decrypt_alice, &|| {
            encrypt(&alice, &key, b"x", &context(&[("aws:ebs:id", "vol-2")])).map(drop)
        }),
        (r#"{"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "aws:ebs:id"}}"#, &decrypt_alice, &|| {
            encrypt(&alice, &key, b"x", &context(&[])).map(drop)
        }),
        (
            r#"{"StringEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}}"#,
            &|| decrypt(&through, &blob, &ebs()).map(drop),
            &decrypt_alice,
        ),
        (r#"{"Bool": {"aws:ViaAWSService": "false"}}"#, &decrypt_alice, &|| decrypt(&through, &blob, &ebs()).map(drop)),
        (r#"{"Bool": {"kms:GrantIsForAWSResource": "false"}}"#, &|| grant(&alice, &["Decrypt"], None), &|| {
            grant(&through, &["Decrypt"], None)
        }),
        (
            r#"{"ForAnyValue:StringEquals": {"kms:GrantOperations": "Encrypt"}}"#,
            &|| grant(&alice, &["Decrypt", "Encrypt"], None),
            &|| grant(&alice, &["Decrypt"], None),
        ),
        (
            r#"{"StringEquals": {"kms:GrantConstraintType": "EncryptionContextSubset"}}"#,
            &|| grant(&alice, &["Decrypt"], subset()),
            &|| grant(&alice, &["Decrypt"], None),
        ),
        (
            r#"{"StringEquals": {"kms:EncryptionContext:aws:ebs:id": "vol-1"}}"#,
            &|| grant(&alice, &["Decrypt"], subset()),
            &|| grant(&alice, &["Decrypt"], None),
        ),
        (
            r#"{"StringLike": {"kms:GranteePrincipal": "*:user/alice"}, "Null": {"kms:RetiringPrincipal": "true"}}"#,
            &|| grant(&alice, &["Decrypt"], None),
            &decrypt_alice,
        ),
        (r#"{"Bool": {"kms:ReEncryptOnSameKey": "false"}}"#, &|| re_encrypt(&other), &|| re_encrypt(&key)),
        (r#"{"StringEquals": {"kms:RequestAlias": "alias/app"}}"#, &|| describe("alias/app"), &|| describe(&key)),
        (r#"{"ForAnyValue:StringLike": {"kms:ResourceAliases": "alias/a*"}}"#, &|| describe(&key), &|| {
            describe(&other)
        }),
        (r#"{"StringEquals": {"aws:PrincipalArn": "arn:aws:iam::123456789012:user/alice"}}"#, &decrypt_alice, &|| {
            decrypt(&call, &blob, &ebs()).map(drop)
        }),
        (r#"{"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}"#, &decrypt_alice, &|| {
            decrypt(&call, &blob, &ebs()).map(drop)
        }),
        (r#"{"NumericLessThan": {"kms:ScheduleKeyDeletionPendingWindowInDays": "30"}}"#, &|| delete(7), &|| delete(30)),
    ];
    for (condition, hit, left) in cases {
        let statement = format!(
            r#"{{"Effect": "Deny", "Principal": {{"AWS": "{ALICE}"}}, "Action": "kms:*", "Resource": "*", "Condition": {condition}}}"#
        );
        for key in [&key, &other] {
            put(&call, key, &policy(&statement)).unwrap();
        }
        let (code, message) = refusal(hit());
        assert!(code == "AccessDeniedException" && message.contains("explicit deny"), "{condition}: {code} {message}");
        left().unwrap_or_else(|error| panic!("{condition} hits what it should leave: {error}"));
    }
}

#[test]
fn what_is_not_known_in_a_policy_is_said_and_neither_yes_nor_no() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let blob = encrypt(&call, &key, b"x", &ebs()).unwrap();
    put(&call, &key, &policy(r#"{"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*", "Condition": {"Bool": {"kms:NoSuchKey": "true"}}}"#)).unwrap();
    let (code, message) = refusal(decrypt(&call, &blob, &ebs()));
    assert_eq!(code, "UndeterminedException");
    assert!(message.contains("the condition key 'kms:NoSuchKey' is not known"), "{message}");
    encrypt(&call, &key, b"x", &ebs()).unwrap();
}

#[test]
fn another_account_uses_a_key_that_is_shared_with_it_by_its_arn() {
    let (_base, home) = temporary();
    let (call, eve) = (root(&home), by(&home, EVE));
    let key = new_key(&call);
    let blob = encrypt(&call, &key, b"x", &ebs()).unwrap();
    assert_eq!(refusal(decrypt(&eve, &blob, &ebs())).0, "AccessDeniedException");
    put(&call, &key, &policy(r#"{"Effect": "Allow", "Principal": {"AWS": "210987654321"}, "Action": ["kms:Decrypt", "kms:Encrypt"], "Resource": "*"}"#)).unwrap();
    assert_eq!(decrypt(&eve, &blob, &ebs()).unwrap(), b"x");
    encrypt(&eve, &key, b"y", &ebs()).unwrap();
    let id = key.rsplit('/').next().unwrap();
    assert_eq!(refusal(encrypt(&eve, id, b"y", &ebs())).0, "NotFoundException", "an id alone is of one's own account");
    let grants = ListGrantsRequest { key_id: key.clone(), ..Default::default() };
    let (code, message) = refusal(kms::list_grants(&eve, grants));
    assert_eq!(code, "AccessDeniedException");
    assert!(message.ends_with(crate::iam::FOREIGN), "{message}");
}

/// Codes of what another account's user gets who is allowed everything by key policy, some of it not his to have.
fn across_accounts() -> Vec<(&'static str, &'static str)> {
    let (_base, home) = temporary();
    let (call, eve) = (root(&home), by(&home, EVE));
    let key = new_key(&call);
    put(&call, &key, &policy(&format!(r#"{{"Effect": "Allow", "Principal": {{"AWS": ["{EVE}", "210987654321"]}}, "Action": "kms:*", "Resource": "*"}}"#))).unwrap();
    let named = || key.clone();
    let code = |outcome: Result<(), ServiceError>| outcome.err().map_or("", |error| error.code());
    vec![
        (
            "DescribeKey",
            code(kms::describe_key(&eve, DescribeKeyRequest { key_id: named(), ..Default::default() }).map(drop)),
        ),
        ("Encrypt", code(encrypt(&eve, &key, b"x", &ebs()).map(drop))),
        (
            "ListGrants",
            code(kms::list_grants(&eve, ListGrantsRequest { key_id: named(), ..Default::default() }).map(drop)),
        ),
        ("GetKeyPolicy", code(get(&eve, &key).map(drop))),
        (
            "PutKeyPolicy",
            code(kms::put_key_policy(
                &eve,
                PutKeyPolicyRequest {
                    key_id: named(),
                    policy: get(&call, &key).unwrap(),
                    bypass_policy_lockout_safety_check: Some(true),
                    ..Default::default()
                },
            )),
        ),
        (
            "ListKeyPolicies",
            code(
                kms::list_key_policies(&eve, ListKeyPoliciesRequest { key_id: named(), ..Default::default() })
                    .map(drop),
            ),
        ),
        ("DisableKey", code(kms::disable_key(&eve, kms::DisableKeyRequest { key_id: named() }))),
        ("ScheduleKeyDeletion", code(schedule_deletion(&eve, &key))),
    ]
}

#[test]
fn no_key_policy_gives_another_account_more_than_the_use_of_a_key() {
    for (operation, code) in across_accounts() {
        let possible = matches!(operation, "DescribeKey" | "Encrypt" | "ListGrants");
        assert_eq!(code, if possible { "" } else { "AccessDeniedException" }, "{operation}");
    }
    assert!(without(Protection::Policy, across_accounts).iter().all(|(_, code)| code.is_empty()));
}

#[test]
fn a_key_that_was_used_lately_is_kept_by_its_policy() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    put(
        &call,
        &key,
        &policy(
            r#"{"Effect": "Deny", "Principal": "*", "Action": ["kms:DisableKey", "kms:ScheduleKeyDeletion"],
        "Resource": "*", "Condition": {"NumericLessThanEquals": {"kms:TrailingDaysWithoutKeyUsage": "90"}}}"#,
        ),
    )
    .unwrap();
    let (code, message) = refusal(schedule_deletion(&call, &key));
    assert_eq!(code, "UndeterminedException", "{message}");
    encrypt(&call, &key, b"x", &ebs()).unwrap();
    home.advance_clock(days(90)).unwrap();
    assert_eq!(refusal(schedule_deletion(&call, &key)).0, "AccessDeniedException");
    home.advance_clock(days(1)).unwrap();
    schedule_deletion(&call, &key).unwrap();
}

#[test]
fn a_managed_keys_policy_is_awss_and_stays_so() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = kms::managed_key(&call, ManagedAlias::Rds).unwrap();
    let text = get(&by(&home, ALICE), &key).unwrap();
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["Statement"][0]["Condition"]["StringEquals"]["kms:ViaService"], "rds.us-east-1.amazonaws.com");
    assert_eq!(refusal(put(&call, &key, &text)).0, "AccessDeniedException");
    let stranger = by(&home, EVE).through("rds.us-east-1.amazonaws.com");
    assert_eq!(refusal(encrypt(&stranger, &key, b"x", &ebs())).0, "AccessDeniedException", "CallerAccount");
}

/// The lockout check and an explicit deny, with policies switched off: both attacks go through.
#[test]
fn only_the_policy_keeps_a_denied_caller_out() {
    let attack = || {
        let (_base, home) = temporary();
        let call = root(&home);
        let key = new_key(&call);
        let deny = policy(&format!(
            r#"{{"Effect": "Deny", "Principal": {{"AWS": "{ALICE}"}}, "Action": "kms:*", "Resource": "*"}}"#
        ));
        put(&call, &key, &deny).unwrap();
        encrypt(&by(&home, ALICE), &key, b"x", &ebs()).is_ok()
    };
    assert!(!attack());
    assert!(without(Protection::Policy, attack));
}
