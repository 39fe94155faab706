//! Reading a file into memory: once, into one buffer, with nothing taken on trust.

use crate::{AlphabetKind, CorpusError, Normalizer, Progress, npy};
use std::fs::File;
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
        append_normalized(&mut input, length, &name, buffer, progress)?;
    } else {
        reserve(buffer, length.unwrap_or(0), &name)?;
        append_pieces(&mut input, u64::MAX, length, &name, buffer, progress)?;
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
    Ok((file, metadata.is_file().then_some(metadata.len())))
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

/// Appends up to `limit` bytes; returns how many there were.
fn append_pieces(
    input: &mut dyn Read,
    limit: u64,
    total: Option<u64>,
    name: &str,
    buffer: &mut Vec<u8>,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, CorpusError> {
    let mut done = 0;
    loop {
        // `read_to_end` does not grow a buffer whose capacity is exactly right.
        let n = input
            .take(PIECE.min(limit - done))
            .read_to_end(buffer)
            .map_err(|source| CorpusError::Io { action: "read", path: name.to_owned(), source })?;
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
    let found = append_pieces(input, elements, Some(elements), name, buffer, progress)?;
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
            // By an eighth, not double: the buffer may be most of the memory.
            reserve(buffer, (growth + buffer.len() / 8) as u64, name)?;
        }
        normalizer.push(&piece, buffer);
        done += piece.len() as u64;
        progress(Progress { what: "normalizing", done, total: length });
    }
}

/// Makes room for `bytes` more bytes, or says that there is not enough memory.
fn reserve(buffer: &mut Vec<u8>, bytes: u64, name: &str) -> Result<(), CorpusError> {
    check_memory(name, bytes)?;
    match usize::try_from(bytes).map(|bytes| buffer.try_reserve_exact(bytes)) {
        Ok(Ok(())) => Ok(()),
        _ => Err(memory_error(name, bytes, available_memory().unwrap_or(0))),
    }
}

/// Fails if `bytes` are more than the machine has left.
pub(crate) fn check_memory(name: &str, bytes: u64) -> Result<(), CorpusError> {
    match available_memory() {
        Some(available) if bytes > available => Err(memory_error(name, bytes, available)),
        _ => Ok(()),
    }
}

fn memory_error(name: &str, needed: u64, available: u64) -> CorpusError {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    CorpusError::Memory { name: name.to_owned(), needed_gib: gib(needed), available_gib: gib(available) }
}

/// Bytes of memory that can still be had, where the system says so (Linux).
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
