//! The root key's file: made once, private, and nothing works without it.

use super::*;
use crate::kms::{ListKeysRequest, RootKey};
use crate::secret::SecretBytes;
use crate::twin::{Protection, without};
use std::os::unix::fs::PermissionsExt as _;

/// A home with a key and a ciphertext under it.
fn sealed_home() -> (tempfile::TempDir, Home, Blob) {
    let (base, home) = temporary();
    let call = root(&home);
    let key = new_key(&call);
    let blob = encrypt(&call, &key, b"x", &context(&[])).unwrap();
    (base, home, blob)
}

fn complaint(home: &Home, blob: &Blob) -> String {
    let (code, message) = refusal(decrypt(&root(home), blob, &context(&[])));
    assert_eq!(code, "InternalFailure");
    message
}

#[test]
fn the_file_is_private_and_has_32_bytes() {
    let (_base, home, _) = sealed_home();
    let metadata = std::fs::metadata(home.dir().path_of("root.key")).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.len()), (0o600, 32));
}

#[test]
fn a_missing_wrong_cut_or_lax_file_is_named() {
    let (_base, home, blob) = sealed_home();
    let path = home.dir().path_of("root.key");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, [1; 32]).unwrap();
    assert!(complaint(&home, &blob).contains("is not this home's root key"));
    std::fs::write(&path, &good[..31]).unwrap();
    assert!(complaint(&home, &blob).contains("has not the 32 bytes"));
    std::fs::remove_file(&path).unwrap();
    assert!(complaint(&home, &blob).contains("is missing"));
    assert_eq!(refusal(kms::create_key(&root(&home), CreateKeyRequest::default())).0, "InternalFailure");
    assert!(!path.exists(), "no second root key is made in the place of a lost one");
    std::fs::write(&path, &good).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(complaint(&home, &blob).contains("can be read by others"));
    // The twin goes on with a key that others have read.
    without(Protection::Private, || decrypt(&root(&home), &blob, &context(&[]))).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(decrypt(&root(&home), &blob, &context(&[])).unwrap(), b"x");
}

/// Who follows a link takes whatever key its maker chose.
#[test]
fn a_link_in_the_place_of_the_file_is_not_followed() {
    let (_base, home, blob) = sealed_home();
    let path = home.dir().path_of("root.key");
    let elsewhere = home.dir().path().parent().unwrap().join("elsewhere.key");
    std::fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert_eq!(refusal(decrypt(&root(&home), &blob, &context(&[]))).0, "InternalFailure");
    assert_eq!(without(Protection::NoFollow, || decrypt(&root(&home), &blob, &context(&[]))).unwrap(), b"x");
}

/// Without the fingerprint a key would be sealed under a root key that is not the home's, and lost when the right one is
/// put back.
#[test]
fn nothing_is_sealed_under_another_homes_root_key() {
    let (_base, home, _) = sealed_home();
    let path = home.dir().path_of("root.key");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, [1; 32]).unwrap();
    let made = || kms::create_key(&root(&home), CreateKeyRequest::default());
    assert!(refusal(made()).1.contains("is not this home's root key"));
    let lost = without(Protection::Fingerprint, made).unwrap().key_metadata.key_id;
    std::fs::write(&path, &good).unwrap();
    let (code, message) = refusal(encrypt(&root(&home), &lost, b"x", &context(&[])));
    assert_eq!((code, message.contains("is damaged")), ("InternalFailure", true), "{message}");
}

/// A crash after the file was made and before its fingerprint was committed: nothing is sealed under it yet.
#[test]
fn a_file_without_a_fingerprint_is_used_if_whole_and_replaced_if_torn() {
    for (left, kept) in [(32, true), (5, false), (0, false)] {
        let (_base, home) = temporary();
        let path = home.dir().path_of("root.key");
        std::fs::write(&path, vec![3; left]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let call = root(&home);
        let key = new_key(&call);
        let blob = encrypt(&call, &key, b"x", &context(&[])).unwrap();
        assert_eq!(std::fs::read(&path).unwrap() == vec![3; 32], kept);
        assert_eq!(decrypt(&call, &blob, &context(&[])).unwrap(), b"x");
    }
}

/// A sealed backing key that was moved to another key's row does not open. Where it is bound to nothing it does, and who
/// may use the one key encrypts under the material of the other.
#[test]
fn material_is_bound_to_its_key() {
    let attack = || {
        let (_base, home, blob) = sealed_home();
        let other = new_key(&root(&home));
        let swap = "UPDATE kms_materials SET sealed = (SELECT sealed FROM kms_materials WHERE key_id = ?1)";
        home.write(|tx| {
            let id = other.rsplit('/').next().unwrap();
            tx.execute(swap, [id]).map_err(ServiceError::from)
        })
        .unwrap();
        let under_its_own = decrypt(&root(&home), &blob, &context(&[]));
        let under_the_others = encrypt(&root(&home), blob_key(&home, &other).as_str(), b"y", &context(&[]));
        (refusal(under_its_own), under_the_others.map(drop))
    };
    let ((code, message), encrypted) = attack();
    assert_eq!((code, message.contains("is damaged")), ("InternalFailure", true), "{message}");
    assert!(refusal(encrypted).1.contains("is damaged"));
    without(Protection::SealedFor, attack).1.unwrap();
}

/// The key of the home that is not `other`.
fn blob_key(home: &Home, other: &str) -> String {
    let keys = kms::list_keys(&root(home), ListKeysRequest::default()).unwrap().keys;
    keys.into_iter().map(|key| key.key_arn).find(|arn| arn != other).unwrap()
}

#[test]
fn two_handles_make_one_root_key() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("home");
    drop(Home::open(&path).unwrap());
    let keys: Vec<_> = std::thread::scope(|scope| {
        let make = || {
            let home = Home::open(&path).unwrap();
            new_key(&root(&home))
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let home = Home::open(&path).unwrap();
    for key in keys {
        encrypt(&root(&home), &key, b"x", &context(&[])).unwrap();
    }
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::take_from(&mut text.as_bytes().to_vec())
}

#[test]
fn a_passphrase_takes_the_place_of_the_file() {
    let (base, home) = temporary();
    RootKey::use_passphrase(&home, &secret("correct horse")).unwrap();
    let call = root(&home);
    let key = new_key(&call);
    let blob = encrypt(&call, &key, b"x", &context(&[])).unwrap();
    assert!(!home.dir().exists("root.key"));

    let again = Home::open(&base.path().join("home")).unwrap();
    assert!(complaint(&again, &blob).contains("made of a passphrase"));
    let wrong = RootKey::use_passphrase(&again, &secret("correct horsf")).unwrap_err();
    assert!(wrong.message().contains("the passphrase is not this home's"));
    assert!(complaint(&again, &blob).contains("made of a passphrase"), "a wrong one is not kept");
    RootKey::use_passphrase(&again, &secret("correct horse")).unwrap();
    assert_eq!(decrypt(&root(&again), &blob, &context(&[])).unwrap(), b"x");
    assert!(!home_holds(&home, b"correct horse"));
}

#[test]
fn a_passphrase_is_refused_where_it_does_not_apply_and_its_parameters_are_bounded() {
    let (_base, home, _) = sealed_home();
    let refused = RootKey::use_passphrase(&home, &secret("correct horse")).unwrap_err();
    assert!(refused.message().contains("a passphrase does not apply"));
    assert!(RootKey::use_passphrase(&home, &secret("")).unwrap_err().message().contains("empty"));
    let (_base, home) = temporary();
    for bad in ["", "m=65536", "m=99999999,t=3,p=1,salt=00112233445566778899aabbccddeeff", "m=1024,t=3,p=1,salt=0011"] {
        home.write(|tx| crate::store::set_setting(tx, "root_key_argon2id", bad).map_err(ServiceError::from)).unwrap();
        let refused = RootKey::use_passphrase(&home, &secret("correct horse")).unwrap_err();
        assert!(refused.message().contains("no usable parameters"), "{refused}");
    }
}
