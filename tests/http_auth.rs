//! Who is let in: signatures, the two modes, and whom the border turns away.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::harness::Home;
use crate::harness::server::{Answer, Key, ROOT, Request, Server, element, log_of};

/// A user with an access key of its own, made by the program.
fn alice(home: &Home) -> (String, String) {
    home.json("iam create-user --user-name alice");
    let key = home.json("iam create-access-key --user-name alice");
    let text = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
    (text("AccessKeyId"), text("SecretAccessKey"))
}

fn who(server: &Server, key: &Key<'_>) -> Answer {
    server.send(&server.query("Action=GetCallerIdentity&Version=2011-06-15").sign("sts", key))
}

fn presigned(server: &Server, key: &Key<'_>) -> Request {
    server.request("GET", "/?Action=GetCallerIdentity&Version=2011-06-15", "").presign("sts", key)
}

/// A key nobody knows, with some secret.
const fn key<'a>(id: &'a str, secret: &'a str) -> Key<'a> {
    Key { id, secret, token: None }
}

#[test]
fn open_mode_takes_unknown_keys_for_root_and_known_ones_at_their_secret() {
    let home = Home::new();
    let (id, secret) = alice(&home);
    let server = Server::start(&home, &["--account", "111122223333"]);
    let arn = |answer: &Answer| element(&answer.text(), "Arn");
    assert_eq!(arn(&who(&server, &ROOT)), "arn:aws:iam::111122223333:root");
    assert!(log_of(&home).contains("policies are judged as root"));
    assert_eq!(arn(&who(&server, &key("444455556666", "x"))), "arn:aws:iam::444455556666:root");
    assert_eq!(arn(&who(&server, &key(&id, &secret))), "arn:aws:iam::123456789012:user/alice");
    let wrong = who(&server, &key(&id, "wrong"));
    assert_eq!((wrong.status, wrong.code().as_str()), (403, "SignatureDoesNotMatch"));
    // Anybody may be made to open a URL: in it only a true signature counts.
    assert_eq!(server.send(&presigned(&server, &key(&id, &secret))).status, 200);
    for unknown in [&ROOT, &key("444455556666", "x"), &key(&id, "wrong")] {
        assert_eq!(server.send(&presigned(&server, unknown)).status, 403, "{}", unknown.id);
    }
    let bare = server.send(&server.query("Action=GetCallerIdentity&Version=2011-06-15"));
    assert_eq!((bare.status, bare.code().as_str()), (403, "MissingAuthenticationToken"));
    let bare = server.send(&server.json("TrentService.ListKeys", &json!({})));
    assert_eq!((bare.status, bare.code().as_str()), (400, "MissingAuthenticationTokenException"));
    let bare = server.send(&server.query("Action=DescribeVolumes&Version=2016-11-15"));
    assert_eq!((bare.status, bare.code().as_str()), (403, "MissingAuthenticationToken"));
}

#[test]
fn strict_mode_knows_only_its_own_keys() {
    let home = Home::new();
    let (id, secret) = alice(&home);
    let server = Server::start(&home, &["--auth", "strict"]);
    assert_eq!(who(&server, &key(&id, &secret)).status, 200);
    for unknown in [&ROOT, &key("123456789012", "x")] {
        let answer = who(&server, unknown);
        assert_eq!((answer.status, answer.code().as_str()), (403, "InvalidClientTokenId"));
        let answer = server.send(&server.json("TrentService.ListKeys", &json!({})).sign("kms", unknown));
        assert_eq!((answer.status, answer.code().as_str()), (400, "UnrecognizedClientException"));
        let answer = server.send(&server.query("Action=DescribeVolumes&Version=2016-11-15").sign("ec2", unknown));
        assert_eq!((answer.status, answer.code().as_str()), (401, "AuthFailure"));
        assert_eq!(answer.message(), "AWS was not able to validate the provided access credentials");
    }
    // A policy decides over who was let in: alice has none.
    let denied = server.send(&server.json("TrentService.ListKeys", &json!({})).sign("kms", &key(&id, &secret)));
    assert_eq!((denied.status, denied.code().as_str()), (400, "AccessDeniedException"));
    assert!(
        denied.json()["Message"].as_str().unwrap().contains("user/alice is not authorized to perform: kms:ListKeys")
    );
    // A key that is disabled while the server runs is nobody's from then on.
    home.text(&format!("iam update-access-key --user-name alice --access-key-id {id} --status Inactive"));
    assert_eq!(who(&server, &key(&id, &secret)).code(), "InvalidClientTokenId");
}

#[test]
fn a_session_is_its_key_its_secret_and_its_token() {
    let home = Home::new();
    let trust = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}}"#;
    home.json_of(&["iam", "create-role", "--role-name", "r", "--assume-role-policy-document", trust]);
    let server = Server::start(&home, &["--auth", "strict"]);
    // The root may assume no role, and an administrator that the home never made may.
    let session = home.json(
        "sts assume-role --role-arn arn:aws:iam::123456789012:role/r --role-session-name me \
         --principal arn:aws:iam::123456789012:user/admin",
    );
    let text = |name: &str| session["Credentials"][name].as_str().unwrap();
    let (id, secret, token) = (text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken"));
    let answer = who(&server, &Key { id, secret, token: Some(token) });
    assert_eq!(element(&answer.text(), "Arn"), "arn:aws:sts::123456789012:assumed-role/r/me", "{}", answer.text());
    for token in [None, Some("another"), Some("")] {
        assert_eq!(who(&server, &Key { id, secret, token }).code(), "InvalidClientTokenId", "{token:?}");
    }
    home.text("clock advance 2h");
    let ended = who(&server, &Key { id, secret, token: Some(token) });
    assert_eq!((ended.status, ended.code().as_str()), (403, "ExpiredToken"));
}

/// One change each to a request that alice signed.
#[test]
fn what_was_not_signed_so_is_not_taken() {
    let home = Home::new();
    let (id, secret) = alice(&home);
    let server = Server::start(&home, &["--auth", "strict"]);
    let alice = key(&id, &secret);
    let request = |body: &str| server.request("POST", "/", body).header("Content-Type", "application/x-amz-json-1.1");
    let call = || request("{}").header("X-Amz-Target", "TrentService.ListKeys");
    let code = |request: &Request| server.send(request).code();
    let refused = "InvalidSignatureException";
    assert_eq!(code(&call().sign("kms", &alice)), "AccessDeniedException", "her policies are asked");
    let mut body = call().sign("kms", &alice);
    body.body = b"{ }".to_vec();
    assert_eq!(code(&body), refused);
    let target = request("{}").sign("kms", &alice).header("X-Amz-Target", "TrentService.ListKeys");
    assert_eq!(code(&target), refused, "a target that is not signed");
    let method = Request { method: "PUT".to_owned(), ..call().sign("kms", &alice) };
    assert_eq!(code(&method), refused);
    let path = Request { target: "/other".to_owned(), ..call().sign("kms", &alice) };
    assert_eq!(code(&path), refused);
    let hash = call().header("X-Amz-Content-Sha256", &"0".repeat(64)).sign("kms", &alice);
    assert_eq!(code(&hash), refused, "a digest that is not the body's");
    let streamed = call().header("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD").sign("kms", &alice);
    assert_eq!(code(&streamed), refused, "a body that is signed in chunks");
    let mut unsigned = call().header("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD").sign("kms", &alice);
    unsigned.body = b"{  }".to_vec();
    assert_eq!(code(&unsigned), "AccessDeniedException", "the signer left the body out");
    let now = Timestamp::now();
    for (minutes, good) in [(-4, true), (-6, false), (4, true), (6, false)] {
        let time = now.saturating_add(SignedDuration::from_mins(minutes)).unwrap();
        let answer = server.send(&call().sign_at("kms", &alice, time));
        assert_eq!(answer.code() == "AccessDeniedException", good, "{minutes}: {}", answer.text());
    }
    // Another service, another Region: the scope is under the signature.
    let elsewhere = call().sign("kms", &alice);
    let scope =
        elsewhere.headers.iter().find(|(name, _)| name == "Authorization").unwrap().1.replace("us-east-1", "eu-west-1");
    assert_eq!(code(&elsewhere.without("Authorization").header("Authorization", &scope)), refused);
}

/// A signature says who asked for what and when, and not how often: with AWS it is the same.
#[test]
fn an_overheard_request_can_be_sent_again_for_minutes() {
    let home = Home::new();
    let (id, secret) = alice(&home);
    home.json_of(&[
        "iam",
        "put-user-policy",
        "--user-name",
        "alice",
        "--policy-name",
        "all",
        "--policy-document",
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#,
    ]);
    let server = Server::start(&home, &["--auth", "strict"]);
    let overheard = server.json("TrentService.CreateKey", &json!({})).sign("kms", &key(&id, &secret));
    assert_eq!([server.send(&overheard).status, server.send(&overheard).status], [200, 200]);
    assert_eq!(home.json("kms list-keys")["Keys"].as_array().unwrap().len(), 2);
    let old = Timestamp::now().saturating_sub(SignedDuration::from_mins(6)).unwrap();
    let old = server.json("TrentService.CreateKey", &json!({})).sign_at("kms", &key(&id, &secret), old);
    assert_eq!(server.send(&old).code(), "InvalidSignatureException");
}

#[test]
fn web_pages_and_foreign_hosts_are_turned_away_in_every_mode() {
    let home = Home::new();
    for mode in ["open", "strict"] {
        let server = Server::start(&home, &["--auth", mode, "--host", "kms.test"]);
        let health = || server.request("GET", "/_blockseal/health", "");
        assert_eq!(server.send(&health()).status, 200);
        for (name, value, status) in [
            ("Host", "kms.test", 200),
            ("Host", "evil.example", 403),
            ("Host", "localhost.evil.example", 403),
            ("Origin", "http://localhost", 403),
            ("Origin", "null", 403),
            ("Sec-Fetch-Site", "cross-site", 403),
            ("Sec-Fetch-Site", "same-origin", 403),
            ("Sec-Fetch-Site", "none", 200),
        ] {
            let request = if name == "Host" { health().without("Host") } else { health() };
            let answer = server.send(&request.header(name, value));
            assert_eq!(answer.status, status, "{mode} {name}: {value}");
            assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "no CORS");
        }
        let preflight = server.request("OPTIONS", "/", "").header("Origin", "http://evil.example");
        assert_eq!(server.send(&preflight.header("Access-Control-Request-Method", "POST")).status, 403);
        assert_eq!(server.send(&health().without("Host")).status, 403, "no host at all");
    }
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    let home = Home::new();
    let said = home.refused(252, &["serve", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("can be reached from other machines"), "{said}");
}
