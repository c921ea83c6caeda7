//! A volume as one file, served through FUSE: what a loop device is put on.
//!
//! The mount has no folder: its root is the file itself, for root alone. Every read, write, flush and hole goes to the
//! device as an NBD client's would; nothing of the file is in the page cache (direct I/O), so that plaintext is kept in one
//! place less, and what is written is refused or done before it is answered.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    Session, SessionACL, WriteFlags,
};
use nix::mount::{MsFlags, mount};

use crate::device::{BlockDevice, DeviceError, DeviceErrorKind, ZeroMode};
use crate::twin::{self, Protection};

use super::server::Shared;

/// Longest read or write in one request: 256 pages, the most that Linux sends. It bounds what each worker holds.
const MAX_REQUEST: u32 = 1024 * 1024;

/// Threads that take requests. One that waits for a flush must not keep others waiting.
const WORKERS: usize = 4;

/// How many requests the kernel may have under way.
const MAX_BACKGROUND: u16 = 64;

/// How long the kernel may believe what it was told of the file.
const BELIEVED: Duration = Duration::from_secs(1);

/// A served file, until it is unmounted.
pub(super) struct Served(BackgroundSession);

impl Served {
    /// Mounts `device` on `place`, an empty file, and serves it.
    ///
    /// # Errors
    /// If the kernel has no FUSE, or does not let this process mount.
    pub(super) fn start(device: Arc<dyn BlockDevice>, observed: Arc<Shared>, place: &Path) -> io::Result<Self> {
        let connection = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=100600,user_id={},group_id={},default_permissions,max_read={MAX_REQUEST}",
            connection.as_raw_fd(),
            nix::unistd::geteuid(),
            nix::unistd::getegid(),
        );
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
        mount(Some("blockseal"), place, Some("fuse.blockseal"), flags, Some(options.as_str()))?;
        let mut config = Config::default();
        config.acl = SessionACL::Owner;
        config.n_threads = Some(WORKERS);
        let file = ServedFile { device, observed, flushes: !twin::is_off(Protection::ServedFlush) };
        let session = Session::from_fd(file, connection.into(), SessionACL::Owner, config)?;
        Ok(Self(session.spawn()?))
    }

    /// Waits until no worker holds the device any more; the file must be unmounted.
    pub(super) fn join(self) -> io::Result<()> {
        self.0.join()
    }
}

struct ServedFile {
    device: Arc<dyn BlockDevice>,
    observed: Arc<Shared>,
    /// Always true but for a twin: a file whose flush is not answered makes every flush succeed silently.
    flushes: bool,
}

impl ServedFile {
    fn attributes(&self) -> FileAttr {
        let size = self.device.size();
        FileAttr {
            ino: INodeNo(1),
            size,
            blocks: size.div_ceil(512),
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind: FileType::RegularFile,
            perm: if self.device.read_only() { 0o400 } else { 0o600 },
            nlink: 1,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Carries a request out, counts it, and finds the error number for what went wrong with it.
    fn outcome(&self, attempt: impl FnOnce() -> Result<(), DeviceError>) -> Result<(), Errno> {
        // A panic in a device must not end a worker: without any, whoever uses the device would wait for ever.
        let outcome = catch_unwind(AssertUnwindSafe(attempt))
            .unwrap_or_else(|_| Err(DeviceError::new(DeviceErrorKind::Io, "the device failed in a way that is a bug")));
        self.observed.count_requests(1, u64::from(outcome.is_err()));
        outcome.map_err(|error| {
            self.observed.note_device_error(&error);
            match error.kind() {
                DeviceErrorKind::NoSpace => Errno::ENOSPC,
                DeviceErrorKind::ReadOnly => Errno::EROFS,
                DeviceErrorKind::OutOfRange | DeviceErrorKind::Invalid => Errno::EINVAL,
                _ => Errno::EIO,
            }
        })
    }

    fn flush(&self) -> Result<(), Errno> {
        if !self.flushes {
            return Ok(());
        }
        self.observed.count_flush();
        self.outcome(|| self.device.flush())
    }

    /// What fallocate(2) asks for; a change of the file's length is not to be had.
    fn change_range(&self, offset: u64, length: u64, mode: i32) -> Result<(), Errno> {
        let zeroes = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            libc::FALLOC_FL_PUNCH_HOLE => ZeroMode::MayPunch,
            libc::FALLOC_FL_ZERO_RANGE => ZeroMode::KeepAllocated,
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let length = length.min(self.device.size().saturating_sub(offset));
        if length == 0 {
            return Ok(());
        }
        self.outcome(|| match zeroes {
            ZeroMode::MayPunch => self.device.trim(offset, length),
            ZeroMode::KeepAllocated => self.device.write_zeroes(offset, length, ZeroMode::KeepAllocated),
        })
    }
}

thread_local! {
    /// One worker's buffer for what it reads: at most `MAX_REQUEST` bytes, used again and again.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn answer(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for ServedFile {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |what: &'static str| io::Error::new(io::ErrorKind::Unsupported, what);
        config.set_max_write(MAX_REQUEST).map_err(|_| refused("the kernel takes no writes of 1 MiB"))?;
        config.set_max_background(MAX_BACKGROUND).map_err(|_| refused("the kernel takes one request at a time"))?;
        // Without it the kernel waits for each request of a queue: slower, and as right.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn getattr(&self, _: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&BELIEVED, &self.attributes());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.device.size().saturating_sub(offset);
        let size = usize::try_from(u64::from(size.min(MAX_REQUEST)).min(left)).unwrap_or_default();
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let into = &mut buffer[..size];
            match self.outcome(|| self.device.read_at(offset, into)) {
                Ok(()) => {
                    self.observed.count_bytes(size as u64, 0);
                    reply.data(into);
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.outcome(|| self.device.write_at(offset, data)) {
            Ok(()) => {
                self.observed.count_bytes(0, data.len() as u64);
                reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
            }
            Err(errno) => reply.error(errno),
        }
    }

    /// close(2), which promises nothing about the disk.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// Without this, FUSE's answer for what is not implemented makes every later flush succeed without being asked.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.flush());
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.change_range(offset, length, mode));
    }

    /// The loop device takes the granularity of its discards from here.
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = self.device.size() / 4096;
        reply.statfs(blocks, 0, 0, 1, 0, 4096, 255, 4096);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;
    use std::process::Command;
    use std::sync::Mutex;

    /// A device in memory whose power can go: what was not flushed is lost.
    struct Volatile {
        now: Mutex<Vec<u8>>,
        durable: Mutex<Vec<u8>>,
    }

    impl Volatile {
        fn new(size: usize) -> Arc<Self> {
            Arc::new(Self { now: Mutex::new(vec![0xEE; size]), durable: Mutex::new(vec![0xEE; size]) })
        }

        fn after_a_cut(&self) -> Vec<u8> {
            self.durable.lock().unwrap().clone()
        }
    }

    /// Where its first byte is written, the device panics.
    const PANICS: u64 = 5 << 19;

    fn range(bytes: &[u8], offset: u64, length: usize) -> Result<std::ops::Range<usize>, DeviceError> {
        let start = usize::try_from(offset).unwrap();
        let refused = || DeviceError::new(DeviceErrorKind::OutOfRange, "past the end");
        (start + length <= bytes.len()).then_some(start..start + length).ok_or_else(refused)
    }

    impl BlockDevice for Volatile {
        fn size(&self) -> u64 {
            self.now.lock().unwrap().len() as u64
        }
        fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
            let now = self.now.lock().unwrap();
            into.copy_from_slice(&now[range(&now, offset, into.len())?]);
            Ok(())
        }
        fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
            assert_ne!(offset, PANICS, "wanted by the test");
            let mut now = self.now.lock().unwrap();
            let range = range(&now, offset, data.len())?;
            now[range].copy_from_slice(data);
            Ok(())
        }
        fn write_zeroes(&self, offset: u64, length: u64, _: ZeroMode) -> Result<(), DeviceError> {
            let mut now = self.now.lock().unwrap();
            let range = range(&now, offset, usize::try_from(length).unwrap())?;
            now[range].fill(0);
            Ok(())
        }
        fn flush(&self) -> Result<(), DeviceError> {
            self.durable.lock().unwrap().clone_from(&self.now.lock().unwrap());
            Ok(())
        }
        fn extents(&self, _: u64, _: u64) -> Result<Vec<crate::device::Extent>, DeviceError> {
            Err(DeviceError::new(DeviceErrorKind::Invalid, "nobody asks"))
        }
    }

    struct Mounted {
        folder: tempfile::TempDir,
        served: Option<Served>,
        observed: Arc<Shared>,
    }

    impl Mounted {
        fn on(device: Arc<dyn BlockDevice>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("file");
            File::create(&place).unwrap();
            let observed = Arc::new(Shared::default());
            let served = Some(Served::start(device, Arc::clone(&observed), &place).unwrap());
            Self { folder, served, observed }
        }

        fn open(&self) -> File {
            File::options().read(true).write(true).open(self.folder.path().join("file")).unwrap()
        }

        fn end(mut self) {
            nix::mount::umount(&self.folder.path().join("file")).unwrap();
            self.served.take().unwrap().join().unwrap();
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            if self.served.is_some() {
                let _ = nix::mount::umount2(&self.folder.path().join("file"), nix::mount::MntFlags::MNT_DETACH);
            }
        }
    }

    #[test]
    fn a_sync_of_the_file_flushes_the_device() {
        let survives = || {
            let device = Volatile::new(1 << 20);
            let mounted = Mounted::on(Arc::clone(&device) as Arc<dyn BlockDevice>);
            let file = mounted.open();
            file.write_all_at(b"acknowledged", 4096).unwrap();
            assert_ne!(device.after_a_cut()[4096..4108], *b"acknowledged", "nobody has flushed yet");
            file.sync_data().unwrap();
            let found = device.after_a_cut()[4096..4108] == *b"acknowledged";
            drop(file);
            mounted.end();
            found
        };
        assert!(survives());
        assert!(!twin::without(Protection::ServedFlush, survives), "the twin's flush says yes and does nothing");
    }

    #[test]
    fn bytes_at_any_place_are_the_devices_and_holes_are_zeros() {
        let device = Volatile::new(3 << 20);
        let mounted = Mounted::on(Arc::clone(&device) as Arc<dyn BlockDevice>);
        let file = mounted.open();
        assert_eq!(file.metadata().unwrap().len(), 3 << 20);
        // Longer than one request, and not at its borders.
        let data: Vec<u8> = (0..2_500_000_u32).map(|index| (index % 251).to_le_bytes()[0]).collect();
        file.write_all_at(&data, 777).unwrap();
        let mut back = vec![0; data.len()];
        file.read_exact_at(&mut back, 777).unwrap();
        assert!(back == data);
        let path = mounted.folder.path().join("file");
        for (option, offset) in [("--punch-hole", 512_u64), ("--zero-range", 8192)] {
            let offset_text = offset.to_string();
            let done = Command::new("fallocate").args([option, "-o", &offset_text, "-l", "1000"]).arg(&path).status();
            assert!(done.unwrap().success(), "{option}");
            let mut back = [1; 1000];
            file.read_exact_at(&mut back, offset).unwrap();
            assert_eq!(back, [0; 1000], "{option}");
        }
        assert!(file.write_at(b"x", 3 << 20).is_err(), "the file does not grow");
        for _ in 0..2 * WORKERS {
            assert!(file.write_at(b"x", PANICS).is_err(), "an error, and every worker goes on");
        }
        assert!(file.set_len(5).is_err());
        assert_eq!(file.read_at(&mut [0; 10], (3 << 20) - 4).unwrap(), 4, "a read ends at the end");
        assert!(mounted.observed.statistics().requests > 4);
        drop(file);
        mounted.end();
        assert!(device.now.lock().unwrap()[777 + 20_000..][..100] == data[20_000..20_100]);
    }
}
