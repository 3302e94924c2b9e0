//! The rate of ICMP errors (RFC 1812 §4.3.2.8), by the source of the packet that caused them.

use core::net::Ipv4Addr;

use rustc_hash::FxHashMap;
use smoltcp::time::{Duration, Instant};

/// ICMP errors to one source per second, and in a burst.
const PER_SECOND: u32 = 10;

/// Sources remembered; more than that at once get no errors.
const MAX_SOURCES: usize = 1024;

#[derive(Debug)]
struct Window {
    since: Instant,
    sent: u32,
}

/// Counts ICMP errors per source in windows of one second.
#[derive(Debug, Default)]
pub struct IcmpLimit {
    sources: FxHashMap<Ipv4Addr, Window>,
}

impl IcmpLimit {
    /// Whether an error to `source` may be sent now; counts it.
    pub fn allow(&mut self, source: Ipv4Addr, now: Instant) -> bool {
        const WINDOW: Duration = Duration::from_secs(1);
        if !self.sources.contains_key(&source) && self.sources.len() >= MAX_SOURCES {
            self.sources.retain(|_, window| now < window.since + WINDOW);
            if self.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        let window = self.sources.entry(source).or_insert(Window { since: now, sent: 0 });
        if now >= window.since + WINDOW {
            *window = Window { since: now, sent: 0 };
        }
        window.sent += 1;
        window.sent <= PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_per_second_and_source() {
        let mut limit = IcmpLimit::default();
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let at = |millis| Instant::from_millis(millis);
        assert_eq!((0..50).filter(|_| limit.allow(a, at(0))).count(), 10);
        assert!(limit.allow(b, at(0)), "one source does not use up another's");
        assert!(!limit.allow(a, at(999)) && limit.allow(a, at(1000)));
    }

    #[test]
    fn many_sources_are_bounded() {
        let mut limit = IcmpLimit::default();
        let allowed = (0..5000u32).filter(|n| limit.allow(Ipv4Addr::from(*n), Instant::ZERO)).count();
        assert_eq!(allowed, MAX_SOURCES);
        assert!(limit.sources.len() <= MAX_SOURCES);
        assert!(limit.allow(Ipv4Addr::BROADCAST, Instant::from_secs(1)), "and it recovers");
    }
}
