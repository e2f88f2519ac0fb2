//! The lease core: what its holder may still do, by its own clock.
//!
//! ```text
//!  before the claim was sent                    0.8 TTL          TTL
//!  |--------------------------------------------|----------------|------>
//!   held: work may start                         may not start    lost
//! ```
//!
//! The holder measures from before the request was sent, the store from when it handled it: so the holder thinks its
//! lease over before anybody else can take it, whatever the network did.

use std::time::Duration;

/// How long a lease lasts by default.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(30);
/// The shortest lease: below it a scheduling delay looks like a crash.
pub(crate) const MIN_LEASE: Duration = Duration::from_millis(200);

/// The longest: whoever crashes keeps others away for that long.
pub(crate) const MAX_LEASE: Duration = Duration::from_secs(86_400);

/// For how long of a lease of `ttl` work may start.
pub(crate) fn may_start_for(ttl: Duration) -> Duration {
    ttl / 5 * 4
}

/// A lease as its holder sees it. Times are the holder's own, since an origin of its choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    ttl: Duration,
    /// When the last request that the store granted was sent.
    granted: Duration,
    /// When the first one was.
    first: Duration,
    /// Nothing is renewed later than this after `first`.
    ceiling: Duration,
    /// The store has said that somebody else holds it.
    taken: bool,
}

impl Lease {
    /// A lease of `ttl`, whose claim was sent at `sent`; it is renewed for at most `ceiling`.
    pub(crate) fn claimed(sent: Duration, ttl: Duration, ceiling: Duration) -> Self {
        Self {
            ttl,
            granted: sent,
            first: sent,
            ceiling,
            taken: false,
        }
    }

    /// Whether work may start: not in the last fifth, as it would hardly have begun when the lease ends.
    pub(crate) fn may_start(&self, now: Duration) -> bool {
        !self.taken && now < self.granted.saturating_add(may_start_for(self.ttl))
    }

    /// Whether somebody else may hold it by now.
    pub(crate) fn is_lost(&self, now: Duration) -> bool {
        self.taken || now >= self.ends()
    }

    /// Whether the store has said that somebody else holds it.
    #[cfg(feature = "saga")]
    pub(crate) fn is_taken(&self) -> bool {
        self.taken
    }

    /// When it is lost unless it is renewed.
    pub(crate) fn ends(&self) -> Duration {
        self.granted.saturating_add(self.ttl)
    }

    /// When the next renewal is to be sent: a third of the lease after the last, so that two may fail, and not before
    /// `earliest`. `None` when there will be none: it was taken, or has reached its ceiling.
    pub(crate) fn renew_at(&self, earliest: Duration) -> Option<Duration> {
        let at = self.granted.saturating_add(self.ttl / 3).max(earliest);
        (!self.taken && at < self.first.saturating_add(self.ceiling)).then_some(at)
    }

    /// The renewal that was sent at `sent` was granted. A lease that nobody took comes back to life.
    pub(crate) fn renewed(&mut self, sent: Duration) {
        if !self.taken {
            self.granted = self.granted.max(sent);
        }
    }

    /// Somebody else holds it.
    pub(crate) fn taken(&mut self) {
        self.taken = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn lease() -> Lease {
        Lease::claimed(at(1_000), at(300), at(1_000))
    }

    #[test]
    fn work_starts_in_the_first_four_fifths_of_a_lease_only() {
        assert!(lease().may_start(at(1_239)));
        assert!(!lease().may_start(at(1_240)));
    }

    #[test]
    fn a_lease_is_lost_exactly_at_its_end() {
        assert!(!lease().is_lost(at(1_299)));
        assert!(lease().is_lost(at(1_300)));
        assert_eq!(lease().ends(), at(1_300));
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_sent() {
        let mut lease = lease();
        assert_eq!(lease.renew_at(at(0)), Some(at(1_100)));
        lease.renewed(at(1_100));
        assert!(!lease.is_lost(at(1_399)));
        assert!(lease.is_lost(at(1_400)));
        assert_eq!(lease.renew_at(at(0)), Some(at(1_200)));
    }

    #[test]
    fn an_older_renewal_that_arrives_late_takes_nothing_away() {
        let mut lease = lease();
        lease.renewed(at(1_200));
        lease.renewed(at(1_100));
        assert_eq!(lease.ends(), at(1_500));
    }

    #[test]
    fn a_lease_that_ran_out_comes_back_to_life_if_nobody_took_it() {
        let mut lease = lease();
        assert!(lease.is_lost(at(1_500)));
        lease.renewed(at(1_450));
        assert!(!lease.is_lost(at(1_500)));
    }

    #[test]
    fn a_lease_that_was_taken_is_never_held_again() {
        let mut lease = lease();
        lease.taken();
        lease.renewed(at(1_100));
        assert!(lease.is_lost(at(1_100)));
        assert!(!lease.may_start(at(1_100)));
        assert_eq!(lease.renew_at(at(0)), None);
    }

    #[test]
    fn renewals_stop_at_the_ceiling() {
        let mut lease = lease();
        lease.renewed(at(1_899));
        assert_eq!(lease.renew_at(at(0)), Some(at(1_999)));
        lease.renewed(at(1_900));
        assert_eq!(lease.renew_at(at(0)), None);
    }

    #[test]
    fn a_renewal_that_is_put_off_does_not_get_past_the_ceiling() {
        let lease = lease();
        assert_eq!(lease.renew_at(at(1_050)), Some(at(1_100)));
        assert_eq!(lease.renew_at(at(1_999)), Some(at(1_999)));
        assert_eq!(lease.renew_at(at(2_000)), None);
    }

    #[test]
    fn the_longest_lease_overflows_nothing() {
        let lease = Lease::claimed(at(5), Duration::MAX, Duration::MAX);
        assert!(lease.may_start(Duration::MAX / 2));
        assert_eq!(lease.ends(), Duration::MAX);
    }
}
