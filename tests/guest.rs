//! Linux itself as a judge: a Debian kernel under software emulation opens volume files with dm-crypt (`tests/guest/`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::harness::{both, feed, oracle, root, succeed, tool};

/// One boot with some disks. Disks are named by their virtio serial.
pub struct Guest {
    folder: tempfile::TempDir,
    disks: Vec<(String, PathBuf)>,
}

impl Guest {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("blockseal-guest-").tempdir().unwrap();
        fs::create_dir_all(folder.path().join("extra/job")).unwrap();
        Self { folder, disks: Vec::new() }
    }

    /// Attaches a file as a disk.
    pub fn disk(&mut self, name: &str, file: &Path) -> &mut Self {
        self.disks.push((name.to_owned(), file.to_path_buf()));
        self
    }

    /// Puts a file below `/job` in the guest.
    pub fn file(&mut self, name: &str, content: &[u8]) -> &mut Self {
        fs::write(self.folder.path().join("extra/job").join(name), content).unwrap();
        self
    }

    /// Boots, runs the job, and returns its answers; a guest that does not finish by itself fails the test.
    pub fn run(&self, job: &str) -> Answers {
        let cache = cache();
        let at = |name: &str| self.folder.path().join(name);
        succeed(Command::new(root().join("tests/guest/mkinitramfs")).arg(cache.join("kernel")).arg(at("initramfs")));
        // The kernel unpacks archives one after the other, so what belongs to this run follows the common part.
        let names = succeed(Command::new("/bin/sh").args(["-c", "find . -print0"]).current_dir(at("extra")));
        let extra = feed(tool("cpio").args(["-o", "-H", "newc", "--quiet", "-0"]).current_dir(at("extra")), &names);
        assert!(extra.status.success(), "{}", both(&extra));
        let base = fs::read(at("initramfs")).unwrap();
        fs::write(at("initramfs"), [base, extra.stdout].concat()).unwrap();

        let mut boot = Command::new(root().join("tests/guest/boot"));
        boot.arg(&cache).arg(at("initramfs")).arg(job).arg(at("results")).arg(at("console"));
        for (name, file) in &self.disks {
            let drive = format!("file={},format=raw,if=none,id={name},cache=unsafe", file.display());
            boot.args(["-drive", &drive, "-device", &format!("virtio-blk-pci,drive={name},serial={name}")]);
        }
        succeed(&mut boot);
        let text = String::from_utf8_lossy(&fs::read(at("results")).unwrap()).replace('\r', "");
        let console = String::from_utf8_lossy(&fs::read(at("console")).unwrap()).into_owned();
        assert!(text.contains("\ndone "), "the guest did not finish:\n{text}\n{console}");
        Answers { lines: text.lines().map(str::to_owned).collect(), console }
    }
}

/// What `tests/guest/fetch` unpacked.
fn cache() -> PathBuf {
    let named = std::env::var_os("BLOCKSEAL_GUEST").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
        cache.join("blockseal-tests/guest")
    });
    assert!(folder.join("complete").exists(), "no guest in {}: tests/run unpacks one", folder.display());
    folder
}

/// The lines that a job wrote.
pub struct Answers {
    lines: Vec<String>,
    console: String,
}

impl Answers {
    /// The rest of the only line that starts with `start`.
    #[track_caller]
    pub fn one(&self, start: &str) -> &str {
        let found = self.all(start);
        assert_eq!(found.len(), 1, "lines starting with {start:?} in {:#?}\n{}", self.lines, self.console);
        found[0]
    }

    /// Asserts that the only line which starts with `start` goes on with `value`; a failure shows the guest's console.
    #[track_caller]
    pub fn says(&self, start: &str, value: &str) {
        let found = self.one(start);
        assert_eq!(found, value, "{start}: {:#?}\n{}", self.lines, self.console);
    }

    /// The rest of each line that starts with `start`.
    pub fn all(&self, start: &str) -> Vec<&str> {
        self.lines.iter().filter_map(|line| line.strip_prefix(start)).map(str::trim).collect()
    }

    /// The SHA-256 of each file that a mounted disk was found to have.
    pub fn files(&self, disk: &str) -> BTreeMap<String, String> {
        let found = self.all(&format!("{disk} file ./")).into_iter();
        found.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, sum)| (name.into(), sum.into())).collect()
    }
}

/// As the guest prints it.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A volume key that is no secret.
pub fn test_key(seed: u8) -> Vec<u8> {
    (0..64u8).map(|index| index.wrapping_mul(59) ^ seed.wrapping_mul(101)).collect()
}

/// The judge is judged first, on a file that cryptsetup made and the Python reader encrypted: the guest reads what that one
/// wrote, refuses another key, and what the guest writes the Python reader decrypts.
#[test]
fn dm_crypt_and_the_python_reader_agree_on_a_file_that_cryptsetup_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("key"), test_key(1)).unwrap();
    let plain: Vec<u8> = (0..5 * 4096u32).map(|index| (index / 7).to_le_bytes()[0]).collect();
    let patch = vec![0xc3; 8192];
    let mut guest = Guest::new();
    for (name, sector_size) in [("big", "4096"), ("small", "512")] {
        let file = at(name);
        fs::File::create(&file).unwrap().set_len(24 << 20).unwrap();
        let mut format = tool("cryptsetup");
        format.args(["luksFormat", "-q", "--type", "luks2", "--cipher", "aes-xts-plain64", "--key-size", "512"]);
        format.args(["--sector-size", sector_size, "--offset", "32768", "--pbkdf", "pbkdf2"]);
        format.args(["--pbkdf-force-iterations", "1000", "--volume-key-file"]).arg(at("key")).arg(&file).arg("-");
        let made = feed(&mut format, b"passphrase");
        assert!(made.status.success(), "{}", both(&made));
        let key = at("key");
        let arguments: [&OsStr; 4] = ["write".as_ref(), file.as_ref(), key.as_ref(), "77824".as_ref()];
        let wrote = feed(&mut oracle(&arguments), &plain);
        assert!(wrote.status.success(), "{}", both(&wrote));
        guest.disk(name, &file);
        guest.file(&format!("{name}.key"), &test_key(1)).file(&format!("{name}.wrong"), &test_key(2));
        guest.file(&format!("{name}.ranges"), b"19 5\n20 1\n");
        guest.file(&format!("{name}.patch"), &patch).file(&format!("{name}.at"), b"409600");
    }
    let answers = guest.run("luks");
    for name in ["big", "small"] {
        answers.says(&format!("{name} wrong-key-status "), "2");
        answers.says(&format!("{name} open-status "), "0");
        answers.says(&format!("{name} range 19 5 "), &sha256(&plain));
        answers.says(&format!("{name} range 20 1 "), &sha256(&plain[4096..8192]));
        answers.says(&format!("{name} patch-status "), "0");
        let (file, key) = (at(name), at("key"));
        let read = |offset: &str, length: &str| {
            let arguments: [&OsStr; 5] =
                ["read".as_ref(), file.as_ref(), key.as_ref(), offset.as_ref(), length.as_ref()];
            succeed(&mut oracle(&arguments))
        };
        assert_eq!(read("409600", "8192"), patch);
        assert_eq!(read("78336", "512"), plain[512..1024]);
    }
    answers.says("job-status ", "0");
}
