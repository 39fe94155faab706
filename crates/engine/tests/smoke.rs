//! smoke
use diapason_engine::*;
use diapason_model::*;
#[test]
fn grad() {
    for (d, h, l, b, t, tie) in [(32, 4, 2, 3, 8, false), (20, 5, 1, 9, 16, true), (64, 2, 3, 5, 40, false)] {
        let m = ModelConfig {
            architecture: Architecture::Seed,
            vocabulary: 27,
            d_model: d,
            n_heads: h,
            n_layers: l,
            mlp_ratio: 4.0,
            max_len: 64,
            tie_embeddings: tie,
        };
        let p = initialise(&m, 1);
        let mut e = CpuEngine::new(m.clone(), &p, 2, Shape { batch_size: b, sequence_length: t }).unwrap();
        let x: Vec<u8> = (0..b * t).map(|i| (i * 7 % 27) as u8).collect();
        let y: Vec<u8> = (0..b * t).map(|i| (i * 5 % 27) as u8).collect();
        let mut g = vec![0.0; p.len()];
        let s = e.gradient(Batch { inputs: &x, targets: &y, sequence_length: t }, &mut g);
        let pw: Vec<f64> = p.iter().map(|&x| x as f64).collect();
        let (l, gw) = diapason_reference::loss_and_gradient(&m, &pw, &x, &y, t);
        println!("{} {}", s.loss, l);
        for ten in &Layout::new(&m).tensors {
            let r = ten.range.clone();
            let mx = gw[r.clone()].iter().fold(0f64, |a, b| a.max(b.abs()));
            let er = g[r.clone()].iter().zip(&gw[r]).fold(0f64, |a, (x, y)| a.max((*x as f64 - y).abs()));
            println!("{} {:.2e} {:.2e}", ten.name, mx, er / mx.max(1e-30));
            assert!(er <= 1e-4 * mx);
        }
    }
}
