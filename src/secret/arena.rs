//! The locked pages behind [`super::SecretBytes`] and [`super::SecretBox`].
//!
//! Pages come from anonymous mappings of 64 KiB which stay for the life of the process and are cut into slots by size
//! class, since a page of its own for every 32-byte key would meet the limit on locked memory (`RLIMIT_MEMLOCK`, 8 MiB
//! on Debian) and cost a handful of system calls each. A slot is wiped before it returns to its free list.
#![expect(unsafe_code, reason = "hands out disjoint slots of locked anonymous mappings")]

use std::mem::{align_of, size_of};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

const CHUNK_BYTES: usize = 64 * 1024;
const SMALLEST_CLASS: usize = 64;

/// Bytes of secret memory that the system refused to lock (they are still left out of core dumps and wiped).
static UNLOCKED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// How many bytes of secret memory could not be locked into RAM because of `RLIMIT_MEMLOCK`; 0 is the normal answer.
pub fn unlocked_bytes() -> usize {
    UNLOCKED_BYTES.load(Ordering::Relaxed)
}

/// Free slots by size class: 64 bytes times 2^index, up to a whole chunk.
static FREE: Mutex<[Vec<FreeSlot>; CLASSES]> = Mutex::new([const { Vec::new() }; CLASSES]);
const CLASSES: usize = (CHUNK_BYTES / SMALLEST_CLASS).ilog2() as usize + 1;

struct FreeSlot(NonNull<u8>);

// SAFETY: a free slot is memory that nobody reads or writes; the list that holds it is behind a mutex.
unsafe impl Send for FreeSlot {}

/// A slot of secret memory, all zeros when taken and wiped when dropped.
pub(super) struct Slot {
    start: NonNull<u8>,
    class: usize,
}

// SAFETY: a slot owns its bytes alone, as a `Box<[u8]>` would.
unsafe impl Send for Slot {}
// SAFETY: shared access only reads, as with a `Box<[u8]>`.
unsafe impl Sync for Slot {}

impl Slot {
    /// A zeroed slot of at least `bytes` bytes whose address is a multiple of `align`.
    pub(super) fn take(bytes: usize, align: usize) -> Self {
        let class_bytes = bytes.max(align).max(SMALLEST_CLASS).next_power_of_two();
        assert!(class_bytes <= CHUNK_BYTES, "a secret of {bytes} bytes: keys and schedules are far smaller");
        let class = (class_bytes / SMALLEST_CLASS).ilog2() as usize;
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free[class].is_empty() {
            free[class].extend(cut_chunk(class_bytes));
        }
        let slot = free[class].pop().expect("a chunk was just cut into at least one slot");
        Self { start: slot.0, class }
    }

    fn capacity(&self) -> usize {
        SMALLEST_CLASS << self.class
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the slot owns `capacity` initialised bytes at `start`, inside a mapping that is never unmapped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity()) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity()) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free[self.class].push(FreeSlot(self.start));
    }
}

/// Maps, locks and cuts one chunk; the mapping lives as long as the process.
fn cut_chunk(class_bytes: usize) -> Vec<FreeSlot> {
    let chunk = MmapMut::map_anon(CHUNK_BYTES).expect("64 KiB of anonymous memory can be had");
    if chunk.lock().is_err() {
        UNLOCKED_BYTES.fetch_add(CHUNK_BYTES, Ordering::Relaxed);
    }
    // Both exist since Linux 2.6.16 and 3.4; a kernel that refuses them still gives memory that is wiped.
    let _ = chunk.advise(Advice::DontDump);
    let _ = chunk.advise(Advice::DontFork);
    let chunk = Box::leak(Box::new(chunk));
    let (slots, _) = chunk.split_at_mut(CHUNK_BYTES);
    slots.chunks_exact_mut(class_bytes).map(|slot| FreeSlot(NonNull::from(slot).cast())).collect()
}

/// Moves `value` into the slot.
pub(super) fn emplace<T>(slot: &mut Slot, value: T) {
    check_fit::<T>(slot);
    // SAFETY: the slot is exclusively borrowed, large and aligned enough for a `T` (checked above).
    unsafe { slot.start.cast::<T>().write(value) }
}

/// The value that [`emplace`] put there.
pub(super) fn value<T>(slot: &Slot) -> &T {
    check_fit::<T>(slot);
    // SAFETY: only `SecretBox<T>` calls this, and only after `emplace::<T>` on the same slot, until `drop_value`.
    unsafe { slot.start.cast::<T>().as_ref() }
}

/// Runs the value's destructor; the slot's own drop wipes the bytes afterwards.
pub(super) fn drop_value<T>(slot: &mut Slot) {
    check_fit::<T>(slot);
    // SAFETY: `SecretBox<T>` calls this once, in its drop, for the value that `emplace::<T>` put there.
    unsafe { slot.start.cast::<T>().drop_in_place() }
}

fn check_fit<T>(slot: &Slot) {
    assert!(size_of::<T>() <= slot.capacity() && slot.start.addr().get().is_multiple_of(align_of::<T>()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a slot's memory after it was dropped: the mapping stays, so this is defined, and it must be zeros.
    #[test]
    fn dropped_slots_are_wiped_and_handed_out_zeroed() {
        let mut slot = Slot::take(100, 1);
        slot.bytes_mut().fill(0xa5);
        let address = slot.start;
        drop(slot);
        // SAFETY: chunks are never unmapped; another thread may only write while it holds the slot.
        let after = unsafe { std::slice::from_raw_parts(address.as_ptr(), 128) };
        assert!(!after.windows(16).any(|run| run == [0xa5; 16]));
    }

    #[test]
    fn slots_are_disjoint_and_left_out_of_core_dumps() {
        let slots: Vec<_> = (0..3000).map(|_| Slot::take(64, 64)).collect();
        let mut starts: Vec<_> = slots.iter().map(|slot| slot.start.addr().get()).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 64));
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let mut flags = None;
        for line in maps.lines() {
            let range = line.split(' ').next().unwrap_or("").split_once('-');
            if let Some((low, high)) = range
                && let (Ok(low), Ok(high)) = (usize::from_str_radix(low, 16), usize::from_str_radix(high, 16))
            {
                inside = (low..high).contains(&starts[0]);
            }
            if inside && line.starts_with("VmFlags:") {
                flags = Some(line.to_owned());
            }
        }
        let flags = flags.expect("the mapping is listed");
        assert!(flags.contains(" dd") && flags.contains(" dc"), "{flags}");
    }
}
