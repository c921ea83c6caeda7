//! The end of a key: when, how often, and what is left of it in the home's files.

use super::*;
use crate::gate;
use crate::kms::{DescribeKeyRequest, RotateKeyOnDemandRequest, SERVICE};
use crate::twin::{Protection, without};

/// The sealed backing key of the only key, as it lies in the store.
fn sealed(home: &Home) -> Vec<u8> {
    let [sealed] = &all_sealed(home)[..] else { panic!("there is one key with one material") };
    sealed.clone()
}

/// Every sealed backing key in the order in which they were made.
fn all_sealed(home: &Home) -> Vec<Vec<u8>> {
    home.read(|tx| {
        let mut statement = tx.prepare("SELECT sealed FROM kms_materials ORDER BY seq")?;
        let rows = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok::<_, ServiceError>(rows)
    })
    .unwrap()
}

/// Makes a key among many others, deletes it, and says whether its sealed material can still be found.
fn material_survives() -> bool {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let sealed = sealed(&home);
    for _ in 0..30 {
        new_key(&call);
    }
    assert!(home_holds(&home, &sealed), "the search finds what is there");
    schedule_deletion(&call, &key).unwrap();
    home.advance_clock(days(7)).unwrap();
    kms::list_keys(&call, kms::ListKeysRequest::default()).unwrap();
    home_holds(&home, &sealed)
}

#[test]
fn nothing_of_a_deleted_key_is_left_in_any_file() {
    assert!(!material_survives());
    assert!(without(Protection::Overwrite, material_survives));
    assert!(without(Protection::LogTruncation, material_survives));
}

/// How many of the nine materials of a rotated and deleted key can still be found.
fn surviving_materials() -> usize {
    let (_base, home) = temporary();
    let call = root(&home);
    let (key, other) = (new_key(&call), new_key(&call));
    for _ in 0..8 {
        for key in [&key, &other] {
            kms::rotate_key_on_demand(&call, RotateKeyOnDemandRequest { key_id: key.clone() }).unwrap();
        }
    }
    let sealed = all_sealed(&home);
    assert_eq!(sealed.len(), 18);
    schedule_deletion(&call, &key).unwrap();
    home.advance_clock(days(7)).unwrap();
    kms::list_keys(&call, kms::ListKeysRequest::default()).unwrap();
    let blob = encrypt(&call, &other, b"x", &context(&[])).unwrap();
    assert_eq!(decrypt(&call, &blob, &context(&[])).unwrap(), b"x", "the other key is whole");
    sealed.iter().filter(|sealed| home_holds(&home, sealed)).count() - 9
}

#[test]
fn every_material_of_a_rotated_key_is_shredded() {
    assert_eq!(surviving_materials(), 0);
    assert_eq!(without(Protection::Overwrite, surviving_materials), 9);
    assert_eq!(without(Protection::LogTruncation, surviving_materials), 9);
}

/// Whether imported material can still be found after it was deleted, or after its time was over.
fn imported_material_survives(deleted: bool) -> bool {
    let (_base, home) = temporary();
    let call = root(&home);
    let external = CreateKeyRequest { origin: Some("EXTERNAL".to_owned()), ..Default::default() };
    let key = kms::create_key(&call, external).unwrap().key_metadata.arn;
    import(&call, &key, home.now().unwrap().after(days(1)));
    let sealed = sealed(&home);
    for _ in 0..30 {
        new_key(&call);
    }
    assert!(home_holds(&home, &sealed), "the search finds what is there");
    if deleted {
        let request = kms::DeleteImportedKeyMaterialRequest { key_id: key, ..Default::default() };
        kms::delete_imported_key_material(&call, request).unwrap();
    } else {
        home.advance_clock(days(1)).unwrap();
        kms::list_keys(&call, kms::ListKeysRequest::default()).unwrap();
    }
    home_holds(&home, &sealed)
}

/// Imports material that OpenSSL wrapped.
fn import(call: &Call<'_>, key: &str, valid_to: crate::clock::Time) {
    let request = kms::GetParametersForImportRequest {
        key_id: key.to_owned(),
        wrapping_algorithm: "RSAES_OAEP_SHA_256".to_owned(),
        wrapping_key_spec: "RSA_2048".to_owned(),
    };
    let given = kms::get_parameters_for_import(call, request).unwrap();
    let public = openssl::pkey::PKey::public_key_from_der(&given.public_key.0).unwrap();
    let mut encrypter = openssl::encrypt::Encrypter::new(&public).unwrap();
    encrypter.set_rsa_padding(openssl::rsa::Padding::PKCS1_OAEP).unwrap();
    encrypter.set_rsa_oaep_md(openssl::hash::MessageDigest::sha256()).unwrap();
    let mut wrapped = vec![0; encrypter.encrypt_len(&[7; 32]).unwrap()];
    let length = encrypter.encrypt(&[7; 32], &mut wrapped).unwrap();
    wrapped.truncate(length);
    let request = kms::ImportKeyMaterialRequest {
        key_id: key.to_owned(),
        import_token: given.import_token,
        encrypted_key_material: Blob(wrapped),
        valid_to: Some(valid_to),
        ..Default::default()
    };
    kms::import_key_material(call, request).unwrap();
}

#[test]
fn imported_material_that_was_deleted_or_expired_is_shredded() {
    for deleted in [true, false] {
        let survives = || imported_material_survives(deleted);
        assert!(!survives(), "{deleted}");
        assert!(without(Protection::Overwrite, survives) && without(Protection::LogTruncation, survives), "{deleted}");
    }
}

/// Many keys made and deleted in an irregular order: pages of the database are split and emptied on the way.
#[test]
fn no_copy_stays_behind_in_a_rebuilt_page() {
    let (_base, home) = temporary();
    let call = root(&home);
    let keys: Vec<_> = (0..160).map(|_| new_key(&call)).collect();
    let sealed = all_sealed(&home);
    let doomed: Vec<_> = (0..160).filter(|index| index * 7 % 10 < 6).collect();
    for index in &doomed {
        schedule_deletion(&call, &keys[*index]).unwrap();
    }
    home.advance_clock(days(8)).unwrap();
    gate::settle(&home, SERVICE.settlers).unwrap();
    for (index, sealed) in sealed.iter().enumerate() {
        assert_eq!(home_holds(&home, sealed), !doomed.contains(&index), "key {index}");
    }
}

#[test]
fn a_key_is_deleted_when_it_is_due_and_not_before() {
    let (_base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let blob = encrypt(&call, &key, b"x", &context(&[])).unwrap();
    schedule_deletion(&call, &key).unwrap();
    home.advance_clock(days(7) - SignedDuration::from_mins(1)).unwrap();
    assert_eq!(refusal(decrypt(&call, &blob, &context(&[]))).0, "KMSInvalidStateException");
    home.advance_clock(SignedDuration::from_mins(1)).unwrap();
    let (code, message) = refusal(decrypt(&call, &blob, &context(&[])));
    assert_eq!(code, "AccessDeniedException");
    assert!(message.contains("kms:Decrypt on the resource associated with this ciphertext"), "{message}");
    let describe = DescribeKeyRequest { key_id: key.clone(), ..Default::default() };
    let wanted = ("NotFoundException", format!("Key '{key}' does not exist"));
    assert_eq!(refusal(kms::describe_key(&call, describe)), wanted);
}

/// Deletions that several handles find due at once are done once each, in due order, and each leaves one record.
#[test]
fn due_deletions_happen_once_and_in_due_order() {
    let (base, home) = temporary();
    let call = root(&home);
    let keys: Vec<_> = (0..8).map(|_| new_key(&call)).collect();
    for key in keys.iter().rev() {
        schedule_deletion(&call, key).unwrap();
    }
    home.advance_clock(days(30)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let home = Home::open(&base.path().join("home")).unwrap();
                gate::settle(&home, SERVICE.settlers).unwrap();
            });
        }
    });
    let deleted: Vec<String> = home
        .read(|tx| {
            let mut statement = tx.prepare(
                "SELECT record ->> '$.resources[0].ARN' FROM trail_records
                 WHERE record ->> '$.eventName' = 'DeleteKey' ORDER BY seq",
            )?;
            let rows = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok::<_, ServiceError>(rows)
        })
        .unwrap();
    let wanted: Vec<_> = keys.into_iter().rev().collect();
    assert_eq!(deleted, wanted);
}

/// A reader of another process keeps the log from being truncated; the next operation after it does it.
#[test]
fn a_truncation_that_a_reader_held_up_is_made_up_for() {
    let (base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let sealed = sealed(&home);
    schedule_deletion(&call, &key).unwrap();
    home.advance_clock(days(7)).unwrap();
    let reader = Home::open(&base.path().join("home")).unwrap();
    reader
        .read(|tx| {
            tx.query_row("SELECT count(*) FROM kms_keys", [], |_| Ok(()))?;
            gate::settle(&home, SERVICE.settlers).unwrap();
            assert!(home_holds(&home, &sealed), "the reader's view is still in the log");
            Ok::<_, ServiceError>(())
        })
        .unwrap();
    kms::list_keys(&call, kms::ListKeysRequest::default()).unwrap();
    assert!(!home_holds(&home, &sealed));
}

/// Killed between the transaction that overwrites the material and the truncation of the log.
#[test]
fn a_truncation_that_a_crash_cut_off_is_made_up_for() {
    let (base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let sealed = sealed(&home);
    schedule_deletion(&call, &key).unwrap();
    home.advance_clock(days(7)).unwrap();
    without(Protection::LogTruncation, || gate::settle(&home, SERVICE.settlers).unwrap());
    assert!(home_holds(&home, &sealed));
    // The connection that "crashed" stays open, as closing it in order would itself empty the log.
    let next = Home::open(&base.path().join("home")).unwrap();
    kms::list_keys(&root(&next), kms::ListKeysRequest::default()).unwrap();
    assert!(!home_holds(&home, &sealed));
}
