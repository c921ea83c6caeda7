//! What the records of the operations on instances hold (CloudTrail user guide, "Amazon EC2 log file examples":
//! `RunInstances`; member names of what that page does not show are *assumed* from the API's).

use serde_json::{Value, json};

use super::instance_types::{
    DescribeInstancesRequest, Instance, Reservation, RunInstancesRequest, TerminateInstancesRequest,
    TerminateInstancesResult,
};
use super::record::{self, Fields};

pub(super) fn run_request(request: &RunInstancesRequest) -> Value {
    let mut image = Fields::default();
    image.put("imageId", request.image_id.as_ref());
    let (least, most) = request.counts().unwrap_or_default();
    image.put("minCount", least);
    image.put("maxCount", most);
    image.put("keyName", request.key_name.as_ref());
    let mappings = request.block_device_mappings.iter().map(|mapping| {
        let mut fields = Fields::default();
        fields.put("deviceName", mapping.device_name.as_ref());
        fields.put("noDevice", mapping.no_device.as_ref());
        if let Some(ebs) = &mapping.ebs {
            let mut volume = Fields::default();
            volume.put("volumeSize", ebs.volume_size);
            volume.put("deleteOnTermination", ebs.delete_on_termination);
            volume.put("volumeType", ebs.volume_type.as_ref());
            volume.put("iops", ebs.iops);
            volume.put("throughput", ebs.throughput);
            volume.put("encrypted", ebs.encrypted);
            volume.put("kmsKeyId", ebs.kms_key_id.as_ref());
            fields.put("ebs", Some(Value::Object(volume.0)));
        }
        Value::Object(fields.0)
    });
    let mut fields = Fields::default();
    fields.put("instancesSet", Some(json!({"items": [Value::Object(image.0)]})));
    fields.put("instanceType", request.instance_type.as_ref());
    fields.put("blockDeviceMapping", Some(record::list(mappings.collect())));
    let zone = request.placement.as_ref().and_then(|placement| placement.availability_zone.as_ref());
    fields.put("availabilityZone", zone);
    fields.put("monitoring", Some(json!({"enabled": false})));
    fields.put("ebsOptimized", request.ebs_optimized);
    fields.put("clientToken", request.client_token.as_ref());
    fields.put("tagSpecificationSet", record::tag_specifications(&request.tag_specifications));
    fields.dry_run(request.dry_run)
}

pub(super) fn run_response(request_id: &str, answer: &Reservation) -> Value {
    json!({
        "requestId": request_id,
        "reservationId": answer.reservation_id,
        "ownerId": answer.owner_id,
        "groupSet": {},
        "instancesSet": {"items": answer.instances.iter().map(instance).collect::<Vec<_>>()},
    })
}

fn instance(instance: &Instance) -> Value {
    let mut fields = Fields::default();
    fields.put("instanceId", Some(&instance.instance_id));
    fields.put("imageId", Some(&instance.image_id));
    fields.put("instanceState", Some(json!({"code": instance.state.code, "name": instance.state.name})));
    fields.put("keyName", instance.key_name.as_ref());
    fields.put("amiLaunchIndex", Some(instance.ami_launch_index));
    fields.put("productCodes", Some(json!({})));
    fields.put("instanceType", Some(&instance.instance_type));
    fields.put("launchTime", Some(instance.launch_time.millis()));
    let placement =
        json!({"availabilityZone": instance.placement.availability_zone, "tenancy": instance.placement.tenancy});
    fields.put("placement", Some(placement));
    fields.put("monitoring", Some(json!({"state": instance.monitoring.state})));
    let reason = instance.state_reason.as_ref();
    fields.put("stateReason", reason.map(|reason| json!({"code": reason.code, "message": reason.message})));
    fields.put("architecture", Some(&instance.architecture));
    fields.put("rootDeviceType", Some(&instance.root_device_type));
    fields.put("rootDeviceName", Some(&instance.root_device_name));
    fields.put("blockDeviceMapping", Some(json!({})));
    fields.put("virtualizationType", Some(&instance.virtualization_type));
    fields.put("hypervisor", Some(&instance.hypervisor));
    fields.put("clientToken", Some(&instance.client_token).filter(|token| !token.is_empty()));
    fields.put("ebsOptimized", Some(instance.ebs_optimized));
    let tags: Vec<_> = instance.tags.iter().map(|tag| json!({"key": tag.key, "value": tag.value})).collect();
    fields.put("tagSet", Some(record::list(tags)).filter(|tags| *tags != json!({})));
    Value::Object(fields.0)
}

pub(super) fn describe_request(request: &DescribeInstancesRequest) -> Value {
    let mut fields = Fields::default();
    fields.put("instancesSet", Some(record::names("instanceId", &request.instance_ids)));
    fields.put("filterSet", Some(record::filters(&request.filters)));
    fields.put("maxResults", request.max_results);
    fields.put("nextToken", request.next_token.as_ref());
    fields.dry_run(request.dry_run)
}

pub(super) fn terminate_request(request: &TerminateInstancesRequest) -> Value {
    let mut fields = Fields::default();
    fields.put("instancesSet", Some(record::names("instanceId", &request.instance_ids)));
    fields.dry_run(request.dry_run)
}

pub(super) fn terminate_response(request_id: &str, answer: &TerminateInstancesResult) -> Value {
    let changes = answer.terminating_instances.iter().map(|change| {
        let state = |state: &super::instance_types::StateShown| json!({"code": state.code, "name": state.name});
        json!({
            "instanceId": change.instance_id,
            "currentState": state(&change.current_state),
            "previousState": state(&change.previous_state),
        })
    });
    json!({"requestId": request_id, "instancesSet": {"items": changes.collect::<Vec<_>>()}})
}
