//! A server under test, and a client that can say what no SDK would.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Home;

/// A started `blockseal serve`, ended with SIGTERM when it is dropped.
pub struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Server {
    /// Starts a server on a free port of the loopback address.
    #[track_caller]
    pub fn start(home: &Home, options: &[&str]) -> Self {
        let mut command = home.command(["serve", "--listen", "127.0.0.1:0"].iter().chain(options));
        let log = std::fs::File::create(home.scratch().join("serve.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("blockseal serves at ");
        let url = url.unwrap_or_else(|| panic!("{line}{}", log_of(home))).to_owned();
        let address = url.split_once("://").unwrap().1.to_owned();
        Self { child, url, address }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Tells the server to end, and waits until it has.
    pub fn end(mut self) -> std::process::ExitStatus {
        self.tell_to_end();
        self.child.wait().unwrap()
    }

    pub fn tell_to_end(&self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), nix::sys::signal::Signal::SIGTERM);
    }

    /// Sends bytes on a connection of their own, and returns all that comes back until the server closes it.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream
    }

    /// Sends a request and reads the answer.
    pub fn send(&self, request: &Request) -> Answer {
        let bytes = request.bytes();
        Answer::parse(&self.raw(&bytes)).unwrap_or_else(|| panic!("no answer to {}", String::from_utf8_lossy(&bytes)))
    }

    /// A request to this server, not signed yet.
    pub fn request(&self, method: &str, target: &str, body: impl Into<Vec<u8>>) -> Request {
        Request {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("Host".to_owned(), self.address.clone())],
            body: body.into(),
        }
    }

    /// A call of a JSON service, not signed yet.
    pub fn json(&self, target: &str, body: &Value) -> Request {
        self.request("POST", "/", body.to_string())
            .header("Content-Type", "application/x-amz-json-1.1")
            .header("X-Amz-Target", target)
    }

    /// A call of a Query service, not signed yet.
    pub fn query(&self, form: &str) -> Request {
        self.request("POST", "/", form).header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
    }

    /// A call of KMS by the root of the default account, in open mode.
    #[track_caller]
    pub fn kms(&self, operation: &str, body: &Value) -> Value {
        let request = self.json(&format!("TrentService.{operation}"), body);
        let answer = self.send(&request.sign("kms", &ROOT));
        assert_eq!(answer.status, 200, "{operation}: {}", answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell_to_end();
        let _ = self.child.wait();
    }
}

/// What the home's last server said.
pub fn log_of(home: &Home) -> String {
    std::fs::read_to_string(home.scratch().join("serve.log")).unwrap_or_default()
}

/// An access key with its secret, and the token of a session.
pub struct Key<'a> {
    pub id: &'a str,
    pub secret: &'a str,
    pub token: Option<&'a str>,
}

/// A key that no home knows.
pub const ROOT: Key<'static> = Key { id: "AKIAIOSFODNN7EXAMPLE", secret: "any", token: None };

/// A request, to be signed, changed and sent.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        self
    }

    /// The same, signed now for us-east-1.
    #[must_use]
    pub fn sign(self, service: &str, key: &Key<'_>) -> Self {
        self.sign_at(service, key, Timestamp::now())
    }

    /// The same, signed at another time.
    #[must_use]
    pub fn sign_at(mut self, service: &str, key: &Key<'_>, time: Timestamp) -> Self {
        let date = time.strftime("%Y%m%dT%H%M%SZ").to_string();
        self.headers.push(("X-Amz-Date".to_owned(), date.clone()));
        if let Some(token) = key.token {
            self.headers.push(("X-Amz-Security-Token".to_owned(), token.to_owned()));
        }
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let mut pairs: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        pairs.sort_unstable();
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.trim())).collect();
        headers.sort();
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let mut canonical = format!("{}\n{path}\n{}\n", self.method, pairs.join("&"));
        for (name, value) in &headers {
            let _ = writeln!(canonical, "{name}:{value}");
        }
        // What the header says of the body is what is signed, true or not.
        let said =
            headers.iter().find(|(name, _)| name == "x-amz-content-sha256").map(|(_, value)| (*value).to_owned());
        let hash = said.unwrap_or_else(|| hex::encode(Sha256::digest(&self.body)));
        let _ = write!(canonical, "\n{names}\n{hash}");
        let (scope, signature) = signature(service, key, &date, &canonical);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", key.id);
        self.header("Authorization", &authorization)
    }

    /// A GET whose signature is in its query, good for a minute.
    #[must_use]
    pub fn presign(mut self, service: &str, key: &Key<'_>) -> Self {
        let date = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}%2F{}%2Fus-east-1%2F{service}%2Faws4_request", key.id, &date[..8]);
        let (path, query) = self.target.split_once('?').unwrap();
        let signed = format!(
            "{query}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={scope}&X-Amz-Date={date}&X-Amz-Expires=60\
             &X-Amz-SignedHeaders=host"
        );
        let mut pairs: Vec<_> = signed.split('&').collect();
        pairs.sort_unstable();
        let host = &self.headers.iter().find(|(name, _)| name == "Host").unwrap().1;
        let empty = hex::encode(Sha256::digest(b""));
        let canonical = format!("GET\n{path}\n{}\nhost:{host}\n\nhost\n{empty}", pairs.join("&"));
        let (_, signature) = signature(service, key, &date, &canonical);
        self.target = format!("{path}?{signed}&X-Amz-Signature={signature}");
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\nConnection: close\r\n\r\n", self.body.len());
        [text.as_bytes(), &self.body].concat()
    }
}

/// The credential scope and the signature of a canonical request.
fn signature(service: &str, key: &Key<'_>, date: &str, canonical: &str) -> (String, String) {
    fn mac(key: &[u8], data: &str) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(data.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }
    let scope = format!("{}/us-east-1/{service}/aws4_request", &date[..8]);
    let hash = hex::encode(Sha256::digest(canonical.as_bytes()));
    let mut secret = format!("AWS4{}", key.secret).into_bytes();
    for part in [&date[..8], "us-east-1", service, "aws4_request"] {
        secret = mac(&secret, part);
    }
    let signature = hex::encode(mac(&secret, &format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}")));
    (scope, signature)
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A whole answer, read to the end of its connection.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers =
            lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Some(Self { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The error's code, whichever protocol words it.
    pub fn code(&self) -> String {
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(body) => body["__type"].as_str().unwrap_or_default().to_owned(),
            Err(_) => element(&self.text(), "Code"),
        }
    }

    /// The error's message.
    pub fn message(&self) -> String {
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(body) => body["message"].as_str().or(body["Message"].as_str()).unwrap_or_default().to_owned(),
            Err(_) => element(&self.text(), "Message"),
        }
    }
}

/// The text of the first element of that name.
pub fn element(xml: &str, name: &str) -> String {
    let after = xml.split_once(&format!("<{name}>")).map(|(_, after)| after);
    after.and_then(|after| after.split_once(&format!("</{name}>"))).map(|(text, _)| text.to_owned()).unwrap_or_default()
}
