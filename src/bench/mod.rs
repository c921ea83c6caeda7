//! What `blockseal bench` measures of volumes: reads and writes through an encrypted and an unencrypted one, side by side.
//!
//! The volumes are files in a temporary home below the directory that is asked about. That home is removed as soon as
//! they are open, so that nothing is left even of a run that is killed: their space goes back with the last descriptor.

mod scratch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::Serialize;

use self::scratch::{Kind, Scratch};
use crate::device::{BlockDevice as _, DeviceError, DeviceErrorKind};
use crate::dir::DirError;
use crate::xts::{EngineChoice, XtsError};

/// Rounds that are measured however slow the disk is.
const LEAST_ROUNDS: usize = 3;

/// The sizes of request: a database page's order of magnitude, and one that pays for no system call.
const REQUESTS: [usize; 2] = [4096, 1 << 20];

/// Where volumes are measured and how long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VolumePlan {
    /// The directory whose file system is measured.
    pub directory: PathBuf,
    /// Length of each volume in bytes: a multiple of 4 MiB.
    pub volume_bytes: u64,
    /// How often each cell is measured; the median counts.
    pub rounds: usize,
    /// After this long no further round is begun, once three are done.
    pub budget: Duration,
}

impl VolumePlan {
    /// Three volumes of 128 MiB in `directory`, for at most about half a minute.
    pub fn full(directory: PathBuf) -> Self {
        Self { directory, volume_bytes: 128 << 20, rounds: 15, budget: Duration::from_secs(30) }
    }

    /// Three volumes of 32 MiB, for about two seconds.
    pub fn quick(directory: PathBuf) -> Self {
        Self { directory, volume_bytes: 32 << 20, rounds: 7, budget: Duration::from_millis(1500) }
    }
}

/// What was measured through volumes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct VolumeMeasurements {
    /// The directory that held them.
    pub directory: PathBuf,
    /// Its file system, such as `ext4`; of one without a name here its magic number (statfs(2)).
    pub file_system: String,
    /// The engine that encrypted.
    pub engine: &'static str,
    /// Length of each volume in bytes.
    pub volume_bytes: u64,
    /// How many rounds the medians are of.
    pub rounds: usize,
    /// One row for every cell.
    pub rows: Vec<VolumeRow>,
}

/// The speed of one kind of volume at one kind of request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct VolumeRow {
    /// Whether the volume is encrypted, with AES-256-XTS.
    pub encrypted: bool,
    /// Its sector size in bytes: 512 or 4096; `None` of an unencrypted one.
    pub sector_size: Option<usize>,
    /// `read` or `write`.
    pub operation: &'static str,
    /// `cached`: out of or into the page cache. `flush`: writes and the flush that makes them durable.
    pub mode: &'static str,
    /// Bytes in one request.
    pub request_bytes: usize,
    /// Bytes that are written before each flush; 0 where there is none.
    pub flush_every_bytes: usize,
    /// Requests per second, one after the other.
    pub requests_per_s: f64,
    /// 10^9 bytes per second.
    pub gb_per_s: f64,
    /// Seconds of processor time, of all threads of this process and in the kernel on their behalf, for 10^9 bytes.
    pub cpu_s_per_gb: f64,
    /// Its speed over that of the unencrypted volume, measured moments before: 1 is no tax at all.
    pub of_unencrypted: f64,
}

/// Why volumes could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The directory's file system has too little room.
    #[error(
        "{} has no room for the volumes that are measured: they need {} MiB; name another directory with --dir",
        directory.display(), needed_bytes.div_ceil(1 << 20)
    )]
    Room {
        /// The directory.
        directory: PathBuf,
        /// What the volumes need.
        needed_bytes: u64,
    },
    /// The directory cannot be used.
    #[error("cannot use the directory {}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The temporary home could not be made.
    #[error(transparent)]
    Home(#[from] DirError),
    /// No key could be made.
    #[error("cannot make a data key: {0}")]
    Key(String),
    /// No engine: the forced one is not there.
    #[error(transparent)]
    Engine(#[from] XtsError),
    /// A volume failed.
    #[error(transparent)]
    Device(DeviceError),
    /// Processor time is not to be had.
    #[error("cannot read this process's processor time")]
    Usage(#[source] std::io::Error),
}

/// Measures what `plan` says, with a key of its own. `progress` is told how many of how many cells are done.
///
/// # Errors
/// [`BenchError::Room`] if the file system cannot hold the volumes, and whatever else fails.
pub fn measure_volume(
    plan: &VolumePlan,
    mut progress: impl FnMut(usize, usize),
) -> Result<VolumeMeasurements, BenchError> {
    let engine = EngineChoice::Auto.resolve()?;
    let scratch = Scratch::new(&plan.directory, plan.volume_bytes)?;
    run(plan, &scratch, &mut progress)
        .map(|(rounds, rows)| VolumeMeasurements {
            directory: plan.directory.clone(),
            file_system: file_system(&plan.directory),
            engine: engine.name(),
            volume_bytes: plan.volume_bytes,
            rounds,
            rows,
        })
        .map_err(|error| scratch.explain(error))
}

fn run(
    plan: &VolumePlan,
    scratch: &Scratch,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(usize, Vec<VolumeRow>), BenchError> {
    let data = scratch.fill()?;
    // An unencrypted cell and its encrypted twins stand side by side, so that what disturbs one disturbs all.
    let mut cells = Vec::new();
    for request in REQUESTS {
        for work in [Work::Read, Work::Write, Work::WriteAndFlush] {
            for (volume, kind) in Scratch::kinds().enumerate() {
                cells.push(Cell::new(volume, kind, work, request, plan.volume_bytes));
            }
        }
    }
    let mut buffer = data.clone();
    let began = Instant::now();
    let (mut rounds, most) = (0, plan.rounds.max(LEAST_ROUNDS));
    let kinds = Scratch::kinds().count();
    // The first round touches pages for the first time and is not counted.
    for round in 0..=most {
        if round > LEAST_ROUNDS && began.elapsed() > plan.budget {
            break;
        }
        for turn in 0..cells.len() {
            // Another kind comes first in every round: what comes after a pause or after another kind is not always the same one.
            let index = turn - turn % kinds + (turn + round) % kinds;
            let slice = cells[index].slice(scratch, &data, &mut buffer)?;
            if round > 0 {
                cells[index].slices.push(slice);
            }
            progress(round * cells.len() + turn + 1, (most + 1) * cells.len());
        }
        rounds = round;
    }
    Ok((rounds, cells.iter().map(|cell| cell.row(&cells)).collect()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Read,
    Write,
    WriteAndFlush,
}

/// What a slice took for each of its bytes.
#[derive(Clone, Copy)]
struct Slice {
    gb_per_s: f64,
    cpu_s_per_gb: f64,
}

struct Cell {
    /// Which of the volumes.
    volume: usize,
    kind: Kind,
    work: Work,
    request: usize,
    /// Requests in a slice.
    requests: u64,
    /// Requests in the volume.
    places: u64,
    turn: u64,
    slices: Vec<Slice>,
}

impl Cell {
    fn new(volume: usize, kind: Kind, work: Work, request: usize, volume_bytes: u64) -> Self {
        let places = volume_bytes / request as u64;
        // Short requests cost more for each byte, and flushes more than that.
        let slice_bytes = volume_bytes / if request < 1 << 20 { 16 } else { 4 };
        let slice_bytes = if work == Work::WriteAndFlush { slice_bytes / 2 } else { slice_bytes };
        let requests = (slice_bytes / request as u64).max(1);
        Self { volume, kind, work, request, requests, places, turn: 0, slices: Vec::new() }
    }

    fn slice(&mut self, scratch: &Scratch, data: &[u8], buffer: &mut [u8]) -> Result<Slice, BenchError> {
        let volume = scratch.volume(self.volume);
        // What earlier cells left unwritten is not this one's to pay for.
        volume.flush().map_err(BenchError::Device)?;
        let (data, buffer) = (&data[..self.request], &mut buffer[..self.request]);
        let (cpu, start) = (processor_time()?, Instant::now());
        for _ in 0..self.requests {
            // An odd step visits every place before one comes again, and not in the disk's order.
            self.turn = self.turn.wrapping_add(0x9e37_79b9);
            let offset = self.turn % self.places * self.request as u64;
            match self.work {
                Work::Read => volume.read_at(offset, buffer),
                Work::Write | Work::WriteAndFlush => volume.write_at(offset, data),
            }
            .map_err(BenchError::Device)?;
        }
        if self.work == Work::WriteAndFlush {
            volume.flush().map_err(BenchError::Device)?;
        }
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), processor_time()? - cpu);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 bytes")]
        let gb = (self.requests * self.request as u64) as f64 / 1e9;
        Ok(Slice { gb_per_s: gb / seconds.max(1e-9), cpu_s_per_gb: cpu / gb })
    }

    fn row(&self, cells: &[Self]) -> VolumeRow {
        let twin = cells
            .iter()
            .find(|cell| cell.kind == Kind::Plain && cell.work == self.work && cell.request == self.request);
        let pairs = self.slices.iter().zip(twin.map_or(&self.slices, |twin| &twin.slices));
        let gb_per_s = median(self.slices.iter().map(|slice| slice.gb_per_s));
        #[expect(clippy::cast_precision_loss, reason = "at most 1 MiB")]
        let request = self.request as f64;
        let flushed = self.work == Work::WriteAndFlush;
        VolumeRow {
            encrypted: self.kind != Kind::Plain,
            sector_size: self.kind.sector_size().map(crate::units::SectorSize::bytes),
            operation: if self.work == Work::Read { "read" } else { "write" },
            mode: if flushed { "flush" } else { "cached" },
            request_bytes: self.request,
            flush_every_bytes: if flushed { usize::try_from(self.requests).unwrap_or(0) * self.request } else { 0 },
            requests_per_s: gb_per_s * 1e9 / request,
            gb_per_s,
            cpu_s_per_gb: median(self.slices.iter().map(|slice| slice.cpu_s_per_gb)),
            of_unencrypted: median(pairs.map(|(own, plain)| own.gb_per_s / plain.gb_per_s)),
        }
    }
}

/// Seconds that this process's threads have run, in the kernel too.
fn processor_time() -> Result<f64, BenchError> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(|errno| BenchError::Usage(errno.into()))?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    #[expect(clippy::cast_precision_loss, reason = "2^52 microseconds are a century")]
    Ok(microseconds as f64 / 1e6)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// The name of a directory's file system, by the magic numbers of statfs(2).
fn file_system(directory: &Path) -> String {
    let Ok(found) = nix::sys::statfs::statfs(directory) else { return "unknown".to_owned() };
    let magic = found.filesystem_type().0;
    let name = match magic {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794C_7630 => "overlay",
        0x2FC1_2FC1 => "zfs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        _ => return format!("{magic:#x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{Protection, without};

    fn tiny(directory: &Path) -> VolumePlan {
        let directory = directory.to_owned();
        VolumePlan { directory, volume_bytes: 4 << 20, rounds: 1, budget: Duration::ZERO }
    }

    #[test]
    fn every_kind_of_request_is_measured_and_nothing_is_left() {
        let base = tempfile::tempdir().unwrap();
        let mut last = (0, 0);
        let measured = measure_volume(&tiny(base.path()), |done, of| last = (done, of)).unwrap();
        assert_eq!((last.0, measured.rounds), (last.1, LEAST_ROUNDS));
        assert_eq!(measured.rows.len(), 18);
        for row in &measured.rows {
            assert!(row.gb_per_s > 0.0 && row.requests_per_s > 0.0 && row.of_unencrypted > 0.0, "{row:?}");
            assert!(row.cpu_s_per_gb >= 0.0, "{row:?}");
            assert!(row.encrypted || (row.of_unencrypted - 1.0).abs() < 1e-9, "{row:?}");
            assert_eq!(row.flush_every_bytes > 0, row.mode == "flush", "{row:?}");
        }
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    /// What a process that is killed while it measures would leave behind.
    fn names_while_measuring() -> usize {
        let base = tempfile::tempdir().unwrap();
        let mut most = 0;
        measure_volume(&tiny(base.path()), |_, _| {
            most = most.max(std::fs::read_dir(base.path()).unwrap().count());
        })
        .unwrap();
        most
    }

    #[test]
    fn a_killed_run_leaves_nothing_and_would_without_the_removal() {
        assert_eq!(names_while_measuring(), 0);
        assert_eq!(without(Protection::NamelessScratch, names_while_measuring), 1);
    }

    #[test]
    fn no_room_is_said_with_what_is_needed_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let plan = VolumePlan { volume_bytes: 16 << 40, ..tiny(base.path()) };
        let error = measure_volume(&plan, |_, _| ()).unwrap_err();
        assert!(matches!(error, BenchError::Room { .. }), "{error:?}");
        assert!(error.to_string().contains("has no room") && error.to_string().contains("--dir"), "{error}");
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_none_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), Path::new("/nowhere/at/all")] {
            let error = measure_volume(&tiny(path), |_, _| ()).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}
