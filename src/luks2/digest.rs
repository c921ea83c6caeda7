//! The check value of a data key: whether this is the key, without knowing it.

use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{HeaderError, KEY_BYTES};
use crate::secret::{SecretBytes, wipe_stack};

/// PBKDF2 iterations (RFC 8018). A low count is safe because the key is 512 random bits, not a passphrase.
pub(super) const ITERATIONS: u32 = 1000;

/// PBKDF2-HMAC-SHA-256 of a volume key, as LUKS2 digests are made: 1000 iterations, 32 bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyDigest {
    pub(super) salt: [u8; 32],
    pub(super) value: [u8; 32],
}

impl KeyDigest {
    /// The digest of `key` under a new random salt.
    ///
    /// # Errors
    /// [`HeaderError::Refused`] if the key is not 64 bytes, [`HeaderError::Random`] if there is no randomness.
    pub fn new(key: &SecretBytes) -> Result<Self, HeaderError> {
        if key.len() != KEY_BYTES {
            return Err(HeaderError::refused("the data key's length", key.len(), KEY_BYTES));
        }
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(HeaderError::Random)?;
        Ok(Self { salt, value: derive(key, &salt) })
    }

    /// The digest itself, 32 bytes; it tells nothing of the key.
    pub fn value(&self) -> &[u8; 32] {
        &self.value
    }

    /// Whether `key` is the one that this digest was made of; compared in constant time.
    pub fn matches(&self, key: &SecretBytes) -> bool {
        key.len() == KEY_BYTES && derive(key, &self.salt).ct_eq(&self.value).into()
    }
}

fn derive(key: &SecretBytes, salt: &[u8; 32]) -> [u8; 32] {
    let value = derive_in_own_frame(key, salt);
    // A key of one SHA-256 block is the HMAC key itself: its padded copies were on the stack.
    wipe_stack();
    value
}

#[inline(never)]
fn derive_in_own_frame(key: &SecretBytes, salt: &[u8; 32]) -> [u8; 32] {
    pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(key.expose(), salt, ITERATIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_knows_its_key_and_no_other() {
        let key = SecretBytes::random(KEY_BYTES).unwrap();
        let digest = KeyDigest::new(&key).unwrap();
        assert!(digest.matches(&key));
        for bit in 0..KEY_BYTES * 8 {
            let other = SecretBytes::new_with(KEY_BYTES, |bytes| {
                bytes.copy_from_slice(key.expose());
                bytes[bit / 8] ^= 1 << (bit % 8);
            });
            assert!(!digest.matches(&other), "bit {bit}");
        }
        assert!(!digest.matches(&key.part(0..32)));
        assert!(KeyDigest::new(&key.part(0..32)).is_err());
    }

    /// Made with Python: `hashlib.pbkdf2_hmac("sha256", bytes(range(64)), bytes(range(32)), 1000)`.
    #[test]
    fn the_value_is_pbkdf2_hmac_sha256() {
        let key = SecretBytes::new_with(KEY_BYTES, |bytes| {
            for (index, byte) in (0u8..).zip(bytes) {
                *byte = index;
            }
        });
        let salt = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(
            hex::encode(derive(&key, &salt)),
            "2d13b9ec9577e76d175ea6736c0647897bfd85b4dbf090930a638c08d8bdcded"
        );
    }
}
