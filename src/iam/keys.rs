//! The condition keys that are known, with their types.
//!
//! IAM user guide, "AWS global condition context keys"; AWS KMS developer guide, "AWS KMS condition keys"; service
//! authorization reference, "Condition keys for Amazon EC2" (those that EBS uses).

use serde::Serialize;

/// The type of a key's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub enum KeyType {
    /// Text.
    String,
    /// An ARN.
    Arn,
    /// `true` or `false`.
    Bool,
    /// A number.
    Numeric,
    /// A point in time.
    Date,
    /// An address.
    Ip,
}

/// A condition key.
#[derive(Clone, Copy, Debug)]
pub struct KeyInfo {
    /// Its name as AWS writes it; one that ends in `/` or `:` stands for all that begin so.
    pub name: &'static str,
    /// The type of its values.
    pub kind: KeyType,
    /// Whether a request can have several values of it.
    pub multi: bool,
}

const fn one(name: &'static str, kind: KeyType) -> KeyInfo {
    KeyInfo { name, kind, multi: false }
}

const fn many(name: &'static str, kind: KeyType) -> KeyInfo {
    KeyInfo { name, kind, multi: true }
}

/// All of them.
pub static KEYS: &[KeyInfo] = &[
    // Who asks.
    one("aws:PrincipalArn", KeyType::Arn),
    one("aws:PrincipalAccount", KeyType::String),
    one("aws:PrincipalOrgID", KeyType::String),
    many("aws:PrincipalOrgPaths", KeyType::String),
    one("aws:PrincipalTag/", KeyType::String),
    one("aws:PrincipalType", KeyType::String),
    one("aws:PrincipalIsAWSService", KeyType::Bool),
    one("aws:PrincipalServiceName", KeyType::String),
    many("aws:PrincipalServiceNamesList", KeyType::String),
    one("aws:userid", KeyType::String),
    one("aws:username", KeyType::String),
    // Their session.
    one("aws:FederatedProvider", KeyType::String),
    one("aws:MultiFactorAuthPresent", KeyType::Bool),
    one("aws:MultiFactorAuthAge", KeyType::Numeric),
    one("aws:TokenIssueTime", KeyType::Date),
    one("aws:SourceIdentity", KeyType::String),
    one("aws:Ec2InstanceSourceVpc", KeyType::String),
    one("aws:Ec2InstanceSourcePrivateIPv4", KeyType::Ip),
    one("ec2:SourceInstanceARN", KeyType::Arn),
    one("ec2:RoleDelivery", KeyType::Numeric),
    // From where, when and how.
    one("aws:SourceIp", KeyType::Ip),
    one("aws:SourceVpc", KeyType::String),
    one("aws:SourceVpce", KeyType::String),
    one("aws:SourceVpcArn", KeyType::Arn),
    one("aws:VpcSourceIp", KeyType::Ip),
    one("aws:CurrentTime", KeyType::Date),
    one("aws:EpochTime", KeyType::Date),
    one("aws:SecureTransport", KeyType::Bool),
    one("aws:UserAgent", KeyType::String),
    one("aws:Referer", KeyType::String),
    one("aws:RequestedRegion", KeyType::String),
    // Through what.
    many("aws:CalledVia", KeyType::String),
    one("aws:CalledViaFirst", KeyType::String),
    one("aws:CalledViaLast", KeyType::String),
    one("aws:ViaAWSService", KeyType::Bool),
    one("aws:SourceArn", KeyType::Arn),
    one("aws:SourceAccount", KeyType::String),
    one("aws:SourceOrgID", KeyType::String),
    many("aws:SourceOrgPaths", KeyType::String),
    // What is asked for.
    one("aws:RequestTag/", KeyType::String),
    many("aws:TagKeys", KeyType::String),
    one("aws:ResourceTag/", KeyType::String),
    one("aws:ResourceAccount", KeyType::String),
    one("aws:ResourceOrgID", KeyType::String),
    many("aws:ResourceOrgPaths", KeyType::String),
    // STS.
    one("sts:ExternalId", KeyType::String),
    one("sts:RoleSessionName", KeyType::String),
    // EC2's volumes.
    one("ec2:AvailabilityZone", KeyType::String),
    one("ec2:CreateAction", KeyType::String),
    one("ec2:Encrypted", KeyType::Bool),
    one("ec2:Region", KeyType::String),
    one("ec2:ResourceTag/", KeyType::String),
    one("ec2:VolumeID", KeyType::String),
    one("ec2:VolumeIops", KeyType::Numeric),
    one("ec2:VolumeSize", KeyType::Numeric),
    one("ec2:VolumeThroughput", KeyType::Numeric),
    one("ec2:VolumeType", KeyType::String),
    // KMS.
    one("kms:BypassPolicyLockoutSafetyCheck", KeyType::Bool),
    one("kms:CallerAccount", KeyType::String),
    one("kms:CustomerMasterKeySpec", KeyType::String),
    one("kms:CustomerMasterKeyUsage", KeyType::String),
    one("kms:DataKeyPairSpec", KeyType::String),
    one("kms:EncryptionAlgorithm", KeyType::String),
    one("kms:EncryptionContext:", KeyType::String),
    many("kms:EncryptionContextKeys", KeyType::String),
    one("kms:ExpirationModel", KeyType::String),
    one("kms:GrantConstraintSourceArn", KeyType::Arn),
    one("kms:GrantConstraintType", KeyType::String),
    one("kms:GrantIsForAWSResource", KeyType::Bool),
    many("kms:GrantOperations", KeyType::String),
    one("kms:GranteePrincipal", KeyType::String),
    one("kms:GranteeServicePrincipal", KeyType::String),
    one("kms:KeyAgreementAlgorithm", KeyType::String),
    one("kms:KeyOrigin", KeyType::String),
    one("kms:KeySpec", KeyType::String),
    one("kms:KeyUsage", KeyType::String),
    one("kms:MacAlgorithm", KeyType::String),
    one("kms:MessageType", KeyType::String),
    one("kms:MultiRegion", KeyType::Bool),
    one("kms:MultiRegionKeyType", KeyType::String),
    one("kms:PrimaryRegion", KeyType::String),
    one("kms:ReEncryptOnSameKey", KeyType::Bool),
    one("kms:ReplicaRegion", KeyType::String),
    one("kms:RequestAlias", KeyType::String),
    many("kms:ResourceAliases", KeyType::String),
    one("kms:RetiringPrincipal", KeyType::String),
    one("kms:RetiringServicePrincipal", KeyType::String),
    one("kms:RotationPeriodInDays", KeyType::Numeric),
    one("kms:ScheduleKeyDeletionPendingWindowInDays", KeyType::Numeric),
    one("kms:SigningAlgorithm", KeyType::String),
    one("kms:TrailingDaysWithoutKeyUsage", KeyType::Numeric),
    one("kms:ValidTo", KeyType::Date),
    one("kms:ViaService", KeyType::String),
    one("kms:WrappingAlgorithm", KeyType::String),
    one("kms:WrappingKeySpec", KeyType::String),
];

/// The key of that name, whatever its case; `None` if it is not known.
pub fn known(name: &str) -> Option<&'static KeyInfo> {
    KEYS.iter().find(|key| {
        let prefix = key.name.ends_with(['/', ':']);
        match name.split_at_checked(key.name.len()) {
            Some((start, rest)) => start.eq_ignore_ascii_case(key.name) && rest.is_empty() != prefix,
            None => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_name_or_prefix_in_any_case() {
        assert!(known("KMS:viaservice").is_some_and(|key| key.name == "kms:ViaService" && !key.multi));
        assert!(known("kms:EncryptionContextKeys").is_some_and(|key| key.multi));
        assert!(known("kms:encryptioncontext:aws:ebs:id").is_some_and(|key| key.name == "kms:EncryptionContext:"));
        assert!(known("aws:PrincipalTag/Team").is_some());
        for unknown in ["", "aws:PrincipalTag/", "aws:PrincipalTag", "kms:ViaServices", "kms:EncryptionContext:", "é"]
        {
            assert!(known(unknown).is_none(), "{unknown}");
        }
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[index + 1..].iter().all(|other| !other.name.eq_ignore_ascii_case(key.name)), "{}", key.name);
        }
    }
}
