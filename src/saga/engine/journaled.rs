//! The recorder that writes to a journal.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::super::code::race;
use super::super::cx::Cx;
use super::super::error::StepError;
use super::super::event::Event;
use super::super::journal::{Append, Appended, Entry, Hold};
use super::super::local::{LocalCode, LocalRun, Ran};
use super::super::record::{Batch, BoxError, Lost, Recorder, Then};
use super::core::{Core, Seat};
use super::flight::Flight;

/// A wait that is at most this part of the lease is waited for here; a longer one is left to whoever claims the saga then.
const PARKS_AFTER: u32 = 3;
/// The first wait after a write that failed, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Above so many bytes a context is worth a warning.
const LARGE: usize = 256 * 1024;
/// The longest error, in bytes, that is kept for lists.
const MAX_ERROR: usize = 300;

pub(crate) struct Journaled<C> {
    core: Arc<Core>,
    flight: Arc<Flight>,
    /// How many events are written.
    seq: u64,
    /// The length of the context, in bytes, as it was written last.
    length: usize,
    context: PhantomData<fn() -> C>,
}

/// The context of a saga is larger than its engine allows.
#[derive(Debug, thiserror::Error)]
#[error("the context has {length} bytes, and may have {limit}")]
pub(crate) struct TooLarge {
    length: usize,
    limit: usize,
}

impl TooLarge {
    pub(crate) fn check(length: usize, limit: usize) -> Result<(), Self> {
        if length <= limit {
            return Ok(());
        }
        Err(Self { length, limit })
    }
}

impl<C> Journaled<C> {
    /// A recorder after so many events, and a context of so many bytes.
    pub(crate) fn new(seat: &Seat, seq: u64, length: usize) -> Self {
        Self {
            core: Arc::clone(&seat.core),
            flight: Arc::clone(&seat.flight),
            seq,
            length,
            context: PhantomData,
        }
    }

    /// Writes until it is written, or the saga is lost.
    ///
    /// It is sent once even if the lease has run out by this process's clock: it is the journal that says whether somebody
    /// has taken the saga, and a result that is written need not be found again.
    pub(super) async fn write(&mut self, append: &Append) -> Result<(), Lost> {
        // The lease that is granted counts from the first try: a later one may only hear that the first was carried out.
        let sent = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let limit = self.core.settings.lease / 3;
            let answer = timeout(limit, self.core.journal.append(append));
            let answer = if pause == FIRST_PAUSE {
                race(answer, self.flight.refused()).await?
            } else {
                race(answer, self.flight.lost()).await?
            };
            match answer {
                Ok(Ok(Appended::Written { cancel })) => {
                    self.written(append.entries.len(), sent, cancel);
                    if append.progress {
                        self.flight.cleared();
                    }
                    return Ok(());
                }
                Ok(Ok(Appended::Fenced)) => return Err(self.fenced()),
                Ok(Err(error)) => {
                    tracing::warn!(target: "steadfast::saga", id = %append.id, %error, "the journal was not written");
                }
                Err(_) => {
                    tracing::warn!(target: "steadfast::saga", id = %append.id, "the journal does not answer");
                }
            }
            race(sleep(pause), self.flight.lost()).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

pub(crate) fn entry(event: &Event, context: Option<&Bytes>) -> Entry {
    Entry {
        // An event has no map with keys that are no strings, and no value that fails to be written.
        event: serde_json::to_vec(event).unwrap_or_default().into(),
        context: context.cloned(),
    }
}

/// A context as it is written, and as it is read again.
pub(crate) fn encode<C: Serialize + DeserializeOwned>(context: &C) -> Result<(Bytes, C), BoxError> {
    let bytes = serde_json::to_vec(context)?;
    let read = serde_json::from_slice(&bytes)?;
    Ok((bytes.into(), read))
}

impl<C: Serialize + DeserializeOwned + Send> Recorder<C> for Journaled<C> {
    fn fence(&self) -> u64 {
        self.flight.epoch
    }

    fn encode(&mut self, context: C) -> Result<(Option<Bytes>, C), BoxError> {
        let (bytes, context) = encode(&context)?;
        if bytes.len() > LARGE && self.length <= LARGE {
            let (id, bytes) = (self.flight.id, bytes.len());
            tracing::warn!(target: "steadfast::saga", %id, bytes, "its context is large, and is written with every step");
        }
        self.length = bytes.len();
        Ok((Some(bytes), context))
    }

    fn too_much(&self) -> Option<BoxError> {
        let checked = TooLarge::check(self.length, self.core.settings.max_context);
        checked.err().map(Into::into)
    }

    async fn append(&mut self, batch: &Batch<'_>) -> Result<(), Lost> {
        let append = self.append_of(batch);
        self.flight.landing(batch.then != Then::GoOn);
        self.write(&append).await
    }

    async fn local<D: Send + Sync + 'static>(
        &mut self,
        code: &dyn LocalCode<C, D>,
        cx: Cx<C, D>,
        limit: Duration,
        batch: &Batch<'_>,
    ) -> Result<Result<C, StepError>, Lost> {
        let run = LocalRun {
            cx,
            limit,
            append: self.append_of(batch),
            encode: |context| encode(&context),
            #[cfg(feature = "sqlite")]
            decode: |bytes| Ok(serde_json::from_slice(bytes)?),
        };
        let sent = Instant::now();
        self.flight.landing(batch.then != Then::GoOn);
        let ran = race(code.run(&*self.core.journal, run), self.flight.lost()).await?;
        match ran {
            Ran::Committed { context, cancel } => {
                self.written(batch.events.len(), sent, cancel);
                self.flight.cleared();
                Ok(Ok(context))
            }
            Ran::Failed(failed) => {
                self.flight.landing(false);
                Ok(Err(failed))
            }
            Ran::Fenced => Err(self.fenced()),
        }
    }

    async fn may_start(&mut self) -> Result<(), Lost> {
        self.flight.may_start().await
    }

    async fn lost(&self) -> Lost {
        self.flight.lost().await
    }

    fn parks(&self, wait: Duration) -> bool {
        wait > self.core.settings.lease / PARKS_AFTER
    }
}

impl<C> Journaled<C> {
    fn append_of(&self, batch: &Batch<'_>) -> Append {
        let lease = self.core.settings.lease;
        let entries = batch.events.iter();
        Append {
            id: self.flight.id,
            epoch: self.flight.epoch,
            seq: self.seq,
            entries: entries.map(|(event, context)| entry(event, context.as_ref())).collect(),
            status: batch.status,
            can_turn: batch.can_turn,
            progress: batch.events.iter().any(|(event, _)| is_result(event)),
            hold: match batch.then {
                Then::GoOn => Hold::Keep(lease),
                Then::Park(delay) => Hold::Park(delay),
                Then::Rest => Hold::Rest,
            },
            error: batch.events.iter().rev().find_map(|(event, _)| error_of(event)),
        }
    }

    fn written(&mut self, events: usize, sent: Instant, cancel: bool) {
        self.seq += u64::try_from(events).unwrap_or(0);
        self.flight.renewed(sent);
        if cancel {
            self.flight.cancel.request();
        }
    }

    fn fenced(&self) -> Lost {
        self.flight.landing(false);
        self.flight.taken();
        Lost::Lease
    }
}

/// Whether an event shows that the saga does not kill whoever drives it.
fn is_result(event: &Event) -> bool {
    matches!(
        event,
        Event::Succeeded { .. }
            | Event::Failed { .. }
            | Event::Reconciled { .. }
            | Event::UndoSucceeded { .. }
            | Event::UndoFailed { .. }
    )
}

fn error_of(event: &Event) -> Option<String> {
    let mut text = match event {
        Event::Failed { step, error, .. } => format!("{step}: {error}"),
        Event::UndoFailed { step, error, .. } => format!("undo of {step}: {error}"),
        _ => return None,
    };
    let end = (0..=MAX_ERROR.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    Some(text)
}
