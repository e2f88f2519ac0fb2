//! A service as a step.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use tower_service::Service;

use super::super::action::Action;
use super::super::cx::Cx;
use super::super::error::{StepError, StepResult};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The action of a step, or its undo, that calls a Tower service: `request` makes the request from the context, `fold`
/// puts the response into it, or says that it is a "no".
///
/// Each run calls a clone of the service, and waits for it to be ready. An error of the service is *unknown*, the effect
/// may have happened; but for a [`Rejected`](crate::Rejected) that did not reach the service inside: then nothing was sent.
/// [`call_service_by`] says otherwise.
///
/// # Examples
///
/// ```
/// use steadfast::saga::{Cx, Saga, Step, StepError, call_service};
///
/// # fn payments() -> tower::util::BoxCloneService<(String, u32), bool, tower::BoxError> {
/// #     tower::util::BoxCloneService::new(tower::service_fn(async |_| Ok(true)))
/// # }
/// let charge = call_service(
///     payments(),
///     |cx: &Cx<u32>| (cx.idempotency_key(), **cx),
///     |_: &mut Cx<u32>, paid| if paid { Ok(()) } else { Err(StepError::failed("declined")) },
/// );
/// let saga = Saga::<u32>::builder("order").pivot("charge", charge).build()?;
/// # Ok::<_, steadfast::ConfigError>(())
/// ```
pub fn call_service<C, D, Q, S, F, G>(service: S, request: F, fold: G) -> impl Action<C, D>
where
    C: Send + 'static,
    D: Send + Sync + 'static,
    Q: Send + 'static,
    S: Service<Q, Error: Into<BoxError> + Send, Future: Send, Response: Send> + Clone + Send + 'static,
    F: Fn(&Cx<C, D>) -> Q + Clone + Send + Sync + 'static,
    G: Fn(&mut Cx<C, D>, S::Response) -> StepResult + Clone + Send + Sync + 'static,
{
    call_service_by(service, request, fold, |error: S::Error| {
        StepError::of_boxed(error.into())
    })
}

/// The same, where `classify` says what an error of the service means.
pub fn call_service_by<C, D, Q, S, F, G, E>(service: S, request: F, fold: G, classify: E) -> impl Action<C, D>
where
    C: Send + 'static,
    D: Send + Sync + 'static,
    Q: Send + 'static,
    S: Service<Q, Error: Send, Future: Send, Response: Send> + Clone + Send + 'static,
    F: Fn(&Cx<C, D>) -> Q + Clone + Send + Sync + 'static,
    G: Fn(&mut Cx<C, D>, S::Response) -> StepResult + Clone + Send + Sync + 'static,
    E: Fn(S::Error) -> StepError + Clone + Send + Sync + 'static,
{
    // A service need not be `Sync`: each run takes a clone out.
    let service = Arc::new(Mutex::new(service));
    async move |cx: &mut Cx<C, D>| {
        let mut service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let request = request(cx);
        let ready = poll_fn(|context| service.poll_ready(context)).await;
        ready.map_err(&classify)?;
        let response = service.call(request).await.map_err(&classify)?;
        fold(cx, response)
    }
}
