//! The two copies of a header: which one counts, and what the other is like.

use super::binary::{Binary, Place};
use super::{COPY_BYTES, Damage, HEADER_BYTES, Header, HeaderError, json};

/// What one copy of the header is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CopyState {
    /// Valid, and what the header says now.
    Current,
    /// Valid, but older than the other copy, or not the same at the same sequence id.
    Stale,
    /// Not valid.
    Damaged(Damage),
}

/// What both copies of a header are like. At least one is [`CopyState::Current`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copies {
    /// The copy at offset 0.
    pub primary: CopyState,
    /// The copy at offset 16384.
    pub secondary: CopyState,
}

impl Copies {
    /// Whether neither copy needs repair.
    pub fn clean(self) -> bool {
        self.primary == CopyState::Current && self.secondary == CopyState::Current
    }
}

/// Both copies of a header as bytes, [`COPY_BYTES`] each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedCopies {
    /// For offset 0.
    pub primary: Vec<u8>,
    /// For offset 16384.
    pub secondary: Vec<u8>,
}

impl EncodedCopies {
    /// The first [`HEADER_BYTES`] bytes of a file.
    pub fn concatenated(&self) -> Vec<u8> {
        [&self.primary[..], &self.secondary[..]].concat()
    }
}

pub(super) fn encode(header: &Header) -> Result<EncodedCopies, HeaderError> {
    let fields = Binary {
        seqid: header.seqid,
        label: header.label.clone(),
        uuid: header.uuid.clone(),
        subsystem: header.subsystem.clone(),
    };
    let json = json::encode(header)?;
    let copy = |place| {
        let mut salt = [0; 64];
        getrandom::fill(&mut salt).map_err(HeaderError::Random)?;
        fields.encode(place, &salt, &json)
    };
    Ok(EncodedCopies { primary: copy(Place::Primary)?, secondary: copy(Place::Secondary)? })
}

pub(super) fn parse(area: &[u8]) -> Result<(Header, Copies), HeaderError> {
    let copy = |start: usize| &area[start.min(area.len())..(start + COPY_BYTES).min(area.len())];
    let primary = Binary::decode(copy(0), Place::Primary);
    let secondary = Binary::decode(copy(HEADER_BYTES - COPY_BYTES), Place::Secondary);
    let (winner, copies) = match (&primary, &secondary) {
        (Ok(first), Ok(second)) if first == second => {
            (first, Copies { primary: CopyState::Current, secondary: CopyState::Current })
        }
        (Ok(first), Ok(second)) if first.0.seqid >= second.0.seqid => {
            (first, Copies { primary: CopyState::Current, secondary: CopyState::Stale })
        }
        (Ok(_), Ok(second)) => (second, Copies { primary: CopyState::Stale, secondary: CopyState::Current }),
        (Ok(first), Err(damage)) => {
            (first, Copies { primary: CopyState::Current, secondary: CopyState::Damaged(*damage) })
        }
        (Err(damage), Ok(second)) => {
            (second, Copies { primary: CopyState::Damaged(*damage), secondary: CopyState::Current })
        }
        (Err(primary), Err(secondary)) => {
            return Err(HeaderError::BothDamaged { primary: *primary, secondary: *secondary });
        }
    };
    Ok((json::decode(winner.0.clone(), winner.1)?, copies))
}
