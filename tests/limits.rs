//! Limits of the process and of the disk: each ends in an error that says so, never in a dead process or a half-made file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::mount::SmallFs;
use crate::harness::{Home, both, program, tool};
use crate::scene::Scene;

/// The program behind a shell that sets limits first.
fn under(limits: &str, home: &Home, arguments: &[&str]) -> Output {
    shell(&format!("{limits}; exec \"$@\""), home, arguments).output().unwrap()
}

fn shell(script: &str, home: &Home, arguments: &[&str]) -> Command {
    let mut command = tool("sh");
    command.args(["-c", script, "sh"]).arg(program()).args(arguments);
    command.env("BLOCKSEAL_HOME", home.path()).env("TMPDIR", home.scratch()).current_dir(home.scratch());
    command
}

#[track_caller]
fn fails(output: &Output, words: &[&str]) {
    let said = both(output);
    assert_eq!(output.status.code(), Some(255), "{}: {said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// `ulimit -f`: what is too long is refused by the system with a signal that ends a process which does not look after it.
#[test]
fn the_limit_on_file_sizes_ends_in_an_error() {
    let scene = Scene::new();
    let home = &scene.home;
    // In units of 512 bytes: room for the state, and for the first 16 MiB of the volume.
    let limit = "ulimit -f 65536";
    fails(&under(limit, home, &["ec2", "create-volume", "--size", "1"]), &["File too large"]);
    assert_eq!(names(&home.path().join("volumes")), [format!("{}.luks", scene.volume)]);

    let attached = under(limit, home, &["ec2", "attach-volume", "--volume-id", &scene.volume]);
    assert!(attached.status.success(), "{}", both(&attached));
    let exporter = home.processes();
    let mut io = tool("qemu-io");
    io.args(["-f", "raw", "-c", "write -P 0x61 0 1M", "-c", "write -P 0x62 900M 1M", "-c", "read -P 0x61 0 1M"]);
    let said = both(&io.arg(scene.uri()).output().unwrap());
    assert!(said.contains("write failed") && said.contains("read 1048576/1048576"), "{said}");
    assert_eq!((home.processes(), exporter.len()), (exporter, 1), "the exporter survived");
    scene.detach();
    home.text(&format!("volume verify {}", scene.volume));

    fails(&under(limit, home, &["volume", "export", &scene.volume, "out"]), &["File too large"]);
    assert!(!names(&home.scratch()).iter().any(|name| name.contains("out") || name.contains("part")));

    // The twin: a program that leaves the signal as it is.
    let dead = shell("ulimit -f 1; exec dd if=/dev/zero of=file bs=1M count=1", home, &[]).output().unwrap();
    assert_eq!(dead.status.signal(), Some(Signal::SIGXFSZ as i32), "{}", both(&dead));
}

/// Whatever umask it is started under, what the program makes is its owner's alone.
#[test]
fn no_umask_opens_what_is_made() {
    let home = Home::new();
    let run = |arguments: &[&str]| {
        let output = under("umask 0", &home, arguments);
        assert!(output.status.success(), "{}", both(&output));
        output.stdout
    };
    let created: Value = serde_json::from_slice(&run(&["ec2", "create-volume", "--size", "1", "--encrypted"])).unwrap();
    let volume = created["VolumeId"].as_str().unwrap();
    run(&["ec2", "attach-volume", "--volume-id", volume]);
    run(&["volume", "read", volume, "--length", "1M", "--file", "content"]);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    let mut folders = vec![home.path()];
    let mut files = vec![home.scratch().join("content")];
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    assert!(files.len() > 6, "state, key, volume, sockets, log: {files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    run(&["ec2", "detach-volume", "--volume-id", volume]);
    // The twin: a program that leaves the umask as it is.
    assert!(shell("umask 0; exec touch open", &home, &[]).status().unwrap().success());
    assert_eq!(mode(&home.scratch().join("open")), 0o666);
}

/// `ulimit -l 0`: keys cannot be locked into memory. Everything works, and every command that held one says so; the
/// exporter, which goes on holding one, has it said for it at the attach.
#[test]
fn keys_that_cannot_be_locked_are_told() {
    let scene = Scene::new();
    let home = &scene.home;
    // Root may lock whatever it likes until it gives that up.
    let run = |limit: &str, arguments: &[&str]| {
        let script = format!("{limit}exec setpriv --bounding-set=-ipc_lock \"$@\"");
        let output = shell(&script, home, arguments).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    let attach = ["ec2", "attach-volume", "--volume-id", &scene.volume];
    let locked = "lay in memory that could not be locked";
    let exporters = format!("the key of volume {} lies in memory that could not be locked", scene.volume);
    let said = run("ulimit -l 0; ", &attach);
    assert!(said.contains(locked) && said.contains(&exporters) && said.contains("ulimit -l"), "{said}");
    let status = fs::read_to_string(format!("/proc/{}/status", home.processes()[0])).unwrap();
    assert!(status.contains("VmLck:\t       0 kB"), "{status}");
    assert_eq!(run("ulimit -l 0; ", &["ec2", "describe-volumes"]), "", "it held no key");
    scene.detach();
    // The twin: with the limit as it is there is nothing to tell.
    assert_eq!(run("", &attach), "");
    let status = fs::read_to_string(format!("/proc/{}/status", home.processes()[0])).unwrap();
    assert!(!status.contains("VmLck:\t       0 kB"), "{status}");
    scene.detach();
}

/// `ulimit -n`: with as few open files as a process can begin with, it says which limit it met.
#[test]
fn too_few_open_files_are_named() {
    let scene = Scene::new();
    let mut met = 0;
    for limit in 4..16 {
        let output = under(&format!("ulimit -n {limit}"), &scene.home, &["kms", "list-keys"]);
        let said = both(&output);
        assert!(!said.contains("panicked"), "{limit}: {said}");
        // With the very fewest not even the dynamic loader gets to the program.
        if output.status.success() || output.status.code() == Some(127) {
            continue;
        }
        assert!(matches!(output.status.code(), Some(253 | 255)), "{limit}: {} {said}", output.status);
        assert!(said.to_lowercase().contains("too many open files"), "{limit}: {said}");
        assert!(!said.contains("read-only") && !said.contains("full"), "{limit}: {said}");
        met += 1;
    }
    assert!(met > 0, "no limit was met");
    scene.home.json("kms list-keys");
}

/// An export that fails leaves nothing under its name, and an older file there as it was.
#[test]
fn a_failed_export_leaves_no_image() {
    let scene = Scene::new();
    let home = &scene.home;
    let content = home.scratch().join("content");
    fs::write(&content, vec![0x5a; 24 << 20]).unwrap();
    home.text(&format!("volume write {} --file content", scene.volume));
    let disk = SmallFs::ext4(16);
    let image = disk.path().join("image");
    let export = |more: &[&str]| {
        home.run([&["volume", "export", &scene.volume, "--file", image.to_str().unwrap()], more].concat())
    };
    fails(&export(&[]), &["No space left"]);
    assert_eq!(names(&disk.path()), ["lost+found"]);
    fs::write(&image, "older").unwrap();
    fails(&export(&["--overwrite"]), &["No space left"]);
    assert_eq!(
        (names(&disk.path()), fs::read(&image).unwrap()),
        (vec!["image".into(), "lost+found".into()], b"older".to_vec())
    );
    fails(&export(&[]), &["--overwrite"]);
    // The twin: written straight to its name, as a copy is, half an image stays and looks like one.
    let copied = tool("cp").arg(&content).arg(&image).output().unwrap();
    assert!(!copied.status.success() && fs::metadata(&image).unwrap().len() > 5, "{}", both(&copied));
    // And where there is room there is an image.
    home.text(&format!("volume export {} --file image", scene.volume));
    assert_eq!(fs::metadata(home.scratch().join("image")).unwrap().len(), 1 << 30);
}
