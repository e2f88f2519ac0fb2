//! A small server that fails by a script: what it answers depends on the book and on the attempt, on nothing else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// The header in which a client says which attempt this is; without it, it is the first.
pub(crate) const ATTEMPT: &str = "x-attempt";

/// What the server does with one request.
enum Reply {
    /// Answers.
    Book,
    /// Answers with this status.
    Status(StatusCode),
    /// Is busy, and asks to come back in 1 second.
    ComeBack,
    /// Closes the connection without an answer.
    Drop,
    /// Says nothing for 3 seconds, and then closes the connection.
    Hang,
}

/// The script: of 20 books about 14 are fine, the others need two or three attempts, and a few are never answered. In the
/// middle there is an outage: nothing is answered.
fn script(book: u32, attempt: u32) -> Reply {
    match (book % 20, attempt) {
        _ if (140..185).contains(&book) => Reply::Hang,
        _ if book == 8 || book == 108 => Reply::ComeBack,
        (1, 1) | (2, 1..=2) => Reply::Status(StatusCode::INTERNAL_SERVER_ERROR),
        (3, 1) => Reply::Status(StatusCode::SERVICE_UNAVAILABLE),
        (4, 1..=2) => Reply::Drop,
        (5, 1) => Reply::Hang,
        (6, _) if book % 60 == 6 => Reply::Status(StatusCode::INTERNAL_SERVER_ERROR),
        (7, 1) if book % 60 == 7 => Reply::ComeBack,
        _ => Reply::Book,
    }
}

/// The server, running.
pub(crate) struct Server {
    url: String,
    load: Arc<Load>,
}

/// What the server has had to do.
#[derive(Default)]
struct Load {
    requests: AtomicU32,
    now: AtomicU32,
    at_once: AtomicU32,
}

/// One request that is worked on, until it is answered or its client has gone.
struct Working(Arc<Load>);

impl Working {
    fn new(load: &Arc<Load>) -> Self {
        load.requests.fetch_add(1, Ordering::Relaxed);
        let now = load.now.fetch_add(1, Ordering::Relaxed) + 1;
        load.at_once.fetch_max(now, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// Starts it on a free port of this machine.
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let load = Arc::default();
        tokio::spawn(serve(listener, Arc::clone(&load)));
        Ok(Self { url, load })
    }

    /// Where this book is.
    pub(crate) fn book(&self, book: u32) -> String {
        format!("{}/books/{book}", self.url)
    }

    /// How many requests have arrived since this was asked last.
    pub(crate) fn take_requests(&self) -> u32 {
        self.load.requests.swap(0, Ordering::Relaxed)
    }

    /// The most requests that it worked on at once, since this was asked last.
    pub(crate) fn take_at_once(&self) -> u32 {
        self.load.at_once.swap(0, Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, load: Arc<Load>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let load = Arc::clone(&load);
        let service = hyper::service::service_fn(move |request| {
            let working = Working::new(&load);
            async {
                let _working = working;
                answer(request).await
            }
        });
        // It ends with an error where the script says so: nothing to report.
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// An error makes hyper close the connection.
async fn answer(request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let path = request.uri().path();
    let book = path.rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let header = request.headers().get(ATTEMPT).and_then(|n| n.to_str().ok());
    let attempt = header.and_then(|n| n.parse().ok()).unwrap_or(1);

    sleep(Duration::from_millis(10)).await;
    let mut response = Response::new(Full::from(format!("book {book}, answered at attempt {attempt}")));
    match script(book, attempt) {
        Reply::Book => {}
        Reply::Status(status) => *response.status_mut() = status,
        Reply::ComeBack => {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(RETRY_AFTER, 1.into());
        }
        Reply::Drop => return Err(io::ErrorKind::ConnectionAborted.into()),
        Reply::Hang => {
            sleep(Duration::from_secs(3)).await;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
    Ok(response)
}
