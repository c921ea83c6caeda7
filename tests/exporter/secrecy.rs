//! The data key is in secret memory and nowhere else. Each search has a twin that finds what it looks for.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use blockseal::export::control;

use super::{Attachable, program};
use crate::nbd::{MIB, Random, run, try_run};

/// The forms in which a key could lie about: whole, halves and quarters raw; the halves as hex and base64.
fn forms(key: &[u8]) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = key.chunks(16).map(<[u8]>::to_vec).collect();
    for half in [key, &key[..32], &key[32..]] {
        let hex = hex::encode(half);
        forms.push(hex.to_uppercase().into_bytes());
        forms.push(hex.into_bytes());
        // Without the last digits, which depend on what follows.
        let base64 = base64::engine::general_purpose::STANDARD.encode(half);
        forms.push(base64.as_bytes()[..40].to_vec());
    }
    forms
}

fn contains(haystack: &[u8], needles: &[Vec<u8>]) -> bool {
    needles.iter().any(|needle| memchr::memmem::find(haystack, needle).is_some())
}

/// The same for a file that need not fit into memory.
fn file_contains(file: &mut File, needles: &[Vec<u8>]) -> bool {
    let longest = needles.iter().map(Vec::len).max().unwrap();
    let mut window = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    loop {
        let read = (&mut *file).take(16 << 20).read_to_end(&mut window).unwrap();
        if contains(&window, needles) {
            return true;
        }
        if read == 0 {
            return false;
        }
        // The end of this piece again with the next, for what lies across the border.
        window.drain(..window.len().saturating_sub(longest));
    }
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files_below(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// Uses every path over which key bytes could be spilled: long and short, reading and writing, several connections.
fn work(attachable: &Attachable) {
    let data = Random(1).bytes(4 << 20);
    for _ in 0..3 {
        let mut client = attachable.client();
        client.copy_in(&mut &data[..], 1000, data.len() as u64, &mut |_| {}).unwrap();
        client.write(777, b"short").unwrap();
        let mut out = Vec::new();
        client.copy_out(&mut out, 0, 5 << 20, &mut |_| {}).unwrap();
        client.flush().unwrap();
    }
}

#[test]
fn the_key_is_in_no_argument_no_environment_and_no_file() {
    let mut attachable = Attachable::new(16 * MIB);
    let pid = attachable.attach().pid;
    work(&attachable);
    let forms = forms(&attachable.key);
    let search = |attachable: &Attachable| {
        let mut places = vec![format!("/proc/{pid}/cmdline").into(), format!("/proc/{pid}/environ").into()];
        files_below(attachable.dir.path(), &mut places);
        // What the process has gone with it is not in its files either.
        places
            .into_iter()
            .filter(|place| fs::read(place).is_ok_and(|bytes| contains(&bytes, &forms)))
            .collect::<Vec<_>>()
    };
    assert_eq!(search(&attachable), Vec::<PathBuf>::new(), "while attached");
    assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"", "the starter's environment is not passed on");
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(contains(&arguments, &[attachable.volume.as_str().as_bytes().to_vec()]), "the search sees arguments");
    control::detach(&attachable.home, &attachable.volume).unwrap();
    assert_eq!(search(&attachable), Vec::<PathBuf>::new(), "afterwards");

    // The twin: wherever the key is planted, the search finds it.
    let plant = attachable.home.path_of("run/planted");
    for planted in [
        attachable.key[16..32].to_vec(),
        hex::encode(&attachable.key[32..]).into_bytes(),
        base64::engine::general_purpose::STANDARD.encode(&attachable.key).into_bytes(),
    ] {
        fs::write(&plant, [b"junk".to_vec(), planted, b"junk".to_vec()].concat()).unwrap();
        assert_eq!(search(&attachable), std::slice::from_ref(&plant));
    }
}

/// A core as root makes it with gdb, which may read any process. `everything` includes what is marked as not to be dumped.
fn core_of(pid: u32, into: &Path, everything: bool) -> File {
    let _ = fs::remove_file(into);
    let all = format!("set dump-excluded-mappings {}", if everything { "on" } else { "off" });
    let write = format!("gcore {}", into.display());
    let text = run("gdb", &["-p", &pid.to_string(), "-batch", "-ex", &all, "-ex", &write]);
    File::open(into).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_key_is_not_in_a_core_dump() {
    let mut attachable = Attachable::new(16 * MIB);
    let pid = attachable.attach().pid;
    work(&attachable);
    // Clients are there while the core is taken.
    let mut client = attachable.client();
    client.write(0, &vec![1; 300_000]).unwrap();
    let forms = forms(&attachable.key);
    let file = attachable.dir.path().join("core");
    let mut core = core_of(pid, &file, false);
    assert!(!file_contains(&mut core, &forms));
    let marker = format!("Blockseal volume {}", attachable.volume);
    assert!(file_contains(&mut core, &[marker.into_bytes()]), "what is no secret is found in the same core");
    // The twin: with the mark on secret memory ignored, the key is there.
    assert!(file_contains(&mut core_of(pid, &file, true), &forms));
    client.flush().unwrap();
}

/// Another process of the same, unprivileged user may not look into an exporter, as it may into any ordinary process.
#[test]
fn a_process_of_the_same_user_cannot_look_into_it() {
    const NOBODY: u32 = 65534;
    let mut attachable = Attachable::new(MIB);
    fs::set_permissions(attachable.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // A copy, because the build directory may be closed to others; and a program that gives up root first.
    let copy = attachable.dir.path().join("blockseal");
    fs::copy(program(), &copy).unwrap();
    let wrapper = attachable.dir.path().join("as-nobody");
    let drop = "/usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups";
    fs::write(&wrapper, format!("#!/bin/sh\nexec {drop} {} \"$@\"\n", copy.display())).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let mut owned = vec![attachable.home.path().to_owned(), attachable.home.path_of("volumes")];
    files_below(attachable.home.path(), &mut owned);
    for path in owned {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let key = attachable.key.clone();
    let pid = attachable.try_attach_with(&wrapper, Some(&key)).unwrap().pid;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.lines().any(|line| line.starts_with("Uid:\t65534\t65534")), "{status}");
    let mut twin = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "60"])
        .spawn()
        .unwrap();
    let peeks = |pid: u32, file: &str| {
        let path = format!("/proc/{pid}/{file}");
        try_run("setpriv", &["--reuid=65534", "--regid=65534", "--clear-groups", "cat", &path]).0
    };
    super::wait_until("the twin has become nobody's", || peeks(twin.id(), "environ"));
    assert!(peeks(twin.id(), "maps"), "an ordinary process is open to its user");
    for file in ["environ", "maps", "mem"] {
        assert!(!peeks(pid, file), "{file} of the exporter");
    }
    twin.kill().unwrap();
    twin.wait().unwrap();
    control::detach(&attachable.home, &attachable.volume).unwrap();
}
