//! The hunt for a volume's data key in places where it must never be: files, argument lists, environments, core dumps.
//!
//! It looks for each 16-byte quarter of the key as raw bytes (so also for either half and for the first round keys of an
//! expanded AES schedule), as hex in either case, and as base64 in both alphabets at each of the three alignments that the
//! key can have inside a longer encoded string.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::{succeed, tool};

/// What to look for, made from one secret.
pub struct Hunt {
    needles: AhoCorasick,
    names: Vec<String>,
}

impl Hunt {
    /// Looks for `secret`, whose length is a multiple of 16 bytes.
    pub fn new(secret: &[u8]) -> Self {
        assert!(!secret.is_empty() && secret.len().is_multiple_of(16));
        let mut patterns = Vec::new();
        let mut names = Vec::new();
        let mut add = |name: String, bytes: Vec<u8>| {
            names.push(name);
            patterns.push(bytes);
        };
        for (index, part) in secret.chunks(16).enumerate() {
            add(format!("quarter {index}, raw"), part.to_vec());
            add(format!("quarter {index}, hex"), hex::encode(part).into_bytes());
            add(format!("quarter {index}, HEX"), hex::encode_upper(part).into_bytes());
            for (engine, alphabet) in [(&STANDARD, "base64"), (&URL_SAFE, "base64url")] {
                for before in 0..3 {
                    let padded = [&[0; 2][..before], part].concat();
                    let text = engine.encode(&padded).into_bytes();
                    // Characters that also carry bits of a neighbour's byte are left out at both ends.
                    let first = (before * 8).div_ceil(6);
                    let last = padded.len() * 8 / 6;
                    add(format!("quarter {index}, {alphabet} at alignment {before}"), text[first..last].to_vec());
                }
            }
        }
        Self { needles: AhoCorasick::new(patterns).unwrap(), names }
    }

    /// The forms in which the secret appears in `bytes`, each named once.
    pub fn in_bytes(&self, bytes: &[u8]) -> Vec<String> {
        let mut found: Vec<usize> =
            self.needles.find_overlapping_iter(bytes).map(|hit| hit.pattern().as_usize()).collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|index| self.names[index].clone()).collect()
    }

    /// The files below `folder` that contain the secret or carry it in their name.
    pub fn in_folder(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                let name = path.as_os_str().as_encoded_bytes().to_vec();
                found.extend(self.in_bytes(&name).into_iter().map(|form| format!("{}: name: {form}", path.display())));
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    let bytes = fs::read(&path).unwrap();
                    found.extend(self.in_bytes(&bytes).into_iter().map(|form| format!("{}: {form}", path.display())));
                }
            }
        }
        found
    }

    /// Where the secret is in a process's arguments or environment.
    pub fn in_process(&self, pid: i32) -> Vec<String> {
        let mut found = Vec::new();
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            found.extend(self.in_bytes(&bytes).into_iter().map(|form| format!("{file} of {pid}: {form}")));
        }
        found
    }

    /// Where the secret is in the arguments or environment of any process that is running now.
    pub fn in_every_process(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
                for file in ["cmdline", "environ"] {
                    // A process may have ended since the folder was listed.
                    let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
                    let forms = self.in_bytes(&bytes).into_iter();
                    found.extend(forms.map(|form| format!("{}/{file}: {form}", entry.path().display())));
                }
            }
        }
        found
    }
}

/// What a core dump by gdb holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    /// What the kernel would dump too: pages that the program excluded are left out.
    AsTheKernelDoes,
    /// Every page, those included that the program excluded: what the exclusion protects against.
    Everything,
}

/// A core dump of a running process, taken by gdb, which root may do even where the process made itself undumpable.
pub fn core_of(pid: i32, dump: Dump, folder: &Path) -> Vec<u8> {
    let file = core_file(pid, dump, folder);
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    bytes
}

fn core_file(pid: i32, dump: Dump, folder: &Path) -> PathBuf {
    let file = folder.join(format!("core-of-{pid}"));
    let excluded = if dump == Dump::Everything { "on" } else { "off" };
    let mut gdb: Command = tool("gdb");
    gdb.args(["-nx", "-q", "-batch", "-ex", "set pagination off", "-ex"])
        .arg(format!("set dump-excluded-mappings {excluded}"));
    gdb.args(["-ex", &format!("attach {pid}"), "-ex"]).arg(format!("gcore {}", file.display())).args(["-ex", "detach"]);
    let said = succeed(&mut gdb);
    assert!(file.exists(), "gdb made no core: {}", String::from_utf8_lossy(&said));
    file
}

#[test]
fn a_planted_secret_is_found_in_every_form_and_place() {
    let secret: Vec<u8> = (0..64u32).map(|index| (index * 37 + 11).to_le_bytes()[0]).collect();
    let hunt = Hunt::new(&secret);
    assert!(hunt.in_bytes(&[0; 4096]).is_empty());
    let forms: Vec<Vec<u8>> = vec![
        secret.clone(),
        secret[..32].to_vec(),
        secret[32..].to_vec(),
        hex::encode(&secret).into_bytes(),
        hex::encode_upper(&secret[32..]).into_bytes(),
        STANDARD.encode(&secret).into_bytes(),
        STANDARD.encode([b"{\"k\":".as_slice(), &secret].concat()).into_bytes(),
        STANDARD.encode([b"longer".as_slice(), b"x", &secret[32..], b"after"].concat()).into_bytes(),
        URL_SAFE.encode([b"xy".as_slice(), &secret].concat()).into_bytes(),
    ];
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("deep")).unwrap();
    for form in forms {
        let file = folder.path().join("deep/file");
        fs::write(&file, [vec![b'.'; 1000], form.clone(), vec![b'.'; 1000]].concat()).unwrap();
        assert!(!hunt.in_folder(folder.path()).is_empty(), "missed {form:?}");
        fs::write(&file, "nothing").unwrap();
        assert!(hunt.in_folder(folder.path()).is_empty());
    }

    let argument = hex::encode(&secret);
    let mut child = Command::new("/bin/sleep").arg("60").env("KEY", argument).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    super::eventually("the child has its own environment", || !hunt.in_process(pid).is_empty());
    assert!(!hunt.in_every_process().is_empty());
    // The environment lies on the stack, so a core dump of the child holds it too.
    let core = core_of(pid, Dump::AsTheKernelDoes, folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!hunt.in_bytes(&core).is_empty());
}
