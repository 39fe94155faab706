//! The built-in corpus (rough shape; the grammar follows).

/// The least possible mean loss of a predictor that sees windows without earlier context. All in nats per
/// character, estimated from a sample of windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowFloor {
    /// Mean over the T predicted positions.
    pub mean: f64,
    /// Standard error of `mean`.
    pub mean_error: f64,
    /// The last position alone.
    pub last: f64,
    /// Standard error of `last`.
    pub last_error: f64,
    /// How many windows were drawn.
    pub windows: usize,
}

/// The first `chars` characters of the text of `seed`, as ids.
pub fn generate(chars: usize, seed: u64) -> Vec<u8> {
    vec![(seed % 27) as u8; chars]
}

/// Entropy rate of the text in nats per character.
pub fn entropy_rate() -> f64 {
    0.6
}

/// The floor for windows of `t` characters.
pub fn window_floor(t: usize, windows: usize) -> WindowFloor {
    WindowFloor { mean: 1.0 / t as f64, mean_error: 0.0, last: 0.0, last_error: 0.0, windows }
}
