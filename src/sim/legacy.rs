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
    pub(super) counters: LegacyCounters,
}

/// Where frames and packets ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LegacyCounters {
    /// With its kernel and programs, or its ARP.
    pub(super) delivered: u64,
    /// Packets that left by the link.
    pub(super) forwarded: u64,
    /// Frames for others, and what it does not understand.
    pub(super) ignored: u64,
    /// Packets without a next hop, or that it does not forward.
    pub(super) dropped: u64,
    /// ARP messages that it sent.
    pub(super) arp_sent: u64,
}

impl LegacyCounters {
    /// Everything that has ended.
    pub(super) fn ended(self) -> u64 {
        self.delivered + self.forwarded + self.ignored + self.dropped
    }
}

impl Legacy {
    pub(super) fn new(config: LegacyConfig) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            neighbors: BTreeMap::new(),
            transmits: VecDeque::new(),
            received: VecDeque::new(),
            counters: LegacyCounters::default(),
        }
    }

    /// A frame from the link.
    pub(super) fn handle_frame(&mut self, frame: &Frame, now: Instant) {
        let end = match self.receive(frame, now) {
            Some(true) => &mut self.counters.delivered,
            Some(false) => &mut self.counters.dropped,
            None => &mut self.counters.ignored,
        };
        *end += 1;
    }

    /// Whether the frame reached its ARP or its kernel; `None` where it is nothing for this host.
    fn receive(&mut self, frame: &Frame, now: Instant) -> Option<bool> {
        let ethernet = EthernetFrame::new_checked(frame.bytes()).ok()?;
        let unicast = ethernet.dst_addr() == self.config.hardware;
        if !unicast && !ethernet.dst_addr().is_broadcast() {
            return None;
        }
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                // Another ar$pro or ar$pln is dropped here: no answer, nothing learned (appendix C, 2).
                let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
                self.receive_arp(&ArpRepr::parse(&packet).ok()?, unicast, now);
                Some(true)
            }
            EthernetProtocol::Ipv4 if unicast => Some(self.receive_packet(ethernet.payload())),
            _ => None,
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
        self.counters.forwarded += 1;
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
        self.counters.arp_sent += 1;
        self.transmits.push_back(plain_arp(source, destination, &message));
    }

    fn ask(&mut self, destination: EthernetAddress, ip: Ipv4Addr) {
        self.arp(ArpOperation::Request, destination, EthernetAddress([0; 6]), ip);
    }

    /// Whether the packet is for this host: it is no router.
    fn receive_packet(&mut self, packet: &[u8]) -> bool {
        let length = match ipv4::check(packet) {
            Ok(view) if view.dst_addr() == self.config.address.address() => view.total_len(),
            _ => return false,
        };
        self.received.push_back(packet[..usize::from(length)].to_vec());
        true
    }

    /// Sends an IP packet of a program, or of its kernel.
    pub(super) fn send(&mut self, packet: Vec<u8>, now: Instant) {
        let Ok(view) = ipv4::check(&packet) else {
            self.counters.ignored += 1;
            return;
        };
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
                    self.counters.dropped += 1;
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

    /// Packets that wait for an answer.
    pub(super) fn waiting(&self) -> u64 {
        self.neighbors.values().map(|entry| entry.waiting.len() as u64).sum()
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
                    self.counters.dropped += core::mem::take(&mut entry.waiting).len() as u64;
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
