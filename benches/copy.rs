//! What it costs to bring 1 GiB into a volume and out again by `volume import` and `volume export`, and what memory the program
//! takes for that and for making a volume.
//!
//! `cargo bench --bench copy`. Images and volumes lie below the system's temporary directory, the image is in the page cache, and
//! what is written is durable when a command ends. Each round makes its volumes anew and each command takes its turn in every
//! round; the figures are medians over the rounds. `dd conv=fsync` is what the disk does without us.
#![allow(missing_docs, reason = "a program, not a library")]
#![expect(unsafe_code, reason = "only wait4 tells what one child has used")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails has no result to report")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const IMAGE_BYTES: usize = 1 << 30;
const ROUNDS: usize = 3;

fn main() {
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let (image, out) = (base.path().join("image"), base.path().join("out"));
    noise(&image);
    let mut rows: Vec<Row> = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        let mut kinds = [("unencrypted", "--no-encrypted"), ("encrypted", "--encrypted")];
        kinds.rotate_left(round % 2);
        for (kind, options) in kinds {
            // Before each kind, so that both come after the same.
            let mut dd = Command::new("dd");
            dd.arg(format!("if={}", image.display()))
                .arg(format!("of={}", out.display()))
                .args(["bs=1M", "conv=fsync"]);
            add(&mut rows, "dd conv=fsync", &mut dd);
            fs::remove_file(&out).unwrap();
            let create = ["ec2", "create-volume", "--size", "1", options, "--query", "VolumeId", "--output", "text"];
            let volume = add(&mut rows, &format!("create-volume, {kind}"), blockseal(base.path()).args(create));
            let volume = volume.trim();
            let import = ["volume", "import", "--volume-id", volume, "--file", image.to_str().unwrap()];
            add(&mut rows, &format!("import, {kind}"), blockseal(base.path()).args(import));
            let export = ["volume", "export", "--volume-id", volume, "--file", out.to_str().unwrap()];
            add(&mut rows, &format!("export, {kind}"), blockseal(base.path()).args(export));
            if round == 1 {
                let same = Command::new("cmp").args([&image, &out]).status().unwrap();
                assert!(same.success(), "what came out of the {kind} volume is not what went in");
            }
            fs::remove_file(&out).unwrap();
            let delete = ["ec2", "delete-volume", "--volume-id", volume];
            assert!(blockseal(base.path()).args(delete).status().unwrap().success());
        }
    }
    println!("1 GiB in {}, medians of {ROUNDS} rounds, peak memory the highest of them", base.path().display());
    println!(
        "{:28} {:>8} {:>6} {:>9} {:>15} {:>15}",
        "command", "seconds", "GB/s", "CPU s", "peak memory", "of it its own"
    );
    rows.sort_by(|a, b| a.what.cmp(&b.what));
    for row in &rows {
        row.print();
    }
}

/// 1 GiB that nothing compresses, written in pieces: a child's peak memory begins with that of its parent.
fn noise(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..IMAGE_BYTES / piece.len() {
        getrandom::fill(&mut piece).unwrap();
        file.write_all(&piece).unwrap();
    }
    file.sync_all().unwrap();
}

fn blockseal(base: &Path) -> Command {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_blockseal")));
    command.env("BLOCKSEAL_HOME", base.join("home"));
    command
}

struct Row {
    what: String,
    runs: Vec<Run>,
}

struct Run {
    seconds: f64,
    cpu_seconds: f64,
    /// Peak of what is resident, the pages of mapped files among it, in KiB.
    resident: i64,
    /// Peak of what is the process's own, not a file's, in KiB, looked at every few milliseconds.
    own: i64,
}

/// Runs a command, adds what it took to the row of that name and answers what it printed.
#[expect(clippy::zombie_processes, reason = "wait4 is what waits for it")]
fn add(rows: &mut Vec<Row>, what: &str, command: &mut Command) -> String {
    // What earlier commands left unwritten is not this one's to pay for.
    assert!(Command::new("sync").status().unwrap().success());
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let mut stdout = child.stdout.take().unwrap();
    let watch = thread::spawn(move || own_peak(pid));
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: both pointers lead to places of the right type that live through the call; the pid is that of a child which
    // nobody has waited for, as `child.wait` is not called.
    let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) };
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((waited, status), (pid.cast_signed(), 0), "{what} failed");
    // SAFETY: all zeros are a rusage, and wait4 filled it in.
    let usage = unsafe { usage.assume_init() };
    let run = Run {
        seconds,
        cpu_seconds: time(usage.ru_utime) + time(usage.ru_stime),
        resident: usage.ru_maxrss,
        own: watch.join().unwrap(),
    };
    if let Some(row) = rows.iter_mut().find(|row| row.what == what) {
        row.runs.push(run);
    } else {
        rows.push(Row { what: what.to_owned(), runs: vec![run] });
    }
    std::io::read_to_string(&mut stdout).unwrap()
}

fn own_peak(pid: u32) -> i64 {
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        let Some(own) = own else { return peak };
        peak = peak.max(own.parse().unwrap());
        thread::sleep(Duration::from_millis(1));
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of one command")]
fn time(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

impl Row {
    #[expect(clippy::cast_precision_loss, reason = "2^30 and KiB")]
    fn print(&self) {
        let median = |figure: fn(&Run) -> f64| {
            let mut figures: Vec<_> = self.runs.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let peak = |figure: fn(&Run) -> i64| self.runs.iter().map(figure).max().unwrap() as f64 / 1024.0;
        let seconds = median(|run| run.seconds);
        let speed = if self.what.starts_with("create") {
            String::new()
        } else {
            format!("{:.2}", IMAGE_BYTES as f64 / seconds / 1e9)
        };
        println!(
            "{:28} {seconds:>8.3} {speed:>6} {:>9.3} {:>11.1} MiB {:>11.1} MiB",
            self.what,
            median(|run| run.cpu_seconds),
            peak(|run| run.resident),
            peak(|run| run.own)
        );
    }
}
