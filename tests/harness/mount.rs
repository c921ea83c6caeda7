//! Small file systems on loop devices: a full disk, a file system with its own limits, a read-only one.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{succeed, tool};

/// A file system in an image file, mounted through a loop device until it is dropped.
pub struct SmallFs {
    folder: TempDir,
}

impl SmallFs {
    /// An ext4 of so many MiB, without reserved blocks.
    pub fn ext4(mib: u64) -> Self {
        Self::make(mib, &["mkfs.ext4", "-q", "-F", "-m", "0"])
    }

    /// An xfs of so many MiB; mkfs.xfs takes nothing below 300.
    pub fn xfs(mib: u64) -> Self {
        Self::make(mib, &["mkfs.xfs", "-q", "-f"])
    }

    fn make(mib: u64, mkfs: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("blockseal-fs-").tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        succeed(tool(mkfs[0]).args(&mkfs[1..]).arg(&image));
        let made = Self { folder };
        std::fs::create_dir(made.path()).unwrap();
        // mount makes the loop device itself and marks it to go away with the mount.
        succeed(tool("mount").args(["-o", "loop"]).arg(&image).arg(made.path()));
        made
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// Makes it read-only, as a kernel does after an error.
    pub fn make_read_only(&self) {
        succeed(tool("mount").args(["-o", "remount,ro"]).arg(self.path()));
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        // A test that failed may have left a process in there; a lazy unmount ends with it.
        let _ = tool("umount").arg("--lazy").arg(self.path()).output();
    }
}

/// Bytes that a file really takes on its disk.
pub fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn a_small_file_system_fills_up_and_goes_away() {
    for made in [SmallFs::ext4(8), SmallFs::xfs(300)] {
        let file = made.path().join("file");
        let error = std::fs::write(&file, vec![1; 400 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(allocated(&file) > 1 << 20);
        made.make_read_only();
        assert_eq!(std::fs::remove_file(&file).unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let path = made.path();
        drop(made);
        assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains(path.to_str().unwrap()));
    }
}
