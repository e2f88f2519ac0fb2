//! The behaviour that breakers of other languages have agreed on, in both faces.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use steadfast::Backoff;
use steadfast::circuit_breaker::{CircuitBreaker, State};
use steadfast::retry::Retry;
use steadfast::timeout::Timeout;
use tower::{Layer, ServiceBuilder, service_fn};

use super::support::panics_when_called;
use super::*;

#[tokio::test(start_paused = true)]
async fn below_the_minimum_no_rate_is_known_and_at_it_the_breaker_opens() {
    for face in FACES {
        let rig = Rig::new(face, by_time());
        assert_eq!(rig.run("FFFS").await, "FFFS");
        assert_eq!(rig.state(), State::Closed);
        assert_eq!(rig.breaker.snapshot().failure_rate, None);
        assert_eq!(rig.run("S").await, "S");
        assert_eq!(rig.state(), State::Open);
        assert_eq!(rig.changes.take(), ["closed > open 3/5 slow 0"]);
        assert_eq!(rig.breaker.snapshot().failure_rate, Some(0.6));
        assert_eq!((rig.run("S").await.as_str(), rig.sent()), ("x", 5));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_it_whether_they_succeed_or_fail() {
    for face in FACES {
        // All of them begin at once: a slow one takes 5 s.
        for (steps, expected) in [
            ([ok(200), ok(200), ok(200)], "closed > open 0/5 slow 3"),
            ([ok(200), down(), ok(200)], "closed > open 1/5 slow 3"),
        ] {
            let rig = Rig::new(face, by_time());
            let [first, second, last] = steps.map(|step| rig.begun(step.after(5 * SECOND)));
            assert_eq!(rig.run("SS").await, "SS");
            let _ = futures::join!(first, second);
            assert_eq!(rig.state(), State::Closed);
            last.await.unwrap();
            assert_eq!(rig.state(), State::Open);
            assert_eq!(rig.changes.take(), [expected]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_leaves_a_time_window_when_its_time_is_over() {
    for face in FACES {
        let rig = Rig::new(face, by_time().time_window(5 * SECOND));
        for wait in [ZERO, 400 * MS, 400 * MS] {
            advance(wait).await;
            rig.run("F").await;
        }
        assert_eq!(rig.counts(), (3, 3));
        advance(4 * SECOND).await;
        assert_eq!(rig.counts(), (3, 3));
        advance(SECOND).await;
        assert_eq!(rig.counts(), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_leaves_a_count_window_when_it_is_the_oldest() {
    for face in FACES {
        let rig = Rig::new(face, by_count(4).failure_rate(1.0).minimum_calls(1));
        // A rate of 1.0 at the first call would open it.
        rig.breaker.force_closed();
        let mut rates = Vec::new();
        for letter in ["F", "S", "S", "S", "S"] {
            rig.run(letter).await;
            rates.push(rig.breaker.snapshot().failure_rate.unwrap());
        }
        assert_eq!(rates, [1.0, 0.5, 1.0 / 3.0, 0.25, 0.0]);
    }
}

#[tokio::test(start_paused = true)]
async fn after_ten_thousand_successes_an_outage_opens_it_within_its_window_times_its_rate() {
    for face in FACES {
        let rig = Rig::new(face, CircuitBreaker::builder("payments"));
        assert_eq!(rig.run(&"S".repeat(10_000)).await.len(), 10_000);
        assert_eq!(rig.run(&"F".repeat(49)).await.len(), 49);
        assert_eq!(rig.state(), State::Closed);
        rig.run("F").await;
        assert_eq!(rig.state(), State::Open);

        // A hundred calls a second over ten seconds: five, and one tenth of the window.
        let rig = Rig::new(face, by_time().time_window(10 * SECOND));
        for _ in 0..1_000 {
            rig.run("SSSSSSSSSS").await;
            advance(100 * MS).await;
        }
        let outage = Instant::now();
        while rig.state() == State::Closed {
            rig.run("FFFFFFFFFF").await;
            advance(100 * MS).await;
        }
        let noticed = outage.elapsed();
        assert!((4 * SECOND..=6 * SECOND).contains(&noticed), "{noticed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_executed_and_what_says_nothing_dilutes_no_rate() {
    for face in FACES {
        let rig = Rig::new(face, by_time());
        rig.run("IIISSSFF").await;
        assert_eq!(rig.counts(), (5, 2));
        let isolation = rig.breaker.isolate();
        assert_eq!(rig.run("SSS").await, "xxx");
        isolation.release();
        // An isolation ends with nothing counted.
        assert_eq!(rig.counts(), (0, 0));
        rig.run("FFSS").await;
        assert_eq!(rig.run(&"I".repeat(100)).await.len(), 100);
        assert_eq!((rig.counts(), rig.state()), ((4, 2), State::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_frees_its_place_and_goes_on() {
    for face in FACES {
        for step in [panics(), panics().after(MS), panics_when_called()] {
            let rig = Rig::new(face, brittle());
            let caught = AssertUnwindSafe(rig.call(step.clone())).catch_unwind().await;
            let message = *caught.unwrap_err().downcast::<&str>().unwrap();
            assert!(message.starts_with("the operation panics when it is "), "{message}");
            assert_eq!(rig.changes.take(), ["closed > open 1/1 slow 0"]);
            assert_eq!(rig.ends.take(), ["panicked"]);
            // And so it is with a probe.
            advance(SECOND).await;
            AssertUnwindSafe(rig.call(step)).catch_unwind().await.unwrap_err();
            assert_eq!((rig.state(), rig.in_flight()), (State::Open, 0));
            assert_eq!(rig.ends.take(), ["panicked"]);
            advance(SECOND).await;
            assert_eq!(rig.run("S").await, "S");
            assert_eq!(rig.state(), State::Closed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_classifier_that_panics_is_a_failure_too() {
    let breaker = brittle()
        .classify(|result: Result<&u32, &Failure>| match result {
            Ok(666) => panic!("the classifier"),
            other => verdict(other),
        })
        .build()
        .unwrap()
        .erased();
    for face in FACES {
        breaker.reset();
        for _ in 0..2 {
            let backend = Backend::new([ok(666)]);
            let caught = AssertUnwindSafe(call(face, &breaker, &backend)).catch_unwind().await;
            assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "the classifier");
            assert_eq!((breaker.state(), breaker.snapshot().probes_in_flight), (State::Open, 0));
            advance(SECOND).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_admits_a_probe_at_the_moment_its_time_is_over() {
    for face in FACES {
        let rig = Rig::new(face, by_time());
        rig.run("FFFFF").await;
        assert_eq!(rig.rejection().await, Some(5 * SECOND));
        advance(3 * SECOND).await;
        assert_eq!(rig.rejection().await, Some(2 * SECOND));
        advance(2 * SECOND - Duration::from_nanos(1)).await;
        assert_eq!(rig.rejection().await, Some(Duration::from_nanos(1)));
        advance(Duration::from_nanos(1)).await;
        assert_eq!(rig.state(), State::Open, "nothing moves it but a call");
        let probe = rig.hanging();
        assert_eq!(
            (rig.state(), rig.counts(), rig.in_flight()),
            (State::HalfOpen, (0, 0), 1)
        );
        drop(probe);
    }
}

#[tokio::test(start_paused = true)]
async fn each_failed_round_begins_another_open_time() {
    for face in FACES {
        let builder = by_time()
            .time_window(10 * SECOND)
            .minimum_calls(10)
            .open_time(SECOND)
            .samples(1);
        let rig = Rig::new(face, builder);
        rig.run("FFFFFFFFFF").await;
        assert_eq!(rig.rejection().await, Some(SECOND));
        advance(500 * MS).await;
        assert_eq!(rig.rejection().await, Some(500 * MS));
        advance(500 * MS).await;
        assert_eq!(rig.run("F").await, "F");
        assert_eq!(rig.rejection().await, Some(SECOND));
        advance(SECOND).await;
        assert_eq!(rig.run("S").await, "S");
        assert_eq!((rig.state(), rig.counts()), (State::Closed, (0, 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_probes_are_under_way_than_there_are_samples_and_one_that_leaves_makes_room() {
    for face in FACES {
        let rig = expired(face, by_time()).await;
        let mut probes: Vec<_> = (0..4).map(|_| rig.hanging()).collect();
        assert_eq!(rig.rejection().await, None);
        drop(probes.pop());
        assert_eq!(rig.in_flight(), 3);
        probes.push(rig.hanging());
        assert_eq!(rig.rejection().await, None);
        assert_eq!(rig.in_flight(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_round_is_decided_by_its_samples_or_as_soon_as_its_outcome_is_certain() {
    for face in FACES {
        for (calls, state) in [
            ("FF", State::Open),
            ("FSS", State::HalfOpen),
            ("FSSS", State::Closed),
            ("SSS", State::Closed),
            ("SISS", State::Closed),
            ("IIIISF", State::HalfOpen),
            ("SFIF", State::Open),
        ] {
            let rig = expired(face, by_time()).await;
            assert_eq!(rig.run(calls).await, calls, "{calls}");
            assert_eq!(rig.state(), state, "{calls}");
            if state == State::Closed {
                assert_eq!(rig.counts(), (0, 0), "{calls}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_round_that_learns_nothing_ends_after_four_times_its_samples() {
    for face in FACES {
        let rig = expired(face, by_time()).await;
        assert_eq!(rig.run(&"I".repeat(15)).await, "I".repeat(15));
        assert_eq!(rig.state(), State::HalfOpen);
        assert_eq!(rig.run("I").await, "I");
        assert_eq!((rig.state(), rig.breaker.snapshot().openings), (State::Open, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_never_answers_is_a_failed_sample_when_its_time_is_over() {
    for face in FACES {
        let rig = expired(face, by_time()).await;
        let late = [
            rig.begun(ok(200).after(2 * SECOND)),
            rig.begun(down().after(2 * SECOND)),
        ];
        advance(SECOND - MS).await;
        assert_eq!(rig.run("S").await, "S");
        assert_eq!((rig.state(), rig.in_flight()), (State::HalfOpen, 2));
        advance(MS).await;
        // The next call finds two of them failed, and the round over.
        assert!(rig.rejection().await.is_some());
        assert_eq!((rig.state(), rig.in_flight()), (State::Open, 0));
        let changes = rig.changes.take();
        let before = rig.breaker.snapshot();
        for late in late {
            let _ = late.await;
        }
        let after = rig.breaker.snapshot();
        assert_eq!((after.state, after.calls), (before.state, before.calls));
        assert_eq!(after.stale_results, before.stale_results + 2);
        assert_eq!(changes.last().unwrap(), "half_open > open 2/3 slow 0");
        assert!(rig.changes.take().is_empty());
    }
}

/// Through Tower as well, where nothing but rejected calls come: none of them is ever a probe.
#[tokio::test(start_paused = true)]
async fn half_open_ends_also_where_all_probes_hang_for_ever() {
    for face in FACES {
        let rig = expired(face, by_time()).await;
        let probes: Vec<_> = (0..4).map(|_| rig.hanging()).collect();
        assert_eq!(rig.rejection().await, None);
        advance(SECOND).await;
        assert_eq!(rig.rejection().await, Some(5 * SECOND));
        assert_eq!((rig.state(), rig.breaker.snapshot().openings), (State::Open, 2));
        advance(5 * SECOND).await;
        assert_eq!(rig.run("SSS").await, "SSS");
        assert_eq!(rig.state(), State::Closed);
        drop(probes);
        assert_eq!((rig.state(), rig.counts()), (State::Closed, (0, 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_open_time_follows_its_backoff_until_the_breaker_closes() {
    for face in FACES {
        let builder = brittle()
            .open_backoff(Backoff::exponential(SECOND))
            .max_open_time(10 * SECOND);
        let rig = Rig::new(face, builder);
        let mut times = Vec::new();
        for letter in ["F", "F", "F", "F", "F", "F", "S", "F"] {
            rig.run(letter).await;
            if let Some(time) = rig.breaker.snapshot().retry_after {
                times.push(time.as_secs());
                advance(time).await;
            }
        }
        assert_eq!(times, [1, 2, 4, 8, 10, 10, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_lasts_for_as_long_as_its_failure_asked_where_that_is_wanted() {
    for face in FACES {
        for (asked, opened) in [
            (Some(7 * SECOND), 7 * SECOND),
            (Some(600 * SECOND), 300 * SECOND),
            (Some(ZERO), SECOND),
            (None, SECOND),
        ] {
            let busy = || fail(Failure::Busy(asked));
            let rig = Rig::new(face, brittle().use_retry_after(true));
            rig.call(busy()).await.unwrap_err();
            assert_eq!(rig.rejection().await, Some(opened));
            // And so does one that follows from a probe.
            advance(opened).await;
            rig.call(busy()).await.unwrap_err();
            assert_eq!(rig.rejection().await, Some(opened));

            let rig = Rig::new(face, brittle());
            rig.call(busy()).await.unwrap_err();
            assert_eq!(rig.rejection().await, Some(SECOND), "not asked for");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_by_hand_lasts_for_ever() {
    for face in FACES {
        let rig = Rig::new(face, brittle());
        rig.breaker.force_open();
        advance(Duration::from_secs(86_400)).await;
        assert_eq!((rig.run("SS").await.as_str(), rig.rejection().await), ("xx", None));
        rig.breaker.reset();
        rig.breaker.disable();
        assert_eq!(rig.run("FFFFF").await, "FFFFF");
        assert_eq!((rig.counts(), rig.state()), ((0, 0), State::Disabled));
    }
}

#[tokio::test(start_paused = true)]
async fn in_shadow_mode_it_counts_and_reports_and_never_rejects() {
    for face in FACES {
        let rig = Rig::new(face, by_time().shadow(true));
        assert_eq!(rig.run("FFFFFFF").await, "FFFFFFF");
        assert_eq!(rig.changes.take(), ["closed > open 5/5 slow 0"]);
        // Two that would have been rejected have an end of their own.
        let rejected = rig.ends.take().iter().filter(|end| *end == "rejected").count();
        assert_eq!(rejected, 2);
        advance(5 * SECOND).await;
        assert_eq!(rig.run("SSS").await, "SSS");
        assert_eq!(rig.state(), State::Closed);
        rig.breaker.set_shadow(false);
        assert_eq!(rig.run("FFFFFF").await, "FFFFFx");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_who_isolate_the_second_to_release_ends_it() {
    for face in FACES {
        let rig = Rig::new(face, by_time());
        rig.run("FF").await;
        let (first, second) = (rig.breaker.isolate(), rig.breaker.isolate());
        assert_eq!(rig.rejection().await, None);
        first.release();
        assert_eq!((rig.state(), rig.run("S").await.as_str()), (State::Isolated, "x"));
        drop(second);
        assert_eq!((rig.state(), rig.counts()), (State::Closed, (0, 0)));
        assert_eq!(
            rig.changes.take(),
            ["closed > isolated 2/2 slow 0", "isolated > closed 2/2 slow 0"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_from_before_the_opening_counts_in_no_later_state() {
    for face in FACES {
        for late in [ok(200), down()] {
            let rig = Rig::new(face, brittle().samples(2).success_rate(0.5));
            let [while_open, while_half_open, after_closing] =
                [1, 2, 3].map(|n| rig.begun(late.clone().after(n * SECOND - MS)));
            rig.run("F").await;
            advance(SECOND - MS).await;
            let _ = while_open.await;
            assert_eq!((rig.state(), rig.breaker.snapshot().stale_results), (State::Open, 1));

            advance(MS).await;
            let probe = rig.hanging();
            advance(SECOND - MS).await;
            let _ = while_half_open.await;
            let snapshot = rig.breaker.snapshot();
            assert_eq!((snapshot.state, snapshot.calls), (State::HalfOpen, 0));
            assert_eq!(snapshot.stale_results, 2);
            drop(probe);

            assert_eq!(rig.run("S").await, "S");
            assert_eq!(rig.state(), State::Closed);
            let _ = after_closing.await;
            let snapshot = rig.breaker.snapshot();
            assert_eq!((snapshot.state, snapshot.calls), (State::Closed, 0));
            assert_eq!(snapshot.stale_results, 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_within_a_second_says_nothing_and_one_dropped_later_is_a_failure() {
    for face in FACES {
        let rig = Rig::new(face, CircuitBreaker::builder("payments"));
        let (early, late) = (rig.hanging(), rig.hanging());
        advance(SECOND - MS).await;
        drop(early);
        assert_eq!(rig.counts(), (0, 0));
        advance(MS).await;
        drop(late);
        assert_eq!(rig.counts(), (1, 1));
        assert_eq!(rig.ends.take(), ["abandoned", "abandoned"]);

        let rig = expired(face, CircuitBreaker::builder("payments")).await;
        let early = rig.hanging();
        advance(SECOND - MS).await;
        drop(early);
        assert_eq!(
            (rig.state(), rig.counts(), rig.in_flight()),
            (State::HalfOpen, (0, 0), 0)
        );
        let late = rig.hanging();
        advance(SECOND).await;
        drop(late);
        assert_eq!(
            (rig.state(), rig.counts(), rig.in_flight()),
            (State::HalfOpen, (1, 1), 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn under_an_outer_timeout_a_dependency_that_hangs_opens_it_and_half_open_does_not_stay() {
    for face in FACES {
        let rig = Rig::new(face, CircuitBreaker::builder("payments"));
        let timeout = Timeout::new(2 * SECOND);
        for _ in 0..20 {
            assert_eq!(rig.state(), State::Closed);
            timeout.call(rig.call(hang())).await.unwrap_err();
        }
        assert_eq!(rig.state(), State::Open);
        assert_eq!(rig.sent(), 20);
        advance(10 * SECOND).await;
        for _ in 0..2 {
            timeout.call(rig.call(hang())).await.unwrap_err();
        }
        assert_eq!((rig.state(), rig.in_flight(), rig.sent()), (State::Open, 0, 22));
        advance(10 * SECOND).await;
        assert_eq!(rig.run("SSS").await, "SSS");
        assert_eq!(rig.state(), State::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_export_goes_on_where_it_was() {
    for face in FACES {
        let builder = || by_count(4).minimum_calls(2).open_backoff(Backoff::exponential(SECOND));
        let rig = Rig::new(face, builder());
        rig.run("F").await;
        let other = Rig::new(face, builder());
        other.breaker.restore(&rig.breaker.export()).unwrap();
        assert_eq!(other.counts(), (1, 1));
        assert_eq!(other.run("F").await, "F");
        assert_eq!(other.state(), State::Open);

        // Opened a second time, for two seconds, of which half a second is over.
        advance(SECOND).await;
        other.run("FF").await;
        advance(500 * MS).await;
        rig.breaker.restore(&other.breaker.export()).unwrap();
        assert_eq!(rig.rejection().await, Some(1_500 * MS));
        assert_eq!(rig.breaker.snapshot().openings, 2);
        advance(1_500 * MS).await;
        rig.run("FF").await;
        assert_eq!(rig.rejection().await, Some(4 * SECOND), "the third in a row");
    }
}

#[tokio::test(start_paused = true)]
async fn three_executions_of_a_retry_around_it_open_it_and_the_rejection_is_not_retried() {
    for face in FACES {
        let rig = Rig::new(face, brittle().consecutive_failures(3));
        let retry = Retry::constant(MS).max_attempts(7).build().unwrap();
        let error = retry.call(|| rig.call(down())).await.unwrap_err();
        let rejected = Rejected::find(&error).unwrap();
        assert_eq!(rejected.kind(), RejectedKind::CircuitOpen);
        assert!(rejected.reached_inner(), "three executions were sent");
        assert_eq!(rig.sent(), 3);
    }
    // The same as layers.
    let backend = Backend::new([down()]);
    let service = ServiceBuilder::new()
        .layer(Retry::constant(MS).max_attempts(7).build().unwrap())
        .layer(brittle().consecutive_failures(3).build().unwrap())
        .service(backend.service());
    let error = service.oneshot(()).await.unwrap_err();
    assert!(Rejected::find(&error).unwrap().reached_inner());
    assert_eq!(backend.started(), 3);
}

#[tokio::test(start_paused = true)]
async fn three_executions_of_a_retry_inside_are_one_failure() {
    let breaker = brittle().consecutive_failures(2).build().unwrap();
    let retry = Retry::constant(MS).build().unwrap();
    let backend = Backend::new([down()]);
    breaker.call(retry.call(|| backend.call())).await.unwrap_err();
    assert_eq!((backend.started(), breaker.snapshot().consecutive_failures), (3, 1));
    let service = breaker.layer(retry.layer(service_fn(|()| backend.call())));
    service.oneshot(()).await.unwrap_err();
    assert_eq!((backend.started(), breaker.state()), (6, State::Open));
}
