//! Sector and byte quantities as types, so that a number of 512-byte units is never taken for a number of bytes.

use std::fmt;

/// Bytes in one unit: the granularity at which a volume is addressed, torn by a crash and read back as zeros.
pub const UNIT_BYTES: u64 = 512;

/// Bytes in one gibibyte.
pub const GIB: u64 = 1 << 30;

/// The number of a 512-byte unit, counted from the first byte of a volume's data.
///
/// It is also the XTS tweak of a sector that starts there: LUKS2 counts tweaks in 512-byte units at every sector size
/// (dm-crypt without `iv_large_sectors`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnitIndex(pub u64);

impl UnitIndex {
    /// The unit that holds the byte at `offset`.
    pub const fn containing(offset: u64) -> Self {
        Self(offset / UNIT_BYTES)
    }

    /// Offset in bytes of the unit's first byte. Saturates at `u64::MAX`.
    pub const fn offset(self) -> u64 {
        self.0.saturating_mul(UNIT_BYTES)
    }

    /// The unit `count` units further on, wrapping at 2^64 as the 64-bit tweak does.
    #[must_use]
    pub const fn wrapping_add(self, count: u64) -> Self {
        Self(self.0.wrapping_add(count))
    }
}

/// The size of an encryption sector: the run of bytes that shares one XTS tweak.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum SectorSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes, the default.
    #[default]
    B4096,
}

impl SectorSize {
    /// The size in bytes: 512 or 4096.
    pub const fn bytes(self) -> usize {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }

    /// How many 512-byte units a sector has: 1 or 8.
    pub const fn units(self) -> u64 {
        match self {
            Self::B512 => 1,
            Self::B4096 => 8,
        }
    }

    /// The first unit of the sector that holds `unit`, and how many bytes into that sector `unit` lies (at most 3584).
    #[expect(clippy::cast_possible_truncation, reason = "a place in a sector is at most 3584")]
    pub const fn locate(self, unit: UnitIndex) -> (UnitIndex, usize) {
        let into_sector = unit.0 % self.units();
        (UnitIndex(unit.0 - into_sector), (into_sector * UNIT_BYTES) as usize)
    }

    /// The sector size of that many bytes; `None` for anything but 512 and 4096.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            512 => Some(Self::B512),
            4096 => Some(Self::B4096),
            _ => None,
        }
    }
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes())
    }
}

/// A half-open range of bytes in a volume's data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset one past the last byte; never less than `start`.
    pub end: u64,
}

impl ByteRange {
    /// The range of `length` bytes from `start`; `None` if its end does not fit 64 bits.
    pub const fn new(start: u64, length: u64) -> Option<Self> {
        match start.checked_add(length) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// Its length in bytes.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether it holds no byte.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether the two share at least one byte.
    pub const fn overlaps(self, other: Self) -> bool {
        let start = if self.start > other.start { self.start } else { other.start };
        let end = if self.end < other.end { self.end } else { other.end };
        start < end
    }

    /// The largest range of whole `align`-byte pieces inside this one (possibly empty), `align` a power of two.
    #[must_use]
    pub const fn whole_pieces(self, align: u64) -> Self {
        let start = match self.start.checked_next_multiple_of(align) {
            Some(start) if start < self.end => start,
            _ => return Self { start: self.end, end: self.end },
        };
        let end = self.end & !(align - 1);
        if end < start { Self { start, end: start } } else { Self { start, end } }
    }

    /// The smallest range of whole `align`-byte pieces around this one, `align` a power of two. Saturates at the top.
    #[must_use]
    pub const fn covering_pieces(self, align: u64) -> Self {
        let mask = !(align - 1);
        let end = match self.end.checked_next_multiple_of(align) {
            Some(end) => end,
            None => mask,
        };
        Self { start: self.start & mask, end }
    }
}

/// Whether every byte is zero. Stops at the first 8 bytes for nearly all ciphertext.
pub fn is_all_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| word.iter().fold(0, |seen, byte| seen | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_and_covering_pieces() {
        let range = ByteRange::new(100, 2000).unwrap();
        assert_eq!(range.whole_pieces(512), ByteRange { start: 512, end: 2048 });
        assert_eq!(range.covering_pieces(512), ByteRange { start: 0, end: 2560 });
        assert!(ByteRange::new(100, 300).unwrap().whole_pieces(512).is_empty());
        assert!(ByteRange::new(600, 300).unwrap().whole_pieces(512).is_empty());
        assert!(ByteRange::new(u64::MAX, 1).is_none());
    }

    #[test]
    fn ranges_overlap_if_they_share_a_byte() {
        let range = |start, end| ByteRange { start, end };
        assert!(range(0, 2).overlaps(range(1, 3)) && range(0, 9).overlaps(range(4, 5)));
        assert!(!range(0, 2).overlaps(range(2, 4)) && !range(2, 4).overlaps(range(0, 2)));
        assert!(!range(0, 9).overlaps(range(4, 4)), "an empty range shares no byte");
    }

    #[test]
    fn units_are_located_in_their_sectors() {
        assert_eq!(SectorSize::B512.locate(UnitIndex(13)), (UnitIndex(13), 0));
        assert_eq!(SectorSize::B4096.locate(UnitIndex(13)), (UnitIndex(8), 5 * 512));
        assert_eq!(SectorSize::B4096.locate(UnitIndex(u64::MAX)), (UnitIndex(u64::MAX - 7), 7 * 512));
    }

    #[test]
    fn all_zero_sees_every_byte() {
        for length in [0, 1, 63, 64, 65, 512, 4096] {
            let mut bytes = vec![0; length];
            assert!(is_all_zero(&bytes));
            for index in 0..length {
                bytes[index] = 1;
                assert!(!is_all_zero(&bytes), "byte {index} of {length}");
                bytes[index] = 0;
            }
        }
    }
}
