//! What clients must not do, and what they get for it: a clear error where the protocol has one, else the end of their
//! connection, and never anybody else's.

use std::io::Write as _;
use std::time::{Duration, Instant};

use blockseal::device::{DeviceError, DeviceErrorKind};

use super::devices::{Hooked, Op, Sparse};
use super::raw::*;
use super::{MIB, NAME, Random, count, serve};

#[test]
fn negotiation_answers_every_option() {
    let served = serve(Sparse::new(MIB));
    let mut raw = Raw::connect(&served.socket);
    for unknown in [STARTTLS, EXTENDED_HEADERS, 4, 12, 0, u32::MAX] {
        raw.option(unknown, b"what?");
        let (option, kind, _) = raw.option_reply();
        assert_eq!((option, kind), (unknown, ERR_UNSUP));
    }
    raw.option(LIST, &[]);
    let (_, kind, data) = raw.option_reply();
    assert_eq!((kind, u32_at(&data, 0) as usize), (2, NAME.len()));
    assert_eq!(&data[4..4 + NAME.len()], NAME.as_bytes());
    assert_eq!(raw.option_reply().1, ACK);
    raw.option(LIST, b"x");
    assert_eq!(raw.option_reply().1, ERR_INVALID);

    raw.option(INFO, &info_data("no-such-volume", &[]));
    let (_, kind, message) = raw.option_reply();
    assert_eq!(kind, ERR_UNKNOWN);
    assert!(String::from_utf8(message).unwrap().contains(NAME), "the error says what there is");

    raw.option(INFO, &info_data(NAME, &[1, 2, 3, 99]));
    let mut told = Vec::new();
    loop {
        let (_, kind, data) = raw.option_reply();
        if kind == ACK {
            break;
        }
        assert_eq!(kind, 3);
        told.push((u16_at(&data, 0), data[2..].to_vec()));
    }
    let sizes = told.iter().find(|(kind, _)| *kind == 3).unwrap();
    assert_eq!((u32_at(&sizes.1, 0), u32_at(&sizes.1, 4), u32_at(&sizes.1, 8)), (1, 4096, 32 * 1024 * 1024));
    assert!(told.contains(&(1, NAME.as_bytes().to_vec())) && told.iter().any(|(kind, _)| *kind == 2));

    for malformed in
        [&b""[..], b"\0\0\0\x09abc\0\0", b"\0\0\0\0", b"\0\0\0\0\0\x01", b"\0\0\0\0\0\0\0", b"\xff\xff\xff\xff\0\0"]
    {
        for option in [INFO, GO] {
            raw.option(option, malformed);
            assert_eq!(raw.option_reply().1, ERR_INVALID, "{malformed:?}");
        }
    }
    raw.option(ABORT, &[]);
    assert_eq!(raw.option_reply().1, ACK);
    assert!(raw.expect_end().is_empty());
}

#[test]
fn meta_contexts_are_listed_selected_and_bound_to_their_export() {
    let served = serve(Sparse::new(MIB));
    let mut raw = Raw::connect(&served.socket);
    for option in [LIST_META_CONTEXT, SET_META_CONTEXT] {
        raw.option(option, &meta_context(NAME, &["base:allocation"]));
        assert_eq!(raw.option_reply().1, ERR_INVALID, "structured replies come first");
    }
    raw.option(STRUCTURED_REPLY, b"x");
    assert_eq!(raw.option_reply().1, ERR_INVALID);
    raw.option(STRUCTURED_REPLY, &[]);
    assert_eq!(raw.option_reply().1, ACK);

    let mut contexts = |option, data: &[u8]| {
        raw.option(option, data);
        let mut names = Vec::new();
        loop {
            let (_, kind, data) = raw.option_reply();
            match kind {
                ACK => return Ok(names),
                4 => names.push(String::from_utf8(data[4..].to_vec()).unwrap()),
                _ => return Err(kind),
            }
        }
    };
    let all = Ok(vec!["base:allocation".to_owned()]);
    assert_eq!(contexts(LIST_META_CONTEXT, &meta_context(NAME, &[])), all);
    assert_eq!(contexts(LIST_META_CONTEXT, &meta_context("", &["base:"])), all);
    assert_eq!(contexts(SET_META_CONTEXT, &meta_context(NAME, &["qemu:dirty-bitmap:x", "base:allocation"])), all);
    assert_eq!(contexts(SET_META_CONTEXT, &meta_context(NAME, &["base:"])), Ok(vec![]));
    assert_eq!(contexts(SET_META_CONTEXT, &meta_context(NAME, &[])), Ok(vec![]));
    assert_eq!(contexts(SET_META_CONTEXT, &meta_context("other", &["base:allocation"])), Err(ERR_UNKNOWN));
    assert_eq!(contexts(SET_META_CONTEXT, b"\0\0\0\0\0\0\0\x09"), Err(ERR_INVALID));
    assert_eq!(contexts(SET_META_CONTEXT, b"\0\0\0\0\xff\xff\xff\xff\0\0\0\0"), Err(ERR_INVALID));

    // Selected for one name, entered by another: the standard voids the selection.
    assert_eq!(contexts(SET_META_CONTEXT, &meta_context(NAME, &["base:allocation"])), all);
    raw.go("");
    raw.request(0, BLOCK_STATUS, 5, 0, 4096);
    let chunk = raw.chunk();
    assert_eq!((chunk.kind, u32_at(&chunk.payload, 0)), (0x8001, EINVAL));
}

#[test]
fn export_name_works_for_old_clients_and_hangs_up_on_unknown_names() {
    let served = serve(Sparse::new(3 * MIB));
    for (flags, zeroes) in [(3, 0), (1, 124), (0, 124)] {
        let mut raw = Raw::connect_with_flags(&served.socket, flags);
        raw.option(EXPORT_NAME, NAME.as_bytes());
        assert_eq!(u64_at(&raw.take(8), 0), 3 * MIB);
        let offered = u16_at(&raw.take(2), 0);
        assert_eq!(offered & 1, 1);
        assert_eq!(offered & (1 << 7), 0, "no DF without structured replies");
        assert_eq!(raw.take(zeroes), vec![0; zeroes]);
        raw.assert_alive();
    }
    for name in [&b"vol-other"[..], b"\xff\xfe", &[b'a'; 5000]] {
        let mut raw = Raw::connect(&served.socket);
        raw.option(EXPORT_NAME, name);
        assert!(raw.expect_end().is_empty());
    }
}

#[test]
fn broken_negotiations_end_the_connection() {
    let served = serve(Sparse::new(MIB));
    let mut raw = Raw::connect_with_flags(&served.socket, 0x8000_0003);
    raw.expect_end();
    let mut raw = Raw::connect(&served.socket);
    raw.give(b"IHAVEOPX\0\0\0\x03\0\0\0\0");
    raw.expect_end();
    let mut raw = Raw::connect_with_flags(&served.socket, 0);
    raw.option(LIST, &[]);
    assert!(raw.expect_end().is_empty(), "only fixed-newstyle clients may ask");
    // Sixteen bytes announce four gigabytes.
    let mut raw = Raw::connect(&served.socket);
    raw.give(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff");
    raw.expect_end();
    // Too long, yet of a length that can be skipped.
    let mut raw = Raw::connect(&served.socket);
    raw.option(GO, &vec![0; 100_000]);
    assert_eq!(raw.option_reply().1, ERR_TOO_BIG);
    raw.go(NAME);
    raw.assert_alive();
    // A request in place of an option.
    let mut raw = Raw::connect(&served.socket);
    raw.request(0, READ, 1, 0, 512);
    raw.expect_end();
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_connection_goes_on() {
    let served = serve(Sparse::new(MIB));
    let mut raw = Raw::simple(&served.socket);
    let all = u32::try_from(MIB).unwrap();
    for (flags, command, offset, length, error) in [
        (0, READ, 0, all, 0),
        (0, READ, MIB, 0, 0),
        (0, READ, 1, all, EINVAL),
        (0, READ, MIB, 1, EINVAL),
        (0, READ, u64::MAX, 2, EINVAL),
        (0, READ, 0, 32 * 1024 * 1024 + 1, EINVAL),
        (0, READ, 0, u32::MAX, EINVAL),
        (DF, READ, 0, 512, EINVAL),
        (NO_HOLE, READ, 0, 512, EINVAL),
        (FUA, READ, 0, 512, 0),
        (1 << 15, FLUSH, 0, 0, EINVAL),
        (0, FLUSH, 1, 0, EINVAL),
        (0, FLUSH, 0, 1, EINVAL),
        (FUA, FLUSH, 0, 0, 0),
        (0, TRIM, MIB, 1, EINVAL),
        (0, TRIM, 5, 0, 0),
        (FUA, TRIM, 5, 600, 0),
        (0, WRITE_ZEROES, MIB - 1, 2, ENOSPC),
        (NO_HOLE | FUA, WRITE_ZEROES, 1, 5000, 0),
        (1 << 4, WRITE_ZEROES, 0, 512, EINVAL),
        (0, WRITE_ZEROES, 0, u32::MAX, ENOSPC),
        (0, BLOCK_STATUS, 0, 4096, EINVAL),
        (0, CACHE, 0, all, 0),
        (0, CACHE, 511, 0, 0),
        (0, CACHE, MIB, 1, EINVAL),
        (0, CACHE, 0, u32::MAX, EINVAL),
        (DF, CACHE, 0, 512, EINVAL),
        (0, 8, 0, 512, EINVAL),
        (0, 4711, u64::MAX, u32::MAX, EINVAL),
    ] {
        assert_eq!(raw.ask(flags, command, offset, length), error, "{flags:#x} {command} {offset} {length}");
    }
    assert_eq!(raw.flags & (1 << 10), 1 << 10, "CACHE is offered");
    assert_eq!(raw.write(0, MIB, b""), 0);
    assert_eq!(raw.write(0, MIB - 1, b"ab"), ENOSPC);
    assert_eq!(raw.write(0, u64::MAX, b"ab"), ENOSPC);
    assert_eq!(raw.write(DF, 0, b"ab"), EINVAL, "the payload of a refused write is skipped");
    assert_eq!(raw.write(0, 0, b"ab"), 0);
    raw.assert_alive();
}

#[test]
fn a_write_of_absurd_length_is_skipped_without_being_held() {
    let served = serve(Sparse::new(MIB));
    let mut raw = Raw::simple(&served.socket);
    let length = 100 * 1024 * 1024;
    raw.request(0, WRITE, 9, 0, length);
    let piece = vec![0xaa; 1024 * 1024];
    for _ in 0..length / (1024 * 1024) {
        raw.give(&piece);
    }
    assert_eq!(raw.simple_reply(), (9, EINVAL));
    raw.assert_alive();
    let mut start = [1; 512];
    served.client().read(0, &mut start).unwrap();
    assert_eq!(start, [0; 512], "nothing of it was written");
}

#[test]
fn read_only_devices_take_no_writes() {
    let served = serve(Sparse::new(MIB).read_only());
    let mut raw = Raw::simple(&served.socket);
    assert_eq!(raw.flags & 2, 2);
    assert_eq!(raw.flags & 0b110_1000, 0, "no FUA, trim or write-zeroes offered");
    assert_eq!(raw.write(0, 0, b"x"), EPERM);
    for command in [TRIM, WRITE_ZEROES] {
        assert_eq!(raw.ask(0, command, 0, 512), EPERM);
    }
    assert_eq!(raw.ask(0, READ, 0, 512), 0);
    // Its twin: without the flag on the device the same write goes through.
    let served = serve(Sparse::new(MIB));
    assert_eq!(Raw::simple(&served.socket).write(0, 0, b"x"), 0);
}

#[test]
fn structured_replies_and_block_status() {
    let served = serve(Sparse::new(300 * MIB));
    let mut raw = Raw::structured(&served.socket);
    assert_eq!(raw.flags & (1 << 7), 1 << 7, "DF is offered");
    assert_eq!(raw.flags & (1 << 8), 1 << 8, "and several connections");
    let data = Random(1).bytes(3 * 1024 * 1024);
    assert_eq!(raw.write(0, MIB, &data), 0);

    // A long read in several chunks, whatever their order.
    raw.request(0, READ, 3, MIB, 3 * 1024 * 1024);
    let mut got = vec![0; data.len()];
    let mut seen = 0;
    loop {
        let chunk = raw.chunk();
        assert_eq!((chunk.kind, chunk.cookie), (1, 3));
        let at = usize::try_from(u64_at(&chunk.payload, 0) - MIB).unwrap();
        got[at..at + chunk.payload.len() - 8].copy_from_slice(&chunk.payload[8..]);
        seen += chunk.payload.len() - 8;
        if chunk.done {
            break;
        }
    }
    assert_eq!((seen, got == data), (data.len(), true));

    raw.request(DF, READ, 4, MIB, 65536);
    let chunk = raw.chunk();
    assert_eq!((chunk.done, chunk.kind, chunk.payload.len()), (true, 1, 65536 + 8));
    raw.request(DF, READ, 5, MIB, 3 * 1024 * 1024);
    let chunk = raw.chunk();
    assert_eq!((chunk.done, chunk.kind, u32_at(&chunk.payload, 0)), (true, 0x8001, EOVERFLOW));
    raw.request(0, READ, 6, MIB, 0);
    let chunk = raw.chunk();
    assert_eq!((chunk.done, chunk.kind, chunk.payload.len()), (true, 0, 0));
    raw.request(0, READ, 7, 300 * MIB, 1);
    let chunk = raw.chunk();
    assert_eq!((chunk.done, chunk.kind, u32_at(&chunk.payload, 0)), (true, 0x8001, EINVAL));

    let mut status = |flags, offset, length| {
        raw.request(flags, BLOCK_STATUS, 8, offset, length);
        let chunk = raw.chunk();
        assert!(chunk.done);
        assert_eq!((chunk.kind, u32_at(&chunk.payload, 0)), (5, 1));
        chunk.payload[4..].chunks(8).map(|entry| (u32_at(entry, 0), u32_at(entry, 4))).collect::<Vec<_>>()
    };
    let mib = u32::try_from(MIB).unwrap();
    assert_eq!(status(0, 0, 8 * mib), [(mib, 3), (3 * mib, 0), (4 * mib, 3)]);
    assert_eq!(status(REQ_ONE, 0, 8 * mib), [(mib, 3)]);
    assert_eq!(status(0, 3 * MIB, 297 * mib), [(mib, 0), (296 * mib, 3)], "one hole is one descriptor");
    assert_eq!(status(REQ_ONE, 4 * MIB, 296 * mib), [(296 * mib, 3)]);
    assert_eq!(status(0, MIB - 1, 2), [(1, 3), (1, 0)]);
    for (offset, length) in [(0, 0), (300 * MIB, 1), (0, u32::MAX)] {
        raw.request(0, BLOCK_STATUS, 9, offset, length);
        assert_eq!(u32_at(&raw.chunk().payload, 0), EINVAL);
    }
}

#[test]
fn errors_of_the_device_reach_the_client_as_what_they_are() {
    use DeviceErrorKind::*;
    let kinds = [OutOfRange, ReadOnly, NoSpace, Io, Latched, Locked, Damaged];
    let served = serve(Hooked::new(Sparse::new(8 * MIB), move |op, offset, _| match op {
        Op::Flush | Op::Flushed => Ok(()),
        _ if offset < MIB => Err(DeviceError::new(kinds[usize::try_from(offset / 4096).unwrap()], "as ordered")),
        _ => Ok(()),
    }));
    let mut raw = Raw::simple(&served.socket);
    let mut structured = Raw::structured(&served.socket);
    for (index, error) in [EINVAL, EPERM, ENOSPC, EIO, EIO, EIO, EIO].into_iter().enumerate() {
        let offset = index as u64 * 4096;
        assert_eq!(raw.write(0, offset, b"abc"), error);
        assert_eq!(raw.write(FUA, offset, b"abc"), error);
        for command in [READ, TRIM, WRITE_ZEROES] {
            assert_eq!(raw.ask(0, command, offset, 512), error);
        }
        structured.request(0, READ, 1, offset, 512);
        assert_eq!(u32_at(&structured.chunk().payload, 0), error);
    }
    raw.assert_alive();
    let statistics = served.server.as_ref().unwrap().statistics();
    assert_eq!(statistics.last_device_error.as_deref(), Some("as ordered"));
    assert_eq!(statistics.errors, 7 * 6);
}

/// After the header of a simple reply only hanging up can tell of an error; a structured reply has a chunk for it.
#[test]
fn an_error_in_the_middle_of_a_long_read_is_never_silent() {
    let served = serve(Hooked::new(Sparse::new(8 * MIB), |op, offset, _| {
        if op == Op::Read && offset >= 3 * MIB {
            return Err(DeviceError::new(DeviceErrorKind::Io, "bad sector"));
        }
        Ok(())
    }));
    let mut raw = Raw::structured(&served.socket);
    raw.request(0, READ, 1, 0, 8 * 1024 * 1024);
    let last = std::iter::repeat_with(|| raw.chunk()).find(|chunk| chunk.done).unwrap();
    assert_eq!((last.kind, u32_at(&last.payload, 0)), (0x8001, EIO));
    raw.request(0, FLUSH, 2, 0, 0);
    assert_eq!(raw.simple_reply(), (2, 0));

    let mut raw = Raw::simple(&served.socket);
    raw.request(0, READ, 1, 0, 8 * 1024 * 1024);
    assert_eq!(raw.simple_reply(), (1, 0));
    assert!(raw.expect_end().len() < 8 * 1024 * 1024);
}

#[test]
fn a_panic_in_the_device_ends_one_connection() {
    let served = serve(Hooked::new(Sparse::new(MIB), |op, offset, _| {
        assert!(!(op == Op::Read && offset == 4096), "planted");
        Ok(())
    }));
    let mut good = served.client();
    let mut bad = Raw::simple(&served.socket);
    bad.request(0, READ, 1, 4096, 512);
    assert!(bad.expect_end().is_empty());
    good.write(0, b"still here").unwrap();
}

#[test]
fn half_sent_requests_hold_up_nobody_else() {
    let served = serve(Sparse::new(64 * MIB));
    let mut stuck = Vec::new();
    for index in 0..blockseal::export::MAX_CONNECTIONS - 1 {
        let mut raw = match index % 4 {
            // Silent before the first option.
            0 => Raw::connect(&served.socket),
            _ => Raw::simple(&served.socket),
        };
        match index % 4 {
            1 => raw.give(&request(0, WRITE, 1, 0, 4096)[..20]),
            2 => raw.request(0, WRITE, 1, 0, 32 * 1024 * 1024),
            3 => {
                // Asks for much and takes nothing.
                for cookie in 0..4 {
                    raw.request(0, READ, cookie, 0, 8 * 1024 * 1024);
                }
            }
            _ => {}
        }
        stuck.push(raw);
    }
    let start = Instant::now();
    let mut client = served.client();
    client.write(0, &vec![1; 100_000]).unwrap();
    client.flush().unwrap();
    let mut back = vec![0; 100_000];
    client.read(0, &mut back).unwrap();
    assert_eq!(back, vec![1; 100_000]);
    assert!(start.elapsed() < Duration::from_secs(10));

    // One connection more than there may be is hung up on, and has its turn when another has gone.
    let mut late = std::os::unix::net::UnixStream::connect(&served.socket).unwrap();
    let mut bytes = Vec::new();
    let _ = std::io::Read::read_to_end(&mut late, &mut bytes);
    assert!(bytes.is_empty());
    stuck.clear();
    let deadline = Instant::now() + Duration::from_secs(10);
    while served.server.as_ref().unwrap().statistics().connections > 1 {
        assert!(Instant::now() < deadline, "connections of clients that have gone are given back");
        std::thread::sleep(Duration::from_millis(5));
    }
    served.client().flush().unwrap();
    client.disconnect().unwrap();
}

/// Valid messages, bent: bits flipped, cut short, repeated, in the wrong phase. The server must neither fall nor hang,
/// and must go on serving an honest client.
#[test]
fn fuzzed_messages_hurt_nobody() {
    let messages = count("BLOCKSEAL_FUZZ_MESSAGES", 20_000);
    let seed = count("BLOCKSEAL_FUZZ_SEED", 42);
    let served = serve(Sparse::new(MIB));
    let mut honest = served.client();
    let mut random = Random(seed);
    let mut sent = 0;
    let mut round = 0u64;
    while sent < messages {
        round += 1;
        let stream = std::os::unix::net::UnixStream::connect(&served.socket).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        // Replies are thrown away by a thread, so that neither side waits for the other.
        let mut replies = stream.try_clone().unwrap();
        let drain = std::thread::spawn(move || std::io::copy(&mut replies, &mut std::io::sink()));
        let mut script = 3u32.to_be_bytes().to_vec();
        let count = 1 + random.below(30);
        if random.below(4) > 0 {
            script.extend(option_bytes(STRUCTURED_REPLY, &[]));
            script.extend(option_bytes(SET_META_CONTEXT, &meta_context(NAME, &["base:allocation"])));
            script.extend(option_bytes(GO, &info_data(NAME, &[])));
            for _ in 0..count {
                script.extend(bent(&mut random, fuzz_request));
            }
        } else {
            for _ in 0..count {
                script.extend(bent(&mut random, fuzz_option));
            }
        }
        sent += count;
        // The server may hang up in the middle.
        let _ = (&stream).write_all(&script);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // The server hangs up when nothing of this connection is left to be carried out.
        let _ = drain.join();
        if round.is_multiple_of(16) {
            let mark = random.bytes(64);
            honest.write(MIB - 64, &mark).unwrap_or_else(|error| panic!("seed {seed} round {round}: {error}"));
            let mut back = [0; 64];
            honest.read(MIB - 64, &mut back).unwrap();
            assert_eq!(back[..], mark);
        }
    }
    honest.flush().unwrap();
}

fn option_bytes(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn fuzz_option(random: &mut Random) -> Vec<u8> {
    let name = if random.below(2) == 0 { NAME } else { "" };
    match random.below(6) {
        0 => option_bytes(LIST, &[]),
        1 => option_bytes(INFO, &info_data(name, &[1, 3])),
        2 => option_bytes(STRUCTURED_REPLY, &[]),
        3 => option_bytes(LIST_META_CONTEXT, &meta_context(name, &["base:"])),
        4 => option_bytes(SET_META_CONTEXT, &meta_context(name, &["base:allocation", "x:y"])),
        _ => {
            let kind = u32::try_from(random.below(14)).unwrap();
            let length = usize::try_from(random.below(40)).unwrap();
            option_bytes(kind, &random.bytes(length))
        }
    }
}

fn fuzz_request(random: &mut Random) -> Vec<u8> {
    let command = u16::try_from(random.below(10)).unwrap();
    let flags = if random.below(2) == 0 { 0 } else { u16::try_from(random.below(64)).unwrap() };
    let offset = if random.below(8) == 0 { random.next() } else { random.below(MIB) };
    let mut length = u32::try_from(random.below(5000)).unwrap();
    if command != WRITE && random.below(16) == 0 {
        length = u32::try_from(random.below(65_536)).unwrap();
    }
    let mut bytes = request(flags, command, random.next(), offset, length);
    if command == WRITE {
        bytes.extend(random.bytes(length as usize));
    }
    bytes
}

/// A message that is, half the time, not quite what it was.
fn bent(random: &mut Random, make: fn(&mut Random) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = make(random);
    match random.below(32) {
        0..=7 => {
            let bit = usize::try_from(random.below((bytes.len() as u64).min(28) * 8)).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        8 => {
            let length = usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap();
            bytes.truncate(length);
        }
        9 => {
            let again = bytes.clone();
            bytes.extend(again);
        }
        10 => {
            let length = usize::try_from(random.below(64)).unwrap();
            bytes = random.bytes(length);
        }
        _ => {}
    }
    bytes
}
