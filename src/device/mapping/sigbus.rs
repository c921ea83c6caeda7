//! The last resort: a load from a mapping whose page cannot be had.
//!
//! Populating comes first and answers with an error; between that and the load the file can still shrink. The kernel
//! then raises SIGBUS. For an address of ours the handler sets the device's fault flag and puts a zero page in the
//! place, so that the load goes on; the reader tests the flag afterwards and throws the bytes away. The flag is set
//! *before* the page appears: the page is all zeros, and zeros read as never written. Any other address gets what it
//! would have got without us.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Fault;
use crate::secret;

const SLOTS_PER_CHUNK: usize = 64;

/// One registered mapping. `start` is 0 while the slot is free, and is the last field to be set and the first to be
/// cleared, so whoever finds an address inside reads a length and a flag that belong to it.
struct Slot {
    start: AtomicUsize,
    length: AtomicUsize,
    fault: AtomicPtr<Fault>,
}

/// A list that only grows: the handler may walk it at any moment, so nothing in it is ever freed.
struct Chunk {
    slots: [Slot; SLOTS_PER_CHUNK],
    next: AtomicPtr<Chunk>,
}

impl Chunk {
    const fn new() -> Self {
        Self {
            slots: [const {
                Slot { start: AtomicUsize::new(0), length: AtomicUsize::new(0), fault: AtomicPtr::new(ptr::null_mut()) }
            }; SLOTS_PER_CHUNK],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn next(&self) -> Option<&'static Self> {
        // SAFETY: `next` is null or points to a leaked chunk, which lives for ever and is changed through atomics only.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

static FIRST: Chunk = Chunk::new();

/// Held by whoever registers or leaves; the handler takes no lock.
static WRITERS: Mutex<()> = Mutex::new(());

/// Bytes of a page, for the handler, in which `sysconf` must not be called.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

/// What SIGBUS did before us, or why the handler could not be installed.
static PREVIOUS: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();

/// Whether the handler is in place; set after [`PREVIOUS`], which it reads.
static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();

fn slots() -> impl Iterator<Item = &'static Slot> {
    std::iter::successors(Some(&FIRST), |chunk| chunk.next()).flat_map(|chunk| &chunk.slots)
}

/// A mapping that the handler knows, until this is dropped.
pub(super) struct Registration {
    slot: &'static Slot,
    /// Keeps alive what the slot points to.
    _fault: Arc<Fault>,
}

impl Registration {
    /// Makes the handler answer for `length` bytes at `start`, which must not be 0.
    pub(super) fn new(start: usize, length: usize, fault: Arc<Fault>) -> io::Result<Self> {
        install()?;
        let _writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match slots().find(|slot| slot.start.load(Ordering::Relaxed) == 0) {
            Some(slot) => slot,
            None => add_chunk(),
        };
        slot.length.store(length, Ordering::Relaxed);
        slot.fault.store(Arc::as_ptr(&fault).cast_mut(), Ordering::Relaxed);
        slot.start.store(start, Ordering::Release);
        Ok(Self { slot, _fault: fault })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        self.slot.start.store(0, Ordering::SeqCst);
        self.slot.fault.store(ptr::null_mut(), Ordering::SeqCst);
    }
}

/// Appends a chunk of free slots and returns its first one. The caller holds [`WRITERS`].
fn add_chunk() -> &'static Slot {
    let last = std::iter::successors(Some(&FIRST), |chunk| chunk.next()).last().unwrap_or(&FIRST);
    let chunk: &'static Chunk = Box::leak(Box::new(Chunk::new()));
    last.next.store(ptr::from_ref(chunk).cast_mut(), Ordering::Release);
    &chunk.slots[0]
}

/// Installs the handler once per process.
fn install() -> io::Result<()> {
    let outcome = PREVIOUS.get_or_init(|| {
        // SAFETY: `sysconf` reads a constant of the system.
        if let Ok(bytes) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) {
            PAGE_BYTES.store(bytes, Ordering::Relaxed);
        }
        let mut previous = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: with a null new action the call only writes the present one to `previous`.
        if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL));
        }
        // SAFETY: the call succeeded and filled it in.
        Ok(unsafe { previous.assume_init() })
    });
    if let Err(errno) = outcome {
        return Err(io::Error::from_raw_os_error(*errno));
    }
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask and the default action.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `action` is a filled-in action whose handler keeps to async-signal-safe calls.
        if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL))
        }
    });
    installed.map_err(io::Error::from_raw_os_error)
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    secret::note_signal_frame();
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid `info`.
    let code = unsafe { (*info).si_code };
    // Only a code above zero is the kernel's own; kill(2) puts a process id where the address would stand.
    if code > 0 {
        // SAFETY: as above; for a fault `si_addr` is the member in use.
        let address = unsafe { (*info).si_addr() }.addr();
        if substitute(address) {
            return;
        }
    }
    chain(signal, code, info, context);
}

/// If `address` is in a registered mapping: sets its flag, then puts a page of zeros there. Async-signal-safe: atomics,
/// and `mmap`, which on Linux is a bare system call.
fn substitute(address: usize) -> bool {
    let found = slots().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        let length = slot.length.load(Ordering::Relaxed);
        start != 0 && (start..start.saturating_add(length)).contains(&address)
    });
    let Some(slot) = found else { return false };
    // SAFETY: the faulting thread looks through this mapping and so keeps its registration, which owns the flag.
    let Some(fault) = (unsafe { slot.fault.load(Ordering::Acquire).as_ref() }) else { return false };
    fault.set();
    let page_bytes = PAGE_BYTES.load(Ordering::Relaxed);
    let page = ptr::without_provenance_mut::<c_void>(address & !(page_bytes - 1));
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: `errno` is this thread's own; the interrupted code must find it as it was.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the page lies in a mapping of ours, whose owner expects readable bytes there and nothing else; when that
    // mapping is unmapped the page goes with it.
    let mapped = unsafe { libc::mmap(page, page_bytes, libc::PROT_READ, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    mapped != libc::MAP_FAILED
}

/// What would have happened without us.
fn chain(signal: c_int, code: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get().and_then(|previous| previous.as_ref().ok());
    match previous {
        Some(previous) if previous.sa_sigaction == libc::SIG_IGN && code <= 0 => {}
        Some(previous) if previous.sa_sigaction != libc::SIG_DFL && previous.sa_sigaction != libc::SIG_IGN => {
            if previous.sa_flags & libc::SA_SIGINFO != 0 {
                // SAFETY: an action with SA_SIGINFO holds a function of this type.
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                    unsafe { std::mem::transmute(previous.sa_sigaction) };
                handler(signal, info, context);
            } else {
                // SAFETY: an action without SA_SIGINFO that is neither default nor ignore holds a function of this type.
                let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(previous.sa_sigaction) };
                handler(signal);
            }
        }
        // The default ends the process. The signal is blocked while this runs and is delivered when it returns.
        _ => {
            // SAFETY: `signal` and `raise` are async-signal-safe.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    }
}
