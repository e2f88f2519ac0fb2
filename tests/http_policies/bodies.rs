//! The body that arrives with each attempt.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use steadfast::http::{DEFAULT_BODY_LIMIT, HttpReplay, ReplayBody};
use steadfast::retry::{Retry, StopReason};
use tower::{Layer, ServiceExt};

use super::server::{Reply, Seen, Server};
use super::{Ends, retry};

type Response = http::Response<hyper::body::Incoming>;

async fn put<B>(retry: Retry<steadfast::http::ByStatus, HttpReplay>, server: &Server, body: B) -> Response
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    try_put(retry, server, body).await.unwrap()
}

async fn try_put<B>(
    retry: Retry<steadfast::http::ByStatus, HttpReplay>,
    server: &Server,
    body: B,
) -> Result<Response, hyper_util::client::legacy::Error>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let client: Client<HttpConnector, ReplayBody<B>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::put(server.url("/")).header("trailer", "digest");
    retry.layer(client).oneshot(request.body(body).unwrap()).await
}

/// A body that is pending before each of its frames.
struct Slow {
    frames: VecDeque<Frame<Bytes>>,
    paused: bool,
    length: Option<u64>,
}

impl Slow {
    fn new(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Self {
        Self {
            frames: frames.into_iter().collect(),
            paused: false,
            length: None,
        }
    }
}

impl Body for Slow {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.paused = !self.paused;
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = self.frames.pop_front();
        let sent = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
        self.length = self.length.map(|length| length - u64::try_from(sent).unwrap());
        Poll::Ready(frame.map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

fn data(bytes: &'static [u8]) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(bytes))
}

fn trailers() -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(
        "digest".parse().unwrap(),
        "abc".parse().unwrap(),
    )]))
}

/// Two transient failures, then 200: what arrived with each of the three attempts.
async fn three_attempts<B>(body: B) -> Vec<Seen>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let server = Server::start([Reply::Status(503), Reply::DropRead]).await;
    let (retry, ends) = Ends::of(retry());
    assert_eq!(put(retry, &server, body).await.status(), 200);
    assert_eq!(ends.only(), (3, StopReason::Success));
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    seen
}

fn length_of(seen: &Seen) -> Option<&str> {
    seen.headers
        .get("content-length")
        .map(|length| length.to_str().unwrap())
}

#[tokio::test]
async fn an_empty_body_arrives_empty_each_time() {
    for seen in three_attempts(Empty::<Bytes>::new()).await {
        assert!(seen.body.is_empty() && seen.trailers.is_none());
    }
    for seen in three_attempts(Slow::new([])).await {
        assert!(seen.body.is_empty() && seen.trailers.is_none());
    }
}

#[tokio::test]
async fn a_body_at_hand_arrives_whole_each_time_with_its_length() {
    for size in [1, 10, DEFAULT_BODY_LIMIT - 1, DEFAULT_BODY_LIMIT] {
        let bytes: Bytes = (0_u8..=255).cycle().take(size).collect();
        for seen in three_attempts(Full::new(bytes.clone())).await {
            assert!(seen.body == bytes, "{} of {size} bytes", seen.body.len());
            assert_eq!(length_of(&seen), Some(&*size.to_string()));
        }
    }
}

#[tokio::test]
async fn a_body_one_byte_over_the_limit_is_sent_once_and_whole() {
    let bytes: Bytes = (0_u8..=255).cycle().take(DEFAULT_BODY_LIMIT + 1).collect();
    let (head, tail) = (bytes.slice(..1000), bytes.slice(1000..));
    let bodies = [
        Full::new(bytes.clone()).map_err(|never| match never {}).boxed(),
        Slow::new([Frame::data(head.clone()), Frame::data(tail.clone())]).boxed(),
        StreamBody::new(futures::stream::iter([head, tail].map(|part| Ok(Frame::data(part))))).boxed(),
    ];
    for body in bodies {
        let server = Server::start([Reply::Status(503)]).await;
        let (retry, ends) = Ends::of(retry());
        assert_eq!(put(retry, &server, body).await.status(), 503);
        assert_eq!((ends.only(), server.connections()), ((1, StopReason::NotReplayable), 1));
        assert!(server.seen()[0].body == bytes);
    }
}

#[tokio::test]
async fn the_limit_is_what_the_user_sets() {
    for (limit, attempts) in [(0, 1), (9, 1), (10, 2)] {
        let server = Server::start([Reply::Status(503)]).await;
        let (retry, ends) = Ends::of(retry().body_limit(limit));
        put(retry, &server, Full::new(Bytes::from_static(b"ten bytes!"))).await;
        assert_eq!(ends.only().0, attempts, "limit {limit}");
    }
}

#[tokio::test]
async fn a_body_that_is_streamed_arrives_whole_each_time() {
    for seen in three_attempts(Slow::new([data(b"one "), data(b""), data(b"two "), data(b"three")])).await {
        assert_eq!(seen.body, "one two three");
    }
}

#[tokio::test]
async fn a_body_that_is_streamed_with_a_length_has_it_each_time() {
    let mut body = Slow::new([data(b"one "), data(b"two "), data(b"three")]);
    body.length = Some(13);
    for seen in three_attempts(body).await {
        assert_eq!((&seen.body[..], length_of(&seen)), (&b"one two three"[..], Some("13")));
    }
}

#[tokio::test]
async fn trailers_arrive_each_time() {
    let slow = Slow::new([data(b"one "), data(b"two"), trailers()]).boxed();
    let frames = [data(b"one "), data(b"two"), trailers()].map(Ok);
    let at_hand = StreamBody::new(futures::stream::iter(frames)).boxed();
    for body in [slow, at_hand] {
        for seen in three_attempts(body).await {
            assert_eq!(seen.body, "one two");
            assert_eq!(seen.trailers.unwrap()["digest"], "abc");
        }
    }
}

#[tokio::test]
async fn a_copy_takes_over_a_stream_that_the_first_attempt_has_begun() {
    let server = Server::start([Reply::Early(503)]).await;
    let (sender, receiver) = mpsc::unbounded();
    sender.unbounded_send(Ok::<_, io::Error>(data(b"first "))).unwrap();
    let (retry, ends) = Ends::of(retry());
    let sending = async {
        while server.connections() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sender.unbounded_send(Ok(data(b"second "))).unwrap();
        sender.unbounded_send(Ok(data(b"third"))).unwrap();
        drop(sender);
    };
    let (response, ()) = tokio::join!(put(retry, &server, StreamBody::new(receiver)), sending);
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(ends.only(), (2, StopReason::Success));
    assert_eq!(server.seen()[0].body, "first second third");
}

#[tokio::test]
async fn a_stream_that_outgrows_the_limit_between_attempts_is_never_cut_short() {
    let server = Server::start([Reply::Early(503), Reply::Status(200)]).await;
    let (sender, receiver) = mpsc::unbounded();
    sender.unbounded_send(Ok::<_, io::Error>(data(b"first "))).unwrap();
    let (retry, _) = Ends::of(retry().body_limit(8));
    let sending = async {
        while server.connections() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sender.unbounded_send(Ok(data(b"second "))).unwrap();
        drop(sender);
    };
    let (result, ()) = tokio::join!(try_put(retry, &server, StreamBody::new(receiver)), sending);
    // Either the copy took the stream over in time, or it failed; a request that arrived is whole.
    for seen in server.seen() {
        assert_eq!(seen.body, "first second ");
    }
    assert_eq!(result.is_ok(), !server.seen().is_empty());
}

#[tokio::test]
async fn the_error_of_a_body_ends_the_call_and_nothing_is_sent_twice() {
    for early in [true, false] {
        let server = Server::start([]).await;
        let frames = [Ok(data(b"one ")), Err(io::Error::other("the disk is gone"))];
        let (retry, ends) = Ends::of(retry());
        let body = StreamBody::new(futures::StreamExt::then(
            futures::stream::iter(frames),
            move |frame| async move {
                if !early {
                    tokio::task::yield_now().await;
                }
                frame
            },
        ));
        let error = try_put(retry, &server, Box::pin(body)).await.unwrap_err();
        let error: &dyn std::error::Error = &error;
        let chain = std::iter::successors(Some(error), |error| error.source());
        assert!(
            chain.last().unwrap().to_string().contains("the disk is gone"),
            "{error:?}"
        );
        assert_eq!(ends.only(), (1, StopReason::NotReplayable));
        assert!(server.seen().is_empty());
    }
}

#[tokio::test]
async fn headers_version_and_extensions_are_those_of_the_first_attempt() {
    #[derive(Clone, Debug, PartialEq)]
    struct Tag(u32);

    let (retry, _) = Ends::of(retry());
    let sent = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorder = sent.clone();
    let service = retry.layer(tower::service_fn(move |request: Request<ReplayBody<Empty<Bytes>>>| {
        let (head, _) = request.into_parts();
        let tag = head.extensions.get::<Tag>().cloned();
        recorder
            .lock()
            .unwrap()
            .push((head.method, head.uri, head.version, head.headers, tag));
        async {
            let unavailable = http::Response::builder().status(503).body(()).unwrap();
            Ok::<_, io::Error>(unavailable)
        }
    }));
    let request = Request::builder()
        .method(Method::DELETE)
        .uri("http://localhost/a?b=c")
        .version(http::Version::HTTP_2)
        .header("x-many", "1")
        .header("x-many", "2")
        .extension(Tag(7))
        .body(Empty::new())
        .unwrap();
    service.oneshot(request).await.unwrap();
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|attempt| *attempt == sent[0]));
    assert_eq!(sent[0].3.get_all("x-many").iter().count(), 2);
    assert_eq!((sent[0].2, &sent[0].4), (http::Version::HTTP_2, &Some(Tag(7))));
}

/// A server that answers the first request without reading its body, keeps that connection open, and does not read on.
#[tokio::test]
async fn an_attempt_whose_body_is_stuck_does_not_hold_up_the_next() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SIZE: usize = 16 << 20;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let _ = first.read(&mut head).await.unwrap();
        let unavailable = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        first.write_all(unavailable).await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        let mut read = 0;
        while read < SIZE {
            let mut buffer = vec![0; 1 << 16];
            read += second.read(&mut buffer).await.unwrap();
        }
        let fine = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        second.write_all(fine).await.unwrap();
        std::future::pending::<()>().await;
        drop(first);
    });
    let chunk = Bytes::from(vec![7; 1 << 16]);
    let frames = (0..SIZE >> 16).map(|_| Frame::data(chunk.clone()));
    let (retry, ends) = Ends::of(retry().body_limit(2 * SIZE));
    let client: Client<HttpConnector, ReplayBody<Slow>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::put(url).body(Slow::new(frames)).unwrap();
    let call = retry.layer(client).oneshot(request);
    let response = tokio::time::timeout(Duration::from_secs(5), call)
        .await
        .expect("stuck")
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(ends.only(), (2, StopReason::Success));
}
