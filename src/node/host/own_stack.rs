//! What the host's own stack takes and sends.

use smoltcp::time::Instant;

use super::{Host, TUN};
use crate::node::ethernet::{ip_bytes, transmit_own};
use crate::node::{DropReason, Verdict};
use crate::wire::{FlowKey, Frame, GsoKind, Medium, Segments, icmp, ipv4};

/// Rounds that the stack may talk to itself per call.
const MAX_STACK_ROUNDS: usize = 64;

impl Host {
    /// A request with an identifier of the set: programs have a kernel that answers it.
    pub(super) fn answer_echo(
        &mut self,
        at: usize,
        frame: &Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if self.tun_name.is_some() {
            return Ok(Verdict::Forward(TUN));
        }
        let reply = icmp::echo_reply(ip_bytes(frame)).ok_or(DropReason::EchoDamaged)?;
        let mut frame = Frame::from_packet(&reply);
        let key = FlowKey::of(&ipv4::check(frame.bytes())?)?;
        let verdict = self.route_key(at, &key, &mut frame, true, now).unwrap_or_else(Verdict::Dropped);
        transmit_own(&mut self.counters, &mut self.transmits, frame, verdict);
        Ok(Verdict::Delivered)
    }

    pub(super) fn give_to_stack(
        &mut self,
        at: usize,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let stack = &mut self.addresses[at].stack;
        let taken = if frame.offload.gso.is_some_and(|gso| gso.kind == GsoKind::Udp) {
            // Datagrams have ends. TCP has none, and its sockets take a super-frame as one segment.
            let mut segments = Segments::of(frame, Medium::Ip).map_err(|_| DropReason::Truncated)?;
            let mut datagram = Frame::buffer();
            let mut taken = true;
            while taken && segments.next_into(&mut datagram) {
                taken = stack.receive(datagram.bytes());
            }
            taken
        } else {
            frame.complete_checksum();
            stack.receive(ip_bytes(frame))
        };
        if !taken {
            return Err(DropReason::StackFull);
        }
        self.run_stack(now);
        Ok(Verdict::Delivered)
    }

    pub(super) fn run_stack(&mut self, now: Instant) {
        // A connection of the stack to itself answers itself: bounded, the rest is due at once.
        for _ in 0..MAX_STACK_ROUNDS {
            (0..self.addresses.len()).for_each(|at| self.poll_stack(at, now));
            if !self.addresses.iter().any(|address| address.stack.has_input()) {
                break;
            }
        }
        self.drain(now);
    }

    fn poll_stack(&mut self, at: usize, now: Instant) {
        self.addresses[at].stack.poll(now);
        while let Some(packet) = self.addresses[at].stack.poll_transmit() {
            let mut frame = Frame::from_packet(&packet);
            let verdict = self.send_own(at, &mut frame, now).unwrap_or_else(Verdict::Dropped);
            transmit_own(&mut self.counters, &mut self.transmits, frame, verdict);
        }
    }

    /// A packet of the host's own stack at an address.
    pub(super) fn send_own(
        &mut self,
        at: usize,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let key = FlowKey::of(&ipv4::check(frame.bytes())?)?;
        if !key
            .source
            .is_some_and(|port| self.interface.neighbors.owns(key.source_address, key.protocol, Some(port)))
        {
            return Err(DropReason::SetNotHeld);
        }
        if let Some(to) = self.find(key.destination_address)
            && key.destination.is_some_and(|port| self.owns(key.destination_address, port))
        {
            if self.addresses[to].is_for_programs(&key, frame, now) {
                return Ok(Verdict::Forward(TUN));
            }
            let taken = self.addresses[to].stack.receive(frame.bytes());
            return if taken { Ok(Verdict::Delivered) } else { Err(DropReason::StackFull) };
        }
        self.route_key(at, &key, frame, true, now)
    }
}
