//! `blockseal bench` as a user runs it. No figure is compared with what a machine should reach: a slow one is no failure.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use blockseal::xts::EngineKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::mount::SmallFs;
use crate::harness::{Home, tool};

fn members(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or_else(|| panic!("{name} of {row}"))
}

fn nearly(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() < 1e-9
}

fn entries(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_row_is_there_and_the_figures_agree() {
    let home = Home::fast();
    let (dir, plot) = (home.scratch().join("dir"), home.scratch().join("plot.svg"));
    fs::create_dir(&dir).unwrap();
    let output =
        home.run(["bench", "--quick", "--json", "--dir", dir.to_str().unwrap(), "--plot", plot.to_str().unwrap()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(members(&report), ["machine", "ceiling_gb_per_s", "xts", "volume"]);
    assert_eq!(members(&report["machine"]), ["cpu", "cores", "arch", "features"]);
    engines_agree(&report);
    volumes_agree(&report["volume"]);
    assert_eq!(report["volume"]["directory"].as_str(), dir.to_str());
    assert_eq!(entries(&dir), [""; 0], "nothing is left behind");
    assert!(!home.path().exists(), "what is measured needs no home and makes none");

    let picture = fs::read_to_string(&plot).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    assert_eq!(picture.matches("<polyline").count(), EngineKind::available().count());
    for engine in EngineKind::available() {
        assert!(picture.contains(&format!(">{}</text>", engine.name())), "{picture}");
    }
}

fn engines_agree(report: &Value) {
    let ceiling = number(report, "ceiling_gb_per_s");
    let rows = report["xts"].as_array().unwrap();
    let mut combinations = BTreeSet::new();
    for row in rows {
        assert_eq!(
            members(row),
            [
                "engine",
                "key_bits",
                "sector_size",
                "direction",
                "threads",
                "sectors_per_s",
                "ns_per_sector",
                "gb_per_s",
                "of_ceiling"
            ]
        );
        assert!(number(row, "sectors_per_s") > 0.0, "{row}");
        assert!(nearly(number(row, "ns_per_sector") * number(row, "sectors_per_s"), 1e9), "{row}");
        assert!(nearly(number(row, "sectors_per_s") * number(row, "sector_size"), number(row, "gb_per_s") * 1e9));
        // The share is a median of shares, so on a busy machine it is not quite the share of the medians.
        let share = number(row, "gb_per_s") / ceiling / number(row, "threads");
        assert!((0.1..10.0).contains(&(share / number(row, "of_ceiling"))), "{row}, ceiling {ceiling}");
        combinations.insert(format!(
            "{} {} {} {} {}",
            row["engine"], row["key_bits"], row["sector_size"], row["direction"], row["threads"]
        ));
    }
    let cores = report["machine"]["cores"].as_u64().unwrap();
    let mut expected = BTreeSet::new();
    for engine in EngineKind::available() {
        for sector_size in [512, 4096] {
            for direction in ["encrypt", "decrypt"] {
                for threads in [1, cores] {
                    expected.insert(format!("\"{}\" 256 {sector_size} \"{direction}\" {threads}", engine.name()));
                }
            }
        }
    }
    assert_eq!((combinations, rows.len()), (expected.clone(), expected.len()));
}

fn volumes_agree(volume: &Value) {
    let rows = volume["rows"].as_array().unwrap();
    let mut combinations = BTreeSet::new();
    for row in rows {
        assert!(number(row, "gb_per_s") > 0.0 && number(row, "cpu_s_per_gb") >= 0.0, "{row}");
        assert!(nearly(number(row, "requests_per_s") * number(row, "request_bytes"), number(row, "gb_per_s") * 1e9));
        assert!(number(row, "of_unencrypted") > 0.0, "{row}");
        assert!(row["encrypted"] == true || nearly(number(row, "of_unencrypted"), 1.0), "{row}");
        assert_eq!(row["encrypted"] == true, row["sector_size"].is_u64(), "{row}");
        assert_eq!(row["mode"] == "flush", number(row, "flush_every_bytes") > 0.0, "{row}");
        combinations
            .insert(format!("{} {} {} {}", row["sector_size"], row["operation"], row["mode"], row["request_bytes"]));
    }
    let mut expected = BTreeSet::new();
    for sector_size in ["null", "512", "4096"] {
        for work in ["\"read\" \"cached\"", "\"write\" \"cached\"", "\"write\" \"flush\""] {
            for request in [4096, 1 << 20] {
                expected.insert(format!("{sector_size} {work} {request}"));
            }
        }
    }
    assert_eq!((combinations, rows.len()), (expected.clone(), expected.len()));
}

#[test]
fn a_person_reads_a_table() {
    let home = Home::fast();
    let text = home.text("bench --quick");
    for word in ["of ceiling", "sectors/s", "of unencrypted", "CPU s/GB", "write and flush", "encrypted, 4096"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("reference ")).count() % 4, 0, "{text}");
    assert!(entries(&home.scratch()).is_empty());
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is() {
    let home = Home::new();
    let plot = home.scratch().join("plot.svg");
    let said = home.refused(255, &["bench", "--dir", "/nowhere/at/all", "--plot", plot.to_str().unwrap()]);
    assert!(said.contains("/nowhere/at/all: No such file"), "{said}");
    assert!(!plot.exists());

    let began = Instant::now();
    let folder = home.scratch();
    let said = home.refused(255, &["bench", "--plot", folder.to_str().unwrap()]);
    assert!(said.contains(&format!("cannot write {}: Is a directory", folder.display())), "{said}");
    let said = home.refused(255, &["bench", "--plot", "/nowhere/at/all.svg"]);
    assert!(said.contains("cannot write /nowhere/at/all.svg"), "{said}");
    let output = home.command(["bench"]).env("BLOCKSEAL_XTS_ENGINE", "abacus").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(253) && said.contains("no engine is called 'abacus'"), "{output:?}");
    for engine in EngineKind::ALL.iter().filter(|engine| !EngineKind::available().any(|there| there == **engine)) {
        let output = home.command(["bench"]).env("BLOCKSEAL_XTS_ENGINE", engine.name()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(253) && said.contains(engine.name()), "{output:?}");
    }
    // A whole run takes far longer than all of these together.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(entries(&folder).is_empty() && !home.path().exists());
}

#[test]
fn a_disk_that_is_full_or_read_only_is_named_and_left_as_it_was() {
    let home = Home::new();
    let disk = SmallFs::ext4(64);
    let before = entries(&disk.path());
    let place = disk.path();
    let place = place.to_str().unwrap();
    let said = home.refused(255, &["bench", "--quick", "--dir", place]);
    assert!(said.contains(&format!("{place} has no room")) && said.contains("--dir"), "{said}");
    disk.make_read_only();
    let said = home.refused(255, &["bench", "--quick", "--dir", place]);
    assert!(said.contains(place) && (said.contains("Read-only") || said.contains("no room")), "{said}");
    assert_eq!(entries(&disk.path()), before);

    let disk = SmallFs::ext4(256);
    let plot = disk.path().join("plot.svg");
    disk.make_read_only();
    let said = home.refused(255, &["bench", "--quick", "--dir", disk.path().to_str().unwrap()]);
    assert!(said.contains(&format!("cannot use the directory {}: Read-only", disk.path().display())), "{said}");
    let said = home.refused(255, &["bench", "--quick", "--plot", plot.to_str().unwrap()]);
    assert!(said.contains(&format!("cannot write {}: Read-only", plot.display())), "{said}");
}

/// Files have names only while they are made, and a signal that comes then waits until they have none. The moment is made
/// long enough to be seen: each name stays for a twentieth of a second more.
#[test]
fn an_interrupted_run_leaves_nothing() {
    let home = Home::new();
    let dir = home.scratch().join("dir");
    fs::create_dir(&dir).unwrap();
    let plot = home.scratch().join("plot.svg");
    let (mut while_made, mut while_measured, mut missed) = (0, 0, 0);
    let mut round = 0;
    while round < 20 {
        let bench = home.command(["bench", "--dir", dir.to_str().unwrap(), "--plot", plot.to_str().unwrap()]);
        let mut traced = tool("strace");
        // The tracer is the grandchild: the process that is started here is the program itself.
        traced.args(["-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=unlink,unlinkat", "-e"]);
        traced.arg("inject=unlink,unlinkat:delay_enter=50000");
        traced.arg(bench.get_program()).args(bench.get_args()).current_dir(home.scratch());
        traced.envs(bench.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = traced.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Half of the time as soon as there is a file, half of the time when there is none any more.
        while entries(&dir).is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it made a file");
        }
        if round % 2 == 1 {
            while !entries(&dir).is_empty() {}
        }
        let named = !entries(&dir).is_empty();
        let signal = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP][round % 3];
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(entries(&dir), [""; 0]);
        if status.success() {
            // This test was not let run until the whole benchmark was over.
            fs::remove_file(&plot).unwrap();
            missed += 1;
            assert!(missed < 20, "it is never interrupted");
            continue;
        }
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
        *(if named { &mut while_made } else { &mut while_measured }) += 1;
        assert!(!plot.exists());
        round += 1;
    }
    assert!(while_made > 0 && while_measured > 0, "{while_made} {while_measured}");
}
