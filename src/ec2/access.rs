//! Reading and writing a volume's content without AWS's operations: what the `volume` verbs do.
//!
//! An attached volume is reached through its exporter, as any other client of it; no key is needed. A detached one is
//! opened here, with its data key from KMS: `Decrypt` by the user through EC2 under the volume's context, recorded like
//! every use of a key (ours: EBS has no such access, the nearest is the direct API, which decrypts for its caller too).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::OFlag;

use crate::device::volume::{self, OpenOptions, Verification, Volume};
use crate::device::{BlockDevice, DeviceError, DeviceErrorKind, Extent, ZeroMode};
use crate::export::{self, Client, ClientError};
use crate::gate::{Call, ServiceError};
use crate::ids::VolumeId;
use crate::secret::SecretBytes;

use super::lease::Lease;
use super::table::{self, AttachmentRow, VolumeRow};
use super::{content, describe, disk, exporter, keys, lineage, modify, params, permission, settle};

/// What a command is going to do with a volume's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
    /// Write all of it, or something that only its owner may; refused while it is attached.
    Own,
}

/// A volume whose content can be read and written.
pub struct Opened {
    /// Its id.
    pub id: VolumeId,
    /// Whether it is attached, so that its exporter's other clients may write at the same time.
    pub attached: bool,
    content: Content,
}

enum Content {
    Attached(Attached),
    Detached(Box<Volume>),
}

impl Opened {
    /// The device.
    pub fn device(&self) -> &dyn BlockDevice {
        match &self.content {
            Content::Attached(attached) => attached,
            Content::Detached(volume) => &**volume,
        }
    }

    /// Writes encrypted zeros wherever nothing is stored; progress in bytes of the volume.
    ///
    /// # Errors
    /// As for writing. An attached volume is not filled: [`open`] refuses [`Access::Own`].
    pub fn fill(&self, progress: &mut dyn FnMut(u64)) -> Result<(), DeviceError> {
        match &self.content {
            Content::Detached(volume) => volume.fill(progress),
            Content::Attached(_) => Err(DeviceError::new(DeviceErrorKind::Locked, "an attached volume is not filled")),
        }
    }
}

/// Opens a volume's content: through its exporter if it is attached, else with its data key from KMS.
///
/// # Errors
/// `UnauthorizedOperation` for who may not attach the volume; `InvalidVolume.NotFound`; `VolumeInUse` for [`Access::Own`] of an attached volume, or if another command holds it; the
/// refusal of KMS as it is.
pub fn open(call: &Call<'_>, volume_id: &str, access: Access) -> Result<Opened, ServiceError> {
    permission::check_attachment(call, "ec2:AttachVolume", volume_id, None)?;
    settle::repair(call.home)?;
    let id = params::volume_id(volume_id)?;
    let _lease = Lease::take(call.home, &id)?;
    modify::finish(call.home, &id)?;
    let (row, attachment) = find(call, &id)?;
    if let Some(attachment) = attachment {
        if access == Access::Own {
            return Err(ServiceError::refused(
                "VolumeInUse",
                format!("Volume {id} is currently attached to {}", attachment.instance),
            )
            .with_hint(format!("blockseal ec2 detach-volume --volume-id {id}")));
        }
        let attached = Attached::connect(call, &id)?;
        return Ok(Opened { id, attached: true, content: Content::Attached(attached) });
    }
    if row.state != table::State::Available {
        return Err(super::delete::not_available(&id));
    }
    // Several may read at once, and then nobody writes.
    let reads = access == Access::Read;
    if if reads { disk::is_held_alone(call.home, &id)? } else { disk::is_held(call.home, &id)? } {
        return Err(exporter::in_use(&id));
    }
    let key = data_key(call, &row)?;
    let options = OpenOptions { read_only: reads, shared: reads, ..OpenOptions::default() };
    match volume::open(call.home.dir(), &id, disk::expected(&row), key.as_ref(), options) {
        Ok(volume) => Ok(Opened { id, attached: false, content: Content::Detached(Box::new(volume)) }),
        Err(error) if error.kind() == DeviceErrorKind::Locked => Err(exporter::in_use(&id)),
        Err(error) => Err(error.into()),
    }
}

fn find(call: &Call<'_>, id: &VolumeId) -> Result<(VolumeRow, Option<AttachmentRow>), ServiceError> {
    call.home.read(|tx| {
        let row = describe::owned(tx, call, id)?.ok_or_else(|| params::no_such_volume(id))?;
        Ok((row, table::attachment(tx, id)?))
    })
}

/// The data key of a volume for its user; `None` if it is not encrypted.
fn data_key(call: &Call<'_>, row: &VolumeRow) -> Result<Option<SecretBytes>, ServiceError> {
    if row.encryption.is_none() {
        return Ok(None);
    }
    let header = disk::header(call.home, row)?;
    keys::unwrap_for_user(call, row, header.wrapped_key()).map(Some)
}

/// What a volume's row and file say; no key is used, nothing is recorded.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The volume as `DescribeVolumes` shows it.
    pub described: super::Volume,
    /// The context under which its data key is wrapped; empty if it is not encrypted.
    pub context: BTreeMap<String, String>,
    /// What the file shows.
    pub file: volume::Inspection,
}

/// Looks at a volume.
///
/// # Errors
/// `InvalidVolume.NotFound`, or the machine's error if the file cannot be read.
pub fn inspect(call: &Call<'_>, volume_id: &str) -> Result<Inspection, ServiceError> {
    permission::check(call, "ec2:DescribeVolumes", &["*".to_owned()])?;
    settle::repair(call.home)?;
    let id = params::volume_id(volume_id)?;
    let (row, described) = call.home.read(|tx| {
        let row = describe::owned(tx, call, &id)?.ok_or_else(|| params::no_such_volume(&id))?;
        let described = describe::shown(tx, call, &row)?;
        Ok::<_, ServiceError>((row, described))
    })?;
    let context = if row.encryption.is_some() { keys::context(&row).0 } else { BTreeMap::new() };
    Ok(Inspection { described, context, file: volume::inspect(call.home.dir(), &id)? })
}

/// Checks everything that there is to check about a volume: file against records, header against both, wrapped key
/// against KMS, data key against digest, and that the disk gives back every byte that is stored. Works while the volume is
/// attached; changes nothing. `Decrypt` is recorded.
///
/// XTS has no checksum: bytes that somebody changed decrypt to other bytes, and nothing here can tell.
///
/// # Errors
/// `InvalidVolume.NotFound`. What is wrong with the volume is no error but in the answer.
pub fn verify(call: &Call<'_>, volume_id: &str, progress: super::Progress<'_>) -> Result<Verification, ServiceError> {
    permission::check_attachment(call, "ec2:AttachVolume", volume_id, None)?;
    settle::repair(call.home)?;
    let id = params::volume_id(volume_id)?;
    let (row, _) = find(call, &id)?;
    let mut refused = None;
    let key = match data_key(call, &row) {
        Ok(key) => key,
        Err(error) => {
            refused = Some(error);
            None
        }
    };
    let mut found = volume::verify(call.home.dir(), &id, disk::expected(&row), key.as_ref())?;
    if let Some(Ok((header, _))) = &found.inspection.header {
        check_records(&row, header, &mut found.problems);
    }
    if let Some(error) = refused {
        let what = match error {
            ServiceError::Refused(_) => "KMS does not unwrap the data key",
            ServiceError::Machine(_) => "the data key cannot be had",
        };
        found.problems.push(format!("{what}: {error}"));
    }
    check_lineage(call, &row, key.as_ref().filter(|_| found.key_matches == Some(true)), &mut found.problems)?;
    let file = call.home.dir().open_file(&found.inspection.file, OFlag::O_RDONLY)?;
    if let Some((at, error)) = content::scan(&file, progress).map_err(ServiceError::machine)? {
        found.problems.push(format!("the file cannot be read at byte {at}: {error}"));
    }
    Ok(found)
}

/// The manifest key that the home's records have sealed, against the data key if that is the volume's.
fn check_lineage(
    call: &Call<'_>,
    row: &VolumeRow,
    key: Option<&SecretBytes>,
    problems: &mut Vec<String>,
) -> Result<(), ServiceError> {
    if row.encryption.is_none() {
        return Ok(());
    }
    let Some(lineage) = call.home.read(|tx| table::lineage_of(tx, &row.id))? else {
        problems.push("the home's records have no manifest key for the volume".to_owned());
        return Ok(());
    };
    match (lineage.manifest_key(call.home), key) {
        (Err(error), _) => problems.push(format!("the volume's manifest key does not open: {error}")),
        (Ok(sealed), Some(key)) if !sealed.ct_eq(lineage::manifest_key(key).expose()) => {
            problems.push("the sealed manifest key is not that of the volume's data key".to_owned());
        }
        (Ok(_), _) => {}
    }
    Ok(())
}

/// The header's token against the home's records.
fn check_records(row: &VolumeRow, header: &crate::luks2::Header, problems: &mut Vec<String>) {
    let Some(encryption) = &row.encryption else { return };
    if header.label() != row.id.as_str() {
        problems.push(format!(
            "the header's label is {}, not {}: it was made for another volume",
            header.label(),
            row.id
        ));
    }
    let wrapped = header.wrapped_key();
    if wrapped.key_arn != encryption.key_arn {
        problems.push(format!(
            "the header names the KMS key {}, and the home's records {}",
            wrapped.key_arn, encryption.key_arn
        ));
    }
    let context = keys::context(row).0;
    if wrapped.encryption_context != context {
        problems.push(format!(
            "the header's encryption context is {:?}, and the volume's is {context:?}",
            wrapped.encryption_context
        ));
    }
}

/// An attached volume as a device: one connection to its exporter, one call at a time.
struct Attached {
    client: Mutex<Client>,
    size: u64,
}

impl Attached {
    fn connect(call: &Call<'_>, id: &VolumeId) -> Result<Self, ServiceError> {
        let socket = export::socket_path(call.home.dir(), id);
        let client = Client::connect(&socket, id.as_str()).map_err(ServiceError::machine)?;
        Ok(Self { size: client.size(), client: Mutex::new(client) })
    }

    fn ask<T>(&self, what: &str, ask: impl FnOnce(&mut Client) -> Result<T, ClientError>) -> Result<T, DeviceError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut client).map_err(|error| {
            DeviceError::new(DeviceErrorKind::Io, format!("cannot {what} through the exporter")).with_source(error)
        })
    }
}

impl BlockDevice for Attached {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        // Several requests at a time: the exporter decrypts one while another is on its way.
        let length = into.len() as u64;
        self.ask("read", |client| client.copy_out(&mut &mut into[..], offset, length, &mut |_| ()))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        let length = data.len() as u64;
        self.ask("write", |client| client.copy_in(&mut &data[..], offset, length, &mut |_| ()))
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<(), DeviceError> {
        self.ask("write zeros", |client| client.write_zeroes(offset, length, mode == ZeroMode::KeepAllocated))
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.ask("flush", Client::flush)
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        self.ask("find holes", |client| client.extents(offset, length))
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("id", &self.id).field("attached", &self.attached).finish_non_exhaustive()
    }
}
