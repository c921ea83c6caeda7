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
    /// A volume's data key is asked for under the volume's own context, whatever its header says.
    OwnContext,
}

/// Whether the calling thread's test switched `protection` off.
#[cfg(not(test))]
pub(crate) const fn is_off(_: Protection) -> bool {
    false
}

#[cfg(test)]
pub(crate) use testing::{is_off, without};

#[cfg(test)]
mod testing {
    use super::Protection;
    use std::cell::Cell;

    thread_local! {
        static OFF: Cell<Option<Protection>> = const { Cell::new(None) };
    }

    pub(crate) fn is_off(protection: Protection) -> bool {
        OFF.get() == Some(protection)
    }

    /// Runs `attack` on this thread with `protection` switched off.
    pub(crate) fn without<T>(protection: Protection, attack: impl FnOnce() -> T) -> T {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                OFF.set(None);
            }
        }
        OFF.set(Some(protection));
        let _restore = Restore;
        attack()
    }
}
