//! What each operation may do with a key in each state: one table (AWS KMS developer guide, "Key states of AWS KMS keys").

use crate::gate::{Basis, Finding, Leaning, ServiceError};
use crate::twin::{self, Protection};

use super::keyring::Key;

/// A key's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KeyState {
    /// It can be used.
    Enabled,
    /// Its owner switched it off.
    Disabled,
    /// Its deletion is scheduled.
    PendingDeletion,
    /// Its deletion is scheduled for when its last replica is gone.
    PendingReplicaDeletion,
    /// Its material is missing: not imported yet, deleted or expired.
    PendingImport,
    /// Its key store is out of reach. There are no key stores here, so no key gets into this state.
    Unavailable,
    /// It is being made; here that takes no time.
    Creating,
    /// Its primary Region is being changed; here that takes no time.
    Updating,
}

impl KeyState {
    /// All states, in the order of the table's columns.
    pub const ALL: [Self; 8] = [
        Self::Enabled,
        Self::Disabled,
        Self::PendingDeletion,
        Self::PendingReplicaDeletion,
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
            Self::PendingReplicaDeletion => "PendingReplicaDeletion",
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

    /// Whether the key waits for its end.
    pub(super) const fn is_ending(self) -> bool {
        matches!(self, Self::PendingDeletion | Self::PendingReplicaDeletion)
    }
}

/// Where a key's material comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// KMS makes it.
    AwsKms,
    /// The user imports it.
    External,
}

impl Origin {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwsKms => "AWS_KMS",
            Self::External => "EXTERNAL",
        }
    }

    /// The origin of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::AwsKms, Self::External].into_iter().find(|origin| origin.name() == name)
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
    /// `UnsupportedOperationException`: not with a key of this origin.
    WrongOrigin,
}

/// One operation's outcomes, for keys of one origin or of any; the outcomes in the order of [`KeyState::ALL`].
pub type Row = (&'static str, Option<Origin>, [Outcome; 8]);

const GO: Outcome = Outcome::Goes;
const DIS: Outcome = Outcome::Disabled;
/// For cryptographic operations AWS documents either exception; recorded answers of Decrypt and `ReEncrypt` have this one.
const DEL: Outcome = Outcome::InvalidState(PENDING_DELETION);
const PENDING_DELETION: &str = "pending deletion";
/// The guide treats both kinds of pending deletion alike; that the message names this one is assumed.
const REP: Outcome = Outcome::InvalidState("pending replica deletion");
const NOT: Outcome = Outcome::InvalidState("not pending deletion");
const IMP: Outcome = Outcome::InvalidState("pending import");
const UNA: Outcome = Outcome::InvalidState("unavailable");
const CRE: Outcome = Outcome::InvalidState("creating");
const UPD: Outcome = Outcome::InvalidState("updating");
const ORI: Outcome = Outcome::WrongOrigin;

const ANY: Option<Origin> = None;
const KMS: Option<Origin> = Some(Origin::AwsKms);
const EXT: Option<Origin> = Some(Origin::External);

/// Operations by state. A cell of a state that a key of that origin cannot get into says what the same row says elsewhere.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    //                                            Enabled Disabled PendDel PendRep PendImp Unavail Creating Updating
    ("Encrypt",                             ANY, [GO,     DIS,     DEL,    REP,    IMP,    UNA,    CRE,     GO]),
    ("Decrypt",                             ANY, [GO,     DIS,     DEL,    REP,    IMP,    UNA,    CRE,     GO]),
    ("ReEncrypt",                           ANY, [GO,     DIS,     DEL,    REP,    IMP,    UNA,    CRE,     GO]),
    ("GenerateDataKey",                     ANY, [GO,     DIS,     DEL,    REP,    IMP,    UNA,    CRE,     GO]),
    ("GenerateDataKeyWithoutPlaintext",     ANY, [GO,     DIS,     DEL,    REP,    IMP,    UNA,    CRE,     GO]),
    ("GenerateRandom",                      ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("CreateGrant",                         ANY, [GO,     DIS,     DEL,    REP,    IMP,    GO,     CRE,     GO]),
    ("ListGrants",                          ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("ListRetirableGrants",                 ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("RetireGrant",                         ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("RevokeGrant",                         ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("CreateKey",                           ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("DescribeKey",                         ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("ListKeys",                            ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    // Not in the guide's table (assumed).
    ("GetKeyLastUsage",                     ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("UpdateKeyDescription",                ANY, [GO,     GO,      DEL,    REP,    GO,     GO,     GO,      GO]),
    ("EnableKey",                           ANY, [GO,     GO,      DEL,    REP,    IMP,    GO,     CRE,     UPD]),
    ("DisableKey",                          ANY, [GO,     GO,      DEL,    REP,    IMP,    GO,     CRE,     UPD]),
    ("ScheduleKeyDeletion",                 ANY, [GO,     GO,      DEL,    REP,    GO,     GO,     GO,      UPD]),
    ("CancelKeyDeletion",                   ANY, [NOT,    NOT,     GO,     GO,     NOT,    NOT,    NOT,     NOT]),
    ("GetKeyPolicy",                        ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("PutKeyPolicy",                        ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("ListKeyPolicies",                     ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("CreateAlias",                         ANY, [GO,     GO,      DEL,    REP,    GO,     GO,     GO,      GO]),
    // The key that the alias leaves may be in any state; the row is for the key that it comes to.
    ("UpdateAlias",                         ANY, [GO,     GO,      DEL,    REP,    GO,     GO,     GO,      GO]),
    ("DeleteAlias",                         ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("ListAliases",                         ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    ("TagResource",                         ANY, [GO,     GO,      DEL,    REP,    GO,     GO,     GO,      GO]),
    ("UntagResource",                       ANY, [GO,     GO,      DEL,    REP,    GO,     GO,     GO,      GO]),
    ("ListResourceTags",                    ANY, [GO,     GO,      GO,     GO,     GO,     GO,     GO,      GO]),
    // Rotation. The guide leaves open which of two exceptions comes first for imported keys: the origin does (assumed).
    ("EnableKeyRotation",                   KMS, [GO,     DIS,     DEL,    REP,    IMP,    ORI,    CRE,     GO]),
    ("EnableKeyRotation",                   EXT, [ORI,    ORI,     ORI,    ORI,    ORI,    ORI,    CRE,     ORI]),
    ("DisableKeyRotation",                  KMS, [GO,     DIS,     DEL,    REP,    IMP,    ORI,    CRE,     GO]),
    ("DisableKeyRotation",                  EXT, [ORI,    ORI,     ORI,    ORI,    ORI,    ORI,    CRE,     ORI]),
    ("GetKeyRotationStatus",                KMS, [GO,     GO,      GO,     GO,     GO,     ORI,    GO,      GO]),
    ("GetKeyRotationStatus",                EXT, [ORI,    ORI,     ORI,    ORI,    ORI,    ORI,    ORI,     ORI]),
    // Imported keys rotate on demand too since the guide's table was written (API reference, RotateKeyOnDemand).
    ("RotateKeyOnDemand",                   ANY, [GO,     DIS,     DEL,    REP,    IMP,    ORI,    CRE,     GO]),
    // Not in the guide's table (assumed).
    ("ListKeyRotations",                    ANY, [GO,     GO,      GO,     GO,     GO,     ORI,    GO,      GO]),
    // Imported material.
    ("GetParametersForImport",              KMS, [ORI,    ORI,     ORI,    ORI,    ORI,    ORI,    CRE,     UPD]),
    ("GetParametersForImport",              EXT, [GO,     GO,      DEL,    REP,    GO,     ORI,    CRE,     UPD]),
    ("ImportKeyMaterial",                   KMS, [ORI,    ORI,     ORI,    ORI,    ORI,    ORI,    CRE,     ORI]),
    ("ImportKeyMaterial",                   EXT, [GO,     GO,      DEL,    REP,    GO,     ORI,    CRE,     GO]),
    ("DeleteImportedKeyMaterial",           KMS, [ORI,    ORI,     ORI,    ORI,    ORI,    ORI,    CRE,     UPD]),
    ("DeleteImportedKeyMaterial",           EXT, [GO,     GO,      GO,     GO,     GO,     ORI,    CRE,     UPD]),
    // Multi-Region keys.
    ("ReplicateKey",                        ANY, [GO,     DIS,     DEL,    REP,    IMP,    UNA,    CRE,     UPD]),
    ("UpdatePrimaryRegion",                 ANY, [GO,     DIS,     DEL,    REP,    IMP,    UNA,    CRE,     GO]),
];

/// The table's answer for `operation` on `key`.
///
/// # Errors
/// `DisabledException`, `KMSInvalidStateException` or `UnsupportedOperationException` with AWS's message.
///
/// # Panics
/// If the table has no row for the operation, which its test rules out.
pub(super) fn check(operation: &str, key: &Key) -> Result<(), ServiceError> {
    let row = row(operation, key)
        .expect("every operation on a key has a row for each origin: the table's test runs them all");
    answer(row, key)
}

fn row(operation: &str, key: &Key) -> Option<&'static [Outcome; 8]> {
    let of_it = |(name, origin, _): &&Row| *name == operation && origin.is_none_or(|origin| origin == key.origin);
    TABLE.iter().find(of_it).map(|(.., row)| row)
}

fn answer(row: &[Outcome; 8], key: &Key) -> Result<(), ServiceError> {
    let arn = key.arn();
    match row[key.state as usize] {
        _ if twin::is_off(Protection::KeyState) => Ok(()),
        Outcome::Goes => Ok(()),
        Outcome::Disabled => Err(ServiceError::refused("DisabledException", format!("{arn} is disabled."))
            .with_hint(format!("blockseal kms enable-key --key-id {arn}"))),
        Outcome::InvalidState(what) => {
            let command = if what == PENDING_DELETION { "cancel-key-deletion" } else { "describe-key" };
            Err(ServiceError::refused("KMSInvalidStateException", format!("{arn} is {what}."))
                .with_hint(format!("blockseal kms {command} --key-id {arn}")))
        }
        Outcome::WrongOrigin => Err(wrong_origin(key)),
    }
}

/// By which word findings call the state of a key.
pub const KEY_STATE: &str = "key state";

/// What the table says, as a finding of an explanation; `operation` is spelled as in grants.
pub(super) fn finding(operation: &str, key: &Key) -> Finding {
    const PAGE: Basis = Basis::Documented("AWS KMS developer guide, Key states of AWS KMS keys");
    let row = if operation.starts_with("ReEncrypt") { "ReEncrypt" } else { operation };
    let Some(Err(refused)) = self::row(row, key).map(|row| answer(row, key)) else {
        let says = format!("the key is {}, which lets {operation} through", key.state.name());
        return Finding::new(KEY_STATE, Leaning::Allows, says, PAGE);
    };
    let finding = Finding::new(KEY_STATE, Leaning::Refuses, refused.message(), PAGE);
    let arn = key.arn();
    match key.state {
        KeyState::Disabled => finding.with_remedy(format!("enable the key: blockseal kms enable-key --key-id {arn}")),
        state if state.is_ending() => finding.with_remedy(format!(
            "keep the key and enable it: blockseal kms cancel-key-deletion --key-id {arn}, then kms enable-key"
        )),
        KeyState::PendingImport => finding
            .with_remedy(format!("import the key's material: blockseal kms get-parameters-for-import --key-id {arn}")),
        _ => finding,
    }
}

/// The refusal of an operation that keys of this origin do not know.
pub(super) fn wrong_origin(key: &Key) -> ServiceError {
    let message = format!("{} origin is {} which is not valid for this operation.", key.arn(), key.origin.name());
    ServiceError::refused("UnsupportedOperationException", message)
}
