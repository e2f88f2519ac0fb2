//! One saga as a text for people.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::super::event::{Event, Known, Reality, Reason, Verb};
use super::super::plan::Plan;
use super::text::{Clock, Utc, one_line, span};
use super::{Inspection, TimelineEntry};
use crate::Effect;

impl Display for Inspection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        if self.head.pruned {
            return writeln!(f, "\nits events were cleared away");
        }
        writeln!(f, "\n  seq epoch  time")?;
        let mut before = None;
        for entry in &self.timeline {
            let day = entry.at.as_secs() / (24 * 60 * 60);
            if before.is_some_and(|before| before != day) {
                writeln!(f, "             {}", Utc(entry.at))?;
            }
            before = Some(day);
            writeln!(f, "{entry}")?;
        }
        if !self.unresolved.is_empty() {
            writeln!(f, "\nto be looked at: {}", self.unresolved.join(", "))?;
        }
        if !self.verbs.is_empty() {
            writeln!(f, "\npossible now")?;
            for verb in &self.verbs {
                writeln!(f, "  {:<24} {}", verb.to_string(), meaning(verb))?;
            }
        }
        Ok(())
    }
}

impl Inspection {
    fn head(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let head = &self.head;
        let mut line = |name: &str, value: &dyn Display| writeln!(f, "{name:<10} {value}");
        let ago = |at: Duration| format!("{} UTC, {} ago", Utc(at), span(self.now.saturating_sub(at)));
        line("saga", &format!("{} {}", head.definition.name, head.id))?;
        match self.obstacle {
            Some(obstacle) => line("status", &format!("{} ({})", head.status, obstacle.as_str()))?,
            None => line("status", &head.status)?,
        }
        line("version", &head.definition.version)?;
        line("created", &ago(head.created))?;
        line("changed", &ago(head.changed))?;
        let left = head.due.map_or(Duration::ZERO, |due| due.saturating_sub(self.now));
        if head.is_held(self.now) {
            line(
                "driven",
                &format!("in epoch {}, by a lease for another {}", head.epoch, span(left)),
            )?;
        } else if head.status.is_active() {
            line("driven", &format!("by nobody; due in {}", span(left)))?;
        }
        if head.recoveries > 0 {
            line("lost", &format!("{} owners in a row", head.recoveries))?;
        }
        if head.cancel {
            line("cancel", &"asked for")?;
        }
        if let Some(deadline) = head.deadline.filter(|_| head.status.is_active()) {
            line("deadline", &format!("{} UTC", Utc(deadline)))?;
        }
        if let Some(error) = &head.error {
            line("last error", &one_line(error))?;
        }
        match &self.plan {
            Some(plan) => line("steps", &steps(plan)),
            None => Ok(()),
        }
    }
}

fn steps(plan: &Plan) -> String {
    let steps = plan.steps.iter();
    let steps: Vec<String> = steps
        .map(|step| format!("{} ({})", one_line(&step.name), step.kind.as_str()))
        .collect();
    steps.join(", ")
}

impl Display for TimelineEntry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} {:>5}  {}  ", self.seq, self.epoch, Clock(self.at))?;
        match &self.event {
            Some(event) => tell(event, f)?,
            None => f.write_str("an event that this version cannot read")?,
        }
        match self.took {
            Some(took) => write!(f, ", after {}", span(took)),
            None => Ok(()),
        }
    }
}

fn tell(event: &Event, f: &mut Formatter<'_>) -> fmt::Result {
    match event {
        Event::Created { .. } => f.write_str("created"),
        Event::Replanned { plan } => write!(f, "goes on with another definition: {}", steps(plan)),
        Event::Started { step } => write!(f, "{step}: started"),
        Event::Succeeded { step } => write!(f, "{step}: succeeded"),
        Event::Failed {
            step,
            effect,
            retryable,
            error,
            ..
        } => {
            let effect = match effect {
                Effect::None => "without effect",
                Effect::Maybe => "may have had its effect",
            };
            let last = if *retryable { "" } else { ", for good" };
            write!(f, "{step}: failed, {effect}{last}: {}", one_line(error))
        }
        Event::Reconciled { step, reality } => {
            let reality = match reality {
                Reality::Done => "it has happened",
                Reality::NotDone => "it has not happened so far",
                Reality::Never => "it will never happen",
                Reality::Unknown => "it cannot be said",
            };
            write!(f, "{step}: asked its hook: {reality}")
        }
        Event::Unwinding { reason } => match reason {
            Reason::Failed { step } => write!(f, "turns back: {step} failed"),
            Reason::Interrupted { step } => write!(f, "turns back: {step} was interrupted"),
            Reason::Cancelled => f.write_str("turns back: it was cancelled"),
            Reason::Deadline => f.write_str("turns back: its deadline passed"),
            Reason::Operator => f.write_str("turns back: an operator wants it"),
        },
        Event::UndoStarted { step, outcome } => {
            let outcome = match outcome {
                Known::Completed => "it has happened",
                Known::Unknown => "it may have happened",
            };
            write!(f, "{step}: undo started, {outcome}")
        }
        Event::UndoSucceeded { step } => write!(f, "{step}: undone"),
        Event::UndoFailed { step, error, last } => {
            let last = if *last { ", for good" } else { "" };
            write!(f, "{step}: undo failed{last}: {}", one_line(error))
        }
        Event::Operator { who, verb, note } => {
            write!(f, "operator {}: {verb}: {}", one_line(who), one_line(note))
        }
        Event::Finished { end, obstacle } => match obstacle {
            Some(obstacle) => write!(f, "{} ({})", end.as_str(), obstacle.as_str()),
            None => f.write_str(end.as_str()),
        },
    }
}

fn meaning(verb: &Verb) -> &'static str {
    match verb {
        Verb::Retry { force: false } => "what failed is tried again, with all its attempts",
        Verb::Retry { force: true } => "also if the participant may have forgotten the key, and does it twice",
        Verb::Compensate => "what was done is undone, as far as it is not yet",
        Verb::ResolveDone { .. } => "you know that it has happened, or have done it by hand",
        Verb::ResolveNever { .. } => "you know that it has not happened and never will, or have undone it by hand",
        Verb::Skip { .. } => "it is left as it is; the saga ends abandoned",
        Verb::Cancel => "the saga turns back",
        Verb::Abandon => "the saga is given up as it is",
    }
}
