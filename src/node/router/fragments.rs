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

    /// Cuts a packet of the router's own that is too large for its link; false where it is not. Its identification is of the
    /// ports that nobody owns (PE-ARP rule 71), as its source may be a shared address.
    pub(super) fn originate_in_pieces(&mut self, packet: &[u8], now: Instant) -> bool {
        let view = Ipv4Packet::new_unchecked(packet);
        let route = self.route(view.dst_addr(), view.next_header().into(), &FlowKey::of(&view));
        let Ok(Some(egress)) = route else { return false };
        let mtu = self.links[egress.link.0].mtu;
        if packet.len() <= mtu {
            return false;
        }
        let mut packet = packet.to_vec();
        let mut view = Ipv4Packet::new_unchecked(&mut packet[..]);
        self.identification = (self.identification + 1) % SYSTEM_PORTS;
        view.set_ident(self.identification);
        view.set_dont_frag(false);
        view.fill_checksum();
        let Some(pieces) = fragments(&packet, mtu) else { return false };
        for piece in pieces {
            let mut piece = Frame::from_packet(&piece);
            let interface = &mut self.links[egress.link.0].interface;
            let verdict = interface.output(egress.target, &mut piece, true, now);
            transmit_own(&mut self.counters, &mut self.transmits, piece, verdict);
        }
        true
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
        for piece in pieces {
            let mut piece = Frame::from_packet(&piece);
            let interface = &mut self.links[egress.link.0].interface;
            let verdict = interface.output(egress.target, &mut piece, false, now);
            transmit_own(&mut self.counters, &mut self.transmits, piece, verdict);
        }
        Ok(verdict)
    }
}
