//! Why writes do not go through the mapping: how much the disk writes, and how long a flush takes, when random 4 KiB
//! pieces of a file are dirtied by `pwrite` and by stores through a shared mapping.
//!
//! Makes an ext4 and an xfs in loop files of their own (root, `losetup`, `mkfs.ext4`, `mkfs.xfs`), so that what the loop
//! device counts is what this program caused. `cargo bench --bench write_path`
#![allow(missing_docs, reason = "a program, not a library")]
#![expect(unsafe_code, reason = "stores through a shared mapping are what is measured")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails has no result to report")]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const FILE_BYTES: usize = 256 << 20;
const PIECE: usize = 4096;
const PIECES_PER_FLUSH: usize = 1000;
const FLUSHES: usize = 15;

fn main() {
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    println!(
        "{FLUSHES} flushes of {PIECES_PER_FLUSH} random 4 KiB writes each, in a {} MiB file read once from end to end",
        FILE_BYTES >> 20
    );
    println!("{:6} {:30} {:>14} {:>12} {:>12}", "fs", "write path", "disk/dirtied", "flush ms", "write us");
    for fs in ["ext4", "xfs"] {
        let scratch = Scratch::make(fs);
        for (name, path) in [
            ("pwrite + fdatasync", WritePath::Pwrite),
            ("stores through mapping + msync", WritePath::Stores),
            ("stores, mapping MADV_RANDOM", WritePath::StoresRandom),
        ] {
            let figures = measure(&scratch, path);
            println!(
                "{fs:6} {name:30} {:>13.1}x {:>12.1} {:>12.2}",
                figures.amplification,
                figures.flush.as_secs_f64() * 1e3,
                figures.write.as_secs_f64() * 1e6
            );
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum WritePath {
    Pwrite,
    Stores,
    StoresRandom,
}

struct Figures {
    amplification: f64,
    flush: Duration,
    write: Duration,
}

/// Medians over the flushes; the amplification is over all of them.
fn measure(scratch: &Scratch, path: WritePath) -> Figures {
    let name = scratch.mount.path().join("volume");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&name).unwrap();
    let mebibyte = vec![0xa5; 1 << 20];
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&mebibyte).unwrap();
    }
    file.sync_all().unwrap();
    drop_caches();
    // SAFETY: the file is this program's own and keeps its length until the mapping is dropped.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap();
    if path == WritePath::StoresRandom {
        map.advise(memmap2::Advice::Random).unwrap();
    }
    read_through(&mut file);
    let before = scratch.sectors_written();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let (mut flushes, mut writes) = (Vec::new(), Vec::new());
    for round in 0..FLUSHES {
        let piece = [u8::try_from(round).unwrap(); PIECE];
        let started = Instant::now();
        for _ in 0..PIECES_PER_FLUSH {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let offset = usize::try_from(random).unwrap() % (FILE_BYTES / PIECE) * PIECE;
            match path {
                WritePath::Pwrite => file.write_all_at(&piece, offset as u64).unwrap(),
                _ => map[offset..offset + PIECE].copy_from_slice(&piece),
            }
        }
        writes.push(started.elapsed() / u32::try_from(PIECES_PER_FLUSH).unwrap());
        let started = Instant::now();
        match path {
            WritePath::Pwrite => file.sync_data().unwrap(),
            _ => map.flush().unwrap(),
        }
        flushes.push(started.elapsed());
    }
    let written = (scratch.sectors_written() - before) * 512;
    flushes.sort_unstable();
    writes.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "a ratio to one decimal")]
    let amplification = written as f64 / (FLUSHES * PIECES_PER_FLUSH * PIECE) as f64;
    Figures { amplification, flush: flushes[FLUSHES / 2], write: writes[FLUSHES / 2] }
}

fn read_through(file: &mut File) {
    let mut buffer = vec![0; 1 << 20];
    file.rewind().unwrap();
    while file.read(&mut buffer).unwrap() > 0 {}
}

fn drop_caches() {
    run("sync", &[]);
    std::fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
}

/// A file system of its own in a loop file, unmounted and detached when dropped.
struct Scratch {
    device: String,
    mount: tempfile::TempDir,
    _image: tempfile::NamedTempFile,
}

impl Scratch {
    fn make(fs: &str) -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(2 << 30).unwrap();
        let device = run("losetup", &["--find", "--show", text(image.path())]).trim().to_owned();
        let mount = tempfile::tempdir().unwrap();
        let scratch = Self { device, mount, _image: image };
        let force = if fs == "xfs" { "-f" } else { "-F" };
        run(&format!("mkfs.{fs}"), &["-q", force, &scratch.device]);
        run("mount", &[&scratch.device, text(scratch.mount.path())]);
        scratch
    }

    /// Sectors of 512 bytes that the loop device was told to write (field 7 of Linux's block/stat).
    fn sectors_written(&self) -> usize {
        let name = self.device.trim_start_matches("/dev/");
        let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
        stat.split_whitespace().nth(6).unwrap().parse().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mount.path()).status();
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
