//! Real file systems on loop devices: full, too small for a file's length, and on a disk that fails.
//!
//! Needs root, loop devices, and the packages e2fsprogs, xfsprogs, mount and coreutils. A missing tool fails the test.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};

use super::{SECTOR_SIZES, TestHome, pattern};
use crate::device::protections::Protections;
use crate::device::volume::{self, Format};
use crate::device::{BlockDevice as _, DeviceErrorKind, ZeroMode};
use crate::ids::VolumeId;
use crate::units::{GIB, SectorSize, is_all_zero};

const ENCRYPTED: Format = Format::Encrypted(SectorSize::B4096);
const MIB: usize = 1 << 20;

fn run(program: &str, arguments: &[&OsStr]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; this test needs it installed"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Something mounted, until it is dropped.
struct Mount {
    at: PathBuf,
    #[expect(dead_code, reason = "removes image and mount point when dropped, after the unmounting")]
    base: Option<tempfile::TempDir>,
}

impl Mount {
    /// A file system that `mkfs` makes in a file of `mib` MiB in `place`.
    fn image(place: &Path, mib: u64, mkfs: &[&str]) -> Self {
        let base = tempfile::tempdir_in(place).unwrap();
        let (image, at) = (base.path().join("image"), base.path().join("mounted"));
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let arguments: Vec<_> = mkfs[1..].iter().map(OsStr::new).chain([image.as_os_str()]).collect();
        run(mkfs[0], &arguments);
        fs::create_dir(&at).unwrap();
        run("mount", &[OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), at.as_os_str()]);
        Self { at, base: Some(base) }
    }

    fn ext4(mib: u64) -> Self {
        Self::image(&std::env::temp_dir(), mib, &["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096"])
    }

    /// mkfs.xfs makes none below 300 MiB.
    fn xfs() -> Self {
        Self::image(&std::env::temp_dir(), 300, &["mkfs.xfs", "-q", "-f"])
    }

    /// A memory file system that ends at `mib` MiB.
    fn tmpfs(mib: u64) -> Self {
        let base = tempfile::tempdir().unwrap();
        let (at, size) = (base.path().join("mounted"), format!("size={mib}m"));
        fs::create_dir(&at).unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs"]
                .map(OsStr::new)
                .into_iter()
                .chain([at.as_os_str()])
                .collect::<Vec<_>>(),
        );
        Self { at, base: Some(base) }
    }

    /// One file in the place of another.
    fn bind(file: &Path, at: PathBuf) -> Self {
        run("mount", &[OsStr::new("--bind"), file.as_os_str(), at.as_os_str()]);
        Self { at, base: None }
    }

    /// Takes up space until about `mib` MiB are left.
    fn leave(&self, mib: i64) {
        let free = nix::sys::statvfs::statvfs(&self.at).unwrap();
        let free = i64::try_from(free.blocks_available() * free.fragment_size()).unwrap();
        let ballast = fs::File::create(self.at.join("ballast")).unwrap();
        // The file system needs a little of it for itself, and does not say how much.
        let taken = (0..100)
            .map(|step| free - (mib << 20) - (step << 16))
            .find(|length| fallocate(&ballast, FallocateFlags::empty(), 0, *length).is_ok());
        assert!(taken.is_some(), "{free} bytes are free");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &[OsStr::new("--lazy"), self.at.as_os_str()]);
    }
}

#[test]
fn a_full_disk_is_an_error_that_loses_nothing_and_passes() {
    for disk in [Mount::ext4(64), Mount::xfs()] {
        disk.leave(12);
        let data = pattern(7, MIB);
        for format in [Format::Encrypted(SectorSize::B512), ENCRYPTED, Format::Plain] {
            let home = TestHome::below(&disk.at);
            let id = VolumeId::random();
            let expected = home.make(&id, GIB, format).unwrap();
            let volume = home.open(&id, expected, Protections::ON).unwrap();
            let mut written = 0;
            let error = loop {
                match volume.write_at((written * MIB) as u64, &data) {
                    Ok(()) => written += 1,
                    Err(error) => break error,
                }
                assert!(written < 20, "the disk has room for 12");
            };
            assert_eq!(error.kind(), DeviceErrorKind::NoSpace, "{error}");
            assert!(written > 4, "{written}");
            volume.flush().unwrap();
            let check = |volume: &dyn crate::device::BlockDevice| {
                let mut found = vec![0; MIB];
                for piece in 0..written {
                    volume.read_at((piece * MIB) as u64, &mut found).unwrap();
                    assert!(found == data, "piece {piece} of {written}");
                }
            };
            check(&volume);
            drop(volume);
            let volume = home.open(&id, expected, Protections::ON).unwrap();
            check(&volume);
            // Space that is given back can be written elsewhere.
            volume.trim(0, (3 * MIB) as u64).unwrap();
            volume.flush().unwrap();
            volume.write_at((100 * MIB) as u64, &pattern(8, MIB)).unwrap();
            volume.flush().unwrap();
        }
    }
}

/// A volume that fills its disk leaves room for the home's state, whose every operation writes. The twin takes the last block.
#[test]
fn a_volume_leaves_the_last_of_the_disk_to_others() {
    let left = |protections: Protections| {
        let disk = Mount::ext4(64);
        let home = TestHome::below(&disk.at);
        let id = VolumeId::random();
        let expected = home.make(&id, GIB, Format::Plain).unwrap();
        let volume = home.open(&id, expected, protections).unwrap();
        for length in [MIB, 4096] {
            let data = pattern(7, length);
            let mut at = 512 * (MIB - length) as u64;
            let error = loop {
                match volume.write_at(at, &data) {
                    Ok(()) => at += length as u64,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), DeviceErrorKind::NoSpace, "{error}");
        }
        volume.flush().unwrap();
        let disk = nix::sys::statvfs::statvfs(&disk.at).unwrap();
        disk.blocks_available() * disk.fragment_size()
    };
    let (kept, twin) = (left(Protections::ON), left(Protections { headroom: false, ..Protections::ON }));
    assert!(kept >= 512 << 10, "{kept} bytes are left");
    assert!(twin < 64 << 10, "{twin} bytes are left without it");
}

/// `KeepAllocated` keeps room: a write into such a range succeeds on a full disk. The twin punches, and does not.
#[test]
fn a_range_that_stays_allocated_can_be_written_on_a_full_disk() {
    for disk in [Mount::ext4(64), Mount::xfs()] {
        let rewritten = |mode: ZeroMode| {
            let home = TestHome::below(&disk.at);
            let id = VolumeId::random();
            let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
            let volume = home.open(&id, expected, Protections::ON).unwrap();
            volume.write_at(0, &pattern(1, 4 * MIB)).unwrap();
            volume.flush().unwrap();
            volume.write_zeroes(0, 4 * MIB as u64, mode).unwrap();
            volume.flush().unwrap();
            let mut found = vec![1; 4 * MIB];
            volume.read_at(0, &mut found).unwrap();
            assert!(is_all_zero(&found));
            disk.leave(0);
            let outcome = volume.write_at(0, &pattern(2, 3 * MIB)).map_err(|error| error.kind());
            fs::remove_file(disk.at.join("ballast")).unwrap();
            outcome
        };
        assert_eq!(rewritten(ZeroMode::KeepAllocated), Ok(()));
        assert_eq!(rewritten(ZeroMode::MayPunch), Err(DeviceErrorKind::NoSpace));
    }
}

/// Trimmed space is the file system's again, and holes are told to whoever asks.
#[test]
fn trimmed_ranges_are_holes_of_the_file() {
    for disk in [Mount::ext4(64), Mount::xfs()] {
        for size in SECTOR_SIZES {
            let home = TestHome::below(&disk.at);
            let id = VolumeId::random();
            let expected = home.make(&id, GIB, Format::Encrypted(size)).unwrap();
            let volume = home.open(&id, expected, Protections::ON).unwrap();
            volume.write_at(8 * MIB as u64, &pattern(1, 8 * MIB)).unwrap();
            volume.flush().unwrap();
            let allocated = || volume::inspect(&home.dir, &id).unwrap().allocated_bytes;
            let before = allocated();
            volume.trim(9 * MIB as u64 + 100, 4 * MIB as u64).unwrap();
            volume.flush().unwrap();
            assert!(allocated() + 3 * MIB as u64 <= before);
            let runs = volume.extents(0, GIB).unwrap();
            assert!(runs.len() >= 5, "hole, data, hole, data, hole: {runs:?}");
            assert!(runs[0].hole && runs[0].zero && runs[0].length >= 7 * MIB as u64, "{runs:?}");
            assert_eq!(runs.iter().map(|run| run.length).sum::<u64>(), GIB);
        }
    }
}

/// A memory file system punches holes and knows no zero ranges: zeros are written instead.
#[test]
fn zeros_are_written_where_the_file_system_has_no_zero_range() {
    let memory = Mount::tmpfs(24);
    let home = TestHome::below(&memory.at);
    let id = VolumeId::random();
    let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
    let volume = home.open(&id, expected, Protections::ON).unwrap();
    let allocated = || volume::inspect(&home.dir, &id).unwrap().allocated_bytes;
    for (mode, kept) in [(ZeroMode::KeepAllocated, true), (ZeroMode::MayPunch, false)] {
        volume.write_at(0, &pattern(1, 2 * MIB)).unwrap();
        let before = allocated();
        volume.write_zeroes(100, MIB as u64, mode).unwrap();
        assert_eq!(allocated() >= before, kept, "{mode:?}");
        let mut found = vec![1; MIB];
        volume.read_at(100, &mut found).unwrap();
        assert!(is_all_zero(&found));
    }
}

/// Reading what was never written takes no space, also where a load through the mapping would.
#[test]
fn reading_holes_takes_no_space() {
    for disk in [Mount::tmpfs(24), Mount::ext4(64)] {
        let home = TestHome::below(&disk.at);
        let id = VolumeId::random();
        let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
        let volume = home.open(&id, expected, Protections::ON).unwrap();
        volume.write_at(40 * MIB as u64 + 512, &pattern(1, 4096)).unwrap();
        volume.flush().unwrap();
        let allocated = || volume::inspect(&home.dir, &id).unwrap().allocated_bytes;
        let before = allocated();
        let mut found = vec![1; 100 * MIB];
        volume.read_at(0, &mut found).unwrap();
        assert!(found[40 * MIB + 512..40 * MIB + 512 + 4096] == pattern(1, 4096));
        assert!(is_all_zero(&found[..40 * MIB]) && is_all_zero(&found[41 * MIB..]));
        assert_eq!(allocated(), before);
    }
}

#[test]
fn a_length_that_the_file_system_cannot_hold_is_refused_with_the_reason() {
    let (ext4, xfs) = (Mount::ext4(64), Mount::xfs());
    let home = TestHome::below(&ext4.at);
    let error = home.make(&VolumeId::random(), volume::MAX_BYTES, ENCRYPTED).unwrap_err();
    assert_eq!(error.kind(), DeviceErrorKind::NoSpace);
    assert!(error.to_string().contains("ends a file just below 16 TiB"), "{error}");
    assert_eq!(fs::read_dir(home.dir.path_of("volumes")).unwrap().count(), 0, "nothing half-made is left");
    let eight = VolumeId::random();
    let expected = home.make(&eight, 8 << 40, ENCRYPTED).unwrap();
    let error = volume::grow(&home.dir, &eight, expected, 16 << 40).unwrap_err();
    assert_eq!(error.kind(), DeviceErrorKind::NoSpace);
    drop(home.open(&eight, expected, Protections::ON).unwrap());

    let home = TestHome::below(&xfs.at);
    let id = VolumeId::random();
    let expected = home.make(&id, volume::MAX_BYTES, ENCRYPTED).unwrap();
    let volume = home.open(&id, expected, Protections::ON).unwrap();
    volume.write_at(volume::MAX_BYTES - 4096, &pattern(1, 4096)).unwrap();
    volume.flush().unwrap();
    let mut found = vec![0; 4096];
    volume.read_at(volume::MAX_BYTES - 4096, &mut found).unwrap();
    assert_eq!(found, pattern(1, 4096));
    let inspection = volume::inspect(&home.dir, &id).unwrap();
    assert!(inspection.allocated_bytes < 1 << 20, "{}", inspection.allocated_bytes);
}

/// A disk that really fails: a loop device on a memory file system that is full. The volume's file lies there, bound
/// into a healthy home.
#[test]
fn a_failed_flush_latches_and_the_next_opener_sees_what_the_disk_has() {
    let memory = Mount::tmpfs(24);
    let disk = Mount::image(&memory.at, 96, &["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "nodiscard"]);
    let home = TestHome::new();
    let id = VolumeId::random();
    let expected = home.make(&id, 64 << 20, ENCRYPTED).unwrap();
    let path = home.dir.path_of(&volume::relative_path(&id, ENCRYPTED));
    let failing = disk.at.join("volume");
    run("cp", &[OsStr::new("--sparse=always"), path.as_os_str(), failing.as_os_str()]);
    run("sync", &[OsStr::new("-f"), failing.as_os_str()]);
    let _bound = Mount::bind(&failing, path);

    let volume = home.open(&id, expected, Protections::ON).unwrap();
    volume.write_at(0, &pattern(1, 4 * MIB)).unwrap();
    volume.flush().unwrap();
    let lost = pattern(2, 48 * MIB);
    volume.write_at(8 * MIB as u64, &lost).unwrap();
    let error = volume.flush().unwrap_err();
    assert_eq!(error.kind(), DeviceErrorKind::Io, "{error}");
    assert!(volume::inspect(&home.dir, &id).unwrap().latched, "recorded before the error is told");
    assert_eq!(volume.flush().unwrap_err().kind(), DeviceErrorKind::Latched);
    assert_eq!(volume.read_at(0, &mut [0; 512]).unwrap_err().kind(), DeviceErrorKind::Latched);
    assert!(volume.storage().is_latched());
    drop(volume);

    let shown = |protections: Protections| {
        let volume = home.open(&id, expected, protections).unwrap();
        assert!(volume.was_latched());
        // Nothing but the header was read yet.
        let cached = cached_bytes(&failing);
        let (few, all) = (2 * MIB, lost.len());
        assert!(if protections.drop_cache() { cached < few } else { cached >= all }, "{cached} bytes in the cache");
        let mut kept = vec![0; 4 * MIB];
        volume.read_at(0, &mut kept).unwrap();
        assert!(kept == pattern(1, 4 * MIB), "what a good flush covered is there");
        let mut found = vec![0; lost.len()];
        volume.read_at(8 * MIB as u64, &mut found).unwrap();
        found
    };
    let twin = shown(Protections { drop_cache: false, ..Protections::ON });
    assert!(twin == lost, "the page cache still shows all that the disk does not have");
    fs::write(home.dir.path_of(&format!("volumes/{id}.luks.latch")), "").unwrap();
    let honest = shown(Protections::ON);
    assert!(honest != lost, "what the disk has is served");
    assert!(!volume::inspect(&home.dir, &id).unwrap().latched);
}

/// What the page cache holds of a file, as mincore(2) has it: the judge is util-linux's fincore.
fn cached_bytes(file: &Path) -> usize {
    let output = Command::new("fincore").args(["--bytes", "--noheadings", "--output", "RES"]).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("fincore: {error}; this test needs util-linux"));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// There is room for no block and no name when the flush fails.
#[test]
fn a_latch_needs_no_room_on_the_disk() {
    let latched_on_a_full_disk = |protections: Protections| {
        let disk = Mount::ext4(16);
        let home = TestHome::below(&disk.at);
        let id = VolumeId::random();
        let expected = home.make(&id, 64 << 20, ENCRYPTED).unwrap();
        let volume = home.open(&id, expected, protections).unwrap();
        volume.write_at(0, &pattern(1, 4096)).unwrap();
        volume.flush().unwrap();
        // A file cut short fails the next flush as a disk would.
        let file = home.dir.path_of(&volume::relative_path(&id, ENCRYPTED));
        fs::File::options().write(true).open(file).unwrap().set_len(1 << 20).unwrap();
        // The last blocks go, then the last inodes or the last room for a name.
        let volumes = home.dir.path_of("volumes");
        for (length, folder) in [(256 * 1024, &disk.at), (4096, &disk.at), (0, &volumes)] {
            let name = |number: u32| folder.join(format!("{length}-{number}"));
            let full = (0..100_000).find(|number| fs::write(name(*number), vec![1; length]).is_err());
            assert!(full.is_some_and(|number| number > 0));
        }
        let error = volume.flush().unwrap_err().to_string();
        let latched = volume::inspect(&home.dir, &id).unwrap().latched;
        assert_eq!(error.contains("could not be recorded"), !latched, "{error}");
        latched
    };
    assert!(latched_on_a_full_disk(Protections::ON));
    assert!(
        !latched_on_a_full_disk(Protections { latch_ahead: false, ..Protections::ON }),
        "made too late, it is lost"
    );
}
