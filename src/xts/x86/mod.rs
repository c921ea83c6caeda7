//! Engines of our own for x86-64. What they share is here and safe: cutting work into 512-byte units for a kernel, and
//! the few bytes that do not fill one. Each instruction set has a fenced module of its own.
//!
//! An [`Isa`] value is the proof that the machine has the instructions: only its module makes one, after it asked the
//! processor. So all calls below are safe.

/// The lines for each of the registers in flight with these numbers, `\i` standing for the number.
macro_rules! each_of {
    ($numbers:literal: $($($text:literal)+),+) => {
        concat!(".irp i, ", $numbers, "\n", $($($text,)+ "\n",)+ ".endr\n")
    };
}

/// The lines for each of the eight registers in flight.
macro_rules! each {
    ($($text:tt)+) => { each_of!("0,1,2,3,4,5,6,7": $($text)+) };
}

/// Fetches a sector's tweak from a [`Source`].
macro_rules! fetch {
    () => {
        "mov {carry}, [{source}]
         mov {lo}, [{carry}]
         mov {hi}, [{carry} + 8]
         add {carry}, 16
         mov [{source}], {carry}
         mov {left}, [{source} + 8]"
    };
}

mod aesni;
mod keys;
mod vaes256;

use std::mem::MaybeUninit;

use aes::cipher::consts::U512;
use aes::cipher::inout::InOutBuf;
use aes::cipher::typenum::Unsigned;
use zeroize::Zeroize;

use super::batch::Kernel;
use super::bench::Work;
use super::field::{Element, times_x_to_the};
use super::{BLOCK_BYTES, Direction, Engine};
use crate::secret::{self, SecretBox};
use aesni::AesNi;
use keys::{Schedule, Schedules};
use vaes256::Vaes256;

/// Bytes that a kernel handles in one turn.
const TURN: usize = 512;

/// A turn's bytes, source and destination.
type Turns<'src, 'dst> = InOutBuf<'src, 'dst, aes::cipher::Array<u8, U512>>;

/// Tweaks that a kernel encrypts in one turn.
const TWEAKS: usize = 16;

/// An instruction set that the machine was found to have.
trait Isa: Copy + Send + Sync + 'static {
    /// XTS of `turns` under already encrypted tweaks, one for every `turns_per_tweak` of them (at least 1; the last may have
    /// fewer).
    fn crypt(
        self,
        schedule: &Schedule,
        direction: Direction,
        tweaks: &[Element],
        turns_per_tweak: usize,
        turns: Turns<'_, '_>,
    );

    /// AES of tweaks.
    fn encrypt_blocks(self, schedule: &Schedule, blocks: &mut [Element; TWEAKS]);

    /// AES of one tweak.
    fn encrypt_block(self, schedule: &Schedule, block: &mut Element);

    /// AES-256 of everything, without tweaks: the most that XTS could reach with these instructions.
    fn ecb(self, schedule: &Schedule, turns: Turns<'_, '_>);
}

pub(super) fn has_aes_ni() -> bool {
    AesNi::detect().is_some()
}

pub(super) fn has_vaes_256() -> bool {
    Vaes256::detect().is_some()
}

/// Expands a key of 32 or 64 bytes for AES-NI; `None` if the machine lacks it.
pub(super) fn expand_aes_ni(key: &[u8]) -> Option<Box<dyn Engine>> {
    let isa = AesNi::detect()?;
    Some(Box::new(X86 { isa, schedules: keys::expand(isa, key) }))
}

/// Expands a key of 32 or 64 bytes for VAES-256; `None` if the machine lacks it.
pub(super) fn expand_vaes_256(key: &[u8]) -> Option<Box<dyn Engine>> {
    let isa = Vaes256::detect()?;
    Some(Box::new(X86 { isa, schedules: keys::expand(isa.into(), key) }))
}

/// Tweaks of the turn in work and of the next one. A kernel writes each half before it reads it, and zeros at the end.
#[repr(align(64))]
struct Ring(MaybeUninit<[u8; 2 * TURN]>);

/// Where a kernel finds the next sector's tweak, and for how many turns one is used.
#[repr(C)]
struct Source {
    next: *const Element,
    turns_per_tweak: u64,
}

/// AES-256 in ECB mode with the widest instructions that this machine has, under an all-zero key: a measure, no encryption.
/// Whole turns of 512 bytes are done.
pub(super) fn ceiling() -> Option<Work> {
    fn with<I: Isa>(isa: I, proof: AesNi) -> Work {
        let schedules = keys::expand(proof, &[0; 64]);
        Box::new(move |src, dst| {
            if let Ok(data) = InOutBuf::new(src, dst) {
                isa.ecb(&schedules.expose().encrypt, data.into_chunks::<U512>().0);
            }
        })
    }
    let narrow = AesNi::detect()?;
    Some(match Vaes256::detect() {
        Some(wide) => with(wide, narrow),
        None => with(narrow, narrow),
    })
}

struct X86<I> {
    isa: I,
    schedules: SecretBox<Schedules>,
}

impl<I: Isa> Kernel for X86<I> {
    fn encrypt_tweaks(&self, tweaks: &mut [Element]) {
        let schedule = &self.schedules.expose().tweak;
        let (whole, rest) = tweaks.as_chunks_mut::<TWEAKS>();
        for blocks in whole {
            self.isa.encrypt_blocks(schedule, blocks);
        }
        if let [tweak] = rest {
            self.isa.encrypt_block(schedule, tweak);
        } else if !rest.is_empty() {
            let mut blocks = [0; TWEAKS];
            blocks[..rest.len()].copy_from_slice(rest);
            self.isa.encrypt_blocks(schedule, &mut blocks);
            rest.copy_from_slice(&blocks[..rest.len()]);
            blocks.zeroize();
        }
    }

    fn process(&self, direction: Direction, tweaks: &[Element], piece: usize, data: InOutBuf<'_, '_, u8>) {
        let schedules = self.schedules.expose();
        let schedule = match direction {
            Direction::Encrypt => &schedules.encrypt,
            Direction::Decrypt => &schedules.decrypt,
        };
        if piece.is_multiple_of(TURN) {
            let turns_per_tweak = piece / TURN;
            let whole = data.len() / TURN;
            let (turns, rest) = data.into_chunks::<U512>();
            if whole > 0 {
                let tweaks = &tweaks[..whole.div_ceil(turns_per_tweak)];
                self.isa.crypt(schedule, direction, tweaks, turns_per_tweak, turns);
            }
            if !rest.is_empty() {
                let first = tweaks[whole / turns_per_tweak];
                let blocks_before = whole % turns_per_tweak * (TURN / BLOCK_BYTES);
                self.short(schedule, direction, times_x_to_the(first, blocks_before), rest);
            }
        } else {
            let mut data = data;
            for tweak in tweaks {
                let length = piece.min(data.len());
                let (piece, after) = data.split_at(length);
                let whole = length / TURN;
                let (turns, rest) = piece.into_chunks::<U512>();
                if whole > 0 {
                    self.isa.crypt(schedule, direction, &[*tweak], whole, turns);
                }
                if !rest.is_empty() {
                    self.short(schedule, direction, times_x_to_the(*tweak, whole * (TURN / BLOCK_BYTES)), rest);
                }
                data = after;
            }
        }
    }

    fn wipe_traces(&self) {
        // The kernels spill nothing: they keep round keys in registers alone, and wipe the tweaks that they store.
        secret::wipe_registers();
    }
}

impl<I: Isa> X86<I> {
    /// Whole blocks that fill no turn: done in a buffer that is one.
    fn short(&self, schedule: &Schedule, direction: Direction, tweak: Element, mut data: InOutBuf<'_, '_, u8>) {
        let mut turn = [0; TURN];
        let length = data.len();
        turn[..length].copy_from_slice(data.get_in());
        let (turns, _) = InOutBuf::from(&mut turn[..]).into_chunks::<U512>();
        self.isa.crypt(schedule, direction, &[tweak], 1, turns);
        data.get_out().copy_from_slice(&turn[..length]);
        turn.zeroize();
    }
}

const _: () = assert!(U512::USIZE == TURN);

#[cfg(test)]
mod borders;

#[cfg(test)]
mod tests {
    use ::aes::Aes256Enc;
    use ::aes::cipher::{BlockCipherEncrypt, KeyInit};

    use super::*;

    #[test]
    fn the_ceiling_is_ecb_and_so_are_tweaks() {
        fn check<I: Isa>(isa: I, proof: AesNi) {
            let key: Vec<u8> = (0..64).collect();
            let schedules = keys::expand(proof, &key);
            let (data, tweak) =
                (Aes256Enc::new_from_slice(&key[..32]).unwrap(), Aes256Enc::new_from_slice(&key[32..]).unwrap());
            let src: Vec<u8> = (0..=255).cycle().take(3 * TURN).collect();
            let mut dst = vec![0; src.len()];
            isa.ecb(&schedules.expose().encrypt, InOutBuf::new(&src, &mut dst).unwrap().into_chunks::<U512>().0);
            let mut expected = src.clone();
            for block in expected.as_chunks_mut::<BLOCK_BYTES>().0 {
                data.encrypt_block(block.into());
            }
            assert_eq!(dst, expected);

            let mut tweaks: [Element; TWEAKS] = std::array::from_fn(|index| index as Element * 0x0123_4567_89ab);
            let expected = tweaks.map(|number| {
                let mut block = number.to_le_bytes();
                tweak.encrypt_block((&mut block).into());
                Element::from_le_bytes(block)
            });
            let mut one = tweaks[3];
            isa.encrypt_block(&schedules.expose().tweak, &mut one);
            assert_eq!(one, expected[3]);
            isa.encrypt_blocks(&schedules.expose().tweak, &mut tweaks);
            assert_eq!(tweaks, expected);
        }
        if let Some(narrow) = AesNi::detect() {
            check(narrow, narrow);
            if let Some(wide) = Vaes256::detect() {
                check(wide, narrow);
            }
        }
    }
}
