//! A store that is away while many call, and a busy service whose store is well.

use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use steadfast::idempotency::store::Store;
use steadfast::idempotency::{Idempotency, MemoryStore};
use steadfast::retry::Retry;
use steadfast::testing::idempotency::{Call, Fault, Faulty};
use steadfast::{Backoff, Key, RejectedKind};

use super::driver::{Counted, Failure, at_most_once, key, kind, request, settle};

#[tokio::test(start_paused = true)]
async fn in_an_outage_a_bounded_number_of_claims_is_released_and_the_others_are_left_to_their_leases() {
    let (store, operation) = (Faulty::new(MemoryStore::new()), Counted::default());
    let idempotency = Idempotency::at_least_once(store.clone()).build().unwrap();
    store.inject(Call::Claim, .., Fault::ReplyLost);
    store.inject(Call::Release, .., Fault::RequestLost);
    let keys: Vec<Key> = (0..1_500).map(|n| Key::new("tenant", n.to_string())).collect();
    let calls = keys
        .iter()
        .map(|key| idempotency.execute(key, request(), |_| operation.succeed()));
    for refused in join_all(calls).await {
        assert_eq!(kind(refused), RejectedKind::StoreUnavailable);
    }
    assert_eq!(idempotency.in_flight(), 1_000);
    assert_eq!(idempotency.drain(Duration::from_secs(60)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn however_busy_a_service_is_a_claim_whose_caller_left_is_released() {
    let (store, operation) = (Faulty::new(MemoryStore::new()), Counted::default());
    let builder = Idempotency::at_most_once(store.clone()).accept_relaxed_durability();
    let idempotency = builder.build().unwrap();
    let keys: Vec<Key> = (0..1_500).map(|n| Key::new("tenant", n.to_string())).collect();
    let mut running: Vec<_> = keys
        .iter()
        .map(|key| Box::pin(idempotency.execute(key, request(), |_| operation.hang())))
        .collect();
    for call in &mut running {
        assert!(call.now_or_never().is_none());
    }
    store.inject(Call::Claim, .., Fault::ReplyDelayed(Duration::from_secs(1)));
    let mut leaves = Box::pin(idempotency.execute(&key(), request(), |_| operation.succeed()));
    assert!((&mut leaves).now_or_never().is_none());
    drop(leaves);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let id = idempotency.id(&key());
    assert_eq!(
        store.store().inspect(id).await.unwrap(),
        None,
        "nothing was run, and the key is free"
    );
    drop(running);
    settle(&idempotency).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_outside_repeats_what_is_in_progress_and_never_what_is_unknown() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_most_once(&store).build().unwrap();
    let retry = Retry::builder()
        .backoff(Backoff::constant(Duration::from_millis(1)))
        .max_attempts(5)
        .judge_rejections()
        .build()
        .unwrap();
    let call = || idempotency.execute(&key(), request(), |_| operation.succeed());
    let long = idempotency.execute(&key(), request(), |_| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok::<u32, Failure>(7)
    });
    let (long, replayed) = tokio::join!(long, retry.call(call));
    assert_eq!((long.unwrap().value, replayed.unwrap().value), (7, 7));

    let unknown = Key::new("tenant-7", "unknown");
    idempotency
        .execute(&unknown, request(), |_| async {
            Err::<u32, Failure>(Failure::Inner(std::fmt::Error))
        })
        .await
        .unwrap_err();
    let mut asked = 0;
    let refused = retry
        .call(|| {
            asked += 1;
            idempotency.execute(&unknown, request(), |_| operation.succeed())
        })
        .await;
    assert_eq!(kind(refused), RejectedKind::OutcomeUnknown);
    assert_eq!((asked, operation.runs()), (1, 0));
}
