//! What happens to nodes and their sets: crashes, cut cables, and sets that go from host to host.

use rand::Rng;
use rand::seq::IndexedRandom;
use smoltcp::time::{Duration, Instant};

use super::checker::Violation;
use super::scenario::{Action, Fault, HostSpec, NodeId, SegmentId, SetId};
use super::station::{Cable, Machine, hardware};
use super::world::{Event, World};
use crate::neighbor::OwnId;
use crate::ports::PortSet;
use crate::wire::pe_arp::{Claim, Lifetime, Record};

/// How much later than at the end of its lease a set goes to the next host: the clocks of a server and its clients
/// are not one.
const LEASE_MARGIN: Duration = Duration::from_millis(1);

impl World<'_> {
    /// Starts every node that is there from the start, and plans what happens.
    pub(super) fn start_all(&mut self) -> Result<(), Violation> {
        for node in (0..self.stations.len()).map(NodeId) {
            // Who crashes at 0 has never been there.
            let absent = |fault: &Fault| {
                fault.at == Duration::ZERO && fault.action == Action::Crash && fault.node == node
            };
            if !self.scenario.events.iter().any(absent) {
                self.start(node)?;
            }
            if let Some(lease) = self.lease_time(node) {
                self.queue.insert(self.now + lease / 2, Event::Renew(node));
            }
        }
        for fault in &self.scenario.events {
            self.queue.insert(Instant::ZERO + fault.at, Event::Fault(*fault));
        }
        self.plan_chaos();
        Ok(())
    }

    pub(super) fn start(&mut self, node: NodeId) -> Result<(), Violation> {
        // One that ran on without a set.
        self.crash(node);
        self.stations[node.0].up = true;
        let lease = match (self.lease_time(node), self.stations[node.0].set) {
            (Some(_), Some(set)) => {
                let until = self.extend_lease(node, set)?.unwrap_or(self.now);
                if until <= self.now {
                    // It comes up when the server can be reached.
                    return Ok(());
                }
                Some(until - self.now)
            }
            _ => None,
        };
        let seed = self.seeds.random();
        let (scenario, now) = (self.scenario, self.now);
        let started = self.stations[node.0].start(scenario, node, lease, seed, now);
        started
            .map_err(|error| Violation::Start { node: self.checker.name(node), error: error.to_string() })?;
        for set in (0..self.scenario.sets.len()).map(SetId) {
            self.tell(node, set, self.holders.0[set.0])?;
        }
        self.drain(node)
    }

    fn crash(&mut self, node: NodeId) {
        self.count_drops(node);
        let station = &mut self.stations[node.0];
        station.up = false;
        station.machine = None;
        station.conversations.clear();
        if let Some(key) = station.timer.take() {
            self.queue.remove(key);
        }
    }

    /// Stops with a RELEASE.
    fn leave(&mut self, node: NodeId) -> Result<(), Violation> {
        let now = self.now;
        if let Some(host) = self.stations[node.0].running_host() {
            host.release(now);
            self.drain(node)?;
        }
        self.crash(node);
        Ok(())
    }

    /// Everything that went wrong is over.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.mend();
        for node in (0..self.stations.len()).map(NodeId) {
            if self.stations[node.0].machine.is_none() {
                self.start(node)?;
            }
        }
        Ok(())
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), Violation> {
        // What was to be made good later than the end has been.
        if self.now >= Instant::ZERO + self.scenario.duration {
            return Ok(());
        }
        let node = fault.node;
        match (fault.action, fault.to) {
            (Action::Crash, _) => {
                self.crash(node);
                Ok(())
            }
            (Action::Restart, _) => self.start(node),
            (Action::Partition | Action::Heal, _) => {
                let concerned = |id: usize| fault.segment.is_none_or(|segment| segment == SegmentId(id));
                for (id, segment) in self.segments.iter_mut().enumerate() {
                    if concerned(id) {
                        segment.set_cut(node, fault.action == Action::Partition);
                    }
                }
                Ok(())
            }
            (Action::Leave, _) => self.leave(node),
            (Action::Move, Some(to)) => self.give(node, to, true),
            (Action::Takeover, Some(to)) => self.give(node, to, false),
            (Action::Move | Action::Takeover, None) => Ok(()),
        }
    }

    // Random faults.

    fn plan_chaos(&mut self) {
        let Some(chaos) = &self.scenario.chaos else { return };
        let wait = Duration::from_micros(self.fate.random_range(1..=chaos.every.total_micros()));
        self.queue.insert(self.now + wait, Event::Chaos);
    }

    pub(super) fn chaos(&mut self) -> Result<(), Violation> {
        let end = Instant::ZERO + self.scenario.duration;
        let Some(chaos) = self.scenario.chaos.as_ref().filter(|_| self.now < end) else { return Ok(()) };
        self.plan_chaos();
        let (shortest, longest) = chaos.outage;
        let outage = self.fate.random_range(shortest.total_micros()..=longest.total_micros());
        let (Some(action), Some(node)) =
            (chaos.actions.choose(&mut self.fate).copied(), chaos.nodes.choose(&mut self.fate).copied())
        else {
            return Ok(());
        };
        let mut fault = Fault { at: self.scenario.duration, action, node, segment: None, to: None };
        let repair = match action {
            Action::Crash | Action::Leave => Some(Action::Restart),
            Action::Partition => {
                let cables: &[Cable] = &self.stations[node.0].cables;
                // One cable, or all of them.
                let cable = self.fate.random_range(0..=cables.len());
                fault.segment = cables.get(cable).map(|cable| cable.segment);
                Some(Action::Heal)
            }
            Action::Move | Action::Takeover => {
                let able = |to: &&NodeId| self.scenario.may_give(node, **to);
                let others: Vec<_> = chaos.nodes.iter().filter(able).copied().collect();
                fault.to = others.choose(&mut self.fate).copied();
                None
            }
            Action::Restart | Action::Heal => None,
        };
        if let Some(action) = repair {
            let at = self.now + Duration::from_micros(outage);
            self.queue.insert(at, Event::Fault(Fault { action, ..fault }));
        }
        if action == Action::Leave && self.scenario.host(node).is_none() {
            fault.action = Action::Crash;
        }
        self.fault(fault)
    }

    // Sets that go from host to host.

    /// The set of `from` goes to `to`, and that of `to`, if it has one, comes back.
    fn give(&mut self, from: NodeId, to: NodeId, gracefully: bool) -> Result<(), Violation> {
        let (Some(given), back) = (self.stations[from.0].set, self.stations[to.0].set) else { return Ok(()) };
        let leased = self.leases[given.0].is_some_and(|until| until > self.now);
        // Without a RELEASE that the server hears, a lease goes on until its end.
        if leased && !(gracefully && self.can_release(from)) {
            if back.is_none() && !core::mem::replace(&mut self.leaving[given.0], true) {
                let until = self.leases[given.0].unwrap_or(self.now);
                self.queue.insert(until + LEASE_MARGIN, Event::Handover { set: given, to });
            }
            return Ok(());
        }
        if let Some(back) = back
            && self.leases[back.0].is_some_and(|until| until > self.now)
            && !self.can_release(to)
        {
            return Ok(());
        }
        let up = [from, to].map(|node| self.stations[node.0].up);
        if gracefully {
            self.leave(from)?;
        } else {
            self.crash(from);
        }
        self.leave(to)?;
        self.assign(from, back)?;
        self.assign(to, Some(given))?;
        for (node, up) in [from, to].into_iter().zip(up) {
            if up {
                self.start(node)?;
            }
        }
        Ok(())
    }

    fn can_release(&mut self, node: NodeId) -> bool {
        self.is_attached(node) && self.stations[node.0].running_host().is_some()
    }

    /// A set whose lease is over goes to another host, unless that has got one in the meantime.
    pub(super) fn hand_over(&mut self, set: SetId, to: NodeId) -> Result<(), Violation> {
        // It may have been given away in the meantime.
        let over = self.leases[set.0].is_none_or(|until| until < self.now);
        if !core::mem::take(&mut self.leaving[set.0]) || !over {
            return Ok(());
        }
        let from = self.holders.0[set.0];
        if self.stations[to.0].set.is_some() || self.stations[from.0].set != Some(set) {
            return Ok(());
        }
        // The host that had it runs on without: its own clock has ended the lease.
        self.assign(from, None)?;
        self.assign(to, Some(set))?;
        if self.stations[to.0].up { self.start(to) } else { Ok(()) }
    }

    fn assign(&mut self, node: NodeId, set: Option<SetId>) -> Result<(), Violation> {
        let before = core::mem::replace(&mut self.stations[node.0].set, set);
        if let Some(before) = before {
            self.tell_all(before, node)?;
        }
        if let Some(set) = set {
            self.holders.0[set.0] = node;
            self.leases[set.0] = None;
            self.leaving[set.0] = false;
            self.tell_all(set, node)?;
        }
        Ok(())
    }

    // Leases.

    fn lease_time(&self, node: NodeId) -> Option<Duration> {
        let HostSpec { lease, thief, .. } = self.stations[node.0].host()?;
        lease.filter(|_| !thief)
    }

    fn is_attached(&self, node: NodeId) -> bool {
        self.stations[node.0]
            .cables
            .iter()
            .all(|cable| self.segments[cable.segment.0].is_attached(cable.socket))
    }

    /// The server renews the lease of a set, where it can be reached and wants to; when the lease ends then.
    fn extend_lease(&mut self, node: NodeId, set: SetId) -> Result<Option<Instant>, Violation> {
        if let Some(time) = self.lease_time(node)
            && self.is_attached(node)
            && !self.leaving[set.0]
        {
            self.leases[set.0] = Some(self.now + time);
            self.tell_all(set, node)?;
        }
        Ok(self.leases[set.0])
    }

    pub(super) fn renew(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(time) = self.lease_time(node) else { return Ok(()) };
        self.queue.insert(self.now + time / 2, Event::Renew(node));
        let station = &mut self.stations[node.0];
        let Some(set) = station.set.filter(|_| station.up) else { return Ok(()) };
        if station.running_host().is_none() {
            return self.start(node);
        }
        let until = self.extend_lease(node, set)?;
        if until == Some(self.now + time) {
            let now = self.now;
            if let Some(host) = self.stations[node.0].running_host() {
                host.renew(OwnId::FIRST, time, now);
            }
        }
        self.drain(node)
    }

    // Authorities.

    fn tell_all(&mut self, set: SetId, holder: NodeId) -> Result<(), Violation> {
        for node in (0..self.stations.len()).map(NodeId) {
            self.tell(node, set, holder)?;
        }
        Ok(())
    }

    /// An authority is told whether a host has a set, and for how long.
    fn tell(&mut self, authority: NodeId, set: SetId, holder: NodeId) -> Result<(), Violation> {
        let has = self.holders.0[set.0] == holder && self.stations[holder.0].set == Some(set);
        let lifetime = match self.leases[set.0] {
            _ if !has => None,
            None => Some(Lifetime::Unknown),
            Some(until) if until > self.now => Some(Lifetime::at_least(until - self.now)),
            Some(_) => None,
        };
        let spec = &self.scenario.sets[set.0];
        let PortSet::Psid(psid) = &spec.ports else { return Ok(()) };
        let segment = self.scenario.segment_of(spec.address);
        let station = &mut self.stations[authority.0];
        let responsible = segment.is_some_and(|segment| station.authority_for().contains(&segment));
        let Some(Machine::Router(router)) = station.machine.as_mut().filter(|_| responsible) else {
            return Ok(());
        };
        if !self.scenario.is_shared(spec.address) {
            return Ok(());
        }
        let records: Vec<_> =
            lifetime.map(|lifetime| Record::new(Claim::Psid(*psid), lifetime)).into_iter().collect();
        // The address is on a link of the router: `authority_for` says so.
        let _ = router.grant(spec.address, hardware(holder, 0), &records, self.now);
        self.drain(authority)
    }
}
