//! Several requests in flight on one connection: who waits for whom, and who must not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use blockseal::device::BlockDevice as _;

use super::devices::{FlushPolicy, Hooked, Op, Sparse, Volatile};
use super::raw::*;
use super::{MIB, Random, serve, serve_shared};

/// A gate that a device waits at until the test opens it; it counts who came.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, u64)>,
    changed: Condvar,
}

impl Gate {
    fn wait(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        let (state, timeout) =
            self.changed.wait_timeout_while(state, Duration::from_secs(20), |(open, _)| !*open).unwrap();
        assert!(!timeout.timed_out() && state.0, "the test opens the gate");
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    fn wait_for_arrivals(&self, count: u64) {
        let state = self.state.lock().unwrap();
        let (_state, timeout) =
            self.changed.wait_timeout_while(state, Duration::from_secs(20), |(_, arrived)| *arrived < count).unwrap();
        assert!(!timeout.timed_out(), "{count} calls reach the device");
    }
}

#[test]
fn replies_do_not_wait_for_an_unrelated_flush() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let served = serve(Hooked::new(Sparse::new(8 * MIB), move |op, _, _| {
        if op == Op::Flush {
            held.wait();
        }
        Ok(())
    }));
    let mut raw = Raw::simple(&served.socket);
    raw.request(0, FLUSH, 1, 0, 0);
    gate.wait_for_arrivals(1);
    // More flushes than there are workers, and a write that wants to be durable.
    for cookie in 100..120 {
        raw.request(0, FLUSH, cookie, 0, 0);
    }
    raw.request(FUA, WRITE, 120, 0, 3);
    raw.give(b"fua");
    for cookie in 2..50 {
        let length = if cookie % 10 == 0 { 1 << 20 } else { 4096 };
        raw.request(0, READ, cookie, 0, length);
        assert_eq!(raw.simple_reply(), (cookie, 0));
        raw.take(length as usize);
    }
    assert_eq!(raw.write(0, 4096, b"and writes"), 0);
    gate.open();
    let mut answered: Vec<u64> = (0..22)
        .map(|_| raw.simple_reply())
        .map(|(cookie, error)| {
            assert_eq!(error, 0);
            cookie
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, std::iter::once(1).chain(100..121).collect::<Vec<_>>());
    let flushes = served.server.as_ref().unwrap().statistics().flushes;
    assert!(flushes <= 4, "waiting flushes are answered together, not one by one: {flushes}");
}

/// A flush covers the writes that were answered before it was asked for, so the one that is running already will not do.
#[test]
fn a_flush_is_never_answered_by_one_that_began_before_it() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let device = Arc::new(Hooked::new(Volatile::new(65536, FlushPolicy::Honoured), move |op, _, _| {
        // The durable image is taken, the answer is not given yet.
        if op == Op::Flushed {
            held.wait();
        }
        Ok(())
    }));
    let served = serve_shared(device.clone());
    let mut raw = Raw::simple(&served.socket);
    raw.request(0, FLUSH, 1, 0, 0);
    gate.wait_for_arrivals(1);
    assert_eq!(raw.write(0, 0, b"after the first flush began"), 0);
    raw.request(0, FLUSH, 2, 0, 0);
    raw.request(FUA, WRITE, 3, 1000, 4);
    raw.give(b"fua!");
    // Let the server take them in while the first flush still runs; later would only make the test weaker, not wrong.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(device.inner.after_power_cut()[..27], [0; 27], "the running flush does not have it");
    gate.open();
    for _ in 0..3 {
        assert_eq!(raw.simple_reply().1, 0);
    }
    let durable = device.inner.after_power_cut();
    assert_eq!(&durable[..27], b"after the first flush began");
    assert_eq!(&durable[1000..1004], b"fua!");
}

#[test]
fn slow_reads_overlap() {
    let inside = Arc::new(AtomicU64::new(0));
    let most = Arc::new(AtomicU64::new(0));
    let (now, peak) = (Arc::clone(&inside), Arc::clone(&most));
    let served = serve(Hooked::new(Sparse::new(MIB), move |op, _, _| {
        if op == Op::Read {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            now.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }));
    let mut raw = Raw::simple(&served.socket);
    // One at a time shows the server that this device is slow; then there is something to gain.
    assert_eq!(raw.ask(0, READ, 0, 512), 0);
    for cookie in 0..64 {
        raw.request(0, READ, cookie, 0, 512);
    }
    for _ in 0..64 {
        assert_eq!(raw.simple_reply().1, 0);
        raw.take(512);
    }
    assert!(most.load(Ordering::SeqCst) >= 3, "{}", most.load(Ordering::SeqCst));
}

/// Batches of requests sent in one go, of every length around the borders inside the server, answered in any order.
#[test]
fn pipelined_requests_of_every_length_do_what_they_say() {
    let size = 16 * MIB;
    let served = serve(Sparse::new(size));
    for structured in [false, true] {
        let mut raw = if structured { Raw::structured(&served.socket) } else { Raw::simple(&served.socket) };
        let mut random = Random(7);
        let mut model = vec![0; usize::try_from(size).unwrap()];
        served.client().trim(0, size).unwrap();
        for _ in 0..30 {
            // Each request of a batch has a range of its own: their order is nobody's promise.
            let count = 1 + random.below(40);
            let share = size / count;
            let mut script = Vec::new();
            let mut reads = Vec::new();
            let mut changes = Vec::new();
            for cookie in 0..count {
                let most: u64 = random.pick(&[1, 28, 4096, 65_536, 65_537, 131_072, 524_288, 524_289, 1_600_000]);
                let length = random.below(most.min(share) + 1);
                let offset = share * cookie + random.below(share - length + 1);
                let (start, end) = (usize::try_from(offset).unwrap(), usize::try_from(offset + length).unwrap());
                let length = u32::try_from(length).unwrap();
                match random.below(6) {
                    0 | 1 => {
                        let data = random.bytes(length as usize);
                        let flags = if random.below(4) == 0 { FUA } else { 0 };
                        script.extend(request(flags, WRITE, cookie, offset, length));
                        script.extend(&data);
                        changes.push((start, data));
                    }
                    2 => {
                        let (flags, command) = random.pick(&[(0, TRIM), (0, WRITE_ZEROES), (NO_HOLE, WRITE_ZEROES)]);
                        script.extend(request(flags, command, cookie, offset, length));
                        changes.push((start, vec![0; length as usize]));
                    }
                    3 => script.extend(request(0, FLUSH, cookie, 0, 0)),
                    _ => {
                        script.extend(request(0, READ, cookie, offset, length));
                        reads.push((cookie, start, end));
                    }
                }
            }
            let mut writer = raw.stream.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || std::io::Write::write_all(&mut writer, &script).unwrap());
                collect(&mut raw, structured, count, &reads, &model);
            });
            for (start, data) in changes {
                model[start..start + data.len()].copy_from_slice(&data);
            }
        }
        let mut whole = vec![0; model.len()];
        served.client().read(0, &mut whole).unwrap();
        assert!(whole == model, "the device holds what was written");
    }
}

/// Takes `count` replies and compares what was read with the model.
fn collect(raw: &mut Raw, structured: bool, count: u64, reads: &[(u64, usize, usize)], model: &[u8]) {
    let mut answered = vec![false; usize::try_from(count).unwrap()];
    let mut missing: Vec<usize> = reads.iter().map(|(_, start, end)| end - start).collect();
    while answered.iter().any(|answered| !answered) {
        let mut magic = [0; 4];
        peek(raw, &mut magic);
        let cookie = if magic == 0x668e_33efu32.to_be_bytes() {
            assert!(structured);
            let chunk = raw.chunk();
            let index = reads.iter().position(|(cookie, ..)| *cookie == chunk.cookie).unwrap();
            let (_, start, end) = reads[index];
            if chunk.kind == 1 {
                let at = usize::try_from(u64_at(&chunk.payload, 0)).unwrap();
                let data = &chunk.payload[8..];
                assert!(at >= start && at + data.len() <= end);
                assert!(data == &model[at..at + data.len()], "read at {at}");
                missing[index] -= data.len();
            } else {
                assert_eq!(chunk.kind, 0);
            }
            if !chunk.done {
                continue;
            }
            assert_eq!(missing[index], 0, "all bytes came before the end");
            chunk.cookie
        } else {
            let (cookie, error) = raw.simple_reply();
            assert_eq!(error, 0);
            if let Some((_, start, end)) = reads.iter().find(|(read, ..)| *read == cookie) {
                assert!(!structured, "reads are answered in chunks once that is agreed");
                assert!(raw.take(end - start) == model[*start..*end]);
            }
            cookie
        };
        assert!(!std::mem::replace(&mut answered[usize::try_from(cookie).unwrap()], true), "{cookie} answered twice");
    }
}

/// Looks at the next bytes without taking them.
fn peek(raw: &Raw, into: &mut [u8; 4]) {
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsRawFd as _;
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_WAITALL;
    assert_eq!(recv(raw.stream.as_raw_fd(), into, flags).unwrap(), 4);
}

#[test]
fn a_disconnect_lets_everything_before_it_be_answered() {
    let served = serve(Hooked::new(Sparse::new(8 * MIB), |op, offset, _| {
        if op == Op::Write && offset == 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }));
    let mut raw = Raw::simple(&served.socket);
    let mut script = request(0, WRITE, 1, 0, 100_000);
    script.extend(vec![1; 100_000]);
    script.extend(request(0, READ, 2, MIB, 512));
    script.extend(request(0, FLUSH, 3, 0, 0));
    script.extend(request(0, DISC, 4, 0, 0));
    script.extend(request(0, TRIM, 5, 0, 4096));
    raw.give(&script);
    let replies = raw.expect_end();
    assert_eq!(replies.len(), 3 * 16 + 512, "three answers, and nothing after the disconnect is carried out");
    let mut start = [0; 512];
    served.client().read(0, &mut start).unwrap();
    assert_eq!(start, [1; 512]);
}

#[test]
fn draining_answers_what_has_arrived_and_flushes() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let device = Arc::new(Hooked::new(Volatile::new(65536, FlushPolicy::Honoured), move |op, offset, _| {
        if op == Op::Write && offset == 0 {
            held.wait();
        }
        Ok(())
    }));
    let mut served = serve_shared(device.clone());
    let mut idle = served.client();
    let mut raw = Raw::simple(&served.socket);
    raw.request(0, WRITE, 1, 0, 5);
    raw.give(b"first");
    gate.wait_for_arrivals(1);
    raw.request(0, WRITE, 2, 100, 6);
    raw.give(b"second");
    let taken = served.server.take().unwrap();
    let draining = std::thread::spawn(move || taken.drain(Duration::from_secs(20)));
    std::thread::sleep(Duration::from_millis(50));
    assert!(blockseal::export::Client::connect(&served.socket, "").is_err(), "nobody new is let in");
    gate.open();
    let mut replies = [raw.simple_reply(), raw.simple_reply()];
    replies.sort_unstable();
    assert_eq!(replies, [(1, 0), (2, 0)]);
    assert!(raw.expect_end().is_empty());
    draining.join().unwrap().unwrap();
    assert!(idle.flush().is_err());
    let durable = device.inner.after_power_cut();
    assert_eq!((&durable[..5], &durable[100..106]), (&b"first"[..], &b"second"[..]));
    assert_eq!(Arc::strong_count(&device), 1, "nobody holds the device any more");
    assert_eq!(device.size(), 65536);
}

#[test]
fn draining_does_not_wait_for_ever_for_a_client_that_takes_nothing() {
    let mut served = serve(Sparse::new(64 * MIB));
    let mut raw = Raw::simple(&served.socket);
    for cookie in 0..8 {
        raw.request(0, READ, cookie, 0, 4 * 1024 * 1024);
    }
    let start = std::time::Instant::now();
    served.server.take().unwrap().drain(Duration::from_millis(200)).unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
}
