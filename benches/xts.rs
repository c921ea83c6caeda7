//! AES-256-XTS in sectors/s and GB/s: every engine by sector size and direction, beside what else could be linked, and by threads.
//!
//! `cargo bench --bench xts` for all, `cargo bench --bench xts -- 'encrypt/4096'` for a part.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a benchmark that can't be set up has nothing to report")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;

use aes::cipher::KeyInit;
use blockseal::secret::SecretBytes;
use blockseal::units::{SectorSize, UnitIndex};
use blockseal::xts::parallel::{Data, Job, PIECE_BYTES, Workers};
use blockseal::xts::{Direction, EngineChoice, EngineKind, Side, XtsCipher, reencrypt};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;

const SIZES: [SectorSize; 2] = [SectorSize::B512, SectorSize::B4096];
const DIRECTIONS: [Direction; 2] = [Direction::Encrypt, Direction::Decrypt];

fn cipher(engine: EngineKind) -> XtsCipher {
    XtsCipher::new(&SecretBytes::random(64).unwrap(), EngineChoice::Forced(engine)).unwrap()
}

/// One thread, 128 KiB that stay in the cache, source to destination: our engines and what a user would take instead.
fn engines(c: &mut Criterion) {
    let src = vec![0x5a; 128 * 1024];
    let mut dst = vec![0; src.len()];
    for size in SIZES {
        for direction in DIRECTIONS {
            let mut group = c.benchmark_group(format!("{direction}/{size}"));
            group.throughput(Throughput::Bytes(src.len() as u64));
            for engine in EngineKind::available() {
                let cipher = cipher(engine);
                group.bench_function(engine.name(), |b| {
                    b.iter(|| {
                        let src = black_box(&src);
                        match direction {
                            Direction::Encrypt => cipher.encrypt(size, UnitIndex(8), src, &mut dst).unwrap(),
                            Direction::Decrypt => cipher.decrypt(size, UnitIndex(8), src, &mut dst).unwrap(),
                        }
                        black_box(&mut dst);
                    });
                });
            }
            for (name, mut peer) in peers(size, direction) {
                group.bench_function(name, |b| b.iter(|| peer(black_box(&src), black_box(&mut dst))));
            }
            group.finish();
        }
    }
}

type Peer = Box<dyn FnMut(&[u8], &mut [u8])>;

fn peers(size: SectorSize, direction: Direction) -> Vec<(&'static str, Peer)> {
    let key: Vec<u8> = (0..64).collect();
    let encrypts = direction == Direction::Encrypt;

    // As its documentation shows it: a whole area in place.
    let (data, tweak) =
        (aes::Aes256::new_from_slice(&key[..32]).unwrap(), aes::Aes256::new_from_slice(&key[32..]).unwrap());
    let documented = xts_mode::Xts128::new(data, tweak);
    let xts_mode: Peer = Box::new(move |_, dst| {
        if encrypts {
            documented.encrypt_area(dst, size.bytes(), 1, xts_mode::get_tweak_default);
        } else {
            documented.decrypt_area(dst, size.bytes(), 1, xts_mode::get_tweak_default);
        }
    });

    // One context with the key in it, one new tweak and one call a sector.
    let mut context = CipherCtx::new().unwrap();
    let algorithm = Some(Cipher::aes_256_xts());
    if encrypts {
        context.encrypt_init(algorithm, Some(&key), None).unwrap();
    } else {
        context.decrypt_init(algorithm, Some(&key), None).unwrap();
    }
    let openssl: Peer = Box::new(move |src, dst| {
        let sectors = src.chunks(size.bytes()).zip(dst.chunks_mut(size.bytes()));
        for (number, (src, dst)) in (0..).step_by(size.bytes() / 512).zip(sectors) {
            let tweak = u128::to_le_bytes(number);
            if encrypts {
                context.encrypt_init(None, None, Some(&tweak)).unwrap();
            } else {
                context.decrypt_init(None, None, Some(&tweak)).unwrap();
            }
            context.cipher_update(src, Some(dst)).unwrap();
        }
    });
    vec![
        ("xts-mode", xts_mode),
        ("openssl", openssl),
        #[cfg(feature = "bench-aws-lc")]
        ("aws-lc", aws_lc::peer(&key, size, encrypts)),
    ]
}

#[cfg(feature = "bench-aws-lc")]
mod aws_lc {
    #![expect(unsafe_code, reason = "AWS-LC offers XTS through its C interface alone")]

    use std::ptr::null;

    use aws_lc_sys::{EVP_CIPHER_CTX_new, EVP_CipherInit_ex, EVP_CipherUpdate, EVP_aes_256_xts};
    use blockseal::units::SectorSize;

    /// One context with the key in it, one new tweak and one call a sector, as with OpenSSL.
    pub(super) fn peer(key: &[u8], size: SectorSize, encrypts: bool) -> super::Peer {
        assert_eq!(key.len(), 64);
        // SAFETY: the key has the 64 bytes that the cipher reads; the context is used by the closure alone and never freed.
        let context = unsafe {
            let context = EVP_CIPHER_CTX_new();
            let made = EVP_CipherInit_ex(
                context,
                EVP_aes_256_xts(),
                std::ptr::null_mut(),
                key.as_ptr(),
                null(),
                i32::from(encrypts),
            );
            assert!(!context.is_null() && made == 1);
            context
        };
        Box::new(move |src, dst| {
            assert_eq!(src.len(), dst.len());
            let sectors = src.chunks(size.bytes()).zip(dst.chunks_mut(size.bytes()));
            for (number, (src, dst)) in (0..).step_by(size.bytes() / 512).zip(sectors) {
                let tweak = u128::to_le_bytes(number);
                let mut written = 0;
                // SAFETY: the tweak has the 16 bytes that are read; `src` and `dst` are `src.len()` bytes, 512 or 4096.
                let done = unsafe {
                    EVP_CipherInit_ex(context, null(), std::ptr::null_mut(), null(), tweak.as_ptr(), -1) == 1
                        && EVP_CipherUpdate(
                            context,
                            dst.as_mut_ptr(),
                            &raw mut written,
                            src.as_ptr(),
                            i32::try_from(src.len()).unwrap(),
                        ) == 1
                };
                assert!(done);
            }
        })
    }
}

/// The same run in sectors/s.
fn sectors(c: &mut Criterion) {
    for size in SIZES {
        let count = 32;
        let src = vec![0x5a; size.bytes() * count];
        let mut dst = vec![0; src.len()];
        let mut group = c.benchmark_group(format!("sectors/{size}"));
        group.throughput(Throughput::Elements(count as u64));
        for engine in EngineKind::available() {
            let cipher = cipher(engine);
            group.bench_function(engine.name(), |b| {
                b.iter(|| cipher.encrypt(size, UnitIndex(8), black_box(&src), &mut dst).unwrap());
            });
        }
        group.finish();
    }
}

/// From one key to another in one pass, beside decrypting everything and then encrypting everything: more than caches hold.
fn reencryption(c: &mut Criterion) {
    let src = vec![0x5a; 64 << 20];
    let (mut plain, mut dst) = (vec![0; src.len()], vec![0; src.len()]);
    let (old, new) = (cipher(EngineChoice::Auto.resolve().unwrap()), cipher(EngineChoice::Auto.resolve().unwrap()));
    let mut group = c.benchmark_group("reencrypt");
    group.throughput(Throughput::Bytes(src.len() as u64));
    for size in SIZES {
        let (from, to) =
            (Side { cipher: &old, size, first: UnitIndex(8) }, Side { cipher: &new, size, first: UnitIndex(8) });
        group.bench_function(BenchmarkId::new("one pass", size), |b| {
            b.iter(|| reencrypt(from, to, black_box(&src), &mut dst).unwrap());
        });
        group.bench_function(BenchmarkId::new("two passes", size), |b| {
            b.iter(|| {
                old.decrypt(size, UnitIndex(8), black_box(&src), &mut plain).unwrap();
                new.encrypt(size, UnitIndex(8), &plain, &mut dst).unwrap();
            });
        });
    }
    group.finish();
}

/// The default engine by request length and threads.
fn threads(c: &mut Criterion) {
    let cores = thread::available_parallelism().unwrap().get();
    let cipher = XtsCipher::new(&SecretBytes::random(64).unwrap(), EngineChoice::Auto).unwrap();
    for size in SIZES {
        let mut group = c.benchmark_group(format!("threads/{size}"));
        for length in [4 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20_usize] {
            group.throughput(Throughput::Bytes(length as u64));
            let src = vec![0x5a; length];
            let mut dst = vec![0; length];
            for threads in 1..=cores {
                let workers = Workers::new(NonZeroUsize::new(threads).unwrap(), 0, PIECE_BYTES);
                group.bench_function(BenchmarkId::new(threads.to_string(), length), |b| {
                    b.iter(|| {
                        let data = Data::Between(black_box(&src), &mut dst);
                        workers.run(Job::new(&cipher, Direction::Encrypt, size, UnitIndex(8), data).unwrap());
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = engines, sectors, reencryption, threads
}
criterion_main!(benches);
