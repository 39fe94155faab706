//! Sums of vectors and of rows.

use crate::isa::dispatch;
use crate::simd::Simd;

dispatch! {
    /// y += x.
    pub fn add(x: &[f32], y: &mut [f32]) = add_generic;
}

#[inline(always)]
fn add_generic<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    let n = x.len();
    assert_eq!(n, y.len());
    for j in (0..n).step_by(S::LANES) {
        // SAFETY: j < n, the length of both.
        unsafe {
            let p = y.as_mut_ptr().add(j);
            s.store_upto(p, s.add(s.load_upto(p, n - j), s.load_upto(x.as_ptr().add(j), n - j)), n - j);
        }
    }
}

dispatch! {
    /// sum[j] += x[0][j] + x[1][j] + ... for `m` rows with row stride `stride`; the length of `sum` is the width.
    pub fn add_rows(x: &[f32], m: usize, stride: usize, sum: &mut [f32]) = add_rows_generic;
}

#[inline(always)]
fn add_rows_generic<S: Simd>(s: S, x: &[f32], m: usize, stride: usize, sum: &mut [f32]) {
    let n = sum.len();
    for r in 0..m {
        add_generic(s, &x[r * stride..r * stride + n], sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn sums() {
        for isa in Isa::available() {
            let x: Vec<f32> = (0..3 * 40).map(|i| i as f32).collect();
            let mut sum = vec![1.0; 37];
            add_rows(isa, &x, 3, 40, &mut sum);
            for (j, &y) in sum.iter().enumerate() {
                assert_eq!(y, 1.0 + 3.0 * j as f32 + 120.0);
            }
        }
    }
}
