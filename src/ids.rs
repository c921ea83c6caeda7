//! AWS-shaped identifiers. What we accept is wider than what we make: older and sample ids are shorter.
//!
//! Sources: the EC2 API reference (`vol-`, `i-`: 17 hex digits, 8 before 2016), the RDS user guide (`db-`, made as 26
//! letters of base32), the KMS guide (key ids are UUIDs or `mrk-` and 32 hex digits), the IAM guide (ARNs).

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A string that is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not {wanted}")]
pub struct IdError {
    given: String,
    wanted: &'static str,
}

/// What an id is drawn for. Each kind has a sequence of its own, so that what one kind draws shifts no other's ids.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Uuid,
    Request,
    Event,
    Hex64,
    AccessKey,
    Volume,
    Instance,
    DbInstance,
}

/// Ids that are the same for the same seed: the n-th of a kind is a hash of the seed, the kind and n.
#[derive(Debug)]
struct Sequence {
    seed: u64,
    /// How many were drawn, by kind.
    drawn: [AtomicU64; 8],
}

impl Sequence {
    const fn new(seed: u64) -> Self {
        Self { seed, drawn: [const { AtomicU64::new(0) }; 8] }
    }

    fn draw(&self, kind: Kind) -> [u8; 32] {
        let number = self.drawn[kind as usize].fetch_add(1, Ordering::Relaxed);
        let hash = Sha256::new_with_prefix("blockseal ids");
        hash.chain_update(self.seed.to_le_bytes())
            .chain_update([kind as u8])
            .chain_update(number.to_le_bytes())
            .finalize()
            .into()
    }
}

/// The sequence of a process whose ids are fixed.
static FIXED: OnceLock<Sequence> = OnceLock::new();

/// From here on the ids that this process makes are those of `seed`, from its first. A process has one seed: a later one
/// starts the first seed's ids again.
///
/// Nothing but ids follows from it: keys, nonces, salts, tokens and secret access keys are drawn elsewhere, from the operating
/// system. Whoever keeps a home beyond the process must not fix its ids: the next process would make them again.
pub fn fix(seed: u64) {
    let sequence = FIXED.get_or_init(|| Sequence::new(seed));
    sequence.drawn.iter().for_each(|drawn| drawn.store(0, Ordering::Relaxed));
}

/// Bytes for an id. Ids are no secrets, but a generator that fails is a machine on which nothing else is safe.
fn draw(kind: Kind) -> [u8; 32] {
    if let Some(sequence) = FIXED.get() {
        return sequence.draw(kind);
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system's random generator answers (getrandom(2) after boot)");
    bytes
}

fn draw_16(kind: Kind) -> [u8; 16] {
    *draw(kind).first_chunk().expect("32 bytes are more than 16")
}

fn draw_hex(kind: Kind, digits: usize) -> String {
    hex(&draw(kind))[..digits].to_owned()
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        text
    })
}

/// The bytes that hexadecimal `digits` of either case spell; `None` if they are odd in number or not all digits.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

/// A random version 4 UUID (RFC 9562), as KMS key ids are.
pub fn uuid() -> String {
    uuid_of(draw_16(Kind::Uuid), 4)
}

/// The same for a request.
pub fn request_id() -> String {
    uuid_of(draw_16(Kind::Request), 4)
}

/// A version 7 UUID (RFC 9562): the time of an event, in milliseconds since 1970, and random bits. So an event is found by
/// its id without an index of random ids, into which every insertion would touch another page.
pub fn event_id(millis: i64) -> String {
    let mut bytes = draw_16(Kind::Event);
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    uuid_of(bytes, 7)
}

/// The time, in milliseconds since 1970, that an id made by [`event_id`] tells; `None` for other UUIDs and other text.
pub fn time_of_event_id(text: &str) -> Option<i64> {
    let digits = text.get(..8).zip(text.get(9..13)).filter(|_| is_uuid(text) && text.as_bytes()[14] == b'7');
    digits.and_then(|(high, low)| i64::from_str_radix(&format!("{high}{low}"), 16).ok())
}

fn uuid_of(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = hex(&bytes);
    for hyphen in [20, 16, 12, 8] {
        text.insert(hyphen, '-');
    }
    text
}

/// Whether `text` has the shape of a UUID.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A string of 64 random hex digits, as grant ids and key material ids are.
pub fn hex64() -> String {
    draw_hex(Kind::Hex64, 64)
}

/// A new access key id: `prefix` (`AKIA`, or `ASIA` for a session) and 16 letters A-Z and digits 2-7.
pub fn access_key_id(prefix: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let letters = draw_16(Kind::AccessKey).map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
    prefix.chars().chain(letters).collect()
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $wanted:literal, $accepts:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let accepts: fn(&str) -> bool = $accepts;
                if accepts(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError { given: text.chars().take(80).collect(), wanted: $wanted })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// `prefix` and then 8 or 17 lower-case hex digits.
fn is_resource_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| matches!(digits.len(), 8 | 17) && is_lower_hex(digits))
}

string_id!(
    /// An EBS volume: `vol-` and 17 hex digits (8 in older accounts and samples).
    VolumeId,
    "a volume id: vol- and 8 or 17 hex digits",
    |text| is_resource_id(text, "vol-")
);
string_id!(
    /// An EC2 instance: `i-` and 17 hex digits (8 in older accounts).
    InstanceId,
    "an instance id: i- and 8 or 17 hex digits",
    |text| is_resource_id(text, "i-")
);
string_id!(
    /// An EBS snapshot: `snap-` and 17 hex digits (8 in older accounts).
    SnapshotId,
    "a snapshot id: snap- and 8 or 17 hex digits",
    |text| is_resource_id(text, "snap-")
);
string_id!(
    /// The immutable id of a DB instance, the value of `aws:rds:db-id`: `db-` and letters A-Z and digits.
    DbiResourceId,
    "a DB instance resource id: db- and letters A-Z or digits, at most 255 in all",
    |text| {
        text.strip_prefix("db-").is_some_and(|rest| {
            !rest.is_empty() && rest.len() <= 252 && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        })
    }
);
string_id!(
    /// An AWS account: 12 digits.
    AccountId,
    "an account id: 12 digits",
    |text| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
);
string_id!(
    /// An AWS Region such as `us-east-1`.
    Region,
    "a Region such as us-east-1",
    |text| {
        let parts: Vec<_> = text.split('-').collect();
        text.len() <= 32
            && parts.len() >= 3
            && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
            && parts.last().is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
    }
);

impl VolumeId {
    /// A new random volume id of 17 digits.
    pub fn random() -> Self {
        Self(format!("vol-{}", draw_hex(Kind::Volume, 17)))
    }
}

impl InstanceId {
    /// A new random instance id of 17 digits.
    pub fn random() -> Self {
        Self(format!("i-{}", draw_hex(Kind::Instance, 17)))
    }
}

impl DbiResourceId {
    /// A new random id: `db-` and the 26 base32 letters of 16 random bytes (the form is inferred from published samples).
    pub fn random() -> Self {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let number = u128::from_be_bytes(draw_16(Kind::DbInstance));
        // 26 letters are 130 bits: the last letter carries three bits of the number and two zero bits.
        let mut id = String::from("db-");
        for letter in 0..26u32 {
            let shift = 123i64 - 5 * i64::from(letter);
            let index = if shift >= 0 { number >> shift & 31 } else { number << 2 & 31 };
            id.push(char::from(ALPHABET[(index & 31) as usize]));
        }
        Self(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_are_accepted() {
        for _ in 0..100 {
            assert!(VolumeId::random().as_str().parse::<VolumeId>().is_ok());
            let db = DbiResourceId::random();
            assert_eq!(db.as_str().len(), 29);
            assert!(db.as_str().parse::<DbiResourceId>().is_ok());
            assert!(
                matches!(db.as_str().as_bytes()[28], b'A' | b'E' | b'I' | b'M' | b'Q' | b'U' | b'Y' | b'4'),
                "{db}"
            );
            assert!(is_uuid(&uuid()));
        }
    }

    #[test]
    fn the_ids_of_a_seed_are_the_same_and_those_of_a_kind_move_no_others() {
        let (one, same, other) = (Sequence::new(7), Sequence::new(7), Sequence::new(8));
        let first = one.draw(Kind::Volume);
        assert_ne!(first, one.draw(Kind::Volume));
        assert_ne!(first, one.draw(Kind::Instance));
        assert_ne!(first, other.draw(Kind::Volume));
        same.draw(Kind::Request);
        assert_eq!(first, same.draw(Kind::Volume));
    }

    #[test]
    fn documented_sample_ids_are_accepted() {
        assert!("vol-ad8c6542".parse::<VolumeId>().is_ok());
        assert!("db-CQYSMDPBRZ7BPMH7Y3RTDG5QY".parse::<DbiResourceId>().is_ok());
        assert!("db-BRG7VYS3SVIFQW7234EJQOM5RQ".parse::<DbiResourceId>().is_ok());
        assert!("us-east-1".parse::<Region>().is_ok() && "us-gov-west-1".parse::<Region>().is_ok());
    }

    #[test]
    fn other_shapes_are_refused_by_name() {
        for bad in
            ["", "vol-", "vol-XYZ", "vol-1234567", "vol-123456789", "snap-12345678", "vol-1234567g", "../vol-12345678"]
        {
            let error = bad.parse::<VolumeId>().unwrap_err();
            assert!(error.to_string().contains("a volume id"), "{error}");
        }
        assert!("db-".parse::<DbiResourceId>().is_err() && "db-abc".parse::<DbiResourceId>().is_err());
        assert!("12345".parse::<AccountId>().is_err() && "us-east".parse::<Region>().is_err());
    }
}
