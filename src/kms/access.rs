//! May this principal do this to this key: policies first, then grants.
//!
//! Key policies are not evaluated yet: every key has the default policy, which leaves its own account's principals to
//! their identity policies, and those are taken to be an administrator's.

use crate::gate::{ServiceError, Step};
use crate::iam::Principal;
use crate::iam::access::{Access, Verdict, evaluate};

use super::context::EncryptionContext;
use super::grant;
use super::keyring::{self, Key};

/// What an AWS managed key's policy says of an action (AWS KMS developer guide, "Viewing the key policy": aws/ebs).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Managed {
    /// Anybody of the account may, directly.
    Metadata,
    /// Anybody of the account may, through the key's service.
    ThroughService,
    /// Nobody may.
    Never,
}

fn managed(operation: &str) -> Managed {
    match operation {
        "RevokeGrant" => Managed::Metadata,
        name if ["Describe", "Get", "List"].iter().any(|verb| name.starts_with(verb)) => Managed::Metadata,
        "Encrypt"
        | "Decrypt"
        | "ReEncryptFrom"
        | "ReEncryptTo"
        | "GenerateDataKey"
        | "GenerateDataKeyWithoutPlaintext"
        | "CreateGrant" => Managed::ThroughService,
        _ => Managed::Never,
    }
}

/// What lets the call through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Basis {
    /// The key's policy, with the principal's own.
    Policy,
    /// A grant to the principal.
    Grant,
}

/// How a refusal names what was asked for.
#[derive(Clone, Copy)]
pub(super) enum Subject {
    /// By the key's ARN.
    Key,
    /// As the key behind a ciphertext, which the caller did not name.
    Ciphertext,
}

/// The key that `named` names, once policy or grant let `operation` through; it goes into the record.
///
/// # Errors
/// `NotFoundException` and those of [`authorise`]. A principal of another account is not told whether the key exists.
pub(super) fn named_key(
    step: &mut Step<'_>,
    named: &str,
    operation: &str,
    context: Option<&EncryptionContext>,
) -> Result<(Key, Basis), ServiceError> {
    let key = match keyring::resolve(step.tx, step.call, named) {
        Err(error) if error.code() == "NotFoundException" && !keyring::is_of_account(step.call, named) => {
            return Err(denied_unknown(step, operation, Subject::Key, named));
        }
        resolved => resolved?,
    };
    key.note(step.draft);
    let basis = authorise(step, &key, operation, context, Subject::Key)?;
    Ok((key, basis))
}

/// Lets the call through or refuses it. `operation` is spelled as in grants (`ReEncryptFrom`); `context` is the one that
/// grant constraints are held against, `None` for an operation to which they do not apply.
///
/// # Errors
/// `AccessDeniedException`.
pub(super) fn authorise(
    step: &Step<'_>,
    key: &Key,
    operation: &str,
    context: Option<&EncryptionContext>,
    subject: Subject,
) -> Result<Basis, ServiceError> {
    let action = format!("kms:{operation}");
    let verdict = match (&key.only_via, managed(operation)) {
        (Some(_), Managed::Never) => Verdict::NoResourcePolicy,
        (only_via, managed) => evaluate(&Access {
            principal: &step.call.principal,
            action: &action,
            owner: &key.account,
            via: step.call.via.as_deref(),
            only_via: only_via.as_deref().filter(|_| managed == Managed::ThroughService),
        }),
    };
    if verdict.is_allowed() {
        return Ok(Basis::Policy);
    }
    if grant::allowing(step, key, operation, context)?.is_some() {
        return Ok(Basis::Grant);
    }
    Err(denied(&step.call.principal, &action, &key.arn(), subject, verdict))
}

/// Lets through or refuses a call that is about no key yet, such as `CreateKey` or `ListKeys`.
pub(super) fn authorise_account(step: &Step<'_>, operation: &str) -> Result<(), ServiceError> {
    let action = format!("kms:{operation}");
    let verdict = evaluate(&Access {
        principal: &step.call.principal,
        action: &action,
        owner: &step.call.account,
        via: step.call.via.as_deref(),
        only_via: None,
    });
    if verdict.is_allowed() {
        return Ok(());
    }
    Err(denied(&step.call.principal, &action, "*", Subject::Key, verdict))
}

/// The refusal for a ciphertext or an ARN whose key is unknown here. AWS words it as if the key were another account's.
pub(super) fn denied_unknown(step: &Step<'_>, operation: &str, subject: Subject, named: &str) -> ServiceError {
    denied(&step.call.principal, &format!("kms:{operation}"), named, subject, Verdict::Foreign)
}

fn denied(principal: &Principal, action: &str, named: &str, subject: Subject, verdict: Verdict) -> ServiceError {
    let on = match subject {
        Subject::Key => format!("on resource: {named}"),
        Subject::Ciphertext => "on the resource associated with this ciphertext".to_owned(),
    };
    ServiceError::refused(
        "AccessDeniedException",
        format!("User: {principal} is not authorized to perform: {action} {on} because {}", verdict.reason(action)),
    )
}
