//! The rate of ICMP errors (RFC 1812 §4.3.2.8), by the source of the packet that caused them (PE-ARP rule 47): of a shared
//! address, by who sent from it, so that no sharer uses up what is for the others.

use core::net::Ipv4Addr;

use rustc_hash::FxHashMap;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

/// Between two errors to one source, after the burst: 10 per second.
const INTERVAL: Duration = Duration::from_millis(100);

/// Errors to one source at once.
const BURST: u32 = 10;

/// Sources remembered; more than that at once get no errors.
const MAX_SOURCES: usize = 1024;

/// An address, and where others share it, which host is meant.
pub type Source = (Ipv4Addr, Option<EthernetAddress>);

/// A token bucket per source.
#[derive(Debug, Default)]
pub struct IcmpLimit {
    /// When the bucket of each source is full again: each error puts that off by [`INTERVAL`].
    full_at: FxHashMap<Source, Instant>,
}

impl IcmpLimit {
    /// Whether an error to `source` may be sent now; counts it.
    pub fn allow(&mut self, source: Source, now: Instant) -> bool {
        if !self.full_at.contains_key(&source) && self.full_at.len() >= MAX_SOURCES {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= MAX_SOURCES {
                return false;
            }
        }
        let full_at = self.full_at.entry(source).or_insert(now);
        let next = (*full_at).max(now) + INTERVAL;
        let allowed = next <= now + INTERVAL * BURST;
        if allowed {
            *full_at = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_per_second_and_source() {
        let mut limit = IcmpLimit::default();
        let ip = Ipv4Addr::new(192, 0, 2, 1);
        let (a, b) = ((ip, Some(EthernetAddress([2; 6]))), (ip, Some(EthernetAddress([4; 6]))));
        let at = |millis| Instant::from_millis(millis);
        assert_eq!((0..50).filter(|_| limit.allow(a, at(0))).count(), 10);
        assert!(limit.allow(b, at(0)), "one source does not use up another's");
        assert!(!limit.allow(a, at(99)) && limit.allow(a, at(100)) && !limit.allow(a, at(100)));
        assert_eq!((0..50).filter(|_| limit.allow(a, at(60_000))).count(), 10, "no more than the burst");
    }

    #[test]
    fn many_sources_are_bounded() {
        let mut limit = IcmpLimit::default();
        let allowed = (0..5000u32).filter(|n| limit.allow((Ipv4Addr::from(*n), None), Instant::ZERO)).count();
        assert_eq!(allowed, MAX_SOURCES);
        assert!(limit.full_at.len() <= MAX_SOURCES);
        assert!(limit.allow((Ipv4Addr::BROADCAST, None), Instant::from_secs(1)), "and it recovers");
    }
}
