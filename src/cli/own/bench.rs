//! `bench`: what encryption costs on this machine.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Outcome, Verb, arguments};
use crate::api::Parameter;
use crate::bench::{VolumeMeasurements, VolumePlan, VolumeRow, measure_volume};
use crate::cli::{CliError, Output, Progress, Session};
use crate::xts::EngineChoice;
use crate::xts::bench::{self, Measurements, Plan};

pub(super) static BENCH: Verb = Verb {
    name: "bench",
    help: "Measures encryption: engines against this machine's own AES ceiling, and volumes with and without it",
    parameters: &[
        Parameter::string("Dir", "Measure volumes on this directory's file system, not on the temporary one's.").ours(),
        Parameter::boolean("Json", "Print everything as a JSON object.").ours(),
        Parameter::string("Plot", "Draw throughput against request size into this SVG file.").ours(),
        Parameter::boolean("Quick", "Take less than ten seconds: AES-256 only, fewer and shorter rounds.").ours(),
    ],
    run,
};

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    engines: Measurements,
    volume: VolumeMeasurements,
}

fn run(session: &Session, given: Value) -> Result<Outcome, CliError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given {
        dir: Option<PathBuf>,
        json: Option<bool>,
        plot: Option<PathBuf>,
        quick: Option<bool>,
    }
    let given: Given = arguments(given)?;
    let quick = given.quick == Some(true);
    let directory = given.dir.unwrap_or_else(std::env::temp_dir);
    let (mut plan, volumes) =
        if quick { (Plan::quick(), VolumePlan::quick(directory)) } else { (Plan::full(), VolumePlan::full(directory)) };
    // What cannot be done is said before anything takes time.
    EngineChoice::Auto.resolve().map_err(CliError::configuration)?;
    given.plot.as_deref().map(try_picture).transpose()?;

    let progress = Progress::steps("volumes");
    let volume = measure_volume(&volumes, |done, of| progress.set_of(done, of)).map_err(CliError::machine)?;
    drop(progress);
    let progress = Progress::steps("engines");
    let engines = bench::measure(&plan, |done, of| progress.set_of(done, of)).map_err(CliError::machine)?;
    drop(progress);
    if let Some(path) = given.plot {
        if quick {
            plan.rounds = plan.rounds.min(5);
        }
        let progress = Progress::steps("request sizes");
        let points = bench::measure_requests(&plan, |done, of| progress.set_of(done, of)).map_err(CliError::machine)?;
        drop(progress);
        let machine = &engines.machine;
        let title = format!("AES-256-XTS, 4096-byte sectors: {}, {} cores", machine.cpu, machine.cores);
        std::fs::write(&path, bench::svg(&title, &points)).map_err(|error| unwritable(&path, &error))?;
    }
    let report = Report { engines, volume };
    if given.json == Some(true)
        || session.globals.query.is_some()
        || session.globals.output.is_some_and(|output| output != Output::Json)
    {
        Ok(Outcome::value(serde_json::to_value(&report).map_err(CliError::machine)?))
    } else {
        Ok(Outcome::text(report.text()))
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |words: std::fmt::Arguments<'_>| {
            // Writing to a String does not fail.
            let _ = text.write_fmt(words);
            text.push('\n');
        };
        let machine = &self.engines.machine;
        line(format_args!("{}, {} cores, {}", machine.cpu, machine.cores, machine.features.join(" ")));
        if cfg!(debug_assertions) {
            line(format_args!("Built without optimisation: these figures say nothing about a release build."));
        }
        line(format_args!(
            "AES ceiling of one thread: {:.2} GB/s (AES-256, no tweaks, widest instructions)\n",
            self.engines.ceiling_gb_per_s
        ));
        line(format_args!(
            "{:<9}  {:>3}  {:>6}  {:<9}  {:>7}  {:>11}  {:>9}  {:>6}  {:>10}",
            "engine", "key", "sector", "direction", "threads", "sectors/s", "ns/sector", "GB/s", "of ceiling"
        ));
        for row in &self.engines.xts {
            line(format_args!(
                "{:<9}  {:>3}  {:>6}  {:<9}  {:>7}  {:>11.0}  {:>9.1}  {:>6.2}  {:>8.1} %",
                row.engine,
                row.key_bits,
                row.sector_size,
                row.direction,
                row.threads,
                row.sectors_per_s,
                row.ns_per_sector,
                row.gb_per_s,
                row.of_ceiling * 100.0
            ));
        }
        let volume = &self.volume;
        line(format_args!(
            "\nVolumes of {} MiB in {} ({}), engine {}, medians of {} rounds\n",
            volume.volume_bytes >> 20,
            volume.directory.display(),
            volume.file_system,
            volume.engine,
            volume.rounds
        ));
        line(format_args!(
            "{:<15}  {:>7}  {:<15}  {:>10}  {:>6}  {:>8}  {:>14}",
            "volume", "request", "operation", "requests/s", "GB/s", "CPU s/GB", "of unencrypted"
        ));
        for row in &volume.rows {
            line(format_args!(
                "{:<15}  {:>7}  {:<15}  {:>10.0}  {:>6.2}  {:>8.3}  {:>12.1} %",
                kind(row),
                if row.request_bytes < 1 << 20 { "4 KiB" } else { "1 MiB" },
                if row.mode == "flush" { "write and flush" } else { row.operation },
                row.requests_per_s,
                row.gb_per_s,
                row.cpu_s_per_gb,
                row.of_unencrypted * 100.0
            ));
        }
        text
    }
}

fn kind(row: &VolumeRow) -> String {
    row.sector_size.map_or_else(|| "unencrypted".to_owned(), |size| format!("encrypted, {size}"))
}

/// Opens a picture's file for writing before anything takes time, so that what is wrong with it is heard then. Changes nothing:
/// a run that is broken off leaves neither an empty file nor an old picture spoiled.
fn try_picture(path: &Path) -> Result<(), CliError> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).open(path).map(drop)
        }
        Err(error) => Err(error),
    }
    .map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> CliError {
    CliError::machine(format!("cannot write {}: {error}", path.display()))
}
