//! A text of n bytes needs n bytes of memory and small buffers, whichever way it is read.
//!
//! The only test of its process, because the process's peak is what it looks at.
#![cfg(target_os = "linux")]

use diapason_corpus::{AlphabetKind, Corpus, CorpusRequest, convert, write_atomically};
use std::fs;
use std::path::Path;

/// The most memory that this process has ever had, in bytes.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

#[test]
fn one_byte_a_character_and_small_buffers() {
    const BYTES: usize = 48 << 20;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, line: &str| {
        let path = folder.path().join(name);
        let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
        for _ in 0..BYTES / line.len() {
            std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
        }
        path.to_str().unwrap().to_owned()
    };
    let plain = write("plain.txt", "nothing but letters and spaces ");
    let wide = write("wide.txt", "d\u{e9}j\u{e0} vu, \u{6f22}\u{5b57}\n");
    let npy = folder.path().join("ids.npy");
    let before = peak();
    let open = |corpus: &str, alphabet, normalize| {
        let request = CorpusRequest { alphabet, normalize, ..CorpusRequest::new(corpus) };
        Corpus::open(&request, &mut |_| {}).unwrap().train().len()
    };
    open(&plain, AlphabetKind::Text8, false);
    open(&plain, AlphabetKind::Auto, false);
    open(&plain, AlphabetKind::Text8, true);
    open(&wide, AlphabetKind::Auto, false);
    open(&wide, AlphabetKind::Bytes, false);
    open(&wide, AlphabetKind::Text8, true);
    write_atomically(&npy, |out| {
        convert::encode(Path::new(&plain), AlphabetKind::Text8, false, out, &mut |_| {})
    })
    .unwrap();
    open(npy.to_str().unwrap(), AlphabetKind::Text8, false);
    let used = peak() - before;
    assert!(used < BYTES + (6 << 20), "{used} bytes for a text of {BYTES}");
    assert!(used > BYTES / 2, "the peak is measured: {used}");
}
