//! Every operation on a key in every state that a key can have now, against the table.

use super::*;
use crate::kms::states::{KeyState, Outcome, TABLE};
use crate::kms::{
    CancelKeyDeletionRequest, CreateAliasRequest, CreateGrantRequest, DeleteAliasRequest, DescribeKeyRequest,
    DisableKeyRequest, EnableKeyRequest, GenerateDataKeyRequest, ListAliasesRequest, ListGrantsRequest,
    ListKeysRequest, ReEncryptRequest, RetireGrantRequest, RevokeGrantRequest, UpdateAliasRequest,
};
use crate::twin::{Protection, without};

/// What a cell's test needs: a key with an alias, a grant and a ciphertext, all made while it was enabled.
struct Bench<'h> {
    call: Call<'h>,
    key: String,
    other_key: String,
    blob: Blob,
    grant: String,
}

fn bench(home: &Home, state: KeyState) -> Bench<'_> {
    let call = root(home);
    let key = new_key(&call);
    let alias = CreateAliasRequest { alias_name: "alias/bench".to_owned(), target_key_id: key.clone() };
    kms::create_alias(&call, alias).unwrap();
    let other_key = new_key(&call);
    let alias = CreateAliasRequest { alias_name: "alias/other".to_owned(), target_key_id: other_key.clone() };
    kms::create_alias(&call, alias).unwrap();
    let blob = encrypt(&call, &key, b"x", &EncryptionContext::default()).unwrap();
    let grant = kms::create_grant(&call, grant_request(&key)).unwrap().grant_id;
    match state {
        KeyState::Enabled => {}
        KeyState::Disabled => kms::disable_key(&call, DisableKeyRequest { key_id: key.clone() }).unwrap(),
        KeyState::PendingDeletion => schedule_deletion(&call, &key).unwrap(),
        other => panic!("no key gets into {other:?} yet"),
    }
    Bench { call, key, other_key, blob, grant }
}

fn grant_request(key: &str) -> CreateGrantRequest {
    CreateGrantRequest {
        key_id: key.to_owned(),
        grantee_principal: "arn:aws:iam::123456789012:user/alice".to_owned(),
        operations: vec!["Decrypt".to_owned()],
        ..Default::default()
    }
}

fn run(bench: &Bench<'_>, operation: &str) -> Result<(), ServiceError> {
    let (call, key_id) = (&bench.call, bench.key.clone());
    let data_key = || GenerateDataKeyRequest {
        key_id: bench.key.clone(),
        number_of_bytes: Some(64),
        ..GenerateDataKeyRequest::default()
    };
    match operation {
        "Encrypt" => encrypt(call, &key_id, b"y", &EncryptionContext::default()).map(drop),
        "Decrypt" => decrypt(call, &bench.blob, &EncryptionContext::default()).map(drop),
        "ReEncrypt" => {
            let request = ReEncryptRequest {
                ciphertext_blob: bench.blob.clone(),
                destination_key_id: bench.other_key.clone(),
                ..Default::default()
            };
            kms::re_encrypt(call, request).map(drop)
        }
        "GenerateDataKey" => kms::generate_data_key(call, data_key()).map(drop),
        "GenerateDataKeyWithoutPlaintext" => kms::generate_data_key_without_plaintext(call, data_key()).map(drop),
        "CreateGrant" => kms::create_grant(call, grant_request(&key_id)).map(drop),
        "ListGrants" => kms::list_grants(call, ListGrantsRequest { key_id, ..Default::default() }).map(drop),
        "RetireGrant" => {
            let grant_id = Some(bench.grant.clone());
            kms::retire_grant(call, RetireGrantRequest { key_id: Some(key_id), grant_id, ..Default::default() })
        }
        "RevokeGrant" => {
            kms::revoke_grant(call, RevokeGrantRequest { key_id, grant_id: bench.grant.clone(), dry_run: None })
        }
        "DescribeKey" => kms::describe_key(call, DescribeKeyRequest { key_id, ..Default::default() }).map(drop),
        "EnableKey" => kms::enable_key(call, EnableKeyRequest { key_id }),
        "DisableKey" => kms::disable_key(call, DisableKeyRequest { key_id }),
        "ScheduleKeyDeletion" => schedule_deletion(call, &key_id),
        "CancelKeyDeletion" => kms::cancel_key_deletion(call, CancelKeyDeletionRequest { key_id }).map(drop),
        "CreateAlias" => {
            let alias_name = "alias/second".to_owned();
            kms::create_alias(call, CreateAliasRequest { alias_name, target_key_id: key_id })
        }
        "UpdateAlias" => {
            let alias_name = "alias/other".to_owned();
            kms::update_alias(call, UpdateAliasRequest { alias_name, target_key_id: key_id })
        }
        "DeleteAlias" => kms::delete_alias(call, DeleteAliasRequest { alias_name: "alias/bench".to_owned() }),
        "ListAliases" => {
            kms::list_aliases(call, ListAliasesRequest { key_id: Some(key_id), ..Default::default() }).map(drop)
        }
        "CreateKey" => kms::create_key(call, CreateKeyRequest::default()).map(drop),
        "ListKeys" => kms::list_keys(call, ListKeysRequest::default()).map(drop),
        other => panic!("the table has {other}, and this test does not run it"),
    }
}

#[test]
fn every_cell_that_can_occur_is_as_the_table_says() {
    for (column, state) in [KeyState::Enabled, KeyState::Disabled, KeyState::PendingDeletion].into_iter().enumerate() {
        assert_eq!(KeyState::ALL[column], state);
        for (operation, row) in TABLE {
            let (_base, home) = temporary();
            let bench = bench(&home, state);
            let outcome = run(&bench, operation);
            match row[column] {
                Outcome::Goes => assert!(outcome.is_ok(), "{operation} of a key that is {state:?}: {outcome:?}"),
                Outcome::Disabled => {
                    assert_eq!(refusal(outcome), ("DisabledException", format!("{} is disabled.", bench.key)));
                }
                Outcome::InvalidState(what) => {
                    let wanted = ("KMSInvalidStateException", format!("{} is {what}.", bench.key));
                    assert_eq!(refusal(outcome), wanted, "{operation} of a key that is {state:?}");
                }
            }
        }
    }
}

/// Without the table a key that was disabled or given up goes on encrypting and decrypting.
#[test]
fn only_the_table_stops_a_key_that_is_disabled_or_pending_deletion() {
    for state in [KeyState::Disabled, KeyState::PendingDeletion] {
        for operation in ["Encrypt", "Decrypt", "ReEncrypt", "GenerateDataKey", "CreateGrant"] {
            let (_base, home) = temporary();
            let bench = bench(&home, state);
            assert!(run(&bench, operation).is_err(), "{operation} of a key that is {state:?}");
            without(Protection::KeyState, || run(&bench, operation)).unwrap();
        }
    }
}

#[test]
fn a_key_that_re_encrypt_comes_to_must_be_usable_too() {
    let (_base, home) = temporary();
    let bench = bench(&home, KeyState::Enabled);
    kms::disable_key(&bench.call, DisableKeyRequest { key_id: bench.other_key.clone() }).unwrap();
    let wanted = ("DisabledException", format!("{} is disabled.", bench.other_key));
    assert_eq!(refusal(run(&bench, "ReEncrypt")), wanted);
}

#[test]
fn a_cancelled_deletion_leaves_the_key_disabled() {
    let (_base, home) = temporary();
    let bench = bench(&home, KeyState::PendingDeletion);
    run(&bench, "CancelKeyDeletion").unwrap();
    let described =
        kms::describe_key(&bench.call, DescribeKeyRequest { key_id: bench.key.clone(), ..Default::default() }).unwrap();
    assert_eq!((described.key_metadata.key_state, described.key_metadata.enabled), ("Disabled", false));
    assert_eq!(described.key_metadata.deletion_date, None);
    home.advance_clock(days(400)).unwrap();
    run(&bench, "EnableKey").unwrap();
    assert_eq!(decrypt(&bench.call, &bench.blob, &EncryptionContext::default()).unwrap(), b"x");
}

#[test]
fn an_alias_can_leave_a_key_in_any_state() {
    let (_base, home) = temporary();
    let bench = bench(&home, KeyState::PendingDeletion);
    let request = UpdateAliasRequest { alias_name: "alias/bench".to_owned(), target_key_id: bench.other_key.clone() };
    kms::update_alias(&bench.call, request).unwrap();
}
