//! A retry under a tonic client.
//!
//! The server is that of tonic-health. An interceptor in front of it answers the first two calls with UNAVAILABLE.
//! Prints each retry and the answer, and ends in less than a second.

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use steadfast::Backoff;
use steadfast::http::{self, ReplayBody};
use steadfast::retry::Event;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::service::InterceptorLayer;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceBuilder;

static CALLS: AtomicU32 = AtomicU32::new(0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let url = format!("http://{}", incoming.local_addr()?);
    let (_reporter, health) = tonic_health::server::health_reporter();
    let flaky = InterceptorLayer::new(|request: tonic::Request<()>| {
        if CALLS.fetch_add(1, Ordering::Relaxed) < 2 {
            Err(Status::unavailable("starting"))
        } else {
            Ok(request)
        }
    });
    tokio::spawn(
        Server::builder()
            .layer(flaky)
            .add_service(health)
            .serve_with_incoming(incoming),
    );

    let retry = http::retry()
        // To HTTP every gRPC call is a POST that went well: judge by the gRPC status, and say what may be repeated.
        .grpc()
        .retry_unsafe(|call| call.path() == "/grpc.health.v1.Health/Check")
        .backoff(Backoff::exponential(Duration::from_millis(50)))
        .on_event(|event| {
            if let Event::Retrying { attempt, wait, .. } = event {
                println!("  retry: attempt {attempt} was refused, the next one follows in {wait:?}");
            }
        })
        .build()?;
    let channel = ServiceBuilder::new()
        .layer(retry)
        // The retry keeps request bodies. tonic wants them in its own type again.
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(Channel::from_shared(url)?.connect().await?);

    println!("checking the health of a server that refuses its first two calls");
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest::default()).await?;
    println!("answer: {:?}", answer.into_inner().status());
    Ok(())
}
