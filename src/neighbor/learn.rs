//! What is learned of an owner from what was heard of it, and which of several claims to a port stands.

use core::net::Ipv4Addr;

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::api::{Event, Refused};
use super::binding::{Binding, BindingRef, Held, Point, Source, State, names};
use super::engine::Neighbors;
use super::own::OwnId;
use super::{MAX_EVICTIONS, MAX_LEARNED_SHARED};
use crate::wire::icmp::is_host;
use crate::wire::pe_arp::{Lifetime, MAX_RECORDS, Record};

/// What was heard of an owner.
pub(super) struct Heard<'a> {
    pub(super) ip: Ipv4Addr,
    pub(super) hardware: EthernetAddress,
    pub(super) records: &'a [Record],
    /// The records replace what was known (PE-ARP rule 2).
    pub(super) complete: bool,
    /// The address has several owners.
    pub(super) shared: bool,
    pub(super) source: Source,
    /// The owner answered a question, so that it hears us, too.
    pub(super) confirmed: bool,
}

/// How an owner stands after what was heard of it.
struct Standing {
    confirmed: bool,
    /// The state that it keeps, unless it was confirmed.
    keeps: Option<State>,
    disputed: Option<Point>,
    challenged: Option<Instant>,
    /// What it did not claim before.
    gained: Vec<Held>,
}

impl Standing {
    /// `records`: what it holds from now on.
    fn new(earlier: Option<BindingRef<'_>>, heard: &Heard<'_>, records: &[Held], now: Instant) -> Self {
        let Some(earlier) = earlier else {
            let confirmed = heard.confirmed;
            return Self { confirmed, keeps: None, disputed: None, challenged: None, gained: Vec::new() };
        };
        // PE-ARP rule 20: what plain ARP taught is learned like the rest.
        let same = earlier.source.rank() == heard.source.rank() && earlier.holds_same(records);
        // PE-ARP rule 34: an answer to another question confirms nothing about the port that is being asked for, as
        // long as that is still claimed.
        let still =
            |(protocol, port): &Point| records.iter().any(|held| held.record.contains(*protocol, *port));
        let asked = earlier.asked().filter(still);
        let confirmed = heard.confirmed && asked.is_none_or(|point| claims(heard.records, point));
        // PE-ARP rule 53: a dispute ends with an answer, or with the claim to the disputed port; with no other news.
        let disputed = earlier.disputed.filter(still).filter(|_| !confirmed);
        let challenged = match earlier.disputed {
            Some(_) if confirmed => Some(now),
            Some(_) if disputed.is_none() => None,
            _ => earlier.challenged,
        };
        // RFC 4861 §7.2.5: an unsolicited message that says nothing new leaves the state alone.
        let keeps = (same || disputed.is_some() || heard.confirmed).then(|| earlier.state.at(now));
        let new = |held: &&Held| !same && !earlier.claims(held);
        let gained = records.iter().filter(new).copied().collect();
        Self { confirmed, keeps, disputed, challenged, gained }
    }
}

impl Neighbors {
    /// Learns what an owner said of itself.
    pub(super) fn learn(&mut self, heard: &Heard<'_>, now: Instant) -> Result<(), Refused> {
        if !self.config.prefix.contains_addr(&heard.ip) || !is_host(heard.ip) {
            return Err(Refused::OffLink);
        }
        let disputed = self.own.disputed(heard.ip, heard.records);
        if disputed.is_empty() {
            return self.learn_owner(heard, now);
        }
        let refused = self.on_own_claimed(heard.hardware, &disputed, false, now);
        // PE-ARP rule 5: what the own sets have nothing of is as good as any claim.
        let rest = |record: &&Record| !self.own.covers(heard.ip, record);
        let records: Vec<_> = heard.records.iter().filter(rest).copied().collect();
        if !records.is_empty() {
            // That part of it was refused is what is counted.
            let _ = self.learn_owner(&Heard { records: &records, ..*heard }, now);
        }
        refused
    }

    fn learn_owner(&mut self, heard: &Heard<'_>, now: Instant) -> Result<(), Refused> {
        let earlier = self.table.find(heard.ip, heard.hardware);
        let earlier_binding = earlier.and_then(|id| self.table.binding(id));
        if let Some(binding) = earlier_binding
            && binding.source > heard.source
        {
            // PE-ARP rule 109: who has a lease claims that, and no more.
            let leased = |record: &Record| binding.records.iter().any(|held| names(&held.record, record));
            let beyond = |record: &Record| !record.is_withdrawn() && !leased(record);
            if self.is_told_of(heard.ip) && heard.records.iter().any(beyond) {
                return Err(Refused::NotLeased);
            }
            // A plain answer of a host that speaks PE-ARP tells nothing new.
            self.note_shared(heard, now);
            return Ok(());
        }
        if self.is_told_of(heard.ip) {
            return Err(Refused::NotLeased);
        }
        let records = merge(earlier_binding, heard, now);
        if records.is_empty() {
            if let Some(id) = earlier {
                self.uninstall(id);
            }
            self.note_shared(heard, now);
            return Ok(());
        }
        // Before anything else: a claim that is not taken changes nothing, and a flood of them must cost little.
        if records.iter().filter(|held| !held.record.is_residual()).count() > MAX_RECORDS
            || !self.may_note_shared(heard)
            || !(self.table.has_room(heard.ip, heard.hardware, &records)
                || (heard.confirmed && self.make_room(heard, &records, now)))
        {
            return Err(Refused::TableFull);
        }
        self.note_shared(heard, now);
        // What plain ARP taught of the host itself may just have gone.
        let earlier_binding = self.table.find(heard.ip, heard.hardware).and_then(|id| self.table.binding(id));
        let seniority = earlier_binding.map(|binding| binding.seniority);
        let Standing { confirmed, keeps, disputed, challenged, gained } =
            Standing::new(earlier_binding, heard, &records, now);
        let state = match keeps {
            _ if confirmed => self.reachable(now),
            Some(state) => state,
            None => State::Stale,
        };
        let seniority = self.seniority_among(heard, (&records, &gained), seniority, now);
        let binding = Binding {
            ip: heard.ip,
            hardware: heard.hardware,
            records,
            source: heard.source,
            seniority,
            state,
            heard: now,
            challenged,
            disputed,
        };
        self.install(binding, now)
    }

    /// PE-ARP rule 121: whether it is told who owns what of an address, and not by the link.
    pub(super) fn is_told_of(&self, ip: Ipv4Addr) -> bool {
        self.config.authority && self.table.scheme(ip).is_some()
    }

    /// PE-ARP rule 29: who answered a question takes the place of those who did not for longest.
    fn make_room(&mut self, heard: &Heard<'_>, records: &[Held], now: Instant) -> bool {
        for _ in 0..MAX_EVICTIONS {
            let Some(id) = self.table.least_wanted(heard.ip, heard.hardware, now) else { return false };
            self.uninstall(id);
            if self.table.has_room(heard.ip, heard.hardware, records) {
                return true;
            }
        }
        false
    }

    /// Which place a claim takes among the others to the same ports (PE-ARP rule 53): behind an incumbent that is
    /// REACHABLE, which is asked whether it is still there; before one that is not. To what it gained, the owner of
    /// an earlier claim is a newcomer, too.
    fn seniority_among(
        &mut self,
        heard: &Heard<'_>,
        (records, gained): (&[Held], &[Held]),
        earlier: Option<i64>,
        now: Instant,
    ) -> i64 {
        let rank = heard.source.rank();
        let claim = (rank, earlier.unwrap_or(i64::MIN));
        // PE-ARP rule 51: an authority speaks for owners, not against them.
        if heard.source != Source::Proxy {
            self.report_conflicts(heard, (records, gained), claim, now);
        }
        // The lowest place of those that the claim comes behind.
        let mut behind = None;
        for id in self.table.standing(heard.ip, now) {
            let Some(incumbent) = self.table.binding(id) else { continue };
            if incumbent.hardware == heard.hardware || incumbent.source.rank() != rank {
                continue;
            }
            // To what it gained, the owner of an earlier claim is a newcomer, too.
            let contested = if incumbent.precedence() > claim { records } else { gained };
            let Some(point) = incumbent.meets(contested) else { continue };
            behind = Some(behind.map_or(incumbent.seniority, |lowest: i64| lowest.min(incumbent.seniority)));
            if matches!(incumbent.state.at(now), State::Reachable { .. }) && !incumbent.rests(now) {
                self.table.dispute(id, point, now);
                self.confirm(id, 0, now);
            }
        }
        match behind {
            Some(lowest) => earlier.map_or(lowest - 1, |own| own.min(lowest - 1)),
            None => self.next_seniority(),
        }
    }

    /// Tells of the others who claim the same ports, as often as PE-ARP rule 52 lets it: this looks at all bindings of
    /// the address.
    fn report_conflicts(
        &mut self,
        heard: &Heard<'_>,
        (records, gained): (&[Held], &[Held]),
        claim: (u8, i64),
        now: Instant,
    ) {
        if !self.reports.take(now) {
            return;
        }
        for (_, other) in self.table.of_address(heard.ip) {
            let contested = if other.precedence() > claim { records } else { gained };
            let another = other.hardware != heard.hardware && other.source.rank() >= claim.0;
            if another && other.meets(contested).is_some() {
                let (ip, incumbent, newcomer) = (heard.ip, other.hardware, heard.hardware);
                self.events.push_back(Event::Conflict { ip, incumbent, newcomer });
                if !self.reports.take(now) {
                    break;
                }
            }
        }
    }

    /// Whether there is room to remember that the address is shared.
    fn may_note_shared(&self, heard: &Heard<'_>) -> bool {
        !heard.shared
            || self.learned_shared.contains_key(&heard.ip)
            || self.learned_shared.len() < MAX_LEARNED_SHARED
    }

    /// PE-ARP rule 26: what an accepted message says of its sender's address.
    fn note_shared(&mut self, heard: &Heard<'_>, now: Instant) {
        if let Some(last) = self.learned_shared.get_mut(&heard.ip) {
            *last = now;
        } else if heard.shared && self.may_note_shared(heard) {
            self.learned_shared.insert(heard.ip, now);
            self.drop_plain_bindings(heard.ip);
        }
    }

    /// PE-ARP rule 55, for each own set that is claimed, with a port of it. `plain`: the claim was plain ARP.
    pub(super) fn on_own_claimed(
        &mut self,
        hardware: EthernetAddress,
        claimed: &[(OwnId, u16)],
        plain: bool,
        now: Instant,
    ) -> Result<(), Refused> {
        // What is said of an address names all sets of it.
        let mut announced = Vec::new();
        for (own, port) in claimed.iter().copied() {
            let Some(claim) = self.own.claim_mut(own) else { continue };
            let ip = claim.set.ip;
            if !claim.phase.holds() || claim.must_yield(now) {
                self.lose_own(own, hardware, port, now);
            } else if claim.defend(now) {
                if self.config.pe && !announced.contains(&ip) {
                    announced.push(ip);
                    self.announce_own(own, now);
                }
                if plain {
                    // Who speaks plain ARP only would not hear it.
                    self.announce_plain(own);
                }
                self.events.push_back(Event::OwnConflict { own, hardware, port, lost: false });
            }
        }
        Err(Refused::Conflict)
    }

    fn drop_plain_bindings(&mut self, ip: Ipv4Addr) {
        let plain: Vec<_> = self
            .table
            .of_address(ip)
            .filter(|(_, binding)| binding.source == Source::Arp)
            .map(|(id, _)| id)
            .collect();
        for id in plain {
            self.uninstall(id);
        }
    }
}

pub(super) fn claims(records: &[Record], (protocol, port): Point) -> bool {
    records.iter().any(|record| record.contains(protocol, port))
}

/// PE-ARP rule 2: COMPLETE replaces, else records add up; a lifetime of 0 takes a record away.
fn merge(earlier: Option<BindingRef<'_>>, heard: &Heard<'_>, now: Instant) -> Vec<Held> {
    let adds_to = |binding: &BindingRef<'_>| !heard.complete && binding.source == heard.source;
    let kept = earlier.filter(adds_to).map_or(&[][..], |binding| binding.records);
    let replaced = |old: &Record| {
        heard.records.iter().any(|new| match new.lifetime {
            Lifetime::Withdrawn => names(new, old),
            Lifetime::Seconds(_) | Lifetime::Unknown => (new.claim, new.scope) == (old.claim, old.scope),
        })
    };
    let mut records: Vec<Held> = kept.iter().filter(|held| !replaced(&held.record)).copied().collect();
    let stand = heard.records.iter().filter(|record| !record.is_withdrawn());
    records.extend(stand.map(|record| Held::new(*record, now)));
    records
}
