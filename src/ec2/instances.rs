//! `DescribeInstances`, and an instance as AWS shows it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::clock::Time;
use crate::gate::{Call, ServiceError, run};
use crate::ids::InstanceId;
use crate::store::{StoreError, Transaction, setting};

use super::instance::{self, InstanceRow, InstanceState};
use super::instance_types::{
    DescribeInstancesRequest, DescribeInstancesResult, EbsInstanceBlockDevice, Instance, InstanceBlockDeviceMapping,
    Monitoring, Placement, Reservation, StateReason, StateShown,
};
use super::types::Filter;
use super::{describe, filter, instance_record, params, permission, record, settle, table};

/// Instances as the state has them. The one that stands for this machine is among them if it is named, or if something of
/// the account in the Region is attached to it (ours).
pub fn describe_instances(
    call: &Call<'_>,
    request: DescribeInstancesRequest,
) -> Result<DescribeInstancesResult, ServiceError> {
    settle::repair(call.home)?;
    let recorded = instance_record::describe_request(&request);
    run(call, &record::DESCRIBE_INSTANCES, recorded, |step| look(step.tx, call, &request))
}

fn look(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    request: &DescribeInstancesRequest,
) -> Result<DescribeInstancesResult, ServiceError> {
    permission::check_in(tx, call, "ec2:DescribeInstances", &["*".to_owned()])?;
    check_filters(&request.filters)?;
    let page = page_size(request)?;
    let after = request.next_token.as_deref().map(read_token).transpose()?;
    let ids = request.instance_ids.iter().map(|id| params::instance_id(id)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = if ids.is_empty() { instance::all_of(tx, call)? } else { named(tx, call, &ids)? };
    if ids.is_empty() {
        rows.extend(this_machine(tx, call)?.filter(|(_, attached)| *attached).map(|(row, _)| row));
    }
    params::dry_run(request.dry_run)?;
    rows.sort_by(|left, right| place(left).cmp(&place(right)));
    let mut result = DescribeInstancesResult { reservations: Vec::new(), next_token: None };
    let (mut shown, mut last) = (0, None);
    for row in rows {
        if after.as_ref().is_some_and(|after| place(&row) <= (after.0, after.1, after.2.as_str())) {
            continue;
        }
        let seen = instance(tx, &row, Volumes::Shown(call))?;
        if !passes(&seen, &row, &request.filters) {
            continue;
        }
        if page.is_some_and(|page| shown == page) {
            result.next_token = last;
            break;
        }
        shown += 1;
        let (launched, index, id) = place(&row);
        last = Some(BASE64.encode(format!("{launched} {index} {id}")));
        match result.reservations.last_mut().filter(|one| one.reservation_id == row.reservation) {
            Some(one) => one.instances.push(seen),
            None => result.reservations.push(reservation(call, &row.reservation, vec![seen])),
        }
    }
    Ok(result)
}

/// The order in which instances are shown: those of one launch stay together.
fn place(row: &InstanceRow) -> (i64, i64, &str) {
    (row.launched.micros(), row.launch_index, row.id.as_str())
}

/// The named instances, in the order in which they are named; every name must exist.
pub(super) fn named(
    tx: &Transaction<'_>,
    call: &Call<'_>,
    ids: &[InstanceId],
) -> Result<Vec<InstanceRow>, ServiceError> {
    let mut rows: Vec<InstanceRow> = Vec::new();
    let mut missing: Vec<&str> = Vec::new();
    for id in ids {
        let found = match instance::owned(tx, call, id)? {
            Some(row) => Some(row),
            None => this_machine(tx, call)?.map(|(row, _)| row).filter(|row| row.id == *id),
        };
        match found {
            Some(row) if rows.iter().all(|other| other.id != row.id) => rows.push(row),
            Some(_) => {}
            None => missing.push(id.as_str()),
        }
    }
    match missing[..] {
        [] => Ok(rows),
        [one] => {
            Err(ServiceError::refused("InvalidInstanceID.NotFound", format!("The instance ID '{one}' does not exist")))
        }
        _ => Err(ServiceError::refused(
            "InvalidInstanceID.NotFound",
            format!("The instance IDs '{}' do not exist", missing.join(", ")),
        )),
    }
}

/// This machine's instance as a row, once something was attached to it; and whether something of the caller's account in the
/// Region is attached now.
fn this_machine(tx: &Transaction<'_>, call: &Call<'_>) -> Result<Option<(InstanceRow, bool)>, StoreError> {
    let Some(id) = setting(tx, "instance_id")?.and_then(|id| id.parse::<InstanceId>().ok()) else { return Ok(None) };
    let mut attached = false;
    let mut since: Option<Time> = None;
    for attachment in table::attachments_of(tx, &id)? {
        attached |= describe::owned(tx, call, &attachment.volume)?.is_some();
        since = Some(since.map_or(attachment.attached_at, |since| since.min(attachment.attached_at)));
    }
    let row = InstanceRow {
        account: call.account.clone(),
        region: call.region.clone(),
        zone: format!("{}a", call.region),
        reservation: id.as_str().replacen("i-", "r-", 1),
        launch_index: 0,
        image_id: "ami-00000000".to_owned(),
        instance_type: "m1.small".to_owned(),
        key_name: None,
        ebs_optimized: false,
        client_token: String::new(),
        state: InstanceState::Running,
        reason: None,
        transition_reason: String::new(),
        launched: since.or_else(|| Time::from_micros(0)).unwrap_or(crate::store::clock(tx)?.now()),
        due: None,
        id,
    };
    Ok(Some((row, attached)))
}

/// What is said of an instance's volumes.
#[derive(Clone, Copy)]
pub(super) enum Volumes<'a> {
    /// Nothing, as in the answer to a launch.
    Unsaid,
    /// Those of the caller's account in the Region of the call.
    Shown(&'a Call<'a>),
}

/// The instance as AWS shows it.
pub(super) fn instance(tx: &Transaction<'_>, row: &InstanceRow, volumes: Volumes<'_>) -> Result<Instance, StoreError> {
    let mut block_device_mappings = Vec::new();
    if let Volumes::Shown(call) = volumes {
        for attachment in table::attachments_of(tx, &row.id)? {
            if describe::owned(tx, call, &attachment.volume)?.is_some() {
                block_device_mappings.push(InstanceBlockDeviceMapping {
                    device_name: attachment.device,
                    ebs: EbsInstanceBlockDevice {
                        attach_time: attachment.attached_at,
                        delete_on_termination: attachment.delete_on_termination,
                        status: attachment.state,
                        volume_id: attachment.volume.to_string(),
                    },
                });
            }
        }
    }
    let state_reason = match (row.state, &row.reason) {
        (InstanceState::Pending, _) => Some(StateReason { code: "pending".to_owned(), message: "pending".to_owned() }),
        (_, Some(reason)) => Some(StateReason { code: reason.code.clone(), message: reason.message.clone() }),
        (_, None) => None,
    };
    let transition = if row.state == InstanceState::Pending { "" } else { &row.transition_reason };
    Ok(Instance {
        ami_launch_index: row.launch_index,
        architecture: "x86_64".to_owned(),
        block_device_mappings,
        client_token: row.client_token.clone(),
        ebs_optimized: row.ebs_optimized,
        hypervisor: "xen".to_owned(),
        image_id: row.image_id.clone(),
        instance_id: row.id.to_string(),
        instance_type: row.instance_type.clone(),
        key_name: row.key_name.clone(),
        launch_time: row.launched,
        monitoring: Monitoring { state: "disabled".to_owned() },
        placement: Placement { availability_zone: Some(row.zone.clone()), tenancy: Some("default".to_owned()) },
        private_dns_name: String::new(),
        product_codes: Vec::new(),
        public_dns_name: String::new(),
        root_device_name: "/dev/xvda".to_owned(),
        root_device_type: "ebs".to_owned(),
        state: state(row.state),
        state_reason,
        state_transition_reason: transition.to_owned(),
        tags: instance::tags_of(tx, &row.id)?,
        virtualization_type: "hvm".to_owned(),
    })
}

pub(super) fn state(state: InstanceState) -> StateShown {
    StateShown { code: state.code(), name: state.name().to_owned() }
}

pub(super) fn reservation(call: &Call<'_>, id: &str, instances: Vec<Instance>) -> Reservation {
    Reservation { reservation_id: id.to_owned(), owner_id: call.account.to_string(), groups: Vec::new(), instances }
}

/// Every filter but `tag:<key>`: those of `DescribeInstances` that ask for something an instance has here.
const FILTERS: [&str; 22] = [
    "architecture",
    "availability-zone",
    "block-device-mapping.attach-time",
    "block-device-mapping.delete-on-termination",
    "block-device-mapping.device-name",
    "block-device-mapping.status",
    "block-device-mapping.volume-id",
    "client-token",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "key-name",
    "launch-time",
    "owner-id",
    "reason",
    "reservation-id",
    "root-device-name",
    "state-reason-code",
    "state-reason-message",
    "tag-key",
];

fn check_filters(filters: &[Filter]) -> Result<(), ServiceError> {
    for filter in filters {
        if !FILTERS.contains(&filter.name.as_str()) && !filter.name.starts_with("tag:") {
            let name = params::short(&filter.name);
            return Err(ServiceError::refused("InvalidParameterValue", format!("The filter '{name}' is invalid")));
        }
        if filter.values.is_empty() {
            let name = params::short(&filter.name);
            return Err(ServiceError::refused("InvalidParameterValue", format!("The filter '{name}' has no values")));
        }
    }
    Ok(())
}

fn passes(instance: &Instance, row: &InstanceRow, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| {
        let actual = values_of(instance, row, &filter.name);
        let fits = |wanted: &String| actual.iter().any(|value| filter::matches(wanted.as_bytes(), value.as_bytes()));
        filter.values.iter().any(fits)
    })
}

/// What the filter of that name looks at; several values for volumes and tags.
fn values_of(instance: &Instance, row: &InstanceRow, name: &str) -> Vec<String> {
    let of_volumes = |pick: &dyn Fn(&InstanceBlockDeviceMapping) -> String| {
        instance.block_device_mappings.iter().map(pick).collect()
    };
    let reason = instance.state_reason.as_ref();
    match name {
        "architecture" => vec![instance.architecture.clone()],
        "availability-zone" => vec![row.zone.clone()],
        "block-device-mapping.attach-time" => of_volumes(&|one| one.ebs.attach_time.to_string()),
        "block-device-mapping.delete-on-termination" => of_volumes(&|one| one.ebs.delete_on_termination.to_string()),
        "block-device-mapping.device-name" => of_volumes(&|one| one.device_name.clone()),
        "block-device-mapping.status" => of_volumes(&|one| one.ebs.status.clone()),
        "block-device-mapping.volume-id" => of_volumes(&|one| one.ebs.volume_id.clone()),
        "client-token" => vec![instance.client_token.clone()],
        "image-id" => vec![instance.image_id.clone()],
        "instance-id" => vec![instance.instance_id.clone()],
        "instance-state-code" => vec![instance.state.code.to_string()],
        "instance-state-name" => vec![instance.state.name.clone()],
        "instance-type" => vec![instance.instance_type.clone()],
        "key-name" => instance.key_name.iter().cloned().collect(),
        "launch-time" => vec![instance.launch_time.to_string()],
        "owner-id" => vec![row.account.to_string()],
        "reason" => vec![instance.state_transition_reason.clone()],
        "reservation-id" => vec![row.reservation.clone()],
        "root-device-name" => vec![instance.root_device_name.clone()],
        "state-reason-code" => reason.map(|reason| reason.code.clone()).into_iter().collect(),
        "state-reason-message" => reason.map(|reason| reason.message.clone()).into_iter().collect(),
        "tag-key" => instance.tags.iter().map(|tag| tag.key.clone()).collect(),
        _ => {
            let key = name.strip_prefix("tag:").unwrap_or_default();
            instance.tags.iter().filter(|tag| tag.key == key).map(|tag| tag.value.clone()).collect()
        }
    }
}

fn page_size(request: &DescribeInstancesRequest) -> Result<Option<usize>, ServiceError> {
    let Some(most) = request.max_results else { return Ok(None) };
    if !request.instance_ids.is_empty() {
        return Err(ServiceError::refused(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        ));
    }
    match usize::try_from(most) {
        Ok(most) if most >= 5 => Ok(Some(most.min(1000))),
        _ => Err(ServiceError::refused(
            "InvalidParameterValue",
            format!("Value ( {most} ) for parameter maxResults is invalid. Expecting a value greater than 5."),
        )),
    }
}

/// A page token names the last instance shown, so that what is launched or ends in between disturbs nothing.
fn read_token(text: &str) -> Result<(i64, i64, String), ServiceError> {
    let read = || {
        let plain = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
        let mut parts = plain.splitn(3, ' ');
        let (launched, index) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((launched, index, parts.next()?.to_owned()))
    };
    read().ok_or_else(|| {
        ServiceError::refused("InvalidParameterValue", "The parameter NextToken is not a token of this operation.")
    })
}
