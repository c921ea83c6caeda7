//! What keeps a device honest, by name, so that each test of a protection can be shown to fail without it.

/// Declares the switches. Only unit tests can turn one off: in every other build the type holds nothing and every
/// answer is a constant `true`.
macro_rules! protections {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Which protections are on.
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct Protections {
            $($(#[$doc])* #[cfg(test)] pub(crate) $name: bool,)*
        }

        impl Protections {
            /// Everything on: the only value outside unit tests.
            pub(crate) const ON: Self = Self { $(#[cfg(test)] $name: true,)* };

            $($(#[$doc])*
            #[inline]
            pub(crate) const fn $name(self) -> bool {
                #[cfg(test)]
                return self.$name;
                #[cfg(not(test))]
                true
            })*
        }
    };
}

protections! {
    /// An all-zero unit of ciphertext reads as zeros.
    zero_units,
    /// Overlapping requests wait for each other.
    range_locks,
    /// A range is populated before it is loaded from.
    populate,
    /// Readers test the fault flag after their last load.
    fault_flag,
    /// The file's length is looked at before a write or a flush.
    length_check,
    /// New room is refused where it would take the last of the disk.
    headroom,
    /// A failed flush makes every later call fail.
    latch,
    /// Opening takes the exclusive lock.
    owner_lock,
    /// A header write waits for whoever reads the header.
    header_lock,
    /// Opening compares the header with the caller's records.
    records,
    /// The file of the latch is there before it is needed.
    latch_ahead,
    /// Opening checks the key against the digest.
    key_digest,
    /// Opening a latched volume drops its page cache.
    drop_cache,
}
