//! The server's side of the fixed-newstyle negotiation, which ends with an agreement or the end of the connection.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::proto::{self, Fields, export_flag, handshake_flag, info, option, reply};
use super::server::Export;

/// How long a client may take until it has chosen an export.
const PATIENCE: Duration = Duration::from_mins(1);

/// Longest data of an option that we look at: room for a name and a dozen queries of the longest kind.
const MAX_OPTION_BYTES: u32 = 64 * 1024;

/// Longest data of an option that we skip to answer "too big"; a client that announces more is not speaking NBD.
const MAX_SKIPPED_BYTES: u32 = 16 * 1024 * 1024;

/// What server and client agreed on for the transmission phase of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreement {
    /// Size in bytes that the client was told, which stays this connection's border whatever the device does.
    pub(super) size: u64,
    pub(super) read_only: bool,
    /// Whether reads are answered in chunks.
    pub(super) structured: bool,
    /// Whether `base:allocation` may be asked for.
    pub(super) allocation: bool,
}

/// Negotiates until the client has chosen the export; `None` if it left or asked to leave.
///
/// # Errors
/// If the client breaks the protocol, takes too long or goes away in the middle of a message. The connection is to be
/// closed then.
pub(super) fn negotiate(stream: &UnixStream, export: &Export) -> io::Result<Option<Agreement>> {
    let mut negotiation = Negotiation {
        link: Link { stream, deadline: Instant::now() + PATIENCE },
        export,
        structured: false,
        allocation_for: None,
    };
    let agreement = negotiation.run()?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(agreement)
}

struct Negotiation<'a> {
    link: Link<'a>,
    export: &'a Export,
    structured: bool,
    /// The export name for which `base:allocation` was selected: it holds only if that export is then entered.
    allocation_for: Option<String>,
}

impl Negotiation<'_> {
    fn run(&mut self) -> io::Result<Option<Agreement>> {
        let offered = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
        let mut greeting = Vec::with_capacity(18);
        greeting.extend_from_slice(&proto::SERVER_MAGIC.to_be_bytes());
        greeting.extend_from_slice(&proto::OPTION_MAGIC.to_be_bytes());
        greeting.extend_from_slice(&offered.to_be_bytes());
        self.link.write_all(&greeting)?;

        let flags = u32::from_be_bytes(self.link.array()?);
        if flags & !u32::from(offered) != 0 {
            return Err(broken("client flags that nobody offered"));
        }
        let fixed = flags & u32::from(handshake_flag::FIXED_NEWSTYLE) != 0;
        let no_zeroes = flags & u32::from(handshake_flag::NO_ZEROES) != 0;
        loop {
            let Some(header) = self.link.array_or_end::<16>()? else { return Ok(None) };
            let mut fields = Fields(&header);
            let (Some(magic), Some(kind), Some(length)) = (fields.u64(), fields.u32(), fields.u32()) else {
                return Err(broken("an option header of 16 bytes"));
            };
            if magic != proto::OPTION_MAGIC {
                return Err(broken("an option without its magic number"));
            }
            if !fixed && kind != option::EXPORT_NAME {
                return Err(broken("an option that only fixed-newstyle clients may send"));
            }
            if length > MAX_OPTION_BYTES {
                if length > MAX_SKIPPED_BYTES || kind == option::EXPORT_NAME {
                    return Err(broken("an option of absurd length"));
                }
                self.link.skip(length)?;
                self.answer(kind, reply::ERR_TOO_BIG, b"the option's data is too long")?;
                continue;
            }
            let mut data = vec![0; length as usize];
            self.link.read_exact(&mut data)?;
            match kind {
                option::EXPORT_NAME => return self.export_name(&data, no_zeroes).map(Some),
                option::ABORT => {
                    // The client may have gone without waiting for this.
                    let _ = self.answer(kind, reply::ACK, &[]);
                    return Ok(None);
                }
                option::GO | option::INFO => {
                    if let Some(agreement) = self.info_or_go(kind, &data)?
                        && kind == option::GO
                    {
                        return Ok(Some(agreement));
                    }
                }
                option::LIST => self.list(&data)?,
                option::STRUCTURED_REPLY if data.is_empty() => {
                    self.structured = true;
                    self.answer(kind, reply::ACK, &[])?;
                }
                option::STRUCTURED_REPLY => self.answer(kind, reply::ERR_INVALID, b"this option takes no data")?,
                option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.meta_context(kind, &data)?,
                _ => self.answer(kind, reply::ERR_UNSUP, b"this server does not know that option")?,
            }
        }
    }

    /// `NBD_OPT_EXPORT_NAME`, which has no way to refuse but to hang up.
    fn export_name(&mut self, data: &[u8], no_zeroes: bool) -> io::Result<Agreement> {
        let name = std::str::from_utf8(data).ok().filter(|name| self.export.answers_to(name));
        let Some(name) = name else { return Err(broken("the name of an export that is not here")) };
        let agreement = self.agreement(name);
        let mut answer = Vec::with_capacity(134);
        answer.extend_from_slice(&agreement.size.to_be_bytes());
        answer.extend_from_slice(&export_flags(agreement).to_be_bytes());
        if !no_zeroes {
            answer.extend_from_slice(&[0; 124]);
        }
        self.link.write_all(&answer)?;
        Ok(agreement)
    }

    /// `NBD_OPT_INFO` and `NBD_OPT_GO`: the same answers; after a `GO` transmission begins.
    fn info_or_go(&mut self, kind: u32, data: &[u8]) -> io::Result<Option<Agreement>> {
        let mut fields = Fields(data);
        let parsed = fields.string().zip(fields.u16());
        let Some((name, count)) = parsed.filter(|(_, count)| fields.0.len() == usize::from(*count) * 2) else {
            self.answer(kind, reply::ERR_INVALID, b"malformed: name, count and information requests")?;
            return Ok(None);
        };
        if !self.export.answers_to(name) {
            self.answer(kind, reply::ERR_UNKNOWN, self.unknown_export().as_bytes())?;
            return Ok(None);
        }
        let agreement = self.agreement(name);
        let mut answer = info::EXPORT.to_be_bytes().to_vec();
        answer.extend_from_slice(&agreement.size.to_be_bytes());
        answer.extend_from_slice(&export_flags(agreement).to_be_bytes());
        self.answer(kind, reply::INFO, &answer)?;

        // Sent without being asked for as well: it binds nobody, since the minimum is one byte.
        let mut sizes = info::BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [1, proto::PREFERRED_BLOCK_BYTES, proto::MAX_REQUEST_BYTES] {
            sizes.extend_from_slice(&size.to_be_bytes());
        }
        self.answer(kind, reply::INFO, &sizes)?;
        for _ in 0..count {
            match fields.u16() {
                Some(wanted @ info::NAME) => self.answer_text(kind, wanted, &self.export.name)?,
                Some(wanted @ info::DESCRIPTION) => self.answer_text(kind, wanted, &self.export.description)?,
                _ => {}
            }
        }
        self.answer(kind, reply::ACK, &[])?;
        Ok(Some(agreement))
    }

    fn list(&mut self, data: &[u8]) -> io::Result<()> {
        if !data.is_empty() {
            return self.answer(option::LIST, reply::ERR_INVALID, b"this option takes no data");
        }
        let mut entry = string_length(&self.export.name).to_be_bytes().to_vec();
        entry.extend_from_slice(self.export.name.as_bytes());
        entry.extend_from_slice(self.export.description.as_bytes());
        self.answer(option::LIST, reply::SERVER, &entry)?;
        self.answer(option::LIST, reply::ACK, &[])
    }

    /// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
    fn meta_context(&mut self, kind: u32, data: &[u8]) -> io::Result<()> {
        let set = kind == option::SET_META_CONTEXT;
        if set {
            self.allocation_for = None;
        }
        if !self.structured {
            return self.answer(kind, reply::ERR_INVALID, b"negotiate structured replies first");
        }
        let mut fields = Fields(data);
        let parsed = fields.string().zip(fields.u32());
        let Some((name, count)) = parsed else {
            return self.answer(kind, reply::ERR_INVALID, b"malformed: name, count and queries");
        };
        // Listing without a query asks for everything; selecting without one selects nothing.
        let mut wanted = !set && count == 0;
        for _ in 0..count {
            let Some(query) = fields.string() else {
                return self.answer(kind, reply::ERR_INVALID, b"malformed query");
            };
            wanted |= query == proto::ALLOCATION_CONTEXT || (!set && query == "base:");
        }
        if !fields.is_empty() {
            return self.answer(kind, reply::ERR_INVALID, b"bytes after the last query");
        }
        if !self.export.answers_to(name) {
            return self.answer(kind, reply::ERR_UNKNOWN, self.unknown_export().as_bytes());
        }
        if wanted {
            let id = if set { proto::ALLOCATION_CONTEXT_ID } else { 0 };
            let mut answer = id.to_be_bytes().to_vec();
            answer.extend_from_slice(proto::ALLOCATION_CONTEXT.as_bytes());
            self.answer(kind, reply::META_CONTEXT, &answer)?;
            if set {
                self.allocation_for = Some(name.to_owned());
            }
        }
        self.answer(kind, reply::ACK, &[])
    }

    fn agreement(&self, name: &str) -> Agreement {
        Agreement {
            size: self.export.device.size(),
            read_only: self.export.device.read_only(),
            structured: self.structured,
            allocation: self.structured && self.allocation_for.as_deref() == Some(name),
        }
    }

    fn unknown_export(&self) -> String {
        format!("no such export; this server has {} alone", self.export.name)
    }

    fn answer_text(&mut self, kind: u32, information: u16, text: &str) -> io::Result<()> {
        let mut answer = information.to_be_bytes().to_vec();
        answer.extend_from_slice(text.as_bytes());
        self.answer(kind, reply::INFO, &answer)
    }

    fn answer(&mut self, kind: u32, reply: u32, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        let mut answer = Vec::with_capacity(20 + data.len());
        answer.extend_from_slice(&proto::OPTION_REPLY_MAGIC.to_be_bytes());
        answer.extend_from_slice(&kind.to_be_bytes());
        answer.extend_from_slice(&reply.to_be_bytes());
        answer.extend_from_slice(&length.to_be_bytes());
        answer.extend_from_slice(data);
        self.link.write_all(&answer)
    }
}

fn export_flags(agreement: Agreement) -> u16 {
    let mut flags =
        export_flag::HAS_FLAGS | export_flag::SEND_FLUSH | export_flag::CAN_MULTI_CONN | export_flag::SEND_CACHE;
    if agreement.read_only {
        flags |= export_flag::READ_ONLY;
    } else {
        flags |= export_flag::SEND_FUA | export_flag::SEND_TRIM | export_flag::SEND_WRITE_ZEROES;
    }
    if agreement.structured {
        flags |= export_flag::SEND_DF;
    }
    flags
}

fn string_length(text: &str) -> u32 {
    u32::try_from(text.len()).expect("export names are at most 4096 bytes: Server::start checks it")
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The socket with one deadline over all that is read and written.
struct Link<'a> {
    stream: &'a UnixStream,
    deadline: Instant,
}

impl Link<'_> {
    fn remaining(&self) -> io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no export chosen in time")),
            remaining => Ok(Some(remaining)),
        }
    }

    fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(self.remaining()?)?;
            match self.stream.read(into) {
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                outcome => return outcome,
            }
        }
    }

    fn read_exact(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match self.read_some(into)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => into = &mut into[count..],
            }
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// `None` if the client hung up where a message would begin.
    fn array_or_end<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        match self.read_some(&mut bytes)? {
            0 => Ok(None),
            count => self.read_exact(&mut bytes[count..]).map(|()| Some(bytes)),
        }
    }

    fn skip(&mut self, length: u32) -> io::Result<()> {
        let mut left = length as usize;
        let mut scratch = [0; 4096];
        while left > 0 {
            let piece = left.min(scratch.len());
            self.read_exact(&mut scratch[..piece])?;
            left -= piece;
        }
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(self.remaining()?)?;
        self.stream.write_all(bytes)
    }
}
