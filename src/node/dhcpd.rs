//! A DHCP server of {address, port set} beside a router that knows nothing of port sets: one link, and an address of its
//! own (PE-ARP §15).
//!
//! ```text
//!   LAN ──┬── router, as it is
//!         ├── this node: DHCP; NAK for ports that nobody has leased; ping; nothing is forwarded
//!         └── hosts
//! ```

use core::net::Ipv4Addr;
use std::collections::VecDeque;

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::ethernet::{Interface, Payload, ip_bytes, report, transmit_own};
use super::leasing::{Granted, Leasing, Lessor, Outgoing, is_for_server};
use super::{Counters, DropReason, LinkId, Node, Verdict};
use crate::dhcp::{Lease, Server};
use crate::neighbor::{Config, Entry, Neighbors, OwnId, OwnSet, Target};
use crate::wire::icmp::{self, is_host};
use crate::wire::{FlowKey, FlowKind, Frame, Medium, ipv4};

/// Its only link, also for [`crate::dhcp::ServerLink`].
const LAN: LinkId = LinkId(0);

/// Configuration of the node; what there is to give is that of its [`Server`].
#[derive(Clone, Debug)]
pub struct DhcpdConfig {
    /// Name of the link in lists.
    pub lan: String,
    /// Its link-layer address.
    pub hardware: EthernetAddress,
    /// Its own address, a whole one, and the on-link prefix.
    pub address: Ipv4Cidr,
    /// The router, for answers to who is not on the link.
    pub gateway: Option<Ipv4Addr>,
    /// ar$pro of PE-ARP.
    pub pro: u16,
    /// Seed of everything random.
    pub seed: u64,
}

/// The node.
#[derive(Debug)]
pub struct Dhcpd {
    interface: Interface,
    address: Ipv4Cidr,
    gateway: Option<Ipv4Addr>,
    leasing: Leasing,
    counters: Counters,
    transmits: VecDeque<(LinkId, Frame)>,
}

impl Dhcpd {
    /// A node that serves the one link of `server`. The leases that the server knows are bindings at once.
    pub fn new(config: DhcpdConfig, server: Server, now: Instant) -> Self {
        let prefix = config.address.network();
        let schemes = server.config().shared().filter(|(ip, _)| prefix.contains_addr(ip)).collect();
        let mut neighbors = Neighbors::new(
            Config {
                hardware: config.hardware,
                prefix,
                router: false,
                own: vec![OwnSet::whole(config.address.address())],
                pe: true,
                schemes,
                // PE-ARP rule 3: who asks by plain ARP would send packets for sharers, and nothing is forwarded here.
                proxy: false,
                authorities: Vec::new(),
                authority: true,
                seed: config.seed,
            },
            now,
        );
        neighbors.hold_own(OwnId::FIRST);
        let interface = Interface {
            name: config.lan,
            link: LAN,
            neighbors,
            broadcast: prefix.broadcast(),
            pro: config.pro,
        };
        let mut dhcpd = Self {
            interface,
            address: config.address,
            gateway: config.gateway,
            leasing: Leasing::new(server),
            counters: Counters::default(),
            transmits: VecDeque::new(),
        };
        dhcpd.drain(now);
        dhcpd
    }

    /// Name, address, prefix length and link-layer address of the link, and the shared addresses on it.
    pub fn describe(&self) -> (&str, Ipv4Cidr, &Config) {
        (&self.interface.name, self.address, self.interface.neighbors.config())
    }

    fn receive(&mut self, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        match self.interface.receive(frame, now)? {
            Payload::Arp(verdict) => Ok(verdict),
            Payload::Ipv4 { source, .. } if is_for_server(&self.interface, frame.bytes()) => {
                self.leasing.receive(LAN, source, frame, now)
            }
            Payload::Ipv4 { unicast: false, .. } => Err(DropReason::NotOurFrame),
            Payload::Ipv4 { unicast: true, .. } => self.receive_packet(frame, now),
        }
    }

    fn receive_packet(&mut self, frame: &Frame, now: Instant) -> Result<Verdict, DropReason> {
        let packet = ipv4::check(frame.bytes())?;
        let (source, own) = (packet.src_addr(), self.address.address());
        if !is_host(source) || self.interface.broadcast == Some(source) || source == own {
            return Err(DropReason::MartianSource);
        }
        if packet.dst_addr() != own {
            return Err(DropReason::NotOurAddress);
        }
        match FlowKey::of(&packet)?.kind {
            FlowKind::EchoRequest => {
                let reply = icmp::echo_reply(ip_bytes(frame)).ok_or(DropReason::EchoDamaged)?;
                self.originate(&reply, now);
                Ok(Verdict::Delivered)
            }
            FlowKind::EchoReply | FlowKind::IcmpError => Ok(Verdict::Delivered),
            FlowKind::Transport | FlowKind::Tunnel | FlowKind::Portless => Err(DropReason::NoService),
        }
    }

    /// Sends a packet that the node made.
    fn originate(&mut self, packet: &[u8], now: Instant) {
        let mut frame = Frame::from_packet(packet);
        let verdict = self.send_own(&mut frame, now).unwrap_or_else(Verdict::Dropped);
        transmit_own(&mut self.counters, &mut self.transmits, frame, verdict);
    }

    fn send_own(&mut self, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        let packet = ipv4::check(frame.bytes())?;
        let (to, protocol) = (packet.dst_addr(), packet.next_header().into());
        let target = if self.address.contains_addr(&to) {
            self.interface.target(to, protocol, &FlowKey::of(&packet))?
        } else {
            Target::gateway(self.gateway.ok_or(DropReason::NoRoute)?)
        };
        Ok(self.interface.output(target, frame, true, now))
    }

    fn drain(&mut self, now: Instant) {
        while let Some(granted) = self.leasing.poll_granted(now) {
            let Granted { ip, hardware, records } = &granted;
            granted.report(self.interface.neighbors.grant(*ip, *hardware, records, now));
        }
        while let Some(reply) = self.leasing.poll_transmit() {
            match Outgoing::new(&reply, &self.interface) {
                Outgoing::Packet(packet) => self.originate(&packet, now),
                Outgoing::Frame(frame) => {
                    transmit_own(&mut self.counters, &mut self.transmits, frame, Verdict::Forward(LAN));
                }
            }
        }
        // All that waits is the node's own, so that nobody is told where it cannot be delivered.
        let events = self.interface.drain(&mut self.counters, &mut self.transmits, |_, _| {});
        events.iter().for_each(|event| report(&self.interface.name, event));
    }
}

impl Lessor for Dhcpd {
    fn leases(&self) -> impl Iterator<Item = &Lease> + Clone {
        self.leasing.leases()
    }

    fn take_commits(&mut self) -> Vec<Lease> {
        self.leasing.take_commits()
    }

    fn committed(&mut self, stored: bool, now: Instant) {
        self.leasing.committed(stored, now);
        self.drain(now);
    }
}

impl Node for Dhcpd {
    fn links(&self) -> Vec<(String, Medium)> {
        vec![(self.interface.name.clone(), Medium::Ethernet)]
    }

    fn handle_frame(&mut self, _link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        self.counters.received += 1;
        let verdict = self.receive(frame, now).unwrap_or_else(Verdict::Dropped);
        self.counters.count(verdict);
        self.drain(now);
        verdict
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<(LinkId, Frame)> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&mut self, _now: Instant) -> Option<Instant> {
        [self.interface.neighbors.poll_timeout(), self.leasing.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.interface.neighbors.handle_timeout(now);
        self.leasing.handle_timeout(now);
        self.drain(now);
    }

    fn send_failed(&mut self, _link: LinkId, frame: &Frame) {
        self.counters.send_failed(Medium::Ethernet, frame);
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn neighbors(&self, now: Instant) -> Vec<(String, Entry)> {
        let entries = self.interface.neighbors.entries(now);
        entries.into_iter().map(|entry| (self.interface.name.clone(), entry)).collect()
    }
}

#[cfg(test)]
mod tests;
