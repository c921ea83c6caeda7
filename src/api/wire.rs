//! How a service speaks on the wire: its protocol, and the names in XML that do not follow from the member's own.
//!
//! Sources: the API references' "Making requests" pages and the service models that AWS publishes with its SDKs, from which
//! the lists of operations below `known/` are too.

/// How the requests and answers of one service look.
#[derive(Debug)]
pub struct Wire {
    /// The service's name as request signatures spell it: `kms`.
    pub service: &'static str,
    /// The protocol.
    pub form: Form,
    /// Members of results that are points in time.
    pub times: &'static [&'static str],
    /// Members of results that are maps, in which callers name what they like.
    pub maps: &'static [&'static str],
    /// Members of results that are policy documents, which IAM percent-encodes.
    pub documents: &'static [&'static str],
    /// Names in XML that the rule of [`Wire::name`] does not give: below which member, the member, its name. An empty first
    /// word stands for any.
    names: &'static [(&'static str, &'static str, &'static str)],
    /// Every operation that AWS has, one a line.
    known: &'static str,
}

/// A protocol of AWS, with what a service fills into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Form {
    /// AWS JSON 1.1: `X-Amz-Target` names the operation behind this prefix and a dot.
    Json {
        /// `TrentService`.
        target: &'static str,
    },
    /// EC2's own Query protocol.
    Ec2 {
        /// The API's version, also the end of its namespace.
        version: &'static str,
        /// The XML namespace.
        namespace: &'static str,
    },
    /// Query: a form in, XML out.
    Query {
        /// The API's version.
        version: &'static str,
        /// The XML namespace.
        namespace: &'static str,
    },
}

impl Wire {
    /// The wire form of a service.
    pub fn of(service: &str) -> Option<&'static Self> {
        WIRES.iter().find(|wire| wire.service == service)
    }

    /// The service that an `X-Amz-Target` means, and the operation in it.
    pub fn of_target(target: &str) -> Option<(&'static Self, &str)> {
        let (prefix, operation) = target.rsplit_once('.')?;
        let is_meant = |wire: &&Self| match wire.form {
            // The last part of a dotted prefix is enough: SDKs differ in what they send.
            Form::Json { target } => target == prefix || target.rsplit('.').next() == Some(prefix),
            _ => false,
        };
        Some((WIRES.iter().find(is_meant)?, operation))
    }

    /// The service whose Query API has this version.
    pub fn of_version(wanted: &str) -> Option<&'static Self> {
        WIRES.iter().find(|wire| match wire.form {
            Form::Ec2 { version, .. } | Form::Query { version, .. } => version == wanted,
            Form::Json { .. } => false,
        })
    }

    /// Whether AWS has this operation.
    pub fn knows(&self, operation: &str) -> bool {
        self.known.lines().any(|line| line == operation)
    }

    /// The XML name of `member` of the structure that is below `parent`: the operation's name at the root.
    ///
    /// In EC2's protocol it begins with a small letter, and a list `Tags` is a `tagSet`; elsewhere it is the member's own.
    pub fn name(&self, parent: &str, member: &str, is_list: bool) -> String {
        let exception = self.names.iter().find(|(below, name, _)| *name == member && [parent, ""].contains(below));
        if let Some((_, _, name)) = exception {
            return (*name).to_owned();
        }
        if !matches!(self.form, Form::Ec2 { .. }) {
            return member.to_owned();
        }
        let mut letters = member.chars();
        let first = letters.next().map(|letter| letter.to_ascii_lowercase());
        let name: String = first.into_iter().chain(letters).collect();
        if is_list { format!("{}Set", name.strip_suffix('s').unwrap_or(&name)) } else { name }
    }

    /// How a point in time is written in XML, in the words of `strftime`.
    pub const fn time_format(&self) -> &'static str {
        match self.form {
            Form::Ec2 { .. } => "%Y-%m-%dT%H:%M:%S.%3fZ",
            _ => "%Y-%m-%dT%H:%M:%SZ",
        }
    }

    /// What an element of a list is called.
    pub const fn item(&self) -> &'static str {
        match self.form {
            Form::Ec2 { .. } => "item",
            _ => "member",
        }
    }

    /// The name under which a request in EC2's protocol has the list `member`: `VolumeId.1` is the first of `VolumeIds`.
    pub fn input_name(&self, member: &str) -> String {
        if !matches!(self.form, Form::Ec2 { .. }) {
            return member.to_owned();
        }
        if member == "Resources" {
            return "ResourceId".to_owned();
        }
        match (member.strip_suffix("ies"), member.strip_suffix('s')) {
            (Some(stem), _) => format!("{stem}y"),
            (None, Some(stem)) => stem.to_owned(),
            (None, None) => member.to_owned(),
        }
    }
}

/// Every service that is spoken.
static WIRES: &[Wire] = &[
    Wire {
        service: "kms",
        form: Form::Json { target: "TrentService" },
        times: &[
            "CreationDate",
            "DeletionDate",
            "KeyCreationDate",
            "LastUpdatedDate",
            "NextRotationDate",
            "OnDemandRotationStartDate",
            "ParametersValidTo",
            "RotationDate",
            "Timestamp",
            "TrackingStartDate",
            "ValidTo",
        ],
        maps: &["EncryptionContextEquals", "EncryptionContextSubset"],
        documents: &[],
        names: &[],
        known: include_str!("known/kms.txt"),
    },
    Wire {
        service: "cloudtrail",
        form: Form::Json { target: "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101" },
        times: &["EventTime"],
        maps: &[],
        documents: &[],
        names: &[],
        known: include_str!("known/cloudtrail.txt"),
    },
    Wire {
        service: "ec2",
        form: Form::Ec2 { version: "2016-11-15", namespace: "http://ec2.amazonaws.com/doc/2016-11-15/" },
        times: &["AttachTime", "CreateTime", "EndTime", "LaunchTime", "StartTime", "UsageOperationUpdateTime"],
        maps: &[],
        documents: &[],
        names: &[
            ("AvailabilityZones", "State", "zoneState"),
            ("DescribeAvailabilityZones", "AvailabilityZones", "availabilityZoneInfo"),
            ("DescribeRegions", "Regions", "regionInfo"),
            ("Instances", "BlockDeviceMappings", "blockDeviceMapping"),
            ("Instances", "ProductCodes", "productCodes"),
            ("Instances", "PublicDnsName", "dnsName"),
            ("Instances", "PublicIpAddress", "ipAddress"),
            ("Instances", "SecurityGroups", "groupSet"),
            ("Instances", "State", "instanceState"),
            ("Instances", "StateTransitionReason", "reason"),
            ("NetworkInterfaces", "Ipv6Addresses", "ipv6AddressesSet"),
            ("NetworkInterfaces", "PrivateIpAddresses", "privateIpAddressesSet"),
            ("ProductCodes", "ProductCodeId", "productCode"),
            ("ProductCodes", "ProductCodeType", "type"),
            ("Regions", "Endpoint", "regionEndpoint"),
            ("", "Instances", "instancesSet"),
            ("", "TerminatingInstances", "instancesSet"),
            ("", "VolumesModifications", "volumeModificationSet"),
            ("DescribeVolumeStatus", "VolumeStatuses", "volumeStatusSet"),
            ("VolumeStatus", "Details", "details"),
            ("VolumeStatuses", "Actions", "actionsSet"),
            ("VolumeStatuses", "Events", "eventsSet"),
            ("AttachVolume", "State", "status"),
            ("Attachments", "State", "status"),
            ("CreateVolume", "State", "status"),
            ("DetachVolume", "State", "status"),
            ("Volumes", "State", "status"),
        ],
        known: include_str!("known/ec2.txt"),
    },
    Wire {
        service: "iam",
        form: Form::Query { version: "2010-05-08", namespace: "https://iam.amazonaws.com/doc/2010-05-08/" },
        times: &["CreateDate", "LastUsedDate"],
        maps: &[],
        documents: &["AssumeRolePolicyDocument", "PolicyDocument"],
        names: &[],
        known: include_str!("known/iam.txt"),
    },
    Wire {
        service: "sts",
        form: Form::Query { version: "2011-06-15", namespace: "https://sts.amazonaws.com/doc/2011-06-15/" },
        times: &["Expiration"],
        maps: &[],
        documents: &[],
        names: &[],
        known: include_str!("known/sts.txt"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SERVICES;

    #[test]
    fn every_service_of_the_table_is_spoken_and_its_operations_are_known() {
        for service in SERVICES {
            assert!(Wire::of(service.name).is_some(), "{}", service.name);
        }
        assert!(Wire::of("ec2").is_some_and(|wire| wire.knows("CopySnapshot") && !wire.knows("CopySnap")));
    }

    #[test]
    fn a_target_names_service_and_operation() {
        let found = |target| Wire::of_target(target).map(|(wire, operation)| (wire.service, operation.to_owned()));
        assert_eq!(found("TrentService.Decrypt"), Some(("kms", "Decrypt".to_owned())));
        let long = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents";
        assert_eq!(found(long), Some(("cloudtrail", "LookupEvents".to_owned())));
        assert_eq!(found("CloudTrail_20131101.LookupEvents"), Some(("cloudtrail", "LookupEvents".to_owned())));
        assert_eq!(found("DynamoDB_20120810.GetItem"), None);
        assert_eq!(found(".Decrypt"), None);
        assert_eq!(found("Decrypt"), None);
    }

    #[test]
    fn ec2s_names_follow_its_rule_and_its_exceptions() {
        let ec2 = Wire::of("ec2").unwrap();
        assert_eq!(ec2.name("Volumes", "Attachments", true), "attachmentSet");
        assert_eq!(ec2.name("Volumes", "KmsKeyId", false), "kmsKeyId");
        assert_eq!(ec2.name("Volumes", "State", false), "status");
        assert_eq!(ec2.name("Instances", "State", false), "instanceState");
        assert_eq!(ec2.name("StateReason", "Code", false), "code");
        assert_eq!(ec2.input_name("VolumeIds"), "VolumeId");
        assert_eq!(ec2.input_name("Resources"), "ResourceId");
        assert_eq!(ec2.name("DescribeVolumesModifications", "VolumesModifications", true), "volumeModificationSet");
        assert_eq!(Wire::of("iam").unwrap().name("User", "UserId", false), "UserId");
    }
}
