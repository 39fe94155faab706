//! Softmax cross-entropy in nats.
//!
//! Shapes: logits \[n, V\], targets \[n\]. loss\[n\] = log(sum over v of exp(logits\[n,v\])) - logits\[n,target\].

use crate::Float;

/// (losses, hits) per position; a hit is a position whose likeliest symbol, the first of equals, is the target.
pub fn forward<F: Float>(logits: &[F], targets: &[u8], vocabulary: usize) -> (Vec<F>, Vec<bool>) {
    assert_eq!(logits.len(), targets.len() * vocabulary);
    let mut losses = Vec::with_capacity(targets.len());
    let mut hits = Vec::with_capacity(targets.len());
    for (row, &target) in logits.chunks(vocabulary).zip(targets) {
        let likeliest = likeliest(row);
        let sum = row.iter().map(|&x| (x - row[likeliest]).exp()).sum::<F>();
        losses.push(sum.ln() + row[likeliest] - row[usize::from(target)]);
        hits.push(likeliest == usize::from(target));
    }
    (losses, hits)
}

/// dlogits of the *mean* loss over all n positions: (softmax(logits\[n\]) - onehot(target)) / n.
pub fn backward<F: Float>(logits: &[F], targets: &[u8], vocabulary: usize) -> Vec<F> {
    assert_eq!(logits.len(), targets.len() * vocabulary);
    let count = F::from_f64(targets.len() as f64);
    let mut dlogits = Vec::with_capacity(logits.len());
    for (row, &target) in logits.chunks(vocabulary).zip(targets) {
        let largest = row[likeliest(row)];
        let sum = row.iter().map(|&x| (x - largest).exp()).sum::<F>();
        for (v, &x) in row.iter().enumerate() {
            let onehot = if v == usize::from(target) { F::ONE } else { F::ZERO };
            dlogits.push(((x - largest).exp() / sum - onehot) / count);
        }
    }
    dlogits
}

/// Index of the largest logit, the first of equals.
fn likeliest<F: Float>(row: &[F]) -> usize {
    let mut best = 0;
    for (v, &x) in row.iter().enumerate() {
        if x > row[best] {
            best = v;
        }
    }
    best
}
