//! What an operator decides.

use std::time::Duration;

use tokio::time::sleep;

use super::super::engine::entry;
use super::super::event::Verb;
use super::super::id::SagaId;
use super::super::journal::{Append, Appended, CancelRequest, Claimed, ClaimedOne, Hold, Loaded, OwnerId, SagaStatus};
use super::super::machine::Refusal;
use super::standing::Standing;
use super::{AdminError, Refused, SagaAdmin};
use crate::storage::StorageError;

/// How many bytes the name of who decides may have.
pub const MAX_WHO: usize = 200;
/// How many bytes their reason may have.
pub const MAX_WHY: usize = 2_000;

/// For how long a saga is held while a decision about it is written: nobody else drives it meanwhile.
const LEASE: Duration = Duration::from_secs(10);
/// How often a decision is sent to a journal that fails, and the wait between.
const SENDS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// An operator, who decides about sagas; made by [`SagaAdmin::by`].
///
/// Each decision is one event in the saga's journal, and touches nothing else. An engine goes on with the saga at its
/// next look at the journal, by its own definition: within its poll interval.
///
/// | verb | running | stuck on the way forward | compensating | stuck on the way back | ended |
/// |---|---|---|---|---|---|
/// | [`retry`](Self::retry) | – | → running | – | → compensating | – |
/// | [`compensate`](Self::compensate) | – | → compensating, before the pivot | – | → compensating | – |
/// | [`resolve_done`](Self::resolve_done) | – | → running | – | → compensating: it is undone | – |
/// | [`resolve_never`](Self::resolve_never) | – | → running: it turns back, or is stuck after the pivot | – | → compensating: the others | – |
/// | [`skip`](Self::skip) | – | – | – | → compensating: the others, then abandoned | – |
/// | [`cancel`](Self::cancel) | → compensating, before the pivot | – | as it is | – | – |
/// | [`abandon`](Self::abandon) | → abandoned | → abandoned | → abandoned | → abandoned | as it is, if abandoned |
///
/// Where there is no arrow the verb is refused: [`AdminError::Refused`].
///
/// # Errors
///
/// Each verb gives [`AdminError`]: there is no such saga, somebody drives it, the verb is refused, or the journal failed.
/// Nothing is changed then; after an error of the journal the decision may be written or not.
///
/// # Cancel safety
///
/// A verb whose future is dropped may have been carried out or not. If not, the saga may count as driven for another ten
/// seconds.
#[derive(Clone, Debug)]
#[must_use = "by itself it decides nothing"]
pub struct SagaOperator<'a> {
    admin: &'a SagaAdmin,
    who: String,
    why: String,
}

impl<'a> SagaOperator<'a> {
    pub(super) fn new(admin: &'a SagaAdmin, who: &str, why: &str) -> Result<Self, AdminError> {
        let said = |what, text: &str, max| {
            let text = text.trim();
            let fits = !text.is_empty() && text.len() <= max && !text.contains(char::is_control);
            fits.then(|| text.to_owned()).ok_or(AdminError::Unsigned { what, max })
        };
        Ok(Self {
            admin,
            who: said("who decides", who, MAX_WHO)?,
            why: said("why it is decided", why, MAX_WHY)?,
        })
    }

    /// What failed for good is tried again, with all its attempts: the step that the saga has stopped at, or every undo
    /// that failed. Hooks are asked again. A request to turn back, and a deadline that has passed, still count.
    ///
    /// # Errors
    ///
    /// See [`SagaOperator`].
    pub async fn retry(&self, id: SagaId) -> Result<SagaStatus, AdminError> {
        self.decide(id, Verb::Retry { force: false }).await
    }

    /// As [`retry`](Self::retry), also where the key of the step is so old that its participant may have forgotten it,
    /// and would do it a second time: the operator has looked, or it does no harm.
    ///
    /// # Errors
    ///
    /// See [`SagaOperator`].
    pub async fn force_retry(&self, id: SagaId) -> Result<SagaStatus, AdminError> {
        self.decide(id, Verb::Retry { force: true }).await
    }

    /// The saga turns back, if its pivot has not happened and cannot have; going back already, every undo that failed is
    /// tried again, and nothing that is undone is undone again.
    ///
    /// # Errors
    ///
    /// See [`SagaOperator`].
    pub async fn compensate(&self, id: SagaId) -> Result<SagaStatus, AdminError> {
        self.decide(id, Verb::Compensate).await
    }

    /// The truth about a step: its effect has happened; somebody may have done it by hand. The context stays as it was
    /// before the step: what the step would have found out is not there.
    ///
    /// # Errors
    ///
    /// See [`SagaOperator`].
    pub async fn resolve_done(&self, id: SagaId, step: &str) -> Result<SagaStatus, AdminError> {
        let step = step.to_owned();
        self.decide(id, Verb::ResolveDone { step }).await
    }

    /// The truth about a step: its effect has not happened and never will, or was taken back by hand.
    ///
    /// # Errors
    ///
    /// See [`SagaOperator`].
    pub async fn resolve_never(&self, id: SagaId, step: &str) -> Result<SagaStatus, AdminError> {
        let step = step.to_owned();
        self.decide(id, Verb::ResolveNever { step }).await
    }

    /// What could not be undone is left as it is. The others are undone; the saga then ends abandoned, not compensated.
    ///
    /// # Errors
    ///
    /// See [`SagaOperator`].
    pub async fn skip(&self, id: SagaId, step: &str) -> Result<SagaStatus, AdminError> {
        let step = step.to_owned();
        self.decide(id, Verb::Skip { step }).await
    }

    /// The saga is given up as it is, wherever it stands: nothing more is done for it. One that was given up before is
    /// left as it is.
    ///
    /// # Errors
    ///
    /// See [`SagaOperator`].
    pub async fn abandon(&self, id: SagaId) -> Result<SagaStatus, AdminError> {
        let loaded = self.admin.load(id).await?;
        if loaded.head.status == SagaStatus::Abandoned {
            return Ok(SagaStatus::Abandoned);
        }
        self.decide_of(loaded, Verb::Abandon).await
    }

    /// The saga turns back, unless its pivot has happened or may have. One that is on its way back is left as it is.
    ///
    /// Where somebody drives the saga, they are asked to turn it back, and the answer is
    /// [`Running`](SagaStatus::Running): the step in flight is awaited first. The events then say that it was cancelled,
    /// but not who asked.
    ///
    /// # Errors
    ///
    /// See [`SagaOperator`].
    pub async fn cancel(&self, id: SagaId) -> Result<SagaStatus, AdminError> {
        let loaded = self.admin.load(id).await?;
        if loaded.head.status == SagaStatus::Compensating {
            return Ok(SagaStatus::Compensating);
        }
        let standing = Standing::of(&loaded);
        let refused = |status, refusal| {
            AdminError::from(Refused {
                id,
                verb: Verb::Cancel,
                status,
                obstacle: standing.obstacle(),
                refusal,
            })
        };
        if !loaded.head.is_held(loaded.now) {
            match self.decide_of(loaded, Verb::Cancel).await {
                Err(AdminError::Busy { .. }) => {}
                decided => return decided,
            }
        }
        match self.admin.journal.request_cancel(id).await? {
            CancelRequest::Requested => {
                self.tell(id, &Verb::Cancel);
                Ok(SagaStatus::Running)
            }
            CancelRequest::TooLate => Err(refused(SagaStatus::Running, Refusal::PastPivot)),
            CancelRequest::Ended(SagaStatus::Stuck) => Err(refused(SagaStatus::Stuck, Refusal::Stuck)),
            CancelRequest::Ended(status) => Err(refused(status, Refusal::Ended)),
            CancelRequest::Missing => Err(AdminError::NotFound { id }),
        }
    }

    async fn decide(&self, id: SagaId, verb: Verb) -> Result<SagaStatus, AdminError> {
        let loaded = self.admin.load(id).await?;
        self.decide_of(loaded, verb).await
    }

    async fn decide_of(&self, loaded: Loaded, verb: Verb) -> Result<SagaStatus, AdminError> {
        let id = loaded.head.id;
        if loaded.head.is_held(loaded.now) {
            let lease = loaded.head.due.map(|due| due.saturating_sub(loaded.now));
            return Err(AdminError::Busy { id, lease });
        }
        // A saga is not claimed for what is refused: a claim is a change, too.
        Standing::of(&loaded).judge(&verb)?;
        let owner = OwnerId(crate::random::unique());
        let claimed = match self.admin.journal.claim_one(id, owner, LEASE).await? {
            ClaimedOne::Claimed(claimed) => claimed,
            ClaimedOne::Busy => return Err(AdminError::Busy { id, lease: None }),
            ClaimedOne::Missing => return Err(AdminError::NotFound { id }),
        };
        let epoch = claimed.head.epoch;
        let decided = self.write(loaded, *claimed, &verb).await;
        match &decided {
            Ok(_) => self.tell(id, &verb),
            // Otherwise it counts as driven until the lease ends.
            Err(_) => drop(self.admin.journal.release(owner, &[(id, epoch)]).await),
        }
        decided
    }

    /// Writes the decision about a saga that is held.
    async fn write(&self, loaded: Loaded, claimed: Claimed, verb: &Verb) -> Result<SagaStatus, AdminError> {
        let id = loaded.head.id;
        let loaded = if loaded.head.seq == claimed.head.seq {
            loaded
        } else {
            // Something has happened before it was held.
            self.admin.load(id).await?
        };
        let standing = Standing::of(&loaded);
        standing.judge(verb)?;
        let (events, status, can_turn) = standing.decided(verb, &self.who, &self.why);
        let append = Append {
            id,
            epoch: claimed.head.epoch,
            seq: loaded.head.seq,
            entries: events.iter().map(|event| entry(event, None)).collect(),
            status,
            can_turn,
            // Whoever has looked at it has looked at its crashes, too.
            progress: true,
            hold: if status.is_active() {
                Hold::Park(Duration::ZERO)
            } else {
                Hold::Rest
            },
            error: None,
        };
        match self.send(&append).await? {
            Appended::Written { .. } => Ok(status),
            Appended::Fenced => Err(AdminError::Busy { id, lease: None }),
        }
    }

    /// The same append has the effect of one, however often it is sent.
    async fn send(&self, append: &Append) -> Result<Appended, StorageError> {
        let mut sent = 1;
        loop {
            match self.admin.journal.append(append).await {
                Err(_) if sent < SENDS => sleep(PAUSE).await,
                answer => return answer,
            }
            sent += 1;
        }
    }

    fn tell(&self, id: SagaId, verb: &Verb) {
        let (who, why) = (&*self.who, &*self.why);
        tracing::info!(target: "steadfast::saga", %id, %verb, who, why, "an operator has decided");
    }
}
