//! What a breaker can be asked and told, and the types it can be held by.

use std::error::Error as StdError;
use std::io;

use steadfast::circuit_breaker::{Isolation, StateChanges};
use steadfast::{ByError, Classify, Error};
use tower::service_fn;

use super::*;

type BoxError = Box<dyn StdError + Send + Sync>;

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_by_hand_lies_over_what_the_calls_decide() {
    for face in FACES {
        let rig = Rig::new(face, brittle());
        let breaker = &rig.breaker;
        breaker.force_closed();
        assert_eq!(
            (rig.run("FFF").await.as_str(), rig.state()),
            ("FFF", State::ForcedClosed)
        );
        breaker.force_open();
        assert_eq!((rig.run("S").await.as_str(), rig.state()), ("x", State::ForcedOpen));
        breaker.disable();
        assert_eq!((rig.run("F").await.as_str(), rig.state()), ("F", State::Disabled));
        // Disabled lies above forced, in either order.
        breaker.force_open();
        breaker.force_closed();
        assert_eq!(rig.state(), State::Disabled);
        // Isolated above all, and what is asked for meanwhile is there when it ends.
        let isolation = breaker.isolate();
        assert_eq!((rig.run("S").await.as_str(), rig.state()), ("x", State::Isolated));
        isolation.release();
        assert_eq!(rig.state(), State::Disabled);
        let isolation = breaker.isolate();
        breaker.reset();
        assert_eq!(
            rig.state(),
            State::Isolated,
            "a reset does not take the guard from its holder"
        );
        breaker.force_open();
        drop(isolation);
        assert_eq!(rig.state(), State::ForcedOpen);
        breaker.reset();
        assert_eq!((rig.run("S").await.as_str(), rig.state()), ("S", State::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn isolations_may_be_nested_and_released_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
        let rig = Rig::new(Face::Plain, brittle());
        let mut guards: Vec<Option<Isolation>> = (0..3).map(|_| Some(rig.breaker.isolate())).collect();
        for (n, place) in order.into_iter().enumerate() {
            assert_eq!(rig.state(), State::Isolated);
            guards[place].take().unwrap().release();
            assert_eq!(rig.state() == State::Isolated, n < 2, "{order:?}");
        }
        assert_eq!(rig.changes.take().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_isolation_outlives_every_other_handle() {
    let rig = Rig::new(Face::Plain, brittle());
    let mut changes = rig.breaker.subscribe();
    let guard = rig.breaker.isolate();
    drop(rig);
    assert_eq!(changes.changed().await, Some(State::Isolated));
    drop(guard);
    assert_eq!(changes.changed().await, Some(State::Closed));
    assert_eq!(changes.changed().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_open_time_goes_on_under_an_isolation() {
    for face in FACES {
        let rig = Rig::new(face, brittle());
        rig.run("F").await;
        let guard = rig.breaker.isolate();
        advance(600 * MS).await;
        drop(guard);
        assert_eq!((rig.state(), rig.rejection().await), (State::Open, Some(400 * MS)));
        let guard = rig.breaker.isolate();
        advance(400 * MS).await;
        drop(guard);
        assert_eq!(rig.run("S").await, "S");
        assert_eq!(rig.state(), State::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_it_was_forced_counts_for_nothing_afterwards() {
    for face in FACES {
        for force in [
            |breaker: &Breaker| breaker.force_open(),
            |breaker: &Breaker| breaker.force_closed(),
            |breaker: &Breaker| breaker.disable(),
            |breaker: &Breaker| drop(breaker.isolate()),
        ] {
            let rig = Rig::new(face, brittle());
            let late = rig.begun(down().after(MS));
            force(&rig.breaker);
            rig.breaker.reset();
            late.await.unwrap_err();
            assert_eq!((rig.state(), rig.breaker.snapshot().stale_results), (State::Closed, 1));
            // And a probe is no longer one.
            let rig = expired(face, brittle()).await;
            let late = rig.begun(ok(200).after(MS));
            force(&rig.breaker);
            assert_eq!(rig.in_flight(), 0);
            late.await.unwrap();
            assert_ne!(rig.changes.take().last().unwrap(), "half_open > closed 0/1 slow 0");
            assert_eq!(rig.breaker.snapshot().stale_results, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_forced_breaker_still_counts_and_a_reset_forgets() {
    let rig = Rig::new(Face::Plain, by_count(10).minimum_calls(4));
    rig.breaker.force_closed();
    rig.run("FFFFS").await;
    let snapshot = rig.breaker.snapshot();
    assert_eq!(
        (snapshot.calls, snapshot.failures, snapshot.failure_rate),
        (5, 4, Some(0.8))
    );
    rig.breaker.reset();
    assert_eq!((rig.counts(), rig.breaker.snapshot().failure_rate), ((0, 0), None));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_says_how_it_stands() {
    let rig = Rig::new(Face::Plain, by_time().consecutive_failures(10));
    let fresh = rig.breaker.snapshot();
    assert_eq!((fresh.state, fresh.calls, fresh.failure_rate), (State::Closed, 0, None));
    assert_eq!(
        (fresh.slow_call_rate, fresh.retry_after, fresh.openings),
        (None, None, 0)
    );
    advance(7 * SECOND).await;
    let slow = rig.begun(ok(200).after(4 * SECOND));
    rig.run("SSSF").await;
    slow.await.unwrap();
    let counting = rig.breaker.snapshot();
    assert_eq!(counting.time_in_state, 11 * SECOND);
    assert_eq!((counting.calls, counting.failures, counting.slow_calls), (5, 1, 1));
    assert_eq!((counting.failure_rate, counting.slow_call_rate), (Some(0.2), Some(0.2)));
    assert_eq!(counting.consecutive_failures, 0, "the slow success came last");
    rig.run("FFF").await;
    let open = rig.breaker.snapshot();
    assert_eq!((open.state, open.calls, open.failures), (State::Open, 8, 4));
    assert_eq!((open.failure_rate, open.retry_after), (Some(0.5), Some(5 * SECOND)));
    assert_eq!(
        (open.time_in_state, open.openings, open.consecutive_failures),
        (ZERO, 1, 0)
    );
    advance(5 * SECOND).await;
    let probe = rig.hanging();
    rig.run("S").await;
    let half_open = rig.breaker.snapshot();
    assert_eq!(
        (half_open.state, half_open.calls, half_open.failures),
        (State::HalfOpen, 1, 0)
    );
    assert_eq!((half_open.failure_rate, half_open.probes_in_flight), (Some(0.0), 1));
    assert_eq!(half_open.retry_after, None);
    assert_eq!(format!("{half_open:?}"), format!("{:?}", rig.breaker.snapshot()));
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn a_slow_probe_is_a_failed_one() {
    for face in FACES {
        let rig = expired(face, by_time().max_probe_time(60 * SECOND).samples(1)).await;
        assert_eq!(rig.run("s").await, "S");
        assert_eq!((rig.state(), rig.breaker.snapshot().openings), (State::Open, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn who_subscribed_sees_each_state_that_lasts() {
    let rig = Rig::new(Face::Plain, brittle());
    let mut changes = rig.breaker.subscribe();
    let next = |changes: &mut StateChanges| {
        let mut next = Box::pin(changes.changed());
        poll(&mut next)
    };
    assert!(next(&mut changes).is_pending());
    rig.run("F").await;
    assert_eq!(next(&mut changes), Poll::Ready(Some(State::Open)));
    assert!(next(&mut changes).is_pending());
    advance(SECOND).await;
    let probe = rig.hanging();
    assert_eq!(next(&mut changes), Poll::Ready(Some(State::HalfOpen)));
    // Late, it sees the latest; and one that subscribes now sees what follows now.
    let mut late = rig.breaker.subscribe();
    drop(probe);
    rig.run("S").await;
    rig.breaker.force_open();
    assert_eq!(next(&mut changes), Poll::Ready(Some(State::ForcedOpen)));
    assert_eq!(next(&mut late), Poll::Ready(Some(State::ForcedOpen)));
    // There and back again is no change.
    rig.breaker.reset();
    rig.breaker.force_open();
    assert!(next(&mut late).is_pending());
    drop(rig);
    assert_eq!(next(&mut changes), Poll::Ready(None));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_change_is_woken_by_it() {
    let rig = Rig::new(Face::Plain, brittle());
    let mut changes = rig.breaker.subscribe();
    let waiting = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(state) = changes.changed().await {
            seen.push(state);
        }
        seen
    });
    tokio::task::yield_now().await;
    for letters in ["F", "S", "F"] {
        rig.run(letters).await;
        tokio::task::yield_now().await;
        advance(SECOND).await;
    }
    drop(rig);
    // From half-open to closed in one go: only what lasted was seen.
    assert_eq!(waiting.await.unwrap(), [State::Open, State::Closed, State::Open]);
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_may_begin_and_end_at_any_time() {
    for face in FACES {
        let rig = Rig::new(face, brittle());
        rig.run("F").await;
        assert_eq!(rig.run("S").await, "x");
        rig.breaker.set_shadow(true);
        assert!(rig.breaker.is_shadow());
        assert_eq!((rig.run("SF").await.as_str(), rig.state()), ("SF", State::Open));
        rig.breaker.force_open();
        assert_eq!(rig.run("S").await, "S");
        rig.breaker.set_shadow(false);
        assert_eq!(rig.run("S").await, "x");
        // What was let through in shadow is nobody's stale result.
        assert_eq!(rig.breaker.snapshot().stale_results, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_open_breaker_in_shadow_mode_lets_the_others_through_uncounted() {
    for face in FACES {
        let rig = expired(face, brittle().shadow(true)).await;
        let probe = rig.hanging();
        assert_eq!(rig.run("FF").await, "FF");
        assert_eq!(
            (rig.state(), rig.counts(), rig.in_flight()),
            (State::HalfOpen, (0, 0), 1)
        );
        drop(probe);
        assert_eq!((rig.run("S").await.as_str(), rig.state()), ("S", State::Closed));
    }
}

// The types.

struct Client {
    breaker: CircuitBreaker<Erased<u32, io::Error>>,
}

#[tokio::test(start_paused = true)]
async fn it_fits_into_a_struct_whatever_it_judges_by() {
    let by_hand = brittle()
        .classify(|result: Result<&u32, &Error<io::Error>>| match result {
            Ok(503) => Verdict::TRANSIENT,
            _ => Verdict::Success,
        })
        .build()
        .unwrap();
    let client: CircuitBreaker<Erased<u32, Error<io::Error>>> = by_hand.erased();
    client.call(async { Ok(503) }).await.unwrap();
    assert_eq!(
        (client.state(), by_hand.state()),
        (State::Open, State::Open),
        "one breaker"
    );
    let plain = Client {
        breaker: brittle().build().unwrap().erased(),
    };
    assert_eq!(
        (plain.breaker.name(), plain.breaker.state()),
        ("payments", State::Closed)
    );
    assert!(
        format!("{:?}", plain.breaker).contains("state: Closed"),
        "{:?}",
        plain.breaker
    );
}

#[tokio::test(start_paused = true)]
async fn a_view_with_another_classifier_shares_the_state() {
    #[derive(Clone, Copy)]
    struct Statuses;

    impl<E> Classify<u32, E> for Statuses {
        fn classify(&self, result: Result<&u32, &E>) -> Verdict {
            match result {
                Ok(status) if *status < 500 => Verdict::Success,
                _ => Verdict::TRANSIENT,
            }
        }
    }

    let breaker = brittle().build().unwrap();
    let by_status = breaker.with_classifier(Statuses);
    breaker.call(async { Ok::<u32, Failure>(503) }).await.unwrap();
    assert_eq!(breaker.state(), State::Closed);
    by_status.call(async { Ok::<u32, Failure>(503) }).await.unwrap();
    assert_eq!((breaker.state(), by_status.state()), (State::Open, State::Open));
    let error = breaker.call(async { Ok::<u32, Failure>(200) }).await.unwrap_err();
    assert!(Rejected::find(&error).is_some());
}

#[tokio::test(start_paused = true)]
async fn one_breaker_serves_two_types_of_response() {
    let breaker = brittle()
        .failure_if(|error: &Failure| matches!(error, Failure::Down))
        .build()
        .unwrap();
    let user = breaker
        .call(async { Ok::<_, Failure>(String::from("user")) })
        .await
        .unwrap();
    assert_eq!(user, "user");
    // What the caller did wrong is a success of the dependency.
    breaker
        .call(async { Err::<u32, _>(Failure::Refused) })
        .await
        .unwrap_err();
    assert_eq!(breaker.state(), State::Closed);
    breaker.call(async { Err::<u32, _>(Failure::Down) }).await.unwrap_err();
    let error = breaker
        .call(async { Ok::<_, Failure>(String::new()) })
        .await
        .unwrap_err();
    assert!(Rejected::find(&error).is_some());
    // As layers, too.
    breaker.reset();
    let users = breaker.layer(service_fn(|(): ()| async { Ok::<_, Failure>(String::from("user")) }));
    let orders = breaker.layer(service_fn(|(): ()| async { Err::<u32, _>(Failure::Down) }));
    users.clone().oneshot(()).await.unwrap();
    orders.oneshot(()).await.unwrap_err();
    users.oneshot(()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn it_judges_boxed_errors_and_those_of_anyhow() {
    let breaker = brittle().boxed_errors().build().unwrap();
    let call = breaker.call(async { Err::<(), BoxError>(io::Error::from(io::ErrorKind::TimedOut).into()) });
    call.await.unwrap_err();
    let error: anyhow::Error = breaker.call(async { anyhow::Ok(()) }).await.unwrap_err();
    assert_eq!(Rejected::find(error.as_ref()).unwrap().policy(), "payments");
    // A rejection from further in is found in either, and ignored.
    breaker.reset();
    let full = || Rejected::bulkhead_full("lanes");
    breaker
        .call(async { Err::<(), BoxError>(full().into()) })
        .await
        .unwrap_err();
    breaker
        .call(async { Err::<(), anyhow::Error>(full().into()) })
        .await
        .unwrap_err();
    assert_eq!((breaker.state(), breaker.snapshot().calls), (State::Closed, 0));
}

/// Not an error by any trait.
#[derive(Debug, PartialEq)]
enum Code {
    Down,
    Open,
}

impl From<Rejected> for Code {
    fn from(_: Rejected) -> Self {
        Self::Open
    }
}

#[tokio::test(start_paused = true)]
async fn it_judges_errors_of_any_type() {
    let breaker = brittle().any_error().build().unwrap();
    assert_eq!(breaker.call(async { Err::<(), _>(Code::Down) }).await, Err(Code::Down));
    assert_eq!(breaker.call(async { Ok(()) }).await, Err(Code::Open));
}

#[tokio::test(start_paused = true)]
async fn rejections_of_policies_inside_are_shown_to_the_classifier_where_that_is_wanted() {
    let full = async || Err::<u32, _>(Failure::Rejected(Rejected::bulkhead_full("lanes")));
    let breaker = brittle().build().unwrap();
    breaker.call(full()).await.unwrap_err();
    assert_eq!(breaker.state(), State::Closed);
    let breaker = brittle().judge_rejections().build().unwrap();
    breaker.call(full()).await.unwrap_err();
    assert_eq!(breaker.state(), State::Open);
    // Our own timeout is a failure in any case.
    let breaker = brittle().build().unwrap();
    let timeout = steadfast::timeout::Timeout::new(MS);
    let call = breaker.call(timeout.call(std::future::pending::<Result<u32, Failure>>()));
    call.await.unwrap_err();
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn every_flavour_runs_in_a_task() {
    let tasks = [
        tokio::spawn(async {
            let breaker = brittle().build().unwrap();
            breaker.call(async { Ok::<_, Failure>(1) }).await.unwrap()
        }),
        tokio::spawn(async {
            let breaker = brittle().boxed_errors().build().unwrap();
            breaker.call(async { Ok::<_, BoxError>(1) }).await.unwrap()
        }),
        tokio::spawn(async {
            let breaker = brittle().failure_if(|error: &Failure| matches!(error, Failure::Down));
            breaker.build().unwrap().call(async { Ok(1) }).await.unwrap()
        }),
        tokio::spawn(async {
            let breaker = brittle().classify(verdict).build().unwrap().erased();
            let service = breaker.layer(Backend::new([ok(1)]).service());
            service.oneshot(()).await.unwrap()
        }),
        tokio::spawn(async {
            let breaker = brittle().any_error().build().unwrap();
            breaker.call(async { Ok::<_, Code>(1) }).await.unwrap()
        }),
    ];
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1);
    }
}

#[test]
fn handles_have_the_auto_traits_that_a_program_needs() {
    fn all<T: Send + Sync + Unpin>(_: &T) {}
    let breaker: CircuitBreaker<ByError> = brittle().build().unwrap();
    all(&breaker);
    all(&breaker.isolate());
    all(&breaker.subscribe());
    all(&breaker.snapshot());
    all(&breaker.export());
    all(&breaker.call(std::future::ready(Ok::<u32, Failure>(1))));
}
