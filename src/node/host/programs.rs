//! What programs send, and what they are told.

use std::collections::VecDeque;

use smoltcp::time::Instant;
use smoltcp::wire::Ipv4Packet;

use super::{Host, HostAddress, TUN};
use crate::neighbor::Target;
use crate::node::ethernet::{complete_icmp, error_about, ip_bytes, transmit_own};
use crate::node::leak_map::{MappedLeak, can_map};
use crate::node::{DropReason, Verdict};
use crate::wire::icmp::{self, is_host};
use crate::wire::{FlowKey, FlowKind, Frame, Piece, ipv4};

/// Leaks that wait to be looked into; one more is told of by its counter only.
const MAX_LEAKS: usize = 64;

/// What becomes of a packet whose source port is outside of the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeakPolicy {
    /// The host's stack chooses another source port for it.
    #[default]
    Map,
    /// It is dropped, and the program is told so by ICMP.
    Reject,
}

/// A program used a source port outside of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    /// TCP, UDP, UDP-Lite, DCCP or SCTP.
    pub protocol: u8,
    /// The port that the program chose.
    pub port: u16,
    /// Whom the packet was for.
    pub to: core::net::Ipv4Addr,
    /// The port that it has on the wire; `None` where it was dropped.
    pub mapped: Option<u16>,
}

/// The first of leaks that somebody who can see processes should look into.
pub(super) type Leaks = VecDeque<Leak>;

impl Host {
    /// A leak that has just begun, or, at a limited rate, goes on being dropped.
    pub fn poll_leak(&mut self) -> Option<Leak> {
        self.leaks.pop_front()
    }

    /// The ports of programs that are mapped now.
    pub fn mapped_leaks(&self) -> impl Iterator<Item = MappedLeak> {
        self.addresses.iter().flat_map(|address| address.leak_map.list())
    }

    /// A packet of a program (PE-ARP rules 86 to 94).
    pub(super) fn receive_tun(&mut self, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        complete_icmp(frame);
        let packet = ipv4::check(frame.bytes())?;
        // RFC 1122 §3.2.1.7.
        if packet.hop_limit() == 0 {
            return Err(DropReason::TtlExceeded);
        }
        let Some(at) = self.find(packet.src_addr()) else {
            if !self.addresses.iter().any(|address| address.in_use) {
                return Err(DropReason::SetNotHeld);
            }
            self.prohibit(frame, now);
            return Err(DropReason::SourceAddress);
        };
        if !self.addresses[at].in_use {
            return Err(DropReason::SetNotHeld);
        }
        let to = self.find(packet.dst_addr());
        if !self.addresses[at].shared {
            let key = FlowKey::of(&packet);
            return match (key, to) {
                (Ok(key), Some(to)) if self.takes(to, &key) => self.loop_back(to, &key, frame, now),
                (Err(_), Some(to)) if !self.addresses[to].shared => Ok(Verdict::Forward(TUN)),
                (Ok(key), _) => self.route_key(at, &key, frame, false, now),
                // What a whole address sends needs no ports.
                (Err(_), _) => {
                    let (ip, protocol) = (packet.dst_addr(), packet.next_header().into());
                    self.route(at, Target { ip, protocol, port: None }, ip, frame, false, now)
                }
            };
        }
        let fragment = Piece::of(&packet);
        if let Some(fragment) = fragment.filter(|(_, piece)| piece.offset != 0) {
            return match self.key_of_outgoing(frame, fragment, now)? {
                Some(key) => self.send_later(key, frame, now),
                None => Ok(Verdict::Pending),
            };
        }
        let mut key = FlowKey::of(&packet)?;
        let in_program_part = key.source.is_some_and(|port| self.addresses[at].program_part.contains(port));
        match key.kind {
            FlowKind::Transport if !in_program_part => self.map_leak(at, &mut key, frame, now)?,
            FlowKind::EchoRequest if to.is_some() => {
                // PE-ARP rule 92: a ping of the own address is answered here.
                let reply = icmp::echo_reply(ip_bytes(frame)).ok_or(DropReason::EchoDamaged)?;
                self.send_to_programs(&reply);
                return Ok(Verdict::Delivered);
            }
            FlowKind::EchoRequest => {
                let mut packet = Ipv4Packet::new_unchecked(frame.bytes_mut());
                let map = &mut self.addresses[at].echo_map;
                map.map_out(&mut packet, &mut self.rng, now).ok_or(DropReason::EchoIdentifier)?;
            }
            // PE-ARP rule 61: the answer to a request with an identifier of the set.
            FlowKind::EchoReply if key.destination.is_some_and(|port| self.addresses[at].owns(port)) => {}
            FlowKind::EchoReply => return Err(DropReason::EchoIdentifier),
            FlowKind::IcmpError => {
                // PE-ARP rule 94: only about packets that were for this host.
                let about_us = key.embedded_destination == Some(key.source_address);
                if !about_us || !(in_program_part || self.owns_portless(key.source_address, &key)) {
                    return Err(DropReason::ForeignError);
                }
            }
            // PE-ARP rule 67: a group hears everybody on the link.
            FlowKind::Portless if !is_host(key.destination_address) => {}
            FlowKind::Portless if self.owns_portless(key.source_address, &key) => {}
            FlowKind::Portless => {
                self.prohibit(frame, now);
                return Err(DropReason::Portless);
            }
            // PE-ARP rule 65: a key that both ends use is the sender's, too.
            FlowKind::Tunnel if key.source.is_some_and(|key| !self.addresses[at].owns(key)) => {
                self.prohibit(frame, now);
                return Err(DropReason::SourcePort);
            }
            FlowKind::Transport | FlowKind::Tunnel => {}
        }
        if let Some((datagram, piece)) = fragment {
            self.outgoing.first(datagram, piece, key, now)?;
        }
        self.send(at, &key, frame, now)
    }

    /// A packet of a program that may leave from the shared address `at`.
    pub(super) fn send(
        &mut self,
        at: usize,
        key: &FlowKey,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        // PE-ARP rule 90: only what this host owns comes back; other sharers are on the LAN.
        match self.find(key.destination_address) {
            Some(to) if self.takes(to, key) => self.loop_back(to, key, frame, now),
            _ => {
                self.identify(at, frame, now);
                self.route_key(at, key, frame, false, now)
            }
        }
    }

    /// Whether a packet to an own address is for this host: a whole address is, and what it owns of a shared one.
    pub(super) fn takes(&self, to: usize, key: &FlowKey) -> bool {
        let address = &self.addresses[to];
        let owned = key.destination.is_some_and(|port| address.owns(port));
        address.in_use && (!address.shared || owned || self.owns_portless(address.ip(), key))
    }

    /// Tells a program that it may not send this; whether the rate allowed it.
    fn prohibit(&mut self, frame: &Frame, now: Instant) -> bool {
        self.send_error(frame, icmp::Error::AdminProhibited, now)
    }

    /// PE-ARP rules 87 and 88: nothing leaves from a port that is not the host's.
    fn map_leak(
        &mut self,
        at: usize,
        key: &mut FlowKey,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<(), DropReason> {
        let leak = |mapped| Leak {
            protocol: key.protocol,
            port: key.source.unwrap_or(0),
            to: key.destination_address,
            mapped,
        };
        let mapped = match self.leak_policy {
            LeakPolicy::Map if can_map(key.protocol) => {
                let HostAddress { leak_map, stack, .. } = &mut self.addresses[at];
                leak_map.map_out(key, frame, stack, &mut self.rng, now)
            }
            LeakPolicy::Map | LeakPolicy::Reject => None,
        };
        let told = match mapped {
            Some((port, true)) => Some(leak(Some(port))),
            Some((_, false)) => None,
            None => self.prohibit(frame, now).then(|| leak(None)),
        };
        self.leaks.extend(told.filter(|_| self.leaks.len() < MAX_LEAKS));
        match mapped {
            Some((port, _)) => {
                key.source = Some(port);
                self.counters.mapped += 1;
                Ok(())
            }
            None => Err(DropReason::SourcePort),
        }
    }

    /// An ICMP error to the host's programs; whether the rate allowed it.
    pub(super) fn send_error(&mut self, about: &Frame, error: icmp::Error, now: Instant) -> bool {
        let source = Ipv4Packet::new_unchecked(ip_bytes(about)).src_addr();
        // What comes from an address that the host does not have is told of by its first one.
        let at = self.find(source).unwrap_or(0);
        let own = self.addresses[at].ip();
        if !self.icmp_limit.allow((own, None), now) {
            return false;
        }
        if let Some(mut packet) = error_about(about, own, error) {
            // What is prohibited has not been mapped. Everything else has: its program knows it by its own identifier or
            // port.
            if error != icmp::Error::AdminProhibited {
                self.addresses[at].echo_map.map_error(&mut Ipv4Packet::new_unchecked(&mut packet[..]));
                if let Ok(key) = FlowKey::of(&Ipv4Packet::new_unchecked(&packet[..])) {
                    self.addresses[at].leak_map.map_error(&key, &mut packet);
                }
            }
            self.send_to_programs(&packet);
        }
        true
    }

    fn send_to_programs(&mut self, packet: &[u8]) {
        let frame = Frame::from_packet(packet);
        transmit_own(&mut self.counters, &mut self.transmits, frame, Verdict::Forward(TUN));
    }
}
