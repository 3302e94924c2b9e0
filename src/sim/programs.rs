//! Programs: what they send, and what they do with what they get. Those of a host go with its set.

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand_chacha::ChaCha8Rng;
use smoltcp::time::{Duration, Instant};

use super::checker::{Delivery, Sent, Violation};
use super::packet::{Number, ping, udp};
use super::scenario::{Flow, NodeId, Party, Scenario, Service, SetId};
use super::station::{address_of, ports_of};
use super::world::{Event, VERIFY, World};
use crate::node::{Host, StreamId, StreamState};
use crate::wire::icmp;

/// When the first programs send: hosts have claimed their sets by then.
const FIRST_SENDING: Duration = Duration::from_secs(1);
/// The longest time in which a program answers, in microseconds.
const THINKING_MICROS: u64 = 1000;
/// The most bytes that a connection carries.
const MAX_STREAM_BYTES: usize = 20_000;
/// How long a program waits for the end of its connection.
const STREAM_TIME: Duration = Duration::from_secs(30);
/// The ports of programs of legacy hosts (`net.ipv4.ip_local_port_range`).
const FIRST_EPHEMERAL: u16 = 32_768;
const LAST_EPHEMERAL: u16 = 60_999;

/// What a party has for its programs.
#[derive(Debug)]
struct Offer {
    address: Ipv4Addr,
    /// The ports that programs may use, ascending.
    ports: Vec<u16>,
    /// The port of the echo service of the stack.
    echo_port: Option<u16>,
    /// UDP ports with a program.
    open: BTreeSet<u16>,
}

/// The ports of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct FlowPorts {
    source: u16,
    destination: u16,
}

/// The programs of all nodes.
#[derive(Debug)]
pub(super) struct Programs {
    offers: BTreeMap<Party, Offer>,
    ports: Vec<FlowPorts>,
    unowned: Vec<u16>,
    rng: ChaCha8Rng,
}

/// A TCP connection that sends bytes to an echo service and wants them back.
#[derive(Debug)]
pub(super) struct Conversation {
    number: Number,
    stream: StreamId,
    total: usize,
    sent: usize,
    received: usize,
}

/// How far a conversation is.
enum Progress {
    Going,
    Complete,
    /// Refused, reset, or closed by the other side too early.
    Broken,
    /// What came back is not what was sent.
    Altered,
}

impl Programs {
    pub(super) fn new(scenario: &Scenario, rng: ChaCha8Rng) -> Self {
        let mut offers = BTreeMap::new();
        for (index, set) in scenario.sets.iter().enumerate() {
            // A host that does not start has no ports.
            let (ports, echo_port) = ports_of(scenario, SetId(index)).unwrap_or_default();
            let offer = Offer { address: set.address, ports, echo_port, open: BTreeSet::new() };
            offers.insert(Party::Set(SetId(index)), offer);
        }
        for node in (0..scenario.nodes.len()).map(NodeId) {
            if let Some(thief) = scenario.host(node).filter(|host| host.thief)
                && let Some(set) = thief.set
            {
                let (ports, echo_port) = ports_of(scenario, set).unwrap_or_default();
                let address = scenario.sets[set.0].address;
                let offer = Offer { address, ports, echo_port, open: BTreeSet::new() };
                offers.insert(Party::Node(node), offer);
            }
            if let Some(address) = address_of(scenario, node) {
                let ports = (FIRST_EPHEMERAL..=LAST_EPHEMERAL).collect();
                let offer = Offer { address, ports, echo_port: None, open: BTreeSet::new() };
                offers.insert(Party::Node(node), offer);
            }
        }
        Self { offers, ports: Vec::new(), unowned: unowned(scenario), rng }
    }

    fn choose_port(&mut self, party: Party, open: bool) -> u16 {
        let Some(offer) = self.offers.get_mut(&party) else { return 0 };
        let free = offer.ports.iter().filter(|port| !offer.open.contains(port));
        let port = free.copied().choose(&mut self.rng).unwrap_or_default();
        if open {
            offer.open.insert(port);
        }
        port
    }

    fn address(&self, party: Party) -> Ipv4Addr {
        self.offers.get(&party).map_or(Ipv4Addr::UNSPECIFIED, |offer| offer.address)
    }

    fn listens(&self, party: Party, port: u16) -> bool {
        self.offers.get(&party).is_some_and(|offer| offer.open.contains(&port))
    }
}

impl World<'_> {
    /// Gives every flow its ports, and programs to them.
    pub(super) fn open_ports(&mut self) {
        for (index, flow) in self.scenario.flows.iter().enumerate() {
            let programs = &mut self.programs;
            let source = programs.choose_port(flow.from, true);
            let destination = match (flow.service, flow.to) {
                (Service::Program, Some(to)) => programs.choose_port(to, true),
                (Service::Closed, Some(to)) => programs.choose_port(to, false),
                (Service::Stack | Service::Stream, Some(to)) => {
                    programs.offers.get(&to).and_then(|offer| offer.echo_port).unwrap_or_default()
                }
                _ => 0,
            };
            programs.ports.push(FlowPorts { source, destination });
            let phase = programs.rng.random_range(0..flow.every.total_micros());
            let at = Instant::ZERO + FIRST_SENDING + Duration::from_micros(phase);
            self.queue.insert(at, Event::Flow(index));
        }
    }

    pub(super) fn flow(&mut self, index: usize) -> Result<(), Violation> {
        let Flow { from, to, service, every } = self.scenario.flows[index];
        let next = self.now + every;
        if next < Instant::ZERO + self.scenario.duration + self.scenario.settle + VERIFY {
            self.queue.insert(next, Event::Flow(index));
        }
        let FlowPorts { source, destination } = self.programs.ports[index];
        let sent = Sent { flow: index, service, sender: from, owner: to, at: self.now, answers: None };
        let own = self.programs.address(from);
        let (address, port) = match to {
            Some(to) => (self.programs.address(to), destination),
            None => {
                let Some((address, _)) = self.scenario.shared.first() else { return Ok(()) };
                let Some(port) = self.programs.unowned.choose(&mut self.programs.rng) else { return Ok(()) };
                (*address, *port)
            }
        };
        let node = self.holders.node(from);
        if service == Service::Stream {
            return self.connect(node, sent, (own, source), (address, port));
        }
        let make = |number: Number| match service {
            Service::Ping => ping(own, address, source, number),
            _ => udp((own, source), (address, port), number),
        };
        let packet = self.checker.send(sent, &self.holders, make);
        self.receive_from_program(node, packet)
    }

    /// A packet reaches the programs of a node, and the kernel that they run on.
    pub(super) fn deliver(&mut self, node: NodeId, packet: &[u8]) -> Result<(), Violation> {
        let reply = match self.checker.deliver(node, packet, &self.holders)? {
            Delivery::EchoRequest => icmp::echo_reply(packet),
            Delivery::Datagram { number, from, to } => {
                let sent = self.checker.sent(number).cloned();
                let owner = sent.as_ref().and_then(|sent| sent.owner);
                if !owner.is_some_and(|owner| self.programs.listens(owner, to.1)) {
                    icmp::error_for(packet, to.0, icmp::Error::PortUnreachable)
                } else {
                    // None to an answer.
                    let question = sent.filter(|sent| sent.answers.is_none());
                    question.map(|question| {
                        let answer = Sent {
                            sender: question.owner.unwrap_or(question.sender),
                            owner: Some(question.sender),
                            at: self.now,
                            answers: Some(number),
                            ..question
                        };
                        self.checker.send(answer, &self.holders, |number| udp(to, from, number))
                    })
                }
            }
            Delivery::Noted => None,
            Delivery::Unknown => {
                self.check_unknown(node, packet)?;
                None
            }
        };
        if let Some(reply) = reply {
            let thinking = Duration::from_micros(self.programs.rng.random_range(1..=THINKING_MICROS));
            self.queue.insert(self.now + thinking, Event::Program(node, reply));
        }
        Ok(())
    }

    // TCP.

    fn connect(
        &mut self,
        node: NodeId,
        sent: Sent,
        from: (Ipv4Addr, u16),
        to: (Ipv4Addr, u16),
    ) -> Result<(), Violation> {
        let total = self.programs.rng.random_range(1..=MAX_STREAM_BYTES);
        let now = self.now;
        // The datagram stands for the connection.
        self.checker.send(sent, &self.holders, |number| udp(from, to, number));
        let number = self.checker.last_number();
        let station = &mut self.stations[node.0];
        let Some(host) = station.running_host() else { return Ok(()) };
        match host.connect(to.0, to.1, now) {
            Ok(stream) => {
                station.conversations.push(Conversation { number, stream, total, sent: 0, received: 0 });
                self.queue.insert(now + STREAM_TIME, Event::Hangup(node, number));
                self.drain(node)
            }
            // Its ports are all in use: counted as not answered.
            Err(_) => Ok(()),
        }
    }

    /// Moves the connections of a node on.
    pub(super) fn converse(&mut self, node: NodeId) -> Result<(), Violation> {
        let now = self.now;
        let mut conversations = core::mem::take(&mut self.stations[node.0].conversations);
        let mut altered = None;
        if let Some(host) = self.stations[node.0].running_host() {
            let checker = &mut self.checker;
            conversations.retain_mut(|one| match one.advance(host, now) {
                Progress::Going => true,
                Progress::Complete => {
                    checker.answered(one.number);
                    false
                }
                Progress::Broken => false,
                Progress::Altered => {
                    altered = Some(one.number);
                    false
                }
            });
        }
        self.stations[node.0].conversations = conversations;
        match altered {
            Some(number) => Err(Violation::Altered { number, receiver: self.checker.name(node) }),
            None => Ok(()),
        }
    }

    pub(super) fn hang_up(&mut self, node: NodeId, number: Number) -> Result<(), Violation> {
        let now = self.now;
        let station = &mut self.stations[node.0];
        let at = station.conversations.iter().position(|one| one.number == number);
        let Some(conversation) = at.map(|at| station.conversations.swap_remove(at)) else { return Ok(()) };
        if let Some(host) = station.running_host() {
            host.stream_leave(conversation.stream, now);
        }
        self.drain(node)
    }
}

impl Conversation {
    /// The byte at a place of what is sent.
    fn byte(&self, at: usize) -> u8 {
        (self.number.wrapping_mul(0x9E37_79B9).wrapping_add(at as u64) >> 3) as u8
    }

    fn advance(&mut self, host: &mut Host, now: Instant) -> Progress {
        let mut space = [0; 2048];
        loop {
            let (readable, writable) = match host.stream_state(self.stream) {
                StreamState::Connecting => return Progress::Going,
                StreamState::Open { readable, writable } => (readable, writable),
                StreamState::Closed => (false, false),
            };
            let mut moved = 0;
            if writable && self.sent < self.total {
                let bytes: Vec<_> =
                    (self.sent..self.total).take(space.len()).map(|at| self.byte(at)).collect();
                moved += host.stream_send(self.stream, &bytes, now);
                self.sent += moved;
            }
            let received = host.stream_receive(self.stream, &mut space, now);
            for (at, byte) in (self.received..).zip(&space[..received]) {
                if at >= self.total || *byte != self.byte(at) {
                    host.stream_leave(self.stream, now);
                    return Progress::Altered;
                }
            }
            self.received += received;
            moved += received;
            if self.received == self.total {
                host.stream_close(self.stream, now);
                host.stream_leave(self.stream, now);
                return Progress::Complete;
            }
            if moved == 0 {
                if readable {
                    return Progress::Going;
                }
                host.stream_leave(self.stream, now);
                return Progress::Broken;
            }
        }
    }
}

/// The ports of the first shared address that no set holds.
fn unowned(scenario: &Scenario) -> Vec<u16> {
    let Some((address, _)) = scenario.shared.first() else { return Vec::new() };
    (0..=u16::MAX).filter(|port| scenario.set_of(*address, *port).is_none()).collect()
}
