//! What is due by the clock, done in due order and exactly once.

use std::collections::HashMap;

use crate::clock::Time;
use crate::store::{self, Home, StoreError, Transaction};
use crate::twin::{self, Protection};

use super::ServiceError;

/// Set in the transaction that overwrites key material, cleared once the write-ahead log is truncated: a crash in between
/// leaves it for the next operation to see.
const TRUNCATION_DUE: &str = "log_truncation_due";

/// One kind of thing that becomes due, such as the deletion of a key.
///
/// Both functions run inside the one writing transaction of an operation, so of two processes only one finds a thing due.
#[derive(Clone, Copy, Debug)]
pub struct Settler {
    /// When the earliest thing of this kind is due; `None` if nothing waits.
    pub next_due: fn(&Transaction<'_>) -> Result<Option<Time>, StoreError>,
    /// Does the earliest thing of this kind, which was due at the given time, and takes it off its list.
    pub settle_one: fn(&Home, &Transaction<'_>, Time) -> Result<Settled, ServiceError>,
}

/// What became of a thing that was due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It is done.
    Done,
    /// It cannot be done now, for want of something that only the user can give: everything of its kind waits.
    Later,
}

/// Does everything that is due now in `settlers`, in a transaction of its own. For `clock advance`, the supervisors and
/// the server; operations do it on their own.
pub fn settle(home: &Home, settlers: &[Settler]) -> Result<(), ServiceError> {
    let truncate = home.write(|tx| {
        settle_in(home, tx, store::clock(tx)?.now(), settlers)?;
        truncation_due(tx).map_err(ServiceError::from)
    })?;
    if truncate { finish_truncation(home) } else { Ok(()) }
}

/// Until when nothing is due, for so many calls more, by the place of the settlers.
#[derive(Default)]
struct Quiet(HashMap<usize, (Time, u32)>);

/// After so many calls it is looked again: their records may make a log file due before its time.
const CALLS: u32 = 256;

/// Records that are appended make a log file due at the end of their five minutes.
const SECONDS: i64 = 300;

/// Does everything that is due at `now`, in due order over all kinds; of two kinds due at once the earlier listed first.
pub(super) fn settle_in(
    home: &Home,
    tx: &Transaction<'_>,
    now: Time,
    settlers: &[Settler],
) -> Result<(), ServiceError> {
    let place = settlers.as_ptr().addr();
    let is_quiet = tx.remembered(|quiet: &mut Quiet| match quiet.0.get_mut(&place) {
        Some((until, calls)) if now < *until && *calls > 0 => {
            *calls -= 1;
            true
        }
        _ => false,
    });
    if is_quiet {
        return Ok(());
    }
    let mut waiting = vec![false; settlers.len()];
    loop {
        let mut earliest: Option<(Time, usize)> = None;
        let mut until = now.next_multiple_of(SECONDS);
        for (index, settler) in settlers.iter().enumerate().filter(|(index, _)| !waiting[*index]) {
            let Some(due) = (settler.next_due)(tx)? else { continue };
            if due > now {
                until = until.min(due);
            } else if earliest.is_none_or(|(time, _)| due < time) {
                earliest = Some((due, index));
            }
        }
        let Some((due, index)) = earliest else {
            // What waits for its user is looked at each time.
            if !waiting.contains(&true) {
                tx.remembered(|quiet: &mut Quiet| quiet.0.insert(place, (until, CALLS)));
            }
            return Ok(());
        };
        waiting[index] = (settlers[index].settle_one)(home, tx, due)? == Settled::Later;
    }
}

/// Notes that the write-ahead log must be truncated after this transaction, because it holds what was just overwritten.
pub fn require_truncation(tx: &Transaction<'_>) -> Result<(), StoreError> {
    store::set_setting(tx, TRUNCATION_DUE, "1")
}

/// Whether a truncation is due.
#[derive(Clone)]
struct Due(bool);

pub(super) fn truncation_due(tx: &Transaction<'_>) -> Result<bool, StoreError> {
    let due = tx.recall("", || store::setting(tx, TRUNCATION_DUE).map(|set| Due(set.as_deref() == Some("1"))))?;
    Ok(due.0)
}

/// Truncates the log and notes that it is done. A reader in another process can put it off: the note then stays, and the
/// next operation tries again.
pub(super) fn finish_truncation(home: &Home) -> Result<(), ServiceError> {
    if twin::is_off(Protection::LogTruncation) {
        return Ok(());
    }
    match home.truncate_log() {
        Ok(()) => home.write(|tx| store::set_setting(tx, TRUNCATION_DUE, "0").map_err(ServiceError::from)),
        Err(StoreError::Busy(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::without;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    static BEGUN: AtomicUsize = AtomicUsize::new(0);

    /// Due once, an hour ago. Whoever does it waits a while for another who does it too.
    const ONCE: Settler = Settler {
        next_due: |tx| match store::setting(tx, "done")? {
            Some(_) => Ok(None),
            None => Ok(Some(store::clock(tx)?.now().after(jiff::SignedDuration::from_hours(-1)))),
        },
        settle_one: |_, tx, _| {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            // Where nothing keeps the other out he is waited for, however busy the machine is.
            let patience = if twin::is_off(Protection::OneWriter) { 20_000 } else { 500 };
            let deadline = Instant::now() + Duration::from_millis(patience);
            while BEGUN.load(Ordering::SeqCst) < 2 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            store::set_setting(tx, "done", "yes")?;
            Ok(Settled::Done)
        },
    };

    /// Two handles on one home, as two processes have them, settle at once: how often the due thing was begun.
    fn begun_by_two(off: bool) -> usize {
        BEGUN.store(0, Ordering::SeqCst);
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("home");
        drop(Home::open(&path).unwrap());
        let both = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let home = Home::open(&path).unwrap();
                    both.wait();
                    if off {
                        // One of them hears that the state changed under it; what it began is begun all the same.
                        let _ = without(Protection::OneWriter, || settle(&home, &[ONCE]));
                    } else {
                        settle(&home, &[ONCE]).unwrap();
                    }
                });
            }
        });
        BEGUN.load(Ordering::SeqCst)
    }

    #[test]
    fn of_two_processes_one_does_what_is_due() {
        assert_eq!(begun_by_two(false), 1);
        assert_eq!(begun_by_two(true), 2);
    }
}
