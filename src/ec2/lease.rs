//! One control operation on a volume or an instance at a time, across processes and threads.
//!
//! A lease is an open-file-description lock (fcntl(2), `F_OFD_SETLK`) on one byte of `run/leases`, its place computed from
//! its id. The kernel drops it when its holder ends, however it ends, so a row in a passing state whose lease
//! can be had was left there by a crash. The file never shrinks and holds no bytes: nothing to clean up. Two ids that
//! share a byte would only wait for each other.

use std::fmt::Display;
use std::fs::File;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::gate::ServiceError;
use crate::store::Home;
use crate::twin::{self, Protection};

/// How long an operation waits for another one on the same volume: attach and detach take well under a second, and a
/// detach that waits for a slow disk some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A control operation in progress; ends when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    _lock: File,
}

impl Lease {
    /// The lease of a volume or an instance, if nobody holds it.
    pub(super) fn try_take(home: &Home, id: &impl Display) -> Result<Option<Self>, ServiceError> {
        let file = home.dir().open_file("run/leases", OFlag::O_RDWR | OFlag::O_CREAT)?;
        let lock = libc::flock {
            l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: place(&id.to_string()),
            l_len: 1,
            l_pid: 0,
        };
        if twin::is_off(Protection::Lease) {
            return Ok(Some(Self { _lock: file }));
        }
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => Ok(Some(Self { _lock: file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(ServiceError::machine(std::io::Error::from(errno))),
        }
    }

    /// The lease as an operation keeps it between its preparation and its commit.
    pub(super) fn until_commit(self) -> Option<Self> {
        (!twin::is_off(Protection::LeaseToCommit)).then_some(self)
    }

    /// The lease, waiting for an operation that is under way.
    pub(super) fn take(home: &Home, id: &impl Display) -> Result<Self, ServiceError> {
        Self::take_within(home, id, PATIENCE)?.ok_or_else(|| {
            ServiceError::refused(
                "IncorrectState",
                format!("Another operation on '{id}' has not ended for {} seconds.", PATIENCE.as_secs()),
            )
        })
    }

    /// The same for an operation that is waited for no longer than `patience`; `None` if it goes on.
    pub(super) fn take_within(
        home: &Home,
        id: &impl Display,
        patience: Duration,
    ) -> Result<Option<Self>, ServiceError> {
        let deadline = Instant::now() + patience;
        loop {
            let lease = Self::try_take(home, id)?;
            if lease.is_some() || Instant::now() >= deadline {
                return Ok(lease);
            }
            sleep(Duration::from_millis(5));
        }
    }
}

/// The byte of `run/leases` that stands for the id: 62 bits of its digits.
fn place(id: &str) -> i64 {
    let digits = id.rsplit('-').next().unwrap_or_default();
    let number = u128::from_str_radix(digits, 16).unwrap_or_default();
    i64::try_from(number & (u128::from(u64::MAX) >> 2)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VolumeId;

    #[test]
    fn a_lease_excludes_another_on_the_same_volume_alone() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        let (one, other) = (VolumeId::random(), VolumeId::random());
        let held = Lease::take(&home, &one).unwrap();
        assert!(Lease::try_take(&home, &one).unwrap().is_none());
        assert!(
            twin::without(Protection::Lease, || Lease::try_take(&home, &one).unwrap()).is_some(),
            "the twin has two"
        );
        assert!(Lease::try_take(&home, &other).unwrap().is_some());
        drop(held);
        assert!(Lease::try_take(&home, &one).unwrap().is_some());
    }

    #[test]
    fn ids_of_any_length_have_a_place() {
        for id in ["vol-00000000", "vol-ffffffff", "vol-fffffffffffffffff", "vol-00000000000000000"] {
            assert!(place(id) >= 0, "{id}");
        }
    }
}
