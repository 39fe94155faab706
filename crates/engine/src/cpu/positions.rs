//! Positions that are not learned: tables of sines and cosines, made once.
//!
//! The functions are those of `libm`, in f64 and rounded once, so that every machine has the same numbers.

use diapason_kernels::Buffer;
use diapason_model::{ModelConfig, Positions, angle};

/// The table that a model's positions need, if any.
pub(super) struct Tables {
    /// Sinusoidal: what is added to the embedding [max_len, D]. Rotary: for each position the cosines of a head's half angles, then the
    /// sines [max_len, 2 half].
    numbers: Buffer,
    positions: Positions,
}

impl Tables {
    pub(super) fn new(model: &ModelConfig) -> Self {
        let mut numbers = Buffer::zeroed(Self::len(model));
        let width = numbers.len() / model.max_len;
        let (d, half) = (model.d_model, width / 2);
        if width > 0 {
            for (t, row) in numbers.chunks_exact_mut(width).enumerate() {
                for (i, number) in row.iter_mut().enumerate() {
                    *number = match model.positions {
                        Positions::Sinusoidal => {
                            let angle = angle(t, (i / 2 * 2) as f64 / d as f64);
                            if i % 2 == 0 { libm::sin(angle) } else { libm::cos(angle) }
                        }
                        _ => {
                            let angle = angle(t, (i % half) as f64 / half as f64);
                            if i < half { libm::cos(angle) } else { libm::sin(angle) }
                        }
                    } as f32;
                }
            }
        }
        Self { numbers, positions: model.positions }
    }

    fn len(model: &ModelConfig) -> usize {
        model.max_len
            * match model.positions {
                Positions::Learned | Positions::None => 0,
                Positions::Sinusoidal => model.d_model,
                Positions::Rotary => model.d_model / model.n_heads / 2 * 2,
            }
    }

    /// Bytes that [`Tables::new`] allocates.
    pub(super) fn bytes(model: &ModelConfig) -> usize {
        4 * Self::len(model)
    }

    /// What is added to the embedding.
    pub(super) fn sinusoidal(&self) -> Option<&[f32]> {
        (self.positions == Positions::Sinusoidal).then_some(&self.numbers)
    }

    /// What queries and keys are turned by.
    pub(super) fn turns(&self) -> Option<&[f32]> {
        (self.positions == Positions::Rotary).then_some(&self.numbers)
    }
}
