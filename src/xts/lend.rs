//! Lends a run that only borrows its bytes to the threads of a pool, and takes it back without waiting for threads that have not
//! begun.
//!
//! A scope of `rayon` returns when every closure that it spawned has run. On a busy machine a helper may come milliseconds late,
//! to find the run long done; the caller would have waited for it all the same. Here helpers own their share of the queue's
//! memory, and the caller waits for nothing but pieces that somebody is working on.
#![expect(unsafe_code, reason = "one lifetime is extended, for as long as the borrower can be seen to hold on")]

use std::hint;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rayon::ThreadPool;

use super::parallel::Job;
use super::place::Place;

/// How long the caller waits awake for the last pieces of others: they take microseconds, to be woken takes longer.
const PATIENCE: Duration = Duration::from_micros(30);

/// Does `job` in pieces of about `piece` bytes, on this thread and on up to `helpers` threads of `pool`. It is done, and nobody
/// holds any of its bytes, when this returns.
pub(super) fn share(pool: &ThreadPool, places: &Arc<[Place]>, helpers: usize, job: Job<'_>, piece: usize) {
    // SAFETY: the types differ in a lifetime alone, which is that of the caller's buffers and ciphers. Pieces of the job exist in
    // two places: in the queue, and in `Queue::work` on the stack of a thread that is counted in `at_work` until the piece was
    // consumed. `Recall` empties the first and waits for the second before this function returns or unwinds, so no piece outlives
    // the borrow.
    let job = unsafe { mem::transmute::<Job<'_>, Job<'static>>(job) };
    let queue =
        Arc::new(Queue { state: Mutex::new(State { rest: Some(job), at_work: 0 }), all_done: Condvar::new(), piece });
    let _recall = Recall(&queue);
    for _ in 0..helpers {
        let (queue, places) = (Arc::clone(&queue), Arc::clone(places));
        pool.spawn(move || {
            if let Some(place) = rayon::current_thread_index().and_then(|index| places.get(index)) {
                place.remember();
            }
            queue.work();
        });
    }
    queue.work();
}

struct Queue {
    state: Mutex<State>,
    all_done: Condvar,
    piece: usize,
}

struct State {
    /// What nobody has taken yet.
    rest: Option<Job<'static>>,
    /// Pieces that were taken and are not done.
    at_work: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes and does pieces until none is left.
    fn work(&self) {
        loop {
            let piece = {
                let mut state = self.lock();
                let Some(job) = state.rest.take() else { return };
                let (piece, after) = job.next_piece(self.piece);
                state.rest = after;
                state.at_work += 1;
                piece
            };
            let _at_work = AtWork(self);
            piece.run();
        }
    }
}

/// Counts a piece out when it was consumed, also by a panic.
struct AtWork<'a>(&'a Queue);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.at_work -= 1;
        if state.at_work == 0 && state.rest.is_none() {
            self.0.all_done.notify_all();
        }
    }
}

/// Takes back what was lent.
struct Recall<'a>(&'a Queue);

impl Drop for Recall<'_> {
    fn drop(&mut self) {
        let Self(queue) = self;
        queue.lock().rest = None;
        let begin = Instant::now();
        while queue.lock().at_work > 0 && begin.elapsed() < PATIENCE {
            for _ in 0..64 {
                hint::spin_loop();
            }
        }
        let mut state = queue.lock();
        while state.at_work > 0 {
            state = queue.all_done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::secret::SecretBytes;
    use crate::units::{SectorSize, UnitIndex};
    use crate::xts::parallel::Data;
    use crate::xts::{Direction, EngineChoice, XtsCipher};

    fn places() -> Arc<[Place]> {
        Arc::new([])
    }

    /// A pool whose only thread is busy for good must not hold up a run, and that thread must find nothing of it later.
    #[test]
    fn a_run_does_not_wait_for_a_helper_that_never_begins() {
        let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (release, held) = mpsc::channel::<()>();
        pool.spawn(move || held.recv().unwrap());
        let cipher = XtsCipher::new(&SecretBytes::random(64).unwrap(), EngineChoice::Auto).unwrap();
        let mut expected = vec![7; 1 << 16];
        cipher.encrypt_in_place(SectorSize::B512, UnitIndex(3), &mut expected).unwrap();
        let mut data = vec![7; 1 << 16];
        let place = Data::InPlace(&mut data);
        share(
            &pool,
            &places(),
            1,
            Job::new(&cipher, Direction::Encrypt, SectorSize::B512, UnitIndex(3), place).unwrap(),
            4096,
        );
        assert!(data == expected);
        drop((data, cipher));
        release.send(()).unwrap();
        pool.install(|| ());
    }

    #[test]
    fn many_runs_at_once_share_one_pool() {
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let cipher = XtsCipher::new(&SecretBytes::random(64).unwrap(), EngineChoice::Auto).unwrap();
        let mut expected = vec![9; 1 << 16];
        cipher.encrypt_in_place(SectorSize::B4096, UnitIndex(0), &mut expected).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut data = vec![9; 1 << 16];
                        let place = Data::InPlace(&mut data);
                        let job = Job::new(&cipher, Direction::Encrypt, SectorSize::B4096, UnitIndex(0), place);
                        share(&pool, &places(), 3, job.unwrap(), 4096);
                        assert!(data == expected);
                    }
                });
            }
        });
    }
}
