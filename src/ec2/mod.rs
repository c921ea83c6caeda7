//! EBS volumes: where the two wings meet. `kms` says whether a data key may be had, `device` and `export` turn it into
//! bytes; this module asks the one, tells the other, and keeps `state.db` in step with what is on disk.

mod access;
mod all;
mod assume;
mod attach;
mod content;
mod create;
mod default_encryption;
mod delete;
mod describe;
mod disk;
pub mod events;
mod exporter;
mod filter;
mod instance;
mod instance_end;
mod instance_record;
mod instance_types;
mod instances;
mod keys;
mod launch;
mod lease;
mod lineage;
mod modification;
mod modify;
#[cfg(test)]
mod modify_tests;
mod modify_types;
pub mod outcomes;
mod params;
mod permission;
mod record;
mod regions;
mod rules;
mod settle;
mod status;
mod table;
mod tags;
mod terminate;
#[cfg(test)]
mod tests;
mod types;

pub use access::{Access, Inspection, Opened, inspect, open, verify};
pub use all::{clear_faults, count_attached, end_all_exporters, order_fault, ordered_faults, traffic};
pub use assume::{Wrapped, assume_detached, assume_volume, key_of, wrapped_under};
pub use attach::{attach_volume, detach_volume};
pub use content::{Moved, Progress, Source, export, import, read_range, write_range};
pub use create::{create_given_volume, create_volume};
pub use default_encryption::{
    EbsDefaultKmsKeyIdResult, EbsDefaultRequest, EbsEncryptionByDefaultResult, ModifyEbsDefaultKmsKeyIdRequest,
    disable_ebs_encryption_by_default, enable_ebs_encryption_by_default, get_ebs_default_kms_key_id,
    get_ebs_encryption_by_default, modify_ebs_default_kms_key_id, reset_ebs_default_kms_key_id,
};
pub use delete::delete_volume;
pub use describe::describe_volumes;
pub use instance::SETTLERS;
pub use instance_types::{
    AvailabilityZone, BlockDeviceMapping, DescribeAvailabilityZonesRequest, DescribeAvailabilityZonesResult,
    DescribeInstancesRequest, DescribeInstancesResult, DescribeRegionsRequest, DescribeRegionsResult, EbsBlockDevice,
    EbsInstanceBlockDevice, Instance, InstanceBlockDeviceMapping, InstanceStateChange, Monitoring, Placement,
    RegionShown, Reservation, RunInstancesRequest, StateReason, StateShown, TerminateInstancesRequest,
    TerminateInstancesResult,
};
pub use instances::describe_instances;
pub use launch::run_instances;
pub use modify::{describe_volumes_modifications, modify_volume};
pub use modify_types::{
    DescribeVolumesModificationsRequest, DescribeVolumesModificationsResult, ModifyVolumeRequest, ModifyVolumeResult,
    VolumeModification,
};
pub use regions::{describe_availability_zones, describe_regions};
pub use settle::{repair, take_notices};
pub use status::{
    DescribeVolumeStatusRequest, DescribeVolumeStatusResult, VolumeStatusDetails, VolumeStatusInfo, VolumeStatusItem,
    describe_volume_status,
};
pub use tags::{
    CreateTagsRequest, DeleteTagsRequest, DescribeTagsRequest, DescribeTagsResult, TagDescription, TagToDelete,
    create_tags, delete_tags, describe_tags,
};
pub use terminate::terminate_instances;
pub use types::{
    AttachVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, DescribeVolumesRequest, DescribeVolumesResult,
    DetachVolumeRequest, Filter, NoResult, Tag, TagSpecification, Volume, VolumeAttachment,
};

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use crate::ids::VolumeId;
use crate::store::Home;

/// Where NBD clients find the attached volume: `nbd+unix:///vol-…?socket=…` (the NBD project's `uri.md`).
fn export_uri(home: &Home, volume: &VolumeId) -> String {
    let path = home.dir().path_of(&format!("run/{volume}.sock"));
    let mut uri = format!("nbd+unix:///{volume}?socket=");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}
