//! The exporter process: how it starts, what it says, how it ends or is ended, and what nobody finds of its key.

mod life;
mod secrecy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockseal::device::volume::{self, Expected, Format, NewEncryption};
use blockseal::dir::HomeDir;
use blockseal::export::{self, Client, Exporter, Order, SpawnError};
use blockseal::ids::VolumeId;
use blockseal::luks2::{KeyDigest, WrappedKey};
use blockseal::secret::SecretBytes;
use blockseal::units::SectorSize;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_blockseal"))
}

/// A home with one encrypted volume, whose exporter ends with the value.
pub(crate) struct Attachable {
    pub(crate) home: HomeDir,
    pub(crate) volume: VolumeId,
    pub(crate) key: Vec<u8>,
    pub(crate) expected: Expected,
    started: Vec<Exporter>,
    pub(crate) dir: TempDir,
}

impl Attachable {
    pub(crate) fn new(length: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = HomeDir::open(&dir.path().join("home"), true).unwrap();
        home.make_dir("volumes").unwrap();
        let volume = VolumeId::random();
        let mut key = vec![0; 64];
        getrandom::fill(&mut key).unwrap();
        let secret = SecretBytes::new_with(64, |bytes| bytes.copy_from_slice(&key));
        let encryption = NewEncryption {
            sector_size: SectorSize::B4096,
            digest: KeyDigest::new(&secret).unwrap(),
            wrapped_key: WrappedKey {
                blob: vec![1; 200],
                key_arn: "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab".into(),
                encryption_context: BTreeMap::from([("aws:ebs:id".into(), volume.to_string())]),
            },
        };
        volume::create(&home, &volume, length, Some(encryption)).unwrap();
        let expected = Expected { length, format: Format::Encrypted(SectorSize::B4096) };
        Self { home, volume, key, expected, started: Vec::new(), dir }
    }

    pub(crate) fn order(&self) -> Order {
        Order::new(&self.home, &self.volume, self.expected, false)
    }

    pub(crate) fn try_attach_with(&mut self, program: &Path, key: Option<&[u8]>) -> Result<Exporter, SpawnError> {
        let key = key.map(|key| SecretBytes::new_with(key.len(), |bytes| bytes.copy_from_slice(key)));
        let exporter = export::spawn(program, &self.order(), key.as_ref())?;
        self.started.push(exporter.clone());
        Ok(exporter)
    }

    pub(crate) fn try_attach(&mut self) -> Result<Exporter, SpawnError> {
        let key = self.key.clone();
        self.try_attach_with(program(), Some(&key))
    }

    pub(crate) fn attach(&mut self) -> Exporter {
        self.try_attach().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&export::socket_path(&self.home, &self.volume), self.volume.as_str()).unwrap()
    }

    pub(crate) fn uri(&self) -> String {
        let socket = export::socket_path(&self.home, &self.volume);
        format!("nbd+unix:///{}?socket={}", self.volume, socket.display())
    }

    pub(crate) fn run_file(&self, ending: &str) -> PathBuf {
        self.home.path_of(&format!("run/{}.{ending}", self.volume))
    }

    pub(crate) fn volume_file(&self) -> PathBuf {
        self.home.path_of(&volume::relative_path(&self.volume, self.expected.format))
    }
}

impl Drop for Attachable {
    fn drop(&mut self) {
        for exporter in &self.started {
            if is_exporter(exporter.pid) {
                signal(exporter.pid, Signal::SIGKILL);
            }
        }
    }
}

/// Whether the process lives and is one of ours (its number may have been given to another).
pub(crate) fn is_exporter(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == export::EXPORTER_COMMAND.as_bytes()))
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

pub(crate) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < deadline, "not reached in 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
