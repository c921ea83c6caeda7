//! A disk whose power goes at a moment that a unit test chooses: what a file system has on it then, and no more.
//!
//! The file system lies in an image behind a loop device. Whatever its kernel has not written to the device is not in the
//! image, so a copy of the image is the disk as a power cut at that moment leaves it; mounting the copy replays the journal
//! as a boot does. Needs root, loop devices, and the packages e2fsprogs, mount and coreutils.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// A mounted ext4.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// One of `mib` MiB, which writes by itself no sooner than in five minutes.
    pub(crate) fn ext4(mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-m".as_ref(), "0".as_ref(), image.as_os_str()]);
        Self::mounted(folder)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Makes everything so far durable, so that the test sees what comes after it alone.
    pub(crate) fn settle(&self) {
        run("sync", &["-f".as_ref(), self.path().as_os_str()]);
    }

    /// The disk as it is after its power went now and came back.
    pub(crate) fn after_a_cut(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(self.folder.path().join("image"), folder.path().join("image")).unwrap();
        Self::mounted(folder)
    }

    fn mounted(folder: tempfile::TempDir) -> Self {
        let made = Self { folder };
        std::fs::create_dir(made.path()).unwrap();
        let image = made.folder.path().join("image");
        let options = "loop,commit=300";
        run("mount", &["-o".as_ref(), options.as_ref(), image.as_os_str(), made.path().as_os_str()]);
        made
    }
}

/// Asserts that `attack` comes to `wanted` in one of five tries. The disk loses what nobody synced, unless somebody on this
/// machine syncs all disks at that moment (sync(2)), which no test can forbid.
#[track_caller]
pub(crate) fn comes_to<T: PartialEq + std::fmt::Debug>(wanted: &T, attack: impl Fn() -> T) {
    let mut found = attack();
    for _ in 1..5 {
        if found == *wanted {
            return;
        }
        found = attack();
    }
    assert_eq!(found, *wanted);
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is still open in it is a failed test's, and goes with its process.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn run(program: &str, arguments: &[&OsStr]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; this test needs it installed"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The shim itself: what was not synced is lost, what was is there.
#[test]
fn a_power_cut_keeps_what_was_synced_and_nothing_else() {
    let disk = Disk::ext4(64);
    let write = |name: &str| {
        let path = disk.path().join(name);
        std::fs::write(&path, name).unwrap();
        std::fs::File::open(&path).unwrap()
    };
    write("kept").sync_all().unwrap();
    let after = disk.after_a_cut();
    assert_eq!(std::fs::read_to_string(after.path().join("kept")).unwrap(), "kept");
    comes_to(&false, || {
        let _ = std::fs::remove_file(disk.path().join("lost"));
        disk.settle();
        write("lost");
        disk.after_a_cut().path().join("lost").exists()
    });
}
