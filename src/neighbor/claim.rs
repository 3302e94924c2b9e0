//! One own set: probed, announced, defended (PE-ARP rule 5, after RFC 5227 §2).
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

use super::binding::{meet, names};
use super::{
    ANNOUNCE_INTERVAL, ANNOUNCE_NUM, ANNOUNCE_WAIT, DEFEND_INTERVAL, PROBE_MAX, PROBE_MIN, PROBE_NUM,
    PROBE_WAIT, PROBE_WAIT_AUTHORITATIVE, RATE_LIMIT_INTERVAL, SOLICIT_JITTER_MICROS,
};
use crate::wire::pe_arp::{Claim, Lifetime, Record};

/// What a node owns of an address on a link.
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
    /// A whole address that was given to the node.
    pub fn whole(ip: Ipv4Addr) -> Self {
        Self {
            ip,
            records: vec![Record::new(Claim::Full, Lifetime::Unknown)],
            first_port: 0,
            shared: false,
            authoritative: true,
            until: None,
        }
    }

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

/// What is to be done about a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Others are to be asked whether it is free.
    Probe,
    /// It is free and now in use; goes before the first announcement.
    Ready,
    /// Others are to be told that it is in use.
    Announce,
    /// Its lease is over.
    Expired,
}

#[derive(Debug)]
pub(super) struct OwnClaim {
    pub(super) set: OwnSet,
    pub(super) phase: ClaimPhase,
    deadline: Option<Instant>,
    defended: Option<Instant>,
}

impl OwnClaim {
    pub(super) fn new(set: OwnSet) -> Self {
        Self { set, phase: ClaimPhase::Unclaimed, deadline: None, defended: None }
    }

    /// Whether the set is in use and holds this.
    pub(super) fn owns(&self, ip: Ipv4Addr, protocol: u8, port: Option<u16>) -> bool {
        self.phase.holds()
            && self.set.ip == ip
            && self.set.records.iter().any(|record| record.contains(protocol, port))
    }

    /// Whether a claim of another host matters now.
    pub(super) fn is_disputable(&self) -> bool {
        self.phase.holds() || self.phase.probing()
    }

    /// A port that a claim of another host to the address and the set have in common, while that is in use or probed.
    pub(super) fn disputed(&self, ip: Ipv4Addr, records: &[Record]) -> Option<u16> {
        if self.set.ip != ip || !self.is_disputable() {
            return None;
        }
        // PE-ARP rule 24: what is withdrawn is not claimed.
        let claimed = || records.iter().filter(|record| !record.is_withdrawn());
        self.set.records.iter().find_map(|own| claimed().find_map(|other| meet(own, other)))
    }

    /// Whether all that a record of the address names is part of the set, while that is in use or probed.
    pub(super) fn covers(&self, ip: Ipv4Addr, record: &Record) -> bool {
        self.is_disputable() && self.set.ip == ip && self.set.records.iter().any(|own| names(own, record))
    }

    /// Starts to probe: at once where the set was given, else after a random wait (PE-ARP rule 56).
    pub(super) fn start(&mut self, rng: &mut impl Rng, now: Instant) {
        let wait = if self.set.authoritative { 0 } else { rng.random_range(0..=PROBE_WAIT.total_micros()) };
        self.phase = ClaimPhase::Probing { sent: 0 };
        self.deadline = Some(now + Duration::from_micros(wait));
    }

    /// In use without a probe: a router's own address.
    pub(super) fn hold(&mut self) {
        self.phase = ClaimPhase::Held;
        self.deadline = None;
    }

    /// Gives the set up because another host uses it; a given set is probed again later (PE-ARP rule 57). Whether it was
    /// in use, so that a RELEASE is due (PE-ARP rule 58).
    pub(super) fn lose(&mut self, rng: &mut impl Rng, now: Instant) -> bool {
        let held = self.release();
        self.phase = ClaimPhase::Lost;
        // At random: two hosts that lost to each other would meet again.
        let spread = Duration::from_micros(rng.random_range(0..=SOLICIT_JITTER_MICROS));
        self.deadline = self.set.authoritative.then(|| now + RATE_LIMIT_INTERVAL + spread);
        held
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

    /// The set has other records from now on, and its lease lasts until `until`.
    pub(super) fn change(&mut self, records: Vec<Record>, until: Instant, rng: &mut impl Rng, now: Instant) {
        self.set.records = records;
        self.renew(until, rng, now);
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
    }

    /// Gives the set back; whether it was in use, so that a RELEASE is due.
    pub(super) fn release(&mut self) -> bool {
        let held = self.phase.holds();
        self.phase = ClaimPhase::Unclaimed;
        self.deadline = None;
        held
    }

    /// Whether a claim by another host ends the own one: the second within [`DEFEND_INTERVAL`] to a set that
    /// nobody gave (RFC 5227 §2.4 (b), PE-ARP rule 55).
    pub(super) fn must_yield(&self, now: Instant) -> bool {
        !self.set.authoritative && self.defended.is_some_and(|at| now < at + DEFEND_INTERVAL)
    }

    /// Whether the set is to be announced against a host that claims it, at most once every [`DEFEND_INTERVAL`].
    pub(super) fn defend(&mut self, now: Instant) -> bool {
        let rested = self.defended.is_none_or(|at| now >= at + DEFEND_INTERVAL);
        if !self.phase.holds() || !rested {
            return false;
        }
        self.defended = Some(now);
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.deadline, self.lease_end()].into_iter().flatten().min()
    }

    /// The next step that is due at `now`.
    pub(super) fn due(&mut self, rng: &mut impl Rng, now: Instant) -> Option<Step> {
        if self.lease_end().is_some_and(|until| until <= now) {
            self.expire();
            return Some(Step::Expired);
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
                    return Some(Step::Probe);
                }
                self.phase = ClaimPhase::Announcing { sent: 0 };
                self.deadline = Some(now);
                Some(Step::Ready)
            }
            ClaimPhase::Announcing { sent } => {
                let last = sent + 1 >= ANNOUNCE_NUM;
                self.phase = if last { ClaimPhase::Held } else { ClaimPhase::Announcing { sent: sent + 1 } };
                self.deadline = (!last).then(|| now + ANNOUNCE_INTERVAL);
                Some(Step::Announce)
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
