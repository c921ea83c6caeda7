//! Many log files read at once for one report.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Tally;
use super::entry::{Asked, Use};
use crate::trail::folder::read_log_file;

/// So many files that could not be read are named.
const NAMED: usize = 20;

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
    let text = read_log_file(path).map_err(|error| error.to_string())?;
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
