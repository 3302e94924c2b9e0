//! Programs that choose their source port themselves, outside the host's set: the host's stack chooses another one for
//! them, from its own part, before the packet leaves.
//!
//! It is the end host that chooses its source port here, late; on the way nothing is rewritten. One port of a program
//! has one port of the stack part, whoever the peer is (RFC 4787 REQ-1), for as long as packets go to and fro.

use core::net::Ipv4Addr;

use rand::Rng;
use rustc_hash::FxHashMap;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{Icmpv4Packet, Ipv4Packet};

use super::stack::Stack;
use crate::ports::PortBitmap;
use crate::wire::ipv4::updated_checksum;
use crate::wire::{FlowKey, Frame, TCP, UDP, UDP_LITE};

/// How long a port of a program keeps its mapping without a packet: RFC 4787 REQ-5.
const UDP_IDLE: Duration = Duration::from_secs(120);
/// RFC 5382 REQ-5.
const TCP_IDLE: Duration = Duration::from_secs(7440);
/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;

/// A port outside the set that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedLeak {
    /// TCP, UDP or UDP-Lite.
    pub protocol: u8,
    /// The program's port.
    pub port: u16,
    /// What it is on the wire: a port of the stack part.
    pub mapped: u16,
    /// The peer of the first packet.
    pub to: (Ipv4Addr, u16),
    /// Packets in both directions.
    pub packets: u64,
}

#[derive(Debug)]
struct Mapping {
    leak: MappedLeak,
    used: Instant,
}

impl Mapping {
    fn ends(&self) -> Instant {
        self.used + if self.leak.protocol == TCP { TCP_IDLE } else { UDP_IDLE }
    }

    fn use_now(&mut self, now: Instant) {
        self.used = now;
        self.leak.packets += 1;
    }
}

/// Whether ports of a protocol can be chosen anew: those whose checksum follows by RFC 1624. It is a CRC in SCTP, and DCCP
/// has two places for it.
pub(super) const fn can_map(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | UDP_LITE)
}

/// Protocol and port.
type End = (u8, u16);

/// Mappings by the program's port and by the port on the wire. Each has one port of the stack part, so that there are
/// never more.
#[derive(Debug, Default)]
pub(super) struct LeakMap {
    out: FxHashMap<End, Mapping>,
    back: FxHashMap<End, u16>,
    /// When to look for mappings that nobody uses any more.
    due: Option<Instant>,
}

/// Where a port stands in front of a transport header.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl LeakMap {
    /// Gives an outgoing packet another source port; whether it is a new one, or `None` where none is free.
    pub(super) fn map_out(
        &mut self,
        key: &FlowKey,
        frame: &mut Frame,
        stack: &mut Stack,
        rng: &mut impl Rng,
        now: Instant,
    ) -> Option<(u16, bool)> {
        let (port, to) = (key.source?, (key.destination_address, key.destination?));
        let end = (key.protocol, port);
        let known = self.out.contains_key(&end);
        if !known {
            let mapped = self.take(stack, rng, now)?;
            let leak = MappedLeak { protocol: key.protocol, port, mapped, to, packets: 0 };
            let mapping = Mapping { leak, used: now };
            let ends = mapping.ends();
            self.out.insert(end, mapping);
            self.back.insert((key.protocol, mapped), port);
            self.due = Some(self.due.map_or(ends, |due| due.min(ends)));
        }
        let mapping = self.out.get_mut(&end)?;
        mapping.use_now(now);
        let mapped = mapping.leak.mapped;
        set_port(frame, Side::Source, key.protocol, port, mapped);
        Some((mapped, !known))
    }

    fn take(&mut self, stack: &mut Stack, rng: &mut impl Rng, now: Instant) -> Option<u16> {
        stack.take_port(rng).or_else(|| {
            self.end_idle(stack, now);
            stack.take_port(rng)
        })
    }

    /// Whether a program's port is this one on the wire.
    pub(super) fn is_mapped(&self, protocol: u8, port: Option<u16>) -> bool {
        port.is_some_and(|port| self.back.contains_key(&(protocol, port)))
    }

    /// Gives an incoming packet the port that its program has; whether there is one.
    pub(super) fn map_in(&mut self, key: &FlowKey, frame: &mut Frame, now: Instant) -> bool {
        let Some(mapped) = key.destination else { return false };
        let Some(port) = self.back.get(&(key.protocol, mapped)).copied() else { return false };
        if let Some(mapping) = self.out.get_mut(&(key.protocol, port)) {
            mapping.use_now(now);
        }
        set_port(frame, Side::Destination, key.protocol, mapped, port);
        true
    }

    /// Gives the packet that an ICMP error embeds the port that its program has; whether there is one.
    pub(super) fn map_error(&self, key: &FlowKey, packet: &mut [u8]) -> bool {
        let Some(mapped) = key.destination else { return false };
        let Some(port) = self.back.get(&(key.protocol, mapped)).copied() else { return false };
        let mut outer = Ipv4Packet::new_unchecked(packet);
        let payload = outer.payload_mut();
        let Some(header) = payload.get(ICMP_HEADER).map(|first| usize::from(first & 0x0F) * 4) else {
            return false;
        };
        let at = ICMP_HEADER + header;
        let Some(field) = payload.get_mut(at..at + 2) else { return false };
        field.copy_from_slice(&port.to_be_bytes());
        // The receiver looks for a socket, and does not check the sum of a packet that may be cut.
        let mut icmp = Icmpv4Packet::new_unchecked(payload);
        icmp.set_checksum(updated_checksum(icmp.checksum(), mapped, port));
        true
    }

    /// Forgets all that is mapped to these ports.
    pub(super) fn end(&mut self, ports: &PortBitmap, stack: &mut Stack) {
        self.forget(stack, |mapping| ports.contains(mapping.leak.mapped));
    }

    /// Forgets what nobody has used for long.
    fn end_idle(&mut self, stack: &mut Stack, now: Instant) {
        self.forget(stack, |mapping| mapping.ends() <= now);
    }

    fn forget(&mut self, stack: &mut Stack, which: impl Fn(&Mapping) -> bool) {
        for (_, mapping) in self.out.extract_if(|_, mapping| which(mapping)) {
            self.back.remove(&(mapping.leak.protocol, mapping.leak.mapped));
            stack.give_port_back(mapping.leak.mapped);
        }
        self.due = self.out.values().map(Mapping::ends).min();
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn handle_timeout(&mut self, stack: &mut Stack, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.end_idle(stack, now);
        }
    }

    pub(super) fn list(&self) -> impl Iterator<Item = MappedLeak> {
        self.out.values().map(|mapping| mapping.leak)
    }
}

/// Replaces a port of an IP packet, which is `old`, and makes its checksum follow.
fn set_port(frame: &mut Frame, side: Side, protocol: u8, old: u16, new: u16) {
    // An open checksum has the sum of the pseudo-header only, which has no ports.
    let open = frame.offload.checksum.is_some();
    let bytes = frame.bytes_mut();
    let header = bytes.first().map_or(0, |first| usize::from(first & 0x0F) * 4);
    let Some(transport) = bytes.get_mut(header..) else { return };
    let port = match side {
        Side::Source => 0,
        Side::Destination => 2,
    };
    if let Some(field) = transport.get_mut(port..port + 2) {
        field.copy_from_slice(&new.to_be_bytes());
    }
    let checksum = if protocol == TCP { 16 } else { 6 };
    let Some(field) = transport.get_mut(checksum..checksum + 2).filter(|_| !open) else { return };
    let before = u16::from_be_bytes([field[0], field[1]]);
    // RFC 768: a UDP datagram without a checksum, and a checksum that happens to be zero.
    if protocol == UDP && before == 0 {
        return;
    }
    let after = match updated_checksum(before, old, new) {
        0 if protocol != TCP => 0xFFFF,
        after => after,
    };
    field.copy_from_slice(&after.to_be_bytes());
}
