//! Where an exporter is reached: two sockets and a log in the home's `run` directory, claimed by a lock on the log.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::dir::{DirError, HomeDir};
use crate::ids::VolumeId;

/// Longest path of a Unix socket in bytes: `sun_path` has 108, one of them for the final zero (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Path of the volume's NBD socket, which is there while the volume is attached: `run/<volume id>.sock`.
pub fn socket_path(home: &HomeDir, volume: &VolumeId) -> PathBuf {
    home.path_of(&name(volume, "sock"))
}

/// Path of the exporter's control socket: `run/<volume id>.ctl`.
pub(super) fn control_path(home: &HomeDir, volume: &VolumeId) -> PathBuf {
    home.path_of(&name(volume, "ctl"))
}

pub(super) fn name(volume: &VolumeId, ending: &str) -> String {
    format!("run/{volume}.{ending}")
}

/// The longer of the two socket paths if it does not fit a socket address.
pub(super) fn too_long(home: &HomeDir, volume: &VolumeId) -> Option<PathBuf> {
    let path = socket_path(home, volume);
    (path.as_os_str().len() > MAX_SOCKET_PATH_BYTES).then_some(path)
}

/// Why an exporter cannot have its place in `run`.
pub(super) enum ClaimError {
    /// A living exporter has it.
    Taken,
    Dir(DirError),
    Io(&'static str, io::Error),
}

/// The exclusive right to a volume's sockets, held by a lock on its log that the system takes back when we die.
pub(super) struct Claim<'a> {
    home: &'a HomeDir,
    volume: &'a VolumeId,
    pub(super) log: File,
}

impl<'a> Claim<'a> {
    pub(super) fn new(home: &'a HomeDir, volume: &'a VolumeId) -> Result<Self, ClaimError> {
        home.make_dir("run").map_err(ClaimError::Dir)?;
        let log = home
            .open_file(&name(volume, "log"), OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_APPEND)
            .map_err(ClaimError::Dir)?;
        match log.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ClaimError::Taken),
            Err(TryLockError::Error(error)) => return Err(ClaimError::Io("lock the log", error)),
        }
        log.set_len(0).map_err(|error| ClaimError::Io("empty the log", error))?;
        Ok(Self { home, volume, log })
    }

    /// Listens on both sockets, NBD and control, in the place of what a dead exporter left. Their mode is 0600, and the
    /// umask 077 has kept others out from the moment they exist.
    pub(super) fn listen(&self) -> Result<(UnixListener, UnixListener), ClaimError> {
        self.remove_sockets().map_err(ClaimError::Dir)?;
        let nbd = bind(&socket_path(self.home, self.volume))?;
        let control = bind(&control_path(self.home, self.volume))?;
        Ok((nbd, control))
    }

    pub(super) fn remove_sockets(&self) -> Result<(), DirError> {
        self.home.remove_file(&name(self.volume, "sock"))?;
        self.home.remove_file(&name(self.volume, "ctl"))
    }

    /// Takes the sockets away and lets the next exporter in, before this process ends.
    pub(super) fn give_up(self) {
        // What cannot be removed is found stale by the next exporter; what cannot be unlocked ends with us.
        let _ = self.remove_sockets();
        let _ = self.log.unlock();
    }
}

fn bind(path: &Path) -> Result<UnixListener, ClaimError> {
    let listener = UnixListener::bind(path).map_err(|error| ClaimError::Io("listen", error))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| ClaimError::Io("protect the socket", error))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_claim_is_respected_and_a_dead_one_replaced() {
        let base = tempfile::tempdir().unwrap();
        let home = HomeDir::open(&base.path().join("h"), true).unwrap();
        let volume = VolumeId::random();
        let claim = Claim::new(&home, &volume).ok().unwrap();
        let sockets = claim.listen().ok().unwrap();
        for path in [socket_path(&home, &volume), control_path(&home, &volume)] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
        }
        assert!(matches!(Claim::new(&home, &volume), Err(ClaimError::Taken)));
        // Dropped without giving up, as after a kill: the sockets stay, the lock does not.
        drop((claim, sockets));
        assert!(socket_path(&home, &volume).exists());
        let claim = Claim::new(&home, &volume).ok().unwrap();
        assert!(claim.listen().is_ok(), "stale sockets are replaced");
        claim.give_up();
        assert!(!socket_path(&home, &volume).exists());
        assert!(Claim::new(&home, &volume).is_ok());
    }

    #[test]
    fn the_longest_path_that_fits_is_accepted() {
        let base = tempfile::tempdir().unwrap();
        let volume = VolumeId::random();
        let inside = "/run/".len() + volume.as_str().len() + ".sock".len();
        let fill = MAX_SOCKET_PATH_BYTES - inside - base.path().canonicalize().unwrap().as_os_str().len() - 1;
        for (length, fits) in [(fill, true), (fill + 1, false)] {
            let home = HomeDir::open(&base.path().join("x".repeat(length)), true).unwrap();
            assert_eq!(too_long(&home, &volume).is_none(), fits);
            let bound = Claim::new(&home, &volume).ok().unwrap().listen();
            assert_eq!(bound.is_ok(), fits, "the system agrees");
        }
    }
}
