//! May this principal do this to this key: the key's policy and the principal's own first, then grants.

use crate::gate::{self, ServiceError, Step};
use crate::iam::{self, Context, Decision, NamedPolicy, Outcome, Principal, Question, Requester, ResourcePolicy};
use crate::twin::{self, Protection};

use super::assume::{self, Told};
use super::context::EncryptionContext;
use super::grant::{self, Grant};
use super::keyring::{self, Key, MultiRegionKeyType};
use super::policy;
use super::request::{self, KeyFacts, RequestFacts};
use super::trace;
use super::usage;

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
/// `InvalidArnException` for an alias where none is taken, `NotFoundException` and those of [`authorise`]. A principal of another account is not told whether the key exists.
pub(super) fn named_key(
    step: &mut Step<'_>,
    named: &str,
    operation: &str,
    context: Option<&EncryptionContext>,
) -> Result<(Key, Basis), ServiceError> {
    named_key_with(step, named, operation, context, &Context::default())
}

/// As [`named_key`], for a request that has more condition keys than every request about a key.
pub(super) fn named_key_with(
    step: &mut Step<'_>,
    named: &str,
    operation: &str,
    context: Option<&EncryptionContext>,
    more: &Context,
) -> Result<(Key, Basis), ServiceError> {
    refuse_alias(step, named, operation)?;
    let key = match keyring::resolve(step.tx, step.call, named) {
        Err(error) if error.code() == "NotFoundException" && !keyring::is_of_account(step.call, named) => {
            trace::unknown_key(step, named)?;
            return Err(denied_unknown(step, operation, Subject::Key, named));
        }
        resolved => resolved?,
    };
    key.note(step.draft);
    let asked = Asked { operation, context, named: Some(named), subject: Subject::Key, more };
    let basis = authorise_with(step, &key, &asked)?;
    Ok((key, basis))
}

/// Refuses an alias as the name of a key where AWS takes none.
///
/// # Errors
/// `InvalidArnException`, as recorded.
pub(super) fn refuse_alias(step: &Step<'_>, named: &str, operation: &str) -> Result<(), ServiceError> {
    if BY_ALIAS.contains(&operation) || !keyring::is_alias(step.call, named) {
        return Ok(());
    }
    Err(ServiceError::refused("InvalidArnException", "Key Aliases are not supported for this operation.")
        .with_hint("give the key's id or ARN, which DescribeKey shows for an alias"))
}

/// Lets the call through or refuses it. `operation` is spelled as in grants (`ReEncryptFrom`); `context` is the one that
/// grant constraints are held against, `None` for an operation to which they do not apply.
///
/// # Errors
/// `AccessDeniedException`; [`gate::UNDETERMINED`] where it cannot be told what the policies say.
pub(super) fn authorise(
    step: &Step<'_>,
    key: &Key,
    operation: &str,
    context: Option<&EncryptionContext>,
    subject: Subject,
) -> Result<Basis, ServiceError> {
    authorise_with(step, key, &Asked { operation, context, named: None, subject, more: &Context::default() })
}

/// What is asked of a key.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Spelled as in grants.
    pub(super) operation: &'a str,
    /// The encryption context, for a cryptographic operation.
    pub(super) context: Option<&'a EncryptionContext>,
    /// The name that the request gives the key, if it does.
    pub(super) named: Option<&'a str>,
    pub(super) subject: Subject,
    /// Further condition keys of the request.
    pub(super) more: &'a Context,
}

/// What can be asked of a key by an alias (AWS KMS API reference, `KeyId` of each operation).
const BY_ALIAS: [&str; 7] = [
    "Decrypt",
    "DescribeKey",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
];

/// What a principal of another account can be allowed to do with a key. Permission for anything else has no effect (AWS KMS
/// developer guide, "AWS KMS permissions", column "Cross-account use").
const ACROSS_ACCOUNTS: [&str; 11] = [
    "CreateGrant",
    "Decrypt",
    "DescribeKey",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "GetKeyRotationStatus",
    "ListGrants",
    "ReEncryptFrom",
    "ReEncryptTo",
    "RevokeGrant",
];

/// As [`authorise`].
pub(super) fn authorise_with(step: &Step<'_>, key: &Key, asked: &Asked<'_>) -> Result<Basis, ServiceError> {
    let policy = policy::of(step.tx, key)?;
    let Asked { operation, context, named, subject, more } = *asked;
    let alias = named.and_then(|named| keyring::as_alias_of(step.call, named, key));
    let decision = decide_under(step, key, &policy, operation, context, alias, more)?;
    let possible = !decision.cross_account || ACROSS_ACCOUNTS.contains(&operation);
    if (decision.is_allowed() && possible) || twin::is_off(Protection::Policy) {
        trace::decided(step, key, asked, &decision)?;
        return Ok(Basis::Policy);
    }
    if !possible {
        return Err(denied_unknown(step, operation, subject, &key.arn()));
    }
    let explicit = matches!(decision.outcome, Outcome::Denied { explicit: true, .. });
    let grant = if explicit { None } else { grant::allowing(step, key, operation, context)? };
    let basis = if grant.is_some() { Basis::Grant } else { Basis::Policy };
    let decision = match grant {
        Some(grant) => decision.with_grant(&format!("grant {}", grant.id)),
        None => decision,
    };
    let open = trace::decided(step, key, asked, &decision)?;
    if decision.is_allowed() {
        return Ok(basis);
    }
    // Where it cannot be told, an explanation goes on to see what else there is; a call does not.
    if open {
        return Ok(Basis::Policy);
    }
    Err(gate::refusal(&decision, step.call, &format!("kms:{operation}"), &subject.on(&key.arn())))
}

/// What `policy`, as that of `key`, says to `operation` by the caller. Grants are not asked.
pub(super) fn decide_under(
    step: &Step<'_>,
    key: &Key,
    policy: &NamedPolicy,
    operation: &str,
    encryption_context: Option<&EncryptionContext>,
    request_alias: Option<&str>,
    more: &Context,
) -> Result<Decision, ServiceError> {
    let requester = iam::directory::requester(step.tx, &step.call.principal)?;
    let mut context = gate::common_keys(step.call, step.now, &requester);
    request_facts(step, key, operation, encryption_context, request_alias).describe(&mut context);
    add_looked_up(step, key, operation, &requester, Some(policy), &mut context)?;
    context.extend(more);
    Ok(iam::evaluate(&Question {
        requester: &requester,
        action: &format!("kms:{operation}"),
        resource: &key.arn(),
        owner: &key.account,
        policy: ResourcePolicy::Key(policy),
        context: &context,
    }))
}

fn request_facts<'a>(
    step: &'a Step<'_>,
    key: &'a Key,
    operation: &'a str,
    encryption_context: Option<&'a EncryptionContext>,
    request_alias: Option<&'a str>,
) -> RequestFacts<'a> {
    RequestFacts {
        operation,
        caller_account: step.call.principal.account().as_str(),
        via: step.call.via.as_deref(),
        encryption_context,
        request_alias,
        key: Some(KeyFacts {
            account: key.account.as_str(),
            spec: "SYMMETRIC_DEFAULT",
            usage: "ENCRYPT_DECRYPT",
            origin: key.origin.name(),
            multi_region: key.multi_region.map(MultiRegionKeyType::name),
        }),
    }
}

/// Lets the caller retire a grant or refuses it: those whom the grant names, unless their own policies deny it, and who of
/// the accounts behind it has the permission from them. No key policy has a say (AWS KMS developer guide, "Retiring and
/// revoking grants").
pub(super) fn authorise_retire(step: &Step<'_>, key: &Key, grant: &Grant) -> Result<(), ServiceError> {
    let requester = iam::directory::requester(step.tx, &step.call.principal)?;
    let mut names: Vec<_> = grant.retiring.as_deref().into_iter().collect();
    if grant.operations.iter().any(|operation| operation == "RetireGrant") {
        names.push(&grant.grantee);
    }
    let itself = names.iter().any(|name| grant::means_itself(name, &requester));
    let owner = Principal::Root(key.account.clone()).arn();
    names.extend([grant.issuer.as_str(), &owner]);
    let of_account = names.iter().any(|name| grant::means_account(name, &requester));
    if twin::is_off(Protection::Policy) {
        return Ok(());
    }
    if !itself && !of_account {
        return Err(denied_unknown(step, "RetireGrant", Subject::Key, &key.arn()));
    }
    let mut context = gate::common_keys(step.call, step.now, &requester);
    request_facts(step, key, "RetireGrant", None, None).describe(&mut context);
    request::constrained(grant.constraints.as_ref(), &mut context);
    add_looked_up(step, key, "RetireGrant", &requester, None, &mut context)?;
    let decision = iam::evaluate(&Question {
        requester: &requester,
        action: "kms:RetireGrant",
        resource: &key.arn(),
        owner: requester.principal.account(),
        policy: ResourcePolicy::None,
        context: &context,
    });
    let decision = if itself { decision.with_grant(&format!("grant {}", grant.id)) } else { decision };
    if decision.is_allowed() {
        return Ok(());
    }
    Err(gate::refusal(&decision, step.call, "kms:RetireGrant", &Subject::Key.on(&key.arn())))
}

/// Adds what has to be looked up of the key, if a policy asks for it.
fn add_looked_up(
    step: &Step<'_>,
    key: &Key,
    operation: &str,
    requester: &Requester,
    policy: Option<&NamedPolicy>,
    context: &mut Context,
) -> Result<(), ServiceError> {
    let identity = match &requester.identity {
        iam::Identity::Policies(policies) => policies.as_slice(),
        _ => &[],
    };
    let asked = |start: &str| policy.into_iter().chain(identity).any(|named| named.policy.asks_for(start));
    if asked("aws:Resource") {
        gate::owner_keys(step.tx, &key.account, context)?;
    }
    if asked("kms:ResourceAliases") {
        if assume::is_told(step.tx, key, Told::Aliases)? {
            context.set_all("kms:ResourceAliases", keyring::aliases_of(step.tx, key)?);
        } else {
            context.set_unknown("kms:ResourceAliases", "the aliases of the key are not told");
        }
    }
    if asked("aws:ResourceTag/") {
        if !assume::is_told(step.tx, key, Told::Tags)? {
            context.set_unknown("aws:ResourceTag/", "the tags of the key are not told");
        }
        for (name, value) in keyring::tags_of(step.tx, key)? {
            context.set_named("aws:ResourceTag/", &name, &value);
        }
    }
    let unused = "kms:TrailingDaysWithoutKeyUsage";
    if matches!(operation, "DisableKey" | "ScheduleKeyDeletion") && asked(unused) {
        match usage::last_use(step, key)? {
            Some(last) => {
                let days = (step.now.micros() - last.timestamp.micros()) / MICROS_PER_DAY;
                context.set(unused, days.to_string());
            }
            None => {
                context.set_unknown(unused, "the key was never used, and what AWS then compares is not documented");
            }
        }
    }
    Ok(())
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Lets through or refuses a call that is about no key yet, such as `CreateKey` or `ListKeys`.
pub(super) fn authorise_account(step: &Step<'_>, operation: &str) -> Result<(), ServiceError> {
    authorise_account_with(step, operation, "*", &Context::default())
}

/// As [`authorise_account`], on `resource` (an alias, or `*`) and with further condition keys.
pub(super) fn authorise_account_with(
    step: &Step<'_>,
    operation: &str,
    resource: &str,
    more: &Context,
) -> Result<(), ServiceError> {
    let facts = RequestFacts {
        operation,
        caller_account: step.call.principal.account().as_str(),
        via: step.call.via.as_deref(),
        encryption_context: None,
        request_alias: None,
        key: None,
    };
    let mut keys = Context::default();
    facts.describe(&mut keys);
    keys.extend(more);
    gate::authorise(step, &format!("kms:{operation}"), Some(resource), &keys)
}

/// The refusal for a ciphertext or an ARN whose key is unknown here. AWS words it as if the key were another account's.
pub(super) fn denied_unknown(step: &Step<'_>, operation: &str, subject: Subject, named: &str) -> ServiceError {
    let on = subject.on(named);
    let message =
        format!("User: {} is not authorized to perform: kms:{operation} {on}{}", step.call.principal, iam::FOREIGN);
    ServiceError::refused("AccessDeniedException", message)
}

impl Subject {
    /// How the message names it, with a space behind.
    fn on(self, named: &str) -> String {
        match self {
            Self::Key => format!("on resource: {named} "),
            Self::Ciphertext => "on the resource associated with this ciphertext ".to_owned(),
        }
    }
}
