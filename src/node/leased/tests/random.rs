//! Hosts that lease, grow and shrink, and a router that leases, on a bad link, killed again and again: no port has two
//! holders, the router delivers none to another than its holder, and in the end every host has its addresses and no more.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::wire::pe_arp::Claim;

const SEEDS: u64 = 24;
/// What goes wrong does so until then: three times the time of a lease.
const CALM: i64 = 1800;
/// Time to get what is missing: a lease that nobody has any more ends, and who was refused asks again.
const HEALED: i64 = CALM + 2400;
/// Time to give back what is not needed, one set in 600 s.
const END: i64 = CALM + 9 * 600;
const PEER: EthernetAddress = SERVER_MAC;

/// A host, and what its programs do.
struct Machine {
    bench: Bench<LeasedHost>,
    config: LeasedConfig,
    /// Of the ports of each address, in percent.
    in_use: usize,
}

impl Machine {
    fn hardware(&self) -> EthernetAddress {
        self.config.client.hardware
    }

    /// The sets that it uses.
    fn held(&self) -> Vec<(Ipv4Addr, Psid)> {
        let Some(host) = self.bench.node.host() else { return Vec::new() };
        let sets = host.addresses().iter().flat_map(|of| of.sets().map(|(id, set)| (of.ip(), id, set)));
        let held = sets.filter(|(_, id, _)| host.phase_of(*id).holds());
        let psid = |set: &PortSet| if let PortSet::Psid(psid) = set { *psid } else { panic!("{set:?}") };
        held.map(|(ip, _, set)| (ip, psid(set))).collect()
    }

    fn observed(&self) -> Vec<(Ipv4Addr, u16)> {
        let Some(host) = self.bench.node.host() else { return Vec::new() };
        let of_address = |of: &HostAddress| {
            let open: Vec<_> = of.open_part().ports().map(|port| (of.ip(), port)).collect();
            let count = (open.len() * self.in_use).div_ceil(100);
            open.into_iter().take(count).collect::<Vec<_>>()
        };
        host.addresses().iter().flat_map(of_address).collect()
    }
}

struct World {
    rng: ChaCha8Rng,
    pools: String,
    /// That are shared.
    addresses: usize,
    now: Instant,
    router: Bench<Stored<Router>>,
    machines: Vec<Machine>,
    /// In order of arrival: to the router, or to a host.
    flight: Vec<(Instant, u64, Option<usize>, Frame)>,
    sent: u64,
    grown: usize,
    crossed: usize,
}

fn server(pools: &str, leases: Vec<crate::dhcp::Lease>, now: Instant) -> Bench<Stored<Router>> {
    let config = RouterConfig { authority: true, shared: Vec::new(), ..router_config() };
    let links = vec![ServerLink { link: LAN.0, address: config.links[LAN.0].address, router: Some(ROUTER) }];
    let mut node = Router::new(config, now);
    node.serve_dhcp(Server::new(Config::parse(pools, links, 1).unwrap(), leases, now), now);
    Bench { node: Stored(node), now }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Of 15 sets of one address there are not enough for everybody's wishes; of smaller ones, which take less time, there
        // are.
        let addresses = 1 + seed as usize % 3;
        let (last, length) = (1 + addresses, if seed.is_multiple_of(15) { 4 } else { 8 });
        let pools = format!(
            "lease = 600\n[[shared]]\naddresses = \"198.51.100.2-198.51.100.{last}\"\nscheme = [0, {length}]\n"
        );
        let now = Instant::from_secs(1);
        let machine = |(number, hardware): (usize, EthernetAddress)| {
            let client = client::Config { hardware, iaid: 0, seed: rng.random(), ..config().client };
            let options = host_config(hardware, "0,4,1").options;
            let config = LeasedConfig { options, client, addresses: 1 + number as u32 % 2, ..config() };
            let bench = Bench { node: LeasedHost::new(config.clone(), now), now };
            Machine { bench, config, in_use: 0 }
        };
        let machines = [A, B, C].into_iter().enumerate().map(machine).collect();
        let router = server(&pools, Vec::new(), now);
        let (flight, sent, grown, crossed) = (Vec::new(), 0, 0, 0);
        Self { rng, pools, addresses, now, router, machines, flight, sent, grown, crossed }
    }

    fn is_calm(&self) -> bool {
        self.now >= Instant::from_secs(CALM)
    }

    /// What a node sent reaches the others, or not.
    fn carry(&mut self, sent: Vec<(LinkId, Frame)>) {
        for (_, frame) in sent.into_iter().filter(|(link, _)| *link == LAN) {
            let ethernet = EthernetFrame::new_checked(frame.bytes()).unwrap();
            let (source, destination) = (ethernet.src_addr(), ethernet.dst_addr());
            let reaches = |hardware| hardware != source && is_for(destination, hardware);
            let hosts = self.machines.iter().map(Machine::hardware).enumerate();
            let hosts = hosts.filter(|(_, hardware)| reaches(*hardware)).map(|(number, _)| Some(number));
            let all: Vec<_> = hosts.chain(reaches(ROUTER_MAC).then_some(None)).collect();
            for to in all {
                let (calm, dice) = (self.is_calm(), self.rng.random_range(0..20));
                let copies = if calm { 1 } else { [0, 0, 0, 2].get(dice).copied().unwrap_or(1) };
                for _ in 0..copies {
                    let late = if calm || self.rng.random_bool(0.9) { 5 } else { 3000 };
                    let at = self.now + Duration::from_millis(self.rng.random_range(1..=late));
                    self.sent += 1;
                    self.flight.push((at, self.sent, to, frame.clone()));
                }
            }
        }
    }

    /// A host does one thing.
    fn act(&mut self, number: usize, act: impl FnOnce(&mut LeasedHost, Instant)) {
        let bench = &mut self.machines[number].bench;
        bench.now = self.now;
        let (sent, _) = bench.step(act);
        while bench.node.poll_event().is_some() {}
        self.carry(sent);
    }

    fn observe(&mut self, number: usize) {
        let in_use = self.machines[number].observed();
        self.act(number, |node, now| node.observe(&in_use, now));
        let clients = self.machines[number].bench.node.clients();
        let count = clients.filter(|client| client.lease().is_some()).count();
        self.grown += usize::from(count > self.machines[number].config.addresses as usize);
    }

    /// A program says something to the outside, and the outside to a program.
    fn talk(&mut self, number: usize) {
        let held = self.machines[number].held();
        let Some((ip, set)) = held.get(self.rng.random_range(0..held.len().max(1))).copied() else { return };
        let port = set.first() + self.rng.random_range(0..256);
        let packet = Frame::from_packet(&udp((ip, port), (SERVER, 53), b"?"));
        let bench = &mut self.machines[number].bench;
        bench.now = self.now;
        let outcome = bench.give(TUN, packet);
        let mut sent = outcome.sent;
        if let Verdict::Forward(link) = outcome.verdict {
            sent.push((link, outcome.frame));
        }
        self.carry(sent);
        if let Some(to) = self.arrives((ip, port)) {
            assert_eq!(to, self.machines[number].hardware(), "at {}: {ip}:{port}", self.now);
            self.crossed += 1;
        }
    }

    /// To whom the router delivers a packet from outside.
    fn arrives(&mut self, to: Endpoint) -> Option<EthernetAddress> {
        self.router.now = self.now;
        let frame = ethernet(PEER, OUTSIDE_MAC, &udp((SERVER, 53), to, b"!"));
        let outcome = self.router.give(OUTSIDE, frame);
        let forwarded = outcome.verdict == Verdict::Forward(LAN);
        let to = forwarded.then(|| EthernetFrame::new_unchecked(outcome.frame.bytes()).dst_addr());
        let mut sent = outcome.sent;
        sent.extend(forwarded.then_some((LAN, outcome.frame)));
        self.carry(sent);
        to
    }

    /// The router is killed, and knows what it has stored.
    fn restart_router(&mut self) {
        let leases = self.router.node.0.leases().filter(|lease| lease.state != LeaseState::Offered);
        let leases = leases.cloned().collect();
        self.router = server(&self.pools, leases, self.now);
        let (sent, _) = self.router.step(|_, _| ());
        self.carry(sent);
    }

    /// A host ends, with or without a word, and starts again, some of them without what they knew.
    fn restart_host(&mut self, number: usize) {
        let mut stored = self.machines[number].bench.node.kept();
        let dice = self.rng.random_range(0..4);
        if dice == 0 {
            self.act(number, |node, now| node.release(now));
        }
        if dice < 2 {
            stored.clear();
        }
        let machine = &mut self.machines[number];
        machine.in_use = 0;
        machine.config.client.seed = self.rng.random();
        let config = LeasedConfig { stored, ..machine.config.clone() };
        machine.bench = Bench { node: LeasedHost::new(config, self.now), now: self.now };
        self.act(number, |_, _| ());
    }

    fn happen(&mut self) {
        let number = self.rng.random_range(0..self.machines.len());
        match self.rng.random_range(0..40) {
            0 => self.restart_router(),
            1 => self.restart_host(number),
            2..8 => {
                self.machines[number].in_use = [0, 0, 5, 50, 90, 100][self.rng.random_range(0..6)];
                self.observe(number);
            }
            _ => self.talk(number),
        }
    }

    /// All that is due now.
    fn run_timers(&mut self) {
        self.router.now = self.now;
        if self.router.node.poll_timeout(self.now).is_some_and(|at| at <= self.now) {
            let (sent, _) = self.router.step(|node, now| node.handle_timeout(now));
            assert!(self.router.node.poll_timeout(self.now).is_none_or(|at| at > self.now), "stays due");
            self.carry(sent);
        }
        for number in 0..self.machines.len() {
            let now = self.now;
            if self.machines[number].bench.node.poll_timeout(now).is_some_and(|at| at <= now) {
                self.act(number, |node, now| node.handle_timeout(now));
                let node = &mut self.machines[number].bench.node;
                assert!(node.poll_timeout(now).is_none_or(|at| at > now), "stays due");
                if node.wants_look() {
                    self.observe(number);
                }
            }
        }
    }

    fn receive(&mut self) {
        let now = self.now;
        let mut arrived: Vec<_> = self.flight.extract_if(.., |(at, ..)| *at <= now).collect();
        arrived.sort_by_key(|(at, order, ..)| (*at, *order));
        for (_, _, to, frame) in arrived {
            let sent = match to {
                None => {
                    self.router.now = now;
                    give_on(&mut self.router, frame)
                }
                Some(number) => {
                    self.machines[number].bench.now = now;
                    give_on(&mut self.machines[number].bench, frame)
                }
            };
            self.carry(sent);
        }
    }

    /// Everything until then, with something that happens every few seconds.
    fn run_until(&mut self, end: i64) {
        let end = Instant::from_secs(end);
        let mut next_fate = self.now;
        while self.now < end {
            let now = self.now;
            let mut due = vec![end];
            due.extend(self.flight.iter().map(|(at, ..)| *at).min());
            due.extend(self.router.node.poll_timeout(now));
            due.extend(self.machines.iter_mut().filter_map(|of| of.bench.node.poll_timeout(now)));
            due.extend(Some(next_fate).filter(|_| !self.is_calm()));
            self.now = due.into_iter().min().unwrap().max(now);
            self.receive();
            self.run_timers();
            if !self.is_calm() && next_fate <= self.now {
                next_fate = self.now + Duration::from_millis(self.rng.random_range(10..20_000));
                self.happen();
            }
            self.check();
        }
    }

    /// What the router delivers, and to whom.
    fn bindings(&self) -> Vec<(EthernetAddress, (Ipv4Addr, Psid))> {
        let entries = self.router.node.neighbors(self.now).into_iter().map(|(_, entry)| entry);
        let leased = entries.filter(|entry| entry.source == "lease");
        let binding = |entry: Entry| match entry.claim {
            Claim::Psid(psid) => (entry.hardware.unwrap(), (entry.ip, psid)),
            claim => panic!("{claim:?}"),
        };
        leased.map(binding).collect()
    }

    fn holders(&self) -> Vec<(EthernetAddress, (Ipv4Addr, Psid))> {
        let of = |one: &Machine| one.held().into_iter().map(|set| (one.hardware(), set)).collect::<Vec<_>>();
        self.machines.iter().flat_map(of).collect()
    }

    fn check(&self) {
        let holders = self.holders();
        // A binding may outlive the use; it is never in the way of another one.
        for (hardware, (ip, set)) in self.bindings().iter().chain(&holders) {
            let collides = |(other, (other_ip, other_set)): &&(EthernetAddress, (Ipv4Addr, Psid))| {
                other != hardware && other_ip == ip && other_set.intersects(*set)
            };
            let other = holders.iter().find(collides);
            assert!(other.is_none(), "at {}: {hardware} has {ip} {set}, and so has {other:?}", self.now);
        }
    }

    /// Every host has the addresses that it wants, as far as there are so many.
    fn check_addresses(&self) {
        for machine in &self.machines {
            let mut addresses: Vec<_> = machine.held().iter().map(|(ip, _)| *ip).collect();
            addresses.sort();
            addresses.dedup();
            let wanted = self.addresses.min(machine.config.addresses as usize);
            assert!(addresses.len() >= wanted, "at {}: {addresses:?} {:?}", self.now, machine.bench.node);
        }
    }
}

/// How often a host had more than its first sets, and how often a packet from outside got through.
fn play(seed: u64) -> (usize, usize) {
    let mut world = World::new(seed);
    world.run_until(CALM);
    world.machines.iter_mut().for_each(|machine| machine.in_use = 0);
    for number in 0..world.machines.len() {
        world.observe(number);
    }
    world.run_until(HEALED);
    world.check_addresses();
    world.run_until(END);
    world.check_addresses();
    // Nothing is left of what was more, and everybody knows what there is.
    for machine in &world.machines {
        let node = &machine.bench.node;
        let states: Vec<_> = node.clients().map(Client::state).collect();
        assert_eq!(states.len(), machine.config.addresses as usize, "seed {seed}: {:?}", node.tenancies);
        let ids = node.host().unwrap().addresses().iter().flat_map(HostAddress::sets);
        assert!(!ids.into_iter().any(|(id, _)| node.is_draining(id)), "seed {seed}");
    }
    let (mut bindings, mut holders) = (world.bindings(), world.holders());
    bindings.sort();
    holders.sort();
    assert_eq!(bindings, holders, "seed {seed}");
    for (hardware, (ip, set)) in holders {
        assert_eq!(world.arrives((ip, set.first())), Some(hardware), "seed {seed}");
    }
    (world.grown, world.crossed)
}

fn play_all(seeds: core::ops::Range<u64>) {
    let count = (seeds.end - seeds.start) as usize;
    let (grown, crossed) = seeds.map(play).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(grown > 10 * count && crossed > 50 * count, "{grown} {crossed}");
}

#[test]
fn hosts_share_what_they_lease() {
    play_all(0..SEEDS);
}

/// `scripts/soak --leases` runs it.
#[test]
#[ignore = "takes longer than the others together"]
fn hosts_share_what_they_lease_for_long() {
    let seeds: u64 = option_env!("PEARP_SOAK_SEEDS").map_or(1000, |text| text.parse().unwrap());
    play_all(SEEDS..SEEDS + seeds);
}
