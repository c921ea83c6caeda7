//! An all-zero unit of ciphertext reads as zeros, and whatever was written lies where LUKS2 says it does.

use std::sync::Arc;

use super::{SECTOR_SIZES, cipher, device_on, key, memory_device, pattern};
use crate::device::protections::Protections;
use crate::device::storage::{Memory, Storage as _};
use crate::device::{BlockDevice as _, DeviceErrorKind, ZeroMode};
use crate::units::{SectorSize, UnitIndex, is_all_zero};
use crate::xts::{EngineChoice, EngineKind, XtsCipher};

const NO_ZERO_UNITS: Protections = Protections { zero_units: false, ..Protections::ON };

#[test]
fn what_was_never_written_reads_as_zeros() {
    for size in SECTOR_SIZES {
        let device = memory_device(1 << 16, size);
        let mut bytes = vec![1; 1 << 16];
        device.read_at(0, &mut bytes).unwrap();
        assert!(is_all_zero(&bytes));

        let twin = device_on(Memory::new(1 << 16), size, NO_ZERO_UNITS);
        twin.read_at(0, &mut bytes).unwrap();
        assert!(bytes.chunks(512).all(|unit| !is_all_zero(unit)), "without the rule, zeros decrypt to noise");
    }
}

/// The 512 bytes are one unit of a 4096-byte sector whose other seven were never written: they stay zeros, and the unit
/// is the same ciphertext that encrypting the whole sector would have put there.
#[test]
fn a_write_of_one_unit_needs_no_other_unit_of_its_sector() {
    let device = memory_device(1 << 16, SectorSize::B4096);
    let data = pattern(3, 512);
    device.write_at(3 * 4096 + 5 * 512, &data).unwrap();
    let mut sector = vec![0; 4096];
    device.read_at(3 * 4096, &mut sector).unwrap();
    assert_eq!(sector[5 * 512..6 * 512], data);
    assert!(is_all_zero(&sector[..5 * 512]) && is_all_zero(&sector[6 * 512..]));

    let reference = XtsCipher::new(&key(1), EngineChoice::Forced(EngineKind::Reference)).unwrap();
    let mut whole = vec![0; 4096];
    reference.encrypt(SectorSize::B4096, UnitIndex(3 * 8), &sector, &mut whole).unwrap();
    let stored = device.storage().to_bytes();
    assert_eq!(stored[3 * 4096 + 5 * 512..3 * 4096 + 6 * 512], whole[5 * 512..6 * 512]);
    assert!(is_all_zero(&stored[3 * 4096..3 * 4096 + 5 * 512]));
}

#[test]
fn writes_of_any_alignment_are_the_sectors_that_the_reference_makes() {
    for size in SECTOR_SIZES {
        let device = memory_device(1 << 16, size);
        let mut plain = vec![0; 1 << 16];
        // Every unit holds data first, so that each is ciphertext and the whole can be compared.
        for (seed, (offset, length)) in (1..).zip([
            (0, 1 << 16),
            (1, 1),
            (511, 2),
            (4095, 4098),
            (700, 5000),
            (65535, 1),
            (12288, 512),
            (20000, 40000),
        ]) {
            let data = pattern(seed, length);
            device.write_at(offset as u64, &data).unwrap();
            plain[offset..offset + length].copy_from_slice(&data);
        }
        let reference = XtsCipher::new(&key(1), EngineChoice::Forced(EngineKind::Reference)).unwrap();
        let mut whole = vec![0; 1 << 16];
        reference.encrypt(size, UnitIndex(0), &plain, &mut whole).unwrap();
        assert!(device.storage().to_bytes() == whole, "sectors of {size}");
    }
}

#[test]
fn zeroed_and_trimmed_ranges_read_as_zeros_whatever_their_edges() {
    for size in SECTOR_SIZES {
        for mode in [ZeroMode::MayPunch, ZeroMode::KeepAllocated] {
            for (start, length) in
                [(0, 4096), (1, 510), (511, 2), (300, 900), (512, 1024), (5, 20000), (0, 0), (4096, 1)]
            {
                let device = memory_device(1 << 15, size);
                let mut plain = pattern(9, 1 << 15);
                device.write_at(0, &plain).unwrap();
                device.write_zeroes(start as u64, length as u64, mode).unwrap();
                plain[start..start + length].fill(0);
                let mut found = vec![1; 1 << 15];
                device.read_at(0, &mut found).unwrap();
                assert!(found == plain, "{length} bytes at {start}, {mode:?}, sectors of {size}");
            }
        }
    }
}

/// Trimming a part of a unit that holds nothing leaves it a hole.
#[test]
fn a_ragged_trim_of_nothing_stores_nothing() {
    let device = memory_device(8192, SectorSize::B4096);
    device.trim(100, 5000).unwrap();
    assert!(is_all_zero(&device.storage().to_bytes()));
    device.write_zeroes(100, 50, ZeroMode::KeepAllocated).unwrap();
    assert!(!is_all_zero(&device.storage().to_bytes()[..512]), "kept allocated means stored");
}

#[test]
fn after_a_fill_the_file_is_plain_xts_throughout() {
    for size in SECTOR_SIZES {
        let device = memory_device(1 << 20, size);
        device.write_at(300_000, &pattern(4, 100_000)).unwrap();
        device.trim(350_000, 20_000).unwrap();
        let mut before = vec![0; 1 << 20];
        device.read_at(0, &mut before).unwrap();
        let mut last = 0;
        device.fill(|done| last = done).unwrap();
        assert_eq!(last, 1 << 20);
        let mut plain = vec![0; 1 << 20];
        cipher().decrypt(size, UnitIndex(0), &device.storage().to_bytes(), &mut plain).unwrap();
        assert!(plain == before, "a program without the zero rule reads the same");
    }
}

#[test]
fn requests_of_no_bytes_are_fine_and_requests_past_the_end_are_not() {
    let device = memory_device(8192, SectorSize::B4096);
    device.read_at(8192, &mut []).unwrap();
    device.write_at(8192, &[]).unwrap();
    device.trim(0, 0).unwrap();
    for (offset, length) in [(8192, 1), (8191, 2), (u64::MAX, 1), (u64::MAX, 2), (0, 8193)] {
        let out = |result: Result<(), crate::device::DeviceError>| {
            assert_eq!(result.unwrap_err().kind(), DeviceErrorKind::OutOfRange);
        };
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        out(device.read_at(offset, &mut bytes));
        out(device.write_at(offset, &bytes));
        out(device.write_zeroes(offset, length, ZeroMode::MayPunch));
        out(device.extents(offset, length).map(drop));
    }
    assert!(is_all_zero(&device.storage().to_bytes()));
}

/// Equal plaintext at an equal place under one key is equal ciphertext: what a unit copied from a sibling volume of the
/// same lineage relies on, and what an observer of two copies sees.
#[test]
fn a_unit_copied_from_a_sibling_at_its_place_decrypts_and_elsewhere_does_not() {
    let (one, other) = (memory_device(8192, SectorSize::B4096), memory_device(8192, SectorSize::B4096));
    let data = pattern(5, 512);
    one.write_at(1024, &data).unwrap();
    let stored = one.storage().to_bytes();
    other.storage().write(1024, &stored[1024..1536]).unwrap();
    other.storage().write(4096 + 1024, &stored[1024..1536]).unwrap();
    let mut found = vec![0; 512];
    other.read_at(1024, &mut found).unwrap();
    assert_eq!(found, data);
    other.read_at(4096 + 1024, &mut found).unwrap();
    assert_ne!(found, data);
}

#[test]
fn a_device_that_does_not_fit_its_storage_is_refused() {
    let storage = Arc::new(Memory::new(8192));
    let make = |base, length| {
        crate::device::CryptDevice::new(storage.clone(), base, length, cipher(), SectorSize::B512)
            .map(|device| device.size())
    };
    assert_eq!(make(4096, 4096).unwrap(), 4096);
    assert_eq!(make(4096, 4608).unwrap_err().kind(), DeviceErrorKind::OutOfRange);
    assert_eq!(make(0, 1000).unwrap_err().kind(), DeviceErrorKind::Invalid);
    assert_eq!(make(u64::MAX, 512).unwrap_err().kind(), DeviceErrorKind::OutOfRange);
}
