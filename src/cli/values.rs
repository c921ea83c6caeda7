//! From the words of a command line to the members of a request.

use std::env;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use zeroize::Zeroizing;

use super::shorthand::{self, Short};
use super::{BinaryFormat, CliError};
use crate::api::{Kind, Parameter};

/// The most that is read from a file given as a value; requests of AWS are far smaller.
const MAX_FILE: u64 = 16 << 20;

/// Reads the words given for `parameter`.
///
/// One word that starts with `file://` or `fileb://` stands for the contents of that file. Lists of structures,
/// structures and maps are shorthand or JSON, lists of words are words or JSON.
pub(super) fn read(parameter: &Parameter, mut words: Vec<String>, format: BinaryFormat) -> Result<Value, CliError> {
    let name = shown_name(parameter);
    let refused = |message: String| CliError::parameter(&name, message);
    if let [word] = &words[..] {
        match file_contents(word).map_err(refused)? {
            Some(Contents::Bytes(bytes)) => return from_bytes(parameter.kind, &bytes).map_err(refused),
            Some(Contents::Text(text)) => words = vec![text],
            None => {}
        }
    }
    match parameter.kind {
        Kind::List(member) => {
            if let [word] = &words[..]
                && word.trim_start().starts_with('[')
            {
                return typed(parameter.kind, json(word).map_err(refused)?, format).map_err(refused);
            }
            let items = words.iter().map(|word| one(*member, word, format));
            items.collect::<Result<_, _>>().map(Value::Array).map_err(refused)
        }
        kind => match &words[..] {
            [word] => one(kind, word, format).map_err(refused),
            _ => Err(refused(format!("expected one value, got {}", words.len()))),
        },
    }
}

/// Reads `--cli-input-json`: an object of members, given as text or as `file://…`.
pub(super) fn read_input(
    parameters: &'static [Parameter],
    word: &str,
    format: BinaryFormat,
) -> Result<Map<String, Value>, CliError> {
    let refused = |message: String| CliError::parameter("cli-input-json", message);
    let contents = match file_contents(word).map_err(refused)? {
        Some(Contents::Text(text)) => text,
        Some(Contents::Bytes(_)) => return Err(refused("give JSON as file://, not as fileb://".to_owned())),
        None => word.to_owned(),
    };
    match typed(Kind::Structure(parameters), json(&contents).map_err(refused)?, format).map_err(refused)? {
        Value::Object(members) => Ok(members),
        _ => Err(refused("Invalid JSON: expected an object".to_owned())),
    }
}

/// How messages call a parameter: `--key-id`, or `DURATION` for one that is given by its place.
pub(super) fn shown_name(parameter: &Parameter) -> String {
    if parameter.positional { parameter.option().to_uppercase() } else { format!("--{}", parameter.option()) }
}

/// One word as a value of `kind`.
fn one(kind: Kind, word: &str, format: BinaryFormat) -> Result<Value, String> {
    match kind {
        Kind::Structure(_) | Kind::Map(_) | Kind::List(_) => {
            if word.trim_start().starts_with(['{', '[']) {
                return typed(kind, json(word)?, format);
            }
            let read_file = |word: &str| {
                Ok(file_contents(word)?.map(|contents| match contents {
                    Contents::Text(text) => Short::Text(text),
                    Contents::Bytes(bytes) => Short::Bytes(bytes.to_vec()),
                }))
            };
            let short = shorthand::parse(word, &read_file).map_err(|error| error.to_string())?;
            from_shorthand(kind, short, format)
        }
        Kind::Integer | Kind::Long => match word.trim().parse::<i64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => Err(format!("'{word}' is not an integer")),
        },
        Kind::Boolean => match word {
            _ if word.eq_ignore_ascii_case("true") => Ok(true.into()),
            _ if word.eq_ignore_ascii_case("false") => Ok(false.into()),
            _ => Err(format!("'{word}' is neither true nor false")),
        },
        Kind::Blob | Kind::Timestamp | Kind::String | Kind::Choice(_) => typed(kind, word.into(), format),
    }
}

/// A value in JSON with what depends on types settled: blobs are checked base64, times are text.
fn typed(kind: Kind, value: Value, format: BinaryFormat) -> Result<Value, String> {
    Ok(match (kind, value) {
        (Kind::Blob, Value::String(text)) => {
            let text = Zeroizing::new(text);
            match format {
                BinaryFormat::RawInBase64Out => STANDARD.encode(text.as_bytes()).into(),
                BinaryFormat::Base64 => STANDARD.encode(decode(&text)?).into(),
            }
        }
        (Kind::Timestamp, Value::Number(number)) => number.to_string().into(),
        (Kind::List(member), Value::Array(items)) => {
            Value::Array(items.into_iter().map(|item| typed(*member, item, format)).collect::<Result<_, _>>()?)
        }
        (Kind::Map(member), Value::Object(pairs)) => {
            let pairs = pairs.into_iter().map(|(key, item)| Ok((key, typed(*member, item, format)?)));
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
        (Kind::Structure(members), Value::Object(pairs)) => {
            let pairs = pairs.into_iter().map(|(key, item)| match kind_of(members, &key) {
                Some(kind) => Ok((key, typed(kind, item, format)?)),
                None => Ok((key, item)),
            });
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
        (_, value) => value,
    })
}

/// Shorthand as a value of `kind`. What does not fit stays as it is, for validation to name.
fn from_shorthand(kind: Kind, short: Short, format: BinaryFormat) -> Result<Value, String> {
    Ok(match (kind, short) {
        (Kind::List(member), Short::List(items)) => {
            Value::Array(items.into_iter().map(|item| from_shorthand(*member, item, format)).collect::<Result<_, _>>()?)
        }
        // `Values=a` means a list of one.
        (Kind::List(member), short) => Value::Array(vec![from_shorthand(*member, short, format)?]),
        (Kind::Map(member), Short::Hash(pairs)) => {
            let pairs = pairs.into_iter().map(|(key, item)| Ok((key, from_shorthand(*member, item, format)?)));
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
        (Kind::Structure(members), Short::Hash(pairs)) => {
            let pairs = pairs.into_iter().map(|(key, item)| {
                let kind = kind_of(members, &key).unwrap_or(Kind::String);
                Ok((key, from_shorthand(kind, item, format)?))
            });
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
        (Kind::Structure(_) | Kind::Map(_), Short::Text(text)) => text.into(),
        (kind, Short::Text(text)) => one(kind, &text, format)?,
        (kind, Short::Bytes(bytes)) => from_bytes(kind, &bytes)?,
        (_, Short::List(items)) => {
            let items = items.into_iter().map(|item| from_shorthand(Kind::String, item, format));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        (_, Short::Hash(pairs)) => {
            let pairs = pairs.into_iter().map(|(key, item)| Ok((key, from_shorthand(Kind::String, item, format)?)));
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
    })
}

fn kind_of(members: &[Parameter], name: &str) -> Option<Kind> {
    members.iter().find(|member| member.name == name).map(|member| member.kind)
}

fn from_bytes(kind: Kind, bytes: &[u8]) -> Result<Value, String> {
    match kind {
        Kind::Blob => Ok(STANDARD.encode(bytes).into()),
        kind => Err(format!("fileb:// gives bytes, and this is a {}: use file://", kind.name())),
    }
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("Invalid JSON: {error}\nJSON received: {text}"))
}

/// Decodes base64, white space aside. The error shows nothing of the text, which may be a secret.
fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut packed = Zeroizing::new(Vec::with_capacity(text.len()));
    packed.extend(text.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    STANDARD.decode(packed.as_slice()).map(Zeroizing::new).map_err(|_| {
        "Invalid base64. Give bytes as fileb://FILE, or as they are with --cli-binary-format raw-in-base64-out"
            .to_owned()
    })
}

enum Contents {
    Text(String),
    Bytes(Zeroizing<Vec<u8>>),
}

/// The contents of the file that `word` names, if it starts with `file://` or `fileb://`.
fn file_contents(word: &str) -> Result<Option<Contents>, String> {
    let (path, binary) = match (word.strip_prefix("file://"), word.strip_prefix("fileb://")) {
        (Some(path), _) => (path, false),
        (None, Some(path)) => (path, true),
        (None, None) => return Ok(None),
    };
    let path = match (path.strip_prefix("~/"), env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    };
    let failed = |error: &dyn std::fmt::Display| format!("Unable to load paramfile {word}: {error}");
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(&path).map_err(|error| failed(&error))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(&format!("it is larger than {MAX_FILE} bytes")));
    }
    if binary {
        return Ok(Some(Contents::Bytes(bytes)));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Some(Contents::Text(text.to_owned()))),
        Err(_) => Err(format!(
            "Unable to load paramfile ({}), text contents could not be decoded.  If this is a binary file, please use the fileb:// prefix instead of the file:// prefix.",
            path.display()
        )),
    }
}

/// The text that `word` is, or that is in the file which it names with `file://`.
pub(super) fn text(name: &str, word: &str) -> Result<String, CliError> {
    match file_contents(word) {
        Ok(None) => Ok(word.to_owned()),
        Ok(Some(Contents::Text(text))) => Ok(text),
        Ok(Some(Contents::Bytes(_))) => Err(CliError::parameter(name, "give text as file://, not as fileb://")),
        Err(error) => Err(CliError::parameter(name, error)),
    }
}

/// A request with every member and nothing in it, as `--generate-cli-skeleton` prints it.
pub(super) fn skeleton(parameters: &[Parameter]) -> Value {
    Value::Object(parameters.iter().map(|member| (member.name.to_owned(), empty(member.kind))).collect())
}

fn empty(kind: Kind) -> Value {
    match kind {
        Kind::String | Kind::Blob => "".into(),
        Kind::Choice(choices) => (*choices.first().unwrap_or(&"")).into(),
        Kind::Integer | Kind::Long => Value::Number(Number::from(0)),
        Kind::Boolean => true.into(),
        Kind::Timestamp => "1970-01-01T00:00:00".into(),
        Kind::List(member) => Value::Array(vec![empty(*member)]),
        Kind::Map(member) => Value::Object(Map::from_iter([("KeyName".to_owned(), empty(*member))])),
        Kind::Structure(members) => skeleton(members),
    }
}
