//! The volume file, judged by cryptsetup, by the Python reader and by dm-crypt in a guest kernel.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::guest::{Guest, sha256};
use crate::harness::{Home, both, succeed, tool};
use crate::scene::Scene;

/// cryptsetup's own check of a volume key against the file, which needs no device mapper.
fn test_key(key: &Path, file: &Path) -> Output {
    let mut open = tool("cryptsetup");
    open.args(["open", "--test-passphrase", "--key-size", "512", "--volume-key-file"]).arg(key).arg(file);
    open.output().unwrap()
}

#[test]
fn cryptsetup_accepts_the_key_that_kms_decrypt_returns_and_no_other() {
    for size in ["512", "4096"] {
        let scene = Scene::in_home(Home::new(), &["--sector-size", size]);
        let key = scene.data_key();
        let dump = String::from_utf8(succeed(tool("cryptsetup").arg("luksDump").arg(scene.file()))).unwrap();
        for shown in [&format!("Label:         \t{}", scene.volume), "cipher: aes-xts-plain64", "aws-kms", "blockseal"]
        {
            assert!(dump.contains(shown), "luksDump does not show {shown:?}:\n{dump}");
        }
        assert!(dump.contains(&format!("sector: {size} [bytes]")), "{dump}");
        assert!(dump.contains("offset: 16777216 [bytes]"), "{dump}");

        let right = test_key(&scene.key_file("right", &key), &scene.file());
        assert_eq!(right.status.code(), Some(0), "{}", both(&right));
        let mut flipped = key.clone();
        flipped[63] ^= 1;
        let swapped = [&key[32..], &key[..32]].concat();
        for wrong in [flipped, swapped, vec![0; 64]] {
            let refused = test_key(&scene.key_file("wrong", &wrong), &scene.file());
            assert_eq!(refused.status.code(), Some(2), "{}", both(&refused));
        }
    }
}

#[test]
fn blkid_names_the_file() {
    let scene = Scene::new();
    let said = String::from_utf8(succeed(tool("blkid").args(["-p", "-o", "export"]).arg(scene.file()))).unwrap();
    for line in ["TYPE=crypto_LUKS", "VERSION=2", &format!("LABEL={}", scene.volume), "SUBSYSTEM=blockseal"] {
        assert!(said.lines().any(|found| found == line), "blkid does not say {line}:\n{said}");
    }
}

fn dump_within(seconds: &str, file: &Path) -> Output {
    tool("timeout").arg(seconds).arg(tool("cryptsetup").get_program()).arg("luksDump").arg(file).output().unwrap()
}

/// cryptsetup takes a shared `flock` on the header to read it. An attached volume must not hold an exclusive one; the twin
/// does, and the same dump then hangs.
#[test]
fn luks_dump_works_while_the_volume_is_attached() {
    let scene = Scene::new();
    scene.attach();
    let dumped = dump_within("20", &scene.file());
    assert!(dumped.status.success(), "{}", both(&dumped));
    let key = scene.key_file("key", &scene.data_key());
    assert_eq!(test_key(&key, &scene.file()).status.code(), Some(0));
    scene.detach();

    let held = nix::fcntl::Flock::lock(fs::File::open(scene.file()).unwrap(), nix::fcntl::FlockArg::LockExclusive);
    let hung = dump_within("2", &scene.file());
    assert_eq!(hung.status.code(), Some(124), "{}", both(&hung));
    drop(held);
}

/// Whoever has the data key needs nothing of ours. Writes of many sizes and places go in over NBD, a write of 512 bytes inside
/// a 4096-byte sector among them, and come out of the file by another implementation.
#[test]
fn the_python_reader_decrypts_whatever_was_written() {
    for size in ["512", "4096"] {
        let scene = Scene::in_home(Home::new(), &["--sector-size", size]);
        let uri = scene.attach();
        // Offset, length and the byte that fills it; later ones overwrite parts of earlier ones.
        let writes: [(u64, u64, u8); 8] = [
            (0, 4096, 0x11),
            (40960, 65536, 0x22),
            (45056 + 1024, 512, 0x33),
            (49152 + 3584, 1024, 0x44),
            (65536 + 100, 7, 0x55),
            (1 << 29, 1 << 20, 0x66),
            ((1 << 29) + 4096 - 1, 4098, 0x77),
            ((1 << 30) - 512, 512, 0x88),
        ];
        let mut script = Vec::new();
        for (offset, length, byte) in writes {
            script.extend(["-c".to_owned(), format!("write -P {byte} {offset} {length}")]);
        }
        succeed(tool("qemu-io").args(["-f", "raw"]).args(&script).args(["-c", "flush"]).arg(&uri));
        scene.detach();

        let key = scene.data_key();
        for (start, length) in [(0, 4096), (40960, 65536), (1 << 29, 1 << 20), ((1 << 30) - 512, 512)] {
            let mut expected = vec![0u8; usize::try_from(length).unwrap()];
            for (offset, count, byte) in writes {
                for at in offset.max(start)..(offset + count).min(start + length) {
                    expected[usize::try_from(at - start).unwrap()] = byte;
                }
            }
            assert!(scene.decrypted(&key, start, length) == expected, "{length} bytes at {start}, sectors of {size}");
        }
        // A twin: one bit of the key away there is nothing to read.
        let mut other = key;
        other[0] ^= 1;
        assert_ne!(scene.decrypted(&other, 0, 4096), vec![0x11; 4096]);
        // And what lies there is not what was written.
        let mut stored = vec![0; 4096];
        fs::File::open(scene.file()).unwrap().read_exact_at(&mut stored, 16_777_216).unwrap();
        assert_ne!(stored, vec![0x11; 4096]);
    }
}

/// A file system made by its own tools on the attached volume, which nbdfuse shows as a file, filled with some files.
fn make_file_system(scene: &Scene, fs_name: &str) -> Vec<(String, Vec<u8>)> {
    let uri = scene.attach();
    let mount = FuseFile::new(scene, &uri);
    match fs_name {
        "ext4" => succeed(tool("mkfs.ext4").args(["-q", "-F"]).arg(mount.file())),
        // A file says nothing of blocks. On a device with physical blocks of 4096 bytes mkfs.xfs makes sectors of that size by
        // itself, and dm-crypt with such encryption sectors takes no smaller ones.
        _ => succeed(tool("mkfs.xfs").args(["-q", "-f", "-s", "size=4096"]).arg(mount.file())),
    };
    let inside = scene.home.scratch().join(format!("inside-{fs_name}"));
    fs::create_dir(&inside).unwrap();
    succeed(tool("mount").args(["-o", "loop"]).arg(mount.file()).arg(&inside));
    let mounted = Mounted(inside.clone());
    let mut files = Vec::new();
    for index in 0..20u8 {
        let length = 1u32 << index.min(19);
        let content: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251).to_le_bytes()[0] ^ index).collect();
        let name = format!("file-{index}");
        fs::write(inside.join(&name), &content).unwrap();
        files.push((name, content));
    }
    drop(mounted);
    drop(mount);
    scene.detach();
    files
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = tool("umount").arg(&self.0).output().unwrap();
        if !unmounted.status.success() {
            let _ = tool("umount").arg("--lazy").arg(&self.0).output();
        }
    }
}

/// An NBD export as a file, by libnbd's nbdfuse.
struct FuseFile {
    folder: std::path::PathBuf,
    process: std::process::Child,
}

impl FuseFile {
    fn new(scene: &Scene, uri: &str) -> Self {
        let folder = scene.home.scratch().join("fuse");
        fs::create_dir_all(&folder).unwrap();
        let mut command: Command = tool("nbdfuse");
        let process = command.arg(folder.join("disk")).arg(uri).spawn().unwrap();
        let made = Self { folder, process };
        crate::harness::eventually("nbdfuse shows the export", || made.file().exists());
        made
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.join("disk")
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        let _ = tool("umount").arg(&self.folder).output();
        // It ends with its mount; a mount that is still in use must not keep the test waiting.
        for _ in 0..250 {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One boot: dm-crypt reads what was written through us at both sector sizes, refuses another key, and we read what dm-crypt
/// wrote; after `volume fill` an ext4 and an xfs that were made through us are whole to Linux itself.
#[test]
fn dm_crypt_in_a_guest_opens_the_file_and_finds_whole_file_systems_after_fill() {
    let mut guest = Guest::new();
    let patch = vec![0xd7; 8192];
    let mut plain = Vec::new();
    for size in ["512", "4096"] {
        let scene = Scene::in_home(Home::new(), &["--sector-size", size]);
        let uri = scene.attach();
        succeed(tool("qemu-io").args(["-f", "raw", "-c", "write -P 0xa1 20480 16384", "-c", "flush"]).arg(&uri));
        scene.detach();
        let name = format!("plain-{size}");
        let key = scene.data_key();
        let mut wrong = key.clone();
        wrong[17] ^= 0x80;
        guest.disk(&name, &scene.file());
        guest.file(&format!("{name}.key"), &key).file(&format!("{name}.wrong"), &wrong);
        guest.file(&format!("{name}.ranges"), b"5 4\n6 1\n");
        guest.file(&format!("{name}.patch"), &patch).file(&format!("{name}.at"), b"409600");
        plain.push((name, scene));
    }
    let mut systems = Vec::new();
    for fs_name in ["ext4", "xfs"] {
        let scene = Scene::fast();
        let files = make_file_system(&scene, fs_name);
        scene.home.text(&format!("volume fill --volume-id {}", scene.volume));
        guest.disk(fs_name, &scene.file());
        guest.file(&format!("{fs_name}.key"), &scene.data_key()).file(&format!("{fs_name}.fs"), fs_name.as_bytes());
        systems.push((fs_name, scene, files));
    }

    let answers = guest.run("luks");
    for (name, scene) in &plain {
        answers.says(&format!("{name} wrong-key-status "), "2");
        answers.says(&format!("{name} open-status "), "0");
        answers.says(&format!("{name} range 5 4 "), &sha256(&[0xa1; 16384]));
        answers.says(&format!("{name} range 6 1 "), &sha256(&[0xa1; 4096]));
        answers.says(&format!("{name} patch-status "), "0");
        let uri = scene.attach();
        succeed(tool("qemu-io").args(["-r", "-f", "raw", "-c", "read -P 0xd7 409600 8192"]).arg(&uri));
        scene.detach();
    }
    for (name, _, files) in &systems {
        answers.says(&format!("{name} open-status "), "0");
        answers.says(&format!("{name} check-status "), "0");
        answers.says(&format!("{name} mount-status "), "0");
        let found = answers.files(name);
        assert_eq!(found.len(), files.len());
        for (file, content) in files {
            assert_eq!(found[file], sha256(content), "{file} on {name}");
        }
    }
}
