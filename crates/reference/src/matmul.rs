//! Matrix product: y = x W.
//!
//! Shapes: x \[n, i\], W \[i, o\] (`[in, out]`, as in checkpoints), y \[n, o\].

use crate::Float;

/// y\[n,o\] = sum over i of x\[n,i\] W\[i,o\].
pub fn forward<F: Float>(x: &[F], w: &[F], n: usize, inputs: usize, outputs: usize) -> Vec<F> {
    assert_eq!((x.len(), w.len()), (n * inputs, inputs * outputs));
    let mut y = vec![F::ZERO; n * outputs];
    for r in 0..n {
        for o in 0..outputs {
            let mut sum = F::ZERO;
            for i in 0..inputs {
                sum += x[r * inputs + i] * w[i * outputs + o];
            }
            y[r * outputs + o] = sum;
        }
    }
    y
}

/// dx = dy W^T and dW = x^T dy, returned as (dx, dW).
pub fn backward<F: Float>(
    x: &[F],
    w: &[F],
    dy: &[F],
    n: usize,
    inputs: usize,
    outputs: usize,
) -> (Vec<F>, Vec<F>) {
    assert_eq!((x.len(), w.len(), dy.len()), (n * inputs, inputs * outputs, n * outputs));
    let mut dx = vec![F::ZERO; n * inputs];
    for r in 0..n {
        for i in 0..inputs {
            let mut sum = F::ZERO;
            for o in 0..outputs {
                sum += dy[r * outputs + o] * w[i * outputs + o];
            }
            dx[r * inputs + i] = sum;
        }
    }
    let mut dw = vec![F::ZERO; inputs * outputs];
    for i in 0..inputs {
        for o in 0..outputs {
            let mut sum = F::ZERO;
            for r in 0..n {
                sum += x[r * inputs + i] * dy[r * outputs + o];
            }
            dw[i * outputs + o] = sum;
        }
    }
    (dx, dw)
}

/// W \[rows, columns\] turned into \[columns, rows\].
pub fn transpose<F: Float>(w: &[F], rows: usize, columns: usize) -> Vec<F> {
    assert_eq!(w.len(), rows * columns);
    let mut t = vec![F::ZERO; w.len()];
    for r in 0..rows {
        for c in 0..columns {
            t[c * rows + r] = w[r * columns + c];
        }
    }
    t
}
