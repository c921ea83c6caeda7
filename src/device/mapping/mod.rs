//! Read-only windows on a file, and the one place where a device touches raw memory.
//!
//! A file is shown through mappings of 1 GiB each, made at first touch and never moved. Windows that nobody looks
//! through are unmapped, least recently used first, when there are more than a budget allows. Before anything is loaded
//! the range is populated, which turns a failing disk or a file that shrank into an error; what still faults afterwards
//! is caught by [`sigbus`].
#![expect(unsafe_code, reason = "lends slices of file mappings and registers them with the SIGBUS handler")]

mod sigbus;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::errno::Errno;

use self::sigbus::Registration;
use super::protections::Protections;
use crate::units::{ByteRange, GIB};

/// From this many bytes on a range is asked for ahead: windows are mapped for random access, without read-ahead.
const WILL_NEED_FROM: usize = 128 * 1024;

/// Whether a load from one of a device's windows ever failed. Once set it stays set.
#[derive(Debug, Default)]
pub(super) struct Fault(AtomicBool);

impl Fault {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// How a file is mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowOptions {
    /// Bytes of one window: a power of two, at least 64 KiB.
    pub(super) bytes: u64,
    /// How many windows stay mapped while nobody looks through them.
    pub(super) budget: usize,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self { bytes: GIB, budget: 64 }
    }
}

/// The windows of one file.
pub(super) struct Windows {
    options: WindowOptions,
    fault: Arc<Fault>,
    table: Mutex<Table>,
    protections: Protections,
}

#[derive(Default)]
struct Table {
    mapped: HashMap<u64, Used>,
    clock: u64,
}

struct Used {
    window: Arc<Window>,
    at: u64,
}

/// One mapping. Fields drop in order: it leaves the handler's list before its addresses are given back.
struct Window {
    _registration: Registration,
    map: MmapRaw,
}

impl Windows {
    pub(super) fn new(options: WindowOptions, protections: Protections) -> Self {
        Self { options, fault: Arc::default(), table: Mutex::default(), protections }
    }

    /// The flag that every window of this file sets.
    pub(super) fn fault(&self) -> &Fault {
        &self.fault
    }

    /// How many windows are mapped now.
    #[cfg(test)]
    pub(super) fn mapped(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).mapped.len()
    }

    /// Shows the bytes of `range`, which lies within `file`, piece by piece. The pieces count only if this returns `Ok`.
    ///
    /// While it runs the windows in use stay mapped. The caller holds a range lock, so nobody in this process writes to
    /// what is shown; what another process does to the file can change bytes under the reader, never its memory safety.
    pub(super) fn view(&self, file: &File, range: ByteRange, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let index = at / self.options.bytes;
            let start = index * self.options.bytes;
            let end = (start + self.options.bytes).min(range.end);
            let window = self.pin(file, index)?;
            let offset = usize::try_from(at - start).map_err(io::Error::other)?;
            let length = usize::try_from(end - at).map_err(io::Error::other)?;
            if self.protections.populate() {
                window.populate(offset, length)?;
            }
            // SAFETY: `offset + length` is at most the window's length (both ends lie in the same window), the mapping
            // is readable and stays while `window` is held. Loads past the file's end or from a failing disk raise
            // SIGBUS, which the registered handler answers with a readable page. Writers of this process are kept out
            // by range locks; a foreign writer may change bytes during the loads, which the visitors (XTS, copies and
            // comparisons with zero) bear, as none of them derives an index or a length from what it loads.
            let piece = unsafe { std::slice::from_raw_parts(window.map.as_ptr().add(offset), length) };
            visit(piece);
            at = end;
        }
        if self.protections.fault_flag() && self.fault.is_set() {
            return Err(io::Error::other("a page of the file could not be loaded"));
        }
        Ok(())
    }

    /// The window of that number, mapped if it was not, and kept while the answer is held.
    fn pin(&self, file: &File, index: u64) -> io::Result<Arc<Window>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.clock += 1;
        let at = table.clock;
        if let Some(used) = table.mapped.get_mut(&index) {
            used.at = at;
            return Ok(used.window.clone());
        }
        // Windows are cloned under this mutex alone, so a count of one means that nobody looks through it.
        while table.mapped.len() >= self.options.budget {
            let idle = table.mapped.iter().filter(|(_, used)| Arc::strong_count(&used.window) == 1);
            let Some(oldest) = idle.min_by_key(|(_, used)| used.at).map(|(index, _)| *index) else { break };
            table.mapped.remove(&oldest);
        }
        let window = Arc::new(Window::map(file, index, self.options.bytes, &self.fault)?);
        table.mapped.insert(index, Used { window: window.clone(), at });
        Ok(window)
    }
}

impl Window {
    /// Maps window `index`, also where it reaches past the file's end: that is how the file can grow into it.
    fn map(file: &File, index: u64, bytes: u64, fault: &Arc<Fault>) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let map = MmapOptions::new().offset(index * bytes).len(length).map_raw_read_only(file)?;
        map.advise(Advice::Random)?;
        let registration = Registration::new(map.as_ptr().addr(), length, fault.clone())?;
        Ok(Self { _registration: registration, map })
    }

    /// Brings the range into the page tables, or says why that cannot be done.
    fn populate(&self, offset: usize, length: usize) -> io::Result<()> {
        if length >= WILL_NEED_FROM {
            self.map.advise_range(Advice::WillNeed, offset, length)?;
        }
        loop {
            match self.map.advise_range(Advice::PopulateRead, offset, length) {
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                // Before Linux 5.14 there is no such advice, and the handler is all there is.
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => return Ok(()),
                other => return other,
            }
        }
    }
}
