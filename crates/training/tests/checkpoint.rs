//! Checkpoint files: what comes back from a good one, and that a bad one is refused in words.

mod common;

use common::{Bigram, config, corpus, run};
use diapason_model::{Layout, ModelConfig};
use diapason_training::checkpoint;
use diapason_training::{BEST, CHECKPOINT, Checkpoint, CheckpointError, Config, RunSpec};
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A small model, so that its file can be damaged in every place.
fn tiny() -> Config {
    Config { max_len: 3, sequence_length: 2, steps: 3, eval_every: 2, validation_characters: 8, ..config() }
}

/// The files of a short run: checkpoint and best weights.
fn files() -> &'static [Vec<u8>; 2] {
    static FILES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let spec = RunSpec::new(tiny(), 7, folder.path());
        run(&corpus(0), &mut Bigram::new(&tiny()), &spec).unwrap();
        [CHECKPOINT, BEST].map(|name| fs::read(folder.path().join(name)).unwrap())
    })
}

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        Self { _folder: folder, path }
    }

    fn read(&self, bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        fs::write(&self.path, bytes).unwrap();
        Checkpoint::read(&self.path)
    }
}

/// The weights in a file.
fn read_weights(path: &Path, model: &ModelConfig, alphabet: &str) -> Result<Vec<f32>, CheckpointError> {
    let mut weights = vec![f32::NAN; model.parameters()];
    checkpoint::read_weights(path, model, alphabet, &mut weights).map(|()| weights)
}

/// One line that names the file.
fn check(error: &CheckpointError, path: &Path) {
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()) && !message.contains('\n'), "{message}");
}

fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

#[test]
fn what_is_written_is_read() {
    let place = Place::new();
    for bytes in files() {
        let checkpoint = place.read(bytes).unwrap();
        assert_eq!(checkpoint.header.seed, 7);
        assert_eq!(checkpoint.header.config, tiny());
        assert_eq!(checkpoint.header.alphabet().unwrap().len(), 27);
        assert_eq!(Checkpoint::read_header(&place.path).unwrap(), checkpoint.header);
        checkpoint.write(&place.path).unwrap();
        assert_eq!(&fs::read(&place.path).unwrap(), bytes, "equal checkpoints are equal files");
    }
    assert!(place.read(&files()[0]).unwrap().moments.is_some());
    assert!(place.read(&files()[1]).unwrap().moments.is_none());
}

#[test]
fn other_programs_can_read_it() {
    for (bytes, prefixes) in files().iter().zip([&["", "adam.m.", "adam.v."][..], &[""]]) {
        let place = Place::new();
        let checkpoint = place.read(bytes).unwrap();
        let tensors = SafeTensors::deserialize(bytes).unwrap();
        let layout = Layout::new(&checkpoint.header.model);
        assert_eq!(tensors.len(), prefixes.len() * layout.tensors.len());
        for prefix in prefixes {
            for tensor in &layout.tensors {
                let view = tensors.tensor(&format!("{prefix}{}", tensor.name)).unwrap();
                assert_eq!((view.dtype(), view.shape()), (Dtype::F32, &tensor.shape[..]));
            }
        }
        let embedding = tensors.tensor("token_embedding").unwrap();
        assert_eq!(embedding.data()[..4], checkpoint.parameters[0].to_le_bytes());
        let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
        let texts = metadata.metadata().clone().unwrap();
        assert_eq!(texts["diapason_checkpoint"], "2");
        assert_eq!(texts["step"], checkpoint.header.step.to_string());
        let config: Config = serde_json::from_str(&texts["config"]).unwrap();
        assert_eq!(config, tiny());
        assert!(texts["corpus_digest"].starts_with("sha256:"));
    }
}

#[test]
fn numbers_come_back_to_the_bit() {
    let place = Place::new();
    let mut checkpoint = place.read(&files()[0]).unwrap();
    let odd = [f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE / 8.0, f32::from_bits(0x7f80_0001)];
    checkpoint.parameters[..5].copy_from_slice(&odd);
    checkpoint.header.seed = u64::MAX;
    checkpoint.header.corpus_name = "a \"name\"\n\u{1f3bc}".to_string();
    let progress = &mut checkpoint.header.progress;
    progress.loss_sum = 0.1 + 0.2;
    progress.train_seconds = 1.0 / 3.0;
    progress.curve[0].validation_loss = 2.220_446_049_250_313e-16;
    checkpoint.write(&place.path).unwrap();
    let read = Checkpoint::read(&place.path).unwrap();
    assert_eq!(read.header, checkpoint.header);
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read.parameters), bits(&checkpoint.parameters));
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let place = Place::new();
    for bytes in files() {
        let header = header_length(bytes);
        let ends = (0..=8).chain((9..bytes.len()).step_by(251)).chain([7 + header, 8 + header, 9 + header]);
        for end in ends.chain([bytes.len() - 1]) {
            let error = place.read(&bytes[..end]).unwrap_err();
            assert!(matches!(error, CheckpointError::Truncated { .. }), "at {end}: {error}");
            assert!(error.hint().is_some());
            check(&error, &place.path);
        }
        let error = place.read(&[bytes, &[0][..]].concat()).unwrap_err();
        assert!(matches!(error, CheckpointError::Altered { .. }), "{error}");
    }
}

#[test]
fn an_altered_number_is_found() {
    let place = Place::new();
    for bytes in files() {
        let data = 8 + header_length(bytes);
        let mut altered = bytes.clone();
        for position in (data..bytes.len()).step_by(997).chain([data, bytes.len() - 1]) {
            altered[position] ^= 1;
            let error = place.read(&altered).unwrap_err();
            assert!(matches!(error, CheckpointError::Altered { .. }), "at {position}: {error}");
            check(&error, &place.path);
            altered[position] ^= 1;
        }
    }
}

#[test]
fn an_altered_header_is_found_in_every_byte() {
    // The smaller file: its header has every kind of entry.
    let (place, bytes) = (Place::new(), &files()[1]);
    let good = place.read(bytes).unwrap();
    let mut altered = bytes.clone();
    for position in 0..8 + header_length(bytes) {
        let flip = [1, 0x20, 0x80][position % 3];
        altered[position] ^= flip;
        match place.read(&altered) {
            Err(error) => check(&error, &place.path),
            // Nothing but another way to write the same: `"\u0041"`, a tab for a blank.
            Ok(read) => assert_eq!(read, good, "byte {position}"),
        }
        altered[position] ^= flip;
    }
}

#[test]
fn a_hostile_header_allocates_nothing() {
    let place = Place::new();
    for length in [1 << 24, (1 << 24) + 1, 100_000_000, 1 << 40, u64::MAX - 8, u64::MAX] {
        let error = place.read(&[&length.to_le_bytes()[..], b"{}"].concat()).unwrap_err();
        let expected = if length > 1 << 24 { "not a safetensors file" } else { "truncated" };
        assert!(error.to_string().contains(expected), "{length}: {error}");
    }
    let file = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let cases = [
        // Shapes that overflow, and tensors that are not there.
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#.to_string(),
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}"#.to_string(),
        r#"{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}"#.to_string(),
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#.to_string(),
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}"#.to_string(),
        r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[18446744073709551615,18446744073709551615]}}"#
            .to_string(),
        // Nesting deeper than a parser may follow.
        "[".repeat(100_000),
        r#"{"__metadata__":{"a":"#.repeat(10_000),
        String::new(),
        "null".to_string(),
        "{}".to_string(),
        r#"{"__metadata__":{"diapason_checkpoint":"1"}}"#.to_string(),
    ];
    for json in cases {
        let error = place.read(&file(&json)).unwrap_err();
        check(&error, &place.path);
    }
}

/// A file of ours whose metadata `change` has rewritten, digest and all.
fn forged(change: impl FnOnce(&mut Checkpoint)) -> Vec<u8> {
    let place = Place::new();
    let mut checkpoint = place.read(&files()[1]).unwrap();
    change(&mut checkpoint);
    checkpoint.write(&place.path).unwrap();
    fs::read(&place.path).unwrap()
}

type Change = fn(&mut Checkpoint);

#[test]
fn what_does_not_fit_together_is_refused_even_with_a_digest() {
    let place = Place::new();
    let contradictions: [(&str, Change); 4] = [
        ("not the model of its config", |c| c.header.config.n_heads = 4),
        ("sequence_length", |c| c.header.config.sequence_length = 100),
        ("alphabet", |c| c.header.alphabet = "runes".to_string()),
        ("256 symbols for a vocabulary of 27", |c| {
            c.header.alphabet = diapason_corpus::Alphabet::bytes().to_string_form();
        }),
    ];
    for (text, change) in contradictions {
        let error = place.read(&forged(change)).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        check(&error, &place.path);
    }
}

#[test]
fn other_files_are_told_apart() {
    let place = Place::new();
    let error = Checkpoint::read(&place.path).unwrap_err();
    assert!(matches!(error, CheckpointError::Read { .. }), "{error}");
    let error = Checkpoint::read(place.path.parent().unwrap()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let error = place.read(b"d_model,n_heads\n256,8\n").unwrap_err();
    assert!(matches!(error, CheckpointError::NotSafetensors { .. }), "{error}");
    let data = [0; 4];
    let tensor = TensorView::new(Dtype::F32, vec![1], &data).unwrap();
    let error = place.read(&safetensors::serialize([("a", tensor)], None).unwrap()).unwrap_err();
    assert!(matches!(error, CheckpointError::NotACheckpoint { .. }), "{error}");
    let text = String::from_utf8_lossy(&files()[1][8..8 + header_length(&files()[1])]).into_owned();
    let at = 8 + text.find(r#""diapason_checkpoint":"2""#).unwrap() + r#""diapason_checkpoint":""#.len();
    let mut newer = files()[1].clone();
    newer[at] = b'3';
    let error = place.read(&newer).unwrap_err();
    assert!(matches!(error, CheckpointError::Version { .. }), "{error}");
}

/// Tensors of a plain file: name, type, shape, bytes.
type Plain = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

#[test]
fn weights_are_taken_from_any_file_that_has_them() {
    let place = Place::new();
    let checkpoint = place.read(&files()[0]).unwrap();
    let (model, alphabet) = (&checkpoint.header.model, checkpoint.header.alphabet.as_str());
    for bytes in files() {
        fs::write(&place.path, bytes).unwrap();
        let weights = read_weights(&place.path, model, alphabet).unwrap();
        assert_eq!(weights, place.read(bytes).unwrap().parameters);
        let other = ModelConfig { n_heads: 7, ..*model };
        let error = read_weights(&place.path, &other, alphabet).unwrap_err();
        assert!(error.to_string().contains("n_heads is 2, not 7"), "{error}");
        let error = read_weights(&place.path, model, "another").unwrap_err();
        assert!(matches!(error, CheckpointError::Alphabet { .. }), "{error}");
    }

    // As a script would write it: no metadata of ours, tensors in some order.
    let layout = Layout::new(model);
    let bytes: Vec<u8> = checkpoint.parameters.iter().flat_map(|x| x.to_le_bytes()).collect();
    let plain = |change: &dyn Fn(&mut Plain)| {
        let mut tensors: Vec<_> = layout
            .tensors
            .iter()
            .map(|t| {
                let data = bytes[4 * t.range.start..4 * t.range.end].to_vec();
                (t.name.clone(), Dtype::F32, t.shape.clone(), data)
            })
            .collect();
        change(&mut tensors);
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape, data)| {
                (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
            })
            .collect();
        fs::write(&place.path, safetensors::serialize(views, None).unwrap()).unwrap();
        read_weights(&place.path, model, alphabet)
    };
    assert_eq!(plain(&|_| {}).unwrap(), checkpoint.parameters);
    let refused = |text: &str, change: &dyn Fn(&mut Plain)| {
        let error = plain(change).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        check(&error, &place.path);
    };
    refused("tensor `head` is missing", &|t| t.retain(|t| t.0 != "head"));
    refused("tensor `lm_head`", &|t| t.push(("lm_head".into(), Dtype::F32, vec![1], vec![0; 4])));
    refused("tensor `head` has shape [27, 28], not [28, 27]", &|t| {
        t.iter_mut().filter(|t| t.0 == "head").for_each(|t| t.2.reverse());
    });
    refused("tensor `final_norm.bias` is F16, not F32", &|t| {
        for tensor in t.iter_mut().filter(|t| t.0 == "final_norm.bias") {
            (tensor.1, tensor.3) = (Dtype::F16, vec![0; 2 * 28]);
        }
    });
    refused("tensor `final_norm.bias` holds a number that is not finite", &|t| {
        let tensor = t.iter_mut().find(|t| t.0 == "final_norm.bias").unwrap();
        tensor.3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to a file: an error in one line, or the same content.
    #[test]
    fn damage_never_passes(
        which in 0..2usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header: bool,
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (place, bytes) = (Place::new(), &files()[which]);
        let good = place.read(bytes).unwrap();
        let mut damaged = bytes.clone();
        let reach = if in_header { 8 + header_length(bytes) } else { bytes.len() };
        for (place, byte) in damage {
            damaged[place.index(reach)] = byte;
        }
        if let Some(end) = end {
            damaged.truncate(end.index(bytes.len()));
        }
        match place.read(&damaged) {
            Err(error) => check(&error, &place.path),
            Ok(read) => prop_assert_eq!(&read, &good),
        }
        let model = &good.header.model;
        match read_weights(&place.path, model, &good.header.alphabet) {
            Err(error) => check(&error, &place.path),
            Ok(weights) => prop_assert_eq!(weights, good.parameters),
        }
    }

    /// Bytes from anywhere are no checkpoint, and no reason to panic.
    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..300u64) {
        let place = Place::new();
        prop_assert!(place.read(&bytes).is_err());
        let bytes = [&length.to_le_bytes()[..], &bytes].concat();
        prop_assert!(place.read(&bytes).is_err());
    }
}
