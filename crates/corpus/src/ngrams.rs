//! What counting alone predicts: the yardstick that any model should beat.
//!
//! A context of k symbols predicts by interpolation with shorter ones (Witten and Bell, 1991, method C; as in Chen and
//! Goodman, 1998):
//!
//! p_k(y) = (c(y) + T p_{k-1}(y)) / (n + T)
//!
//! where c(y) is how often y follows the context in the counted text, n how often anything does, T how many different
//! symbols do, and p_{-1} is uniform. A context that occurs once says nothing: the p of the shorter one stands.
//!
//! No table of n-grams is ever made. n-grams of the text and the questions are sorted in the same order, newest symbol of the
//! context first, in which every context of any length is one stretch of both; one walk along the two finds all counts
//! that are asked for. The text goes through this in parts, by the newest symbol, so that no more than a part is in memory.

use std::cmp::Ordering;
use std::ops::ControlFlow;

/// n of the longest n-grams that are counted, where the alphabet allows it: longer ones predict no better in 80 MB of English.
const LONGEST: usize = 8;

/// Contexts that occur less often say nothing.
const LEAST: u32 = 2;

/// A question: what comes behind `context`, and what really came.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is known of the symbols before, oldest first.
    pub context: &'a [u8],
    /// What follows.
    pub next: u8,
}

/// n of the longest n-grams that are counted of an alphabet of `vocabulary` symbols.
pub fn longest(vocabulary: usize) -> usize {
    LONGEST.min((u64::BITS / bits(vocabulary)) as usize)
}

/// Bytes that [`mean_losses`] takes for so many questions, at its most.
pub fn memory(train: &[u8], vocabulary: usize, questions: usize) -> usize {
    let largest = counts(train, vocabulary).into_iter().max().unwrap_or(0) as usize;
    let levels = longest(vocabulary) - 1;
    size_of::<u64>() * largest + (size_of::<Asked>() + levels * size_of::<Found>()) * questions
}

/// Mean loss over the `questions`, in nats, for predictions by n-grams of `train` up to n = 1, 2, ... [`longest`], of symbols below
/// `vocabulary`. Of an empty list nothing is known: 0. 80 million symbols take some seconds: `progress` is told the symbols done and those
/// in all, and may break off; then there is no answer.
///
/// # Panics
/// When a symbol is out of range.
pub fn mean_losses(
    train: &[u8],
    vocabulary: usize,
    questions: &[Question<'_>],
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Option<Vec<f64>> {
    let levels = longest(vocabulary) - 1;
    let keys = Keys { bits: bits(vocabulary), levels };
    let singles = counts(train, vocabulary);
    let mut asked: Vec<Asked> = questions
        .iter()
        .map(|question| {
            assert!(usize::from(question.next) < vocabulary, "a symbol out of range");
            let known = question.context.len().min(levels);
            let context = &question.context[question.context.len() - known..];
            Asked { key: keys.of(context, question.next), known: known as u8 }
        })
        .collect();
    asked.sort_unstable_by_key(|asked| asked.key);

    let mut found = vec![Found::default(); levels * asked.len()];
    let mut ngrams = Vec::with_capacity(singles.iter().copied().max().unwrap_or(0) as usize);
    let (mut from, mut done) = (0, 0);
    for newest in 0..vocabulary {
        if progress(done, train.len() as u64).is_break() {
            return None;
        }
        done += u64::from(singles[newest]);
        let of_it = |asked: &Asked| keys.symbol(asked.key, 0) == newest as u8;
        let to = from + asked[from..].partition_point(of_it);
        if from < to {
            ngrams.clear();
            let windows = train.windows(levels + 1).filter(|window| window[levels - 1] == newest as u8);
            ngrams.extend(windows.map(|window| keys.of(&window[..levels], window[levels])));
            ngrams.sort_unstable();
            walk(&ngrams, keys, vocabulary, &asked[from..to], &mut found[levels * from..levels * to]);
        }
        from = to;
    }

    let different = singles.iter().filter(|count| **count > 0).count() as f64;
    let all = train.len() as f64 + different;
    let mut losses = vec![0.0; levels + 1];
    for (i, asked) in asked.iter().enumerate() {
        let next = keys.symbol(asked.key, levels);
        let mut p = if all > 0.0 {
            (f64::from(singles[usize::from(next)]) + different / vocabulary as f64) / all
        } else {
            1.0 / vocabulary as f64
        };
        losses[0] -= libm::log(p);
        for (k, loss) in losses.iter_mut().enumerate().skip(1) {
            let Found { own, shorter } = found[levels * i + k - 1];
            if k <= usize::from(asked.known) && shorter < 1.0 {
                p = f64::from(own) + f64::from(shorter) * p;
            }
            *loss -= libm::log(p);
        }
    }
    losses.iter_mut().for_each(|loss| *loss /= asked.len().max(1) as f64);
    Some(losses)
}

/// A question as an n-gram; symbols of the context that are not known are 0.
#[derive(Clone, Copy)]
struct Asked {
    key: u64,
    /// Symbols of the context that are known.
    known: u8,
}

/// What one context says to a question: p = own + shorter * (what the shorter context says).
#[derive(Clone, Copy)]
struct Found {
    own: f32,
    shorter: f32,
}

impl Default for Found {
    fn default() -> Self {
        Self { own: 0.0, shorter: 1.0 }
    }
}

/// n-grams as numbers: the symbols of the context, newest first and highest, then what follows.
#[derive(Clone, Copy)]
struct Keys {
    /// Of a symbol.
    bits: u32,
    /// Symbols of a context.
    levels: usize,
}

impl Keys {
    /// `context` is oldest first, and may have less than `levels` symbols.
    fn of(self, context: &[u8], next: u8) -> u64 {
        let context = context.iter().rev().copied().chain(std::iter::repeat(0)).take(self.levels);
        context.chain([next]).fold(0, |key, symbol| key << self.bits | u64::from(symbol))
    }

    /// The symbol in a place; 0 is the newest, `levels` what follows.
    fn symbol(self, key: u64, place: usize) -> u8 {
        (key >> (self.bits * (self.levels - place) as u32) & ((1 << self.bits) - 1)) as u8
    }

    /// How many symbols of the contexts agree, from the newest on.
    fn agree(self, a: u64, b: u64) -> usize {
        match (a ^ b).checked_ilog2() {
            None => self.levels,
            Some(high) => self.levels - ((high / self.bits) as usize).min(self.levels),
        }
    }

    /// The context's newest `k` symbols of two keys, compared.
    fn compare(self, a: u64, b: u64, k: usize) -> Ordering {
        let shift = self.bits * (self.levels + 1 - k) as u32;
        (a >> shift).cmp(&(b >> shift))
    }
}

/// Finds what the contexts of sorted `ngrams` say to sorted questions; all have the same newest symbol.
fn walk(ngrams: &[u64], keys: Keys, vocabulary: usize, asked: &[Asked], found: &mut [Found]) {
    let levels = keys.levels;
    // Of the context of each length that the walk is in: what follows, and the first question that is not before it.
    let mut counts = vec![vec![0u32; vocabulary]; levels + 1];
    let mut first = vec![0; levels + 1];
    // Symbols of the context that somebody asks about.
    let mut wanted = 0;
    let mut runs = ngrams.chunk_by(|a, b| a == b).peekable();
    let mut same = 0;
    while let Some(run) = runs.next() {
        let key = run[0];
        // Contexts begin here, from `same` + 1 symbols on. Where nobody asks about one, nobody asks about longer ones.
        wanted = wanted.min(same);
        while wanted == same && wanted < levels {
            let k = wanted + 1;
            let at = &mut first[k];
            *at += asked[*at..].partition_point(|asked| keys.compare(asked.key, key, k).is_lt());
            if asked.get(*at).is_none_or(|asked| keys.compare(asked.key, key, k).is_ne()) {
                break;
            }
            (wanted, same) = (k, k);
        }
        let next = usize::from(keys.symbol(key, levels));
        counts[1..=wanted].iter_mut().for_each(|counts| counts[next] += run.len() as u32);
        // Where the next one is another context, this one is over.
        same = runs.peek().map_or(0, |following| keys.agree(key, following[0]));
        for k in (same + 1..=wanted).rev() {
            let total: u32 = counts[k].iter().sum();
            if total >= LEAST {
                let different = counts[k].iter().filter(|count| **count > 0).count();
                let norm = 1.0 / (total as f32 + different as f32);
                let same_context = |asked: &&Asked| keys.compare(asked.key, key, k).is_eq();
                for (i, asked) in asked[first[k]..].iter().take_while(same_context).enumerate() {
                    let own = counts[k][usize::from(keys.symbol(asked.key, levels))] as f32 * norm;
                    found[levels * (first[k] + i) + k - 1] = Found { own, shorter: different as f32 * norm };
                }
            }
            counts[k].fill(0);
        }
    }
}

/// How often each symbol occurs.
fn counts(text: &[u8], vocabulary: usize) -> Vec<u32> {
    let mut counts = vec![0; vocabulary];
    text.iter().for_each(|&symbol| counts[usize::from(symbol)] += 1);
    counts
}

/// Bits of a symbol.
fn bits(vocabulary: usize) -> u32 {
    usize::BITS - vocabulary.saturating_sub(1).max(1).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same by looking for each context in the text.
    fn plainly(train: &[u8], vocabulary: usize, question: &Question<'_>, n: usize) -> f64 {
        let mut p = 1.0 / vocabulary as f64;
        // Longer contexts are counted from where the longest fits.
        let longest = longest(vocabulary) - 1;
        for k in 0..n {
            if k > question.context.len() {
                break;
            }
            let context = &question.context[question.context.len() - k..];
            let from = if k == 0 { 0 } else { longest };
            let behind: Vec<u8> = (from..train.len())
                .filter(|&i| train[i - k..].starts_with(context))
                .map(|i| train[i])
                .collect();
            if (k > 0 && behind.len() < LEAST as usize) || behind.is_empty() {
                continue;
            }
            let mut different = behind.clone();
            different.sort_unstable();
            different.dedup();
            let count = behind.iter().filter(|&&symbol| symbol == question.next).count();
            let t = different.len() as f64;
            p = (count as f64 + t * p) / (behind.len() as f64 + t);
        }
        -p.ln()
    }

    fn check(train: &[u8], vocabulary: usize, text: &[u8]) {
        let questions: Vec<Question<'_>> =
            (0..text.len()).map(|i| Question { context: &text[i / 11 * 11..i], next: text[i] }).collect();
        let losses =
            mean_losses(train, vocabulary, &questions, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(losses.len(), longest(vocabulary));
        for (n, loss) in losses.iter().enumerate() {
            let all: f64 = questions.iter().map(|q| plainly(train, vocabulary, q, n + 1)).sum();
            let expected = all / questions.len().max(1) as f64;
            assert!((loss - expected).abs() < 1e-5 * expected.max(1.0), "{}: {loss} {expected}", n + 1);
        }
    }

    proptest! {
        #[test]
        fn as_if_looked_up(
            vocabulary in prop_oneof![1usize..5, Just(27), Just(256)],
            train in prop::collection::vec(any::<u8>(), 0..400),
            text in prop::collection::vec(any::<u8>(), 0..60),
            narrow in 1usize..5,
        ) {
            // Few symbols out of many: contexts that occur again.
            let fold = |text: &[u8]| -> Vec<u8> {
                text.iter().map(|&x| ((usize::from(x) % narrow) * 7 % vocabulary) as u8).collect()
            };
            check(&fold(&train), vocabulary, &fold(&text));
        }
    }

    #[test]
    fn what_repeats_is_known() {
        let train: Vec<u8> = (0..10_000).map(|i| (i % 17) as u8).collect();
        let questions: Vec<Question<'_>> =
            (100..200).map(|i| Question { context: &train[i - 5..i], next: train[i] }).collect();
        let losses = mean_losses(&train, 27, &questions, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert!((losses[0] - 17f64.ln()).abs() < 0.01 && losses[1] < 0.01, "{losses:?}");
        // There is no more to know than five symbols.
        assert_eq!(losses[5], losses[7]);
        assert_eq!(mean_losses(&train, 27, &[], &mut |_, _| ControlFlow::Continue(())).unwrap(), [0.0; 8]);
        assert!(mean_losses(&train, 27, &questions, &mut |_, _| ControlFlow::Break(())).is_none());
        assert_eq!((longest(2), longest(27), longest(256)), (8, 8, 8));
    }
}
