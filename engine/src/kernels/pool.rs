//! A small pool of threads that share the work of one operation.
//!
//! One step runs a few hundred operations of tens of microseconds each, too short for a work-stealing pool's fork and
//! join. The workers here spin for a moment between operations and park when nothing comes.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// How often a worker looks for the next operation before it parks; a few tens of microseconds.
const SPINS_BEFORE_PARKING: u32 = 20_000;
/// After so many looks the step is over rather than between two operations, and others may have the core for a moment.
const SPINS_BETWEEN_STEPS: u32 = 1_000;
/// How often the caller looks for the last worker before it lets others have its core.
const SPINS_BEFORE_YIELDING: u32 = 2_000;

/// The operation is open: workers may still join it.
const OPEN: usize = 1;
/// One worker that has joined.
const JOINED: usize = 2;
/// One operation; leaves room for 127 workers below it.
const OPERATION: usize = 256;

/// Threads that run parts of an operation together with the caller.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Number of the operation, workers that have joined and not left it, and whether more may join, in one word: a
    /// worker that got no core in time finds the operation closed, and nobody waits for it.
    gate: AtomicUsize,
    stopping: AtomicBool,
    panicked: AtomicBool,
    job: UnsafeCell<Job>,
}

impl std::panic::RefUnwindSafe for Shared {}

#[derive(Clone, Copy)]
struct Job {
    data: *const (),
    call: unsafe fn(*const ()),
}

// SAFETY: `job` is written only by the thread that owns the pool (`run` takes `&mut self`) while the gate is closed and
// nobody is inside, and published by opening the gate with Release. Workers read it after joining through the gate with
// Acquire; the owner closes the gate and waits until all have left before it writes again or drops the closure. The
// closure behind `data` is `Sync` by the bound on `run`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only dereferenced while `run` keeps the closure alive.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads in all, the caller included; at least one.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            gate: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            job: UnsafeCell::new(Job {
                data: std::ptr::null(),
                call: |_| {},
            }),
        });
        let workers = (1..threads.max(1))
            .map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("engine-worker-{index}"))
                    .spawn(move || work(&shared))
                    .expect("the operating system can start the pool's few threads")
            })
            .collect();
        Self { shared, workers }
    }

    /// Threads in all, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `part(start, end)` over `0..items` in chunks of `grain`, on all threads, and returns when all are done.
    ///
    /// Which thread takes which chunk is not fixed, so `part` must give the same result wherever it runs.
    pub fn for_each_chunk<F>(&mut self, items: usize, grain: usize, part: F)
    where
        F: Fn(usize, usize) + Sync,
    {
        let grain = grain.max(1);
        if self.workers.is_empty() || items <= grain {
            if items > 0 {
                part(0, items);
            }
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(|| {
            loop {
                let start = next.fetch_add(grain, Ordering::Relaxed);
                if start >= items {
                    break;
                }
                part(start, (start + grain).min(items));
            }
        });
    }

    /// Runs `part(start, end)` over `0..items` like [`Pool::for_each_chunk`], in chunks of up to `most` that shrink as
    /// fewer items remain: few enough to cost little, and short at the end so that no thread waits long for another.
    pub fn for_each_run<F>(&mut self, items: usize, most: usize, part: F)
    where
        F: Fn(usize, usize) + Sync,
    {
        let threads = self.threads();
        if threads == 1 || items <= 1 {
            return self.for_each_chunk(items, items, part);
        }
        let next = AtomicUsize::new(0);
        self.run(|| {
            let mut start = next.load(Ordering::Relaxed);
            while start < items {
                let share = (items - start).div_ceil(2 * threads);
                let end = start + share.min(most.max(1));
                let taken =
                    next.compare_exchange_weak(start, end, Ordering::Relaxed, Ordering::Relaxed);
                match taken {
                    Ok(_) => {
                        part(start, end);
                        start = next.load(Ordering::Relaxed);
                    }
                    Err(now) => start = now,
                }
            }
        });
    }

    fn run<F: Fn() + Sync>(&mut self, task: F) {
        unsafe fn call<F: Fn()>(data: *const ()) {
            // SAFETY: `data` points at the closure of the `run` call below, which outlives the operation.
            unsafe { (*data.cast::<F>())() }
        }
        let shared = &*self.shared;
        // SAFETY: the gate is closed and empty since the end of the last operation, so no worker reads `job` now.
        unsafe {
            *shared.job.get() = Job {
                data: (&raw const task).cast(),
                call: call::<F>,
            };
        }
        let closed = shared.gate.load(Ordering::Relaxed);
        shared
            .gate
            .store(closed.wrapping_add(OPERATION) | OPEN, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let operation = CloseAndWait { shared };
        task();
        drop(operation);
        assert!(
            !shared.panicked.swap(false, Ordering::AcqRel),
            "a worker of the pool panicked; its message stands above"
        );
    }
}

/// Closes the gate and waits for the workers inside when dropped, so that the operation's closure outlives them even if
/// the caller's part panics.
struct CloseAndWait<'a> {
    shared: &'a Shared,
}

impl Drop for CloseAndWait<'_> {
    fn drop(&mut self) {
        let mut gate = self.shared.gate.fetch_and(!OPEN, Ordering::AcqRel) & !OPEN;
        let mut spins = 0;
        while !gate.is_multiple_of(OPERATION) {
            spins += 1;
            if spins < SPINS_BEFORE_YIELDING {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
            gate = self.shared.gate.load(Ordering::Acquire);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker that panicked has already printed its message; there is nothing to add while dropping.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared) {
    let mut seen = 0;
    let mut spins = 0;
    while !shared.stopping.load(Ordering::Acquire) {
        let gate = shared.gate.load(Ordering::Acquire);
        let operation = gate / OPERATION;
        if operation == seen || gate & OPEN == 0 {
            spins += 1;
            if spins >= SPINS_BEFORE_PARKING {
                std::thread::park();
            } else if spins.is_multiple_of(SPINS_BETWEEN_STEPS) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
            continue;
        }
        let joined = gate + JOINED;
        let join = shared
            .gate
            .compare_exchange(gate, joined, Ordering::AcqRel, Ordering::Relaxed);
        if join.is_err() {
            continue;
        }
        seen = operation;
        spins = 0;
        let part = std::panic::catch_unwind(|| {
            // SAFETY: this worker has joined through the open gate, so `job` was written before it and stays untouched,
            // with its closure alive, until this worker leaves.
            unsafe {
                let job = *shared.job.get();
                (job.call)(job.data);
            }
        });
        if part.is_err() {
            shared.panicked.store(true, Ordering::Release);
        }
        shared.gate.fetch_sub(JOINED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_by_chunks_and_once_by_runs_for_any_thread_count() {
        for threads in [1, 2, 3] {
            let mut pool = Pool::new(threads);
            for items in [0, 1, 7, 64, 1000] {
                let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                let count = |start: usize, end: usize| {
                    for count in &counts[start..end] {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                };
                pool.for_each_chunk(items, 5, count);
                pool.for_each_run(items, 9, count);
                assert!(
                    counts
                        .iter()
                        .all(|count| count.load(Ordering::Relaxed) == 2)
                );
            }
        }
    }

    #[test]
    fn a_pool_goes_on_after_a_part_that_panicked() {
        for threads in [1, 2, 3] {
            let mut pool = Pool::new(threads);
            for _ in 0..20 {
                let part = |start: usize, _: usize| assert!(start != 40, "this part panics");
                let run = std::panic::AssertUnwindSafe(|| pool.for_each_chunk(64, 1, part));
                assert!(threads == 1 || std::panic::catch_unwind(run).is_err());
                let done = AtomicUsize::new(0);
                pool.for_each_chunk(64, 1, |start, end| {
                    done.fetch_add(end - start, Ordering::Relaxed);
                });
                assert_eq!(done.into_inner(), 64);
            }
        }
    }
}
