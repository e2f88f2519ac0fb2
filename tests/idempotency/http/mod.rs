//! The `Idempotency-Key` layer: axum behind it, reqwest and plain TCP before it, over loopback.

mod bodies;
mod client;
mod disconnects;
mod hooks;
mod keys;
mod replays;
mod secrets;
mod statuses;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::request::Parts;
use steadfast::http::idempotency::IdempotencyLayer;
use steadfast::idempotency::store::{Inspected, Status};
use steadfast::idempotency::{Attempt, Idempotency, IdempotencyBuilder, MemoryStore};
use steadfast::{Key, http as presets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// The scope of every request that does not say otherwise.
const TENANT: &str = "tenant-7";

fn at_least_once() -> IdempotencyBuilder {
    Idempotency::at_least_once(MemoryStore::new())
}

fn at_most_once() -> IdempotencyBuilder {
    Idempotency::at_most_once(MemoryStore::new()).accept_relaxed_durability()
}

/// Whoever the `x-tenant` header names.
fn tenant(head: &Parts) -> Option<Vec<u8>> {
    head.headers.get("x-tenant").map(|value| value.as_bytes().to_owned())
}

/// What a handler has: which run it is, what it knows of it, and the request.
struct Call {
    run: u32,
    attempt: Option<Attempt>,
    body: Bytes,
}

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Response> + Send + Sync>;

/// A server with one handler under every path and method, and its client.
struct Shop {
    address: SocketAddr,
    policy: Idempotency,
    runs: Arc<AtomicU32>,
    client: reqwest::Client,
}

impl Shop {
    /// Serves `handler` under the layer with its defaults.
    async fn open<F>(policy: IdempotencyBuilder, handler: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        Self::open_with(policy, |layer| layer, handler).await
    }

    async fn open_with<F>(
        policy: IdempotencyBuilder,
        set: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let policy = policy.build().unwrap();
        let runs = Arc::new(AtomicU32::new(0));
        let handler: Handler = Arc::new(move |call| Box::pin(handler(call)));
        let router = Router::new()
            .fallback(any(run))
            .with_state((Arc::clone(&runs), handler))
            .layer(set(presets::idempotency(&policy, tenant)));
        Self::serve(policy, runs, router).await
    }

    async fn serve(policy: Idempotency, runs: Arc<AtomicU32>, router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self::at(address, policy, runs)
    }

    /// What is served there.
    fn at(address: SocketAddr, policy: Idempotency, runs: Arc<AtomicU32>) -> Self {
        Self {
            address,
            policy,
            runs,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    fn request(&self, method: &str, key: Option<&str>, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("http://{}/pay", self.address);
        let request = self.client.request(method, url).header("x-tenant", TENANT).body(body);
        match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        }
    }

    async fn post(&self, key: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(self.request("POST", Some(key), body)).await
    }

    /// Sends these bytes, shuts the connection down for writing, and reads what is answered.
    async fn raw(&self, request: &[u8]) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(request).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What the store has under the key.
    async fn record(&self, key: &str) -> Option<Inspected> {
        let id = self.policy.id(&Key::new(TENANT, key));
        self.policy.inspect(id).await.unwrap()
    }

    async fn status(&self, key: &str) -> Option<Status> {
        self.record(key).await.map(|record| record.status())
    }

    /// Waits until nothing is under way any more.
    async fn settled(&self) {
        assert_eq!(self.policy.drain(Duration::from_secs(10)).await, 0);
    }
}

async fn run(State((runs, handler)): State<(Arc<AtomicU32>, Handler)>, request: Request) -> Response {
    let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
    let attempt = request.extensions().get().cloned();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    handler(Call { run, attempt, body }).await
}

/// A response as a client sees it.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    /// `Err` where it broke off.
    body: Result<Bytes, ()>,
}

impl Answer {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        Self::read(request.send().await.unwrap()).await
    }

    async fn read(response: reqwest::Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.map_err(|_| ()),
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().unwrap()).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn is_replay(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    /// The last part of a problem's type, and its `Retry-After`; the rest is checked.
    #[track_caller]
    fn problem(&self, status: u16) -> (String, Option<u64>) {
        assert_eq!((self.status, self.is_replay()), (status, false), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let document: serde_json::Value = serde_json::from_str(self.text()).unwrap();
        assert_eq!(document["status"], status);
        assert!(
            document["title"].is_string() && document["detail"].is_string(),
            "{document}"
        );
        let of = document["type"].as_str().unwrap();
        let slug = of.strip_prefix(presets::idempotency::DEFAULT_PROBLEM_TYPES).unwrap();
        let retry_after = self.header("retry-after").map(|seconds| seconds.parse().unwrap());
        (slug.to_owned(), retry_after)
    }
}

fn respond(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}

/// Answers with a status, and which run it was.
fn numbered(status: u16) -> impl Fn(Call) -> std::future::Ready<Response> {
    move |call| std::future::ready(respond(status, format!("run {}", call.run)))
}

/// A door that a handler waits at until the test opens it, and that tells the test when a handler has come.
#[derive(Clone, Default)]
struct Door(Arc<(Notify, Notify)>);

impl Door {
    /// The handler's side.
    async fn pass(&self) {
        self.0.0.notify_one();
        self.0.1.notified().await;
    }

    async fn knocked(&self) {
        self.0.0.notified().await;
    }

    fn open(&self) {
        self.0.1.notify_one();
    }
}

/// A body of these frames, of a length that it does not tell; an `Err` breaks it off.
fn chunked<I>(frames: I) -> Body
where
    I: IntoIterator<Item = Result<&'static str, std::io::Error>>,
    I::IntoIter: Send + 'static,
{
    Body::from_stream(futures::stream::iter(frames))
}
