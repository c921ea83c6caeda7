//! Images on their way out of volumes: sparse, private, and never half in the place of a whole one.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::mount::{SmallFs, allocated};
use crate::harness::{Home, both, succeed, tool};
use crate::scene::Scene;

/// Runs a command that must end within so many seconds.
fn within(seconds: &str, home: &Home, arguments: &[&str]) -> Output {
    let command = home.command(arguments);
    let mut limited = tool("timeout");
    limited.arg(seconds).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.stdin(Stdio::null()).output().unwrap()
}

fn qemu_io(uri: &str, commands: &[&str]) {
    let script = commands.iter().flat_map(|command| ["-c", command]);
    let output = tool("qemu-io").args(["-f", "raw"]).args(script).arg(uri).output().unwrap();
    let said = both(&output);
    assert!(output.status.success() && !said.contains("failed") && !said.contains("error"), "{commands:?}: {said}");
}

/// 64 TiB of which a few bytes at both ends are stored. Were the holes read, this would take days; so the time is the test.
#[test]
fn a_vast_sparse_volume_is_made_small_and_exported_while_attached() {
    let disk = SmallFs::xfs(300);
    let mut home = Home::new();
    home.move_to(&disk.path().join("home"));
    let cmk = home.json("kms create-key")["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    let made = home.json(&format!("ec2 create-volume --size 65536 --volume-type gp3 --encrypted --kms-key-id {cmk}"));
    let scene = Scene { volume: made["VolumeId"].as_str().unwrap().to_owned(), cmk, home };
    assert_eq!(fs::metadata(scene.file()).unwrap().len(), (65536 << 30) + (16 << 20));
    assert!(allocated(&scene.file()) < 4 << 20, "{} bytes on disk", allocated(&scene.file()));

    let uri = scene.attach();
    qemu_io(&uri, &["write -P 0x91 4096 1M", "write -P 0x92 70368744112128 64k", "flush"]);
    let image = disk.path().join("image");
    let export = ["volume", "export", &scene.volume, image.to_str().unwrap()];
    let output = within("120", &scene.home, &export);
    assert!(output.status.success(), "{}: {}", output.status, both(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ThroughExporter"], true);
    assert_eq!(report["Bytes"], 65536u64 << 30);
    assert_eq!(report["StoredBytes"], (1 << 20) + (64 << 10));
    assert_eq!(fs::metadata(&image).unwrap().len(), 65536 << 30);
    assert!(allocated(&image) < 8 << 20, "{} bytes on disk", allocated(&image));
    qemu_io(
        image.to_str().unwrap(),
        &["read -P 0 0 4096", "read -P 0x91 4096 1M", "read -P 0 1052672 1M", "read -P 0x92 70368744112128 64k"],
    );
    scene.detach();
    // Without the exporter the image is the same.
    fs::remove_file(&image).unwrap();
    let output = within("120", &scene.home, &export);
    assert!(output.status.success(), "{}: {}", output.status, both(&output));
    qemu_io(image.to_str().unwrap(), &["read -P 0x91 4096 1M", "read -P 0x92 70368744112128 64k"]);
}

/// A scene whose volume has this many MiB of data, attached.
fn filled(mib: u64) -> Scene {
    let scene = Scene::new();
    let uri = scene.attach();
    let write = |from: u64, count: u64| format!("write -P 0xa1 {from}M {count}M");
    let commands: Vec<String> = (0..mib).step_by(64).map(|from| write(from, (mib - from).min(64))).collect();
    qemu_io(&uri, &commands.iter().map(String::as_str).chain(["flush"]).collect::<Vec<_>>());
    scene
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Killed in the middle, an export has neither touched the older image nor left a part of the new one under any name.
#[test]
fn a_killed_export_leaves_the_older_image_and_no_half_one() {
    let scene = filled(192);
    let folder = scene.home.scratch().join("images");
    fs::create_dir(&folder).unwrap();
    let image = folder.join("image");
    for older in [true, false] {
        if older {
            fs::write(&image, "older").unwrap();
        }
        let arguments = ["volume", "export", &scene.volume, image.to_str().unwrap(), "--overwrite"];
        let mut child = scene.home.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // What it writes has no name; it is found among the files that it has open.
        let open_files = PathBuf::from(format!("/proc/{}/fd", child.id()));
        let part = || {
            let mut links = fs::read_dir(&open_files).into_iter().flatten().flatten().map(|entry| entry.path());
            let in_folder = |link: &PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(&folder));
            links.find(|link| in_folder(link)).and_then(|link| fs::metadata(link).ok()).filter(|part| part.blocks() > 0)
        };
        let part = loop {
            match part() {
                Some(part) => break part,
                None => assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be killed"),
            }
        };
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL).unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it ended before it could be killed");
        // What it had written was its owner's alone, and is gone.
        assert_eq!((part.permissions().mode() & 0o777, part.nlink()), (0o600, 0));
        if older {
            assert_eq!(fs::read(&image).unwrap(), b"older");
            fs::remove_file(&image).unwrap();
        }
        assert_eq!(names(&folder), [] as [&str; 0]);
    }
    // The twin: not killed, the image is there and whole.
    succeed(&mut scene.home.command(["volume", "export", &scene.volume, image.to_str().unwrap()]));
    qemu_io(image.to_str().unwrap(), &["read -P 0xa1 0 192M", "read -P 0 192M 832M"]);
}

#[test]
fn an_export_that_fails_leaves_the_older_image() {
    let scene = filled(96);
    let disk = SmallFs::ext4(64);
    let image = disk.path().join("image");
    fs::write(&image, "older").unwrap();
    fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).unwrap();
    let before = names(&disk.path());
    let said = scene.home.refused(255, &["volume", "export", &scene.volume, image.to_str().unwrap(), "--overwrite"]);
    assert!(said.contains("No space left"), "{said}");
    assert_eq!((fs::read(&image).unwrap(), names(&disk.path())), (b"older".to_vec(), before));
    // An image that fits takes its place, and nobody else can read it although the older one was open to all.
    qemu_io(&scene.uri(), &["discard 0 90M", "flush"]);
    succeed(&mut scene.home.command(["volume", "export", &scene.volume, image.to_str().unwrap(), "--overwrite"]));
    assert_eq!(fs::metadata(&image).unwrap().permissions().mode() & 0o777, 0o600);
    qemu_io(image.to_str().unwrap(), &["read -P 0 0 90M", "read -P 0xa1 90M 6M"]);
}

#[test]
fn nothing_is_exported_into_the_home() {
    let scene = Scene::new();
    let database = scene.home.path().join("state.db");
    let before = fs::read(&database).unwrap();
    let link = scene.home.scratch().join("link");
    std::os::unix::fs::symlink(scene.home.path(), &link).unwrap();
    let named = scene.home.scratch().join("named");
    std::os::unix::fs::symlink(&database, &named).unwrap();
    for path in
        [database.clone(), link.join("state.db"), link.join("volumes/new"), named, scene.home.path().join("new")]
    {
        let path = path.to_str().unwrap();
        for arguments in [
            vec!["volume", "export", &scene.volume, path, "--overwrite"],
            vec!["volume", "read", &scene.volume, "--length", "512", "--file", path],
        ] {
            let said = scene.home.refused(252, &arguments);
            assert!(said.contains("inside the home"), "{said}");
        }
    }
    assert!(fs::read(&database).unwrap() == before);
    assert!(!scene.home.path().join("new").exists());
    // The twin: beside the home it goes.
    let beside = scene.home.scratch().join("new");
    succeed(&mut scene.home.command(["volume", "export", &scene.volume, beside.to_str().unwrap()]));
    assert_eq!(fs::metadata(beside).unwrap().len(), 1 << 30);
}

#[test]
fn devices_and_pipes_are_written_as_they_come() {
    let scene = filled(1);
    succeed(&mut scene.home.command(["volume", "export", &scene.volume, "--file", "/dev/null"]));
    let pipe = scene.home.scratch().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let read = {
        let pipe = pipe.clone();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            fs::File::open(pipe).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let arguments = ["volume", "read", &scene.volume, "--length", "2M", "--file", pipe.to_str().unwrap()];
    succeed(&mut scene.home.command(arguments));
    let bytes = read.join().unwrap();
    assert_eq!(bytes.len(), 2 << 20);
    assert!(bytes[..1 << 20].iter().all(|byte| *byte == 0xa1) && bytes[1 << 20..].iter().all(|byte| *byte == 0));
    // A disk has content like a file has.
    let image = scene.home.scratch().join("image");
    fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    let disk = LoopDevice::new(&image);
    let arguments = ["volume", "export", &scene.volume, &disk.0];
    let said = scene.home.refused(255, &arguments);
    assert!(said.contains("--overwrite"), "{said}");
    succeed(&mut scene.home.command([&arguments[..], &["--overwrite"]].concat()));
    drop(disk);
    qemu_io(image.to_str().unwrap(), &["read -P 0xa1 0 1M", "read -P 0 1M 1023M"]);
}

/// A loop device over a file, given back when it is dropped.
struct LoopDevice(String);

impl LoopDevice {
    fn new(image: &Path) -> Self {
        let name = succeed(tool("losetup").args(["--find", "--show"]).arg(image));
        Self(String::from_utf8(name).unwrap().trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = tool("losetup").args(["--detach", &self.0]).output();
    }
}

/// Readers of a detached volume share it. While one of them has it open nobody writes, attaches or deletes it.
#[test]
fn two_exports_of_a_detached_volume_run_at_once_and_keep_writers_out() {
    let scene = Scene::fast();
    let volume = scene.volume.as_str();
    let content = scene.home.scratch().join("content");
    fs::write(&content, vec![0x5a; 4 << 20]).unwrap();
    let write = ["volume", "write", volume, "--offset", "1M", "--file", content.to_str().unwrap()];
    succeed(&mut scene.home.command(write));

    // Nobody reads the pipe but its first byte: the export stays open for as long as we like.
    let open_export = || {
        let mut child = scene.home.command(["volume", "export", volume, "-"]).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    };
    let (mut one, mut other) = (open_export(), open_export());
    let attach = ["ec2", "attach-volume", "--volume-id", volume];
    let delete = ["ec2", "delete-volume", "--volume-id", volume];
    for refused in [&write[..], &attach, &delete, &["volume", "fill", volume]] {
        let said = scene.home.refused(254, refused);
        assert!(said.contains("(VolumeInUse)"), "{refused:?}: {said}");
    }
    let read = scene.home.run(["volume", "read", volume, "--offset", "1M", "--length", "4M"]);
    assert!(read.stdout == vec![0x5a; 4 << 20], "{}", both(&read));
    assert_eq!(scene.home.json(&format!("volume inspect {volume}"))["Attached"], false);
    let images = ["one", "other"].map(|name| scene.home.scratch().join(name));
    let mut exports = images.each_ref().map(|image| {
        let arguments = ["volume", "export", volume, image.to_str().unwrap()];
        scene.home.command(arguments).stdout(Stdio::null()).spawn().unwrap()
    });
    for export in &mut exports {
        assert!(export.wait().unwrap().success());
    }
    for child in [&mut one, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for image in &images {
        qemu_io(image.to_str().unwrap(), &["read -P 0 0 1M", "read -P 0x5a 1M 4M", "read -P 0 5M 1019M"]);
    }
    // The twin: with nobody reading, all of it goes through.
    succeed(&mut scene.home.command(write));
    succeed(&mut scene.home.command(attach));
    scene.detach();
    succeed(&mut scene.home.command(delete));
}
