//! Opening corpora: files, ids, splits, digests, windows, and what is wrong with other people's files.

use diapason_corpus::{
    Alphabet, AlphabetKind, Corpus, CorpusError, CorpusRequest, Progress, Split, SplitRequest, Windows,
    convert, english, npy, random_windows, training_windows, write_atomically,
};
use diapason_random::{Purpose, Stream};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn open(request: &CorpusRequest) -> Result<Corpus, CorpusError> {
    Corpus::open(request, &mut |_| {})
}

fn error(request: &CorpusRequest) -> (String, String) {
    let error = open(request).unwrap_err();
    (error.to_string(), error.hint().unwrap_or_default())
}

fn letters(n: usize) -> Vec<u8> {
    let stream = Stream::new(1, Purpose::Test, 0);
    (0..n as u64).map(|i| b"abcdefghijklmnopqrstuvwxyz "[stream.below(i, 27) as usize]).collect()
}

fn ids(text: &[u8]) -> Vec<u8> {
    Alphabet::text8().encode(text).unwrap()
}

#[test]
fn a_text_is_read_encoded_and_split() {
    let folder = Folder::new();
    let text = letters(3_000_005);
    let path = folder.file("war.txt", &text);
    let mut reports = Vec::new();
    let corpus = Corpus::open(&CorpusRequest::new(&path), &mut |p| reports.push(p)).unwrap();
    assert_eq!(corpus.name, "war.txt");
    assert_eq!(corpus.alphabet, Alphabet::text8());
    assert_eq!(corpus.entropy_rate, None);
    let all = ids(&text);
    assert_eq!(corpus.train(), &all[..2_400_004]);
    assert_eq!(corpus.validation(), &all[2_400_004..2_700_004]);
    assert_eq!(corpus.test(), &all[2_700_004..]);
    assert_eq!(corpus.split(Split::Validation), corpus.validation());
    let last = Progress { what: "reading", done: 3_000_005, total: Some(3_000_005) };
    assert_eq!(reports.last(), Some(&last));
    assert!(reports.windows(2).all(|pair| pair[0].done <= pair[1].done));
}

#[test]
fn the_notebooks_two_files_are_the_one_text() {
    let folder = Folder::new();
    let text = letters(1000);
    let whole = open(&CorpusRequest::new(&folder.file("all.txt", &text))).unwrap();
    let request = CorpusRequest {
        test_corpus: Some(folder.file("test.txt", &text[900..]).into()),
        ..CorpusRequest::new(&folder.file("train.txt", &text[..900]))
    };
    let two = open(&request).unwrap();
    assert_eq!(two.name, "train.txt + test.txt");
    for split in [Split::Train, Split::Validation, Split::Test] {
        assert_eq!(two.split(split), whole.split(split));
    }
    assert_eq!(two.digest, whole.digest);
    // Text and ids can be mixed: what counts is what they say.
    let mut bytes = Vec::new();
    npy::write(&mut bytes, &ids(&text[900..])).unwrap();
    let mixed = CorpusRequest { test_corpus: Some(folder.file("test.npy", bytes).into()), ..request.clone() };
    assert_eq!(open(&mixed).unwrap().digest, whole.digest);
    // Each file is normalised by itself.
    let normal = CorpusRequest {
        normalize: true,
        test_corpus: Some(folder.file("b.txt", "X ".repeat(9)).into()),
        ..CorpusRequest::new(&folder.file("a.txt", "No 1! ".repeat(20)))
    };
    let normal = open(&normal).unwrap();
    assert_eq!(normal.test(), ids(b" x x x x x x x x x"));
    assert_eq!(normal.train().len() + normal.validation().len(), " no one".len() * 20);
}

#[test]
fn a_normalised_text_may_outgrow_its_file() {
    let folder = Folder::new();
    let path = folder.file("pi.txt", "3".repeat(300_000));
    let corpus = open(&CorpusRequest { normalize: true, ..CorpusRequest::new(&path) }).unwrap();
    assert_eq!(corpus.train(), ids(&b" three".repeat(240_000)));
    assert_eq!(corpus.info().characters, 1_800_000);
}

#[test]
fn alphabets_over_two_files() {
    let folder = Folder::new();
    let request = CorpusRequest {
        alphabet: AlphabetKind::Auto,
        test_corpus: Some(folder.file("b.txt", "\u{6f22}\u{e9}a\u{6f22}".repeat(5)).into()),
        ..CorpusRequest::new(&folder.file("a.txt", "\u{e9}t\u{e9}\n".repeat(25)))
    };
    let corpus = open(&request).unwrap();
    assert_eq!(corpus.alphabet.to_string_form(), "auto:\nat\u{e9}\u{6f22}");
    let mut all = corpus.train().to_vec();
    all.extend(corpus.validation());
    assert_eq!(all, [3, 2, 3, 0].repeat(25));
    assert_eq!(corpus.test(), [4, 3, 1, 4].repeat(5));

    let bytes = open(&CorpusRequest { alphabet: AlphabetKind::Bytes, ..request.clone() }).unwrap();
    assert_eq!(bytes.alphabet.len(), 256);
    assert_eq!(bytes.test(), "\u{6f22}\u{e9}a\u{6f22}".repeat(5).as_bytes());

    let bad = CorpusRequest { test_corpus: Some(folder.file("bad.txt", b"a\n\xFF").into()), ..request };
    let (message, hint) = error(&bad);
    assert!(message.ends_with("bad.txt is not UTF-8: byte 0xFF at 2 (line 2)"), "{message}");
    assert!(hint.contains("iconv"));
}

#[test]
fn the_digest_is_of_what_a_run_sees() {
    let text = ids(&letters(500));
    let digest = |alphabet: Alphabet, ids: &[u8], split: SplitRequest| {
        Corpus::from_parts("x", alphabet, ids.to_vec(), &split).unwrap().digest
    };
    let all = SplitRequest::default();
    let plain = digest(Alphabet::text8(), &text, all);
    // Changing this changes the identity of every run there is.
    assert_eq!(plain, "sha256:b546017b715de21764d263fc8196876a7828dd42ec2871f589acec2c2c50de99");
    assert_eq!(plain, digest(Alphabet::text8(), &text, all));
    assert_ne!(plain, digest(Alphabet::bytes(), &text, all));
    let split = SplitRequest { train_chars: Some(399), ..all };
    assert_ne!(plain, digest(Alphabet::text8(), &text, split));
    for place in [0, 450, 499] {
        let mut changed = text.clone();
        changed[place] = (changed[place] + 1) % 27;
        assert_ne!(plain, digest(Alphabet::text8(), &changed, all));
        // Character 450 of 500 is in no split here.
        let split = SplitRequest { train_chars: Some(400), validation_chars: Some(20), test_chars: Some(20) };
        let unseen = digest(Alphabet::text8(), &changed, split) == digest(Alphabet::text8(), &text, split);
        assert_eq!(unseen, place == 450);
    }
}

#[test]
fn builtin_english() {
    let request = CorpusRequest::new("builtin:english:20_000:7");
    let corpus = open(&request).unwrap();
    assert_eq!(corpus.name, "builtin:english:20000:7");
    let mut all = corpus.train().to_vec();
    all.extend(corpus.validation());
    all.extend(corpus.test());
    assert_eq!(all, english::generate(20_000, 7));
    assert_eq!(corpus.entropy_rate, Some(english::entropy_rate()));
    assert_eq!(open(&CorpusRequest::new("builtin:english:20000:0")).unwrap().name, "builtin:english:20000");

    let auto = CorpusRequest { alphabet: AlphabetKind::Auto, ..request.clone() };
    let auto = open(&auto).unwrap();
    assert_eq!(auto.alphabet.decode(auto.train()).unwrap(), corpus.alphabet.decode(corpus.train()).unwrap());

    let folder = Folder::new();
    let with_test = CorpusRequest { test_corpus: Some(folder.file("t", "some text").into()), ..request };
    assert_eq!(open(&with_test).unwrap().entropy_rate, None);

    for wrong in [
        "builtin:french",
        "builtin:",
        "builtin:english:",
        "builtin:english:many",
        "builtin:english:-5",
        "builtin:english:99999999999999999999999",
        "builtin:english:1000:x",
        "builtin:english:1000:1:1",
    ] {
        let (message, hint) = error(&CorpusRequest::new(wrong));
        assert!(message.contains(wrong) && hint.contains("builtin:english:CHARACTERS:SEED"), "{message}");
    }
    assert!(error(&CorpusRequest::new("builtin:english:0")).0.contains("is empty"));
    assert!(error(&CorpusRequest::new("builtin:english:3")).0.contains("too few for its splits"));
    if cfg!(target_os = "linux") {
        let (message, _) = error(&CorpusRequest::new("builtin:english:9000000000000000"));
        assert!(message.contains("needs 8381903.2 GiB of memory, and this machine has"), "{message}");
    }
}

#[test]
fn npy_files_are_opened_and_checked() {
    let folder = Folder::new();
    let text = ids(&letters(200));
    let npy = |ids: &[u8]| {
        let mut bytes = Vec::new();
        npy::write(&mut bytes, ids).unwrap();
        bytes
    };
    let whole = Corpus::from_parts("x", Alphabet::text8(), text.clone(), &SplitRequest::default()).unwrap();
    // By name, or by content.
    for name in ["ids.npy", "ids"] {
        let corpus = open(&CorpusRequest::new(&folder.file(name, npy(&text)))).unwrap();
        assert_eq!(corpus.digest, whole.digest);
    }
    let path = folder.file("ids.npy", npy(&text));
    let (message, hint) = error(&CorpusRequest { normalize: true, ..CorpusRequest::new(&path) });
    assert!(message.ends_with("ids.npy holds ids, not characters: --normalize cannot be applied to it"));
    assert!(!hint.is_empty());
    let auto = CorpusRequest { alphabet: AlphabetKind::Auto, ..CorpusRequest::new(&path) };
    assert!(error(&auto).0.contains("--alphabet auto cannot be applied"));

    let mut outside = text.clone();
    outside[150] = 30;
    let path = folder.file("out.npy", npy(&outside));
    let (message, hint) = error(&CorpusRequest::new(&path));
    assert!(
        message.ends_with("out.npy has id 30 at position 150; the text8 alphabet has ids 0 to 26"),
        "{message}"
    );
    assert!(hint.contains("--alphabet bytes"));
    assert!(open(&CorpusRequest { alphabet: AlphabetKind::Bytes, ..CorpusRequest::new(&path) }).is_ok());

    let cut = &npy(&text)[..300];
    let (message, _) = error(&CorpusRequest::new(&folder.file("cut.npy", cut)));
    assert!(message.ends_with("cut.npy: it claims 200 elements, and the file has 172"), "{message}");
    let long = [npy(&text), vec![0]].concat();
    let (message, _) = error(&CorpusRequest::new(&folder.file("long.npy", long)));
    assert!(message.ends_with("long.npy: there are more bytes behind its 200 elements"), "{message}");
    // A claim of 16 EiB takes no memory.
    let mut huge = Vec::new();
    npy::write_header(&mut huge, u64::MAX).unwrap();
    let (message, _) = error(&CorpusRequest::new(&folder.file("huge.npy", huge)));
    assert!(message.contains("it claims 18446744073709551615 elements, and the file has 0"), "{message}");
    let (message, _) = error(&CorpusRequest::new(&folder.file("not.npy", "just a text")));
    assert!(message.contains("not a .npy file"), "{message}");
    let (message, _) = error(&CorpusRequest::new(&folder.file("none.npy", npy(&[]))));
    assert!(message.ends_with("none.npy is empty"), "{message}");
}

#[test]
fn files_that_are_no_text() {
    let folder = Folder::new();
    let (message, hint) = error(&CorpusRequest::new("no/such/file.txt"));
    assert_eq!(message, "there is no corpus `no/such/file.txt`: no such file");
    assert!(hint.contains("text8, builtin:english"));
    let (message, _) = error(&CorpusRequest::new(folder.0.path().to_str().unwrap()));
    assert!(message.starts_with("cannot read ") && message.ends_with("it is a folder"), "{message}");
    let (message, _) = error(&CorpusRequest::new(&folder.file("empty.txt", "")));
    assert!(message.ends_with("empty.txt is empty"), "{message}");
    let blank = CorpusRequest { normalize: true, ..CorpusRequest::new(&folder.file("blank.txt", "...\n")) };
    assert!(error(&blank).0.ends_with("leaves nothing of it"));
    let blank = CorpusRequest { normalize: true, ..CorpusRequest::new(&folder.file("blank.txt", "")) };
    assert!(error(&blank).0.ends_with("blank.txt is empty"));
    let (message, hint) = error(&CorpusRequest::new(&folder.file("text8.zip", b"PK\x03\x04....")));
    assert!(message.ends_with("text8.zip is packed (zip), not a text"), "{message}");
    assert!(hint.contains("unpack"));
    let zip = CorpusRequest { normalize: true, ..CorpusRequest::new(&folder.file("a.gz", b"\x1F\x8B....")) };
    assert!(error(&zip).0.contains("gzip"));
    let (message, hint) = error(&CorpusRequest::new(&folder.file("caps.txt", "Upper")));
    assert!(message.ends_with("caps.txt has 'U' at byte 0 (line 1), which is not in the text8 alphabet"));
    assert!(hint.contains("--normalize"));
    let missing = CorpusRequest {
        test_corpus: Some("no/such/test.txt".into()),
        ..CorpusRequest::new(&folder.file("a.txt", "some letters"))
    };
    assert!(error(&missing).0.contains("no/such/test.txt"));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read() {
    let folder = Folder::new();
    let path = folder.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let text = letters(300_000);
    let corpus = std::thread::scope(|scope| {
        scope.spawn(|| fs::write(&path, &text).unwrap());
        open(&CorpusRequest::new(path.to_str().unwrap())).unwrap()
    });
    assert_eq!(corpus.train(), &ids(&text)[..240_000]);
}

#[cfg(unix)]
#[test]
fn a_device_is_no_text() {
    for device in ["/dev/zero", "/dev/null"] {
        for normalize in [false, true] {
            let error = open(&CorpusRequest { normalize, ..CorpusRequest::new(device) }).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot read {device}: it is a device"));
        }
        assert!(convert::normalize(Path::new(device), &mut Vec::new(), &mut |_| {}).is_err());
    }
}

#[test]
fn splits_and_windows_are_checked() {
    let folder = Folder::new();
    let path = folder.file("a.txt", letters(400));
    let split = SplitRequest { train_chars: Some(300), validation_chars: Some(90), test_chars: Some(20) };
    let (message, hint) = error(&CorpusRequest { split, ..CorpusRequest::new(&path) });
    assert!(
        message
            .ends_with("a.txt has 400 characters: the splits (train 300, validation 90, test 20) do not fit")
    );
    assert!(hint.contains("--train-chars"));
    let corpus = open(&CorpusRequest::new(&path)).unwrap();
    assert!(corpus.require(39).is_ok());
    let error = corpus.require(40).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the validation split has 40 characters; sequence_length 40 needs at least 41"
    );
    assert!(error.hint().unwrap().contains("sequence_length"));
    assert!(corpus.require(usize::MAX).unwrap_err().to_string().starts_with("the train split has 320"));
    let none = Corpus::from_parts("x", Alphabet::text8(), Vec::new(), &SplitRequest::default());
    assert!(matches!(none, Err(CorpusError::Empty { .. })));
    let outside = Corpus::from_parts("x", Alphabet::text8(), vec![27; 100], &SplitRequest::default());
    assert!(matches!(outside, Err(CorpusError::Id { id: 27, offset: 0, .. })));
}

#[test]
fn requests_are_kept() {
    let request = CorpusRequest {
        corpus: "a.txt".into(),
        test_corpus: Some("b.txt".into()),
        alphabet: AlphabetKind::Auto,
        normalize: true,
        split: SplitRequest { train_chars: Some(5), ..SplitRequest::default() },
    };
    let json = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<CorpusRequest>(&json).unwrap(), request);
    let short: CorpusRequest = serde_json::from_str(r#"{"corpus": "text8"}"#).unwrap();
    assert_eq!(short, CorpusRequest::new("text8"));
}

#[test]
fn what_there_is_to_know() {
    let text = ids(&b"aaaab bc ".repeat(100));
    let corpus = Corpus::from_parts("x", Alphabet::text8(), text, &SplitRequest::default()).unwrap();
    let info = corpus.info();
    assert_eq!((info.characters, info.vocabulary, info.distinct), (900, 27, 4));
    assert_eq!((info.train, info.validation, info.test), (720, 90, 90));
    let count = |symbol: &str| info.symbols.iter().find(|s| s.symbol == symbol).unwrap().count;
    assert_eq!((count("a"), count("b"), count("c"), count(" "), count("z")), (400, 200, 100, 200, 0));
    let entropy: f64 = [4.0f64, 2.0, 1.0, 2.0].iter().map(|n| n / 9.0 * (9.0 / n).log2()).sum();
    assert!((info.unigram_entropy_bits - entropy).abs() < 1e-12);
    assert_eq!(info.entropy_rate_bits, None);
    let same = Corpus::from_parts("x", Alphabet::text8(), vec![0; 100], &SplitRequest::default()).unwrap();
    assert_eq!(format!("{:.4}", same.info().unigram_entropy_bits), "0.0000");
    // All splits have the same frequencies.
    assert!((corpus.unigram_loss() / std::f64::consts::LN_2 - entropy).abs() < 1e-12);
    let strange = ids(&[b"ab".repeat(400), b"zz".repeat(50), b"ab".repeat(50)].concat());
    let strange = Corpus::from_parts("x", Alphabet::text8(), strange, &SplitRequest::default()).unwrap();
    assert!((strange.unigram_loss() - 800f64.ln()).abs() < 1e-12, "as if z had occurred once");
    let json = serde_json::to_value(&info).unwrap();
    assert_eq!(json["digest"], corpus.digest);
    assert_eq!(json["alphabet"], "text8");
}

// ---- windows

#[test]
fn training_windows_have_addresses() {
    let text = ids(&letters(1000));
    let (mut windows, mut again) = (Windows::default(), Windows::default());
    training_windows(&text, 3, 17, 8, 32, &mut windows);
    assert_eq!((windows.count(), windows.sequence_length, windows.targets.len()), (8, 32, 8 * 32));
    // The address is (seed, training windows, step, index); the bound leaves room for the last target.
    let stream = Stream::new(3, Purpose::TrainingWindows, 17);
    for i in 0..8 {
        let start = stream.below(i as u64, 1000 - 32) as usize;
        assert_eq!(windows.inputs[i * 32..][..32], text[start..][..32]);
        assert_eq!(windows.targets[i * 32..][..32], text[start + 1..][..32]);
    }
    training_windows(&text, 3, 17, 8, 32, &mut again);
    assert_eq!(windows, again);
    // A larger batch begins with the smaller one.
    training_windows(&text, 3, 17, 64, 32, &mut again);
    assert_eq!(again.inputs[..8 * 32], windows.inputs[..]);
    for (seed, step) in [(4, 17), (3, 18)] {
        training_windows(&text, seed, step, 8, 32, &mut again);
        assert_ne!(again.inputs, windows.inputs);
    }
    let fixed = random_windows(&text, Stream::new(0, Purpose::ValidationWindows, 0), 100, 32);
    assert_eq!(fixed, random_windows(&text, Stream::new(0, Purpose::ValidationWindows, 0), 100, 32));
    assert_ne!(fixed, random_windows(&text, Stream::new(0, Purpose::FreshValidationWindows, 0), 100, 32));
}

#[test]
fn every_place_of_a_window_is_drawn_and_none_beyond() {
    let text: Vec<u8> = (0..20).collect();
    let mut starts = [0; 20];
    let windows = random_windows(&text, Stream::new(0, Purpose::Test, 0), 16_000, 4);
    for i in 0..windows.count() {
        starts[usize::from(windows.inputs[i * 4])] += 1;
    }
    assert!(starts[..16].iter().all(|&n| (800..1200).contains(&n)), "{starts:?}");
    assert_eq!(starts[16..], [0; 4]);
    // The shortest text has one window.
    let one = random_windows(&text[..5], Stream::new(0, Purpose::Test, 0), 3, 4);
    assert_eq!(one.inputs, [0, 1, 2, 3].repeat(3));
    assert_eq!(one.targets, [1, 2, 3, 4].repeat(3));
}

#[test]
fn a_batch_is_gathered_without_allocation() {
    let text = ids(&letters(1000));
    let mut windows = Windows::default();
    training_windows(&text, 0, 0, 64, 32, &mut windows);
    let place = (windows.inputs.as_ptr(), windows.targets.as_ptr());
    for step in 1..50 {
        training_windows(&text, 0, step, 64, 32, &mut windows);
    }
    assert_eq!(place, (windows.inputs.as_ptr(), windows.targets.as_ptr()));
}

// ---- files

#[test]
fn encode_decode_and_normalize_files() {
    let folder = Folder::new();
    let text = letters(100_000);
    let input = folder.file("a.txt", &text);
    let npy = folder.path("a.npy");
    let report = &mut |_: Progress| {};
    let (alphabet, n) = write_atomically(&npy, |out| {
        convert::encode(Path::new(&input), AlphabetKind::Text8, false, out, report)
    })
    .unwrap();
    assert_eq!((alphabet, n), (Alphabet::text8(), text.len()));
    let back = folder.path("back.txt");
    write_atomically(&back, |out| convert::decode(&npy, &Alphabet::text8(), out, report)).unwrap();
    assert_eq!(fs::read(&back).unwrap(), text);
    assert!(convert::decode(&back, &Alphabet::text8(), &mut Vec::new(), report).is_err());
    assert!(convert::encode(&npy, AlphabetKind::Text8, false, &mut Vec::new(), report).is_err());

    let wild = folder.file("wild.txt", "\u{c9}t\u{e9} 7\n".repeat(10));
    let normal = folder.path("normal.txt");
    write_atomically(&normal, |out| convert::normalize(Path::new(&wild), out, report)).unwrap();
    assert_eq!(fs::read_to_string(&normal).unwrap(), " t seven".repeat(10));
    let auto = folder.path("auto.npy");
    let (alphabet, _) = write_atomically(&auto, |out| {
        convert::encode(Path::new(&wild), AlphabetKind::Auto, false, out, report)
    })
    .unwrap();
    let mut out = Vec::new();
    let alphabet = Alphabet::from_string_form(&alphabet.to_string_form()).unwrap();
    convert::decode(&auto, &alphabet, &mut out, report).unwrap();
    assert_eq!(out, fs::read(&wild).unwrap());
}

#[test]
fn a_file_is_whole_or_as_it_was() {
    let folder = Folder::new();
    let path = folder.file("kept.txt", "old");
    let fail = |out: &mut dyn Write| -> Result<(), CorpusError> {
        out.write_all(&[b'x'; 100_000]).unwrap();
        Err(CorpusError::Empty { name: "it".into() })
    };
    assert!(write_atomically(Path::new(&path), fail).is_err());
    assert!(write_atomically(&folder.path("new.txt"), fail).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(folder.names(), ["kept.txt"]);
    #[cfg(target_os = "linux")]
    {
        let report = &mut |_: Progress| {};
        let full = |out: &mut dyn Write| convert::normalize(Path::new(&path), out, report);
        let device = Path::new("/dev/full");
        let error = write_atomically(device, full).unwrap_err().with_output(device).to_string();
        assert!(error.starts_with("cannot write /dev/full: No space left"), "{error}");
    }
    let write = |out: &mut dyn Write| -> Result<(), CorpusError> { Ok(out.write_all(b"new")?) };
    let absent = folder.path("no/such/folder.txt");
    let error = write_atomically(&absent, write).unwrap_err().with_output(&absent).to_string();
    assert!(error.starts_with("cannot write ") && error.contains("no/such/folder.txt"), "{error}");
    assert!(write_atomically(Path::new("/"), write).is_err());
    assert!(write_atomically(folder.0.path(), write).is_err());
    // What a killed process left behind is replaced.
    fs::write(folder.path(".kept.txt.tmp"), "left behind, and longer").unwrap();
    write_atomically(Path::new(&path), write).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(folder.names(), ["kept.txt"]);
    #[cfg(unix)]
    {
        // A link stays a link, a device a device.
        std::os::unix::fs::symlink(&path, folder.path("link")).unwrap();
        fs::write(&path, "old").unwrap();
        write_atomically(&folder.path("link"), write).unwrap();
        assert!(fs::symlink_metadata(folder.path("link")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        write_atomically(Path::new("/dev/null"), write).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
    assert!(folder.names().iter().all(|name| !name.ends_with(".tmp")));
}
