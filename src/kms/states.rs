//! What each operation may do with a key in each state: one table (AWS KMS developer guide, "Key states of AWS KMS keys").

use crate::gate::ServiceError;
use crate::twin::{self, Protection};

/// A key's state. The first three occur; the others belong to imported and multi-Region keys and to key stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KeyState {
    /// It can be used.
    Enabled,
    /// Its owner switched it off.
    Disabled,
    /// Its deletion is scheduled.
    PendingDeletion,
    /// It has no material yet.
    PendingImport,
    /// Its key store is out of reach.
    Unavailable,
    /// It is being made.
    Creating,
    /// Its primary Region is being changed.
    Updating,
}

impl KeyState {
    /// All states, in the order of the table's columns.
    pub const ALL: [Self; 7] = [
        Self::Enabled,
        Self::Disabled,
        Self::PendingDeletion,
        Self::PendingImport,
        Self::Unavailable,
        Self::Creating,
        Self::Updating,
    ];

    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::PendingDeletion => "PendingDeletion",
            Self::PendingImport => "PendingImport",
            Self::Unavailable => "Unavailable",
            Self::Creating => "Creating",
            Self::Updating => "Updating",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What a state does to an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It goes on.
    Goes,
    /// `DisabledException`.
    Disabled,
    /// `KMSInvalidStateException`, with what the key is.
    InvalidState(&'static str),
}

const GO: Outcome = Outcome::Goes;
const DIS: Outcome = Outcome::Disabled;
/// For cryptographic operations AWS documents either exception; recorded answers of Decrypt and `ReEncrypt` have this one.
const DEL: Outcome = Outcome::InvalidState("pending deletion");
const NOT: Outcome = Outcome::InvalidState("not pending deletion");
const IMP: Outcome = Outcome::InvalidState("pending import");
const UNA: Outcome = Outcome::InvalidState("unavailable");
const CRE: Outcome = Outcome::InvalidState("creating");
const UPD: Outcome = Outcome::InvalidState("updating");

/// Operations by state, the columns as in [`KeyState::ALL`].
#[rustfmt::skip]
pub const TABLE: [(&str, [Outcome; 7]); 20] = [
    //                                      Enabled Disabled PendDel PendImp Unavail Creating Updating
    ("Encrypt",                             [GO,    DIS,     DEL,    IMP,    UNA,    CRE,     GO]),
    ("Decrypt",                             [GO,    DIS,     DEL,    IMP,    UNA,    CRE,     GO]),
    ("ReEncrypt",                           [GO,    DIS,     DEL,    IMP,    UNA,    CRE,     GO]),
    ("GenerateDataKey",                     [GO,    DIS,     DEL,    IMP,    UNA,    CRE,     GO]),
    ("GenerateDataKeyWithoutPlaintext",     [GO,    DIS,     DEL,    IMP,    UNA,    CRE,     GO]),
    ("CreateGrant",                         [GO,    DIS,     DEL,    IMP,    GO,     CRE,     GO]),
    ("ListGrants",                          [GO,    GO,      GO,     GO,     GO,     GO,      GO]),
    ("RetireGrant",                         [GO,    GO,      GO,     GO,     GO,     GO,      GO]),
    ("RevokeGrant",                         [GO,    GO,      GO,     GO,     GO,     GO,      GO]),
    ("DescribeKey",                         [GO,    GO,      GO,     GO,     GO,     GO,      GO]),
    ("EnableKey",                           [GO,    GO,      DEL,    IMP,    GO,     CRE,     UPD]),
    ("DisableKey",                          [GO,    GO,      DEL,    IMP,    GO,     CRE,     UPD]),
    ("ScheduleKeyDeletion",                 [GO,    GO,      DEL,    GO,     GO,     GO,      UPD]),
    ("CancelKeyDeletion",                   [NOT,   NOT,     GO,     NOT,    NOT,    NOT,     NOT]),
    ("CreateAlias",                         [GO,    GO,      DEL,    GO,     GO,     GO,      GO]),
    // The key that the alias leaves may be in any state; the row is for the key that it comes to.
    ("UpdateAlias",                         [GO,    GO,      DEL,    GO,     GO,     GO,      GO]),
    ("DeleteAlias",                         [GO,    GO,      GO,     GO,     GO,     GO,      GO]),
    ("ListAliases",                         [GO,    GO,      GO,     GO,     GO,     GO,      GO]),
    ("CreateKey",                           [GO,    GO,      GO,     GO,     GO,     GO,      GO]),
    ("ListKeys",                            [GO,    GO,      GO,     GO,     GO,     GO,      GO]),
];

/// The table's answer for `operation` on a key with ARN `arn` in `state`.
///
/// # Errors
/// `DisabledException` or `KMSInvalidStateException` with AWS's message.
///
/// # Panics
/// If the table has no row for the operation, which its test rules out.
pub fn check(operation: &str, state: KeyState, arn: &str) -> Result<(), ServiceError> {
    let (_, row) = TABLE
        .iter()
        .find(|(name, _)| *name == operation)
        .expect("every operation on a key has a row: the table's test runs them all");
    match row[state as usize] {
        _ if twin::is_off(Protection::KeyState) => Ok(()),
        Outcome::Goes => Ok(()),
        Outcome::Disabled => Err(ServiceError::refused("DisabledException", format!("{arn} is disabled."))
            .with_hint(format!("blockseal kms enable-key --key-id {arn}"))),
        Outcome::InvalidState(what) => {
            let command = if row[state as usize] == DEL { "cancel-key-deletion" } else { "describe-key" };
            Err(ServiceError::refused("KMSInvalidStateException", format!("{arn} is {what}."))
                .with_hint(format!("blockseal kms {command} --key-id {arn}")))
        }
    }
}
