//! The memory that a command will take, said before it takes it.
//!
//! A run of hours that is killed in its tenth minute because the machine has no memory left is worth a line at the
//! beginning. The figure is what the process will have at its most: what it has now, the text included, and what it
//! is about to take.

use diapason_corpus::Corpus;

/// What this program takes without text and engine, where the system does not say what it has.
const PROGRAM: u64 = 8 << 20;

/// What is touched only when the work begins: the engine's code, stacks of its threads, what files are written through.
const LATER: u64 = 3 << 19;

/// How much memory the process will have, as a line: `engine` bytes for the engine, or for all engines at once, and
/// `others` for what else the work takes; `later` bytes in their place when that is done. The text has been read, and no engine been made.
pub(crate) fn line(engine: u128, corpus: Option<&Corpus>, others: u64, later: u64) -> String {
    let text = corpus.map_or(0, |corpus| corpus.memory() as u64);
    let now = diapason_memory::resident().unwrap_or(text + PROGRAM);
    let rest = now.saturating_sub(text) + others + LATER;
    // Reading the text may have taken more than all that follows, and so may what comes behind the engine.
    let besides = diapason_memory::peak().unwrap_or(0).max(now + later + LATER);
    let total = (engine + u128::from(text + rest)).max(besides.into());
    let mut parts = vec![format!("{} for the engine", mib(engine))];
    if corpus.is_some() {
        parts.push(format!("{} for the text", mib(text.into())));
    }
    parts.push(format!("{} for the program", mib(rest.into())));
    format!("memory: {} MiB: {}", mib(total), parts.join(", "))
}

/// Bytes in units of 2^20, with two digits that matter.
fn mib(bytes: u128) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 9.95 { format!("{mib:.1}") } else { format!("{mib:.0}") }
}

#[cfg(test)]
mod tests {
    use super::mib;

    #[test]
    fn sizes() {
        let of = |size: f64| mib((size * f64::from(1 << 20)) as u128);
        assert_eq!([of(0.04), of(9.94), of(9.96), of(211.8)], ["0.0", "9.9", "10", "212"]);
    }
}
