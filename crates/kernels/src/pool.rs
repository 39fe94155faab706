//! Worker threads that share the items of a step.
//!
//! A step has two or three phases with many independent items each; the threads claim items from a counter and meet at the
//! end of the phase. A phase lasts milliseconds and the next one follows at once, so a waiting thread spins
//! for some tens of microseconds (cheaper than sleeping and waking) and then sleeps, so as not to burn a core that
//! somebody else needs. Nothing is allocated, queued or locked per phase.
//!
//! Which thread runs an item never matters to the result: an item writes only what belongs to it, and scratch
//! memory is overwritten before it is read.

use crate::blocks::{BlockMut, BlockSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a waiting thread spins before it sleeps.
const SPIN: Duration = Duration::from_micros(30);

/// A fixed set of threads; the caller of each method is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts jobs; a worker runs a job when it sees the number change.
    epoch: AtomicU64,
    /// The current job. Written only while no worker runs.
    job: std::cell::UnsafeCell<Option<Job>>,
    /// Workers that have not finished the current job.
    running: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// The thread that waits for the workers. Written only while no worker runs.
    caller: std::cell::UnsafeCell<Option<Thread>>,
}

// SAFETY: the cells are written by the caller between jobs only: before the release store of `epoch` that
// publishes them, and after the acquire load of `running` that ends the job.
unsafe impl Sync for Shared {}
// SAFETY: the job pointer is used only during the job, while the caller keeps it alive.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads in all (at least one), the caller included.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            job: std::cell::UnsafeCell::new(None),
            running: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            caller: std::cell::UnsafeCell::new(None),
        });
        let workers = (1..threads.max(1))
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                // A system that refuses a thread gets a smaller pool: results do not depend on it.
                std::thread::Builder::new()
                    .name(format!("diapason-{index}"))
                    .spawn(move || worker(&shared, index))
                    .ok()
            })
            .collect();
        Self { shared, workers }
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(thread)` once on every thread; returns when all are done.
    ///
    /// # Panics
    /// When `f` does.
    pub fn run(&mut self, f: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return f(0);
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes: this function does not return before all workers have finished
        // with the job.
        let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(f) };
        // SAFETY: no worker runs: the last job was waited for.
        unsafe {
            *shared.job.get() = Some(job);
            let caller = &mut *shared.caller.get();
            let current = std::thread::current();
            if caller.as_ref().is_none_or(|t| t.id() != current.id()) {
                *caller = Some(current);
            }
        }
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let own = catch_unwind(AssertUnwindSafe(|| f(0)));
        wait(|| shared.running.load(Ordering::Acquire) == 0);
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!panicked, "a worker thread panicked");
    }

    /// Runs `f(index, item, scratch)` for every item; each thread brings its own scratch.
    ///
    /// # Panics
    /// When there is less scratch than threads, or `f` panics.
    pub fn for_each<T: Send, S: Send>(
        &mut self,
        items: &mut [T],
        scratch: &mut [S],
        f: impl Fn(usize, &mut T, &mut S) + Sync,
    ) {
        let count = items.len();
        let items = SharedPointer(items.as_mut_ptr());
        self.deal(count, scratch, |index, scratch| {
            // SAFETY: index < count, and every index is dealt once.
            f(index, unsafe { &mut *items.get().add(index) }, scratch);
        });
    }

    /// Runs `f(index, a, b, scratch)` for every stretch of `size` elements of `a` and of `b`, the last of which may be shorter.
    ///
    /// # Panics
    /// When the two have not one length, `size` is 0, there is less scratch than threads, or `f` panics.
    pub fn for_each_chunk<A: Send, B: Send, S: Send>(
        &mut self,
        size: usize,
        a: &mut [A],
        b: &mut [B],
        scratch: &mut [S],
        f: impl Fn(usize, &mut [A], &mut [B], &mut S) + Sync,
    ) {
        let whole = a.len();
        assert!(b.len() == whole && size > 0);
        let (a, b) = (SharedPointer(a.as_mut_ptr()), SharedPointer(b.as_mut_ptr()));
        self.deal(whole.div_ceil(size), scratch, |index, scratch| {
            let start = index * size;
            let len = size.min(whole - start);
            // SAFETY: stretches lie inside of the vectors and share no element; every index is dealt once.
            let (a, b) = unsafe {
                let a = std::slice::from_raw_parts_mut(a.get().add(start), len);
                (a, std::slice::from_raw_parts_mut(b.get().add(start), len))
            };
            f(index, a, b, scratch);
        });
    }

    /// Runs `f(index, blocks, scratch)` for every block of `set`, with that block of each of `vectors`.
    ///
    /// # Panics
    /// When a vector has another length than the set was made for, there is less scratch than threads, or `f` panics.
    pub fn for_each_block<const N: usize, S: Send>(
        &mut self,
        set: &BlockSet,
        vectors: [&mut [f32]; N],
        scratch: &mut [S],
        f: impl Fn(usize, [BlockMut<'_>; N], &mut S) + Sync,
    ) {
        assert!(vectors.iter().all(|v| v.len() == set.vector_len()));
        let vectors = vectors.map(|v| SharedPointer(v.as_mut_ptr()));
        self.deal(set.blocks().len(), scratch, |index, scratch| {
            let block = set.blocks()[index];
            // SAFETY: the set's blocks lie inside of the vectors and share no number; every index is dealt once.
            let blocks = std::array::from_fn(|i| unsafe { BlockMut::new(vectors[i].get(), block) });
            f(index, blocks, scratch);
        });
    }

    /// Deals the indices 0..count out to the threads.
    fn deal<S: Send>(&mut self, count: usize, scratch: &mut [S], f: impl Fn(usize, &mut S) + Sync) {
        assert!(scratch.len() >= self.threads());
        let scratch = SharedPointer(scratch.as_mut_ptr());
        let next = AtomicUsize::new(0);
        self.run(&|thread| {
            // SAFETY: one per thread, asserted above.
            let scratch = unsafe { &mut *scratch.get().add(thread) };
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                f(index, scratch);
            }
        });
    }
}

/// A pointer that threads may share; its users see to it that they touch different elements.
struct SharedPointer<T>(*mut T);

impl<T> SharedPointer<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: see the type; T itself may move between threads.
unsafe impl<T: Send> Sync for SharedPointer<T> {}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        for worker in self.workers.drain(..) {
            // A worker's panic was reported by `run`.
            let _ = worker.join();
        }
    }
}

fn worker(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        wait(|| shared.epoch.load(Ordering::Acquire) != seen);
        seen += 1;
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: published before the epoch changed; the caller keeps it alive until `running` is 0.
        let (job, caller) = unsafe { ((*shared.job.get()).map(|job| &*job), (*shared.caller.get()).clone()) };
        if let Some(job) = job
            && catch_unwind(AssertUnwindSafe(|| job(index))).is_err()
        {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        if shared.running.fetch_sub(1, Ordering::Release) == 1
            && let Some(caller) = caller
        {
            caller.unpark();
        }
    }
}

/// Waits until `done`: spins a little, then sleeps until unparked (and looks again).
fn wait(done: impl Fn() -> bool) {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            break;
        }
    }
    while !done() {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Block;

    #[test]
    fn every_item_once() {
        for threads in [1, 2, 3, 8] {
            let mut pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            let mut scratch = vec![0usize; threads];
            let mut items = vec![0usize; 1000];
            for round in 1..=50 {
                pool.for_each(&mut items, &mut scratch, |index, item, seen| {
                    *item += index;
                    *seen += 1;
                });
                assert!(items.iter().enumerate().all(|(i, &x)| x == round * i));
            }
            assert_eq!(scratch.iter().sum::<usize>(), 50 * 1000);
        }
    }

    #[test]
    fn every_stretch_once() {
        for threads in [1, 3] {
            let mut pool = Pool::new(threads);
            for (len, size) in [(0, 1), (1, 5), (20, 5), (23, 5), (100, 1)] {
                let (mut a, mut b) = (vec![0usize; len], vec![1u8; len]);
                pool.for_each_chunk(size, &mut a, &mut b, &mut vec![(); threads], |index, a, b, ()| {
                    assert!(a.len() == b.len() && a.len() <= size);
                    a.iter_mut().for_each(|a| *a += index);
                    b.iter_mut().for_each(|b| *b += 1);
                });
                assert!(a.iter().enumerate().all(|(i, &a)| a == i / size) && b.iter().all(|&b| b == 2));
            }
        }
    }

    #[test]
    fn sleeping_workers_wake() {
        let mut pool = Pool::new(3);
        let count = AtomicUsize::new(0);
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(3));
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.into_inner(), 15);
    }

    #[test]
    fn another_caller_takes_over() {
        let mut pool = Pool::new(2);
        pool.run(&|_| {});
        std::thread::scope(|scope| {
            scope.spawn(|| pool.run(&|_| std::thread::sleep(Duration::from_millis(1))));
        });
    }

    #[test]
    fn blocks_are_written_apart() {
        // A 6 x 10 matrix in four blocks.
        let mut blocks = Vec::new();
        for (r, rows) in [(0, 4), (4, 2)] {
            for (c, columns) in [(0, 7), (7, 3)] {
                blocks.push(Block { start: r * 10 + c, rows, columns, stride: 10 });
            }
        }
        let set = BlockSet::new(blocks, 60);
        let mut pool = Pool::new(2);
        let (mut a, mut b) = (vec![0.0; 60], vec![1.0; 60]);
        pool.for_each_block(&set, [&mut a, &mut b], &mut [(), ()], |index, [mut x, mut y], ()| {
            for r in 0..x.rows() {
                x.row(r).fill(index as f32);
                y.row(r).iter_mut().for_each(|y| *y += 1.0);
            }
        });
        assert!(b.iter().all(|&y| y == 2.0));
        assert_eq!((a[0], a[9], a[45], a[59]), (0.0, 1.0, 2.0, 3.0));
    }

    #[test]
    #[should_panic(expected = "blocks overlap")]
    fn overlapping_blocks_are_refused() {
        let block = |start| Block { start, rows: 2, columns: 3, stride: 4 };
        BlockSet::new(vec![block(0), block(2)], 100);
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn blocks_that_wrap_around_are_refused() {
        BlockSet::new(vec![Block { start: usize::MAX, rows: 1, columns: 2, stride: 0 }], 10);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2);
        for thread in 0..2 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(&|t| assert_ne!(t, thread))));
            assert!(result.is_err());
        }
        pool.run(&|_| {});
        assert!(catch_unwind(AssertUnwindSafe(|| pool.run(&|_| panic!("on every thread")))).is_err());
        pool.run(&|_| {});
    }
}
