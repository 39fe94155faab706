//! How much memory the machine has left, and how much this process has.
//!
//! A process that takes more than there is does not get an error: some process is killed, often the wrong one. So
//! whoever is about to take much (a text, an engine) asks here first, and the program says what it will need before
//! it begins. Linux tells all of this in files; elsewhere nothing is known, and nothing is refused.

use std::fs;
use std::path::Path;

/// Bytes that this process can still get: what the kernel says is available, within the limits of its control
/// groups (which is how containers and batch systems limit memory).
pub fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

/// Bytes of memory that this process has.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The most bytes of memory that this process has ever had.
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

fn status(name: &str) -> Option<u64> {
    Some(1024 * field(&fs::read_to_string("/proc/self/status").ok()?, name)?)
}

/// [`available`], with the system's files below `root`.
fn available_below(root: &Path) -> Option<u64> {
    let machine = 1024 * field(&fs::read_to_string(root.join("proc/meminfo")).ok()?, "MemAvailable:")?;
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        // `4:memory:/path` in the first version of control groups, `0::/path` in the second.
        let mut fields = line.splitn(3, ':').skip(1);
        match (fields.next()?, fields.next()?) {
            ("", path) => Some((V2, path)),
            (controllers, path) => controllers.split(',').any(|name| name == "memory").then_some((V1, path)),
        }
    });
    let left = limits.filter_map(|(version, path)| version.left(root, path));
    Some(left.fold(machine, u64::min))
}

/// Where a version of control groups keeps what.
struct Version {
    mounts: &'static [&'static str],
    limit: &'static str,
    used: &'static str,
    /// File pages that nobody has touched for long: they count as used, but make room when asked.
    reclaimable: &'static str,
}

const V1: Version = Version {
    mounts: &["sys/fs/cgroup/memory"],
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

const V2: Version = Version {
    mounts: &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
    limit: "memory.max",
    used: "memory.current",
    reclaimable: "inactive_file",
};

impl Version {
    /// Bytes left in the group at `path` and in all groups that it lies in. None without a limit.
    fn left(&self, root: &Path, path: &str) -> Option<u64> {
        // In a container the path is often that of the machine outside; the mount itself is then the group.
        let below = Path::new(path.trim_start_matches('/'));
        let groups = self.mounts.iter().flat_map(|mount| {
            let mount = root.join(mount);
            below.ancestors().map(move |group| mount.join(group)).collect::<Vec<_>>()
        });
        groups.filter_map(|group| self.left_in(&group)).min()
    }

    fn left_in(&self, group: &Path) -> Option<u64> {
        let read = |name| fs::read_to_string(group.join(name)).ok();
        let number = |name| read(name)?.trim().parse::<u64>().ok();
        // Without a limit the second version says `max`, the first a number beyond all machines.
        let limit = number(self.limit)?;
        let reclaimable = read("memory.stat").and_then(|stat| field(&stat, self.reclaimable)).unwrap_or(0);
        let used = number(self.used).unwrap_or(0);
        Some(limit.saturating_add(reclaimable).saturating_sub(used).min(limit))
    }
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system of these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn found(files: &[(&str, &str)]) -> Option<u64> {
        available_below(system(files).path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 90 kB\nMemAvailable:   64 kB\n");

    #[test]
    fn the_machine_alone() {
        assert_eq!(found(&[MEMINFO]), Some(65_536));
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[("proc/meminfo", "MemTotal: 90 kB\n")]), None);
    }

    #[test]
    fn limits_of_groups() {
        let own = ("proc/self/cgroup", "0::/a/b\n");
        let used = ("sys/fs/cgroup/a/b/memory.current", "700\n");
        let limit = ("sys/fs/cgroup/a/b/memory.max", "1000\n");
        assert_eq!(found(&[MEMINFO, own]), Some(65_536));
        assert_eq!(found(&[MEMINFO, own, used, limit]), Some(300));
        let stat = ("sys/fs/cgroup/a/b/memory.stat", "anon 1\ninactive_file_x 5\ninactive_file 77\n");
        assert_eq!(found(&[MEMINFO, own, used, limit, stat]), Some(377));
        assert_eq!(found(&[MEMINFO, own, used, ("sys/fs/cgroup/a/b/memory.max", "max\n")]), Some(65_536));
        // A group above it has less; one beside it does not matter.
        let above = [("sys/fs/cgroup/a/memory.max", "900"), ("sys/fs/cgroup/a/memory.current", "800")];
        let beside = ("sys/fs/cgroup/c/memory.max", "1");
        assert_eq!(found(&[MEMINFO, own, used, limit, above[0], above[1], beside]), Some(100));
        // Used up and over.
        assert_eq!(found(&[MEMINFO, own, limit, ("sys/fs/cgroup/a/b/memory.current", "1200")]), Some(0));
    }

    #[test]
    fn limits_of_the_first_version_and_of_containers() {
        let own = ("proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/docker/123\n0::/\n");
        let no_limit = ("sys/fs/cgroup/memory/docker/123/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(found(&[MEMINFO, own, no_limit]), Some(65_536));
        // Inside of a container, where the group's own path is not to be seen.
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
        let used = ("sys/fs/cgroup/memory/memory.usage_in_bytes", "4000\n");
        assert_eq!(found(&[MEMINFO, own, limit, used]), Some(1000));
        let stat = ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 30\n");
        assert_eq!(found(&[MEMINFO, own, limit, used, stat]), Some(1030));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process() {
        let before = resident().unwrap();
        let much = vec![1u8; 20 << 20];
        let (now, peak) = (resident().unwrap(), peak().unwrap());
        assert!(now >= before + (15 << 20), "{before} {now}, {}", much.len());
        assert!(peak >= now && available().unwrap() > 0);
    }
}
