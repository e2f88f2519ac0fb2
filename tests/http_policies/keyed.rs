//! A circuit breaker and a bulkhead for each authority, the same with each client: a server that is down costs the other
//! nothing.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use steadfast::bulkhead::Bulkhead;
use steadfast::circuit_breaker::{CircuitBreaker, CircuitBreakers, State};
use steadfast::http::{ByStatus, HasAuthority, authority};
use steadfast::{BoxedErrors, ExchangeErrors, Rejected, RejectedKind};
use tower::{Layer, Service, ServiceExt};

use super::server::{Reply, Server, nobody};

type BoxError = Box<dyn StdError + Send + Sync>;
type ByBoxedStatus = <ByStatus as ExchangeErrors<BoxedErrors>>::With;

/// Two failures in a row open a host's breaker.
fn hosts() -> CircuitBreakers<String, ByBoxedStatus> {
    CircuitBreaker::builder("hosts")
        .failure_rate(None)
        .consecutive_failures(2)
        .classifier(ByStatus::default())
        .boxed_errors()
        .keyed()
        .build()
        .unwrap()
}

/// Calls `up`, which answers, and others that do not: one that answers 503, one where nobody listens.
async fn one_that_is_down_costs_the_other_nothing<S, Req>(client: S, request: impl Fn(&str) -> Req)
where
    S: Service<Req, Error = BoxError> + Clone,
    S::Response: steadfast::http::HttpResponse,
    Req: HasAuthority,
    ByBoxedStatus: steadfast::Classify<S::Response, BoxError>,
{
    let hosts = hosts();
    let (up, failing, gone) = (
        Server::start([]).await,
        Server::start((0..10).map(|_| Reply::Status(503))).await,
        nobody().await,
    );
    let service = hosts.layer_by_authority().layer(client.clone());
    for _ in 0..5 {
        assert!(service.clone().oneshot(request(&up.url("/"))).await.is_ok());
        let _ = service.clone().oneshot(request(&failing.url("/"))).await;
        assert!(service.clone().oneshot(request(&gone)).await.is_err());
    }
    assert_eq!((up.connections(), failing.connections()), (5, 2));
    for url in [failing.url("/"), gone] {
        let error = service.clone().oneshot(request(&url)).await.err().unwrap();
        let rejected = Rejected::find(error.as_ref()).unwrap();
        assert_eq!(
            (rejected.kind(), rejected.policy()),
            (RejectedKind::CircuitOpen, "hosts")
        );
        assert_eq!(hosts.get(&*authority(&request(&url))).state(), State::Open);
    }
    let key = authority(&request(&up.url("/")));
    assert_eq!(hosts.get(&*key).state(), State::Closed);
    assert_eq!(hosts.len(), 3);

    let lanes = Bulkhead::builder("lanes")
        .max_concurrent(1)
        .keyed::<String>()
        .build()
        .unwrap();
    let hanging = Server::start([Reply::Hang]).await;
    let service = lanes.layer_by_authority().layer(client);
    let hangs = service.clone().oneshot(request(&hanging.url("/")));
    tokio::select! {
        _ = hangs => panic!("the server answers"),
        () = async {
            while hanging.seen().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let error = service.clone().oneshot(request(&hanging.url("/"))).await.err().unwrap();
            assert_eq!(Rejected::find(error.as_ref()).unwrap().kind(), RejectedKind::BulkheadFull);
            assert!(service.clone().oneshot(request(&up.url("/"))).await.is_ok());
        } => {}
    }
    for (_, lane) in lanes.entries() {
        assert_eq!(lane.in_flight(), 0);
    }
}

macro_rules! with_reqwest {
    ($test:ident, $reqwest:ident) => {
        #[tokio::test]
        async fn $test() {
            let client = ::$reqwest::Client::builder().no_proxy().build().unwrap();
            let client = client.map_err(BoxError::from);
            one_that_is_down_costs_the_other_nothing(client, |url| {
                ::$reqwest::Request::new(http::Method::GET, url.parse().unwrap())
            })
            .await;
            for (url, key) in [
                ("HTTP://API.Example/x?y", "api.example:80"),
                ("https://user:pass@api.example", "api.example:443"),
                ("http://[::1]:8080/", "[::1]:8080"),
                ("http://api.example:443", "api.example:443"),
            ] {
                let request = ::$reqwest::Request::new(http::Method::GET, url.parse().unwrap());
                assert_eq!(authority(&request), key);
            }
        }
    };
}

with_reqwest!(one_host_that_is_down_leaves_the_others_with_reqwest_0_12, reqwest_0_12);
with_reqwest!(one_host_that_is_down_leaves_the_others_with_reqwest_0_13, reqwest);

#[tokio::test]
async fn one_host_that_is_down_leaves_the_others_with_hyper() {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let client = client.map_err(BoxError::from);
    one_that_is_down_costs_the_other_nothing(client, |url| {
        http::Request::get(url).body(Empty::<Bytes>::new()).unwrap()
    })
    .await;
}

#[test]
fn an_authority_is_written_in_one_way() {
    for (uri, key) in [
        ("http://api.example", "api.example:80"),
        ("HTTP://API.Example:80/orders?id=7", "api.example:80"),
        ("https://api.example/", "api.example:443"),
        ("ws://api.example/", "api.example:80"),
        ("WSS://api.example/", "api.example:443"),
        ("https://user:secret@api.example/", "api.example:443"),
        ("http://[2001:DB8::1]/", "[2001:db8::1]:80"),
        ("http://[2001:db8::1]:65535/", "[2001:db8::1]:65535"),
        ("api.example:8080", "api.example:8080"),
        ("ftp://api.example/", "api.example"),
        ("/orders", ""),
        ("*", ""),
    ] {
        let mut request = http::Request::get(uri).body(()).unwrap();
        request.headers_mut().insert("host", "other.example".parse().unwrap());
        assert_eq!(authority(&request), key, "{uri}");
    }
}
