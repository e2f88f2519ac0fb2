//! Clients that leave before they are answered.

use axum::extract::Request;
use axum::middleware::Next;
use axum::routing::post;
use steadfast::testing::idempotency::{Call as StoreCall, Fault, Faulty};

use super::*;

/// Tells when it is dropped.
struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A shop whose handler waits at a door, and that tells when a request has ended or was dropped.
async fn guarded(policy: IdempotencyBuilder) -> (Shop, Door, Arc<Notify>) {
    let (door, gone) = (Door::default(), Arc::new(Notify::new()));
    let (at, told) = (door.clone(), Arc::clone(&gone));
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let handler = post(async move || {
        let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
        at.pass().await;
        format!("run {run}")
    });
    let watch = axum::middleware::from_fn(move |request: Request, next: Next| {
        let told = Told(Arc::clone(&told));
        async move {
            let response = next.run(request).await;
            drop(told);
            response
        }
    });
    let policy = policy.build().unwrap();
    let router = Router::new().route("/pay", handler);
    let router = router.layer(presets::idempotency(&policy, tenant)).layer(watch);
    (Shop::serve(policy, runs, router).await, door, gone)
}

/// A client that has asked, and does not wait for the answer.
async fn impatient(shop: &Shop) -> TcpStream {
    let mut connection = TcpStream::connect(shop.address).await.unwrap();
    let request = "POST /pay HTTP/1.1\r\nhost: shop\r\nx-tenant: tenant-7\r\nidempotency-key: order-1\r\n\
                   content-length: 6\r\n\r\n10 EUR";
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

/// Lets everything happen on this thread that can.
async fn everybody_has_arrived() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_disconnects_finds_the_response_when_it_comes_back() {
    let (shop, door, gone) = guarded(at_most_once()).await;
    let connection = impatient(&shop).await;
    door.knocked().await;
    drop(connection);
    gone.notified().await;
    assert_eq!(shop.status("order-1").await, Some(Status::InProgress));
    assert_eq!(shop.policy.in_flight(), 1);
    door.open();
    shop.settled().await;
    let again = shop.post("order-1", "10 EUR").await;
    assert_eq!((again.text(), again.is_replay(), shop.runs()), ("run 1", true, 1));
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_gives_up_its_place() {
    let patient = at_least_once().wait(Duration::from_secs(10)).max_waiters(1);
    let (shop, door, gone) = guarded(patient).await;
    let shop = Arc::new(shop);
    let post = |shop: &Arc<Shop>| {
        let shop = Arc::clone(shop);
        tokio::spawn(async move { shop.post("order-1", "10 EUR").await })
    };
    let first = post(&shop);
    door.knocked().await;
    let connection = impatient(&shop).await;
    everybody_has_arrived().await;
    assert_eq!(shop.post("order-1", "10 EUR").await.problem(409).0, "in-progress");
    gone.notified().await;
    drop(connection);
    gone.notified().await;
    let second = post(&shop);
    everybody_has_arrived().await;
    assert!(!second.is_finished(), "there was no place");
    door.open();
    assert_eq!(first.await.unwrap().text(), "run 1");
    assert!(second.await.unwrap().is_replay());
}

#[tokio::test]
async fn for_a_client_that_leaves_before_the_handler_was_begun_it_is_not_begun() {
    let store = Faulty::new(MemoryStore::new());
    store.inject(StoreCall::Claim, 1..=1, Fault::RequestHangs);
    let (shop, door, gone) = guarded(Idempotency::at_least_once(store.clone())).await;
    let connection = impatient(&shop).await;
    while store.calls(StoreCall::Claim) == 0 {
        tokio::task::yield_now().await;
    }
    drop(connection);
    gone.notified().await;
    door.open();
    let again = shop.post("order-1", "10 EUR").await;
    assert_eq!((again.text(), again.is_replay(), shop.runs()), ("run 1", false, 1));
}
