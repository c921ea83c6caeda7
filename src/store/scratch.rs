//! A home to try things in: its state is in memory, and nothing of it is left when it is dropped.
//!
//! A copy of a home's state has everything but the trail. Sealed keys are in it, so the copy is never a file.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use nix::unistd::mkdtemp;
use rusqlite::Connection;

use super::ballast::Ballast;
use super::group::Writer;
use super::line::Line;
use super::turn::Turn;
use super::{Home, StoreError, database};
use crate::dir::{DirError, HomeDir};

/// What makes a home a scratch one: its directory, which holds locks at the most.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    original: Option<HomeDir>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of an empty directory in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Home {
    /// A new and empty home in memory.
    pub fn scratch() -> Result<Self, StoreError> {
        Self::scratch_with(None, |_| Ok(()))
    }

    /// The state of this home in memory, without its trail and the faults that were ordered. A root key that was given to
    /// this home is given to its copy only if this home is a scratch one itself.
    pub fn scratch_copy(&self) -> Result<Self, StoreError> {
        if let Some(scratch) = &self.scratch {
            let original =
                scratch.original.as_ref().map(|original| HomeDir::open(original.path(), false)).transpose()?;
            let (_head, source) = self.alone();
            let copy = Self::scratch_with(original, |into| database::copy_in_memory(&source.connection, into))?;
            if let Some(key) = self.given_root_key() {
                copy.give_root_key(key.part(0..key.len()));
            }
            return Ok(copy);
        }
        let original = HomeDir::open(self.dir().path(), false)?;
        let source = database::path(&original);
        Self::scratch_with(Some(original), |connection| database::copy_all_but_trail(&source, connection))
    }

    fn scratch_with(
        original: Option<HomeDir>,
        fill: impl FnOnce(&Connection) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let template = std::env::temp_dir().join("blockseal-scratch-XXXXXX");
        let path = mkdtemp(&template).map_err(|errno| DirError::Io {
            action: "make",
            path: template.clone(),
            source: errno.into(),
        })?;
        let scratch = Scratch { path, original };
        let dir = HomeDir::open(&scratch.path, false)?;
        for sub in ["volumes", "run"] {
            dir.make_dir(sub)?;
        }
        let connection = database::in_memory()?;
        fill(&connection)?;
        let writer = Mutex::new(Writer::new(connection, Turn::of(&dir)?));
        Ok(Self {
            ballast: Ballast::none(),
            dir,
            writer,
            line: Line::default(),
            given_root_key: OnceLock::new(),
            scratch: Some(scratch),
        })
    }

    /// Whether this home is one to try things in: no file is made in it and no program is started for it.
    pub fn is_scratch(&self) -> bool {
        self.scratch.is_some()
    }

    /// The home of which this one is a copy.
    pub fn original(&self) -> Option<&HomeDir> {
        self.scratch.as_ref().and_then(|scratch| scratch.original.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{set_setting, setting};

    #[test]
    fn a_copy_has_the_state_and_changes_nothing_of_it() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        home.write(|tx| set_setting(tx, "a", "1")).unwrap();
        let copy = home.scratch_copy().unwrap();
        assert_eq!(copy.read(|tx| setting(tx, "a")).unwrap().as_deref(), Some("1"));
        copy.write(|tx| set_setting(tx, "a", "2")).unwrap();
        assert_eq!(home.read(|tx| setting(tx, "a")).unwrap().as_deref(), Some("1"));
        assert!(copy.is_scratch() && !home.is_scratch());
        assert_eq!(copy.original().map(HomeDir::path), Some(home.dir().path()));
        let fork = copy.scratch_copy().unwrap();
        fork.write(|tx| set_setting(tx, "a", "3")).unwrap();
        assert_eq!(copy.read(|tx| setting(tx, "a")).unwrap().as_deref(), Some("2"));
        assert_eq!(fork.read(|tx| setting(tx, "a")).unwrap().as_deref(), Some("3"));
        assert_eq!(fork.original().map(HomeDir::path), Some(home.dir().path()));
        let paths = [copy.dir().path().to_owned(), fork.dir().path().to_owned()];
        assert!(paths.iter().all(|path| path.exists()));
        drop((copy, fork));
        assert!(!paths.iter().any(|path| path.exists()));
    }

    #[test]
    fn a_scratch_home_has_no_state_file() {
        let home = Home::scratch().unwrap();
        home.write(|tx| set_setting(tx, "a", "1")).unwrap();
        assert!(!home.dir().exists("state.db") && !home.dir().exists("ballast"));
    }
}
