//! Tests of the device and its layers. Each protection has a twin: the same attack with the protection off, which must
//! then succeed.

mod backends;
mod crash;
mod disks;
mod latching;
mod locking;
mod mapping;
mod model;
mod power_cuts;
mod volumes;
mod zero_units;

use std::sync::Arc;

use super::protections::Protections;
use super::storage::{Memory, Storage};
use super::volume::{self, Expected, Format, NewEncryption, OpenOptions, Volume};
use super::{CryptDevice, DeviceError};
use crate::dir::HomeDir;
use crate::ids::VolumeId;
use crate::luks2::{KEY_BYTES, KeyDigest, WrappedKey};
use crate::secret::SecretBytes;
use crate::units::SectorSize;
use crate::xts::{EngineChoice, XtsCipher};

const SECTOR_SIZES: [SectorSize; 2] = [SectorSize::B512, SectorSize::B4096];

/// A key that is no secret: byte i of number n is a mix of both.
fn key(number: u8) -> SecretBytes {
    SecretBytes::new_with(KEY_BYTES, |bytes| {
        for (index, byte) in (0u8..).zip(bytes) {
            *byte = index.wrapping_mul(37) ^ number.wrapping_mul(101) ^ 0x5a;
        }
    })
}

fn cipher() -> XtsCipher {
    XtsCipher::new(&key(1), EngineChoice::Auto).unwrap()
}

/// Bytes that are no zeros and differ by `seed` and place.
fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).map(|byte: u8| byte ^ seed | 1).collect()
}

/// A crypt device from byte 0 of a storage.
fn device_on<S: Storage>(storage: S, size: SectorSize, protections: Protections) -> CryptDevice<S> {
    let length = storage.length();
    CryptDevice::with(storage, 0, length, cipher(), size, protections).unwrap()
}

fn memory_device(length: usize, size: SectorSize) -> CryptDevice<Arc<Memory>> {
    device_on(Arc::new(Memory::new(length)), size, Protections::ON)
}

/// A home with a place for volumes.
struct TestHome {
    #[expect(dead_code, reason = "removes the directory when dropped")]
    base: Option<tempfile::TempDir>,
    dir: HomeDir,
}

impl TestHome {
    fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    fn below(place: &std::path::Path) -> Self {
        let base = tempfile::tempdir_in(place).unwrap();
        let dir = HomeDir::open(&base.path().join("home"), true).unwrap();
        dir.make_dir("volumes").unwrap();
        Self { base: Some(base), dir }
    }

    /// One that is there already.
    fn at(path: &std::path::Path) -> Self {
        Self { base: None, dir: HomeDir::open(path, false).unwrap() }
    }

    fn make(&self, id: &VolumeId, length: u64, format: Format) -> Result<Expected, DeviceError> {
        let encryption = match format {
            Format::Encrypted(sector_size) => Some(new_encryption(id, sector_size)),
            Format::Plain => None,
        };
        volume::create(&self.dir, id, length, encryption)?;
        Ok(Expected { length, format })
    }

    fn open(&self, id: &VolumeId, expected: Expected, protections: Protections) -> Result<Volume, DeviceError> {
        let options = OpenOptions { protections, ..OpenOptions::default() };
        let key = (expected.format != Format::Plain).then(|| key(1));
        volume::open(&self.dir, id, expected, key.as_ref(), options)
    }
}

fn new_encryption(id: &VolumeId, sector_size: SectorSize) -> NewEncryption {
    NewEncryption {
        sector_size,
        digest: KeyDigest::new(&key(1)).unwrap(),
        wrapped_key: WrappedKey {
            blob: pattern(7, 184),
            key_arn: "arn:aws:kms:us-east-1:123456789012:key/0b9ae5a2-1111-4222-8333-444455556666".to_owned(),
            encryption_context: [("aws:ebs:id".to_owned(), id.to_string())].into(),
        },
    }
}
