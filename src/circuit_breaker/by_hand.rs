//! What an operator asks of a cell: always under its lock.

use super::cell::Cell;
use super::control::Refusal;
use super::machine::{Automatic, Forced, Machine, OpenTime};
use super::outside::{Kept, Outside, Report};
use super::state::State;
use crate::sync::Ordering;

impl Cell {
    /// The generation and the state, after every change that is yet to be announced.
    pub(crate) fn settled(&self) -> (u64, State) {
        let machine = self.lock();
        (machine.generation(), machine.state())
    }

    pub(crate) fn force(&self, forced: Forced, outside: &impl Outside) {
        self.change(outside, None, |machine, now, _| {
            machine.force(forced, self.counts_of(machine, now), now);
        });
    }

    pub(crate) fn reset(&self, outside: &impl Outside) {
        self.change(outside, None, |machine, now, _| {
            machine.reset(self.counts_of(machine, now), now);
        });
    }

    pub(crate) fn isolate(&self, outside: &impl Outside) {
        self.change(outside, None, |machine, now, _| {
            machine.isolate(self.counts_of(machine, now), now);
        });
    }

    pub(crate) fn release(&self, outside: &impl Outside) {
        self.change(outside, None, |machine, now, _| {
            machine.release(self.counts_of(machine, now), now);
        });
    }

    pub(crate) fn report(&self, outside: &impl Outside) -> Report {
        let machine = self.lock();
        let now = outside.now();
        let Refusal { state, retry_after } = Refusal::by(&machine, now);
        Report {
            state,
            since: machine.since(),
            counts: self.counts_of(&machine, now),
            failures_in_a_row: self.memory.failures_in_a_row(machine.generation()),
            openings: machine.openings(),
            probes_in_flight: machine.probes_in_flight(),
            retry_after,
            stale: self.stale.load(Ordering::Relaxed),
            minimum: self.memory.minimum(),
        }
    }

    pub(crate) fn export(&self, outside: &impl Outside) -> Kept {
        let machine = self.lock();
        let now = outside.now();
        Kept {
            automatic: match machine.automatic() {
                Automatic::Open { until } => Automatic::Open {
                    until: until.saturating_sub(now),
                },
                closed_or_half_open => closed_or_half_open,
            },
            forced: machine.forced(),
            openings: machine.openings(),
            remembered: self.memory.export(machine.generation(), now),
        }
    }

    /// Goes on from what was kept; false if its calls are not of the kind that this breaker remembers.
    pub(crate) fn restore(&self, kept: &Kept, outside: &impl Outside) -> bool {
        if !self.memory.takes(&kept.remembered) {
            return false;
        }
        let drive = |machine: &mut Machine, now: u64, _: &OpenTime<'_>| {
            let automatic = match kept.automatic {
                Automatic::Open { until } => Automatic::Open {
                    until: now.saturating_add(until),
                },
                // Its probes are not here: the next call begins another round.
                Automatic::HalfOpen => Automatic::Open { until: now },
                Automatic::Closed => Automatic::Closed,
            };
            machine.restore(automatic, kept.forced, kept.openings, self.counts_of(machine, now), now);
        };
        let fill = |generation, now| self.memory.restore(&kept.remembered, generation, now);
        self.change_and_fill(outside, None, drive, fill);
        true
    }
}
