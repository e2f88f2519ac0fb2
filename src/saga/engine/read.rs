//! A saga, read from its journal.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::super::definition::Definition;
use super::super::drive::Standing;
use super::super::event::Event;
use super::super::journal::Loaded;
use super::super::record::BoxError;

/// An error that was written down: its text is all that is left of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Recorded(String);

/// Why a saga cannot be read.
pub(crate) enum Unread {
    /// Not all of its events were read: another try may get them.
    Truncated,
    /// Its context is not one of this definition.
    Context(BoxError),
}

/// Where a saga stands.
pub(crate) fn read<C: DeserializeOwned, D>(saga: &Definition<C, D>, loaded: &Loaded) -> Result<Standing<C>, Unread> {
    if !is_whole(loaded) {
        return Err(Unread::Truncated);
    }
    let last = loaded
        .entries
        .iter()
        .rev()
        .find_map(|stored| stored.entry.context.as_ref());
    let context = context(saga, loaded, last).map_err(Unread::Context)?;
    let mut standing = Standing::new(saga, context);
    for stored in &loaded.entries {
        let Ok(event) = serde_json::from_slice::<Event>(&stored.entry.event) else {
            standing.state.corrupt = true;
            continue;
        };
        standing.apply(saga, &event, loaded.now.saturating_sub(stored.at));
        standing.remember(saga, &event);
    }
    Ok(standing)
}

/// Whether all of its events are there.
pub(crate) fn is_whole(loaded: &Loaded) -> bool {
    let dense = (0..).zip(&loaded.entries).all(|(seq, stored)| stored.seq == seq);
    dense && u64::try_from(loaded.entries.len()) == Ok(loaded.head.seq)
}

fn context<C: DeserializeOwned, D>(
    saga: &Definition<C, D>,
    loaded: &Loaded,
    bytes: Option<&Bytes>,
) -> Result<C, BoxError> {
    let bytes = bytes.ok_or("there is no context")?;
    let version = loaded.head.definition.version;
    if version == saga.version {
        return Ok(serde_json::from_slice(bytes)?);
    }
    let upcast = saga.upcasts.iter().find(|(from, _)| *from == version);
    let (_, upcast) = upcast.ok_or("it is of another version")?;
    Ok(serde_json::from_value(upcast(serde_json::from_slice(bytes)?)?)?)
}

impl<C> Standing<C> {
    /// Keeps the error that an event tells of.
    fn remember<D>(&mut self, saga: &Definition<C, D>, event: &Event) {
        let (errors, step, error) = match event {
            Event::Failed { step, error, .. } => (&mut self.errors, step, error),
            Event::UndoFailed { step, error, .. } => (&mut self.undo_errors, step, error),
            _ => return,
        };
        if let Some(step) = saga.plan.index(step) {
            errors[step] = Some(Arc::new(Recorded(error.clone())));
        }
    }
}
