//! The NBD server before clients of all kinds: real ones, hostile ones, many at once, and ones that trust a flush.

mod clients;
pub(crate) mod devices;
mod durability;
mod hostile;
mod in_flight;
mod model;
pub(crate) mod raw;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use blockseal::device::BlockDevice;
use blockseal::export::{Client, Export, Server};
use tempfile::TempDir;

pub(crate) const NAME: &str = "vol-0123456789abcdef0";
pub(crate) const MIB: u64 = 1 << 20;

/// A server with a device, for one test.
pub(crate) struct Served {
    pub server: Option<Server>,
    pub socket: PathBuf,
    pub dir: TempDir,
}

pub(crate) fn serve(device: impl BlockDevice + 'static) -> Served {
    serve_shared(Arc::new(device))
}

pub(crate) fn serve_shared(device: Arc<dyn BlockDevice>) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let export = Export { name: NAME.into(), description: "a test".into(), device };
    Served { server: Some(Server::start(listener, export).unwrap()), socket, dir }
}

impl Served {
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket, NAME).unwrap()
    }

    pub(crate) fn uri(&self) -> String {
        uri(&self.socket)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

pub(crate) fn uri(socket: &Path) -> String {
    format!("nbd+unix:///{NAME}?socket={}", socket.display())
}

/// Runs a program that must succeed, and returns what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let (ok, text) = try_run(program, args);
    assert!(ok, "{program} {args:?} failed:\n{text}");
    text
}

/// Runs a program and returns whether it succeeded, and what it printed on both streams.
pub(crate) fn try_run(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(args)
        // fio leaves files of its state in the folder that it runs in.
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run ({error}): install the packages that tests/run names"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// Numbers that look random and are the same in every run with the same seed (`SplitMix64`).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// A count that the gate keeps small and a full run raises by an environment variable.
pub(crate) fn count(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}
