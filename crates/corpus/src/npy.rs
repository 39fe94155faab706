//! NumPy's file format for arrays, as far as texts need it: one-dimensional arrays of `uint8`.
//!
//! The notebook that this program follows saves its encoded texts with `numpy.save`, and people look at ours with
//! `numpy.load`. The format (NEP 1) is a magic string, a version, the length of a header, the header (a Python
//! dictionary literal of element type, order and shape, padded by spaces to a multiple of 64 bytes and ended by
//! a newline), then the data. A header may claim anything: it is bounded before it is read, and the data
//! are compared with the size of the file before memory is taken for them.

use crate::CorpusError;
use std::io::{self, Read, Write};

const MAGIC: &[u8] = b"\x93NUMPY";

/// NumPy's headers for such arrays have 118 bytes. Version 1 cannot have more than this; 2 and 3 could.
const LONGEST_HEADER: usize = 0xFFFF;

/// Whether a file that begins with `start` is a `.npy` file.
pub(crate) fn is_npy(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// What the header of a one-dimensional array of `uint8` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NpyHeader {
    /// Number of elements, as claimed.
    pub elements: u64,
    /// Where in the file the first of them lies.
    pub offset: u64,
}

/// Reads magic and header from `input`; the elements follow. `name` is for errors.
///
/// # Errors
///
/// Reading fails, or the file is not a one-dimensional array of `uint8`.
pub fn read_header(input: &mut dyn Read, name: &str) -> Result<NpyHeader, CorpusError> {
    let wrong = |problem: String| CorpusError::Npy { name: name.to_owned(), problem };
    let mut fill = |bytes: &mut [u8]| {
        input.read_exact(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => wrong("the file ends within its .npy header".into()),
            _ => CorpusError::Io { action: "read", path: name.to_owned(), source },
        })
    };
    let mut start = [0; 8];
    fill(&mut start)?;
    if !is_npy(&start) {
        return Err(wrong("this is not a .npy file: it does not begin with \\x93NUMPY".into()));
    }
    let (length, before) = match start[6] {
        1 => {
            let mut length = [0; 2];
            fill(&mut length)?;
            (usize::from(u16::from_le_bytes(length)), 10)
        }
        2 | 3 => {
            let mut length = [0; 4];
            fill(&mut length)?;
            (u32::from_le_bytes(length) as usize, 12)
        }
        version => {
            return Err(wrong(format!("version {version}.{} of the .npy format is unknown", start[7])));
        }
    };
    if length > LONGEST_HEADER {
        return Err(wrong(format!("its .npy header claims {length} bytes; {LONGEST_HEADER} are allowed")));
    }
    let mut header = vec![0; length];
    fill(&mut header)?;
    let header = std::str::from_utf8(&header).map_err(|_| wrong("its .npy header is not text".into()))?;
    let header = Header::parse(header)
        .ok_or_else(|| wrong("its .npy header is not the dictionary that NumPy writes".into()))?;
    if !matches!(header.descr, "|u1" | "u1" | "<u1" | ">u1" | "=u1") {
        let descr: String = header.descr.chars().filter(|c| !c.is_control()).take(60).collect();
        return Err(wrong(format!("its elements are `{descr}`, not uint8 (`|u1`)")));
    }
    if header.fortran_order {
        return Err(wrong("its elements are in Fortran order".into()));
    }
    match header.shape[..] {
        [elements] => Ok(NpyHeader { elements, offset: before + length as u64 }),
        ref shape => Err(wrong(format!("it has {} dimensions, not one", shape.len()))),
    }
}

/// Writes magic and header of an array of `elements` bytes, as NumPy writes them; the bytes are to follow.
///
/// # Errors
///
/// Those of `output`.
pub fn write_header(output: &mut dyn Write, elements: u64) -> io::Result<()> {
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({elements},), }}");
    // Magic, version and length take 10 bytes, the newline one.
    let padding = 63 - (10 + header.len()) % 64;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    output.write_all(MAGIC)?;
    output.write_all(&[1, 0])?;
    output.write_all(&(header.len() as u16).to_le_bytes())?;
    output.write_all(header.as_bytes())
}

/// Writes `ids` as a `.npy` array.
///
/// # Errors
///
/// Those of `output`.
pub fn write(output: &mut dyn Write, ids: &[u8]) -> io::Result<()> {
    write_header(output, ids.len() as u64)?;
    output.write_all(ids)
}

/// The three entries of a header.
struct Header<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl<'a> Header<'a> {
    /// Reads `{'descr': '...', 'fortran_order': False, 'shape': (n, ...), }` with its keys in any order; all
    /// three must be there, once, and nothing else.
    fn parse(text: &'a str) -> Option<Self> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut rest = Literal(text);
        rest.expect("{")?;
        while rest.expect("}").is_none() {
            let key = rest.string()?;
            rest.expect(":")?;
            let twice = match key {
                "descr" => descr.replace(rest.string_or_list()?).is_some(),
                "fortran_order" => fortran_order.replace(rest.boolean()?).is_some(),
                "shape" => shape.replace(rest.tuple()?).is_some(),
                _ => return None,
            };
            let comma = rest.expect(",").is_some();
            if twice || !comma && !rest.0.trim_start().starts_with('}') {
                return None;
            }
        }
        rest.0.trim().is_empty().then_some(())?;
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// What remains of a Python literal. Each method takes something off its front, or says `None`.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    fn expect(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (content, rest) = text[1..].split_once(quote)?;
        self.0 = rest;
        (!content.contains('\\')).then_some(content)
    }

    /// The type of a structured array is a list; it is only wanted for the error message.
    fn string_or_list(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        if !text.starts_with('[') {
            return self.string();
        }
        let (content, rest) = text.split_at(text.find(']')? + 1);
        self.0 = rest;
        Some(content)
    }

    fn boolean(&mut self) -> Option<bool> {
        if self.expect("True").is_some() {
            return Some(true);
        }
        self.expect("False").map(|()| false)
    }

    fn tuple(&mut self) -> Option<Vec<u64>> {
        self.expect("(")?;
        let mut numbers = Vec::new();
        while self.expect(")").is_none() {
            let text = self.0.trim_start();
            let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            numbers.push(text[..digits].parse().ok()?);
            self.0 = &text[digits..];
            if self.expect(",").is_none() && !self.0.trim_start().starts_with(')') {
                return None;
            }
        }
        Some(numbers)
    }
}
