//! The engine that every machine has: safe Rust over `aes`, which finds the AES instructions of x86 and ARM by itself.
//!
//! `aes` is fast when it gets many blocks in one call, so a tile of blocks is combined with its tweaks, encrypted in one
//! call, and combined with them again.

use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes128Enc, Aes256, Aes256Enc, Block};
use zeroize::Zeroize;

use super::batch::Kernel;
use super::field::{Element, times_x};
use super::{BLOCK_BYTES, Direction, Engine, wipe_compiled_traces};
use crate::secret::SecretBox;

/// Blocks in a tile: a multiple of the 30 that `aes` has in flight with VAES-256 and of the 8 with AES-NI.
const TILE: usize = 120;

struct Portable<C, T> {
    schedules: SecretBox<Schedules<C, T>>,
}

struct Schedules<C, T> {
    data: C,
    tweak: T,
}

pub(super) fn expand(key: &[u8]) -> Box<dyn Engine> {
    let (data, tweak) = key.split_at(key.len() / 2);
    if key.len() == 64 {
        Box::new(Portable::<Aes256, Aes256Enc>::new(data, tweak))
    } else {
        Box::new(Portable::<Aes128, Aes128Enc>::new(data, tweak))
    }
}

impl<C: KeyInit, T: KeyInit> Portable<C, T> {
    fn new(data: &[u8], tweak: &[u8]) -> Self {
        const PROOF: &str = "the key was found to have 32 or 64 bytes, and each cipher gets its half";
        let schedules = SecretBox::new(|| Schedules {
            data: C::new_from_slice(data).expect(PROOF),
            tweak: T::new_from_slice(tweak).expect(PROOF),
        });
        Self { schedules }
    }
}

impl<C, T> Kernel for Portable<C, T>
where
    C: BlockCipherEncrypt<BlockSize = Size> + BlockCipherDecrypt + Send + Sync,
    T: BlockCipherEncrypt<BlockSize = Size> + Send + Sync,
{
    fn encrypt_tweaks(&self, tweaks: &mut [Element]) {
        let mut blocks = [Block::default(); 16];
        for tweaks in tweaks.chunks_mut(blocks.len()) {
            let blocks = &mut blocks[..tweaks.len()];
            for (block, tweak) in blocks.iter_mut().zip(&*tweaks) {
                block.0 = tweak.to_le_bytes();
            }
            self.schedules.expose().tweak.encrypt_blocks(blocks);
            for (block, tweak) in blocks.iter_mut().zip(tweaks) {
                *tweak = Element::from_le_bytes(block.0);
            }
        }
        for block in &mut blocks {
            block.0.zeroize();
        }
    }

    fn process(&self, direction: Direction, tweaks: &[Element], piece: usize, data: InOutBuf<'_, '_, u8>) {
        let cipher = &self.schedules.expose().data;
        let piece_blocks = piece / BLOCK_BYTES;
        let (mut blocks, _) = data.into_chunks::<Size>();
        let mut starts = tweaks.iter();
        let mut next = 0;
        let mut left_in_piece = 0;
        let mut tile = [0; TILE];
        while !blocks.is_empty() {
            let count = TILE.min(blocks.len());
            let (mut now, rest) = blocks.split_at(count);
            let tile = &mut tile[..now.len()];
            for tweak in &mut *tile {
                if left_in_piece == 0 {
                    next = starts.next().copied().unwrap_or_default();
                    left_in_piece = piece_blocks;
                }
                *tweak = next;
                next = times_x(next);
                left_in_piece -= 1;
            }
            for (index, tweak) in tile.iter().enumerate() {
                let mut block = now.get(index);
                block.get_out().0 = (Element::from_le_bytes(block.get_in().0) ^ tweak).to_le_bytes();
            }
            let out = now.get_out();
            match direction {
                Direction::Encrypt => cipher.encrypt_blocks(out),
                Direction::Decrypt => cipher.decrypt_blocks(out),
            }
            for (block, tweak) in out.iter_mut().zip(&*tile) {
                block.0 = (Element::from_le_bytes(block.0) ^ tweak).to_le_bytes();
            }
            blocks = rest;
        }
        tile.zeroize();
        next.zeroize();
    }

    fn wipe_traces(&self) {
        wipe_compiled_traces();
    }
}

type Size = aes::cipher::consts::U16;
