//! What each request of a connection does to the device, and the bytes that answer it.

use std::io;

use crate::device::{DeviceError, Extent, ZeroMode};

use super::proto::{
    ALLOCATION_CONTEXT_ID, MAX_REQUEST_BYTES, NbdError, Request, SIMPLE_REPLY_BYTES, STATE_HOLE, STATE_ZERO, chunk,
    chunk_header, command, command_flag, simple_reply,
};
use super::transmission::{Connection, PIECE_BYTES};

/// Most descriptors in one answer to a block-status request; the client asks on from where they end.
const MAX_EXTENTS: usize = 4096;

/// How much of a block-status request the device is asked for at once.
const STATUS_BYTES: u32 = 128 * 1024 * 1024;

/// Replies that are still to be sent. Its memory is initialised once and used again.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    used: usize,
}

impl Output {
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
    }

    /// `length` more bytes of output, with whatever they held before.
    fn space(&mut self, length: usize) -> &mut [u8] {
        let start = self.used;
        self.used += length;
        if self.bytes.len() < self.used {
            self.bytes.resize(self.used, 0);
        }
        &mut self.bytes[start..self.used]
    }
}

impl Connection {
    /// Whether the request is one that we carry out, before its payload is read.
    pub(super) fn check(&self, request: Request) -> Result<(), NbdError> {
        let agreement = &self.agreement;
        let allowed = command_flag::FUA
            | match request.command {
                command::READ if agreement.structured => command_flag::DF,
                command::WRITE_ZEROES => command_flag::NO_HOLE,
                command::BLOCK_STATUS => command_flag::REQ_ONE,
                _ => 0,
            };
        if request.has(!allowed) {
            return Err(NbdError::Invalid);
        }
        let beyond = request.offset.checked_add(u64::from(request.length)).is_none_or(|end| end > agreement.size);
        match request.command {
            command::READ | command::WRITE if request.length > MAX_REQUEST_BYTES => Err(NbdError::Invalid),
            command::WRITE | command::TRIM | command::WRITE_ZEROES if agreement.read_only => {
                Err(NbdError::NotPermitted)
            }
            command::WRITE | command::WRITE_ZEROES if beyond => Err(NbdError::NoSpace),
            command::READ | command::TRIM | command::CACHE | command::BLOCK_STATUS if beyond => Err(NbdError::Invalid),
            command::READ if request.has(command_flag::DF) && request.length as usize > PIECE_BYTES => {
                Err(NbdError::Overflow)
            }
            command::FLUSH if request.offset != 0 || request.length != 0 => Err(NbdError::Invalid),
            command::BLOCK_STATUS if !agreement.allocation || request.length == 0 => Err(NbdError::Invalid),
            command::READ
            | command::WRITE
            | command::TRIM
            | command::CACHE
            | command::WRITE_ZEROES
            | command::FLUSH
            | command::BLOCK_STATUS => Ok(()),
            _ => Err(NbdError::Invalid),
        }
    }

    /// Answers a read: in one piece, or piece by piece, sending each before the next is read.
    ///
    /// # Errors
    /// The socket's; or, for a client without structured replies, the device's in the middle of a long read: the
    /// protocol has no other way to tell it than to hang up.
    pub(super) fn read(&self, request: Request, output: &mut Output) -> io::Result<()> {
        let structured = self.agreement.structured;
        if structured && request.length == 0 {
            output.put(&chunk_header(request.cookie, chunk::FLAG_DONE, chunk::NONE, 0));
            self.shared().count_requests(1, 0);
            return Ok(());
        }
        // The pieces of a simple reply must not be parted by other replies.
        let turn = (!structured && request.length as usize > PIECE_BYTES).then(|| self.send_turn());
        let mut offset = request.offset;
        let mut left = request.length as usize;
        loop {
            let length = left.min(PIECE_BYTES);
            left -= length;
            let before = output.used;
            if structured {
                let flags = if left == 0 { chunk::FLAG_DONE } else { 0 };
                let payload = u32::try_from(8 + length).expect("a piece is at most 512 KiB");
                output.put(&chunk_header(request.cookie, flags, chunk::OFFSET_DATA, payload));
                output.put(&offset.to_be_bytes());
            } else if offset == request.offset {
                output.put(&simple_reply(request.cookie, None));
            }
            let outcome = match output.space(length) {
                [] => Ok(()),
                data => self.device.read_at(offset, data),
            };
            if let Err(error) = outcome {
                output.used = before;
                let error = self.device_error(&error);
                if !structured && offset != request.offset {
                    return Err(io::Error::other("the device failed within a simple reply"));
                }
                self.refuse(request, error, output);
                return Ok(());
            }
            if let Some(turn) = &turn {
                self.send_in_turn(turn, output)?;
            }
            if left == 0 {
                self.shared().count_bytes(u64::from(request.length), 0);
                self.shared().count_requests(1, 0);
                return Ok(());
            }
            if turn.is_none() {
                self.send(output)?;
            }
            offset += length as u64;
        }
    }

    /// Writes, trims or zeroes, as the request says.
    pub(super) fn change(&self, request: Request, payload: &[u8]) -> Result<(), NbdError> {
        if request.length == 0 {
            return Ok(());
        }
        let length = u64::from(request.length);
        match request.command {
            command::WRITE => self.write(request.offset, payload),
            command::TRIM => self.told(self.device.trim(request.offset, length)),
            _ => {
                let keep = request.has(command_flag::NO_HOLE);
                let mode = if keep { ZeroMode::KeepAllocated } else { ZeroMode::MayPunch };
                self.told(self.device.write_zeroes(request.offset, length, mode))
            }
        }
    }

    pub(super) fn write(&self, offset: u64, payload: &[u8]) -> Result<(), NbdError> {
        self.told(self.device.write_at(offset, payload))?;
        self.shared().count_bytes(0, payload.len() as u64);
        Ok(())
    }

    /// Reads the range, the first 32 MiB of it, into the page cache. It is advice: a longer range would keep a worker for long.
    pub(super) fn cache(&self, request: Request, output: &mut Output) -> Result<(), NbdError> {
        let before = output.used;
        let mut left = request.length.min(MAX_REQUEST_BYTES) as usize;
        let mut offset = request.offset;
        while left > 0 {
            let length = left.min(PIECE_BYTES);
            let outcome = self.device.read_at(offset, output.space(length));
            output.used = before;
            self.told(outcome)?;
            left -= length;
            offset += length as u64;
        }
        Ok(())
    }

    pub(super) fn flush_device(&self) -> Result<(), NbdError> {
        self.shared().count_flush();
        self.told(self.device.flush())
    }

    /// Answers a question for `base:allocation`.
    pub(super) fn block_status(&self, request: Request, output: &mut Output) {
        let most = if request.has(command_flag::REQ_ONE) { 1 } else { MAX_EXTENTS };
        let mut descriptors = Vec::new();
        let mut told = 0;
        // The device is asked range by range, so that neither side holds a list for all of 4 GiB.
        while told < request.length && descriptors.len() <= most {
            let length = (request.length - told).min(STATUS_BYTES);
            match self.device.extents(request.offset + u64::from(told), u64::from(length)) {
                Ok(extents) => {
                    let before = told;
                    told += describe(&extents, length, &mut descriptors);
                    if told == before {
                        break;
                    }
                }
                Err(error) => return self.refuse(request, self.device_error(&error), output),
            }
        }
        descriptors.truncate(most);
        if descriptors.is_empty() {
            // "Nothing known" is always a true answer.
            descriptors.push((request.length, 0));
        }
        let length = u32::try_from(4 + 8 * descriptors.len()).expect("at most 4096 descriptors");
        output.put(&chunk_header(request.cookie, chunk::FLAG_DONE, chunk::BLOCK_STATUS, length));
        output.put(&ALLOCATION_CONTEXT_ID.to_be_bytes());
        for (length, flags) in descriptors {
            output.put(&length.to_be_bytes());
            output.put(&flags.to_be_bytes());
        }
        self.shared().count_requests(1, 0);
    }

    pub(super) fn succeed(&self, cookie: u64, output: &mut Output) {
        output.put(&simple_reply(cookie, None));
        self.shared().count_requests(1, 0);
    }

    /// Answers with an error, in the form that the request's kind demands.
    pub(super) fn refuse(&self, request: Request, error: NbdError, output: &mut Output) {
        let chunked = matches!(request.command, command::READ | command::BLOCK_STATUS) && self.agreement.structured;
        if !chunked {
            return self.refuse_simply(request.cookie, error, output);
        }
        let message = error.to_string();
        let text_length = u16::try_from(message.len()).expect("the errors' texts are a few words");
        output.put(&chunk_header(request.cookie, chunk::FLAG_DONE, chunk::ERROR, 6 + u32::from(text_length)));
        output.put(&error.code().to_be_bytes());
        output.put(&text_length.to_be_bytes());
        output.put(message.as_bytes());
        self.shared().count_requests(1, 1);
    }

    pub(super) fn refuse_simply(&self, cookie: u64, error: NbdError, output: &mut Output) {
        let reply: [u8; SIMPLE_REPLY_BYTES] = simple_reply(cookie, Some(error));
        output.put(&reply);
        self.shared().count_requests(1, 1);
    }

    fn told(&self, outcome: Result<(), DeviceError>) -> Result<(), NbdError> {
        outcome.map_err(|error| self.device_error(&error))
    }

    fn device_error(&self, error: &DeviceError) -> NbdError {
        self.shared().note_device_error(error);
        NbdError::from_device(error)
    }
}

/// Appends the extents as descriptors of the wire, neighbours of a kind joined, and returns how many bytes they are: at
/// most `length`.
fn describe(extents: &[Extent], length: u32, descriptors: &mut Vec<(u32, u32)>) -> u32 {
    let mut left = length;
    for extent in extents {
        let part = u32::try_from(extent.length).unwrap_or(u32::MAX).min(left);
        if part == 0 {
            break;
        }
        left -= part;
        let flags = if extent.hole { STATE_HOLE } else { 0 } | if extent.zero { STATE_ZERO } else { 0 };
        match descriptors.last_mut() {
            Some(last) if last.1 == flags => last.0 += part,
            _ => descriptors.push((part, flags)),
        }
    }
    length - left
}
