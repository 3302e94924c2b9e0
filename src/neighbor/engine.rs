//! The engine of one link: table, questions and the own sets, composed.

use core::net::Ipv4Addr;
use std::collections::{BTreeSet, VecDeque};

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxHashMap;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress};

use super::api::{Config, Entry, Event, Output, Refused, Target};
use super::binding::{Binding, Held, Point, Source, State, portless_point};
use super::claim::{ClaimPhase, OwnSet, Step};
use super::own::{Due as OwnDue, Own, OwnId};
use super::questions::{Due, Questions, Waiting};
use super::store::BindingId;
use super::table::Table;
use super::{
    CONFLICT_REPORTS_PER_SECOND, DELAY_FIRST_PROBE_TIME, MAX_AUTHORITIES, MAX_SCHEME_WITNESSES,
    MAX_UNICAST_SOLICIT, REACHABLE_TIME, RETRANS_TIMER, SHARED_SWEEP_TIME, SHARED_TIME, SOLICIT_INTERVAL,
    SOLICIT_WINDOW, TokenBucket,
};
use crate::ports::Scheme;
use crate::wire::Frame;
use crate::wire::pe_arp::{Claim, Message, PeAddress, Record};

/// The neighbors on one link.
#[derive(Debug)]
pub struct Neighbors {
    pub(super) config: Config,
    pub(super) table: Table,
    pub(super) questions: Questions,
    pub(super) own: Own,
    /// Addresses that PE-ARP said are shared, beside the configured ones, and when a claim was last heard.
    pub(super) learned_shared: FxHashMap<Ipv4Addr, Instant>,
    /// When they were last looked through for what may be forgotten.
    swept: Instant,
    /// When SOLICIT-ALL was sent: its answers are welcome for [`SOLICIT_WINDOW`].
    pub(super) solicited: FxHashMap<Ipv4Addr, Instant>,
    timers: BTreeSet<(Instant, BindingId)>,
    pub(super) rng: ChaCha8Rng,
    pub(super) outputs: VecDeque<Output>,
    pub(super) events: VecDeque<Event>,
    /// How many conflicts may be reported now (PE-ARP rule 52).
    pub(super) reports: TokenBucket,
    top_seniority: i64,
}

impl Neighbors {
    /// An engine that uses none of its sets yet: see [`Neighbors::claim_own`].
    pub fn new(config: Config, now: Instant) -> Self {
        let mut own = Own::new(config.hardware, config.router);
        for set in &config.own {
            own.add(set.clone());
        }
        let mut table = Table::default();
        for (ip, scheme) in &config.schemes {
            table.configure_scheme(*ip, *scheme);
        }
        Self {
            own,
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            table,
            questions: Questions::new(now),
            learned_shared: FxHashMap::default(),
            swept: now,
            solicited: FxHashMap::default(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            reports: TokenBucket::new(CONFLICT_REPORTS_PER_SECOND, CONFLICT_REPORTS_PER_SECOND, now),
            top_seniority: 0,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Believes these nodes, too, when they speak for others.
    pub fn add_authorities(&mut self, authorities: impl IntoIterator<Item = EthernetAddress>) {
        for authority in authorities {
            if !self.config.authorities.contains(&authority)
                && self.config.authorities.len() < MAX_AUTHORITIES
            {
                self.config.authorities.push(authority);
            }
        }
    }

    /// A further set of this node, not in use yet: see [`Neighbors::claim_own`].
    pub fn add_own(&mut self, set: OwnSet) -> OwnId {
        self.own.add(set)
    }

    /// Gives a set back, with a RELEASE where it is in use, and forgets it.
    pub fn remove_own(&mut self, id: OwnId) {
        self.release_own(id);
        self.own.remove(id);
    }

    /// Where an own set stands; one that is not there is unclaimed.
    pub fn own_phase(&self, id: OwnId) -> ClaimPhase {
        self.own.phase(id)
    }

    /// An own address that is in use as a whole, if there is one.
    pub fn whole_address(&self) -> Option<Ipv4Addr> {
        self.own.whole().next()
    }

    /// Whether an own set that is in use holds this.
    pub fn owns(&self, ip: Ipv4Addr, protocol: u8, port: Option<u16>) -> bool {
        self.own.owns(ip, protocol, port)
    }

    /// Whether an own set of the address is in use.
    pub fn is_own(&self, ip: Ipv4Addr) -> bool {
        self.own.holds(ip)
    }

    /// Starts to use an own set: probe, then announce. [`Event::Ready`] follows, or [`Event::OwnConflict`].
    pub fn claim_own(&mut self, id: OwnId, now: Instant) {
        if let Some(claim) = self.own.claim_mut(id) {
            claim.start(&mut self.rng, now);
        }
        self.drive(now);
    }

    /// Uses an own set without a probe: an address that only this node can have.
    pub fn hold_own(&mut self, id: OwnId) {
        if let Some(claim) = self.own.claim_mut(id) {
            claim.hold();
        }
    }

    /// Gives an own set back with a RELEASE.
    pub fn release_own(&mut self, id: OwnId) {
        let Some(claim) = self.own.claim_mut(id) else { return };
        if claim.release() {
            self.tell_release(id);
        }
    }

    /// The lease of an own set lasts until `until` from now on.
    pub fn renew_own(&mut self, id: OwnId, until: Instant, now: Instant) {
        if let Some(claim) = self.own.claim_mut(id) {
            claim.renew(until, &mut self.rng, now);
        }
        self.drive(now);
    }

    /// As [`Neighbors::renew_own`], and the set has other records, too. What is new among them is not probed.
    pub fn change_own(&mut self, id: OwnId, records: Vec<Record>, until: Instant, now: Instant) {
        if let Some(claim) = self.own.claim_mut(id) {
            claim.change(records, until, &mut self.rng, now);
        }
        self.drive(now);
    }

    /// PE-ARP rule 25.
    pub(super) fn tell_release(&mut self, id: OwnId) {
        if let Some(message) = self.own.claim(id).map(|claim| self.own.release(&claim.set)) {
            self.broadcast(message);
        }
    }

    /// Asks every owner of a shared address to answer, to fill the table after a start (routers only).
    pub fn solicit_all(&mut self, ip: Ipv4Addr, now: Instant) {
        // PE-ARP rule 47. The answers to the last one are still on their way.
        if self.solicited.get(&ip).is_some_and(|at| now < *at + SOLICIT_INTERVAL) {
            return;
        }
        self.solicited.insert(ip, now);
        if let Some(asker) = self.own.asker(ip) {
            self.broadcast(Message::solicit_all(self.config.hardware, asker, ip));
        }
    }

    /// Adds a binding that the configuration gives. It is never questioned, and what is on the link cannot take its
    /// ports.
    ///
    /// # Errors
    /// [`Refused::OffLink`] for an address outside the prefix.
    pub fn insert_static(
        &mut self,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        records: &[Record],
        now: Instant,
    ) -> Result<(), Refused> {
        self.insert_given(Source::Static, ip, hardware, records, now)
    }

    /// Adds the leases of a host on an address, or replaces those that it had; without records it has none any more.
    /// A host with a configured binding of the address keeps that.
    /// Each record stands for its lifetime, is never questioned, and what is on the link cannot take its ports.
    ///
    /// # Errors
    /// [`Refused::OffLink`] for an address outside the prefix.
    pub fn grant(
        &mut self,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        records: &[Record],
        now: Instant,
    ) -> Result<(), Refused> {
        let earlier = self.table.find(ip, hardware);
        let source = earlier.and_then(|id| self.table.binding(id)).map(|binding| binding.source);
        if source == Some(Source::Static) {
            // PE-ARP rule 31: what is configured precedes.
            return Ok(());
        }
        if records.iter().any(|record| !record.is_withdrawn()) {
            return self.insert_given(Source::Lease, ip, hardware, records, now);
        }
        if let Some(id) = earlier.filter(|_| source == Some(Source::Lease)) {
            self.uninstall(id);
        }
        Ok(())
    }

    fn insert_given(
        &mut self,
        source: Source,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        records: &[Record],
        now: Instant,
    ) -> Result<(), Refused> {
        if !self.config.prefix.contains_addr(&ip) {
            return Err(Refused::OffLink);
        }
        let held = |record: &Record| match source {
            // What is configured stays.
            Source::Static => Held { record: *record, until: None },
            _ => Held::new(*record, now),
        };
        let binding = Binding {
            ip,
            hardware,
            records: records.iter().filter(|record| !record.is_withdrawn()).map(held).collect(),
            source,
            seniority: self.next_seniority(),
            state: State::Permanent,
            heard: now,
            challenged: None,
            disputed: None,
        };
        self.install(binding, now)
    }

    /// Whether an address is known to have several owners.
    pub fn is_shared(&self, ip: Ipv4Addr) -> bool {
        self.own.shares(ip) || self.table.scheme(ip).is_some() || self.learned_shared.contains_key(&ip)
    }

    /// The owner's link-layer address, if known: the fast path. The use of a stale binding starts its
    /// confirmation.
    pub fn next_hop(&mut self, target: Target, now: Instant) -> Option<EthernetAddress> {
        self.next_hop_by(target, now).map(|(hardware, _)| hardware)
    }

    /// As [`Neighbors::next_hop`], with the number of the binding that says so: another one may get it later.
    pub fn next_hop_by(&mut self, target: Target, now: Instant) -> Option<(EthernetAddress, u32)> {
        let id = self.binding_of(target)?;
        let hop = *self.table.hop(id);
        if hop.state().at(now) == State::Stale {
            self.set_state(id, State::Delay { until: now + DELAY_FIRST_PROBE_TIME });
        }
        Some((hop.hardware, id))
    }

    /// Who owns what the target names, and the number of the binding that says so. To ask does not count as a use of it.
    pub fn owner_of(&self, target: Target) -> Option<(EthernetAddress, u32)> {
        let id = self.binding_of(target)?;
        Some((self.table.hop(id).hardware, id))
    }

    /// Whether a host is known to own anything of an address.
    pub fn is_bound(&self, ip: Ipv4Addr, hardware: EthernetAddress) -> bool {
        self.table.find(ip, hardware).is_some()
    }

    /// Another host behaves as if a binding were its own: one that is not confirmed is asked soon, as after a use.
    pub fn doubt(&mut self, binding: u32, now: Instant) {
        if self.table.binding(binding).is_some_and(|binding| binding.state.at(now) == State::Stale) {
            self.set_state(binding, State::Delay { until: now + DELAY_FIRST_PROBE_TIME });
        }
    }

    /// The number of the binding that stands for the target. To ask does not count as a use of it.
    pub fn binding_of(&self, target: Target) -> Option<u32> {
        self.table.lookup(target.ip, target.protocol, target.port)
    }

    /// Keeps a packet until its owner is found, and asks for the owner. The frame is an IP packet, without
    /// link-layer header.
    ///
    /// # Errors
    /// The packet is dropped: see [`Refused`].
    pub fn enqueue(
        &mut self,
        target: Target,
        frame: Frame,
        originated: bool,
        now: Instant,
    ) -> Result<(), Refused> {
        // PE-ARP rule 66: protocol 0 can be nobody's by name.
        let target = match target {
            Target { ip, protocol, port: None } => {
                let (protocol, port) = portless_point(protocol);
                Target { ip, protocol, port }
            }
            target => target,
        };
        // PE-ARP §5: what no PSID covers has no owner, unless a binding of its own says so – and then the lookup
        // had found it.
        if let (Some(scheme), Some(port)) = (self.table.scheme(target.ip), target.port)
            && !scheme.covers(port)
        {
            return Err(Refused::Unassigned);
        }
        // PE-ARP rule 121: no answer would be believed.
        if self.config.authority && self.table.scheme(target.ip).is_some() {
            return Err(Refused::NoOwner);
        }
        let waiting = Waiting { frame, protocol: target.protocol, port: target.port, originated };
        let scheme = self.question_scheme(target.ip);
        let result = self.questions.wait(target.ip, scheme, waiting, now);
        for displaced in self.questions.take_displaced() {
            self.give_up(displaced, Refused::PendingFull);
        }
        self.drive(now);
        result
    }

    /// The scheme by which misses are grouped (PE-ARP rule 36): all sharers of an address use one, so that the own
    /// one serves for the own address, and that of any sharer for another one.
    pub(super) fn question_scheme(&self, ip: Ipv4Addr) -> Option<Scheme> {
        let of_record = |record: &Record| match record.claim {
            // A single port is an extra one, outside the scheme.
            Claim::Psid(psid) if (1..16).contains(&psid.scheme().length()) => Some(psid.scheme()),
            _ => None,
        };
        let own = || {
            let mut records = self.own.sets().filter(|set| set.ip == ip).flat_map(|set| &set.records);
            records.find_map(of_record)
        };
        let sharer = || {
            let bindings = self.table.of_address(ip).take(MAX_SCHEME_WITNESSES);
            bindings.flat_map(|(_, binding)| binding.records).find_map(|held| of_record(&held.record))
        };
        self.table.scheme(ip).or_else(own).or_else(sharer)
    }

    /// When [`Neighbors::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = self.timers.first().map(|(at, _)| *at);
        [timers, self.questions.deadline(), self.own.deadline()].into_iter().flatten().min()
    }

    /// Does what is due. The next deadline is later than `now` afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.solicited.retain(|_, at| now <= *at + SOLICIT_WINDOW);
        if now >= self.swept + SHARED_SWEEP_TIME {
            self.swept = now;
            // PE-ARP rule 26: the next user of the address may be a legacy host.
            let table = &self.table;
            self.learned_shared
                .retain(|ip, at| now < *at + SHARED_TIME || table.of_address(*ip).next().is_some());
        }
        self.drive(now);
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The table, one line per claim, with open and failed questions.
    pub fn entries(&self, now: Instant) -> Vec<Entry> {
        let known = self.table.iter().flat_map(|(_, binding)| {
            binding.records.iter().map(move |held| Entry {
                ip: binding.ip,
                claim: held.record.claim,
                protocol: held.record.scope,
                hardware: Some(binding.hardware),
                state: binding.state.at(now).name(),
                source: binding.source.name(),
                age: (!binding.source.is_given()).then(|| now - binding.heard),
            })
        });
        let asked = self.questions.iter().map(|(ip, block, failed)| Entry {
            ip,
            claim: block.claim(),
            protocol: 0,
            hardware: None,
            state: if failed { "failed" } else { "incomplete" },
            source: Source::Learned.name(),
            age: None,
        });
        let mut entries: Vec<_> = known.chain(asked).collect();
        let first = |entry: &Entry| match entry.claim {
            Claim::Range(range) => range.first(),
            Claim::Psid(psid) => psid.first(),
            Claim::Full | Claim::Portless(_) => 0,
        };
        entries.sort_by_key(|entry| (entry.ip, first(entry), entry.hardware.map(|hardware| hardware.0)));
        entries
    }

    pub(super) fn broadcast(&mut self, message: Message) {
        self.outputs.push_back(Output::Pe { destination: EthernetAddress::BROADCAST, message });
    }

    pub(super) fn unicast(&mut self, destination: EthernetAddress, message: Message) {
        self.outputs.push_back(Output::Pe { destination, message });
    }

    pub(super) fn next_seniority(&mut self) -> i64 {
        self.top_seniority += 1;
        self.top_seniority
    }

    pub(super) fn reachable(&mut self, now: Instant) -> State {
        // RFC 4861 §6.3.2: uniformly between MIN_RANDOM_FACTOR and MAX_RANDOM_FACTOR times the base.
        let base = REACHABLE_TIME.total_micros();
        let time = self.rng.random_range(base / 2..=base + base / 2);
        State::Reachable { until: now + Duration::from_micros(time) }
    }

    /// Changes the state of a binding and its timer.
    pub(super) fn set_state(&mut self, id: BindingId, state: State) {
        let Some(mut binding) = self.table.binding(id) else { return };
        if let Some(at) = binding.deadline() {
            self.timers.remove(&(at, id));
        }
        binding.state = state;
        if let Some(at) = binding.deadline() {
            self.timers.insert((at, id));
        }
        self.table.set_state(id, state);
    }

    /// Learns a binding, in place of an earlier one of the same address and hardware: ends negatives, and packets that
    /// waited for it leave.
    pub(super) fn install(&mut self, binding: Binding, now: Instant) -> Result<(), Refused> {
        let ip = binding.ip;
        let records: Vec<_> = binding.records.iter().map(|held| held.record).collect();
        self.replace(binding)?;
        self.questions.end_negatives(ip, &records);
        self.release_waiting(ip, now);
        Ok(())
    }

    /// Puts a binding in place of an earlier one of the same address and hardware.
    fn replace(&mut self, binding: Binding) -> Result<(), Refused> {
        let earlier = self.table.find(binding.ip, binding.hardware);
        let timer = earlier.and_then(|id| Some((self.table.binding(id)?.deadline()?, id)));
        let id = self.table.insert(binding).map_err(|_| Refused::TableFull)?;
        if let Some(timer) = timer {
            self.timers.remove(&timer);
        }
        if let Some(at) = self.table.binding(id).and_then(|binding| binding.deadline()) {
            self.timers.insert((at, id));
        }
        Ok(())
    }

    pub(super) fn uninstall(&mut self, id: BindingId) {
        let Some(binding) = self.table.remove(id) else { return };
        if let Some(at) = binding.deadline() {
            self.timers.remove(&(at, id));
        }
    }

    /// Takes records out of a binding, and the binding with the last of them.
    pub(super) fn keep_records(&mut self, id: BindingId, keep: impl FnMut(&Held) -> bool) {
        let Some(binding) = self.table.binding(id) else { return };
        let mut rest = binding.to_owned();
        rest.records.retain(keep);
        if rest.records.len() == binding.records.len() {
            return;
        }
        // PE-ARP rule 34: nobody answers for what it gave up, so that the question would end the rest.
        if binding.asked().is_some_and(|asked| !rest.holds(asked)) {
            rest.state = State::Stale;
            (rest.disputed, rest.challenged) = (None, None);
        }
        if rest.records.is_empty() || self.replace(rest).is_err() {
            self.uninstall(id);
        }
    }

    fn release_waiting(&mut self, ip: Ipv4Addr, now: Instant) {
        let table = &self.table;
        let released =
            self.questions.answered(ip, now, |protocol, port| table.lookup(ip, protocol, port).is_some());
        for waiting in released {
            let target = Target { ip, protocol: waiting.protocol, port: waiting.port };
            match self.next_hop(target, now) {
                Some(hardware) => self.events.push_back(Event::Resolved {
                    frame: waiting.frame,
                    hardware,
                    originated: waiting.originated,
                }),
                None => self.give_up(waiting, Refused::Unreachable),
            }
        }
    }

    pub(super) fn give_up(&mut self, waiting: Waiting, reason: Refused) {
        let Waiting { frame, originated, .. } = waiting;
        self.events.push_back(Event::Undeliverable { frame, originated, reason });
    }

    /// Does everything that is due at `now`.
    pub(super) fn drive(&mut self, now: Instant) {
        while let Some(due) = self.own.due(&mut self.rng, now) {
            match due {
                OwnDue::Step(own, Step::Ready) => self.events.push_back(Event::Ready { own }),
                OwnDue::Step(own, Step::Expired) => self.events.push_back(Event::Expired { own }),
                OwnDue::Step(own, Step::Probe) => self.probe_own(own),
                OwnDue::Step(own, Step::Announce) => {
                    self.announce_plain(own);
                    self.announce_own(own, now);
                }
                OwnDue::Answer(to, message) => self.unicast(to, message),
            }
        }
        while let Some((at, id)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            self.binding_due(id, now);
        }
        while let Some(due) = self.questions.due(now) {
            match due {
                Due::Ask { ip, protocol, port, plain } => self.ask(ip, (protocol, port), plain, now),
                Due::Failed(waiting) => {
                    for one in waiting {
                        self.give_up(one, Refused::Unreachable);
                    }
                }
            }
        }
    }

    fn binding_due(&mut self, id: BindingId, now: Instant) {
        let Some(binding) = self.table.binding(id) else { return };
        let ended = |held: &Held| held.until.is_some_and(|end| end <= now);
        if binding.records.iter().any(ended) {
            self.keep_records(id, |held| !ended(held));
            return;
        }
        match binding.state {
            State::Delay { .. } => self.confirm(id, 0, now),
            State::Probe { sent, .. } if sent < MAX_UNICAST_SOLICIT => self.confirm(id, sent, now),
            State::Probe { .. } => self.uninstall(id),
            // RFC 1122 §2.3.2.1: what is no longer used is flushed.
            _ if binding.idle_end().is_some_and(|end| end <= now) => self.uninstall(id),
            state => self.set_state(id, state),
        }
    }

    /// Asks an owner by unicast whether it still is (RFC 4861 §7.3.3).
    pub(super) fn confirm(&mut self, id: BindingId, sent: u8, now: Instant) {
        self.set_state(id, State::Probe { sent: sent + 1, next: now + RETRANS_TIMER });
        let Some(binding) = self.table.binding(id) else { return };
        let (ip, hardware) = (binding.ip, binding.hardware);
        if binding.source == Source::Arp {
            self.ask_plain(hardware, ip);
        } else {
            let (protocol, port) = binding.sample();
            if let Some(message) = self.question(ip, protocol, port, now) {
                self.unicast(hardware, message);
            }
        }
    }

    /// PE-ARP rules 3 and 4: RESOLVE, and in the same tick plain ARP where the address may be a legacy host's.
    fn ask(&mut self, ip: Ipv4Addr, (protocol, port): Point, plain: bool, now: Instant) {
        if self.config.pe
            && let Some(message) = self.question(ip, protocol, port, now)
        {
            self.broadcast(message);
        }
        if plain && !self.is_shared(ip) {
            self.ask_plain(EthernetAddress::BROADCAST, ip);
        }
    }

    /// Nothing where the node has no set any more: without a sender it would be a probe, and no answer is needed.
    fn question(&self, ip: Ipv4Addr, protocol: u8, port: Option<u16>, now: Instant) -> Option<Message> {
        let target = PeAddress { shared: self.is_shared(ip), ..PeAddress::new(ip) }.with_port(protocol, port);
        // A set that is not in use yet must not be learned from the question.
        let asker = self.own.asker(ip)?;
        Some(Message::resolve(self.config.hardware, asker, target, &self.own.records(asker.ip, now)))
    }

    fn ask_plain(&mut self, destination: EthernetAddress, ip: Ipv4Addr) {
        // PE-ARP rule 3: a shared address is never the sender of a plain ARP message; RFC 5227 §1.1: nor is one
        // that is not in use yet.
        let sender = self.own.whole().next().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let message = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: self.config.hardware,
            source_protocol_addr: sender,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: ip,
        };
        self.outputs.push_back(Output::Arp { destination, message });
    }

    fn probe_own(&mut self, id: OwnId) {
        let Some(set) = self.own.claim(id).map(|claim| &claim.set) else { return };
        let (message, ip, shared) = (self.own.probe(set), set.ip, set.shared);
        // RFC 5227 §2.1.1: a legacy host may have the whole address, or want to.
        if !shared {
            self.claim_plain(Ipv4Addr::UNSPECIFIED, ip);
        }
        self.broadcast(message);
    }

    pub(super) fn announce_own(&mut self, id: OwnId, now: Instant) {
        if let Some(message) = self.own.claim(id).map(|claim| self.own.announcement(&claim.set, now)) {
            self.broadcast(message);
        }
    }

    /// Tells legacy hosts whose an own whole address is (RFC 5227 §2.3); never of a shared one (PE-ARP rule 3).
    pub(super) fn announce_plain(&mut self, id: OwnId) {
        let whole = self.own.claim(id).map(|claim| &claim.set).filter(|set| !set.shared);
        if let Some(ip) = whole.map(|set| set.ip) {
            self.claim_plain(ip, ip);
        }
    }

    fn claim_plain(&mut self, source_protocol_addr: Ipv4Addr, target_protocol_addr: Ipv4Addr) {
        let message = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: self.config.hardware,
            source_protocol_addr,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr,
        };
        self.outputs.push_back(Output::Arp { destination: EthernetAddress::BROADCAST, message });
    }
}
