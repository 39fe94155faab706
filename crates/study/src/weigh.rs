//! The rule with evidence: is the choice certain, and if not, what is missing.
//!
//! [`decide`](crate::decide()) chooses by mean losses. Here the intervals of [`Evidence`] are held against the tolerance. A
//! configuration is *equivalent* if it is within the tolerance of the best one for certain, *worse* if it is outside
//! for certain, else *undecided*. The choice is decided if the chosen one is equivalent and everything that is
//! cheaper is worse. So a wrong choice is called decided in at most one study of twenty, at a confidence of 95 %.
//!
//! Otherwise some comparisons are open, and more seeds would close them: how many follows from the widths as they
//! would be, if the differences and the noise stay what they are. The luck of the text does not shrink with seeds;
//! where it alone keeps a comparison open, more validation text is what is missing.

use crate::{Candidate, Decision, Evidence, Interval, Tolerance, decide, percent};
use serde::{Deserialize, Serialize};

/// With more seeds than this it is not worth the wait.
const MOST_SEEDS: usize = 32;

/// Configurations that are named as missing something, at most; of more, the number of the others is said.
const NAMED: usize = 6;

/// Where a configuration stands, for all that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Within the tolerance of the best.
    Equivalent,
    /// Not within the tolerance of the best.
    Worse,
    /// One or the other.
    Undecided,
}

/// How certain a choice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The chosen configuration is equivalent to the best, and everything cheaper is worse.
    Decided,
    /// The same, but with one seed: true of these trained models, and unknown of others.
    OneSeed,
    /// Something is open.
    Undecided,
}

/// What would close what is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A second seed: then the noise of seeds is known, and how many more are needed.
    SecondSeed,
    /// This number of seeds more, if differences and noise stay as they are.
    Seeds(usize),
    /// More seeds than anyone would train.
    TooManySeeds,
    /// More validation text: seeds alone cannot close it.
    Text,
}

/// What a decided choice lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is ...
    pub need: Need,
    /// ... and of which candidates, by their places.
    pub candidates: Vec<usize>,
}

/// A decision with its evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The candidates as they were compared: with the evidence's losses.
    pub candidates: Vec<Candidate>,
    /// The choice.
    pub decision: Decision,
    /// One for each candidate; none for those that are left out.
    pub standings: Vec<Option<Standing>>,
    /// How certain the choice is.
    pub certainty: Certainty,
    /// None once it is decided.
    pub missing: Option<Missing>,
}

/// Applies the rule to candidates with evidence, which lists them in the same order; costs within the fraction `noise`
/// of each other count as equal. Losses are the evidence's. `None` when no candidate can be compared.
pub fn weigh(
    candidates: &[Candidate],
    evidence: &Evidence,
    tolerance: Tolerance,
    noise: f64,
) -> Option<Weighed> {
    let interval = |i: usize| evidence.intervals.get(i).copied().flatten();
    let compared: Vec<Candidate> = candidates
        .iter()
        .enumerate()
        .map(|(i, candidate)| {
            let none = || Some("it has no losses per span of text".to_string());
            match interval(i) {
                Some(of) => Candidate { loss: evidence.loss + of.difference, ..candidate.clone() },
                None => Candidate { left_out: candidate.left_out.clone().or_else(none), ..candidate.clone() },
            }
        })
        .collect();
    let decision = decide(&compared, tolerance, noise)?;
    let rule = Rule::new(&compared, evidence, &decision);
    let standings = (0..compared.len())
        .map(|i| decision.comparison(i).and_then(|_| interval(i)).map(|of| rule.standing(&of)))
        .collect();
    let intervals: Vec<Interval> =
        evidence.pairs.places.iter().filter_map(|&place| interval(place)).collect();
    let open = rule.open(&intervals);
    let (certainty, missing) = match (open.is_empty(), evidence.spread) {
        (true, Some(_)) => (Certainty::Decided, None),
        (true, None) => (Certainty::OneSeed, Some(rule.missing(&open))),
        (false, _) => (Certainty::Undecided, Some(rule.missing(&open))),
    };
    Some(Weighed { candidates: compared, decision, standings, certainty, missing })
}

/// The rule as applied to one set of candidates. Configurations are numbered as the evidence's pairs are.
struct Rule<'a> {
    evidence: &'a Evidence,
    /// Tolerance, nats.
    tolerance: f64,
    chosen: Option<usize>,
    /// What is cheaper than the chosen one by more than noise.
    cheaper: Vec<usize>,
}

impl<'a> Rule<'a> {
    fn new(candidates: &[Candidate], evidence: &'a Evidence, decision: &Decision) -> Self {
        let places = &evidence.pairs.places;
        let cost = candidates[decision.chosen].cost;
        let is_cheaper = |i: &usize| {
            let place = places[*i];
            let own = candidates[place].cost;
            decision.comparison(place).is_some() && own + decision.noise * own.abs() < cost
        };
        Self {
            evidence,
            tolerance: decision.tolerance.fraction() * evidence.loss.abs(),
            chosen: places.iter().position(|&place| place == decision.chosen),
            cheaper: (0..places.len()).filter(is_cheaper).collect(),
        }
    }

    fn standing(&self, interval: &Interval) -> Standing {
        // As in `decide`: a loss of 2.02 is within 1 % of 2.
        let tolerance = self.tolerance + 1e-12;
        match interval {
            of if of.high <= tolerance => Standing::Equivalent,
            of if of.low > tolerance => Standing::Worse,
            _ => Standing::Undecided,
        }
    }

    /// The configurations whose standing keeps the choice from being decided.
    fn open(&self, intervals: &[Interval]) -> Vec<usize> {
        let chosen = self.chosen.filter(|&chosen| self.standing(&intervals[chosen]) != Standing::Equivalent);
        let cheaper =
            self.cheaper.iter().copied().filter(|&i| self.standing(&intervals[i]) != Standing::Worse);
        chosen.into_iter().chain(cheaper).collect()
    }

    fn missing(&self, open: &[usize]) -> Missing {
        let pairs = &self.evidence.pairs;
        let named = self.named(open);
        let have: Vec<usize> = pairs.seeds.iter().map(|seeds| seeds.len()).collect();
        let closes = |widths: &[f64]| self.open(&pairs.intervals(widths)).is_empty();
        // Widths only shrink with more seeds.
        let too_few = |more: &usize| {
            let seeds: Vec<usize> = have
                .iter()
                .enumerate()
                .map(|(i, n)| if named.contains(&i) { n + more } else { *n })
                .collect();
            !closes(&pairs.half_widths_with(&seeds))
        };
        let forecast = || 1 + (1..=MOST_SEEDS).collect::<Vec<_>>().partition_point(too_few);
        let need = if self.evidence.spread.is_none() {
            Need::SecondSeed
        } else if let Some(more) = Some(forecast()).filter(|&more| more <= MOST_SEEDS) {
            Need::Seeds(more)
        } else if closes(&pairs.half_widths_by_text()) {
            Need::TooManySeeds
        } else {
            Need::Text
        };
        Missing { need, candidates: named.into_iter().map(|i| pairs.places[i]).collect() }
    }

    /// The configurations that more seeds are needed of: the open ones, and those that they have to be told apart from.
    fn named(&self, open: &[usize]) -> Vec<usize> {
        let pairs = &self.evidence.pairs;
        let (m, best) = (pairs.len(), pairs.best());
        let widths = pairs.half_widths();
        // With one seed whatever the choice rests on is open.
        let one_seed = self.evidence.spread.is_none();
        let is_open =
            |i: usize| open.contains(&i) || one_seed && (self.chosen == Some(i) || self.cheaper.contains(&i));
        let keeps_open = |i: usize, j: usize| {
            let (d, half) = (pairs.difference(i, j), widths[i * m + j]);
            let high = self.chosen == Some(i) && d + half > self.tolerance;
            let low = self.chosen != Some(i) && d - half <= self.tolerance;
            pairs.may_be_best(j, &widths) && (high || low)
        };
        let mut named: Vec<usize> = (0..m)
            .filter(|&j| j == best || is_open(j) || open.iter().any(|&i| i != j && keeps_open(i, j)))
            .collect();
        if named.len() == 1 {
            // The seed's noise shows in differences only: the one next to the best comes along.
            let next = (0..m).filter(|&i| i != best);
            named.extend(
                next.min_by(|&a, &b| pairs.difference(a, best).total_cmp(&pairs.difference(b, best))),
            );
            named.sort_unstable();
        }
        named
    }
}

impl Weighed {
    /// The evidence, line by line: each configuration's interval, cheapest first, what the intervals rest on, and how
    /// certain the choice is.
    pub fn explain(&self, evidence: &Evidence) -> Vec<String> {
        let candidates = &self.candidates;
        let mut by_cost: Vec<usize> =
            (0..candidates.len()).filter(|&i| self.standings[i].is_some()).collect();
        by_cost.sort_by(|&a, &b| candidates[a].cost.total_cmp(&candidates[b].cost));
        let part = |nats: f64| percent(nats / evidence.loss.abs());
        let line = |i: usize| {
            let (of, standing) = (evidence.intervals[i]?, self.standings[i]?);
            let word = match standing {
                Standing::Equivalent => "equivalent",
                Standing::Worse => "worse",
                Standing::Undecided => "undecided",
            };
            let found = match i == evidence.best {
                true => "the lowest loss found".to_string(),
                false => format!("{} more loss than the lowest found", part(of.difference)),
            };
            let truly = format!("truly {} to {} more than the best has", part(of.low), part(of.high));
            Some(format!("{}: {found}, {truly}: {word}", candidates[i].params))
        };
        let mut lines: Vec<String> = by_cost.into_iter().filter_map(line).collect();
        lines.push(match evidence.leaves_out() {
            Some(leaves_out) => leaves_out.to_string(),
            None => format!(
                "the intervals hold all at once with {} confidence, for other text of this kind and other seeds",
                percent(evidence.confidence)
            ),
        });
        lines.push(self.certainty_text());
        lines
    }

    /// How certain the choice is, in one line: `decided`, or what is missing.
    pub fn certainty_text(&self) -> String {
        let candidates = &self.candidates;
        let Some(missing) = &self.missing else { return "decided".to_string() };
        let names: Vec<String> =
            missing.candidates.iter().map(|&i| candidates[i].params.to_string()).collect();
        let names = match names.as_slice() {
            many if many.len() > NAMED => {
                format!("{} and {} more", many[..NAMED - 1].join(", "), many.len() + 1 - NAMED)
            }
            [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
            _ => names.concat(),
        };
        let begins = match self.certainty {
            Certainty::OneSeed => "decided for this seed alone",
            _ => "not enough evidence",
        };
        match missing.need {
            Need::SecondSeed => format!("{begins}: a second seed of {names}"),
            Need::Seeds(1) => format!("{begins}: 1 more seed of {names}"),
            Need::Seeds(more) => format!("{begins}: {more} more seeds of {names}"),
            Need::TooManySeeds => {
                format!("{begins}: more than {MOST_SEEDS} more seeds of {names}; a larger tolerance may do")
            }
            Need::Text => format!("{begins}: more validation text for {names}, seeds alone are not enough"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Params, SpanLosses, compare};

    fn candidates(costs: &[f64]) -> Vec<Candidate> {
        let one = |(i, &cost): (usize, &f64)| Candidate {
            params: Params::new([("i", toml::Value::Integer(i as i64))]),
            cost,
            loss: 7.0,
            left_out: None,
        };
        costs.iter().enumerate().map(one).collect()
    }

    /// Losses around `mean`: `text` is the size of what one configuration has in one span, `seeds` that of what it has
    /// with one seed.
    fn losses(i: u64, mean: f64, count: u64, text: f64, seeds: f64) -> SpanLosses {
        let stream = diapason_random::Stream::new(i, diapason_random::Purpose::Test, 1);
        let of = |seed: u64| {
            let shift = mean + seeds * stream.normal(1000 + seed);
            (0..96).map(|k| (shift + text * stream.normal(k)) as f32).collect()
        };
        (0..count).map(|seed| (seed, of(seed))).collect()
    }

    fn weighed(rows: &[(f64, f64)], count: u64, text: f64, seeds: f64) -> (Vec<Candidate>, Weighed) {
        let candidates = candidates(&rows.iter().map(|row| row.0).collect::<Vec<_>>());
        let losses: Vec<SpanLosses> =
            (0..).zip(rows).map(|(i, row)| losses(i, row.1, count, text, seeds)).collect();
        let evidence = compare(&losses, 0.95).unwrap();
        let weighed = weigh(&candidates, &evidence, Tolerance::default(), 0.1).unwrap();
        (candidates, weighed)
    }

    #[test]
    fn decided_when_all_is_clear() {
        use Standing::{Equivalent, Worse};
        let (_, weighed) = weighed(&[(1.0, 2.2), (2.0, 2.008), (4.0, 2.0)], 3, 0.01, 0.0005);
        assert_eq!(weighed.decision.chosen, 1);
        assert_eq!(weighed.standings, [Some(Worse), Some(Equivalent), Some(Equivalent)]);
        assert_eq!((weighed.certainty, &weighed.missing), (Certainty::Decided, &None));
        assert_eq!(weighed.certainty_text(), "decided");
    }

    #[test]
    fn the_evidence_in_words() {
        let same = |mean: f32| (0..2).map(|seed| (seed, vec![mean; 64])).collect::<SpanLosses>();
        let (candidates, all) = (candidates(&[4.0, 2.0, 1.0]), [same(2.0), same(2.015625), same(2.25)]);
        let explained = |losses: &[SpanLosses]| {
            let evidence = compare(losses, 0.95).unwrap();
            weigh(&candidates, &evidence, Tolerance::default(), 0.1).unwrap().explain(&evidence)
        };
        // Without any noise there is no doubt.
        let mut expected = vec![
            "i=2: 12 % more loss than the lowest found, truly 12 % to 12 % more than the best has: worse",
            "i=1: 0.78 % more loss than the lowest found, truly 0.78 % to 0.78 % more than the best has: equivalent",
            "i=0: the lowest loss found, truly 0 % to 0 % more than the best has: equivalent",
            "the intervals hold all at once with 95 % confidence, for other text of this kind and other seeds",
            "decided",
        ];
        assert_eq!(explained(&all), expected);
        let one_seed = all.map(|of| of.into_iter().take(1).collect::<SpanLosses>());
        expected.truncate(3);
        expected.extend([
            "the intervals account for the text alone: with one seed nothing is known of the luck of the seed",
            "decided for this seed alone: a second seed of i=0, i=1 and i=2",
        ]);
        assert_eq!(explained(&one_seed), expected);
    }

    #[test]
    fn what_is_missing_is_enough_when_it_comes() {
        let rows = [(1.0, 2.05), (2.0, 2.008), (4.0, 2.0), (8.0, 2.5)];
        let (_, before) = weighed(&rows, 2, 0.01, 0.008);
        assert_eq!(before.certainty, Certainty::Undecided);
        let Some(Missing { need: Need::Seeds(more), candidates: named }) = &before.missing else {
            panic!("{before:?}")
        };
        assert!(named.contains(&before.decision.chosen) && !named.contains(&3), "{named:?}");
        let text = before.certainty_text();
        assert!(text.starts_with(&format!("not enough evidence: {more} more seed")), "{text}");
        assert!(text.contains(" and i="), "{text}");
        // The forecast is as good as the noise and the differences that it rests on: here they are given.
        let (_, after) = weighed(&rows, 2 + 4 * *more as u64, 0.01, 0.008);
        assert_eq!(after.certainty, Certainty::Decided);
    }

    #[test]
    fn seeds_do_not_make_up_for_text() {
        let (_, weighed) = weighed(&[(1.0, 2.03), (2.0, 2.0)], 3, 0.6, 0.0005);
        assert_eq!(weighed.certainty, Certainty::Undecided);
        let before = weighed.missing.as_ref().unwrap();
        assert_eq!(before.candidates, [0, 1]);
        // Text that is the same with every seed.
        let same = |i: u64, mean: f64| {
            let all = losses(i, mean, 1, 0.6, 0.0);
            (0..3).map(|seed| (seed, all[&0].iter().map(|x| x + seed as f32 * 1e-4).collect())).collect()
        };
        let evidence = compare(&[same(0, 2.03), same(1, 2.0)], 0.95).unwrap();
        let weighed = weigh(&candidates(&[1.0, 2.0]), &evidence, Tolerance::default(), 0.1).unwrap();
        assert_eq!(weighed.missing.as_ref().unwrap().need, Need::Text);
        assert!(weighed.certainty_text().contains("more validation text"));
    }

    #[test]
    fn one_seed_decides_for_itself_alone() {
        let (_, weighed) = weighed(&[(1.0, 2.2), (2.0, 2.008), (4.0, 2.0)], 1, 0.01, 0.0);
        assert_eq!(weighed.certainty, Certainty::OneSeed);
        assert_eq!(
            weighed.certainty_text(),
            "decided for this seed alone: a second seed of i=0, i=1 and i=2"
        );
    }

    #[test]
    fn what_is_cheaper_by_no_more_than_noise_need_not_be_worse() {
        let rows = |cheaper: f64| [(cheaper, 2.0196), (2.0, 2.0), (4.0, 2.1)];
        let of = |cheaper| weighed(&rows(cheaper), 3, 0.01, 0.001).1;
        // Inside the tolerance or outside: nobody knows.
        assert_eq!(of(1.95).standings[0], Some(Standing::Undecided));
        assert_eq!((of(1.95).decision.chosen, of(1.95).certainty), (1, Certainty::Decided));
        assert_eq!(of(1.0).certainty, Certainty::Undecided);
    }

    #[test]
    fn candidates_without_losses_per_span_are_left_out() {
        let candidates = candidates(&[1.0, 2.0, 3.0]);
        let all = [losses(0, 2.0, 2, 0.01, 0.001), SpanLosses::new(), losses(2, 2.1, 2, 0.01, 0.001)];
        let evidence = compare(&all, 0.95).unwrap();
        let weighed = weigh(&candidates, &evidence, Tolerance::default(), 0.0).unwrap();
        assert_eq!(weighed.standings[1], None);
        assert_eq!(weighed.decision.left_out, [(1, "it has no losses per span of text".to_string())]);
        assert_eq!(weighed.decision.chosen, 0);
    }
}
