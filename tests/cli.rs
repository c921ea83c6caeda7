//! The program as its users meet it: the sessions in `tests/cmd`, and what a session cannot show.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::console;

/// One test per file, so that one that fails names its file.
macro_rules! sessions {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                console::check(Path::new(concat!("tests/cmd/", stringify!($name), ".session")));
            }
        )*

        #[test]
        fn every_file_is_run() {
            let mut files: Vec<_> = std::fs::read_dir("tests/cmd").unwrap().map(|file| file.unwrap().file_name()).collect();
            files.sort();
            let mut names = [$(concat!(stringify!($name), ".session")),*];
            names.sort();
            assert_eq!(files, names);
        }
    };
}

sessions! {
    clock
    help
    iam
    usage_errors
    configuration_errors
    ec2_instances
    ec2_volumes
    explain
    faults
    kms_crypto
    kms_errors
    kms_grants
    kms_keys
    output_forms
    pages
    sts
    trail
    trail_files
    trail_report
    values
}

fn blockseal(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockseal"));
    command.args(args).env("BLOCKSEAL_HOME", home).stdin(Stdio::null());
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_DEFAULT_OUTPUT", "XDG_DATA_HOME"] {
        command.env_remove(name);
    }
    command
}

/// Runs it on a terminal of 72 columns, whose both streams come back as one (`script` of Debian's bsdutils).
fn on_a_terminal(home: &Path, line: &str) -> String {
    let line = format!("stty cols 72 && {} {line}", env!("CARGO_BIN_EXE_blockseal"));
    let output = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("BLOCKSEAL_HOME", home)
        .stdin(Stdio::null())
        .output()
        .expect("script of bsdutils is installed");
    String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_hint_stands_on_a_terminal_only() {
    let base = tempfile::tempdir().unwrap();
    let home = base.path().join("home");
    let shown = on_a_terminal(&home, "kms describe-key --key-id alias/none");
    assert!(shown.contains("An error occurred (NotFoundException)") && shown.contains("\nhint: "), "{shown}");
    let piped = blockseal(&home, &["kms", "describe-key", "--key-id", "alias/none"]).output().unwrap();
    let piped = String::from_utf8(piped.stderr).unwrap();
    assert!(piped.contains("An error occurred (NotFoundException)") && !piped.contains("hint"), "{piped}");
}

/// What a hint says to type can be typed, and helps.
#[test]
fn a_hint_is_the_command_that_helps() {
    let base = tempfile::tempdir().unwrap();
    let home = base.path().join("home");
    let run = |line: &str| {
        let output = blockseal(&home, &line.split_whitespace().collect::<Vec<_>>()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    let (_, key) = run("kms create-key --query KeyMetadata.Arn --output text");
    let create = format!("ec2 create-volume --size 1 --encrypted --kms-key-id {key} --query VolumeId --output text");
    let (_, volume) = run(&create);
    let generate = format!("kms generate-data-key-without-plaintext --key-spec AES_256 --key-id {key}");
    let attach = format!("ec2 attach-volume --volume-id {volume}");
    assert!(run(&format!("kms disable-key --key-id {key}")).0);
    for refused in [&generate, &attach] {
        let shown = on_a_terminal(&home, refused);
        assert!(shown.contains(&format!("blockseal kms enable-key --key-id {key}")), "{shown}");
    }
    assert!(run(&format!("kms schedule-key-deletion --key-id {key} --pending-window-in-days 7")).0);
    for refused in [&generate, &attach] {
        let shown = on_a_terminal(&home, refused);
        assert!(shown.contains(&format!("blockseal kms cancel-key-deletion --key-id {key}")), "{shown}");
    }
    assert!(!run(&generate).0);
    assert!(run(&format!("kms cancel-key-deletion --key-id {key}")).0);
    assert!(run(&format!("kms enable-key --key-id {key}")).0);
    assert!(run(&generate).0);
}

#[test]
fn a_table_fits_the_terminal() {
    let base = tempfile::tempdir().unwrap();
    let home = base.path().join("home");
    assert!(blockseal(&home, &["kms", "create-key"]).status().unwrap().success());
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
    let shown = on_a_terminal(&home, "kms list-keys --output table");
    assert!(shown.contains("KeyArn") && widest(&shown) <= 72, "{shown}");
    // In a pipe nothing is broken over lines: a script may look for a whole ARN.
    let piped = blockseal(&home, &["kms", "list-keys", "--output", "table"]).output().unwrap();
    assert!(widest(&String::from_utf8(piped.stdout).unwrap()) > 72);
}

#[test]
fn progress_is_drawn_on_a_terminal_only() {
    let base = tempfile::tempdir().unwrap();
    let home = base.path().join("home");
    let create = ["ec2", "create-volume", "--size", "1", "--query", "VolumeId", "--output", "text"];
    let created = blockseal(&home, &create).output().unwrap();
    let volume = String::from_utf8(created.stdout).unwrap().trim().to_owned();
    let image = base.path().join("image");
    std::fs::write(&image, vec![7; 1 << 20]).unwrap();
    let shown = on_a_terminal(&home, &format!("volume import --volume-id {volume} --file {}", image.display()));
    assert!(shown.contains("import [") && shown.contains("StoredBytes"), "{shown}");
    let args = ["volume", "import", "--volume-id", &volume, "--file", image.to_str().unwrap()];
    let piped = blockseal(&home, &args).output().unwrap();
    assert_eq!((piped.status.code(), String::from_utf8(piped.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn a_reader_that_is_gone_is_no_failure() {
    let base = tempfile::tempdir().unwrap();
    let run = |stdout: Stdio| -> Output { blockseal(base.path(), &["help"]).stdout(stdout).output().unwrap() };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = run(writer.into());
    assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(0), true));
    // Any other failure to write is one.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(run(full.into()).status.code(), Some(255));
}

#[test]
fn nothing_is_read_from_aws_configuration() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join(".aws")).unwrap();
    let mut config = std::fs::File::create(base.path().join(".aws/config")).unwrap();
    config.write_all(b"[default]\nregion = eu-west-1\noutput = table\n").unwrap();
    let arn = |variables: &[(&str, &str)]| {
        let mut command =
            blockseal(&base.path().join("home"), &["kms", "list-aliases", "--query", "Aliases[0].AliasArn"]);
        command.env("HOME", base.path()).env("AWS_PROFILE", "none").envs(variables.iter().copied());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let region = |region: &str| format!("\"arn:aws:kms:{region}:123456789012:alias/aws/ebs\"\n");
    assert_eq!(arn(&[]), region("us-east-1"));
    assert_eq!(arn(&[("AWS_DEFAULT_REGION", "eu-west-1")]), region("eu-west-1"));
    assert_eq!(arn(&[("AWS_DEFAULT_REGION", "eu-west-1"), ("AWS_REGION", "eu-west-2")]), region("eu-west-2"));
    let bad = blockseal(base.path(), &["kms", "list-keys"]).env("AWS_REGION", "Mars").output().unwrap();
    assert_eq!(bad.status.code(), Some(253));
}
