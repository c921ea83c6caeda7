//! Volumes as devices of this machine's kernel: a loop device on a file served through FUSE, judged by the kernel's own file
//! systems, by fio, and by what is left when something is killed.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Home, both, eventually, full, succeed, tool};
use crate::scene::Scene;

/// A scene whose volume is attached as a kernel device, and a place to mount it. Nothing of it stays.
struct Desk {
    scene: Scene,
}

impl Desk {
    fn new() -> Self {
        Self { scene: Scene::fast() }
    }

    fn home(&self) -> &Home {
        &self.scene.home
    }

    /// Attaches the volume; answers its device.
    fn attach(&self) -> String {
        let answer =
            self.home().json(&format!("ec2 attach-volume --attach-as fuse-loop --volume-id {}", self.scene.volume));
        assert_eq!(answer["Device"], "/dev/sdf", "AWS's name keeps its meaning");
        answer["KernelDevice"].as_str().unwrap().to_owned()
    }

    fn detach(&self, options: &[&str]) -> (bool, String) {
        let detach = ["ec2", "detach-volume", "--volume-id", &self.scene.volume];
        let output = self.home().run([&detach, options].concat());
        (output.status.success(), both(&output))
    }

    fn attachment(&self) -> Value {
        self.home().json("ec2 describe-volumes")["Volumes"][0]["Attachments"][0].clone()
    }

    fn mount_point(&self) -> PathBuf {
        self.home().scratch().join("mnt")
    }

    fn mount(&self, device: &str) -> PathBuf {
        let at = self.mount_point();
        fs::create_dir_all(&at).unwrap();
        succeed(tool("mount").arg(device).arg(&at));
        at
    }

    fn unmount(&self) {
        succeed(tool("umount").arg(self.mount_point()));
    }

    /// The loop devices and mounts that belong to this scene's volume.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if backing.contains(&self.scene.volume) {
                left.push(format!("{}: {}", entry.file_name().display(), backing.trim()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&self.scene.volume)).map(str::to_owned));
        left
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = tool("umount").args(["--lazy", "--quiet"]).arg(self.mount_point()).output();
        self.detach(&["--force"]);
    }
}

/// Bytes that tell where they are from.
fn pattern(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The kernel sees the new size while the file system is mounted, and the file system can have it.
#[test]
fn a_device_grows_with_its_volume_under_a_mounted_file_system() {
    let desk = Desk::new();
    let device = desk.attach();
    succeed(tool("mkfs.xfs").arg("-q").arg(&device));
    let at = desk.mount(&device);
    fs::write(at.join("before"), pattern(1, 100_000)).unwrap();
    let bytes = || {
        let name = device.strip_prefix("/dev/").unwrap();
        fs::read_to_string(format!("/sys/block/{name}/size")).unwrap().trim().parse::<u64>().unwrap() * 512
    };
    let before = bytes();
    let more = before / (1 << 30) + 1;
    desk.home().json(&format!("ec2 modify-volume --volume-id {} --size {more}", desk.scene.volume));
    assert_eq!((before % (1 << 30), bytes()), (0, more << 30));
    succeed(tool("xfs_growfs").arg(&at));
    let blocks = nix::sys::statvfs::statvfs(&at).unwrap();
    assert!(blocks.blocks() * blocks.fragment_size() > before, "the file system has the room");
    let filled = pattern(2, 64 << 20);
    fs::write(at.join("after"), &filled).unwrap();
    desk.unmount();
    succeed(tool("xfs_repair").arg("-n").arg(&device));
    let at = desk.mount(&device);
    assert_eq!(fs::read(at.join("before")).unwrap(), pattern(1, 100_000));
    assert!(fs::read(at.join("after")).unwrap() == filled);
    desk.unmount();
    assert!(desk.detach(&[]).0);
}

#[test]
fn file_systems_live_on_a_volume_that_was_never_written() {
    for (make, check) in
        [(&["mkfs.ext4", "-q"][..], &["fsck.ext4", "-f", "-n"][..]), (&["mkfs.xfs", "-q"], &["xfs_repair", "-n"])]
    {
        let desk = Desk::new();
        let device = desk.attach();
        succeed(tool(make[0]).args(&make[1..]).arg(&device));
        let at = desk.mount(&device);
        let files: Vec<Vec<u8>> = (1..20).map(|seed| pattern(seed, 1_000_000 * seed as usize / 4)).collect();
        for (index, bytes) in files.iter().enumerate() {
            fs::write(at.join(index.to_string()), bytes).unwrap();
        }
        fs::remove_file(at.join("18")).unwrap();
        succeed(tool("fstrim").arg(&at));
        desk.unmount();
        succeed(tool(check[0]).args(&check[1..]).arg(&device));
        let (ended, said) = desk.detach(&[]);
        assert!(ended, "{said}");
        assert_eq!(desk.left(), [] as [String; 0]);
        let device = desk.attach();
        succeed(tool(check[0]).args(&check[1..]).arg(&device));
        let at = desk.mount(&device);
        for (index, bytes) in files.iter().enumerate().take(18) {
            assert!(fs::read(at.join(index.to_string())).unwrap() == *bytes, "file {index} after {}", make[0]);
        }
        desk.unmount();
    }
}

#[test]
fn fio_finds_what_it_wrote_at_depth_16() {
    let desk = Desk::new();
    let device = desk.attach();
    let size = if full() { "900M" } else { "96M" };
    succeed(
        tool("fio")
            .args(["--name=verify", "--direct=1", "--ioengine=libaio", "--iodepth=16", "--rw=randrw", "--do_verify=1"])
            .args(["--bsrange=512-128k", "--blockalign=512", "--verify=sha256", "--verify_fatal=1"])
            .args([format!("--filename={device}"), format!("--size={size}")])
            .current_dir(desk.home().scratch()),
    );
    assert!(desk.detach(&[]).0);
}

#[test]
fn holes_are_zeros_and_half_a_sector_leaves_the_other_half() {
    const MIB: u64 = 1 << 20;
    let desk = Desk::new();
    let device = desk.attach();
    let mut wanted = pattern(7, 8 << 20);
    {
        let file = File::options().write(true).open(&device).unwrap();
        file.write_all_at(&wanted, 0).unwrap();
        file.sync_all().unwrap();
    }
    let range = |offset: u64, length: u64| [format!("--offset={offset}"), format!("--length={length}")];
    // Each at a place of its own, none of them on the 4096-byte sectors of the encryption.
    for (program, options, offset, length) in [
        ("fallocate", &["--punch-hole"][..], MIB + 512, 64 * 1024),
        ("fallocate", &["--zero-range"], 2 * MIB + 1024, 32 * 1024 + 512),
        ("blkdiscard", &["--force"], 3 * MIB + 512, 128 * 1024),
        ("blkdiscard", &["--force", "--zeroout"], 4 * MIB + 1536, 64 * 1024 + 512),
    ] {
        succeed(tool(program).args(options).args(range(offset, length)).arg(&device));
        let from = usize::try_from(offset).unwrap();
        wanted[from..][..usize::try_from(length).unwrap()].fill(0);
    }
    for (sector, seed) in [(1, 1), (10_000, 2), (10_007, 3), (16_383, 4)] {
        let bytes = pattern(seed, 512);
        let input = desk.home().scratch().join("half");
        fs::write(&input, &bytes).unwrap();
        let mut dd = tool("dd");
        dd.arg(format!("if={}", input.display())).arg(format!("of={device}")).arg(format!("seek={sector}"));
        succeed(dd.args(["bs=512", "count=1", "oflag=direct", "conv=notrunc,fsync", "status=none"]));
        wanted[sector * 512..][..512].copy_from_slice(&bytes);
    }
    let differs = |found: &[u8]| found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
    let mut found = vec![0; wanted.len()];
    File::open(&device).unwrap().read_exact(&mut found).unwrap();
    assert_eq!(differs(&found), None, "through the device");
    let uri = desk.scene.uri();
    let copy = desk.home().scratch().join("copy");
    succeed(tool("nbdcopy").arg(&uri).arg(&copy));
    found = fs::read(&copy).unwrap();
    assert_eq!(differs(&found), None, "through the NBD socket, which is served as well");
    assert!(found[wanted.len()..].iter().all(|byte| *byte == 0));
    assert!(desk.detach(&[]).0);
    let read = desk.home().run(["volume", "read", &desk.scene.volume, "--length", "8M"]);
    assert_eq!(differs(&read.stdout), None, "from the file");
}

/// What the exporter's control socket says.
fn status(desk: &Desk) -> Value {
    let socket = desk.home().path().join(format!("run/{}.ctl", desk.scene.volume));
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"{\"Command\":\"Status\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str::<Value>(&line).unwrap()["Status"].clone()
}

#[test]
fn a_sync_of_the_device_flushes_the_volume() {
    let desk = Desk::new();
    let device = desk.attach();
    let flushes = || status(&desk)["Statistics"]["Flushes"].as_u64().unwrap();
    let file = File::options().write(true).open(&device).unwrap();
    let mut last = flushes();
    for round in 0..5_u64 {
        file.write_all_at(&pattern(9, 4096), round * 4096).unwrap();
        file.sync_data().unwrap();
        let now = flushes();
        assert!(now > last, "round {round}: {now} flushes");
        last = now;
    }
    drop(file);
}

#[test]
fn a_device_in_use_is_not_detached() {
    let desk = Desk::new();
    let device = desk.attach();
    succeed(tool("mkfs.ext4").arg("-q").arg(&device));
    let at = desk.mount(&device);
    let (ended, said) = desk.detach(&[]);
    assert!(!ended && said.contains("(IncorrectState) when calling the DetachVolume operation"), "{said}");
    assert!(said.contains(&format!("{device} is in use: mounted on {}", at.display())), "{said}");
    assert!(said.contains("--force"), "{said}");
    // It goes on as before.
    assert_eq!(desk.attachment()["State"], "attached");
    fs::write(at.join("file"), "still there").unwrap();
    desk.unmount();

    let mut holder = Command::new("sleep").arg("60").stdin(File::open(&device).unwrap()).spawn().unwrap();
    let (ended, said) = desk.detach(&[]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(!ended && said.contains("open in sleep"), "{said}");
    let (ended, said) = desk.detach(&[]);
    assert!(ended, "{said}");
    assert_eq!((desk.left(), desk.home().processes().len()), (Vec::new(), 0));

    // By force it goes from under its users, and what they had flushed is there.
    let device = desk.attach();
    let at = desk.mount(&device);
    fs::write(at.join("flushed"), "kept").unwrap();
    File::open(at.join("flushed")).unwrap().sync_all().unwrap();
    let (ended, said) = desk.detach(&["--force"]);
    assert!(ended && said.contains("gives I/O errors from now on"), "{said}");
    assert!(desk.home().processes().is_empty());
    let _ = tool("umount").arg(&at).output();
    eventually("its last user is gone, and so is the loop device", || desk.left().is_empty());
    let device = desk.attach();
    let at = desk.mount(&device);
    assert_eq!(fs::read_to_string(at.join("flushed")).unwrap(), "kept");
    desk.unmount();
    succeed(tool("fsck.ext4").args(["-f", "-n"]).arg(&device));
}

#[test]
fn an_exporter_killed_under_a_mount_leaves_errors_and_no_stuck_process() {
    let desk = Desk::new();
    let device = desk.attach();
    succeed(tool("mkfs.ext4").arg("-q").arg(&device));
    let at = desk.mount(&device);
    let kept = pattern(3, 3_000_000);
    fs::write(at.join("kept"), &kept).unwrap();
    File::open(at.join("kept")).unwrap().sync_all().unwrap();
    let mut writer = tool("dd");
    writer.args(["if=/dev/urandom", "bs=64k", "oflag=dsync", "count=100000", "status=none"]);
    let mut writer = writer.arg(format!("of={}", at.join("more").display())).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let [exporter] = desk.home().processes()[..] else { panic!("one exporter") };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(exporter), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the writer has its error", || writer.try_wait().unwrap().is_some());
    assert!(!writer.wait().unwrap().success());
    assert!(File::open(&device).unwrap().read_exact(&mut vec![0; 1 << 20]).is_err(), "the device gives errors");

    // Whoever looks is told, and nothing is taken away from under the mount.
    let told = both(&desk.home().run(["ec2", "describe-volumes"]));
    assert!(told.contains("\"busy\"") && told.contains(&format!("mounted on {}", at.display())), "{told}");
    assert_eq!(desk.attachment()["KernelDevice"], device.as_str());
    let (ended, said) = desk.detach(&[]);
    assert!(!ended && said.contains("(IncorrectState)"), "{said}");
    let (ended, said) = desk.detach(&["--force"]);
    assert!(ended, "{said}");
    let _ = tool("umount").arg(&at).output();
    eventually("nothing is left", || desk.left().is_empty());

    let device = desk.attach();
    let at = desk.mount(&device);
    assert!(fs::read(at.join("kept")).unwrap() == kept, "what was flushed is there");
    desk.unmount();
    succeed(tool("fsck.ext4").args(["-f", "-n"]).arg(&device));
}

#[test]
fn a_killed_exporter_of_an_unused_device_is_cleared_away_by_the_next_command() {
    let desk = Desk::new();
    desk.attach();
    for pid in desk.home().processes() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    eventually("the exporter is gone", || desk.home().processes().is_empty());
    assert!(!desk.left().is_empty());
    let told = both(&desk.home().run(["ec2", "describe-volumes"]));
    assert!(told.contains("\"available\""), "{told}");
    assert_eq!(desk.left(), [] as [String; 0]);
    desk.attach();
    // A polite end takes its device along.
    for pid in desk.home().processes() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    }
    eventually("the exporter and its device are gone", || desk.home().processes().is_empty() && desk.left().is_empty());
}

#[test]
fn commands_killed_at_any_time_leave_no_loop_device_and_no_mount() {
    let desk = Desk::new();
    let rounds = if full() { 100 } else { 12 };
    let attach =
        || desk.home().command(["ec2", "attach-volume", "--attach-as", "fuse-loop", "--volume-id", &desk.scene.volume]);
    let detach = || desk.home().command(["ec2", "detach-volume", "--volume-id", &desk.scene.volume]);
    let began = Instant::now();
    succeed(&mut attach());
    let attaching = began.elapsed();
    let began = Instant::now();
    succeed(&mut detach());
    let detaching = began.elapsed();
    for round in 0..rounds {
        for (mut command, whole) in [(attach(), attaching), (detach(), detaching)] {
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(whole * round / rounds);
            child.kill().unwrap();
            child.wait().unwrap();
        }
        eventually(&format!("round {round}: the volume is attached with its device, or free of everything"), || {
            let attachment = desk.attachment();
            let (processes, left) = (desk.home().processes().len(), desk.left());
            match attachment["State"].as_str() {
                None => processes == 0 && left.is_empty(),
                Some("attached") => processes == 1,
                Some(_) => false,
            }
        });
        if !desk.attachment().is_null() {
            let (ended, said) = desk.detach(&[]);
            assert!(ended, "round {round}: {said}");
        }
        assert_eq!(desk.left(), [] as [String; 0], "round {round}");
    }
}

#[test]
fn nobody_but_root_sees_the_served_file() {
    let desk = Desk::new();
    let device = desk.attach();
    let sysfs = Path::new("/sys/block").join(device.trim_start_matches("/dev/"));
    let file = fs::read_to_string(sysfs.join("loop/backing_file")).unwrap();
    let file = file.trim();
    assert!(file.starts_with("/run/blockseal/") && file.ends_with(&desk.scene.volume), "{file}");
    assert_eq!(fs::read_to_string(sysfs.join("loop/dio")).unwrap().trim(), "1", "direct I/O");
    let as_nobody = |command: &[&str]| {
        let mut nobody = tool("setpriv");
        nobody.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]).args(command);
        both(&nobody.stdin(Stdio::null()).output().unwrap())
    };
    for path in [file, "/run/blockseal", &device] {
        let said = as_nobody(&["head", "-c", "1", path]);
        assert!(said.contains("Permission denied") || said.contains("Is a directory"), "{path}: {said}");
    }
    assert!(as_nobody(&["ls", "/run/blockseal"]).contains("Permission denied"));
    let inside = fs::read_dir(desk.home().path().join("run")).unwrap();
    assert!(inside.flatten().all(|entry| !entry.file_type().unwrap().is_dir()), "nothing is mounted in the home");
}

#[test]
fn an_unknown_way_to_attach_is_refused() {
    let scene = Scene::new();
    let refused = ["ec2", "attach-volume", "--volume-id", &scene.volume, "--cli-input-json", "{\"AttachAs\":\"ublk\"}"];
    let said = scene.home.refused(254, &refused);
    assert!(said.contains("InvalidParameterValue"), "{said}");
    let answer = scene.home.json(&format!("ec2 attach-volume --attach-as auto --volume-id {}", scene.volume));
    assert!(answer["KernelDevice"].is_null() && answer["NbdUri"].is_string());
}

/// A database is made, used, stopped, detached and found again, and none of its text is in the file; on a volume without
/// encryption the same search finds it.
#[test]
fn a_database_comes_back_whole_and_its_text_is_not_on_the_disk() {
    let home = Home::fast();
    let output = home.run(["demo", "--postgres"]);
    let said = both(&output);
    assert!(output.status.success(), "{said}");
    for words in ["tps = ", "0 hits in the file", "(IncorrectState)", "all good", "every account as it was"] {
        assert!(said.contains(words), "no '{words}' in:\n{said}");
    }
    assert!(!said.contains("FAILED"));
    assert_eq!(fs::read_dir(home.scratch()).unwrap().count(), 0);

    let volume = home.json("ec2 create-volume --size 1")["VolumeId"].as_str().unwrap().to_owned();
    let plain = Desk { scene: Scene { home, cmk: String::new(), volume } };
    let device = plain.attach();
    let file = File::options().write(true).open(&device).unwrap();
    file.write_all_at(b"CARDNUMBER-4711", 1 << 20).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let raw = plain.home().path().join(format!("volumes/{}.raw", plain.scene.volume));
    assert_eq!(succeed(tool("grep").arg("-c").arg("CARDNUMBER-").arg(raw)).trim_ascii(), b"1");
}
