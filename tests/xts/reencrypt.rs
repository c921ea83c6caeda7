//! Re-encryption in one pass against decrypting everything and encrypting everything.

use std::num::NonZeroUsize;

use blockseal::units::{SectorSize, UnitIndex};
use blockseal::xts::parallel::{self, Data, Job, Workers};
use blockseal::xts::{EngineKind, Side, XtsError, reencrypt, reencrypt_in_place};
use proptest::prelude::*;

use super::{cipher, noise};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn one_pass_is_two_passes(units in 1..300_usize, first: u64, moved in 0..20_u64, sizes in 0..4_u8, seed: u64) {
        let size = |bit: u8| if sizes & bit == 0 { SectorSize::B512 } else { SectorSize::B4096 };
        let plain = noise(units * 512, seed);
        for engine in EngineKind::available() {
            let (old, new) = (cipher(&noise(64, seed), engine), cipher(&noise(32, !seed), engine));
            let from = Side { cipher: &old, size: size(1), first: UnitIndex(first) };
            let to = Side { cipher: &new, size: size(2), first: UnitIndex(first.wrapping_sub(moved)) };
            let (mut before, mut after) = (plain.clone(), plain.clone());
            old.encrypt_in_place(from.size, from.first, &mut before).unwrap();
            new.encrypt_in_place(to.size, to.first, &mut after).unwrap();

            let mut out = vec![0; plain.len()];
            reencrypt(from, to, &before, &mut out).unwrap();
            prop_assert!(out == after, "{engine}");
            let workers = Workers::new(NonZeroUsize::new(3).unwrap(), 0, 4096);
            workers.run(Job::reencrypt(from, to, Data::InPlace(&mut before)).unwrap());
            prop_assert!(before == after, "{engine} on threads, in place");
            reencrypt_in_place(to, to, &mut before).unwrap();
            prop_assert!(before == after, "{engine} to the same key");
        }
    }
}

#[test]
fn lengths_are_checked_and_nothing_written() {
    let cipher = cipher(&noise(64, 1), EngineKind::Portable);
    let side = Side { cipher: &cipher, size: SectorSize::B512, first: UnitIndex(0) };
    let mut out = [9; 1024];
    assert!(matches!(reencrypt(side, side, &[0; 512], &mut out), Err(XtsError::Lengths { .. })));
    assert!(reencrypt(side, side, &[0; 1000], &mut out[..1000]).is_err());
    assert!(reencrypt_in_place(side, side, &mut out[..511]).is_err());
    assert!(parallel::reencrypt(side, side, &[0; 512], &mut out).is_err());
    assert_eq!(out, [9; 1024]);
}
