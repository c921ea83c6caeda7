//! The volumes that are measured, and the temporary home in which they are made.

use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use super::{BenchError, DeviceError, DeviceErrorKind};
use crate::device::BlockDevice as _;
use crate::device::volume::{self, Expected, Format, NewEncryption, OpenOptions, Volume};
use crate::dir::HomeDir;
use crate::ids::VolumeId;
use crate::luks2::{DATA_OFFSET, KEY_BYTES, KeyDigest, WrappedKey};
use crate::secret::SecretBytes;
use crate::twin::{self, Protection};
use crate::units::SectorSize;

/// How a volume is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Plain,
    Encrypted(SectorSize),
}

const KINDS: [Kind; 3] = [Kind::Plain, Kind::Encrypted(SectorSize::B512), Kind::Encrypted(SectorSize::B4096)];

/// How much is filled at once, the same for every kind: the page cache goes on using pages of the size in which a file was written,
/// and the larger they are, the more a short write into one costs.
const FILL_BYTES: usize = 256 << 10;

impl Kind {
    pub(super) fn sector_size(self) -> Option<SectorSize> {
        match self {
            Self::Plain => None,
            Self::Encrypted(size) => Some(size),
        }
    }
}

/// One open volume of each kind, whose files have no name any more.
pub(super) struct Scratch {
    directory: PathBuf,
    needed_bytes: u64,
    volume_bytes: u64,
    volumes: Vec<Volume>,
    /// Last: on file systems that keep the names of open files, this removes them after they are closed.
    home: Home,
}

impl Scratch {
    pub(super) fn new(directory: &Path, volume_bytes: u64) -> Result<Self, BenchError> {
        let needed_bytes = KINDS.len() as u64 * (volume_bytes + volume_bytes / 32 + DATA_OFFSET);
        let unusable = |source| BenchError::Directory { directory: directory.to_owned(), source };
        let stat = nix::sys::statvfs::statvfs(directory).map_err(|errno| unusable(errno.into()))?;
        if stat.blocks_available().saturating_mul(stat.fragment_size()) < needed_bytes {
            return Err(BenchError::Room { directory: directory.to_owned(), needed_bytes });
        }
        let key = SecretBytes::random(KEY_BYTES).map_err(|error| BenchError::Key(error.to_string()))?;
        // Declared before `scratch`, so that what ends the process waits until an error has removed everything too.
        let _held = Held::signals();
        let home = nix::unistd::mkdtemp(&directory.join(".blockseal-bench-XXXXXX"));
        let home = Home(home.map_err(|errno| unusable(errno.into()))?);
        let mut scratch =
            Self { directory: directory.to_owned(), needed_bytes, volume_bytes, volumes: Vec::new(), home };
        match scratch.open_all(&key) {
            Ok(()) => {
                if !twin::is_off(Protection::NamelessScratch) {
                    scratch.home.remove();
                }
                Ok(scratch)
            }
            Err(error) => Err(scratch.explain(error)),
        }
    }

    fn open_all(&mut self, key: &SecretBytes) -> Result<(), BenchError> {
        let dir = HomeDir::open(&self.home.0, false)?;
        dir.make_dir("volumes")?;
        for kind in KINDS {
            let id = VolumeId::random();
            let (format, encryption, key) = match kind.sector_size() {
                None => (Format::Plain, None, None),
                Some(sector_size) => {
                    let digest = KeyDigest::new(key).map_err(|error| BenchError::Key(error.to_string()))?;
                    // No KMS key wraps this one: it ends with this process, and nobody opens the volume again.
                    let wrapped_key = WrappedKey {
                        blob: vec![0; 184],
                        key_arn: "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-4000-8000-000000000000".into(),
                        encryption_context: [("aws:ebs:id".to_owned(), id.to_string())].into(),
                    };
                    let new = NewEncryption { sector_size, digest, wrapped_key };
                    (Format::Encrypted(sector_size), Some(new), Some(key))
                }
            };
            volume::create(&dir, &id, self.volume_bytes, encryption).map_err(BenchError::Device)?;
            let expected = Expected { length: self.volume_bytes, format };
            let opened = volume::open(&dir, &id, expected, key, OpenOptions::default());
            self.volumes.push(opened.map_err(BenchError::Device)?);
        }
        Ok(())
    }

    /// The volumes' kinds, in the order of their numbers.
    pub(super) fn kinds() -> impl Iterator<Item = Kind> {
        KINDS.into_iter()
    }

    pub(super) fn volume(&self, index: usize) -> &Volume {
        &self.volumes[index]
    }

    /// Writes every byte of every volume once and reads it, so that what is measured neither allocates nor maps. Answers what was
    /// written: 1 MiB that no file system compresses, or the unencrypted volume would seem the faster one.
    pub(super) fn fill(&self) -> Result<Vec<u8>, BenchError> {
        let mut data = vec![0; 1 << 20];
        getrandom::fill(&mut data).map_err(|error| BenchError::Key(error.to_string()))?;
        let mut found = data.clone();
        let piece = &data[..FILL_BYTES];
        let places = (0..self.volume_bytes).step_by(piece.len());
        for volume in &self.volumes {
            places.clone().try_for_each(|place| volume.write_at(place, piece)).map_err(BenchError::Device)?;
            volume.flush().map_err(BenchError::Device)?;
            places
                .clone()
                .try_for_each(|place| volume.read_at(place, &mut found[..FILL_BYTES]))
                .map_err(BenchError::Device)?;
        }
        Ok(data)
    }

    /// The same error; a full disk in words that name the directory.
    pub(super) fn explain(&self, error: BenchError) -> BenchError {
        match error {
            BenchError::Device(error) if no_space(&error) => {
                BenchError::Room { directory: self.directory.clone(), needed_bytes: self.needed_bytes }
            }
            other => other,
        }
    }
}

fn no_space(error: &DeviceError) -> bool {
    error.kind() == DeviceErrorKind::NoSpace
}

/// A directory that is removed when it is dropped, whatever happened.
struct Home(PathBuf);

impl Home {
    fn remove(&self) {
        // What cannot be removed now, because a file system keeps open files, is tried again at the end.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Keeps what a terminal or a supervisor ends a process with waiting while files have names.
struct Held(SigSet);

impl Held {
    fn signals() -> Option<Self> {
        let ending: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        let mut before = SigSet::empty();
        // A process that may not hold its signals is ended by them, as it would be anyway.
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&ending), Some(&mut before)).ok()?;
        Some(Self(before))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.thread_set_mask();
    }
}
