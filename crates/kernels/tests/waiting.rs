//! A thread that waits leaves the processor to others: it spins for some tens of microseconds and then sleeps.
//!
//! The only test of its process, because it looks at the time that all threads of the process have used.
#![cfg(target_os = "linux")]

use diapason_kernels::Pool;
use std::fs;
use std::io::Write;
use std::time::Duration;

/// Nanoseconds that all threads of this process have spent on a processor. None where the kernel does not count.
fn processor_time() -> Option<u64> {
    let tasks = fs::read_dir("/proc/self/task").ok()?;
    tasks
        .map(|task| {
            let line = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}

#[test]
fn waiting_threads_sleep() {
    const WAIT: Duration = Duration::from_millis(300);
    // What waking, spinning and reading the clock may take, with room: a thread that spins takes 60 times as much.
    const MOST: u64 = 5_000_000;
    if processor_time().is_none_or(|time| time == 0) {
        // Not through a macro: the harness would keep it to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: this kernel does not count the time of threads");
        return;
    }
    let mut pool = Pool::new(3);
    let mut used = |what: &str, wait: &mut dyn FnMut(&mut Pool)| {
        for _ in 0..10 {
            pool.run(&|_| {});
        }
        let before = processor_time().unwrap();
        wait(&mut pool);
        let used = processor_time().unwrap() - before;
        assert!(used < MOST, "{what}: {} us of processor time in {WAIT:?}", used / 1000);
    };
    used("between jobs", &mut |_| std::thread::sleep(WAIT));
    // Inside of a job, for the last thread to finish: workers for the caller, the caller for a worker.
    for slow in 0..3 {
        used("in a job", &mut |pool| {
            pool.run(&|thread| {
                if thread == slow {
                    std::thread::sleep(WAIT);
                }
            });
        });
    }
}
