//! A file: read through a mapping, written with `pwrite`, flushed with `fdatasync` on one descriptor.
//!
//! Writes do not go through the mapping. Stores into a shared mapping were measured to make the disk write 53-66 times
//! what was changed, they turn a full disk into SIGBUS, and they hide a failed writeback; `pwrite` goes into the same
//! page cache and answers with an error.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{Whence, lseek};

use super::{Storage, range_within};
use crate::device::mapping::{WindowOptions, Windows};
use crate::device::protections::Protections;
use crate::device::{DeviceError, DeviceErrorKind, Extent, ZeroMode};
use crate::units::{ByteRange, GIB};

/// The piece in which room is made for writes. It is remembered which pieces have room, because each `fallocate` is a
/// transaction of the file system's journal that the next flush would wait for.
const REGION_BYTES: u64 = 64 * 1024;
const REGIONS_PER_GIB: usize = 16 * 1024;

/// The last of a disk, at most a 64th of it, which is left to the home's records: a user whose volume filled the disk must
/// still be able to detach and delete it.
const HEADROOM_BYTES: u64 = 4 << 20;

/// At most this many runs per answer of [`Storage::extents`].
const MAX_EXTENTS: usize = 1024;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// How a file is used as a storage.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOptions {
    pub(crate) windows: Option<(u64, usize)>,
}

impl FileOptions {
    /// Maps in windows of `bytes` (a power of two from 64 KiB up) of which `budget` stay mapped while idle, instead of
    /// 64 windows of 1 GiB.
    ///
    /// # Panics
    /// For other sizes: they are constants of the caller.
    #[must_use]
    pub fn windows(self, bytes: u64, budget: usize) -> Self {
        assert!(
            bytes.is_power_of_two() && bytes >= 64 * 1024 && budget > 0,
            "windows of {bytes} bytes, {budget} of them"
        );
        Self { windows: Some((bytes, budget)) }
    }
}

/// Which regions are known to have room for every byte.
///
/// Room is made and given up outside the mutex, and two requests in one region need not overlap, so no range lock orders
/// them: one may punch a hole after the other made room and before that is remembered. So what was made is remembered only
/// if nothing was forgotten since before it was made.
#[derive(Default)]
struct Roomy {
    /// Per GiB a bit for each region.
    regions: HashMap<u64, Vec<u64>>,
    /// How often room was forgotten.
    forgotten: u64,
}

/// A file as a storage. Only one that writes may stand on a file at a time, and none beside it; the volume's lock
/// sees to that.
pub struct MappedFile {
    file: File,
    length: AtomicU64,
    windows: Windows,
    roomy: Mutex<Roomy>,
    /// The file system has no `fallocate`: a full disk is found by `pwrite`.
    no_fallocate: AtomicBool,
    /// The file system is tmpfs, where a load from a hole through a mapping takes a page of its space.
    loads_fill_holes: bool,
    protections: Protections,
}

impl MappedFile {
    /// A storage on `file`, which is open for reading and writing; it is as long as the file is now.
    ///
    /// # Errors
    /// If the file's length cannot be found out.
    pub fn new(file: File, options: FileOptions) -> Result<Self, DeviceError> {
        Self::with(file, options, Protections::ON)
    }

    pub(crate) fn with(file: File, options: FileOptions, protections: Protections) -> Result<Self, DeviceError> {
        let length = file.metadata().map_err(|error| DeviceError::io("cannot look at the volume file", error))?.len();
        let kind = fstatfs(&file).map_err(|errno| DeviceError::io("cannot look at the file system", errno.into()))?;
        let windows = match options.windows {
            Some((bytes, budget)) => WindowOptions { bytes, budget },
            None => WindowOptions::default(),
        };
        Ok(Self {
            file,
            length: AtomicU64::new(length),
            windows: Windows::new(windows, protections),
            roomy: Mutex::default(),
            no_fallocate: AtomicBool::new(false),
            loads_fill_holes: kind.filesystem_type() == TMPFS_MAGIC,
            protections,
        })
    }

    #[cfg(test)]
    pub(crate) fn mapped_windows(&self) -> usize {
        self.windows.mapped()
    }

    /// Notices a file that somebody cut short. From then on nothing is served: a write past the new end would make it
    /// long again, and what was lost between would read as zeros.
    fn check_length(&self) -> Result<(), DeviceError> {
        if !self.protections.length_check() {
            return Ok(());
        }
        let found =
            self.file.metadata().map_err(|error| DeviceError::io("cannot look at the volume file", error))?.len();
        if found < self.length() {
            self.windows.fault().set();
        }
        self.check_fault()
    }

    fn check_fault(&self) -> Result<(), DeviceError> {
        if self.protections.fault_flag() && self.windows.fault().is_set() {
            return Err(DeviceError::new(
                DeviceErrorKind::Io,
                "the volume file was cut short or its disk fails; detach the volume and verify it",
            ));
        }
        Ok(())
    }

    fn fallocate(&self, flags: FallocateFlags, range: ByteRange) -> Result<(), Errno> {
        let offset = i64::try_from(range.start).map_err(|_| Errno::EFBIG)?;
        let length = i64::try_from(range.len()).map_err(|_| Errno::EFBIG)?;
        loop {
            match fallocate(&self.file, flags | FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// Refuses room for `range` where it would come out of the headroom. A range that is written already needs none.
    fn check_headroom(&self, range: ByteRange) -> Result<(), DeviceError> {
        let disk = fstatvfs(&self.file).map_err(|errno| DeviceError::io("cannot look at the disk", errno.into()))?;
        let kept = HEADROOM_BYTES.min(disk.blocks() * disk.fragment_size() / 64);
        // A file system that does not count its blocks says so with 0 of them, and keeps nothing.
        let enough = disk.blocks() == 0 || disk.blocks_available() * disk.fragment_size() >= kept + range.len();
        if enough || !self.protections.headroom() || self.is_written(range)? {
            return Ok(());
        }
        Err(no_room(range, Errno::ENOSPC))
    }

    /// Whether no byte of `range` is in a hole.
    fn is_written(&self, range: ByteRange) -> Result<bool, DeviceError> {
        let mut at = range.start;
        while at < range.end {
            for run in self.extents(ByteRange { start: at, end: range.end })? {
                if run.hole {
                    return Ok(false);
                }
                at += run.length;
            }
        }
        Ok(true)
    }

    fn view_mapped(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
        self.windows.view(&self.file, range, visit).map_err(|error| {
            let context = format!("cannot read {} bytes at offset {} of the volume file", range.len(), range.start);
            match self.check_length() {
                Ok(()) => DeviceError::io(context, error),
                Err(cut_short) => DeviceError::new(DeviceErrorKind::Io, context).with_source(cut_short),
            }
        })
    }

    fn write_zeros(&self, range: ByteRange) -> Result<(), DeviceError> {
        let mut at = range.start;
        while at < range.end {
            let piece = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..piece], at).map_err(|error| {
                DeviceError::io(format!("cannot write {piece} zero bytes at offset {at} of the volume file"), error)
            })?;
            at += piece as u64;
        }
        Ok(())
    }

    /// Calls `change` with each region of `range`: the GiB it is in and its number there.
    fn each_region(range: ByteRange, mut change: impl FnMut(u64, usize)) {
        for region in range.start / REGION_BYTES..range.end.div_ceil(REGION_BYTES) {
            let number = usize::try_from(region % REGIONS_PER_GIB as u64).expect("a number below 16384 is a usize");
            change(region * REGION_BYTES / GIB, number);
        }
    }

    fn forget_room(&self, range: ByteRange) {
        let mut roomy = self.roomy.lock().unwrap_or_else(PoisonError::into_inner);
        roomy.forgotten += 1;
        roomy.regions.retain(|gib, bits| {
            let (start, end) = (gib * GIB, (gib + 1) * GIB);
            if range.start <= start && end <= range.end {
                return false;
            }
            let inside = ByteRange { start: range.start.clamp(start, end), end: range.end.clamp(start, end) };
            Self::each_region(inside, |_, number| bits[number / 64] &= !(1 << (number % 64)));
            true
        });
    }

    fn has_room(&self, range: ByteRange) -> bool {
        let roomy = self.roomy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = true;
        Self::each_region(range, |gib, number| {
            all &= roomy.regions.get(&gib).is_some_and(|bits| bits[number / 64] & 1 << (number % 64) != 0);
        });
        all
    }

    fn times_forgotten(&self) -> u64 {
        self.roomy.lock().unwrap_or_else(PoisonError::into_inner).forgotten
    }

    /// Remembers room that was made after room had been forgotten `forgotten` times, unless some was forgotten since.
    fn remember_room(&self, range: ByteRange, forgotten: u64) {
        let mut roomy = self.roomy.lock().unwrap_or_else(PoisonError::into_inner);
        if roomy.forgotten != forgotten {
            return;
        }
        Self::each_region(range, |gib, number| {
            roomy.regions.entry(gib).or_insert_with(|| vec![0; REGIONS_PER_GIB / 64])[number / 64] |=
                1 << (number % 64);
        });
    }
}

impl Storage for MappedFile {
    fn length(&self) -> u64 {
        self.length.load(Ordering::SeqCst)
    }

    fn view(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
        range_within(range.start, range.len(), self.length())?;
        self.check_fault()?;
        if !self.loads_fill_holes {
            return self.view_mapped(range, visit);
        }
        let mut at = range.start;
        while at < range.end {
            for run in self.extents(ByteRange { start: at, end: range.end })? {
                let run_range = ByteRange { start: at, end: at + run.length };
                if run.hole {
                    show_zeros(run_range, visit);
                } else {
                    self.view_mapped(run_range, visit)?;
                }
                at = run_range.end;
            }
        }
        Ok(())
    }

    fn reserve(&self, range: ByteRange) -> Result<(), DeviceError> {
        range_within(range.start, range.len(), self.length())?;
        if range.is_empty() || self.no_fallocate.load(Ordering::Relaxed) || self.has_room(range) {
            return Ok(());
        }
        self.check_length()?;
        self.check_headroom(range)?;
        let mut regions = range.covering_pieces(REGION_BYTES);
        regions.end = regions.end.min(self.length());
        let forgotten = self.times_forgotten();
        match self.fallocate(FallocateFlags::empty(), regions) {
            Ok(()) => {
                self.remember_room(regions, forgotten);
                return Ok(());
            }
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                self.no_fallocate.store(true, Ordering::Relaxed);
                return Ok(());
            }
            // The last free blocks may suffice for the range itself.
            Err(Errno::ENOSPC | Errno::EDQUOT) => {}
            Err(errno) => return Err(no_room(range, errno)),
        }
        self.fallocate(FallocateFlags::empty(), range).map_err(|errno| no_room(range, errno))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        let range = range_within(offset, data.len() as u64, self.length())?;
        self.check_length()?;
        self.reserve(range)?;
        self.file.write_all_at(data, offset).map_err(|error| {
            DeviceError::io(format!("cannot write {} bytes at offset {offset} of the volume file", data.len()), error)
        })
    }

    fn zero(&self, range: ByteRange, mode: ZeroMode) -> Result<(), DeviceError> {
        range_within(range.start, range.len(), self.length())?;
        if range.is_empty() {
            return Ok(());
        }
        self.check_length()?;
        if mode == ZeroMode::KeepAllocated && !self.has_room(range) {
            self.check_headroom(range)?;
        }
        let flags = match mode {
            ZeroMode::MayPunch => FallocateFlags::FALLOC_FL_PUNCH_HOLE,
            ZeroMode::KeepAllocated => FallocateFlags::FALLOC_FL_ZERO_RANGE,
        };
        match self.fallocate(flags, range) {
            Ok(()) if mode == ZeroMode::MayPunch => {
                self.forget_room(range);
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                self.reserve(range)?;
                self.write_zeros(range)
            }
            Err(errno) => Err(DeviceError::io(
                format!("cannot zero {} bytes at offset {} of the volume file", range.len(), range.start),
                errno.into(),
            )),
        }
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>, DeviceError> {
        range_within(range.start, range.len(), self.length())?;
        self.check_length()?;
        let seek = |at: u64, whence| -> Result<Option<u64>, DeviceError> {
            let offset = i64::try_from(at).map_err(io::Error::other).map_err(|error| DeviceError::io("seek", error))?;
            match lseek(&self.file, offset, whence) {
                Ok(found) => Ok(u64::try_from(found).ok()),
                // Nothing but a hole up to the end.
                Err(Errno::ENXIO) => Ok(None),
                Err(errno) => {
                    Err(DeviceError::io(format!("cannot find holes at offset {at} of the volume file"), errno.into()))
                }
            }
        };
        let mut runs = Vec::new();
        let mut at = range.start;
        while at < range.end && runs.len() < MAX_EXTENTS {
            let data = seek(at, Whence::SeekData)?.unwrap_or(range.end).clamp(at, range.end);
            if data > at {
                runs.push(Extent { length: data - at, hole: true, zero: true });
            }
            if data < range.end {
                let hole = seek(data, Whence::SeekHole)?.unwrap_or(range.end).clamp(data, range.end);
                if hole == data {
                    // Punched between the two questions: asked again.
                    at = data;
                    continue;
                }
                runs.push(Extent { length: hole - data, hole: false, zero: false });
                at = hole;
            } else {
                at = data;
            }
        }
        Ok(runs)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.check_length()?;
        // Whatever the disk's reason, a full one below the file system included: bytes that a client was told are
        // written may be lost. That is more than a write which did not fit.
        self.file.sync_data().map_err(|error| {
            DeviceError::new(DeviceErrorKind::Io, "cannot make the volume file durable").with_source(error)
        })
    }

    fn grow(&self, length: u64) -> Result<(), DeviceError> {
        self.check_length()?;
        if length <= self.length() {
            return Ok(());
        }
        set_length(&self.file, length)?;
        self.length.store(length, Ordering::SeqCst);
        Ok(())
    }
}

fn show_zeros(range: ByteRange, visit: &mut dyn FnMut(&[u8])) {
    let mut left = range.len();
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
        visit(&ZEROS[..piece]);
        left -= piece as u64;
    }
}

fn no_room(range: ByteRange, errno: Errno) -> DeviceError {
    DeviceError::io(
        format!("no room for {} bytes at offset {} of the volume file", range.len(), range.start),
        errno.into(),
    )
}

/// Sets a file's length, and says so if the file system cannot hold such a file.
pub(crate) fn set_length(file: &File, length: u64) -> Result<(), DeviceError> {
    file.set_len(length).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput => DeviceError::new(
            DeviceErrorKind::NoSpace,
            format!(
                "the file system below the home cannot hold a file of {length} bytes \
                 (ext4 with 4 KiB blocks ends a file just below 16 TiB; xfs and btrfs hold 64 TiB)"
            ),
        )
        .with_source(error),
        _ => DeviceError::io(format!("cannot set the volume file's length to {length} bytes"), error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room is made, another request punches a hole into it, and only then is the room remembered.
    #[test]
    fn room_that_was_given_up_meanwhile_is_not_remembered() {
        for (late, believed) in [(false, false), (true, true)] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(4 * REGION_BYTES).unwrap();
            let storage = MappedFile::new(file, FileOptions::default()).unwrap();
            let region = ByteRange { start: 0, end: REGION_BYTES };
            let before = storage.times_forgotten();
            storage.fallocate(FallocateFlags::empty(), region).unwrap();
            storage.zero(ByteRange { start: 4096, end: 8192 }, ZeroMode::MayPunch).unwrap();
            // The twin looks at the count too late, and believes in room that is gone.
            let forgotten = if late { storage.times_forgotten() } else { before };
            storage.remember_room(region, forgotten);
            assert_eq!(storage.has_room(region), believed);
            assert!(!storage.is_written(region).unwrap());
        }
    }

    #[test]
    fn room_that_was_made_is_remembered_until_some_of_it_is_given_up() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * REGION_BYTES).unwrap();
        let storage = MappedFile::new(file, FileOptions::default()).unwrap();
        let (first, second) =
            (ByteRange { start: 0, end: 10 }, ByteRange { start: REGION_BYTES, end: REGION_BYTES + 1 });
        storage.reserve(ByteRange { start: 0, end: second.end }).unwrap();
        assert!(storage.has_room(first) && storage.has_room(second));
        storage.zero(ByteRange { start: 0, end: 4096 }, ZeroMode::MayPunch).unwrap();
        assert!(!storage.has_room(first) && storage.has_room(second));
    }
}
