//! What an optimizer costs: training steps with it and with plain Adam in turns, on one thread, in seconds of that thread's own time (Linux),
//! which other processes do not spoil.
//!
//! cargo run --release -p diapason-engine --example optimizers -- [d_model] [n_layers] [batch_size] [rounds]

#![allow(clippy::print_stdout)]

use diapason_engine::{Batch, CpuEngine, Engine, Optimizer, Shape, Update};
use diapason_model::{ModelConfig, initialise};

/// Seconds that this thread has run.
fn own_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).map_or(f64::NAN, |ns| ns / 1e9)
}

fn main() {
    let typed: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let or = |index: usize, default: usize| typed.get(index).copied().unwrap_or(default);
    let (d_model, n_layers, batch_size, rounds) = (or(0, 256), or(1, 4), or(2, 64), or(3, 11));
    let model = ModelConfig { d_model, n_layers, ..ModelConfig::default() };
    let shape = Shape { batch_size, sequence_length: 32 };
    let Ok(mut engine) = CpuEngine::new(model, &initialise(&model, 0), 1, shape) else { return };
    engine.keep_average(true);
    let n = batch_size * 32;
    let mut x = 1u64;
    let symbols: Vec<u8> = (0..n + 4096)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((x >> 33) % 27) as u8
        })
        .collect();
    let plain = Update { learning_rate: 1e-4, adam_learning_rate: 1e-4, ..Update::default() };
    let kinds = [
        ("adam", plain),
        ("lion", Update { optimizer: Optimizer::Lion, ..plain }),
        ("muon", Update { optimizer: Optimizer::Muon, ..plain }),
        ("adam, averaged", Update { average: 0.01, ..plain }),
        ("adam, clipped", Update { gradient_clip: 1e-3, ..plain }),
        ("adam, clipped by unit", Update { adaptive_clip: 1e-3, ..plain }),
        ("muon, clipped", Update { optimizer: Optimizer::Muon, gradient_clip: 1e-3, ..plain }),
    ];
    let mut times = vec![Vec::new(); kinds.len()];
    let mut number = 0;
    for round in 0..=rounds {
        for (kind, (_, update)) in kinds.iter().enumerate() {
            number += 1;
            let at = number as usize * 61 % 4000;
            let batch = Batch {
                inputs: &symbols[at..at + n],
                targets: &symbols[at + 1..at + n + 1],
                sequence_length: 32,
            };
            let before = own_seconds();
            engine.step(batch, &Update { number, ..*update });
            if round > 0 {
                times[kind].push(own_seconds() - before);
            }
        }
    }
    let median = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for ((what, _), times_of) in kinds.iter().zip(&times) {
        let ratios: Vec<f64> = times_of.iter().zip(&times[0]).map(|(time, adam)| time / adam).collect();
        let more = median(&ratios) - 1.0;
        println!("{what:22} {:7.2} ms, {:+5.1} % of Adam's step", 1e3 * median(times_of), 100.0 * more);
    }
}
