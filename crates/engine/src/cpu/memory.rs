//! How much memory an engine takes, and how much there is: said before anything is allocated.

use super::gradient::TaskScratch;
use super::passes::Item;
use super::sizes::Sizes;
use super::weights::Weights;
use super::{CpuEngine, Shape};
use diapason_model::{Layout, ModelConfig};

/// Bytes that an engine for `model` and batches of `shape` allocates.
pub fn memory_needed(model: &ModelConfig, shape: Shape, threads: usize) -> u128 {
    // Sizes beyond what a usize holds are absurd, and must not overflow on the way to saying so.
    let rough = 12 * parameters(model);
    if rough > 1 << 46
        || shape.batch_size as u128 * shape.sequence_length as u128 * model.d_model as u128 > 1 << 44
    {
        return rough
            + 100 * shape.batch_size as u128 * shape.sequence_length as u128 * model.d_model as u128;
    }
    let s = Sizes::new(model, shape.sequence_length, shape.batch_size);
    let layout = Layout::new(model);
    let items = shape.batch_size.div_ceil(s.sequences);
    let thread = 4 * (s.scratch_len() + CpuEngine::evaluation_len(&s)) + TaskScratch::bytes(&s, &layout);
    let total = 3 * 4 * layout.total + Weights::bytes(&s) + items * Item::bytes(&s) + threads * thread;
    total as u128
}

/// The number of parameters without overflow.
fn parameters(model: &ModelConfig) -> u128 {
    let (d, f, l) = (model.d_model as u128, model.mlp_width() as u128, model.n_layers as u128);
    (model.vocabulary as u128 + model.max_len as u128) * d + l * (4 * d * d + 2 * d * f)
}

/// Bytes that this process can still get: what the kernel says is available, within the control group's
/// limit. None where the system does not say.
pub(super) fn available() -> Option<u128> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = field(&info, "MemAvailable:")?;
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let number = |name: &str| -> Option<u128> { read(name)?.trim().parse().ok() };
    let group = number("memory.max").map(|max| {
        // File pages that nobody has touched for long count as used, but make room when asked.
        let reclaimable = read("memory.stat").and_then(|stat| field(&stat, "inactive_file")).unwrap_or(0);
        (max + reclaimable).saturating_sub(number("memory.current").unwrap_or(0)).min(max)
    });
    Some((kib * 1024).min(group.unwrap_or(u128::MAX)))
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u128> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_system_files() {
        assert_eq!(field("MemTotal: 5 kB\nMemAvailable:   123 kB\n", "MemAvailable:"), Some(123));
        assert_eq!(field("anon 1\ninactive_file 77\n", "inactive_file"), Some(77));
        assert_eq!(field("", "inactive_file"), None);
    }
}
