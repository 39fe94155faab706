//! Bias: y = x + b, the same b \[D\] on every row of x \[n, D\].

use crate::Float;

/// y\[n,d\] = x\[n,d\] + b\[d\]; D is the length of `b`.
pub fn forward<F: Float>(x: &[F], b: &[F]) -> Vec<F> {
    assert_eq!(x.len() % b.len(), 0);
    x.iter().enumerate().map(|(i, &x)| x + b[i % b.len()]).collect()
}

/// db\[d\] = sum over n of dy\[n,d\]; dx is dy itself.
pub fn backward<F: Float>(dy: &[F], width: usize) -> Vec<F> {
    assert_eq!(dy.len() % width, 0);
    let mut db = vec![F::ZERO; width];
    for row in dy.chunks(width) {
        crate::float::add_to(&mut db, row);
    }
    db
}
