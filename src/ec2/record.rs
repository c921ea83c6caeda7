//! EC2's operations as the trail names them, and what their records hold.
//!
//! `CreateVolume` is recorded as the CloudTrail and KMS guides print it; member names of the others follow EC2's records
//! in general (lower camel case, lists as `items`) and are *assumed* where no published record shows them. Failures bear
//! `Client.` before their code.

use serde_json::{Map, Value, json};

use crate::gate::{Draft, Operation, Service};

use super::table::{AttachmentRow, VolumeRow};
use super::types::{
    AttachVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, DescribeVolumesRequest, DetachVolumeRequest, Filter,
    TagSpecification, Volume, VolumeAttachment,
};

pub(super) static EC2: Service = Service {
    event_source: "ec2.amazonaws.com",
    error_prefix: "Client.",
    settlers: super::SETTLERS,
    lists_resources: false,
};

pub(super) static CREATE_VOLUME: Operation = Operation { name: "CreateVolume", read_only: false, service: &EC2 };
pub(super) static DESCRIBE_VOLUMES: Operation = Operation { name: "DescribeVolumes", read_only: true, service: &EC2 };
pub(super) static ATTACH_VOLUME: Operation = Operation { name: "AttachVolume", read_only: false, service: &EC2 };
pub(super) static DETACH_VOLUME: Operation = Operation { name: "DetachVolume", read_only: false, service: &EC2 };
pub(super) static DELETE_VOLUME: Operation = Operation { name: "DeleteVolume", read_only: false, service: &EC2 };
pub(super) static MODIFY_VOLUME: Operation = Operation { name: "ModifyVolume", read_only: false, service: &EC2 };
pub(super) static DESCRIBE_VOLUMES_MODIFICATIONS: Operation =
    Operation { name: "DescribeVolumesModifications", read_only: true, service: &EC2 };
pub(super) static ENABLE_EBS_ENCRYPTION_BY_DEFAULT: Operation =
    Operation { name: "EnableEbsEncryptionByDefault", read_only: false, service: &EC2 };
pub(super) static DISABLE_EBS_ENCRYPTION_BY_DEFAULT: Operation =
    Operation { name: "DisableEbsEncryptionByDefault", read_only: false, service: &EC2 };
pub(super) static GET_EBS_ENCRYPTION_BY_DEFAULT: Operation =
    Operation { name: "GetEbsEncryptionByDefault", read_only: true, service: &EC2 };
pub(super) static GET_EBS_DEFAULT_KMS_KEY_ID: Operation =
    Operation { name: "GetEbsDefaultKmsKeyId", read_only: true, service: &EC2 };
pub(super) static MODIFY_EBS_DEFAULT_KMS_KEY_ID: Operation =
    Operation { name: "ModifyEbsDefaultKmsKeyId", read_only: false, service: &EC2 };
pub(super) static RESET_EBS_DEFAULT_KMS_KEY_ID: Operation =
    Operation { name: "ResetEbsDefaultKmsKeyId", read_only: false, service: &EC2 };
pub(super) static CREATE_TAGS: Operation = Operation { name: "CreateTags", read_only: false, service: &EC2 };
pub(super) static DELETE_TAGS: Operation = Operation { name: "DeleteTags", read_only: false, service: &EC2 };
pub(super) static DESCRIBE_TAGS: Operation = Operation { name: "DescribeTags", read_only: true, service: &EC2 };
pub(super) static DESCRIBE_VOLUME_STATUS: Operation =
    Operation { name: "DescribeVolumeStatus", read_only: true, service: &EC2 };
pub(super) static RUN_INSTANCES: Operation = Operation { name: "RunInstances", read_only: false, service: &EC2 };
pub(super) static DESCRIBE_INSTANCES: Operation =
    Operation { name: "DescribeInstances", read_only: true, service: &EC2 };
pub(super) static TERMINATE_INSTANCES: Operation =
    Operation { name: "TerminateInstances", read_only: false, service: &EC2 };
pub(super) static DESCRIBE_REGIONS: Operation = Operation { name: "DescribeRegions", read_only: true, service: &EC2 };
pub(super) static DESCRIBE_AVAILABILITY_ZONES: Operation =
    Operation { name: "DescribeAvailabilityZones", read_only: true, service: &EC2 };

/// Makes the record found under the volume's id.
pub(super) fn volume(draft: &mut Draft, row: &VolumeRow) {
    draft.mention("AWS::EC2::Volume", row.id.as_str(), &row.account);
}

/// Makes the record found under the instance's id.
pub(super) fn instance(draft: &mut Draft, row: &VolumeRow, attachment: &AttachmentRow) {
    draft.mention("AWS::EC2::Instance", attachment.instance.as_str(), &row.account);
}

pub(super) fn create_request(request: &CreateVolumeRequest) -> Value {
    let mut fields = Fields::default();
    fields.put("size", request.size.map(|size| size.to_string()));
    fields.put("zone", request.availability_zone.as_ref());
    fields.put("volumeType", request.volume_type.as_ref());
    fields.put("iops", request.iops);
    fields.put("throughput", request.throughput);
    fields.put("encrypted", request.encrypted);
    fields.put("kmsKeyId", request.kms_key_id.as_ref());
    fields.put("clientToken", request.client_token.as_ref());
    fields.put("tagSpecificationSet", tag_specifications(&request.tag_specifications));
    fields.put("dbInstanceResourceId", request.db_instance_resource_id.as_ref());
    fields.put("sectorSize", request.sector_size);
    fields.dry_run(request.dry_run)
}

pub(super) fn create_response(volume: &Volume) -> Value {
    let mut fields = Fields::default();
    fields.put("volumeId", Some(&volume.volume_id));
    fields.put("size", Some(volume.size.to_string()));
    fields.put("zone", Some(&volume.availability_zone));
    fields.put("status", Some(&volume.state));
    fields.put("createTime", Some(volume.create_time.millis()));
    fields.put("volumeType", Some(&volume.volume_type));
    fields.put("iops", volume.iops);
    fields.put("throughput", volume.throughput);
    fields.put("encrypted", Some(volume.encrypted));
    fields.put("kmsKeyId", volume.kms_key_id.as_ref());
    Value::Object(fields.0)
}

pub(super) fn describe_request(request: &DescribeVolumesRequest) -> Value {
    let mut fields = Fields::default();
    fields.put("volumeSet", Some(names("volumeId", &request.volume_ids)));
    fields.put("filterSet", Some(filters(&request.filters)));
    fields.put("maxResults", request.max_results);
    fields.put("nextToken", request.next_token.as_ref());
    fields.dry_run(request.dry_run)
}

pub(super) fn attach_request(request: &AttachVolumeRequest) -> Value {
    let mut fields = Fields::default();
    fields.put("volumeId", Some(&request.volume_id));
    fields.put("instanceId", request.instance_id.as_ref());
    fields.put("device", request.device.as_ref());
    fields.put("deleteOnTermination", Some(false));
    fields.dry_run(request.dry_run)
}

pub(super) fn detach_request(request: &DetachVolumeRequest) -> Value {
    let mut fields = Fields::default();
    fields.put("volumeId", Some(&request.volume_id));
    fields.put("instanceId", request.instance_id.as_ref());
    fields.put("device", request.device.as_ref());
    fields.put("force", Some(request.force.unwrap_or(false)));
    fields.dry_run(request.dry_run)
}

pub(super) fn attachment_response(request_id: &str, attachment: &VolumeAttachment) -> Value {
    json!({
        "requestId": request_id,
        "volumeId": attachment.volume_id,
        "instanceId": attachment.instance_id,
        "device": attachment.device,
        "status": attachment.state,
        "attachTime": attachment.attach_time.millis(),
        "deleteOnTermination": attachment.delete_on_termination,
    })
}

pub(super) fn delete_request(request: &DeleteVolumeRequest) -> Value {
    let mut fields = Fields::default();
    fields.put("volumeId", Some(&request.volume_id));
    fields.dry_run(request.dry_run)
}

/// The answer of an operation that answers nothing.
pub(super) fn done(request_id: &str) -> Value {
    json!({"requestId": request_id, "_return": true})
}

/// The answer of one of EC2's later operations: below the name of its response.
pub(super) fn wrapped(operation: &str, request_id: &str, members: &Value) -> Value {
    let mut whole = json!({"xmlns": "http://ec2.amazonaws.com/doc/2016-11-15/", "requestId": request_id});
    if let (Value::Object(whole), Value::Object(members)) = (&mut whole, members) {
        whole.extend(members.clone());
    }
    json!({format!("{operation}Response"): whole})
}

/// Tags for what a call makes, if there are any.
pub(super) fn tag_specifications(specifications: &[TagSpecification]) -> Option<Value> {
    let shown = |one: &TagSpecification| {
        let tags: Vec<_> = one.tags.iter().map(|tag| json!({"key": tag.key, "value": tag.value})).collect();
        json!({"resourceType": one.resource_type, "tags": tags})
    };
    (!specifications.is_empty()).then(|| list(specifications.iter().map(shown).collect()))
}

/// Names of what is asked for, each under `member`.
pub(super) fn names(member: &str, names: &[String]) -> Value {
    list(names.iter().map(|name| json!({member: name})).collect())
}

pub(super) fn filters(filters: &[Filter]) -> Value {
    let shown = |filter: &Filter| {
        let values: Vec<_> = filter.values.iter().map(|value| json!({"value": value})).collect();
        json!({"name": filter.name, "valueSet": {"items": values}})
    };
    list(filters.iter().map(shown).collect())
}

pub(super) fn list(items: Vec<Value>) -> Value {
    if items.is_empty() { json!({}) } else { json!({"items": items}) }
}

/// Parameters that were given; what was not is not recorded.
#[derive(Default)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    pub(super) fn put(&mut self, name: &str, value: Option<impl serde::Serialize>) {
        if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
            self.0.insert(name.to_owned(), value);
        }
    }

    pub(super) fn dry_run(mut self, asked: Option<bool>) -> Value {
        self.put("dryRun", asked.filter(|asked| *asked));
        Value::Object(self.0)
    }
}
