//! Log files: records grouped as CloudTrail delivers them, `{"Records":[…]}` in gzip.
//!
//! Every five minutes of the home's clock, and whenever ten thousand records wait, those that are in no file yet go into
//! one file for each trail. A file's name follows from its first record and from when it was due, both of which are
//! committed: if the commit of its row is lost, the next delivery makes the same file again in its place.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use rusqlite::{OptionalExtension as _, params};

use crate::clock::Time;
use crate::ids::{AccountId, Region};
use crate::store::{self, Home, StoreError, Transaction};

use super::{damaged, tree};

/// The home's folder in which log and digest files are.
pub const FOLDER: &str = "trail";

/// How long a record waits at most, in seconds.
const EVERY_SECONDS: i64 = 300;

/// So many records are delivered at once at most, for all trails.
const BATCH: i64 = 10_000;

/// How long a delivery that failed (a full disk) is put off.
const PUT_OFF: SignedDuration = SignedDuration::from_secs(60);

const DELIVERED: &str = "trail_delivered_seq";
const ASKED: &str = "trail_delivery_asked";
const PUT_OFF_UNTIL: &str = "trail_put_off_until";
const PUT_OFF_WHY: &str = "trail_put_off_why";
const DIGESTED_UNTIL: &str = "trail_digested_until";

/// When the next records are due in a file; `None` if all are in one.
pub fn next_delivery(tx: &Transaction<'_>) -> Result<Option<Time>, StoreError> {
    let after = number(tx, DELIVERED)?;
    let Some(first) = time_of(tx, "SELECT time FROM trail_records WHERE seq > ?1 ORDER BY seq LIMIT 1", after)? else {
        return Ok(None);
    };
    let mut due = first.next_multiple_of(EVERY_SECONDS);
    if let Some(last) = time_of(tx, "SELECT time FROM trail_records WHERE seq = ?1", after + BATCH)? {
        due = due.min(last);
    }
    if let Some(asked) = Time::from_micros(number(tx, ASKED)?).filter(|asked| *asked >= first) {
        due = due.min(asked);
    }
    // Never before the end of a digest: that one says what was delivered until then.
    Ok(Some(due.max(digested_until(tx)?).max(put_off_until(tx)?)))
}

/// Puts the records that wait into files, at most ten thousand of them.
///
/// # Errors
/// What keeps a file from being written is a [`StoreError::Dir`]; nothing is recorded as delivered then.
pub fn deliver(home: &Home, tx: &Transaction<'_>, due: Time) -> Result<(), StoreError> {
    let after = number(tx, DELIVERED)?;
    let mut waiting: BTreeMap<i64, Waiting> = BTreeMap::new();
    let mut last = after;
    let mut statement =
        tx.prepare_cached("SELECT seq, trail, time, record FROM trail_records WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = statement.query([after, BATCH])?;
    while let Some(row) = rows.next()? {
        let (seq, time): (i64, i64) = (row.get(0)?, row.get(2)?);
        let file = waiting.entry(row.get(1)?).or_insert_with(|| Waiting::from(seq, time));
        file.add(seq, time, row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?);
        last = seq;
    }
    let home_id = store::setting(tx, "home_id")?.unwrap_or_default();
    for (trail, file) in waiting {
        let (account, region) = trail_of(tx, trail)?;
        let object = tree::log_object(&account, &region, due, &tree::unique(&home_id, trail, file.first_seq));
        let json = file.finish();
        let stored = tree::compress(&json.text);
        tree::put(home.dir(), &object, &stored)?;
        tx.prepare_cached(
            "INSERT INTO trail_files (trail, object, delivered, first_seq, last_seq, oldest, newest, hash, stored_hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            trail,
            object,
            due.micros(),
            json.first_seq,
            json.last_seq,
            json.oldest,
            json.newest,
            tree::hash(&json.text),
            tree::hash(&stored)
        ])?;
    }
    store::set_setting(tx, DELIVERED, &last.to_string())
}

/// Asks for what waits now to be delivered. The time is committed before any file is made, because files are named by it.
pub fn ask(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let now = store::clock(tx)?.now();
    store::set_setting(tx, ASKED, &now.micros().to_string())?;
    store::set_setting(tx, PUT_OFF_UNTIL, "0")?;
    store::set_setting(tx, PUT_OFF_WHY, "")
}

/// Puts deliveries and digests off for a minute: an operation is not refused because a file cannot be written.
pub fn put_off(tx: &Transaction<'_>, why: &str) -> Result<(), StoreError> {
    let until = store::clock(tx)?.now().after(PUT_OFF);
    store::set_setting(tx, PUT_OFF_UNTIL, &until.micros().to_string())?;
    store::set_setting(tx, PUT_OFF_WHY, why)
}

/// Why the last delivery was put off, if it was.
pub fn put_off_why(tx: &Transaction<'_>) -> Result<Option<String>, StoreError> {
    let now = store::clock(tx)?.now();
    if put_off_until(tx)? <= now {
        return Ok(None);
    }
    Ok(store::setting(tx, PUT_OFF_WHY)?.filter(|why| !why.is_empty()))
}

pub(super) fn put_off_until(tx: &Transaction<'_>) -> Result<Time, StoreError> {
    Time::from_micros(number(tx, PUT_OFF_UNTIL)?).ok_or_else(|| damaged("a time outside the calendar".into()))
}

/// The end of the newest digest of any trail.
pub(super) fn digested_until(tx: &Transaction<'_>) -> Result<Time, StoreError> {
    Time::from_micros(number(tx, DIGESTED_UNTIL)?).ok_or_else(|| damaged("a time outside the calendar".into()))
}

pub(super) fn set_digested_until(tx: &Transaction<'_>, ended: Time) -> Result<(), StoreError> {
    store::set_setting(tx, DIGESTED_UNTIL, &ended.micros().to_string())
}

/// How many records are in no file, and the first of them.
pub(super) fn undelivered(tx: &Transaction<'_>) -> Result<(u64, Option<String>), StoreError> {
    let after = number(tx, DELIVERED)?;
    let count: i64 = tx.query_row("SELECT count(*) FROM trail_records WHERE seq > ?1", [after], |row| row.get(0))?;
    let mut statement =
        tx.prepare_cached("SELECT record ->> '$.eventID' FROM trail_records WHERE seq > ?1 ORDER BY seq LIMIT 1")?;
    Ok((count.unsigned_abs(), statement.query_row([after], |row| row.get(0)).optional()?))
}

/// Whose trail a number stands for.
pub(super) fn trail_of(tx: &Transaction<'_>, trail: i64) -> Result<(AccountId, Region), StoreError> {
    let (account, region): (String, String) = tx
        .prepare_cached("SELECT account, region FROM trails WHERE trail = ?1")?
        .query_row([trail], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let account = account.parse().map_err(|error: crate::ids::IdError| damaged(error.into()))?;
    Ok((account, region.parse().map_err(|error: crate::ids::IdError| damaged(error.into()))?))
}

fn number(tx: &Transaction<'_>, name: &str) -> Result<i64, StoreError> {
    Ok(store::setting(tx, name)?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn time_of(tx: &Transaction<'_>, query: &str, seq: i64) -> Result<Option<Time>, StoreError> {
    let micros: Option<i64> = tx.prepare_cached(query)?.query_row([seq], |row| row.get(0)).optional()?;
    micros
        .map(|micros| Time::from_micros(micros).ok_or_else(|| damaged("a time outside the calendar".into())))
        .transpose()
}

/// The records of one file while they are collected.
pub(super) struct Waiting {
    pub(super) text: Vec<u8>,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
    pub(super) oldest: i64,
    pub(super) newest: i64,
}

impl Waiting {
    pub(super) fn from(seq: i64, time: i64) -> Self {
        Self { text: b"{\"Records\":[".to_vec(), first_seq: seq, last_seq: seq, oldest: time, newest: time }
    }

    pub(super) fn add(&mut self, seq: i64, time: i64, record: &str) {
        if self.text.last() != Some(&b'[') {
            self.text.push(b',');
        }
        self.text.extend_from_slice(record.as_bytes());
        (self.last_seq, self.oldest, self.newest) = (seq, self.oldest.min(time), self.newest.max(time));
    }

    pub(super) fn finish(mut self) -> Self {
        self.text.extend_from_slice(b"]}");
        self
    }
}
