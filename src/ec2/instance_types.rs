//! Requests and results of the operations on instances, Regions and zones, spelled as in the EC2 API (2016-11-15).

use serde::{Deserialize, Serialize};

use crate::clock::Time;

use super::types::{Filter, Tag, TagSpecification};

/// Request of `RunInstances`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RunInstancesRequest {
    /// The image: any id of an image's shape. Nothing is started from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The type, such as `m7i.large`; `m1.small` if none is named. It is remembered and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// At least so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_count: Option<i64>,
    /// At most so many; as many as the least if nothing is said (*ours*).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_count: Option<i64>,
    /// As the AWS CLI's option: `N` or `MIN:MAX` (*ours*: not in the API).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<String>,
    /// The volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// Where; zone `a` of the Region if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Tags for the instances and for their volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tag_specifications: Vec<TagSpecification>,
    /// A name for this request: the same token and parameters again give the same instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// A key pair's name, which is remembered and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// Remembered and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs_optimized: Option<bool>,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

impl RunInstancesRequest {
    /// The least and the most that are asked for, by `Count` if it is given; `None` if that is not of its form.
    pub(super) fn counts(&self) -> Option<(Option<i64>, Option<i64>)> {
        match self.count.as_deref() {
            None => Some((self.min_count, self.max_count)),
            Some(text) => {
                let (least, most) = text.split_once(':').unwrap_or((text, text));
                Some((Some(least.parse().ok()?), Some(most.parse().ok()?)))
            }
        }
    }
}

/// A volume of an instance that is launched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BlockDeviceMapping {
    /// The device name, such as `/dev/sdf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// What it is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs: Option<EbsBlockDevice>,
    /// Leaves a device of the image out; images have none here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_device: Option<String>,
}

/// An EBS volume of an instance that is launched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EbsBlockDevice {
    /// Whether it is deleted with its instance: yes, unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_on_termination: Option<bool>,
    /// Provisioned I/O operations per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<i64>,
    /// Size in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<i64>,
    /// The type, as for `CreateVolume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    /// The KMS key: id, ARN or alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// Provisioned MiB per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i64>,
    /// Whether its sectors are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
}

/// Where an instance is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Placement {
    /// Its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenancy: Option<String>,
}

/// Instances that were launched together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reservation {
    /// `r-` and 17 hex digits.
    pub reservation_id: String,
    /// The account.
    pub owner_id: String,
    /// Always empty.
    pub groups: Vec<String>,
    /// The instances.
    pub instances: Vec<Instance>,
}

/// A state's code and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StateShown {
    /// 0, 16, 32 or 48.
    pub code: i64,
    /// `pending`, `running`, `shutting-down` or `terminated`.
    pub name: String,
}

/// Why an instance is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StateReason {
    /// Such as `Client.InvalidKMSKey.InvalidState`.
    pub code: String,
    /// The code again, and its words.
    pub message: String,
}

/// Whether an instance is monitored in detail: never.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Monitoring {
    /// `disabled`.
    pub state: String,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Instance {
    /// Its number among those that were launched with it.
    pub ami_launch_index: i64,
    /// `x86_64` (*assumed* of every image).
    pub architecture: String,
    /// Its volumes.
    pub block_device_mappings: Vec<InstanceBlockDeviceMapping>,
    /// The token of its launch, empty without one.
    pub client_token: String,
    /// Remembered from its launch.
    pub ebs_optimized: bool,
    /// `xen` (*assumed*).
    pub hypervisor: String,
    /// Its image.
    pub image_id: String,
    /// `i-` and 17 hex digits.
    pub instance_id: String,
    /// Its type.
    pub instance_type: String,
    /// Its key pair's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// When it was launched.
    pub launch_time: Time,
    /// Not in detail.
    pub monitoring: Monitoring,
    /// Where it is.
    pub placement: Placement,
    /// Always empty: it has no network.
    pub private_dns_name: String,
    /// Always empty.
    pub product_codes: Vec<String>,
    /// Always empty: it has no network.
    pub public_dns_name: String,
    /// The device name of a root volume: `/dev/xvda` (*assumed* of every image).
    pub root_device_name: String,
    /// `ebs`.
    pub root_device_type: String,
    /// Its state.
    pub state: StateShown,
    /// Why it is in its state; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<StateReason>,
    /// Why it came into its state; empty without a reason.
    pub state_transition_reason: String,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// `hvm` (*assumed* of every image).
    pub virtualization_type: String,
}

/// A volume of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InstanceBlockDeviceMapping {
    /// The device name.
    pub device_name: String,
    /// The volume.
    pub ebs: EbsInstanceBlockDevice,
}

/// How a volume is attached to its instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct EbsInstanceBlockDevice {
    /// Since when.
    pub attach_time: Time,
    /// Whether it is deleted with the instance.
    pub delete_on_termination: bool,
    /// `attaching`, `attached` or `detaching`.
    pub status: String,
    /// The volume.
    pub volume_id: String,
}

/// Request of `DescribeInstances`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeInstancesRequest {
    /// These instances; all of the account in the Region if none is named.
    #[serde(default)]
    pub instance_ids: Vec<String>,
    /// Only those that match every filter.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// At most so many (5 to 1000), and then a token for the rest. Not with instance ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<i64>,
    /// Where the answer before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Result of `DescribeInstances`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeInstancesResult {
    /// The instances, by their reservations, oldest first.
    pub reservations: Vec<Reservation>,
    /// With which the rest is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Request of `TerminateInstances`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TerminateInstancesRequest {
    /// The instances.
    #[serde(default)]
    pub instance_ids: Vec<String>,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// What became of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InstanceStateChange {
    /// Its state from now on.
    pub current_state: StateShown,
    /// The instance.
    pub instance_id: String,
    /// Its state until now.
    pub previous_state: StateShown,
}

/// Result of `TerminateInstances`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminateInstancesResult {
    /// In the order of the request.
    pub terminating_instances: Vec<InstanceStateChange>,
}

/// Request of `DescribeRegions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeRegionsRequest {
    /// These Regions.
    #[serde(default)]
    pub region_names: Vec<String>,
    /// Only those that match every filter.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Also those that an account must opt into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_regions: Option<bool>,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// A Region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegionShown {
    /// `opt-in-not-required`, or `not-opted-in` of those that need it.
    pub opt_in_status: String,
    /// Such as `eu-west-1`.
    pub region_name: String,
    /// AWS's own endpoint of EC2 there, which is not this program's.
    pub endpoint: String,
}

/// Result of `DescribeRegions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeRegionsResult {
    /// The Regions.
    pub regions: Vec<RegionShown>,
}

/// Request of `DescribeAvailabilityZones`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeAvailabilityZonesRequest {
    /// These zones, by name.
    #[serde(default)]
    pub zone_names: Vec<String>,
    /// These zones, by id.
    #[serde(default)]
    pub zone_ids: Vec<String>,
    /// Only those that match every filter.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Also zones that an account must opt into, of which there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_availability_zones: Option<bool>,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// A zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AvailabilityZone {
    /// `opt-in-not-required`.
    pub opt_in_status: String,
    /// Always empty.
    pub messages: Vec<String>,
    /// Its Region.
    pub region_name: String,
    /// Such as `us-east-1a`.
    pub zone_name: String,
    /// Such as `use1-az1`.
    pub zone_id: String,
    /// Its Region.
    pub group_name: String,
    /// Its Region.
    pub network_border_group: String,
    /// `availability-zone`.
    pub zone_type: String,
    /// `available`.
    pub state: String,
}

/// Result of `DescribeAvailabilityZones`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeAvailabilityZonesResult {
    /// The zones.
    pub availability_zones: Vec<AvailabilityZone>,
}
