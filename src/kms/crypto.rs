//! Encrypt, Decrypt, `ReEncrypt`, `GenerateDataKey`, `GenerateDataKeyWithoutPlaintext`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::gate::{self, Call, Operation, ServiceError, Step};
use crate::iam::Context;
use crate::secret::SecretBytes;

use super::access::{Asked, Subject, authorise_with, denied_unknown, named_key_with};
use super::blob::{Blob, MAX_PLAINTEXT_BYTES, SecretBlob};
use super::context::EncryptionContext;
use super::envelope::{self, BlobHeader};
use super::grant;
use super::keyring::{self, Key};
use super::operations::{DECRYPT, ENCRYPT, GENERATE_DATA_KEY, GENERATE_DATA_KEY_WITHOUT_PLAINTEXT, RE_ENCRYPT};
use super::validate::{Validation, invalid};
use super::{dry_run, keys, materials, states};

const ALGORITHM: &str = "SYMMETRIC_DEFAULT";
const ALGORITHMS: [&str; 4] = [ALGORITHM, "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"];

/// `Encrypt`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EncryptRequest {
    /// A key id, key ARN, alias or alias ARN.
    pub key_id: String,
    /// 1-4096 bytes.
    pub plaintext: SecretBlob,
    /// Bound to the ciphertext; not secret.
    #[serde(default)]
    pub encryption_context: EncryptionContext,
    /// Tokens of grants that may not be known everywhere yet.
    #[serde(default)]
    pub grant_tokens: Vec<String>,
    /// `SYMMETRIC_DEFAULT`.
    pub encryption_algorithm: Option<String>,
    /// Only say whether it would succeed.
    pub dry_run: Option<bool>,
}

/// What `Encrypt` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct EncryptResponse {
    /// The ciphertext.
    pub ciphertext_blob: Blob,
    /// The key's ARN.
    pub key_id: String,
    /// `SYMMETRIC_DEFAULT`.
    pub encryption_algorithm: &'static str,
}

/// `Decrypt`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DecryptRequest {
    /// 1-6144 bytes.
    pub ciphertext_blob: Blob,
    /// The very context that it was encrypted under.
    #[serde(default)]
    pub encryption_context: EncryptionContext,
    /// Tokens of grants that may not be known everywhere yet.
    #[serde(default)]
    pub grant_tokens: Vec<String>,
    /// The key that it must be under; the blob says which it is.
    pub key_id: Option<String>,
    /// `SYMMETRIC_DEFAULT`.
    pub encryption_algorithm: Option<String>,
    /// Only say whether it would succeed.
    pub dry_run: Option<bool>,
}

/// What `Decrypt` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DecryptResponse {
    /// The key's ARN.
    pub key_id: String,
    /// The plaintext.
    pub plaintext: SecretBlob,
    /// `SYMMETRIC_DEFAULT`.
    pub encryption_algorithm: &'static str,
    /// The material that it was under.
    pub key_material_id: String,
}

/// `ReEncrypt`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ReEncryptRequest {
    /// 1-6144 bytes.
    pub ciphertext_blob: Blob,
    /// The context that it is under.
    #[serde(default)]
    pub source_encryption_context: EncryptionContext,
    /// The key that it must be under.
    pub source_key_id: Option<String>,
    /// The key that it shall be under.
    pub destination_key_id: String,
    /// The context that it shall be under.
    #[serde(default)]
    pub destination_encryption_context: EncryptionContext,
    /// `SYMMETRIC_DEFAULT`.
    pub source_encryption_algorithm: Option<String>,
    /// `SYMMETRIC_DEFAULT`.
    pub destination_encryption_algorithm: Option<String>,
    /// Tokens of grants that may not be known everywhere yet.
    #[serde(default)]
    pub grant_tokens: Vec<String>,
    /// Only say whether it would succeed.
    pub dry_run: Option<bool>,
}

/// What `ReEncrypt` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReEncryptResponse {
    /// The new ciphertext.
    pub ciphertext_blob: Blob,
    /// ARN of the key that it was under.
    pub source_key_id: String,
    /// ARN of the key that it is under.
    pub key_id: String,
    /// `SYMMETRIC_DEFAULT`.
    pub source_encryption_algorithm: &'static str,
    /// `SYMMETRIC_DEFAULT`.
    pub destination_encryption_algorithm: &'static str,
    /// The material that it was under.
    pub source_key_material_id: String,
    /// The material that it is under.
    pub destination_key_material_id: String,
}

/// `GenerateDataKey`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GenerateDataKeyRequest {
    /// A key id, key ARN, alias or alias ARN.
    pub key_id: String,
    /// Bound to the wrapped key; not secret.
    #[serde(default)]
    pub encryption_context: EncryptionContext,
    /// 1-1024 bytes; either this or `KeySpec`.
    pub number_of_bytes: Option<i64>,
    /// `AES_128` or `AES_256`.
    pub key_spec: Option<String>,
    /// Tokens of grants that may not be known everywhere yet.
    #[serde(default)]
    pub grant_tokens: Vec<String>,
    /// Only say whether it would succeed.
    pub dry_run: Option<bool>,
}

/// `GenerateDataKeyWithoutPlaintext`: the same request.
pub type GenerateDataKeyWithoutPlaintextRequest = GenerateDataKeyRequest;

/// What `GenerateDataKey` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateDataKeyResponse {
    /// The wrapped key.
    pub ciphertext_blob: Blob,
    /// The key.
    pub plaintext: SecretBlob,
    /// The CMK's ARN.
    pub key_id: String,
    /// The CMK's material.
    pub key_material_id: String,
}

/// What `GenerateDataKeyWithoutPlaintext` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateDataKeyWithoutPlaintextResponse {
    /// The wrapped key.
    pub ciphertext_blob: Blob,
    /// The CMK's ARN.
    pub key_id: String,
    /// The CMK's material.
    pub key_material_id: String,
}

/// Encrypts up to 4096 bytes.
pub fn encrypt(call: &Call<'_>, req: EncryptRequest) -> Result<EncryptResponse, ServiceError> {
    let algorithm = req.encryption_algorithm.as_deref().unwrap_or(ALGORITHM);
    let mut parameters = with_context("encryptionContext", &req.encryption_context);
    parameters["keyId"] = req.key_id.as_str().into();
    parameters["encryptionAlgorithm"] = algorithm.into();
    keys::add_dry_run(&mut parameters, req.dry_run);
    gate::run(call, &ENCRYPT, parameters, |step| {
        let mut validation = Validation::default();
        validation
            .key_id("keyId", &req.key_id)
            .bytes("plaintext", req.plaintext.given_bytes(), 1..=MAX_PLAINTEXT_BYTES)
            .context("encryptionContext", &req.encryption_context)
            .one_of("encryptionAlgorithm", algorithm, &ALGORITHMS)
            .grant_tokens(&req.grant_tokens)
            .finish()?;
        grant::present(step, &req.grant_tokens)?;
        let key = usable_key(step, &ENCRYPT, "Encrypt", &req.key_id, &req.encryption_context, &Context::default())?;
        check_algorithm(&key, algorithm)?;
        dry_run(req.dry_run)?;
        let blob = seal(step, &key, &req.encryption_context, &req.plaintext.0)?;
        note_material(step, key.current_material()?);
        Ok(EncryptResponse { ciphertext_blob: Blob(blob), key_id: key.arn(), encryption_algorithm: ALGORITHM })
    })
}

/// Decrypts what Encrypt, `ReEncrypt` or `GenerateDataKey` made, under the same context.
pub fn decrypt(call: &Call<'_>, req: DecryptRequest) -> Result<DecryptResponse, ServiceError> {
    let algorithm = req.encryption_algorithm.as_deref().unwrap_or(ALGORITHM);
    let mut parameters = with_context("encryptionContext", &req.encryption_context);
    if let Some(key_id) = &req.key_id {
        parameters["keyId"] = key_id.as_str().into();
    }
    parameters["encryptionAlgorithm"] = algorithm.into();
    keys::add_dry_run(&mut parameters, req.dry_run);
    gate::run(call, &DECRYPT, parameters, |step| {
        let mut validation = Validation::default();
        validation
            .bytes("ciphertextBlob", req.ciphertext_blob.0.len(), 1..=6144)
            .context("encryptionContext", &req.encryption_context)
            .one_of("encryptionAlgorithm", algorithm, &ALGORITHMS)
            .grant_tokens(&req.grant_tokens);
        if let Some(key_id) = &req.key_id {
            validation.key_id("keyId", key_id);
        }
        validation.finish()?;
        grant::present(step, &req.grant_tokens)?;
        let source = Source {
            operation: &DECRYPT,
            action: "Decrypt",
            blob: &req.ciphertext_blob.0,
            key_id: req.key_id.as_deref(),
            context: &req.encryption_context,
            algorithm,
        };
        let (key, header) = source.authorised(step, &Context::default())?;
        let plaintext = source.open(step, &key, &header)?;
        dry_run(req.dry_run)?;
        note_material(step, &header.material_id);
        Ok(DecryptResponse {
            key_id: key.arn(),
            plaintext: plaintext.into(),
            encryption_algorithm: ALGORITHM,
            key_material_id: header.material_id,
        })
    })
}

/// Moves a ciphertext under another key or context; the plaintext never leaves.
pub fn re_encrypt(call: &Call<'_>, req: ReEncryptRequest) -> Result<ReEncryptResponse, ServiceError> {
    let source_algorithm = req.source_encryption_algorithm.as_deref().unwrap_or(ALGORITHM);
    let destination_algorithm = req.destination_encryption_algorithm.as_deref().unwrap_or(ALGORITHM);
    gate::run(call, &RE_ENCRYPT, re_encrypt_parameters(&req), |step| {
        let mut validation = Validation::default();
        validation
            .bytes("ciphertextBlob", req.ciphertext_blob.0.len(), 1..=6144)
            .context("sourceEncryptionContext", &req.source_encryption_context)
            .key_id("destinationKeyId", &req.destination_key_id)
            .context("destinationEncryptionContext", &req.destination_encryption_context)
            .one_of("sourceEncryptionAlgorithm", source_algorithm, &ALGORITHMS)
            .one_of("destinationEncryptionAlgorithm", destination_algorithm, &ALGORITHMS)
            .grant_tokens(&req.grant_tokens);
        if let Some(key_id) = &req.source_key_id {
            validation.key_id("sourceKeyId", key_id);
        }
        validation.finish()?;
        grant::present(step, &req.grant_tokens)?;
        let source = Source {
            operation: &RE_ENCRYPT,
            action: "ReEncryptFrom",
            blob: &req.ciphertext_blob.0,
            key_id: req.source_key_id.as_deref(),
            context: &req.source_encryption_context,
            algorithm: source_algorithm,
        };
        let more = re_encrypt_keys(step, &req);
        let (source_key, header) = source.authorised(step, &more)?;
        let context = &req.destination_encryption_context;
        let key = usable_key(step, &RE_ENCRYPT, "ReEncryptTo", &req.destination_key_id, context, &more)?;
        check_algorithm(&key, destination_algorithm)?;
        let plaintext = source.open(step, &source_key, &header)?;
        dry_run(req.dry_run)?;
        let blob = seal(step, &key, context, &plaintext)?;
        step.draft.add("sourceKeyMaterialId", header.material_id.as_str());
        step.draft.add("destinationKeyMaterialId", key.current_material()?);
        Ok(ReEncryptResponse {
            ciphertext_blob: Blob(blob),
            source_key_id: source_key.arn(),
            key_id: key.arn(),
            source_encryption_algorithm: ALGORITHM,
            destination_encryption_algorithm: ALGORITHM,
            source_key_material_id: header.material_id,
            destination_key_material_id: key.current_material()?.to_owned(),
        })
    })
}

/// The condition key that both halves of a `ReEncrypt` have besides their own.
fn re_encrypt_keys(step: &Step<'_>, req: &ReEncryptRequest) -> Context {
    let mut keys = Context::default();
    let source = envelope::parse(&req.ciphertext_blob.0).ok();
    let destination = keyring::resolve(step.tx, step.call, &req.destination_key_id).ok();
    match (source, destination) {
        (Some(source), Some(destination)) => {
            keys.set("kms:ReEncryptOnSameKey", (source.key_id == destination.public_id()).to_string())
        }
        _ => keys.set_unknown("kms:ReEncryptOnSameKey", "one of the two keys is not known"),
    };
    keys
}

fn re_encrypt_parameters(req: &ReEncryptRequest) -> Value {
    let mut parameters = with_context("sourceEncryptionContext", &req.source_encryption_context);
    if let Some(key_id) = &req.source_key_id {
        parameters["sourceKeyId"] = key_id.as_str().into();
    }
    parameters["sourceEncryptionAlgorithm"] = req.source_encryption_algorithm.as_deref().unwrap_or(ALGORITHM).into();
    if !req.destination_encryption_context.is_empty() {
        parameters["destinationEncryptionContext"] = json!(req.destination_encryption_context);
    }
    parameters["destinationKeyId"] = req.destination_key_id.as_str().into();
    parameters["destinationEncryptionAlgorithm"] =
        req.destination_encryption_algorithm.as_deref().unwrap_or(ALGORITHM).into();
    keys::add_dry_run(&mut parameters, req.dry_run);
    parameters
}

/// Makes a data key and gives it in the clear and wrapped.
pub fn generate_data_key(
    call: &Call<'_>,
    req: GenerateDataKeyRequest,
) -> Result<GenerateDataKeyResponse, ServiceError> {
    generate(call, &GENERATE_DATA_KEY, req, |wrapped, plaintext| {
        Ok(GenerateDataKeyResponse {
            ciphertext_blob: wrapped.ciphertext_blob,
            plaintext: plaintext.into(),
            key_id: wrapped.key_id,
            key_material_id: wrapped.key_material_id,
        })
    })
}

/// Makes a data key and gives it wrapped only.
pub fn generate_data_key_without_plaintext(
    call: &Call<'_>,
    req: GenerateDataKeyWithoutPlaintextRequest,
) -> Result<GenerateDataKeyWithoutPlaintextResponse, ServiceError> {
    generate(call, &GENERATE_DATA_KEY_WITHOUT_PLAINTEXT, req, |wrapped, _| Ok(wrapped))
}

/// As [`generate_data_key_without_plaintext`], and runs `look` over the key before it is wiped. The trail shows that one
/// call and nothing else. `look` runs inside the operation's transaction and must not use the home.
pub fn generate_data_key_without_plaintext_with<T>(
    call: &Call<'_>,
    req: GenerateDataKeyWithoutPlaintextRequest,
    look: impl FnOnce(&SecretBytes) -> T,
) -> Result<(GenerateDataKeyWithoutPlaintextResponse, T), ServiceError> {
    generate(call, &GENERATE_DATA_KEY_WITHOUT_PLAINTEXT, req, |wrapped, plaintext| {
        let seen = look(&plaintext);
        Ok((wrapped, seen))
    })
}

fn generate<T>(
    call: &Call<'_>,
    operation: &'static Operation,
    req: GenerateDataKeyRequest,
    answer: impl FnOnce(GenerateDataKeyWithoutPlaintextResponse, SecretBytes) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    let mut parameters = with_context("encryptionContext", &req.encryption_context);
    if let Some(spec) = &req.key_spec {
        parameters["keySpec"] = spec.as_str().into();
    }
    if let Some(bytes) = req.number_of_bytes {
        parameters["numberOfBytes"] = bytes.into();
    }
    parameters["keyId"] = req.key_id.as_str().into();
    keys::add_dry_run(&mut parameters, req.dry_run);
    gate::run(call, operation, parameters, |step| {
        let length = data_key_length(&req)?;
        grant::present(step, &req.grant_tokens)?;
        let key =
            usable_key(step, operation, operation.name, &req.key_id, &req.encryption_context, &Context::default())?;
        dry_run(req.dry_run)?;
        let plaintext = SecretBytes::random(length).map_err(ServiceError::machine)?;
        let blob = seal(step, &key, &req.encryption_context, &plaintext)?;
        note_material(step, key.current_material()?);
        let wrapped = GenerateDataKeyWithoutPlaintextResponse {
            ciphertext_blob: Blob(blob),
            key_id: key.arn(),
            key_material_id: key.current_material()?.to_owned(),
        };
        answer(wrapped, plaintext)
    })
}

fn data_key_length(req: &GenerateDataKeyRequest) -> Result<usize, ServiceError> {
    let mut validation = Validation::default();
    validation
        .key_id("keyId", &req.key_id)
        .context("encryptionContext", &req.encryption_context)
        .grant_tokens(&req.grant_tokens);
    if let Some(spec) = &req.key_spec {
        validation.one_of("keySpec", spec, &["AES_256", "AES_128"]);
    }
    if let Some(bytes) = req.number_of_bytes {
        validation.number("numberOfBytes", bytes, 1..=1024);
    }
    validation.finish()?;
    match (req.key_spec.as_deref(), req.number_of_bytes) {
        (Some("AES_128"), None) => Ok(16),
        (Some(_), None) => Ok(32),
        (None, Some(bytes)) => usize::try_from(bytes).map_err(ServiceError::machine),
        _ => Err(invalid("Please specify either number of bytes or key spec.")),
    }
}

/// The key that `named` names, after policy and state let `action` through; it goes into the record.
fn usable_key(
    step: &mut Step<'_>,
    operation: &Operation,
    action: &str,
    named: &str,
    context: &EncryptionContext,
    more: &Context,
) -> Result<Key, ServiceError> {
    let (key, _) = named_key_with(step, named, action, Some(context), more)?;
    states::check(operation.name, &key)?;
    Ok(key)
}

/// The ciphertext of a Decrypt or `ReEncrypt`, and what is asked of it.
struct Source<'a> {
    operation: &'static Operation,
    action: &'static str,
    blob: &'a [u8],
    key_id: Option<&'a str>,
    context: &'a EncryptionContext,
    algorithm: &'a str,
}

impl Source<'_> {
    /// The key that the blob is under, after blob, key id, policy and state, in this order, let the call through.
    fn authorised(&self, step: &mut Step<'_>, more: &Context) -> Result<(Key, BlobHeader), ServiceError> {
        let header = envelope::parse(self.blob).map_err(|_| damaged())?;
        let named = match self.key_id {
            Some(key_id) => {
                let key = keyring::resolve(step.tx, step.call, key_id)?;
                key.note(step.draft);
                Some(key)
            }
            None => None,
        };
        let key = keyring::find_in(step.tx, &header.key_id, &step.call.region)?;
        let (key, subject) = match (key, named) {
            (Some(key), None) => (key, Subject::Ciphertext),
            (Some(key), Some(named)) if key.id == named.id => (key, Subject::Key),
            (_, Some(_)) => {
                return Err(ServiceError::refused(
                    "IncorrectKeyException",
                    "The key ID in the request does not identify a CMK that can perform this operation.",
                ));
            }
            (None, None) => return Err(denied_unknown(step, self.action, Subject::Ciphertext, "")),
        };
        let asked = Asked { operation: self.action, context: Some(self.context), named: self.key_id, subject, more };
        authorise_with(step, &key, &asked)?;
        key.note(step.draft);
        states::check(self.operation.name, &key)?;
        check_algorithm(&key, self.algorithm)?;
        Ok((key, header))
    }

    fn open(&self, step: &Step<'_>, key: &Key, header: &BlobHeader) -> Result<SecretBytes, ServiceError> {
        let backing = materials::opened(step.call.home, step.tx, key, &header.material_id)?.ok_or_else(damaged)?;
        envelope::decrypt(&backing, self.context, self.blob).map_err(|_| damaged())
    }
}

/// AWS gives no message: it does not say whether the ciphertext or the context was wrong.
fn damaged() -> ServiceError {
    ServiceError::refused("InvalidCiphertextException", "")
}

fn seal(
    step: &Step<'_>,
    key: &Key,
    context: &EncryptionContext,
    plaintext: &SecretBytes,
) -> Result<Vec<u8>, ServiceError> {
    let header = BlobHeader { key_id: key.public_id().to_owned(), material_id: key.current_material()?.to_owned() };
    let backing = materials::opened(step.call.home, step.tx, key, &header.material_id)?
        .ok_or_else(|| ServiceError::machine(format!("the home's state lacks the material of {}", key.arn())))?;
    envelope::encrypt(&backing, &header, context, plaintext.expose()).map_err(ServiceError::machine)
}

/// Other algorithms belong to other kinds of keys.
fn check_algorithm(key: &Key, algorithm: &str) -> Result<(), ServiceError> {
    if algorithm == ALGORITHM {
        return Ok(());
    }
    let message = format!("{} key spec is {ALGORITHM} which is not valid for {algorithm}.", key.arn());
    Err(ServiceError::refused("InvalidKeyUsageException", message))
}

fn note_material(step: &mut Step<'_>, material_id: &str) {
    step.draft.add("keyMaterialId", material_id);
}

/// `requestParameters` that begin with a context, which is left out when empty.
fn with_context(name: &str, context: &EncryptionContext) -> Value {
    if context.is_empty() { json!({}) } else { json!({name: context}) }
}
