//! Converting files: what the commands `corpus encode`, `decode` and `normalize` do.
//!
//! Each goes from a file to a writer; [`write_atomically`](crate::write_atomically) makes a file of the writer.

use crate::files::output_failed;
use crate::{Alphabet, AlphabetKind, CorpusError, Progress, npy, read};
use std::io::Write;
use std::path::Path;

/// Encodes a text as a `.npy` file of ids. Returns the alphabet and the number of ids.
///
/// # Errors
///
/// The text cannot be read or encoded, or `output` not be written.
pub fn encode(
    input: &Path,
    alphabet: AlphabetKind,
    normalize: bool,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Alphabet, usize), CorpusError> {
    let name = input.display().to_string();
    let mut buffer = Vec::new();
    if read::append(input, alphabet, normalize, &mut buffer, progress)? {
        return Err(CorpusError::NeedsText { name, option: "encode" });
    }
    if buffer.is_empty() {
        return Err(CorpusError::Empty { name });
    }
    let alphabet = match alphabet {
        AlphabetKind::Text8 => Alphabet::text8(),
        AlphabetKind::Bytes => Alphabet::bytes(),
        AlphabetKind::Auto => Alphabet::auto_of_parts(&[(&name, &buffer)])?,
    };
    let length = alphabet.encode_in_place(&mut buffer, &name)?;
    npy::write(output, &buffer[..length]).map_err(output_failed)?;
    output.flush().map_err(output_failed)?;
    Ok((alphabet, length))
}

/// Decodes a `.npy` file of ids to text. Returns the number of ids.
///
/// # Errors
///
/// The file is not a `.npy` file of ids of `alphabet`, or `output` cannot be written.
pub fn decode(
    input: &Path,
    alphabet: &Alphabet,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<usize, CorpusError> {
    let name = input.display().to_string();
    let mut ids = Vec::new();
    // Ids are read as bytes: the alphabet's own check follows, and knows how many it has.
    if !read::append(input, AlphabetKind::Bytes, false, &mut ids, progress)? {
        return Err(CorpusError::Npy {
            name,
            problem: "this is not a .npy file: it does not begin with \\x93NUMPY".into(),
        });
    }
    alphabet.check_ids(&ids, &name)?;
    for piece in ids.chunks(1 << 16) {
        output.write_all(&alphabet.decode(piece)?).map_err(output_failed)?;
    }
    output.flush().map_err(output_failed)?;
    Ok(ids.len())
}

/// Normalises a text by text8's rules, in constant memory. Returns the number of bytes written.
///
/// # Errors
///
/// The text cannot be read, or `output` not be written.
pub fn normalize(
    input: &Path,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, CorpusError> {
    let (mut file, length) = read::open(input)?;
    crate::normalize::normalize(&mut file, output, length, progress).map_err(|error| match error {
        CorpusError::Io { action: "read", source, .. } => CorpusError::io("read", input, source),
        error => error,
    })
}
