//! Imported key material: `GetParametersForImport`, `ImportKeyMaterial`, `DeleteImportedKeyMaterial`, and its expiry.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Time;
use crate::gate::{Call, ServiceError, Settled, Settler};
use crate::iam::Context;
use crate::secret::SecretBytes;
use crate::store::{Home, StoreError, Transaction};
use crate::trail;

use super::blob::Blob;
use super::keyring::{self, Key};
use super::materials::{self, BACKING_BYTES, Material, Standing};
use super::metadata::{DOES_NOT_EXPIRE, EXPIRES};
use super::operations::{DELETE_IMPORTED_KEY_MATERIAL, GET_PARAMETERS_FOR_IMPORT, IMPORT_KEY_MATERIAL};
use super::root::RootKey;
use super::states::KeyState;
use super::validate::{Validation, invalid};
use super::wrapping::{self, Algorithm};
use super::{event, keys};

/// Hours for which an import token is good (AWS KMS API reference, `GetParametersForImport`).
const TOKEN_HOURS: i64 = 24;
/// Days in which material may expire, at most (API reference, `ImportKeyMaterial`).
const LONGEST_VALIDITY: i64 = 365;

/// `GetParametersForImport`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetParametersForImportRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// `RSAES_OAEP_SHA_1`, `RSAES_OAEP_SHA_256`, `RSA_AES_KEY_WRAP_SHA_1` or `RSA_AES_KEY_WRAP_SHA_256`.
    pub wrapping_algorithm: String,
    /// `RSA_2048`, `RSA_3072` or `RSA_4096`.
    pub wrapping_key_spec: String,
}

/// What `GetParametersForImport` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetParametersForImportResponse {
    /// The key's ARN.
    pub key_id: String,
    /// To be given to `ImportKeyMaterial`. It holds the private key, sealed under the home's root key.
    pub import_token: Blob,
    /// A `SubjectPublicKeyInfo` in DER, to wrap the material under.
    pub public_key: Blob,
    /// Until when token and public key are good.
    pub parameters_valid_to: Time,
}

/// `ImportKeyMaterial`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ImportKeyMaterialRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// What `GetParametersForImport` answered, 1-6144 bytes.
    pub import_token: Blob,
    /// 32 bytes of material, wrapped; 1-6144 bytes.
    pub encrypted_key_material: Blob,
    /// When it expires, at most 365 days from now.
    pub valid_to: Option<Time>,
    /// `KEY_MATERIAL_EXPIRES` (if absent) or `KEY_MATERIAL_DOES_NOT_EXPIRE`.
    pub expiration_model: Option<String>,
    /// `NEW_KEY_MATERIAL` (if absent and the key has none) or `EXISTING_KEY_MATERIAL`.
    pub import_type: Option<String>,
    /// Up to 256 characters.
    pub key_material_description: Option<String>,
    /// Which of the existing materials it is.
    pub key_material_id: Option<String>,
}

/// What `ImportKeyMaterial` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImportKeyMaterialResponse {
    /// The key's ARN.
    pub key_id: String,
    /// The material's id, the same whenever the same material is imported into the same key.
    pub key_material_id: String,
}

/// `DeleteImportedKeyMaterial`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteImportedKeyMaterialRequest {
    /// A key id or key ARN.
    pub key_id: String,
    /// Which; the current one if absent.
    pub key_material_id: Option<String>,
}

/// What `DeleteImportedKeyMaterial` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteImportedKeyMaterialResponse {
    /// The key's ARN.
    pub key_id: String,
    /// The material that was deleted; absent if the key never had any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_material_id: Option<String>,
}

/// Makes a key pair under which material for a key can be wrapped on its way here.
pub fn get_parameters_for_import(
    call: &Call<'_>,
    req: GetParametersForImportRequest,
) -> Result<GetParametersForImportResponse, ServiceError> {
    let parameters = json!({
        "keyId": req.key_id, "wrappingAlgorithm": req.wrapping_algorithm, "wrappingKeySpec": req.wrapping_key_spec,
    });
    // Making a pair takes long: outside the transaction, and only if it will be asked for.
    let bits = match req.wrapping_key_spec.as_str() {
        "RSA_2048" => Some(2048),
        "RSA_3072" => Some(3072),
        "RSA_4096" => Some(4096),
        _ => None,
    };
    let algorithm = Algorithm::from_name(&req.wrapping_algorithm);
    let wanted = bits.zip(algorithm).filter(|_| keyring::is_importable(call, &req.key_id));
    let made =
        wanted.map(|(bits, algorithm)| Ok::<_, ServiceError>((algorithm, wrapping::generate(bits)?))).transpose();
    let checked = check_parameters(&req);
    let mut more = Context::default();
    more.set("kms:WrappingAlgorithm", req.wrapping_algorithm.as_str());
    more.set("kms:WrappingKeySpec", req.wrapping_key_spec.as_str());
    keys::on_key_with(call, &GET_PARAMETERS_FOR_IMPORT, &req.key_id, parameters, checked, &more, |step, key| {
        let Some((algorithm, (private, public_key))) = made? else {
            return Err(ServiceError::machine("another process changed the key in this moment: try again"));
        };
        let valid_to = step.now.after(SignedDuration::from_hours(TOKEN_HOURS));
        let token = Token { row: key.id.clone(), algorithm, valid_to };
        let import_token = Blob(token.seal(&RootKey::load(call.home, step.tx)?, &private)?);
        Ok(GetParametersForImportResponse {
            key_id: key.arn(),
            import_token,
            public_key: Blob(public_key),
            parameters_valid_to: valid_to,
        })
    })
}

fn check_parameters(req: &GetParametersForImportRequest) -> Result<(), ServiceError> {
    const OLD: &str = "RSAES_PKCS1_V1_5";
    let mut validation = Validation::default();
    validation
        .key_id("keyId", &req.key_id)
        .one_of(
            "wrappingAlgorithm",
            &req.wrapping_algorithm,
            &[
                OLD,
                "RSAES_OAEP_SHA_1",
                "RSAES_OAEP_SHA_256",
                "RSA_AES_KEY_WRAP_SHA_1",
                "RSA_AES_KEY_WRAP_SHA_256",
                "SM2PKE",
            ],
        )
        .one_of("wrappingKeySpec", &req.wrapping_key_spec, &["RSA_2048", "RSA_3072", "RSA_4096", "SM2"])
        .finish()?;
    for (what, value, gone) in [
        ("wrapping algorithm", &req.wrapping_algorithm, [OLD, "SM2PKE"]),
        ("wrapping key spec", &req.wrapping_key_spec, ["SM2", "SM2"]),
    ] {
        if gone.contains(&value.as_str()) {
            let message = format!("The {what} {value} is not supported.");
            return Err(ServiceError::refused("UnsupportedOperationException", message));
        }
    }
    Ok(())
}

/// What an import token says beside the private key that it holds.
struct Token {
    row: String,
    algorithm: Algorithm,
    valid_to: Time,
}

const TOKEN_MAGIC: &[u8; 4] = b"BSI\x01";
const TOKEN_PURPOSE: &str = "import token";

impl Token {
    /// The token's bytes: what it says in the clear, and the private key sealed and bound to it.
    fn seal(&self, root: &RootKey, private: &SecretBytes) -> Result<Vec<u8>, ServiceError> {
        let said = format!("{} {} {}", self.row, self.algorithm.name(), self.valid_to.micros());
        let length = u8::try_from(said.len()).map_err(ServiceError::machine)?;
        let sealed = root.seal(TOKEN_PURPOSE, &said, private)?;
        Ok([TOKEN_MAGIC, &[length][..], said.as_bytes(), &sealed].concat())
    }

    /// Reads what [`Token::seal`] made under the same root key; `None` for everything else.
    fn open(root: &RootKey, bytes: &[u8]) -> Option<(Self, SecretBytes)> {
        let (length, rest) = bytes.strip_prefix(TOKEN_MAGIC)?.split_first()?;
        let (said, sealed) = rest.split_at_checked(usize::from(*length))?;
        let said = std::str::from_utf8(said).ok()?;
        let private = root.open(TOKEN_PURPOSE, said, sealed).ok()?;
        let mut words = said.split(' ');
        let token = Self {
            row: words.next()?.to_owned(),
            algorithm: Algorithm::from_name(words.next()?)?,
            valid_to: Time::from_micros(words.next()?.parse().ok()?)?,
        };
        Some((token, private))
    }
}

/// Brings material into a key that was made for it: its first, one to rotate to, or one that was deleted or expired.
pub fn import_key_material(
    call: &Call<'_>,
    req: ImportKeyMaterialRequest,
) -> Result<ImportKeyMaterialResponse, ServiceError> {
    let expires = req.valid_to;
    let mut more = Context::default();
    more.set("kms:ExpirationModel", req.expiration_model.as_deref().unwrap_or("KEY_MATERIAL_EXPIRES"));
    more.set_opt("kms:ValidTo", expires.map(Time::to_seconds_string));
    let parameters = import_parameters(&req);
    keys::on_key_with(call, &IMPORT_KEY_MATERIAL, &req.key_id, parameters, check_import(&req), &more, |step, key| {
        if let Some(expires) = expires
            && (expires <= step.now || expires > step.now.after(SignedDuration::from_hours(24 * LONGEST_VALIDITY)))
        {
            return Err(invalid("The validTo date must be in the future, and at most 365 days from now"));
        }
        let root = RootKey::load(call.home, step.tx)?;
        let secret = unwrapped(step.now, &root, key, &req)?;
        let material_id = material_id(&root, key, &secret);
        let known = materials::list(step.tx, key)?;
        let standing = standing(step.tx, key, &known, &material_id, &req)?;
        if standing == Standing::PendingRotation {
            for waiting in known.iter().filter(|material| material.standing == standing && material.id != material_id) {
                materials::forget(step.tx, key, &waiting.id)?;
            }
        }
        materials::put(step.tx, &root, key, &material_id, &secret)?;
        materials::describe(step.tx, key, &material_id, expires, req.key_material_description.as_deref())?;
        if standing == Standing::Current && known.iter().all(|material| material.standing != Standing::Current) {
            materials::make_current(step.tx, key, &material_id, None)?;
        } else if !known.iter().any(|material| material.id == material_id) {
            materials::set_standing(step.tx, key, &material_id, standing)?;
        }
        if key.state == KeyState::PendingImport && materials::are_whole(step.tx, key)? {
            keyring::set_state(step.tx, key, KeyState::Enabled)?;
        }
        step.draft.set_response(json!({"keyId": key.arn(), "keyMaterialId": material_id}));
        Ok(ImportKeyMaterialResponse { key_id: key.arn(), key_material_id: material_id })
    })
}

fn import_parameters(req: &ImportKeyMaterialRequest) -> Value {
    let mut parameters = json!({"keyId": req.key_id});
    if let Some(valid_to) = req.valid_to {
        parameters["validTo"] = valid_to.to_trail_date_string().into();
    }
    for (name, value) in [
        ("expirationModel", &req.expiration_model),
        ("importType", &req.import_type),
        ("keyMaterialDescription", &req.key_material_description),
        ("keyMaterialId", &req.key_material_id),
    ] {
        if let Some(value) = value {
            parameters[name] = value.as_str().into();
        }
    }
    parameters
}

/// Checks what can be checked without the key.
fn check_import(req: &ImportKeyMaterialRequest) -> Result<(), ServiceError> {
    let mut validation = Validation::default();
    validation.key_id("keyId", &req.key_id).bytes("importToken", req.import_token.0.len(), 1..=6144).bytes(
        "encryptedKeyMaterial",
        req.encrypted_key_material.0.len(),
        1..=6144,
    );
    let model = req.expiration_model.as_deref().unwrap_or(EXPIRES);
    validation.one_of("expirationModel", model, &[EXPIRES, DOES_NOT_EXPIRE]);
    if let Some(import_type) = &req.import_type {
        validation.one_of("importType", import_type, &[NEW, EXISTING]);
    }
    if let Some(description) = &req.key_material_description {
        validation.length("keyMaterialDescription", description, 0..=256).pattern(
            "keyMaterialDescription",
            description,
            "^[a-zA-Z0-9:/_\\s.-]+$",
            |c| c.is_ascii_alphanumeric() || c.is_whitespace() || ":/_.-".contains(c),
        );
    }
    if let Some(id) = &req.key_material_id {
        validation.length("keyMaterialId", id, 64..=64).pattern(
            "keyMaterialId",
            id,
            "^[a-f0-9]+$",
            |c| matches!(c, 'a'..='f' | '0'..='9'),
        );
    }
    validation.finish()?;
    match (model, req.valid_to) {
        (EXPIRES, None) => Err(invalid("A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES")),
        (DOES_NOT_EXPIRE, Some(_)) => {
            Err(invalid("A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE"))
        }
        _ => Ok(()),
    }
}

const NEW: &str = "NEW_KEY_MATERIAL";
const EXISTING: &str = "EXISTING_KEY_MATERIAL";

/// The material of a request, after its token let it through.
fn unwrapped(
    now: Time,
    root: &RootKey,
    key: &Key,
    req: &ImportKeyMaterialRequest,
) -> Result<SecretBytes, ServiceError> {
    let refuse = |code, message: &str| Err(ServiceError::refused(code, message));
    let Some((token, private)) = Token::open(root, &req.import_token.0).filter(|(token, _)| token.row == key.id) else {
        return refuse("InvalidImportTokenException", "The import token is not one for this key.");
    };
    if token.valid_to <= now {
        return refuse("ExpiredImportTokenException", "The import token has expired.");
    }
    let Some(secret) = wrapping::unwrap(&private, token.algorithm, &req.encrypted_key_material.0) else {
        // AWS gives no message for this code.
        return refuse("InvalidCiphertextException", "");
    };
    if secret.len() != BACKING_BYTES {
        return refuse("IncorrectKeyMaterialException", "The key material must have 256 bits.");
    }
    Ok(secret)
}

/// The id of imported material: the same for the same material in related keys, and of no use for guessing it without the
/// root key.
pub(super) fn material_id(root: &RootKey, key: &Key, secret: &SecretBytes) -> String {
    root.digest("imported material", key.public_id(), secret)
}

/// What the material is for in this key, if it is one that may come.
fn standing(
    tx: &Transaction<'_>,
    key: &Key,
    known: &[Material],
    id: &str,
    req: &ImportKeyMaterialRequest,
) -> Result<Standing, ServiceError> {
    let incorrect = |message: &str| Err(ServiceError::refused("IncorrectKeyMaterialException", message));
    if req.key_material_id.as_ref().is_some_and(|named| named != id) {
        return incorrect("The key material is not the one that KeyMaterialId names.");
    }
    // A replica takes what its primary has, and nothing else.
    let primarys = if key.is_replica() { materials::of_primary(tx, key)? } else { Vec::new() };
    let existing = known.iter().chain(&primarys).find(|material| material.id == id);
    let default = if known.is_empty() && !key.is_replica() { NEW } else { EXISTING };
    match (req.import_type.as_deref().unwrap_or(default), existing) {
        (NEW, _) if key.is_replica() => incorrect(
            "New key material is imported into the primary key first, and into a replica as existing material.",
        ),
        (NEW, Some(_)) => incorrect("The key material is already associated with the KMS key."),
        (NEW, None) if known.iter().all(|material| material.standing == Standing::PendingRotation) => {
            Ok(Standing::Current)
        }
        (NEW, None) => Ok(Standing::PendingRotation),
        (_, Some(existing)) => Ok(existing.standing),
        (_, None) => incorrect("The key material is not one that was imported into the KMS key before."),
    }
}

/// Takes imported material away at once. A key that loses one with which it encrypted is pending import until it is back.
pub fn delete_imported_key_material(
    call: &Call<'_>,
    req: DeleteImportedKeyMaterialRequest,
) -> Result<DeleteImportedKeyMaterialResponse, ServiceError> {
    let mut parameters = json!({"keyId": req.key_id});
    if let Some(id) = &req.key_material_id {
        parameters["keyMaterialId"] = id.as_str().into();
    }
    keys::on_key(call, &DELETE_IMPORTED_KEY_MATERIAL, &req.key_id, parameters, Ok(()), |step, key| {
        let wanted = req.key_material_id.as_ref().or(key.material_id.as_ref());
        let known = materials::list(step.tx, key)?;
        let material = known.iter().find(|material| Some(&material.id) == wanted);
        match material {
            Some(material) => lose(step.tx, key, material)?,
            None if req.key_material_id.is_some() => {
                let message = format!("{} has no such key material.", key.arn());
                return Err(ServiceError::refused("NotFoundException", message));
            }
            None => {}
        }
        let key_material_id = material.map(|material| material.id.clone());
        let mut response = json!({"keyId": key.arn()});
        if let Some(id) = &key_material_id {
            response["keyMaterialId"] = id.as_str().into();
        }
        step.draft.set_response(response);
        Ok(DeleteImportedKeyMaterialResponse { key_id: key.arn(), key_material_id })
    })
}

/// Destroys a material. One that only waits for a rotation is nobody's loss.
fn lose(tx: &Transaction<'_>, key: &Key, material: &Material) -> Result<(), StoreError> {
    if material.standing == Standing::PendingRotation {
        return materials::forget(tx, key, &material.id);
    }
    materials::destroy(tx, key, Some(&material.id))?;
    if matches!(key.state, KeyState::Enabled | KeyState::Disabled) {
        keyring::set_state(tx, key, KeyState::PendingImport)?;
    }
    Ok(())
}

/// Destroys imported material when it expires.
pub(super) const EXPIRY: Settler = Settler { next_due, settle_one };

fn next_due(tx: &Transaction<'_>) -> Result<Option<Time>, StoreError> {
    Ok(materials::next_expiry(tx)?.map(|(expires, ..)| expires))
}

fn settle_one(_: &Home, tx: &Transaction<'_>, due: Time) -> Result<Settled, ServiceError> {
    if let Some((_, row, id)) = materials::next_expiry(tx)?
        && let Some(key) = keyring::find(tx, &row)?
        && let Some(material) = materials::list(tx, &key)?.iter().find(|material| material.id == id)
    {
        lose(tx, &key, material)?;
        let details = json!({"keyId": key.public_id(), "keyMaterialId": id});
        // AWS KMS developer guide, "DeleteExpiredKeyMaterial" in the CloudTrail examples.
        trail::append(tx, &event::by_kms(&key, "DeleteExpiredKeyMaterial", due, Some(details), Value::Null))?;
    }
    Ok(Settled::Done)
}
