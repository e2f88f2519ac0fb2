//! How a call is driven, and how its cost is taken.

#![allow(clippy::disallowed_methods, reason = "it is real time that is measured here")]

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tower::Service;

use crate::allocations;
use crate::instructions;
use crate::rows::{Contender, Row};

/// Rounds of a row; each contender has its turn in each of them, so that a slow moment of the machine hits them all.
const ROUNDS: usize = 15;

/// How long one turn lasts, about.
const TURN: Duration = Duration::from_millis(15);

/// What a number of calls took.
pub struct Sample {
    time: Duration,
    allocations: u64,
}

/// What one call costs.
#[derive(Clone, Copy)]
pub struct Measured {
    pub nanoseconds: f64,
    /// `None` where valgrind is not installed.
    pub instructions: Option<u64>,
    pub allocations: u64,
}

/// Measures every contender of a row.
pub fn row(row: &Row) -> Vec<(&Contender, Measured)> {
    let turns: Vec<u64> = row.contenders.iter().map(calls_in_a_turn).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); row.contenders.len()];
    for _ in 0..ROUNDS {
        for ((contender, &calls), times) in row.contenders.iter().zip(&turns).zip(&mut times) {
            times.push(nanoseconds((contender.run)(calls).time, calls));
        }
    }
    row.contenders
        .iter()
        .zip(turns)
        .zip(times)
        .map(|((contender, calls), mut times)| {
            times.sort_by(f64::total_cmp);
            let measured = Measured {
                nanoseconds: times[ROUNDS / 2],
                instructions: instructions::per_call(row.name, contender.name, calls),
                allocations: allocations_per_call(contender, calls),
            };
            (contender, measured)
        })
        .collect()
}

fn calls_in_a_turn(contender: &Contender) -> u64 {
    let mut calls = 1;
    loop {
        let time = (contender.run)(calls).time;
        if time >= TURN / 4 {
            let per_call = nanoseconds(time, calls);
            return ((TURN.as_nanos() as f64 / per_call) as u64).max(5);
        }
        calls *= 4;
    }
}

fn nanoseconds(time: Duration, calls: u64) -> f64 {
    time.as_nanos() as f64 / calls as f64
}

/// Rounded up: an allocation every other call is one too many as well.
fn allocations_per_call(contender: &Contender, calls: u64) -> u64 {
    let calls = calls.min(1_000);
    (contender.run)(calls).allocations.div_ceil(calls)
}

/// A single-threaded runtime, with a timer far away: a new timer that is the earliest of all would wake the driver, which
/// is a system call and drowns what is measured.
pub fn on_runtime<F: Future<Output = Sample>>(run: F) -> Sample {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime can be built");
    runtime.block_on(async {
        let _far = tokio::spawn(tokio::time::sleep(Duration::from_secs(1_000)));
        // The driver looks at its timers once, and learns of the one above.
        tokio::time::sleep(Duration::from_millis(1)).await;
        run.await
    })
}

/// Takes the cost of `calls` calls; a few before them fill the caches.
pub fn each(calls: u64, mut call: impl FnMut(&mut Context<'_>)) -> Sample {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..WARM_UP {
        call(&mut context);
    }
    let before = allocations::so_far();
    let start = Instant::now();
    for _ in 0..calls {
        call(&mut context);
    }
    Sample {
        time: start.elapsed(),
        allocations: allocations::so_far() - before,
    }
}

/// The same for calls that only the runtime can drive to their end.
pub async fn each_awaited<T>(calls: u64, mut call: impl AsyncFnMut() -> T) -> Sample {
    for _ in 0..WARM_UP {
        black_box(call().await);
    }
    let before = allocations::so_far();
    let start = Instant::now();
    for _ in 0..calls {
        black_box(call().await);
    }
    Sample {
        time: start.elapsed(),
        allocations: allocations::so_far() - before,
    }
}

/// Takes what a call costs each of two threads that make `calls` calls at the same time.
pub fn on_two_threads(calls: u64, call: impl Fn(&mut Context<'_>) + Sync) -> Sample {
    let start = Barrier::new(2);
    let run = || {
        let mut context = Context::from_waker(Waker::noop());
        start.wait();
        let begin = Instant::now();
        for _ in 0..calls {
            call(&mut context);
        }
        begin.elapsed()
    };
    let before = allocations::so_far();
    let time = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        let time = run();
        time.max(other.join().expect("it does not panic"))
    });
    // A thread costs allocations of its own; a turn is long enough for them not to count.
    Sample {
        time,
        allocations: (allocations::so_far() - before) / calls.max(1),
    }
}

const WARM_UP: u64 = 3;

/// Drives a call that is ready at the first poll.
#[inline]
pub fn at_once<F: Future>(context: &mut Context<'_>, call: F) {
    match pin!(call).poll(context) {
        Poll::Ready(result) => {
            black_box(result);
        }
        Poll::Pending => unreachable!("the call is ready at once"),
    }
}

/// Drives a call that is ready at the second poll.
#[inline]
pub fn at_the_second_poll<F: Future>(context: &mut Context<'_>, call: F) {
    let mut call = pin!(call);
    assert!(call.as_mut().poll(context).is_pending());
    match call.poll(context) {
        Poll::Ready(result) => {
            black_box(result);
        }
        Poll::Pending => unreachable!("the call is pending once"),
    }
}

/// A request through a Tower service that is ready, and whose response is.
#[inline]
pub fn request_at_once<S: Service<u64>>(context: &mut Context<'_>, service: &mut S) {
    assert!(service.poll_ready(context).is_ready());
    at_once(context, service.call(black_box(7)));
}
