//! A storage in memory, for tests of everything above and for devices that need not outlive the process.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Storage, range_within};
use crate::device::{DeviceError, Extent, ZeroMode};
use crate::units::{ByteRange, is_all_zero};

/// The granularity of its extents, in bytes.
const BLOCK: u64 = 4096;

/// Bytes in memory. A run of zero blocks counts as a hole.
#[derive(Debug, Default)]
pub struct Memory {
    bytes: RwLock<Vec<u8>>,
}

impl Memory {
    /// A storage of `length` zero bytes.
    pub fn new(length: usize) -> Self {
        Self { bytes: RwLock::new(vec![0; length]) }
    }

    /// A storage of these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes) }
    }

    /// A copy of all bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.shared().clone()
    }

    fn shared(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The range as indices of a slice that is known to hold it.
fn indices(range: ByteRange) -> std::ops::Range<usize> {
    let index = |offset| usize::try_from(offset).expect("an offset within a vector's length is a usize");
    index(range.start)..index(range.end)
}

impl Storage for Memory {
    fn length(&self) -> u64 {
        self.shared().len() as u64
    }

    fn view(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
        let bytes = self.shared();
        let range = range_within(range.start, range.len(), bytes.len() as u64)?;
        visit(&bytes[indices(range)]);
        Ok(())
    }

    fn reserve(&self, range: ByteRange) -> Result<(), DeviceError> {
        range_within(range.start, range.len(), self.length()).map(drop)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        let mut bytes = self.exclusive();
        let range = range_within(offset, data.len() as u64, bytes.len() as u64)?;
        bytes[indices(range)].copy_from_slice(data);
        Ok(())
    }

    fn zero(&self, range: ByteRange, _mode: ZeroMode) -> Result<(), DeviceError> {
        let mut bytes = self.exclusive();
        let range = range_within(range.start, range.len(), bytes.len() as u64)?;
        bytes[indices(range)].fill(0);
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>, DeviceError> {
        let bytes = self.shared();
        let range = range_within(range.start, range.len(), bytes.len() as u64)?;
        let mut runs: Vec<Extent> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end = ((at / BLOCK + 1) * BLOCK).min(range.end);
            let hole = is_all_zero(&bytes[indices(ByteRange { start: at, end })]);
            match runs.last_mut() {
                Some(run) if run.hole == hole => run.length += end - at,
                _ => runs.push(Extent { length: end - at, hole, zero: hole }),
            }
            at = end;
        }
        Ok(runs)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn grow(&self, length: u64) -> Result<(), DeviceError> {
        let length = usize::try_from(length).map_err(|_| {
            DeviceError::new(crate::device::DeviceErrorKind::NoSpace, format!("{length} bytes do not fit memory"))
        })?;
        let mut bytes = self.exclusive();
        let longer = length.max(bytes.len());
        bytes.resize(longer, 0);
        Ok(())
    }
}
