//! What a device stores its bytes in: one narrow trait, positional and shared by reference.
//!
//! The real one is [`MappedFile`]; [`Memory`] and the test backends are others. Layers such as [`Latched`] wrap one.

mod file;
mod latched;
mod memory;

pub(super) use file::set_length;
pub use file::{FileOptions, MappedFile};
pub use latched::{Latch, Latched};
pub use memory::Memory;

use super::{DeviceError, DeviceErrorKind, Extent, ZeroMode};
use crate::units::ByteRange;

/// A store of bytes with a fixed length that can grow. What was never written, or was zeroed, is zeros.
///
/// Callers order overlapping calls themselves; calls on disjoint ranges may run at once.
pub trait Storage: Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> u64;

    /// Shows the stored bytes of `range` where they lie, in order and in pieces. Those of a range that starts at a
    /// multiple of 512 end at one, but for the last.
    ///
    /// What a piece showed counts only once this has returned `Ok`: a storage that fails under a load shows zeros and
    /// says so afterwards.
    ///
    /// # Errors
    /// If the range ends past the storage or the storage fails.
    fn view(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError>;

    /// Makes room for a write of `range`, so that a full disk is an error here and not half-way through.
    ///
    /// # Errors
    /// [`DeviceErrorKind::NoSpace`] if there is no room.
    fn reserve(&self, range: ByteRange) -> Result<(), DeviceError>;

    /// Stores `data` at `offset`.
    ///
    /// # Errors
    /// If the range ends past the storage or the storage fails; any of the bytes, and no others, may have changed then.
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError>;

    /// Makes `range` zeros, stored as `mode` says.
    ///
    /// # Errors
    /// As for [`Storage::write`].
    fn zero(&self, range: ByteRange, mode: ZeroMode) -> Result<(), DeviceError>;

    /// Holes and data of a prefix of `range`, at least one run unless the range is empty.
    ///
    /// # Errors
    /// As for [`Storage::view`].
    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>, DeviceError>;

    /// Makes every write that returned before this call durable.
    ///
    /// # Errors
    /// If it is not certain that all of them are.
    fn flush(&self) -> Result<(), DeviceError>;

    /// Grows to `length` bytes, durable after the next flush; does nothing if it is that long already.
    ///
    /// # Errors
    /// [`DeviceErrorKind::NoSpace`] if the file system cannot hold a file of that length.
    fn grow(&self, length: u64) -> Result<(), DeviceError>;

    /// Copies the stored bytes at `offset` into `into`.
    ///
    /// # Errors
    /// As for [`Storage::view`].
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let range = range_within(offset, into.len() as u64, self.length())?;
        let mut done = 0;
        self.view(range, &mut |piece| {
            into[done..done + piece.len()].copy_from_slice(piece);
            done += piece.len();
        })
    }
}

/// The range of `length` bytes at `offset` of something `size` bytes long.
///
/// # Errors
/// [`DeviceErrorKind::OutOfRange`] if it ends past the end.
pub(super) fn range_within(offset: u64, length: u64, size: u64) -> Result<ByteRange, DeviceError> {
    ByteRange::new(offset, length).filter(|range| range.end <= size).ok_or_else(|| {
        DeviceError::new(
            DeviceErrorKind::OutOfRange,
            format!("{length} bytes at offset {offset} do not lie within {size} bytes"),
        )
    })
}

/// A storage that is shared is a storage.
macro_rules! delegate {
    ($shared:ty) => {
        impl<S: Storage + ?Sized> Storage for $shared {
            fn length(&self) -> u64 {
                (**self).length()
            }

            fn view(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
                (**self).view(range, visit)
            }

            fn reserve(&self, range: ByteRange) -> Result<(), DeviceError> {
                (**self).reserve(range)
            }

            fn write(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
                (**self).write(offset, data)
            }

            fn zero(&self, range: ByteRange, mode: ZeroMode) -> Result<(), DeviceError> {
                (**self).zero(range, mode)
            }

            fn extents(&self, range: ByteRange) -> Result<Vec<Extent>, DeviceError> {
                (**self).extents(range)
            }

            fn flush(&self) -> Result<(), DeviceError> {
                (**self).flush()
            }

            fn grow(&self, length: u64) -> Result<(), DeviceError> {
                (**self).grow(length)
            }
        }
    };
}

delegate!(std::sync::Arc<S>);
delegate!(&S);
