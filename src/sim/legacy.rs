//! A host that speaks plain ARP only: a small model of Linux, as docs/protocol.md, appendix C, measured it.
//!
//! What it learns and when follows `arp_process` and `neigh_update` of Linux: a request to its own address makes or
//! updates an entry; any other message updates an existing one, even overheard; a sender of 0.0.0.0 is answered and
//! not learned; of two owners of an address the first one stands for a second. What it does with the packets for it –
//! programs, echo, port unreachable – it has in common with the kernel of every host: see the run.

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smoltcp::time::{Duration, Instant};

use crate::neighbor::{
    DELAY_FIRST_PROBE_TIME, MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT, REACHABLE_TIME, RETRANS_TIMER,
};
use crate::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Frame, Ipv4Cidr,
    ipv4, plain_arp,
};

/// How long the first of two owners of an address stands (`net.ipv4.neigh.default.locktime`).
const LOCK_TIME: Duration = Duration::from_secs(1);
/// Packets that may wait for one neighbor (`net.ipv4.neigh.default.unres_qlen`).
const MAX_WAITING: usize = 101;

/// What a legacy host is.
#[derive(Clone, Debug)]
pub(super) struct LegacyConfig {
    pub(super) hardware: EthernetAddress,
    /// Its address and the on-link prefix.
    pub(super) address: Ipv4Cidr,
    pub(super) gateway: Ipv4Addr,
    pub(super) seed: u64,
}

/// States of Linux (`include/net/neighbour.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Incomplete { sent: u8, next: Instant },
    Reachable { until: Instant },
    Stale,
    Delay { until: Instant },
    Probe { sent: u8, next: Instant },
    Failed,
}

#[derive(Debug)]
struct Neighbor {
    state: State,
    hardware: EthernetAddress,
    /// When state or link-layer address last changed.
    updated: Instant,
    waiting: VecDeque<Vec<u8>>,
}

/// A legacy host.
#[derive(Debug)]
pub(super) struct Legacy {
    config: LegacyConfig,
    neighbors: BTreeMap<Ipv4Addr, Neighbor>,
    rng: ChaCha8Rng,
    transmits: VecDeque<Frame>,
    /// Packets for its kernel and programs.
    received: VecDeque<Vec<u8>>,
    /// Packets that ended here otherwise than with its kernel or on the link.
    pub(super) dropped: u64,
}

impl Legacy {
    pub(super) fn new(config: LegacyConfig) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            neighbors: BTreeMap::new(),
            transmits: VecDeque::new(),
            received: VecDeque::new(),
            dropped: 0,
        }
    }

    /// A frame from the link.
    pub(super) fn handle_frame(&mut self, frame: &Frame, now: Instant) {
        let Ok(ethernet) = EthernetFrame::new_checked(frame.bytes()) else { return };
        let unicast = ethernet.dst_addr() == self.config.hardware;
        if !unicast && !ethernet.dst_addr().is_broadcast() {
            return;
        }
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                // Another ar$pro or ar$pln is dropped here: no answer, nothing learned (appendix C, 2).
                let packet = ArpPacket::new_checked(ethernet.payload());
                if let Ok(message) = packet.and_then(|packet| ArpRepr::parse(&packet)) {
                    self.receive_arp(&message, unicast, now);
                }
            }
            EthernetProtocol::Ipv4 if unicast => self.receive_packet(ethernet.payload()),
            _ => {}
        }
    }

    fn receive_arp(&mut self, message: &ArpRepr, unicast: bool, now: Instant) {
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: hardware,
            source_protocol_addr: sender,
            target_protocol_addr: target,
            ..
        } = *message
        else {
            return;
        };
        let request = operation == ArpOperation::Request;
        if sender == self.config.address.address() {
            return;
        }
        if request && target == self.config.address.address() {
            if !sender.is_unspecified() {
                // `neigh_event_ns`: created where there is none, and the newcomer wins at once.
                let entry = self.neighbors.entry(sender).or_insert_with(|| Neighbor {
                    state: State::Failed,
                    hardware,
                    updated: now,
                    waiting: VecDeque::new(),
                });
                let stays = entry.hardware == hardware && matches!(entry.state, State::Reachable { .. });
                if !stays {
                    entry.state = State::Stale;
                    entry.updated = now;
                }
                entry.hardware = hardware;
                self.flush(sender);
            }
            self.arp(ArpOperation::Reply, hardware, hardware, sender);
            return;
        }
        // Appendix C, 3: whatever is overheard updates an existing entry.
        let until = self.reachable_until(now);
        let Some(entry) = self.neighbors.get_mut(&sender) else { return };
        let valid = !matches!(entry.state, State::Incomplete { .. } | State::Failed);
        let gratuitous = sender == target;
        if valid && entry.hardware != hardware && !gratuitous && now < entry.updated + LOCK_TIME {
            return;
        }
        let confirmed = !request && unicast;
        let changed = !valid || entry.hardware != hardware;
        let reachable = matches!(entry.state, State::Reachable { until } if now < until);
        if changed || (confirmed && !reachable) {
            entry.updated = now;
        }
        if confirmed {
            entry.state = State::Reachable { until };
        } else if changed {
            entry.state = State::Stale;
        }
        entry.hardware = hardware;
        self.flush(sender);
    }

    fn reachable_until(&mut self, now: Instant) -> Instant {
        let base = REACHABLE_TIME.total_micros();
        now + Duration::from_micros(self.rng.random_range(base / 2..=base * 3 / 2))
    }

    /// Sends what waited for a neighbor that is now known.
    fn flush(&mut self, ip: Ipv4Addr) {
        let Some(entry) = self.neighbors.get_mut(&ip) else { return };
        let hardware = entry.hardware;
        for packet in core::mem::take(&mut entry.waiting) {
            self.transmit(hardware, &packet);
        }
    }

    fn transmit(&mut self, destination: EthernetAddress, packet: &[u8]) {
        let mut frame = Frame::from_packet(packet);
        frame.push_ethernet_header(self.config.hardware, destination);
        self.transmits.push_back(frame);
    }

    fn arp(
        &mut self,
        operation: ArpOperation,
        destination: EthernetAddress,
        target_hardware_addr: EthernetAddress,
        target: Ipv4Addr,
    ) {
        let source = self.config.hardware;
        let message = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: source,
            source_protocol_addr: self.config.address.address(),
            target_hardware_addr,
            target_protocol_addr: target,
        };
        self.transmits.push_back(plain_arp(source, destination, &message));
    }

    fn ask(&mut self, destination: EthernetAddress, ip: Ipv4Addr) {
        self.arp(ArpOperation::Request, destination, EthernetAddress([0; 6]), ip);
    }

    fn receive_packet(&mut self, packet: &[u8]) {
        match ipv4::check(packet) {
            Ok(view) if view.dst_addr() == self.config.address.address() => {
                self.received.push_back(packet[..usize::from(view.total_len())].to_vec());
            }
            // It is no router.
            _ => self.dropped += 1,
        }
    }

    /// Sends an IP packet of a program, or of its kernel.
    pub(super) fn send(&mut self, packet: Vec<u8>, now: Instant) {
        let Ok(view) = ipv4::check(&packet) else { return };
        let destination = view.dst_addr();
        let on_link = self.config.address.contains_addr(&destination);
        let next_hop = if on_link { destination } else { self.config.gateway };
        let asking = State::Incomplete { sent: 1, next: now + RETRANS_TIMER };
        let (hardware, updated) = (EthernetAddress([0; 6]), now);
        let new = || Neighbor { state: State::Failed, hardware, updated, waiting: VecDeque::new() };
        let entry = self.neighbors.entry(next_hop).or_insert_with(new);
        match entry.state {
            State::Incomplete { .. } | State::Failed => {
                entry.waiting.push_back(packet);
                if entry.waiting.len() > MAX_WAITING {
                    entry.waiting.pop_front();
                    self.dropped += 1;
                }
                if entry.state == State::Failed {
                    entry.state = asking;
                    self.ask(EthernetAddress::BROADCAST, next_hop);
                }
            }
            State::Reachable { until } if now < until => {
                let hardware = entry.hardware;
                self.transmit(hardware, &packet);
            }
            State::Reachable { .. } | State::Stale => {
                entry.state = State::Delay { until: now + DELAY_FIRST_PROBE_TIME };
                let hardware = entry.hardware;
                self.transmit(hardware, &packet);
            }
            State::Delay { .. } | State::Probe { .. } => {
                let hardware = entry.hardware;
                self.transmit(hardware, &packet);
            }
        }
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Frame> {
        self.transmits.pop_front()
    }

    /// The next packet for its kernel and programs.
    pub(super) fn poll_received(&mut self) -> Option<Vec<u8>> {
        self.received.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.neighbors.values().filter_map(|entry| entry.state.deadline()).min()
    }

    /// Asks again, or gives up.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<_> =
            self.neighbors.iter().filter(|(_, entry)| entry.state.is_due(now)).map(|(ip, _)| *ip).collect();
        for ip in due {
            let Some(entry) = self.neighbors.get_mut(&ip) else { continue };
            let next = now + RETRANS_TIMER;
            let destination = match entry.state {
                State::Incomplete { sent, .. } if sent < MAX_MULTICAST_SOLICIT => {
                    entry.state = State::Incomplete { sent: sent + 1, next };
                    Some(EthernetAddress::BROADCAST)
                }
                State::Delay { .. } => {
                    entry.state = State::Probe { sent: 1, next };
                    Some(entry.hardware)
                }
                State::Probe { sent, .. } if sent < MAX_UNICAST_SOLICIT => {
                    entry.state = State::Probe { sent: sent + 1, next };
                    Some(entry.hardware)
                }
                _ => {
                    entry.state = State::Failed;
                    self.dropped += core::mem::take(&mut entry.waiting).len() as u64;
                    None
                }
            };
            if let Some(destination) = destination {
                self.ask(destination, ip);
            }
        }
    }
}

impl State {
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Incomplete { next, .. } | Self::Probe { next, .. } => Some(next),
            Self::Delay { until } => Some(until),
            // Both end when they are used.
            Self::Reachable { .. } | Self::Stale | Self::Failed => None,
        }
    }

    fn is_due(self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests;
