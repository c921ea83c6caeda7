//! `RunInstances`: instances with their volumes, made and attached for the caller.
//!
//! A volume of a launch is made and attached by the same calls to KMS, under the caller's name, as `CreateVolume` and
//! `AttachVolume` make. KMS is asked after the answer is decided: a key that cannot be used, or not by this caller, is no error
//! of the call; the instance goes from pending over shutting-down to terminated, and its reason says that the key was in an
//! incorrect state, whatever KMS said (recorded: hashicorp/packer #12683, CiscoDevNet/cloud-cml #8). What KMS said is in the
//! trail.

use crate::gate::{Call, Draft, ServiceError, Step, run_steps};
use crate::ids::InstanceId;
use crate::store::Home;

use super::create::{self, OTHER_PARAMETERS, Outcome};
use super::events::Happened;
use super::exporter::Way;
use super::instance::{self, InstanceRow, InstanceState, Reason};
use super::instance_end::{self, Deleted};
use super::instance_types::{BlockDeviceMapping, Reservation, RunInstancesRequest};
use super::lease::Lease;
use super::table::{self, AttachmentRow, State, VolumeRow};
use super::types::{CreateVolumeRequest, Tag, TagSpecification};
use super::{attach, disk, events, instance_record, instances, params, permission, record, settle};

/// Most instances of one launch: each attached volume is a process.
const MOST: i64 = 20;

/// Most volumes of an instance (EC2 user guide, "Amazon EBS volume limits": 28 attachments on most types).
const MOST_VOLUMES: usize = 27;

/// Launches instances. They own the volumes of their mappings and have no machine.
///
/// # Errors
/// Those of a request that is not right. Refusals by KMS are none, see above.
pub fn run_instances(call: &Call<'_>, request: RunInstancesRequest) -> Result<Reservation, ServiceError> {
    settle::repair(call.home)?;
    let mut begun = Vec::new();
    let outcome = run_steps(
        call,
        &record::RUN_INSTANCES,
        instance_record::run_request(&request),
        |draft| prepare(call, &request, draft, &mut begun),
        |step, launch| commit(step, launch),
    );
    if outcome.is_err() {
        for row in begun {
            // The call's own error is the one to tell; what cannot be taken back now, the next command takes back.
            if let Ok(_lease) = Lease::take(call.home, &row.id) {
                let _ = instance_end::withdraw(call.home, &row);
            }
        }
    }
    outcome
}

struct Launch {
    reservation: String,
    instances: Vec<InstanceRow>,
    /// An earlier call with the same token launched them.
    earlier: bool,
    _leases: Vec<Lease>,
}

/// `begun` becomes the instances that are announced by this call.
fn prepare(
    call: &Call<'_>,
    request: &RunInstancesRequest,
    draft: &mut Draft,
    begun: &mut Vec<InstanceRow>,
) -> Result<Launch, ServiceError> {
    let image = request.image_id.as_deref().unwrap_or("*");
    let mut resources = vec![format!("arn:aws:ec2:{}::image/{image}", call.region), permission::instance(call, "*")];
    if !request.block_device_mappings.is_empty() {
        resources.push(permission::volume(call, "*"));
    }
    permission::check(call, "ec2:RunInstances", &resources)?;
    let plan = Plan::of(call, request)?;
    params::dry_run(request.dry_run)?;
    let mut leases = plan.instances.iter().map(|row| Lease::take(call.home, &row.id)).collect::<Result<Vec<_>, _>>()?;
    if let Some((reservation, instances)) = announce(call, request, &plan)? {
        return Ok(Launch { reservation, instances, earlier: true, _leases: leases });
    }
    begun.extend(plan.instances.iter().cloned());
    let mut instances = plan.instances.clone();
    for row in &mut instances {
        draft.mention("AWS::EC2::Instance", row.id.as_str(), &call.account);
        let mut of_this = Vec::new();
        let all_made = furnish(call, &plan, &row.id, draft, &mut of_this)?;
        if all_made {
            leases.extend(of_this);
            continue;
        }
        drop(of_this);
        instance_end::empty(call.home, &row.id, Deleted::All)?;
        row.reason =
            Some(Reason::new("Client.InvalidKMSKey.InvalidState", "The KMS key provided is in an incorrect state"));
        "Client.InternalError".clone_into(&mut row.transition_reason);
    }
    Ok(Launch { reservation: plan.reservation, instances, earlier: false, _leases: leases })
}

fn commit(step: &mut Step<'_>, launch: &Launch) -> Result<Reservation, ServiceError> {
    let mut shown = Vec::new();
    for row in &launch.instances {
        if !launch.earlier && !instance::update(step.tx, &InstanceRow { due: Some(step.now), ..row.clone() })? {
            return Err(ServiceError::machine(format!("the record of instance {} is gone", row.id)));
        }
        shown.push(instances::instance(step.tx, row, instances::Volumes::Unsaid)?);
    }
    let answer = instances::reservation(step.call, &launch.reservation, shown);
    step.draft.set_response(instance_record::run_response(&step.call.request_id, &answer));
    Ok(answer)
}

/// What is to be launched, if all of the request is right.
struct Plan {
    reservation: String,
    instances: Vec<InstanceRow>,
    tags: Vec<Tag>,
    volumes: Vec<PlannedVolume>,
}

struct PlannedVolume {
    device: String,
    delete_on_termination: bool,
    request: CreateVolumeRequest,
}

impl Plan {
    fn of(call: &Call<'_>, request: &RunInstancesRequest) -> Result<Self, ServiceError> {
        let image_id = image(request)?;
        let instance_type = request.instance_type.as_deref().unwrap_or("m1.small");
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !instance_type.split_once('.').is_some_and(|(family, size)| word(family) && word(size)) {
            let shown = params::short(instance_type);
            return Err(invalid(format!("Invalid value '{shown}' for InstanceType.")));
        }
        let count = count(request)?;
        let placement = request.placement.as_ref();
        let zone = params::zone(placement.and_then(|placement| placement.availability_zone.as_deref()), &call.region)?;
        if let Some(tenancy) =
            placement.and_then(|placement| placement.tenancy.as_deref()).filter(|one| *one != "default")
        {
            return Err(ServiceError::refused(
                "UnsupportedOperation",
                format!("The tenancy '{}' is not supported: instances have no machine here.", params::short(tenancy)),
            ));
        }
        let kinds = ["instance", "volume"];
        let tags = params::tags_for("instance", &kinds, &request.tag_specifications)?;
        let volume_tags = params::tags_for("volume", &kinds, &request.tag_specifications)?;
        let volumes = volumes(&request.block_device_mappings, &zone, &volume_tags)?;
        for volume in &volumes {
            create::plan(call, &volume.request)?;
        }
        let random = InstanceId::random();
        let reservation = random.as_str().replacen("i-", "r-", 1);
        let launched = call.home.now()?;
        let instances = (0..count).map(|launch_index| InstanceRow {
            id: InstanceId::random(),
            account: call.account.clone(),
            region: call.region.clone(),
            zone: zone.clone(),
            reservation: reservation.clone(),
            launch_index,
            image_id: image_id.to_owned(),
            instance_type: instance_type.to_owned(),
            key_name: request.key_name.clone(),
            ebs_optimized: request.ebs_optimized.unwrap_or(false),
            client_token: request.client_token.clone().unwrap_or_default(),
            state: InstanceState::Pending,
            reason: None,
            transition_reason: String::new(),
            launched,
            due: None,
        });
        Ok(Self { instances: instances.collect(), reservation, tags, volumes })
    }
}

fn invalid(message: String) -> ServiceError {
    ServiceError::refused("InvalidParameterValue", message)
}

fn image(request: &RunInstancesRequest) -> Result<&str, ServiceError> {
    let Some(image) = request.image_id.as_deref() else {
        return Err(ServiceError::refused("MissingParameter", "The request must contain the parameter ImageId"));
    };
    let digits = image.strip_prefix("ami-").filter(|digits| matches!(digits.len(), 8 | 17));
    if digits.is_some_and(|digits| digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))) {
        return Ok(image);
    }
    Err(ServiceError::refused("InvalidAMIID.Malformed", format!("Invalid id: \"{}\"", params::short(image))))
}

/// How many are launched: as many as the request takes at most, as nothing here runs out.
fn count(request: &RunInstancesRequest) -> Result<i64, ServiceError> {
    let (least, most) = request.counts().ok_or_else(|| {
        let given = params::short(request.count.as_deref().unwrap_or_default());
        invalid(format!("count must be of the form MINCOUNT or MINCOUNT:MAXCOUNT, not '{given}'"))
    })?;
    let missing =
        |name| ServiceError::refused("MissingParameter", format!("The request must contain the parameter {name}"));
    let (least, most) = (least.ok_or_else(|| missing("MinCount"))?, most.ok_or_else(|| missing("MaxCount"))?);
    // The wordings are *assumed*.
    for (name, value) in [("minCount", least), ("maxCount", most)] {
        if value < 1 {
            return Err(invalid(format!("Value ({value}) for parameter {name} is invalid. Minimum value is 1.")));
        }
    }
    if least > most {
        return Err(invalid(format!("Value ({most}) for parameter maxCount is invalid. It is less than minCount.")));
    }
    if least > MOST {
        return Err(ServiceError::refused(
            "InstanceLimitExceeded",
            format!(
                "You have requested more instances ({least}) than your current instance limit of {MOST} allows for the specified instance type."
            ),
        ));
    }
    Ok(most.min(MOST))
}

fn volumes(mappings: &[BlockDeviceMapping], zone: &str, tags: &[Tag]) -> Result<Vec<PlannedVolume>, ServiceError> {
    let mut planned: Vec<PlannedVolume> = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.no_device.is_none()) {
        let Some(device) = mapping.device_name.as_deref() else {
            let message = "The request must contain the parameter blockDeviceMapping.deviceName";
            return Err(ServiceError::refused("MissingParameter", message));
        };
        let taken: Vec<_> = planned.iter().map(|volume| volume.device.clone()).collect();
        let device = params::device(Some(device), &taken)?;
        let Some(ebs) = &mapping.ebs else {
            return Err(invalid(format!("The device '{device}' must have an EBS volume: there are no others here.")));
        };
        if ebs.volume_size.is_none() {
            let message = "The request must contain the parameter size or snapshotId";
            return Err(ServiceError::refused("MissingParameter", message));
        }
        let specification = TagSpecification { resource_type: Some("volume".to_owned()), tags: tags.to_vec() };
        planned.push(PlannedVolume {
            device,
            delete_on_termination: ebs.delete_on_termination.unwrap_or(true),
            request: CreateVolumeRequest {
                size: ebs.volume_size,
                volume_type: ebs.volume_type.clone(),
                iops: ebs.iops,
                throughput: ebs.throughput,
                encrypted: ebs.encrypted,
                kms_key_id: ebs.kms_key_id.clone(),
                availability_zone: Some(zone.to_owned()),
                tag_specifications: vec![specification],
                ..CreateVolumeRequest::default()
            },
        });
    }
    if planned.len() > MOST_VOLUMES {
        return Err(ServiceError::refused(
            "AttachmentLimitExceeded",
            format!("An instance has at most {MOST_VOLUMES} volumes."),
        ));
    }
    Ok(planned)
}

/// Writes the rows that say that the instances are coming; from here on a crash leaves something for the repair to find. If the
/// request's token launched instances already, those.
fn announce(
    call: &Call<'_>,
    request: &RunInstancesRequest,
    plan: &Plan,
) -> Result<Option<(String, Vec<InstanceRow>)>, ServiceError> {
    let parameters = RunInstancesRequest { client_token: None, dry_run: None, ..request.clone() };
    let parameters = serde_json::to_string(&parameters).map_err(ServiceError::machine)?;
    call.home.write(|tx| {
        if let Some(token) = &request.client_token {
            let token = create::token_key(call, "RunInstances", token)?;
            if let Some(used) = token.used(tx)? {
                if used.request != parameters {
                    return Err(ServiceError::refused("IdempotentParameterMismatch", OTHER_PARAMETERS));
                }
                let mut earlier = instance::all_of(tx, call)?;
                earlier.retain(|row| row.reservation == used.resource);
                if earlier.is_empty() {
                    return Err(ServiceError::refused(
                        "IdempotentInstanceTerminated",
                        "The request to launch an instance uses the same client token as a previous request for which the instance has been terminated.",
                    ));
                }
                return Ok(Some((used.resource, earlier)));
            }
            token.remember(tx, &parameters, &plan.reservation)?;
        }
        plan.instances.iter().try_for_each(|row| instance::insert(tx, row, &plan.tags))?;
        Ok(None)
    })
}

/// Makes and attaches the volumes of one instance; answers whether KMS let it.
fn furnish(
    call: &Call<'_>,
    plan: &Plan,
    instance: &InstanceId,
    draft: &mut Draft,
    leases: &mut Vec<Lease>,
) -> Result<bool, ServiceError> {
    for planned in &plan.volumes {
        let (mut row, tags) = create::plan(call, &planned.request)?;
        leases.push(Lease::take(call.home, &row.id)?);
        record::volume(draft, &row);
        call.home.write(|tx| table::insert(tx, &row, &tags))?;
        let made = create::make(call, &mut row);
        if let Ok(Outcome::KeyRefused(cause)) = &made {
            events::note_now(call.home, &row, Happened::NotCreated(cause), &call.request_id)?;
        }
        let Ok(Outcome::Made(lineage)) = made else {
            create::discard(call.home, &row.id)?;
            return made.map(|_| false);
        };
        let mut attachment = AttachmentRow {
            volume: row.id.clone(),
            instance: instance.clone(),
            device: planned.device.clone(),
            state: "attaching".to_owned(),
            attached_at: call.home.now()?,
            grant_name: crate::ids::uuid(),
            grant_id: None,
            exporter: None,
            delete_on_termination: planned.delete_on_termination,
        };
        call.home.write(|tx| {
            if !table::finish(tx, &row, lineage.as_ref())? {
                return Err(ServiceError::machine(format!("the record of volume {} is gone", row.id)));
            }
            events::note(tx, attachment.attached_at, &row, Happened::Created, &call.request_id)?;
            table::put_attachment(tx, &attachment)?;
            Ok(table::set_state(tx, &row.id, State::InUse)?)
        })?;
        match attach::open(call, &row, &mut attachment, Way::Nbd) {
            Ok(()) => {
                let attachment = AttachmentRow { state: "attached".to_owned(), ..attachment };
                call.home.write(|tx| {
                    events::note(tx, attachment.attached_at, &row, Happened::Attached, &call.request_id)?;
                    table::put_attachment(tx, &attachment)
                })?;
            }
            Err(error) => {
                drop_unopened(call.home, &row, &attachment)?;
                return if error.code() == attach::REVOKED { Ok(false) } else { Err(error) };
            }
        }
    }
    Ok(true)
}

/// Takes away a volume whose exporter did not come to serve.
fn drop_unopened(home: &Home, row: &VolumeRow, attachment: &AttachmentRow) -> Result<(), ServiceError> {
    settle::end_attachment_in(home, row, attachment, State::Deleting, None)?;
    disk::remove(home, &row.id)?;
    Ok(home.write(|tx| table::remove(tx, &row.id))?)
}
