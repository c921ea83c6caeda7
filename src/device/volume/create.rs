//! Making volume files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use nix::fcntl::{OFlag, RenameFlags, renameat2};

use super::{DIRECTORY, Format, check_length, dir_error, header_error, locks, relative_path};
use crate::device::storage::set_length;
use crate::device::{DeviceError, DeviceErrorKind};
use crate::dir::{self, HomeDir};
use crate::ids::VolumeId;
use crate::luks2::{Header, KeyDigest, WrappedKey};
use crate::twin::{self, Protection};
use crate::units::SectorSize;

/// What the header of a new encrypted volume says.
#[derive(Clone, Debug)]
pub struct NewEncryption {
    /// The encryption sector size.
    pub sector_size: SectorSize,
    /// The check value of its data key.
    pub digest: KeyDigest,
    /// Its data key, wrapped under its encryption context.
    pub wrapped_key: WrappedKey,
}

/// Ends the name of a file that is being made.
const UNFINISHED: &str = ".new";

/// Makes the file of a new volume of `length` bytes (a multiple of 4096, at most 64 TiB), encrypted or not. It is sparse:
/// nothing but the header takes space.
///
/// The file is made under another name, made durable, and only then renamed: a volume of that name is whole. What a kill
/// leaves under the other name is removed by [`sweep`].
///
/// # Errors
/// [`DeviceErrorKind::Invalid`] for other lengths, [`DeviceErrorKind::Exists`] if there is such a file,
/// [`DeviceErrorKind::NoSpace`] if the disk is full or the file system cannot hold so long a file.
pub fn create(dir: &HomeDir, id: &VolumeId, length: u64, encryption: Option<NewEncryption>) -> Result<(), DeviceError> {
    check_length(length)?;
    let format = encryption.as_ref().map_or(Format::Plain, |new| Format::Encrypted(new.sector_size));
    let name = relative_path(id, format);
    let unfinished = unfinished_name(&name);
    sweep(dir)?;
    remove_abandoned(dir, &unfinished, Duration::ZERO)?;
    if dir.exists(&name) {
        return Err(exists(id));
    }
    let file = dir.create_new(&unfinished).map_err(dir_error)?;
    let outcome = (|| {
        let _owner = locks::own(&file, id)?;
        set_length(&file, format.file_length(length))?;
        if let Some(new) = encryption {
            write_header(&file, id, length, new)?;
        }
        dir::sync_file(&file).map_err(|error| DeviceError::io("cannot make the volume file durable", error))?;
        publish(dir, id, &unfinished, &name)
    })();
    if outcome.is_err() {
        // The error to tell is the first one; what cannot be removed now is swept later.
        let _ = dir.remove_file(&unfinished);
    }
    outcome
}

fn unfinished_name(name: &str) -> String {
    if twin::is_off(Protection::UnfinishedName) { name.to_owned() } else { format!("{name}{UNFINISHED}") }
}

fn write_header(file: &File, id: &VolumeId, length: u64, new: NewEncryption) -> Result<(), DeviceError> {
    let header =
        Header::new(id.as_str(), new.sector_size, length, new.digest, new.wrapped_key).map_err(header_error)?;
    file.write_all_at(&header.encode().map_err(header_error)?.concatenated(), 0)
        .map_err(|error| DeviceError::io("cannot write the volume's header", error))
}

/// Gives the whole file its name.
fn publish(dir: &HomeDir, id: &VolumeId, unfinished: &str, name: &str) -> Result<(), DeviceError> {
    if unfinished != name {
        renameat2(dir.as_fd(), unfinished, dir.as_fd(), name, RenameFlags::RENAME_NOREPLACE).map_err(|errno| {
            match errno {
                nix::errno::Errno::EEXIST => exists(id),
                errno => DeviceError::io(format!("cannot rename {unfinished}"), errno.into()),
            }
        })?;
    }
    dir.sync_dir(DIRECTORY).map_err(dir_error)
}

fn exists(id: &VolumeId) -> DeviceError {
    DeviceError::new(DeviceErrorKind::Exists, format!("there is a file of volume {id} already"))
}

/// Removes files that were being made when their process was killed: those that nobody has locked.
///
/// # Errors
/// If the directory cannot be read.
pub fn sweep(dir: &HomeDir) -> Result<(), DeviceError> {
    let path = dir.path_of(DIRECTORY);
    let entries =
        std::fs::read_dir(&path).map_err(|error| DeviceError::io(format!("cannot read {}", path.display()), error))?;
    for entry in entries {
        let entry = entry.map_err(|error| DeviceError::io(format!("cannot read {}", path.display()), error))?;
        let file_name = entry.file_name();
        if let Some(name) = file_name.to_str().filter(|name| name.ends_with(UNFINISHED)) {
            remove_abandoned(dir, &format!("{DIRECTORY}/{name}"), YOUNG)?;
        }
    }
    Ok(())
}

/// A file this young may belong to somebody who is about to lock it.
const YOUNG: Duration = Duration::from_mins(1);

/// Removes an unfinished file that nobody has locked and that is at least `age` old.
fn remove_abandoned(dir: &HomeDir, name: &str, age: Duration) -> Result<(), DeviceError> {
    // Gone meanwhile, or not ours to open: then it is not ours to remove either.
    let Ok(file) = dir.open_file(name, OFlag::O_RDWR) else { return Ok(()) };
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let old = age.is_zero() || modified.is_ok_and(|at| at.elapsed().is_ok_and(|elapsed| elapsed >= age));
    if old && !locks::is_owned(&file)? {
        dir.remove_file(name).map_err(dir_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::volume::inspect;
    use crate::twin::without;

    /// Killed right after the file came to be: there is no volume of that name, and it can be made. The twin has half a
    /// volume, which is taken for one.
    #[test]
    fn a_volume_that_is_being_made_is_not_there_yet() {
        let remade = || {
            let base = tempfile::tempdir().unwrap();
            let dir = HomeDir::open(&base.path().join("home"), true).unwrap();
            dir.make_dir(DIRECTORY).unwrap();
            let id = VolumeId::random();
            drop(dir.create_new(&unfinished_name(&relative_path(&id, Format::Plain))).unwrap());
            let taken_for_one = inspect(&dir, &id).is_ok();
            let made = create(&dir, &id, 1 << 20, None).map_err(|error| error.kind());
            (taken_for_one, made)
        };
        assert_eq!(remade(), (false, Ok(())));
        assert!(without(Protection::UnfinishedName, remade).0);
    }
}
