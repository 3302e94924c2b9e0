//! Ingress checks of IP packets (PE-ARP rules 110 and 111): whoever sends from a shared address owns the port.
//!
//! ```text
//!   LAN:     source routed to this link? ── shared? ──> {source, protocol, port} → binding, of the Ethernet source?
//!                                        └─ whole? ───> a binding of the address, if any, of the Ethernet source?
//!   outside: source not that of a LAN?
//! ```

use core::net::Ipv4Addr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::{Attached, Router};
use crate::neighbor::Target;
use crate::node::{DropReason, LinkId};
use crate::wire::{Datagram, FlowKey, FlowKind, ICMP, Unkeyed};

/// Between two log lines of one kind (PE-ARP rule 113).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A packet that was not from who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: DropReason,
    /// Whose the source is, as far as the router knows.
    pub(super) owner: Option<EthernetAddress>,
    /// The binding that says so.
    pub(super) binding: Option<u32>,
}

/// What the guard has logged.
#[derive(Debug, Default)]
pub(super) struct Reports {
    lines: [Option<Line>; 5],
}

#[derive(Clone, Copy, Debug)]
struct Line {
    at: Instant,
    /// Violations of the kind since then that have no line of their own.
    untold: u64,
}

impl Reports {
    /// Whether a violation may have a line now; how many had none since the last one.
    fn allow(&mut self, reason: DropReason, now: Instant) -> Option<u64> {
        let slot = match reason {
            DropReason::SpoofedAddress => 0,
            DropReason::SpoofedPort => 1,
            DropReason::SpoofedError => 2,
            DropReason::SpoofedFragment => 3,
            _ => 4,
        };
        match &mut self.lines[slot] {
            Some(line) if now < line.at + REPORT_INTERVAL => {
                line.untold += 1;
                None
            }
            line => line.replace(Line { at: now, untold: 0 }).map_or(Some(0), |line| Some(line.untold)),
        }
    }
}

impl Router {
    /// Drops, counts and logs a packet that its sender may not send.
    pub(super) fn check_ingress(
        &mut self,
        link: LinkId,
        from: EthernetAddress,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        key: &Result<FlowKey, Unkeyed>,
        datagram: Option<Datagram>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let Err(violation) = self.judge(link, from, source, key, datagram) else { return Ok(()) };
        self.report_violation(link, from, (source, destination), key, violation, now);
        Err(violation.reason)
    }

    // Rare, and long.
    #[cold]
    fn report_violation(
        &mut self,
        link: LinkId,
        from: EthernetAddress,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        key: &Result<FlowKey, Unkeyed>,
        Violation { reason, owner, binding }: Violation,
        now: Instant,
    ) {
        let interface = &mut self.links[link.0].interface;
        if let Some(binding) = binding {
            interface.neighbors.doubt(binding, now);
        }
        if let Some(untold) = self.violations.allow(reason, now) {
            let port = key.ok().and_then(|key| key.source);
            let owner = owner.map(|owner| owner.to_string());
            tracing::warn!(
                link = %interface.name, %from, %source, ?port, %destination, ?owner, untold, reason = reason.name(),
                "dropped what its sender may not send"
            );
        }
    }

    /// Whether `from` may send from `source`; `datagram` is that of a fragment.
    pub(super) fn judge(
        &self,
        link: LinkId,
        from: EthernetAddress,
        source: Ipv4Addr,
        key: &Result<FlowKey, Unkeyed>,
        datagram: Option<Datagram>,
    ) -> Result<(), Violation> {
        let attached = &self.links[link.0];
        let routed = self.fib.lookup(source).map(|next_hop| next_hop.link);
        // RFC 2827, RFC 3704 §2.2 for a LAN; outside is everything that is on no LAN.
        let here = match routed {
            Some(routed) => routed == link || !(attached.pe || self.links[routed.0].pe),
            None => !attached.pe,
        };
        if !here {
            return Err(Violation { reason: DropReason::SpoofedAddress, owner: None, binding: None });
        }
        if !attached.pe || !attached.prefix.contains_addr(&source) {
            return Ok(());
        }
        if attached.interface.neighbors.is_shared(source) {
            attached.judge_sharer(from, source, key, datagram)
        } else {
            // Nobody says what a host has that is not in the table. One that moves is heard of by ARP before it sends.
            attached.judge_owner(from, Target::gateway(source), DropReason::SpoofedAddress, true)
        }
    }
}

impl Attached {
    fn judge_sharer(
        &self,
        from: EthernetAddress,
        source: Ipv4Addr,
        key: &Result<FlowKey, Unkeyed>,
        datagram: Option<Datagram>,
    ) -> Result<(), Violation> {
        let unknown = !self.interface.neighbors.config().authority;
        if let Some(Datagram { protocol, identification, .. }) = datagram {
            // PE-ARP rule 63: a sharer takes it from its set. So no other one's datagrams get fragments of this one.
            let target = Target { ip: source, protocol, port: Some(identification) };
            self.judge_owner(from, target, DropReason::SpoofedFragment, unknown)?;
        }
        let key = match key {
            Ok(key) => key,
            Err(Unkeyed::Fragment) => return Ok(()),
            // Nothing says whose it is.
            Err(unkeyed) => {
                return Err(Violation { reason: (*unkeyed).into(), owner: None, binding: None });
            }
        };
        let (protocol, port, reason) = match key.kind {
            // PE-ARP rule 111: about a packet to the sender, and to a port of its own.
            // No host has anything to say about a later fragment, and nothing in it would tell whose it was.
            FlowKind::IcmpError if key.embedded_destination != Some(source) || key.headless => {
                return Err(Violation { reason: DropReason::SpoofedError, owner: None, binding: None });
            }
            FlowKind::IcmpError => (key.protocol, key.source, DropReason::SpoofedError),
            // The answer to a request for this identifier.
            FlowKind::EchoReply => (ICMP, key.destination, DropReason::SpoofedPort),
            // PE-ARP rule 64: nothing in it names its sender. It is one of the sharers.
            FlowKind::Tunnel if key.source.is_none() => return self.judge_any(from, source),
            FlowKind::Transport | FlowKind::Tunnel | FlowKind::EchoRequest | FlowKind::Portless => {
                (key.protocol, key.source, DropReason::SpoofedPort)
            }
        };
        self.judge_owner(from, Target { ip: source, protocol, port }, reason, unknown)
    }

    /// Whether what `target` names is at `from`; where there is no binding, it is so if `unknown` says so.
    fn judge_owner(
        &self,
        from: EthernetAddress,
        target: Target,
        reason: DropReason,
        unknown: bool,
    ) -> Result<(), Violation> {
        match self.interface.neighbors.owner_of(target) {
            Some((owner, _)) if owner == from => Ok(()),
            Some((owner, binding)) => Err(Violation { reason, owner: Some(owner), binding: Some(binding) }),
            None if unknown => Ok(()),
            None => Err(Violation { reason, owner: None, binding: None }),
        }
    }

    fn judge_any(&self, from: EthernetAddress, source: Ipv4Addr) -> Result<(), Violation> {
        let neighbors = &self.interface.neighbors;
        if neighbors.config().authority && !neighbors.is_bound(source, from) {
            return Err(Violation { reason: DropReason::SpoofedPort, owner: None, binding: None });
        }
        Ok(())
    }
}
