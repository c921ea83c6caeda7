//! The transmission phase of one connection: who reads requests, who carries them out, and in what order replies go.
//!
//! A connection has a small set of workers. One of them *leads*: it reads from the socket, takes as many complete requests
//! as one read brought, and carries them out. Before anything that may take long - a flush, a trim, more than
//! [`QUICK_BYTES`], or anything at all while the device has lately been slow - it hands the lead to another worker, so that
//! no reply waits behind a request it has nothing to do with. While everything is quick the lead stays where it is, and
//! a batch of small requests costs one read and one write of the socket.
//!
//! Writes longer than [`PIECE_BYTES`] are taken from the socket piece by piece, each carried out by whoever read it; the
//! worker that ends the last piece answers. Flushes (and the flush half of `FUA`) that arrive while one is running are
//! answered together by the next.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::device::BlockDevice;

use super::answer::Output;
use super::handshake::Agreement;
use super::proto::{NbdError, Request, command, command_flag};
use super::receiver::{End, Filled, Input, LongWrite, Receiver};
use super::server::{Registration, Shared, SpareWorker};

/// The most of one request that a worker holds.
pub(super) const PIECE_BYTES: usize = 512 * 1024;

/// Requests up to this length are carried out in batches by the leading worker.
const QUICK_BYTES: u32 = 64 * 1024;

/// A batch ends when so many bytes of replies or payloads are gathered.
const BATCH_BYTES: usize = 128 * 1024;

const MAX_WORKERS: usize = 8;

/// Workers that each connection may have whatever others use: one waits for the flush, one goes on.
const OWN_WORKERS: usize = 2;

/// A worker without work for so long ends; the last one gives up its buffers.
const IDLE: Duration = Duration::from_secs(5);

/// Above this average time of a small request the lead is handed on before it is carried out.
const SLOW_NANOS: u64 = 50_000;

/// Flushes waiting for the running one; beyond this, workers wait instead.
const MAX_FLUSH_TICKETS: usize = 4096;

/// A connection in its transmission phase. It is closed when the last worker lets go of it.
pub(super) struct Connection {
    stream: UnixStream,
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) agreement: Agreement,
    team: Mutex<Team>,
    lead_is_free: Condvar,
    send_turn: Mutex<()>,
    flushes: Mutex<Flushes>,
    /// Moving average of the time that a small request takes, in nanoseconds.
    pace: AtomicU64,
    /// Last, because the server takes its end for the end of the connection's hold on the device.
    registration: Registration,
}

struct Team {
    /// The lead; `None` while a worker has it.
    receiver: Option<Receiver>,
    workers: usize,
    waiting: usize,
    ended: bool,
}

#[derive(Default)]
struct Flushes {
    tickets: Vec<u64>,
    running: bool,
}

/// What one worker has on its desk.
#[derive(Default)]
struct Desk {
    jobs: Vec<Job>,
    /// Payloads of the jobs.
    input: Input,
    output: Output,
}

enum Job {
    /// Answer with an error; the payload is gone already.
    Refuse(Request, NbdError),
    /// A request with its whole payload.
    Whole(Request, Range<usize>),
    /// One piece of a long write.
    Piece(Arc<LongWrite>, u64, Range<usize>),
}

impl Connection {
    pub(super) fn new(
        stream: UnixStream,
        device: Arc<dyn BlockDevice>,
        agreement: Agreement,
        registration: Registration,
    ) -> Arc<Self> {
        Arc::new(Self {
            stream,
            device,
            agreement,
            team: Mutex::new(Team { receiver: Some(Receiver::new()), workers: 1, waiting: 0, ended: false }),
            lead_is_free: Condvar::new(),
            send_turn: Mutex::new(()),
            flushes: Mutex::default(),
            pace: AtomicU64::new(0),
            registration,
        })
    }

    /// Serves on this thread, and on more as the client's requests ask for them.
    pub(super) fn serve(self: Arc<Self>) {
        // Both are best effort: bigger socket buffers save context switches on long replies, and the time-out only
        // lets an idle connection give its memory back.
        let _ = nix::sys::socket::setsockopt(&self.stream, nix::sys::socket::sockopt::SndBuf, &PIECE_BYTES);
        let _ = self.stream.set_read_timeout(Some(IDLE));
        self.work_until_the_end();
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.registration.shared
    }

    fn work_until_the_end(self: &Arc<Self>) {
        // A panic in a device must not leave clients waiting for replies that never come.
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.cut();
        }
    }

    fn work(self: &Arc<Self>) {
        let mut desk = Desk::default();
        let mut lead = self.take_lead();
        while let Some(mut receiver) = lead {
            if self.receive(&mut receiver, &mut desk).is_err() {
                self.end();
                return;
            }
            let long = desk.jobs.last().is_some_and(Job::may_take_long);
            let sent = if long || self.is_slow() {
                self.give_lead(receiver);
                let sent = self.carry_out(&mut desk, long);
                lead = self.take_lead();
                sent
            } else {
                let sent = self.carry_out(&mut desk, false);
                lead = Some(receiver);
                sent
            };
            if sent.is_err() {
                self.cut();
                return;
            }
        }
    }

    /// Waits for the lead; `None` if the connection has ended, or there was nothing to do for long.
    fn take_lead(&self) -> Option<Receiver> {
        let mut team = self.team();
        loop {
            if team.ended {
                team.workers -= 1;
                return None;
            }
            if let Some(receiver) = team.receiver.take() {
                return Some(receiver);
            }
            team.waiting += 1;
            let (again, timeout) = self.lead_is_free.wait_timeout(team, IDLE).unwrap_or_else(PoisonError::into_inner);
            team = again;
            team.waiting -= 1;
            if timeout.timed_out() && team.receiver.is_none() {
                team.workers -= 1;
                return None;
            }
        }
    }

    /// Lets another worker read on, a new one if all are busy and there may be one more.
    fn give_lead(self: &Arc<Self>, receiver: Receiver) {
        let mut team = self.team();
        team.receiver = Some(receiver);
        if team.waiting > 0 {
            drop(team);
            self.lead_is_free.notify_one();
            return;
        }
        if team.workers >= MAX_WORKERS {
            return;
        }
        let spare = if team.workers < OWN_WORKERS { None } else { self.registration.shared.spare_worker() };
        if team.workers >= OWN_WORKERS && spare.is_none() {
            return;
        }
        team.workers += 1;
        drop(team);
        let connection = Arc::clone(self);
        let spawned = Builder::new().name("nbd".into()).spawn(move || {
            let _budget: Option<SpareWorker> = spare;
            connection.work_until_the_end();
        });
        if spawned.is_err() {
            // The lead stays free until a busy worker comes back for it.
            self.team().workers -= 1;
        }
    }

    /// Nothing more is read; what is being carried out is still answered.
    fn end(&self) {
        self.team().ended = true;
        self.lead_is_free.notify_all();
    }

    /// Hangs up at once.
    fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.end();
    }

    /// Whether the device has lately been slow.
    fn is_slow(&self) -> bool {
        self.pace.load(Ordering::Relaxed) > SLOW_NANOS
    }

    fn team(&self) -> MutexGuard<'_, Team> {
        self.team.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out the jobs and sends their replies, before the last one if that may take `long`.
    fn carry_out(&self, desk: &mut Desk, long: bool) -> io::Result<()> {
        let Desk { jobs, input, output } = desk;
        let last = if long { jobs.pop() } else { None };
        if !jobs.is_empty() {
            let start = Instant::now();
            let count = jobs.len() as u64;
            for job in jobs.drain(..) {
                self.carry_out_one(job, &input.bytes, output)?;
            }
            let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX) / count;
            let pace = self.pace.load(Ordering::Relaxed);
            self.pace.store(pace - pace / 8 + nanos / 8, Ordering::Relaxed);
            self.send(output)?;
        }
        if let Some(job) = last {
            self.carry_out_one(job, &input.bytes, output)?;
            self.send(output)?;
        }
        Ok(())
    }

    fn carry_out_one(&self, job: Job, input: &[u8], output: &mut Output) -> io::Result<()> {
        match job {
            Job::Refuse(request, error) => self.refuse(request, error, output),
            Job::Whole(request, payload) => match request.command {
                command::FLUSH => return self.flush(request.cookie, output),
                command::READ => return self.read(request, output),
                command::BLOCK_STATUS => self.block_status(request, output),
                command::CACHE => {
                    let outcome = self.cache(request, output);
                    return self.changed(request, outcome, output);
                }
                _ => {
                    let outcome = self.change(request, &input[payload]);
                    return self.changed(request, outcome, output);
                }
            },
            Job::Piece(write, offset, payload) => {
                let bytes = u32::try_from(payload.len()).expect("a piece is at most 512 KiB");
                if let Err(error) = self.write(offset, &input[payload]) {
                    *write.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
                // The lock above orders the errors of other workers before this read of them.
                if write.missing.fetch_sub(bytes, Ordering::AcqRel) == bytes {
                    let error = *write.error.lock().unwrap_or_else(PoisonError::into_inner);
                    return self.changed(write.request, error.map_or(Ok(()), Err), output);
                }
            }
        }
        Ok(())
    }

    /// Answers a request that changed the device, after a flush if the client wants that.
    fn changed(&self, request: Request, outcome: Result<(), NbdError>, output: &mut Output) -> io::Result<()> {
        match outcome {
            Ok(()) if request.has(command_flag::FUA) => return self.flush(request.cookie, output),
            Ok(()) => self.succeed(request.cookie, output),
            Err(error) => self.refuse(request, error, output),
        }
        Ok(())
    }

    /// Answers `cookie` after a flush that starts later than this call. If a flush is running, whoever runs it runs the
    /// next one too and answers then.
    fn flush(&self, cookie: u64, output: &mut Output) -> io::Result<()> {
        let mut flushes = self.flushes();
        if flushes.running && flushes.tickets.len() < MAX_FLUSH_TICKETS {
            flushes.tickets.push(cookie);
            return Ok(());
        }
        let second = std::mem::replace(&mut flushes.running, true);
        let mut tickets = vec![cookie];
        loop {
            drop(flushes);
            let outcome = self.flush_device();
            for cookie in tickets {
                match outcome {
                    Ok(()) => self.succeed(cookie, output),
                    Err(error) => self.refuse_simply(cookie, error, output),
                }
            }
            self.send(output)?;
            flushes = self.flushes();
            if second {
                return Ok(());
            }
            if flushes.tickets.is_empty() {
                flushes.running = false;
                return Ok(());
            }
            tickets = std::mem::take(&mut flushes.tickets);
        }
    }

    fn flushes(&self) -> MutexGuard<'_, Flushes> {
        self.flushes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what the output holds, before or after other workers' replies but never among them.
    pub(super) fn send(&self, output: &mut Output) -> io::Result<()> {
        if output.pending().is_empty() {
            return Ok(());
        }
        self.send_in_turn(&self.send_turn(), output)
    }

    /// Sends what the output holds while the caller keeps others from sending.
    pub(super) fn send_in_turn(&self, _turn: &MutexGuard<'_, ()>, output: &mut Output) -> io::Result<()> {
        (&self.stream).write_all(output.pending())?;
        output.clear();
        Ok(())
    }

    pub(super) fn send_turn(&self) -> MutexGuard<'_, ()> {
        self.send_turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the desk with at least one job, waiting for as long as it takes, and with as many more as are there already.
    fn receive(&self, receiver: &mut Receiver, desk: &mut Desk) -> Result<(), End> {
        let Desk { jobs, input, output } = desk;
        input.used = 0;
        let mut reply_bytes = 0;
        while !jobs.last().is_some_and(Job::may_take_long) && input.used + reply_bytes < BATCH_BYTES {
            if self.is_slow() && !jobs.is_empty() {
                // Each worker takes one request, so that they wait side by side.
                break;
            }
            // From here on a message must not be begun unless it is there as a whole, or nothing else is to be done.
            let may_wait = jobs.is_empty();
            if let Some((request, error)) = receiver.refused {
                if !may_wait {
                    break;
                }
                receiver.skip(&self.stream)?;
                receiver.refused = None;
                jobs.push(Job::Refuse(request, error));
                continue;
            }
            if let Some((write, offset, left)) = receiver.long_write.take() {
                if !may_wait {
                    receiver.long_write = Some((write, offset, left));
                    break;
                }
                let length = left.min(PIECE_BYTES);
                let payload = receiver.payload(&self.stream, length, input)?;
                if left > length {
                    receiver.long_write = Some((Arc::clone(&write), offset + length as u64, left - length));
                }
                jobs.push(Job::Piece(write, offset, payload));
                continue;
            }
            let Some(header) = receiver.peek::<{ Request::BYTES }>() else {
                if !may_wait {
                    break;
                }
                if receiver.fill(&self.stream)? == Filled::Nothing {
                    *input = Input::default();
                    *output = Output::default();
                }
                continue;
            };
            let request = Request::parse(header).ok_or(End);
            if !may_wait && !request.as_ref().is_ok_and(|request| receiver.has_whole(*request)) {
                break;
            }
            let request = request?;
            if request.command == command::DISCONNECT {
                return Err(End);
            }
            receiver.consume(Request::BYTES);
            match self.check(request) {
                Err(error) if request.command == command::WRITE => {
                    receiver.refused = Some((request, error));
                    receiver.left_to_skip = request.length as usize;
                }
                Err(error) => jobs.push(Job::Refuse(request, error)),
                Ok(()) if request.command == command::WRITE && request.length as usize > PIECE_BYTES => {
                    let write = LongWrite { request, missing: AtomicU32::new(request.length), error: Mutex::new(None) };
                    receiver.long_write = Some((Arc::new(write), request.offset, request.length as usize));
                }
                Ok(()) if request.command == command::WRITE => {
                    let payload = receiver.payload(&self.stream, request.length as usize, input)?;
                    jobs.push(Job::Whole(request, payload));
                }
                Ok(()) => {
                    if request.command == command::READ {
                        reply_bytes += request.length as usize;
                    }
                    jobs.push(Job::Whole(request, 0..0));
                }
            }
        }
        Ok(())
    }
}

impl Job {
    /// Whether others must not wait for it. Such a job is the last of its batch.
    fn may_take_long(&self) -> bool {
        match self {
            Self::Refuse(..) => false,
            Self::Piece(..) => true,
            Self::Whole(request, _) => match request.command {
                command::READ => request.length > QUICK_BYTES,
                command::WRITE => request.length > QUICK_BYTES || request.has(command_flag::FUA),
                _ => true,
            },
        }
    }
}
