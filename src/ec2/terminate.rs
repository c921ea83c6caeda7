//! `TerminateInstances`: the instances' volumes are let go, and those that are marked so deleted.

use crate::gate::{self, Call, Draft, ServiceError, Step, run_steps};
use crate::ids::InstanceId;

use super::instance::{self, InstanceRow, InstanceState, Reason};
use super::instance_end::{self, Deleted};
use super::instance_types::{InstanceStateChange, TerminateInstancesRequest, TerminateInstancesResult};
use super::lease::Lease;
use super::{instance_record, instances, params, permission, record, settle, table};

/// Ends instances: shutting-down in the answer, terminated for who looks next, and gone after an hour. One that was ended
/// already stays as it is, and that is no error.
///
/// # Errors
/// `InvalidInstanceID.NotFound`; `OperationNotPermitted` for this machine's own instance.
pub fn terminate_instances(
    call: &Call<'_>,
    request: TerminateInstancesRequest,
) -> Result<TerminateInstancesResult, ServiceError> {
    settle::repair(call.home)?;
    gate::settle(call.home, super::SETTLERS)?;
    run_steps(
        call,
        &record::TERMINATE_INSTANCES,
        instance_record::terminate_request(&request),
        |draft| prepare(call, &request, draft),
        |step, ended| commit(step, ended),
    )
}

struct Ended {
    changes: Vec<(InstanceRow, InstanceState)>,
    _leases: Vec<Lease>,
}

fn prepare(call: &Call<'_>, request: &TerminateInstancesRequest, draft: &mut Draft) -> Result<Ended, ServiceError> {
    if request.instance_ids.is_empty() {
        let message = "The request must contain the parameter InstanceId";
        return Err(ServiceError::refused("MissingParameter", message));
    }
    let resources: Vec<_> = request.instance_ids.iter().map(|id| permission::instance(call, id)).collect();
    permission::check(call, "ec2:TerminateInstances", &resources)?;
    let mut ids: Vec<InstanceId> = Vec::new();
    for text in &request.instance_ids {
        let id = params::instance_id(text)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    // In one order everywhere, so that two calls never wait for each other.
    let mut in_order: Vec<_> = ids.iter().collect();
    in_order.sort_unstable();
    let leases = in_order.into_iter().map(|id| Lease::take(call.home, id)).collect::<Result<Vec<_>, _>>()?;
    let reason = Reason::new("Client.UserInitiatedShutdown", "User initiated shutdown");
    let changes = call.home.write(|tx| {
        let this = table::this_instance(tx)?;
        if let Some(id) = ids.iter().find(|id| **id == this) {
            let message = format!(
                "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."
            );
            return Err(ServiceError::refused("OperationNotPermitted", message)
                .with_hint("it stands for this machine; its volumes are detached one by one"));
        }
        let rows = instances::named(tx, call, &ids)?;
        params::dry_run(request.dry_run)?;
        let now = crate::store::clock(tx)?.now();
        let mut changes = Vec::new();
        for row in rows {
            draft.mention("AWS::EC2::Instance", row.id.as_str(), &call.account);
            let previous = row.state;
            if !matches!(previous, InstanceState::Pending | InstanceState::Running) {
                changes.push((row, previous));
                continue;
            }
            let row = InstanceRow {
                state: InstanceState::ShuttingDown,
                reason: Some(reason.clone()),
                transition_reason: format!("User initiated ({})", now.format_utc("%Y-%m-%d %H:%M:%S GMT")),
                due: None,
                ..row
            };
            instance::update(tx, &row)?;
            changes.push((row, previous));
        }
        Ok(changes)
    })?;
    for (row, previous) in &changes {
        if row.state != *previous {
            instance_end::empty(call.home, &row.id, Deleted::Marked)?;
        }
    }
    Ok(Ended { changes, _leases: leases })
}

fn commit(step: &mut Step<'_>, ended: &Ended) -> Result<TerminateInstancesResult, ServiceError> {
    let mut terminating = Vec::new();
    for (row, previous) in &ended.changes {
        if row.state != *previous {
            instance_end::finish(step.tx, row.clone(), step.now)?;
        }
        terminating.push(InstanceStateChange {
            current_state: instances::state(row.state),
            instance_id: row.id.to_string(),
            previous_state: instances::state(*previous),
        });
    }
    let answer = TerminateInstancesResult { terminating_instances: terminating };
    step.draft.set_response(instance_record::terminate_response(&step.call.request_id, &answer));
    Ok(answer)
}
