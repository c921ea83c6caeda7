//! Whether a trail is as it was delivered: every digest is signed, each names the one before it and its hash, every log
//! file is the one that a digest names, and nothing else is there.
//!
//! Without a tail that was kept elsewhere this shows only that the holder of the signing key, which is in the home, made
//! the files: he could have made all of them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, params};
use serde::Serialize;
use serde_json::Value;

use crate::store::{Home, StoreError, Transaction};
use crate::twin::{self, Protection};

use super::digest::{self, Digest, LogFile};
use super::signature::{ALGORITHM, PublicKey, SignatureError};
use super::{files, tree};

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// The trails, by account and Region.
    pub trails: Vec<Chain>,
    /// Log files that no digest covers yet.
    pub uncovered_files: u64,
    /// Records in them, and in the store alone.
    pub uncovered_records: u64,
    /// The id of the oldest record that no digest covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_uncovered: Option<String>,
    /// The first thing that is wrong in each trail; empty if nothing is.
    pub damage: Vec<Damage>,
}

/// One trail, as far as it is whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Chain {
    /// Whose trail.
    pub account: String,
    /// In which Region.
    pub region: String,
    /// How many digests were found good.
    pub digests: u64,
    /// How many log files they cover.
    pub files: u64,
    /// How many records are in those.
    pub records: u64,
    /// Until when files are covered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_until: Option<String>,
    /// The hash of the last digest: what to keep elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
}

/// Something that was changed, removed or added.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Damage {
    /// The file, below the folder that was verified; `state.db` for the store.
    pub file: String,
    /// The record, by its event id, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// What is wrong with it.
    pub problem: String,
}

impl Damage {
    fn of(file: &str, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), record: None, problem: problem.into() }
    }
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Key(#[from] SignatureError),
    /// A folder that cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no trail in the folder.
    #[error("there is no AWSLogs folder in {0}: give the folder that has it")]
    NoTrail(String),
}

impl From<rusqlite::Error> for VerifyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Verifies the trails in a folder, `AWSLogs/…` below it, against a key that was kept elsewhere.
///
/// Each hash of `expected` must be that of a digest here: of the last one when it was noted.
///
/// # Errors
/// If the folder cannot be read. What is wrong with the trail is in the report.
pub fn verify(from: &Path, key: &PublicKey, expected: &[String]) -> Result<Report, VerifyError> {
    let from = if from.join("AWSLogs").is_dir() { from.to_owned() } else { from.join(files::FOLDER) };
    if !from.join("AWSLogs").is_dir() {
        return Err(VerifyError::NoTrail(from.parent().unwrap_or(&from).display().to_string()));
    }
    Verifier::new(&from, Some(key.clone()))?.run(expected, None)
}

/// Verifies the trails of a home, and its store against them. `key` is the home's own unless one was kept elsewhere.
///
/// # Errors
/// If the folder or the store cannot be read. What is wrong with the trail is in the report.
pub fn verify_home(home: &Home, key: Option<PublicKey>, expected: &[String]) -> Result<Report, VerifyError> {
    let verifier = Verifier::new(&home.dir().path_of(files::FOLDER), key)?;
    home.read(|tx| verifier.run(expected, Some(tx)))
}

type Place = (String, String);

struct Verifier {
    from: PathBuf,
    /// `None` in a home that has signed nothing yet.
    key: Option<PublicKey>,
    fingerprint: String,
    found: Found,
}

/// The files that are there, by account and Region.
#[derive(Default)]
struct Found {
    logs: BTreeMap<Place, BTreeSet<String>>,
    digests: BTreeMap<Place, BTreeSet<String>>,
    strangers: Vec<String>,
}

impl Verifier {
    fn new(from: &Path, key: Option<PublicKey>) -> Result<Self, VerifyError> {
        let fingerprint = key.as_ref().map(PublicKey::fingerprint).transpose()?.unwrap_or_default();
        let mut found = Found::default();
        if from.join("AWSLogs").is_dir() {
            found.walk(from, "AWSLogs")?;
        }
        Ok(Self { from: from.to_owned(), key, fingerprint, found })
    }

    fn run(self, expected: &[String], store: Option<&Transaction<'_>>) -> Result<Report, VerifyError> {
        let mut report = Report::default();
        let mut hashes = BTreeSet::new();
        let mut places: BTreeSet<Place> = self.found.logs.keys().chain(self.found.digests.keys()).cloned().collect();
        if let Some(tx) = store {
            places.extend(digest::tails(tx)?.into_iter().map(|tail| (tail.account, tail.region)));
        }
        for place in places {
            let mut chain = Chain { account: place.0.clone(), region: place.1.clone(), ..Chain::default() };
            let outcome = self.chain(&place, &mut chain, &mut hashes, &mut report);
            report.damage.extend(outcome.err());
            report.trails.push(chain);
        }
        report
            .damage
            .extend(self.found.strangers.iter().map(|name| Damage::of(name, "is no file of the trail: it was added")));
        if let Some(tx) = store {
            self.against_store(tx, &mut report)?;
        }
        for hash in expected {
            if !hashes.contains(hash) && !twin::is_off(Protection::TrailTail) {
                let problem =
                    format!("no digest here has the hash {hash}: the end of a trail was cut off or rewritten");
                report.damage.push(Damage::of("AWSLogs", problem));
            }
        }
        Ok(report)
    }

    /// One chain from its beginning, until something is wrong.
    fn chain(
        &self,
        place: &Place,
        chain: &mut Chain,
        hashes: &mut BTreeSet<String>,
        report: &mut Report,
    ) -> Result<(), Damage> {
        let nothing = BTreeSet::new();
        let digests = self.found.digests.get(place).unwrap_or(&nothing);
        let mut loose = self.found.logs.get(place).cloned().unwrap_or_default();
        let mut previous: Option<(Digest, String, String)> = None;
        for object in digests {
            let (digest, hash, signature) = self.digest(place, object)?;
            if let Err(damage) = follows(&digest, previous.as_ref())
                && !twin::is_off(Protection::TrailChain)
            {
                return Err(damage);
            }
            for file in &digest.log_files {
                let records = self.log_file(file)?;
                if !loose.remove(&file.object) {
                    return Err(Damage::of(object, format!("{} is in two digests", file.object)));
                }
                chain.files += 1;
                chain.records += records;
            }
            chain.digests += 1;
            chain.covered_until = Some(digest.ended.clone());
            chain.tail = Some(hash.clone());
            hashes.insert(hash.clone());
            previous = Some((digest, hash, signature));
        }
        let covered = chain.covered_until.as_deref().map(minute).unwrap_or_default();
        for object in loose {
            if minute_of_log(&object) < covered.as_str() && !twin::is_off(Protection::TrailChain) {
                return Err(Damage::of(&object, format!("was added: no digest until {covered} names it")));
            }
            let stored = self.read(&object)?;
            let records = tree::unpack(&stored)
                .and_then(|json| records(&json))
                .ok_or_else(|| Damage::of(&object, "was changed: it is not a whole log file"))?;
            report.uncovered_files += 1;
            report.uncovered_records += records.len() as u64;
            if report.first_uncovered.is_none() {
                report.first_uncovered = records.first().and_then(event_id);
            }
        }
        Ok(())
    }

    /// A digest that is whole, in its place and signed, with its hash and its signature.
    fn digest(&self, place: &Place, object: &str) -> Result<(Digest, String, String), Damage> {
        let changed = |problem: &str| Damage::of(object, format!("was changed: {problem}"));
        let stored = self.read(object)?;
        let json = tree::unpack(&stored).ok_or_else(|| changed("it is not a whole gzip file"))?;
        if tree::wrap(&json) != stored {
            return Err(changed("it is not in the form in which digests are written"));
        }
        let digest: Digest = serde_json::from_slice(&json).map_err(|_| changed("it is not a digest"))?;
        if digest.object != object || digest.aws_account_id != place.0 {
            return Err(Damage::of(object, format!("is not in its place, which is {}", digest.object)));
        }
        let hash = tree::hash(&json);
        let sidecar = tree::signature_object(object);
        let signature = self.read(&sidecar)?;
        let signature =
            std::str::from_utf8(&signature).ok().and_then(|text| text.strip_suffix('\n')).unwrap_or_default();
        if !twin::is_off(Protection::TrailSignature) {
            if digest.algorithm != ALGORITHM || digest.fingerprint != self.fingerprint {
                return Err(Damage::of(object, format!("was signed by another key ({})", digest.fingerprint)));
            }
            let text = digest.text_to_sign(&hash);
            if !self.key.as_ref().is_some_and(|key| key.verifies(text.as_bytes(), signature)) {
                return Err(changed(&format!("{sidecar} is not the key's signature of it")));
            }
        }
        Ok((digest, hash, signature.to_owned()))
    }

    /// How many records are in a log file that is the one that the digest names.
    fn log_file(&self, file: &LogFile) -> Result<u64, Damage> {
        let stored = self.read(&file.object)?;
        let json = tree::unpack(&stored).unwrap_or_default();
        if tree::hash(&stored) != file.stored_hash_value || tree::hash(&json) != file.hash_value {
            return Err(Damage::of(&file.object, "was changed: its hash is not the one in its digest"));
        }
        let records = records(&json).ok_or_else(|| Damage::of(&file.object, "is not a log file"))?;
        Ok(records.len() as u64)
    }

    fn read(&self, object: &str) -> Result<Vec<u8>, Damage> {
        let path = self.from.join(object);
        let regular = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if !regular {
            return Err(Damage::of(object, "is missing: it was removed or renamed"));
        }
        fs::read(&path).map_err(|error| Damage::of(object, format!("cannot be read: {error}")))
    }

    /// The store knows each file, each record in it, and the last digest of each trail.
    fn against_store(&self, tx: &Transaction<'_>, report: &mut Report) -> Result<(), VerifyError> {
        for tail in digest::tails(tx)? {
            let chain = report.trails.iter().find(|chain| chain.account == tail.account && chain.region == tail.region);
            let last = chain.and_then(|chain| chain.tail.as_deref());
            let named = report.damage.iter().any(|damage| damage.file.contains(&format!("/{}/", tail.account)));
            if last != Some(&tail.hash) && !named && !twin::is_off(Protection::TrailTail) {
                let problem = "is the last digest that the home made, and the chain does not end with it";
                report.damage.push(Damage::of(&tail.digest, problem));
            }
        }
        let mut statement = tx.prepare_cached(
            "SELECT trail, object, first_seq, last_seq, hash, stored_hash FROM trail_files ORDER BY file",
        )?;
        let mut rows = statement.query([])?;
        let mut counted = 0;
        while let Some(row) = rows.next()? {
            let object: String = row.get(1)?;
            let (hash, stored_hash): (String, String) = (row.get(4)?, row.get(5)?);
            let kept = kept(tx, row.get(0)?, row.get(2)?, row.get(3)?)?;
            counted += kept.len() as u64;
            let file = self.read(&object).map(|stored| {
                let json = tree::unpack(&stored);
                let whole = tree::hash(&stored) == stored_hash;
                (whole, json.as_deref().and_then(records).unwrap_or_default())
            });
            let (whole, in_file) = match file {
                Ok(file) => file,
                Err(damage) => {
                    note(report, damage);
                    continue;
                }
            };
            let same = tree::hash(format!("{{\"Records\":[{}]}}", kept.join(",")).as_bytes()) == hash;
            if whole && same {
                continue;
            }
            let (record, what) = first_difference(&in_file, &kept);
            let damage = if whole {
                let problem = format!("a record was {what} in the store after it was delivered in {object}");
                Damage { file: "state.db".to_owned(), record, problem }
            } else {
                let problem = match what {
                    "" => "was changed: it is not the file that the home delivered".to_owned(),
                    what => format!("was changed: a record was {}", opposite(what)),
                };
                Damage { file: object, record, problem }
            };
            note(report, damage);
        }
        let (waiting, first) = files::undelivered(tx)?;
        let all: i64 = tx.query_row("SELECT count(*) FROM trail_records", [], |row| row.get(0))?;
        if all.unsigned_abs() != counted + waiting {
            let record = tx
                .query_row(
                    "SELECT record ->> '$.eventID' FROM trail_records r WHERE NOT EXISTS (SELECT 1 FROM trail_files f
                       WHERE f.trail = r.trail AND r.seq BETWEEN f.first_seq AND f.last_seq) ORDER BY seq LIMIT 1",
                    [],
                    |row| row.get(0),
                )
                .optional()?;
            let problem = "a record was added in the store among those that were delivered".to_owned();
            note(report, Damage { file: "state.db".to_owned(), record, problem });
        }
        report.uncovered_records += waiting;
        report.first_uncovered = report.first_uncovered.take().or(first);
        Ok(())
    }
}

impl Found {
    fn walk(&mut self, from: &Path, folder: &str) -> Result<(), VerifyError> {
        let path = from.join(folder);
        let unreadable = |source| VerifyError::Io { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(unreadable)?.is_dir() {
                self.walk(from, &name)?;
            } else {
                self.sort_in(name);
            }
        }
        Ok(())
    }

    fn sort_in(&mut self, name: String) {
        // What a crash left beside a file, and what belongs to a digest.
        if Path::new(&name).extension().is_some_and(|extension| extension == "part" || extension == "sig") {
            return;
        }
        let parts: Vec<_> = name.split('/').collect();
        let ["AWSLogs", account, kind, region, _, _, _, file] = parts[..] else {
            self.strangers.push(name);
            return;
        };
        let place = (account.to_owned(), region.to_owned());
        let ours =
            |middle: &str| file.starts_with(&format!("{account}_{middle}_{region}_")) && file.ends_with(".json.gz");
        match kind {
            "CloudTrail" if ours("CloudTrail") => self.logs.entry(place).or_default().insert(name),
            "CloudTrail-Digest" if ours("CloudTrail-Digest") => self.digests.entry(place).or_default().insert(name),
            _ => {
                self.strangers.push(name);
                true
            }
        };
    }
}

/// Whether a digest is the one after `previous`.
fn follows(digest: &Digest, previous: Option<&(Digest, String, String)>) -> Result<(), Damage> {
    let Some((before, hash, signature)) = previous else {
        return match &digest.previous_object {
            None => Ok(()),
            Some(missing) => Err(Damage::of(missing, format!("is missing: {} follows it", digest.object))),
        };
    };
    if digest.previous_object.as_deref() != Some(&before.object) {
        return Err(match &digest.previous_object {
            Some(missing) if *missing > before.object => {
                Damage::of(missing, format!("is missing: {} follows it", digest.object))
            }
            _ => Damage::of(&before.object, format!("was added: {} does not follow it", digest.object)),
        });
    }
    if digest.previous_digest_hash_value.as_deref() != Some(hash)
        || digest.previous_digest_signature.as_deref() != Some(signature)
        || digest.started != before.ended
        || digest.bucket != before.bucket
    {
        return Err(Damage::of(&before.object, format!("was replaced: {} follows another", digest.object)));
    }
    Ok(())
}

/// Adds what the store shows, unless the file is named already; with the record, if the store can tell which one.
fn note(report: &mut Report, damage: Damage) {
    match report.damage.iter_mut().find(|known| known.file == damage.file) {
        Some(known) if known.record.is_none() && damage.record.is_some() => *known = damage,
        Some(_) => {}
        None => report.damage.push(damage),
    }
}

/// The records of the store that a file was made of.
fn kept(tx: &Transaction<'_>, trail: i64, first: i64, last: i64) -> Result<Vec<String>, VerifyError> {
    let mut statement =
        tx.prepare_cached("SELECT record FROM trail_records WHERE trail = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq")?;
    let rows = statement.query_map(params![trail, first, last], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The records of a log file.
fn records(json: &[u8]) -> Option<Vec<Value>> {
    let mut file: Value = serde_json::from_slice(json).ok()?;
    match file.get_mut("Records")?.take() {
        Value::Array(records) => Some(records),
        _ => None,
    }
}

fn event_id(record: &Value) -> Option<String> {
    record.get("eventID").and_then(Value::as_str).map(str::to_owned)
}

/// The first record in which the store differs from the file, and what happened to the store's.
fn first_difference(in_file: &[Value], kept: &[String]) -> (Option<String>, &'static str) {
    let parse = |text: &String| serde_json::from_str::<Value>(text).unwrap_or_default();
    let at =
        (0..in_file.len().max(kept.len())).find(|index| in_file.get(*index) != kept.get(*index).map(parse).as_ref());
    let Some(at) = at else { return (None, "") };
    let (file, store) = (in_file.get(at), kept.get(at).map(parse));
    let id = |value: Option<&Value>| value.and_then(event_id);
    let (file_id, store_id) = (id(file), id(store.as_ref()));
    match in_file.len().cmp(&kept.len()) {
        std::cmp::Ordering::Greater => (file_id, "removed"),
        std::cmp::Ordering::Less => (store_id, "added"),
        std::cmp::Ordering::Equal => (file_id.or(store_id), "changed"),
    }
}

fn opposite(what: &str) -> &str {
    match what {
        "removed" => "added",
        "added" => "removed",
        other => other,
    }
}

/// `2026-01-02T03:04:05Z` as names of log files have it: `20260102T0304Z`.
fn minute(time: &str) -> String {
    let digits: String = time.chars().filter(|letter| !matches!(letter, '-' | ':' | 'Z')).collect();
    format!("{}Z", digits.get(..13).unwrap_or_default())
}

/// The minute of delivery in a log file's name.
fn minute_of_log(object: &str) -> &str {
    object.rsplit('_').nth(1).unwrap_or_default()
}
