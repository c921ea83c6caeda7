//! The root key, under which every backing key rests sealed: the file `root.key` in the home, or made of a passphrase.

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use nix::fcntl::OFlag;
use zeroize::Zeroize as _;

use crate::dir::{self, DirError};
use crate::gate::ServiceError;
use crate::secret::{SecretBytes, wipe_stack};
use crate::store::{self, Home, Transaction};
use crate::twin::{self, Protection};

use super::envelope;

const FILE: &str = "root.key";
const KEY_BYTES: usize = 32;
const FINGERPRINT: &str = "root_key_fingerprint";
const PASSPHRASE: &str = "root_key_argon2id";

/// Why the root key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootKeyError {
    /// The file is gone, and keys are sealed under it.
    #[error(
        "{path} is missing, and every key of this home is sealed under it: put the file back (from a backup); nothing else opens them"
    )]
    Missing {
        /// Where it should be.
        path: String,
    },
    /// The file holds another key than the one this home was sealed under.
    #[error(
        "{path} is not this home's root key (its fingerprint is {found}, this home's {expected}): put the right file back"
    )]
    Wrong {
        /// Where it is.
        path: String,
        /// The fingerprint of what is there.
        found: String,
        /// The fingerprint of what should be there.
        expected: String,
    },
    /// The file is not 32 bytes long.
    #[error("{path} has not the 32 bytes of a root key: put the right file back")]
    Damaged {
        /// Where it is.
        path: String,
    },
    /// Others can read the file.
    #[error("{path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")]
    Lax {
        /// Where it is.
        path: String,
        /// Its mode bits.
        mode: u32,
    },
    /// The home's root key is made of a passphrase, and none was given.
    #[error(
        "this home's root key is made of a passphrase: give its file with --passphrase-file FILE or BLOCKSEAL_PASSPHRASE_FILE"
    )]
    PassphraseNeeded,
    /// The passphrase is not the one that the home was made with.
    #[error("the passphrase is not this home's: --passphrase-file or BLOCKSEAL_PASSPHRASE_FILE names another's file")]
    WrongPassphrase,
    /// A passphrase for a home whose root key is in a file.
    #[error(
        "this home's root key is the file {path}: a passphrase does not apply, leave --passphrase-file and BLOCKSEAL_PASSPHRASE_FILE out"
    )]
    NoPassphrase {
        /// Where the file is.
        path: String,
    },
    /// A passphrase of no characters.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The parameters of the derivation, as the store has them, are damaged or out of bounds.
    #[error("the home's state has no usable parameters for its passphrase: {found}")]
    Parameters {
        /// What is there.
        found: String,
    },
    /// A sealed key in the store does not open under the right root key.
    #[error("the sealed {what} in the home's state is damaged")]
    Sealed {
        /// What was sealed.
        what: String,
    },
}

impl From<RootKeyError> for ServiceError {
    fn from(error: RootKeyError) -> Self {
        Self::machine(error)
    }
}

/// The root key in memory, for as long as one operation runs.
#[derive(Debug)]
pub struct RootKey(SecretBytes);

impl RootKey {
    /// Makes the root key if the home has none yet, and makes its fingerprint durable before anything is sealed.
    ///
    /// Runs in a transaction of its own. A crash between the file and the fingerprint leaves a file under which nothing
    /// was sealed; it is used if it is whole and replaced if it is not.
    pub fn ensure(home: &Home) -> Result<(), ServiceError> {
        if home.read(|tx| store::setting(tx, FINGERPRINT).map_err(ServiceError::from))?.is_some() {
            return Ok(());
        }
        home.write(|tx| {
            if store::setting(tx, FINGERPRINT)?.is_some() {
                return Ok(());
            }
            if home.is_scratch() {
                let root = SecretBytes::random(KEY_BYTES).map_err(ServiceError::machine)?;
                store::set_setting(tx, FINGERPRINT, &envelope::fingerprint(&root))?;
                home.give_root_key(root);
                return Ok(());
            }
            let root = match read_file(home) {
                Ok(root) => root,
                Err(Unread::Absent) => make_file(home)?,
                Err(Unread::Known(RootKeyError::Damaged { .. })) => {
                    home.dir().remove_file(FILE)?;
                    make_file(home)?
                }
                Err(error) => return Err(error.into_service(home)),
            };
            dir::sync_file(&home.dir().open_file(FILE, OFlag::O_RDONLY)?).map_err(ServiceError::machine)?;
            home.dir().sync_dir("")?;
            store::set_setting(tx, FINGERPRINT, &envelope::fingerprint(&root.0)).map_err(ServiceError::from)
        })
    }

    /// Makes the root key of `passphrase` (Argon2id, RFC 9106) and keeps it in `home` for the operations to come.
    ///
    /// A home that has no root key yet is bound to the passphrase from now on and gets no `root.key`.
    ///
    /// # Errors
    /// A [`RootKeyError`] if the passphrase is empty, is not the home's, or if the home's root key is in a file.
    pub fn use_passphrase(home: &Home, passphrase: &SecretBytes) -> Result<(), ServiceError> {
        if passphrase.is_empty() {
            return Err(RootKeyError::EmptyPassphrase.into());
        }
        let (stored, fingerprint) =
            home.read(|tx| Ok::<_, ServiceError>((store::setting(tx, PASSPHRASE)?, store::setting(tx, FINGERPRINT)?)))?;
        let parameters = match (stored, fingerprint) {
            (Some(stored), _) => Parameters::parse(&stored)?,
            (None, Some(_)) => return Err(RootKeyError::NoPassphrase { path: path(home) }.into()),
            (None, None) => Parameters::new()?,
        };
        let key = parameters.derive(passphrase)?;
        let found = envelope::fingerprint(&key);
        home.write(|tx| match store::setting(tx, FINGERPRINT)? {
            Some(expected) if envelope::same_fingerprint(&found, &expected) => Ok(()),
            Some(_) => Err(ServiceError::from(RootKeyError::WrongPassphrase)),
            None => {
                store::set_setting(tx, PASSPHRASE, &parameters.to_string())?;
                Ok(store::set_setting(tx, FINGERPRINT, &found)?)
            }
        })?;
        home.give_root_key(key);
        Ok(())
    }

    /// The root key, made if the home has none yet. Not for use inside a transaction: see [`RootKey::load`].
    ///
    /// # Errors
    /// A [`RootKeyError`] if the file is missing, damaged, readable by others or another home's.
    pub fn of(home: &Home) -> Result<Self, ServiceError> {
        Self::ensure(home)?;
        home.read(|tx| Self::load(home, tx))
    }

    /// Gives the root key of `home` to a scratch home, in memory; a home that has none yet has none to give.
    ///
    /// # Errors
    /// As [`RootKey::load`].
    pub fn lend(home: &Home, scratch: &Home) -> Result<(), ServiceError> {
        let root = home.read(|tx| match store::setting(tx, FINGERPRINT)? {
            Some(_) => Self::load(home, tx).map(Some),
            None => Ok(None),
        })?;
        if let Some(Self(key)) = root {
            scratch.give_root_key(key);
        }
        Ok(())
    }

    /// Reads the root key, inside a transaction, and checks that it is this home's.
    ///
    /// # Errors
    /// A [`RootKeyError`] if the file is missing, damaged, readable by others or another home's.
    pub fn load(home: &Home, tx: &Transaction<'_>) -> Result<Self, ServiceError> {
        let expected = store::setting(tx, FINGERPRINT)?.unwrap_or_default();
        let root = match (store::setting(tx, PASSPHRASE)?, home.given_root_key()) {
            (_, Some(given)) => Self(given.part(0..given.len())),
            (None, None) => read_file(home).map_err(|error| error.into_service(home))?,
            (Some(_), None) => return Err(RootKeyError::PassphraseNeeded.into()),
        };
        let found = envelope::fingerprint(&root.0);
        if envelope::same_fingerprint(&found, &expected) || twin::is_off(Protection::Fingerprint) {
            Ok(root)
        } else {
            Err(RootKeyError::Wrong { path: path(home), found, expected }.into())
        }
    }

    /// Seals `secret` for one purpose, bound to what it belongs to: 44 bytes more than the secret has.
    pub fn seal(&self, purpose: &str, bound_to: &str, secret: &SecretBytes) -> Result<Vec<u8>, ServiceError> {
        envelope::seal(&self.0, &label(purpose), bound(bound_to), secret.expose()).map_err(ServiceError::machine)
    }

    /// A digest of `secret`, bound to what it belongs to, that tells nothing of it without the root key: 64 hex digits.
    pub fn digest(&self, purpose: &str, bound_to: &str, secret: &SecretBytes) -> String {
        let key = envelope::derive(&self.0, &label(purpose), bound_to.as_bytes());
        crate::ids::hex(envelope::derive(&key, b"digest", secret.expose()).expose())
    }

    /// Opens what [`RootKey::seal`] sealed for the same purpose and thing.
    pub fn open(&self, purpose: &str, bound_to: &str, sealed: &[u8]) -> Result<SecretBytes, ServiceError> {
        envelope::open(&self.0, &label(purpose), bound(bound_to), sealed)
            .map_err(|_| RootKeyError::Sealed { what: format!("{purpose} {bound_to}") }.into())
    }
}

/// How a passphrase becomes a key: 64 MiB, 3 passes, one lane, the second choice that RFC 9106 recommends, with one lane
/// because only one thread computes.
struct Parameters {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; 16],
}

impl Parameters {
    fn new() -> Result<Self, ServiceError> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(ServiceError::machine)?;
        Ok(Self { memory_kib: 64 * 1024, passes: 3, lanes: 1, salt })
    }

    /// Reads what [`Display`](fmt::Display) wrote; the bounds keep a damaged store from asking for all memory.
    fn parse(text: &str) -> Result<Self, RootKeyError> {
        let refuse = || RootKeyError::Parameters { found: text.chars().take(80).collect() };
        let fields: Vec<_> = text.split(',').filter_map(|field| field.split_once('=')).collect();
        let [("m", memory), ("t", passes), ("p", lanes), ("salt", salt)] = fields[..] else { return Err(refuse()) };
        let number = |text: &str, most: u32| text.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(refuse);
        Ok(Self {
            memory_kib: number(memory, 1024 * 1024)?,
            passes: number(passes, 64)?,
            lanes: number(lanes, 16)?,
            salt: crate::ids::unhex(salt).and_then(|salt| salt.try_into().ok()).ok_or_else(refuse)?,
        })
    }

    fn derive(&self, passphrase: &SecretBytes) -> Result<SecretBytes, ServiceError> {
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_BYTES))
            .map_err(ServiceError::machine)?;
        let mut memory = vec![argon2::Block::default(); params.block_count()];
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let key = SecretBytes::try_new_with(KEY_BYTES, |key| {
            argon2.hash_password_into_with_memory(passphrase.expose(), &self.salt, key, &mut memory[..])
        });
        memory.zeroize();
        wipe_stack();
        key.map_err(ServiceError::machine)
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_kib, passes, lanes, salt } = self;
        write!(f, "m={memory_kib},t={passes},p={lanes},salt={}", crate::ids::hex(salt))
    }
}

fn label(purpose: &str) -> Vec<u8> {
    [b"blockseal root v1 ", purpose.as_bytes()].concat()
}

fn bound(to: &str) -> &[u8] {
    if twin::is_off(Protection::SealedFor) { b"" } else { to.as_bytes() }
}

fn path(home: &Home) -> String {
    home.dir().path_of(FILE).display().to_string()
}

/// What tells one state of the root key's file from another: whoever writes it, puts another in its place or changes its
/// mode changes this.
pub(super) type Stamp = dir::Stamp;

/// Of the file as it is now; `None` if there is none, as with a passphrase.
pub(super) fn stamp(home: &Home) -> Option<Stamp> {
    home.dir().stamp(FILE)
}

enum Unread {
    Absent,
    Known(RootKeyError),
    Dir(DirError),
    Io(std::io::Error),
}

impl Unread {
    fn into_service(self, home: &Home) -> ServiceError {
        match self {
            Self::Absent => RootKeyError::Missing { path: path(home) }.into(),
            Self::Known(error) => error.into(),
            Self::Dir(error) => error.into(),
            Self::Io(source) => DirError::Io { action: "read", path: home.dir().path_of(FILE), source }.into(),
        }
    }
}

fn read_file(home: &Home) -> Result<RootKey, Unread> {
    let mut file = match home.dir().open_file(FILE, OFlag::O_RDONLY) {
        Ok(file) => file,
        Err(DirError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Err(Unread::Absent),
        Err(error) => return Err(Unread::Dir(error)),
    };
    let metadata = file.metadata().map_err(Unread::Io)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 && !twin::is_off(Protection::Private) {
        return Err(Unread::Known(RootKeyError::Lax { path: path(home), mode }));
    }
    if metadata.len() != KEY_BYTES as u64 {
        return Err(Unread::Known(RootKeyError::Damaged { path: path(home) }));
    }
    SecretBytes::try_new_with(KEY_BYTES, |bytes| file.read_exact(bytes)).map(RootKey).map_err(Unread::Io)
}

fn make_file(home: &Home) -> Result<RootKey, ServiceError> {
    let root = SecretBytes::random(KEY_BYTES).map_err(ServiceError::machine)?;
    let mut file = home.dir().create_new(FILE)?;
    file.write_all(root.expose()).map_err(ServiceError::machine)?;
    Ok(RootKey(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power_cut::{Disk, comes_to};
    use crate::twin::without;

    #[test]
    fn a_root_key_is_never_made_over_another() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        drop(make_file(&home).unwrap());
        let first = std::fs::read(home.dir().path_of(FILE)).unwrap();
        assert!(make_file(&home).is_err());
        assert_eq!(std::fs::read(home.dir().path_of(FILE)).unwrap(), first);
        without(Protection::Exclusive, || drop(make_file(&home).unwrap()));
        assert_ne!(std::fs::read(home.dir().path_of(FILE)).unwrap(), first, "the twin lost what was sealed under it");
    }

    /// The power goes right after a home's root key was made and its fingerprint committed: the same key is there.
    #[test]
    fn a_root_key_is_durable_before_its_fingerprint() {
        let survives = || {
            let disk = Disk::ext4(64);
            let home = Home::open(&disk.path().join("home")).unwrap();
            RootKey::ensure(&home).unwrap();
            let disk = disk.after_a_cut();
            let home = Home::open(&disk.path().join("home")).unwrap();
            home.read(|tx| Ok::<_, ServiceError>(store::setting(tx, FINGERPRINT)?)).unwrap().expect("it was committed");
            home.read(|tx| RootKey::load(&home, tx)).map(drop)
        };
        survives().unwrap();
        comes_to(&true, || {
            let lost = without(Protection::FileSync, survives);
            lost.is_err_and(|error| error.message().contains("has not the 32 bytes"))
        });
    }
}
