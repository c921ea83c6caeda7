//! What the user of a service sees when KMS refuses it a key: one table, KMS's answer by the service's operation.
//!
//! The services of the columns that are not built here are listed for `explain`, which knows their answers before they are.

use crate::gate::{Basis, Refusal};

/// What KMS answered, as far as services make a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KmsAnswer {
    /// `AccessDeniedException`.
    Denied,
    /// `DisabledException`.
    Disabled,
    /// `KMSInvalidStateException`: pending deletion, pending import, unavailable and their like.
    InvalidState,
    /// `NotFoundException`: no such key, alias or grant.
    NotFound,
    /// `InvalidCiphertextException` or `IncorrectKeyException`: the wrapped key is not this volume's.
    InvalidCiphertext,
    /// `ThrottlingException`.
    Throttled,
    /// Anything else.
    Other,
}

impl KmsAnswer {
    /// All of them, in the order of the table's rows.
    pub const ALL: [Self; 7] = [
        Self::Denied,
        Self::Disabled,
        Self::InvalidState,
        Self::NotFound,
        Self::InvalidCiphertext,
        Self::Throttled,
        Self::Other,
    ];

    /// What a refusal by KMS with this code is.
    pub fn of_code(code: &str) -> Self {
        match code {
            "AccessDeniedException" => Self::Denied,
            "DisabledException" => Self::Disabled,
            "KMSInvalidStateException" | "KeyUnavailableException" => Self::InvalidState,
            "NotFoundException" => Self::NotFound,
            "InvalidCiphertextException" | "IncorrectKeyException" => Self::InvalidCiphertext,
            "ThrottlingException" => Self::Throttled,
            _ => Self::Other,
        }
    }
}

/// An operation of a service that uses a key for its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UserOf {
    /// EC2 `CreateVolume`.
    CreateVolume,
    /// EC2 `AttachVolume`.
    AttachVolume,
    /// EC2 `RunInstances`.
    RunInstances,
    /// EC2 `CopySnapshot`.
    CopySnapshot,
    /// EBS direct: `StartSnapshot`, `GetSnapshotBlock` and their like.
    EbsDirect,
    /// RDS: `CreateDBInstance`, restores and copies.
    Rds,
}

impl UserOf {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 6] =
        [Self::CreateVolume, Self::AttachVolume, Self::RunInstances, Self::CopySnapshot, Self::EbsDirect, Self::Rds];

    /// The operation of that name, if it is one of these.
    pub fn of_operation(name: &str) -> Option<Self> {
        Some(match name {
            "CreateVolume" => Self::CreateVolume,
            "AttachVolume" => Self::AttachVolume,
            "RunInstances" => Self::RunInstances,
            "CopySnapshot" => Self::CopySnapshot,
            _ => return None,
        })
    }
}

/// What the caller sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Seen {
    /// The call succeeds with a volume in state `creating`, which is gone when somebody looks for it.
    VolumeVanishes,
    /// The call fails with this code and a message in which `{id}` is the volume.
    Error(&'static str, &'static str),
    /// The call succeeds; the instance goes from `pending` to `terminated` with this state reason.
    InstanceTerminates(&'static str),
    /// The call succeeds; the snapshot goes to state `error` with this message.
    SnapshotFails(&'static str),
    /// The call fails with an exception that has a reason.
    Reason(&'static str, &'static str),
}

impl Seen {
    /// What is seen, in a sentence.
    pub fn says(self) -> String {
        match self {
            Self::VolumeVanishes => "the call answers \"creating\", and the volume is gone at the next \
                                     DescribeVolumes (InvalidVolume.NotFound)"
                .to_owned(),
            Self::Error(code, "") => code.to_owned(),
            Self::Error(code, message) => format!("{code}: {message}"),
            Self::InstanceTerminates(reason) => {
                format!("the instance goes from pending to terminated, StateReason {reason}")
            }
            Self::SnapshotFails(message) => {
                format!("the call succeeds, and the snapshot goes to state error: \"{message}\"")
            }
            Self::Reason(exception, reason) => format!("{exception} with Reason {reason}"),
        }
    }

    /// The refusal that the caller of `about` gets, where it is one.
    pub(super) fn refusal(self, about: &str) -> Option<Refusal> {
        match self {
            Self::Error(code, message) => {
                Some(Refusal { code, message: message.replace("{id}", about), status: 400, hint: None })
            }
            _ => None,
        }
    }
}

const VANISHES: Seen = Seen::VolumeVanishes;
const REVOKED: Seen = Seen::Error(
    "CustomerKeyHasBeenRevoked",
    "Volume {id} cannot be attached. The encrypted volume was unable to access the KMS key.",
);
const ENDS: Seen = Seen::InstanceTerminates("Client.InvalidKMSKey.InvalidState");
const FAILS: Seen = Seen::SnapshotFails("Given key ID is not accessible");
const FAULT: Seen = Seen::Error(
    "KMSKeyNotAccessibleFault",
    "The specified KMS key [{id}] does not exist, is not enabled or you do not have permissions to access it.",
);

const CREATE_DOC: Basis = Basis::Documented("Amazon EC2 API reference, CreateVolume: KmsKeyId");
const CREATE_SEEN: Basis =
    Basis::Recorded("aws-cli issues 2592 and 2604, aws-ebs-csi-driver issue 3010: the volume disappears");
const ATTACH_DOC: Basis = Basis::Documented("Amazon EC2 API reference, error codes: CustomerKeyHasBeenRevoked");
const ATTACH_SEEN: Basis = Basis::Recorded("kubernetes issue 62171: CreateGrant missing");
const RUN_SEEN: Basis =
    Basis::Recorded("hashicorp/packer issue 12683 and others: StateReason, also for a missing permission");
const COPY_DOC: Basis = Basis::Documented("Amazon EBS user guide, copying a snapshot: StateMessage");
const DIRECT: Basis = Basis::Assumed("the exceptions and reasons are documented, which KMS answer gives which is not");
const RDS_SEEN: Basis = Basis::Recorded("terraform-provider-aws issue 16362 and others: KMSKeyNotAccessibleFault");
const THE_SAME: Basis = Basis::Assumed("the same as for a key that cannot be used");

/// KMS's answers by operations, the rows as in [`KmsAnswer::ALL`] and the columns as in [`UserOf::ALL`].
#[rustfmt::skip]
pub const TABLE: [[(Seen, Basis); 6]; 7] = [
    // Denied
    [(VANISHES, CREATE_SEEN), (REVOKED, ATTACH_SEEN), (ENDS, RUN_SEEN), (FAILS, COPY_DOC),
     (Seen::Reason("AccessDeniedException", "DEPENDENCY_ACCESS_DENIED"), DIRECT), (FAULT, RDS_SEEN)],
    // Disabled
    [(VANISHES, CREATE_DOC), (REVOKED, ATTACH_DOC), (ENDS, RUN_SEEN), (FAILS, COPY_DOC),
     (Seen::Reason("ValidationException", "INVALID_CUSTOMER_KEY"), DIRECT), (FAULT, RDS_SEEN)],
    // InvalidState
    [(VANISHES, CREATE_DOC), (REVOKED, ATTACH_DOC), (ENDS, RUN_SEEN), (FAILS, COPY_DOC),
     (Seen::Reason("ValidationException", "INVALID_CUSTOMER_KEY"), DIRECT), (FAULT, RDS_SEEN)],
    // NotFound
    [(VANISHES, CREATE_DOC), (REVOKED, ATTACH_DOC), (ENDS, THE_SAME), (FAILS, COPY_DOC),
     (Seen::Reason("ResourceNotFoundException", "DEPENDENCY_RESOURCE_NOT_FOUND"), DIRECT), (FAULT, RDS_SEEN)],
    // InvalidCiphertext
    [(VANISHES, THE_SAME), (REVOKED, THE_SAME), (ENDS, THE_SAME), (FAILS, THE_SAME),
     (Seen::Reason("ValidationException", "INVALID_CUSTOMER_KEY"), DIRECT), (FAULT, THE_SAME)],
    // Throttled
    [(VANISHES, THE_SAME), (REVOKED, THE_SAME), (ENDS, THE_SAME), (FAILS, THE_SAME),
     (Seen::Reason("RequestThrottledException", "DEPENDENCY_REQUEST_THROTTLED"), DIRECT), (FAULT, THE_SAME)],
    // Other
    [(VANISHES, THE_SAME), (REVOKED, THE_SAME), (ENDS, THE_SAME), (FAILS, THE_SAME),
     (Seen::Reason("ValidationException", "INVALID_CUSTOMER_KEY"), DIRECT), (FAULT, THE_SAME)],
];

/// What the caller of `user` sees of `answer`, and on what that rests.
pub const fn seen(answer: KmsAnswer, user: UserOf) -> (Seen, Basis) {
    TABLE[answer as usize][user as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_stand_in_the_order_of_their_names() {
        for (row, answer) in KmsAnswer::ALL.into_iter().enumerate() {
            assert_eq!(answer as usize, row);
        }
        for (column, user) in UserOf::ALL.into_iter().enumerate() {
            assert_eq!(user as usize, column);
        }
    }

    #[test]
    fn every_cell_is_of_its_columns_kind_and_names_its_source() {
        for answer in KmsAnswer::ALL {
            for user in UserOf::ALL {
                let (seen, basis) = seen(answer, user);
                let right = match user {
                    UserOf::CreateVolume => seen == Seen::VolumeVanishes,
                    UserOf::AttachVolume => matches!(seen, Seen::Error("CustomerKeyHasBeenRevoked", _)),
                    UserOf::RunInstances => matches!(seen, Seen::InstanceTerminates(_)),
                    UserOf::CopySnapshot => matches!(seen, Seen::SnapshotFails(_)),
                    UserOf::EbsDirect => matches!(seen, Seen::Reason(..)),
                    UserOf::Rds => matches!(seen, Seen::Error("KMSKeyNotAccessibleFault", _)),
                };
                assert!(right && !basis.source().is_empty() && !seen.says().is_empty(), "{answer:?} {user:?}");
            }
        }
        // Documented first, then recorded: what is neither must say what was decided.
        let assumed = TABLE.iter().flatten().filter(|(_, basis)| basis.name() == "assumed").count();
        assert_eq!(assumed, 3 * 6 + 3 + 2, "a cell that gained or lost its source belongs into docs/explain.md too");
    }

    #[test]
    fn codes_have_their_rows() {
        assert_eq!(KmsAnswer::of_code("AccessDeniedException"), KmsAnswer::Denied);
        assert_eq!(KmsAnswer::of_code("SomethingNew"), KmsAnswer::Other);
    }
}
