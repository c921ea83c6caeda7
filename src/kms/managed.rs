//! AWS managed keys: made at first use by their service, usable through it only, not the user's to change.

use jiff::SignedDuration;
use rusqlite::params;

use crate::clock::Time;
use crate::gate::{Call, ServiceError};
use crate::ids::Region;
use crate::store::{self, Transaction};

use super::keyring::{self, Key, Rotation};
use super::root::RootKey;

/// Days.
const YEAR: i64 = 365;

/// A predefined alias, which every account has in every Region from the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ManagedAlias {
    /// `alias/aws/ebs`.
    Ebs,
    /// `alias/aws/rds`.
    Rds,
}

impl ManagedAlias {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 2] = [Self::Ebs, Self::Rds];

    /// Its name, with `alias/`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebs => "alias/aws/ebs",
            Self::Rds => "alias/aws/rds",
        }
    }

    /// The service through which its key can be used, as `kms:ViaService` names it.
    pub fn service(self, region: &Region) -> String {
        match self {
            Self::Ebs => format!("ec2.{region}.amazonaws.com"),
            Self::Rds => format!("rds.{region}.amazonaws.com"),
        }
    }

    /// The description that AWS gives its key.
    const fn description(self) -> &'static str {
        match self {
            Self::Ebs => "Default key that protects my EBS volumes when no other key is defined",
            Self::Rds => "Default key that protects my RDS database volumes when no other key is defined",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alias| alias.name() == name)
    }
}

/// The ARN of the account's AWS managed key behind `alias`, which is made if it was not needed before.
///
/// For the services' own use; nothing is recorded (assumed: what AWS records of it is not documented).
pub fn managed_key(call: &Call<'_>, alias: ManagedAlias) -> Result<String, ServiceError> {
    RootKey::ensure(call.home)?;
    call.home.write(|tx| {
        let now = store::clock(tx)?.now();
        Ok(ensure(tx, call, now, alias)?.arn())
    })
}

/// As [`managed_key`], inside an operation. The root key must exist.
pub(super) fn ensure(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    now: Time,
    alias: ManagedAlias,
) -> Result<Key, ServiceError> {
    if let Some(id) = keyring::alias_target(tx, &call.account, &call.region, alias.name())?
        && let Some(key) = keyring::find(tx, &id)?
    {
        return Ok(key);
    }
    let root = RootKey::load(call.home, tx)?;
    let mut key = keyring::new(call, now, alias.description());
    key.only_via = Some(alias.service(&call.region));
    // AWS rotates its managed keys every year, and nobody can change that (developer guide, "AWS managed keys").
    key.rotation = Some(Rotation { days: YEAR, next: now.after(SignedDuration::from_hours(24 * YEAR)) });
    let key = keyring::create(tx, &root, key)?;
    tx.execute(
        "INSERT INTO kms_aliases (account, region, name, target, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        params![call.account.as_str(), call.region.as_str(), alias.name(), key.id, now.micros()],
    )?;
    Ok(key)
}
