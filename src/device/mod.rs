//! Block devices: the trait that everything above reads and writes through, and the layers that implement it.

mod crypt;
mod error;
mod mapping;
mod plain;
mod protections;
mod range_lock;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod volume;

pub use crypt::CryptDevice;
pub use error::{DeviceError, DeviceErrorKind};
pub use plain::PlainDevice;

/// How a range that is to read as zeros may be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ZeroMode {
    /// Holes may be punched: the space is given back.
    MayPunch,
    /// The range stays allocated, so that a later write cannot meet a full disk (NBD's `NO_HOLE`).
    KeepAllocated,
}

/// A run of a device's bytes that is either a hole or data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Length in bytes, never 0.
    pub length: u64,
    /// Whether nothing is stored there.
    pub hole: bool,
    /// Whether it is known to read as zeros.
    pub zero: bool,
}

/// A random-access device of bytes. Every method may be called from many threads at once; overlapping calls are ordered
/// one after the other, as if each were atomic.
pub trait BlockDevice: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Whether writes are refused.
    fn read_only(&self) -> bool {
        false
    }

    /// Fills `into` from `offset`. Bytes that were never written, or were trimmed, are zeros.
    ///
    /// # Errors
    /// If the range ends past the device, the storage fails, or the device is latched after a failed flush.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError>;

    /// Writes `data` at `offset`; durable after the next [`BlockDevice::flush`] that starts later.
    ///
    /// # Errors
    /// As for reading, and if the disk is full or the device read-only. A failed write may have changed any of its bytes
    /// and no others.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError>;

    /// Makes `length` bytes from `offset` read as zeros.
    ///
    /// # Errors
    /// As for writing.
    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<(), DeviceError>;

    /// Gives the space of `length` bytes from `offset` back; they read as zeros.
    ///
    /// # Errors
    /// As for writing.
    fn trim(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.write_zeroes(offset, length, ZeroMode::MayPunch)
    }

    /// Makes every write that was answered before this call durable.
    ///
    /// # Errors
    /// After a failed flush the device is latched: this and every later call fails until it is opened anew.
    fn flush(&self) -> Result<(), DeviceError>;

    /// What is stored from `offset` on, as runs that together are at most `length` bytes and at least one.
    ///
    /// # Errors
    /// As for reading.
    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError>;

    /// Makes the device `length` bytes long, durably, while it is in use. One that is that long already stays as it is.
    ///
    /// # Errors
    /// [`DeviceErrorKind::Invalid`] for a device that has one length for ever, and if `length` is below the present one;
    /// [`DeviceErrorKind::NoSpace`].
    fn grow(&self, length: u64) -> Result<(), DeviceError> {
        Err(DeviceError::new(DeviceErrorKind::Invalid, format!("this device cannot be made {length} bytes long")))
    }
}
