//! Optimizers and clipping against small cases by hand, and what defines them.
#![allow(missing_docs)]

use diapason_reference::{adam, clip, lion, muon};

fn close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    assert!(got.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-12), "{got:?}, not {expected:?}");
}

#[test]
fn lion_by_hand() {
    let settings = lion::Settings { learning_rate: 0.5, beta1: 0.75, beta2: 0.5 };
    let (mut p, mut m) = (vec![1.0, 1.0, 1.0], vec![1.0, -1.0, 0.0]);
    // 0.75 x 1 - 0.25 x 2 = 0.25; -0.75 + 0.25 x 2 = -0.25; 0.
    lion::update(&mut p, &mut m, &[-2.0, 2.0, 0.0], &settings);
    close(&p, &[0.5, 1.5, 1.0]);
    close(&m, &[-0.5, 0.5, 0.0]);
}

#[test]
fn decay_by_hand() {
    let mut p = [2.0, -4.0];
    adam::decay(&mut p, 0.5, 0.1);
    close(&p, &[1.9, -3.8]);
}

#[test]
fn clipping_by_hand() {
    let mut g = [3.0, 4.0];
    clip::by_length(&mut g, 5.0);
    close(&g, &[3.0, 4.0]);
    clip::by_length(&mut g, 1.0);
    close(&g, &[0.6, 0.8]);
    // Columns (1, 0) and (0, 0) with gradients (3, 4) and (0, 1): limits 2 and 2e-3.
    let mut g = [3.0, 0.0, 4.0, 1.0];
    clip::by_units(&mut g, &[1.0, 0.0, 0.0, 0.0], 2, 2.0);
    close(&g, &[1.2, 0.0, 1.6, 2e-3]);
    let mut g = [3.0, 4.0];
    clip::by_units(&mut g, &[6.0, 8.0], 1, 0.1);
    close(&g, &[0.6, 0.8]);
}

/// Diagonal matrices and their turned versions: what happens to singular values is known.
#[test]
fn muon_moves_singular_values_alone() {
    let (c, s) = (0.6, 0.8);
    for values in [[1.0, 1.0], [1.0, 0.1], [0.5, 0.02], [3.0, 0.01]] {
        let [x, y] = values;
        let diagonal = muon::orthogonalised(&[x, 0.0, 0.0, y], 2, 2);
        let (a, b) = (diagonal[0], diagonal[3]);
        assert!((0.77..1.23).contains(&a) && (0.77..1.23).contains(&b), "{values:?} become {a} and {b}");
        // U diag V^T, with V = 1 and U a rotation, and one more row of zeros.
        let turned = muon::orthogonalised(&[c * x, -s * y, s * x, c * y, 0.0, 0.0], 3, 2);
        close(&turned, &[c * a, -s * b, s * a, c * b, 0.0, 0.0]);
        let wide = muon::orthogonalised(&[c * x, s * x, 0.0, -s * y, c * y, 0.0], 2, 3);
        close(&wide, &[c * a, s * a, 0.0, -s * b, c * b, 0.0]);
    }
    assert_eq!(muon::orthogonalised(&[0.0; 6], 2, 3), [0.0; 6]);
}

#[test]
fn muon_by_hand() {
    // One number: its singular value is its size, so a step has the length of p(1 / 1.01).
    let one = muon::orthogonalised(&[1.0], 1, 1)[0];
    let settings = muon::Settings { learning_rate: 0.5, momentum: 0.75 };
    let (mut p, mut m) = ([1.0], [-1.0]);
    // m = -0.75 + 1 = 0.25; what is followed is 0.1875 + 1.
    muon::update(&mut p, &mut m, &[4.0], (1, 1), &settings);
    close(&m, &[0.25]);
    close(&p, &[1.0 - 0.5 * one]);
    // Four times as wide as high: twice the step; one singular value, the length of the row.
    let (mut p, mut m) = ([0.0; 4], [0.0; 4]);
    muon::update(&mut p, &mut m, &[0.0, -3.0, 0.0, 4.0], (1, 4), &settings);
    close(&p, &[0.0, 0.6 * one, 0.0, -0.8 * one]);
}
