//! The server as a process: its sockets, its bounds, its end, and what stays when it is gone.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::server::{Answer, ROOT, Server, element, log_of};
use crate::harness::{Home, eventually, fast_program};

#[test]
fn health_and_metrics_tell_what_the_server_does() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let health = server.send(&server.request("GET", "/_blockseal/health", "")).json();
    assert_eq!(health["status"], "running");
    assert_eq!(health["services"]["kms"], "running");
    server.kms("ListKeys", &json!({}));
    let refused = server.json("TrentService.DescribeKey", &json!({"KeyId": "alias/none"})).sign("kms", &ROOT);
    server.send(&refused);
    let text = server.send(&server.request("GET", "/metrics", "")).text();
    for line in [
        "blockseal_operations_total{service=\"kms\",operation=\"ListKeys\",code=\"ok\"} 1",
        "blockseal_operations_total{service=\"kms\",operation=\"DescribeKey\",code=\"NotFoundException\"} 1",
        "blockseal_attached_volumes 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn a_unix_socket_is_for_its_owner_and_is_gone_at_the_end() {
    let home = Home::new();
    let path = home.scratch().join("api.sock");
    let listen = format!("unix:{}", path.display());
    let mut server = home.command(["serve", "--listen", &listen]).spawn().unwrap();
    eventually("the server listens", || UnixStream::connect(&path).is_ok());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /_blockseal/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Answer::parse(&answer).unwrap().status, 200);
    // A second server does not take the place of one that listens.
    let said = home.refused(255, &["serve", "--listen", &listen]);
    assert!(said.contains("is there already"), "{said}");
    // Root of the machine may be anybody: a user who is neither root nor the owner gets no byte, whatever the mode.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(home.scratch(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(home.scratch().parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!(
        "import os, socket; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect({:?}); \
         s.sendall(b'GET /_blockseal/health HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'); print(len(s.recv(100)))",
        path.display().to_string()
    );
    let other = crate::harness::tool("python3").args(["-c", &script]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&other.stdout), String::from_utf8_lossy(&other.stderr));
    assert!(out.trim() == "0" || err.contains("ConnectionReset") || err.contains("BrokenPipe"), "{out}{err}");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(server.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(server.wait().unwrap().success());
    assert!(!path.exists());
}

#[test]
fn the_end_waits_for_what_is_in_flight() {
    let home = Home::new();
    home.text("faults set kms.CreateKey=latency:1500ms");
    let server = Server::start(&home, &[]);
    let mut stream = server.connect();
    stream.write_all(&server.json("TrentService.CreateKey", &json!({})).sign("kms", &ROOT).bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    server.tell_to_end();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Answer::parse(&answer).unwrap().status, 200, "{}", String::from_utf8_lossy(&answer));
    assert!(server.end().success());
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(home.json("kms list-keys")["Keys"].as_array().unwrap().len(), 1);
}

#[test]
fn too_much_and_too_little_are_refused_and_the_next_client_is_served() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let large = server
        .send(&server.json("TrentService.Encrypt", &json!({"Plaintext": "x".repeat(2 << 20)})).sign("kms", &ROOT));
    assert_eq!(large.status, 413);
    let head = [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".as_slice(), &vec![b'x'; 100 << 10], b"\r\n\r\n"].concat();
    let answer = Answer::parse(&server.raw(&head)).map(|answer| answer.status);
    assert!(matches!(answer, Some(431) | None), "{answer:?}");
    let body =
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: TrentService.ListKeys\r\nContent-Length: 100\r\n\r\n{}";
    server.raw(body.as_bytes());
    for bytes in
        [&b""[..], b"\r\n", b"\0\0\0\0", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"]
    {
        server.raw(bytes);
    }
    // Clients who say nothing take nobody's place.
    let silent: Vec<_> = (0..200).map(|_| server.connect()).collect();
    server.kms("ListKeys", &json!({}));
    drop(silent);
    assert_eq!(server.end().code(), Some(0));
}

/// Half a head and half a body take a connection each for twenty seconds, and not longer.
#[test]
fn half_a_request_is_not_waited_for_for_ever() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let half = |bytes: &[u8]| {
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        let began = Instant::now();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
        Answer::parse(&answer).map(|answer| answer.status)
    };
    let body =
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: TrentService.ListKeys\r\nContent-Length: 9\r\n\r\n{}";
    std::thread::scope(|scope| {
        let head = scope.spawn(|| half(b"POST / HTTP/1.1\r\nHost: localhost\r\n"));
        let body = scope.spawn(|| half(body.as_bytes()));
        assert!(matches!(head.join().unwrap(), None | Some(408)));
        assert_eq!(body.join().unwrap(), Some(408));
    });
}

#[test]
fn an_ephemeral_home_is_gone_with_the_server() {
    let home = Home::new();
    let server = Server::start(&home, &["--ephemeral"]);
    server.kms("CreateKey", &json!({}));
    assert!(!home.path().exists(), "the home of others is not touched");
    let made = || std::fs::read_dir(home.scratch()).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(made(), 1);
    let volume = server.send(
        &server.query("Action=CreateVolume&Version=2016-11-15&Size=1&AvailabilityZone=us-east-1a").sign("ec2", &ROOT),
    );
    let volume = element(&volume.text(), "volumeId");
    let attach = format!("Action=AttachVolume&Version=2016-11-15&VolumeId={volume}");
    assert_eq!(server.send(&server.query(&attach).sign("ec2", &ROOT)).status, 200);
    assert!(server.end().success());
    assert_eq!(made(), 0, "and no exporter holds a file of it");
}

#[test]
fn a_server_fills_its_home_from_a_file_and_again_after_a_reset() {
    let home = Home::new();
    let file = home.scratch().join("init.json");
    let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
    std::fs::write(&file, json!({"Keys": [{"KeyId": id, "Aliases": ["alias/app"]}]}).to_string()).unwrap();
    let server = Server::start(&home, &["--ephemeral", "--enable-reset", "--init", file.to_str().unwrap()]);
    let found =
        |server: &Server| server.kms("DescribeKey", &json!({"KeyId": "alias/app"}))["KeyMetadata"]["KeyId"].clone();
    assert_eq!(found(&server), id);
    server.kms("CreateKey", &json!({}));
    assert_eq!(server.send(&server.request("POST", "/_blockseal/reset", "")).status, 200);
    assert_eq!(found(&server), id);
    assert_eq!(server.kms("ListKeys", &json!({}))["Keys"].as_array().unwrap().len(), 1);
    std::fs::write(&file, "{\"Surely\": 1}").unwrap();
    let said = home.refused(254, &["serve", "--listen", "127.0.0.1:0", "--init", file.to_str().unwrap()]);
    assert!(said.contains("calling the init operation"), "{said}");
}

#[test]
fn a_reset_empties_the_home_where_it_was_asked_for() {
    let home = Home::new();
    let count = |server: &Server| server.kms("ListKeys", &json!({}))["Keys"].as_array().unwrap().len();
    let server = Server::start(&home, &[]);
    server.kms("CreateKey", &json!({}));
    assert_eq!(server.send(&server.request("POST", "/_blockseal/reset", "")).status, 403);
    assert_eq!(count(&server), 1);
    drop(server);
    let server = Server::start(&home, &["--enable-reset"]);
    assert_eq!(count(&server), 1);
    assert_eq!(server.send(&server.request("GET", "/_blockseal/reset", "")).status, 405);
    let page = server.request("POST", "/_blockseal/reset", "").header("Origin", "http://evil.example");
    assert_eq!(server.send(&page).status, 403, "no web page empties a home");
    assert_eq!(server.send(&server.request("POST", "/_blockseal/reset", "")).status, 200);
    assert_eq!(count(&server), 0);
    server.kms("CreateKey", &json!({}));
    assert_eq!(count(&server), 1);
}

#[test]
fn a_frozen_clock_stands_until_it_is_moved_or_the_server_ends() {
    let home = Home::new();
    let server = Server::start(&home, &["--frozen-clock"]);
    let made = |server: &Server| server.kms("CreateKey", &json!({}))["KeyMetadata"]["CreationDate"].as_f64().unwrap();
    let first = made(&server);
    std::thread::sleep(Duration::from_millis(20));
    assert!((made(&server) - first).abs() < 1e-9);
    home.text("clock advance 1h");
    assert!((made(&server) - first - 3600.0).abs() < 1e-6);
    assert!(server.end().success());
    let time = || home.json("clock show")["Time"].clone();
    let then = time();
    assert_ne!(then, time());
}

#[test]
fn servers_and_commands_share_a_home() {
    let home = Home::new();
    let (one, two) = (Server::start(&home, &[]), Server::start(&home, &[]));
    std::thread::scope(|scope| {
        for server in [&one, &two] {
            scope.spawn(move || {
                for _ in 0..20 {
                    server.kms("CreateKey", &json!({}));
                }
            });
        }
        for _ in 0..5 {
            home.json("kms create-key");
        }
    });
    assert_eq!(home.json("kms list-keys")["Keys"].as_array().unwrap().len(), 45);
}

/// A volume that a server attached is served by a process of its own.
#[test]
fn an_attached_volume_outlives_its_server_and_the_next_one_detaches_it() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let ec2 = |server: &Server, form: &str| {
        let answer = server.send(&server.query(&format!("{form}&Version=2016-11-15")).sign("ec2", &ROOT));
        assert_eq!(answer.status, 200, "{form}: {}", answer.text());
        answer.text()
    };
    let created = ec2(&server, "Action=CreateVolume&Size=1&AvailabilityZone=us-east-1a&Encrypted=true");
    let volume = element(&created, "volumeId");
    ec2(&server, &format!("Action=AttachVolume&VolumeId={volume}&Device=/dev/sdf"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(server.pid()), nix::sys::signal::Signal::SIGKILL).unwrap();
    drop(server);
    let shown = home.json("ec2 describe-volumes");
    assert_eq!(shown["Volumes"][0]["State"], "in-use");
    assert_eq!(home.processes().len(), 1, "the exporter");
    let server = Server::start(&home, &[]);
    let shown = ec2(&server, "Action=DescribeVolumes");
    assert!(shown.contains("<attachmentSet><item>") && shown.contains("<status>attached</status>"), "{shown}");
    ec2(&server, &format!("Action=DetachVolume&VolumeId={volume}"));
    assert_eq!(home.processes().iter().filter(|pid| **pid != server.pid()).count(), 0);
}

#[test]
fn it_starts_within_a_tenth_of_a_second_and_rests_in_little_memory() {
    if std::env::var_os("BLOCKSEAL_RELEASE").is_none() {
        // Only the release build is fast; the gate makes one. The bounds below are then the release's.
        assert_eq!(fast_program(), crate::harness::program());
    }
    let home = Home::fast();
    home.json("kms create-key");
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let server = Server::start(&home, &[]);
        server.send(&server.request("GET", "/_blockseal/health", ""));
        best = best.min(began.elapsed());
        server.kms("ListKeys", &json!({}));
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 64 << 10, "{kib} KiB");
    }
    assert!(best < Duration::from_millis(100), "{best:?}");
}

#[test]
fn what_a_key_must_not_leave_in_the_log_is_not_there() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let key = server.kms("CreateKey", &json!({}))["KeyMetadata"]["KeyId"].clone();
    let made = server.kms("GenerateDataKey", &json!({"KeyId": key, "KeySpec": "AES_256"}));
    let plaintext = made["Plaintext"].as_str().unwrap().to_owned();
    let encrypted = server.kms("Encrypt", &json!({"KeyId": key, "Plaintext": plaintext}));
    drop(server);
    let log = log_of(&home);
    assert!(log.contains("\"operation\":\"GenerateDataKey\""), "{log}");
    for secret in [&plaintext, encrypted["CiphertextBlob"].as_str().unwrap()] {
        assert!(!log.contains(secret.trim_end_matches('=')), "a body is in the log");
    }
    for line in log.lines() {
        let fields: Value = serde_json::from_str(line).unwrap();
        assert!(fields["time"].is_string() && fields["level"].is_string() && fields["message"].is_string(), "{line}");
    }
}
