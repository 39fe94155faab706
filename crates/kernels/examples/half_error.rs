//! How far products are off when their operands are rounded: to integers with a quantum for each chunk along k, for every length
//! of chunk, and to bfloat16. Sums are exact, so that only the rounding counts. The table of docs/precision.md.
//!
//! `cargo run --release --example half_error -p diapason-kernels`
#![allow(clippy::print_stdout)]

/// Rows of both operands, and numbers in each.
const N: usize = 96;
const K: usize = 1024;

/// The numbers of a row, rounded.
type Rounding<'a> = &'a dyn Fn(&[f32]) -> Vec<f64>;

/// Numbers like those of a normal distribution.
fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() / 2.0).collect()
}

/// Multiples of a quantum that is the largest of each chunk over as much as 32 bits can sum up; `power`: of the next power of two.
fn integers(row: &[f32], chunk: usize, power: bool) -> Vec<f64> {
    let most = (f64::from(1u32 << 31) / chunk as f64 - 1.0).sqrt().floor();
    let round = |chunk: &[f32]| {
        let largest = chunk.iter().fold(0.0f64, |m, x| m.max(f64::from(x.abs())));
        let quantum = if power {
            (largest.log2().floor() + 1.0).exp2() / (most + 1.0).log2().floor().exp2()
        } else {
            largest / most
        };
        chunk.iter().map(|&x| (f64::from(x) / quantum).round_ties_even() * quantum).collect::<Vec<_>>()
    };
    row.chunks(chunk).flat_map(round).collect()
}

fn bfloat16(row: &[f32]) -> Vec<f64> {
    let round = |x: &f32| {
        let bits = x.to_bits();
        f64::from(f32::from_bits((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000))
    };
    row.iter().map(round).collect()
}

/// Relative root mean square error of A B^T, and the mean error in units of its standard error.
fn error(a: &[f32], b: &[f32], round: Rounding<'_>) -> (f64, f64) {
    let rounded = |x: &[f32]| x.chunks(K).map(round).collect::<Vec<_>>();
    let (ra, rb) = (rounded(a), rounded(b));
    let (mut square, mut size, mut sum) = (0.0, 0.0, 0.0);
    for i in 0..N {
        for j in 0..N {
            let (mut exact, mut found) = (0.0, 0.0);
            for k in 0..K {
                exact += f64::from(a[i * K + k]) * f64::from(b[j * K + k]);
                found += ra[i][k] * rb[j][k];
            }
            let d = found - exact;
            square += d * d;
            size += exact * exact;
            sum += d;
        }
    }
    (f64::sqrt(square / size), sum / f64::sqrt(square))
}

fn main() {
    let flat = (normal(1, N * K), normal(2, N * K));
    // Cubes of normal numbers: one in a thousand is 35 times as large as most.
    let cubes = |x: &[f32]| x.iter().map(|x| x * x * x).collect::<Vec<_>>();
    let tails = (cubes(&flat.0), cubes(&flat.1));
    println!("relative error: normal numbers | their cubes | mean error of the former, in standard errors");
    let line = |name: &str, round: Rounding<'_>| {
        let (even, lean) = error(&flat.0, &flat.1, round);
        let heavy = error(&tails.0, &tails.1, round).0;
        println!("{name:>28}: {even:.2e} | {heavy:.2e} | {lean:+.1}");
    };
    for chunk in [16, 32, 64, 128, 256, 512, 1024] {
        line(&format!("chunks of {chunk}"), &|row| integers(row, chunk, false));
        line(&format!("{chunk}, powers of two"), &|row| integers(row, chunk, true));
    }
    line("bfloat16", &bfloat16);
}
