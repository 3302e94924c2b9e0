//! Limits against clients that ask for everything: of messages per link-layer address and per link.

use rustc_hash::FxHashMap;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

/// Messages of one link-layer address, after the burst: 4 per second. A client sends two for a lease.
const HARDWARE_INTERVAL: Duration = Duration::from_millis(250);
/// Messages of one link-layer address at once: a host with 16 leases renews all of them.
const HARDWARE_BURST: u32 = 40;
/// Messages of one link, after the burst: 20,000 per second, about what one processor answers.
const LINK_INTERVAL: Duration = Duration::from_micros(50);
/// Messages of one link at once: a thousand hosts come back after a power failure.
const LINK_BURST: u32 = 4000;
/// Link-layer addresses remembered; more than that at once are not answered.
const MAX_HARDWARE: usize = 16_384;

/// When the bucket is full again: each message puts that off by the interval.
fn take(full_at: &mut Instant, interval: Duration, burst: u32, now: Instant) -> bool {
    let next = (*full_at).max(now) + interval;
    let allowed = next <= now + interval * burst;
    if allowed {
        *full_at = next;
    }
    allowed
}

#[derive(Debug, Default)]
pub(super) struct Limit {
    hardware: FxHashMap<EthernetAddress, Instant>,
    links: FxHashMap<usize, Instant>,
}

impl Limit {
    /// Whether a message may be dealt with now; counts it.
    pub(super) fn allow(&mut self, link: usize, hardware: EthernetAddress, now: Instant) -> bool {
        if !self.hardware.contains_key(&hardware) && self.hardware.len() >= MAX_HARDWARE {
            self.hardware.retain(|_, full_at| *full_at > now);
            if self.hardware.len() >= MAX_HARDWARE {
                return false;
            }
        }
        // The one first, so that it cannot use up what is for all.
        take(self.hardware.entry(hardware).or_insert(now), HARDWARE_INTERVAL, HARDWARE_BURST, now)
            && take(self.links.entry(link).or_insert(now), LINK_INTERVAL, LINK_BURST, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_use_up_the_link() {
        let mut limit = Limit::default();
        let mac = |n: u32| EthernetAddress([2, 0, (n >> 24) as u8, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
        let at = Instant::from_secs(1);
        assert_eq!((0..1000).filter(|_| limit.allow(0, mac(1), at)).count(), HARDWARE_BURST as usize);
        assert!(limit.allow(0, mac(2), at));
        assert!(!limit.allow(0, mac(1), at + Duration::from_millis(249)));
        assert!(limit.allow(0, mac(1), at + Duration::from_millis(250)));
        let link = (10..10_000).filter(|n| limit.allow(1, mac(*n), at)).count();
        assert_eq!(link, LINK_BURST as usize);
        assert!(limit.hardware.len() <= MAX_HARDWARE);
    }
}
