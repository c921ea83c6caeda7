//! Encryption by default: what an account has set for the volumes that it makes in a Region (EBS user guide, "Enable Amazon
//! EBS encryption by default").

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::gate::{Call, Operation, ServiceError, Step, run};
use crate::ids::{AccountId, Region};
use crate::kms;
use crate::store::{StoreError, Transaction};

use super::record::Fields;
use super::{keys, params as words, permission, record};

/// Request of the operations that take nothing but `DryRun`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EbsDefaultRequest {
    /// Check only.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// Request of `ModifyEbsDefaultKmsKeyId`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ModifyEbsDefaultKmsKeyIdRequest {
    /// The key: id, ARN, alias name or alias ARN.
    #[serde(default)]
    pub kms_key_id: String,
    /// Check only.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// Whether an account's new volumes are encrypted, asked for or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EbsEncryptionByDefaultResult {
    /// Whether they are.
    pub ebs_encryption_by_default: bool,
}

/// The key of new volumes for which none is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EbsDefaultKmsKeyIdResult {
    /// `alias/aws/ebs`, or the ARN of the key that was set.
    pub kms_key_id: String,
}

/// What an account has set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    /// Whether every new volume is encrypted.
    pub(super) encrypted: bool,
    key: Option<String>,
}

impl Defaults {
    /// The key of a volume for which no other was named.
    pub(super) fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(keys::DEFAULT_KEY)
    }
}

/// What the account has set in the Region.
pub(super) fn of(tx: &Transaction<'_>, account: &AccountId, region: &Region) -> Result<Defaults, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT by_default, key FROM ebs_encryption WHERE account = ?1 AND region = ?2")?;
    let found = statement
        .query_row([account.as_str(), region.as_str()], |row| Ok(Defaults { encrypted: row.get(0)?, key: row.get(1)? }))
        .optional()?;
    Ok(found.unwrap_or_default())
}

fn put(tx: &Transaction<'_>, call: &Call<'_>, defaults: &Defaults) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO ebs_encryption (account, region, by_default, key) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![call.account.as_str(), call.region.as_str(), defaults.encrypted, defaults.key])?;
    Ok(())
}

/// From now on every new volume of the account in the Region is encrypted.
pub fn enable_ebs_encryption_by_default(
    call: &Call<'_>,
    request: EbsDefaultRequest,
) -> Result<EbsEncryptionByDefaultResult, ServiceError> {
    switch(call, &record::ENABLE_EBS_ENCRYPTION_BY_DEFAULT, request, Some(true))
}

/// From now on a new volume is encrypted where that is asked for. Those that are there stay as they are.
pub fn disable_ebs_encryption_by_default(
    call: &Call<'_>,
    request: EbsDefaultRequest,
) -> Result<EbsEncryptionByDefaultResult, ServiceError> {
    switch(call, &record::DISABLE_EBS_ENCRYPTION_BY_DEFAULT, request, Some(false))
}

/// Whether every new volume is encrypted.
pub fn get_ebs_encryption_by_default(
    call: &Call<'_>,
    request: EbsDefaultRequest,
) -> Result<EbsEncryptionByDefaultResult, ServiceError> {
    switch(call, &record::GET_EBS_ENCRYPTION_BY_DEFAULT, request, None)
}

fn switch(
    call: &Call<'_>,
    operation: &'static Operation,
    request: EbsDefaultRequest,
    to: Option<bool>,
) -> Result<EbsEncryptionByDefaultResult, ServiceError> {
    run(call, operation, recorded(operation, None, request.dry_run), |step| {
        let mut defaults = admitted(step, operation, request.dry_run)?;
        if let Some(to) = to.filter(|to| *to != defaults.encrypted) {
            defaults.encrypted = to;
            put(step.tx, call, &defaults)?;
        }
        answered(step, operation, &json!({"ebsEncryptionByDefault": defaults.encrypted}));
        Ok(EbsEncryptionByDefaultResult { ebs_encryption_by_default: defaults.encrypted })
    })
}

/// The key of a volume for which none is named.
pub fn get_ebs_default_kms_key_id(
    call: &Call<'_>,
    request: EbsDefaultRequest,
) -> Result<EbsDefaultKmsKeyIdResult, ServiceError> {
    let operation = &record::GET_EBS_DEFAULT_KMS_KEY_ID;
    run(call, operation, recorded(operation, None, request.dry_run), |step| {
        let defaults = admitted(step, operation, request.dry_run)?;
        Ok(shown(step, operation, &defaults))
    })
}

/// Sets the key of new volumes for which none is named. As with `CreateVolume`, one that is not there or cannot be used is no
/// error here: the volumes made under it vanish (EC2 API reference, "ModifyEbsDefaultKmsKeyId": the key is checked
/// asynchronously; that an alias is followed when it is set is *assumed*).
pub fn modify_ebs_default_kms_key_id(
    call: &Call<'_>,
    request: ModifyEbsDefaultKmsKeyIdRequest,
) -> Result<EbsDefaultKmsKeyIdResult, ServiceError> {
    let operation = &record::MODIFY_EBS_DEFAULT_KMS_KEY_ID;
    let named = request.kms_key_id.as_str();
    run(call, operation, recorded(operation, Some(named), request.dry_run), |step| {
        let mut defaults = admitted(step, operation, request.dry_run)?;
        if named.is_empty() {
            return Err(ServiceError::refused("MissingParameter", "The request must contain the parameter KmsKeyId"));
        }
        defaults.key = match kms::arn_in(step.tx, call, named) {
            _ if named == keys::DEFAULT_KEY => None,
            Ok(arn) => Some(arn),
            Err(ServiceError::Refused(_)) => Some(named.to_owned()),
            Err(machine) => return Err(machine),
        };
        put(step.tx, call, &defaults)?;
        Ok(shown(step, operation, &defaults))
    })
}

/// Makes `alias/aws/ebs` the key of new volumes for which none is named.
pub fn reset_ebs_default_kms_key_id(
    call: &Call<'_>,
    request: EbsDefaultRequest,
) -> Result<EbsDefaultKmsKeyIdResult, ServiceError> {
    let operation = &record::RESET_EBS_DEFAULT_KMS_KEY_ID;
    run(call, operation, recorded(operation, None, request.dry_run), |step| {
        let mut defaults = admitted(step, operation, request.dry_run)?;
        defaults.key = None;
        put(step.tx, call, &defaults)?;
        Ok(shown(step, operation, &defaults))
    })
}

/// What the caller's account has set, if the caller may ask or change it.
fn admitted(step: &Step<'_>, operation: &Operation, dry_run: Option<bool>) -> Result<Defaults, ServiceError> {
    permission::check_in(step.tx, step.call, &format!("ec2:{}", operation.name), &["*".to_owned()])?;
    words::dry_run(dry_run)?;
    Ok(of(step.tx, &step.call.account, &step.call.region)?)
}

fn shown(step: &mut Step<'_>, operation: &Operation, defaults: &Defaults) -> EbsDefaultKmsKeyIdResult {
    answered(step, operation, &json!({"kmsKeyId": defaults.key()}));
    EbsDefaultKmsKeyIdResult { kms_key_id: defaults.key().to_owned() }
}

/// Records are of EC2's later form (as of `DisableEbsEncryptionByDefault`, which attack libraries show).
fn recorded(operation: &Operation, key: Option<&str>, dry_run: Option<bool>) -> Value {
    let mut fields = Fields::default();
    fields.put("KmsKeyId", key);
    let members = if fields.0.is_empty() { json!("") } else { Value::Object(fields.0) };
    let mut whole = json!({format!("{}Request", operation.name): members});
    if dry_run == Some(true) {
        whole["dryRun"] = true.into();
    }
    whole
}

/// What is only read is not repeated in the record.
fn answered(step: &mut Step<'_>, operation: &Operation, members: &Value) {
    if !operation.read_only {
        step.draft.set_response(record::wrapped(operation.name, &step.call.request_id, members));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ec2::{CreateVolumeRequest, DescribeVolumesRequest, create_volume, describe_volumes};
    use crate::store::Home;

    /// Every outcome of the user guide's table of volumes without a source, and two that it does not have.
    #[test]
    fn new_volumes_are_encrypted_as_the_user_guide_says() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        let in_region = |region: &str| Call::direct(&home, "123456789012".parse().unwrap(), region.parse().unwrap());
        let call = in_region("us-east-1");
        let key = || kms::create_key(&call, kms::CreateKeyRequest::default()).unwrap().key_metadata.arn;
        let (named, default) = (key(), key());
        let made = |call: &Call<'_>, encrypted: Option<bool>, key: Option<&String>| {
            let request = CreateVolumeRequest {
                size: Some(1),
                encrypted,
                kms_key_id: key.cloned(),
                ..CreateVolumeRequest::default()
            };
            let id = match create_volume(call, request) {
                Ok(volume) => volume.volume_id,
                Err(error) => return error.code().to_owned(),
            };
            let request = DescribeVolumesRequest { volume_ids: vec![id], ..DescribeVolumesRequest::default() };
            match describe_volumes(call, request) {
                Ok(found) => found.volumes[0].kms_key_id.clone().unwrap_or_else(|| "unencrypted".to_owned()),
                Err(error) => error.code().to_owned(),
            }
        };
        let dependency = "InvalidParameterDependency";
        assert_eq!(made(&call, None, None), "unencrypted");
        assert_eq!(made(&call, Some(false), None), "unencrypted");
        assert_eq!(made(&call, None, Some(&named)), dependency);
        assert_eq!(made(&call, Some(false), Some(&named)), dependency);
        assert_eq!(made(&call, Some(true), Some(&named)), named);
        let aws = made(&call, Some(true), None);
        assert!(aws.starts_with("arn:aws:kms:us-east-1:123456789012:key/") && aws != named, "{aws}");

        let request = ModifyEbsDefaultKmsKeyIdRequest { kms_key_id: default.clone(), dry_run: None };
        assert_eq!(modify_ebs_default_kms_key_id(&call, request).unwrap().kms_key_id, default);
        assert_eq!(made(&call, Some(true), None), default, "the default key is also that of volumes asked for");
        assert_eq!(made(&call, None, None), "unencrypted", "a default key alone encrypts nothing");

        let on = enable_ebs_encryption_by_default(&call, EbsDefaultRequest::default()).unwrap();
        assert!(on.ebs_encryption_by_default);
        assert_eq!(made(&call, None, None), default);
        assert_eq!(made(&call, Some(false), None), default, "it cannot be passed by for one volume");
        assert_eq!(made(&call, None, Some(&named)), named);
        assert_eq!(made(&call, Some(true), Some(&named)), named);
        let elsewhere = in_region("eu-west-1");
        assert_eq!(made(&elsewhere, None, None), "unencrypted", "each Region has its own");

        let reset = reset_ebs_default_kms_key_id(&call, EbsDefaultRequest::default()).unwrap();
        assert_eq!(reset.kms_key_id, "alias/aws/ebs");
        assert_eq!(made(&call, None, None), aws);
        let request = ModifyEbsDefaultKmsKeyIdRequest { kms_key_id: "alias/none".to_owned(), dry_run: None };
        assert_eq!(modify_ebs_default_kms_key_id(&call, request).unwrap().kms_key_id, "alias/none");
        assert_eq!(made(&call, None, None), "InvalidVolume.NotFound", "the key is looked at later");
        let get = get_ebs_default_kms_key_id(&call, EbsDefaultRequest::default()).unwrap();
        assert_eq!(get.kms_key_id, "alias/none");

        disable_ebs_encryption_by_default(&call, EbsDefaultRequest::default()).unwrap();
        assert!(!get_ebs_encryption_by_default(&call, EbsDefaultRequest::default()).unwrap().ebs_encryption_by_default);
        assert_eq!(made(&call, None, None), "unencrypted");
        let request = EbsDefaultRequest { dry_run: Some(true) };
        assert_eq!(enable_ebs_encryption_by_default(&call, request).unwrap_err().code(), "DryRunOperation");
        assert!(!get_ebs_encryption_by_default(&call, EbsDefaultRequest::default()).unwrap().ebs_encryption_by_default);
    }
}
