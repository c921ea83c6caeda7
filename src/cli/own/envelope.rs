//! `volume inspect --envelope`: the way from the KMS key to a sector, drawn with the real bytes.

use std::fmt::Write as _;

use crate::device::volume;
use crate::ec2::{self, Access, Inspection};
use crate::gate::{Call, ServiceError};
use crate::luks2::{DATA_OFFSET, Header};
use crate::units::UnitIndex;

/// Bytes of a sector that are shown.
const SHOWN: usize = 48;

/// Draws the envelope of a volume around the sector that holds the byte at `offset`.
///
/// The plaintext is read as any reader would read it: through the exporter, or with a recorded `Decrypt`. If KMS refuses,
/// the drawing says so where the plaintext would stand.
pub(super) fn draw(call: &Call<'_>, found: &Inspection, offset: u64) -> Result<String, ServiceError> {
    let id = found.described.volume_id.parse().map_err(ServiceError::machine)?;
    let Some(header) = &found.file.header else {
        return Ok(format!("{id} is not encrypted: {} holds its bytes as they are.\n", found.file.file));
    };
    let (header, _) = header.as_ref().map_err(|error| ServiceError::machine(error.to_string()))?;
    let sector_bytes = header.sector_size().bytes() as u64;
    let start = offset - offset % sector_bytes;
    // Lines of 16 bytes from the one with the wanted byte on, all inside its sector.
    let first = (offset - offset % 16).min(start + sector_bytes - SHOWN as u64);
    let mut stored = [0; SHOWN];
    volume::stored_bytes(call.home.dir(), &id, DATA_OFFSET.saturating_add(first), &mut stored)?;
    let mut text = String::new();
    draw_keys(&mut text, found, header);
    draw_sector(&mut text, header, start, first);
    match plaintext(call, &found.described.volume_id, first) {
        Ok(plain) => dump(&mut text, "plaintext", &plain),
        Err(error) => {
            let _ = writeln!(text, "                  plaintext: not to be had. {error}");
        }
    }
    dump(&mut text, "on disk", &stored);
    if stored.iter().all(|byte| *byte == 0) {
        text.push_str("                  (nothing is stored here: an all-zero unit reads as zeros)\n");
    }
    Ok(text)
}

fn draw_keys(text: &mut String, found: &Inspection, header: &Header) {
    let wrapped = header.wrapped_key();
    let _ = writeln!(text, "KMS key           {}", wrapped.key_arn);
    text.push_str("   |              stays inside KMS; wraps under the encryption context\n");
    for (name, value) in &wrapped.encryption_context {
        let _ = writeln!(text, "   |                {name} = {value}");
    }
    if wrapped.encryption_context != found.context {
        let _ = writeln!(text, "   |                (NOT this volume's context, which is {:?})", found.context);
    }
    text.push_str("   v\n");
    let _ = writeln!(
        text,
        "data key          64 bytes = two AES-256 keys, wrapped in {} bytes, in the header of\n                  {}",
        wrapped.blob.len(),
        found.file.file
    );
    for line in wrapped.blob.chunks(24).take(2) {
        let _ = writeln!(text, "                  {}", spaced(line));
    }
    let _ = writeln!(text, "   |              ... {} bytes more", wrapped.blob.len().saturating_sub(48));
    let _ = writeln!(text, "   |  known by      PBKDF2-SHA256 {} ...", spaced(&header.digest().value()[..12]));
    text.push_str("   v\n");
}

fn draw_sector(text: &mut String, header: &Header, start: u64, first: u64) {
    let unit = UnitIndex::containing(start).0;
    let _ = writeln!(
        text,
        "sector            {} bytes from byte {start} of the volume, byte {} of the file",
        header.sector_size(),
        DATA_OFFSET + start
    );
    let _ = writeln!(text, "                  AES-256-XTS, tweak {unit} (the number of its first 512-byte unit);");
    let _ = writeln!(text, "                  {SHOWN} bytes of it, from byte {first} on:");
}

fn plaintext(call: &Call<'_>, volume_id: &str, first: u64) -> Result<[u8; SHOWN], ServiceError> {
    let opened = ec2::open(call, volume_id, Access::Read)?;
    let mut plain = [0; SHOWN];
    opened.device().read_at(first, &mut plain)?;
    Ok(plain)
}

/// Sixteen bytes a line, in hex and as text.
fn dump(text: &mut String, title: &str, bytes: &[u8]) {
    for (index, line) in bytes.chunks(16).enumerate() {
        let letters: String =
            line.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        let title = if index == 0 { title } else { "" };
        let _ = writeln!(text, "   {title:<15}{}  {letters}", spaced(line));
    }
}

fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
