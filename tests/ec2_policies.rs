//! Key policies as people write them for volumes: what each missing or added statement does to a volume's life.

use serde_json::{Value, json};

use crate::harness::Home;

const ALICE: &str = "arn:aws:iam::123456789012:user/alice";
const AUTO_SCALING: &str =
    "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";

/// A user who may everything in EC2 and nothing in KMS, so that key policies alone let her in.
fn home() -> Home {
    let home = Home::new();
    home.json("iam create-user --user-name alice");
    let policy = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}});
    let put = ["iam", "put-user-policy", "--user-name", "alice", "--policy-name", "ec2", "--policy-document"];
    home.json_of(&[&put[..], &[&policy.to_string()]].concat());
    home
}

/// A key with AWS's default statement and these.
fn key(home: &Home, statements: &[Value]) -> String {
    let account = json!({"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "kms:*", "Resource": "*"});
    let statements: Vec<_> = std::iter::once(&account).chain(statements).collect();
    let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    home.json_of(&["kms", "create-key", "--policy", &policy])["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
}

/// A statement for `principal`; `more` adds to it.
fn statement(effect: &str, principal: &Value, actions: &[&str], more: &Value) -> Value {
    let mut statement = json!({"Effect": effect, "Principal": principal, "Action": actions, "Resource": "*"});
    statement.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    statement
}

/// What becomes of a volume under `key` in the hands of `principal`: `gone` after its creation, `revoked` at its attach, or
/// `attached`.
fn life(home: &Home, principal: &str, key: &str) -> &'static str {
    let by = |line: &str| format!("--principal {principal} {line}");
    let create = format!("ec2 create-volume --size 1 --encrypted --kms-key-id {key} --availability-zone us-east-1a");
    let volume = home.json(&by(&create))["VolumeId"].as_str().unwrap().to_owned();
    let shown = home.run(by(&format!("ec2 describe-volumes --volume-ids {volume}")).split(' '));
    if !shown.status.success() {
        assert!(String::from_utf8_lossy(&shown.stderr).contains("InvalidVolume.NotFound"));
        return "gone";
    }
    let attached = home.run(by(&format!("ec2 attach-volume --volume-id {volume}")).split(' '));
    if !attached.status.success() {
        let said = String::from_utf8_lossy(&attached.stderr).into_owned();
        assert!(said.contains("(CustomerKeyHasBeenRevoked)"), "{said}");
        return "revoked";
    }
    home.json(&by(&format!("ec2 detach-volume --volume-id {volume}")));
    "attached"
}

/// The statements of the EBS user guide ("How Amazon EBS encryption works"): use, and grants for AWS resources alone.
fn of_the_guide(principal: &Value) -> [Value; 2] {
    let use_it = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"];
    let grants = ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"];
    let for_aws = json!({"Condition": {"Bool": {"kms:GrantIsForAWSResource": "true"}}});
    [statement("Allow", principal, &use_it, &json!({})), statement("Allow", principal, &grants, &for_aws)]
}

#[test]
fn the_guides_policy_lets_a_volume_live_and_each_part_of_it_is_needed() {
    let home = home();
    let alice = json!({"AWS": ALICE});
    let [use_it, grants] = of_the_guide(&alice);
    assert_eq!(life(&home, ALICE, &key(&home, &[])), "gone", "ec2:* says nothing of keys");
    assert_eq!(life(&home, ALICE, &key(&home, std::slice::from_ref(&use_it))), "revoked", "no grant for the host");
    assert_eq!(life(&home, ALICE, &key(&home, std::slice::from_ref(&grants))), "gone", "no data key");
    let whole = key(&home, &[use_it, grants]);
    assert_eq!(life(&home, ALICE, &whole), "attached");
    // The condition keeps her from making grants of her own.
    let own = format!(
        "--principal {ALICE} kms create-grant --key-id {whole} --grantee-principal {ALICE} --operations Decrypt"
    );
    let said = home.refused(254, &own.split(' ').collect::<Vec<_>>());
    assert!(said.contains("(AccessDeniedException)") && said.contains("kms:CreateGrant"), "{said}");
}

#[test]
fn conditions_on_service_and_context_reach_what_ec2_does_for_somebody() {
    let home = home();
    let alice = json!({"AWS": ALICE});
    let when = |operator: &str, name: &str, value: &str| json!({"Condition": {operator: {name: value}}});
    let through = when("StringEquals", "kms:ViaService", "ec2.us-east-1.amazonaws.com");
    let all = ["kms:CreateGrant", "kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*"];
    let only = key(&home, &[statement("Allow", &alice, &all, &through)]);
    assert_eq!(life(&home, ALICE, &only), "attached");
    let direct = format!("--principal {ALICE} kms encrypt --key-id {only} --plaintext eA==");
    assert!(home.refused(254, &direct.split(' ').collect::<Vec<_>>()).contains("(AccessDeniedException)"));
    // The constraint of the host's grant stands for the context of CreateGrant.
    let volumes = when("StringLike", "kms:EncryptionContext:aws:ebs:id", "vol-*");
    assert_eq!(life(&home, ALICE, &key(&home, &[statement("Allow", &alice, &all, &volumes)])), "attached");
    let another = when("StringEquals", "kms:EncryptionContext:AWS:EBS:ID", "vol-0123456789abcdef0");
    assert_eq!(life(&home, ALICE, &key(&home, &[statement("Allow", &alice, &all, &another)])), "gone");
    let elsewhere = when("StringEquals", "kms:ViaService", "ec2.eu-west-1.amazonaws.com");
    assert_eq!(life(&home, ALICE, &key(&home, &[statement("Allow", &alice, &all, &elsewhere)])), "gone");
}

#[test]
fn a_deny_reaches_the_host_whatever_its_grant_allows() {
    let home = home();
    let everybody = json!("*");
    let [use_it, grants] = of_the_guide(&json!({"AWS": ALICE}));
    let with = |deny: Value| key(&home, &[use_it.clone(), grants.clone(), deny]);
    let decrypt = statement("Deny", &everybody, &["kms:Decrypt"], &json!({}));
    assert_eq!(life(&home, ALICE, &with(decrypt)), "revoked");
    // Whoever means to spare one user forgets that it is the host that decrypts.
    let others = json!({"Condition": {"StringNotEquals": {"aws:PrincipalArn": ALICE}}});
    assert_eq!(life(&home, ALICE, &with(statement("Deny", &everybody, &["kms:Decrypt"], &others))), "revoked");
    let people = json!({"Condition": {"StringNotLike": {"aws:PrincipalArn": [ALICE, "arn:aws:iam::*:role/aws:ec2-infrastructure"]}}});
    assert_eq!(life(&home, ALICE, &with(statement("Deny", &everybody, &["kms:Decrypt"], &people))), "attached");
}

#[test]
fn auto_scaling_gets_at_a_key_by_its_policy_alone() {
    let home = home();
    let describe = |key: &str| {
        let line = format!("--principal {AUTO_SCALING} kms describe-key --key-id {key}");
        home.run(line.split(' ')).status.success()
    };
    assert!(!describe(&key(&home, &[])), "its own policy has no keys in it, and an account cannot change it");
    assert!(describe(&key(&home, &of_the_guide(&json!({"AWS": AUTO_SCALING})))));
}
