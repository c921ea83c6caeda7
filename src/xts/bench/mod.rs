//! What `blockseal bench` measures of XTS: every engine by sector size, direction and threads, against this machine's own AES ceiling.
//!
//! Machines are shared and noisy, so cells are measured in interleaved rounds: each round gives every cell and the ceiling one
//! short slice, and what is reported is the median over the rounds. The share of the ceiling is the median of the shares that
//! were measured within one round, moments apart.

mod plot;

pub use plot::svg;

use std::fs;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use serde::Serialize;

use super::parallel::{self, Data, Job, PIECE_BYTES, Workers};
use super::{Direction, EngineChoice, EngineKind, XtsCipher, XtsError};
use crate::secret::SecretBytes;
use crate::units::{SectorSize, UnitIndex};

/// Bytes of a run on one thread: source and destination together fit a second-level cache of 512 KiB.
const CACHED_BYTES: usize = 128 * 1024;

/// Bytes of a run for each thread when there are several.
const BYTES_PER_THREAD: usize = 4 << 20;

/// What to measure and how long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The engines, of those that the machine has.
    pub engines: Vec<EngineKind>,
    /// AES key lengths: 128, 256 or both.
    pub key_bits: Vec<u32>,
    /// Numbers of threads.
    pub threads: Vec<NonZeroUsize>,
    /// The largest request of [`measure_requests`] in bytes.
    pub largest_request: usize,
    /// How often each cell is measured; the median counts.
    pub rounds: usize,
    /// How long one measurement of a cell takes, about.
    pub slice: Duration,
}

impl Plan {
    /// All engines that the machine has, both key lengths, one thread and all cores: about half a minute.
    pub fn full() -> Self {
        let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let mut threads = vec![NonZeroUsize::MIN];
        if cores > NonZeroUsize::MIN {
            threads.push(cores);
        }
        Self {
            engines: EngineKind::available().collect(),
            key_bits: vec![128, 256],
            threads,
            largest_request: 16 << 20,
            rounds: 31,
            slice: Duration::from_millis(12),
        }
    }

    /// The same with AES-256 alone and fewer, shorter rounds: about three seconds.
    pub fn quick() -> Self {
        Self { key_bits: vec![256], rounds: 11, slice: Duration::from_millis(6), ..Self::full() }
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Measurements {
    /// The machine.
    pub machine: Machine,
    /// AES-256 in ECB mode on one thread, with the widest instructions, no tweaks, cached buffers: in 10^9 bytes per second.
    pub ceiling_gb_per_s: f64,
    /// One row for every cell.
    pub xts: Vec<Row>,
}

/// What the measurements were made on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// `x86_64`, `aarch64`, ...
    pub arch: &'static str,
    /// Which of the extensions that matter here the machine has.
    pub features: Vec<&'static str>,
}

/// The speed of one engine at one sector size, direction and number of threads. Source and destination are apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// The engine's name.
    pub engine: &'static str,
    /// 128 or 256.
    pub key_bits: u32,
    /// 512 or 4096 bytes.
    pub sector_size: usize,
    /// `encrypt` or `decrypt`.
    pub direction: String,
    /// Threads that shared each run. One thread works on 128 KiB in the cache, several on 4 MiB each.
    pub threads: usize,
    /// Sectors per second.
    pub sectors_per_s: f64,
    /// Nanoseconds that a sector took.
    pub ns_per_sector: f64,
    /// 10^9 bytes per second.
    pub gb_per_s: f64,
    /// The share of the AES-256 ceiling, times the number of threads: 1 is all of it. AES-128 has fewer rounds and may pass 1.
    pub of_ceiling: f64,
}

/// Measures what `plan` says. `progress` is told how many of how many slices are done.
///
/// # Errors
/// An engine of the plan that can't be used here.
pub fn measure(plan: &Plan, progress: impl FnMut(usize, usize)) -> Result<Measurements, XtsError> {
    let mut cells = vec![Cell::ceiling()];
    for engine in &plan.engines {
        for key_bits in &plan.key_bits {
            for size in [SectorSize::B512, SectorSize::B4096] {
                for direction in [Direction::Encrypt, Direction::Decrypt] {
                    for threads in &plan.threads {
                        cells.push(Cell::of_run(cipher(*engine, *key_bits)?, size, direction, *threads));
                    }
                }
            }
        }
    }
    rounds(plan, &mut cells, progress);
    let ceiling = cells.remove(0);
    let xts = cells.iter().map(|cell| cell.row(&ceiling)).collect();
    Ok(Measurements { machine: Machine::this(), ceiling_gb_per_s: median(ceiling.gb_per_s.into_iter()), xts })
}

/// A point of the curve of throughput against request size.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Point {
    /// The engine's name.
    pub engine: &'static str,
    /// Bytes in one request.
    pub request_bytes: usize,
    /// 10^9 bytes per second.
    pub gb_per_s: f64,
}

/// Encrypts requests of 512 bytes, doubled up to the largest, in 4096-byte sectors, with each engine of the plan and AES-256, as a volume would: through
/// [`parallel`], so that long ones are shared by all cores.
///
/// # Errors
/// As [`measure`].
pub fn measure_requests(plan: &Plan, progress: impl FnMut(usize, usize)) -> Result<Vec<Point>, XtsError> {
    let mut cells = Vec::new();
    for engine in &plan.engines {
        for bytes in (9..usize::BITS).map(|bits| 1 << bits).take_while(|bytes| *bytes <= plan.largest_request) {
            cells.push(Cell::of_request(cipher(*engine, 256)?, bytes));
        }
    }
    rounds(plan, &mut cells, progress);
    let point = |cell: Cell| Point {
        engine: cell.engine,
        request_bytes: cell.src.len(),
        gb_per_s: median(cell.gb_per_s.into_iter()),
    };
    Ok(cells.into_iter().map(point).collect())
}

/// Gives every cell a slice a round, after one round that is not counted.
fn rounds(plan: &Plan, cells: &mut [Cell], mut progress: impl FnMut(usize, usize)) {
    let each = cells.len();
    for cell in &mut *cells {
        cell.calibrate(plan.slice);
    }
    for round in 0..plan.rounds {
        for (index, cell) in cells.iter_mut().enumerate() {
            cell.measure();
            progress(round * each + index + 1, plan.rounds * each);
        }
    }
}

fn cipher(engine: EngineKind, key_bits: u32) -> Result<XtsCipher, XtsError> {
    let key = SecretBytes::new_with(key_bits as usize / 4, |key| key.iter_mut().zip(1..).for_each(|(k, n)| *k = n));
    XtsCipher::new(&key, EngineChoice::Forced(engine))
}

/// Something to do to a source and a destination of equal length, whole units.
pub(super) type Work = Box<dyn FnMut(&[u8], &mut [u8])>;

/// A thing to measure, its buffers and what was measured so far.
struct Cell {
    engine: &'static str,
    key_bits: u32,
    size: SectorSize,
    direction: Direction,
    threads: usize,
    src: Vec<u8>,
    dst: Vec<u8>,
    work: Work,
    /// Runs in a slice.
    runs: u32,
    gb_per_s: Vec<f64>,
}

impl Cell {
    fn of_run(cipher: XtsCipher, size: SectorSize, direction: Direction, threads: NonZeroUsize) -> Self {
        let (engine, key_bits) = (cipher.engine().name(), cipher.key_bits());
        // With one thread the workers run a job inline, as a volume does with a short request.
        let workers = Workers::new(threads, 0, PIECE_BYTES);
        let threads = threads.get();
        let bytes = if threads == 1 { CACHED_BYTES } else { threads * BYTES_PER_THREAD };
        let work: Work = Box::new(move |src, dst| {
            let job = Job::new(&cipher, direction, size, UnitIndex(0), Data::Between(src, dst));
            workers.run(job.expect("a cell's buffers are equally long, whole units"));
        });
        Self { engine, key_bits, size, direction, threads, ..Self::new(bytes, work) }
    }

    fn of_request(cipher: XtsCipher, bytes: usize) -> Self {
        let engine = cipher.engine().name();
        let work: Work = Box::new(move |src, dst| {
            parallel::encrypt(&cipher, SectorSize::B4096, UnitIndex(0), src, dst)
                .expect("a cell's buffers are equally long, whole units");
        });
        Self { engine, ..Self::new(bytes, work) }
    }

    fn new(bytes: usize, work: Work) -> Self {
        Self {
            engine: "ceiling",
            key_bits: 256,
            size: SectorSize::B4096,
            direction: Direction::Encrypt,
            threads: 1,
            src: vec![0x5a; bytes],
            dst: vec![0; bytes],
            work,
            runs: 1,
            gb_per_s: Vec::new(),
        }
    }

    fn ceiling() -> Self {
        #[cfg(target_arch = "x86_64")]
        let own = crate::xts::x86::ceiling();
        #[cfg(not(target_arch = "x86_64"))]
        let own = None;
        let work = own.unwrap_or_else(|| {
            let cipher = aes::Aes256Enc::new(&[0; 32].into());
            Box::new(move |src: &[u8], dst: &mut [u8]| {
                dst.copy_from_slice(src);
                let (blocks, _) = aes::cipher::Array::slice_as_chunks_mut(dst);
                cipher.encrypt_blocks(blocks);
            })
        });
        Self::new(CACHED_BYTES, work)
    }

    /// Finds out how many runs fill a slice.
    fn calibrate(&mut self, slice: Duration) {
        self.elapsed();
        let once = self.elapsed().min(self.elapsed()).max(Duration::from_nanos(20));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and ten million")]
        let runs = slice.div_duration_f64(once).clamp(1.0, 1e7) as u32;
        self.runs = runs;
    }

    fn measure(&mut self) {
        let seconds = self.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a buffer has far less than 2^52 bytes")]
        self.gb_per_s.push(self.src.len() as f64 * f64::from(self.runs) / seconds / 1e9);
    }

    fn elapsed(&mut self) -> Duration {
        let start = Instant::now();
        for _ in 0..self.runs {
            (self.work)(black_box(&self.src), black_box(&mut self.dst));
        }
        start.elapsed()
    }

    fn row(&self, ceiling: &Self) -> Row {
        let gb_per_s = median(self.gb_per_s.iter().copied());
        #[expect(clippy::cast_precision_loss, reason = "512, 4096, and a number of threads")]
        let (sector, threads) = (self.size.bytes() as f64, self.threads as f64);
        let sectors_per_s = gb_per_s * 1e9 / sector;
        let shares = self.gb_per_s.iter().zip(&ceiling.gb_per_s).map(|(cell, ceiling)| cell / ceiling / threads);
        Row {
            engine: self.engine,
            key_bits: self.key_bits,
            sector_size: self.size.bytes(),
            direction: self.direction.to_string(),
            threads: self.threads,
            sectors_per_s,
            ns_per_sector: 1e9 / sectors_per_s,
            gb_per_s,
            of_ceiling: median(shares),
        }
    }
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
            name.map(|(_, name)| name.trim().to_owned())
        });
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            arch: std::env::consts::ARCH,
            features: features(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    macro_rules! found {
        ($($name:tt),+) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),+]
        };
    }
    let found = found!["aes", "avx2", "bmi2", "vaes", "vpclmulqdq", "avx512f"];
    found.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    if aes::hardware_accelerated() { vec!["aes"] } else { Vec::new() }
}

/// The middle value; of an even number the lower of the two in the middle. 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Plan {
        let engines = vec![EngineChoice::Auto.resolve().unwrap()];
        let slice = Duration::from_micros(50);
        Plan { engines, key_bits: vec![256], largest_request: 1 << 18, rounds: 2, slice, ..Plan::full() }
    }

    #[test]
    fn every_cell_is_measured_and_the_figures_agree_with_each_other() {
        let mut last = (0, 0);
        let measured = measure(&tiny(), |done, of| last = (done, of)).unwrap();
        assert_eq!(last.0, last.1);
        let plan = tiny();
        assert_eq!(measured.xts.len(), plan.engines.len() * 4 * plan.threads.len());
        assert!(measured.ceiling_gb_per_s > 0.0);
        for row in &measured.xts {
            assert!(row.gb_per_s > 0.0 && row.of_ceiling > 0.0, "{row:?}");
            #[expect(clippy::cast_precision_loss, reason = "512 or 4096")]
            let bytes = row.sectors_per_s * row.sector_size as f64;
            assert!((bytes / 1e9 - row.gb_per_s).abs() < 1e-6 * row.gb_per_s, "{row:?}");
            assert!((row.ns_per_sector * row.sectors_per_s - 1e9).abs() < 1.0, "{row:?}");
        }
        let json = serde_json::to_value(&measured).unwrap();
        let keys: Vec<_> = json["xts"][0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
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
        assert!(json["ceiling_gb_per_s"].is_f64() && json["machine"]["cpu"].is_string());
    }

    #[test]
    fn request_sizes_are_measured_for_every_engine() {
        let points = measure_requests(&tiny(), |_, _| ()).unwrap();
        let sizes: Vec<_> = points.iter().map(|point| point.request_bytes).collect();
        assert_eq!(sizes, [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072, 262_144]);
        assert!(points.iter().all(|point| point.gb_per_s > 0.0));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()).total_cmp(&2.0), std::cmp::Ordering::Equal);
        assert_eq!(median([4.0, 1.0].into_iter()).total_cmp(&1.0), std::cmp::Ordering::Equal);
        assert_eq!(median(std::iter::empty()).total_cmp(&0.0), std::cmp::Ordering::Equal);
    }
}
