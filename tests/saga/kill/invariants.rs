//! What has to be true of a saga, whenever its process was killed and however often: I1 to I7.

use std::path::Path;

use steadfast::saga::journal::Loaded;
use steadfast::saga::{Event, Known};

use super::scenario::Scenario;
use super::world::{Call, World};

const STEPS: [&str; 3] = ["a", "b", "c"];

/// An event as it is written, and the context that a step sees after it.
struct Written {
    event: Event,
    epoch: u64,
    context: String,
}

/// A saga that is over, as its journal and the world have it.
pub(super) struct Traces<'t> {
    scenario: Scenario,
    loaded: &'t Loaded,
    log: Vec<Written>,
    calls: Vec<Call>,
    live: Vec<String>,
}

impl<'t> Traces<'t> {
    pub(super) fn new(scenario: Scenario, loaded: &'t Loaded, place: &Path) -> Self {
        let world = World::open(place);
        let saga = loaded.head.id.to_string();
        let mut context = String::new();
        let entries = loaded.entries.iter().map(|stored| {
            if let Some(bytes) = &stored.entry.context {
                context = String::from_utf8(bytes.to_vec()).unwrap();
            }
            Written {
                event: serde_json::from_slice(&stored.entry.event).unwrap(),
                epoch: stored.epoch,
                context: context.clone(),
            }
        });
        let mut live = world.live(&saga);
        if scenario.local {
            live.extend(vec!["b".to_owned(); world.bookings.count(&saga)]);
            live.sort();
        }
        Self {
            scenario,
            loaded,
            log: entries.collect(),
            calls: world.calls(&saga),
            live,
        }
    }

    /// `end` is what the caller was told.
    pub(super) fn hold(&self, end: &str) {
        assert!(self.scenario.ends.contains(&end), "{} ended {end}", self.scenario.name);
        self.everything_or_nothing_is_there(end);
        self.undos_go_backward_and_nothing_is_done_after_the_first();
        self.every_key_is_sent_with_one_step_and_its_effect_is_there_once();
        self.the_log_is_whole_and_has_one_end();
        self.every_run_was_written_down_before_and_sees_the_context_written_last();
    }

    /// I1, I2: and of a saga that is stuck, what it says is left is left, and nothing else.
    fn everything_or_nothing_is_there(&self, end: &str) {
        let expected: &[&str] = match end {
            "completed" => &STEPS,
            "compensated" => &[],
            "stuck not_undone b" => &["b"],
            // It was laid to rest where it stood.
            "stuck crash_loop b" => &["a"],
            other => panic!("no such end: {other}"),
        };
        assert_eq!(self.live, expected);
    }

    /// I3. The direction is changed once: what comes after a crash goes on in it.
    fn undos_go_backward_and_nothing_is_done_after_the_first(&self) {
        let mut undone: Vec<&str> = Vec::new();
        for call in &self.calls {
            if call.verb == "undo" {
                if !undone.contains(&call.step.as_str()) {
                    undone.push(&call.step);
                }
            } else {
                assert!(undone.is_empty(), "{} was done after {undone:?} were undone", call.step);
            }
        }
        assert!(undone.is_sorted_by(|a, b| a > b), "undone in this order: {undone:?}");
        let turned = self
            .log
            .iter()
            .position(|written| matches!(written.event, Event::Unwinding { .. }));
        let after = turned.map_or(&[][..], |turned| &self.log[turned + 1..]);
        let again = |written: &Written| matches!(written.event, Event::Started { .. } | Event::Unwinding { .. });
        assert!(!after.iter().any(again), "it went forward again");
        let pivot = |written: &Written| matches!(&written.event, Event::Succeeded { step } if step == "b");
        if self.scenario.pivot && self.log.iter().any(pivot) {
            assert!(turned.is_none() && undone.is_empty(), "it turned back after its pivot");
        }
    }

    /// I4.
    fn every_key_is_sent_with_one_step_and_its_effect_is_there_once(&self) {
        let saga = self.loaded.head.id;
        for call in &self.calls {
            let Call { step, verb, .. } = call;
            assert_eq!(call.key, format!("{saga}:1:{step}:{verb}"));
            assert_eq!(call.action_key, format!("{saga}:1:{step}:do"));
        }
    }

    /// I5, and the part of I7 that a journal can tell: no event is of an older epoch than the one before it.
    fn the_log_is_whole_and_has_one_end(&self) {
        let entries = &self.loaded.entries;
        assert!((0..).zip(entries).all(|(seq, stored)| stored.seq == seq));
        assert_eq!(u64::try_from(entries.len()), Ok(self.loaded.head.seq));
        assert!(self.log.is_sorted_by_key(|written| written.epoch));
        let ends = self
            .log
            .iter()
            .filter(|written| matches!(written.event, Event::Finished { .. }));
        assert_eq!(ends.count(), 1);
    }

    /// I6 and I7: each run has an event of its own, of its own epoch.
    fn every_run_was_written_down_before_and_sees_the_context_written_last(&self) {
        let mut starts: Vec<&Written> = self.log.iter().collect();
        for call in &self.calls {
            if self.scenario.local && call.step == "b" && call.verb == "do" {
                // It is written down together with its effect; and a run of which nothing is left may be repeated.
                continue;
            }
            let before = starts.iter().position(|written| {
                let started = match &written.event {
                    Event::Started { step } => call.verb == "do" && *step == call.step,
                    Event::UndoStarted { step, outcome } => {
                        let told = match outcome {
                            Known::Completed => "completed",
                            Known::Unknown => "unknown",
                        };
                        call.verb == "undo" && *step == call.step && told == call.outcome
                    }
                    _ => false,
                };
                started && written.epoch == u64::from(call.epoch) && written.context == call.context
            });
            let before =
                before.unwrap_or_else(|| panic!("{}: nothing was written before {call:?}", self.scenario.name));
            starts.remove(before);
        }
    }
}

/// I5: what was written stays, and more comes after it.
pub(super) fn goes_on(before: &Loaded, after: &Loaded) {
    assert_eq!(before.entries, after.entries[..before.entries.len()]);
    assert!(before.head.epoch <= after.head.epoch);
}
