//! Whose turn it is to be the next writer, so that a process that writes all the time leaves the others in.
//!
//! SQLite's waiting writers look again after a pause, and miss the moment in which a busy one lets go. So whoever wants to
//! begin holds this lock meanwhile: the busy one cannot begin its next transaction before the waiting one had his. The lock
//! is on the home's directory (flock(2)), and a courtesy: nothing is wrong without it.

use std::cell::RefCell;
use std::fs::File;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::dir::{DirError, HomeDir};

/// Nobody waits longer for his turn: its holder may have been stopped.
const PATIENCE: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_micros(500);

#[derive(Debug)]
pub(super) struct Turn(RefCell<Option<File>>);

impl Turn {
    pub(super) fn of(dir: &HomeDir) -> Result<Self, DirError> {
        Ok(Self(RefCell::new(Some(dir.open_file(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?))))
    }

    /// Runs `begin` in its turn.
    pub(super) fn take<T>(&self, begin: impl FnOnce() -> T) -> T {
        let Some(mut file) = self.0.borrow_mut().take() else { return begin() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    let answer = begin();
                    *self.0.borrow_mut() = lock.unlock().ok();
                    return answer;
                }
                Err((back, _)) if Instant::now() < deadline => file = back,
                Err((back, _)) => {
                    *self.0.borrow_mut() = Some(back);
                    return begin();
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{Home, StoreError, set_setting};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    /// One handle writes without a pause, another now and then: at most the transaction that is running and one that was
    /// begun at the same moment come before it.
    #[test]
    fn whoever_waits_is_next() {
        let base = tempfile::tempdir().unwrap();
        let open = || Home::open(&base.path().join("home")).unwrap();
        let (busy, other) = (open(), open());
        let (written, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    busy.write_together(|tx| {
                        std::thread::sleep(Duration::from_millis(5));
                        written.fetch_add(1, Ordering::SeqCst);
                        set_setting(tx, "busy", "1")
                    })
                    .unwrap();
                }
            });
            let before = || {
                std::thread::sleep(Duration::from_millis(20));
                let asked = written.load(Ordering::SeqCst);
                other.write(|_| Ok::<_, StoreError>(written.load(Ordering::SeqCst) - asked)).unwrap()
            };
            let most = (0..20).map(|_| before()).max();
            done.store(true, Ordering::SeqCst);
            assert!(most <= Some(3), "{most:?} transactions came before one that waited");
        });
    }
}
