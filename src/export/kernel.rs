//! A volume as a device of this machine's kernel: a file served through FUSE (`export::fuse`) and a loop device on it.
//!
//! Everything is found again from what the kernel itself says: the file's place follows from the home and the volume, the
//! loop device's `backing_file` in sysfs (Documentation/ABI/testing/sysfs-block-loop) names that place, and the list of
//! mounts says whether it is served. Nothing here looks at the file itself, which hangs with its exporter.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::device::BlockDevice;
use crate::dir::HomeDir;
use crate::ids::VolumeId;

use super::fuse::Served;
use super::loop_device;
use super::server::Shared;

/// The hidden subcommand under which the program's `main` calls [`helper_main`].
pub const DEVICE_COMMAND: &str = "__device";

/// The helper's exit code for a device that somebody uses.
const IN_USE: u8 = 16;

/// How long the ioctls of a helper may take; freeing a device writes back what the kernel holds of it.
const HELPER_PATIENCE: Duration = Duration::from_secs(30);

/// The same where the exporter may not answer any more.
const FORCE_PATIENCE: Duration = Duration::from_secs(2);

/// How long a program may have the device open to look at it.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);

/// How a mount is named among a device's users, of which it comes first.
const MOUNTED: &str = "mounted on ";

/// How long the kernel may take to let go of a device whose last user went.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// How long the kernel may take to see that a file has grown.
const GROWTH_PATIENCE: Duration = Duration::from_secs(10);

/// Why a kernel device was not made or taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Somebody uses the device.
    #[error("{} is in use: {by}", .device.display())]
    InUse {
        /// The device.
        device: PathBuf,
        /// Who, for people.
        by: String,
    },
    /// The kernel does not let go of it.
    #[error("the kernel has not let go of {} for {} s", .what.display(), .patience.as_secs())]
    Stuck {
        /// The device, or the file that it is on.
        what: PathBuf,
        /// How long it was waited.
        patience: Duration,
    },
    /// A folder below `/run` is not this user's alone.
    #[error("{} belongs to somebody else or is open to others", .0.display())]
    NotPrivate(PathBuf),
    /// The system refused.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why.
        source: io::Error,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> KernelError {
    let what = what.into();
    |source| KernelError::Io { what, source }
}

/// How a kernel device is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unwinding {
    /// Refused while somebody uses it.
    Gentle,
    /// Whoever uses it is left with a device that gives errors.
    Forced,
}

/// Where a volume's file is served: `/run/blockseal/<device and inode of the home>/<volume id>`, outside of every home, so
/// that nobody who walks through a home reads plaintext or hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// The place of the home's volume. Nothing need be there.
    ///
    /// # Errors
    /// If the home cannot be looked at.
    pub fn of(home: &HomeDir, volume: &VolumeId) -> Result<Self, KernelError> {
        let found =
            nix::sys::stat::fstat(home.as_fd()).map_err(io::Error::from).map_err(io_error("look at the home"))?;
        Ok(Self(PathBuf::from(format!("/run/blockseal/{:x}-{:x}/{volume}", found.st_dev, found.st_ino))))
    }

    /// The loop device on it, such as `/dev/loop0`, if there is one.
    pub fn device(&self) -> Option<PathBuf> {
        self.is_prepared().then(|| self.devices().into_iter().next())?
    }

    /// Makes the loop device on it, if there is one, as long as the volume has grown to be.
    ///
    /// # Errors
    /// [`KernelError::Stuck`] if the kernel does not see the new size in time.
    pub fn grow(&self, bytes: u64) -> Result<(), KernelError> {
        let Some(device) = self.device() else { return Ok(()) };
        let bytes = bytes.to_string();
        let arguments = ["grow".as_ref(), device.as_os_str(), self.0.as_os_str(), bytes.as_ref()];
        match run_helper(&arguments, HELPER_PATIENCE) {
            Ok((0, _)) => Ok(()),
            Ok((_, said)) => Err(io_error(format!("make {} longer", device.display()))(io::Error::other(said))),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(KernelError::Stuck { what: device, patience: HELPER_PATIENCE })
            }
            Err(error) => Err(io_error("run the helper")(error)),
        }
    }

    /// Takes loop device, mount and file away, in this order. Answers what that broke, for people, if it was forced.
    ///
    /// # Errors
    /// [`KernelError::InUse`], and what the kernel refuses.
    pub fn unwind(&self, how: Unwinding) -> Result<Option<String>, KernelError> {
        if !self.is_prepared() {
            return Ok(None);
        }
        let forced = how == Unwinding::Forced;
        let mut broken = None;
        for device in self.devices() {
            broken = self.take_away(&device, forced)?.or(broken);
        }
        self.unmount(forced)?;
        for outcome in [fs::remove_file(&self.0), self.0.parent().map_or(Ok(()), fs::remove_dir)] {
            match outcome {
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    return Err(io_error(format!("remove {}", self.0.display()))(error));
                }
                _ => {}
            }
        }
        Ok(broken)
    }

    fn is_prepared(&self) -> bool {
        self.0.parent().is_some_and(|folder| fs::symlink_metadata(folder).is_ok())
    }

    /// Makes the empty file to mount on, and the folders above it, for this user alone.
    fn prepare(&self) -> Result<(), KernelError> {
        let folders: Vec<&Path> = self.0.ancestors().skip(1).take(2).collect();
        for folder in folders.into_iter().rev() {
            match fs::DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error(format!("make {}", folder.display()))(error));
                }
                _ => {}
            }
            let found = fs::symlink_metadata(folder).map_err(io_error(format!("look at {}", folder.display())))?;
            if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
                return Err(KernelError::NotPrivate(folder.to_owned()));
            }
        }
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0);
        made.map(drop).map_err(io_error(format!("make {}", self.0.display())))
    }

    /// Every loop device whose file this is: one, but for a helper that was killed and tried again.
    fn devices(&self) -> Vec<PathBuf> {
        let loops = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let names = loops.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| name.starts_with("loop"))
            .map(|name| Path::new("/dev").join(name))
            .filter(|device| self.is_behind(device))
            .collect()
    }

    /// Whether the device is on this file.
    fn is_behind(&self, device: &Path) -> bool {
        let text = fs::read_to_string(sysfs_of(device).join("loop/backing_file")).unwrap_or_default();
        Path::new(text.trim_end_matches('\n')) == self.0
    }

    fn is_mounted(&self) -> bool {
        mounts().iter().any(|mount| Path::new(&mount.on) == self.0)
    }

    /// Takes the loop device away; answers what that broke.
    fn take_away(&self, device: &Path, forced: bool) -> Result<Option<String>, KernelError> {
        let mut used = None;
        // A program that only looks at a new device, as udev does, is soon done.
        wait_for(LOOK_PATIENCE, || {
            used = users_of(device);
            used.as_ref().is_none_or(|by| forced || by.starts_with(MOUNTED))
        });
        match used {
            Some(by) if !forced => Err(KernelError::InUse { device: device.to_owned(), by }),
            Some(by) => {
                // Where it fails its exporter does not answer; once that is dead the kernel goes on.
                let _ = self.free(device, forced);
                Ok(Some(format!(
                    "{} was taken away while it was in use ({by}): it gives I/O errors from now on, and goes when nobody uses \
                     it any more; what was not flushed is lost",
                    device.display()
                )))
            }
            None => {
                let freed = self.free(device, forced).and_then(|()| self.wait_until_released(device, forced));
                if forced { Ok(None) } else { freed.map(|()| None) }
            }
        }
    }

    fn free(&self, device: &Path, forced: bool) -> Result<(), KernelError> {
        let (how, patience) = if forced { ("forced", FORCE_PATIENCE) } else { ("gentle", HELPER_PATIENCE) };
        let arguments = ["clear".as_ref(), device.as_os_str(), self.0.as_os_str(), how.as_ref()];
        match run_helper(&arguments, patience) {
            Ok((0, _)) => Ok(()),
            Ok((code, _)) if code == i32::from(IN_USE) => {
                let by = users_of(device).unwrap_or_else(|| "by a program that keeps it for itself".to_owned());
                Err(KernelError::InUse { device: device.to_owned(), by })
            }
            Ok((_, said)) => Err(io_error(format!("free {}", device.display()))(io::Error::other(said))),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(KernelError::Stuck { what: device.to_owned(), patience })
            }
            Err(error) => Err(io_error("run the helper")(error)),
        }
    }

    fn wait_until_released(&self, device: &Path, forced: bool) -> Result<(), KernelError> {
        if wait_for(RELEASE_PATIENCE, || !self.is_behind(device)) || forced {
            return Ok(());
        }
        match users_of(device) {
            Some(by) => Err(KernelError::InUse { device: device.to_owned(), by }),
            None => Err(KernelError::Stuck { what: device.to_owned(), patience: RELEASE_PATIENCE }),
        }
    }

    fn unmount(&self, forced: bool) -> Result<(), KernelError> {
        let flags = if forced { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        let mut outcome = Ok(());
        // A freed loop device closes its file a moment later.
        let done = wait_for(RELEASE_PATIENCE, || {
            outcome =
                if self.is_mounted() { umount2(&self.0, flags | MntFlags::UMOUNT_NOFOLLOW) } else { return true };
            !matches!(outcome, Ok(()) | Err(Errno::EBUSY))
        });
        match outcome {
            _ if done && !self.is_mounted() => Ok(()),
            Err(Errno::EBUSY) | Ok(()) => Err(KernelError::Stuck { what: self.0.clone(), patience: RELEASE_PATIENCE }),
            Err(errno) => Err(io_error(format!("unmount {}", self.0.display()))(errno.into())),
        }
    }
}

/// A kernel device from the exporter's side.
pub(super) struct KernelDevice {
    place: Place,
    served: Served,
    path: PathBuf,
}

impl KernelDevice {
    /// Serves the device as a file and has a helper put a loop device on it. What an exporter before left is taken away.
    pub(super) fn start(
        place: Place,
        device: Arc<dyn BlockDevice>,
        observed: Arc<Shared>,
    ) -> Result<Self, KernelError> {
        place.unwind(Unwinding::Gentle)?;
        place.prepare()?;
        let read_only = if device.read_only() { "read-only" } else { "read-write" };
        let started = Served::start(device, observed, &place.0)
            .map_err(io_error("mount a file through FUSE"))
            .and_then(|served| {
                let arguments = ["configure".as_ref(), place.0.as_os_str(), read_only.as_ref()];
                let (code, said) = run_helper(&arguments, HELPER_PATIENCE).map_err(io_error("run the helper"))?;
                if code != 0 {
                    return Err(io_error("make a loop device")(io::Error::other(said)));
                }
                Ok((served, PathBuf::from(said)))
            });
        match started {
            Ok((served, path)) => Ok(Self { place, served, path }),
            Err(error) => {
                // What stays is found by the next command.
                let _ = place.unwind(Unwinding::Forced);
                Err(error)
            }
        }
    }

    /// Such as `/dev/loop0`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the device away, if nobody uses it, and waits until no request for it is under way. One that is in use gives
    /// errors when this process has ended.
    pub(super) fn end(self) -> Result<(), KernelError> {
        self.place.unwind(Unwinding::Gentle)?;
        self.served.join().map_err(io_error("serve the file"))
    }
}

/// See [`loop_device::become_io_flusher`].
pub(super) fn become_io_flusher() -> io::Result<()> {
    loop_device::become_io_flusher()
}

/// What the helper process runs: `configure FILE read-only|read-write`, which prints the device, or `clear DEVICE FILE
/// gentle|forced`.
pub fn helper_main(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let words: Vec<&Path> = arguments.iter().map(Path::new).collect();
    let is = |word: &Path, text: &str| word == Path::new(text);
    let outcome = match words[..] {
        [verb, file, mode] if is(verb, "configure") => configure(file, is(mode, "read-only")),
        [verb, device, file, how] if is(verb, "clear") => {
            let place = Place(file.to_owned());
            loop_device::clear(device, is(how, "gentle"), || place.is_behind(device))
        }
        [verb, device, file, bytes] if is(verb, "grow") => grow(device, file, bytes),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a command of the helper")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => ExitCode::from(IN_USE),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn configure(file: &Path, read_only: bool) -> io::Result<()> {
    let device = loop_device::configure(file, read_only)?;
    // A kernel that cannot do it says nothing and caches every page twice.
    if fs::read_to_string(sysfs_of(&device).join("loop/dio"))?.trim() != "1" {
        loop_device::clear(&device, false, || true)?;
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel does no direct I/O on this file"));
    }
    println!("{}", device.display());
    Ok(())
}

/// The kernel believes the size of a file that FUSE serves for a second before it asks again.
fn grow(device: &Path, file: &Path, bytes: &Path) -> io::Result<()> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not a size");
    let bytes: u64 = bytes.to_str().and_then(|bytes| bytes.parse().ok()).ok_or_else(invalid)?;
    let size = sysfs_of(device).join("size");
    let mut outcome = Ok(());
    let grown = wait_for(GROWTH_PATIENCE, || {
        outcome = fs::metadata(file).and_then(|_| loop_device::resize(device));
        let sectors = fs::read_to_string(&size).ok().and_then(|sectors| sectors.trim().parse::<u64>().ok());
        outcome.is_err() || sectors.is_some_and(|sectors| sectors.saturating_mul(512) >= bytes)
    });
    outcome?;
    if grown { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}

/// Runs the helper; answers its exit code and what it said, on standard output or else standard error.
fn run_helper(arguments: &[&std::ffi::OsStr], patience: Duration) -> io::Result<(i32, String)> {
    let mut child = Command::new("/proc/self/exe")
        .arg(DEVICE_COMMAND)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut status = None;
    let ended = wait_for(patience, || {
        status = child.try_wait().transpose();
        status.is_some()
    });
    if !ended {
        // A helper that waits in the kernel dies when the exporter does; nobody waits for it.
        let _ = child.kill();
        let _ = std::thread::Builder::new().name("reap".into()).spawn(move || child.wait());
        return Err(io::ErrorKind::TimedOut.into());
    }
    let code = status.transpose()?.and_then(|status| status.code()).unwrap_or(-1);
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(4096).read_to_string(&mut said)?;
    }
    if let Some(stderr) = child.stderr.take().filter(|_| said.is_empty()) {
        stderr.take(4096).read_to_string(&mut said)?;
    }
    Ok((code, said.trim().to_owned()))
}

fn wait_for(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

fn sysfs_of(device: &Path) -> PathBuf {
    Path::new("/sys/block").join(device.file_name().unwrap_or_default())
}

/// A line of `/proc/self/mountinfo` (proc(5)).
struct Mount {
    /// Major and minor number of what is mounted.
    device: String,
    on: String,
}

fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = text.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        let on = fields.nth(1)?.replace("\\040", " ");
        Some(Mount { device, on })
    });
    mounts.collect()
}

/// Who uses the block device, for people: mounts, holders such as dm-crypt, and programs that have it open.
fn users_of(device: &Path) -> Option<String> {
    let sysfs = sysfs_of(device);
    let number = fs::read_to_string(sysfs.join("dev")).unwrap_or_default();
    let mut users: Vec<String> = mounts()
        .into_iter()
        .filter(|mount| mount.device == number.trim())
        .map(|mount| format!("{MOUNTED}{}", mount.on))
        .collect();
    let holders = fs::read_dir(sysfs.join("holders")).into_iter().flatten().flatten();
    users.extend(holders.map(|holder| format!("under /dev/{}", holder.file_name().to_string_lossy())));
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let mut open = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        if open.any(|open| fs::read_link(open.path()).is_ok_and(|target| target == device)) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            users.push(format!("open in {} (process {pid})", name.trim()));
        }
    }
    (!users.is_empty()).then(|| users.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_mounted_and_its_lines_are_read() {
        assert!(mounts().iter().any(|mount| mount.on == "/" && mount.device.contains(':')));
        assert!(mounts().iter().any(|mount| mount.on == "/proc"));
    }

    #[test]
    fn a_place_is_the_homes_own_and_nothing_there_is_nothing_to_unwind() {
        let base = tempfile::tempdir().unwrap();
        let volume = VolumeId::random();
        let homes = ["one", "other"].map(|name| HomeDir::open(&base.path().join(name), true).unwrap());
        let places = homes.each_ref().map(|home| Place::of(home, &volume).unwrap());
        assert_ne!(places[0], places[1]);
        assert_eq!(places[0].device(), None);
        assert!(places[0].unwind(Unwinding::Gentle).unwrap().is_none());
    }

    #[test]
    fn a_folder_that_is_open_to_others_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let base = tempfile::tempdir().unwrap();
        let place = Place(base.path().join("blockseal/home/vol-0123456789abcdef0"));
        place.prepare().unwrap();
        assert!(fs::metadata(&place.0).unwrap().mode().trailing_zeros() >= 7, "for its owner alone");
        fs::remove_file(&place.0).unwrap();
        fs::set_permissions(base.path().join("blockseal"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(place.prepare(), Err(KernelError::NotPrivate(_))));
    }
}
