//! Any text, by text8's rules.
//!
//! text8 was made from Wikipedia by Matt Mahoney's script `wikifil.pl`. Its last lines are the rules here: A-Z
//! become a-z, each digit becomes its English word, and every other run of bytes becomes one space. As there,
//!
//! - each word is preceded by a space, the first one too, and nothing follows the last: the text begins with a
//!   space and does not end with one;
//! - the rules are about bytes: a letter with an accent is not among a-z, and its bytes become a space
//!   ("naïve" becomes " na ve"). So no encoding is wrong, and no input is an error.
//!
//! The script's other half, which strips Wikipedia's markup, is not here: a text is taken to be a text.
//!
//! Every byte of input appends at most 6 bytes, all of which one table entry holds, together with their
//! number. The loop has no branch that depends on the text; only the leading space of a letter is skipped
//! within a word.

use crate::files::output_failed;
use crate::{CorpusError, Progress};
use std::io::{Read, Write};

/// The most bytes that one byte can become: a space and "three".
const LONGEST: usize = 6;

/// An entry is stored as a whole, so the output needs this much room behind the last byte.
const ENTRY: usize = 8;

/// Bytes read at a time; the output of a piece stays in the second-level cache.
const PIECE: usize = 1 << 15;

/// What each byte becomes. Bits 0-47: up to 6 bytes, the first in the lowest place: a space and a letter, or a
/// space and a word. Bits 48-55: their number, 0 if the byte only separates. Bit 56: whether it is a letter.
static TABLE: [u64; 256] = table();

const fn table() -> [u64; 256] {
    const DIGITS: [&[u8]; 10] =
        [b" zero", b" one", b" two", b" three", b" four", b" five", b" six", b" seven", b" eight", b" nine"];
    let mut table = [0; 256];
    let mut i = 0;
    while i < 26 {
        let letter = b'a' + i;
        let entry = b' ' as u64 | (letter as u64) << 8 | 2 << 48 | 1 << 56;
        table[letter as usize] = entry;
        table[letter.to_ascii_uppercase() as usize] = entry;
        i += 1;
    }
    let mut digit = 0;
    while digit < 10 {
        let word = DIGITS[digit];
        let mut entry = (word.len() as u64) << 48;
        let mut at = 0;
        while at < word.len() {
            entry |= (word[at] as u64) << (8 * at);
            at += 1;
        }
        table[b'0' as usize + digit] = entry;
        digit += 1;
    }
    table
}

/// Normalises a text that comes in pieces; where the pieces are cut does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Normalizer {
    /// 1 if the last byte was a letter: the next letter continues its word.
    in_word: u64,
}

impl Normalizer {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the normalised `text` to `out`. Reserves what the text could at most become; see
    /// [`Normalizer::growth`].
    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for piece in text.chunks(PIECE) {
            let old = out.len();
            out.resize(old + Self::growth(piece.len()), 0);
            let new = self.fill(piece, &mut out[old..]);
            out.truncate(old + new);
        }
    }

    /// The most room that [`Normalizer::push`] wants for a text of so many bytes.
    pub fn growth(bytes: usize) -> usize {
        LONGEST * bytes + ENTRY
    }

    /// Writes the normalised `piece` to the start of `out` and returns its length.
    fn fill(&mut self, piece: &[u8], out: &mut [u8]) -> usize {
        let mut in_word = self.in_word;
        let mut at = 0;
        for &byte in piece {
            let entry = TABLE[usize::from(byte)];
            let letter = entry >> 56;
            // A letter within a word goes without its space.
            let skip = in_word & letter;
            // The bytes behind the entry's own are overwritten by the next.
            out[at..at + ENTRY].copy_from_slice(&(entry >> (8 * skip)).to_le_bytes());
            at += ((entry >> 48 & 0xFF) - skip) as usize;
            in_word = letter;
        }
        self.in_word = in_word;
        at
    }
}

/// The whole of `text`, normalised.
pub fn normalize_text(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Normalizer::new().push(text, &mut out);
    out
}

/// Normalises from `input` to `output` in constant memory. Returns the number of bytes written. Progress
/// counts bytes read, of `total` if that is known.
///
/// # Errors
///
/// Those of reading and writing; they name "the input" or "the output".
pub fn normalize(
    input: &mut dyn Read,
    output: &mut dyn Write,
    total: Option<u64>,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, CorpusError> {
    let mut normalizer = Normalizer::new();
    let mut piece = vec![0; PIECE];
    let mut normal = vec![0; Normalizer::growth(PIECE)];
    let (mut read, mut written) = (0, 0);
    loop {
        let n = match input.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(CorpusError::Io { action: "read", path: "the input".into(), source }),
        };
        let m = normalizer.fill(&piece[..n], &mut normal);
        output.write_all(&normal[..m]).map_err(output_failed)?;
        read += n as u64;
        written += m as u64;
        progress(Progress { what: "normalizing", done: read, total });
    }
    output.flush().map_err(output_failed)?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(String::from_utf8(normalize_text(text.as_bytes())).unwrap(), expected);
    }

    #[test]
    fn the_rules() {
        check("Anarchism originated as a term", " anarchism originated as a term");
        check("  Hello,\r\n\tWORLD!  \n", " hello world");
        check("In 1984, X2b.", " in one nine eight four x two b");
        check("0123456789", " zero one two three four five six seven eight nine");
        check("a0b", " a zero b");
        check("na\u{ef}ve caf\u{e9}", " na ve caf");
        check("don't", " don t");
        check("a", " a");
        check("7", " seven");
        check("", "");
        check("\u{4f60}\u{597d} ...\n", "");
    }

    #[test]
    fn invalid_utf8_separates() {
        assert_eq!(normalize_text(b"a\xFFb\xC3\x28c\xE2\x82"), b" a b c");
    }
}
