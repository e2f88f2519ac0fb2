//! What a breaker does with calls.

/// What a circuit breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls are admitted and counted.
    Closed,
    /// Calls are rejected, until the open time is over.
    Open,
    /// A few calls are admitted, as probes.
    HalfOpen,
    /// Calls are rejected, until somebody resets the breaker.
    ForcedOpen,
    /// Calls are admitted and counted, and nothing opens the breaker until somebody resets it.
    ForcedClosed,
    /// Calls are admitted and not counted, until somebody resets the breaker.
    Disabled,
    /// Calls are rejected, until the last [`Isolation`](super::Isolation) is released.
    Isolated,
}

impl State {
    /// Whether every call is rejected: `Open`, `ForcedOpen` and `Isolated`.
    ///
    /// A breaker stays `Open` after its open time is over, until a call comes, which is then the first probe.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::ForcedOpen | Self::Isolated)
    }

    /// The state as a label: `closed`, `open`, `half_open`, `forced_open`, `forced_closed`, `disabled` or `isolated`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
            Self::Isolated => "isolated",
        }
    }
}
