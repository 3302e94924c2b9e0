//! When a host asks for a further set of an address, and when it gives one back (PE-ARP rule 103).

use smoltcp::time::{Duration, Instant};

/// A host with more of its ports in use, in percent, asks for more.
const GROW_ABOVE: u32 = 80;
/// One with less of them in use, for [`SHRINK_AFTER`], gives some back.
const SHRINK_BELOW: u32 = 20;
/// How long few ports have to be in use.
const SHRINK_AFTER: Duration = Duration::from_secs(600);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nothing.
    Keep,
    /// More ports are needed.
    Grow,
    /// A set is to be given back.
    Shrink,
}

/// How the ports of one address have been used.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Since when few are in use.
    low_since: Option<Instant>,
}

impl Growth {
    /// `used` of the `total` ports that programs may choose from are in use.
    pub(super) fn observe(&mut self, used: u32, total: u32, now: Instant) -> Advice {
        if used * 100 >= SHRINK_BELOW * total {
            self.low_since = None;
            return if used * 100 > GROW_ABOVE * total { Advice::Grow } else { Advice::Keep };
        }
        let since = *self.low_since.get_or_insert(now);
        if now < since + SHRINK_AFTER {
            return Advice::Keep;
        }
        // One set at a time.
        self.low_since = Some(now);
        Advice::Shrink
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_four_fifths_grow_at_once() {
        let mut growth = Growth::default();
        let now = Instant::ZERO;
        assert_eq!(growth.observe(80, 100, now), Advice::Keep);
        assert_eq!(growth.observe(81, 100, now), Advice::Grow);
        assert_eq!(growth.observe(2, 2, now), Advice::Grow);
        assert_eq!(growth.observe(0, 0, now), Advice::Keep);
    }

    #[test]
    fn less_than_a_fifth_for_ten_minutes_shrinks() {
        let mut growth = Growth::default();
        let at = Instant::from_secs;
        assert_eq!(growth.observe(19, 100, at(0)), Advice::Keep);
        assert_eq!(growth.observe(0, 100, at(599)), Advice::Keep);
        assert_eq!(growth.observe(20, 100, at(600)), Advice::Keep, "in between it was more");
        assert_eq!(growth.observe(19, 100, at(601)), Advice::Keep);
        assert_eq!(growth.observe(19, 100, at(1200)), Advice::Keep);
        assert_eq!(growth.observe(19, 100, at(1201)), Advice::Shrink);
        assert_eq!(growth.observe(19, 100, at(1202)), Advice::Keep, "one at a time");
        assert_eq!(growth.observe(19, 100, at(1801)), Advice::Shrink);
    }
}
