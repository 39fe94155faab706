//! Evidence: how far the difference between two configurations could be luck.
//!
//! Every configuration is evaluated on the same spans of text and trained with the same seeds. Part of each
//! difference is luck of the text (one predicts these spans better, and would not predict others better) and part
//! is luck of the seed (first weights and order of windows suit one more than the other). What both share cancels.
//!
//! The loss of configuration i with seed s on span k is taken for
//!
//! ```text
//! y_isk = a_i + T_k + S_s + (aT)_ik + (aS)_is + e_isk
//! ```
//!
//! where all but a_i are random with mean 0. Wanted are the differences of the a_i.
//!
//! - **Text.** Neighbouring spans are alike. So they are put into 24 blocks of neighbours, and the variance of a mean
//!   difference comes from the means of the blocks, which hardly depend on each other (where the spans lie in 24 regions
//!   far apart, as those of `diapason_training::Spans` do, a block is a region): 23 degrees of freedom
//!   (Ibragimov and Müller, "t-Statistic based correlation and heterogeneity robust inference", JBES 28, 2010). It is
//!   estimated for each pair of configurations by itself.
//! - **Seeds.** The mean square of (aS), what is left of the means y_is once configuration and seed are taken out, is
//!   pooled over configurations: (m - 1)(n - 1) degrees of freedom for m configurations with n seeds. It contains e
//!   averaged over the text, which the text's variance contains too; there it is taken off, as in every analysis of
//!   two crossed random factors.
//! - **Both.** half width = sqrt(c_t^2 V_text + c_s^2 V_seeds), each part with its own critical value: Banerjee
//!   (Sankhya 22, 1960, 357-358), who proves that such an interval covers at least at its rate, however few the degrees
//!   of freedom. Satterthwaite's approximation does not: with two seeds it can miss twice too often.
//! - **All at once, and the best is not known.** Edwards and Hsu, "Multiple comparisons with the best treatment",
//!   JASA 78, 1983, 965-971: c_t and c_s are such that all comparisons with one configuration hold at once (Bonferroni
//!   for text; Dunnett for seeds). A configuration that some other beats by more than their half width cannot be the best;
//!   the rest can. The interval of a configuration reaches over its comparisons with each of these.
//!
//! With one seed nothing is known of the second part: such intervals are about these trained models, not about their
//! configurations. `docs/evidence.md` has the figures of a simulation.

use crate::critical::critical_value;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks that the text is cut into.
const BLOCKS: usize = 24;
/// With fewer spans nothing can be said.
const FEWEST_SPANS: usize = 8;

/// The losses of one configuration: for each seed the mean loss on each span, nats per character. Empty: it is not
/// compared.
pub type SpanLosses = BTreeMap<u64, Vec<f32>>;

/// Why losses cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Nothing to compare with.
    #[error("a comparison needs two configurations that came to their end, and there is {}", if *configurations == 0 { "none" } else { "one" })]
    TooFew {
        /// How many have losses.
        configurations: usize,
    },
    /// Too little text.
    #[error("the validation text has {spans} spans, and at least {FEWEST_SPANS} are needed")]
    Spans {
        /// How many there are.
        spans: usize,
    },
    /// Not the same spans.
    #[error(
        "configuration {configuration} was evaluated on {found} spans with seed {seed}, others on {spans}"
    )]
    Unpaired {
        /// Its place in the list.
        configuration: usize,
        /// The seed.
        seed: u64,
        /// Its number of spans.
        found: usize,
        /// That of the first.
        spans: usize,
    },
    /// A loss that is no number.
    #[error("configuration {configuration} has a loss that is not a number with seed {seed}")]
    NotFinite {
        /// Its place in the list.
        configuration: usize,
        /// The seed.
        seed: u64,
    },
    /// Two configurations that were never trained with the same seed.
    #[error("configurations {0} and {1} have no seed in common")]
    NoCommonSeed(usize, usize),
}

/// By how much a configuration is worse than the best one, nats per character.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its mean loss minus that of the best: 0 for the best itself.
    pub difference: f64,
    /// It is at least this much worse than the configuration that is truly best. 0: it may be the best.
    pub low: f64,
    /// It is at most this much worse than the one that is truly best.
    pub high: f64,
}

/// The noise of the seed: what one seed does to one configuration and not to the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeedSpread {
    /// Its standard deviation, nats.
    pub deviation: f64,
    /// Degrees of freedom of its square.
    pub degrees: usize,
}

/// What the losses of several configurations say about which is best.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The configuration with the lowest mean loss, by its place in the list; the first of equals.
    pub best: usize,
    /// Its mean loss, nats.
    pub loss: f64,
    /// One for each configuration; none for those without losses.
    pub intervals: Vec<Option<Interval>>,
    /// The chance that all intervals hold at once.
    pub confidence: f64,
    /// Seeds of the configuration that has fewest.
    pub seeds: usize,
    /// None with one seed: the intervals then say nothing about other seeds.
    pub spread: Option<SeedSpread>,
    /// Spans of text that all were evaluated on.
    pub spans: usize,
    pub(crate) pairs: Pairs,
}

impl Evidence {
    /// What the intervals do not account for, in words; none with two seeds or more.
    pub fn leaves_out(&self) -> Option<&'static str> {
        self.spread
            .is_none()
            .then_some("the intervals account for the text alone: with one seed nothing is known of the luck of the seed")
    }
}

/// All that the half widths are made from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pairs {
    /// Places of the configurations that are compared.
    pub(crate) places: Vec<usize>,
    /// Mean losses, in that order.
    means: Vec<f64>,
    /// For i and j, i < j, at i * m + j: variance of their mean difference by text.
    text: Vec<f64>,
    /// Seeds that each has.
    pub(crate) seeds: Vec<BTreeSet<u64>>,
    /// Mean square and degrees of freedom of the seed's part.
    seed_square: Option<(f64, usize)>,
    blocks: usize,
    confidence: f64,
}

/// Compares configurations by their losses, each on the same spans of text in the order of the text. Intervals hold all
/// at once with a chance of `confidence`, between 0 and 1. Seeds may be missing here and there: what is there is then
/// fitted by least squares.
///
/// # Errors
/// Losses that are too few, not numbers, or not paired.
pub fn compare(configurations: &[SpanLosses], confidence: f64) -> Result<Evidence, EvidenceError> {
    let places: Vec<usize> = (0..configurations.len()).filter(|&i| !configurations[i].is_empty()).collect();
    let spans = check(configurations, &places)?;
    let blocks = BLOCKS.min(spans);
    // Block means: [configuration][seed][block]; a block's share of the text is its weight.
    let edges: Vec<usize> = (0..=blocks).map(|b| b * spans / blocks).collect();
    let weights: Vec<f64> = edges.windows(2).map(|edge| (edge[1] - edge[0]) as f64 / spans as f64).collect();
    let cells: Vec<BTreeMap<u64, Vec<f64>>> = places
        .iter()
        .map(|&place| {
            let mean =
                |losses: &[f32]| losses.iter().map(|&x| f64::from(x)).sum::<f64>() / losses.len() as f64;
            let blocks =
                |losses: &Vec<f32>| edges.windows(2).map(|edge| mean(&losses[edge[0]..edge[1]])).collect();
            configurations[place].iter().map(|(&seed, losses)| (seed, blocks(losses))).collect()
        })
        .collect();
    let pairs = Pairs::new(places, &cells, &weights, confidence);
    Ok(pairs.evidence(configurations.len(), spans))
}

/// Number of spans, if all is as it should be.
fn check(configurations: &[SpanLosses], places: &[usize]) -> Result<usize, EvidenceError> {
    let &[first, _, ..] = places else {
        return Err(EvidenceError::TooFew { configurations: places.len() });
    };
    let spans = configurations[first].values().next().map_or(0, Vec::len);
    for &configuration in places {
        for (&seed, losses) in &configurations[configuration] {
            if losses.len() != spans {
                return Err(EvidenceError::Unpaired { configuration, seed, found: losses.len(), spans });
            }
            if !losses.iter().all(|loss| loss.is_finite()) {
                return Err(EvidenceError::NotFinite { configuration, seed });
            }
        }
    }
    if spans < FEWEST_SPANS {
        return Err(EvidenceError::Spans { spans });
    }
    for (i, &a) in places.iter().enumerate() {
        for &b in &places[i + 1..] {
            if !configurations[a].keys().any(|seed| configurations[b].contains_key(seed)) {
                return Err(EvidenceError::NoCommonSeed(a, b));
            }
        }
    }
    Ok(spans)
}

impl Pairs {
    fn new(places: Vec<usize>, cells: &[BTreeMap<u64, Vec<f64>>], weights: &[f64], confidence: f64) -> Self {
        let (m, blocks) = (places.len(), weights.len());
        let seeds: Vec<BTreeSet<u64>> = cells.iter().map(|of| of.keys().copied().collect()).collect();
        // What each configuration comes to in each block, whichever seeds it has, and over the whole text.
        let by_block: Vec<Vec<f64>> = (0..blocks)
            .map(|b| {
                additive(
                    &cells.iter().map(|of| of.iter().map(|(&s, x)| (s, x[b])).collect()).collect::<Vec<_>>(),
                )
                .0
            })
            .collect();
        let average = |x: &[f64]| x.iter().zip(weights).map(|(x, weight)| x * weight).sum::<f64>();
        let over_text: Vec<BTreeMap<u64, f64>> =
            cells.iter().map(|of| of.iter().map(|(&s, x)| (s, average(x))).collect()).collect();
        let (means, square, degrees) = additive(&over_text);
        let mut text = vec![0.0; m * m];
        for i in 0..m {
            for j in i + 1..m {
                let differences: Vec<f64> = by_block.iter().map(|of| of[i] - of[j]).collect();
                let common: Vec<Vec<f64>> = seeds[i]
                    .intersection(&seeds[j])
                    .map(|seed| cells[i][seed].iter().zip(&cells[j][seed]).map(|(a, b)| a - b).collect())
                    .collect();
                let all = variance_of_mean(&differences, weights);
                text[i * m + j] = (all - variance_of_interaction(&common, weights)).max(0.0);
            }
        }
        let seed_square = (degrees > 0).then(|| (square / degrees as f64, degrees));
        Self { places, means, text, seeds, seed_square, blocks, confidence }
    }

    /// Number of configurations.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Mean loss of i minus that of j.
    pub(crate) fn difference(&self, i: usize, j: usize) -> f64 {
        self.means[i] - self.means[j]
    }

    /// The one with the lowest mean loss.
    pub(crate) fn best(&self) -> usize {
        // The first of equals.
        (0..self.len()).min_by(|&a, &b| self.means[a].total_cmp(&self.means[b])).unwrap_or(0)
    }

    /// Half widths of the comparisons as they are: that of i and j at i * m + j.
    pub(crate) fn half_widths(&self) -> Vec<f64> {
        let common = |i: usize, j: usize| self.seeds[i].intersection(&self.seeds[j]).count();
        let balanced = self.seeds.windows(2).all(|two| two[0] == two[1]);
        self.half_widths_for(&common, balanced, self.seed_square.map_or(0, |(_, degrees)| degrees))
    }

    /// Half widths if each configuration had `seeds` of its own, the first ones of all, and the noise were as it is.
    pub(crate) fn half_widths_with(&self, seeds: &[usize]) -> Vec<f64> {
        let (cells, most) = (seeds.iter().sum::<usize>(), seeds.iter().copied().max().unwrap_or(0));
        let balanced = seeds.iter().all(|&n| n == most);
        let degrees = (cells + 1).saturating_sub(seeds.len() + most);
        self.half_widths_for(&|i, j| seeds[i].min(seeds[j]), balanced, degrees)
    }

    /// Half widths if there were any number of seeds.
    pub(crate) fn half_widths_by_text(&self) -> Vec<f64> {
        self.half_widths_for(&|_, _| 1, true, 0)
    }

    /// Half widths if i and j have `common(i, j)` seeds in common; the seed's noise is known with `degrees` of freedom,
    /// or with 0 left out.
    fn half_widths_for(
        &self,
        common: &dyn Fn(usize, usize) -> usize,
        balanced: bool,
        degrees: usize,
    ) -> Vec<f64> {
        let (m, miss) = (self.len(), 1.0 - self.confidence);
        let one_of_all = |degrees: usize| critical_value(1, degrees as f64, miss / (m - 1) as f64);
        let text = one_of_all(self.blocks - 1);
        let (square, seeds) = match self.seed_square {
            Some((square, _)) if degrees > 0 && balanced => {
                (square, critical_value(m - 1, degrees as f64, miss))
            }
            Some((square, _)) if degrees > 0 => (square, one_of_all(degrees)),
            _ => (0.0, 0.0),
        };
        let half = |i: usize, j: usize| {
            let by_seeds = seeds * seeds * 2.0 * square / common(i, j).max(1) as f64;
            (text * text * self.text[i.min(j) * m + i.max(j)] + by_seeds).sqrt()
        };
        (0..m * m).map(|ij| half(ij / m, ij % m)).collect()
    }

    /// Whether nothing beats j by more than their half width.
    pub(crate) fn may_be_best(&self, j: usize, widths: &[f64]) -> bool {
        let m = self.len();
        (0..m).all(|i| i == j || self.difference(i, j) + widths[i * m + j] >= 0.0)
    }

    /// By how much each is worse than the best: the differences, and the bounds of Edwards and Hsu.
    pub(crate) fn intervals(&self, widths: &[f64]) -> Vec<Interval> {
        let (m, best) = (self.len(), self.best());
        let rivals: Vec<usize> = (0..m).filter(|&j| self.may_be_best(j, widths)).collect();
        (0..m)
            .map(|i| {
                let of = |&j: &usize| {
                    if i == j {
                        return (0.0, 0.0);
                    }
                    let (d, half) = (self.difference(i, j), widths[i * m + j]);
                    (d - half, d + half)
                };
                let low = rivals.iter().map(|j| of(j).0).fold(f64::INFINITY, f64::min);
                let high = rivals.iter().map(|j| of(j).1).fold(0.0, f64::max);
                // Nothing is better than the best.
                Interval { difference: self.difference(i, best), low: low.max(0.0), high }
            })
            .collect()
    }

    fn evidence(self, configurations: usize, spans: usize) -> Evidence {
        let mut intervals = vec![None; configurations];
        for (&place, interval) in self.places.iter().zip(self.intervals(&self.half_widths())) {
            intervals[place] = Some(interval);
        }
        Evidence {
            best: self.places[self.best()],
            loss: self.means[self.best()],
            intervals,
            confidence: self.confidence,
            seeds: self.seeds.iter().map(BTreeSet::len).min().unwrap_or(0),
            spread: self
                .seed_square
                .map(|(square, degrees)| SeedSpread { deviation: square.sqrt(), degrees }),
            spans,
            pairs: self,
        }
    }
}

/// Least squares for x = a_i + b_s, where x may be missing: for each configuration its mean over all seeds, as if it
/// had them all, then the sum of squares of what is left and its degrees of freedom.
fn additive(cells: &[BTreeMap<u64, f64>]) -> (Vec<f64>, f64, usize) {
    let seeds: BTreeSet<u64> = cells.iter().flat_map(|of| of.keys().copied()).collect();
    let mut b: BTreeMap<u64, f64> = seeds.iter().map(|&seed| (seed, 0.0)).collect();
    let mut a = vec![0.0; cells.len()];
    // Means over one, then over the other. Where nothing is missing the first round is exact.
    for _ in 0..1000 {
        for (a, of) in a.iter_mut().zip(cells) {
            *a = of.iter().map(|(seed, x)| x - b[seed]).sum::<f64>() / of.len() as f64;
        }
        let mut change: f64 = 0.0;
        for (seed, b) in &mut b {
            let left: Vec<f64> =
                cells.iter().zip(&a).filter_map(|(of, a)| of.get(seed).map(|x| x - a)).collect();
            let new = left.iter().sum::<f64>() / left.len() as f64;
            change = change.max((new - *b).abs());
            *b = new;
        }
        if change < 1e-12 {
            break;
        }
    }
    let squares = cells
        .iter()
        .zip(&a)
        .flat_map(|(of, a)| of.iter().map(|(seed, x)| (x - a - b[seed]).powi(2)).collect::<Vec<_>>());
    let count = cells.iter().map(BTreeMap::len).sum::<usize>();
    let shared = b.values().sum::<f64>() / b.len().max(1) as f64;
    let (square, degrees) = (squares.sum(), (count + 1).saturating_sub(cells.len() + seeds.len()));
    (a.into_iter().map(|a| a + shared).collect(), square, degrees)
}

/// The variance of the weighted mean of `x`, from how the x differ.
fn variance_of_mean(x: &[f64], weights: &[f64]) -> f64 {
    let blocks = x.len() as f64;
    let mean: f64 = x.iter().zip(weights).map(|(x, weight)| x * weight).sum();
    blocks / (blocks - 1.0)
        * x.iter().zip(weights).map(|(x, weight)| (weight * (x - mean)).powi(2)).sum::<f64>()
}

/// Of the variance of the mean of `x` (seeds by blocks) over both, what is neither the seeds' nor the blocks' own.
fn variance_of_interaction(x: &[Vec<f64>], weights: &[f64]) -> f64 {
    let seeds = x.len() as f64;
    if x.len() < 2 {
        return 0.0;
    }
    let means: Vec<f64> = (0..weights.len()).map(|b| x.iter().map(|of| of[b]).sum::<f64>() / seeds).collect();
    let left = |of: &Vec<f64>| of.iter().zip(&means).map(|(x, mean)| x - mean).collect::<Vec<f64>>();
    x.iter().map(|of| variance_of_mean(&left(of), weights)).sum::<f64>() / (seeds * (seeds - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(rows: &[(u64, f64)]) -> SpanLosses {
        let wave = |seed: u64, k: usize| ((k as f64 * 1.7 + seed as f64).sin() * 0.01) as f32;
        rows.iter()
            .map(|&(seed, mean)| (seed, (0..48).map(|k| mean as f32 + wave(seed, k)).collect()))
            .collect()
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
    }

    #[test]
    fn a_clear_winner_and_two_that_cannot_be_told_apart() {
        // The same waves in all: text makes no difference, seeds do.
        let configurations = [
            losses(&[(0, 2.000), (1, 2.010), (2, 1.990)]),
            losses(&[(0, 2.001), (1, 2.009), (2, 1.991)]),
            SpanLosses::new(),
            losses(&[(0, 2.500), (1, 2.511), (2, 2.490)]),
        ];
        let evidence = compare(&configurations, 0.95).unwrap();
        assert_eq!((evidence.best, evidence.seeds, evidence.spans), (0, 3, 48));
        assert_eq!(evidence.intervals[2], None);
        let of = |i: usize| evidence.intervals[i].unwrap();
        // The mean square by hand: what is left of (0, 10, -10), (1, 9, -9), (500, 511, 490) thousandths.
        let spread = evidence.spread.unwrap();
        assert_eq!(spread.degrees, 4);
        near(spread.deviation, 1e-3 * (28.0 / 9.0 / 4.0_f64).sqrt());
        // Dunnett's table: two comparisons, 4 degrees of freedom, 5 %.
        let half = (of(3).high - of(3).low) / 2.0;
        assert!(half > 3.30 * spread.deviation * (2.0f64 / 3.0).sqrt(), "{half}");
        near(of(0).difference, 0.0);
        near(of(3).difference, 1.501 / 3.0);
        assert_eq!((of(0).low, of(1).low), (0.0, 0.0));
        assert!(of(0).high > 0.0 && of(1).high > 0.0 && of(3).low > 0.49);
        assert_eq!(evidence.leaves_out(), None);
    }

    #[test]
    fn one_that_is_surely_best_has_an_interval_of_nothing() {
        let configurations = [losses(&[(0, 3.0), (1, 3.01)]), losses(&[(0, 2.0), (1, 2.0101)])];
        let evidence = compare(&configurations, 0.95).unwrap();
        let best = evidence.intervals[1].unwrap();
        assert_eq!((evidence.best, best.difference, best.low, best.high), (1, 0.0, 0.0, 0.0));
    }

    #[test]
    fn one_seed_says_what_it_leaves_out() {
        let evidence = compare(&[losses(&[(0, 2.0)]), losses(&[(0, 2.1)])], 0.95).unwrap();
        assert_eq!(evidence.spread, None);
        assert!(evidence.leaves_out().unwrap().contains("one seed"));
    }

    /// By hand: the first two share two seeds, the first and the last one.
    #[test]
    fn missing_seeds_are_fitted_around() {
        let cells = [
            BTreeMap::from([(0, 1.0), (1, 1.3), (2, 0.9)]),
            BTreeMap::from([(0, 2.1), (1, 2.2)]),
            BTreeMap::from([(0, 3.0)]),
        ];
        let (means, square, degrees) = additive(&cells);
        assert_eq!(degrees, 1);
        near(square, 0.01);
        near(means[1] - means[0], 1.0);
        near(means[2] - means[0], 1.95);
        // As if all had all seeds.
        near(means[0], 3.2 / 3.0);
    }

    #[test]
    fn nothing_depends_on_the_order_or_on_what_all_share() {
        let some = [
            losses(&[(0, 2.00), (1, 2.01)]),
            losses(&[(0, 2.03), (1, 2.01)]),
            losses(&[(0, 2.10), (1, 2.12)]),
        ];
        let [a, b, c] = some.clone();
        let (found, turned) = (compare(&some, 0.95).unwrap(), compare(&[c, a, b], 0.95).unwrap());
        let shared: Vec<SpanLosses> = some
            .iter()
            .map(|of| {
                let shift = |seed: u64, k: usize| (seed as f32 - 3.0) * 0.25 + k as f32 * 0.125;
                of.iter()
                    .map(|(&s, x)| (s, x.iter().enumerate().map(|(k, x)| x + shift(s, k)).collect()))
                    .collect()
            })
            .collect();
        let shared = compare(&shared, 0.95).unwrap();
        for i in 0..3 {
            let [one, other, third] =
                [(&found, i), (&turned, (i + 1) % 3), (&shared, i)].map(|(of, i)| of.intervals[i].unwrap());
            near(one.low, other.low);
            near(one.high, other.high);
            assert!((one.high - third.high).abs() < 1e-4 && (one.low - third.low).abs() < 1e-4);
        }
    }

    #[test]
    fn losses_that_are_not_paired_are_refused() {
        let good = || losses(&[(0, 2.0), (1, 2.0)]);
        let refused = |of: SpanLosses| compare(&[good(), of], 0.95).unwrap_err();
        assert_eq!(compare(&[good()], 0.95).unwrap_err(), EvidenceError::TooFew { configurations: 1 });
        assert_eq!(refused(SpanLosses::new()), EvidenceError::TooFew { configurations: 1 });
        assert_eq!(refused(losses(&[(2, 2.0)])), EvidenceError::NoCommonSeed(0, 1));
        let unpaired = EvidenceError::Unpaired { configuration: 1, seed: 0, found: 7, spans: 48 };
        assert_eq!(refused(BTreeMap::from([(0, vec![1.0; 7])])), unpaired);
        let mut infinite = good();
        infinite.get_mut(&1).unwrap()[5] = f32::INFINITY;
        assert_eq!(refused(infinite), EvidenceError::NotFinite { configuration: 1, seed: 1 });
        let short = BTreeMap::from([(0, vec![1.0f32; 7])]);
        assert_eq!(compare(&[short.clone(), short], 0.95).unwrap_err(), EvidenceError::Spans { spans: 7 });
    }
}
