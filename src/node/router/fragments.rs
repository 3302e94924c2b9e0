//! Fragments: those to a shared address go where the first one of their datagram goes (PE-ARP rule 63), and a packet
//! that is too large for the next link is cut (RFC 1812 §4.2.2.7).

use smoltcp::time::Instant;
use smoltcp::wire::Ipv4Packet;

use super::{Egress, Router};
use crate::node::ethernet::{ip_bytes, key_of_fragment, transmit_own};
use crate::node::{DropReason, LinkId, Verdict};
use crate::wire::{Datagram, FlowKey, Frame, Medium, Piece, Segments, Unkeyed, fragments};

/// Ports that belong to nobody unless they are configured (PE-ARP rule 71).
const SYSTEM_PORTS: u16 = 1024;

/// A later fragment that waits for the first one, and where it came from.
#[derive(Debug)]
pub(super) struct Held {
    link: LinkId,
    frame: Frame,
}

impl Router {
    /// The key of a fragment to a shared address; `None` where it is held until the first one comes.
    // Few packets are fragments.
    #[inline(never)]
    pub(super) fn key_of_fragment(
        &mut self,
        link: LinkId,
        frame: &Frame,
        fragment: (Datagram, Piece),
        key: Result<FlowKey, Unkeyed>,
        now: Instant,
    ) -> Result<Option<FlowKey>, DropReason> {
        let hold = |frame| Held { link, frame };
        key_of_fragment(&mut self.fragments, fragment, key, frame, hold, now)
    }

    /// Sends what was held for a fragment that came, and drops what was held for too long.
    pub(super) fn drain_fragments(&mut self, now: Instant) {
        while let Some((key, Held { link, mut frame })) = self.fragments.poll_released() {
            let verdict = self.pass(link, &mut frame, &Ok(key), now).unwrap_or_else(Verdict::Dropped);
            self.counters.count_resolved(verdict);
            if let Verdict::Forward(egress) = verdict {
                self.transmits.push_back((egress, frame));
            }
        }
        while self.fragments.poll_expired().is_some() {
            self.counters.count_resolved(DropReason::FragmentTimeout.into());
        }
    }

    /// Sends a packet of the router's own, cut where it is too large for its link. Its identification is then of the ports
    /// that nobody owns (PE-ARP rule 71), as its source may be a shared address.
    pub(super) fn send_own(&mut self, packet: &[u8], egress: &Egress, now: Instant) {
        let mtu = self.links[egress.link.0].mtu;
        if packet.len() <= mtu {
            return self.send_piece(packet, egress, true, now);
        }
        let mut packet = packet.to_vec();
        let mut view = Ipv4Packet::new_unchecked(&mut packet[..]);
        self.identification = (self.identification + 1) % SYSTEM_PORTS;
        view.set_ident(self.identification);
        view.set_dont_frag(false);
        view.fill_checksum();
        match fragments(&packet, mtu) {
            Some(pieces) => pieces.for_each(|piece| self.send_piece(&piece, egress, true, now)),
            // No link has so small an MTU.
            None => self.send_piece(&packet, egress, true, now),
        }
    }

    /// Sends what is counted as the router's own; what is a piece of a packet of somebody else is not `originated`.
    fn send_piece(&mut self, piece: &[u8], egress: &Egress, originated: bool, now: Instant) {
        let mut frame = Frame::from_packet(piece);
        let interface = &mut self.links[egress.link.0].interface;
        let verdict = interface.output(egress.target, &mut frame, originated, now);
        transmit_own(&mut self.counters, &mut self.transmits, frame, verdict);
    }

    /// Sends a packet that may be cut in pieces that fit. What becomes of the first one is what becomes of the packet; the
    /// others are the router's own.
    // Slow, and for few packets.
    #[inline(never)]
    pub(super) fn forward_in_pieces(
        &mut self,
        frame: &mut Frame,
        egress: &Egress,
        by: &mut Option<u32>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let mtu = self.links[egress.link.0].mtu;
        let mut pieces = Vec::new();
        if frame.offload.gso.is_some() {
            let mut segments = Segments::of(frame, Medium::Ip).map_err(|_| DropReason::TooBig)?;
            let mut segment = Frame::buffer();
            while segments.next_into(&mut segment) {
                pieces.extend(fragments(segment.bytes(), mtu).ok_or(DropReason::TooBig)?);
            }
        } else {
            frame.complete_checksum();
            pieces.extend(fragments(ip_bytes(frame), mtu).ok_or(DropReason::TooBig)?);
        }
        let mut pieces = pieces.into_iter();
        // The frame is what a link reads into next: it keeps its space.
        frame.copy_from(Medium::Ip, &[&pieces.next().ok_or(DropReason::TooBig)?]);
        let verdict = self.links[egress.link.0].interface.output_by(egress.target, frame, false, by, now);
        pieces.for_each(|piece| self.send_piece(&piece, egress, false, now));
        Ok(verdict)
    }
}
