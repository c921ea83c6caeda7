//! Volume files: what making one costs, and how fast an open one reads and writes.
//!
//! `cargo bench --bench volume`. The 64 TiB volume is made on an xfs in a loop file, which needs root and xfsprogs; all
//! files lie below the system's temporary directory.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a benchmark that can't be set up has nothing to report")]

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

use blockseal::device::volume::{self, Expected, Format, NewEncryption, OpenOptions, Volume};
use blockseal::device::{BlockDevice as _, ZeroMode};
use blockseal::dir::HomeDir;
use blockseal::ids::VolumeId;
use blockseal::luks2::{KEY_BYTES, KeyDigest, WrappedKey};
use blockseal::secret::SecretBytes;
use blockseal::units::{GIB, SectorSize};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const TIB: u64 = 1024 * GIB;
const SPAN: u64 = 256 << 20;

struct Scene {
    home: HomeDir,
    key: SecretBytes,
    _base: tempfile::TempDir,
}

impl Scene {
    fn below(place: &Path) -> Self {
        let base = tempfile::tempdir_in(place).unwrap();
        let home = HomeDir::open(&base.path().join("home"), true).unwrap();
        home.make_dir("volumes").unwrap();
        Self { home, key: SecretBytes::random(KEY_BYTES).unwrap(), _base: base }
    }

    fn make(&self, length: u64, sector_size: SectorSize) -> VolumeId {
        let id = VolumeId::random();
        let wrapped_key = WrappedKey {
            blob: vec![1; 184],
            key_arn: "arn:aws:kms:us-east-1:123456789012:key/0b9ae5a2-1111-4222-8333-444455556666".into(),
            encryption_context: [("aws:ebs:id".into(), id.to_string())].into(),
        };
        let digest = KeyDigest::new(&self.key).unwrap();
        volume::create(&self.home, &id, length, Some(NewEncryption { sector_size, digest, wrapped_key })).unwrap();
        id
    }

    fn open(&self, length: u64, sector_size: SectorSize) -> Volume {
        let id = self.make(length, sector_size);
        let expected = Expected { length, format: Format::Encrypted(sector_size) };
        volume::open(&self.home, &id, expected, Some(&self.key), OpenOptions::default()).unwrap()
    }
}

/// An xfs of 300 MiB in a loop file.
struct Xfs {
    mounted: PathBuf,
    _base: tempfile::TempDir,
}

impl Xfs {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let (image, mounted) = (base.path().join("image"), base.path().join("mounted"));
        fs::File::create(&image).unwrap().set_len(300 << 20).unwrap();
        fs::create_dir(&mounted).unwrap();
        assert!(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(&image).status().unwrap().success());
        assert!(Command::new("mount").args(["-o", "loop"]).args([&image, &mounted]).status().unwrap().success());
        Self { mounted, _base: base }
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.mounted).status();
    }
}

fn create(c: &mut Criterion) {
    let xfs = Xfs::new();
    let temporary = std::env::temp_dir();
    let mut group = c.benchmark_group("create");
    group.sample_size(20);
    for (name, place, length) in
        [("1 GiB", &temporary, GIB), ("8 TiB", &temporary, 8 * TIB), ("64 TiB on xfs", &xfs.mounted, 64 * TIB)]
    {
        let scene = Scene::below(place);
        group.bench_function(name, |b| b.iter(|| scene.make(length, SectorSize::B4096)));
        let id = scene.make(length, SectorSize::B4096);
        let inspection = volume::inspect(&scene.home, &id).unwrap();
        println!("{name}: {} bytes long, {} bytes on disk", inspection.file_bytes, inspection.allocated_bytes);
    }
}

fn input_output(c: &mut Criterion) {
    let scene = Scene::below(&std::env::temp_dir());
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let volume = scene.open(GIB, sector_size);
        for length in [4096usize, 1 << 20] {
            let data = vec![0x5a; length];
            let mut found = vec![0; length];
            let places = SPAN / length as u64;
            let mut group = c.benchmark_group(format!("sectors of {sector_size}"));
            group.throughput(Throughput::Bytes(length as u64));
            // Steps over all places in an order that is not the disk's.
            let mut turn = 0u64;
            let mut next = || {
                turn = turn.wrapping_add(0x9e37_79b9);
                turn % places * length as u64
            };
            for place in 0..places {
                volume.write_at(place * length as u64, &data).unwrap();
            }
            volume.flush().unwrap();
            group.bench_function(BenchmarkId::new("write", length), |b| {
                b.iter(|| volume.write_at(next(), black_box(&data)).unwrap());
            });
            volume.flush().unwrap();
            group.bench_function(BenchmarkId::new("read", length), |b| {
                b.iter(|| volume.read_at(next(), black_box(&mut found)).unwrap());
            });
            group.bench_function(BenchmarkId::new("write and flush", length), |b| {
                b.iter(|| {
                    volume.write_at(next(), black_box(&data)).unwrap();
                    volume.flush().unwrap();
                });
            });
            group.bench_function(BenchmarkId::new("read of a hole", length), |b| {
                b.iter(|| volume.read_at(SPAN + next(), black_box(&mut found)).unwrap());
            });
        }
        volume.write_zeroes(0, GIB, ZeroMode::MayPunch).unwrap();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(500));
    targets = create, input_output
}
criterion_main!(benches);
