//! What is printed.

use std::fmt;

use reqwest::Response;
use steadfast::circuit_breaker::{Event, State};
use steadfast::{Error, Rejected};
use tokio::time::Instant;

/// What became of the calls in one face.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u32,
    pub(crate) failed: u32,
    pub(crate) rejected: u32,
}

impl Tally {
    pub(crate) fn count(&mut self, result: &Result<Response, Error<reqwest::Error>>) -> &'static str {
        let (count, outcome) = match result {
            Ok(response) if response.status().is_success() => (&mut self.answered, "answered"),
            Err(error) if Rejected::find(error).is_some() => (&mut self.rejected, "rejected"),
            Ok(_) | Err(_) => (&mut self.failed, "failed"),
        };
        *count += 1;
        outcome
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            failed,
            rejected,
        } = self;
        write!(f, "{answered} answered, {failed} failed, {rejected} rejected")
    }
}

/// Prints what happens with the time since the start.
#[derive(Clone, Copy)]
pub(crate) struct Timeline(pub(crate) Instant);

impl Timeline {
    pub(crate) fn say(self, who: &str, what: &str) {
        println!("{:5.2} s  {who:<9}{what}", self.0.elapsed().as_secs_f64());
    }

    /// The listener of the breaker: of all that it hears, only the changes of state are printed.
    pub(crate) fn tell(self, event: &Event<'_>) {
        if let Event::StateChanged {
            from,
            to,
            calls,
            failures,
            open_for,
            ..
        } = event
        {
            let reason = match (from, to) {
                (_, State::HalfOpen) => "its time is over, the next calls are probes".to_owned(),
                (State::HalfOpen, _) => format!("{failures} of {calls} probes had failed"),
                _ => format!("{failures} of {calls} calls had failed"),
            };
            let open_for = open_for.map_or(String::new(), |time| format!(", for {time:?}"));
            let (from, to) = (from.as_str(), to.as_str());
            self.say("breaker", &format!("{from} -> {to}{open_for}: {reason}"));
        }
    }
}
