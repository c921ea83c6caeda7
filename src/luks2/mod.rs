//! The header of a volume file: a standard LUKS2 header with no keyslot and one token of our own.
//!
//! Source: the LUKS2 On-Disk Format Specification (Milan Broz). Two copies of 16 KiB each stand at the start
//! of the file, a 4096-byte binary part and a JSON area; `docs/volume-format.md` draws every byte.
//!
//! A header is untrusted input with **one accepted profile**: cryptsetup itself opens a header that was relabelled
//! `cipher_null`, so whatever differs from what we write is refused by name. Only keyslots may differ; a volume that
//! has one opens without the KMS, and [`Header::keyslots`] says so.

mod binary;
mod copies;
mod digest;
mod error;
mod json;
#[cfg(test)]
mod tests;

pub use copies::{Copies, CopyState, EncodedCopies};
pub use digest::KeyDigest;
pub use error::{Damage, HeaderError};

use std::collections::BTreeMap;

use serde_json::Value;

use crate::ids;
use crate::units::SectorSize;

/// Bytes of one copy: the binary part and the JSON area.
pub const COPY_BYTES: usize = 16 * 1024;

/// Bytes of both copies, which stand one after the other at the start of the file.
pub const HEADER_BYTES: usize = 2 * COPY_BYTES;

/// Offset in bytes at which the volume's data starts in its file.
pub const DATA_OFFSET: u64 = 16 * 1024 * 1024;

/// Bytes of a volume key: two AES-256 keys for XTS.
pub const KEY_BYTES: usize = 64;

/// What the header says in its `subsystem` field.
pub const SUBSYSTEM: &str = "blockseal";

/// The data key as the KMS wrapped it, with everything that is needed to ask for it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrappedKey {
    /// The KMS's `CiphertextBlob`.
    pub blob: Vec<u8>,
    /// ARN of the key that wrapped it.
    pub key_arn: String,
    /// The encryption context under which it was wrapped.
    pub encryption_context: BTreeMap<String, String>,
}

/// A header of the accepted profile.
#[derive(Clone, PartialEq, Debug)]
pub struct Header {
    seqid: u64,
    label: String,
    subsystem: String,
    uuid: String,
    sector_size: SectorSize,
    length: u64,
    digest: KeyDigest,
    wrapped_key: WrappedKey,
    keyslots: BTreeMap<String, Value>,
}

impl Header {
    /// A header for a new volume of `length` bytes under a new UUID; `label` is the volume's id.
    ///
    /// # Errors
    /// [`HeaderError::TooLarge`] if the label is longer than 47 bytes, or blob, ARN and context do not fit the 12 KiB
    /// JSON area.
    pub fn new(
        label: &str,
        sector_size: SectorSize,
        length: u64,
        digest: KeyDigest,
        wrapped_key: WrappedKey,
    ) -> Result<Self, HeaderError> {
        let header = Self {
            seqid: 1,
            label: label.to_owned(),
            subsystem: SUBSYSTEM.to_owned(),
            uuid: ids::uuid(),
            sector_size,
            length,
            digest,
            wrapped_key,
            keyslots: BTreeMap::new(),
        };
        header.encode()?;
        Ok(header)
    }

    /// Reads the header from the first [`HEADER_BYTES`] bytes of a file (fewer are a damaged header).
    ///
    /// The valid copy with the higher sequence id counts; [`Copies`] says what the other one is like.
    ///
    /// # Errors
    /// If neither copy is valid, or the one that counts is outside the accepted profile. A refused newer copy is never
    /// passed over for an older one: that would show another header than cryptsetup shows.
    pub fn parse(area: &[u8]) -> Result<(Self, Copies), HeaderError> {
        copies::parse(area)
    }

    /// Both copies as bytes, each under a new random salt.
    ///
    /// # Errors
    /// [`HeaderError::TooLarge`] as in [`Header::new`]; [`HeaderError::Random`] if there is no randomness for salts.
    pub fn encode(&self) -> Result<EncodedCopies, HeaderError> {
        copies::encode(self)
    }

    /// The header under the next sequence id, for a volume that is `length` bytes long.
    ///
    /// # Errors
    /// [`HeaderError::TooLarge`] if the sequence id is at its end.
    pub fn next(&self, length: u64) -> Result<Self, HeaderError> {
        let seqid =
            self.seqid.checked_add(1).ok_or(HeaderError::TooLarge { what: "the sequence id", limit: u64::MAX })?;
        Ok(Self { seqid, length, ..self.clone() })
    }

    /// Counts the header's writes: the copy with the higher number is the newer one.
    pub fn seqid(&self) -> u64 {
        self.seqid
    }

    /// The label; the volume's id unless somebody changed it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The subsystem; [`SUBSYSTEM`] unless somebody changed it.
    pub fn subsystem(&self) -> &str {
        &self.subsystem
    }

    /// The container's UUID.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The encryption sector size.
    pub fn sector_size(&self) -> SectorSize {
        self.sector_size
    }

    /// Length of the volume's data in bytes, as the token has it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The check value of the data key.
    pub fn digest(&self) -> &KeyDigest {
        &self.digest
    }

    /// The wrapped data key.
    pub fn wrapped_key(&self) -> &WrappedKey {
        &self.wrapped_key
    }

    /// Numbers of the keyslots that somebody added. Any of them **opens the volume without the KMS**.
    pub fn keyslots(&self) -> Vec<&str> {
        self.keyslots.keys().map(String::as_str).collect()
    }
}
