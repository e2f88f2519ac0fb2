//! What is compared: one row per question, one contender per answer.

mod bulkhead;
mod circuit_breaker;
mod fallback;
mod inner;
mod retry;
mod stack;
mod timeout;

use std::hint::black_box;

use crate::measure::{Sample, at_once, each, on_runtime};

/// One question: what does this cost?
pub struct Row {
    pub name: &'static str,
    pub limit: Limit,
    pub contenders: Vec<Contender>,
}

/// What is asked of our instruction count, besides being below the peers'.
#[derive(Clone, Copy, PartialEq)]
pub enum Limit {
    /// Nothing, not even that.
    None,
    /// At most twice that of a prototype which does no more than it has to, and 20.
    Prototype(u64),
    /// The same, and it is missed: at most what was reached. `benches/README.md` says why it is not less.
    Missed { prototype: u64, reached: u64 },
    /// That none of ours differs from the first of them by more than so many percent.
    Flat { percent: u64 },
    /// At most so many percent of that of one peer; the others do not matter.
    Peer { name: &'static str, percent: u64 },
}

/// One answer.
pub struct Contender {
    pub name: &'static str,
    pub ours: bool,
    /// Whether we need not be below it.
    pub may_be_below: bool,
    /// Makes so many calls.
    pub run: fn(u64) -> Sample,
}

fn ours(name: &'static str, run: fn(u64) -> Sample) -> Contender {
    Contender {
        name,
        ours: true,
        may_be_below: false,
        run,
    }
}

fn peer(name: &'static str, run: fn(u64) -> Sample) -> Contender {
    Contender {
        name,
        ours: false,
        may_be_below: false,
        run,
    }
}

pub fn all() -> Vec<Row> {
    let bare = Row {
        name: "nothing around the call",
        limit: Limit::None,
        contenders: vec![
            peer("the bare future", bare),
            peer("`Box::pin` of it", boxed),
            peer("`tokio::time::Instant::now`", clock),
        ],
    };
    let mut rows = vec![bare];
    rows.extend(retry::rows());
    rows.extend(circuit_breaker::rows());
    rows.extend(timeout::rows());
    rows.extend(fallback::rows());
    rows.extend(bulkhead::rows());
    rows.extend(stack::rows());
    rows
}

fn bare(calls: u64) -> Sample {
    on_runtime(async { each(calls, |context| at_once(context, inner::call())) })
}

fn boxed(calls: u64) -> Sample {
    on_runtime(async {
        each(calls, |context| {
            let call: std::pin::Pin<Box<dyn Future<Output = _>>> = Box::pin(inner::call());
            at_once(context, black_box(call));
        })
    })
}

fn clock(calls: u64) -> Sample {
    on_runtime(async {
        each(calls, |_| {
            black_box(tokio::time::Instant::now());
        })
    })
}
