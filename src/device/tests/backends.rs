//! Storages that fail: at the nth write or flush, and when the power goes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::device::storage::{Memory, Storage};
use crate::device::{DeviceError, DeviceErrorKind, Extent, ZeroMode};
use crate::units::{ByteRange, is_all_zero};

/// What happens around the calls of a [`Hooked`] storage.
pub(super) trait Hooks: Send + Sync {
    /// After bytes were shown.
    fn viewed(&self) {}

    /// Before bytes are stored or zeroed; an error is answered in their place.
    fn write(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Before a flush; an error is answered in its place.
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// A storage with hooks.
pub(super) struct Hooked<S, H> {
    pub(super) inner: S,
    pub(super) hooks: H,
}

impl<S: Storage, H: Hooks> Storage for Hooked<S, H> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn view(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
        self.inner.view(range, visit)?;
        self.hooks.viewed();
        Ok(())
    }

    fn reserve(&self, range: ByteRange) -> Result<(), DeviceError> {
        self.inner.reserve(range)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.hooks.write()?;
        self.inner.write(offset, data)
    }

    fn zero(&self, range: ByteRange, mode: ZeroMode) -> Result<(), DeviceError> {
        self.hooks.write()?;
        self.inner.zero(range, mode)
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>, DeviceError> {
        self.inner.extents(range)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.hooks.flush()?;
        self.inner.flush()
    }

    fn grow(&self, length: u64) -> Result<(), DeviceError> {
        self.inner.grow(length)
    }
}

/// The write and the flush of these numbers, counted from 0, fail with a kind; `u32::MAX` is never.
pub(super) struct Faults {
    kind: DeviceErrorKind,
    until_write: AtomicU32,
    until_flush: AtomicU32,
}

impl Faults {
    pub(super) fn new(kind: DeviceErrorKind, write: u32, flush: u32) -> Self {
        Self { kind, until_write: AtomicU32::new(write), until_flush: AtomicU32::new(flush) }
    }

    fn count(&self, left: &AtomicU32) -> Result<(), DeviceError> {
        if left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(DeviceError::new(self.kind, "an injected fault"));
        }
        Ok(())
    }
}

impl Hooks for Faults {
    fn write(&self) -> Result<(), DeviceError> {
        self.count(&self.until_write)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.count(&self.until_flush)
    }
}

/// What a flush of [`PowerCut`] does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flush {
    /// What it should.
    Honest,
    /// Nothing, and says that it did.
    Ignored,
    /// Fails once, as Linux does: what was to be written is dropped and counts as clean, and the next flush succeeds.
    FailsOnce,
}

/// A storage with a page cache and a disk, and power that can go at any moment.
///
/// What was not flushed by then is on the disk or is not, each 512-byte unit for itself.
pub(super) struct PowerCut {
    cache: Memory,
    flush: Mutex<Flush>,
    disk: Mutex<Disk>,
}

#[derive(Clone)]
struct Disk {
    durable: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
}

impl PowerCut {
    pub(super) fn new(image: Vec<u8>, flush: Flush) -> Self {
        Self {
            cache: Memory::from_bytes(image.clone()),
            flush: Mutex::new(flush),
            disk: Mutex::new(Disk { durable: image, pending: Vec::new() }),
        }
    }

    /// What the disk has if the power goes now; `keep` is asked for each unit of each unflushed write.
    pub(super) fn cut(&self, mut keep: impl FnMut() -> bool) -> Vec<u8> {
        let Disk { mut durable, pending } = self.disk().clone();
        for (offset, data) in pending {
            let mut at = usize::try_from(offset).unwrap();
            for piece in split_at_units(at, &data) {
                if keep() {
                    durable[at..at + piece.len()].copy_from_slice(piece);
                }
                at += piece.len();
            }
        }
        durable
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }
}

/// Cuts `data`, which is to lie at `offset`, at multiples of 512.
fn split_at_units(offset: usize, data: &[u8]) -> Vec<&[u8]> {
    let first = (512 - offset % 512).min(data.len());
    let (head, rest) = data.split_at(first);
    std::iter::once(head).chain(rest.chunks(512)).filter(|piece| !piece.is_empty()).collect()
}

impl Storage for PowerCut {
    fn length(&self) -> u64 {
        self.cache.length()
    }

    fn view(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
        self.cache.view(range, visit)
    }

    fn reserve(&self, range: ByteRange) -> Result<(), DeviceError> {
        self.cache.reserve(range)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.cache.write(offset, data)?;
        self.disk().pending.push((offset, data.to_vec()));
        Ok(())
    }

    fn zero(&self, range: ByteRange, _mode: ZeroMode) -> Result<(), DeviceError> {
        self.write(range.start, &vec![0; usize::try_from(range.len()).unwrap()])
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>, DeviceError> {
        self.cache.extents(range)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        let mut mode = self.flush.lock().unwrap();
        match *mode {
            Flush::Ignored => Ok(()),
            Flush::Honest => {
                let whole = self.cut(|| true);
                *self.disk() = Disk { durable: whole, pending: Vec::new() };
                Ok(())
            }
            Flush::FailsOnce => {
                *mode = Flush::Honest;
                self.disk().pending.clear();
                Err(DeviceError::new(DeviceErrorKind::Io, "the disk failed"))
            }
        }
    }

    fn grow(&self, length: u64) -> Result<(), DeviceError> {
        self.cache.grow(length)?;
        self.disk().durable.resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }
}

#[test]
fn the_power_cut_tears_at_512_bytes_and_keeps_what_was_flushed() {
    let storage = PowerCut::new(vec![0; 4096], Flush::Honest);
    storage.write(100, &[1; 1000]).unwrap();
    storage.flush().unwrap();
    storage.write(0, &[2; 2048]).unwrap();
    let mut turn = false;
    let image = storage.cut(|| {
        turn = !turn;
        turn
    });
    assert_eq!(image[..512], [2; 512]);
    assert_eq!(image[512..1024], [1; 512]);
    assert_eq!(image[1024..1536], [2; 512]);
    assert!(is_all_zero(&image[1536..]));
}
