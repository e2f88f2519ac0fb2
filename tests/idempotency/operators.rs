//! What an operator sees of interrupted operations, and how one is settled.

use std::sync::{Arc, Mutex};

use steadfast::idempotency::store::{Face, Inspected, Resolved};
use steadfast::idempotency::{EventKind, Fingerprint, Idempotency, MemoryStore};
use steadfast::storage::StorageErrorKind;
use steadfast::{Key, KeyId, Rejected, http as presets};
use tower::{Layer, ServiceExt, service_fn};

use super::driver::{Counted, Failure, at_most_once, key, kind, request};

type Response = http::Response<http_body_util::Full<bytes::Bytes>>;

/// Interrupts one operation on each face of the policies `payments` and `refunds`.
async fn interrupted(store: &MemoryStore) {
    let failing = Counted::default();
    for namespace in ["payments", "refunds"] {
        let policy = at_most_once(store).namespace(namespace).build().unwrap();
        let call = policy.execute(&Key::new("tenant-7", "call"), request(), |_| failing.fail());
        call.await.unwrap_err();
        let layer = policy.layer_by(|key: &&str| Some((Key::new("tenant-7", key), request())));
        let service = layer.layer(service_fn(|_: &str| async {
            Err::<u32, _>(Failure::Inner(std::fmt::Error))
        }));
        service.oneshot("layer").await.unwrap_err();
        let layer = presets::idempotency(&policy, |_| Some("tenant-7"));
        let down = service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>| {
            let mut response = Response::default();
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
            Ok::<_, std::convert::Infallible>(response)
        });
        let request = http::Request::post("/").header("idempotency-key", "http");
        let request = request.body(http_body_util::Full::default()).unwrap();
        layer.layer(down).oneshot(request).await.unwrap();
    }
}

async fn listed(store: &MemoryStore) -> Vec<(KeyId, Inspected)> {
    let anyone = at_most_once(store).build().unwrap();
    anyone.list_interrupted(None, 100).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_list_says_whose_each_operation_is_and_which_face_resolves_it() {
    let store = MemoryStore::new();
    interrupted(&store).await;
    let mut found: Vec<String> = Vec::new();
    for (id, inspected) in listed(&store).await {
        let origin = inspected.origin().unwrap();
        let face = origin.face().unwrap();
        let policy = at_most_once(&store)
            .namespace(origin.namespace().to_owned())
            .build()
            .unwrap();
        assert_eq!(policy.id(&Key::new("tenant-7", face.as_str())), id);
        let resolved = match face {
            Face::Call => policy.resolve_completed(id, &7).await,
            Face::Layer => {
                let layer = policy.layer_by(|_: &u32| None);
                layer.resolve_completed(id, &7).await
            }
            Face::Http => {
                let layer = presets::idempotency(&policy, |_| Some("tenant-7"));
                layer.resolve_completed(id, http::Response::default()).await
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(resolved.unwrap(), Resolved::Resolved);
        found.push(origin.to_string());
    }
    found.sort_unstable();
    let expected = [
        "call:payments",
        "call:refunds",
        "http:payments",
        "http:refunds",
        "layer:payments",
        "layer:refunds",
    ];
    assert_eq!(found, expected);
    assert!(listed(&store).await.is_empty());
}

/// One that was resolved by a value that none of its callers can read.
async fn mistaken(store: &MemoryStore, told: &Arc<Mutex<Vec<String>>>) -> (Idempotency, KeyId) {
    let tells = Arc::clone(told);
    let policy = at_most_once(store).on_event(move |event| {
        if let EventKind::Corrected = event.kind {
            tells
                .lock()
                .unwrap()
                .push(format!("{} {}", event.kind.as_str(), event.id));
        }
    });
    let policy = policy.build().unwrap();
    policy
        .execute(&key(), request(), |_| async {
            Err::<u32, _>(Failure::Inner(std::fmt::Error))
        })
        .await
        .unwrap_err();
    let id = policy.id(&key());
    policy.resolve_completed(id, &"seven").await.unwrap();
    (policy, id)
}

#[tokio::test(start_paused = true)]
async fn a_value_that_was_given_by_mistake_is_corrected_and_told_of() {
    let (store, told) = (MemoryStore::new(), Arc::default());
    let (policy, id) = mistaken(&store, &told).await;
    let read = || policy.execute(&key(), request(), |_| async { panic!("it was carried out") });
    let unreadable: Result<_, Failure> = read().await;
    assert_eq!(
        kind::<steadfast::idempotency::Executed<u32>>(unreadable),
        steadfast::RejectedKind::NotReplayable
    );
    // Once more of the wrong type, and then right.
    assert_eq!(policy.correct(id, &"eight").await.unwrap(), Resolved::Resolved);
    assert_eq!(policy.correct(id, &7).await.unwrap(), Resolved::Resolved);
    let corrected: Result<steadfast::idempotency::Executed<u32>, Failure> = read().await;
    assert_eq!(corrected.unwrap().value, 7);
    assert_eq!(
        *told.lock().unwrap(),
        [format!("corrected {id}"), format!("corrected {id}")]
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_run_has_stored_is_not_corrected() {
    let store = MemoryStore::new();
    let policy = at_most_once(&store).build().unwrap();
    policy
        .run(&key(), "r", || async { Ok::<_, Rejected>(1) })
        .await
        .unwrap();
    let id = policy.id(&key());
    assert_eq!(policy.correct(id, &7).await.unwrap(), Resolved::NotInterrupted);
    let kept: Result<u32, Rejected> = policy.run(&key(), "r", || async { panic!("it was carried out") }).await;
    assert_eq!(kept.unwrap(), 1);
    let nowhere = policy.id(&Key::new("tenant-7", "another"));
    assert_eq!(policy.correct(nowhere, &7).await.unwrap(), Resolved::NotInterrupted);
}

#[tokio::test(start_paused = true)]
async fn a_correction_that_cannot_be_stored_changes_nothing() {
    let (store, told) = (MemoryStore::new(), Arc::default());
    let (policy, id) = mistaken(&store, &told).await;
    let small = at_most_once(&store).max_outcome(4).build().unwrap();
    let refused = small.correct(id, &"too long").await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Refused);
    let inspected = policy.inspect(id).await.unwrap().unwrap();
    assert_eq!(policy.outcome::<String>(id, &inspected).unwrap().unwrap(), "seven");
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_layer_corrects_what_another_face_has_resolved() {
    let (store, told) = (MemoryStore::new(), Arc::default());
    let (policy, id) = mistaken(&store, &told).await;
    let layer = presets::idempotency(&policy, |_| Some("tenant-7")).fingerprint(|_, _| request());
    let right = http::Response::new(bytes::Bytes::from_static(b"receipt 7"));
    assert_eq!(layer.correct(id, right).await.unwrap(), Resolved::Resolved);
    let stored = policy.inspect(id).await.unwrap().unwrap();
    assert!(policy.outcome::<String>(id, &stored).is_err(), "it is a response now");
    let generic = policy.layer_by(|_: &u32| None::<(Key, Fingerprint)>);
    assert_eq!(
        generic.correct(id, &"nine".to_owned()).await.unwrap(),
        Resolved::Resolved
    );
    let stored = policy.inspect(id).await.unwrap().unwrap();
    assert_eq!(policy.outcome::<String>(id, &stored).unwrap().unwrap(), "nine");
    assert_eq!(told.lock().unwrap().len(), 2);
}
