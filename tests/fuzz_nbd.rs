//! Both ends of the NBD protocol against a peer that does not keep to it.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use blockseal::device::{BlockDevice, DeviceError, DeviceErrorKind, Extent, ZeroMode};
use blockseal::export::{Client, Export, Server};

use crate::fuzz::fuzz;

const SIZE: usize = 1 << 20;

/// A device in memory.
struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn with<T>(&self, offset: u64, length: usize, act: impl FnOnce(&mut [u8]) -> T) -> Result<T, DeviceError> {
        let start = usize::try_from(offset).unwrap();
        let mut bytes = self.0.lock().unwrap();
        let range = start.checked_add(length).and_then(|end| bytes.get_mut(start..end));
        range.map(act).ok_or_else(|| DeviceError::new(DeviceErrorKind::OutOfRange, "past the end"))
    }
}

impl BlockDevice for Memory {
    fn size(&self) -> u64 {
        SIZE as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.with(offset, into.len(), |bytes| into.copy_from_slice(bytes))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.with(offset, data.len(), |bytes| bytes.copy_from_slice(data))
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: ZeroMode) -> Result<(), DeviceError> {
        self.with(offset, usize::try_from(length).unwrap(), |bytes| bytes.fill(0))
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn extents(&self, _: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        Ok(vec![Extent { length, hole: false, zero: false }])
    }
}

/// Panics inside the export module, on whatever thread: a thread that dies would look like a closed connection.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.location().is_some_and(|location| location.file().contains("src/export")) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_LIST: u32 = 3;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [b"IHAVEOPT", &number.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

fn choice(name: &[u8]) -> Vec<u8> {
    let length = u32::try_from(name.len()).unwrap();
    [&length.to_be_bytes(), name, &[0, 1, 0, 3]].concat()
}

fn request(flags: u16, command: u16, offset: u64, length: u32, data: &[u8]) -> Vec<u8> {
    let cookie = 0x1122_3344_5566_7788_u64.wrapping_add(offset);
    let start = [&0x2560_9513_u32.to_be_bytes()[..], &flags.to_be_bytes(), &command.to_be_bytes()].concat();
    [start, cookie.to_be_bytes().into(), offset.to_be_bytes().into(), length.to_be_bytes().into(), data.into()].concat()
}

/// What well-behaved clients send, as the protocol's text has it.
fn sessions() -> Vec<Vec<u8>> {
    let flags = 3u32.to_be_bytes();
    let requests = [
        request(0, 0, 0, 4096, &[]),
        request(0, 1, 8192, 512, &[7; 512]),
        request(1, 1, 1024, 100, &[9; 100]),
        request(0, 3, 0, 0, &[]),
        request(0, 4, 65536, 8192, &[]),
        request(2, 6, 4096, 4096, &[]),
        request(0, 6, 100, 0, &[]),
        request(0, 2, 0, 0, &[]),
    ]
    .concat();
    vec![
        [&flags[..], &option(OPT_GO, &choice(b"vol")), &requests].concat(),
        [&flags[..], &option(OPT_EXPORT_NAME, b"vol"), &requests].concat(),
        [
            &flags[..],
            &option(OPT_STRUCTURED_REPLY, &[]),
            &option(OPT_LIST, &[]),
            &option(OPT_INFO, &choice(b"")),
            &option(99, &[1; 50]),
            &option(OPT_GO, &choice(b"nothing")),
            &option(OPT_ABORT, &[]),
        ]
        .concat(),
    ]
}

struct Served {
    folder: tempfile::TempDir,
    _server: Server,
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let device = Arc::new(Memory(Mutex::new(vec![0; SIZE])));
        let export = Export { name: "vol".into(), description: String::new(), device };
        Self { folder, _server: Server::start(listener, export).unwrap() }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join("socket")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends all of it and then nothing; returns what came back. The server must end the connection by itself.
    fn talk(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may hang up on nonsense before it has read all of it.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the server neither answers nor hangs up");
        }
        answer
    }
}

#[test]
fn a_server_survives_hostile_clients() {
    count_panics();
    let served = Served::new();
    // The corpus is what it claims to be: the reads come back.
    assert!(served.talk(&sessions()[0]).len() > 4096);
    assert!(served.talk(&sessions()[1]).len() > 4096);
    let before = PANICS.load(Ordering::SeqCst);
    fuzz(&sessions(), 10, |input| {
        let answer = served.talk(input);
        assert!(answer.starts_with(b"NBDMAGICIHAVEOPT"));
        assert_eq!(PANICS.load(Ordering::SeqCst), before, "a thread of the server panicked");
    });
    let mut client = Client::connect(&served.folder.path().join("socket"), "vol").unwrap();
    client.write(12345, b"still here").unwrap();
    let mut back = [0; 10];
    client.read(12345, &mut back).unwrap();
    assert_eq!(&back, b"still here");
}

/// What a server says to our client in one session, taken from a real one.
fn server_side() -> Vec<u8> {
    let served = Served::new();
    let listener_folder = tempfile::tempdir().unwrap();
    let path = listener_folder.path().join("between");
    let listener = UnixListener::bind(&path).unwrap();
    let upstream = served.connect();
    let recorder = std::thread::spawn(move || {
        let (mut downstream, _) = listener.accept().unwrap();
        let mut to_server = upstream.try_clone().unwrap();
        let mut from_client = downstream.try_clone().unwrap();
        let forward = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let mut recorded = Vec::new();
        let mut buffer = [0; 4096];
        let mut upstream = upstream;
        while let Ok(count @ 1..) = upstream.read(&mut buffer) {
            recorded.extend(&buffer[..count]);
            let _ = downstream.write_all(&buffer[..count]);
        }
        let _ = downstream.shutdown(Shutdown::Both);
        forward.join().unwrap();
        recorded
    });
    use_client(&path);
    recorder.join().unwrap()
}

/// A session of every call; errors are expected from a hostile server, panics and endless waits are not.
fn use_client(path: &std::path::Path) {
    let Ok(mut client) = Client::connect(path, "vol") else { return };
    let mut buffer = [0; 2048];
    let _ = client.read(0, &mut buffer);
    let _ = client.extents(0, 4096);
    let _ = client.copy_out(&mut std::io::sink(), 0, 2048, &mut |_| ());
    let _ = client.write(4096, &buffer);
    let _ = client.write_zeroes(0, 512, false);
    let _ = client.trim(0, 512);
    let _ = client.flush();
    let _ = client.disconnect();
}

#[test]
fn a_client_survives_hostile_servers() {
    count_panics();
    let recorded = server_side();
    assert!(recorded.len() > 2048);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    fuzz(&[recorded], 10, |input| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.write_all(input);
                let _ = stream.shutdown(Shutdown::Write);
                // Takes whatever the client says until it hangs up.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
            use_client(&path);
        });
    });
}
