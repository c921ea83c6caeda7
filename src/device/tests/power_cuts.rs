//! The power goes right after a volume was made: what the disk then has of it.

use super::TestHome;
use crate::device::DeviceErrorKind;
use crate::device::protections::Protections;
use crate::device::volume::{Expected, Format};
use crate::ids::VolumeId;
use crate::power_cut::Disk;
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
    assert_eq!(without(Protection::FileSync, after_a_cut), Some(DeviceErrorKind::Damaged), "no header");
    assert_eq!(without(Protection::NameSync, after_a_cut), Some(DeviceErrorKind::NotFound), "no name");
}
