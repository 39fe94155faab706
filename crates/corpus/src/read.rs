//! Reading a file into memory: once, into one buffer, with nothing taken on trust.
//!
//! A file says how long it is, so what it needs is known before it is read. A pipe does not, and may never end: it
//! gets half of the memory that is there when reading begins, and is refused beyond that.

use crate::{AlphabetKind, CorpusError, Normalizer, Progress, npy};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// Bytes read between two reports of progress.
const PIECE: u64 = 1 << 20;

/// Appends the content of a text or `.npy` file to `buffer`; says whether it is ids.
pub(crate) fn append(
    path: &Path,
    alphabet: AlphabetKind,
    normalize: bool,
    buffer: &mut Vec<u8>,
    progress: &mut dyn FnMut(Progress),
) -> Result<bool, CorpusError> {
    let name = path.display().to_string();
    let failed = |source| CorpusError::io("read", path, source);
    let (mut file, length) = open(path)?;
    let mut start = Vec::new();
    (&mut file).take(8).read_to_end(&mut start).map_err(failed)?;
    let ids = npy::is_npy(&start) || path.extension().is_some_and(|extension| extension == "npy");
    if !ids
        && (normalize || alphabet != AlphabetKind::Bytes)
        && let Some(format) = packed(&start)
    {
        return Err(CorpusError::Packed { name, format });
    }
    let is_empty = start.is_empty();
    let mut input = io::Cursor::new(start).chain(file);
    if ids {
        if normalize {
            return Err(CorpusError::NeedsText { name, option: "--normalize" });
        }
        if alphabet == AlphabetKind::Auto {
            return Err(CorpusError::NeedsText { name, option: "--alphabet auto" });
        }
        append_ids(&mut input, length, &name, buffer, progress)?;
    } else if normalize {
        let before = buffer.len();
        append_normalized(&mut input, length, &name, buffer, progress)?;
        if buffer.len() == before && !is_empty {
            return Err(CorpusError::NothingLeft { name });
        }
    } else {
        reserve(buffer, length.unwrap_or(0), &name)?;
        append_pieces(&mut input, u64::MAX, length, &name, buffer, &Room::new(buffer), progress)?;
    }
    Ok(ids)
}

/// Opens a file for reading; its length if it is a plain file (a pipe has none).
pub(crate) fn open(path: &Path) -> Result<(File, Option<u64>), CorpusError> {
    let failed = |source| CorpusError::io("read", path, source);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CorpusError::Missing { name: path.display().to_string() });
        }
        file => file.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::Error::other("it is a folder")));
    }
    if is_device(&metadata) {
        return Err(failed(io::Error::other("it is a device")));
    }
    Ok((file, metadata.is_file().then_some(metadata.len())))
}

/// Whether this is a device: a terminal, a disk, `/dev/zero`. None of them is a text, and some never end.
#[cfg(unix)]
fn is_device(metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_char_device() || metadata.file_type().is_block_device()
}

#[cfg(not(unix))]
fn is_device(_: &Metadata) -> bool {
    false
}

/// The packed format that a file begins with, by its magic number.
fn packed(start: &[u8]) -> Option<&'static str> {
    let formats: [(&[u8], &str); 5] = [
        (b"PK\x03\x04", "zip"),
        (b"\x1F\x8B", "gzip"),
        (b"\xFD7zXZ\0", "xz"),
        (b"\x28\xB5\x2F\xFD", "zstd"),
        (b"7z\xBC\xAF\x27\x1C", "7z"),
    ];
    formats.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, format)| *format)
}

/// Appends up to `limit` bytes; returns how many there were. Beyond its capacity the buffer takes `room`.
fn append_pieces(
    input: &mut dyn Read,
    limit: u64,
    total: Option<u64>,
    name: &str,
    buffer: &mut Vec<u8>,
    room: &Room,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, CorpusError> {
    let failed = |source| CorpusError::Io { action: "read", path: name.to_owned(), source };
    let mut done = 0;
    loop {
        if buffer.len() == buffer.capacity() && done < limit {
            // Full: there has to be more before more room is made.
            let mut next = Vec::with_capacity(1);
            if input.take(1).read_to_end(&mut next).map_err(failed)? == 0 {
                return Ok(done);
            }
            room.take(buffer, PIECE, name)?;
            buffer.append(&mut next);
            done += 1;
        }
        let free = (buffer.capacity() - buffer.len()) as u64;
        // `read_to_end` does not grow a buffer that has the room.
        let n = input.take(PIECE.min(limit - done).min(free)).read_to_end(buffer).map_err(failed)?;
        done += n as u64;
        progress(Progress { what: "reading", done, total });
        if n == 0 || done == limit {
            return Ok(done);
        }
    }
}

fn append_ids(
    input: &mut dyn Read,
    length: Option<u64>,
    name: &str,
    buffer: &mut Vec<u8>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), CorpusError> {
    let wrong = |problem| Err(CorpusError::Npy { name: name.to_owned(), problem });
    let header = npy::read_header(input, name)?;
    let elements = header.elements;
    if let Some(length) = length {
        let there = length.saturating_sub(header.offset);
        if there < elements {
            return wrong(format!("it claims {elements} elements, and the file has {there}"));
        }
        reserve(buffer, elements, name)?;
    }
    let room = Room::new(buffer);
    let found = append_pieces(input, elements, Some(elements), name, buffer, &room, progress)?;
    if found < elements {
        return wrong(format!("it claims {elements} elements, and the file has {found}"));
    }
    let mut more = [0];
    match input.read(&mut more) {
        Ok(0) => Ok(()),
        Ok(_) => wrong(format!("there are more bytes behind its {elements} elements")),
        Err(source) => Err(CorpusError::Io { action: "read", path: name.to_owned(), source }),
    }
}

fn append_normalized(
    input: &mut dyn Read,
    length: Option<u64>,
    name: &str,
    buffer: &mut Vec<u8>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), CorpusError> {
    // A text mostly shrinks; one full of digits grows.
    reserve(buffer, length.unwrap_or(0), name)?;
    let room = Room::new(buffer);
    let mut normalizer = Normalizer::new();
    let mut piece = Vec::new();
    let mut done = 0;
    loop {
        piece.clear();
        input.take(PIECE / 16).read_to_end(&mut piece).map_err(|source| CorpusError::Io {
            action: "read",
            path: name.to_owned(),
            source,
        })?;
        if piece.is_empty() {
            return Ok(());
        }
        let growth = Normalizer::growth(piece.len());
        if buffer.capacity() - buffer.len() < growth {
            room.take(buffer, growth as u64, name)?;
        }
        normalizer.push(&piece, buffer);
        done += piece.len() as u64;
        progress(Progress { what: "normalizing", done, total: length });
    }
}

/// The room that a buffer may take beyond what was reserved for a known length.
struct Room {
    /// The most bytes that the buffer may have.
    most: Option<u64>,
}

impl Room {
    /// Half of the memory that is left, beside what `buffer` has already.
    fn new(buffer: &Vec<u8>) -> Self {
        Self { most: diapason_memory::available().map(|left| buffer.capacity() as u64 + left / 2) }
    }

    /// Makes room for `bytes` more bytes, and an eighth of what there is: not double, since the buffer may be most
    /// of the memory.
    fn take(&self, buffer: &mut Vec<u8>, bytes: u64, name: &str) -> Result<(), CorpusError> {
        let more = bytes + buffer.len() as u64 / 8;
        match self.most {
            Some(most) if buffer.len() as u64 + more > most => {
                Err(CorpusError::Endless { name: name.to_owned(), most_gib: gib(most) })
            }
            _ => reserve(buffer, more, name),
        }
    }
}

/// Makes room for `bytes` more bytes, or says that there is not enough memory.
fn reserve(buffer: &mut Vec<u8>, bytes: u64, name: &str) -> Result<(), CorpusError> {
    check_memory(name, bytes)?;
    match usize::try_from(bytes).map(|bytes| buffer.try_reserve_exact(bytes)) {
        Ok(Ok(())) => Ok(()),
        // A limit of this process (`ulimit -v`), which the machine's figures do not show.
        _ => Err(CorpusError::Io {
            action: "read",
            path: name.to_owned(),
            source: io::ErrorKind::OutOfMemory.into(),
        }),
    }
}

/// Fails if `bytes` are more than the machine has left.
pub(crate) fn check_memory(name: &str, bytes: u64) -> Result<(), CorpusError> {
    match diapason_memory::available() {
        Some(available) if bytes > available => Err(memory_error(name, bytes, available)),
        _ => Ok(()),
    }
}

fn memory_error(name: &str, needed: u64, available: u64) -> CorpusError {
    CorpusError::Memory { name: name.to_owned(), needed_gib: gib(needed), available_gib: gib(available) }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(input: &mut dyn Read, buffer: &mut Vec<u8>, most: u64) -> Result<u64, CorpusError> {
        append_pieces(input, u64::MAX, None, "pipe", buffer, &Room { most: Some(most) }, &mut |_| {})
    }

    #[test]
    fn what_never_ends_is_refused() {
        let mut buffer = Vec::new();
        let error = append(&mut io::repeat(b'x'), &mut buffer, 20 << 20).unwrap_err();
        assert!(matches!(error, CorpusError::Endless { .. }) && error.hint().is_some(), "{error}");
        assert!(buffer.capacity() <= 20 << 20);
    }

    #[test]
    fn what_ends_is_read_whole() {
        for length in [0, 1, 31, 32, 33, 1 << 20, (1 << 20) + 1, 5_000_001] {
            // With the room that is needed, with less, and with none.
            for reserved in [length, length / 2, 0] {
                let mut buffer = Vec::with_capacity(reserved);
                let read = append(&mut io::repeat(b'x').take(length as u64), &mut buffer, 20 << 20).unwrap();
                assert_eq!((read, buffer.len()), (length as u64, length));
                assert!(reserved < length || buffer.capacity() == reserved, "{length}");
            }
        }
    }
}
