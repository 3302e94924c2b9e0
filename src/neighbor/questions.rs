//! Misses: what is being asked, which packets wait, and what is known to have no owner.
//!
//! A question is about a *block* of ports, not about a port, so that a scan of 65,536 ports asks at most one
//! question per PSID (PE-ARP rules 36 and 38). Where there are too many questions, failed ones make room, the oldest
//! first: they are what a scan leaves behind.
//!
//! ```text
//!            answer: gone                        packet
//!   ASKING ────────────────>      FORGETTING ───────────────> ASKING, the next failure lasts twice as long
//!     │ 3 × 1 s without answer       ^    │ 60 s
//!     └────────> FAILED ─────────────┘    └──> gone
//!                  3 s, doubling to 60 s
//! ```

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smoltcp::time::{Duration, Instant};

use super::api::Target;
use super::binding::ends;
use super::look::Look;
use super::{
    ADDRESS_QUESTIONS_BURST, ADDRESS_QUESTIONS_PER_SECOND, FAILED_TIME, FAILED_TIME_MAX,
    LINK_QUESTIONS_PER_SECOND, MAX_GAPS, MAX_MULTICAST_SOLICIT, MAX_PENDING_BYTES_PER_ADDRESS,
    MAX_PENDING_PER_QUESTION, MAX_QUESTIONS, QUESTION_BLOCK, RETRANS_TIMER, Refused, TokenBucket,
};
use crate::ports::{PortRange, Psid, Scheme};
use crate::wire::Frame;
use crate::wire::pe_arp::{Claim, Lifetime, Record};

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Block {
    /// The ports of one PSID.
    Psid(Psid),
    /// Aligned ports: the quotient by [`QUESTION_BLOCK`].
    Ports(u16),
    /// A protocol without ports.
    Portless(u8),
}

impl Block {
    pub(super) fn of(scheme: Option<Scheme>, protocol: u8, port: Option<u16>) -> Self {
        match (port, scheme) {
            (None, _) => Self::Portless(protocol),
            (Some(port), Some(scheme)) if scheme.covers(port) => {
                let psid = Psid::new(scheme, scheme.psid_of(port));
                psid.map_or(Self::Ports(port / QUESTION_BLOCK), Self::Psid)
            }
            (Some(port), _) => Self::Ports(port / QUESTION_BLOCK),
        }
    }

    /// What the block covers, as a claim.
    pub(super) fn claim(self) -> Claim {
        match self {
            Self::Psid(psid) => Claim::Psid(psid),
            Self::Ports(block) => {
                let first = block * QUESTION_BLOCK;
                PortRange::new(first, first + (QUESTION_BLOCK - 1)).map_or(Claim::Full, Claim::Range)
            }
            Self::Portless(protocol) => Claim::Portless(protocol),
        }
    }
}

/// A packet that waits, with what it waits for.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) frame: Frame,
    pub(super) protocol: u8,
    pub(super) port: Option<u16>,
    pub(super) originated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Asking { sent: u8 },
    Forgetting,
    Failed,
}

#[derive(Debug)]
struct Question {
    protocol: u8,
    port: Option<u16>,
    phase: Phase,
    deadline: Instant,
    /// Has its place in [`AddressQuestions::queue`] in place of a timer.
    queued: bool,
    failed_time: Duration,
    waiting: VecDeque<Waiting>,
}

impl Question {
    /// Turns to another point for which a packet waits, if there is one: where the block has several owners, one of
    /// them that is away does not hide the others (PE-ARP rule 38).
    fn turn(&mut self) {
        let here = (self.protocol, self.port);
        let points = || self.waiting.iter().map(|one| (one.protocol, one.port));
        let later = points().skip_while(|point| *point != here).find(|point| *point != here);
        if let Some(next) = later.or_else(|| points().next()) {
            (self.protocol, self.port) = next;
        }
    }
}

#[derive(Debug)]
struct AddressQuestions {
    bucket: TokenBucket,
    waiting_bytes: usize,
    questions: BTreeMap<Block, Question>,
    /// Blocks to be asked about when the limits allow; those no longer `queued` are passed over.
    queue: VecDeque<Block>,
    /// What an authority said to have no owner, and until when.
    gaps: Vec<(Record, Instant)>,
    /// When plain ARP may go with a question again: it asks for the whole address, whatever the block.
    plain_at: Instant,
}

impl AddressQuestions {
    /// Whether nothing would be lost with it: no question, no gap, and all tokens there.
    fn is_idle(&mut self, now: Instant) -> bool {
        self.questions.is_empty()
            && self.gaps.iter().all(|(_, until)| *until <= now)
            && self.bucket.is_full(now)
    }
}

/// What is to be done about a question that is due.
#[derive(Debug)]
pub(super) enum Due {
    /// Ask on the link.
    Ask {
        ip: Ipv4Addr,
        protocol: u8,
        port: Option<u16>,
        /// Plain ARP may go with it.
        plain: bool,
    },
    /// Nobody answered.
    Failed(Vec<Waiting>),
}

/// The questions of one link.
#[derive(Debug)]
pub(super) struct Questions {
    addresses: BTreeMap<Ipv4Addr, AddressQuestions>,
    timers: BTreeSet<(Instant, Ipv4Addr, Block)>,
    /// Those that no packet waits for: forgotten ones before failed ones, then by deadline.
    negatives: BTreeSet<(Phase, Instant, Ipv4Addr, Block)>,
    link: TokenBucket,
    /// Addresses with a queue. They take turns, so that a scan of one does not hold up the others.
    turns: VecDeque<Ipv4Addr>,
    /// When the next turn can be taken.
    turn_at: Option<Instant>,
    count: usize,
    /// Packets that made room for newer ones.
    displaced: Vec<Waiting>,
}

impl Questions {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            addresses: BTreeMap::new(),
            timers: BTreeSet::new(),
            negatives: BTreeSet::new(),
            link: TokenBucket::new(LINK_QUESTIONS_PER_SECOND, LINK_QUESTIONS_PER_SECOND, now),
            turns: VecDeque::new(),
            turn_at: None,
            count: 0,
            displaced: Vec::new(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.timers.first().map(|(at, ..)| *at), self.turn_at].into_iter().flatten().min()
    }

    /// Packets that made room for newer ones since the last call.
    pub(super) fn take_displaced(&mut self) -> Vec<Waiting> {
        core::mem::take(&mut self.displaced)
    }

    /// Whether the question about the block is open: an answer to it is solicited.
    pub(super) fn asks(&self, ip: Ipv4Addr, block: Block) -> bool {
        let question = self.addresses.get(&ip).and_then(|address| address.questions.get(&block));
        question.is_some_and(|question| matches!(question.phase, Phase::Asking { .. }))
    }

    /// Whether any question about the address is open: a plain answer answers all of them.
    pub(super) fn asks_any(&self, ip: Ipv4Addr) -> bool {
        self.addresses.get(&ip).is_some_and(|address| {
            address.questions.values().any(|question| matches!(question.phase, Phase::Asking { .. }))
        })
    }

    /// Address, block, asked port and whether it failed, of every question; for lists.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, Block, bool)> {
        self.addresses.iter().flat_map(|(ip, address)| {
            let listed = address.questions.iter().filter(|(_, question)| question.phase != Phase::Forgetting);
            listed.map(|(block, question)| (*ip, *block, question.phase == Phase::Failed))
        })
    }

    /// What would come of a packet for a target that has no binding.
    pub(super) fn look(&self, target: Target, block: Block, now: Instant) -> Look {
        let Some(address) = self.addresses.get(&target.ip) else { return Look::Unknown };
        let named =
            |(gap, until): &(Record, Instant)| *until > now && gap.contains(target.protocol, target.port);
        if address.gaps.iter().any(named) {
            return Look::Refused(Refused::NoOwner);
        }
        match address.questions.get(&block).map(|question| question.phase) {
            Some(Phase::Asking { .. }) => Look::Asking,
            Some(Phase::Failed) => Look::Refused(Refused::Unreachable),
            Some(Phase::Forgetting) | None => Look::Unknown,
        }
    }

    /// Puts a packet behind the question of its block; a new question becomes due at once.
    pub(super) fn wait(
        &mut self,
        ip: Ipv4Addr,
        scheme: Option<Scheme>,
        packet: Waiting,
        now: Instant,
    ) -> Result<(), Refused> {
        let block = Block::of(scheme, packet.protocol, packet.port);
        let known = self.addresses.get(&ip).is_some_and(|address| address.questions.contains_key(&block));
        if !known && self.count >= MAX_QUESTIONS && !self.make_room() {
            return Err(Refused::QuestionsFull);
        }
        if !self.addresses.contains_key(&ip) && self.addresses.len() >= MAX_QUESTIONS {
            self.addresses.retain(|_, address| !address.is_idle(now));
            if self.addresses.len() >= MAX_QUESTIONS {
                return Err(Refused::QuestionsFull);
            }
        }
        let address = self.addresses.entry(ip).or_insert_with(|| {
            // One question for every PSID at once, then a trickle.
            let burst = scheme.map_or(ADDRESS_QUESTIONS_BURST, |scheme| scheme.sets());
            AddressQuestions {
                bucket: TokenBucket::new(ADDRESS_QUESTIONS_PER_SECOND, burst, now),
                waiting_bytes: 0,
                questions: BTreeMap::new(),
                queue: VecDeque::new(),
                gaps: Vec::new(),
                plain_at: now,
            }
        });
        address.gaps.retain(|(_, until)| *until > now);
        if address.gaps.iter().any(|(gap, _)| gap.contains(packet.protocol, packet.port)) {
            return Err(Refused::NoOwner);
        }
        let (protocol, port) = (packet.protocol, packet.port);
        let question = address.questions.entry(block).or_insert_with(|| {
            self.count += 1;
            self.timers.insert((now, ip, block));
            Question {
                protocol,
                port,
                phase: Phase::Asking { sent: 0 },
                deadline: now,
                queued: false,
                failed_time: FAILED_TIME,
                waiting: VecDeque::new(),
            }
        });
        match question.phase {
            Phase::Asking { .. } => {}
            Phase::Failed => return Err(Refused::Unreachable),
            Phase::Forgetting => {
                question.phase = Phase::Asking { sent: 0 };
                (question.protocol, question.port) = (protocol, port);
                question.failed_time = FAILED_TIME_MAX.min(question.failed_time * 2);
                self.timers.remove(&(question.deadline, ip, block));
                self.negatives.remove(&(Phase::Forgetting, question.deadline, ip, block));
                question.deadline = now;
                self.timers.insert((now, ip, block));
            }
        }
        let bytes = packet.frame.memory();
        let mut displaced = None;
        if question.waiting.len() >= MAX_PENDING_PER_QUESTION {
            displaced = question.waiting.pop_front();
        }
        let freed = displaced.as_ref().map_or(0, |old| old.frame.memory());
        // One packet may always wait, however large: a super-frame fills the bound alone.
        let held = address.waiting_bytes - freed;
        let full = held > 0 && held + bytes > MAX_PENDING_BYTES_PER_ADDRESS;
        address.waiting_bytes -= freed;
        self.displaced.extend(displaced);
        if full {
            return Err(Refused::PendingFull);
        }
        address.waiting_bytes += bytes;
        question.waiting.push_back(packet);
        Ok(())
    }

    /// Forgets a question that no packet waits for; false where there is none.
    fn make_room(&mut self) -> bool {
        let Some((_, deadline, ip, block)) = self.negatives.pop_first() else { return false };
        self.timers.remove(&(deadline, ip, block));
        if let Some(address) = self.addresses.get_mut(&ip) {
            address.questions.remove(&block);
        }
        self.count -= 1;
        true
    }

    /// The next thing that is due at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        while let Some((_, ip, block)) = self.timers.first().copied().filter(|(at, ..)| *at <= now) {
            self.timers.pop_first();
            let Some(address) = self.addresses.get_mut(&ip) else { continue };
            let Some(question) = address.questions.get_mut(&block) else { continue };
            match question.phase {
                Phase::Asking { sent } if sent < MAX_MULTICAST_SOLICIT => {
                    question.queued = true;
                    address.queue.push_back(block);
                    if address.queue.len() == 1 {
                        self.turns.push_back(ip);
                    }
                    self.turn_at = Some(now);
                }
                Phase::Asking { .. } => {
                    question.phase = Phase::Failed;
                    question.deadline = now + question.failed_time;
                    self.timers.insert((question.deadline, ip, block));
                    self.negatives.insert((Phase::Failed, question.deadline, ip, block));
                    let waiting = core::mem::take(&mut question.waiting);
                    address.waiting_bytes -= bytes_of(&waiting);
                    return Some(Due::Failed(waiting.into()));
                }
                Phase::Failed => {
                    self.negatives.remove(&(Phase::Failed, question.deadline, ip, block));
                    question.phase = Phase::Forgetting;
                    question.deadline = now + FAILED_TIME_MAX;
                    self.timers.insert((question.deadline, ip, block));
                    self.negatives.insert((Phase::Forgetting, question.deadline, ip, block));
                }
                Phase::Forgetting => {
                    self.negatives.remove(&(Phase::Forgetting, question.deadline, ip, block));
                    address.questions.remove(&block);
                    self.count -= 1;
                    if address.is_idle(now) {
                        self.addresses.remove(&ip);
                    }
                }
            }
        }
        if self.turn_at.is_none_or(|at| at > now) {
            return None;
        }
        let due = self.take_turn(now);
        if due.is_none() {
            self.turn_at = self.next_turn(now);
        }
        due
    }

    /// The next question that the limits allow now (PE-ARP rules 47 and 48).
    fn take_turn(&mut self, now: Instant) -> Option<Due> {
        for _ in 0..self.turns.len() {
            if !self.link.ready(now) {
                return None;
            }
            let ip = self.turns.pop_front()?;
            let Some(address) = self.addresses.get_mut(&ip) else { continue };
            while let Some(block) = address.queue.front()
                && !address.questions.get(block).is_some_and(|question| question.queued)
            {
                address.queue.pop_front();
            }
            if address.queue.is_empty() {
                continue;
            }
            if !address.bucket.take(now) {
                self.turns.push_back(ip);
                continue;
            }
            self.link.take(now);
            let block = address.queue.pop_front()?;
            if !address.queue.is_empty() {
                self.turns.push_back(ip);
            }
            let question = address.questions.get_mut(&block)?;
            question.queued = false;
            if let Phase::Asking { sent } = question.phase {
                if sent > 0 {
                    question.turn();
                }
                question.phase = Phase::Asking { sent: sent + 1 };
            }
            question.deadline = now + RETRANS_TIMER;
            self.timers.insert((question.deadline, ip, block));
            // RFC 1122 §2.3.2.1: one a second for each address.
            let plain = now >= address.plain_at;
            if plain {
                address.plain_at = now + RETRANS_TIMER;
            }
            return Some(Due::Ask { ip, protocol: question.protocol, port: question.port, plain });
        }
        None
    }

    fn next_turn(&mut self, now: Instant) -> Option<Instant> {
        let link = self.link.next_at(now);
        // While the link is the bottleneck it does not matter which address is next: a scan of many addresses looks
        // at all of them once per token, not once per packet.
        if link > now {
            return (!self.turns.is_empty()).then_some(link);
        }
        let addresses = &mut self.addresses;
        let ready = self.turns.iter().filter_map(|ip| Some(addresses.get_mut(ip)?.bucket.next_at(now)));
        Some(ready.min()?.max(now + Duration::from_millis(1)))
    }

    /// After the table changed: takes out the packets that now have an owner, and ends answered questions.
    pub(super) fn answered(
        &mut self,
        ip: Ipv4Addr,
        now: Instant,
        owned: impl Fn(u8, Option<u16>) -> bool,
    ) -> Vec<Waiting> {
        let released = self.settle(ip, owned);
        if self.addresses.get_mut(&ip).is_some_and(|address| address.is_idle(now)) {
            self.addresses.remove(&ip);
        }
        released
    }

    /// Takes out the packets about which `settled` is true, and ends the questions that no longer wait for anything.
    fn settle(&mut self, ip: Ipv4Addr, settled: impl Fn(u8, Option<u16>) -> bool) -> Vec<Waiting> {
        let mut taken = Vec::new();
        let Some(address) = self.addresses.get_mut(&ip) else { return taken };
        address.questions.retain(|block, question| {
            let (go, stay): (VecDeque<_>, _) = core::mem::take(&mut question.waiting)
                .into_iter()
                .partition(|one| settled(one.protocol, one.port));
            question.waiting = stay;
            address.waiting_bytes -= bytes_of(&go);
            taken.extend(go);
            if !settled(question.protocol, question.port) {
                return true;
            }
            let Some(next) = question.waiting.front() else {
                self.timers.remove(&(question.deadline, ip, *block));
                self.negatives.remove(&(question.phase, question.deadline, ip, *block));
                self.count -= 1;
                return false;
            };
            // The block has more than one owner: ask for the next one, with the pace of a retransmission.
            (question.protocol, question.port) = (next.protocol, next.port);
            question.phase = Phase::Asking { sent: 0 };
            true
        });
        taken
    }

    /// PE-ARP rule 44: a claim ends the negatives that it intersects.
    pub(super) fn end_negatives(&mut self, ip: Ipv4Addr, records: &[Record]) {
        let Some(address) = self.addresses.get_mut(&ip) else { return };
        let claimed = |negative: &Record| records.iter().any(|record| ends(record, negative));
        address.gaps.retain(|(gap, _)| !claimed(gap));
        address.questions.retain(|block, question| {
            let open = matches!(question.phase, Phase::Asking { .. });
            let ends = !open && claimed(&Record::new(block.claim(), Lifetime::Unknown));
            if ends {
                self.timers.remove(&(question.deadline, ip, *block));
                self.negatives.remove(&(question.phase, question.deadline, ip, *block));
                self.count -= 1;
            }
            !ends
        });
    }

    /// An authority said that nobody owns what `gap` names (PE-ARP rule 43). Gives the packets that waited for it.
    pub(super) fn no_owner(&mut self, ip: Ipv4Addr, gap: Record, until: Instant) -> Vec<Waiting> {
        let Some(address) = self.addresses.get_mut(&ip) else { return Vec::new() };
        if address.gaps.len() >= MAX_GAPS {
            address.gaps.remove(0);
        }
        address.gaps.push((gap, until));
        self.settle(ip, |protocol, port| gap.contains(protocol, port))
    }
}

fn bytes_of(waiting: &VecDeque<Waiting>) -> usize {
    waiting.iter().map(|one| one.frame.memory()).sum()
}
