//! Who waits for the state to change.

use std::sync::OnceLock;

use tokio::sync::watch::{Receiver, Sender};

use super::cell::Transition;
use super::machine::State;

/// The channel, made for the first who asks.
#[derive(Default)]
pub(crate) struct Watch(OnceLock<Sender<Latest>>);

/// The state that the latest generation began with.
#[derive(Clone, Copy, Debug)]
struct Latest {
    generation: u64,
    state: State,
}

impl Watch {
    pub(crate) fn tell(&self, transition: &Transition) {
        let Some(sender) = self.0.get() else { return };
        let &Transition {
            generation, to: state, ..
        } = transition;
        sender.send_if_modified(|latest| {
            // Two threads that announce at once may come here in any order.
            let newer = generation > latest.generation;
            if newer {
                *latest = Latest { generation, state };
            }
            newer
        });
    }

    /// `now` is asked for after there is a channel, so that no change falls between the two.
    pub(crate) fn subscribe(&self, now: impl FnOnce() -> State) -> StateChanges {
        let latest = Latest {
            generation: 0,
            state: State::Closed,
        };
        let receiver = self.0.get_or_init(|| Sender::new(latest)).subscribe();
        StateChanges { receiver, seen: now() }
    }
}

/// The states that a circuit breaker goes through; made by [`CircuitBreaker::subscribe`](super::CircuitBreaker::subscribe).
#[derive(Debug)]
pub struct StateChanges {
    receiver: Receiver<Latest>,
    seen: State,
}

impl StateChanges {
    /// Waits until the state is another than the last one seen here, and returns it; `None` when the breaker is gone.
    ///
    /// Who comes late sees the latest state and not those in between.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no change.
    pub async fn changed(&mut self) -> Option<State> {
        loop {
            self.receiver.changed().await.ok()?;
            let state = self.receiver.borrow_and_update().state;
            if state != self.seen {
                self.seen = state;
                return Some(state);
            }
        }
    }
}
