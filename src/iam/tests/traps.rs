//! More policies that were written to trip an evaluator, each with the rule that it is about.

use super::cases::{ALICE, DELEGATE, EVE, FULL, ROOT, SESSION, allowing, decided, denying};
use super::*;

const EVERYONE: &str = r#""*""#;
const EC2: &str = "ec2.us-east-1.amazonaws.com";

/// A condition for a statement.
fn when(conditions: &str) -> String {
    format!(r#", "Condition": {{{conditions}}}"#)
}

/// What becomes of a call by `who` that only a statement with `conditions` allows.
fn under(who: &str, conditions: &str, keys: &[(&str, &str)]) -> &'static str {
    decided(who, identity(&[]), &allowing(EVERYONE, &when(conditions)), keys)
}

#[test]
fn a_key_that_the_request_lacks_is_neither_equal_nor_true_nor_below_anything() {
    let present = [("kms:ViaService", EC2), ("kms:RotationPeriodInDays", "90"), ("aws:MultiFactorAuthPresent", "true")];
    for (condition, absent, there) in [
        (r#""StringEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}"#, "IR", "A"),
        (r#""StringNotEquals": {"kms:ViaService": "rds.us-east-1.amazonaws.com"}"#, "A", "A"),
        (r#""StringNotEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}"#, "A", "IR"),
        (r#""StringEqualsIfExists": {"kms:ViaService": "rds.us-east-1.amazonaws.com"}"#, "A", "IR"),
        (r#""StringNotEqualsIfExists": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}"#, "A", "IR"),
        (r#""StringLike": {"kms:ViaService": "*"}"#, "IR", "A"),
        (r#""StringNotLike": {"kms:ViaService": "*"}"#, "A", "IR"),
        (r#""Null": {"kms:ViaService": "true"}"#, "A", "IR"),
        (r#""Null": {"kms:ViaService": "false"}"#, "IR", "A"),
        (r#""Null": {"kms:ViaService": ["true", "false"]}"#, "A", "A"),
        (r#""NumericLessThan": {"kms:RotationPeriodInDays": "91"}"#, "IR", "A"),
        (r#""NumericNotEquals": {"kms:RotationPeriodInDays": "90"}"#, "A", "IR"),
        (r#""NumericGreaterThanEqualsIfExists": {"kms:RotationPeriodInDays": "91"}"#, "A", "IR"),
        // The best known trap: a user with long-lived keys has no such key at all.
        (r#""Bool": {"aws:MultiFactorAuthPresent": "false"}"#, "IR", "IR"),
        (r#""BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}"#, "A", "IR"),
        (r#""Bool": {"aws:MultiFactorAuthPresent": "true"}"#, "IR", "A"),
    ] {
        assert_eq!([under(ALICE, condition, &[]), under(ALICE, condition, &present)], [absent, there], "{condition}");
    }
}

#[test]
fn conditions_hold_together_and_values_one_of_them() {
    let keys = [("kms:ViaService", EC2), ("kms:EncryptionContext:app", "db"), ("kms:EncryptionContext:env", "test")];
    for (conditions, is) in [
        ("", "A"),
        (r#""StringEquals": {}"#, "A"),
        (r#""StringEquals": {"kms:ViaService": ["rds.us-east-1.amazonaws.com", "ec2.us-east-1.amazonaws.com"]}"#, "A"),
        (r#""StringEquals": {"kms:EncryptionContext:app": "db", "kms:EncryptionContext:env": "test"}"#, "A"),
        (r#""StringEquals": {"kms:EncryptionContext:app": "db", "kms:EncryptionContext:env": "prod"}"#, "IR"),
        (
            r#""StringEquals": {"kms:EncryptionContext:app": "db"}, "StringLike": {"kms:EncryptionContext:env": "p*"}"#,
            "IR",
        ),
        (r#""StringNotEquals": {"kms:EncryptionContext:app": ["db", "web"]}"#, "IR"),
        (r#""StringNotEquals": {"kms:EncryptionContext:app": ["api", "web"]}"#, "A"),
        // No value can be equal to one of none; what is not equal to one of none is not documented.
        (r#""StringEquals": {"kms:ViaService": []}"#, "IR"),
        (r#""StringNotEquals": {"kms:ViaService": []}"#, "U"),
        (r#""ForAllValues:StringEquals": {"kms:EncryptionContextKeys": []}"#, "A"),
        (r#""ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": []}"#, "IR"),
        (r#""Null": {"kms:ViaService": []}"#, "U"),
        (r#""Null": {"kms:ViaService": "maybe"}"#, "U"),
    ] {
        assert_eq!(under(ALICE, conditions, &keys), is, "{conditions}");
    }
}

#[test]
fn names_of_keys_have_no_case_and_values_have_theirs() {
    let keys = [("kms:EncryptionContext:AppName", "Orders"), ("kms:EncryptionContextKeys", "AppName")];
    for (condition, is) in [
        (r#""StringEquals": {"KMS:encryptioncontext:appname": "Orders"}"#, "A"),
        (r#""StringEquals": {"kms:EncryptionContext:AppName": "orders"}"#, "IR"),
        (r#""StringEqualsIgnoreCase": {"kms:EncryptionContext:AppName": "orders"}"#, "A"),
        (r#""StringLike": {"kms:EncryptionContext:AppName": "o*"}"#, "IR"),
        (r#""ForAnyValue:StringEquals": {"kms:encryptioncontextKEYS": "appname"}"#, "IR"),
        (r#""ForAnyValue:StringEquals": {"kms:encryptioncontextKEYS": "AppName"}"#, "A"),
        (r#""stringEquals": {"kms:EncryptionContext:AppName": "Orders"}"#, "U"),
        (r#""StringEquals": {"kms:EncryptionContext:": "Orders"}"#, "U"),
        (r#""StringEquals": {"kms:EncryptionContext": "Orders"}"#, "U"),
    ] {
        assert_eq!(under(ALICE, condition, &keys), is, "{condition}");
    }
    // A letter that looks like another is another.
    let kelvin = allowing(EVERYONE, "").replace("kms:Decrypt", "\u{212a}ms:Decrypt");
    assert_eq!(decided(ALICE, identity(&[]), &kelvin, &[]), "IR");
}

#[test]
fn a_session_is_its_role_to_conditions_and_both_to_principals() {
    let role = r#"{"AWS": "arn:aws:iam::123456789012:role/App"}"#;
    let session = r#"{"AWS": "arn:aws:sts::123456789012:assumed-role/App/s1"}"#;
    let other = "arn:aws:sts::123456789012:assumed-role/App/s2";
    for (principal, who, is) in [
        (role, SESSION, "A"),
        (role, other, "A"),
        (session, SESSION, "A"),
        (session, other, "IR"),
        (r#"{"AWS": "arn:aws:iam::123456789012:role/app"}"#, SESSION, "IR"),
        (r#"{"AWS": "arn:aws:iam::123456789012:user/App"}"#, SESSION, "IR"),
        (r#"{"AWS": []}"#, ALICE, "IR"),
        ("{}", ALICE, "IR"),
        (r#"{"Service": "ec2.amazonaws.com"}"#, ALICE, "IR"),
        (r#"{"Federated": "cognito-identity.amazonaws.com"}"#, ALICE, "IR"),
        (r#"{"CanonicalUser": "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"}"#, ALICE, "U"),
        (r#"{"AWS": "AIDAIOSFODNN7EXAMPLE"}"#, ALICE, "IR"),
    ] {
        assert_eq!(decided(who, identity(&[]), &allowing(principal, ""), &[]), is, "{principal} {who}");
    }
    let role_arn = r#""ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/App"}"#;
    let session_arn = r#""StringEquals": {"aws:PrincipalArn": "arn:aws:sts::123456789012:assumed-role/App/s1"}"#;
    assert_eq!([under(SESSION, role_arn, &[]), under(SESSION, session_arn, &[])], ["A", "IR"]);
    // Whoever spares a session's ARN spares nobody.
    let only = denying(
        r#""Principal": "*""#,
        &when(r#""StringNotEquals": {"aws:PrincipalArn": "arn:aws:sts::123456789012:assumed-role/App/s1"}"#),
    );
    assert_eq!(decided(SESSION, Identity::Administrator, &format!("{DELEGATE}, {only}"), &[]), "ER");
    assert_eq!(under(ALICE, r#""StringLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}"#, &[]), "A");
    assert_eq!(under(SESSION, r#""Null": {"aws:username": "false"}"#, &[]), "IR");
}

#[test]
fn whom_not_principal_spares_is_listed_whole() {
    let with = |who: &str, names: &str| {
        let deny = denying(&format!(r#""NotPrincipal": {names}"#), "");
        decided(who, Identity::Administrator, &format!("{DELEGATE}, {deny}"), &[])
    };
    for (who, names, is) in [
        (ALICE, r#""*""#, "A"),
        (ALICE, r#"{"AWS": "*"}"#, "A"),
        (ALICE, r#"{"Service": "ec2.amazonaws.com"}"#, "ER"),
        (ALICE, r#"{"AWS": "123456789012"}"#, "ER"),
        (ROOT, r#"{"AWS": "123456789012"}"#, "A"),
        (ALICE, r#"{"AWS": ["123456789012", "arn:aws:iam::123456789012:user/bob"]}"#, "ER"),
        (ROOT, r#"{"AWS": ["arn:aws:iam::123456789012:user/alice", "210987654321"]}"#, "ER"),
    ] {
        assert_eq!(with(who, names), is, "{who} {names}");
    }
    let nobody = r#"{"Effect": "Allow", "NotPrincipal": {"AWS": ["123456789012", "arn:aws:iam::123456789012:user/alice"]}, "Action": "kms:*", "Resource": "*"}"#;
    assert_eq!(decided(ALICE, identity(&[]), nobody, &[]), "IR", "it does not mean her, whatever it means");
}

#[test]
fn what_an_identity_policy_lists_is_what_it_means() {
    let with = |rest: &str| {
        let policy = format!(r#"{{"Effect": "Allow", {rest}}}"#);
        decided(ALICE, identity(&[&policy]), DELEGATE, &[])
    };
    for (rest, is) in [
        (r#""Action": "kms:Decrypt", "Resource": "arn:aws:kms:us-east-1:123456789012:key/*""#, "A"),
        (r#""Action": "kms:Decrypt", "Resource": "arn:aws:kms:us-east-1:123456789012:alias/*""#, "II"),
        (r#""Action": "kms:Decrypt", "Resource": "arn:aws:kms:eu-west-1:123456789012:key/*""#, "II"),
        (r#""Action": "kms:Decrypt", "Resource": "arn:aws:kms:us-east-1::key/*""#, "II"),
        (r#""Action": "kms:Decrypt", "NotResource": "arn:aws:kms:us-east-1:123456789012:key/*""#, "II"),
        (r#""NotAction": "iam:*", "Resource": "*""#, "A"),
        (r#""NotAction": ["iam:*", "kms:De*"], "Resource": "*""#, "II"),
        (r#""NotAction": "*", "Resource": "*""#, "II"),
        (r#""Action": "*:*", "Resource": "*""#, "A"),
        (r#""Action": "kms:Decrypt ", "Resource": "*""#, "II"),
        (r#""Action": "kms:ReEncrypt*", "Resource": "*""#, "II"),
        (r#""Action": [], "Resource": "*""#, "II"),
        (r#""Action": "kms:*", "Resource": []"#, "II"),
    ] {
        assert_eq!(with(rest), is, "{rest}");
    }
    let deny = |rest: &str| format!(r#"{{"Effect": "Deny", {rest}}}"#);
    for (rest, is) in [
        (r#""Action": [], "Resource": "*""#, "A"),
        (r#""NotAction": "kms:Decrypt", "Resource": "*""#, "A"),
        (r#""NotAction": "kms:Encrypt", "Resource": "*""#, "EI"),
        (r#""Action": "*", "NotResource": "arn:aws:kms:*:*:key/*""#, "A"),
        (r#""Action": "*", "Resource": "arn:aws:kms:us-east-1:123456789012:key/1234abcd*""#, "EI"),
    ] {
        assert_eq!(decided(ALICE, identity(&[FULL, &deny(rest)]), DELEGATE, &[]), is, "{rest}");
    }
}

#[test]
fn a_service_linked_role_is_let_in_by_the_key_policy_alone() {
    let linked = "arn:aws:sts::123456789012:assumed-role/AWSServiceRoleForAutoScaling/AutoScaling";
    let own = Requester::administrator(linked.parse().unwrap()).identity;
    let role = "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";
    assert_eq!(decided(linked, own.clone(), DELEGATE, &[]), "II");
    let named = format!("{DELEGATE}, {}", allowing(&format!(r#"{{"AWS": "{role}"}}"#), ""));
    assert_eq!(decided(linked, own.clone(), &named, &[]), "A");
    let ask = |action: &str| {
        let requester = requester(linked, own.clone());
        let context = Context::default();
        let policy = ResourcePolicy::None;
        let question =
            Question { requester: &requester, action, resource: "*", owner: &owner(), policy, context: &context };
        evaluate(&question).is_allowed()
    };
    assert!(ask("ec2:RunInstances") && !ask("kms:CreateKey"));
}

#[test]
fn a_document_says_one_thing_only() {
    let read = |text: &str| Policy::parse(text, PolicyKind::Key);
    let rest = r#""Principal": "*", "Action": "kms:*", "Resource": "*""#;
    let with = |more: &str| format!(r#"{{"Version": "2012-10-17", "Statement": [{{{more}, {rest}}}]}}"#);
    assert!(read(&with(r#""Effect": "Deny""#)).is_ok());
    for bad in [
        with(r#""Effect": "Deny", "Effect": "Allow""#),
        with(r#""Effect": "Deny", "\u0045ffect": "Allow""#),
        with(r#""effect": "Deny""#),
        with(r#""Effect": "Deny ""#),
        with(r#""Effect": ["Deny"]"#),
        with(r#""Effect": "Deny", "Action ": "a:b""#),
        with(r#""Effect": "Deny", "Condition": []"#),
        with(r#""Effect": "Deny", "Condition": {"Bool": {"a:b": {"c": 1}}}"#),
        format!("{}x", with(r#""Effect": "Deny""#)),
        format!("\u{feff}{}", with(r#""Effect": "Deny""#)),
        "[".repeat(100_000),
        format!(r#"{{"Statement": {}"#, r#"{"Condition": "#.repeat(10_000)),
    ] {
        assert!(read(&bad).is_err(), "{}", &bad[..bad.len().min(200)]);
    }
}

#[test]
fn what_a_service_does_for_somebody_has_no_address_of_his() {
    let here = r#""IpAddress": {"aws:SourceIp": "10.0.0.0/8"}"#;
    let elsewhere = denying(r#""Principal": "*""#, &when(r#""NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}"#));
    assert_eq!(under(EVE, here, &[("aws:SourceIp", "10.1.1.1")]), "II", "Eve's own account must allow it too");
    assert_eq!(under(ALICE, here, &[("aws:SourceIp", "2001:db8::1")]), "IR");
    assert_eq!(under(ALICE, here, &[("aws:SourceIp", "AWS Internal")]), "IR");
    let policy = format!("{DELEGATE}, {elsewhere}");
    assert_eq!(decided(ALICE, Identity::Administrator, &policy, &[("aws:SourceIp", "10.1.1.1")]), "A");
    assert_eq!(decided(ALICE, Identity::Administrator, &policy, &[]), "ER", "a negated operator without the key");
}
