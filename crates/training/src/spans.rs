//! Losses span by span, so that configurations can be compared on the same text.
//!
//! Two models with different sequence_length read a text in different windows. To be compared they must predict the same
//! characters. So the characters are chosen first, from the length of the text alone: regions spread evenly over
//! it, each cut into spans of equal length. Every configuration then tiles each region with its own windows, and a
//! remainder shorter than a window is read as a short one. Each character of the regions is predicted once, whatever
//! the window, and the losses of a span are losses of the same characters in every configuration.
//!
//! Why regions and not one long stretch: a stretch is about few things. Why regions and not single windows: a window
//! has to lie somewhere, and windows of different lengths do not share their characters.
//!
//! A [`SpanReading`] is what one evaluation leaves: it goes with the run's checkpoint and into the study's database, as text that
//! comes back to the last bit.

use crate::evaluate::{Sums, windows_at_a_time};
use crate::{Evaluation, EvaluationError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use diapason_corpus::ngrams::Question;
use diapason_engine::{Batch, Engine, Scores};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::{ControlFlow, Range};

/// Regions of a text that is long enough. What is far apart in a text hardly depends on each other, so each of them is
/// a sample of its own to whoever asks how much is luck.
const REGIONS: usize = 24;
/// Characters of a region at least, where there is more than one: many windows of any length fit.
const REGION: usize = 2048;
/// Characters of a span, unless the text is too short for that, or so long that there would be too many.
const SPAN: usize = 512;
/// Spans at most, about: what is kept of an evaluation stays small.
const MOST: usize = 1024;
/// Spans that a short text is cut into, about, if it has that many characters.
const FEWEST: usize = 64;

/// Which characters of a text are predicted, and how they are grouped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// Where the regions' first inputs lie.
    regions: Vec<usize>,
    /// Spans in a region.
    per_region: usize,
    /// Characters in a span.
    length: usize,
}

impl Spans {
    /// About `characters` of a text of `text` characters, or all that can be predicted if those are fewer. Depends on
    /// these two numbers alone. None for a text of less than two characters, or none of its characters.
    pub fn new(text: usize, characters: usize) -> Option<Self> {
        let predictable = text.saturating_sub(1);
        let wanted = characters.min(predictable);
        let length = (wanted / FEWEST).clamp(1, SPAN.max(wanted / MOST));
        let regions = (wanted / REGION).clamp(1, REGIONS);
        let per_region = wanted / regions / length;
        (per_region > 0).then(|| Self {
            regions: (0..regions).map(|r| r * predictable / regions).collect(),
            per_region,
            length,
        })
    }

    /// Number of spans.
    pub fn count(&self) -> usize {
        self.regions.len() * self.per_region
    }

    /// Number of characters that are predicted.
    pub fn characters(&self) -> usize {
        self.count() * self.length
    }

    /// The characters that each span predicts, by their places in the text.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let of = move |start: usize| {
            (0..self.per_region).map(move |i| start + 1 + i * self.length..start + 1 + (i + 1) * self.length)
        };
        self.regions.iter().flat_map(move |&start| of(start))
    }

    /// What a model that reads `text` in windows of `sequence_length` is asked: each character that is predicted, with what is known
    /// before it, in the order of the text.
    pub fn questions<'a>(
        &'a self,
        text: &'a [u8],
        sequence_length: usize,
    ) -> impl Iterator<Item = Question<'a>> {
        let t = sequence_length.max(1);
        let places = self
            .regions
            .iter()
            .flat_map(|&start| (0..self.per_region * self.length).map(move |i| (start, i)));
        places.map(move |(start, i)| Question {
            context: &text[start + i / t * t..=start + i],
            next: text[start + i + 1],
        })
    }

    /// The heads of the columns of `spans.csv`: equal for equal spans.
    pub fn heads(&self) -> Vec<String> {
        self.ranges().map(|range| format!("{}..{}", range.start, range.end)).collect()
    }
}

/// Predicts the spans of `text` in windows of `sequence_length` T, and returns with the evaluation the mean loss of each
/// span, nats per character. `progress` is told the characters done and the characters in all, and may break off.
///
/// The caller has checked the text and the window ([`crate::check_evaluation`]); the spans must be made for a text of
/// this length.
///
/// # Errors
/// `progress` broke off.
pub fn evaluate_spans(
    engine: &mut dyn Engine,
    text: &[u8],
    spans: &Spans,
    sequence_length: usize,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(Evaluation, Vec<f32>), EvaluationError> {
    let region = spans.per_region * spans.length;
    let t = sequence_length.clamp(1, region);
    let tiled = region - region % t;
    let (mut sums, mut scores) = (Sums::default(), Scores::default());
    let mut losses = vec![0.0f64; spans.count()];
    let mut add = |scores: &Scores, t: usize, place: &mut dyn FnMut(usize) -> usize| {
        for (i, &loss) in scores.losses.iter().enumerate() {
            losses[place(i) / spans.length] += f64::from(loss);
        }
        // Short windows say nothing of the last position of full ones.
        sums.add(scores, t, 0, t == sequence_length.clamp(1, region));
        match progress(sums.positions(), spans.characters() as u64) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvaluationError::Interrupted),
        }
    };
    for (r, &start) in spans.regions.iter().enumerate() {
        // Neighbouring windows lie one after the other: the text is the batch.
        let piece = windows_at_a_time(t) * t;
        for from in (0..tiled).step_by(piece) {
            let read = &text[start + from..=start + tiled.min(from + piece)];
            let inputs = &read[..read.len() - 1];
            engine.evaluate(Batch { inputs, targets: &read[1..], sequence_length: t }, &mut scores);
            add(&scores, t, &mut |i| r * region + from + i)?;
        }
    }
    let short = region - tiled;
    if short > 0 {
        let windows = |shift: usize| -> Vec<u8> {
            let of = |&start: &usize| &text[start + tiled + shift..start + region + shift];
            spans.regions.iter().flat_map(of).copied().collect()
        };
        let (inputs, targets) = (windows(0), windows(1));
        engine.evaluate(Batch { inputs: &inputs, targets: &targets, sequence_length: short }, &mut scores);
        add(&scores, short, &mut |i| i / short * region + tiled + i % short)?;
    }
    let means = losses.iter().map(|sum| (sum / spans.length as f64) as f32).collect();
    Ok((sums.evaluation(), means))
}

/// The losses per span of one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanReading {
    /// Updates done.
    pub step: u64,
    /// Mean loss of each span, nats per character, in the order of the text. As text: the bytes of the numbers (IEEE
    /// single precision, lowest byte first) in Base64 (RFC 4648).
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub losses: Vec<f32>,
}

fn to_text<S: Serializer>(losses: &[f32], to: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = losses.iter().flat_map(|loss| loss.to_le_bytes()).collect();
    to.serialize_str(&BASE64_STANDARD.encode(bytes))
}

fn from_text<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = BASE64_STANDARD.decode(text).map_err(D::Error::custom)?;
    let (numbers, []) = bytes.as_chunks::<4>() else {
        return Err(D::Error::custom("losses per span are cut off"));
    };
    Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_disjoint_and_within_the_text() {
        for text in [0, 1, 2, 3, 65, 66, 700, 8193, 16_384, 16_385, 40_000, 131_072, 131_073, 10_000_000] {
            for characters in [0, 1, 50, 5000, 131_072, 1 << 40] {
                let Some(spans) = Spans::new(text, characters) else {
                    assert!(text < 2 || characters == 0, "{text} {characters}");
                    continue;
                };
                let ranges: Vec<Range<usize>> = spans.ranges().collect();
                assert_eq!(ranges.len(), spans.count());
                assert!(ranges[0].start >= 1 && ranges[ranges.len() - 1].end <= text, "{text} {characters}");
                assert!(ranges.windows(2).all(|two| two[0].end <= two[1].start), "{text} {characters}");
                assert!(ranges.iter().all(|range| range.len() == spans.length));
                let wanted = characters.min(text - 1);
                assert!(
                    spans.characters() <= wanted && 2 * spans.characters() > wanted,
                    "{text} {characters}"
                );
                assert!(2 * spans.count() >= FEWEST.min(wanted), "{text} {characters}");
            }
        }
        let usual = Spans::new(10_000_000, 131_072).unwrap();
        assert_eq!((usual.count(), usual.characters(), usual.regions.len()), (240, 122_880, 24));
    }

    #[test]
    fn long_texts_have_no_more_spans_than_can_be_kept() {
        for characters in [1 << 20, 10_000_000, 1 << 32] {
            let spans = Spans::new(1 << 33, characters).unwrap();
            assert!((MOST / 2..=MOST).contains(&spans.count()), "{characters}: {}", spans.count());
        }
    }

    #[test]
    fn losses_come_back_to_the_last_bit() {
        let reading =
            SpanReading { step: 10, losses: vec![1.0, f32::MIN_POSITIVE, 0.1, 2.7182817, 0.0, 1e30] };
        let text = serde_json::to_string(&reading).unwrap();
        assert!(text.starts_with(r#"{"step":10,"losses":"AACAPw"#), "{text}");
        assert_eq!(serde_json::from_str::<SpanReading>(&text).unwrap(), reading);
        for wrong in [r#"{"step":1,"losses":"AACA"}"#, r#"{"step":1,"losses":"?"}"#, r#"{"step":1}"#] {
            assert!(serde_json::from_str::<SpanReading>(wrong).is_err(), "{wrong}");
        }
    }
}
