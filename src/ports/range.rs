//! An inclusive range of ports, and its aligned power-of-two blocks.

use core::fmt;
use core::str::FromStr;

use super::Psid;

/// An inclusive, never empty range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port, 0 to 65535.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The range `first..=last`; `None` where `first > last`.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// The range of a single port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// The number of ports, 1 to 65536.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether `port` lies in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Every port of the range, ascending.
    pub fn ports(self) -> impl DoubleEndedIterator<Item = u16> {
        self.first..=self.last
    }

    /// The aligned power-of-two blocks that make up the range, ascending: at most 30 of them.
    ///
    /// A block is a PSID set with `a = 0` (PE-ARP rule 72: a RANGE is a union of such sets), so that ranges and
    /// PSIDs share one form in the neighbor table.
    pub fn blocks(self) -> impl Iterator<Item = Psid> {
        let mut next = Some(u32::from(self.first));
        core::iter::from_fn(move || {
            let start = next?;
            let left = u32::from(self.last) - start + 1;
            // The largest block that is aligned at `start` and does not pass the end.
            let align = if start == 0 { 16 } else { start.trailing_zeros() };
            let bits = align.min(left.ilog2());
            let end = start + (1 << bits);
            next = (end <= u32::from(self.last)).then_some(end);
            Some(Psid::block(start as u16, bits as u8))
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Why a text is not a port range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRangeError {
    /// Not `PORT` or `FIRST-LAST`.
    #[error("`{0}` is not a port or a range: write PORT or FIRST-LAST, each 0 to 65535")]
    Syntax(String),
    /// The first port is above the last.
    #[error("`{0}` runs backwards: the first port must not be above the last")]
    Backwards(String),
}

impl FromStr for PortRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || ParseRangeError::Syntax(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first = first.trim().parse().map_err(|_| syntax())?;
        let last = last.trim().parse().map_err(|_| syntax())?;
        Self::new(first, last).ok_or_else(|| ParseRangeError::Backwards(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_and_prints() {
        assert_eq!("22".parse(), Ok(PortRange::single(22)));
        assert_eq!("4096-8191".parse::<PortRange>().unwrap().to_string(), "4096-8191");
        assert!(matches!("8191-4096".parse::<PortRange>(), Err(ParseRangeError::Backwards(_))));
        for bad in ["", "-", "x", "1-", "-1", "70000", "1-2-3"] {
            assert!(matches!(bad.parse::<PortRange>(), Err(ParseRangeError::Syntax(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn blocks_cover_the_range_exactly(a: u16, b: u16) {
            let range = PortRange::new(a.min(b), a.max(b)).unwrap();
            let blocks: Vec<_> = range.blocks().collect();
            prop_assert!(blocks.len() <= 30);
            let mut next = u32::from(range.first());
            for block in blocks {
                let covered: Vec<_> = block.ranges().collect();
                prop_assert_eq!(covered.len(), 1);
                prop_assert_eq!(u32::from(covered[0].first()), next);
                next = u32::from(covered[0].last()) + 1;
            }
            prop_assert_eq!(next, u32::from(range.last()) + 1);
        }
    }
}
