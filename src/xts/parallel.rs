//! Long runs on several cores: pieces of a run, taken one after the other by this thread and by a pool of our own.
//!
//! A piece is a [`Job`], and the same [`Job::run`] does it inline and on the pool, so where a run is cut changes nothing of
//! its result. The calling thread works too and never waits for a piece that nobody has begun: what comes while the pool is busy
//! costs what it would cost inline, but for waking a thread in vain.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::place::Place;
use super::{Direction, Side, XtsCipher, XtsError, check_units, lend};
use crate::units::{SectorSize, UnitIndex};

/// No piece of a run that is shared between threads is shorter, but the first and the last.
pub const PIECE_BYTES: usize = 64 * 1024;

/// Pieces of longer runs grow up to this: each costs a start of its own, and this many bytes still fit a second-level cache.
const LARGEST_PIECE_BYTES: usize = 256 * 1024;

/// Pieces for each thread, while they are not longer than that: who is slowed down by other work takes fewer.
const PIECES_PER_THREAD: usize = 4;

/// Runs of at least this length are shared with the pool.
///
/// To wake a thread takes about 10 microseconds, in which VAES-256 does 128 KiB. Measured in repeated runs with two idle Zen 3
/// cores against one: 128 KiB 1.2 times as fast, 256 KiB 1.4, 512 KiB 1.6, 1 MiB 1.75, 2 MiB 1.85, 4 and 8 MiB 1.9. A run after a
/// pause, in which a virtual machine's second processor was given back, gains less (8 MiB 1.55); a run whose source and destination
/// do not fit the last-level cache meets the memory's limit (16 MiB 1.7). With both cores busy with other work a run of 256 KiB takes
/// 1.05 times as long. Slower engines gain sooner.
pub const CROSSOVER_BYTES: usize = 256 * 1024;

/// As [`XtsCipher::encrypt`], over all cores if the run is long.
///
/// # Errors
/// As [`XtsCipher::encrypt`].
pub fn encrypt(
    cipher: &XtsCipher,
    size: SectorSize,
    first: UnitIndex,
    src: &[u8],
    dst: &mut [u8],
) -> Result<(), XtsError> {
    SHARED.run(Job::new(cipher, Direction::Encrypt, size, first, Data::Between(src, dst))?);
    Ok(())
}

/// As [`XtsCipher::decrypt`], over all cores if the run is long.
///
/// # Errors
/// As [`XtsCipher::decrypt`].
pub fn decrypt(
    cipher: &XtsCipher,
    size: SectorSize,
    first: UnitIndex,
    src: &[u8],
    dst: &mut [u8],
) -> Result<(), XtsError> {
    SHARED.run(Job::new(cipher, Direction::Decrypt, size, first, Data::Between(src, dst))?);
    Ok(())
}

/// As [`XtsCipher::encrypt_in_place`], over all cores if the run is long.
///
/// # Errors
/// As [`XtsCipher::encrypt_in_place`].
pub fn encrypt_in_place(
    cipher: &XtsCipher,
    size: SectorSize,
    first: UnitIndex,
    data: &mut [u8],
) -> Result<(), XtsError> {
    SHARED.run(Job::new(cipher, Direction::Encrypt, size, first, Data::InPlace(data))?);
    Ok(())
}

/// As [`XtsCipher::decrypt_in_place`], over all cores if the run is long.
///
/// # Errors
/// As [`XtsCipher::decrypt_in_place`].
pub fn decrypt_in_place(
    cipher: &XtsCipher,
    size: SectorSize,
    first: UnitIndex,
    data: &mut [u8],
) -> Result<(), XtsError> {
    SHARED.run(Job::new(cipher, Direction::Decrypt, size, first, Data::InPlace(data))?);
    Ok(())
}

/// As [`super::reencrypt()`], over all cores if the run is long.
///
/// # Errors
/// As [`super::reencrypt()`].
pub fn reencrypt(from: Side<'_>, to: Side<'_>, src: &[u8], dst: &mut [u8]) -> Result<(), XtsError> {
    SHARED.run(Job::reencrypt(from, to, Data::Between(src, dst))?);
    Ok(())
}

/// The bytes of a job.
#[expect(clippy::exhaustive_enums, reason = "a run has one buffer or two")]
pub enum Data<'a> {
    /// From the first buffer into the second, equally long.
    Between(&'a [u8], &'a mut [u8]),
    /// Where they lie.
    InPlace(&'a mut [u8]),
}

/// The length alone: the bytes may be somebody's plaintext.
impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Between(_, data) | Self::InPlace(data) => data.len(),
        }
    }
}

/// A run that is fully described and checked, and still to be done.
#[derive(Debug)]
pub struct Job<'a> {
    work: Work<'a>,
    data: Data<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Work<'a> {
    Crypt(Direction, Side<'a>),
    Reencrypt(Side<'a>, Side<'a>),
}

impl<'a> Job<'a> {
    /// The job of encrypting or decrypting a run.
    ///
    /// # Errors
    /// [`XtsError::Lengths`] if the buffers' lengths differ or are no multiple of 512.
    pub fn new(
        cipher: &'a XtsCipher,
        direction: Direction,
        size: SectorSize,
        first: UnitIndex,
        data: Data<'a>,
    ) -> Result<Self, XtsError> {
        Self::checked(Work::Crypt(direction, Side { cipher, size, first }), data)
    }

    /// The job of re-encrypting a run.
    ///
    /// # Errors
    /// As [`Job::new`].
    pub fn reencrypt(from: Side<'a>, to: Side<'a>, data: Data<'a>) -> Result<Self, XtsError> {
        Self::checked(Work::Reencrypt(from, to), data)
    }

    fn checked(work: Work<'a>, data: Data<'a>) -> Result<Self, XtsError> {
        check_units(data.len())?;
        if let Data::Between(src, dst) = &data
            && src.len() != dst.len()
        {
            return Err(XtsError::Lengths { source_bytes: src.len(), destination_bytes: dst.len() });
        }
        Ok(Self { work, data })
    }

    /// Does it, on this thread.
    #[expect(clippy::missing_panics_doc, reason = "the lengths were checked when the job was made")]
    pub fn run(self) {
        let outcome = match (self.work, self.data) {
            (Work::Crypt(Direction::Encrypt, Side { cipher, size, first }), Data::Between(src, dst)) => {
                cipher.encrypt(size, first, src, dst)
            }
            (Work::Crypt(Direction::Decrypt, Side { cipher, size, first }), Data::Between(src, dst)) => {
                cipher.decrypt(size, first, src, dst)
            }
            (Work::Crypt(Direction::Encrypt, Side { cipher, size, first }), Data::InPlace(data)) => {
                cipher.encrypt_in_place(size, first, data)
            }
            (Work::Crypt(Direction::Decrypt, Side { cipher, size, first }), Data::InPlace(data)) => {
                cipher.decrypt_in_place(size, first, data)
            }
            (Work::Reencrypt(from, to), Data::Between(src, dst)) => super::reencrypt(from, to, src, dst),
            (Work::Reencrypt(from, to), Data::InPlace(data)) => super::reencrypt_in_place(from, to, data),
        };
        outcome.expect("a job's lengths were checked when it was made, and pieces are cut at 512-byte units");
    }

    /// The piece to do next, of about `bytes` bytes (at least 4096), and the rest, if there is one. Pieces end at the borders of
    /// 4096-byte sectors, so that none of those is cut in two.
    pub(super) fn next_piece(self, bytes: usize) -> (Self, Option<Self>) {
        let (Work::Crypt(_, side) | Work::Reencrypt(_, side)) = self.work;
        let (_, into_sector) = SectorSize::B4096.locate(side.first);
        self.cut(bytes - into_sector)
    }

    /// Its first `bytes` bytes (a multiple of 512) and the rest, if there is one.
    fn cut(self, bytes: usize) -> (Self, Option<Self>) {
        if bytes >= self.data.len() {
            return (self, None);
        }
        let (front, back) = match self.data {
            Data::Between(src, dst) => {
                let (src, src_after) = src.split_at(bytes);
                let (dst, dst_after) = dst.split_at_mut(bytes);
                (Data::Between(src, dst), Data::Between(src_after, dst_after))
            }
            Data::InPlace(data) => {
                let (data, after) = data.split_at_mut(bytes);
                (Data::InPlace(data), Data::InPlace(after))
            }
        };
        let work_after = match self.work {
            Work::Crypt(direction, side) => Work::Crypt(direction, side.after(bytes)),
            Work::Reencrypt(from, to) => Work::Reencrypt(from.after(bytes), to.after(bytes)),
        };
        (Self { work: self.work, data: front }, Some(Self { work: work_after, data: back }))
    }
}

/// The pool of the whole process, made at the first long run.
static SHARED: LazyLock<Workers> = LazyLock::new(|| {
    Workers::new(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN), CROSSOVER_BYTES, PIECE_BYTES)
});

/// Threads that share runs with the thread which calls them.
#[derive(Debug)]
pub struct Workers {
    /// The threads beside the caller; `None` if there are none.
    pool: Option<ThreadPool>,
    /// Where they are.
    places: Arc<[Place]>,
    crossover: usize,
    piece: usize,
}

impl Workers {
    /// `threads` in all, the caller among them; runs shorter than `crossover` bytes stay with the caller, others are cut into
    /// pieces of at least `piece` bytes (rounded up to 4096). If the system gives no threads, the caller works alone.
    pub fn new(threads: NonZeroUsize, crossover: usize, piece: usize) -> Self {
        let helpers = threads.get() - 1;
        let pool = (helpers > 0)
            .then(|| {
                ThreadPoolBuilder::new()
                    .num_threads(helpers)
                    .thread_name(|index| format!("blockseal-xts-{index}"))
                    .build()
                    .ok()
            })
            .flatten();
        let places = (0..helpers).map(|_| Place::unknown()).collect();
        Self { pool, places, crossover, piece: piece.max(1).next_multiple_of(SectorSize::B4096.bytes()) }
    }

    /// Threads that work on a long run, the caller among them.
    pub fn threads(&self) -> usize {
        1 + self.pool.as_ref().map_or(0, ThreadPool::current_num_threads)
    }

    /// Does the job; it is done when this returns.
    pub fn run(&self, job: Job<'_>) {
        let by_length = (job.data.len() / (self.threads() * PIECES_PER_THREAD)).min(LARGEST_PIECE_BYTES);
        let piece = self.piece.max(by_length.next_multiple_of(SectorSize::B4096.bytes()));
        let pieces = job.data.len().div_ceil(piece);
        let Some(pool) = self.pool.as_ref().filter(|_| job.data.len() >= self.crossover && pieces > 1) else {
            return job.run();
        };
        self.places.iter().for_each(Place::leave_to_caller);
        lend::share(pool, &self.places, pool.current_num_threads().min(pieces - 1), job, piece);
    }
}
