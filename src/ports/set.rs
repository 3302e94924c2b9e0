//! What a host owns of an address: a PSID or a list of ranges.

use core::fmt;
use core::str::FromStr;

use super::{ParseRangeError, PortBitmap, PortRange, Psid};

/// The most ranges that a set given as ranges may have; each becomes one PE-ARP record.
const MAX_RANGES: usize = 100;

/// The port set of a host, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSet {
    /// A PSID of the address's sharing scheme.
    Psid(Psid),
    /// Ascending, disjoint ranges.
    Ranges(Vec<PortRange>),
}

impl PortSet {
    /// Every port: the set of a host that has an address of its own.
    pub const FULL: Self = Self::Psid(Psid::FULL);

    /// Whether this is the whole address.
    pub fn is_full(&self) -> bool {
        *self == Self::FULL
    }

    /// Whether `port` is a member.
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::Psid(psid) => psid.contains(port),
            Self::Ranges(ranges) => ranges.iter().any(|range| range.contains(port)),
        }
    }

    /// The lowest member.
    pub fn first(&self) -> u16 {
        match self {
            Self::Psid(psid) => psid.first(),
            Self::Ranges(ranges) => ranges.first().map_or(0, |range| range.first()),
        }
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> Vec<PortRange> {
        match self {
            Self::Psid(psid) => psid.ranges().collect(),
            Self::Ranges(ranges) => ranges.clone(),
        }
    }

    /// One bit per port.
    pub fn to_bitmap(&self) -> PortBitmap {
        self.ranges().into_iter().flat_map(PortRange::ports).collect()
    }
}

impl From<Psid> for PortSet {
    fn from(psid: Psid) -> Self {
        Self::Psid(psid)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges().into_iter().enumerate() {
            write!(f, "{}{range}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// Why a text is not a port set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSetError {
    /// One of the ranges.
    #[error(transparent)]
    Range(#[from] ParseRangeError),
    /// Two ranges share a port.
    #[error("ranges {0} and {1} overlap")]
    Overlap(PortRange, PortRange),
    /// More ranges than a message can carry.
    #[error("{0} ranges, but a set has at most {MAX_RANGES}; give a PSID for scattered sets")]
    TooMany(usize),
}

impl FromStr for PortSet {
    type Err = ParseSetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut ranges =
            text.split(',').map(|part| part.trim().parse()).collect::<Result<Vec<PortRange>, _>>()?;
        ranges.sort_unstable();
        if ranges.len() > MAX_RANGES {
            return Err(ParseSetError::TooMany(ranges.len()));
        }
        for pair in ranges.windows(2) {
            if pair[1].first() <= pair[0].last() {
                return Err(ParseSetError::Overlap(pair[0], pair[1]));
            }
        }
        // The whole address has one form. Another aligned range stays one: it says nothing of a sharing scheme.
        if ranges == [PortRange::ALL] { Ok(Self::FULL) } else { Ok(Self::Ranges(ranges)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_ranges() {
        let aligned: PortSet = "4096-8191".parse().unwrap();
        assert_eq!(aligned, PortSet::Ranges(vec!["4096-8191".parse().unwrap()]));
        assert_eq!("0-65535".parse(), Ok(PortSet::FULL));
        let ragged: PortSet = "9000, 5000-5999".parse().unwrap();
        assert_eq!(ragged.to_string(), "5000-5999,9000");
        assert_eq!(ragged.first(), 5000);
        assert_eq!(ragged.to_bitmap().count(), 1001);
        assert_eq!(ragged.to_bitmap().ranges(), ragged.ranges());
    }

    #[test]
    fn refuses_overlap_and_excess() {
        assert!(matches!("1-5,5-9".parse::<PortSet>(), Err(ParseSetError::Overlap(..))));
        assert!(matches!("".parse::<PortSet>(), Err(ParseSetError::Range(_))));
        let many: Vec<_> = (0..101).map(|n| (n * 2).to_string()).collect();
        assert!(matches!(many.join(",").parse::<PortSet>(), Err(ParseSetError::TooMany(101))));
    }
}
