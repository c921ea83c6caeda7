//! Keys whose id, and whose material if it is to be known, somebody chose: what a home is filled with from a file.

use crate::gate::{Call, ServiceError};
use crate::secret::SecretBytes;
use crate::store::Transaction;

use super::import::material_id;
use super::keyring::{self, Key};
use super::materials::{self, BACKING_BYTES};
use super::policy;
use super::root::RootKey;
use super::states::KeyState;

/// What is chosen of a new key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// Its id: a UUID, or for a multi-Region key `mrk-` and 32 hex digits.
    pub id: Option<&'a str>,
    /// Its material, 256 bits, for a key of origin `EXTERNAL`. Nobody wraps it: it is in the caller's hands already.
    pub material: Option<&'a SecretBytes>,
}

impl Given<'_> {
    /// Gives `key`, which is not stored yet, its id.
    pub(super) fn name(&self, tx: &Transaction<'_>, key: &mut Key) -> Result<(), ServiceError> {
        let Some(id) = self.id else { return Ok(()) };
        let is_multi_region = id.starts_with(keyring::MULTI_REGION_PREFIX);
        if !keyring::is_key_id(id) || is_multi_region != key.multi_region.is_some() {
            return Err(ServiceError::refused("ValidationException", format!("Invalid keyId '{}'", short(id))));
        }
        if keyring::find(tx, id)?.is_some() {
            return Err(ServiceError::refused("AlreadyExistsException", format!("There is a key '{id}' already")));
        }
        id.clone_into(&mut key.id);
        Ok(())
    }

    /// Gives a stored key, which waits for it, its material.
    pub(super) fn fill(&self, tx: &Transaction<'_>, root: &RootKey, key: &mut Key) -> Result<(), ServiceError> {
        let Some(material) = self.material else { return Ok(()) };
        if key.state != KeyState::PendingImport || material.len() != BACKING_BYTES {
            return Err(ServiceError::refused(
                "IncorrectKeyMaterialException",
                "The key material must have 256 bits, and its key the origin EXTERNAL.",
            ));
        }
        let id = material_id(root, key, material);
        materials::put(tx, root, key, &id, material)?;
        materials::make_current(tx, key, &id, None)?;
        keyring::set_state(tx, key, KeyState::Enabled)?;
        key.material_id = Some(id);
        key.state = KeyState::Enabled;
        Ok(())
    }
}

/// Whether the key is there, in the call's account and Region and with that material.
///
/// # Errors
/// `AlreadyExistsException` if it is another's or elsewhere, `IncorrectKeyMaterialException` if its material is another.
pub fn has_given_key(call: &Call<'_>, given: Given<'_>) -> Result<bool, ServiceError> {
    let Some(id) = given.id else { return Ok(false) };
    let root = given.material.map(|_| RootKey::of(call.home)).transpose()?;
    call.home.read(|tx| {
        let Some(key) = keyring::find(tx, id)? else { return Ok(false) };
        if key.account != call.account || key.region != call.region {
            let message = format!("The key '{id}' is another account's, or in another Region.");
            return Err(ServiceError::refused("AlreadyExistsException", message));
        }
        if let (Some(root), Some(material)) = (&root, given.material) {
            let wanted = material_id(root, &key, material);
            if !materials::list(tx, &key)?.iter().any(|known| known.id == wanted) {
                let message = format!("The key '{id}' has other material.");
                return Err(ServiceError::refused("IncorrectKeyMaterialException", message));
            }
        }
        Ok(true)
    })
}

/// Whether the key's policy is `document`, as JSON. `false` for a key that is not there.
pub fn has_policy(call: &Call<'_>, id: &str, document: &serde_json::Value) -> Result<bool, ServiceError> {
    call.home.read(|tx| {
        let Some(key) = keyring::find_in(tx, id, &call.region)? else { return Ok(false) };
        let found: serde_json::Value =
            serde_json::from_str(&policy::text_of(tx, &key)?).map_err(ServiceError::machine)?;
        Ok(found == *document)
    })
}

/// The id of the key that the alias is a name of, in the call's account and Region.
pub fn alias_target(call: &Call<'_>, alias: &str) -> Result<Option<String>, ServiceError> {
    let row = call.home.read(|tx| keyring::alias_target(tx, &call.account, &call.region, alias))?;
    Ok(row.map(|row| keyring::public_id(&row).to_owned()))
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
