//! `GenerateRandom`.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::gate::{self, Call, ServiceError};
use crate::secret::SecretBytes;

use super::access::authorise_account;
use super::blob::{Blob, SecretBlob};
use super::operations::GENERATE_RANDOM;
use super::validate::{Validation, invalid};

/// `GenerateRandom`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GenerateRandomRequest {
    /// 1-1024 bytes.
    pub number_of_bytes: Option<i64>,
    /// Does not apply: there are no other key stores.
    pub custom_key_store_id: Option<String>,
    /// Does not apply: there are no enclaves.
    pub recipient: Option<RecipientInfo>,
}

/// A Nitro enclave to encrypt the answer for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RecipientInfo {
    /// How to encrypt the answer.
    pub key_encryption_algorithm: Option<String>,
    /// Who the enclave is.
    pub attestation_document: Option<Blob>,
}

/// What `GenerateRandom` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateRandomResponse {
    /// The random bytes.
    pub plaintext: SecretBlob,
}

/// Random bytes from the operating system's generator, the one that makes data keys.
pub fn generate_random(call: &Call<'_>, req: GenerateRandomRequest) -> Result<GenerateRandomResponse, ServiceError> {
    let parameters = req.number_of_bytes.map(|bytes| json!({"numberOfBytes": bytes})).unwrap_or_default();
    gate::run(call, &GENERATE_RANDOM, parameters, |step| {
        let mut validation = Validation::default();
        if let Some(bytes) = req.number_of_bytes {
            validation.number("numberOfBytes", bytes, 1..=1024);
        }
        validation.finish()?;
        let unsupported = |what: &str| Err(ServiceError::refused("UnsupportedOperationException", what));
        if req.custom_key_store_id.is_some() {
            return unsupported("Custom key stores are not supported.");
        }
        if req.recipient.is_some() {
            return unsupported("Answers for Nitro enclaves are not supported.");
        }
        let Some(bytes) = req.number_of_bytes.and_then(|bytes| usize::try_from(bytes).ok()) else {
            return Err(invalid("NumberOfBytes is required."));
        };
        authorise_account(step, "GenerateRandom")?;
        Ok(GenerateRandomResponse { plaintext: SecretBytes::random(bytes).map_err(ServiceError::machine)?.into() })
    })
}
