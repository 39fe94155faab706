//! Sums and products of vectors, element by element, and sums over them.

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

dispatch! {
    /// y = a y.
    pub fn scale(a: f32, y: &mut [f32]) = scale_generic;
}

#[inline(always)]
fn scale_generic<S: Simd>(s: S, a: f32, y: &mut [f32]) {
    let (n, a) = (y.len(), s.splat(a));
    for j in (0..n).step_by(S::LANES) {
        // SAFETY: j < n.
        unsafe {
            let p = y.as_mut_ptr().add(j);
            s.store_upto(p, s.mul(a, s.load_upto(p, n - j)), n - j);
        }
    }
}

dispatch! {
    /// y = x y, element by element.
    pub fn multiply(x: &[f32], y: &mut [f32]) = multiply_generic;
}

#[inline(always)]
fn multiply_generic<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    let n = x.len();
    assert_eq!(n, y.len());
    for j in (0..n).step_by(S::LANES) {
        // SAFETY: j < n, the length of both.
        unsafe {
            let p = y.as_mut_ptr().add(j);
            s.store_upto(p, s.mul(s.load_upto(x.as_ptr().add(j), n - j), s.load_upto(p, n - j)), n - j);
        }
    }
}

dispatch! {
    /// y += share (x - y).
    pub fn approach(share: f32, x: &[f32], y: &mut [f32]) = approach_generic;
}

#[inline(always)]
fn approach_generic<S: Simd>(s: S, share: f32, x: &[f32], y: &mut [f32]) {
    let (n, share) = (x.len(), s.splat(share));
    assert_eq!(n, y.len());
    for j in (0..n).step_by(S::LANES) {
        // SAFETY: j < n, the length of both.
        unsafe {
            let p = y.as_mut_ptr().add(j);
            let y = s.load_upto(p, n - j);
            let apart = s.sub(s.load_upto(x.as_ptr().add(j), n - j), y);
            s.store_upto(p, s.mul_add(share, apart, y), n - j);
        }
    }
}

dispatch! {
    /// sums += x^2, element by element.
    pub fn add_squares(x: &[f32], sums: &mut [f32]) = add_squares_generic;
}

#[inline(always)]
fn add_squares_generic<S: Simd>(s: S, x: &[f32], sums: &mut [f32]) {
    let n = x.len();
    assert_eq!(n, sums.len());
    for j in (0..n).step_by(S::LANES) {
        // SAFETY: j < n, the length of both.
        unsafe {
            let (x, p) = (s.load_upto(x.as_ptr().add(j), n - j), sums.as_mut_ptr().add(j));
            s.store_upto(p, s.mul_add(x, x, s.load_upto(p, n - j)), n - j);
        }
    }
}

dispatch! {
    /// The sum of x^2. Each lane is summed up in f32, so `x` should not be longer than some thousands of numbers.
    pub fn sum_of_squares(x: &[f32]) -> f32 = sum_of_squares_generic;
}

#[inline(always)]
fn sum_of_squares_generic<S: Simd>(s: S, x: &[f32]) -> f32 {
    let n = x.len();
    // Four sums, so that none waits for itself.
    let mut sums = [s.splat(0.0); 4];
    for (i, j) in (0..n).step_by(S::LANES).enumerate() {
        // SAFETY: j < n.
        let x = unsafe { s.load_upto(x.as_ptr().add(j), n - j) };
        sums[i % 4] = s.mul_add(x, x, sums[i % 4]);
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
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

    #[test]
    fn products_and_squares() {
        for isa in Isa::available() {
            for n in [1, 4, 37, 64] {
                let x: Vec<f32> = (0..n).map(|i| i as f32 - 3.0).collect();
                let mut y = x.clone();
                scale(isa, 0.5, &mut y);
                assert!((0..n).all(|i| y[i] == 0.5 * x[i]));
                multiply(isa, &x, &mut y);
                assert!((0..n).all(|i| y[i] == 0.5 * x[i] * x[i]));
                add_squares(isa, &x, &mut y);
                assert!((0..n).all(|i| y[i] == 1.5 * x[i] * x[i]));
                assert_eq!(sum_of_squares(isa, &x), x.iter().map(|x| x * x).sum());
                let mut y = vec![1.0; n];
                approach(isa, 0.25, &x, &mut y);
                assert!((0..n).all(|i| y[i] == 1.0 + 0.25 * (x[i] - 1.0)));
            }
        }
    }
}
