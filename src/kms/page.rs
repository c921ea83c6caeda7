//! Paging with `Limit` and `Marker`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::gate::ServiceError;

use super::validate::Validation;

/// The largest `Limit` that the API's model has; some operations never answer so many.
const MODEL_LIMIT: i64 = 1000;

/// How many items a page has: `limit` if given, at most `most`.
pub(super) fn page_limit(validation: &mut Validation, limit: Option<i64>, default: usize, most: usize) -> usize {
    let Some(limit) = limit else { return default };
    validation.number("limit", limit, 1..=MODEL_LIMIT);
    usize::try_from(limit).unwrap_or(default).min(most)
}

/// The name of the last item of a page, in a form that nobody is tempted to make up.
pub(super) struct Marker;

impl Marker {
    /// The name behind which the page begins: empty without a marker.
    pub(super) fn read(validation: &mut Validation, marker: Option<&str>) -> Result<String, ServiceError> {
        let Some(marker) = marker else { return Ok(String::new()) };
        validation.length("marker", marker, 1..=1024);
        URL_SAFE_NO_PAD
            .decode(marker)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| text.strip_prefix("after ").map(str::to_owned))
            .ok_or_else(|| {
                ServiceError::refused("InvalidMarkerException", format!("Could not deserialize marker '{marker}'"))
            })
    }

    /// Cuts `items`, of which one more than `limit` was fetched, and gives the marker if there is a rest.
    pub(super) fn next<T>(items: &mut Vec<T>, limit: usize, name: impl Fn(&T) -> &str) -> Option<String> {
        if items.len() <= limit {
            return None;
        }
        items.truncate(limit);
        items.last().map(|last| URL_SAFE_NO_PAD.encode(format!("after {}", name(last))))
    }
}
