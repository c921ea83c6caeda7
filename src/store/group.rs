//! Group commit: the callers of one process share a transaction, and wait together for its one flush.
//!
//! Callers take turns: each runs its body alone, between savepoints of its own, in the transaction that the first of them
//! began. The last one commits; nobody has an answer before. Whether somebody else is about to come is not known, so the
//! first one waits for as many as there were in the group before, and no longer than the last commit took: a caller alone
//! commits at once.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::line::Head;
use super::memo::{Jobs, Memo};
use super::turn::Turn;
use super::{Body, Home, StoreError, Transaction, database, once};
use crate::twin::{self, Protection};

/// Most callers of a group.
const MOST: usize = 256;

/// Longest time for which a group is kept open for others, so that other processes get their turn.
const LONGEST: Duration = if cfg!(test) { Duration::from_secs(10) } else { Duration::from_millis(10) };

/// The connection and the group that has its transaction, if one is open.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) memo: Memo,
    pub(super) jobs: Jobs,
    pub(super) turn: Turn,
    open: Option<Open>,
    /// Callers in the group before: so many are expected.
    expected: usize,
    /// How long the last commit took.
    commit_took: Duration,
}

#[derive(Debug)]
struct Open {
    outcome: Arc<Outcome>,
    members: usize,
    since: Instant,
}

/// What became of a group; `None` while it is open.
#[derive(Debug, Default)]
struct Outcome {
    ended: Mutex<Option<Result<(), Arc<StoreError>>>>,
    told: Condvar,
}

impl Outcome {
    fn tell(&self, outcome: Result<(), Arc<StoreError>>) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.told.notify_all();
    }

    /// Waits, `patience` long or as long as it takes.
    fn wait(&self, patience: Option<Duration>) -> Option<Result<(), Arc<StoreError>>> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |ended: &mut Option<_>| ended.is_none();
        match patience {
            None => self.told.wait_while(ended, is_open).unwrap_or_else(PoisonError::into_inner).clone(),
            Some(patience) => {
                let waited = self.told.wait_timeout_while(ended, patience, is_open);
                waited.unwrap_or_else(PoisonError::into_inner).0.clone()
            }
        }
    }
}

impl Writer {
    pub(super) fn new(connection: Connection, turn: Turn) -> Self {
        Self {
            connection,
            memo: Memo::default(),
            jobs: Jobs::default(),
            turn,
            open: None,
            expected: 1,
            commit_took: Duration::ZERO,
        }
    }

    pub(super) fn transaction(&self) -> Transaction<'_> {
        Transaction { connection: &self.connection, memo: &self.memo, jobs: &self.jobs }
    }

    /// How long a group stays open for others while nobody is there: no longer than the commit that they save.
    fn patience(&self) -> Duration {
        self.commit_took.min(LONGEST)
    }

    fn run(&self, statement: &str) -> Result<(), rusqlite::Error> {
        self.connection.prepare_cached(statement)?.execute([]).map(drop)
    }
}

impl Home {
    /// As [`Home::write`], in one transaction with the callers that come at the same time: its changes are durable when
    /// this returns `Ok`, and undone when `body` fails; the others' are not touched by that.
    ///
    /// What other bodies of the transaction changed before is seen by `body`, though their callers have no answer yet.
    ///
    /// # Errors
    /// `body`'s; the store's, if the transaction cannot be begun or committed: of the whole group nothing happened then.
    pub fn write_together<T, E: From<StoreError>>(
        &self,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        if twin::is_off(Protection::OneWriter) {
            return self.write(body);
        }
        once(body, |body| self.write_member(body))
    }

    /// Runs `body`, which says whether its changes are to be kept, and waits until they are durable.
    fn write_member(&self, body: Body<'_>) -> Result<(), StoreError> {
        let (head, mut writer) = self.take_writer();
        let (outcome, first) = self.join(&mut writer)?;
        let ran = self.run_member(&mut writer, body);
        if !matches!(ran, Ok(Ok(true))) {
            // There is nothing to wait for. Others of the group go on.
            self.end_if_ready(&mut writer);
            drop(writer);
            drop(head);
            return ran.unwrap_or_else(|panic| resume_unwind(panic)).map(drop);
        }
        if let Some(open) = &mut writer.open {
            open.members += 1;
        }
        if twin::is_off(Protection::DurableAnswer) {
            return Ok(());
        }
        self.end_if_ready(&mut writer);
        let patience = first.then(|| writer.patience());
        drop(writer);
        drop(head);
        let ended = outcome.wait(patience).or_else(|| {
            let (head, mut writer) = self.take_writer();
            if writer.open.as_ref().is_some_and(|open| Arc::ptr_eq(&open.outcome, &outcome)) {
                self.end_group(&mut writer);
            }
            drop(writer);
            drop(head);
            outcome.wait(None)
        });
        ended.unwrap_or(Err(Arc::new(StoreError::Undone))).map_err(|error| again(&error))
    }

    /// The connection without an open group: that one is committed first.
    pub(super) fn alone(&self) -> (Head<'_>, MutexGuard<'_, Writer>) {
        let (head, mut writer) = self.take_writer();
        self.end_group(&mut writer);
        (head, writer)
    }

    /// The writer, once it is this caller's turn. The guard goes before the place in the line.
    fn take_writer(&self) -> (Head<'_>, MutexGuard<'_, Writer>) {
        let head = self.line.stand();
        // A panic of whoever had it before was caught, or rolled its transaction back.
        (head, self.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins a group if none is open; tells whether it did.
    fn join(&self, writer: &mut Writer) -> Result<(Arc<Outcome>, bool), StoreError> {
        if let Some(open) = &writer.open {
            return Ok((open.outcome.clone(), false));
        }
        self.ballast.look();
        let failed = |error| database::failure(&writer.connection, &self.dir, error);
        writer.turn.take(|| writer.run("BEGIN IMMEDIATE")).map_err(failed)?;
        if let Err(error) = writer.memo.begin(&writer.connection) {
            let _ = writer.run("ROLLBACK");
            return Err(error);
        }
        writer.jobs.cut(0);
        let outcome = Arc::new(Outcome::default());
        writer.open = Some(Open { outcome: outcome.clone(), members: 0, since: Instant::now() });
        Ok((outcome, true))
    }

    /// Runs one body between savepoints, and tells whether its changes are kept. A failure or a panic undoes what it did and
    /// nothing else.
    fn run_member(&self, writer: &mut Writer, body: Body<'_>) -> std::thread::Result<Result<bool, StoreError>> {
        let failed = |writer: &Writer, error| database::failure(&writer.connection, &self.dir, error);
        if let Err(error) = writer.run("SAVEPOINT member") {
            return Ok(Err(failed(writer, error)));
        }
        let jobs = writer.jobs.count();
        // A panic leaves nothing half done: the savepoint undoes all that the body did to the state.
        let ran = catch_unwind(AssertUnwindSafe(|| body(&writer.transaction())));
        let kept = matches!(ran, Ok(true));
        let undone = if kept { Ok(()) } else { writer.run("ROLLBACK TO member") };
        if !kept {
            writer.memo.forget();
            writer.jobs.cut(jobs);
        }
        let ended = undone.and_then(|()| writer.run("RELEASE member"));
        // SQLite rolls the whole transaction back where it cannot go on (disk full): nothing of the group is left.
        if writer.connection.is_autocommit() {
            self.ballast.look();
            writer.memo.end(&writer.connection, false);
            writer.jobs.cut(0);
            if let Some(open) = writer.open.take() {
                open.outcome.tell(Err(Arc::new(StoreError::Undone)));
            }
        }
        match (ended, ran) {
            (Err(error), Ok(true)) => Ok(Err(failed(writer, error))),
            (_, ran) => ran.map(Ok),
        }
    }

    /// Commits the group unless somebody waits for a turn in it or is likely to come.
    fn end_if_ready(&self, writer: &mut Writer) {
        let Some(open) = &writer.open else { return };
        let age = open.since.elapsed();
        let is_whole = open.members >= writer.expected || age >= writer.patience();
        if is_whole && self.line.length() == 0 || open.members == 0 || open.members >= MOST || age >= LONGEST {
            self.end_group(writer);
        }
    }

    /// Commits the open group and tells its members; none is open afterwards.
    fn end_group(&self, writer: &mut Writer) {
        let Some(open) = writer.open.take() else { return };
        if open.members == 0 {
            writer.memo.end(&writer.connection, false);
            let _ = writer.run("ROLLBACK");
            return;
        }
        let begun = Instant::now();
        let failed = |error| database::failure(&writer.connection, &self.dir, error);
        // Whatever happens, the members must hear of it.
        let done = catch_unwind(AssertUnwindSafe(|| writer.jobs.run(&writer.transaction())));
        let committed = done.unwrap_or(Err(StoreError::Undone)).and_then(|()| writer.run("COMMIT").map_err(failed));
        writer.commit_took = begun.elapsed();
        writer.expected = open.members;
        writer.memo.end(&writer.connection, committed.is_ok());
        let committed = committed.map_err(|error| {
            if matches!(error, StoreError::Full(_)) {
                // For the next command: this one was undone.
                self.ballast.give_up();
            }
            if !writer.connection.is_autocommit() {
                let _ = writer.run("ROLLBACK");
            }
            Arc::new(error)
        });
        open.outcome.tell(committed);
    }
}

/// The same error once more, for another member of the group.
fn again(error: &StoreError) -> StoreError {
    let copy = |error: &rusqlite::Error| match error {
        rusqlite::Error::SqliteFailure(code, message) => rusqlite::Error::SqliteFailure(*code, message.clone()),
        other => rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR),
            Some(other.to_string()),
        ),
    };
    match error {
        StoreError::ReadOnly(error) => StoreError::ReadOnly(copy(error)),
        StoreError::CannotOpen(error) => StoreError::CannotOpen(copy(error)),
        StoreError::TooManyFiles(error) => StoreError::TooManyFiles(copy(error)),
        StoreError::Full(error) => StoreError::Full(copy(error)),
        StoreError::Busy(error) => StoreError::Busy(copy(error)),
        StoreError::Undone => StoreError::Undone,
        StoreError::Sqlite(error) => StoreError::Sqlite(copy(error)),
        StoreError::Damaged { path, source } => StoreError::Damaged { path: path.clone(), source: copy(source) },
        other => StoreError::Sqlite(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR),
            Some(other.to_string()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power_cut::{Disk, comes_to};
    use crate::store::{set_setting, setting};
    use crate::twin::without;

    fn temporary() -> (tempfile::TempDir, Home) {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        (base, home)
    }

    /// Runs the body `0` to `count - 1` in one group: the first waits in its turn until all others wait for theirs.
    fn in_one_group(
        home: &Home,
        count: usize,
        body: impl Fn(usize, &Transaction<'_>) -> Result<(), StoreError> + Sync,
    ) -> Vec<std::thread::Result<Result<(), StoreError>>> {
        let run = |number: usize| {
            home.write_together(|tx| {
                while number == 0 && home.line.length() < count - 1 {
                    std::thread::yield_now();
                }
                body(number, tx)
            })
        };
        std::thread::scope(|scope| {
            let first = scope.spawn(|| run(0));
            while home.writer.try_lock().is_ok() {
                std::thread::yield_now();
            }
            let others: Vec<_> = (1..count).map(|number| scope.spawn(move || run(number))).collect();
            std::iter::once(first).chain(others).map(std::thread::ScopedJoinHandle::join).collect()
        })
    }

    fn settings(home: &Home) -> Vec<bool> {
        let is_set = |number: usize| home.read(|tx| setting(tx, &number.to_string())).unwrap().is_some();
        (0..8).map(is_set).collect()
    }

    #[test]
    fn callers_at_once_share_a_transaction() {
        let (base, home) = temporary();
        let other = Mutex::new(Home::open(&base.path().join("home")).unwrap());
        let outcomes = in_one_group(&home, 8, |number, tx| {
            set_setting(tx, &number.to_string(), "1")?;
            assert_eq!(settings(&other.lock().unwrap()), [false; 8], "nothing of the others is committed yet");
            Ok(())
        });
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Ok(())))));
        assert_eq!(settings(&other.lock().unwrap()), [true; 8]);
    }

    #[test]
    fn a_body_that_fails_or_panics_undoes_its_own_changes_alone() {
        let (_base, home) = temporary();
        let outcomes = in_one_group(&home, 8, |number, tx| {
            set_setting(tx, &number.to_string(), "1")?;
            match number {
                3 => Err(StoreError::NotOurs(String::new())),
                5 => panic!("a body that panics"),
                _ => Ok(()),
            }
        });
        for (number, outcome) in outcomes.iter().enumerate() {
            let as_wanted = match number {
                3 => matches!(outcome, Ok(Err(StoreError::NotOurs(_)))),
                5 => outcome.is_err(),
                _ => matches!(outcome, Ok(Ok(()))),
            };
            assert!(as_wanted, "{number}: {outcome:?}");
        }
        assert_eq!(settings(&home), [0, 1, 2, 3, 4, 5, 6, 7].map(|number| number != 3 && number != 5));
        assert!(matches!(home.write_together(|_| Err::<(), _>(StoreError::Scarce)), Err(StoreError::Scarce)));
    }

    /// The commit finds that a tag belongs to no volume: nobody's change is kept, and everybody hears it.
    #[test]
    fn a_commit_that_fails_fails_for_all() {
        let (_base, home) = temporary();
        let outcomes = in_one_group(&home, 8, |number, tx| {
            set_setting(tx, &number.to_string(), "1")?;
            if number == 4 {
                tx.execute_batch(
                    "PRAGMA defer_foreign_keys = ON; INSERT INTO volume_tags VALUES ('vol-none', 'a', 'b')",
                )?;
            }
            Ok(())
        });
        for outcome in outcomes {
            let error = outcome.unwrap().unwrap_err();
            assert!(format!("{error:?}").contains("FOREIGN KEY"), "{error:?}");
        }
        assert_eq!(settings(&home), [false; 8]);
        home.write_together(|tx| set_setting(tx, "0", "1")).unwrap();
        assert!(settings(&home)[0]);
    }

    /// The power goes when every caller has its answer. In the twin the answers leave before the commit.
    #[test]
    fn an_answer_leaves_when_its_group_is_durable() {
        let kept = |off: bool| {
            let disk = Disk::ext4(64);
            let home = Home::open(&disk.path().join("home")).unwrap();
            disk.settle();
            let run = |number: usize| home.write_together(|tx| set_setting(tx, &number.to_string(), "1"));
            std::thread::scope(|scope| {
                for number in 0..8 {
                    scope.spawn(move || {
                        let answered =
                            if off { without(Protection::DurableAnswer, || run(number)) } else { run(number) };
                        answered.unwrap();
                    });
                }
            });
            let after = disk.after_a_cut();
            settings(&Home::open(&after.path().join("home")).unwrap())
        };
        assert_eq!(kept(false), [true; 8]);
        comes_to(&vec![false; 8], || kept(true));
    }
}
