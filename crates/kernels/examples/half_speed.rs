//! Products in half precision beside those in f32, in turns on one thread: how much faster, and how exact. Half precision rounds
//! its rows anew in each product, as a training step does; weight gradients are timed with and without rounding their operands.
//!
//! `cargo run --release --example half_speed -p diapason-kernels [instruction set]`
#![allow(clippy::print_stdout)]

use diapason_kernels::{
    Init, Isa, Packed, Part, Precision, Stretch, gemm, gemm_transposed, gemm_transposed_half, half_rows_len,
    padded, round_columns,
};

/// Seconds of processor time of this thread: other programs do not count.
fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time that it points to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

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

/// Medians over rounds: seconds of the first, and how many times as long each takes as the last.
fn turns(fs: &mut [&mut dyn FnMut()]) -> (f64, Vec<f64>) {
    let mut times = vec![Vec::new(); fs.len()];
    for _ in 0..31 {
        for (f, times) in fs.iter_mut().zip(&mut times) {
            let start = now();
            f();
            times.push(now() - start);
        }
    }
    let median = |mut x: Vec<f64>| {
        x.sort_by(f64::total_cmp);
        x[x.len() / 2]
    };
    let first = times[0].clone();
    let ratio = |t: &Vec<f64>| median(first.iter().zip(t).map(|(f, t)| f / t).collect());
    (median(first.clone()), times.iter().map(ratio).collect())
}

fn difference(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let d: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (d / a.iter().map(|a| square(f64::from(*a))).sum::<f64>()).sqrt()
}

fn main() {
    let isa =
        std::env::args().nth(1).map_or(Isa::detect(), |name| Isa::named(&name).unwrap_or(Isa::detect()));
    println!("{isa}, pair products in one instruction: {}", isa.has_pair_products());
    for (m, k, n) in [
        (256, 256, 768),
        (256, 256, 256),
        (256, 256, 1024),
        (256, 1024, 256),
        (256, 768, 256),
        (256, 256, 27),
    ] {
        let (ld_a, ld_c) = (padded(k), padded(n));
        let (a, b) = (normal(1, m * ld_a), normal(2, k * n));
        let pack = |precision| {
            let mut packed = Packed::new(isa, precision, k, n);
            packed.pack(&[Part::new(&b, n, (0, 0), (k, n))]);
            packed
        };
        let (single, half) = (pack(Precision::F32), pack(Precision::Half));
        let (mut c, mut d) = (vec![0.0; m * ld_c], vec![0.0; m * ld_c]);
        let mut scratch = vec![0.0; half_rows_len(m, k)];
        let (seconds, ratios) = turns(&mut [
            &mut || gemm(isa, (&a, ld_a), &single, m, Init::Zero, &mut c, ld_c, &[], &mut []),
            &mut || gemm(isa, (&a, ld_a), &half, m, Init::Zero, &mut d, ld_c, &[], &mut scratch),
        ]);
        let rate = 2.0 * (m * n * k) as f64 / seconds / 1e9;
        let error = difference(&c, &d);
        println!(
            "{m} x {k} x {n}: f32 {rate:.1} GFLOP/s, half {:.2} times as fast, error {error:.1e}",
            ratios[1]
        );
    }
    // Weight gradients: a rectangle of 128 x 256, positions of one item.
    for k in [64, 128, 256] {
        let (m, n) = (128, 256);
        let (ld_x, ld_dy, ld_c) = (padded(m), padded(n), padded(n));
        let (x, dy) = (normal(1, (k + 1) * ld_x), normal(2, (k + 1) * ld_dy));
        let (mut c, mut d) = (vec![0.0; m * ld_c], vec![0.0; m * ld_c]);
        let (mut rx, mut rdy) = (x.clone(), dy.clone());
        round_columns(isa, &mut rx, k, m, ld_x);
        round_columns(isa, &mut rdy, k, n, ld_dy);
        let (mut sx, mut sdy) = (x.clone(), dy.clone());
        let (seconds, ratios) = turns(&mut [
            &mut || {
                let now = Stretch { x: &x, dy: &dy, k };
                gemm_transposed(isa, now, &[], (ld_x, ld_dy), (m, n), false, &mut c, ld_c);
            },
            &mut || {
                let now = Stretch { x: &rx, dy: &rdy, k };
                gemm_transposed_half(isa, now, &[], (ld_x, ld_dy), (m, n), false, &mut d, ld_c);
            },
            &mut || {
                // What it rounds does not matter to the time.
                round_columns(isa, &mut sx, k, m, ld_x);
                round_columns(isa, &mut sdy, k, n, ld_dy);
            },
        ]);
        let rate = 2.0 * (m * n * k) as f64 / seconds / 1e9;
        let error = difference(&c, &d);
        println!(
            "{m} x {k} x {n} (weight gradient): f32 {rate:.1} GFLOP/s, half {:.2} times as fast, error {error:.1e}; rounding 1 / {:.0} of the f32 time",
            ratios[1], ratios[2]
        );
    }
}
