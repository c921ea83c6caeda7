//! Whole images and ranges of bytes in and out of a device, sparse on both sides.
//!
//! Nothing here knows of keys or volumes: the device encrypts. Progress is told in bytes of the device passed so far.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::device::{BlockDevice, DeviceError, DeviceErrorKind, ZeroMode};
use crate::units::is_all_zero;

/// Bytes moved at a time: enough for the device to spread over its threads, and for an exporter's client to have several
/// requests under way.
const PIECE: usize = 8 << 20;

/// Bytes that are looked at together when zeros are left out: the block of the file systems that we meet.
const GRAIN: usize = 4096;

/// Told as work goes on: bytes passed so far.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Where an image comes from.
#[derive(Debug)]
pub enum Source {
    /// A file or block device whose length is known and whose holes can be asked for.
    File(File),
    /// A pipe: read to its end.
    Stream(File),
}

impl Source {
    /// The open file as a source, by its kind.
    pub fn of(file: File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        Ok(if kind.is_file() || kind.is_block_device() { Self::File(file) } else { Self::Stream(file) })
    }

    /// Its length in bytes, if that is known before it is read.
    pub fn length(&self) -> io::Result<Option<u64>> {
        match self {
            Self::File(file) => Ok(Some((&*file).seek(SeekFrom::End(0))?)),
            Self::Stream(_) => Ok(None),
        }
    }
}

/// What an import or export moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Length of the image in bytes, holes included.
    pub length: u64,
    /// Bytes of it that were stored, zeros left out.
    pub stored: u64,
}

/// Replaces the device's content with the image, and what lies behind the image's end with zeros; durable when this
/// returns.
///
/// # Errors
/// If the image is longer than the device (before anything is written, when its length is known), cannot be read, or the
/// device fails. What was imported so far stays.
pub fn import(device: &dyn BlockDevice, source: &Source, progress: Progress<'_>) -> Result<Moved, DeviceError> {
    let unreadable = |error| DeviceError::io("the image cannot be read", error);
    let length = source.length().map_err(unreadable)?;
    if let Some(length) = length.filter(|length| *length > device.size()) {
        return Err(too_long(&format!("{length} bytes"), device));
    }
    let moved = match source {
        Source::File(file) => import_file(device, file, length.unwrap_or_default(), progress)?,
        Source::Stream(file) => import_stream(device, file, progress)?,
    };
    zero_run(device, moved.length, device.size(), progress)?;
    device.flush()?;
    Ok(moved)
}

fn too_long(length: &str, device: &dyn BlockDevice) -> DeviceError {
    DeviceError::new(
        DeviceErrorKind::OutOfRange,
        format!("the image has {length} and the volume {} bytes: it does not fit", device.size()),
    )
}

/// Only what the file stores is read; its holes become zeros without reading.
fn import_file(
    device: &dyn BlockDevice,
    file: &File,
    length: u64,
    progress: Progress<'_>,
) -> Result<Moved, DeviceError> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    let mut stored = 0;
    while at < length {
        let data = seek_data(file, at, length);
        zero_run(device, at, data, progress)?;
        at = data;
        let end = seek_hole(file, at, length);
        while at < end {
            let count = usize::try_from((end - at).min(PIECE as u64)).unwrap_or(PIECE);
            file.read_exact_at(&mut buffer[..count], at)
                .map_err(|error| DeviceError::io(format!("the image cannot be read at byte {at}"), error))?;
            stored += store(device, at, &buffer[..count])?;
            at += count as u64;
            progress(at);
        }
    }
    Ok(Moved { length, stored })
}

fn import_stream(device: &dyn BlockDevice, mut file: &File, progress: Progress<'_>) -> Result<Moved, DeviceError> {
    let mut buffer = vec![0; PIECE];
    let mut moved = Moved::default();
    loop {
        let count =
            read_full(&mut file, &mut buffer).map_err(|error| DeviceError::io("the image cannot be read", error))?;
        if moved.length + count as u64 > device.size() {
            return Err(too_long("more than that", device));
        }
        moved.stored += store(device, moved.length, &buffer[..count])?;
        moved.length += count as u64;
        progress(moved.length);
        if count < buffer.len() {
            return Ok(moved);
        }
    }
}

/// Writes the runs of `data` that are not zero and zeroes the others; answers how many bytes were written.
fn store(device: &dyn BlockDevice, offset: u64, data: &[u8]) -> Result<u64, DeviceError> {
    let mut stored = 0;
    for_runs(data, |start, run, zero| {
        let at = offset + start as u64;
        if zero {
            device.write_zeroes(at, run.len() as u64, ZeroMode::MayPunch)
        } else {
            stored += run.len() as u64;
            device.write_at(at, run)
        }
    })?;
    Ok(stored)
}

/// Calls `body` with each longest run of all-zero or not-all-zero grains: its place in `data`, its bytes, whether zero.
fn for_runs<E>(data: &[u8], mut body: impl FnMut(usize, &[u8], bool) -> Result<(), E>) -> Result<(), E> {
    let mut start = 0;
    while start < data.len() {
        let zero = is_all_zero(&data[start..(start + GRAIN).min(data.len())]);
        let mut end = (start + GRAIN).min(data.len());
        while end < data.len() && is_all_zero(&data[end..(end + GRAIN).min(data.len())]) == zero {
            end = (end + GRAIN).min(data.len());
        }
        body(start, &data[start..end], zero)?;
        start = end;
    }
    Ok(())
}

/// Zeroes a run in pieces, so that progress is seen and no lock is held for long.
fn zero_run(device: &dyn BlockDevice, start: u64, end: u64, progress: Progress<'_>) -> Result<(), DeviceError> {
    const ZERO_PIECE: u64 = 16 << 30;
    let mut at = start;
    while at < end {
        let count = (end - at).min(ZERO_PIECE);
        device.write_zeroes(at, count, ZeroMode::MayPunch)?;
        at += count;
        progress(at);
    }
    Ok(())
}

/// Where data begins at or after `at`; `length` if there is none. A file system without holes has data everywhere.
fn seek_data(file: &File, at: u64, length: u64) -> u64 {
    match lseek(file, i64::try_from(at).unwrap_or(i64::MAX), Whence::SeekData) {
        Ok(place) => u64::try_from(place).unwrap_or(at).clamp(at, length),
        Err(Errno::ENXIO) => length,
        Err(_) => at,
    }
}

fn seek_hole(file: &File, at: u64, length: u64) -> u64 {
    match lseek(file, i64::try_from(at).unwrap_or(i64::MAX), Whence::SeekHole) {
        Ok(place) => match u64::try_from(place).unwrap_or(length).min(length) {
            place if place > at => place,
            // The file changed between the two questions: read to the end and let the reads decide.
            _ => length,
        },
        Err(_) => length,
    }
}

fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads everything that the file stores, holes left out, and answers what the disk says of it: the first error and its
/// place in bytes.
///
/// # Errors
/// If the file's length cannot be asked for.
pub(super) fn scan(file: &File, progress: Progress<'_>) -> io::Result<Option<(u64, io::Error)>> {
    let length = file.metadata()?.len();
    let mut buffer = vec![0; PIECE];
    let mut at = seek_data(file, 0, length);
    while at < length {
        let end = seek_hole(file, at, length);
        while at < end {
            let count = usize::try_from((end - at).min(PIECE as u64)).unwrap_or(PIECE);
            if let Err(error) = file.read_exact_at(&mut buffer[..count], at) {
                return Ok(Some((at, error)));
            }
            at += count as u64;
            progress(at);
        }
        at = seek_data(file, at, length);
    }
    Ok(None)
}

/// Writes the device's whole content to `sink`: a regular file becomes sparse and is synced, anything else gets every
/// byte.
///
/// # Errors
/// If the device cannot be read or the sink not written.
pub fn export(device: &dyn BlockDevice, sink: &File, progress: Progress<'_>) -> Result<Moved, DeviceError> {
    let unwritable = |error| DeviceError::io("the image cannot be written", error);
    let regular = sink.metadata().map_err(unwritable)?.file_type().is_file();
    let length = device.size();
    let mut moved = Moved { length, stored: 0 };
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let mut end = at;
        for extent in device.extents(at, length - at)? {
            end += extent.length;
            if extent.zero && regular {
                at = end;
                progress(at);
                continue;
            }
            while at < end {
                let count = usize::try_from((end - at).min(PIECE as u64)).unwrap_or(PIECE);
                if extent.zero {
                    buffer[..count].fill(0);
                } else {
                    device.read_at(at, &mut buffer[..count])?;
                }
                if regular {
                    for_runs(&buffer[..count], |start, run, zero| {
                        if zero {
                            return Ok(());
                        }
                        moved.stored += run.len() as u64;
                        sink.write_all_at(run, at + start as u64)
                    })
                    .map_err(unwritable)?;
                } else {
                    let mut sink = sink;
                    sink.write_all(&buffer[..count]).map_err(unwritable)?;
                    moved.stored += count as u64;
                }
                at += count as u64;
                progress(at);
            }
        }
    }
    if regular {
        sink.set_len(length).map_err(unwritable)?;
        sink.sync_all().map_err(unwritable)?;
    }
    Ok(moved)
}

/// Writes `length` bytes of the device from `offset` to `sink`.
///
/// # Errors
/// If the range is not inside the device, cannot be read, or the sink cannot be written.
pub fn read_range(device: &dyn BlockDevice, offset: u64, length: u64, sink: &mut dyn Write) -> Result<(), DeviceError> {
    let end = offset.checked_add(length).filter(|end| *end <= device.size()).ok_or_else(|| {
        DeviceError::new(
            DeviceErrorKind::OutOfRange,
            format!("{length} bytes from {offset} are not inside the volume's {} bytes", device.size()),
        )
    })?;
    let mut buffer = vec![0; usize::try_from(length.min(PIECE as u64)).unwrap_or(PIECE)];
    let mut at = offset;
    while at < end {
        let count = usize::try_from((end - at).min(PIECE as u64)).unwrap_or(PIECE);
        device.read_at(at, &mut buffer[..count])?;
        sink.write_all(&buffer[..count]).map_err(|error| DeviceError::io("the bytes cannot be written out", error))?;
        at += count as u64;
    }
    sink.flush().map_err(|error| DeviceError::io("the bytes cannot be written out", error))
}

/// Writes what `source` holds to the device from `offset` on, durable when this returns; answers how many bytes.
///
/// # Errors
/// If the source does not end before the device does (what fits is written then), cannot be read, or the device fails.
pub fn write_range(device: &dyn BlockDevice, offset: u64, source: &mut dyn Read) -> Result<u64, DeviceError> {
    let mut buffer = vec![0; PIECE];
    let mut at = offset;
    loop {
        let count = read_full(&mut { &mut *source }, &mut buffer)
            .map_err(|error| DeviceError::io("the bytes cannot be read in", error))?;
        let fits = device.size().saturating_sub(at).min(count as u64);
        let part = &buffer[..usize::try_from(fits).unwrap_or(count)];
        if !part.is_empty() {
            device.write_at(at, part)?;
            at += fits;
        }
        if fits < count as u64 {
            device.flush()?;
            return Err(DeviceError::new(
                DeviceErrorKind::OutOfRange,
                format!("the input goes past the volume's end at byte {}; what fits was written", device.size()),
            ));
        }
        if count < buffer.len() {
            device.flush()?;
            return Ok(at - offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Extent;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::Mutex;

    /// A device in memory that counts how many bytes were written to it and where it was zeroed.
    struct Memory {
        bytes: Mutex<Vec<u8>>,
        written: Mutex<u64>,
    }

    impl Memory {
        fn new(length: usize) -> Self {
            Self { bytes: Mutex::new(vec![0xee; length]), written: Mutex::new(0) }
        }

        fn range(&self, offset: u64, length: usize) -> Result<std::ops::Range<usize>, DeviceError> {
            let start = usize::try_from(offset).unwrap();
            if start + length > self.bytes.lock().unwrap().len() {
                return Err(DeviceError::new(DeviceErrorKind::OutOfRange, "outside"));
            }
            Ok(start..start + length)
        }
    }

    impl BlockDevice for Memory {
        fn size(&self) -> u64 {
            self.bytes.lock().unwrap().len() as u64
        }
        fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
            let range = self.range(offset, into.len())?;
            into.copy_from_slice(&self.bytes.lock().unwrap()[range]);
            Ok(())
        }
        fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
            let range = self.range(offset, data.len())?;
            self.bytes.lock().unwrap()[range].copy_from_slice(data);
            *self.written.lock().unwrap() += data.len() as u64;
            Ok(())
        }
        fn write_zeroes(&self, offset: u64, length: u64, _: ZeroMode) -> Result<(), DeviceError> {
            let range = self.range(offset, usize::try_from(length).unwrap())?;
            self.bytes.lock().unwrap()[range].fill(0);
            Ok(())
        }
        fn flush(&self) -> Result<(), DeviceError> {
            Ok(())
        }
        fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
            let range = self.range(offset, usize::try_from(length).unwrap())?;
            let bytes = self.bytes.lock().unwrap();
            let first = is_all_zero(&bytes[range.start..range.end.min(range.start + 512)]);
            let run =
                bytes[range].chunks(512).take_while(|unit| is_all_zero(unit) == first).map(<[u8]>::len).sum::<usize>();
            Ok(vec![Extent { length: run as u64, hole: first, zero: first }])
        }
    }

    /// Holes, data, a zero run inside data and an end that is no multiple of anything.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 5_000_123];
        for (index, byte) in image.iter_mut().enumerate() {
            if (1_100_000..2_300_000).contains(&index) || index > 4_900_000 {
                *byte = u8::try_from(index % 251).unwrap() | 1;
            }
        }
        image[1_200_000..1_300_000].fill(0);
        image
    }

    fn sparse_file(image: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(image.len() as u64).unwrap();
        for (index, grain) in image.chunks(4096).enumerate() {
            if !is_all_zero(grain) {
                file.write_all_at(grain, index as u64 * 4096).unwrap();
            }
        }
        file
    }

    fn pipe_of(bytes: Vec<u8>) -> File {
        let (read, write): (OwnedFd, OwnedFd) = nix::unistd::pipe().unwrap();
        std::thread::spawn(move || File::from(write).write_all(&bytes));
        File::from(read)
    }

    #[test]
    fn an_image_goes_in_and_comes_out_the_same_and_sparse() {
        let image = image();
        for stream in [false, true] {
            let source = if stream { pipe_of(image.clone()) } else { sparse_file(&image) };
            let source = Source::of(source).unwrap();
            assert_eq!(matches!(source, Source::Stream(_)), stream);
            let device = Memory::new(6 << 20);
            let mut last = 0;
            let moved = import(&device, &source, &mut |at| {
                assert!(at >= last);
                last = at;
            })
            .unwrap();
            assert_eq!((moved.length, last), (image.len() as u64, 6 << 20));
            assert_eq!(moved.stored, *device.written.lock().unwrap());
            assert!(moved.stored < 1_400_000, "zeros were written: {moved:?}");
            let mut wanted = image.clone();
            wanted.resize(6 << 20, 0);
            assert!(*device.bytes.lock().unwrap() == wanted, "behind the image's end are zeros");

            let out = tempfile::tempfile().unwrap();
            export(&device, &out, &mut |_| ()).unwrap();
            let mut back = vec![0; 6 << 20];
            out.read_exact_at(&mut back, 0).unwrap();
            assert!(back == wanted && out.metadata().unwrap().len() == 6 << 20);
            assert!(out.metadata().unwrap().blocks() * 512 < 2 << 20, "the exported file is sparse");
        }
    }

    #[test]
    fn an_image_that_is_too_long_changes_nothing_when_its_length_is_known() {
        let device = Memory::new(1 << 20);
        let source = Source::of(sparse_file(&vec![7; (1 << 20) + 1])).unwrap();
        assert_eq!(import(&device, &source, &mut |_| ()).unwrap_err().kind(), DeviceErrorKind::OutOfRange);
        assert!(device.bytes.lock().unwrap().iter().all(|byte| *byte == 0xee));
        let source = Source::of(pipe_of(vec![7; (1 << 20) + 1])).unwrap();
        assert_eq!(import(&device, &source, &mut |_| ()).unwrap_err().kind(), DeviceErrorKind::OutOfRange);
    }

    #[test]
    fn ranges_in_and_out_stop_at_the_end() {
        let device = Memory::new(10_000);
        assert_eq!(write_range(&device, 100, &mut &b"hello"[..]).unwrap(), 5);
        let mut out = Vec::new();
        read_range(&device, 99, 7, &mut out).unwrap();
        assert_eq!(out, b"\xeehello\xee");
        let error = write_range(&device, 9_998, &mut &b"hello"[..]).unwrap_err();
        assert_eq!(error.kind(), DeviceErrorKind::OutOfRange);
        assert_eq!(&device.bytes.lock().unwrap()[9_997..], b"\xeehe");
        for (offset, length) in [(9_999, 2), (10_001, 0), (u64::MAX, 2)] {
            assert!(read_range(&device, offset, length, &mut out).is_err(), "{offset} {length}");
        }
        read_range(&device, 10_000, 0, &mut out).unwrap();
    }
}
