//! The record of one key, and every transition of it: pure, so that each store can be held against it.
//!
//! ```text
//!            claim                    complete
//!   absent ---------> in progress -----------------> completed ---> absent, when it expires
//!      ^                |      ^ claim, at least once
//!      | release,       |      | (attempt + 1)
//!      | first attempt  v      |
//!      +------------ (lease over) interrupted ---> cancelled, outcome unknown
//!      |                  cancel                        (for ever)
//!      +---> cancelled (for ever)
//! ```
//!
//! A record in progress whose lease is over is *interrupted*. A record that has expired counts as absent in every
//! transition, whether it has been purged or not. Both are half-open: over, and expired, when `now >= t`.

mod debug;
#[cfg(test)]
mod model;
mod origin;
#[cfg(test)]
mod table;
mod transitions;
mod types;

pub use origin::{Face, Origin};
pub use types::{
    Cancellation, Claim, ClaimId, Claimed, Completed, Ended, Forgotten, Interrupted, Mode, Outcome, Owner, Record,
    Renewed, Resolution, Resolved, Step, Write,
};
