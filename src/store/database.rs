//! Opening the state: what is not ours, newer, damaged or missing where it should be is refused before anything changes.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::AccessFlags;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, FileControl, OpenFlags, TransactionBehavior};

use super::{BUSY_TIMEOUT, Jobs, Memo, SCHEMA_VERSION, StoreError, Transaction, errno, set_setting};
use crate::dir::{DirError, HomeDir};
use crate::twin::{self, Protection};

/// `BSL1`, in the database file's header: `file state.db` shows it.
const APPLICATION_ID: u32 = 0x4253_4c31;

const SCHEMA: &str = include_str!("schema.sql");

const FILE: &str = "state.db";

pub(super) fn open(dir: &HomeDir) -> Result<Connection, StoreError> {
    // Looked for first: whoever made a new state a moment ago made what shows its use only afterwards.
    let witness = witness(dir);
    let found = match dir.length_of_file(FILE)? {
        None => Some("missing"),
        Some(0) => Some("empty"),
        Some(_) => None,
    };
    if let (Some(found), Some(witness)) = (found, witness) {
        return Err(state_missing(dir, found, witness));
    }
    if found == Some("missing") {
        match dir.create_new(FILE) {
            Ok(file) => {
                drop(file);
                dir.sync_dir("")?;
            }
            Err(_) if dir.exists(FILE) => {}
            Err(DirError::Io { source, .. }) if let Some(error) = without_sqlite(&source) => return Err(error),
            Err(error) => return Err(error.into()),
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection =
        Connection::open_with_flags(dir.path_of(FILE), flags).map_err(|error| not_opened(dir, error))?;
    prepare(&mut connection, dir).map_err(|error| match error {
        Prepare::Sqlite(error) => failure(&connection, dir, error),
        Prepare::Store(error) => error,
    })?;
    Ok(connection)
}

/// What SQLite's error means, with what the system said to it.
pub(super) fn failure(connection: &Connection, dir: &HomeDir, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => {
            return StoreError::Damaged { path: dir.path_of(FILE).display().to_string(), source: error };
        }
        Some(ErrorCode::NotADatabase) => return StoreError::NotOurs(dir.path_of(FILE).display().to_string()),
        _ => {}
    }
    match StoreError::from(error) {
        StoreError::CannotOpen(error) => by_errno(errno::last(connection), error),
        StoreError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) => {
            match errno::last(connection) {
                errno @ (Errno::ENOSPC | Errno::EDQUOT) => by_errno(errno, error),
                _ => StoreError::Sqlite(error),
            }
        }
        other => other,
    }
}

fn by_errno(errno: Errno, error: rusqlite::Error) -> StoreError {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => StoreError::Full(error),
        Errno::EMFILE | Errno::ENFILE => StoreError::TooManyFiles(error),
        Errno::EROFS | Errno::EACCES | Errno::EPERM => StoreError::ReadOnly(error),
        _ => StoreError::CannotOpen(error),
    }
}

/// The same for a file that we opened ourselves.
fn without_sqlite(error: &io::Error) -> Option<StoreError> {
    let errno = Errno::from_raw(error.raw_os_error()?);
    let error = rusqlite::Error::ToSqlConversionFailure(Box::new(io::Error::from(errno)));
    match by_errno(errno, error) {
        StoreError::CannotOpen(_) => None,
        known => Some(known),
    }
}

/// There is no connection to ask when the first file cannot be opened: the system is asked again. The file itself is not
/// opened for that, because closing it would give up the locks that this process has on it (fcntl(2), POSIX locks).
fn not_opened(dir: &HomeDir, error: rusqlite::Error) -> StoreError {
    let error = match StoreError::from(error) {
        StoreError::CannotOpen(error) => error,
        other => return other,
    };
    let descriptor = dir.open_file(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY);
    if let Err(DirError::Io { source, .. }) = descriptor {
        return by_errno(Errno::from_raw(source.raw_os_error().unwrap_or_default()), error);
    }
    match nix::unistd::faccessat(AT_FDCWD, &dir.path_of(FILE), AccessFlags::W_OK, AtFlags::AT_EACCESS) {
        Err(errno) => by_errno(errno, error),
        Ok(()) => StoreError::CannotOpen(error),
    }
}

/// Where a home's state lies.
pub(super) fn path(dir: &HomeDir) -> PathBuf {
    dir.path_of(FILE)
}

/// An empty state that is in this process's memory alone.
pub(super) fn in_memory() -> Result<Connection, StoreError> {
    let connection = Connection::open_in_memory()?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.execute_batch("PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY;")?;
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(connection)
}

/// Copies every table but the trail's from the state at `source`, as it is at one moment.
pub(super) fn copy_all_but_trail(source: &Path, into: &Connection) -> Result<(), StoreError> {
    let source = source.to_str().ok_or_else(|| StoreError::NotOurs(source.display().to_string()))?;
    into.execute("ATTACH DATABASE ?1 AS original", [source])?;
    let tables = tables_but_trail(into, "original")?;
    let copies =
        tables.iter().map(|table| format!("INSERT OR REPLACE INTO main.{table} SELECT * FROM original.{table};"));
    into.execute_batch(&format!(
        "PRAGMA foreign_keys=OFF; BEGIN; {} COMMIT; PRAGMA foreign_keys=ON; DETACH DATABASE original;",
        copies.collect::<String>()
    ))?;
    Ok(())
}

/// The tables of `schema` that a copy has: not the trail, which is large and decides nothing, and no faults, which are
/// ordered for calls that happen.
fn tables_but_trail(connection: &Connection, schema: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare(&format!(
        "SELECT name FROM {schema}.sqlite_schema
         WHERE type = 'table' AND name NOT LIKE 'trail%' AND name NOT LIKE 'sqlite%' AND name <> 'faults'"
    ))?;
    let tables = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(tables)
}

/// Copies every table but the trail's from one state in memory into another, which no `ATTACH` could reach.
pub(super) fn copy_in_memory(source: &Connection, into: &Connection) -> Result<(), StoreError> {
    into.execute_batch("PRAGMA foreign_keys=OFF; BEGIN;")?;
    for table in tables_but_trail(source, "main")? {
        let mut select = source.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = select.column_count();
        let places = (1..=columns).map(|place| format!("?{place}")).collect::<Vec<_>>().join(", ");
        let mut insert = into.prepare(&format!("INSERT OR REPLACE INTO {table} VALUES ({places})"))?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let values = (0..columns).map(|column| row.get::<_, Value>(column)).collect::<Result<Vec<_>, _>>()?;
            insert.execute(rusqlite::params_from_iter(values))?;
        }
    }
    into.execute_batch("COMMIT; PRAGMA foreign_keys=ON;")?;
    Ok(())
}

enum Prepare {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Prepare {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Prepare {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn prepare(connection: &mut Connection, dir: &HomeDir) -> Result<(), Prepare> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(128);
    refuse_foreign(connection, dir)?;
    // The log stays when the last command ends: on a full disk it could not be made again.
    connection.file_control(None::<&str>, FileControl::PersistWal(&mut 1))?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; PRAGMA foreign_keys=ON;
         PRAGMA temp_store=MEMORY;",
    )?;
    if twin::is_off(Protection::DurableCommit) {
        connection.execute_batch("PRAGMA synchronous=OFF")?;
    }
    migrate(connection, dir)
}

fn versions(connection: &Connection) -> rusqlite::Result<(u32, u32)> {
    let application = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let schema = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok((application, schema))
}

/// Looks before anything is changed: a newer or a foreign database is left as it is.
fn refuse_foreign(connection: &Connection, dir: &HomeDir) -> Result<(), Prepare> {
    let (application, found) = versions(connection)?;
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application != 0 || found != 0 || tables != 0) {
        return Err(StoreError::NotOurs(dir.path_of(FILE).display().to_string()).into());
    }
    if found > SCHEMA_VERSION && !twin::is_off(Protection::StateCheck) {
        return Err(StoreError::NewerSchema { home: dir.path().display().to_string(), found }.into());
    }
    Ok(())
}

/// Brings the schema up to [`SCHEMA_VERSION`] in one transaction; of two processes that try, the second finds it done.
fn migrate(connection: &mut Connection, dir: &HomeDir) -> Result<(), Prepare> {
    if versions(connection)?.1 >= SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if versions(&transaction)?.1 == 0 {
        if let Some(witness) = witness(dir) {
            return Err(state_missing(dir, "empty", witness).into());
        }
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        set_setting(
            &Transaction { connection: &transaction, memo: &Memo::default(), jobs: &Jobs::default() },
            "home_id",
            &crate::ids::uuid(),
        )?;
    }
    transaction.commit()?;
    Ok(())
}

/// What is in the home that only a home in use has: all of it is made after the state.
fn witness(dir: &HomeDir) -> Option<String> {
    if twin::is_off(Protection::StateCheck) {
        return None;
    }
    let found = if dir.exists("root.key") {
        "root.key"
    } else if dir.has_entries("volumes") {
        "volumes"
    } else {
        return None;
    };
    Some(dir.path_of(found).display().to_string())
}

fn state_missing(dir: &HomeDir, found: &'static str, witness: String) -> StoreError {
    StoreError::StateMissing { state: dir.path_of(FILE).display().to_string(), found, witness }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLite says `unable to open database file` for all of these; what the user must do is not the same.
    #[test]
    fn the_systems_reason_decides_what_is_said() {
        let told = |errno: Errno| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN), None);
            by_errno(errno, error).to_string()
        };
        for (errno, word) in [
            (Errno::ENOSPC, "is full"),
            (Errno::EDQUOT, "is full"),
            (Errno::EMFILE, "too many open files"),
            (Errno::ENFILE, "too many open files"),
            (Errno::EROFS, "cannot be written"),
            (Errno::EACCES, "cannot be written"),
            (Errno::EPERM, "cannot be written"),
            (Errno::EIO, "cannot be opened"),
        ] {
            assert!(told(errno).contains(word), "{errno}: {}", told(errno));
        }
        assert!(without_sqlite(&io::Error::from(Errno::EIO)).is_none(), "the error itself says more");
        assert!(matches!(without_sqlite(&io::Error::from(Errno::ENOSPC)), Some(StoreError::Full(_))));
    }

    /// A real one, through SQLite: the log's index cannot be made in a directory that was put in its place.
    #[test]
    fn the_reason_comes_from_the_connection() {
        let base = tempfile::tempdir().unwrap();
        let dir = HomeDir::open(&base.path().join("home"), true).unwrap();
        drop(open(&dir).unwrap());
        for part in ["state.db-wal", "state.db-shm"] {
            let _ = std::fs::remove_file(dir.path_of(part));
        }
        std::fs::create_dir(dir.path_of("state.db-wal")).unwrap();
        let error = open(&dir).unwrap_err();
        assert!(matches!(error, StoreError::CannotOpen(_)), "{error}: {error:?}");
    }
}
