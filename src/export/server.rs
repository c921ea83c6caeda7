//! The NBD server: accepts connections on a Unix socket and serves one device to all of them, with threads that block.
//!
//! Memory is bounded whatever clients do: at most [`MAX_CONNECTIONS`] connections, each with at least one and at most
//! eight workers, of which all but two come from a budget of the whole server; a worker holds at most one piece of a
//! request (512 KiB) in each direction.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::device::{BlockDevice, DeviceError};

use super::handshake;
use super::proto::MAX_STRING_BYTES;
use super::transmission::Connection;

/// Connections served at once; one more is closed as soon as it is accepted.
pub const MAX_CONNECTIONS: usize = 32;

/// Workers beyond each connection's first two, over all connections.
const SPARE_WORKERS: usize = 32;

/// A device under the name by which clients ask for it.
#[derive(Clone)]
pub struct Export {
    /// The export's name: the volume id. The empty name, NBD's default export, means it as well.
    pub name: String,
    /// A line for people, shown by `nbdinfo --list`.
    pub description: String,
    /// What is served.
    pub device: Arc<dyn BlockDevice>,
}

impl Export {
    pub(super) fn answers_to(&self, name: &str) -> bool {
        name.is_empty() || name == self.name
    }
}

/// What a server has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Statistics {
    /// Connections that are open now.
    pub connections: u64,
    /// Connections accepted since the start.
    pub connections_accepted: u64,
    /// Requests answered, with or without an error.
    pub requests: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes sent to clients that read.
    pub bytes_read: u64,
    /// Bytes taken from clients that wrote.
    pub bytes_written: u64,
    /// Flushes of the device; one may answer several clients.
    pub flushes: u64,
    /// The last error that the device gave, for people.
    pub last_device_error: Option<String>,
}

/// A running server. Dropping it closes every connection without waiting; see [`Server::drain`] for the graceful way.
pub struct Server {
    listener: UnixListener,
    acceptor: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    device: Arc<dyn BlockDevice>,
}

impl Server {
    /// Serves `export` to whoever connects to `listener`, until [`Server::drain`] or the end of the value.
    ///
    /// # Errors
    /// If the export's name is longer than the protocol's 4096 bytes, or the system gives no thread.
    pub fn start(listener: UnixListener, export: Export) -> io::Result<Self> {
        if export.name.len() > MAX_STRING_BYTES || export.description.len() > MAX_STRING_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an export's name has at most 4096 bytes"));
        }
        let shared = Arc::new(Shared::default());
        let device = Arc::clone(&export.device);
        let incoming = listener.try_clone()?;
        let acceptor = {
            let shared = Arc::clone(&shared);
            Builder::new().name("nbd-accept".into()).spawn(move || accept(&incoming, &export, &shared))?
        };
        Ok(Self { listener, acceptor: Some(acceptor), shared, device })
    }

    /// What was done so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }

    /// A handle that reads the statistics while the server is in other hands.
    pub(super) fn observer(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Stops accepting, lets every request that has arrived be answered, closes the connections and flushes the device.
    /// Connections whose clients do not take their answers within `patience` are cut. When it returns, no thread of the
    /// server holds the device any more.
    ///
    /// # Errors
    /// The flush's error: what was written since the last good flush may be lost.
    pub fn drain(mut self, patience: Duration) -> Result<(), DeviceError> {
        self.stop_accepting();
        self.shared.close_all(Shutdown::Read);
        if !self.shared.wait_until_alone(patience) {
            self.shared.close_all(Shutdown::Both);
            self.shared.wait_until_alone(Duration::MAX);
        }
        self.shared.count_flush();
        self.device.flush()
    }

    fn stop_accepting(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        // Wakes accept(2) with EINVAL. It can only fail on a socket that does not listen, where nobody waits.
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_accepting();
        self.shared.close_all(Shutdown::Both);
    }
}

fn accept(listener: &UnixListener, export: &Export, shared: &Arc<Shared>) {
    while !shared.ending.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(registration) = shared.register(&stream) {
                    let export = export.clone();
                    // A client that finds no thread is hung up on: the stream goes with the closure.
                    let _ = Builder::new().name("nbd".into()).spawn(move || serve(registration, stream, export));
                }
            }
            Err(_) if shared.ending.load(Ordering::SeqCst) => break,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            // Out of descriptors or memory: closing connections will free some, and a busy loop would not help.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The registration is the first parameter because it must be dropped last, after the hold on the device.
fn serve(registration: Registration, stream: UnixStream, export: Export) {
    if let Ok(Some(agreement)) = handshake::negotiate(&stream, &export) {
        Connection::new(stream, export.device, agreement, registration).serve();
    }
}

/// What all connections of a server have in common, the device excepted.
#[derive(Default)]
pub(super) struct Shared {
    ending: AtomicBool,
    streams: Mutex<HashMap<u64, UnixStream>>,
    one_left: Condvar,
    spare_workers_used: AtomicUsize,
    accepted: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    flushes: AtomicU64,
    last_device_error: Mutex<Option<String>>,
}

impl Shared {
    /// Whether the server is on its way to its end.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            connections: self.streams().len() as u64,
            connections_accepted: self.accepted.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            flushes: self.flushes.load(Ordering::Relaxed),
            last_device_error: self.last_device_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(super) fn count_requests(&self, requests: u64, errors: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.errors.fetch_add(errors, Ordering::Relaxed);
    }

    pub(super) fn count_bytes(&self, read: u64, written: u64) {
        self.bytes_read.fetch_add(read, Ordering::Relaxed);
        self.bytes_written.fetch_add(written, Ordering::Relaxed);
    }

    pub(super) fn count_flush(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_device_error(&self, error: &DeviceError) {
        use std::error::Error as _;
        let text = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        *self.last_device_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// Leave for one more worker; `None` if the budget is used up.
    pub(super) fn spare_worker(self: &Arc<Self>) -> Option<SpareWorker> {
        let taken = self
            .spare_workers_used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < SPARE_WORKERS).then_some(used + 1));
        taken.ok().map(|_| SpareWorker(Arc::clone(self)))
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u64, UnixStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection; `None` if there are too many, the server is ending, or there is no descriptor left.
    fn register(self: &Arc<Self>, stream: &UnixStream) -> Option<Registration> {
        let handle = stream.try_clone().ok()?;
        let mut streams = self.streams();
        if streams.len() >= MAX_CONNECTIONS || self.ending.load(Ordering::SeqCst) {
            return None;
        }
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        streams.insert(number, handle);
        Some(Registration { shared: Arc::clone(self), number })
    }

    fn close_all(&self, how: Shutdown) {
        for stream in self.streams().values() {
            // Fails only if the client has closed already.
            let _ = stream.shutdown(how);
        }
    }

    /// Waits until no connection is left; false if `patience` ran out first.
    fn wait_until_alone(&self, patience: Duration) -> bool {
        let start = Instant::now();
        let mut streams = self.streams();
        while !streams.is_empty() {
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            let pause = left.min(Duration::from_hours(1));
            streams = self.one_left.wait_timeout(streams, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// A connection's entry in the list of open ones, taken out when dropped.
pub(super) struct Registration {
    pub(super) shared: Arc<Shared>,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.streams().remove(&self.number);
        self.shared.one_left.notify_all();
    }
}

/// One worker's share of the server's budget.
pub(super) struct SpareWorker(Arc<Shared>);

impl Drop for SpareWorker {
    fn drop(&mut self) {
        self.0.spare_workers_used.fetch_sub(1, Ordering::Relaxed);
    }
}
