//! The latch beside a volume: the memory of a failed flush, for whoever opens the volume next.
//!
//! `vol-….luks.latch` is written before the client hears the error. Opening a latched volume drops the file's page
//! cache before it reads a byte, because after a failed writeback the cache shows bytes that the disk does not have;
//! once that is done what is served is what the disk has, and the opener that serves it removes the latch.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, PosixFadviseAdvice, openat, posix_fadvise};
use nix::sys::stat::Mode;

use super::{DIRECTORY, dir_error};
use crate::device::storage::Latch;
use crate::device::{DeviceError, DeviceErrorKind};
use crate::dir::HomeDir;

/// Name of the latch of the volume file `volume`, relative to the home as that is.
pub(super) fn relative_path(volume: &str) -> String {
    format!("{volume}.latch")
}

/// Where the latch of an open volume is written. The directory is held open: the latch must not depend on a path that
/// can be renamed meanwhile.
pub(super) struct LatchFile {
    directory: OwnedFd,
    name: String,
}

impl LatchFile {
    /// The latch of the volume file `volume`.
    pub(super) fn new(dir: &HomeDir, volume: &str) -> Result<Self, DeviceError> {
        let directory = dir.open_file(DIRECTORY, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(dir_error)?;
        let name = relative_path(volume.rsplit('/').next().unwrap_or(volume));
        Ok(Self { directory: directory.into(), name })
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
        let written = writeln!(file, "{why}").and_then(|()| file.sync_all());
        nix::unistd::fsync(&self.directory).map_err(|errno| fail(errno.into()))?;
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
