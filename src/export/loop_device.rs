//! Loop devices, as the helper process of a kernel device makes and frees them (loop(4)).
//!
//! The ioctls run in a process of their own because they open the file that an exporter serves: the exporter would wait
//! for itself.
#![expect(unsafe_code, reason = "ioctl(2) and prctl(2) have no safe wrapper for these requests")]

use std::ffi::c_ulong;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

// linux/loop.h and linux/prctl.h, which the crate libc does not have.
const LOOP_CLR_FD: c_ulong = 0x4C01;
const LOOP_SET_CAPACITY: c_ulong = 0x4C07;
const LOOP_CONFIGURE: c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// How often another process may take the free device that the kernel named.
const TRIES: u32 = 64;

/// Puts a loop device with 512-byte sectors and direct I/O on `file`, which knows its own size.
pub(super) fn configure(file: &Path, read_only: bool) -> io::Result<PathBuf> {
    let backing = OpenOptions::new().read(true).write(!read_only).open(file)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    for _ in 0..TRIES {
        let number = request(&control, LOOP_CTL_GET_FREE, 0)?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(!read_only).open(&path)?;
        let flags = LO_FLAGS_DIRECT_IO | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
        match set(&device, &config_of(fd, flags, file)) {
            Ok(()) => return Ok(path),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "every free loop device was taken by another process"))
}

/// Frees the device. With `exclusive` it is refused (`EBUSY`) while a file system, a mapping or swap is on it; without, the
/// kernel frees it when its last user lets go. `still_ours` is asked again once the device is open.
pub(super) fn clear(device: &Path, exclusive: bool, still_ours: impl Fn() -> bool) -> io::Result<()> {
    let flags = if exclusive { libc::O_EXCL } else { 0 };
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(device)?;
    if !still_ours() {
        return Ok(());
    }
    match request(&opened, LOOP_CLR_FD, 0) {
        // Freed by somebody else meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Makes the device as long as its file is.
pub(super) fn resize(device: &Path) -> io::Result<()> {
    let opened = OpenOptions::new().read(true).open(device)?;
    request(&opened, LOOP_SET_CAPACITY, 0).map(drop)
}

/// Says that this process, and every thread that it starts from now on, writes for a block device of this machine: memory
/// that it needs is not looked for by writing to that very device (prctl(2), `PR_SET_IO_FLUSHER`, `CAP_SYS_RESOURCE`).
pub(super) fn become_io_flusher() -> io::Result<()> {
    // SAFETY: this request reads its integer arguments alone and touches no memory of the process.
    let answer = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn config_of(fd: u32, flags: u32, file: &Path) -> LoopConfig {
    let mut file_name = [0; 64];
    let name = file.as_os_str().as_encoded_bytes();
    // The last byte stays zero: it ends the name.
    let kept = name.len().min(file_name.len() - 1);
    file_name[..kept].copy_from_slice(&name[..kept]);
    LoopConfig {
        fd,
        block_size: 512,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    }
}

fn set(device: &File, config: &LoopConfig) -> io::Result<()> {
    let fd: RawFd = device.as_raw_fd();
    // SAFETY: the descriptor is open while `device` is borrowed; LOOP_CONFIGURE reads a `struct loop_config`, whose layout
    // `LoopConfig` has (checked in the tests), and keeps no pointer to it.
    let answer = unsafe { libc::ioctl(fd, LOOP_CONFIGURE, std::ptr::from_ref(config)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request that takes an integer.
fn request(file: &File, request: c_ulong, argument: c_ulong) -> io::Result<i32> {
    // SAFETY: the descriptor is open while `file` is borrowed; the requests used here take their argument by value.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!((size_of::<LoopInfo>(), size_of::<LoopConfig>()), (232, 304));
        assert_eq!((offset_of!(LoopInfo, flags), offset_of!(LoopInfo, file_name)), (52, 56));
        assert_eq!((offset_of!(LoopConfig, info), offset_of!(LoopConfig, reserved)), (8, 240));
    }

    #[test]
    fn a_long_name_is_cut_and_ends_with_a_zero() {
        let config = config_of(3, 0, Path::new(&"x".repeat(100)));
        assert_eq!((config.info.file_name[62], config.info.file_name[63]), (b'x', 0));
    }
}
