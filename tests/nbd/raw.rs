//! An NBD client made of bytes, which shares no code with the one under test and may say what no client would.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub(crate) const EXPORT_NAME: u32 = 1;
pub(crate) const ABORT: u32 = 2;
pub(crate) const LIST: u32 = 3;
pub(crate) const STARTTLS: u32 = 5;
pub(crate) const INFO: u32 = 6;
pub(crate) const GO: u32 = 7;
pub(crate) const STRUCTURED_REPLY: u32 = 8;
pub(crate) const LIST_META_CONTEXT: u32 = 9;
pub(crate) const SET_META_CONTEXT: u32 = 10;
pub(crate) const EXTENDED_HEADERS: u32 = 11;

pub(crate) const ACK: u32 = 1;
pub(crate) const ERR_UNSUP: u32 = 0x8000_0001;
pub(crate) const ERR_INVALID: u32 = 0x8000_0003;
pub(crate) const ERR_UNKNOWN: u32 = 0x8000_0006;
pub(crate) const ERR_TOO_BIG: u32 = 0x8000_0009;

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;

pub(crate) const FUA: u16 = 1;
pub(crate) const NO_HOLE: u16 = 2;
pub(crate) const DF: u16 = 4;
pub(crate) const REQ_ONE: u16 = 8;

pub(crate) const EPERM: u32 = 1;
pub(crate) const EIO: u32 = 5;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENOSPC: u32 = 28;
pub(crate) const EOVERFLOW: u32 = 75;

/// A connection of which every byte is the test's business.
pub(crate) struct Raw {
    pub stream: UnixStream,
    pub size: u64,
    pub flags: u16,
}

/// A chunk of a structured reply.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub done: bool,
    pub kind: u16,
    pub cookie: u64,
    pub payload: Vec<u8>,
}

impl Raw {
    /// Connects, reads the greeting and answers with client flags.
    pub(crate) fn connect_with_flags(socket: &Path, flags: u32) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut raw = Self { stream, size: 0, flags: 0 };
        assert_eq!(raw.take(16), b"NBDMAGICIHAVEOPT");
        assert_eq!(raw.take(2), [0, 3], "fixed newstyle and no zeroes");
        raw.give(&flags.to_be_bytes());
        raw
    }

    pub(crate) fn connect(socket: &Path) -> Self {
        Self::connect_with_flags(socket, 3)
    }

    /// A connection in the transmission phase, with simple replies.
    pub(crate) fn simple(socket: &Path) -> Self {
        let mut raw = Self::connect(socket);
        raw.go("");
        raw
    }

    /// A connection in the transmission phase, with structured replies and `base:allocation`.
    pub(crate) fn structured(socket: &Path) -> Self {
        let mut raw = Self::connect(socket);
        raw.option(STRUCTURED_REPLY, &[]);
        assert_eq!(raw.option_reply().1, ACK);
        raw.option(SET_META_CONTEXT, &meta_context("", &["base:allocation"]));
        let (_, kind, data) = raw.option_reply();
        assert_eq!((kind, &data[4..]), (4, &b"base:allocation"[..]));
        assert_eq!(raw.option_reply().1, ACK);
        raw.go("");
        raw
    }

    pub(crate) fn give(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Asserts that the server hangs up, and returns what it said before.
    pub(crate) fn expect_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("the server does not hang up: {error}"),
        }
    }

    pub(crate) fn option(&mut self, kind: u32, data: &[u8]) {
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
        self.give(&bytes);
    }

    /// The next reply: option, kind and data.
    pub(crate) fn option_reply(&mut self) -> (u32, u32, Vec<u8>) {
        let header = self.take(20);
        assert_eq!(header[..8], 0x0003_e889_0455_65a9u64.to_be_bytes());
        let data = self.take(u32_at(&header, 16) as usize);
        (u32_at(&header, 8), u32_at(&header, 12), data)
    }

    pub(crate) fn go(&mut self, name: &str) {
        self.option(GO, &info_data(name, &[]));
        loop {
            let (_, kind, data) = self.option_reply();
            match kind {
                ACK => return,
                3 if data[..2] == [0, 0] => {
                    self.size = u64_at(&data, 2);
                    self.flags = u16_at(&data, 10);
                }
                3 => {}
                _ => panic!("refused: {kind:#x} {}", String::from_utf8_lossy(&data)),
            }
        }
    }

    pub(crate) fn request(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, length: u32) {
        self.give(&request(flags, command, cookie, offset, length));
    }

    /// The next simple reply: cookie and error.
    pub(crate) fn simple_reply(&mut self) -> (u64, u32) {
        let header = self.take(16);
        assert_eq!(header[..4], 0x6744_6698u32.to_be_bytes(), "a simple reply");
        (u64_at(&header, 8), u32_at(&header, 4))
    }

    pub(crate) fn chunk(&mut self) -> Chunk {
        let header = self.take(20);
        assert_eq!(header[..4], 0x668e_33efu32.to_be_bytes(), "a chunk");
        let payload = self.take(u32_at(&header, 16) as usize);
        Chunk { done: u16_at(&header, 4) & 1 == 1, kind: u16_at(&header, 6), cookie: u64_at(&header, 8), payload }
    }

    /// Sends a request without payload on a connection with simple replies, and returns the error of its reply.
    pub(crate) fn ask(&mut self, flags: u16, command: u16, offset: u64, length: u32) -> u32 {
        self.request(flags, command, 77, offset, length);
        let (cookie, error) = self.simple_reply();
        assert_eq!(cookie, 77);
        if error == 0 && command == READ {
            self.take(length as usize);
        }
        error
    }

    pub(crate) fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        self.request(flags, WRITE, 78, offset, u32::try_from(data.len()).unwrap());
        self.give(data);
        let (cookie, error) = self.simple_reply();
        assert_eq!(cookie, 78);
        error
    }

    /// Proves that the connection still works.
    pub(crate) fn assert_alive(&mut self) {
        assert_eq!(self.ask(0, FLUSH, 0, 0), 0);
    }
}

pub(crate) fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// Data of INFO and GO.
pub(crate) fn info_data(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend(u16::try_from(wanted.len()).unwrap().to_be_bytes());
    for kind in wanted {
        data.extend(kind.to_be_bytes());
    }
    data
}

/// Data of the two meta-context options.
pub(crate) fn meta_context(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    for query in queries {
        data.extend(u32::try_from(query.len()).unwrap().to_be_bytes());
        data.extend(query.as_bytes());
    }
    data
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}
