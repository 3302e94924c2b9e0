//! Fragments to shared addresses, and packets that are cut (PE-ARP rules 63 and 83).

use super::*;
use crate::wire::fragments;

const TO_B: Endpoint = (SHARED, 9000);

/// A datagram of 4000 bytes in three fragments, in their order.
fn parts(to: Endpoint, identification: u16) -> [Vec<u8>; 3] {
    let whole = udp(FROM_SERVER, to, &[0xA5; 4000]);
    [0..1480, 1480..2960, 2960..4008].map(|part| fragment(&whole, identification, part))
}

/// What leaves with a later fragment is as it came, but for what every router changes.
fn is_sent_to(frame: &Frame, owner: EthernetAddress, came: &[u8]) {
    assert_eq!(addresses(frame), (ROUTER_MAC, owner));
    let expected = change(came.to_vec(), |packet| packet.set_hop_limit(63));
    assert_eq!(packet_of(frame), expected);
}

#[test]
fn later_fragments_follow_the_first() {
    let mut bench = router_with_neighbors();
    for (to, owner) in [(TO_A, A), (TO_B, B)] {
        for part in parts(to, 7) {
            let outcome = bench.give(OUTSIDE, from_outside(&part));
            outcome.is_forwarded(LAN);
            is_sent_to(&outcome.frame, owner, &part);
        }
    }
    assert_eq!(bench.node.fragments.datagrams(), 0, "whole datagrams are forgotten");
}

#[test]
fn earlier_ones_are_held_for_it() {
    let mut bench = router_with_neighbors();
    let [first, second, third] = parts(TO_B, 7);
    for part in [&third, &second] {
        bench.give(OUTSIDE, from_outside(part)).is(Verdict::Pending, &[("pending", 1)]);
    }
    let outcome = bench.give(OUTSIDE, from_outside(&first));
    outcome.is(Verdict::Forward(LAN), &[("forwarded", 3), ("pending", -2)]);
    is_sent_to(&outcome.frame, B, &first);
    // In the order in which they came, behind the first one.
    let [(_, one), (_, two)] = &outcome.sent[..] else { unreachable!("{:?}", outcome.sent) };
    is_sent_to(one, B, &third);
    is_sent_to(two, B, &second);
}

/// Two servers, and one server with two datagrams, at the same time.
#[test]
fn datagrams_are_told_apart() {
    let mut bench = router_with_neighbors();
    let (of_a, of_b) = (parts(TO_A, 7), parts(TO_B, 8));
    for (a, b) in of_a.iter().zip(&of_b) {
        for (part, owner) in [(a, A), (b, B)] {
            let outcome = bench.give(OUTSIDE, from_outside(part));
            outcome.is_forwarded(LAN);
            is_sent_to(&outcome.frame, owner, part);
        }
    }
}

/// Without its first fragment nobody can tell whose a datagram is: after two seconds it is given up.
#[test]
fn a_first_fragment_that_never_comes() {
    let mut bench = router_with_neighbors();
    let [_, second, third] = parts(TO_A, 7);
    bench.give(OUTSIDE, from_outside(&second)).is(Verdict::Pending, &[("pending", 1)]);
    bench.give(OUTSIDE, from_outside(&third)).is(Verdict::Pending, &[("pending", 1)]);
    let (sent, counted) = bench.pass(Duration::from_millis(1999));
    assert!(sent.is_empty() && counted.is_empty());
    let (sent, counted) = bench.pass(Duration::from_millis(1));
    assert!(sent.is_empty());
    assert_eq!(counted, [("pending", -2), ("fragment_timeout", 2)].into());
}

#[test]
fn what_came_before_is_dropped() {
    let mut bench = router_with_neighbors();
    let whole = udp(FROM_SERVER, TO_A, &[0xA5; 4000]);
    for part in [0..1480, 1480..2960] {
        let part = fragment(&whole, 7, part);
        bench.give(OUTSIDE, from_outside(&part)).is_forwarded(LAN);
        bench.give(OUTSIDE, from_outside(&part)).is_silent_drop(DropReason::FragmentOverlap);
    }
    let over = fragment(&whole, 7, 2952..4008);
    bench.give(OUTSIDE, from_outside(&over)).is_silent_drop(DropReason::FragmentOverlap);
    bench.give(OUTSIDE, from_outside(&fragment(&whole, 7, 2960..4008))).is_forwarded(LAN);
}

#[test]
fn more_than_sixteen_are_not_held() {
    let mut bench = router_with_neighbors();
    let whole = udp(FROM_SERVER, TO_A, &[0; 4000]);
    for n in 1..=16 {
        let part = fragment(&whole, 7, n * 64..(n + 1) * 64);
        bench.give(OUTSIDE, from_outside(&part)).is(Verdict::Pending, &[("pending", 1)]);
    }
    let one_more = fragment(&whole, 7, 17 * 64..18 * 64);
    bench.give(OUTSIDE, from_outside(&one_more)).is_silent_drop(DropReason::FragmentLimit);
}

/// A datagram whose owner is not known yet waits as a whole.
#[test]
fn fragments_wait_for_the_owner() {
    let mut bench = router_with_neighbors();
    let [first, second, third] = parts((SHARED, 20_000), 7);
    let outcome = bench.give(OUTSIDE, from_outside(&first));
    outcome.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 1)]);
    let question = outcome.only_frame(LAN).clone();
    bench.give(OUTSIDE, from_outside(&second)).is(Verdict::Pending, &[("pending", 1)]);
    let outcome = bench.give(LAN, reply(C, &question, psid("0,4,4")));
    let sent: Vec<_> = outcome.sent.iter().map(|(_, frame)| frame).collect();
    assert_eq!(sent.len(), 2);
    is_sent_to(sent[0], C, &first);
    is_sent_to(sent[1], C, &second);
    bench.give(OUTSIDE, from_outside(&third)).is_forwarded(LAN);
}

/// PE-ARP rule 63: a sharer's fragments have identifications of its set, by which they are checked. No state is needed.
#[test]
fn fragments_of_sharers() {
    let mut bench = router_with_neighbors();
    let whole = udp(TO_A, FROM_SERVER, &[0; 4000]);
    for part in [2960..4008, 0..1480, 1480..2960] {
        let own = fragment(&whole, 5001, part.clone());
        bench.give(LAN, ethernet(A, ROUTER_MAC, &own)).is_forwarded(OUTSIDE);
        let foreign = fragment(&whole, 9001, part);
        bench.give(LAN, ethernet(A, ROUTER_MAC, &foreign)).is_silent_drop(DropReason::SpoofedFragment);
    }
    // Its own identification does not make another port its own.
    let forged = fragment(&udp(TO_B, FROM_SERVER, &[0; 4000]), 5001, 0..1480);
    bench.give(LAN, ethernet(A, ROUTER_MAC, &forged)).is_silent_drop(DropReason::SpoofedPort);
    // To another sharer they follow the first one again.
    let whole = udp(TO_A, TO_B, &[0; 4000]);
    let last = fragment(&whole, 5002, 2960..4008);
    bench.give(LAN, ethernet(A, ROUTER_MAC, &last)).is(Verdict::Pending, &[("pending", 1)]);
    let outcome = bench.give(LAN, ethernet(A, ROUTER_MAC, &fragment(&whole, 5002, 0..1480)));
    outcome.is(Verdict::Forward(LAN), &[("forwarded", 2), ("pending", -1)]);
    assert_eq!(addresses(&outcome.frame).1, B);
}

/// A router whose LAN has a small MTU; it knows A.
fn narrow() -> Bench<Router> {
    let mut config = router_config();
    config.links[0].mtu = 1000;
    let mut bench = Bench { node: Router::new(config, Instant::ZERO), now: Instant::ZERO };
    bench.give(LAN, announce(A, SHARED, psid("0,4,1")));
    bench
}

#[test]
fn what_may_be_cut_is_cut() {
    let mut bench = narrow();
    let packet = without_df(udp(FROM_SERVER, TO_A, &[0x5A; 1472]));
    let sent_on = change(packet.clone(), |packet| packet.set_hop_limit(63));
    let expected: Vec<_> = fragments(&sent_on, 1000).unwrap().collect();
    let frame = from_outside(&packet);
    let space = frame.memory();
    let outcome = bench.give(OUTSIDE, frame);
    outcome.is(Verdict::Forward(LAN), &[("forwarded", 2), ("originated", 1)]);
    assert_eq!(outcome.frame.memory(), space, "a link reads the next frame into it");
    let sent = [packet_of(&outcome.frame), packet_of(outcome.only_frame(LAN))];
    assert_eq!(sent, [&expected[0][..], &expected[1]]);
    assert_eq!(addresses(outcome.only_frame(LAN)), (ROUTER_MAC, A));
    // Fragments are cut as well.
    let [first, second, _] = parts(TO_A, 7);
    for part in [first, second] {
        let outcome = bench.give(OUTSIDE, from_outside(&part));
        outcome.is(Verdict::Forward(LAN), &[("forwarded", 2), ("originated", 1)]);
    }
}

/// A super-frame is cut as the packets that it is on the wire.
#[test]
fn a_super_frame_is_cut() {
    let mut bench = narrow();
    let mut frame = from_outside(&without_df(udp(FROM_SERVER, TO_A, &[7; 2800])));
    frame.offload.checksum = Some(Checksum { start: 20, offset: 6 });
    frame.offload.gso = Some(Gso { kind: GsoKind::Udp, size: 1400, header_len: 28 });
    let space = frame.memory();
    let outcome = bench.give(OUTSIDE, frame);
    outcome.is(Verdict::Forward(LAN), &[("forwarded", 4), ("originated", 3)]);
    assert_eq!((outcome.frame.memory(), outcome.frame.offload), (space, Default::default()));
    let frames = outcome.sent.iter().map(|(_, frame)| frame).chain([&outcome.frame]);
    let payload: usize = frames.map(|frame| packet_of(frame).len() - 20).sum();
    assert_eq!(payload, 2 * (1400 + 8));
}

/// The sender of a packet to nobody hears of it once, whatever was to become of it.
#[test]
fn pieces_for_nobody() {
    let mut bench = narrow();
    bench.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (EthernetAddress([0; 6]), OUTSIDE_ROUTER)));
    let packet = without_df(udp(FROM_SERVER, (SHARED, 20_000), &[0; 1472]));
    let outcome = bench.give(OUTSIDE, from_outside(&packet));
    outcome.is(Verdict::Pending, &[("pending", 2), ("originated", 1), ("arp_sent", 1)]);
    let (sent, counted) = bench.pass(Duration::from_secs(4));
    let told: Vec<_> = sent.iter().filter(|(link, _)| *link == OUTSIDE).collect();
    let [(_, told)] = &told[..] else { unreachable!("{told:?}") };
    assert_eq!(icmp_of(packet_of(told)).kind, (3, 1));
    assert_eq!((counted["pending"], counted["unreachable"]), (-2, 2));
}

/// A ping that is larger than a packet can be is answered by one that is as large, in fragments as well.
#[test]
fn a_ping_in_fragments_is_answered() {
    let mut bench = router_with_neighbors();
    let data = [&[8, 0, 0, 0, 0, 77, 0, 3][..], &[0x5A; 4000]].concat();
    for (to, number) in [(SHARED, 7), (OUTSIDE_ROUTER, 8)] {
        let mut request = ip(SERVER, to, 1, &data);
        smoltcp::wire::Icmpv4Packet::new_unchecked(&mut request[20..]).fill_checksum();
        for part in [2960..4008, 0..1480] {
            let outcome = bench.give(OUTSIDE, from_outside(&fragment(&request, number, part)));
            assert!(
                outcome.sent.is_empty() && !matches!(outcome.verdict, Verdict::Dropped(_)),
                "{outcome:?}"
            );
        }
        let outcome = bench.give(OUTSIDE, from_outside(&fragment(&request, number, 1480..2960)));
        assert_eq!((outcome.verdict, outcome.counted["originated"]), (Verdict::Delivered, 3));
        let mut reassembly = crate::forward::Reassembly::new();
        let whole = outcome.sent.iter().filter_map(|(link, frame)| {
            assert_eq!(*link, OUTSIDE);
            assert!(packet_of(frame).len() <= 1500);
            reassembly.add(packet_of(frame), bench.now).unwrap()
        });
        let whole: Vec<_> = whole.collect();
        let reply = icmp_of(&whole[0]);
        assert_eq!((reply.from, reply.kind, identifier_of(&whole[0])), (to, (0, 0), 77));
        assert_eq!(reply.data, &data[8..]);
    }
    // Nobody puts datagrams together that are for no ping.
    let whole = udp(FROM_SERVER, (OUTSIDE_ROUTER, 53), &[0; 4000]);
    let later = fragment(&whole, 9, 1480..2960);
    bench.give(OUTSIDE, from_outside(&later)).is_silent_drop(DropReason::Fragment);
}
