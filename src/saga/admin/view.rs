//! One saga, as an operator sees it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::super::event::{Event, Obstacle, Verb};
use super::super::journal::{Head, Loaded};
use super::super::plan::Plan;
use super::standing::Standing;

/// All about one saga; made by [`SagaAdmin::inspect`](super::SagaAdmin::inspect). It prints as a text for people.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Inspection {
    /// Its head.
    pub head: Head,
    /// The journal's clock, since 1970: what the times compare with.
    pub now: Duration,
    /// Its steps, as its events tell them.
    pub plan: Option<Plan>,
    /// What happened, in order. Empty where its events were cleared away.
    pub timeline: Vec<TimelineEntry>,
    /// Why it is stuck, if it is.
    pub obstacle: Option<Obstacle>,
    /// The steps that somebody has to look at, if it is stuck.
    pub unresolved: Vec<String>,
    /// What an operator may do now, once nobody drives it.
    pub verbs: Vec<Verb>,
    pub(super) context: Option<Bytes>,
}

/// One event of a saga.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TimelineEntry {
    /// Its number; the first is 0.
    pub seq: u64,
    /// In which ownership it was written.
    pub epoch: u64,
    /// When, since 1970 on the journal's clock.
    pub at: Duration,
    /// For how long the action or the undo had run whose result it is.
    pub took: Option<Duration>,
    /// The event; `None` where this version of the crate cannot read it.
    pub event: Option<Event>,
}

impl Inspection {
    pub(super) fn of(loaded: &Loaded) -> Self {
        let standing = Standing::of(loaded);
        let mut started = None;
        let stored = loaded.entries.iter().zip(&standing.events);
        let timeline = stored.map(|(stored, event)| {
            let began: Option<Duration> = started;
            started = match event {
                Some(Event::Started { .. } | Event::UndoStarted { .. }) => Some(stored.at),
                // It goes on while an operator, or another definition, has its say.
                Some(Event::Operator { .. } | Event::Replanned { .. }) => began,
                _ => None,
            };
            TimelineEntry {
                seq: stored.seq,
                epoch: stored.epoch,
                at: stored.at,
                took: match event {
                    Some(
                        Event::Succeeded { .. }
                        | Event::Failed { .. }
                        | Event::UndoSucceeded { .. }
                        | Event::UndoFailed { .. },
                    ) => began.map(|began| stored.at.saturating_sub(began)),
                    _ => None,
                },
                event: event.clone(),
            }
        });
        let mut contexts = loaded.entries.iter().rev();
        Self {
            timeline: timeline.collect(),
            head: loaded.head.clone(),
            now: loaded.now,
            plan: standing.plan().cloned(),
            obstacle: standing.obstacle(),
            unresolved: standing.unresolved(),
            verbs: standing.verbs(),
            context: contexts.find_map(|stored| stored.entry.context.clone()),
        }
    }

    /// The context as the last success has left it: JSON, and what the business put there. It is not printed with the
    /// rest, as it may hold what not everybody is to see.
    #[must_use]
    pub fn context(&self) -> Option<&[u8]> {
        self.context.as_deref()
    }
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection")
            .field("head", &self.head)
            .field("timeline", &self.timeline)
            .field("unresolved", &self.unresolved)
            .field("verbs", &self.verbs)
            .finish_non_exhaustive()
    }
}
