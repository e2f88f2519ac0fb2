//! Who waits for a permit, in the order of arrival: no permits, no locks.

use std::num::NonZeroU32;
use std::task::Waker;

/// A line of waiters, first come first served, which any of them may leave at any time.
///
/// It is a list through the elements of a vector: joining, leaving and moving up each take the same few steps, however
/// long the line is. A place is given away again only when its waiter has come to know what became of it, so there are
/// never more places than waiters were there at once.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    places: Vec<Place>,
    /// The first of the places that nobody has, linked by `behind`.
    vacant: Option<usize>,
    first: Option<usize>,
    last: Option<usize>,
    waiting: u32,
}

#[derive(Debug)]
struct Place {
    weight: NonZeroU32,
    /// `None` while it waits.
    settled: Option<Settled>,
    waker: Option<Waker>,
    ahead: Option<usize>,
    behind: Option<usize>,
}

/// What became of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It has its permit.
    Granted,
    /// It is heavier than the limit has become.
    Refused,
}

/// A place in the line. Whoever has it gives it back, once: by asking until it is settled, or by leaving.
#[derive(Debug)]
pub(crate) struct Ticket(usize);

impl Queue {
    pub(crate) fn len(&self) -> u32 {
        self.waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(crate) fn join(&mut self, weight: NonZeroU32) -> Ticket {
        let place = Place {
            weight,
            settled: None,
            waker: None,
            ahead: self.last,
            behind: None,
        };
        let index = self.vacant.unwrap_or(self.places.len());
        if self.vacant.is_some() {
            self.vacant = self.places[index].behind;
            self.places[index] = place;
        } else {
            self.places.push(place);
        }
        match self.last {
            Some(last) => self.places[last].behind = Some(index),
            None => self.first = Some(index),
        }
        self.last = Some(index);
        self.waiting += 1;
        Ticket(index)
    }

    /// The weight of the first in the line.
    pub(crate) fn first(&self) -> Option<NonZeroU32> {
        self.first.map(|first| self.places[first].weight)
    }

    /// The first in the line has its permit; its waker, if it has been polled.
    pub(crate) fn grant_first(&mut self) -> Option<Waker> {
        self.first.and_then(|first| self.settle(first, Settled::Granted))
    }

    /// Refuses whoever is heavier than `limit`, wherever in the line.
    pub(crate) fn refuse_above(&mut self, limit: u32, mut woken: impl FnMut(Waker)) {
        let mut next = self.first;
        while let Some(index) = next {
            next = self.places[index].behind;
            if self.places[index].weight.get() > limit {
                self.settle(index, Settled::Refused).into_iter().for_each(&mut woken);
            }
        }
    }

    /// What became of a waiter, or its ticket again and `waker` in the place of the one it had, which is swapped out.
    pub(crate) fn poll(&mut self, ticket: Ticket, waker: &mut Option<Waker>) -> Result<Settled, Ticket> {
        let place = &mut self.places[ticket.0];
        let Some(settled) = place.settled else {
            std::mem::swap(&mut place.waker, waker);
            return Err(ticket);
        };
        self.vacate(ticket);
        Ok(settled)
    }

    /// Takes a waiter out of the line: what had become of it, if that was settled, and the waker it had.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> (Option<Settled>, Option<Waker>) {
        let settled = self.places[ticket.0].settled;
        let waker = self.places[ticket.0].waker.take();
        if settled.is_none() {
            self.unlink(ticket.0);
        }
        self.vacate(ticket);
        (settled, waker)
    }

    fn settle(&mut self, index: usize, settled: Settled) -> Option<Waker> {
        self.unlink(index);
        let place = &mut self.places[index];
        place.settled = Some(settled);
        place.waker.take()
    }

    fn unlink(&mut self, index: usize) {
        let Place { ahead, behind, .. } = self.places[index];
        match ahead {
            Some(ahead) => self.places[ahead].behind = behind,
            None => self.first = behind,
        }
        match behind {
            Some(behind) => self.places[behind].ahead = ahead,
            None => self.last = ahead,
        }
        self.waiting -= 1;
    }

    fn vacate(&mut self, Ticket(index): Ticket) {
        self.places[index].behind = self.vacant.replace(index);
    }
}
