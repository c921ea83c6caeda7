//! What the demo writes: the disk image of `fixtures/disk`, and bytes to measure with.

use std::io::{self, Read as _};

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};

use crate::ids;

/// An ext4 image with a table of orders; `fixtures/disk/make.sh` makes it and says what is in it.
static IMAGE: &[u8] = include_bytes!("../../../../fixtures/disk/orders.ext4.gz");

/// How the table in the image begins.
pub(super) const MARKER: &[u8] = b"order,customer,card,amount\n";

/// Length of the image in bytes.
pub(super) const IMAGE_BYTES: usize = 32 << 20;

/// Where the bytes to measure with are written.
pub(super) const BULK_OFFSET: usize = 64 << 20;

/// How many there are.
pub(super) const BULK_BYTES: usize = 128 << 20;

/// Length of the demo's volumes: the least that EBS makes.
pub(super) const VOLUME_BYTES: usize = 1 << 30;

/// The image, unpacked.
pub(super) fn image() -> io::Result<Vec<u8>> {
    let mut image = Vec::with_capacity(IMAGE_BYTES);
    GzDecoder::new(IMAGE).read_to_end(&mut image)?;
    if image.len() == IMAGE_BYTES {
        Ok(image)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the disk image inside this program has another length"))
    }
}

/// Where the table begins in the image.
pub(super) fn marker_offset(image: &[u8]) -> Option<usize> {
    image.chunks_exact(512).position(|unit| unit.starts_with(MARKER)).map(|unit| unit * 512)
}

/// Bytes without a pattern, the same in every demo: xorshift64*.
pub(super) fn bulk() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; BULK_BYTES];
    for word in bytes.as_chunks_mut::<8>().0 {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        *word = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
    }
    bytes
}

/// SHA-256, in hex, of a volume that holds the image at its start, the bulk at its place and zeros everywhere else.
pub(super) fn volume_digest(image: &[u8], bulk: &[u8]) -> String {
    let zeros = vec![0; 1 << 20];
    let mut digest = Sha256::new();
    let mut length = 0;
    for (start, part) in [(0, image), (BULK_OFFSET, bulk), (VOLUME_BYTES, &[][..])] {
        while length < start {
            let count = (start - length).min(zeros.len());
            digest.update(&zeros[..count]);
            length += count;
        }
        digest.update(part);
        length += part.len();
    }
    ids::hex(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_has_its_table_on_a_sector_of_its_own() {
        let image = image().unwrap();
        let at = marker_offset(&image).unwrap();
        assert_eq!(at % 4096, 0);
        assert!(image[at + MARKER.len()..].starts_with(b"000001,"));
    }

    #[test]
    fn the_digest_is_that_of_the_whole_volume() {
        let mut volume = vec![0; VOLUME_BYTES];
        volume[..3].copy_from_slice(b"abc");
        volume[BULK_OFFSET..BULK_OFFSET + 4].copy_from_slice(b"bulk");
        assert_eq!(volume_digest(b"abc", b"bulk"), ids::hex(&Sha256::digest(&volume)));
    }
}
