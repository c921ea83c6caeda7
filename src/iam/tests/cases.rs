//! Policies that were written to trip an evaluator.

use super::*;

pub(super) const ALICE: &str = "arn:aws:iam::123456789012:user/alice";
pub(super) const ROOT: &str = "arn:aws:iam::123456789012:root";
pub(super) const SESSION: &str = "arn:aws:sts::123456789012:assumed-role/App/s1";
pub(super) const EVE: &str = "arn:aws:iam::210987654321:user/eve";

pub(super) const DELEGATE: &str = r#"{"Sid": "Enable", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "kms:*", "Resource": "*"}"#;
pub(super) const FULL: &str = r#"{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}"#;
const DENY_DECRYPT: &str = r#"{"Effect": "Deny", "Action": "kms:Decrypt", "Resource": "*"}"#;

pub(super) fn allowing(principal: &str, rest: &str) -> String {
    format!(r#"{{"Effect": "Allow", "Principal": {principal}, "Action": "kms:Decrypt", "Resource": "*"{rest}}}"#)
}

pub(super) fn denying(principal: &str, rest: &str) -> String {
    format!(r#"{{"Effect": "Deny", {principal}, "Action": "kms:*", "Resource": "*"{rest}}}"#)
}

/// `A`, `U`, or `E`xplicitly or `I`mplicitly denied by `R`esource or `I`dentity.
pub(super) fn short(decision: &Decision) -> &'static str {
    match decision.outcome {
        Outcome::Allowed => "A",
        Outcome::Undetermined => "U",
        Outcome::Denied { explicit: true, side: Side::Resource } => "ER",
        Outcome::Denied { explicit: true, .. } => "EI",
        Outcome::Denied { side: Side::Resource, .. } => "IR",
        Outcome::Denied { .. } => "II",
    }
}

pub(super) fn decided(who: &str, identity: Identity, policy: &str, keys: &[(&str, &str)]) -> &'static str {
    short(&ask(&requester(who, identity), &key_policy(policy), "kms:Decrypt", keys))
}

#[test]
fn the_key_policy_is_the_root_of_trust() {
    let none = || identity(&[]);
    let full = || identity(&[FULL]);
    let other = allowing(r#"{"AWS": "arn:aws:iam::123456789012:user/bob"}"#, "");
    // Delegation: identity policies decide, and the root itself needs none.
    assert_eq!(decided(ALICE, none(), DELEGATE, &[]), "II");
    assert_eq!(decided(ALICE, full(), DELEGATE, &[]), "A");
    assert_eq!(decided(ALICE, Identity::Administrator, DELEGATE, &[]), "A");
    assert_eq!(decided(ALICE, identity(&[FULL, DENY_DECRYPT]), DELEGATE, &[]), "EI");
    assert_eq!(decided(ROOT, none(), DELEGATE, &[]), "A");
    // Without it an identity policy allows nothing, not even to the root, and denies still.
    assert_eq!(decided(ALICE, full(), &other, &[]), "IR");
    assert_eq!(decided(ROOT, Identity::Administrator, &other, &[]), "IR");
    // The principal itself in the key policy is enough.
    assert_eq!(decided(ALICE, none(), &allowing(r#"{"AWS": "arn:aws:iam::123456789012:user/alice"}"#, ""), &[]), "A");
    assert_eq!(decided(ALICE, none(), &allowing(r#""*""#, ""), &[]), "A");
    assert_eq!(decided(ALICE, identity(&[DENY_DECRYPT]), &allowing(r#""*""#, ""), &[]), "EI");
    assert_eq!(decided(SESSION, none(), &allowing(r#"{"AWS": "arn:aws:iam::123456789012:role/App"}"#, ""), &[]), "A");
    assert_eq!(decided(SESSION, none(), &allowing(&format!(r#"{{"AWS": "{SESSION}"}}"#), ""), &[]), "A");
    // A delegation under a condition is one only where the condition holds.
    let through = allowing(
        r#"{"AWS": "123456789012"}"#,
        r#", "Condition": {"StringEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}}"#,
    );
    assert_eq!(decided(ALICE, full(), &through, &[]), "IR");
    assert_eq!(decided(ALICE, full(), &through, &[("kms:ViaService", "ec2.us-east-1.amazonaws.com")]), "A");
}

#[test]
fn another_account_needs_both_sides() {
    let account = allowing(r#"{"AWS": "210987654321"}"#, "");
    let user = allowing(&format!(r#"{{"AWS": "{EVE}"}}"#), "");
    for policy in [&account, &user, &allowing(r#""*""#, "")] {
        assert_eq!(decided(EVE, identity(&[]), policy, &[]), "II", "{policy}");
        assert_eq!(decided(EVE, identity(&[FULL]), policy, &[]), "A", "{policy}");
        assert_eq!(
            decided("arn:aws:iam::210987654321:root", Identity::Administrator, policy, &[]),
            if *policy == user { "IR" } else { "A" }
        );
    }
    assert_eq!(decided(EVE, identity(&[FULL]), DELEGATE, &[]), "IR");
    let decision = ask(&requester(EVE, identity(&[FULL])), &key_policy(DELEGATE), "kms:Decrypt", &[]);
    assert_eq!(decision.clause("kms:Decrypt"), FOREIGN);
    let decision = ask(&requester(EVE, identity(&[])), &key_policy(&account), "kms:Decrypt", &[]);
    assert_eq!(decision.clause("kms:Decrypt"), "because no identity-based policy allows the kms:Decrypt action");
    assert!(decision.cross_account);
}

#[test]
fn a_deny_denies_whatever_allows() {
    let with = |deny: &str| format!("{DELEGATE}, {deny}");
    for (deny, who, is) in [
        (denying(r#""Principal": "*""#, ""), ALICE, "ER"),
        (denying(r#""Principal": {"AWS": "123456789012"}"#, ""), ALICE, "ER"),
        (denying(r#""Principal": {"AWS": "arn:aws:iam::123456789012:role/App"}"#, ""), SESSION, "ER"),
        (denying(r#""Principal": {"AWS": "arn:aws:iam::123456789012:user/Alice"}"#, ""), ALICE, "A"),
        (denying(r#""NotPrincipal": {"AWS": "arn:aws:iam::123456789012:user/alice"}"#, ""), ALICE, "ER"),
        (
            denying(r#""NotPrincipal": {"AWS": ["arn:aws:iam::123456789012:user/alice", "123456789012"]}"#, ""),
            ALICE,
            "A",
        ),
        (
            denying(
                r#""NotPrincipal": {"AWS": ["arn:aws:iam::123456789012:role/App", "arn:aws:iam::123456789012:root"]}"#,
                "",
            ),
            SESSION,
            "ER",
        ),
        (
            denying(
                &format!(r#""NotPrincipal": {{"AWS": ["{SESSION}", "arn:aws:iam::123456789012:role/App", "{ROOT}"]}}"#),
                "",
            ),
            SESSION,
            "A",
        ),
    ] {
        assert_eq!(decided(who, Identity::Administrator, &with(&deny), &[]), is, "{deny}");
    }
    let decision = ask(
        &requester(ALICE, Identity::Administrator),
        &key_policy(&with(&denying(r#""Principal": "*""#, ""))),
        "kms:Decrypt",
        &[],
    );
    assert_eq!(decision.clause("kms:Decrypt"), "with an explicit deny in a resource-based policy");
    assert_eq!(decision.decided_by[0].statement, Some(1));
}

#[test]
fn not_action_and_not_resource_are_their_opposites() {
    let policy = |more: &str| format!(r#"{{"Effect": "Allow", "Principal": "*", {more}}}"#);
    for (more, is) in [
        (r#""NotAction": "kms:Decrypt", "Resource": "*""#, "IR"),
        (r#""NotAction": ["KMS:decrypt*"], "Resource": "*""#, "IR"),
        (r#""NotAction": ["kms:Encrypt", "kms:Put*"], "Resource": "*""#, "A"),
        (r#""Action": "kms:*", "NotResource": "*""#, "IR"),
        (r#""Action": "KMS:D?CRYPT", "NotResource": "arn:aws:kms:eu-west-1:*:key/*""#, "A"),
        (r#""Action": "kms:*", "Resource": "arn:aws:kms:*:123456789012:key/*""#, "A"),
        (r#""Action": "kms:*", "Resource": "arn:aws:kms:*:123456789012:alias/*""#, "IR"),
        (r#""Action": "kms:*", "Resource": "arn:aws:kms:*:key/*""#, "U"),
        (r#""Action": "kms:*""#, "IR"),
        (r#""Resource": "*""#, "IR"),
    ] {
        assert_eq!(decided(ALICE, identity(&[]), &policy(more), &[]), is, "{more}");
    }
    let deny =
        format!(r#"{DELEGATE}, {{"Effect": "Deny", "Principal": "*", "NotAction": "kms:Describe*", "Resource": "*"}}"#);
    assert_eq!(decided(ALICE, Identity::Administrator, &deny, &[]), "ER");
}

#[test]
fn what_is_not_known_decides_nothing_and_hides_nothing() {
    let unknown_key = r#", "Condition": {"StringEquals": {"kms:NoSuchKey": "x"}}"#;
    let unknown_operator = r#", "Condition": {"StringMatches": {"kms:ViaService": "x"}}"#;
    let no_match = r#", "Condition": {"StringEquals": {"kms:NoSuchKey": "x", "kms:CallerAccount": "999999999999"}}"#;
    let caller = [("kms:CallerAccount", "123456789012")];
    for unknown in [unknown_key, unknown_operator] {
        let allow = allowing(r#""*""#, unknown);
        let deny = denying(r#""Principal": "*""#, unknown);
        for (policy, identity, is, why) in [
            (allow.clone(), identity(&[]), "U", "a possible allow"),
            (format!("{allow}, {}", allowing(r#""*""#, "")), identity(&[]), "A", "a sure allow beside it"),
            (format!("{allow}, {}", denying(r#""Principal": "*""#, "")), identity(&[]), "ER", "a sure deny beside it"),
            (format!("{DELEGATE}, {deny}"), Identity::Administrator, "U", "a sure allow, a possible deny"),
            (deny.clone(), Identity::Administrator, "IR", "a possible deny where nothing allows"),
            (allow.clone(), identity(&[DENY_DECRYPT]), "EI", "a possible allow, a sure deny"),
        ] {
            assert_eq!(decided(ALICE, identity, &policy, &caller), is, "{why}: {policy}");
        }
    }
    // Another element of the statement surely does not match: what is not known in it does not matter.
    assert_eq!(
        decided(
            ALICE,
            Identity::Administrator,
            &format!("{DELEGATE}, {}", denying(r#""Principal": "*""#, no_match)),
            &caller
        ),
        "A"
    );
    let both = format!("{DELEGATE}, {}", denying(r#""Principal": "*""#, unknown_key));
    let decision = ask(&requester(ALICE, Identity::Administrator), &key_policy(&both), "kms:Decrypt", &caller);
    assert_eq!(decision.undetermined, ["key policy, statement 1: the condition key 'kms:NoSuchKey' is not known"]);
    assert!(decision.decided_by.is_empty());
    // A statement that allows with NotPrincipal is not supported by AWS.
    let not = r#"{"Effect": "Allow", "NotPrincipal": {"AWS": "arn:aws:iam::123456789012:user/bob"}, "Action": "kms:*", "Resource": "*"}"#;
    assert_eq!(decided(ALICE, identity(&[]), not, &[]), "U");
    assert_eq!(decided(ALICE, Identity::Unknown("not given".to_owned()), DELEGATE, &[]), "U");
}

#[test]
fn the_encryption_context_is_held_against_the_policy() {
    let policy = allowing(
        r#""*""#,
        r#", "Condition": {"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["aws:ebs:id"]}}"#,
    );
    let keys = |values: &[&str]| {
        let who = requester(ALICE, identity(&[]));
        let mut context = Context::default();
        who.describe(&mut context);
        context.set_all("kms:EncryptionContextKeys", values.iter().copied());
        let policy = key_policy(&policy);
        let policy = ResourcePolicy::Key(&policy);
        let question = Question {
            requester: &who,
            action: "kms:Decrypt",
            resource: KEY,
            owner: &owner(),
            policy,
            context: &context,
        };
        short(&evaluate(&question))
    };
    assert_eq!([keys(&["aws:ebs:id"]), keys(&["aws:ebs:id", "more"])], ["A", "IR"]);
    assert_eq!(keys(&[]), "A", "ForAllValues allows a call without any context: a Null test must stand beside it");
    let null = allowing(
        r#""*""#,
        r#", "Condition": {"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "aws:ebs:id"}, "Null": {"kms:EncryptionContext:aws:ebs:id": "false"}}"#,
    );
    assert_eq!(decided(ALICE, identity(&[]), &null, &[]), "IR");
    assert_eq!(decided(ALICE, identity(&[]), &null, &[("kms:EncryptionContext:aws:ebs:id", "vol-1")]), "A");
    // The name's case does not matter, the value's does.
    let value = allowing(r#""*""#, r#", "Condition": {"StringEquals": {"KMS:EncryptionContext:AWS:EBS:ID": "vol-1"}}"#);
    assert_eq!(decided(ALICE, identity(&[]), &value, &[("kms:EncryptionContext:aws:ebs:id", "vol-1")]), "A");
    assert_eq!(decided(ALICE, identity(&[]), &value, &[("kms:EncryptionContext:aws:ebs:id", "VOL-1")]), "IR");
}

#[test]
fn variables_are_the_requesters_own() {
    let own =
        allowing(r#""*""#, r#", "Condition": {"StringEquals": {"kms:EncryptionContext:owner": "${aws:username}"}}"#);
    let keys = [("kms:EncryptionContext:owner", "alice")];
    assert_eq!(decided(ALICE, identity(&[]), &own, &keys), "A");
    assert_eq!(decided("arn:aws:iam::123456789012:user/bob", identity(&[]), &own, &keys), "IR");
    assert_eq!(decided(SESSION, identity(&[]), &own, &keys), "IR", "a session has no user name");
    let old = Policy::parse(&format!(r#"{{"Version": "2008-10-17", "Statement": {own}}}"#), PolicyKind::Key).unwrap();
    let old = NamedPolicy::new("key policy", old);
    assert_eq!(
        short(&ask(&requester(ALICE, identity(&[])), &old, "kms:Decrypt", &keys)),
        "IR",
        "2008 has no variables"
    );
}

#[test]
fn a_service_has_the_key_policy_and_nothing_else() {
    let service = "ec2.us-east-1.amazonaws.com";
    let own = allowing(r#"{"Service": "ec2.amazonaws.com"}"#, "");
    assert_eq!(decided(service, Identity::Nothing, &own, &[]), "A");
    assert_eq!(decided(service, Identity::Nothing, DELEGATE, &[]), "IR");
    assert_eq!(decided(ALICE, Identity::Administrator, &own, &[]), "IR");
    let host = "arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/i-0123456789abcdef0";
    assert_eq!(decided(host, Identity::Nothing, DELEGATE, &[]), "II");
}

#[test]
fn a_grant_adds_and_takes_no_denial_away() {
    let deny = format!("{DELEGATE}, {}", denying(r#""Principal": "*""#, ""));
    let possible = denying(r#""Principal": "*""#, r#", "Condition": {"Bool": {"x:y": "true"}}"#);
    let with_grant = |policy: &str| {
        let decision =
            ask(&requester(ALICE, identity(&[])), &key_policy(policy), "kms:Decrypt", &[]).with_grant("grant 1");
        (short(&decision), decision.decided_by.first().map(|by| by.side))
    };
    assert_eq!(with_grant(DELEGATE), ("A", Some(Side::Grant)));
    assert_eq!(with_grant(&deny), ("ER", Some(Side::Resource)));
    assert_eq!(with_grant(&possible), ("U", None));
    assert_eq!(with_grant(&allowing(r#""*""#, "")), ("A", Some(Side::Resource)));
}

#[test]
fn a_decision_says_what_decided_and_what_did_not() {
    let policy = key_policy(&format!(
        "{DELEGATE}, {}",
        allowing(
            r#"{"AWS": "arn:aws:iam::123456789012:user/bob"}"#,
            r#", "Condition": {"Bool": {"aws:ViaAWSService": "true"}}"#
        )
    ));
    let decision = ask(&requester(ALICE, identity(&[FULL])), &policy, "kms:Decrypt", &[("aws:ViaAWSService", "false")]);
    let by: Vec<_> =
        decision.decided_by.iter().map(|by| (by.policy.as_str(), by.statement, by.sid.as_deref())).collect();
    assert_eq!(by, [("key policy", Some(0), Some("Enable")), ("inline policy p0", Some(0), None)]);
    let second = &decision.trace[0].statements[1];
    assert_eq!(second.matched, Truth::No);
    let no: Vec<_> =
        second.checks.iter().filter(|check| check.matched == Truth::No).map(|check| check.element).collect();
    assert_eq!(no, ["Principal", "Condition"]);
    let json = serde_json::to_value(&decision).unwrap();
    assert_eq!(json["Outcome"], serde_json::json!({"Verdict": "Allowed"}));
    assert_eq!(json["Trace"][0]["Statements"][1]["Checks"][3]["Found"], serde_json::json!(["false"]));
    let multi = allowing(r#""*""#, r#", "Condition": {"StringEquals": {"kms:EncryptionContextKeys": "a"}}"#);
    let decision = ask(
        &requester(ALICE, identity(&[])),
        &key_policy(&multi),
        "kms:Decrypt",
        &[("kms:EncryptionContextKeys", "a")],
    );
    assert!(decision.is_allowed() && decision.assumed.len() == 1);
}
