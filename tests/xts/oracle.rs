//! OpenSSL's AES-XTS, told nothing of sectors but what the volume format says of them.

use blockseal::units::{SectorSize, UnitIndex};
use blockseal::xts::Direction;
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;

/// One data unit under an unencrypted tweak.
pub(super) fn data_unit(key: &[u8], direction: Direction, tweak: [u8; 16], src: &[u8]) -> Vec<u8> {
    let cipher = if key.len() == 64 { Cipher::aes_256_xts() } else { Cipher::aes_128_xts() };
    let mut context = CipherCtx::new().unwrap();
    match direction {
        Direction::Encrypt => context.encrypt_init(Some(cipher), Some(key), Some(&tweak)).unwrap(),
        Direction::Decrypt => context.decrypt_init(Some(cipher), Some(key), Some(&tweak)).unwrap(),
    }
    let mut out = Vec::new();
    context.cipher_update_vec(src, &mut out).unwrap();
    context.cipher_final_vec(&mut out).unwrap();
    out
}

/// A run of units: every sector that it touches is done whole, with zeros where the run does not reach, and cut out again.
pub(super) fn run(key: &[u8], direction: Direction, size: SectorSize, first: UnitIndex, src: &[u8]) -> Vec<u8> {
    let before = usize::try_from(first.0 % size.units()).unwrap() * 512;
    let mut padded = vec![0; before];
    padded.extend_from_slice(src);
    padded.resize(padded.len().next_multiple_of(size.bytes()), 0);
    let mut sector = first.0 - first.0 % size.units();
    let mut out = Vec::new();
    for data in padded.chunks(size.bytes()) {
        out.extend(data_unit(key, direction, u128::from(sector).to_le_bytes(), data));
        sector = sector.wrapping_add(size.units());
    }
    out[before..before + src.len()].to_vec()
}
