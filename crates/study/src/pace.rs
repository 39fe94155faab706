//! Trials side by side, or all threads in one trial: how long a study takes either way.
//!
//! Two threads in one step meet two or three times and are never dealt exactly the same; two steps side by side meet
//! nowhere, but share a cache, and when the last trial is left alone the other cores would stand idle. Which way
//! ends sooner depends on the models and the machine. So both are timed ([`crate::timings`]), and the study is played
//! through on paper: every worker takes the next trial, a step takes as long as it does beside so many others, and
//! when no trial is left to be taken, the cores of idle workers go to those at work. The way that ends first is taken.
//!
//! The same play, started from where the study stands, gives the time that is left.

use std::collections::BTreeMap;

/// Seconds of the beginning of a study in which measured times count as much as what has been seen since.
const TRUST: f64 = 10.0;

/// Seconds after which a speed that was not measured beforehand can be told.
const FIRST_LOOK: f64 = 0.5;

/// How long a step of a trial takes, by how many trials are at work.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pace {
    /// (trials at work, seconds), the first number ascending; at least one pair.
    measured: Vec<(usize, f64)>,
}

impl Pace {
    /// A pace from measured points, (trials at work, seconds).
    pub(crate) fn measured(mut points: Vec<(usize, f64)>) -> Self {
        points.sort_by_key(|(at_work, _)| *at_work);
        Self { measured: points }
    }

    /// Nothing measured: time goes as the floating-point operations, and trials share the machine evenly. The unit
    /// is unknown.
    pub(crate) fn guessed(flop: f64) -> Self {
        Self { measured: vec![(1, flop)] }
    }

    /// The pace with every step `factor` times as long.
    pub(crate) fn times(mut self, factor: f64) -> Self {
        self.measured.iter_mut().for_each(|(_, seconds)| *seconds *= factor);
        self
    }

    /// Seconds of a step beside `at_work` - 1 others: as measured, in proportion between and beyond.
    fn seconds(&self, at_work: usize) -> f64 {
        let after = self.measured.partition_point(|(n, _)| *n < at_work);
        let at = at_work as f64;
        match (after.checked_sub(1).map(|i| self.measured[i]), self.measured.get(after)) {
            (_, Some(&(n, seconds))) if n == at_work => seconds,
            (Some((n, low)), Some(&(m, high))) => low + (high - low) * (at - n as f64) / (m - n) as f64,
            (Some((n, seconds)), None) | (None, Some(&(n, seconds))) => seconds * at / n as f64,
            (None, None) => f64::NAN,
        }
    }
}

/// A trial that is not over: steps left, evaluations counted as steps, and its pace.
pub(crate) type Left<'a> = (f64, &'a Pace);

/// Seconds until all of `trials` are done, if `at_once` workers take them in this order.
pub(crate) fn seconds_until_done<'a>(trials: impl IntoIterator<Item = Left<'a>>, at_once: usize) -> f64 {
    let mut waiting = trials.into_iter();
    let mut at_work: Vec<Left<'_>> = Vec::new();
    let mut seconds = 0.0;
    loop {
        at_work.extend(waiting.by_ref().take(at_once.max(1) - at_work.len()));
        let n = at_work.len();
        if n == 0 {
            return seconds;
        }
        let next = at_work.iter().map(|(left, pace)| left * pace.seconds(n)).fold(f64::INFINITY, f64::min);
        seconds += next;
        at_work.retain_mut(|(left, pace)| {
            *left -= next / pace.seconds(n);
            // Whoever is first has none left but for rounding.
            *left > 1e-6
        });
    }
}

/// The time that a study still takes.
#[derive(Clone, Debug)]
pub(crate) struct Outlook {
    /// (number, steps left, pace) of every trial that is not over, in the order in which they are taken.
    trials: Vec<(usize, f64, Pace)>,
    at_once: usize,
    /// Whether the paces are seconds of this machine.
    measured: bool,
    /// What was expected of the whole, less what patience saved.
    expected: f64,
}

impl Outlook {
    /// Before the first step.
    pub(crate) fn new(trials: Vec<(usize, f64, Pace)>, at_once: usize, measured: bool) -> Self {
        let mut outlook = Self { trials, at_once, measured, expected: 0.0 };
        outlook.expected = outlook.ahead();
        outlook
    }

    /// By the paces alone.
    fn ahead(&self) -> f64 {
        seconds_until_done(self.trials.iter().map(|(_, left, pace)| (*left, pace)), self.at_once)
    }

    /// A trial has so many steps left.
    pub(crate) fn at(&mut self, number: usize, steps_left: f64) {
        if let Some((_, left, _)) = self.trials.iter_mut().find(|trial| trial.0 == number) {
            *left = steps_left;
        }
    }

    /// Another look at the rungs: so many steps are expected of these trials, and none of the others.
    pub(crate) fn expect(&mut self, ahead: &[(usize, f64)]) {
        let before = self.ahead();
        let ahead: BTreeMap<usize, f64> = ahead.iter().copied().collect();
        self.trials.retain_mut(|(number, left, _)| {
            *left = ahead.get(number).copied().unwrap_or(0.0);
            ahead.contains_key(number)
        });
        // Steps that nobody has to do say nothing about speed.
        self.expected -= before - self.ahead();
    }

    /// A trial is over, perhaps before its last step.
    pub(crate) fn over(&mut self, number: usize) {
        let before = self.ahead();
        self.trials.retain(|trial| trial.0 != number);
        // Steps that nobody has to do say nothing about speed.
        self.expected -= before - self.ahead();
    }

    /// Seconds left, `elapsed` seconds after the beginning: what lies ahead by the paces, corrected by how what has
    /// been done compares with its own. None before there is anything to go by.
    pub(crate) fn left(&self, elapsed: f64) -> Option<f64> {
        let ahead = self.ahead();
        let done = self.expected - ahead;
        if self.measured {
            Some(ahead * (TRUST + elapsed) / (TRUST + done.max(0.0)))
        } else {
            (elapsed > FIRST_LOOK && done > 0.0).then(|| ahead * elapsed / done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(points: &[(usize, f64)]) -> Pace {
        Pace::measured(points.to_vec())
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn a_pace_holds_between_and_beyond_what_was_measured() {
        let pace = pace(&[(4, 3.5), (1, 1.0), (2, 1.5)]);
        for (at_work, seconds) in [(1, 1.0), (2, 1.5), (3, 2.5), (4, 3.5), (8, 7.0)] {
            close(pace.seconds(at_work), seconds);
        }
        close(Pace::guessed(5.0).seconds(3), 15.0);
    }

    #[test]
    fn one_at_a_time_is_the_sum() {
        let (a, b) = (pace(&[(1, 0.1), (2, 0.15)]), pace(&[(1, 0.3), (2, 0.5)]));
        close(seconds_until_done([(10.0, &a), (20.0, &b), (0.0, &a)], 1), 7.0);
        close(seconds_until_done([], 3), 0.0);
    }

    #[test]
    fn side_by_side_the_last_one_gets_all_cores() {
        // Two at work: 0.18 s a step; alone: 0.1 s.
        let pace = pace(&[(1, 0.1), (2, 0.18)]);
        close(seconds_until_done([(100.0, &pace); 2], 2), 18.0);
        // Two pairs' worth of the first hundred steps, then a hundred steps alone.
        close(seconds_until_done([(100.0, &pace); 3], 2), 18.0 + 10.0);
        // The second has 50 steps left when the first is done.
        close(seconds_until_done([(100.0, &pace), (150.0, &pace)], 2), 18.0 + 5.0);
        // More workers than trials.
        close(seconds_until_done([(100.0, &pace); 2], 5), 18.0);
    }

    #[test]
    fn a_long_trial_is_joined_by_short_ones() {
        let (long, short) = (pace(&[(1, 1.0), (2, 1.6)]), pace(&[(1, 0.1), (2, 0.16)]));
        // The long one takes 160 s beside others, in which ten short ones fit; the tenth ends with it.
        let trials = std::iter::once((100.0, &long)).chain(std::iter::repeat_n((100.0, &short), 10));
        close(seconds_until_done(trials, 2), 160.0);
    }

    #[test]
    fn which_way_ends_first_depends_on_the_tail() {
        // Side by side is 5 % better while there are two.
        let pace = pace(&[(1, 1.0), (2, 1.9)]);
        let study = |n: usize, at_once| seconds_until_done(vec![(100.0, &pace); n], at_once);
        assert!(study(2, 2) < study(2, 1));
        close(study(3, 2), 290.0);
        // One long trial after a short one: it is alone for most of its time, either way.
        let trials = [(10.0, &pace), (1000.0, &pace)];
        close(seconds_until_done(trials, 2), 19.0 + 990.0);
    }

    #[test]
    fn the_time_left_is_corrected_by_what_was_seen() {
        let trials = || vec![(0, 100.0, pace(&[(1, 1.0)])), (1, 300.0, pace(&[(1, 1.0)]))];
        let mut outlook = Outlook::new(trials(), 1, true);
        close(outlook.left(0.0).unwrap(), 400.0);
        // Twice as slow as measured.
        outlook.at(0, 10.0);
        let left = outlook.left(180.0).unwrap();
        assert!((560.0..620.0).contains(&left), "{left}");
        // A trial that patience ends shortens what is left and tells nothing of the speed.
        outlook.over(0);
        let left = outlook.left(180.0).unwrap();
        assert!((540.0..600.0).contains(&left), "{left}");
        outlook.over(1);
        close(outlook.left(200.0).unwrap(), 0.0);
    }

    #[test]
    fn without_measurements_the_time_left_waits_for_a_look() {
        let trials = vec![(0, 100.0, Pace::guessed(1e9)), (1, 100.0, Pace::guessed(3e9))];
        let mut outlook = Outlook::new(trials, 1, false);
        assert_eq!(outlook.left(60.0), None);
        outlook.at(0, 50.0);
        assert_eq!(outlook.left(0.1), None);
        // 50 of 400 units in ten seconds.
        close(outlook.left(10.0).unwrap(), 70.0);
    }
}
