//! What a process's core dump shows of a key after runs: a process of its own is dumped with `gcore` and searched.
//!
//! The thread that did the runs spins without touching a vector register or its stack, so what the runs left there is in the
//! dump. Searched for are all round keys of both schedules: any two neighbouring ones give the key.

use std::env;
use std::hint;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use memchr::memmem;

use super::*;

/// The twin's switch: runs leave their traces.
pub(super) static WIPING_OFF: AtomicBool = AtomicBool::new(false);

/// The same for the registers that the kernel saved when a signal interrupted a run.
pub(super) static FRAME_WIPING_OFF: AtomicBool = AtomicBool::new(false);

const ENGINE: &str = "BLOCKSEAL_TEST_TRACES_ENGINE";
const WIPING: &str = "BLOCKSEAL_TEST_TRACES_WIPING";

/// A key that is nowhere in the program's text or data, one byte at a time.
fn fill_key(key: &mut [u8]) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for byte in key {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[3];
    }
}

/// The child of the test below; without its variable it has nothing to do.
#[test]
fn child_of_core_dumps_hold_no_round_key() {
    let Some(cipher) = childs_cipher() else { return };
    work_and_wait(|| {
        let mut data = vec![0x11; 100 * 512];
        cipher.encrypt_in_place(SectorSize::B512, UnitIndex(5), &mut data).unwrap();
        cipher.decrypt_in_place(SectorSize::B4096, UnitIndex(5), &mut data).unwrap();
        cipher.encrypt_data_unit([1; BLOCK_BYTES], &[0; 77], &mut data[..77]).unwrap();
        cipher.encrypt_in_place(SectorSize::B4096, UnitIndex(5), &mut data).unwrap();
    });
}

/// In a child: the cipher that its parent asks for, with the wiping that it asks for.
pub(crate) fn childs_cipher() -> Option<XtsCipher> {
    let engine = env::var(ENGINE).ok()?;
    let wiping = env::var(WIPING).unwrap();
    WIPING_OFF.store(wiping == "off", Ordering::Relaxed);
    FRAME_WIPING_OFF.store(wiping == "frames off", Ordering::Relaxed);
    let key = SecretBytes::new_with(64, fill_key);
    Some(XtsCipher::new(&key, EngineChoice::Forced(engine.parse().unwrap())).unwrap())
}

/// In a child: does `work` on a thread that touches nothing afterwards, and is there to be dumped until the parent says so.
pub(crate) fn work_and_wait(work: impl FnOnce() + Send) {
    let (done, leave) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            work();
            done.store(true, Ordering::Release);
            while !leave.load(Ordering::Acquire) {
                hint::spin_loop();
            }
        });
        while !done.load(Ordering::Acquire) {
            thread::yield_now();
        }
        io::stdout().write_all(b"READY\n").unwrap();
        io::stdout().flush().unwrap();
        let _ = io::stdin().read(&mut [0]);
        leave.store(true, Ordering::Release);
    });
}

/// How many of the 30 round keys stand somewhere in a core dump of the process in which the test `child` used `engine`.
pub(crate) fn round_keys_in_core_dump(child: &str, engine: EngineKind, wiping: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", child, "--nocapture"])
        .env(ENGINE, engine.name())
        .env(WIPING, wiping)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    let stdout = child.stdout.as_mut().unwrap();
    while !seen.ends_with(b"READY\n") {
        let mut byte = [0];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "the child ended: {}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    let prefix = folder.path().join("core");
    let gcore = Command::new("gcore").arg("-o").arg(&prefix).arg(child.id().to_string()).output();
    let file = folder.path().join(format!("core.{}", child.id()));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let gcore = gcore.expect("gcore runs (package gdb)");
    let core = fs::read(file).unwrap_or_else(|error| panic!("no core dump: {error}\n{gcore:?}"));

    let mut key = [0; 64];
    fill_key(&mut key);
    let needles = [round_keys(&key[..32]), round_keys(&key[32..])].concat();
    needles.iter().filter(|needle| memmem::find(&core, *needle).is_some()).count()
}

#[test]
fn core_dumps_hold_no_round_key() {
    let child = "xts::traces::child_of_core_dumps_hold_no_round_key";
    for engine in EngineKind::available() {
        assert_eq!(round_keys_in_core_dump(child, engine, "on"), 0, "{engine}");
        let left = round_keys_in_core_dump(child, engine, "off");
        // The twin. The reference takes round keys straight from memory, one block at a time, and leaves none anywhere.
        assert!(left > 0 || engine == EngineKind::Reference, "{engine} without wiping leaves nothing to find");
    }
}

/// The fifteen round keys of AES-256 (FIPS 197 section 5.2). The S-box is computed, not typed.
fn round_keys(key: &[u8]) -> Vec<[u8; 16]> {
    let multiply = |mut a: u8, mut b: u8| {
        let mut product = 0;
        while b != 0 {
            product ^= if b & 1 == 1 { a } else { 0 };
            a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1b };
            b >>= 1;
        }
        product
    };
    let substitute = |byte: u8| {
        let inverse = (0..=255).find(|other| multiply(byte, *other) == 1).unwrap_or(0);
        (0..5).fold(0x63, |sum, turn| sum ^ inverse.rotate_left(turn))
    };
    let mut words: Vec<[u8; 4]> = key.chunks(4).map(|word| word.try_into().unwrap()).collect();
    let mut constant = 1;
    for index in 8..60 {
        let mut word = words[index - 1];
        if index % 8 == 0 {
            word.rotate_left(1);
        }
        if index % 4 == 0 {
            word = word.map(substitute);
        }
        if index % 8 == 0 {
            word[0] ^= constant;
            constant = multiply(constant, 2);
        }
        words.push(std::array::from_fn(|byte| word[byte] ^ words[index - 8][byte]));
    }
    words.chunks(4).map(|round| round.concat().try_into().unwrap()).collect()
}

/// The needles of the search are the real schedule: FIPS 197 appendix A.3's last round key.
#[test]
fn the_searched_round_keys_are_the_standards() {
    let key = hex::decode("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
    assert_eq!(hex::encode(round_keys(&key)[14]), "fe4890d1e6188d0b046df344706c631e");
}
