//! The exporter's control socket: one line of JSON in, one line of JSON back.
//!
//! `{"Command":"Status"}` is answered with [`Status`], `{"Command":"Detach"}` when everything is flushed and the volume is
//! free, `Grow` when the volume is as long as it says, and `Faults` with the faults of the device once they are as ordered. What an exporter does not know it answers with an error, so that commands can be added.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::thread::Builder;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::device::{BlockDevice, DeviceError, DeviceErrorKind};
use crate::dir::HomeDir;
use crate::ids::VolumeId;

use super::endpoint;
use super::faulty::{DeviceFault, DeviceFaultError, Faults, Faulty};
use super::server::{Shared, Statistics};

/// How long the exporter takes at most for an answer that needs no disk.
const QUICK_ANSWER: Duration = Duration::from_secs(10);

/// How long an exporter that is asked for nothing but a sign of life may take.
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);

/// How often an exporter that is ending is asked for a sign of life, and how long it may then take.
const SILENCE: Duration = Duration::from_secs(3);

/// How long a detach may take: clients are given [`super::exporter::DRAIN_PATIENCE`] to take their answers, then comes
/// the flush, which on a slow disk writes back gigabytes.
const DETACH_ANSWER: Duration = Duration::from_mins(10);

/// How long a volume may take to grow: its header is written twice and made durable.
const GROW_ANSWER: Duration = Duration::from_mins(1);

/// Longest line in either direction, in bytes.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Conversations at once; one more is hung up on.
const MAX_CONVERSATIONS: usize = 16;

/// What an exporter says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// The volume that it serves.
    pub volume_id: VolumeId,
    /// Size of the volume in bytes.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether it is about to end: it answers what has arrived and flushes.
    #[serde(default)]
    pub ending: bool,
    /// Since when it serves, by the machine's clock.
    pub since: Time,
    /// What it did so far.
    pub statistics: Statistics,
}

/// Why an exporter could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No exporter serves the volume: there is no socket, or nobody behind it.
    #[error("no exporter serves {0}")]
    NobodyThere(VolumeId),
    /// The exporter ended while it was asked.
    #[error("the exporter of {0} ended without an answer")]
    Died(VolumeId),
    /// The exporter lives but does not answer, which a stuck disk can cause.
    #[error("the exporter of {volume} gave no answer within {} s", .patience.as_secs())]
    Silent {
        /// The volume.
        volume: VolumeId,
        /// How long it was waited.
        patience: Duration,
    },
    /// The exporter lives and is ending, but is not done: it waits for its clients or for the disk.
    #[error("the exporter of {volume} is still writing back after {} s", .patience.as_secs())]
    Busy {
        /// The volume.
        volume: VolumeId,
        /// How long it was waited.
        patience: Duration,
    },
    /// The exporter ended and the volume is free, but its last flush failed: what was written since the flush before may
    /// be lost.
    #[error("{volume} is detached, but its last flush failed: {message}")]
    FlushFailed {
        /// The volume.
        volume: VolumeId,
        /// The device's error.
        kind: DeviceErrorKind,
        /// The same for people.
        message: String,
    },
    /// The device did not do what it was to do.
    #[error("the exporter of {volume} answered: {message}")]
    Device {
        /// The volume.
        volume: VolumeId,
        /// The device's error.
        kind: DeviceErrorKind,
        /// The same for people.
        message: String,
    },
    /// The exporter does not know the command, or could not carry it out.
    #[error("the exporter refused: {0}")]
    Refused(String),
    /// The socket failed, or what came back is no answer.
    #[error("cannot talk to the exporter of {volume}")]
    Io {
        /// The volume.
        volume: VolumeId,
        /// Why.
        source: io::Error,
    },
}

/// Asks the exporter of `volume` how it is.
///
/// # Errors
/// [`ControlError::NobodyThere`] if the volume is not attached, or its exporter was killed.
pub fn status(home: &HomeDir, volume: &VolumeId) -> Result<Status, ControlError> {
    status_within(home, volume, QUICK_ANSWER)
}

/// As [`status`], but an exporter that does not answer within 200 ms is taken to hang.
///
/// # Errors
/// As [`status`].
pub fn probe(home: &HomeDir, volume: &VolumeId) -> Result<Status, ControlError> {
    status_within(home, volume, SIGN_OF_LIFE)
}

fn status_within(home: &HomeDir, volume: &VolumeId, patience: Duration) -> Result<Status, ControlError> {
    match ask(home, volume, &Command::Status {}, patience)? {
        Answer::Status(status) => Ok(status),
        Answer::Error { message, .. } => Err(ControlError::Refused(message)),
        _ => Err(misunderstood(volume)),
    }
}

/// Ends the exporter of `volume`: it answers what has arrived, flushes and lets go of the volume. When this returns, the
/// volume can be opened anew.
///
/// # Errors
/// [`ControlError::NobodyThere`] if there is none; [`ControlError::FlushFailed`] if it ended with data unsaved.
pub fn detach(home: &HomeDir, volume: &VolumeId) -> Result<(), ControlError> {
    detach_within(home, volume, DETACH_ANSWER)
}

/// As [`detach`], which waits ten minutes, with another patience. The exporter is not told when it ends: it goes on ending.
///
/// # Errors
/// As [`detach`]; [`ControlError::Silent`] as soon as the exporter gives no sign of life for some seconds,
/// [`ControlError::Busy`] if it does and is not done in time.
pub fn detach_within(home: &HomeDir, volume: &VolumeId, patience: Duration) -> Result<(), ControlError> {
    match ask(home, volume, &Command::Detach {}, patience)? {
        Answer::Detached => Ok(()),
        Answer::Error { kind: Some(kind), message } => {
            Err(ControlError::FlushFailed { volume: volume.clone(), kind, message })
        }
        Answer::Error { kind: None, message } => Err(ControlError::Refused(message)),
        _ => Err(misunderstood(volume)),
    }
}

/// Makes the served volume `length` bytes long. Clients that connect from then on see it; those that are connected keep the
/// size that they were told.
///
/// # Errors
/// [`ControlError::Device`] if the volume is longer already, or the file system cannot hold so long a file; and as
/// [`status`].
pub fn grow(home: &HomeDir, volume: &VolumeId, length: u64) -> Result<(), ControlError> {
    match ask(home, volume, &Command::Grow { length }, GROW_ANSWER)? {
        Answer::Grown => Ok(()),
        Answer::Error { kind: Some(kind), message } => {
            Err(ControlError::Device { volume: volume.clone(), kind, message })
        }
        Answer::Error { kind: None, message } => Err(ControlError::Refused(message)),
        _ => Err(misunderstood(volume)),
    }
}

/// What is to become of the faults of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// They stay as they are.
    None,
    /// This one comes to them, in the place of one of its kind.
    Set(DeviceFault),
    /// There are none any more.
    Clear,
}

/// Changes the faults of a served device; answers those that it has then.
///
/// # Errors
/// As [`status`].
pub fn faults(home: &HomeDir, volume: &VolumeId, change: Change) -> Result<Vec<DeviceFault>, ControlError> {
    let (clear, set) = match change {
        Change::None => (false, None),
        Change::Set(fault) => (false, Some(fault.to_string())),
        Change::Clear => (true, None),
    };
    match ask(home, volume, &Command::Faults { clear, set }, QUICK_ANSWER)? {
        Answer::Faults(faults) => Ok(faults.iter().filter_map(|fault| fault.parse().ok()).collect()),
        Answer::Error { message, .. } => Err(ControlError::Refused(message)),
        _ => Err(misunderstood(volume)),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "Command", deny_unknown_fields)]
enum Command {
    // With braces, because serde checks for unknown fields in these alone.
    Status {},
    Detach {},
    Grow { length: u64 },
    Faults { clear: bool, set: Option<String> },
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Status(Status),
    Detached,
    Grown,
    Faults(Vec<String>),
    #[serde(rename_all = "PascalCase")]
    Error {
        kind: Option<DeviceErrorKind>,
        message: String,
    },
}

fn ask(home: &HomeDir, volume: &VolumeId, command: &Command, patience: Duration) -> Result<Answer, ControlError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ControlError::Silent { volume: volume.clone(), patience }
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ControlError::Died(volume.clone()),
        _ => ControlError::Io { volume: volume.clone(), source },
    };
    if endpoint::too_long(home, volume).is_some() {
        // No exporter can have been started there.
        return Err(ControlError::NobodyThere(volume.clone()));
    }
    let mut stream = match UnixStream::connect(endpoint::control_path(home, volume)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(ControlError::NobodyThere(volume.clone()));
        }
        Err(error) => return Err(failed(error)),
    };
    stream.set_write_timeout(Some(patience.min(QUICK_ANSWER))).map_err(failed)?;
    stream.write_all(&line(command)).map_err(failed)?;
    let text = answer_of(&stream, patience, || {
        let wait = patience.min(SILENCE);
        status_within(home, volume, wait)
            .map_err(|_| ControlError::Silent { volume: volume.clone(), patience: wait })
            .map(drop)
    })
    .map_err(|ended| match ended {
        Unanswered::Failed(error) => failed(error),
        Unanswered::Silent(error) => error,
        Unanswered::Late if matches!(command, Command::Detach {}) => {
            ControlError::Busy { volume: volume.clone(), patience }
        }
        Unanswered::Late => ControlError::Silent { volume: volume.clone(), patience },
    })?;
    if text.is_empty() {
        return Err(ControlError::Died(volume.clone()));
    }
    let answer = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    if matches!(command, Command::Detach {}) {
        // The end of the stream is the end of the process; it is near, and nothing depends on it.
        let _ = stream.set_read_timeout(Some(QUICK_ANSWER));
        let _ = stream.read(&mut [0]);
    }
    Ok(answer)
}

/// Why no line came back.
enum Unanswered {
    Failed(io::Error),
    /// There was no sign of life.
    Silent(ControlError),
    /// There was, and the time is over.
    Late,
}

/// The line that comes back within `patience`; `alive` asks for a sign of life whenever nothing came for some seconds.
fn answer_of(
    stream: &UnixStream,
    patience: Duration,
    alive: impl Fn() -> Result<(), ControlError>,
) -> Result<Vec<u8>, Unanswered> {
    let deadline = Instant::now() + patience;
    let mut reader = BufReader::new(stream.take(MAX_LINE_BYTES));
    let mut text = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Unanswered::Late);
        }
        stream.set_read_timeout(Some(left.min(SILENCE))).map_err(Unanswered::Failed)?;
        match reader.read_until(b'\n', &mut text) {
            Ok(_) => return Ok(text),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if patience > SILENCE {
                    alive().map_err(Unanswered::Silent)?;
                }
            }
            Err(error) => return Err(Unanswered::Failed(error)),
        }
    }
}

fn misunderstood(volume: &VolumeId) -> ControlError {
    let source = io::Error::new(io::ErrorKind::InvalidData, "an answer to another question");
    ControlError::Io { volume: volume.clone(), source }
}

fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("these types are plain strings and numbers");
    bytes.push(b'\n');
    bytes
}

/// What makes an exporter end.
pub(super) enum Event {
    /// Somebody asked for it and waits for the answer.
    Detach(Caller),
    /// The system, or a person, sent a signal.
    Signal,
}

impl Event {
    pub(super) fn into_caller(self) -> Option<Caller> {
        match self {
            Self::Detach(caller) => Some(caller),
            Self::Signal => None,
        }
    }
}

/// Someone who waits for the end of a detach.
pub(super) struct Caller(UnixStream);

impl Caller {
    pub(super) fn answer(mut self, outcome: &Result<(), DeviceError>) {
        let answer = match outcome {
            Ok(()) => Answer::Detached,
            Err(error) => Answer::Error { kind: Some(error.kind()), message: error.to_string() },
        };
        // A caller that has gone needs no answer.
        let _ = self.0.write_all(&line(&answer));
    }
}

/// What the exporter knows about itself and does not change.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) volume: VolumeId,
    pub(super) size: u64,
    pub(super) read_only: bool,
    pub(super) since: Time,
}

/// The device as it is served, with the faults that come over it.
pub(super) struct Served {
    pub(super) device: Arc<Faulty>,
}

impl Served {
    pub(super) fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self { device: Arc::new(Faulty { device, faults: Arc::default() }) }
    }

    /// What is to be done once the exporter is ending: what is stuck goes on, or it would never end.
    pub(super) fn at_the_end(&self) -> impl FnOnce() + use<> {
        let faults = Arc::clone(&self.device.faults);
        move || faults.end()
    }
}

/// What the control socket needs of it. It does not keep the volume open: it is its server's to let go of.
#[derive(Clone)]
struct Reached {
    device: Weak<Faulty>,
    faults: Arc<Faults>,
}

/// Answers on the control socket as long as the process lives.
pub(super) fn serve(
    listener: UnixListener,
    identity: Identity,
    observed: Arc<Shared>,
    served: Served,
    events: Sender<Event>,
) -> io::Result<()> {
    let reached = Reached { device: Arc::downgrade(&served.device), faults: Arc::clone(&served.device.faults) };
    drop(served);
    let conversations = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        loop {
            let Ok((stream, _)) = listener.accept() else {
                // Out of descriptors: wait until some are given back.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            let place = Place::take(&conversations);
            let (identity, observed, events) = (identity.clone(), Arc::clone(&observed), events.clone());
            let reached = reached.clone();
            if let Some(place) = place {
                // Without a thread the stream is dropped, which the caller sees.
                let _ = Builder::new().name("control".into()).spawn(move || {
                    let _place = place;
                    converse(stream, &identity, &observed, &reached, &events)
                });
            }
        }
    };
    Builder::new().name("control-accept".into()).spawn(accept).map(drop)
}

fn converse(
    stream: UnixStream,
    identity: &Identity,
    observed: &Shared,
    reached: &Reached,
    events: &Sender<Event>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(QUICK_ANSWER))?;
    stream.set_write_timeout(Some(QUICK_ANSWER))?;
    let mut text = Vec::new();
    BufReader::new((&stream).take(MAX_LINE_BYTES)).read_until(b'\n', &mut text)?;
    let answer = match serde_json::from_slice(&text) {
        Ok(Command::Status {}) => Answer::Status(Status {
            pid: std::process::id(),
            volume_id: identity.volume.clone(),
            size: reached.device.upgrade().map_or(identity.size, |device| device.size()),
            read_only: identity.read_only,
            ending: observed.is_ending(),
            since: identity.since,
            statistics: observed.statistics(),
        }),
        Ok(Command::Detach {}) => {
            // Fails only when the exporter is past its last answer; the caller then sees it end.
            let _ = events.send(Event::Detach(Caller(stream)));
            return Ok(());
        }
        Ok(Command::Grow { length }) => match reached.device.upgrade().filter(|_| !observed.is_ending()) {
            Some(device) => match device.grow(length) {
                Ok(()) => Answer::Grown,
                Err(error) => Answer::Error { kind: Some(error.kind()), message: error.to_string() },
            },
            None => Answer::Error { kind: None, message: "it is about to end".to_owned() },
        },
        Ok(Command::Faults { clear, set }) => {
            if clear {
                reached.faults.clear();
            }
            match set.map(|fault| fault.parse()).transpose() {
                Ok(fault) => {
                    if let Some(fault) = fault {
                        reached.faults.set(fault);
                    }
                    Answer::Faults(reached.faults.list().iter().map(ToString::to_string).collect())
                }
                Err(error) => Answer::Error { kind: None, message: DeviceFaultError::to_string(&error) },
            }
        }
        Err(error) => Answer::Error { kind: None, message: format!("not a command: {error}") },
    };
    (&stream).write_all(&line(&answer))
}

/// One of the few conversations at a time.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(taken));
        (taken.fetch_add(1, Ordering::Relaxed) < MAX_CONVERSATIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::PlainDevice;
    use crate::device::storage::Memory;
    use std::sync::mpsc::{Receiver, channel};

    struct Served {
        home: HomeDir,
        volume: VolumeId,
        events: Receiver<Event>,
        _base: tempfile::TempDir,
    }

    fn served() -> Served {
        let base = tempfile::tempdir().unwrap();
        let home = HomeDir::open(&base.path().join("h"), true).unwrap();
        home.make_dir("run").unwrap();
        let volume = VolumeId::random();
        let listener = UnixListener::bind(endpoint::control_path(&home, &volume)).unwrap();
        let since = Time::from_micros(1_618_253_910_250_000).unwrap();
        let identity = Identity { volume: volume.clone(), size: 4096, read_only: true, since };
        let (sender, events) = channel();
        let device = PlainDevice::new(Memory::new(4096), 4096).unwrap();
        let served = super::Served::new(Arc::new(device));
        serve(listener, identity, Arc::new(Shared::default()), served, sender).unwrap();
        Served { home, volume, events, _base: base }
    }

    /// Detaches while the "exporter" does `end` with whoever asked.
    fn detach_with(served: &Served, end: impl FnOnce(Caller) + Send) -> Result<(), ControlError> {
        let Served { home, volume, .. } = served;
        std::thread::scope(|scope| {
            let asking = scope.spawn(move || detach(home, volume));
            let caller = served.events.recv().unwrap().into_caller().unwrap();
            end(caller);
            asking.join().unwrap()
        })
    }

    #[test]
    fn every_end_of_a_detach_reaches_the_caller_as_what_it_is() {
        let served = served();
        assert!(detach_with(&served, |caller| caller.answer(&Ok(()))).is_ok());
        let failed = Err(DeviceError::new(DeviceErrorKind::Latched, "an earlier flush failed"));
        match detach_with(&served, |caller| caller.answer(&failed)) {
            Err(ControlError::FlushFailed { kind: DeviceErrorKind::Latched, message, .. }) => {
                assert_eq!(message, "an earlier flush failed");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(detach_with(&served, drop), Err(ControlError::Died(_))), "killed before it answered");
    }

    #[test]
    fn a_status_survives_the_wire() {
        let served = served();
        let status = status(&served.home, &served.volume).unwrap();
        assert_eq!((status.size, status.read_only, &status.volume_id), (4096, true, &served.volume));
        assert_eq!(status.since.micros(), 1_618_253_910_250_000);
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }

    #[test]
    fn nobody_there_is_told_from_an_answer_that_makes_no_sense() {
        let served = served();
        let other = VolumeId::random();
        assert!(matches!(status(&served.home, &other), Err(ControlError::NobodyThere(_))), "no socket");
        drop(UnixListener::bind(endpoint::control_path(&served.home, &other)).unwrap());
        assert!(matches!(status(&served.home, &other), Err(ControlError::NobodyThere(_))), "a dead one's socket");
        let liar = VolumeId::random();
        let listener = UnixListener::bind(endpoint::control_path(&served.home, &liar)).unwrap();
        std::thread::spawn(move || {
            for answer in ["\"Detached\"\n", "no JSON\n"] {
                let (stream, _) = listener.accept().unwrap();
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
        });
        assert!(matches!(status(&served.home, &liar), Err(ControlError::Io { .. })));
        assert!(matches!(status(&served.home, &liar), Err(ControlError::Io { .. })));
    }
}
