//! The principals that are recorded in a home, and their identity policies.
//!
//! Whoever is not recorded is an administrator of its account (ours): a home is of use before anybody was made in it. Whoever
//! is recorded has what its policies say, and nothing without any.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};
use serde::Deserialize as _;
use serde_json::Value;

use crate::ids::AccountId;
use crate::store::{StoreError, Transaction};

use super::assume::{self, Details};
use super::linked;
use super::policy::{Policy, PolicyKind};
use super::principal::Principal;
use super::requester::{Identity, NamedPolicy, Requester};

/// Managed policies of AWS that can be attached: name, ARN, document (AWS managed policy reference). There are some thousand
/// more; of those that are here the ones with several statements are cut down to what operations that are here can ask for.
pub const AWS_POLICIES: &[(&str, &str, &str)] = &[
    (
        "AdministratorAccess",
        "arn:aws:iam::aws:policy/AdministratorAccess",
        r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}"#,
    ),
    (
        "PowerUserAccess",
        "arn:aws:iam::aws:policy/PowerUserAccess",
        r#"{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "NotAction": ["iam:*", "organizations:*", "account:*"], "Resource": "*"},
            {"Effect": "Allow", "Resource": "*", "Action": ["iam:CreateServiceLinkedRole", "iam:DeleteServiceLinkedRole",
                "iam:ListRoles", "organizations:DescribeOrganization", "account:ListRegions", "account:GetAccountInformation"]}]}"#,
    ),
    (
        "AmazonEC2FullAccess",
        "arn:aws:iam::aws:policy/AmazonEC2FullAccess",
        r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]}"#,
    ),
    (
        "AWSKeyManagementServicePowerUser",
        "arn:aws:iam::aws:policy/AWSKeyManagementServicePowerUser",
        r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": [
            "kms:CreateAlias", "kms:CreateKey", "kms:DeleteAlias", "kms:Describe*", "kms:GenerateRandom", "kms:Get*",
            "kms:List*", "kms:TagResource", "kms:UntagResource", "iam:ListGroups", "iam:ListRoles", "iam:ListUsers"]}]}"#,
    ),
];

/// A user or a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntityKind {
    /// An IAM user.
    User,
    /// An IAM role.
    Role,
}

impl EntityKind {
    /// Its name in an ARN and in the store: `user` or `role`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
        }
    }
}

/// A recorded user or role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entity {
    /// Its number in the store.
    pub row: i64,
    /// The account.
    pub account: AccountId,
    /// User or role.
    pub kind: EntityKind,
    /// Its name, without the path.
    pub name: String,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// `AIDA…` or `AROA…`.
    pub id: String,
    /// Microseconds since 1970, on the home's clock.
    pub created: i64,
    /// A role's trust policy, as it was given.
    pub trust: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The longest session of a role in seconds: 3600 to 43,200.
    pub max_session: i64,
}

impl Entity {
    /// Its ARN.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:{}{}{}", self.account, self.kind.name(), self.path, self.name)
    }
}

/// The recorded user or role of that name; names are the same in any case, as in IAM.
pub fn find(
    tx: &Transaction<'_>,
    account: &AccountId,
    kind: EntityKind,
    name: &str,
) -> Result<Option<Entity>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT entity, name, path, id, created, trust, description, max_session FROM iam_entities WHERE account = ?1 AND kind = ?2 AND name = ?3",
    )?;
    let found = statement.query_row(params![account.as_str(), kind.name(), name], |row| {
        Ok(Entity {
            row: row.get(0)?,
            account: account.clone(),
            kind,
            name: row.get(1)?,
            path: row.get(2)?,
            id: row.get(3)?,
            created: row.get(4)?,
            trust: row.get(5)?,
            description: row.get(6)?,
            max_session: row.get(7)?,
        })
    });
    Ok(found.optional()?)
}

/// The tags of a recorded user or role, by name.
pub fn tags(tx: &Transaction<'_>, entity: &Entity) -> Result<BTreeMap<String, String>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT name, value FROM iam_tags WHERE entity = ?1")?;
    let tags = statement.query_map([entity.row], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(tags.collect::<Result<_, _>>()?)
}

/// An inline policy of a recorded user or role, as it was given.
pub fn inline_policy(tx: &Transaction<'_>, entity: &Entity, name: &str) -> Result<Option<String>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT document FROM iam_policies WHERE entity = ?1 AND name = ?2")?;
    Ok(statement.query_row(params![entity.row, name], |row| row.get(0)).optional()?)
}

/// The organisation that the home says an account is in; `None` if it says nothing.
pub fn organization(tx: &Transaction<'_>, account: &AccountId) -> Result<Option<String>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT organization FROM iam_accounts WHERE account = ?1")?;
    Ok(statement.query_row([account.as_str()], |row| row.get(0)).optional()?)
}

/// Stands in the place of an account in a state that somebody described: nothing is known of what it does not tell.
const UNTOLD: &str = "*";

/// Says that the state is a description of accounts that are elsewhere, so that what is missing in it is not known.
///
/// # Errors
/// The store's.
pub fn set_described(tx: &Transaction<'_>) -> Result<(), StoreError> {
    tx.execute("INSERT OR REPLACE INTO iam_accounts (account, organization) VALUES (?1, '')", [UNTOLD])?;
    Ok(())
}

/// Whether the state is a description of accounts that are elsewhere.
///
/// # Errors
/// The store's.
pub fn is_described(tx: &Transaction<'_>) -> Result<bool, StoreError> {
    Ok(tx.prepare_cached("SELECT 1 FROM iam_accounts WHERE account = ?1")?.exists([UNTOLD])?)
}

/// The organisation that an account is in: `Some(None)` for in none, `None` where that is not told.
///
/// # Errors
/// The store's.
pub fn membership(tx: &Transaction<'_>, account: &AccountId) -> Result<Option<Option<String>>, StoreError> {
    let (organization, described) = organization_or_untold(tx, account)?;
    Ok(told(organization, described))
}

#[expect(clippy::option_option, reason = "in none, and not told, are two things")]
fn told(organization: Option<String>, described: bool) -> Option<Option<String>> {
    if described && organization.is_none() { None } else { Some(organization) }
}

/// The organisation and [`is_described`] in one look, as every call needs them.
fn organization_or_untold(tx: &Transaction<'_>, account: &AccountId) -> Result<(Option<String>, bool), StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT account, organization FROM iam_accounts WHERE account IN (?1, ?2)")?;
    let mut rows = statement.query([account.as_str(), UNTOLD])?;
    let (mut organization, mut described) = (None, false);
    while let Some(row) = rows.next()? {
        if row.get_ref(0)?.as_str().is_ok_and(|account| account == UNTOLD) {
            described = true;
        } else {
            organization = Some(row.get(1)?);
        }
    }
    Ok((organization, described))
}

/// Records the users and roles that `iam get-account-authorization-details` printed, in a scratch home.
///
/// # Errors
/// If `details` is not that, or says two things of one user or role.
pub fn assume(tx: &Transaction<'_>, details: &Value) -> Result<(), AssumeError> {
    let details = Details::deserialize(details)?;
    Ok(assume::put(tx, &details)?)
}

/// Why users and roles cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssumeError {
    /// This is not what the command prints.
    #[error(transparent)]
    NotDetails(#[from] serde_json::Error),
    /// The state does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Says in which organisation an account is; `None` for in none.
pub fn set_organization(tx: &Transaction<'_>, account: &AccountId, id: Option<&str>) -> Result<(), StoreError> {
    match id {
        Some(id) => tx.execute(
            "INSERT OR REPLACE INTO iam_accounts (account, organization) VALUES (?1, ?2)",
            [account.as_str(), id],
        )?,
        None => tx.execute("DELETE FROM iam_accounts WHERE account = ?1", [account.as_str()])?,
    };
    Ok(())
}

/// `principal` with the policies and tags that are recorded of it.
pub fn requester(tx: &Transaction<'_>, principal: &Principal) -> Result<Arc<Requester>, StoreError> {
    tx.recall(&principal.arn(), || recorded(tx, principal).map(Arc::new))
}

fn recorded(tx: &Transaction<'_>, principal: &Principal) -> Result<Requester, StoreError> {
    let mut requester = Requester::administrator(principal.clone());
    let account = principal.account();
    let (organization, described) = organization_or_untold(tx, account)?;
    requester.organization = told(organization, described);
    let (kind, name) = match principal {
        Principal::User { name, .. } => (EntityKind::User, name.rsplit('/').next().unwrap_or(name)),
        Principal::AssumedRole { role, .. } => (EntityKind::Role, role.as_str()),
        Principal::Root(_) | Principal::Ec2Infrastructure { .. } | Principal::Service { .. } => return Ok(requester),
    };
    let Some(entity) = find(tx, account, kind, name)? else {
        if described {
            requester.identity =
                Identity::Unknown(format!("the identity policies of {} are not told", principal.arn()));
            (requester.tags, requester.unique_id) = (None, None);
        }
        return Ok(requester);
    };
    requester.identity = match principal {
        // Another path or another case is another principal, which cannot be beside the recorded one.
        Principal::User { .. } if entity.arn() != principal.arn() => {
            Identity::Unknown(format!("there is no {}: the user of that name is {}", principal.arn(), entity.arn()))
        }
        Principal::AssumedRole { role, .. } if *role != entity.name => {
            Identity::Unknown(format!("there is no role {role}: its name is {}", entity.name))
        }
        // AWS's policy of it is all that it has.
        Principal::AssumedRole { role, .. } if linked::is_linked(role) => return Ok(requester),
        _ => policies(tx, &entity)?,
    };
    requester.tags = Some(tags(tx, &entity)?);
    requester.unique_id = Some(entity.id);
    requester.role_path = (kind == EntityKind::Role).then_some(entity.path);
    Ok(requester)
}

/// The managed policies that are attached to a recorded user or role: ARN and document, in the order of their ARNs.
pub fn attached(tx: &Transaction<'_>, entity: &Entity) -> Result<Vec<(String, String)>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT policy, document FROM iam_attached LEFT JOIN iam_managed_policies ON arn = policy
         WHERE entity = ?1 ORDER BY policy",
    )?;
    let found = statement.query_map([entity.row], |row| {
        let (arn, document): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        let of_aws = || AWS_POLICIES.iter().find(|(_, known, _)| *known == arn).map(|(.., document)| *document);
        let document = document.or_else(|| of_aws().map(str::to_owned)).unwrap_or_default();
        Ok((arn, document))
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn policies(tx: &Transaction<'_>, entity: &Entity) -> Result<Identity, StoreError> {
    let mut statement = tx.prepare_cached("SELECT name, document FROM iam_policies WHERE entity = ?1 ORDER BY name")?;
    let stored = statement.query_map([entity.row], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut found = Vec::new();
    for policy in stored.chain(attached(tx, entity)?.into_iter().map(Ok)) {
        let (name, document) = policy?;
        let kind = if name.starts_with("arn:") { "managed" } else { "inline" };
        let name = format!("{kind} policy {name} of {} {}", entity.kind.name(), entity.name);
        match Policy::parse(&document, PolicyKind::Identity) {
            Ok(policy) => found.push(NamedPolicy::new(name, policy)),
            Err(error) => return Ok(Identity::Unknown(format!("{name} cannot be read: {error}"))),
        }
    }
    Ok(Identity::Policies(found))
}
