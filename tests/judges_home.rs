//! Homes that are not as they should be: newer, read-only, lax, reached through a link. Each is refused with what to do,
//! nothing in it changes, and the same home works once it is put right.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;

use crate::harness::mount::SmallFs;
use crate::harness::{Home, both};

/// A home with one key in it.
fn home() -> (Home, String) {
    let home = Home::new();
    let cmk = home.json("kms create-key")["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    (home, cmk)
}

/// Runs `kms describe-key`, which must fail without a panic and say all of `words`.
#[track_caller]
fn refused(home: &Home, cmk: &str, words: &[&str]) {
    let output = home.run(["kms", "describe-key", "--key-id", cmk]);
    let said = both(&output);
    assert!(matches!(output.status.code(), Some(253 | 255)), "{}: {said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(output.stdout, b"");
    for word in words {
        assert!(said.to_lowercase().contains(word), "{word:?} is not in: {said}");
    }
}

#[test]
fn a_home_made_by_a_newer_schema_is_left_alone() {
    let (home, cmk) = home();
    let database = home.path().join("state.db");
    let version = |change: i64| {
        let connection = Connection::open(&database).unwrap();
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert!(version > 0);
        connection.pragma_update(None, "user_version", version + change).unwrap();
    };
    version(1);
    refused(&home, &cmk, &["newer"]);
    version(-1);
    home.json(&format!("kms describe-key --key-id {cmk}"));
}

/// A state of no bytes, as a crash of another file system or a slip with `>` leaves it: it is not taken for a new home, whose
/// keys would not be the old ones.
#[test]
fn an_empty_state_is_refused_and_not_replaced() {
    let (home, cmk) = home();
    let database = home.path().join("state.db");
    let whole = fs::read(&database).unwrap();
    let aside = |name: &str| (home.path().join(name), home.scratch().join(name));
    for name in ["state.db-wal", "state.db-shm"] {
        let (from, to) = aside(name);
        fs::rename(from, to).unwrap();
    }
    for empty in [true, false] {
        if empty {
            fs::write(&database, "").unwrap();
        } else {
            fs::remove_file(&database).unwrap();
        }
        refused(&home, &cmk, &[if empty { "state.db is empty" } else { "state.db is missing" }, "root.key", "backup"]);
        assert_eq!(fs::metadata(&database).ok().map(|found| found.len()), empty.then_some(0));
    }
    fs::write(&database, whole).unwrap();
    for name in ["state.db-wal", "state.db-shm"] {
        let (to, from) = aside(name);
        fs::copy(from, to).unwrap();
    }
    home.json(&format!("kms describe-key --key-id {cmk}"));
    // The twin: where nothing needs the state, it is made.
    let fresh = Home::new();
    fs::create_dir_all(fresh.path()).unwrap();
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(fresh.path().join("state.db"), "").unwrap();
    fresh.json("kms create-key");
}

/// The whole main job in a home without `root.key`: what touches a key asks for the passphrase, an attached volume does
/// not.
#[test]
fn a_home_that_a_passphrase_opens_is_closed_without_it() {
    let home = Home::fast();
    let file = home.scratch().join("passphrase");
    let put = |text: &str| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    put("correct horse battery staple\n");
    let with = |arguments: &[&str]| {
        let output = home.command(arguments).env("BLOCKSEAL_PASSPHRASE_FILE", &file).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", both(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let option = ["--passphrase-file", file.to_str().unwrap()];
    let cmk = home.json_of(&[&option[..], &["kms", "create-key"]].concat())["KeyMetadata"]["Arn"].clone();
    let cmk = cmk.as_str().unwrap();
    assert!(!home.path().join("root.key").exists());
    let made =
        with(&["ec2", "create-volume", "--size", "1", "--encrypted", "--kms-key-id", cmk, "--query", "VolumeId"]);
    let id: String = serde_json::from_str(&made).unwrap();

    let attach = ["ec2", "attach-volume", "--volume-id", &id];
    let said = home.refused(253, &attach);
    assert!(said.contains("--passphrase-file FILE or BLOCKSEAL_PASSPHRASE_FILE"), "{said}");
    put("correct horse battery stapl\n");
    let wrong = home.refused(253, &[&option[..], &attach].concat());
    assert!(wrong.contains("the passphrase is not this home's"), "{wrong}");
    put("correct horse battery staple");
    with(&attach);

    // From here on nothing needs it: not the exporter, nor its clients, nor the end of the attachment.
    fs::remove_file(&file).unwrap();
    fs::write(home.scratch().join("content"), [7; 4096]).unwrap();
    home.text(&format!("volume write --volume-id {id} --offset 1M --file content"));
    home.text(&format!("ec2 describe-volumes --volume-ids {id}"));
    home.text(&format!("ec2 detach-volume --volume-id {id}"));
    let read = ["volume", "read", "--volume-id", &id, "--offset", "1M", "--length", "4K"];
    assert!(home.refused(253, &read).contains("made of a passphrase"));
    assert!(home.refused(253, &[&option[..], &read].concat()).contains("cannot be read"));
    put("correct horse battery staple\r\n");
    assert_eq!(home.run([&option[..], &read].concat()).stdout, [7; 4096]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(home.refused(253, &[&option[..], &read].concat()).contains("chmod 600"));

    // A home whose key is a file takes no passphrase.
    let (other, cmk) = self::home();
    put("correct horse battery staple");
    let describe = ["kms", "describe-key", "--key-id", &cmk];
    assert!(other.refused(253, &[&option[..], &describe].concat()).contains("does not apply"));
}

#[test]
fn a_read_only_home_is_refused_with_the_reason() {
    let disk = SmallFs::ext4(64);
    let home = Home::new();
    let run =
        |arguments: &[&str]| home.command(arguments).env("BLOCKSEAL_HOME", disk.path().join("home")).output().unwrap();
    assert!(run(&["kms", "create-key"]).status.success());
    disk.make_read_only();
    let output = run(&["kms", "create-key"]);
    let said = both(&output).to_lowercase();
    assert!(matches!(output.status.code(), Some(253 | 255)), "{}: {said}", output.status);
    assert!(said.contains("read-only") || said.contains("readonly"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_home_that_others_can_write_to_is_refused() {
    let (home, cmk) = home();
    for mode in [0o720, 0o702, 0o777] {
        fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
        refused(&home, &cmk, &["chmod"]);
    }
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
    home.json(&format!("kms describe-key --key-id {cmk}"));
}

#[test]
fn a_home_behind_a_symbolic_link_is_refused() {
    let (home, cmk) = home();
    let link = home.scratch().join("link");
    std::os::unix::fs::symlink(home.path(), &link).unwrap();
    let through = |path: &std::path::Path| {
        home.command(["kms", "describe-key", "--key-id", &cmk]).env("BLOCKSEAL_HOME", path).output().unwrap()
    };
    let output = through(&link);
    let said = both(&output);
    assert_eq!(output.status.code(), Some(253), "{said}");
    assert!(said.contains("symbolic link") && !said.contains("panicked"), "{said}");
    // The twin: the same home under its own name, which a folder before it may reach through a link.
    let before = home.scratch().join("before");
    std::os::unix::fs::symlink(home.path().parent().unwrap(), &before).unwrap();
    for path in [home.path(), before.join(home.path().file_name().unwrap())] {
        let output = through(&path);
        assert!(output.status.success(), "{}", both(&output));
    }
    assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
    // What is inside the home is never reached through a link, whoever planted it.
    fs::rename(home.path().join("state.db"), home.scratch().join("elsewhere.db")).unwrap();
    std::os::unix::fs::symlink(home.scratch().join("elsewhere.db"), home.path().join("state.db")).unwrap();
    refused(&home, &cmk, &["link"]);
}

#[test]
fn a_home_on_a_full_disk_says_so_and_keeps_its_keys() {
    let disk = SmallFs::ext4(16);
    let home = Home::new();
    let run =
        |arguments: &[&str]| home.command(arguments).env("BLOCKSEAL_HOME", disk.path().join("home")).output().unwrap();
    let made = run(&["kms", "create-key", "--query", "KeyMetadata.KeyId", "--output", "text"]);
    assert!(made.status.success(), "{}", both(&made));
    let cmk = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let filler = disk.path().join("filler");
    let full = fs::write(&filler, vec![1; 32 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    // The last few blocks too.
    let mut index = 0;
    while fs::write(disk.path().join(format!("small-{index}")), [1; 1024]).is_ok() {
        index += 1;
    }
    let mut refused = false;
    for _ in 0..50 {
        let output = run(&["kms", "create-key"]);
        let said = both(&output).to_lowercase();
        assert!(!said.contains("panicked"), "{said}");
        if !output.status.success() {
            assert!(said.contains("full") || said.contains("no space"), "{said}");
            refused = true;
            break;
        }
    }
    assert!(refused, "fifty keys went onto a full disk");
    fs::remove_file(&filler).unwrap();
    let described = run(&["kms", "describe-key", "--key-id", &cmk]);
    assert!(described.status.success(), "{}", both(&described));
    assert!(run(&["kms", "create-key"]).status.success());
}
