//! All that a node owns on a link: sets of one address or of several, each with its own claim, and the messages that
//! speak for them. What is said of an address names all sets of it that are in use (PE-ARP rule 2).

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use rand::Rng;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::claim::{ClaimPhase, OwnClaim, OwnSet, Step};
use super::{MAX_SOLICITORS, SOLICIT_INTERVAL, SOLICIT_JITTER_MICROS};
use crate::wire::pe_arp::{Message, PeAddress, Record};

/// One of the own sets, by the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnId(u32);

impl OwnId {
    /// The first set of the configuration.
    pub const FIRST: Self = Self(0);
}

/// What the engine has to do.
#[derive(Debug)]
pub(super) enum Due {
    /// Of a set.
    Step(OwnId, Step),
    /// An answer to a router that asked for every owner.
    Answer(EthernetAddress, Message),
}

/// A router that asked for every owner of an address.
#[derive(Debug)]
struct Solicitor {
    hardware: EthernetAddress,
    address: PeAddress,
    ip: Ipv4Addr,
    /// When it asked, or when it was answered last.
    asked: Instant,
    /// When to answer, until that is done.
    answer: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Own {
    hardware: EthernetAddress,
    router: bool,
    claims: BTreeMap<OwnId, OwnClaim>,
    next: u32,
    /// Routers that asked for every owner within the last second.
    solicitors: Vec<Solicitor>,
}

impl Own {
    pub(super) fn new(hardware: EthernetAddress, router: bool) -> Self {
        Self { hardware, router, claims: BTreeMap::new(), next: 0, solicitors: Vec::new() }
    }

    pub(super) fn add(&mut self, set: OwnSet) -> OwnId {
        let id = OwnId(self.next);
        self.next += 1;
        self.claims.insert(id, OwnClaim::new(set));
        id
    }

    pub(super) fn remove(&mut self, id: OwnId) {
        self.claims.remove(&id);
    }

    pub(super) fn claim(&self, id: OwnId) -> Option<&OwnClaim> {
        self.claims.get(&id)
    }

    pub(super) fn claim_mut(&mut self, id: OwnId) -> Option<&mut OwnClaim> {
        self.claims.get_mut(&id)
    }

    pub(super) fn phase(&self, id: OwnId) -> ClaimPhase {
        self.claims.get(&id).map_or(ClaimPhase::Unclaimed, |claim| claim.phase)
    }

    fn held(&self) -> impl Iterator<Item = &OwnClaim> {
        self.claims.values().filter(|claim| claim.phase.holds())
    }

    /// The sets, whether or not they are in use.
    pub(super) fn sets(&self) -> impl Iterator<Item = &OwnSet> {
        self.claims.values().map(|claim| &claim.set)
    }

    /// Whether part of the address may be the node's own, and the rest others'.
    pub(super) fn shares(&self, ip: Ipv4Addr) -> bool {
        self.sets().any(|set| set.shared && set.ip == ip)
    }

    pub(super) fn owns(&self, ip: Ipv4Addr, protocol: u8, port: Option<u16>) -> bool {
        self.claims.values().any(|claim| claim.owns(ip, protocol, port))
    }

    /// Whether part of the address is in use.
    pub(super) fn holds(&self, ip: Ipv4Addr) -> bool {
        self.held().any(|claim| claim.set.ip == ip)
    }

    /// A whole address that is in use, and for which the node answers plain ARP.
    pub(super) fn whole(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.held().filter(|claim| !claim.set.shared).map(|claim| claim.set.ip)
    }

    /// All that is in use of an address, as messages name it at `now`.
    pub(super) fn records(&self, ip: Ipv4Addr, now: Instant) -> Vec<Record> {
        self.held().filter(|claim| claim.set.ip == ip).flat_map(|claim| claim.set.records_at(now)).collect()
    }

    /// The own sets that a claim of another host has ports of, each with such a port.
    pub(super) fn disputed(&self, ip: Ipv4Addr, records: &[Record]) -> Vec<(OwnId, u16)> {
        let with_port = |(id, claim): (&OwnId, &OwnClaim)| Some((*id, claim.disputed(ip, records)?));
        self.claims.iter().filter_map(with_port).collect()
    }

    /// The own sets of an address that plain ARP claims, each with its first port.
    pub(super) fn disputed_whole(&self, ip: Ipv4Addr) -> Vec<(OwnId, u16)> {
        let disputed = self.claims.iter().filter(|(_, claim)| claim.set.ip == ip && claim.is_disputable());
        disputed.map(|(id, claim)| (*id, claim.set.first_port)).collect()
    }

    /// Whether all that a record of the address names is part of an own set.
    pub(super) fn covers(&self, ip: Ipv4Addr, record: &Record) -> bool {
        self.claims.values().any(|claim| claim.covers(ip, record))
    }

    fn address(&self, set: &OwnSet) -> PeAddress {
        PeAddress { shared: set.shared, router: self.router, ..PeAddress::new(set.ip) }
    }

    /// The own address as the sender of a question about `ip`: no protocol, no port. That very address where it is an
    /// own one, so that it is clear why it is asked about; else one that is in use.
    pub(super) fn asker(&self, ip: Ipv4Addr) -> Option<PeAddress> {
        let same = self.held().find(|claim| claim.set.ip == ip);
        let asker = same.or_else(|| self.held().next()).or_else(|| self.claims.values().next())?;
        let held = self.held().filter(|claim| claim.set.ip == asker.set.ip);
        let residual = held.flat_map(|claim| &claim.set.records).any(Record::is_residual);
        Some(PeAddress { residual, ..self.address(&asker.set) })
    }

    /// The address with the first port of a set, as in ANNOUNCE, PROBE and RELEASE.
    fn first(&self, set: &OwnSet) -> PeAddress {
        self.address(set).with_port(0, Some(set.first_port))
    }

    pub(super) fn announcement(&self, set: &OwnSet, now: Instant) -> Message {
        Message::announce(self.hardware, self.first(set), &self.records(set.ip, now))
    }

    pub(super) fn probe(&self, set: &OwnSet) -> Message {
        Message::probe(self.hardware, self.first(set), &set.records)
    }

    pub(super) fn release(&self, set: &OwnSet) -> Message {
        Message::release(self.hardware, self.first(set), &set.records)
    }

    /// The objection to a probe for part of a set that is in use.
    pub(super) fn objection(
        &self,
        id: OwnId,
        prober: EthernetAddress,
        port: u16,
        now: Instant,
    ) -> Option<Message> {
        let claim = self.claims.get(&id).filter(|claim| claim.phase.holds())?;
        let disputed = self.address(&claim.set).with_port(0, Some(port));
        Some(Message::conflict(self.hardware, disputed, prober, &self.records(claim.set.ip, now)))
    }

    /// The answer to a question about an own port.
    pub(super) fn answer(
        &self,
        asked: PeAddress,
        to: EthernetAddress,
        asker: PeAddress,
        now: Instant,
    ) -> Message {
        let own = self.sets().find(|set| set.ip == asked.ip);
        let address = own.map_or(PeAddress::new(asked.ip), |set| self.address(set));
        let address = address.with_port(asked.protocol, asked.port);
        Message::reply(self.hardware, address, to, asker, &self.records(asked.ip, now))
    }

    /// A router asked for every owner of an own address: answers after a random wait. False where it asks too often, or
    /// too many do.
    pub(super) fn solicit(
        &mut self,
        router: EthernetAddress,
        address: PeAddress,
        ip: Ipv4Addr,
        rng: &mut impl Rng,
        now: Instant,
    ) -> bool {
        let holds = self.held().any(|claim| claim.set.ip == ip);
        self.solicitors.retain(|one| now < one.asked + SOLICIT_INTERVAL || one.answer.is_some());
        if let Some(one) = self.solicitors.iter_mut().find(|one| (one.hardware, one.ip) == (router, ip)) {
            // A router that was restarted twice asks again too soon: later is better than never, as it asks once.
            let repeated = one.answer.is_none();
            if repeated && holds {
                one.answer = Some(one.asked + SOLICIT_INTERVAL);
            }
            return repeated;
        }
        if self.solicitors.len() >= MAX_SOLICITORS {
            return false;
        }
        let wait = Duration::from_micros(rng.random_range(0..=SOLICIT_JITTER_MICROS));
        let answer = holds.then(|| now + wait);
        self.solicitors.push(Solicitor { hardware: router, address, ip, asked: now, answer });
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let answers = self.solicitors.iter().filter_map(|one| one.answer);
        self.claims.values().filter_map(OwnClaim::deadline).chain(answers).min()
    }

    /// The next thing that is due at `now`.
    pub(super) fn due(&mut self, rng: &mut impl Rng, now: Instant) -> Option<Due> {
        let step = self.claims.iter_mut().find_map(|(id, claim)| Some((*id, claim.due(rng, now)?)));
        if let Some((id, step)) = step {
            return Some(Due::Step(id, step));
        }
        while let Some(one) = self.solicitors.iter_mut().find(|one| one.answer.is_some_and(|at| at <= now)) {
            one.answer = None;
            one.asked = now;
            let (router, address, ip) = (one.hardware, one.address, one.ip);
            // What was given up since has been told to everybody, and what is being probed will be.
            if self.held().any(|claim| claim.set.ip == ip) {
                let answer = self.answer(PeAddress::new(ip), router, address, now);
                return Some(Due::Answer(router, answer));
            }
        }
        None
    }
}
