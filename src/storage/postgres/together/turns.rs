//! Who goes alone, who waits, and who goes with whom: the rules, without any waiting.
//!
//! While somebody waits all turns are taken, so each of them is passed on sooner or later and takes the first of those who
//! wait along.

use std::collections::VecDeque;
use std::mem;

/// How many statements are under way at once. Fewer make larger groups, of which the server does more in the same time; more
/// let a caller among few go at once.
pub(super) const TURNS: usize = 8;
/// How many go together at most.
pub(super) const GROUP: usize = 64;

pub(super) struct Turns<T> {
    taken: usize,
    waiting: VecDeque<(u64, T)>,
    last: u64,
}

impl<T> Turns<T> {
    pub(super) fn new() -> Self {
        Self {
            taken: 0,
            waiting: VecDeque::new(),
            last: 0,
        }
    }

    /// Takes a turn, where one is free.
    pub(super) fn take(&mut self) -> bool {
        let free = self.taken < TURNS;
        self.taken += usize::from(free);
        free
    }

    /// Waits behind the others. The ticket is for leaving.
    pub(super) fn wait(&mut self, waiting: T) -> u64 {
        self.last += 1;
        self.waiting.push_back((self.last, waiting));
        self.last
    }

    /// Waits no more, unless it was taken along.
    pub(super) fn leave(&mut self, ticket: u64) -> Option<T> {
        let at = self.at(ticket)?;
        self.waiting.remove(at).map(|(_, waiting)| waiting)
    }

    /// Who has waited for too long goes, and those behind go along: one turn more than there are, which nobody is given
    /// when it is over. Nobody goes where `ticket` does not wait: it was taken along.
    pub(super) fn hurry(&mut self, ticket: u64) -> Vec<T> {
        let Some(at) = self.at(ticket) else {
            return Vec::new();
        };
        self.taken += 1;
        self.go(at)
    }

    /// A turn is over. Who goes next has it from now on; where nobody waits it is free.
    pub(super) fn pass_on(&mut self) -> Vec<T> {
        if self.taken > TURNS || self.waiting.is_empty() {
            self.taken -= 1;
            return Vec::new();
        }
        self.go(0)
    }

    /// A turn is over in which nobody went, as nothing runs any more where it was to be: all who wait do so for nothing.
    pub(super) fn give_up(&mut self) -> VecDeque<(u64, T)> {
        self.taken -= 1;
        mem::take(&mut self.waiting)
    }

    fn at(&self, ticket: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    fn go(&mut self, from: usize) -> Vec<T> {
        let end = self.waiting.len().min(from + GROUP);
        self.waiting.drain(from..end).map(|(_, waiting)| waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Move {
        Come,
        Leave(prop::sample::Index),
        Hurry(prop::sample::Index),
        End(prop::sample::Index),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            6 => Just(Move::Come),
            1 => any::<prop::sample::Index>().prop_map(Move::Leave),
            1 => any::<prop::sample::Index>().prop_map(Move::Hurry),
            3 => any::<prop::sample::Index>().prop_map(Move::End),
        ];
        proptest::collection::vec(one, 1..400)
    }

    #[test]
    fn no_more_go_together_than_may() {
        let mut turns = Turns::new();
        while turns.take() {}
        for who in 0..GROUP + 2 {
            turns.wait(who);
        }
        assert_eq!(turns.pass_on().len(), GROUP);
        assert_eq!(turns.pass_on().len(), 2);
    }

    proptest! {
        /// Against a list of who waits and a list of who is under way.
        #[test]
        fn all_who_come_go_in_their_order_unless_they_leave_or_hurry_and_only_who_hurries_makes_turns_more(moves in moves()) {
            let mut turns = Turns::new();
            let mut waiting: VecDeque<(u64, u32)> = VecDeque::new();
            let mut gone: Vec<u64> = Vec::new();
            let mut under_way: Vec<Vec<u32>> = Vec::new();
            let mut next = 0;
            for one in moves {
                match one {
                    Move::Come => {
                        next += 1;
                        prop_assert_eq!(turns.take(), under_way.len() < TURNS);
                        if under_way.len() < TURNS {
                            under_way.push(vec![next]);
                        } else {
                            waiting.push_back((turns.wait(next), next));
                        }
                    }
                    Move::Leave(who) if !waiting.is_empty() => {
                        let (ticket, _) = waiting.remove(who.index(waiting.len())).unwrap();
                        prop_assert!(turns.leave(ticket).is_some());
                        gone.push(ticket);
                    }
                    Move::Hurry(who) if !waiting.is_empty() => {
                        let from = who.index(waiting.len());
                        let to = waiting.len().min(from + GROUP);
                        let (tickets, group): (Vec<u64>, Vec<u32>) = waiting.drain(from..to).unzip();
                        prop_assert_eq!(turns.hurry(tickets[0]), group.clone());
                        gone.extend(tickets);
                        under_way.push(group);
                    }
                    Move::End(which) if !under_way.is_empty() => {
                        under_way.swap_remove(which.index(under_way.len()));
                        let group = turns.pass_on();
                        let next = if under_way.len() < TURNS { GROUP } else { 0 };
                        let expected: Vec<u32> = waiting.iter().take(next).map(|(_, who)| *who).collect();
                        gone.extend(waiting.drain(..expected.len()).map(|(ticket, _)| ticket));
                        prop_assert_eq!(&group, &expected);
                        if !group.is_empty() {
                            under_way.push(group);
                        }
                    }
                    Move::Leave(_) | Move::Hurry(_) | Move::End(_) => {}
                }
                prop_assert!(waiting.is_empty() || under_way.len() >= TURNS, "somebody waits for nothing");
                for ticket in &gone {
                    prop_assert!(turns.leave(*ticket).is_none());
                    prop_assert!(turns.hurry(*ticket).is_empty());
                }
            }
        }
    }
}
