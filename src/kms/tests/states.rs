//! Every operation on a key in every state, against the table.

use super::*;
use crate::kms::states::{KeyState, Origin, Outcome, TABLE};
use crate::kms::{
    CancelKeyDeletionRequest, CreateAliasRequest, CreateGrantRequest, DescribeKeyRequest, DisableKeyRequest,
    UpdateAliasRequest,
};
use crate::twin::{Protection, without};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What a cell's test needs: a key with an alias, a grant and a ciphertext, all made while it was enabled.
struct Bench<'h> {
    call: Call<'h>,
    key: String,
    other_key: String,
    blob: Blob,
    grant: String,
}

/// A key of that origin in that state, which is put there by hand: some are left in no time, and some are never entered.
fn bench(home: &Home, origin: Origin, state: KeyState) -> Bench<'_> {
    let call = root(home);
    let key = new_key(&call);
    let alias = CreateAliasRequest { alias_name: "alias/bench".to_owned(), target_key_id: key.clone() };
    kms::create_alias(&call, alias).unwrap();
    let other_key = new_key(&call);
    let alias = CreateAliasRequest { alias_name: "alias/other".to_owned(), target_key_id: other_key.clone() };
    kms::create_alias(&call, alias).unwrap();
    let blob = encrypt(&call, &key, b"x", &EncryptionContext::default()).unwrap();
    let grant = kms::create_grant(&call, grant_request(&key)).unwrap().grant_id;
    let deletion = (state == KeyState::PendingDeletion).then_some(i64::MAX / 1000);
    let window = (state == KeyState::PendingReplicaDeletion).then_some(7);
    home.write(|tx| {
        tx.execute(
            "UPDATE kms_keys SET state = ?2, deletion = ?3, window_days = ?4, origin = ?5 WHERE key_id = ?1",
            rusqlite::params![key.rsplit('/').next(), state.name(), deletion, window, origin.name()],
        )?;
        Ok::<_, ServiceError>(())
    })
    .unwrap();
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

fn ask<Q: DeserializeOwned, R>(
    bench: &Bench<'_>,
    operation: fn(&Call<'_>, Q) -> Result<R, ServiceError>,
    mut request: Value,
) -> Result<(), ServiceError> {
    if request.get("KeyId").is_some_and(Value::is_null) {
        request["KeyId"] = json!(bench.key);
    }
    operation(&bench.call, serde_json::from_value(request).unwrap()).map(drop)
}

/// Runs one operation on the bench's key, which stands where the request says `null`.
fn run(bench: &Bench<'_>, operation: &str) -> Result<(), ServiceError> {
    let (this, blob, grant) = (json!({"KeyId": null}), json!(bench.blob), json!(bench.grant));
    match operation {
        "Encrypt" => ask(bench, kms::encrypt, json!({"KeyId": null, "Plaintext": "eQ=="})),
        "Decrypt" => ask(bench, kms::decrypt, json!({"CiphertextBlob": blob})),
        "ReEncrypt" => {
            ask(bench, kms::re_encrypt, json!({"CiphertextBlob": blob, "DestinationKeyId": bench.other_key}))
        }
        "GenerateDataKey" => ask(bench, kms::generate_data_key, json!({"KeyId": null, "NumberOfBytes": 64})),
        "GenerateDataKeyWithoutPlaintext" => {
            ask(bench, kms::generate_data_key_without_plaintext, json!({"KeyId": null, "NumberOfBytes": 64}))
        }
        "GenerateRandom" => ask(bench, kms::generate_random, json!({"NumberOfBytes": 8})),
        "CreateGrant" => kms::create_grant(&bench.call, grant_request(&bench.key)).map(drop),
        "ListGrants" => ask(bench, kms::list_grants, this),
        "ListRetirableGrants" => {
            ask(bench, kms::list_retirable_grants, json!({"RetiringPrincipal": "arn:aws:iam::123456789012:root"}))
        }
        "RetireGrant" => ask(bench, kms::retire_grant, json!({"KeyId": null, "GrantId": grant})),
        "RevokeGrant" => ask(bench, kms::revoke_grant, json!({"KeyId": null, "GrantId": grant})),
        "GetKeyPolicy" => ask(bench, kms::get_key_policy, json!({"KeyId": bench.key})),
        "PutKeyPolicy" => {
            let policy = kms::default_policy(&bench.call.account);
            ask(bench, kms::put_key_policy, json!({"KeyId": bench.key, "Policy": policy}))
        }
        "ListKeyPolicies" => ask(bench, kms::list_key_policies, json!({"KeyId": bench.key})),
        "CreateKey" => ask(bench, kms::create_key, json!({})),
        "DescribeKey" => ask(bench, kms::describe_key, this),
        "ListKeys" => ask(bench, kms::list_keys, json!({})),
        "GetKeyLastUsage" => ask(bench, kms::get_key_last_usage, this),
        "UpdateKeyDescription" => ask(bench, kms::update_key_description, json!({"KeyId": null, "Description": "new"})),
        "EnableKey" => ask(bench, kms::enable_key, this),
        "DisableKey" => ask(bench, kms::disable_key, this),
        "ScheduleKeyDeletion" => ask(bench, kms::schedule_key_deletion, this),
        "CancelKeyDeletion" => ask(bench, kms::cancel_key_deletion, this),
        "CreateAlias" => ask(bench, kms::create_alias, json!({"AliasName": "alias/second", "TargetKeyId": bench.key})),
        "UpdateAlias" => ask(bench, kms::update_alias, json!({"AliasName": "alias/other", "TargetKeyId": bench.key})),
        "DeleteAlias" => ask(bench, kms::delete_alias, json!({"AliasName": "alias/bench"})),
        "ListAliases" => ask(bench, kms::list_aliases, this),
        "TagResource" => {
            ask(bench, kms::tag_resource, json!({"KeyId": null, "Tags": [{"TagKey": "a", "TagValue": "b"}]}))
        }
        "UntagResource" => ask(bench, kms::untag_resource, json!({"KeyId": null, "TagKeys": ["a"]})),
        "ListResourceTags" => ask(bench, kms::list_resource_tags, this),
        "EnableKeyRotation" => ask(bench, kms::enable_key_rotation, this),
        "DisableKeyRotation" => ask(bench, kms::disable_key_rotation, this),
        "GetKeyRotationStatus" => ask(bench, kms::get_key_rotation_status, this),
        "RotateKeyOnDemand" => ask(bench, kms::rotate_key_on_demand, this),
        "ListKeyRotations" => ask(bench, kms::list_key_rotations, this),
        "GetParametersForImport" => ask(
            bench,
            kms::get_parameters_for_import,
            json!({"KeyId": null, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}),
        ),
        "ImportKeyMaterial" => ask(
            bench,
            kms::import_key_material,
            json!({
                "KeyId": null, "ImportToken": "eA==", "EncryptedKeyMaterial": "eA==",
                "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE",
            }),
        ),
        "DeleteImportedKeyMaterial" => ask(bench, kms::delete_imported_key_material, this),
        "ReplicateKey" => ask(bench, kms::replicate_key, json!({"KeyId": null, "ReplicaRegion": "eu-west-1"})),
        "UpdatePrimaryRegion" => {
            ask(bench, kms::update_primary_region, json!({"KeyId": null, "PrimaryRegion": "eu-west-1"}))
        }
        other => panic!("the table has {other}, and this test does not run it"),
    }
}

#[test]
fn every_cell_is_as_the_table_says() {
    let mut cells = 0;
    for (operation, origin, row) in TABLE {
        for origin in origin.map_or(vec![Origin::AwsKms, Origin::External], |origin| vec![origin]) {
            for (state, outcome) in KeyState::ALL.into_iter().zip(row) {
                let (_base, home) = temporary();
                let bench = bench(&home, origin, state);
                let answer = run(&bench, operation);
                let what = format!("{operation} of a key of origin {origin:?} that is {state:?}");
                let (key, name) = (&bench.key, origin.name());
                cells += 1;
                let wanted = match outcome {
                    // What goes on may still lack something that this bench has not.
                    Outcome::Goes => {
                        let stopped = answer.as_ref().err().map(|error| (error.code(), error.message()));
                        assert_eq!(stopped, lacking(operation, origin, &bench), "{what}");
                        continue;
                    }
                    Outcome::Disabled => ("DisabledException", format!("{key} is disabled.")),
                    Outcome::InvalidState(what) => ("KMSInvalidStateException", format!("{key} is {what}.")),
                    Outcome::WrongOrigin => (
                        "UnsupportedOperationException",
                        format!("{key} origin is {name} which is not valid for this operation."),
                    ),
                };
                assert_eq!(refusal(answer), wanted, "{what}");
            }
        }
    }
    assert_eq!(cells, (TABLE.len() * 2 - TABLE.iter().filter(|(_, origin, _)| origin.is_some()).count()) * 8);
}

/// What stops an operation behind the table: the bench's key has but one material, and is no multi-Region key.
fn lacking(operation: &str, origin: Origin, bench: &Bench<'_>) -> Option<(&'static str, String)> {
    match (operation, origin) {
        ("RotateKeyOnDemand", Origin::External) => Some((
            "KMSInvalidStateException",
            format!("No available key material pending rotation for the key: {}.", bench.key),
        )),
        ("ReplicateKey" | "UpdatePrimaryRegion", _) => {
            Some(("UnsupportedOperationException", format!("{} is not a multi-Region primary key.", bench.key)))
        }
        ("ImportKeyMaterial", _) => {
            Some(("InvalidImportTokenException", "The import token is not one for this key.".to_owned()))
        }
        _ => None,
    }
}

/// Each operation of the API that names a key has its row.
#[test]
fn no_operation_is_without_a_row() {
    for operation in crate::api::SERVICES.iter().find(|service| service.name == "kms").unwrap().operations {
        if kms::UNSUPPORTED.contains(&operation.name) {
            continue;
        }
        for origin in [Origin::AwsKms, Origin::External] {
            let rows = TABLE.iter().filter(|(name, of, _)| *name == operation.name && of.is_none_or(|of| of == origin));
            assert_eq!(rows.count(), 1, "{} and {origin:?}", operation.name);
        }
    }
}

/// Without the table a key that was disabled or given up goes on encrypting and decrypting.
#[test]
fn only_the_table_stops_a_key_that_is_disabled_or_pending_deletion() {
    for state in [KeyState::Disabled, KeyState::PendingDeletion] {
        for operation in ["Encrypt", "Decrypt", "ReEncrypt", "GenerateDataKey", "CreateGrant"] {
            let (_base, home) = temporary();
            let bench = bench(&home, Origin::AwsKms, state);
            assert!(run(&bench, operation).is_err(), "{operation} of a key that is {state:?}");
            without(Protection::KeyState, || run(&bench, operation)).unwrap();
        }
    }
}

#[test]
fn a_key_that_re_encrypt_comes_to_must_be_usable_too() {
    let (_base, home) = temporary();
    let bench = bench(&home, Origin::AwsKms, KeyState::Enabled);
    kms::disable_key(&bench.call, DisableKeyRequest { key_id: bench.other_key.clone() }).unwrap();
    let wanted = ("DisabledException", format!("{} is disabled.", bench.other_key));
    assert_eq!(refusal(run(&bench, "ReEncrypt")), wanted);
}

#[test]
fn a_cancelled_deletion_leaves_the_key_disabled() {
    let (_base, home) = temporary();
    let bench = bench(&home, Origin::AwsKms, KeyState::Enabled);
    schedule_deletion(&bench.call, &bench.key).unwrap();
    kms::cancel_key_deletion(&bench.call, CancelKeyDeletionRequest { key_id: bench.key.clone() }).unwrap();
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
    let bench = bench(&home, Origin::AwsKms, KeyState::PendingDeletion);
    let request = UpdateAliasRequest { alias_name: "alias/bench".to_owned(), target_key_id: bench.other_key.clone() };
    kms::update_alias(&bench.call, request).unwrap();
}
