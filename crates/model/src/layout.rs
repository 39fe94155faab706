//! Where each tensor lies in the one flat vector of parameters.

use crate::ModelConfig;
use std::ops::Range;

/// One tensor of the model: a named range of the flat parameter vector, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The name, as in checkpoints: `blocks.0.attention.query`.
    pub name: String,
    /// The shape; matrices are `[in, out]`: y = x W.
    pub shape: Vec<usize>,
    /// The place in the flat vector.
    pub range: Range<usize>,
}

/// The tensors of one block, as ranges of the flat vector. `query`, `key` and `value` follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTensors {
    /// LayerNorm before attention: scale [D].
    pub attention_norm_scale: Range<usize>,
    /// LayerNorm before attention: bias [D].
    pub attention_norm_bias: Range<usize>,
    /// Query projection [D, D]; head h owns columns h*D/H .. (h+1)*D/H.
    pub query: Range<usize>,
    /// Key projection [D, D].
    pub key: Range<usize>,
    /// Value projection [D, D].
    pub value: Range<usize>,
    /// Output projection [D, D].
    pub output: Range<usize>,
    /// LayerNorm before the MLP: scale [D].
    pub mlp_norm_scale: Range<usize>,
    /// LayerNorm before the MLP: bias [D].
    pub mlp_norm_bias: Range<usize>,
    /// First matrix of the MLP [D, F].
    pub up: Range<usize>,
    /// Its bias [F].
    pub up_bias: Range<usize>,
    /// Second matrix of the MLP [F, D].
    pub down: Range<usize>,
    /// Its bias [D].
    pub down_bias: Range<usize>,
}

/// All tensors of a model in their order in the flat vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Every tensor, in order; ranges are contiguous and cover 0..`total`.
    pub tensors: Vec<Tensor>,
    /// Number of parameters.
    pub total: usize,
    /// Token embedding E [V, D].
    pub token_embedding: Range<usize>,
    /// Position embedding P [max_len, D].
    pub position_embedding: Range<usize>,
    /// The blocks, first to last.
    pub blocks: Vec<BlockTensors>,
    /// Final LayerNorm: scale [D].
    pub final_norm_scale: Range<usize>,
    /// Final LayerNorm: bias [D].
    pub final_norm_bias: Range<usize>,
    /// Output matrix [D, V]; none when the embedding is tied.
    pub head: Option<Range<usize>>,
}

impl Layout {
    /// The layout of `model`.
    pub fn new(model: &ModelConfig) -> Self {
        let (v, d, f) = (model.vocabulary, model.d_model, model.mlp_width());
        let mut tensors: Vec<Tensor> = Vec::new();
        let mut total = 0;
        let mut place = |name: String, shape: &[usize]| {
            let range = total..total + shape.iter().product::<usize>();
            total = range.end;
            tensors.push(Tensor { name, shape: shape.to_vec(), range: range.clone() });
            range
        };
        let token_embedding = place("token_embedding".into(), &[v, d]);
        let position_embedding = place("position_embedding".into(), &[model.max_len, d]);
        let blocks = (0..model.n_layers)
            .map(|i| {
                let mut place = |name: &str, shape: &[usize]| place(format!("blocks.{i}.{name}"), shape);
                BlockTensors {
                    attention_norm_scale: place("attention_norm.scale", &[d]),
                    attention_norm_bias: place("attention_norm.bias", &[d]),
                    query: place("attention.query", &[d, d]),
                    key: place("attention.key", &[d, d]),
                    value: place("attention.value", &[d, d]),
                    output: place("attention.output", &[d, d]),
                    mlp_norm_scale: place("mlp_norm.scale", &[d]),
                    mlp_norm_bias: place("mlp_norm.bias", &[d]),
                    up: place("mlp.up", &[d, f]),
                    up_bias: place("mlp.up_bias", &[f]),
                    down: place("mlp.down", &[f, d]),
                    down_bias: place("mlp.down_bias", &[d]),
                }
            })
            .collect();
        let final_norm_scale = place("final_norm.scale".into(), &[d]);
        let final_norm_bias = place("final_norm.bias".into(), &[d]);
        let head = (!model.tie_embeddings).then(|| place("head".into(), &[d, v]));
        Self {
            tensors,
            total,
            token_embedding,
            position_embedding,
            blocks,
            final_norm_scale,
            final_norm_bias,
            head,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Architecture;

    #[test]
    fn ranges_tile_the_vector() {
        for tie_embeddings in [false, true] {
            let model = ModelConfig {
                architecture: Architecture::Seed,
                vocabulary: 27,
                d_model: 24,
                n_heads: 3,
                n_layers: 2,
                mlp_ratio: 2.5,
                max_len: 17,
                tie_embeddings,
            };
            let layout = Layout::new(&model);
            assert_eq!(layout.total, model.parameters());
            let mut end = 0;
            for tensor in &layout.tensors {
                assert_eq!(tensor.range.start, end, "{}", tensor.name);
                assert_eq!(tensor.range.len(), tensor.shape.iter().product::<usize>());
                end = tensor.range.end;
            }
            assert_eq!(end, layout.total);
            assert_eq!(layout.head.is_none(), tie_embeddings);
        }
    }
}
