//! Mutation fuzzing that runs on a stable compiler, for every parser of bytes from outside.
//!
//! Each run takes an input of a corpus of real ones, changes it a few times and hands it to a check that panics if the parser
//! does something that it must not. Runs are numbered: run N of a seed always makes the same input, so the message of a failure
//! names the seed and the run and needs no file. `tests/run` sets the count (`BLOCKSEAL_FUZZ_RUNS`) and the seed
//! (`BLOCKSEAL_FUZZ_SEED`).

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::harness::full;

/// How many inputs each parser gets.
fn runs() -> u64 {
    number("BLOCKSEAL_FUZZ_RUNS", 2_000)
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Runs `check` on mutations of `corpus`. `weight` divides the count for checks that take long.
#[track_caller]
pub fn fuzz(corpus: &[Vec<u8>], weight: u64, check: impl Fn(&[u8])) {
    fuzz_for((runs() / weight).max(1), corpus, check);
}

/// The same; under `tests/run --full` so many times the count.
#[track_caller]
pub fn fuzz_times(corpus: &[Vec<u8>], times: u64, check: impl Fn(&[u8])) {
    fuzz_for(runs() * if full() { times } else { 1 }, corpus, check);
}

#[track_caller]
fn fuzz_for(runs: u64, corpus: &[Vec<u8>], check: impl Fn(&[u8])) {
    assert!(!corpus.is_empty());
    let seed = number("BLOCKSEAL_FUZZ_SEED", 1);
    for run in 0..runs {
        let input = mutated(corpus, seed, run);
        let start = hex::encode(&input[..input.len().min(256)]);
        let survived = catch_unwind(AssertUnwindSafe(|| check(&input))).is_ok();
        assert!(survived, "seed {seed}, run {run}, input of {} bytes: {start}", input.len());
    }
}

/// The input of one run.
fn mutated(corpus: &[Vec<u8>], seed: u64, run: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ run.wrapping_mul(0xd134_2543_de82_ef95));
    let mut input = random.pick(corpus).clone();
    for _ in 0..=random.below(4) {
        mutate(&mut input, corpus, &mut random);
    }
    input
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    const INTERESTING: [u64; 12] =
        [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, u64::MAX >> 1, u64::MAX];
    let length = input.len();
    if length == 0 {
        input.push(random.next().to_le_bytes()[0]);
        return;
    }
    let at = random.below(length);
    let rest = length - at;
    match random.below(9) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.next().to_le_bytes()[0],
        2 => {
            let width = *random.pick(&[1, 2, 4, 8]);
            let value = *random.pick(&INTERESTING);
            let little = value.to_le_bytes();
            let big = value.to_be_bytes();
            let bytes = if random.below(2) == 0 { &little[..width] } else { &big[8 - width..] };
            let width = width.min(rest);
            input[at..at + width].copy_from_slice(&bytes[..width]);
        }
        3 => input.truncate(at),
        4 => drop(input.drain(at..at + 1 + random.below(rest.min(64)))),
        5 => {
            let piece = input[at..at + 1 + random.below(rest.min(64))].to_vec();
            let to = random.below(length + 1);
            input.splice(to..to, piece);
        }
        6 => {
            let other = random.pick(corpus);
            if !other.is_empty() {
                let from = random.below(other.len());
                let piece = &other[from..from + 1 + random.below((other.len() - from).min(256))];
                let end = (at + piece.len()).min(length);
                input.splice(at..end, piece.iter().copied());
            }
        }
        7 => {
            let end = at + 1 + random.below(rest.min(64));
            input[at..end].fill(*random.pick(&[0, 0xff, b'0', b'"', b'{']));
        }
        _ => {
            // A digit of a number in text: sizes and offsets in JSON.
            if let Some(digit) = input[at..].iter().position(u8::is_ascii_digit) {
                input[at + digit] = b'0' + random.next().to_le_bytes()[0] % 10;
            }
        }
    }
}

/// `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// The fuzzer is worth something only if it finds a fault: a parser that trusts a length is broken within a few hundred runs.
#[test]
fn a_parser_that_trusts_a_length_is_found_out() {
    let valid = [&[8, 0, 0, 0][..], b"eight...", b"rest"].concat();
    let trusting = |bytes: &[u8]| {
        if bytes.len() >= 4 {
            let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            assert!(bytes[4..].len() >= length, "would read past the end");
        }
    };
    let broken = (0..500).any(|run| {
        let input = mutated(std::slice::from_ref(&valid), 1, run);
        catch_unwind(|| trusting(&input)).is_err()
    });
    assert!(broken);
    assert_eq!(mutated(std::slice::from_ref(&valid), 3, 77), mutated(&[valid], 3, 77));
}
