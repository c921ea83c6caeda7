//! What happens to an attached volume when something breaks: the exporter is killed, the disk is full, the file is cut.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::mount::SmallFs;
use crate::harness::{Home, both, eventually, succeed, tool};
use crate::scene::Scene;

fn io(uri: &str, commands: &[&str]) -> Output {
    let script = commands.iter().flat_map(|command| ["-c", command]);
    tool("qemu-io").args(["-f", "raw", "-d", "unmap"]).args(script).arg(uri).output().unwrap()
}

#[track_caller]
fn io_works(uri: &str, commands: &[&str]) {
    let output = io(uri, commands);
    let said = both(&output);
    assert!(output.status.success() && !said.contains("failed") && !said.contains("error"), "{commands:?}: {said}");
}

/// Killed in the middle of writes: the next command says so, and what was flushed is there after the next attach.
#[test]
fn a_killed_exporter_is_noticed_and_loses_nothing_that_was_flushed() {
    let scene = Scene::new();
    let uri = scene.attach();
    io_works(&uri, &["write -P 0x41 0 8M", "write -P 0x42 1000M 4M", "flush"]);
    // A client that writes without pause over the second half while the exporter dies.
    let mut fio = tool("fio");
    fio.args(["--name=storm", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=8", "--offset=512M"]);
    fio.args(["--size=256M", "--time_based", "--runtime=30"]).arg(format!("--uri={uri}"));
    let storm = fio.current_dir(scene.home.scratch()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut storm = storm.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let exporters = scene.home.processes();
    assert_eq!(exporters.len(), 1);
    kill(Pid::from_raw(exporters[0]), Signal::SIGKILL).unwrap();
    eventually("the client of a killed exporter ends", || matches!(storm.try_wait(), Ok(Some(_))));

    // The volume is free again, and the program says what became of it.
    let said = scene.home.refused(254, &["ec2", "detach-volume", "--volume-id", &scene.volume]);
    let note = format!("the exporter of volume {} (process {}) ended without a detach", scene.volume, exporters[0]);
    assert!(said.contains(&format!("blockseal: note: {note}; what was flushed is on disk")), "{said}");
    assert!(said.contains("(IncorrectState) when calling the DetachVolume operation"), "{said}");
    // The twin: an exporter that was detached is not reported.
    scene.attach();
    let detached = scene.home.run(["ec2", "detach-volume", "--volume-id", &scene.volume]);
    assert!(detached.status.success() && detached.stderr.is_empty(), "{}", both(&detached));
    let uri = scene.attach();
    io_works(&uri, &["read -P 0x41 0 8M", "read -P 0x42 1000M 4M", "write -P 0x43 0 4k", "flush", "read -P 0x43 0 4k"]);
    scene.detach();
    scene.home.text(&format!("volume verify --volume-id {}", scene.volume));
}

#[test]
fn a_full_disk_is_an_error_to_the_client_and_nothing_is_lost() {
    for disk in [SmallFs::ext4(64), SmallFs::xfs(300)] {
        let mut scene_home = Home::new();
        scene_home.move_to(&disk.path().join("home"));
        let scene = Scene::in_home(scene_home, &[]);
        let uri = scene.attach();
        io_works(&uri, &["write -P 0x51 0 4M", "flush"]);
        let full = io(&uri, &["write -P 0x52 8M 400M"]);
        assert!(both(&full).contains("No space left"), "{}", both(&full));
        io_works(
            &uri,
            &["read -P 0x51 0 4M", "flush", "discard 8M 400M", "write -P 0x53 8M 1M", "flush", "read -P 0x53 8M 1M"],
        );
        scene.detach();
        let uri = scene.attach();
        io_works(&uri, &["read -P 0x51 0 4M", "read -P 0x53 8M 1M"]);
        scene.detach();
    }
}

/// Somebody cuts the file while it is attached. Reads behind the cut are errors and never zeros, and the exporter lives on.
#[test]
fn a_file_that_was_cut_short_gives_errors_and_not_zeros() {
    let scene = Scene::new();
    let uri = scene.attach();
    io_works(&uri, &["write -P 0x61 0 32M", "flush", "read -P 0x61 16M 1M"]);
    let file = fs::OpenOptions::new().write(true).open(scene.file()).unwrap();
    file.set_len((16 << 20) + (8 << 20)).unwrap();
    let exporter = scene.home.processes();
    for offset in ["16M", "8M", "1000M"] {
        let read = io(&uri, &[&format!("read -P 0 {offset} 4k")]);
        assert!(both(&read).contains("Input/output error"), "at {offset}: {}", both(&read));
    }
    assert_eq!(scene.home.processes(), exporter, "the exporter survived");
    let output = scene.home.run(["ec2", "detach-volume", "--volume-id", &scene.volume]);
    assert!(!both(&output).contains("panicked"), "{}", both(&output));
    let said = scene.home.refused(255, &["ec2", "attach-volume", "--volume-id", &scene.volume]);
    let wanted =
        format!("the file of volume {} has 25165824 bytes and should have 1090519040: it was cut short", scene.volume);
    assert!(said.contains(&wanted) && !said.contains("panicked"), "{said}");
    // The twin: at its old length it is attached; what was cut off is lost, what lies before is there.
    file.set_len((16 << 20) + (1 << 30)).unwrap();
    let uri = scene.attach();
    io_works(&uri, &["read -P 0x61 0 8M"]);
    scene.detach();
}

/// The volume itself fills the disk that holds it and its home. Looking, detaching and deleting, which all write, still work,
/// and give the room back. Without the room that the home keeps for itself they fail.
#[test]
fn a_disk_that_a_volume_filled_locks_nobody_out() {
    for kept in [true, false] {
        let disk = SmallFs::ext4(64);
        let mut home = Home::new();
        home.move_to(&disk.path().join("home"));
        let scene = Scene::in_home(home, &[]);
        let uri = scene.attach();
        let written = io(&uri, &["write -P 0x52 0 400M", "flush"]);
        assert!(both(&written).contains("No space left"), "{}", both(&written));
        // Somebody else takes what the volume leaves, to the last block.
        let mut files = 0;
        let mut fill = |size: usize| {
            while fs::write(disk.path().join(format!("filler-{files}")), vec![1; size]).is_ok() {
                files += 1;
            }
            files += 1;
        };
        fill(64 << 10);
        fill(1);
        let ballast = scene.home.path().join("ballast");
        assert_eq!(crate::harness::mount::allocated(&ballast), 1 << 20);
        if !kept {
            fs::OpenOptions::new().write(true).open(&ballast).unwrap().set_len(0).unwrap();
            tool("sync").arg("-f").arg(disk.path()).status().unwrap();
            fill(64 << 10);
            fill(1);
        }
        let volume = scene.volume.as_str();
        let outcome = [
            vec!["ec2", "create-volume", "--size", "1"],
            vec!["ec2", "describe-volumes"],
            vec!["volume", "inspect", volume],
            vec!["ec2", "describe-volumes"],
            vec!["ec2", "detach-volume", "--volume-id", volume],
            vec!["ec2", "describe-volumes", "--volume-ids", volume],
            vec!["ec2", "delete-volume", "--volume-id", volume],
        ]
        .map(|arguments| scene.home.run(arguments));
        let said: Vec<_> = outcome.iter().map(both).collect();
        assert!(!said.iter().any(|said| said.contains("panicked")), "{said:?}");
        assert!(!outcome[0].status.success() && said[0].contains("full"), "{}", said[0]);
        let worked = outcome[1..].iter().all(|output| output.status.success());
        assert_eq!(worked, kept, "{said:?}");
        if kept {
            assert!(!scene.file().exists());
            scene.home.json("ec2 create-volume --size 1");
        }
    }
}

#[test]
fn an_attached_volume_is_attached_once_and_not_deleted_or_imported_over() {
    let scene = Scene::new();
    scene.attach();
    let volume = scene.volume.as_str();
    for arguments in
        [vec!["ec2", "attach-volume", "--volume-id", volume], vec!["ec2", "delete-volume", "--volume-id", volume]]
    {
        let said = scene.home.refused(254, &arguments);
        assert!(said.contains("(VolumeInUse)"), "{said}");
    }
    let image = scene.home.scratch().join("image");
    fs::write(&image, vec![1; 1 << 20]).unwrap();
    let import = ["volume", "import", "--volume-id", volume, "--file", image.to_str().unwrap()];
    let said = scene.home.refused(254, &import);
    assert!(said.contains("(VolumeInUse)"), "{said}");
    scene.detach();
    succeed(&mut scene.home.command(["volume", "import", "--volume-id", volume, "--file", image.to_str().unwrap()]));
    scene.home.json(&format!("ec2 delete-volume --volume-id {volume}"));
    assert!(!scene.file().exists());
}

#[test]
fn a_disabled_key_closes_the_volume_at_the_next_attach_and_not_before() {
    let scene = Scene::new();
    let uri = scene.attach();
    io_works(&uri, &["write -P 0x71 0 1M", "flush"]);
    scene.home.json(&format!("kms disable-key --key-id {}", scene.cmk));
    io_works(&uri, &["read -P 0x71 0 1M", "write -P 0x72 1M 1M", "flush"]);
    scene.detach();
    let said = scene.home.refused(254, &["ec2", "attach-volume", "--volume-id", &scene.volume]);
    assert!(said.contains("(CustomerKeyHasBeenRevoked)"), "{said}");
    scene.home.json(&format!("kms enable-key --key-id {}", scene.cmk));
    let uri = scene.attach();
    io_works(&uri, &["read -P 0x71 0 1M", "read -P 0x72 1M 1M"]);
    scene.detach();
}

/// ext4 ends a file below 16 TiB, xfs does not.
#[test]
fn what_the_file_system_cannot_hold_is_refused_with_the_reason() {
    for (disk, fits) in [(SmallFs::ext4(64), false), (SmallFs::xfs(300), true)] {
        let mut home = Home::new();
        home.move_to(&disk.path().join("home"));
        let cmk = home.json("kms create-key")["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
        let line = format!("ec2 create-volume --size 65536 --volume-type gp3 --encrypted --kms-key-id {cmk}");
        let output = home.run(line.split_whitespace());
        let said = both(&output);
        assert_eq!(output.status.success(), fits, "{said}");
        if fits {
            let volume: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let file = home.path().join(format!("volumes/{}.luks", volume["VolumeId"].as_str().unwrap()));
            assert_eq!(fs::metadata(&file).unwrap().len(), (65536 << 30) + (16 << 20));
            assert!(crate::harness::mount::allocated(&file) < 4 << 20);
        } else {
            assert!(said.contains("16 TiB"), "{said}");
            assert!(fs::read_dir(home.path().join("volumes")).unwrap().next().is_none(), "a file is left behind");
        }
    }
}

/// One copy of the header is enough, and the other is put right; without either there is nothing to open and cryptsetup agrees.
#[test]
fn a_damaged_header_copy_is_repaired_and_two_are_refused() {
    let scene = Scene::new();
    let uri = scene.attach();
    io_works(&uri, &["write -P 0x81 0 1M", "flush"]);
    scene.detach();
    let whole = {
        let mut start = vec![0; 32 << 10];
        fs::File::open(scene.file()).unwrap().read_exact_at(&mut start, 0).unwrap();
        start
    };
    let file = fs::OpenOptions::new().write(true).open(scene.file()).unwrap();
    // In the magic, the sequence id, the JSON, the padding; of the first copy, of the second.
    for offset in [0, 16, 4100, 16383, 16384, 16384 + 24, 32767] {
        file.write_all_at(&[whole[offset] ^ 0x10], offset as u64).unwrap();
        let verified = scene.home.run(["volume", "verify", "--volume-id", &scene.volume]);
        assert_eq!(verified.status.code(), Some(1), "byte {offset}: {}", both(&verified));
        let uri = scene.attach();
        io_works(&uri, &["read -P 0x81 0 1M"]);
        scene.detach();
        // Both copies are valid again and say the same, to the Python reader too.
        let header = scene.header();
        assert_eq!(header["label"], scene.volume.as_str());
        scene.home.text(&format!("volume verify --volume-id {}", scene.volume));
    }
    file.write_all_at(&[0xff; 16], 4200).unwrap();
    file.write_all_at(&[0xff; 16], 16384 + 4200).unwrap();
    let output = scene.home.run(["ec2", "attach-volume", "--volume-id", &scene.volume]);
    let said = both(&output);
    assert!(!output.status.success() && said.contains("header") && !said.contains("panicked"), "{said}");
    assert!(!tool("cryptsetup").arg("isLuks").arg(scene.file()).output().unwrap().status.success());
    file.write_all_at(&whole, 0).unwrap();
    let uri = scene.attach();
    io_works(&uri, &["read -P 0x81 0 1M"]);
    scene.detach();
}
