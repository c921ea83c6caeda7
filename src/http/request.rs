//! A request as it came in, and the texts inside it.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method};

/// A whole request, its body read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The path, percent-encoded as it was sent.
    pub(super) path: String,
    /// What stands behind the question mark, as it was sent.
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Where it comes from; the loopback address for a Unix socket.
    pub(super) source: IpAddr,
}

impl Request {
    /// The only value of a header; `None` if it is absent, there more than once, or not visible ASCII.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }

    /// The pairs of the query, then those of a form in the body, decoded; `None` if one is not valid UTF-8 behind its
    /// percent-encoding, or there are too many.
    pub(super) fn form(&self) -> Option<Vec<(String, String)>> {
        let is_form = self
            .header("content-type")
            .is_some_and(|kind| kind.trim_start().starts_with("application/x-www-form-urlencoded"));
        let body = if is_form { std::str::from_utf8(&self.body).ok()? } else { "" };
        let mut found = Vec::new();
        for pair in self.query.split('&').chain(body.trim_end().split('&')).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            found.push((decode(name, true)?.into_owned(), decode(value, true)?.into_owned()));
            if found.len() > MAX_PAIRS {
                return None;
            }
        }
        Some(found)
    }
}

/// More parameters than any operation takes.
const MAX_PAIRS: usize = 10_000;

/// Percent-decoded text (RFC 3986, and for `form` the plus sign of HTML forms); `None` if a percent sign is not followed by
/// two digits or the bytes are not UTF-8.
pub(super) fn decode(text: &str, form: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (form && byte == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                bytes.push(digit(digits[0])? << 4 | digit(digits[1])?);
                rest = after;
            }
            b'+' if form => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Percent-encodes all but the unreserved characters of RFC 3986, as request signatures and IAM's policy documents do.
pub(super) fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(char::from(byte)),
            byte => {
                into.push('%');
                into.push(char::from(b"0123456789ABCDEF"[usize::from(byte >> 4)]));
                into.push(char::from(b"0123456789ABCDEF"[usize::from(byte & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_again_and_what_is_broken_is_refused() {
        let mut encoded = String::new();
        encode("a b/ü+%~", &mut encoded);
        assert_eq!(encoded, "a%20b%2F%C3%BC%2B%25~");
        assert_eq!(decode(&encoded, true).as_deref(), Some("a b/ü+%~"));
        assert_eq!(decode("a+b", true).as_deref(), Some("a b"));
        assert_eq!(decode("a+b", false).as_deref(), Some("a+b"));
        for broken in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(broken, true), None, "{broken}");
        }
    }
}
