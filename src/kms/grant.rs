//! A grant: what it allows, its rows in the store, its token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::{OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::Time;
use crate::gate::{ServiceError, Step};
use crate::iam::{self, Identity, Principal, Requester};
use crate::ids::{self, Region};
use crate::store::{StoreError, Transaction};

use super::context::EncryptionContext;
use super::keyring::{self, Key};

/// Under which contexts a grant allows its cryptographic operations. Both may be given; both must then hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GrantConstraints {
    /// The context must have these pairs, and may have more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_context_subset: Option<EncryptionContext>,
    /// The context must be this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_context_equals: Option<EncryptionContext>,
}

impl GrantConstraints {
    fn allow(&self, context: &EncryptionContext) -> bool {
        self.encryption_context_subset.as_ref().is_none_or(|part| context.contains_all(part))
            && self.encryption_context_equals.as_ref().is_none_or(|whole| context == whole)
    }

    /// Whether every context that `child` allows is allowed here too.
    pub(super) fn covers(&self, child: &Self) -> bool {
        let equals = |whole: &EncryptionContext| child.encryption_context_equals.as_ref() == Some(whole);
        let subset = |part: &EncryptionContext| {
            child.encryption_context_equals.as_ref().is_some_and(|whole| whole.contains_all(part))
                || child.encryption_context_subset.as_ref().is_some_and(|child_part| child_part.contains_all(part))
        };
        self.encryption_context_equals.as_ref().is_none_or(equals)
            && self.encryption_context_subset.as_ref().is_none_or(subset)
    }
}

/// Most grants of a key (AWS KMS developer guide, "Resource quotas").
const MOST_GRANTS: i64 = 50_000;

/// A grant as the store has it.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) id: String,
    pub(super) key_id: String,
    pub(super) name: Option<String>,
    pub(super) grantee: String,
    pub(super) retiring: Option<String>,
    pub(super) issuer: String,
    pub(super) operations: Vec<String>,
    pub(super) constraints: Option<GrantConstraints>,
    pub(super) created: Time,
    /// From when on it is known everywhere; before, it lets through whoever presents its token.
    pub(super) effective: Time,
}

const COLUMNS: &str = "grant_id, key_id, name, grantee, retiring, issuer, operations, constraints, created, effective";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Grant> {
    let damaged = |column, error: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    };
    let operations: String = row.get(6)?;
    let constraints: Option<String> = row.get(7)?;
    Ok(Grant {
        id: row.get(0)?,
        key_id: row.get(1)?,
        name: row.get(2)?,
        grantee: row.get(3)?,
        retiring: row.get(4)?,
        issuer: row.get(5)?,
        operations: serde_json::from_str(&operations).map_err(|error| damaged(6, error))?,
        constraints: constraints
            .map(|text| serde_json::from_str(&text).map_err(|error| damaged(7, error)))
            .transpose()?,
        created: keyring::time(row, 8)?,
        effective: keyring::time(row, 9)?,
    })
}

pub(super) fn find(tx: &Transaction<'_>, id: &str) -> Result<Option<Grant>, StoreError> {
    let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM kms_grants WHERE grant_id = ?1"))?;
    Ok(statement.query_row([id], from_row).optional()?)
}

/// A grant of `key` under which the caller may do `operation` in `context`. A context of `None` means an operation to
/// which constraints do not apply (`DescribeKey`, `RetireGrant`, `CreateGrant`).
pub(super) fn allowing(
    step: &Step<'_>,
    key: &Key,
    operation: &str,
    context: Option<&EncryptionContext>,
) -> Result<Option<Grant>, StoreError> {
    allowing_and(step, key, operation, context, |_| true)
}

/// As [`allowing`], of those grants that `fits` takes.
pub(super) fn allowing_and(
    step: &Step<'_>,
    key: &Key,
    operation: &str,
    context: Option<&EncryptionContext>,
    fits: impl Fn(&Grant) -> bool,
) -> Result<Option<Grant>, StoreError> {
    // Of a grantee's grants, of which there may be thousands, only those can allow it whose pin is in the context.
    let by_pin = if context.is_some() { "pin = ?3" } else { "?3 = 0" };
    let mut statement = step
        .tx
        .prepare_cached(&format!("SELECT {COLUMNS} FROM kms_grants WHERE key_id = ?1 AND holder = ?2 AND {by_pin}"))?;
    let pins: Vec<_> = std::iter::once(NO_PIN).chain(context.into_iter().flat_map(pins)).collect();
    let requester = iam::directory::requester(step.tx, &step.call.principal)?;
    let is_held = |grant: &Grant| means_itself(&grant.grantee, &requester) || means_account(&grant.grantee, &requester);
    for name in step.call.principal.names() {
        for pin in &pins {
            let mut grants = statement.query_map(params![key.id, name, pin], from_row)?;
            let found = grants.find_map(|grant| match grant {
                Ok(grant) => {
                    let is_held = grant.is_known(step) && is_held(&grant);
                    (is_held && grant.allows(operation, context) && fits(&grant)).then_some(Ok(grant))
                }
                Err(error) => Some(Err(error)),
            });
            if let Some(grant) = found.transpose()? {
                return Ok(Some(grant));
            }
        }
    }
    Ok(None)
}

/// The grants of `key` to the caller that name `operation`, known or not, under whatever context.
pub(super) fn close(step: &Step<'_>, key: &Key, operation: &str) -> Result<Vec<Grant>, StoreError> {
    let mut statement =
        step.tx.prepare_cached(&format!("SELECT {COLUMNS} FROM kms_grants WHERE key_id = ?1 AND holder = ?2"))?;
    let mut found = Vec::new();
    for name in step.call.principal.names() {
        for grant in statement.query_map([key.id.as_str(), name.as_str()], from_row)? {
            let grant = grant?;
            if grant.operations.iter().any(|allowed| allowed == operation) {
                found.push(grant);
            }
        }
    }
    Ok(found)
}

/// Whether `name` in a grant means `requester` itself, and not merely its account.
pub(super) fn means_itself(name: &str, requester: &Requester) -> bool {
    requester.principal.arn() == name || requester.is_session_of(name)
}

/// Whether `name` in a grant is the account of `requester`. AWS's own roles and services are in none.
pub(super) fn means_account(name: &str, requester: &Requester) -> bool {
    let own = !matches!(requester.identity, Identity::Nothing);
    own && Principal::Root(requester.principal.account().clone()).arn() == name
}

/// Of a grant that asks for no pair.
const NO_PIN: i64 = 0;

/// The pins that a grant may have which allows something under `context`.
fn pins(context: &EncryptionContext) -> impl Iterator<Item = i64> {
    context.0.iter().map(|(name, value)| {
        let length = (name.len() as u64).to_be_bytes();
        let digest = Sha256::new().chain_update(length).chain_update(name).chain_update(value).finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        i64::from_be_bytes(first) | 1
    })
}

/// The pair by which a new grant will be found among those of its grantee: of those that it asks for the one that fewest
/// others are found by.
fn pin_of(tx: &Transaction<'_>, grant: &Grant) -> Result<i64, StoreError> {
    let constraints = grant.constraints.as_ref();
    let asked = constraints
        .and_then(|both| both.encryption_context_equals.as_ref().or(both.encryption_context_subset.as_ref()));
    let mut statement = tx.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM kms_grants WHERE key_id = ?1 AND holder = ?2 AND pin = ?3 LIMIT 100)",
    )?;
    let holder = iam::without_path(&grant.grantee);
    let mut rarest = None;
    for pin in asked.into_iter().flat_map(pins) {
        let others: i64 = statement.query_row(params![grant.key_id, holder, pin], |row| row.get(0))?;
        if rarest.is_none_or(|(fewest, _)| others < fewest) {
            rarest = Some((others, pin));
        }
    }
    Ok(rarest.map_or(NO_PIN, |(_, pin)| pin))
}

impl Grant {
    fn is_known(&self, step: &Step<'_>) -> bool {
        self.effective <= step.now || step.presented.contains(&self.id)
    }

    fn allows(&self, operation: &str, context: Option<&EncryptionContext>) -> bool {
        self.operations.iter().any(|allowed| allowed == operation)
            && match (context, &self.constraints) {
                (Some(context), Some(constraints)) => constraints.allow(context),
                _ => true,
            }
    }
}

/// Grants of keys in `region` that `retiring` may retire, behind the id `after`, in the order of their ids.
pub(super) fn list_retirable(
    tx: &Transaction<'_>,
    retiring: &str,
    region: &Region,
    after: &str,
    limit: usize,
) -> Result<Vec<Grant>, StoreError> {
    let columns = COLUMNS.split(", ").map(|column| format!("g.{column}")).collect::<Vec<_>>().join(", ");
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {columns} FROM kms_grants AS g JOIN kms_keys AS k USING (key_id)
         WHERE g.retiring = ?1 AND k.region = ?2 AND g.grant_id > ?3 ORDER BY g.grant_id LIMIT ?4"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let grants = statement.query_map(params![retiring, region.as_str(), after, limit], from_row)?;
    Ok(grants.collect::<Result<_, _>>()?)
}

/// Whether `key` has as many grants as a key may have.
pub(super) fn is_full(tx: &Transaction<'_>, key: &Key) -> Result<bool, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT 1 FROM kms_grants WHERE key_id = ?1 ORDER BY grant_id LIMIT 1 OFFSET ?2")?;
    Ok(statement.exists(params![key.id, MOST_GRANTS - 1])?)
}

/// Grants of `key`, of one id or one grantee if the filter has them, behind the id `after`, in the order of their ids.
pub(super) fn list(
    tx: &Transaction<'_>,
    key: &Key,
    (id, grantee): (Option<&str>, Option<&str>),
    after: &str,
    limit: usize,
) -> Result<Vec<Grant>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM kms_grants WHERE key_id = ?1 AND grant_id > ?2
           AND (?3 IS NULL OR grant_id = ?3) AND (?4 IS NULL OR grantee = ?4) ORDER BY grant_id LIMIT ?5"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let grants = statement.query_map(params![key.id, after, id, grantee, limit], from_row)?;
    Ok(grants.collect::<Result<_, _>>()?)
}

/// The id of the grant of that name on the key of that ARN, looked up by a service for its own bookkeeping: no call, no
/// record.
///
/// # Errors
/// If the state cannot be read.
pub fn grant_named(tx: &Transaction<'_>, key_arn: &str, name: &str) -> Result<Option<String>, StoreError> {
    let region = key_arn.split(':').nth(3).and_then(|region| region.parse().ok());
    let Some((key_id, region)) = key_arn.rsplit('/').next().zip(region) else { return Ok(None) };
    let Some(key) = keyring::find_in(tx, key_id, &region)? else { return Ok(None) };
    let mut statement = tx.prepare_cached("SELECT grant_id FROM kms_grants WHERE key_id = ?1 AND name = ?2")?;
    Ok(statement.query_row([key.id.as_str(), name], |row| row.get(0)).optional()?)
}

/// The id of a grant with `wanted`'s name that is the same in everything else: asking again gives no second grant.
pub(super) fn same_named(tx: &Transaction<'_>, wanted: &Grant) -> Result<Option<String>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM kms_grants WHERE key_id = ?1 AND holder = ?2 AND grantee = ?3 AND name = ?4"
    ))?;
    let holder = iam::without_path(&wanted.grantee);
    let named = statement.query_map(params![wanted.key_id, holder, wanted.grantee, wanted.name], from_row)?;
    for grant in named {
        let grant = grant?;
        if grant.retiring == wanted.retiring
            && grant.operations == wanted.operations
            && grant.constraints == wanted.constraints
        {
            return Ok(Some(grant.id));
        }
    }
    Ok(None)
}

pub(super) fn insert(tx: &Transaction<'_>, grant: &Grant) -> Result<(), StoreError> {
    let constraints = grant.constraints.as_ref().map(to_json);
    let pin = pin_of(tx, grant)?;
    tx.prepare_cached(&format!(
        "INSERT INTO kms_grants ({COLUMNS}, holder, pin) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
    ))?
    .execute(params![
        grant.id,
        grant.key_id,
        grant.name,
        grant.grantee,
        grant.retiring,
        grant.issuer,
        to_json(&grant.operations),
        constraints,
        grant.created.micros(),
        grant.effective.micros(),
        iam::without_path(&grant.grantee),
        pin,
    ])?;
    Ok(())
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("strings and maps of strings have a JSON form")
}

pub(super) fn remove(tx: &Transaction<'_>, id: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM kms_grants WHERE grant_id = ?1")?.execute([id])?;
    Ok(())
}

const TOKEN_MAGIC: &[u8; 4] = b"BSG\x01";
const TOKEN_BYTES: usize = 4 + 32 + 16 + 8;

/// A token that names the grant: its id, 16 random bytes, and a check over both, in base64.
///
/// A token permits nothing that the grant does not permit everybody to whom it was made, at most a little sooner; whoever
/// makes one up gains nothing.
pub(super) fn new_token(grant_id: &str) -> Result<String, ServiceError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(ServiceError::machine)?;
    let id = ids::unhex(grant_id).unwrap_or_default();
    let body = [&TOKEN_MAGIC[..], &id, &salt].concat();
    Ok(STANDARD.encode([&body[..], &token_check(&body)].concat()))
}

/// The grant that a token names. It may be gone by now.
///
/// # Errors
/// `InvalidGrantTokenException` for anything that [`new_token`] does not make.
pub(super) fn read_token(token: &str) -> Result<String, ServiceError> {
    let refuse = || ServiceError::refused("InvalidGrantTokenException", "");
    let bytes = STANDARD.decode(token).map_err(|_| refuse())?;
    let (body, check) = bytes.split_at_checked(TOKEN_BYTES - 8).ok_or_else(refuse)?;
    if !body.starts_with(TOKEN_MAGIC) || check != token_check(body) {
        return Err(refuse());
    }
    Ok(ids::hex(&body[4..36]))
}

/// Takes the tokens of a request: the grants that they name let through at once. One whose grant is gone, or was made to
/// somebody else, does no harm and no good.
pub(super) fn present(step: &mut Step<'_>, tokens: &[String]) -> Result<(), ServiceError> {
    for token in tokens {
        step.presented.push(read_token(token)?);
    }
    Ok(())
}

fn token_check(body: &[u8]) -> [u8; 8] {
    let digest = Sha256::new().chain_update(b"blockseal grant token v1").chain_update(body).finalize();
    let mut check = [0; 8];
    check.copy_from_slice(&digest[..8]);
    check
}
