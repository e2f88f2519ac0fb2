//! The Tower face.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::attempt::Attempt;
use super::disposition::Decide;
use super::drive::Keyed;
use super::encoding::{Codec, Json};
use super::fingerprint::Fingerprint;
use super::hook::{Hook, NoHook};
use super::policy::Idempotency;
use super::rebuild::Unreadable;
use super::recover::{Interruption, Recovery};
use super::store::{Face, Resolved};
use crate::poll::polled_after_completion;
use crate::rejected::Idempotency as Why;
use crate::storage::StorageError;
use crate::{Key, KeyId, Rejected};

type Before<Req> = dyn Fn(&mut Req, Attempt) + Send + Sync;

impl<D> Idempotency<D> {
    /// A layer: each request runs once for the key and the fingerprint that `key_of` finds, and passes where it finds
    /// none.
    ///
    /// The future of the caller drives the operation: dropped, it interrupts it. For HTTP servers there is
    /// [`http::idempotency`](https://docs.rs/steadfast/latest/steadfast/http/fn.idempotency.html).
    ///
    /// # Examples
    ///
    /// ```
    /// use steadfast::{Error, Key, Rejected};
    /// use steadfast::idempotency::{Fingerprint, Idempotency, MemoryStore};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    ///
    /// #[derive(Clone)]
    /// struct Charge { tenant: String, order: String, cents: u64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let payments = Idempotency::at_least_once(MemoryStore::new()).build()?;
    /// let layer = payments.layer_by(|charge: &Charge| {
    ///     Some((Key::new(&charge.tenant, &charge.order), Fingerprint::of(&charge.cents).ok()?))
    /// });
    /// let service = ServiceBuilder::new().layer(layer).service(service_fn(|charge: Charge| async move {
    ///     Ok::<_, Rejected>(format!("{} cents", charge.cents))
    /// }));
    /// let charge = Charge { tenant: "tenant-7".into(), order: "order-1234".into(), cents: 100 };
    /// assert_eq!(service.clone().oneshot(charge.clone()).await?, "100 cents");
    /// assert_eq!(service.oneshot(charge).await?, "100 cents");
    /// # Ok(())
    /// # }
    /// ```
    pub fn layer_by<Req, F>(&self, key_of: F) -> IdempotencyLayer<Req, F, D>
    where
        F: Fn(&Req) -> Option<(Key, Fingerprint)>,
    {
        IdempotencyLayer {
            policy: self.clone(),
            key_of,
            codec: Json,
            before: None,
            recover: NoHook,
            rebuild: NoHook,
            request: PhantomData,
        }
    }
}

/// Runs requests once for their key; made by [`Idempotency::layer_by`].
#[must_use]
pub struct IdempotencyLayer<Req, F, D, C = Json, R = NoHook, B = NoHook> {
    policy: Idempotency<D>,
    key_of: F,
    codec: C,
    before: Option<Arc<Before<Req>>>,
    recover: R,
    rebuild: B,
    request: PhantomData<fn(Req)>,
}

impl<Req, F, D, C, R, B> IdempotencyLayer<Req, F, D, C, R, B> {
    fn with<C2, R2, B2>(self, set: impl FnOnce(C, R, B) -> (C2, R2, B2)) -> IdempotencyLayer<Req, F, D, C2, R2, B2> {
        let (codec, recover, rebuild) = set(self.codec, self.recover, self.rebuild);
        IdempotencyLayer {
            policy: self.policy,
            key_of: self.key_of,
            codec,
            before: self.before,
            recover,
            rebuild,
            request: PhantomData,
        }
    }

    /// Encodes responses by `codec`. Default: [`Json`].
    pub fn codec<N>(self, codec: N) -> IdempotencyLayer<Req, F, D, N, R, B> {
        self.with(|_, recover, rebuild| (codec, recover, rebuild))
    }

    /// Runs `hook` on each request under a key just before the service is called: to hand it the [`Attempt`], or a key
    /// for a service behind it.
    pub fn before_attempt(mut self, hook: impl Fn(&mut Req, Attempt) + Send + Sync + 'static) -> Self {
        self.before = Some(Arc::new(hook));
        self
    }

    /// Finds out what became of a request that was interrupted, before a caller hears that nobody knows: for at most
    /// once, as in [`execute_or_recover`](Idempotency::execute_or_recover). An error of `hook` goes to its caller.
    pub fn recover<N, Ask, T, E>(self, hook: N) -> IdempotencyLayer<Req, F, D, C, N, B>
    where
        N: Fn(Interruption) -> Ask,
        Ask: Future<Output = Result<Recovery<T>, E>>,
    {
        self.with(|codec, _, rebuild| (codec, hook, rebuild))
    }

    /// Makes a response that was stored and cannot be read, before a caller hears that it cannot be replayed, as in
    /// [`execute_or_rebuild`](Idempotency::execute_or_rebuild). An error of `hook` goes to its caller.
    pub fn rebuild<N, Made, T, E>(self, hook: N) -> IdempotencyLayer<Req, F, D, C, R, N>
    where
        N: Fn(Unreadable) -> Made,
        Made: Future<Output = Result<T, E>>,
    {
        self.with(|codec, recover, _| (codec, recover, hook))
    }

    /// An interrupted operation was carried out, with this response: it is replayed from now on. The id is the one that
    /// [`list_interrupted`](Idempotency::list_interrupted) and the logs show.
    ///
    /// # Errors
    ///
    /// Those of the store; [`Refused`](crate::storage::StorageErrorKind::Refused) when the response is too large or has no
    /// encoding.
    pub async fn resolve_completed<T>(&self, id: KeyId, response: &T) -> Result<Resolved, StorageError>
    where
        C: Codec<T>,
    {
        self.policy
            .policy
            .resolve_completed(id, self.encode(id, response))
            .await
    }

    /// What was resolved has another response, or was none of this layer's: as [`correct`](Idempotency::correct) of the
    /// policy.
    ///
    /// # Errors
    ///
    /// As for [`resolve_completed`](Self::resolve_completed).
    pub async fn correct<T>(&self, id: KeyId, response: &T) -> Result<Resolved, StorageError>
    where
        C: Codec<T>,
    {
        self.policy.policy.correct(id, self.encode(id, response)).await
    }

    fn encode<T>(&self, id: KeyId, response: &T) -> Result<Bytes, Why>
    where
        C: Codec<T>,
    {
        let codec = &self.policy.policy.codec;
        codec.encode_by(id, |outcome| self.codec.encode(response, outcome))
    }
}

impl<S, Req, F: Clone, D, C: Clone, R: Clone, B: Clone> Layer<S> for IdempotencyLayer<Req, F, D, C, R, B> {
    type Service = IdempotencyService<S, Req, F, D, C, R, B>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service under an [`IdempotencyLayer`].
pub struct IdempotencyService<S, Req, F, D, C = Json, R = NoHook, B = NoHook> {
    inner: S,
    layer: IdempotencyLayer<Req, F, D, C, R, B>,
}

impl<S, Req, F, D, C, R, B> Service<Req> for IdempotencyService<S, Req, F, D, C, R, B>
where
    S: Service<Req, Response: Send + 'static, Error: From<Rejected> + Send + 'static, Future: Send>
        + Clone
        + Send
        + 'static,
    Req: Send + 'static,
    F: Fn(&Req) -> Option<(Key, Fingerprint)>,
    D: Decide<S::Response, S::Error> + Send + Sync + 'static,
    C: Codec<S::Response> + Clone + Send + Sync + 'static,
    R: Hook<Interruption, Recovery<S::Response>, S::Error, Answer: Send> + Clone + Send + 'static,
    B: Hook<Unreadable, S::Response, S::Error, Answer: Send> + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let Some((key, fingerprint)) = (self.layer.key_of)(&request) else {
            return ResponseFuture(Way::Passed(Some(self.inner.call(request))));
        };
        let fresh = self.inner.clone();
        let mut readied = mem::replace(&mut self.inner, fresh);
        let IdempotencyLayer {
            policy,
            codec,
            before,
            recover,
            rebuild,
            ..
        } = &self.layer;
        let (policy, codec, before) = (policy.clone(), codec.clone(), before.clone());
        let (recover, rebuild) = (recover.clone(), rebuild.clone());
        let operation = move |attempt| {
            if let Some(before) = before {
                before(&mut request, attempt);
            }
            readied.call(request)
        };
        ResponseFuture(Way::Keyed(Box::pin(async move {
            let keyed = Keyed {
                id: policy.id(&key),
                fingerprint,
                face: Face::Layer,
            };
            let executed = policy.execute_with_hooks(keyed, &codec, operation, recover, rebuild);
            Ok(executed.await?.value)
        })))
    }
}

/// The future of an [`IdempotencyService`].
#[pin_project]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<F, T, E>(#[pin] Way<F, T, E>);

#[pin_project(project = WayProjection)]
enum Way<F, T, E> {
    /// The request has no key. `None` once it has its response: nothing below is held any longer.
    Passed(#[pin] Option<F>),
    Keyed(Pin<Box<dyn Future<Output = Result<T, E>> + Send>>),
}

impl<F, T, E> Future for ResponseFuture<F, T, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            WayProjection::Passed(mut passed) => {
                let Some(call) = passed.as_mut().as_pin_mut() else {
                    return polled_after_completion("idempotency");
                };
                let result = ready!(call.poll(cx));
                passed.set(None);
                Poll::Ready(result)
            }
            WayProjection::Keyed(call) => call.as_mut().poll(cx),
        }
    }
}

impl<Req, F: Clone, D, C: Clone, R: Clone, B: Clone> Clone for IdempotencyLayer<Req, F, D, C, R, B> {
    fn clone(&self) -> Self {
        Self {
            policy: self.policy.clone(),
            key_of: self.key_of.clone(),
            codec: self.codec.clone(),
            before: self.before.clone(),
            recover: self.recover.clone(),
            rebuild: self.rebuild.clone(),
            request: PhantomData,
        }
    }
}

impl<S: Clone, Req, F: Clone, D, C: Clone, R: Clone, B: Clone> Clone for IdempotencyService<S, Req, F, D, C, R, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<Req, F, D, C, R, B> fmt::Debug for IdempotencyLayer<Req, F, D, C, R, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyLayer")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, Req, F, D, C, R, B> fmt::Debug for IdempotencyService<S, Req, F, D, C, R, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}

impl<F, T, E> fmt::Debug for ResponseFuture<F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
