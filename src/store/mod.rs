//! The home's state: a SQLite database that several processes use at once, and the [`Home`] that holds it.
//!
//! Write-ahead log, `synchronous=FULL`, `secure_delete=ON`, and `BEGIN IMMEDIATE` for every write, so that two processes
//! never read the same state and both change it. The tables are in `schema.sql`, the modules that own them above.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior};

use crate::clock::{Clock, Time};
use crate::dir::{DirError, HomeDir};

/// The schema that this program writes; a home with a higher number was made by a newer one and is refused.
pub const SCHEMA_VERSION: u32 = 1;

/// `BSL1`, in the database file's header: `file state.db` shows it.
const APPLICATION_ID: u32 = 0x4253_4c31;

const SCHEMA: &str = include_str!("schema.sql");

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
    /// The home cannot be written.
    #[error(
        "the home cannot be written (read-only file system or permissions); every operation leaves a record and needs to write"
    )]
    ReadOnly(#[source] rusqlite::Error),
    /// The disk is full.
    #[error("the disk that holds the home is full; nothing of this operation was stored")]
    Full(#[source] rusqlite::Error),
    /// Another process held the state for longer than the busy timeout.
    #[error("another process kept the home's state locked for 30 seconds; try again")]
    Busy(#[source] rusqlite::Error),
    /// Anything else that SQLite reports.
    #[error("the home's state cannot be used")]
    Sqlite(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Self::ReadOnly(error),
            Some(ErrorCode::DiskFull) => Self::Full(error),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error),
            _ => Self::Sqlite(error),
        }
    }
}

/// An open home: its directory and its state.
#[derive(Debug)]
pub struct Home {
    dir: HomeDir,
    connection: Mutex<Connection>,
}

impl Home {
    /// Opens the home at `path`, making directory and state if they are not there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let dir = HomeDir::open(path, true)?;
        for sub in ["volumes", "run"] {
            if !dir.exists(sub) {
                dir.make_dir(sub)?;
            }
        }
        let connection = open_database(&dir)?;
        Ok(Self { dir, connection: Mutex::new(connection) })
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
        self.transaction(TransactionBehavior::Immediate, body)
    }

    fn transaction<T, E: From<StoreError>>(
        &self,
        behavior: TransactionBehavior,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        // A panic in an earlier body rolled its transaction back when it was dropped: the connection is usable.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(behavior).map_err(StoreError::from)?;
        let value = body(&transaction)?;
        transaction.commit().map_err(StoreError::from)?;
        Ok(value)
    }

    /// Truncates the write-ahead log, so that no shredded row is left in it.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another process reads an old view for too long; the caller tries again later.
    pub fn truncate_log(&self) -> Result<(), StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy == 0 {
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
            let moved = Clock::ahead_by(clock(tx)?.offset().saturating_add(by));
            set_setting(tx, CLOCK_OFFSET, &moved.offset().as_secs().to_string())?;
            Ok(moved)
        })
    }
}

const CLOCK_OFFSET: &str = "clock_offset_seconds";

/// The clock as the state of `tx` has it.
pub fn clock(tx: &Transaction<'_>) -> Result<Clock, StoreError> {
    let seconds = setting(tx, CLOCK_OFFSET)?.and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Clock::ahead_by(SignedDuration::from_secs(seconds)))
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

fn open_database(dir: &HomeDir) -> Result<Connection, StoreError> {
    if !dir.exists("state.db") {
        match dir.create_new("state.db") {
            Ok(file) => drop(file),
            Err(_) if dir.exists("state.db") => {}
            Err(DirError::Io { source, .. }) if read_only(&source) => {
                return Err(StoreError::ReadOnly(rusqlite::Error::ToSqlConversionFailure(Box::new(source))));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(dir.path_of("state.db"), flags)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.set_prepared_statement_cache_capacity(128);
    refuse_foreign(&connection, dir)?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; PRAGMA foreign_keys=ON;
         PRAGMA temp_store=MEMORY;",
    )?;
    migrate(&mut connection)?;
    Ok(connection)
}

fn read_only(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied)
}

fn versions(connection: &Connection) -> Result<(u32, u32), StoreError> {
    let application = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let schema = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok((application, schema))
}

/// Looks before anything is changed: a newer or a foreign database is left as it is.
fn refuse_foreign(connection: &Connection, dir: &HomeDir) -> Result<(), StoreError> {
    let not_ours = || StoreError::NotOurs(dir.path_of("state.db").display().to_string());
    let (application, found) = match versions(connection) {
        Err(StoreError::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            return Err(not_ours());
        }
        other => other?,
    };
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application != 0 || found != 0 || tables != 0) {
        return Err(not_ours());
    }
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema { home: dir.path().display().to_string(), found });
    }
    Ok(())
}

/// Brings the schema up to [`SCHEMA_VERSION`] in one transaction; of two processes that try, the second finds it done.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    if versions(connection)?.1 == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if versions(&transaction)?.1 == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        set_setting(&transaction, "home_id", &crate::ids::uuid())?;
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> (tempfile::TempDir, Home) {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        (base, home)
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
        std::fs::write(&path, b"not a database, but long enough to be read as one".repeat(100)).unwrap();
        assert!(matches!(Home::open(&base.path().join("home")), Err(StoreError::NotOurs(_))));
    }

    #[test]
    fn the_clock_moves_for_every_process() {
        let (base, home) = temporary();
        home.advance_clock(SignedDuration::from_hours(24)).unwrap();
        let other = Home::open(&base.path().join("home")).unwrap();
        assert_eq!(other.clock().unwrap().offset(), SignedDuration::from_hours(24));
    }
}
