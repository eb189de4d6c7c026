//! Sequences of rows in a snapshot: a count, then each row behind its length.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// No row is longer: a length beyond this is damage, not data.
const MAX_ROW_BYTES: u32 = 64 << 20;

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Writes one row.
///
/// # Errors
/// Those of `out`, and if the row is longer than 64 MiB.
pub fn write_row<T: Serialize>(row: &T, buffer: &mut Vec<u8>, out: &mut dyn Write) -> io::Result<()> {
    buffer.clear();
    let bytes = postcard::to_extend(row, std::mem::take(buffer)).map_err(invalid)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MAX_ROW_BYTES);
    out.write_all(&length.ok_or_else(|| invalid("a row longer than 64 MiB"))?.to_le_bytes())?;
    out.write_all(&bytes)?;
    *buffer = bytes;
    Ok(())
}

/// Writes `count` rows.
///
/// # Errors
/// Those of [`write_row`].
pub fn write<T: Serialize>(count: usize, rows: impl Iterator<Item = T>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&(count as u64).to_le_bytes())?;
    let mut buffer = Vec::new();
    rows.into_iter().try_for_each(|row| write_row(&row, &mut buffer, out))
}

/// Reads one row.
///
/// # Errors
/// Those of `input`, and if the bytes are no such row.
pub fn read_row<T: DeserializeOwned>(buffer: &mut Vec<u8>, input: &mut dyn Read) -> io::Result<T> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_ROW_BYTES {
        return Err(invalid(format!("a row of {length} bytes")));
    }
    buffer.resize(length as usize, 0);
    input.read_exact(buffer)?;
    postcard::from_bytes(buffer).map_err(invalid)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// Those of [`read_row`].
pub fn read<T: DeserializeOwned>(input: &mut dyn Read, mut take: impl FnMut(T)) -> io::Result<()> {
    let mut count = [0; 8];
    input.read_exact(&mut count)?;
    let mut buffer = Vec::new();
    for _ in 0..u64::from_le_bytes(count) {
        take(read_row(&mut buffer, input)?);
    }
    Ok(())
}
