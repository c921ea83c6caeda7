//! Volume files: made whole or not at all, opened by one process at a time, with the right key only.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use super::backends::{Flush, PowerCut};
use super::{SECTOR_SIZES, TestHome, key, new_encryption, pattern};
use crate::device::protections::Protections;
use crate::device::storage::Latch as _;
use crate::device::volume::{self, Expected, Format, OpenOptions, Volume, header_io};
use crate::device::{BlockDevice as _, DeviceErrorKind};
use crate::ids::VolumeId;
use crate::luks2::{COPY_BYTES, Copies, CopyState, DATA_OFFSET, Damage, HEADER_BYTES, Header};
use crate::secret::SecretBytes;
use crate::units::{GIB, SectorSize, is_all_zero};

const ENCRYPTED: Format = Format::Encrypted(SectorSize::B4096);

#[test]
fn what_was_written_is_there_after_opening_again_in_either_format() {
    for format in [Format::Encrypted(SectorSize::B512), ENCRYPTED, Format::Plain] {
        let home = TestHome::new();
        let id = VolumeId::random();
        let expected = home.make(&id, GIB, format).unwrap();
        let data = pattern(1, 100_000);
        let volume = home.open(&id, expected, Protections::ON).unwrap();
        assert_eq!((volume.size(), volume.format(), volume.was_latched()), (GIB, format, false));
        volume.write_at(GIB - 100_000, &data).unwrap();
        volume.flush().unwrap();
        drop(volume);
        let volume = home.open(&id, expected, Protections::ON).unwrap();
        let mut found = vec![0; 100_000];
        volume.read_at(GIB - 100_000, &mut found).unwrap();
        assert!(found == data);
        volume.read_at(0, &mut found).unwrap();
        assert!(is_all_zero(&found));
        let plain_on_disk = {
            let path = home.dir.path_of(&volume::relative_path(&id, format));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let mut stored = vec![0; 100_000];
            let file = fs::File::open(path).unwrap();
            file.read_exact_at(&mut stored, file.metadata().unwrap().len() - 100_000).unwrap();
            stored == data
        };
        assert_eq!(plain_on_disk, format == Format::Plain);
    }
}

#[test]
fn a_volume_is_made_once_and_leaves_nothing_else() {
    let home = TestHome::new();
    let id = VolumeId::random();
    home.make(&id, GIB, ENCRYPTED).unwrap();
    assert_eq!(home.make(&id, GIB, ENCRYPTED).unwrap_err().kind(), DeviceErrorKind::Exists);
    for length in [0, 512, 4095, volume::MAX_BYTES + 4096] {
        let error = home.make(&VolumeId::random(), length, ENCRYPTED).unwrap_err();
        assert_eq!(error.kind(), DeviceErrorKind::Invalid, "{length}");
    }
    let names: Vec<_> = fs::read_dir(home.dir.path_of("volumes")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [format!("{id}.luks").as_str()]);
    let inspection = volume::inspect(&home.dir, &id).unwrap();
    assert_eq!(inspection.file_bytes, GIB + DATA_OFFSET);
    assert!(inspection.allocated_bytes < 1 << 20, "sparse: {} bytes", inspection.allocated_bytes);
}

/// What a kill in the middle leaves has another name. It goes when nobody works on it.
#[test]
fn unfinished_files_are_swept_when_they_are_nobodys() {
    let home = TestHome::new();
    let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    let make = |name: &str| {
        let file = home.dir.create_new(&format!("volumes/{name}")).unwrap();
        file.set_times(old).unwrap();
        file
    };
    let (left, held, whole) = (make("vol-1.luks.new"), make("vol-2.luks.new"), make("vol-3.luks"));
    drop(left);
    let owner = volume::locks::own(&held, &VolumeId::random()).unwrap();
    home.dir.create_new("volumes/vol-4.luks.new").unwrap();
    volume::sweep(&home.dir).unwrap();
    let exists = |name: &str| home.dir.exists(&format!("volumes/{name}"));
    assert!(!exists("vol-1.luks.new"));
    assert!(exists("vol-2.luks.new"), "somebody works on it");
    assert!(exists("vol-3.luks"), "not unfinished");
    assert!(exists("vol-4.luks.new"), "so young that somebody may be about to lock it");
    drop((owner, whole));
}

#[test]
fn only_one_opener_at_a_time() {
    let home = TestHome::new();
    let id = VolumeId::random();
    let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
    assert!(!volume::is_attached(&home.dir, &id).unwrap());
    let first = home.open(&id, expected, Protections::ON).unwrap();
    assert!(volume::is_attached(&home.dir, &id).unwrap());
    let second = home.open(&id, expected, Protections::ON).unwrap_err();
    assert_eq!(second.kind(), DeviceErrorKind::Locked, "{second}");
    assert_eq!(volume::grow(&home.dir, &id, expected, 2 * GIB).unwrap_err().kind(), DeviceErrorKind::Locked);
    assert_eq!(volume::delete(&home.dir, &id).unwrap_err().kind(), DeviceErrorKind::Locked);

    let twin = home.open(&id, expected, Protections { owner_lock: false, ..Protections::ON });
    assert!(twin.is_ok(), "without the lock two devices stand on one file");
    drop((first, twin));
    assert!(!volume::is_attached(&home.dir, &id).unwrap());
    volume::delete(&home.dir, &id).unwrap();
    assert_eq!(volume::delete(&home.dir, &id).unwrap_err().kind(), DeviceErrorKind::NotFound);
    assert_eq!(home.open(&id, expected, Protections::ON).unwrap_err().kind(), DeviceErrorKind::NotFound);
}

#[test]
fn those_who_only_read_share_a_volume_and_keep_writers_out() {
    let home = TestHome::new();
    let id = VolumeId::random();
    let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
    home.open(&id, expected, Protections::ON).unwrap().write_at(0, &pattern(1, 4096)).unwrap();
    let read = |shared, protections| {
        let options = OpenOptions { read_only: true, shared, protections, ..OpenOptions::default() };
        volume::open(&home.dir, &id, expected, Some(&key(1)), options)
    };
    let holds = |volume: &Volume| {
        let mut found = vec![0; 4096];
        volume.read_at(0, &mut found).unwrap();
        assert_eq!(found, pattern(1, 4096));
    };
    let locked = |opened: Result<Volume, crate::device::DeviceError>| {
        assert_eq!(opened.unwrap_err().kind(), DeviceErrorKind::Locked);
    };
    // A damaged copy is repaired by the first, who is alone then.
    let file = fs::File::options().write(true).open(home.dir.path_of(&format!("volumes/{id}.luks"))).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 512], 0).unwrap();
    let (one, other) = (read(true, Protections::ON).unwrap(), read(true, Protections::ON).unwrap());
    assert!(volume::verify(&home.dir, &id, expected, Some(&key(1))).unwrap().problems.is_empty());
    for reader in [&one, &other] {
        holds(reader);
    }
    assert!(volume::is_open(&home.dir, &id).unwrap() && !volume::is_attached(&home.dir, &id).unwrap());
    locked(home.open(&id, expected, Protections::ON));
    locked(read(false, Protections::ON));
    assert_eq!(volume::delete(&home.dir, &id).unwrap_err().kind(), DeviceErrorKind::Locked);
    drop(one);
    locked(home.open(&id, expected, Protections::ON));
    // The cache cannot be dropped under the eyes of a reader.
    let latch = volume::latch::LatchFile::new(&home.dir, &format!("volumes/{id}.luks"), true).unwrap();
    latch.set("the disk failed").unwrap();
    locked(read(true, Protections::ON));
    drop(other);
    assert!(read(true, Protections::ON).unwrap().was_latched());

    let writer = home.open(&id, expected, Protections::ON).unwrap();
    locked(read(true, Protections::ON));
    holds(&read(true, Protections { owner_lock: false, ..Protections::ON }).unwrap());
    drop(writer);
}

#[test]
fn a_wrong_key_is_refused_before_a_byte_is_served() {
    let home = TestHome::new();
    let id = VolumeId::random();
    let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
    let volume = home.open(&id, expected, Protections::ON).unwrap();
    volume.write_at(0, &pattern(1, 4096)).unwrap();
    drop(volume);
    let open = |key: Option<&SecretBytes>, protections| {
        volume::open(&home.dir, &id, expected, key, OpenOptions { protections, ..OpenOptions::default() })
    };
    for wrong in [key(2), key(1).part(0..32), SecretBytes::new_with(64, |bytes| bytes.fill(7))] {
        assert_eq!(open(Some(&wrong), Protections::ON).unwrap_err().kind(), DeviceErrorKind::WrongKey);
    }
    assert_eq!(open(None, Protections::ON).unwrap_err().kind(), DeviceErrorKind::WrongKey);

    let twin = open(Some(&key(2)), Protections { key_digest: false, ..Protections::ON }).unwrap();
    let mut found = vec![0; 4096];
    twin.read_at(0, &mut found).unwrap();
    assert_ne!(found, pattern(1, 4096), "without the digest a wrong key serves noise");
    drop(twin);
    let equal_halves = SecretBytes::new_with(64, |bytes| bytes.fill(7));
    let refused = open(Some(&equal_halves), Protections { key_digest: false, ..Protections::ON }).unwrap_err();
    assert_eq!(refused.kind(), DeviceErrorKind::WrongKey, "equal halves are refused for themselves too");
}

#[test]
fn a_key_for_an_unencrypted_volume_is_refused() {
    let home = TestHome::new();
    let id = VolumeId::random();
    let expected = home.make(&id, GIB, Format::Plain).unwrap();
    let refused = volume::open(&home.dir, &id, expected, Some(&key(1)), OpenOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), DeviceErrorKind::WrongKey);
}

#[test]
fn header_and_records_must_agree() {
    let home = TestHome::new();
    let id = VolumeId::random();
    let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
    for other in [
        Expected { length: GIB - 4096, ..expected },
        Expected { length: GIB + 4096, ..expected },
        Expected { format: Format::Encrypted(SectorSize::B512), ..expected },
    ] {
        assert_eq!(home.open(&id, other, Protections::ON).unwrap_err().kind(), DeviceErrorKind::Damaged, "{other:?}");
        assert!(!volume::verify(&home.dir, &id, other, None).unwrap().problems.is_empty(), "{other:?}");
    }
    // The twin serves other sectors than were written.
    let volume = home.open(&id, expected, Protections::ON).unwrap();
    volume.write_at(0, &pattern(3, 4096)).unwrap();
    drop(volume);
    let other = Expected { format: Format::Encrypted(SectorSize::B512), ..expected };
    let volume = home.open(&id, other, Protections { records: false, ..Protections::ON }).unwrap();
    let mut noise = vec![0; 4096];
    volume.read_at(0, &mut noise).unwrap();
    assert_ne!(noise, pattern(3, 4096));
    drop(volume);
    let plain = Expected { format: Format::Plain, ..expected };
    assert_eq!(home.open(&id, plain, Protections::ON).unwrap_err().kind(), DeviceErrorKind::NotFound);
    assert!(!volume::verify(&home.dir, &id, plain, None).unwrap().problems.is_empty());
}

#[test]
fn a_file_cut_short_before_opening_is_refused() {
    let home = TestHome::new();
    let id = VolumeId::random();
    let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
    let path = home.dir.path_of(&volume::relative_path(&id, ENCRYPTED));
    for length in [GIB + DATA_OFFSET - 1, DATA_OFFSET, 20_000, 100, 0] {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        let error = home.open(&id, expected, Protections::ON).unwrap_err();
        assert_eq!(error.kind(), DeviceErrorKind::Damaged, "{length}: {error}");
        assert!(!volume::verify(&home.dir, &id, expected, None).unwrap().problems.is_empty());
    }
}

#[test]
fn a_damaged_copy_of_the_header_is_repaired_from_the_other() {
    for damaged in [0, COPY_BYTES] {
        let home = TestHome::new();
        let id = VolumeId::random();
        let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
        let path = home.dir.path_of(&volume::relative_path(&id, ENCRYPTED));
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 600], damaged as u64 + 100).unwrap();
        let verification = volume::verify(&home.dir, &id, expected, Some(&key(1))).unwrap();
        assert_eq!(verification.key_matches, Some(true));
        assert_eq!(verification.problems.len(), 1, "{:?}", verification.problems);
        assert!(verification.problems[0].contains(if damaged == 0 { "primary" } else { "secondary" }));
        drop(home.open(&id, expected, Protections::ON).unwrap());
        let repaired = volume::verify(&home.dir, &id, expected, Some(&key(1))).unwrap();
        assert!(repaired.problems.is_empty(), "{:?}", repaired.problems);
        assert_eq!(repaired.inspection.header.unwrap().unwrap().0.seqid(), 2);

        file.write_all_at(&[0xff; 600], 100).unwrap();
        file.write_all_at(&[0xff; 600], COPY_BYTES as u64 + 100).unwrap();
        let error = home.open(&id, expected, Protections::ON).unwrap_err();
        assert_eq!(error.kind(), DeviceErrorKind::Damaged);
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("both copies"), "{error:?}");
    }
}

/// Writing the header is cut at every point, with every unflushed unit kept or lost: one whole copy, old or new, is left.
/// `flush` and `believed` (what the writer takes the copies to be) are the protections.
fn headers_after_cuts(image: &[u8], header: &Header, flush: Flush, believed: Copies) -> HashSet<Option<u64>> {
    let next = header.next(header.length() + 4096).unwrap();
    let mut seen = HashSet::new();
    for fault in 0..4 {
        let storage = PowerCut::new(image.to_vec(), flush);
        let hooked = super::backends::Hooked {
            inner: &storage,
            // Each call that fails is a moment at which the power may go.
            hooks: super::backends::Faults::new(
                DeviceErrorKind::Io,
                if fault < 2 { fault } else { u32::MAX },
                if fault < 2 { u32::MAX } else { fault - 2 },
            ),
        };
        let _ = header_io::write(&hooked, &next, believed);
        for seed in 0..200u32 {
            let mut state = seed.wrapping_mul(2_654_435_761) | 1;
            let cut = storage.cut(|| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state & 4 != 0
            });
            seen.insert(Header::parse(&cut).ok().map(|(header, _)| header.seqid()));
        }
    }
    seen
}

#[test]
fn a_header_write_cut_anywhere_leaves_the_old_header_or_the_new_one() {
    let id = VolumeId::random();
    let new = new_encryption(&id, SectorSize::B4096);
    let header = Header::new(id.as_str(), SectorSize::B4096, GIB, new.digest, new.wrapped_key).unwrap();
    let image = header.encode().unwrap().concatenated();
    assert_eq!(image.len(), HEADER_BYTES);
    let clean = Copies { primary: CopyState::Current, secondary: CopyState::Current };
    assert_eq!(headers_after_cuts(&image, &header, Flush::Honest, clean), HashSet::from([Some(1), Some(2)]));
    let twin = headers_after_cuts(&image, &header, Flush::Ignored, clean);
    assert!(twin.contains(&None), "without a flush between the copies both can be torn");

    // One copy is damaged already: the good one must not be touched before the other is whole.
    let (mut first_bad, mut second_bad) = (image.clone(), image.clone());
    first_bad[500] ^= 1;
    second_bad[COPY_BYTES + 500] ^= 1;
    for bad in [first_bad, second_bad.clone()] {
        let (_, copies) = Header::parse(&bad).unwrap();
        assert!(matches!(copies.primary, CopyState::Damaged(Damage::Padding)) || copies.primary == CopyState::Current);
        assert_eq!(headers_after_cuts(&bad, &header, Flush::Honest, copies), HashSet::from([Some(1), Some(2)]));
    }
    let twin = headers_after_cuts(&second_bad, &header, Flush::Honest, clean);
    assert!(twin.contains(&None), "writing the good copy first risks both");
}

#[test]
fn a_volume_grows_attached_or_not_and_never_shrinks() {
    for size in SECTOR_SIZES {
        let home = TestHome::new();
        let id = VolumeId::random();
        let format = Format::Encrypted(size);
        let expected = home.make(&id, GIB, format).unwrap();
        let volume = home.open(&id, expected, Protections::ON).unwrap();
        volume.write_at(GIB - 512, &pattern(1, 512)).unwrap();
        volume.grow(2 * GIB).unwrap();
        assert_eq!((volume.size(), volume.header().unwrap().length()), (2 * GIB, 2 * GIB));
        volume.write_at(2 * GIB - 700, &pattern(2, 700)).unwrap();
        assert_eq!(volume.grow(GIB).unwrap_err().kind(), DeviceErrorKind::Invalid);
        volume.flush().unwrap();
        drop(volume);
        let grown = Expected { length: 2 * GIB, format };
        volume::grow(&home.dir, &id, grown, 5 * GIB).unwrap();
        // As after a crash between the header and the caller's records: repeating it finishes it.
        volume::grow(&home.dir, &id, grown, 5 * GIB).unwrap();
        assert_eq!(volume::grow(&home.dir, &id, grown, GIB).unwrap_err().kind(), DeviceErrorKind::Invalid);
        let volume = home.open(&id, Expected { length: 5 * GIB, format }, Protections::ON).unwrap();
        let mut found = vec![0; 700];
        volume.read_at(2 * GIB - 700, &mut found).unwrap();
        assert_eq!(found, pattern(2, 700));
        volume.read_at(GIB - 512, &mut found[..512]).unwrap();
        assert_eq!(found[..512], pattern(1, 512));
        volume.read_at(5 * GIB - 700, &mut found).unwrap();
        assert!(is_all_zero(&found));
    }
}

/// A header write waits for whoever reads the header, as cryptsetup's own writes do: a reader that holds the lock, as
/// cryptsetup does around its reads of both copies, sees one header. Without it the header changes between its reads.
#[test]
fn a_header_write_waits_for_a_reader_of_the_header() {
    use nix::fcntl::{Flock, FlockArg};
    let changes_under_the_reader = |protections: Protections| {
        let home = TestHome::new();
        let id = VolumeId::random();
        let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
        let volume = home.open(&id, expected, protections).unwrap();
        let file = fs::File::open(home.dir.path_of(&volume::relative_path(&id, ENCRYPTED))).unwrap();
        let reader = Flock::lock(file, FlockArg::LockSharedNonblock).expect("readers are let in while it is open");
        let header = |reader: &fs::File| {
            let mut copies = vec![0; HEADER_BYTES];
            reader.read_exact_at(&mut copies, 0).unwrap();
            copies
        };
        let before = header(&reader);
        let changed = std::thread::scope(|scope| {
            let writer = scope.spawn(|| volume.grow(2 * GIB).unwrap());
            // Where nothing holds it up it is waited for, however busy the machine is.
            let patience = if protections.header_lock { 500 } else { 20_000 };
            let deadline = std::time::Instant::now() + std::time::Duration::from_millis(patience);
            while !writer.is_finished() && std::time::Instant::now() < deadline {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let changed = header(&reader) != before;
            drop(reader);
            changed
        });
        assert_eq!(volume.size(), 2 * GIB);
        changed
    };
    assert!(!changes_under_the_reader(Protections::ON));
    assert!(changes_under_the_reader(Protections { header_lock: false, ..Protections::ON }));
}

#[test]
fn a_volume_opened_for_reading_takes_no_writes() {
    let home = TestHome::new();
    let id = VolumeId::random();
    let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let volume = volume::open(&home.dir, &id, expected, Some(&key(1)), options).unwrap();
    assert!(volume.read_only());
    let refused = |result: Result<(), crate::device::DeviceError>| {
        assert_eq!(result.unwrap_err().kind(), DeviceErrorKind::ReadOnly);
    };
    refused(volume.write_at(0, &[1]));
    refused(volume.trim(0, 1));
    refused(volume.grow(2 * GIB));
    refused(volume.fill(|_| ()));
    volume.read_at(0, &mut [0; 512]).unwrap();
    volume.flush().unwrap();
}

/// A latch from an earlier process: opening clears it and says so.
#[test]
fn a_latched_volume_opens_once_more_and_says_that_it_was_latched() {
    let home = TestHome::new();
    let id = VolumeId::random();
    let expected = home.make(&id, GIB, ENCRYPTED).unwrap();
    home.dir.create_new(&format!("volumes/{id}.luks.latch")).unwrap();
    assert!(volume::inspect(&home.dir, &id).unwrap().latched);
    assert!(!volume::verify(&home.dir, &id, expected, None).unwrap().problems.is_empty());
    volume::grow(&home.dir, &id, expected, 2 * GIB).unwrap();
    let expected = Expected { length: 2 * GIB, ..expected };
    volume::open(&home.dir, &id, expected, Some(&key(2)), OpenOptions::default()).unwrap_err();
    assert!(volume::inspect(&home.dir, &id).unwrap().latched, "only who serves the volume clears it");
    assert!(home.open(&id, expected, Protections::ON).unwrap().was_latched());
    assert!(!volume::inspect(&home.dir, &id).unwrap().latched);
    assert!(!home.open(&id, expected, Protections::ON).unwrap().was_latched());
}

#[test]
fn stored_bytes_are_the_files_own() {
    let home = TestHome::new();
    let id = VolumeId::random();
    home.make(&id, GIB, ENCRYPTED).unwrap();
    let mut magic = [0; 6];
    volume::stored_bytes(&home.dir, &id, 0, &mut magic).unwrap();
    assert_eq!(magic, *b"LUKS\xba\xbe");
    let error = volume::stored_bytes(&home.dir, &id, GIB + DATA_OFFSET - 3, &mut magic).unwrap_err();
    assert_eq!(error.kind(), DeviceErrorKind::OutOfRange);
}
