//! Commands on volumes that are killed at any moment: what the next command finds is whole or gone.
//!
//! The states that a kill can leave are also tested one by one beside the code that repairs them, each with its twin; here
//! the program itself is killed, at times spread over its run.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Home, both, eventually, full};
use crate::scene::Scene;

/// Kills per operation.
fn rounds() -> u32 {
    if full() { 200 } else { 25 }
}

/// How long the command takes when it is left alone.
fn duration(command: &mut Command) -> Duration {
    let began = Instant::now();
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    began.elapsed()
}

/// Starts the command and kills it after part `round` of `rounds` of `whole`.
fn killed(command: &mut Command, whole: Duration, round: u32, rounds: u32) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(whole * round / rounds);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn volumes(home: &Home) -> Vec<Value> {
    home.json("ec2 describe-volumes")["Volumes"].as_array().unwrap().clone()
}

fn grants(home: &Home, key: &str) -> Value {
    home.json(&format!("kms list-grants --key-id {key}"))["Grants"].clone()
}

#[test]
fn a_create_that_is_killed_leaves_a_whole_volume_or_none() {
    let scene = Scene::new();
    let home = &scene.home;
    let create = || home.command(["ec2", "create-volume", "--size", "1", "--encrypted", "--kms-key-id", &scene.cmk]);
    let whole = duration(&mut create());
    for round in 0..rounds() {
        killed(&mut create(), whole, round, rounds());
    }
    let listed = volumes(home);
    for volume in &listed {
        let id = volume["VolumeId"].as_str().unwrap();
        assert_eq!(volume["State"], "available");
        assert_eq!(volume["KmsKeyId"], scene.cmk.as_str());
        home.text(&format!("volume verify {id}"));
    }
    let mut names: Vec<String> = std::fs::read_dir(home.path().join("volumes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // A file that was never renamed is swept when it is a minute old.
        .filter(|name| !name.contains(".new"))
        .collect();
    let mut wanted: Vec<String> =
        listed.iter().map(|one| format!("{}.luks", one["VolumeId"].as_str().unwrap())).collect();
    names.sort();
    wanted.sort();
    assert_eq!(names, wanted, "every file has its volume and every volume its file");
    assert_eq!(home.json("kms list-keys")["Keys"].as_array().unwrap().len(), 1);
}

#[test]
fn an_attach_that_is_killed_leaves_the_volume_attached_or_free() {
    let scene = Scene::new();
    let home = &scene.home;
    let attach = || home.command(["ec2", "attach-volume", "--volume-id", &scene.volume]);
    let whole = duration(&mut attach());
    scene.detach();
    for round in 0..rounds() {
        killed(&mut attach(), whole, round, rounds());
        // An exporter whose starter died before it served ends by itself.
        let mut state = String::new();
        eventually("the volume is attached by a process or free of any", || {
            let volume = volumes(home).remove(0);
            volume["State"].as_str().unwrap().clone_into(&mut state);
            let held = home.processes().len();
            match (state.as_str(), &volume["Attachments"][0]["State"]) {
                ("available", Value::Null) => held == 0,
                ("in-use", attached) => attached == "attached" && held == 1,
                _ => false,
            }
        });
        if state == "in-use" {
            assert_eq!(grants(home, &scene.cmk).as_array().unwrap().len(), 1);
            scene.detach();
        }
        assert_eq!(grants(home, &scene.cmk), json!([]), "round {round}");
    }
    scene.attach();
}

#[test]
fn a_detach_that_is_killed_can_be_repeated() {
    let scene = Scene::new();
    let home = &scene.home;
    let detach = || home.command(["ec2", "detach-volume", "--volume-id", &scene.volume]);
    scene.attach();
    let whole = duration(&mut detach());
    for round in 0..rounds() {
        scene.attach();
        killed(&mut detach(), whole, round, rounds());
        eventually("the volume is attached or free", || {
            let output = detach().output().unwrap();
            output.status.success() || both(&output).contains("is in the 'available' state")
        });
        assert_eq!(volumes(home)[0]["State"], "available");
        assert_eq!((grants(home, &scene.cmk), home.processes().len()), (json!([]), 0), "round {round}");
    }
}

#[test]
fn a_delete_that_is_killed_leaves_the_volume_whole_or_gone() {
    let scene = Scene::new();
    let home = &scene.home;
    let create = format!("ec2 create-volume --size 1 --encrypted --kms-key-id {}", scene.cmk);
    let delete = |id: &str| home.command(["ec2", "delete-volume", "--volume-id", id]);
    let whole = duration(&mut delete(&scene.volume));
    for round in 0..rounds() {
        let id = home.json(&create)["VolumeId"].as_str().unwrap().to_owned();
        killed(&mut delete(&id), whole, round, rounds());
        match &volumes(home)[..] {
            [] => assert!(!home.path().join(format!("volumes/{id}.luks")).exists(), "round {round}"),
            [volume] => {
                assert_eq!((volume["VolumeId"].as_str(), volume["State"].as_str()), (Some(&id[..]), Some("available")));
                home.text(&format!("volume verify {id}"));
                home.json(&format!("ec2 delete-volume --volume-id {id}"));
            }
            more => panic!("{more:?}"),
        }
    }
}

/// An import that is killed leaves a volume that can be imported again; the lock goes with the process.
#[test]
fn an_import_that_is_killed_can_be_repeated() {
    let scene = Scene::new();
    let home = &scene.home;
    let image: Vec<u8> =
        (0..16_u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    std::fs::write(home.scratch().join("image"), &image).unwrap();
    let import = || home.command(["volume", "import", &scene.volume, "image"]);
    let whole = duration(&mut import());
    for round in 0..5 {
        killed(&mut import(), whole, round, 5);
        assert_eq!(volumes(home)[0]["State"], "available");
        home.text(&format!("volume verify {}", scene.volume));
    }
    home.json(&format!("volume import {} image", scene.volume));
    let back = home.run(["volume", "read", &scene.volume, "--length", "16M"]).stdout;
    assert!(back == image, "the image is whole");
}
