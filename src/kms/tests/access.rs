//! Who may: the account's principals, grants, AWS managed keys.

use super::*;
use crate::cloudtrail::{LookupAttribute, LookupEventsRequest, lookup_events};
use crate::iam::Principal;
use crate::kms::{
    CreateGrantRequest, DisableKeyRequest, GenerateDataKeyRequest, GrantConstraints, ManagedAlias, RetireGrantRequest,
};
use crate::twin::{Protection, without};

const HOST: &str = "arn:aws:sts::123456789012:assumed-role/aws:ec2-infrastructure/i-0123456789abcdef0";
const ALICE: &str = "arn:aws:iam::123456789012:user/alice";
const STRANGER: &str = "arn:aws:iam::210987654321:user/eve";

fn volume() -> EncryptionContext {
    context(&[("aws:ebs:id", "vol-0123456789abcdef0")])
}

/// The grant that an attach makes.
fn attach_grant(key: &str) -> CreateGrantRequest {
    CreateGrantRequest {
        key_id: key.to_owned(),
        grantee_principal: HOST.to_owned(),
        retiring_principal: Some("ec2.us-east-1.amazonaws.com".to_owned()),
        operations: vec!["Decrypt".to_owned()],
        constraints: Some(GrantConstraints { encryption_context_subset: Some(volume()), ..Default::default() }),
        ..Default::default()
    }
}

#[test]
fn a_grantee_may_what_the_grant_says_and_nothing_else() {
    let (_base, home) = temporary();
    let (call, host) = (root(&home), by(&home, HOST));
    let key = new_key(&call);
    let both = context(&[("aws:ebs:id", "vol-0123456789abcdef0"), ("aws:rds:db-id", "db-A")]);
    let elsewhere = context(&[("aws:ebs:id", "vol-1123456789abcdef0")]);
    let blobs: Vec<_> =
        [volume(), both.clone(), elsewhere.clone()].iter().map(|c| encrypt(&call, &key, b"k", c).unwrap()).collect();
    let denied = (
        "AccessDeniedException",
        format!(
            "User: {HOST} is not authorized to perform: kms:Decrypt on the resource associated with this ciphertext \
             because no identity-based policy allows the kms:Decrypt action"
        ),
    );
    assert_eq!(refusal(decrypt(&host, &blobs[0], &volume())), denied, "before the grant");
    let grant = kms::create_grant(&call, attach_grant(&key)).unwrap();
    assert_eq!(decrypt(&host, &blobs[0], &volume()).unwrap(), b"k");
    assert_eq!(decrypt(&host, &blobs[1], &both).unwrap(), b"k", "a subset constraint allows more pairs");
    assert_eq!(refusal(decrypt(&host, &blobs[2], &elsewhere)), denied, "another volume");
    assert_eq!(refusal(decrypt(&host, &blobs[0], &context(&[]))), denied, "no context");
    let (code, message) = refusal(encrypt(&host, &key, b"k", &volume()));
    assert_eq!(code, "AccessDeniedException");
    assert!(message.contains(&format!("kms:Encrypt on resource: {key} because")), "{message}");
    let service =
        Principal::Service { account: "123456789012".parse().unwrap(), name: "ec2.us-east-1.amazonaws.com".to_owned() };
    let retire = RetireGrantRequest { grant_token: Some(grant.grant_token), ..Default::default() };
    assert_eq!(refusal(kms::retire_grant(&host, retire.clone())).0, "AccessDeniedException", "not by the grantee");
    kms::retire_grant(&call.by(service), retire).unwrap();
    assert_eq!(refusal(decrypt(&host, &blobs[0], &volume())), denied, "after the grant");
}

#[test]
fn an_equals_constraint_allows_no_further_pair() {
    let (_base, home) = temporary();
    let (call, host) = (root(&home), by(&home, HOST));
    let key = new_key(&call);
    let both = context(&[("aws:ebs:id", "vol-0123456789abcdef0"), ("aws:rds:db-id", "db-A")]);
    let request = CreateGrantRequest {
        constraints: Some(GrantConstraints { encryption_context_equals: Some(volume()), ..Default::default() }),
        ..attach_grant(&key)
    };
    kms::create_grant(&call, request).unwrap();
    let allowed = encrypt(&call, &key, b"k", &volume()).unwrap();
    let refused = encrypt(&call, &key, b"k", &both).unwrap();
    assert!(decrypt(&host, &allowed, &volume()).is_ok());
    assert_eq!(refusal(decrypt(&host, &refused, &both)).0, "AccessDeniedException");
}

/// Strangers and ungranted hosts are refused; with the policy switched off every one of these calls goes through.
fn intrusions() -> Vec<Result<(), ServiceError>> {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let blob = encrypt(&call, &key, b"k", &volume()).unwrap();
    let (stranger, host) = (by(&home, STRANGER), by(&home, HOST));
    vec![
        decrypt(&stranger, &blob, &volume()).map(drop),
        decrypt(&host, &blob, &volume()).map(drop),
        encrypt(&stranger, &key, b"k", &volume()).map(drop),
        kms::create_grant(&stranger, attach_grant(&key)).map(drop),
        kms::disable_key(&stranger, DisableKeyRequest { key_id: key.clone() }),
    ]
}

#[test]
fn strangers_are_refused_and_only_by_the_policy() {
    for outcome in intrusions() {
        assert_eq!(refusal(outcome).0, "AccessDeniedException");
    }
    assert!(without(Protection::Policy, intrusions).into_iter().all(|outcome| outcome.is_ok()));
}

#[test]
fn a_stranger_is_not_told_whether_a_key_exists() {
    let (_base, home) = temporary();
    let key = new_key(&root(&home));
    let missing = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000";
    let answer = |named: &str| {
        let (code, message) = refusal(encrypt(&by(&home, STRANGER), named, b"k", &context(&[])));
        (code, message.replace(named, "it"))
    };
    assert_eq!(answer(&key), answer(missing));
    assert_eq!(answer(&key), answer("arn:aws:kms:us-east-1:123456789012:alias/any"));
}

#[test]
fn a_grantee_passes_on_no_more_than_it_has() {
    let (_base, home) = temporary();
    let (call, host) = (root(&home), by(&home, HOST));
    let key = new_key(&call);
    let parent =
        CreateGrantRequest { operations: vec!["Decrypt".to_owned(), "CreateGrant".to_owned()], ..attach_grant(&key) };
    kms::create_grant(&call, parent).unwrap();
    let child = CreateGrantRequest { grantee_principal: ALICE.to_owned(), ..attach_grant(&key) };
    kms::create_grant(&host, child.clone()).unwrap();
    let narrower = context(&[("aws:ebs:id", "vol-0123456789abcdef0"), ("more", "1")]);
    let equals = GrantConstraints { encryption_context_equals: Some(narrower), ..Default::default() };
    kms::create_grant(&host, CreateGrantRequest { constraints: Some(equals), ..child.clone() }).unwrap();
    for wider in [
        CreateGrantRequest { operations: vec!["Encrypt".to_owned()], ..child.clone() },
        CreateGrantRequest { constraints: None, ..child.clone() },
        CreateGrantRequest {
            constraints: Some(GrantConstraints {
                encryption_context_subset: Some(context(&[("aws:ebs:id", "vol-x")])),
                ..Default::default()
            }),
            ..child
        },
    ] {
        assert_eq!(refusal(kms::create_grant(&host, wider)).0, "AccessDeniedException");
    }
}

#[test]
fn a_managed_key_works_through_its_service_only_and_is_nobodys_to_change() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = kms::managed_key(&call, ManagedAlias::Ebs).unwrap();
    assert_eq!(kms::managed_key(&call, ManagedAlias::Ebs).unwrap(), key, "made once");
    let request = || GenerateDataKeyRequest { key_id: key.clone(), number_of_bytes: Some(64), ..Default::default() };
    let denied = (
        "AccessDeniedException",
        format!(
            "User: {} is not authorized to perform: kms:GenerateDataKey on resource: {key} because no resource-based \
             policy allows the kms:GenerateDataKey action",
            call.principal
        ),
    );
    assert_eq!(refusal(kms::generate_data_key(&call, request())), denied);
    let other = call.through("rds.us-east-1.amazonaws.com");
    assert_eq!(refusal(kms::generate_data_key(&other, request())).0, "AccessDeniedException");
    let through = call.through_as("ec2.us-east-1.amazonaws.com", "AWS Internal");
    kms::generate_data_key(&through, request()).unwrap();
    assert_eq!(refusal(schedule_deletion(&through, &key)).0, "AccessDeniedException");
    assert_eq!(refusal(kms::disable_key(&call, DisableKeyRequest { key_id: key.clone() })).0, "AccessDeniedException");
}

#[test]
fn a_grant_reaches_into_another_account_and_both_trails_show_it() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let blob = encrypt(&call, &key, b"k", &volume()).unwrap();
    let session = by(&home, "arn:aws:sts::210987654321:assumed-role/Backup/nightly");
    refusal(decrypt(&session, &blob, &volume()));
    let request = CreateGrantRequest {
        grantee_principal: "arn:aws:iam::210987654321:role/Backup".to_owned(),
        ..attach_grant(&key)
    };
    kms::create_grant(&call, request).unwrap();
    assert_eq!(decrypt(&session, &blob, &volume()).unwrap(), b"k");
    let other = by(&home, "arn:aws:sts::210987654321:assumed-role/Other/nightly");
    assert_eq!(refusal(decrypt(&other, &blob, &volume())).0, "AccessDeniedException", "another role");

    let decrypts = |call: &Call<'_>| {
        let asked = LookupEventsRequest {
            lookup_attributes: vec![LookupAttribute {
                attribute_key: "EventName".to_owned(),
                attribute_value: "Decrypt".to_owned(),
            }],
            ..Default::default()
        };
        let events = lookup_events(call, asked).unwrap().events;
        events
            .into_iter()
            .map(|event| serde_json::from_str(&event.cloud_trail_event).unwrap())
            .collect::<Vec<serde_json::Value>>()
    };
    let (here, there) = (decrypts(&call), decrypts(&session));
    assert_eq!((here.len(), there.len()), (1, 3), "denials are in the caller's trail alone");
    assert!(here[0]["sharedEventID"].is_string() && here[0]["sharedEventID"] == there[1]["sharedEventID"]);
    assert_ne!(here[0]["eventID"], there[1]["eventID"]);
    assert_eq!(
        (&here[0]["recipientAccountId"], &here[0]["userIdentity"]["type"]),
        (&"123456789012".into(), &"AWSAccount".into())
    );
    assert_eq!(here[0]["userIdentity"]["accountId"], "210987654321");
    assert!(there[0].get("sharedEventID").is_none() && there[2].get("sharedEventID").is_none());
}
