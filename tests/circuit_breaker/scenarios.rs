//! Both faces, run through one table and through random histories: they have to agree on results, on what was sent, on
//! the time that passed, and on what the breaker knows afterwards.

use proptest::prelude::*;
use steadfast::Backoff;
use steadfast::circuit_breaker::{Abandoned, Snapshot};

use super::support::busy_for;
use super::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// A call that is waited for.
    Call(Step),
    /// A call that is polled once and left under way.
    Begin(Step),
    /// The oldest call that is under way is waited for, or dropped.
    Finish,
    Drop,
    Wait(Duration),
    ByHand(fn(&Breaker)),
}

use Act::{Begin, ByHand, Call as Do, Drop, Finish, Wait};

/// What can be seen of a history from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    results: Vec<String>,
    sent: u32,
    elapsed: Duration,
    changes: Vec<String>,
    ends: Vec<String>,
    snapshot: Snapshot,
}

async fn run(face: Face, builder: CircuitBreakerBuilder, acts: &[Act]) -> Seen {
    let rig = Rig::new(face, builder);
    let started = Instant::now();
    let (mut results, mut live) = (Vec::new(), std::collections::VecDeque::new());
    for act in acts {
        let ended = match act {
            Do(step) => Some(rig.call(step.clone()).await),
            Begin(step) => {
                let mut call = rig.call(step.clone());
                match poll(&mut call) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => {
                        live.push_back(call);
                        None
                    }
                }
            }
            Finish => match live.pop_front() {
                Some(call) => tokio::time::timeout(60 * SECOND, call).await.ok(),
                None => None,
            },
            Drop => {
                drop(live.pop_front());
                None
            }
            Wait(time) => {
                advance(*time).await;
                None
            }
            ByHand(act) => {
                act(&rig.breaker);
                None
            }
        };
        results.extend(ended.map(|result| format!("{result:?}")));
    }
    live.clear();
    Seen {
        results,
        sent: rig.sent(),
        elapsed: started.elapsed(),
        changes: rig.changes.take(),
        ends: rig.ends.take(),
        snapshot: rig.breaker.snapshot(),
    }
}

async fn both(builder: CircuitBreakerBuilder, acts: &[Act]) -> Seen {
    let plain = run(Face::Plain, builder.clone(), acts).await;
    let tower = run(Face::Tower, builder, acts).await;
    assert_eq!(plain, tower, "{acts:?}");
    plain
}

struct Case {
    name: &'static str,
    builder: CircuitBreakerBuilder,
    acts: Vec<Act>,
    ends: &'static str,
    sent: u32,
    elapsed: Duration,
    state: State,
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let case = |name, builder, acts, ends, sent, elapsed, state| Case {
        name,
        builder,
        acts,
        ends,
        sent,
        elapsed,
        state,
    };
    let fails = || Do(down());
    let succeeds = || Do(ok(200));
    vec![
        case(
            "a closed breaker lets everything through",
            by_count(10),
            vec![succeeds(), Do(ok(200).after(SECOND)), Do(ok(IGNORED))],
            "success success ignored",
            3,
            SECOND,
            State::Closed,
        ),
        case(
            "an open one rejects in no time",
            brittle(),
            vec![Do(down().after(SECOND)), succeeds(), succeeds()],
            "failure rejected rejected",
            1,
            SECOND,
            State::Open,
        ),
        case(
            "a probe closes it",
            brittle(),
            vec![fails(), Wait(SECOND), Do(ok(200).after(2 * SECOND)), succeeds()],
            "failure success success",
            3,
            3 * SECOND,
            State::Closed,
        ),
        case(
            "a probe opens it again",
            brittle(),
            vec![fails(), Wait(SECOND), fails(), succeeds()],
            "failure failure rejected",
            2,
            SECOND,
            State::Open,
        ),
        case(
            "beside its probe everything is rejected",
            brittle(),
            vec![
                fails(),
                Wait(SECOND),
                Begin(ok(200).after(SECOND)),
                succeeds(),
                Finish,
                succeeds(),
            ],
            "failure rejected success success",
            3,
            2 * SECOND,
            State::Closed,
        ),
        case(
            "a probe that is dropped makes room",
            brittle(),
            vec![fails(), Wait(SECOND), Begin(hang()), Drop, succeeds()],
            "failure abandoned success",
            3,
            SECOND,
            State::Closed,
        ),
        case(
            "a probe that is dropped late has failed",
            brittle(),
            vec![fails(), Wait(SECOND), Begin(hang()), Wait(SECOND), Drop, succeeds()],
            "failure abandoned rejected",
            2,
            2 * SECOND,
            State::Open,
        ),
        case(
            "a probe that hangs is given up, and its late answer is nothing",
            brittle().max_probe_time(SECOND),
            vec![
                fails(),
                Wait(SECOND),
                Begin(ok(200).after(3 * SECOND)),
                Wait(SECOND),
                succeeds(),
                Finish,
                succeeds(),
            ],
            "failure rejected success success",
            3,
            4 * SECOND,
            State::Closed,
        ),
        case(
            "a success from before the outage is nothing",
            brittle(),
            vec![Begin(ok(200).after(MS)), fails(), Finish, succeeds()],
            "failure success rejected",
            2,
            MS,
            State::Open,
        ),
        case(
            "a failure may say how long",
            brittle().use_retry_after(true),
            vec![
                Do(busy_for(3 * SECOND)),
                Wait(2 * SECOND),
                succeeds(),
                Wait(SECOND),
                succeeds(),
            ],
            "failure rejected success",
            2,
            3 * SECOND,
            State::Closed,
        ),
        case(
            "what is forced open rejects until a reset",
            brittle(),
            vec![
                ByHand(CircuitBreaker::force_open),
                Wait(60 * SECOND),
                succeeds(),
                ByHand(CircuitBreaker::reset),
                succeeds(),
            ],
            "rejected success",
            1,
            60 * SECOND,
            State::Closed,
        ),
        case(
            "what is disabled counts nothing",
            brittle(),
            vec![ByHand(CircuitBreaker::disable), fails(), fails()],
            "failure failure",
            2,
            ZERO,
            State::Disabled,
        ),
        case(
            "a shadow rejects nothing",
            brittle().shadow(true),
            vec![fails(), succeeds()],
            "failure rejected success",
            2,
            ZERO,
            State::Open,
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn both_faces_do_what_the_table_says() {
    for case in cases() {
        let seen = both(case.builder, &case.acts).await;
        assert_eq!(seen.ends.join(" "), case.ends, "{}", case.name);
        assert_eq!((seen.sent, seen.elapsed), (case.sent, case.elapsed), "{}", case.name);
        assert_eq!(seen.snapshot.state, case.state, "{}", case.name);
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let delays = [ZERO, ZERO, MS, SECOND, 5 * SECOND];
    let steps = prop_oneof![
        3 => Just(ok(200)),
        3 => Just(down()),
        1 => Just(ok(IGNORED)),
        1 => Just(busy_for(2 * SECOND)),
    ];
    (steps, prop::sample::select(delays.to_vec())).prop_map(|(step, delay)| step.after(delay))
}

fn any_act() -> impl Strategy<Value = Act> {
    let by_hand: [fn(&Breaker); 7] = [
        CircuitBreaker::force_open,
        CircuitBreaker::force_closed,
        CircuitBreaker::disable,
        CircuitBreaker::reset,
        |breaker| breaker.set_shadow(!breaker.is_shadow()),
        |breaker| drop(breaker.isolate()),
        |breaker| breaker.restore(&breaker.export()).unwrap(),
    ];
    prop_oneof![
        8 => any_step().prop_map(Do),
        6 => any_step().prop_map(Begin),
        1 => Just(Begin(hang())),
        4 => Just(Finish),
        3 => Just(Drop),
        4 => prop::sample::select(vec![MS, 500 * MS, SECOND, 3 * SECOND]).prop_map(Wait),
        1 => prop::sample::select(by_hand.to_vec()).prop_map(ByHand),
    ]
}

fn any_builder() -> impl Strategy<Value = CircuitBreakerBuilder> {
    let kinds: [fn() -> CircuitBreakerBuilder; 4] = [
        || by_count(4).minimum_calls(2),
        || by_time().minimum_calls(2),
        brittle,
        || by_count(8).slow_call_rate(0.5).slow_call_duration(SECOND),
    ];
    let abandoned = [
        Abandoned::Ignore,
        Abandoned::Failure,
        Abandoned::FailureAfter(ZERO),
        Abandoned::FailureAfter(SECOND),
    ];
    (
        prop::sample::select(kinds.to_vec()),
        prop::sample::select(abandoned.to_vec()),
        1..4_u32,
        any::<(bool, bool)>(),
    )
        .prop_map(|(kind, abandoned, samples, (hints, shadow))| {
            kind()
                .open_backoff(Backoff::exponential(SECOND))
                .max_probe_time(3 * SECOND)
                .abandoned(abandoned)
                .samples(samples)
                .use_retry_after(hints)
                .shadow(shadow)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn both_faces_agree_over_random_histories(
        builder in any_builder(),
        acts in prop::collection::vec(any_act(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(both(builder, &acts));
    }
}
