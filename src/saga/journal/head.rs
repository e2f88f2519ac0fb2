//! What happens to the head of a saga, as pure functions: what every journal does.

use std::time::Duration;

use super::types::{
    Append, CancelRequest, ClaimQuery, Claimed, Created, Head, Hold, NewSaga, OwnerId, Prune, Renewal, SUSPECT_AFTER,
    SagaStatus,
};

impl Head {
    /// The head of a new saga.
    #[must_use]
    pub fn of(new: &NewSaga, now: Duration) -> Self {
        Self {
            id: new.id,
            key: new.key,
            input: new.input,
            definition: new.definition.clone(),
            status: SagaStatus::Running,
            seq: count(new.entries.len()),
            epoch: u64::from(new.lease.is_some()),
            owner: new.lease.map(|(owner, _)| owner),
            due: Some(new.lease.map_or(now, |(_, lease)| now.saturating_add(lease))),
            recoveries: 0,
            can_turn: new.can_turn,
            cancel: false,
            deadline: new.deadline.map(|deadline| now.saturating_add(deadline)),
            error: None,
            created: now,
            changed: now,
            pruned: false,
        }
    }

    /// What becomes of `new`, whose key this saga has.
    #[must_use]
    pub fn meets(&self, new: &NewSaga) -> Created {
        if self.id == new.id {
            Created::New
        } else if self.input == new.input && self.definition.name == new.definition.name {
            Created::Existing(Box::new(self.clone()))
        } else {
            Created::Conflict
        }
    }

    /// The head after `append`; `None` where it is fenced, or was carried out before: then its events are there, each
    /// the same and of the same epoch.
    #[must_use]
    pub fn append(&self, append: &Append, now: Duration) -> Option<Self> {
        let current = self.owner.is_some() && self.epoch == append.epoch;
        if !current || self.seq != append.seq || append.entries.is_empty() {
            return None;
        }
        let (owner, due) = match append.hold {
            Hold::Keep(lease) => (self.owner, Some(now.saturating_add(lease))),
            Hold::Rest => (None, None),
            Hold::Park(delay) => (None, Some(self.parked_until(append.can_turn, delay, now))),
        };
        Some(Self {
            status: append.status,
            seq: self.seq.saturating_add(count(append.entries.len())),
            owner,
            due,
            recoveries: if append.progress { 0 } else { self.recoveries },
            can_turn: append.can_turn,
            error: append.error.clone().or_else(|| self.error.clone()),
            changed: now,
            ..self.clone()
        })
    }

    fn parked_until(&self, can_turn: bool, delay: Duration, now: Duration) -> Duration {
        let until = now.saturating_add(delay);
        match self.deadline {
            _ if can_turn && self.cancel => now,
            Some(deadline) if can_turn => until.min(deadline.max(now)),
            _ => until,
        }
    }

    /// Whether anybody may claim it.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.status.is_active() && self.due.is_some_and(|due| due <= now)
    }

    /// Whether it was claimed several times in a row without a result.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.recoveries >= SUSPECT_AFTER
    }

    /// Whether `query` can drive it.
    #[must_use]
    pub fn fits(&self, query: &ClaimQuery) -> bool {
        query.definitions.contains(&self.definition)
    }

    /// It is claimed. A lease that ran out counts as a recovery.
    #[must_use]
    pub fn claim(&self, owner: OwnerId, lease: Duration, now: Duration) -> Claimed {
        let parked = self.owner.is_none();
        Claimed {
            head: Self {
                epoch: self.epoch.saturating_add(1),
                owner: Some(owner),
                due: Some(now.saturating_add(lease)),
                recoveries: self.recoveries.saturating_add(u32::from(!parked)),
                ..self.clone()
            },
            parked,
            deadline_in: self.deadline.map(|deadline| deadline.saturating_sub(now)),
        }
    }

    /// Whether somebody drives it.
    #[must_use]
    pub fn is_held(&self, now: Duration) -> bool {
        self.owner.is_some() && self.due.is_some_and(|due| now < due)
    }

    /// The head after the lease of `owner` was renewed; `None` where it is not its own.
    #[must_use]
    pub fn renew(&self, owner: OwnerId, epoch: u64, lease: Duration, now: Duration) -> Option<Self> {
        let own = self.owner == Some(owner) && self.epoch == epoch;
        own.then(|| Self {
            due: Some(now.saturating_add(lease)),
            ..self.clone()
        })
    }

    /// What the renewal answers.
    #[must_use]
    pub fn renewal(&self, owner: OwnerId, epoch: u64) -> Renewal {
        Renewal {
            id: self.id,
            held: self.owner == Some(owner) && self.epoch == epoch,
            cancel: self.cancel,
        }
    }

    /// The head after `owner` has let it go: due at once, or at rest. `None` where it is not its own.
    #[must_use]
    pub fn release(&self, owner: OwnerId, epoch: u64, now: Duration) -> Option<Self> {
        let own = self.owner == Some(owner) && self.epoch == epoch;
        own.then(|| Self {
            owner: None,
            due: self.status.is_active().then_some(now),
            ..self.clone()
        })
    }

    /// The head after the request that it turn back, and what that answers.
    #[must_use]
    pub fn request_cancel(&self, now: Duration) -> (Option<Self>, CancelRequest) {
        match self.status {
            SagaStatus::Compensating => (None, CancelRequest::Requested),
            SagaStatus::Running if !self.can_turn => (None, CancelRequest::TooLate),
            SagaStatus::Running => {
                let parked = self.owner.is_none();
                let due = if parked {
                    self.due.map(|due| due.min(now))
                } else {
                    self.due
                };
                let head = Self {
                    cancel: true,
                    due,
                    ..self.clone()
                };
                (Some(head), CancelRequest::Requested)
            }
            ended => (None, CancelRequest::Ended(ended)),
        }
    }

    /// Whether its events may be cleared away.
    #[must_use]
    pub fn events_are_over(&self, prune: &Prune, now: Duration) -> bool {
        !self.pruned && self.settled_for(now).is_some_and(|age| age >= prune.events_after)
    }

    /// Whether nothing of it need be kept.
    #[must_use]
    pub fn is_over(&self, prune: &Prune, now: Duration) -> bool {
        let kept = prune.keys_after.max(prune.events_after);
        self.settled_for(now).is_some_and(|age| age >= kept)
    }

    fn settled_for(&self, now: Duration) -> Option<Duration> {
        (self.status.is_settled() && self.owner.is_none()).then(|| now.saturating_sub(self.changed))
    }
}

fn count(entries: usize) -> u64 {
    u64::try_from(entries).unwrap_or(u64::MAX)
}
