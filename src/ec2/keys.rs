//! What EC2 asks of KMS, on whose behalf and under which name: every KMS call of this module stands here.
//!
//! | when | call | identity | through |
//! | --- | --- | --- | --- |
//! | `CreateVolume` | `GenerateDataKeyWithoutPlaintext` (64 bytes) | the user | `ec2-frontend-api.amazonaws.com` |
//! | `AttachVolume` | `CreateGrant` (Decrypt, subset of the context) | the user | `ec2-frontend-api.amazonaws.com` |
//! | `AttachVolume` | `Decrypt` through that grant, same request id | `ec2-infrastructure/<instance>` | `AWS Internal` |
//! | `DetachVolume` | `RetireGrant` | `ec2.<region>.amazonaws.com` | `AWS Internal` |
//! | `volume read`, `export` … of a detached volume | `Decrypt` (ours) | the user | `ec2-frontend-api.amazonaws.com` |
//!
//! Shapes: as recorded from AWS; that creation names the same front end as attachment, and when a grant is retired, is
//! *assumed*.

use crate::gate::{Basis, Call, ServiceError, Trace};
use crate::iam::Principal;
use crate::ids::{InstanceId, Region};
use crate::kms::{self, Blob, EncryptionContext, GrantConstraints, ManagedAlias};
use crate::luks2::{KeyDigest, WrappedKey};
use crate::secret::SecretBytes;
use crate::store::Home;
use crate::twin::{self, Protection};

use super::lineage::{self, Lineage};
use super::table::VolumeRow;

/// The key of a volume for which no other was named.
pub(super) const DEFAULT_KEY: &str = ManagedAlias::Ebs.name();

/// EC2's part that users talk to, as records name it.
const FRONT_END: &str = "ec2-frontend-api.amazonaws.com";

/// AWS's own machines, as records name them.
const INTERNAL: &str = "AWS Internal";

/// A data key for XTS with AES-256: two keys of 32 bytes.
const DATA_KEY_BYTES: i64 = 64;

const DOCUMENTED: Basis =
    Basis::Documented("AWS KMS developer guide, How Amazon Elastic Block Store (Amazon EBS) uses AWS KMS");
const RETIRED: Basis = Basis::Assumed("when EBS retires the grant of an attachment is not documented");

/// The encryption context that binds a volume's data key to the volume, and to its owner if it has one.
pub(super) fn context(row: &VolumeRow) -> EncryptionContext {
    let volume = ("aws:ebs:id", row.id.as_str());
    row.db.as_ref().map(|db| ("aws:rds:db-id", db.as_str())).into_iter().chain([volume]).collect()
}

fn service_name(region: &Region) -> String {
    format!("ec2.{region}.amazonaws.com")
}

/// The user's call as EC2 passes it on.
fn through_front_end<'h>(call: &Call<'h>) -> Call<'h> {
    Call {
        basis: Some(DOCUMENTED),
        source_ip: FRONT_END.to_owned(),
        user_agent: FRONT_END.to_owned(),
        ..call.through(&service_name(&call.region))
    }
}

/// A call that AWS's machines make under a principal of their own.
fn internal<'h>(call: &Call<'h>, principal: Principal, request_id: &str, basis: Basis) -> Call<'h> {
    Call {
        basis: Some(basis),
        principal,
        credential: None,
        request_id: request_id.to_owned(),
        source_ip: INTERNAL.to_owned(),
        user_agent: INTERNAL.to_owned(),
        ..call.through(&service_name(&call.region))
    }
}

/// What is left of a data key once it is made.
pub(super) struct NewDataKey {
    /// The key wrapped under the volume's context.
    pub(super) wrapped: WrappedKey,
    /// Its check value.
    pub(super) digest: KeyDigest,
    /// The lineage that begins with it.
    pub(super) lineage: Lineage,
}

/// A new data key under `key_id`. The key itself is gone when this returns.
pub(super) fn new_data_key(call: &Call<'_>, row: &VolumeRow, key_id: &str) -> Result<NewDataKey, ServiceError> {
    if key_id == DEFAULT_KEY {
        kms::managed_key(call, ManagedAlias::Ebs)?;
    }
    let context = context(row);
    let request = kms::GenerateDataKeyWithoutPlaintextRequest {
        key_id: key_id.to_owned(),
        number_of_bytes: Some(DATA_KEY_BYTES),
        encryption_context: context.clone(),
        ..Default::default()
    };
    let (made, (digest, manifest_key)) =
        kms::generate_data_key_without_plaintext_with(&through_front_end(call), request, |key| {
            (KeyDigest::new(key), lineage::manifest_key(key))
        })?;
    let wrapped = WrappedKey { blob: made.ciphertext_blob.0, key_arn: made.key_id, encryption_context: context.0 };
    let lineage = Lineage::begin(call.home, &manifest_key)?;
    Ok(NewDataKey { wrapped, digest: digest.map_err(ServiceError::machine)?, lineage })
}

/// A grant by which the instance's host opens one volume.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) id: String,
    token: String,
    request_id: String,
}

/// Grants the instance's host the use of the volume's key. A name makes it the same grant however often it is asked for.
pub(super) fn grant(
    call: &Call<'_>,
    row: &VolumeRow,
    key_arn: &str,
    instance: &InstanceId,
    name: &str,
) -> Result<Grant, ServiceError> {
    let call = through_front_end(call);
    let request = kms::CreateGrantRequest {
        key_id: key_arn.to_owned(),
        grantee_principal: host(&call, instance).arn(),
        retiring_principal: Some(service_name(&call.region)),
        operations: vec!["Decrypt".to_owned()],
        constraints: Some(GrantConstraints {
            encryption_context_subset: Some(context(row)),
            ..GrantConstraints::default()
        }),
        name: Some(name.to_owned()),
        ..Default::default()
    };
    let made = kms::create_grant(&call, request)?;
    Ok(Grant { id: made.grant_id, token: made.grant_token, request_id: call.request_id })
}

fn host(call: &Call<'_>, instance: &InstanceId) -> Principal {
    Principal::Ec2Infrastructure { account: call.account.clone(), instance: instance.clone() }
}

/// The volume's data key for the instance's host, by its grant.
pub(super) fn unwrap_by_grant(
    call: &Call<'_>,
    row: &VolumeRow,
    wrapped: &WrappedKey,
    instance: &InstanceId,
    grant: &Grant,
) -> Result<SecretBytes, ServiceError> {
    let host = internal(call, host(call, instance), &grant.request_id, DOCUMENTED);
    decrypt(&host, row, wrapped, vec![grant.token.clone()])
}

/// The volume's data key for a user who reads or writes it without attaching it.
pub(super) fn unwrap_for_user(
    call: &Call<'_>,
    row: &VolumeRow,
    wrapped: &WrappedKey,
) -> Result<SecretBytes, ServiceError> {
    decrypt(&through_front_end(call), row, wrapped, Vec::new())
}

/// The context is the volume's own, whatever the header says: a wrapped key from elsewhere does not open.
fn decrypt(
    call: &Call<'_>,
    row: &VolumeRow,
    wrapped: &WrappedKey,
    grant_tokens: Vec<String>,
) -> Result<SecretBytes, ServiceError> {
    let encryption_context = if twin::is_off(Protection::OwnContext) {
        EncryptionContext(wrapped.encryption_context.clone())
    } else {
        context(row)
    };
    let request = kms::DecryptRequest {
        ciphertext_blob: Blob(wrapped.blob.clone()),
        encryption_context,
        grant_tokens,
        ..Default::default()
    };
    Ok(kms::decrypt(call, request)?.plaintext.0)
}

/// Retires the grant of an attachment that ended. A grant that is gone already, or whose key is, is no error.
///
/// EC2 does this on its own, not for a user: it needs no more than the volume's row, so that a repair can do it as well.
pub(super) fn retire(home: &Home, row: &VolumeRow, grant_id: &str, trace: Option<&Trace>) -> Result<(), ServiceError> {
    let Some(encryption) = &row.encryption else { return Ok(()) };
    let service = Principal::Service { account: row.account.clone(), name: service_name(&row.region) };
    let call = Call { trace, ..Call::direct(home, service.clone(), row.region.clone()) };
    let request = kms::RetireGrantRequest {
        key_id: Some(encryption.key_arn.clone()),
        grant_id: Some(grant_id.to_owned()),
        ..Default::default()
    };
    match kms::retire_grant(&internal(&call, service, &call.request_id, RETIRED), request) {
        Err(ServiceError::Refused(refusal)) if refusal.code == "NotFoundException" => Ok(()),
        outcome => outcome.map(drop),
    }
}
