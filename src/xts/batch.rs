//! What all fast engines share: cutting a run into sectors, and encrypting the tweaks of many sectors together.
//!
//! A kernel only knows AES and the multiplication of tweaks by x. Encrypting a sector's tweak takes as long as fourteen
//! dependent rounds, which one 512-byte sector could not hide; here the tweaks of up to [`BATCH`] sectors go through the
//! kernel at once.

use aes::cipher::inout::InOutBuf;
use zeroize::Zeroize;

use super::field::{Element, times_x_to_the};
use super::{BLOCK_BYTES, Direction, Engine};
use crate::units::{SectorSize, UnitIndex};

/// Sectors whose tweaks are encrypted together: 1 KiB of them.
const BATCH: usize = 64;

/// As [`BATCH`], for runs that have no more: a request of 4096 bytes does not pay for clearing the room of 64 tweaks.
const SHORT_BATCH: usize = 8;

/// AES under a data key and a tweak key, many blocks at a time.
pub(super) trait Kernel: Send + Sync {
    /// Encrypts sector numbers under the tweak key, in place.
    fn encrypt_tweaks(&self, tweaks: &mut [Element]);

    /// XTS of `data` in pieces of `piece` bytes, each under its own, already encrypted tweak. `piece` is a multiple of 16, and
    /// every piece but the last has that length; the last may be shorter by whole blocks.
    fn process(&self, direction: Direction, tweaks: &[Element], piece: usize, data: InOutBuf<'_, '_, u8>);

    /// See [`Engine::wipe_traces`].
    fn wipe_traces(&self);
}

impl<K: Kernel> Engine for K {
    fn run(&self, direction: Direction, sector_size: SectorSize, first: UnitIndex, data: InOutBuf<'_, '_, u8>) {
        if data.len() <= SHORT_BATCH * sector_size.bytes() {
            run_in_batches::<SHORT_BATCH>(self, direction, sector_size, first, data);
        } else {
            run_in_batches::<BATCH>(self, direction, sector_size, first, data);
        }
    }

    fn data_unit(&self, direction: Direction, tweak: [u8; BLOCK_BYTES], data: InOutBuf<'_, '_, u8>) {
        let mut first = [Element::from_le_bytes(tweak)];
        self.encrypt_tweaks(&mut first);
        let length = data.len();
        let stolen = length % BLOCK_BYTES;
        let whole = if stolen == 0 { length } else { length - stolen - BLOCK_BYTES };
        let (blocks, tail) = data.split_at(whole);
        if whole > 0 {
            self.process(direction, &first, whole, blocks);
        }
        if stolen > 0 {
            let mut last = times_x_to_the(first[0], whole / BLOCK_BYTES);
            self.steal(direction, last, tail);
            last.zeroize();
        }
        first.zeroize();
    }

    fn wipe_traces(&self) {
        Kernel::wipe_traces(self);
    }
}

fn run_in_batches<const BATCH: usize>(
    kernel: &impl Kernel,
    direction: Direction,
    sector_size: SectorSize,
    first: UnitIndex,
    mut data: InOutBuf<'_, '_, u8>,
) {
    let (UnitIndex(mut sector), into_sector) = sector_size.locate(first);
    let mut tweaks = [0; BATCH];
    if into_sector > 0 {
        let rest_of_sector = (sector_size.bytes() - into_sector).min(data.len());
        let (head, rest) = data.split_at(rest_of_sector);
        tweaks[0] = Element::from(sector);
        kernel.encrypt_tweaks(&mut tweaks[..1]);
        tweaks[0] = times_x_to_the(tweaks[0], into_sector / BLOCK_BYTES);
        kernel.process(direction, &tweaks[..1], rest_of_sector, head);
        sector = sector.wrapping_add(sector_size.units());
        data = rest;
    }
    while !data.is_empty() {
        let length = (BATCH * sector_size.bytes()).min(data.len());
        let (batch, rest) = data.split_at(length);
        let tweaks = &mut tweaks[..length.div_ceil(sector_size.bytes())];
        for tweak in &mut *tweaks {
            *tweak = Element::from(sector);
            sector = sector.wrapping_add(sector_size.units());
        }
        kernel.encrypt_tweaks(tweaks);
        kernel.process(direction, tweaks, sector_size.bytes(), batch);
        data = rest;
    }
    tweaks.zeroize();
}

/// Ciphertext stealing over the last whole block and the partial one after it (IEEE Std 1619 sections 5.3.2 and 5.4.2).
trait Steal: Kernel {
    fn steal(&self, direction: Direction, tweak: Element, mut tail: InOutBuf<'_, '_, u8>) {
        let tweak_after = times_x_to_the(tweak, 1);
        // Encryption uses the two tweaks in order, decryption the other way round.
        let (outer, inner) = match direction {
            Direction::Encrypt => (tweak, tweak_after),
            Direction::Decrypt => (tweak_after, tweak),
        };
        let partial = tail.len() - BLOCK_BYTES;
        let mut whole = [0; BLOCK_BYTES];
        whole.copy_from_slice(&tail.get_in()[..BLOCK_BYTES]);
        self.process(direction, &[outer], BLOCK_BYTES, (&mut whole[..]).into());
        let mut filled = whole;
        filled[..partial].copy_from_slice(&tail.get_in()[BLOCK_BYTES..]);
        self.process(direction, &[inner], BLOCK_BYTES, (&mut filled[..]).into());
        let out = tail.get_out();
        out[..BLOCK_BYTES].copy_from_slice(&filled);
        out[BLOCK_BYTES..].copy_from_slice(&whole[..partial]);
    }
}

impl<K: Kernel> Steal for K {}
