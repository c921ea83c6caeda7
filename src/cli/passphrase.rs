//! The passphrase that a home's root key is made of, from the file that the user names.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::CliError;
use crate::secret::SecretBytes;
use crate::twin::{self, Protection};

/// The longest passphrase, in bytes.
const MAX_BYTES: usize = 4096;

/// Reads a passphrase: all bytes of the file but one line end (`\n` or `\r\n`) at its very end, which editors add.
///
/// A pipe or another special file is read as it is; a regular file must be its owner's alone, as `root.key` must.
///
/// # Errors
/// A configuration error that names the file and what to do.
pub(super) fn read(path: &Path) -> Result<SecretBytes, CliError> {
    let refused = |what: String| CliError::configuration(format!("the passphrase file {} {what}", path.display()));
    let unreadable = |error| refused(format!("cannot be read: {error}"));
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_file() && mode & 0o077 != 0 && !twin::is_off(Protection::Private) {
        return Err(refused(format!("can be read by others (mode {mode:04o}); run: chmod 600 {}", path.display())));
    }
    // Two bytes for the line end and one that tells that there is more.
    let mut length = 0;
    let text = SecretBytes::try_new_with(MAX_BYTES + 3, |buffer| {
        loop {
            match file.read(&mut buffer[length..]) {
                Ok(0) => return Ok(()),
                Ok(count) => length += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
    })?;
    let text = &text.expose()[..length];
    let text = text.strip_suffix(b"\n").map_or(text, |line| line.strip_suffix(b"\r").unwrap_or(line));
    match text.len() {
        0 => Err(refused("is empty".to_owned())),
        length if length > MAX_BYTES => Err(refused(format!("holds more than {MAX_BYTES} bytes"))),
        length => Ok(SecretBytes::new_with(length, |passphrase| passphrase.copy_from_slice(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::without;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn one_line_end_is_left_out_and_nothing_else() {
        let longest = vec![b'x'; MAX_BYTES];
        for (content, wanted) in [
            (&b"correct horse"[..], &b"correct horse"[..]),
            (b"correct horse\n", b"correct horse"),
            (b"correct horse\r\n", b"correct horse"),
            (b"correct horse\n\n", b"correct horse\n"),
            (b" \xff\x00 \r", b" \xff\x00 \r"),
            (&longest, &longest),
            (&[&longest[..], b"\r\n"].concat(), &longest),
        ] {
            assert!(read(file(content, 0o600).path()).unwrap().ct_eq(wanted), "{}", content.escape_ascii());
        }
    }

    #[test]
    fn a_file_that_is_no_passphrase_or_not_private_is_refused() {
        let said = |content: &[u8], mode| {
            let error = read(file(content, mode).path()).unwrap_err();
            assert_eq!(error.exit_code(), 253);
            error.report(false)
        };
        assert!(said(b"", 0o600).contains("is empty"));
        assert!(said(b"\n", 0o600).contains("is empty"));
        assert!(said(&vec![b'x'; MAX_BYTES + 1], 0o600).contains("more than 4096 bytes"));
        assert!(said(&vec![b'x'; 1 << 20], 0o600).contains("more than 4096 bytes"));
        for mode in [0o640, 0o604, 0o620, 0o610] {
            assert!(said(b"correct horse", mode).contains("chmod 600"), "{mode:o}");
        }
        assert!(without(Protection::Private, || read(file(b"correct horse", 0o644).path())).is_ok());
        assert!(read(Path::new("/nowhere/at/all")).unwrap_err().report(false).contains("cannot be read"));
        assert!(read(Path::new("/")).unwrap_err().report(false).contains("cannot be read"));
    }
}
