//! The power goes right after a volume was made or written: what a real file system then has of it.

use super::{TestHome, pattern};
use crate::device::protections::Protections;
use crate::device::volume::{Expected, Format};
use crate::device::{BlockDevice as _, DeviceErrorKind};
use crate::ids::VolumeId;
use crate::power_cut::{Disk, comes_to};
use crate::twin::{Protection, without};
use crate::units::SectorSize;

const ENCRYPTED: Format = Format::Encrypted(SectorSize::B4096);
const LENGTH: u64 = 8 << 20;

/// Opens the volume on a disk whose power went right after it was made; what went wrong, if something did.
fn after_a_cut() -> Option<DeviceErrorKind> {
    let disk = Disk::ext4(64);
    let home = TestHome::below(&disk.path());
    disk.settle();
    let id = VolumeId::random();
    home.make(&id, LENGTH, ENCRYPTED).unwrap();
    let below = home.dir.path().strip_prefix(disk.path()).unwrap().to_owned();
    let after = disk.after_a_cut();
    let home = TestHome::at(&after.path().join(below));
    let expected = Expected { length: LENGTH, format: ENCRYPTED };
    home.open(&id, expected, Protections::ON).err().map(|error| error.kind())
}

#[test]
fn a_volume_that_was_made_survives_a_power_cut() {
    assert_eq!(after_a_cut(), None);
    // The twins have no header, and no name.
    comes_to(&Some(DeviceErrorKind::Damaged), || without(Protection::FileSync, after_a_cut));
    comes_to(&Some(DeviceErrorKind::NotFound), || without(Protection::NameSync, after_a_cut));
}

/// What a flush acknowledged is there after a power cut; what none did need not be. In a real file on a real file system,
/// into holes and over what was written before.
#[test]
fn what_was_flushed_to_a_disk_survives_a_power_cut() {
    for format in [ENCRYPTED, Format::Encrypted(SectorSize::B512), Format::Plain] {
        let survive = |flush: bool| {
            let disk = Disk::ext4(64);
            let home = TestHome::below(&disk.path());
            let id = VolumeId::random();
            let expected = home.make(&id, LENGTH, format).unwrap();
            let volume = home.open(&id, expected, Protections::ON).unwrap();
            volume.write_at(0, &pattern(1, 64 << 10)).unwrap();
            volume.flush().unwrap();
            disk.settle();
            let writes = [(4096 + 512, pattern(2, 5000)), (4 << 20, pattern(3, 1 << 20))];
            for (at, data) in &writes {
                volume.write_at(*at, data).unwrap();
            }
            if flush {
                volume.flush().unwrap();
            }
            let below = home.dir.path().strip_prefix(disk.path()).unwrap().to_owned();
            let after = disk.after_a_cut();
            let home = TestHome::at(&after.path().join(below));
            let volume = home.open(&id, expected, Protections::ON).unwrap();
            writes.map(|(at, data)| {
                let mut found = vec![0; data.len()];
                volume.read_at(at, &mut found).unwrap();
                found == data
            })
        };
        assert_eq!(survive(true), [true, true], "{format:?}");
        comes_to(&[false, false], || survive(false));
    }
}
