//! The system's reason behind an error of SQLite, which rusqlite does not pass on.
#![expect(unsafe_code, reason = "rusqlite has no safe call for sqlite3_system_errno")]

use nix::errno::Errno;
use rusqlite::{Connection, ffi};

/// The `errno` of the last file that SQLite could not open, read or write on this connection
/// (<https://sqlite.org/c3ref/system_errno.html>).
pub(super) fn last(connection: &Connection) -> Errno {
    // SAFETY: the handle is that of a connection borrowed for the whole call, and the function only reads a number from it.
    Errno::from_raw(unsafe { ffi::sqlite3_system_errno(connection.handle()) })
}
