//! The home's state: a SQLite database that several processes use at once, and the [`Home`] that holds it.
//!
//! Write-ahead log, `synchronous=FULL`, `secure_delete=ON`, and `BEGIN IMMEDIATE` for every write, so that two processes
//! never read the same state and both change it. The tables are in `schema.sql`, the modules that own them above.

mod ballast;
mod database;
mod errno;
mod group;
mod line;
mod memo;
mod scratch;
mod turn;

use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use jiff::SignedDuration;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior};

use crate::clock::{Clock, Time};
use crate::dir::{DirError, HomeDir};
use crate::secret::SecretBytes;
use crate::twin::{self, Protection};

use ballast::Ballast;
use group::Writer;
use line::Line;
use memo::{Jobs, Memo};
use scratch::Scratch;
use turn::Turn;

/// The schema that this program writes; a home with a higher number was made by a newer one and is refused.
pub const SCHEMA_VERSION: u32 = 1;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The home directory itself.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The home was made by a newer program.
    #[error(
        "the home {home} has state of version {found}, and this program knows versions up to {SCHEMA_VERSION}; use the newer blockseal that made it"
    )]
    NewerSchema {
        /// Path of the home.
        home: String,
        /// The version found there.
        found: u32,
    },
    /// The file is a SQLite database of some other program.
    #[error("{0} is not the state of a Blockseal home")]
    NotOurs(String),
    /// The state is missing or empty, and something in the home needs it.
    #[error(
        "{state} is {found}, and {witness} shows that this home was in use; restore {state} from a backup, or move the home away to begin a new one"
    )]
    StateMissing {
        /// Path of the state.
        state: String,
        /// `missing` or `empty`.
        found: &'static str,
        /// What is there.
        witness: String,
    },
    /// SQLite finds the state malformed.
    #[error(
        "{path} is damaged; move it away with its -wal and -shm and restore it from a backup: nothing else repairs it"
    )]
    Damaged {
        /// Path of the state.
        path: String,
        /// SQLite's words for it.
        source: rusqlite::Error,
    },
    /// The home cannot be written.
    #[error(
        "the home cannot be written (read-only file system or permissions); every operation leaves a record and needs to write"
    )]
    ReadOnly(#[source] rusqlite::Error),
    /// A file of the state cannot be opened, for a reason that SQLite does not give.
    #[error("a file of the home's state cannot be opened")]
    CannotOpen(#[source] rusqlite::Error),
    /// This process or the whole system has as many files open as it may have.
    #[error("too many open files: raise the limit (ulimit -n) or close something")]
    TooManyFiles(#[source] rusqlite::Error),
    /// A file of the state is a symbolic link, which may lead anywhere.
    #[error(
        "a file of the home's state is a symbolic link, and no link is followed in a home; put the file itself there"
    )]
    Link(#[source] rusqlite::Error),
    /// The disk is full.
    #[error("the disk that holds the home is full; nothing of this operation was stored")]
    Full(#[source] rusqlite::Error),
    /// The disk is almost full.
    #[error(
        "the disk that holds the home is full: what is left is kept for describe, detach and delete, so make room first"
    )]
    Scarce,
    /// Another call's work in the same transaction could not be done, and SQLite undid all of it.
    #[error("a call that was stored together with this one failed, and nothing of either was stored; try again")]
    Undone,
    /// Another process held the state for longer than the busy timeout.
    #[error("another process kept the home's state locked for 30 seconds; try again")]
    Busy(#[source] rusqlite::Error),
    /// Anything else that SQLite reports.
    #[error("the home's state cannot be used")]
    Sqlite(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error().map(|found| found.extended_code) {
            Some(rusqlite::ffi::SQLITE_CANTOPEN_SYMLINK) => return Self::Link(error),
            // SQLite has no better word for it when the index of its write-ahead log has no room to grow.
            Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => return Self::Full(error),
            _ => {}
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly(error),
            Some(ErrorCode::CannotOpen) => Self::CannotOpen(error),
            Some(ErrorCode::DiskFull) => Self::Full(error),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error),
            _ => Self::Sqlite(error),
        }
    }
}

/// The state inside a transaction that [`Home`] began and ends.
///
/// It may be shared with the bodies of other callers, so whoever gets it does not begin, commit or roll back.
#[derive(Debug)]
pub struct Transaction<'a> {
    connection: &'a Connection,
    memo: &'a Memo,
    jobs: &'a Jobs,
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// An open home: its directory and its state.
#[derive(Debug)]
pub struct Home {
    dir: HomeDir,
    writer: Mutex<Writer>,
    /// Those that want the writer; only its head has it.
    line: Line,
    /// Behind the connection, whose end may still need the room.
    ballast: Ballast,
    given_root_key: OnceLock<SecretBytes>,
    scratch: Option<Scratch>,
}

impl Home {
    /// Opens the home at `path`, making directory and state if they are not there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let dir = HomeDir::open(path, true)?;
        for sub in ["volumes", "run"] {
            if !dir.has_dir(sub)? {
                dir.make_dir(sub)?;
            }
        }
        let ballast = Ballast::of(&dir)?;
        let connection = match database::open(&dir) {
            // Free blocks were counted that this user may not have: what the ballast has surely is his.
            Err(StoreError::Full(_)) => {
                ballast.give_up();
                database::open(&dir)?
            }
            opened => opened?,
        };
        let writer = Mutex::new(Writer::new(connection, Turn::of(&dir)?));
        Ok(Self { dir, writer, line: Line::default(), ballast, given_root_key: OnceLock::new(), scratch: None })
    }

    /// Refuses what only takes up more room while the disk is full, so that the last of it is left to describe, detach
    /// and delete.
    ///
    /// # Errors
    /// [`StoreError::Scarce`].
    pub fn spare_room(&self) -> Result<(), StoreError> {
        if self.ballast.is_scarce() { Err(StoreError::Scarce) } else { Ok(()) }
    }

    /// Keeps a root key that comes from the user and not from a file, until the home is dropped. The first one stays.
    pub fn give_root_key(&self, key: SecretBytes) {
        let _ = self.given_root_key.set(key);
    }

    /// The root key that was given, if one was.
    pub fn given_root_key(&self) -> Option<&SecretBytes> {
        self.given_root_key.get()
    }

    /// The home's directory.
    pub fn dir(&self) -> &HomeDir {
        &self.dir
    }

    /// Runs `body` on one consistent view of the state.
    pub fn read<T, E: From<StoreError>>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        self.transaction(TransactionBehavior::Deferred, body)
    }

    /// Runs `body` as the only writer; its changes are durable when this returns `Ok`, and undone when `body` fails.
    pub fn write<T, E: From<StoreError>>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        self.ballast.look();
        let behavior = if twin::is_off(Protection::OneWriter) {
            TransactionBehavior::Deferred
        } else {
            TransactionBehavior::Immediate
        };
        self.transaction(behavior, body)
    }

    fn transaction<T, E: From<StoreError>>(
        &self,
        behavior: TransactionBehavior,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        once(body, |body| self.transact(behavior, body))
    }

    /// Runs `body`, which says whether its changes are to be kept.
    fn transact(&self, behavior: TransactionBehavior, body: Body<'_>) -> Result<(), StoreError> {
        // A panic in an earlier body rolled its transaction back when it was dropped: the connection is usable.
        let (_head, writer) = self.alone();
        let connection = &writer.connection;
        let failed = |error| database::failure(connection, &self.dir, error);
        let begin = || rusqlite::Transaction::new_unchecked(connection, behavior);
        let opened = if matches!(behavior, TransactionBehavior::Immediate) { writer.turn.take(begin) } else { begin() };
        let transaction = opened.map_err(failed)?;
        writer.memo.begin(connection)?;
        let changed = connection.total_changes();
        writer.jobs.cut(0);
        let kept = body(&writer.transaction());
        let committed = if kept {
            let done = writer.jobs.run(&writer.transaction());
            done.and_then(|()| transaction.commit().map_err(failed))
        } else {
            drop(transaction);
            Ok(())
        };
        writer.memo.end(connection, kept && committed.is_ok() || connection.total_changes() == changed);
        committed.inspect_err(|error| {
            if matches!(error, StoreError::Full(_)) {
                // For the next command: this one was undone.
                self.ballast.give_up();
            }
        })
    }

    /// Truncates the write-ahead log, so that no shredded row is left in it.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another process reads an old view for too long; the caller tries again later.
    pub fn truncate_log(&self) -> Result<(), StoreError> {
        let (_head, writer) = self.alone();
        let connection = &writer.connection;
        // The operation before it is committed and its caller waits: a reader that stays longer puts the work off.
        connection.busy_timeout(TRUNCATE_TIMEOUT)?;
        let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        connection.busy_timeout(BUSY_TIMEOUT)?;
        if busy? == 0 {
            Ok(())
        } else {
            Err(StoreError::Busy(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                None,
            )))
        }
    }

    /// The home's clock as it stands now.
    pub fn clock(&self) -> Result<Clock, StoreError> {
        self.read(clock)
    }

    /// The time on the home's clock.
    pub fn now(&self) -> Result<Time, StoreError> {
        Ok(self.clock()?.now())
    }

    /// Moves the home's clock forward for every process that uses the home.
    pub fn advance_clock(&self, by: SignedDuration) -> Result<Clock, StoreError> {
        self.write(|tx| {
            let clock = clock(tx)?;
            let stands_at = clock.stands_at().map(|time| time.after(by));
            let moved = Clock::ahead_by(clock.offset().saturating_add(by)).standing_at(stands_at);
            set_setting(tx, CLOCK_OFFSET, &moved.offset().as_secs().to_string())?;
            if let Some(time) = stands_at {
                set_setting(tx, CLOCK_STANDS, &time.micros().to_string())?;
            }
            Ok(moved)
        })
    }

    /// Lets the home's clock stand still from now on, for every process that uses the home, or go on again. It goes on where
    /// it would have been had it never stood: not behind the time at which it stood.
    pub fn freeze_clock(&self, stands: bool) -> Result<Clock, StoreError> {
        self.write(|tx| {
            let clock = clock(tx)?;
            if stands {
                let time = clock.now();
                set_setting(tx, CLOCK_STANDS, &time.micros().to_string())?;
                return Ok(clock.standing_at(Some(time)));
            }
            tx.execute("DELETE FROM settings WHERE name = ?1", [CLOCK_STANDS])?;
            Ok(clock.standing_at(None))
        })
    }
}

/// A body without its types: what runs it is compiled once and not for each of some hundred bodies.
type Body<'a> = &'a mut dyn FnMut(&Transaction<'_>) -> bool;

/// Lets `run` run a body that is run once at most, and answers what it answered, unless the store failed.
fn once<T, E: From<StoreError>>(
    body: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    run: impl FnOnce(Body<'_>) -> Result<(), StoreError>,
) -> Result<T, E> {
    let (mut waiting, mut answer) = (Some(body), None);
    run(&mut |tx| {
        answer = waiting.take().map(|body| body(tx));
        matches!(answer, Some(Ok(_)))
    })?;
    answer.unwrap_or_else(|| Err(StoreError::Undone.into()))
}

/// How long an operation waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
const TRUNCATE_TIMEOUT: Duration = Duration::from_millis(500);

const CLOCK_OFFSET: &str = "clock_offset_seconds";
const CLOCK_STANDS: &str = "clock_stands_at_micros";

/// The clock as the state of `tx` has it.
pub fn clock(tx: &Transaction<'_>) -> Result<Clock, StoreError> {
    tx.recall("", || {
        let seconds = setting(tx, CLOCK_OFFSET)?.and_then(|text| text.parse().ok()).unwrap_or(0);
        let stands_at = setting(tx, CLOCK_STANDS)?.and_then(|text| Time::from_micros(text.parse().ok()?));
        Ok(Clock::ahead_by(SignedDuration::from_secs(seconds)).standing_at(stands_at))
    })
}

/// A named setting of the home.
pub fn setting(tx: &Transaction<'_>, name: &str) -> Result<Option<String>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT value FROM settings WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

/// Sets a named setting of the home.
pub fn set_setting(tx: &Transaction<'_>, name: &str, value: &str) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached("INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)")?;
    statement.execute([name, value])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power_cut::{Disk, comes_to};

    fn temporary() -> (tempfile::TempDir, Home) {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        (base, home)
    }

    #[test]
    fn a_clock_that_stands_moves_only_when_it_is_moved() {
        let (_base, home) = temporary();
        let stood = home.freeze_clock(true).unwrap().now();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(home.now().unwrap(), stood);
        assert_eq!(home.freeze_clock(true).unwrap().now(), stood);
        let hour = SignedDuration::from_hours(1);
        home.advance_clock(hour).unwrap();
        assert_eq!(home.now().unwrap(), stood.after(hour));
        home.freeze_clock(false).unwrap();
        assert!(home.now().unwrap() > stood.after(hour));
    }

    #[test]
    fn a_failed_body_leaves_nothing() {
        let (_base, home) = temporary();
        let failed: Result<(), StoreError> = home.write(|tx| {
            set_setting(tx, "a", "1")?;
            Err(StoreError::NotOurs(String::new()))
        });
        assert!(failed.is_err());
        assert_eq!(home.read(|tx| setting(tx, "a")).unwrap(), None);
    }

    #[test]
    fn two_handles_lose_no_update() {
        let (base, home) = temporary();
        let add = |home: &Home| {
            for _ in 0..50 {
                home.write(|tx| {
                    let count: u32 = setting(tx, "n")?.and_then(|n| n.parse().ok()).unwrap_or(0);
                    set_setting(tx, "n", &(count + 1).to_string())
                })
                .unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| add(&Home::open(&base.path().join("home")).unwrap()));
            scope.spawn(|| add(&home));
        });
        assert_eq!(home.read(|tx| setting(tx, "n")).unwrap().as_deref(), Some("100"));
    }

    #[test]
    fn a_newer_or_foreign_database_is_refused_and_left_alone() {
        let (base, home) = temporary();
        let path = home.dir().path_of("state.db");
        drop(home);
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        drop(connection);
        let error = Home::open(&base.path().join("home")).unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found, .. } if found == SCHEMA_VERSION + 1), "{error}");
        // The twin writes into what it does not know.
        twin::without(Protection::StateCheck, || {
            let home = Home::open(&base.path().join("home")).unwrap();
            home.write(|tx| set_setting(tx, "by an older program", "1")).unwrap();
        });
        std::fs::write(&path, b"not a database, but long enough to be read as one".repeat(100)).unwrap();
        assert!(matches!(Home::open(&base.path().join("home")), Err(StoreError::NotOurs(_))));
    }

    /// The power goes right after a commit, in a home that was just made and in one that was there.
    #[test]
    fn what_was_committed_survives_a_power_cut() {
        let survives = || {
            [false, true].map(|old| {
                let disk = Disk::ext4(64);
                let home = Home::open(&disk.path().join("home")).unwrap();
                if old {
                    disk.settle();
                }
                home.write(|tx| set_setting(tx, "a", "1")).unwrap();
                let after = disk.after_a_cut();
                // Without its state, even without its folder, it is a new home.
                let home = Home::open(&after.path().join("home")).unwrap();
                home.read(|tx| setting(tx, "a")).unwrap().is_some()
            })
        };
        assert_eq!(survives(), [true, true]);
        comes_to(&[false, false], || twin::without(Protection::DurableCommit, survives));
    }

    /// The twin makes a new state in the place of the lost one, and nothing that was sealed before opens any more.
    #[test]
    fn a_lost_state_is_not_made_anew() {
        for lost in ["empty", "missing"] {
            let (base, home) = temporary();
            drop(home.dir().create_new("root.key").unwrap());
            home.write(|tx| set_setting(tx, "a", "1")).unwrap();
            let path = home.dir().path_of("state.db");
            drop(home);
            for part in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{part}", path.display()));
            }
            if lost == "empty" {
                std::fs::write(&path, "").unwrap();
            }
            let open = || Home::open(&base.path().join("home"));
            let error = open().unwrap_err();
            assert!(matches!(error, StoreError::StateMissing { found, .. } if found == lost), "{error}");
            let anew = twin::without(Protection::StateCheck, open).unwrap();
            assert_eq!(anew.read(|tx| setting(tx, "a")).unwrap(), None);
        }
    }

    #[test]
    fn the_clock_moves_for_every_process() {
        let (base, home) = temporary();
        home.advance_clock(SignedDuration::from_hours(24)).unwrap();
        let other = Home::open(&base.path().join("home")).unwrap();
        assert_eq!(other.clock().unwrap().offset(), SignedDuration::from_hours(24));
    }
}
