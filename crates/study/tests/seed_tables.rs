//! The rule on the notebook's own two tables: it must choose what the notebook's authors chose by eye.

use diapason_study::{Cost, Tolerance, decide, read_table};

fn explain(table: &str) -> String {
    let candidates =
        read_table(table.as_bytes(), None, Cost::Seconds).expect("the table is well-formed").candidates;
    let decision = decide(&candidates, Tolerance::default(), 0.0).expect("there are results");
    decision.explain(&candidates, Cost::Seconds).join("\n")
}

#[test]
fn early() {
    assert_eq!(
        explain(include_str!("data/seed_early.csv")),
        "\
best loss: 1.4512, 137.3 s, by d_model=256 n_heads=8 n_layers=8
tolerance: 1 %, so a loss up to 1.4657 is acceptable, and the cheapest such configuration is chosen
d_model=256 n_heads=8 n_layers=4: loss 1.4581, 70.7 s: 0.47 % more loss for 48 % less time: acceptable, and the cheapest that is
d_model=256 n_heads=16 n_layers=4: loss 1.4716, 75.0 s: 1.4 % more loss for 45 % less time: too much
chosen: d_model=256 n_heads=8 n_layers=4"
    );
}

#[test]
fn full() {
    assert_eq!(
        explain(include_str!("data/seed_full.csv")),
        "\
best loss: 1.3208, 652.1 s, by d_model=256 n_heads=8 n_layers=8
tolerance: 1 %, so a loss up to 1.3340 is acceptable, and the cheapest such configuration is chosen
d_model=256 n_heads=8 n_layers=4: loss 1.3307, 331.1 s: 0.75 % more loss for 49 % less time: acceptable, and the cheapest that is
d_model=256 n_heads=16 n_layers=4: loss 1.3434, 351.3 s: 1.71 % more loss for 46 % less time: too much
chosen: d_model=256 n_heads=8 n_layers=4"
    );
}
