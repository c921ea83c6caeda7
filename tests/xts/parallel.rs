//! The same bytes from any number of threads and any cutting of a run.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use blockseal::units::{SectorSize, UnitIndex};
use blockseal::xts::parallel::{self, Data, Job, Workers};
use blockseal::xts::{Direction, EngineKind, XtsError};
use proptest::prelude::*;

use super::{cipher, noise};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn threads_and_pieces_change_nothing(
        threads in 1..6_usize,
        piece in 1..40_000_usize,
        units in 1..600_usize,
        first in any::<u64>().prop_map(UnitIndex),
        big in any::<bool>(),
        seed: u64,
    ) {
        let size = if big { SectorSize::B4096 } else { SectorSize::B512 };
        let workers = Workers::new(NonZeroUsize::new(threads).unwrap(), 0, piece);
        let plain = noise(units * 512, seed);
        for engine in EngineKind::available() {
            let cipher = cipher(&noise(64, !seed), engine);
            let mut sealed = vec![0; plain.len()];
            cipher.encrypt(size, first, &plain, &mut sealed).unwrap();
            let mut out = vec![0; plain.len()];
            workers.run(Job::new(&cipher, Direction::Encrypt, size, first, Data::Between(&plain, &mut out)).unwrap());
            prop_assert!(out == sealed, "{engine} encrypts");
            workers.run(Job::new(&cipher, Direction::Decrypt, size, first, Data::InPlace(&mut out)).unwrap());
            prop_assert!(out == plain, "{engine} decrypts");
        }
    }
}

#[test]
fn long_runs_on_the_shared_pool_from_many_threads() {
    let cipher = Arc::new(cipher(&noise(64, 1), EngineKind::Portable));
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let cipher = Arc::clone(&cipher);
            thread::spawn(move || {
                let plain = noise(3 << 20, caller);
                let first = UnitIndex(caller * 1000 + 3);
                let mut expected = plain.clone();
                cipher.encrypt_in_place(SectorSize::B4096, first, &mut expected).unwrap();
                for _ in 0..3 {
                    let mut out = vec![0; plain.len()];
                    parallel::encrypt(&cipher, SectorSize::B4096, first, &plain, &mut out).unwrap();
                    assert!(out == expected);
                    parallel::decrypt_in_place(&cipher, SectorSize::B4096, first, &mut out).unwrap();
                    assert!(out == plain);
                    parallel::encrypt_in_place(&cipher, SectorSize::B4096, first, &mut out).unwrap();
                    assert!(out == expected);
                    let mut back = vec![0; plain.len()];
                    parallel::decrypt(&cipher, SectorSize::B4096, first, &out, &mut back).unwrap();
                    assert!(back == plain);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
}

#[test]
fn jobs_check_their_lengths() {
    let cipher = cipher(&noise(64, 1), EngineKind::Portable);
    let (src, mut dst) = ([0; 512], [0; 1024]);
    assert_eq!(
        Job::new(&cipher, Direction::Encrypt, SectorSize::B512, UnitIndex(0), Data::Between(&src, &mut dst))
            .unwrap_err(),
        XtsError::Lengths { source_bytes: 512, destination_bytes: 1024 }
    );
    assert!(
        Job::new(&cipher, Direction::Decrypt, SectorSize::B512, UnitIndex(0), Data::InPlace(&mut dst[1..])).is_err()
    );
    let job = Job::new(&cipher, Direction::Encrypt, SectorSize::B512, UnitIndex(0), Data::InPlace(&mut dst)).unwrap();
    assert!(format!("{job:?}").contains("1024 bytes") && !format!("{job:?}").contains("0, 0"), "{job:?}");
}
