//! The whole model: the operations in their order, forward and back.

use crate::float::add_to;
use crate::{Float, attention, bias, cross_entropy, embedding, gelu, layer_norm, matmul};
use diapason_model::{BlockTensors, Layout, ModelConfig};

/// Logits of every position, \[B, T, V\]; `parameters` in the order of [`Layout`], `inputs` \[B, T\].
pub fn logits<F: Float>(
    model: &ModelConfig,
    parameters: &[F],
    inputs: &[u8],
    sequence_length: usize,
) -> Vec<F> {
    Forward::new(model, parameters, inputs, sequence_length).logits
}

/// Mean cross-entropy over all positions, nats; `inputs` and `targets` \[B, T\].
pub fn loss<F: Float>(
    model: &ModelConfig,
    parameters: &[F],
    inputs: &[u8],
    targets: &[u8],
    sequence_length: usize,
) -> F {
    let logits = logits(model, parameters, inputs, sequence_length);
    mean(&cross_entropy::forward(&logits, targets, model.vocabulary).0)
}

/// The loss and its gradient, in the order of [`Layout`].
pub fn loss_and_gradient<F: Float>(
    model: &ModelConfig,
    parameters: &[F],
    inputs: &[u8],
    targets: &[u8],
    sequence_length: usize,
) -> (F, Vec<F>) {
    let (v, d, n) = (model.vocabulary, model.d_model, inputs.len());
    let layout = Layout::new(model);
    let forward = Forward::new(model, parameters, inputs, sequence_length);
    let loss = mean(&cross_entropy::forward(&forward.logits, targets, v).0);

    let mut gradient = vec![F::ZERO; layout.total];
    let dlogits = cross_entropy::backward(&forward.logits, targets, v);
    let head = output_matrix(model, &layout, parameters);
    let (dnormed, dhead) = matmul::backward(&forward.normed, &head, &dlogits, n, d, v);
    match &layout.head {
        Some(range) => add_to(&mut gradient[range.clone()], &dhead),
        // W = E^T, so dE += dW^T; the look-up adds its share below.
        None => add_to(&mut gradient[layout.token_embedding.clone()], &matmul::transpose(&dhead, d, v)),
    }
    let scale = &parameters[layout.final_norm_scale.clone()];
    let (mut dx, dscale, dbias) = layer_norm::backward(&forward.x, scale, &dnormed);
    add_to(&mut gradient[layout.final_norm_scale.clone()], &dscale);
    add_to(&mut gradient[layout.final_norm_bias.clone()], &dbias);
    for (tensors, block) in layout.blocks.iter().zip(&forward.blocks).rev() {
        dx = block.backward(model, tensors, parameters, sequence_length, &dx, &mut gradient);
    }
    let (dtokens, dpositions) = embedding::backward(inputs, &dx, sequence_length, d, v, model.max_len);
    add_to(&mut gradient[layout.token_embedding.clone()], &dtokens);
    add_to(&mut gradient[layout.position_embedding.clone()], &dpositions);
    (loss, gradient)
}

/// Everything that a forward pass computes and a backward pass needs.
struct Forward<F> {
    blocks: Vec<Block<F>>,
    /// Output of the last block \[N, D\].
    x: Vec<F>,
    /// The same after the final LayerNorm \[N, D\].
    normed: Vec<F>,
    /// \[N, V\].
    logits: Vec<F>,
}

impl<F: Float> Forward<F> {
    fn new(model: &ModelConfig, parameters: &[F], inputs: &[u8], sequence_length: usize) -> Self {
        let layout = Layout::new(model);
        assert_eq!(parameters.len(), layout.total);
        assert!(sequence_length <= model.max_len);
        let d = model.d_model;
        let tokens = &parameters[layout.token_embedding.clone()];
        let positions = &parameters[layout.position_embedding.clone()];
        let mut x = embedding::forward(tokens, positions, inputs, sequence_length, d);
        let mut blocks = Vec::new();
        for tensors in &layout.blocks {
            let (block, y) = Block::forward(model, tensors, parameters, sequence_length, x);
            blocks.push(block);
            x = y;
        }
        let scale = &parameters[layout.final_norm_scale.clone()];
        let normed = layer_norm::forward(&x, scale, &parameters[layout.final_norm_bias.clone()]);
        let head = output_matrix(model, &layout, parameters);
        let logits = matmul::forward(&normed, &head, inputs.len(), d, model.vocabulary);
        Self { blocks, x, normed, logits }
    }
}

/// What one block computes; every field \[N, width\] but `probabilities`, \[B, H, T, T\].
struct Block<F> {
    x: Vec<F>,
    attention_normed: Vec<F>,
    query: Vec<F>,
    key: Vec<F>,
    value: Vec<F>,
    probabilities: Vec<F>,
    attended: Vec<F>,
    middle: Vec<F>,
    mlp_normed: Vec<F>,
    up: Vec<F>,
    activated: Vec<F>,
}

impl<F: Float> Block<F> {
    /// m = x + Attention(LayerNorm(x)); y = m + MLP(LayerNorm(m)). Returns what was computed, and y.
    fn forward(
        model: &ModelConfig,
        tensors: &BlockTensors,
        p: &[F],
        sequence_length: usize,
        x: Vec<F>,
    ) -> (Self, Vec<F>) {
        let (d, f) = (model.d_model, model.mlp_width());
        let n = x.len() / d;
        let attention_normed = layer_norm::forward(
            &x,
            &p[tensors.attention_norm_scale.clone()],
            &p[tensors.attention_norm_bias.clone()],
        );
        let query = matmul::forward(&attention_normed, &p[tensors.query.clone()], n, d, d);
        let key = matmul::forward(&attention_normed, &p[tensors.key.clone()], n, d, d);
        let value = matmul::forward(&attention_normed, &p[tensors.value.clone()], n, d, d);
        let (mut attended, mut probabilities) = (Vec::new(), Vec::new());
        let window = sequence_length * d;
        for ((q, k), v) in query.chunks(window).zip(key.chunks(window)).zip(value.chunks(window)) {
            let (y, p) = attention::forward(q, k, v, sequence_length, model.n_heads);
            attended.extend(y);
            probabilities.extend(p);
        }
        let mut middle = matmul::forward(&attended, &p[tensors.output.clone()], n, d, d);
        add_to(&mut middle, &x);

        let mlp_normed = layer_norm::forward(
            &middle,
            &p[tensors.mlp_norm_scale.clone()],
            &p[tensors.mlp_norm_bias.clone()],
        );
        let up = matmul::forward(&mlp_normed, &p[tensors.up.clone()], n, d, f);
        let up = bias::forward(&up, &p[tensors.up_bias.clone()]);
        let activated = gelu::forward(&up);
        let down = matmul::forward(&activated, &p[tensors.down.clone()], n, f, d);
        let mut y = bias::forward(&down, &p[tensors.down_bias.clone()]);
        add_to(&mut y, &middle);
        let block = Self {
            x,
            attention_normed,
            query,
            key,
            value,
            probabilities,
            attended,
            middle,
            mlp_normed,
            up,
            activated,
        };
        (block, y)
    }

    /// Adds the block's share to `gradient` and returns dx. A residual sum passes its gradient to both branches.
    fn backward(
        &self,
        model: &ModelConfig,
        tensors: &BlockTensors,
        p: &[F],
        sequence_length: usize,
        dy: &[F],
        gradient: &mut [F],
    ) -> Vec<F> {
        let (d, f) = (model.d_model, model.mlp_width());
        let n = dy.len() / d;
        add_to(&mut gradient[tensors.down_bias.clone()], &bias::backward(dy, d));
        let (dactivated, ddown) = matmul::backward(&self.activated, &p[tensors.down.clone()], dy, n, f, d);
        add_to(&mut gradient[tensors.down.clone()], &ddown);
        let dhidden = gelu::backward(&self.up, &dactivated);
        add_to(&mut gradient[tensors.up_bias.clone()], &bias::backward(&dhidden, f));
        let (dnormed, dup) = matmul::backward(&self.mlp_normed, &p[tensors.up.clone()], &dhidden, n, d, f);
        add_to(&mut gradient[tensors.up.clone()], &dup);
        let (mut dmiddle, dscale, dbias) =
            layer_norm::backward(&self.middle, &p[tensors.mlp_norm_scale.clone()], &dnormed);
        add_to(&mut gradient[tensors.mlp_norm_scale.clone()], &dscale);
        add_to(&mut gradient[tensors.mlp_norm_bias.clone()], &dbias);
        add_to(&mut dmiddle, dy);

        let (dattended, doutput) =
            matmul::backward(&self.attended, &p[tensors.output.clone()], &dmiddle, n, d, d);
        add_to(&mut gradient[tensors.output.clone()], &doutput);
        let (mut dquery, mut dkey, mut dvalue) = (Vec::new(), Vec::new(), Vec::new());
        let window = sequence_length * d;
        let square = model.n_heads * sequence_length * sequence_length;
        for b in 0..n / sequence_length {
            let rows = b * window..(b + 1) * window;
            let (dq, dk, dv) = attention::backward(
                &self.query[rows.clone()],
                &self.key[rows.clone()],
                &self.value[rows.clone()],
                &self.probabilities[b * square..(b + 1) * square],
                &dattended[rows],
                sequence_length,
                model.n_heads,
            );
            dquery.extend(dq);
            dkey.extend(dk);
            dvalue.extend(dv);
        }
        let mut dnormed = vec![F::ZERO; n * d];
        for (tensor, dprojected) in
            [(&tensors.query, &dquery), (&tensors.key, &dkey), (&tensors.value, &dvalue)]
        {
            let (share, dw) =
                matmul::backward(&self.attention_normed, &p[tensor.clone()], dprojected, n, d, d);
            add_to(&mut dnormed, &share);
            add_to(&mut gradient[tensor.clone()], &dw);
        }
        let (mut dx, dscale, dbias) =
            layer_norm::backward(&self.x, &p[tensors.attention_norm_scale.clone()], &dnormed);
        add_to(&mut gradient[tensors.attention_norm_scale.clone()], &dscale);
        add_to(&mut gradient[tensors.attention_norm_bias.clone()], &dbias);
        add_to(&mut dx, &dmiddle);
        dx
    }
}

/// W \[D, V\]: the head, or E transposed when the embedding is tied.
fn output_matrix<F: Float>(model: &ModelConfig, layout: &Layout, parameters: &[F]) -> Vec<F> {
    match &layout.head {
        Some(range) => parameters[range.clone()].to_vec(),
        None => {
            matmul::transpose(&parameters[layout.token_embedding.clone()], model.vocabulary, model.d_model)
        }
    }
}

fn mean<F: Float>(x: &[F]) -> F {
    x.iter().copied().sum::<F>() / F::from_f64(x.len() as f64)
}
