//! A device against a plain array of bytes: whatever is done to both, they stay the same.

use std::fs::File;
use std::sync::Arc;

use proptest::prelude::*;

use super::{SECTOR_SIZES, cipher, pattern};
use crate::device::storage::{FileOptions, MappedFile, Memory, Storage};
use crate::device::{BlockDevice, CryptDevice, PlainDevice, ZeroMode};
use crate::units::SectorSize;

/// Bytes of a device at first; it may grow to twice that.
const LENGTH: u64 = 192 * 1024;

/// Where the ciphertext starts: the first window border of the mapping lies inside the device.
const BASE: u64 = 16 * 1024;

#[derive(Clone, Debug)]
enum Step {
    Read { offset: u64, length: u64 },
    Write { offset: u64, length: u64, seed: u8 },
    Zero { offset: u64, length: u64, mode: ZeroMode },
    Flush,
    Grow { units: u64 },
    Extents { offset: u64, length: u64 },
    Reopen,
    Fill,
}

/// Ranges that like units, sectors and their neighbours, and now and then end past the device.
fn range() -> impl Strategy<Value = (u64, u64)> {
    let place = prop_oneof![
        4 => 0..2 * LENGTH,
        4 => (0..2 * LENGTH / 512, -1..2i64).prop_map(|(unit, by)| (unit * 512).saturating_add_signed(by)),
        1 => Just(0u64),
    ];
    let length = prop_oneof![
        4 => 0..3000u64,
        2 => (0..64u64, -1..2i64).prop_map(|(units, by)| (units * 512).saturating_add_signed(by)),
        1 => 0..LENGTH,
    ];
    (place, length)
}

fn step() -> impl Strategy<Value = Step> {
    let mode = prop_oneof![Just(ZeroMode::MayPunch), Just(ZeroMode::KeepAllocated)];
    prop_oneof![
        4 => range().prop_map(|(offset, length)| Step::Read { offset, length }),
        6 => (range(), any::<u8>()).prop_map(|((offset, length), seed)| Step::Write { offset, length, seed }),
        3 => (range(), mode).prop_map(|((offset, length), mode)| Step::Zero { offset, length, mode }),
        1 => Just(Step::Flush),
        1 => (0..LENGTH / 4096).prop_map(|units| Step::Grow { units }),
        2 => range().prop_map(|(offset, length)| Step::Extents { offset, length }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Fill),
    ]
}

/// A device under test, with what the trait does not have.
trait Subject: Sized {
    fn device(&self) -> &dyn BlockDevice;
    fn grow(&self, length: u64);
    fn fill(&self) {}
    fn reopen(self, length: u64) -> Self;
}

struct Crypt<S> {
    device: CryptDevice<Arc<S>>,
    size: SectorSize,
}

impl<S: Storage> Crypt<S> {
    fn new(storage: Arc<S>, length: u64, size: SectorSize) -> Self {
        Self { device: CryptDevice::new(storage, BASE, length, cipher(), size).unwrap(), size }
    }
}

impl<S: Storage> Subject for Crypt<S> {
    fn device(&self) -> &dyn BlockDevice {
        &self.device
    }

    fn grow(&self, length: u64) {
        self.device.grow(length, || Ok(())).unwrap();
    }

    fn fill(&self) {
        self.device.fill(|_| ()).unwrap();
    }

    fn reopen(self, length: u64) -> Self {
        let storage = self.device.storage().clone();
        Self::new(storage, length, self.size)
    }
}

struct Plain<S>(PlainDevice<Arc<S>>);

impl<S: Storage> Subject for Plain<S> {
    fn device(&self) -> &dyn BlockDevice {
        &self.0
    }

    fn grow(&self, length: u64) {
        self.0.grow(length).unwrap();
    }

    fn reopen(self, length: u64) -> Self {
        Self(PlainDevice::new(self.0.storage().clone(), length).unwrap())
    }
}

fn run(mut subject: impl Subject, steps: &[Step]) {
    let mut model = vec![0u8; usize::try_from(LENGTH).unwrap()];
    for step in steps {
        let device = subject.device();
        let size = model.len() as u64;
        assert_eq!(device.size(), size);
        match *step {
            Step::Read { offset, length } => {
                let mut found = vec![0xee; usize::try_from(length).unwrap()];
                let outcome = device.read_at(offset, &mut found);
                assert_eq!(outcome.is_ok(), offset + length <= size, "{step:?}");
                if outcome.is_ok() {
                    assert!(found == model[place(offset, length)], "{step:?}");
                }
            }
            Step::Write { offset, length, seed } => {
                let data = pattern(seed, usize::try_from(length).unwrap());
                let outcome = device.write_at(offset, &data);
                assert_eq!(outcome.is_ok(), offset + length <= size, "{step:?}");
                if outcome.is_ok() {
                    model[place(offset, length)].copy_from_slice(&data);
                }
            }
            Step::Zero { offset, length, mode } => {
                let outcome = device.write_zeroes(offset, length, mode);
                assert_eq!(outcome.is_ok(), offset + length <= size, "{step:?}");
                if outcome.is_ok() {
                    model[place(offset, length)].fill(0);
                }
            }
            Step::Flush => device.flush().unwrap(),
            Step::Grow { units } => {
                let length = (LENGTH + units * 4096).max(size);
                subject.grow(length);
                model.resize(usize::try_from(length).unwrap(), 0);
            }
            Step::Extents { offset, length } => {
                let outcome = device.extents(offset, length);
                assert_eq!(outcome.is_ok(), offset + length <= size, "{step:?}");
                let runs = outcome.unwrap_or_default();
                let total: u64 = runs.iter().map(|run| run.length).sum();
                assert!(total <= length && runs.iter().all(|run| run.length > 0));
                let mut at = offset;
                for run in runs {
                    assert!(
                        !run.zero || model[place(at, run.length)].iter().all(|byte| *byte == 0),
                        "{step:?}: {run:?}"
                    );
                    at += run.length;
                }
            }
            Step::Reopen => subject = subject.reopen(size),
            Step::Fill => subject.fill(),
        }
    }
    let mut whole = vec![0xee; model.len()];
    subject.device().read_at(0, &mut whole).unwrap();
    assert!(whole == model);
}

fn place(offset: u64, length: u64) -> std::ops::Range<usize> {
    usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap()
}

/// A file of its own, in windows so small that they come and go.
fn file_storage(length: u64) -> Arc<MappedFile> {
    let file: File = tempfile::tempfile().unwrap();
    file.set_len(length).unwrap();
    Arc::new(MappedFile::new(file, FileOptions::default().windows(64 * 1024, 2)).unwrap())
}

/// How many workloads each backend gets.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(64, |text| text.parse().unwrap())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn an_encrypted_device_in_memory_is_an_array_of_bytes(steps in steps(), size in prop::sample::select(&SECTOR_SIZES)) {
        let storage = Arc::new(Memory::new(usize::try_from(BASE + LENGTH).unwrap()));
        run(Crypt::new(storage, LENGTH, size), &steps);
    }

    #[test]
    fn an_encrypted_device_in_a_file_is_an_array_of_bytes(steps in steps(), size in prop::sample::select(&SECTOR_SIZES)) {
        run(Crypt::new(file_storage(BASE + LENGTH), LENGTH, size), &steps);
    }

    #[test]
    fn a_plain_device_is_an_array_of_bytes(steps in steps()) {
        run(Plain(PlainDevice::new(Arc::new(Memory::new(usize::try_from(LENGTH).unwrap())), LENGTH).unwrap()), &steps);
        run(Plain(PlainDevice::new(file_storage(LENGTH), LENGTH).unwrap()), &steps);
    }
}

/// Many threads, each in its own part of one file: what each wrote is there.
#[test]
fn threads_in_disjoint_ranges_do_not_disturb_each_other() {
    for size in SECTOR_SIZES {
        let device = CryptDevice::new(file_storage(BASE + (1 << 20)), BASE, 1 << 20, cipher(), size).unwrap();
        let part = (1u64 << 20) / 8;
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let device = &device;
                scope.spawn(move || {
                    let start = u64::from(thread) * part;
                    for round in 0..30u64 {
                        // Odd places, so that units are shared with the neighbour where parts meet.
                        let offset = start + (round * 997) % (part - 700);
                        let data = pattern(thread, 700);
                        device.write_at(offset, &data).unwrap();
                        let mut found = vec![0; 700];
                        device.read_at(offset, &mut found).unwrap();
                        assert!(found == data);
                    }
                });
            }
        });
    }
}
