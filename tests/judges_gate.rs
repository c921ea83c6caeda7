//! The gate itself: what it says before it starts, and that it never installs unasked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use crate::harness::{both, root};

/// Runs `tests/run` with a `dpkg-query` that knows no package and an `apt-get` that only leaves a mark.
fn run(arguments: &[&str]) -> (Output, bool) {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    for (name, script) in
        [("dpkg-query", "exit 1".to_owned()), ("apt-get", format!("touch {}; exit 1", mark.display()))]
    {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(root().join("tests/run"));
    command.args(arguments).env("PATH", path).stdin(std::process::Stdio::null());
    let output = command.output().unwrap();
    (output, mark.exists())
}

#[test]
fn missing_packages_are_named_and_installed_only_when_asked_for() {
    let (output, installed) = run(&[]);
    let said = both(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in ["needs: Debian 12", "root", "/dev/fuse", "loop devices", "cryptsetup-bin", "--yes"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!installed);
    // The twin: with --yes it goes to apt-get, whose failure ends the run before any test.
    let (output, installed) = run(&["--yes"]);
    assert_eq!(output.status.code(), Some(2), "{}", both(&output));
    assert!(installed);
    assert!(!both(&output).contains("passed"));
}

#[test]
fn an_unknown_option_is_refused() {
    let (output, installed) = run(&["--quick"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(both(&output).contains("usage: tests/run"));
    assert!(!installed);
}
