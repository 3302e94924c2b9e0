//! When a host asks for a further set of an address, and when it gives one back (PE-ARP rule 103).

use core::net::Ipv4Addr;

use smoltcp::time::{Duration, Instant};

use super::{LeasedHost, MAX_LEASES, Purpose, Tenancy};
use crate::neighbor::OwnId;
use crate::node::HostAddress;
use crate::ports::PortBitmap;

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

impl LeasedHost {
    /// These local addresses and ports are in use by programs; an unspecified address stands for all of them. Asks for
    /// further sets, or gives some back (PE-ARP rule 103).
    pub fn observe(&mut self, in_use: &[(Ipv4Addr, u16)], now: Instant) {
        let addresses = self.host.iter().flat_map(|host| host.addresses());
        let shared: Vec<_> = addresses.filter(|address| address.is_shared()).map(HostAddress::cidr).collect();
        // An address that is gone has no further sets.
        let gone = |ip| shared.iter().all(|cidr| cidr.address() != ip);
        for one in &mut self.tenancies {
            one.over |= matches!(one.purpose, Purpose::Further(ip) if gone(ip) && one.client.is_looking());
        }
        let mut before = core::mem::take(&mut self.uses);
        for ip in shared.iter().map(|cidr| cidr.address()) {
            let one = before.remove(&ip).unwrap_or_default();
            self.uses.insert(ip, one);
            let used = in_use.iter().filter(|(of, _)| *of == ip || of.is_unspecified());
            let used: PortBitmap = used.map(|(_, port)| *port).collect();
            self.observe_address(ip, &used, now);
        }
        let grown = self.tenancies.iter().any(|one| one.purpose != Purpose::Address);
        self.looks.done(grown, now);
        self.sync(now);
    }

    fn observe_address(&mut self, ip: Ipv4Addr, used: &PortBitmap, now: Instant) {
        let Some(address) = self.host.as_ref().and_then(|host| host.address_of(ip)) else { return };
        let Some(one) = self.uses.get_mut(&ip) else { return };
        let open = address.open_part();
        let was_full = one.total > 0 && one.used >= one.total;
        (one.total, one.used) =
            (open.count(), open.ports().filter(|port| used.contains(*port)).count() as u32);
        let (total, used_now) = (one.total, one.used);
        if total > 0 && used_now >= total && !was_full {
            tracing::warn!(%ip, ports = total, "every port of this host's set is in use: what programs open now fails \
                 with \"Cannot assign requested address\"; see `pearp ports`");
        }
        let advice = one.growth.observe(used_now, total, now);
        if self.config.grows {
            match advice {
                Advice::Grow => self.grow(ip, now),
                Advice::Shrink => self.shrink(ip, used),
                Advice::Keep => {}
            }
            if advice != Advice::Grow {
                // What is not needed any more, and has not come.
                let futile = |one: &&mut Tenancy| one.is_further_at(ip) && one.client.is_looking();
                self.tenancies.iter_mut().filter(futile).for_each(|one| one.over = true);
            }
            self.give_back(ip, used, now);
        }
    }

    fn grow(&mut self, ip: Ipv4Addr, now: Instant) {
        let draining = |one: &Tenancy| one.draining && one.is_further_at(ip);
        if let Some(at) = self.tenancies.iter().position(draining) {
            return self.keep(at);
        }
        let pending = |one: &Tenancy| one.is_further_at(ip) && one.client.lease().is_none();
        if self.tenancies.len() < MAX_LEASES && !self.tenancies.iter().any(pending) {
            tracing::info!(%ip, "programs use most of this host's ports; asking for a further set");
            self.want(self.free_iaid(), Purpose::Further(ip), None, now);
        }
    }

    /// Begins to give back the further set of which least is in use.
    fn shrink(&mut self, ip: Ipv4Addr, used: &PortBitmap) {
        let Some(host) = &mut self.host else { return };
        let in_use = |id: OwnId| {
            let ports = host.address_of(ip).and_then(|address| address.program_part_of(id));
            ports.map_or(0, |ports| ports.ports().filter(|port| used.contains(*port)).count())
        };
        let open = self.tenancies.iter_mut().filter(|one| one.is_further_at(ip) && !one.draining);
        let least = open.filter_map(|one| one.set.map(|id| (id, one))).min_by_key(|(id, _)| in_use(*id));
        let Some((id, one)) = least else { return };
        one.draining = true;
        host.set_draining(id, true);
        tracing::info!(%ip, "programs use few of this host's ports; a further set is given back when nothing uses it");
        self.changed(ip);
    }

    /// Gives back what is draining and has no flow any more.
    fn give_back(&mut self, ip: Ipv4Addr, used: &PortBitmap, now: Instant) {
        let idle = |one: &Tenancy| {
            let address = self.host.as_ref().and_then(|host| host.address_of(ip));
            let idle = |id| address.is_some_and(|address| address.is_idle(id, used));
            one.draining && one.is_further_at(ip) && one.set.is_some_and(idle)
        };
        let idle: Vec<_> = (0..self.tenancies.len()).filter(|at| idle(&self.tenancies[*at])).collect();
        for at in idle {
            self.tenancies[at].client.release(now);
            self.tenancies[at].over = true;
            self.end_set(at, now);
        }
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
