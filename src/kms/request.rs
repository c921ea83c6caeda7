//! The condition keys of KMS requests (AWS KMS developer guide, "AWS KMS condition keys" and "Condition keys for AWS Nitro
//! enclaves" for what is not here).
//!
//! Pure: `explain` sets the same keys from a description of a key that this home does not have.

use crate::iam::Context;

use super::context::EncryptionContext;
use super::grant::GrantConstraints;

/// What a request is about, as far as condition keys tell of it.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// What is asked for, spelled as in grants: `Decrypt`, `ReEncryptFrom`, `CreateKey` …
    pub operation: &'a str,
    /// The account of who asks.
    pub caller_account: &'a str,
    /// The service that asks on the caller's behalf.
    pub via: Option<&'a str>,
    /// The encryption context, if the operation has one.
    pub encryption_context: Option<&'a EncryptionContext>,
    /// The alias (`alias/…`) by which the request names the key, if it does.
    pub request_alias: Option<&'a str>,
    /// The key, for an operation on one.
    pub key: Option<KeyFacts<'a>>,
}

/// A key, as far as condition keys tell of it.
#[derive(Clone, Copy, Debug)]
pub struct KeyFacts<'a> {
    /// The owner's account.
    pub account: &'a str,
    /// `SYMMETRIC_DEFAULT`.
    pub spec: &'a str,
    /// `ENCRYPT_DECRYPT`.
    pub usage: &'a str,
    /// `AWS_KMS` or `EXTERNAL`.
    pub origin: &'a str,
    /// For a multi-Region key: `PRIMARY` or `REPLICA`.
    pub multi_region: Option<&'a str>,
}

impl RequestFacts<'_> {
    /// Sets the keys that every request about such a thing has. What an operation has besides is set by functions below.
    pub fn describe(&self, context: &mut Context) {
        context.set("kms:CallerAccount", self.caller_account).set_opt("kms:ViaService", self.via);
        if let Some(encryption_context) = self.encryption_context {
            encrypted_under(encryption_context, context);
        }
        if let Some(alias) = self.request_alias {
            context.set("kms:RequestAlias", alias);
        }
        if matches!(self.operation, "Encrypt" | "Decrypt" | "ReEncryptFrom" | "ReEncryptTo") {
            context.set("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT");
        }
        if matches!(self.operation, "CreateGrant" | "ListGrants" | "RevokeGrant") {
            context.set("kms:GrantIsForAWSResource", self.via.is_some().to_string());
        }
        if let Some(key) = &self.key {
            context
                .set("aws:ResourceAccount", key.account)
                .set("kms:KeySpec", key.spec)
                .set("kms:CustomerMasterKeySpec", key.spec)
                .set("kms:KeyUsage", key.usage)
                .set("kms:CustomerMasterKeyUsage", key.usage)
                .set("kms:KeyOrigin", key.origin)
                .set("kms:MultiRegion", key.multi_region.is_some().to_string())
                .set_opt("kms:MultiRegionKeyType", key.multi_region);
        }
    }
}

/// Sets the keys of an encryption context.
fn encrypted_under(encryption_context: &EncryptionContext, context: &mut Context) {
    context.set_all("kms:EncryptionContextKeys", encryption_context.0.keys());
    for (name, value) in &encryption_context.0 {
        context.set_named("kms:EncryptionContext:", name, value);
    }
}

/// Sets what a `CreateGrant` has besides: the condition keys of the encryption context stand for its constraint.
pub fn create_grant(
    operations: &[String],
    grantee: &str,
    retiring: Option<&str>,
    constraints: Option<&GrantConstraints>,
) -> Context {
    let mut context = Context::default();
    context
        .set_all("kms:GrantOperations", operations)
        .set("kms:GranteePrincipal", grantee)
        .set_opt("kms:RetiringPrincipal", retiring);
    for (key, name) in [("kms:GranteeServicePrincipal", Some(grantee)), ("kms:RetiringServicePrincipal", retiring)] {
        if name.is_some_and(|name| name.ends_with(".amazonaws.com")) {
            context
                .set_unknown(key, "whether a service in the parameter for other principals counts is not documented");
        }
    }
    constrained(constraints, &mut context);
    context
}

/// Sets what a grant's constraints say: its type, and the condition keys of an encryption context.
///
/// With both constraints the type is that of either (*assumed*), so that it is not known.
pub fn constrained(constraints: Option<&GrantConstraints>, context: &mut Context) {
    let subset = constraints.and_then(|both| both.encryption_context_subset.as_ref());
    let equals = constraints.and_then(|both| both.encryption_context_equals.as_ref());
    match (subset, equals) {
        (None, None) => {}
        (Some(pairs), None) => {
            context.set("kms:GrantConstraintType", "EncryptionContextSubset");
            encrypted_under(pairs, context);
        }
        (None, Some(pairs)) => {
            context.set("kms:GrantConstraintType", "EncryptionContextEquals");
            encrypted_under(pairs, context);
        }
        (Some(_), Some(_)) => {
            let reason = "the grant has constraints of both types";
            for key in ["kms:GrantConstraintType", "kms:EncryptionContextKeys", "kms:EncryptionContext:"] {
                context.set_unknown(key, reason);
            }
        }
    }
}

/// Sets what a `CreateKey` has besides.
pub fn create_key(spec: &str, usage: &str, origin: &str, multi_region: bool, bypass: bool) -> Context {
    let mut context = Context::default();
    context
        .set("kms:KeySpec", spec)
        .set("kms:CustomerMasterKeySpec", spec)
        .set("kms:KeyUsage", usage)
        .set("kms:CustomerMasterKeyUsage", usage)
        .set("kms:KeyOrigin", origin)
        .set("kms:MultiRegion", multi_region.to_string())
        .set_opt("kms:MultiRegionKeyType", multi_region.then_some("PRIMARY"))
        .set("kms:BypassPolicyLockoutSafetyCheck", bypass.to_string());
    context
}

/// Adds tags of a request: `aws:RequestTag/…` and `aws:TagKeys`.
pub fn request_tags<'t>(tags: impl IntoIterator<Item = (&'t str, &'t str)>, context: &mut Context) {
    let mut names = Vec::new();
    for (name, value) in tags {
        context.set_named("aws:RequestTag/", name, value);
        names.push(name);
    }
    context.set_all("aws:TagKeys", names);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iam::Entry;

    fn values(context: &Context, key: &str) -> Option<Vec<String>> {
        if let Entry::Values(values) = context.get(key) { Some(values) } else { None }
    }

    #[test]
    fn a_request_has_the_keys_that_kms_documents() {
        let pairs: EncryptionContext = [("aws:ebs:id", "vol-1"), ("aws:rds:db-id", "db-A")].into_iter().collect();
        let mut facts = RequestFacts {
            operation: "Decrypt",
            caller_account: "123456789012",
            via: Some("ec2.us-east-1.amazonaws.com"),
            encryption_context: Some(&pairs),
            request_alias: None,
            key: None,
        };
        let mut context = Context::default();
        facts.describe(&mut context);
        assert_eq!(values(&context, "kms:EncryptionContext:AWS:ebs:id").unwrap(), ["vol-1"]);
        assert_eq!(values(&context, "kms:EncryptionContextKeys").unwrap(), ["aws:ebs:id", "aws:rds:db-id"]);
        assert_eq!(values(&context, "kms:ViaService").unwrap(), ["ec2.us-east-1.amazonaws.com"]);
        assert_eq!(context.get("kms:GrantIsForAWSResource"), Entry::Absent);
        facts = RequestFacts { operation: "CreateGrant", via: None, encryption_context: None, ..facts };
        let mut context = Context::default();
        facts.describe(&mut context);
        let constraints = GrantConstraints { encryption_context_subset: Some(pairs), ..Default::default() };
        context.extend(&create_grant(&["Decrypt".to_owned()], "arn:x", None, Some(&constraints)));
        assert_eq!(values(&context, "kms:GrantIsForAWSResource").unwrap(), ["false"]);
        assert_eq!(values(&context, "kms:GrantConstraintType").unwrap(), ["EncryptionContextSubset"]);
        assert_eq!(values(&context, "kms:EncryptionContext:aws:ebs:id").unwrap(), ["vol-1"]);
        assert_eq!(context.get("kms:RetiringPrincipal"), Entry::Absent);
    }
}
