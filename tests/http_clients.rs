//! Clients that other people wrote, each in a script of its own below `tests/clients`, against a started server.

use std::process::Command;

use crate::harness::server::Server;
use crate::harness::{Home, both, root, tool};

/// Runs a client that must be content with what the server answers.
#[track_caller]
fn run(home: &Home, mut client: Command) {
    let server = Server::start(home, &[]);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        client.env_remove(name);
    }
    let output = client.arg(&server.url).current_dir(home.scratch()).output().unwrap();
    assert!(output.status.success(), "{}\n{}", both(&output), crate::harness::server::log_of(home));
}

fn script(name: &str) -> std::path::PathBuf {
    root().join("tests/clients").join(name)
}

/// Where `tests/clients/fetch` put what Debian does not have.
fn fetched() -> std::path::PathBuf {
    let cache = || Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cache/blockseal-tests/clients"));
    let folder = std::env::var_os("BLOCKSEAL_CLIENTS").map(Into::into).or_else(cache).unwrap();
    assert!(folder.join("complete").exists(), "no SDKs in {}: tests/run fetches them", folder.display());
    folder
}

/// Debian's boto3, and the newest one there was.
#[test]
fn boto3_works_unchanged() {
    boto3(tool("python3"));
    boto3(Command::new(fetched().join("venv/bin/python")));
}

#[test]
fn the_aws_encryption_sdk_works_unchanged() {
    let mut python = Command::new(fetched().join("venv/bin/python"));
    python.arg(script("encryption_sdk.py"));
    run(&Home::new(), python);
}

#[test]
fn the_aws_sdk_for_javascript_works_unchanged() {
    // A Node.js of Debian's or another: tests/run takes the one that is there.
    let mut node = Command::new("node");
    node.arg(script("client_kms.cjs")).env("NODE_PATH", fetched().join("node_modules"));
    run(&Home::new(), node);
}

fn boto3(mut python: Command) {
    let home = Home::new();
    python.arg(script("boto3_client.py"));
    run(&home, python);
}

#[test]
fn the_aws_cli_works_unchanged() {
    drop(tool("aws"));
    let mut shell = tool("bash");
    shell.arg(script("awscli.sh"));
    run(&Home::new(), shell);
}
