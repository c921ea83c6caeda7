//! What an explained call looks at in KMS: policies, grants, and the key's state.

use crate::gate::{self, Basis, Finding, Leaning, ServiceError, Step};
use crate::iam::{self, Decision, Outcome};

use super::access::Asked;
use super::assume::{self, Told};
use super::context::EncryptionContext;
use super::grant::{self, Grant};
use super::keyring::Key;
use super::states;

/// By which word findings call what is not in a state that somebody described.
pub const ACCOUNT_STATE: &str = "account state";

const GRANTS: Basis = Basis::Documented("AWS KMS developer guide, Grants in AWS KMS");
/// On what it rests that something is not in a state which somebody described.
pub const UNTOLD: Basis = Basis::Assumed("what is not told decides nothing");

/// Notes what was decided about `asked` on `key`, with what came close, and what the key's state says. Answers whether it
/// cannot be told: the call is then to go on as if it were let through. Does nothing, and answers no, for a call that is
/// not to be explained.
pub(super) fn decided(
    step: &Step<'_>,
    key: &Key,
    asked: &Asked<'_>,
    decision: &Decision,
) -> Result<bool, ServiceError> {
    let Some(trace) = step.call.trace else { return Ok(false) };
    let mut open = gate::note(step.call, decision, &format!("kms:{}", asked.operation), &key.arn());
    if matches!(decision.outcome, Outcome::Denied { explicit: false, .. }) {
        for grant in grant::close(step, key, asked.operation)? {
            trace.note(failing(&grant, asked));
        }
        if !assume::is_told(step.tx, key, Told::Grants)? {
            open = true;
            let says =
                format!("no policy allows it, and whether a grant does is not told: the grants of {}", key.arn());
            trace.note(Finding::new("grant", Leaning::Undetermined, says, UNTOLD));
        }
    }
    if open || decision.is_allowed() {
        trace.note(states::finding(asked.operation, key));
    }
    Ok(open)
}

/// A grant to the caller that allows the operation, under other contexts than this one.
fn failing(grant: &Grant, asked: &Asked<'_>) -> Finding {
    let wants = grant.constraints.as_ref().map(|constraints| match constraints {
        grant::GrantConstraints { encryption_context_equals: Some(whole), .. } => {
            format!("wants the encryption context {}", shown(whole))
        }
        grant::GrantConstraints { encryption_context_subset: Some(part), .. } => {
            format!("wants {} in the encryption context", shown(part))
        }
        _ => "has an empty constraint".to_owned(),
    });
    let says = match wants {
        Some(wants) => {
            let found = asked.context.map_or_else(|| "none".to_owned(), shown);
            format!("grant {} would allow kms:{}, but {wants}; the request has {found}", grant.id, asked.operation)
        }
        None => format!(
            "grant {} would allow kms:{}, but it is not known everywhere yet, and its token was not presented",
            grant.id, asked.operation
        ),
    };
    Finding::new("grant", Leaning::Neutral, says, GRANTS)
}

/// Notes that a key of another account is not in a state that somebody described.
pub(super) fn unknown_key(step: &Step<'_>, named: &str) -> Result<(), ServiceError> {
    if let Some(trace) = step.call.trace
        && iam::directory::is_described(step.tx)?
    {
        let says = format!("it is not in the account state: {named}");
        trace.note(Finding::new(ACCOUNT_STATE, Leaning::Undetermined, says, UNTOLD));
    }
    Ok(())
}

fn shown(context: &EncryptionContext) -> String {
    serde_json::to_string(context).unwrap_or_default()
}
