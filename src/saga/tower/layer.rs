//! A layer that makes what it wraps the pivot of a saga.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use tower_layer::Layer;
use tower_service::Service;

use super::super::action::{SharedCode, action};
use super::super::cx::Cx;
use super::super::definition::{Saga, SagaBuilder};
use super::super::engine::{SagaData, SagaEngine};
use super::super::error::{StepError, StepResult};
use super::super::step::Step;
use super::call::call_service_by;
use super::service::{KeyOf, SagaService};
use crate::{ConfigError, Key};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Wraps a service into a durable saga, whose pivot it becomes. The result is a [`SagaService`].
///
/// The request is made from the context, and the response put into it; so a process that takes the saga over sends the
/// same request. Timeouts and retries belong inside, around the service: around this layer they only stop waiting.
///
/// The saga is registered with the engine when the layer is applied, and from then on driven there, those of a process that
/// died among them. Applied several times, the layer calls the service that it was applied to first.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use steadfast::Key;
/// use steadfast::saga::journal::MemoryJournal;
/// use steadfast::saga::{Cx, Saga, SagaEngine, SagaLayer, StepResult};
/// use tower::{ServiceBuilder, ServiceExt as _};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order {
///     number: u32,
///     reserved: bool,
///     receipt: Option<String>,
/// }
///
/// async fn reserve(cx: &mut Cx<Order>) -> StepResult {
///     cx.reserved = true;
///     Ok(())
/// }
///
/// async fn release(cx: &mut Cx<Order>) -> StepResult {
///     cx.reserved = false;
///     Ok(())
/// }
///
/// async fn charge(amount: u32) -> Result<String, std::io::Error> {
///     Ok(format!("paid {amount}"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = SagaEngine::builder(MemoryJournal::new()).build()?;
/// let layer = SagaLayer::pivot(
///     "charge",
///     |cx: &Cx<Order>| cx.number,
///     |cx: &mut Cx<Order>, receipt: String| {
///         cx.receipt = Some(receipt);
///         Ok(())
///     },
/// )
/// .within(
///     &engine,
///     |charge| Saga::builder("order").step("reserve", reserve, release).with(charge.attempts(2)),
///     |order: &Order| Key::new("shop", order.number.to_string()),
/// )?;
/// let orders = ServiceBuilder::new().layer(layer).service(tower::service_fn(charge));
/// let order = Order { number: 17, reserved: false, receipt: None };
/// assert_eq!(orders.oneshot(order).await?.receipt.as_deref(), Some("paid 17"));
/// # Ok(())
/// # }
/// ```
pub struct SagaLayer<C, F, G, D = ()> {
    engine: SagaEngine,
    key: KeyOf<C>,
    saga: Saga<C, D>,
    call: PivotCall<F, G>,
    wrapped: Wrapped<C, D>,
}

/// The call of the service that the layer was applied to first.
type Wrapped<C, D> = Arc<OnceLock<SharedCode<C, D, StepResult>>>;

/// How the wrapped service is called; made by [`SagaLayer::pivot`].
#[must_use]
pub struct PivotCall<F, G> {
    name: Cow<'static, str>,
    request: F,
    fold: G,
    classify: Arc<dyn Fn(BoxError) -> StepError + Send + Sync>,
}

impl SagaLayer<(), (), ()> {
    /// The wrapped service as a pivot of this name: `request` makes its request from the context, `fold` puts its response
    /// into it, or says that it is a "no".
    pub fn pivot<F, G>(name: impl Into<Cow<'static, str>>, request: F, fold: G) -> PivotCall<F, G> {
        PivotCall {
            name: name.into(),
            request,
            fold,
            classify: Arc::new(StepError::of_boxed),
        }
    }
}

impl<F, G> PivotCall<F, G> {
    /// What an error of the service means. Default: *unknown*, but for a [`Rejected`](crate::Rejected) that did not reach the
    /// service inside.
    pub fn classify(mut self, classify: impl Fn(BoxError) -> StepError + Send + Sync + 'static) -> Self {
        self.classify = Arc::new(classify);
        self
    }

    /// The layer: `saga` puts the pivot among its steps, `key` gives the business key of a context.
    ///
    /// # Errors
    ///
    /// Those of [`SagaBuilder::build`], and when `saga` leaves the pivot out.
    pub fn within<C, D>(
        self,
        engine: &SagaEngine,
        saga: impl FnOnce(Step<C, D>) -> SagaBuilder<C, D>,
        key: impl Fn(&C) -> Key + Send + Sync + 'static,
    ) -> Result<SagaLayer<C, F, G, D>, ConfigError>
    where
        C: SagaData,
        D: Send + Sync + 'static,
    {
        let wrapped = Wrapped::<C, D>::default();
        let call = Arc::clone(&wrapped);
        let pivot = Step::pivot(self.name.clone(), async move |cx: &mut Cx<C, D>| match call.get() {
            Some(call) => call.call(cx).await,
            // The saga is registered, and so driven, once there is one.
            None => Err(StepError::not_sent("the layer wraps no service yet")),
        });
        Ok(SagaLayer {
            engine: engine.clone(),
            key: Arc::new(key),
            saga: saga(pivot).build_around(&self.name)?,
            call: self,
            wrapped,
        })
    }
}

impl<C, D, F, G, Q, S> Layer<S> for SagaLayer<C, F, G, D>
where
    C: SagaData,
    D: Send + Sync + 'static,
    Q: Send + 'static,
    S: Service<Q, Error: Into<BoxError> + Send, Future: Send, Response: Send> + Clone + Send + 'static,
    F: Fn(&Cx<C, D>) -> Q + Clone + Send + Sync + 'static,
    G: Fn(&mut Cx<C, D>, S::Response) -> StepResult + Clone + Send + Sync + 'static,
{
    type Service = SagaService<C, D>;

    fn layer(&self, inner: S) -> SagaService<C, D> {
        self.wrapped.get_or_init(|| {
            let PivotCall {
                request,
                fold,
                classify,
                ..
            } = self.call.clone();
            let classify = move |error: S::Error| classify(error.into());
            action(call_service_by(inner, request, fold, classify))
        });
        self.engine.register(&self.saga);
        SagaService::with(self.engine.clone(), self.saga.clone(), Arc::clone(&self.key))
    }
}

impl<F: Clone, G: Clone> Clone for PivotCall<F, G> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            request: self.request.clone(),
            fold: self.fold.clone(),
            classify: Arc::clone(&self.classify),
        }
    }
}

impl<C, F: Clone, G: Clone, D> Clone for SagaLayer<C, F, G, D> {
    fn clone(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            key: Arc::clone(&self.key),
            saga: self.saga.clone(),
            call: self.call.clone(),
            wrapped: Arc::clone(&self.wrapped),
        }
    }
}

impl<F, G> fmt::Debug for PivotCall<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PivotCall")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<C, F, G, D> fmt::Debug for SagaLayer<C, F, G, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaLayer")
            .field("engine", &self.engine)
            .field("pivot", &self.call.name)
            .finish_non_exhaustive()
    }
}
