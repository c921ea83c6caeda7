//! Log files and digests: exactly once, whole, and any change of them named.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::gate;
use crate::kms::{SERVICE, digests};
use crate::store::StoreError;
use crate::trail::{self, PublicKey, Report, SigningKey, verify, verify_home};
use crate::twin::{Protection, without};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A home with `days` digests, a day apart, of one record each; and one record that is in no file.
fn storied(days: usize) -> (tempfile::TempDir, Home) {
    let (base, home) = temporary();
    for _ in 0..days {
        new_key(&root(&home));
        home.advance_clock(HOUR * 24).unwrap();
        gate::settle(&home, SERVICE.settlers).unwrap();
    }
    new_key(&root(&home));
    (base, home)
}

fn key_of(home: &Home) -> PublicKey {
    digests::public_key(home).unwrap()
}

fn own_verdict(home: &Home) -> Report {
    verify_home(home, Some(key_of(home)), &[]).unwrap()
}

fn tail_of(home: &Home) -> String {
    home.read(trail::tails).unwrap()[0].hash.clone()
}

/// The trail's files below `folder`, sorted by name within their kind: log files, digests, signatures.
fn files(folder: &Path, kind: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&folder.join("AWSLogs"), &mut found);
    let wanted = |path: &PathBuf| {
        let name = path.to_string_lossy().into_owned();
        match kind {
            "logs" => name.contains("_CloudTrail_"),
            "digests" => name.contains("-Digest_") && name.ends_with(".json.gz"),
            "signatures" => path.extension().is_some_and(|extension| extension == "sig"),
            _ => true,
        }
    };
    found.retain(wanted);
    found.sort();
    found
}

/// A copy of the home's trail, as somebody elsewhere has it.
fn copied(home: &Home, to: &Path) -> PathBuf {
    let from = home.dir().path_of("trail");
    for path in files(&from, "all") {
        let place = to.join(path.strip_prefix(&from).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(path, place).unwrap();
    }
    to.to_owned()
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut json = Vec::new();
    let file = fs::File::open(path).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file), &mut json).unwrap();
    json
}

fn packed(json: &[u8], level: flate2::Compression) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    std::io::Write::write_all(&mut encoder, json).unwrap();
    encoder.finish().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// What a digest's signature is over (CloudTrail user guide, "Custom implementations of CloudTrail log file integrity
/// validation"), of the digest whose file has `json`.
fn signed_text(digest: &Value, json: &[u8]) -> String {
    format!(
        "{}\n{}/{}\n{}\n{}",
        digest["digestEndTime"].as_str().unwrap(),
        digest["digestS3Bucket"].as_str().unwrap(),
        digest["digestS3Object"].as_str().unwrap(),
        sha256(json),
        digest["previousDigestSignature"].as_str().unwrap_or("null"),
    )
}

#[test]
fn a_trail_is_whole_at_home_and_elsewhere_and_openssl_agrees() {
    let (base, home) = storied(3);
    let report = own_verdict(&home);
    assert_eq!(report.damage, []);
    assert_eq!((report.trails[0].digests, report.trails[0].files, report.trails[0].records), (3, 3, 3));
    assert_eq!((report.uncovered_files, report.uncovered_records), (0, 1), "the last key's record waits");
    assert!(report.first_uncovered.is_some());
    let elsewhere = copied(&home, &base.path().join("copy"));
    let report = verify(&elsewhere, &key_of(&home), &[tail_of(&home)]).unwrap();
    assert_eq!((&report.damage[..], report.trails[0].digests), (&[][..], 3));
    assert_eq!(report.trails[0].tail, Some(tail_of(&home)));

    // A second opinion: the text that CloudTrail's documentation says is signed, verified by OpenSSL.
    let pem = key_of(&home).to_pem().unwrap();
    let public = openssl::pkey::PKey::public_key_from_pem(pem.as_bytes()).unwrap();
    let mut before: Option<(String, String)> = None;
    for path in files(&elsewhere, "digests") {
        let json = unpacked(&path);
        let digest: Value = serde_json::from_slice(&json).unwrap();
        let sidecar = path.to_string_lossy().replace(".json.gz", ".sig");
        let signature = fs::read_to_string(sidecar).unwrap().trim_end().to_owned();
        let text = signed_text(&digest, &json);
        let mut verifier = openssl::sign::Verifier::new(openssl::hash::MessageDigest::sha256(), &public).unwrap();
        assert!(verifier.verify_oneshot(&hex::decode(&signature).unwrap(), text.as_bytes()).unwrap());
        if let Some((hash, signature)) = before {
            assert_eq!(
                (&digest["previousDigestHashValue"], &digest["previousDigestSignature"]),
                (&hash.into(), &signature.into())
            );
        }
        for file in digest["logFiles"].as_array().unwrap() {
            let log = unpacked(&elsewhere.join(file["s3Object"].as_str().unwrap()));
            assert_eq!(file["hashValue"], sha256(&log));
            assert_eq!(serde_json::from_slice::<Value>(&log).unwrap()["Records"].as_array().unwrap().len(), 1);
        }
        before = Some((sha256(&json), signature));
    }
}

#[test]
fn every_flipped_byte_of_a_stored_trail_is_named() {
    let (base, home) = storied(2);
    let key = key_of(&home);
    let elsewhere = copied(&home, &base.path().join("copy"));
    let all = files(&elsewhere, "all");
    assert_eq!(all.len(), 6);
    let unnoticed = |path: &Path| {
        let good = fs::read(path).unwrap();
        let mut unnoticed = 0;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(path, bad).unwrap();
            let report = verify(&elsewhere, &key, &[]).unwrap();
            let object = path.strip_prefix(&elsewhere).unwrap().to_string_lossy().replace(".sig", ".json.gz");
            match report.damage.first() {
                None => unnoticed += 1,
                Some(damage) => assert_eq!(damage.file, object, "byte {at}: {}", damage.problem),
            }
        }
        fs::write(path, good).unwrap();
        unnoticed
    };
    for path in &all {
        assert_eq!(unnoticed(path), 0, "{}", path.display());
    }
    // The twin: without the signatures, those of the last digest can be anything.
    let last = files(&elsewhere, "signatures").pop().unwrap();
    assert!(without(Protection::TrailSignature, || unnoticed(&last)) > 400);
}

#[test]
fn a_cut_tail_is_found_by_whoever_kept_its_hash() {
    let (base, home) = storied(3);
    let (key, tail) = (key_of(&home), tail_of(&home));
    let elsewhere = copied(&home, &base.path().join("copy"));
    let cut = |folder: &Path| {
        for kind in ["logs", "digests", "signatures"] {
            fs::remove_file(files(folder, kind).pop().unwrap()).unwrap();
        }
    };
    cut(&elsewhere);
    // Without the tail nothing is amiss: this is what the holder of a home can do to whoever keeps none.
    assert_eq!(verify(&elsewhere, &key, &[]).unwrap().damage, []);
    let damage = verify(&elsewhere, &key, std::slice::from_ref(&tail)).unwrap().damage;
    assert!(damage[0].problem.contains(&tail), "{damage:?}");
    without(Protection::TrailTail, || assert_eq!(verify(&elsewhere, &key, &[tail]).unwrap().damage, []));
    // A tail that was noted before the cut trail's end is still found in it.
    let noted = verify(&elsewhere, &key, &[]).unwrap().trails[0].tail.clone().unwrap();
    assert_eq!(verify(&elsewhere, &key, &[noted]).unwrap().damage, []);
    // The home itself knows its tail and its files.
    cut(&home.dir().path_of("trail"));
    let damage = own_verdict(&home).damage;
    assert!(damage[0].file.contains("CloudTrail-Digest"), "{damage:?}");
    assert!(damage[1].problem.contains("missing"), "{damage:?}");
}

#[test]
fn a_dropped_day_and_a_dropped_beginning_are_found() {
    let (base, home) = storied(4);
    let key = key_of(&home);
    for dropped in [0, 1, 2] {
        let elsewhere = copied(&home, &base.path().join(format!("copy-{dropped}")));
        let mut names = Vec::new();
        for kind in ["logs", "digests", "signatures"] {
            names.push(files(&elsewhere, kind).remove(dropped));
            fs::remove_file(&names[names.len() - 1]).unwrap();
        }
        let damage = verify(&elsewhere, &key, &[]).unwrap().damage;
        let missing = names[1].strip_prefix(&elsewhere).unwrap().to_string_lossy();
        assert_eq!(damage[0].file, missing);
        assert!(damage[0].problem.contains("missing"), "{damage:?}");
        without(Protection::TrailChain, || assert_eq!(verify(&elsewhere, &key, &[]).unwrap().damage, []));
    }
    // A log file alone.
    let elsewhere = copied(&home, &base.path().join("copy"));
    let log = files(&elsewhere, "logs").remove(1);
    fs::remove_file(&log).unwrap();
    let damage = verify(&elsewhere, &key, &[]).unwrap().damage;
    assert_eq!(damage[0].file, log.strip_prefix(&elsewhere).unwrap().to_string_lossy());
}

#[test]
fn added_files_records_and_exchanged_places_are_found() {
    let (base, home) = storied(3);
    let key = key_of(&home);
    let named = |change: &dyn Fn(&Path)| {
        let elsewhere = copied(&home, &tempfile::tempdir_in(base.path()).unwrap().keep());
        change(&elsewhere);
        verify(&elsewhere, &key, &[]).unwrap().damage.first().map(|damage| damage.file.clone()).unwrap_or_default()
    };
    let log = |folder: &Path, at: usize| files(folder, "logs").remove(at);
    let added = named(&|folder| {
        let one = log(folder, 1);
        let other = one.to_string_lossy().replace(".json.gz", "X.json.gz");
        fs::copy(one, other).unwrap();
    });
    assert!(added.ends_with("X.json.gz"), "{added}");
    let stranger = named(&|folder| fs::write(folder.join("AWSLogs/note.txt"), "x").unwrap());
    assert_eq!(stranger, "AWSLogs/note.txt");
    let records = named(&|folder| {
        let one = log(folder, 1);
        let mut json: Value = serde_json::from_slice(&unpacked(&one)).unwrap();
        let again = json["Records"][0].clone();
        json["Records"].as_array_mut().unwrap().push(again);
        fs::write(one, packed(json.to_string().as_bytes(), flate2::Compression::fast())).unwrap();
    });
    assert!(records.contains("_CloudTrail_"), "{records}");
    let exchanged = named(&|folder| {
        let (one, other) = (log(folder, 0), log(folder, 1));
        let (first, second) = (fs::read(&one).unwrap(), fs::read(&other).unwrap());
        fs::write(one, second).unwrap();
        fs::write(other, first).unwrap();
    });
    assert!(exchanged.contains("_CloudTrail_"), "{exchanged}");
    let digests_exchanged = named(&|folder| {
        let all = files(folder, "digests");
        let (first, second) = (fs::read(&all[0]).unwrap(), fs::read(&all[1]).unwrap());
        fs::write(&all[0], second).unwrap();
        fs::write(&all[1], first).unwrap();
    });
    assert!(digests_exchanged.contains("-Digest_"), "{digests_exchanged}");
    // Behind the last digest a new file is no damage: the next digest will cover it.
    let later = named(&|folder| {
        let one = log(folder, 2);
        let other = one.to_string_lossy().replace("_CloudTrail_us-east-1_2", "_CloudTrail_us-east-1_9");
        fs::copy(one, other).unwrap();
    });
    assert_eq!(later, "");
}

/// Writes a trail anew, with one record's operation renamed, every hash made to fit, and signed by `key`.
fn forge(folder: &Path, key: &SigningKey) {
    let fingerprint = key.public().fingerprint().unwrap();
    let signer =
        openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::private_key_from_der(key.to_der().unwrap().expose()).unwrap())
            .unwrap();
    let mut before: Option<(String, String)> = None;
    for path in files(folder, "digests") {
        let mut digest: Value = serde_json::from_slice(&unpacked(&path)).unwrap();
        let log = folder.join(digest["logFiles"][0]["s3Object"].as_str().unwrap());
        let text = String::from_utf8(unpacked(&log)).unwrap().replace("CreateKey", "DescribeKey");
        let stored = packed(text.as_bytes(), flate2::Compression::fast());
        digest["logFiles"][0]["hashValue"] = sha256(text.as_bytes()).into();
        digest["logFiles"][0]["storedHashValue"] = sha256(&stored).into();
        fs::write(log, stored).unwrap();
        digest["digestPublicKeyFingerprint"] = fingerprint.as_str().into();
        if let Some((hash, signature)) = &before {
            digest["previousDigestHashValue"] = hash.as_str().into();
            digest["previousDigestSignature"] = signature.as_str().into();
        }
        let json = digest.to_string().into_bytes();
        let text = signed_text(&digest, &json);
        let mut sign = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &signer).unwrap();
        let signature = hex::encode(sign.sign_oneshot_to_vec(text.as_bytes()).unwrap());
        fs::write(&path, packed(&json, flate2::Compression::none())).unwrap();
        fs::write(path.to_string_lossy().replace(".json.gz", ".sig"), format!("{signature}\n")).unwrap();
        before = Some((sha256(&json), signature));
    }
}

#[test]
fn a_trail_that_another_key_signed_is_found() {
    let (base, home) = storied(2);
    let (key, tail) = (key_of(&home), tail_of(&home));
    let elsewhere = copied(&home, &base.path().join("copy"));
    let theirs = SigningKey::generate().unwrap();
    forge(&elsewhere, &theirs);
    let damage = verify(&elsewhere, &key, &[]).unwrap().damage;
    assert!(damage[0].problem.contains("another key"), "{damage:?}");
    // The forgery is good in itself: only the kept key, or the kept tail, tells it.
    without(Protection::TrailSignature, || assert_eq!(verify(&elsewhere, &key, &[]).unwrap().damage, []));
    assert_eq!(verify(&elsewhere, &theirs.public(), &[]).unwrap().damage, []);
    assert!(!verify(&elsewhere, &theirs.public(), &[tail]).unwrap().damage.is_empty());
}

/// Changes of records in the store, of which a file was made, are told with the record's id.
#[test]
fn a_record_that_was_changed_in_the_store_is_named() {
    let changes = [
        ("UPDATE trail_records SET record = replace(record, 'CreateKey', 'ListKeys') WHERE seq = 2", "changed", true),
        ("DELETE FROM trail_records WHERE seq = 2", "removed", true),
        (
            "INSERT INTO trail_records SELECT 0, trail, time, record, facets FROM trail_records WHERE seq = 2",
            "added",
            false,
        ),
    ];
    for (change, what, same_id) in changes {
        let (_base, home) = storied(2);
        let id: String = home
            .read(|tx| {
                let id = "SELECT record ->> '$.eventID' FROM trail_records WHERE seq = 2";
                Ok::<_, ServiceError>(tx.query_row(id, [], |row| row.get(0))?)
            })
            .unwrap();
        home.write(|tx| Ok::<_, ServiceError>(tx.execute_batch(change)?)).unwrap();
        let damage = own_verdict(&home).damage;
        assert_eq!((damage.len(), damage[0].file.as_str()), (1, "state.db"), "{damage:?}");
        assert!(damage[0].problem.contains(what), "{damage:?}");
        assert!(!same_id || damage[0].record == Some(id));
    }
}

#[test]
fn a_changed_file_names_the_record_at_home() {
    let (_base, home) = storied(2);
    let log = files(&home.dir().path_of("trail"), "logs").remove(1);
    let json = String::from_utf8(unpacked(&log)).unwrap();
    let id = serde_json::from_str::<Value>(&json).unwrap()["Records"][0]["eventID"].as_str().unwrap().to_owned();
    let changed = json.replace("CreateKey", "DescribeKey");
    fs::write(&log, packed(changed.as_bytes(), flate2::Compression::fast())).unwrap();
    let damage = own_verdict(&home).damage;
    assert!(damage[0].file.contains("_CloudTrail_"), "{damage:?}");
    assert_eq!(damage[0].record, Some(id));
}

fn delivered_ids(home: &Home) -> Vec<String> {
    let folder = home.dir().path_of("trail");
    let ids = |path: PathBuf| {
        let json: Value = serde_json::from_slice(&unpacked(&path)).unwrap();
        let records = json["Records"].as_array().unwrap().clone();
        records.into_iter().map(|record| record["eventID"].as_str().unwrap().to_owned())
    };
    files(&folder, "logs").into_iter().flat_map(ids).collect()
}

/// Whether every record is in one file, after a crash between a file's rename and the commit of its row.
fn each_record_is_in_one_file_after_a_crash() -> bool {
    let (_base, home) = temporary();
    for _ in 0..3 {
        new_key(&root(&home));
    }
    home.advance_clock(HOUR).unwrap();
    let lost: Result<(), ServiceError> = home.write(|tx| {
        let due = trail::next_delivery(tx)?.expect("three records wait");
        trail::deliver(&home, tx, due)?;
        Err(StoreError::Scarce.into())
    });
    lost.unwrap_err();
    assert_eq!(delivered_ids(&home).len(), 3, "the file is there, its row is not");
    gate::settle(&home, SERVICE.settlers).unwrap();
    let ids = delivered_ids(&home);
    ids.len() == 3 && ids.iter().collect::<BTreeSet<_>>().len() == 3 && own_verdict(&home).damage.is_empty()
}

#[test]
fn a_file_whose_commit_was_lost_is_made_again_in_its_place() {
    assert!(each_record_is_in_one_file_after_a_crash());
    assert!(!without(Protection::StableName, each_record_is_in_one_file_after_a_crash));
}

#[test]
fn files_come_every_five_minutes_digests_every_hour_and_a_year_makes_no_thousands() {
    let (_base, home) = temporary();
    let folder = home.dir().path_of("trail");
    new_key(&root(&home));
    assert!(!folder.exists());
    home.advance_clock(SignedDuration::from_secs(300)).unwrap();
    new_key(&root(&home));
    assert_eq!(files(&folder, "logs").len(), 1, "an operation delivers what is due before it begins");
    home.advance_clock(HOUR).unwrap();
    gate::settle(&home, SERVICE.settlers).unwrap();
    assert_eq!(files(&folder, "logs").len(), 2);
    assert!(matches!(files(&folder, "digests").len(), 1 | 2), "the hour may have ended between the two files");
    home.advance_clock(HOUR * 24 * 365).unwrap();
    gate::settle(&home, SERVICE.settlers).unwrap();
    let quiet = files(&folder, "digests").len();
    assert!(quiet <= 2);
    new_key(&root(&home));
    digests::deliver_now(&home).unwrap();
    assert_eq!(files(&folder, "logs").len(), 3, "what waits is delivered when it is asked for");
    home.advance_clock(HOUR).unwrap();
    gate::settle(&home, SERVICE.settlers).unwrap();
    let digests = files(&folder, "digests");
    assert_eq!(digests.len(), quiet + 1);
    let last: Value = serde_json::from_slice(&unpacked(&digests[quiet])).unwrap();
    let before: Value = serde_json::from_slice(&unpacked(&digests[quiet - 1])).unwrap();
    assert_eq!(last["digestStartTime"], before["digestEndTime"], "no time is left out between two digests");
    assert!(last["digestEndTime"].as_str().unwrap().ends_with(":00:00Z"));
    assert_eq!(own_verdict(&home).damage, []);
}

/// Ten thousand records are not left to wait for the clock.
#[test]
fn many_records_are_delivered_before_five_minutes_pass() {
    let (_base, home) = temporary();
    new_key(&root(&home));
    home.write(|tx| {
        let copies = "INSERT INTO trail_records (trail, time, record, facets)
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20500)
            SELECT trail, time, record, facets FROM trail_records, n";
        Ok::<_, ServiceError>(tx.execute_batch(copies)?)
    })
    .unwrap();
    gate::settle(&home, SERVICE.settlers).unwrap();
    assert_eq!(delivered_ids(&home).len(), 20_000);
    assert_eq!(own_verdict(&home).damage, []);
}

#[test]
fn what_cannot_be_written_is_put_off_and_refuses_nobody() {
    let (_base, home) = temporary();
    let folder = home.dir().path_of("trail");
    fs::write(&folder, "in the way").unwrap();
    new_key(&root(&home));
    home.advance_clock(HOUR * 2).unwrap();
    new_key(&root(&home));
    let error = digests::deliver_now(&home).unwrap_err();
    assert!(error.message().contains("trail"), "{error}");
    fs::remove_file(&folder).unwrap();
    digests::deliver_now(&home).unwrap();
    assert_eq!((delivered_ids(&home).len(), files(&folder, "digests").len()), (2, 1));
    new_key(&root(&home));
    home.advance_clock(HOUR * 2).unwrap();
    fs::rename(home.dir().path_of("root.key"), home.dir().path_of("kept")).unwrap();
    gate::settle(&home, SERVICE.settlers).unwrap();
    assert_eq!(files(&folder, "digests").len(), 1, "without the root key nothing is signed");
    fs::rename(home.dir().path_of("kept"), home.dir().path_of("root.key")).unwrap();
    home.advance_clock(HOUR).unwrap();
    gate::settle(&home, SERVICE.settlers).unwrap();
    assert_eq!(files(&folder, "digests").len(), 2);
    assert_eq!(own_verdict(&home).damage, []);
}
