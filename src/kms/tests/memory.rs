//! What is remembered between two calls, and when it is forgotten: nobody is let in by what was true a moment ago.

use super::*;
use crate::kms::{DisableKeyRequest, PutKeyPolicyRequest};
use crate::twin::{Protection, without};

/// What changes between two calls.
type Change = fn(&Home, &str);

const CHANGES: [(&str, Change, &str); 4] = [
    ("the key's policy", |home, key| put_policy(home, key), "AccessDeniedException"),
    ("the key's state", |home, key| disable(home, key), "DisabledException"),
    ("the caller's policies", |home, _| record_user(home), "AccessDeniedException"),
    ("the material", |home, _| lose_material(home), "InvalidCiphertextException"),
];

fn put_policy(home: &Home, key: &str) {
    let nobody = serde_json::json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "kms:Put*", "Resource": "*",
    }]});
    let request = PutKeyPolicyRequest { key_id: key.to_owned(), policy: nobody.to_string(), ..Default::default() };
    kms::put_key_policy(&root(home), request).unwrap();
}

fn disable(home: &Home, key: &str) {
    kms::disable_key(&root(home), DisableKeyRequest { key_id: key.to_owned() }).unwrap();
}

/// Once a user is recorded it has what its policies say, and this one has none.
fn record_user(home: &Home) {
    home.write(|tx| {
        tx.execute(
            "INSERT INTO iam_entities (account, kind, name, path, id, created)
             VALUES ('123456789012', 'user', 'alice', '/', 'AIDA0000000000000000', 0)",
            [],
        )
        .map_err(ServiceError::from)
    })
    .unwrap();
}

fn lose_material(home: &Home) {
    home.write(|tx| tx.execute("UPDATE kms_material_states SET present = 0", []).map_err(ServiceError::from)).unwrap();
}

/// Decrypts, lets `change` happen through this handle or another one as another process has it, and decrypts again.
fn after(change: Change, through_another: bool) -> Result<Vec<u8>, ServiceError> {
    let (base, home) = temporary();
    let key = new_key(&root(&home));
    let alice = by(&home, "arn:aws:iam::123456789012:user/alice");
    let blob = encrypt(&alice, &key, b"x", &context(&[])).unwrap();
    assert_eq!(decrypt(&alice, &blob, &context(&[])).unwrap(), b"x");
    if through_another {
        change(&Home::open(&base.path().join("home")).unwrap(), &key);
    } else {
        change(&home, &key);
    }
    decrypt(&alice, &blob, &context(&[]))
}

/// In the twins the second call is let in as the first was.
#[test]
fn a_change_counts_for_the_next_call_whoever_made_it() {
    for (what, change, code) in CHANGES {
        for through_another in [false, true] {
            assert_eq!(refusal(after(change, through_another)).0, code, "{what}, by another: {through_another}");
        }
        let stale = without(Protection::Forgetting, || after(change, true));
        assert_eq!(stale.unwrap(), b"x", "{what}");
    }
}

/// The file is looked at for every call, though the backing key is remembered.
#[test]
fn nothing_opens_without_the_root_key() {
    let (_base, home) = temporary();
    let key = new_key(&root(&home));
    let blob = encrypt(&root(&home), &key, b"x", &context(&[])).unwrap();
    let (path, away) = (home.dir().path_of("root.key"), home.dir().path_of("away"));
    std::fs::rename(&path, &away).unwrap();
    let (code, message) = refusal(decrypt(&root(&home), &blob, &context(&[])));
    assert_eq!((code, message.contains("is missing")), ("InternalFailure", true), "{message}");
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(decrypt(&root(&home), &blob, &context(&[])).unwrap(), b"x");
}

/// What a body changed and what was remembered of it go together when it is undone.
#[test]
fn what_was_undone_is_forgotten() {
    let (_base, home) = temporary();
    let key = new_key(&root(&home));
    let undone = home.write(|tx| {
        tx.execute("UPDATE kms_keys SET state = 'Disabled'", [])?;
        kms::keyring::find(tx, key.rsplit('/').next().unwrap_or_default())?;
        Err::<(), _>(crate::store::StoreError::Scarce)
    });
    assert!(undone.is_err());
    encrypt(&root(&home), &key, b"x", &context(&[])).unwrap();
}
