//! Opening a volume: everything that must hold before its first byte is served.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::OFlag;

use super::{Format, check_length, dir_error, header_error, header_io, latch, locks, relative_path};
use crate::device::protections::Protections;
use crate::device::storage::{FileOptions, Latch as _, Latched, MappedFile, Storage as _};
use crate::device::{BlockDevice, CryptDevice, DeviceError, DeviceErrorKind, Extent, PlainDevice, ZeroMode};
use crate::dir::HomeDir;
use crate::ids::VolumeId;
use crate::luks2::{Copies, CopyState, DATA_OFFSET, Header};
use crate::secret::SecretBytes;
use crate::units::SectorSize;
use crate::xts::{EngineChoice, XtsCipher};

/// What the caller's records say about a volume. The header is untrusted: where it says something else, it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Length of its data in bytes.
    pub length: u64,
    /// How its bytes are stored.
    pub format: Format,
}

/// How a volume is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Writes are refused.
    pub read_only: bool,
    /// Others that only read may have it open at the same time. Means nothing unless it is `read_only`.
    pub shared: bool,
    /// Which engine encrypts.
    pub engine: EngineChoice,
    /// How the file is mapped.
    pub file: FileOptions,
    pub(crate) protections: Protections,
}

impl OpenOptions {
    fn is_shared(self) -> bool {
        self.read_only && self.shared
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            shared: false,
            engine: EngineChoice::default(),
            file: FileOptions::default(),
            protections: Protections::ON,
        }
    }
}

type VolumeStorage = Latched<MappedFile>;

enum Layers {
    Encrypted(Box<CryptDevice<VolumeStorage>>),
    Plain(Box<PlainDevice<VolumeStorage>>),
}

/// An open volume: a block device that owns its file until it is dropped.
pub struct Volume {
    layers: Layers,
    read_only: bool,
    was_latched: bool,
    header: Option<Mutex<(Header, Copies)>>,
    header_lock: locks::HeaderLock,
    /// Last, so that the file is closed before it is given back.
    _owner: Option<locks::Owner>,
}

/// Opens a volume. `key` is its data key, and `None` for an unencrypted one.
///
/// In this order: the file's lock is taken; if an earlier flush failed, its page cache is dropped; the header is read
/// and compared with `expected`; the key is checked against the digest; a damaged or older copy of the header is
/// written anew; the latch of the failed flush is cleared. Only then is there a device.
///
/// Who shares a volume has it for himself for as long as that takes, or joins others that have it open and did it.
///
/// # Errors
/// [`DeviceErrorKind::NotFound`]; [`DeviceErrorKind::Locked`] if another process has it open and does not share it;
/// [`DeviceErrorKind::Damaged`] if both header copies are, or file, header and `expected` differ;
/// [`DeviceErrorKind::Refused`] for a header outside the accepted profile; [`DeviceErrorKind::WrongKey`].
pub fn open(
    dir: &HomeDir,
    id: &VolumeId,
    expected: Expected,
    key: Option<&SecretBytes>,
    options: OpenOptions,
) -> Result<Volume, DeviceError> {
    check_length(expected.length)?;
    let name = relative_path(id, expected.format);
    let opened = Opened::new(dir, id, &name, options)?;
    opened.check_file_length(id, expected)?;
    let Opened { storage, header_lock, was_latched, owner, joined } = opened;
    let mut header = None;
    let layers = match (expected.format, key) {
        (Format::Encrypted(sector_size), Some(key)) => {
            let (found, copies) = header_io::read(&storage)?;
            if options.protections.records() {
                check_header(id, &found, sector_size, expected.length)?;
            }
            if options.protections.key_digest() && !found.digest().matches(key) {
                return Err(wrong_key(format!("this is not the data key of volume {id}")));
            }
            let cipher = XtsCipher::new(key, options.engine)
                .map_err(|error| wrong_key(format!("the data key of volume {id} is refused")).with_source(error))?;
            // Whoever was there first has repaired what there was to repair.
            let sound = if joined { (found, copies) } else { repair(&storage, &header_lock, found, copies)? };
            header = Some(Mutex::new(sound));
            let device =
                CryptDevice::with(storage, DATA_OFFSET, expected.length, cipher, sector_size, options.protections)?;
            Layers::Encrypted(Box::new(device))
        }
        (Format::Plain, None) => Layers::Plain(Box::new(PlainDevice::new(storage, expected.length)?)),
        (Format::Encrypted(_), None) => {
            return Err(wrong_key(format!("volume {id} is encrypted and no data key was given")));
        }
        (Format::Plain, Some(_)) => {
            return Err(wrong_key(format!("volume {id} is not encrypted, and a data key was given")));
        }
    };
    if was_latched {
        // What is served from here on is what the disk has.
        latch::clear(dir, &name)?;
    }
    if let Some(owner) = owner.as_ref().filter(|_| options.is_shared() && !joined) {
        owner.share(id)?;
    }
    Ok(Volume { layers, read_only: options.read_only, was_latched, header, header_lock, _owner: owner })
}

/// Makes a volume that nobody has open `length` bytes long; see [`Volume::grow`].
///
/// # Errors
/// As [`open`], without a key.
pub fn grow(dir: &HomeDir, id: &VolumeId, expected: Expected, length: u64) -> Result<(), DeviceError> {
    check_growth(expected.length, length)?;
    let name = relative_path(id, expected.format);
    let opened = Opened::new(dir, id, &name, OpenOptions::default())?;
    opened.check_file_length(id, expected)?;
    let Opened { storage, header_lock, was_latched: _, owner: _owner, joined: _ } = opened;
    let Format::Encrypted(sector_size) = expected.format else { return storage.grow(length) };
    let (header, copies) = header_io::read(&storage)?;
    // A grow that was cut short may have got as far as the header.
    let recorded = if header.length() == length { length } else { expected.length };
    check_header(id, &header, sector_size, recorded)?;
    storage.grow(expected.format.file_length(length))?;
    write_length(&storage, &header_lock, &header, copies, length).map(drop)
}

impl Volume {
    /// How its bytes are stored.
    pub fn format(&self) -> Format {
        match &self.header {
            Some(header) => Format::Encrypted(header.lock().unwrap_or_else(PoisonError::into_inner).0.sector_size()),
            None => Format::Plain,
        }
    }

    /// The header as it is now; `None` for an unencrypted volume. [`Header::keyslots`] names what opens it without the KMS.
    pub fn header(&self) -> Option<Header> {
        self.header.as_ref().map(|header| header.lock().unwrap_or_else(PoisonError::into_inner).0.clone())
    }

    /// Whether an earlier flush of this volume had failed, so that writes may be missing which were never flushed.
    pub fn was_latched(&self) -> bool {
        self.was_latched
    }

    /// Makes the volume `length` bytes long, while it is in use: first the file, then the header, then the device, each
    /// durable before the next. Repeating a grow that was cut short finishes it.
    ///
    /// # Errors
    /// [`DeviceErrorKind::Invalid`] if that is shorter than it is; [`DeviceErrorKind::NoSpace`] if the file system cannot
    /// hold so long a file.
    pub fn grow(&self, length: u64) -> Result<(), DeviceError> {
        check_growth(self.size(), length)?;
        if self.read_only {
            return Err(read_only());
        }
        match (&self.layers, &self.header) {
            (Layers::Encrypted(device), Some(header)) => device.grow(length, || {
                let mut header = header.lock().unwrap_or_else(PoisonError::into_inner);
                *header = write_length(device.storage(), &self.header_lock, &header.0, header.1, length)?;
                Ok(())
            }),
            (Layers::Plain(device), _) => device.grow(length),
            (Layers::Encrypted(_), None) => Ok(()),
        }
    }

    /// Writes encrypted zeros wherever nothing is stored, after which the file is a complete LUKS2 disk for programs
    /// without our zero rule (dm-crypt). Takes the space of the whole volume. An unencrypted volume needs none of it.
    ///
    /// # Errors
    /// As for writing and flushing.
    pub fn fill(&self, progress: impl FnMut(u64)) -> Result<(), DeviceError> {
        if self.read_only {
            return Err(read_only());
        }
        match &self.layers {
            Layers::Encrypted(device) => device.fill(progress),
            Layers::Plain(_) => Ok(()),
        }
    }

    fn device(&self) -> &dyn BlockDevice {
        match &self.layers {
            Layers::Encrypted(device) => &**device,
            Layers::Plain(device) => &**device,
        }
    }

    #[cfg(test)]
    pub(crate) fn storage(&self) -> &VolumeStorage {
        match &self.layers {
            Layers::Encrypted(device) => device.storage(),
            Layers::Plain(device) => device.storage(),
        }
    }
}

impl BlockDevice for Volume {
    fn size(&self) -> u64 {
        self.device().size()
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.device().read_at(offset, into)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        if self.read_only { Err(read_only()) } else { self.device().write_at(offset, data) }
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<(), DeviceError> {
        if self.read_only { Err(read_only()) } else { self.device().write_zeroes(offset, length, mode) }
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.device().flush()
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        self.device().extents(offset, length)
    }

    fn grow(&self, length: u64) -> Result<(), DeviceError> {
        Volume::grow(self, length)
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("size", &self.size()).field("read_only", &self.read_only).finish_non_exhaustive()
    }
}

/// A file that is ours, and shows what the disk has.
struct Opened {
    storage: VolumeStorage,
    header_lock: locks::HeaderLock,
    was_latched: bool,
    owner: Option<locks::Owner>,
    /// Others have it open too.
    joined: bool,
}

impl Opened {
    fn new(dir: &HomeDir, id: &VolumeId, name: &str, options: OpenOptions) -> Result<Self, DeviceError> {
        let file = dir.open_file(name, OFlag::O_RDWR).map_err(dir_error)?;
        let (owner, joined) = match options.protections.owner_lock().then(|| locks::own(&file, id)).transpose() {
            Err(error) if error.kind() == DeviceErrorKind::Locked && options.is_shared() => {
                (Some(locks::join(&file, id)?), true)
            }
            owned => (owned?, false),
        };
        let header_lock = locks::HeaderLock::shared(&file, options.protections)?;
        let ahead = !options.read_only && options.protections.latch_ahead();
        let latch = latch::LatchFile::new(dir, name, ahead)?;
        let mut was_latched = latch::is_set(dir, name)?;
        // A process that died before its next flush left a failure that nobody has heard of yet: we hear it here, once.
        if let Err(error) = file.sync_data() {
            latch.set(&error.to_string())?;
            was_latched = true;
        }
        if was_latched && joined {
            return Err(DeviceError::new(
                DeviceErrorKind::Locked,
                format!("a flush of volume {id} failed, and others read it: it opens again once they are done"),
            ));
        }
        if was_latched && options.protections.drop_cache() {
            latch::drop_page_cache(&file)?;
        }
        let storage = MappedFile::with(file, options.file, options.protections)?;
        let storage = Latched::with(storage, Some(Box::new(latch)), options.protections);
        Ok(Self { storage, header_lock, was_latched, owner, joined })
    }

    fn check_file_length(&self, id: &VolumeId, expected: Expected) -> Result<(), DeviceError> {
        let wanted = expected.format.file_length(expected.length);
        let found = self.storage.length();
        if found < wanted {
            return Err(damaged(format!(
                "the file of volume {id} has {found} bytes and should have {wanted}: it was cut short"
            )));
        }
        Ok(())
    }
}

fn check_header(id: &VolumeId, header: &Header, sector_size: SectorSize, length: u64) -> Result<(), DeviceError> {
    if header.sector_size() != sector_size {
        return Err(damaged(format!(
            "the header of volume {id} has sectors of {} bytes, and the home's records say {sector_size}",
            header.sector_size()
        )));
    }
    if header.length() != length {
        return Err(damaged(format!(
            "the header of volume {id} says that it has {} bytes, and the home's records say {length}",
            header.length()
        )));
    }
    Ok(())
}

/// Writes both copies anew if one is damaged or stale.
fn repair(
    storage: &VolumeStorage,
    lock: &locks::HeaderLock,
    header: Header,
    copies: Copies,
) -> Result<(Header, Copies), DeviceError> {
    if copies.clean() {
        return Ok((header, copies));
    }
    write_length(storage, lock, &header, copies, header.length())
}

fn write_length(
    storage: &VolumeStorage,
    lock: &locks::HeaderLock,
    header: &Header,
    copies: Copies,
    length: u64,
) -> Result<(Header, Copies), DeviceError> {
    let next = header.next(length).map_err(header_error)?;
    lock.exclusively(|| header_io::write(storage, &next, copies))?;
    Ok((next, Copies { primary: CopyState::Current, secondary: CopyState::Current }))
}

fn check_growth(from: u64, to: u64) -> Result<(), DeviceError> {
    check_length(to)?;
    if to < from {
        return Err(DeviceError::new(
            DeviceErrorKind::Invalid,
            format!("a volume of {from} bytes cannot be made {to} bytes long: volumes only grow"),
        ));
    }
    Ok(())
}

fn damaged(context: String) -> DeviceError {
    DeviceError::new(DeviceErrorKind::Damaged, context)
}

fn wrong_key(context: String) -> DeviceError {
    DeviceError::new(DeviceErrorKind::WrongKey, context)
}

fn read_only() -> DeviceError {
    DeviceError::new(DeviceErrorKind::ReadOnly, "the volume was opened for reading only")
}
