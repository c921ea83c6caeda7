//! Requests and results of the volume operations, spelled as in the EC2 API (2016-11-15). Members that AWS does not have
//! say *ours*.

use serde::{Deserialize, Serialize};

use crate::clock::Time;

/// A tag of a resource: key up to 127 characters and value up to 255, as EC2 counts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// The key, unique on its resource.
    pub key: String,
    /// The value, possibly empty.
    #[serde(default)]
    pub value: String,
}

/// Tags for a resource that a call makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TagSpecification {
    /// The kind of resource: `volume`.
    #[serde(default)]
    pub resource_type: Option<String>,
    /// The tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// A filter: all filters must match, any of a filter's values is enough; `*` and `?` are wildcards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Filter {
    /// Its name, such as `status` or `tag:Name`.
    #[serde(default)]
    pub name: String,
    /// Values of which one must match.
    #[serde(default)]
    pub values: Vec<String>,
}

/// Request of `CreateVolume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateVolumeRequest {
    /// Size in GiB, 1 to 65,536 depending on the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// `gp2` (default), `gp3`, `io1`, `io2`, `st1`, `sc1` or `standard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    /// Provisioned I/O operations per second, for `gp3`, `io1` and `io2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<i64>,
    /// Provisioned MiB per second, for `gp3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i64>,
    /// Whether its sectors are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// The KMS key: id, ARN, alias name or alias ARN. `alias/aws/ebs` if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// The zone, such as `us-east-1a`; the zone of this machine's instance if none is named (*ours*: AWS demands one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Tags for the new volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tag_specifications: Vec<TagSpecification>,
    /// A name for this request: the same token and parameters again give the same volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// *Ours*: the immutable id of the DB instance that owns the volume. The wrapped data key is then bound to
    /// `{"aws:rds:db-id", "aws:ebs:id"}`, without it to the volume id alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_instance_resource_id: Option<String>,
    /// *Ours*: bytes under one XTS tweak, 4096 (default) or 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sector_size: Option<i64>,
}

/// A volume as `CreateVolume` and `DescribeVolumes` show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Where it is attached; absent in the answer of `CreateVolume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<VolumeAttachment>>,
    /// Its zone.
    pub availability_zone: String,
    /// When it was made.
    pub create_time: Time,
    /// Whether its sectors are encrypted.
    pub encrypted: bool,
    /// The ARN of its KMS key (in `CreateVolume`'s answer to a key that cannot be used: as it was given).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// Size in GiB.
    pub size: i64,
    /// The snapshot it was made from, empty for none.
    pub snapshot_id: String,
    /// `creating`, `available`, `in-use` or `deleting`.
    pub state: String,
    /// Its id.
    pub volume_id: String,
    /// I/O operations per second: provisioned, or for `gp2` what its size earns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<i64>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Its type.
    pub volume_type: String,
    /// Always false: the exporter is the volume's only owner.
    pub multi_attach_enabled: bool,
    /// MiB per second, for `gp3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i64>,
    /// *Ours*: the DB instance that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_instance_resource_id: Option<String>,
    /// *Ours*: bytes under one XTS tweak; absent for a volume that is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sector_size: Option<i64>,
}

/// An attachment, as `AttachVolume` and `DetachVolume` answer it and `DescribeVolumes` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeAttachment {
    /// Whether the volume is deleted with its instance: false but for one that the instance was launched with.
    pub delete_on_termination: bool,
    /// When it was attached.
    pub attach_time: Time,
    /// The device name it was given, such as `/dev/sdf`: stored and shown, as AWS does.
    pub device: String,
    /// The instance.
    pub instance_id: String,
    /// `attaching`, `attached`, `detaching`, or `busy`: its exporter is gone and its kernel device still in use.
    pub state: String,
    /// The volume.
    pub volume_id: String,
    /// *Ours*: where any NBD client finds the volume; absent in `DetachVolume`'s answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbd_uri: Option<String>,
    /// *Ours*: the device of this machine's kernel, such as `/dev/loop0`, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_device: Option<String>,
}

/// Request of `DescribeVolumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeVolumesRequest {
    /// These volumes; all of the account in the Region if none is named.
    #[serde(default)]
    pub volume_ids: Vec<String>,
    /// Only those that match every filter.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// At most so many (5 to 1000), and then a token for the rest. Not with volume ids.
    #[serde(default)]
    pub max_results: Option<i64>,
    /// Where the page before ended.
    #[serde(default)]
    pub next_token: Option<String>,
    /// Check only.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// Result of `DescribeVolumes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeVolumesResult {
    /// The volumes, oldest first.
    pub volumes: Vec<Volume>,
    /// Present if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Request of `AttachVolume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AttachVolumeRequest {
    /// The volume.
    #[serde(default)]
    pub volume_id: String,
    /// The instance: the one that stands for this machine, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The device name to remember; the first free of `/dev/sdf` to `/dev/sdp` if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// *Ours*: `nbd`, or `fuse-loop` for a device of this machine's kernel as well; `auto`, the default, is `nbd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach_as: Option<String>,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Request of `DetachVolume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DetachVolumeRequest {
    /// The volume.
    #[serde(default)]
    pub volume_id: String,
    /// If given, it must be the instance that the volume is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// If given, it must be the device name of the attachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// End an exporter that does not answer, and take a kernel device away that is in use. What no flush acknowledged may
    /// be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Request of `DeleteVolume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteVolumeRequest {
    /// The volume.
    #[serde(default)]
    pub volume_id: String,
    /// Check only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Result of an operation that answers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoResult {}
