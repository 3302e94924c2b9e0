//! Packets that the router refuses, and whom it tells.

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;

use crate::node::router::*;
use crate::node::support::*;
use crate::wire::{Checksum, GsoKind};

const NOBODY: EthernetAddress = EthernetAddress([0; 6]);

fn from_outside(packet: &[u8]) -> Frame {
    ethernet(SERVER_MAC, OUTSIDE_MAC, packet)
}

fn from_lan(source: EthernetAddress, packet: &[u8]) -> Frame {
    ethernet(source, ROUTER_MAC, packet)
}

/// Rule 61: with `echo=owner` a request is one host's, by its identifier, and its answer is checked like a source.
#[test]
fn the_owner_of_the_identifier_answers() {
    let config = RouterConfig { echo: EchoAnswer::Owner, ..router_config() };
    let mut router = Bench { node: Router::new(config, Instant::ZERO), now: Instant::ZERO };
    router.give(LAN, announce(A, SHARED, psid("0,4,1")));
    router.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (NOBODY, OUTSIDE_ROUTER)));
    let outcome = router.give(OUTSIDE, from_outside(&echo_request(SERVER, SHARED, 5000)));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame).1, A);
    let answer = echo_reply(SHARED, SERVER, 5000);
    router.give(LAN, ethernet(B, ROUTER_MAC, &answer)).is_silent_drop(DropReason::SpoofedPort);
    router.give(LAN, ethernet(A, ROUTER_MAC, &answer)).is_forwarded(OUTSIDE);
    let outcome = router.give(OUTSIDE, from_outside(&echo_request(SERVER, SHARED, 20_000)));
    outcome.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 1)]);
    let asked = message_of(outcome.only_frame(LAN)).unwrap();
    assert_eq!((asked.target.protocol, asked.target.port), (1, Some(20_000)));
}

/// A drop that is answered with one ICMP error.
fn told(reason: DropReason) -> Vec<(&'static str, i64)> {
    vec![(reason.name(), 1), ("originated", 1), ("forwarded", 1)]
}

/// Rule 83.
#[test]
fn too_big_is_answered_where_it_must_not_be_cut() {
    let mut config = router_config();
    config.links[0].mtu = 600;
    let mut router = Bench { node: Router::new(config, Instant::ZERO), now: Instant::ZERO };
    router.give(LAN, announce(A, SHARED, psid("0,4,1")));
    router.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (NOBODY, OUTSIDE_ROUTER)));
    let of_length = |length: usize| udp((SERVER, 9), (SHARED, 5000), &vec![0; length - 28]);
    router.give(OUTSIDE, from_outside(&of_length(600))).is_forwarded(LAN);
    let packet = of_length(601);
    let outcome = router.give(OUTSIDE, from_outside(&packet));
    outcome.is(Verdict::Dropped(DropReason::TooBig), &told(DropReason::TooBig));
    let answer = icmp_of(packet_of(outcome.only_frame(OUTSIDE)));
    // RFC 1191 §4 the link's MTU, RFC 1812 §4.3.2.3 at most 576 bytes.
    assert_eq!((answer.kind, answer.word, answer.data), ((3, 4), 600, &packet[..548]));

    // Of a super-frame, a segment has to fit; the error is about the first one, as it is on the wire.
    let packet = segment((SERVER, 80), (SHARED, 5000), |packet| packet.set_ack(true), &[7; 5000]);
    let mut large = from_outside(&packet);
    large.offload.checksum = Some(Checksum { start: 20, offset: 16 });
    let gso = |size| Some(Gso { kind: GsoKind::Tcp4 { ecn: false }, size, header_len: 40 });
    large.offload.gso = gso(560);
    router.give(OUTSIDE, large.clone()).is_forwarded(LAN);
    large.offload.gso = gso(561);
    let outcome = router.give(OUTSIDE, large);
    outcome.is(Verdict::Dropped(DropReason::TooBig), &told(DropReason::TooBig));
    let answer = icmp_of(packet_of(outcome.only_frame(OUTSIDE)));
    let first = segment((SERVER, 80), (SHARED, 5000), |packet| packet.set_ack(true), &[7; 561]);
    assert_eq!((answer.word, answer.data), (600, &first[..548]));
}

/// Rule 83.
#[test]
fn addresses_of_no_host_are_dropped_without_an_answer() {
    let mut router = router_with_neighbors();
    let zero = [0, 0, 0, 0];
    for source in [zero, [127, 0, 0, 1], [224, 0, 0, 9], [255; 4], [203, 0, 113, 255], [198, 51, 100, 255]] {
        let packet = change(udp((source.into(), 9), (SHARED, 5000), b""), |packet| packet.set_hop_limit(1));
        router.give(OUTSIDE, from_outside(&packet)).is_silent_drop(DropReason::MartianSource);
    }
    // RFC 2644: and no broadcasts of a link.
    for to in [zero, [127, 0, 0, 1], [224, 0, 0, 9], [255; 4], [198, 51, 100, 255], [192, 0, 2, 255]] {
        let packet = udp((SERVER, 9), (to.into(), 9), b"");
        router.give(OUTSIDE, from_outside(&packet)).is_silent_drop(DropReason::MartianDestination);
    }
}

/// Rules 7 and 83.
#[test]
fn no_error_about_an_error() {
    let mut router = router_with_neighbors();
    let about = udp(([8, 8, 8, 8].into(), 9), (SHARED, 5000), b"");
    let error = icmp_error(SHARED, [8, 8, 8, 8].into(), (3, 3), &about);
    router.give(LAN, from_lan(A, &error)).is_silent_drop(DropReason::NoRoute);
}

#[test]
fn the_way_of_an_error_is_asked_for_at_once() {
    let mut router = router();
    router.give(LAN, announce(A, SHARED, psid("0,4,1")));
    // The router knows no MAC of the sender.
    let packet = change(udp((SERVER, 9), (SHARED, 5000), b""), |packet| packet.set_hop_limit(1));
    let outcome = router.give(OUTSIDE, from_outside(&packet));
    let counted = [("ttl_exceeded", 1), ("originated", 1), ("pending", 1), ("arp_sent", 1)];
    outcome.is(Verdict::Dropped(DropReason::TtlExceeded), &counted);
    outcome.only_frame(OUTSIDE);

    let packet = udp((SECOND, 9), (SHARED, 20_000), b"");
    router.give(SECOND_LAN, ethernet(C, SECOND_ROUTER_MAC, &packet));
    let (sent, _) = router.pass(Duration::from_secs(3));
    let last = sent.iter().filter(|(link, _)| *link == SECOND_LAN).count();
    assert_eq!(last, 2, "RESOLVE and plain ARP for the receiver of the error, when the packet is given up");
}

#[test]
fn an_error_that_cannot_be_delivered_is_given_up_without_another() {
    let mut router = router();
    let packet = change(udp((SERVER, 9), (SHARED, 5000), b""), |packet| packet.set_hop_limit(1));
    router.give(OUTSIDE, from_outside(&packet));
    let (sent, counted) = router.pass(Duration::from_secs(3));
    assert_eq!(counted, [("pending", -1), ("unreachable", 1), ("arp_sent", 2)].into());
    assert!(sent.iter().all(|(link, frame)| *link == OUTSIDE && frame.bytes()[12..14] == [8, 6]));
}
