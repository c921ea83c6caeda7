//! From one key to another in one pass: what copying a snapshot to another CMK does to every byte.
//!
//! A tile is decrypted into a buffer that stays in the processor's own cache and encrypted out of it, so each byte is read from
//! memory once and written once, and the destination never holds plaintext.

use aes::cipher::inout::InOutBuf;
use zeroize::Zeroize;

use super::{Direction, XtsCipher, XtsError, between, check_units};
use crate::units::{SectorSize, UNIT_BYTES, UnitIndex};

/// Bytes of plaintext at a time: little beside a second-level cache, and enough that the start of two runs is nothing beside it.
const TILE_BYTES: usize = 32 * 1024;

/// One side of a re-encryption: a key, and how and where its sectors lie.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a run is placed by these three and nothing else")]
pub struct Side<'a> {
    /// The data key.
    pub cipher: &'a XtsCipher,
    /// The size of the sectors on this side.
    pub size: SectorSize,
    /// The first unit of the run on this side.
    pub first: UnitIndex,
}

impl Side<'_> {
    /// The same side `bytes` (a multiple of 512) further on.
    #[must_use]
    pub(super) fn after(self, bytes: usize) -> Self {
        Self { first: self.first.wrapping_add(bytes as u64 / UNIT_BYTES), ..self }
    }
}

/// Decrypts `src` as `from` says and encrypts it into `dst` as `to` says. Both are a whole number of 512-byte units long.
///
/// Units of zeros are not special here: a caller for whom they mean "never written" leaves them out.
///
/// # Errors
/// [`XtsError::Lengths`] if the lengths differ or are no multiple of 512; nothing is written then.
pub fn reencrypt(from: Side<'_>, to: Side<'_>, src: &[u8], dst: &mut [u8]) -> Result<(), XtsError> {
    run(from, to, between(src, dst)?)
}

/// As [`reencrypt`], where the bytes lie.
///
/// # Errors
/// As [`reencrypt`].
pub fn reencrypt_in_place(from: Side<'_>, to: Side<'_>, data: &mut [u8]) -> Result<(), XtsError> {
    run(from, to, data.into())
}

fn run(mut from: Side<'_>, mut to: Side<'_>, mut data: InOutBuf<'_, '_, u8>) -> Result<(), XtsError> {
    check_units(data.len())?;
    let mut tile = vec![0; TILE_BYTES.min(data.len())];
    while !data.is_empty() {
        let length = TILE_BYTES.min(data.len());
        let (mut now, rest) = data.split_at(length);
        let plain = &mut tile[..length];
        from.cipher.engine.run(Direction::Decrypt, from.size, from.first, between(now.get_in(), plain)?);
        to.cipher.engine.run(Direction::Encrypt, to.size, to.first, between(plain, now.get_out())?);
        (from, to) = (from.after(length), to.after(length));
        data = rest;
    }
    tile.zeroize();
    from.cipher.wipe_traces();
    to.cipher.wipe_traces();
    Ok(())
}
