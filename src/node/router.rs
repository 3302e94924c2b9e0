//! The edge router: one or more LANs with shared addresses, and the outside.
//!
//! ```text
//!   outside (plain ARP) ── routes, TTL, ICMP ── LAN: {IP, protocol, port} → MAC by PE-ARP, plain ARP for the rest
//! ```

mod accounts;
mod dhcp;
mod explain;
mod fragments;
mod guard;

use core::net::Ipv4Addr;
use std::collections::VecDeque;

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpProtocol, Ipv4Cidr, Ipv4Packet};

use self::accounts::{Accounts, Fate};
pub use self::accounts::{Tally, Traffic};
use super::ethernet::{Interface, Payload, error_about, ip_bytes, report, transmit_own};
use super::leasing::Leasing;
use super::{Counters, DropReason, LinkId, Node, Verdict};
use crate::forward::{Fib, Fragments, IcmpLimit, NextHop, Reassembly};
use crate::neighbor::{Config, Entry, Neighbors, OwnId, OwnSet, Refused, Target};
use crate::ports::Scheme;
use crate::wire::icmp::{self, is_host};
use crate::wire::pe_arp::Record;
use crate::wire::{
    ETHERNET_HEADER, FlowKey, FlowKind, Frame, Gso, MIN_ETHERNET_FRAME, Medium, Piece, Unkeyed, ipv4,
};

/// The shortest payload of an Ethernet frame, padding included (IEEE 802.3).
const MIN_PACKET: usize = MIN_ETHERNET_FRAME - ETHERNET_HEADER;

/// What a link of the router is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Hosts are on it: PE-ARP and plain ARP.
    Lan,
    /// The way out: plain ARP only.
    Outside,
}

/// One link of the router.
#[derive(Clone, Debug)]
pub struct RouterLink {
    /// Its name in lists.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The router's link-layer address on it.
    pub hardware: EthernetAddress,
    /// The router's address and the on-link prefix.
    pub address: Ipv4Cidr,
    /// The largest IP packet, in bytes.
    pub mtu: usize,
}

/// Who answers an echo request to a shared address (PE-ARP rule 61).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EchoAnswer {
    /// The router, for all sharers.
    #[default]
    Router,
    /// The owner of its identifier.
    Owner,
}

/// A static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations.
    pub prefix: Ipv4Cidr,
    /// The next router, on one of the links.
    pub gateway: Ipv4Addr,
}

/// Configuration of a router.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The links, in the order of [`LinkId`].
    pub links: Vec<RouterLink>,
    /// Shared addresses and their schemes.
    pub shared: Vec<(Ipv4Addr, Scheme)>,
    /// It is told every owner of the shared addresses, by [`Router::grant`], and believes nobody else.
    pub authority: bool,
    /// Who answers echo requests to shared addresses.
    pub echo: EchoAnswer,
    /// Routes beside those of the links.
    pub routes: Vec<Route>,
    /// ar$pro of PE-ARP.
    pub pro: u16,
    /// Seed of everything random.
    pub seed: u64,
}

/// A link of the router, with all that it knows there.
#[derive(Debug)]
struct Attached {
    interface: Interface,
    address: Ipv4Addr,
    prefix: Ipv4Cidr,
    mtu: usize,
    pe: bool,
}

/// Where a packet goes.
struct Egress {
    link: LinkId,
    target: Target,
}

/// The edge router.
#[derive(Debug)]
pub struct Router {
    links: Vec<Attached>,
    fib: Fib<LinkId>,
    echo: EchoAnswer,
    counters: Counters,
    icmp_limit: IcmpLimit,
    dhcp: Option<Leasing>,
    /// Where there is a DHCP server.
    accounts: Option<Accounts>,
    violations: guard::Reports,
    /// To shared addresses.
    fragments: Fragments<fragments::Held>,
    /// To the router, or for it to answer.
    reassembly: Reassembly,
    /// The next identification of what the router cuts of its own.
    identification: u16,
    transmits: VecDeque<(LinkId, Frame)>,
}

impl Router {
    /// A router that has asked the owners of all shared addresses for their sets (PE-ARP rule 84), so that it
    /// knows them again after a restart.
    pub fn new(config: RouterConfig, now: Instant) -> Self {
        let mut fib = Fib::new();
        let mut links = Vec::new();
        for (index, link) in config.links.into_iter().enumerate() {
            let prefix = link.address.network();
            fib.insert(prefix, NextHop { link: LinkId(index), gateway: None });
            let pe = link.role == Role::Lan;
            let schemes: Vec<_> =
                config.shared.iter().filter(|(ip, _)| prefix.contains_addr(ip)).copied().collect();
            let neighbors = Neighbors::new(
                Config {
                    hardware: link.hardware,
                    prefix,
                    router: true,
                    own: vec![OwnSet::whole(link.address.address())],
                    pe,
                    schemes: if pe { schemes } else { Vec::new() },
                    proxy: pe,
                    authorities: Vec::new(),
                    authority: config.authority && pe,
                    seed: config.seed.wrapping_add(index as u64),
                },
                now,
            );
            let interface = Interface {
                name: link.name,
                link: LinkId(index),
                neighbors,
                broadcast: prefix.broadcast(),
                pro: config.pro,
            };
            links.push(Attached { interface, address: link.address.address(), prefix, mtu: link.mtu, pe });
        }
        for route in &config.routes {
            if let Some(next_hop) = fib.lookup(route.gateway) {
                fib.insert(route.prefix, NextHop { link: next_hop.link, gateway: Some(route.gateway) });
            }
        }
        let mut router = Self {
            links,
            fib,
            echo: config.echo,
            counters: Counters::default(),
            icmp_limit: IcmpLimit::default(),
            dhcp: None,
            accounts: None,
            violations: guard::Reports::default(),
            fragments: Fragments::new(),
            reassembly: Reassembly::new(),
            identification: 0,
            transmits: VecDeque::new(),
        };
        for attached in &mut router.links {
            attached.interface.neighbors.hold_own(OwnId::FIRST);
            let shared: Vec<_> =
                attached.interface.neighbors.config().schemes.iter().map(|(ip, _)| *ip).collect();
            for ip in shared {
                attached.interface.neighbors.solicit_all(ip, now);
            }
        }
        router.drain(now);
        router
    }

    /// The sets of an address that a host has leased from now on, in place of those that it had.
    ///
    /// # Errors
    /// [`Refused::OffLink`] where the address is on no link of the router.
    pub fn grant(
        &mut self,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        records: &[Record],
        now: Instant,
    ) -> Result<(), Refused> {
        let result = self.bind(ip, hardware, records, now);
        self.drain(now);
        result
    }

    fn bind(
        &mut self,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        records: &[Record],
        now: Instant,
    ) -> Result<(), Refused> {
        let on_link = |attached: &&mut Attached| attached.pe && attached.prefix.contains_addr(&ip);
        let attached = self.links.iter_mut().find(on_link).ok_or(Refused::OffLink)?;
        attached.interface.neighbors.grant(ip, hardware, records, now)
    }

    fn receive(&mut self, link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        let Some(attached) = self.links.get_mut(link.0) else { return DropReason::LinkError.into() };
        match attached.interface.receive(frame, now) {
            Err(reason) => {
                self.report_arp(link, frame, reason, now);
                reason.into()
            }
            Ok(Payload::Arp(verdict)) => verdict,
            Ok(Payload::Ipv4 { source, .. }) if self.is_dhcp(link, frame.bytes()) => {
                self.receive_dhcp(link, source, frame, now).unwrap_or_else(|reason| {
                    self.report_dhcp(link, source, reason, now);
                    reason.into()
                })
            }
            // RFC 1812 §5.3.4: what came as a link-layer broadcast is not forwarded.
            Ok(Payload::Ipv4 { unicast: false, .. }) => DropReason::NotOurFrame.into(),
            Ok(Payload::Ipv4 { source, unicast: true }) => {
                self.receive_packet(link, source, frame, now).unwrap_or_else(Verdict::Dropped)
            }
        }
    }

    fn receive_packet(
        &mut self,
        link: LinkId,
        from: EthernetAddress,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let packet = ipv4::check(frame.bytes())?;
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        if !self.is_unicast(source) || self.is_own(source) {
            return Err(DropReason::MartianSource);
        }
        if !self.is_unicast(destination) {
            return Err(DropReason::MartianDestination);
        }
        let mut key = FlowKey::of(&packet);
        let fragment = Piece::of(&packet);
        let datagram = fragment.map(|(datagram, _)| datagram);
        self.check_ingress(link, from, (source, destination), &key, datagram, now)?;
        if self.is_own(destination) {
            return self.deliver(frame, key, now);
        }
        if let Some(fragment) = fragment
            && self.is_shared(destination)
        {
            match self.key_of_fragment(link, frame, fragment, key, now)? {
                Some(first) => key = Ok(first),
                None => return Ok(Verdict::Pending),
            }
        }
        self.pass(link, frame, &key, now)
    }

    /// A packet that may pass, for somebody else.
    fn pass(
        &mut self,
        link: LinkId,
        frame: &mut Frame,
        key: &Result<FlowKey, Unkeyed>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let destination = Ipv4Packet::new_unchecked(frame.bytes()).dst_addr();
        if let Ok(request @ FlowKey { kind: FlowKind::EchoRequest, .. }) = key
            && self.is_shared(destination)
        {
            if self.echo == EchoAnswer::Router {
                // PE-ARP rule 80: an echo request names no owner, so the router answers.
                return self.answer_echo(frame, now);
            }
            let by_identifier = Ok(FlowKey { destination: request.source, ..*request });
            return self.pass_by(link, frame, &by_identifier, now);
        }
        self.pass_by(link, frame, key, now)
    }

    /// The same, when it is clear what names its owner.
    fn pass_by(
        &mut self,
        link: LinkId,
        frame: &mut Frame,
        key: &Result<FlowKey, Unkeyed>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if self.accounts.is_some() {
            return self.forward_and_count(link, frame, key, now);
        }
        self.forward(link, frame, key, &mut None, now)
    }

    /// What becomes of a packet for somebody else, and `by` which binding. That is no part of the result, as a verdict
    /// that is moved once more costs as much as all the rest of it.
    fn forward(
        &mut self,
        link: LinkId,
        frame: &mut Frame,
        key: &Result<FlowKey, Unkeyed>,
        by: &mut Option<u32>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let packet = Ipv4Packet::new_unchecked(frame.bytes());
        let destination = packet.dst_addr();
        if packet.hop_limit() <= 1 {
            self.send_error(link, frame, icmp::Error::TimeExceeded, now);
            return Err(DropReason::TtlExceeded);
        }
        let (length, whole) = (usize::from(packet.total_len()), packet.dont_frag());
        let protocol = packet.next_header().into();
        let Some(egress) = self.route(destination, protocol, key)? else {
            self.send_error(link, frame, icmp::Error::NetUnreachable, now);
            return Err(DropReason::NoRoute);
        };
        let mtu = self.links[egress.link.0].mtu;
        if frame.offload.gso.map_or(length, Gso::segment_len) > mtu {
            if whole {
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                self.send_error(link, frame, icmp::Error::TooBig(mtu), now);
                return Err(DropReason::TooBig);
            }
            ipv4::decrement_ttl(&mut Ipv4Packet::new_unchecked(frame.bytes_mut()));
            let verdict = self.forward_in_pieces(frame, &egress, by, now)?;
            return Ok(self.answer_verdict(link, frame, destination, verdict, now));
        }
        ipv4::decrement_ttl(&mut Ipv4Packet::new_unchecked(frame.bytes_mut()));
        if frame.bytes().len() > length.max(MIN_PACKET) {
            // What stands behind it has no end that the MTU bounds.
            frame.set_len(length);
        }
        let verdict = self.links[egress.link.0].interface.output_by(egress.target, frame, false, by, now);
        Ok(self.answer_verdict(link, frame, destination, verdict, now))
    }

    /// Tells the sender of a packet that it has no receiver.
    fn answer_verdict(
        &mut self,
        link: LinkId,
        frame: &Frame,
        destination: Ipv4Addr,
        verdict: Verdict,
        now: Instant,
    ) -> Verdict {
        if let Verdict::Dropped(
            reason @ (DropReason::Unreachable | DropReason::NoOwner | DropReason::UnassignedPort),
        ) = verdict
        {
            tracing::trace!(%destination, reason = reason.name(), "no owner");
            self.send_error(link, frame, icmp::Error::HostUnreachable, now);
        }
        verdict
    }

    /// Whether an address is one host's: no group, nor (RFC 2644) all hosts of a link of the router.
    fn is_unicast(&self, ip: Ipv4Addr) -> bool {
        is_host(ip) && !self.links.iter().any(|attached| attached.prefix.broadcast() == Some(ip))
    }

    /// Whether it is the router's, on one of its links.
    fn is_own(&self, ip: Ipv4Addr) -> bool {
        self.links.iter().any(|attached| attached.address == ip)
    }

    fn is_shared(&self, ip: Ipv4Addr) -> bool {
        self.links.iter().any(|attached| attached.interface.neighbors.is_shared(ip))
    }

    /// The next hop of a packet, and what names its owner there.
    fn route(
        &self,
        destination: Ipv4Addr,
        protocol: u8,
        key: &Result<FlowKey, Unkeyed>,
    ) -> Result<Option<Egress>, DropReason> {
        let Some(NextHop { link, gateway }) = self.fib.lookup(destination) else { return Ok(None) };
        let attached = &self.links[link.0];
        let target = match gateway {
            Some(gateway) => Target::gateway(gateway),
            None if !attached.pe => Target::gateway(destination),
            None => attached.interface.target(destination, protocol, key)?,
        };
        Ok(Some(Egress { link, target }))
    }

    /// A packet for one of the router's own addresses.
    fn deliver(
        &mut self,
        frame: &mut Frame,
        key: Result<FlowKey, Unkeyed>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        // Only pings are put together: there is no other service.
        if key == Err(Unkeyed::Fragment)
            && Ipv4Packet::new_unchecked(frame.bytes()).next_header() == IpProtocol::Icmp
        {
            return self.answer_echo(frame, now);
        }
        let key = key?;
        let own = key.destination_address;
        match key.kind {
            FlowKind::EchoRequest => self.answer_echo(frame, now),
            FlowKind::Transport => {
                self.send_error_from(own, frame, icmp::Error::PortUnreachable, now);
                Err(DropReason::NoService)
            }
            FlowKind::EchoReply | FlowKind::IcmpError => Ok(Verdict::Delivered),
            FlowKind::Tunnel | FlowKind::Portless => Err(DropReason::NoService),
        }
    }

    fn answer_echo(&mut self, frame: &Frame, now: Instant) -> Result<Verdict, DropReason> {
        let bytes = ip_bytes(frame);
        let reply = if Piece::of(&Ipv4Packet::new_unchecked(bytes)).is_none() {
            icmp::echo_reply(bytes)
        } else {
            match self.reassembly.add(bytes, now)? {
                Some(request) => icmp::echo_reply(&request),
                None => return Ok(Verdict::Delivered),
            }
        };
        self.originate(&reply.ok_or(DropReason::EchoDamaged)?, now);
        Ok(Verdict::Delivered)
    }

    /// Answers a packet that came by `link` with an ICMP error.
    fn send_error(&mut self, link: LinkId, frame: &Frame, error: icmp::Error, now: Instant) {
        // RFC 1812 §4.3.2.4: the address of the link by which the packet came.
        self.send_error_from(self.links[link.0].address, frame, error, now);
    }

    fn send_error_from(&mut self, own: Ipv4Addr, frame: &Frame, error: icmp::Error, now: Instant) {
        let Some(packet) = error_about(frame, own, error) else { return };
        let to = Ipv4Packet::new_unchecked(&packet).dst_addr();
        if self.icmp_limit.allow((to, self.sharer(frame)), now) {
            self.originate(&packet, now);
        }
    }

    /// Which of the hosts that share its source address has sent a packet.
    fn sharer(&self, frame: &Frame) -> Option<EthernetAddress> {
        let packet = Ipv4Packet::new_unchecked(ip_bytes(frame));
        let source = packet.src_addr();
        let mut links = self.links.iter().map(|attached| &attached.interface.neighbors);
        let neighbors = links.find(|neighbors| neighbors.is_shared(source))?;
        let key = FlowKey::of(&packet).ok()?;
        let target = Target { ip: source, protocol: key.protocol, port: key.source };
        neighbors.owner_of(target).map(|(owner, _)| owner)
    }

    /// Sends a packet that the router made.
    fn originate(&mut self, packet: &[u8], now: Instant) {
        match self.egress_of_own(packet) {
            Ok(egress) => self.send_own(packet, &egress, now),
            Err(reason) => {
                let frame = Frame::from_packet(packet);
                transmit_own(&mut self.counters, &mut self.transmits, frame, reason.into());
            }
        }
    }

    fn egress_of_own(&self, packet: &[u8]) -> Result<Egress, DropReason> {
        let packet = ipv4::check(packet)?;
        let (destination, protocol) = (packet.dst_addr(), packet.next_header().into());
        self.route(destination, protocol, &FlowKey::of(&packet))?.ok_or(DropReason::NoRoute)
    }

    fn drain(&mut self, now: Instant) {
        self.drain_dhcp(now);
        self.drain_fragments(now);
        // The error about an undeliverable packet can itself raise a question, which is drained in the next round;
        // no error answers an error, so there are few rounds.
        loop {
            let mut failed = Vec::new();
            let Self { links, counters, transmits, accounts, .. } = self;
            for attached in links {
                let undeliverable = |frame, reason| failed.push((frame, reason));
                let forwarded = |frame: &Frame| {
                    if let Some(accounts) = accounts {
                        accounts.count_late(frame.bytes(), frame.offload.gso, Fate::Forwarded);
                    }
                };
                let events = attached.interface.drain_seen(counters, transmits, undeliverable, forwarded);
                for event in events {
                    report(&attached.interface.name, &event);
                }
            }
            if failed.is_empty() {
                break;
            }
            for (frame, reason) in failed {
                if let Some(accounts) = &mut self.accounts {
                    accounts.count_late(frame.bytes(), frame.offload.gso, Fate::Dropped);
                }
                if matches!(reason, Refused::Unreachable | Refused::NoOwner) {
                    self.report_unreachable(&frame, now);
                }
            }
        }
    }

    fn report_unreachable(&mut self, frame: &Frame, now: Instant) {
        let Ok(packet) = Ipv4Packet::new_checked(frame.bytes()) else { return };
        // The way the packet came is the way back to its source.
        let Some(NextHop { link, .. }) = self.fib.lookup(packet.src_addr()) else { return };
        self.send_error(link, frame, icmp::Error::HostUnreachable, now);
    }
}

impl Node for Router {
    fn links(&self) -> Vec<(String, Medium)> {
        self.links.iter().map(|attached| (attached.interface.name.clone(), Medium::Ethernet)).collect()
    }

    fn handle_frame(&mut self, link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        self.counters.received += 1;
        let verdict = self.receive(link, frame, now);
        self.counters.count(verdict);
        self.drain(now);
        verdict
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<(LinkId, Frame)> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&mut self, _now: Instant) -> Option<Instant> {
        let dhcp = self.dhcp.iter().filter_map(Leasing::poll_timeout);
        let links = self.links.iter().filter_map(|attached| attached.interface.neighbors.poll_timeout());
        links.chain(dhcp).chain(self.fragments.poll_timeout()).min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        for attached in &mut self.links {
            attached.interface.neighbors.handle_timeout(now);
        }
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.handle_timeout(now);
        }
        self.fragments.handle_timeout(now);
        self.drain(now);
    }

    fn send_failed(&mut self, _link: LinkId, frame: &Frame) {
        self.counters.send_failed(Medium::Ethernet, frame);
        self.account_lost(frame);
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn neighbors(&self, now: Instant) -> Vec<(String, Entry)> {
        let of_link = |attached: &Attached| -> Vec<_> {
            let name = &attached.interface.name;
            attached.interface.neighbors.entries(now).into_iter().map(|entry| (name.clone(), entry)).collect()
        };
        self.links.iter().flat_map(of_link).collect()
    }
}

impl Router {
    /// Name, address, prefix length, link-layer address and role of each link, and the shared addresses on it.
    pub fn describe(&self) -> impl Iterator<Item = (&str, Ipv4Cidr, &Config)> {
        self.links.iter().map(|attached| {
            let config = attached.interface.neighbors.config();
            let address = Ipv4Cidr::new(attached.address, attached.prefix.prefix_len());
            (attached.interface.name.as_str(), address, config)
        })
    }
}

#[cfg(test)]
mod tests;
