//! Each backward is the derivative of its forward: the specification of every operation, checked in `f64`.
//!
//! An operation y = f(x) with backward dx(dy) is made a scalar by random weights, s = w . f(x); then dx(w) must be
//! the gradient of s. It is compared with central differences of fourth order along random directions, and
//! along single coordinates. In `f64` these agree to 1e-9 or better at the step chosen here.

use diapason_model::{Architecture, Layout, ModelConfig};
use diapason_random::{Purpose, Stream};
use diapason_reference::{
    adam, attention, bias, cross_entropy, embedding, gelu, layer_norm, loss, loss_and_gradient, matmul,
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
    let (v, d, max_len, t) = (4, 3, 6, 5);
    let inputs = [0, 1, 1, 3, 0, 3, 3, 3, 1, 0];
    let (tokens, positions, dy) = (normal(1, v * d), normal(2, max_len * d), normal(3, inputs.len() * d));
    let (dtokens, dpositions) = embedding::backward(&inputs, &dy, t, d, v, max_len);
    let f = |e: &[f64], p: &[f64]| dot(&embedding::forward(e, p, &inputs, t, d), &dy);
    check_all("dE", &|e| f(e, &positions), &tokens, &dtokens);
    check_all("dP", &|p| f(&tokens, p), &positions, &dpositions);
    // Symbol 2 does not occur, and no window has a sixth position.
    assert!(dtokens[2 * d..3 * d].iter().chain(&dpositions[t * d..]).all(|&g| g == 0.0));
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

/// (vocabulary, d_model, heads, layers, mlp_ratio, max_len, tied), (windows, sequence_length)
type Case = ((usize, usize, usize, usize, f64, usize, bool), (usize, usize));

#[test]
fn whole_model() {
    let cases: [Case; 8] = [
        ((5, 8, 2, 1, 4.0, 6, false), (2, 6)),
        ((5, 8, 2, 1, 4.0, 6, true), (2, 6)),
        ((7, 12, 3, 2, 2.5, 9, false), (3, 4)),
        ((7, 12, 3, 2, 2.5, 9, true), (3, 4)),
        ((27, 16, 16, 1, 0.5, 8, false), (1, 8)),
        ((3, 6, 1, 3, 1.0, 4, true), (4, 3)),
        ((2, 4, 4, 2, 4.0, 1, false), (5, 1)),
        ((1, 4, 2, 1, 4.0, 5, false), (2, 5)),
    ];
    for ((vocabulary, d_model, n_heads, n_layers, mlp_ratio, max_len, tie_embeddings), (windows, t)) in cases
    {
        let model = ModelConfig {
            architecture: Architecture::Seed,
            vocabulary,
            d_model,
            n_heads,
            n_layers,
            mlp_ratio,
            max_len,
            tie_embeddings,
        }
        .validated()
        .unwrap();
        let layout = Layout::new(&model);
        // Every tensor random, biases too, so that every path carries a gradient.
        let mut parameters = normal(21, layout.total);
        for tensor in &layout.tensors {
            let (shift, std) = match (tensor.name.ends_with("scale"), tensor.shape.len()) {
                (true, _) => (1.0, 0.2),
                (false, 2) => (0.0, 1.0 / (tensor.shape[0] as f64).sqrt()),
                _ => (0.0, 0.2),
            };
            parameters[tensor.range.clone()].iter_mut().for_each(|p| *p = shift + std * *p);
        }
        let (inputs, targets) = (symbols(22, windows * t, vocabulary), symbols(23, windows * t, vocabulary));
        let f = |p: &[f64]| loss(&model, p, &inputs, &targets, t);
        let (value, gradient) = loss_and_gradient(&model, &parameters, &inputs, &targets, t);
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
    }
}

#[test]
fn f32_is_the_same_model() {
    let model = ModelConfig {
        architecture: Architecture::Seed,
        vocabulary: 27,
        d_model: 24,
        n_heads: 3,
        n_layers: 2,
        mlp_ratio: 4.0,
        max_len: 16,
        tie_embeddings: false,
    };
    let single = diapason_model::initialise(&model, 5);
    let double: Vec<f64> = single.iter().map(|&p| f64::from(p)).collect();
    let (inputs, targets) = (symbols(1, 36, 27), symbols(2, 36, 27));
    let (loss32, gradient32) = loss_and_gradient(&model, &single, &inputs, &targets, 12);
    let (loss64, gradient64) = loss_and_gradient(&model, &double, &inputs, &targets, 12);
    assert!((f64::from(loss32) / loss64 - 1.0).abs() < 1e-6);
    let largest = gradient64.iter().fold(0f64, |a, g| a.max(g.abs()));
    let error = gradient32.iter().zip(&gradient64).fold(0f64, |a, (&x, y)| a.max((f64::from(x) - y).abs()));
    assert!(error < 1e-5 * largest, "{error} of {largest}");
}
