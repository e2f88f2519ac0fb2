//! What is told of a call: to a listener, to `tracing` and to `metrics`; and what never is.

use std::error::Error as StdError;
use std::fmt::{self, Debug, Write as _};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use metrics_util::debugging::{DebuggingRecorder, Snapshotter};
use serde::{Deserialize, Serialize, Serializer};
use steadfast::idempotency::store::{Claim, ClaimId, Claimed, Mode, Origin, Record, Resolution, Step, Store, Write};
use steadfast::idempotency::{
    Attempt, Disposition, Executed, Fingerprint, Idempotency, IdempotencyBuilder, MemoryStore, Sealer, Source,
};
use steadfast::storage::StorageErrorKind;
use steadfast::testing::idempotency::{Call, Fault, Faulty};
use steadfast::{Key, KeyId, Rejected};
use tokio::time::sleep;

use super::driver::{Counted, Failure, key, request};
use super::edges::Told;
use super::shared::telemetry::{counted, logged, paused};

const LEASE: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

/// A policy named `payments` over a store that fails on demand, and what it tells.
struct Scene {
    store: Faulty<MemoryStore>,
    told: Told,
    operation: Counted,
}

impl Scene {
    fn policy(&self, adjust: impl FnOnce(IdempotencyBuilder) -> IdempotencyBuilder) -> Idempotency {
        let builder = Idempotency::at_least_once(self.store.clone()).name("payments");
        adjust(builder).on_event(self.told.listen()).build().unwrap()
    }

    fn at_most_once(&self) -> Idempotency {
        let builder = Idempotency::at_most_once(self.store.clone()).accept_relaxed_durability();
        builder.name("payments").on_event(self.told.listen()).build().unwrap()
    }

    async fn call(&self, policy: &Idempotency) -> Result<Executed<u32>, Failure> {
        policy.execute(&key(), request(), |_| self.operation.succeed()).await
    }

    async fn fail(&self, policy: &Idempotency) {
        let fails = |_| async { Err::<u32, _>(Failure::Inner(fmt::Error)) };
        policy.execute(&key(), request(), fails).await.unwrap_err();
    }
}

/// Plays a scene, and holds against each other what the listener heard, what was logged and what was counted.
fn told(play: impl AsyncFnOnce(&Scene)) -> Vec<String> {
    let recorder = DebuggingRecorder::new();
    let snapshotter: Snapshotter = recorder.snapshotter();
    let (told, lines) = logged(|| {
        metrics::with_local_recorder(&recorder, || {
            paused().block_on(async {
                let scene = Scene {
                    store: Faulty::new(MemoryStore::new()),
                    told: Told::default(),
                    operation: Counted::default(),
                };
                play(&scene).await;
                scene.told.take()
            })
        })
    });
    let name = |told: &str| told.split(' ').next().unwrap_or_default().to_owned();
    let logged: Vec<String> = lines.iter().map(|line| field(line, "event")).collect();
    let heard: Vec<String> = told.iter().map(|told| name(told)).collect();
    assert_eq!(logged, heard, "{lines:?}");
    for line in &lines {
        assert!(
            line.contains(" steadfast::idempotency: policy=\"payments\" id="),
            "{line}"
        );
        assert_eq!(field(line, "id").len(), 64, "{line}");
    }
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for event in &heard {
        *counts.entry(event.clone()).or_default() += 1;
    }
    let expected: Vec<String> = counts
        .iter()
        .map(|(event, count)| format!("steadfast.idempotency.events: policy=payments, event={event}: {count}"))
        .collect();
    let mut counted = counted(&snapshotter);
    counted.retain(|line| line.starts_with("steadfast.idempotency.events"));
    assert_eq!(counted, expected);
    told
}

/// The value of a field of a line of the log.
fn field(line: &str, name: &str) -> String {
    let at = line.find(&format!(" {name}=")).expect("every event has it") + name.len() + 2;
    let value = line[at..].split(' ').next().unwrap_or_default();
    value.trim_matches('"').to_owned()
}

#[test]
fn a_first_run_and_its_replay_are_told_once_each() {
    let told = told(async |scene| {
        let policy = scene.policy(|builder| builder);
        scene.call(&policy).await.unwrap();
        scene.call(&policy).await.unwrap();
    });
    assert_eq!(told, ["claimed 1", "stored 1", "replayed"]);
}

#[test]
fn every_duplicate_that_waited_is_told_of() {
    let told = told(async |scene| {
        let policy = scene.policy(|builder| builder.wait(LEASE));
        let slow = |_| async {
            sleep(MS).await;
            scene.operation.succeed().await
        };
        let call = || policy.execute(&key(), request(), slow);
        let (one, other, third) = tokio::join!(call(), call(), call());
        assert_eq!(one.unwrap().source, Source::Executed);
        assert_eq!((other.unwrap().value, third.unwrap().value), (1, 1));
    });
    assert_eq!(told, ["claimed 1", "stored 1", "replayed", "replayed"]);
}

#[test]
fn every_refusal_is_told_with_its_reason() {
    let told = told(async |scene| {
        let policy = scene.policy(|builder| builder);
        let mut running = Box::pin(policy.execute(&key(), request(), |_| scene.operation.hang()));
        assert!((&mut running).now_or_never().is_none());
        scene.call(&policy).await.unwrap_err();
        let other = Fingerprint::of("another request").unwrap();
        let mismatch = policy.execute(&key(), other, |_| scene.operation.succeed()).await;
        mismatch.unwrap_err();
        drop(running);
        assert_eq!(policy.drain(LEASE).await, 0);
        let careful = scene.at_most_once();
        scene.call(&careful).await.unwrap_err();
        careful.cancel(&key()).await.unwrap();
        scene.call(&careful).await.unwrap_err();
    });
    let expected = [
        "claimed 1",
        "in_progress",
        "mismatch",
        "interrupted 1",
        "outcome_unknown 1",
        "refused",
    ];
    assert_eq!(told, expected);
}

#[test]
fn waiters_that_are_refused_with_the_one_that_asked_are_told_of_as_well() {
    let told = told(async |scene| {
        let careful = scene.at_most_once();
        scene.fail(&careful).await;
        scene.store.inject(Call::Claim, 2..=2, Fault::ReplyDelayed(MS));
        let (one, other) = tokio::join!(scene.call(&careful), scene.call(&careful));
        assert!(one.is_err() && other.is_err());
    });
    assert_eq!(
        told,
        ["claimed 1", "interrupted 1", "outcome_unknown 1", "outcome_unknown 1"]
    );
}

#[test]
fn a_run_that_had_no_effect_is_released() {
    let told = told(async |scene| {
        let policy = scene.policy(|builder| builder);
        let refused = |_| async { Err::<u32, Failure>(Rejected::bulkhead_full("lanes").into()) };
        policy.execute(&key(), request(), refused).await.unwrap_err();
    });
    assert_eq!(told, ["claimed 1", "released"]);
}

#[test]
fn a_failure_and_a_takeover_are_told_with_their_attempts() {
    let told = told(async |scene| {
        let policy = scene.policy(|builder| builder);
        scene.fail(&policy).await;
        scene.call(&policy).await.unwrap();
    });
    assert_eq!(told, ["claimed 1", "interrupted 1", "claimed 2", "stored 2"]);
}

#[test]
fn a_panic_is_an_interruption() {
    let told = told(async |scene| {
        let policy = scene.policy(|builder| builder);
        let call = policy.execute(&key(), request(), async |_| -> Result<u32, Failure> { panic!("in it") });
        assert!(std::panic::AssertUnwindSafe(call).catch_unwind().await.is_err());
        assert_eq!(policy.drain(LEASE).await, 0);
    });
    assert_eq!(told, ["claimed 1", "interrupted 1"]);
}

/// Has somebody else take the key over, and complete it if so wanted.
async fn overtake(scene: &Scene, id: KeyId, completes: bool) {
    let store = scene.store.store();
    let claim = Claim {
        claim_id: ClaimId::from_bytes([9; 16]),
        fingerprint: request(),
        mode: Mode::AtLeastOnce { retention: LEASE },
        lease: LEASE,
        origin: Origin::from_text("call:tests"),
    };
    let record = store.inspect(id).await.unwrap().unwrap().record;
    let Record::InProgress { owner, .. } = record else {
        panic!("{record:?}");
    };
    store.interrupt(id, &owner).await.unwrap();
    let Claimed::Owned { owner, .. } = store.claim(id, &claim).await.unwrap() else {
        panic!("nobody has it");
    };
    if completes {
        let outcome = b"\x01\x0077".as_slice().into();
        store.complete(id, &owner, &outcome, LEASE * 100).await.unwrap();
    } else {
        store.interrupt(id, &owner).await.unwrap();
    }
}

#[test]
fn who_was_overtaken_is_superseded_or_unrecorded() {
    for (completes, expected) in [(true, "superseded"), (false, "unrecorded")] {
        let told = told(async |scene| {
            let policy = scene.policy(|builder| builder);
            let id = policy.id(&key());
            let run = |_| async move {
                overtake(scene, id, completes).await;
                Ok::<u32, Failure>(1)
            };
            policy.execute(&key(), request(), run).await.unwrap();
        });
        assert_eq!(told, ["claimed 1", expected]);
    }
}

#[test]
fn a_lease_that_was_taken_is_told_while_the_operation_runs() {
    let told = told(async |scene| {
        let policy = scene.policy(|builder| builder);
        let id = policy.id(&key());
        let run = |attempt: Attempt| async move {
            overtake(scene, id, true).await;
            attempt.until_lease_lost().await;
            sleep(LEASE).await;
            Ok::<u32, Failure>(1)
        };
        let executed = policy.execute(&key(), request(), run).await.unwrap();
        assert_eq!((executed.value, executed.source), (77, Source::Superseded));
    });
    assert_eq!(told, ["claimed 1", "lease_lost", "superseded"]);
}

#[test]
fn every_call_of_the_store_that_fails_or_hangs_is_told_by_its_name() {
    let told = told(async |scene| {
        let policy = scene.policy(|builder| builder.store_timeout(MS * 100));
        let store = &scene.store;
        store.inject(Call::Claim, 1..=1, Fault::RequestLost);
        store.inject(Call::Complete, 1..=1, Fault::RequestHangs);
        scene.call(&policy).await.unwrap();
        let id = policy.id(&key());
        store.inject(Call::Inspect, 1..=1, Fault::Refused(StorageErrorKind::Corrupt));
        policy.inspect(id).await.unwrap_err();
        store.inject(Call::Cancel, 1..=1, Fault::RequestHangs);
        policy.cancel(&key()).await.unwrap_err();
        store.inject(Call::Resolve, 1..=1, Fault::RequestLost);
        policy.resolve_not_executed(id).await.unwrap_err();
        store.inject(Call::Forget, 1..=1, Fault::RequestLost);
        policy.forget(id).await.unwrap_err();
    });
    let expected = [
        "store_failed claim",
        "claimed 1",
        "store_timed_out complete",
        "stored 1",
        "store_failed inspect",
        "store_timed_out cancel",
        "store_failed resolve",
        "store_failed forget",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_told_after_the_caller_has_left_is_told_once() {
    let told = told(async |scene| {
        let policy = scene.policy(|builder| builder);
        scene.store.inject(Call::Complete, 1..=1, Fault::ReplyDelayed(MS));
        assert!(scene.call(&policy).now_or_never().is_none());
        assert_eq!(policy.drain(LEASE).await, 0);
    });
    assert_eq!(told, ["claimed 1", "stored 1"]);
}

#[test]
fn a_listener_that_panics_changes_nothing() {
    let (value, lines) = logged(|| {
        paused().block_on(async {
            let policy = Idempotency::at_least_once(MemoryStore::new());
            let policy = policy.on_event(|_| panic!("in the listener")).build().unwrap();
            let value = policy.run(&key(), "r", || async { Ok::<_, Failure>(7) }).await;
            assert_eq!(policy.in_flight(), 0);
            value
        })
    });
    assert_eq!(value.unwrap(), 7);
    assert!(lines.iter().any(|line| line.contains("listener panicked")), "{lines:?}");
}

#[test]
fn the_interrupted_are_a_gauge() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        paused().block_on(async {
            let policy = Idempotency::at_least_once(MemoryStore::new()).name("payments");
            let policy = policy.build().unwrap();
            let fails = |_| async { Err::<u32, _>(Failure::Inner(fmt::Error)) };
            policy.execute(&key(), request(), fails).await.unwrap_err();
            assert_eq!(policy.count_interrupted().await.unwrap(), 1);
        });
    });
    let counted = counted(&snapshotter);
    let gauge = "steadfast.idempotency.interrupted: policy=payments: 1";
    assert!(counted.iter().any(|line| line == gauge), "{counted:?}");
}

// ---- What is never told.

const MARKER: &str = "4242-4242-4242-4242";

/// Everything that anybody could read.
#[derive(Clone, Default)]
struct Emitted(Arc<Mutex<String>>);

impl Emitted {
    fn add(&self, text: impl fmt::Display) {
        writeln!(self.0.lock().unwrap(), "{text}").unwrap();
    }

    fn debug(&self, value: &impl Debug) {
        self.add(format_args!("{value:?} {value:#?}"));
    }

    /// An error, and everything below it.
    fn error(&self, error: &(dyn StdError + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.add(format_args!("{error} {error:#} {error:?} {error:#?}"));
            next = error.source();
        }
    }
}

struct Everything(Emitted);

struct Fields<'a>(&'a Emitted);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        self.0.add(format_args!("{field}={value:?}"));
    }

    fn record_error(&mut self, _: &tracing::field::Field, value: &(dyn StdError + 'static)) {
        self.0.error(value);
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Everything {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        attributes.record(&mut Fields(&self.0));
    }

    fn on_record(
        &self,
        _: &tracing::Id,
        values: &tracing::span::Record<'_>,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        values.record(&mut Fields(&self.0));
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        self.0.debug(event.metadata());
        event.record(&mut Fields(&self.0));
    }
}

/// Fails to seal and to open, and says over what.
struct Talkative;

impl Sealer for Talkative {
    fn seal(&self, _: KeyId, outcome: &[u8]) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> {
        Err(String::from_utf8_lossy(outcome).into())
    }

    fn open(&self, _: KeyId, sealed: &[u8]) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> {
        Err(String::from_utf8_lossy(sealed).into())
    }
}

/// Has no encoding, and says what it is.
#[derive(Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(MARKER))
    }
}

fn secret_key() -> Key {
    Key::new(format!("tenant {MARKER}"), format!("key {MARKER}"))
}

/// Calls, failures, conflicts and losses, all of them with the marker in what must not be told.
async fn play(emitted: &Emitted) {
    let heard = emitted.clone();
    let store = Faulty::new(MemoryStore::new());
    let builder = || {
        let heard = heard.clone();
        let builder = Idempotency::at_least_once(store.clone()).secret(format!("secret {MARKER}"));
        builder.on_event(move |event| heard.debug(event))
    };
    let (key, fingerprint) = (secret_key(), Fingerprint::of(MARKER).unwrap());
    emitted.debug(&key);
    emitted.debug(&fingerprint);
    emitted.debug(&builder());
    let policy = builder().build().unwrap();
    let id = policy.id(&key);
    emitted.debug(&policy);
    emitted.debug(&policy.erased::<String, Failure>());
    emitted.debug(&store);
    emitted.debug(&store.clone().shared());
    emitted.error(&builder().secret(&MARKER[..15]).build().unwrap_err());

    let notes = |attempt: Attempt| {
        let emitted = emitted.clone();
        async move {
            attempt.save_checkpoint(MARKER).await?;
            emitted.debug(&attempt);
            emitted.add(attempt.derived_key(MARKER));
            Err::<String, Failure>(Failure::Inner(fmt::Error))
        }
    };
    policy.execute(&key, fingerprint, notes).await.unwrap_err();
    let sees = |attempt: Attempt| {
        emitted.debug(&attempt);
        assert_eq!(attempt.checkpoint(), Some(MARKER.as_bytes()));
        pending::<Result<String, Failure>>()
    };
    let mut running = Box::pin(policy.execute(&key, fingerprint, sees));
    assert!((&mut running).now_or_never().is_none());
    let refused = policy.run(&key, MARKER, || async { Ok::<_, Failure>(MARKER.to_owned()) });
    emitted.error(&refused.await.unwrap_err());
    let other = policy.run(&key, &[MARKER, "other"], || async {
        Ok::<_, Failure>(MARKER.to_owned())
    });
    emitted.error(&other.await.unwrap_err());
    drop(running);
    policy.drain(LEASE).await;
    emitted.debug(&policy.list_interrupted(None, 1).await.unwrap());

    let careful = Idempotency::at_most_once(store.clone()).secret(format!("secret {MARKER}"));
    let careful = careful.accept_relaxed_durability().build().unwrap();
    let unknown = careful.run(&key, MARKER, || async { Ok::<_, Failure>(MARKER.to_owned()) });
    emitted.error(&unknown.await.unwrap_err());

    store.inject(Call::Claim, .., Fault::RequestLost);
    let down = policy.run(&key, MARKER, || async { Ok::<_, Failure>(MARKER.to_owned()) });
    emitted.error(&down.await.unwrap_err());
    store.heal();

    let done = policy.run(&key, MARKER, || async { Ok::<_, Failure>(MARKER.to_owned()) });
    assert_eq!(done.await.unwrap(), MARKER);
    let record = policy.inspect(id).await.unwrap().unwrap();
    emitted.debug(&record);
    emitted.debug(&policy.outcome::<u32>(id, &record).unwrap_err());
    let number: Result<u32, Failure> = policy.run(&key, MARKER, || async { Ok(1) }).await;
    emitted.error(&number.unwrap_err());
    emitted.debug(&policy.cancel(&key).await.unwrap());

    let large = builder().max_outcome(4).build().unwrap();
    let large = large.run(&Key::new("t", "large"), MARKER, || async {
        Ok::<_, Failure>(MARKER.to_owned())
    });
    emitted.error(&large.await.unwrap_err());
    let unwritable = policy.run(&Key::new("t", "u"), MARKER, || async { Ok::<_, Failure>(Unwritable) });
    emitted.error(&unwritable.await.err().unwrap());
    let request = policy.run(&Key::new("t", "r"), &Unwritable, || async { Ok::<_, Failure>(1) });
    emitted.error(&request.await.unwrap_err());
    emitted.error(&policy.resolve_completed(id, &Unwritable).await.unwrap_err());
    let sealed = builder().sealer(Talkative).build().unwrap();
    let unsealed = sealed.run(&Key::new("t", "s"), MARKER, || async {
        Ok::<_, Failure>(MARKER.to_owned())
    });
    emitted.error(&unsealed.await.unwrap_err());

    let cancelled = Key::new(MARKER, "cancelled");
    policy.cancel(&cancelled).await.unwrap();
    let refused = policy.run(&cancelled, MARKER, || async { Ok::<_, Failure>(1) });
    emitted.error(&refused.await.unwrap_err());
    show_records(emitted, &store, id, fingerprint).await;
}

/// Every type of a store's interface, with the marker in it.
async fn show_records(emitted: &Emitted, store: &Faulty<MemoryStore>, id: KeyId, fingerprint: Fingerprint) {
    let marker = bytes::Bytes::from_static(MARKER.as_bytes());
    store.forget(id).await.unwrap();
    let claim = |lease| Claim {
        claim_id: ClaimId::from_bytes([1; 16]),
        fingerprint,
        mode: Mode::AtMostOnce,
        lease,
        origin: Origin::from_text("call:tests"),
    };
    emitted.debug(&claim(LEASE));
    let Claimed::Owned { owner, .. } = store.claim(id, &claim(LEASE)).await.unwrap() else {
        panic!("it was forgotten");
    };
    store.renew(id, &owner, LEASE, Some(&marker)).await.unwrap();
    emitted.debug(&store.claim(id, &claim(LEASE)).await.unwrap());
    store.interrupt(id, &owner).await.unwrap();
    let mut other = claim(LEASE);
    other.claim_id = ClaimId::from_bytes([2; 16]);
    emitted.debug(&store.claim(id, &other).await.unwrap());
    let resolution = Resolution::Completed {
        outcome: marker.clone(),
        retention: LEASE,
    };
    emitted.debug(&resolution);
    let record = store.inspect(id).await.unwrap().unwrap();
    emitted.debug(&record);
    let put = Step {
        answer: store.cancel(id).await.unwrap(),
        write: Write::Put(record.record),
    };
    emitted.debug(&put);
    emitted.debug(&store.inspect(id).await.unwrap());
    store.forget(id).await.unwrap();
    store.complete(id, &owner, &marker, LEASE).await.unwrap();
    emitted.debug(&store.claim(id, &other).await.unwrap());
    emitted.debug(&store.inspect(id).await.unwrap());
    emitted.debug(&(Disposition::Store, Source::Executed, owner));
}

#[test]
fn neither_keys_nor_requests_nor_outcomes_nor_checkpoints_are_shown_anywhere() {
    use tracing_subscriber::layer::SubscriberExt;

    let emitted = Emitted::default();
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::registry().with(Everything(emitted.clone()));
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    tracing::subscriber::with_default(subscriber, || {
        metrics::with_local_recorder(&recorder, || paused().block_on(play(&emitted)));
    });
    for line in counted(&snapshotter) {
        emitted.add(line);
    }
    let text = emitted.0.lock().unwrap().clone();
    for heard in [
        "Claimed",
        "Interrupted",
        "StoreFailed",
        "steadfast.idempotency.events",
        "19 bytes",
    ] {
        assert!(text.contains(heard), "{heard}");
    }
    let as_list: Vec<String> = MARKER.bytes().take(6).map(|byte| byte.to_string()).collect();
    let as_hex = MARKER.bytes().take(6).fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    for form in [&MARKER[..9], &as_list.join(", "), &as_hex] {
        let found = text.lines().filter(|line| line.contains(form)).collect::<Vec<_>>();
        assert!(found.is_empty(), "{found:#?}");
    }
}
