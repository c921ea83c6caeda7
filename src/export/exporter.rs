//! The exporter process: a fresh program in its own session which is handed a key, opens one volume and serves it.
//!
//! [`spawn`] starts it, [`exporter_main`] is what it runs. The order comes over its standard input: one byte with the
//! length of the key (0, 32 or 64), the key, then [`Order`] as JSON up to the end. It answers with one line of JSON on
//! its standard output: [`Report`].

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::device::volume::{self, Expected, Format, OpenOptions};
use crate::device::{BlockDevice, DeviceError, DeviceErrorKind};
use crate::dir::HomeDir;
use crate::ids::VolumeId;
use crate::process;
use crate::secret::{self, SecretBytes};
use crate::units::SectorSize;

use super::control::{self, Caller, Event, Identity, Served};
use super::endpoint::{self, Claim, ClaimError};
use super::kernel::{self, KernelDevice, Place};
use super::server::{Export, Server};

/// The hidden subcommand under which the program's `main` calls [`exporter_main`]. The volume id follows it, for `ps`.
pub const EXPORTER_COMMAND: &str = "__exporter";

/// How long clients are given at the end to take the answers to what they asked.
pub(super) const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// How often an exporter looks whether its volume and itself can still be found.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long opening a volume may take.
const START_PATIENCE: Duration = Duration::from_mins(1);

/// Longest order, in bytes.
const MAX_ORDER_BYTES: u64 = 64 * 1024;

/// What an exporter is to serve. It holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    home: PathBuf,
    volume: VolumeId,
    read_only: bool,
    length: u64,
    /// Bytes of an encryption sector; `None` for an unencrypted volume.
    sector_size: Option<u64>,
    /// Whether it is a device of this machine's kernel as well.
    #[serde(default)]
    kernel_device: bool,
}

impl Order {
    /// The order to serve `volume`, which the home's records describe as `expected`.
    pub fn new(home: &HomeDir, volume: &VolumeId, expected: Expected, read_only: bool) -> Self {
        let sector_size = match expected.format {
            Format::Encrypted(size) => Some(size.bytes() as u64),
            Format::Plain => None,
        };
        Self {
            home: home.path().to_owned(),
            volume: volume.clone(),
            read_only,
            length: expected.length,
            sector_size,
            kernel_device: false,
        }
    }

    /// The same, with a loop device on a file served through FUSE beside the NBD socket; for root alone.
    #[must_use]
    pub fn with_kernel_device(self) -> Self {
        Self { kernel_device: true, ..self }
    }

    fn expected(&self) -> Result<Expected, DeviceError> {
        let format = match self.sector_size {
            None => Format::Plain,
            Some(bytes) => Format::Encrypted(SectorSize::from_bytes(bytes).ok_or_else(|| {
                DeviceError::new(
                    DeviceErrorKind::Invalid,
                    format!("sectors of {bytes} bytes: 512 or 4096 are possible"),
                )
            })?),
        };
        Ok(Expected { length: self.length, format })
    }
}

/// A device that is ready to be served.
pub struct Opened {
    /// The device.
    pub device: Arc<dyn BlockDevice>,
    /// Whether an earlier flush had failed, so that writes which were never flushed may be missing.
    pub was_latched: bool,
}

/// Opens the volume of an order: what the real program gives to [`exporter_main`].
///
/// # Errors
/// Those of [`volume::open`].
pub fn open_volume(home: &HomeDir, order: &Order, key: Option<SecretBytes>) -> Result<Opened, DeviceError> {
    let options = OpenOptions { read_only: order.read_only, ..OpenOptions::default() };
    let volume = volume::open(home, &order.volume, order.expected()?, key.as_ref(), options)?;
    let was_latched = volume.was_latched();
    Ok(Opened { device: Arc::new(volume), was_latched })
}

/// A running exporter, as its starter sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exporter {
    /// Its process id.
    pub pid: u32,
    /// Where it serves NBD; the export's name is the volume id.
    pub socket: PathBuf,
    /// Size of the volume in bytes.
    pub size: u64,
    /// Whether an earlier flush of the volume had failed, so that writes which were never flushed may be missing.
    pub was_latched: bool,
    /// Bytes of its secret memory, the key among them, that could not be locked into RAM (`RLIMIT_MEMLOCK`); 0 is the
    /// normal answer.
    pub unlocked_bytes: usize,
    /// The device of this machine's kernel, such as `/dev/loop0`, where one was ordered.
    pub kernel_device: Option<PathBuf>,
}

/// Why a volume is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The socket's path would not fit a socket address.
    #[error(
        "the socket path {} is {} bytes long and may have 107 (unix(7)); use a home with a shorter path",
        .0.display(), .0.as_os_str().len()
    )]
    SocketPathTooLong(PathBuf),
    /// A living exporter serves the volume.
    #[error("{0} is served by another exporter already")]
    AlreadyServed(VolumeId),
    /// The device refused: wrong key, damaged header, lock held by another process.
    #[error("{message}")]
    Device {
        /// What to match on.
        kind: DeviceErrorKind,
        /// The device's error and what caused it.
        message: String,
    },
    /// The exporter could not set itself up.
    #[error("the exporter could not start: {0}")]
    Setup(String),
    /// The exporter ended before it served.
    #[error("the exporter ended before it served ({0})")]
    Died(String),
    /// The exporter did not get ready in time and was ended.
    #[error("the exporter was not ready within {} s and was ended", .0.as_secs())]
    Silent(Duration),
    /// The program could not be run, or the pipes to it failed.
    #[error("cannot start the exporter program {}", .program.display())]
    Io {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The exporter's one line to its starter.
#[derive(Serialize, Deserialize)]
enum Report {
    Ready { size: u64, was_latched: bool, unlocked_bytes: usize, kernel_device: Option<PathBuf> },
    AlreadyServed,
    Device { kind: DeviceErrorKind, message: String },
    Setup(String),
}

/// Starts `program` (our own binary) as the exporter of a volume and waits until it serves, or says why not. The key goes
/// through a pipe and nowhere else.
///
/// # Errors
/// Nothing is left running after an error.
pub fn spawn(program: &Path, order: &Order, key: Option<&SecretBytes>) -> Result<Exporter, SpawnError> {
    let failed = |source| SpawnError::Io { program: program.to_owned(), source };
    let home = HomeDir::open(&order.home, false).map_err(|error| SpawnError::Setup(with_causes(&error)))?;
    if let Some(path) = endpoint::too_long(&home, &order.volume) {
        return Err(SpawnError::SocketPathTooLong(path));
    }
    let mut child = Command::new(program)
        .args([EXPORTER_COMMAND, order.volume.as_str()])
        // The environment may hold what the exporter has no business with, and anyone may read it in /proc.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let outcome = match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => {
            let given = give_order(stdin, order, key);
            let report = read_report(stdout);
            match given {
                // A child that ends early breaks the pipe; what it reported then says more than that.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                _ => report,
            }
        }
        _ => Err(io::Error::other("the child has no pipes")),
    };
    let error = match outcome {
        Ok(Report::Ready { size, was_latched, unlocked_bytes, kernel_device }) => {
            let socket = endpoint::socket_path(&home, &order.volume);
            let exporter = Exporter { pid: child.id(), socket, size, was_latched, unlocked_bytes, kernel_device };
            reap_in_background(child);
            return Ok(exporter);
        }
        Ok(Report::AlreadyServed) => SpawnError::AlreadyServed(order.volume.clone()),
        Ok(Report::Device { kind, message }) => SpawnError::Device { kind, message },
        Ok(Report::Setup(message)) => SpawnError::Setup(message),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => SpawnError::Silent(START_PATIENCE),
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => {
            let _ = child.kill();
            let status = child.wait().map_err(failed)?;
            return Err(SpawnError::Died(status.to_string()));
        }
        Err(error) => failed(error),
    };
    let _ = child.kill();
    let _ = child.wait();
    Err(error)
}

fn give_order(mut stdin: ChildStdin, order: &Order, key: Option<&SecretBytes>) -> io::Result<()> {
    let key = key.map_or(&[][..], SecretBytes::expose);
    let length = u8::try_from(key.len()).map_err(|_| io::Error::other("a data key has 32 or 64 bytes"))?;
    stdin.write_all(&[length])?;
    stdin.write_all(key)?;
    stdin.write_all(&serde_json::to_vec(order)?)
}

fn read_report(stdout: ChildStdout) -> io::Result<Report> {
    let timeout = PollTimeout::try_from(START_PATIENCE).map_err(io::Error::other)?;
    let mut waiting = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    while match poll(&mut waiting, timeout) {
        Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
        Ok(_) => false,
        Err(Errno::EINTR) => true,
        Err(errno) => return Err(errno.into()),
    } {}
    let mut line = String::new();
    BufReader::new(stdout.take(MAX_ORDER_BYTES)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

/// A starter that lives on must not keep the dead as zombies.
fn reap_in_background(mut child: Child) {
    let _ = std::thread::Builder::new().name("reap".into()).spawn(move || child.wait());
}

/// What the exporter process runs, from its first to its last moment: `main` calls it and nothing else.
///
/// `open` ([`open_volume`], or a test's) opens the volume that the order names with the key that came along, if any. It
/// is called after the process has made itself undumpable and before any thread runs.
pub fn exporter_main<F>(open: F) -> ExitCode
where
    F: FnOnce(&HomeDir, &Order, Option<SecretBytes>) -> Result<Opened, DeviceError>,
{
    match run(open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            // A starter that has gone needs no report.
            if let Some(report) = report {
                let _ = send_report(&report);
            }
            ExitCode::FAILURE
        }
    }
}

/// Serves until it is told to end. The error is what the starter should hear, if it is still listening.
fn run<F>(open: F) -> Result<(), Option<Report>>
where
    F: FnOnce(&HomeDir, &Order, Option<SecretBytes>) -> Result<Opened, DeviceError>,
{
    let setup = |what: &str, error: &dyn Error| Some(Report::Setup(format!("cannot {what}: {}", with_causes(error))));
    let signals = harden().map_err(|(what, error)| setup(what, &error))?;
    let (key, order) = read_order().map_err(|error| setup("read the order", &error))?;
    let home = HomeDir::open(&order.home, false).map_err(|error| setup("open the home", &error))?;
    let claimed = |error| match error {
        ClaimError::Taken => Some(Report::AlreadyServed),
        ClaimError::Dir(error) => setup("use the run directory", &error),
        ClaimError::Io(what, error) => setup(what, &error),
    };
    let claim = Claim::new(&home, &order.volume).map_err(claimed)?;
    nix::unistd::dup2_stderr(&claim.log).map_err(|errno| setup("write to the log", &errno))?;
    if order.kernel_device
        && let Err(error) = kernel::become_io_flusher()
    {
        // Root without that capability, as in a container: it matters only where memory is at its end.
        log(&format!("not an I/O flusher (CAP_SYS_RESOURCE): {error}"));
    }
    let Opened { device, was_latched } = open(&home, &order, key)
        .map_err(|error| Some(Report::Device { kind: error.kind(), message: with_causes(&error) }))?;
    let (nbd, control_socket) = claim.listen().map_err(claimed)?;
    let faulty = Served::new(device);
    let device: Arc<dyn BlockDevice> = Arc::clone(&faulty.device) as _;
    let place = PlaceInHome::of(&home, &order);
    let identity = Identity {
        volume: order.volume.clone(),
        size: device.size(),
        read_only: device.read_only(),
        since: Clock::default().now(),
    };
    let size = identity.size;
    let export = Export {
        name: order.volume.to_string(),
        description: format!("Blockseal volume {}", order.volume),
        device: Arc::clone(&device),
    };
    let server = Server::start(nbd, export).map_err(|error| setup("start the server", &error))?;
    let (sender, events) = channel();
    watch_signals(signals, sender.clone()).map_err(|error| setup("wait for signals", &error))?;
    let end = faulty.at_the_end();
    control::serve(control_socket, identity, server.observer(), faulty, sender)
        .map_err(|error| setup("serve the control socket", &error))?;
    log(&format!("serving {} of {size} bytes", order.volume));
    let kernel_device = if order.kernel_device {
        let made = Place::of(&home, &order.volume)
            .and_then(|place| KernelDevice::start(place, device, server.observer()))
            .map_err(|error| setup("become a device of the kernel", &error));
        match made {
            Ok(made) => Some(made),
            Err(report) => {
                claim.give_up();
                return Err(report);
            }
        }
    } else {
        drop(device);
        None
    };
    if let Some(made) = &kernel_device {
        log(&format!("it is {}", made.path().display()));
    }

    let unlocked_bytes = secret::unlocked_bytes();
    if unlocked_bytes > 0 {
        log(&format!(
            "{unlocked_bytes} bytes of secret memory could not be locked and may reach swap (RLIMIT_MEMLOCK)"
        ));
    }
    let path = kernel_device.as_ref().map(|made| made.path().to_owned());
    if send_report(&Report::Ready { size, was_latched, unlocked_bytes, kernel_device: path }).is_err() {
        // The starter died, so nobody knows that the volume is attached.
        log("the starter has gone");
        end_device(kernel_device);
        let _ = server.drain(DRAIN_PATIENCE);
        claim.give_up();
        return Err(None);
    }
    let callers = wait_for_the_end(&events, &place);
    // What is stuck goes on: the last writes of the kernel are among it.
    end();
    end_device(kernel_device);
    let outcome = server.drain(DRAIN_PATIENCE);
    if place.has_our_socket() {
        claim.give_up();
    } else {
        // What stands there now, if anything, is not ours to remove.
        let _ = claim.log.unlock();
    }
    match &outcome {
        Ok(()) => log("ended"),
        Err(error) => log(&format!("ended; the last flush failed: {}", with_causes(error))),
    }
    for caller in callers.into_iter().chain(events.try_iter().filter_map(Event::into_caller)) {
        caller.answer(&outcome);
    }
    outcome.map_err(|_| None)
}

/// Takes the kernel's device away before the last flush. What is mounted on one that is in use finds errors from now on.
fn end_device(device: Option<KernelDevice>) {
    if let Some(device) = device
        && let Err(error) = device.end()
    {
        log(&format!("the kernel's device stays behind: {}", with_causes(&error)));
    }
}

/// Everything that must be so before a key comes into this process. The signals that end it are blocked for every
/// thread and returned.
fn harden() -> Result<SigSet, (&'static str, Errno)> {
    process::harden()?;
    nix::unistd::setsid().map_err(|errno| ("begin a session", errno))?;
    nix::unistd::chdir("/").map_err(|errno| ("leave the working directory", errno))?;
    close_inherited().map_err(|errno| ("close inherited descriptors", errno))?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|errno| ("block signals", errno))?;
    Ok(signals)
}

/// Closes what the starter's own starter may have left open beyond the three standard streams: an exporter that lives for
/// weeks must not keep a shell's pipe.
fn close_inherited() -> Result<(), Errno> {
    let entries = std::fs::read_dir("/proc/self/fd").map_err(|_| Errno::ENOENT)?;
    let open: Vec<RawFd> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The listing's own descriptor is in the list and closed by now.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// Reads key and order. Standard input is read directly, because a buffered reader would keep a copy of the key.
fn read_order() -> io::Result<(Option<SecretBytes>, Order)> {
    let mut stdin = Unbuffered;
    let mut length = [0];
    stdin.read_exact(&mut length)?;
    let key = match usize::from(length[0]) {
        0 => None,
        length @ (32 | 64) => Some(SecretBytes::try_new_with(length, |bytes| stdin.read_exact(bytes))?),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a data key has 32 or 64 bytes")),
    };
    let mut text = Vec::new();
    stdin.take(MAX_ORDER_BYTES).read_to_end(&mut text)?;
    let order = serde_json::from_slice(&text)?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok((key, order))
}

struct Unbuffered;

impl io::Read for Unbuffered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match nix::unistd::read(io::stdin(), into) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.map_err(io::Error::from),
            }
        }
    }
}

/// Writes the report and closes the way to the starter.
fn send_report(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut stdout = io::stdout();
    stdout.write_all(&line)?;
    stdout.flush()?;
    nix::unistd::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
    Ok(())
}

fn watch_signals(signals: SigSet, events: Sender<Event>) -> io::Result<()> {
    let watch = move || {
        for earlier in 0_u32.. {
            if signals.wait().is_err() || (earlier == 0 && events.send(Event::Signal).is_err()) {
                return;
            }
            if earlier > 0 {
                // Whoever asks twice does not want to wait for clients or the disk.
                log("a second signal: ended without waiting");
                std::process::exit(1);
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
}

/// Waits for the first event; who asked for the end is returned. An exporter whose volume or socket was removed can be
/// asked by nobody and must not keep the key for ever: it ends by itself.
fn wait_for_the_end(events: &Receiver<Event>, place: &PlaceInHome<'_>) -> Option<Caller> {
    loop {
        match events.recv_timeout(LOOK_EVERY) {
            Ok(event) => return event.into_caller(),
            Err(RecvTimeoutError::Timeout) if place.is_there() => {}
            Err(RecvTimeoutError::Timeout) => {
                log("the volume's file or the control socket is gone or was replaced");
                return None;
            }
            // The threads that hold the other end live as long as the process.
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Device and inode of the two files by which an exporter and what it serves are found.
struct PlaceInHome<'a> {
    home: &'a HomeDir,
    volume: (String, Option<(u64, u64)>),
    socket: (String, Option<(u64, u64)>),
}

impl<'a> PlaceInHome<'a> {
    fn of(home: &'a HomeDir, order: &Order) -> Self {
        let format = order.expected().map_or(Format::Plain, |expected| expected.format);
        let at = |name: String| {
            let file = file_at(home, &name).unwrap_or_default();
            (name, file)
        };
        Self {
            home,
            volume: at(volume::relative_path(&order.volume, format)),
            socket: at(endpoint::name(&order.volume, "ctl")),
        }
    }

    fn is_there(&self) -> bool {
        let is_there =
            |(name, file): &(String, _)| file_at(self.home, name).map_or_else(|_| true, |found| found == *file);
        is_there(&self.volume) && is_there(&self.socket)
    }

    fn has_our_socket(&self) -> bool {
        file_at(self.home, &self.socket.0) == Ok(self.socket.1)
    }
}

/// Device and inode of what is there, if anything is; an error if the system does not say.
fn file_at(home: &HomeDir, name: &str) -> Result<Option<(u64, u64)>, Errno> {
    match nix::sys::stat::fstatat(home.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some((found.st_dev, found.st_ino))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// A line in the log, which is standard error by now.
fn log(text: &str) {
    let _ = writeln!(io::stderr(), "{} {text}", Clock::default().now());
}
