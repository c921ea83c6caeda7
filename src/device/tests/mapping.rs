//! Windows that come and go, files that are cut short under a mapping, and the last resort.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use memmap2::MmapOptions;

use super::{device_on, pattern};
use crate::device::mapping::{WindowOptions, Windows};
use crate::device::protections::Protections;
use crate::device::storage::{FileOptions, Latched, MappedFile, Storage as _};
use crate::device::{BlockDevice as _, DeviceErrorKind};
use crate::units::{ByteRange, SectorSize, UnitIndex, is_all_zero};
use crate::xts::{EngineKind, traces};

const WINDOW_LENGTH: usize = 64 * 1024;
const WINDOW: u64 = WINDOW_LENGTH as u64;

/// A file of `windows` windows, each filled with its number and one.
fn numbered_file(windows: u8) -> File {
    let file = tempfile::tempfile().unwrap();
    for window in 0..windows {
        file.write_all_at(&vec![window + 1; WINDOW_LENGTH], u64::from(window) * WINDOW).unwrap();
    }
    file
}

fn storage(file: &File, budget: usize, protections: Protections) -> MappedFile {
    let options = FileOptions::default().windows(WINDOW, budget);
    MappedFile::with(file.try_clone().unwrap(), options, protections).unwrap()
}

#[test]
fn windows_above_the_budget_are_dropped_and_come_back() {
    let file = numbered_file(20);
    let storage = storage(&file, 3, Protections::ON);
    assert_eq!(storage.mapped_windows(), 0, "made at first touch");
    for round in 0..2 {
        for window in 0..20u8 {
            let mut byte = [0];
            storage.read(u64::from(window) * WINDOW + 77, &mut byte).unwrap();
            assert_eq!(byte, [window + 1]);
            assert!(storage.mapped_windows() <= 3, "round {round}");
        }
    }
    let mut whole = vec![0; 20 * WINDOW_LENGTH];
    storage.read(0, &mut whole).unwrap();
    assert!(whole.chunks(WINDOW_LENGTH).zip(1..).all(|(bytes, number)| bytes.iter().all(|byte| *byte == number)));
}

#[test]
fn a_window_that_is_looked_through_stays() {
    let file = numbered_file(8);
    let storage = storage(&file, 1, Protections::ON);
    storage
        .view(ByteRange { start: 0, end: 4096 }, &mut |first| {
            for window in 1..8u8 {
                let mut byte = [0];
                storage.read(u64::from(window) * WINDOW, &mut byte).unwrap();
                assert_eq!(byte, [window + 1]);
            }
            assert!(first.iter().all(|byte| *byte == 1), "still mapped, although the budget is one window");
        })
        .unwrap();
    storage.read(3 * WINDOW, &mut [0]).unwrap();
    assert_eq!(storage.mapped_windows(), 1, "nobody looks through the others any more");
}

#[test]
fn a_file_grows_into_its_windows() {
    let file = numbered_file(1);
    let storage = storage(&file, 4, Protections::ON);
    storage.read(0, &mut [0]).unwrap();
    storage.grow(3 * WINDOW + 4096).unwrap();
    storage.write(3 * WINDOW, &[9; 4096]).unwrap();
    let mut bytes = vec![0; 4096];
    storage.read(3 * WINDOW, &mut bytes).unwrap();
    assert_eq!(bytes, [9; 4096]);
    storage.read(WINDOW, &mut bytes).unwrap();
    assert!(is_all_zero(&bytes));
    assert!(storage.read(3 * WINDOW + 1, &mut bytes).is_err());
}

/// An encrypted device on a file that somebody cuts short to half its length after it was read once.
#[test]
fn a_file_cut_short_while_attached_is_an_error_and_stays_one() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(8 * WINDOW).unwrap();
    let device = device_on(Latched::new(storage(&file, 8, Protections::ON), None), SectorSize::B4096, Protections::ON);
    device.write_at(0, &pattern(1, 8 * WINDOW_LENGTH)).unwrap();
    device.flush().unwrap();
    let mut bytes = vec![0; 4096];
    device.read_at(6 * WINDOW, &mut bytes).unwrap();
    file.set_len(4 * WINDOW).unwrap();
    let error = device.read_at(6 * WINDOW, &mut bytes).unwrap_err();
    assert_eq!(error.kind(), DeviceErrorKind::Io, "{error}");
    // What is still there is not served either: nobody knows what else was changed.
    assert_eq!(device.read_at(0, &mut bytes).unwrap_err().kind(), DeviceErrorKind::Io);
    assert_eq!(device.write_at(0, &bytes).unwrap_err().kind(), DeviceErrorKind::Io);
    assert_eq!(device.trim(0, 4096).unwrap_err().kind(), DeviceErrorKind::Io);
    assert_eq!(device.flush().unwrap_err().kind(), DeviceErrorKind::Io);
    assert_eq!(file.metadata().unwrap().len(), 4 * WINDOW, "and nothing made it long again");
}

/// Without looking at the length, a write behind the new end makes the file long again, and what was lost in between
/// reads as never written.
#[test]
fn a_write_to_a_file_cut_short_is_refused() {
    let lost = |protections: Protections| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * WINDOW).unwrap();
        let device = device_on(storage(&file, 8, protections), SectorSize::B4096, protections);
        device.write_at(0, &pattern(1, 8 * WINDOW_LENGTH)).unwrap();
        file.set_len(2 * WINDOW).unwrap();
        device.write_at(7 * WINDOW, &pattern(2, 4096)).ok()?;
        let mut bytes = vec![1; 4096];
        device.read_at(4 * WINDOW, &mut bytes).ok()?;
        Some(is_all_zero(&bytes))
    };
    assert_eq!(lost(Protections::ON), None);
    assert_eq!(lost(Protections { length_check: false, ..Protections::ON }), Some(true));
}

/// Loads that were not populated first reach the handler. Its page is zeros, and zeros read as never written: only the
/// flag stands between that and the client.
#[test]
fn a_substituted_page_is_never_served() {
    let read_after_cut = |protections: Protections| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * WINDOW).unwrap();
        let device = device_on(storage(&file, 8, protections), SectorSize::B4096, protections);
        device.write_at(0, &pattern(1, 8 * WINDOW_LENGTH)).unwrap();
        file.set_len(2 * WINDOW).unwrap();
        let mut bytes = vec![1; 4096];
        device.read_at(4 * WINDOW, &mut bytes).map(|()| bytes)
    };
    let no_populate = Protections { populate: false, ..Protections::ON };
    assert_eq!(read_after_cut(no_populate).unwrap_err().kind(), DeviceErrorKind::Io);
    let twin = read_after_cut(Protections { fault_flag: false, ..no_populate }).unwrap();
    assert!(is_all_zero(&twin), "written bytes read as zeros, and nobody was told");
}

/// The child of the test below; without its variable it has nothing to do.
#[test]
fn child_of_a_fault_in_a_decryption() {
    let Some(cipher) = traces::childs_cipher() else { return };
    let file = numbered_file(1);
    let windows = Windows::new(WindowOptions { bytes: WINDOW, budget: 1 }, Protections::ON);
    traces::work_and_wait(|| {
        let whole = ByteRange { start: 0, end: WINDOW };
        let seen = windows.view(&file, whole, &mut |ciphertext| {
            file.set_len(4096).unwrap();
            cipher.decrypt(SectorSize::B4096, UnitIndex(0), ciphertext, &mut vec![0; ciphertext.len()]).unwrap();
        });
        assert!(seen.is_err(), "the page was missed");
    });
}

/// The kernel saves the registers of the interrupted decryption, and with them round keys, in memory that a dump holds.
#[test]
fn a_fault_in_a_decryption_leaves_no_round_key() {
    let child = "device::tests::mapping::child_of_a_fault_in_a_decryption";
    for engine in EngineKind::available() {
        assert_eq!(traces::round_keys_in_core_dump(child, engine, "on"), 0, "{engine}");
        let left = traces::round_keys_in_core_dump(child, engine, "frames off");
        // The twin. Code that a compiler made loads the ciphertext before it loads round keys.
        let compiled = matches!(engine, EngineKind::Reference | EngineKind::Portable);
        assert!(left > 0 || compiled, "{engine} without wiping leaves nothing to find");
    }
}

/// Long reads are decrypted by a pool: the handler answers whichever thread faults, and the reader hears of it.
#[test]
fn a_fault_in_a_pool_thread_is_heard_by_the_reader() {
    let protections = Protections { populate: false, ..Protections::ON };
    let file = tempfile::tempfile().unwrap();
    let length = 8u64 << 20;
    file.set_len(length).unwrap();
    let device = device_on(storage(&file, 200, protections), SectorSize::B4096, protections);
    device.write_at(0, &pattern(1, 8 << 20)).unwrap();
    file.set_len(length / 2 + 8192).unwrap();
    let mut bytes = vec![0; 8 << 20];
    assert_eq!(device.read_at(0, &mut bytes).unwrap_err().kind(), DeviceErrorKind::Io);
}

/// More windows than one chunk of the handler's list has, of two files: the fault is booked to the file that has it.
#[test]
fn the_handler_finds_the_right_device_among_many_windows() {
    let protections = Protections { populate: false, length_check: false, ..Protections::ON };
    let (file, other_file) = (numbered_file(150), numbered_file(150));
    let (device, other) = (storage(&file, 300, protections), storage(&other_file, 300, protections));
    let mut byte = [0];
    for window in 0..150 {
        device.read(window * WINDOW, &mut byte).unwrap();
        other.read(window * WINDOW, &mut byte).unwrap();
    }
    assert!(device.mapped_windows() + other.mapped_windows() > 2 * 64);
    file.set_len(149 * WINDOW).unwrap();
    assert!(device.read(149 * WINDOW + 4096, &mut byte).is_err());
    assert!(device.read(0, &mut byte).is_err());
    other.read(149 * WINDOW + 4096, &mut byte).unwrap();
    assert_eq!(byte, [150]);
}

const CHILD: &str = "BLOCKSEAL_TEST_SIGBUS_CHILD";

/// Runs one of the tests below in a process of its own, because it is to die.
fn run_child(what: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "device::tests::mapping::child", "--nocapture"]).env(CHILD, what);
    command.output().unwrap()
}

/// Loads from a mapping that is not ours and that has no page there.
fn fault_elsewhere() -> u8 {
    let file = tempfile::tempfile().unwrap();
    file.set_len(8192).unwrap();
    let map = MmapOptions::new().len(8192).map_raw_read_only(&file).unwrap();
    file.set_len(0).unwrap();
    foreign::load(&map)
}

/// The body of the children; does nothing in an ordinary run.
#[test]
fn child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let file = numbered_file(2);
    let install = || storage(&file, 2, Protections::ON).read(0, &mut [0]).unwrap();
    match what.as_str() {
        "fault elsewhere" => {
            install();
            println!("survived with {}", fault_elsewhere());
        }
        "handler before ours" => {
            foreign::install_exit_42();
            install();
            println!("survived with {}", fault_elsewhere());
        }
        "kill" | "kill without us" => {
            if what == "kill" {
                install();
            }
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).unwrap();
            println!("survived");
        }
        other => panic!("no child is called {other}"),
    }
}

/// Also what a cut file does to a program that maps it without populating, handler and flag.
#[test]
fn a_fault_that_is_not_ours_kills_as_ever() {
    let output = run_child("fault elsewhere");
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
}

/// Where kill(2) has a process id an address would stand in a fault: it must not be taken for one.
#[test]
fn a_signal_that_is_no_fault_does_what_it_does_without_us() {
    assert_eq!(run_child("kill").status, run_child("kill without us").status);
}

#[test]
fn a_handler_that_was_there_before_gets_what_is_not_ours() {
    let output = run_child("handler before ours");
    assert_eq!(output.status.code(), Some(42), "{output:?}");
}

/// The raw loads and handlers that only these tests need.
mod foreign {
    #![expect(unsafe_code, reason = "faults on purpose, in a process of its own")]

    use std::mem::MaybeUninit;

    use memmap2::MmapRaw;

    pub(super) fn load(map: &MmapRaw) -> u8 {
        // SAFETY: the address is mapped; that the load raises SIGBUS is what the test is about.
        unsafe { map.as_ptr().add(4096).read_volatile() }
    }

    pub(super) fn install_exit_42() {
        extern "C" fn exit_42(_signal: libc::c_int) {
            // SAFETY: `_exit` is async-signal-safe.
            unsafe { libc::_exit(42) }
        }
        // SAFETY: all zeros is a valid `sigaction`, and the handler has the type that goes without SA_SIGINFO.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            let handler: extern "C" fn(libc::c_int) = exit_42;
            action.sa_sigaction = handler as usize;
            assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
        }
    }
}
