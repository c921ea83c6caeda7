//! The JSON area: writing ours, and accepting nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::binary::{BINARY_BYTES, Binary};
use super::digest::ITERATIONS;
use super::{COPY_BYTES, DATA_OFFSET, HEADER_BYTES, Header, HeaderError, KeyDigest, WrappedKey};
use crate::ids::is_uuid;
use crate::units::SectorSize;

const TOKEN_TYPE: &str = "aws-kms";
const CIPHER: &str = "aes-xts-plain64";
/// Tokens, segments and digests are numbered; the profile has one of each.
const ONLY: &str = "0";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    #[serde(deserialize_with = "unique")]
    keyslots: BTreeMap<String, Value>,
    #[serde(deserialize_with = "unique")]
    tokens: BTreeMap<String, Token>,
    #[serde(deserialize_with = "unique")]
    segments: BTreeMap<String, Segment>,
    #[serde(deserialize_with = "unique")]
    digests: BTreeMap<String, Check>,
    config: Config,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    r#type: String,
    keyslots: Vec<String>,
    ciphertext_blob: String,
    key_arn: String,
    #[serde(deserialize_with = "unique")]
    encryption_context: BTreeMap<String, String>,
    volume_bytes: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Segment {
    r#type: String,
    offset: String,
    size: String,
    iv_tweak: String,
    encryption: String,
    sector_size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    r#type: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u64,
    salt: String,
    digest: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    json_size: String,
    keyslots_size: String,
}

fn json_size() -> String {
    (COPY_BYTES - BINARY_BYTES).to_string()
}

fn keyslots_size() -> String {
    (DATA_OFFSET - HEADER_BYTES as u64).to_string()
}

pub(super) fn encode(header: &Header) -> Result<Vec<u8>, HeaderError> {
    let token = Token {
        r#type: TOKEN_TYPE.to_owned(),
        keyslots: Vec::new(),
        ciphertext_blob: BASE64.encode(&header.wrapped_key.blob),
        key_arn: header.wrapped_key.key_arn.clone(),
        encryption_context: header.wrapped_key.encryption_context.clone(),
        volume_bytes: header.length.to_string(),
    };
    let segment = Segment {
        r#type: "crypt".to_owned(),
        offset: DATA_OFFSET.to_string(),
        size: "dynamic".to_owned(),
        iv_tweak: "0".to_owned(),
        encryption: CIPHER.to_owned(),
        sector_size: header.sector_size.bytes() as u64,
    };
    let digest = Check {
        r#type: "pbkdf2".to_owned(),
        keyslots: header.keyslots.keys().cloned().collect(),
        segments: vec![ONLY.to_owned()],
        hash: "sha256".to_owned(),
        iterations: u64::from(ITERATIONS),
        salt: BASE64.encode(header.digest.salt),
        digest: BASE64.encode(header.digest.value),
    };
    let area = Area {
        keyslots: header.keyslots.clone(),
        tokens: BTreeMap::from([(ONLY.to_owned(), token)]),
        segments: BTreeMap::from([(ONLY.to_owned(), segment)]),
        digests: BTreeMap::from([(ONLY.to_owned(), digest)]),
        config: Config { json_size: json_size(), keyslots_size: keyslots_size() },
    };
    serde_json::to_vec(&area).map_err(HeaderError::Json)
}

/// Judges a JSON area (with its padding) field by field against the profile.
pub(super) fn decode(fields: Binary, padded: &[u8]) -> Result<Header, HeaderError> {
    let end = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
    let (json, padding) = padded.split_at(end);
    if padding.is_empty() || padding.iter().any(|byte| *byte != 0) {
        return Err(HeaderError::refused("the end of the JSON area", "not zero", "zero bytes"));
    }
    let shape: Value = serde_json::from_slice(json).map_err(HeaderError::Json)?;
    // serde would take a list of a struct's values for the struct; cryptsetup does not.
    for place in ["", "/segments/0", "/digests/0", "/tokens/0", "/config"] {
        if shape.pointer(place).is_some_and(|value| !value.is_object()) {
            return Err(HeaderError::refused("a part of the JSON area", "not an object", "an object"));
        }
    }
    let area: Area = serde_json::from_slice(json).map_err(HeaderError::Json)?;
    must_be("uuid", is_uuid(&fields.uuid), &fields.uuid, "a UUID")?;
    must_equal("config.json_size", &area.config.json_size, &json_size())?;
    must_equal("config.keyslots_size", &area.config.keyslots_size, &keyslots_size())?;

    let segment = only("the number of segments", area.segments)?;
    must_equal("segments.0.type", &segment.r#type, "crypt")?;
    must_equal("segments.0.offset", &segment.offset, &DATA_OFFSET.to_string())?;
    must_equal("segments.0.size", &segment.size, "dynamic")?;
    must_equal("segments.0.iv_tweak", &segment.iv_tweak, "0")?;
    must_equal("segments.0.encryption", &segment.encryption, CIPHER)?;
    let sector_size = SectorSize::from_bytes(segment.sector_size)
        .ok_or_else(|| HeaderError::refused("segments.0.sector_size", segment.sector_size, "512' or '4096"))?;

    let slots: Vec<_> = area.keyslots.keys().cloned().collect();
    let digest = only("the number of digests", area.digests)?;
    must_equal("digests.0.type", &digest.r#type, "pbkdf2")?;
    must_equal("digests.0.hash", &digest.hash, "sha256")?;
    must_equal("digests.0.iterations", &digest.iterations.to_string(), &ITERATIONS.to_string())?;
    must_equal("digests.0.segments", &digest.segments.join(","), ONLY)?;
    let mut bound = digest.keyslots.clone();
    bound.sort_unstable();
    must_equal("digests.0.keyslots", &bound.join(","), &slots.join(","))?;

    let token = only("the number of tokens", area.tokens)?;
    must_equal("tokens.0.type", &token.r#type, TOKEN_TYPE)?;
    must_equal("tokens.0.keyslots", &token.keyslots.join(","), "")?;
    let length = token.volume_bytes.parse::<u64>().ok().filter(|length| length.to_string() == token.volume_bytes);
    let length =
        length.ok_or_else(|| HeaderError::refused("tokens.0.volume_bytes", &token.volume_bytes, "a number"))?;
    let blob = BASE64.decode(&token.ciphertext_blob);
    let blob = blob.map_err(|error| HeaderError::refused("tokens.0.ciphertext_blob", error, "base64"))?;

    Ok(Header {
        seqid: fields.seqid,
        label: fields.label,
        subsystem: fields.subsystem,
        uuid: fields.uuid,
        sector_size,
        length,
        digest: KeyDigest {
            salt: bytes32("digests.0.salt", &digest.salt)?,
            value: bytes32("digests.0.digest", &digest.digest)?,
        },
        wrapped_key: WrappedKey { blob, key_arn: token.key_arn, encryption_context: token.encryption_context },
        keyslots: area.keyslots,
    })
}

fn must_be(field: &'static str, is: bool, found: &str, wanted: &str) -> Result<(), HeaderError> {
    if is { Ok(()) } else { Err(HeaderError::refused(field, found, wanted)) }
}

fn must_equal(field: &'static str, found: &str, wanted: &str) -> Result<(), HeaderError> {
    must_be(field, found == wanted, found, wanted)
}

fn only<T>(field: &'static str, mut map: BTreeMap<String, T>) -> Result<T, HeaderError> {
    match (map.len(), map.remove(ONLY)) {
        (1, Some(value)) => Ok(value),
        (count, _) => Err(HeaderError::refused(field, count, "1, numbered 0")),
    }
}

fn bytes32(field: &'static str, text: &str) -> Result<[u8; 32], HeaderError> {
    let bytes = BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| HeaderError::refused(field, text, "32 bytes in base64"))
}

/// A JSON object no key of which stands twice: parsers differ in which of the two they take.
fn unique<'de, D: Deserializer<'de>, V: DeserializeOwned>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error> {
    struct Unique<V>(PhantomData<V>);
    impl<'de, V: DeserializeOwned> Visitor<'de> for Unique<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, V>()? {
                if map.insert(key.clone(), value).is_some() {
                    return Err(A::Error::custom(format_args!("the key '{key}' stands twice")));
                }
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique(PhantomData))
}
