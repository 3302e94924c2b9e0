//! What has no port (PE-ARP rule 66).

use core::net::Ipv4Addr;

use smoltcp::time::{Duration, Instant};

use super::Host;
use crate::neighbor::OwnId;
use crate::ports::Portless;
use crate::wire::{FlowKey, FlowKind};

impl Host {
    /// As [`Host::renew`]; of what has no port the host owns this with the set from now on.
    pub fn renew_with(&mut self, id: OwnId, portless: &Portless, lease: Duration, now: Instant) {
        let Some(address) = self.addresses.iter_mut().find(|address| address.has_set(id)) else { return };
        let records = address.set_portless(id, portless);
        self.interface.neighbors.change_own(id, records, now + lease, now);
        self.refresh();
        self.drain(now);
    }

    /// Whether a packet, or what an ICMP error is about, has no port and belongs to this host at `ip`, one of its addresses.
    /// An error about an echo reply is about the router's: a sharing host sends none (PE-ARP rule 61).
    pub(super) fn owns_portless(&self, ip: Ipv4Addr, key: &FlowKey) -> bool {
        let has_none = key.source.is_none() && key.destination.is_none();
        has_none
            && matches!(key.kind, FlowKind::Portless | FlowKind::IcmpError)
            && self.interface.neighbors.owns(ip, key.protocol, None)
    }
}
