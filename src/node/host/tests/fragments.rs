//! Fragments at a host (PE-ARP rule 63).

use super::*;
use smoltcp::wire::Icmpv4Packet;

const DATA: [u8; 4000] = [0x5A; 4000];
const PARTS: [core::ops::Range<usize>; 3] = [0..1480, 1480..2960, 2960..4008];

#[test]
fn what_comes_follows_the_first_fragment() {
    let mut host = host_with_gateway();
    let to_us = udp(WEB, PROGRAM, &DATA);
    for part in PARTS {
        let part = fragment(&to_us, 7, part);
        let outcome = host.give(LAN, from_lan(&part));
        outcome.is_forwarded(TUN);
        assert_eq!(outcome.frame.bytes(), part);
    }
    let to_others = udp(WEB, OTHER, &DATA);
    let refused = DropReason::NotOurPort;
    for part in PARTS {
        host.give(LAN, from_lan(&fragment(&to_others, 8, part))).is_silent_drop(refused);
    }
    // The own stack puts nothing together.
    let to_stack = udp(WEB, (SHARED, 7700), &DATA);
    host.give(LAN, from_lan(&fragment(&to_stack, 9, 0..1480))).is_silent_drop(DropReason::Fragment);
}

#[test]
fn what_comes_early_is_held() {
    let mut host = host_with_gateway();
    let to_us = udp(WEB, PROGRAM, &DATA);
    for part in [2960..4008, 1480..2960] {
        host.give(LAN, from_lan(&fragment(&to_us, 7, part))).is(Verdict::Pending, &[("pending", 1)]);
    }
    let outcome = host.give(LAN, from_lan(&fragment(&to_us, 7, 0..1480)));
    outcome.is(Verdict::Forward(TUN), &[("forwarded", 3), ("pending", -2)]);
    assert!(outcome.sent.iter().all(|(link, _)| *link == TUN));
    // One whose first fragment never comes.
    host.give(LAN, from_lan(&fragment(&to_us, 8, 1480..2960))).is(Verdict::Pending, &[("pending", 1)]);
    let (_, counted) = host.pass(Duration::from_secs(2));
    assert_eq!((counted["pending"], counted["fragment_timeout"]), (-1, 1));
}

/// All fragments of a program's datagram get one identification of the set, and each datagram another one.
#[test]
fn identifications_are_of_the_set() {
    let mut host = host_with_gateway();
    let own = udp(PROGRAM, WEB, &DATA);
    let mut seen = Vec::new();
    for number in [1, 2, 60_000] {
        let sent = PARTS.map(|part| {
            let outcome = host.give(TUN, from_program(&fragment(&own, number, part.clone())));
            outcome.is_forwarded(LAN);
            let packet = packet_of(&outcome.frame).to_vec();
            let identification = ipv4::check(&packet).unwrap().ident();
            assert_eq!(packet, fragment(&own, identification, part), "nothing else changes");
            identification
        });
        assert!(sent[0] == sent[1] && sent[1] == sent[2]);
        seen.push(sent[0]);
    }
    assert!(seen.iter().all(|seen| host.node.set().contains(*seen)), "{seen:?}");
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]);

    // What routers may cut has one, too; what they may not keeps what the kernel gave.
    let outcome = host.give(TUN, from_program(&without_df(udp(PROGRAM, WEB, b"?"))));
    assert!(host.node.set().contains(ipv4::check(packet_of(&outcome.frame)).unwrap().ident()));
    let atomic = change(udp(PROGRAM, WEB, b"?"), |packet| packet.set_ident(17));
    assert_eq!(packet_of(&host.give(TUN, from_program(&atomic)).frame), atomic);
}

/// The port of the first fragment is mapped; the others have none.
#[test]
fn a_leak_in_fragments() {
    let mut config = host_config(A, "0,4,1");
    (config.options.leaks, config.first.gateway) = (LeakPolicy::Map, Some(ROUTER));
    let mut host = host_with(config);
    host.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    let leak = udp((SHARED, 60_000), WEB, &DATA);
    let sent = PARTS.map(|part| {
        let outcome = host.give(TUN, from_program(&fragment(&leak, 1, part)));
        assert_eq!(outcome.verdict, Verdict::Forward(LAN));
        packet_of(&outcome.frame).to_vec()
    });
    let key = FlowKey::of(&ipv4::check(&sent[0]).unwrap()).unwrap();
    assert!(host.node.stack_part().contains(key.source.unwrap()));
    // Behind the header, later ones are as they were.
    assert_eq!((&sent[1][20..], &sent[2][20..]), (&leak[1500..2980], &leak[2980..]));
    // Its answer comes in fragments as well.
    let answer = udp(WEB, (SHARED, key.source.unwrap()), &DATA);
    let back = PARTS.map(|part| {
        let outcome = host.give(LAN, from_lan(&fragment(&answer, 9, part)));
        outcome.is_forwarded(TUN);
        outcome.frame.bytes().to_vec()
    });
    assert_eq!(FlowKey::of(&ipv4::check(&back[0]).unwrap()).unwrap().destination, Some(60_000));
}

/// A ping that is larger than the link.
#[test]
fn an_echo_request_in_fragments() {
    let mut host = host_with_gateway();
    let data = [&[8, 0, 0, 0, 0, 99, 0, 1][..], &DATA].concat();
    let mut request = ip(SHARED, SERVER, 1, &data);
    Icmpv4Packet::new_unchecked(&mut request[20..]).fill_checksum();
    let sent = PARTS.map(|part| {
        let outcome = host.give(TUN, from_program(&fragment(&request, 1, part)));
        outcome.is_forwarded(LAN);
        packet_of(&outcome.frame).to_vec()
    });
    let identifier = FlowKey::of(&ipv4::check(&sent[0]).unwrap()).unwrap().source.unwrap();
    assert!(host.node.stack_part().contains(identifier));
    let mut whole = sent.iter().flat_map(|part| part[20..].to_vec()).collect::<Vec<_>>();
    assert!(Icmpv4Packet::new_checked(&whole[..]).unwrap().verify_checksum());
    // The answer.
    whole[0] = 0;
    Icmpv4Packet::new_unchecked(&mut whole[..]).fill_checksum();
    let reply = ip(SERVER, SHARED, 1, &whole);
    let back = PARTS.map(|part| {
        let outcome = host.give(LAN, from_lan(&fragment(&reply, 5, part)));
        outcome.is_forwarded(TUN);
        outcome.frame.bytes()[20..].to_vec()
    });
    let back = back.concat();
    let reply = Icmpv4Packet::new_checked(&back[..]).unwrap();
    assert!(reply.verify_checksum() && reply.echo_ident() == 99);
}

/// Without the first one nothing of a datagram leaves.
#[test]
fn later_fragments_of_what_may_not_leave_stay() {
    let mut options = host_config(A, "0,4,1");
    options.options.leaks = LeakPolicy::Reject;
    let mut host = host_with(options);
    let leak = udp((SHARED, 60_000), (WHOLE, 53), &DATA);
    let outcome = host.give(TUN, from_program(&fragment(&leak, 1, 0..1480)));
    assert_eq!(outcome.verdict, Verdict::Dropped(DropReason::SourcePort));
    host.give(TUN, from_program(&fragment(&leak, 1, 1480..2960))).is(Verdict::Pending, &[("pending", 1)]);
    let (_, counted) = host.pass(Duration::from_secs(2));
    assert_eq!((counted["pending"], counted["fragment_timeout"]), (-1, 1));
}

/// Fragments wait for their owner like other packets, and leave afterwards.
#[test]
fn fragments_wait_for_their_next_hop() {
    let mut host = host();
    let own = udp(PROGRAM, (WHOLE, 53), &DATA);
    let [first, second, third] = PARTS.map(|part| from_program(&fragment(&own, 1, part)));
    assert_eq!(host.give(TUN, first).verdict, Verdict::Pending);
    assert_eq!(host.give(TUN, second).verdict, Verdict::Pending);
    let outcome = host.give(LAN, plain_arp(2, (C, WHOLE), (A, Ipv4Addr::UNSPECIFIED)));
    assert_eq!(outcome.sent.len(), 2, "{:?}", outcome.sent);
    host.give(TUN, third).is_forwarded(LAN);
}
