//! Names that nobody else has.
//!
//! A lease is told from every other by a name of 128 random bits, drawn by whoever asks for it *before* asking: so
//! that, when the answer is lost with the connection, the same question asked again finds what it was given.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// 64 bits from the operating system's randomness, by way of the standard library's hash keys.
pub(crate) fn random() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(COUNTER.fetch_add(1, Ordering::Relaxed));
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// A name of 32 hexadecimal digits.
pub(crate) fn draw() -> String {
    // The thread's hash keys are drawn once and then counted up, so the clock and the process take part too.
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    format!("{:016x}{:016x}", random(), random() ^ now.rotate_left(17))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn no_two_are_alike() {
        let names: HashSet<String> = (0..10_000).map(|_| super::draw()).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 32));
    }
}
