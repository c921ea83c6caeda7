//! Requests that no client would send: whatever comes, the server answers or closes, goes on, and lets nobody in who has not
//! shown a secret.
//!
//! Most are sent to a server in this process, whose home is in memory: a run takes a fraction of a millisecond there. Some go
//! through a socket to a real one.

use std::cell::{Cell, RefCell};

use blockseal::api;
use blockseal::gate::Call;
use blockseal::http::{Auth, Options, Rehearsal};
use blockseal::store;
use serde_json::{Value, json};

use crate::fuzz::{fuzz, fuzz_times};
use crate::harness::Home;
use crate::harness::server::{Answer, Key, ROOT, Request, Server};

fn request(method: &str, target: &str, body: &str) -> Request {
    let headers = vec![("Host".to_owned(), "localhost".to_owned())];
    Request { method: method.to_owned(), target: target.to_owned(), headers, body: body.as_bytes().to_vec() }
}

fn form(body: &str) -> Request {
    request("POST", "/", body).header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
}

fn call(target: &str, body: &Value) -> Request {
    request("POST", "/", &body.to_string())
        .header("Content-Type", "application/x-amz-json-1.1")
        .header("X-Amz-Target", target)
}

/// Whole requests of every protocol, signed and not, as bytes.
fn corpus(key: &Key<'_>) -> Vec<Vec<u8>> {
    let trail = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents";
    let grants = json!({"KeyId": "alias/a", "GrantTokens": ["a", "b"]});
    let encrypt = json!({"KeyId": "alias/a", "Plaintext": "eA==", "EncryptionContext": {"a": "b"}});
    let volumes = "Action=DescribeVolumes&Version=2016-11-15&Filter.1.Name=size&Filter.1.Value.1=%31&MaxResults=5";
    let question =
        json!({"Service": "kms", "Operation": "DescribeKey", "Parameters": {"KeyId": "alias/a"}}).to_string();
    let requests = [
        call("TrentService.DescribeKey", &grants).sign("kms", key),
        call("TrentService.Encrypt", &encrypt).sign("kms", key),
        call(trail, &json!({"StartTime": 1.5e9, "MaxResults": 2})).sign("cloudtrail", key),
        form(volumes).sign("ec2", key),
        form("Action=ListUsers&Version=2010-05-08&PathPrefix=%2F").sign("iam", key),
        request("GET", "/?Action=GetCallerIdentity&Version=2011-06-15", "").presign("sts", key),
        request("POST", "/_blockseal/explain", &question).sign("kms", key),
        request("GET", "/_blockseal/health", ""),
        request("GET", "/metrics", ""),
        call("TrentService.ListKeys", &json!({})),
    ];
    requests.iter().map(Request::bytes).collect()
}

/// So many requests to one server: then another home takes its place, before its trail fills the memory.
const REQUESTS_OF_A_HOME: u64 = 20_000;

/// Servers in this process, one after the other.
struct Servers {
    auth: Auth,
    now: RefCell<(Rehearsal, u64)>,
}

impl Servers {
    fn new(auth: Auth) -> Self {
        Self { auth, now: RefCell::new((server(auth), 0)) }
    }

    fn answer(&self, input: &[u8]) -> Option<Answer> {
        let mut now = self.now.borrow_mut();
        if now.1 == REQUESTS_OF_A_HOME {
            *now = (server(self.auth), 0);
        }
        now.1 += 1;
        Answer::parse(&now.0.answer(input))
    }
}

/// An access key that every server here knows, with another secret than its own.
const ALICE: Key<'static> = Key { id: "ALICESKEY", secret: "another", token: None };

/// A server in memory.
fn server(auth: Auth) -> Rehearsal {
    let home = store::Home::scratch().unwrap();
    let users = json!({"Users": [{"UserName": "alice", "AccessKeys": [{"AccessKeyId": ALICE.id, "SecretAccessKey": "her own"}]}]});
    let root = Call::direct(&home, "123456789012".parse().unwrap(), "us-east-1".parse().unwrap());
    api::init::load(&root, users.to_string().as_bytes()).unwrap();
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        auth,
        account: "123456789012".parse().unwrap(),
        hosts: Vec::new(),
        tls: None,
        is_ephemeral: true,
        may_reset: false,
        freezes_clock: false,
        seed: None,
        log_requests: false,
    };
    Rehearsal::new(home, options).unwrap()
}

fn is_own(input: &[u8]) -> bool {
    [&b"/_blockseal/health"[..], b"/metrics"].iter().any(|own| input.windows(own.len()).any(|window| window == *own))
}

/// Three of five million under `tests/run --full`.
#[test]
fn fuzzed_requests_hurt_nobody() {
    let servers = Servers::new(Auth::Open);
    let (answered, done) = (Cell::new(0_u64), Cell::new(0_u64));
    fuzz_times(&corpus(&ROOT), 3, |input| {
        if let Some(answer) = servers.answer(input) {
            answered.set(answered.get() + 1);
            done.set(done.get() + u64::from(answer.status == 200));
            assert!(answer.status < 500 || answer.status == 501, "{}", answer.text());
        }
    });
    assert!(answered.get() > 0 && done.get() > 0, "{answered:?} {done:?}");
    let whole = servers.answer(&call("TrentService.ListKeys", &json!({})).sign("kms", &ROOT).bytes());
    assert_eq!(whole.unwrap().status, 200);
}

/// The corpus is signed with a wrong secret: no mutation of it is ever let in.
#[test]
fn fuzzed_signatures_let_nobody_in() {
    let servers = Servers::new(Auth::Strict);
    let hers = Key { secret: "her own", ..ALICE };
    let signed = form("Action=GetCallerIdentity&Version=2011-06-15").sign("sts", &hers);
    assert_eq!(servers.answer(&signed.bytes()).unwrap().status, 200, "the right secret is let in");
    fuzz_times(&corpus(&ALICE), 2, |input| {
        if let Some(answer) = servers.answer(input)
            && !is_own(input)
        {
            assert!(answer.status >= 400, "{}", answer.text());
        }
    });
}

/// The same through a socket, with a home on the disk and its own log.
#[test]
fn a_real_server_survives_fuzzed_requests() {
    let home = Home::new();
    home.json("iam create-user --user-name alice");
    let made = home.json("iam create-access-key --user-name alice");
    let key = Key { id: made["AccessKey"]["AccessKeyId"].as_str().unwrap(), secret: "another", token: None };
    let server = Server::start(&home, &["--quiet"]);
    let inputs = [corpus(&ROOT), corpus(&key)].concat();
    fuzz(&inputs, 50, |input| {
        if let Some(answer) = Answer::parse(&server.raw(input)) {
            assert!(answer.status < 500 || answer.status == 501, "{}", answer.text());
        }
    });
    server.kms("ListKeys", &json!({}));
    assert!(!crate::harness::server::log_of(&home).contains("panicked"));
    assert!(server.end().success());
    assert_eq!(
        home.json("cloudtrail lookup-events --lookup-attributes AttributeKey=Username,AttributeValue=alice")["Events"],
        json!([])
    );
}
