//! Digest files: which log files were delivered, chained by hash and signed, in CloudTrail's shape (CloudTrail user guide,
//! "CloudTrail digest file structure" and "Custom implementations of CloudTrail log file integrity validation").
//!
//! One digest covers a trail's files since the one before it and is due at the next full hour. CloudTrail delivers one for
//! a quiet hour too; here the next one's time begins where the last one's ended, so that a clock that is moved by a year
//! makes one digest and not thousands.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::store::{self, Home, StoreError, Transaction};

use super::signature::{ALGORITHM, SignatureError, SigningKey};
use super::{damaged, files, tree};

/// How far apart digests are, in seconds.
const EVERY_SECONDS: i64 = 3600;

const SHA_256: &str = "SHA-256";

/// A digest file. Members that CloudTrail does not have are marked *ours*; its own validation passes over them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Digest {
    pub(super) aws_account_id: String,
    #[serde(rename = "digestStartTime")]
    pub(super) started: String,
    #[serde(rename = "digestEndTime")]
    pub(super) ended: String,
    #[serde(rename = "digestS3Bucket")]
    pub(super) bucket: String,
    #[serde(rename = "digestS3Object")]
    pub(super) object: String,
    #[serde(rename = "digestPublicKeyFingerprint")]
    pub(super) fingerprint: String,
    #[serde(rename = "digestSignatureAlgorithm")]
    pub(super) algorithm: String,
    pub(super) newest_event_time: Option<String>,
    pub(super) oldest_event_time: Option<String>,
    #[serde(rename = "previousDigestS3Bucket")]
    pub(super) previous_bucket: Option<String>,
    #[serde(rename = "previousDigestS3Object")]
    pub(super) previous_object: Option<String>,
    pub(super) previous_digest_hash_value: Option<String>,
    pub(super) previous_digest_hash_algorithm: Option<String>,
    pub(super) previous_digest_signature: Option<String>,
    pub(super) log_files: Vec<LogFile>,
}

/// A log file in a digest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LogFile {
    #[serde(rename = "s3Bucket")]
    pub(super) bucket: String,
    #[serde(rename = "s3Object")]
    pub(super) object: String,
    /// Of the JSON, as CloudTrail has it.
    pub(super) hash_value: String,
    pub(super) hash_algorithm: String,
    pub(super) newest_event_time: String,
    pub(super) oldest_event_time: String,
    /// *Ours*: of the file as it is stored. Some bits of a gzip file can change without a change of what is in it.
    pub(super) stored_hash_value: String,
}

impl Digest {
    /// What is signed: end, place, hash, and the signature before it (or `null`).
    pub(super) fn text_to_sign(&self, hash: &str) -> String {
        let previous = self.previous_digest_signature.as_deref().unwrap_or("null");
        format!("{}\n{}/{}\n{hash}\n{previous}", self.ended, self.bucket, self.object)
    }
}

/// The end of a trail's chain, as the store has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tail {
    /// Whose trail.
    pub account: String,
    /// In which Region.
    pub region: String,
    /// The last digest file, below `trail/`.
    pub digest: String,
    /// Its hash: whoever keeps it elsewhere can tell whether the trail up to here was rewritten.
    pub hash: String,
    /// Until when files are covered.
    pub ended: Time,
}

/// The last digest of every trail that has one.
pub fn tails(tx: &Transaction<'_>) -> Result<Vec<Tail>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT account, region, object, hash, ended FROM trails t JOIN trail_digests d ON d.digest =
           (SELECT max(digest) FROM trail_digests WHERE trail = t.trail)
         ORDER BY account, region",
    )?;
    let rows = statement.query_map([], |row| {
        let ended = Time::from_micros(row.get(4)?);
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, ended))
    })?;
    rows.map(|row| {
        let (account, region, digest, hash, ended) = row?;
        let ended = ended.ok_or_else(|| damaged("a time outside the calendar".into()))?;
        Ok(Tail { account, region, digest, hash, ended })
    })
    .collect()
}

/// When the next digest is due; `None` if every file is covered.
pub fn next_digest(tx: &Transaction<'_>) -> Result<Option<Time>, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT delivered FROM trail_files WHERE digest IS NULL ORDER BY delivered LIMIT 1")?;
    let first: Option<i64> = statement.query_row([], |row| row.get(0)).optional()?;
    let Some(first) = first else { return Ok(None) };
    let first = Time::from_micros(first).ok_or_else(|| damaged("a time outside the calendar".into()))?;
    Ok(Some(first.next_multiple_of(EVERY_SECONDS).max(files::put_off_until(tx)?)))
}

/// Why a digest was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The store, or a file that could not be written ([`StoreError::Dir`]).
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl From<rusqlite::Error> for DigestError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Makes a digest for each trail that has files from before `due` that no digest covers.
///
/// # Errors
/// See [`DigestError`]; the store is unchanged if a file could not be written.
pub fn make_digests(home: &Home, tx: &Transaction<'_>, due: Time, key: &SigningKey) -> Result<(), DigestError> {
    let mut uncovered: BTreeMap<i64, Vec<(i64, LogFile, i64, i64)>> = BTreeMap::new();
    let bucket = bucket(tx)?;
    let mut statement = tx.prepare_cached(
        "SELECT trail, file, object, hash, stored_hash, oldest, newest FROM trail_files
         WHERE digest IS NULL AND delivered < ?1 ORDER BY file",
    )?;
    let mut rows = statement.query([due.micros()])?;
    while let Some(row) = rows.next()? {
        let (oldest, newest): (i64, i64) = (row.get(5)?, row.get(6)?);
        let file = LogFile {
            bucket: bucket.clone(),
            object: row.get(2)?,
            hash_value: row.get(3)?,
            hash_algorithm: SHA_256.to_owned(),
            newest_event_time: seconds(newest)?,
            oldest_event_time: seconds(oldest)?,
            stored_hash_value: row.get(4)?,
        };
        uncovered.entry(row.get(0)?).or_default().push((row.get(1)?, file, oldest, newest));
    }
    let fingerprint = key.public().fingerprint()?;
    files::set_digested_until(tx, due)?;
    for (trail, covered) in uncovered {
        let (account, region) = files::trail_of(tx, trail)?;
        let previous = last(tx, trail)?;
        let started = previous.as_ref().map_or_else(
            || Ok(due.after(SignedDuration::from_secs(-EVERY_SECONDS)).to_seconds_string()),
            |previous| seconds(previous.ended),
        )?;
        let digest = Digest {
            aws_account_id: account.to_string(),
            started,
            ended: due.to_seconds_string(),
            bucket: bucket.clone(),
            object: tree::digest_object(&account, &region, due),
            fingerprint: fingerprint.clone(),
            algorithm: ALGORITHM.to_owned(),
            newest_event_time: covered.iter().map(|file| file.3).max().map(seconds).transpose()?,
            oldest_event_time: covered.iter().map(|file| file.2).min().map(seconds).transpose()?,
            previous_bucket: previous.as_ref().map(|_| bucket.clone()),
            previous_object: previous.as_ref().map(|previous| previous.object.clone()),
            previous_digest_hash_value: previous.as_ref().map(|previous| previous.hash.clone()),
            previous_digest_hash_algorithm: previous.as_ref().map(|_| SHA_256.to_owned()),
            previous_digest_signature: previous.map(|previous| previous.signature),
            log_files: covered.iter().map(|file| file.1.clone()).collect(),
        };
        let json = serde_json::to_vec(&digest).map_err(|error| damaged(error.into()))?;
        let hash = tree::hash(&json);
        let signature = key.sign(digest.text_to_sign(&hash).as_bytes())?;
        // The signature first, so that no digest is ever there without one.
        let sidecar = tree::signature_object(&digest.object);
        tree::put(home.dir(), &sidecar, format!("{signature}\n").as_bytes()).map_err(StoreError::from)?;
        tree::put(home.dir(), &digest.object, &tree::wrap(&json)).map_err(StoreError::from)?;
        tx.prepare_cached(
            "INSERT INTO trail_digests (trail, object, ended, hash, signature) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![trail, digest.object, due.micros(), hash, signature])?;
        let number = tx.last_insert_rowid();
        let mut cover = tx.prepare_cached("UPDATE trail_files SET digest = ?2 WHERE file = ?1")?;
        for (file, ..) in covered {
            cover.execute([file, number])?;
        }
    }
    Ok(())
}

/// What stands where CloudTrail has a bucket's name: it binds a signature to its home.
pub(super) fn bucket(tx: &Transaction<'_>) -> Result<String, StoreError> {
    Ok(format!("blockseal-{}", store::setting(tx, "home_id")?.unwrap_or_default()))
}

pub(super) struct Last {
    pub(super) object: String,
    pub(super) ended: i64,
    pub(super) hash: String,
    pub(super) signature: String,
}

/// The last digest of a trail.
pub(super) fn last(tx: &Transaction<'_>, trail: i64) -> Result<Option<Last>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT object, ended, hash, signature FROM trail_digests WHERE trail = ?1 ORDER BY digest DESC LIMIT 1",
    )?;
    let row = statement.query_row([trail], |row| {
        Ok(Last { object: row.get(0)?, ended: row.get(1)?, hash: row.get(2)?, signature: row.get(3)? })
    });
    Ok(row.optional()?)
}

fn seconds(micros: i64) -> Result<String, StoreError> {
    let time = Time::from_micros(micros).ok_or_else(|| damaged("a time outside the calendar".into()))?;
    Ok(time.to_seconds_string())
}
