//! A lineage: everything that shares one data key, a volume first of all, and what it keeps beside the key.
//!
//! The *manifest key* authenticates what is written down about a lineage's blocks. It is HKDF-SHA256 (RFC 5869) of the data
//! key, computed in the moment in which the data key is made, and rests sealed under the root key and bound to the lineage:
//! so a snapshot of a detached volume needs no call to KMS, and who has the state alone can forge no manifest.

use hkdf::Hkdf;
use sha2::Sha256;

use crate::gate::ServiceError;
use crate::ids;
use crate::kms::RootKey;
use crate::secret::{SecretBytes, wipe_stack};
use crate::store::Home;
use crate::twin::{self, Protection};

const KEY_BYTES: usize = 32;

/// What HKDF binds the manifest key to. It holds nothing of the lineage: whoever has the data key can compute it again.
const INFO: &[u8] = b"blockseal manifest key v1";

/// What the root key binds the sealed form to, beside the lineage's id.
const PURPOSE: &str = "manifest key";

/// A lineage as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Its name: a UUID, the same for all that share the data key.
    pub(super) id: String,
    /// The manifest key under the root key.
    pub(super) sealed: Vec<u8>,
}

impl Lineage {
    /// A lineage that begins now. The root key must be there, which it is once a key of KMS is.
    pub(super) fn begin(home: &Home, manifest_key: &SecretBytes) -> Result<Self, ServiceError> {
        let id = ids::uuid();
        let sealed = RootKey::of(home)?.seal(PURPOSE, &id, manifest_key)?;
        Ok(Self { id, sealed })
    }

    /// The manifest key.
    ///
    /// # Errors
    /// If it was sealed for another lineage or under another root key, or was changed.
    pub(super) fn manifest_key(&self, home: &Home) -> Result<SecretBytes, ServiceError> {
        RootKey::of(home)?.open(PURPOSE, &self.id, &self.sealed)
    }
}

/// The manifest key of the lineage that has this data key.
pub(super) fn manifest_key(data_key: &SecretBytes) -> SecretBytes {
    if twin::is_off(Protection::KeyDerivation) {
        return data_key.part(0..KEY_BYTES);
    }
    let key = derive_in_own_frame(data_key);
    // The extracted key and the padded copies of HMAC were on the stack.
    wipe_stack();
    key
}

#[inline(never)]
fn derive_in_own_frame(data_key: &SecretBytes) -> SecretBytes {
    SecretBytes::new_with(KEY_BYTES, |key| {
        Hkdf::<Sha256>::new(None, data_key.expose()).expand(INFO, key).expect("32 bytes are one block of SHA-256");
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::without;
    use hmac::{Hmac, KeyInit as _, Mac as _};

    fn data_key(seed: u8) -> SecretBytes {
        SecretBytes::new_with(64, |bytes| {
            for (byte, value) in bytes.iter_mut().zip(seed..) {
                *byte = value;
            }
        })
    }

    fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(data);
        mac.finalize().into_bytes().to_vec()
    }

    /// RFC 5869 in two lines: extract under a salt of zeros, expand to one block.
    #[test]
    fn a_data_key_has_one_manifest_key_which_tells_nothing_of_it() {
        let key = manifest_key(&data_key(1));
        assert!(key.ct_eq(manifest_key(&data_key(1)).expose()));
        assert!(!key.ct_eq(manifest_key(&data_key(2)).expose()));
        let extracted = hmac(&[0; 32], data_key(1).expose());
        assert_eq!(key.expose(), hmac(&extracted, &[INFO, &[1]].concat()));
        let shares = |key: &SecretBytes| data_key(1).expose().windows(16).any(|part| key.expose().starts_with(part));
        assert!(!shares(&key));
        assert!(shares(&without(Protection::KeyDerivation, || manifest_key(&data_key(1)))), "the twin is the data key");
    }

    #[test]
    fn a_manifest_key_rests_sealed_and_bound_to_its_lineage() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        let key = manifest_key(&data_key(1));
        let lineage = Lineage::begin(&home, &key).unwrap();
        assert!(lineage.manifest_key(&home).unwrap().ct_eq(key.expose()));
        assert!(!lineage.sealed.windows(16).any(|part| key.expose().windows(16).any(|secret| secret == part)));
        let again = Lineage::begin(&home, &key).unwrap();
        assert_ne!(lineage.sealed, again.sealed, "equal keys do not show");

        let moved = Lineage { id: again.id, ..lineage.clone() };
        assert!(moved.manifest_key(&home).unwrap_err().message().contains("is damaged"));
        for index in 0..lineage.sealed.len() {
            let mut changed = lineage.clone();
            changed.sealed[index] ^= 1;
            assert!(changed.manifest_key(&home).is_err(), "byte {index}");
        }
        assert!(Lineage { sealed: Vec::new(), ..lineage }.manifest_key(&home).is_err());
    }
}
