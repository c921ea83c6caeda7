//! The latch beside a volume: the memory of a failed flush, for whoever opens the volume next.
//!
//! `vol-….luks.latch` says that a flush failed before the client hears of it. Opening a latched volume drops the file's page
//! cache before it reads a byte, because after a failed writeback the cache shows bytes that the disk does not have;
//! once that is done what is served is what the disk has, and the opener that serves it clears the latch.
//!
//! The file is made when the volume is first opened for writing and stays: a disk that fails may be full as well, and to
//! overwrite a block that is there takes no room. A latch that is anything but cleared counts as set.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use nix::fcntl::{OFlag, PosixFadviseAdvice, openat, posix_fadvise};
use nix::sys::stat::Mode;

use super::{DIRECTORY, dir_error, not_found};
use crate::device::storage::Latch;
use crate::device::{DeviceError, DeviceErrorKind};
use crate::dir::{self, HomeDir};

/// How a cleared latch begins.
const CLEARED: &str = "no flush has failed\n";

/// Length of a latch: what a disk writes whole or not at all.
const BYTES: usize = 512;

/// Name of the latch of the volume file `volume`, relative to the home as that is.
pub(super) fn relative_path(volume: &str) -> String {
    format!("{volume}.latch")
}

/// Whether a flush of the volume file `volume` failed since it was last opened.
///
/// # Errors
/// If the latch cannot be read.
pub(super) fn is_set(dir: &HomeDir, volume: &str) -> Result<bool, DeviceError> {
    let path = relative_path(volume);
    let file = match dir.open_file(&path, OFlag::O_RDONLY) {
        Ok(file) => file,
        Err(error) if not_found(&error) => return Ok(false),
        Err(error) => return Err(dir_error(error)),
    };
    let mut found = Vec::with_capacity(BYTES);
    file.take(CLEARED.len() as u64).read_to_end(&mut found).map_err(|error| cannot("read", &path, error))?;
    Ok(found != CLEARED.as_bytes())
}

/// Clears the latch of a volume that shows what the disk has.
///
/// # Errors
/// If it cannot be written: it then counts as set.
pub(super) fn clear(dir: &HomeDir, volume: &str) -> Result<(), DeviceError> {
    let path = relative_path(volume);
    let file = dir.open_file(&path, OFlag::O_WRONLY).map_err(dir_error)?;
    overwrite(&file, CLEARED).map_err(|error| cannot("clear", &path, error))
}

/// Where the latch of an open volume is written. File and directory are held open: the latch must not depend on a path that
/// can be renamed meanwhile.
pub(in crate::device) struct LatchFile {
    directory: File,
    name: String,
    /// `None` if it was not made ahead.
    file: Option<File>,
}

impl LatchFile {
    /// The latch of the volume file `volume`; with `ahead` it is there, cleared and durable, when this returns.
    ///
    /// # Errors
    /// [`DeviceErrorKind::NoSpace`] if there is no room to make it ahead.
    pub(in crate::device) fn new(dir: &HomeDir, volume: &str, ahead: bool) -> Result<Self, DeviceError> {
        let directory = dir.open_file(DIRECTORY, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(dir_error)?;
        let name = relative_path(volume.rsplit('/').next().unwrap_or(volume));
        let file = match dir.open_file(&relative_path(volume), OFlag::O_WRONLY) {
            Ok(file) => Some(file),
            Err(error) if not_found(&error) && ahead => Some(make(dir, volume)?),
            Err(error) if not_found(&error) => None,
            Err(error) => return Err(dir_error(error)),
        };
        Ok(Self { directory, name, file })
    }
}

impl Latch for LatchFile {
    fn set(&self, why: &str) -> Result<(), DeviceError> {
        let fail = |error| cannot("write", &self.name, error);
        if let Some(file) = &self.file {
            let written = overwrite(file, why).and_then(|()| file.metadata());
            // A file that somebody removed remembers nothing.
            if written.map_err(fail)?.nlink() > 0 {
                return Ok(());
            }
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = openat(&self.directory, self.name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| fail(errno.into()))?;
        // An empty one counts as well; on a full disk the text may be missing.
        let written = overwrite(&File::from(file), why);
        dir::sync_names(&self.directory).map_err(fail)?;
        written.map_err(fail)
    }
}

/// Makes a cleared latch, whole or not at all.
fn make(dir: &HomeDir, volume: &str) -> Result<File, DeviceError> {
    let path = relative_path(volume);
    let unfinished = format!("{path}.new");
    dir.remove_file(&unfinished).map_err(dir_error)?;
    let file = dir.create_new(&unfinished).map_err(dir_error)?;
    let made = overwrite(&file, CLEARED).map_err(|error| cannot("make", &path, error)).and_then(|()| {
        dir.rename(&unfinished, &path).map_err(dir_error)?;
        dir.sync_dir(DIRECTORY).map_err(dir_error)
    });
    if made.is_err() {
        // The error to tell is the first one; what stays is swept later.
        let _ = dir.remove_file(&unfinished);
    }
    made.map(|()| file)
}

/// Writes the whole latch where it is, and durably.
fn overwrite(file: &File, text: &str) -> std::io::Result<()> {
    let mut content = [b' '; BYTES];
    let length = text.len().min(BYTES - 1);
    content[..length].copy_from_slice(&text.as_bytes()[..length]);
    content[BYTES - 1] = b'\n';
    file.write_all_at(&content, 0)?;
    dir::sync_file(file)
}

fn cannot(what: &str, path: &str, error: std::io::Error) -> DeviceError {
    DeviceError::io(format!("cannot {what} {path}"), error)
}

/// Makes sure that what is read from `file` next comes from the disk. Nobody may have the file mapped.
///
/// # Errors
/// If the kernel does not drop the pages.
pub(in crate::device) fn drop_page_cache(file: &File) -> Result<(), DeviceError> {
    // Dirty pages are not dropped: they are written, or fail and count as clean. That it fails again is no news.
    let _ = file.sync_data();
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(|errno| {
        DeviceError::new(DeviceErrorKind::Latched, "cannot drop what the page cache holds of a latched volume")
            .with_source(std::io::Error::from(errno))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power_cut::{Disk, comes_to};
    use crate::twin::{Protection, without};

    /// The power goes right after the latch was set, which was made ahead or not: whoever opens the volume then finds it.
    #[test]
    fn a_latch_that_was_set_survives_a_power_cut() {
        let survives = |ahead: bool| {
            let disk = Disk::ext4(64);
            let home = HomeDir::open(&disk.path().join("home"), true).unwrap();
            home.make_dir(DIRECTORY).unwrap();
            let latch = LatchFile::new(&home, "volumes/vol-0.luks", ahead).unwrap();
            disk.settle();
            latch.set("the disk failed").unwrap();
            let after = disk.after_a_cut();
            is_set(&HomeDir::open(&after.path().join("home"), false).unwrap(), "volumes/vol-0.luks").unwrap()
        };
        assert!(survives(true) && survives(false));
        comes_to(&false, || without(Protection::FileSync, || survives(true)));
        // On this file system a file's own sync takes its name along.
        comes_to(&false, || without(Protection::NameSync, || without(Protection::FileSync, || survives(false))));
    }
}
