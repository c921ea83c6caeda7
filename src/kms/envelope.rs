//! The envelope: a fresh key derived for every ciphertext, AES-256-GCM under it, and the bytes of a ciphertext blob.
//!
//! SP 800-108 counter mode with HMAC-SHA-256 derives the key from a backing key and a random 128-bit nonce, as AWS KMS does
//! (AWS KMS Cryptographic Details, "Encrypt"). The layout of the blob is ours: `docs/ciphertext-blob.md`.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::secret::{SecretBox, SecretBytes, wipe_stack};
use crate::twin::{self, Protection};

use super::context::EncryptionContext;

const NONCE_BYTES: usize = 16;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// A sealed secret in our own store: nonce, IV, ciphertext, tag.
const SEALED_OVERHEAD: usize = NONCE_BYTES + IV_BYTES + TAG_BYTES;

/// Length of a key id: a UUID, or `mrk-` and 32 hex digits.
pub(super) const KEY_ID_BYTES: usize = 36;
const MATERIAL_ID_BYTES: usize = 32;
const CHECK_BYTES: usize = 8;

/// The first bytes of every blob: three letters and the version.
const MAGIC: [u8; 4] = *b"BSK\x01";
const HEADER_BYTES: usize = MAGIC.len() + KEY_ID_BYTES + MATERIAL_ID_BYTES;

/// Shortest blob: of an empty plaintext, which no operation makes but which the format has.
const SHORTEST_BLOB: usize = HEADER_BYTES + SEALED_OVERHEAD + CHECK_BYTES;

const DATA_LABEL: &[u8] = b"blockseal kms data v1";

/// The bytes are no ciphertext of ours, or not under this key and context. AWS gives no further reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a ciphertext under this key and context")]
pub(super) struct Damaged;

/// Which key and which of its materials a blob was made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BlobHeader {
    pub(super) key_id: String,
    /// 64 hex digits, as `KeyMaterialId` has them.
    pub(super) material_id: String,
}

/// Encrypts `plaintext` under `backing` and binds it to `header` and `context`.
///
/// # Errors
/// The random generator's.
pub(super) fn encrypt(
    backing: &SecretBytes,
    header: &BlobHeader,
    context: &EncryptionContext,
    plaintext: &[u8],
) -> Result<Vec<u8>, getrandom::Error> {
    let mut blob = header_bytes(header);
    let sealed = seal(backing, DATA_LABEL, &associated(&blob, context), plaintext)?;
    blob.extend_from_slice(&sealed);
    let check = check(&blob);
    blob.extend_from_slice(&check);
    Ok(blob)
}

/// Reads which key a blob belongs to, after comparing the check over all of its bytes.
///
/// The check is a hash without a key: it tells damage, so that a flipped bit in the key id is a damaged ciphertext and not
/// an unknown key. It keeps no forger out; the tag, which binds the same header, does.
pub(super) fn parse(blob: &[u8]) -> Result<BlobHeader, Damaged> {
    if blob.len() < SHORTEST_BLOB || blob[..MAGIC.len()] != MAGIC {
        return Err(Damaged);
    }
    let (body, found) = blob.split_at(blob.len() - CHECK_BYTES);
    if found != check(body) && !twin::is_off(Protection::BlobCheck) {
        return Err(Damaged);
    }
    let (key_id, material_id) = body[MAGIC.len()..HEADER_BYTES].split_at(KEY_ID_BYTES);
    let key_id = std::str::from_utf8(key_id).map_err(|_| Damaged)?.to_owned();
    Ok(BlobHeader { key_id, material_id: crate::ids::hex(material_id) })
}

/// Decrypts a blob that [`parse`] accepted.
pub(super) fn decrypt(backing: &SecretBytes, context: &EncryptionContext, blob: &[u8]) -> Result<SecretBytes, Damaged> {
    if blob.len() < SHORTEST_BLOB {
        return Err(Damaged);
    }
    let sealed = &blob[HEADER_BYTES..blob.len() - CHECK_BYTES];
    open(backing, DATA_LABEL, &associated(&blob[..HEADER_BYTES], context), sealed)
}

fn header_bytes(header: &BlobHeader) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(header.key_id.as_bytes());
    bytes.extend(crate::ids::unhex(&header.material_id).unwrap_or_default());
    assert!(bytes.len() == HEADER_BYTES, "key ids have 36 bytes and material ids 64 hex digits where they are made");
    bytes
}

fn associated(header: &[u8], context: &EncryptionContext) -> Vec<u8> {
    if twin::is_off(Protection::Context) {
        return header.to_vec();
    }
    // The header has a fixed length, so that no two pairs of header and context give the same bytes.
    [header, &context.canonical()].concat()
}

fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(b"blockseal blob check v1").chain_update(body).finalize();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

/// Seals `plaintext` under a key derived from `key` for this one use: nonce, IV, ciphertext, tag.
///
/// # Errors
/// The random generator's.
pub(super) fn seal(
    key: &SecretBytes,
    label: &[u8],
    associated: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, getrandom::Error> {
    let mut sealed = vec![0; SEALED_OVERHEAD + plaintext.len()];
    let (prefix, rest) = sealed.split_at_mut(NONCE_BYTES + IV_BYTES);
    if !twin::is_off(Protection::Nonce) {
        getrandom::fill(prefix)?;
    }
    let (nonce, iv) = prefix.split_at(NONCE_BYTES);
    let (ciphertext, tag) = rest.split_at_mut(plaintext.len());
    let cipher = cipher(key, label, nonce);
    let buffer = InOutBuf::new(plaintext, ciphertext).expect("the ciphertext was cut to the plaintext's length");
    let made = cipher
        .expose()
        .encrypt_inout_detached(&iv_of(iv), associated, buffer)
        .expect("GCM takes 64 GiB, and requests are limited to kilobytes");
    tag.copy_from_slice(&made);
    wipe_stack();
    Ok(sealed)
}

/// Opens what [`seal`] sealed with the same key, label and associated bytes.
pub(super) fn open(key: &SecretBytes, label: &[u8], associated: &[u8], sealed: &[u8]) -> Result<SecretBytes, Damaged> {
    let length = sealed.len().checked_sub(SEALED_OVERHEAD).ok_or(Damaged)?;
    let (nonce, rest) = sealed.split_at(NONCE_BYTES);
    let (iv, rest) = rest.split_at(IV_BYTES);
    let (ciphertext, tag) = rest.split_at(length);
    let tag = Tag::try_from(tag).map_err(|_| Damaged)?;
    let cipher = cipher(key, label, nonce);
    let opened = SecretBytes::try_new_with(length, |plaintext| {
        let buffer = InOutBuf::new(ciphertext, plaintext).map_err(|_| Damaged)?;
        if twin::is_off(Protection::Tag) {
            // Counter mode is its own inverse: encrypting the ciphertext decrypts it without looking at the tag.
            return cipher
                .expose()
                .encrypt_inout_detached(&iv_of(iv), associated, buffer)
                .map(drop)
                .map_err(|_| Damaged);
        }
        cipher.expose().decrypt_inout_detached(&iv_of(iv), associated, buffer, &tag).map_err(|_| Damaged)
    });
    wipe_stack();
    opened
}

fn iv_of(iv: &[u8]) -> Nonce<<Aes256Gcm as aes_gcm::aead::AeadCore>::NonceSize> {
    Nonce::try_from(iv).expect("the IV is cut to 12 bytes")
}

fn cipher(key: &SecretBytes, label: &[u8], nonce: &[u8]) -> SecretBox<Aes256Gcm> {
    let derived = derive(key, label, nonce);
    SecretBox::new(|| Aes256Gcm::new_from_slice(derived.expose()).expect("the derived key has 32 bytes"))
}

/// 256 bits by SP 800-108 (revision 1, section 4.1) in counter mode, whose fixed input is
/// `label || 0x00 || context || length in bits (32 bits, 256)`.
pub(super) fn derive(key: &SecretBytes, label: &[u8], context: &[u8]) -> SecretBytes {
    first_block(key, &[label, &[0], context, &256u32.to_be_bytes()])
}

/// The first block of SP 800-108 counter mode: HMAC-SHA-256 over the 32-bit counter 1 and the fixed input.
fn first_block(key: &SecretBytes, fixed_input: &[&[u8]]) -> SecretBytes {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
    mac.update(&1u32.to_be_bytes());
    for part in fixed_input {
        mac.update(part);
    }
    let mut block = mac.finalize().into_bytes();
    let derived = SecretBytes::take_from(&mut block);
    wipe_stack();
    derived
}

/// A fingerprint of `key` that tells nothing else of it: 32 hex digits.
pub(super) fn fingerprint(key: &SecretBytes) -> String {
    crate::ids::hex(&derive(key, b"blockseal fingerprint v1", b"").expose()[..16])
}

/// Whether two fingerprints are the same.
pub(super) fn same_fingerprint(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    fn secret(bytes: &[u8]) -> SecretBytes {
        SecretBytes::take_from(&mut bytes.to_vec())
    }

    #[test]
    fn the_kdf_gives_the_published_blocks() {
        let file = include_str!("../../fixtures/kms/nist-cavp-kbkdf-ctr-hmac-sha256.txt");
        let mut seen = 0;
        let mut fields = BTreeMap::new();
        for line in file.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.split_once(" = ") else { continue };
            fields.insert(name, value);
            if name == "KO" {
                let input = hex::decode(fields["FixedInputData"]).unwrap();
                let block = first_block(&secret(&hex::decode(fields["KI"]).unwrap()), &[&input]);
                let wanted = hex::decode(value).unwrap();
                assert_eq!(&block.expose()[..wanted.len()], wanted, "COUNT {}", fields["COUNT"]);
                seen += 1;
            }
        }
        assert_eq!(seen, 20);
    }

    #[derive(Deserialize)]
    struct Case {
        key_id: String,
        context: EncryptionContext,
        blob: String,
        backing: String,
        material_id: String,
        plaintext: String,
    }

    /// The blobs were made by another implementation, in `fixtures/kms/make-blob.py`.
    #[test]
    fn blobs_of_another_implementation_open() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../fixtures/kms/blob-v1.json")).unwrap();
        assert_eq!(cases.len(), 4);
        for case in cases {
            let blob = hex::decode(case.blob).unwrap();
            let header = BlobHeader { key_id: case.key_id, material_id: case.material_id };
            assert_eq!(parse(&blob), Ok(header));
            let backing = secret(&hex::decode(case.backing).unwrap());
            let opened = decrypt(&backing, &case.context, &blob).unwrap();
            assert_eq!(hex::encode(opened.expose()), case.plaintext);
        }
    }

    fn header() -> BlobHeader {
        BlobHeader { key_id: "1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(), material_id: "5a".repeat(32) }
    }

    fn sample() -> (SecretBytes, EncryptionContext, Vec<u8>) {
        let backing = secret(&[7; 32]);
        let context: EncryptionContext = [("aws:ebs:id", "vol-12345678")].into_iter().collect();
        let blob = encrypt(&backing, &header(), &context, b"sixty-four bytes or fewer").unwrap();
        (backing, context, blob)
    }

    fn opens(backing: &SecretBytes, context: &EncryptionContext, blob: &[u8]) -> bool {
        parse(blob).is_ok() && decrypt(backing, context, blob).is_ok()
    }

    /// How many single-bit changes of a blob are not noticed. `forge` recomputes the check, as whoever changes a blob can.
    fn unnoticed_flips(forge: bool) -> usize {
        let (backing, context, blob) = sample();
        assert!(opens(&backing, &context, &blob));
        let flipped = |bit: &usize| {
            let mut changed = blob.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if forge {
                let body = changed.len() - CHECK_BYTES;
                let check = check(&changed[..body]);
                changed[body..].copy_from_slice(&check);
            }
            opens(&backing, &context, &changed)
        };
        let bits = if forge { (blob.len() - CHECK_BYTES) * 8 } else { blob.len() * 8 };
        (0..bits).filter(flipped).count()
    }

    #[test]
    fn every_flipped_bit_is_noticed_with_and_without_a_forged_check() {
        assert_eq!(unnoticed_flips(false), 0);
        assert_eq!(unnoticed_flips(true), 0);
        // Twins: a check that is not compared lets its own 64 bits change; a tag that is not checked lets ciphertext,
        // tag, nonce, IV, material id and most of the key id change.
        assert_eq!(twin::without(Protection::BlobCheck, || unnoticed_flips(false)), CHECK_BYTES * 8);
        assert!(twin::without(Protection::Tag, || unnoticed_flips(true)) > (NONCE_BYTES + IV_BYTES + TAG_BYTES) * 8);
    }

    #[test]
    fn no_other_length_opens() {
        let (backing, context, blob) = sample();
        for length in 0..blob.len() {
            assert!(!opens(&backing, &context, &blob[..length]), "cut to {length}");
            assert!(!opens(&backing, &context, &blob[blob.len() - length..]), "the last {length}");
        }
        for more in 1..40 {
            assert!(!opens(&backing, &context, &[blob.clone(), vec![0; more]].concat()));
        }
    }

    #[test]
    fn two_encryptions_share_no_block() {
        let share = || {
            let (backing, context, _) = sample();
            let plaintext = b"sixty-four bytes or fewer";
            let body = || encrypt(&backing, &header(), &context, plaintext).unwrap()[HEADER_BYTES..].to_vec();
            let (one, other) = (body(), body());
            one.windows(8).any(|run| other.windows(8).any(|seen| seen == run))
        };
        assert!(!share());
        assert!(twin::without(Protection::Nonce, share));
    }

    /// Random and mutated bytes through parser and decryption. `BLOCKSEAL_FUZZ_ROUNDS` makes it longer.
    #[test]
    fn arbitrary_bytes_do_no_harm() {
        let rounds =
            std::env::var("BLOCKSEAL_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000u32);
        let (backing, context, blob) = sample();
        let mut random = vec![0; 512];
        for round in 0..rounds {
            if round % 16 == 0 {
                getrandom::fill(&mut random).unwrap();
            }
            let at = usize::from(random[0]) % blob.len();
            let length = usize::from(random[1]) % 32;
            let mut bytes = if round % 3 == 0 { random[..usize::from(random[2]) * 2].to_vec() } else { blob.clone() };
            let end = (at + length).min(bytes.len());
            let start = at.min(end);
            bytes[start..end].copy_from_slice(&random[start..end]);
            if round % 5 == 0 && bytes.len() > CHECK_BYTES {
                let body = bytes.len() - CHECK_BYTES;
                let check = check(&bytes[..body]);
                bytes[body..].copy_from_slice(&check);
            }
            random.rotate_left(7);
            assert_eq!(opens(&backing, &context, &bytes), bytes == blob);
        }
    }

    proptest! {
        #[test]
        fn what_was_encrypted_comes_back_under_its_context_only(
            plaintext in prop::collection::vec(any::<u8>(), 0..200),
            context in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4),
            other in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4),
        ) {
            let backing = secret(&[9; 32]);
            let (context, other) = (EncryptionContext(context), EncryptionContext(other));
            let blob = encrypt(&backing, &header(), &context, &plaintext).unwrap();
            let opened = decrypt(&backing, &context, &blob).unwrap();
            prop_assert_eq!(opened.expose(), &plaintext[..]);
            prop_assert_eq!(decrypt(&backing, &other, &blob).is_ok(), other == context);
            prop_assert!(decrypt(&secret(&[8; 32]), &context, &blob).is_err());
        }
    }

    #[test]
    fn a_context_that_is_not_bound_can_be_swapped() {
        let attack = || {
            let (backing, _, blob) = sample();
            opens(&backing, &EncryptionContext::default(), &blob)
        };
        assert!(!attack());
        assert!(twin::without(Protection::Context, attack));
    }
}
