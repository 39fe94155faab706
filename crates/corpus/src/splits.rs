//! Splits: which part of a text trains, which part chooses, which part judges.
//!
//! Training text lies at the beginning, the test text at the end, validation text directly before it (or, with
//! a test text of its own, at the end of the first). By default the three fill the text. Sizes that are given
//! are kept to the character; a default size gives way to them: the test split first, if train and validation
//! leave it less, then the train split. So a smaller `--train-chars` alone leaves validation and test where
//! they were, and runs on less data stay comparable.

use crate::CorpusError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// A part of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What models are trained on.
    Train,
    /// What configurations are compared on.
    Validation,
    /// What the last judgement is made on.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// Sizes of the splits in characters. What is not given is 80 % (train), 10 % (validation), both rounded down,
/// and the rest (test); with a separate test text, 8/9 of the first text, rounded down, its rest, and all of
/// the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitRequest {
    /// Characters of the train split.
    pub train_chars: Option<usize>,
    /// Characters of the validation split.
    pub validation_chars: Option<usize>,
    /// Characters of the test split.
    pub test_chars: Option<usize>,
}

/// Where the splits of a corpus lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Splits {
    pub(crate) train: Range<usize>,
    pub(crate) validation: Range<usize>,
    pub(crate) test: Range<usize>,
}

/// A split of one character has nothing to predict.
const LEAST: usize = 2;

impl SplitRequest {
    /// Places the splits in one text of `n` characters.
    pub(crate) fn in_one(&self, n: usize, name: &str) -> Result<Splits, CorpusError> {
        let default_train = n / 10 * 8 + n % 10 * 8 / 10;
        let default_validation = n / 10;
        let validation = self.validation_chars.unwrap_or(default_validation);
        let left = n.saturating_sub(self.train_chars.unwrap_or(0)).saturating_sub(validation);
        let test = self.test_chars.unwrap_or((n - default_train - default_validation).min(left));
        let train = self.train_chars.unwrap_or(n.saturating_sub(validation).saturating_sub(test));
        // What gives way is what is left; it is only too much if what was given is.
        let sizes = [
            ("train", self.train_chars, train),
            ("validation", self.validation_chars, validation),
            ("test", self.test_chars, test),
        ];
        check(&sizes, n, name)?;
        let end = n - test;
        Ok(Splits { train: 0..train, validation: end - validation..end, test: end..n })
    }

    /// Places train and validation in a text of `n` characters, and test in another of `test_n` that follows
    /// it in memory.
    pub(crate) fn in_two(
        &self,
        n: usize,
        name: &str,
        test_n: usize,
        test_name: &str,
    ) -> Result<Splits, CorpusError> {
        let default_train = n / 9 * 8 + n % 9 * 8 / 9;
        let validation = match (self.validation_chars, self.train_chars) {
            (Some(validation), _) => validation,
            (None, Some(train)) => (n - default_train).min(n.saturating_sub(train)),
            (None, None) => n - default_train,
        };
        let train = self.train_chars.unwrap_or(n.saturating_sub(validation));
        let test = self.test_chars.unwrap_or(test_n);
        check(
            &[("train", self.train_chars, train), ("validation", self.validation_chars, validation)],
            n,
            name,
        )?;
        check(&[("test", self.test_chars, test)], test_n, test_name)?;
        let end = n + test_n;
        Ok(Splits { train: 0..train, validation: n - validation..n, test: end - test..end })
    }
}

/// A split's name, the size that was asked for, and the size that it gets.
type Size = (&'static str, Option<usize>, usize);

/// Checks that each split can be used and that all fit into `n` characters.
fn check(sizes: &[Size], n: usize, name: &str) -> Result<(), CorpusError> {
    let wrong = |problem| Err(CorpusError::Splits { name: name.to_owned(), characters: n, problem });
    for &(split, asked, _) in sizes {
        if let Some(size) = asked.filter(|&size| size < LEAST) {
            return wrong(format!("--{split}-chars {size} is too little, a split needs at least {LEAST}"));
        }
    }
    let described: Vec<String> = sizes.iter().map(|(split, _, size)| format!("{split} {size}")).collect();
    let described = described.join(", ");
    let total = sizes.iter().fold(0, |total: usize, (.., size)| total.saturating_add(*size));
    if total > n {
        return wrong(format!("the splits ({described}) do not fit"));
    }
    if sizes.iter().any(|(.., size)| *size < LEAST) {
        return wrong(format!("too few for its splits ({described}), which need at least {LEAST} each"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(splits: &Splits) -> (usize, usize, usize) {
        (splits.train.len(), splits.validation.len(), splits.test.len())
    }

    fn request(train: Option<usize>, validation: Option<usize>, test: Option<usize>) -> SplitRequest {
        SplitRequest { train_chars: train, validation_chars: validation, test_chars: test }
    }

    #[test]
    fn defaults() {
        let all = SplitRequest::default();
        let text8 = all.in_one(100_000_000, "").unwrap();
        assert_eq!(text8.train, 0..80_000_000);
        assert_eq!(text8.validation, 80_000_000..90_000_000);
        assert_eq!(text8.test, 90_000_000..100_000_000);
        // Rounded down, rounded down, the rest.
        assert_eq!(sizes(&all.in_one(1_019, "").unwrap()), (815, 101, 103));
        assert_eq!(sizes(&all.in_one(1_000_009, "").unwrap()), (800_007, 100_000, 100_002));
        let notebook = all.in_two(90_000_000, "", 10_000_000, "").unwrap();
        assert_eq!(notebook, text8);
        assert_eq!(sizes(&all.in_two(100, "", 7, "").unwrap()), (88, 12, 7));
    }

    #[test]
    fn given_sizes_are_kept_and_defaults_give_way() {
        let split = |train, validation, test| request(train, validation, test).in_one(1000, "").unwrap();
        // Less data: validation and test stay.
        let less = split(Some(100), None, None);
        assert_eq!((less.train, less.validation, less.test), (0..100, 800..900, 900..1000));
        // Test gets the rest.
        let two = split(Some(900), Some(60), None);
        assert_eq!((two.train, two.validation, two.test), (0..900, 900..960, 960..1000));
        // Train gives way.
        assert_eq!(sizes(&split(None, Some(300), None)), (600, 300, 100));
        assert_eq!(sizes(&split(None, None, Some(300))), (600, 100, 300));
        assert_eq!(sizes(&split(None, Some(50), None)), (850, 50, 100));
        assert_eq!(sizes(&split(Some(10), Some(20), Some(30))), (10, 20, 30));
        assert_eq!(sizes(&split(Some(500), Some(250), Some(250))), (500, 250, 250));

        let split =
            |train, validation, test| request(train, validation, test).in_two(900, "", 50, "").unwrap();
        assert_eq!(sizes(&split(Some(100), None, None)), (100, 100, 50));
        assert_eq!(sizes(&split(Some(890), None, None)), (890, 10, 50));
        assert_eq!(sizes(&split(None, Some(10), Some(20))), (890, 10, 20));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let message = |r: SplitRequest, n| r.in_one(n, "a.txt").unwrap_err().to_string();
        assert_eq!(
            message(request(Some(900), Some(90), Some(20)), 1000),
            "a.txt has 1000 characters: the splits (train 900, validation 90, test 20) do not fit"
        );
        assert_eq!(
            message(SplitRequest::default(), 9),
            "a.txt has 9 characters: too few for its splits (train 7, validation 0, test 2), which need at least 2 each"
        );
        assert_eq!(
            message(request(None, Some(0), None), 1000),
            "a.txt has 1000 characters: --validation-chars 0 is too little, a split needs at least 2"
        );
        assert!(request(Some(1000), None, None).in_one(1000, "").is_err());
        assert!(request(None, Some(1000), None).in_one(1000, "").is_err());
        assert!(request(None, Some(usize::MAX), Some(usize::MAX)).in_one(1000, "").is_err());
        assert!(request(Some(usize::MAX), Some(usize::MAX), None).in_one(1000, "").is_err());
        assert!(request(Some(800), Some(100), None).in_two(890, "", 100, "").is_err());
        assert!(request(None, None, Some(101)).in_two(890, "", 100, "").is_err());
        assert!(SplitRequest::default().in_two(0, "", 100, "").is_err());
    }
}
