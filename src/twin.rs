//! Protections that a unit test can switch off, to show that its attack would succeed without them.
//!
//! Outside the crate's own unit tests nothing can be switched off: [`is_off`] is then a constant `false`.

/// A protection of the ground floor, of the permission wing, or of the place where that meets the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protection {
    /// Policies and grants decide.
    Policy,
    /// The authentication tag of a ciphertext blob is checked.
    Tag,
    /// The check over a blob's bytes is compared.
    BlobCheck,
    /// The encryption context is bound to the ciphertext.
    Context,
    /// Destroyed key material is overwritten.
    Overwrite,
    /// The write-ahead log is truncated after material was overwritten.
    LogTruncation,
    /// An operation's record is committed with its change.
    Record,
    /// One control operation on a volume at a time.
    Lease,
    /// A volume's lease is held until the operation is committed.
    LeaseToCommit,
    /// What a crash left of a volume is looked for and put right.
    Repair,
    /// Secret memory is wiped when it is dropped.
    Wipe,
    /// Secret memory is locked into RAM.
    Lock,
    /// No symbolic link is followed to a home or in it.
    NoFollow,
    /// What others can write to or read is refused.
    Private,
    /// State of a newer program, or none where there should be some, is refused.
    StateCheck,
    /// A log file's name follows from what is in it.
    StableName,
    /// A digest's signature is verified.
    TrailSignature,
    /// A digest must follow the one before it, and a log file be named by one.
    TrailChain,
    /// A chain must end where the home, or whoever noted its tail, says.
    TrailTail,
    /// A volume's data key is asked for under the volume's own context, whatever its header says.
    OwnContext,
    /// Of the processes that would change the state one does, and reads what it changes as the only writer.
    OneWriter,
    /// The root key is compared with the home's fingerprint.
    Fingerprint,
    /// A new file takes the place of none.
    Exclusive,
    /// What is remembered of the state is forgotten when the state changes.
    Forgetting,
    /// An answer waits for the commit of the group that holds its record.
    DurableAnswer,
    /// A transaction is on the disk when it is committed.
    DurableCommit,
    /// A file's bytes are durable before anything counts on them.
    FileSync,
    /// A file's name is durable before anything counts on it.
    NameSync,
    /// A file that is not whole has another name.
    UnfinishedName,
    /// What a key's state forbids is refused.
    KeyState,
    /// What is sealed under the root key is bound to what it belongs to.
    SealedFor,
    /// Every encryption draws its own nonce and IV.
    Nonce,
    /// A header's checksum is compared.
    HeaderChecksum,
    /// The files that are measured have no names while they are.
    NamelessScratch,
    /// Secret access keys rest sealed under the root key.
    SealedCredentials,
    /// Temporary credentials are good only with their session token.
    SessionToken,
    /// Temporary credentials end.
    Expiry,
    /// A request's signature is compared with the one that the caller's secret gives.
    RequestSignature,
    /// Web pages and foreign host names are turned away before a request is read.
    Border,
    /// Only users who may call are served over a Unix socket.
    PeerCredentials,
    /// An address that other machines can reach is served only to callers who are verified, and behind TLS.
    Reachable,
    /// A presigned URL is verified in every mode.
    PresignedUrl,
    /// A lineage's manifest key is derived from its data key, not a part of it.
    KeyDerivation,
    /// A sync of a file that is served through FUSE flushes the device.
    ServedFlush,
}

/// Whether the calling thread's test switched `protection` off.
#[cfg(not(test))]
pub(crate) const fn is_off(_: Protection) -> bool {
    false
}

/// Whether the calling thread's test switched off anything by which what is remembered may have come to be wrong.
#[cfg(not(test))]
pub(crate) const fn is_any_off() -> bool {
    false
}

#[cfg(test)]
pub(crate) use testing::{is_any_off, is_off, without};

#[cfg(test)]
mod testing {
    use super::Protection;
    use std::cell::Cell;

    thread_local! {
        /// One bit for each protection that is off.
        static OFF: Cell<u64> = const { Cell::new(0) };
    }

    pub(crate) fn is_off(protection: Protection) -> bool {
        OFF.get() & (1 << protection as u32) != 0
    }

    pub(crate) fn is_any_off() -> bool {
        OFF.get() & !(1 << Protection::Forgetting as u32) != 0
    }

    /// Runs `attack` on this thread with `protection` switched off, and whatever else is already.
    pub(crate) fn without<T>(protection: Protection, attack: impl FnOnce() -> T) -> T {
        struct Restore(u64);
        impl Drop for Restore {
            fn drop(&mut self) {
                OFF.set(self.0);
            }
        }
        let _restore = Restore(OFF.get());
        OFF.set(OFF.get() | 1 << protection as u32);
        attack()
    }
}
