//! The two locks of a volume file.
//!
//! *Ownership* is an open-file-description lock (fcntl(2), `F_OFD_SETLK`) on the whole file, gone with the descriptor however
//! its process ends: exclusive for whoever writes, shared among those that only read. *The header* is under flock(2), which is what cryptsetup takes: shared
//! while a volume is open, so that `luksDump` works, exclusive only around our own header writes.

use std::fs::File;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};

use crate::device::protections::Protections;
use crate::device::{DeviceError, DeviceErrorKind};
use crate::ids::VolumeId;

/// How long a header write waits for cryptsetup to finish with the header.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

/// The whole file, whatever its length becomes.
fn whole_file(kind: i32) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).expect("lock types are 0, 1 and 2"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("SEEK_SET is 0"),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Ownership of a volume file, until this is dropped. It is given back in words, because a child that another thread is
/// just starting may hold a copy of the descriptor for a moment longer.
#[derive(Debug)]
pub(in crate::device) struct Owner {
    file: File,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Closing the last copy of the descriptor gives it back too.
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK)));
    }
}

impl Owner {
    /// Lets others in that only read.
    pub(in crate::device) fn share(&self, id: &VolumeId) -> Result<(), DeviceError> {
        take(&self.file, libc::F_RDLCK, id)
    }
}

/// Takes ownership.
///
/// # Errors
/// [`DeviceErrorKind::Locked`] if anybody else has it.
pub(in crate::device) fn own(file: &File, id: &VolumeId) -> Result<Owner, DeviceError> {
    own_as(file, libc::F_WRLCK, id)
}

/// Joins those that only read the file.
///
/// # Errors
/// [`DeviceErrorKind::Locked`] if somebody has it for himself.
pub(in crate::device) fn join(file: &File, id: &VolumeId) -> Result<Owner, DeviceError> {
    own_as(file, libc::F_RDLCK, id)
}

fn own_as(file: &File, kind: i32, id: &VolumeId) -> Result<Owner, DeviceError> {
    let file = file.try_clone().map_err(|error| DeviceError::io("cannot copy a descriptor", error))?;
    take(&file, kind, id)?;
    Ok(Owner { file })
}

fn take(file: &File, kind: i32, id: &VolumeId) -> Result<(), DeviceError> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(kind))) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(DeviceError::new(
            DeviceErrorKind::Locked,
            format!("volume {id} is in use by another process; detach it first"),
        )),
        Err(errno) => Err(DeviceError::io(format!("cannot lock the file of volume {id}"), errno.into())),
    }
}

/// Whether somebody owns the file, alone or with others.
///
/// # Errors
/// If the file system knows no such locks.
pub(in crate::device) fn is_owned(file: &File) -> Result<bool, DeviceError> {
    is_refused(file, libc::F_WRLCK)
}

/// Whether somebody owns the file and lets nobody else in.
///
/// # Errors
/// If the file system knows no such locks.
pub(in crate::device) fn is_owned_alone(file: &File) -> Result<bool, DeviceError> {
    is_refused(file, libc::F_RDLCK)
}

fn is_refused(file: &File, kind: i32) -> Result<bool, DeviceError> {
    let mut lock = whole_file(kind);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))
        .map_err(|errno| DeviceError::io("cannot ask for a volume file's lock", errno.into()))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// cryptsetup's lock on the header, shared while this lives.
#[derive(Debug)]
pub(in crate::device) struct HeaderLock {
    lock: Flock<File>,
    protections: Protections,
}

impl HeaderLock {
    /// Takes the lock for reading, on a copy of `file`'s descriptor.
    ///
    /// # Errors
    /// [`DeviceErrorKind::Locked`] if somebody writes the header for longer than ten seconds.
    pub(in crate::device) fn shared(file: &File, protections: Protections) -> Result<Self, DeviceError> {
        let copy = file.try_clone().map_err(|error| DeviceError::io("cannot copy a descriptor", error))?;
        let mut candidate = Some(copy);
        let lock = patiently(|| {
            let copy = candidate.take().expect("it is put back whenever the lock was not given");
            Flock::lock(copy, FlockArg::LockSharedNonblock).map_err(|(copy, errno)| {
                candidate = Some(copy);
                errno
            })
        })?;
        Ok(Self { lock, protections })
    }

    /// Runs `write` while nobody else reads or writes the header.
    ///
    /// # Errors
    /// [`DeviceErrorKind::Locked`] if somebody holds the header for longer than ten seconds; else what `write` answers.
    pub(in crate::device) fn exclusively<T>(
        &self,
        write: impl FnOnce() -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        if !self.protections.header_lock() {
            return write();
        }
        patiently(|| self.lock.relock(FlockArg::LockExclusiveNonblock))?;
        let outcome = write();
        // Turning an exclusive lock into a shared one cannot be refused; should it be, the lock goes with the file.
        let shared = patiently(|| self.lock.relock(FlockArg::LockSharedNonblock));
        outcome.and_then(|value| shared.map(|()| value))
    }
}

fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Errno>) -> Result<T, DeviceError> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Errno::EINTR) => {}
            Err(Errno::EWOULDBLOCK) if start.elapsed() < HEADER_PATIENCE => sleep(Duration::from_millis(5)),
            Err(Errno::EWOULDBLOCK) => {
                return Err(DeviceError::new(
                    DeviceErrorKind::Locked,
                    "another program (cryptsetup?) keeps the volume's header locked; try again when it is done",
                ));
            }
            Err(errno) => return Err(DeviceError::io("cannot lock the volume's header", errno.into())),
        }
    }
}
