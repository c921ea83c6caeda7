//! Clearing the vector registers, where AES instructions leave round keys. The kernel writes them into every core dump.
#![expect(unsafe_code, reason = "no safe operation reaches a register that the compiler does not use")]

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
#[cfg(target_arch = "x86_64")]
use std::arch::is_x86_feature_detected;

/// Sets every vector register that a call may change to zero.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn wipe_registers() {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: AVX-512 was detected; the block touches registers alone and names every one that it changes.
        unsafe {
            asm!(
                ".irp i, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "vpxord zmm\\i, zmm\\i, zmm\\i",
                ".endr",
                out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
                out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
    if is_x86_feature_detected!("avx") {
        // SAFETY: AVX was detected; the block touches registers alone and names every one that it changes.
        unsafe {
            asm!(
                "vzeroall",
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nomem, nostack, preserves_flags),
            );
        }
    } else {
        // SAFETY: SSE2 is part of x86-64; the block touches registers alone and names every one that it changes.
        unsafe {
            asm!(
                ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                "pxor xmm\\i, xmm\\i",
                ".endr",
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}

/// Sets every vector register that a call may change to zero.
#[cfg(target_arch = "aarch64")]
#[inline]
pub fn wipe_registers() {
    // SAFETY: the block touches registers alone and names every one that it changes; AdvSIMD is part of the base target.
    unsafe {
        std::arch::asm!(
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "movi v\\i\\().2d, #0",
            ".endr",
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// On other machines `aes` runs in general registers, which the next calls overwrite.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
pub fn wipe_registers() {}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    #[inline(never)]
    fn fill_and(wipe: bool) -> [u64; 2] {
        let mut seen = [0u64; 2];
        // SAFETY: SSE2 is part of x86-64, and the register that changes is named.
        unsafe { asm!("movq xmm7, {}", in(reg) 0x5eed_5eed_5eed_5eed_u64, out("xmm7") _) };
        if wipe {
            wipe_registers();
        }
        // SAFETY: stores 16 bytes into `seen`, which has 16.
        unsafe { asm!("movdqu [{}], xmm7", in(reg) seen.as_mut_ptr()) };
        seen
    }

    #[test]
    fn registers_are_zero_afterwards_and_keep_their_bytes_without() {
        assert_eq!(fill_and(true), [0, 0]);
        assert_eq!(fill_and(false)[0], 0x5eed_5eed_5eed_5eed);
    }
}
