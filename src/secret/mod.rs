//! Memory for plaintext keys and expanded key schedules: locked into RAM, left out of core dumps and forks, wiped when
//! dropped, printed as `[REDACTED]`, compared in constant time.
//!
//! Secrets are made in place and read through [`SecretBytes::expose`] or [`SecretBox::expose`]; neither type is
//! `Clone` or `PartialEq`.

mod arena;
mod frames;
mod registers;

pub use arena::unlocked_bytes;
pub use frames::{note_signal_frame, wipe_signal_stack};
pub use registers::wipe_registers;

use std::fmt;
use std::mem::{align_of, size_of};
use std::ops::Range;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use arena::Slot;

/// A secret string of bytes whose length is fixed when it is made.
pub struct SecretBytes {
    slot: Slot,
    length: usize,
}

impl SecretBytes {
    /// `length` zero bytes, filled in place by `fill`.
    pub fn new_with(length: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut slot = Slot::take(length.max(1), 1);
        fill(&mut slot.bytes_mut()[..length]);
        Self { slot, length }
    }

    /// As [`SecretBytes::new_with`] for a filling that can fail; what was written so far is wiped then.
    pub fn try_new_with<E>(length: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut outcome = Ok(());
        let secret = Self::new_with(length, |bytes| outcome = fill(bytes));
        outcome.map(|()| secret)
    }

    /// `length` bytes from the operating system's random generator.
    ///
    /// # Errors
    /// The generator's error; nothing weaker is ever used in its place.
    pub fn random(length: usize) -> Result<Self, getrandom::Error> {
        Self::try_new_with(length, getrandom::fill)
    }

    /// Moves `plain` in and wipes the place it came from.
    pub fn take_from(plain: &mut [u8]) -> Self {
        let secret = Self::new_with(plain.len(), |bytes| bytes.copy_from_slice(plain));
        plain.zeroize();
        secret
    }

    /// A second secret with the bytes of `range` of this one.
    ///
    /// # Panics
    /// If `range` is outside the secret: lengths of keys are constants of the caller.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        let part = &self.expose()[range];
        Self::new_with(part.len(), |bytes| bytes.copy_from_slice(part))
    }

    /// The bytes themselves. They must not be copied anywhere but into another secret.
    pub fn expose(&self) -> &[u8] {
        &self.slot.bytes()[..self.length]
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the bytes equal `other`, in time that depends on the length alone.
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.expose().ct_eq(other).into()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// A secret value of a type, such as an expanded key schedule. Its memory is wiped after `T`'s own destructor ran.
pub struct SecretBox<T> {
    slot: Slot,
    value: std::marker::PhantomData<T>,
}

impl<T> SecretBox<T> {
    /// Makes the value with `make` and moves it in, then wipes the stack and the registers that the making and the move
    /// went over.
    pub fn new(make: impl FnOnce() -> T) -> Self {
        let mut slot = Slot::take(size_of::<T>().max(1), align_of::<T>());
        place(&mut slot, make);
        wipe_registers();
        wipe_stack();
        Self { slot, value: std::marker::PhantomData }
    }

    /// The value itself.
    pub fn expose(&self) -> &T {
        arena::value(&self.slot)
    }

    /// The value itself, to be filled where it lies.
    pub fn expose_mut(&mut self) -> &mut T {
        arena::value_mut(&mut self.slot)
    }
}

/// Runs `make` in a frame of its own, which [`wipe_stack`] then covers.
#[inline(never)]
fn place<T>(slot: &mut Slot, make: impl FnOnce() -> T) {
    arena::emplace(slot, make());
}

impl<T> Drop for SecretBox<T> {
    fn drop(&mut self) {
        arena::drop_value::<T>(&mut self.slot);
    }
}

impl<T> fmt::Debug for SecretBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Bytes of stack that [`wipe_stack`] covers. Unoptimised code has far larger frames.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 64 * 1024 } else { 8 * 1024 };

/// Overwrites the 8 KiB of stack below the caller (64 KiB in a debug build), where a finished computation may have left key
/// bytes. Takes about a tenth of a microsecond.
#[inline(never)]
#[allow(clippy::large_stack_arrays, reason = "covering the stack is the purpose")]
pub fn wipe_stack() {
    // The compiler must take it that somebody reads the array behind the pointer, so it has to fill it.
    std::hint::black_box(&mut [0u8; STACK_BYTES]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_redacted_and_comparison_sees_every_byte() {
        let secret = SecretBytes::new_with(4, |bytes| bytes.copy_from_slice(b"key!"));
        assert_eq!(format!("{secret:?}"), "[REDACTED]");
        assert!(secret.ct_eq(b"key!"));
        assert!(!secret.ct_eq(b"key?"));
        assert!(!secret.ct_eq(b"key"));
    }

    #[test]
    fn take_from_wipes_its_source() {
        let mut plain = *b"0123456789abcdef";
        let secret = SecretBytes::take_from(&mut plain);
        assert_eq!(plain, [0; 16]);
        assert_eq!(secret.expose(), b"0123456789abcdef");
        assert_eq!(secret.part(2..4).expose(), b"23");
    }

    #[test]
    fn values_of_any_alignment_are_dropped() {
        #[repr(align(64))]
        struct Wide([u8; 64], #[expect(dead_code, reason = "counts drops")] std::sync::Arc<()>);
        let alive = std::sync::Arc::new(());
        let mut boxed = SecretBox::new(|| Wide([0; 64], alive.clone()));
        boxed.expose_mut().0 = [7; 64];
        assert_eq!(std::ptr::from_ref(boxed.expose()).addr() % 64, 0);
        assert_eq!(boxed.expose().0, [7; 64]);
        assert_eq!(std::sync::Arc::strong_count(&alive), 2);
        drop(boxed);
        assert_eq!(std::sync::Arc::strong_count(&alive), 1);
    }
}
