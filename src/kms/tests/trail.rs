//! What is recorded, and what never is.

use super::*;
use crate::cloudtrail::{LookupEventsRequest, lookup_events};
use crate::kms::{GenerateDataKeyRequest, ReEncryptRequest};
use crate::twin::{Protection, without};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Names and error codes of the records, oldest first.
fn recorded(home: &Home) -> Vec<(String, Option<String>)> {
    home.read(|tx| {
        let mut statement =
            tx.prepare("SELECT record ->> '$.eventName', record ->> '$.errorCode' FROM trail_records ORDER BY seq")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        Ok::<_, ServiceError>(rows)
    })
    .unwrap()
}

/// Whether a key that was used, refused and failed has a record of each.
fn everything_is_recorded() -> bool {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let blob = encrypt(&call, &key, b"x", &context(&[])).unwrap();
    decrypt(&call, &blob, &context(&[("a", "b")])).unwrap_err();
    encrypt(&call, "no such key", b"x", &context(&[])).unwrap_err();
    encrypt(&call, &key, b"", &context(&[])).unwrap_err();
    std::fs::remove_file(home.dir().path_of("root.key")).unwrap();
    decrypt(&call, &blob, &context(&[])).unwrap_err();
    let wanted = [
        ("CreateKey", None),
        ("Encrypt", None),
        ("Decrypt", Some("InvalidCiphertextException")),
        ("Encrypt", Some("NotFoundException")),
        ("Encrypt", Some("ValidationException")),
        ("Decrypt", Some("InternalFailure")),
    ];
    recorded(&home) == wanted.map(|(name, code)| (name.to_owned(), code.map(str::to_owned)))
}

#[test]
fn every_operation_leaves_a_record_also_when_it_is_refused_or_fails() {
    assert!(everything_is_recorded());
    assert!(!without(Protection::Record, everything_is_recorded));
}

/// Whether another process ever sees as many keys as records of their making, and never another number.
fn keys_and_records_agree(off: bool) -> bool {
    let (base, home) = temporary();
    let call = root(&home);
    let watcher = Home::open(&base.path().join("home")).unwrap();
    let counts = |tx: &crate::store::Transaction<'_>| {
        let query = "SELECT (SELECT count(*) FROM kms_keys), (SELECT count(*) FROM trail_records)";
        tx.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(ServiceError::from)
    };
    std::thread::scope(|scope| {
        let maker = scope.spawn(|| {
            let make = || {
                for _ in 0..40 {
                    new_key(&call);
                }
            };
            if off { without(Protection::Record, make) } else { make() }
        });
        let mut agree = true;
        while !maker.is_finished() {
            let (keys, records): (u32, u32) = watcher.read(counts).unwrap();
            agree &= keys == records;
        }
        agree
    })
}

/// The operation and its record are one transaction: while another process holds the store, neither is there.
#[test]
fn a_change_without_its_record_cannot_be_seen() {
    assert!(keys_and_records_agree(false));
    assert!(!keys_and_records_agree(true));
}

#[test]
fn no_plaintext_blob_or_token_is_in_any_file() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let plaintext = b"an unmistakable plaintext of 45 bytes, no less";
    let blob = encrypt(&call, &key, plaintext, &context(&[("visible", "unmistakable value")])).unwrap();
    decrypt(&call, &blob, &context(&[("visible", "unmistakable value")])).unwrap();
    let request = GenerateDataKeyRequest { key_id: key.clone(), number_of_bytes: Some(64), ..Default::default() };
    let data_key = kms::generate_data_key(&call, request.clone()).unwrap();
    let (_, seen) = kms::generate_data_key_without_plaintext_with(&call, request, |key| key.expose().to_vec()).unwrap();
    kms::re_encrypt(
        &call,
        ReEncryptRequest {
            ciphertext_blob: data_key.ciphertext_blob.clone(),
            destination_key_id: key.clone(),
            ..Default::default()
        },
    )
    .unwrap();
    let grant = kms::create_grant(
        &call,
        kms::CreateGrantRequest {
            key_id: key,
            grantee_principal: "arn:aws:iam::123456789012:user/alice".to_owned(),
            operations: vec!["Decrypt".to_owned()],
            ..Default::default()
        },
    )
    .unwrap();
    kms::decrypt(
        &call,
        DecryptRequest {
            ciphertext_blob: data_key.ciphertext_blob.clone(),
            grant_tokens: vec![grant.grant_token.clone()],
            ..Default::default()
        },
    )
    .unwrap();
    assert!(home_holds(&home, b"unmistakable value"), "the search finds the context, which is recorded");
    assert!(!home_holds(&home, grant.grant_token.as_bytes()));
    // The first 72 bytes of a blob name its key and material, which the store knows in the clear.
    let blobs = (&data_key.ciphertext_blob.0[72..], &blob.0[72..]);
    for secret in [&plaintext[..], data_key.plaintext.0.expose(), &seen, blobs.0, blobs.1] {
        // Sixteen bytes are enough to recognise it by, and either half of a data key would do harm.
        for part in secret.chunks_exact(16) {
            assert!(!home_holds(&home, part));
            assert!(!home_holds(&home, hex::encode(part).as_bytes()));
            assert!(!home_holds(&home, STANDARD.encode(&part[..15]).as_bytes()));
        }
    }
}

#[test]
fn looking_up_is_recorded_too() {
    let (_base, home) = temporary();
    let call = root(&home);
    lookup_events(&call, LookupEventsRequest::default()).unwrap();
    assert_eq!(recorded(&home), [("LookupEvents".to_owned(), None)]);
}

/// A full disk: the operation says so, neither change nor record is there, and afterwards everything goes on.
#[test]
fn on_a_full_disk_an_operation_leaves_nothing() {
    let (_base, home) = temporary();
    let call = root(&home);
    new_key(&call);
    let pages = |limit: u32| {
        home.read(|tx| {
            tx.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(())).map_err(ServiceError::from)
        })
        .unwrap();
    };
    pages(1);
    let before = recorded(&home).len();
    let mut refused = None;
    for _ in 0..1000 {
        let request = CreateKeyRequest { description: Some("x".repeat(4000)), ..Default::default() };
        if let Err(error) = kms::create_key(&call, request) {
            refused = Some(error);
            break;
        }
    }
    let error = refused.expect("the store cannot grow");
    assert!(error.message().contains("the disk that holds the home is full"), "{error}");
    let keys = |home: &Home| {
        home.read(|tx| {
            tx.query_row("SELECT count(*) FROM kms_keys", [], |row| row.get::<_, u32>(0)).map_err(ServiceError::from)
        })
        .unwrap()
    };
    assert!(before >= 1);
    assert_eq!(keys(&home) as usize, recorded(&home).len());
    pages(1_000_000);
    new_key(&call);
    assert_eq!(keys(&home) as usize, recorded(&home).len());
}
