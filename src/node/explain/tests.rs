//! What is explained is what happens: for packets at random, of every kind and to every kind of address.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::super::support::*;
use super::super::{EchoAnswer, LeakPolicy, Router, RouterConfig, Verdict};
use super::*;
use crate::wire::Frame;
use crate::wire::pe_arp::Claim;

const PACKETS: usize = 3000;

fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

fn random_packet(rng: &mut ChaCha8Rng, sources: &[core::net::Ipv4Addr]) -> Vec<u8> {
    let to = [SHARED, SHARED, SCATTERED, WHOLE, ROUTER, OUTSIDE_ROUTER, SERVER, FAR, [9, 9, 9, 9].into()];
    let groups = [[224, 0, 0, 9].into(), [255; 4].into(), [198, 51, 100, 255].into(), [0; 4].into()];
    let ports = [5000, 7700, 9000, 20_000, 80, 1023, 4095, 60_000];
    let (from, to) =
        (pick(rng, sources), if rng.random_bool(0.9) { pick(rng, &to) } else { pick(rng, &groups) });
    let (source, destination) = (pick(rng, &ports), pick(rng, &ports));
    let about = udp((to, destination), (from, source), b"");
    let packet = match rng.random_range(0..10) {
        0 => tcp((from, source), (to, destination)),
        1 | 2 => udp((from, source), (to, destination), &vec![0; pick(rng, &[0, 100, 1473])]),
        3 => ip(from, to, SCTP, &[source.to_be_bytes(), destination.to_be_bytes()].concat()),
        4 => ip(from, to, ESP, &[[0, 1], destination.to_be_bytes()].concat()),
        5 => ip(from, to, GRE, &[&[0x20, 0, 8, 0, 0, 1][..], &source.to_be_bytes()].concat()),
        6 => echo_request(from, to, source),
        7 => echo_reply(from, to, destination),
        8 if rng.random_bool(0.5) => {
            icmp_error(from, to, (3, 3), &udp((to, destination), (from, source), b""))
        }
        8 => icmp_error(from, to, (11, 0), &about[..rng.random_range(0..=about.len())]),
        _ => gre(from, to),
    };
    let ttl = pick(rng, &[0, 1, 2, 64, 64, 64]);
    let df = rng.random_bool(0.5);
    change(packet, |packet| {
        packet.set_hop_limit(ttl);
        packet.set_dont_frag(df);
    })
}

fn same(about: &Explanation, verdict: Verdict, frame: &Frame) -> bool {
    let last = || addresses(frame).1;
    match (about.outcome.as_ref().expect("every explanation has an end"), verdict) {
        (Fate::Forward(link, Some(to)), Verdict::Forward(by)) => *link == by && *to == last(),
        (Fate::Forward(link, None), Verdict::Forward(by)) => *link == by,
        (Fate::Delivered, Verdict::Delivered) | (Fate::Pending, Verdict::Pending) => true,
        // Only what happens fills a queue.
        (Fate::Pending, Verdict::Dropped(DropReason::PendingFull)) => true,
        (Fate::Dropped(one), Verdict::Dropped(other)) => *one == other,
        _ => false,
    }
}

fn routers() -> [Bench<Router>; 2] {
    let config = RouterConfig { authority: true, echo: EchoAnswer::Owner, ..router_config() };
    let mut told = Bench { node: Router::new(config, Instant::ZERO), now: Instant::ZERO };
    told.step(|router, now| {
        router.grant(SHARED, A, &[psid("0,4,1"), record(Claim::Portless(47))], now).unwrap();
        router.grant(SHARED, B, &[psid("0,4,2"), record(Claim::RESIDUAL)], now).unwrap();
    });
    let nobody = EthernetAddress([0; 6]);
    told.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (nobody, OUTSIDE_ROUTER)));
    told.give(LAN, plain_arp(1, (C, WHOLE), (nobody, ROUTER)));
    [router_with_neighbors(), told]
}

#[test]
fn at_a_router() {
    let sources = [SHARED, SHARED, SCATTERED, WHOLE, SERVER, FAR, ROUTER, [0; 4].into(), [9, 9, 9, 9].into()];
    for mut bench in routers() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..PACKETS {
            let packet = random_packet(&mut rng, &sources);
            let (link, to) = pick(&mut rng, &[(LAN, ROUTER_MAC), (OUTSIDE, OUTSIDE_MAC)]);
            let from = pick(&mut rng, &[A, B, C, SERVER_MAC]);
            let about = bench.node.explain(link, Some(from), &packet, bench.now);
            let outcome = bench.give(link, ethernet(from, to, &packet));
            assert!(
                same(&about, outcome.verdict, &outcome.frame),
                "{about:#?} {:?} {packet:x?}",
                outcome.verdict
            );
            if rng.random_bool(0.02) {
                bench.pass(smoltcp::time::Duration::from_millis(700));
            }
        }
    }
}

#[test]
fn at_a_host() {
    for policy in [LeakPolicy::Map, LeakPolicy::Reject] {
        let mut config = host_config(A, "0,4,1");
        config.options.leaks = policy;
        config.first.gateway = Some(ROUTER);
        config.first.portless = "47".parse().unwrap();
        let mut bench = host_with(config);
        bench.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
        bench.give(LAN, announce(B, SHARED, psid("0,4,2")));
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..PACKETS {
            let by_tun = rng.random_bool(0.5);
            let packet = random_packet(
                &mut rng,
                if by_tun {
                    &[SHARED, SHARED, WHOLE]
                } else {
                    &[SHARED, WHOLE, SERVER, core::net::Ipv4Addr::UNSPECIFIED]
                },
            );
            let (link, frame) = if by_tun {
                (TUN, Frame::from_packet(&packet))
            } else {
                (LAN, ethernet(ROUTER_MAC, A, &packet))
            };
            let about = bench.node.explain(link, &packet, bench.now);
            let outcome = bench.give(link, frame);
            // The stack has room for some packets only, and so has each map.
            let full = [DropReason::StackFull, DropReason::SourcePort, DropReason::EchoIdentifier]
                .map(Verdict::Dropped);
            let ends = same(&about, outcome.verdict, &outcome.frame) || full.contains(&outcome.verdict);
            assert!(ends, "{about:#?} {:?} {packet:x?}", outcome.verdict);
        }
    }
}

/// What a person reads.
#[test]
fn every_step_names_a_rule() {
    let [bench, _] = routers();
    let about = bench.node.explain(OUTSIDE, Some(SERVER_MAC), &tcp((SERVER, 443), (SHARED, 5000)), bench.now);
    let text: Vec<_> = about.steps.iter().map(|step| format!("{}: {}", step.rule, step.text)).collect();
    assert_eq!(
        text,
        [
            "RFC 1812 §5.2.1: it comes by outside",
            "PE-ARP rule 110: 02:00:00:00:00:80 may send this",
            "PE-ARP rule 59: TCP port 5000 names the receiver",
            "PE-ARP rule 31: {198.51.100.2, TCP, 5000} is at 02:00:00:00:00:0a: learned binding, stale",
            "PE-ARP rule 81: it leaves by lan",
        ]
    );
    assert_eq!(about.binding.unwrap().claim, Claim::Psid("0,4,1".parse().unwrap()));
}
