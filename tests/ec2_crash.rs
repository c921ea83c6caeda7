//! Commands on volumes that are killed at any moment: what the next command finds is whole or gone.
//!
//! The states that a kill can leave are also tested one by one beside the code that repairs them, each with its twin; here
//! the program itself is killed, at times spread over its run.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Home, both, eventually, full, tool};
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
    let attach = || scene.home.command(["ec2", "attach-volume", "--volume-id", &scene.volume]);
    let whole = duration(&mut attach());
    scene.detach();
    for round in 0..rounds() {
        killed(&mut attach(), whole, round, rounds());
        is_attached_or_free(&scene, &format!("round {round}"));
    }
    scene.attach();
}

/// The kill comes exactly at each call by which the command changes the disk, waits for its exporter or hears from it: also
/// between the exporter's start and the commit that records it.
#[test]
fn an_attach_killed_at_any_of_its_system_calls_leaves_the_volume_attached_or_free() {
    let scene = Scene::new();
    let mut between = 0;
    for (call, every) in [("clone3", 1), ("poll", 1), ("read", 1), ("write", 1), ("fsync", 1), ("pwrite64", 4)] {
        let every = if full() { 1 } else { every };
        for when in (1..).step_by(every) {
            let attach = scene.home.command(["ec2", "attach-volume", "--volume-id", &scene.volume]);
            let mut traced = tool("strace");
            traced.args(["-qq", "-o", "trace", "-e", &format!("trace=clone3,{call}"), "-e"]);
            traced.arg(format!("inject={call}:signal=KILL:when={when}"));
            traced.arg(attach.get_program()).args(attach.get_args()).current_dir(scene.home.scratch());
            traced.envs(attach.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let done = traced.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success();
            let trace = std::fs::read_to_string(scene.home.scratch().join("trace")).unwrap();
            between += usize::from(!done && trace.contains("clone3("));
            is_attached_or_free(&scene, &format!("{call} {when}"));
            if done {
                assert!(when > 1, "{call} is never called");
                break;
            }
        }
    }
    assert!(between > 3, "the command was killed {between} times after its exporter had been started");
    scene.attach();
}

/// Waits until the volume is attached with everything that belongs to it or free of all of it, and frees it.
fn is_attached_or_free(scene: &Scene, at: &str) {
    let home = &scene.home;
    let mut state = String::new();
    // An exporter whose starter died before it served ends by itself.
    eventually(&format!("the volume is attached by a process or free of any: {at}"), || {
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
        assert_eq!(grants(home, &scene.cmk).as_array().unwrap().len(), 1, "{at}");
        scene.detach();
    }
    assert_eq!(grants(home, &scene.cmk), json!([]), "{at}");
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

/// Bytes of each slot of a volume that the storm writes.
const SLOT: usize = 64 << 10;
const SLOTS: usize = 8;

/// What a storm knows of a volume: for each slot the bytes that each of its units may be filled with. One, once a write was
/// acknowledged; more while writes were killed since.
type Slots = [Vec<u8>; SLOTS];

/// One home in which commands and exporters are killed at random, and what of it must be there afterwards.
struct Storm {
    scene: Scene,
    volumes: BTreeMap<String, Slots>,
    /// How long each command takes when it is left alone.
    whole: BTreeMap<&'static str, Duration>,
    random: u64,
}

impl Storm {
    /// Knuth's MMIX generator: the same storm every time, but for the machine's own timing.
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % bound
    }

    /// Runs `command`, and kills it at some time if `kill` says so; whether it ended by itself and well.
    fn run(&mut self, name: &'static str, command: &mut Command, kill: bool) -> bool {
        if !kill {
            let began = Instant::now();
            let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success();
            self.whole.insert(name, began.elapsed());
            return done;
        }
        let whole = self.whole.get(name).copied().unwrap_or(Duration::from_millis(300));
        let part = u32::try_from(self.below(110)).unwrap();
        killed(command, whole, part, 100);
        false
    }

    fn round(&mut self, round: usize) {
        let ids: Vec<String> = self.volumes.keys().cloned().collect();
        let kill = self.below(4) != 0;
        let id = ids.get(self.below(ids.len().max(1))).cloned().unwrap_or_default();
        let home = |storm: &Self, arguments: &[&str]| storm.scene.home.command(arguments);
        let cmk = self.scene.cmk.clone();
        let byte = u8::try_from(round % 250 + 1).unwrap();
        match if ids.len() < 2 { 0 } else { self.below(10) } {
            0 => {
                let mut create =
                    home(self, &["ec2", "create-volume", "--size", "1", "--encrypted", "--kms-key-id", &cmk]);
                self.run("create", &mut create, kill);
            }
            1 | 2 => {
                let mut attach = home(self, &["ec2", "attach-volume", "--volume-id", &id]);
                self.run("attach", &mut attach, kill);
            }
            3 => {
                let mut detach = home(self, &["ec2", "detach-volume", "--volume-id", &id]);
                self.run("detach", &mut detach, kill);
            }
            4 | 5 => {
                let slot = self.below(SLOTS);
                std::fs::write(self.scene.home.scratch().join("data"), vec![byte; SLOT]).unwrap();
                let offset = (slot * SLOT).to_string();
                let mut write = home(self, &["volume", "write", &id, "--offset", &offset, "--file", "data"]);
                let done = self.run("write", &mut write, kill);
                self.written(&id, slot, byte, done);
            }
            6 => {
                std::fs::write(self.scene.home.scratch().join("image"), vec![byte; SLOT * SLOTS]).unwrap();
                let mut import = home(self, &["volume", "import", &id, "image"]);
                let done = self.run("import", &mut import, kill);
                (0..SLOTS).for_each(|slot| self.written(&id, slot, byte, done));
            }
            7 => {
                let mut delete = home(self, &["ec2", "delete-volume", "--volume-id", &id]);
                self.run("delete", &mut delete, kill);
                // It may be gone; what is there is found again by the next look.
                self.volumes.remove(&id).unwrap();
                let listed = volumes(&self.scene.home);
                assert!(kill || listed.iter().all(|one| one["VolumeId"] != id.as_str() || one["State"] == "in-use"));
                if listed.iter().any(|one| one["VolumeId"] == id.as_str()) {
                    self.volumes.insert(id.clone(), self.read(&id));
                }
            }
            8 => {
                let mut export = home(self, &["volume", "export", &id, "out", "--overwrite"]);
                self.run("export", &mut export, kill);
            }
            _ => {
                for pid in self.scene.home.processes() {
                    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
                }
                eventually("the exporters are gone", || self.scene.home.processes().is_empty());
            }
        }
    }

    fn written(&mut self, id: &str, slot: usize, byte: u8, acknowledged: bool) {
        let slot = &mut self.volumes.get_mut(id).unwrap()[slot];
        if acknowledged {
            slot.clear();
        }
        slot.push(byte);
    }

    /// What is there now, as far as a unit is one byte over and over.
    fn read(&self, id: &str) -> Slots {
        let output = self.scene.home.run(["volume", "read", id, "--length", &(SLOT * SLOTS).to_string()]);
        assert!(output.status.success(), "{}", both(&output));
        std::array::from_fn(|slot| {
            let mut found: Vec<u8> = Vec::new();
            for unit in output.stdout[slot * SLOT..][..SLOT].chunks(512) {
                assert!(unit.iter().all(|byte| *byte == unit[0]), "a unit of {id} is torn");
                if !found.contains(&unit[0]) {
                    found.push(unit[0]);
                }
            }
            found
        })
    }

    /// After one more command nothing is left over, and what was acknowledged is there.
    fn check(&mut self, round: usize) {
        let home = &self.scene.home;
        let mut listed = Vec::new();
        // An exporter whose starter was killed before it served ends by itself.
        eventually("every volume is attached by a process or free of any", || {
            listed = volumes(home);
            let attached = listed.iter().filter(|one| one["State"] == "in-use").count();
            listed.iter().all(|one| one["State"] == "available" || one["Attachments"][0]["State"] == "attached")
                && home.processes().len() == attached
        });
        let ids = |state: &str| -> Vec<String> {
            let of = listed.iter().filter(|one| state.is_empty() || one["State"] == state);
            of.map(|one| one["VolumeId"].as_str().unwrap().to_owned()).collect()
        };
        let names = |folder: &std::path::Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        let files: Vec<_> = ids("").iter().map(|id| format!("{id}.luks")).collect();
        let latches: Vec<_> = files.iter().map(|file| format!("{file}.latch")).collect();
        // A volume that was open for writing has its latch, made ahead. What was being made is swept when it is a minute old.
        let mut found = names(&home.path().join("volumes"));
        found.retain(|name| !latches.contains(name) && !name.contains(".new"));
        assert_eq!(found, sorted(files), "round {round}");
        let sockets = ids("in-use").iter().flat_map(|id| [format!("{id}.ctl"), format!("{id}.sock")]).collect();
        let mut found = names(&home.path().join("run"));
        found.retain(|name| name.contains(".sock") || name.contains(".ctl"));
        assert_eq!(found, sorted(sockets), "round {round}");
        assert_eq!(grants(home, &self.scene.cmk).as_array().unwrap().len(), ids("in-use").len(), "round {round}");
        assert!(!names(&home.scratch()).iter().any(|name| name.contains(".part")), "round {round}");
        for id in ids("") {
            let found = self.read(&id);
            let known = self.volumes.entry(id.clone()).or_insert_with(|| std::array::from_fn(|_| vec![0]));
            for (slot, bytes) in found.iter().enumerate() {
                let may_be = &known[slot];
                assert!(bytes.iter().all(|byte| may_be.contains(byte)), "round {round}, {id}, slot {slot}: {bytes:?}");
            }
        }
        let listed = ids("");
        assert!(self.volumes.keys().all(|id| listed.contains(id)), "round {round}: {listed:?} of {:?}", self.volumes);
    }
}

/// Any command, and any exporter, is killed at any moment, one after another in the same home.
#[test]
fn a_storm_of_kills_leaves_nothing_over_and_loses_nothing_flushed() {
    let scene = Scene::new();
    let volumes = [(scene.volume.clone(), std::array::from_fn(|_| vec![0]))].into();
    let mut storm = Storm { scene, volumes, whole: BTreeMap::new(), random: 7 };
    for round in 0..if full() { 400 } else { 40 } {
        storm.round(round);
        storm.check(round);
    }
    let home = &storm.scene.home;
    for one in self::volumes(home) {
        let id = one["VolumeId"].as_str().unwrap();
        home.text(&format!("volume verify {id}"));
        if one["State"] == "in-use" {
            home.json(&format!("ec2 detach-volume --volume-id {id}"));
        }
        home.json(&format!("ec2 delete-volume --volume-id {id}"));
    }
    assert_eq!((home.processes(), grants(home, &storm.scene.cmk)), (vec![], json!([])), "every lock could be had");
}

/// Every volume is in use by an instance that runs, or there is none; no file, grant or process is left besides.
fn nothing_is_left_besides(home: &Home, key: &str) {
    let shown = home.json("ec2 describe-instances")["Reservations"].clone();
    let mut attached = 0;
    for instance in shown.as_array().unwrap().iter().flat_map(|one| one["Instances"].as_array().unwrap()) {
        let mappings = instance["BlockDeviceMappings"].as_array().unwrap().len();
        match instance["State"]["Name"].as_str().unwrap() {
            "running" => assert_eq!(mappings, 2, "{instance}"),
            "terminated" => assert_eq!(mappings, 0, "{instance}"),
            other => panic!("{other} is no state to rest in: {instance}"),
        }
        attached += mappings;
    }
    let volumes = volumes(home);
    assert_eq!(volumes.len(), attached, "{volumes:?}");
    assert!(volumes.iter().all(|volume| volume["State"] == "in-use"), "{volumes:?}");
    assert_eq!(grants(home, key).as_array().unwrap().len(), attached);
    eventually("exporters end with their instances", || home.processes().len() == attached);
}

#[test]
fn a_launch_that_is_killed_leaves_whole_instances_or_none() {
    let home = Home::new();
    let key = home.json("kms create-key")["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    let mapping = |device: &str| format!("DeviceName={device},Ebs={{VolumeSize=1,Encrypted=true,KmsKeyId={key}}}");
    let (one, other) = (mapping("/dev/sdf"), mapping("/dev/sdg"));
    let run = ["ec2", "run-instances", "--image-id", "ami-12345678", "--block-device-mappings", &one, &other];
    let whole = duration(&mut home.command(run));
    let rounds = rounds() / 2;
    for round in 0..rounds {
        killed(&mut home.command(run), whole, round, rounds);
        if round % 4 == 3 {
            nothing_is_left_besides(&home, &key);
        }
    }
    nothing_is_left_besides(&home, &key);
}

#[test]
fn a_termination_that_is_killed_is_finished() {
    let home = Home::new();
    let key = home.json("kms create-key")["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    let mapping = |device: &str| format!("DeviceName={device},Ebs={{VolumeSize=1,Encrypted=true,KmsKeyId={key}}}");
    let (one, other) = (mapping("/dev/sdf"), mapping("/dev/sdg"));
    let run = ["ec2", "run-instances", "--image-id", "ami-12345678", "--block-device-mappings", &one, &other];
    let launch = || home.json_of(&run)["Instances"][0]["InstanceId"].as_str().unwrap().to_owned();
    let terminate = |id: &str| home.command(["ec2", "terminate-instances", "--instance-ids", id]);
    let whole = duration(&mut terminate(&launch()));
    let rounds = rounds() / 3;
    for round in 0..rounds {
        killed(&mut terminate(&launch()), whole, round, rounds);
        nothing_is_left_besides(&home, &key);
    }
}
