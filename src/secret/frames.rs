//! Wiping the stack that signal handlers run on. When a signal interrupts an encryption, the kernel saves every register there,
//! round keys included, and the frame stays after the handler has returned.
#![expect(unsafe_code, reason = "no safe operation tells where the alternate signal stack is")]

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a handler of ours has ever run in this process.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Says that a handler runs. Async-signal-safe.
pub fn note_signal_frame() {
    TAKEN.store(true, Ordering::Relaxed);
}

/// Overwrites the calling thread's alternate signal stack (sigaltstack(2)) if a handler has ever run in this process; costs
/// one load otherwise.
#[inline]
pub fn wipe_signal_stack() {
    if TAKEN.load(Ordering::Relaxed) {
        wipe();
    }
}

#[cold]
fn wipe() {
    let mut stack = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: with a null new stack the call only writes the present one to `stack`.
    if unsafe { libc::sigaltstack(ptr::null(), stack.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: the call succeeded and filled it in.
    let stack = unsafe { stack.assume_init() };
    if stack.ss_flags & (libc::SS_DISABLE | libc::SS_ONSTACK) != 0 || stack.ss_sp.is_null() {
        return;
    }
    for offset in 0..stack.ss_size {
        // SAFETY: the stack is this thread's own, registered by whoever gave it to the kernel to write frames to, and `SS_ONSTACK`
        // says that no frame on it is in use. A handler that interrupts the loop has returned before the loop goes on.
        unsafe { stack.ss_sp.cast::<u8>().add(offset).write_volatile(0) };
    }
}
