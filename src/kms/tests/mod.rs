//! Unit tests of KMS that need its inside: every cell of the state table, what the store's files hold, and twins with a
//! protection switched off.

mod access;
mod digests;
mod grants;
mod memory;
mod policy;
mod root_key;
mod shredding;
mod states;
mod trail;

use jiff::SignedDuration;

use crate::gate::{Call, ServiceError};
use crate::iam::Principal;
use crate::kms::{
    self, Blob, CreateKeyRequest, DecryptRequest, EncryptRequest, EncryptionContext, ScheduleKeyDeletionRequest,
    SecretBlob,
};
use crate::store::Home;

/// A home in a temporary directory.
fn temporary() -> (tempfile::TempDir, Home) {
    let base = tempfile::tempdir().unwrap();
    let home = Home::open(&base.path().join("home")).unwrap();
    (base, home)
}

/// A call by the account's root.
fn root(home: &Home) -> Call<'_> {
    by(home, "arn:aws:iam::123456789012:root")
}

fn by<'h>(home: &'h Home, arn: &str) -> Call<'h> {
    Call::direct(home, principal(arn), "us-east-1".parse().unwrap())
}

fn principal(arn: &str) -> Principal {
    arn.parse().unwrap()
}

/// A new key's ARN.
fn new_key(call: &Call<'_>) -> String {
    kms::create_key(call, CreateKeyRequest::default()).unwrap().key_metadata.arn
}

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    pairs.iter().copied().collect()
}

/// Records a user (`alice`) or role (`role/App`, `role/path/App`) of the account, with at most one inline policy.
fn record(home: &Home, name: &str, policy: Option<&str>) {
    let (kind, named) = name.split_once("role/").map_or(("user", name), |(_, named)| ("role", named));
    let (path, name) =
        named.rsplit_once('/').map_or(("/".to_owned(), named), |(path, name)| (format!("/{path}/"), name));
    home.write(|tx| {
        tx.execute(
            "INSERT INTO iam_entities (account, kind, name, path, id, created) VALUES ('123456789012', ?1, ?2, ?3, 'X', 0)",
            [kind, name, &path],
        )?;
        let entity = tx.last_insert_rowid();
        if let Some(policy) = policy {
            tx.execute("INSERT INTO iam_policies VALUES (?1, 'p', ?2)", rusqlite::params![entity, policy])?;
        }
        Ok::<_, ServiceError>(())
    })
    .unwrap();
}

fn encrypt_request(key_id: &str, plaintext: &[u8], context: &EncryptionContext) -> EncryptRequest {
    EncryptRequest {
        key_id: key_id.to_owned(),
        plaintext: SecretBlob::take_from(&mut plaintext.to_vec()),
        encryption_context: context.clone(),
        grant_tokens: Vec::new(),
        encryption_algorithm: None,
        dry_run: None,
    }
}

fn encrypt(call: &Call<'_>, key_id: &str, plaintext: &[u8], context: &EncryptionContext) -> Result<Blob, ServiceError> {
    kms::encrypt(call, encrypt_request(key_id, plaintext, context)).map(|answer| answer.ciphertext_blob)
}

fn decrypt(call: &Call<'_>, blob: &Blob, context: &EncryptionContext) -> Result<Vec<u8>, ServiceError> {
    let request =
        DecryptRequest { ciphertext_blob: blob.clone(), encryption_context: context.clone(), ..Default::default() };
    kms::decrypt(call, request).map(|answer| answer.plaintext.0.expose().to_vec())
}

fn schedule_deletion(call: &Call<'_>, key_id: &str) -> Result<(), ServiceError> {
    let request = ScheduleKeyDeletionRequest { key_id: key_id.to_owned(), pending_window_in_days: Some(7) };
    kms::schedule_key_deletion(call, request).map(drop)
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

/// Code and message of a refusal.
fn refusal<T>(outcome: Result<T, ServiceError>) -> (&'static str, String) {
    match outcome {
        Ok(_) => panic!("it was not refused"),
        Err(error) => (error.code(), error.message()),
    }
}

/// Whether `needle` is in any file below the home.
fn home_holds(home: &Home, needle: &[u8]) -> bool {
    fn holds(path: &std::path::Path, needle: &[u8]) -> bool {
        if path.is_dir() {
            return std::fs::read_dir(path).unwrap().any(|entry| holds(&entry.unwrap().path(), needle));
        }
        std::fs::read(path).unwrap().windows(needle.len()).any(|run| run == needle)
    }
    holds(home.dir().path(), needle)
}
