//! Log files in a folder, of CloudTrail or of ours.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::tree::{self, MAX_BYTES};

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

/// The files in `from`, or in any folder below, that may be log files; `from` itself if it is a file. Digests and insights are
/// left out.
///
/// # Errors
/// If a folder cannot be listed, or there is no such file.
pub fn log_files(from: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let mut files = Vec::new();
    if fs::metadata(from).is_ok_and(|found| found.is_file()) {
        files.push(from.to_owned());
    } else {
        walk(from, &mut files)?;
    }
    files.sort_unstable();
    if files.is_empty() { Err(FolderError::Nothing(from.to_owned())) } else { Ok(files) }
}

/// Links to folders are not followed, as they may lead in a circle.
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

/// The JSON in a log file, whether it is in gzip or not.
///
/// # Errors
/// If the file cannot be read; [`io::ErrorKind::InvalidData`] for a gzip file that is cut short and for more than 1 GiB.
pub fn read_log_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if bytes.len() as u64 == MAX_BYTES {
        return Err(invalid("it is larger than any log file"));
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return tree::unpack_members(&bytes).ok_or_else(|| invalid("it is no whole gzip file"));
    }
    Ok(bytes)
}
