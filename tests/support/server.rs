//! A real HTTP/1.1 server on loopback that answers by script, one request per connection, and remembers what it got.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// What the server does with one connection.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Reads the request and answers.
    Status(u16),
    /// Reads the request and answers with these headers.
    With(u16, Vec<(&'static str, String)>),
    /// Answers without having read the body, which it goes on not to read.
    Early(u16),
    /// Reads the request and never answers.
    Hang,
    /// Closes the connection before anything was read.
    DropUnread,
    /// Reads the request and closes the connection.
    DropRead,
    /// Reads the request, answers 200, and closes the connection in the middle of the body.
    Cut,
}

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// The server; it lives as long as the runtime of the test.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Reply>,
    connections: usize,
    seen: Vec<Seen>,
}

impl Server {
    /// Follows `script`, and then answers 200.
    pub async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        server.state.lock().unwrap().script.extend(script);
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(connection));
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections were made: one for each request.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// The requests that were read to their end.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    async fn serve(self, connection: TcpStream) {
        let (number, reply) = {
            let mut state = self.state.lock().unwrap();
            state.connections += 1;
            let reply = state.script.pop_front().unwrap_or(Reply::Status(200));
            (state.connections, reply)
        };
        if matches!(reply, Reply::DropUnread) {
            return;
        }
        let service = service_fn(|request| self.answer(number, reply.clone(), request));
        // A connection that was dropped on purpose ends with an error.
        let _ = http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(connection), service)
            .await;
    }

    async fn answer(
        &self,
        number: usize,
        reply: Reply,
        request: Request<Incoming>,
    ) -> io::Result<Response<BoxBody<Bytes, io::Error>>> {
        if let Reply::Early(status) = reply {
            tokio::spawn(async move {
                let _unread = request;
                pending::<()>().await;
            });
            return Ok(response(status, &[], full(number)));
        }
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let trailers = body.trailers().cloned();
        self.state.lock().unwrap().seen.push(Seen {
            method: head.method,
            path: head.uri.path().to_owned(),
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        });
        match reply {
            Reply::Status(status) | Reply::Early(status) => Ok(response(status, &[], full(number))),
            Reply::With(status, headers) => Ok(response(status, &headers, full(number))),
            Reply::Hang => pending().await,
            Reply::DropRead | Reply::DropUnread => Err(io::ErrorKind::ConnectionAborted.into()),
            Reply::Cut => {
                let frames = [
                    Ok(Frame::data(Bytes::from_static(b"half an ans"))),
                    Err(io::ErrorKind::ConnectionAborted.into()),
                ];
                let body = StreamBody::new(futures::StreamExt::then(futures::stream::iter(frames), async |frame| {
                    // The first half has to leave before the connection is cut.
                    tokio::task::yield_now().await;
                    frame
                }));
                Ok(response(200, &[], body))
            }
        }
    }
}

/// An address at which nobody listens.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

fn full(number: usize) -> impl Body<Data = Bytes, Error = io::Error> {
    Full::new(Bytes::from(format!("answer {number}"))).map_err(|never: Infallible| match never {})
}

fn response(
    status: u16,
    headers: &[(&'static str, String)],
    body: impl Body<Data = Bytes, Error = io::Error> + Send + Sync + 'static,
) -> Response<BoxBody<Bytes, io::Error>> {
    let mut response = Response::builder().status(status).body(body.boxed()).unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}
