//! Initial parameters.

use crate::{Layout, ModelConfig};
use diapason_random::{Purpose, Stream};

/// Standard deviation of a standard normal distribution truncated at two standard deviations.
const TRUNCATED_STD: f64 = 0.879_625_661_034_239_8;

/// Fills a fresh parameter vector, every number drawn from the stream (seed, initialisation, tensor index).
///
/// | tensor | start |
/// |---|---|
/// | `token_embedding` | normal, standard deviation 1/sqrt(D); 1 where `embedding_norm` divides by the size of the sum and the head is not tied |
/// | `ngram_embedding` | 0 |
/// | `position_embedding` | normal, standard deviation 0.02 |
/// | matrices \[in, out\] | LeCun normal: truncated at two standard deviations, variance 1/in |
/// | the same with `zero_init`: `output`, `down`, `head` | 0 |
/// | biases | 0 |
/// | LayerNorm scales | 1 |
/// | `value_residual` | 0.5 |
/// | `embedding_residual` | 1 for the residual stream, 0 for the embedding |
pub fn initialise(model: &ModelConfig, seed: u64) -> Vec<f32> {
    let mut parameters = vec![0.0; model.parameters()];
    initialise_into(model, seed, &mut parameters);
    parameters
}

/// [`initialise`] where the parameters are to be.
///
/// # Panics
/// When there is not room for exactly the model's parameters.
pub fn initialise_into(model: &ModelConfig, seed: u64, parameters: &mut [f32]) {
    let layout = Layout::new(model);
    assert_eq!(parameters.len(), layout.total, "parameters of another model");
    for (index, tensor) in layout.tensors.iter().enumerate() {
        let stream = Stream::new(seed, Purpose::Initialisation, index as u64);
        let values = &mut parameters[tensor.range.clone()];
        let name = tensor.name.as_str();
        let part = name.rsplit('.').next().unwrap_or(name);
        match part {
            "token_embedding" => {
                let whole = model.embedding_norm && !model.tie_embeddings;
                let std = if whole { 1.0 } else { 1.0 / (model.d_model as f64).sqrt() };
                fill(values, |i| stream.normal(i) * std);
            }
            "position_embedding" => fill(values, |i| stream.normal(i) * 0.02),
            "ngram_embedding" => values.fill(0.0),
            "output" | "down" | "head" if model.zero_init => values.fill(0.0),
            "value_residual" => values.fill(0.5),
            "embedding_residual" => values.copy_from_slice(&[1.0, 0.0]),
            "scale" => values.fill(1.0),
            _ if tensor.shape.len() == 2 => {
                let std = 1.0 / (tensor.shape[0] as f64).sqrt() / TRUNCATED_STD;
                fill(values, |i| stream.truncated_normal(i) * std);
            }
            _ => values.fill(0.0),
        }
    }
}

fn fill(values: &mut [f32], draw: impl Fn(u64) -> f64) {
    for (i, value) in values.iter_mut().enumerate() {
        *value = draw(i as u64) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_each_tensor() {
        let model = ModelConfig { d_model: 128, n_heads: 4, n_layers: 2, ..ModelConfig::default() };
        let parameters = initialise(&model, 3);
        for tensor in &Layout::new(&model).tensors {
            let values = &parameters[tensor.range.clone()];
            let n = values.len() as f64;
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
            let std = (values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt();
            let expected = match tensor.name.as_str() {
                "token_embedding" => 128f64.powf(-0.5),
                "position_embedding" => 0.02,
                _ if tensor.shape.len() == 2 => (tensor.shape[0] as f64).powf(-0.5),
                _ => 0.0,
            };
            assert!((std - expected).abs() <= 0.06 * expected, "{}: {std}, not {expected}", tensor.name);
            if tensor.shape.len() == 2 {
                assert!(mean.abs() < 5.0 * expected / n.sqrt(), "{}: mean {mean}", tensor.name);
            }
            if tensor.name.ends_with("scale") {
                assert!(values.iter().all(|&x| x == 1.0));
            }
            if tensor.name.ends_with("bias") {
                assert!(values.iter().all(|&x| x == 0.0));
            }
        }
        let mut again = vec![f32::NAN; parameters.len()];
        initialise_into(&model, 3, &mut again);
        assert_eq!(parameters, again);
        assert_ne!(parameters, initialise(&model, 4));
    }
    #[test]
    fn starts_of_the_parts() {
        let model = ModelConfig {
            d_model: 64,
            n_heads: 4,
            n_layers: 2,
            embedding_norm: true,
            ngram_table: 2,
            value_residual: true,
            embedding_residual: true,
            zero_init: true,
            ..ModelConfig::default()
        };
        let parameters = initialise(&model, 1);
        let layout = Layout::new(&model);
        let of = |range: &std::ops::Range<usize>| &parameters[range.clone()];
        let square = |x: &[f32]| x.iter().map(|&x| f64::from(x * x)).sum::<f64>() / x.len() as f64;
        assert!((square(of(&layout.token_embedding)) - 1.0).abs() < 0.1);
        let last = &layout.blocks[1];
        assert_eq!(of(last.value_residual.as_ref().unwrap()), [0.5]);
        assert_eq!(of(last.embedding_residual.as_ref().unwrap()), [1.0, 0.0]);
        for zero in [
            layout.ngram_embedding.as_ref().unwrap(),
            &last.output,
            &last.down,
            layout.head.as_ref().unwrap(),
        ] {
            assert!(of(zero).iter().all(|&x| x == 0.0));
        }
        assert!(square(of(&last.query)) > 0.01 && square(of(&last.up)) > 0.01);
        let tied = ModelConfig { tie_embeddings: true, ..model };
        assert!(square(&initialise(&tied, 1)[..27 * 64]) < 0.02);
    }
}
