//! The receiving end of a connection: what was read ahead, and what is still to come of a message that has begun.

use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use super::proto::{NbdError, Request, command};

/// Read-ahead of the socket: a batch of 15 writes of 4 KiB fits.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// The lead: the receiving end of the socket with what was read ahead.
pub(super) struct Receiver {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// A long write, the offset of its next piece and how many bytes are still to come.
    pub(super) long_write: Option<(Arc<LongWrite>, u64, usize)>,
    /// A refused write whose payload must be thrown away.
    pub(super) refused: Option<(Request, NbdError)>,
    /// How much of it.
    pub(super) left_to_skip: usize,
}

/// A write that is carried out in pieces.
pub(super) struct LongWrite {
    pub(super) request: Request,
    /// Bytes whose piece is not carried out yet.
    pub(super) missing: AtomicU32,
    pub(super) error: Mutex<Option<NbdError>>,
}

/// Payloads of requests. Its memory is initialised once and used again.
#[derive(Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    pub(super) used: usize,
}

#[derive(PartialEq, Eq)]
pub(super) enum Filled {
    Something,
    /// The client was silent for as long as the socket waits.
    Nothing,
}

/// No further request comes: the client is through, or does not speak NBD.
pub(super) struct End;

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; READ_AHEAD_BYTES].into(),
            start: 0,
            end: 0,
            long_write: None,
            refused: None,
            left_to_skip: 0,
        }
    }

    pub(super) fn peek<const N: usize>(&self) -> Option<&[u8; N]> {
        self.buffer[self.start..self.end].first_chunk()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Whether the request and its payload are in the buffer.
    pub(super) fn has_whole(&self, request: Request) -> bool {
        let payload = if request.command == command::WRITE { request.length as usize } else { 0 };
        self.end - self.start >= Request::BYTES.saturating_add(payload)
    }

    /// Reads once into the buffer, behind what is there.
    pub(super) fn fill(&mut self, mut stream: &UnixStream) -> Result<Filled, End> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err(End),
            Ok(count) => {
                self.end += count;
                Ok(Filled::Something)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Filled::Something),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends `length` bytes of payload to `input`, what was read ahead first.
    pub(super) fn payload(
        &mut self,
        mut stream: &UnixStream,
        length: usize,
        input: &mut Input,
    ) -> Result<Range<usize>, End> {
        let range = input.used..input.used + length;
        input.used = range.end;
        if input.bytes.len() < range.end {
            input.bytes.resize(range.end, 0);
        }
        let ahead = length.min(self.end - self.start);
        let (begun, mut missing) = input.bytes[range.clone()].split_at_mut(ahead);
        begun.copy_from_slice(&self.buffer[self.start..self.start + ahead]);
        self.consume(ahead);
        while !missing.is_empty() {
            match stream.read(missing) {
                Ok(0) => return Err(End),
                Ok(count) => missing = &mut missing[count..],
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(range)
    }

    /// Throws away the rest of a refused payload.
    pub(super) fn skip(&mut self, stream: &UnixStream) -> Result<(), End> {
        loop {
            let count = self.left_to_skip.min(self.end - self.start);
            self.consume(count);
            self.left_to_skip -= count;
            if self.left_to_skip == 0 {
                return Ok(());
            }
            self.fill(stream)?;
        }
    }
}
