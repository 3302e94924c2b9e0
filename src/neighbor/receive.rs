//! What messages of others do to the table.

use core::net::Ipv4Addr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress};

use super::api::{Event, Output, Refused};
use super::binding::{BindingRef, Held, Source, names};
use super::engine::Neighbors;
use super::learn::{Heard, claims};
use super::own::OwnId;
use super::questions::Block;
use super::{GAP_TIME, GAP_TIME_MAX, SOLICIT_WINDOW};
use crate::ports::PortRange;
use crate::wire::icmp::is_host;
use crate::wire::is_station;
use crate::wire::pe_arp::{Claim, Kind, Lifetime, Message, PeAddress, Record};

/// What a plain ARP message says: the sender owns all of the address.
const WHOLE: [Record; 1] = [Record::new(Claim::Full, Lifetime::Unknown)];

impl Neighbors {
    /// Takes in a PE-ARP message from a frame whose Ethernet source is `source`.
    ///
    /// # Errors
    /// The message is dropped: see [`Refused`].
    pub fn handle_pe(
        &mut self,
        source: EthernetAddress,
        message: &Message,
        now: Instant,
    ) -> Result<(), Refused> {
        if !self.config.pe {
            return Err(Refused::NotSpoken);
        }
        // What has ended by now, a lease above all, has no say any more.
        self.drive(now);
        self.check_sender(source, message.sender_hardware)?;
        // PE-ARP rule 10.
        let (sender, target) = (message.sender.ip, message.target.ip);
        let to_nobody = message.kind() == Kind::Conflict;
        if !(sender.is_unspecified() || is_host(sender)) || !(to_nobody || is_host(target)) {
            return Err(Refused::BadAddress);
        }
        // PE-ARP rule 28.
        if message.authority && !self.config.authorities.contains(&message.sender_hardware) {
            return Err(Refused::NoAuthority);
        }
        let result = match message.kind() {
            Kind::Resolve => self.on_resolve(message, now),
            Kind::SolicitAll => self.on_solicit_all(message, now),
            Kind::Reply => self.on_reply(message, now),
            Kind::Announce => self.on_announce(message, now),
            Kind::Probe => self.on_probe(message, now),
            Kind::Conflict => self.on_conflict(message, now),
            Kind::Release => self.on_release(message),
            Kind::Nak => self.on_nak(message, now),
        };
        self.drive(now);
        result
    }

    /// Takes in a plain ARP message from a frame whose Ethernet source is `source`.
    ///
    /// # Errors
    /// The message is dropped: see [`Refused`].
    pub fn handle_arp(
        &mut self,
        source: EthernetAddress,
        message: &ArpRepr,
        now: Instant,
    ) -> Result<(), Refused> {
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: hardware,
            source_protocol_addr: sender,
            target_hardware_addr: to,
            target_protocol_addr: target,
        } = *message
        else {
            return Err(Refused::SenderMismatch);
        };
        self.check_sender(source, hardware)?;
        self.drive(now);
        // A sender of 0 asks without saying who it is: it is answered, and nothing is learned (PE-ARP rule 2).
        let named = !sender.is_unspecified();
        // PE-ARP rule 10. The answer to a sender of 0 has no target.
        let to_nobody = operation == ArpOperation::Reply && target.is_unspecified();
        if (named && !is_host(sender)) || !(to_nobody || is_host(target)) {
            return Err(Refused::BadAddress);
        }
        if named && self.is_shared(sender) {
            return Err(Refused::PlainForShared);
        }
        // PE-ARP rule 55, RFC 5227 §2.4: whatever it asks or answers, it claims the own address.
        let disputed = self.own.disputed_whole(sender);
        let result = match operation {
            _ if !disputed.is_empty() => self.on_own_claimed(hardware, &disputed, true, now),
            ArpOperation::Request => self.on_plain_request(hardware, sender, target, now),
            ArpOperation::Reply if !named => Err(Refused::Unsolicited),
            ArpOperation::Reply => self.on_plain_reply(hardware, sender, (to, target), now),
            ArpOperation::Unknown(_) => Err(Refused::Unsolicited),
        };
        self.drive(now);
        result
    }

    fn check_sender(&self, source: EthernetAddress, sender: EthernetAddress) -> Result<(), Refused> {
        if source == self.config.hardware {
            return Err(Refused::OwnEcho);
        }
        if source != sender || !is_station(source) || sender == self.config.hardware {
            return Err(Refused::SenderMismatch);
        }
        Ok(())
    }

    fn on_plain_request(
        &mut self,
        hardware: EthernetAddress,
        sender: Ipv4Addr,
        target: Ipv4Addr,
        now: Instant,
    ) -> Result<(), Refused> {
        let mut result = Ok(());
        let answers = self.answers_plain(target);
        if !sender.is_unspecified() && (answers || self.knows_plain(sender)) {
            result = self.learn_plain(sender, hardware, false, now);
        }
        if answers {
            let message = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: self.config.hardware,
                source_protocol_addr: target,
                target_hardware_addr: hardware,
                target_protocol_addr: sender,
            };
            self.outputs.push_back(Output::Arp { destination: hardware, message });
        }
        result
    }

    /// PE-ARP rule 3: a shared address is answered for by the edge router only, never by a sharing host.
    fn answers_plain(&self, target: Ipv4Addr) -> bool {
        self.owns_whole(target) || (self.config.proxy && self.table.scheme(target).is_some())
    }

    fn owns_whole(&self, ip: Ipv4Addr) -> bool {
        self.own.whole().any(|own| own == ip)
    }

    /// PE-ARP rule 27: an answer to an own question confirms; another reply updates what is known, or tells its
    /// target.
    fn on_plain_reply(
        &mut self,
        hardware: EthernetAddress,
        sender: Ipv4Addr,
        (to, target): (EthernetAddress, Ipv4Addr),
        now: Instant,
    ) -> Result<(), Refused> {
        let to_us = to == self.config.hardware;
        let probed = |binding: BindingRef<'_>| binding.source == Source::Arp && binding.asked().is_some();
        let asked = self.questions.asks_any(sender) || self.bound(sender, hardware).is_some_and(probed);
        let told = to_us && self.owns_whole(target);
        if to_us && asked {
            // PE-ARP rule 40: the owner's own answer may be slower, and tells that the address is shared.
            if self.config.pe {
                self.solicited.insert(sender, now);
            }
            self.learn_plain(sender, hardware, true, now)
        } else if told || self.knows_plain(sender) {
            self.learn_plain(sender, hardware, false, now)
        } else {
            Err(Refused::Unsolicited)
        }
    }

    /// RFC 826: whether a plain message updates something, rather than being news.
    fn knows_plain(&self, sender: Ipv4Addr) -> bool {
        self.table.of_address(sender).next().is_some()
    }

    fn learn_plain(
        &mut self,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        confirmed: bool,
        now: Instant,
    ) -> Result<(), Refused> {
        let heard = Heard {
            ip,
            hardware,
            records: &WHOLE,
            complete: true,
            shared: false,
            source: Source::Arp,
            confirmed,
        };
        self.learn(&heard, now)
    }

    /// `claimed`: by the message.
    fn heard<'a>(message: &Message, claimed: &'a [Record], confirmed: bool) -> Heard<'a> {
        Heard {
            ip: message.sender.ip,
            hardware: message.sender_hardware,
            records: claimed,
            complete: message.complete,
            shared: message.sender.shared,
            // An authority's positive answer is for another host (PE-ARP rule 28).
            source: if message.authority { Source::Proxy } else { Source::Learned },
            confirmed,
        }
    }

    fn on_resolve(&mut self, message: &Message, now: Instant) -> Result<(), Refused> {
        let (asked, claimed) = (message.target, message.claimed());
        let mut result = Ok(());
        // PE-ARP rule 1: the owner answers, and nobody else.
        let ours = self.own.owns(asked.ip, asked.protocol, asked.port);
        // PE-ARP rule 20: what is known is brought up to date, but a new binding is made only by those who will
        // need it: the target, and a router.
        let known = self.table.find(message.sender.ip, message.sender_hardware).is_some();
        // PE-ARP rule 55: whatever is asked, a claim to an own set is heard.
        let disputed = self.own.disputed(message.sender.ip, &claimed);
        if !claimed.is_empty() && (ours || known || self.config.router) {
            result = self.learn(&Self::heard(message, &claimed, false), now);
        } else if !disputed.is_empty() {
            result = self.on_own_claimed(message.sender_hardware, &disputed, false, now);
        }
        let (to, sender) = (message.sender_hardware, message.sender);
        if ours {
            self.unicast(to, self.own.answer(asked, to, sender, now));
        } else if self.has_no_owner(asked) {
            let gap =
                Record { lifetime: Lifetime::Seconds(GAP_TIME.secs() as u16), ..self.gap_around(asked) };
            let asked = PeAddress { shared: true, ..PeAddress::new(asked.ip) };
            let asked = asked.with_port(message.target.protocol, message.target.port);
            self.unicast(to, Message::nak(self.config.hardware, asked, to, sender, gap));
        }
        result
    }

    /// Whether an authority knows that nobody owns what is asked (PE-ARP rule 121).
    fn has_no_owner(&self, asked: PeAddress) -> bool {
        self.is_told_of(asked.ip) && self.table.lookup(asked.ip, asked.protocol, asked.port).is_none()
    }

    /// The block of the asked port, where all of it is without an owner; else what was asked alone.
    fn gap_around(&self, asked: PeAddress) -> Record {
        let block = Block::of(self.table.scheme(asked.ip), asked.protocol, asked.port).claim();
        let block = Record::new(block, Lifetime::Unknown);
        let gap = [Held { record: block, until: None }];
        let free = self.table.of_address(asked.ip).all(|(_, binding)| binding.meets(&gap).is_none());
        match asked.port.and_then(|port| PortRange::new(port, port)) {
            Some(port) if !free => {
                Record { scope: asked.protocol, ..Record::new(Claim::Range(port), Lifetime::Unknown) }
            }
            _ => block,
        }
    }

    fn on_solicit_all(&mut self, message: &Message, now: Instant) -> Result<(), Refused> {
        if !message.sender.router {
            return Err(Refused::Solicit);
        }
        let ip = message.target.ip;
        if !self.own.sets().any(|set| set.ip == ip) {
            return Ok(());
        }
        let (router, address) = (message.sender_hardware, message.sender);
        let asked = self.own.solicit(router, address, ip, &mut self.rng, now);
        if asked { Ok(()) } else { Err(Refused::Solicit) }
    }

    fn on_reply(&mut self, message: &Message, now: Instant) -> Result<(), Refused> {
        if message.target_hardware != self.config.hardware {
            return Err(Refused::NotForUs);
        }
        let (asked, claimed) = (message.sender, message.claimed());
        // PE-ARP rule 15: {ip, 0}, the answer to SOLICIT-ALL, names no port.
        let names_all = asked.protocol == 0 && asked.port.is_none();
        let holds = |record: &Record| names_all || record.contains(asked.protocol, asked.port);
        if !claimed.iter().any(holds) {
            return Err(Refused::WithoutAsked);
        }
        // PE-ARP rule 20.
        let solicited = self.solicited.get(&asked.ip).is_some_and(|at| now <= *at + SOLICIT_WINDOW)
            || self.answers_probe(message)
            || self.asks(asked);
        if !solicited {
            return Err(Refused::Unsolicited);
        }
        if asked.port.is_none() && claimed.iter().filter(|record| holds(record)).all(Record::is_residual) {
            // PE-ARP rule 41: the answer of an owner by protocol precedes, and may be slower.
            self.solicited.insert(asked.ip, now);
        }
        self.learn(&Self::heard(message, &claimed, true), now)
    }

    fn on_announce(&mut self, message: &Message, now: Instant) -> Result<(), Refused> {
        let claimed = message.claimed();
        // PE-ARP rule 23: a complete set without records withdraws all.
        if claimed.is_empty() && !message.complete {
            return Err(Refused::NoRecords);
        }
        self.learn(&Self::heard(message, &claimed, false), now)
    }

    fn on_probe(&mut self, message: &Message, now: Instant) -> Result<(), Refused> {
        let claimed = message.claimed();
        if claimed.is_empty() {
            return Err(Refused::NoRecords);
        }
        let prober = message.sender_hardware;
        let disputed = self.own.disputed(message.target.ip, &claimed);
        let objection = disputed.iter().find_map(|(own, port)| self.own.objection(*own, prober, *port, now));
        if let Some(objection) = objection {
            self.unicast(prober, objection);
        }
        for (own, port) in disputed {
            // RFC 5227 §2.1.1: another host probes for the same at the same time.
            if self.own.phase(own).probing() {
                self.lose_own(own, prober, port, now);
            }
        }
        Ok(())
    }

    fn on_conflict(&mut self, message: &Message, now: Instant) -> Result<(), Refused> {
        if message.target_hardware != self.config.hardware {
            return Err(Refused::NotForUs);
        }
        let mut disputed = self.own.disputed(message.sender.ip, &message.claimed());
        disputed.retain(|(own, _)| self.own.phase(*own).probing());
        if disputed.is_empty() {
            return Err(Refused::Unsolicited);
        }
        for (own, port) in disputed {
            self.lose_own(own, message.sender_hardware, port, now);
        }
        Ok(())
    }

    pub(super) fn lose_own(&mut self, own: OwnId, hardware: EthernetAddress, port: u16, now: Instant) {
        let Some(claim) = self.own.claim_mut(own) else { return };
        if claim.lose(&mut self.rng, now) {
            self.tell_release(own);
        }
        self.events.push_back(Event::OwnConflict { own, hardware, port, lost: true });
    }

    /// PE-ARP rule 25.
    fn on_release(&mut self, message: &Message) -> Result<(), Refused> {
        let (ip, hardware) = (message.sender.ip, message.sender_hardware);
        let Some(id) = self.table.find(ip, hardware) else { return Ok(()) };
        if self.table.binding(id).is_some_and(|binding| !binding.source.is_given()) {
            let claimed = message.claimed();
            let named = |held: &Held| claimed.iter().any(|record| names(record, &held.record));
            self.keep_records(id, |held| !named(held));
        }
        Ok(())
    }

    fn on_nak(&mut self, message: &Message, now: Instant) -> Result<(), Refused> {
        if !message.authority {
            return Err(Refused::NoAuthority);
        }
        if message.target_hardware != self.config.hardware {
            return Err(Refused::NotForUs);
        }
        let (asked, gaps) = (message.sender, message.claimed());
        if !gaps.iter().any(|record| record.contains(asked.protocol, asked.port)) {
            return Err(Refused::WithoutAsked);
        }
        if !self.asks(asked) {
            return Err(Refused::Unsolicited);
        }
        for gap in gaps.iter() {
            // PE-ARP rule 43.
            let time = match gap.lifetime {
                Lifetime::Seconds(seconds) => Duration::from_secs(seconds.into()).min(GAP_TIME_MAX),
                Lifetime::Unknown => GAP_TIME,
                Lifetime::Withdrawn => continue,
            };
            for waiting in self.questions.no_owner(asked.ip, *gap, now + time) {
                self.give_up(waiting, Refused::NoOwner);
            }
        }
        Ok(())
    }

    /// Whether a question about the block of `asked` is open.
    fn asks(&self, asked: PeAddress) -> bool {
        // The scheme may have become known after the question was asked.
        [self.question_scheme(asked.ip), None]
            .into_iter()
            .any(|scheme| self.questions.asks(asked.ip, Block::of(scheme, asked.protocol, asked.port)))
    }

    fn bound(&self, ip: Ipv4Addr, hardware: EthernetAddress) -> Option<BindingRef<'_>> {
        self.table.find(ip, hardware).and_then(|id| self.table.binding(id))
    }

    /// PE-ARP rule 34: whether an owner that is being asked by unicast claims the port that it is asked for. One
    /// that was learned from plain ARP is asked by plain ARP.
    fn answers_probe(&self, message: &Message) -> bool {
        let binding = self.bound(message.sender.ip, message.sender_hardware);
        let asked =
            binding.filter(|binding| binding.source != Source::Arp).and_then(|binding| binding.asked());
        asked.is_some_and(|asked| claims(&message.claimed(), asked))
    }
}
