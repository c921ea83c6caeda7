//! The canonical request: what is signed, spelled in the one way that signer and verifier agree on.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::super::request::{Request, decode, encode};
use crate::ids::hex;

/// The canonical request; `None` if the request cannot have one: its encoding is broken, or a header it says was signed is
/// not there.
pub(super) fn request(request: &Request, signed_headers: &[String], hash: &str, presigned: bool) -> Option<String> {
    let mut text = format!("{}\n", request.method);
    path(&request.path, &mut text)?;
    text.push('\n');
    query(&request.query, presigned, &mut text)?;
    text.push('\n');
    if !signed_headers.is_sorted() {
        return None;
    }
    for name in signed_headers {
        let mut values = request.headers.get_all(name.as_str()).iter().peekable();
        values.peek()?;
        let values: Option<Vec<String>> = values
            .map(|value| Some(value.to_str().ok()?.split_ascii_whitespace().collect::<Vec<_>>().join(" ")))
            .collect();
        let _ = writeln!(text, "{name}:{}", values?.join(","));
    }
    let _ = write!(text, "\n{}\n{hash}", signed_headers.join(";"));
    Some(text)
}

/// What the canonical request says of the body: its digest, or that it is not signed. `None` if the request names a digest
/// that is not its body's.
pub(super) fn payload_hash(request: &Request) -> Option<Cow<'_, str>> {
    let digest = || hex(&Sha256::digest(&request.body));
    match request.header("x-amz-content-sha256") {
        None if request.headers.contains_key("x-amz-content-sha256") => None,
        None => Some(Cow::Owned(digest())),
        // The signer chose it, and the choice itself is under the signature.
        Some(unsigned @ "UNSIGNED-PAYLOAD") => Some(Cow::Borrowed(unsigned)),
        Some(named) => (named == digest()).then_some(Cow::Borrowed(named)),
    }
}

/// The path: normalised, each segment encoded once more.
fn path(path: &str, into: &mut String) -> Option<()> {
    decode(path, false)?;
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    for segment in &segments {
        into.push('/');
        encode(segment, into);
    }
    if segments.is_empty() || path.ends_with('/') {
        into.push('/');
    }
    Some(())
}

/// The pairs in the order of their encoded names and values, without the signature itself.
fn query(query: &str, presigned: bool, into: &mut String) -> Option<()> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if presigned && name == "X-Amz-Signature" {
            continue;
        }
        let (mut encoded_name, mut encoded_value) = (String::new(), String::new());
        encode(&decode(name, false)?, &mut encoded_name);
        encode(&decode(value, false)?, &mut encoded_value);
        pairs.push((encoded_name, encoded_value));
    }
    pairs.sort_unstable();
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    into.push_str(&pairs.join("&"));
    Some(())
}
