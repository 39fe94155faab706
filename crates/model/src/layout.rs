//! Where each tensor lies in the one flat vector of parameters.

use crate::{Activation, ModelConfig, NgramTables, Norm, Positions};
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

/// Scale and bias \[D\] of a LayerNorm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormTensors {
    /// The scale.
    pub scale: Range<usize>,
    /// The bias.
    pub bias: Range<usize>,
}

/// The tensors of one block, as ranges of the flat vector: those that the model has. `query`, `key` and `value` follow each
/// other, and so do `gate` and `up`, and their biases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTensors {
    /// Weights \[2\] of the residual stream and of the embedding in what the block reads.
    pub embedding_residual: Option<Range<usize>>,
    /// The norm before attention.
    pub attention_norm: Option<NormTensors>,
    /// Query projection \[D, D\]; head h owns columns h*D/H .. (h+1)*D/H.
    pub query: Range<usize>,
    /// Key projection \[D, D\].
    pub key: Range<usize>,
    /// Value projection \[D, D\].
    pub value: Range<usize>,
    /// Weight \[1\] of the first block's values.
    pub value_residual: Option<Range<usize>>,
    /// Output projection \[D, D\].
    pub output: Range<usize>,
    /// The norm before the MLP.
    pub mlp_norm: Option<NormTensors>,
    /// The gate's matrix \[D, F\].
    pub gate: Option<Range<usize>>,
    /// First matrix of the MLP \[D, F\].
    pub up: Range<usize>,
    /// The gate's bias \[F\].
    pub gate_bias: Option<Range<usize>>,
    /// The first matrix's bias \[F\].
    pub up_bias: Option<Range<usize>>,
    /// Second matrix of the MLP \[F, D\].
    pub down: Range<usize>,
    /// Its bias \[D\].
    pub down_bias: Option<Range<usize>>,
}

impl BlockTensors {
    /// The matrix or the matrices of the MLP's first product.
    pub fn gate_and_up(&self) -> Range<usize> {
        self.gate.as_ref().unwrap_or(&self.up).start..self.up.end
    }

    /// Their biases.
    pub fn gate_and_up_bias(&self) -> Option<Range<usize>> {
        let up = self.up_bias.as_ref()?;
        Some(self.gate_bias.as_ref().unwrap_or(up).start..up.end)
    }
}

/// All tensors of a model in their order in the flat vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Every tensor, in order; ranges are contiguous and cover 0..`total`.
    pub tensors: Vec<Tensor>,
    /// Number of parameters.
    pub total: usize,
    /// Token embedding E \[V, D\].
    pub token_embedding: Range<usize>,
    /// The tables of n-grams, one behind the other \[rows, D\]: [`NgramTables`].
    pub ngram_embedding: Option<Range<usize>>,
    /// Position embedding P \[max_len, D\].
    pub position_embedding: Option<Range<usize>>,
    /// The blocks, first to last.
    pub blocks: Vec<BlockTensors>,
    /// The norm behind the last block.
    pub final_norm: Option<NormTensors>,
    /// Output matrix \[D, V\]; none when the embedding is tied.
    pub head: Option<Range<usize>>,
}

impl Layout {
    /// The layout of `model`.
    pub fn new(model: &ModelConfig) -> Self {
        let (v, d, f) = (model.vocabulary, model.d_model, model.mlp_width());
        let norms = model.norm == Norm::LayerNorm;
        let gated = model.activation == Activation::Swiglu;
        let mut places = Places { tensors: Vec::new(), total: 0 };
        let token_embedding = places.take("token_embedding", &[v, d]);
        let ngrams = NgramTables::new(model).rows();
        let ngram_embedding = places.take_if(ngrams > 0, "ngram_embedding", &[ngrams, d]);
        let learned = model.positions == Positions::Learned;
        let position_embedding = places.take_if(learned, "position_embedding", &[model.max_len, d]);
        let blocks = (0..model.n_layers)
            .map(|i| {
                let name = |part: &str| format!("blocks.{i}.{part}");
                // The first block has nothing to mix: its values and its input are the first ones.
                let mixes_embedding = model.embedding_residual && i > 0;
                let mixes_values = model.value_residual && i > 0;
                BlockTensors {
                    embedding_residual: places.take_if(mixes_embedding, &name("embedding_residual"), &[2]),
                    attention_norm: places.norm(norms, &name("attention_norm"), d),
                    query: places.take(&name("attention.query"), &[d, d]),
                    key: places.take(&name("attention.key"), &[d, d]),
                    value: places.take(&name("attention.value"), &[d, d]),
                    value_residual: places.take_if(mixes_values, &name("attention.value_residual"), &[1]),
                    output: places.take(&name("attention.output"), &[d, d]),
                    mlp_norm: places.norm(norms, &name("mlp_norm"), d),
                    gate: places.take_if(gated, &name("mlp.gate"), &[d, f]),
                    up: places.take(&name("mlp.up"), &[d, f]),
                    gate_bias: places.take_if(gated && model.mlp_bias, &name("mlp.gate_bias"), &[f]),
                    up_bias: places.take_if(model.mlp_bias, &name("mlp.up_bias"), &[f]),
                    down: places.take(&name("mlp.down"), &[f, d]),
                    down_bias: places.take_if(model.mlp_bias, &name("mlp.down_bias"), &[d]),
                }
            })
            .collect();
        let final_norm = places.norm(norms, "final_norm", d);
        let head = places.take_if(!model.tie_embeddings, "head", &[d, v]);
        Self {
            tensors: places.tensors,
            total: places.total,
            token_embedding,
            ngram_embedding,
            position_embedding,
            blocks,
            final_norm,
            head,
        }
    }
}

/// Places tensors one behind the other.
struct Places {
    tensors: Vec<Tensor>,
    total: usize,
}

impl Places {
    fn take(&mut self, name: &str, shape: &[usize]) -> Range<usize> {
        let range = self.total..self.total + shape.iter().product::<usize>();
        self.total = range.end;
        self.tensors.push(Tensor { name: name.to_string(), shape: shape.to_vec(), range: range.clone() });
        range
    }

    fn take_if(&mut self, has: bool, name: &str, shape: &[usize]) -> Option<Range<usize>> {
        has.then(|| self.take(name, shape))
    }

    fn norm(&mut self, has: bool, name: &str, width: usize) -> Option<NormTensors> {
        has.then(|| NormTensors {
            scale: self.take(&format!("{name}.scale"), &[width]),
            bias: self.take(&format!("{name}.bias"), &[width]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LossPositions;

    #[test]
    fn ranges_tile_the_vector() {
        let seed = ModelConfig {
            d_model: 24,
            n_heads: 3,
            n_layers: 2,
            mlp_ratio: 2.5,
            max_len: 17,
            ..ModelConfig::default()
        };
        let tied = ModelConfig { tie_embeddings: true, ..seed };
        let gated = ModelConfig {
            activation: Activation::Swiglu,
            ngram_table: 2,
            value_residual: true,
            embedding_residual: true,
            ..tied
        };
        let bare = ModelConfig {
            norm: Norm::RmsNorm,
            positions: Positions::Rotary,
            mlp_bias: false,
            loss_positions: LossPositions::Last,
            ..seed
        };
        for model in [seed, tied, gated, bare] {
            let layout = Layout::new(&model);
            assert_eq!(layout.total, model.parameters());
            let mut end = 0;
            for tensor in &layout.tensors {
                assert_eq!(tensor.range.start, end, "{}", tensor.name);
                assert_eq!(tensor.range.len(), tensor.shape.iter().product::<usize>());
                end = tensor.range.end;
            }
            assert_eq!(end, layout.total);
            assert_eq!(layout.head.is_none(), model.tie_embeddings);
        }
        // A part that was not chosen has no place, one that was has.
        let names = |model: &ModelConfig| -> Vec<String> {
            Layout::new(model).tensors.into_iter().map(|tensor| tensor.name).collect()
        };
        assert_eq!(
            names(&ModelConfig { n_layers: 1, ..bare }),
            [
                "token_embedding",
                "blocks.0.attention.query",
                "blocks.0.attention.key",
                "blocks.0.attention.value",
                "blocks.0.attention.output",
                "blocks.0.mlp.up",
                "blocks.0.mlp.down",
                "head"
            ]
        );
        let gated_names = names(&gated);
        for name in [
            "ngram_embedding",
            "blocks.1.embedding_residual",
            "blocks.1.attention.value_residual",
            "blocks.0.mlp.gate",
            "blocks.0.mlp.gate_bias",
        ] {
            assert!(gated_names.iter().any(|other| other == name), "{name}");
        }
        assert!(!gated_names.iter().any(|name| name == "blocks.0.attention.value_residual"));
        let blocks = Layout::new(&gated).blocks;
        assert_eq!(blocks[1].gate_and_up().len(), 2 * 24 * 60);
        assert_eq!(blocks[1].gate_and_up_bias().map(|range| range.len()), Some(2 * 60));
    }
}
