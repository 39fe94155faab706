//! Who works, and whether a worker that wrote its name into the database still lives.
//!
//! A lease that runs out tells the dead from the living on other machines, after a minute. On the same machine one
//! can look: a process that is gone needs no minute. But only the same *place* may be looked at. A process id means
//! nothing after a restart, nor in another container on the same machine, so a place is the kernel's boot id and the
//! namespace of process ids, not the name of the host; and since ids are used again, the moment at which the process
//! began belongs to it.

use std::fmt;

/// A worker: a process that claims work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// For people: `host:1234`.
    pub name: String,
    /// The arithmetic that it computes with. A trial begun by another is not taken.
    pub engine: String,
    /// Take trials that another arithmetic began all the same.
    pub allow_other_engine: bool,
    pub(crate) process: Process,
}

impl Worker {
    /// This process, with an engine.
    pub fn this_process(engine: impl Into<String>) -> Self {
        let process = Process::this();
        Self {
            name: format!("{}:{}", host(), process.pid),
            engine: engine.into(),
            allow_other_engine: false,
            process,
        }
    }
}

/// A process, as others on its machine can find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// What process ids refer to; none where that cannot be known.
    pub(crate) place: Option<String>,
    pub(crate) pid: u32,
    /// When it began, in the kernel's clock ticks since boot; 0 where that cannot be known.
    pub(crate) started: u64,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

impl Process {
    pub(crate) fn this() -> Self {
        let pid = std::process::id();
        Self { place: place(), pid, started: begun(pid).unwrap_or(0) }
    }

    /// Whether this process certainly no longer lives. `here` is the place of whoever asks.
    pub(crate) fn is_dead(&self, here: Option<&str>) -> bool {
        if self.place.is_none() || self.place.as_deref() != here {
            return false;
        }
        if !exists(self.pid) {
            return true;
        }
        // Another process may have its id by now. Without a look into it, it counts as alive.
        self.started != 0 && begun(self.pid).is_some_and(|begun| begun != self.started)
    }
}

#[cfg(target_os = "linux")]
fn place() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.to_string_lossy()))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn place() -> Option<String> {
    Some(host())
}

#[cfg(not(unix))]
fn place() -> Option<String> {
    None
}

/// When a process began; 0 for one that has ended and only waits to be collected; none if one cannot look.
fn begun(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, brackets and spaces too.
    let mut fields = status.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return Some(0);
    }
    // Field 22 of the file; the state is the third.
    fields.nth(18)?.parse().ok()
}

#[cfg(unix)]
fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid else { return false };
    // Somebody else's process answers that asking is not permitted: it is there.
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn exists(_: u32) -> bool {
    true
}

#[cfg(unix)]
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "localhost".to_string())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_dead_are_told_from_the_living() {
        let here = place();
        let this = Process::this();
        assert!(!this.is_dead(here.as_deref()));
        let mut child = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().unwrap();
        let process = Process { pid: child.id(), started: begun(child.id()).unwrap_or(0), ..this.clone() };
        assert!(!process.is_dead(here.as_deref()));
        child.kill().unwrap();
        // A corpse that nobody has collected is as dead as one that is gone.
        if cfg!(target_os = "linux") {
            while begun(child.id()) != Some(0) {
                std::thread::yield_now();
            }
            assert!(process.is_dead(here.as_deref()));
        }
        child.wait().unwrap();
        assert!(process.is_dead(here.as_deref()));
        // From another machine, or another container, nobody can say.
        assert!(!process.is_dead(Some("elsewhere")) && !process.is_dead(None));
        // The id of the dead, used again.
        if cfg!(target_os = "linux") {
            let reused = Process { started: this.started + 1, ..this };
            assert!(reused.is_dead(here.as_deref()));
        }
    }
}
