//! Progress, on stderr: bars for people, plain lines for logs.
//!
//! Bars are drawn only if stderr is a terminal. Otherwise a line appears at every evaluation and now and then
//! between, so that a log file stays readable and a silent hour never happens. The time left is worked out
//! from floating-point operations: what remains of this trial and of all later ones, divided by the speed
//! measured so far in this process. It is an upper estimate, since patience may end a trial early.

use crate::failure::note;
use crate::signals::Signals;
use diapason_training::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Seconds between two plain lines of the same trial.
const LINE_SECONDS: f64 = 15.0;

/// A bar or nothing: for reading, downloading, scoring.
pub(crate) struct Work {
    bar: Option<ProgressBar>,
    what: &'static str,
    bytes: bool,
    next_line: Instant,
}

impl Work {
    /// Progress in bytes.
    pub(crate) fn bytes() -> Self {
        Self::new(true)
    }

    /// Progress in anything else: characters, rounds.
    pub(crate) fn count() -> Self {
        Self::new(false)
    }

    fn new(bytes: bool) -> Self {
        let next_line = Instant::now() + Duration::from_secs_f64(LINE_SECONDS);
        Self { bar: None, what: "", bytes, next_line }
    }

    /// `done` of `total` units of `what` are done.
    pub(crate) fn at(&mut self, what: &'static str, done: u64, total: Option<u64>) {
        if !std::io::stderr().is_terminal() {
            if Instant::now() >= self.next_line {
                self.next_line = Instant::now() + Duration::from_secs_f64(LINE_SECONDS);
                match total.filter(|&total| total > 0) {
                    Some(total) => note(&format!("{what}: {:.0} %", 100.0 * done as f64 / total as f64)),
                    None => note(&format!("{what}: {done} so far")),
                }
            }
            return;
        }
        if what != self.what {
            self.finish();
            self.what = what;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let numbers = if self.bytes {
                "{decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}"
            } else {
                "{human_pos}/{human_len}"
            };
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            bar.set_style(style(&format!("{{msg}} [{{bar:28}}] {numbers} {{eta}} left")));
            bar.set_message(what);
            bar
        });
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What training will cost and has cost, in floating-point operations, and how fast it went.
#[derive(Debug)]
struct Clock {
    /// Operations of trials that have not begun.
    waiting: f64,
    /// Operations of one step of the current trial.
    per_step: f64,
    /// Operations done in this process.
    done: f64,
    /// Seconds spent on them.
    seconds: f64,
}

impl Clock {
    /// Seconds until everything is done, once there is a speed to go by.
    fn left(&self, steps_left: u64) -> Option<f64> {
        (self.done > 0.0 && self.seconds > 0.5)
            .then(|| (self.waiting + self.per_step * steps_left as f64) * self.seconds / self.done)
    }
}

/// Progress of training: one trial after the other.
pub(crate) struct Training {
    bar: Option<ProgressBar>,
    clock: Clock,
    /// `trial 2/4 d_model=64`, or nothing for a single run.
    label: String,
    step: u64,
    steps: u64,
    /// Training loss of the last step, or the mean since the last evaluation, once there was one.
    loss: Option<f64>,
    tokens_per_second: f64,
    since: Instant,
    next_line: Instant,
    /// Whether the user knows that a signal has been seen.
    interrupted: bool,
}

impl Training {
    /// Nothing done yet.
    pub(crate) fn new() -> Self {
        Self {
            bar: std::io::stderr().is_terminal().then(|| {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                bar.set_style(style("{prefix}[{bar:12}] {wide_msg}"));
                bar
            }),
            clock: Clock { waiting: 0.0, per_step: 0.0, done: 0.0, seconds: 0.0 },
            label: String::new(),
            step: 0,
            steps: 0,
            loss: None,
            tokens_per_second: 0.0,
            since: Instant::now(),
            next_line: Instant::now(),
            interrupted: false,
        }
    }

    /// All that lies ahead costs `flop` floating-point operations.
    pub(crate) fn plan(&mut self, flop: f64) {
        self.clock.waiting = flop;
    }

    /// The next events are those of the trial `label`, whose steps cost `flop_per_step`.
    pub(crate) fn trial(&mut self, label: String, flop_per_step: f64) {
        self.label = label;
        self.clock.per_step = flop_per_step;
    }

    /// Shows what happened.
    pub(crate) fn event(&mut self, event: &Event, signals: &Signals) {
        match event {
            Event::Started { step, steps, parameters, .. } => self.started(*step, *steps, *parameters),
            Event::Step { step, steps, loss, tokens_per_second } => {
                self.steps = *steps;
                self.loss = Some(*loss);
                self.tokens_per_second = *tokens_per_second;
                self.count(*step);
                self.show(None);
            }
            Event::Evaluating { step, done, windows } => {
                self.count(*step);
                self.show(Some(100 * done / (*windows).max(1)));
            }
            Event::Evaluated(point) => {
                self.loss = Some(point.train_loss);
                self.count(point.step);
                if self.bar.is_some() {
                    self.show(None);
                } else {
                    self.plain(&format!("{}, validation loss {:.4}", self.line(None), point.validation_loss));
                }
            }
            Event::Checkpoint { .. } => {}
            Event::Note(text) => self.say(text),
        }
        if signals.raised() && !self.interrupted {
            self.interrupted = true;
            self.say("stopping: a checkpoint is written after this step; a second signal stops at once");
        }
    }

    fn started(&mut self, step: u64, steps: u64, parameters: usize) {
        let ahead = self.clock.per_step * steps.saturating_sub(step) as f64;
        self.clock.waiting = (self.clock.waiting - ahead).max(0.0);
        self.step = step;
        self.steps = steps;
        self.loss = None;
        self.since = Instant::now();
        if let Some(bar) = &self.bar {
            bar.set_length(steps);
            bar.set_position(step);
            let width = usize::from(console::Term::stderr().size().1);
            let label = console::truncate_str(&self.label, width, "...");
            // A line of its own: beside the bar there is no room for it in 80 columns.
            bar.set_prefix(if label.is_empty() { String::new() } else { format!("{label}\n") });
            bar.set_message("");
        } else if step > 0 {
            self.plain(&format!("going on at step {step} of {steps}"));
        } else {
            self.plain(&format!("{steps} steps, {} parameters", short(parameters as f64)));
        }
    }

    /// Takes in that `step` steps are done, and the time that has gone by.
    fn count(&mut self, step: u64) {
        self.clock.done += step.saturating_sub(self.step) as f64 * self.clock.per_step;
        self.clock.seconds += self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        self.step = step;
    }

    /// Shows where the trial is; `evaluating` is the percentage of an evaluation under way.
    fn show(&mut self, evaluating: Option<usize>) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.line(evaluating));
            bar.set_position(self.step);
        } else if Instant::now() >= self.next_line {
            self.plain(&self.line(evaluating));
        }
    }

    /// Something to be said at once.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn plain(&mut self, line: &str) {
        let label = if self.label.is_empty() { String::new() } else { format!("{}: ", self.label) };
        note(&format!("{label}{line}"));
        self.next_line = Instant::now() + Duration::from_secs_f64(LINE_SECONDS);
    }

    /// `step 500/2000, loss 2.1034, 41.2 k tokens/s, 1 min 10 s left`.
    fn line(&self, evaluating: Option<usize>) -> String {
        let mut line = format!("step {}/{}", self.step, self.steps);
        if let Some(loss) = self.loss {
            line += &format!(", loss {loss:.4}");
        }
        if let Some(percent) = evaluating {
            line += &format!(", evaluating {percent} %");
        } else if self.tokens_per_second > 0.0 {
            line += &format!(", {} tokens/s", short(self.tokens_per_second));
        }
        if let Some(left) = self.clock.left(self.steps.saturating_sub(self.step)) {
            line += &format!(", {} left", duration(left));
        }
        line
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A style without colours. The templates are literals of this file, tested below.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// `850`, `41.2 k`, `1.3 M`.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// `45 s`, `2 min 05 s`, `1 h 58 min`, `3 d 4 h`.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let texts = [0.2, 59.4, 125.0, 7080.0, 273_600.0].map(duration);
        assert_eq!(texts, ["0 s", "59 s", "2 min 05 s", "1 h 58 min", "3 d 4 h"]);
    }

    #[test]
    fn templates_parse() {
        for template in [
            "{prefix}[{bar:12}] {wide_msg}",
            "{msg} [{bar:28}] {human_pos}/{human_len} {eta} left",
            "{msg} [{bar:28}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn the_time_left_counts_the_work_and_not_the_trials() {
        // Half a trial of 100 steps at 1 Gflop is done in 10 s; a trial of 100 steps at 3 Gflop waits.
        let clock = Clock { waiting: 300e9, per_step: 1e9, done: 50e9, seconds: 10.0 };
        assert_eq!(clock.left(50), Some(70.0));
        assert_eq!(Clock { done: 0.0, ..clock }.left(50), None);
    }
}
