use std::net::{IpAddr, Ipv4Addr};

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;

const SECRET: &[u8] = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SKEW: SignedDuration = SignedDuration::from_mins(5);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The moment at which all of the samples were signed.
fn then() -> Timestamp {
    at("2015-08-30T12:36:00Z")
}

/// A request from its text: the request line's method and target, header lines, and a body.
fn sample(line: &str, headers: &[(&str, &str)], body: &str) -> Request {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut map = axum::http::HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    Request {
        method: method.parse::<Method>().unwrap(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: map,
        body: Bytes::copy_from_slice(body.as_bytes()),
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

fn check(request: &Request) -> Result<(), SignatureError> {
    Signature::of(request)?.verify(request, SECRET, then(), SKEW)
}

/// A request of AWS's test suite: region us-east-1, service `service`, and the headers that are signed.
fn of_the_suite(line: &str, more: &[(&str, &str)], body: &str, signature: &str) -> Request {
    let mut headers = vec![("Host", "example.amazonaws.com"), ("X-Amz-Date", "20150830T123600Z")];
    headers.extend(more);
    let mut names: Vec<_> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    names.dedup();
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={}, \
         Signature={signature}",
        names.join(";")
    );
    headers.push(("Authorization", &authorization));
    sample(line, &headers, body)
}

/// AWS's Signature Version 4 test suite, the cases whose names stand in front.
#[test]
fn awss_own_samples_verify() {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for (name, request) in [
        (
            "get-vanilla",
            of_the_suite("GET /", &[], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ),
        (
            "get-vanilla-query-order-key-case",
            of_the_suite(
                "GET /?Param2=value2&Param1=value1",
                &[],
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
        ),
        (
            "post-vanilla",
            of_the_suite("POST /", &[], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ),
        (
            "post-x-www-form-urlencoded",
            of_the_suite(
                "POST /",
                &form,
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ),
    ] {
        assert_eq!(check(&request), Ok(()), "{name}");
    }
    // IAM user guide, "Create a signed request", the complete example.
    let list_users = sample(
        "GET /?Action=ListUsers&Version=2010-05-08",
        &[
            ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("Host", "iam.amazonaws.com"),
            ("X-Amz-Date", "20150830T123600Z"),
            (
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date, \
                 Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            ),
        ],
        "",
    );
    assert_eq!(check(&list_users), Ok(()));
}

/// A call of KMS, signed by botocore 1.43.11.
fn describe_key() -> Request {
    sample(
        "POST /",
        &[
            ("Host", "127.0.0.1:4566"),
            ("Content-Type", "application/x-amz-json-1.1"),
            ("X-Amz-Target", "TrentService.DescribeKey"),
            ("X-Amz-Date", "20150830T123600Z"),
            (
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/kms/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
                 Signature=8961ccef6b140ea08013eca7aaac6de94f373fe41e3b846c6c4c0c504f1500c6",
            ),
        ],
        r#"{"KeyId":"alias/a"}"#,
    )
}

/// A presigned call of STS, by the same.
fn presigned() -> Request {
    sample(
        "GET /?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE\
         %2F20150830%2Fus-east-1%2Fsts%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&X-Amz-SignedHeaders=\
         host&X-Amz-Security-Token=the%2Ftoken%2Bof%3D%3Dsession&X-Amz-Signature=\
         af499f7af252fbede3968dda14b669a1c65b00c4a6da132a5c4d59427310ff3e",
        &[("Host", "localhost:4566")],
        "",
    )
}

#[test]
fn what_botocore_signs_verifies() {
    assert_eq!(check(&describe_key()), Ok(()));
    assert_eq!(check(&presigned()), Ok(()));
    let signature = Signature::of(&presigned()).unwrap();
    assert_eq!((signature.service.as_str(), signature.token.as_deref()), ("sts", Some("the/token+of==session")));
    let path = sample(
        "GET /snapshots/snap-1/a%20b/..%2F?x=%C3%BC&b=1&a=2&a=1",
        &[
            ("Host", "localhost:4566"),
            ("X-Amz-Date", "20150830T123600Z"),
            (
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/ebs/aws4_request, \
                 SignedHeaders=host;x-amz-date, \
                 Signature=ed080dbbefc38f0649253aecc6b948fa60d0f1903f958f76cdb00964e9447b13",
            ),
        ],
        "",
    );
    assert_eq!(check(&path), Ok(()));
}

/// One change to a signed request each, that no signer made. The twin takes them all.
#[test]
fn whatever_is_changed_in_a_signed_request_breaks_its_signature() {
    type Change = (&'static str, fn(&mut Request));
    let changes: [Change; 7] = [
        ("method", |request| request.method = Method::PUT),
        ("path", |request| request.path = "/other".to_owned()),
        ("query", |request| request.query = "Action=DeleteKey".to_owned()),
        ("body", |request| request.body = Bytes::from_static(br#"{"KeyId":"alias/b"}"#)),
        ("target", |request| {
            request.headers.insert("x-amz-target", HeaderValue::from_static("TrentService.DisableKey"));
        }),
        ("host", |request| {
            request.headers.insert("host", HeaderValue::from_static("localhost:4566"));
        }),
        ("token", |request| {
            request.headers.insert("x-amz-security-token", HeaderValue::from_static("another"));
        }),
    ];
    for (what, change) in changes {
        let mut request = describe_key();
        change(&mut request);
        assert!(matches!(check(&request), Err(SignatureError::Mismatch(_))), "{what}");
        twin::without(Protection::RequestSignature, || assert_eq!(check(&request), Ok(()), "{what}"));
    }
    let request = describe_key();
    let signature = Signature::of(&request).unwrap();
    let other = signature.verify(&request, b"another secret", then(), SKEW);
    assert_eq!(other, Err(SignatureError::Mismatch(MISMATCH.to_owned())));
}

#[test]
fn a_signature_is_good_for_minutes_and_a_presigned_url_for_as_long_as_it_says() {
    let request = describe_key();
    let signature = Signature::of(&request).unwrap();
    let verify = |now: &str| signature.verify(&request, SECRET, at(now), SKEW);
    assert_eq!(verify("2015-08-30T12:41:00Z"), Ok(()));
    assert_eq!(
        verify("2015-08-30T12:41:01Z"),
        Err(SignatureError::Expired(
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"
                .into()
        ))
    );
    assert_eq!(verify("2015-08-30T12:31:00Z"), Ok(()));
    assert_eq!(
        verify("2015-08-30T12:30:59Z"),
        Err(SignatureError::Expired(
            "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T123059Z + 5 min.)"
                .into()
        ))
    );
    let request = presigned();
    let signature = Signature::of(&request).unwrap();
    let verify = |now: &str| signature.verify(&request, SECRET, at(now), SKEW).is_ok();
    assert!(verify("2015-08-30T12:37:00Z") && !verify("2015-08-30T12:37:01Z"));
}

#[test]
fn what_is_not_a_whole_signature_is_refused_by_name() {
    let said = |header: Option<&str>, query: &str| {
        let mut request = sample(&format!("POST /{query}"), &[("Host", "localhost")], "");
        if let Some(header) = header {
            request.headers.insert("authorization", HeaderValue::from_str(header).unwrap());
        }
        match Signature::of(&request).unwrap_err() {
            SignatureError::Missing => "missing".to_owned(),
            SignatureError::Incomplete(text) | SignatureError::Mismatch(text) | SignatureError::Expired(text) => text,
        }
    };
    assert_eq!(said(None, ""), "missing");
    assert_eq!(said(Some("Bearer abc"), ""), "Unsupported AWS 'algorithm': 'Bearer'.");
    assert_eq!(
        said(Some("AWS4-HMAC-SHA256 Credential=a"), ""),
        "Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. \
         Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. \
         Authorization=AWS4-HMAC-SHA256"
    );
    assert!(said(Some("AWS4-HMAC-SHA256 x"), "?X-Amz-Algorithm=AWS4-HMAC-SHA256").contains("not in both"));
    assert!(said(None, "?X-Amz-Algorithm=AWS4-HMAC-SHA256").contains("'X-Amz-Expires'"));
    let expires = |seconds: &str| said(None, &format!("?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires={seconds}"));
    assert!(expires("0").contains("between 1 and 604800") && expires("604801").contains("between 1 and 604800"));
    assert!(expires("60").contains("'X-Amz-Credential'"));
}

proptest! {
    /// Nothing that is sent makes the verifier panic, and nothing but a true signature passes it.
    #[test]
    fn no_header_or_query_panics_or_passes(header in ".{0,200}", query in "[ -~]{0,200}", date in "[0-9TZ]{0,18}") {
        let mut request = describe_key();
        request.query = query;
        if let Ok(value) = HeaderValue::from_str(&header) {
            request.headers.insert("authorization", value);
        }
        if let Ok(value) = HeaderValue::from_str(&date) {
            request.headers.insert("x-amz-date", value);
        }
        prop_assert!(check(&request).is_err());
    }

    #[test]
    fn no_credential_panics(credential in "[ -~]{0,60}", date in "[0-9TZ]{8,16}|20150830T123600Z", signed in "[a-z;-]{0,20}") {
        let mut request = describe_key();
        let header = format!(
            "AWS4-HMAC-SHA256 Credential={credential}/20150830/us-east-1/kms/aws4_request, SignedHeaders={signed}, \
             Signature={}",
            "00".repeat(32)
        );
        request.headers.insert("authorization", HeaderValue::from_str(&header).unwrap());
        request.headers.insert("x-amz-date", HeaderValue::from_str(&date).unwrap());
        prop_assert!(check(&request).is_err());
    }
}
