//! Threads that wait for numbered jobs.
//!
//! A run hands out the numbers `0..jobs` from one counter, so a thread that the system takes off its
//! core delays only the job it holds. The caller works too. Between runs the workers spin for a
//! moment, because a model's next operation follows within microseconds, and then sleep: an idle
//! pool costs nothing, and a busy neighbour is not robbed.
//!
//! Never decides how work is cut, and results must not depend on who runs which job.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker looks out for the next run before it sleeps.
///
/// Longer than the gap between two operations of one token (a few microseconds of norms and
/// rotations), about as long as waking a sleeper takes; longer would only burn a shared core.
const SPIN: Duration = Duration::from_micros(50);

/// A set of threads; dropping it ends them.
pub struct ThreadPool {
    shared: Arc<Shared>,
    /// Held by the caller whose run the workers serve.
    leader: Mutex<()>,
    /// All that were ever needed at once; those beyond [`Shared::limit`] rest.
    workers: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    /// Number of the latest run; a copy of `Slot::epoch` that workers can watch without a lock.
    epoch: AtomicU64,
    /// How many threads work on a run, the caller's included.
    limit: AtomicUsize,
    slot: Mutex<Slot>,
    wake: Condvar,
    /// For workers that rest: a run does not wake them.
    rest: Condvar,
}

struct Slot {
    epoch: u64,
    run: Option<Arc<Run>>,
    sleepers: usize,
    closing: bool,
}

/// One call of [`ThreadPool::run`].
struct Run {
    task: Task,
    jobs: usize,
    /// The next job to hand out; at `jobs` and beyond there is none.
    next: AtomicUsize,
    /// Jobs completed; at `jobs` the caller may return.
    done: AtomicUsize,
    finished: Mutex<Finished>,
    all_done: Condvar,
}

#[derive(Default)]
struct Finished {
    all: bool,
    panic: Option<Box<dyn Any + Send>>,
}

/// The caller's closure with its lifetime erased.
#[derive(Clone, Copy)]
struct Task(*const (dyn Fn(usize) + Sync));

// SAFETY: the closure is `Sync`, so calling it from several threads is allowed; `Run::work` says
// why it is alive whenever it is called.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

impl ThreadPool {
    /// A pool of `threads`, the calling thread counted; zero is taken as one.
    ///
    /// If the system refuses a thread the pool is smaller, see [`ThreadPool::threads`].
    pub fn new(threads: usize) -> Arc<Self> {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            limit: AtomicUsize::new(1),
            slot: Mutex::new(Slot { epoch: 0, run: None, sleepers: 0, closing: false }),
            wake: Condvar::new(),
            rest: Condvar::new(),
        });
        let pool = Self { shared, leader: Mutex::new(()), workers: Mutex::default() };
        pool.resize(threads);
        Arc::new(pool)
    }

    /// How many threads work on a run, the caller's included.
    pub fn threads(&self) -> usize {
        self.shared.limit.load(Ordering::Relaxed)
    }

    /// Lets `threads` work on runs from the next one on, as [`ThreadPool::new`] counts them.
    pub fn resize(&self, threads: usize) {
        let mut workers = lock(&self.workers);
        while workers.len() + 1 < threads {
            let (index, shared) = (workers.len() + 1, Arc::clone(&self.shared));
            let builder = std::thread::Builder::new().name(format!("kernels-{index}"));
            match builder.spawn(move || shared.serve(index)) {
                Ok(worker) => workers.push(worker),
                Err(_) => break,
            }
        }
        // Workers that look at the limit hold the slot until they sleep, so that none misses this.
        let _slot = self.shared.slot();
        self.shared.limit.store(threads.clamp(1, workers.len() + 1), Ordering::Relaxed);
        self.shared.wake.notify_all();
        self.shared.rest.notify_all();
    }

    /// Calls `task(0)`, …, `task(jobs - 1)`, each once, in any order and on any thread, and returns
    /// when all have returned.
    ///
    /// If the workers already serve another caller, or this is called from inside a job, all jobs
    /// run on the calling thread: never a deadlock, never a wait.
    ///
    /// # Panics
    /// With the panic of a job, once every job has ended.
    pub fn run(&self, jobs: usize, task: &(dyn Fn(usize) + Sync)) {
        let leader = self.leader.try_lock();
        if jobs < 2 || self.threads() < 2 || leader.is_err() {
            (0..jobs).for_each(task);
            return;
        }
        let run = Arc::new(Run::new(jobs, task));
        self.shared.publish(Arc::clone(&run));
        run.work();
        run.wait();
        drop(leader);
        run.rethrow();
    }

    /// Cuts `out` into chunks of `length` (the last may be shorter) and calls
    /// `task(index, chunk)` on each, several chunks to a job when there are many.
    pub fn run_chunks<T: Send>(
        &self,
        out: &mut [T],
        length: usize,
        task: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        /// Enough jobs for each thread that an unlucky one is made up for by the others.
        const JOBS_PER_THREAD: usize = 8;
        let chunks = out.len().div_ceil(length.max(1));
        let per_job = chunks.div_ceil(self.threads() * JOBS_PER_THREAD).max(1);
        let total = out.len();
        let out = SharedSlice::new(out);
        self.run(chunks.div_ceil(per_job), &|job| {
            for index in job * per_job..chunks.min((job + 1) * per_job) {
                let start = index * length;
                // SAFETY: chunks of different indices are disjoint and each index is visited once.
                let chunk = unsafe { out.slice(start, length.min(total - start)) };
                task(index, chunk);
            }
        });
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.close();
        for worker in lock(&self.workers).drain(..) {
            // Jobs' panics are caught and rethrown to their caller, so there is none to report.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish()
    }
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        lock(&self.slot)
    }

    fn publish(&self, run: Arc<Run>) {
        let mut slot = self.slot();
        slot.run = Some(run);
        slot.epoch += 1;
        self.epoch.store(slot.epoch, Ordering::Release);
        if slot.sleepers > 0 {
            self.wake.notify_all();
        }
    }

    fn close(&self) {
        let mut slot = self.slot();
        slot.closing = true;
        slot.epoch += 1;
        self.epoch.store(slot.epoch, Ordering::Release);
        self.wake.notify_all();
        self.rest.notify_all();
    }

    /// The life of worker `index`; the caller of a run is number 0.
    fn serve(&self, index: usize) {
        let mut seen = 0;
        while let Some((epoch, run)) = self.next_run(index, seen) {
            seen = epoch;
            run.work();
        }
    }

    /// Waits for a run later than `seen`; `None` when the pool closes.
    fn next_run(&self, index: usize, seen: u64) -> Option<(u64, Arc<Run>)> {
        let rests = || index >= self.limit.load(Ordering::Relaxed);
        spin_until(|| rests() || self.epoch.load(Ordering::Acquire) != seen);
        let mut slot = self.slot();
        loop {
            if slot.closing {
                return None;
            }
            if rests() {
                slot = self.rest.wait(slot).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if slot.epoch != seen
                && let Some(run) = &slot.run
            {
                return Some((slot.epoch, Arc::clone(run)));
            }
            slot.sleepers += 1;
            slot = self.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
            slot.sleepers -= 1;
        }
    }
}

impl Run {
    fn new(jobs: usize, task: &(dyn Fn(usize) + Sync)) -> Self {
        // SAFETY: only the lifetime changes, and `work` calls the task only while `task` is borrowed.
        let task = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize) + Sync + '_),
                *const (dyn Fn(usize) + Sync + 'static),
            >(std::ptr::from_ref(task))
        };
        Self {
            task: Task(task),
            jobs,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            finished: Mutex::new(Finished::default()),
            all_done: Condvar::new(),
        }
    }

    /// Takes jobs until none is left.
    fn work(&self) {
        loop {
            let job = self.next.fetch_add(1, Ordering::Relaxed);
            if job >= self.jobs {
                return;
            }
            // SAFETY: this job is not done yet, so `done < jobs` until the end of this iteration
            // and the caller, who lent the closure, is still inside `wait`. A worker that comes
            // late finds no job left and never gets here.
            let task = unsafe { &*self.task.0 };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(job))) {
                lock(&self.finished).panic = Some(panic);
            }
            if self.done.fetch_add(1, Ordering::AcqRel) + 1 == self.jobs {
                lock(&self.finished).all = true;
                self.all_done.notify_all();
            }
        }
    }

    /// Returns when every job has ended.
    fn wait(&self) {
        // Acquire pairs with the release of each job's `fetch_add`: their writes are seen here.
        if spin_until(|| self.done.load(Ordering::Acquire) == self.jobs) {
            return;
        }
        let mut finished = lock(&self.finished);
        while !finished.all {
            finished = self.all_done.wait(finished).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn rethrow(&self) {
        let panic = lock(&self.finished).panic.take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// Looks at `ready` for at most [`SPIN`]; says whether it became true.
fn spin_until(ready: impl Fn() -> bool) -> bool {
    /// Looks between two readings of the clock, which costs about as much as that many pauses.
    const LOOKS: u32 = 32;
    let mut start = None;
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
            return ready();
        }
    }
}

/// No lock here is held while foreign code runs, so poison means nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slice that several threads write at different places.
pub(super) struct SharedSlice<T = f32> {
    start: *mut T,
    length: usize,
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedSlice<T> {}

// SAFETY: access goes through `slice`, whose callers promise disjoint ranges.
unsafe impl<T: Send> Send for SharedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedSlice<T> {}

impl<T> SharedSlice<T> {
    pub(super) fn new(slice: &mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len() }
    }

    /// Where element `at` lies, which need not be there.
    #[inline(always)]
    pub(super) fn address(&self, at: usize) -> *const T {
        self.start.wrapping_add(at)
    }

    /// The elements `from..from + length`.
    ///
    /// # Panics
    /// If they reach beyond the slice.
    ///
    /// # Safety
    /// No two references to one element may live at the same time, and none may outlive the slice
    /// that `self` was made from.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn slice<'a>(&self, from: usize, length: usize) -> &'a mut [T] {
        assert!(from <= self.length && length <= self.length - from, "a chunk lies in its slice");
        // SAFETY: in bounds as just checked; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_once_whatever_the_number_of_threads() {
        for threads in [0, 1, 2, 5] {
            let pool = ThreadPool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for jobs in [0, 1, 2, 3, 100] {
                let counts: Vec<_> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
                pool.run(jobs, &|job| {
                    counts[job].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_short_runs_from_several_callers_lose_nothing() {
        let pool = ThreadPool::new(3);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        pool.run(7, &|job| {
                            total.fetch_add(job, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 3 * 2_000 * 21);
    }

    #[test]
    fn a_sleeping_pool_wakes() {
        let pool = ThreadPool::new(2);
        for _ in 0..3 {
            std::thread::sleep(4 * SPIN);
            let total = AtomicUsize::new(0);
            pool.run(10, &|job| {
                total.fetch_add(job, Ordering::Relaxed);
            });
            assert_eq!(total.load(Ordering::Relaxed), 45);
        }
    }

    #[test]
    fn a_pool_grows_and_shrinks_between_runs_and_during_them() {
        let pool = ThreadPool::new(1);
        for threads in [3, 1, 2, 5, 0, 4] {
            pool.resize(threads);
            assert_eq!(pool.threads(), threads.max(1));
            // Jobs that wait for each other: as many threads as there should be are at work at once.
            let together = std::sync::Barrier::new(threads.max(1));
            pool.run(threads.max(1), &|_| {
                together.wait();
            });
        }
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..400).for_each(|turn| pool.resize(turn % 5)));
            for _ in 0..1_000 {
                pool.run(7, &|job| {
                    total.fetch_add(job, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 1_000 * 21);
    }

    #[test]
    fn a_job_may_start_a_run() {
        let pool = ThreadPool::new(2);
        let total = AtomicUsize::new(0);
        pool.run(4, &|_| {
            pool.run(4, &|job| {
                total.fetch_add(job, Ordering::Relaxed);
            });
        });
        assert_eq!(total.load(Ordering::Relaxed), 24);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.run(8, &|job| assert_ne!(job, 5, "job five fails"));
        }));
        assert!(caught.is_err());
        let total = AtomicUsize::new(0);
        pool.run(8, &|job| {
            total.fetch_add(job, Ordering::Relaxed);
        });
        assert_eq!(total.load(Ordering::Relaxed), 28);
    }

    #[test]
    fn chunks_cover_the_slice_once() {
        let pool = ThreadPool::new(3);
        for (length, chunk) in [(0, 4), (1, 4), (4, 4), (103, 4), (103, 1), (103, 200)] {
            let mut out = vec![0.0; length];
            pool.run_chunks(&mut out, chunk, &|index, part| {
                for (offset, element) in part.iter_mut().enumerate() {
                    *element += (index * chunk + offset + 1) as f32;
                }
            });
            let expected: Vec<_> = (1..=length).map(|number| number as f32).collect();
            assert_eq!(out, expected);
        }
    }
}
