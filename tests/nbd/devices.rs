//! Devices for tests: sparse memory, memory that forgets what was not flushed, and one with a hook before every call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use blockseal::device::{BlockDevice, DeviceError, DeviceErrorKind, Extent, ZeroMode};

const BLOCK: u64 = 4096;
const BLOCK_LENGTH: usize = 4096;

/// Memory in blocks of 4096 bytes, of which those never written, or zeroed whole, are holes.
pub(crate) struct Sparse {
    size: u64,
    read_only: bool,
    blocks: RwLock<Vec<Option<Box<[u8]>>>>,
}

impl Sparse {
    pub(crate) fn new(size: u64) -> Self {
        let blocks = usize::try_from(size.div_ceil(BLOCK)).unwrap();
        Self { size, read_only: false, blocks: RwLock::new((0..blocks).map(|_| None).collect()) }
    }

    pub(crate) fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(DeviceError::new(DeviceErrorKind::OutOfRange, "past the end")),
        }
    }

    fn check_write(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        if self.read_only {
            return Err(DeviceError::new(DeviceErrorKind::ReadOnly, "read-only"));
        }
        self.check(offset, length)
    }
}

/// The parts of a range by block: index, offset in the block, length, offset in the range.
fn parts(offset: u64, length: u64) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut at = offset;
    std::iter::from_fn(move || {
        let left = offset + length - at;
        if left == 0 {
            return None;
        }
        let inside = at % BLOCK;
        let part = left.min(BLOCK - inside);
        let item = (at / BLOCK, inside, part, at - offset);
        at += part;
        Some((
            usize::try_from(item.0).unwrap(),
            usize::try_from(item.1).unwrap(),
            usize::try_from(item.2).unwrap(),
            usize::try_from(item.3).unwrap(),
        ))
    })
}

impl BlockDevice for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.check(offset, into.len() as u64)?;
        let blocks = self.blocks.read().unwrap();
        for (index, inside, length, at) in parts(offset, into.len() as u64) {
            match &blocks[index] {
                Some(block) => into[at..at + length].copy_from_slice(&block[inside..inside + length]),
                None => into[at..at + length].fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.check_write(offset, data.len() as u64)?;
        let mut blocks = self.blocks.write().unwrap();
        for (index, inside, length, at) in parts(offset, data.len() as u64) {
            let block = blocks[index].get_or_insert_with(|| vec![0; BLOCK_LENGTH].into());
            block[inside..inside + length].copy_from_slice(&data[at..at + length]);
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<(), DeviceError> {
        self.check_write(offset, length)?;
        let mut blocks = self.blocks.write().unwrap();
        for (index, inside, length, _) in parts(offset, length) {
            if mode == ZeroMode::MayPunch && length as u64 == BLOCK {
                blocks[index] = None;
            } else if mode == ZeroMode::KeepAllocated {
                blocks[index].get_or_insert_with(|| vec![0; BLOCK_LENGTH].into())[inside..inside + length].fill(0);
            } else if let Some(block) = &mut blocks[index] {
                block[inside..inside + length].fill(0);
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        self.check(offset, length)?;
        let blocks = self.blocks.read().unwrap();
        Ok(parts(offset, length)
            .map(|(index, _, length, _)| {
                let hole = blocks[index].is_none();
                Extent { length: length as u64, hole, zero: hole }
            })
            .collect())
    }
}

/// What a device's flush does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlushPolicy {
    /// Makes everything written so far durable.
    Honoured,
    /// Says so and does nothing: the protection switched off.
    Ignored,
}

/// Two images: what reads see, and what would be there after the power was cut.
pub(crate) struct Volatile {
    policy: FlushPolicy,
    live: Mutex<Vec<u8>>,
    durable: Mutex<Vec<u8>>,
    pub flushes: AtomicU64,
}

impl Volatile {
    pub(crate) fn new(size: usize, policy: FlushPolicy) -> Self {
        Self { policy, live: Mutex::new(vec![0; size]), durable: Mutex::new(vec![0; size]), flushes: AtomicU64::new(0) }
    }

    /// The image after a power cut now.
    pub(crate) fn after_power_cut(&self) -> Vec<u8> {
        self.durable.lock().unwrap().clone()
    }
}

fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap();
    start..start + length
}

impl BlockDevice for Volatile {
    fn size(&self) -> u64 {
        self.live.lock().unwrap().len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        into.copy_from_slice(&self.live.lock().unwrap()[range(offset, into.len())]);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.live.lock().unwrap()[range(offset, data.len())].copy_from_slice(data);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: ZeroMode) -> Result<(), DeviceError> {
        self.live.lock().unwrap()[range(offset, usize::try_from(length).unwrap())].fill(0);
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        if self.policy == FlushPolicy::Honoured {
            let live = self.live.lock().unwrap().clone();
            *self.durable.lock().unwrap() = live;
        }
        Ok(())
    }

    fn extents(&self, _: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        Ok(vec![Extent { length, hole: false, zero: false }])
    }
}

/// A call that a [`Hooked`] device is about to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Read,
    Write,
    Zero,
    /// Before the flush.
    Flush,
    /// After it, before it is answered.
    Flushed,
}

type Hook = dyn Fn(Op, u64, u64) -> Result<(), DeviceError> + Send + Sync;

/// A device with a hook before every call, which may wait, fail or panic.
pub(crate) struct Hooked<D> {
    pub inner: D,
    hook: Box<Hook>,
}

impl<D> Hooked<D> {
    pub(crate) fn new(
        inner: D,
        hook: impl Fn(Op, u64, u64) -> Result<(), DeviceError> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, hook: Box::new(hook) }
    }
}

impl<D: BlockDevice> BlockDevice for Hooked<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        (self.hook)(Op::Read, offset, into.len() as u64)?;
        self.inner.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        (self.hook)(Op::Write, offset, data.len() as u64)?;
        self.inner.write_at(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<(), DeviceError> {
        (self.hook)(Op::Zero, offset, length)?;
        self.inner.write_zeroes(offset, length, mode)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        (self.hook)(Op::Flush, 0, 0)?;
        self.inner.flush()?;
        (self.hook)(Op::Flushed, 0, 0)
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        self.inner.extents(offset, length)
    }
}
