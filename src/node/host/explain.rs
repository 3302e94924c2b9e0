//! [`Host::explain`]: the way of a packet through a host, decision by decision, in the order of `receive_tun` and
//! `receive_lan`. A test compares it with what happens.

use core::net::Ipv4Addr;

use smoltcp::time::Instant;

use super::{Host, LAN, LeakPolicy, TUN, Way};
use crate::neighbor::Target;
use crate::node::explain::{Explanation, Fate};
use crate::node::leak_map::can_map;
use crate::node::{DropReason, LinkId};
use crate::wire::icmp::is_host;
use crate::wire::{FlowKey, FlowKind, ICMP, Ipv4Packet, Piece, ipv4};

impl Host {
    /// What the host would do with an IP packet that comes by a link: from a program by the TUN, from others by the LAN.
    pub fn explain(&self, link: LinkId, bytes: &[u8], now: Instant) -> Explanation {
        let about = Explanation::default();
        match ipv4::check(bytes) {
            Ok(packet) if link == TUN => self.explain_sent(about, &packet, now),
            Ok(packet) => self.explain_received(about, &packet),
            Err(error) => about.drop(error.into(), "RFC 1122 §3.2.1", error.to_string()),
        }
    }

    fn explain_sent(&self, mut about: Explanation, packet: &Ipv4Packet<&[u8]>, now: Instant) -> Explanation {
        about.step("PE-ARP rule 87", "a program of this host sends it");
        if packet.hop_limit() == 0 {
            return about.drop(DropReason::TtlExceeded, "RFC 1122 §3.2.1.7", "its TTL is 0");
        }
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let Some(at) = self.find(source) else {
            let held = self.addresses.iter().any(|address| address.in_use);
            let reason = if held { DropReason::SourceAddress } else { DropReason::SetNotHeld };
            return about.drop(reason, "PE-ARP rule 87", "this is no address of the host");
        };
        let address = &self.addresses[at];
        if !address.in_use {
            return about.drop(DropReason::SetNotHeld, "PE-ARP rule 56", "no set of the address is in use");
        }
        if !address.shared {
            about.step("PE-ARP rule 76", "it comes from a whole address");
            let key = FlowKey::of(packet);
            let takes = self
                .find(destination)
                .is_some_and(|to| key.as_ref().map_or(!self.addresses[to].shared, |key| self.takes(to, key)));
            if takes {
                return self.explain_own(about, destination, key.as_ref().ok());
            }
            let target = match &key {
                Ok(key) => self.target_of(at, key),
                Err(_) => Target { ip: destination, protocol: packet.next_header().into(), port: None },
            };
            return self.explain_route(about, at, target, destination, now);
        }
        if Piece::of(packet).is_some_and(|(_, piece)| piece.offset != 0) {
            return about.later_fragment();
        }
        let mut key = match FlowKey::of(packet) {
            Ok(key) => key,
            Err(unkeyed) => return about.unkeyed(unkeyed),
        };
        let of_program = key.source.is_some_and(|port| address.program_part.contains(port));
        let owned = |port: Option<u16>| port.is_some_and(|port| address.owns(port));
        match key.kind {
            FlowKind::Transport if !of_program => {
                if self.leak_policy == LeakPolicy::Reject || !can_map(key.protocol) {
                    let text = "its source port is not one of the host's programs: a leak";
                    return about.drop(DropReason::SourcePort, "PE-ARP rule 87", text);
                }
                about.step("PE-ARP rule 88", "a leak: it gets a source port of the stack part");
                // Which one is known when it leaves; it is a port of the host, and that is all that matters.
                key.source = None;
            }
            FlowKind::EchoRequest if self.find(destination).is_some() => {
                return about.end(
                    Fate::Delivered,
                    "PE-ARP rule 92",
                    "a ping of an own address is answered here",
                );
            }
            FlowKind::EchoRequest => {
                about.step("PE-ARP rule 93", "its identifier becomes one of the stack part");
            }
            FlowKind::EchoReply if !owned(key.destination) => {
                let text = "its identifier is not of the set";
                return about.drop(DropReason::EchoIdentifier, "PE-ARP rule 61", text);
            }
            FlowKind::IcmpError
                if key.embedded_destination != Some(source)
                    || !(of_program || self.owns_portless(source, &key)) =>
            {
                let text = "it is about a packet that was not for this host";
                return about.drop(DropReason::ForeignError, "PE-ARP rule 94", text);
            }
            FlowKind::Portless if is_host(destination) && !self.owns_portless(source, &key) => {
                let text = "the host does not own this protocol of the address";
                return about.drop(DropReason::Portless, "PE-ARP rule 87", text);
            }
            FlowKind::Tunnel if key.source.is_some() && !owned(key.source) => {
                let text = "its key is not of the set";
                return about.drop(DropReason::SourcePort, "PE-ARP rule 65", text);
            }
            FlowKind::Transport => {
                about.step("PE-ARP rule 87", "its source port is one of the host's programs");
            }
            FlowKind::EchoReply | FlowKind::IcmpError | FlowKind::Portless | FlowKind::Tunnel => {}
        }
        if self.find(destination).is_some_and(|to| self.takes(to, &key)) {
            return self.explain_own(about, destination, Some(&key));
        }
        about.say_key(&key);
        let target = self.target_of(at, &key);
        self.explain_route(about, at, target, destination, now)
    }

    /// A packet that this host itself receives.
    fn explain_own(&self, about: Explanation, to: Ipv4Addr, key: Option<&FlowKey>) -> Explanation {
        let of_stack = |key: &FlowKey| {
            self.address_of(to).is_some_and(|address| {
                address.is_of_stack_part(key) && !address.leak_map.is_mapped(key.protocol, key.destination)
            })
        };
        match key {
            Some(key) if of_stack(key) => {
                let text = "it is for the host's own stack";
                about.end(Fate::Delivered, "PE-ARP rule 91", text)
            }
            _ => about.end(Fate::Forward(TUN, None), "PE-ARP rule 90", "it is for a program of this host"),
        }
    }

    fn explain_route(
        &self,
        mut about: Explanation,
        at: usize,
        target: Target,
        destination: Ipv4Addr,
        now: Instant,
    ) -> Explanation {
        let name = &self.interface.name;
        let target = match self.way(at, target, destination) {
            Ok(Way::Group(_)) => {
                let text = format!("it leaves by {name} to a group");
                return about.end(Fate::Forward(LAN, None), "PE-ARP rule 67", text);
            }
            Ok(Way::OnLink(target)) => target,
            Ok(Way::Gateway(gateway)) => {
                about.step("PE-ARP rule 86", format!("it is not on the link: by the gateway {gateway}"));
                Target::gateway(gateway)
            }
            Err(reason @ DropReason::NoRoute) => {
                return about.drop(reason, "PE-ARP rule 86", "there is no gateway");
            }
            Err(reason) => return about.drop(reason, "RFC 1122 §3.2.1.3", "no host has such an address"),
        };
        about.resolve(self.interface.neighbors.look(target, now), target, LAN, name)
    }

    fn explain_received(&self, mut about: Explanation, packet: &Ipv4Packet<&[u8]>) -> Explanation {
        about.step("PE-ARP rule 89", format!("it comes by {}", self.interface.name));
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let broadcast = self.interface.broadcast;
        let group =
            destination.is_multicast() || destination.is_broadcast() || Some(destination) == broadcast;
        let nameless = group && source.is_unspecified();
        if !nameless && (!is_host(source) || Some(source) == broadcast) {
            return about.drop(
                DropReason::MartianSource,
                "RFC 1122 §3.2.1.3",
                "no host sends from this address",
            );
        }
        if group {
            return about.end(
                Fate::Forward(TUN, None),
                "PE-ARP rule 67",
                "a group hears everybody on the link",
            );
        }
        let Some(address) = self.address_of(destination) else {
            return about.drop(DropReason::NotOurAddress, "PE-ARP rule 89", "this is no address of the host");
        };
        if !address.in_use {
            return about.drop(DropReason::SetNotHeld, "PE-ARP rule 56", "no set of the address is in use");
        }
        let key = FlowKey::of(packet);
        if !address.shared {
            return self.explain_own(about, destination, key.as_ref().ok());
        }
        if Piece::of(packet).is_some_and(|(_, piece)| piece.offset != 0) {
            return about.later_fragment();
        }
        let key = match key {
            Ok(key) => key,
            Err(unkeyed) => return about.unkeyed(unkeyed),
        };
        if key.source.is_some_and(|port| self.owns(key.source_address, port)) {
            return about.drop(
                DropReason::MartianSource,
                "RFC 1122 §3.2.1.3",
                "its source is a port of this host",
            );
        }
        about.say_key(&key);
        let owned = |port: Option<u16>| port.is_some_and(|port| address.owns(port));
        // By an echo reply it is answered; an error may be about it.
        let is_of_ping = key.protocol == ICMP && key.destination.is_some() && !key.headless;
        match key.kind {
            FlowKind::EchoRequest if owned(key.source) => about.end(
                Fate::Forward(TUN, None),
                "PE-ARP rule 61",
                "its identifier is of the set: it is answered",
            ),
            FlowKind::EchoRequest => {
                let text = "its identifier is not of the set";
                about.drop(DropReason::EchoIdentifier, "PE-ARP rule 61", text)
            }
            FlowKind::EchoReply | FlowKind::IcmpError
                if is_of_ping && address.echo_map.is_mapped(key.destination) =>
            {
                let answers = key.kind == FlowKind::EchoReply;
                let text = if answers {
                    "it answers a ping of a program"
                } else {
                    "it is about a ping of a program"
                };
                about.end(Fate::Forward(TUN, None), "PE-ARP rule 93", text)
            }
            FlowKind::EchoReply | FlowKind::IcmpError if is_of_ping => {
                let text = "no ping of a program has this identifier";
                about.drop(DropReason::EchoIdentifier, "PE-ARP rule 93", text)
            }
            _ if owned(key.destination) => self.explain_own(about, destination, Some(&key)),
            _ if key.destination.is_some() => {
                about.drop(DropReason::NotOurPort, "PE-ARP rule 7", "the port is another host's: no answer")
            }
            _ if self.owns_portless(destination, &key) => self.explain_own(about, destination, Some(&key)),
            _ => about.drop(DropReason::Portless, "PE-ARP rule 66", "the host does not own this protocol"),
        }
    }
}
