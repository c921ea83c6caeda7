//! The kernel for AES-NI on 128-bit registers: every x86-64 processor since about 2011.
//!
//! The same plan as for VAES-256, for the same reasons (see there), with registers of one block: a turn of 512 bytes is
//! four quarters of eight registers. Only SSE2 and AES-NI are used, so that processors without AVX have this engine too.
#![expect(unsafe_code, reason = "inline assembly over checked slices")]

use std::arch::{asm, is_x86_feature_detected};
use std::mem::MaybeUninit;

use super::keys::{Rounds, Schedule};
use super::{Direction, Isa, Ring, Source, TURN, TWEAKS, Turns};
use crate::xts::field::Element;

/// The proof that the machine has AES-NI.
#[derive(Clone, Copy)]
pub(super) struct AesNi(());

impl AesNi {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("aes").then_some(Self(()))
    }
}

/// Stores the tweak in the half of the ring that is written, and multiplies it by x: shifted by one, and the bit that falls out
/// at the top comes back as the polynomial 0x87.
macro_rules! tweak {
    ($($place:literal),+) => {
        concat!(
            "mov [{write} + ", $($place,)+ "], {lo}\n",
            "mov [{write} + ", $($place,)+ " + 8], {hi}\n",
            "mov {carry}, {hi}\n",
            "sar {carry}, 63\n",
            "and {carry:e}, 0x87\n",
            "add {lo}, {lo}\n",
            "adc {hi}, {hi}\n",
            "xor {lo}, {carry}\n",
        )
    };
}

/// A round of all registers in flight.
macro_rules! round {
    ($aes:literal, $round:literal) => {
        concat!(
            "movdqa xmm8, [{keys} + 16*", $round, "]\n",
            each!("aes" $aes " xmm\\i, xmm8"),
        )
    };
}

/// A round and one of the next turn's tweaks. Rounds 2 to 9 make the eight that lie `$quarter` bytes into it.
macro_rules! round_and_tweak {
    ($aes:literal, $round:literal, $quarter:literal) => {
        concat!(round!($aes, $round), tweak!($quarter, " + 16*(", $round, " - 2)"))
    };
}

/// A quarter of a turn: XOR with the tweaks and the first round key, the rounds, the last one with the tweak in its key.
macro_rules! quarter {
    ($aes:literal, $quarter:literal, [$($round:expr),+]) => {
        concat!(
            each!("movdqu xmm\\i, [{src} + 16*\\i + " $quarter "]"),
            each!("pxor xmm\\i, [{read} + 16*\\i + " $quarter "]"),
            each!("pxor xmm\\i, xmm15"),
            $($round,)+
            each!(
                "movdqa xmm8, [{read} + 16*\\i + " $quarter "]",
                "pxor xmm8, xmm14",
                "aes" $aes "last xmm\\i, xmm8",
                "movdqu [{dst} + 16*\\i + " $quarter "], xmm\\i"
            ),
        )
    };
}

/// A quarter of a turn that makes the tweaks of the next turn's same quarter on the way.
macro_rules! quarter_and_tweaks {
    ($aes:literal, $quarter:literal, [$($late:literal),*]) => {
        quarter!($aes, $quarter, [
            round!($aes, "1"),
            round_and_tweak!($aes, "2", $quarter),
            round_and_tweak!($aes, "3", $quarter),
            round_and_tweak!($aes, "4", $quarter),
            round_and_tweak!($aes, "5", $quarter),
            round_and_tweak!($aes, "6", $quarter),
            round_and_tweak!($aes, "7", $quarter),
            round_and_tweak!($aes, "8", $quarter),
            round_and_tweak!($aes, "9", $quarter)
            $(, round!($aes, $late))*
        ])
    };
}

/// A quarter of the last turn of a run.
macro_rules! quarter_alone {
    ($aes:literal, $quarter:literal, [$($late:literal),*]) => {
        quarter!($aes, $quarter, [
            round!($aes, "1"), round!($aes, "2"), round!($aes, "3"), round!($aes, "4"), round!($aes, "5"),
            round!($aes, "6"), round!($aes, "7"), round!($aes, "8"), round!($aes, "9") $(, round!($aes, $late))*
        ])
    };
}

/// A kernel: `$aes` is `enc` or `dec`, `$late` are the rounds from the tenth to the last but one, `$last` is the last.
macro_rules! kernel {
    ($name:ident, $aes:literal, [$($late:literal),*], $last:literal) => {
        /// # Safety
        /// The machine has AES-NI. `keys` are aligned round keys up to number `$last`; `src` and `dst` are `turns` (at least
        /// 1) times 512 bytes, the same or apart; `source` has a tweak for every turn.
        unsafe fn $name(keys: *const u8, src: *const u8, dst: *mut u8, turns: usize, source: &mut Source) {
            let mut ring = Ring(MaybeUninit::uninit());
            let first_half = ring.0.as_mut_ptr().cast::<u8>();
            // SAFETY: loads and stores go to `turns` times 512 bytes of `src` and `dst`, to the ring's two halves of 512 bytes,
            // to the round keys, and to one tweak for each time that `left` runs out, which is never after the last turn's.
            // What must be aligned to 16, ring and keys, is. All registers that change are named; the stack is not used.
            unsafe {
                asm!(
                    "movdqa xmm15, [{keys}]",
                    concat!("movdqa xmm14, [{keys} + 16*", $last, "]"),
                    fetch!(),
                    ".irp j, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                    tweak!("16*\\j"),
                    ".endr",
                    "xchg {read}, {write}",
                    "dec {turns}",
                    "jz 4f",

                    "2:",
                    "dec {left}",
                    "jnz 3f",
                    fetch!(),
                    "3:",
                    quarter_and_tweaks!($aes, "0", [$($late),*]),
                    quarter_and_tweaks!($aes, "128", [$($late),*]),
                    quarter_and_tweaks!($aes, "256", [$($late),*]),
                    quarter_and_tweaks!($aes, "384", [$($late),*]),
                    "add {src}, 512",
                    "add {dst}, 512",
                    "xchg {read}, {write}",
                    "dec {turns}",
                    "jnz 2b",

                    "4:",
                    quarter_alone!($aes, "0", [$($late),*]),
                    quarter_alone!($aes, "128", [$($late),*]),
                    quarter_alone!($aes, "256", [$($late),*]),
                    quarter_alone!($aes, "384", [$($late),*]),

                    "pxor xmm0, xmm0",
                    ".irp j, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                    "movdqa [{read} + 16*\\j], xmm0",
                    "movdqa [{write} + 16*\\j], xmm0",
                    ".endr",
                    "xor {lo:e}, {lo:e}",
                    "xor {hi:e}, {hi:e}",
                    keys = in(reg) keys,
                    src = inout(reg) src => _,
                    dst = inout(reg) dst => _,
                    turns = inout(reg) turns => _,
                    source = in(reg) source,
                    write = inout(reg) first_half => _,
                    read = inout(reg) first_half.wrapping_add(TURN) => _,
                    left = out(reg) _,
                    lo = out(reg) _,
                    hi = out(reg) _,
                    carry = out(reg) _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                    out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                    out("xmm8") _, out("xmm14") _, out("xmm15") _,
                    options(nostack),
                );
            }
        }
    };
}

kernel!(encrypt_128, "enc", [], "10");
kernel!(decrypt_128, "dec", [], "10");
kernel!(encrypt_256, "enc", ["10", "11", "12", "13"], "14");
kernel!(decrypt_256, "dec", ["10", "11", "12", "13"], "14");

impl Isa for AesNi {
    fn crypt(
        self,
        schedule: &Schedule,
        direction: Direction,
        tweaks: &[Element],
        turns_per_tweak: usize,
        turns: Turns<'_, '_>,
    ) {
        let count = turns.len();
        assert!(count > 0 && tweaks.len() == count.div_ceil(turns_per_tweak), "every turn has a tweak");
        let kernel = match (direction, schedule.rounds()) {
            (Direction::Encrypt, Rounds::Ten) => encrypt_128,
            (Direction::Decrypt, Rounds::Ten) => decrypt_128,
            (Direction::Encrypt, Rounds::Fourteen) => encrypt_256,
            (Direction::Decrypt, Rounds::Fourteen) => decrypt_256,
        };
        let mut source = Source { next: tweaks.as_ptr(), turns_per_tweak: turns_per_tweak as u64 };
        let (src, dst) = turns.into_raw();
        // SAFETY: `self` proves the instructions. The schedule has the round keys that its `rounds` say. `src` and `dst` come
        // from an `InOutBuf` of `count` turns, so they are that long and either the same or apart. There is a tweak for every
        // turn, by the assertion. Both pointers live until the call is over, as `turns` and `tweaks` are borrowed for it.
        unsafe { kernel(schedule.as_ptr(), src.cast(), dst.cast(), count, &mut source) }
    }

    fn encrypt_blocks(self, schedule: &Schedule, blocks: &mut [Element; TWEAKS]) {
        let last = schedule.rounds().count();
        for blocks in blocks.as_chunks_mut::<8>().0 {
            // SAFETY: `self` proves the instructions. Loads and stores go to the 128 bytes of `blocks`, and loads to round
            // keys up to the last, which the schedule has, aligned. All registers that change are named; the stack is not used.
            unsafe {
                asm!(
                    "movdqa xmm15, [{keys}]",
                    each!("movdqu xmm\\i, [{blocks} + 16*\\i]", "pxor xmm\\i, xmm15"),
                    "2:",
                    "add {keys}, 16",
                    "movdqa xmm15, [{keys}]",
                    each!("aesenc xmm\\i, xmm15"),
                    "cmp {keys}, {end}",
                    "jne 2b",
                    "movdqa xmm15, [{keys} + 16]",
                    each!("aesenclast xmm\\i, xmm15", "movdqu [{blocks} + 16*\\i], xmm\\i"),
                    keys = inout(reg) schedule.as_ptr() => _,
                    end = in(reg) schedule.as_ptr().wrapping_add(16 * (last - 1)),
                    blocks = in(reg) blocks.as_mut_ptr(),
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                    out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                    out("xmm15") _,
                    options(nostack),
                );
            }
        }
    }

    fn encrypt_block(self, schedule: &Schedule, block: &mut Element) {
        let last = schedule.rounds().count();
        // SAFETY: `self` proves the instructions. Loads and stores go to the 16 bytes of `block`, and loads to round keys up to
        // the last, which the schedule has, aligned. All registers that change are named; the stack is not used.
        unsafe {
            asm!(
                "movdqu xmm0, [{block}]",
                "pxor xmm0, [{keys}]",
                "2:",
                "add {keys}, 16",
                "aesenc xmm0, [{keys}]",
                "cmp {keys}, {end}",
                "jne 2b",
                "aesenclast xmm0, [{keys} + 16]",
                "movdqu [{block}], xmm0",
                keys = inout(reg) schedule.as_ptr() => _,
                end = in(reg) schedule.as_ptr().wrapping_add(16 * (last - 1)),
                block = in(reg) block,
                out("xmm0") _,
                options(nostack),
            );
        }
    }

    fn ecb(self, schedule: &Schedule, turns: Turns<'_, '_>) {
        assert!(!turns.is_empty() && schedule.rounds() == Rounds::Fourteen, "the ceiling is measured with AES-256");
        let count = turns.len();
        let (src, dst) = turns.into_raw();
        // SAFETY: `self` proves the instructions. Loads and stores go to the `count` turns of 512 bytes that `src` and `dst`
        // have, and loads to the schedule's fifteen aligned round keys. All registers that change are named; the stack is not
        // used.
        unsafe {
            asm!(
                "movdqa xmm15, [{keys}]",
                "movdqa xmm14, [{keys} + 16*14]",
                "2:",
                each!("movdqu xmm\\i, [{src} + 16*\\i]", "pxor xmm\\i, xmm15"),
                round!("enc", "1"), round!("enc", "2"), round!("enc", "3"), round!("enc", "4"), round!("enc", "5"),
                round!("enc", "6"), round!("enc", "7"), round!("enc", "8"), round!("enc", "9"), round!("enc", "10"),
                round!("enc", "11"), round!("enc", "12"), round!("enc", "13"),
                each!("aesenclast xmm\\i, xmm14", "movdqu [{dst} + 16*\\i], xmm\\i"),
                "add {src}, 128",
                "add {dst}, 128",
                "dec {quarters}",
                "jnz 2b",
                keys = in(reg) schedule.as_ptr(),
                src = inout(reg) src => _,
                dst = inout(reg) dst => _,
                quarters = inout(reg) count * 4 => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm14") _, out("xmm15") _,
                options(nostack),
            );
        }
    }
}
