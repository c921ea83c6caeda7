//! Wrapping of key material that is imported: the RSA key pair, and unwrapping what was wrapped under it (AWS KMS
//! developer guide, "Select a wrapping algorithm"; RFC 8017 for OAEP, RFC 5649 for AES key wrap with padding).
//!
//! The private key is sealed when it rests. While one call runs, the `rsa` crate holds it in memory of its own, which it
//! wipes afterwards and which is not locked.

use aes_kw::KwpAes256;
use aes_kw::cipher::KeyInit as _;
use getrandom::SysRng;
use rsa::PrivateKey;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::gate::ServiceError;
use crate::secret::SecretBytes;

/// The longest material, wrapped or not, that is looked at: what a request can hold.
const MOST_BYTES: usize = 6144;

/// How material is wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    /// RSA-OAEP with SHA-1.
    OaepSha1,
    /// RSA-OAEP with SHA-256.
    OaepSha256,
    /// An AES key under RSA-OAEP with SHA-1, and the material under it.
    AesKeyWrapSha1,
    /// An AES key under RSA-OAEP with SHA-256, and the material under it.
    AesKeyWrapSha256,
}

impl Algorithm {
    const ALL: [Self; 4] = [Self::OaepSha1, Self::OaepSha256, Self::AesKeyWrapSha1, Self::AesKeyWrapSha256];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OaepSha1 => "RSAES_OAEP_SHA_1",
            Self::OaepSha256 => "RSAES_OAEP_SHA_256",
            Self::AesKeyWrapSha1 => "RSA_AES_KEY_WRAP_SHA_1",
            Self::AesKeyWrapSha256 => "RSA_AES_KEY_WRAP_SHA_256",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    const fn wraps_a_key(self) -> bool {
        matches!(self, Self::AesKeyWrapSha1 | Self::AesKeyWrapSha256)
    }
}

/// A fresh pair of `bits`: the private key in PKCS#8, the public one as a `SubjectPublicKeyInfo`, both DER.
pub(super) fn generate(bits: usize) -> Result<(SecretBytes, Vec<u8>), ServiceError> {
    let private = PrivateKey::new(&mut SysRng, bits).map_err(ServiceError::machine)?;
    let public = private.to_public_key().to_public_key_der().map_err(ServiceError::machine)?;
    let der = private.to_pkcs8_der().map_err(ServiceError::machine)?;
    let mut der = Zeroizing::new(der.as_bytes().to_vec());
    Ok((SecretBytes::take_from(&mut der), public.into_vec()))
}

/// What was wrapped under the public key of `private`; `None` if it does not open, whatever the reason.
pub(super) fn unwrap(private: &SecretBytes, algorithm: Algorithm, wrapped: &[u8]) -> Option<SecretBytes> {
    let private = PrivateKey::from_pkcs8_der(private.expose()).ok()?;
    let modulus_bytes = rsa::traits::PublicKeyParts::size(&private);
    let (first, rest) = wrapped.split_at_checked(modulus_bytes)?;
    if rest.is_empty() == algorithm.wraps_a_key() || rest.len() > MOST_BYTES {
        return None;
    }
    let opened = match algorithm {
        Algorithm::OaepSha1 | Algorithm::AesKeyWrapSha1 => private.oaep_decrypt::<Sha1>(first),
        Algorithm::OaepSha256 | Algorithm::AesKeyWrapSha256 => private.oaep_decrypt::<Sha256>(first),
    };
    let mut opened = Zeroizing::new(opened.ok()?);
    if !algorithm.wraps_a_key() {
        return Some(SecretBytes::take_from(&mut opened));
    }
    let key = KwpAes256::new_from_slice(&opened).ok()?;
    let mut material = Zeroizing::new(vec![0; rest.len().checked_sub(8)?]);
    let length = key.unwrap_key(rest, &mut material).ok()?.len();
    Some(SecretBytes::take_from(&mut material[..length]))
}
