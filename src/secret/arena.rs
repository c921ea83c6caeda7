//! The locked pages behind [`super::SecretBytes`] and [`super::SecretBox`].
//!
//! Pages come from anonymous mappings of 64 KiB which stay for the life of the process and are cut into slots by size
//! class, since a page of its own for every 32-byte key would meet the limit on locked memory (`RLIMIT_MEMLOCK`, 8 MiB
//! on Debian) and cost a handful of system calls each. A slot is wiped before it returns to its free list. What is larger
//! than a chunk has a mapping of its own, which goes when it is dropped.
#![expect(unsafe_code, reason = "hands out disjoint slots of locked anonymous mappings")]

use std::alloc::{Layout, handle_alloc_error};
use std::mem::{align_of, size_of};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

use crate::twin::{self, Protection};

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
    capacity: usize,
    /// Of a slot larger than a chunk; dropped after the wipe.
    mapping: Option<MmapMut>,
}

// SAFETY: a slot owns its bytes alone, as a `Box<[u8]>` would.
unsafe impl Send for Slot {}
// SAFETY: shared access only reads, as with a `Box<[u8]>`.
unsafe impl Sync for Slot {}

impl Slot {
    /// A zeroed slot of at least `bytes` bytes whose address is a multiple of `align`, which may be a page at most. Where
    /// the system has no memory left the process ends, as with every allocation in Rust.
    pub(super) fn take(bytes: usize, align: usize) -> Self {
        let wanted = bytes.max(align).max(SMALLEST_CLASS);
        if wanted > CHUNK_BYTES {
            let mut mapping = map_secret(wanted);
            return Self { start: NonNull::from(&mut mapping[..]).cast(), capacity: wanted, mapping: Some(mapping) };
        }
        let class_bytes = wanted.next_power_of_two();
        let class = class_of(class_bytes);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free[class].is_empty() {
            free[class].extend(cut_chunk(class_bytes));
        }
        let slot = free[class].pop().expect("a chunk was just cut into at least one slot");
        Self { start: slot.0, capacity: class_bytes, mapping: None }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the slot owns `capacity` initialised bytes at `start`, inside a mapping that lives as long as the slot.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !twin::is_off(Protection::Wipe) {
            self.bytes_mut().zeroize();
        }
        if self.mapping.is_none() {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            free[class_of(self.capacity)].push(FreeSlot(self.start));
        }
    }
}

/// The index of the free list for slots of so many bytes, a power of two from [`SMALLEST_CLASS`] to [`CHUNK_BYTES`].
fn class_of(class_bytes: usize) -> usize {
    (class_bytes / SMALLEST_CLASS).ilog2() as usize
}

/// Zeroed memory of its own for secrets, locked, and left out of core dumps and forks.
fn map_secret(bytes: usize) -> MmapMut {
    let Ok(mapping) = MmapMut::map_anon(bytes) else {
        handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>()))
    };
    if twin::is_off(Protection::Lock) || mapping.lock().is_err() {
        UNLOCKED_BYTES.fetch_add(bytes, Ordering::Relaxed);
    }
    // Both exist since Linux 2.6.16 and 3.4; a kernel that refuses them still gives memory that is wiped.
    let _ = mapping.advise(Advice::DontDump);
    let _ = mapping.advise(Advice::DontFork);
    mapping
}

/// Maps and cuts one chunk, which lives as long as the process.
fn cut_chunk(class_bytes: usize) -> Vec<FreeSlot> {
    let chunk = Box::leak(Box::new(map_secret(CHUNK_BYTES)));
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

/// As [`value`], to be changed.
pub(super) fn value_mut<T>(slot: &mut Slot) -> &mut T {
    check_fit::<T>(slot);
    // SAFETY: as in `value`, and `&mut` makes the access exclusive.
    unsafe { slot.start.cast::<T>().as_mut() }
}

/// Runs the value's destructor; the slot's own drop wipes the bytes afterwards.
pub(super) fn drop_value<T>(slot: &mut Slot) {
    check_fit::<T>(slot);
    // SAFETY: `SecretBox<T>` calls this once, in its drop, for the value that `emplace::<T>` put there.
    unsafe { slot.start.cast::<T>().drop_in_place() }
}

fn check_fit<T>(slot: &Slot) {
    assert!(size_of::<T>() <= slot.capacity && slot.start.addr().get().is_multiple_of(align_of::<T>()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a slot's memory after it was dropped: the mapping stays, so this is defined, and it must be zeros. Without
    /// the wipe the secret is there.
    #[test]
    fn dropped_slots_are_wiped() {
        let left_behind = |filling: u8| {
            // A size that no other test takes, so that nobody else has the slot in between.
            let mut slot = Slot::take(20_000, 1);
            slot.bytes_mut().fill(filling);
            let address = slot.start;
            drop(slot);
            // SAFETY: chunks are never unmapped; another thread may only write while it holds the slot.
            let after = unsafe { std::slice::from_raw_parts(address.as_ptr(), 128) };
            after.contains(&filling)
        };
        assert!(!left_behind(0xa5));
        assert!(twin::without(Protection::Wipe, || left_behind(0xa6)));
        // The slot that was left as it was goes back clean.
        Slot::take(20_000, 1).bytes_mut().zeroize();
    }

    /// The `VmFlags` of the mapping at `address` (proc(5), `smaps`).
    fn flags_at(address: usize) -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().unwrap_or("").split_once('-');
            if let Some((low, high)) = range
                && let (Ok(low), Ok(high)) = (usize::from_str_radix(low, 16), usize::from_str_radix(high, 16))
            {
                inside = (low..high).contains(&address);
            }
            if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.split_whitespace().map(str::to_owned).collect();
            }
        }
        panic!("the mapping is not listed");
    }

    #[test]
    fn slots_are_disjoint_locked_and_left_out_of_core_dumps() {
        let slots: Vec<_> = (0..3000).map(|_| Slot::take(64, 64)).collect();
        let mut starts: Vec<_> = slots.iter().map(|slot| slot.start.addr().get()).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 64));
        let has = |flags: &[String], wanted: &str| flags.iter().any(|flag| flag == wanted);
        let flags = flags_at(starts[0]);
        assert!(["lo", "dd", "dc"].iter().all(|wanted| has(&flags, wanted)), "{flags:?}");

        // One of its own, larger than a chunk, without the lock: it is counted, and the flag is not there.
        let before = unlocked_bytes();
        let large = twin::without(Protection::Lock, || Slot::take(1_000_000, 1));
        let flags = flags_at(large.start.addr().get());
        assert!(!has(&flags, "lo") && has(&flags, "dd"), "{flags:?}");
        assert!(unlocked_bytes() >= before + 1_000_000);
    }

    #[test]
    fn a_secret_of_any_size_is_served() {
        for bytes in [CHUNK_BYTES, CHUNK_BYTES + 1, 100_000, 3 << 20] {
            let mut slot = Slot::take(bytes, 64);
            assert!(slot.bytes().len() >= bytes && slot.bytes().iter().all(|byte| *byte == 0));
            slot.bytes_mut().fill(1);
        }
    }
}
