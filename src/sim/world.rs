//! The run: events in order, frames between nodes, packets between nodes and programs.

use core::time::Duration as CoreDuration;
use std::collections::BTreeMap;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpPacket, EthernetFrame};

use super::checker::{Checker, Delivery, Sent, Violation};
use super::packet::{Number, ping, udp};
use super::queue::Queue;
use super::report::{Fnv, Report};
use super::scenario::{Action, Fault, Faults, Flow, NodeId, Scenario, Service, Wiring};
use super::segment::{Flight, Segment};
use super::station::{LAN_SEGMENT, Machine, OUTSIDE_SEGMENT, Station, TUN, stations};
use crate::node::{LinkId, Verdict};
use crate::wire::{ETHERNET_HEADER, EthernetProtocol, Frame, icmp};

/// When the first programs send: hosts have claimed their sets by then.
const FIRST_SENDING: Duration = Duration::from_secs(1);
/// How long every datagram must be answered at the end.
const VERIFY: Duration = Duration::from_secs(10);
/// How long the last answers may take: a question is asked three times, a second apart.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest time in which a program answers, in microseconds.
const THINKING_MICROS: u64 = 1000;
/// Events at one instant, after which time is taken to stand still.
const MAX_EVENTS_PER_INSTANT: u32 = 10_000;

enum Event {
    /// A frame arrives.
    Arrival(Flight),
    /// A node's deadline.
    Timer(NodeId),
    /// A flow sends.
    Flow(usize),
    /// A program's packet leaves.
    Program(NodeId, Vec<u8>),
    /// Something happens to a node.
    Fault(NodeId, Action),
}

/// The ports of a flow.
#[derive(Clone, Copy, Default)]
struct Ports {
    source: u16,
    destination: u16,
}

/// A run of one scenario with one seed.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    now: Instant,
    queue: Queue<Event>,
    segments: Vec<Segment>,
    stations: Vec<Station>,
    ports: Vec<Ports>,
    unowned: Vec<u16>,
    checker: Checker,
    faults: ChaCha8Rng,
    seeds: ChaCha8Rng,
    programs: ChaCha8Rng,
    hash: Fnv,
    pcap: Option<PcapWriter<Vec<u8>>>,
    report: Report,
    at_once: u32,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64, capture: bool) -> Self {
        // One stream for each purpose, so that a draw more in one leaves the others as they are.
        let stream = |stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream);
            rng
        };
        let names: Vec<_> = scenario.names().into_iter().map(str::to_owned).collect();
        let mut segments = vec![
            Segment::new(LAN_SEGMENT, scenario.wiring, scenario.faults),
            Segment::new(OUTSIDE_SEGMENT, Wiring::Switch, scenario.faults),
        ];
        let mut stations = stations(scenario);
        for (node, station) in stations.iter_mut().enumerate() {
            for (link, segment) in station.segments().iter().enumerate() {
                station.sockets.push((*segment, segments[*segment].attach(NodeId(node), LinkId(link))));
            }
        }
        let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
        Self {
            scenario,
            now: Instant::ZERO,
            queue: Queue::new(),
            segments,
            stations,
            ports: Vec::new(),
            unowned: unowned(scenario),
            checker: Checker::new(names, scenario.faults.duplicate > 0.0),
            faults: stream(1),
            seeds: stream(2),
            programs: stream(3),
            hash: Fnv::new(),
            // Writing to memory does not fail.
            pcap: capture.then(|| PcapWriter::with_header(Vec::new(), header).ok()).flatten(),
            report: Report {
                seed,
                end: Instant::ZERO,
                events: 0,
                frames: 0,
                sent: 0,
                delivered: 0,
                answered: 0,
                dropped: BTreeMap::new(),
                capture_hash: 0,
                pcap: None,
                violation: None,
            },
            at_once: 0,
        }
    }

    pub(super) fn run(mut self) -> Report {
        self.report.violation = self.play().err();
        for node in 0..self.stations.len() {
            self.count_drops(NodeId(node));
        }
        let losses = self.segments.iter().map(|segment| segment.losses);
        let (lost, cut) = losses.fold((0, 0), |(lost, cut), one| (lost + one.lost, cut + one.cut));
        self.dropped("link_lost", lost);
        self.dropped("link_cut", cut);
        let (sent, answered) = self.checker.totals();
        Report {
            end: self.now,
            sent,
            answered,
            delivered: self.checker.delivered,
            capture_hash: self.hash.finish(),
            pcap: self.pcap.map(PcapWriter::into_writer),
            ..self.report
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.open_ports();
        for node in (0..self.stations.len()).map(NodeId) {
            // Who crashes at 0 has never been there.
            let absent = Fault { at: Duration::ZERO, action: Action::Crash, node };
            if !self.scenario.events.contains(&absent) {
                self.start(node)?;
            }
        }
        for fault in &self.scenario.events {
            self.queue.insert(Instant::ZERO + fault.at, Event::Fault(fault.node, fault.action));
        }
        let healed = Instant::ZERO + self.scenario.duration;
        let settled = healed + self.scenario.settle;
        self.run_until(healed)?;
        self.heal()?;
        self.run_until(settled + VERIFY + DRAIN)?;
        self.checker.healed(settled)
    }

    fn run_until(&mut self, end: Instant) -> Result<(), Violation> {
        while let Some((at, event)) = self.queue.pop(end) {
            self.at_once = if at == self.now { self.at_once + 1 } else { 0 };
            if self.at_once > MAX_EVENTS_PER_INSTANT {
                return Err(Violation::Livelock { events: MAX_EVENTS_PER_INSTANT });
            }
            self.now = at;
            self.report.events += 1;
            self.handle(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Arrival(flight) => match self.segments[flight.segment].receiver(flight.socket) {
                Some((node, link)) => self.receive(node, link, Frame::from_ethernet(&flight.bytes)),
                None => Ok(()),
            },
            Event::Timer(node) => {
                let now = self.now;
                let station = &mut self.stations[node.0];
                station.timer = None;
                if let Some(machine) = &mut station.machine {
                    machine.handle_timeout(now);
                    if let Some(deadline) = machine.poll_timeout(now).filter(|deadline| *deadline <= now) {
                        return Err(Violation::Overdue { node: self.checker.name(node), deadline });
                    }
                }
                self.drain(node)
            }
            Event::Flow(index) => self.flow(index),
            Event::Program(node, packet) => self.receive_from_program(node, packet),
            Event::Fault(node, action) => match action {
                Action::Crash => {
                    self.crash(node);
                    Ok(())
                }
                Action::Restart => {
                    self.crash(node);
                    self.start(node)
                }
                Action::Partition | Action::Heal => {
                    for segment in &mut self.segments {
                        segment.set_cut(node, action == Action::Partition);
                    }
                    Ok(())
                }
            },
        }
    }

    // Life of nodes.

    fn start(&mut self, node: NodeId) -> Result<(), Violation> {
        let seed = self.seeds.random();
        let started = self.stations[node.0].start(seed, self.now);
        started
            .map_err(|error| Violation::Start { node: self.checker.name(node), error: error.to_string() })?;
        self.drain(node)
    }

    fn crash(&mut self, node: NodeId) {
        self.count_drops(node);
        let station = &mut self.stations[node.0];
        station.machine = None;
        if let Some(key) = station.timer.take() {
            self.queue.remove(key);
        }
    }

    /// Everything that went wrong is over.
    fn heal(&mut self) -> Result<(), Violation> {
        for segment in &mut self.segments {
            segment.faults = Faults::default();
            for node in 0..self.stations.len() {
                segment.set_cut(NodeId(node), false);
            }
        }
        for node in 0..self.stations.len() {
            if self.stations[node].machine.is_none() {
                self.start(NodeId(node))?;
            }
        }
        Ok(())
    }

    fn dropped(&mut self, reason: &'static str, count: u64) {
        if count > 0 {
            *self.report.dropped.entry(reason).or_default() += count;
        }
    }

    fn count_drops(&mut self, node: NodeId) {
        match &mut self.stations[node.0].machine {
            Some(Machine::Legacy(legacy)) => {
                let count = legacy.dropped;
                self.dropped("node_legacy", count);
            }
            Some(machine) => {
                let drops: Vec<_> =
                    machine.node().map(|node| node.counters().drops().collect()).unwrap_or_default();
                for (reason, count) in drops {
                    self.dropped(reason.name(), count);
                }
            }
            None => {}
        }
    }

    // Frames.

    /// A frame or packet reaches a node.
    fn receive(&mut self, node: NodeId, link: LinkId, mut frame: Frame) -> Result<(), Violation> {
        let now = self.now;
        match &mut self.stations[node.0].machine {
            None => {
                self.dropped("node_down", 1);
                return Ok(());
            }
            Some(Machine::Legacy(legacy)) => legacy.handle_frame(&frame, now),
            Some(machine) => {
                let verdict = machine.node().map(|machine| machine.handle_frame(link, &mut frame, now));
                if let Some(Verdict::Forward(link)) = verdict {
                    self.emit(node, link, &frame)?;
                }
            }
        }
        self.drain(node)
    }

    fn receive_from_program(&mut self, node: NodeId, packet: Vec<u8>) -> Result<(), Violation> {
        if let Some(Machine::Legacy(legacy)) = &mut self.stations[node.0].machine {
            legacy.send(packet, self.now);
            return self.drain(node);
        }
        self.receive(node, TUN, Frame::from_packet(&packet))
    }

    /// Takes what a node wants to send, and checks what it promises.
    fn drain(&mut self, node: NodeId) -> Result<(), Violation> {
        let now = self.now;
        while let Some((link, frame)) =
            self.stations[node.0].machine.as_mut().and_then(|machine| machine.poll_transmit(now))
        {
            self.emit(node, link, &frame)?;
        }
        while let Some(Machine::Legacy(legacy)) = &mut self.stations[node.0].machine
            && let Some(packet) = legacy.poll_received()
        {
            self.deliver(node, &packet)?;
        }
        let station = &mut self.stations[node.0];
        let Some(machine) = &mut station.machine else { return Ok(()) };
        if let Some(running) = machine.node()
            && !running.counters().is_balanced()
        {
            let counters = format!("{:?}", running.counters());
            return Err(Violation::Unbalanced { node: self.checker.name(node), counters });
        }
        let at = machine.poll_timeout(now).map(|at| at.max(now));
        if station.timer.map(|(at, _)| at) != at {
            if let Some(key) = station.timer.take() {
                self.queue.remove(key);
            }
            station.timer = at.map(|at| self.queue.insert(at, Event::Timer(node)));
        }
        Ok(())
    }

    /// A node sends on one of its links.
    fn emit(&mut self, node: NodeId, link: LinkId, frame: &Frame) -> Result<(), Violation> {
        let Some((segment, socket)) = self.stations[node.0].sockets.get(link.0).copied() else {
            return self.deliver(node, frame.bytes());
        };
        self.check_frame(node, segment, frame.bytes())?;
        self.record(segment, frame.bytes());
        for (at, flight) in self.segments[segment].send(socket, frame.bytes(), &mut self.faults, self.now) {
            self.queue.insert(at, Event::Arrival(flight));
        }
        Ok(())
    }

    fn check_frame(&self, node: NodeId, segment: usize, bytes: &[u8]) -> Result<(), Violation> {
        let ethernet = EthernetFrame::new_unchecked(bytes);
        if bytes.len() < ETHERNET_HEADER || ethernet.ethertype() != EthernetProtocol::Arp {
            return Ok(());
        }
        let Ok(arp) = ArpPacket::new_checked(ethernet.payload()) else { return Ok(()) };
        if arp.protocol_type() != EthernetProtocol::Ipv4 {
            return if segment == OUTSIDE_SEGMENT {
                Err(Violation::PeArpOutside { node: self.checker.name(node) })
            } else {
                Ok(())
            };
        }
        let shared = |(ip, _): &(core::net::Ipv4Addr, _)| arp.source_protocol_addr() == ip.octets();
        if self.scenario.shared.iter().any(shared) && !self.stations[node.0].answers_for_shared() {
            return Err(Violation::PlainForShared { node: self.checker.name(node) });
        }
        Ok(())
    }

    fn record(&mut self, segment: usize, bytes: &[u8]) {
        self.report.frames += 1;
        let micros = self.now.total_micros().unsigned_abs();
        self.hash.write(&micros.to_be_bytes());
        self.hash.write(&[segment as u8]);
        self.hash.write(&(bytes.len() as u64).to_be_bytes());
        self.hash.write(bytes);
        if let Some(pcap) = &mut self.pcap {
            // Writing to memory does not fail.
            let _ = pcap.write_packet(&PcapPacket::new(
                CoreDuration::from_micros(micros),
                bytes.len() as u32,
                bytes,
            ));
        }
    }

    // Programs.

    /// Gives every flow its ports, and programs to them.
    fn open_ports(&mut self) {
        for (index, flow) in self.scenario.flows.iter().enumerate() {
            let source = self.choose_port(flow.from, true);
            let destination = match (flow.service, flow.to) {
                (Service::Program, Some(to)) => self.choose_port(to, true),
                (Service::Closed, Some(to)) => self.choose_port(to, false),
                (Service::Stack, Some(to)) => self.stations[to.0].echo_port.unwrap_or_default(),
                _ => 0,
            };
            self.ports.push(Ports { source, destination });
            let phase = self.programs.random_range(0..flow.every.total_micros());
            let at = Instant::ZERO + FIRST_SENDING + Duration::from_micros(phase);
            self.queue.insert(at, Event::Flow(index));
        }
    }

    fn choose_port(&mut self, node: NodeId, open: bool) -> u16 {
        let station = &mut self.stations[node.0];
        let free = station.program_ports.iter().filter(|port| !station.open.contains(port));
        let port = free.copied().choose(&mut self.programs).unwrap_or_default();
        if open {
            station.open.insert(port);
        }
        port
    }

    fn flow(&mut self, index: usize) -> Result<(), Violation> {
        let Flow { from, to, service, every } = self.scenario.flows[index];
        let next = self.now + every;
        if next < Instant::ZERO + self.scenario.duration + self.scenario.settle + VERIFY {
            self.queue.insert(next, Event::Flow(index));
        }
        let Ports { source, destination } = self.ports[index];
        let sent = Sent { flow: index, service, sender: from, owner: to, at: self.now, answers: None };
        let own = self.stations[from.0].address;
        let (address, port) = match to {
            Some(to) => (self.stations[to.0].address, destination),
            None => {
                let Some((address, _)) = self.scenario.shared.first() else { return Ok(()) };
                let Some(port) = self.unowned.choose(&mut self.programs) else { return Ok(()) };
                (*address, *port)
            }
        };
        let make = |number: Number| match service {
            Service::Ping => ping(own, address, source, number),
            _ => udp((own, source), (address, port), number),
        };
        let packet = self.checker.send(sent, make);
        self.receive_from_program(from, packet)
    }

    /// A packet reaches the programs of a node, and the kernel that they run on.
    fn deliver(&mut self, node: NodeId, packet: &[u8]) -> Result<(), Violation> {
        let reply = match self.checker.deliver(node, packet)? {
            Delivery::EchoRequest => icmp::echo_reply(packet),
            Delivery::Datagram { to, .. } if !self.stations[node.0].open.contains(&to.1) => {
                icmp::error_for(packet, to.0, icmp::Error::PortUnreachable)
            }
            Delivery::Datagram { number, from, to } => {
                self.answer(number, node).map(|sent| self.checker.send(sent, |number| udp(to, from, number)))
            }
            Delivery::Noted | Delivery::Unknown => None,
        };
        if let Some(reply) = reply {
            let thinking = Duration::from_micros(self.programs.random_range(1..=THINKING_MICROS));
            self.queue.insert(self.now + thinking, Event::Program(node, reply));
        }
        Ok(())
    }

    /// The answer to a question; none to an answer.
    fn answer(&self, number: Number, node: NodeId) -> Option<Sent> {
        let question = self.checker.sent(number).filter(|sent| sent.answers.is_none())?;
        let (sender, owner, at, answers) = (node, Some(question.sender), self.now, Some(number));
        Some(Sent { sender, owner, at, answers, ..question.clone() })
    }
}

/// The ports of the first shared address that no host of the scenario owns.
fn unowned(scenario: &Scenario) -> Vec<u16> {
    let Some((address, _)) = scenario.shared.first() else { return Vec::new() };
    let owned = |port| scenario.hosts.iter().any(|host| host.address == *address && host.set.contains(port));
    (0..=u16::MAX).filter(|port| !owned(*port)).collect()
}
