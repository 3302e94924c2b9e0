//! A host: its programs behind a TUN, its own stack, and the LAN where it shares an address by PE-ARP.
//!
//! ```text
//!   programs ── TUN ──> source in the program part? ──> next hop by {IP, protocol, port} ──> LAN
//!   own stack ────────> source in the stack part    ──┘
//!   LAN ──> destination in the program part ──> TUN       in the stack part ──> own stack
//! ```

mod programs;

use core::net::Ipv4Addr;
use std::collections::VecDeque;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr, Ipv4Packet};

use super::echo_map::EchoMap;
use super::ethernet::{Interface, Payload, ip_bytes, report};
use super::leak_map::LeakMap;
use super::services::{ServicePorts, Services};
use super::stack::{EchoPort, Stack, StackError, StreamId, StreamState};
use super::{Counters, DropReason, LinkId, Node, Verdict};
use crate::forward::IcmpLimit;
use crate::neighbor::{ClaimPhase, Config, Entry, Event, Neighbors, OwnId, OwnSet, Refused, Target};
use crate::ports::{PortBitmap, PortSet};
use crate::wire::icmp::{self, is_host};
use crate::wire::pe_arp::{Claim, Lifetime, Record};
use crate::wire::{FlowKey, FlowKind, Frame, GsoKind, ICMP, Medium, Segments, ipv4};
use programs::Leaks;
pub use programs::{Leak, LeakPolicy};

/// The stack part of a set is one port in this many, unless configured.
const STACK_SHARE: u32 = 8;
/// Rounds that the stack may talk to itself per call.
const MAX_STACK_ROUNDS: usize = 64;
/// The smallest stack part.
const MIN_STACK_PORTS: u32 = 2;

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

/// Configuration of a host.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// What it is.
    pub options: HostOptions,
    /// Its address and the on-link prefix.
    pub address: Ipv4Cidr,
    /// The router for everything else.
    pub gateway: Option<Ipv4Addr>,
    /// Its part of the address.
    pub set: PortSet,
    /// How long the set may be used unless [`Host::renew`] is called; `None` for ever.
    pub lease: Option<Duration>,
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
    address: Ipv4Cidr,
    gateway: Option<Ipv4Addr>,
    set: PortSet,
    shared: bool,
    program_part: PortBitmap,
    stack_part: PortBitmap,
    stack: Stack,
    echo_map: EchoMap,
    leak_policy: LeakPolicy,
    leak_map: LeakMap,
    leaks: Leaks,
    icmp_limit: IcmpLimit,
    rng: ChaCha8Rng,
    pub(super) counters: Counters,
    transmits: VecDeque<(LinkId, Frame)>,
    /// The set was lost since the last look.
    lost: Option<EthernetAddress>,
}

impl Host {
    /// A host that has begun to probe its set.
    ///
    /// # Errors
    /// [`StackError::EchoPort`].
    pub fn new(config: HostConfig, now: Instant) -> Result<Self, StackError> {
        let mut program: Vec<u16> = config.set.to_bitmap().ports().collect();
        let count = program.len() as u32;
        let wanted = config.options.stack_ports.unwrap_or((count / STACK_SHARE).max(MIN_STACK_PORTS));
        let stack = program.split_off(program.len() - (wanted.min(count) as usize));
        let services = Services::echo(config.options.echo, &stack, now)?;
        Ok(Self::start(config, (&program, &stack), services, now))
    }

    /// A host without programs and without a TUN, one of thousands: its own stack has all of its set. It offers UDP
    /// echo and HTTP on the lowest port, TCP echo on the next one; the page begins with `page`.
    pub(super) fn without_programs(config: HostConfig, page: String, now: Instant) -> Self {
        let stack: Vec<u16> = config.set.to_bitmap().ports().collect();
        let services = Services::small(page, &stack, now);
        let mut host = Self::start(config, (&[], &stack), services, now);
        host.tun_name = None;
        host
    }

    /// The set is divided into the program part and the stack part.
    fn start(
        config: HostConfig,
        (program, stack): (&[u16], &[u16]),
        services: Services,
        now: Instant,
    ) -> Self {
        let HostConfig { options, address, gateway, set, lease } = config;
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let shared = !set.is_full();
        let lifetime = Lifetime::Unknown;
        let records = match &set {
            _ if !shared => vec![Record::new(Claim::Full, lifetime)],
            PortSet::Psid(psid) => vec![Record::new(Claim::Psid(*psid), lifetime)],
            PortSet::Ranges(ranges) => {
                ranges.iter().map(|range| Record::new(Claim::Range(*range), lifetime)).collect()
            }
        };
        let mut neighbors = Neighbors::new(
            Config {
                hardware: options.hardware,
                prefix: on_link_prefix(address, gateway),
                router: false,
                own: vec![OwnSet {
                    ip: address.address(),
                    records,
                    first_port: set.first(),
                    shared,
                    authoritative: true,
                    until: lease.map(|lease| now + lease),
                }],
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
        let own = address.address();
        let seed = rng.random();
        let mut host = Self {
            stack: Stack::new(own, options.mtu, stack, services, seed, now),
            echo_map: EchoMap::new(stack.iter().copied()),
            leak_policy: options.leaks,
            leak_map: LeakMap::default(),
            leaks: Leaks::new(),
            program_part: program.iter().copied().collect(),
            stack_part: stack.iter().copied().collect(),
            interface: Interface {
                name: options.links.lan,
                link: LAN,
                neighbors,
                broadcast: address.broadcast(),
                pro: options.pro,
            },
            tun_name: Some(options.links.tun),
            address,
            gateway,
            set,
            shared,
            icmp_limit: IcmpLimit::default(),
            rng,
            counters: Counters::default(),
            transmits: VecDeque::new(),
            lost: None,
        };
        host.drain(now);
        host
    }

    /// The address and its on-link prefix.
    pub fn address(&self) -> Ipv4Cidr {
        self.address
    }

    /// The router.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway
    }

    /// The link-layer address.
    pub fn hardware(&self) -> EthernetAddress {
        self.interface.neighbors.config().hardware
    }

    /// The whole set.
    pub fn set(&self) -> &PortSet {
        &self.set
    }

    /// What programs may use.
    pub fn program_part(&self) -> &PortBitmap {
        &self.program_part
    }

    /// What the host's own sockets use.
    pub fn stack_part(&self) -> &PortBitmap {
        &self.stack_part
    }

    /// Ports of the stack part in use, and where the echo service is.
    pub fn stack_use(&self) -> (usize, Option<u16>) {
        (self.stack.ports_used(), self.stack.services().tcp_echo)
    }

    /// Where its services are.
    pub fn services(&self) -> ServicePorts {
        self.stack.services()
    }

    /// Where the set stands.
    pub fn phase(&self) -> ClaimPhase {
        self.interface.neighbors.own_phase(OwnId::FIRST)
    }

    /// Who took the set, if it was lost since the last call.
    pub fn take_lost(&mut self) -> Option<EthernetAddress> {
        self.lost.take()
    }

    /// Gives the set back; [`Node::poll_transmit`] has the RELEASE.
    pub fn release(&mut self, now: Instant) {
        self.interface.neighbors.release_own(OwnId::FIRST);
        self.drain(now);
    }

    /// The set may be used for `lease` from now on. One whose lease was over is probed again.
    pub fn renew(&mut self, lease: Duration, now: Instant) {
        self.interface.neighbors.renew_own(OwnId::FIRST, now + lease, now);
        self.drain(now);
    }

    /// Opens a TCP connection from the stack part.
    ///
    /// # Errors
    /// See [`StackError`].
    pub fn connect(&mut self, to: Ipv4Addr, port: u16, now: Instant) -> Result<StreamId, StackError> {
        if !is_host(to) {
            return Err(StackError::Address);
        }
        let id = self.stack.connect(to, port, &mut self.rng)?;
        self.run_stack(now);
        Ok(id)
    }

    /// The source port of a stream.
    pub fn stream_port(&self, id: StreamId) -> Option<u16> {
        self.stack.local_port(id)
    }

    /// What a stream can do.
    pub fn stream_state(&mut self, id: StreamId) -> StreamState {
        self.stack.state(id)
    }

    /// Sends bytes on a stream; how many there was room for.
    pub fn stream_send(&mut self, id: StreamId, bytes: &[u8], now: Instant) -> usize {
        let sent = self.stack.send(id, bytes);
        if sent > 0 {
            self.run_stack(now);
        }
        sent
    }

    /// Reads bytes from a stream; how many.
    pub fn stream_receive(&mut self, id: StreamId, space: &mut [u8], now: Instant) -> usize {
        let received = self.stack.receive_stream(id, space);
        if received > 0 {
            // The window has opened.
            self.run_stack(now);
        }
        received
    }

    /// Closes the own side of a stream.
    pub fn stream_close(&mut self, id: StreamId, now: Instant) {
        self.stack.close(id);
        self.run_stack(now);
    }

    /// Leaves a stream for good.
    pub fn stream_leave(&mut self, id: StreamId, now: Instant) {
        self.stack.leave(id, now);
        self.run_stack(now);
    }

    /// A packet for a port of the own set.
    fn loop_back(&mut self, key: &FlowKey, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        if self.is_for_programs(key, frame, now) {
            Ok(Verdict::Forward(TUN))
        } else {
            self.give_to_stack(frame, now)
        }
    }

    /// Whether a program, and not the own stack, takes a packet for a port of the own set. One whose port was chosen anew
    /// gets its own port back.
    fn is_for_programs(&mut self, key: &FlowKey, frame: &mut Frame, now: Instant) -> bool {
        if !self.is_of_stack_part(key) {
            return true;
        }
        match key.kind {
            FlowKind::Transport => self.leak_map.map_in(key, frame, now),
            FlowKind::IcmpError => self.leak_map.map_error(key, frame.bytes_mut()),
            FlowKind::EchoRequest | FlowKind::EchoReply | FlowKind::Portless => false,
        }
    }

    /// Whether the packet is for a port of the own stack. It has a part of a shared set; of a whole address it has the
    /// ports that it uses.
    fn is_of_stack_part(&self, key: &FlowKey) -> bool {
        let of_stack = |port| self.stack_part.contains(port) && (self.shared || self.stack.uses(port));
        key.protocol != ICMP && key.destination.is_some_and(of_stack)
    }

    fn owns(&self, port: u16) -> bool {
        self.program_part.contains(port) || self.stack_part.contains(port)
    }

    fn route_key(
        &mut self,
        key: &FlowKey,
        frame: &mut Frame,
        originated: bool,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let ip = key.destination_address;
        // PE-ARP rule 92: an echo request names no owner, so that for a shared address the router answers it.
        let by_gateway = key.kind == FlowKind::EchoRequest && self.interface.neighbors.is_shared(ip);
        let target = match self.gateway {
            Some(gateway) if by_gateway => Target::gateway(gateway),
            _ => Target { ip, protocol: key.protocol, port: key.destination },
        };
        self.route(target, ip, frame, originated, now)
    }

    /// Sends a packet to its next hop on the LAN: `target` where the destination is on the link.
    fn route(
        &mut self,
        target: Target,
        destination: Ipv4Addr,
        frame: &mut Frame,
        originated: bool,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let source = self.hardware();
        if destination.is_multicast() {
            // RFC 1112 §6.4.
            let [_, b, c, d] = destination.octets();
            frame.push_ethernet_header(source, EthernetAddress([0x01, 0, 0x5E, b & 0x7F, c, d]));
            return Ok(Verdict::Forward(LAN));
        }
        if destination.is_broadcast() || Some(destination) == self.address.broadcast() {
            frame.push_ethernet_header(source, EthernetAddress::BROADCAST);
            return Ok(Verdict::Forward(LAN));
        }
        if !is_host(destination) {
            return Err(DropReason::MartianDestination);
        }
        // PE-ARP rule 86: with a /32 mask the gateway is the only next hop.
        let on_link = self.address.prefix_len() < 32 && self.address.contains_addr(&destination);
        let target = match self.gateway {
            _ if on_link => target,
            Some(gateway) => Target::gateway(gateway),
            None => return Err(DropReason::NoRoute),
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
        let group = destination.is_multicast()
            || destination.is_broadcast()
            || Some(destination) == self.address.broadcast();
        let key = FlowKey::of(&packet);
        // RFC 1122 §3.2.1.3; a host that has no address yet may call all of them.
        let nameless = group && source.is_unspecified();
        if !nameless && (!is_host(source) || Some(source) == self.address.broadcast()) {
            return Err(DropReason::MartianSource);
        }
        // The programs, and the stack, get no Ethernet padding.
        frame.set_len(length);
        if group {
            return Ok(Verdict::Forward(TUN));
        }
        if destination != self.address.address() || !unicast {
            return Err(DropReason::NotOurAddress);
        }
        if !self.phase().holds() {
            return Err(DropReason::SetNotHeld);
        }
        if !self.shared {
            return key.map_or(Ok(Verdict::Forward(TUN)), |key| self.loop_back(&key, frame, now));
        }
        let key = key?;
        // RFC 1122 §3.2.1.3: nobody else sends from the own ports, so that echo would go round for ever.
        if key.source_address == self.address.address() && key.source.is_some_and(|port| self.owns(port)) {
            return Err(DropReason::MartianSource);
        }
        match (key.kind, key.destination) {
            (FlowKind::EchoRequest, _) => Err(DropReason::EchoIdentifier),
            (FlowKind::EchoReply, _) => {
                let mut packet = Ipv4Packet::new_unchecked(frame.bytes_mut());
                self.echo_map.map_reply(&mut packet).ok_or(DropReason::EchoIdentifier)?;
                Ok(Verdict::Forward(TUN))
            }
            (FlowKind::IcmpError, Some(_)) if key.protocol == ICMP => {
                let mut packet = Ipv4Packet::new_unchecked(frame.bytes_mut());
                self.echo_map.map_error(&mut packet).ok_or(DropReason::EchoIdentifier)?;
                Ok(Verdict::Forward(TUN))
            }
            (_, Some(port)) if self.owns(port) => self.loop_back(&key, frame, now),
            // PE-ARP rule 7: nobody but the owner answers.
            (_, Some(_)) => Err(DropReason::NotOurPort),
            (_, None) => Err(DropReason::Portless),
        }
    }

    fn give_to_stack(&mut self, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        let taken = if frame.offload.gso.is_some_and(|gso| gso.kind == GsoKind::Udp) {
            // Datagrams have ends. TCP has none, and its sockets take a super-frame as one segment.
            let mut segments = Segments::of(frame, Medium::Ip).map_err(|_| DropReason::Truncated)?;
            let mut datagram = Frame::buffer();
            let mut taken = true;
            while taken && segments.next_into(&mut datagram) {
                taken = self.stack.receive(datagram.bytes());
            }
            taken
        } else {
            frame.complete_checksum();
            self.stack.receive(ip_bytes(frame))
        };
        if !taken {
            return Err(DropReason::StackFull);
        }
        self.run_stack(now);
        Ok(Verdict::Delivered)
    }

    fn run_stack(&mut self, now: Instant) {
        // A connection of the stack to itself answers itself: bounded, the rest is due at once.
        for _ in 0..MAX_STACK_ROUNDS {
            self.poll_stack(now);
            if !self.stack.has_input() {
                break;
            }
        }
        self.drain(now);
    }

    fn poll_stack(&mut self, now: Instant) {
        self.stack.poll(now);
        while let Some(packet) = self.stack.poll_transmit() {
            self.counters.originated += 1;
            let mut frame = Frame::from_packet(&packet);
            let verdict = self.send_own(&mut frame, now).unwrap_or_else(Verdict::Dropped);
            self.counters.count(verdict);
            if let Verdict::Forward(link) = verdict {
                self.transmits.push_back((link, frame));
            }
        }
    }

    /// A packet of the host's own stack.
    fn send_own(&mut self, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        let key = FlowKey::of(&ipv4::check(frame.bytes())?)?;
        if !self.phase().holds() {
            return Err(DropReason::SetNotHeld);
        }
        if key.destination_address == self.address.address()
            && key.destination.is_some_and(|port| self.owns(port))
        {
            if self.is_for_programs(&key, frame, now) {
                return Ok(Verdict::Forward(TUN));
            }
            let taken = self.stack.receive(frame.bytes());
            return if taken { Ok(Verdict::Delivered) } else { Err(DropReason::StackFull) };
        }
        self.route_key(&key, frame, true, now)
    }

    fn drain(&mut self, now: Instant) {
        let mut failed = Vec::new();
        let undeliverable = |frame, reason| failed.push((frame, reason));
        let events = self.interface.drain(&mut self.counters, &mut self.transmits, undeliverable);
        for event in events {
            report(&self.interface.name, &event);
            if let Event::OwnConflict { hardware, lost: true, .. } = event {
                self.lost = Some(hardware);
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
                Ok(Payload::Ipv4 { unicast }) => self.receive_lan(unicast, frame, now),
                Err(reason) => Err(reason),
            }
        };
        let verdict = match result.unwrap_or_else(Verdict::Dropped) {
            Verdict::Forward(TUN) if self.tun_name.is_none() => DropReason::NoPrograms.into(),
            verdict => verdict,
        };
        self.counters.count(verdict);
        self.drain(now);
        verdict
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<(LinkId, Frame)> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let engines = [
            self.interface.neighbors.poll_timeout(),
            self.stack.poll_timeout(now),
            self.leak_map.poll_timeout(),
        ];
        engines.into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.interface.neighbors.handle_timeout(now);
        self.leak_map.handle_timeout(&mut self.stack, now);
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
