//! Keeps the threads of a pool off the processor of the thread that they help.
//!
//! A helper is woken for some tens of microseconds, again and again, by a thread that goes on working. Linux wakes a thread where it ran
//! last unless it looks for an idle processor, and it does not look on a machine with few of them of which more than about
//! half are busy. A helper that once ran on its caller's processor then comes there every time, milliseconds late, beside an
//! idle one. So a helper that was last seen there is forbidden that one processor; nothing else about where it runs is decided.

use std::sync::atomic::{AtomicI32, Ordering};

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// Where a helper of a pool is.
#[derive(Debug)]
pub(super) struct Place {
    /// Its thread id; 0 until it has begun.
    thread: AtomicI32,
    /// The processor on which it last worked; -1 if that is not known.
    processor: AtomicI32,
}

impl Place {
    pub(super) const fn unknown() -> Self {
        Self { thread: AtomicI32::new(0), processor: AtomicI32::new(-1) }
    }

    /// Remembers the calling thread, a helper that has something to do.
    pub(super) fn remember(&self) {
        self.thread.store(gettid().as_raw(), Ordering::Relaxed);
        self.processor.store(processor(), Ordering::Relaxed);
    }

    /// Sends the helper away from the calling thread's processor if it was last seen there.
    pub(super) fn leave_to_caller(&self) {
        let (thread, own) = (self.thread.load(Ordering::Relaxed), processor());
        if thread == 0 || own < 0 || self.processor.load(Ordering::Relaxed) != own {
            return;
        }
        self.processor.store(-1, Ordering::Relaxed);
        // Without this it is slower and nothing else, so whatever is refused is left.
        let Ok(own) = usize::try_from(own) else { return };
        let Ok(mut others) = sched_getaffinity(Pid::from_raw(0)) else { return };
        if others.unset(own).is_ok() && (0..CpuSet::count()).any(|other| others.is_set(other).unwrap_or(false)) {
            let _ = sched_setaffinity(Pid::from_raw(thread), &others);
        }
    }
}

fn processor() -> i32 {
    sched_getcpu().ok().and_then(|processor| i32::try_from(processor).ok()).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// The processors that a helper may use after its caller, on processor `own`, has looked for it, when it was last seen on the
    /// processor that `seen` makes of that.
    fn after_a_look(seen: impl Fn(i32) -> i32) -> (i32, CpuSet) {
        loop {
            let place = Place::unknown();
            let (release, held) = mpsc::channel::<()>();
            let (own, allowed) = thread::scope(|scope| {
                let (ready, begun) = mpsc::channel();
                let place = &place;
                scope.spawn(move || {
                    place.remember();
                    ready.send(()).unwrap();
                    held.recv().unwrap();
                });
                begun.recv().unwrap();
                let own = processor();
                place.processor.store(seen(own), Ordering::Relaxed);
                place.leave_to_caller();
                let stayed = processor() == own;
                let helper = Pid::from_raw(place.thread.load(Ordering::Relaxed));
                let allowed = sched_getaffinity(helper).unwrap();
                release.send(()).unwrap();
                (stayed.then_some(own), allowed)
            });
            // A caller that was itself moved in between tells nothing.
            if let Some(own) = own {
                return (own, allowed);
            }
        }
    }

    #[test]
    fn a_helper_on_its_callers_processor_is_sent_away_and_no_other() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let (own, allowed) = after_a_look(|own| own);
        let mut others = before;
        others.unset(usize::try_from(own).unwrap()).unwrap();
        // On a machine with one processor there is nowhere to go.
        let several = (0..CpuSet::count()).any(|processor| others.is_set(processor).unwrap());
        assert_eq!(allowed, if several { others } else { before });
        assert_eq!(after_a_look(|own| own + 1).1, before);
        assert_eq!(after_a_look(|_| -1).1, before);
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), before, "the caller itself is never bound");
    }
}
