//! Faults to order on an attached volume, seen by a client of it.

use std::time::{Duration, Instant};

use blockseal::export::{Client, ClientError, NbdError};
use serde_json::{Value, json};

use crate::harness::{both, tool};
use crate::scene::Scene;

impl Scene {
    fn order(&self, fault: &str) {
        self.home.text(&format!("faults set {}={fault}", self.volume));
    }

    fn ordered(&self) -> Value {
        self.home.json("faults list")["Faults"].clone()
    }

    fn connect(&self) -> Client {
        let socket = self.home.path().join("run").join(format!("{}.sock", self.volume));
        Client::connect(&socket, &self.volume).unwrap()
    }

    fn status(&self) -> String {
        let found = self.home.json(&format!("ec2 describe-volume-status --volume-ids {}", self.volume));
        let status = &found["VolumeStatuses"][0]["VolumeStatus"];
        format!("{} {}", status["Status"], status["Details"][1]["Status"]).replace('"', "")
    }
}

fn filled(client: &mut Client, offset: u64) -> [u8; 512] {
    let mut bytes = [0xee; 512];
    client.read(offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_nth_write_is_an_error_to_the_client_and_those_behind_it_are_not() {
    let scene = Scene::new();
    scene.attach();
    let mut client = scene.connect();
    client.write(0, &[1; 512]).unwrap();
    scene.order("error:2");
    assert_eq!(scene.ordered(), json!([{"Volume": scene.volume, "Fault": "error:2"}]));
    client.write(0, &[2; 512]).unwrap();
    match client.write(0, &[3; 512]) {
        Err(ClientError::Failed { error: NbdError::Io, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(filled(&mut client, 0), [2; 512], "the write that failed changed nothing");
    client.write(512, &[4; 512]).unwrap();
    client.flush().unwrap();
    assert_eq!((filled(&mut client, 512), scene.ordered()), ([4; 512], json!([])));
    drop(client);
    scene.detach();
    scene.attach();
    let mut client = scene.connect();
    assert_eq!((filled(&mut client, 0), filled(&mut client, 512)), ([2; 512], [4; 512]));
    drop(client);
    scene.detach();
}

/// QEMU's client too sees an error of input and output, and goes on behind it.
#[test]
fn qemu_sees_the_error_and_goes_on() {
    let scene = Scene::new();
    let uri = scene.attach();
    scene.order("error:1");
    let io = |command: &str| both(&tool("qemu-io").args(["-f", "raw", "-c", command]).arg(&uri).output().unwrap());
    let failed = io("write -P 0x31 1M 64k");
    assert!(failed.contains("Input/output error"), "{failed}");
    for command in ["write -P 0x32 1M 64k", "read -P 0x32 1M 64k", "flush"] {
        let said = io(command);
        assert!(!said.contains("error") && !said.contains("failed"), "{command}: {said}");
    }
    scene.detach();
}

#[test]
fn stuck_io_goes_on_once_the_fault_is_cleared() {
    let scene = Scene::new();
    scene.attach();
    assert_eq!(scene.status(), "ok not-applicable");
    scene.order("stuck");
    let mut client = scene.connect();
    let writer = std::thread::spawn(move || client.write_durably(0, &[7; 512]).map(|()| client));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!writer.is_finished(), "it waits");
    assert_eq!(scene.status(), "impaired stalled");
    // The exporter is asked and answers meanwhile.
    assert_eq!(scene.home.json("ec2 describe-volumes")["Volumes"][0]["State"], "in-use");
    scene.home.text(&format!("faults clear {}", scene.volume));
    let mut client = writer.join().unwrap().unwrap();
    assert_eq!((filled(&mut client, 0), scene.status()), ([7; 512], "ok not-applicable".to_owned()));

    let began = Instant::now();
    scene.order("stuck:1500ms");
    client.flush().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1200), "{:?}", began.elapsed());
    scene.order("latency:400ms");
    let began = Instant::now();
    filled(&mut client, 0);
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    scene.home.text("faults clear");
    assert_eq!(scene.ordered(), json!([]));
    drop(client);
    scene.detach();
}

/// A detach lifts what was ordered: what was stuck is carried out, and nothing of it is lost.
#[test]
fn a_stuck_volume_is_detached_and_keeps_what_was_written() {
    let scene = Scene::new();
    scene.attach();
    let mut client = scene.connect();
    scene.order("stuck");
    let writer = std::thread::spawn(move || client.write(0, &[9; 512]));
    std::thread::sleep(Duration::from_millis(300));
    scene.detach();
    writer.join().unwrap().unwrap();
    scene.attach();
    let mut client = scene.connect();
    assert_eq!((filled(&mut client, 0), scene.ordered()), ([9; 512], json!([])));
    drop(client);
    scene.detach();
    let said = scene.home.refused(254, &["faults", "set", &format!("{}=stuck", scene.volume)]);
    assert!(said.contains("is not attached"), "{said}");
    for bad in ["error:0", "throttle:1", "stuck:11m"] {
        let said = scene.home.refused(252, &["faults", "set", &format!("{}={bad}", scene.volume)]);
        assert!(said.contains("is not a fault of a volume"), "{said}");
    }
}
