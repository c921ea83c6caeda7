//! Who may call EC2: the principals of the account whose volumes are meant, as their identity policies say.
//!
//! EC2 knows no policies on volumes, so nothing gives another account's principal a right to one (IAM user guide,
//! "Cross-account resource access"). Of the condition keys of EC2 (service authorization reference, "Actions, resources,
//! and condition keys for Amazon EC2") only the Region is set: a policy that asks for another decides nothing here.

use crate::store::Transaction;

use crate::gate::{self, Call, Refusal, ServiceError};
use crate::iam::{Context, Outcome};
use crate::store;
use crate::twin::{self, Protection};

use super::table;

/// Refuses a caller who may not do `action` (such as `ec2:DeleteVolume`) to every one of `resources` ([`volume`]; `*` for
/// an action on none).
///
/// # Errors
/// `UnauthorizedOperation` (the wording is *assumed*: AWS puts an encoded message behind it);
/// [`gate::UNDETERMINED`] where it cannot be told what the policies say.
pub(super) fn check(call: &Call<'_>, action: &str, resources: &[String]) -> Result<(), ServiceError> {
    call.home.read(|tx| check_in(tx, call, action, resources))
}

/// As [`check`], in a transaction.
pub(super) fn check_in(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    action: &str,
    resources: &[String],
) -> Result<(), ServiceError> {
    if twin::is_off(Protection::Policy) {
        return Ok(());
    }
    let now = store::clock(tx)?.now();
    let mut keys = Context::default();
    keys.set("ec2:Region", call.region.as_str()).set("aws:ResourceAccount", call.account.as_str());
    for family in ["aws:ResourceTag/", "aws:RequestTag/", "aws:TagKeys"] {
        keys.set_unknown(family, "tags are not condition keys of EC2 here");
    }
    for resource in resources {
        let decision = gate::decide(tx, call, now, action, resource, &keys)?;
        let open = gate::note(call, &decision, action, resource);
        match decision.outcome {
            Outcome::Allowed => {}
            _ if open => {}
            Outcome::Undetermined => return Err(gate::refusal(&decision, call, action, &format!("on {resource} "))),
            _ => {
                let clause = decision.clause(action);
                return Err(ServiceError::Refused(Refusal {
                    code: "UnauthorizedOperation",
                    message: format!(
                        "You are not authorized to perform this operation. User: {} is not authorized to perform: {action} on resource: {resource} {clause}.",
                        call.principal
                    ),
                    status: 403,
                    hint: None,
                }));
            }
        }
    }
    Ok(())
}

/// As [`check`], of an action on a volume and an instance, this machine's if none is named.
pub(super) fn check_attachment(
    call: &Call<'_>,
    action: &str,
    volume_id: &str,
    instance_id: Option<&str>,
) -> Result<(), ServiceError> {
    call.home.write(|tx| {
        let this = table::this_instance(tx)?;
        let instance = instance(call, instance_id.unwrap_or(this.as_str()));
        check_in(tx, call, action, &[volume(call, volume_id), instance])
    })
}

/// The ARN of an instance; of all that could be launched, for `*`.
pub(super) fn instance(call: &Call<'_>, id: &str) -> String {
    format!("arn:aws:ec2:{}:{}:instance/{id}", call.region, call.account)
}

/// The ARN of a volume; of all that could be made, for `*`.
pub(super) fn volume(call: &Call<'_>, id: &str) -> String {
    format!("arn:aws:ec2:{}:{}:volume/{id}", call.region, call.account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Home;
    use rusqlite::params;

    /// Codes of what a user with `policy` gets who deletes, attaches and describes volumes that are not there.
    fn codes(policy: &str) -> [&'static str; 3] {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        home.write(|tx| {
            tx.execute(
                "INSERT INTO iam_entities (entity, account, kind, name, path, id, created)
                 VALUES (1, '123456789012', 'user', 'alice', '/', 'AIDAX', 0)",
                [],
            )?;
            tx.execute("INSERT INTO iam_policies VALUES (1, 'p', ?1)", params![policy])?;
            Ok::<_, ServiceError>(())
        })
        .unwrap();
        let alice = "arn:aws:iam::123456789012:user/alice".parse().unwrap();
        let call = Call::direct(&home, alice, "us-east-1".parse().unwrap());
        let volume_id = "vol-0123456789abcdef0".to_owned();
        let code = |outcome: Result<(), ServiceError>| outcome.err().map_or("", |error| error.code());
        [
            code(
                crate::ec2::delete_volume(
                    &call,
                    crate::ec2::DeleteVolumeRequest { volume_id: volume_id.clone(), ..Default::default() },
                )
                .map(drop),
            ),
            code(
                crate::ec2::attach_volume(&call, crate::ec2::AttachVolumeRequest { volume_id, ..Default::default() })
                    .map(drop),
            ),
            code(crate::ec2::describe_volumes(&call, crate::ec2::DescribeVolumesRequest::default()).map(drop)),
        ]
    }

    #[test]
    fn identity_policies_decide_on_volumes() {
        let policy = |statement: &str| format!(r#"{{"Version": "2012-10-17", "Statement": [{statement}]}}"#);
        let no_volume = "InvalidVolume.NotFound";
        let no = "UnauthorizedOperation";
        let only_read = policy(r#"{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}"#);
        assert_eq!(codes(&only_read), [no, no, ""]);
        // Attaching asks for the volume and the instance.
        let volumes =
            policy(r#"{"Effect": "Allow", "Action": "ec2:*", "Resource": "arn:aws:ec2:us-east-1:*:volume/*"}"#);
        assert_eq!(codes(&volumes), [no_volume, no, no]);
        assert_eq!(
            codes(&policy(r#"{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}"#)),
            [no_volume, no_volume, ""]
        );
        let unknown = policy(
            r#"{"Effect": "Allow", "Action": "ec2:*", "Resource": "*", "Condition": {"Bool": {"ec2:Encrypted": "true"}}}"#,
        );
        assert_eq!(codes(&unknown), ["UndeterminedException"; 3]);
        assert_eq!(twin::without(Protection::Policy, || codes(&only_read)), [no_volume, no_volume, ""]);
    }
}
