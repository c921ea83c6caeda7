//! The home directory: one descriptor, below which every file is opened without following symbolic links.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

/// Why a home, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// The path of the home is a symbolic link.
    #[error("the home {0} is a symbolic link; name the directory it points to instead")]
    SymbolicLink(PathBuf),
    /// There is no such directory and it was not to be made.
    #[error("there is no home at {0}")]
    Missing(PathBuf),
    /// Others than the owner can write to it.
    #[error("the home {path} can be written by others (mode {mode:04o}); run: chmod 700 {path}", path = .0.display(), mode = .1)]
    Lax(PathBuf, u32),
    /// It belongs to somebody else.
    #[error("the home {path} belongs to user {owner}, not to you", path = .0.display(), owner = .1)]
    Foreign(PathBuf, u32),
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `open`, `make`, `remove` …
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// An open home directory. Relative names given to its methods are fixed by us, or are made of checked ids.
#[derive(Debug)]
pub struct HomeDir {
    path: PathBuf,
    fd: OwnedFd,
}

impl HomeDir {
    /// Opens the directory at `path`, or makes it with mode 0700 if `create` says so.
    ///
    /// # Errors
    /// If the path is a symbolic link, belongs to another user (unless we are root), can be written by group or
    /// others, does not exist (without `create`) or cannot be opened.
    pub fn open(path: &Path, create: bool) -> Result<Self, DirError> {
        let fail = |action, errno: Errno| DirError::Io { action, path: path.to_owned(), source: errno.into() };
        if create {
            make_private_dirs(path)?;
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = match nix::fcntl::open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Err(DirError::Missing(path.to_owned())),
            Err(Errno::ELOOP | Errno::ENOTDIR) if path.is_symlink() => {
                return Err(DirError::SymbolicLink(path.to_owned()));
            }
            Err(errno) => return Err(fail("open", errno)),
        };
        let stat = fstat(&fd).map_err(|errno| fail("look at", errno))?;
        if !Uid::effective().is_root() && stat.st_uid != Uid::effective().as_raw() {
            return Err(DirError::Foreign(path.to_owned(), stat.st_uid));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(DirError::Lax(path.to_owned(), stat.st_mode & 0o7777));
        }
        let path = std::fs::canonicalize(path).map_err(|source| DirError::Io {
            action: "resolve",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { path, fd })
    }

    /// The directory's absolute path, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Absolute path of a file in the home, for messages and for programs that want a path.
    pub fn path_of(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    /// Opens `relative` with `flags` (`O_CLOEXEC` and mode 0600 are added), following no symbolic link on the way.
    pub fn open_file(&self, relative: &str, flags: OFlag) -> Result<File, DirError> {
        let mode = if flags.contains(OFlag::O_CREAT) { Mode::S_IRUSR | Mode::S_IWUSR } else { Mode::empty() };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(self.fd.as_fd(), relative, how) {
            Ok(fd) => Ok(File::from(fd)),
            Err(errno) => Err(self.io_error("open", relative, errno)),
        }
    }

    /// Makes a file that must not exist yet, open for reading and writing, mode 0600.
    pub fn create_new(&self, relative: &str) -> Result<File, DirError> {
        self.open_file(relative, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    /// Makes a directory with mode 0700; one that is there already is fine.
    pub fn make_dir(&self, relative: &str) -> Result<(), DirError> {
        match mkdirat(self.fd.as_fd(), relative, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(self.io_error("make", relative, errno)),
        }
    }

    /// Whether something of that name exists (a dangling link counts).
    pub fn exists(&self, relative: &str) -> bool {
        nix::sys::stat::fstatat(self.fd.as_fd(), relative, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes a file; one that is gone already is fine.
    pub fn remove_file(&self, relative: &str) -> Result<(), DirError> {
        match unlinkat(self.fd.as_fd(), relative, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.io_error("remove", relative, errno)),
        }
    }

    /// Puts `from` in the place of `to`, atomically.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), DirError> {
        nix::fcntl::renameat(self.fd.as_fd(), from, self.fd.as_fd(), to)
            .map_err(|errno| self.io_error("rename", from, errno))
    }

    /// Makes the names in a directory of the home (`""` for the home itself) durable.
    pub fn sync_dir(&self, relative: &str) -> Result<(), DirError> {
        let name = if relative.is_empty() { "." } else { relative };
        let dir = self.open_file(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        dir.sync_all().map_err(|source| DirError::Io { action: "sync", path: self.path_of(relative), source })
    }

    /// The directory's descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn io_error(&self, action: &'static str, relative: &str, errno: Errno) -> DirError {
        DirError::Io { action, path: self.path_of(relative), source: errno.into() }
    }
}

/// Makes `path` and what is missing above it, the last with mode 0700.
fn make_private_dirs(path: &Path) -> Result<(), DirError> {
    use std::os::unix::fs::DirBuilderExt as _;
    if path.exists() || path.is_symlink() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| DirError::Io {
        action: "make",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_new_home_is_private() {
        let base = tempfile::tempdir().unwrap();
        let home = HomeDir::open(&base.path().join("a/b"), true).unwrap();
        let mode = std::fs::metadata(home.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        drop(home.create_new("state").unwrap());
        assert_eq!(std::fs::metadata(base.path().join("a/b/state")).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(home.create_new("state").is_err(), "create_new never opens what is there");
    }

    #[test]
    fn links_and_lax_modes_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let real = base.path().join("real");
        let home = HomeDir::open(&real, true).unwrap();
        std::os::unix::fs::symlink(&real, base.path().join("link")).unwrap();
        assert!(matches!(HomeDir::open(&base.path().join("link"), true), Err(DirError::SymbolicLink(_))));
        std::os::unix::fs::symlink("/etc/hostname", real.join("inside")).unwrap();
        assert!(home.open_file("inside", OFlag::O_RDONLY).is_err(), "a link inside the home is not followed");
        assert!(home.open_file("../real/inside", OFlag::O_RDONLY).is_err(), "nothing above the home is reached");
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(HomeDir::open(&real, true), Err(DirError::Lax(_, 0o770))));
        assert!(matches!(HomeDir::open(&base.path().join("none"), false), Err(DirError::Missing(_))));
    }
}
