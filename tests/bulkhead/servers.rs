//! One layer under `axum::serve`, over real connections: axum applies it once for each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures::future::join_all;
use steadfast::bulkhead::Bulkhead;
use steadfast::http;
use tokio::net::TcpListener;

use super::ms;

/// How many handlers run, and how many ran at most.
#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

fn router(crowd: &Arc<Crowd>) -> Router {
    let crowd = Arc::clone(crowd);
    let handler = move || async move {
        let now = crowd.now.fetch_add(1, Ordering::SeqCst) + 1;
        crowd.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(ms(5)).await;
        crowd.now.fetch_sub(1, Ordering::SeqCst);
        "done"
    };
    Router::new().route("/", get(handler))
}

/// The answers to two requests over each of eight connections.
async fn statuses(router: Router) -> Vec<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let calls = (0..8).map(|_| async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let response = client.get(&url).send().await.unwrap();
            statuses.push(response.status().as_u16());
        }
        statuses
    });
    let mut statuses = join_all(calls).await.concat();
    server.abort();
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn eight_connections_are_never_more_than_one_at_once_and_each_has_its_turn() {
    let bulkhead = Bulkhead::builder("site")
        .max_concurrent(1)
        .max_queued(8)
        .max_wait(Duration::from_secs(30))
        .build()
        .unwrap();
    let crowd = Arc::default();
    let router = router(&crowd).layer(http::server(bulkhead.clone()));
    assert_eq!(statuses(router).await, [200; 16]);
    assert_eq!(crowd.most.load(Ordering::SeqCst), 1);
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
}

#[tokio::test]
async fn what_a_full_one_rejects_is_answered_with_503() {
    let bulkhead = Bulkhead::builder("site").max_concurrent(1).build().unwrap();
    let crowd = Arc::default();
    let router = router(&crowd).layer(http::server(bulkhead.clone()));
    let permit = bulkhead.try_acquire().unwrap();
    assert_eq!(statuses(router.clone()).await, [503; 16]);
    drop(permit);
    let answered = statuses(router).await;
    assert!(answered.contains(&200), "{answered:?}");
    assert_eq!(crowd.most.load(Ordering::SeqCst), 1);
}
