//! Ciphertext blobs that somebody else wrote: none but ours opens, and none opens as something else.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blockseal::gate::{Call, ServiceError};
use blockseal::kms;
use blockseal::store::Home;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::fuzz::fuzz;

/// Length of the check at a blob's end: the start of a SHA-256 (`docs/ciphertext-blob.md`), which anybody can compute.
const CHECK_BYTES: usize = 8;

/// Makes the check right, so that what lies behind it is reached.
fn seal(blob: &mut [u8]) {
    if let Some(length) = blob.len().checked_sub(CHECK_BYTES) {
        let digest = Sha256::new().chain_update(b"blockseal blob check v1").chain_update(&blob[..length]).finalize();
        blob[length..].copy_from_slice(&digest[..CHECK_BYTES]);
    }
}

fn decrypt(call: &Call<'_>, blob: &[u8]) -> Result<Value, ServiceError> {
    let request = json!({"CiphertextBlob": STANDARD.encode(blob), "EncryptionContext": {"aws:ebs:id": "vol-ad8c6542"}});
    kms::decrypt(call, serde_json::from_value(request).unwrap()).map(|answer| serde_json::to_value(answer).unwrap())
}

#[test]
fn a_hostile_blob_never_opens() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(&folder.path().join("home")).unwrap();
    let root = "arn:aws:iam::123456789012:root".parse().unwrap();
    let call = Call::direct(&home, root, "us-east-1".parse().unwrap());
    let mut corpus = Vec::new();
    for length in [1, 64] {
        let key = kms::create_key(&call, serde_json::from_value(json!({})).unwrap()).unwrap();
        let request = json!({
            "KeyId": serde_json::to_value(key).unwrap()["KeyMetadata"]["KeyId"],
            "Plaintext": STANDARD.encode(vec![0x5a; length]),
            "EncryptionContext": {"aws:ebs:id": "vol-ad8c6542"},
        });
        let answer = kms::encrypt(&call, serde_json::from_value(request).unwrap()).unwrap();
        let blob = serde_json::to_value(answer).unwrap()["CiphertextBlob"].as_str().unwrap().to_owned();
        let blob = STANDARD.decode(blob).unwrap();
        assert_eq!(decrypt(&call, &blob).unwrap()["Plaintext"], STANDARD.encode(vec![0x5a; length]));
        // The check is where this test thinks it is: without that, the runs below would all stop at it.
        let mut sealed = blob.clone();
        seal(&mut sealed);
        assert_eq!(sealed, blob);
        corpus.push(blob);
    }
    let ours: BTreeSet<Vec<u8>> = corpus.iter().cloned().collect();
    fuzz(&corpus, 100, |input| {
        let mut sealed = input.to_vec();
        seal(&mut sealed);
        for blob in [input, &sealed] {
            match decrypt(&call, blob) {
                Ok(_) => assert!(ours.contains(blob), "a blob that nobody made opens"),
                Err(error) => {
                    let expected = ["InvalidCiphertextException", "ValidationException", "AccessDeniedException"];
                    assert!(expected.contains(&error.code()), "{}: {}", error.code(), error.message());
                    assert!(!ours.contains(blob), "a blob of ours is refused: {}", error.message());
                }
            }
        }
    });
}
