//! The process that serves an attached volume, as this module starts, asks and ends it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::device::DeviceErrorKind;
use crate::export::control::{self, ControlError};
use crate::export::kernel::{KernelError, Place, Unwinding};
use crate::export::{self, Order, SpawnError, process};
use crate::gate::ServiceError;
use crate::ids::VolumeId;
use crate::secret::SecretBytes;
use crate::store::Home;

use super::table::{AttachmentRow, VolumeRow};
use super::{disk, params, settle};

/// How long an exporter may write back before its end. A detach that takes longer is answered with an error and goes on.
const WRITE_BACK_PATIENCE: Duration = Duration::from_mins(1);

/// The same where it may be killed.
const FORCE_PATIENCE: Duration = Duration::from_secs(3);

/// What an attached volume is served as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// An NBD socket.
    Nbd,
    /// The same, and a loop device on a file that is served through FUSE.
    FuseLoop,
}

impl Way {
    /// What the parameter `AttachAs` asks for, if this process may do it.
    pub(super) fn of(home: &Home, asked: Option<&str>) -> Result<Self, ServiceError> {
        match asked {
            None | Some("auto" | "nbd") => Ok(Self::Nbd),
            Some("fuse-loop") if home.is_scratch() || nix::unistd::geteuid().is_root() => Ok(Self::FuseLoop),
            Some("fuse-loop") => Err(ServiceError::refused(
                "OperationNotPermitted",
                "A device of this machine's kernel is made for root alone; any user may attach as 'nbd'.",
            )),
            Some(other) => Err(ServiceError::refused(
                "InvalidParameterValue",
                format!(
                    "Value ({}) for parameter attachAs is invalid. Expected: 'auto', 'nbd' or 'fuse-loop'.",
                    params::short(other)
                ),
            )),
        }
    }
}

/// Starts the exporter and answers its process id once it serves.
pub(super) fn start(home: &Home, row: &VolumeRow, key: Option<SecretBytes>, way: Way) -> Result<i64, ServiceError> {
    if home.is_scratch() {
        return Ok(0);
    }
    let order = Order::new(home.dir(), &row.id, disk::expected(row), false);
    let order = if way == Way::FuseLoop { order.with_kernel_device() } else { order };
    match export::spawn(&program(), &order, key.as_ref()) {
        Ok(exporter) => {
            if exporter.was_latched {
                settle::tell(
                    home,
                    &format!(
                        "a flush of volume {} had failed: what was written after the last good one may be missing",
                        row.id
                    ),
                )?;
            }
            if exporter.unlocked_bytes > 0 {
                settle::tell(
                    home,
                    &format!(
                        "the key of volume {} lies in memory that could not be locked and may reach swap; raise the limit \
                         on locked memory (ulimit -l) and attach it again",
                        row.id
                    ),
                )?;
            }
            Ok(i64::from(exporter.pid))
        }
        Err(SpawnError::AlreadyServed(_) | SpawnError::Device { kind: DeviceErrorKind::Locked, .. }) => {
            Err(in_use(&row.id))
        }
        Err(error) => Err(ServiceError::machine(error)),
    }
}

/// The refusal for a volume whose file another process holds.
pub(super) fn in_use(id: &VolumeId) -> ServiceError {
    ServiceError::refused("VolumeInUse", format!("{id} is in use by another command on this machine"))
        .with_hint("try again once that command has ended")
}

/// Our own binary, also when its file was replaced since we started.
fn program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// What an exporter says when it is asked for a sign of life.
pub(super) enum Sign {
    /// It serves; its process id.
    Serves(i64),
    /// It is on its way to its end.
    Ends,
    /// Nobody listens: it has ended, or has only just begun.
    Nobody,
    /// It listens and says nothing.
    Silent,
}

/// Asks the volume's exporter for a sign of life; takes 200 ms at most.
pub(super) fn sign_of(home: &Home, id: &VolumeId) -> Sign {
    match control::probe(home.dir(), id) {
        Ok(status) if status.ending => Sign::Ends,
        Ok(status) => Sign::Serves(i64::from(status.pid)),
        Err(ControlError::NobodyThere(_) | ControlError::Died(_)) => Sign::Nobody,
        Err(_) => Sign::Silent,
    }
}

/// Whether an exporter of this home lives that has the volume, or had it before its file was taken away.
pub(super) fn is_alive(home: &Home, id: &VolumeId) -> Result<bool, ServiceError> {
    Ok(disk::is_held(home, id)? || process::is_claimed(home.dir(), id))
}

/// Why an exporter was not ended.
pub(super) enum Unstopped {
    /// It is on its way to its end, which it reaches by itself.
    Ending(ServiceError),
    /// It goes on as before.
    Failed(ServiceError),
}

impl<E: Into<ServiceError>> From<E> for Unstopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Ends the exporter: when this returns `Ok`, nobody holds the volume. The text is what the user must hear of the end, if
/// anything.
///
/// # Errors
/// If the exporter does not end and `force` does not allow to kill it, or the kernel does not let it die.
pub(super) fn stop(home: &Home, attachment: &AttachmentRow, force: bool) -> Result<Option<String>, Unstopped> {
    if home.is_scratch() {
        return Ok(None);
    }
    let id = &attachment.volume;
    let broken = match unwind(home, id, if force { Unwinding::Forced } else { Unwinding::Gentle }) {
        Ok(broken) => broken,
        // Whatever keeps it ends with the exporter.
        Err(_) if force => None,
        Err(error) => return Err(Unstopped::Failed(still_used(id, &error))),
    };
    let told = match control::detach_within(home.dir(), id, if force { FORCE_PATIENCE } else { WRITE_BACK_PATIENCE }) {
        Ok(()) => None,
        Err(error @ ControlError::FlushFailed { .. }) => Some(error.to_string()),
        // It was dead or died of it: the lock tells.
        Err(ControlError::NobodyThere(_) | ControlError::Died(_)) if !lives_for(home, id, Duration::from_secs(5))? => {
            None
        }
        Err(_) if force => {
            kill(home, id)?;
            None
        }
        Err(error) => {
            let process = attachment.exporter.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let refused = ServiceError::refused(
                "IncorrectState",
                format!(
                    "Volume '{id}' is not detached: {}{process}. It is waited for its clients and its disk; --force ends \
                     it, at the price of what was not flushed.",
                    crate::gate::chain(&error)
                ),
            );
            return Err(match error {
                ControlError::Busy { .. } => Unstopped::Ending(refused),
                _ => Unstopped::Failed(refused),
            });
        }
    };
    if lives_for(home, id, Duration::from_secs(10))? {
        return Err(ServiceError::machine(format!("the file of volume {id} is still held by a process")).into());
    }
    clear(home, id)?;
    let told: Vec<String> = told.into_iter().chain(broken).collect();
    Ok((!told.is_empty()).then(|| told.join("; ")))
}

/// The refusal to take a kernel device away; the kernel says who uses it.
fn still_used(id: &VolumeId, error: &KernelError) -> ServiceError {
    match error {
        KernelError::InUse { .. } => ServiceError::refused(
            "IncorrectState",
            format!(
                "Volume '{id}' is not detached: {error}. Unmount or close it first; --force takes it away under its users, who \
                 get I/O errors, and what they did not flush is lost."
            ),
        ),
        _ => ServiceError::refused(
            "IncorrectState",
            format!("Volume '{id}' is not detached: {}. --force goes on without waiting.", crate::gate::chain(error)),
        ),
    }
}

/// Takes the volume's kernel device away, if it has one.
fn unwind(home: &Home, id: &VolumeId, how: Unwinding) -> Result<Option<String>, KernelError> {
    // A scratch home has its original's folder.
    if home.is_scratch() {
        return Ok(None);
    }
    Place::of(home.dir(), id)?.unwind(how)
}

/// Takes away what a dead exporter left of a kernel device; answers who still uses it, if somebody does.
pub(super) fn let_go(home: &Home, id: &VolumeId) -> Option<String> {
    unwind(home, id, Unwinding::Gentle).err().map(|error| crate::gate::chain(&error))
}

/// The device of this machine's kernel, such as `/dev/loop0`, if the volume is one.
pub(super) fn kernel_device(home: &Home, id: &VolumeId) -> Option<String> {
    if home.is_scratch() {
        return None;
    }
    let device = Place::of(home.dir(), id).ok()?.device()?;
    Some(device.to_string_lossy().into_owned())
}

/// Kills the exporter and has the user told what that may have cost.
pub(super) fn kill(home: &Home, id: &VolumeId) -> Result<(), ServiceError> {
    if process::kill(home.dir(), id).map_err(ServiceError::machine)?.is_some() {
        settle::tell(
            home,
            &format!("the exporter of volume {id} was killed; what no flush had acknowledged may be lost"),
        )?;
    }
    Ok(())
}

/// Ends an exporter that serves a file which is the volume's no more; answers whether it is gone.
pub(super) fn end_orphan(home: &Home, id: &VolumeId) -> Result<bool, ServiceError> {
    let ended = match sign_of(home, id) {
        // One that has only just begun; it will miss its starter.
        Sign::Nobody => return Ok(false),
        Sign::Silent => false,
        Sign::Serves(_) | Sign::Ends => {
            let answer = control::detach_within(home.dir(), id, FORCE_PATIENCE);
            matches!(answer, Ok(()) | Err(ControlError::FlushFailed { .. }))
        }
    };
    if !ended {
        process::kill(home.dir(), id).map_err(ServiceError::machine)?;
    }
    Ok(!lives_for(home, id, Duration::from_secs(1))?)
}

/// Whether the exporter is still there after `patience`.
fn lives_for(home: &Home, id: &VolumeId, patience: Duration) -> Result<bool, ServiceError> {
    let deadline = Instant::now() + patience;
    while is_alive(home, id)? {
        if Instant::now() >= deadline {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(false)
}

/// Removes the sockets of an exporter that is gone, and its kernel device.
pub(super) fn clear(home: &Home, id: &VolumeId) -> Result<(), ServiceError> {
    unwind(home, id, Unwinding::Forced).map_err(ServiceError::machine)?;
    for suffix in ["sock", "ctl"] {
        home.dir().remove_file(&format!("run/{id}.{suffix}"))?;
    }
    Ok(())
}
