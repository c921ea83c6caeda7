//! What a server answers, as the client reads it: simple replies, and the chunks of structured ones.

use std::os::unix::net::UnixStream;

use super::client::{ClientError, read_exact};
use super::proto::{self, CHUNK_HEADER_BYTES, Fields, MAX_REQUEST_BYTES, NbdError, SIMPLE_REPLY_BYTES, chunk};

/// One message of a server that answers a request.
pub(super) struct Reply {
    /// The request's.
    pub(super) cookie: u64,
    /// Whether it is the last one for that request.
    pub(super) last: bool,
    part: Part,
}

enum Part {
    /// A simple reply. If it is no error, what was asked for follows.
    Simple(Option<NbdError>),
    /// A chunk that brings nothing.
    Nothing,
    Error(NbdError),
    /// So many bytes of this place follow.
    Data {
        offset: u64,
        length: u32,
    },
    /// So many bytes of this place are zeros.
    Hole {
        offset: u64,
        length: u32,
    },
    /// Lengths and flags of `base:allocation`.
    Extents(Vec<(u32, u32)>),
}

impl Reply {
    /// Reads the next message up to the data that it brings, which [`Pending::take`] reads.
    pub(super) fn next(stream: &UnixStream) -> Result<Self, ClientError> {
        let mut header = [0; SIMPLE_REPLY_BYTES];
        read_exact(stream, &mut header)?;
        let mut fields = Fields(&header);
        match fields.u32() {
            Some(proto::SIMPLE_REPLY_MAGIC) => {
                let (Some(code), Some(cookie)) = (fields.u32(), fields.u64()) else { return Err(short()) };
                let error = (code != 0).then(|| NbdError::from_code(code));
                Ok(Self { cookie, last: true, part: Part::Simple(error) })
            }
            Some(proto::CHUNK_MAGIC) => {
                let (Some(flags), Some(kind), Some(cookie)) = (fields.u16(), fields.u16(), fields.u64()) else {
                    return Err(short());
                };
                let mut length = [0; CHUNK_HEADER_BYTES - SIMPLE_REPLY_BYTES];
                read_exact(stream, &mut length)?;
                let part = Part::next(stream, kind, u32::from_be_bytes(length))?;
                Ok(Self { cookie, last: flags & chunk::FLAG_DONE != 0, part })
            }
            _ => Err(ClientError::Protocol("a reply without its magic number")),
        }
    }
}

impl Part {
    fn next(stream: &UnixStream, kind: u16, length: u32) -> Result<Self, ClientError> {
        // Data is left in the stream: it goes straight to where it is wanted.
        let here = if kind == chunk::OFFSET_DATA { length.min(8) } else { length };
        if here > MAX_REQUEST_BYTES {
            return Err(ClientError::Protocol("a chunk of absurd length"));
        }
        let mut bytes = vec![0; here as usize];
        read_exact(stream, &mut bytes)?;
        let mut fields = Fields(&bytes);
        match kind {
            chunk::NONE if length == 0 => Ok(Self::Nothing),
            chunk::OFFSET_DATA => {
                let offset = fields.u64().ok_or_else(short)?;
                Ok(Self::Data { offset, length: length - 8 })
            }
            chunk::OFFSET_HOLE => {
                let (Some(offset), Some(length)) = (fields.u64(), fields.u32()) else { return Err(short()) };
                Ok(Self::Hole { offset, length })
            }
            chunk::BLOCK_STATUS => {
                // The id of the only context that was asked for.
                fields.u32().ok_or_else(short)?;
                let mut extents = Vec::with_capacity(bytes.len() / 8);
                while let (Some(length), Some(flags)) = (fields.u32(), fields.u32()) {
                    extents.push((length, flags));
                }
                Ok(Self::Extents(extents))
            }
            _ if kind & chunk::ERROR_BIT != 0 => Ok(Self::Error(NbdError::from_code(fields.u32().ok_or_else(short)?))),
            _ => Err(ClientError::Protocol("a chunk of unknown kind")),
        }
    }
}

/// What has come so far of the answer to one request; the place for what it asks for is empty if that is nothing.
pub(super) struct Pending<B> {
    offset: u64,
    into: B,
    filled: u64,
    extents: Vec<(u32, u32)>,
    error: Option<NbdError>,
}

impl<B: AsMut<[u8]>> Pending<B> {
    pub(super) fn new(offset: u64, into: B) -> Self {
        Self { offset, into, filled: 0, extents: Vec::new(), error: None }
    }

    /// Takes in one part of the answer, and from the stream what it brings.
    pub(super) fn take(&mut self, stream: &UnixStream, reply: Reply) -> Result<(), ClientError> {
        match reply.part {
            Part::Simple(None) => {
                let into = self.into.as_mut();
                self.filled = into.len() as u64;
                read_exact(stream, into)
            }
            Part::Nothing => Ok(()),
            Part::Simple(Some(error)) | Part::Error(error) => {
                self.error.get_or_insert(error);
                Ok(())
            }
            Part::Data { offset, length } => read_exact(stream, self.place(offset, length)?),
            Part::Hole { offset, length } => {
                self.place(offset, length)?.fill(0);
                Ok(())
            }
            Part::Extents(extents) => {
                self.extents = extents;
                Ok(())
            }
        }
    }

    /// After the last part: what was asked for, and the extents, or the server's error.
    pub(super) fn end(mut self) -> Result<(B, Vec<(u32, u32)>), Ended> {
        match self.error {
            Some(error) => Err(Ended::Refused(error)),
            // Parts that overlap would pass; a server can send whatever bytes it likes anyway.
            None if self.filled != self.into.as_mut().len() as u64 => Err(Ended::Incomplete),
            None => Ok((self.into, self.extents)),
        }
    }

    fn place(&mut self, offset: u64, length: u32) -> Result<&mut [u8], ClientError> {
        let start = offset.checked_sub(self.offset).and_then(|start| usize::try_from(start).ok());
        let place = start.and_then(|start| self.into.as_mut().get_mut(start..)?.get_mut(..length as usize));
        self.filled += u64::from(length);
        place.ok_or(ClientError::Protocol("data that was not asked for"))
    }
}

/// How a request ended that did not succeed.
pub(super) enum Ended {
    Refused(NbdError),
    Incomplete,
}

impl Ended {
    pub(super) fn of(self, request: &'static str, offset: u64, length: u64) -> ClientError {
        match self {
            Self::Refused(error) => ClientError::Failed { request, offset, length, error },
            Self::Incomplete => ClientError::Protocol("an answer that leaves out a part of what was asked for"),
        }
    }
}

fn short() -> ClientError {
    ClientError::Protocol("a short reply")
}
