//! The parser of LUKS2 headers against bytes that somebody else wrote.
//!
//! A header is guarded by checksums, which anyone who can write the file can compute. So half of the inputs get their
//! checksums put right after they were mutated, which is what brings the fuzzer into the JSON behind them.

use std::collections::BTreeMap;

use blockseal::luks2::{COPY_BYTES, HEADER_BYTES, Header, HeaderError, KEY_BYTES, KeyDigest, WrappedKey};
use blockseal::secret::SecretBytes;
use blockseal::units::SectorSize;
use sha2::{Digest as _, Sha256};

use crate::fuzz::fuzz;

fn header(sector_size: SectorSize, length: u64) -> Header {
    let key = SecretBytes::new_with(KEY_BYTES, |bytes| bytes.copy_from_slice(&crate::guest::test_key(5)));
    let context = [("aws:ebs:id", "vol-0123456789abcdef0"), ("aws:rds:db-id", "db-CQYSMDPBRZ7BPMH7Y3RTDG5QY")];
    let wrapped = WrappedKey {
        blob: (0..=255).collect(),
        key_arn: "arn:aws:kms:us-east-1:123456789012:key/0b9ae5a2-1111-4222-8333-444455556666".into(),
        encryption_context: context.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    Header::new("vol-0123456789abcdef0", sector_size, length, KeyDigest::new(&key).unwrap(), wrapped).unwrap()
}

fn corpus() -> Vec<Vec<u8>> {
    let first = header(SectorSize::B4096, 8 << 30);
    let newer = first.next(16 << 30).unwrap();
    let mut torn = first.encode().unwrap();
    torn.secondary = newer.encode().unwrap().secondary;
    vec![
        first.encode().unwrap().concatenated(),
        header(SectorSize::B512, 1 << 30).encode().unwrap().concatenated(),
        torn.concatenated(),
    ]
}

/// Puts the checksum of each copy right.
fn seal(area: &mut [u8]) {
    for copy in area.chunks_exact_mut(COPY_BYTES) {
        copy[448..512].fill(0);
        let checksum = Sha256::digest(&*copy);
        copy[448..480].copy_from_slice(&checksum);
    }
}

#[test]
fn a_hostile_header_is_refused_or_means_what_it_says() {
    fuzz(&corpus(), 2, |input| {
        let mut sealed = input.to_vec();
        seal(&mut sealed);
        for area in [input, &sealed] {
            let Ok((header, _)) = Header::parse(area) else { continue };
            let written = header.encode().unwrap().concatenated();
            assert_eq!(written.len(), HEADER_BYTES);
            let (again, copies) = Header::parse(&written).unwrap();
            assert_eq!(again, header);
            assert!(copies.clean());
            assert!(matches!(header.sector_size().bytes(), 512 | 4096));
        }
    });
}

/// Only the JSON area is mutated, as text, and the checksums are right: every input gets as far as the profile's check.
#[test]
fn a_hostile_json_area_is_refused_or_means_what_it_says() {
    let whole = corpus();
    let texts: Vec<Vec<u8>> = whole.iter().map(|area| json_of(area).to_vec()).collect();
    let accepted = std::cell::Cell::new(0u32);
    fuzz(&texts, 2, |text| {
        let mut area = whole[0].clone();
        let room = COPY_BYTES - 4096;
        for start in [4096, COPY_BYTES + 4096] {
            let text = &text[..text.len().min(room)];
            area[start..start + room].fill(0);
            area[start..start + text.len()].copy_from_slice(text);
        }
        seal(&mut area);
        match Header::parse(&area) {
            Ok((header, copies)) => {
                accepted.set(accepted.get() + 1);
                assert!(copies.clean());
                let written = header.encode().unwrap().concatenated();
                assert_eq!(Header::parse(&written).unwrap().0, header);
            }
            Err(HeaderError::BothDamaged { .. } | HeaderError::Refused { .. } | HeaderError::Json(_)) => {}
            Err(other) => panic!("an error of writing from parsing: {other}"),
        }
    });
    // Some mutations change nothing that counts; were none accepted, the corpus itself would be wrong.
    assert!(accepted.get() > 0);
}

fn json_of(area: &[u8]) -> &[u8] {
    let json = &area[4096..COPY_BYTES];
    &json[..json.iter().position(|byte| *byte == 0).unwrap()]
}

/// The negative space by name: each of these is a header that cryptsetup opens or that a careless reader would.
#[test]
fn every_departure_from_the_profile_is_refused_by_name() {
    let area = corpus().remove(0);
    let text = String::from_utf8(json_of(&area).to_vec()).unwrap();
    let with = |text: &str| {
        let mut area = area.clone();
        for start in [4096, COPY_BYTES + 4096] {
            area[start..start + COPY_BYTES - 4096].fill(0);
            area[start..start + text.len()].copy_from_slice(text.as_bytes());
        }
        seal(&mut area);
        Header::parse(&area).map(|(header, _)| header)
    };
    assert!(with(&text).is_ok());
    let departures = BTreeMap::from([
        ("a cipher that does nothing", (r#""encryption":"aes-xts-plain64""#, r#""encryption":"cipher_null-ecb""#)),
        ("another cipher", (r#""encryption":"aes-xts-plain64""#, r#""encryption":"aes-cbc-plain64""#)),
        ("the tweak from elsewhere", (r#""iv_tweak":"0""#, r#""iv_tweak":"8""#)),
        ("data elsewhere", (r#""offset":"16777216""#, r#""offset":"16781312""#)),
        ("data over the header", (r#""offset":"16777216""#, r#""offset":"0""#)),
        ("a fixed size", (r#""size":"dynamic""#, r#""size":"1048576""#)),
        ("a linear segment", (r#""type":"crypt""#, r#""type":"linear""#)),
        ("an odd sector size", (r#""sector_size":4096"#, r#""sector_size":1024"#)),
        ("a sector size of 0", (r#""sector_size":4096"#, r#""sector_size":0"#)),
        ("another hash", (r#""hash":"sha256""#, r#""hash":"sha1""#)),
        ("another token", (r#""type":"aws-kms""#, r#""type":"systemd-tpm2""#)),
        ("integrity", (r#""sector_size":4096"#, r#""sector_size":4096,"integrity":{"type":"hmac(sha256)"}"#)),
        ("segment flags", (r#""sector_size":4096"#, r#""sector_size":4096,"flags":["in-reencryption"]"#)),
        ("a requirement", (r#""config":{"#, r#""config":{"requirements":{"mandatory":["online-reencrypt-v2"]},"#)),
        ("persistent flags", (r#""config":{"#, r#""config":{"flags":["allow-discards"],"#)),
        ("another key in the root", (r#"{"keyslots":"#, r#"{"more":{},"keyslots":"#)),
    ]);
    for (what, (from, to)) in departures {
        assert!(text.contains(from), "{what}: the header has no {from}: {text}");
        let refused = with(&text.replacen(from, to, 1)).expect_err(what);
        assert!(matches!(refused, HeaderError::Refused { .. } | HeaderError::Json(_)), "{what}: {refused}");
    }
}
