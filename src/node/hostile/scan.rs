//! Port scans: few questions, and no live traffic waits for them.

use smoltcp::time::Instant;
use smoltcp::wire::Ipv4Cidr;

use super::*;
use crate::node::RouterConfig;
use crate::ports::{PortRange, Psid, Scheme};
use crate::wire::pe_arp::Kind;

/// A router whose LAN has these shared addresses, and knows a server outside.
fn router_of(shared: Vec<(Ipv4Addr, Scheme)>) -> Bench<Router> {
    let now = Instant::from_secs(1);
    let mut bench = Bench { node: Router::new(RouterConfig { shared, ..router_config() }, now), now };
    bench.pass(Duration::from_secs(5));
    bench.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (EthernetAddress([0; 6]), OUTSIDE_ROUTER)));
    bench
}

fn from_outside(to: Endpoint) -> Frame {
    ethernet(SERVER_MAC, OUTSIDE_MAC, &tcp((SERVER, 443), to))
}

/// Asked blocks of an address, by PSID, and when each was asked for.
#[derive(Default)]
struct Questions(BTreeMap<(Ipv4Addr, u16), Vec<Instant>>);

impl Questions {
    fn note(&mut self, now: Instant, scheme: Scheme, sent: &[(LinkId, Frame)]) {
        for (_, frame) in sent {
            let Some(message) = message_of(frame) else { continue };
            if message.kind() == Kind::Resolve && addresses(frame).1.is_broadcast() {
                let block = scheme.psid_of(message.target.port.unwrap());
                self.0.entry((message.target.ip, block)).or_default().push(now);
            }
        }
    }
}

fn add(all: &mut Counted, counted: Counted) {
    for (name, count) in counted {
        *all.entry(name).or_default() += count;
    }
}

/// Speed of a scan: all ports in about a second.
const PORTS_PER_MILLI: usize = 64;

/// Rules 36, 38 and 48: a scan of all ports asks at most one question per PSID, each at most 3 times while it is
/// failed, and live traffic is forwarded at once in both directions all the while.
#[test]
fn a_scan_does_not_hold_up_live_traffic() {
    for (scheme, own) in [("0,4", "0,4,1"), ("0,10", "0,10,78"), ("6,10", "6,10,0")] {
        let scheme: Scheme = scheme.parse().unwrap();
        let own: Psid = own.parse().unwrap();
        let mut bench = router_of(vec![(SHARED, scheme)]);
        bench.give(LAN, announce(A, SHARED, record(Claim::Psid(own))));
        let inbound = from_outside((SHARED, own.first()));
        let outbound = ethernet(A, ROUTER_MAC, &tcp((SHARED, own.first()), (SERVER, 443)));
        let mut questions = Questions::default();
        let start = bench.now;
        let mut all = Counted::new();
        // 65,536 probes in 1 s, or a little more.
        for first in (0..=u16::MAX).step_by(PORTS_PER_MILLI) {
            let ports = (0..PORTS_PER_MILLI as u16).map(|n| first + n).filter(|port| !own.contains(*port));
            let probes = ports.map(|port| from_outside((SHARED, port)));
            let (sent, counted) = give_all(&mut bench, OUTSIDE, probes);
            questions.note(bench.now, scheme, &sent);
            add(&mut all, counted);
            let outcome = bench.give(OUTSIDE, inbound.clone());
            outcome.is_forwarded(LAN);
            assert_eq!(addresses(&outcome.frame).1, A);
            let outcome = bench.give(LAN, outbound.clone());
            outcome.is_forwarded(OUTSIDE);
            assert_eq!(addresses(&outcome.frame).1, SERVER_MAC);
            let (sent, counted) = bench.pass(Duration::from_millis(1));
            questions.note(bench.now, scheme, &sent);
            add(&mut all, counted);
        }
        assert!(bench.now - start < Duration::from_secs(3), "within one negative lifetime");
        assert!(!questions.0.is_empty() && questions.0.len() < scheme.sets() as usize, "{scheme}");
        assert!(questions.0.values().all(|times| times.len() <= 3), "{scheme}");
        // Each probe waits, found no room to wait, or was for a port of no PSID; of the latter, 10 in a second are told.
        let of = |name| all.get(name).copied().unwrap_or(0);
        let asked: usize = questions.0.values().map(Vec::len).sum();
        assert_eq!(of("received"), 65_536 - i64::from(own.count()));
        assert_eq!(of("received"), of("pending") + of("pending_full") + of("unassigned_port"));
        assert_eq!(of("unassigned_port"), if scheme.offset() == 0 { 0 } else { 1024 });
        assert_eq!((of("arp_sent"), of("originated")), (asked as i64, of("forwarded")));
        assert_eq!(of("forwarded"), if scheme.offset() == 0 { 0 } else { 10 });
        let names =
            ["arp_sent", "forwarded", "originated", "pending", "pending_full", "received", "unassigned_port"];
        assert!(all.keys().all(|name| names.contains(name)), "{all:?}");
    }
}

/// Rules 38 and 42: a scan that goes on asks each question 3 times, a second apart, and then keeps quiet for 3 s, 6 s,
/// and so on up to 60 s.
#[test]
fn a_scan_that_goes_on_asks_ever_less() {
    let scheme: Scheme = "0,4".parse().unwrap();
    let mut bench = router_of(vec![(SHARED, scheme)]);
    bench.give(LAN, announce(A, SHARED, psid("0,4,1")));
    let live = from_outside((SHARED, 5000));
    let start = bench.now;
    let mut questions = Questions::default();
    // A probe of each set every 100 ms, of another port each time.
    for round in 0..2000_u16 {
        let sets = (0..16).filter(|set| *set != 1);
        let probes = sets.map(|set| from_outside((SHARED, set << 12 | round)));
        let (sent, _) = give_all(&mut bench, OUTSIDE, probes);
        questions.note(bench.now, scheme, &sent);
        // A stale binding in use is confirmed by its owner.
        bench.give(OUTSIDE, live.clone()).is_forwarded(LAN);
        let (sent, _) = bench.pass(Duration::from_millis(100));
        questions.note(bench.now, scheme, &sent);
        if let Some((_, probe)) =
            sent.iter().find(|(_, frame)| addresses(frame).1 == A && message_of(frame).is_some())
        {
            bench.give(LAN, reply(A, probe, psid("0,4,1")));
        }
    }
    assert_eq!(questions.0.len(), 15);
    // Each failure lasts 3 s of questions and its negative.
    let expected: Vec<u64> =
        [0, 6, 15, 30, 57, 108, 171].into_iter().flat_map(|at| [at, at + 1, at + 2]).collect();
    for ((_, block), times) in &questions.0 {
        let seconds: Vec<_> = times.iter().map(|at| (*at - start).secs()).collect();
        assert_eq!(seconds, expected, "block {block}");
    }
}

/// How long it takes until the owner of a port is asked for and, as it answers at once, found; and whether the first
/// packet to it could wait so long. `scan` goes on meanwhile.
fn find_owner(
    bench: &mut Bench<Router>,
    to: Endpoint,
    mut scan: impl FnMut(&mut Bench<Router>),
) -> (Duration, bool) {
    let start = bench.now;
    let first = bench.give(OUTSIDE, from_outside(to));
    let waits = first.verdict == Verdict::Pending;
    let mut sent = first.sent;
    loop {
        let asks = |(_, frame): &&(LinkId, Frame)| {
            message_of(frame).is_some_and(|it| it.target.ip == to.0 && it.target.port == Some(to.1))
        };
        if let Some((_, question)) = sent.iter().find(asks) {
            let port = record(Claim::Range(PortRange::single(to.1)));
            let outcome = bench.give(LAN, reply(C, question, port));
            assert_eq!(outcome.verdict, Verdict::Delivered);
            let released = outcome.sent.iter().any(|(_, frame)| addresses(frame).1 == C);
            assert_eq!(released, waits, "the answer lets go what waits");
            let next = bench.give(OUTSIDE, from_outside(to));
            next.is_forwarded(LAN);
            assert_eq!(addresses(&next.frame).1, C);
            return (bench.now - start, waits);
        }
        assert!(bench.now - start < Duration::from_secs(60), "never asked");
        scan(bench);
        sent = bench.pass(Duration::from_millis(1)).0;
    }
}

/// Rule 48: addresses take turns. While n of them are scanned, an owner on another one is asked for after n + 1 of the
/// link's tokens, 5 ms each.
#[test]
fn a_new_owner_is_found_during_scans() {
    let scheme: Scheme = "0,10".parse().unwrap();
    let scanned = |n: u8| Ipv4Addr::new(198, 51, 100, 100 + n);
    for addresses in [1, 10] {
        let mut shared: Vec<_> = (0..addresses).map(|n| (scanned(n), scheme)).collect();
        shared.push((SHARED, scheme));
        let mut bench = router_of(shared);
        let mut block = 0_u16;
        let mut scan = |bench: &mut Bench<Router>| {
            let probes = (0..64_u16).flat_map(|more| {
                let port = block.wrapping_add(more).wrapping_mul(64);
                (0..addresses).map(move |n| from_outside((scanned(n), port)))
            });
            give_all(bench, OUTSIDE, probes);
            block = block.wrapping_add(64);
        };
        // Until each block has been asked for, or waits for its turn.
        for _ in 0..16 {
            scan(&mut bench);
            bench.pass(Duration::from_millis(1));
        }
        let (time, first_arrives) = find_owner(&mut bench, (SHARED, 5000), &mut scan);
        assert!(
            time <= Duration::from_millis(5 * (u64::from(addresses) + 1)),
            "{addresses} addresses: {time}"
        );
        assert!(first_arrives);
    }
}

/// Rules 46 to 48: an owner on the scanned address itself is asked for at once where the burst of the address has one
/// question for every set; where the link cannot carry so many, after the backlog of that address. Its first packets
/// may find no room there.
#[test]
fn a_new_owner_on_the_scanned_address() {
    for (scheme, most, room) in [("0,4", 0, true), ("0,10", 1024 * 5, false)] {
        let scheme: Scheme = scheme.parse().unwrap();
        let mut bench = router_of(vec![(SHARED, scheme)]);
        let others = (0..=u16::MAX).filter(|port| scheme.psid_of(*port) != scheme.psid_of(5000));
        give_all(&mut bench, OUTSIDE, others.step_by(64).map(|port| from_outside((SHARED, port))));
        let (time, first_arrives) = find_owner(&mut bench, (SHARED, 5000), |_| {});
        assert!(time <= Duration::from_millis(most), "{scheme}: {time}");
        assert_eq!(first_arrives, room, "{scheme}");
    }
}

/// Rules 7 and 89: a neighbor that scans a sharing host hears nothing of the ports that are not the host's.
#[test]
fn a_scan_of_a_host_is_not_answered() {
    let mut bench = confirmed_host();
    Host::live(&mut bench);
    let state = state_of(&bench);
    let probes = (0..=u16::MAX).filter(|port| port >> 12 != 1).map(|port| {
        let (from, to) = ((WHOLE, 999), (SHARED, port));
        ethernet(C, A, &if port % 2 == 0 { tcp(from, to) } else { udp(from, to, b"") })
    });
    let (sent, counted) = give_all(&mut bench, LAN, probes);
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!(counted, [("received", 61_440), ("not_our_port", 61_440)].into());
    assert!(state_of(&bench) == state);
    Host::live(&mut bench);
}

/// Rules 36 and 38 bind a host, too: its programs may scan the other sharers of its address.
#[test]
fn a_program_that_scans_asks_one_question_per_set() {
    let mut bench = confirmed_host();
    let scheme: Scheme = "0,4".parse().unwrap();
    let mut questions = Questions::default();
    for first in (0..=u16::MAX).step_by(PORTS_PER_MILLI).filter(|port| ![1, 2].contains(&(port >> 12))) {
        let ports = (0..PORTS_PER_MILLI as u16).map(|n| first + n);
        let probes = ports.map(|port| Frame::from_packet(&tcp((SHARED, 5000), (SHARED, port))));
        let (sent, _) = give_all(&mut bench, TUN, probes);
        questions.note(bench.now, scheme, &sent);
        Host::live(&mut bench);
        let (sent, _) = bench.pass(Duration::from_millis(1));
        questions.note(bench.now, scheme, &sent);
    }
    assert_eq!(questions.0.len(), 14, "one for each set that is neither its own nor B's");
    assert!(questions.0.values().all(|times| times.len() <= 3));
}

/// Rules 46 to 48 and 121: every port of 256 addresses in about four minutes; without optimization, one of each 64.
/// Who learns owners asks what the link allows, and no more; who is told of them asks nobody. No more packets wait
/// than there is room for.
#[test]
fn a_scan_of_every_port_of_256_addresses() {
    const ADDRESSES: u8 = 255;
    const PER_SECOND: usize = 200;
    const STEP: usize = if cfg!(debug_assertions) { 64 } else { 1 };
    let scheme: Scheme = "0,4".parse().unwrap();
    let scanned = |n: u8| Ipv4Addr::new(198, 18, 0, n);
    for authority in [false, true] {
        let now = Instant::from_secs(1);
        let shared = (0..=ADDRESSES).map(|n| (scanned(n), scheme)).collect();
        let mut config = RouterConfig { shared, authority, ..router_config() };
        let network = Ipv4Cidr::new(Ipv4Addr::new(198, 18, 255, 1), 16);
        config.links[LAN.0].address = network;
        let mut bench = Bench { node: Router::new(config, now), now };
        bench.pass(Duration::from_secs(5));
        bench.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (EthernetAddress([0; 6]), OUTSIDE_ROUTER)));
        let start = bench.now;
        let (mut asked, mut waiting) = (0, 0);
        for port in (0..=u16::MAX).step_by(STEP) {
            let probes = (0..=ADDRESSES).map(|n| from_outside((scanned(n), port)));
            let (sent, _) = give_all(&mut bench, OUTSIDE, probes);
            asked += sent.iter().filter(|(_, frame)| message_of(frame).is_some()).count();
            waiting = bench.node.counters().pending.max(waiting);
            let (sent, _) = bench.pass(Duration::from_millis(4) * STEP as u32);
            asked += sent.iter().filter(|(_, frame)| message_of(frame).is_some()).count();
        }
        let seconds = (bench.now - start).secs() as usize + 1;
        let most = if authority { 0 } else { PER_SECOND * (seconds + 1) };
        assert!(asked <= most, "{asked} questions in {seconds} s");
        // The packets of one question for each of 16 sets of each address; else what is told to the server outside.
        let room = if authority { 16 } else { 256 * 16 * 16 };
        assert!(waiting <= room, "{waiting} wait");
        assert!(bench.node.counters().is_balanced());
    }
}
