//! From the start to the end of an exporter, the sudden one included.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blockseal::device::{DeviceErrorKind, volume};
use blockseal::dir::HomeDir;
use blockseal::export::control::{self, ControlError};
use blockseal::export::{self, Client, Order, SpawnError};
use nix::sys::signal::Signal;

use super::{Attachable, is_exporter, program, signal, wait_until};
use crate::nbd::{MIB, Random, raw::Raw, run};

#[test]
fn attach_write_detach_attach_again() {
    let mut attachable = Attachable::new(64 * MIB);
    let exporter = attachable.attach();
    assert_eq!((exporter.size, exporter.was_latched), (64 * MIB, false));
    assert_eq!(exporter.socket, attachable.run_file("sock"));
    for ending in ["sock", "ctl", "log"] {
        let mode = std::fs::metadata(attachable.run_file(ending)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{ending}");
    }
    assert!(volume::is_attached(&attachable.home, &attachable.volume).unwrap());
    let data = Random(5).bytes(3_000_000);
    let mut client = attachable.client();
    client.copy_in(&mut &data[..], 12_345, data.len() as u64, &mut |_| {}).unwrap();

    let status = control::status(&attachable.home, &attachable.volume).unwrap();
    assert_eq!((status.pid, &status.volume_id, status.size), (exporter.pid, &attachable.volume, 64 * MIB));
    assert_eq!((status.read_only, status.statistics.connections), (false, 1));
    assert_eq!(status.statistics.bytes_written, data.len() as u64);

    control::detach(&attachable.home, &attachable.volume).unwrap();
    assert!(!volume::is_attached(&attachable.home, &attachable.volume).unwrap(), "free at once");
    assert!(!attachable.run_file("sock").exists() && !attachable.run_file("ctl").exists());
    assert!(client.flush().is_err());
    wait_until("the process is gone", || !is_exporter(exporter.pid));

    attachable.attach();
    let mut back = vec![0; data.len()];
    attachable.client().read(12_345, &mut back).unwrap();
    assert!(back == data);
    let stored = std::fs::read(attachable.volume_file()).unwrap();
    assert!(!stored.windows(64).step_by(1).any(|window| window == &data[100_000..100_064]), "ciphertext is stored");
    control::detach(&attachable.home, &attachable.volume).unwrap();
}

#[test]
fn the_exporter_is_on_its_own() {
    // A descriptor that somebody forgot to close on exec.
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut twin = Command::new("sleep").arg("60").spawn().unwrap();
    let mut attachable = Attachable::new(MIB);
    let pid = attachable.attach().pid;
    let fds = |pid: u32| -> Vec<String> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()?.to_str().map(str::to_owned))
            .collect()
    };
    let mine = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer))).unwrap();
    let mine = mine.to_str().unwrap();
    assert!(fds(twin.id()).iter().any(|link| link == mine), "an ordinary child inherits it");
    assert!(!fds(pid).iter().any(|link| link == mine), "the exporter does not keep it");
    twin.kill().unwrap();
    twin.wait().unwrap();
    drop((reader, writer));

    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(link("fd/0"), Path::new("/dev/null"));
    // It answers its starter on this descriptor, and lets go of it after that.
    crate::harness::eventually("the exporter lets go of its starter", || link("fd/1") == Path::new("/dev/null"));
    assert_eq!(link("fd/2"), attachable.run_file("log").canonicalize().unwrap());
    assert_eq!(link("cwd"), Path::new("/"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string(), "a session of its own");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

#[test]
fn refusals_say_why_and_leave_nothing_behind() {
    let mut attachable = Attachable::new(MIB);
    let mut wrong = attachable.key.clone();
    wrong[63] ^= 1;
    let equal_halves = [attachable.key[..32].to_vec(), attachable.key[..32].to_vec()].concat();
    for key in [Some(&wrong[..]), Some(&wrong[..32]), Some(&equal_halves), None] {
        let error = attachable.try_attach_with(program(), key).unwrap_err();
        assert!(matches!(error, SpawnError::Device { kind: DeviceErrorKind::WrongKey, .. }), "{error:?}");
    }
    let error = attachable.try_attach_with(program(), Some(&wrong[..16])).unwrap_err();
    assert!(matches!(&error, SpawnError::Setup(text) if text.contains("32 or 64 bytes")), "{error:?}");
    // Its twin: the right key opens it, and then it is not to be had a second time.
    attachable.attach();
    let error = attachable.try_attach().unwrap_err();
    assert!(matches!(&error, SpawnError::AlreadyServed(volume) if *volume == attachable.volume), "{error:?}");
    attachable.client().write(0, b"the first one still serves").unwrap();
    control::detach(&attachable.home, &attachable.volume).unwrap();

    // Held by somebody else than an exporter.
    let owner = volume::open(
        &attachable.home,
        &attachable.volume,
        attachable.expected,
        Some(&blockseal::secret::SecretBytes::take_from(&mut attachable.key.clone())),
        volume::OpenOptions::default(),
    )
    .unwrap();
    let error = attachable.try_attach().unwrap_err();
    assert!(matches!(error, SpawnError::Device { kind: DeviceErrorKind::Locked, .. }), "{error:?}");
    drop(owner);

    for program in ["/nonexistent/blockseal", "/bin/true", "/bin/cat"] {
        let error = attachable.try_attach_with(Path::new(program), Some(&[7; 64])).unwrap_err();
        match program {
            "/nonexistent/blockseal" => assert!(matches!(error, SpawnError::Io { .. }), "{error:?}"),
            _ => assert!(matches!(error, SpawnError::Died(_)), "{error:?}"),
        }
    }
    assert!(!attachable.run_file("sock").exists() && !attachable.run_file("ctl").exists());
    assert!(matches!(control::status(&attachable.home, &attachable.volume), Err(ControlError::NobodyThere(_))));
    std::fs::remove_file(attachable.volume_file()).unwrap();
    let error = attachable.try_attach().unwrap_err();
    assert!(matches!(error, SpawnError::Device { kind: DeviceErrorKind::NotFound, .. }), "{error:?}");
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_before_anything_starts() {
    let base = tempfile::tempdir().unwrap();
    let home = HomeDir::open(&base.path().join("x".repeat(90)), true).unwrap();
    let attachable = Attachable::new(MIB);
    let order = Order::new(&home, &attachable.volume, attachable.expected, false);
    let error = export::spawn(Path::new("/nonexistent"), &order, None).unwrap_err();
    assert!(matches!(error, SpawnError::SocketPathTooLong(_)), "{error:?}");
    assert!(error.to_string().contains("use a home with a shorter path"), "{error}");
    assert!(!home.path().join("run").exists());
    assert!(matches!(control::detach(&home, &attachable.volume), Err(ControlError::NobodyThere(_))));
}

/// The program as its starter runs it, with whatever the test gives it to read.
fn start_by_hand(input: &[u8], listen: bool) -> (std::process::ExitStatus, String) {
    let mut child = Command::new(program())
        .arg(export::EXPORTER_COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    if !listen {
        drop(stdout);
        child.stdin.take().unwrap().write_all(input).unwrap();
        return (child.wait().unwrap(), String::new());
    }
    // It may stop reading early.
    let _ = child.stdin.take().unwrap().write_all(input);
    let mut report = String::new();
    stdout.read_to_string(&mut report).unwrap();
    (child.wait().unwrap(), report)
}

#[test]
fn nonsense_in_place_of_an_order_is_reported() {
    let key = [&[64][..], &[7; 64]].concat();
    for (input, text) in [
        (Vec::new(), "cannot read the order"),
        (vec![33], "32 or 64 bytes"),
        (vec![64, 1, 2, 3], "cannot read the order"),
        (vec![0], "cannot read the order"),
        ([&key[..], b"{}"].concat(), "missing field"),
        ([&key[..], b"{\"home\":\"/nonexistent\",\"volume\":\"../x\"}"].concat(), "is not a volume id"),
        (vec![b'x'; 200_000], "32 or 64 bytes"),
        ([vec![0], vec![b' '; 200_000]].concat(), "cannot read the order"),
    ] {
        let (status, report) = start_by_hand(&input, true);
        assert!(!status.success() && report.contains(text), "{report}");
    }
}

/// A starter that dies before the report leaves an exporter of which nobody knows: it must not stay.
#[test]
fn an_exporter_without_a_starter_ends() {
    let attachable = Attachable::new(MIB);
    let order = serde_json::to_vec(&attachable.order()).unwrap();
    let input = [&[64][..], &attachable.key, &order].concat();
    let (status, _) = start_by_hand(&input, false);
    assert!(!status.success());
    assert!(!attachable.run_file("sock").exists() && !attachable.run_file("ctl").exists());
    assert!(!volume::is_attached(&attachable.home, &attachable.volume).unwrap());
    let log = std::fs::read_to_string(attachable.run_file("log")).unwrap();
    assert!(log.contains("serving") && log.contains("the starter has gone"), "it got that far: {log}");
}

#[test]
fn of_two_starts_at_once_one_wins() {
    let mut attachable = Attachable::new(MIB);
    for _ in 0..5 {
        let order = attachable.order();
        let key = attachable.key.clone();
        let start = || {
            let key = blockseal::secret::SecretBytes::take_from(&mut key.clone());
            export::spawn(program(), &order, Some(&key))
        };
        let outcomes = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let mut won = 0;
        for outcome in outcomes {
            match outcome {
                Ok(exporter) => {
                    won += 1;
                    attachable.started.push(exporter);
                }
                Err(SpawnError::AlreadyServed(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(won, 1);
        attachable.client().flush().unwrap();
        control::detach(&attachable.home, &attachable.volume).unwrap();
    }
}

/// Killed while several connections write: the next call says that nobody is there, what was flushed is there after
/// the next attach, and the dead one's sockets are in nobody's way.
#[test]
fn a_killed_exporter_is_noticed_and_loses_nothing_flushed() {
    let mut attachable = Attachable::new(64 * MIB);
    for round in 0..3u8 {
        let pid = attachable.attach().pid;
        let mut client = attachable.client();
        let data = vec![round + 1; 1_000_000];
        client.write(u64::from(round) * MIB, &data).unwrap();
        client.flush().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let mut client = attachable.client();
                let stop = &stop;
                scope.spawn(move || {
                    let mut random = Random(u64::from(round) * 10 + writer);
                    let mut answered = 0u64;
                    let data = vec![0xcc; 20_000];
                    while !stop.load(Ordering::Relaxed) {
                        let offset = 16 * MIB + random.below(40 * MIB);
                        if client.write(offset, &data).is_err() {
                            break;
                        }
                        answered += 1;
                    }
                    assert!(answered > 0, "it was killed in the middle of writes");
                });
            }
            std::thread::sleep(Duration::from_millis(150));
            signal(pid, Signal::SIGKILL);
            wait_until("the process is gone", || !is_exporter(pid));
            stop.store(true, Ordering::Relaxed);
        });
        assert!(client.flush().is_err());
        // A dying process loses its name before its last thread lets go of the sockets.
        let nobody =
            || matches!(control::status(&attachable.home, &attachable.volume), Err(ControlError::NobodyThere(_)));
        wait_until("nobody answers", nobody);
        assert!(attachable.run_file("sock").exists() && attachable.run_file("ctl").exists(), "its sockets stay behind");
        for _ in 0..2 {
            assert!(matches!(control::status(&attachable.home, &attachable.volume), Err(ControlError::NobodyThere(_))));
            assert!(matches!(control::detach(&attachable.home, &attachable.volume), Err(ControlError::NobodyThere(_))));
        }
        assert!(!volume::is_attached(&attachable.home, &attachable.volume).unwrap());
        let socket = attachable.run_file("sock");
        let error = Client::connect(&socket, attachable.volume.as_str()).unwrap_err();
        assert!(matches!(error, export::ClientError::NobodyThere(_)), "{error:?}");

        attachable.attach();
        for written in 0..=round {
            let mut back = vec![0; 1_000_000];
            attachable.client().read(u64::from(written) * MIB, &mut back).unwrap();
            assert!(back == vec![written + 1; 1_000_000], "flushed in round {written}, lost in round {round}");
        }
        control::detach(&attachable.home, &attachable.volume).unwrap();
    }
}

#[test]
fn a_polite_signal_is_a_detach() {
    for polite in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut attachable = Attachable::new(8 * MIB);
        let pid = attachable.attach().pid;
        let mut client = attachable.client();
        client.write(0, b"not flushed by the client").unwrap();
        signal(pid, polite);
        wait_until("the process is gone", || !is_exporter(pid));
        assert!(client.flush().is_err());
        assert!(!attachable.run_file("sock").exists() && !attachable.run_file("ctl").exists());
        let log = std::fs::read_to_string(attachable.run_file("log")).unwrap();
        assert!(log.contains("ended") && !log.contains("failed"), "{log}");
        attachable.attach();
        let mut back = [0; 25];
        attachable.client().read(0, &mut back).unwrap();
        assert_eq!(&back, b"not flushed by the client");
    }
}

#[test]
fn a_detach_answers_what_was_asked_before_it() {
    let mut attachable = Attachable::new(64 * MIB);
    attachable.attach();
    let mut raw = Raw::simple(&attachable.run_file("sock"));
    let mut script = Vec::new();
    for cookie in 0..20 {
        script.extend(crate::nbd::raw::request(0, crate::nbd::raw::WRITE, cookie, cookie * 5000, 5000));
        script.extend(vec![9; 5000]);
    }
    raw.give(&script);
    control::detach(&attachable.home, &attachable.volume).unwrap();
    let mut answered: Vec<u64> = (0..20).map(|_| raw.simple_reply().0).collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..20).collect::<Vec<_>>());
    assert!(raw.expect_end().is_empty());
    attachable.attach();
    let mut back = vec![0; 100_000];
    attachable.client().read(0, &mut back).unwrap();
    assert!(back == vec![9; 100_000]);
}

#[test]
fn the_control_socket_refuses_nonsense_and_stays() {
    let mut attachable = Attachable::new(MIB);
    attachable.attach();
    let ask = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(attachable.run_file("ctl")).unwrap();
        // It may hang up before it has all of it.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for nonsense in [
        &b""[..],
        b"\n",
        b"{}\n",
        b"{\"Command\":\"Explode\"}\n",
        b"{\"Command\":\"Status\",\"And\":1}\n",
        b"{\"Command\":",
        &[0xff; 100],
        &vec![b'['; 300_000],
    ] {
        let answer = ask(nonsense);
        assert!(answer.is_empty() || answer.contains("not a command"), "{answer}");
    }
    assert!(ask(b"{\"Command\":\"Status\"}\n").contains(attachable.volume.as_str()));
    // Silent callers take the places there are, and no more.
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(attachable.run_file("ctl")).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(50));
    assert!(attachable.client().flush().is_ok(), "the data plane does not care");
    drop(silent);
    wait_until("the places are given back", || control::status(&attachable.home, &attachable.volume).is_ok());
}

#[test]
fn memory_stays_small_and_bounded() {
    let mut attachable = Attachable::new(1 << 40);
    let pid = attachable.attach().pid;
    let anonymous_kib = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let of = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        of("RssAnon:") + of("VmPTE:") + of("VmLck:")
    };
    assert!(anonymous_kib() < 32 * 1024, "{} KiB when idle", anonymous_kib());
    let mut random = Random(11);
    let mut client = attachable.client();
    for _ in 0..300 {
        client.read(random.below(1 << 40) & !4095, &mut [0; 4096]).unwrap();
    }
    assert!(anonymous_kib() < 32 * 1024, "{} KiB after reads all over 1 TiB", anonymous_kib());
    // Clients that ask for 32 MiB at a time, eight times each, and take nothing; and some that announce as much.
    let mut hostile = Vec::new();
    for index in 0..export::MAX_CONNECTIONS - 2 {
        let mut raw = Raw::simple(&attachable.run_file("sock"));
        for cookie in 0..8 {
            let command = if index % 2 == 0 { crate::nbd::raw::READ } else { crate::nbd::raw::WRITE };
            raw.request(0, command, cookie, 0, 32 << 20);
            if index % 2 == 1 {
                raw.give(&vec![1; 100_000]);
            }
        }
        hostile.push(raw);
    }
    std::thread::sleep(Duration::from_millis(500));
    client.flush().unwrap();
    assert!(anonymous_kib() < 128 * 1024, "{} KiB under attack", anonymous_kib());
}

#[test]
fn programs_of_others_work_on_an_attached_volume() {
    let mut attachable = Attachable::new(1 << 30);
    attachable.attach();
    let uri = attachable.uri();
    let (image, back) = (attachable.dir.path().join("image"), attachable.dir.path().join("back"));
    let (image, back) = (image.to_str().unwrap(), back.to_str().unwrap());
    // 1 GiB, of which 96 MiB are not zeros.
    let file = std::fs::File::create_new(image).unwrap();
    file.set_len(1 << 30).unwrap();
    let data = Random(6).bytes(32 << 20);
    for place in [0, 500 << 20, (1 << 30) - (32 << 20)] {
        std::os::unix::fs::FileExt::write_all_at(&file, &data, place).unwrap();
    }
    run("nbdcopy", &["--flush", image, &uri]);
    run("nbdcopy", &[&uri, back]);
    run("cmp", &[image, back]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &uri]);
    let text = run("nbdinfo", &["--map", "--totals", &uri]);
    assert!(text.contains("hole,zero"), "{text}");
    run(
        "qemu-io",
        &[
            "-f",
            "raw",
            &uri,
            "-c",
            "write -P 0xab 100M 1M",
            "-c",
            "write -z -u 104857600 256k",
            "-c",
            "discard 105119744 4k",
            "-c",
            "read -P 0 104857600 266240",
            "-c",
            "write -P 0x17 104857601 3",
            "-c",
            "read -P 0 104857604 4000",
            "-c",
            "read -P 0xab 105127936 256k",
            "-c",
            "flush",
        ],
    );
    let target = format!("--uri={uri}");
    run(
        "fio",
        &[
            "--name=t",
            "--verify_state_save=0",
            "--ioengine=nbd",
            &target,
            "--rw=randrw",
            "--bsrange=512-64k",
            "--blockalign=512",
            "--size=24m",
            "--offset=200m",
            "--iodepth=16",
            "--verify=sha256",
            "--do_verify=1",
            "--verify_fatal=1",
            "--fsync=50",
            "--output-format=terse",
        ],
    );
    let status = control::status(&attachable.home, &attachable.volume).unwrap();
    assert_eq!(status.statistics.last_device_error, None);
    control::detach(&attachable.home, &attachable.volume).unwrap();
}
