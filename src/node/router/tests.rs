//! The router, frame by frame: the verdict, what it sends, and every counter that changes.

mod accounts;
mod dhcp;
mod errors;
mod fragments;
mod guard;
mod waiting;

use smoltcp::time::Duration;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Ipv4Packet};

use super::*;
use crate::node::support::*;
use crate::wire::pe_arp::{Claim, Kind, Message};
use crate::wire::{Checksum, ETHERNET_HEADER, Gso, GsoKind, Offload};

/// To a port of A, which owns 4096 to 8191.
const TO_A: Endpoint = (SHARED, 5000);
const FROM_SERVER: Endpoint = (SERVER, 443);

fn from_outside(packet: &[u8]) -> Frame {
    ethernet(SERVER_MAC, OUTSIDE_MAC, packet)
}

fn plain_of(frame: &Frame) -> ArpRepr {
    ArpRepr::parse(&ArpPacket::new_checked(&frame.bytes()[ETHERNET_HEADER..]).unwrap()).unwrap()
}

/// Rule 81: of a forwarded frame only the Ethernet addresses, the TTL and the header checksum change.
#[test]
fn a_packet_goes_to_the_owner_of_its_port() {
    let mut bench = router_with_neighbors();
    for (port, owner) in [(4096, A), (8191, A), (8192, B), (12_287, B)] {
        let frame = from_outside(&tcp(FROM_SERVER, (SHARED, port)));
        let mut expected = frame.bytes().to_vec();
        let outcome = bench.give(OUTSIDE, frame);
        outcome.is_forwarded(LAN);
        expected[..6].copy_from_slice(&owner.0);
        expected[6..12].copy_from_slice(&ROUTER_MAC.0);
        let mut header = Ipv4Packet::new_unchecked(&mut expected[ETHERNET_HEADER..]);
        header.set_hop_limit(63);
        header.fill_checksum();
        assert_eq!(outcome.frame.bytes(), expected, "port {port}");
    }
}

/// The offload header crosses the router as it came, and so does a checksum that is open.
#[test]
fn a_super_frame_is_forwarded_whole() {
    let mut bench = router_with_neighbors();
    let gso = Gso { kind: GsoKind::Udp, size: 1400, header_len: 28 };
    let offload = Offload { checksum: Some(Checksum { start: 20, offset: 6 }), gso: Some(gso) };
    let packet = udp(FROM_SERVER, TO_A, &[7; 9000]);
    let mut frame = from_outside(&packet);
    frame.offload = offload;
    let outcome = bench.give(OUTSIDE, frame);
    outcome.is_forwarded(LAN);
    assert_eq!(outcome.frame.offload, offload);
    assert_eq!(packet_of(&outcome.frame)[20..], packet[20..], "nothing above the IP header changes");

    let mut frame = from_outside(&udp(FROM_SERVER, (SHARED, 20_000), &[7; 9000]));
    frame.offload = offload;
    bench.give(OUTSIDE, frame).is(Verdict::Pending, &[("pending", 1), ("arp_sent", 1)]);
    let asked = bench.give(LAN, announce(C, SHARED, psid("0,4,4")));
    assert_eq!(asked.only_frame(LAN).offload, offload, "also when it had to wait");
}

/// Rule 82: a legacy host and a sharer reach a sharer on the same link through the router, with no Redirect.
#[test]
fn a_packet_may_leave_by_the_link_it_came_by() {
    let mut bench = router_with_neighbors();
    let outcome = bench.give(LAN, ethernet(C, ROUTER_MAC, &tcp((WHOLE, 999), TO_A)));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame), (ROUTER_MAC, A));
    let outcome = bench.give(LAN, ethernet(A, ROUTER_MAC, &tcp(TO_A, (SHARED, 9000))));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame), (ROUTER_MAC, B));
}

/// Routes: the other LAN, the outside, and what is behind the next router.
#[test]
fn routes_lead_to_links_and_gateways() {
    let mut bench = router_with_neighbors();
    for (to, link, source, next) in [
        (SECOND, SECOND_LAN, SECOND_ROUTER_MAC, C),
        (SERVER, OUTSIDE, OUTSIDE_MAC, SERVER_MAC),
        (FAR, OUTSIDE, OUTSIDE_MAC, C),
    ] {
        let outcome = bench.give(LAN, ethernet(A, ROUTER_MAC, &udp(TO_A, (to, 53), b"?")));
        outcome.is_forwarded(link);
        assert_eq!(addresses(&outcome.frame), (source, next), "{to}");
    }
}

/// What is not for the router, or came as a link-layer broadcast, is not forwarded (RFC 1812 §5.3.4).
#[test]
fn frames_for_others_are_dropped() {
    let mut bench = router_with_neighbors();
    let packet = tcp(FROM_SERVER, TO_A);
    for destination in [A, EthernetAddress::BROADCAST, EthernetAddress([1, 0, 0x5E, 0, 0, 1])] {
        let frame = ethernet(SERVER_MAC, destination, &packet);
        bench.give(OUTSIDE, frame).is_silent_drop(DropReason::NotOurFrame);
    }
    bench.give(OUTSIDE, Frame::from_ethernet(&[0; 13])).is_silent_drop(DropReason::ShortFrame);
    let mut frame = from_outside(&packet);
    frame.bytes_mut()[12..14].copy_from_slice(&[0x86, 0xDD]);
    bench.give(OUTSIDE, frame).is_silent_drop(DropReason::EtherType);
}

/// RFC 1812 §5.2.2: header checks.
#[test]
fn damaged_headers_are_dropped() {
    let mut bench = router_with_neighbors();
    let damage = |at: usize, value: u8| {
        let mut packet = tcp(FROM_SERVER, TO_A);
        packet[at] = value;
        from_outside(&packet)
    };
    bench.give(OUTSIDE, damage(10, 0xAA)).is_silent_drop(DropReason::HeaderChecksum);
    bench.give(OUTSIDE, damage(0, 0x65)).is_silent_drop(DropReason::NotIpv4);
    bench.give(OUTSIDE, damage(2, 0xFF)).is_silent_drop(DropReason::Truncated);
    bench.give(OUTSIDE, damage(0, 0x44)).is_silent_drop(DropReason::Truncated);
}

/// RFC 1812 §5.3.7: sources and destinations that no host has.
#[test]
fn martians_are_dropped() {
    let mut bench = router_with_neighbors();
    // The last one is the router's own.
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "198.51.100.1"] {
        let frame = from_outside(&tcp((source.parse().unwrap(), 1), TO_A));
        bench.give(OUTSIDE, frame).is_silent_drop(DropReason::MartianSource);
    }
    for destination in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "198.51.100.255"] {
        let frame = from_outside(&tcp(FROM_SERVER, (destination.parse().unwrap(), 1)));
        bench.give(OUTSIDE, frame).is_silent_drop(DropReason::MartianDestination);
    }
}

/// Rule 83, RFC 1812 §4.3.2.4: the errors that the router sends come from the address of the ingress link.
#[test]
fn errors_go_back_to_the_source() {
    let mut bench = router_with_neighbors();
    let dying = change(tcp(FROM_SERVER, TO_A), |packet| packet.set_hop_limit(1));
    let outcome = bench.give(OUTSIDE, from_outside(&dying));
    let error = [("ttl_exceeded", 1), ("originated", 1), ("forwarded", 1)];
    outcome.is(Verdict::Dropped(DropReason::TtlExceeded), &error);
    let icmp = icmp_of(packet_of(outcome.only_frame(OUTSIDE)));
    assert_eq!((icmp.from, icmp.to, icmp.kind, icmp.data), (OUTSIDE_ROUTER, SERVER, (11, 0), &dying[..]));

    let lost = tcp(FROM_SERVER, ("192.168.9.9".parse().unwrap(), 1));
    let outcome = bench.give(OUTSIDE, from_outside(&lost));
    outcome
        .is(Verdict::Dropped(DropReason::NoRoute), &[("no_route", 1), ("originated", 1), ("forwarded", 1)]);
    assert_eq!(icmp_of(packet_of(outcome.only_frame(OUTSIDE))).kind, (3, 0));

    // To a sharer, an error goes by the port of the packet that it is about.
    let dying = change(tcp((SHARED, 9000), FROM_SERVER), |packet| packet.set_hop_limit(1));
    let outcome = bench.give(LAN, ethernet(B, ROUTER_MAC, &dying));
    let frame = outcome.only_frame(LAN);
    assert_eq!(addresses(frame), (ROUTER_MAC, B));
    assert_eq!(icmp_of(packet_of(frame)).from, ROUTER);
}

/// RFC 1191 §4: too large and not to be fragmented.
#[test]
fn what_is_too_large_is_refused() {
    let mut bench = router_with_neighbors();
    let large = udp(FROM_SERVER, TO_A, &[0; 1473]);
    let outcome = bench.give(OUTSIDE, from_outside(&large));
    outcome.is(Verdict::Dropped(DropReason::TooBig), &[("too_big", 1), ("originated", 1), ("forwarded", 1)]);
    let icmp = icmp_of(packet_of(outcome.only_frame(OUTSIDE)));
    assert_eq!((icmp.kind, icmp.word), ((3, 4), 1500));
    bench.give(OUTSIDE, from_outside(&udp(FROM_SERVER, TO_A, &[0; 1472]))).is_forwarded(LAN);
}

/// Rule 47: at most 10 errors at once to one source.
#[test]
fn errors_are_limited() {
    let mut bench = router_with_neighbors();
    let dying = change(tcp(FROM_SERVER, TO_A), |packet| packet.set_hop_limit(1));
    let sent: usize = (0..30).map(|_| bench.give(OUTSIDE, from_outside(&dying)).sent.len()).sum();
    assert_eq!(sent, 10);

    // Rule 47: B hears of its packets, though A has used up what is for A.
    let from = |hardware, source| {
        let dying = change(tcp(source, FROM_SERVER), |packet| packet.set_hop_limit(1));
        ethernet(hardware, ROUTER_MAC, &dying)
    };
    let of_a: usize = (0..30).map(|_| bench.give(LAN, from(A, TO_A)).sent.len()).sum();
    let of_b: usize = (0..30).map(|_| bench.give(LAN, from(B, (SHARED, 9000))).sent.len()).sum();
    assert_eq!((of_a, of_b), (10, 10));
}

/// Rules 79 and 80: echo requests to the router and to a shared address are answered by the router.
#[test]
fn echo_is_answered() {
    let mut bench = router_with_neighbors();
    for to in [OUTSIDE_ROUTER, ROUTER, SHARED] {
        let outcome = bench.give(OUTSIDE, from_outside(&echo_request(SERVER, to, 77)));
        outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
        let icmp = icmp_of(packet_of(outcome.only_frame(OUTSIDE)));
        assert_eq!((icmp.from, icmp.to, icmp.kind, icmp.data), (to, SERVER, (0, 0), &b"abcdefgh"[..]));
    }
    let mut damaged = echo_request(SERVER, SHARED, 77);
    damaged[27] ^= 1;
    bench.give(OUTSIDE, from_outside(&damaged)).is_silent_drop(DropReason::EchoDamaged);
    // To a whole address it is a packet like any other.
    bench.give(OUTSIDE, from_outside(&echo_request(SERVER, WHOLE, 77))).is_forwarded(LAN);
}

/// Rule 60: an echo reply goes to the owner of the identifier.
#[test]
fn echo_replies_go_by_identifier() {
    let mut bench = router_with_neighbors();
    for (identifier, owner) in [(4096, A), (9000, B)] {
        let outcome = bench.give(OUTSIDE, from_outside(&echo_reply(SERVER, SHARED, identifier)));
        outcome.is_forwarded(LAN);
        assert_eq!(addresses(&outcome.frame).1, owner);
    }
}

/// Rule 62: an ICMP error goes to the owner of the source port in the packet that it embeds.
#[test]
fn icmp_errors_go_by_the_embedded_source() {
    let mut bench = router_with_neighbors();
    let about = udp((SHARED, 9000), (SERVER, 53), b"?");
    let outcome = bench.give(OUTSIDE, from_outside(&icmp_error(SERVER, SHARED, (3, 3), &about)));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame).1, B);
    let foreign = udp((WHOLE, 9000), (SERVER, 53), b"?");
    let frame = from_outside(&icmp_error(SERVER, SHARED, (3, 3), &foreign));
    bench.give(OUTSIDE, frame).is_silent_drop(DropReason::ForeignError);
    let frame = from_outside(&icmp_error(SERVER, SHARED, (3, 3), &about[..22]));
    bench.give(OUTSIDE, frame).is_silent_drop(DropReason::Truncated);
}

/// Portless protocols have no owner on a shared address unless one says so; a whole address takes them.
#[test]
fn what_has_no_port() {
    let mut bench = router_with_neighbors();
    let fragment = |to| change(udp(FROM_SERVER, to, &[0; 64]), |packet| packet.set_frag_offset(64));
    bench.give(OUTSIDE, from_outside(&fragment((WHOLE, 1)))).is_forwarded(LAN);
    bench.give(OUTSIDE, from_outside(&gre(SERVER, WHOLE))).is_forwarded(LAN);
    // Nobody said that it owns GRE of the shared address: that is asked.
    let outcome = bench.give(OUTSIDE, from_outside(&gre(SERVER, SHARED)));
    outcome.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 1)]);
    let asked = message_of(outcome.only_frame(LAN)).unwrap();
    assert_eq!((asked.kind(), asked.target.protocol, asked.target.port), (Kind::Resolve, 47, None));
}

/// Rules 66 and 121: bindings that the router is given have what has no port, too.
#[test]
fn what_has_no_port_is_given_to_its_owner() {
    let config = RouterConfig { authority: true, ..router_config() };
    let mut bench = Bench { node: Router::new(config, Instant::from_secs(1)), now: Instant::from_secs(1) };
    bench.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (EthernetAddress([0; 6]), OUTSIDE_ROUTER)));
    let ah = ip(SERVER, SHARED, 51, &[0; 16]);
    let timestamp = icmp_error(SERVER, SHARED, (13, 0), &[0; 12]);
    let about_gre = icmp_error(SERVER, SHARED, (3, 2), &gre(SHARED, SERVER));
    let packets = [gre(SERVER, SHARED), about_gre, ah, timestamp];
    let owners = |bench: &mut Bench<Router>| {
        packets.each_ref().map(|packet| {
            let outcome = bench.give(OUTSIDE, from_outside(packet));
            match outcome.verdict {
                Verdict::Forward(LAN) => Some(addresses(&outcome.frame).1),
                Verdict::Dropped(DropReason::NoOwner) => None,
                other => panic!("{other:?}"),
            }
        })
    };
    assert_eq!(owners(&mut bench), [None; 4]);
    let (gre, rest) = (record(Claim::Portless(47)), record(Claim::RESIDUAL));
    let now = bench.now;
    bench.node.grant(SHARED, A, &[psid("0,4,1"), gre], now).unwrap();
    assert_eq!(owners(&mut bench), [Some(A), Some(A), None, None]);
    bench.node.grant(SHARED, B, &[psid("0,4,2"), rest], now).unwrap();
    assert_eq!(owners(&mut bench), [Some(A), Some(A), Some(B), Some(B)]);
    bench.node.grant(SHARED, A, &[psid("0,4,1")], now).unwrap();
    assert_eq!(owners(&mut bench), [Some(B); 4]);
    bench.node.grant(SHARED, B, &[], now).unwrap();
    bench.pass(Duration::from_secs(2));
    let outcome = bench.give(OUTSIDE, from_outside(&packets[0]));
    let told = [("no_owner", 1), ("originated", 1), ("forwarded", 1)];
    outcome.is(Verdict::Dropped(DropReason::NoOwner), &told);
}

/// Rule 37: ports that no PSID covers are refused without a question.
#[test]
fn unassigned_ports_are_not_asked_for() {
    let mut bench = router_with_neighbors();
    let outcome = bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, (SCATTERED, 80))));
    let error = [("unassigned_port", 1), ("originated", 1), ("forwarded", 1)];
    outcome.is(Verdict::Dropped(DropReason::UnassignedPort), &error);
    assert_eq!(icmp_of(packet_of(outcome.only_frame(OUTSIDE))).kind, (3, 1));
}

/// Rules 38 and 45: a packet waits for the answer, then leaves as any other.
#[test]
fn a_packet_waits_for_its_owner() {
    let mut bench = router_with_neighbors();
    let packet = tcp(FROM_SERVER, (SHARED, 20_000));
    let outcome = bench.give(OUTSIDE, from_outside(&packet));
    outcome.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 1)]);
    let question = outcome.only_frame(LAN);
    let answered = bench.give(LAN, reply(C, question, psid("0,4,4")));
    answered.is(Verdict::Delivered, &[("delivered", 1), ("pending", -1), ("forwarded", 1)]);
    let frame = answered.only_frame(LAN);
    assert_eq!(addresses(frame), (ROUTER_MAC, C));
    assert_eq!(packet_of(frame), change(packet, |packet| packet.set_hop_limit(63)));
}

/// Rules 38, 42 and 83: after three questions the packet is given up with a host unreachable, and the next ones are
/// refused at once.
#[test]
fn a_port_without_an_owner_is_unreachable() {
    let mut bench = router_with_neighbors();
    let packet = tcp(FROM_SERVER, (SHARED, 20_000));
    bench.give(OUTSIDE, from_outside(&packet)).is(Verdict::Pending, &[("pending", 1), ("arp_sent", 1)]);
    let (sent, counted) = bench.pass(Duration::from_secs(4));
    let asked = sent.iter().filter(|(_, frame)| message_of(frame).is_some()).count();
    assert_eq!((asked, counted["unreachable"], counted["pending"]), (2, 1, -1));
    let error = sent.iter().find(|(link, _)| *link == OUTSIDE).unwrap();
    let icmp = icmp_of(packet_of(&error.1));
    assert_eq!((icmp.to, icmp.kind), (SERVER, (3, 1)));
    let outcome = bench.give(OUTSIDE, from_outside(&packet));
    let refused = [("unreachable", 1), ("originated", 1), ("forwarded", 1)];
    outcome.is(Verdict::Dropped(DropReason::Unreachable), &refused);
}

/// Rules 3 and 77: plain ARP for a shared address is answered on its LAN, and nowhere else.
#[test]
fn plain_arp_is_answered_for_shared_addresses() {
    let mut bench = router_with_neighbors();
    let ask = |target| plain_arp(1, (C, WHOLE), (EthernetAddress([0; 6]), target));
    for target in [ROUTER, SHARED, SCATTERED] {
        let outcome = bench.give(LAN, ask(target));
        outcome.is(Verdict::Delivered, &[("delivered", 1), ("arp_sent", 1)]);
        let frame = outcome.only_frame(LAN);
        assert_eq!(addresses(frame), (ROUTER_MAC, C));
        let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, .. } =
            plain_of(frame)
        else {
            panic!("plain ARP");
        };
        assert_eq!((operation, source_hardware_addr), (ArpOperation::Reply, ROUTER_MAC));
        assert_eq!(source_protocol_addr, target);
    }
    bench.give(LAN, ask(WHOLE)).is(Verdict::Delivered, &[("delivered", 1)]);
    let outside = plain_arp(1, (SERVER_MAC, SERVER), (EthernetAddress([0; 6]), SHARED));
    bench.give(OUTSIDE, outside).is(Verdict::Delivered, &[("delivered", 1)]);
    // Rule 26: a plain message from a shared address is nobody's.
    let claim = plain_arp(1, (C, SHARED), (EthernetAddress([0; 6]), ROUTER));
    bench.give(LAN, claim).is_silent_drop(DropReason::PlainForShared);
}

/// PE-ARP is not spoken outside.
#[test]
fn pe_arp_from_outside_is_refused() {
    let mut bench = router_with_neighbors();
    bench.give(OUTSIDE, announce(SERVER_MAC, SERVER, FULL)).is_silent_drop(DropReason::PeArpNotSpoken);
}

/// Rule 19: each way to be invalid has a reason of its own.
#[test]
fn invalid_arp_is_counted_by_reason() {
    let mut bench = router_with_neighbors();
    let patch = |at: usize, value: u8| {
        let mut frame = announce(A, SHARED, psid("0,4,1"));
        frame.bytes_mut()[ETHERNET_HEADER + at] = value;
        frame
    };
    for (at, value, reason) in [
        (1, 6, DropReason::ArpFormat),
        (3, 0, DropReason::ArpFormat),
        (7, 9, DropReason::PeArpOperation),
        (36, 0x21, DropReason::PeArpVersion),
        (37, 9, DropReason::Truncated),
        (38, 9, DropReason::PeArpRecord),
        (13, 0xCC, DropReason::ArpSender),
    ] {
        bench.give(LAN, patch(at, value)).is_silent_drop(reason);
    }
    let mut own = announce(A, SHARED, psid("0,4,1"));
    own.bytes_mut()[6..12].copy_from_slice(&ROUTER_MAC.0);
    bench.give(LAN, own).is_silent_drop(DropReason::OwnEcho);
}

/// Rule 84: at its start the router asks every owner of each shared address.
#[test]
fn a_new_router_asks_all_owners() {
    let now = Instant::from_secs(1);
    let mut router = Router::new(router_config(), now);
    let messages: Vec<Message> = core::iter::from_fn(|| router.poll_transmit(now))
        .map(|(link, frame)| {
            assert_eq!(link, LAN);
            message_of(&frame).unwrap()
        })
        .collect();
    let asked: Vec<_> = messages.iter().map(|message| (message.kind(), message.target.ip)).collect();
    assert_eq!(asked, [(Kind::SolicitAll, SHARED), (Kind::SolicitAll, SCATTERED)]);
}

/// TCP and UDP to the router itself: it has no services, and says so.
#[test]
fn the_router_has_no_services() {
    let mut bench = router_with_neighbors();
    for packet in [udp(FROM_SERVER, (OUTSIDE_ROUTER, 53), b"?"), tcp(FROM_SERVER, (OUTSIDE_ROUTER, 22))] {
        let outcome = bench.give(OUTSIDE, from_outside(&packet));
        let error = [("no_service", 1), ("originated", 1), ("forwarded", 1)];
        outcome.is(Verdict::Dropped(DropReason::NoService), &error);
        assert_eq!(icmp_of(packet_of(outcome.only_frame(OUTSIDE))).kind, (3, 3));
    }
    bench.give(OUTSIDE, from_outside(&gre(SERVER, OUTSIDE_ROUTER))).is_silent_drop(DropReason::NoService);
    let reply = from_outside(&echo_reply(SERVER, OUTSIDE_ROUTER, 1));
    bench.give(OUTSIDE, reply).is(Verdict::Delivered, &[("delivered", 1)]);
}

/// A frame that its link did not take is a counted drop; an ARP message is none, it is asked again.
#[test]
fn what_a_link_does_not_take_is_counted() {
    let mut bench = router_with_neighbors();
    let outcome = bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_A)));
    let (_, counted) = bench.step(|node, _| node.send_failed(LAN, &outcome.frame));
    assert_eq!(counted, [("forwarded", -1), ("link_error", 1)].into());
    let arp = bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, (SHARED, 20_000))));
    let question = arp.only_frame(LAN).clone();
    let (_, counted) = bench.step(|node, _| node.send_failed(LAN, &question));
    assert_eq!(counted, [("arp_sent", -1), ("arp_lost", 1)].into());
}
