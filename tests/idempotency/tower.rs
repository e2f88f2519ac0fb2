//! The generic layer: services under a key.

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use steadfast::idempotency::store::Status;
use steadfast::idempotency::{
    Attempt, Codec, Disposition, Fingerprint, Idempotency, IdempotencyBuilder, Interruption, MemoryStore, Recovery,
    Unreadable,
};
use steadfast::{Key, Rejected, RejectedKind};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::shared::support::{Backend, Failure, MS, down, hang, ok, poll_once};

/// A request: its key, and what it asks for.
type Order = (&'static str, u32);

fn at_least_once() -> IdempotencyBuilder {
    Idempotency::at_least_once(MemoryStore::new())
}

fn at_most_once() -> IdempotencyBuilder {
    Idempotency::at_most_once(MemoryStore::new()).accept_relaxed_durability()
}

fn key_of(order: &Order) -> Option<(Key, Fingerprint)> {
    let (key, amount) = order;
    (!key.is_empty()).then(|| (Key::new("tenant-7", key), Fingerprint::of(amount).unwrap()))
}

async fn status<D>(policy: &Idempotency<D>, key: &str) -> Option<Status> {
    let record = policy.inspect(policy.id(&Key::new("tenant-7", key))).await;
    record.unwrap().map(|record| record.status())
}

fn kind(result: Result<u32, Failure>) -> RejectedKind {
    match result {
        Err(Failure::Rejected(rejected)) => rejected.kind(),
        other => panic!("no rejection: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_runs_once_for_its_key_and_one_without_a_key_each_time() {
    let backend = Backend::new([ok(1), ok(2), ok(3), ok(4)]);
    let policy = at_least_once().build().unwrap();
    let service = policy.layer_by(key_of).layer(backend.service_for());
    let call = |order: Order| service.clone().oneshot(order);
    assert_eq!(call(("a", 10)).await.unwrap(), 1);
    assert_eq!(call(("a", 10)).await.unwrap(), 1);
    assert_eq!(call(("b", 10)).await.unwrap(), 2);
    assert_eq!(kind(call(("a", 99)).await), RejectedKind::KeyMismatch);
    assert_eq!((call(("", 10)).await.unwrap(), call(("", 10)).await.unwrap()), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_under_one_key_across_all_clones_of_the_layer() {
    let backend = Backend::new([ok(1).after(MS)]);
    let policy = at_least_once().wait(1_000 * MS).build().unwrap();
    let layer = policy.layer_by(key_of);
    let calls = (0..100).map(|_| layer.layer(backend.service_for()).oneshot(("a", 10)));
    for result in futures::future::join_all(calls).await {
        assert_eq!(result.unwrap(), 1);
    }
    assert_eq!(backend.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_interrupts_and_the_mode_says_what_follows() {
    let attempts = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&attempts);
    let policy = at_least_once().build().unwrap();
    let layer = policy
        .layer_by(key_of)
        .before_attempt(move |_: &mut Order, attempt: Attempt| {
            seen.store(attempt.number(), Ordering::SeqCst);
        });
    let service = layer.layer(Backend::new([down(), ok(2)]).service_for());
    assert!(matches!(service.clone().oneshot(("a", 10)).await, Err(Failure::Down)));
    assert_eq!(status(&policy, "a").await, Some(Status::Interrupted));
    assert_eq!(service.oneshot(("a", 10)).await.unwrap(), 2);
    assert_eq!(attempts.load(Ordering::SeqCst), 2);

    let policy = at_most_once().build().unwrap();
    let service = policy.layer_by(key_of).layer(Backend::new([down()]).service_for());
    service.clone().oneshot(("a", 10)).await.unwrap_err();
    assert_eq!(kind(service.oneshot(("a", 10)).await), RejectedKind::OutcomeUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_below_the_layer_frees_the_key() {
    let policy = at_most_once().build().unwrap();
    let service = policy.layer_by(key_of).layer(service_fn(|_: Order| async {
        Err::<u32, Failure>(Rejected::bulkhead_full("lanes").into())
    }));
    assert_eq!(kind(service.oneshot(("a", 10)).await), RejectedKind::BulkheadFull);
    assert_eq!(status(&policy, "a").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_response_can_be_judged_by_hand() {
    let by_hand = |result: Result<&u32, &Failure>| match result {
        Ok(503) => Disposition::Release,
        Ok(_) => Disposition::Store,
        Err(_) => Disposition::Interrupt,
    };
    let policy = at_most_once().decide(by_hand).build().unwrap();
    let service = policy
        .layer_by(key_of)
        .layer(Backend::new([ok(503), ok(200)]).service_for());
    for expected in [503, 200, 200] {
        assert_eq!(service.clone().oneshot(("a", 10)).await.unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_releases_before_the_service_was_called_and_interrupts_after() {
    let backend = Backend::new([hang()]);
    let policy = at_least_once().build().unwrap();
    let mut service = policy.layer_by(key_of).layer(backend.service_for());
    drop(service.ready().await.unwrap().call(("a", 10)));
    assert_eq!((backend.started(), status(&policy, "a").await), (0, None));
    {
        let mut call = pin!(service.ready().await.unwrap().call(("a", 10)));
        while backend.started() == 0 {
            assert!(poll_once(call.as_mut()).is_pending());
        }
    }
    policy.drain(MS).await;
    assert_eq!(status(&policy, "a").await, Some(Status::Interrupted));
    assert_eq!(backend.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_replayed_keeps_no_place_in_the_service() {
    let inner = ConcurrencyLimit::new(Backend::new([ok(1)]).service_for(), 1);
    let policy = at_least_once().build().unwrap();
    let mut service = policy.layer_by(key_of).layer(inner);
    for order in [("a", 10), ("a", 10), ("a", 99)] {
        let _ = service.ready().await.unwrap().call(order).await;
        let ready = pin!(async { service.clone().ready().await.map(|_| ()) });
        assert!(poll_once(ready).is_ready(), "{order:?}");
    }
}

/// Two bytes for numbers that fit, which other programs may fill with what is no number.
#[derive(Clone)]
struct Short;

impl Codec<u32> for Short {
    fn encode(&self, value: &u32, to: &mut Vec<u8>) -> Result<(), Box<dyn StdError + Send + Sync>> {
        to.extend(u16::try_from(*value)?.to_be_bytes());
        Ok(())
    }

    fn decode(&self, encoded: &[u8]) -> Result<u32, Box<dyn StdError + Send + Sync>> {
        Ok(u16::from_be_bytes(encoded.try_into()?).into())
    }
}

#[tokio::test(start_paused = true)]
async fn responses_are_encoded_as_one_likes() {
    let backend = Backend::new([ok(513), ok(65_536), ok(3)]);
    let policy = at_least_once().build().unwrap();
    let service = policy.layer_by(key_of).codec(Short).layer(backend.service_for());
    for _ in 0..2 {
        assert_eq!(service.clone().oneshot(("a", 10)).await.unwrap(), 513);
    }
    // It ran, and has no encoding.
    assert_eq!(
        kind(service.clone().oneshot(("b", 10)).await),
        RejectedKind::NotStorable
    );
    assert_eq!(status(&policy, "b").await, Some(Status::Interrupted));
    let layer = policy.layer_by(key_of).codec(Short);
    let id = policy.id(&Key::new("tenant-7", "b"));
    assert!(layer.resolve_completed(id, &65_536).await.is_err());
    layer.resolve_completed(id, &7).await.unwrap();
    assert_eq!(service.clone().oneshot(("b", 10)).await.unwrap(), 7);
    // What was stored by another encoding is not run again.
    let json = policy.layer_by(key_of).layer(backend.service_for());
    assert_eq!(kind(json.oneshot(("a", 10)).await), RejectedKind::NotReplayable);
    assert_eq!(backend.started(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hook_of_the_layer_finds_out_what_an_interrupted_request_did() {
    for (answer, response, runs) in [
        (Recovery::Completed(7), Some(7), 1),
        (Recovery::NotExecuted, Some(2), 2),
        (Recovery::Unknown, None, 1),
    ] {
        let backend = Backend::new([down(), ok(2)]);
        let policy = at_most_once().build().unwrap();
        let layer = policy.layer_by(key_of).codec(Short);
        let layer = layer.recover(move |interrupted: Interruption| async move {
            assert_eq!(interrupted.attempt(), 1);
            Ok::<_, Failure>(answer)
        });
        let service = layer.layer(backend.service_for());
        assert!(matches!(service.clone().oneshot(("a", 10)).await, Err(Failure::Down)));
        for _ in 0..2 {
            let found = service.clone().oneshot(("a", 10)).await;
            match response {
                Some(response) => assert_eq!(found.unwrap(), response, "{answer:?}"),
                None => assert_eq!(kind(found), RejectedKind::OutcomeUnknown),
            }
        }
        assert_eq!(backend.started(), runs, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_of_the_layer_makes_a_response_that_cannot_be_read() {
    let backend = Backend::new([ok(513)]);
    let policy = at_least_once().build().unwrap();
    let short = policy.layer_by(key_of).codec(Short).layer(backend.service_for());
    short.oneshot(("a", 10)).await.unwrap();
    let layer = policy.layer_by(key_of).rebuild(|found: Unreadable| async move {
        let stored = found.outcome().ok_or(Failure::Down)?;
        Short.decode(stored).map_err(|_| Failure::Down)
    });
    let json = layer.layer(backend.service_for());
    assert_eq!(json.clone().oneshot(("a", 10)).await.unwrap(), 513);
    assert_eq!(kind(json.oneshot(("a", 99)).await), RejectedKind::KeyMismatch);
    assert_eq!(backend.started(), 1);
}

#[test]
fn debug_shows_no_requests() {
    let policy = at_least_once().name("payments").build().unwrap();
    let layer = policy.layer_by(key_of);
    let mut service = layer.layer(Backend::new([ok(1)]).service_for());
    let shown = format!("{layer:?} {service:?} {:?}", service.call(("order-1234", 10)));
    assert!(shown.contains("payments") && !shown.contains("order-1234"), "{shown}");
}
