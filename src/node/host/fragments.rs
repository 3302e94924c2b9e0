//! Fragments at a host: those that come go where the first one of their datagram goes, those of programs leave as it does
//! (PE-ARP rule 63).

use smoltcp::time::Instant;
use smoltcp::wire::Ipv4Packet;

use super::Host;
use crate::node::ethernet::key_of_fragment;
use crate::node::{DropReason, Verdict};
use crate::wire::{Datagram, FlowKey, Frame, Piece, Unkeyed};

impl Host {
    /// The key of a fragment from the LAN; `None` where it is held until the first one comes.
    pub(super) fn key_of_incoming(
        &mut self,
        frame: &Frame,
        fragment: (Datagram, Piece),
        key: Result<FlowKey, Unkeyed>,
        now: Instant,
    ) -> Result<Option<FlowKey>, DropReason> {
        key_of_fragment(&mut self.incoming, fragment, key, frame, |frame| frame, now)
    }

    /// The same of a later fragment from a program.
    pub(super) fn key_of_outgoing(
        &mut self,
        frame: &Frame,
        fragment: (Datagram, Piece),
        now: Instant,
    ) -> Result<Option<FlowKey>, DropReason> {
        key_of_fragment(&mut self.outgoing, fragment, Err(Unkeyed::Fragment), frame, |frame| frame, now)
    }

    /// Passes what was held for a fragment that came, and drops what was held for too long.
    pub(super) fn drain_fragments(&mut self, now: Instant) {
        while let Some((key, mut frame)) = self.incoming.poll_released() {
            let result = self.receive_later(key, &mut frame, now);
            self.let_go(frame, result);
        }
        while let Some((key, mut frame)) = self.outgoing.poll_released() {
            let result = self.send_later(key, &mut frame, now);
            self.let_go(frame, result);
        }
        while self.incoming.poll_expired().or_else(|| self.outgoing.poll_expired()).is_some() {
            self.counters.count_resolved(DropReason::FragmentTimeout.into());
        }
    }

    fn let_go(&mut self, frame: Frame, result: Result<Verdict, DropReason>) {
        let verdict = self.end_of(result);
        self.counters.count_resolved(verdict);
        if let Verdict::Forward(link) = verdict {
            self.transmits.push_back((link, frame));
        }
    }

    fn receive_later(
        &mut self,
        key: FlowKey,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        // What was an own address when it came may be none any more.
        let at = self.find_in_use(key.destination_address, DropReason::NotOurAddress)?;
        self.receive_shared(at, key, frame, now)
    }

    /// A later fragment of a program, whose first one may leave.
    pub(super) fn send_later(
        &mut self,
        key: FlowKey,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let at = self.find_in_use(key.source_address, DropReason::SourceAddress)?;
        self.send(at, &key, frame, now)
    }

    /// Gives what may be fragmented, or is a fragment, an identification of the set. A super-frame without DF gets one for
    /// its first datagram; those behind it count on.
    pub(super) fn identify(&mut self, at: usize, frame: &mut Frame, now: Instant) {
        let mut packet = Ipv4Packet::new_unchecked(frame.bytes_mut());
        // A set has ports, and so it has identifications.
        let _ = self.addresses[at].idents.rewrite(&mut packet, now);
    }
}
