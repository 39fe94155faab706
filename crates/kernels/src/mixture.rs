//! A mixture of two matrices, y = a x + b z, with one weight each: values with those of the first block, the residual stream with the
//! embedding. The backward pass: dx = a dy, dz = b dy, da = sum of dy x, db = sum of dy z.

use crate::extent;
use crate::isa::dispatch;
use crate::simd::Simd;

dispatch! {
    /// x = a x + b z for `m` rows of `n` numbers with row strides `stride` and `z_stride`; `before`, with the stride of z, keeps x as it was.
    pub fn mix(x: &mut [f32], stride: usize, z: &[f32], z_stride: usize, m: usize, n: usize, weights: [f32; 2], before: &mut [f32]) = forward;
}

#[inline(always)]
fn forward<S: Simd>(
    s: S,
    x: &mut [f32],
    stride: usize,
    z: &[f32],
    z_stride: usize,
    m: usize,
    n: usize,
    [a, b]: [f32; 2],
    before: &mut [f32],
) {
    check(m, n, (stride, &[x]), (z_stride, &[z, before]));
    let (a, b) = (s.splat(a), s.splat(b));
    for r in 0..m {
        for j in (0..n).step_by(S::LANES) {
            let left = n - j;
            // SAFETY: row r of every matrix holds n numbers, checked.
            unsafe {
                let p = x.as_mut_ptr().add(r * stride + j);
                let old = s.load_upto(p, left);
                let z = s.load_upto(z.as_ptr().add(r * z_stride + j), left);
                s.store_upto(before.as_mut_ptr().add(r * z_stride + j), old, left);
                s.store_upto(p, s.mul_add(a, old, s.mul(b, z)), left);
            }
        }
    }
}

dispatch! {
    /// The backward pass: `dy` becomes dx, `dz` += its share; (da, db). `x` as [`mix`] kept it; z, x and dz have row stride `z_stride`.
    pub fn mix_backward(dy: &mut [f32], stride: usize, x: &[f32], z: &[f32], z_stride: usize, m: usize, n: usize, weights: [f32; 2], dz: &mut [f32]) -> [f32; 2] = backward;
}

#[inline(always)]
fn backward<S: Simd>(
    s: S,
    dy: &mut [f32],
    stride: usize,
    x: &[f32],
    z: &[f32],
    z_stride: usize,
    m: usize,
    n: usize,
    [a, b]: [f32; 2],
    dz: &mut [f32],
) -> [f32; 2] {
    check(m, n, (stride, &[dy]), (z_stride, &[x, z, dz]));
    let (a, b) = (s.splat(a), s.splat(b));
    // Many numbers become one: the sums of rows go on in f64.
    let (mut da, mut db) = (0.0f64, 0.0f64);
    for r in 0..m {
        let (mut row_a, mut row_b) = (s.splat(0.0), s.splat(0.0));
        for j in (0..n).step_by(S::LANES) {
            let left = n - j;
            // SAFETY: row r of every matrix holds n numbers, checked; lanes past the end are zeros.
            unsafe {
                let at = r * z_stride + j;
                let p = dy.as_mut_ptr().add(r * stride + j);
                let g = s.load_upto(p, left);
                row_a = s.mul_add(g, s.load_upto(x.as_ptr().add(at), left), row_a);
                row_b = s.mul_add(g, s.load_upto(z.as_ptr().add(at), left), row_b);
                let q = dz.as_mut_ptr().add(at);
                s.store_upto(q, s.mul_add(b, g, s.load_upto(q, left)), left);
                s.store_upto(p, s.mul(a, g), left);
            }
        }
        da += f64::from(s.sum(row_a));
        db += f64::from(s.sum(row_b));
    }
    [da as f32, db as f32]
}

#[inline(always)]
fn check(m: usize, n: usize, (stride, wide): (usize, &[&[f32]]), (z_stride, narrow): (usize, &[&[f32]])) {
    assert!(stride >= n && wide.iter().all(|x| x.len() >= extent(m, stride, n)));
    assert!(z_stride >= n && narrow.iter().all(|x| x.len() >= extent(m, z_stride, n)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};
    use diapason_reference::mixture as plain;

    #[test]
    fn as_the_reference() {
        for isa in Isa::available() {
            for (m, n, pad) in [(3, 64, 16), (2, 37, 0), (4, 1, 3), (1, 15, 1)] {
                let (stride, z_stride, weights) = (2 * n + pad, n + pad, [0.7, -0.4]);
                let (x, z, dy) = (numbers(1, m * stride), numbers(2, m * z_stride), numbers(3, m * stride));
                let start = numbers(4, m * z_stride);
                let (mut y, mut before) = (x.clone(), vec![9.0; m * z_stride]);
                mix(isa, &mut y, stride, &z, z_stride, m, n, weights, &mut before);
                let (mut dx, mut dz) = (dy.clone(), start.clone());
                let [da, db] =
                    mix_backward(isa, &mut dx, stride, &before, &z, z_stride, m, n, weights, &mut dz);
                let dense = |v: &[f32], stride: usize| -> Vec<f64> {
                    (0..m).flat_map(|r| v[r * stride..][..n].iter().map(|&x| f64::from(x))).collect()
                };
                let narrow = |v: &[f32], stride: usize| -> Vec<f32> {
                    (0..m).flat_map(|r| v[r * stride..][..n].to_vec()).collect()
                };
                let (xd, zd, dyd) = (dense(&x, stride), dense(&z, z_stride), dense(&dy, stride));
                let [a, b] = weights.map(f64::from);
                let what = format!("{isa} {m} x {n}");
                assert_close(&narrow(&y, stride), &plain::forward(&xd, &zd, a, b), 1e-6, &what);
                assert_eq!(narrow(&before, z_stride), narrow(&x, stride));
                let expected = plain::backward(&xd, &zd, a, b, &dyd);
                let added: Vec<f64> =
                    dense(&start, z_stride).iter().zip(&expected.1).map(|(x, y)| x + y).collect();
                assert_close(&narrow(&dx, stride), &expected.0, 1e-6, &what);
                assert_close(&narrow(&dz, z_stride), &added, 1e-6, &what);
                assert_close(&[da, db], &[expected.2, expected.3], 1e-6, &what);
                for r in 0..m {
                    assert_eq!(y[r * stride + n..(r + 1) * stride], x[r * stride + n..(r + 1) * stride]);
                }
            }
        }
    }
}
