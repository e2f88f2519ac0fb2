//! Who waits for the state to change.

use std::sync::OnceLock;

use tokio::sync::watch::{Receiver, Sender};

use super::outside::Transition;
use super::state::State;

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

    /// `now` is asked for after there is a channel, and under the lock of the breaker: a change that it does not see will
    /// find the channel.
    pub(crate) fn subscribe(&self, now: impl FnOnce() -> (u64, State)) -> StateChanges {
        let latest = Latest {
            generation: 0,
            state: State::Closed,
        };
        let receiver = self.0.get_or_init(|| Sender::new(latest)).subscribe();
        let (generation, state) = now();
        let seen = Latest { generation, state };
        StateChanges { receiver, seen }
    }
}

/// The states that a circuit breaker goes through; made by [`CircuitBreaker::subscribe`](super::CircuitBreaker::subscribe).
#[derive(Debug)]
pub struct StateChanges {
    receiver: Receiver<Latest>,
    seen: Latest,
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
            let latest = *self.receiver.borrow_and_update();
            // What was seen at the start may be announced late.
            let newer = latest.generation > self.seen.generation;
            if newer && latest.state != self.seen.state {
                self.seen = latest;
                return Some(latest.state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::window::Counts;
    use super::*;

    fn transition(generation: u64, to: State) -> Transition {
        Transition {
            from: State::Closed,
            to,
            generation,
            counts: Counts::default(),
            openings: 0,
            open_for: None,
        }
    }

    #[test]
    fn a_change_that_is_announced_late_is_not_told_after_a_later_one() {
        let watch = Watch::default();
        let mut changes = watch.subscribe(|| (3, State::HalfOpen));
        watch.tell(&transition(2, State::Open));
        assert_eq!(changes.changed().now_or_never(), None);
        watch.tell(&transition(3, State::HalfOpen));
        assert_eq!(changes.changed().now_or_never(), None);
        watch.tell(&transition(4, State::Closed));
        assert_eq!(changes.changed().now_or_never(), Some(Some(State::Closed)));
    }
}
