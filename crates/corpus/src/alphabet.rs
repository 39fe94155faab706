//! Alphabets: which characters a model knows, and the id of each.
//!
//! Ids are bytes, so a text of n characters is n bytes, and encoding happens in the buffer that the text was
//! read into: a text of 1 GB needs no second gigabyte. There are three ways to an alphabet. `text8` has the 27
//! characters of that corpus. `auto` has the characters that a UTF-8 text happens to use, up to 256 of them.
//! `bytes` takes every file as it is. What is outside is an error that says where: a replacement character
//! would quietly train on something else than the text.

use crate::CorpusError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How an alphabet is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlphabetKind {
    /// `a` to `z`, then space.
    #[default]
    Text8,
    /// The distinct characters of the text, in the order of their code points.
    Auto,
    /// All 256 bytes.
    Bytes,
}

impl fmt::Display for AlphabetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text8 => "text8",
            Self::Auto => "auto",
            Self::Bytes => "bytes",
        })
    }
}

impl FromStr for AlphabetKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text8" => Ok(Self::Text8),
            "auto" => Ok(Self::Auto),
            "bytes" => Ok(Self::Bytes),
            _ => Err(format!("unknown alphabet `{text}`: text8, auto and bytes are known")),
        }
    }
}

/// Marks what is not in an alphabet whose characters are all ASCII (at most 128 ids, so 255 is free).
const OUTSIDE: u8 = 0xFF;

/// Code points below this are looked up in a table, others by search. Latin, Greek, Cyrillic, Hebrew and
/// Arabic letters lie below.
const TABLE: usize = 0x800;

/// Bytes are checked in pieces of this size before they are overwritten, so that an error can still say what
/// was there.
const PIECE: usize = 1 << 14;

/// The characters of a model; the id of a character is its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Alphabet {
    kind: AlphabetKind,
    /// In the order of ids; empty for `bytes`.
    characters: Vec<char>,
}

impl fmt::Debug for Alphabet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alphabet({:?})", self.to_string_form())
    }
}

impl Alphabet {
    /// `a` to `z` (ids 0 to 25), then space (26).
    pub fn text8() -> Self {
        Self { kind: AlphabetKind::Text8, characters: ('a'..='z').chain([' ']).collect() }
    }

    /// All 256 bytes, each its own id.
    pub fn bytes() -> Self {
        Self { kind: AlphabetKind::Bytes, characters: Vec::new() }
    }

    /// The distinct characters of a UTF-8 text, sorted by code point.
    ///
    /// # Errors
    ///
    /// The text is empty, is not UTF-8, or has more than 256 different characters.
    pub fn auto(text: &[u8]) -> Result<Self, CorpusError> {
        Self::auto_of_parts(&[("the text", text)])
    }

    /// As [`Alphabet::auto`], over several named texts.
    pub(crate) fn auto_of_parts(parts: &[(&str, &[u8])]) -> Result<Self, CorpusError> {
        let mut seen = vec![false; TABLE];
        let mut others: Vec<char> = Vec::new();
        for (name, part) in parts {
            let text = utf8(part, name)?;
            for character in text.chars() {
                if let Some(seen) = seen.get_mut(character as usize) {
                    *seen = true;
                } else if let Err(place) = others.binary_search(&character) {
                    if others.len() == 256 {
                        return Err(CorpusError::TooManyCharacters { name: (*name).to_owned() });
                    }
                    others.insert(place, character);
                }
            }
        }
        let name = || parts.first().map_or("the text", |(name, _)| name).to_owned();
        let low = (0..TABLE as u32).filter(|&point| seen[point as usize]).filter_map(char::from_u32);
        let characters: Vec<char> = low.chain(others).collect();
        match characters.len() {
            0 => Err(CorpusError::Empty { name: name() }),
            1..=256 => Ok(Self { kind: AlphabetKind::Auto, characters }),
            _ => Err(CorpusError::TooManyCharacters { name: name() }),
        }
    }

    /// Number of ids V.
    #[allow(clippy::len_without_is_empty, reason = "an alphabet is never empty")]
    pub fn len(&self) -> usize {
        if self.kind == AlphabetKind::Bytes { 256 } else { self.characters.len() }
    }

    /// How it was chosen.
    pub fn kind(&self) -> AlphabetKind {
        self.kind
    }

    /// The character of `id` as text for people: itself, or escaped if it is invisible. `None` outside.
    pub fn symbol(&self, id: u8) -> Option<String> {
        if self.kind == AlphabetKind::Bytes {
            return Some(if id.is_ascii() { shown(id as char) } else { format!("0x{id:02X}") });
        }
        self.characters.get(usize::from(id)).map(|&character| shown(character))
    }

    /// The ids of `text`, one byte each.
    ///
    /// # Errors
    ///
    /// The first character that is not in the alphabet, with its byte and line; or bytes that are not UTF-8.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u8>, CorpusError> {
        let mut ids = text.to_vec();
        let length = self.encode_in_place(&mut ids, "the text")?;
        ids.truncate(length);
        Ok(ids)
    }

    /// Overwrites the text in `buffer` by its ids and returns their number: fewer than bytes if characters
    /// take several. `name` is for errors, after which the buffer holds neither text nor ids.
    pub(crate) fn encode_in_place(&self, buffer: &mut [u8], name: &str) -> Result<usize, CorpusError> {
        if self.kind == AlphabetKind::Bytes {
            return Ok(buffer.len());
        }
        if self.characters.iter().all(char::is_ascii) {
            return self.encode_ascii(buffer, name);
        }
        utf8(buffer, name)?;
        let mut table = vec![u16::MAX; TABLE];
        for (id, &character) in self.characters.iter().enumerate() {
            if let Some(entry) = table.get_mut(character as usize) {
                *entry = id as u16;
            }
        }
        // Ids are written behind the characters that are read: a character is at least a byte.
        let (mut read, mut written) = (0, 0);
        while read < buffer.len() {
            let (point, width) = decode_utf8(&buffer[read..]);
            let id = match table.get(point as usize) {
                Some(&id) => u8::try_from(id).ok(),
                None => self.search(point),
            };
            let Some(id) = id else {
                return Err(self.outside(buffer, written, read, name));
            };
            buffer[written] = id;
            written += 1;
            read += width;
        }
        Ok(written)
    }

    /// Encodes by one table look-up per byte.
    fn encode_ascii(&self, buffer: &mut [u8], name: &str) -> Result<usize, CorpusError> {
        let mut table = [OUTSIDE; 256];
        for (id, &character) in self.characters.iter().enumerate() {
            table[character as usize] = id as u8;
        }
        let mut done = 0;
        while done < buffer.len() {
            let end = buffer.len().min(done + PIECE);
            let piece = &mut buffer[done..end];
            let all = piece.iter().fold(0, |all, &byte| all | table[usize::from(byte)]);
            // Ids of an ASCII alphabet stay below 128.
            if all & 0x80 != 0 {
                let first = piece.iter().position(|&byte| table[usize::from(byte)] == OUTSIDE).unwrap_or(0);
                for byte in &mut piece[..first] {
                    *byte = table[usize::from(*byte)];
                }
                return Err(self.outside(buffer, done + first, done + first, name));
            }
            for byte in piece {
                *byte = table[usize::from(*byte)];
            }
            done = end;
        }
        Ok(done)
    }

    fn search(&self, point: u32) -> Option<u8> {
        let character = char::from_u32(point)?;
        let place = match self.kind {
            // The one alphabet whose order is not that of code points.
            AlphabetKind::Text8 => self.characters.iter().position(|&c| c == character),
            _ => self.characters.binary_search(&character).ok(),
        };
        place.and_then(|place| u8::try_from(place).ok())
    }

    /// The error for the character at `offset` of `buffer`, whose first `encoded` bytes are ids already.
    fn outside(&self, buffer: &[u8], encoded: usize, offset: usize, name: &str) -> CorpusError {
        let newline = self.search('\n' as u32);
        let lines = buffer[..encoded].iter().filter(|&&id| Some(id) == newline).count();
        let rest = &buffer[offset..];
        let start = &rest[..rest.len().min(4)];
        let valid = match std::str::from_utf8(start) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(),
        };
        let character = match valid.chars().next() {
            Some(character) if character.is_ascii() => format!("'{}'", shown(character)),
            Some(character) => format!("'{}' (U+{:04X})", shown(character), character as u32),
            None => format!("byte 0x{:02X}", rest.first().copied().unwrap_or_default()),
        };
        CorpusError::Character {
            name: name.to_owned(),
            character,
            offset,
            line: lines + 1,
            kind: self.kind,
            final_newline: rest == b"\n",
        }
    }

    /// The text of `ids`; for `bytes` any bytes, else UTF-8.
    ///
    /// # Errors
    ///
    /// The first id that is not in the alphabet.
    pub fn decode(&self, ids: &[u8]) -> Result<Vec<u8>, CorpusError> {
        self.check_ids(ids, "the text")?;
        if self.kind == AlphabetKind::Bytes {
            return Ok(ids.to_vec());
        }
        if self.characters.iter().all(char::is_ascii) {
            let mut table = [0; 256];
            for (entry, &character) in table.iter_mut().zip(&self.characters) {
                *entry = character as u8;
            }
            return Ok(ids.iter().map(|&id| table[usize::from(id)]).collect());
        }
        let mut text = String::with_capacity(2 * ids.len());
        text.extend(ids.iter().map(|&id| self.characters[usize::from(id)]));
        Ok(text.into_bytes())
    }

    /// Fails on the first id that is not in the alphabet.
    pub(crate) fn check_ids(&self, ids: &[u8], name: &str) -> Result<(), CorpusError> {
        let vocabulary = self.len();
        let largest = ids.iter().fold(0, |largest, &id| largest.max(id));
        if usize::from(largest) < vocabulary {
            return Ok(());
        }
        let first = ids.iter().position(|&id| usize::from(id) >= vocabulary).unwrap_or(0);
        Err(CorpusError::Id {
            name: name.to_owned(),
            id: ids[first],
            offset: first,
            vocabulary,
            kind: self.kind,
        })
    }

    /// A line that [`Alphabet::from_string_form`] reads back: `text8`, `bytes`, or `auto:` followed by the
    /// characters themselves in the order of their ids.
    pub fn to_string_form(&self) -> String {
        match self.kind {
            AlphabetKind::Auto => format!("auto:{}", self.characters.iter().collect::<String>()),
            kind => kind.to_string(),
        }
    }

    /// Reads what [`Alphabet::to_string_form`] writes.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub fn from_string_form(form: &str) -> Result<Self, CorpusError> {
        let wrong = |problem| {
            let mut form: String = form.chars().take(40).collect();
            form = form.escape_debug().to_string();
            CorpusError::AlphabetForm { form, problem }
        };
        match form {
            "text8" => return Ok(Self::text8()),
            "bytes" => return Ok(Self::bytes()),
            _ => {}
        }
        let Some(characters) = form.strip_prefix("auto:") else {
            return Err(wrong("text8, bytes, and auto: followed by characters are known"));
        };
        // Bounded before anything is collected: the form may come from a damaged file.
        if characters.chars().nth(256).is_some() {
            return Err(wrong("more than 256 characters"));
        }
        let characters: Vec<char> = characters.chars().collect();
        if characters.is_empty() {
            return Err(wrong("no characters"));
        }
        if !characters.is_sorted_by(|a, b| a < b) {
            return Err(wrong("the characters are not in the order of their code points"));
        }
        Ok(Self { kind: AlphabetKind::Auto, characters })
    }
}

/// A character for people: escaped if it is invisible.
fn shown(character: char) -> String {
    match character {
        // `escape_debug` would escape these for the sake of quoted strings.
        '\'' | '"' | '\\' => character.to_string(),
        _ => character.escape_debug().to_string(),
    }
}

/// `text` as UTF-8.
fn utf8<'a>(text: &'a [u8], name: &str) -> Result<&'a str, CorpusError> {
    std::str::from_utf8(text).map_err(|error| {
        let offset = error.valid_up_to();
        let lines = text[..offset].iter().filter(|&&byte| byte == b'\n').count();
        CorpusError::NotUtf8 { name: name.to_owned(), byte: text[offset], offset, line: lines + 1 }
    })
}

/// Code point and width of the character that begins valid UTF-8.
fn decode_utf8(bytes: &[u8]) -> (u32, usize) {
    let more = |at: usize| u32::from(bytes[at] & 0x3F);
    let first = u32::from(bytes[0]);
    match first {
        0..0x80 => (first, 1),
        0x80..0xE0 => ((first & 0x1F) << 6 | more(1), 2),
        0xE0..0xF0 => ((first & 0x0F) << 12 | more(1) << 6 | more(2), 3),
        _ => ((first & 0x07) << 18 | more(1) << 12 | more(2) << 6 | more(3), 4),
    }
}
