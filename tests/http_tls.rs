//! TLS, and what an address that others can reach demands.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::harness::server::Server;
use crate::harness::{Home, both, fast_program, program, succeed, tool};

/// A certificate for this machine that nobody else vouches for, and its key.
fn certificate(home: &Home) -> [String; 2] {
    let files = ["cert.pem", "key.pem"].map(|name| home.scratch().join(name).display().to_string());
    let mut openssl = tool("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    succeed(openssl.args(["-out", &files[0], "-keyout", &files[1]]));
    files
}

/// The user alice, who may call KMS.
fn alice(home: &Home) -> (String, String) {
    home.json("iam create-user --user-name alice");
    let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#;
    home.text(&format!("iam put-user-policy --user-name alice --policy-name all --policy-document {policy}"));
    let key = home.json("iam create-access-key --user-name alice")["AccessKey"].clone();
    (key["AccessKeyId"].as_str().unwrap().to_owned(), key["SecretAccessKey"].as_str().unwrap().to_owned())
}

fn port(server: &Server) -> &str {
    server.address.rsplit_once(':').unwrap().1
}

fn curl(server: &Server, arguments: &[&str]) -> Output {
    let mut curl = tool("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20"]).args(arguments);
    curl.arg(format!("https://localhost:{}/_blockseal/health", port(server))).output().unwrap()
}

#[test]
fn clients_that_trust_the_certificate_are_served_and_nobody_else() {
    let home = Home::new();
    let [cert, key] = certificate(&home);
    let (id, secret) = alice(&home);
    // Every address, and so one that others can reach.
    let options = ["--listen", "0.0.0.0:0", "--auth", "strict", "--tls-cert", &cert, "--tls-key", &key];
    let server = Server::start(&home, &options);
    assert!(server.url.starts_with("https://0.0.0.0:"), "{}", server.url);
    let trusting = curl(&server, &["--cacert", &cert]);
    assert!(both(&trusting).contains("\"status\":\"running\""), "{}", both(&trusting));
    assert!(both(&curl(&server, &["--cacert", &cert, "--tlsv1.2", "--tls-max", "1.2"])).contains("running"));
    let old = curl(&server, &["--cacert", &cert, "--tls-max", "1.1"]);
    assert!(!old.status.success(), "{}", both(&old));
    let careful = curl(&server, &[]);
    assert_eq!(careful.status.code(), Some(60), "{}", both(&careful));
    let script = format!(
        "import boto3, sys\nkms = boto3.client('kms', endpoint_url='https://localhost:{}', verify=sys.argv[1], \
         region_name='us-east-1', aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3])\n\
         key = kms.create_key()['KeyMetadata']['KeyId']\n\
         blob = kms.encrypt(KeyId=key, Plaintext=b'x')['CiphertextBlob']\n\
         assert kms.decrypt(CiphertextBlob=blob)['Plaintext'] == b'x'\n",
        port(&server)
    );
    succeed(tool("python3").args(["-c", &script, &cert, &id, &secret]).env_remove("AWS_PROFILE"));
    // Who does not speak TLS gets nothing, and keeps nobody from being served.
    let address = format!("127.0.0.1:{}", port(&server));
    let plain = |bytes: &[u8]| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let half: Vec<_> =
        [&b"GET /_blockseal/health HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b""]
            .into_iter()
            .map(plain)
            .collect();
    assert!(both(&curl(&server, &["--cacert", &cert])).contains("running"));
    let foreign = curl(&server, &["--cacert", &cert, "--header", "Host: evil.example"]);
    assert!(both(&foreign).contains("neither a loopback name"), "{}", both(&foreign));
    // A handshake that is not finished holds up no end.
    let began = std::time::Instant::now();
    assert!(server.end().success());
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
    drop(half);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let home = Home::new();
    let [cert, key] = certificate(&home);
    let refused =
        |code: i32, options: &[&str]| home.refused(code, &[&["serve", "--listen", "0.0.0.0:0"], options].concat());
    for options in [&[][..], &["--auth", "strict"], &["--tls-cert", &cert, "--tls-key", &key]] {
        let said = refused(252, options);
        assert!(said.contains("can be reached from other machines"), "{said}");
    }
    let strict = ["--auth", "strict", "--tls-cert"];
    assert!(refused(252, &[&strict[..], &[&cert]].concat()).contains("go together"));
    let with = |cert: &str, key: &str| refused(252, &[&strict[..], &[cert, "--tls-key", key]].concat());
    assert!(with("none.pem", &key).contains("none.pem"));
    assert!(with(&key, &key).contains("cannot use"));
    assert!(with(&cert, &cert).contains("cannot use"));
    let folder: PathBuf = home.scratch();
    assert!(with(&cert, &folder.display().to_string()).contains("no file"));
    succeed(Command::new("/bin/chmod").args(["644", &key]));
    let said = with(&cert, &key);
    assert!(said.contains("others may read") && said.contains("chmod 600"), "{said}");
    succeed(Command::new("/bin/chmod").args(["600", &key]));
    succeed(Command::new("/bin/chmod").args(["666", &cert]));
    assert!(with(&cert, &key).contains("others may write to it: chmod 644"));
    // Of another pair.
    let other = Home::new();
    assert!(with(&certificate(&other)[0], &key).contains("cannot use"));
}

/// What the README builds has no TLS: the gate's release build is that program.
#[test]
fn a_program_without_tls_says_how_to_get_one_with_it() {
    let home = Home::fast();
    let said = home.refused(252, &["serve", "--tls-cert", "none.pem", "--tls-key", "none.pem"]);
    let of_ours = if fast_program() == program() { "No such file" } else { "--features tls" };
    assert!(said.contains("none.pem") && said.contains(of_ours), "{said}");
}
