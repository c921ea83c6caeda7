//! One failed flush, and the storage is closed for good.
//!
//! After a failed writeback Linux marks the pages clean: the next `fdatasync` answers success, and the page cache shows
//! bytes that the disk does not have. So a flush is never tried again; what is still true is found by opening anew,
//! from the disk.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Storage;
use crate::device::protections::Protections;
use crate::device::{DeviceError, DeviceErrorKind, Extent, ZeroMode};
use crate::units::ByteRange;

/// Where a latch is remembered beyond the process.
pub trait Latch: Send + Sync {
    /// Records durably that a flush failed.
    ///
    /// # Errors
    /// If the record could not be made; the device stays latched in this process all the same.
    fn set(&self, why: &str) -> Result<(), DeviceError>;
}

/// A storage that serves nothing more after a flush failed.
pub struct Latched<S> {
    inner: S,
    latch: Option<Box<dyn Latch>>,
    tripped: AtomicBool,
    /// Numbers the flush calls; a flush that starts after a call was numbered covers it.
    called: AtomicU64,
    /// The highest call number that a successful flush covers. Its mutex is held while a flush runs: of two flushes at
    /// once on one descriptor only one would hear of a failure that concerns both.
    covered: Mutex<u64>,
    protections: Protections,
}

impl<S: Storage> Latched<S> {
    /// Wraps `inner`; `latch` remembers a failure beyond this process.
    pub fn new(inner: S, latch: Option<Box<dyn Latch>>) -> Self {
        Self::with(inner, latch, Protections::ON)
    }

    pub(crate) fn with(inner: S, latch: Option<Box<dyn Latch>>, protections: Protections) -> Self {
        Self {
            inner,
            latch,
            tripped: AtomicBool::new(false),
            called: AtomicU64::new(0),
            covered: Mutex::new(0),
            protections,
        }
    }

    /// The storage below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Whether a flush failed.
    pub fn is_latched(&self) -> bool {
        self.tripped.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), DeviceError> {
        if self.is_latched() {
            Err(DeviceError::new(
                DeviceErrorKind::Latched,
                "an earlier flush failed and what was written since the last good one may be lost; \
                 detach the volume and attach it again to go on with what the disk has",
            ))
        } else {
            Ok(())
        }
    }

    fn trip(&self, error: DeviceError) -> DeviceError {
        if !self.protections.latch() {
            return error;
        }
        self.tripped.store(true, Ordering::SeqCst);
        let recorded = self.latch.as_ref().map_or(Ok(()), |latch| latch.set(&error.to_string()));
        match recorded {
            Ok(()) => error,
            Err(not_recorded) => DeviceError::new(
                error.kind(),
                format!("{error} (and that could not be recorded beside the volume: {not_recorded})"),
            )
            .with_source(error),
        }
    }
}

impl<S: Storage> Storage for Latched<S> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn view(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
        self.check()?;
        self.inner.view(range, visit)
    }

    fn reserve(&self, range: ByteRange) -> Result<(), DeviceError> {
        self.check()?;
        self.inner.reserve(range)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.check()?;
        self.inner.write(offset, data)
    }

    fn zero(&self, range: ByteRange, mode: ZeroMode) -> Result<(), DeviceError> {
        self.check()?;
        self.inner.zero(range, mode)
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>, DeviceError> {
        self.check()?;
        self.inner.extents(range)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        let call = self.called.fetch_add(1, Ordering::SeqCst) + 1;
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        if *covered >= call {
            return Ok(());
        }
        let covers = self.called.load(Ordering::SeqCst);
        self.inner.flush().map_err(|error| self.trip(error))?;
        *covered = covers;
        Ok(())
    }

    fn grow(&self, length: u64) -> Result<(), DeviceError> {
        self.check()?;
        self.inner.grow(length)?;
        self.flush()
    }
}

impl<S> fmt::Debug for Latched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latched").field("tripped", &self.tripped).finish_non_exhaustive()
    }
}
