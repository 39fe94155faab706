//! A loss curve in a few characters: `█▇▅▃▂▂▁▁······`.
//!
//! The line stands for all steps of a run, from the first to the last, so it says two things at once: how the loss has
//! fallen, and how far the run is. Each place holds the mean of the training losses that fell into its share of the
//! steps. Heights are logarithms of the loss, since a curve that falls by halves would be flat after its first tenth.

/// Places that are remembered. More than a line ever has; what is drawn is a mean of several.
const PLACES: usize = 120;

/// Heights, lowest first.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PLAIN: [char; 6] = ['_', '.', '-', '=', '*', '#'];

/// The training losses of a run so far.
#[derive(Clone, Debug)]
pub(crate) struct Sparkline {
    steps: u64,
    /// Sum and number of the losses of each place.
    places: Vec<(f64, u32)>,
    /// The last place that has been reached.
    reached: usize,
}

impl Sparkline {
    /// Of a run of so many steps, of which `done` were done before: nothing is known of their losses.
    pub(crate) fn new(steps: u64, done: u64) -> Self {
        let mut line = Self { steps: steps.max(1), places: vec![(0.0, 0); PLACES], reached: 0 };
        line.reached = line.place(done);
        line
    }

    /// How many steps it stands for.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The loss of a step. What is no number has no height.
    pub(crate) fn add(&mut self, step: u64, loss: f64) {
        let place = self.place(step);
        self.reached = self.reached.max(place);
        if loss.is_finite() && loss > 0.0 {
            self.places[place].0 += loss;
            self.places[place].1 += 1;
        }
    }

    fn place(&self, step: u64) -> usize {
        let place = step.saturating_sub(1) as u128 * PLACES as u128 / u128::from(self.steps);
        (place as usize).min(PLACES - 1)
    }

    /// The curve in `width` characters: a space where nothing is known, a dot for what lies ahead.
    pub(crate) fn draw(&self, width: usize, unicode: bool) -> String {
        let width = width.clamp(1, PLACES);
        let mut heights: Vec<Option<f64>> = (0..width).map(|i| self.height(i, width)).collect();
        // Not every step is told. What lies between two that were is about as high as the one before.
        let told = heights.iter().rposition(Option::is_some).unwrap_or(0);
        for i in 1..told {
            heights[i] = heights[i].or(heights[i - 1]);
        }
        let (low, high) = heights
            .iter()
            .flatten()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), h| (low.min(*h), high.max(*h)));
        let levels: &[char] = if unicode { &BLOCKS } else { &PLAIN };
        let top = levels.len() - 1;
        let ahead = if unicode { '·' } else { ' ' };
        let reached = self.reached * width / PLACES;
        let mut line = String::new();
        for (i, height) in heights.iter().enumerate() {
            line.push(match height {
                // One height alone is the highest so far.
                Some(height) if high > low => {
                    levels[((height - low) / (high - low) * top as f64).round() as usize]
                }
                Some(_) => levels[top],
                None if i > reached => ahead,
                None => ' ',
            });
        }
        line
    }

    /// The height of a drawn place: the logarithm of the mean loss of the places that it stands for.
    fn height(&self, i: usize, width: usize) -> Option<f64> {
        let (first, end) = (i * PLACES / width, ((i + 1) * PLACES / width).min(PLACES));
        let (sum, count) = self.places[first..end]
            .iter()
            .fold((0.0, 0), |(sum, count), place| (sum + place.0, count + place.1));
        (count > 0).then(|| (sum / f64::from(count)).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_falls_from_left_to_right() {
        let mut line = Sparkline::new(160, 0);
        for step in 1..=80 {
            line.add(step, 8.0 * 0.5f64.powf(step as f64 / 40.0));
        }
        assert_eq!(line.draw(16, true), "█▇▆▅▄▃▂▁········");
        assert_eq!(line.draw(16, false), "#**=-.._        ");
        assert_eq!(line.draw(4, true).chars().count(), 4);
        assert_eq!(line.draw(10_000, true).chars().count(), PLACES);
    }

    #[test]
    fn what_is_not_known_is_blank() {
        let mut line = Sparkline::new(100, 50);
        assert_eq!(line.draw(10, true), "     ·····");
        line.add(51, 2.0);
        line.add(60, f64::NAN);
        line.add(61, f64::INFINITY);
        assert_eq!(line.draw(10, true), "     █ ···");
        // Further than was planned, and nothing planned at all.
        line.add(1_000, 1.0);
        assert_eq!(line.draw(10, true), "     ████▁");
        let mut line = Sparkline::new(0, 0);
        line.add(u64::MAX, 1.0);
        assert_eq!(line.draw(3, false), "  #");
    }
}
