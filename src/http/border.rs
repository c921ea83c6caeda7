//! Who is turned away before anything of his request is read: web pages, and names that lead here by somebody else's DNS.
//!
//! A page in a browser can send requests to the loopback address. It cannot keep the browser from saying so (`Origin`,
//! `Sec-Fetch-Site`), and a name of its own that it points here (DNS rebinding) stands in `Host`.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri};

use crate::twin::{self, Protection};

/// Why a request is turned away; `None` if it is not.
pub(super) fn refusal(headers: &HeaderMap, uri: &Uri, allowed: &[String]) -> Option<&'static str> {
    if twin::is_off(Protection::Border) {
        return None;
    }
    if headers.contains_key("origin") {
        return Some("requests with an Origin are not served: no web page calls this endpoint");
    }
    if headers.get_all("sec-fetch-site").iter().any(|site| site != "none") {
        return Some("requests that a web page makes are not served");
    }
    let mut hosts = headers.get_all("host").iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let is_ours = |host: &str| is_loopback(host) || allowed.iter().any(|name| name.eq_ignore_ascii_case(bare(host)));
    let in_target = uri.authority().is_none_or(|authority| is_ours(authority.as_str()));
    match (host, hosts.next()) {
        (Some(host), None) if is_ours(host) && in_target => None,
        (Some(_), None) => Some("the Host is neither a loopback name nor one that --host allows"),
        _ => Some("a request has one Host"),
    }
}

/// A host without its port and the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether a host means this machine wherever it is looked up: `localhost` and what is below it (RFC 6761), or a loopback
/// address.
fn is_loopback(host: &str) -> bool {
    let name = bare(host).to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn turned_away(headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        refusal(&map, &Uri::from_static("/"), &["kms.test".to_owned()]).is_some()
    }

    #[test]
    fn this_machines_names_and_those_that_were_allowed_are_served() {
        for host in [
            "localhost",
            "LOCALHOST:4566",
            "kms.localhost:4566",
            "127.0.0.1",
            "127.8.8.8:1",
            "[::1]",
            "[::1]:4566",
            "kms.test",
            "KMS.test:80",
        ] {
            assert!(!turned_away(&[("host", host)]), "{host}");
        }
        assert!(!turned_away(&[("host", "localhost"), ("sec-fetch-site", "none")]));
    }

    /// What a hostile page can send. The twin serves it.
    #[test]
    fn web_pages_and_foreign_names_are_turned_away() {
        let attacks: &[&[(&'static str, &str)]] = &[
            &[("host", "evil.example")],
            &[("host", "localhost.evil.example:4566")],
            &[("host", "127.0.0.1.evil.example")],
            &[("host", "evil.example:127.0.0.1")],
            &[("host", "192.168.1.7:4566")],
            &[("host", "[::1")],
            &[("host", "")],
            &[("host", "localhost"), ("host", "evil.example")],
            &[],
            &[("host", "localhost"), ("origin", "http://localhost:4566")],
            &[("host", "localhost"), ("origin", "null")],
            &[("host", "localhost"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost"), ("sec-fetch-site", "same-origin")],
            &[("host", "localhost"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
        ];
        for attack in attacks.iter().filter(|attack| **attack != [("host", "[::1")]) {
            assert!(turned_away(attack), "{attack:?}");
            assert!(!twin::without(Protection::Border, || turned_away(attack)), "{attack:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost"));
        assert!(refusal(&headers, &Uri::from_static("http://evil.example/"), &[]).is_some());
    }
}
