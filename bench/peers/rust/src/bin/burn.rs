//! The step in Burn on its Flex backend.
//!
//! Under automatic differentiation Flex's fused attention and LayerNorm fall back to primitive operations; so the attention is
//! written out, where the causal mask is made once. The cube in GELU's tanh is a product: the library's own takes a power.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::module::{embedding, layer_norm, linear};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use diapason_peers::{
    Array, Batch, D_MODEL, N_HEADS, N_LAYERS, NORM_EPSILON, Named, Peer, T, VOCABULARY, WINDOWS,
};
use std::error::Error;

/// The fields are named as the tensors are in the weights' file, so that a path in the module is a name there.
#[derive(Module, Debug)]
struct Transformer {
    token_embedding: Param<Tensor<2>>,
    position_embedding: Param<Tensor<2>>,
    blocks: Vec<Block>,
    final_norm: Norm,
    head: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: Norm,
    attention: Attention,
    mlp_norm: Norm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Norm {
    scale: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Attention {
    query: Param<Tensor<2>>,
    key: Param<Tensor<2>>,
    value: Param<Tensor<2>>,
    output: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Mlp {
    up: Param<Tensor<2>>,
    up_bias: Param<Tensor<1>>,
    down: Param<Tensor<2>>,
    down_bias: Param<Tensor<1>>,
}

impl Norm {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        layer_norm(x, self.scale.val(), Some(self.bias.val()), NORM_EPSILON)
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>, ahead: Tensor<4, Bool>) -> Tensor<3> {
        let head = D_MODEL / N_HEADS;
        let project = |w: &Param<Tensor<2>>| {
            linear(x.clone(), w.val(), None).reshape([WINDOWS, T, N_HEADS, head]).swap_dims(1, 2)
        };
        let scores = project(&self.query).matmul(project(&self.key).transpose()) / (head as f64).sqrt();
        let weights = softmax(scores.mask_fill(ahead, f32::NEG_INFINITY), 3);
        let y = weights.matmul(project(&self.value)).swap_dims(1, 2).reshape([WINDOWS, T, D_MODEL]);
        linear(y, self.output.val(), None)
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = linear(x, self.up.val(), Some(self.up_bias.val()));
        let cube = x.clone() * x.clone() * x.clone();
        let inner = (x.clone() + cube * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
        let x = x * (inner.tanh() + 1.0) * 0.5;
        linear(x, self.down.val(), Some(self.down_bias.val()))
    }
}

impl Transformer {
    fn loss(&self, inputs: Tensor<2, Int>, targets: Tensor<2, Int>, ahead: Tensor<4, Bool>) -> Tensor<1> {
        let positions = self.position_embedding.val().slice([0..T, 0..D_MODEL]).unsqueeze::<3>();
        let mut x = embedding(self.token_embedding.val(), inputs) + positions;
        for block in &self.blocks {
            x = x.clone() + block.attention.forward(block.attention_norm.forward(x), ahead.clone());
            x = x.clone() + block.mlp.forward(block.mlp_norm.forward(x));
        }
        let logits = linear(self.final_norm.forward(x), self.head.val(), None);
        let logits = logits.reshape([WINDOWS * T, VOCABULARY]);
        log_softmax(logits, 1).gather(1, targets).mean().neg()
    }
}

/// Collects tensors, or their gradients, by their paths.
struct Collector<'a> {
    path: Vec<String>,
    gradients: Option<&'a GradientsParams>,
    named: Named,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let found = match self.gradients {
            Some(gradients) => gradients.get::<D>(parameter.id),
            None => Some(parameter.val()),
        };
        let Some(x) = found else { return };
        let shape = x.dims().to_vec();
        if let Ok(data) = x.into_data().try_into_vec::<f32>() {
            self.named.insert(self.path.join("."), Array { shape, data });
        }
    }
}

fn collect(model: &Transformer, gradients: Option<&GradientsParams>) -> Named {
    let mut collector = Collector { path: Vec::new(), gradients, named: Named::new() };
    model.visit(&mut collector);
    collector.named
}

struct Burn {
    device: Device,
    model: Option<Transformer>,
    optimizer: ModuleOptimizer,
    ahead: Tensor<4, Bool>,
}

impl Peer for Burn {
    const PACKAGE: &str = "burn";

    fn new(weights: &Named) -> Result<Self, Box<dyn Error>> {
        let device = Device::flex().autodiff();
        let data = |name: &str| {
            let x = &weights[name];
            TensorData::new(x.data.clone(), x.shape.clone())
        };
        let vector = |name: &str| Param::<Tensor<1>>::from_data(data(name), &device);
        let matrix = |name: &str| Param::<Tensor<2>>::from_data(data(name), &device);
        let norm = |name: &str| Norm {
            scale: vector(&format!("{name}.scale")),
            bias: vector(&format!("{name}.bias")),
        };
        let block = |i: usize| {
            let at = |name: &str| format!("blocks.{i}.{name}");
            Block {
                attention_norm: norm(&at("attention_norm")),
                attention: Attention {
                    query: matrix(&at("attention.query")),
                    key: matrix(&at("attention.key")),
                    value: matrix(&at("attention.value")),
                    output: matrix(&at("attention.output")),
                },
                mlp_norm: norm(&at("mlp_norm")),
                mlp: Mlp {
                    up: matrix(&at("mlp.up")),
                    up_bias: vector(&at("mlp.up_bias")),
                    down: matrix(&at("mlp.down")),
                    down_bias: vector(&at("mlp.down_bias")),
                },
            }
        };
        let model = Transformer {
            token_embedding: matrix("token_embedding"),
            position_embedding: matrix("position_embedding"),
            blocks: (0..N_LAYERS).map(block).collect(),
            final_norm: norm("final_norm"),
            head: matrix("head"),
        };
        let optimizer = AdamConfig::new().with_epsilon(1e-8).init();
        let ahead: Vec<bool> = (0..T * T).map(|i| i % T > i / T).collect();
        let ahead = Tensor::from_data(TensorData::new(ahead, [1, 1, T, T]), &device);
        Ok(Self { device, model: Some(model), optimizer, ahead })
    }

    fn step(&mut self, batch: &Batch, gradients: Option<&mut Named>) -> Result<f32, Box<dyn Error>> {
        let symbols = |ids: &[u32], shape: [usize; 2]| {
            let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
            Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &self.device)
        };
        let model = self.model.take().ok_or("an earlier step failed")?;
        let inputs = symbols(&batch.inputs, [WINDOWS, T]);
        let targets = symbols(&batch.targets, [WINDOWS * T, 1]);
        let loss = model.loss(inputs, targets, self.ahead.clone());
        let found = GradientsParams::from_grads(loss.backward(), &model);
        if let Some(kept) = gradients {
            *kept = collect(&model, Some(&found));
        }
        self.model = Some(self.optimizer.step(1e-3, model, found));
        Ok(loss.into_scalar())
    }

    fn parameters(&self) -> Result<Named, Box<dyn Error>> {
        Ok(collect(self.model.as_ref().ok_or("an earlier step failed")?, None))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    diapason_peers::main::<Burn>()
}
