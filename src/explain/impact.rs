//! What becomes of everything that a key wraps, if something happens to the key: asked before one touches it.

use serde::Serialize;
use serde_json::Value;

use super::{Verdict, explain};
use crate::api;
use crate::clock::Time;
use crate::ec2;
use crate::gate::{Call, ServiceError};
use crate::iam::Principal;
use crate::kms;

/// What happens to the key.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Nothing: as it is now.
    Nothing,
    /// It is disabled.
    Disabled,
    /// Its deletion is scheduled, and comes to pass.
    Deleted,
    /// It gets this policy.
    Policy(String),
}

/// What becomes of one thing that the key wraps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Affected {
    /// `volume` or `attachment`.
    pub kind: &'static str,
    /// The volume's id.
    pub id: String,
    /// Whose volume it is.
    pub account: String,
    /// Its state now.
    pub state: String,
    /// The encryption context of its data key, as a JSON object.
    pub encryption_context: Value,
    /// What becomes of it, and when.
    pub effect: String,
    /// The error that its next user sees, if it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When its content is lost for good: the key's material is destroyed then. Nothing else brings the data key back, once
    /// the volume is detached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Time>,
}

/// What becomes of everything that `key_id` wraps, in every account of `call`'s home, which is a scratch one. Each volume is
/// tried by the caller, one of another account by that account's root.
///
/// # Errors
/// `NotFoundException` if there is no such key; a failure of this machine.
pub fn impact(call: &Call<'_>, key_id: &str, change: &Change) -> Result<Vec<Affected>, ServiceError> {
    let key_arn = kms::arn_of(call, key_id)?;
    match change {
        Change::Nothing => {}
        Change::Disabled => kms::assume_disabled(call.home, &key_arn)?,
        Change::Deleted => kms::assume_deletion(call.home, &key_arn)?,
        Change::Policy(policy) => kms::assume_policy(call.home, &key_arn, policy)?,
    }
    let lost_at = kms::deletion_of(call.home, &key_arn)?;
    let mut affected = Vec::new();
    for wrapped in ec2::wrapped_under(call.home, &key_arn)? {
        let attached = wrapped.attached;
        // What is attached goes on: the host has the data key. Its next attach is the first to ask for it again.
        ec2::assume_detached(call.home, &wrapped.id)?;
        let operation = api::service("ec2").and_then(|ec2| ec2.operation("AttachVolume"));
        let operation = operation.ok_or_else(|| ServiceError::machine("there is no AttachVolume"))?;
        let mut call = Call { account: wrapped.account.clone(), region: wrapped.region.clone(), ..call.clone() };
        if *call.principal.account() != wrapped.account {
            call.principal = Principal::Root(wrapped.account.clone());
        }
        let explanation = explain(&call, "ec2", operation, serde_json::json!({"VolumeId": wrapped.id.as_str()}))?;
        let error = explanation.sight.as_ref().and_then(|sight| sight.error.clone());
        let then = match explanation.verdict {
            _ if lost_at.is_some() => "refused at the next attach, and lost for good when the waiting period is over",
            Verdict::Allowed => "nothing changes",
            Verdict::Refused => "refused at the next attach",
            Verdict::Undetermined => "undetermined at the next attach",
        };
        let effect = if attached && then != "nothing changes" {
            format!("runs on: nothing until it is detached, then {then}")
        } else {
            then.to_owned()
        };
        affected.push(Affected {
            kind: if attached { "attachment" } else { "volume" },
            id: wrapped.id.to_string(),
            account: wrapped.account.to_string(),
            state: wrapped.state,
            encryption_context: serde_json::json!(wrapped.context),
            effect,
            error,
            lost_at,
        });
    }
    Ok(affected)
}
