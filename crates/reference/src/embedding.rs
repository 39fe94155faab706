//! Embedding: x\[b,t\] = E\[token\] + P\[t\].
//!
//! Shapes: E \[V, D\], P \[max_len, D\], symbols \[B, T\], x \[B, T, D\].

use crate::Float;
use crate::float::add_to;

/// x\[b,t\] = E\[symbols\[b,t\]\] + P\[t\].
pub fn forward<F: Float>(
    tokens: &[F],
    positions: &[F],
    symbols: &[u8],
    sequence_length: usize,
    d_model: usize,
) -> Vec<F> {
    assert_eq!(symbols.len() % sequence_length, 0);
    let mut x = Vec::with_capacity(symbols.len() * d_model);
    for (n, &symbol) in symbols.iter().enumerate() {
        let token = &tokens[usize::from(symbol) * d_model..][..d_model];
        let position = &positions[n % sequence_length * d_model..][..d_model];
        x.extend(token.iter().zip(position).map(|(&e, &p)| e + p));
    }
    x
}

/// (dE, dP): dE\[v\] = sum of dx over the places that hold symbol v; dP\[t\] = sum of dx over the windows.
pub fn backward<F: Float>(
    symbols: &[u8],
    dx: &[F],
    sequence_length: usize,
    d_model: usize,
    vocabulary: usize,
    max_len: usize,
) -> (Vec<F>, Vec<F>) {
    assert_eq!((dx.len(), symbols.len() % sequence_length), (symbols.len() * d_model, 0));
    let mut dtokens = vec![F::ZERO; vocabulary * d_model];
    let mut dpositions = vec![F::ZERO; max_len * d_model];
    for (n, (&symbol, dx)) in symbols.iter().zip(dx.chunks(d_model)).enumerate() {
        add_to(&mut dtokens[usize::from(symbol) * d_model..][..d_model], dx);
        add_to(&mut dpositions[n % sequence_length * d_model..][..d_model], dx);
    }
    (dtokens, dpositions)
}
