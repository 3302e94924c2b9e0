//! The own set: probed, announced, defended (PE-ARP rule 5, after RFC 5227 §2).
//!
//! ```text
//!   UNCLAIMED ──claim──> PROBING ──quiet──> ANNOUNCING ──2 sent──> HELD
//!                           │ CONFLICT, or the set in use            │ release
//!                           v                                        v
//!            PROBING <─60 s─ LOST                                 UNCLAIMED
//! ```
//!
//! A lease that ends leads from everywhere to EXPIRED; one that is renewed, from there to PROBING.

use core::net::Ipv4Addr;

use rand::Rng;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::binding::{meet, names};
use super::{
    ANNOUNCE_INTERVAL, ANNOUNCE_NUM, ANNOUNCE_WAIT, DEFEND_INTERVAL, MAX_SOLICITORS, PROBE_MAX, PROBE_MIN,
    PROBE_NUM, PROBE_WAIT, PROBE_WAIT_AUTHORITATIVE, RATE_LIMIT_INTERVAL, SOLICIT_INTERVAL,
    SOLICIT_JITTER_MICROS,
};
use crate::wire::pe_arp::{Lifetime, Message, PeAddress, Record};

/// What a node owns of its address on a link.
#[derive(Clone, Debug)]
pub struct OwnSet {
    /// The address.
    pub ip: Ipv4Addr,
    /// Its part of it.
    pub records: Vec<Record>,
    /// The lowest port of the set.
    pub first_port: u16,
    /// Other hosts own other parts.
    pub shared: bool,
    /// An operator or a lease gave the set: one short probe is enough.
    pub authoritative: bool,
    /// When the lease of the set ends; `None` for a set that is not leased.
    pub until: Option<Instant>,
}

impl OwnSet {
    /// The set as messages name it at `now`: with the time that is left (PE-ARP rule 24).
    pub(super) fn records_at(&self, now: Instant) -> Vec<Record> {
        let Some(until) = self.until else { return self.records.clone() };
        let left = if until > now { until - now } else { Duration::ZERO };
        let lifetime = Lifetime::at_most(left);
        self.records.iter().map(|record| Record { lifetime, ..*record }).collect()
    }
}

/// Where the own set stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimPhase {
    /// Not used.
    Unclaimed,
    /// Asking whether it is free.
    Probing {
        /// Probes sent.
        sent: u8,
    },
    /// In use, being announced.
    Announcing {
        /// Announcements sent.
        sent: u8,
    },
    /// In use.
    Held,
    /// Another host uses it.
    Lost,
    /// Not used: its lease is over.
    Expired,
}

impl ClaimPhase {
    /// Whether the set may be used and answered for.
    pub const fn holds(self) -> bool {
        matches!(self, Self::Announcing { .. } | Self::Held)
    }

    /// Whether others are being asked about it.
    pub const fn probing(self) -> bool {
        matches!(self, Self::Probing { .. })
    }
}

/// What a step of the claim asks the engine to do.
#[derive(Debug)]
pub(super) enum Step {
    Broadcast(Message),
    Unicast(EthernetAddress, Message),
    /// The set is free and now in use; goes before the first announcement.
    Ready,
    /// The lease is over.
    Expired,
}

#[derive(Debug)]
pub(super) struct OwnClaim {
    pub(super) set: OwnSet,
    pub(super) phase: ClaimPhase,
    hardware: EthernetAddress,
    router: bool,
    deadline: Option<Instant>,
    defended: Option<Instant>,
    /// Routers that asked for every owner within the last second.
    solicitors: Vec<Solicitor>,
}

/// A router that asked for every owner.
#[derive(Debug)]
struct Solicitor {
    hardware: EthernetAddress,
    address: PeAddress,
    /// When it asked, or when it was answered last.
    asked: Instant,
    /// When to answer, until that is done.
    answer: Option<Instant>,
}

impl OwnClaim {
    pub(super) fn new(set: OwnSet, hardware: EthernetAddress, router: bool) -> Self {
        Self {
            set,
            phase: ClaimPhase::Unclaimed,
            hardware,
            router,
            deadline: None,
            defended: None,
            solicitors: Vec::new(),
        }
    }

    /// The own address as the sender of a question: no protocol, no port.
    pub(super) fn address(&self) -> PeAddress {
        PeAddress { shared: self.set.shared, router: self.router, ..PeAddress::new(self.set.ip) }
    }

    /// The own address with the first port, as in ANNOUNCE, PROBE and RELEASE.
    fn first(&self) -> PeAddress {
        self.address().with_port(0, Some(self.set.first_port))
    }

    /// The own address as it answers a question about `asked`.
    pub(super) fn as_asked(&self, asked: PeAddress) -> PeAddress {
        self.address().with_port(asked.protocol, asked.port)
    }

    pub(super) fn owns(&self, ip: Ipv4Addr, protocol: u8, port: Option<u16>) -> bool {
        self.phase.holds()
            && self.set.ip == ip
            && self.set.records.iter().any(|record| record.contains(protocol, port))
    }

    /// Whether a claim of another host matters now.
    pub(super) fn is_disputable(&self) -> bool {
        self.phase.holds() || self.phase.probing()
    }

    /// A port that another claim to the own address and the own set have in common, while that is in use or probed.
    pub(super) fn disputed(&self, ip: Ipv4Addr, records: &[Record]) -> Option<u16> {
        if self.set.ip != ip || !self.is_disputable() {
            return None;
        }
        // PE-ARP rule 24: what is withdrawn is not claimed.
        let claimed = || records.iter().filter(|record| !record.is_withdrawn());
        self.set.records.iter().find_map(|own| claimed().find_map(|other| meet(own, other)))
    }

    /// Whether all that a record names is part of the own set, while that is in use or probed.
    pub(super) fn covers(&self, record: &Record) -> bool {
        self.is_disputable() && self.set.records.iter().any(|own| names(own, record))
    }

    /// Starts to probe: at once where the set was given, else after a random wait (PE-ARP rule 56).
    pub(super) fn start(&mut self, rng: &mut impl Rng, now: Instant) {
        let wait = if self.set.authoritative { 0 } else { rng.random_range(0..=PROBE_WAIT.total_micros()) };
        self.phase = ClaimPhase::Probing { sent: 0 };
        self.deadline = Some(now + Duration::from_micros(wait));
        // It answers nobody while it probes.
        self.solicitors.clear();
    }

    /// In use without a probe: a router's own address.
    pub(super) fn hold(&mut self) {
        self.phase = ClaimPhase::Held;
        self.deadline = None;
    }

    /// Gives the set up because another host uses it; a given set is probed again later (PE-ARP rule 57). The
    /// RELEASE to broadcast where it was in use (PE-ARP rule 58).
    pub(super) fn lose(&mut self, rng: &mut impl Rng, now: Instant) -> Option<Message> {
        let release = self.release();
        self.phase = ClaimPhase::Lost;
        // At random: two hosts that lost to each other would meet again.
        let spread = Duration::from_micros(rng.random_range(0..=SOLICIT_JITTER_MICROS));
        self.deadline = self.set.authoritative.then(|| now + RATE_LIMIT_INTERVAL + spread);
        release
    }

    /// The lease lasts until `until` from now on: a set in use is announced with its new lifetime, one that had
    /// expired is probed again (PE-ARP rule 122).
    pub(super) fn renew(&mut self, until: Instant, rng: &mut impl Rng, now: Instant) {
        self.set.until = Some(until);
        match self.phase {
            ClaimPhase::Expired => self.start(rng, now),
            ClaimPhase::Held => {
                self.phase = ClaimPhase::Announcing { sent: ANNOUNCE_NUM - 1 };
                self.deadline = Some(now);
            }
            ClaimPhase::Unclaimed
            | ClaimPhase::Probing { .. }
            | ClaimPhase::Announcing { .. }
            | ClaimPhase::Lost => {}
        }
    }

    /// When the lease of a set that is used, or is meant to be, ends.
    fn lease_end(&self) -> Option<Instant> {
        let unused = matches!(self.phase, ClaimPhase::Unclaimed | ClaimPhase::Expired);
        self.set.until.filter(|_| !unused)
    }

    /// Ends the use of the set without a word: its lease is over for everybody who heard of it.
    fn expire(&mut self) {
        self.phase = ClaimPhase::Expired;
        self.deadline = None;
        self.solicitors.clear();
    }

    /// Gives the set back; the RELEASE to broadcast where it was in use.
    pub(super) fn release(&mut self) -> Option<Message> {
        let held = self.phase.holds();
        self.phase = ClaimPhase::Unclaimed;
        self.deadline = None;
        self.solicitors.clear();
        held.then(|| Message::release(self.hardware, self.first(), &self.set.records))
    }

    /// Whether a claim by another host ends the own one: the second within [`DEFEND_INTERVAL`] to a set that
    /// nobody gave (RFC 5227 §2.4 (b), PE-ARP rule 55).
    pub(super) fn must_yield(&self, now: Instant) -> bool {
        !self.set.authoritative && self.defended.is_some_and(|at| now < at + DEFEND_INTERVAL)
    }

    /// An announcement against a host that claims the own set, at most one every [`DEFEND_INTERVAL`].
    pub(super) fn defend(&mut self, now: Instant) -> Option<Message> {
        let rested = self.defended.is_none_or(|at| now >= at + DEFEND_INTERVAL);
        if !self.phase.holds() || !rested {
            return None;
        }
        self.defended = Some(now);
        Some(Message::announce(self.hardware, self.first(), &self.set.records_at(now)))
    }

    /// The objection to a probe for part of the own set.
    pub(super) fn object(&self, prober: EthernetAddress, port: u16, now: Instant) -> Option<Message> {
        let disputed = self.address().with_port(0, Some(port));
        let records = self.set.records_at(now);
        self.phase.holds().then(|| Message::conflict(self.hardware, disputed, prober, &records))
    }

    /// A router asked for every owner: answers after a random wait. False where it asks too often, or too many do.
    pub(super) fn solicit(
        &mut self,
        router: EthernetAddress,
        address: PeAddress,
        rng: &mut impl Rng,
        now: Instant,
    ) -> bool {
        self.solicitors.retain(|one| now < one.asked + SOLICIT_INTERVAL || one.answer.is_some());
        if let Some(one) = self.solicitors.iter_mut().find(|one| one.hardware == router) {
            // A router that was restarted twice asks again too soon: later is better than never, as it asks once.
            let repeated = one.answer.is_none();
            if repeated && self.phase.holds() {
                one.answer = Some(one.asked + SOLICIT_INTERVAL);
            }
            return repeated;
        }
        if self.solicitors.len() >= MAX_SOLICITORS {
            return false;
        }
        let wait = Duration::from_micros(rng.random_range(0..=SOLICIT_JITTER_MICROS));
        let answer = self.phase.holds().then(|| now + wait);
        self.solicitors.push(Solicitor { hardware: router, address, asked: now, answer });
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let dues = [self.deadline, self.lease_end()];
        self.solicitors.iter().map(|one| one.answer).chain(dues).flatten().min()
    }

    /// The next step that is due at `now`.
    pub(super) fn due(&mut self, rng: &mut impl Rng, now: Instant) -> Option<Step> {
        if self.lease_end().is_some_and(|until| until <= now) {
            self.expire();
            return Some(Step::Expired);
        }
        let waiting = self.solicitors.iter_mut().find(|one| one.answer.is_some_and(|at| at <= now));
        if let Some(one) = waiting {
            one.answer = None;
            one.asked = now;
            let (router, address) = (one.hardware, one.address);
            let records = self.set.records_at(now);
            let message = Message::reply(self.hardware, self.address(), router, address, &records);
            return Some(Step::Unicast(router, message));
        }
        if self.deadline.is_none_or(|at| at > now) {
            return None;
        }
        match self.phase {
            ClaimPhase::Probing { sent } => {
                let (probes, wait) = if self.set.authoritative {
                    (1, PROBE_WAIT_AUTHORITATIVE)
                } else if sent + 1 < PROBE_NUM {
                    let spread = rng.random_range(PROBE_MIN.total_micros()..=PROBE_MAX.total_micros());
                    (PROBE_NUM, Duration::from_micros(spread))
                } else {
                    (PROBE_NUM, ANNOUNCE_WAIT)
                };
                if sent < probes {
                    self.phase = ClaimPhase::Probing { sent: sent + 1 };
                    self.deadline = Some(now + wait);
                    return Some(Step::Broadcast(Message::probe(
                        self.hardware,
                        self.first(),
                        &self.set.records,
                    )));
                }
                self.phase = ClaimPhase::Announcing { sent: 0 };
                self.deadline = Some(now);
                Some(Step::Ready)
            }
            ClaimPhase::Announcing { sent } => {
                let last = sent + 1 >= ANNOUNCE_NUM;
                self.phase = if last { ClaimPhase::Held } else { ClaimPhase::Announcing { sent: sent + 1 } };
                self.deadline = (!last).then(|| now + ANNOUNCE_INTERVAL);
                let records = self.set.records_at(now);
                Some(Step::Broadcast(Message::announce(self.hardware, self.first(), &records)))
            }
            ClaimPhase::Lost => {
                self.start(rng, now);
                self.due(rng, now)
            }
            ClaimPhase::Unclaimed | ClaimPhase::Expired | ClaimPhase::Held => {
                self.deadline = None;
                None
            }
        }
    }
}
