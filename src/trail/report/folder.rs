//! Log files in a folder, of CloudTrail or of ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::entry::{Asked, Use};
use super::{Tally, tree};

/// So many files that could not be read are named.
const NAMED: usize = 20;

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// A folder cannot be listed.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There are no log files.
    #[error("there is no .json or .json.gz file in {}", .0.display())]
    Nothing(PathBuf),
}

/// The files in `from`, or in any folder below, that may be log files.
pub(super) fn log_files(from: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let mut files = Vec::new();
    if fs::metadata(from).is_ok_and(|found| found.is_file()) {
        files.push(from.to_owned());
    } else {
        walk(from, &mut files)?;
    }
    files.sort_unstable();
    if files.is_empty() { Err(FolderError::Nothing(from.to_owned())) } else { Ok(files) }
}

/// Digests and insights have records of another kind. Links to folders are not followed, as they may lead in a circle.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), FolderError> {
    let failed = |source| FolderError::Io { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if entry.file_type().map_err(failed)?.is_dir() {
            if !matches!(&*name, "CloudTrail-Digest" | "CloudTrail-Insight") {
                walk(&path, files)?;
            }
        } else if name.ends_with(".json") || name.ends_with(".json.gz") {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads the files on all processors. Answers what was counted, and which files could not be read.
pub(super) fn read_all(files: &[PathBuf], asked: &Asked) -> (Tally, Vec<String>) {
    let next = AtomicUsize::new(0);
    let worker = || {
        let (mut tally, mut unread) = (Tally::default(), Vec::new());
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = read(path, asked, &mut tally) {
                unread.push(format!("{}: {why}", path.display()));
            }
        }
        (tally, unread)
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().max(1));
    let done: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let (mut tally, mut unread) = (Tally::default(), Vec::new());
    for (counted, named) in done {
        tally.merge(counted);
        unread.extend(named);
    }
    unread.sort_unstable();
    unread.truncate(NAMED);
    (tally, unread)
}

fn read(path: &Path, asked: &Asked, tally: &mut Tally) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let text = if bytes.starts_with(&[0x1f, 0x8b]) {
        tree::unpack_members(&bytes).ok_or("it is no whole gzip file")?
    } else {
        bytes
    };
    // Most files of a busy account tell of other things: they are not even parsed.
    if !holds(&text, asked.needle().as_bytes()) {
        return if text.trim_ascii_start().starts_with(b"{") || text.trim_ascii_start().starts_with(b"[") {
            Ok(())
        } else {
            Err("it is no JSON".to_owned())
        };
    }
    Use::read_file(&text, asked, |used| tally.add(used))
}

fn holds(text: &[u8], needle: &[u8]) -> bool {
    match std::str::from_utf8(text).ok().zip(std::str::from_utf8(needle).ok()) {
        Some((text, needle)) => text.contains(needle),
        None => true,
    }
}
