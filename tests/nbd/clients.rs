//! Real clients of others: libnbd's tools, QEMU's tools, fio, and our client before servers of others.

use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockseal::export::Client;

use super::devices::Sparse;
use super::{MIB, Random, run, serve, serve_shared, try_run};

#[test]
fn nbdinfo_sees_what_the_export_is() {
    let served = serve(Sparse::new(100 * MIB));
    let text = run("nbdinfo", &[&served.uri()]);
    for line in [
        "protocol: newstyle-fixed without TLS",
        "base:allocation",
        "is_read_only: false",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "can_df: true",
        "block_size_minimum: 1",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
        "export-size: 104857600",
    ] {
        assert!(text.contains(line), "'{line}' is missing in\n{text}");
    }
    let list = run("nbdinfo", &["--list", &format!("nbd+unix:///?socket={}", served.socket.display())]);
    assert!(list.contains(super::NAME) && list.contains("a test"), "{list}");
    assert!(try_run("nbdinfo", &["--can", "multi-conn", &served.uri()]).0);
    assert!(!try_run("nbdinfo", &["--is", "read-only", &served.uri()]).0);
    let (ok, text) = try_run("nbdinfo", &[&served.uri().replace(super::NAME, "vol-00000000")]);
    assert!(!ok && text.contains("No such file or directory"), "{text}");
}

#[test]
fn nbdinfo_maps_holes_and_data() {
    let served = serve(Sparse::new(64 * MIB));
    let mut client = served.client();
    client.write(8 * MIB, &vec![1; 1 << 20]).unwrap();
    client.write_zeroes(20 * MIB, MIB, true).unwrap();
    let map = run("nbdinfo", &["--map", &served.uri()]);
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    let mib = |count: u64| (count * MIB).to_string();
    let expected = [
        [mib(0), mib(8), "3".into()],
        [mib(8), mib(1), "0".into()],
        [mib(9), mib(11), "3".into()],
        [mib(20), mib(1), "0".into()],
        [mib(21), mib(43), "3".into()],
    ];
    assert_eq!(lines, expected);
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &served.uri()]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let holes: u64 = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["zero"] == true)
        .map(|run| run["length"].as_u64().unwrap())
        .sum();
    assert_eq!(holes, 62 * MIB, "{map}");
}

#[test]
fn nbdcopy_in_and_out_is_identical() {
    let served = serve(Sparse::new(256 * MIB));
    let (image, back) = (served.path("image"), served.path("back"));
    let mut bytes = Random(1).bytes(96 << 20);
    // Holes in the middle: nbdcopy sends them as zeroes.
    bytes[20 << 20..50 << 20].fill(0);
    bytes.resize(256 << 20, 0);
    std::fs::write(&image, &bytes).unwrap();
    run("nbdcopy", &["--flush", &image, &served.uri()]);
    run("nbdcopy", &[&served.uri(), &back]);
    assert!(std::fs::read(&back).unwrap() == bytes);
    assert!(served.server.as_ref().unwrap().statistics().connections_accepted >= 3, "nbdcopy used several connections");
    run("nbdcopy", &["--connections=4", "--requests=32", "--synchronous", &served.uri(), &back]);
    assert!(std::fs::read(&back).unwrap() == bytes);
    // From server to server.
    let other = serve(Sparse::new(256 * MIB));
    run("nbdcopy", &[&served.uri(), &other.uri()]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &served.uri(), &other.uri()]);
}

#[test]
fn qemu_io_patterns_hold() {
    let served = serve(Sparse::new(64 * MIB));
    let uri = served.uri();
    let session = |commands: &[&str]| {
        let mut args = vec!["-f", "raw", &uri];
        for command in commands {
            args.extend(["-c", command]);
        }
        let text = run("qemu-io", &args);
        assert!(!text.contains("failed"), "{text}");
        text
    };
    session(&[
        "read -P 0 0 64M",
        "write -P 0xab 0 1M",
        "write -z -u 256k 256k",
        "write -z 512k 64k",
        "discard 768k 128k",
        "write -f -P 0x11 1M 4k",
        "flush",
        "aio_write -P 0x22 2M 3M",
        "aio_write -P 0x33 6M 512",
        "aio_flush",
        "read -P 0xab 0 256k",
        "read -P 0 256k 256k",
        "read -P 0 512k 64k",
        "read -P 0xab 576k 192k",
        "read -P 0 768k 128k",
        "read -P 0xab 896k 128k",
        "read -P 0x11 1M 4k",
        "read -P 0x22 2M 3M",
        "read -P 0x33 6M 512",
        "read -P 0 6292k 10M",
        "map",
    ]);
    // Lengths and places that no sector knows.
    session(&["write -P 0x44 4097 1", "write -P 0x55 8191 4099", "read -P 0x44 4097 1", "read -P 0xab 4098 4093"]);
    session(&["read -P 0x55 8191 4099", "read -P 0xab 12290 1000"]);
    let (ok, text) = try_run("qemu-io", &["-f", "raw", &uri, "-c", "read -P 0x99 0 512"]);
    assert!(text.contains("Pattern verification failed"), "the check can fail ({ok}): {text}");
}

#[test]
fn qemu_img_converts_both_ways_and_compares() {
    let served = serve(Sparse::new(64 * MIB));
    let (image, back, qcow) = (served.path("image"), served.path("back"), served.path("qcow"));
    let mut bytes = Random(2).bytes(64 << 20);
    bytes[5 << 20..37 << 20].fill(0);
    std::fs::write(&image, &bytes).unwrap();
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &image, &served.uri()]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &image, &served.uri()]);
    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", "-m", "8", "-W", &served.uri(), &back]);
    assert!(std::fs::read(&back).unwrap() == bytes);
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &served.uri(), &qcow]);
    run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", &qcow, &served.uri()]);
    served.client().write(40 * MIB, b"changed").unwrap();
    let (same, text) = try_run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &image, &served.uri()]);
    assert!(!same && text.contains("mismatch"), "the comparison can fail: {text}");
    run(
        "qemu-img",
        &["bench", "-f", "raw", "-c", "2000", "-s", "4096", "-d", "16", "-w", "--flush-interval", "100", &served.uri()],
    );
}

#[test]
fn fio_verifies_random_writes() {
    let served = serve(Sparse::new(64 * MIB));
    let uri = format!("--uri={}", served.uri());
    let common =
        ["--name=t", "--ioengine=nbd", &uri, "--rw=randrw", "--randrepeat=1", "--iodepth=16", "--output-format=terse"];
    for sizes in [
        &["--bsrange=512-64k", "--blockalign=512", "--size=48m", "--fsync=64"][..],
        // Aligned to nothing that a sector knows.
        &["--bs=1000-3000", "--bs_unaligned=1", "--size=8m"],
        &["--bs=2m", "--size=64m"],
    ] {
        let mut args = common.to_vec();
        args.extend(sizes);
        // Without the last one fio leaves a file of its state in the work tree.
        args.extend(["--verify=sha256", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0"]);
        run("fio", &args);
    }
}

#[test]
fn fio_sees_a_device_that_lies() {
    use blockseal::device::BlockDevice as _;
    let device = Arc::new(Sparse::new(8 * MIB));
    let served = serve_shared(device.clone());
    let uri = format!("--uri={}", served.uri());
    let args =
        ["--name=t", "--ioengine=nbd", &uri, "--rw=write", "--bs=64k", "--size=8m", "--verify=sha256", "--iodepth=4"];
    run("fio", &[&args[..], &["--do_verify=0", "--verify_state_save=0"]].concat());
    device.write_at(5 * MIB + 100, b"lie").unwrap();
    let (ok, text) =
        try_run("fio", &[&args[..], &["--verify_only=1", "--verify_fatal=1", "--verify_state_save=0"]].concat());
    assert!(!ok && text.contains("verify"), "{text}");
}

/// libnbd's own shell, used for what its tools do not ask for: info without go, trim, zero and block status by hand.
#[test]
fn libnbd_by_hand() {
    let served = serve(Sparse::new(16 * MIB));
    let script = format!(
        r#"
import nbd
h = nbd.NBD()
h.set_strict_mode(0)
h.set_opt_mode(True)
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_unix({socket:?})
h.set_export_name("nothing")
try:
    h.opt_info()
    raise SystemExit("an unknown export was accepted")
except nbd.Error as e:
    assert e.errnum == 2, e
names = []
h.opt_list(lambda name, text: names.append(name))
assert names == [{name:?}], names
h.set_export_name({name:?})
h.opt_info()
assert h.get_size() == 16 << 20
h.opt_go()
h.pwrite(b"x" * 65536, 1000)
h.zero(1000, 4096, nbd.CMD_FLAG_NO_HOLE)
h.trim(512 * 3, 7000, nbd.CMD_FLAG_FUA)
h.flush()
assert h.pread(1001, 4095) == b"x" + b"\0" * 1000
assert h.pread(4, 5096) == b"xxxx"
assert h.pread(1538, 6999) == b"x" + b"\0" * 1536 + b"x"
extents = []
h.block_status(16 << 20, 0, lambda c, o, e, err: extents.extend(e))
assert sum(extents[::2]) == 16 << 20, extents
for bad in (lambda: h.pread(2, (16 << 20) - 1), lambda: h.pwrite(b"xx", (16 << 20) - 1), lambda: h.trim(2, (16 << 20) - 1)):
    try:
        bad()
        raise SystemExit("past the end")
    except nbd.Error as e:
        assert e.errnum in (22, 28), e
assert h.pread_structured(1 << 20, 0, lambda buf, o, s, e: 0)
h.shutdown()
"#,
        socket = served.socket.to_str().unwrap(),
        name = super::NAME,
    );
    run("/usr/bin/python3", &["-c", &script]);
}

/// Ends a server of others when the test is over.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the client hears of the whole export: start and length of each run, and whether it reads as zeros.
fn runs_of(client: &mut Client, size: u64) -> Vec<(u64, u64, bool)> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        for extent in client.extents(at, size - at).unwrap() {
            runs.push((at, extent.length, extent.zero));
            at += extent.length;
        }
    }
    assert_eq!(at, size);
    runs
}

/// More than one request can ask for, and longer than one answer can tell.
#[test]
fn our_client_sees_holes_and_data_of_a_large_export() {
    let size = 10 << 30;
    let device = Arc::new(Sparse::new(size));
    let served = serve_shared(device);
    let mut client = served.client();
    assert_eq!(runs_of(&mut client, size).iter().filter(|(_, _, zero)| !zero).count(), 0);
    let mut expected = Vec::new();
    for index in 0..5000 {
        client.write(index * 8192, &[1; 4096]).unwrap();
        expected.push(index * 8192);
    }
    client.write(size - 4096, &[1; 4096]).unwrap();
    expected.push(size - 4096);
    let runs = runs_of(&mut client, size);
    let data: Vec<u64> = runs.iter().filter(|(_, _, zero)| !zero).map(|(start, ..)| *start).collect();
    assert_eq!(data, expected);
    assert!(runs.iter().filter(|(_, _, zero)| !zero).all(|(_, length, _)| *length == 4096));
    // Reads come in chunks on such a connection, long ones in several.
    let mut long = vec![0xee; 3 << 20];
    client.read(4096, &mut long).unwrap();
    assert!(long.chunks(4096).enumerate().all(|(index, block)| block == [u8::from(index % 2 == 1); 4096]));
    assert!(client.extents(size - 1, 2).is_err(), "past the end");
}

/// The twin: a server that does not tell is believed to have data everywhere.
#[test]
fn our_client_takes_everything_for_data_where_nobody_tells() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let socket = dir.path().join("s");
    let mut command = Command::new("nbdkit");
    let _peer = Peer(command.args(["-f", "--no-sr", "-U"]).arg(&socket).arg("file").arg(&image).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !socket.exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut client = Client::connect(&socket, "").unwrap();
    assert_eq!(runs_of(&mut client, 1 << 20), [(0, 1 << 20, false)]);
    let mut back = [1; 4096];
    client.read(0, &mut back).unwrap();
    assert_eq!(back, [0; 4096]);
}

#[test]
fn our_client_works_with_servers_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, vec![0; 32 << 20]).unwrap();
    for server in ["nbdkit", "qemu-nbd"] {
        let socket = dir.path().join(server);
        let mut command = Command::new(server);
        if server == "nbdkit" {
            command.args(["-f", "-U"]).arg(&socket).args(["file"]).arg(&image);
        } else {
            command
                .arg("-k")
                .arg(&socket)
                .args(["-x", "vol", "-t", "-f", "raw", "--discard=unmap", "-e", "8"])
                .arg(&image);
        }
        let _peer = Peer(command.spawn().unwrap_or_else(|error| panic!("{server}: {error}")));
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut client = loop {
            match Client::connect(&socket, "vol") {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{server}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(client.size(), 32 << 20);
        let data = Random(4).bytes(20_000_000);
        client.copy_in(&mut &data[..], 4096, data.len() as u64, &mut |_| {}).unwrap();
        client.write_durably(0, b"start").unwrap();
        client.write_zeroes(4096, 8192, true).unwrap();
        client.trim(8 * MIB, 4096).unwrap();
        client.flush().unwrap();
        let runs = runs_of(&mut client, 32 * MIB);
        assert!(runs.contains(&(8 * MIB, 4096, true)), "{server}: {runs:?}");
        assert!(runs.iter().any(|(_, _, zero)| !zero), "{server}: {runs:?}");
        let mut out = Vec::new();
        client.copy_out(&mut out, 0, 32 << 20, &mut |_| {}).unwrap();
        assert_eq!(&out[..5], b"start", "{server}");
        assert_eq!(out[4096..12288], [0; 8192], "{server}");
        assert!(out[12288..8 << 20] == data[8192..(8 << 20) - 4096], "{server}");
        client.disconnect().unwrap();
    }
}
