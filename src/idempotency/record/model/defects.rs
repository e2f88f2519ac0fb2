//! Machines with one wrong transition each, which the model has to tell from the real one.

use std::time::Duration;

use super::super::{Cancellation, ClaimId, Claimed, Completed, Ended, Outcome, Record, Step, Write};
use super::{Machine, REAL, TICK};

/// The real machine but for one transition, which is wrong, and how that shows.
#[allow(clippy::too_many_lines, reason = "a list")]
pub(super) fn defects() -> Vec<(&'static str, Machine, &'static str)> {
    let real = REAL;
    vec![
        (
            "a lease is taken over before its end",
            Machine {
                claim: |record, claim, now, fence| Record::claim(record, claim, now + TICK, fence),
                ..real
            },
            "two clients hold the key",
        ),
        (
            "fences start again when a record has expired",
            Machine {
                claim: |record, claim, now, _| Record::claim(Record::live(record, now), claim, now, 1),
                ..real
            },
            "a fence did not grow",
        ),
        (
            "a claim that is repeated counts as another",
            Machine {
                claim: |record, claim, now, fence| {
                    let mut other = record.cloned();
                    if let Some(Record::InProgress { owner, .. }) = &mut other {
                        owner.claim_id = ClaimId::NOBODY;
                    }
                    Record::claim(other.as_ref(), claim, now, fence)
                },
                ..real
            },
            "a claim that was repeated got another fence",
        ),
        (
            "a cancelled key is as good as none",
            Machine {
                claim: |record, claim, now, fence| {
                    let open = record.filter(|record| !matches!(record, Record::Cancelled { .. }));
                    Record::claim(open, claim, now, fence)
                },
                ..real
            },
            "a cancelled key was claimed",
        ),
        (
            "whoever completes is believed",
            Machine {
                complete: |record, owner, outcome, retention, now| {
                    let held = match record {
                        Some(Record::InProgress { owner, .. }) => owner,
                        _ => owner,
                    };
                    Record::complete(record, held, outcome, retention, now)
                },
                ..real
            },
            "a key was completed that somebody else holds",
        ),
        (
            "a stored outcome can be replaced",
            Machine {
                complete: |_, owner, outcome, retention, now| Record::complete(None, owner, outcome, retention, now),
                ..real
            },
            "a stored outcome was overwritten",
        ),
        (
            "a completion after the lease is refused",
            Machine {
                complete: |record, owner, outcome, retention, now| match record {
                    Some(record) if record.is_interrupted(now) => Step {
                        answer: Completed::Lost,
                        write: Write::Keep,
                    },
                    _ => Record::complete(record, owner, outcome, retention, now),
                },
                ..real
            },
            "an outcome was lost that nobody had overtaken",
        ),
        (
            "whoever renews is believed",
            Machine {
                renew: |record, owner, now| {
                    let held = match record {
                        Some(Record::InProgress { owner, .. }) => owner,
                        _ => owner,
                    };
                    Record::renew(record, held, TICK, None, now)
                },
                ..real
            },
            "two clients hold the key",
        ),
        (
            "a release frees the key whatever was before",
            Machine {
                release: |record, owner, now| match Record::release(record, owner, now) {
                    Step {
                        answer: Ended::Interrupted,
                        ..
                    } => Step {
                        answer: Ended::Released,
                        write: Write::Delete,
                    },
                    step => step,
                },
                ..real
            },
            "a release forgot an earlier attempt",
        ),
        (
            "what is cancelled may be in progress",
            Machine {
                cancel: |record, now| Record::cancel(record, now + TICK),
                ..real
            },
            "an operation that somebody is at was cancelled",
        ),
        (
            "what is cancelled may be completed",
            Machine {
                cancel: |record, now| {
                    let open = record.filter(|record| !matches!(record, Record::Completed { .. }));
                    Record::cancel(open, now)
                },
                ..real
            },
            "a completed operation was cancelled",
        ),
        (
            "what is resolved may be in progress",
            Machine {
                resolve: |record, resolution, now| Record::resolve(record, resolution, now + TICK),
                ..real
            },
            "an operation that somebody is at was resolved",
        ),
        (
            "who was interrupted still owns what an operator resolved",
            Machine {
                resolve: |record, resolution, now| {
                    let mut step = Record::resolve(record, resolution, now);
                    if let (Some(Record::InProgress { owner: held, .. }), Write::Put(Record::Completed { owner, .. })) =
                        (record, &mut step.write)
                    {
                        owner.claim_id = held.claim_id;
                    }
                    step
                },
                ..real
            },
            "another outcome was taken for one's own",
        ),
        (
            "an outcome is purged before it expires",
            Machine {
                may_purge: |record, now| Record::live(Some(record), now + TICK).is_none(),
                ..real
            },
            "a stored outcome was lost",
        ),
        (
            "a cancelled key is purged",
            Machine {
                may_purge: |record, _| matches!(record, Record::Cancelled { .. }),
                ..real
            },
            "a cancelled key is open",
        ),
        (
            "an expired record counts until it is purged",
            Machine {
                claim: |record, claim, now, fence| match record {
                    Some(Record::Completed { owner, outcome, .. }) => Step {
                        answer: Claimed::Completed {
                            attempt: owner.attempt,
                            outcome: Outcome(outcome.clone()),
                        },
                        write: Write::Keep,
                    },
                    _ => Record::claim(record, claim, now, fence),
                },
                ..real
            },
            "an expired record answers other than none",
        ),
    ]
}

/// The same, for what nobody may run again.
pub(super) fn defects_at_most_once() -> Vec<(&'static str, Machine, &'static str)> {
    let real = REAL;
    vec![
        (
            "an interrupted operation is run again",
            Machine {
                claim: |record, claim, now, fence| {
                    let mut forgetful = claim.clone();
                    forgetful.mode = super::AT_LEAST_ONCE;
                    let mut record = record.cloned();
                    if let Some(Record::InProgress { expires_at, .. }) = &mut record {
                        *expires_at = expires_at.or(Some(Duration::MAX));
                    }
                    Record::claim(record.as_ref(), &forgetful, now, fence)
                },
                ..real
            },
            "an operation was run twice",
        ),
        (
            "an interruption frees the key",
            Machine {
                interrupt: |record, owner, now| match Record::interrupt(record, owner, now) {
                    Step {
                        answer: Ended::Interrupted,
                        ..
                    } => Step {
                        answer: Ended::Interrupted,
                        write: Write::Delete,
                    },
                    step => step,
                },
                ..real
            },
            "what may have been done was said to be undone",
        ),
        (
            "an interrupted record is purged",
            Machine {
                may_purge: |record, now| record.is_interrupted(now),
                ..real
            },
            "what may have been done was said to be undone",
        ),
        (
            "a cancellation hides what was interrupted",
            Machine {
                cancel: |record, now| match Record::cancel(record, now) {
                    Step {
                        answer: Cancellation::CancelledUnknown(_),
                        write,
                    } => Step {
                        answer: Cancellation::Cancelled,
                        write,
                    },
                    step => step,
                },
                ..real
            },
            "what may have been done was said to be undone",
        ),
    ]
}
