//! Replies that are lost or late, and journals that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use steadfast::saga::{Cx, SagaEnd, SagaError, StartError, Step};
use steadfast::testing::saga::{Call, Fault};
use tokio::time::Instant;

use super::world::{Bench, Fate, Order, acts, key, saga, secs};

// T28
#[tokio::test(start_paused = true)]
async fn a_write_whose_reply_was_lost_is_recognised_and_nothing_is_run_twice() {
    for fault in [
        Fault::ReplyLost,
        Fault::ReplyHangs,
        Fault::RequestLost,
        Fault::RequestHangs,
    ] {
        for write in 1..=3 {
            let bench = Bench::new();
            let saga = saga(["a", "b", "c"].map(|name| bench.world.step(name, acts)))
                .build()
                .unwrap();
            let process = bench.process(&saga);
            process.way.inject(Call::Append, write..=write, fault);
            let mut started = process.start(&saga, &key(1), Order::default()).await.unwrap();
            started.wait().await.unwrap();
            assert_eq!(
                bench.book.of(started.id()),
                "C S(a) | +a S(b) | +b S(c) | +c F:completed"
            );
            assert_eq!(bench.world.calls(), "a, b, c");
        }
    }
}

// T29
#[tokio::test(start_paused = true)]
async fn a_step_whose_start_cannot_be_written_is_not_run() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts), bench.world.step("b", acts)])
        .build()
        .unwrap();
    let first = bench.process(&saga);
    for call in [Call::Append, Call::Renew, Call::Claim] {
        first.way.inject(call, .., Fault::RequestLost);
    }
    let started = first.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(bench.world.calls(), "a");
    assert_eq!(first.in_flight(), 0);
    first.die();
    let _second = bench.process(&saga);
    assert_eq!(bench.rests(started.id(), secs(60)).await, SagaEnd::Completed);
    assert_eq!(bench.world.calls(), "a, a, b");
    assert_eq!(bench.world.live(), 2);
}

// T30
#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_written_is_neither_undone_nor_forgotten() {
    let bench = Bench::new();
    let saga = saga(["a", "b", "c"].map(|name| bench.world.step(name, acts)))
        .build()
        .unwrap();
    let first = bench.process(&saga);
    first.way.inject(Call::Append, 2.., Fault::RequestLost);
    first.way.inject(Call::Renew, .., Fault::RequestLost);
    first.way.inject(Call::Claim, 2.., Fault::RequestLost);
    let started = first.start(&saga, &key(1), Order::default()).await.unwrap();
    let _second = bench.process(&saga);
    assert_eq!(bench.rests(started.id(), secs(60)).await, SagaEnd::Completed);
    assert_eq!(bench.world.calls(), "a, b, b, c");
    assert_eq!(
        bench.book.of(started.id()),
        "C S(a) | +a S(b) | S(b) | +b S(c) | +c F:completed"
    );
    // Who waits with the engine that lost it hears of it as well.
    assert!(tokio::time::timeout(secs(30), started).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_is_down_for_less_than_a_lease_costs_time_only() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts), bench.world.step("b", acts)])
        .build()
        .unwrap();
    let process = bench.process(&saga);
    for call in [Call::Append, Call::Renew, Call::Claim] {
        process.way.inject(call, .., Fault::RequestLost);
    }
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(secs(25)).await;
    process.way.heal();
    started.await.unwrap();
    assert_eq!(bench.world.calls(), "a, b");
}

#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_the_first_try_of_a_write_that_had_to_be_repeated() {
    let bench = Bench::new();
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (now, top) = (Arc::clone(&running), Arc::clone(&most));
    let b = Step::read_only("b", async move |_: &mut Cx<Order>| {
        let running = now.fetch_add(1, Ordering::Relaxed) + 1;
        top.fetch_max(running, Ordering::Relaxed);
        tokio::time::sleep(secs(15)).await;
        now.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    });
    let saga = saga([bench.world.step("a", acts), b]).build().unwrap();
    let first = bench.process(&saga);
    // The first try arrives, and its lease counts from there. The last is answered: it was carried out before.
    first.way.inject(Call::Append, 1..=1, Fault::ReplyHangs);
    first.way.inject(Call::Append, 2..=2, Fault::RequestHangs);
    first.way.inject(Call::Append, 3..=3, Fault::RequestDelayed(secs(6)));
    first.way.inject(Call::Renew, .., Fault::RequestLost);
    first.way.inject(Call::Claim, 2.., Fault::RequestLost);
    let started = first.start(&saga, &key(1), Order::default()).await.unwrap();
    let _second = bench.process(&saga);
    assert_eq!(bench.rests(started.id(), secs(120)).await, SagaEnd::Completed);
    assert_eq!(
        most.load(Ordering::Relaxed),
        1,
        "two owners at once: {}",
        bench.book.of(started.id())
    );
}

#[tokio::test(start_paused = true)]
async fn a_step_that_blocks_for_longer_than_its_lease_is_recorded_if_nobody_took_the_saga() {
    let bench = Bench::new();
    let world = bench.world.clone();
    let b = Step::read_only("b", async move |cx: &mut Cx<Order>| {
        world.act(cx);
        // The clock goes on, and nothing else does.
        let _ = futures::FutureExt::now_or_never(tokio::time::advance(secs(40)));
        Ok(())
    });
    let saga = saga([bench.world.step("a", acts), b]).build().unwrap();
    let process = bench.process_with(&saga, |engine| engine.poll_interval(secs(3600)));
    tokio::time::sleep(secs(1)).await;
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    assert_eq!(bench.rests(started.id(), secs(60)).await, SagaEnd::Completed);
    assert_eq!(bench.world.calls(), "a, b");
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_reply_was_lost_is_driven_at_once() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        let bench = Bench::new();
        let saga = saga([bench.world.step("a", acts)]).build().unwrap();
        let process = bench.process(&saga);
        process.way.inject(Call::Create, 1..=1, fault);
        let before = Instant::now();
        let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
        started.await.unwrap();
        assert!(before.elapsed() < secs(1), "{:?}", before.elapsed());
        assert_eq!(bench.world.calls(), "a");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_the_journal_does_not_answer_fails_and_gives_its_place_back() {
    for fault in [Fault::RequestHangs, Fault::ReplyHangs] {
        let bench = Bench::new();
        let saga = saga([bench.world.step("a", acts)]).build().unwrap();
        let process = bench.process_with(&saga, |engine| engine.max_concurrent(1));
        tokio::time::sleep(secs(1)).await;
        process.way.inject(Call::Create, .., fault);
        let key = key(1);
        let start = process.start(&saga, &key, Order::default());
        let failed = tokio::time::timeout(secs(30), start)
            .await
            .expect("an answer")
            .map(|_| ());
        assert!(matches!(failed, Err(StartError::Journal(_))), "{failed:?}");
        process.way.heal();
        // The same again gives the saga, whether it was written before or not; and it is run once, and soon.
        let before = Instant::now();
        let again = process.start(&saga, &key, Order::default()).await.unwrap();
        again.await.unwrap();
        assert!(before.elapsed() < secs(5), "{:?}", before.elapsed());
        assert_eq!(bench.world.calls(), "a");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_never_answers_is_sent_again() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts)]).build().unwrap();
    let id = bench.wait(&saga, 1).await;
    let process = bench.process(&saga);
    process.way.inject(Call::Load, 1..=1, Fault::RequestHangs);
    assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Completed);
    assert_eq!(bench.head(id).await.recoveries, 0);
}

// T49
#[tokio::test(start_paused = true)]
async fn a_saga_that_is_not_read_whole_is_not_driven_and_takes_no_place_from_the_others() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts)]).build().unwrap();
    let torn = bench.wait(&saga, 1).await;
    bench.book.tear(Some(torn));
    let process = bench.process_with(&saga, |engine| engine.max_concurrent(1));
    tokio::time::sleep(secs(1)).await;
    assert_eq!(bench.world.calls(), "");
    let started = process.start(&saga, &key(2), Order::default()).await.unwrap();
    tokio::time::timeout(secs(120), started)
        .await
        .expect("its place")
        .unwrap();
    assert_eq!(bench.book.of(torn), "C");
    bench.book.tear(None);
    assert_eq!(bench.rests(torn, secs(120)).await, SagaEnd::Completed);
    assert_eq!(bench.world.calls(), "a, a");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_answered_late_is_given_back_and_counts_as_no_recovery() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts)]).build().unwrap();
    let id = bench.wait(&saga, 1).await;
    let process = bench.process(&saga);
    process.way.inject(Call::Claim, 1..=5, Fault::ReplyDelayed(secs(20)));
    assert_eq!(bench.rests(id, secs(300)).await, SagaEnd::Completed);
    assert_eq!(bench.head(id).await.recoveries, 0);
    assert!(bench.head(id).await.epoch > 2);
}

#[tokio::test(start_paused = true)]
async fn a_start_finds_a_place_while_a_claim_is_under_way() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts)]).build().unwrap();
    let process = bench.process_with(&saga, |engine| engine.max_concurrent(4).max_pending(0));
    process.way.inject(Call::Claim, 1..=1, Fault::RequestDelayed(secs(5)));
    tokio::time::sleep(secs(1)).await;
    let before = Instant::now();
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    let id = started.id();
    started.await.unwrap();
    assert!(before.elapsed() < secs(1));
    assert_eq!(bench.book.of(id), "C S(a) | +a F:completed");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_journal_ends_neither_the_claims_nor_the_renewals() {
    for call in [Call::Claim, Call::Renew] {
        let bench = Bench::new();
        let slow = bench.world.step("a", |_| Fate::Takes(secs(100)));
        let saga = saga([slow.timeout(secs(200))]).build().unwrap();
        let process = bench.process(&saga);
        tokio::time::sleep(secs(1)).await;
        let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
        bench.book.trip(call);
        started.await.unwrap();
        assert_eq!(bench.world.calls(), "a");
        let id = bench.wait(&saga, 2).await;
        assert_eq!(bench.rests(id, secs(120)).await, SagaEnd::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_for_as_long_as_a_step_takes() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(3600)));
    let saga = saga([slow.timeout(secs(7200))]).build().unwrap();
    let (first, second) = (bench.process(&saga), bench.process(&saga));
    let started = first.start(&saga, &key(1), Order::default()).await.unwrap();
    let id = started.id();
    started.await.unwrap();
    assert_eq!(bench.head(id).await.epoch, 1);
    assert_eq!(bench.world.calls(), "a");
    let renewals = first.way.calls(Call::Renew);
    assert!((350..=370).contains(&renewals), "{renewals}");
    assert_eq!(second.way.calls(Call::Renew), 0);
}

/// Whatever goes wrong with the journal: a saga ends, and the books of its participants balance.
#[tokio::test(start_paused = true)]
async fn whatever_the_journal_does_every_saga_ends_and_the_books_balance() {
    let faults = [
        Fault::RequestLost,
        Fault::ReplyLost,
        Fault::RequestDelayed(secs(4)),
        Fault::RequestLate(secs(7)),
        Fault::ReplyDelayed(secs(9)),
        Fault::RequestHangs,
        Fault::ReplyHangs,
    ];
    let (mut completed, mut compensated, mut stuck) = (0, 0, 0);
    for seed in 0..60_u64 {
        let bench = Bench::new();
        let world = &bench.world;
        let last = if seed % 2 == 0 { acts } else { |_| Fate::Refuses };
        let saga = saga([world.step("a", acts), world.step("b", acts), world.step("c", last)])
            .build()
            .unwrap();
        let processes = [bench.process(&saga), bench.process(&saga)];
        for (n, process) in (0..).zip(&processes) {
            process.way.inject_at_random(seed * 2 + n, 0.25, faults);
        }
        let mut started = None;
        for _ in 0..20 {
            match processes[0].start(&saga, &key(1), Order::default()).await {
                Ok(handle) => {
                    started = Some(handle);
                    break;
                }
                Err(StartError::Journal(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        let started = started.expect("a start that is heard of");
        match bench.rests(started.id(), secs(3600)).await {
            SagaEnd::Completed => {
                completed += 1;
                assert_eq!(world.live(), 3, "seed {seed}: {}", bench.book.of(started.id()));
            }
            SagaEnd::Compensated => {
                compensated += 1;
                assert_eq!(world.live(), 0, "seed {seed}: {}", bench.book.of(started.id()));
            }
            SagaEnd::Stuck | SagaEnd::Abandoned => stuck += 1,
        }
        let heard = tokio::time::timeout(Duration::from_secs(3600), started)
            .await
            .expect("an end");
        assert!(!matches!(heard, Err(SagaError::Detached { .. })), "{heard:?}");
    }
    println!("{completed} completed, {compensated} compensated, {stuck} stuck");
    assert_eq!((completed, compensated), (30, 30));
}
