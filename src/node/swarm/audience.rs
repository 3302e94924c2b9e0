//! Whom of a swarm a frame concerns.
//!
//! A broadcast would be looked at by every host of a link. What it does to those that it does not concern is nothing
//! that they need: they learn the owners of ports when they ask for them, and hear of a change when they ask again.

use core::net::Ipv4Addr;
use core::ops::Range;

use smoltcp::time::Instant;
use smoltcp::wire::{ArpOperation, ArpRepr, EthernetFrame, EthernetProtocol};

use super::Swarm;
use crate::node::DropReason;
use crate::node::ethernet::Arp;
use crate::ports::{PortRange, PortSet, Psid};
use crate::wire::Frame;
use crate::wire::pe_arp::{Claim, Kind, Message, Record};

/// Hosts of a swarm, by their place.
#[derive(Debug)]
pub(super) enum Audience {
    /// None or one.
    One(Option<usize>),
    /// These.
    Some(Vec<usize>),
    /// All of them.
    All(Range<usize>),
}

impl Audience {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::One(one) => one.is_none(),
            Self::Some(some) => some.is_empty(),
            Self::All(all) => all.is_empty(),
        }
    }

    pub(super) fn members(self) -> impl Iterator<Item = usize> {
        let (one, some, all) = match self {
            Self::One(one) => (one, Vec::new(), 0..0),
            Self::Some(some) => (None, some, 0..0),
            Self::All(all) => (None, Vec::new(), all),
        };
        one.into_iter().chain(some).chain(all)
    }
}

impl Swarm {
    /// Whom a frame concerns. It has an Ethernet header.
    pub(super) fn audience(&mut self, frame: &Frame, now: Instant) -> Result<Audience, DropReason> {
        let ethernet = EthernetFrame::new_unchecked(frame.bytes());
        let destination = ethernet.dst_addr();
        if destination.is_unicast() {
            return match self.member_of(destination) {
                Some(at) => Ok(Audience::One(Some(at))),
                None => Err(DropReason::NotOurFrame),
            };
        }
        match ethernet.ethertype() {
            EthernetProtocol::Arp => match Arp::parse(frame, self.config.pro)? {
                Arp::Pe(message) => self.audience_of_message(&message, now),
                Arp::Plain(message) => self.audience_of_plain(&message, now),
            },
            // Groups are for programs.
            EthernetProtocol::Ipv4 => Err(DropReason::NoPrograms),
            _ => Err(DropReason::EtherType),
        }
    }

    fn audience_of_message(&mut self, message: &Message, now: Instant) -> Result<Audience, DropReason> {
        let (sender, target) = (message.sender.ip, message.target.ip);
        match message.kind() {
            Kind::Resolve => {
                // PE-ARP rules 1 and 55: the owner answers, and whoever is claimed against hears it.
                let owner = message.target.port.and_then(|port| self.owner(target, port));
                if message.records.is_empty() || !self.owners.contains_key(&sender) {
                    return Ok(Audience::One(owner));
                }
                self.claimed(sender, &message.records, owner, now)
            }
            Kind::SolicitAll => {
                self.take_wide(now)?;
                Ok(Audience::Some(self.all_of(target).collect()))
            }
            // Everybody may know the gateway.
            Kind::Announce | Kind::Release if Some(sender) == self.config.gateway => self.all(now),
            Kind::Announce => self.claimed(sender, &message.records, None, now),
            Kind::Probe => self.claimed(target, &message.records, None, now),
            Kind::Release => Ok(Audience::One(None)),
            Kind::Reply | Kind::Conflict | Kind::Nak => {
                let to = self.member_of(message.target_hardware);
                to.map_or(Err(DropReason::ArpNotForUs), |at| Ok(Audience::One(Some(at))))
            }
        }
    }

    fn audience_of_plain(&mut self, message: &ArpRepr, now: Instant) -> Result<Audience, DropReason> {
        let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } = *message
        else {
            return Err(DropReason::ArpFormat);
        };
        if self.owners.contains_key(&source_protocol_addr) {
            // PE-ARP rule 3.
            return Err(DropReason::PlainForShared);
        }
        let about_itself = operation == ArpOperation::Reply || source_protocol_addr == target_protocol_addr;
        if about_itself && Some(source_protocol_addr) == self.config.gateway {
            return self.all(now);
        }
        // A sharer does not answer plain ARP.
        Ok(Audience::One(None))
    }

    fn all(&mut self, now: Instant) -> Result<Audience, DropReason> {
        self.take_wide(now)?;
        Ok(Audience::All(0..self.members.len()))
    }

    fn take_wide(&mut self, now: Instant) -> Result<(), DropReason> {
        if self.wide.take(now) { Ok(()) } else { Err(DropReason::SwarmLimit) }
    }

    /// Whose set has the port.
    fn owner(&self, ip: Ipv4Addr, port: u16) -> Option<usize> {
        let scheme = self.config.scheme;
        let psid = scheme.covers(port).then(|| scheme.psid_of(port))?;
        self.owner_of_psid(ip, psid)
    }

    fn owner_of_psid(&self, ip: Ipv4Addr, psid: u16) -> Option<usize> {
        Some((*self.owners.get(&ip)?.get(usize::from(psid))?)? as usize)
    }

    fn all_of(&self, ip: Ipv4Addr) -> impl Iterator<Item = usize> {
        self.owners.get(&ip).into_iter().flatten().flatten().map(|at| *at as usize)
    }

    /// Those with ports among the claimed ones, and one more.
    fn claimed(
        &mut self,
        ip: Ipv4Addr,
        records: &[Record],
        owner: Option<usize>,
        now: Instant,
    ) -> Result<Audience, DropReason> {
        if !self.owners.contains_key(&ip) {
            return Ok(Audience::One(owner));
        }
        let mut some: Vec<_> = owner.into_iter().collect();
        let mut wide = false;
        for record in records.iter().filter(|record| !record.is_withdrawn()) {
            match self.single_owner(ip, record.claim) {
                Some(owner) => some.extend(owner),
                None => {
                    // It takes a look at every set.
                    if !wide {
                        self.take_wide(now)?;
                    }
                    wide = true;
                    some.extend(self.all_of(ip).filter(|at| self.meets(*at, record.claim)));
                }
            }
        }
        some.sort_unstable();
        some.dedup();
        Ok(Audience::Some(some))
    }

    /// The owner of what is claimed, or nobody; `None` where it can have several.
    fn single_owner(&self, ip: Ipv4Addr, claim: Claim) -> Option<Option<usize>> {
        let scheme = self.config.scheme;
        let of_range = |range: PortRange| {
            if range.first() == range.last() {
                return Some(self.owner(ip, range.first()));
            }
            let psid = Psid::new(scheme, scheme.psid_of(range.first())).ok()?;
            psid.contains_range(range).then(|| self.owner_of_psid(ip, psid.value()))
        };
        match claim {
            Claim::Psid(psid) if psid.scheme() == scheme => Some(self.owner_of_psid(ip, psid.value())),
            Claim::Psid(psid) if psid.scheme().length() == 16 => of_range(PortRange::single(psid.value())),
            Claim::Range(range) => of_range(range),
            Claim::Portless(_) => Some(None),
            Claim::Psid(_) | Claim::Full => None,
        }
    }

    fn meets(&self, at: usize, claim: Claim) -> bool {
        let Some(PortSet::Psid(own)) = self.members.get(at).map(|member| member.host.set()) else {
            return false;
        };
        match claim {
            Claim::Psid(psid) => own.intersects(psid),
            Claim::Range(range) => own.intersects_range(range),
            Claim::Full => true,
            Claim::Portless(_) => false,
        }
    }
}
