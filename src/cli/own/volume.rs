//! `volume`: what is in a volume, and how it is protected.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::made::Made;
use super::{Group, Outcome, Verb, arguments, envelope};
use crate::api::Parameter;
use crate::cli::{CliError, Session};
use crate::ec2::{self, Access, Moved, Opened, Source};
use crate::gate::{Call, ServiceError};
use crate::luks2::{CopyState, KeyDigest};

const VOLUME_ID: Parameter = Parameter::string("VolumeId", "Id of the volume; may also be given by its place.");
const VOLUME: Parameter = Parameter::string("Volume", "Id of the volume.").ours().positional();
const IMAGE: Parameter = Parameter::string("Image", "The image, if --file does not name it.").ours().positional();
const OFFSET: Parameter =
    Parameter::string("Offset", "First byte in the volume, such as 4096, 64K, 2M or 1G; 0 if none is given.").ours();

pub(super) static GROUP: Group = Group {
    name: "volume",
    help: "What is in a volume, and how it is protected",
    verbs: &[
        Verb {
            name: "inspect",
            help: "Shows a volume's file and header; with --envelope, draws the way from the KMS key to a sector",
            parameters: &[
                VOLUME,
                VOLUME_ID,
                Parameter::boolean("Envelope", "Draw KMS key, wrapped data key and sector with their bytes.").ours(),
                OFFSET,
            ],
            run: inspect,
        },
        Verb {
            name: "import",
            help: "Replaces a detached volume's content with a raw disk image",
            parameters: &[
                VOLUME,
                IMAGE,
                VOLUME_ID,
                Parameter::string("File", "The image; - for standard input.").ours(),
            ],
            run: import,
        },
        Verb {
            name: "export",
            help: "Writes a volume's whole content to a raw disk image",
            parameters: &[
                VOLUME,
                IMAGE,
                VOLUME_ID,
                Parameter::string("File", "The image to make; - for standard output.").ours(),
                Parameter::boolean("Overwrite", "Replace a file that is there already.").ours(),
            ],
            run: export,
        },
        Verb {
            name: "read",
            help: "Writes a range of a volume's bytes to a file or to standard output",
            parameters: &[
                VOLUME,
                VOLUME_ID,
                OFFSET,
                Parameter::string("Length", "How many bytes, such as 512, 64K or 2M.").required().ours(),
                Parameter::string("File", "Where to; - or nothing for standard output.").ours(),
            ],
            run: read,
        },
        Verb {
            name: "write",
            help: "Writes a file, or standard input, into a volume; durable when it ends",
            parameters: &[
                VOLUME,
                VOLUME_ID,
                OFFSET,
                Parameter::string("File", "Where from; - or nothing for standard input.").ours(),
            ],
            run: write,
        },
        Verb {
            name: "verify",
            help: "Checks a volume's file, header, wrapped key and data key; exit code 1 if something is wrong",
            parameters: &[VOLUME, VOLUME_ID],
            run: verify,
        },
        Verb {
            name: "fill",
            help: "Writes encrypted zeros into every hole of a detached volume, for programs without the zero rule",
            parameters: &[VOLUME, VOLUME_ID],
            run: fill,
        },
    ],
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    volume_id: Option<String>,
    volume: Option<String>,
    offset: Option<String>,
    length: Option<String>,
    file: Option<String>,
    image: Option<String>,
    overwrite: Option<bool>,
    envelope: Option<bool>,
}

impl Given {
    /// The volume's id, given as an option or by its place.
    fn volume(&self) -> Result<&str, CliError> {
        match (&self.volume_id, &self.volume) {
            (Some(id), None) | (None, Some(id)) => Ok(id),
            (None, None) => Err(CliError::grammar("the following arguments are required: --volume-id")),
            (Some(_), Some(_)) => Err(CliError::grammar("the volume is named twice: --volume-id and by its place")),
        }
    }

    /// The image of an import or export: a name, or `-`.
    fn image(self) -> Result<Self, CliError> {
        match (&self.file, &self.image) {
            (Some(_), None) => Ok(self),
            (None, Some(_)) => Ok(Self { file: self.image.clone(), ..self }),
            (None, None) => Err(CliError::grammar("the following arguments are required: --file")),
            (Some(_), Some(_)) => Err(CliError::grammar("the image is named twice: --file and by its place")),
        }
    }

    fn offset(&self) -> Result<u64, CliError> {
        self.offset.as_deref().map_or(Ok(0), |text| size("offset", text))
    }

    /// The file, if it is not one of the standard streams.
    fn path(&self) -> Option<&Path> {
        self.file.as_deref().filter(|file| *file != "-").map(Path::new)
    }
}

/// A number of bytes, with `K`, `M`, `G` or `T` for powers of 1024.
fn size(option: &str, text: &str) -> Result<u64, CliError> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((end, 'K' | 'k')) => (&text[..end], 10),
        Some((end, 'M' | 'm')) => (&text[..end], 20),
        Some((end, 'G' | 'g')) => (&text[..end], 30),
        Some((end, 'T' | 't')) => (&text[..end], 40),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| {
            CliError::parameter(option, format!("'{text}' is not a number of bytes such as 4096, 64K or 2M"))
        })
}

fn opened(call: &Call<'_>, verb: &str, given: &Given, access: Access) -> Result<Opened, CliError> {
    ec2::open(call, given.volume()?, access).map_err(|error| failed(verb, error))
}

/// An error of a verb: a refusal names the verb where AWS's line names the operation.
fn failed(verb: &str, error: impl Into<ServiceError>) -> CliError {
    CliError::service(verb, error.into())
}

fn inspect(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given: Given = arguments(given)?;
    let call = session.call()?;
    let found = ec2::inspect(&call, given.volume()?).map_err(|error| failed("inspect", error))?;
    if given.envelope == Some(true) {
        let text = envelope::draw(&call, &found, given.offset()?).map_err(|error| failed("inspect", error))?;
        return Ok(Outcome::text(text));
    }
    Ok(Outcome::value(shown(&found)))
}

/// What an inspection shows as a value.
fn shown(found: &ec2::Inspection) -> Value {
    let file = &found.file;
    let mut value = json!({
        "VolumeId": found.described.volume_id,
        "State": found.described.state,
        "File": file.file,
        "FileBytes": file.file_bytes,
        "AllocatedBytes": file.allocated_bytes,
        "Encrypted": found.described.encrypted,
        "Attached": file.attached,
        "FlushFailed": file.latched,
    });
    let Some(fields) = value.as_object_mut() else { return value };
    match &file.header {
        None => {}
        Some(Err(error)) => {
            fields.insert("HeaderError".to_owned(), crate::gate::chain(error).into());
        }
        Some(Ok((header, copies))) => {
            let wrapped = header.wrapped_key();
            let header = json!({
                "Uuid": header.uuid(),
                "Label": header.label(),
                "Cipher": "aes-xts-plain64",
                "SectorSize": header.sector_size().bytes(),
                "Length": header.length(),
                "SequenceId": header.seqid(),
                "PrimaryCopy": copy(copies.primary),
                "SecondaryCopy": copy(copies.secondary),
                "Digest": digest(header.digest()),
                "Keyslots": header.keyslots(),
                "WrappedKey": {
                    "KmsKeyId": wrapped.key_arn,
                    "EncryptionContext": wrapped.encryption_context,
                    "CiphertextBlob": BASE64.encode(&wrapped.blob),
                },
            });
            fields.insert("Header".to_owned(), header);
        }
    }
    value
}

fn copy(state: CopyState) -> String {
    format!("{state:?}")
}

fn digest(digest: &KeyDigest) -> Value {
    json!({"Type": "pbkdf2", "Hash": "sha256", "Value": BASE64.encode(digest.value())})
}

fn import(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given = arguments::<Given>(given)?.image()?;
    let file = match given.path() {
        Some(path) => open_file(path, OpenOptions::new().read(true))?,
        None => standard(io::stdin().as_fd())?,
    };
    let source = Source::of(file)?;
    let call = session.call()?;
    let opened = opened(&call, "import", &given, Access::Own)?;
    let bar = session.progress("import", opened.device().size());
    let began = Instant::now();
    let moved =
        ec2::import(opened.device(), &source, &mut |at| bar.set(at)).map_err(|error| failed("import", error))?;
    Ok(Outcome::value(report(&opened, moved, began.elapsed())))
}

fn export(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given = arguments::<Given>(given)?.image()?;
    let call = session.call()?;
    let made = match given.path() {
        Some(path) => Some(Made::new(path, given.overwrite == Some(true), call.home.dir().path())?),
        None => None,
    };
    let opened = opened(&call, "export", &given, Access::Read)?;
    let bar = session.progress("export", opened.device().size());
    let began = Instant::now();
    let copy = |sink: &File| {
        ec2::export(opened.device(), sink, &mut |at| bar.set(at)).map_err(|error| failed("export", error))
    };
    let Some(made) = made else {
        copy(&standard(io::stdout().as_fd())?)?;
        return Ok(Outcome::done());
    };
    let moved = copy(made.file())?;
    made.keep()?;
    Ok(Outcome::value(report(&opened, moved, began.elapsed())))
}

fn read(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given: Given = arguments(given)?;
    let offset = given.offset()?;
    let length = size("length", given.length.as_deref().unwrap_or_default())?;
    let call = session.call()?;
    let made = match given.path() {
        Some(path) => Some(Made::new(path, false, call.home.dir().path())?),
        None => None,
    };
    let opened = opened(&call, "read", &given, Access::Read)?;
    let copy = |sink: &mut dyn Write| {
        ec2::read_range(opened.device(), offset, length, sink).map_err(|error| failed("read", error))
    };
    match made {
        None => copy(&mut io::stdout().lock())?,
        Some(made) => {
            copy(&mut made.file())?;
            made.keep()?;
        }
    }
    Ok(Outcome::done())
}

fn write(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given: Given = arguments(given)?;
    let offset = given.offset()?;
    let mut source: Box<dyn Read> = match given.path() {
        Some(path) => Box::new(open_file(path, OpenOptions::new().read(true))?),
        None => Box::new(io::stdin().lock()),
    };
    let call = session.call()?;
    let opened = opened(&call, "write", &given, Access::Write)?;
    let began = Instant::now();
    let length = ec2::write_range(opened.device(), offset, source.as_mut()).map_err(|error| failed("write", error))?;
    Ok(Outcome::value(report(&opened, Moved { length, stored: length }, began.elapsed())))
}

fn verify(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given: Given = arguments(given)?;
    let call = session.call()?;
    let inspected = ec2::inspect(&call, given.volume()?).map_err(|error| failed("verify", error))?;
    let bar = session.progress("verify", inspected.file.file_bytes);
    let found = ec2::verify(&call, given.volume()?, &mut |at| bar.set(at)).map_err(|error| failed("verify", error))?;
    drop(bar);
    let value = json!({
        "VolumeId": given.volume()?,
        "Sound": found.problems.is_empty(),
        "KeyMatches": found.key_matches,
        "Problems": found.problems,
        "Notes": found.notes,
    });
    let outcome = Outcome::value(value);
    Ok(if found.problems.is_empty() { outcome } else { outcome.failed() })
}

fn fill(session: &Session, given: Value) -> Result<Outcome, CliError> {
    let given: Given = arguments(given)?;
    let call = session.call()?;
    let opened = opened(&call, "fill", &given, Access::Own)?;
    let length = opened.device().size();
    let bar = session.progress("fill", length);
    let began = Instant::now();
    opened.fill(&mut |at| bar.set(at)).map_err(|error| failed("fill", error))?;
    Ok(Outcome::value(report(&opened, Moved { length, stored: length }, began.elapsed())))
}

/// What was moved, and how fast.
fn report(opened: &Opened, moved: Moved, took: Duration) -> Value {
    let mut fields = Map::new();
    fields.insert("VolumeId".to_owned(), opened.id.as_str().into());
    fields.insert("ThroughExporter".to_owned(), opened.attached.into());
    fields.insert("Bytes".to_owned(), moved.length.into());
    fields.insert("StoredBytes".to_owned(), moved.stored.into());
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    fields.insert("Milliseconds".to_owned(), milliseconds.into());
    let per_second = u128::from(moved.length) * 1_000_000_000 / took.as_nanos().max(1);
    fields.insert("BytesPerSecond".to_owned(), u64::try_from(per_second).unwrap_or(u64::MAX).into());
    Value::Object(fields)
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<File, CliError> {
    options.open(path).map_err(|error| CliError::machine(format!("cannot open {}: {error}", path.display())))
}

/// A standard stream as a file, so that it can be asked what it is.
fn standard(stream: std::os::fd::BorrowedFd<'_>) -> Result<File, CliError> {
    Ok(File::from(stream.try_clone_to_owned()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64K", 65_536), ("2m", 2 << 20), ("1G", 1 << 30), ("64T", 64 << 40)]
        {
            assert_eq!(size("offset", text).unwrap(), bytes);
        }
        for bad in ["", "K", "-1", "+1", "1.5G", "1 K", "18446744073709551615K", "0x10"] {
            assert!(size("offset", bad).is_err(), "{bad}");
        }
    }
}
