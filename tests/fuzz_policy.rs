//! Policies that somebody else wrote: reading and judging by them never panics, and no fault in one makes an allow.

use blockseal::iam::{
    Context, Effect, Identity, NamedPolicy, Outcome, Policy, PolicyKind, Question, Requester, ResourcePolicy, evaluate,
};

use crate::fuzz::fuzz;

const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

const POLICIES: [&str; 4] = [
    r#"{"Version": "2012-10-17", "Id": "key-default-1", "Statement": [{"Sid": "Enable IAM User Permissions", "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "kms:*", "Resource": "*"}]}"#,
    r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["kms:Decrypt", "kms:Re*"],
        "Resource": "arn:aws:kms:*:123456789012:key/${aws:username, '1234?*'}", "Condition": {"StringEquals":
        {"kms:CallerAccount": "123456789012"}, "ForAllValues:StringLike": {"kms:EncryptionContextKeys": ["aws:*", "${*}"]}}}]}"#,
    r#"{"Version": "2008-10-17", "Statement": {"Effect": "Deny", "NotPrincipal": {"AWS": ["arn:aws:iam::123456789012:user/alice",
        "123456789012"], "Service": "ec2.amazonaws.com"}, "NotAction": "kms:Describe*", "NotResource": "*", "Condition":
        {"NotIpAddress": {"aws:SourceIp": ["10.0.0.0/8", "::1/128"]}, "DateLessThan": {"aws:CurrentTime": "2026-11-24T00:00:00Z"},
        "NumericLessThanEquals": {"kms:RotationPeriodInDays": [90, 1.5]}, "Bool": {"aws:SecureTransport": false}}}}"#,
    r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*", "Condition": {"ArnLike":
        {"aws:SourceArn": "arn:aws:*:*:*:*"}, "BinaryEquals": {"kms:EncryptionContext:a": "AQI="}, "Null": {"aws:username": "true"}}}]}"#,
];

#[test]
fn a_hostile_policy_is_read_and_judged_without_a_panic() {
    let alice = Requester::administrator("arn:aws:iam::123456789012:user/alice".parse().unwrap());
    let owner = "123456789012".parse().unwrap();
    let mut context = Context::default();
    alice.describe(&mut context);
    context
        .set("kms:CallerAccount", "123456789012")
        .set("aws:SourceIp", "10.1.2.3")
        .set("aws:CurrentTime", "2026-11-24T07:00:00Z")
        .set("kms:RotationPeriodInDays", "90")
        .set_all("kms:EncryptionContextKeys", ["aws:ebs:id"])
        .set_named("kms:EncryptionContext:", "a", "AQI=");
    let corpus: Vec<_> = POLICIES.iter().map(|policy| policy.as_bytes().to_vec()).collect();
    fuzz(&corpus, 1, |input| {
        let text = String::from_utf8_lossy(input);
        let identity = Policy::parse(&text, PolicyKind::Identity).ok().map(|policy| NamedPolicy::new("p", policy));
        let key = match Policy::parse(&text, PolicyKind::Key) {
            Ok(policy) => NamedPolicy::new("key policy", policy),
            Err(error) => {
                assert!(!error.place.is_empty() && error.to_string().len() < 4000);
                // What is no key policy may be an identity policy: then it is judged beside the default one.
                NamedPolicy::new("key policy", Policy::parse(POLICIES[0], PolicyKind::Key).unwrap())
            }
        };
        let identity = identity.map_or(Identity::Administrator, |named| Identity::Policies(vec![named]));
        let requester = Requester { identity, ..alice.clone() };
        let policy = ResourcePolicy::Key(&key);
        let (requester, context, owner) = (&requester, &context, &owner);
        let decision = evaluate(&Question { requester, action: "kms:Decrypt", resource: KEY, owner, policy, context });
        let allows = |policy: &Policy| policy.statements.iter().any(|statement| statement.effect == Effect::Allow);
        assert!(decision.outcome != Outcome::Allowed || allows(&key.policy), "nothing allows it");
        assert_eq!(decision.outcome == Outcome::Undetermined, !decision.undetermined.is_empty());
        serde_json::to_string(&decision).unwrap();
    });
}
