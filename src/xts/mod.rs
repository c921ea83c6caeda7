//! AES-XTS over the sectors of a volume: IEEE Std 1619-2018, NIST SP 800-38E, with the tweaks of dm-crypt's `plain64`.
//!
//! A volume's data is a row of encryption sectors of 512 or 4096 bytes. The tweak of a sector is the little-endian
//! number of the **512-byte** unit at which it starts, at either sector size. XTS works per 16-byte block, so a run may
//! begin and end at any 512-byte unit: inside a 4096-byte sector its tweak is multiplied on to its place, and no
//! neighbouring byte is read.
//!
//! [`XtsCipher`] holds a key's expanded schedules in secret memory and one of several engines, all of which give the same
//! bytes. [`parallel`] spreads a long run over the cores. XTS gives confidentiality only: whoever can write the
//! disk can put any older ciphertext of a 16-byte block back, or make noise of it, unnoticed.

mod batch;
pub mod bench;
mod choice;
mod error;
mod field;
mod lend;
pub mod parallel;
mod place;
mod portable;
mod reencrypt;
mod reference;
mod selftest;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use choice::{ENGINE_VARIABLE, EngineChoice, EngineKind};
pub use error::XtsError;
pub use reencrypt::{Side, reencrypt, reencrypt_in_place};

use std::fmt;

use aes::cipher::inout::InOutBuf;
use subtle::ConstantTimeEq;

use crate::secret::{self, SecretBytes};
use crate::units::{SectorSize, UNIT_BYTES, UnitIndex};

/// Bytes in one AES block.
pub const BLOCK_BYTES: usize = 16;

/// The longest data unit in bytes: 2^20 blocks (IEEE Std 1619-2018 section 5.1, NIST SP 800-38E section 4).
pub const MAX_DATA_UNIT_BYTES: usize = BLOCK_BYTES << 20;

/// Which way a run goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Direction {
    /// Plaintext to ciphertext.
    Encrypt,
    /// Ciphertext to plaintext.
    Decrypt,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        })
    }
}

/// What an engine does: XTS under the one key that it was made for.
///
/// Lengths were checked by [`XtsCipher`]. `data` is a source and a destination of equal length, or one buffer for both;
/// neither needs any alignment.
trait Engine: Send + Sync {
    /// A run of whole 512-byte units from `first` on, in sectors of `sector_size`.
    fn run(&self, direction: Direction, sector_size: SectorSize, first: UnitIndex, data: InOutBuf<'_, '_, u8>);

    /// One data unit of 16 to [`MAX_DATA_UNIT_BYTES`] bytes under a tweak that is not encrypted yet, with ciphertext
    /// stealing when the length is no multiple of 16.
    fn data_unit(&self, direction: Direction, tweak: [u8; BLOCK_BYTES], data: InOutBuf<'_, '_, u8>);

    /// Wipes what a finished call may have left of the key in registers and on the stack below.
    fn wipe_traces(&self);
}

/// A data key, expanded for one engine.
pub struct XtsCipher {
    engine: Box<dyn Engine>,
    kind: EngineKind,
    key_bits: u32,
}

impl XtsCipher {
    /// Expands `key`: 64 bytes for AES-256 or 32 for AES-128, the data key first and the tweak key second.
    ///
    /// # Errors
    /// [`XtsError::KeyLength`] for another length; [`XtsError::EqualHalves`] if both halves are the same (they would make
    /// XTS open to chosen-ciphertext attack: FIPS 140-3 IG C.I); the engine choice's own errors.
    pub fn new(key: &SecretBytes, choice: EngineChoice) -> Result<Self, XtsError> {
        let cipher = Self::new_with_any_halves(key, choice)?;
        let (data, tweak) = key.expose().split_at(key.len() / 2);
        let equal: bool = data.ct_eq(tweak).into();
        secret::wipe_registers();
        if equal { Err(XtsError::EqualHalves) } else { Ok(cipher) }
    }

    /// As [`XtsCipher::new`] without the check for equal halves: vector 1 of IEEE Std 1619 has them, and a test shows what the
    /// check prevents.
    #[doc(hidden)]
    pub fn new_with_any_halves(key: &SecretBytes, choice: EngineChoice) -> Result<Self, XtsError> {
        let key_bits = match key.len() {
            32 => 128,
            64 => 256,
            bytes => return Err(XtsError::KeyLength { bytes }),
        };
        let kind = choice.resolve()?;
        let engine = kind.expand(key.expose()).ok_or(XtsError::SelfTest { engine: kind })?;
        Ok(Self { engine, kind, key_bits })
    }

    /// The engine in use.
    pub fn engine(&self) -> EngineKind {
        self.kind
    }

    /// 128 or 256: the AES key length (XTS uses two such keys).
    pub fn key_bits(&self) -> u32 {
        self.key_bits
    }

    /// Encrypts `src` into `dst`, both a whole number of 512-byte units long, the first of them unit `first` of the volume.
    ///
    /// # Errors
    /// [`XtsError::Lengths`] if the lengths differ or are no multiple of 512; nothing is written then.
    pub fn encrypt(&self, size: SectorSize, first: UnitIndex, src: &[u8], dst: &mut [u8]) -> Result<(), XtsError> {
        self.run(Direction::Encrypt, size, first, between(src, dst)?)
    }

    /// Decrypts `src` into `dst`; otherwise as [`XtsCipher::encrypt`].
    ///
    /// # Errors
    /// As [`XtsCipher::encrypt`].
    pub fn decrypt(&self, size: SectorSize, first: UnitIndex, src: &[u8], dst: &mut [u8]) -> Result<(), XtsError> {
        self.run(Direction::Decrypt, size, first, between(src, dst)?)
    }

    /// Encrypts `data` where it lies; otherwise as [`XtsCipher::encrypt`].
    ///
    /// # Errors
    /// As [`XtsCipher::encrypt`].
    pub fn encrypt_in_place(&self, size: SectorSize, first: UnitIndex, data: &mut [u8]) -> Result<(), XtsError> {
        self.run(Direction::Encrypt, size, first, data.into())
    }

    /// Decrypts `data` where it lies; otherwise as [`XtsCipher::encrypt`].
    ///
    /// # Errors
    /// As [`XtsCipher::encrypt`].
    pub fn decrypt_in_place(&self, size: SectorSize, first: UnitIndex, data: &mut [u8]) -> Result<(), XtsError> {
        self.run(Direction::Decrypt, size, first, data.into())
    }

    /// Encrypts one data unit of any length under any tweak, as published test vectors give them: 16 bytes to 16 MiB,
    /// with ciphertext stealing where the length is no multiple of 16. The tweak is given unencrypted.
    ///
    /// # Errors
    /// [`XtsError::DataUnitLength`] for a length outside that range, [`XtsError::Lengths`] if `dst` has another length.
    pub fn encrypt_data_unit(&self, tweak: [u8; BLOCK_BYTES], src: &[u8], dst: &mut [u8]) -> Result<(), XtsError> {
        self.data_unit(Direction::Encrypt, tweak, between(src, dst)?)
    }

    /// Decrypts one data unit; otherwise as [`XtsCipher::encrypt_data_unit`].
    ///
    /// # Errors
    /// As [`XtsCipher::encrypt_data_unit`].
    pub fn decrypt_data_unit(&self, tweak: [u8; BLOCK_BYTES], src: &[u8], dst: &mut [u8]) -> Result<(), XtsError> {
        self.data_unit(Direction::Decrypt, tweak, between(src, dst)?)
    }

    fn run(
        &self,
        direction: Direction,
        size: SectorSize,
        first: UnitIndex,
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
        check_units(data.len())?;
        if !data.is_empty() {
            self.engine.run(direction, size, first, data);
            self.wipe_traces();
        }
        Ok(())
    }

    fn data_unit(
        &self,
        direction: Direction,
        tweak: [u8; BLOCK_BYTES],
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
        if !(BLOCK_BYTES..=MAX_DATA_UNIT_BYTES).contains(&data.len()) {
            return Err(XtsError::DataUnitLength { bytes: data.len() });
        }
        self.engine.data_unit(direction, tweak, data);
        self.wipe_traces();
        Ok(())
    }

    fn wipe_traces(&self) {
        #[cfg(test)]
        if traces::WIPING_OFF.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        self.engine.wipe_traces();
        #[cfg(test)]
        if traces::FRAME_WIPING_OFF.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        secret::wipe_signal_stack();
    }
}

impl fmt::Debug for XtsCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XtsCipher")
            .field("engine", &self.kind)
            .field("key_bits", &self.key_bits)
            .field("key", &"[REDACTED]")
            .finish()
    }
}

fn between<'s, 'd>(src: &'s [u8], dst: &'d mut [u8]) -> Result<InOutBuf<'s, 'd, u8>, XtsError> {
    let lengths = XtsError::Lengths { source_bytes: src.len(), destination_bytes: dst.len() };
    InOutBuf::new(src, dst).map_err(|_| lengths)
}

fn check_units(bytes: usize) -> Result<(), XtsError> {
    if (bytes as u64).is_multiple_of(UNIT_BYTES) {
        Ok(())
    } else {
        Err(XtsError::Lengths { source_bytes: bytes, destination_bytes: bytes })
    }
}

/// What the engines in plain Rust leave behind: the compiler keeps round keys in vector registers and spills them to the stack.
fn wipe_compiled_traces() {
    secret::wipe_registers();
    secret::wipe_stack();
}

#[cfg(test)]
pub(crate) mod traces;
