//! Credentials: made here, sealed under the root key at rest, found by their access key id.
//!
//! A secret access key is 40 letters of base64 over 30 bytes from the operating system. It leaves twice: in the answer of
//! the operation that makes it, and to whoever verifies a signature in this process.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::{OptionalExtension as _, Row, params};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::clock::Time;
use crate::gate::{Call, Credential, ServiceError};
use crate::iam::Principal;
use crate::iam::directory::{Entity, EntityKind};
use crate::ids::{self, AccountId, Region};
use crate::kms::RootKey;
use crate::secret::SecretBytes;
use crate::store::{self, Home, StoreError, Transaction};
use crate::twin::{self, Protection};

/// What the root key binds a sealed secret to, beside the access key id.
const PURPOSE: &str = "secret access key";

/// Bytes behind a secret access key and behind a session token.
const SECRET_BYTES: usize = 30;
const TOKEN_BYTES: usize = 192;

/// The setting that counts changes of what [`find`] answers.
const EPOCH: &str = "credentials_epoch";

/// Text that is a secret: a secret access key or a session token. Serialising it writes it out, which is what the caller
/// of the operation asked for.
#[derive(Debug)]
pub struct SecretText(SecretBytes);

impl SecretText {
    /// `bytes` random bytes in base64, made in secret memory.
    fn random(bytes: usize) -> Result<Self, ServiceError> {
        let raw = SecretBytes::random(bytes).map_err(ServiceError::machine)?;
        let text = SecretBytes::try_new_with(bytes.div_ceil(3) * 4, |text| {
            STANDARD.encode_slice(raw.expose(), text).map(drop)
        });
        text.map(Self).map_err(ServiceError::machine)
    }
}

impl SecretText {
    /// Whether it has no letters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is `other`, in time that depends on the length alone.
    pub fn is(&self, other: &SecretBytes) -> bool {
        self.0.ct_eq(other.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Ok(Self(SecretBytes::new_with(text.len(), |bytes| bytes.copy_from_slice(text.as_bytes()))))
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(self.0.expose()).map_err(serde::ser::Error::custom)?)
    }
}

/// Credentials that are good: active, not expired, and with the session token that belongs to them.
#[derive(Debug)]
pub struct Credentials {
    /// `AKIA…`, or `ASIA…` of a session.
    pub access_key_id: String,
    /// The secret access key: 40 ASCII letters.
    pub secret: SecretBytes,
    /// Whose they are.
    pub principal: Principal,
    /// When a session's were issued.
    pub issued: Option<Time>,
    /// When a session's end.
    pub expires: Option<Time>,
    /// The ARN of a session's role.
    issuer: Option<String>,
    token_hash: Option<Vec<u8>>,
}

impl Credentials {
    /// A direct call by whoever has them.
    pub fn call<'h>(&self, home: &'h Home, region: Region) -> Call<'h> {
        Call { credential: Some(self.shown()), ..Call::direct(home, self.principal.clone(), region) }
    }

    /// What a call's record and policies see of them.
    pub fn shown(&self) -> Credential {
        Credential { access_key_id: self.access_key_id.clone(), issued: self.issued, issuer: self.issuer.clone() }
    }

    /// Whether a session's are over at `now`.
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now) && !twin::is_off(Protection::Expiry)
    }

    /// Whether `session_token` is what belongs to them: a session's own, and none to an access key. The comparison takes as
    /// long whatever was sent.
    pub fn token_fits(&self, session_token: Option<&str>) -> bool {
        match (&self.token_hash, session_token) {
            (None, None) => true,
            (Some(_), _) if twin::is_off(Protection::SessionToken) => true,
            (Some(hash), Some(token)) => hash.ct_eq(&Sha256::digest(token)).into(),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

/// Why an access key id leads to no credentials.
#[derive(Debug)]
#[non_exhaustive]
pub enum CredentialsError {
    /// There is no such key.
    Unknown,
    /// The key was made inactive.
    Inactive,
    /// The session token is missing, another's, or one that does not belong there.
    WrongToken,
    /// The session is over.
    Expired,
    /// The home cannot tell.
    Home(ServiceError),
}

impl CredentialsError {
    /// AWS's code where the protocol is JSON (KMS, CloudTrail).
    pub const fn code_json(&self) -> &'static str {
        match self {
            Self::Unknown | Self::Inactive | Self::WrongToken => "UnrecognizedClientException",
            Self::Expired => "ExpiredTokenException",
            Self::Home(_) => "InternalFailure",
        }
    }

    /// AWS's code where the protocol is Query (IAM, STS, RDS); EC2 has codes of its own.
    pub const fn code_query(&self) -> &'static str {
        match self {
            Self::Unknown | Self::Inactive | Self::WrongToken => "InvalidClientTokenId",
            Self::Expired => "ExpiredToken",
            Self::Home(_) => "InternalFailure",
        }
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown | Self::Inactive | Self::WrongToken => {
                f.write_str("The security token included in the request is invalid.")
            }
            Self::Expired => f.write_str("The security token included in the request is expired"),
            Self::Home(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CredentialsError {}

impl From<ServiceError> for CredentialsError {
    fn from(error: ServiceError) -> Self {
        Self::Home(error)
    }
}

impl From<StoreError> for CredentialsError {
    fn from(error: StoreError) -> Self {
        Self::Home(error.into())
    }
}

/// The credentials that `access_key_id` names, if they are good now by the home's clock; `session_token` is the one that
/// came with it.
///
/// # Errors
/// [`CredentialsError`].
pub fn find(home: &Home, access_key_id: &str, session_token: Option<&str>) -> Result<Credentials, CredentialsError> {
    let (found, now) = home.read(|tx| {
        let found = if access_key_id.starts_with("ASIA") {
            session_row(tx, access_key_id)?
        } else {
            access_key_row(tx, access_key_id)?
        };
        Ok::<_, CredentialsError>((found, store::clock(tx)?.now()))
    })?;
    let found = found.ok_or(CredentialsError::Unknown)?;
    if !found.active {
        return Err(CredentialsError::Inactive);
    }
    let secret = RootKey::of(home)?.open(PURPOSE, access_key_id, &found.sealed)?;
    let credentials = Credentials {
        access_key_id: access_key_id.to_owned(),
        secret,
        principal: found.principal,
        issued: found.issued,
        expires: found.expires,
        issuer: found.issuer,
        token_hash: found.token_hash,
    };
    if !credentials.token_fits(session_token) {
        return Err(CredentialsError::WrongToken);
    }
    if credentials.is_expired(now) {
        return Err(CredentialsError::Expired);
    }
    Ok(credentials)
}

/// A number that is another one after a key or a session was changed, disabled or deleted. What [`find`] answered stays
/// true while it is the same, but for the time.
///
/// # Errors
/// The store's.
pub fn epoch(home: &Home) -> Result<i64, ServiceError> {
    Ok(home.read(read_epoch)?)
}

fn read_epoch(tx: &Transaction<'_>) -> Result<i64, StoreError> {
    Ok(store::setting(tx, EPOCH)?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Counts a change after which credentials that were found may be good no more.
pub(super) fn changed(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let next = read_epoch(tx)?.wrapping_add(1);
    store::set_setting(tx, EPOCH, &next.to_string())
}

struct Found {
    principal: Principal,
    active: bool,
    sealed: Vec<u8>,
    issued: Option<Time>,
    expires: Option<Time>,
    issuer: Option<String>,
    token_hash: Option<Vec<u8>>,
}

fn access_key_row(tx: &Transaction<'_>, id: &str) -> Result<Option<Found>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT k.account, k.status, k.sealed, e.path, e.name FROM iam_access_keys k
         LEFT JOIN iam_entities e ON e.entity = k.entity WHERE k.id = ?1",
    )?;
    let found = statement.query_row([id], |row| {
        let account = account_of(row, 0)?;
        let principal = match row.get::<_, Option<String>>(3)? {
            None => Principal::Root(account),
            Some(path) => {
                let name: String = row.get(4)?;
                Principal::User { account, name: format!("{}{name}", path.trim_start_matches('/')) }
            }
        };
        Ok(Found {
            principal,
            active: row.get_ref(1)?.as_str()? == "Active",
            sealed: row.get(2)?,
            issued: None,
            expires: None,
            issuer: None,
            token_hash: None,
        })
    });
    Ok(found.optional()?)
}

fn session_row(tx: &Transaction<'_>, id: &str) -> Result<Option<Found>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT e.account, e.name, e.path, s.session, s.issued, s.expires, s.token_hash, s.sealed FROM sts_sessions s
         JOIN iam_entities e ON e.entity = s.entity WHERE s.id = ?1",
    )?;
    let found = statement.query_row([id], |row| {
        let (account, role, path) = (account_of(row, 0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?);
        Ok(Found {
            issuer: Some(format!("arn:aws:iam::{account}:role{path}{role}")),
            principal: Principal::AssumedRole { account, role, session: row.get(3)? },
            active: true,
            issued: Time::from_micros(row.get(4)?),
            expires: Time::from_micros(row.get(5)?),
            token_hash: Some(row.get(6)?),
            sealed: row.get(7)?,
        })
    });
    Ok(found.optional()?)
}

fn account_of(row: &Row<'_>, column: usize) -> rusqlite::Result<AccountId> {
    let parsed = row.get_ref(column)?.as_str()?.parse();
    parsed.map_err(|error: ids::IdError| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// A new access key of a user, or of the account's root.
pub(super) fn new_access_key(
    tx: &Transaction<'_>,
    root: &RootKey,
    account: &AccountId,
    user: Option<&Entity>,
    now: Time,
) -> Result<(String, SecretText), ServiceError> {
    let id = ids::access_key_id("AKIA");
    let secret = SecretText::random(SECRET_BYTES)?;
    insert_access_key(tx, root, account, user, now, (&id, &secret))?;
    Ok((id, secret))
}

/// Stores an access key.
pub(super) fn insert_access_key(
    tx: &Transaction<'_>,
    root: &RootKey,
    account: &AccountId,
    user: Option<&Entity>,
    now: Time,
    (id, secret): (&str, &SecretText),
) -> Result<(), ServiceError> {
    tx.prepare_cached(
        "INSERT INTO iam_access_keys (id, account, entity, status, created, sealed) VALUES (?1, ?2, ?3, 'Active', ?4, ?5)",
    )?
    .execute(params![id, account.as_str(), user.map(|user| user.row), now.micros(), seal(root, id, secret)?])?;
    Ok(())
}

/// What a new session's credentials are.
pub(super) struct NewSession {
    pub(super) access_key_id: String,
    pub(super) secret: SecretText,
    pub(super) token: SecretText,
}

/// A new session of a role. Those that ended a day ago and more are forgotten on the way: until then their keys are
/// answered as expired.
pub(super) fn new_session(
    tx: &Transaction<'_>,
    root: &RootKey,
    role: &Entity,
    session: &str,
    [issued, expires]: [Time; 2],
) -> Result<NewSession, ServiceError> {
    debug_assert_eq!(role.kind, EntityKind::Role);
    let forgotten = issued.after(jiff::SignedDuration::from_hours(-24));
    tx.prepare_cached("DELETE FROM sts_sessions WHERE expires < ?1")?.execute([forgotten.micros()])?;
    let access_key_id = ids::access_key_id("ASIA");
    let (secret, token) = (SecretText::random(SECRET_BYTES)?, SecretText::random(TOKEN_BYTES)?);
    tx.prepare_cached(
        "INSERT INTO sts_sessions (id, entity, session, issued, expires, token_hash, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        access_key_id,
        role.row,
        session,
        issued.micros(),
        expires.micros(),
        Sha256::digest(token.0.expose()).as_slice(),
        seal(root, &access_key_id, &secret)?
    ])?;
    Ok(NewSession { access_key_id, secret, token })
}

fn seal(root: &RootKey, id: &str, secret: &SecretText) -> Result<Vec<u8>, ServiceError> {
    if twin::is_off(Protection::SealedCredentials) {
        return Ok(secret.0.expose().to_vec());
    }
    root.seal(PURPOSE, id, &secret.0)
}
