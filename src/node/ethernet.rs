//! What nodes have in common on an Ethernet link: ARP in and out, next hops, waiting packets.

use core::net::Ipv4Addr;
use std::collections::VecDeque;

use smoltcp::time::Instant;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol};

use super::counters::{Counters, is_for};
use super::{DropReason, LinkId, Verdict};
use crate::forward::Fragments;
use crate::neighbor::{Event, Neighbors, Output, Refused, Target};
use crate::wire::pe_arp::{self, Message};
use crate::wire::{
    Datagram, ETHERNET_HEADER, FlowKey, FlowKind, Frame, Gso, ICMP, Ipv4Packet, Medium, Offload, Piece,
    Segments, Unkeyed, icmp, is_station, pe_arp_frame, plain_arp,
};

/// Where an IPv4 header has the protocol.
const IPV4_PROTOCOL: usize = 9;

/// What an Ethernet frame carries for the node.
pub(super) enum Payload {
    /// ARP of either kind, dealt with.
    Arp(Verdict),
    /// An IPv4 packet; the frame has lost its Ethernet header. Who sent it, and whether to us alone.
    Ipv4 { source: EthernetAddress, unicast: bool },
}

/// An ARP message of either kind.
pub(super) enum Arp {
    Pe(Message),
    Plain(ArpRepr),
}

impl Arp {
    /// What an Ethernet frame with ARP says.
    pub(super) fn parse(frame: &Frame, pro: u16) -> Result<Self, DropReason> {
        let arp = frame.bytes().get(ETHERNET_HEADER..).ok_or(DropReason::ShortFrame)?;
        if pe_arp::Packet::<&[u8]>::protocol_of(arp) == Some(pro) {
            let packet = pe_arp::Packet::new_checked(arp, pro)?;
            Ok(Self::Pe(Message::parse(&packet)?))
        } else {
            Ok(Self::Plain(parse_plain(arp)?))
        }
    }
}

/// One Ethernet link of a node.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) link: LinkId,
    pub(super) neighbors: Neighbors,
    /// All hosts of the link's prefix, where it has such an address: no host has it (PE-ARP rule 10).
    pub(super) broadcast: Option<Ipv4Addr>,
    /// ar$pro of PE-ARP.
    pub(super) pro: u16,
}

/// ar$hrd, ar$pro, ar$hln and ar$pln of plain ARP for IPv4 on Ethernet.
const PLAIN_FORMAT: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Plain ARP as bytes. Types and lengths come first: they say how long the rest has to be.
fn parse_plain(arp: &[u8]) -> Result<ArpRepr, DropReason> {
    if *arp.first_chunk().ok_or(DropReason::Truncated)? != PLAIN_FORMAT {
        return Err(DropReason::ArpFormat);
    }
    let packet = ArpPacket::new_checked(arp).map_err(|_| DropReason::Truncated)?;
    if matches!(packet.operation(), ArpOperation::Unknown(_)) {
        return Err(DropReason::ArpFormat);
    }
    ArpRepr::parse(&packet).map_err(|_| DropReason::ArpFormat)
}

impl Interface {
    /// Takes a frame apart; ARP ends here.
    pub(super) fn receive(&mut self, frame: &mut Frame, now: Instant) -> Result<Payload, DropReason> {
        let ethernet = EthernetFrame::new_checked(frame.bytes()).map_err(|_| DropReason::ShortFrame)?;
        let (source, destination) = (ethernet.src_addr(), ethernet.dst_addr());
        // A loop on the link, whatever it carries: nobody else sends from this address.
        if source == self.neighbors.config().hardware {
            return Err(DropReason::OwnEcho);
        }
        if !is_for(destination, self.neighbors.config().hardware) {
            return Err(DropReason::NotOurFrame);
        }
        match ethernet.ethertype() {
            EthernetProtocol::Ipv4 if !is_station(source) => Err(DropReason::FrameSource),
            EthernetProtocol::Ipv4 => {
                frame.pop_ethernet_header();
                complete_icmp(frame);
                Ok(Payload::Ipv4 {
                    source,
                    unicast: !destination.is_broadcast() && !destination.is_multicast(),
                })
            }
            EthernetProtocol::Arp => {
                self.receive_arp(frame, now)?;
                Ok(Payload::Arp(Verdict::Delivered))
            }
            _ => Err(DropReason::EtherType),
        }
    }

    fn receive_arp(&mut self, frame: &Frame, now: Instant) -> Result<(), DropReason> {
        let source = EthernetFrame::new_unchecked(frame.bytes()).src_addr();
        match Arp::parse(frame, self.pro)? {
            Arp::Pe(message) => {
                tracing::trace!(link = %self.name, kind = ?message.kind(), from = %source, "PE-ARP in");
                self.check_addresses(message.sender.ip, message.target.ip)?;
                Ok(self.neighbors.handle_pe(source, &message, now)?)
            }
            Arp::Plain(message) => {
                let ArpRepr::EthernetIpv4 {
                    source_protocol_addr: sender, target_protocol_addr: target, ..
                } = message
                else {
                    return Err(DropReason::ArpFormat);
                };
                self.check_addresses(sender, target)?;
                Ok(self.neighbors.handle_arp(source, &message, now)?)
            }
        }
    }

    /// PE-ARP rule 10, as far as it needs the link's prefix; the engine does the rest.
    fn check_addresses(&self, sender: Ipv4Addr, target: Ipv4Addr) -> Result<(), DropReason> {
        match self.broadcast {
            Some(all) if all == sender || all == target => Err(DropReason::ArpAddress),
            _ => Ok(()),
        }
    }

    /// What names the owner of a packet to an address of this link.
    pub(super) fn target(
        &self,
        ip: Ipv4Addr,
        protocol: u8,
        key: &Result<FlowKey, Unkeyed>,
    ) -> Result<Target, DropReason> {
        match key {
            Ok(key) => Ok(Target { ip, protocol: key.protocol, port: key.destination }),
            // A whole address takes everything; a shared one needs to know whose it is.
            Err(unkeyed) if self.neighbors.is_shared(ip) => Err((*unkeyed).into()),
            Err(_) => Ok(Target { ip, protocol, port: None }),
        }
    }

    /// Sends an IP packet to its next hop: in place where it is known, else a copy waits.
    pub(super) fn output(
        &mut self,
        target: Target,
        frame: &mut Frame,
        originated: bool,
        now: Instant,
    ) -> Verdict {
        self.output_by(target, frame, originated, &mut None, now)
    }

    /// As [`Interface::output`]; `by` becomes the number of the next hop's binding where it is known.
    pub(super) fn output_by(
        &mut self,
        target: Target,
        frame: &mut Frame,
        originated: bool,
        by: &mut Option<u32>,
        now: Instant,
    ) -> Verdict {
        match self.neighbors.next_hop_by(target, now) {
            Some((hardware, binding)) => {
                *by = Some(binding);
                frame.push_ethernet_header(self.neighbors.config().hardware, hardware);
                Verdict::Forward(self.link)
            }
            None => {
                let mut copy = Frame::from_packet(ip_bytes(frame));
                copy.offload = frame.offload;
                match self.neighbors.enqueue(target, copy, originated, now) {
                    Ok(()) => Verdict::Pending,
                    Err(refused) => refused.into(),
                }
            }
        }
    }

    /// PE-ARP rule 58: what waited may have been sent from a set that is no longer in use. A router forwards what others
    /// send.
    fn may_leave(&self, frame: &Frame) -> bool {
        let Ok(packet) = Ipv4Packet::new_checked(frame.bytes()) else { return false };
        if self.neighbors.config().router {
            return true;
        }
        let (ip, protocol) = (packet.src_addr(), packet.next_header().into());
        match FlowKey::of(&packet) {
            // PE-ARP rule 63: it has the identification that the host gave it.
            Err(Unkeyed::Fragment) => self.neighbors.owns(ip, protocol, Some(packet.ident())),
            Err(_) => self.neighbors.owns(ip, protocol, None),
            // PE-ARP rule 64: nothing in it says which sharer sends it.
            Ok(FlowKey { kind: FlowKind::Tunnel, source: None, .. }) => self.neighbors.is_own(ip),
            // PE-ARP rule 61: an echo reply has the identifier of the request.
            Ok(FlowKey { kind: FlowKind::EchoReply, destination, .. }) => {
                self.neighbors.owns(ip, protocol, destination)
            }
            // Of an ICMP error, what is embedded.
            Ok(key) => self.neighbors.owns(ip, key.protocol, key.source),
        }
    }

    /// Moves what the engine wants to send into `transmits`, counts what waited, and hands the packets that could
    /// not be delivered to `undeliverable`. Gives the other events back.
    pub(super) fn drain(
        &mut self,
        counters: &mut Counters,
        transmits: &mut VecDeque<(LinkId, Frame)>,
        undeliverable: impl FnMut(Frame, Refused),
    ) -> Vec<Event> {
        self.drain_seen(counters, transmits, undeliverable, |_| {})
    }

    /// As [`Interface::drain`]. `forwarded` sees every IP packet of others that leaves after its wait.
    pub(super) fn drain_seen(
        &mut self,
        counters: &mut Counters,
        transmits: &mut VecDeque<(LinkId, Frame)>,
        mut undeliverable: impl FnMut(Frame, Refused),
        mut forwarded: impl FnMut(&Frame),
    ) -> Vec<Event> {
        let source = self.neighbors.config().hardware;
        while let Some(output) = self.neighbors.poll_transmit() {
            counters.arp_sent += 1;
            let frame = match output {
                Output::Pe { destination, message } => pe_arp_frame(destination, &message, self.pro),
                Output::Arp { destination, message } => plain_arp(source, destination, &message),
            };
            transmits.push_back((self.link, frame));
        }
        let mut others = Vec::new();
        while let Some(event) = self.neighbors.poll_event() {
            match event {
                Event::Resolved { frame, .. } if !self.may_leave(&frame) => {
                    counters.count_resolved(DropReason::SetNotHeld.into());
                }
                Event::Resolved { mut frame, hardware, originated } => {
                    counters.count_resolved(Verdict::Forward(self.link));
                    if !originated {
                        forwarded(&frame);
                    }
                    frame.push_ethernet_header(source, hardware);
                    transmits.push_back((self.link, frame));
                }
                Event::Undeliverable { frame, originated, reason } => {
                    counters.count_resolved(reason.into());
                    if !originated {
                        undeliverable(frame, reason);
                    }
                }
                other => others.push(other),
            }
        }
        others
    }
}

/// Counts a packet that the node made itself, and puts it where frames leave if it is to.
pub(super) fn transmit_own(
    counters: &mut Counters,
    transmits: &mut VecDeque<(LinkId, Frame)>,
    frame: Frame,
    verdict: Verdict,
) {
    counters.originated += 1;
    counters.count(verdict);
    if let Verdict::Forward(link) = verdict {
        transmits.push_back((link, frame));
    }
}

/// Logs what an operator should know.
pub(super) fn report(link: &str, event: &Event) {
    match event {
        Event::Conflict { ip, incumbent, newcomer } => {
            tracing::warn!(%link, %ip, %incumbent, %newcomer, "two hosts claim the same ports");
        }
        Event::OwnConflict { hardware, port, lost, .. } => {
            tracing::warn!(%link, %hardware, port, lost, "another host claims ports of this node");
        }
        Event::Expired { .. } => tracing::warn!(%link, "the lease of this node's ports is over"),
        Event::Ready { .. } | Event::Resolved { .. } | Event::Undeliverable { .. } => {}
    }
}

/// Completes the checksum of an ICMP message: nodes verify it, and rewrite identifiers that it covers. No kernel
/// leaves one open, but a header may say so. Those of TCP and UDP stay as they are, since nodes change neither.
pub(super) fn complete_icmp(frame: &mut Frame) {
    if frame.bytes().get(IPV4_PROTOCOL) == Some(&ICMP) {
        frame.complete_checksum();
    }
}

/// The key of a fragment: its own, or that of the first one of its datagram. `None` where that did not come so far; then a
/// copy is held, which counts as a wait.
pub(super) fn key_of_fragment<T>(
    fragments: &mut Fragments<T>,
    (datagram, piece): (Datagram, Piece),
    key: Result<FlowKey, Unkeyed>,
    frame: &Frame,
    hold: impl FnOnce(Frame) -> T,
    now: Instant,
) -> Result<Option<FlowKey>, DropReason> {
    if piece.offset == 0 {
        let key = key?;
        fragments.first(datagram, piece, key, now)?;
        return Ok(Some(key));
    }
    let packet = ip_bytes(frame);
    let memory = Frame::memory_of(packet.len());
    Ok(fragments.later(datagram, piece, memory, || hold(Frame::from_packet(packet)), now)?)
}

/// The ICMP error about an IP packet, or `None` where none may be sent. About a super-frame it embeds the first
/// packet that this is on the wire: no host has sent one of such a size, nor with an open checksum.
pub(super) fn error_about(frame: &Frame, source: Ipv4Addr, error: icmp::Error) -> Option<Vec<u8>> {
    let bytes = ip_bytes(frame);
    if frame.offload == Offload::default() {
        return icmp::error_for(bytes, source, error);
    }
    let len = frame.offload.gso.map_or(bytes.len(), Gso::segment_len).min(bytes.len());
    let mut on_wire = Frame::from_packet(&bytes[..len]);
    Segments::of(frame, Medium::Ip).ok()?.next_into(&mut on_wire).then_some(())?;
    icmp::error_for(on_wire.bytes(), source, error)
}

/// The IP packet of a frame without Ethernet padding.
pub(super) fn ip_bytes(frame: &Frame) -> &[u8] {
    let bytes = frame.bytes();
    let len = Ipv4Packet::new_checked(bytes).map_or(bytes.len(), |packet| usize::from(packet.total_len()));
    &bytes[..len]
}
