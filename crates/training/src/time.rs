//! A budget of time: what of it is spent, and what follows for the run.
//!
//! Such a run has no number of steps. When it evaluates, how far its schedules are and when it ends follow from the seconds that it has
//! spent, evaluations and checkpoints included. They are in the checkpoint, so that the run can be interrupted.

use serde::{Deserialize, Serialize};

/// A budget of time, and what of it is spent. Evaluations and checkpoints count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeSpent {
    /// The budget, seconds.
    pub budget: f64,
    /// Seconds spent, over the segments whose steps survive.
    pub seconds: f64,
    /// Of them, seconds at the last evaluation.
    pub evaluated: f64,
    /// Seconds that an evaluation takes; none before the first.
    pub evaluation: Option<f64>,
    /// Share of the run that was over before the last step: it never goes back, whatever is found out about evaluations.
    pub done: f64,
}

/// What a run with a budget of time cannot know before it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guess {
    /// Seconds of the next step.
    pub(crate) step: f64,
    /// Seconds of an evaluation, before there was one.
    pub(crate) evaluation: f64,
}

impl TimeSpent {
    /// Nothing of `budget` seconds is spent.
    pub(crate) fn nothing_of(budget: f64) -> Self {
        Self { budget, seconds: 0.0, evaluated: 0.0, evaluation: None, done: 0.0 }
    }

    /// Seconds that an evaluation takes: what the last one did, or what is guessed.
    fn evaluation(&self, guess: Guess) -> f64 {
        self.evaluation.unwrap_or(guess.evaluation)
    }

    /// Takes in an evaluation that began when `began` seconds were spent, and is over now.
    pub(crate) fn was_evaluated(&mut self, began: f64) {
        (self.evaluated, self.evaluation) = (self.seconds, Some(self.seconds - began));
    }

    /// Whether it is time for an evaluation on the way: each twentieth of the time, or less often, so that all evaluations take about a
    /// twentieth of the time; but each quarter of it in any case.
    pub(crate) fn is_evaluation_due(&self, guess: Guess) -> bool {
        let pause = (self.budget / 20.0).max(20.0 * self.evaluation(guess)).min(self.budget / 4.0);
        self.seconds >= self.evaluated + pause
    }

    /// Whether another step and the last evaluation would not end in time.
    pub(crate) fn is_over(&self, guess: Guess) -> bool {
        self.seconds + guess.step + self.evaluation(guess) > self.budget
    }

    /// Share of the run that is over before the next step.
    pub(crate) fn share(&self, guess: Guess) -> f64 {
        // Training ends when the last evaluation begins.
        let training = (self.budget - self.evaluation(guess)).max(guess.step);
        if self.seconds < training { self.done.max(self.seconds / training) } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: f64) -> TimeSpent {
        TimeSpent { seconds, ..TimeSpent::nothing_of(100.0) }
    }

    #[test]
    fn evaluations_take_a_twentieth_of_the_time() {
        let due = |time: TimeSpent, evaluation| time.is_evaluation_due(Guess { step: 0.1, evaluation });
        // Quick ones: each twentieth of the time.
        assert!(!due(after(4.9), 0.1) && due(after(5.0), 0.1));
        // Slow ones: twenty times what they take; at least each quarter.
        assert!(!due(after(19.9), 1.0) && due(after(20.0), 1.0));
        assert!(!due(after(24.9), 50.0) && due(after(25.0), 50.0));
        // What one has taken counts, and when it was.
        let mut time = after(6.0);
        time.was_evaluated(5.5);
        assert_eq!((time.evaluated, time.evaluation), (6.0, Some(0.5)));
        assert!(
            !due(TimeSpent { seconds: 15.9, ..time }, 9.0) && due(TimeSpent { seconds: 16.0, ..time }, 9.0)
        );
    }

    #[test]
    fn the_run_ends_in_time_for_its_last_evaluation() {
        let guess = Guess { step: 1.0, evaluation: 9.0 };
        assert!(!after(90.0).is_over(guess) && after(90.1).is_over(guess));
        let known = TimeSpent { evaluation: Some(4.0), ..after(90.1) };
        assert!(!known.is_over(guess));
        assert_eq!(after(45.5).share(guess), 0.5);
        assert_eq!(after(91.0).share(guess), 1.0);
        // Never back, whatever is found out about evaluations.
        assert_eq!(TimeSpent { done: 0.6, ..after(45.5) }.share(guess), 0.6);
        // A budget that is no longer than an evaluation.
        assert_eq!(TimeSpent::nothing_of(5.0).share(guess), 0.0);
        assert!(TimeSpent::nothing_of(5.0).is_over(guess));
    }
}
