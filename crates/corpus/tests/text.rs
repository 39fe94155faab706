//! Alphabets, normalisation and the `.npy` format: what goes in comes out, whatever it is.

use diapason_corpus::npy::{NpyHeader, read_header, write, write_header};
use diapason_corpus::{
    Alphabet, AlphabetKind, CorpusError, Normalizer, Progress, Split, normalize, normalize_text,
};
use proptest::prelude::*;
use std::io::{self, Cursor, Read, Write};

// ---- alphabets

#[test]
fn the_notebooks_ids() {
    let text8 = Alphabet::text8();
    assert_eq!(text8.len(), 27);
    assert_eq!(text8.kind(), AlphabetKind::Text8);
    let characters = b"abcdefghijklmnopqrstuvwxyz ";
    let ids: Vec<u8> = (0..27).collect();
    assert_eq!(text8.encode(characters).unwrap(), ids);
    assert_eq!(text8.decode(&ids).unwrap(), characters);
    assert_eq!(text8.encode(b"").unwrap(), b"");
}

#[test]
fn auto_numbers_characters_by_code_point() {
    let alphabet = Alphabet::auto("ba\n\u{1f600}\u{e9}b\u{6f22}".as_bytes()).unwrap();
    assert_eq!(alphabet.len(), 6);
    assert_eq!(alphabet.kind(), AlphabetKind::Auto);
    assert_eq!(
        alphabet.encode("\nab\u{e9}\u{6f22}\u{1f600}".as_bytes()).unwrap(),
        [0, 1, 2, 3, 4, 5],
        "newline, a, b, e acute, a Chinese character, a face"
    );
    assert_eq!(alphabet.symbol(0).as_deref(), Some("\\n"));
    assert_eq!(alphabet.symbol(3).as_deref(), Some("\u{e9}"));
    assert_eq!(alphabet.symbol(6), None);
}

#[test]
fn auto_holds_256_characters_and_no_more() {
    let text = |n: u32| (0x4e00..0x4e00 + n).filter_map(char::from_u32).collect::<String>();
    let full = Alphabet::auto(text(256).as_bytes()).unwrap();
    assert_eq!(full.len(), 256);
    assert_eq!(full.encode(text(256).as_bytes()).unwrap(), (0..=255).collect::<Vec<u8>>());
    let low: String = (0x80..0x180).filter_map(char::from_u32).collect();
    assert_eq!(Alphabet::auto(low.as_bytes()).unwrap().encode(low.as_bytes()).unwrap()[255], 255);
    for too_many in [text(257), format!("{}x", text(256)), format!("{low}x"), format!("{low}\u{4e00}")] {
        let error = Alphabet::auto(too_many.as_bytes()).unwrap_err();
        assert!(matches!(error, CorpusError::TooManyCharacters { .. }), "{error}");
        assert!(error.hint().unwrap().contains("--alphabet bytes"));
    }
    assert!(matches!(Alphabet::auto(b""), Err(CorpusError::Empty { .. })));
}

#[test]
fn a_character_outside_is_named_with_its_place() {
    let text8 = Alphabet::text8();
    let message = |alphabet: &Alphabet, text: &[u8]| alphabet.encode(text).unwrap_err().to_string();
    assert_eq!(
        message(&text8, b"the Quick"),
        "the text has 'Q' at byte 4 (line 1), which is not in the text8 alphabet"
    );
    assert_eq!(
        message(&text8, "caf\u{e9} au".as_bytes()),
        "the text has '\u{e9}' (U+00E9) at byte 3 (line 1), which is not in the text8 alphabet"
    );
    assert_eq!(
        message(&text8, b"caf\xE9 au"),
        "the text has byte 0xE9 at byte 3 (line 1), which is not in the text8 alphabet"
    );
    assert_eq!(
        message(&text8, b"it's\n"),
        "the text has ''' at byte 2 (line 1), which is not in the text8 alphabet"
    );
    assert_eq!(
        message(&text8, b"a\nb"),
        "the text has '\\n' at byte 1 (line 1), which is not in the text8 alphabet"
    );
    // Lines are counted after they have been encoded, by whichever way of encoding.
    let ascii = Alphabet::auto(b"ab\n").unwrap();
    assert_eq!(
        message(&ascii, b"ab\n\nab\naxb"),
        "the text has 'x' at byte 8 (line 4), which is not in the auto alphabet"
    );
    let wide = Alphabet::auto("\u{e9}b\n".as_bytes()).unwrap();
    assert_eq!(
        message(&wide, "\u{e9}\n\u{e9}\n\u{e9}b\u{6f22}".as_bytes()),
        "the text has '\u{6f22}' (U+6F22) at byte 9 (line 3), which is not in the auto alphabet"
    );
    // Beyond the first piece, and at its edge.
    for place in [16_383, 16_384, 16_385, 49_999] {
        let mut text = vec![b'a'; 50_000];
        text[place] = b'Z';
        assert!(message(&text8, &text).contains(&format!("'Z' at byte {place} (line 1)")));
    }
    assert!(text8.encode(b"A").unwrap_err().hint().unwrap().contains("--normalize"));
    // An editor's newline gets its own hint, and is still an error.
    let hint = text8.encode(b"clean text\n").unwrap_err().hint().unwrap();
    assert!(hint.contains("newline at its end") && hint.contains("--normalize"), "{hint}");
    assert!(!text8.encode(b"two\nlines\n").unwrap_err().hint().unwrap().contains("newline at its end"));
}

#[test]
fn invalid_utf8_is_an_error_with_its_place() {
    let error = Alphabet::auto(b"ab\ncd\xFFe").unwrap_err();
    assert_eq!(error.to_string(), "the text is not UTF-8: byte 0xFF at 5 (line 2)");
    assert!(error.hint().unwrap().contains("--alphabet bytes"));
    assert!(Alphabet::auto(b"ab\xE2\x82").is_err(), "a sequence that is cut off");
    let wide = Alphabet::auto("\u{e9}a".as_bytes()).unwrap();
    assert!(matches!(wide.encode(b"a\xE9"), Err(CorpusError::NotUtf8 { offset: 1, .. })));
}

#[test]
fn ids_outside_are_errors() {
    let error = Alphabet::text8().decode(&[0, 26, 27, 99]).unwrap_err();
    assert_eq!(error.to_string(), "the text has id 27 at position 2; the text8 alphabet has ids 0 to 26");
    assert!(error.hint().is_some());
}

#[test]
fn string_forms() {
    assert_eq!(Alphabet::text8().to_string_form(), "text8");
    assert_eq!(Alphabet::bytes().to_string_form(), "bytes");
    assert_eq!(Alphabet::auto(b"cab: \n").unwrap().to_string_form(), "auto:\n :abc");
    let many = format!("auto:{}", "a".repeat(1 << 20));
    for wrong in ["", "text9", "auto", "auto:", "auto:ba", "auto:aa", &many] {
        let error = Alphabet::from_string_form(wrong).unwrap_err().to_string();
        assert!(error.len() < 150, "{error}");
    }
}

#[test]
fn names_are_parsed_and_printed() {
    for kind in [AlphabetKind::Text8, AlphabetKind::Auto, AlphabetKind::Bytes] {
        assert_eq!(kind.to_string().parse(), Ok(kind));
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
    }
    for split in [Split::Train, Split::Validation, Split::Test] {
        assert_eq!(serde_json::to_string(&split).unwrap(), format!("\"{split}\""));
    }
    assert!("Text8".parse::<AlphabetKind>().unwrap_err().contains("bytes"));
}

proptest! {
    #[test]
    fn text8_round_trip(text in "[a-z ]{0,200}") {
        let ids = Alphabet::text8().encode(text.as_bytes()).unwrap();
        prop_assert_eq!(ids.len(), text.len());
        prop_assert_eq!(Alphabet::text8().decode(&ids).unwrap(), text.as_bytes());
    }

    #[test]
    fn bytes_round_trip(text: Vec<u8>) {
        let ids = Alphabet::bytes().encode(&text).unwrap();
        prop_assert_eq!(&ids, &text);
        prop_assert_eq!(&Alphabet::bytes().decode(&ids).unwrap(), &text);
    }

    #[test]
    fn auto_round_trip(text in "\\PC{1,200}") {
        let alphabet = Alphabet::auto(text.as_bytes()).unwrap();
        let ids = alphabet.encode(text.as_bytes()).unwrap();
        prop_assert_eq!(ids.len(), text.chars().count());
        prop_assert_eq!(alphabet.decode(&ids).unwrap(), text.as_bytes());
        prop_assert!(ids.iter().all(|&id| usize::from(id) < alphabet.len()));
        prop_assert_eq!(Alphabet::from_string_form(&alphabet.to_string_form()).unwrap(), alphabet);
    }

    /// Any text, any alphabet: ids that decode to the text, or an error at the first character outside.
    #[test]
    fn encode_agrees_with_a_plain_loop(text in "[a-e\u{e0}-\u{e5}\n]{0,60}", letters in "[a-d\u{e0}-\u{e3}\n]{1,20}") {
        let alphabet = Alphabet::auto(letters.as_bytes()).unwrap();
        let outside = text.char_indices().find(|(_, c)| !letters.contains(*c));
        match (alphabet.encode(text.as_bytes()), outside) {
            (Ok(ids), None) => prop_assert_eq!(alphabet.decode(&ids).unwrap(), text.as_bytes()),
            (Err(CorpusError::Character { offset, line, .. }), Some((place, _))) => {
                prop_assert_eq!(offset, place);
                prop_assert_eq!(line, 1 + text[..place].matches('\n').count());
            }
            (result, outside) => prop_assert!(false, "{result:?}, outside {outside:?}"),
        }
    }

    // ---- normalisation

    #[test]
    fn normalize_agrees_with_the_scripts_last_lines(text in "[ -~\u{c0}-\u{ff}\n]{0,120}") {
        prop_assert_eq!(normalize_text(text.as_bytes()), by_the_script(text.as_bytes()));
    }

    #[test]
    fn normalize_is_idempotent_and_stays_in_the_alphabet(text: Vec<u8>) {
        let normal = normalize_text(&text);
        prop_assert_eq!(&normalize_text(&normal), &normal);
        prop_assert!(Alphabet::text8().encode(&normal).is_ok());
        prop_assert!(!normal.windows(2).any(|pair| pair == b"  "));
        prop_assert!(normal.is_empty() || normal[0] == b' ' && normal.last() != Some(&b' '));
    }

    #[test]
    fn where_pieces_are_cut_does_not_matter(text in "[a-cA-C0-9 .\u{e9}]{0,80}", cuts: [proptest::sample::Index; 3]) {
        let text = text.as_bytes();
        let mut cuts = cuts.map(|cut| cut.index(text.len() + 1));
        cuts.sort_unstable();
        let mut normalizer = Normalizer::new();
        let mut out = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            normalizer.push(&text[start..cut], &mut out);
            start = cut;
        }
        prop_assert_eq!(out, normalize_text(text));
    }
}

/// The rules as `wikifil.pl` applies them: pad, lower-case, spell digits, squeeze, chop.
fn by_the_script(text: &[u8]) -> Vec<u8> {
    let digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let mut padded = vec![b' '];
    for byte in text.to_ascii_lowercase() {
        match byte {
            b'0'..=b'9' => padded.extend(format!(" {} ", digits[usize::from(byte - b'0')]).bytes()),
            b'a'..=b'z' => padded.push(byte),
            _ => padded.push(b' '),
        }
    }
    padded.push(b' ');
    padded.dedup_by(|a, b| *a == b' ' && *b == b' ');
    padded.pop();
    padded
}

/// Gives its bytes a few at a time, interrupted by signals.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = out.len().min(self.1 % 7 + 1);
        self.0.read(&mut out[..n])
    }
}

#[test]
fn normalize_streams() {
    let text = "Of 365 days, 12 are f\u{e9}tes. ".repeat(5000);
    let mut out = Vec::new();
    let mut last = None;
    let written = normalize::normalize(&mut Cursor::new(&text), &mut out, Some(9), &mut |p| last = Some(p));
    assert_eq!(out, by_the_script(text.as_bytes()));
    assert_eq!(written.unwrap(), out.len() as u64);
    assert_eq!(last, Some(Progress { what: "normalizing", done: text.len() as u64, total: Some(9) }));
    let mut dribbled = Vec::new();
    normalize::normalize(&mut Dribble(text.as_bytes(), 0), &mut dribbled, None, &mut |_| {}).unwrap();
    assert_eq!(dribbled, out);
    // The longest output a byte can have, for longer than any buffer.
    assert_eq!(normalize_text(&[b'3'; 100_000]), b" three".repeat(100_000));
}

#[test]
fn normalize_reports_a_full_disk() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = normalize::normalize(&mut Cursor::new("a"), &mut Full, None, &mut |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("cannot write the output: "), "{error}");
}

// ---- .npy

/// What `numpy.save` writes before the elements of an array of three `uint8`, by NumPy 1.17 and 2.3.
fn numpy_header() -> Vec<u8> {
    let mut bytes =
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }".to_vec();
    bytes.resize(127, b' ');
    bytes.push(b'\n');
    bytes
}

#[test]
fn npy_is_what_numpy_writes() {
    let mut ours = Vec::new();
    write(&mut ours, &[7, 8, 9]).unwrap();
    let mut numpys = numpy_header();
    numpys.extend([7, 8, 9]);
    assert_eq!(ours, numpys);
    for elements in [0, 9, 10, 90_000_000, u64::MAX] {
        let mut bytes = Vec::new();
        write_header(&mut bytes, elements).unwrap();
        assert_eq!(bytes.len() % 64, 0);
        assert_eq!(bytes.last(), Some(&b'\n'));
        let header = read_header(&mut Cursor::new(&bytes), "a.npy").unwrap();
        assert_eq!(header, NpyHeader { elements, offset: bytes.len() as u64 });
    }
}

/// A file of version 1, 2 or 3 with this header.
fn npy(version: u8, header: &str) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.bytes());
    bytes
}

#[test]
fn npy_headers_that_are_allowed() {
    let read = |bytes: Vec<u8>| read_header(&mut Cursor::new(bytes), "a.npy");
    for version in [1, 2, 3] {
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (12,), }\n";
        assert_eq!(read(npy(version, header)).unwrap().elements, 12);
    }
    for header in [
        "{'shape': (12,), 'descr': 'u1', 'fortran_order': False}",
        "{\"descr\":\"<u1\",\"fortran_order\":False,\"shape\":(12,)}",
        "  { 'descr' : '|u1' , 'fortran_order' : False , 'shape' : ( 12 , ) , }   \n",
    ] {
        assert_eq!(read(npy(1, header)).unwrap().elements, 12, "{header}");
    }
}

#[test]
fn npy_headers_that_are_refused() {
    let message = |bytes: &[u8]| {
        let error = read_header(&mut Cursor::new(bytes), "a.npy").unwrap_err();
        assert!(error.hint().is_some());
        error.to_string()
    };
    let header = |header: &str| message(&npy(1, header));
    assert_eq!(
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }"),
        "a.npy: its elements are `<i8`, not uint8 (`|u1`)"
    );
    assert_eq!(
        header("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (3,), }"),
        "a.npy: its elements are `[('a', '|u1')]`, not uint8 (`|u1`)"
    );
    assert_eq!(
        header("{'descr': '|u1', 'fortran_order': True, 'shape': (3,), }"),
        "a.npy: its elements are in Fortran order"
    );
    assert_eq!(
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 4), }"),
        "a.npy: it has 2 dimensions, not one"
    );
    assert_eq!(
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (), }"),
        "a.npy: it has 0 dimensions, not one"
    );
    for broken in [
        "",
        "{",
        "{}",
        "{'descr': '|u1', 'fortran_order': False}",
        "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), 'more': 1}",
        "{'descr': '|u1', 'fortran_order': 0, 'shape': (3,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-3,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (3,)} x",
        "{'descr': '|u1' 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (3",
        "{'descr': '|u1', 'fortran_order': False, 'shape': [3]}",
        "{'descr': '|u1",
    ] {
        assert_eq!(
            header(broken),
            "a.npy: its .npy header is not the dictionary that NumPy writes",
            "{broken}"
        );
    }
    assert!(message(b"").contains("ends within its .npy header"));
    assert!(message(&numpy_header()[..60]).contains("ends within its .npy header"));
    assert!(message(b"PK\x03\x04xxxxxxxxxx").contains("not a .npy file"));
    assert!(message(&npy(4, "{}")).contains("version 4.0"));
    // A header that claims 4 GiB is refused before anything is taken for it.
    assert_eq!(
        message(b"\x93NUMPY\x02\x00\xFF\xFF\xFF\xFF{"),
        "a.npy: its .npy header claims 4294967295 bytes; 65535 are allowed"
    );
}

proptest! {
    #[test]
    fn npy_survives_anything(noise: Vec<u8>, place: proptest::sample::Index, text in "[{}()':,a-u1 ]{0,60}") {
        let _ = read_header(&mut Cursor::new(&noise), "noise");
        let _ = read_header(&mut Cursor::new(npy(1, &text)), "noise");
        let mut header = numpy_header();
        let place = place.index(header.len());
        header[place] ^= noise.first().copied().unwrap_or(1);
        let _ = read_header(&mut Cursor::new(header), "noise");
    }
}
