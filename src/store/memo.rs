//! What is remembered of the state for as long as nobody changes it.
//!
//! Whoever reads the same rows for every call keeps what it made of them here: [`Transaction::remembered`]. All of it is
//! dropped as soon as a row was changed in this process (SQLite counts them) or a transaction was committed by another
//! (`PRAGMA data_version`), and whenever something is rolled back.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use rusqlite::Connection;

use super::{StoreError, Transaction};
use crate::twin::{self, Protection};

#[derive(Debug, Default)]
pub(super) struct Memo {
    entries: RefCell<HashMap<TypeId, Box<dyn Any + Send>>>,
    /// How many rows this connection had changed when the entries were last known to be true.
    changes: Cell<u64>,
    /// What other connections had committed then.
    version: Cell<i64>,
    /// Whether a transaction is running, or one ended in a panic.
    running: Cell<bool>,
    /// Whether rows are being changed that nothing remembered depends on.
    appending: Cell<bool>,
}

impl Memo {
    /// Looks, in a transaction that has just begun, whether another process changed the state.
    pub(super) fn begin(&self, connection: &Connection) -> Result<(), StoreError> {
        let version = connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get::<_, i64>(0))?;
        let changed = self.version.replace(version) != version && !twin::is_off(Protection::Forgetting);
        if changed || self.running.replace(true) {
            self.forget();
        }
        Ok(())
    }

    /// At the end of a transaction: `kept` says whether all that it changed is kept.
    pub(super) fn end(&self, connection: &Connection, kept: bool) {
        self.running.set(false);
        self.keep_true(connection);
        if !kept {
            self.forget();
        }
    }

    /// Drops everything, as what was rolled back may be in it.
    pub(super) fn forget(&self) {
        self.entries.borrow_mut().clear();
        self.appending.set(false);
    }

    fn keep_true(&self, connection: &Connection) {
        let changes = connection.total_changes();
        if self.appending.get() && !twin::is_any_off() {
            return;
        }
        let is_stale = self.changes.replace(changes) != changes && !twin::is_off(Protection::Forgetting);
        if is_stale || twin::is_any_off() {
            self.forget();
        }
    }
}

/// What is to be done at the end of a transaction.
type Job = Box<dyn FnOnce(&Transaction<'_>) -> Result<(), StoreError> + Send>;

/// Jobs of the bodies that ran in the transaction so far.
#[derive(Default)]
pub(super) struct Jobs(RefCell<Vec<Job>>);

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jobs({})", self.count())
    }
}

impl Jobs {
    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Drops all but the first `count`: who asked for the others failed.
    pub(super) fn cut(&self, count: usize) {
        self.0.borrow_mut().truncate(count);
    }

    pub(super) fn run(&self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        let jobs = self.0.take();
        jobs.into_iter().try_for_each(|job| job(tx))
    }
}

/// Most values of one type that are remembered.
const MOST: usize = 1024;

/// Values of one type by a name.
struct Named<V>(HashMap<String, V>);

impl<V> Default for Named<V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl Transaction<'_> {
    /// The value of type `V` that is remembered as `name`, or else what `read` makes of the state. Values of another kind
    /// under the same name need a type of their own.
    ///
    /// # Errors
    /// `read`'s; nothing is remembered then.
    pub fn recall<V, E>(&self, name: &str, read: impl FnOnce() -> Result<V, E>) -> Result<V, E>
    where
        V: Clone + Send + 'static,
    {
        if let Some(known) = self.remembered(|named: &mut Named<V>| named.0.get(name).cloned()) {
            return Ok(known);
        }
        let value = read()?;
        self.remembered(|named: &mut Named<V>| {
            if named.0.len() >= MOST {
                named.0.clear();
            }
            named.0.insert(name.to_owned(), value.clone());
        });
        Ok(value)
    }

    /// What is remembered under the type `T`: what `look` left there since the state last changed, or the default.
    ///
    /// `look` reads no state itself; what it keeps must have been read in this transaction, or in an earlier one since the
    /// last change. It may not ask for another `T` inside.
    pub fn remembered<T: Default + Send + 'static, R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        self.memo.keep_true(self.connection);
        let taken = self.memo.entries.borrow_mut().remove(&TypeId::of::<T>());
        let mut kept = taken.and_then(|kept| kept.downcast().ok()).unwrap_or_else(|| Box::new(T::default()));
        let result = look(&mut kept);
        self.memo.entries.borrow_mut().insert(TypeId::of::<T>(), kept);
        result
    }

    /// Runs `job` at the end of the transaction, in one go with those of the other callers that share it; if it fails,
    /// nothing of the transaction is kept. Dropped if the body that asks for it fails.
    pub fn at_end(&self, job: impl FnOnce(&Transaction<'_>) -> Result<(), StoreError> + Send + 'static) {
        self.jobs.0.borrow_mut().push(Box::new(job));
    }

    /// Runs `append`, which only adds rows that nothing remembered depends on.
    ///
    /// # Errors
    /// `append`'s.
    pub fn unremembered<R>(&self, append: impl FnOnce() -> R) -> R {
        self.memo.keep_true(self.connection);
        self.memo.appending.set(true);
        let result = append();
        self.memo.appending.set(false);
        self.memo.changes.set(self.connection.total_changes());
        result
    }

    /// Drops everything that is remembered: something was rolled back.
    pub fn forget(&self) {
        self.memo.forget();
    }

    /// How many rows were changed since the state was opened: tells whether something was changed in between.
    pub fn changes(&self) -> u64 {
        self.connection.total_changes()
    }
}
