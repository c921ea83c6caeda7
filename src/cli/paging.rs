//! Results in pages, followed and put together as botocore's paginators do it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::grammar::Extra;
use super::{CliError, Session};
use crate::api::{Operation, Paging};

/// Calls `operation` on `request`, and answers its result and the token to go on with. If its results come in pages, all
/// are fetched as one, up to `--max-items`; a request that names a page itself, and `--no-paginate`, get the one page as
/// it is.
pub(super) fn call(
    session: &Session,
    operation: &'static Operation,
    request: Map<String, Value>,
    extra: &Extra,
) -> Result<(Value, Option<String>), CliError> {
    let one = |request: Map<String, Value>| {
        (operation.run)(&session.call()?, Value::Object(request))
            .map_err(|error| CliError::service(operation.name, error))
    };
    match operation.paging {
        Some(paging)
            if session.globals.paginate
                && !request.contains_key(paging.input)
                && !request.contains_key(paging.limit) =>
        {
            follow(paging, request, extra, one)
        }
        _ => Ok((one(request)?, None)),
    }
}

fn follow(
    paging: Paging,
    mut request: Map<String, Value>,
    extra: &Extra,
    call: impl Fn(Map<String, Value>) -> Result<Value, CliError>,
) -> Result<(Value, Option<String>), CliError> {
    let (mut token, mut skip) = match &extra.starting_token {
        Some(text) => read_token(paging, text),
        None => (None, 0),
    };
    if let Some(size) = extra.page_size {
        request.insert(paging.limit.to_owned(), size.into());
    }
    let wanted = extra.max_items.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let mut items = Vec::new();
    let next_token;
    loop {
        if let Some(token) = &token {
            request.insert(paging.input.to_owned(), token.clone());
        }
        let mut page = call(request.clone())?;
        let mut found = match page.get_mut(paging.results).map(Value::take) {
            Some(Value::Array(found)) => found,
            _ => Vec::new(),
        };
        found.drain(..skip.min(found.len()));
        let next = next_page(paging, &page);
        let room = wanted - items.len();
        let resume = match found.len() {
            count if count > room => Some(write_token(paging, token.as_ref(), skip + room)),
            count if count == room && next.is_some() => Some(write_token(paging, next.as_ref(), 0)),
            _ => None,
        };
        found.truncate(room);
        items.append(&mut found);
        if resume.is_some() || next.is_none() {
            next_token = resume;
            break;
        }
        if next == token {
            return Err(CliError::machine(format!("the same next token was received twice: {}", json!(next))));
        }
        (token, skip) = (next, 0);
    }
    Ok((json!({ paging.results: items }), next_token))
}

/// The token of the next page, if there is one.
fn next_page(paging: Paging, page: &Value) -> Option<Value> {
    if paging.more.is_some_and(|more| page.get(more) != Some(&Value::Bool(true))) {
        return None;
    }
    page.get(paging.output).filter(|token| token.as_str().is_none_or(|text| !text.is_empty())).cloned()
}

/// botocore's own form: base64 of the page's token and how many of its items were printed already.
fn write_token(paging: Paging, token: Option<&Value>, printed: usize) -> String {
    let mut fields = Map::new();
    fields.insert(paging.input.to_owned(), token.cloned().unwrap_or(Value::Null));
    if printed > 0 {
        fields.insert(PRINTED.to_owned(), printed.into());
    }
    STANDARD.encode(Value::Object(fields).to_string())
}

/// A token of [`write_token`]; anything else is a service's own token.
fn read_token(paging: Paging, text: &str) -> (Option<Value>, usize) {
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| serde_json::from_slice::<Map<_, _>>(&bytes).ok());
    match decoded {
        Some(mut fields) => {
            let printed = fields.get(PRINTED).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
            (fields.remove(paging.input).filter(|token| !token.is_null()), printed.unwrap_or(0))
        }
        None => (Some(text.into()), 0),
    }
}

const PRINTED: &str = "boto_truncate_amount";

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const PAGING: Paging =
        Paging { input: "Marker", output: "NextMarker", more: Some("Truncated"), limit: "Limit", results: "Keys" };

    /// A service with the keys 0 to 9, in pages of 4 or of `Limit`.
    fn service(request: &Map<String, Value>) -> Value {
        let text = |name: &str| request.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
        let start: u64 = text("Marker").unwrap_or(0);
        let end = (start + request.get("Limit").and_then(Value::as_u64).unwrap_or(4)).min(10);
        let keys: Vec<_> = (start..end).collect();
        if end == 10 {
            return json!({"Keys": keys, "Truncated": false});
        }
        json!({"Keys": keys, "NextMarker": end.to_string(), "Truncated": true})
    }

    fn all(extra: &Extra) -> (Vec<u64>, Option<String>, u32) {
        let calls = Cell::new(0);
        let result = follow(PAGING, Map::new(), extra, |request| {
            calls.set(calls.get() + 1);
            Ok(service(&request))
        });
        let (result, next) = result.unwrap();
        let keys = result["Keys"].as_array().unwrap().iter().map(|key| key.as_u64().unwrap()).collect();
        (keys, next, calls.get())
    }

    #[test]
    fn all_pages_are_one_result() {
        let everything: Vec<_> = (0..10).collect();
        assert_eq!(all(&Extra::default()), (everything.clone(), None, 3));
        assert_eq!(all(&Extra { page_size: Some(1), ..Extra::default() }), (everything, None, 10));
    }

    #[test]
    fn a_list_goes_on_where_it_stopped_whatever_the_sizes() {
        for most in 1..=11 {
            for size in [None, Some(1), Some(3), Some(10), Some(100)] {
                let (mut seen, mut token) = (Vec::new(), None);
                loop {
                    let extra =
                        Extra { max_items: Some(most), page_size: size, starting_token: token, ..Extra::default() };
                    let (keys, next, _) = all(&extra);
                    assert!(keys.len() as u64 <= most);
                    seen.extend(keys);
                    token = next;
                    if token.is_none() {
                        break;
                    }
                }
                assert_eq!(seen, (0..10).collect::<Vec<_>>(), "{most} items, pages of {size:?}");
            }
        }
        let own = Extra { starting_token: Some("7".to_owned()), ..Extra::default() };
        assert_eq!(all(&own).0, [7, 8, 9]);
    }

    #[test]
    fn a_service_that_repeats_itself_ends_in_an_error() {
        let again = |_| Ok(json!({"Keys": [], "NextMarker": "1", "Truncated": true}));
        let error = follow(PAGING, Map::new(), &Extra::default(), again).unwrap_err();
        assert_eq!(error.exit_code(), 255);
    }

    #[test]
    fn tokens_are_botocores() {
        let token = write_token(PAGING, Some(&"abc".into()), 3);
        assert_eq!(STANDARD.decode(&token).unwrap(), br#"{"Marker":"abc","boto_truncate_amount":3}"#);
        assert_eq!(read_token(PAGING, &token), (Some("abc".into()), 3));
    }
}
