//! Operations of EC2 on EBS volumes.

use super::{Kind, Paging, Parameter, Service};
use crate::ec2;
use crate::operation;

/// EC2's word for a request that is not of its operation's shape.
const MALFORMED: &str = "InvalidParameterValue";

const VOLUME_ID: Parameter = Parameter::string("VolumeId", "Id of the volume.").required();
const DRY_RUN: Parameter = Parameter::boolean("DryRun", "Check whether the call would succeed, and do nothing.");

const TAG: &[Parameter] =
    &[Parameter::string("Key", "Key of the tag.").required(), Parameter::string("Value", "Its value.")];
const TAG_SPECIFICATION: &[Parameter] = &[
    Parameter::string("ResourceType", "Kind of the resource: volume.").required(),
    Parameter::new("Tags", Kind::List(&Kind::Structure(TAG)), "The tags."),
];
const FILTER: &[Parameter] = &[
    Parameter::string("Name", "Name of the filter.").required(),
    Parameter::strings("Values", "Values of which one must match; * and ? are wildcards.").required(),
];

const FILTERS: Parameter =
    Parameter::new("Filters", Kind::List(&Kind::Structure(FILTER)), "Show only what matches every filter.");
const INSTANCE_IDS: Parameter = Parameter::strings("InstanceIds", "Ids of instances.");

const VOLUME_IDS: Parameter = Parameter::strings("VolumeIds", "Ids of volumes; all if none is named.");
const MAX_RESULTS: Parameter = Parameter::integer("MaxResults", "At most so many in one answer.");
const NEXT_TOKEN: Parameter = Parameter::string("NextToken", "Where the answer before ended.");
const RESOURCES: Parameter = Parameter::strings("Resources", "Ids of volumes and instances.").required();

const EBS: &[Parameter] = &[
    Parameter::boolean("DeleteOnTermination", "Whether it is deleted with its instance: yes, unless said otherwise."),
    Parameter::integer("Iops", "Provisioned I/O operations per second."),
    Parameter::integer("VolumeSize", "Size in GiB."),
    Parameter::choice("VolumeType", VOLUME_TYPES, "Type of the volume."),
    Parameter::string("KmsKeyId", "Id, ARN or alias of the KMS key."),
    Parameter::integer("Throughput", "Provisioned MiB per second."),
    Parameter::boolean("Encrypted", "Whether its sectors are encrypted."),
];
const MAPPING: &[Parameter] = &[
    Parameter::string("DeviceName", "Device name, such as /dev/sdf."),
    Parameter::new("Ebs", Kind::Structure(EBS), "The volume."),
    Parameter::string("NoDevice", "Leaves a device of the image out."),
];
const PLACEMENT: &[Parameter] =
    &[Parameter::string("AvailabilityZone", "The zone."), Parameter::string("Tenancy", "default.")];
const VOLUME_TYPES: &[&str] = &["gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"];

pub(super) static EC2: Service = Service {
    name: "ec2",
    help: "EBS volumes, their attachments, and instances that own them",
    operations: &[
        operation!(
            "CreateVolume",
            MALFORMED,
            ec2::CreateVolumeRequest,
            ec2::create_volume,
            "Makes a volume; encrypted, if --encrypted says so, under a data key that KMS wraps."
        )
        .takes(&[
            Parameter::integer("Size", "Size in GiB: 1 to 65536, depending on the type."),
            Parameter::choice("VolumeType", VOLUME_TYPES, "Type of the volume; gp2 if none is named."),
            Parameter::integer("Iops", "Provisioned I/O operations per second (gp3, io1, io2)."),
            Parameter::integer("Throughput", "Provisioned MiB per second (gp3)."),
            Parameter::boolean("Encrypted", "Whether the volume's sectors are encrypted."),
            Parameter::string("KmsKeyId", "Id, ARN or alias of the KMS key; alias/aws/ebs if none is named."),
            Parameter::string("AvailabilityZone", "Zone of the volume, such as us-east-1a.").obvious(),
            Parameter::new(
                "TagSpecifications",
                Kind::List(&Kind::Structure(TAG_SPECIFICATION)),
                "Tags for the new volume.",
            ),
            Parameter::string("ClientToken", "A name for this request: given again, it makes no second volume."),
            Parameter::string(
                "DbInstanceResourceId",
                "Immutable id of the DB instance that owns the volume: joins the encryption context as aws:rds:db-id.",
            )
            .ours(),
            Parameter::integer("SectorSize", "Bytes under one XTS tweak: 4096 (default) or 512.").ours(),
            DRY_RUN,
        ]),
        operation!(
            "DescribeVolumes",
            MALFORMED,
            ec2::DescribeVolumesRequest,
            ec2::describe_volumes,
            "Shows volumes and where they are attached."
        )
        .takes(&[
            Parameter::strings("VolumeIds", "Ids of volumes; all if none is named."),
            Parameter::new("Filters", Kind::List(&Kind::Structure(FILTER)), "Show only what matches every filter."),
            Parameter::integer("MaxResults", "At most so many in one answer."),
            Parameter::string("NextToken", "Where the answer before ended."),
            DRY_RUN,
        ])
        .pages(Paging::by_token("Volumes")),
        operation!(
            "AttachVolume",
            MALFORMED,
            ec2::AttachVolumeRequest,
            ec2::attach_volume,
            "Attaches a volume: a background process serves it over NBD until it is detached."
        )
        .takes(&[
            VOLUME_ID,
            Parameter::string("InstanceId", "Id of the instance; this machine's if none is named.").obvious(),
            Parameter::string("Device", "Device name to remember, such as /dev/sdf.").obvious(),
            Parameter::choice(
                "AttachAs",
                &["auto", "nbd", "fuse-loop"],
                "What to serve: nbd (auto is the same), or fuse-loop for a device of this machine's kernel as well.",
            )
            .ours(),
            DRY_RUN,
        ]),
        operation!(
            "DetachVolume",
            MALFORMED,
            ec2::DetachVolumeRequest,
            ec2::detach_volume,
            "Ends the process that serves a volume and drops its data key."
        )
        .takes(&[
            VOLUME_ID,
            Parameter::string("InstanceId", "Id of the instance."),
            Parameter::string("Device", "Device name of the attachment."),
            Parameter::boolean("Force", "End a process that does not answer."),
            DRY_RUN,
        ]),
        operation!(
            "DeleteVolume",
            MALFORMED,
            ec2::DeleteVolumeRequest,
            ec2::delete_volume,
            "Deletes a volume and its file."
        )
        .takes(&[VOLUME_ID, DRY_RUN]),
        operation!(
            "ModifyVolume",
            MALFORMED,
            ec2::ModifyVolumeRequest,
            ec2::modify_volume,
            "Grows a volume or changes its type, IOPS or throughput, while it is attached too."
        )
        .takes(&[
            VOLUME_ID,
            Parameter::integer("Size", "New size in GiB, not below the present one."),
            Parameter::choice("VolumeType", VOLUME_TYPES, "New type of the volume."),
            Parameter::integer("Iops", "Provisioned I/O operations per second (gp3, io1, io2)."),
            Parameter::integer("Throughput", "Provisioned MiB per second (gp3)."),
            DRY_RUN,
        ]),
        operation!(
            "DescribeVolumesModifications",
            MALFORMED,
            ec2::DescribeVolumesModificationsRequest,
            ec2::describe_volumes_modifications,
            "Shows the last modification of each volume and how far it is."
        )
        .takes(&[VOLUME_IDS, FILTERS, MAX_RESULTS, NEXT_TOKEN, DRY_RUN])
        .pages(Paging::by_token("VolumesModifications")),
        operation!(
            "DescribeVolumeStatus",
            MALFORMED,
            ec2::DescribeVolumeStatusRequest,
            ec2::describe_volume_status,
            "Shows whether volumes' data can be used."
        )
        .takes(&[VOLUME_IDS, FILTERS, MAX_RESULTS, NEXT_TOKEN, DRY_RUN])
        .pages(Paging::by_token("VolumeStatuses")),
        operation!(
            "CreateTags",
            MALFORMED,
            ec2::CreateTagsRequest,
            ec2::create_tags,
            "Adds tags to volumes and instances, or gives them new values."
        )
        .takes(&[
            RESOURCES,
            Parameter::new("Tags", Kind::List(&Kind::Structure(TAG)), "The tags.").required(),
            DRY_RUN,
        ]),
        operation!(
            "DeleteTags",
            MALFORMED,
            ec2::DeleteTagsRequest,
            ec2::delete_tags,
            "Takes tags away from volumes and instances."
        )
        .takes(&[
            RESOURCES,
            Parameter::new(
                "Tags",
                Kind::List(&Kind::Structure(TAG)),
                "The tags, all if none is named; with a value only that one.",
            ),
            DRY_RUN,
        ]),
        operation!(
            "DescribeTags",
            MALFORMED,
            ec2::DescribeTagsRequest,
            ec2::describe_tags,
            "Shows the tags of volumes and instances."
        )
        .takes(&[FILTERS, MAX_RESULTS, NEXT_TOKEN, DRY_RUN])
        .pages(Paging::by_token("Tags")),
        operation!(
            "EnableEbsEncryptionByDefault",
            MALFORMED,
            ec2::EbsDefaultRequest,
            ec2::enable_ebs_encryption_by_default,
            "Encrypts every new volume of the account in the Region."
        )
        .takes(&[DRY_RUN]),
        operation!(
            "DisableEbsEncryptionByDefault",
            MALFORMED,
            ec2::EbsDefaultRequest,
            ec2::disable_ebs_encryption_by_default,
            "Encrypts new volumes only where that is asked for."
        )
        .takes(&[DRY_RUN]),
        operation!(
            "GetEbsEncryptionByDefault",
            MALFORMED,
            ec2::EbsDefaultRequest,
            ec2::get_ebs_encryption_by_default,
            "Tells whether every new volume is encrypted."
        )
        .takes(&[DRY_RUN]),
        operation!(
            "GetEbsDefaultKmsKeyId",
            MALFORMED,
            ec2::EbsDefaultRequest,
            ec2::get_ebs_default_kms_key_id,
            "Tells the key of new volumes for which none is named."
        )
        .takes(&[DRY_RUN]),
        operation!(
            "ModifyEbsDefaultKmsKeyId",
            MALFORMED,
            ec2::ModifyEbsDefaultKmsKeyIdRequest,
            ec2::modify_ebs_default_kms_key_id,
            "Sets the key of new volumes for which none is named."
        )
        .takes(&[Parameter::string("KmsKeyId", "Id, ARN or alias of the KMS key.").required(), DRY_RUN]),
        operation!(
            "ResetEbsDefaultKmsKeyId",
            MALFORMED,
            ec2::EbsDefaultRequest,
            ec2::reset_ebs_default_kms_key_id,
            "Makes alias/aws/ebs the key of new volumes for which none is named."
        )
        .takes(&[DRY_RUN]),
        operation!(
            "RunInstances",
            MALFORMED,
            ec2::RunInstancesRequest,
            ec2::run_instances,
            "Launches instances, which have no machine and own the volumes of their mappings."
        )
        .takes(&[
            Parameter::string("ImageId", "Id of an image; nothing is started from it."),
            Parameter::string("InstanceType", "Type, such as m7i.large; remembered and shown."),
            Parameter::integer("MinCount", "At least so many.").obvious().filled(1),
            Parameter::integer("MaxCount", "At most so many.").obvious().filled(1),
            Parameter::string("Count", "How many: N or MIN:MAX.").ours(),
            Parameter::new(
                "BlockDeviceMappings",
                Kind::List(&Kind::Structure(MAPPING)),
                "The volumes, made and attached for the caller.",
            ),
            Parameter::new("Placement", Kind::Structure(PLACEMENT), "Where."),
            Parameter::new(
                "TagSpecifications",
                Kind::List(&Kind::Structure(TAG_SPECIFICATION)),
                "Tags for the instances and their volumes.",
            ),
            Parameter::string("ClientToken", "A name for this request: given again, it launches nothing more."),
            Parameter::string("KeyName", "Name of a key pair; remembered and shown."),
            Parameter::boolean("EbsOptimized", "Remembered and shown."),
            DRY_RUN,
        ]),
        operation!(
            "DescribeInstances",
            MALFORMED,
            ec2::DescribeInstancesRequest,
            ec2::describe_instances,
            "Shows instances, their states with the reasons, and their volumes."
        )
        .takes(&[
            INSTANCE_IDS,
            FILTERS,
            Parameter::integer("MaxResults", "At most so many in one answer."),
            Parameter::string("NextToken", "Where the answer before ended."),
            DRY_RUN,
        ])
        .pages(Paging::by_token("Reservations")),
        operation!(
            "TerminateInstances",
            MALFORMED,
            ec2::TerminateInstancesRequest,
            ec2::terminate_instances,
            "Ends instances, and with them the volumes that are marked so."
        )
        .takes(&[INSTANCE_IDS.required(), DRY_RUN]),
        operation!(
            "DescribeRegions",
            MALFORMED,
            ec2::DescribeRegionsRequest,
            ec2::describe_regions,
            "Shows the Regions."
        )
        .takes(&[
            Parameter::strings("RegionNames", "Names of Regions; all if none is named."),
            FILTERS,
            Parameter::boolean("AllRegions", "Also those that an account must opt into."),
            DRY_RUN,
        ]),
        operation!(
            "DescribeAvailabilityZones",
            MALFORMED,
            ec2::DescribeAvailabilityZonesRequest,
            ec2::describe_availability_zones,
            "Shows the zones of the Region."
        )
        .takes(&[
            Parameter::strings("ZoneNames", "Names of zones; all if none is named."),
            Parameter::strings("ZoneIds", "Ids of zones."),
            FILTERS,
            Parameter::boolean("AllAvailabilityZones", "Also zones that an account must opt into: there are none."),
            DRY_RUN,
        ]),
    ],
};
