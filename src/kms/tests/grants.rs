//! Whom a grant means, who may end it, and how many there may be.

use rusqlite::params;

use super::*;
use crate::kms::{CreateGrantRequest, CreateGrantResponse, ListGrantsRequest, RetireGrantRequest, RevokeGrantRequest};
use crate::twin::{Protection, without};

const ALICE: &str = "arn:aws:iam::123456789012:user/alice";
const BOB: &str = "arn:aws:iam::123456789012:user/bob";
const EVE: &str = "arn:aws:iam::210987654321:user/eve";

fn grant(
    call: &Call<'_>,
    key: &str,
    grantee: &str,
    retiring: Option<&str>,
    operations: &[&str],
) -> CreateGrantResponse {
    let request = CreateGrantRequest {
        key_id: key.to_owned(),
        grantee_principal: grantee.to_owned(),
        retiring_principal: retiring.map(str::to_owned),
        operations: operations.iter().map(|&operation| operation.to_owned()).collect(),
        ..Default::default()
    };
    kms::create_grant(call, request).unwrap()
}

fn retire(call: &Call<'_>, token: &str) -> Result<(), ServiceError> {
    kms::retire_grant(call, RetireGrantRequest { grant_token: Some(token.to_owned()), ..Default::default() })
}

fn allow(effect: &str, action: &str) -> String {
    format!(
        r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "{effect}", "Action": "{action}", "Resource": "*"}}]}}"#
    )
}

/// Codes of what comes of retiring a grant on a key of 123456789012, by each of several callers on a grant of its own.
fn retirings() -> Vec<(&'static str, &'static str)> {
    let (_base, home) = temporary();
    record(&home, "alice", None);
    record(&home, "bob", Some(&allow("Allow", "kms:RetireGrant")));
    record(&home, "carol", Some(&allow("Deny", "kms:RetireGrant")));
    let call = root(&home);
    let key = new_key(&call);
    let carol = "arn:aws:iam::123456789012:user/carol";
    let eves = "arn:aws:iam::210987654321:root";
    let cases = [
        ("the retiring principal needs no permission", ALICE, Some(ALICE), "Decrypt", ALICE),
        ("the grantee does not retire it", ALICE, None, "Decrypt", ALICE),
        ("unless the grant says so", ALICE, None, "RetireGrant", ALICE),
        ("her own policies deny the retiring principal", ALICE, Some(carol), "Decrypt", carol),
        ("the owner's account gives it to a user", ALICE, None, "Decrypt", BOB),
        ("the root of the owner's account", ALICE, None, "Decrypt", "arn:aws:iam::123456789012:root"),
        ("a user of the retiring account", ALICE, Some(eves), "Decrypt", EVE),
        ("a user of an account that has nothing to do with it", ALICE, None, "Decrypt", EVE),
    ];
    let outcomes = cases.map(|(case, grantee, retiring, operation, caller)| {
        let made = grant(&call, &key, grantee, retiring, &[operation]);
        let outcome = retire(&by(&home, caller), &made.grant_token);
        (case, outcome.err().map_or("", |error| error.code()))
    });
    outcomes.to_vec()
}

#[test]
fn a_grant_is_retired_by_whom_it_names_and_by_the_accounts_behind_it() {
    let denied = "AccessDeniedException";
    let outcomes = retirings();
    let codes: Vec<_> = outcomes.iter().map(|(_, code)| *code).collect();
    assert_eq!(codes, ["", denied, "", denied, "", "", "", denied], "{outcomes:?}");
    assert!(without(Protection::Policy, retirings).iter().all(|(_, code)| code.is_empty()));
}

#[test]
fn no_key_policy_lets_anybody_retire_a_grant() {
    let (_base, home) = temporary();
    let call = root(&home);
    record(&home, "alice", None);
    let all = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}]}"#;
    let made = kms::create_key(&call, CreateKeyRequest { policy: Some(all.to_owned()), ..Default::default() }).unwrap();
    let key = made.key_metadata.arn;
    let made = grant(&call, &key, BOB, None, &["Decrypt"]);
    let (code, message) = refusal(retire(&by(&home, ALICE), &made.grant_token));
    assert_eq!(code, "AccessDeniedException");
    assert!(message.ends_with("because no identity-based policy allows the kms:RetireGrant action"), "{message}");
    // The key's policy decides who revokes it.
    let revoke = RevokeGrantRequest { key_id: key, grant_id: made.grant_id, ..Default::default() };
    kms::revoke_grant(&by(&home, ALICE), revoke).unwrap();
}

#[test]
fn a_session_holds_its_roles_grants_whatever_the_roles_path() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    record(&home, "role/team/App", None);
    record(&home, "role/Plain", None);
    let linked =
        "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";
    let role = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    let session = |name: &str| by(&home, &format!("arn:aws:sts::123456789012:assumed-role/{name}"));
    record(&home, &linked[linked.find("role/").unwrap()..], None);
    let blob = encrypt(&call, &key, b"k", &context(&[])).unwrap();
    let held = |grantee: &str, caller: &str| {
        let made = grant(&call, &key, grantee, None, &["Decrypt"]);
        let holds = decrypt(&session(caller), &blob, &context(&[])).is_ok();
        kms::revoke_grant(
            &call,
            RevokeGrantRequest { key_id: key.clone(), grant_id: made.grant_id, ..Default::default() },
        )
        .unwrap();
        holds
    };
    assert!(held(linked, "AWSServiceRoleForAutoScaling/AutoScaling"));
    assert!(held(&role("team/App"), "App/s1") && held(&role("Plain"), "Plain/s1"));
    assert!(!held(&role("App"), "App/s1"), "there is no such role");
    assert!(!held(&role("other/Plain"), "Plain/s1") && !held(&role("team/App"), "Plain/App"));
    let exact = "arn:aws:sts::123456789012:assumed-role/Plain/s1";
    assert!(held(exact, "Plain/s1") && !held(exact, "Plain/s2"), "a session's grant is its own");
    assert!(held("arn:aws:iam::123456789012:root", "Plain/s1"), "an account's is all of its principals'");
}

#[test]
fn a_key_has_fifty_thousand_grants_at_most() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let named = |call: &Call<'_>, name: &str| {
        let request = CreateGrantRequest {
            key_id: key.clone(),
            grantee_principal: ALICE.to_owned(),
            operations: vec!["Decrypt".to_owned()],
            name: Some(name.to_owned()),
            ..Default::default()
        };
        kms::create_grant(call, request)
    };
    let first = named(&call, "first").unwrap();
    home.write(|tx| {
        // All but one of those that are left to the limit.
        tx.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 49998)
             INSERT INTO kms_grants (grant_id, key_id, grantee, issuer, operations, created, effective, holder, pin)
             SELECT printf('%064x', n.i), g.key_id, g.grantee, g.issuer, g.operations, g.created, g.effective, g.holder, g.pin
             FROM n, kms_grants AS g WHERE g.grant_id = ?1",
            params![first.grant_id],
        )?;
        Ok::<_, ServiceError>(())
    })
    .unwrap();
    let last = named(&call, "last").unwrap();
    assert_eq!(refusal(named(&call, "one-more")).0, "LimitExceededException");
    assert_eq!(named(&call, "last").unwrap().grant_id, last.grant_id, "to ask again for one that is there makes none");
    let page = kms::list_grants(&call, ListGrantsRequest { key_id: key.clone(), ..Default::default() }).unwrap();
    assert_eq!((page.grants.len(), page.truncated), (50, true));
    let revoke = RevokeGrantRequest { key_id: key.clone(), grant_id: first.grant_id, ..Default::default() };
    kms::revoke_grant(&call, revoke).unwrap();
    named(&call, "one-more").unwrap();
}
