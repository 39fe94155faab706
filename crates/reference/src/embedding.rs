//! Embedding: each position is the sum of rows from some tables.
//!
//! Shapes: a table \[rows, D\], one row number for each of the n positions, x \[n, D\].

use crate::Float;
use crate::float::add_to;

/// x\[n\] += table\[rows\[n\]\].
pub fn forward<F: Float>(table: &[F], rows: &[usize], x: &mut [F]) {
    let d_model = x.len() / rows.len().max(1);
    assert_eq!(x.len(), rows.len() * d_model);
    for (x, &row) in x.chunks_mut(d_model).zip(rows) {
        add_to(x, &table[row * d_model..][..d_model]);
    }
}

/// dtable\[row\] = sum of dx over the positions that name this row; the table has `len` numbers.
pub fn backward<F: Float>(rows: &[usize], dx: &[F], len: usize) -> Vec<F> {
    let d_model = dx.len() / rows.len().max(1);
    assert_eq!(dx.len(), rows.len() * d_model);
    let mut dtable = vec![F::ZERO; len];
    for (dx, &row) in dx.chunks(d_model).zip(rows) {
        add_to(&mut dtable[row * d_model..][..d_model], dx);
    }
    dtable
}
