//! The whole model: the operations in their order, forward and back.

use crate::float::add_to;
use crate::{
    Float, activation, attention, bias, cross_entropy, dropout, embedding, gelu, layer_norm, matmul, mixture,
    positions, rms_norm, softcap,
};
use diapason_model::{
    Activation, BlockTensors, Layout, LossPositions, ModelConfig, NgramTables, NormTensors, Positions,
};
use diapason_random::Stream;
use std::ops::Range;

/// Logits of every position, \[B, T, V\]; `parameters` in the order of [`Layout`], `inputs` \[B, T\].
pub fn logits<F: Float>(
    model: &ModelConfig,
    parameters: &[F],
    inputs: &[u8],
    sequence_length: usize,
) -> Vec<F> {
    Forward::new(model, parameters, inputs, sequence_length, None).logits
}

/// Mean cross-entropy over the positions that count, nats; `inputs` and `targets` \[B, T\]; what is dropped out, if anything, comes
/// from `masks`.
pub fn loss<F: Float>(
    model: &ModelConfig,
    parameters: &[F],
    inputs: &[u8],
    targets: &[u8],
    sequence_length: usize,
    masks: Option<&Stream>,
) -> F {
    let forward = Forward::new(model, parameters, inputs, sequence_length, masks);
    let losses = cross_entropy::forward(&forward.logits, targets, model.vocabulary).0;
    counted(model, &losses, 1, sequence_length).iter().copied().sum::<F>()
        / F::from_f64(counted(model, targets, 1, sequence_length).len() as f64)
}

/// The loss and its gradient, in the order of [`Layout`].
pub fn loss_and_gradient<F: Float>(
    model: &ModelConfig,
    parameters: &[F],
    inputs: &[u8],
    targets: &[u8],
    sequence_length: usize,
    masks: Option<&Stream>,
) -> (F, Vec<F>) {
    let (v, d, n) = (model.vocabulary, model.d_model, inputs.len());
    let layout = Layout::new(model);
    let p = parameters;
    let forward = Forward::new(model, p, inputs, sequence_length, masks);
    let loss = loss(model, p, inputs, targets, sequence_length, masks);

    let mut gradient = vec![F::ZERO; layout.total];
    // The mean over the positions that count; nothing comes from the others.
    let counted_logits = counted(model, &forward.logits, v, sequence_length);
    let counted_targets = counted(model, targets, 1, sequence_length);
    let some = cross_entropy::backward(&counted_logits, &counted_targets, v);
    let mut dlogits = vec![F::ZERO; n * v];
    for (position, row) in counted_positions(model, n, sequence_length).zip(some.chunks(v)) {
        dlogits[position * v..][..v].copy_from_slice(row);
    }
    if model.logit_softcap > 0.0 {
        dlogits = softcap::backward(&forward.uncapped, F::from_f64(model.logit_softcap), &dlogits);
    }
    let head = output_matrix(model, &layout, p);
    let (dnormed, dhead) = matmul::backward(&forward.normed, &head, &dlogits, n, d, v);
    match &layout.head {
        Some(range) => add_to(&mut gradient[range.clone()], &dhead),
        // W = E^T, so dE += dW^T; the look-up adds its share below.
        None => add_to(&mut gradient[layout.token_embedding.clone()], &matmul::transpose(&dhead, d, v)),
    }
    let mut dx = norm_backward(d, &layout.final_norm, p, &forward.x, &dnormed, &mut gradient);
    let mut shared = Shared {
        embedded: forward.embedded.clone(),
        dembedded: vec![F::ZERO; n * d],
        values: forward.blocks.first().map_or(Vec::new(), |first| first.value.clone()),
        dvalues: vec![F::ZERO; n * d],
    };
    for (tensors, block) in layout.blocks.iter().zip(&forward.blocks).rev() {
        dx = block.backward(model, tensors, p, sequence_length, &dx, &mut shared, &mut gradient);
    }
    add_to(&mut dx, &shared.dembedded);
    if model.embedding_norm {
        dx = rms_norm::backward(&forward.summed, d, &dx);
    }
    for (table, rows) in tables(model, &layout, inputs, sequence_length) {
        let dtable = embedding::backward(&rows, &dx, table.len());
        add_to(&mut gradient[table], &dtable);
    }
    (loss, gradient)
}

/// The learned tables whose rows an embedding is the sum of, and the row of each position.
fn tables(
    model: &ModelConfig,
    layout: &Layout,
    inputs: &[u8],
    sequence_length: usize,
) -> Vec<(Range<usize>, Vec<usize>)> {
    assert_eq!(inputs.len() % sequence_length, 0);
    let mut tables = vec![(
        layout.token_embedding.clone(),
        inputs.iter().map(|&symbol| usize::from(symbol)).collect::<Vec<_>>(),
    )];
    if let Some(table) = &layout.ngram_embedding {
        let ngrams = NgramTables::new(model);
        let mut rows = vec![Vec::new(); ngrams.count()];
        for window in inputs.chunks(sequence_length) {
            for t in 0..sequence_length {
                let mut lists = rows.iter_mut();
                ngrams.each_row(window, t, |row| lists.next().unwrap().push(row));
            }
        }
        tables.extend(rows.into_iter().map(|rows| (table.clone(), rows)));
    }
    if let Some(table) = &layout.position_embedding {
        tables.push((table.clone(), (0..inputs.len()).map(|n| n % sequence_length).collect()));
    }
    tables
}

/// The positions, of `n`, whose losses count.
fn counted_positions(model: &ModelConfig, n: usize, sequence_length: usize) -> impl Iterator<Item = usize> {
    let last = model.loss_positions == LossPositions::Last;
    (0..n).filter(move |n| !last || (n + 1) % sequence_length == 0)
}

/// The rows of `x` \[n, width\] at those positions.
fn counted<X: Copy>(model: &ModelConfig, x: &[X], width: usize, sequence_length: usize) -> Vec<X> {
    counted_positions(model, x.len() / width, sequence_length)
        .flat_map(|n| x[n * width..][..width].to_vec())
        .collect()
}

/// Everything that a forward pass computes and a backward pass needs.
struct Forward<F> {
    /// The sum of embeddings \[N, D\].
    summed: Vec<F>,
    /// The same after its norm, if it has one.
    embedded: Vec<F>,
    blocks: Vec<Block<F>>,
    /// Output of the last block \[N, D\].
    x: Vec<F>,
    /// The same after the final norm \[N, D\].
    normed: Vec<F>,
    /// \[N, V\], before the cap if there is one.
    uncapped: Vec<F>,
    /// \[N, V\].
    logits: Vec<F>,
}

impl<F: Float> Forward<F> {
    fn new(
        model: &ModelConfig,
        p: &[F],
        inputs: &[u8],
        sequence_length: usize,
        masks: Option<&Stream>,
    ) -> Self {
        let layout = Layout::new(model);
        assert_eq!(p.len(), layout.total);
        assert!(sequence_length <= model.max_len);
        let (d, n) = (model.d_model, inputs.len());
        let mut summed = vec![F::ZERO; n * d];
        for (table, rows) in tables(model, &layout, inputs, sequence_length) {
            embedding::forward(&p[table], &rows, &mut summed);
        }
        if model.positions == Positions::Sinusoidal {
            let rows: Vec<usize> = (0..n).map(|n| n % sequence_length).collect();
            embedding::forward(&positions::sinusoidal(sequence_length, d), &rows, &mut summed);
        }
        let embedded = if model.embedding_norm { rms_norm::forward(&summed, d) } else { summed.clone() };
        let mut x = embedded.clone();
        let mut blocks: Vec<Block<F>> = Vec::new();
        for (index, tensors) in layout.blocks.iter().enumerate() {
            let factors = |branch: usize| match masks {
                Some(masks) if model.dropout > 0.0 => {
                    dropout::factors(masks, model.dropout, 2 * index + branch, n, d)
                }
                _ => vec![F::ONE; n * d],
            };
            let first = blocks.first().map(|first| &first.value[..]);
            let factors = [factors(0), factors(1)];
            let (block, y) = Block::forward(model, tensors, p, sequence_length, x, &embedded, first, factors);
            blocks.push(block);
            x = y;
        }
        let normed = norm_forward(d, &layout.final_norm, p, &x);
        let head = output_matrix(model, &layout, p);
        let uncapped = matmul::forward(&normed, &head, n, d, model.vocabulary);
        let logits = if model.logit_softcap > 0.0 {
            softcap::forward(&uncapped, F::from_f64(model.logit_softcap))
        } else {
            uncapped.clone()
        };
        Self { summed, embedded, blocks, x, normed, uncapped, logits }
    }
}

/// What blocks share, with its gradients as they come together on the way back.
struct Shared<F> {
    embedded: Vec<F>,
    dembedded: Vec<F>,
    /// The first block's values.
    values: Vec<F>,
    dvalues: Vec<F>,
}

/// What one block computes; every field \[N, width\] but `probabilities`, \[B, H, T, T\].
struct Block<F> {
    /// What came in.
    before: Vec<F>,
    /// The same, mixed with the embedding if it is.
    x: Vec<F>,
    attention_normed: Vec<F>,
    /// As projected.
    query: Vec<F>,
    key: Vec<F>,
    value: Vec<F>,
    /// As attention takes them: normalised, turned, mixed.
    attention_query: Vec<F>,
    attention_key: Vec<F>,
    attention_value: Vec<F>,
    probabilities: Vec<F>,
    attended: Vec<F>,
    middle: Vec<F>,
    mlp_normed: Vec<F>,
    gate: Vec<F>,
    up: Vec<F>,
    activated: Vec<F>,
    /// What dropout multiplies the outputs of attention and MLP by.
    factors: [Vec<F>; 2],
}

impl<F: Float> Block<F> {
    /// m = x + Attention(Norm(x)); y = m + MLP(Norm(m)). Returns what was computed, and y.
    fn forward(
        model: &ModelConfig,
        tensors: &BlockTensors,
        p: &[F],
        sequence_length: usize,
        before: Vec<F>,
        embedded: &[F],
        first_value: Option<&[F]>,
        factors: [Vec<F>; 2],
    ) -> (Self, Vec<F>) {
        let (d, f) = (model.d_model, model.mlp_width());
        let n = before.len() / d;
        let x = match &tensors.embedding_residual {
            Some(range) => mixture::forward(&before, embedded, p[range.start], p[range.start + 1]),
            None => before.clone(),
        };
        let attention_normed = norm_forward(d, &tensors.attention_norm, p, &x);
        let project = |range: &Range<usize>| matmul::forward(&attention_normed, &p[range.clone()], n, d, d);
        let (query, key, value) = (project(&tensors.query), project(&tensors.key), project(&tensors.value));
        let placed = |x: &[F]| {
            let head_size = d / model.n_heads;
            let x = if model.qk_norm { rms_norm::forward(x, head_size) } else { x.to_vec() };
            match model.positions {
                Positions::Rotary => positions::rotary_forward(&x, sequence_length, d, model.n_heads),
                _ => x,
            }
        };
        let (attention_query, attention_key) = (placed(&query), placed(&key));
        let attention_value = match (&tensors.value_residual, first_value) {
            (Some(range), Some(first)) => {
                mixture::forward(&value, first, F::ONE - p[range.start], p[range.start])
            }
            _ => value.clone(),
        };
        let (mut attended, mut probabilities) = (Vec::new(), Vec::new());
        let window = sequence_length * d;
        for ((q, k), v) in attention_query
            .chunks(window)
            .zip(attention_key.chunks(window))
            .zip(attention_value.chunks(window))
        {
            let (y, p) = attention::forward(q, k, v, sequence_length, model.n_heads);
            attended.extend(y);
            probabilities.extend(p);
        }
        let branch = matmul::forward(&attended, &p[tensors.output.clone()], n, d, d);
        let mut middle = times(&branch, &factors[0]);
        add_to(&mut middle, &x);

        let mlp_normed = norm_forward(d, &tensors.mlp_norm, p, &middle);
        let first = |matrix: &Range<usize>, bias: &Option<Range<usize>>| {
            with_bias(matmul::forward(&mlp_normed, &p[matrix.clone()], n, d, f), bias, p)
        };
        let up = first(&tensors.up, &tensors.up_bias);
        let gate = tensors.gate.as_ref().map_or(Vec::new(), |gate| first(gate, &tensors.gate_bias));
        let activated = match model.activation {
            Activation::Gelu => gelu::forward(&up),
            Activation::Relu => activation::relu_forward(&up),
            Activation::ReluSquared => activation::relu_squared_forward(&up),
            Activation::Silu => activation::silu_forward(&up),
            Activation::Swiglu => activation::swiglu_forward(&gate, &up),
        };
        let down = matmul::forward(&activated, &p[tensors.down.clone()], n, f, d);
        let mut y = times(&with_bias(down, &tensors.down_bias, p), &factors[1]);
        add_to(&mut y, &middle);
        let block = Self {
            before,
            x,
            attention_normed,
            query,
            key,
            value,
            attention_query,
            attention_key,
            attention_value,
            probabilities,
            attended,
            middle,
            mlp_normed,
            gate,
            up,
            activated,
            factors,
        };
        (block, y)
    }

    /// Adds the block's share to `gradient` and returns the gradient of what came in. A residual sum passes its gradient to both
    /// branches.
    fn backward(
        &self,
        model: &ModelConfig,
        tensors: &BlockTensors,
        p: &[F],
        sequence_length: usize,
        dy: &[F],
        shared: &mut Shared<F>,
        gradient: &mut [F],
    ) -> Vec<F> {
        let (d, f) = (model.d_model, model.mlp_width());
        let n = dy.len() / d;
        let dbranch = times(dy, &self.factors[1]);
        bias_backward(&tensors.down_bias, &dbranch, gradient);
        let (dactivated, ddown) =
            matmul::backward(&self.activated, &p[tensors.down.clone()], &dbranch, n, f, d);
        add_to(&mut gradient[tensors.down.clone()], &ddown);
        let (dgate, dup) = match model.activation {
            Activation::Gelu => (Vec::new(), gelu::backward(&self.up, &dactivated)),
            Activation::Relu => (Vec::new(), activation::relu_backward(&self.up, &dactivated)),
            Activation::ReluSquared => (Vec::new(), activation::relu_squared_backward(&self.up, &dactivated)),
            Activation::Silu => (Vec::new(), activation::silu_backward(&self.up, &dactivated)),
            Activation::Swiglu => activation::swiglu_backward(&self.gate, &self.up, &dactivated),
        };
        let mut dnormed = vec![F::ZERO; n * d];
        let mut first = |matrix: &Range<usize>, bias: &Option<Range<usize>>, dhidden: &[F]| {
            bias_backward(bias, dhidden, gradient);
            let (share, dw) = matmul::backward(&self.mlp_normed, &p[matrix.clone()], dhidden, n, d, f);
            add_to(&mut dnormed, &share);
            add_to(&mut gradient[matrix.clone()], &dw);
        };
        first(&tensors.up, &tensors.up_bias, &dup);
        if let Some(gate) = &tensors.gate {
            first(gate, &tensors.gate_bias, &dgate);
        }
        let mut dmiddle = norm_backward(d, &tensors.mlp_norm, p, &self.middle, &dnormed, gradient);
        add_to(&mut dmiddle, dy);

        let dbranch = times(&dmiddle, &self.factors[0]);
        let (dattended, doutput) =
            matmul::backward(&self.attended, &p[tensors.output.clone()], &dbranch, n, d, d);
        add_to(&mut gradient[tensors.output.clone()], &doutput);
        let (mut dquery, mut dkey, mut dvalue) = (Vec::new(), Vec::new(), Vec::new());
        let window = sequence_length * d;
        let square = model.n_heads * sequence_length * sequence_length;
        for b in 0..n / sequence_length {
            let rows = b * window..(b + 1) * window;
            let (dq, dk, dv) = attention::backward(
                &self.attention_query[rows.clone()],
                &self.attention_key[rows.clone()],
                &self.attention_value[rows.clone()],
                &self.probabilities[b * square..(b + 1) * square],
                &dattended[rows],
                sequence_length,
                model.n_heads,
            );
            dquery.extend(dq);
            dkey.extend(dk);
            dvalue.extend(dv);
        }
        let unplaced = |x: &[F], dy: Vec<F>| {
            let dy = match model.positions {
                Positions::Rotary => positions::rotary_backward(&dy, sequence_length, d, model.n_heads),
                _ => dy,
            };
            if model.qk_norm { rms_norm::backward(x, d / model.n_heads, &dy) } else { dy }
        };
        let (dquery, dkey) = (unplaced(&self.query, dquery), unplaced(&self.key, dkey));
        match &tensors.value_residual {
            Some(range) => {
                let w = p[range.start];
                let (own, first, da, db) =
                    mixture::backward(&self.value, &shared.values, F::ONE - w, w, &dvalue);
                gradient[range.start] += db - da;
                add_to(&mut shared.dvalues, &first);
                dvalue = own;
            }
            // Of the first block come all the shares of the later ones. Where nothing is mixed they are zero.
            None => add_to(&mut dvalue, &std::mem::replace(&mut shared.dvalues, vec![F::ZERO; n * d])),
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
        let mut dx = norm_backward(d, &tensors.attention_norm, p, &self.x, &dnormed, gradient);
        add_to(&mut dx, &dmiddle);
        if let Some(range) = &tensors.embedding_residual {
            let (a, b) = (p[range.start], p[range.start + 1]);
            let (dbefore, dembedded, da, db) = mixture::backward(&self.before, &shared.embedded, a, b, &dx);
            gradient[range.start] += da;
            gradient[range.start + 1] += db;
            add_to(&mut shared.dembedded, &dembedded);
            dx = dbefore;
        }
        dx
    }
}

/// LayerNorm with its parameters, or RMSNorm where it has none.
fn norm_forward<F: Float>(d_model: usize, tensors: &Option<NormTensors>, p: &[F], x: &[F]) -> Vec<F> {
    match tensors {
        Some(norm) => layer_norm::forward(x, &p[norm.scale.clone()], &p[norm.bias.clone()]),
        None => rms_norm::forward(x, d_model),
    }
}

/// dx; adds the parameters' share to `gradient`.
fn norm_backward<F: Float>(
    d_model: usize,
    tensors: &Option<NormTensors>,
    p: &[F],
    x: &[F],
    dy: &[F],
    gradient: &mut [F],
) -> Vec<F> {
    let Some(norm) = tensors else { return rms_norm::backward(x, d_model, dy) };
    let (dx, dscale, dbias) = layer_norm::backward(x, &p[norm.scale.clone()], dy);
    add_to(&mut gradient[norm.scale.clone()], &dscale);
    add_to(&mut gradient[norm.bias.clone()], &dbias);
    dx
}

fn with_bias<F: Float>(x: Vec<F>, bias: &Option<Range<usize>>, p: &[F]) -> Vec<F> {
    match bias {
        Some(range) => bias::forward(&x, &p[range.clone()]),
        None => x,
    }
}

fn bias_backward<F: Float>(bias: &Option<Range<usize>>, dy: &[F], gradient: &mut [F]) {
    if let Some(range) = bias {
        add_to(&mut gradient[range.clone()], &bias::backward(dy, range.len()));
    }
}

fn times<F: Float>(x: &[F], factors: &[F]) -> Vec<F> {
    x.iter().zip(factors).map(|(&x, &factor)| x * factor).collect()
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
