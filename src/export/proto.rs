//! The numbers and layouts of the NBD protocol, all big-endian.
//!
//! Source: `doc/proto.md` of the `NetworkBlockDevice` project. Only what the server or the client uses is here.

use crate::device::{DeviceError, DeviceErrorKind};

/// Largest request that is served, in bytes: what we announce as the maximum block size.
pub const MAX_REQUEST_BYTES: u32 = 32 * 1024 * 1024;

/// Preferred request granularity, in bytes: the physical block size of every volume.
pub(super) const PREFERRED_BLOCK_BYTES: u32 = 4096;

/// Longest export name or query the protocol allows, in bytes.
pub(super) const MAX_STRING_BYTES: usize = 4096;

/// `NBDMAGIC`, the first bytes of every server.
pub(super) const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, before every option.
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before every reply to an option.
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before every request.
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before a simple reply.
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Before each chunk of a structured reply.
pub(super) const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags, the same two bits from server and client.
pub(super) mod handshake_flag {
    pub(in crate::export) const FIXED_NEWSTYLE: u16 = 1;
    pub(in crate::export) const NO_ZEROES: u16 = 1 << 1;
}

/// Options of the negotiation.
pub(super) mod option {
    pub(in crate::export) const EXPORT_NAME: u32 = 1;
    pub(in crate::export) const ABORT: u32 = 2;
    pub(in crate::export) const LIST: u32 = 3;
    pub(in crate::export) const INFO: u32 = 6;
    pub(in crate::export) const GO: u32 = 7;
    pub(in crate::export) const STRUCTURED_REPLY: u32 = 8;
    pub(in crate::export) const LIST_META_CONTEXT: u32 = 9;
    pub(in crate::export) const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options; those with bit 31 are errors.
pub(super) mod reply {
    pub(in crate::export) const ACK: u32 = 1;
    pub(in crate::export) const SERVER: u32 = 2;
    pub(in crate::export) const INFO: u32 = 3;
    pub(in crate::export) const META_CONTEXT: u32 = 4;
    pub(in crate::export) const ERROR_BIT: u32 = 1 << 31;
    pub(in crate::export) const ERR_UNSUP: u32 = ERROR_BIT | 1;
    pub(in crate::export) const ERR_INVALID: u32 = ERROR_BIT | 3;
    pub(in crate::export) const ERR_UNKNOWN: u32 = ERROR_BIT | 6;
    pub(in crate::export) const ERR_TOO_BIG: u32 = ERROR_BIT | 9;
}

/// Kinds of information in a reply to `INFO` and `GO`.
pub(super) mod info {
    pub(in crate::export) const EXPORT: u16 = 0;
    pub(in crate::export) const NAME: u16 = 1;
    pub(in crate::export) const DESCRIPTION: u16 = 2;
    pub(in crate::export) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what an export can do.
pub(super) mod export_flag {
    pub(in crate::export) const HAS_FLAGS: u16 = 1;
    pub(in crate::export) const READ_ONLY: u16 = 1 << 1;
    pub(in crate::export) const SEND_FLUSH: u16 = 1 << 2;
    pub(in crate::export) const SEND_FUA: u16 = 1 << 3;
    pub(in crate::export) const SEND_TRIM: u16 = 1 << 5;
    pub(in crate::export) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in crate::export) const SEND_DF: u16 = 1 << 7;
    pub(in crate::export) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(in crate::export) const SEND_CACHE: u16 = 1 << 10;
}

/// Commands.
pub(super) mod command {
    pub(in crate::export) const READ: u16 = 0;
    pub(in crate::export) const WRITE: u16 = 1;
    pub(in crate::export) const DISCONNECT: u16 = 2;
    pub(in crate::export) const FLUSH: u16 = 3;
    pub(in crate::export) const TRIM: u16 = 4;
    pub(in crate::export) const CACHE: u16 = 5;
    pub(in crate::export) const WRITE_ZEROES: u16 = 6;
    pub(in crate::export) const BLOCK_STATUS: u16 = 7;
}

/// Flags of a command.
pub(super) mod command_flag {
    pub(in crate::export) const FUA: u16 = 1;
    pub(in crate::export) const NO_HOLE: u16 = 1 << 1;
    pub(in crate::export) const DF: u16 = 1 << 2;
    pub(in crate::export) const REQ_ONE: u16 = 1 << 3;
}

/// Chunks of a structured reply.
pub(super) mod chunk {
    pub(in crate::export) const FLAG_DONE: u16 = 1;
    pub(in crate::export) const NONE: u16 = 0;
    pub(in crate::export) const OFFSET_DATA: u16 = 1;
    pub(in crate::export) const OFFSET_HOLE: u16 = 2;
    pub(in crate::export) const BLOCK_STATUS: u16 = 5;
    /// In the kind of every chunk that tells an error.
    pub(in crate::export) const ERROR_BIT: u16 = 1 << 15;
    pub(in crate::export) const ERROR: u16 = ERROR_BIT | 1;
}

/// The one metadata context that we have, and the id we give it.
pub(super) const ALLOCATION_CONTEXT: &str = "base:allocation";
pub(super) const ALLOCATION_CONTEXT_ID: u32 = 1;
/// `base:allocation`: nothing is stored there.
pub(super) const STATE_HOLE: u32 = 1;
/// `base:allocation`: it reads as zeros.
pub(super) const STATE_ZERO: u32 = 1 << 1;

/// The error values that the protocol defines. Their numbers are Linux's, on every system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NbdError {
    /// `EPERM` (1): a write to a read-only export.
    NotPermitted,
    /// `EIO` (5): the device failed.
    Io,
    /// `ENOMEM` (12).
    NoMemory,
    /// `EINVAL` (22): the request makes no sense here.
    Invalid,
    /// `ENOSPC` (28): the disk is full, or a write goes past the end of the export.
    NoSpace,
    /// `EOVERFLOW` (75): too large to answer in one chunk as the client demands.
    Overflow,
    /// `ENOTSUP` (95).
    NotSupported,
    /// `ESHUTDOWN` (108): the server is ending.
    Shutdown,
}

impl NbdError {
    /// The value on the wire.
    pub const fn code(self) -> u32 {
        match self {
            Self::NotPermitted => 1,
            Self::Io => 5,
            Self::NoMemory => 12,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::Overflow => 75,
            Self::NotSupported => 95,
            Self::Shutdown => 108,
        }
    }

    /// The error of that value; the protocol tells clients to take values they do not know for `EINVAL`.
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::NotPermitted,
            5 => Self::Io,
            12 => Self::NoMemory,
            28 => Self::NoSpace,
            75 => Self::Overflow,
            95 => Self::NotSupported,
            108 => Self::Shutdown,
            _ => Self::Invalid,
        }
    }

    /// What to tell a client whose request met that error.
    pub(super) fn from_device(error: &DeviceError) -> Self {
        match error.kind() {
            DeviceErrorKind::OutOfRange => Self::Invalid,
            DeviceErrorKind::ReadOnly => Self::NotPermitted,
            DeviceErrorKind::NoSpace => Self::NoSpace,
            _ => Self::Io,
        }
    }
}

impl std::fmt::Display for NbdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotPermitted => "not permitted (EPERM)",
            Self::Io => "input/output error (EIO)",
            Self::NoMemory => "out of memory (ENOMEM)",
            Self::Invalid => "invalid request (EINVAL)",
            Self::NoSpace => "no space left (ENOSPC)",
            Self::Overflow => "too large for one chunk (EOVERFLOW)",
            Self::NotSupported => "not supported (ENOTSUP)",
            Self::Shutdown => "the server is ending (ESHUTDOWN)",
        })
    }
}

/// The 28 bytes that begin every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

impl Request {
    pub(super) const BYTES: usize = 28;

    /// The request in these bytes; `None` if they do not begin with a request's magic number.
    pub(super) fn parse(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        })
    }

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    pub(super) fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Bytes of a simple reply's header.
pub(super) const SIMPLE_REPLY_BYTES: usize = 16;

/// The header of a simple reply; `None` is success.
pub(super) fn simple_reply(cookie: u64, error: Option<NbdError>) -> [u8; SIMPLE_REPLY_BYTES] {
    let mut bytes = [0; SIMPLE_REPLY_BYTES];
    bytes[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.map_or(0, NbdError::code).to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// Bytes of the header of a structured reply's chunk.
pub(super) const CHUNK_HEADER_BYTES: usize = 20;

/// The header of a chunk with `length` bytes of payload.
pub(super) fn chunk_header(cookie: u64, flags: u16, kind: u16, length: u32) -> [u8; CHUNK_HEADER_BYTES] {
    let mut bytes = [0; CHUNK_HEADER_BYTES];
    bytes[..4].copy_from_slice(&CHUNK_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Big-endian fields read one after the other; every method is `None` when the bytes run out.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string that its length precedes, of at most [`MAX_STRING_BYTES`] bytes of UTF-8.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        if length > MAX_STRING_BYTES {
            return None;
        }
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        let request = Request { flags: 1, command: 6, cookie: 0x0102_0304_0506_0708, offset: 1 << 40, length: 4096 };
        let bytes = request.to_bytes();
        assert_eq!(bytes[..8], [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6]);
        assert_eq!(Request::parse(&bytes), Some(request));
        for bit in 0..32 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Request::parse(&wrong), None, "bit {bit} of the magic number");
        }
    }

    #[test]
    fn error_values_are_those_of_the_protocol() {
        for (code, error) in [
            (1, NbdError::NotPermitted),
            (5, NbdError::Io),
            (12, NbdError::NoMemory),
            (22, NbdError::Invalid),
            (28, NbdError::NoSpace),
            (75, NbdError::Overflow),
            (95, NbdError::NotSupported),
            (108, NbdError::Shutdown),
        ] {
            assert_eq!((error.code(), NbdError::from_code(code)), (code, error));
        }
        assert_eq!(NbdError::from_code(4711), NbdError::Invalid);
    }

    #[test]
    fn fields_never_read_past_the_end() {
        assert_eq!(Fields(&[0, 0, 0, 2, b'a']).string(), None, "shorter than it says");
        assert_eq!(Fields(&[0xff, 0xff, 0xff, 0xff]).string(), None);
        assert_eq!(Fields(&[0, 0, 0, 1, 0xff]).string(), None, "not UTF-8");
        assert_eq!(Fields(&[0, 0, 0, 2, b'a', b'b']).string(), Some("ab"));
    }
}
