//! Requests that no client would send: whatever comes, the server answers or closes, goes on, and lets nobody in who has not
//! shown a secret.

use std::cell::Cell;

use serde_json::json;

use crate::fuzz::fuzz;
use crate::harness::Home;
use crate::harness::server::{Answer, Key, ROOT, Server};

/// Whole requests of every protocol, signed and not, as bytes.
fn corpus(server: &Server, key: &Key<'_>) -> Vec<Vec<u8>> {
    let trail = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents";
    let requests = [
        server
            .json("TrentService.DescribeKey", &json!({"KeyId": "alias/a", "GrantTokens": ["a", "b"]}))
            .sign("kms", key),
        server
            .json(
                "TrentService.Encrypt",
                &json!({"KeyId": "alias/a", "Plaintext": "eA==", "EncryptionContext": {"a": "b"}}),
            )
            .sign("kms", key),
        server.json(trail, &json!({"StartTime": 1.5e9, "MaxResults": 2})).sign("cloudtrail", key),
        server
            .query("Action=DescribeVolumes&Version=2016-11-15&Filter.1.Name=size&Filter.1.Value.1=%31&MaxResults=5")
            .sign("ec2", key),
        server.query("Action=ListUsers&Version=2010-05-08&PathPrefix=%2F").sign("iam", key),
        server.request("GET", "/?Action=GetCallerIdentity&Version=2011-06-15", "").presign("sts", key),
        server.request("GET", "/_blockseal/health", ""),
        server.request("GET", "/metrics", ""),
        server.json("TrentService.ListKeys", &json!({})),
    ];
    requests.iter().map(crate::harness::server::Request::bytes).collect()
}

#[test]
fn fuzzed_requests_hurt_nobody() {
    let home = Home::new();
    let server = Server::start(&home, &["--quiet"]);
    let answered = Cell::new(0_u64);
    fuzz(&corpus(&server, &ROOT), 20, |input| {
        if let Some(answer) = Answer::parse(&server.raw(input)) {
            answered.set(answered.get() + 1);
            assert!(answer.status < 500 || answer.status == 501, "{}", answer.text());
        }
    });
    assert!(answered.get() > 0);
    server.kms("ListKeys", &json!({}));
    assert!(!crate::harness::server::log_of(&home).contains("panicked"));
    assert!(server.end().success());
}

/// The corpus is signed with a wrong secret for a key that the home knows: no mutation of it is ever let in.
#[test]
fn fuzzed_signatures_let_nobody_in() {
    let home = Home::new();
    home.json("iam create-user --user-name alice");
    let made = home.json("iam create-access-key --user-name alice");
    let id = made["AccessKey"]["AccessKeyId"].as_str().unwrap();
    let server = Server::start(&home, &["--quiet", "--auth", "strict"]);
    let key = Key { id, secret: "another", token: None };
    fuzz(&corpus(&server, &key), 20, |input| {
        let own = |needle: &[u8]| input.windows(needle.len()).any(|window| window == needle);
        if let Some(answer) = Answer::parse(&server.raw(input))
            && !own(b"/_blockseal/")
            && !own(b"/metrics")
        {
            assert!(answer.status >= 400, "{}", answer.text());
        }
    });
    assert_eq!(
        home.json("cloudtrail lookup-events --lookup-attributes AttributeKey=Username,AttributeValue=alice")["Events"],
        json!([])
    );
}
