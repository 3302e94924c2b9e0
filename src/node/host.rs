//! A host: its programs behind a TUN, its own stack, and the LAN where it shares an address by PE-ARP.
//!
//! ```text
//!   programs ── TUN ──> source in the program part? ──> next hop by {IP, protocol, port} ──> LAN
//!   own stack ────────> source in the stack part    ──┘
//!   LAN ──> destination in the program part ──> TUN       in the stack part ──> own stack
//! ```

mod address;
mod explain;
mod fragments;
mod own_stack;
mod portless;
mod programs;
mod streams;

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr, Ipv4Packet};

use super::ethernet::{Interface, Payload, report};
use super::ident_map::IdentMap;
use super::services::{ServicePorts, Services};
use super::stack::{EchoPort, Stack, StackError};
use super::{Counters, DropReason, LinkId, Node, Verdict};
use crate::forward::{Fragments, IcmpLimit};
use crate::neighbor::{ClaimPhase, Config, Entry, Event, Neighbors, OwnId, Refused, Target};
use crate::ports::{PortBitmap, PortSet};
use crate::wire::icmp::{self, is_host};
use crate::wire::pe_arp::MAX_RECORDS;
use crate::wire::{FlowKey, FlowKind, Frame, ICMP, Medium, Piece, ipv4};
use address::DividedSet;
pub use address::{HostAddress, SetConfig};
use programs::Leaks;
pub use programs::{Leak, LeakPolicy};

/// Addresses and sets that a host may have: what is said of an address has to fit into one message.
pub(super) const MAX_SETS: usize = 16;

/// Names of a host's links.
#[derive(Clone, Debug)]
pub struct HostLinks {
    /// The TAP on the LAN.
    pub lan: String,
    /// The TUN to the programs.
    pub tun: String,
}

/// What a host is, whatever address and set it has.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Names of its links.
    pub links: HostLinks,
    /// Its link-layer address.
    pub hardware: EthernetAddress,
    /// Ports of the stack part; `None` for one in eight.
    pub stack_ports: Option<u32>,
    /// Where its echo service listens.
    pub echo: EchoPort,
    /// What becomes of packets from ports outside the set.
    pub leaks: LeakPolicy,
    /// Who may answer for others.
    pub authorities: Vec<EthernetAddress>,
    /// The largest IP packet, in bytes.
    pub mtu: usize,
    /// ar$pro of PE-ARP.
    pub pro: u16,
    /// Seed of everything random.
    pub seed: u64,
}

/// Configuration of a host with its first set.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// What it is.
    pub options: HostOptions,
    /// What it has.
    pub first: SetConfig,
}

/// Why a host cannot have a further set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// It is not on the network of the first one.
    #[error("{0} is not on the network of this host's other addresses")]
    Network(Ipv4Cidr),
    /// There are too many.
    #[error("a host has at most {MAX_SETS} sets, and {MAX_RECORDS} ranges of an address")]
    TooMany,
    /// It has ports of it already.
    #[error("this host has ports of that set already")]
    Overlap,
}

/// Where a packet goes on the LAN.
enum Way {
    /// To a group or to all.
    Group(EthernetAddress),
    /// To its destination.
    OnLink(Target),
    /// To this router.
    Gateway(Ipv4Addr),
}

/// The LAN.
pub(super) const LAN: LinkId = LinkId(0);
/// The programs.
pub(super) const TUN: LinkId = LinkId(1);

/// A host.
#[derive(Debug)]
pub struct Host {
    interface: Interface,
    /// To the programs; `None` where there are none.
    tun_name: Option<String>,
    /// At least one.
    addresses: Vec<HostAddress>,
    /// Addresses that it has had.
    stacks: u32,
    stack_ports: Option<u32>,
    echo: EchoPort,
    mtu: usize,
    leak_policy: LeakPolicy,
    leaks: Leaks,
    icmp_limit: IcmpLimit,
    rng: ChaCha8Rng,
    pub(super) counters: Counters,
    transmits: VecDeque<(LinkId, Frame)>,
    /// Sets that were lost since the last look, and to whom.
    lost: BTreeMap<OwnId, EthernetAddress>,
    /// From the LAN, to shared addresses.
    incoming: Fragments<Frame>,
    /// From programs.
    outgoing: Fragments<Frame>,
}

impl Host {
    /// A host that has begun to probe its first set.
    ///
    /// # Errors
    /// [`StackError::EchoPort`].
    pub fn new(config: HostConfig, now: Instant) -> Result<Self, StackError> {
        let divided = DividedSet::new(OwnId::FIRST, &config.first, config.options.stack_ports);
        let stack: Vec<u16> = divided.stack.ports().collect();
        let services = Services::echo(config.options.echo, &stack, now)?;
        Ok(Self::start(config, divided, services, now))
    }

    /// A host without programs and without a TUN, one of thousands: its own stack has all of its set. It offers UDP
    /// echo and HTTP on the lowest port, TCP echo on the next one; the page begins with `page`.
    pub(super) fn without_programs(config: HostConfig, page: String, now: Instant) -> Self {
        let divided = DividedSet::new(OwnId::FIRST, &config.first, Some(u32::MAX));
        let stack: Vec<u16> = divided.stack.ports().collect();
        let services = Services::small(page, &stack, now);
        let mut host = Self::start(config, divided, services, now);
        host.tun_name = None;
        host
    }

    fn start(config: HostConfig, divided: DividedSet, services: Services, now: Instant) -> Self {
        let HostConfig { options, first } = config;
        let mut neighbors = Neighbors::new(
            Config {
                hardware: options.hardware,
                prefix: on_link_prefix(first.address, first.gateway),
                router: false,
                own: vec![first.own_set(now)],
                pe: true,
                schemes: Vec::new(),
                proxy: false,
                authorities: options.authorities,
                authority: false,
                seed: options.seed,
            },
            now,
        );
        neighbors.claim_own(OwnId::FIRST, now);
        let mut host = Self {
            addresses: Vec::new(),
            stacks: 0,
            stack_ports: options.stack_ports,
            echo: options.echo,
            mtu: options.mtu,
            leak_policy: options.leaks,
            leaks: Leaks::new(),
            interface: Interface {
                name: options.links.lan,
                link: LAN,
                neighbors,
                broadcast: first.address.broadcast(),
                pro: options.pro,
            },
            tun_name: Some(options.links.tun),
            icmp_limit: IcmpLimit::default(),
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            counters: Counters::default(),
            transmits: VecDeque::new(),
            lost: BTreeMap::new(),
            incoming: Fragments::new(),
            outgoing: Fragments::new(),
        };
        host.add_address(&first, divided, services, now);
        host.drain(now);
        host
    }

    fn add_address(&mut self, config: &SetConfig, divided: DividedSet, services: Services, now: Instant) {
        let number = self.stacks;
        self.stacks += 1;
        let ports: Vec<u16> = divided.stack.ports().collect();
        let (ip, seed) = (config.address.address(), self.rng.random());
        let stack = Stack::new(number, ip, self.mtu, &ports, services, seed, now);
        // It gets its identifications with the parts of the set, where the address is shared.
        let idents = IdentMap::new([], ChaCha8Rng::from_rng(&mut self.rng));
        self.addresses.push(HostAddress::new(config.address, config.gateway, divided, stack, idents));
    }

    /// Begins to probe a further set, of an address that the host has or of another one.
    ///
    /// # Errors
    /// See [`SetError`].
    pub fn add_set(&mut self, config: SetConfig, now: Instant) -> Result<OwnId, SetError> {
        if config.address.network() != self.first().cidr().network() {
            return Err(SetError::Network(config.address));
        }
        let own = config.own_set(now);
        let same = self.address_of(config.address.address());
        let taken = same.iter().flat_map(|address| address.sets()).any(|(_, set)| {
            config.set.ranges().iter().any(|range| range.ports().any(|port| set.contains(port)))
        });
        if taken {
            return Err(SetError::Overlap);
        }
        let records = same.map_or(0, HostAddress::record_count);
        let sets = self.addresses.iter().flat_map(HostAddress::sets).count();
        if sets >= MAX_SETS || records + own.records.len() > MAX_RECORDS {
            return Err(SetError::TooMany);
        }
        let id = self.interface.neighbors.add_own(own);
        let divided = DividedSet::new(id, &config, self.stack_ports);
        match self.find(config.address.address()) {
            Some(at) => self.addresses[at].add(divided, &self.interface.neighbors),
            None => self.add_address(&config, divided, Services::none(now), now),
        }
        self.interface.neighbors.claim_own(id, now);
        self.drain(now);
        Ok(id)
    }

    /// Gives a set back; [`Node::poll_transmit`] has the RELEASE. False for the last one: a host without a set is none.
    pub fn remove_set(&mut self, id: OwnId, now: Instant) -> bool {
        let sets = self.addresses.iter().flat_map(HostAddress::sets).count();
        let Some(at) = self.addresses.iter().position(|address| address.has_set(id)) else { return true };
        if sets <= 1 {
            return false;
        }
        self.interface.neighbors.remove_own(id);
        self.lost.remove(&id);
        self.addresses[at].remove(id, &self.interface.neighbors, now);
        if self.addresses[at].sets().next().is_none() {
            self.addresses.remove(at);
        }
        self.keep_serving(now);
        self.drain(now);
        true
    }

    /// The echo service goes to what is left, where its port was not chosen.
    fn keep_serving(&mut self, now: Instant) {
        let first = &mut self.addresses[0];
        if self.echo == EchoPort::Lowest && first.services() == ServicePorts::default() {
            let free: Vec<u16> = first.stack_part.ports().filter(|port| !first.stack.uses(*port)).collect();
            // The lowest of them is one of them.
            first.stack.serve(Services::echo(self.echo, &free, now).unwrap_or_else(|_| Services::none(now)));
        }
    }

    /// Begins no new flow of the own stack on a set, which is to be given back; or, if it is not `draining`, does so
    /// again.
    pub fn set_draining(&mut self, id: OwnId, draining: bool) {
        let neighbors = &self.interface.neighbors;
        self.addresses.iter_mut().for_each(|address| address.set_draining(id, draining, neighbors));
    }

    /// Believes these nodes, too, when they speak for others.
    pub fn add_authorities(&mut self, authorities: impl IntoIterator<Item = EthernetAddress>) {
        self.interface.neighbors.add_authorities(authorities);
    }

    /// One of its addresses.
    pub fn address_of(&self, ip: Ipv4Addr) -> Option<&HostAddress> {
        self.addresses.iter().find(|address| address.ip() == ip)
    }

    /// Its addresses, the first one first.
    pub fn addresses(&self) -> &[HostAddress] {
        &self.addresses
    }

    fn first(&self) -> &HostAddress {
        &self.addresses[0]
    }

    /// The first address and its on-link prefix.
    pub fn address(&self) -> Ipv4Cidr {
        self.first().cidr()
    }

    /// The router of the first address.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.first().gateway()
    }

    /// The link-layer address.
    pub fn hardware(&self) -> EthernetAddress {
        self.interface.neighbors.config().hardware
    }

    /// The first set of the first address.
    pub fn set(&self) -> &PortSet {
        self.first().first_set()
    }

    /// What programs may use of the first address.
    pub fn program_part(&self) -> &PortBitmap {
        self.first().program_part()
    }

    /// What the host's own sockets use of the first address.
    pub fn stack_part(&self) -> &PortBitmap {
        self.first().stack_part()
    }

    /// Ports of the stack part of the first address in use, and where the echo service is.
    pub fn stack_use(&self) -> (usize, Option<u16>) {
        (self.first().stack_ports_used(), self.services().tcp_echo)
    }

    /// Where its services are, at the first address.
    pub fn services(&self) -> ServicePorts {
        self.first().services()
    }

    /// Where the first set stands.
    pub fn phase(&self) -> ClaimPhase {
        self.phase_of(self.first().first_id())
    }

    /// Where a set stands.
    pub fn phase_of(&self, id: OwnId) -> ClaimPhase {
        self.interface.neighbors.own_phase(id)
    }

    /// A set that was lost since the last call, and who took it.
    pub fn take_lost(&mut self) -> Option<(OwnId, EthernetAddress)> {
        self.lost.pop_first()
    }

    /// Gives all sets back; [`Node::poll_transmit`] has the RELEASEs.
    pub fn release(&mut self, now: Instant) {
        for id in self.addresses.iter().flat_map(HostAddress::sets).map(|(id, _)| id) {
            self.interface.neighbors.release_own(id);
        }
        self.refresh();
        self.drain(now);
    }

    /// A set may be used for `lease` from now on. One whose lease was over is probed again.
    pub fn renew(&mut self, id: OwnId, lease: Duration, now: Instant) {
        self.interface.neighbors.renew_own(id, now + lease, now);
        self.drain(now);
    }

    fn refresh(&mut self) {
        self.addresses.iter_mut().for_each(|address| address.refresh(&self.interface.neighbors));
    }

    /// Which of its addresses this is.
    fn find(&self, ip: Ipv4Addr) -> Option<usize> {
        self.addresses.iter().position(|address| address.ip() == ip)
    }

    /// The same of an address in use; one that the host does not have is dropped for this reason.
    fn find_in_use(&self, ip: Ipv4Addr, foreign: DropReason) -> Result<usize, DropReason> {
        let at = self.find(ip).ok_or(foreign)?;
        if self.addresses[at].in_use { Ok(at) } else { Err(DropReason::SetNotHeld) }
    }

    /// The end of a frame: a host without programs has nobody to give it to.
    fn end_of(&self, result: Result<Verdict, DropReason>) -> Verdict {
        match result.unwrap_or_else(Verdict::Dropped) {
            Verdict::Forward(TUN) if self.tun_name.is_none() => DropReason::NoPrograms.into(),
            verdict => verdict,
        }
    }

    /// A packet for a port of an own set.
    fn loop_back(
        &mut self,
        at: usize,
        key: &FlowKey,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if self.addresses[at].is_for_programs(key, frame, now) {
            Ok(Verdict::Forward(TUN))
        } else if Piece::of(&Ipv4Packet::new_unchecked(frame.bytes())).is_some() {
            // The own stack puts nothing together.
            Err(DropReason::Fragment)
        } else {
            self.give_to_stack(at, frame, now)
        }
    }

    /// Sends a packet of the address `at`.
    fn route_key(
        &mut self,
        at: usize,
        key: &FlowKey,
        frame: &mut Frame,
        originated: bool,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        self.route(at, self.target_of(at, key), key.destination_address, frame, originated, now)
    }

    /// What of its destination a packet of the address `at` is for, if that is on the link.
    fn target_of(&self, at: usize, key: &FlowKey) -> Target {
        let ip = key.destination_address;
        // PE-ARP rule 92: an echo request names no owner, so that for a shared address the router answers it.
        let by_gateway = key.kind == FlowKind::EchoRequest && self.interface.neighbors.is_shared(ip);
        match self.addresses[at].gateway() {
            Some(gateway) if by_gateway => Target::gateway(gateway),
            _ => Target { ip, protocol: key.protocol, port: key.destination },
        }
    }

    /// Where a packet of the address `at` goes: to `target` where its destination is on the link.
    fn way(&self, at: usize, target: Target, destination: Ipv4Addr) -> Result<Way, DropReason> {
        if destination.is_multicast() {
            // RFC 1112 §6.4.
            let [_, b, c, d] = destination.octets();
            return Ok(Way::Group(EthernetAddress([0x01, 0, 0x5E, b & 0x7F, c, d])));
        }
        let (cidr, gateway) = (self.addresses[at].cidr(), self.addresses[at].gateway());
        if destination.is_broadcast() || Some(destination) == cidr.broadcast() {
            return Ok(Way::Group(EthernetAddress::BROADCAST));
        }
        if !is_host(destination) {
            return Err(DropReason::MartianDestination);
        }
        // PE-ARP rule 86: with a /32 mask the gateway is the only next hop.
        if cidr.prefix_len() < 32 && cidr.contains_addr(&destination) {
            return Ok(Way::OnLink(target));
        }
        gateway.map(Way::Gateway).ok_or(DropReason::NoRoute)
    }

    /// Sends a packet to its next hop on the LAN: `target` where the destination is on the link.
    fn route(
        &mut self,
        at: usize,
        target: Target,
        destination: Ipv4Addr,
        frame: &mut Frame,
        originated: bool,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let target = match self.way(at, target, destination)? {
            Way::Group(hardware) => {
                frame.push_ethernet_header(self.hardware(), hardware);
                return Ok(Verdict::Forward(LAN));
            }
            Way::OnLink(target) => target,
            Way::Gateway(gateway) => Target::gateway(gateway),
        };
        let verdict = self.interface.output(target, frame, originated, now);
        if let Verdict::Dropped(DropReason::Unreachable | DropReason::NoOwner) = verdict
            && !originated
        {
            self.send_error(frame, icmp::Error::HostUnreachable, now);
        }
        Ok(verdict)
    }

    /// A packet from the LAN.
    fn receive_lan(&mut self, unicast: bool, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        let packet = ipv4::check(frame.bytes())?;
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let length = usize::from(packet.total_len());
        let broadcast = self.interface.broadcast;
        let group =
            destination.is_multicast() || destination.is_broadcast() || Some(destination) == broadcast;
        let (mut key, fragment) = (FlowKey::of(&packet), Piece::of(&packet));
        // RFC 1122 §3.2.1.3; a host that has no address yet may call all of them.
        let nameless = group && source.is_unspecified();
        if !nameless && (!is_host(source) || Some(source) == broadcast) {
            return Err(DropReason::MartianSource);
        }
        // The programs, and the stack, get no Ethernet padding.
        frame.set_len(length);
        if group {
            return Ok(Verdict::Forward(TUN));
        }
        if !unicast {
            return Err(DropReason::NotOurAddress);
        }
        let at = self.find_in_use(destination, DropReason::NotOurAddress)?;
        if !self.addresses[at].shared {
            return key.map_or(Ok(Verdict::Forward(TUN)), |key| self.loop_back(at, &key, frame, now));
        }
        if let Some(fragment) = fragment {
            match self.key_of_incoming(frame, fragment, key, now)? {
                Some(first) => key = Ok(first),
                None => return Ok(Verdict::Pending),
            }
        }
        self.receive_shared(at, key?, frame, now)
    }

    /// A packet from the LAN to the shared address `at`, which is in use.
    fn receive_shared(
        &mut self,
        at: usize,
        key: FlowKey,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        // RFC 1122 §3.2.1.3: nobody else sends from the own ports, so that echo would go round for ever.
        if key.source.is_some_and(|port| self.owns(key.source_address, port)) {
            return Err(DropReason::MartianSource);
        }
        match (key.kind, key.destination) {
            // PE-ARP rule 61, where the router leaves it to the owner of the identifier.
            (FlowKind::EchoRequest, _) if key.source.is_some_and(|port| self.addresses[at].owns(port)) => {
                self.answer_echo(at, frame, now)
            }
            (FlowKind::EchoRequest, _) => Err(DropReason::EchoIdentifier),
            // Its identifier is in the first one.
            (FlowKind::EchoReply, Some(port)) if key.headless && self.addresses[at].owns(port) => {
                Ok(Verdict::Forward(TUN))
            }
            (FlowKind::EchoReply, _) => {
                let mut packet = Ipv4Packet::new_unchecked(frame.bytes_mut());
                self.addresses[at].echo_map.map_reply(&mut packet).ok_or(DropReason::EchoIdentifier)?;
                Ok(Verdict::Forward(TUN))
            }
            (FlowKind::IcmpError, Some(_)) if key.protocol == ICMP && !key.headless => {
                let mut packet = Ipv4Packet::new_unchecked(frame.bytes_mut());
                self.addresses[at].echo_map.map_error(&mut packet).ok_or(DropReason::EchoIdentifier)?;
                Ok(Verdict::Forward(TUN))
            }
            (_, Some(port)) if self.addresses[at].owns(port) => self.loop_back(at, &key, frame, now),
            // PE-ARP rule 7: nobody but the owner answers.
            (_, Some(_)) => Err(DropReason::NotOurPort),
            (_, None) if self.owns_portless(key.destination_address, &key) => {
                self.loop_back(at, &key, frame, now)
            }
            (_, None) => Err(DropReason::Portless),
        }
    }

    /// Whether a port of an address is part of the own sets in use.
    fn owns(&self, ip: Ipv4Addr, port: u16) -> bool {
        self.addresses.iter().any(|address| address.ip() == ip && address.in_use && address.owns(port))
    }

    fn drain(&mut self, now: Instant) {
        self.drain_fragments(now);
        let mut failed = Vec::new();
        let undeliverable = |frame, reason| failed.push((frame, reason));
        let events = self.interface.drain(&mut self.counters, &mut self.transmits, undeliverable);
        for event in events {
            report(&self.interface.name, &event);
            if let Event::OwnConflict { own, hardware, lost: true, .. } = event {
                self.lost.insert(own, hardware);
            }
            if let Event::OwnConflict { lost: true, .. } | Event::Ready { .. } | Event::Expired { .. } = event
            {
                self.refresh();
            }
        }
        for (frame, reason) in failed {
            if matches!(reason, Refused::Unreachable | Refused::NoOwner) {
                self.send_error(&frame, icmp::Error::HostUnreachable, now);
            }
        }
    }
}

/// Where neighbors are learned: on the own prefix, which grows until the gateway is on it (PE-ARP rule 86).
fn on_link_prefix(address: Ipv4Cidr, gateway: Option<Ipv4Addr>) -> Ipv4Cidr {
    let mut prefix = address;
    while gateway.is_some_and(|gateway| !prefix.contains_addr(&gateway)) {
        prefix = Ipv4Cidr::new(address.address(), prefix.prefix_len() - 1);
    }
    prefix.network()
}

impl Node for Host {
    fn links(&self) -> Vec<(String, Medium)> {
        let tun = self.tun_name.clone().map(|name| (name, Medium::Ip));
        [(self.interface.name.clone(), Medium::Ethernet)].into_iter().chain(tun).collect()
    }

    fn handle_frame(&mut self, link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        self.counters.received += 1;
        let result = if link == TUN {
            self.receive_tun(frame, now)
        } else {
            match self.interface.receive(frame, now) {
                Ok(Payload::Arp(verdict)) => Ok(verdict),
                Ok(Payload::Ipv4 { unicast, .. }) => self.receive_lan(unicast, frame, now),
                Err(reason) => Err(reason),
            }
        };
        let verdict = self.end_of(result);
        self.counters.count(verdict);
        self.drain(now);
        verdict
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<(LinkId, Frame)> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let of_address = |address: &mut HostAddress| {
            [address.stack.poll_timeout(now), address.leak_map.poll_timeout()].into_iter().flatten().min()
        };
        let addresses = self.addresses.iter_mut().filter_map(of_address).min();
        let fragments = [self.incoming.poll_timeout(), self.outgoing.poll_timeout()];
        let others = [self.interface.neighbors.poll_timeout(), addresses];
        fragments.into_iter().chain(others).flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.interface.neighbors.handle_timeout(now);
        self.incoming.handle_timeout(now);
        self.outgoing.handle_timeout(now);
        // What the stacks may send depends on what is in use.
        self.drain(now);
        for HostAddress { stack, leak_map, .. } in &mut self.addresses {
            leak_map.handle_timeout(stack, now);
        }
        self.run_stack(now);
    }

    fn send_failed(&mut self, link: LinkId, frame: &Frame) {
        let medium = if link == TUN { Medium::Ip } else { Medium::Ethernet };
        self.counters.send_failed(medium, frame);
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn neighbors(&self, now: Instant) -> Vec<(String, Entry)> {
        let name = &self.interface.name;
        self.interface.neighbors.entries(now).into_iter().map(|entry| (name.clone(), entry)).collect()
    }
}

#[cfg(test)]
mod tests;
