//! What the server says of itself: one JSON object a line, on standard error.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Whether requests are logged, beside what is out of order.
static REQUESTS: AtomicBool = AtomicBool::new(true);

/// Says whether every request is logged.
pub(super) fn log_requests(yes: bool) {
    REQUESTS.store(yes, Ordering::Relaxed);
}

/// One request and what became of it. Neither its body nor the answer's is ever in it.
pub(super) fn request(fields: Value) {
    if REQUESTS.load(Ordering::Relaxed) {
        line("info", "request", fields);
    }
}

/// Something that the operator should know.
pub(super) fn warning(message: &str, fields: Value) {
    line("warning", message, fields);
}

fn line(level: &str, message: &str, fields: Value) {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let mut all = Map::new();
    all.insert("time".to_owned(), now.into());
    all.insert("level".to_owned(), level.into());
    all.insert("message".to_owned(), message.into());
    if let Value::Object(fields) = fields {
        all.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
    }
    // In one piece, so that lines of two threads are not mixed. Where nobody reads, there is nobody to tell.
    let _ = std::io::stderr().lock().write_all(format!("{}\n", json!(all)).as_bytes());
}
