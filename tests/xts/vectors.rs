//! Published vectors (`fixtures/xts/README.md` names their origin), through every engine, both ways.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use blockseal::units::{SectorSize, UnitIndex};
use blockseal::xts::{EngineChoice, EngineKind, XtsCipher, XtsError};
use flate2::read::GzDecoder;
use openssl::symm;

use super::{cipher, secret};

struct Vector {
    name: String,
    key: Vec<u8>,
    tweak: [u8; 16],
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/xts").join(name)
}

/// The cases of a response file: blocks of `Name = value` lines. Returns those in whole bytes and the count of the others.
fn parse(file: &str, text: &str) -> (Vec<Vector>, usize) {
    let mut vectors = Vec::new();
    let mut in_bits = 0;
    for block in text.replace("\r\n", "\n").split("\n\n") {
        let fields: BTreeMap<_, _> = block.lines().filter_map(|line| line.split_once(" = ")).collect();
        let Some(key) = fields.get("Key") else { continue };
        if fields.get("DataUnitLen").is_some_and(|bits| bits.parse::<u32>().unwrap() % 8 != 0) {
            in_bits += 1;
            continue;
        }
        let bytes = |name| hex::decode(fields[name]).unwrap();
        let tweak = match (fields.get("i").or(fields.get("Tweak")), fields.get("DataUnitSeqNumber")) {
            (Some(tweak), None) => hex::decode(tweak).unwrap().try_into().unwrap(),
            (None, Some(number)) => number.parse::<u128>().unwrap().to_le_bytes(),
            _ => panic!("{file}: a case with two tweaks or none"),
        };
        let number = fields.get("COUNT").or(fields.get("Vector")).unwrap();
        vectors.push(Vector {
            name: format!("{file} {number}"),
            key: hex::decode(key).unwrap(),
            tweak,
            plain: bytes("PT"),
            sealed: bytes("CT"),
        });
    }
    (vectors, in_bits)
}

fn check(vectors: &[Vector]) {
    for engine in EngineKind::available() {
        for Vector { name, key, tweak, plain, sealed } in vectors {
            let cipher = cipher(key, engine);
            let mut out = vec![0; plain.len()];
            cipher.encrypt_data_unit(*tweak, plain, &mut out).unwrap();
            assert_eq!(&out, sealed, "{engine} encrypts {name}");
            cipher.decrypt_data_unit(*tweak, sealed, &mut out).unwrap();
            assert_eq!(&out, plain, "{engine} decrypts {name}");
        }
    }
}

#[test]
fn ieee_1619_annex_b() {
    let (vectors, _) = parse("IEEE 1619", &fs::read_to_string(fixture("ieee1619-annex-b.txt")).unwrap());
    assert_eq!(vectors.len(), 19);
    check(&vectors);
    // The vectors of 512 bytes are sectors as well, and must come out the same by the way that volumes use.
    let sectors: Vec<_> = vectors.iter().filter(|vector| vector.plain.len() == 512).collect();
    assert_eq!(sectors.len(), 12);
    for engine in EngineKind::available() {
        for Vector { name, key, tweak, plain, sealed } in &sectors {
            let first = UnitIndex(u64::from_le_bytes(tweak[..8].try_into().unwrap()));
            let mut data = plain.clone();
            cipher(key, engine).encrypt_in_place(SectorSize::B512, first, &mut data).unwrap();
            assert_eq!(&data, sealed, "{engine} encrypts {name} as a sector");
        }
    }
}

#[test]
fn nist_cavp() {
    for (bits, outside) in [(128, 200), (256, 400)] {
        for format in ["128hexstr", "dataunitseqno"] {
            let name = format!("nist-cavp-tweak-{format}-XTSGenAES{bits}.rsp.gz");
            let mut text = String::new();
            GzDecoder::new(fs::File::open(fixture(&name)).unwrap()).read_to_string(&mut text).unwrap();
            let (vectors, in_bits) = parse(&name, &text);
            assert_eq!((vectors.len(), in_bits), (1000 - outside, outside), "{name}");
            check(&vectors);
        }
    }
}

#[test]
fn equal_halves_are_refused_and_unrefused_give_the_tweak_away() {
    let half = *b"both halves same";
    let key = [half, half].concat();
    assert_eq!(XtsCipher::new(&secret(&key), EngineChoice::Auto).map(|_| ()).unwrap_err(), XtsError::EqualHalves);
    // The twin: without the check, who has one chosen ciphertext decrypted learns the secret tweak, since the block under both
    // layers then is the encrypted sector number itself: D(0 xor T) xor T = D(E(i)) xor T = i xor T.
    let number = [7; 16];
    let tweak = symm::encrypt(symm::Cipher::aes_128_ecb(), &half, None, &number).unwrap();
    let learnt = |cipher: &XtsCipher| {
        let mut plain = [0; 16];
        cipher.decrypt_data_unit(number, &[0; 16], &mut plain).unwrap();
        plain.iter().zip(number).map(|(a, b)| a ^ b).collect::<Vec<_>>()
    };
    let unchecked = XtsCipher::new_with_any_halves(&secret(&key), EngineChoice::Auto).unwrap();
    assert_eq!(learnt(&unchecked), tweak[..16]);
    let sound = XtsCipher::new(&secret(&[*b"not the same one", half].concat()), EngineChoice::Auto).unwrap();
    assert_ne!(learnt(&sound), tweak[..16]);
}
