//! A small NBD client: one connection, blocking calls, and copies that keep several requests in flight.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::device::Extent;

use super::proto::{
    self, Fields, MAX_REQUEST_BYTES, NbdError, Request, STATE_HOLE, STATE_ZERO, command, command_flag, export_flag,
    handshake_flag, info, option, reply,
};
use super::reply::{Pending, Reply};

/// Length of one request of a copy, in bytes.
const COPY_BYTES: u32 = 256 * 1024;

/// Requests of a copy that are in flight together.
const COPY_DEPTH: usize = 16;

/// How long the server may be silent while it is asked for the export.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the server may be silent while a request waits: longer than a slow disk takes, shorter than a person waits
/// for a stuck one.
const REPLY_PATIENCE: Duration = Duration::from_mins(2);

/// The same for a flush, which may write back gigabytes.
const FLUSH_PATIENCE: Duration = Duration::from_mins(10);

/// Longest reply to an option that we take from a server.
const MAX_OPTION_REPLY_BYTES: u32 = 64 * 1024;

/// Why a call of the client failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error("nobody serves {0}")]
    NobodyThere(String),
    /// The server has no such export, or refuses it. The text is the server's.
    #[error("the server refuses the export '{export}': {message}")]
    Refused {
        /// The name that was asked for.
        export: String,
        /// What the server says about it.
        message: String,
    },
    /// The server answered a request with an error.
    #[error("{request} of {length} bytes at {offset} failed: {error}")]
    Failed {
        /// `read`, `write`, `flush`, `trim`, `write-zeroes` or `block-status`.
        request: &'static str,
        /// Where.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// The server's error.
        error: NbdError,
    },
    /// The range is outside the export, or longer than one request may be (32 MiB).
    #[error("{length} bytes at {offset} are not a range of this export of {size} bytes")]
    OutOfRange {
        /// Where.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// Size of the export in bytes.
        size: u64,
    },
    /// The other side does not speak the protocol.
    #[error("the server broke the NBD protocol: {0}")]
    Protocol(&'static str),
    /// The connection failed, or the source or target of a copy did.
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
}

/// A connection to one export.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    size: u64,
    flags: u16,
    /// Whether the server tells what is allocated.
    allocation: bool,
    next_cookie: u64,
}

impl Client {
    /// Connects to the server at `socket` and enters the export of that name (empty: the default one).
    ///
    /// # Errors
    /// If nobody listens, the server refuses, or does not speak fixed-newstyle NBD with `NBD_OPT_GO`. A server without
    /// structured replies or `base:allocation` is taken as it is.
    pub fn connect(socket: &Path, export: &str) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NobodyThere(socket.display().to_string())
            }
            _ => ClientError::Io("cannot connect", error),
        })?;
        // Best effort: fewer context switches on long writes.
        let _ = nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::SndBuf, &(COPY_BYTES as usize));
        let mut client = Self { stream, size: 0, flags: 0, allocation: false, next_cookie: 0 };
        client.wait_at_most(HANDSHAKE_PATIENCE)?;
        client.negotiate(export)?;
        client.wait_at_most(REPLY_PATIENCE)?;
        Ok(client)
    }

    fn wait_at_most(&self, patience: Duration) -> Result<(), ClientError> {
        self.stream.set_read_timeout(Some(patience)).map_err(lost)?;
        self.stream.set_write_timeout(Some(patience)).map_err(lost)
    }

    /// Size of the export in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the export takes no writes.
    pub fn read_only(&self) -> bool {
        self.flags & export_flag::READ_ONLY != 0
    }

    /// Fills `into` from `offset`, with as many requests as it takes.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ClientError> {
        self.check_range(offset, into.len() as u64)?;
        let mut at = offset;
        for piece in into.chunks_mut(MAX_REQUEST_BYTES as usize) {
            let length = request_length(piece.len());
            let cookie = self.send(command::READ, 0, at, length, &[])?;
            self.expect_reply(cookie, "read", at, u64::from(length), piece)?;
            at += u64::from(length);
        }
        Ok(())
    }

    /// What is stored from `offset` on, as runs that together are at most `length` bytes (which is not 0) and at least
    /// one. A server that does not tell has data everywhere.
    pub fn extents(&mut self, offset: u64, length: u64) -> Result<Vec<Extent>, ClientError> {
        self.check_range(offset, length)?;
        if !self.allocation {
            return Ok(vec![Extent { length, hole: false, zero: false }]);
        }
        let asked = request_part(length);
        let cookie = self.send(command::BLOCK_STATUS, 0, offset, asked, &[])?;
        let found = self.expect_reply(cookie, "block-status", offset, u64::from(asked), &mut [])?;
        let mut extents = Vec::with_capacity(found.len());
        // The last run may go on behind what was asked for.
        let mut left = u64::from(asked);
        for (length, flags) in found {
            let length = u64::from(length).min(left);
            if length == 0 {
                break;
            }
            left -= length;
            extents.push(Extent { length, hole: flags & STATE_HOLE != 0, zero: flags & STATE_ZERO != 0 });
        }
        if extents.is_empty() {
            return Err(ClientError::Protocol("an answer without a run"));
        }
        Ok(extents)
    }

    /// Writes `data` at `offset`, with as many requests as it takes.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        self.write_with(offset, data, 0)
    }

    /// As [`Client::write`]; each request is answered only when it is durable (`FUA`).
    pub fn write_durably(&mut self, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        self.write_with(offset, data, command_flag::FUA)
    }

    fn write_with(&mut self, offset: u64, data: &[u8], flags: u16) -> Result<(), ClientError> {
        self.check_range(offset, data.len() as u64)?;
        let mut at = offset;
        for piece in data.chunks(MAX_REQUEST_BYTES as usize) {
            let length = request_length(piece.len());
            let cookie = self.send(command::WRITE, flags, at, length, piece)?;
            self.expect_reply(cookie, "write", at, u64::from(length), &mut [])?;
            at += u64::from(length);
        }
        Ok(())
    }

    /// Makes every write that was answered before, on whichever connection, durable.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.wait_at_most(FLUSH_PATIENCE)?;
        let cookie = self.send(command::FLUSH, 0, 0, 0, &[])?;
        self.expect_reply(cookie, "flush", 0, 0, &mut [])?;
        self.wait_at_most(REPLY_PATIENCE)
    }

    /// Gives the space of a range back; it reads as zeros afterwards.
    pub fn trim(&mut self, offset: u64, length: u64) -> Result<(), ClientError> {
        self.change("trim", command::TRIM, 0, offset, length)
    }

    /// Makes a range read as zeros; with `keep_allocated` its space stays reserved (`NO_HOLE`).
    pub fn write_zeroes(&mut self, offset: u64, length: u64, keep_allocated: bool) -> Result<(), ClientError> {
        let flags = if keep_allocated { command_flag::NO_HOLE } else { 0 };
        self.change("write-zeroes", command::WRITE_ZEROES, flags, offset, length)
    }

    fn change(
        &mut self,
        name: &'static str,
        command: u16,
        flags: u16,
        offset: u64,
        length: u64,
    ) -> Result<(), ClientError> {
        self.check_range(offset, length)?;
        let mut at = offset;
        let end = offset + length;
        while at < end {
            let piece = request_part(end - at);
            let cookie = self.send(command, flags, at, piece, &[])?;
            self.expect_reply(cookie, name, at, u64::from(piece), &mut [])?;
            at += u64::from(piece);
        }
        Ok(())
    }

    /// Writes `length` bytes of `source` from `offset` on, several requests at a time. Progress is told in bytes.
    ///
    /// Nothing is durable before a [`Client::flush`]. After an error the connection is of no further use.
    pub fn copy_in(
        &mut self,
        source: &mut (dyn Read + Send),
        offset: u64,
        length: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ClientError> {
        self.check_range(offset, length)?;
        let copy = Copy::new(self, command::WRITE, offset, length);
        copy.run(Some(source), &mut |piece, _| {
            progress(u64::from(piece.length));
            Ok(1)
        })
    }

    /// Reads `length` bytes from `offset` on into `target`, several requests at a time. Progress is told in bytes.
    ///
    /// After an error the connection is of no further use.
    pub fn copy_out(
        &mut self,
        target: &mut dyn Write,
        offset: u64,
        length: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ClientError> {
        self.check_range(offset, length)?;
        let copy = Copy::new(self, command::READ, offset, length);
        // Replies come in any order, the target wants them in the order of the requests.
        let mut early: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut next = copy.first_cookie;
        copy.run(None, &mut |piece, data| {
            early.push((piece.cookie, data));
            let mut delivered = 0;
            while let Some(at) = early.iter().position(|(cookie, _)| *cookie == next) {
                let (_, data) = early.swap_remove(at);
                target.write_all(&data).map_err(|error| ClientError::Io("cannot write what was copied", error))?;
                progress(data.len() as u64);
                next += 1;
                delivered += 1;
            }
            Ok(delivered)
        })
    }

    /// Says good-bye; the server first ends what it has begun.
    pub fn disconnect(mut self) -> Result<(), ClientError> {
        self.send(command::DISCONNECT, 0, 0, 0, &[])?;
        // The server closes when it is done.
        match self.stream.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(ClientError::Protocol("bytes after the last reply")),
            Err(error) => Err(lost(error)),
        }
    }

    fn negotiate(&mut self, export: &str) -> Result<(), ClientError> {
        let greeting: [u8; 18] = self.receive()?;
        let mut fields = Fields(&greeting);
        if (fields.u64(), fields.u64()) != (Some(proto::SERVER_MAGIC), Some(proto::OPTION_MAGIC)) {
            return Err(ClientError::Protocol("its greeting is not that of a newstyle server"));
        }
        let flags = fields.u16().unwrap_or(0);
        if flags & handshake_flag::FIXED_NEWSTYLE == 0 {
            return Err(ClientError::Protocol("it does not speak fixed newstyle"));
        }
        let answer = flags & (handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES);
        write_all(&self.stream, &u32::from(answer).to_be_bytes())?;
        self.allocation = self.ask_for_allocation(export)?;
        let mut asked = sized(export)?;
        asked.extend_from_slice(&0u16.to_be_bytes());
        self.send_option(option::GO, &asked)?;
        let mut told = None;
        loop {
            let (kind, data) = self.option_reply(option::GO)?;
            match kind {
                reply::INFO => {
                    let mut fields = Fields(&data);
                    if fields.u16() == Some(info::EXPORT) {
                        told = fields.u64().zip(fields.u16());
                    }
                }
                reply::ACK => {
                    (self.size, self.flags) = told.ok_or(ClientError::Protocol("an export without a size"))?;
                    return Ok(());
                }
                _ if kind & reply::ERROR_BIT != 0 => {
                    let message = match kind {
                        reply::ERR_UNSUP => "it does not know NBD_OPT_GO".to_owned(),
                        _ if data.is_empty() => format!("error {}", kind & !reply::ERROR_BIT),
                        _ => String::from_utf8_lossy(&data).escape_debug().to_string(),
                    };
                    return Err(ClientError::Refused { export: export.to_owned(), message });
                }
                _ => {}
            }
        }
    }

    /// Asks for structured replies and `base:allocation`; answers whether the server has both.
    fn ask_for_allocation(&mut self, export: &str) -> Result<bool, ClientError> {
        self.send_option(option::STRUCTURED_REPLY, &[])?;
        if self.option_reply(option::STRUCTURED_REPLY)?.0 != reply::ACK {
            return Ok(false);
        }
        let mut asked = sized(export)?;
        asked.extend_from_slice(&1u32.to_be_bytes());
        asked.extend_from_slice(&sized(proto::ALLOCATION_CONTEXT)?);
        self.send_option(option::SET_META_CONTEXT, &asked)?;
        let mut granted = false;
        loop {
            match self.option_reply(option::SET_META_CONTEXT)?.0 {
                reply::META_CONTEXT => granted = true,
                reply::ACK => return Ok(granted),
                kind if kind & reply::ERROR_BIT != 0 => return Ok(false),
                _ => {}
            }
        }
    }

    fn send_option(&mut self, option: u32, data: &[u8]) -> Result<(), ClientError> {
        let length = u32::try_from(data.len()).map_err(|_| ClientError::Protocol("an option has at most 4 GiB"))?;
        let mut message = proto::OPTION_MAGIC.to_be_bytes().to_vec();
        message.extend_from_slice(&option.to_be_bytes());
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(data);
        write_all(&self.stream, &message)
    }

    /// The next reply to that option: its kind and its data.
    fn option_reply(&mut self, option: u32) -> Result<(u32, Vec<u8>), ClientError> {
        let header: [u8; 20] = self.receive()?;
        let mut fields = Fields(&header);
        let magic = fields.u64();
        let (Some(answered), Some(kind), Some(length)) = (fields.u32(), fields.u32(), fields.u32()) else {
            return Err(ClientError::Protocol("a short option reply"));
        };
        if magic != Some(proto::OPTION_REPLY_MAGIC) || answered != option || length > MAX_OPTION_REPLY_BYTES {
            return Err(ClientError::Protocol("that is no reply to the option"));
        }
        let mut data = vec![0; length as usize];
        self.stream.read_exact(&mut data).map_err(lost)?;
        Ok((kind, data))
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<(), ClientError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(ClientError::OutOfRange { offset, length, size: self.size }),
        }
    }

    fn take_cookies(&mut self, count: u64) -> u64 {
        let first = self.next_cookie;
        self.next_cookie += count;
        first
    }

    fn send(&mut self, command: u16, flags: u16, offset: u64, length: u32, payload: &[u8]) -> Result<u64, ClientError> {
        let cookie = self.take_cookies(1);
        let header = Request { flags, command, cookie, offset, length }.to_bytes();
        write_all(&self.stream, &header)?;
        write_all(&self.stream, payload)?;
        Ok(cookie)
    }

    /// Waits for the answer to the only request that is under way; what it asked for goes into `into`. Returns the runs
    /// of a block-status answer.
    fn expect_reply(
        &self,
        cookie: u64,
        request: &'static str,
        offset: u64,
        length: u64,
        into: &mut [u8],
    ) -> Result<Vec<(u32, u32)>, ClientError> {
        let mut pending = Pending::new(offset, into);
        loop {
            let reply = Reply::next(&self.stream)?;
            if reply.cookie != cookie {
                return Err(ClientError::Protocol("a reply to a request that was not made"));
            }
            let last = reply.last;
            pending.take(&self.stream, reply)?;
            if last {
                return pending.end().map(|(_, runs)| runs).map_err(|ended| ended.of(request, offset, length));
            }
        }
    }

    fn receive<const N: usize>(&self) -> Result<[u8; N], ClientError> {
        let mut bytes = [0; N];
        read_exact(&self.stream, &mut bytes)?;
        Ok(bytes)
    }
}

/// One request of a copy.
#[derive(Clone, Copy)]
struct Piece {
    cookie: u64,
    offset: u64,
    length: u32,
}

/// A range that is read or written with [`COPY_DEPTH`] requests in flight: one thread sends, the caller's receives.
struct Copy<'a> {
    stream: &'a UnixStream,
    command: u16,
    first_cookie: u64,
    offset: u64,
    length: u64,
}

impl<'a> Copy<'a> {
    fn new(client: &'a mut Client, command: u16, offset: u64, length: u64) -> Self {
        let first_cookie = client.take_cookies(length.div_ceil(u64::from(COPY_BYTES)));
        Self { stream: &client.stream, command, first_cookie, offset, length }
    }

    /// Runs the copy. `done` gets each answered piece and what was read of it, and says how many pieces it is through
    /// with: so many more may then be sent, which bounds what it has to hold.
    fn run(
        &self,
        source: Option<&mut (dyn Read + Send)>,
        done: &mut dyn FnMut(Piece, Vec<u8>) -> Result<usize, ClientError>,
    ) -> Result<(), ClientError> {
        let (announce, announced) = channel();
        let (permit, permits) = channel();
        for _ in 0..COPY_DEPTH {
            // Both ends live until the scope's end.
            let _ = permit.send(());
        }
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || self.send(source, &announce, &permits));
            let received = self.receive(&announced, &permit, done);
            drop((announced, permit));
            if received.is_err() {
                // The sender may be in the middle of a write that nobody will read.
                let _ = self.stream.shutdown(Shutdown::Both);
            }
            let sent = sender.join().unwrap_or(Err(ClientError::Protocol("the source of the copy panicked")));
            // A server that hangs up ends both halves; what the receiver saw says more than a broken pipe.
            received.and(sent)
        })
    }

    /// Sends the requests, each announced before; the payload is there before the announcement, because every announced
    /// request will be answered.
    fn send(
        &self,
        mut source: Option<&mut (dyn Read + Send)>,
        announce: &Sender<Piece>,
        permits: &Receiver<()>,
    ) -> Result<(), ClientError> {
        let mut buffer = vec![0; if source.is_some() { COPY_BYTES as usize } else { 0 }];
        let end = self.offset + self.length;
        let mut at = self.offset;
        let mut cookie = self.first_cookie;
        while at < end {
            let length = u32::try_from(end - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let payload = buffer.get_mut(..length as usize).unwrap_or_default();
            if let Some(source) = &mut source {
                source
                    .read_exact(payload)
                    .map_err(|error| ClientError::Io("cannot read what is to be copied", error))?;
            }
            let piece = Piece { cookie, offset: at, length };
            if permits.recv().is_err() || announce.send(piece).is_err() {
                // The receiving side gave up and has the reason.
                return Ok(());
            }
            let header = Request { flags: 0, command: self.command, cookie, offset: at, length };
            write_all(self.stream, &header.to_bytes())?;
            write_all(self.stream, payload)?;
            at += u64::from(length);
            cookie += 1;
        }
        Ok(())
    }

    /// Takes the replies to announced requests, in whichever order they come, until all are there.
    fn receive(
        &self,
        announced: &Receiver<Piece>,
        permit: &Sender<()>,
        done: &mut dyn FnMut(Piece, Vec<u8>) -> Result<usize, ClientError>,
    ) -> Result<(), ClientError> {
        let reads = self.command == command::READ;
        let request = if reads { "read" } else { "write" };
        let mut open: Vec<(Piece, Pending<Vec<u8>>)> = Vec::new();
        let enter = |piece: Piece| {
            let room = if reads { piece.length as usize } else { 0 };
            (piece, Pending::new(piece.offset, vec![0; room]))
        };
        loop {
            if open.is_empty() {
                match announced.recv() {
                    Ok(piece) => open.push(enter(piece)),
                    Err(_) => return Ok(()),
                }
            }
            let reply = Reply::next(self.stream)?;
            open.extend(announced.try_iter().map(enter));
            let at = open
                .iter()
                .position(|(piece, _)| piece.cookie == reply.cookie)
                .ok_or(ClientError::Protocol("a reply to a request that was not made"))?;
            let last = reply.last;
            open[at].1.take(self.stream, reply)?;
            if !last {
                continue;
            }
            let (piece, pending) = open.swap_remove(at);
            let (data, _) = pending.end().map_err(|ended| ended.of(request, piece.offset, u64::from(piece.length)))?;
            for _ in 0..done(piece, data)? {
                // Fails only when the sender is through.
                let _ = permit.send(());
            }
        }
    }
}

pub(super) fn read_exact(mut stream: &UnixStream, into: &mut [u8]) -> Result<(), ClientError> {
    stream.read_exact(into).map_err(lost)
}

fn write_all(mut stream: &UnixStream, bytes: &[u8]) -> Result<(), ClientError> {
    stream.write_all(bytes).map_err(lost)
}

fn lost(error: io::Error) -> ClientError {
    let what = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the NBD server gives no answer",
        _ => "the connection to the NBD server is lost",
    };
    ClientError::Io(what, error)
}

/// How much of a range without data one request names: the largest multiple of 4096 that its field holds, if not all.
fn request_part(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(!4095)
}

/// A text with its length before it.
fn sized(text: &str) -> Result<Vec<u8>, ClientError> {
    let length = u32::try_from(text.len())
        .ok()
        .filter(|_| text.len() <= proto::MAX_STRING_BYTES)
        .ok_or(ClientError::Protocol("an export's name has at most 4096 bytes"))?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    Ok(bytes)
}

fn request_length(length: usize) -> u32 {
    u32::try_from(length).expect("pieces are cut to at most 32 MiB")
}
