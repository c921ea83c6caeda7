//! The data key is nowhere but in the exporter's locked memory, and the hunt that says so would find it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::hunt::{Dump, Hunt, core_of};
use crate::harness::{Home, both, succeed, tool};
use crate::scene::Scene;

/// Every place at once: files of home and temporary folder, arguments and environments of all processes.
fn places(scene: &Scene, hunt: &Hunt) -> Vec<String> {
    let mut found = hunt.in_folder(&scene.home.path());
    found.extend(hunt.in_folder(&scene.home.scratch()));
    found.extend(hunt.in_every_process());
    found
}

fn exporter(home: &Home) -> i32 {
    let found = home.processes();
    assert_eq!(found.len(), 1, "one exporter holds files of the home open: {found:?}");
    found[0]
}

/// HKDF-SHA256 as RFC 5869 has it, by OpenSSL: what the home keeps sealed beside the wrapped data key.
fn manifest_key(data_key: &[u8]) -> Vec<u8> {
    let hmac = |key: &[u8], data: &[u8]| {
        let key = openssl::pkey::PKey::hmac(key).unwrap();
        let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key).unwrap();
        signer.sign_oneshot_to_vec(data).unwrap()
    };
    hmac(&hmac(&[0; 32], data_key), b"blockseal manifest key v1\x01")
}

#[test]
fn the_manifest_key_is_in_no_file_argument_environment_or_core_dump() {
    let scene = Scene::new();
    let hunt = Hunt::new(&manifest_key(&scene.data_key()));
    assert_eq!(places(&scene, &hunt), Vec::<String>::new(), "at rest it is sealed");
    scene.attach();
    assert_eq!(places(&scene, &hunt), Vec::<String>::new(), "while the volume is attached");
    let cores = tempfile::tempdir().unwrap();
    let everything = core_of(exporter(&scene.home), Dump::Everything, cores.path());
    assert_eq!(hunt.in_bytes(&everything), Vec::<String>::new(), "an exporter has no use for it");
    scene.detach();
    // The twin: it is the key that the records have sealed, and lying in the home it would have been found.
    let verified = scene.home.json(&format!("volume verify --volume-id {}", scene.volume));
    assert_eq!(verified["Problems"], serde_json::json!([]));
    fs::write(scene.home.path().join("planted"), manifest_key(&scene.data_key())).unwrap();
    assert_ne!(hunt.in_folder(&scene.home.path()), Vec::<String>::new());
}

#[test]
fn the_data_key_is_in_no_file_argument_environment_log_or_core_dump() {
    let scene = Scene::new();
    let hunt = Hunt::new(&scene.data_key());
    assert_eq!(places(&scene, &hunt), Vec::<String>::new(), "before it is attached");

    // The key crosses to the exporter while `attach-volume` runs: every process is looked at all the while.
    let attached = AtomicBool::new(false);
    let uri = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut found = Vec::new();
            while !attached.load(Ordering::Relaxed) {
                found.extend(hunt.in_every_process());
            }
            found
        });
        let uri = scene.attach();
        attached.store(true, Ordering::Relaxed);
        assert_eq!(watcher.join().unwrap(), Vec::<String>::new(), "while it was being attached");
        uri
    });
    succeed(tool("qemu-io").args(["-f", "raw", "-c", "write -P 1 0 4M", "-c", "read 0 4M", "-c", "flush"]).arg(&uri));
    assert_eq!(places(&scene, &hunt), Vec::<String>::new(), "while it is attached");

    let pid = exporter(&scene.home);
    let cores = tempfile::tempdir().unwrap();
    let core = core_of(pid, Dump::AsTheKernelDoes, cores.path());
    assert!(core.len() > 1 << 20, "a core of {} bytes holds nothing to look at", core.len());
    assert_eq!(hunt.in_bytes(&core), Vec::<String>::new(), "in the exporter's core dump");
    // The twin: with the exclusion of secret pages lifted the key is there, and the hunt finds it.
    let everything = core_of(pid, Dump::Everything, cores.path());
    assert_ne!(hunt.in_bytes(&everything), Vec::<String>::new());

    scene.detach();
    crate::harness::eventually("the exporter is gone", || scene.home.processes().is_empty());
    assert_eq!(places(&scene, &hunt), Vec::<String>::new(), "after it was detached");
}

/// The plaintext of a data key that a caller asked for, and the root key, stay out of the trail and the store as well.
#[test]
fn plaintext_that_kms_hands_out_is_not_recorded() {
    let home = Home::new();
    let cmk = home.json("kms create-key")["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    let answer = home.json(&format!("kms generate-data-key --key-id {cmk} --number-of-bytes 64"));
    let plaintext = answer["Plaintext"].as_str().unwrap();
    let hunt = Hunt::new(&base64::Engine::decode(&base64::engine::general_purpose::STANDARD, plaintext).unwrap());
    assert_eq!(hunt.in_folder(&home.path()), Vec::<String>::new());
    // The twin: written anywhere into the home it would have been found.
    fs::write(home.path().join("planted"), plaintext).unwrap();
    assert_ne!(hunt.in_folder(&home.path()), Vec::<String>::new());
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Sockets, key files and the home itself are for their owner alone, under a careless umask too.
#[test]
fn nothing_of_the_home_is_open_to_others() {
    let scene = Scene::new();
    let mut attach = tool("sh");
    let program = crate::harness::program();
    attach.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(&program);
    attach.args(["ec2", "attach-volume", "--volume-id", &scene.volume]).env("BLOCKSEAL_HOME", scene.home.path());
    succeed(&mut attach);
    let mut folders = vec![scene.home.path()];
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder) & 0o077, 0, "{} is open to others", folder.display());
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path) & 0o077, 0, "{} is open to others", path.display());
            }
        }
    }
    scene.detach();
}

/// No command but `kms decrypt` prints the data key, whatever it is asked to show, and none leaves it in a file: those that
/// read and write a detached volume hold the key in their own process.
#[test]
fn no_command_on_a_volume_prints_its_key() {
    let scene = Scene::fast();
    let hunt = Hunt::new(&scene.data_key());
    let id = scene.volume.as_str();
    let content = scene.home.scratch().join("content");
    fs::write(&content, vec![7; 70_000]).unwrap();
    let content = content.to_str().unwrap();
    let commands: Vec<Vec<&str>> = vec![
        vec!["volume", "write", "--volume-id", id, "--offset", "1M", "--file", content],
        vec!["volume", "read", "--volume-id", id, "--offset", "1M", "--length", "64K"],
        vec!["volume", "inspect", "--volume-id", id],
        vec!["volume", "inspect", "--volume-id", id, "--envelope"],
        vec!["volume", "verify", "--volume-id", id],
        vec!["volume", "fill", "--volume-id", id],
        vec!["ec2", "describe-volumes", "--output", "table"],
        vec!["ec2", "attach-volume", "--volume-id", id],
        vec!["volume", "inspect", "--volume-id", id, "--envelope"],
        vec!["ec2", "describe-volumes", "--volume-ids", id],
        vec!["ec2", "detach-volume", "--volume-id", id],
        vec!["cloudtrail", "lookup-events", "--output", "text"],
        vec!["kms", "list-aliases"],
    ];
    for command in commands {
        let output = scene.home.run(&command);
        assert!(output.status.success(), "{command:?}: {}", both(&output));
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(hunt.in_bytes(&said), Vec::<String>::new(), "printed by {command:?}");
    }
    assert_eq!(places(&scene, &hunt), Vec::<String>::new());
    // The twin: the one command that is for it prints it, and the hunt sees that.
    let token = scene.token();
    let pairs = token["encryption_context"].to_string();
    let blob = token["ciphertext_blob"].as_str().unwrap();
    let shown = scene.home.run(["kms", "decrypt", "--ciphertext-blob", blob, "--encryption-context", &pairs]);
    assert_ne!(hunt.in_bytes(&shown.stdout), Vec::<String>::new());
}
