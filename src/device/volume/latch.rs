//! The latch beside a volume: the memory of a failed flush, for whoever opens the volume next.
//!
//! `vol-….luks.latch` is written before the client hears the error. Opening a latched volume drops the file's page
//! cache before it reads a byte, because after a failed writeback the cache shows bytes that the disk does not have;
//! once that is done what is served is what the disk has, and the opener that serves it removes the latch.

use std::fs::File;
use std::io::Write as _;

use nix::fcntl::{OFlag, PosixFadviseAdvice, openat, posix_fadvise};
use nix::sys::stat::Mode;

use super::{DIRECTORY, dir_error};
use crate::device::storage::Latch;
use crate::device::{DeviceError, DeviceErrorKind};
use crate::dir::{self, HomeDir};

/// Name of the latch of the volume file `volume`, relative to the home as that is.
pub(super) fn relative_path(volume: &str) -> String {
    format!("{volume}.latch")
}

/// Where the latch of an open volume is written. The directory is held open: the latch must not depend on a path that
/// can be renamed meanwhile.
pub(super) struct LatchFile {
    directory: File,
    name: String,
}

impl LatchFile {
    /// The latch of the volume file `volume`.
    pub(super) fn new(dir: &HomeDir, volume: &str) -> Result<Self, DeviceError> {
        let directory = dir.open_file(DIRECTORY, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(dir_error)?;
        let name = relative_path(volume.rsplit('/').next().unwrap_or(volume));
        Ok(Self { directory, name })
    }
}

impl Latch for LatchFile {
    fn set(&self, why: &str) -> Result<(), DeviceError> {
        let fail = |error| DeviceError::io(format!("cannot write {}", self.name), error);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = openat(&self.directory, self.name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| fail(errno.into()))?;
        let mut file = File::from(file);
        // Its being there is what counts; on a full disk the text may be missing.
        let written = writeln!(file, "{why}").and_then(|()| dir::sync_file(&file));
        dir::sync_names(&self.directory).map_err(fail)?;
        written.map_err(fail)
    }
}

/// Makes sure that what is read from `file` next comes from the disk. Nobody may have the file mapped.
///
/// # Errors
/// If the kernel does not drop the pages.
pub(super) fn drop_page_cache(file: &File) -> Result<(), DeviceError> {
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

    /// The power goes right after the latch was set: whoever opens the volume then finds it.
    #[test]
    fn a_latch_that_was_set_survives_a_power_cut() {
        let survives = || {
            let disk = Disk::ext4(64);
            let home = HomeDir::open(&disk.path().join("home"), true).unwrap();
            home.make_dir(DIRECTORY).unwrap();
            disk.settle();
            LatchFile::new(&home, "volumes/vol-0.luks").unwrap().set("the disk failed").unwrap();
            let after = disk.after_a_cut();
            std::fs::read_to_string(after.path().join("home/volumes/vol-0.luks.latch")).ok()
        };
        assert_eq!(survives().as_deref(), Some("the disk failed\n"));
        // On this file system a file's own sync takes its name along; neither alone is lost without the other.
        comes_to(&Some(String::new()), || without(Protection::FileSync, survives));
        comes_to(&None, || without(Protection::NameSync, || without(Protection::FileSync, survives)));
    }
}
