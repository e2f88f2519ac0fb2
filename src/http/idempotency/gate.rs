//! Whether the handler is begun: by its task, unless its client has left before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, JoinError, JoinHandle};

use crate::guard::Guard;

/// The task and its client race for it once. It publishes no other memory: relaxed.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Whether this is the first to come.
    pub(super) fn pass(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// Waits for the task. Dropped, it lets the task go on that has passed, and ends one that has not: it may be waiting
    /// for a place, or for somebody else's outcome.
    pub(super) async fn wait<T>(self, task: JoinHandle<T>) -> Result<T, JoinError> {
        let leaving = Guard::new((self, task.abort_handle()), leave);
        let ended = task.await;
        leaving.disarm();
        ended
    }
}

fn leave((gate, task): (Gate, AbortHandle)) {
    if gate.pass() {
        task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use tokio::sync::oneshot;

    use super::*;

    /// Polls the wait for a task once and drops it; what becomes of the task.
    async fn left(gate: Gate) -> Poll<()> {
        let (ended, mut end) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let _ended = ended;
            pending::<()>().await;
        });
        {
            let mut wait = pin!(gate.wait(task));
            assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        tokio::task::yield_now().await;
        match end.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    #[tokio::test]
    async fn who_leaves_ends_a_task_that_has_not_begun_and_no_other() {
        assert!(left(Gate::default()).await.is_ready());
        let begun = Gate::default();
        assert!(begun.pass() && !begun.pass());
        assert!(left(begun).await.is_pending());
    }

    #[tokio::test]
    async fn who_stays_gets_what_the_task_returns() {
        let gate = Gate::default();
        assert_eq!(gate.clone().wait(tokio::spawn(async { 7 })).await.unwrap(), 7);
        assert!(gate.pass());
    }
}
