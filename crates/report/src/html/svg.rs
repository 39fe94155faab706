//! Plots as SVG: axes, ticks, places.
//!
//! A plot of this report is some lines, points and bars in a frame with two axes, and that is all that is written
//! here. Colours and widths are classes of the page's style, so that a plot is light or dark with the page. Plots
//! are small on purpose: on a telephone one fills the width, and its letters are still legible.

use super::markup::text;
use std::fmt::Write;

/// Size of a plot, in its own units, and the room that is left for numbers at the axes.
pub(super) const WIDTH: f64 = 480.0;
pub(super) const HEIGHT: f64 = 330.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// Ticks that an axis has at least, if its range allows.
const TICKS: f64 = 4.0;

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    label: String,
}

impl Axis {
    /// An axis that has room for all `values`; on a logarithmic one only those above zero count. `margin` is what is
    /// left free at both ends, as a fraction. None if there is no value to show.
    pub(super) fn over(
        values: impl IntoIterator<Item = f64>,
        log: bool,
        margin: f64,
        label: &str,
    ) -> Option<Self> {
        let of = |value: f64| if log { value.ln() } else { value };
        let shown = values.into_iter().filter(|value| value.is_finite() && (!log || *value > 0.0)).map(of);
        let (low, high) = shown
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        // One value alone stands in the middle.
        let room = if high > low { margin * (high - low) } else { (0.05 * low.abs()).max(0.05) };
        Some(Self { low: low - room, high: high + room, log, label: label.to_string() })
    }

    /// Where a value stands: 0 at the lower end, 1 at the upper. None for what is no number, or has no logarithm.
    fn place(&self, value: f64) -> Option<f64> {
        let value = if self.log { value.ln() } else { value };
        value.is_finite().then(|| (value - self.low) / (self.high - self.low))
    }

    /// Round values to write at the axis.
    fn ticks(&self) -> Vec<(f64, String)> {
        let (low, high) = if self.log { (self.low.exp(), self.high.exp()) } else { (self.low, self.high) };
        let mut values = Vec::new();
        let decades = self.log && high / low > 5.0;
        if decades {
            // 1, 10, 100, ... and what lies between if these are few.
            let decades = (high / low).log10();
            let factors: &[f64] = match decades {
                d if d > 6.0 => &[1.0],
                d if d > 2.5 => &[1.0, 3.0],
                _ => &[1.0, 2.0, 5.0],
            };
            let every = if decades > 12.0 { (decades / 6.0).ceil() as i32 } else { 1 };
            let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
            let exponents = (first..=last).filter(|exponent| exponent % every == 0);
            values.extend(exponents.flat_map(|e| factors.iter().map(move |f| f * 10f64.powi(e))));
        } else {
            let step = round_step((high - low) / TICKS);
            let first = (low / step).ceil();
            let most = ((high - low) / step) as usize + 1;
            values.extend((0..most).map(|i| (first + i as f64) * step));
        }
        // The ends belong to it, whatever a logarithm and its inverse make of them.
        values.retain(|value| self.place(*value).is_some_and(|place| (-1e-9..=1.0 + 1e-9).contains(&place)));
        let step = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        // On a logarithmic axis each number has its own digits: 0.3, 1, 3.
        let digits = |value: f64| if decades { value.abs() } else { step.min(value.abs()) };
        values.into_iter().map(|value| (value, tick(value, digits(value)))).collect()
    }
}

/// 1, 2 or 5 times a power of ten, not above `step` if that is positive.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [5.0, 2.0].into_iter().find(|factor| factor * power <= step).unwrap_or(1.0);
    factor * power
}

/// A number at an axis whose numbers differ by `step`.
fn tick(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".to_string();
    }
    if value.abs() >= 1e6 || value.abs() < 1e-3 {
        let text = format!("{value:.1e}");
        return text.replace(".0e", "e");
    }
    let decimals =
        if step.is_finite() && step > 0.0 { (-(step.log10() + 1e-9).floor()).clamp(0.0, 6.0) } else { 3.0 };
    let text = format!("{value:.*}", decimals as usize);
    match text.split_once('.') {
        Some((whole, rest)) => format!("{whole}.{rest}"),
        None => crate::summary::thousands_of(&text),
    }
}

/// A frame with two axes, to put marks into.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    x: Axis,
    y: Axis,
    height: f64,
}

impl Frame {
    pub(super) fn new(x: Axis, y: Axis) -> Self {
        Self { x, y, height: HEIGHT }
    }

    /// The same with another height.
    pub(super) fn of_height(self, height: f64) -> Self {
        Self { height, ..self }
    }

    /// Where a horizontal value stands, in units of the plot.
    pub(super) fn x(&self, value: f64) -> Option<f64> {
        self.x.place(value).map(|place| LEFT + place * (WIDTH - LEFT - RIGHT))
    }

    /// Where a vertical value stands.
    pub(super) fn y(&self, value: f64) -> Option<f64> {
        self.y.place(value).map(|place| self.bottom() - place * (self.bottom() - TOP))
    }

    fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }

    /// The lines of a polyline's points.
    pub(super) fn points(&self, values: impl IntoIterator<Item = (f64, f64)>) -> String {
        let mut points = String::new();
        for (x, y) in values {
            if let (Some(x), Some(y)) = (self.x(x), self.y(y)) {
                let space = if points.is_empty() { "" } else { " " };
                // Far above the frame is as good as anywhere above it.
                let _ = write!(points, "{space}{x:.1},{:.1}", y.clamp(-9e3, 9e3));
            }
        }
        points
    }

    /// A line across the frame at a height, with a word above its left end: where costs are low, losses are rarely.
    pub(super) fn level(&self, value: f64, class: &str, label: &str) -> String {
        let Some(y) = self.y(value) else { return String::new() };
        format!(
            "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"note\" x=\"{}\" y=\"{:.1}\">{}</text>\n",
            WIDTH - RIGHT,
            LEFT + 4.0,
            y - 4.0,
            text(label)
        )
    }

    /// A line from top to bottom at a horizontal value.
    pub(super) fn vertical(&self, value: f64, class: &str, told: &str) -> String {
        let Some(x) = self.x(value) else { return String::new() };
        format!(
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"><title>{}</title></line>\n",
            self.bottom(),
            text(told)
        )
    }

    /// The axes with their grid, ticks and labels. `rows`: what is written at the left instead of numbers, with the
    /// vertical value where.
    pub(super) fn axes(&self, rows: Option<&[(f64, String)]>) -> String {
        let mut svg = String::new();
        let (bottom, right) = (self.bottom(), WIDTH - RIGHT);
        let mut last = f64::NEG_INFINITY;
        for (value, tick) in self.x.ticks() {
            let Some(x) = self.x(value) else { continue };
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>"
            );
            // Numbers that would run into each other are left out.
            let half = 3.6 * tick.chars().count() as f64;
            if x - half > last + 4.0 && x + half < WIDTH {
                last = x + half;
                let _ = write!(
                    svg,
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    bottom + 17.0,
                    text(&tick)
                );
            }
        }
        let numbers = self.y.ticks();
        for (value, tick) in rows.unwrap_or(&numbers) {
            let Some(y) = self.y(*value) else { continue };
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                text(tick)
            );
        }
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom:.1}H{right}\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"label\" transform=\"translate(13 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            self.height - 8.0,
            text(&self.x.label),
            (TOP + bottom) / 2.0,
            text(&self.y.label)
        );
        svg
    }

    /// What is inside the frame, cut off at its edges. `id` names the frame, once in a page.
    pub(super) fn inside(&self, id: &str, marks: &str) -> String {
        format!(
            "<clipPath id=\"{id}\"><rect x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>\
             <g clip-path=\"url(#{id})\">\n{marks}</g>\n",
            TOP - 6.0,
            WIDTH - LEFT - RIGHT + 8.0,
            self.bottom() - TOP + 6.0
        )
    }
}

/// A plot as a figure. `told` is the alternative in words, `caption` stands below it and is text.
pub(super) fn figure(
    class: &str,
    height: f64,
    told: &str,
    heading: &str,
    marks: &str,
    caption: &str,
) -> String {
    format!(
        "<figure class=\"{class}\">\n<h3>{}</h3>\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n\
         {marks}</svg>\n<figcaption>{}</figcaption>\n</figure>\n",
        text(heading),
        text(told),
        text(caption)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(low: f64, high: f64, log: bool) -> Vec<String> {
        Axis::over([low, high], log, 0.0, "").unwrap().ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 20_000.0, false), ["0", "5,000", "10,000", "15,000", "20,000"]);
        assert_eq!(ticks(1.31, 1.35, false), ["1.31", "1.32", "1.33", "1.34", "1.35"]);
        assert_eq!(
            ticks(100.0, 20_000.0, true),
            ["100", "200", "500", "1,000", "2,000", "5,000", "10,000", "20,000"]
        );
        assert_eq!(ticks(0.25, 400.0, true), ["0.3", "1", "3", "10", "30", "100", "300"]);
        assert_eq!(ticks(2.164, 2.211, false), ["2.17", "2.18", "2.19", "2.20", "2.21"]);
        assert_eq!(ticks(1e12, 1e15, true), ["1e12", "3e12", "1e13", "3e13", "1e14", "3e14", "1e15"]);
        assert!(!ticks(1.3, 1.9, true).is_empty());
        assert!(ticks(-3.0, 3.0, false).contains(&"0".to_string()));
        // As far as numbers go.
        assert!(ticks(1e-300, 1e300, true).len() < 50);
        assert!(ticks(-1e300, 1e300, false).len() < 50);
    }

    #[test]
    fn what_has_no_place_is_left_out() {
        let frame = Frame::new(
            Axis::over([0.0, 1.0, 10.0], true, 0.0, "x").unwrap(),
            Axis::over([1.0, 2.0, f64::NAN], false, 0.0, "y").unwrap(),
        );
        assert_eq!(
            frame.points([(0.0, 1.0), (1.0, 1.0), (10.0, f64::NAN), (10.0, 2.0)]),
            "62.0,284.0 458.0,14.0"
        );
        assert_eq!(Axis::over([f64::NAN], false, 0.0, ""), None);
        assert_eq!(Axis::over([0.0], true, 0.0, ""), None);
        // One value alone is a plot too.
        let axis = Axis::over([5.0], false, 0.1, "").unwrap();
        assert_eq!(axis.place(5.0), Some(0.5));
    }
}
