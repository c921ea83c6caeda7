//! The files below `trail/`: how they are named, written and read.
//!
//! Names and places are CloudTrail's (CloudTrail user guide, "CloudTrail log file name format" and "CloudTrail digest file
//! structure"). Below an S3 bucket's name there would be the same keys.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::{GzDecoder, MultiGzDecoder};
use flate2::write::GzEncoder;
use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};

use crate::clock::Time;
use crate::dir::{self, DirError, HomeDir};
use crate::ids::{self, AccountId, Region};
use crate::twin::{self, Protection};

use super::files::FOLDER;

/// Nothing of ours is larger; a file that claims to be is not unpacked to its end.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// Where a trail's files of one day are.
fn day(account: &AccountId, kind: &str, region: &Region, time: Time) -> String {
    format!("AWSLogs/{account}/{kind}/{region}/{}", time.format_utc("%Y/%m/%d"))
}

/// The object name of a log file: `unique` stands for what it holds.
pub(super) fn log_object(account: &AccountId, region: &Region, delivered: Time, unique: &str) -> String {
    let day = day(account, "CloudTrail", region, delivered);
    format!("{day}/{account}_CloudTrail_{region}_{}_{unique}.json.gz", delivered.format_utc("%Y%m%dT%H%MZ"))
}

/// The object name of a digest file.
pub(super) fn digest_object(account: &AccountId, region: &Region, ended: Time) -> String {
    let day = day(account, "CloudTrail-Digest", region, ended);
    let ended = ended.format_utc("%Y%m%dT%H%M%SZ");
    format!("{day}/{account}_CloudTrail-Digest_{region}_blockseal_{region}_{ended}.json.gz")
}

/// Where a digest's signature is: CloudTrail has it in the object's metadata, and a file has none that every copy keeps.
pub(super) fn signature_object(digest: &str) -> String {
    format!("{}.sig", digest.strip_suffix(".json.gz").unwrap_or(digest))
}

/// 16 letters and digits that are the same whenever the same records are delivered: so a file whose row was lost in a
/// crash is written again under its own name, and no record is ever in two.
pub(super) fn unique(home_id: &str, trail: i64, first_seq: i64) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let named_for = if twin::is_off(Protection::StableName) { ids::uuid() } else { home_id.to_owned() };
    let digest = Sha256::digest(format!("{named_for} {trail} {first_seq}"));
    digest.iter().take(16).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

/// Puts a file below `trail/` in place, whole and durable, over one of the same name.
pub(super) fn put(home: &HomeDir, object: &str, bytes: &[u8]) -> Result<(), DirError> {
    let path = format!("{FOLDER}/{object}");
    let (folder, _) = path.rsplit_once('/').unwrap_or((FOLDER, ""));
    make_folders(home, folder)?;
    let part = format!("{path}.part");
    let mut file = home.open_file(&part, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC)?;
    let io = |source| DirError::Io { action: "write", path: home.path_of(&part), source };
    file.write_all(bytes).and_then(|()| dir::sync_file(&file)).map_err(io)?;
    home.rename(&part, &path)?;
    home.sync_dir(folder)
}

fn make_folders(home: &HomeDir, folder: &str) -> Result<(), DirError> {
    if home.exists(folder) {
        return Ok(());
    }
    let above = folder.rsplit_once('/').map_or("", |(above, _)| above);
    if !above.is_empty() {
        make_folders(home, above)?;
    }
    home.make_dir(folder)?;
    home.sync_dir(above)
}

/// `json` in gzip, as small as is quick.
pub(super) fn compress(json: &[u8]) -> Vec<u8> {
    pack(json, Compression::fast())
}

/// `json` in gzip as it is: the same text then has one form in any version of any program, and a changed bit shows.
pub(super) fn wrap(json: &[u8]) -> Vec<u8> {
    pack(json, Compression::none())
}

fn pack(json: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(json).and_then(|()| encoder.finish()).expect("a vector takes what it is given")
}

/// What is in a gzip file that has one member and nothing behind it.
pub(super) fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = GzDecoder::new(bytes);
    let mut json = Vec::new();
    (&mut decoder).take(MAX_BYTES).read_to_end(&mut json).ok()?;
    (decoder.into_inner().is_empty() && json.len() as u64 != MAX_BYTES).then_some(json)
}

/// What is in a gzip file of any number of members, as other programs may make them.
pub(super) fn unpack_members(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut json = Vec::new();
    MultiGzDecoder::new(bytes).take(MAX_BYTES).read_to_end(&mut json).ok()?;
    (json.len() as u64 != MAX_BYTES).then_some(json)
}

/// SHA-256 in hex.
pub(super) fn hash(bytes: &[u8]) -> String {
    ids::hex(&Sha256::digest(bytes))
}
