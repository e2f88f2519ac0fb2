//! Every call, dropped after every poll.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use steadfast::idempotency::store::{
    Cancellation, Claim, Claimed, Completed, Durability, Ended, Forgotten, Inspected, Owner, Renewed, Resolution,
    Resolved, Status, Store,
};
use steadfast::idempotency::{Executed, Idempotency, IdempotencyBuilder, MemoryStore, Source};
use steadfast::storage::{StorageError, StorageErrorKind};
use steadfast::testing::idempotency::{Call, Fault, Faulty};
use steadfast::{KeyId, Rejected};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::driver::{Failure, key, request};

const LEASE: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

/// A store whose calls are pending this often before they are carried out, and again before they answer.
#[derive(Clone)]
struct Slow<S> {
    store: S,
    polls: u32,
    /// A claim is carried out, and panics.
    panics: bool,
}

/// Pending so many times, and woken each time.
async fn pending(times: u32) {
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<S> Slow<S> {
    async fn call<A>(&self, call: impl Future<Output = A>) -> A {
        pending(self.polls).await;
        let answer = call.await;
        pending(self.polls).await;
        answer
    }
}

impl<S: Store> Store for Slow<S> {
    async fn claim(&self, id: KeyId, claim: &Claim) -> Result<Claimed, StorageError> {
        let claimed = self.call(self.store.claim(id, claim)).await;
        assert!(!self.panics, "as it was told");
        claimed
    }

    async fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        self.call(self.store.complete(id, owner, outcome, retention)).await
    }

    async fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> Result<Renewed, StorageError> {
        self.call(self.store.renew(id, owner, lease, checkpoint)).await
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.call(self.store.release(id, owner)).await
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.call(self.store.interrupt(id, owner)).await
    }

    async fn cancel(&self, id: KeyId) -> Result<Cancellation, StorageError> {
        self.store.cancel(id).await
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        self.store.resolve(id, resolution).await
    }

    async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        self.store.forget(id).await
    }

    async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        self.call(self.store.inspect(id)).await
    }

    async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        self.store.list_interrupted(after, limit).await
    }

    async fn count_interrupted(&self) -> Result<u64, StorageError> {
        self.store.count_interrupted().await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.store.purge(limit).await
    }

    fn durability(&self) -> Durability {
        self.store.durability()
    }
}

/// How the operation under test ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Value,
    Failed,
    NotSent,
}

/// How far an operation has come.
#[derive(Clone, Default)]
struct Progress {
    polled: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    runs: Arc<AtomicU32>,
}

impl Progress {
    async fn run(self, end: End) -> Result<u32, Failure> {
        self.polled.store(true, Ordering::SeqCst);
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        pending(3).await;
        self.ended.store(true, Ordering::SeqCst);
        match end {
            End::Value => Ok(run),
            End::Failed => Err(Failure::Inner(std::fmt::Error)),
            End::NotSent => Err(Rejected::bulkhead_full("lanes").into()),
        }
    }

    /// What has to be left of a first run that was dropped here.
    fn left(&self, end: End) -> Option<Status> {
        match (
            self.polled.load(Ordering::SeqCst),
            self.ended.load(Ordering::SeqCst),
            end,
        ) {
            (false, ..) | (true, true, End::NotSent) => None,
            (true, true, End::Value) => Some(Status::Completed),
            (true, ..) => Some(Status::Interrupted),
        }
    }
}

type Policy = Idempotency;
type CallOf<'a> = BoxFuture<'a, Result<Executed<u32>, Failure>>;

fn call(policy: &Policy, progress: &Progress, end: End) -> CallOf<'static> {
    let (policy, progress) = (policy.clone(), progress.clone());
    async move { policy.execute(&key(), request(), |_| progress.run(end)).await }.boxed()
}

fn slow(store: &MemoryStore, polls: u32) -> IdempotencyBuilder {
    let store = store.clone();
    Idempotency::at_least_once(Slow {
        store,
        polls,
        panics: false,
    })
}

/// Polls up to `polls` times, and lets everything else run in between.
async fn poll_times(call: &mut CallOf<'_>, polls: u32) -> Option<Result<Executed<u32>, Failure>> {
    for _ in 0..polls {
        if let Some(result) = call.as_mut().now_or_never() {
            return Some(result);
        }
        sleep(MS).await;
    }
    None
}

async fn status(store: &MemoryStore, policy: &Policy) -> Option<Status> {
    let inspected = store.inspect(policy.id(&key())).await.unwrap();
    inspected.map(|inspected| inspected.status())
}

/// Nothing is in flight any more, and the key is nobody's: a call gets through without waiting.
async fn is_left_clean(store: &MemoryStore, policy: &Policy, expected: Option<Status>, at: &str) {
    assert_eq!(policy.drain(LEASE / 2).await, 0, "{at}");
    assert_eq!(status(store, policy).await, expected, "{at}");
    let start = Instant::now();
    let fresh = call(policy, &Progress::default(), End::Value).await;
    let source = fresh.unwrap_or_else(|error| panic!("{at}: {error}")).source;
    let is_new = expected != Some(Status::Completed);
    assert_eq!(source == Source::Executed, is_new, "{at}: {source:?}");
    assert_eq!(start.elapsed(), Duration::ZERO, "{at}: it waited for something");
}

#[tokio::test(start_paused = true)]
async fn a_first_call_dropped_anywhere_leaves_the_record_that_is_true() {
    for end in [End::Value, End::Failed, End::NotSent] {
        for polls in [0, 1, 3] {
            for dropped_after in 0.. {
                let (store, progress) = (MemoryStore::new(), Progress::default());
                let policy = slow(&store, polls).build().unwrap();
                let mut call = call(&policy, &progress, end);
                let is_over = poll_times(&mut call, dropped_after).await.is_some();
                drop(call);
                let at = format!("{end:?}, {polls} polls, dropped after {dropped_after}");
                is_left_clean(&store, &policy, progress.left(end), &at).await;
                if is_over {
                    assert!(dropped_after > 3, "{at}");
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_dropped_anywhere_changes_nothing() {
    for dropped_after in 0.. {
        let (store, progress) = (MemoryStore::new(), Progress::default());
        let policy = slow(&store, 2).build().unwrap();
        call(&policy, &progress, End::Value).await.unwrap();
        let mut call = call(&policy, &progress, End::Value);
        let is_over = poll_times(&mut call, dropped_after).await.is_some();
        drop(call);
        let at = format!("dropped after {dropped_after}");
        is_left_clean(&store, &policy, Some(Status::Completed), &at).await;
        assert_eq!(progress.runs.load(Ordering::SeqCst), 1);
        if is_over {
            assert!(dropped_after > 2, "{at}");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_takeover_dropped_anywhere_never_forgets_the_attempt_before_it() {
    for end in [End::Value, End::Failed, End::NotSent] {
        for dropped_after in 0.. {
            let (store, progress) = (MemoryStore::new(), Progress::default());
            let policy = slow(&store, 2).build().unwrap();
            call(&policy, &Progress::default(), End::Failed).await.unwrap_err();
            let mut call = call(&policy, &progress, end);
            let is_over = poll_times(&mut call, dropped_after).await.is_some();
            drop(call);
            let expected = match progress.left(end) {
                Some(Status::Completed) => Status::Completed,
                _ => Status::Interrupted,
            };
            let at = format!("{end:?}, dropped after {dropped_after}");
            is_left_clean(&store, &policy, Some(expected), &at).await;
            if is_over {
                assert!(dropped_after > 3, "{at}");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_duplicate_dropped_anywhere_disturbs_nobody() {
    for dropped_after in 0..6 {
        let (store, progress) = (MemoryStore::new(), Progress::default());
        let policy = slow(&store, 1).wait(LEASE).build().unwrap();
        let mut first = call(&policy, &progress, End::Value);
        assert!(poll_times(&mut first, 1).await.is_none());
        let mut waiting = call(&policy, &progress, End::Value);
        let mut other = call(&policy, &progress, End::Value);
        assert!(poll_times(&mut waiting, dropped_after).await.is_none());
        assert!(poll_times(&mut other, 1).await.is_none());
        drop(waiting);
        assert_eq!(policy.in_flight(), 1);
        assert_eq!(first.await.unwrap().source, Source::Executed);
        assert_eq!(other.await.unwrap().source, Source::Replayed);
        let at = format!("dropped after {dropped_after}");
        is_left_clean(&store, &policy, Some(Status::Completed), &at).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_promoted_waiter_dropped_anywhere_hands_on_to_the_next() {
    for first_polls in [1, 4] {
        for dropped_after in 0.. {
            let (store, progress) = (MemoryStore::new(), Progress::default());
            let policy = slow(&store, 1).wait(LEASE).build().unwrap();
            let leading = Progress::default();
            let mut first = call(&policy, &leading, End::Value);
            assert!(poll_times(&mut first, first_polls).await.is_none());
            let mut promoted = call(&policy, &progress, End::Value);
            let mut next = call(&policy, &Progress::default(), End::Value);
            assert!(poll_times(&mut promoted, 1).await.is_none());
            assert!(poll_times(&mut next, 1).await.is_none());
            drop(first);
            let result = poll_times(&mut promoted, dropped_after).await;
            drop(promoted);
            let at = format!("first polled {first_polls} times, promoted dropped after {dropped_after}");
            let next = next.await.unwrap_or_else(|error| panic!("{at}: {error}"));
            let was_stored = progress.left(End::Value) == Some(Status::Completed);
            if result.is_some() {
                assert_eq!(next.source, Source::Replayed, "{at}");
            }
            // One that was dropped while it completed may have been overtaken by the next, or not.
            assert!(was_stored || next.source == Source::Executed, "{at}");
            is_left_clean(&store, &policy, Some(Status::Completed), &at).await;
            if let Some(result) = result {
                assert_eq!(result.unwrap().source, Source::Executed, "{at}");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_another_process_dropped_anywhere_leaves_nothing_behind() {
    for dropped_after in 0.. {
        let (store, progress) = (MemoryStore::new(), Progress::default());
        let there = Idempotency::at_least_once(store.clone()).build().unwrap();
        let here = slow(&store, 1).wait(LEASE).build().unwrap();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let running = there.execute(&key(), request(), |_| async move {
            stopped.notified().await;
            Ok::<u32, Failure>(7)
        });
        let mut running = Box::pin(running);
        assert!((&mut running).now_or_never().is_none());
        let mut waiting = call(&here, &progress, End::Value);
        for _ in 0..dropped_after {
            assert!((&mut waiting).now_or_never().is_none());
            sleep(7 * MS).await;
        }
        drop(waiting);
        assert_eq!(here.drain(LEASE / 2).await, 0);
        assert_eq!(status(&store, &here).await, Some(Status::InProgress));
        stop.notify_one();
        assert_eq!(running.await.unwrap().value, 7);
        is_left_clean(&store, &here, Some(Status::Completed), &format!("{dropped_after}")).await;
        assert_eq!(progress.runs.load(Ordering::SeqCst), 0);
        if dropped_after == 40 {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_without_a_record_dropped_anywhere_is_recorded_once_it_has_ended() {
    for dropped_after in 0.. {
        let (store, progress) = (MemoryStore::new(), Progress::default());
        let faulty = Faulty::new(store.clone());
        faulty.inject(Call::Claim, 1..=1, Fault::Refused(StorageErrorKind::Refused));
        let policy = Idempotency::at_least_once(Slow {
            store: faulty,
            polls: 2,
            panics: false,
        });
        let policy = policy.fail_open().build().unwrap();
        let mut call = call(&policy, &progress, End::Value);
        let result = poll_times(&mut call, dropped_after).await;
        drop(call);
        let ended = progress.ended.load(Ordering::SeqCst);
        let at = format!("dropped after {dropped_after}");
        assert_eq!(policy.drain(LEASE / 2).await, 0, "{at}");
        assert_eq!(
            status(&store, &policy).await,
            ended.then_some(Status::Completed),
            "{at}"
        );
        if let Some(result) = result {
            assert_eq!(result.unwrap().source, Source::Unrecorded);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_over_a_claim_leaves_nothing_of_it() {
    let (store, progress) = (MemoryStore::new(), Progress::default());
    let panics = Slow {
        store: store.clone(),
        polls: 1,
        panics: true,
    };
    let policy = Idempotency::at_least_once(panics).build().unwrap();
    let panicked = AssertUnwindSafe(call(&policy, &progress, End::Value)).catch_unwind();
    assert!(panicked.await.is_err());
    assert_eq!(policy.drain(LEASE / 2).await, 0);
    assert_eq!(status(&store, &policy).await, None);
    assert!(!progress.polled.load(Ordering::SeqCst));
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls with one waker and then with another, and says who was woken by what came then.
async fn woken_by<O>(call: &mut Pin<Box<dyn Future<Output = O> + '_>>, event: impl AsyncFnOnce()) -> (u32, u32) {
    let (one, other) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    for woken in [&one, &other] {
        let waker = Waker::from(Arc::clone(woken));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let count = |woken: &Woken| woken.0.load(Ordering::SeqCst);
    let (before_one, before_other) = (count(&one), count(&other));
    event().await;
    sleep(MS).await;
    (count(&one) - before_one, count(&other) - before_other)
}

#[tokio::test(start_paused = true)]
async fn the_waker_of_the_last_poll_is_the_one_that_is_woken() {
    let store = MemoryStore::new();
    let policy = Idempotency::at_least_once(store.clone()).wait(LEASE).build().unwrap();
    let there = Idempotency::at_least_once(store.clone()).wait(LEASE).build().unwrap();
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let run = policy.execute(&key(), request(), |_| async move {
        stopped.notified().await;
        Ok::<u32, Failure>(7)
    });
    let mut run: Pin<Box<dyn Future<Output = _>>> = Box::pin(run);
    let woken = woken_by(&mut run, async || stop.notify_one()).await;
    assert_eq!(woken, (0, 1), "the operation");

    let ready = async |_| -> Result<u32, Failure> { panic!("it must not run") };
    let mut elsewhere: Pin<Box<dyn Future<Output = _>>> = Box::pin(there.execute(&key(), request(), ready));
    let woken = woken_by(&mut elsewhere, async || sleep(50 * MS).await).await;
    assert_eq!(woken, (0, 1), "a pause between two questions");

    let mut waiter: Pin<Box<dyn Future<Output = _>>> = Box::pin(policy.execute(&key(), request(), ready));
    let woken = woken_by(&mut waiter, async || assert_eq!(run.await.unwrap().value, 7)).await;
    assert_eq!(woken, (0, 1), "a waiter");
    assert_eq!(waiter.await.unwrap().value, 7);
    assert_eq!(elsewhere.await.unwrap().value, 7);

    let faulty = Faulty::new(store);
    faulty.inject(Call::Claim, .., Fault::RequestDelayed(5 * MS));
    let slow = Idempotency::at_least_once(faulty).build().unwrap();
    let mut asking: Pin<Box<dyn Future<Output = _>>> = Box::pin(slow.execute(&key(), request(), ready));
    let woken = woken_by(&mut asking, async || sleep(5 * MS).await).await;
    assert_eq!(woken, (0, 1), "a call of the store");
    assert_eq!(asking.await.unwrap().value, 7);
}

fn runtimes() -> [tokio::runtime::Runtime; 2] {
    let mut one = tokio::runtime::Builder::new_current_thread();
    let mut many = tokio::runtime::Builder::new_multi_thread();
    [
        one.enable_time().build().unwrap(),
        many.worker_threads(2).enable_time().build().unwrap(),
    ]
}

#[test]
fn a_call_dropped_outside_of_its_runtime_is_still_told_of() {
    for runtime in runtimes() {
        let (store, progress) = (MemoryStore::new(), Progress::default());
        let policy = Idempotency::at_least_once(store.clone()).build().unwrap();
        let mut never = call(&policy, &progress, End::Value);
        let mut running = call(&policy, &progress, End::Value);
        runtime.block_on(async {
            let polled = poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx).is_pending()));
            assert!(polled.await);
            let refused = poll_fn(|cx| Poll::Ready(never.as_mut().poll(cx)));
            assert!(matches!(refused.await, Poll::Ready(Err(_))));
        });
        drop(running);
        runtime.block_on(async {
            assert_eq!(policy.drain(Duration::from_secs(10)).await, 0);
            assert_eq!(status(&store, &policy).await, Some(Status::Interrupted));
        });
    }
}

#[test]
fn a_call_that_was_never_polled_can_be_made_and_dropped_anywhere() {
    let (store, progress) = (MemoryStore::new(), Progress::default());
    let policy = Idempotency::at_least_once(store.clone()).build().unwrap();
    drop(call(&policy, &progress, End::Value));
    assert_eq!((policy.in_flight(), store.len()), (0, 0));
}

#[test]
fn what_a_runtime_takes_down_with_it_is_left_to_its_lease() {
    for runtime in runtimes() {
        let (store, progress) = (MemoryStore::new(), Progress::default());
        let builder = || Idempotency::at_least_once(store.clone());
        let policy = builder().build().unwrap();
        let hang = policy.clone();
        let (started, is_running) = std::sync::mpsc::channel();
        // Held by nobody: the runtime drops it.
        runtime.spawn(async move {
            hang.execute(&key(), request(), |_| async move {
                started.send(()).unwrap();
                std::future::pending::<Result<u32, Failure>>().await
            })
            .await
        });
        // Kept: dropped when there is no runtime any more.
        let kept = policy.clone();
        let other = steadfast::Key::new("tenant-7", "kept");
        let mut kept = Box::pin(kept.execute(&other, request(), |_| progress.clone().run(End::Value)));
        runtime.block_on(async {
            tokio::task::yield_now().await;
            assert!(poll_fn(|cx| Poll::Ready(kept.as_mut().poll(cx).is_pending())).await);
            assert_eq!(policy.drain(MS).await, 2, "it says what is left");
        });
        is_running.recv().unwrap();
        drop(runtime);
        drop(kept);
        assert_eq!(policy.in_flight(), 0);

        let mut later = tokio::runtime::Builder::new_current_thread();
        let later = later.enable_time().start_paused(true).build().unwrap();
        later.block_on(async {
            assert_eq!(status(&store, &policy).await, Some(Status::InProgress));
            sleep(LEASE).await;
            let there = builder().build().unwrap();
            for key in [&key(), &other] {
                let operation = |_| async { Ok::<u32, Failure>(1) };
                let taken = there.execute(key, request(), operation).await.unwrap();
                assert_eq!((taken.source, taken.attempt), (Source::Executed, 2));
            }
        });
    }
}
