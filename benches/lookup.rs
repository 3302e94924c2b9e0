//! `{IPv4, port}` → link-layer address: the neighbor table against maps that could stand in its place, with 1, 10^3
//! and 10^6 hosts, 16 on each address (scheme 0,4). Prints the bytes per host of each, then measures.
//!
//! A packet finds its next hop by what the one before it left in the caches: so each lookup here waits for the result
//! of the one before (`latency`). Lookups that do not wait overlap in the processor (`throughput`).

#![allow(unsafe_code, reason = "a global allocator is unsafe by its trait")]
#![allow(clippy::print_stdout, reason = "a bench prints its results")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(missing_docs, reason = "a macro makes the main function")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant as Clock};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pearp::neighbor::{Config, Neighbors, OwnId, OwnSet, Target};
use pearp::ports::{Psid, Scheme};
use pearp::wire::EthernetAddress;
use pearp::wire::pe_arp::{Claim, Lifetime, Message, PeAddress, Record};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustc_hash::{FxHashMap, FxHashSet};
use smoltcp::time::Instant;

/// Counts the bytes that live.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TCP: u8 = 6;
/// The length of a PSID: 16 hosts on an address.
const LENGTH: u8 = 4;
const NOW: Instant = Instant::from_micros_const(1_000_000);
/// So many that the caches do not hold what they lead to.
const QUERIES: usize = 1 << 20;

#[derive(Clone, Copy)]
struct HostKey {
    ip: Ipv4Addr,
    psid: Psid,
    hardware: EthernetAddress,
}

type Query = (Ipv4Addr, u16);

fn scheme() -> Scheme {
    Scheme::new(0, LENGTH).unwrap()
}

fn random_ip(rng: &mut ChaCha8Rng) -> Ipv4Addr {
    Ipv4Addr::from(0x0A00_0000 | rng.random_range(0x100..0xFF_FF00u32))
}

/// `count` hosts on random addresses, in random order.
fn hosts(count: usize, rng: &mut ChaCha8Rng) -> Vec<HostKey> {
    let sharers = scheme().sets() as usize;
    let mut addresses = FxHashSet::default();
    while addresses.len() < count.div_ceil(sharers) {
        addresses.insert(random_ip(rng));
    }
    let mut hosts: Vec<_> = addresses
        .iter()
        .flat_map(|ip| (0..scheme().sets() as u16).map(|value| (*ip, Psid::new(scheme(), value).unwrap())))
        .take(count)
        .zip(0u32..)
        .map(|((ip, psid), number)| {
            let [a, b, c, d] = number.wrapping_mul(0x9E37_79B1).to_be_bytes();
            HostKey { ip, psid, hardware: EthernetAddress([2, 0, a, b, c, d]) }
        })
        .collect();
    hosts.shuffle(rng);
    hosts
}

/// Queries that find a host, or that find none.
fn queries(hosts: &[HostKey], hit: bool, rng: &mut ChaCha8Rng) -> Vec<Query> {
    let known: FxHashSet<_> = hosts.iter().map(|host| (host.ip, host.psid.value())).collect();
    let mut queries = Vec::with_capacity(QUERIES);
    while queries.len() < QUERIES {
        let host = hosts[rng.random_range(0..hosts.len())];
        let ip = if hit || rng.random() { host.ip } else { random_ip(rng) };
        let port = if hit { host.psid.first() | rng.random_range(0..4096) } else { rng.random() };
        if known.contains(&(ip, scheme().psid_of(port))) == hit {
            queries.push((ip, port));
        }
    }
    queries
}

trait Lookup {
    fn lookup(&mut self, query: Query) -> Option<EthernetAddress>;
}

/// How the hosts of the table became known.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    Static,
    Leased,
    Learned,
}

fn neighbors(hosts: &[HostKey], known: Known) -> Neighbors {
    let addresses: FxHashSet<_> = hosts.iter().map(|host| host.ip).collect();
    let own = OwnSet {
        ip: Ipv4Addr::new(10, 0, 0, 1),
        records: vec![Record::new(Claim::Full, Lifetime::Unknown)],
        first_port: 0,
        shared: false,
        authoritative: true,
        until: None,
    };
    let config = Config {
        hardware: EthernetAddress([2, 0xFF, 0, 0, 0, 1]),
        prefix: "10.0.0.0/8".parse().unwrap(),
        router: true,
        own: vec![own],
        pe: true,
        schemes: addresses.into_iter().map(|ip| (ip, scheme())).collect(),
        proxy: true,
        authorities: Vec::new(),
        authority: false,
        seed: 1,
    };
    let mut neighbors = Neighbors::new(config, NOW);
    neighbors.hold_own(OwnId::FIRST);
    for (number, host) in hosts.iter().enumerate() {
        let record = |lifetime| [Record::new(Claim::Psid(host.psid), lifetime)];
        match known {
            Known::Static => {
                neighbors.insert_static(host.ip, host.hardware, &record(Lifetime::Unknown), NOW).unwrap();
            }
            Known::Leased => {
                // They did not all come at once.
                let now = NOW + smoltcp::time::Duration::from_millis(number as u64);
                neighbors.grant(host.ip, host.hardware, &record(Lifetime::Seconds(3600)), now).unwrap();
            }
            Known::Learned => {
                let sender = PeAddress { shared: true, ..PeAddress::new(host.ip) };
                let sender = sender.with_port(0, Some(host.psid.first()));
                let message = Message::announce(host.hardware, sender, &record(Lifetime::Unknown));
                neighbors.handle_pe(host.hardware, &message, NOW).unwrap();
            }
        }
    }
    neighbors
}

impl Lookup for Neighbors {
    fn lookup(&mut self, (ip, port): Query) -> Option<EthernetAddress> {
        self.next_hop(Target { ip, protocol: TCP, port: Some(port) }, NOW)
    }
}

/// An entry for each port: the shortest code, where it fits into the memory.
struct PerPort(FxHashMap<(Ipv4Addr, u16), EthernetAddress>);

impl PerPort {
    fn new(hosts: &[HostKey]) -> Self {
        let ports = |host: &HostKey| host.psid.ranges().flat_map(|range| range.ports());
        Self(hosts.iter().flat_map(|host| ports(host).map(|port| ((host.ip, port), host.hardware))).collect())
    }
}

impl Lookup for PerPort {
    fn lookup(&mut self, query: Query) -> Option<EthernetAddress> {
        self.0.get(&query).copied()
    }
}

/// An entry for each PSID: needs one scheme for all addresses, and no other form of claim.
struct PerPsid(FxHashMap<(Ipv4Addr, u16), EthernetAddress>);

impl PerPsid {
    fn new(hosts: &[HostKey]) -> Self {
        Self(hosts.iter().map(|host| ((host.ip, host.psid.value()), host.hardware)).collect())
    }
}

impl Lookup for PerPsid {
    fn lookup(&mut self, (ip, port): Query) -> Option<EthernetAddress> {
        self.0.get(&(ip, scheme().psid_of(port))).copied()
    }
}

/// An entry for each range of ports, by its first one: any ranges, but a set of a > 0 is many.
struct PerRange(BTreeMap<(Ipv4Addr, u16), (u16, EthernetAddress)>);

impl PerRange {
    fn new(hosts: &[HostKey]) -> Self {
        let ranges = hosts.iter().flat_map(|host| host.psid.ranges().map(move |range| (host, range)));
        Self(ranges.map(|(host, range)| ((host.ip, range.first()), (range.last(), host.hardware))).collect())
    }
}

impl Lookup for PerRange {
    fn lookup(&mut self, (ip, port): Query) -> Option<EthernetAddress> {
        let ((found, _), (last, hardware)) = self.0.range(..=(ip, port)).next_back()?;
        (*found == ip && port <= *last).then_some(*hardware)
    }
}

/// The time of `count` lookups. `wait`: each one starts when the one before has ended.
fn time(table: &mut impl Lookup, queries: &[Query], count: u64, wait: bool) -> Duration {
    let mut at = 0;
    let start = Clock::now();
    for _ in 0..count {
        let found = black_box(table.lookup(queries[at & (QUERIES - 1)]));
        // The top bit is never set, but only the result says so.
        let zero = if wait { usize::from(found.map_or(0, |hardware| hardware.0[0] >> 7)) } else { 0 };
        at += 1 + zero;
    }
    start.elapsed()
}

fn measure(c: &mut Criterion, name: &str, hosts: &[HostKey], table: &mut impl Lookup) {
    for (kind, hit) in [("hit", true), ("miss", false)] {
        let queries = queries(hosts, hit, &mut ChaCha8Rng::seed_from_u64(2));
        assert!(queries.iter().all(|query| table.lookup(*query).is_some() == hit));
        for (measure, wait) in [("latency", true), ("throughput", false)] {
            let mut group = c.benchmark_group(format!("{kind}/{measure}"));
            group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
            group.sample_size(40);
            group.bench_function(BenchmarkId::new(name, hosts.len()), |b| {
                b.iter_custom(|count| time(table, &queries, count, wait));
            });
        }
    }
}

/// Builds a table and prints what it takes.
fn weigh<T>(name: &str, hosts: &[HostKey], build: impl FnOnce(&[HostKey]) -> T) -> T {
    let before = LIVE.load(Ordering::Relaxed);
    let table = build(hosts);
    let bytes = LIVE.load(Ordering::Relaxed) - before;
    println!("bytes per host: {name}/{}: {:.1}", hosts.len(), bytes as f64 / hosts.len() as f64);
    table
}

fn lookup(c: &mut Criterion) {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    weigh("pearp-learned", &hosts(50_000, rng), |hosts| neighbors(hosts, Known::Learned));
    weigh("pearp-leased", &hosts(1_000_000, rng), |hosts| neighbors(hosts, Known::Leased));
    for count in [1, 1_000, 1_000_000] {
        let hosts = hosts(count, rng);
        measure(c, "pearp", &hosts, &mut weigh("pearp", &hosts, |hosts| neighbors(hosts, Known::Static)));
        if count <= 1_000 {
            measure(c, "per-port", &hosts, &mut weigh("per-port", &hosts, PerPort::new));
        }
        measure(c, "per-psid", &hosts, &mut weigh("per-psid", &hosts, PerPsid::new));
        measure(c, "per-range", &hosts, &mut weigh("per-range", &hosts, PerRange::new));
    }
}

criterion_group!(benches, lookup);
criterion_main!(benches);
