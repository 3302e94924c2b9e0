//! Misses: who is asked, what waits, what leaves.

use core::net::Ipv4Addr;

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;

use crate::node::router::*;
use crate::node::support::*;
use crate::wire::pe_arp::Kind;
use crate::wire::{Checksum, Offload, ipv4};

fn from_outside(packet: &[u8]) -> Frame {
    ethernet(SERVER_MAC, OUTSIDE_MAC, packet)
}

/// A drop that is answered with one ICMP error.
fn told(reason: DropReason) -> Vec<(&'static str, i64)> {
    vec![(reason.name(), 1), ("originated", 1), ("forwarded", 1)]
}

/// The packet with one hop less.
fn hopped(packet: &[u8]) -> Vec<u8> {
    change(packet.to_vec(), |packet| {
        let ttl = packet.hop_limit();
        packet.set_hop_limit(ttl - 1);
    })
}

/// The bytes of a forwarded frame: the given one's, with both link-layer addresses, TTL and header checksum changed.
#[track_caller]
fn is_routed(
    given: &Frame,
    outcome: &Outcome,
    link: LinkId,
    (source, destination): (EthernetAddress, EthernetAddress),
) {
    outcome.is_forwarded(link);
    let mut expected = given.bytes().to_vec();
    expected[..6].copy_from_slice(&destination.0);
    expected[6..12].copy_from_slice(&source.0);
    expected[14 + 8] -= 1;
    let header = &mut expected[14..34];
    Ipv4Packet::new_unchecked(header).fill_checksum();
    assert_eq!(outcome.frame.bytes(), expected);
}

/// Rule 37.
#[test]
fn ports_of_no_set_are_not_asked_for() {
    let mut router = router_with_neighbors();
    for port in [0, 22, 1023] {
        let packet = tcp((SERVER, 80), (SCATTERED, port));
        let outcome = router.give(OUTSIDE, from_outside(&packet));
        outcome.is(Verdict::Dropped(DropReason::UnassignedPort), &told(DropReason::UnassignedPort));
        assert_eq!(icmp_of(packet_of(outcome.only_frame(OUTSIDE))).kind, (3, 1));
    }
    let outcome = router.give(OUTSIDE, from_outside(&tcp((SERVER, 80), (SCATTERED, 1024))));
    outcome.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 1)]);
    // Unless that single port has an owner.
    router.give(LAN, announce(B, SCATTERED, psid("0,16,22")));
    let given = from_outside(&tcp((SERVER, 80), (SCATTERED, 22)));
    let outcome = router.give(OUTSIDE, given.clone());
    is_routed(&given, &outcome, LAN, (ROUTER_MAC, B));
}

/// Rules 38 and 45.
#[test]
fn a_miss_is_asked_for_and_its_packets_leave_in_order() {
    let mut router = router_with_neighbors();
    let packets: Vec<_> =
        (0..3).map(|tag| udp((SERVER, 9), (SHARED, 20_000 + u16::from(tag)), &[tag])).collect();
    let mut given = from_outside(&packets[0]);
    given.offload = Offload { checksum: Some(Checksum { start: 20, offset: 6 }), gso: None };
    let offload = given.offload;
    let first = router.give(OUTSIDE, given);
    first.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 1)]);
    let question = first.only_frame(LAN);
    let asked = message_of(question).unwrap();
    assert_eq!((asked.kind(), addresses(question).1), (Kind::Resolve, EthernetAddress::BROADCAST));
    assert_eq!((asked.target.protocol, asked.target.port, asked.target.shared), (17, Some(20_000), true));
    for packet in &packets[1..] {
        let outcome = router.give(OUTSIDE, from_outside(packet));
        outcome.is(Verdict::Pending, &[("pending", 1)]);
        assert!(outcome.sent.is_empty(), "one question for the block");
    }
    let outcome = router.give(LAN, reply(C, question, psid("0,4,4")));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("pending", -3), ("forwarded", 3)]);
    for ((link, frame), packet) in outcome.sent.iter().zip(&packets) {
        assert_eq!((*link, addresses(frame)), (LAN, (ROUTER_MAC, C)));
        assert_eq!(packet_of(frame), hopped(packet));
    }
    assert_eq!(outcome.sent[0].1.offload, offload, "the offload header waits with the packet");
}

#[test]
fn a_whole_exchange_balances_and_reaches_the_program() {
    let mut host = host();
    let mut router = router_with_neighbors();
    // The router forgot the host; its first packet waits for the answer.
    router.give(LAN, announce(A, SHARED, psid("0,4,15")));
    let packet = udp((SERVER, 53), (SHARED, 5000), b"answer");
    assert_eq!(router.give(OUTSIDE, from_outside(&packet)).verdict, Verdict::Pending);
    router.pass(Duration::from_millis(1));
    router.node.handle_timeout(router.now);
    let elsewhere = join(&mut host, &mut router, Duration::from_secs(2));
    let [(link, frame)] = &elsewhere[..] else { panic!("{elsewhere:?}") };
    assert_eq!((*link, frame.bytes()), (TUN, &hopped(&packet)[..]));
    assert!(ipv4::check(frame.bytes()).is_ok());
    let known = router.node.neighbors(router.now);
    let owner = |ip: Ipv4Addr| known.iter().find(|(_, entry)| entry.ip == ip && entry.hardware == Some(A));
    assert_eq!(owner(SHARED).map(|(link, entry)| (link.as_str(), entry.state)), Some(("lan", "reachable")));
}
