//! The step in candle, from operations that have a backward pass.
//!
//! candle's fused LayerNorm and softmax have none, and whatever lies before them gets no gradient without an
//! error. So both are written out here; the maximum in the softmax is detached, since its gradient cancels.

use candle_core::backprop::GradStore;
use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops::layer_norm_slow;
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use diapason_peers::{Array, Batch, D_MODEL, N_HEADS, N_LAYERS, NORM_EPSILON, Named, Peer, T, WINDOWS};
use std::collections::BTreeMap;
use std::error::Error;

type Result<T> = candle_core::Result<T>;

struct Candle {
    variables: BTreeMap<String, Var>,
    /// [T, T]: zero where a position may look, minus infinity ahead of it.
    mask: Tensor,
    optimizer: AdamW,
}

impl Candle {
    fn get(&self, name: &str) -> &Tensor {
        self.variables[name].as_tensor()
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        layer_norm_slow(
            x,
            self.get(&format!("{name}.scale")),
            self.get(&format!("{name}.bias")),
            NORM_EPSILON as f32,
        )
    }

    /// x [WINDOWS * T, D] to the same.
    fn attention(&self, x: &Tensor, block: &str) -> Result<Tensor> {
        let head = D_MODEL / N_HEADS;
        let project = |name: &str| -> Result<Tensor> {
            let y = x.matmul(self.get(&format!("{block}.attention.{name}")))?;
            y.reshape((WINDOWS, T, N_HEADS, head))?.transpose(1, 2)?.contiguous()
        };
        let scores = project("query")?.matmul(&project("key")?.transpose(2, 3)?)?;
        let scores = (scores / (head as f64).sqrt())?.broadcast_add(&self.mask)?;
        let weights = softmax(&scores)?;
        let y = weights.matmul(&project("value")?)?;
        let y = y.transpose(1, 2)?.reshape((WINDOWS * T, D_MODEL))?;
        y.matmul(self.get(&format!("{block}.attention.output")))
    }

    fn mlp(&self, x: &Tensor, block: &str) -> Result<Tensor> {
        let linear = |x: &Tensor, name: &str| -> Result<Tensor> {
            x.matmul(self.get(&format!("{block}.mlp.{name}")))?
                .broadcast_add(self.get(&format!("{block}.mlp.{name}_bias")))
        };
        linear(&linear(x, "up")?.gelu()?, "down")
    }

    fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let inputs = Tensor::from_slice(&batch.inputs, WINDOWS * T, &Device::Cpu)?;
        let targets = Tensor::from_slice(&batch.targets, (WINDOWS * T, 1), &Device::Cpu)?;
        let x = self.get("token_embedding").embedding(&inputs)?.reshape((WINDOWS, T, D_MODEL))?;
        let x = x.broadcast_add(&self.get("position_embedding").narrow(0, 0, T)?)?;
        let mut x = x.reshape((WINDOWS * T, D_MODEL))?;
        for i in 0..N_LAYERS {
            let block = format!("blocks.{i}");
            x = (&x + self.attention(&self.norm(&x, &format!("{block}.attention_norm"))?, &block)?)?;
            x = (&x + self.mlp(&self.norm(&x, &format!("{block}.mlp_norm"))?, &block)?)?;
        }
        let logits = self.norm(&x, "final_norm")?.matmul(self.get("head"))?;
        log_softmax(&logits)?.gather(&targets, 1)?.mean_all()?.neg()
    }

    fn named(&self, gradients: &GradStore) -> Result<Named> {
        let found = self.variables.iter().filter_map(|(name, x)| Some((name, gradients.get(x)?)));
        found.map(|(name, x)| Ok((name.clone(), array(x)?))).collect()
    }
}

fn shifted(x: &Tensor) -> Result<Tensor> {
    x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = shifted(x)?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let x = shifted(x)?;
    x.broadcast_sub(&x.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

fn array(x: &Tensor) -> Result<Array> {
    Ok(Array { shape: x.dims().to_vec(), data: x.flatten_all()?.to_vec1()? })
}

impl Peer for Candle {
    const PACKAGE: &str = "candle-core";

    fn new(weights: &Named) -> std::result::Result<Self, Box<dyn Error>> {
        let mut variables = BTreeMap::new();
        for (name, x) in weights {
            variables.insert(name.clone(), Var::from_slice(&x.data, x.shape.as_slice(), &Device::Cpu)?);
        }
        let ahead = |i: usize| if i % T > i / T { f32::NEG_INFINITY } else { 0.0 };
        let mask = Tensor::from_vec((0..T * T).map(ahead).collect(), (T, T), &Device::Cpu)?;
        let parameters = ParamsAdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        let optimizer = AdamW::new(variables.values().cloned().collect(), parameters)?;
        Ok(Self { variables, mask, optimizer })
    }

    fn step(
        &mut self,
        batch: &Batch,
        gradients: Option<&mut Named>,
    ) -> std::result::Result<f32, Box<dyn Error>> {
        let loss = self.loss(batch)?;
        let found = loss.backward()?;
        if let Some(kept) = gradients {
            *kept = self.named(&found)?;
        }
        self.optimizer.step(&found)?;
        Ok(loss.to_scalar()?)
    }

    fn parameters(&self) -> std::result::Result<Named, Box<dyn Error>> {
        self.variables.iter().map(|(name, x)| Ok((name.clone(), array(x)?))).collect()
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    diapason_peers::main::<Candle>()
}
