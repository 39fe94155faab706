//! How fast a text is normalised, and encoded: `cargo run --release -p diapason-corpus --example normalize_speed [FILE]`.
//! Without a file, on 128 MB of made-up text with capitals, punctuation, digits and accents.

use diapason_corpus::{Alphabet, normalize, normalize_text};
use std::io::{Cursor, Write};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = match std::env::args_os().nth(1) {
        Some(path) => std::fs::read(path)?,
        None => {
            let sentence = "In 1879 the caf\u{e9} \u{201c}Tuning Fork\u{201d} (A = 435 Hz) was Paris's loudest; \
                            its 24 musicians, it's said, agreed on nothing else.\r\n";
            sentence.repeat(128_000_000 / sentence.len()).into_bytes()
        }
    };
    let mut out = std::io::stdout();
    let mut rate = |what: &str, bytes: usize, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        writeln!(out, "{what:<24} {:7.0} MB/s   {seconds:.3} s", bytes as f64 / seconds / 1e6)
    };
    for _ in 0..5 {
        let start = Instant::now();
        normalize::normalize(&mut Cursor::new(&text), &mut std::io::sink(), None, &mut |_| {})?;
        rate("normalize (streaming)", text.len(), start)?;
    }
    let normal = normalize_text(&text);
    for alphabet in [Alphabet::text8(), Alphabet::auto(&normal)?] {
        let start = Instant::now();
        if let Ok(ids) = alphabet.encode(&normal) {
            rate(&format!("encode ({})", alphabet.kind()), normal.len(), start)?;
            let start = Instant::now();
            let text = alphabet.decode(&ids)?;
            rate(&format!("decode ({})", alphabet.kind()), text.len(), start)?;
        }
    }
    let start = Instant::now();
    let alphabet = Alphabet::auto(&text)?;
    rate("alphabet auto", text.len(), start)?;
    let start = Instant::now();
    let ids = alphabet.encode(&text)?;
    rate("encode (auto, UTF-8)", text.len(), start)?;
    let start = Instant::now();
    alphabet.decode(&ids)?;
    rate("decode (auto, UTF-8)", text.len(), start)?;
    Ok(())
}
