//! The binary part of one copy: 4096 bytes, integers big-endian, texts padded with zeros.

use sha2::{Digest as _, Sha256};

use super::{COPY_BYTES, Damage, HeaderError};
use crate::twin::{self, Protection};

pub(super) const BINARY_BYTES: usize = 4096;

const PRIMARY_MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
const SECONDARY_MAGIC: [u8; 6] = *b"SKUL\xba\xbe";
const VERSION: u16 = 2;
const CHECKSUM_NAME: &str = "sha256";

// Offsets of the fields in bytes.
const MAGIC: usize = 0;
const VERSION_AT: usize = 6;
const SIZE: usize = 8;
const SEQID: usize = 16;
const LABEL: usize = 24;
const CHECKSUM_NAME_AT: usize = 72;
const SALT: usize = 104;
const UUID: usize = 168;
const SUBSYSTEM: usize = 208;
const OFFSET: usize = 256;
const PADDING: usize = 264;
const CHECKSUM: usize = 448;
const CHECKSUM_USED_END: usize = 480;
const CHECKSUM_END: usize = 512;

const LABEL_BYTES: usize = 48;
const UUID_BYTES: usize = 40;
const SUBSYSTEM_BYTES: usize = 48;

/// Which of the two copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Primary,
    Secondary,
}

impl Place {
    fn magic(self) -> [u8; 6] {
        match self {
            Self::Primary => PRIMARY_MAGIC,
            Self::Secondary => SECONDARY_MAGIC,
        }
    }

    fn offset(self) -> u64 {
        match self {
            Self::Primary => 0,
            Self::Secondary => COPY_BYTES as u64,
        }
    }
}

/// The fields of the binary part that are not the same in every header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Binary {
    pub(super) seqid: u64,
    pub(super) label: String,
    pub(super) uuid: String,
    pub(super) subsystem: String,
}

impl Binary {
    /// One whole copy of the header, checksum included. `json` must fit the JSON area with a zero byte to end it.
    pub(super) fn encode(&self, place: Place, salt: &[u8; 64], json: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let room = COPY_BYTES - BINARY_BYTES - 1;
        if json.len() > room {
            return Err(HeaderError::TooLarge {
                what: "the JSON area (wrapped key, ARN, context)",
                limit: room as u64,
            });
        }
        let mut copy = vec![0; COPY_BYTES];
        copy[MAGIC..VERSION_AT].copy_from_slice(&place.magic());
        copy[VERSION_AT..SIZE].copy_from_slice(&VERSION.to_be_bytes());
        copy[SIZE..SEQID].copy_from_slice(&(COPY_BYTES as u64).to_be_bytes());
        copy[SEQID..LABEL].copy_from_slice(&self.seqid.to_be_bytes());
        put_text(&mut copy[LABEL..LABEL + LABEL_BYTES], &self.label, "the label")?;
        put_text(&mut copy[CHECKSUM_NAME_AT..SALT], CHECKSUM_NAME, "the checksum's name")?;
        copy[SALT..UUID].copy_from_slice(salt);
        put_text(&mut copy[UUID..UUID + UUID_BYTES], &self.uuid, "the UUID")?;
        put_text(&mut copy[SUBSYSTEM..SUBSYSTEM + SUBSYSTEM_BYTES], &self.subsystem, "the subsystem")?;
        copy[OFFSET..PADDING].copy_from_slice(&place.offset().to_be_bytes());
        copy[BINARY_BYTES..BINARY_BYTES + json.len()].copy_from_slice(json);
        let checksum = Sha256::digest(&copy);
        copy[CHECKSUM..CHECKSUM_USED_END].copy_from_slice(&checksum);
        Ok(copy)
    }

    /// The fields of a copy and its JSON area, if the copy is whole. What it says is not judged here.
    pub(super) fn decode(copy: &[u8], place: Place) -> Result<(Self, &[u8]), Damage> {
        if copy.len() != COPY_BYTES {
            return Err(Damage::Short);
        }
        if copy[MAGIC..VERSION_AT] != place.magic() {
            return Err(Damage::Magic);
        }
        let version = u16::from_be_bytes([copy[VERSION_AT], copy[VERSION_AT + 1]]);
        if version != VERSION {
            return Err(Damage::Version(version));
        }
        let size = read_u64(copy, SIZE);
        if size != COPY_BYTES as u64 {
            return Err(Damage::Size(size));
        }
        let offset = read_u64(copy, OFFSET);
        if offset != place.offset() {
            return Err(Damage::Offset(offset));
        }
        if text(&copy[CHECKSUM_NAME_AT..SALT]).as_deref() != Some(CHECKSUM_NAME) {
            return Err(Damage::ChecksumName);
        }
        // The checksum leaves its own field out, so the field's unused half must be looked at; the rest of the padding
        // is covered, and is looked at so that nothing can be hidden in it.
        let unused = [PADDING..CHECKSUM, CHECKSUM_USED_END..CHECKSUM_END, CHECKSUM_END..BINARY_BYTES];
        if unused.into_iter().any(|range| copy[range].iter().any(|byte| *byte != 0)) {
            return Err(Damage::Padding);
        }
        let mut hash = Sha256::new();
        hash.update(&copy[..CHECKSUM]);
        hash.update([0; CHECKSUM_END - CHECKSUM]);
        hash.update(&copy[CHECKSUM_END..]);
        if hash.finalize()[..] != copy[CHECKSUM..CHECKSUM_USED_END] && !twin::is_off(Protection::HeaderChecksum) {
            return Err(Damage::Checksum);
        }
        let fields = Self {
            seqid: read_u64(copy, SEQID),
            label: text(&copy[LABEL..LABEL + LABEL_BYTES]).ok_or(Damage::Padding)?,
            uuid: text(&copy[UUID..UUID + UUID_BYTES]).ok_or(Damage::Padding)?,
            subsystem: text(&copy[SUBSYSTEM..SUBSYSTEM + SUBSYSTEM_BYTES]).ok_or(Damage::Padding)?,
        };
        Ok((fields, &copy[BINARY_BYTES..]))
    }
}

fn put_text(field: &mut [u8], value: &str, what: &'static str) -> Result<(), HeaderError> {
    // The last byte stays zero: cryptsetup reads these fields as C strings.
    if value.len() >= field.len() || value.contains('\0') {
        return Err(HeaderError::TooLarge { what, limit: field.len() as u64 - 1 });
    }
    field[..value.len()].copy_from_slice(value.as_bytes());
    Ok(())
}

/// The text before the first zero byte; `None` if there is no such byte, bytes follow it, or it is not UTF-8.
fn text(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0)?;
    let (value, rest) = field.split_at(end);
    rest.iter().all(|byte| *byte == 0).then(|| String::from_utf8(value.to_vec()).ok())?
}

fn read_u64(copy: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|index| copy[at + index]))
}
