//! Causal multi-head attention of one sequence (Vaswani et al., 2017), without its projections.
//!
//! Shapes: q, k, v, y \[T, D\]; head h owns columns h D/H .. (h+1) D/H; probabilities \[H, T, T\]. For each head,
//! with the head's columns: s\[t,u\] = q\[t\] . k\[u\] / sqrt(D/H) for u <= t; p\[t\] = softmax of s\[t\] over
//! u <= t; y\[t\] = sum over u of p\[t,u\] v\[u\].

use crate::Float;

/// (y, probabilities); probabilities of later positions are 0.
pub fn forward<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    sequence_length: usize,
    n_heads: usize,
) -> (Vec<F>, Vec<F>) {
    let t_end = sequence_length;
    let d = q.len() / t_end;
    let head_size = d / n_heads;
    assert_eq!((q.len(), k.len(), v.len()), (t_end * head_size * n_heads, q.len(), q.len()));
    let scale = F::ONE / F::from_f64(head_size as f64).sqrt();
    let mut y = vec![F::ZERO; q.len()];
    let mut probabilities = vec![F::ZERO; n_heads * t_end * t_end];
    for head in 0..n_heads {
        let columns = head * head_size..(head + 1) * head_size;
        for t in 0..t_end {
            let p = &mut probabilities[(head * t_end + t) * t_end..][..t + 1];
            for u in 0..=t {
                for c in columns.clone() {
                    p[u] += q[t * d + c] * k[u * d + c];
                }
                p[u] = p[u] * scale;
            }
            // Softmax, shifted by the largest score so that no exponential overflows.
            let largest = p.iter().copied().fold(p[0], |a, b| if b > a { b } else { a });
            for p in p.iter_mut() {
                *p = (*p - largest).exp();
            }
            let sum = p.iter().copied().sum::<F>();
            for u in 0..=t {
                p[u] = p[u] / sum;
                for c in columns.clone() {
                    y[t * d + c] += p[u] * v[u * d + c];
                }
            }
        }
    }
    (y, probabilities)
}

/// (dq, dk, dv). For each head: dv\[u\] = sum over t >= u of p\[t,u\] dy\[t\]; dp\[t,u\] = dy\[t\] . v\[u\];
/// ds\[t,u\] = p\[t,u\] (dp\[t,u\] - sum over w of p\[t,w\] dp\[t,w\]); dq\[t\] = sum over u of ds\[t,u\] k\[u\] /
/// sqrt(D/H); dk\[u\] = sum over t of ds\[t,u\] q\[t\] / sqrt(D/H).
pub fn backward<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    probabilities: &[F],
    dy: &[F],
    sequence_length: usize,
    n_heads: usize,
) -> (Vec<F>, Vec<F>, Vec<F>) {
    let t_end = sequence_length;
    let d = q.len() / t_end;
    let head_size = d / n_heads;
    assert_eq!((q.len(), dy.len()), (t_end * head_size * n_heads, q.len()));
    let scale = F::ONE / F::from_f64(head_size as f64).sqrt();
    let mut dq = vec![F::ZERO; q.len()];
    let mut dk = vec![F::ZERO; q.len()];
    let mut dv = vec![F::ZERO; q.len()];
    for head in 0..n_heads {
        let columns = head * head_size..(head + 1) * head_size;
        for t in 0..t_end {
            let p = &probabilities[(head * t_end + t) * t_end..][..t + 1];
            let mut dp = vec![F::ZERO; t + 1];
            let mut mean = F::ZERO;
            for u in 0..=t {
                for c in columns.clone() {
                    dv[u * d + c] += p[u] * dy[t * d + c];
                    dp[u] += dy[t * d + c] * v[u * d + c];
                }
                mean += p[u] * dp[u];
            }
            for u in 0..=t {
                let ds = p[u] * (dp[u] - mean) * scale;
                for c in columns.clone() {
                    dq[t * d + c] += ds * k[u * d + c];
                    dk[u * d + c] += ds * q[t * d + c];
                }
            }
        }
    }
    (dq, dk, dv)
}
