//! Reading and writing the header's two copies in a storage.

use super::header_error;
use crate::device::DeviceError;
use crate::device::storage::Storage;
use crate::luks2::{COPY_BYTES, Copies, CopyState, HEADER_BYTES, Header};

/// The header, and what its copies are like.
///
/// # Errors
/// If it cannot be read, both copies are damaged, or it is outside the accepted profile.
pub(in crate::device) fn read(storage: &dyn Storage) -> Result<(Header, Copies), DeviceError> {
    let length = usize::try_from(storage.length()).unwrap_or(usize::MAX).min(HEADER_BYTES);
    let mut area = vec![0; length];
    storage.read(0, &mut area)?;
    Header::parse(&area).map_err(header_error)
}

/// Writes both copies, each durable before the next is touched, and the one that is not valid first: at every moment one
/// whole copy, old or new, is on the disk.
///
/// # Errors
/// If the storage fails. The header is then the old one or the new one.
pub(in crate::device) fn write(storage: &dyn Storage, header: &Header, copies: Copies) -> Result<(), DeviceError> {
    let encoded = header.encode().map_err(header_error)?;
    let primary = (0, &encoded.primary);
    let secondary = (COPY_BYTES as u64, &encoded.secondary);
    let primary_counts_alone = copies.primary == CopyState::Current && copies.secondary != CopyState::Current;
    let order = if primary_counts_alone { [secondary, primary] } else { [primary, secondary] };
    for (offset, copy) in order {
        storage.write(offset, copy)?;
        storage.flush()?;
    }
    Ok(())
}
