//! The key that signs digests: RSA with 2048 bits, PKCS #1 v1.5 and SHA-256 (RFC 8017, section 8.2), which CloudTrail
//! calls `SHA256withRSA`.

use rsa::Pkcs1v15Sign;
use rsa::pkcs1::{
    DecodeRsaPrivateKey as _, DecodeRsaPublicKey as _, EncodeRsaPrivateKey as _, EncodeRsaPublicKey as _,
};
use rsa::pkcs8::{DecodePublicKey as _, EncodePublicKey as _, LineEnding};
use rsa::sha2::{Digest as _, Sha256};

use crate::ids;
use crate::secret::SecretBytes;

/// The name of the algorithm in a digest file.
pub(super) const ALGORITHM: &str = "SHA256withRSA";

/// As many as CloudTrail's keys have.
const BITS: usize = 2048;

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The bytes are no RSA key in the form that was expected.
    #[error(
        "not an RSA public key: give what `trail public-key` prints (PEM), or the base64 that CloudTrail's ListPublicKeys gives"
    )]
    PublicKey,
    /// The signing key in the store does not open.
    #[error("the trail's signing key in the home's state is damaged")]
    SigningKey,
    /// The system's random generator, or the arithmetic, failed.
    #[error("the trail's signing key cannot be made or used: {0}")]
    Failed(String),
}

/// The private key. While it is in use its numbers are in ordinary memory, which the `rsa` crate wipes when it is dropped.
#[derive(Debug)]
pub struct SigningKey(rsa::PrivateKey);

impl SigningKey {
    /// A new key of 2048 bits.
    ///
    /// # Errors
    /// If the random generator fails.
    pub fn generate() -> Result<Self, SignatureError> {
        rsa::PrivateKey::new(&mut getrandom::SysRng, BITS)
            .map(Self)
            .map_err(|error| SignatureError::Failed(error.to_string()))
    }

    /// The key as PKCS #1 has it, in secret memory.
    ///
    /// # Errors
    /// None for a key that [`SigningKey::generate`] or [`SigningKey::from_der`] made.
    pub fn to_der(&self) -> Result<SecretBytes, SignatureError> {
        let der = self.0.to_pkcs1_der().map_err(|error| SignatureError::Failed(error.to_string()))?;
        let bytes = der.as_bytes();
        Ok(SecretBytes::new_with(bytes.len(), |secret| secret.copy_from_slice(bytes)))
    }

    /// The key that [`SigningKey::to_der`] gave.
    ///
    /// # Errors
    /// If the bytes are no such key.
    pub fn from_der(der: &SecretBytes) -> Result<Self, SignatureError> {
        rsa::PrivateKey::from_pkcs1_der(der.expose()).map(Self).map_err(|_| SignatureError::SigningKey)
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.to_public_key())
    }

    /// The signature of `text`, in lower-case hex.
    pub(super) fn sign(&self, text: &[u8]) -> Result<String, SignatureError> {
        let signature = self
            .0
            .sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(text))
            .map_err(|error| SignatureError::Failed(error.to_string()))?;
        Ok(ids::hex(&signature))
    }
}

/// The key against which digests are verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey(rsa::PublicKey);

impl PublicKey {
    /// Reads PEM (`BEGIN PUBLIC KEY` or `BEGIN RSA PUBLIC KEY`), or base64 of PKCS #1 as CloudTrail's `ListPublicKeys`.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        use base64::Engine as _;
        let text = text.trim();
        let read = if text.starts_with("-----BEGIN RSA") {
            rsa::PublicKey::from_pkcs1_pem(text).ok()
        } else if text.starts_with("-----") {
            rsa::PublicKey::from_public_key_pem(text).ok()
        } else {
            let der = base64::engine::general_purpose::STANDARD.decode(text).ok();
            der.and_then(|der| rsa::PublicKey::from_pkcs1_der(&der).ok())
        };
        read.map(Self).ok_or(SignatureError::PublicKey)
    }

    /// The key in PEM, as `openssl dgst -verify` takes it.
    ///
    /// # Errors
    /// None for a key that was read or made here.
    pub fn to_pem(&self) -> Result<String, SignatureError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|error| SignatureError::Failed(error.to_string()))
    }

    /// 32 hex digits, as many as CloudTrail's fingerprints have: the first half of the SHA-256 of the key in PKCS #1.
    /// CloudTrail does not say what its own are made of.
    ///
    /// # Errors
    /// None for a key that was read or made here.
    pub fn fingerprint(&self) -> Result<String, SignatureError> {
        let der = self.0.to_pkcs1_der().map_err(|error| SignatureError::Failed(error.to_string()))?;
        Ok(ids::hex(&Sha256::digest(der.as_bytes())[..16]))
    }

    /// Whether `signature`, in lower-case hex, is the key's over `text`.
    pub(super) fn verifies(&self, text: &[u8], signature: &str) -> bool {
        let lower = signature.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        ids::unhex(signature).is_some_and(|signature| {
            lower && self.0.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(text), &signature).is_ok()
        })
    }
}
