//! `init`: fills a home from a file.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Outcome, Verb, arguments};
use crate::api::{Parameter, init};
use crate::cli::{CliError, Session};

/// Most bytes of a file.
const MOST_BYTES: u64 = 16 << 20;

pub(super) static INIT: Verb = Verb {
    name: "init",
    help: "Fills the home with the principals, keys, aliases and volumes of a file; the same file again changes nothing",
    parameters: &[Parameter::string("File", "A file in JSON, as docs/init.md has it").ours().positional()],
    run,
};

fn run(session: &Session, given: Value) -> Result<Outcome, CliError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given {
        file: Option<PathBuf>,
    }
    let Given { file } = arguments(given)?;
    let path = file.ok_or_else(|| CliError::grammar("the following arguments are required: FILE"))?;
    let text = read(&path, "FILE")?;
    let report = init::load(&session.call()?, &text).map_err(|error| CliError::service("init", error))?;
    Ok(Outcome::value(serde_json::to_value(report).map_err(CliError::machine)?))
}

/// The text of such a file, which `option` named.
pub(super) fn read(path: &Path, option: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let wrong = |what: String| CliError::parameter(option, format!("{}: {what}", path.display()));
    let source = File::open(path).map_err(|error| wrong(error.to_string()))?;
    // It may hold key material and secret access keys: room for all of it is there before the first byte is read.
    let length = source.metadata().map_err(|error| wrong(error.to_string()))?.len();
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(length.min(MOST_BYTES)).unwrap_or(0) + 1));
    source.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(wrong(format!("it has more than {MOST_BYTES} bytes")));
    }
    Ok(text)
}
