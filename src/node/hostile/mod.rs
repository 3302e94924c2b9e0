//! Hostile input, given to the router and to a host that shares the address: each frame ends under its own reason, is
//! answered as the rules say or not at all, and leaves everything else as it was.

mod arp;
mod flood;
mod ip;
mod scan;

use core::fmt::Debug;
use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use smoltcp::time::Duration;
use smoltcp::wire::{EthernetAddress, Ipv4Packet};

use super::support::*;
use super::{Counters, DropReason, Host, LinkId, Node, Router, Verdict};
use crate::neighbor::Entry;
use crate::wire::Frame;
use crate::wire::pe_arp::Claim;

const STRANGER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x66]);

/// All hosts of the LAN.
const LINK_BROADCAST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 255);

/// The node that gets a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Us {
    hardware: EthernetAddress,
    ip: Ipv4Addr,
}

const THE_ROUTER: Us = Us { hardware: ROUTER_MAC, ip: ROUTER };
/// Owns 4096 to 8191 of the shared address.
const THE_HOST: Us = Us { hardware: A, ip: SHARED };

/// How a frame ends, and all that comes of it.
#[derive(Clone, Debug)]
struct End {
    verdict: Verdict,
    /// Every counter that changes, beside `received`.
    counted: Vec<(&'static str, i64)>,
    /// What is sent, and to whom.
    answers: Vec<(String, EthernetAddress)>,
    /// What is in the table afterwards and was not before.
    learned: Vec<(Ipv4Addr, EthernetAddress, Claim)>,
}

impl End {
    fn new(verdict: Verdict, counter: &'static str) -> Self {
        Self { verdict, counted: vec![(counter, 1)], answers: Vec::new(), learned: Vec::new() }
    }

    fn dropped(reason: DropReason) -> Self {
        Self::new(Verdict::Dropped(reason), reason.name())
    }

    /// It is for the node, which has nothing to do about it.
    fn taken() -> Self {
        Self::new(Verdict::Delivered, "delivered")
    }

    fn forwarded(link: LinkId) -> Self {
        Self::new(Verdict::Forward(link), "forwarded")
    }

    /// An ARP message of either kind is sent.
    fn answered(mut self, what: &str, to: EthernetAddress) -> Self {
        match self.counted.iter_mut().find(|(name, _)| *name == "arp_sent") {
            Some((_, sent)) => *sent += 1,
            None => self.counted.push(("arp_sent", 1)),
        }
        self.answers.push((what.to_owned(), to));
        self
    }

    /// An ICMP message is sent.
    fn told(mut self, what: &str, to: EthernetAddress) -> Self {
        match self.counted.iter_mut().find(|(name, _)| *name == "forwarded") {
            Some((_, sent)) => *sent += 1,
            None => self.counted.push(("forwarded", 1)),
        }
        self.counted.push(("originated", 1));
        self.answers.push((what.to_owned(), to));
        self
    }

    fn learning(mut self, ip: Ipv4Addr, owner: EthernetAddress, claims: &[Claim]) -> Self {
        self.learned.extend(claims.iter().map(|claim| (ip, owner, *claim)));
        self
    }

    /// Whether nothing may have changed but counters.
    fn is_silent(&self) -> bool {
        self.answers.is_empty() && self.learned.is_empty()
    }
}

/// A frame from the LAN, and how it ends at the router and at the host.
struct Case {
    what: String,
    frame: Frame,
    router: End,
    host: End,
}

/// A list of cases, as it is written.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, what: impl Into<String>, frame: Frame, router: End, host: End) {
        self.0.push(Case { what: what.into(), frame, router, host });
    }

    /// A frame that both drop for the same reason, without a sign.
    fn dropped(&mut self, what: impl Into<String>, frame: Frame, reason: DropReason) {
        self.add(what, frame, End::dropped(reason), End::dropped(reason));
    }

    /// A frame that both take, with no consequence.
    fn ignored(&mut self, what: impl Into<String>, frame: Frame) {
        self.add(what, frame, End::taken(), End::taken());
    }
}

/// A message in words, and its Ethernet destination.
fn describe((_, frame): &(LinkId, Frame)) -> (String, EthernetAddress) {
    let bytes = frame.bytes();
    let what = match (message_of(frame), &bytes[12..14]) {
        (Some(message), _) => format!("{:?}", message.kind()),
        (None, [8, 6]) => format!("plain {}", bytes[21]),
        _ => {
            let packet = Ipv4Packet::new_checked(packet_of(frame)).unwrap();
            format!("icmp {} {}", packet.payload()[0], packet.payload()[1])
        }
    };
    (what, addresses(frame).1)
}

/// A node under attack, with traffic of its own.
trait Victim: Node + Debug {
    /// Sends packets of the victims in every direction, and sees that they go where they should.
    fn live(bench: &mut Bench<Self>)
    where
        Self: Sized;
}

impl Victim for Router {
    #[track_caller]
    fn live(bench: &mut Bench<Self>) {
        for (to, owner) in [((SHARED, 5000), A), ((SHARED, 9000), B), ((WHOLE, 80), C)] {
            let frame = ethernet(SERVER_MAC, OUTSIDE_MAC, &tcp((SERVER, 443), to));
            let outcome = bench.give(OUTSIDE, frame);
            outcome.is_forwarded(LAN);
            assert_eq!(addresses(&outcome.frame).1, owner);
        }
    }
}

impl Victim for Host {
    #[track_caller]
    fn live(bench: &mut Bench<Self>) {
        let inbound = ethernet(ROUTER_MAC, A, &tcp((SERVER, 443), (SHARED, 5000)));
        bench.give(LAN, inbound).is_forwarded(TUN);
        for (to, next) in [((SERVER, 443), ROUTER_MAC), ((SHARED, 9000), B)] {
            let outcome = bench.give(TUN, Frame::from_packet(&tcp((SHARED, 5000), to)));
            outcome.is_forwarded(LAN);
            assert_eq!(addresses(&outcome.frame).1, next);
        }
    }
}

/// Uses all bindings of the live traffic and lets their owners confirm them.
#[track_caller]
fn confirm<N: Victim>(bench: &mut Bench<N>) {
    N::live(bench);
    let (sent, _) = bench.pass(Duration::from_millis(5500));
    for (_, frame) in &sent {
        let owned = match addresses(frame).1 {
            A => psid("0,4,1"),
            B => psid("0,4,2"),
            C | ROUTER_MAC => FULL,
            _ => continue,
        };
        let owner = addresses(frame).1;
        assert_eq!(bench.give(LAN, reply(owner, frame, owned)).verdict, Verdict::Delivered);
    }
}

/// A router for which A, B and C have just confirmed what they own.
fn confirmed_router() -> Bench<Router> {
    let mut bench = router_with_neighbors();
    confirm(&mut bench);
    bench
}

/// A host that has just heard from B and from its gateway.
fn confirmed_host() -> Bench<Host> {
    let mut bench = host_with_gateway();
    bench.give(LAN, announce(B, SHARED, psid("0,4,2")));
    confirm(&mut bench);
    bench
}

/// All that a node knows and intends, without what it counted.
fn state_of<N: Victim>(bench: &Bench<N>) -> String {
    let counters: &Counters = bench.node.counters();
    let state = format!("{:?}", bench.node).replace(&format!("{counters:?}"), "");
    // When a line was logged last is no part of it either.
    match state.split_once("violations: Reports") {
        Some((before, rest)) => {
            let after = rest.split_once("transmits:").map_or("", |(_, after)| after);
            format!("{before}transmits:{after}")
        }
        None => state,
    }
}

/// The table without states and ages: who owns what.
fn table_of<N: Node>(bench: &Bench<N>) -> Vec<(Ipv4Addr, EthernetAddress, Claim)> {
    let known = bench.node.neighbors(bench.now).into_iter();
    let owned = |entry: Entry| Some((entry.ip, entry.hardware?, entry.claim));
    known.filter_map(|(_, entry)| owned(entry)).collect()
}

/// What a list of changes of counters adds up to.
type Counted = BTreeMap<&'static str, i64>;

/// Gives a node a flood in one go: all that is counted, and all that is sent.
fn give_all<N: Node>(
    bench: &mut Bench<N>,
    link: LinkId,
    frames: impl Iterator<Item = Frame>,
) -> (Vec<(LinkId, Frame)>, Counted) {
    bench.step(|node, now| {
        for mut frame in frames {
            node.handle_frame(link, &mut frame, now);
        }
    })
}

/// Silent frames after which all of the state is compared: it is large.
const FRAMES_PER_COMPARISON: usize = 16;

/// Gives a node the frames one by one and compares all that comes of each.
fn check<N: Victim>(fresh: fn() -> Bench<N>, cases: Vec<Case>, end_of: fn(&Case) -> &End) {
    let mut bench = fresh();
    N::live(&mut bench);
    let state = state_of(&bench);
    let mut silent: Vec<String> = Vec::new();
    for case in cases {
        let (what, end) = (&case.what, end_of(&case));
        if silent.len() >= FRAMES_PER_COMPARISON || !end.is_silent() {
            assert!(state_of(&bench) == state, "one of {silent:#?} changed something: {}", state_of(&bench));
            silent.clear();
        }
        let before = table_of(&bench);
        let outcome = bench.give(LAN, case.frame.clone());
        assert_eq!(outcome.verdict, end.verdict, "{what}");
        let counted = end.counted.iter().copied().chain([("received", 1)]).collect();
        assert_eq!(outcome.counted, counted, "{what}");
        assert_eq!(outcome.sent.iter().map(describe).collect::<Vec<_>>(), end.answers, "{what}");
        N::live(&mut bench);
        let mut after = table_of(&bench);
        for line in before {
            let at = after.iter().position(|other| *other == line);
            after.swap_remove(at.unwrap_or_else(|| unreachable!("{what} removed {line:?}")));
        }
        let all_learned = end.learned.iter().all(|line| after.contains(line));
        assert!(all_learned && after.len() == end.learned.len(), "{what}: {after:?}");
        if end.is_silent() {
            silent.push(case.what);
        } else {
            // What is remembered of this one must not shield the next one.
            bench = fresh();
            N::live(&mut bench);
        }
    }
    assert!(state_of(&bench) == state, "one of {silent:#?} changed something: {}", state_of(&bench));
}

#[test]
fn hostile_arp_at_the_router() {
    check(confirmed_router, arp::cases(THE_ROUTER), |case| &case.router);
}

#[test]
fn hostile_arp_at_the_host() {
    check(confirmed_host, arp::cases(THE_HOST), |case| &case.host);
}

#[test]
fn hostile_ipv4_at_the_router() {
    check(confirmed_router, ip::cases(THE_ROUTER), |case| &case.router);
}

#[test]
fn hostile_ipv4_at_the_host() {
    check(confirmed_host, ip::cases(THE_HOST), |case| &case.host);
}
