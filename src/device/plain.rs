//! A device whose bytes are stored as they are: an unencrypted volume.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::range_lock::RangeLocks;
use super::storage::{Storage, range_within};
use super::{BlockDevice, DeviceError, Extent, ZeroMode};

/// A device of all of a storage's bytes.
pub struct PlainDevice<S> {
    storage: S,
    length: AtomicU64,
    locks: RangeLocks,
    growing: Mutex<()>,
}

impl<S: Storage> PlainDevice<S> {
    /// A device of the first `length` bytes of `storage`.
    ///
    /// # Errors
    /// If the storage is shorter.
    pub fn new(storage: S, length: u64) -> Result<Self, DeviceError> {
        range_within(0, length, storage.length())?;
        Ok(Self { storage, length: AtomicU64::new(length), locks: RangeLocks::default(), growing: Mutex::new(()) })
    }

    /// The storage below.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Makes the device `length` bytes long; a length that is not above the present one changes nothing.
    ///
    /// # Errors
    /// As [`Storage::grow`].
    pub fn grow(&self, length: u64) -> Result<(), DeviceError> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if length > self.size() {
            self.storage.grow(length)?;
            self.length.store(length, Ordering::SeqCst);
        }
        Ok(())
    }
}

impl<S: Storage> BlockDevice for PlainDevice<S> {
    fn size(&self) -> u64 {
        self.length.load(Ordering::SeqCst)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let range = range_within(offset, into.len() as u64, self.size())?;
        let _guard = self.locks.shared(range);
        self.storage.read(offset, into)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        let range = range_within(offset, data.len() as u64, self.size())?;
        let _guard = self.locks.exclusive(range);
        self.storage.reserve(range)?;
        self.storage.write(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<(), DeviceError> {
        let range = range_within(offset, length, self.size())?;
        let _guard = self.locks.exclusive(range);
        self.storage.zero(range, mode)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.storage.flush()
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        let range = range_within(offset, length, self.size())?;
        self.storage.extents(range)
    }
}

impl<S> fmt::Debug for PlainDevice<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainDevice").field("length", &self.length).finish_non_exhaustive()
    }
}
