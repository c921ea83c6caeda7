//! The slow and obvious engine: the crate `xts-mode`, as its documentation shows it. It opens any volume when forced, and
//! every other engine is tested against it; so it shares no code with them, not even the cutting of a run into sectors.

use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use xts_mode::{Xts128, get_tweak_default};
use zeroize::Zeroize;

use super::{BLOCK_BYTES, Direction, Engine, wipe_compiled_traces};
use crate::secret::SecretBox;
use crate::units::{SectorSize, UNIT_BYTES, UnitIndex};

struct Reference<C> {
    xts: SecretBox<Xts128<C>>,
}

pub(super) fn expand(key: &[u8]) -> Box<dyn Engine> {
    if key.len() == 64 { Box::new(Reference::<Aes256>::new(key)) } else { Box::new(Reference::<Aes128>::new(key)) }
}

impl<C> Reference<C>
where
    C: KeyInit + BlockCipherEncrypt<BlockSize = Size> + BlockCipherDecrypt,
{
    fn new(key: &[u8]) -> Self {
        let (data, tweak) = key.split_at(key.len() / 2);
        let cipher = |half| {
            C::new_from_slice(half).expect("the key was found to have 32 or 64 bytes, and each cipher gets its half")
        };
        Self { xts: SecretBox::new(|| Xts128::new(cipher(data), cipher(tweak))) }
    }

    fn sector(&self, direction: Direction, sector: &mut [u8], tweak: [u8; BLOCK_BYTES]) {
        match direction {
            Direction::Encrypt => self.xts.expose().encrypt_sector(sector, tweak.into()),
            Direction::Decrypt => self.xts.expose().decrypt_sector(sector, tweak.into()),
        }
    }
}

impl<C> Engine for Reference<C>
where
    C: KeyInit + BlockCipherEncrypt<BlockSize = Size> + BlockCipherDecrypt + Send + Sync,
{
    fn run(&self, direction: Direction, sector_size: SectorSize, first: UnitIndex, data: InOutBuf<'_, '_, u8>) {
        let mut rest = data.into_out_with_copied_in();
        let mut unit = first;
        while !rest.is_empty() {
            let (sector, start) = sector_size.locate(unit);
            let (piece, after) = rest.split_at_mut((sector_size.bytes() - start).min(rest.len()));
            let tweak = get_tweak_default(sector.0.into()).into();
            if piece.len() == sector_size.bytes() {
                self.sector(direction, piece, tweak);
            } else {
                // Every block depends on its own bytes and place alone, so what stands around the piece does not matter.
                let mut whole = [0; SectorSize::B4096.bytes()];
                let place = start..start + piece.len();
                whole[place.clone()].copy_from_slice(piece);
                self.sector(direction, &mut whole[..sector_size.bytes()], tweak);
                piece.copy_from_slice(&whole[place]);
                whole.zeroize();
            }
            unit = unit.wrapping_add(piece.len() as u64 / UNIT_BYTES);
            rest = after;
        }
    }

    fn data_unit(&self, direction: Direction, tweak: [u8; BLOCK_BYTES], data: InOutBuf<'_, '_, u8>) {
        self.sector(direction, data.into_out_with_copied_in(), tweak);
    }

    fn wipe_traces(&self) {
        wipe_compiled_traces();
    }
}

type Size = aes::cipher::consts::U16;
