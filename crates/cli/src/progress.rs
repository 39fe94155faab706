//! Progress, on stderr: bars for people, plain lines for logs.
//!
//! Bars are drawn only if stderr is a terminal. Otherwise a line appears at every evaluation and now and then
//! between, so that a log file stays readable and a silent hour never happens. The time left is that of the whole
//! study, which the study works out; of a single run, it is what remains of its steps at the speed so far. It is an
//! upper estimate, since patience may end a trial early.

use crate::failure::note;
use crate::signals::Signals;
use diapason_training::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
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

/// A run or trial at work.
struct Run {
    /// `trial 2/4 d_model=64`, or nothing for a single run.
    label: String,
    bar: Option<ProgressBar>,
    step: u64,
    steps: u64,
    /// Training loss of the last step, or the mean since the last evaluation, once there was one.
    loss: Option<f64>,
    tokens_per_second: f64,
    /// When and at which step it began or went on.
    begun: (Instant, u64),
    next_line: Instant,
}

impl Run {
    /// Seconds left at the speed so far, once there is one to go by.
    fn left(&self) -> Option<f64> {
        let (at, step) = self.begun;
        let (done, seconds) = (self.step.saturating_sub(step), at.elapsed().as_secs_f64());
        let ahead = self.steps.saturating_sub(self.step);
        (done > 0 && seconds > 0.5).then(|| ahead as f64 * seconds / done as f64)
    }

    /// `step 500/2000, loss 2.1034, 41.2 k tokens/s`; `evaluating` is the percentage of an evaluation under way.
    fn line(&self, evaluating: Option<usize>, step: &str, speed: &str) -> String {
        let mut line = format!("{step}{}/{}", self.step, self.steps);
        if let Some(loss) = self.loss {
            line += &format!(", loss {loss:.4}");
        }
        if let Some(percent) = evaluating {
            line += &format!(", evaluating {percent} %");
        } else if self.tokens_per_second > 0.0 {
            line += &format!(", {} {speed}", short(self.tokens_per_second));
        }
        line
    }
}

/// Progress of training: a run, or the trials of a study, several of them at once.
pub(crate) struct Training {
    bars: Option<MultiProgress>,
    /// Below the trials: how far the study is.
    total: Option<ProgressBar>,
    runs: BTreeMap<usize, Run>,
    /// Trials in all, and how many of them are over; none for a single run.
    trials: Option<(usize, usize)>,
    /// Seconds until the study is done.
    left: Option<f64>,
    /// Whether the user knows that a signal has been seen.
    interrupted: bool,
}

impl Training {
    /// Nothing done yet.
    pub(crate) fn new() -> Self {
        let bars = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self {
            bars: std::io::stderr().is_terminal().then(bars),
            total: None,
            runs: BTreeMap::new(),
            trials: None,
            left: None,
            interrupted: false,
        }
    }

    /// There are so many trials, and so many of them are over.
    pub(crate) fn study(&mut self, trials: usize, over: usize) {
        self.trials = Some((trials, over));
        if let Some(bars) = &self.bars {
            let total = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            total.set_style(style("{wide_msg}"));
            self.total = Some(bars.add(total));
            self.show_total();
        }
    }

    /// A run begins, whose events come with this number.
    pub(crate) fn begin(&mut self, number: usize, label: String) {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            bar.set_style(style("[{bar:8}] {wide_msg}"));
            match &self.total {
                Some(total) => bars.insert_before(total, bar),
                None => bars.add(bar),
            }
        });
        let run = Run {
            label,
            bar,
            step: 0,
            steps: 0,
            loss: None,
            tokens_per_second: 0.0,
            begun: (Instant::now(), 0),
            next_line: Instant::now(),
        };
        self.runs.insert(number, run);
    }

    /// Shows what happened in a run.
    pub(crate) fn event(&mut self, number: usize, event: &Event, signals: &Signals) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        match event {
            Event::Started { step, steps, parameters, .. } => {
                (run.step, run.steps, run.begun) = (*step, *steps, (Instant::now(), *step));
                if let Some(bar) = &run.bar {
                    bar.set_length(*steps);
                    self.show(number, None);
                } else if *step > 0 {
                    self.plain(number, &format!("going on at step {step} of {steps}"));
                } else {
                    // With a budget of time nobody knows yet.
                    let steps = if *steps > 0 { format!("{steps} steps, ") } else { String::new() };
                    self.plain(number, &format!("{steps}{} parameters", short(*parameters as f64)));
                }
            }
            Event::Step { step, steps, loss, tokens_per_second } => {
                (run.step, run.steps, run.loss) = (*step, *steps, Some(*loss));
                run.tokens_per_second = *tokens_per_second;
                if let Some(bar) = &run.bar {
                    bar.set_length(*steps);
                }
                self.show(number, None);
            }
            Event::Evaluating { step, done, characters } => {
                run.step = *step;
                self.show(number, Some((100 * done / (*characters).max(1)) as usize));
            }
            Event::Evaluated(point) => {
                (run.step, run.loss) = (point.step, Some(point.train_loss));
                if run.bar.is_some() {
                    self.show(number, None);
                } else {
                    let line =
                        format!("{}, validation loss {:.4}", self.line(number, None), point.validation_loss);
                    self.plain(number, &line);
                }
            }
            Event::Checkpoint { .. } | Event::Spans(_) => {}
            Event::Note(text) => {
                let text = if run.label.is_empty() { text.clone() } else { format!("{}: {text}", run.label) };
                self.say(&text);
            }
        }
        if signals.raised() && !self.interrupted {
            self.interrupted = true;
            let what = if self.runs.len() > 1 { "checkpoints are" } else { "a checkpoint is" };
            self.say(&format!("stopping: {what} written after this step; a second signal stops at once"));
        }
    }

    /// The whole study takes so many seconds more.
    pub(crate) fn left(&mut self, seconds: f64) {
        self.left = Some(seconds);
        self.show_total();
    }

    /// A run has ended, or was stopped, which `text` says.
    pub(crate) fn end(&mut self, number: usize, text: &str) {
        if let Some((_, over)) = &mut self.trials {
            *over += 1;
        }
        self.leave(number, text);
    }

    /// A run is not at work for now, which `text` says.
    pub(crate) fn leave(&mut self, number: usize, text: &str) {
        if let Some((bars, bar)) = self.bars.as_ref().zip(self.runs.remove(&number).and_then(|run| run.bar)) {
            bars.remove(&bar);
        }
        self.say(text);
        self.show_total();
    }

    /// So many of the trials are over.
    pub(crate) fn over(&mut self, trials: usize) {
        if let Some((_, over)) = &mut self.trials {
            *over = trials;
        }
        self.show_total();
    }

    fn show_total(&self) {
        if let (Some(total), Some((trials, over))) = (&self.total, self.trials) {
            let left = self.left.map(|left| format!(", {} left", duration(left))).unwrap_or_default();
            total.set_message(format!("{over} of {trials} trials done{left}"));
        }
    }

    /// Shows where a run is.
    fn show(&mut self, number: usize, evaluating: Option<usize>) {
        let Some(run) = self.runs.get(&number) else { return };
        if let Some(bar) = &run.bar {
            let line = if run.label.is_empty() {
                self.line(number, evaluating)
            } else {
                let numbers = run.line(evaluating, "", "/s");
                let width = usize::from(console::Term::stderr().size().1);
                // The brackets, the bar, two spaces and a colon.
                let room = width.saturating_sub(13 + numbers.chars().count()).max(8);
                format!(
                    "{}: {numbers}",
                    console::truncate_str(run.label.trim_start_matches("trial "), room, "...")
                )
            };
            bar.set_message(line);
            bar.set_position(run.step);
        } else if Instant::now() >= run.next_line {
            self.plain(number, &self.line(number, evaluating));
        }
    }

    /// Something to be said at once.
    pub(crate) fn say(&self, text: &str) {
        match &self.bars {
            // `suspend` would panic where the terminal is gone, in the middle of a hangup's checkpoint.
            Some(bars) => {
                let _ = bars.println(text);
            }
            None => note(text),
        }
    }

    /// Takes the bars away.
    pub(crate) fn finish(&mut self) {
        if let Some(bars) = self.bars.take() {
            // A terminal that is gone needs no cleaning.
            let _ = bars.clear();
        }
    }

    fn plain(&mut self, number: usize, line: &str) {
        // Several at once share the lines.
        let pause = Duration::from_secs_f64(LINE_SECONDS * self.runs.len() as f64);
        let Some(run) = self.runs.get_mut(&number) else { return };
        let label = if run.label.is_empty() { String::new() } else { format!("{}: ", run.label) };
        note(&format!("{label}{line}"));
        run.next_line = Instant::now() + pause;
    }

    /// Where a run is, and how long everything still takes.
    fn line(&self, number: usize, evaluating: Option<usize>) -> String {
        let Some(run) = self.runs.get(&number) else { return String::new() };
        let mut line = run.line(evaluating, "step ", "tokens/s");
        if self.trials.is_some() {
            if let Some(left) = self.left {
                line += &format!(", {} left in all", duration(left));
            }
        } else if let Some(left) = run.left() {
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
            "{wide_msg}",
            "[{bar:8}] {wide_msg}",
            "{msg} [{bar:28}] {human_pos}/{human_len} {eta} left",
            "{msg} [{bar:28}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn the_time_left_of_a_run_is_at_the_speed_so_far() {
        let ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let mut run = Run {
            label: String::new(),
            bar: None,
            step: 60,
            steps: 110,
            loss: Some(2.10341),
            tokens_per_second: 41_234.0,
            begun: (ago, 10),
            next_line: ago,
        };
        assert!((9.9..12.0).contains(&run.left().unwrap()));
        assert_eq!(run.line(None, "step ", "tokens/s"), "step 60/110, loss 2.1034, 41.2 k tokens/s");
        assert_eq!(run.line(Some(25), "", "/s"), "60/110, loss 2.1034, evaluating 25 %");
        run.begun.1 = 60;
        assert_eq!(run.left(), None);
    }
}
