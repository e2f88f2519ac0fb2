//! What operators see, and what they do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use steadfast::saga::journal::{
    Append, Appended, ClaimedOne, Created, DefinitionId, Entry, Hold, Journal, MemoryJournal, NewSaga, OwnerId,
    SagaStatus,
};
use steadfast::saga::{
    AdminError, Cx, DurableSaga, Event, Obstacle, Refusal, Refused, Saga, SagaAdmin, SagaEngine, SagaError, SagaFilter,
    SagaId, Step, StepError, StepResult, Verb,
};

use steadfast::testing::saga::{Call, Fault, Faulty};
use steadfast::{Backoff, Key};
use tokio::time::sleep;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    secret: String,
}

/// What the services do, and what they were asked.
#[derive(Default)]
struct World {
    calls: Mutex<Vec<String>>,
    /// The release of a reservation fails.
    release_fails: AtomicBool,
    /// The charge is in doubt.
    charge_in_doubt: AtomicBool,
    /// The charge is declined.
    declined: AtomicBool,
    /// Nothing can be shipped.
    ship_fails: AtomicBool,
    /// Shipping takes an hour.
    ship_hangs: AtomicBool,
}

impl World {
    fn call(&self, name: &str) {
        self.calls.lock().unwrap().push(name.to_owned());
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

fn set(flag: &AtomicBool, to: bool) {
    flag.store(to, Ordering::Relaxed);
}

fn is(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

type Run = Cx<Order, Arc<World>>;

async fn open(cx: &mut Run) -> StepResult {
    cx.deps().call("open");
    Ok(())
}

async fn close(cx: &mut Run) -> StepResult {
    cx.deps().call("close");
    Ok(())
}

async fn reserve(cx: &mut Run) -> StepResult {
    cx.deps().call("reserve");
    Ok(())
}

async fn release(cx: &mut Run) -> StepResult {
    cx.deps().call("release");
    if is(&cx.deps().release_fails) {
        return Err(StepError::not_sent("the stock\nservice is down"));
    }
    Ok(())
}

async fn charge(cx: &mut Run) -> StepResult {
    cx.deps().call("charge");
    if is(&cx.deps().declined) {
        return Err(StepError::failed("declined"));
    }
    if is(&cx.deps().charge_in_doubt) {
        return Err(StepError::fatal_unknown("no answer"));
    }
    Ok(())
}

async fn ship(cx: &mut Run) -> StepResult {
    cx.deps().call("ship");
    if is(&cx.deps().ship_hangs) {
        sleep(Duration::from_secs(3600)).await;
    }
    if is(&cx.deps().ship_fails) {
        return Err(StepError::failed("no box is large enough"));
    }
    Ok(())
}

type Orders = Saga<Order, Arc<World>>;

fn orders(world: &Arc<World>) -> Orders {
    Saga::builder_with("order", Arc::clone(world))
        .step("open", open, close)
        .step("reserve", reserve, release)
        .pivot("charge", charge)
        .retriable("ship", ship)
        .build()
        .unwrap()
}

fn key(n: u32) -> Key {
    Key::new("tests", n.to_string())
}

/// A world, its journal, its engine, and who looks after it.
struct Shop {
    world: Arc<World>,
    journal: MemoryJournal,
    orders: Orders,
    engine: SagaEngine,
    admin: SagaAdmin,
}

fn shop() -> Shop {
    let (world, journal) = (Arc::<World>::default(), MemoryJournal::new());
    let orders = orders(&world);
    Shop {
        engine: SagaEngine::builder(journal.clone()).register(&orders).build().unwrap(),
        admin: SagaAdmin::new(journal.clone()),
        world,
        journal,
        orders,
    }
}

impl Shop {
    async fn start(&self, n: u32) -> DurableSaga<Order> {
        let order = Order {
            secret: "4111 1111".to_owned(),
        };
        self.engine.start(&self.orders, &key(n), order).await.unwrap()
    }

    /// A saga that has got stuck.
    async fn stuck(&self, n: u32) -> SagaId {
        let started = self.start(n).await;
        let id = started.id();
        let error = started.await.unwrap_err();
        assert!(matches!(error, SagaError::Stuck(_)), "{error:?}");
        id
    }

    /// How the saga ends, once it has.
    async fn end(&self, n: u32) -> Result<Order, SagaError> {
        self.start(n).await.await
    }

    async fn events(&self, id: SagaId) -> Vec<Event> {
        let entries = self.journal.load(id).await.unwrap().unwrap().entries;
        let read = |bytes: &Bytes| serde_json::from_slice(bytes).unwrap();
        entries.iter().map(|stored| read(&stored.entry.event)).collect()
    }
}

fn refusal(error: AdminError) -> Refused {
    match error {
        AdminError::Refused(refused) => *refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_repair_only_the_undo_that_failed_is_run_again() {
    let shop = shop();
    set(&shop.world.declined, true);
    set(&shop.world.release_fails, true);
    let id = shop.stuck(1).await;
    let calls = ["open", "reserve", "charge", "release", "release", "release", "close"];
    assert_eq!(shop.world.calls(), calls);
    let seen = shop.admin.inspect(id).await.unwrap();
    assert_eq!(seen.unresolved, ["reserve"]);
    assert_eq!(seen.obstacle, Some(Obstacle::NotUndone));

    set(&shop.world.release_fails, false);
    let ada = shop.admin.by("ada", "the stock service is back").unwrap();
    assert_eq!(ada.compensate(id).await.unwrap(), SagaStatus::Compensating);
    let error = shop.end(1).await.unwrap_err();
    assert!(matches!(error, SagaError::Compensated(_)), "{error:?}");
    assert_eq!(shop.world.calls(), ["release"]);
    let operators: Vec<Event> = shop.events(id).await;
    let operators: Vec<&Event> = operators
        .iter()
        .filter(|event| matches!(event, Event::Operator { .. }))
        .collect();
    let expected = Event::Operator {
        who: "ada".to_owned(),
        verb: Verb::Compensate,
        note: "the stock service is back".to_owned(),
    };
    assert_eq!(operators, [&expected]);
}

#[tokio::test(start_paused = true)]
async fn after_the_pivot_a_saga_is_retried_forward_or_finished_by_hand_and_never_turned_back() {
    let shop = shop();
    set(&shop.world.ship_fails, true);
    let (first, second) = (shop.stuck(1).await, shop.stuck(2).await);
    let ada = shop.admin.by("ada", "a larger box").unwrap();
    let refused = refusal(ada.compensate(first).await.unwrap_err());
    assert_eq!(refused.refusal, Refusal::PastPivot);
    assert_eq!(
        (refused.status, refused.obstacle),
        (SagaStatus::Stuck, Some(Obstacle::NotFinished))
    );
    let text = refused.to_string();
    assert!(
        text.contains("`compensate` is refused: its pivot has happened, or may have"),
        "{text}"
    );
    assert!(
        text.ends_with("it is possible where a saga is stuck, on its way back or before its pivot"),
        "{text}"
    );

    shop.world.calls();
    set(&shop.world.ship_fails, false);
    assert_eq!(ada.retry(first).await.unwrap(), SagaStatus::Running);
    shop.end(1).await.unwrap();
    assert_eq!(shop.world.calls(), ["ship"]);
    assert_eq!(ada.resolve_done(second, "ship").await.unwrap(), SagaStatus::Running);
    shop.end(2).await.unwrap();
    assert_eq!(shop.world.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn who_knows_what_became_of_the_pivot_says_so_and_the_saga_goes_on_or_back() {
    let shop = shop();
    set(&shop.world.charge_in_doubt, true);
    let (done, never) = (shop.stuck(1).await, shop.stuck(2).await);
    shop.world.calls();
    let ada = shop.admin.by("ada", "the bank's statement says so").unwrap();
    for id in [done, never] {
        assert_eq!(
            refusal(ada.compensate(id).await.unwrap_err()).refusal,
            Refusal::PastPivot
        );
        assert_eq!(
            refusal(ada.skip(id, "charge").await.unwrap_err()).refusal,
            Refusal::Forward
        );
        assert_eq!(refusal(ada.cancel(id).await.unwrap_err()).refusal, Refusal::Stuck);
        let step = "reserve".to_owned();
        let not_open = refusal(ada.resolve_never(id, "reserve").await.unwrap_err());
        assert_eq!(not_open.refusal, Refusal::NotOpen { step });
        let step = "chrage".to_owned();
        let unknown = refusal(ada.resolve_done(id, "chrage").await.unwrap_err());
        assert_eq!(unknown.refusal, Refusal::NoSuchStep { step });
    }
    ada.resolve_done(done, "charge").await.unwrap();
    shop.end(1).await.unwrap();
    assert_eq!(shop.world.calls(), ["ship"]);
    ada.resolve_never(never, "charge").await.unwrap();
    let error = shop.end(2).await.unwrap_err();
    assert!(matches!(error, SagaError::Compensated(_)), "{error:?}");
    assert_eq!(shop.world.calls(), ["release", "close"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_skipped_is_left_as_it_is_and_the_saga_ends_abandoned() {
    let shop = shop();
    set(&shop.world.declined, true);
    set(&shop.world.release_fails, true);
    let id = shop.stuck(1).await;
    shop.world.calls();
    let ada = shop.admin.by("ada", "the warehouse has burnt down").unwrap();
    assert_eq!(ada.skip(id, "reserve").await.unwrap(), SagaStatus::Compensating);
    let error = shop.end(1).await.unwrap_err();
    assert!(matches!(error, SagaError::Abandoned(_)), "{error:?}");
    assert_eq!(shop.world.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_at_its_end_at_once_and_can_be_given_up_twice() {
    let shop = shop();
    set(&shop.world.charge_in_doubt, true);
    let id = shop.stuck(1).await;
    shop.world.calls();
    let ada = shop.admin.by("ada", "the customer has died").unwrap();
    for _ in 0..2 {
        assert_eq!(ada.abandon(id).await.unwrap(), SagaStatus::Abandoned);
    }
    let events = shop.events(id).await;
    let given_up = |event: &&Event| matches!(event, Event::Operator { .. });
    assert_eq!(events.iter().filter(given_up).count(), 1);
    let seen = shop.admin.inspect(id).await.unwrap();
    assert_eq!(
        (seen.head.status, seen.head.due, seen.head.owner),
        (SagaStatus::Abandoned, None, None)
    );
    assert_eq!(seen.verbs, []);
    assert!(matches!(shop.end(1).await.unwrap_err(), SagaError::Abandoned(_)));
    assert_eq!(shop.world.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_driven_is_left_alone() {
    let shop = shop();
    set(&shop.world.ship_hangs, true);
    let id = shop.start(1).await.id();
    sleep(Duration::from_secs(1)).await;
    let before = shop.journal.load(id).await.unwrap().unwrap();
    assert_eq!(before.head.status, SagaStatus::Running);
    let ada = shop.admin.by("ada", "impatience").unwrap();
    for answer in [
        ada.retry(id).await,
        ada.compensate(id).await,
        ada.resolve_done(id, "ship").await,
        ada.skip(id, "ship").await,
        ada.abandon(id).await,
    ] {
        let error = answer.unwrap_err();
        assert!(matches!(error, AdminError::Busy { lease: Some(_), .. }), "{error:?}");
    }
    // Its pivot is passed, and that needs no lease to be known.
    assert_eq!(refusal(ada.cancel(id).await.unwrap_err()).refusal, Refusal::PastPivot);
    let after = shop.journal.load(id).await.unwrap().unwrap();
    assert_eq!((after.head, after.entries), (before.head, before.entries));
}

#[tokio::test(start_paused = true)]
async fn a_saga_is_cancelled_whether_it_waits_or_is_driven() {
    let (world, journal) = (Arc::<World>::default(), MemoryJournal::new());
    let busy = |wait| {
        let flaky = Step::read_only("flaky", async move |_: &mut Run| {
            sleep(wait).await;
            Err(StepError::not_sent("not now"))
        });
        let flaky = flaky.backoff(Backoff::constant(Duration::from_secs(3600)));
        let saga = Saga::builder_with(format!("busy {}", wait.as_secs()), Arc::clone(&world));
        saga.step("open", open, close).with(flaky).build().unwrap()
    };
    let (waits, runs) = (busy(Duration::ZERO), busy(Duration::from_secs(10)));
    let engine = SagaEngine::builder(journal.clone()).register(&waits).register(&runs);
    let engine = engine.build().unwrap();
    let admin = SagaAdmin::new(journal.clone());
    let ada = admin.by("ada", "a wrong order").unwrap();
    for (saga, status) in [(&waits, SagaStatus::Compensating), (&runs, SagaStatus::Running)] {
        let started = engine.start(saga, &key(1), Order::default()).await.unwrap();
        let id = started.id();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(ada.cancel(id).await.unwrap(), status);
        ada.cancel(id).await.unwrap();
        let begun = tokio::time::Instant::now();
        let error = started.await.unwrap_err();
        assert!(matches!(error, SagaError::Compensated(_)), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!(world.calls(), ["open", "close"]);
        assert_eq!(refusal(ada.cancel(id).await.unwrap_err()).refusal, Refusal::Ended);
        let cancelled = admin.inspect(id).await.unwrap().to_string();
        let expected = if status == SagaStatus::Running {
            "turns back: it was cancelled"
        } else {
            "operator ada: cancel: a wrong order"
        };
        assert!(cancelled.contains(expected), "{cancelled}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_changed_by_nothing() {
    let shop = shop();
    let started = shop.start(1).await;
    let id = started.id();
    started.await.unwrap();
    let before = shop.journal.load(id).await.unwrap().unwrap();
    let ada = shop.admin.by("ada", "curiosity").unwrap();
    for answer in [
        ada.retry(id).await,
        ada.force_retry(id).await,
        ada.compensate(id).await,
        ada.resolve_done(id, "ship").await,
        ada.resolve_never(id, "ship").await,
        ada.skip(id, "ship").await,
        ada.cancel(id).await,
        ada.abandon(id).await,
    ] {
        assert_eq!(refusal(answer.unwrap_err()).refusal, Refusal::Ended);
    }
    let after = shop.journal.load(id).await.unwrap().unwrap();
    assert_eq!((after.head, after.entries), (before.head, before.entries));
    let nobody = SagaId::from_bytes([7; 16]);
    assert!(matches!(ada.retry(nobody).await, Err(AdminError::NotFound { id }) if id == nobody));
    assert!(matches!(
        shop.admin.inspect(nobody).await,
        Err(AdminError::NotFound { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn of_two_operators_one_decides() {
    let shop = shop();
    set(&shop.world.declined, true);
    set(&shop.world.release_fails, true);
    let id = shop.stuck(1).await;
    let (ada, bob) = (
        shop.admin.by("ada", "one").unwrap(),
        shop.admin.by("bob", "two").unwrap(),
    );
    let (one, two) = tokio::join!(ada.skip(id, "reserve"), bob.resolve_never(id, "reserve"));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    let loser = one.and(two).unwrap_err();
    let fair = matches!(&loser, AdminError::Busy { .. })
        || matches!(&loser, AdminError::Refused(refused) if refused.refusal == Refusal::NotStuck);
    assert!(fair, "{loser:?}");
    let events = shop.events(id).await;
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, Event::Operator { .. }))
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn who_decides_about_what_has_changed_meanwhile_is_refused() {
    let journal = MemoryJournal::new();
    let started = r#"{"event":"started","step":"a"}"#;
    let stuck = r#"{"event":"finished","end":"stuck","obstacle":"interrupted"}"#;
    let id = written(&journal, 1, &[PLAN, started, stuck]).await;
    let slow = Faulty::new(journal.clone());
    slow.inject(Call::ClaimOne, 1..=1, Fault::RequestDelayed(Duration::from_secs(1)));
    let (slow, admin) = (SagaAdmin::new(slow), SagaAdmin::new(journal.clone()));
    let (ada, bob) = (admin.by("ada", "one").unwrap(), slow.by("bob", "two").unwrap());
    let (late, first) = tokio::join!(bob.resolve_done(id, "a"), ada.compensate(id));
    assert_eq!(first.unwrap(), SagaStatus::Compensating);
    assert_eq!(refusal(late.unwrap_err()).refusal, Refusal::NotStuck);
    let loaded = journal.load(id).await.unwrap().unwrap();
    assert_eq!(loaded.entries.len(), 4);
    assert!(!loaded.head.is_held(loaded.now));
}

#[tokio::test(start_paused = true)]
async fn a_decision_forgives_the_crashes_before_it() {
    let journal = MemoryJournal::new();
    let id = written(
        &journal,
        1,
        &[PLAN, r#"{"event":"finished","end":"stuck","obstacle":"crash_loop"}"#],
    )
    .await;
    let lease = Duration::from_secs(1);
    for n in 1..=3 {
        // Whoever claims it is lost: here they are operators' tools that die.
        journal.claim_one(id, OwnerId([n; 16]), lease).await.unwrap();
        sleep(lease).await;
    }
    let recoveries = async || journal.load(id).await.unwrap().unwrap().head.recoveries;
    assert_eq!(recoveries().await, 2);
    let admin = SagaAdmin::new(journal.clone());
    let ada = admin.by("ada", "the code is repaired").unwrap();
    ada.retry(id).await.unwrap();
    assert_eq!(recoveries().await, 0);
}

#[tokio::test(start_paused = true)]
async fn who_and_why_have_to_be_said() {
    let admin = SagaAdmin::new(MemoryJournal::new());
    let long = "x".repeat(2_001);
    for (who, why, what) in [
        ("", "why", "who decides"),
        (" ", "why", "who decides"),
        ("a\u{1b}[2Jda", "why", "who decides"),
        (&long[..201], "why", "who decides"),
        ("ada", "\n", "why it is decided"),
        ("ada", &long, "why it is decided"),
    ] {
        let error = admin.by(who, why).unwrap_err();
        assert!(
            matches!(error, AdminError::Unsigned { what: found, .. } if found == what),
            "{error:?}"
        );
    }
    assert!(admin.by(&long[..200], &long[..2_000]).is_ok());
}

/// A saga in the journal with these events, and stuck.
async fn written(journal: &MemoryJournal, n: u8, events: &[&str]) -> SagaId {
    let id = SagaId::from_bytes([n; 16]);
    let entry = |event: &&str| Entry {
        event: Bytes::copy_from_slice(event.as_bytes()),
        context: None,
    };
    let entries: Vec<Entry> = events.iter().map(entry).collect();
    let new = NewSaga {
        id,
        key: format!("{n:02x}").repeat(32).parse().unwrap(),
        input: [0; 32],
        definition: DefinitionId {
            name: "written".to_owned(),
            version: 1,
            fingerprint: [0; 32],
        },
        deadline: None,
        lease: None,
        entries: entries[..1].to_vec(),
        can_turn: true,
    };
    assert_eq!(journal.create(&new).await.unwrap(), Created::New);
    let claimed = journal
        .claim_one(id, OwnerId([0; 16]), Duration::from_secs(1))
        .await
        .unwrap();
    let ClaimedOne::Claimed(claimed) = claimed else {
        panic!("it is free")
    };
    let append = Append {
        id,
        epoch: claimed.head.epoch,
        seq: 1,
        entries: entries[1..].to_vec(),
        status: SagaStatus::Stuck,
        can_turn: true,
        progress: true,
        hold: Hold::Rest,
        error: None,
    };
    assert!(matches!(
        journal.append(&append).await.unwrap(),
        Appended::Written { .. }
    ));
    id
}

const PLAN: &str = r#"{"event":"created","plan":{"steps":[{"name":"a","kind":"compensatable","has_undo":true}]}}"#;

#[tokio::test(start_paused = true)]
async fn a_key_that_may_be_forgotten_needs_force() {
    let journal = MemoryJournal::new();
    let started = r#"{"event":"started","step":"a"}"#;
    let stuck = r#"{"event":"finished","end":"stuck","obstacle":"key_expired"}"#;
    let id = written(&journal, 1, &[PLAN, started, stuck]).await;
    let admin = SagaAdmin::new(journal.clone());
    let ada = admin.by("ada", "it does no harm").unwrap();
    let step = "a".to_owned();
    assert_eq!(
        refusal(ada.retry(id).await.unwrap_err()).refusal,
        Refusal::KeyExpired { step }
    );
    let verbs = admin.inspect(id).await.unwrap().verbs;
    assert_eq!(verbs.first(), Some(&Verb::Retry { force: true }));
    assert_eq!(ada.force_retry(id).await.unwrap(), SagaStatus::Running);
    let loaded = journal.load(id).await.unwrap().unwrap();
    assert!(
        loaded.head.is_due(loaded.now),
        "whoever can drive it may have it at once"
    );
    assert!(matches!(ada.force_retry(id).await, Err(AdminError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_would_try_nothing_is_refused() {
    let journal = MemoryJournal::new();
    let sticks = PLAN.replace("true}", r#"true,"when_unknown":"stick"}"#);
    let id = written(
        &journal,
        1,
        &[
            &sticks,
            r#"{"event":"started","step":"a"}"#,
            r#"{"event":"unwinding","reason":{"why":"cancelled"}}"#,
            r#"{"event":"finished","end":"stuck","obstacle":"not_undone"}"#,
        ],
    )
    .await;
    let admin = SagaAdmin::new(journal.clone());
    let ada = admin.by("ada", "hope").unwrap();
    for answer in [ada.retry(id).await, ada.compensate(id).await] {
        assert_eq!(refusal(answer.unwrap_err()).refusal, Refusal::NoUse);
    }
    let step = || "a".to_owned();
    let expected = [
        Verb::ResolveDone { step: step() },
        Verb::ResolveNever { step: step() },
        Verb::Skip { step: step() },
        Verb::Abandon,
    ];
    assert_eq!(admin.inspect(id).await.unwrap().verbs, expected);
    assert_eq!(ada.resolve_done(id, "a").await.unwrap(), SagaStatus::Compensating);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_can_be_looked_at_and_given_up() {
    let journal = MemoryJournal::new();
    let stuck = r#"{"event":"finished","end":"stuck"}"#;
    let impossible = r#"{"event":"undo_succeeded","step":"a"}"#;
    let logs: [(&[&str], Refusal); 3] = [
        (&[r#"{"event":"created"}"#, stuck], Refusal::NoPlan),
        (&[PLAN, r#"{"event":"of a later version"}"#, stuck], Refusal::Corrupt),
        (&[PLAN, impossible, stuck], Refusal::Corrupt),
    ];
    let admin = SagaAdmin::new(journal.clone());
    let ada = admin.by("ada", "nobody knows").unwrap();
    for (n, (log, expected)) in (1..).zip(logs) {
        let id = written(&journal, n, log).await;
        assert_eq!(refusal(ada.retry(id).await.unwrap_err()).refusal, expected);
        let seen = admin.inspect(id).await.unwrap();
        assert_eq!(seen.verbs, [Verb::Abandon]);
        assert_eq!(seen.timeline.len(), log.len());
        assert_eq!(ada.abandon(id).await.unwrap(), SagaStatus::Abandoned);
    }
}

#[tokio::test(start_paused = true)]
async fn sagas_are_listed_by_status_name_and_age_page_by_page() {
    let shop = shop();
    for n in 1..=3 {
        shop.start(n).await.await.unwrap();
    }
    sleep(Duration::from_secs(3600)).await;
    set(&shop.world.charge_in_doubt, true);
    let stuck = shop.stuck(4).await;
    let all = shop.admin.list(&SagaFilter::default()).await.unwrap();
    assert_eq!((all.sagas.len(), all.next), (4, None));
    let ids = |page: &steadfast::saga::SagaPage| page.sagas.iter().map(|head| head.id).collect::<Vec<_>>();
    let every: Vec<SagaId> = ids(&all);
    for limit in 1..=5 {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = SagaFilter {
                limit,
                after,
                ..SagaFilter::default()
            };
            let page = shop.admin.list(&page).await.unwrap();
            assert!(page.sagas.len() <= limit);
            found.extend(ids(&page));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, every, "{limit}");
    }
    let only = SagaFilter {
        status: Some(SagaStatus::Stuck),
        ..SagaFilter::default()
    };
    assert_eq!(ids(&shop.admin.list(&only).await.unwrap()), [stuck]);
    let old = SagaFilter {
        older_than: Some(Duration::from_secs(1800)),
        limit: 2,
        ..SagaFilter::default()
    };
    let page = shop.admin.list(&old).await.unwrap();
    assert!(page.sagas.iter().all(|head| head.id != stuck));
    assert_eq!(page.sagas.len(), 2);
    let rest = SagaFilter {
        after: page.next,
        ..old
    };
    assert_eq!(shop.admin.list(&rest).await.unwrap().sagas.len(), 1);
    let other = SagaFilter {
        name: Some("other".to_owned()),
        ..SagaFilter::default()
    };
    assert_eq!(shop.admin.list(&other).await.unwrap().sagas, []);

    let found = shop.admin.find("order", &key(4)).await.unwrap();
    assert_eq!(found.map(|head| head.id), Some(stuck));
    assert_eq!(shop.admin.find("order", &key(5)).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn an_inspection_reads_as_a_story_and_does_not_tell_secrets() {
    let shop = shop();
    set(&shop.world.declined, true);
    set(&shop.world.release_fails, true);
    let id = shop.stuck(1).await;
    sleep(Duration::from_secs(252)).await;
    let seen = shop.admin.inspect(id).await.unwrap();
    let text = seen.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    println!("{text}");
    assert_eq!(lines[0], format!("saga       order {id}"));
    assert_eq!(lines[1], "status     stuck (not_undone)");
    assert!(lines[4].ends_with("4m 12s ago"), "{}", lines[4]);
    for expected in [
        "last error undo of reserve: the stock service is down",
        "steps      open (compensatable), reserve (compensatable), charge (pivot), ship (retriable)",
        "to be looked at: reserve",
        "  resolve reserve never    you know that it has not happened and never will, or have undone it by hand",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{text}");
    }
    let story: Vec<&str> = lines.iter().filter_map(|line| line.get(27..)).collect();
    for expected in [
        "charge: failed, without effect, for good: declined, after 0ms",
        "turns back: charge failed",
        "reserve: undo started, it has happened",
        "reserve: undo failed, for good: the stock service is down, after 0ms",
        "open: undone, after 0ms",
        "stuck (not_undone)",
    ] {
        assert!(story.contains(&expected), "{expected}\n{text}");
    }
    assert!(!text.contains("4111") && !format!("{seen:?}").contains("4111"));
    assert!(String::from_utf8_lossy(seen.context().unwrap()).contains("4111"));
}

#[tokio::test(start_paused = true)]
async fn steps_that_were_appended_later_are_known_to_operators() {
    let (world, journal) = (Arc::<World>::default(), MemoryJournal::new());
    let flaky = || {
        Step::read_only("look", async |cx: &mut Run| {
            cx.deps().call("look");
            Err::<(), _>(StepError::not_sent("not now"))
        })
        .backoff(Backoff::constant(Duration::from_secs(3600)))
    };
    let looked = Step::read_only("look", async |_: &mut Run| Ok(()));
    let small = Saga::builder_with("growing", Arc::clone(&world));
    let small = small.step("open", open, close).with(flaky()).build().unwrap();
    let grown = Saga::builder_with("growing", Arc::clone(&world)).compatible_with(small.fingerprint());
    let grown = grown.step("open", open, close).with(looked).pivot("charge", charge);
    let grown = grown.build().unwrap();

    let first = SagaEngine::builder(journal.clone()).register(&small).build().unwrap();
    let id = first.start(&small, &key(1), Order::default()).await.unwrap().id();
    sleep(Duration::from_secs(1)).await;
    first.shutdown(Duration::from_secs(1)).await;
    set(&world.charge_in_doubt, true);
    let _second = SagaEngine::builder(journal.clone()).register(&grown).build().unwrap();
    sleep(Duration::from_secs(3700)).await;

    let admin = SagaAdmin::new(journal.clone());
    let seen = admin.inspect(id).await.unwrap();
    assert_eq!(
        (seen.head.status, seen.unresolved),
        (SagaStatus::Stuck, vec!["charge".to_owned()])
    );
    let replanned = seen
        .timeline
        .iter()
        .filter(|entry| matches!(entry.event, Some(Event::Replanned { .. })));
    assert_eq!(replanned.count(), 1);
    let ada = admin.by("ada", "it was charged").unwrap();
    ada.resolve_done(id, "charge").await.unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(admin.inspect(id).await.unwrap().head.status, SagaStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_decision_whose_reply_is_lost_is_written_once() {
    let shop = shop();
    set(&shop.world.ship_fails, true);
    let id = shop.stuck(1).await;
    let journal = Faulty::new(shop.journal.clone());
    journal.inject(Call::Append, 1..=1, Fault::ReplyLost);
    let admin = SagaAdmin::new(journal);
    set(&shop.world.ship_fails, false);
    let ada = admin.by("ada", "a larger box").unwrap();
    assert_eq!(ada.retry(id).await.unwrap(), SagaStatus::Running);
    shop.end(1).await.unwrap();
    let events = shop.events(id).await;
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, Event::Operator { .. }))
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_cannot_be_written_leaves_the_saga_free() {
    let shop = shop();
    set(&shop.world.ship_fails, true);
    let id = shop.stuck(1).await;
    let before = shop.journal.load(id).await.unwrap().unwrap();
    let faulty = Faulty::new(shop.journal.clone());
    faulty.inject(Call::Append, .., Fault::RequestLost);
    let admin = SagaAdmin::new(faulty);
    let ada = admin.by("ada", "a larger box").unwrap();
    assert!(matches!(ada.retry(id).await, Err(AdminError::Journal(_))));
    let after = shop.journal.load(id).await.unwrap().unwrap();
    assert_eq!((after.entries, after.head.status), (before.entries, SagaStatus::Stuck));
    assert!(!after.head.is_held(after.now));
    set(&shop.world.ship_fails, false);
    let bob = shop.admin.by("bob", "a larger box").unwrap();
    bob.retry(id).await.unwrap();
    shop.end(1).await.unwrap();
}
