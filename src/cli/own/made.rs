//! Files that the program makes for its user. They hold plaintext, so they are readable by their owner alone, and nothing
//! takes the place of an older file before it is whole and durable. Until then a file has no name, where the file system can
//! do that (open(2), `O_TMPFILE`): a command that is killed leaves no plaintext behind.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, RenameFlags, renameat2};
use nix::unistd::linkat;

use crate::cli::CliError;

/// A file that is being made. Dropped before [`Made::keep`], it leaves everything as it was.
pub(super) struct Made {
    file: File,
    /// `None` for a device or a pipe, which is written as it comes.
    sibling: Option<Sibling>,
}

/// Where the bytes go until they are all there, beside the name that they are for.
struct Sibling {
    temporary: PathBuf,
    /// Whether the file has that name yet.
    named: bool,
    target: PathBuf,
    overwrite: bool,
}

impl Made {
    /// Begins the file `path`, which may be there already only if `overwrite` says so; a pipe or character device may be
    /// there always. Inside `home` nothing is made: a slip there would cost keys.
    ///
    /// # Errors
    /// If it may not be made there, or cannot.
    pub(super) fn new(path: &Path, overwrite: bool, home: &Path) -> Result<Self, CliError> {
        let fail = |error: io::Error| {
            let advice = if error.kind() == io::ErrorKind::AlreadyExists { " (--overwrite replaces it)" } else { "" };
            CliError::machine(format!("cannot make {}: {error}{advice}", path.display()))
        };
        let (target, kind) = match fs::metadata(path) {
            Ok(found) => (path.to_owned(), Some(found.file_type())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), None),
            Err(error) => return Err(fail(error)),
        };
        let special = kind.filter(|kind| !kind.is_file() && !kind.is_dir());
        // A link is followed to the file that it means, which keeps its place.
        let target =
            if kind.is_some() && special.is_none() { fs::canonicalize(&target).map_err(fail)? } else { target };
        let folder = match target.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let folder = fs::canonicalize(folder).map_err(fail)?;
        if folder.starts_with(home) {
            return Err(CliError::parameter(
                "file",
                format!("{} is inside the home {}", path.display(), home.display()),
            ));
        }
        if let Some(kind) = special {
            if kind.is_block_device() && !overwrite {
                return Err(fail(io::ErrorKind::AlreadyExists.into()));
            }
            let file = OpenOptions::new().write(true).open(path).map_err(fail)?;
            return Ok(Self { file, sibling: None });
        }
        if kind.is_some_and(|kind| kind.is_dir()) || target.file_name().is_none() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        // Looked at before hours of work; what is decided at the end is decided there.
        if !overwrite && target.symlink_metadata().is_ok() {
            return Err(fail(io::ErrorKind::AlreadyExists.into()));
        }
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(CliError::machine)?;
        let temporary = folder.join(format!(".blockseal-{:016x}.part", u64::from_be_bytes(name)));
        let (file, named) = match nameless(&folder) {
            Some(file) => (file, false),
            None => (OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(fail)?, true),
        };
        Ok(Self { file, sibling: Some(Sibling { temporary, named, target, overwrite }) })
    }

    /// Where to write.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Puts the whole file in its place; it is durable when this returns.
    ///
    /// # Errors
    /// If the disk fails, or a file has come to that name in the meantime. Then nothing is left.
    pub(super) fn keep(mut self) -> Result<(), CliError> {
        let Some(sibling) = &mut self.sibling else {
            // Only a block device can be synced, and only there it means something.
            if self.file.metadata()?.file_type().is_block_device() {
                self.file.sync_all()?;
            }
            return Ok(());
        };
        self.file.sync_all()?;
        sibling.publish(&self.file).map_err(|error| {
            CliError::machine(format!("cannot put the file at {}: {error}", sibling.target.display()))
        })?;
        if let Some(sibling) = self.sibling.take() {
            let folder = sibling.temporary.parent().unwrap_or(Path::new("/"));
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(sibling) = &self.sibling
            && sibling.named
        {
            let _ = fs::remove_file(&sibling.temporary);
        }
    }
}

/// A new file in `folder` without a name; `None` if it could not be given one later.
fn nameless(folder: &Path) -> Option<File> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder).ok()?;
    Path::new(&path_of(&file)).exists().then_some(file)
}

/// What an open file is called when it has no name (open(2), `O_TMPFILE`).
fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

impl Sibling {
    fn publish(&mut self, file: &File) -> io::Result<()> {
        if !self.named {
            let name = if self.overwrite { &self.temporary } else { &self.target };
            linkat(AT_FDCWD, path_of(file).as_str(), AT_FDCWD, name, AtFlags::AT_SYMLINK_FOLLOW)?;
            if !self.overwrite {
                return Ok(());
            }
            self.named = true;
        }
        if self.overwrite {
            return fs::rename(&self.temporary, &self.target);
        }
        match renameat2(AT_FDCWD, &self.temporary, AT_FDCWD, &self.target, RenameFlags::RENAME_NOREPLACE) {
            // A file system without that flag: the name is looked at once more, which leaves the blink of an eye.
            Err(Errno::EINVAL) if self.target.symlink_metadata().is_err() => fs::rename(&self.temporary, &self.target),
            Err(Errno::EINVAL) => Err(io::ErrorKind::AlreadyExists.into()),
            outcome => outcome.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_changes_before_the_file_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let home = Path::new("/no/home");
        let path = folder.path().join("image");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Made::new(&path, false, home).is_err());

        let made = Made::new(&path, true, home).unwrap();
        made.file().write_all(b"half of the n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["image"], "a kill here leaves no part of the new one");
        assert_eq!(made.file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(made);
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"old".to_vec(), vec!["image".to_owned()]));

        let made = Made::new(&path, true, home).unwrap();
        made.file().write_all(b"new").unwrap();
        made.keep().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"new".to_vec(), vec!["image".to_owned()]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "others could read the old one");
    }

    #[test]
    fn a_file_that_comes_in_the_meantime_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let made = Made::new(&path, false, Path::new("/no/home")).unwrap();
        fs::write(&path, "theirs").unwrap();
        assert!(made.keep().is_err());
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"theirs".to_vec(), vec!["image".to_owned()]));
        // The twin: with leave to replace, it is replaced.
        Made::new(&path, true, Path::new("/no/home")).unwrap().keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_link_goes_on_meaning_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("image"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("image", &link).unwrap();
        let made = Made::new(&link, true, Path::new("/no/home")).unwrap();
        made.file().write_all(b"new").unwrap();
        made.keep().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    /// Where a file cannot be without a name, it has another one than its own until it is whole.
    #[test]
    fn a_file_system_without_nameless_files_gets_a_sibling() {
        for overwrite in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (path, part) = (folder.path().join("image"), folder.path().join("part"));
            let begin = || {
                let file = File::create_new(&part).unwrap();
                let sibling = Sibling { temporary: part.clone(), named: true, target: path.clone(), overwrite };
                Made { file, sibling: Some(sibling) }
            };
            drop(begin());
            assert_eq!(names(folder.path()), [""; 0]);
            begin().keep().unwrap();
            assert_eq!(names(folder.path()), ["image"]);
            assert_eq!(begin().keep().is_ok(), overwrite);
            assert_eq!(names(folder.path()), ["image"]);
        }
    }
}
