//! The encrypting layer: plaintext above, AES-XTS ciphertext below, and zeros where nothing was written.
//!
//! **An all-zero 512-byte unit of ciphertext reads as zeros**, at either sector size. So holes, trimmed and unwritten
//! ranges need no map that a crash could leave in contradiction to the data. XTS works on 16 bytes at a time under a
//! tweak that is the sector's, so whole units are encrypted without the rest of their sector, and a write torn at 512
//! bytes leaves each unit old, new or zero.

use std::cell::RefCell;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::protections::Protections;
use super::range_lock::{RangeGuard, RangeLocks};
use super::storage::{Storage, range_within};
use super::{BlockDevice, DeviceError, DeviceErrorKind, Extent, ZeroMode};
use crate::units::{ByteRange, SectorSize, UNIT_BYTES, UnitIndex, is_all_zero};
use crate::xts::{XtsCipher, XtsError, parallel};

const UNIT: usize = 512;

/// Long writes are encrypted and stored in pieces of at most this many bytes.
///
/// Each piece wakes the pool once and is one `pwrite`. With requests of 1 MiB, idle Zen 3, as shares of the speed without encryption
/// (medians of five runs): on two cores pieces of 256 KiB gave 0.51, 512 KiB 0.57, 1 MiB 0.60; on one core 0.50, 0.51 and 0.53. Fewer
/// calls save more than a second-level cache of 512 KiB does, which holds short pieces alone.
const PIECE_BYTES: u64 = 1024 * 1024;

/// A device of encrypted sectors from byte `base` of a storage on.
pub struct CryptDevice<S> {
    storage: S,
    base: u64,
    length: AtomicU64,
    cipher: XtsCipher,
    sector_size: SectorSize,
    locks: RangeLocks,
    growing: Mutex<()>,
    protections: Protections,
}

thread_local! {
    /// Ciphertext on its way to the storage. It is kept because fresh memory costs more than the cipher.
    static CIPHERTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<S: Storage> CryptDevice<S> {
    /// A device of `length` bytes, a multiple of 512, whose ciphertext starts at byte `base` of `storage`.
    ///
    /// # Errors
    /// If the storage ends before the device would, or `length` is no multiple of 512.
    pub fn new(
        storage: S,
        base: u64,
        length: u64,
        cipher: XtsCipher,
        sector_size: SectorSize,
    ) -> Result<Self, DeviceError> {
        Self::with(storage, base, length, cipher, sector_size, Protections::ON)
    }

    pub(crate) fn with(
        storage: S,
        base: u64,
        length: u64,
        cipher: XtsCipher,
        sector_size: SectorSize,
        protections: Protections,
    ) -> Result<Self, DeviceError> {
        check_length(length)?;
        range_within(base, length, storage.length())?;
        Ok(Self {
            storage,
            base,
            length: AtomicU64::new(length),
            cipher,
            sector_size,
            locks: RangeLocks::default(),
            growing: Mutex::new(()),
            protections,
        })
    }

    /// The storage below.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Makes the device `length` bytes long, `before` being run once the storage is that long and before anybody can
    /// use the new bytes. A length that is not above the present one changes nothing.
    ///
    /// # Errors
    /// As [`Storage::grow`], or what `before` answers; the device keeps its length then.
    pub fn grow(&self, length: u64, before: impl FnOnce() -> Result<(), DeviceError>) -> Result<(), DeviceError> {
        check_length(length)?;
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if length <= self.size() {
            return Ok(());
        }
        let end = self.base.checked_add(length);
        self.storage.grow(end.ok_or_else(|| DeviceError::new(DeviceErrorKind::Invalid, "length above 2^64"))?)?;
        before()?;
        self.length.store(length, Ordering::SeqCst);
        Ok(())
    }

    /// Writes encrypted zeros wherever nothing is stored, so that a program without the zero rule (dm-crypt) reads the
    /// same as we do. `progress` hears how many bytes of the device are done. Durable when it returns.
    ///
    /// # Errors
    /// As for writing; what was filled until then stays.
    pub fn fill(&self, mut progress: impl FnMut(u64)) -> Result<(), DeviceError> {
        let size = self.size();
        let mut at = 0;
        while at < size {
            let piece = ByteRange { start: at, end: (at + PIECE_BYTES).min(size) };
            self.fill_piece(piece)?;
            at = piece.end;
            progress(at);
        }
        self.flush()
    }

    fn fill_piece(&self, piece: ByteRange) -> Result<(), DeviceError> {
        let _guard = self.exclusive(piece);
        let mut missing: Vec<ByteRange> = Vec::new();
        let mut at = piece.start;
        self.storage.view(self.stored(piece), &mut |bytes| {
            for unit in bytes.chunks(UNIT) {
                let end = at + unit.len() as u64;
                if is_all_zero(unit) {
                    match missing.last_mut() {
                        Some(run) if run.end == at => run.end = end,
                        _ => missing.push(ByteRange { start: at, end }),
                    }
                }
                at = end;
            }
        })?;
        for run in missing {
            let mut zeros = vec![0; bytes_of(run)];
            parallel::encrypt_in_place(&self.cipher, self.sector_size, UnitIndex::containing(run.start), &mut zeros)
                .map_err(impossible)?;
            self.storage.write(self.stored(run).start, &zeros)?;
        }
        Ok(())
    }

    /// Where a range of the device lies in the storage.
    fn stored(&self, range: ByteRange) -> ByteRange {
        ByteRange { start: self.base + range.start, end: self.base + range.end }
    }

    fn shared(&self, range: ByteRange) -> Option<RangeGuard<'_>> {
        self.protections.range_locks().then(|| self.locks.shared(range))
    }

    fn exclusive(&self, range: ByteRange) -> Option<RangeGuard<'_>> {
        self.protections.range_locks().then(|| self.locks.exclusive(range))
    }

    /// Decrypts whole units, those that hold nothing into zeros.
    fn decode(&self, first: UnitIndex, stored: &[u8], into: &mut [u8]) -> Result<(), XtsError> {
        if !self.protections.zero_units() {
            return parallel::decrypt(&self.cipher, self.sector_size, first, stored, into);
        }
        let units = stored.len() / UNIT;
        let is_zero = |unit: usize| is_all_zero(&stored[unit * UNIT..(unit + 1) * UNIT]);
        let mut start = 0;
        while start < units {
            let zero = is_zero(start);
            let end = (start + 1..units).find(|unit| is_zero(*unit) != zero).unwrap_or(units);
            let run = start * UNIT..end * UNIT;
            if zero {
                into[run].fill(0);
            } else {
                let first = first.wrapping_add(start as u64);
                parallel::decrypt(&self.cipher, self.sector_size, first, &stored[run.clone()], &mut into[run])?;
            }
            start = end;
        }
        Ok(())
    }

    /// Decrypts `units`, whole ones, and hands each run of plaintext that lies in `wanted` to its place in `into`.
    fn read_units(&self, units: ByteRange, wanted: ByteRange, into: &mut [u8]) -> Result<(), DeviceError> {
        let mut at = units.start;
        let mut outcome = Ok(());
        self.storage.view(self.stored(units), &mut |stored| {
            let piece = ByteRange { start: at, end: at + stored.len() as u64 };
            at = piece.end;
            if outcome.is_ok() {
                outcome = self.read_piece(piece, stored, wanted, into);
            }
        })?;
        outcome.map_err(impossible)
    }

    fn read_piece(&self, piece: ByteRange, stored: &[u8], wanted: ByteRange, into: &mut [u8]) -> Result<(), XtsError> {
        let mut at = piece.start;
        while at < piece.end {
            let unit = ByteRange { start: at, end: at + UNIT_BYTES };
            let whole = wanted.start <= at && unit.end <= wanted.end;
            let run = if whole {
                ByteRange { start: at, end: piece.end.min(wanted.whole_pieces(UNIT_BYTES).end) }
            } else {
                unit
            };
            let source = &stored[offset_in(piece, run.start)..offset_in(piece, run.end)];
            let first = UnitIndex::containing(at);
            if whole {
                self.decode(first, source, &mut into[offset_in(wanted, run.start)..offset_in(wanted, run.end)])?;
            } else {
                let mut plain = [0; UNIT];
                self.decode(first, source, &mut plain)?;
                let part = ByteRange { start: unit.start.max(wanted.start), end: unit.end.min(wanted.end) };
                into[offset_in(wanted, part.start)..offset_in(wanted, part.end)]
                    .copy_from_slice(&plain[offset_in(unit, part.start)..offset_in(unit, part.end)]);
            }
            at = run.end;
        }
        Ok(())
    }

    /// Encrypts and stores the part of a write that lies in `piece`, which is whole units. The caller holds the lock.
    fn write_piece(&self, piece: ByteRange, data: &[u8], target: ByteRange) -> Result<(), DeviceError> {
        CIPHERTEXT.with_borrow_mut(|buffer| {
            buffer.resize(bytes_of(piece).max(buffer.len()), 0);
            let buffer = &mut buffer[..bytes_of(piece)];
            let mut at = piece.start;
            while at < piece.end {
                let unit = ByteRange { start: at, end: at + UNIT_BYTES };
                let first = UnitIndex::containing(at);
                if target.start <= at && unit.end <= target.end {
                    let run = ByteRange { start: at, end: piece.end.min(target.whole_pieces(UNIT_BYTES).end) };
                    let plain = &data[offset_in(target, run.start)..offset_in(target, run.end)];
                    let into = &mut buffer[offset_in(piece, run.start)..offset_in(piece, run.end)];
                    parallel::encrypt(&self.cipher, self.sector_size, first, plain, into).map_err(impossible)?;
                    at = run.end;
                } else {
                    let mut plain = [0; UNIT];
                    self.read_units(unit, unit, &mut plain)?;
                    let part = ByteRange { start: unit.start.max(target.start), end: unit.end.min(target.end) };
                    plain[offset_in(unit, part.start)..offset_in(unit, part.end)]
                        .copy_from_slice(&data[offset_in(target, part.start)..offset_in(target, part.end)]);
                    let into = &mut buffer[offset_in(piece, unit.start)..offset_in(piece, unit.end)];
                    self.cipher.encrypt(self.sector_size, first, &plain, into).map_err(impossible)?;
                    at = unit.end;
                }
            }
            self.storage.write(self.stored(piece).start, buffer)
        })
    }

    /// Zeroes a part of one unit. The caller holds the lock.
    fn zero_part(&self, part: ByteRange, mode: ZeroMode) -> Result<(), DeviceError> {
        let unit = part.covering_pieces(UNIT_BYTES);
        if mode == ZeroMode::MayPunch {
            let mut holds_nothing = true;
            self.storage.view(self.stored(unit), &mut |stored| holds_nothing &= is_all_zero(stored))?;
            if holds_nothing {
                return Ok(());
            }
        }
        self.write_piece(unit, &[0; UNIT][..bytes_of(part)], part)
    }
}

impl<S: Storage> BlockDevice for CryptDevice<S> {
    fn size(&self) -> u64 {
        self.length.load(Ordering::SeqCst)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let range = range_within(offset, into.len() as u64, self.size())?;
        if range.is_empty() {
            return Ok(());
        }
        let units = range.covering_pieces(UNIT_BYTES);
        let _guard = self.shared(units);
        self.read_units(units, range, into)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        let range = range_within(offset, data.len() as u64, self.size())?;
        if range.is_empty() {
            return Ok(());
        }
        let units = range.covering_pieces(UNIT_BYTES);
        let _guard = self.exclusive(units);
        self.storage.reserve(self.stored(units))?;
        let mut at = units.start;
        while at < units.end {
            let piece = ByteRange { start: at, end: (at + PIECE_BYTES).min(units.end) };
            self.write_piece(piece, data, range)?;
            at = piece.end;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<(), DeviceError> {
        let range = range_within(offset, length, self.size())?;
        if range.is_empty() {
            return Ok(());
        }
        let _guard = self.exclusive(range.covering_pieces(UNIT_BYTES));
        let whole = range.whole_pieces(UNIT_BYTES);
        // Without a whole unit in between, the first unit's part ends where the unit or the range does.
        let head_end = if whole.is_empty() {
            (range.start / UNIT_BYTES + 1).saturating_mul(UNIT_BYTES).min(range.end)
        } else {
            whole.start
        };
        let tail_start = if whole.is_empty() { head_end } else { whole.end };
        for part in [ByteRange { start: range.start, end: head_end }, ByteRange { start: tail_start, end: range.end }] {
            if !part.is_empty() {
                self.zero_part(part, mode)?;
            }
        }
        if whole.is_empty() { Ok(()) } else { self.storage.zero(self.stored(whole), mode) }
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.storage.flush()
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        let range = range_within(offset, length, self.size())?;
        self.storage.extents(self.stored(range))
    }
}

fn check_length(length: u64) -> Result<(), DeviceError> {
    if length.is_multiple_of(UNIT_BYTES) {
        Ok(())
    } else {
        Err(DeviceError::new(DeviceErrorKind::Invalid, format!("a device of {length} bytes is no multiple of 512")))
    }
}

/// How far `at` lies inside `range`, for indexing a buffer that holds the range.
fn offset_in(range: ByteRange, at: u64) -> usize {
    usize::try_from(at - range.start).expect("an offset within a buffer in memory is a usize")
}

fn bytes_of(range: ByteRange) -> usize {
    offset_in(range, range.end)
}

/// The cipher refuses only lengths that are no whole units, and units are all it is given.
fn impossible(error: XtsError) -> DeviceError {
    DeviceError::new(DeviceErrorKind::Invalid, "a run that is not made of whole units reached the cipher")
        .with_source(error)
}

impl<S> fmt::Debug for CryptDevice<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CryptDevice")
            .field("length", &self.length)
            .field("sector_size", &self.sector_size)
            .finish_non_exhaustive()
    }
}
