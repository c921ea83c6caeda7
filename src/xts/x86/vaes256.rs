//! The kernel for VAES on 256-bit registers: Intel since Ice Lake (2019), AMD since Zen 3 (2020).
//!
//! Written as assembly because its speed is its schedule. AES takes 4 cycles a round and two can start in each, so eight
//! independent registers must be in flight at all times; the compiler un-interleaves them into chains of fourteen
//! dependent rounds and spills the rest. And nothing but AES may get in the way of the two ports which do AES: a
//! carry-less multiplication uses one of them, and each shuffle or shift has half a chance. So **the tweaks are made in the
//! integer unit**, which has nothing else to do: doubling a tweak is five integer instructions, and two doublings are
//! placed into each of eight rounds. What is left for the vector unit beside AES are three XORs a register.
//!
//! A turn is 512 bytes, two halves of eight registers. While it is encrypted, the tweaks of the next turn are written to
//! the other half of a ring of 1 KiB. They are read a whole turn later, when those 8-byte stores have long reached the
//! cache: a 32-byte load could not be forwarded from them, which cost a fifth when the distance was half a turn.
#![expect(unsafe_code, reason = "inline assembly over checked slices")]

use std::arch::{asm, is_x86_feature_detected};
use std::mem::MaybeUninit;

use super::aesni::AesNi;
use super::keys::{Rounds, Schedule};
use super::{Direction, Isa, Ring, Source, TURN, TWEAKS, Turns};
use crate::xts::field::Element;

/// The proof that the machine has VAES, AVX2, BMI2 and AES-NI.
#[derive(Clone, Copy)]
pub(super) struct Vaes256(AesNi);

impl Vaes256 {
    pub(super) fn detect() -> Option<Self> {
        // The standard library's detection also asks whether the operating system keeps the wide registers.
        let wide =
            is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
        AesNi::detect().filter(|_| wide).map(Self)
    }
}

impl From<Vaes256> for AesNi {
    fn from(isa: Vaes256) -> Self {
        isa.0
    }
}

/// Stores the tweak in the half of the ring that is written, and multiplies it by x: shifted by one, and the bit that falls out
/// at the top comes back as the polynomial 0x87.
macro_rules! tweak {
    ($($place:literal),+) => {
        concat!(
            "mov [{write} + ", $($place,)+ "], {lo}\n",
            "mov [{write} + ", $($place,)+ " + 8], {hi}\n",
            "sarx {carry}, {hi}, {sixty_three}\n",
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
            "vbroadcasti128 ymm8, [{keys} + 16*", $round, "]\n",
            each!("vaes" $aes " ymm\\i, ymm\\i, ymm8"),
        )
    };
}

/// A round and two of the next turn's tweaks. Rounds 2 to 9 make the sixteen that lie `$half` bytes into it.
macro_rules! round_and_tweaks {
    ($aes:literal, $round:literal, $half:literal) => {
        concat!(
            "vbroadcasti128 ymm8, [{keys} + 16*",
            $round,
            "]\n",
            each_of!("0,1,2,3": "vaes" $aes " ymm\\i, ymm\\i, ymm8"),
            tweak!($half, " + 32*(", $round, " - 2)"),
            each_of!("4,5,6,7": "vaes" $aes " ymm\\i, ymm\\i, ymm8"),
            tweak!($half, " + 32*(", $round, " - 2) + 16"),
        )
    };
}

/// Half a turn: XOR with the tweaks and the first round key, the rounds, and the last one with the tweak in its key.
macro_rules! half {
    ($aes:literal, $half:literal, [$($round:expr),+]) => {
        concat!(
            each!("vmovdqu ymm\\i, [{src} + 32*\\i + " $half "]"),
            each!("vpxor ymm\\i, ymm\\i, [{read} + 32*\\i + " $half "]"),
            each!("vpxor ymm\\i, ymm\\i, ymm15"),
            $($round,)+
            each!(
                "vpxor ymm8, ymm14, [{read} + 32*\\i + " $half "]",
                "vaes" $aes "last ymm\\i, ymm\\i, ymm8",
                "vmovdqu [{dst} + 32*\\i + " $half "], ymm\\i"
            ),
        )
    };
}

/// Half a turn that makes the tweaks of the next turn's same half on the way.
macro_rules! half_and_tweaks {
    ($aes:literal, $half:literal, [$($late:literal),*]) => {
        half!($aes, $half, [
            round!($aes, "1"),
            round_and_tweaks!($aes, "2", $half),
            round_and_tweaks!($aes, "3", $half),
            round_and_tweaks!($aes, "4", $half),
            round_and_tweaks!($aes, "5", $half),
            round_and_tweaks!($aes, "6", $half),
            round_and_tweaks!($aes, "7", $half),
            round_and_tweaks!($aes, "8", $half),
            round_and_tweaks!($aes, "9", $half)
            $(, round!($aes, $late))*
        ])
    };
}

/// Half a turn, the last of a run.
macro_rules! half_alone {
    ($aes:literal, $half:literal, [$($late:literal),*]) => {
        half!($aes, $half, [
            round!($aes, "1"), round!($aes, "2"), round!($aes, "3"), round!($aes, "4"), round!($aes, "5"),
            round!($aes, "6"), round!($aes, "7"), round!($aes, "8"), round!($aes, "9") $(, round!($aes, $late))*
        ])
    };
}

/// A kernel: `$aes` is `enc` or `dec`, `$late` are the rounds from the tenth to the last but one, `$last` is the last.
macro_rules! kernel {
    ($name:ident, $aes:literal, [$($late:literal),*], $last:literal) => {
        /// # Safety
        /// The machine has VAES, AVX2 and BMI2. `keys` are aligned round keys up to number `$last`; `src` and `dst` are
        /// `turns` (at least 1) times 512 bytes, the same or apart; `source` has a tweak for every turn.
        unsafe fn $name(keys: *const u8, src: *const u8, dst: *mut u8, turns: usize, source: &mut Source) {
            let mut ring = Ring(MaybeUninit::uninit());
            let first_half = ring.0.as_mut_ptr().cast::<u8>();
            // SAFETY: loads and stores go to `turns` times 512 bytes of `src` and `dst`, to the ring's two halves of 512 bytes,
            // to the round keys, and to one tweak for each time that `left` runs out, which is never after the last turn's.
            // All registers that change are named; the stack is not used.
            unsafe {
                asm!(
                    "vbroadcasti128 ymm15, [{keys}]",
                    concat!("vbroadcasti128 ymm14, [{keys} + 16*", $last, "]"),
                    "mov {sixty_three:e}, 63",
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
                    half_and_tweaks!($aes, "0", [$($late),*]),
                    half_and_tweaks!($aes, "256", [$($late),*]),
                    "add {src}, 512",
                    "add {dst}, 512",
                    "xchg {read}, {write}",
                    "dec {turns}",
                    "jnz 2b",

                    "4:",
                    half_alone!($aes, "0", [$($late),*]),
                    half_alone!($aes, "256", [$($late),*]),

                    "vpxor xmm0, xmm0, xmm0",
                    ".irp j, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                    "vmovdqa [{read} + 32*\\j], ymm0",
                    "vmovdqa [{write} + 32*\\j], ymm0",
                    ".endr",
                    "vzeroupper",
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
                    sixty_three = out(reg) _,
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                    out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                    out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                    out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
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

impl Isa for Vaes256 {
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
        // SAFETY: `self` proves the instructions. Loads and stores go to the 256 bytes of `blocks`, and loads to round keys up
        // to the last, which the schedule has. All registers that change are named; the stack is not used.
        unsafe {
            asm!(
                "vbroadcasti128 ymm15, [{keys}]",
                each!("vpxor ymm\\i, ymm15, [{blocks} + 32*\\i]"),
                "2:",
                "add {keys}, 16",
                "vbroadcasti128 ymm15, [{keys}]",
                each!("vaesenc ymm\\i, ymm\\i, ymm15"),
                "cmp {keys}, {end}",
                "jne 2b",
                "vbroadcasti128 ymm15, [{keys} + 16]",
                each!("vaesenclast ymm\\i, ymm\\i, ymm15", "vmovdqu [{blocks} + 32*\\i], ymm\\i"),
                "vzeroupper",
                keys = inout(reg) schedule.as_ptr() => _,
                end = in(reg) schedule.as_ptr().wrapping_add(16 * (last - 1)),
                blocks = in(reg) blocks.as_mut_ptr(),
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nostack),
            );
        }
    }

    fn encrypt_block(self, schedule: &Schedule, block: &mut Element) {
        AesNi::from(self).encrypt_block(schedule, block);
    }

    fn ecb(self, schedule: &Schedule, turns: Turns<'_, '_>) {
        assert!(!turns.is_empty() && schedule.rounds() == Rounds::Fourteen, "the ceiling is measured with AES-256");
        let count = turns.len();
        let (src, dst) = turns.into_raw();
        // SAFETY: `self` proves the instructions. Loads and stores go to the `count` turns of 512 bytes that `src` and `dst`
        // have, and loads to the schedule's fifteen round keys. All registers that change are named; the stack is not used.
        unsafe {
            asm!(
                "vbroadcasti128 ymm15, [{keys}]",
                "vbroadcasti128 ymm14, [{keys} + 16*14]",
                "2:",
                each!("vpxor ymm\\i, ymm15, [{src} + 32*\\i]"),
                round!("enc", "1"), round!("enc", "2"), round!("enc", "3"), round!("enc", "4"), round!("enc", "5"),
                round!("enc", "6"), round!("enc", "7"), round!("enc", "8"), round!("enc", "9"), round!("enc", "10"),
                round!("enc", "11"), round!("enc", "12"), round!("enc", "13"),
                each!("vaesenclast ymm\\i, ymm\\i, ymm14", "vmovdqu [{dst} + 32*\\i], ymm\\i"),
                "add {src}, 256",
                "add {dst}, 256",
                "dec {halves}",
                "jnz 2b",
                "vzeroupper",
                keys = in(reg) schedule.as_ptr(),
                src = inout(reg) src => _,
                dst = inout(reg) dst => _,
                halves = inout(reg) count * 2 => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nostack),
            );
        }
    }
}
