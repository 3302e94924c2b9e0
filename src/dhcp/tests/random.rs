//! Fifty clients on a bad link, and a server that is killed again and again: no two leases that clients hold ever
//! overlap, and in the end every client has one.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const CLIENTS: usize = 50;
const SEEDS: u64 = 50;
/// Three weeks, the last day of them without faults.
const END: i64 = 21 * 86_400;
const CALM: i64 = 20 * 86_400;
/// A client asks again after so many seconds.
const RETRY: i64 = 8;

/// 60 sets for 40 clients, 12 addresses for 10.
const FILE: &str = r#"
lease = 345600
[[shared]]
addresses = "198.51.100.2-198.51.100.5"
scheme = [0, 4]
[[whole]]
addresses = "198.51.100.100-198.51.100.111"
"#;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Init,
    Requesting,
    Bound,
}

#[derive(Debug)]
struct Client {
    hardware: EthernetAddress,
    shares: bool,
    stage: Stage,
    slot: Option<(Ipv4Addr, Psid)>,
    /// When the request that is answered was sent: RFC 2131 §4.4.1.
    asked: Instant,
    /// The end of what it holds.
    until: Instant,
    xid: u32,
    wake: Instant,
}

enum Packet {
    ToServer(EthernetAddress, Vec<u8>),
    ToClient(usize, Vec<u8>),
}

struct World {
    bench: Bench,
    rng: ChaCha8Rng,
    clients: Vec<Client>,
    /// In order of arrival.
    flight: Vec<(Instant, u64, Packet)>,
    sent: u64,
    now: Instant,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let client = |at_number: usize| Client {
            hardware: mac(at_number as u8 + 1),
            shares: !at_number.is_multiple_of(5),
            stage: Stage::Init,
            slot: None,
            asked: at(0),
            until: at(0),
            xid: 0,
            wake: at(rng.random_range(0..600)),
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { bench: Bench::new(FILE), rng, clients, flight: Vec::new(), sent: 0, now: at(0) }
    }

    fn is_calm(&self) -> bool {
        self.now >= at(CALM)
    }

    /// Lost, duplicated, and late enough to be overtaken.
    fn send(&mut self, make: impl Fn() -> Packet) {
        let copies = match self.rng.random_range(0..10) {
            _ if self.is_calm() => 1,
            0..2 => 0,
            2 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late = if self.rng.random_bool(0.1) && !self.is_calm() { 20_000 } else { 200 };
            let delay = Duration::from_millis(self.rng.random_range(0..late));
            self.sent += 1;
            self.flight.push((self.now + delay, self.sent, make()));
        }
    }

    fn message(&self, number: usize, kind: MessageType) -> Ask {
        let client = &self.clients[number];
        let mut ask =
            if client.shares { ask(kind, client.hardware) } else { ask_legacy(kind, client.hardware) };
        ask.message.set_xid(client.xid);
        ask
    }

    fn with_set(ask: Ask, set: Psid) -> Ask {
        if set == Psid::FULL { ask } else { ask.set(set) }
    }

    fn wake(&mut self, number: usize) {
        let now = self.now;
        let random = self.rng.random::<u32>();
        let calm = self.is_calm();
        let leaves = !calm && self.rng.random_bool(0.3);
        let client = &mut self.clients[number];
        client.wake =
            now + Duration::from_secs(RETRY as u64) + Duration::from_millis(u64::from(random % 2000));
        if client.stage == Stage::Bound && now >= client.until {
            (client.stage, client.slot) = (Stage::Init, None);
        }
        client.xid = random;
        match (client.stage, client.slot) {
            (Stage::Bound, Some((ip, set))) if leaves => {
                let declines = random % 8 == 0;
                (client.stage, client.slot) = (Stage::Init, None);
                client.wake = now + Duration::from_secs(u64::from(random % 20_000));
                let kind = if declines { MessageType::Decline } else { MessageType::Release };
                self.send_from(number, kind, |ask| {
                    let ask = Self::with_set(ask, set).server();
                    if declines { ask.requested(ip) } else { ask.ciaddr(ip) }
                });
            }
            (Stage::Bound, Some((ip, set))) => {
                client.asked = now;
                // Rule 101, for some.
                let reboots = random % 3 == 0;
                self.send_from(number, MessageType::Request, |ask| {
                    let ask = Self::with_set(ask, set);
                    if reboots { ask.requested(ip) } else { ask.ciaddr(ip) }
                });
            }
            _ => {
                client.stage = Stage::Init;
                self.send_from(number, MessageType::Discover, |ask| ask);
            }
        }
    }

    fn send_from(&mut self, number: usize, kind: MessageType, build: impl Fn(Ask) -> Ask) {
        let base = || self.message(number, kind);
        let bytes = build(base()).bytes();
        let source = self.clients[number].hardware;
        self.send(|| Packet::ToServer(source, bytes.clone()));
    }

    fn receive(&mut self, number: usize, bytes: &[u8]) {
        let message = v4::Message::decode(&mut Decoder::new(bytes)).unwrap();
        let answer = Answer { destination: Destination::Broadcast, message, bytes: bytes.to_vec() };
        let now = self.now;
        let client = &mut self.clients[number];
        if answer.message.xid() != client.xid {
            return;
        }
        match (answer.kind(), client.stage) {
            (MessageType::Offer, Stage::Init) => {
                let (ip, set) = answer.slot();
                (client.stage, client.slot, client.asked) = (Stage::Requesting, Some((ip, set)), now);
                client.wake = now + Duration::from_secs(RETRY as u64);
                self.send_from(number, MessageType::Request, |ask| {
                    Self::with_set(ask, set).server().requested(ip)
                });
            }
            (MessageType::Ack, Stage::Requesting | Stage::Bound) => {
                assert_eq!(Some(answer.slot()), client.slot, "another lease than it asked for");
                let lease = u64::from(answer.seconds(OptionCode::AddressLeaseTime));
                client.stage = Stage::Bound;
                client.until = client.asked + Duration::from_secs(lease);
                client.wake = client.asked + Duration::from_secs(lease / 2);
                self.check(number);
            }
            (MessageType::Nak, _) => {
                (client.stage, client.slot) = (Stage::Init, None);
                client.wake = now + Duration::from_secs(1);
            }
            _ => {}
        }
    }

    fn holds(&self, number: usize) -> Option<(Ipv4Addr, Psid)> {
        let client = &self.clients[number];
        client.slot.filter(|_| client.stage == Stage::Bound && self.now < client.until)
    }

    /// The one property that matters.
    fn check(&self, number: usize) {
        let Some((ip, set)) = self.holds(number) else { return };
        for other in (0..CLIENTS).filter(|other| *other != number) {
            if let Some((other_ip, other_set)) = self.holds(other) {
                assert!(
                    ip != other_ip || !set.intersects(other_set),
                    "at {}: clients {number} and {other} both have {ip} {set} {other_set}",
                    self.now
                );
            }
        }
    }

    fn serve(&mut self, source: EthernetAddress, bytes: &[u8]) {
        let arrival = Arrival { link: LAN, source };
        let now = self.now;
        if self.bench.server.handle_message(arrival, bytes, now).is_err() {
            return;
        }
        if !self.is_calm() && self.rng.random_bool(0.05) {
            // Killed before or after what it wanted to store is stored; nothing has left.
            let stored = self.rng.random_bool(0.5);
            while let Some(event) = self.bench.server.poll_event() {
                if let (Event::Commit(lease), true) = (event, stored) {
                    self.bench.disk.retain(|other| (other.ip, other.set) != (lease.ip, lease.set));
                    self.bench.disk.push(lease);
                }
            }
            let config = self.bench.server.config().clone();
            self.bench.restart_with(config, now);
            return;
        }
        self.bench.disk_works = self.is_calm() || self.rng.random_bool(0.95);
        self.bench.drain(now);
        while let Some(reply) = self.bench.server.poll_transmit() {
            let to: Vec<_> = match reply.destination {
                Destination::Client(hardware, _) => {
                    (0..CLIENTS).filter(|number| self.clients[*number].hardware == hardware).collect()
                }
                _ => (0..CLIENTS).collect(),
            };
            for number in to {
                self.send(|| Packet::ToClient(number, reply.message.clone()));
            }
        }
    }

    fn run(&mut self) {
        while self.now < at(END) {
            let wakes = self.clients.iter().map(|client| client.wake).min();
            let arrives = self.flight.iter().map(|(at, ..)| *at).min();
            let ends = self.bench.server.poll_timeout();
            let next = [wakes, arrives, ends].into_iter().flatten().min().expect("clients always wake");
            self.now = self.now.max(next);
            if ends.is_some_and(|at| at <= self.now) {
                self.bench.timeout(self.now);
            }
            let due = |(at, ..): &(Instant, u64, Packet)| *at <= self.now;
            let mut arrived: Vec<_> = self.flight.extract_if(.., |packet| due(packet)).collect();
            arrived.sort_by_key(|(at, order, _)| (*at, *order));
            for (_, _, packet) in arrived {
                match packet {
                    Packet::ToServer(source, bytes) => self.serve(source, &bytes),
                    Packet::ToClient(number, bytes) => self.receive(number, &bytes),
                }
            }
            for number in 0..CLIENTS {
                if self.clients[number].wake <= self.now {
                    self.wake(number);
                }
            }
        }
    }
}

#[test]
fn leases_never_overlap_and_everybody_gets_one() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.run();
        for number in 0..CLIENTS {
            assert!(world.holds(number).is_some(), "seed {seed}: {:?}", world.clients[number]);
            world.check(number);
        }
    }
}
