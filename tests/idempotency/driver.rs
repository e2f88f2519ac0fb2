//! One caller at a time: what is run, replayed, refused, released and interrupted.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use steadfast::idempotency::store::{Cancellation, Resolved, Status, Store};
use steadfast::idempotency::{
    Disposition, Executed, Fingerprint, Idempotency, IdempotencyBuilder, MemoryStore, Sealer, Source,
};
use steadfast::{Error, Key, KeyId, Rejected, RejectedKind};

pub(crate) type Failure = Error<std::fmt::Error>;

pub(crate) fn key() -> Key {
    Key::new("tenant-7", "order-1234")
}

pub(crate) fn request() -> Fingerprint {
    Fingerprint::of("100 EUR").unwrap()
}

/// An operation that counts its runs, and has their number as its value.
#[derive(Clone, Default)]
pub(crate) struct Counted(Arc<AtomicU32>);

impl Counted {
    pub(crate) fn runs(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) async fn succeed(&self) -> Result<u32, Failure> {
        Ok(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }

    pub(crate) async fn fail(&self) -> Result<u32, Failure> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Error::Inner(std::fmt::Error))
    }

    pub(crate) async fn hang(&self) -> Result<u32, Failure> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

pub(crate) fn at_least_once(store: &MemoryStore) -> IdempotencyBuilder {
    Idempotency::at_least_once(store.clone())
}

pub(crate) fn at_most_once(store: &MemoryStore) -> IdempotencyBuilder {
    Idempotency::at_most_once(store.clone()).accept_relaxed_durability()
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, Failure>) -> RejectedKind {
    match result.unwrap_err() {
        Error::Rejected(rejected) => rejected.kind(),
        error @ Error::Inner(_) => panic!("{error}"),
    }
}

async fn status<D>(idempotency: &Idempotency<D>, key: &Key) -> Option<Status> {
    let inspected = idempotency.inspect(idempotency.id(key)).await.unwrap();
    inspected.map(|inspected| inspected.status())
}

/// Lets the tasks that a drop has left behind do their work.
pub(crate) async fn settle<D>(idempotency: &Idempotency<D>) {
    assert_eq!(idempotency.drain(Duration::from_secs(1)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn who_repeats_a_request_gets_the_first_value() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_most_once(&store).build().unwrap();
    let first: Executed<u32> = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!((first.value, first.source, first.attempt), (1, Source::Executed, 1));
    let again = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!((again.value, again.source, again.attempt), (1, Source::Replayed, 1));
    assert_eq!((operation.runs(), idempotency.in_flight()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn another_request_under_the_key_is_a_mismatch_whatever_the_state() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    let other = Fingerprint::of("999 EUR").unwrap();

    let mut running = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
    assert!((&mut running).now_or_never().is_none());
    let refused = idempotency.execute(&key(), other, |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::KeyMismatch, "in progress");

    drop(running);
    settle(&idempotency).await;
    let refused = idempotency.execute(&key(), other, |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::KeyMismatch, "interrupted");

    idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    let refused = idempotency.execute(&key(), other, |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::KeyMismatch, "completed");
    assert_eq!(operation.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn tenants_and_namespaces_do_not_meet() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let payments = at_least_once(&store).namespace("payments").build().unwrap();
    let refunds = at_least_once(&store).namespace("refunds").build().unwrap();
    for (idempotency, key) in [
        (&payments, Key::new("tenant-7", "k")),
        (&payments, Key::new("tenant-8", "k")),
        (&refunds, Key::new("tenant-7", "k")),
        (&refunds, Key::new("tenant-7k", "")),
    ] {
        idempotency
            .execute(&key, request(), |_| operation.succeed())
            .await
            .unwrap();
    }
    assert_eq!(operation.runs(), 4);
}

#[tokio::test(start_paused = true)]
async fn at_least_once_runs_again_what_failed_with_the_same_derived_key_and_the_checkpoint() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    let mut derived = Vec::new();
    let failed = idempotency
        .execute(&key(), request(), |attempt| {
            derived.push(attempt.derived_key("charge"));
            let operation = operation.clone();
            async move {
                assert_eq!((attempt.number(), attempt.checkpoint()), (1, None));
                attempt.save_checkpoint("card reserved").await?;
                operation.fail().await
            }
        })
        .await;
    assert!(matches!(failed, Err(Error::Inner(_))));
    assert_eq!(status(&idempotency, &key()).await, Some(Status::Interrupted));

    let mut fences = Vec::new();
    let done = idempotency
        .execute(&key(), request(), |attempt| {
            derived.push(attempt.derived_key("charge"));
            fences.push(attempt.fence());
            assert_eq!(
                (attempt.number(), attempt.checkpoint()),
                (2, Some(&b"card reserved"[..]))
            );
            operation.succeed()
        })
        .await
        .unwrap();
    assert_eq!((done.value, done.attempt), (2, 2));
    assert_eq!(derived[0], derived[1]);
    assert!(fences[0] > 1, "a later fence is larger: {fences:?}");
}

#[tokio::test(start_paused = true)]
async fn at_most_once_never_runs_again_until_somebody_has_resolved_it() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_most_once(&store).build().unwrap();
    idempotency
        .execute(&key(), request(), |_| operation.fail())
        .await
        .unwrap_err();
    tokio::time::sleep(Duration::from_secs(1_000_000)).await;
    assert_eq!(idempotency.purge(100).await.unwrap(), 0);
    let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::OutcomeUnknown);

    let listed = idempotency.list_interrupted(None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(idempotency.count_interrupted().await.unwrap(), 1);
    let id = listed[0].0;
    assert_eq!(idempotency.resolve_not_executed(id).await.unwrap(), Resolved::Resolved);
    idempotency
        .execute(&key(), request(), |_| operation.fail())
        .await
        .unwrap_err();
    assert_eq!(
        idempotency.resolve_completed(id, &77_u32).await.unwrap(),
        Resolved::Resolved
    );
    let replayed = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!((replayed.value, replayed.source), (77, Source::Replayed));
    assert_eq!(operation.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_frees_the_key() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_most_once(&store).build().unwrap();
    let refused = async { Err(Error::Rejected(Rejected::bulkhead_full("lanes"))) };
    let refused: Result<Executed<u32>, Failure> = idempotency.execute(&key(), request(), |_| refused).await;
    assert_eq!(kind(refused), RejectedKind::BulkheadFull);
    assert_eq!(status(&idempotency, &key()).await, None);

    let timed_out = async { Err(Error::Rejected(Rejected::timed_out("t", Duration::from_secs(1)))) };
    let timed_out: Result<Executed<u32>, Failure> = idempotency.execute(&key(), request(), |_| timed_out).await;
    assert_eq!(kind(timed_out), RejectedKind::TimedOut);
    let unknown = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(unknown), RejectedKind::OutcomeUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_clean_refusal_says_nothing_of_an_attempt_before_it() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    idempotency
        .execute(&key(), request(), |_| operation.fail())
        .await
        .unwrap_err();
    let refused = async { Err(Error::Rejected(Rejected::bulkhead_full("lanes"))) };
    let refused: Result<Executed<u32>, Failure> = idempotency.execute(&key(), request(), |_| refused).await;
    assert_eq!(kind(refused), RejectedKind::BulkheadFull);
    assert_eq!(status(&idempotency, &key()).await, Some(Status::Interrupted));
    let third = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!(third.attempt, 3);
}

#[tokio::test(start_paused = true)]
async fn a_closure_decides_what_a_result_means() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let short = Duration::from_secs(60);
    let idempotency = at_most_once(&store)
        .decide(move |result: Result<&u32, &Failure>| match result {
            Ok(1) => Disposition::StoreFor(short),
            Ok(_) => Disposition::Store,
            Err(_) => Disposition::Release,
        })
        .build()
        .unwrap()
        .erased::<u32, Failure>();
    idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    tokio::time::advance(short).await;
    let second = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!((second.value, second.source, second.attempt), (2, Source::Executed, 1));
    let other = Key::new("tenant-7", "other");
    idempotency
        .execute(&other, request(), |_| operation.fail())
        .await
        .unwrap_err();
    assert_eq!(status(&idempotency, &other).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_kept_for_exactly_its_retention_and_then_anything_goes() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store)
        .retention(Duration::from_secs(10))
        .build()
        .unwrap();
    idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    tokio::time::advance(Duration::from_millis(9_999)).await;
    let replayed = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!(replayed.value, 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    let other = Fingerprint::of("another request").unwrap();
    let anew = idempotency
        .execute(&key(), other, |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!((anew.value, anew.attempt), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_passes_through_and_interrupts() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_most_once(&store).build().unwrap();
    let panics = async |_| -> Result<u32, Failure> { panic!("in the operation") };
    let call = idempotency.execute(&key(), request(), panics);
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    settle(&idempotency).await;
    let unknown = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(unknown), RejectedKind::OutcomeUnknown);
    assert_eq!(operation.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_in_the_middle_is_interrupted_at_once() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    let mut call = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(idempotency.in_flight(), 1);
    drop(call);
    settle(&idempotency).await;
    assert_eq!(status(&idempotency, &key()).await, Some(Status::Interrupted));
    let second = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!(second.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_cancelled_is_never_run() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    assert_eq!(idempotency.cancel(&key()).await.unwrap(), Cancellation::Cancelled);
    tokio::time::sleep(Duration::from_secs(1_000_000)).await;
    let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::KeyCancelled);
    assert_eq!(idempotency.cancel(&key()).await.unwrap(), Cancellation::Cancelled);

    let interrupted = Key::new("tenant-7", "interrupted");
    idempotency
        .execute(&interrupted, request(), |_| operation.fail())
        .await
        .unwrap_err();
    let Cancellation::CancelledUnknown(unknown) = idempotency.cancel(&interrupted).await.unwrap() else {
        panic!("an attempt was interrupted");
    };
    assert_eq!(unknown.attempt, 1);

    let done = Key::new("tenant-7", "done");
    idempotency
        .execute(&done, request(), |_| operation.succeed())
        .await
        .unwrap();
    let Cancellation::AlreadyDone(_) = idempotency.cancel(&done).await.unwrap() else {
        panic!("it was done");
    };
    let inspected = idempotency.inspect(idempotency.id(&done)).await.unwrap().unwrap();
    assert_eq!(
        idempotency.outcome(idempotency.id(&done), &inspected).unwrap(),
        Some(2_u32)
    );
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_too_large_is_an_error_that_names_the_limit() {
    let store = MemoryStore::new();
    let idempotency = at_least_once(&store).max_outcome(10).build().unwrap();
    let fits: Result<String, Failure> = idempotency.run(&key(), "request", || async { Ok("x".repeat(8)) }).await;
    assert_eq!(fits.unwrap(), "xxxxxxxx");
    let other = Key::new("tenant-7", "large");
    let large: Result<String, Failure> = idempotency.run(&other, "request", || async { Ok("x".repeat(9)) }).await;
    let error = anyhow::Error::from(large.unwrap_err());
    assert!(format!("{error:#}").contains("10 bytes"), "{error:#}");
    assert_eq!(status(&idempotency, &other).await, Some(Status::Interrupted));
}

#[tokio::test(start_paused = true)]
async fn a_value_of_another_type_is_an_error_and_no_run() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    let text: Result<Executed<String>, Failure> = idempotency
        .execute(&key(), request(), |_| async { panic!("it must not run") })
        .await;
    assert_eq!(kind(text), RejectedKind::NotReplayable);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_json_form_is_refused_before_anything_is_claimed() {
    let store = MemoryStore::new();
    let idempotency = at_least_once(&store).build().unwrap();
    let request = BTreeMap::from([(vec![1], 2)]);
    let refused: Result<u32, Failure> = idempotency.run(&key(), &request, || async { Ok(1) }).await;
    assert_eq!(kind(refused), RejectedKind::NoFingerprint);
    assert!(store.is_empty());
}

/// Adds its key to every byte, and says which key it was.
pub(crate) struct Shift(pub(crate) u8);

impl Sealer for Shift {
    fn seal(&self, _: KeyId, outcome: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let shifted = outcome.iter().map(|byte| byte.wrapping_add(self.0));
        Ok([self.0].into_iter().chain(shifted).collect())
    }

    fn open(&self, _: KeyId, sealed: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        match sealed {
            [key, rest @ ..] if *key == self.0 => Ok(rest.iter().map(|byte| byte.wrapping_sub(self.0)).collect()),
            _ => Err("sealed with another key".into()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sealed_outcomes_are_not_stored_in_the_clear_and_a_lost_key_runs_nothing_again() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let sealing = at_least_once(&store).sealer(Shift(7)).build().unwrap();
    let secret: Result<String, Failure> = sealing.run(&key(), "r", || async { Ok("card 4242".to_owned()) }).await;
    secret.unwrap();
    let replayed: Result<String, Failure> = sealing.run(&key(), "r", || async { panic!("it must not run") }).await;
    assert_eq!(replayed.unwrap(), "card 4242");
    let Cancellation::AlreadyDone(outcome) = store.cancel(sealing.id(&key())).await.unwrap() else {
        panic!("it was done");
    };
    assert!(!outcome.0.windows(4).any(|window| window == b"4242"));

    for rotated in [
        at_least_once(&store).sealer(Shift(8)).build().unwrap(),
        at_least_once(&store).build().unwrap(),
    ] {
        let lost: Result<u32, Failure> = rotated.run(&key(), "r", || operation.succeed()).await;
        assert_eq!(kind(lost), RejectedKind::NotReplayable);
    }
    assert_eq!(operation.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_keyed_hash_finds_only_what_was_stored_under_the_same_secret() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let secrets = [Some("sixteen bytes, a"), Some("sixteen bytes, b"), None];
    for secret in secrets {
        let mut builder = at_least_once(&store);
        if let Some(secret) = secret {
            builder = builder.secret(secret);
        }
        let idempotency = builder.build().unwrap();
        for _ in 0..2 {
            idempotency
                .execute(&key(), request(), |_| operation.succeed())
                .await
                .unwrap();
        }
    }
    assert_eq!(operation.runs(), 3);
}

#[tokio::test(start_paused = true)]
async fn settings_out_of_range_are_named() {
    let builder = || at_least_once(&MemoryStore::new());
    let wrong = [
        ("lease", builder().lease(Duration::from_millis(199))),
        ("lease", builder().lease(Duration::MAX)),
        ("max_renewal", builder().max_renewal(Duration::from_secs(29))),
        ("retention", builder().retention(Duration::ZERO)),
        ("retention", builder().retention(Duration::MAX)),
        ("store_timeout", builder().store_timeout(Duration::ZERO)),
        ("store_timeout", builder().store_timeout(Duration::from_secs(30))),
        ("max_outcome", builder().max_outcome(0)),
        ("max_waiters", builder().max_waiters(0)),
        ("secret", builder().secret("fifteen bytes, ")),
        ("store", Idempotency::at_most_once(MemoryStore::new())),
        ("fail_open", at_most_once(&MemoryStore::new()).fail_open()),
    ];
    for (setting, builder) in wrong {
        assert_eq!(builder.build().unwrap_err().setting(), setting);
    }
    let secret = builder().secret("do not show me").build().unwrap_err();
    assert!(!secret.to_string().contains("show"), "{secret}");
    let extremes = builder()
        .lease(Duration::from_millis(200))
        .max_renewal(Duration::MAX)
        .max_outcome(usize::MAX)
        .wait(Duration::MAX)
        .max_waiters(usize::MAX)
        .build()
        .unwrap();
    let operation = Counted::default();
    assert_eq!(extremes.run(&key(), "r", || operation.succeed()).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_memory_store_refuses_new_keys_and_keeps_the_old() {
    let (store, operation) = (MemoryStore::with_max_records(1), Counted::default());
    let idempotency = at_least_once(&store)
        .retention(Duration::from_secs(10))
        .build()
        .unwrap();
    idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    let other = Key::new("tenant-7", "other");
    let refused = idempotency.execute(&other, request(), |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::StoreUnavailable);
    let replayed = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!(replayed.source, Source::Replayed);
    settle(&idempotency).await;
}

#[tokio::test]
async fn a_call_can_be_spawned() {
    let idempotency = at_least_once(&MemoryStore::new()).build().unwrap();
    let call = async move {
        let operation = Counted::default();
        idempotency.run(&key(), &("request", 1), || operation.succeed()).await
    };
    assert_eq!(tokio::spawn(call).await.unwrap().unwrap(), 1);
}
