//! Every interleaving of the parts of steadfast that threads share.
//!
//! Each model runs on the real source, which has to pass, and on seeded defects, each of which has to be caught:
//! `STEADFAST_DEFECT=name cargo test` runs the models on one of them. The models are functions of a library, and the
//! tests call them, so that the source is included without its own unit tests.

// A check of all targets would build the library's own, empty tests.
#![cfg(not(test))]
#![allow(dead_code, reason = "the models use a part of each source")]

#[path = "../../../src/sync.rs"]
mod sync;

#[path = "../../../src/retry/ledger.rs"]
mod ledger;

#[path = "../../../src/bulkhead/queue.rs"]
mod queue;

#[path = "../../../src/bulkhead/semaphore.rs"]
mod semaphore;

#[path = "../../../src/circuit_breaker"]
mod breaker {
    pub(crate) mod by_hand;
    pub(crate) mod cell;
    pub(crate) mod control;
    pub(crate) mod count_window;
    pub(crate) mod machine;
    pub(crate) mod outside;
    pub(crate) mod packed;
    pub(crate) mod ring;
    pub(crate) mod state;
    pub(crate) mod streak;
    pub(crate) mod time_window;
    pub(crate) mod window;
}

pub mod bulkhead;
pub mod circuit_breaker;
pub mod retry_budget;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::model::Builder;

/// Where the threads of a model start.
///
/// loom 0.7.2 runs one interleaving only if the first step of a spawned thread is an atomic load; with a shared
/// read-modify-write before it, it explores all.
pub(crate) struct Gate(loom::sync::atomic::AtomicUsize);

impl Gate {
    pub(crate) fn pass(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Runs `model` in every interleaving, and says in how many.
pub(crate) fn explore(name: &str, model: impl Fn(Arc<Gate>) + Send + Sync + 'static) -> usize {
    explore_as(&Builder::new(), name, model)
}

/// The same in the interleavings with so many preemptions at most, or as many as `LOOM_MAX_PREEMPTIONS` says.
pub(crate) fn explore_within(
    preemptions: usize,
    name: &str,
    model: impl Fn(Arc<Gate>) + Send + Sync + 'static,
) -> usize {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    explore_as(&builder, name, model)
}

fn explore_as(builder: &Builder, name: &str, model: impl Fn(Arc<Gate>) + Send + Sync + 'static) -> usize {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model(Arc::new(Gate(loom::sync::atomic::AtomicUsize::new(0))));
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("{name}: {runs} interleavings");
    println!("figure: interleavings explored: {runs}");
    assert!(runs > 1, "{name}: nothing was explored");
    runs
}

/// Runs `left` and `right` in two threads of a model, and gives both results.
pub(crate) fn both<T: 'static, U: 'static>(
    gate: &Arc<Gate>,
    left: impl FnOnce() -> T + 'static,
    right: impl FnOnce() -> U + 'static,
) -> (T, U) {
    let entry = Arc::clone(gate);
    let left = loom::thread::spawn(move || {
        entry.pass();
        left()
    });
    let entry = Arc::clone(gate);
    let right = loom::thread::spawn(move || {
        entry.pass();
        right()
    });
    (left.join().unwrap(), right.join().unwrap())
}
