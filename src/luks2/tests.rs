//! Every damaged bit is found, every departure from the profile is refused by name, and nothing panics.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::binary::{Binary, Place};
use super::*;
use crate::secret::SecretBytes;
use crate::twin::{Protection, without};

const JSON: std::ops::Range<usize> = 4096..COPY_BYTES;

fn key() -> SecretBytes {
    SecretBytes::new_with(KEY_BYTES, |bytes| {
        for (index, byte) in (0u8..).zip(bytes) {
            *byte = index;
        }
    })
}

fn wrapped() -> WrappedKey {
    WrappedKey {
        blob: (0..184).collect(),
        key_arn: "arn:aws:kms:us-east-1:123456789012:key/0b9ae5a2-1111-4222-8333-444455556666".to_owned(),
        encryption_context: BTreeMap::from([
            ("aws:ebs:id".to_owned(), "vol-0123456789abcdef0".to_owned()),
            ("aws:rds:db-id".to_owned(), "db-CQYSMDPBRZ7BPMH7Y3RTDG5QY".to_owned()),
        ]),
    }
}

fn header() -> Header {
    let digest = KeyDigest::new(&key()).unwrap();
    Header::new("vol-0123456789abcdef0", SectorSize::B4096, 1 << 30, digest, wrapped()).unwrap()
}

/// Both copies with the JSON area `json`, under valid checksums.
fn around(json: &[u8]) -> Vec<u8> {
    let mut area = header().encode().unwrap().concatenated();
    for copy in area.chunks_exact_mut(COPY_BYTES) {
        copy[JSON].fill(0);
        copy[JSON][..json.len()].copy_from_slice(json);
        seal(copy);
    }
    area
}

fn seal(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let checksum = Sha256::digest(&*copy);
    copy[448..480].copy_from_slice(&checksum);
}

#[test]
fn what_was_encoded_is_parsed() {
    for size in [SectorSize::B512, SectorSize::B4096] {
        for length in [4096, 1 << 30, 64 << 40] {
            let digest = KeyDigest::new(&key()).unwrap();
            let header = Header::new("vol-12345678", size, length, digest, wrapped()).unwrap();
            let (found, copies) = Header::parse(&header.encode().unwrap().concatenated()).unwrap();
            assert_eq!(found, header);
            assert!(copies.clean() && found.digest().matches(&key()));
            assert_eq!((found.sector_size(), found.length()), (size, length));
            assert_eq!(found.wrapped_key(), &wrapped());
        }
    }
}

#[test]
fn each_copy_and_each_write_has_a_salt_of_its_own() {
    let header = header();
    let (one, two) = (header.encode().unwrap(), header.encode().unwrap());
    let mut salts: Vec<_> =
        [&one.primary, &one.secondary, &two.primary, &two.secondary].map(|copy| copy[104..168].to_vec()).into();
    salts.sort();
    salts.dedup();
    assert_eq!(salts.len(), 4);
}

/// One flipped bit anywhere in the 32 KiB: its copy is damaged, the other one counts, and the header is the same.
#[test]
fn every_flipped_bit_is_found() {
    let header = header();
    let area = header.encode().unwrap().concatenated();
    std::thread::scope(|scope| {
        for place in [Place::Primary, Place::Secondary] {
            let (area, header) = (&area, &header);
            scope.spawn(move || {
                let start = if place == Place::Primary { 0 } else { COPY_BYTES };
                let mut copy = area[start..start + COPY_BYTES].to_vec();
                Binary::decode(&copy, place).unwrap();
                for bit in 0..COPY_BYTES * 8 {
                    copy[bit / 8] ^= 1 << (bit % 8);
                    let damage = Binary::decode(&copy, place).unwrap_err();
                    // The whole parser for a part of them: what it adds is the choice between the copies.
                    if bit.is_multiple_of(97) {
                        let mut damaged = area.clone();
                        damaged[start..start + COPY_BYTES].copy_from_slice(&copy);
                        let (found, copies) = Header::parse(&damaged).unwrap();
                        assert_eq!(found, *header);
                        let state = if place == Place::Primary { copies.primary } else { copies.secondary };
                        assert_eq!(state, CopyState::Damaged(damage), "bit {bit}");
                    }
                    copy[bit / 8] ^= 1 << (bit % 8);
                }
            });
        }
    });
}

/// Only the checksum finds what says something else and is well-formed: a label, a salt, the JSON area.
#[test]
fn without_the_checksum_most_flipped_bits_are_believed() {
    let copy = header().encode().unwrap().primary;
    let believed = || {
        let flipped = |bit: usize| {
            let mut copy = copy.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            Binary::decode(&copy, Place::Primary).is_ok()
        };
        (0..COPY_BYTES * 8).step_by(41).filter(|bit| flipped(*bit)).count()
    };
    assert_eq!(believed(), 0);
    let unnoticed = without(Protection::HeaderChecksum, believed);
    assert!(unnoticed > COPY_BYTES * 8 / 41 / 2, "{unnoticed}");
}

/// What the flips above would miss without the look at the padding: the checksum leaves its own field out.
#[test]
fn the_unused_half_of_the_checksum_field_is_looked_at() {
    let mut area = header().encode().unwrap().concatenated();
    area[500] = 1;
    let (_, copies) = Header::parse(&area).unwrap();
    assert_eq!(copies.primary, CopyState::Damaged(Damage::Padding));
}

#[test]
fn the_newer_valid_copy_counts() {
    let old = header();
    let new = old.next(2 << 30).unwrap();
    let (old_copies, new_copies) = (old.encode().unwrap(), new.encode().unwrap());
    let torn = [new_copies.primary.clone(), old_copies.secondary.clone()].concat();
    let (found, copies) = Header::parse(&torn).unwrap();
    assert_eq!((found, copies.secondary), (new.clone(), CopyState::Stale));
    let other = [old_copies.primary.clone(), new_copies.secondary.clone()].concat();
    let (found, copies) = Header::parse(&other).unwrap();
    assert_eq!((found, copies.primary), (new.clone(), CopyState::Stale));
    let mut damaged = torn;
    damaged[4096] ^= 1;
    let (found, copies) = Header::parse(&damaged).unwrap();
    assert_eq!((found, copies.primary), (old, CopyState::Damaged(Damage::Checksum)));
}

/// A newer copy that is valid and refused must not be passed over for the older one: cryptsetup would show the newer.
#[test]
fn a_refused_newer_copy_is_refused() {
    let old = header();
    let mut newer = old.next(1 << 30).unwrap().encode().unwrap().primary;
    let json = String::from_utf8(newer[JSON].to_vec()).unwrap().replace("aes-xts-plain64", "cipher_null-ecb");
    newer[JSON].copy_from_slice(json.as_bytes());
    seal(&mut newer);
    let error = Header::parse(&[newer, old.encode().unwrap().secondary].concat()).unwrap_err();
    assert!(matches!(error, HeaderError::Refused { field: "segments.0.encryption", .. }), "{error}");
}

#[test]
fn two_damaged_copies_are_a_clear_error() {
    let mut area = header().encode().unwrap().concatenated();
    area[0] = 0;
    area[COPY_BYTES + 5000] ^= 1;
    let text = Header::parse(&area).unwrap_err().to_string();
    assert!(text.contains("no LUKS magic") && text.contains("wrong checksum") && text.contains("backup"), "{text}");
    assert!(matches!(Header::parse(&[]), Err(HeaderError::BothDamaged { .. })));
    // A copy at the other's place is none.
    let swapped = [&area[COPY_BYTES..], &area[..COPY_BYTES]].concat();
    assert!(matches!(Header::parse(&swapped), Err(HeaderError::BothDamaged { .. })));
}

#[test]
fn a_file_that_ends_inside_the_header_is_read_as_far_as_it_is_whole() {
    let area = header().encode().unwrap().concatenated();
    for length in (0..HEADER_BYTES).step_by(101) {
        let parsed = Header::parse(&area[..length]);
        assert_eq!(parsed.is_ok(), length >= COPY_BYTES, "{length}");
        if let Ok((_, copies)) = parsed {
            assert_eq!(copies.secondary, CopyState::Damaged(Damage::Short));
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error_that_says_so() {
    let new = |label: &str, wrapped: WrappedKey| {
        Header::new(label, SectorSize::B4096, 1 << 30, KeyDigest::new(&key()).unwrap(), wrapped)
    };
    let too_large = |result: Result<Header, HeaderError>| matches!(result, Err(HeaderError::TooLarge { .. }));
    assert!(new(&"v".repeat(47), wrapped()).is_ok());
    assert!(too_large(new(&"v".repeat(48), wrapped())));
    assert!(too_large(new("vol\0", wrapped())));
    // The largest ciphertext that KMS gives out fits; a context of the largest size beside it does not.
    assert!(new("vol-12345678", WrappedKey { blob: vec![1; 6144], ..wrapped() }).is_ok());
    let context = BTreeMap::from([("k".to_owned(), "v".repeat(8192))]);
    assert!(too_large(new("v", WrappedKey { blob: vec![1; 6144], encryption_context: context, ..wrapped() })));
    assert!(too_large(Header { seqid: u64::MAX, ..header() }.next(1 << 30)));
}

#[test]
fn keyslots_are_accepted_named_and_kept() {
    let text = fs::read_to_string(fixtures().join("accepted.json")).unwrap();
    let slot = r#"{"type":"luks2","key_size":64,"priority":2}"#;
    let with_slots = text
        .replace(r#""keyslots": {}"#, &format!(r#""keyslots": {{"3":{slot},"11":{slot}}}"#))
        .replace("\"keyslots\": [],\n   \"segments\"", "\"keyslots\": [\"3\",\"11\"],\n   \"segments\"");
    let (header, _) = Header::parse(&around(with_slots.as_bytes())).unwrap();
    assert_eq!(header.keyslots(), ["11", "3"]);
    let (again, _) = Header::parse(&header.next(1 << 31).unwrap().encode().unwrap().concatenated()).unwrap();
    assert_eq!(again.keyslots, header.keyslots);
}

fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/luks2"))
}

/// Each file of `fixtures/luks2/refused` is a JSON area under valid checksums; its first line has what the error says.
#[test]
fn every_departure_from_the_profile_is_refused_by_name() {
    let accepted = fs::read(fixtures().join("accepted.json")).unwrap();
    Header::parse(&around(&accepted)).unwrap();
    let mut count = 0;
    for entry in fs::read_dir(fixtures().join("refused")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (first, json) = text.split_once('\n').unwrap();
        let says = first.strip_prefix("# says: ").unwrap();
        let error = Header::parse(&around(json.as_bytes())).expect_err(&path.display().to_string());
        assert!(matches!(error, HeaderError::Refused { .. } | HeaderError::Json(_)), "{}: {error}", path.display());
        let chain = match &error {
            HeaderError::Json(source) => format!("{error}: {source}"),
            other => other.to_string(),
        };
        assert!(chain.contains(says), "{}: {chain}", path.display());
        assert!(chain.len() < 400, "{}: an error is a line, not a dump: {chain}", path.display());
        count += 1;
    }
    assert!(count >= 50, "{count} files");
}

#[test]
fn bytes_behind_the_json_are_refused() {
    let mut area = around(&fs::read(fixtures().join("accepted.json")).unwrap());
    for copy in area.chunks_exact_mut(COPY_BYTES) {
        copy[COPY_BYTES - 1] = b'x';
        seal(copy);
    }
    let error = Header::parse(&area).unwrap_err();
    assert!(error.to_string().contains("the end of the JSON area"), "{error}");
    let full = vec![b' '; COPY_BYTES - 4096];
    assert!(Header::parse(&around(&full)).is_err(), "an area without an end");
}

/// Headers as earlier versions wrote them, and one to which cryptsetup added a keyslot.
#[test]
fn headers_on_disks_stay_readable() {
    for (name, sector_size, keyslots) in [
        ("made-512.hdr", SectorSize::B512, 0),
        ("made-4096.hdr", SectorSize::B4096, 0),
        ("with-keyslot.hdr", SectorSize::B4096, 1),
    ] {
        let area = fs::read(fixtures().join(name)).unwrap();
        let (header, copies) = Header::parse(&area).unwrap();
        assert!(copies.clean(), "{name}");
        assert_eq!(header.sector_size(), sector_size, "{name}");
        assert_eq!(header.keyslots().len(), keyslots, "{name}");
        assert_eq!(header.label(), "vol-0123456789abcdef0");
        assert_eq!(header.subsystem(), SUBSYSTEM);
        assert_eq!(header.length(), 1 << 30);
        assert_eq!(header.wrapped_key(), &wrapped());
        assert!(header.digest().matches(&key()), "{name}");
    }
}

/// Random bytes, and random changes under valid checksums: refused or meaningful, never a panic.
#[test]
fn no_bytes_make_the_parser_panic() {
    let count = std::env::var("BLOCKSEAL_FUZZ_RUNS").map_or(2_000, |text| text.parse::<u64>().unwrap());
    let area = header().encode().unwrap().concatenated();
    let json_end = area[JSON].iter().position(|byte| *byte == 0).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 32).unwrap() % below
    };
    for _ in 0..count / 4 {
        let mut input = area.clone();
        for _ in 0..=random(6) {
            let at = 4096 + random(json_end);
            let byte = *[b'"', b'{', b'}', b'[', b']', b':', b',', b'0', b'9', b'-', b'e', b'.', b'\\', 0, 0xff, b' ']
                .get(random(16))
                .unwrap();
            input[at] = byte;
            input[COPY_BYTES + at] = byte;
        }
        input.chunks_exact_mut(COPY_BYTES).for_each(seal);
        if let Ok((header, _)) = Header::parse(&input) {
            let (again, _) = Header::parse(&header.encode().unwrap().concatenated()).unwrap();
            assert_eq!(again, header);
        }
        let noise: Vec<u8> = (0..random(HEADER_BYTES * 2)).map(|_| u8::try_from(random(256)).unwrap()).collect();
        assert!(Header::parse(&noise).is_err());
    }
}
