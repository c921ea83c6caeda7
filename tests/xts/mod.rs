//! AES-XTS from the outside: every engine against published vectors, against OpenSSL and against each other.

mod agreement;
mod choice;
mod oracle;
mod parallel;
mod reencrypt;
mod vectors;

use blockseal::secret::SecretBytes;
use blockseal::xts::{EngineChoice, EngineKind, XtsCipher};

fn secret(key: &[u8]) -> SecretBytes {
    SecretBytes::new_with(key.len(), |bytes| bytes.copy_from_slice(key))
}

fn cipher(key: &[u8], engine: EngineKind) -> XtsCipher {
    XtsCipher::new_with_any_halves(&secret(key), EngineChoice::Forced(engine)).unwrap()
}

/// Bytes that look random and are the same in every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32).to_le_bytes()[0]
    })
    .take(length)
    .collect()
}
