//! What SECURITY.md says of each attacker that no other test shows, above all where he wins: a page that promised more
//! than this would be wrong.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;

use crate::harness::{Home, feed, root, succeed};
use crate::scene::Scene;

/// Where a volume's data starts in its file.
const SEGMENT: u64 = 16 << 20;

fn write(scene: &Scene, offset: u64, bytes: &[u8]) {
    let offset = offset.to_string();
    let arguments = ["volume", "write", "--volume-id", &scene.volume, "--offset", &offset, "--file", "-"];
    let mut command = scene.home.command(arguments);
    let output = feed(command.stdin(Stdio::piped()), bytes);
    assert!(output.status.success(), "{}", crate::harness::both(&output));
}

fn read(home: &Home, volume: &str, offset: u64, length: usize) -> Vec<u8> {
    let (offset, length) = (offset.to_string(), length.to_string());
    let output = home.run(["volume", "read", "--volume-id", volume, "--offset", &offset, "--length", &length]);
    assert!(output.status.success(), "{}", crate::harness::both(&output));
    output.stdout
}

fn stored(scene: &Scene, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fs::File::open(scene.file()).unwrap().read_exact_at(&mut bytes, SEGMENT + offset).unwrap();
    bytes
}

fn store(scene: &Scene, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(scene.file()).unwrap();
    file.write_all_at(bytes, SEGMENT + offset).unwrap();
}

#[test]
fn who_reads_the_disk_once_learns_which_units_are_used_and_whose_they_are() {
    let scene = Scene::new();
    write(&scene, 1 << 20, &[0x5a; 8192]);
    assert_eq!(stored(&scene, (1 << 20) - 512, 512), [0; 512], "what was never written is a hole");
    let used = stored(&scene, 1 << 20, 8192);
    assert!(!used.windows(4).any(|run| run == [0x5a; 4]), "and what was is not its plaintext");
    assert_ne!(used[..4096], used[4096..], "equal sectors at different places differ");
    let header = fs::read(scene.file()).unwrap()[..32768].to_vec();
    let header = String::from_utf8_lossy(&header).into_owned();
    for named in [scene.volume.as_str(), crate::scene::DATABASE, scene.cmk.as_str()] {
        assert!(header.contains(named), "{named} stands in the header in the clear");
    }
}

#[test]
fn who_reads_the_disk_twice_sees_which_blocks_of_16_bytes_changed() {
    let scene = Scene::new();
    let mut plain = vec![0x5a; 4096];
    write(&scene, 0, &plain);
    let before = stored(&scene, 0, 4096);
    plain[1000] = 1;
    write(&scene, 0, &plain);
    let after = stored(&scene, 0, 4096);
    let changed: Vec<usize> =
        (0..256).filter(|block| before[block * 16..][..16] != after[block * 16..][..16]).collect();
    assert_eq!(changed, [1000 / 16]);
    plain[1000] = 0x5a;
    write(&scene, 0, &plain);
    assert_eq!(stored(&scene, 0, 4096), before, "and that the old content is back");
}

#[test]
fn who_writes_the_disk_can_put_old_bytes_back_make_noise_and_make_zeros_unnoticed() {
    let scene = Scene::new();
    write(&scene, 0, &[1; 4096]);
    let old = stored(&scene, 0, 512);
    write(&scene, 0, &[2; 4096]);
    store(&scene, 0, &old);
    assert_eq!(read(&scene.home, &scene.volume, 0, 512), [1; 512], "old bytes at their old place");
    store(&scene, 512, &[0; 512]);
    assert_eq!(read(&scene.home, &scene.volume, 512, 512), [0; 512], "a zeroed unit reads as zeros");
    let mut unit = stored(&scene, 1024, 512);
    unit[20] ^= 1;
    store(&scene, 1024, &unit);
    let noisy = read(&scene.home, &scene.volume, 1024, 512);
    assert_eq!((&noisy[..16], &noisy[32..]), (&[2; 16][..], &[2; 480][..]), "one flipped bit is noise in one block");
    assert_ne!(noisy[16..32], [2; 16]);
    scene.home.json(&format!("volume verify --volume-id {}", scene.volume));
}

/// Everything in one folder, the root key included: a copy of the home is the home.
#[test]
fn who_copies_the_home_with_its_root_key_has_everything_and_without_it_nothing() {
    let scene = Scene::new();
    write(&scene, 0, b"customer, card, amount");
    let mut copy = Home::new();
    let place = copy.scratch().join("copy");
    succeed(Command::new("cp").args(["-a", "--sparse=always"]).arg(scene.home.path()).arg(&place));
    copy.move_to(&place);
    assert_eq!(read(&copy, &scene.volume, 0, 8), b"customer");
    fs::remove_file(place.join("root.key")).unwrap();
    let refused = copy.run(["volume", "read", "--volume-id", &scene.volume, "--length", "8"]);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("root.key"), "{refused:?}");
}

/// The trail is a table in the home: whoever can write the home writes it too, and nothing tells.
#[test]
fn who_owns_the_home_can_rewrite_the_trail() {
    let scene = Scene::new();
    let names = || {
        let events = scene.home.json("cloudtrail lookup-events --no-paginate");
        events["Events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["EventName"].as_str().unwrap().to_owned())
            .collect()
    };
    let before: Vec<String> = names();
    assert!(before.contains(&"CreateVolume".to_owned()));
    let state = Connection::open(scene.home.path().join("state.db")).unwrap();
    let removed = state
        .execute_batch(
            "PRAGMA foreign_keys=OFF;
             DELETE FROM trail_records WHERE record ->> '$.eventName' = 'CreateVolume';
             DELETE FROM trail_index WHERE seq NOT IN (SELECT seq FROM trail_records);",
        )
        .map(|()| state.changes());
    assert!(removed.is_ok(), "{removed:?}");
    drop(state);
    let after: Vec<String> = names();
    assert!(!after.contains(&"CreateVolume".to_owned()));
}

/// A web page reaches TCP ports of this machine, and there is none.
#[test]
fn an_exporter_listens_on_no_network() {
    let scene = Scene::new();
    scene.attach();
    let exporters = scene.home.processes();
    assert_eq!(exporters.len(), 1);
    let sockets = sockets_of(exporters[0]);
    assert!(!sockets.is_empty(), "it has its Unix sockets");
    let network: String = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"]
        .iter()
        .map(|table| fs::read_to_string(format!("/proc/{}/net/{table}", exporters[0])).unwrap_or_default())
        .collect();
    let on_network = |inode: &String| network.lines().any(|line| line.split_whitespace().nth(9) == Some(inode));
    assert!(!sockets.iter().any(on_network), "{sockets:?}");

    // The look can find one: this test's own listener.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let own = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let found = sockets_of(i32::try_from(std::process::id()).unwrap());
    assert!(found.iter().any(|inode| own.lines().any(|line| line.split_whitespace().nth(9) == Some(inode))));
    drop(listener);
}

fn sockets_of(pid: i32) -> Vec<String> {
    let folder = format!("/proc/{pid}/fd");
    let links = fs::read_dir(folder).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

/// Every cell of the page names a test, and every test that it names is there.
#[test]
fn every_test_that_the_security_page_names_exists() {
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        gather(&root().join(folder), &mut sources);
    }
    let mut named = 0;
    for name in page.split('`').skip(1).step_by(2) {
        let is_test = name.matches('_').count() >= 3
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit());
        if is_test {
            named += 1;
            assert!(sources.contains(&format!("fn {name}(")), "SECURITY.md names `{name}`, and there is no such test");
        }
    }
    assert!(named > 30, "{named} tests are named");
    for row in
        page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---") && !line.contains("shown by"))
    {
        assert!(row.contains('`'), "no test is named in: {row}");
    }
}

fn gather(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
