//! The client's side: one key for all attempts of a request.

use std::collections::HashSet;
use std::sync::Mutex;

use ::tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use steadfast::Backoff;

use super::*;

/// The keys of the requests that arrived, each of which was answered by 503 if `fails` says so.
async fn keys_of(method: reqwest::Method, key: Option<&'static str>, fails: usize) -> Vec<Option<String>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let handler = any(move |request: Request| async move {
        let key = request.headers().get("idempotency-key");
        let mut log = log.lock().unwrap();
        log.push(key.map(|key| key.to_str().unwrap().to_owned()));
        respond(if log.len() <= fails { 503 } else { 200 }, "")
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pay", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });

    let backoff = Backoff::constant(Duration::from_millis(1));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let client = ServiceBuilder::new()
        .layer(presets::idempotency_key())
        .layer(presets::retry().backoff(backoff).build().unwrap())
        .service(client);
    for _ in 0..2 {
        let mut request = reqwest::Request::new(method.clone(), url.parse().unwrap());
        if let Some(key) = key {
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        }
        assert_eq!(client.clone().oneshot(request).await.unwrap().status().as_u16(), 200);
    }
    seen.lock().unwrap().clone()
}

#[tokio::test]
async fn all_attempts_of_a_request_have_one_key_and_another_request_has_another() {
    for method in [reqwest::Method::POST, reqwest::Method::PATCH] {
        let keys = keys_of(method, None, 2).await;
        assert_eq!(keys.len(), 4);
        assert!(
            keys[0].is_some() && keys[0] == keys[1] && keys[1] == keys[2],
            "{keys:?}"
        );
        assert_ne!(keys[2], keys[3]);
    }
}

#[tokio::test]
async fn a_key_that_is_there_stays_and_safe_methods_get_none() {
    let keys = keys_of(reqwest::Method::POST, Some("order-1"), 1).await;
    assert_eq!(keys, vec![Some("order-1".to_owned()); 3]);
    for method in [reqwest::Method::GET, reqwest::Method::PUT, reqwest::Method::DELETE] {
        assert_eq!(keys_of(method, None, 1).await, [None, None, None]);
    }
}

#[tokio::test]
async fn plain_requests_get_a_key_too_and_no_two_are_the_same() {
    let inner = service_fn(|request: http::Request<()>| {
        let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
        std::future::ready(Ok::<_, std::convert::Infallible>(key))
    });
    let mut client = ServiceBuilder::new().layer(presets::idempotency_key()).service(inner);
    let mut keys = HashSet::new();
    for _ in 0..1_000 {
        let request = http::Request::post("/pay").body(()).unwrap();
        let key = client.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(key.len(), 36);
        assert!(keys.insert(key));
    }
}

#[tokio::test]
async fn a_client_that_retries_and_a_server_that_knows_the_key_charge_once() {
    // The first answer is lost on the way: the handler has run, and its client hears 503.
    let policy = at_least_once().build().unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let handler = any(async move || format!("charge {}", counted.fetch_add(1, Ordering::SeqCst) + 1));
    let answers = Arc::new(AtomicU32::new(0));
    let lost = axum::middleware::map_response(move |response: Response| {
        let first = answers.fetch_add(1, Ordering::SeqCst) == 0;
        std::future::ready(if first { respond(503, "") } else { response })
    });
    let router = Router::new().route("/pay", handler);
    let router = router.layer(presets::idempotency(&policy, tenant)).layer(lost);
    let shop = Shop::serve(policy, runs, router).await;
    let client = ServiceBuilder::new()
        .layer(presets::idempotency_key())
        .layer(
            presets::retry()
                .backoff(Backoff::constant(Duration::from_millis(1)))
                .build()
                .unwrap(),
        )
        .service(shop.client.clone());
    let request = shop.request("POST", None, "10 EUR").build().unwrap();
    let answer = Answer::read(client.oneshot(request).await.unwrap()).await;
    assert_eq!((answer.text(), answer.is_replay(), shop.runs()), ("charge 1", true, 1));
}
