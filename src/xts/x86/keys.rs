//! Key schedules (FIPS 197 section 5.2), expanded with AES-NI straight into secret memory.
#![expect(unsafe_code, reason = "calls functions that need instructions which an AesNi value proves to be there")]

use std::arch::x86_64::{
    __m128i, _mm_aesimc_si128, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_shuffle_epi32, _mm_slli_si128,
    _mm_storeu_si128, _mm_xor_si128,
};

use super::aesni::AesNi;
use crate::secret::{self, SecretBox};

/// Round keys of AES-256; AES-128 uses the first eleven.
const ROUND_KEYS: usize = 15;

/// The round keys of one AES key, for one direction, in order of use.
#[repr(C, align(16))]
pub(super) struct Schedule {
    keys: [[u8; 16]; ROUND_KEYS],
    rounds: Rounds,
}

/// How many rounds AES has: 10 with a 128-bit key, 14 with a 256-bit key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounds {
    Ten,
    Fourteen,
}

impl Rounds {
    pub(super) const fn count(self) -> usize {
        match self {
            Self::Ten => 10,
            Self::Fourteen => 14,
        }
    }
}

impl Schedule {
    const EMPTY: Self = Self { keys: [[0; 16]; ROUND_KEYS], rounds: Rounds::Ten };

    pub(super) fn rounds(&self) -> Rounds {
        self.rounds
    }

    /// The first of `rounds() + 1` round keys of 16 bytes, aligned to 16.
    pub(super) fn as_ptr(&self) -> *const u8 {
        self.keys.as_ptr().cast()
    }
}

/// What XTS needs: the data key for both directions, the tweak key for encryption.
pub(super) struct Schedules {
    pub(super) encrypt: Schedule,
    pub(super) decrypt: Schedule,
    pub(super) tweak: Schedule,
}

/// Expands both halves of a key of 32 or 64 bytes.
pub(super) fn expand(_proof: AesNi, key: &[u8]) -> SecretBox<Schedules> {
    let (data, tweak) = key.split_at(key.len() / 2);
    let empty = || Schedules { encrypt: Schedule::EMPTY, decrypt: Schedule::EMPTY, tweak: Schedule::EMPTY };
    let mut secret = SecretBox::new(empty);
    let schedules = secret.expose_mut();
    // SAFETY: `_proof` is only made where AES-NI was detected.
    unsafe {
        expand_half(data, &mut schedules.encrypt);
        expand_half(tweak, &mut schedules.tweak);
        invert(&schedules.encrypt, &mut schedules.decrypt);
    }
    secret::wipe_registers();
    secret::wipe_stack();
    secret
}

#[target_feature(enable = "aes")]
fn expand_half(key: &[u8], schedule: &mut Schedule) {
    if let Ok(key) = <&[u8; 32]>::try_from(key) {
        expand_256(key, schedule);
    } else {
        let key = <&[u8; 16]>::try_from(key).expect("the key was found to have 32 or 64 bytes");
        expand_128(key, schedule);
    }
}

#[target_feature(enable = "aes")]
fn expand_128(key: &[u8; 16], schedule: &mut Schedule) {
    schedule.rounds = Rounds::Ten;
    let mut key = load(key);
    schedule.keys[0] = store(key);
    macro_rules! round {
        ($index:literal, $constant:literal) => {
            let word = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<$constant>(key));
            key = _mm_xor_si128(spread(key), word);
            schedule.keys[$index] = store(key);
        };
    }
    round!(1, 0x01);
    round!(2, 0x02);
    round!(3, 0x04);
    round!(4, 0x08);
    round!(5, 0x10);
    round!(6, 0x20);
    round!(7, 0x40);
    round!(8, 0x80);
    round!(9, 0x1b);
    round!(10, 0x36);
}

#[target_feature(enable = "aes")]
fn expand_256(key: &[u8; 32], schedule: &mut Schedule) {
    schedule.rounds = Rounds::Fourteen;
    let (low, high) = key.split_at(16);
    let mut even = load(low.try_into().expect("half of 32 bytes is 16"));
    let mut odd = load(high.try_into().expect("half of 32 bytes is 16"));
    schedule.keys[0] = store(even);
    schedule.keys[1] = store(odd);
    macro_rules! even {
        ($index:literal, $constant:literal) => {
            let word = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<$constant>(odd));
            even = _mm_xor_si128(spread(even), word);
            schedule.keys[$index] = store(even);
        };
    }
    macro_rules! odd {
        ($index:literal) => {
            let word = _mm_shuffle_epi32::<0xaa>(_mm_aeskeygenassist_si128::<0>(even));
            odd = _mm_xor_si128(spread(odd), word);
            schedule.keys[$index] = store(odd);
        };
    }
    even!(2, 0x01);
    odd!(3);
    even!(4, 0x02);
    odd!(5);
    even!(6, 0x04);
    odd!(7);
    even!(8, 0x08);
    odd!(9);
    even!(10, 0x10);
    odd!(11);
    even!(12, 0x20);
    odd!(13);
    even!(14, 0x40);
}

/// The equivalent inverse cipher's schedule (FIPS 197 section 5.3.5): reversed, the inner keys through `InvMixColumns`.
#[target_feature(enable = "aes")]
fn invert(encrypt: &Schedule, decrypt: &mut Schedule) {
    decrypt.rounds = encrypt.rounds;
    let last = encrypt.rounds.count();
    for (index, key) in decrypt.keys[..=last].iter_mut().enumerate() {
        *key = encrypt.keys[last - index];
        if index != 0 && index != last {
            *key = store(_mm_aesimc_si128(load(key)));
        }
    }
}

/// Each 32-bit word xored with all words below it.
#[target_feature(enable = "sse2")]
fn spread(key: __m128i) -> __m128i {
    let key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
    _mm_xor_si128(key, _mm_slli_si128::<8>(key))
}

#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: reads the 16 bytes of the array; the instruction needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "sse2")]
fn store(key: __m128i) -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: writes the 16 bytes of the array; the instruction needs no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), key) };
    bytes
}
