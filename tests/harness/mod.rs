//! What the integration tests share: a fresh home with the built program in front of it, tools that must be there, small
//! file systems on loop devices, and the hunt for secrets in places where none may be.

pub mod hunt;
pub mod mount;
pub mod server;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The program under test. The gate names a release build for tests that move much data.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_blockseal"))
}

/// The release build of the same sources where the gate made one, else the program under test.
pub fn fast_program() -> PathBuf {
    std::env::var_os("BLOCKSEAL_RELEASE").map_or_else(program, PathBuf::from)
}

/// Whether the large counts are asked for (`tests/run --full`).
pub fn full() -> bool {
    std::env::var_os("BLOCKSEAL_FULL").is_some()
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A command that runs `name`, which must be installed: a judge that is missing fails the test, it never passes it.
pub fn tool(name: &str) -> Command {
    let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().map(|folder| Path::new(folder).join(name));
    let path = found.into_iter().find(|path| path.exists());
    let path = path.unwrap_or_else(|| panic!("{name} is not installed; tests/run names and installs what tests need"));
    Command::new(path)
}

/// Runs a command that must succeed and returns what it wrote to standard output.
#[track_caller]
pub fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?} failed: {}\n{}", output.status, both(&output));
    output.stdout
}

/// Runs a command with `input` on its standard input.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that refuses early closes its end; what it says then is what the test looks at.
            let _ = pipe.write_all(input);
        });
        child.wait_with_output().unwrap()
    })
}

/// Standard output and standard error, for messages.
pub fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The second reader of volume files, `tests/oracle/luks2.py`, with Debian's own Python.
pub fn oracle(arguments: &[&OsStr]) -> Command {
    let mut command = tool("python3");
    command.arg(root().join("tests/oracle/luks2.py")).args(arguments);
    command
}

/// Waits until `done` answers true, for half a minute at most.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not within half a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A home below a temporary folder of its own. Whatever the program started in it is ended with it.
pub struct Home {
    folder: TempDir,
    path: PathBuf,
    program: PathBuf,
}

impl Home {
    pub fn new() -> Self {
        Self::with_program(program())
    }

    /// A home for tests that move much data.
    pub fn fast() -> Self {
        Self::with_program(fast_program())
    }

    fn with_program(program: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("blockseal-test-").tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let path = folder.path().join("home");
        Self { folder, path, program }
    }

    /// The home itself; the program makes it at first use.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Puts the home, which the program has not made yet, somewhere else: on a disk of its own.
    pub fn move_to(&mut self, path: &Path) {
        self.path = path.to_path_buf();
    }

    /// A folder beside the home for a test's own files, which is also the program's TMPDIR.
    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// The program with this home, no settings of the caller's, and no terminal.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") || name.to_string_lossy().starts_with("BLOCKSEAL_") {
                command.env_remove(name);
            }
        }
        command.env("BLOCKSEAL_HOME", self.path()).env("TMPDIR", self.scratch()).current_dir(self.scratch());
        command
    }

    /// Runs the program whatever becomes of it.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command line that must succeed, split at spaces; returns what it printed.
    #[track_caller]
    pub fn text(&self, line: &str) -> String {
        let output = self.run(line.split_whitespace());
        assert!(output.status.success(), "`blockseal {line}` failed: {}\n{}", output.status, both(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command line that must succeed, split at spaces, and parses the JSON that it prints.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        self.json_of(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// As [`Home::json`] for arguments that contain spaces.
    #[track_caller]
    pub fn json_of(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "`blockseal {arguments:?}` failed: {}\n{}", output.status, both(&output));
        if output.stdout.trim_ascii().is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", both(&output)))
    }

    /// Runs arguments that must fail with this exit code; returns what was said on standard error.
    #[track_caller]
    pub fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "`blockseal {arguments:?}`:\n{}", both(&output));
        String::from_utf8(output.stderr).unwrap()
    }

    /// The processes that hold a file below this home open, besides the caller: exporters.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let descriptors = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            let mut targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
            if pid.unsigned_abs() != std::process::id() && targets.any(|target| target.starts_with(self.path())) {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}
