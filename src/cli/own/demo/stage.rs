//! Where the demo plays: a temporary directory, a shell that runs the printed lines, and what the audience sees.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::cli::CliError;

/// Why the demo ends before its end.
#[derive(Debug)]
pub(super) enum Halt {
    /// A step is not as it says.
    NotAsItSays(String),
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// The machine failed.
    Machine(Box<dyn std::error::Error + Send + Sync>),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Machine(error.into())
    }
}

/// What a line printed and how it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) stdout: String,
    pub(super) stderr: String,
    code: Option<i32>,
    pub(super) took: Duration,
}

/// The stage.
pub(super) struct Stage {
    directory: PathBuf,
    /// What later lines can use as `$NAME`.
    variables: BTreeMap<&'static str, String>,
    signals: SignalFd,
    wait_for_key: bool,
    colour: bool,
    steps: u32,
    /// A line that is run at the end, whatever comes of it.
    at_end: Option<&'static str>,
    /// Letters on the line that is not ended yet: a command whose outcome may stand beside it.
    column: Cell<usize>,
    began: Instant,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

impl Stage {
    /// A temporary directory with `blockseal` (this program) on its own search path, and signals that are kept until
    /// somebody looks for them, so that nothing is left behind when the demo is interrupted.
    pub(super) fn build(wait_for_key: bool) -> Result<Self, CliError> {
        let template = std::env::temp_dir().join("blockseal-demo-XXXXXX");
        let directory = nix::unistd::mkdtemp(&template)
            .map_err(|errno| CliError::machine(format!("cannot make {}: {errno}", template.display())))?;
        let program = std::env::current_exe()?;
        std::fs::create_dir(directory.join("bin"))?;
        std::os::unix::fs::symlink(program, directory.join("bin/blockseal"))?;
        let mut kept = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            kept.add(signal);
        }
        kept.thread_block().map_err(CliError::machine)?;
        let signals = SignalFd::with_flags(&kept, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self {
            directory,
            variables: BTreeMap::new(),
            signals: signals.map_err(CliError::machine)?,
            wait_for_key,
            colour,
            steps: 0,
            at_end: None,
            column: Cell::new(0),
            began: Instant::now(),
        })
    }

    /// The home, which the first command makes.
    pub(super) fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    /// Puts a file where the lines find it by its name.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Halt> {
        Ok(std::fs::write(self.directory.join(name), bytes)?)
    }

    /// Runs `line` at the end of the demo, also where a step failed.
    pub(super) fn at_end(&mut self, line: &'static str) {
        self.at_end = Some(line);
    }

    /// The value of a variable; empty before it is set.
    pub(super) fn variable(&self, name: &'static str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// How long the demo has run.
    pub(super) fn running(&self) -> Duration {
        self.began.elapsed()
    }

    /// Begins a step; with `--step`, when the audience is ready.
    pub(super) fn step(&mut self, title: &str) -> Result<(), Halt> {
        self.steps += 1;
        if self.wait_for_key {
            self.line(&self.styled(DIM, "   Enter goes on"))?;
            self.wait()?;
        }
        self.line(&self.styled(BOLD, &format!("{} {title}", self.steps)))
    }

    /// Waits for Enter, or the end of input.
    fn wait(&self) -> Result<(), Halt> {
        let mut keyboard: Box<dyn Keyboard> = match File::open("/dev/tty") {
            Ok(terminal) => Box::new(terminal),
            Err(_) => Box::new(io::stdin()),
        };
        loop {
            let mut waiting = [
                PollFd::new(keyboard.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waiting, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(Halt::Machine(errno.into())),
            }
            let pressed = waiting[0].any().unwrap_or(false);
            self.check_interrupt()?;
            let mut key = [0];
            if pressed && (keyboard.read(&mut key)? == 0 || key == *b"\n") {
                return Ok(());
            }
        }
    }

    fn check_interrupt(&self) -> Result<(), Halt> {
        match self.signals.read_signal() {
            Ok(Some(_)) => Err(Halt::Interrupted),
            Ok(None) => Ok(()),
            Err(errno) => Err(Halt::Machine(errno.into())),
        }
    }

    /// Prints and runs a line that must succeed.
    pub(super) fn run(&self, line: &str) -> Result<Ended, Halt> {
        self.command(line)?;
        self.execute(line)?.succeeded(line)
    }

    /// Prints and runs `NAME=$(line)`, and shows what it printed, which is `$NAME` from now on.
    pub(super) fn set(&mut self, name: &'static str, line: &str) -> Result<(), Halt> {
        self.set_quietly(name, line)?;
        self.note(self.variable(name))
    }

    /// The same for what is too long to be shown.
    pub(super) fn set_quietly(&mut self, name: &'static str, line: &str) -> Result<(), Halt> {
        self.command(&format!("{name}=$({line})"))?;
        let value = self.execute(line)?.succeeded(line)?.stdout.trim_end().to_owned();
        self.variables.insert(name, value);
        Ok(())
    }

    /// Prints `NAME="text"` and keeps the text as the shell expands it.
    pub(super) fn set_text(&mut self, name: &'static str, text: &str) -> Result<(), Halt> {
        self.command(&format!("{name}=\"{text}\""))?;
        let expand = format!("printf %s \"{text}\"");
        let value = self.execute(&expand)?.succeeded(&expand)?.stdout;
        self.variables.insert(name, value);
        Ok(())
    }

    /// Prints and runs a line that must be refused with AWS's error `code`; shows what it said, cut to a line.
    pub(super) fn refused(&self, line: &str, code: &str) -> Result<(), Halt> {
        self.command(line)?;
        let ended = self.execute(line)?;
        let error = ended.stderr.trim().replace('\n', " ");
        if ended.code == Some(254) && error.contains(&format!("({code})")) {
            self.holds(&cut(&error, WIDTH - MARGIN - 4))
        } else {
            self.note(&error)?;
            Err(self.fails(&format!("`{line}` should have been refused with {code}")))
        }
    }

    /// Runs a line without printing it.
    pub(super) fn execute(&self, line: &str) -> Result<Ended, Halt> {
        self.check_interrupt()?;
        let path = match std::env::var_os("PATH") {
            Some(rest) => {
                let mut path = self.directory.join("bin").into_os_string();
                path.push(":");
                path.push(rest);
                path
            }
            None => self.directory.join("bin").into_os_string(),
        };
        let began = Instant::now();
        let output = Command::new("/bin/sh")
            .args(["-c", line])
            .current_dir(&self.directory)
            .env("PATH", path)
            .env("BLOCKSEAL_HOME", self.home())
            .envs(&self.variables)
            .env_remove("BLOCKSEAL_PASSPHRASE_FILE")
            .env_remove("AWS_REGION")
            .env_remove("AWS_DEFAULT_REGION")
            .stdin(Stdio::null())
            .output()?;
        let took = began.elapsed();
        self.check_interrupt()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ended { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code(), took })
    }

    /// Prints a command, and leaves its line open for what comes of it.
    pub(super) fn command(&self, line: &str) -> Result<(), Halt> {
        self.end_line()?;
        let width = 4 + line.lines().last().map_or(0, |line| line.chars().count());
        let line = line.replace('\n', "\n      ");
        self.column.set(width);
        let mut out = io::stdout().lock();
        write!(out, "  {} {}", self.styled(DIM, "$"), self.styled(CYAN, &line))?;
        Ok(out.flush()?)
    }

    /// A line of its own.
    pub(super) fn line(&self, text: &str) -> Result<(), Halt> {
        self.end_line()?;
        say(text)
    }

    fn end_line(&self) -> Result<(), Halt> {
        if self.column.replace(0) > 0 { say("") } else { Ok(()) }
    }

    /// What came of a command: beside it if there is room, else below it.
    fn outcome(&self, style: &str, mark: &str, text: &str) -> Result<(), Halt> {
        let mark_width = if mark.is_empty() { 0 } else { mark.chars().count() + 1 };
        let beside = self.column.get() + 3 + mark_width + text.chars().count() <= WIDTH;
        if self.column.get() > 0 && beside && !text.contains('\n') {
            self.column.set(0);
            let mark = if mark.is_empty() { String::new() } else { format!("{} ", self.styled(style, mark)) };
            let text = if mark.is_empty() { self.styled(style, text) } else { text.to_owned() };
            return say(&format!("   {mark}{text}"));
        }
        if mark.is_empty() {
            return self.line(&self.styled(style, &indented(text)));
        }
        self.line(&format!("    {} {text}", self.styled(style, mark)))
    }

    /// Lines that are neither a command nor a claim: what a command printed.
    pub(super) fn note(&self, text: &str) -> Result<(), Halt> {
        self.outcome(DIM, "", text)
    }

    /// Checks a claim and says how it came out.
    pub(super) fn claim(&self, holds: bool, what: &str) -> Result<(), Halt> {
        if holds { self.holds(what) } else { Err(self.fails(what)) }
    }

    fn holds(&self, what: &str) -> Result<(), Halt> {
        self.outcome(GREEN, if self.colour { "✓" } else { "ok:" }, what)
    }

    fn fails(&self, what: &str) -> Halt {
        // The halt is told on standard error as well.
        let _ = self.outcome(RED, if self.colour { "✗" } else { "FAILED:" }, what);
        Halt::NotAsItSays(what.to_owned())
    }

    /// `text` in a style on a terminal, and as it is in a pipe.
    fn styled(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Ends every exporter of the home, and takes the directory away unless it is kept.
    pub(super) fn clear(self, keep: bool) -> Result<(), CliError> {
        // Where standard output is closed there is no line to end.
        let _ = self.end_line();
        if let Some(line) = self.at_end {
            // A signal that ended the demo must not end this.
            while let Ok(Some(_)) = self.signals.read_signal() {}
            let _ = self.execute(line);
        }
        // Detaching is best done by the program itself; a home that was never made has nothing to detach.
        for volume in attached(&self.home()) {
            let _ = Command::new(self.directory.join("bin/blockseal"))
                .args(["ec2", "detach-volume", "--force", "--volume-id", &volume])
                .env("BLOCKSEAL_HOME", self.home())
                .stdin(Stdio::null())
                .output();
        }
        if keep {
            let _ = say(&format!("The home stays: export BLOCKSEAL_HOME={}", self.home().display()));
            return Ok(());
        }
        Ok(std::fs::remove_dir_all(&self.directory)?)
    }
}

/// Volumes that have a control socket in the home.
fn attached(home: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(home.join("run")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_suffix(".ctl").map(str::to_owned)).collect()
}

/// Prints text as it is.
fn say(text: &str) -> Result<(), Halt> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

trait Keyboard: io::Read + std::os::fd::AsFd {}
impl<T: io::Read + std::os::fd::AsFd> Keyboard for T {}

impl Ended {
    fn succeeded(self, line: &str) -> Result<Self, Halt> {
        match self.code {
            Some(0) => Ok(self),
            _ => Err(Halt::NotAsItSays(format!("`{line}` failed: {}", self.stderr.trim()))),
        }
    }

    /// What was printed, as JSON.
    pub(super) fn json(&self) -> Result<serde_json::Value, Halt> {
        serde_json::from_str(&self.stdout).map_err(|error| Halt::Machine(error.into()))
    }
}

/// The widest line of the demo, in columns.
const WIDTH: usize = 96;

/// Where the outcome of a command begins that does not stand beside it.
const MARGIN: usize = 4;

/// `text`, cut to `width` letters if it is longer.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 3).chain("...".chars()).collect()
}

/// The lines of `text` behind the margin, long ones broken between words.
fn indented(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut rest = line;
        while rest.chars().count() > WIDTH - MARGIN {
            let end = rest.char_indices().nth(WIDTH - MARGIN).map_or(rest.len(), |(end, _)| end);
            let cut = rest[..end].rfind(' ').filter(|cut| *cut > 0).unwrap_or(end);
            lines.push(format!("    {}", &rest[..cut]));
            rest = rest[cut..].trim_start();
        }
        lines.push(format!("    {rest}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_to_their_width() {
        assert_eq!(cut("as it is", 8), "as it is");
        assert_eq!(cut("one more é", 9), "one mo...");
    }

    #[test]
    fn long_lines_are_broken_between_words_or_where_they_must() {
        let words = "word ".repeat(40);
        assert!(indented(&words).lines().all(|line| line.starts_with("    word") && line.len() <= WIDTH));
        let ink = "é".repeat(200);
        assert_eq!(indented(&ink).lines().map(|line| line.chars().count()).collect::<Vec<_>>(), [96, 96, 20]);
        assert_eq!(indented("a  b\nc"), "    a  b\n    c");
    }
}
