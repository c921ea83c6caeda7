//! Locks on ranges of bytes: overlapping requests of which one writes go one after the other, in the order they came.
//!
//! A request takes its one lock on the thread that serves it, before any of its work is handed to a pool, and no job in
//! a pool takes one: a pool whose workers all wait for a lock would never run the job that releases it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::units::ByteRange;

/// The locks of one device.
#[derive(Debug, Default)]
pub(crate) struct RangeLocks {
    queue: Mutex<Queue>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    next_ticket: u64,
    /// In order of arrival, held and waiting.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    range: ByteRange,
    exclusive: bool,
}

/// A held lock, released when dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct RangeGuard<'l> {
    locks: &'l RangeLocks,
    ticket: u64,
}

impl RangeLocks {
    /// Waits until no request that came earlier writes into `range`.
    pub(crate) fn shared(&self, range: ByteRange) -> RangeGuard<'_> {
        self.acquire(range, false)
    }

    /// Waits until no request that came earlier reads or writes in `range`.
    pub(crate) fn exclusive(&self, range: ByteRange) -> RangeGuard<'_> {
        self.acquire(range, true)
    }

    fn acquire(&self, range: ByteRange, exclusive: bool) -> RangeGuard<'_> {
        let mut queue = self.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.entries.push(Entry { ticket, range, exclusive });
        // Also those that still wait count: a stream of readers never starves a writer.
        while queue
            .entries
            .iter()
            .take_while(|entry| entry.ticket != ticket)
            .any(|entry| (entry.exclusive || exclusive) && entry.range.overlaps(range))
        {
            queue = self.released.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        RangeGuard { locks: self, ticket }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        self.locks.lock().entries.retain(|entry| entry.ticket != self.ticket);
        self.locks.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn readers_share_and_disjoint_writers_do_not_wait() {
        let locks = RangeLocks::default();
        let _first = locks.shared(range(0, 100));
        let _second = locks.shared(range(50, 150));
        let _third = locks.exclusive(range(150, 200));
        let _empty = locks.exclusive(range(10, 10));
    }

    #[test]
    fn a_writer_waits_for_readers_and_later_readers_wait_for_it() {
        let locks = RangeLocks::default();
        let step = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let reader = locks.shared(range(0, 100));
            let writer = scope.spawn(|| {
                let _guard = locks.exclusive(range(99, 300));
                step.fetch_add(1, Ordering::SeqCst)
            });
            while locks.lock().entries.len() < 2 {
                std::thread::yield_now();
            }
            let late_reader = scope.spawn(|| {
                let _guard = locks.shared(range(200, 201));
                step.fetch_add(1, Ordering::SeqCst)
            });
            while locks.lock().entries.len() < 3 {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(step.load(Ordering::SeqCst), 0);
            drop(reader);
            assert_eq!(writer.join().unwrap(), 0);
            assert_eq!(late_reader.join().unwrap(), 1);
        });
        assert!(locks.lock().entries.is_empty());
    }
}
