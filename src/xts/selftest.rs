//! The known-answer test that an engine with instructions of its own passes before it is used.
//!
//! The known answers come from the portable engine, so the test covers what a processor, a hypervisor that misreports features or
//! a miscompiled kernel could get wrong: both key lengths, sector sizes and directions, runs that begin and end inside sectors,
//! more sectors than one batch of tweaks, stolen ciphertext.

use aes::cipher::inout::InOutBuf;

use super::{BLOCK_BYTES, Direction, Engine, EngineKind, portable};
use crate::units::{SectorSize, UnitIndex};

/// Runs the test of `engine`. A failure is said once on standard error, as nobody may be asking.
pub(super) fn run(engine: EngineKind, expand: impl Fn(&[u8]) -> Option<Box<dyn Engine>>) -> bool {
    let key: [u8; 64] = std::array::from_fn(|index| low_byte(index * 37 + 11));
    let passed = [&key[..32], &key[..]].into_iter().all(|key| {
        expand(key).is_some_and(|engine| {
            let portable = portable::expand(key);
            let agreed = agree(&*engine, &*portable);
            engine.wipe_traces();
            portable.wipe_traces();
            agreed
        })
    });
    if !passed {
        eprintln!("blockseal: the XTS engine {engine} failed its self-test on this machine and is not used");
    }
    passed
}

fn agree(engine: &dyn Engine, portable: &dyn Engine) -> bool {
    let plain: Vec<u8> = (0..75 * 512).map(|index: usize| low_byte(index ^ (index >> 8))).collect();
    let answers = |engine: &dyn Engine, direction| {
        let mut out = Vec::new();
        for (sector_size, first, units) in [
            (SectorSize::B512, 0, 75),
            (SectorSize::B512, u64::from(u32::MAX), 1),
            (SectorSize::B4096, 8, 24),
            (SectorSize::B4096, u64::MAX - 4, 20),
        ] {
            let mut run = vec![0; units * 512];
            if let Ok(data) = InOutBuf::new(&plain[..units * 512], &mut run) {
                engine.run(direction, sector_size, UnitIndex(first), data);
            }
            engine.run(direction, sector_size, UnitIndex(first), run.as_mut_slice().into());
            out.extend(run);
        }
        for length in [BLOCK_BYTES, 31, 512, 1000, 1024 + 17] {
            let mut unit = plain[..length].to_vec();
            engine.data_unit(direction, [0xc3; BLOCK_BYTES], unit.as_mut_slice().into());
            out.extend(unit);
        }
        out
    };
    [Direction::Encrypt, Direction::Decrypt]
        .into_iter()
        .all(|direction| answers(engine, direction) == answers(portable, direction))
}

#[expect(clippy::cast_possible_truncation, reason = "a pattern, made of low bytes")]
const fn low_byte(number: usize) -> u8 {
    number as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xts::reference;

    /// An engine that is right but for one byte in one kind of run.
    struct Faulty {
        inner: Box<dyn Engine>,
        fault: fn(Direction, SectorSize, UnitIndex, usize) -> Option<usize>,
        fault_in_data_unit: Option<usize>,
    }

    impl Engine for Faulty {
        fn run(&self, direction: Direction, size: SectorSize, first: UnitIndex, mut data: InOutBuf<'_, '_, u8>) {
            self.inner.run(direction, size, first, data.reborrow());
            if let Some(byte) = (self.fault)(direction, size, first, data.len()) {
                data.get_out()[byte] ^= 0x10;
            }
        }

        fn data_unit(&self, direction: Direction, tweak: [u8; BLOCK_BYTES], mut data: InOutBuf<'_, '_, u8>) {
            self.inner.data_unit(direction, tweak, data.reborrow());
            if self.fault_in_data_unit == Some(data.len()) {
                data.get_out()[0] ^= 1;
            }
        }

        fn wipe_traces(&self) {}
    }

    fn passes(
        fault: fn(Direction, SectorSize, UnitIndex, usize) -> Option<usize>,
        fault_in_data_unit: Option<usize>,
        only_for_bytes: usize,
    ) -> bool {
        run(EngineKind::Vaes256, |key| {
            let inner = reference::expand(key);
            if only_for_bytes == key.len() {
                Some(Box::new(Faulty { inner, fault, fault_in_data_unit }))
            } else {
                Some(inner)
            }
        })
    }

    #[test]
    fn a_right_engine_passes() {
        assert!(passes(|_, _, _, _| None, None, 64));
    }

    #[test]
    fn one_wrong_byte_in_one_kind_of_run_fails() {
        for key_bytes in [32, 64] {
            assert!(!passes(|way, _, _, bytes| (way == Direction::Decrypt).then_some(bytes - 1), None, key_bytes));
            assert!(!passes(|_, size, _, _| (size == SectorSize::B4096).then_some(0), None, key_bytes));
            // Only past the first batch of tweaks, only inside a sector, only past 2^32.
            assert!(!passes(|_, _, _, bytes| (bytes > 64 * 512).then_some(64 * 512), None, key_bytes));
            assert!(!passes(|_, _, first, _| (first.0 % 8 == 3).then_some(5), None, key_bytes));
            assert!(!passes(|_, _, first, _| (first.0 >= u64::from(u32::MAX)).then_some(5), None, key_bytes));
            assert!(!passes(|_, _, _, _| None, Some(31), key_bytes));
        }
    }
}
