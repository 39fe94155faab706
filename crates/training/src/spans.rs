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
//! `spans.csv` keeps the mean losses of a run: a line for each evaluation, a column for each span, headed by the characters
//! that it predicts: `1..513` is predicted from `0..512`. Losses are written so that they come back to the last bit
//! of their `f32`.

use crate::evaluate::{Sums, windows_at_a_time};
use crate::{Evaluation, EvaluationError, files};
use diapason_engine::{Batch, Engine, Scores};
use std::fs;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// Regions of a text that is long enough. What is far apart in a text hardly depends on each other, so each of them is
/// a sample of its own to whoever asks how much is luck.
const REGIONS: usize = 24;
/// Characters of a region at least, where there is more than one: many windows of any length fit.
const REGION: usize = 2048;
/// Characters of a span, unless the text is too short for that.
const SPAN: usize = 512;
/// Spans that a short text is cut into, about, if it has that many characters.
const FEWEST: usize = 64;

/// Which characters of a text are predicted, and how they are grouped.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let length = (wanted / FEWEST).clamp(1, SPAN);
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

/// The losses per span of a run, evaluation by evaluation: `spans.csv`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanCurve {
    /// One for each span, as [`Spans::heads`] has them.
    pub heads: Vec<String>,
    /// Steps, ascending, and the mean losses after each, nats per character.
    pub rows: Vec<(u64, Vec<f32>)>,
}

impl SpanCurve {
    /// The losses after `step`.
    pub fn at(&self, step: u64) -> Option<&[f32]> {
        self.rows.iter().find(|(at, _)| *at == step).map(|(_, losses)| losses.as_slice())
    }

    /// Notes the losses after `step`. What is there of this step or later ones goes: a run that goes on from an earlier
    /// step comes there again.
    pub fn add(&mut self, step: u64, losses: Vec<f32>) {
        self.rows.retain(|(at, _)| *at < step);
        self.rows.push((step, losses));
    }

    /// Writes the file, atomically.
    ///
    /// # Errors
    /// The first failure of the file system.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        files::write_atomically(path, |out| {
            writeln!(out, "step,{}", self.heads.join(","))?;
            for (step, losses) in &self.rows {
                write!(out, "{step}")?;
                losses.iter().try_for_each(|loss| write!(out, ",{loss}"))?;
                writeln!(out)?;
            }
            Ok(())
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is not as [`SpanCurve::write`] writes it (`InvalidData`, with the line).
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let wrong = |line: usize| {
            let problem = format!("line {line} is not a line of losses per span");
            io::Error::new(io::ErrorKind::InvalidData, problem)
        };
        let mut lines = text.lines().zip(1..);
        let heads = lines.next().and_then(|(line, _)| line.strip_prefix("step,")).ok_or_else(|| wrong(1))?;
        let mut curve = Self { heads: heads.split(',').map(str::to_string).collect(), rows: Vec::new() };
        for (line, number) in lines {
            let mut fields = line.split(',');
            let step: Option<u64> = fields.next().and_then(|step| step.parse().ok());
            let losses: Option<Vec<f32>> = fields.map(|loss| loss.parse().ok()).collect();
            let (Some(step), Some(losses)) = (step, losses) else { return Err(wrong(number)) };
            let ascends = curve.rows.last().is_none_or(|(last, _)| *last < step);
            if !ascends || losses.len() != curve.heads.len() || !losses.iter().all(|loss| loss.is_finite()) {
                return Err(wrong(number));
            }
            curve.rows.push((step, losses));
        }
        Ok(curve)
    }
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
    fn files_come_back_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spans.csv");
        let mut curve = SpanCurve { heads: Spans::new(5, 4).unwrap().heads(), rows: Vec::new() };
        curve.add(10, vec![1.0, f32::MIN_POSITIVE, 0.1, 2.7182817]);
        curve.add(20, vec![1.5, 0.0, 1e30, 3.0]);
        curve.write(&path).unwrap();
        assert_eq!(SpanCurve::read(&path).unwrap(), curve);
        assert_eq!(curve.at(20), Some(&[1.5, 0.0, 1e30, 3.0][..]));
        assert!(fs::read_to_string(&path).unwrap().starts_with("step,1..2,2..3,3..4,4..5\n10,1,"));
        // A run that goes on from step 10 comes to step 20 again.
        let before = curve.clone();
        curve.add(20, vec![1.5, 0.0, 1e30, 3.0]);
        assert_eq!(curve, before);
        curve.add(10, vec![0.0; 4]);
        assert_eq!(curve.rows.len(), 1);
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spans.csv");
        for (text, line) in [
            ("", 1),
            ("a,b\n", 1),
            ("step,1..2\n3\n", 2),
            ("step,1..2\n3,1,2\n", 2),
            ("step,1..2\n3,1\n3,1\n", 3),
            ("step,1..2\n3,NaN\n", 2),
            ("step,1..2\n-3,1\n", 2),
            ("step,1..2\n3,x\n", 2),
        ] {
            fs::write(&path, text).unwrap();
            let error = SpanCurve::read(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(&format!("line {line} ")), "{text:?}: {error}");
        }
    }
}
