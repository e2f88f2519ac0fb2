//! What an operator may decide, and what becomes of it.
//!
//! | verb | stuck on the way forward | stuck on the way back | under way | at its end |
//! |---|---|---|---|---|
//! | retry | the open step has all its attempts again | so has every undo that failed | refused | refused |
//! | compensate | turns back, unless the pivot has happened or may have | as retry | refused | refused |
//! | resolve done | the open step has succeeded | the step is to be undone, as one that succeeded | refused | refused |
//! | resolve never | the open step has no effect | the step counts as undone | refused | refused |
//! | skip | refused | the step is left as it is; the saga ends abandoned | refused | refused |
//! | cancel | refused | refused | turns back, unless the pivot has happened or may have | refused |
//! | abandon | given up | given up | given up | refused |
//!
//! The open step is the first that has not succeeded. On the way back a step can be resolved or skipped if its undo was
//! begun, or if nobody knows whether it has happened. None of this asks for policies, which may change while a saga is
//! under way: what was allowed once stays allowed whenever the events are read again.

use super::super::event::{Reality, Reason, SagaEnd, Verb};
use super::super::plan::Plan;
use super::state::{Direction, Phase, State};
use crate::Effect;

/// Why a verb is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The saga is at its end.
    #[error("it is at its end")]
    Ended,
    /// The saga is under way.
    #[error("it is not stuck")]
    NotStuck,
    /// The saga is stuck, and cannot be cancelled any more.
    #[error("it is stuck")]
    Stuck,
    /// The saga is on its way back already.
    #[error("it is on its way back already")]
    TurnedBack,
    /// The pivot has happened, or may have: there is no way back.
    #[error("its pivot has happened, or may have")]
    PastPivot,
    /// Nothing is left out on the way forward: a saga never counts as completed with a step undone.
    #[error("it is on its way forward, where no step can be left out")]
    Forward,
    /// The saga has no such step.
    #[error("it has no step `{step}`")]
    NoSuchStep {
        /// What was taken for the name of one.
        step: String,
    },
    /// What became of the step is known, or it is not its turn.
    #[error("step `{step}` is not what it is stuck at")]
    NotOpen {
        /// The name of the step.
        step: String,
    },
    /// The saga would be stuck again at once, in the same place.
    #[error("it would be stuck again at once: there is nothing to try")]
    NoUse,
    /// The participant may have forgotten the key of the step, and would do it a second time.
    #[error("the key of step `{step}` is so old that its participant may have forgotten it: force it, or resolve it")]
    KeyExpired {
        /// The name of the step.
        step: String,
    },
    /// The events cannot have happened: nothing but giving up is possible.
    #[error("its events cannot have happened")]
    Corrupt,
    /// The events do not tell the steps of the saga: it was started before they did.
    #[error("its events do not tell its steps")]
    NoPlan,
}

impl State {
    /// Whether an operator may decide so.
    pub(crate) fn permits(&self, plan: &Plan, verb: &Verb) -> Result<(), Refusal> {
        let forward = self.direction == Direction::Forward;
        match (self.end, verb) {
            (Some(SagaEnd::Completed | SagaEnd::Compensated | SagaEnd::Abandoned), _) => return Err(Refusal::Ended),
            (_, Verb::Abandon) => return Ok(()),
            _ if self.corrupt => return Err(Refusal::Corrupt),
            (Some(SagaEnd::Stuck), Verb::Cancel) => return Err(Refusal::Stuck),
            (None, Verb::Cancel) if !forward => return Err(Refusal::TurnedBack),
            (Some(SagaEnd::Stuck), _) | (None, Verb::Cancel) => {}
            (None, _) => return Err(Refusal::NotStuck),
        }
        match verb {
            Verb::Compensate | Verb::Cancel if forward && !self.may_unwind(plan) => Err(Refusal::PastPivot),
            Verb::Skip { .. } if forward => Err(Refusal::Forward),
            Verb::ResolveDone { step } | Verb::ResolveNever { step } | Verb::Skip { step } => {
                self.open(plan, step).map(drop)
            }
            Verb::Retry { .. } | Verb::Compensate | Verb::Cancel | Verb::Abandon => Ok(()),
        }
    }

    pub(super) fn operate(&mut self, plan: &Plan, verb: &Verb) -> Result<(), Refusal> {
        self.permits(plan, verb)?;
        let forward = self.direction == Direction::Forward;
        match verb {
            Verb::Abandon => self.abandoned = true,
            Verb::Retry { force } if forward => {
                self.forced = *force;
                self.retry_step();
            }
            Verb::Retry { .. } => self.retry_undos(),
            Verb::Cancel => self.direction = Direction::Backward(Reason::Cancelled),
            Verb::Compensate => {
                if forward {
                    self.direction = Direction::Backward(Reason::Operator);
                }
                self.retry_undos();
            }
            Verb::ResolveDone { step } | Verb::ResolveNever { step } => {
                let done = matches!(verb, Verb::ResolveDone { .. });
                let index = self.open(plan, step)?;
                let step = &mut self.steps[index];
                step.reconciled = true;
                step.undo_failures = 0;
                step.maybe = done;
                step.phase = match (done, forward) {
                    (true, _) => Phase::Succeeded,
                    (false, true) => Phase::Reconciled(Reality::Never),
                    (false, false) => Phase::Undone,
                };
                self.forced = false;
            }
            Verb::Skip { step } => {
                let index = self.open(plan, step)?;
                self.steps[index].phase = Phase::Skipped;
            }
        }
        self.end = None;
        self.obstacle = None;
        Ok(())
    }

    /// The step of that name, if it is one that an operator can say something about.
    fn open(&self, plan: &Plan, name: &str) -> Result<usize, Refusal> {
        let step = name.to_owned();
        let Some(index) = plan.index(name) else {
            return Err(Refusal::NoSuchStep { step });
        };
        let at = &self.steps[index];
        let open = if self.direction == Direction::Forward {
            self.first_open() == Some(index) && at.phase != Phase::Untouched
        } else {
            matches!(at.phase, Phase::UndoFailed { .. } | Phase::Undoing(_)) || at.is_unknown()
        };
        open.then_some(index).ok_or(Refusal::NotOpen { step })
    }

    /// The first step that has not succeeded.
    pub(crate) fn first_open(&self) -> Option<usize> {
        self.steps.iter().position(|step| !step.is_done())
    }

    fn retry_step(&mut self) {
        let Some(step) = self.first_open().map(|step| &mut self.steps[step]) else {
            return;
        };
        let effect = if step.is_unknown() { Effect::Maybe } else { Effect::None };
        step.maybe |= effect == Effect::Maybe;
        step.failures = 0;
        step.reconciled = false;
        if step.phase != Phase::Untouched {
            step.phase = Phase::Failed {
                effect,
                retryable: true,
            };
        }
    }

    /// Every undo has all its attempts again, and every hook is asked again.
    fn retry_undos(&mut self) {
        for step in &mut self.steps {
            step.undo_failures = 0;
            step.reconciled = step.reconciled && !step.is_unknown();
            if let Phase::UndoFailed { last, .. } = &mut step.phase {
                *last = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::event::{Event, Known, Obstacle};
    use super::super::super::plan::{StepKind, StepPlan, WhenInterrupted, WhenUnknown};
    use super::super::{Circumstances, Next, decide, model};
    use super::*;

    fn plan() -> Plan {
        let step = |name, kind| StepPlan {
            attempts: 1,
            undo_attempts: 1,
            when_interrupted: WhenInterrupted::Stick,
            ..model::step(name, kind)
        };
        model::plan(vec![
            step("a", StepKind::Compensatable),
            step("b", StepKind::Compensatable),
            step("p", StepKind::Pivot),
            step("r", StepKind::Retriable),
        ])
    }

    /// A log in the words of the specification: `S`tarted, `+` succeeded, `-` failed, `?` in doubt, `U` turned back,
    /// `s` undo started, `~` undone, `x` its undo failed for good, `F` stuck, `K` crashed too often.
    fn after(log: &str) -> State {
        let (plan, mut state) = (plan(), State::new(&plan()));
        state.apply(&plan, &Event::Created { plan: plan.clone() });
        for word in log.split_whitespace() {
            let (event, step) = word.split_at(1);
            let step = step.to_owned();
            let failed = |step, effect| Event::Failed {
                step,
                effect,
                retryable: false,
                settles: false,
                error: String::new(),
            };
            let stuck = |obstacle| Event::Finished {
                end: SagaEnd::Stuck,
                obstacle: Some(obstacle),
            };
            let outcome = Known::Completed;
            let event = match event {
                "S" => Event::Started { step },
                "+" => Event::Succeeded { step },
                "-" => failed(step, Effect::None),
                "?" => failed(step, Effect::Maybe),
                "U" => Event::Unwinding {
                    reason: Reason::Failed { step },
                },
                "s" => Event::UndoStarted { step, outcome },
                "~" => Event::UndoSucceeded { step },
                "x" => Event::UndoFailed {
                    step,
                    error: String::new(),
                    last: true,
                },
                "F" => stuck(Obstacle::NotUndone),
                "K" => stuck(Obstacle::CrashLoop),
                "E" => Event::Finished {
                    end: SagaEnd::Compensated,
                    obstacle: None,
                },
                _ => unreachable!("{word}"),
            };
            state.apply(&plan, &event);
            assert!(!state.corrupt, "{word} in {log}");
        }
        state
    }

    fn verbs(step: &str) -> [Verb; 7] {
        let step = step.to_owned();
        [
            Verb::Retry { force: false },
            Verb::Compensate,
            Verb::ResolveDone { step: step.clone() },
            Verb::ResolveNever { step: step.clone() },
            Verb::Skip { step },
            Verb::Cancel,
            Verb::Abandon,
        ]
    }

    /// The table at the top of this module, cell by cell; `None` is permitted.
    #[test]
    #[allow(clippy::too_many_lines, reason = "it is one table")]
    fn the_table_says_what_is_permitted() {
        use Refusal::{Ended, Forward, NotStuck, PastPivot, Stuck, TurnedBack};
        let not_open = |step: &str| Some(Refusal::NotOpen { step: step.to_owned() });
        let none = || Some(NotStuck);
        let ended = || Some(Ended);
        let rows = [
            ("Sa", "a", [none(), none(), none(), none(), none(), None, None]),
            (
                "Sa +a Sb +b Sp",
                "p",
                [none(), none(), none(), none(), none(), Some(PastPivot), None],
            ),
            (
                "Sa +a Sb -b Ub",
                "a",
                [none(), none(), none(), none(), none(), Some(TurnedBack), None],
            ),
            ("Sa F", "a", [None, None, None, None, Some(Forward), Some(Stuck), None]),
            (
                "Sa F",
                "b",
                [
                    None,
                    None,
                    not_open("b"),
                    not_open("b"),
                    Some(Forward),
                    Some(Stuck),
                    None,
                ],
            ),
            (
                "Sa +a K",
                "b",
                [
                    None,
                    None,
                    not_open("b"),
                    not_open("b"),
                    Some(Forward),
                    Some(Stuck),
                    None,
                ],
            ),
            (
                "Sa +a Sb +b Sp ?p F",
                "p",
                [None, Some(PastPivot), None, None, Some(Forward), Some(Stuck), None],
            ),
            (
                "Sa +a Sb +b Sp -p K",
                "p",
                [None, None, None, None, Some(Forward), Some(Stuck), None],
            ),
            (
                "Sa +a Sb +b Sp +p Sr -r F",
                "r",
                [None, Some(PastPivot), None, None, Some(Forward), Some(Stuck), None],
            ),
            (
                "Sa +a Sb +b Sp +p Sr -r F",
                "a",
                [
                    None,
                    Some(PastPivot),
                    not_open("a"),
                    not_open("a"),
                    Some(Forward),
                    Some(Stuck),
                    None,
                ],
            ),
            (
                "Sa +a Sb -b Ub sa xa F",
                "a",
                [None, None, None, None, None, Some(Stuck), None],
            ),
            (
                "Sa +a Sb -b Ub sa xa F",
                "b",
                [
                    None,
                    None,
                    not_open("b"),
                    not_open("b"),
                    not_open("b"),
                    Some(Stuck),
                    None,
                ],
            ),
            (
                "Sa +a Sb -b Ub sa K",
                "a",
                [None, None, None, None, None, Some(Stuck), None],
            ),
            (
                "Sa -a Ua E",
                "a",
                [ended(), ended(), ended(), ended(), ended(), ended(), ended()],
            ),
        ];
        for (log, step, answers) in rows {
            let state = after(log);
            for (verb, expected) in verbs(step).into_iter().zip(answers) {
                assert_eq!(state.permits(&plan(), &verb).err(), expected, "{verb:?} after {log}");
            }
        }
        let nobody = Verb::Skip { step: "z".to_owned() };
        let refused = after("Sa +a Sb -b Ub sa xa F").permits(&plan(), &nobody);
        assert_eq!(refused, Err(Refusal::NoSuchStep { step: "z".to_owned() }));
    }

    /// What the saga does next, once an operator has said so.
    fn next(log: &str, verb: &Verb) -> Next {
        let mut state = after(log);
        state.operate(&plan(), verb).expect("permitted");
        decide(&plan(), &state, Circumstances::default())
    }

    #[test]
    fn what_failed_is_tried_again_with_all_its_attempts() {
        let retry = || Verb::Retry { force: false };
        let again = |step| Next::Start { step, failures: 0 };
        assert_eq!(next("Sa F", &retry()), again(0));
        assert_eq!(next("Sa +a Sb +b Sp ?p F", &retry()), again(2));
        assert_eq!(next("Sa +a Sb +b Sp +p Sr -r F", &retry()), again(3));
        // Also what its crashes have kept from its start, or from its end.
        assert_eq!(next("Sa +a K", &retry()), again(1));
        let all = "Sa +a Sb +b Sp +p Sr +r K";
        assert!(matches!(
            next(all, &retry()),
            Next::Finish {
                end: SagaEnd::Completed,
                ..
            }
        ));
    }

    #[test]
    fn a_pivot_that_will_never_happen_turns_the_saga_back() {
        let step = "p".to_owned();
        let next = next("Sa +a Sb +b Sp ?p F", &Verb::ResolveNever { step: step.clone() });
        let reason = Reason::Failed { step };
        assert_eq!(next, Next::Unwind { reason });
    }

    #[test]
    fn what_never_happened_is_in_doubt_no_more() {
        let step = || "r".to_owned();
        let mut state = after("Sa +a Sb +b Sp +p Sr ?r F");
        for verb in [Verb::ResolveNever { step: step() }, Verb::Retry { force: false }] {
            state.operate(&plan(), &verb).expect("permitted");
            assert!(!state.steps[3].is_unknown(), "{verb:?}");
            state.end = Some(SagaEnd::Stuck);
        }
    }

    #[test]
    fn a_hook_that_could_not_say_is_asked_again() {
        let mut plan = plan();
        let hook = |step: &StepPlan| StepPlan {
            can_reconcile: true,
            when_unknown: WhenUnknown::Stick,
            ..step.clone()
        };
        plan.steps = plan.steps.iter().map(hook).collect();
        let mut state = after("Sa F");
        let step = || "a".to_owned();
        for verb in [Verb::Compensate, Verb::Compensate, Verb::Retry { force: false }] {
            state.operate(&plan, &verb).expect("permitted");
            let next = decide(&plan, &state, Circumstances::default());
            assert_eq!(next, Next::Reconcile { step: 0 }, "{verb:?}");
            let reality = Reality::Unknown;
            for event in [
                Event::Reconciled { step: step(), reality },
                Event::Finished {
                    end: SagaEnd::Stuck,
                    obstacle: Some(Obstacle::NotUndone),
                },
            ] {
                state.apply(&plan, &event);
            }
        }
        assert!(!state.corrupt);
        // On the way forward too, where a key that is too old keeps the step from being run again.
        let mut state = after("Sa");
        let reality = Reality::Unknown;
        state.apply(&plan, &Event::Reconciled { step: step(), reality });
        state.end = Some(SagaEnd::Stuck);
        state.operate(&plan, &Verb::Retry { force: false }).expect("permitted");
        let old = Circumstances {
            key_expired: true,
            stop: None,
        };
        assert_eq!(decide(&plan, &state, old), Next::Reconcile { step: 0 });
    }

    #[test]
    fn of_several_undos_only_the_one_that_failed_is_run_again() {
        let log = "Sa +a Sb +b Sp -p Up sb xb sa ~a F";
        let undo = |step| Next::Undo {
            step,
            outcome: Known::Completed,
            failures: 0,
        };
        for verb in [Verb::Compensate, Verb::Retry { force: false }] {
            assert_eq!(next(log, &verb), undo(1));
        }
        let mut again = after(log);
        again.operate(&plan(), &Verb::Compensate).expect("permitted");
        for event in [
            Event::UndoStarted {
                step: "b".to_owned(),
                outcome: Known::Completed,
            },
            Event::UndoSucceeded { step: "b".to_owned() },
        ] {
            again.apply(&plan(), &event);
        }
        let end = decide(&plan(), &again, Circumstances::default());
        assert!(
            matches!(
                end,
                Next::Finish {
                    end: SagaEnd::Compensated,
                    ..
                }
            ),
            "{end:?}"
        );
    }

    #[test]
    fn what_is_skipped_ends_abandoned_and_never_compensated() {
        let log = "Sa +a Sb +b Sp -p Up sb xb sa ~a F";
        let end = next(log, &Verb::Skip { step: "b".to_owned() });
        assert!(
            matches!(
                end,
                Next::Finish {
                    end: SagaEnd::Abandoned,
                    ..
                }
            ),
            "{end:?}"
        );
        let end = next(log, &Verb::ResolveNever { step: "b".to_owned() });
        assert!(
            matches!(
                end,
                Next::Finish {
                    end: SagaEnd::Compensated,
                    ..
                }
            ),
            "{end:?}"
        );
    }

    #[test]
    fn a_saga_that_was_given_up_does_nothing_more_even_if_its_end_was_not_written() {
        for log in ["Sa", "Sa F", "Sa +a Sb -b Ub"] {
            let end = next(log, &Verb::Abandon);
            assert!(
                matches!(
                    end,
                    Next::Finish {
                        end: SagaEnd::Abandoned,
                        ..
                    }
                ),
                "{end:?}"
            );
        }
    }
}
