//! Each backward is the derivative of its forward: the specification of every operation, checked in `f64`.
//!
//! An operation y = f(x) with backward dx(dy) is made a scalar by random weights, s = w . f(x); then dx(w) must be
//! the gradient of s. It is compared with central differences of fourth order along random directions, and
//! along single coordinates. In `f64` these agree to 1e-9 or better at the step chosen here.

use diapason_model::{Activation, Layout, LossPositions, ModelConfig, Norm, Positions};
use diapason_random::{Purpose, Stream};
use diapason_reference::{
    activation, adam, attention, bias, cross_entropy, dropout, embedding, gelu, layer_norm, loss,
    loss_and_gradient, matmul, mixture, positions, rms_norm, softcap,
};

/// Relative to the largest term that goes into the derivative.
const BOUND: f64 = 1e-8;

/// Standard normal numbers.
fn normal(tensor: u64, n: usize) -> Vec<f64> {
    let stream = Stream::new(11, Purpose::Test, tensor);
    (0..n as u64).map(|i| stream.normal(i)).collect()
}

fn symbols(tensor: u64, n: usize, vocabulary: usize) -> Vec<u8> {
    let stream = Stream::new(12, Purpose::Test, tensor);
    (0..n as u64).map(|i| stream.below(i, vocabulary as u64) as u8).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The derivative of `f` at `x` along `direction`: (8 (f(+h) - f(-h)) - (f(+2h) - f(-2h))) / 12h, error O(h^4).
fn slope(f: &dyn Fn(&[f64]) -> f64, x: &[f64], direction: &[f64]) -> f64 {
    let h = 3e-4 / dot(direction, direction).sqrt().max(1.0);
    let at = |k: f64| {
        let moved: Vec<f64> = x.iter().zip(direction).map(|(x, d)| x + k * h * d).collect();
        f(&moved)
    };
    (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * h)
}

/// Compares `gradient` with the slopes of `f` along `directions` random directions and along the coordinates
/// `coordinates`.
#[track_caller]
fn check(
    what: &str,
    f: &dyn Fn(&[f64]) -> f64,
    x: &[f64],
    gradient: &[f64],
    directions: u64,
    coordinates: impl Iterator<Item = usize>,
) {
    assert_eq!(x.len(), gradient.len(), "{what}");
    let length = dot(gradient, gradient).sqrt();
    for k in 0..directions {
        let direction = normal(1_000 + k, x.len());
        let (expected, got) = (slope(f, x, &direction), dot(gradient, &direction));
        // A random direction's slope is about as large as the gradient is long.
        let error = (expected - got).abs() / length.max(1e-3);
        assert!(error < BOUND, "{what}: direction {k}: {got}, not {expected}: error {error:.1e}");
    }
    let largest = gradient.iter().fold(1e-3f64, |a, g| a.max(g.abs()));
    for i in coordinates {
        let mut direction = vec![0.0; x.len()];
        direction[i] = 1.0;
        let expected = slope(f, x, &direction);
        let error = (expected - gradient[i]).abs() / largest;
        assert!(error < BOUND, "{what}: coordinate {i}: {}, not {expected}: error {error:.1e}", gradient[i]);
    }
}

/// [`check`] with every coordinate.
#[track_caller]
fn check_all(what: &str, f: &dyn Fn(&[f64]) -> f64, x: &[f64], gradient: &[f64]) {
    check(what, f, x, gradient, 5, 0..x.len());
}

#[test]
fn matrix_product() {
    for (n, i, o) in [(1, 1, 1), (3, 4, 5), (7, 2, 3), (2, 9, 1)] {
        let (x, w, dy) = (normal(1, n * i), normal(2, i * o), normal(3, n * o));
        let (dx, dw) = matmul::backward(&x, &w, &dy, n, i, o);
        check_all("dx", &|x| dot(&matmul::forward(x, &w, n, i, o), &dy), &x, &dx);
        check_all("dW", &|w| dot(&matmul::forward(&x, w, n, i, o), &dy), &w, &dw);
    }
    // The formula itself, by hand: [1 2; 3 4] [5 6 7; 8 9 10].
    let y = matmul::forward(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0, 9.0, 10.0], 2, 2, 3);
    assert_eq!(y, [21.0, 24.0, 27.0, 47.0, 54.0, 61.0]);
    assert_eq!(matmul::transpose(&y, 2, 3), [21.0, 47.0, 24.0, 54.0, 27.0, 61.0]);
}

#[test]
fn bias_() {
    let (x, b, dy) = (normal(1, 12), normal(2, 3), normal(3, 12));
    check_all("db", &|b| dot(&bias::forward(&x, b), &dy), &b, &bias::backward(&dy, 3));
    check_all("dx", &|x| dot(&bias::forward(x, &b), &dy), &x, &dy);
}

#[test]
fn layer_norm_() {
    for (n, d) in [(1, 2), (4, 8), (3, 33)] {
        let (x, scale, b, dy) = (normal(1, n * d), normal(2, d), normal(3, d), normal(4, n * d));
        let (dx, dscale, dbias) = layer_norm::backward(&x, &scale, &dy);
        check_all("dx", &|x| dot(&layer_norm::forward(x, &scale, &b), &dy), &x, &dx);
        check_all("dscale", &|s| dot(&layer_norm::forward(&x, s, &b), &dy), &scale, &dscale);
        check_all("dbias", &|b| dot(&layer_norm::forward(&x, &scale, b), &dy), &b, &dbias);
    }
    // The epsilon: a row of (a, -a) has variance a^2, so y = a / sqrt(a^2 + 1e-6).
    let y = layer_norm::forward(&[1e-3, -1e-3], &[1.0, 1.0], &[0.0, 0.0]);
    assert!((y[0] - 0.5f64.sqrt()).abs() < 1e-7, "{y:?}");
    // A width of 1 has no variance: y is the bias, and nothing flows back.
    assert_eq!(layer_norm::forward(&[5.0], &[2.0], &[0.25]), [0.25]);
    assert_eq!(layer_norm::backward(&[5.0], &[2.0], &[1.0]), (vec![0.0], vec![0.0], vec![1.0]));
}

#[test]
fn gelu_() {
    let mut x = normal(1, 40);
    x.extend([-6.0, -3.0, 0.0, 3.0, 6.0]);
    let dy = normal(2, x.len());
    check_all("dx", &|x| dot(&gelu::forward(x), &dy), &x, &gelu::backward(&x, &dy));
    // Near the Gaussian form x Phi(x), which the tanh form approximates to 1e-3, and exact at the ends.
    let y = gelu::forward(&[-30.0f64, -1.0, 0.0, 1.0, 30.0]);
    let gaussian = 0.841_344_746_068_543;
    assert!(y[0].abs() < 1e-12 && y[2] == 0.0 && y[4] == 30.0, "{y:?}");
    assert!((y[1] + 1.0 - gaussian).abs() < 1e-3 && (y[3] - gaussian).abs() < 1e-3, "{y:?}");
}

#[test]
fn attention_() {
    for (t, d, h) in [(1, 4, 2), (2, 3, 3), (5, 6, 1), (7, 12, 3)] {
        let (q, k, v, dy) = (normal(1, t * d), normal(2, t * d), normal(3, t * d), normal(4, t * d));
        let (y, p) = attention::forward(&q, &k, &v, t, h);
        let (dq, dk, dv) = attention::backward(&q, &k, &v, &p, &dy, t, h);
        check_all("dq", &|q| dot(&attention::forward(q, &k, &v, t, h).0, &dy), &q, &dq);
        check_all("dk", &|k| dot(&attention::forward(&q, k, &v, t, h).0, &dy), &k, &dk);
        check_all("dv", &|v| dot(&attention::forward(&q, &k, v, t, h).0, &dy), &v, &dv);
        // Each row is a distribution over the past; the first position attends to itself alone.
        for (row, p) in p.chunks(t).enumerate() {
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(p[row % t + 1..].iter().all(|&p| p == 0.0));
        }
        assert_eq!(y[..d], v[..d]);
    }
    // Two positions, one head of size 4, by hand: scores 0 and ln 3 after the scale of 1/2.
    let (q, k) = ([0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 3f64.ln(), 0.0, 0.0, 0.0]);
    let v = [8.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 1.0];
    let (y, p) = attention::forward(&q, &k, &v, 2, 1);
    assert!((p[2] - 0.25).abs() < 1e-15 && (p[3] - 0.75).abs() < 1e-15, "{p:?}");
    assert!((y[4] - 5.0).abs() < 1e-14 && (y[7] - 0.75).abs() < 1e-15, "{y:?}");
}

#[test]
fn embedding_() {
    let (rows, d) = (4, 3);
    let inputs = [0, 1, 1, 3, 0, 3, 3, 3, 1, 0];
    let (table, x, dy) = (normal(1, rows * d), normal(2, inputs.len() * d), normal(3, inputs.len() * d));
    let dtable = embedding::backward(&inputs, &dy, table.len());
    let f = |table: &[f64]| {
        let mut x = x.clone();
        embedding::forward(table, &inputs, &mut x);
        dot(&x, &dy)
    };
    check_all("dtable", &f, &table, &dtable);
    // Row 2 is not named.
    assert!(dtable[2 * d..3 * d].iter().all(|&g| g == 0.0));
}

#[test]
fn rms_norm_() {
    for (n, d) in [(1, 2), (4, 8), (3, 33)] {
        let (x, dy) = (normal(1, n * d), normal(2, n * d));
        check_all("dx", &|x| dot(&rms_norm::forward(x, d), &dy), &x, &rms_norm::backward(&x, d, &dy));
    }
    // By hand: the mean square of (3, 4) is 12.5. And the epsilon.
    let y = rms_norm::forward(&[3.0, 4.0], 2);
    assert!((y[0] - 3.0 / 12.500_001f64.sqrt()).abs() < 1e-14, "{y:?}");
    let y = rms_norm::forward(&[1e-3, -1e-3], 2);
    assert!((y[0] - 0.5f64.sqrt()).abs() < 1e-7, "{y:?}");
}

#[test]
fn positions_() {
    for (b, t, d, h) in [(1, 3, 8, 2), (2, 5, 10, 2), (2, 2, 3, 3), (1, 4, 5, 1)] {
        let (x, dy) = (normal(1, b * t * d), normal(2, b * t * d));
        let dx = positions::rotary_backward(&dy, t, d, h);
        check_all("dx", &|x| dot(&positions::rotary_forward(x, t, d, h), &dy), &x, &dx);
    }
    // By hand: two heads of four channels at position 3; pairs (0, 2) and (1, 3), angles 3 and 3 / 100.
    let x: Vec<f64> = (0..3 * 8).map(|_| 0.0).chain([1.0, 0.0, 0.0, 2.0, 0.0, 5.0, 1.0, 0.0]).collect();
    let y = positions::rotary_forward(&x, 4, 8, 2);
    let (c0, s0, c1, s1) = (3f64.cos(), 3f64.sin(), 0.03f64.cos(), 0.03f64.sin());
    let expected = [c0, -2.0 * s1, s0, 2.0 * c1, -s0, 5.0 * c1, c0, 5.0 * s1];
    assert!(y[24..].iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-14), "{y:?}");
    // What attention sees depends on how far apart two positions are, not on where they are.
    let (q, k) = (normal(1, 6), normal(2, 6));
    let everywhere = |x: &[f64]| positions::rotary_forward(&x.repeat(9), 9, 6, 1);
    let (q, k) = (everywhere(&q), everywhere(&k));
    let score = |i: usize, j: usize| dot(&q[6 * i..][..6], &k[6 * j..][..6]);
    assert!((score(3, 1) - score(8, 6)).abs() < 1e-13 && (score(3, 1) - score(3, 2)).abs() > 1e-3);
    // The table: sin and cos in turns.
    let table = positions::sinusoidal::<f64>(3, 5);
    let expected = [2f64.sin(), 2f64.cos(), (2.0 / 10_000f64.powf(0.4)).sin()];
    assert!(table[10..13].iter().zip(expected).all(|(x, e)| (x - e).abs() < 1e-15), "{table:?}");
    assert_eq!(table[..5], [0.0, 1.0, 0.0, 1.0, 0.0]);
}

#[test]
fn activations() {
    type Forward = fn(&[f64]) -> Vec<f64>;
    type Backward = fn(&[f64], &[f64]) -> Vec<f64>;
    let all: [(&str, Forward, Backward, [f64; 2]); 3] = [
        ("relu", activation::relu_forward, activation::relu_backward, [0.0, 2.0]),
        ("relu squared", activation::relu_squared_forward, activation::relu_squared_backward, [0.0, 4.0]),
        (
            "silu",
            activation::silu_forward,
            activation::silu_backward,
            [-2.0 / (1.0 + 2f64.exp()), 2.0 / (1.0 + (-2f64).exp())],
        ),
    ];
    let (x, dy) = (normal(1, 40), normal(2, 40));
    for (what, forward, backward, by_hand) in all {
        check_all(what, &|x| dot(&forward(x), &dy), &x, &backward(&x, &dy));
        let y = forward(&[-2.0, 2.0]);
        assert!((y[0] - by_hand[0]).abs() < 1e-15 && (y[1] - by_hand[1]).abs() < 1e-15, "{what}: {y:?}");
    }
    let value = normal(3, 40);
    let (dgate, dvalue) = activation::swiglu_backward(&x, &value, &dy);
    check_all("dgate", &|gate| dot(&activation::swiglu_forward(gate, &value), &dy), &x, &dgate);
    check_all("dvalue", &|value| dot(&activation::swiglu_forward(&x, value), &dy), &value, &dvalue);
    assert_eq!(activation::swiglu_forward(&[0.0, 1e3], &[5.0, 3.0]), [0.0, 3e3]);
}

#[test]
fn softcap_() {
    let (x, dy) = (normal(1, 30), normal(2, 30));
    for c in [0.7, 15.0] {
        check_all("dx", &|x| dot(&softcap::forward(x, c), &dy), &x, &softcap::backward(&x, c, &dy));
    }
    let y = softcap::forward(&[30.0, -1e9, 0.0], 15.0);
    assert!((y[0] - 15.0 * 2f64.tanh()).abs() < 1e-14 && y[1..] == [-15.0, 0.0], "{y:?}");
}

#[test]
fn mixture_() {
    let (x, z, dy, w) = (normal(1, 20), normal(2, 20), normal(3, 20), normal(4, 2));
    let (dx, dz, da, db) = mixture::backward(&x, &z, w[0], w[1], &dy);
    check_all("dx", &|x| dot(&mixture::forward(x, &z, w[0], w[1]), &dy), &x, &dx);
    check_all("dz", &|z| dot(&mixture::forward(&x, z, w[0], w[1]), &dy), &z, &dz);
    check_all("da, db", &|w| dot(&mixture::forward(&x, &z, w[0], w[1]), &dy), &w, &[da, db]);
}

#[test]
fn dropout_factors() {
    let stream = Stream::new(5, Purpose::Dropout, 7);
    let (n, d) = (40, 100);
    let factors: Vec<f64> = dropout::factors(&stream, 0.2, 1, n, d);
    // Each is 0 or what makes up for the zeros; about one in five is 0.
    let kept = 65536.0 / (65536.0f64 * 0.8).round();
    assert!(factors.iter().all(|&factor| factor == 0.0 || factor == kept));
    let zeros = factors.iter().filter(|&&factor| factor == 0.0).count() as f64;
    assert!((zeros / (n * d) as f64 - 0.2).abs() < 0.02, "{zeros}");
    assert_ne!(factors, dropout::factors::<f64>(&stream, 0.2, 0, n, d));
    assert_ne!(factors, dropout::factors::<f64>(&Stream::new(5, Purpose::Dropout, 8), 0.2, 1, n, d));
    assert!(dropout::factors::<f64>(&stream, 0.0, 1, n, d).iter().all(|&factor| factor == 1.0));
}

#[test]
fn cross_entropy_() {
    for (n, v) in [(1, 1), (4, 2), (6, 27)] {
        let (logits, targets) = (normal(1, n * v), symbols(2, n, v));
        let mean = |x: &[f64]| cross_entropy::forward(x, &targets, v).0.iter().sum::<f64>() / n as f64;
        check_all("dlogits", &mean, &logits, &cross_entropy::backward(&logits, &targets, v));
    }
    // The first of equals is the guess; huge logits do not overflow.
    let (losses, hits) =
        cross_entropy::forward(&[1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1e4], &[0, 1, 0], 3);
    assert_eq!(hits, [true, false, false]);
    assert!((losses[0] - (2.0 + (-1f64).exp()).ln()).abs() < 1e-15 && losses[2] == 1e4, "{losses:?}");
}

#[test]
fn adam_by_hand() {
    // With g = 2 at the first update m/(1-beta1) = 2 and v/(1-beta2) = 4: the step is lr 2 / (2 + epsilon).
    let (mut p, mut m, mut v) = ([1.0, 5.0], [0.0; 2], [0.0; 2]);
    let mut settings =
        adam::Settings { number: 1, learning_rate: 0.5, beta1: 0.9, beta2: 0.99, epsilon: 1.0 };
    adam::update(&mut p, &mut m, &mut v, &[2.0, 0.0], &settings);
    assert!((p[0] - (1.0f64 - 0.5 * 2.0 / 3.0)).abs() < 1e-14 && p[1] == 5.0, "{p:?}");
    // Then g = -1: m = 0.9 x 0.2 - 0.1 = 0.08, v = 0.99 x 0.04 + 0.01 = 0.0496, corrections 0.19 and 0.0199.
    settings.number = 2;
    adam::update(&mut p, &mut m, &mut v, &[-1.0, 0.0], &settings);
    let step = 0.5 * (0.08 / 0.19) / ((0.0496f64 / 0.0199).sqrt() + 1.0);
    assert!((p[0] - (2.0 / 3.0 - step)).abs() < 1e-14 && p[1] == 5.0, "{p:?}");
}

/// A small model of these parts: vocabulary, d_model, heads, layers, mlp_ratio, max_len.
fn sized(size: (usize, usize, usize, usize, f64, usize), parts: ModelConfig) -> ModelConfig {
    let (vocabulary, d_model, n_heads, n_layers, mlp_ratio, max_len) = size;
    ModelConfig { vocabulary, d_model, n_heads, n_layers, mlp_ratio, max_len, ..parts }.validated().unwrap()
}

#[test]
fn whole_model() {
    let seed = ModelConfig::default();
    let tied = ModelConfig { tie_embeddings: true, ..seed };
    let fast = ModelConfig {
        norm: Norm::RmsNorm,
        positions: Positions::Rotary,
        activation: Activation::ReluSquared,
        mlp_bias: false,
        qk_norm: true,
        logit_softcap: 2.0,
        embedding_norm: true,
        ngram_table: 2,
        value_residual: true,
        ..seed
    };
    let other = ModelConfig {
        positions: Positions::Sinusoidal,
        activation: Activation::Swiglu,
        ngram_table: 3,
        embedding_residual: true,
        dropout: 0.3,
        loss_positions: LossPositions::Last,
        ..seed
    };
    let cases = [
        (sized((5, 8, 2, 1, 4.0, 6), seed), (2, 6)),
        (sized((5, 8, 2, 1, 4.0, 6), tied), (2, 6)),
        (sized((7, 12, 3, 2, 2.5, 9), seed), (3, 4)),
        (sized((7, 12, 3, 2, 2.5, 9), tied), (3, 4)),
        (sized((27, 16, 16, 1, 0.5, 8), seed), (1, 8)),
        (sized((3, 6, 1, 3, 1.0, 4), tied), (4, 3)),
        (sized((2, 4, 4, 2, 4.0, 1), seed), (5, 1)),
        (sized((1, 4, 2, 1, 4.0, 5), seed), (2, 5)),
        (sized((7, 12, 3, 3, 2.0, 9), fast), (3, 5)),
        (sized((4, 10, 2, 1, 2.0, 5), ModelConfig { tie_embeddings: true, ..fast }), (2, 5)),
        (sized((5, 8, 2, 3, 1.5, 6), other), (3, 6)),
        (sized((5, 8, 2, 2, 1.5, 6), ModelConfig { mlp_bias: false, ..other }), (3, 4)),
        // Each part for itself, on the model of the notebook.
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { norm: Norm::RmsNorm, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { positions: Positions::Rotary, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { positions: Positions::Sinusoidal, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { positions: Positions::None, ..seed }), (2, 6)),
        // Few hidden values, none of which comes across the bend within a step of the differences.
        (sized((5, 8, 2, 2, 1.0, 6), ModelConfig { activation: Activation::Relu, ..seed }), (1, 5)),
        (sized((5, 8, 2, 2, 1.0, 6), ModelConfig { activation: Activation::ReluSquared, ..seed }), (1, 5)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { activation: Activation::Silu, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { activation: Activation::Swiglu, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { mlp_bias: false, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { qk_norm: true, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { logit_softcap: 1.5, ..tied }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { embedding_norm: true, ..tied }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { ngram_table: 2, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { ngram_table: 4, ngram_rows: 40, ..tied }), (2, 6)),
        (sized((5, 8, 2, 3, 2.0, 6), ModelConfig { value_residual: true, ..seed }), (2, 6)),
        (sized((5, 8, 2, 3, 2.0, 6), ModelConfig { embedding_residual: true, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { dropout: 0.5, ..seed }), (2, 6)),
        (sized((5, 8, 2, 2, 2.0, 6), ModelConfig { loss_positions: LossPositions::Last, ..seed }), (3, 4)),
    ];
    let masks = Stream::new(3, Purpose::Dropout, 1);
    for (model, (windows, t)) in cases {
        let layout = Layout::new(&model);
        // Every tensor random, biases too, so that every path carries a gradient.
        let mut parameters = normal(21, layout.total);
        for tensor in &layout.tensors {
            let (shift, std) = match (tensor.name.ends_with("scale"), tensor.shape.len()) {
                (true, _) => (1.0, 0.2),
                _ if tensor.name.ends_with("residual") => (0.6, 0.2),
                (false, 2) => (0.0, 1.0 / (tensor.shape[0] as f64).sqrt()),
                _ => (0.0, 0.2),
            };
            parameters[tensor.range.clone()].iter_mut().for_each(|p| *p = shift + std * *p);
        }
        let vocabulary = model.vocabulary;
        let (inputs, targets) = (symbols(22, windows * t, vocabulary), symbols(23, windows * t, vocabulary));
        let f = |p: &[f64]| loss(&model, p, &inputs, &targets, t, Some(&masks));
        let (value, gradient) = loss_and_gradient(&model, &parameters, &inputs, &targets, t, Some(&masks));
        assert_eq!(value, f(&parameters));
        let what = format!("{model:?}, {windows} x {t}");
        check(&what, &f, &parameters, &gradient, 5, std::iter::empty());
        // Single coordinates of every tensor, each tensor judged by its own largest gradient.
        for tensor in &layout.tensors {
            let range = tensor.range.clone();
            let alone = |values: &[f64]| {
                let mut p = parameters.clone();
                p[range.clone()].copy_from_slice(values);
                f(&p)
            };
            check(
                &format!("{what}: {}", tensor.name),
                &alone,
                &parameters[range.clone()],
                &gradient[range.clone()],
                2,
                (0..range.len()).step_by(range.len().div_ceil(5)),
            );
        }
        // Without masks nothing is dropped out.
        let whole = loss(&model, &parameters, &inputs, &targets, t, None);
        assert_eq!(whole == value, model.dropout == 0.0, "{what}");
    }
}

#[test]
fn f32_is_the_same_model() {
    let model = ModelConfig { d_model: 24, n_heads: 3, n_layers: 2, max_len: 16, ..ModelConfig::default() };
    let single = diapason_model::initialise(&model, 5);
    let double: Vec<f64> = single.iter().map(|&p| f64::from(p)).collect();
    let (inputs, targets) = (symbols(1, 36, 27), symbols(2, 36, 27));
    let (loss32, gradient32) = loss_and_gradient(&model, &single, &inputs, &targets, 12, None);
    let (loss64, gradient64) = loss_and_gradient(&model, &double, &inputs, &targets, 12, None);
    assert!((f64::from(loss32) / loss64 - 1.0).abs() < 1e-6);
    let largest = gradient64.iter().fold(0f64, |a, g| a.max(g.abs()));
    let error = gradient32.iter().zip(&gradient64).fold(0f64, |a, (&x, y)| a.max((f64::from(x) - y).abs()));
    assert!(error < 1e-5 * largest, "{error} of {largest}");
}
