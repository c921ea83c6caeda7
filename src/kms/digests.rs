//! What falls due for the trail: log files and the digests that the home's key signs. The key rests sealed under the root
//! key, which is why this is here and not in `trail`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::clock::Time;
use crate::gate::{self, ServiceError, Settled, Settler, chain};
use crate::store::{self, Home, StoreError, Transaction};
use crate::trail::{self, DigestError, PublicKey, SigningKey};

use super::SERVICE;
use super::root::RootKey;

const PUBLIC_KEY: &str = "trail_public_key";
const SIGNING_KEY: &str = "trail_signing_key";
const PURPOSE: &str = "trail signing key";

/// Delivers log files.
pub(super) const DELIVERY: Settler = Settler { next_due: trail::next_delivery, settle_one: deliver };

/// Makes and signs digests.
pub(super) const DIGEST: Settler = Settler { next_due: trail::next_digest, settle_one: digest };

/// Delivers the records that wait now, and makes the digests that are due.
///
/// # Errors
/// If a file cannot be written, or the state cannot. Other operations go on then, and it is tried again in a minute.
pub fn deliver_now(home: &Home) -> Result<(), ServiceError> {
    home.write(|tx| trail::ask(tx).map_err(ServiceError::from))?;
    gate::settle(home, SERVICE.settlers)?;
    match home.read(trail::put_off_why)? {
        Some(why) => Err(ServiceError::machine(why)),
        None => Ok(()),
    }
}

/// The public half of the key that signs this home's digests; made if there is none yet.
///
/// # Errors
/// If the key has to be made and the root key cannot be used, or if the state cannot be read.
pub fn public_key(home: &Home) -> Result<PublicKey, ServiceError> {
    if let Some(key) = home.read(known_public_key)? {
        return Ok(key);
    }
    RootKey::ensure(home)?;
    home.write(|tx| Ok(signing_key(home, tx)?.public()))
}

/// The public key, if this home has signed anything yet.
///
/// # Errors
/// If the state cannot be read.
pub fn known_public_key(tx: &Transaction<'_>) -> Result<Option<PublicKey>, ServiceError> {
    let pem = store::setting(tx, PUBLIC_KEY)?;
    pem.map(|pem| PublicKey::parse(&pem).map_err(ServiceError::machine)).transpose()
}

/// A file that cannot be written keeps nobody from working: it is put off. That the state cannot be written does.
fn deliver(home: &Home, tx: &Transaction<'_>, due: Time) -> Result<Settled, ServiceError> {
    // What is only tried leaves no file.
    if home.is_scratch() {
        return Ok(Settled::Later);
    }
    match home.spare_room().and_then(|()| trail::deliver(home, tx, due)) {
        Err(error @ (StoreError::Scarce | StoreError::Dir(_))) => trail::put_off(tx, &chain(&error))?,
        delivered => delivered?,
    }
    Ok(Settled::Done)
}

/// Without the root key, or before there is one, digests wait: a home may still get a passphrase for it.
fn digest(home: &Home, tx: &Transaction<'_>, due: Time) -> Result<Settled, ServiceError> {
    if home.is_scratch() {
        return Ok(Settled::Later);
    }
    let Ok(key) = signing_key(home, tx) else { return Ok(Settled::Later) };
    let made = home.spare_room().map_err(DigestError::from).and_then(|()| trail::make_digests(home, tx, due, &key));
    match made {
        Err(DigestError::Store(error @ (StoreError::Scarce | StoreError::Dir(_)))) => {
            trail::put_off(tx, &chain(&error))?;
        }
        made => made.map_err(ServiceError::machine)?,
    }
    Ok(Settled::Done)
}

fn signing_key(home: &Home, tx: &Transaction<'_>) -> Result<SigningKey, ServiceError> {
    let root = RootKey::load(home, tx)?;
    let home_id = store::setting(tx, "home_id")?.unwrap_or_default();
    if let Some(sealed) = store::setting(tx, SIGNING_KEY)? {
        let sealed = BASE64.decode(sealed).map_err(ServiceError::machine)?;
        return SigningKey::from_der(&root.open(PURPOSE, &home_id, &sealed)?).map_err(ServiceError::machine);
    }
    let key = SigningKey::generate().map_err(ServiceError::machine)?;
    let sealed = root.seal(PURPOSE, &home_id, &key.to_der().map_err(ServiceError::machine)?)?;
    store::set_setting(tx, SIGNING_KEY, &BASE64.encode(sealed))?;
    store::set_setting(tx, PUBLIC_KEY, &key.public().to_pem().map_err(ServiceError::machine)?)?;
    Ok(key)
}
