//! Port-set identifiers: RFC 7597 §5.1, carried by DHCP option 159 (RFC 7618 §9) and by PE-ARP PSID records.
//!
//! ```text
//!   0          a            a+k          16
//!   +----------+-------------+-----------+
//!   |  A (> 0) |    PSID     |   rest    |      m = 16 - a - k bits of rest
//!   +----------+-------------+-----------+
//! ```

use core::fmt;
use core::str::FromStr;

use super::{FIRST_USER_PORT, PortRange};

/// The sharing scheme of an address: offset length `a` and PSID length `k`, equal for all its sharers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scheme {
    offset: u8,
    length: u8,
}

impl Scheme {
    /// The scheme `(a, k)`.
    ///
    /// # Errors
    /// [`PsidError::Scheme`] where `a > 15` or `a + k > 16`.
    pub const fn new(offset: u8, length: u8) -> Result<Self, PsidError> {
        if offset > 15 || length > 16 || offset + length > 16 {
            return Err(PsidError::Scheme { offset, length });
        }
        Ok(Self { offset, length })
    }

    /// Bits of A, the part that must not be zero; `a`.
    pub const fn offset(self) -> u8 {
        self.offset
    }

    /// Bits of the PSID; `k`.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// The number of PSIDs, 2^k.
    pub const fn sets(self) -> u32 {
        1 << self.length
    }

    /// Bits below the PSID; `m`.
    const fn rest(self) -> u8 {
        16 - self.offset - self.length
    }

    /// Whether `port` belongs to any PSID: not where `a > 0` and A is zero.
    pub const fn covers(self, port: u16) -> bool {
        self.offset == 0 || (port as u32) >> (16 - self.offset) != 0
    }

    /// The first PSID without a system port (PE-ARP rule 71); those after it have none either. `None` where each has one.
    pub fn first_user_psid(self) -> Option<u16> {
        let usable = |value: u16| Psid::new(self, value).is_ok_and(|set| set.first() >= FIRST_USER_PORT);
        if self.offset > 0 {
            // All of them begin in the first block with A = 1.
            return usable(0).then_some(0);
        }
        // PSIDs are ascending blocks.
        let block = 0x1_0000 >> self.length;
        let value = u32::from(FIRST_USER_PORT).div_ceil(block);
        u16::try_from(value).ok().filter(|_| value < self.sets())
    }

    /// The PSID bits of `port`, whether or not the scheme covers it.
    pub const fn psid_of(self, port: u16) -> u16 {
        ((port as u32 >> self.rest()) & (self.sets() - 1)) as u16
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.offset, self.length)
    }
}

/// One port set of a [`Scheme`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Psid {
    scheme: Scheme,
    value: u16,
}

impl Psid {
    /// PSID `value` under `scheme`.
    ///
    /// # Errors
    /// [`PsidError::Value`] where `value` needs more than `k` bits.
    pub const fn new(scheme: Scheme, value: u16) -> Result<Self, PsidError> {
        if value as u32 >= scheme.sets() {
            return Err(PsidError::Value { value, length: scheme.length });
        }
        Ok(Self { scheme, value })
    }

    /// From the wire form, where the PSID is left-aligned in 16 bits (RFC 7618 §9).
    ///
    /// # Errors
    /// [`PsidError::Scheme`] for an impossible `(a, k)`, [`PsidError::LowBits`] where a bit below the PSID is set.
    pub fn from_left_aligned(offset: u8, length: u8, bits: u16) -> Result<Self, PsidError> {
        let scheme = Scheme::new(offset, length)?;
        let value = (bits as u32) >> (16 - length);
        if value << (16 - length) != bits as u32 {
            return Err(PsidError::LowBits { length, bits });
        }
        Ok(Self { scheme, value: value as u16 })
    }

    /// The aligned block of 2^`bits` ports at `first`; the low bits of `first` are ignored. `bits` ≤ 16.
    pub(super) const fn block(first: u16, bits: u8) -> Self {
        let value = (first as u32 >> bits) as u16;
        Self { scheme: Scheme { offset: 0, length: 16 - bits }, value }
    }

    /// The single port `port` as a set: `a = 0, k = 16`.
    pub const fn single(port: u16) -> Self {
        Self::block(port, 0)
    }

    /// The whole address as a set: `a = 0, k = 0`.
    pub const FULL: Self = Self::block(0, 16);

    /// The scheme the set belongs to.
    pub const fn scheme(self) -> Scheme {
        self.scheme
    }

    /// The PSID itself, right-aligned.
    pub const fn value(self) -> u16 {
        self.value
    }

    /// The PSID left-aligned in 16 bits, as on the wire.
    pub const fn left_aligned(self) -> u16 {
        ((self.value as u32) << (16 - self.scheme.length)) as u16
    }

    /// Whether `port` is a member.
    pub const fn contains(self, port: u16) -> bool {
        self.scheme.covers(port) && self.scheme.psid_of(port) == self.value
    }

    /// The number of ports.
    pub const fn count(self) -> u32 {
        let blocks = (1u32 << self.scheme.offset) - (self.scheme.offset > 0) as u32;
        blocks << self.scheme.rest()
    }

    /// The contiguous ranges, ascending: 1 where `a = 0`, else 2^a − 1 before neighbors are joined (`k = 0`).
    ///
    /// Up to 32,767 of them for `a = 15`: never collect the ranges of a set that came from the network.
    pub fn ranges(self) -> impl DoubleEndedIterator<Item = PortRange> {
        let Scheme { offset, .. } = self.scheme;
        let lowest = u32::from(offset > 0);
        (lowest..1 << offset).map(move |index| self.range_at(index))
    }

    fn range_at(self, index: u32) -> PortRange {
        let rest = self.scheme.rest();
        let start = (index << (16 - self.scheme.offset)) | (u32::from(self.value) << rest);
        let end = start + (1 << rest) - 1;
        // `index` < 2^a and `value` < 2^k, so both ends fit 16 bits and are ordered.
        PortRange::new(start as u16, end as u16).expect("a PSID block is never empty")
    }

    /// The lowest member.
    pub fn first(self) -> u16 {
        self.range_at(u32::from(self.scheme.offset > 0)).first()
    }

    /// The lowest member that is not below `port`.
    pub fn first_from(self, port: u16) -> Option<u16> {
        let lowest = u32::from(self.scheme.offset > 0);
        let index = (u32::from(port) >> (16 - self.scheme.offset)).max(lowest);
        let range = self.range_at(index);
        if port <= range.last() {
            return Some(range.first().max(port));
        }
        (index + 1 < 1 << self.scheme.offset).then(|| self.range_at(index + 1).first())
    }

    /// The highest member.
    pub fn last(self) -> u16 {
        self.range_at((1 << self.scheme.offset) - 1).last()
    }

    /// Whether every port of the range is a member.
    pub const fn contains_range(self, range: PortRange) -> bool {
        // Without a PSID the ranges of the set are one, up to the last port. Otherwise there are others between them.
        let rest = ((1u32 << self.scheme.rest()) - 1) as u16;
        self.contains(range.first()) && (self.scheme.length == 0 || range.last() <= range.first() | rest)
    }

    /// Whether every port of the other set is a member.
    pub fn contains_set(self, other: Self) -> bool {
        let (mask, bits) = self.fixed();
        let (other_mask, other_bits) = other.fixed();
        // What this set fixes, the other one fixes, too; and where the lowest of its ports has an A, all have.
        mask & !other_mask == 0 && other_bits & mask == bits && self.scheme.covers(other.first())
    }

    /// Whether the two sets share a port.
    ///
    /// Both sets fix some bits of a port and leave the others free. They meet if and only if the bits that both
    /// fix agree and no A becomes zero; setting every free bit to one is the best chance for the latter.
    pub const fn intersects(self, other: Self) -> bool {
        let (own_mask, own_bits) = self.fixed();
        let (other_mask, other_bits) = other.fixed();
        let best = own_bits | other_bits | !(own_mask | other_mask);
        self.contains(best) && other.contains(best)
    }

    const fn fixed(self) -> (u16, u16) {
        let rest = self.scheme.rest();
        // An A of one bit is 1.
        let offset = if self.scheme.offset == 1 { 1 << 15 } else { 0 };
        let mask = ((self.scheme.sets() - 1) << rest) as u16;
        (offset | mask, offset | ((self.value as u32) << rest) as u16)
    }

    /// Whether the set and the range share a port.
    pub fn intersects_range(self, range: PortRange) -> bool {
        self.first_from(range.first()).is_some_and(|port| port <= range.last())
    }
}

impl fmt::Display for Psid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{:#x}", self.scheme, self.value)
    }
}

/// Why numbers or a text are not a scheme or a PSID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PsidError {
    /// `a > 15` or `a + k > 16`.
    #[error("no sharing scheme a={offset} k={length}: a must be at most 15 and a + k at most 16")]
    Scheme {
        /// `a`
        offset: u8,
        /// `k`
        length: u8,
    },
    /// The PSID needs more than `k` bits.
    #[error("PSID {value:#x} does not fit k={length} bits")]
    Value {
        /// The PSID.
        value: u16,
        /// `k`
        length: u8,
    },
    /// A left-aligned PSID with bits set below it.
    #[error("PSID field {bits:#06x} has bits set below its k={length} bits")]
    LowBits {
        /// `k`
        length: u8,
        /// The field as received.
        bits: u16,
    },
    /// Not numbers separated by commas.
    #[error("`{0}` is not {1}")]
    Syntax(String, &'static str),
}

fn number(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

impl FromStr for Scheme {
    type Err = PsidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (offset, length) = text.split_once(',')?;
            Some((offset.trim().parse().ok()?, length.trim().parse().ok()?))
        };
        let (offset, length) = parse().ok_or_else(|| {
            PsidError::Syntax(text.to_owned(), "a sharing scheme: write A,K, for example 0,4")
        })?;
        Self::new(offset, length)
    }
}

impl FromStr for Psid {
    type Err = PsidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || PsidError::Syntax(text.to_owned(), "a PSID: write A,K,PSID, for example 6,8,0x34");
        let (scheme, value) = text.rsplit_once(',').ok_or_else(syntax)?;
        if !scheme.contains(',') {
            return Err(syntax());
        }
        let value = number(value.trim()).ok_or_else(syntax)?;
        Self::new(scheme.parse()?, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_psid() -> impl Strategy<Value = Psid> {
        (0u8..=15).prop_flat_map(|a| (Just(a), 0..=16 - a)).prop_flat_map(|(a, k)| {
            let scheme = Scheme::new(a, k).unwrap();
            (0..scheme.sets()).prop_map(move |value| Psid::new(scheme, value as u16).unwrap())
        })
    }

    #[test]
    fn no_set_has_a_system_port() {
        for (text, first) in
            [("0,4", Some(1)), ("0,6", Some(1)), ("0,8", Some(4)), ("6,6", Some(0)), ("0,0", None)]
                .into_iter()
                .chain([("7,4", None), ("0,16", Some(1024)), ("6,10", Some(0))])
        {
            assert_eq!(text.parse::<Scheme>().unwrap().first_user_psid(), first, "{text}");
        }
        for scheme in (0..=15).flat_map(|a| (0..=16 - a).map(move |k| Scheme::new(a, k).unwrap())) {
            let given = scheme.first_user_psid().map_or(scheme.sets(), u32::from)..scheme.sets();
            for value in 0..scheme.sets() {
                let set = Psid::new(scheme, value as u16).unwrap();
                assert_eq!(given.contains(&value), set.first() >= FIRST_USER_PORT, "{set}");
            }
        }
    }

    #[test]
    fn rfc_7597_appendix_a() {
        let psid: Psid = "6,8,0x34".parse().unwrap();
        let ranges: Vec<_> = psid.ranges().map(|range| (range.first(), range.last())).collect();
        assert_eq!(ranges.len(), 63);
        assert_eq!(ranges[..2], [(1232, 1235), (2256, 2259)]);
        assert_eq!(ranges[61..], [(63696, 63699), (64720, 64723)]);
        assert_eq!(psid.count(), 252);
        assert_eq!(psid.left_aligned(), 0x3400);
    }

    #[test]
    fn rejects_what_cannot_be() {
        assert!(matches!(Scheme::new(16, 0), Err(PsidError::Scheme { .. })));
        assert!(matches!(Scheme::new(9, 8), Err(PsidError::Scheme { .. })));
        assert!(matches!(Scheme::new(255, 255), Err(PsidError::Scheme { .. })));
        assert!(matches!("0,4,16".parse::<Psid>(), Err(PsidError::Value { .. })));
        assert!(matches!(Psid::from_left_aligned(6, 8, 0x3401), Err(PsidError::LowBits { .. })));
        assert!(matches!(Psid::from_left_aligned(0, 0, 1), Err(PsidError::LowBits { .. })));
        for bad in ["", "1", "0,4", "a,4,1", "0,4,0xzz", "0,4,1,2"] {
            assert!(bad.parse::<Psid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sets_of_one_scheme_are_disjoint_and_complete() {
        for a in 0..=15 {
            for k in 0..=(16 - a).min(10) {
                let scheme = Scheme::new(a, k).unwrap();
                let mut owners = vec![0u8; 1 << 16];
                for value in 0..scheme.sets() {
                    let psid = Psid::new(scheme, value as u16).unwrap();
                    let mut count = 0;
                    for port in psid.ranges().flat_map(PortRange::ports) {
                        owners[usize::from(port)] += 1;
                        count += 1;
                    }
                    assert_eq!(psid.count(), count, "{psid}");
                }
                for (port, owners) in owners.into_iter().enumerate() {
                    assert_eq!(owners, u8::from(scheme.covers(port as u16)), "{scheme}: port {port}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn membership_matches_the_ranges(psid in any_psid(), port: u16) {
            let by_range = psid.ranges().any(|range| range.contains(port));
            prop_assert_eq!(psid.contains(port), by_range);
        }

        #[test]
        fn next_member_matches_a_search(psid in any_psid(), port: u16) {
            prop_assert_eq!(psid.first_from(port), (port..=u16::MAX).find(|port| psid.contains(*port)));
            prop_assert_eq!(Some(psid.first()), psid.first_from(0));
        }

        #[test]
        fn intersection_matches_a_search(one in any_psid(), two in any_psid(), a: u16, b: u16) {
            let meet = (0..=u16::MAX).any(|port| one.contains(port) && two.contains(port));
            prop_assert_eq!(one.intersects(two), meet);
            let range = PortRange::new(a.min(b), a.max(b)).unwrap();
            prop_assert_eq!(one.intersects_range(range), range.ports().any(|port| one.contains(port)));
        }

        #[test]
        fn containment_matches_a_search(one in any_psid(), two in any_psid(), a: u16, b: u16) {
            let members = |set: Psid| (0..=u16::MAX).filter(move |port| set.contains(*port));
            prop_assert_eq!(members(one).next_back(), Some(one.last()));
            // Two sets are rarely within each other; with one that has lost the low bits they often are.
            let length = two.scheme.length.min((a % 17) as u8);
            let wider = Psid {
                scheme: Scheme { length, ..two.scheme },
                value: (u32::from(two.value) >> (two.scheme.length - length)) as u16,
            };
            for outer in [one, wider] {
                prop_assert_eq!(outer.contains_set(two), members(two).all(|port| outer.contains(port)));
            }
            let near = one.first_from(a).unwrap_or(a);
            for range in [PortRange::new(a.min(b), a.max(b)), PortRange::new(near, near.saturating_add(b % 64))] {
                let range = range.unwrap();
                prop_assert_eq!(one.contains_range(range), range.ports().all(|port| one.contains(port)));
            }
        }

        #[test]
        fn wire_and_text_round_trip(psid in any_psid()) {
            let Scheme { offset, length } = psid.scheme();
            prop_assert_eq!(Psid::from_left_aligned(offset, length, psid.left_aligned()), Ok(psid));
            prop_assert_eq!(psid.to_string().parse(), Ok(psid));
        }
    }
}
