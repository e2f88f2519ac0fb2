//! The word that says what to do with a call, and what a call is given: a ticket, or a refusal.

use std::num::NonZeroU32;

use super::machine::{Automatic, Machine};
use super::state::State;

/// The right to make one call; it has to come back, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// 0 for a call that is not counted.
    pub(crate) generation: u64,
    pub(crate) probe: Option<NonZeroU32>,
}

impl Ticket {
    /// For a call that is not counted.
    pub(crate) const UNCOUNTED: Self = Self {
        generation: 0,
        probe: None,
    };
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) state: State,
    /// Nanoseconds until a probe is admitted, where that is known.
    pub(crate) retry_after: Option<u64>,
}

impl Refusal {
    /// That of a state which admits no call now.
    pub(crate) fn by(machine: &Machine, now: u64) -> Self {
        let state = machine.state();
        let retry_after = match (state, machine.automatic()) {
            (State::Open, Automatic::Open { until }) => Some(until.saturating_sub(now)),
            _ => None,
        };
        Self { state, retry_after }
    }
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Yes,
    /// It says nothing about the dependency, or nobody counts.
    No,
    /// It belongs to a state that is over.
    Stale,
}

/// Generation and state in one word.
#[derive(Clone, Copy)]
pub(crate) struct Control(pub(crate) u64);

impl Control {
    const STATE_BITS: u32 = 3;

    pub(crate) fn of(machine: &Machine) -> Self {
        let state = match machine.state() {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
            State::ForcedOpen => 3,
            State::ForcedClosed => 4,
            State::Disabled => 5,
            State::Isolated => 6,
        };
        Self(machine.generation() << Self::STATE_BITS | state)
    }

    #[inline]
    pub(crate) fn generation(self) -> u64 {
        self.0 >> Self::STATE_BITS
    }

    #[inline]
    pub(crate) fn is_closed(self) -> bool {
        self.0 & ((1 << Self::STATE_BITS) - 1) == 0
    }

    #[inline]
    pub(crate) fn is_open(self) -> bool {
        self.0 & ((1 << Self::STATE_BITS) - 1) == 1
    }

    /// What most breakers do with most calls.
    #[inline]
    pub(crate) fn admits_as_closed(self) -> Option<Ticket> {
        let ticket = || Ticket {
            generation: self.generation(),
            probe: None,
        };
        self.is_closed().then(ticket)
    }

    /// What a state without probes does with a call; `None` for open and half-open.
    pub(crate) fn admits(self) -> Option<Result<Ticket, Refusal>> {
        let state = self.state();
        match state {
            State::Closed | State::ForcedClosed => Some(Ok(Ticket {
                generation: self.generation(),
                probe: None,
            })),
            State::Disabled => Some(Ok(Ticket::UNCOUNTED)),
            State::ForcedOpen | State::Isolated => Some(Err(Refusal {
                state,
                retry_after: None,
            })),
            State::Open | State::HalfOpen => None,
        }
    }

    pub(crate) fn state(self) -> State {
        match self.0 & ((1 << Self::STATE_BITS) - 1) {
            0 => State::Closed,
            1 => State::Open,
            2 => State::HalfOpen,
            3 => State::ForcedOpen,
            4 => State::ForcedClosed,
            5 => State::Disabled,
            _ => State::Isolated,
        }
    }
}
