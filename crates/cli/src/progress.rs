//! Progress, on stderr: a screen for people, plain lines for logs.
//!
//! On a terminal each run at work has a line with its curve so far, below it is how far the study is, and above it stays
//! what is over. Otherwise a line appears at every evaluation and now and then between, so that a log file stays
//! readable and a silent hour never happens. Nothing is coloured, so there is nothing for NO_COLOR to take away.
//!
//! The time left is that of the whole study, which the study works out; of a single run, it is what remains of its steps
//! at the speed so far. Patience may end a trial before.

use crate::failure::note;
use crate::screen::{self, Screen};
use crate::signals::Signals;
use crate::sparkline::Sparkline;
use diapason_training::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Seconds between two plain lines of the same trial.
const LINE_SECONDS: f64 = 15.0;

/// Shortest time between two pictures of the screen.
const PICTURE: Duration = Duration::from_millis(100);

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
    step: u64,
    steps: u64,
    /// Training loss of the last step, or the mean since the last evaluation, once there was one.
    loss: Option<f64>,
    /// The last validation loss.
    validation_loss: Option<f64>,
    /// How far an evaluation is that is under way, per cent.
    evaluating: Option<u64>,
    tokens_per_second: f64,
    curve: Sparkline,
    /// When and at which step it began or went on.
    begun: (Instant, u64),
    next_line: Instant,
}

impl Run {
    fn new(label: String, curve: Sparkline) -> Self {
        Self {
            label,
            step: 0,
            steps: 0,
            loss: None,
            validation_loss: None,
            evaluating: None,
            tokens_per_second: 0.0,
            curve,
            begun: (Instant::now(), 0),
            next_line: Instant::now(),
        }
    }

    /// Takes in what happened.
    fn event(&mut self, event: &Event) {
        self.evaluating = None;
        match event {
            Event::Started { step, steps, .. } => {
                (self.step, self.steps, self.begun) = (*step, *steps, (Instant::now(), *step));
                // What goes on after a wait has its curve still.
                if *step == 0 || self.curve.steps() != *steps {
                    self.curve = Sparkline::new(*steps, *step);
                }
            }
            Event::Step { step, steps, loss, tokens_per_second } => {
                (self.step, self.steps, self.loss) = (*step, *steps, Some(*loss));
                self.tokens_per_second = *tokens_per_second;
                self.curve.add(*step, *loss);
            }
            Event::Evaluating { step, done, characters } => {
                self.step = *step;
                self.evaluating = Some(100 * done / (*characters).max(1));
            }
            Event::Evaluated(point) => {
                (self.step, self.loss) = (point.step, Some(point.train_loss));
                self.validation_loss = Some(point.validation_loss);
            }
            Event::Checkpoint { .. } | Event::Spans(_) | Event::Note(_) => {}
        }
        // With a budget of time the number of steps is an estimate, and of a moment ago.
        self.steps = self.steps.max(self.step);
    }

    /// Seconds left at the speed so far, once there is one to go by.
    fn left(&self) -> Option<f64> {
        let (at, step) = self.begun;
        let (done, seconds) = (self.step.saturating_sub(step), at.elapsed().as_secs_f64());
        let ahead = self.steps.saturating_sub(self.step);
        (done > 0 && seconds > 0.5).then(|| ahead as f64 * seconds / done as f64)
    }

    /// `step 500/2000, loss 2.1034, 41.2 k tokens/s`.
    fn line(&self) -> String {
        let mut line = format!("step {}/{}", self.step, self.steps);
        if let Some(loss) = self.loss {
            line += &format!(", loss {loss:.4}");
        }
        if let Some(percent) = self.evaluating {
            line += &format!(", evaluating {percent} %");
        } else if self.tokens_per_second > 0.0 {
            line += &format!(", {} tokens/s", short(self.tokens_per_second));
        }
        line
    }

    /// What stands behind the curve on the screen, what matters most first.
    fn columns(&self) -> [String; 5] {
        let share = 100.0 * self.step as f64 / self.steps.max(1) as f64;
        let loss =
            |name: &str, loss: Option<f64>| loss.map(|loss| format!("{name} {loss:.4}")).unwrap_or_default();
        let speed = match self.evaluating {
            Some(percent) => format!("evaluating {percent} %"),
            None if self.tokens_per_second > 0.0 => format!("{}/s", short(self.tokens_per_second)),
            None => String::new(),
        };
        [
            format!("{share:.0} %"),
            loss("loss", self.loss),
            loss("validation", self.validation_loss),
            speed,
            format!("step {}/{}", self.step, self.steps),
        ]
    }
}

/// Shortest and longest curve on the screen, characters.
const CURVE: std::ops::RangeInclusive<usize> = 10..=32;

/// A line for each run: what it is, its curve, and of the numbers as many as fit, each kind below the other. Names are cut
/// only where even the loss does not fit beside them.
fn lines(runs: &[&Run], width: usize, unicode: bool) -> Vec<String> {
    let labels: Vec<&str> = runs.iter().map(|run| run.label.trim_start_matches("trial ")).collect();
    let columns: Vec<[String; 5]> = runs.iter().map(|run| run.columns()).collect();
    let widest = |of: &dyn Fn(usize) -> usize| (0..runs.len()).map(of).max().unwrap_or(0);
    let name = widest(&|i| console::measure_text_width(labels[i]));
    let after = |name: usize| if name > 0 { name + 2 } else { 0 };
    let of_column: Vec<usize> = (0..5).map(|c| widest(&|i| columns[i][c].chars().count())).collect();
    let mut shown = Vec::new();
    let mut needed = after(name) + CURVE.start();
    for (c, width_of) in of_column.iter().enumerate().filter(|(_, width)| **width > 0) {
        // Share and loss are always there.
        if c > 1 && needed + 2 + width_of > width {
            break;
        }
        needed += 2 + width_of;
        shown.push(c);
    }
    let too_much = needed.saturating_sub(width);
    let name = name.saturating_sub(too_much).max(name.min(8));
    let curve = (CURVE.start() + width.saturating_sub(needed)).min(*CURVE.end());
    let dots = if unicode { "…" } else { "..." };
    let line = |i: usize| {
        let mut line = String::new();
        if name > 0 {
            let label = console::truncate_str(labels[i], name, dots);
            line += &console::pad_str(&label, after(name), console::Alignment::Left, None);
        }
        line += &runs[i].curve.draw(curve, unicode);
        for &c in &shown {
            line += &format!("  {:>1$}", columns[i][c], of_column[c]);
        }
        line.trim_end().to_string()
    };
    (0..runs.len()).map(line).collect()
}

/// Progress of training: a run, or the trials of a study, several of them at once.
pub(crate) struct Training {
    /// None where stderr is no terminal.
    screen: Option<Screen>,
    unicode: bool,
    /// When the screen was drawn last.
    drawn: Option<Instant>,
    runs: BTreeMap<usize, Run>,
    /// The curves of those that are not at work for now.
    waiting: BTreeMap<usize, Sparkline>,
    /// Trials in all, and how many of them are over; none for a single run.
    trials: Option<(usize, usize)>,
    begun: Instant,
    /// Seconds until the study is done, and when that was said.
    left: Option<(f64, Instant)>,
    /// Whether the user knows that a signal has been seen.
    interrupted: bool,
}

impl Training {
    /// Nothing done yet.
    pub(crate) fn new() -> Self {
        Self {
            screen: Screen::new(),
            unicode: screen::unicode(),
            drawn: None,
            runs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            trials: None,
            begun: Instant::now(),
            left: None,
            interrupted: false,
        }
    }

    /// There are so many trials, and so many of them are over.
    pub(crate) fn study(&mut self, trials: usize, over: usize) {
        // A study that gets more trials on the way is still the same.
        if self.trials.is_none() {
            self.begun = Instant::now();
        }
        self.trials = Some((trials, over));
        self.draw("");
    }

    /// A run begins, whose events come with this number.
    pub(crate) fn begin(&mut self, number: usize, label: String) {
        let curve = self.waiting.remove(&number).unwrap_or(Sparkline::new(0, 0));
        self.runs.insert(number, Run::new(label, curve));
    }

    /// Shows what happened in a run.
    pub(crate) fn event(&mut self, number: usize, event: &Event, signals: &Signals) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        run.event(event);
        match event {
            Event::Note(text) if run.label.is_empty() => self.say(text),
            Event::Note(text) => {
                let text = format!("{}: {text}", run.label);
                self.say(&text);
            }
            _ if self.screen.is_some() => self.draw_soon(),
            Event::Started { step, steps, parameters, .. } => {
                let line = match step {
                    // With a budget of time nobody knows yet how many.
                    0 if *steps == 0 => format!("{} parameters", short(*parameters as f64)),
                    0 => format!("{steps} steps, {} parameters", short(*parameters as f64)),
                    step => format!("going on at step {step} of {steps}"),
                };
                self.plain(number, &line);
            }
            Event::Evaluated(point) => {
                let line = format!("{}, validation loss {:.4}", self.line(number), point.validation_loss);
                self.plain(number, &line);
            }
            Event::Step { .. } | Event::Evaluating { .. } if Instant::now() >= run.next_line => {
                self.plain(number, &self.line(number));
            }
            _ => {}
        }
        if signals.raised() && !self.interrupted {
            self.interrupted = true;
            let what = if self.runs.len() > 1 { "checkpoints are" } else { "a checkpoint is" };
            self.say(&format!("stopping: {what} written after this step; a second signal stops at once"));
        }
    }

    /// The whole study takes so many seconds more.
    pub(crate) fn left(&mut self, seconds: f64) {
        self.left = Some((seconds, Instant::now()));
        self.draw_soon();
    }

    /// A run has ended, or was stopped, which `text` says.
    pub(crate) fn end(&mut self, number: usize, text: &str) {
        if let Some((_, over)) = &mut self.trials {
            *over += 1;
        }
        self.leave(number, text);
        self.waiting.remove(&number);
    }

    /// A run is not at work for now, which `text` says.
    pub(crate) fn leave(&mut self, number: usize, text: &str) {
        if let Some(run) = self.runs.remove(&number) {
            self.waiting.insert(number, run.curve);
        }
        self.say(text);
    }

    /// So many of the trials are over.
    pub(crate) fn over(&mut self, trials: usize) {
        if let Some((_, over)) = &mut self.trials {
            *over = trials;
        }
        self.draw_soon();
    }

    /// Something to be said at once.
    pub(crate) fn say(&mut self, text: &str) {
        match &self.screen {
            Some(_) => self.draw(text),
            None => note(text),
        }
    }

    /// Takes the lines away.
    pub(crate) fn finish(&mut self) {
        if let Some(mut screen) = self.screen.take() {
            screen.draw("", &[]);
        }
    }

    /// Draws the screen, unless that was a moment ago: the next event will.
    fn draw_soon(&mut self) {
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= PICTURE) {
            self.draw("");
        }
    }

    /// Draws the screen, with `above` before it, which stays.
    fn draw(&mut self, above: &str) {
        let Some(screen) = &self.screen else { return };
        let (rows, columns) = screen.size();
        let runs: Vec<&Run> = self.runs.values().collect();
        // Everything is in one window: a row for what stays above, and one for the last line.
        let room = rows.saturating_sub(2).max(1);
        let shown = if runs.len() > room { room - 1 } else { runs.len() };
        let mut lines = lines(&runs[..shown], columns - 1, self.unicode);
        if shown < runs.len() {
            lines.push(format!("and {} more at work", runs.len() - shown));
        }
        lines.extend(self.last_line());
        if let Some(screen) = &mut self.screen {
            screen.draw(above, &lines);
        }
        self.drawn = Some(Instant::now());
    }

    /// How far everything is.
    fn last_line(&self) -> Option<String> {
        let so_far = duration(self.begun.elapsed().as_secs_f64());
        match self.trials {
            Some((trials, over)) => {
                let left = match self.left {
                    // Time goes by between two estimates.
                    Some((left, said)) => {
                        format!("about {} left", duration(left - said.elapsed().as_secs_f64()))
                    }
                    None => "time left not known yet".to_string(),
                };
                Some(format!("{over} of {trials} trials done, {so_far} so far, {left}"))
            }
            None => {
                let left = self.runs.values().next()?.left()?;
                Some(format!("{so_far} so far, about {} left", duration(left)))
            }
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
    fn line(&self, number: usize) -> String {
        let Some(run) = self.runs.get(&number) else { return String::new() };
        let mut line = run.line();
        if self.trials.is_some() {
            if let Some((left, _)) = self.left {
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
            "{msg} [{bar:28}] {human_pos}/{human_len} {eta} left",
            "{msg} [{bar:28}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    fn run(label: &str, step: u64) -> Run {
        let mut run = Run::new(label.to_string(), Sparkline::new(0, 0));
        run.event(&Event::Started { step: 0, steps: 2_000, parameters: 1, evaluations: 1 });
        for step in 1..=step {
            let loss = 1.0 + 10.0 / (step as f64 + 3.0);
            run.event(&Event::Step { step, steps: 2_000, loss, tokens_per_second: 41_234.0 });
        }
        run
    }

    #[test]
    fn the_time_left_of_a_run_is_at_the_speed_so_far() {
        let mut run = run("", 1_100);
        run.begun = (Instant::now().checked_sub(Duration::from_secs(10)).unwrap(), 100);
        assert!((8.9..10.0).contains(&run.left().unwrap()));
        assert_eq!(run.line(), "step 1100/2000, loss 1.0091, 41.2 k tokens/s");
        run.event(&Event::Evaluating { step: 1_100, done: 1, characters: 4 });
        assert_eq!(run.line(), "step 1100/2000, loss 1.0091, evaluating 25 %");
        run.begun.1 = 1_100;
        assert_eq!(run.left(), None);
    }

    #[test]
    fn there_are_never_more_steps_done_than_there_are() {
        let mut run = run("", 2_000);
        run.event(&Event::Evaluating { step: 2_001, done: 1, characters: 4 });
        assert!(run.line().starts_with("step 2001/2001, "), "{}", run.line());
        assert_eq!(run.columns()[0], "100 %");
    }

    #[test]
    fn a_line_for_each_run_with_as_many_numbers_as_fit() {
        let (first, mut second) = (run("trial 1/16 d_model=64", 900), run("trial 12/16 d_model=128", 90));
        second.validation_loss = Some(1.2);
        second.evaluating = Some(25);
        let runs = [&first, &second];
        let drawn = |width, unicode| format!("\n{}\n", lines(&runs, width, unicode).join("\n"));
        let shown = [drawn(120, true), drawn(79, true), drawn(59, false), drawn(30, true)].concat();
        assert_eq!(
            shown,
            "
1/16 d_model=64    █▃▂▂▁▁▁▁▁▁▁▁▁▁·················  45 %  loss 1.0111                            41.2 k/s  step 900/2000
12/16 d_model=128  █▁·····························   4 %  loss 1.1075  validation 1.2000  evaluating 25 %   step 90/2000

1/16 d_model=64    █▂▂▁▁▁▁▁▁▁············  45 %  loss 1.0111
12/16 d_model=128  █▁····················   4 %  loss 1.1075  validation 1.2000

1/16 d_model=64    #.________             45 %  loss 1.0111
12/16 d_model=128  #_                      4 %  loss 1.1075

1/16 d_…  █▂▁▁▁·····  45 %  loss 1.0111
12/16 d…  █·········   4 %  loss 1.1075
"
        );
        for width in 20..200 {
            let lines = lines(&runs, width, true);
            assert!(
                width < 40 || lines.iter().all(|line| console::measure_text_width(line) <= width),
                "{lines:?}"
            );
        }
        assert!(lines(&[], 80, true).is_empty());
    }

    #[test]
    fn a_run_that_waited_keeps_its_curve() {
        let mut progress = Training::new();
        progress.begin(3, "trial 4/9 x=1".to_string());
        progress.runs.insert(3, run("trial 4/9 x=1", 500));
        let before = progress.runs[&3].curve.draw(8, true);
        progress.leave(3, "it waits");
        progress.begin(3, "trial 4/9 x=1".to_string());
        let goes_on = Event::Started { step: 500, steps: 2_000, parameters: 1, evaluations: 1 };
        progress.runs.get_mut(&3).unwrap().event(&goes_on);
        assert_eq!(progress.runs[&3].curve.draw(8, true), before);
        progress.end(3, "it is done");
        assert!(progress.waiting.is_empty() && progress.runs.is_empty());
    }
}
