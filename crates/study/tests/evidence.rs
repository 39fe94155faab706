//! Intervals and rule against the truth, on studies that never were: losses are drawn from a model whose
//! differences are known.
//!
//! The figures of docs/evidence.md are made by `cargo test --release -p diapason-study --test evidence -- --ignored
//! --nocapture`; they are of `STUDIES=1000`, those of assumptions of 2000.

use diapason_random::{Purpose, Stream};
use diapason_study::{
    Candidate, Certainty, Evidence, Need, Params, SpanLosses, Tolerance, Weighed, compare, weigh,
};
use std::io::Write;

const CONFIDENCE: f64 = 0.95;
const TOLERANCE: f64 = 0.01;
const COST_NOISE: f64 = 0.1;

/// Sizes of what is random, nats.
#[derive(Clone, Copy, Debug)]
struct Noise {
    /// What a span does to one configuration: standard deviation, and correlation with the next span.
    text: f64,
    correlation: f64,
    /// What a seed does to one configuration.
    seed: f64,
    /// What a span does to one configuration with one seed; correlated in the same way.
    rest: f64,
    /// The last configuration's seeds do this many times more.
    unequal: f64,
}

const EVEN: Noise = Noise { text: 0.02, correlation: 0.3, seed: 0.003, rest: 0.015, unequal: 1.0 };
const BY_TEXT: Noise = Noise { text: 0.05, seed: 0.0003, ..EVEN };
const BY_SEED: Noise = Noise { seed: 0.01, text: 0.01, ..EVEN };

/// A study: true losses, costs, seeds and spans.
#[derive(Clone, Debug)]
struct Truth {
    losses: Vec<f64>,
    costs: Vec<f64>,
    seeds: u64,
    spans: usize,
    /// Places far apart that the spans lie in.
    regions: usize,
    noise: Noise,
}

/// Addressed normal numbers, one after the other.
struct Normals(Stream, u64);

impl Normals {
    fn next(&mut self) -> f64 {
        self.1 += 1;
        self.0.normal(self.1)
    }

    /// A series in `regions` whose neighbours are correlated, standard deviation 1.
    fn series(&mut self, n: usize, regions: usize, correlation: f64) -> Vec<f64> {
        (0..regions).flat_map(|_| self.region(n / regions, correlation)).collect()
    }

    fn region(&mut self, n: usize, correlation: f64) -> Vec<f64> {
        let innovation = (1.0 - correlation * correlation).sqrt();
        let mut x = self.next();
        let mut step = |_| {
            let now = x;
            x = correlation * x + innovation * self.next();
            now
        };
        (0..n).map(&mut step).collect()
    }
}

impl Truth {
    fn new(losses: Vec<f64>, seeds: u64, noise: Noise) -> Self {
        let costs = (0..losses.len()).map(|i| 1.0 + 0.5 * ((i * 5 + 2) % losses.len()) as f64).collect();
        Self { losses, costs, seeds, spans: 96, regions: 1, noise }
    }

    /// What such a study measures, and the losses that it is about: with one seed, those of its trained models.
    fn draw(&self, number: u64) -> (Vec<SpanLosses>, Vec<f64>) {
        let noise = self.noise;
        let mut normals = Normals(Stream::new(5, Purpose::Test, number), 0);
        let shared = normals.series(self.spans, self.regions, 0.5);
        let by_seed: Vec<f64> = (0..self.seeds).map(|_| 0.01 * normals.next()).collect();
        let (mut measured, mut about) = (Vec::new(), self.losses.clone());
        for (i, loss) in self.losses.iter().enumerate() {
            let own = normals.series(self.spans, self.regions, noise.correlation);
            let unequal = if i + 1 == self.losses.len() { noise.unequal } else { 1.0 };
            let mut of = SpanLosses::new();
            for seed in 0..self.seeds {
                let luck = unequal * noise.seed * normals.next();
                if self.seeds == 1 {
                    about[i] += luck;
                }
                let rest = normals.series(self.spans, self.regions, noise.correlation);
                let mean = loss + by_seed[seed as usize] + luck;
                let losses = (0..self.spans)
                    .map(|k| (mean + 0.15 * shared[k] + noise.text * own[k] + noise.rest * rest[k]) as f32);
                of.insert(seed, losses.collect());
            }
            measured.push(of);
        }
        (measured, about)
    }

    fn candidates(&self) -> Vec<Candidate> {
        let one = |(i, &cost): (usize, &f64)| Candidate {
            params: Params::new([("i", toml::Value::Integer(i as i64))]),
            cost,
            loss: 0.0,
            left_out: None,
        };
        self.costs.iter().enumerate().map(one).collect()
    }

    /// Whether the rule would not object to this choice if it knew the true losses.
    fn is_right(&self, chosen: usize) -> bool {
        let best = lowest(&self.losses);
        let within = |i: usize| self.losses[i] <= best * (1.0 + TOLERANCE);
        within(chosen)
            && !(0..self.losses.len())
                .any(|i| within(i) && self.costs[i] * (1.0 + COST_NOISE) < self.costs[chosen])
    }
}

fn lowest(losses: &[f64]) -> f64 {
    losses.iter().copied().fold(f64::INFINITY, f64::min)
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    studies: f64,
    /// All intervals hold the truth.
    covered: f64,
    /// The same for another draw of seeds.
    covered_beyond: f64,
    decided: f64,
    decided_wrongly: f64,
    /// Sum of the half widths of the worst configuration's interval, nats.
    width: f64,
}

impl Tally {
    fn plus(&self, other: &Self) -> Self {
        Self {
            studies: self.studies + other.studies,
            covered: self.covered + other.covered,
            covered_beyond: self.covered_beyond + other.covered_beyond,
            decided: self.decided + other.decided,
            decided_wrongly: self.decided_wrongly + other.decided_wrongly,
            width: self.width + other.width,
        }
    }

    fn coverage(&self) -> f64 {
        self.covered / self.studies
    }

    /// The error of a rate near `rate` in so many studies: one standard deviation.
    fn error(&self, rate: f64) -> f64 {
        (rate * (1.0 - rate) / self.studies).sqrt()
    }
}

fn weighed(truth: &Truth, evidence: &Evidence) -> Weighed {
    let tolerance = Tolerance::new(TOLERANCE).unwrap();
    weigh(&truth.candidates(), evidence, tolerance, COST_NOISE).unwrap()
}

fn study(truth: &Truth, number: u64) -> (Evidence, Tally) {
    let (losses, about) = truth.draw(number);
    let evidence = compare(&losses, CONFIDENCE).unwrap();
    let intervals = || evidence.intervals.iter().flatten();
    let holds = |about: &[f64]| {
        let best = lowest(about);
        // Losses are stored in f32.
        let holds = |low: f64, high: f64, loss: f64| low - 1e-6 <= loss - best && loss - best <= high + 1e-6;
        f64::from(intervals().zip(about).all(|(of, &loss)| holds(of.low, of.high, loss)))
    };
    let worst = intervals().max_by(|a, b| a.difference.total_cmp(&b.difference)).unwrap();
    let tally = Tally {
        studies: 1.0,
        covered: holds(&about),
        covered_beyond: holds(&truth.losses),
        width: (worst.high - worst.low) / 2.0,
        ..Tally::default()
    };
    (evidence, tally)
}

/// The same with what the rule says.
fn decided(truth: &Truth, number: u64) -> Tally {
    let (evidence, tally) = study(truth, number);
    let weighed = weighed(truth, &evidence);
    let decided = weighed.certainty == Certainty::Decided;
    let wrongly = decided && !truth.is_right(weighed.decision.chosen);
    Tally { decided: f64::from(decided), decided_wrongly: f64::from(wrongly), ..tally }
}

fn sum(tallies: impl Iterator<Item = Tally>) -> Tally {
    tallies.fold(Tally::default(), |sum, tally| sum.plus(&tally))
}

/// Intervals alone, of studies number `first` and following.
fn intervals(truth: &Truth, first: u64, studies: u64) -> Tally {
    sum((first..first + studies).map(|number| study(truth, number).1))
}

/// Intervals and rule.
fn choices(truth: &Truth, studies: u64) -> Tally {
    sum((0..studies).map(|number| decided(truth, number)))
}

fn tied(m: usize) -> Vec<f64> {
    vec![2.0; m]
}

fn clear(m: usize) -> Vec<f64> {
    (0..m).map(|i| if i == 1 { 2.0 } else { 2.2 + 0.01 * i as f64 }).collect()
}

fn ladder(m: usize) -> Vec<f64> {
    (0..m).map(|i| 2.0 * (1.0 + 0.004 * ((i * 7 + 3) % m) as f64)).collect()
}

type Shape = (&'static str, fn(usize) -> Vec<f64>);
const SHAPES: [Shape; 3] = [("tied", tied), ("clear", clear), ("ladder", ladder)];
const NOISES: [(&str, Noise); 3] = [("even", EVEN), ("by text", BY_TEXT), ("by seed", BY_SEED)];

/// A study at random, all kinds of them.
fn any(number: u64) -> Truth {
    let stream = Stream::new(6, Purpose::Test, number);
    let m = 2 + stream.below(0, 11) as usize;
    let (spread, times) = (0.08 * stream.unit(1), 0.3 + 2.0 * stream.unit(2));
    let noise = NOISES[stream.below(3, 3) as usize].1;
    Truth {
        losses: (0..m as u64).map(|i| 2.0 * (1.0 + spread * stream.unit(100 + i))).collect(),
        costs: (0..m as u64).map(|i| 8f64.powf(stream.unit(200 + i))).collect(),
        seeds: 2 + stream.below(4, 4),
        spans: 96,
        regions: 1,
        noise: Noise { seed: noise.seed * times, text: noise.text * times, ..noise },
    }
}

#[test]
fn intervals_hold_at_their_rate() {
    let (mut all, mut number) = (Tally::default(), 0);
    for seeds in [1, 2, 3, 5] {
        for (i, m) in [2, 4, 12].into_iter().enumerate() {
            for (j, (shape, losses)) in SHAPES.iter().enumerate() {
                // Every noise with every number of seeds, configurations and shape, but not all at once.
                let (name, noise) = NOISES[(i + j + seeds as usize) % 3];
                let tally = intervals(&Truth::new(losses(m), seeds, noise), number, 150);
                number += 150;
                let least = CONFIDENCE - 4.0 * tally.error(CONFIDENCE);
                assert!(
                    tally.coverage() >= least,
                    "{seeds} seeds, {m}, {shape}, {name}: {}",
                    tally.coverage()
                );
                all = all.plus(&tally);
            }
        }
    }
    assert!(all.coverage() >= CONFIDENCE - 2.0 * all.error(CONFIDENCE), "{}", all.coverage());
    // Wider than needed is wrong too, though less so.
    assert!(all.coverage() <= 0.99, "{}", all.coverage());
}

/// Where theory has a number, it is met from both sides: a clear best, noise of seeds alone.
#[test]
fn intervals_are_exact_where_dunnett_is() {
    let noise = Noise { text: 0.0, rest: 0.0, ..BY_SEED };
    for (m, seeds) in [(2, 2), (4, 2), (5, 4)] {
        let tally = intervals(&Truth::new(clear(m), seeds, noise), 0, 1000);
        assert!((tally.coverage() - CONFIDENCE).abs() < 3.0 * tally.error(CONFIDENCE), "{tally:?}");
    }
}

#[test]
fn one_seed_does_not_speak_of_others() {
    let tally = intervals(&Truth::new(clear(4), 1, BY_SEED), 0, 300);
    assert!(tally.coverage() > 0.9 && tally.covered_beyond / tally.studies < 0.5, "{tally:?}");
    let truth = Truth::new(clear(4), 1, BY_SEED);
    assert!((0..20).all(|number| weighed(&truth, &study(&truth, number).0).certainty == Certainty::OneSeed));
}

#[test]
fn what_is_decided_is_right_at_its_rate() {
    let all = sum((0..1000).map(|number| decided(&any(number), number)));
    assert!(all.decided > 200.0, "{all:?}");
    let wrong = all.decided_wrongly / all.decided;
    let error = (0.05 * 0.95 / all.decided).sqrt();
    assert!(wrong <= 0.05 + 2.0 * error, "{all:?}");
    // Hardest: the cheapest lies a hair outside of the tolerance.
    let mut edge = Truth::new(vec![2.0 * (1.0 + TOLERANCE) + 1e-5, 2.0, 2.1], 3, EVEN);
    edge.costs = vec![1.0, 2.0, 3.0];
    let tally = choices(&edge, 600);
    assert!(tally.decided_wrongly / tally.studies <= 0.05 + 2.0 * tally.error(0.05), "{tally:?}");
}

/// What came of a study that was begun with one seed and given the seeds that its verdict asked for, up to eight.
#[derive(Debug, Default)]
struct GoneOn {
    decided: u64,
    decided_wrongly: u64,
    /// Trainings of those that were decided, and what they would have been with as many seeds for every configuration.
    trained: usize,
    trained_evenly: usize,
}

fn until_decided(truth: &Truth, number: u64, sum: &mut GoneOn) {
    const MOST: usize = 8;
    let (losses, _) = Truth { seeds: MOST as u64, ..truth.clone() }.draw(number);
    let mut seeds = vec![1; losses.len()];
    loop {
        let of =
            |(of, &n): (&SpanLosses, &usize)| of.range(..n as u64).map(|(s, x)| (*s, x.clone())).collect();
        let there: Vec<SpanLosses> = losses.iter().zip(&seeds).map(of).collect();
        let found = weighed(truth, &compare(&there, CONFIDENCE).unwrap());
        let Some(missing) = found.missing else {
            sum.decided += 1;
            sum.decided_wrongly += u64::from(!truth.is_right(found.decision.chosen));
            sum.trained += seeds.iter().sum::<usize>();
            sum.trained_evenly += seeds.len() * seeds.iter().max().unwrap();
            return;
        };
        let more = match missing.need {
            Need::SecondSeed => 1,
            Need::Seeds(more) => more,
            Need::TooManySeeds | Need::Text => return,
        };
        let before = seeds.clone();
        for place in missing.candidates {
            seeds[place] = (seeds[place] + more).min(MOST);
        }
        if seeds == before {
            return;
        }
    }
}

#[test]
fn seeds_for_what_needs_them_decide_rightly() {
    let mut any_kind = GoneOn::default();
    (0..400).for_each(|number| until_decided(&any(number), number, &mut any_kind));
    assert!(any_kind.decided >= 100, "{any_kind:?}");
    assert!(
        any_kind.decided_wrongly as f64 <= 400.0 * 0.05 + 2.0 * (400.0f64 * 0.05 * 0.95).sqrt(),
        "{any_kind:?}"
    );
    assert!(any_kind.trained < any_kind.trained_evenly, "{any_kind:?}");
    let mut edge = Truth::new(vec![2.0 * (1.0 + TOLERANCE) + 1e-5, 2.0, 2.1], 3, EVEN);
    edge.costs = vec![1.0, 2.0, 3.0];
    let mut at_the_edge = GoneOn::default();
    (0..400).for_each(|number| until_decided(&edge, number, &mut at_the_edge));
    assert!(
        at_the_edge.decided_wrongly as f64 <= 400.0 * 0.05 + 2.0 * (400.0f64 * 0.05 * 0.95).sqrt(),
        "{at_the_edge:?}"
    );
    say(format!("seeds where they are needed, 400 studies each: any {any_kind:?}; edge {at_the_edge:?}"));
}

fn studies_asked() -> u64 {
    std::env::var("STUDIES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000)
}

fn say(text: String) {
    // A library's lints forbid eprintln!.
    let mut out = std::io::stderr();
    writeln!(out, "{text}").unwrap();
}

fn large(losses: Vec<f64>, seeds: u64, noise: Noise) -> Truth {
    Truth { spans: 240, ..Truth::new(losses, seeds, noise) }
}

#[test]
#[ignore = "minutes: figures of docs/evidence.md"]
fn figures_of_coverage() {
    let studies = studies_asked();
    for (shape, losses) in SHAPES {
        for (name, noise) in NOISES {
            for m in [2, 4, 12] {
                let rates = [1, 2, 3, 5].map(|seeds| intervals(&large(losses(m), seeds, noise), 0, studies));
                let rate = |tally: &Tally| format!("{:.1}", 100.0 * tally.coverage());
                let width = |tally: &Tally| format!("{:.4}", tally.width / tally.studies);
                let rates = rates.iter().map(rate).chain(rates.iter().map(width)).collect::<Vec<_>>();
                say(format!("| {shape} | {name} | {m} | {} |", rates.join(" | ")));
            }
        }
    }
}

#[test]
#[ignore = "minutes: figures of docs/evidence.md"]
fn figures_of_assumptions() {
    let studies = studies_asked();
    for correlation in [0.0, 0.3, 0.6, 0.8] {
        let noise = Noise { correlation, ..BY_TEXT };
        let one = intervals(&large(clear(4), 3, noise), 0, studies).coverage();
        let many = Truth { regions: 24, ..large(clear(4), 3, noise) };
        let many = intervals(&many, 0, studies).coverage();
        say(format!("| neighbours correlated {correlation} | {:.1} | {:.1} |", 100.0 * one, 100.0 * many));
    }
    let unequal = intervals(&large(clear(4), 3, Noise { unequal: 3.0, ..BY_SEED }), 0, studies);
    say(format!("one with three times the seed noise: {:.1}", 100.0 * unequal.coverage()));
    let one = intervals(&large(clear(4), 1, EVEN), 0, studies);
    say(format!("one seed, of other seeds: {:.1}", 100.0 * one.covered_beyond / one.studies));
}

#[test]
#[ignore = "minutes: figures of docs/evidence.md"]
fn figures_of_choices() {
    let studies = studies_asked();
    let all = sum((0..5 * studies).map(|number| decided(&any(number), number)));
    say(format!("any: {all:?}"));
    let mut edge = large(vec![2.0 * (1.0 + TOLERANCE) + 1e-5, 2.0, 2.1], 3, EVEN);
    edge.costs = vec![1.0, 2.0, 3.0];
    say(format!("edge: {:?}", choices(&edge, 5 * studies)));
    // Looked at again after each seed, until decided.
    for (what, edge) in [("any", None), ("edge", Some(edge))] {
        let (mut decided, mut wrong) = (0, 0);
        for number in 0..studies {
            let mut truth = edge.clone().unwrap_or_else(|| any(number));
            truth.seeds = 6;
            let (losses, _) = truth.draw(number);
            let first = |seeds: u64| {
                losses.iter().map(move |of| of.range(..seeds).map(|(s, x)| (*s, x.clone())).collect())
            };
            let found = (2..=6).map(|n| compare(&first(n).collect::<Vec<SpanLosses>>(), CONFIDENCE).unwrap());
            let mut found = found.map(|evidence| weighed(&truth, &evidence));
            if let Some(found) = found.find(|found| found.certainty == Certainty::Decided) {
                decided += 1;
                wrong += u64::from(!truth.is_right(found.decision.chosen));
            }
        }
        say(format!("until decided, 2 to 6 seeds, {what}: decided {decided} of {studies}, wrongly {wrong}"));
    }
}
