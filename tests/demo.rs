//! The demo: it must hold what it says, be plain in a pipe, leave nothing behind, and notice when something is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::harness::{Home, both, root, succeed, tool};

fn left_behind(scratch: &Path) -> Vec<PathBuf> {
    fs::read_dir(scratch).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Runs the demo with the scratch folder as TMPDIR, and `PATH` in front of the usual one.
fn demo(home: &Home, options: &[&str], path: Option<&Path>) -> Output {
    let mut command = home.command([&["demo"], options].concat());
    if let Some(path) = path {
        command.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
    }
    command.output().unwrap()
}

#[test]
fn every_step_is_as_it_says_and_nothing_is_left_behind() {
    let home = Home::fast();
    let output = demo(&home, &[], None);
    let said = both(&output);
    assert!(output.status.success(), "{said}");
    for words in [
        "$ KEY=$(blockseal kms create-key",
        "$ blockseal kms create-alias --alias-name alias/orders",
        "--db-instance-resource-id $DB",
        "ok: 32 MiB through NBD",
        "order,customer,c",
        "ok: the reader sees the table, the disk has noise",
        ": image, zeros, noise",
        "ok: An error occurred (InvalidCiphertextException) when calling the Decrypt operation:",
        "ok: An error occurred (CustomerKeyHasBeenRevoked) when calling the AttachVolume operation",
        "ok: An error occurred (DisabledException) when calling the Decrypt operation:",
        "CreateVolume(GenerateDataKeyWithoutPlaintext{V,D})",
        "AttachVolume(CreateGrant{V,D} Decrypt{V,D})",
        "Decrypt{V,D}!InvalidCiphertextException",
        "written and flushed",
        "Everything is as it says",
    ] {
        assert!(said.contains(words), "no '{words}' in:\n{said}");
    }
    assert!(!said.contains("FAILED") && !said.contains('\u{1b}') && said.is_ascii(), "plain in a pipe:\n{said}");
    // The whole story on one screen.
    assert_eq!(said.lines().find(|line| line.len() > 96), None);
    assert!(said.lines().count() <= 60, "{} lines:\n{said}", said.lines().count());
    assert_eq!(left_behind(&home.scratch()), [] as [PathBuf; 0]);
    assert!(!home.path().exists(), "the caller's home is not touched");
}

#[test]
fn kept_the_home_goes_on_working() {
    let home = Home::fast();
    let output = demo(&home, &["--keep"], None);
    let said = both(&output);
    assert!(output.status.success(), "{said}");
    let kept = said.rsplit_once("export BLOCKSEAL_HOME=").unwrap().1.trim().to_owned();
    let listed =
        home.command(["ec2", "describe-volumes", "--query", "Volumes[].State"]).env("BLOCKSEAL_HOME", &kept).output();
    let listed = listed.unwrap();
    assert_eq!(
        serde_json::from_slice::<Vec<String>>(&listed.stdout).unwrap(),
        ["available", "available"],
        "{}",
        both(&listed)
    );
}

/// Each claim is checked on what really happened: with a tool that lies the demo fails, with exit code 1.
#[test]
fn a_step_that_is_not_as_it_says_fails_the_demo() {
    use std::os::unix::fs::PermissionsExt as _;
    for (tool, lie) in [("sha256sum", "echo 00ff -"), ("cmp", "exit 1"), ("dd", "exit 0")] {
        let home = Home::fast();
        // Beside the scratch folder: what is left in there is looked at.
        let tools = home.scratch().parent().unwrap().join("tools");
        fs::create_dir(&tools).unwrap();
        fs::write(tools.join(tool), format!("#!/bin/sh\ncat > /dev/null\n{lie}\n")).unwrap();
        fs::set_permissions(tools.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
        let output = demo(&home, &[], Some(&tools));
        let said = both(&output);
        assert_eq!(output.status.code(), Some(1), "{tool}:\n{said}");
        assert!(said.contains("FAILED:") || said.contains("the demo is not as it says"), "{tool}:\n{said}");
        assert_eq!(left_behind(&home.scratch()), [] as [PathBuf; 0], "{tool}");
    }
}

/// The script makes an image with the same files as the stored one, and the stored one is a clean file system. (The bytes
/// are the same with the same e2fsprogs; another version may lay them out otherwise.)
#[test]
fn the_disk_image_is_what_its_script_makes() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made.gz");
    succeed(std::process::Command::new(root().join("fixtures/disk/make.sh")).arg(&made));
    let files = |packed: &Path| {
        let image = folder.path().join("image");
        fs::write(&image, succeed(tool("gzip").arg("-dc").arg(packed))).unwrap();
        succeed(tool("e2fsck").arg("-fn").arg(&image));
        let cat = |name: &str| succeed(tool("debugfs").args(["-R", &format!("cat {name}")]).arg(&image));
        [cat("/README"), cat("/orders.csv")]
    };
    let stored = files(&root().join("fixtures/disk/orders.ext4.gz"));
    assert!(stored[1].starts_with(b"order,customer,card,amount\n000001,") && stored[1].len() > 900_000);
    assert!(stored == files(&made));
}
