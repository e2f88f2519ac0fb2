//! A saga whose steps run twice.

use std::fmt;

use crate::saga::{Saga, SagaError};

/// Runs a saga once, and once more for each step with that step run twice, and compares what you `observe` after each.
///
/// A step runs twice wherever its first result is lost: its process died before it was written down, or its answer did
/// not come back. The second run has the same key and the same context as the first, and is to change nothing. So does
/// each step here, on the way forward and on the way back; only runs that succeed are repeated. At last all steps are
/// repeated in one run.
///
/// `observe` sees how the saga ended. It gives what is to be the same each time: a part of the context, and the state of
/// the services, which it resets for the next run. Give it a context with which the saga turns back to try the undos.
///
/// It answers how many runs there were.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use steadfast::saga::{Cx, Saga};
/// use steadfast::testing::saga::rerun_every_step;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A service that knows its requests by their keys.
/// let charged: Arc<Mutex<Vec<String>>> = Arc::default();
/// let service = Arc::clone(&charged);
/// let order = Saga::<u32>::builder("order")
///     .pivot("charge", async move |cx: &mut Cx<u32>| {
///         let key = cx.idempotency_key();
///         let mut charged = service.lock().unwrap();
///         if !charged.contains(&key) {
///             charged.push(key);
///         }
///         Ok(())
///     })
///     .build()?;
///
/// rerun_every_step(&order, 17, |ended| (ended.is_ok(), charged.lock().unwrap().drain(..).count())).await;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// When something else is observed where a step ran twice; it names the step.
pub async fn rerun_every_step<C, D, W>(
    saga: &Saga<C, D>,
    context: C,
    mut observe: impl FnMut(&Result<C, SagaError>) -> W,
) -> usize
where
    C: Clone + Send + 'static,
    D: Send + Sync + 'static,
    W: PartialEq + fmt::Debug,
{
    let once = observe(&saga.run(context.clone()).await);
    let steps: Vec<_> = saga.steps().map(|(step, _)| step.to_owned()).collect();
    for step in &steps {
        let twice = observe(&saga.twice(Some(step)).run(context.clone()).await);
        assert!(
            twice == once,
            "step `{step}` of saga `{}` ran twice: expected {once:?}, observed {twice:?}",
            saga.name()
        );
    }
    let twice = observe(&saga.twice(None).run(context).await);
    assert!(
        twice == once,
        "every step of saga `{}` ran twice: expected {once:?}, observed {twice:?}",
        saga.name()
    );
    steps.len() + 2
}
