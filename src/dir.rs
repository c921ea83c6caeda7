//! The home directory: one descriptor, below which every file is opened without following symbolic links.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use crate::twin::{self, Protection};

/// Why a home, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// The path of the home is a symbolic link.
    #[error("the home {0} is a symbolic link; name the directory it points to instead")]
    SymbolicLink(PathBuf),
    /// The path of the home is something else.
    #[error("the home {0} is not a directory; name one, or a path at which one can be made")]
    NotADirectory(PathBuf),
    /// There is no such directory and it was not to be made.
    #[error("there is no home at {0}")]
    Missing(PathBuf),
    /// Others than the owner can write to it.
    #[error("the home {path} can be written by others (mode {mode:04o}); run: chmod 700 {path}", path = .0.display(), mode = .1)]
    Lax(PathBuf, u32),
    /// It belongs to somebody else.
    #[error("the home {path} belongs to user {owner}, not to you", path = .0.display(), owner = .1)]
    Foreign(PathBuf, u32),
    /// A file or directory in the home is not what may be there.
    #[error("{path} {problem}", path = path.display())]
    Part {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
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
            make_private_dirs(path, |parent| File::open(parent)?.sync_all())?;
        }
        let mut flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        if twin::is_off(Protection::NoFollow) {
            flags.remove(OFlag::O_NOFOLLOW);
        }
        let fd = match nix::fcntl::open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Err(DirError::Missing(path.to_owned())),
            Err(Errno::ELOOP | Errno::ENOTDIR) if path.is_symlink() => {
                return Err(DirError::SymbolicLink(path.to_owned()));
            }
            Err(Errno::ENOTDIR) => return Err(DirError::NotADirectory(path.to_owned())),
            Err(errno) => return Err(fail("open", errno)),
        };
        let stat = fstat(&fd).map_err(|errno| fail("look at", errno))?;
        if !Uid::effective().is_root() && stat.st_uid != Uid::effective().as_raw() {
            return Err(DirError::Foreign(path.to_owned(), stat.st_uid));
        }
        if stat.st_mode & 0o022 != 0 && !twin::is_off(Protection::Private) {
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
        let mut how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode);
        if !twin::is_off(Protection::NoFollow) {
            how = how
                .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        }
        match openat2(self.fd.as_fd(), relative, how) {
            Ok(fd) => Ok(File::from(fd)),
            Err(errno) => Err(self.io_error("open", relative, errno)),
        }
    }

    /// Makes a file that must not exist yet, open for reading and writing, mode 0600.
    pub fn create_new(&self, relative: &str) -> Result<File, DirError> {
        let mut flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        if twin::is_off(Protection::Exclusive) {
            flags.remove(OFlag::O_EXCL);
        }
        self.open_file(relative, flags)
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
        fstatat(self.fd.as_fd(), relative, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Whether there is a directory of that name, fit to be a part of the home.
    ///
    /// # Errors
    /// [`DirError::Part`] if it is something else, a symbolic link, another user's or writable by others.
    pub fn has_dir(&self, relative: &str) -> Result<bool, DirError> {
        Ok(self.part(relative, SFlag::S_IFDIR, "directory")?.is_some())
    }

    /// The length of the regular file of that name, which is not opened; `None` if there is none.
    ///
    /// # Errors
    /// [`DirError::Part`] if it is something else, a symbolic link, another user's or writable by others.
    pub fn length_of_file(&self, relative: &str) -> Result<Option<u64>, DirError> {
        self.part(relative, SFlag::S_IFREG, "file")
    }

    /// Whether a directory of the home has anything in it; one that is not there has not.
    pub fn has_entries(&self, relative: &str) -> bool {
        std::fs::read_dir(self.path_of(relative)).is_ok_and(|mut entries| entries.next().is_some())
    }

    fn part(&self, relative: &str, wanted: SFlag, name: &str) -> Result<Option<u64>, DirError> {
        let refused = |problem: String| Err(DirError::Part { path: self.path_of(relative), problem });
        let stat = match fstatat(self.fd.as_fd(), relative, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(self.io_error("look at", relative, errno)),
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFLNK && !twin::is_off(Protection::NoFollow) {
            return refused(format!(
                "is a symbolic link, and no link is followed in a home; put the {name} itself there"
            ));
        }
        if kind != wanted && kind != SFlag::S_IFLNK {
            return refused(format!("is not a {name}, and the home's own {name} belongs there; move it away"));
        }
        if !Uid::effective().is_root() && stat.st_uid != Uid::effective().as_raw() {
            return refused(format!("belongs to user {}, not to you", stat.st_uid));
        }
        if stat.st_mode & 0o022 != 0 && kind != SFlag::S_IFLNK && !twin::is_off(Protection::Private) {
            let (mode, path) = (stat.st_mode & 0o7777, self.path_of(relative));
            return refused(format!("can be written by others (mode {mode:04o}); run: chmod go-w {}", path.display()));
        }
        Ok(Some(u64::try_from(stat.st_size).unwrap_or_default()))
    }

    /// What tells whether a file of the home is still the same and as it was; `None` if there is none.
    pub fn stamp(&self, relative: &str) -> Option<Stamp> {
        let stat = fstatat(self.fd.as_fd(), relative, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        Some(Stamp {
            file: (stat.st_dev, stat.st_ino),
            mode: stat.st_mode,
            bytes: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        })
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
        sync_names(&dir).map_err(|source| DirError::Io { action: "sync", path: self.path_of(relative), source })
    }

    /// The directory's descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn io_error(&self, action: &'static str, relative: &str, errno: Errno) -> DirError {
        DirError::Io { action, path: self.path_of(relative), source: errno.into() }
    }
}

/// A file as it was: another one, or a change of its bytes or its mode, has another stamp. The time of a change is that of
/// the system's clock tick, so that two changes within one may look the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    file: (u64, u64),
    mode: u32,
    bytes: i64,
    changed: (i64, i64),
}

/// Makes the bytes of a file durable.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    if twin::is_off(Protection::FileSync) { Ok(()) } else { file.sync_all() }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_names(directory: &File) -> io::Result<()> {
    if twin::is_off(Protection::NameSync) { Ok(()) } else { directory.sync_all() }
}

/// Makes `path` and what is missing above it with mode 0700, and has `sync` make each new name durable in its directory.
fn make_private_dirs(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> Result<(), DirError> {
    use std::os::unix::fs::DirBuilderExt as _;
    if path.exists() || path.is_symlink() {
        return Ok(());
    }
    let fail = |source| match source {
        source if io::Error::kind(&source) == io::ErrorKind::NotADirectory => DirError::NotADirectory(path.to_owned()),
        source => DirError::Io { action: "make", path: path.to_owned(), source },
    };
    let missing: Vec<_> =
        path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)?;
    for made in missing.into_iter().rev() {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync(above).map_err(fail)?;
    }
    Ok(())
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
    fn each_new_directory_is_made_durable_in_the_one_above() {
        let base = tempfile::tempdir().unwrap();
        let mut synced = Vec::new();
        make_private_dirs(&base.path().join("a/b/c"), |above| {
            assert!(base.path().join("a/b/c").exists(), "names are synced once they are there");
            synced.push(above.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(synced, [base.path().to_owned(), base.path().join("a"), base.path().join("a/b")]);
        make_private_dirs(&base.path().join("a/b"), |_| panic!("nothing is new")).unwrap();
    }

    #[test]
    fn links_and_lax_modes_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let real = base.path().join("real");
        let home = HomeDir::open(&real, true).unwrap();
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(HomeDir::open(&link, true), Err(DirError::SymbolicLink(_))));
        std::os::unix::fs::symlink("/etc/hostname", real.join("inside")).unwrap();
        assert!(home.open_file("inside", OFlag::O_RDONLY).is_err(), "a link inside the home is not followed");
        assert!(home.length_of_file("inside").unwrap_err().to_string().contains("link"));
        assert!(home.open_file("../real/inside", OFlag::O_RDONLY).is_err(), "nothing above the home is reached");
        // The twin: all three lead out.
        twin::without(Protection::NoFollow, || {
            HomeDir::open(&link, true).unwrap();
            home.open_file("inside", OFlag::O_RDONLY).unwrap();
            home.open_file("../real/inside", OFlag::O_RDONLY).unwrap();
        });
        std::fs::create_dir(real.join("part")).unwrap();
        let chmod = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        chmod(&real.join("part"), 0o707);
        assert!(home.has_dir("part").unwrap_err().to_string().contains("chmod"));
        chmod(&real, 0o770);
        assert!(matches!(HomeDir::open(&real, true), Err(DirError::Lax(_, 0o770))));
        twin::without(Protection::Private, || {
            assert!(home.has_dir("part").unwrap());
            HomeDir::open(&real, true).unwrap();
        });
        assert!(matches!(HomeDir::open(&base.path().join("none"), false), Err(DirError::Missing(_))));
    }

    #[test]
    fn what_is_no_directory_is_no_home() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(HomeDir::open(&file, true), Err(DirError::NotADirectory(_))));
        assert!(matches!(HomeDir::open(&file.join("below"), true), Err(DirError::NotADirectory(_))));
    }
}
