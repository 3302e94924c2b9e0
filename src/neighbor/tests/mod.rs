//! The engine from outside: messages, packets and the time go in, messages and events come out.

mod bounds;
mod claim;
mod conflict;
mod learning;
mod lease;
mod link;
mod matrix;
mod matrix_claim;
mod matrix_plain;
mod own;
mod plain;
mod portless;
mod questions;
mod random;
mod reachability;
mod table;

use core::net::Ipv4Addr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress, Ipv4Cidr};

use super::*;
use crate::ports::{PortRange, Scheme};
use crate::wire::Frame;
use crate::wire::pe_arp::{Claim, Kind, Lifetime, Message, PeAddress, Record};

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;

/// The router's address.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// A shared address of scheme (0, 4).
const SHARED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
/// An address of which nothing is configured.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

const ROUTER_MAC: EthernetAddress = mac(1);
const AUTHORITY: EthernetAddress = mac(5);
const A: EthernetAddress = mac(0x0a);
const B: EthernetAddress = mac(0x0b);
const C: EthernetAddress = mac(0x0c);

const fn mac(n: u16) -> EthernetAddress {
    let [high, low] = n.to_be_bytes();
    EthernetAddress([2, 0, 0, 0, high, low])
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn full() -> Record {
    Record::new(Claim::Full, Lifetime::Unknown)
}

fn range(first: u16, last: u16) -> Record {
    Record::new(Claim::Range(PortRange::new(first, last).unwrap()), Lifetime::Unknown)
}

fn psid(text: &str) -> Record {
    Record::new(Claim::Psid(text.parse().unwrap()), Lifetime::Unknown)
}

fn portless(protocol: u8) -> Record {
    Record::new(Claim::Portless(protocol), Lifetime::Unknown)
}

fn scheme(a: u8, k: u8) -> Scheme {
    Scheme::new(a, k).unwrap()
}

fn lasting(seconds: u16, record: Record) -> Record {
    Record { lifetime: Lifetime::Seconds(seconds), ..record }
}

fn withdrawn(record: Record) -> Record {
    Record { lifetime: Lifetime::Withdrawn, ..record }
}

fn of(protocol: u8, record: Record) -> Record {
    Record { scope: protocol, ..record }
}

fn tcp(ip: Ipv4Addr, port: u16) -> Target {
    Target { ip, protocol: TCP, port: Some(port) }
}

fn packet(tag: u32) -> Frame {
    Frame::from_packet(&tag.to_be_bytes())
}

fn tag(frame: &Frame) -> u32 {
    u32::from_be_bytes(*frame.bytes().first_chunk().unwrap())
}

fn shared(ip: Ipv4Addr) -> PeAddress {
    PeAddress { shared: true, ..PeAddress::new(ip) }
}

fn first_port(records: &[Record]) -> Option<u16> {
    records.iter().find_map(|record| match record.claim {
        Claim::Range(range) => Some(range.first()),
        Claim::Psid(psid) => Some(psid.first()),
        Claim::Full => Some(0),
        Claim::Portless(_) => None,
    })
}

fn announce(host: EthernetAddress, ip: Ipv4Addr, records: &[Record]) -> Message {
    Message::announce(host, shared(ip).with_port(0, first_port(records)), records)
}

fn release(host: EthernetAddress, ip: Ipv4Addr, records: &[Record]) -> Message {
    Message::release(host, shared(ip).with_port(0, first_port(records)), records)
}

/// The answer of `host` to `question`.
fn reply(host: EthernetAddress, question: &Message, records: &[Record]) -> Message {
    let asked = shared(question.target.ip).with_port(question.target.protocol, question.target.port);
    Message::reply(host, asked, question.sender_hardware, question.sender, records)
}

/// The message with some fields changed.
fn but(mut message: Message, change: impl FnOnce(&mut Message)) -> Message {
    change(&mut message);
    message
}

/// A RESOLVE of `host`, who holds `records` of `own`, for a TCP port.
fn resolve(host: EthernetAddress, own: PeAddress, ip: Ipv4Addr, port: u16, records: &[Record]) -> Message {
    Message::resolve(host, own, PeAddress::new(ip).with_port(TCP, Some(port)), records)
}

fn plain(
    operation: ArpOperation,
    (hardware, sender): (EthernetAddress, Ipv4Addr),
    (to, target): (EthernetAddress, Ipv4Addr),
) -> ArpRepr {
    ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: hardware,
        source_protocol_addr: sender,
        target_hardware_addr: to,
        target_protocol_addr: target,
    }
}

fn plain_request(hardware: EthernetAddress, sender: Ipv4Addr, target: Ipv4Addr) -> ArpRepr {
    plain(ArpOperation::Request, (hardware, sender), (EthernetAddress([0; 6]), target))
}

/// A router with a whole address in use, and SHARED on its link.
fn router() -> Config {
    Config {
        hardware: ROUTER_MAC,
        prefix: Ipv4Cidr::new(Ipv4Addr::new(192, 0, 2, 0), 24),
        router: true,
        own: vec![OwnSet {
            ip: ROUTER,
            records: vec![full()],
            first_port: 0,
            shared: false,
            authoritative: true,
            until: None,
        }],
        pe: true,
        schemes: vec![(SHARED, scheme(0, 4))],
        proxy: true,
        authorities: vec![AUTHORITY],
        authority: false,
        seed: 1,
    }
}

/// A host with the whole address OTHER.
fn whole_host() -> Config {
    let own = vec![OwnSet { ip: OTHER, ..router().own[0].clone() }];
    Config { hardware: A, own, router: false, schemes: Vec::new(), proxy: false, ..router() }
}

/// A host with a part of SHARED.
fn sharer(hardware: EthernetAddress, part: &str) -> Config {
    let record = psid(part);
    let own = OwnSet {
        ip: SHARED,
        records: vec![record],
        first_port: first_port(&[record]).unwrap(),
        shared: true,
        authoritative: true,
        until: None,
    };
    Config { hardware, own: vec![own], ..whole_host() }
}

/// An engine and its clock. Every step asserts that nothing that is due is left undone.
struct Rig {
    engine: Neighbors,
    now: Instant,
    sent: Vec<(Instant, Output)>,
    events: Vec<Event>,
}

impl Rig {
    /// The own set is in use from the start.
    fn new(config: Config) -> Self {
        let mut rig = Self::unclaimed(config);
        rig.engine.hold_own(OwnId::FIRST);
        rig
    }

    fn unclaimed(config: Config) -> Self {
        let now = Instant::from_secs(1000);
        Self { engine: Neighbors::new(config, now), now, sent: Vec::new(), events: Vec::new() }
    }

    fn settle(&mut self) {
        let due = self.engine.poll_timeout();
        assert!(due.is_none_or(|at| at > self.now), "due at {due:?}, and it is {}", self.now);
        while let Some(output) = self.engine.poll_transmit() {
            self.sent.push((self.now, output));
        }
        while let Some(event) = self.engine.poll_event() {
            self.events.push(event);
        }
    }

    /// Lets time pass, with `handle_timeout` whenever it is due.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.engine.handle_timeout(end);
        self.settle();
    }

    fn claim_own(&mut self) {
        self.engine.claim_own(OwnId::FIRST, self.now);
        self.settle();
    }

    fn hear(&mut self, message: &Message) -> Result<(), Refused> {
        let result = self.engine.handle_pe(message.sender_hardware, message, self.now);
        self.settle();
        result
    }

    fn hear_plain(&mut self, message: &ArpRepr) -> Result<(), Refused> {
        let ArpRepr::EthernetIpv4 { source_hardware_addr, .. } = *message else { panic!("{message:?}") };
        let result = self.engine.handle_arp(source_hardware_addr, message, self.now);
        self.settle();
        result
    }

    fn enqueue(&mut self, target: Target, frame: Frame) -> Result<(), Refused> {
        let result = self.engine.enqueue(target, frame, false, self.now);
        self.settle();
        result
    }

    fn next_hop(&mut self, target: Target) -> Option<EthernetAddress> {
        let found = self.engine.next_hop(target, self.now);
        self.settle();
        found
    }

    /// Who has the TCP port of SHARED.
    fn owner(&mut self, port: u16) -> Option<EthernetAddress> {
        self.next_hop(tcp(SHARED, port))
    }

    /// Every message since the last call, with its time.
    fn take_sent(&mut self) -> Vec<(Instant, Output)> {
        core::mem::take(&mut self.sent)
    }

    /// The PE-ARP messages of a kind among them: time, destination, message.
    fn take_pe(&mut self, kind: Kind) -> Vec<(Instant, EthernetAddress, Message)> {
        let pe = |(at, output)| match output {
            Output::Pe { destination, message } if message.kind() == kind => Some((at, destination, message)),
            Output::Pe { .. } | Output::Arp { .. } => None,
        };
        self.take_sent().into_iter().filter_map(pe).collect()
    }

    /// Makes the engine ask for a TCP port and gives the question.
    fn ask(&mut self, ip: Ipv4Addr, port: u16) -> Message {
        self.sent.clear();
        assert_eq!(self.enqueue(tcp(ip, port), packet(u32::from(port))), Ok(()));
        let mut asked = self.take_pe(Kind::Resolve);
        assert_eq!(asked.len(), 1, "one question: {asked:?}");
        asked.remove(0).2
    }

    /// Makes `host` the REACHABLE owner of `records`, asked for their first port.
    fn confirm(&mut self, host: EthernetAddress, ip: Ipv4Addr, records: &[Record]) {
        let question = self.ask(ip, first_port(records).unwrap());
        assert_eq!(self.hear(&reply(host, &question, records)), Ok(()));
        assert_eq!(self.state_of(host), Some("reachable"));
        self.events.clear();
        self.sent.clear();
    }

    /// The state of the one binding of `host`.
    fn state_of(&self, host: EthernetAddress) -> Option<&'static str> {
        let entries = self.engine.entries(self.now);
        entries.iter().find(|entry| entry.hardware == Some(host)).map(|entry| entry.state)
    }

    /// Packets that left and their next hop, and packets that did not and why, since the last call.
    fn take_ends(&mut self) -> Vec<(u32, Result<EthernetAddress, Refused>)> {
        let end = |event| match event {
            Event::Resolved { frame, hardware, .. } => Some((tag(&frame), Ok(hardware))),
            Event::Undeliverable { frame, reason, .. } => Some((tag(&frame), Err(reason))),
            Event::Conflict { .. }
            | Event::OwnConflict { .. }
            | Event::Ready { .. }
            | Event::Expired { .. } => None,
        };
        core::mem::take(&mut self.events).into_iter().filter_map(end).collect()
    }
}
