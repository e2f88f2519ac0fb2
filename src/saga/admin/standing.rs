//! Where a saga stands, from its log alone.

use super::super::event::{Event, Obstacle, SagaEnd, Verb};
use super::super::journal::{Head, Loaded, SagaStatus};
use super::super::machine::{Circumstances, Direction, Next, Refusal, State, decide, unresolved};
use super::super::plan::Plan;
use super::error::Refused;

/// A saga as its events have left it.
pub(super) struct Standing {
    head: Head,
    /// Each event; `None` for one that cannot be read.
    pub(super) events: Vec<Option<Event>>,
    /// The plan that was written last, and where the saga stands by it.
    known: Option<(Plan, State)>,
}

impl Standing {
    pub(super) fn of(loaded: &Loaded) -> Self {
        let events = loaded.entries.iter();
        let events: Vec<Option<Event>> = events
            .map(|stored| serde_json::from_slice(&stored.entry.event).ok())
            .collect();
        let plan = events.iter().flatten().rev().find_map(|event| match event {
            Event::Created { plan } | Event::Replanned { plan } if !plan.is_empty() => Some(plan.clone()),
            _ => None,
        });
        let known = plan.map(|plan| {
            let mut state = State::new(&plan);
            for event in &events {
                match event {
                    Some(event) => state.apply(&plan, event),
                    None => state.corrupt = true,
                }
            }
            (plan, state)
        });
        Self {
            head: loaded.head.clone(),
            events,
            known,
        }
    }

    pub(super) fn plan(&self) -> Option<&Plan> {
        self.known.as_ref().map(|(plan, _)| plan)
    }

    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        self.known.as_ref().and_then(|(_, state)| state.obstacle)
    }

    /// The steps that somebody has to look at.
    pub(super) fn unresolved(&self) -> Vec<String> {
        match &self.known {
            Some((plan, state)) if state.end == Some(SagaEnd::Stuck) && !state.corrupt => unresolved(plan, state),
            _ => Vec::new(),
        }
    }

    /// Whether the verb is permitted, and of use.
    pub(super) fn judge(&self, verb: &Verb) -> Result<(), Refused> {
        self.refusal(verb).map_or(Ok(()), |refusal| {
            Err(Refused {
                id: self.head.id,
                verb: verb.clone(),
                status: self.head.status,
                obstacle: self.obstacle(),
                refusal,
            })
        })
    }

    fn refusal(&self, verb: &Verb) -> Option<Refusal> {
        if self.head.status.is_settled() {
            return Some(Refusal::Ended);
        }
        let Some((plan, state)) = &self.known else {
            return (*verb != Verb::Abandon).then_some(Refusal::NoPlan);
        };
        if let Err(refusal) = state.permits(plan, verb) {
            return Some(refusal);
        }
        match verb {
            Verb::ResolveDone { step } | Verb::ResolveNever { step } | Verb::Skip { step } => {
                // A step that needs no undo is left alone on the way back.
                let open = unresolved(plan, state).contains(step);
                (!open).then(|| Refusal::NotOpen { step: step.clone() })
            }
            Verb::Retry { .. } => Self::is_of_no_use(plan, state, verb),
            Verb::Compensate if state.direction != Direction::Forward => Self::is_of_no_use(plan, state, verb),
            Verb::Compensate | Verb::Cancel | Verb::Abandon => None,
        }
    }

    /// Whether the saga would be stuck again at once.
    fn is_of_no_use(plan: &Plan, state: &State, verb: &Verb) -> Option<Refusal> {
        let mut after = state.clone();
        after.apply(plan, &event(verb, "", ""));
        let now = Circumstances {
            stop: None,
            key_expired: state.obstacle == Some(Obstacle::KeyExpired),
        };
        match decide(plan, &after, now) {
            Next::Finish {
                end: SagaEnd::Stuck,
                obstacle: Some(Obstacle::KeyExpired),
            } => {
                let step = after
                    .first_open()
                    .map(|step| plan.steps[step].name.clone().into_owned());
                step.map(|step| Refusal::KeyExpired { step })
            }
            Next::Finish {
                end: SagaEnd::Stuck, ..
            } => Some(Refusal::NoUse),
            _ => None,
        }
    }

    /// The verbs that are permitted, and of use.
    pub(super) fn verbs(&self) -> Vec<Verb> {
        let mut verbs = vec![Verb::Retry { force: false }];
        if self.obstacle() == Some(Obstacle::KeyExpired) {
            verbs.push(Verb::Retry { force: true });
        }
        verbs.push(Verb::Compensate);
        for step in self.unresolved() {
            verbs.push(Verb::ResolveDone { step: step.clone() });
            verbs.push(Verb::ResolveNever { step: step.clone() });
            verbs.push(Verb::Skip { step });
        }
        verbs.extend([Verb::Cancel, Verb::Abandon]);
        verbs.retain(|verb| self.judge(verb).is_ok());
        verbs
    }

    /// The events of a decision, and where the saga stands after them: its status, and whether it can turn back.
    pub(super) fn decided(&self, verb: &Verb, who: &str, why: &str) -> (Vec<Event>, SagaStatus, bool) {
        let mut events = vec![event(verb, who, why)];
        if *verb == Verb::Abandon {
            events.push(Event::Finished {
                end: SagaEnd::Abandoned,
                obstacle: None,
            });
            return (events, SagaStatus::Abandoned, false);
        }
        let Some((plan, state)) = &self.known else {
            return (events, self.head.status, self.head.can_turn);
        };
        let mut after = state.clone();
        after.apply(plan, &events[0]);
        (events, after.status(), after.may_unwind(plan))
    }
}

fn event(verb: &Verb, who: &str, why: &str) -> Event {
    Event::Operator {
        who: who.to_owned(),
        verb: verb.clone(),
        note: why.to_owned(),
    }
}
