//! Room that a home keeps for itself, so that a full disk does not lock its user out.
//!
//! Every operation writes, a describe its record and a detach its end, and SQLite cannot even open its log's index without
//! 32 KiB of room. So the home holds a file of 1 MiB with nothing in it. It is given up while the disk is full, and made
//! again as large as it can be when the command ends. Who fills the disk in between gets it: what is attached does not, as
//! its writes stop short of the last blocks by themselves.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate, openat};
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;

use crate::dir::{DirError, HomeDir};

const FILE: &str = "ballast";
const BYTES: u64 = 1 << 20;

/// Less than this much free room besides the ballast is a full disk: what the log grows by in one operation, with the file
/// system's own need for it.
const LOW_BYTES: u64 = 512 << 10;

#[derive(Debug)]
pub(super) struct Ballast {
    /// The home's directory; `None` for a home that keeps no room.
    home: Option<OwnedFd>,
    scarce: AtomicBool,
}

impl Ballast {
    /// Of an open home; looked at, and given up if the disk is full.
    pub(super) fn of(dir: &HomeDir) -> Result<Self, DirError> {
        dir.length_of_file(FILE)?;
        let home = dir.as_fd().try_clone_to_owned().map_err(|source| DirError::Io {
            action: "look at",
            path: dir.path().to_owned(),
            source,
        })?;
        let ballast = Self { home: Some(home), scarce: AtomicBool::new(false) };
        ballast.look();
        Ok(ballast)
    }

    /// Of a home whose state is in memory: there is none, and the disk is never full.
    pub(super) const fn none() -> Self {
        Self { home: None, scarce: AtomicBool::new(false) }
    }

    /// Whether the disk was full when it was last looked at.
    pub(super) fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed)
    }

    /// Gives it up if the disk is full, and makes it whole if there is room.
    pub(super) fn look(&self) {
        let Some(Ok(disk)) = self.home.as_ref().map(fstatvfs) else { return };
        // A file system that does not count its blocks never has too few.
        let free = if disk.blocks() == 0 { u64::MAX } else { disk.blocks_available() * disk.fragment_size() };
        let missing = BYTES.saturating_sub(self.file(OFlag::empty()).map_or(0, |file| allocated(&file)));
        let scarce =
            free < LOW_BYTES + missing || missing > 0 && matches!(self.make(BYTES), Err(Errno::ENOSPC | Errno::EDQUOT));
        if scarce {
            self.give_up();
        }
        self.scarce.store(scarce, Ordering::Relaxed);
    }

    /// Frees its blocks, whatever the disk's figures say.
    pub(super) fn give_up(&self) {
        self.scarce.store(true, Ordering::Relaxed);
        if let Ok(file) = self.file(OFlag::empty())
            && allocated(&file) > 0
        {
            // ext4 hands freed blocks out again once the freeing is committed.
            let _ = file.set_len(0).and_then(|()| file.sync_all());
        }
    }

    fn make(&self, bytes: u64) -> Result<(), Errno> {
        let file = self.file(OFlag::O_CREAT)?;
        let length = i64::try_from(bytes).map_err(|_| Errno::EFBIG)?;
        let made = fallocate(&file, FallocateFlags::empty(), 0, length);
        if made.is_err() {
            let _ = file.set_len(0);
        }
        made
    }

    fn file(&self, flags: OFlag) -> Result<File, Errno> {
        let flags = flags | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(self.home.as_ref().ok_or(Errno::EBADF)?, FILE, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        if self.is_scarce() {
            // As much of it as there is, for the next command.
            let _ = (0..4).find(|halvings| self.make(BYTES >> halvings).is_ok());
        }
    }
}

fn allocated(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.blocks() * 512)
}
