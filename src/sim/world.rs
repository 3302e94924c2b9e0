//! The run: events in order, and frames between nodes.

use core::time::Duration as CoreDuration;
use std::collections::BTreeMap;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use smoltcp::time::{Duration, Instant};

use super::checker::{Checker, Violation};
use super::packet::Number;
use super::programs::Programs;
use super::queue::Queue;
use super::report::{Fnv, Report};
use super::scenario::{Fault, Faults, NodeId, Party, Scenario, SegmentId, SetId};
use super::segment::{Flight, Segment};
use super::station::{Cable, Machine, Station, TUN, hardware, stations};
use crate::node::{LinkId, Verdict};
use crate::wire::Frame;

/// How long every datagram must be answered at the end.
pub(super) const VERIFY: Duration = Duration::from_secs(10);
/// How long the last answers may take: a question is asked three times, a second apart.
const DRAIN: Duration = Duration::from_secs(5);
/// Events at one instant, after which time is taken to stand still.
const MAX_EVENTS_PER_INSTANT: u32 = 10_000;

pub(super) enum Event {
    /// A frame arrives.
    Arrival(Flight),
    /// A node's deadline.
    Timer(NodeId),
    /// A flow sends.
    Flow(usize),
    /// A program's packet leaves.
    Program(NodeId, Vec<u8>),
    /// A connection has had its time.
    Hangup(NodeId, Number),
    /// Something happens to a node.
    Fault(Fault),
    /// Something happens at random.
    Chaos,
    /// The lease of a node is renewed.
    Renew(NodeId),
    /// A set whose lease is over goes to another host.
    Handover { set: SetId, to: NodeId },
}

/// Who may use each set now.
#[derive(Debug)]
pub(super) struct Holders(pub(super) Vec<NodeId>);

impl Holders {
    /// The node that a party is now.
    pub(super) fn node(&self, party: Party) -> NodeId {
        match party {
            Party::Node(node) => node,
            Party::Set(set) => self.0[set.0],
        }
    }
}

/// A run of one scenario with one seed.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) now: Instant,
    pub(super) queue: Queue<Event>,
    pub(super) segments: Vec<Segment>,
    pub(super) stations: Vec<Station>,
    pub(super) holders: Holders,
    /// Until when each set is leased.
    pub(super) leases: Vec<Option<Instant>>,
    /// Sets that are not leased any longer to who has them.
    pub(super) leaving: Vec<bool>,
    pub(super) programs: Programs,
    pub(super) checker: Checker,
    faults: ChaCha8Rng,
    /// Seeds of nodes.
    pub(super) seeds: ChaCha8Rng,
    /// What happens to nodes.
    pub(super) fate: ChaCha8Rng,
    /// Everything has had time to settle after the last fault.
    pub(super) settled: bool,
    hash: Fnv,
    pcap: Option<PcapWriter<Vec<u8>>>,
    report: Report,
    flights: Flights,
    at_once: u32,
}

/// Frames on their way, and those that arrived.
#[derive(Default)]
struct Flights {
    departed: u64,
    arrived: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64, capture: bool) -> Self {
        // One stream for each purpose, so that a draw more in one leaves the others as they are.
        let stream = |stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream);
            rng
        };
        let segment = |(index, spec): (usize, &super::scenario::SegmentSpec)| {
            Segment::new(SegmentId(index), spec.wiring, spec.faults)
        };
        let mut segments: Vec<_> = scenario.segments.iter().enumerate().map(segment).collect();
        let mut stations = stations(scenario);
        for (node, station) in stations.iter_mut().enumerate() {
            for (link, segment) in station.segments(scenario).into_iter().enumerate() {
                let socket = segments[segment.0].attach(NodeId(node), LinkId(link));
                station.cables.push(Cable { segment, socket, hardware: hardware(NodeId(node), link) });
            }
        }
        let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
        let names = scenario.names().into_iter().map(str::to_owned).collect();
        let may_repeat = scenario.segments.iter().any(|segment| segment.faults.duplicate > 0.0);
        Self {
            scenario,
            now: Instant::ZERO,
            queue: Queue::new(),
            segments,
            stations,
            holders: Holders(scenario.sets.iter().map(|set| set.holder).collect()),
            leases: vec![None; scenario.sets.len()],
            leaving: vec![false; scenario.sets.len()],
            programs: Programs::new(scenario, stream(3)),
            checker: Checker::new(names, may_repeat),
            faults: stream(1),
            seeds: stream(2),
            fate: stream(4),
            settled: false,
            hash: Fnv::new(),
            // Writing to memory does not fail.
            pcap: capture.then(|| PcapWriter::with_header(Vec::new(), header).ok()).flatten(),
            report: Report::new(seed),
            flights: Flights::default(),
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
        self.start_all()?;
        let healed = Instant::ZERO + self.scenario.duration;
        let settled = healed + self.scenario.settle;
        self.run_until(healed)?;
        self.heal()?;
        self.run_until(settled)?;
        self.settled = true;
        self.run_until(settled + VERIFY + DRAIN)?;
        self.checker.healed(settled, &self.holders)?;
        self.nothing_is_left()
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
            Event::Arrival(flight) => {
                self.flights.arrived += 1;
                match self.segments[flight.segment.0].receiver(flight.socket) {
                    Some((node, link)) => self.receive(node, link, Frame::from_ethernet(&flight.bytes)),
                    None => Ok(()),
                }
            }
            Event::Timer(node) => self.timer(node),
            Event::Flow(index) => self.flow(index),
            Event::Program(node, packet) => self.receive_from_program(node, packet),
            Event::Hangup(node, number) => self.hang_up(node, number),
            Event::Fault(fault) => self.fault(fault),
            Event::Chaos => self.chaos(),
            Event::Renew(node) => self.renew(node),
            Event::Handover { set, to } => self.hand_over(set, to),
        }
    }

    fn timer(&mut self, node: NodeId) -> Result<(), Violation> {
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

    /// When everything that was sent has ended: no packet waits for an answer, and no frame is unaccounted for.
    fn nothing_is_left(&mut self) -> Result<(), Violation> {
        for node in (0..self.stations.len()).map(NodeId) {
            let pending = self.stations[node.0].machine.as_mut().map_or(0, Machine::pending);
            if pending > 0 {
                return Err(Violation::StillPending { node: self.checker.name(node), pending });
            }
        }
        // What is on its way now are the last announcements and probes.
        let under_way = self.queue.iter().filter(|event| matches!(event, Event::Arrival(_))).count() as u64;
        let Flights { departed, arrived } = self.flights;
        if departed != arrived + under_way {
            return Err(Violation::LostTrack { departed, arrived, under_way });
        }
        Ok(())
    }

    pub(super) fn dropped(&mut self, reason: &'static str, count: u64) {
        if count > 0 {
            *self.report.dropped.entry(reason).or_default() += count;
        }
    }

    pub(super) fn count_drops(&mut self, node: NodeId) {
        match &mut self.stations[node.0].machine {
            Some(Machine::Legacy(legacy)) => {
                let count = legacy.counters.dropped;
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

    /// Everything that went wrong with the segments is over.
    pub(super) fn mend(&mut self) {
        for segment in &mut self.segments {
            segment.faults = Faults::default();
            for node in 0..self.stations.len() {
                segment.set_cut(NodeId(node), false);
            }
        }
    }

    // Frames.

    /// A frame or packet reaches a node.
    fn receive(&mut self, node: NodeId, link: LinkId, mut frame: Frame) -> Result<(), Violation> {
        let now = self.now;
        let station = &mut self.stations[node.0];
        match &mut station.machine {
            None => {
                self.dropped("node_down", 1);
                return Ok(());
            }
            Some(Machine::Legacy(legacy)) => {
                station.ledger.given += 1;
                legacy.handle_frame(&frame, now);
            }
            Some(machine) => {
                station.ledger.given += 1;
                let verdict = machine.node().map(|machine| machine.handle_frame(link, &mut frame, now));
                if let Some(Verdict::Forward(link)) = verdict {
                    self.emit(node, link, &frame)?;
                }
            }
        }
        self.drain(node)
    }

    pub(super) fn receive_from_program(&mut self, node: NodeId, packet: Vec<u8>) -> Result<(), Violation> {
        let station = &mut self.stations[node.0];
        if let Some(Machine::Legacy(legacy)) = &mut station.machine {
            station.ledger.given += 1;
            legacy.send(packet, self.now);
            return self.drain(node);
        }
        self.receive(node, TUN, Frame::from_packet(&packet))
    }

    /// Takes what a node wants to send, and checks what it promises.
    pub(super) fn drain(&mut self, node: NodeId) -> Result<(), Violation> {
        let now = self.now;
        self.converse(node)?;
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
        if let Err(counters) = machine.audit(station.ledger) {
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
        let station = &mut self.stations[node.0];
        station.ledger.sent += 1;
        let Some(Cable { segment, socket, .. }) = station.cables.get(link.0).copied() else {
            return self.deliver(node, frame.bytes());
        };
        self.check_frame(node, segment, frame.bytes())?;
        self.record(segment, frame.bytes());
        for (at, flight) in self.segments[segment.0].send(socket, frame.bytes(), &mut self.faults, self.now) {
            self.flights.departed += 1;
            self.queue.insert(at, Event::Arrival(flight));
        }
        Ok(())
    }

    fn record(&mut self, segment: SegmentId, bytes: &[u8]) {
        self.report.frames += 1;
        let micros = self.now.total_micros().unsigned_abs();
        self.hash.write(&micros.to_be_bytes());
        self.hash.write(&[segment.0 as u8]);
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
}

impl Report {
    fn new(seed: u64) -> Self {
        Self {
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
        }
    }
}
