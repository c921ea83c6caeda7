//! The exporter's process as the system knows it, for the case that it does not answer any more.
//!
//! Process numbers are used again, and a copied home has volumes of the same ids. So a process counts as the exporter only
//! while it holds something of this very home: its control socket, or the lock on its log. That is looked at again after a
//! descriptor of the process was opened, which no other process can then be behind.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::dir::HomeDir;
use crate::ids::VolumeId;

use super::endpoint;
use super::exporter::EXPORTER_COMMAND;

/// How long the end of a killed process may take; on a stuck disk it does not end at all.
const DEATH_PATIENCE: Duration = Duration::from_secs(10);

/// Kills the exporter of `volume` in this home with SIGKILL and waits for its end. Answers its process id, or `None` if
/// there is no such process.
///
/// # Errors
/// If the process cannot be killed, or does not end within ten seconds.
pub fn kill(home: &HomeDir, volume: &VolumeId) -> io::Result<Option<i32>> {
    let Some((pid, process)) = find(home, volume) else { return Ok(None) };
    pidfd_send_signal(&process, Signal::KILL)?;
    let patience = PollTimeout::try_from(DEATH_PATIENCE).map_err(io::Error::other)?;
    // A process's descriptor is readable when it has ended (pidfd_open(2)).
    if poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], patience)? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {pid} was killed and does not end")));
    }
    Ok(Some(pid))
}

/// Whether an exporter of this home lives that has claimed the volume, be its file there or not.
pub fn is_claimed(home: &HomeDir, volume: &VolumeId) -> bool {
    let Ok(log) = home.open_file(&endpoint::name(volume, "log"), OFlag::O_RDONLY) else { return false };
    matches!(log.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
}

fn find(home: &HomeDir, volume: &VolumeId) -> Option<(i32, OwnedFd)> {
    behind_socket(home, volume).or_else(|| behind_lock(home, volume))
}

fn open(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// The process that listens on the control socket, also if it is stopped.
fn behind_socket(home: &HomeDir, volume: &VolumeId) -> Option<(i32, OwnedFd)> {
    if endpoint::too_long(home, volume).is_some() {
        return None;
    }
    let mut stream = UnixStream::connect(endpoint::control_path(home, volume)).ok()?;
    let pid = getsockopt(&stream, sockopt::PeerCredentials).ok()?.pid();
    let process = open(pid)?;
    // As long as nobody hung up, the process that listened lives, and its number is its own.
    stream.set_nonblocking(true).ok()?;
    let alive = stream.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    alive.then_some((pid, process))
}

/// The process that holds the lock on the log, as /proc/locks has it (proc(5)). Devices are not compared: some file
/// systems name another one there than stat(2) does.
fn behind_lock(home: &HomeDir, volume: &VolumeId) -> Option<(i32, OwnedFd)> {
    let log = home.open_file(&endpoint::name(volume, "log"), OFlag::O_RDONLY).ok()?;
    let inode = log.metadata().ok()?.ino().to_string();
    let holder = || {
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, "FLOCK", _, "WRITE", pid, file, ..] = fields[..] else { return None };
            (file.rsplit(':').next() == Some(inode.as_str())).then(|| pid.parse().ok())?
        })
    };
    let pid: i32 = holder()?;
    let process = open(pid)?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = line.split(|byte| *byte == 0).skip(1);
    let ours = arguments.next() == Some(EXPORTER_COMMAND.as_bytes())
        && arguments.next() == Some(volume.as_str().as_bytes())
        && holder() == Some(pid);
    ours.then_some((pid, process))
}
