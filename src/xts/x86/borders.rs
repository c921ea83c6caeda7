//! The kernels stay inside their buffers: with unmapped pages right before and behind each, one byte too far is a crash.
#![expect(unsafe_code, reason = "maps pages that nothing may touch")]

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::slice;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::*;

const PAGE: usize = 4096;

/// Pages of memory between two that can't be touched.
struct Guarded {
    start: NonNull<u8>,
    pages: usize,
}

impl Guarded {
    fn new(bytes: usize) -> Self {
        let pages = bytes.div_ceil(PAGE).max(1);
        let length = NonZeroUsize::new((pages + 2) * PAGE).unwrap();
        // SAFETY: a new anonymous mapping, of which the pages between the first and the last become accessible.
        let start = unsafe {
            let whole = mmap_anonymous(None, length, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE).unwrap();
            let inner = whole.cast::<u8>().add(PAGE);
            mprotect(inner.cast(), pages * PAGE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).unwrap();
            inner
        };
        Self { start, pages }
    }

    /// `bytes` bytes that begin right behind the first unmapped page, or end right before the last one.
    fn at(&mut self, end: bool, bytes: usize) -> &mut [u8] {
        assert!(bytes <= self.pages * PAGE);
        let skip = if end { self.pages * PAGE - bytes } else { 0 };
        // SAFETY: inside the accessible pages, which nobody else has.
        unsafe { slice::from_raw_parts_mut(self.start.add(skip).as_ptr(), bytes) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, to which no slice is left.
        unsafe { munmap(self.start.sub(PAGE).cast(), (self.pages + 2) * PAGE).unwrap() };
    }
}

fn check<I: Isa>(isa: I, proof: AesNi) {
    let key: Vec<u8> = (0..64).collect();
    for (key, turns) in (1..20).flat_map(|turns| [(&key[..], turns), (&key[..32], turns)]) {
        let schedules = keys::expand(proof, key);
        for (per, end) in [1, 3, 8, 100].into_iter().flat_map(|per| [(per, false), (per, true)]) {
            let bytes = turns * TURN;
            let (mut src, mut dst) = (Guarded::new(bytes), Guarded::new(bytes));
            let (src, dst) = (src.at(end, bytes), dst.at(!end, bytes));
            for (place, number) in src.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut().zip(7_u128..) {
                *place = (number * 0xfedc_ba98_7654_3210_f0f1).to_le_bytes();
            }
            let count = turns.div_ceil(per);
            let mut tweaks = Guarded::new(count * BLOCK_BYTES);
            let tweaks = tweaks.at(end, count * BLOCK_BYTES);
            for (place, number) in tweaks.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut().zip(5_u128..) {
                *place = (number * 0x1234_5678_9abc_def1).to_le_bytes();
            }
            // SAFETY: every byte is initialised, and any bytes are a number.
            let (_, tweaks, _) = unsafe { tweaks.align_to::<Element>() };
            assert_eq!(
                tweaks.len(),
                count,
                "pages are aligned, and so is what lies a multiple of 16 before a page's end"
            );
            let there = InOutBuf::new(src, dst).unwrap().into_chunks::<U512>().0;
            isa.crypt(&schedules.expose().encrypt, Direction::Encrypt, tweaks, per, there);
            assert!(src != dst);
            let back = InOutBuf::from(&mut *dst).into_chunks::<U512>().0;
            isa.crypt(&schedules.expose().decrypt, Direction::Decrypt, tweaks, per, back);
            assert!(src == dst, "{turns} turns, {per} for a tweak");
            if key.len() == 64 {
                isa.ecb(&schedules.expose().encrypt, InOutBuf::new(src, dst).unwrap().into_chunks::<U512>().0);
            }
        }
    }
}

#[test]
fn kernels_touch_nothing_outside_their_buffers() {
    if let Some(narrow) = AesNi::detect() {
        check(narrow, narrow);
        if let Some(wide) = Vaes256::detect() {
            check(wide, narrow);
        }
    }
}
