//! Exporters that hang or lose their volume, and callers of other accounts.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::eventually;
use crate::scene::Scene;

/// A stopped exporter answers nobody. Other commands do not wait for it, and `--force` ends it.
#[test]
fn a_hung_exporter_holds_up_nobody_and_ends_by_force() {
    let scene = Scene::new();
    scene.attach();
    let exporter = scene.home.processes()[0];
    kill(Pid::from_raw(exporter), Signal::SIGSTOP).unwrap();

    let began = Instant::now();
    scene.home.json("kms list-keys");
    scene.home.json("ec2 describe-volumes");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());

    // The twin: without force it is waited for, then refused with what to do.
    let detach = ["ec2", "detach-volume", "--volume-id", &scene.volume];
    let said = scene.home.refused(254, &detach);
    assert!(said.contains("--force"), "{said}");
    assert_eq!(scene.home.processes(), [exporter]);

    let began = Instant::now();
    let output = scene.home.run([&detach[..], &["--force"]].concat());
    assert!(output.status.success(), "{}", crate::harness::both(&output));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(scene.home.processes(), [0; 0], "nobody holds the key");
    scene.attach();
    scene.detach();
}

/// An exporter whose volume's file is gone serves nobody and holds a key: it ends, and its sockets are not left behind.
#[test]
fn an_exporter_that_lost_its_file_ends() {
    let scene = Scene::new();
    scene.attach();
    let exporter = scene.home.processes()[0];
    let aside = scene.home.scratch().join("aside");
    fs::rename(scene.file(), &aside).unwrap();
    eventually("the exporter has ended", || kill(Pid::from_raw(exporter), None).is_err() || is_zombie(exporter));
    fs::rename(&aside, scene.file()).unwrap();
    let volumes = scene.home.json("ec2 describe-volumes");
    assert_eq!(volumes["Volumes"][0]["State"], "available");
    scene.attach();
    scene.detach();
}

/// A process whose parent has not asked for its end yet.
fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn volumes_obey_no_principal_of_another_account() {
    let scene = Scene::new();
    let foreign = ["--principal", "arn:aws:iam::210987654321:root", "--account", "123456789012"];
    for operation in ["delete-volume", "attach-volume", "detach-volume"] {
        let arguments = [&foreign[..], &["ec2", operation, "--volume-id", &scene.volume]].concat();
        let said = scene.home.refused(254, &arguments);
        assert!(said.contains("(UnauthorizedOperation)"), "{operation}: {said}");
    }
    assert!(scene.file().exists());
    // The twin: a principal of the account may.
    let own = ["--principal", "arn:aws:iam::123456789012:user/ops", "ec2", "delete-volume", "--volume-id"];
    scene.home.json_of(&[&own[..], &[&scene.volume]].concat());
    assert!(!scene.file().exists());
}
