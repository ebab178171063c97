//! The threads that detect: as many as there are cores, each with its own workspace, behind a queue of
//! bounded length.
//!
//! Detection takes from a fraction of a millisecond to a second of processor time and never waits, so
//! it has no place on the threads that serve connections.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use crate::detector::Workspace;

/// Calls that may wait per thread. At a second each, the slowest, the last one waits about as long as
/// clients do.
const WAITING_PER_THREAD: usize = 64;
/// Longest wait: whoever comes to the turn later is told to try again, and the queue drains.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace::new());
}

/// The threads and their queue.
#[derive(Debug)]
pub(crate) struct Pool {
    threads: rayon::ThreadPool,
    places: Arc<Semaphore>,
}

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotDone {
    #[error("too much work is waiting; try again in a second")]
    Overloaded,
    #[error("the detector panicked")]
    Panicked,
}

impl Pool {
    /// A pool of `threads` threads.
    pub(crate) fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("detect-{i}"))
            .build()?;
        let places = (1 + WAITING_PER_THREAD) * threads.current_num_threads();
        Ok(Self {
            threads,
            places: Arc::new(Semaphore::new(places)),
        })
    }

    /// Whether there is room for more work.
    pub(crate) fn has_room(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Does `work` on one of the threads. It is left undone when the caller has gone by its turn.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Workspace) -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| NotDone::Overloaded)?;
        let asked = Instant::now();
        let (answer, answered) = oneshot::channel();
        self.threads.spawn(move || {
            if answer.is_closed() {
                return;
            }
            let done = if asked.elapsed() > LONGEST_WAIT {
                Err(NotDone::Overloaded)
            } else {
                in_workspace(work)
            };
            drop(place);
            // The caller may have hung up meanwhile; then nobody waits for this.
            let _ = answer.send(done);
        });
        answered.await.unwrap_or(Err(NotDone::Panicked))
    }
}

fn in_workspace<T>(work: impl FnOnce(&mut Workspace) -> T) -> Result<T, NotDone> {
    WORKSPACE.with_borrow_mut(|workspace| {
        catch_unwind(AssertUnwindSafe(|| work(workspace))).map_err(|_| {
            // Whatever the panic left in it is not trusted.
            *workspace = Workspace::new();
            NotDone::Panicked
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_call_only() {
        let pool = Pool::new(1).unwrap();
        let broken: Result<(), _> = pool.run(|_| panic!("on purpose")).await;
        assert_eq!(broken, Err(NotDone::Panicked));
        assert_eq!(pool.run(|_| 7).await, Ok(7));
        assert!(pool.has_room());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_recovers() {
        let pool = Arc::new(Pool::new(1).unwrap());
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let mut calls = Vec::new();
        for _ in 0..=WAITING_PER_THREAD {
            let (pool, gate) = (Arc::clone(&pool), Arc::clone(&gate));
            calls.push(tokio::spawn(async move {
                pool.run(move |_| gate.lock().unwrap().recv().is_ok()).await
            }));
        }
        while pool.has_room() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|_| ()).await, Err(NotDone::Overloaded));
        for _ in &calls {
            release.send(()).unwrap();
        }
        for call in calls {
            assert_eq!(call.await.unwrap(), Ok(true));
        }
        assert_eq!(pool.run(|_| 7).await, Ok(7));
    }
}
