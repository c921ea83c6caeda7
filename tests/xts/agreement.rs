//! Every engine against OpenSSL and `reference`: random keys, lengths, alignments and places on the volume.

use blockseal::units::{SectorSize, UnitIndex};
use blockseal::xts::{Direction, EngineChoice, EngineKind, XtsCipher, XtsError};
use proptest::prelude::*;

use super::{cipher, noise, oracle, secret};

/// Places where a counter could be cut short: the volume's start, the ends of 32-bit numbers of units and of bytes, the end of a
/// volume of 64 TiB, the number of units in 2^64 bytes, the end of the tweak's 64 bits.
fn first_unit() -> impl Strategy<Value = UnitIndex> {
    let edges = prop::sample::select(vec![0, 1 << 23, 1 << 32, 1 << 37, 1 << 55, 1 << 63, u64::MAX]);
    prop_oneof![any::<u64>(), (edges, 0..200_u64).prop_map(|(edge, back)| edge.wrapping_add(20).wrapping_sub(back))]
        .prop_map(UnitIndex)
}

fn sector_size() -> impl Strategy<Value = SectorSize> {
    prop::sample::select(vec![SectorSize::B512, SectorSize::B4096])
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 64), prop::collection::vec(any::<u8>(), 32)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn runs(
        key in key(),
        size in sector_size(),
        first in first_unit(),
        units in prop_oneof![1..40_usize, 1..1200_usize],
        src_offset in 0..64_usize,
        dst_offset in 0..64_usize,
        seed: u64,
    ) {
        let length = units * 512;
        let source = noise(src_offset + length, seed);
        let plain = &source[src_offset..];
        let sealed = oracle::run(&key, Direction::Encrypt, size, first, plain);
        for engine in EngineKind::available() {
            let cipher = cipher(&key, engine);
            let mut buffer = vec![0x5a; dst_offset + length + 64];
            let whole = dst_offset..dst_offset + length;

            cipher.encrypt(size, first, plain, &mut buffer[whole.clone()]).unwrap();
            prop_assert!(buffer[whole.clone()] == sealed, "{engine} encrypts");
            prop_assert!(buffer[..dst_offset].iter().chain(&buffer[whole.end..]).all(|byte| *byte == 0x5a), "{engine} writes outside");
            cipher.decrypt_in_place(size, first, &mut buffer[whole.clone()]).unwrap();
            prop_assert!(buffer[whole.clone()] == *plain, "{engine} decrypts in place");
            cipher.encrypt_in_place(size, first, &mut buffer[whole.clone()]).unwrap();
            prop_assert!(buffer[whole.clone()] == sealed, "{engine} encrypts in place");
            cipher.decrypt(size, first, &sealed, &mut buffer[whole.clone()]).unwrap();
            prop_assert!(buffer[whole.clone()] == *plain, "{engine} decrypts");
            prop_assert!(buffer[..dst_offset].iter().chain(&buffer[whole.end..]).all(|byte| *byte == 0x5a), "{engine} writes outside");
        }
    }

    #[test]
    fn data_units(
        key in key(),
        tweak: [u8; 16],
        length in prop_oneof![16..600_usize, 16..20_000_usize],
        offset in 0..32_usize,
        seed: u64,
    ) {
        let source = noise(offset + length, seed);
        let plain = &source[offset..];
        let sealed = oracle::data_unit(&key, Direction::Encrypt, tweak, plain);
        for engine in EngineKind::available() {
            let cipher = cipher(&key, engine);
            let mut out = vec![0; length];
            cipher.encrypt_data_unit(tweak, plain, &mut out).unwrap();
            prop_assert!(out == sealed, "{engine} encrypts {length} bytes");
            let mut back = vec![0; length];
            cipher.decrypt_data_unit(tweak, &out, &mut back).unwrap();
            prop_assert!(back == plain, "{engine} decrypts {length} bytes");
        }
    }

    #[test]
    fn a_run_in_any_pieces_is_the_run(
        size in sector_size(),
        first in first_unit(),
        cuts in prop::collection::vec(1..30_usize, 1..12),
        seed: u64,
    ) {
        let key = noise(64, seed);
        let plain = noise(cuts.iter().sum::<usize>() * 512, !seed);
        for engine in EngineKind::available() {
            let cipher = cipher(&key, engine);
            let mut whole = plain.clone();
            cipher.encrypt_in_place(size, first, &mut whole).unwrap();
            let mut pieces = plain.clone();
            let mut done = 0;
            for cut in &cuts {
                let unit = first.wrapping_add(done as u64 / 512);
                cipher.encrypt_in_place(size, unit, &mut pieces[done..done + cut * 512]).unwrap();
                done += cut * 512;
            }
            prop_assert!(whole == pieces, "{engine}");
        }
    }
}

#[test]
fn every_short_length_with_stealing() {
    for bytes in [32, 64] {
        let key = noise(bytes, 7);
        for length in 16..=600 {
            let plain = noise(length, 11);
            let sealed = oracle::data_unit(&key, Direction::Encrypt, [9; 16], &plain);
            for engine in EngineKind::available() {
                let mut out = vec![0; length];
                cipher(&key, engine).encrypt_data_unit([9; 16], &plain, &mut out).unwrap();
                assert_eq!(out, sealed, "{engine} {length}");
                cipher(&key, engine).decrypt_data_unit([9; 16], &sealed, &mut out).unwrap();
                assert_eq!(out, plain, "{engine} {length}");
            }
        }
    }
}

#[test]
fn every_place_and_short_length_in_4096_byte_sectors() {
    let key = noise(64, 3);
    let plain = noise(40 * 512, 4);
    for place in 0..9 {
        for units in 1..40 {
            let sealed =
                oracle::run(&key, Direction::Encrypt, SectorSize::B4096, UnitIndex(place), &plain[..units * 512]);
            for engine in EngineKind::available() {
                let mut out = vec![0; units * 512];
                let cipher = cipher(&key, engine);
                cipher.encrypt(SectorSize::B4096, UnitIndex(place), &plain[..units * 512], &mut out).unwrap();
                assert!(out == sealed, "{engine} encrypts {units} units from {place}");
                cipher.decrypt_in_place(SectorSize::B4096, UnitIndex(place), &mut out).unwrap();
                assert!(out == plain[..units * 512], "{engine} decrypts {units} units from {place}");
            }
        }
    }
}

#[test]
fn bad_input_is_refused_by_name() {
    let key = noise(64, 1);
    for bytes in [0, 1, 16, 31, 33, 48, 63, 65, 128] {
        let error = XtsCipher::new(&secret(&noise(bytes, 2)), EngineChoice::Auto).map(|_| ()).unwrap_err();
        assert_eq!(error, XtsError::KeyLength { bytes });
    }
    for engine in EngineKind::available() {
        let cipher = cipher(&key, engine);
        let size = SectorSize::B4096;
        let mut data = noise(1024, 5);
        let before = data.clone();
        for length in [1, 16, 511, 513, 1023] {
            assert!(cipher.encrypt_in_place(size, UnitIndex(0), &mut data[..length]).is_err());
            assert!(cipher.decrypt_in_place(size, UnitIndex(0), &mut data[..length]).is_err());
        }
        assert_eq!(
            cipher.encrypt(size, UnitIndex(0), &[0; 512], &mut data).unwrap_err(),
            XtsError::Lengths { source_bytes: 512, destination_bytes: 1024 }
        );
        for length in [0, 1, 15] {
            assert_eq!(
                cipher.encrypt_data_unit([0; 16], &vec![0; length], &mut data[..length]).unwrap_err(),
                XtsError::DataUnitLength { bytes: length }
            );
        }
        assert_eq!(data, before);
        cipher.encrypt(size, UnitIndex(0), &[], &mut []).unwrap();
        assert!(!format!("{cipher:?}").contains(&hex::encode(&key[..4])));
        assert!(format!("{cipher:?}").contains("REDACTED"));
    }
}
