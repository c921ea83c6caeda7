//! The power goes at any moment: flushed bytes are there, and every unit is one of the versions that were written to it.

use std::collections::HashSet;

use super::backends::{Flush, PowerCut};
use super::{SECTOR_SIZES, device_on};
use crate::device::protections::Protections;
use crate::device::storage::{Latched, Memory, Storage as _};
use crate::device::{BlockDevice as _, ZeroMode};
use crate::units::SectorSize;

const UNITS: usize = 64;

/// A small generator, so that a failure names its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap()
    }
}

type Unit = [u8; 512];

fn units_of(bytes: &[u8]) -> Vec<Unit> {
    bytes.as_chunks::<512>().0.to_vec()
}

/// Runs random writes, cuts the power after every one of them, and counts the units that hold what was never written to
/// them or that lost what was flushed.
fn broken_units(seed: u64, size: SectorSize, flush: Flush, protections: Protections) -> usize {
    let mut random = Random(seed * 2 + 1);
    let device = device_on(Latched::new(PowerCut::new(vec![0; UNITS * 512], flush), None), size, protections);
    let mut plain = vec![0; UNITS * 512];
    // What each unit may hold after a cut: the version of the last flush, and every one written since.
    let mut versions: Vec<HashSet<Unit>> = vec![HashSet::from([[0; 512]]); UNITS];
    let mut broken = 0;
    for step in 1..40u8 {
        let start = random.next() % plain.len();
        let end = (start + 1 + random.next() % 6000).min(plain.len());
        let offset = start as u64;
        match random.next() % 8 {
            0 => {
                device.flush().unwrap();
                versions = units_of(&plain).into_iter().map(|unit| HashSet::from([unit])).collect();
            }
            1 => {
                device.write_zeroes(offset, (end - start) as u64, ZeroMode::MayPunch).unwrap();
                plain[start..end].fill(0);
            }
            _ => {
                let data = vec![step; end - start];
                device.write_at(offset, &data).unwrap();
                plain[start..end].copy_from_slice(&data);
            }
        }
        for (set, unit) in versions.iter_mut().zip(units_of(&plain)) {
            set.insert(unit);
        }
        let image = device.storage().inner().cut(|| random.next().is_multiple_of(2));
        let after = device_on(Memory::from_bytes(image), size, protections);
        let mut found = vec![0; plain.len()];
        after.read_at(0, &mut found).unwrap();
        broken += versions.iter().zip(units_of(&found)).filter(|(set, unit)| !set.contains(unit)).count();
    }
    broken
}

#[test]
fn a_power_cut_leaves_every_unit_old_or_new_and_keeps_what_was_flushed() {
    for size in SECTOR_SIZES {
        for seed in 1..=30 {
            assert_eq!(broken_units(seed, size, Flush::Honest, Protections::ON), 0, "seed {seed}, sectors of {size}");
        }
    }
}

#[test]
fn a_flush_that_does_nothing_is_found_out() {
    let broken: usize =
        (1..=5).map(|seed| broken_units(seed, SectorSize::B4096, Flush::Ignored, Protections::ON)).sum();
    assert!(broken > 0);
}

/// A write torn inside a 4096-byte sector leaves units that were never written beside units that were; without the rule
/// they are noise.
#[test]
fn without_zero_units_a_torn_first_write_is_noise() {
    let no_zero_units = Protections { zero_units: false, ..Protections::ON };
    let broken: usize = (1..=5).map(|seed| broken_units(seed, SectorSize::B4096, Flush::Honest, no_zero_units)).sum();
    assert!(broken > 0);
}

/// What an application sees of a device that tears: a reader after the cut never meets a third thing, whatever the order
/// in which units reached the disk.
#[test]
fn every_cut_of_one_write_is_a_mix_of_old_and_new_units() {
    let device = device_on(PowerCut::new(vec![0; 4096], Flush::Honest), SectorSize::B4096, Protections::ON);
    device.write_at(0, &[1; 4096]).unwrap();
    device.flush().unwrap();
    device.write_at(0, &[2; 4096]).unwrap();
    for mask in 0..256u32 {
        let mut unit = 0;
        let image = device.storage().cut(|| {
            unit += 1;
            mask >> (unit - 1) & 1 == 1
        });
        let after = device_on(Memory::from_bytes(image), SectorSize::B4096, Protections::ON);
        let mut found = vec![0; 4096];
        after.read_at(0, &mut found).unwrap();
        for (index, unit) in units_of(&found).into_iter().enumerate() {
            assert_eq!(unit, [if mask >> index & 1 == 1 { 2 } else { 1 }; 512]);
        }
        assert_eq!(after.storage().length(), 4096);
    }
}
