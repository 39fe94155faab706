//! Rungs: at which steps configurations are compared while they are being trained, and which go on.
//!
//! Successive halving (Jamieson and Talwalkar, AISTATS 2016) trains all configurations for a few steps, keeps the best
//! fraction, and gives those `eta` times the steps, until a few are trained to the end. It asks for the lowest loss. We
//! ask for the cheapest configuration near the lowest loss ([`decide`]), which may never have the lowest itself.
//! So a rung keeps what that rule could still choose: what it would choose now and the best, always, and one between
//! them, since dearer models gain on the way and the choice moves towards the best; then what
//! lies on the front of cost and loss; then the lowest losses.
//!
//! Everything here is a function of its arguments: a study decides with it, and so does who replays curves that are
//! already there.

use crate::{Candidate, Rule, StudySpec, Tolerance, decide, percent};
use diapason_random::{Purpose, Stream};

/// The step of the first rung, if nobody says it: a tenth of the steps. Halving in theory begins the earlier, the more there
/// are, but losses of the first steps are of another kind: small models lead. One configuration is compared with none.
pub fn first_rung(steps: u64, candidates: usize) -> u64 {
    if candidates < 2 { steps } else { (steps / 10).max(1) }
}

/// The steps of the rungs, ascending; the last is `steps`, the end. The others are `first`, `first` `eta`, and so on,
/// each moved to the nearest evaluation, of which there is one every `eval_every` steps: a rung costs no evaluation of
/// its own, and what goes on is to the last bit what it would have been without rungs. A rung closer to the end than
/// the square root of `eta` is left out.
pub fn ladder(steps: u64, eta: u64, first: u64, eval_every: u64) -> Vec<u64> {
    let (eta, every) = (eta.max(2), eval_every.max(1));
    let mut rungs = Vec::new();
    let mut step = first.max(1);
    while is_rung(step, eta, steps) {
        let evaluation = ((step + every / 2) / every).max(1).saturating_mul(every);
        if evaluation < steps && rungs.last() != Some(&evaluation) {
            rungs.push(evaluation);
        }
        step = step.saturating_mul(eta);
    }
    rungs.push(steps);
    rungs
}

/// Whether a step is far enough from the end to be a rung.
fn is_rung(step: u64, eta: u64, steps: u64) -> bool {
    let square = |x: u64| u128::from(x) * u128::from(x);
    square(step).saturating_mul(u128::from(eta)) <= square(steps)
}

/// How many of `candidates` go on from a rung, if no more are kept for what the rule could choose.
pub fn quota(candidates: usize, eta: u64) -> usize {
    candidates.div_ceil(eta.max(2) as usize)
}

/// How many go on from a rung with so many candidates, as a rule; one more if the choice could move to it.
pub fn usually_kept(candidates: usize, eta: u64) -> usize {
    // What the rule would choose, and the best.
    quota(candidates, eta).max(2.min(candidates))
}

/// What becomes of a candidate at a rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Whether it goes on.
    pub goes_on: bool,
    /// Why, or why not, in words: `the rule would choose it now`, `1.4677: 1.14 % above the best loss`.
    pub why: String,
}

/// What a rung decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// One per candidate, in their order.
    pub fates: Vec<Fate>,
}

impl Kept {
    /// The places of those that go on, ascending.
    pub fn going_on(&self) -> impl Iterator<Item = usize> + '_ {
        self.fates.iter().enumerate().filter(|(_, fate)| fate.goes_on).map(|(place, _)| place)
    }
}

/// Decides on a rung where everybody has been read. `noise`: as in [`decide`].
///
/// Of m candidates, ceil(m / `eta`) go on: the one that [`decide`] would choose, the one with the lowest loss, and the
/// next dearer one than the first, if nothing beats it in both cost and loss and it differs from both in cost by more than
/// `noise` (all three, even if that is more, and two in any case: a lead on the way is no verdict); then those of the better
/// half that nothing beats in both cost and loss, the lowest loss first; then the others, the lowest loss first. Who has no
/// loss is out.
pub fn keep(candidates: &[Candidate], tolerance: Tolerance, noise: f64, eta: u64) -> Kept {
    keep_some(candidates, tolerance, noise, quota(candidates.len(), eta), true)
}

/// The same before everybody has been read: floor(m / `eta`) of those that have been may go on at once.
pub fn keep_so_far(candidates: &[Candidate], tolerance: Tolerance, noise: f64, eta: u64) -> Kept {
    keep_some(candidates, tolerance, noise, candidates.len() / eta.max(2) as usize, false)
}

fn keep_some(
    candidates: &[Candidate],
    tolerance: Tolerance,
    noise: f64,
    quota: usize,
    chosen_and_best: bool,
) -> Kept {
    let mut fates: Vec<Option<Fate>> = vec![None; candidates.len()];
    if let Some(decision) = decide(candidates, tolerance, noise) {
        let mut by_loss: Vec<usize> = decision.compared.iter().map(|c| c.candidate).collect();
        // A stable sort: equal losses in the order of declaration.
        by_loss.sort_by(|&a, &b| candidates[a].loss.total_cmp(&candidates[b].loss));
        let better_half = &by_loss[..by_loss.len().div_ceil(2)];
        let front = decision.front(candidates);
        let (chosen, best) = (decision.chosen, decision.best);
        let mut first = if chosen == best {
            vec![(best, "the rule would choose it now, and it has the lowest loss")]
        } else {
            vec![(chosen, "the rule would choose it now"), (best, "it has the lowest loss")]
        };
        let dearer = |a: usize, b: usize| candidates[a].cost > candidates[b].cost * (1.0 + noise);
        // The front is in the order of cost.
        let between = front.iter().copied().find(|&place| dearer(place, chosen) && dearer(best, place));
        first.extend(
            between.map(|place| (place, "it lies between what the rule would choose now and the best")),
        );
        let must = if chosen_and_best { first.len().max(2) } else { 0 };
        let on_front = better_half.iter().filter(|place| front.contains(place));
        let order = first
            .into_iter()
            .chain(on_front.map(|&place| (place, "nothing beats it in both cost and loss")))
            .chain(by_loss.iter().map(|&place| (place, "it is among the lowest losses")));
        let mut on = 0;
        for (place, why) in order {
            if fates[place].is_none() && on < quota.max(must) {
                fates[place] = Some(Fate { goes_on: true, why: why.to_string() });
                on += 1;
            }
        }
        for comparison in &decision.compared {
            fates[comparison.candidate].get_or_insert_with(|| Fate {
                goes_on: false,
                why: format!(
                    "{:.4}: {} above the best loss",
                    candidates[comparison.candidate].loss,
                    percent(comparison.difference)
                ),
            });
        }
        for (place, reason) in decision.left_out {
            fates[place] = Some(Fate { goes_on: false, why: reason });
        }
    }
    let no_loss = |candidate: &Candidate| Fate {
        goes_on: false,
        why: candidate.left_out.clone().unwrap_or_else(|| "it has no loss".to_string()),
    };
    let fates = fates.into_iter().zip(candidates);
    Kept { fates: fates.map(|(fate, candidate)| fate.unwrap_or_else(|| no_loss(candidate))).collect() }
}

/// A bracket of Hyperband (Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, JMLR 18, 2018): a successive halving with
/// a first rung of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// The step of its first rung; of the last bracket the last step: it compares nothing on the way.
    pub first: u64,
    /// Its share of the configurations, in proportion: ceil((s_max + 1) / (s + 1) eta^s).
    pub weight: u64,
}

/// The brackets, the one that compares first before the others. `first`: its first rung; none: as halving would for
/// `candidates` configurations. No rung lies before the first evaluation.
pub fn brackets(
    steps: u64,
    eta: u64,
    first: Option<u64>,
    eval_every: u64,
    candidates: usize,
) -> Vec<Bracket> {
    let eta = eta.max(2);
    let first = first.unwrap_or_else(|| first_rung(steps, candidates));
    let first = first.max(eval_every).clamp(1, steps.max(1));
    let mut firsts: Vec<u64> = std::iter::successors(Some(first), |step| step.checked_mul(eta))
        .take_while(|&step| is_rung(step, eta, steps))
        .collect();
    firsts.push(steps);
    let most = firsts.len() as u64;
    let bracket = |(place, first): (usize, u64)| {
        let s = most - 1 - place as u64;
        let power = eta.saturating_pow(s as u32);
        Bracket { first, weight: most.saturating_mul(power).div_ceil(s + 1) }
    };
    firsts.into_iter().enumerate().map(bracket).collect()
}

/// Deals `candidates` configurations to brackets in proportion to their weights: the bracket of each. Which goes where
/// is drawn, always the same way, since the order of a grid is no accident.
pub fn deal(candidates: usize, brackets: &[Bracket]) -> Vec<usize> {
    let stream = Stream::new(0, Purpose::Brackets, 0);
    let mut order: Vec<usize> = (0..candidates).collect();
    order.sort_by_key(|&place| (stream.u64(place as u64), place));
    let mut dealt = vec![0u64; brackets.len()];
    let mut of = vec![0; candidates];
    for place in order {
        // Whoever is furthest behind its share.
        let next = (0..brackets.len()).min_by(|&a, &b| {
            let due = |i: usize, j: usize| u128::from(2 * dealt[i] + 1) * u128::from(brackets[j].weight);
            due(a, b).cmp(&due(b, a))
        });
        of[place] = next.unwrap_or(0);
        dealt[of[place]] += 1;
    }
    of
}

/// The rungs of a study: a ladder for each bracket, and who is in which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladders {
    /// About one in so many goes on.
    pub eta: u64,
    /// Whether a configuration may go on before all have been read.
    pub asynchronous: bool,
    ladders: Vec<Vec<u64>>,
    /// By configuration.
    dealt: Vec<usize>,
}

impl Ladders {
    /// The rungs of a study, which is complete; none if its rule has none.
    pub fn of(spec: &StudySpec) -> Option<Self> {
        let rungs = spec.rule.rungs()?;
        let configurations = spec.configurations();
        let (steps, every) = (spec.config.steps, spec.config.steps_between_evaluations());
        let first = rungs.first.unwrap_or_else(|| first_rung(steps, configurations));
        if let Some(search) = spec.search.as_ref().filter(|search| search.drawn_first() < search.samples) {
            // Samples of different rounds are never there at the same time.
            let rounds = search.rounds();
            let of = |&size: &usize| {
                let first = rungs.first.unwrap_or_else(|| first_rung(steps, size));
                ladder(steps, rungs.eta, first, every)
            };
            let dealt = (0..configurations).map(|sample| search.round_of(sample)).collect();
            let ladders = rounds.iter().map(of).collect();
            return Some(Self { eta: rungs.eta, asynchronous: rungs.asynchronous, ladders, dealt });
        }
        let brackets = match spec.rule {
            Rule::Hyperband(_) => brackets(steps, rungs.eta, rungs.first, every, configurations),
            _ => vec![Bracket { first, weight: 1 }],
        };
        let ladders = brackets.iter().map(|bracket| ladder(steps, rungs.eta, bracket.first, every)).collect();
        let dealt = deal(configurations, &brackets);
        Some(Self { eta: rungs.eta, asynchronous: rungs.asynchronous, ladders, dealt })
    }

    /// Whether anything is compared before the end.
    pub fn compares(&self) -> bool {
        self.ladders.iter().any(|ladder| ladder.len() > 1)
    }

    /// The bracket of a configuration.
    pub fn bracket(&self, configuration: usize) -> usize {
        self.dealt.get(configuration).copied().unwrap_or(0)
    }

    /// Number of brackets.
    pub fn brackets(&self) -> usize {
        self.ladders.len()
    }

    /// The steps of a bracket's rungs, the end included.
    pub fn ladder(&self, bracket: usize) -> &[u64] {
        &self.ladders[bracket % self.ladders.len()]
    }

    /// The rung after `rung` (none: the beginning) with its step; none if that is the end.
    pub(crate) fn next(&self, bracket: usize, rung: Option<i64>) -> Option<(u32, u64)> {
        let next = rung.map_or(0, |rung| usize::try_from(rung + 1).unwrap_or(0));
        let ladder = self.ladder(bracket);
        (next + 1 < ladder.len()).then(|| (next as u32, ladder[next]))
    }

    /// Steps beyond the rung after `rung` (none: the first rung) that a trial of `bracket` makes on average, if every
    /// rung keeps as many as it may. `candidates`: how many configurations are compared at that next rung.
    pub(crate) fn later(&self, bracket: usize, rung: Option<i64>, candidates: usize) -> f64 {
        let ladder = self.ladder(bracket);
        let next = rung.map_or(0, |rung| usize::try_from(rung + 1).unwrap_or(0)).min(ladder.len() - 1);
        let (mut left, mut share, mut later) = (candidates, 1.0, 0.0);
        for pair in ladder[next..].windows(2) {
            let kept = usually_kept(left, self.eta);
            share *= kept as f64 / left.max(1) as f64;
            later += share * (pair[1] - pair[0]) as f64;
            left = kept;
        }
        later
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Params;

    fn candidates(table: &[(f64, f64)]) -> Vec<Candidate> {
        let one = |(i, &(cost, loss)): (usize, &(f64, f64))| Candidate {
            params: Params::new([("i", toml::Value::Integer(i as i64))]),
            cost,
            loss,
            left_out: None,
        };
        table.iter().enumerate().map(one).collect()
    }

    fn kept(table: &[(f64, f64)], eta: u64) -> Vec<usize> {
        keep(&candidates(table), Tolerance::default(), 0.0, eta).going_on().collect()
    }

    /// Steps trained, as a share of all to the end, if no rung keeps more than usual.
    fn share(candidates: usize, steps: u64, every: u64) -> f64 {
        let rungs = ladder(steps, 2, first_rung(steps, candidates), every);
        let (mut here, mut before, mut sum) = (candidates, 0, 0);
        for rung in rungs {
            sum += here as u64 * (rung - before);
            (here, before) = (usually_kept(here, 2), rung);
        }
        sum as f64 / (candidates as u64 * steps) as f64
    }

    #[test]
    fn ladders() {
        assert_eq!(first_rung(20_000, 4), 2000);
        assert_eq!(ladder(20_000, 3, 2222, 1000), [2000, 7000, 20_000]);
        // Without evaluations to be moved to.
        assert_eq!(ladder(20_000, 3, 2222, 1), [2222, 6666, 20_000]);
        assert_eq!(ladder(2000, 2, first_rung(2000, 16), 100), [200, 400, 800, 2000]);
        assert_eq!(ladder(1000, 2, 250, 50), [250, 500, 1000]);
        // Rungs that fall together are one; none lies at the end or beyond.
        assert_eq!(ladder(100, 2, 1, 50), [50, 100]);
        assert_eq!(ladder(40, 3, 5, 40), [40]);
        assert_eq!(ladder(40, 3, 40, 5), [40]);
        assert_eq!(ladder(40, 3, 100, 5), [40]);
        // One configuration has nobody to be compared with.
        assert_eq!(ladder(40, 3, first_rung(40, 1), 5), [40]);
        assert_eq!(first_rung(5, 1_000_000), 1);
        assert!(ladder(u64::MAX, 16, 1, 1).len() < 20);
    }

    #[test]
    fn what_the_defaults_save() {
        for (steps, every) in [(20_000, 1000), (20_000, 1), (2000, 100), (200, 10)] {
            for (candidates, most) in [(4, 0.56), (9, 0.36), (16, 0.28), (64, 0.28)] {
                let share = share(candidates, steps, every);
                assert!(share <= most, "{candidates}: {share}");
            }
        }
    }

    #[test]
    fn the_seeds_early_table_keeps_chosen_and_best() {
        let early: Vec<(f64, f64)> =
            crate::SEED_NUMBERS[..4].iter().map(|row| (row.seconds, row.loss)).collect();
        assert_eq!(kept(&early, 3), [0, 1]);
        assert_eq!(kept(&early, 2), [0, 1]);
        let fates = keep(&candidates(&early), Tolerance::default(), 0.0, 3).fates;
        assert_eq!(fates[0].why, "the rule would choose it now");
        assert_eq!(fates[1].why, "it has the lowest loss");
        assert_eq!(fates[2].why, "1.4716: 1.4 % above the best loss");
        assert_eq!(kept(&early[..2], 3), [0, 1], "one more than a third");
    }

    #[test]
    fn the_front_comes_before_the_lowest_losses() {
        // 0 is best and chosen; 1 is dearer and nearly as good; 2 is worse, but cheap; 3 is cheapest and bad.
        let table = [(10.0, 1.0), (11.0, 1.02), (5.0, 1.05), (1.0, 2.0), (12.0, 1.5), (13.0, 1.6)];
        assert_eq!(kept(&table, 3), [0, 2]);
        assert_eq!(kept(&table, 2), [0, 1, 2]);
        // Low cost alone holds nobody in the worse half.
        assert_eq!(kept(&[(10.0, 1.0), (11.0, 1.2), (12.0, 1.3), (1.0, 2.0)], 2), [0, 1]);
    }

    #[test]
    fn one_between_the_chosen_and_the_best_stays() {
        // 0 would be chosen, 3 is best; 1 and 2 lie between on the front, 4 does not.
        let table = [(1.0, 1.009), (2.0, 1.006), (3.0, 1.003), (4.0, 1.0), (2.5, 1.2), (9.0, 1.3)];
        assert_eq!(kept(&table, 6), [0, 1, 3]);
        assert_eq!(kept(&table, 3), [0, 1, 3]);
        // Costs within noise of either are no third way.
        let near = [(1.0, 1.009), (1.05, 1.006), (3.9, 1.003), (4.0, 1.0)];
        let kept = keep(&candidates(&near), Tolerance::default(), 0.1, 4);
        assert_eq!(
            kept.going_on().collect::<Vec<_>>(),
            [1, 3],
            "of 0 and 1, equally dear, the lower loss is chosen"
        );
    }

    #[test]
    fn who_has_no_loss_is_out() {
        let mut cells = candidates(&[(1.0, f64::NAN), (2.0, 1.0), (3.0, 1.5), (4.0, 1.6)]);
        cells[1].left_out = Some("diverged at step 3".to_string());
        let kept = keep(&cells, Tolerance::default(), 0.0, 2);
        assert_eq!(kept.going_on().collect::<Vec<_>>(), [2, 3], "places of the failed go to others");
        assert_eq!(kept.fates[1].why, "diverged at step 3");
        for cell in &mut cells {
            cell.left_out = Some("failed".to_string());
        }
        assert_eq!(keep(&cells, Tolerance::default(), 0.0, 2).going_on().count(), 0);
        assert_eq!(keep(&[], Tolerance::default(), 0.0, 2).fates, []);
        // Equal losses and costs: those that were declared first.
        assert_eq!(kept_all_equal(), [0, 1]);
    }

    fn kept_all_equal() -> Vec<usize> {
        kept(&[(1.0, 1.0); 6], 3)
    }

    #[test]
    fn as_soon_as_it_can_be_said() {
        let so_far = |n: usize| {
            let table: Vec<(f64, f64)> = (0..n).map(|i| (1.0 + i as f64, 2.0 - 0.1 * i as f64)).collect();
            keep_so_far(&candidates(&table), Tolerance::default(), 0.0, 3).going_on().collect::<Vec<_>>()
        };
        assert_eq!((so_far(2), so_far(3), so_far(6)), (vec![], vec![2], vec![4, 5]));
    }

    #[test]
    fn hyperbands_brackets() {
        // The paper's table: R = 81, eta = 3.
        let of = brackets(81, 3, Some(1), 1, 100);
        let table: Vec<(u64, u64)> = of.iter().map(|bracket| (bracket.first, bracket.weight)).collect();
        assert_eq!(table, [(1, 81), (3, 34), (9, 15), (27, 8), (81, 5)]);
        let dealt = deal(143, &of);
        for (place, bracket) in of.iter().enumerate() {
            let n = dealt.iter().filter(|&&of| of == place).count() as i64;
            assert!((n - bracket.weight as i64).abs() <= 1, "{n} of {bracket:?}");
        }
        assert_eq!(dealt, deal(143, &of));
        // Not in the order of the grid.
        assert!(!dealt.is_sorted());
        let one = brackets(10, 3, None, 10, 4);
        assert_eq!(one, [Bracket { first: 10, weight: 1 }]);
        assert_eq!(deal(3, &one), [0, 0, 0]);
        assert_eq!(deal(0, &one), [0usize; 0]);
    }
}
