//! A binding: one link-layer address that owns ports of one IPv4 address, and how sure we are.

use core::net::Ipv4Addr;
use core::ops::Deref;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::{DEFEND_INTERVAL, IDLE_TIME};
use crate::ports::{PortRange, Psid};
use crate::wire::pe_arp::{Claim, Lifetime, Record};

/// Where a binding comes from. Of one host, a later variant replaces an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// An authority's answer for another host (PE-ARP rule 28).
    Proxy,
    /// A plain ARP message: the sender owns every port.
    Arp,
    /// A PE-ARP message.
    Learned,
    /// A server's lease.
    Lease,
    /// The configuration.
    Static,
}

impl Source {
    /// The name in lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Arp => "arp",
            Self::Learned => "learned",
            Self::Lease => "lease",
            Self::Static => "static",
        }
    }

    /// Among hosts, the higher one precedes (PE-ARP rule 31): what plain ARP taught is learned like the rest.
    pub(super) const fn rank(self) -> u8 {
        match self {
            Self::Proxy => 0,
            Self::Arp | Self::Learned => 1,
            Self::Lease | Self::Static => 2,
        }
    }

    /// Whether the node was told, rather than having heard it on the link.
    pub(super) const fn is_given(self) -> bool {
        matches!(self, Self::Lease | Self::Static)
    }
}

/// The states of RFC 4861 §7.3.2 that a binding can be in. INCOMPLETE and FAILED are states of a question: a
/// binding without a link-layer address does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never questioned.
    Permanent,
    /// Confirmed; STALE from `until` on, without a timer of its own.
    Reachable {
        /// When the confirmation is too old.
        until: Instant,
    },
    /// Not confirmed lately; usable.
    Stale,
    /// Used while stale: probed at `until` unless confirmed before.
    Delay {
        /// When probing starts.
        until: Instant,
    },
    /// Being asked by unicast.
    Probe {
        /// Probes sent.
        sent: u8,
        /// When the next probe is due, or the binding is given up.
        next: Instant,
    },
}

impl State {
    /// The state at `now`: REACHABLE ends by itself.
    pub fn at(self, now: Instant) -> Self {
        match self {
            Self::Reachable { until } if until <= now => Self::Stale,
            state => state,
        }
    }

    /// The name in lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Reachable { .. } => "reachable",
            Self::Stale => "stale",
            Self::Delay { .. } => "delay",
            Self::Probe { .. } => "probe",
        }
    }

    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Permanent | Self::Reachable { .. } | Self::Stale => None,
            Self::Delay { until } => Some(until),
            Self::Probe { next, .. } => Some(next),
        }
    }
}

/// A protocol, and a port of it or none: what a question names.
pub(super) type Point = (u8, Option<u16>);

/// What is asked of a residual owner (PE-ARP rule 34): no packet has this protocol, which IANA keeps reserved, so that
/// nobody owns it by name. With protocol 0 the question would be SOLICIT-ALL.
pub(super) const RESIDUAL_POINT: Point = (255, None);

/// What to ask for where a portless protocol is meant.
pub(super) const fn portless_point(protocol: u8) -> Point {
    if protocol == 0 { RESIDUAL_POINT } else { (protocol, None) }
}

/// A record of a binding, and when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) record: Record,
    pub(super) until: Option<Instant>,
}

impl Held {
    /// The record as heard at `now`: its lifetime begins (PE-ARP rule 24).
    pub(super) fn new(record: Record, now: Instant) -> Self {
        let until = match record.lifetime {
            Lifetime::Seconds(seconds) => Some(now + Duration::from_secs(seconds.into())),
            Lifetime::Unknown | Lifetime::Withdrawn => None,
        };
        Self { record, until }
    }
}

/// Source and seniority of a binding: which of two for the same port stands.
pub(super) type Precedence = (u8, i64);

/// One owner of ports of one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding<R = Vec<Held>> {
    pub(super) ip: Ipv4Addr,
    pub(super) hardware: EthernetAddress,
    /// What it owns, as it said.
    pub(super) records: R,
    pub(super) source: Source,
    /// Among bindings of one source that hold the same port, the higher one stands (PE-ARP rule 5).
    pub(super) seniority: i64,
    pub(super) state: State,
    /// When it was last confirmed or announced.
    pub(super) heard: Instant,
    /// When it was last asked because another host claimed its ports, or answered that.
    pub(super) challenged: Option<Instant>,
    /// What it is being asked for in a dispute (PE-ARP rule 53).
    pub(super) disputed: Option<Point>,
}

/// A binding in the table.
pub(super) type BindingRef<'a> = Binding<&'a [Held]>;

impl BindingRef<'_> {
    pub(super) fn to_owned(self) -> Binding {
        let Self { ip, hardware, records, source, seniority, state, heard, challenged, disputed } = self;
        let records = records.to_vec();
        Binding { ip, hardware, records, source, seniority, state, heard, challenged, disputed }
    }
}

impl<R: Deref<Target = [Held]>> Binding<R> {
    /// When something is due: the end of a state or of a record.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ends = [self.state.deadline(), self.idle_end()];
        self.records.iter().map(|held| held.until).chain(ends).flatten().min()
    }

    /// When it is forgotten unless it is used or heard of.
    pub(super) fn idle_end(&self) -> Option<Instant> {
        let idle = matches!(self.state, State::Reachable { .. } | State::Stale) && !self.source.is_given();
        idle.then(|| self.heard + IDLE_TIME)
    }

    /// Whether it holds just these records; how long is another matter.
    pub(super) fn holds_same(&self, records: &[Held]) -> bool {
        records.iter().all(|new| self.claims(new))
            && self.records.iter().all(|old| records.iter().any(|new| same_claim(old, new)))
    }

    /// Whether it holds just this record; how long is another matter.
    pub(super) fn claims(&self, new: &Held) -> bool {
        self.records.iter().any(|old| same_claim(old, new))
    }

    /// Whether claims of others are ignored, as it was asked about one or answered that lately (PE-ARP rule 53).
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.challenged.is_some_and(|at| now < at + DEFEND_INTERVAL)
    }

    /// Whether a newcomer's claim comes behind it (PE-ARP rule 53): it is REACHABLE, or is being asked about another
    /// claim, or was confirmed after one. One that is asked for its own sake is not confirmed.
    pub(super) fn stands(&self, now: Instant) -> bool {
        match self.state.at(now) {
            State::Reachable { .. } => true,
            State::Stale | State::Delay { .. } | State::Probe { .. } => {
                self.disputed.is_some() || self.rests(now)
            }
            State::Permanent => false,
        }
    }

    /// Which of two bindings for the same port stands.
    pub(super) fn precedence(&self) -> Precedence {
        (self.source.rank(), self.seniority)
    }

    /// Whether it claims what a question names.
    pub(super) fn holds(&self, (protocol, port): Point) -> bool {
        self.records.iter().any(|held| held.record.contains(protocol, port))
    }

    /// What it is being asked for by unicast.
    pub(super) fn asked(&self) -> Option<Point> {
        matches!(self.state, State::Probe { .. }).then(|| self.sample())
    }

    /// What to ask the owner about when it is to be confirmed (PE-ARP rule 34).
    pub(super) fn sample(&self) -> Point {
        let any = || self.records.first().map(|held| point_of(&held.record));
        self.disputed.or_else(any).unwrap_or((0, Some(0)))
    }

    /// Where both claim the same.
    pub(super) fn meets(&self, records: &[Held]) -> Option<Point> {
        self.records.iter().find_map(|one| {
            records.iter().find_map(|two| {
                let port = meet(&one.record, &two.record)?;
                Some(match (one.record.claim, two.record.claim) {
                    (Claim::Portless(protocol), _) | (_, Claim::Portless(protocol)) => {
                        portless_point(protocol)
                    }
                    // The narrower scope: they are equal, or one is 0.
                    _ => (one.record.scope.max(two.record.scope), Some(port)),
                })
            })
        })
    }
}

fn same_claim(one: &Held, two: &Held) -> bool {
    (one.record.claim, one.record.scope) == (two.record.claim, two.record.scope)
}

fn point_of(record: &Record) -> Point {
    match record.claim {
        Claim::Range(range) => (record.scope, Some(range.first())),
        Claim::Psid(psid) => (record.scope, Some(psid.first())),
        Claim::Full => (0, Some(0)),
        Claim::Portless(protocol) => portless_point(protocol),
    }
}

/// Whether a claim ends a negative (PE-ARP rule 44). Of portless protocols a residual owner has those that nobody else
/// claims, and what is negative nobody claims.
pub(super) fn ends(claim: &Record, negative: &Record) -> bool {
    matches!((claim.claim, negative.claim), (Claim::RESIDUAL, Claim::Portless(_)))
        || meet(claim, negative).is_some()
}

/// Whether all that `held` owns is named by `named`.
pub(super) fn names(named: &Record, held: &Record) -> bool {
    use Claim::{Full, Portless, Psid as P, Range as R};
    let in_scope = named.scope == 0 || named.scope == held.scope;
    match (named.claim, held.claim) {
        (Full, _) => true,
        (Portless(a), Portless(b)) => a == b,
        (Portless(_), _) | (_, Full | Portless(_)) => false,
        _ if !in_scope => false,
        (R(named), R(held)) => named.contains(held.first()) && named.contains(held.last()),
        (R(named), P(held)) => named.contains(held.first()) && named.contains(held.last()),
        (P(named), R(held)) => named.contains_range(held),
        (P(named), P(held)) => named.contains_set(held),
    }
}

/// A port that both records hold, or port 0 where they meet in a portless protocol.
pub(super) fn meet(one: &Record, two: &Record) -> Option<u16> {
    use Claim::{Full, Portless, Psid as P, Range as R};
    let scopes = one.scope == 0 || two.scope == 0 || one.scope == two.scope;
    match (one.claim, two.claim) {
        (Portless(a), Portless(b)) => (a == b).then_some(0),
        (Full, Portless(_)) | (Portless(_), Full) => Some(0),
        (Portless(_), _) | (_, Portless(_)) => None,
        _ if !scopes => None,
        (Full, Full) => Some(0),
        (Full, R(range)) | (R(range), Full) => Some(range.first()),
        (Full, P(psid)) | (P(psid), Full) => Some(psid.first()),
        (R(a), R(b)) => overlap(a, b),
        (R(range), P(psid)) | (P(psid), R(range)) => {
            psid.first_from(range.first()).filter(|port| range.contains(*port))
        }
        (P(a), P(b)) => a.intersects(b).then(|| first_common(a, b)),
    }
}

fn overlap(a: PortRange, b: PortRange) -> Option<u16> {
    let first = a.first().max(b.first());
    (a.contains(first) && b.contains(first)).then_some(first)
}

/// The lowest common port of two sets that intersect. Each step moves past a whole block of one of the sets, and
/// a set has at most 2^15 blocks.
fn first_common(a: Psid, b: Psid) -> u16 {
    let mut port = a.first().max(b.first());
    loop {
        match (a.first_from(port), b.first_from(port)) {
            (Some(x), Some(y)) if x == y => return x,
            (Some(x), Some(y)) => port = x.max(y),
            // Not for sets that intersect.
            _ => return port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(claim: Claim) -> Record {
        Record::new(claim, Lifetime::Unknown)
    }

    #[test]
    fn where_records_meet() {
        let range = |a, b| record(Claim::Range(PortRange::new(a, b).unwrap()));
        let psid = |text: &str| record(Claim::Psid(text.parse().unwrap()));
        let full = record(Claim::Full);
        let gre = record(Claim::Portless(47));
        assert_eq!(meet(&range(1, 10), &range(10, 20)), Some(10));
        assert_eq!(meet(&range(1, 9), &range(10, 20)), None);
        assert_eq!(meet(&psid("6,8,0x34"), &range(1236, 2256)), Some(2256));
        assert_eq!(meet(&psid("6,8,0x34"), &range(1236, 2255)), None);
        assert_eq!(meet(&psid("0,4,1"), &psid("6,8,0x34")), Some(4304));
        assert_eq!(meet(&psid("0,4,1"), &psid("0,4,2")), None);
        assert_eq!(meet(&full, &gre), Some(0));
        let residual = record(Claim::RESIDUAL);
        assert_eq!(meet(&residual, &residual), Some(0));
        assert_eq!(meet(&full, &residual), Some(0));
        assert_eq!(meet(&residual, &gre), None);
        assert_eq!(meet(&gre, &range(0, 65535)), None);
        let tcp = Record { scope: 6, ..range(1, 10) };
        let udp = Record { scope: 17, ..range(1, 10) };
        assert_eq!(meet(&tcp, &udp), None);
        assert_eq!(meet(&tcp, &range(5, 6)), Some(5));
    }
}
