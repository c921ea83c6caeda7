//! Byte strings of the API, base64 in their serialised form: ciphertexts as [`Blob`], plaintexts as [`SecretBlob`].

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::secret::SecretBytes;

/// Bytes that are no secret, such as a ciphertext.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| serde::de::Error::custom("expected bytes in base64"))
    }
}

/// Bytes that are a secret. Serialising them writes the plaintext out: that is what the caller of the operation asked for,
/// and the only way in which a plaintext leaves.
///
/// Deserialising one of more than the 4096 bytes that Encrypt takes keeps its length alone, for the operation to refuse.
#[derive(Debug)]
pub struct SecretBlob(pub SecretBytes, Option<usize>);

/// The most bytes that Encrypt takes (AWS KMS API reference, "Encrypt", `Plaintext`).
pub(super) const MAX_PLAINTEXT_BYTES: usize = 4096;

impl From<SecretBytes> for SecretBlob {
    fn from(secret: SecretBytes) -> Self {
        Self(secret, None)
    }
}

impl SecretBlob {
    /// How many bytes were given, also where they were too many to be kept.
    pub fn given_bytes(&self) -> usize {
        self.1.unwrap_or(self.0.len())
    }

    /// Moves `plain` in and wipes the place it came from.
    pub fn take_from(plain: &mut [u8]) -> Self {
        SecretBytes::take_from(plain).into()
    }
}

impl Serialize for SecretBlob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for SecretBlob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // Decoded into wiped memory first: the length is known only afterwards, and secret memory has a fixed one.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        STANDARD
            .decode_vec(text.as_bytes(), &mut bytes)
            .map_err(|_| serde::de::Error::custom("expected bytes in base64"))?;
        if bytes.len() > MAX_PLAINTEXT_BYTES {
            return Ok(Self(SecretBytes::take_from(&mut []), Some(bytes.len())));
        }
        Ok(Self::take_from(&mut bytes))
    }
}
