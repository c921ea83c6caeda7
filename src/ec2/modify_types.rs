//! Requests and results of the operations that change a volume, spelled as in the EC2 API (2016-11-15).

use serde::{Deserialize, Serialize};

use super::types::Filter;
use crate::clock::Time;

/// Request of `ModifyVolume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ModifyVolumeRequest {
    /// The volume.
    #[serde(default)]
    pub volume_id: String,
    /// Its new size in GiB, not below the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Its new type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    /// Its provisioned I/O operations per second. Without it: as they are for the same type, 3,000 for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<i64>,
    /// Its provisioned MiB per second, for `gp3`. Without it: as they are for the same type, 125 for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i64>,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// A modification of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeModification {
    /// The volume.
    pub volume_id: String,
    /// `modifying`, `optimizing` or `completed`.
    pub modification_state: String,
    /// The size in GiB that it has afterwards.
    pub target_size: i64,
    /// The IOPS that it has afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_iops: Option<i64>,
    /// The type that it has afterwards.
    pub target_volume_type: String,
    /// The MiB per second that it has afterwards, for `gp3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_throughput: Option<i64>,
    /// Always false.
    pub target_multi_attach_enabled: bool,
    /// The size in GiB that it had.
    pub original_size: i64,
    /// The IOPS that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_iops: Option<i64>,
    /// The type that it had.
    pub original_volume_type: String,
    /// The MiB per second that it had, for `gp3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_throughput: Option<i64>,
    /// Always false.
    pub original_multi_attach_enabled: bool,
    /// How far it is, in percent.
    pub progress: i64,
    /// When it began.
    pub start_time: Time,
    /// When it was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
}

/// Result of `ModifyVolume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ModifyVolumeResult {
    /// What was begun.
    pub volume_modification: VolumeModification,
}

/// Request of `DescribeVolumesModifications`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeVolumesModificationsRequest {
    /// These volumes; all that were modified if none is named.
    #[serde(default)]
    pub volume_ids: Vec<String>,
    /// Only what matches every filter.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// At most so many (5 to 500 make sense), and then a token for the rest.
    #[serde(default)]
    pub max_results: Option<i64>,
    /// Where the page before ended.
    #[serde(default)]
    pub next_token: Option<String>,
    /// Check only.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// Result of `DescribeVolumesModifications`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeVolumesModificationsResult {
    /// The last modification of each volume, in the order of their beginnings.
    pub volumes_modifications: Vec<VolumeModification>,
    /// Present if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}
