//! Ingress checks of IP packets (PE-ARP rules 110 and 111): whoever sends from a shared address owns the port.
//!
//! ```text
//!   LAN:     source routed to this link? ── shared? ──> {source, protocol, port} → binding, of the Ethernet source?
//!                                        └─ whole? ───> a binding of the address, if any, of the Ethernet source?
//!   outside: source not that of a LAN?
//! ```

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpRepr, EthernetAddress, EthernetFrame};

use super::{Attached, NextHop, Router};
use crate::neighbor::Target;
use crate::node::ethernet::Arp;
use crate::node::{DropReason, LinkId};
use crate::wire::{Datagram, ETHERNET_HEADER, FlowKey, FlowKind, Frame, ICMP, Unkeyed, pe_arp};

/// Between two log lines of one kind (PE-ARP rule 113).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A packet that was not from who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: DropReason,
    /// Whose the source is, as far as the router knows, and the binding that says so.
    pub(super) owner: Option<(EthernetAddress, u32)>,
}

impl From<DropReason> for Violation {
    fn from(reason: DropReason) -> Self {
        Self { reason, owner: None }
    }
}

/// What the guard has logged.
#[derive(Debug, Default)]
pub(super) struct Reports {
    lines: BTreeMap<DropReason, Line>,
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
        match self.lines.get_mut(&reason) {
            Some(line) if now < line.at + REPORT_INTERVAL => {
                line.untold += 1;
                None
            }
            _ => Some(self.lines.insert(reason, Line { at: now, untold: 0 }).map_or(0, |line| line.untold)),
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
        Violation { reason, owner }: Violation,
        now: Instant,
    ) {
        let interface = &mut self.links[link.0].interface;
        if let Some((_, binding)) = owner {
            interface.neighbors.doubt(binding, now);
        }
        if let Some(untold) = self.violations.allow(reason, now) {
            let port = key.ok().and_then(|key| key.source);
            let owner = owner.map(|(owner, _)| owner.to_string());
            tracing::warn!(
                link = %interface.name, %from, %source, ?port, %destination, ?owner, untold, reason = reason.name(),
                "dropped what its sender may not send"
            );
        }
    }

    /// Logs ARP of either kind that says what its sender may not say (PE-ARP rules 109 and 121).
    // Rare, and long.
    #[cold]
    pub(super) fn report_arp(&mut self, link: LinkId, frame: &Frame, reason: DropReason, now: Instant) {
        let interface = &self.links[link.0].interface;
        let spoken = || pe_arp::Packet::<&[u8]>::protocol_of(frame.bytes().get(ETHERNET_HEADER..)?);
        let told = match reason {
            // The answer of a legacy host may just be late.
            DropReason::Unsolicited => spoken() == Some(interface.pro),
            DropReason::ArpSender
            | DropReason::PeArpNotSpoken
            | DropReason::PlainForShared
            | DropReason::OffLinkClaim
            | DropReason::NotLeased
            | DropReason::NoAuthority
            | DropReason::SolicitAll
            | DropReason::TableFull => true,
            _ => false,
        };
        if !told {
            return;
        }
        let Some(untold) = self.violations.allow(reason, now) else { return };
        let (sender, port, claim) = match Arp::parse(frame, interface.pro) {
            Ok(Arp::Pe(message)) => {
                let claim = message.records.first().map(|record| record.claim.to_string());
                (message.sender.ip, message.sender.port, claim)
            }
            Ok(Arp::Plain(ArpRepr::EthernetIpv4 { source_protocol_addr, .. })) => {
                (source_protocol_addr, None, None)
            }
            _ => return,
        };
        let from = EthernetFrame::new_unchecked(frame.bytes()).src_addr();
        tracing::warn!(
            link = %interface.name, %from, %sender, ?port, ?claim, untold, reason = reason.name(),
            "ignored ARP that its sender may not send"
        );
    }

    /// Logs a DHCP message that was not from its client, or one too many.
    #[cold]
    pub(super) fn report_dhcp(
        &mut self,
        link: LinkId,
        from: EthernetAddress,
        reason: DropReason,
        now: Instant,
    ) {
        if let Some(untold) = self.violations.allow(reason, now) {
            let link = &self.links[link.0].interface.name;
            tracing::warn!(%link, %from, untold, reason = reason.name(), "dropped a DHCP message");
        }
    }

    /// PE-ARP rule 111, of a host with an address of its own: it was asked for what it tells of, or routes it.
    fn may_tell(&self, link: LinkId, source: Ipv4Addr, key: &Result<FlowKey, Unkeyed>) -> bool {
        let Ok(FlowKey { kind: FlowKind::IcmpError, embedded_destination: Some(about), .. }) = key else {
            return true;
        };
        let behind = |next_hop: NextHop<LinkId>| next_hop.link == link && next_hop.gateway.is_some();
        *about == source || self.fib.lookup(*about).is_some_and(behind)
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
            return Err(DropReason::SpoofedAddress.into());
        }
        if !attached.pe {
            return Ok(());
        }
        if attached.interface.neighbors.is_shared(source) {
            return attached.judge_sharer(from, source, key, datagram);
        }
        if attached.prefix.contains_addr(&source) {
            // Nobody says what a host has that is not in the table. One that moves is heard of by ARP before it sends.
            attached.judge_owner(from, Target::gateway(source), DropReason::SpoofedAddress, true)?;
        }
        if !self.may_tell(link, source, key) {
            return Err(DropReason::SpoofedError.into());
        }
        Ok(())
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
            Err(unkeyed) => return Err(DropReason::from(*unkeyed).into()),
        };
        let (protocol, port, reason) = match key.kind {
            // PE-ARP rule 111: about a packet to the sender, and to a port of its own.
            // No host has anything to say about a later fragment, and nothing in it would tell whose it was.
            FlowKind::IcmpError if key.embedded_destination != Some(source) || key.headless => {
                return Err(DropReason::SpoofedError.into());
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
            None if unknown => Ok(()),
            owner => Err(Violation { reason, owner }),
        }
    }

    fn judge_any(&self, from: EthernetAddress, source: Ipv4Addr) -> Result<(), Violation> {
        let neighbors = &self.interface.neighbors;
        if neighbors.config().authority && !neighbors.is_bound(source, from) {
            return Err(DropReason::SpoofedPort.into());
        }
        Ok(())
    }
}
