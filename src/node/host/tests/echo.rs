//! Echo requests, their replies, and errors about them (PE-ARP rules 60, 61, 92 and 93).

use smoltcp::time::Duration;

use crate::node::support::*;
use crate::node::{DropReason, Verdict};
use crate::wire::{Checksum, Frame};

/// Rule 92.
#[test]
fn the_host_answers_a_ping_of_its_own_address() {
    let mut host = host();
    let request = echo_request(SHARED, SHARED, 12);
    let outcome = host.give(TUN, Frame::from_packet(&request));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let reply = outcome.only_packet(TUN);
    assert_eq!(
        (icmp_of(reply).kind, icmp_of(reply).data, identifier_of(reply)),
        ((0, 0), &b"abcdefgh"[..], 12)
    );

    let fragment = change(request.clone(), |packet| packet.set_more_frags(true));
    host.give(TUN, Frame::from_packet(&fragment)).is_silent_drop(DropReason::EchoDamaged);
    let mut damaged = request;
    damaged[30] ^= 1;
    host.give(TUN, Frame::from_packet(&damaged)).is_silent_drop(DropReason::EchoDamaged);
}

/// A checksum that is left open covers the identifier.
#[test]
fn an_open_checksum_is_completed_before_the_identifier_is_mapped() {
    let mut host = host_with_gateway();
    let mut frame = Frame::from_packet(&echo_request(SHARED, SERVER, 12));
    // ICMP has no pseudo-header: the sum of nothing is in the field.
    frame.bytes_mut()[22..24].fill(0);
    frame.offload.checksum = Some(Checksum { start: 20, offset: 2 });
    let outcome = host.give(TUN, frame);
    outcome.is_forwarded(LAN);
    assert_eq!(outcome.frame.offload.checksum, None);
    assert_ne!(identifier_of(packet_of(&outcome.frame)), 12, "mapped, with the right checksum");
}

/// Rule 92.
#[test]
fn a_ping_of_a_shared_address_goes_to_the_gateway() {
    let mut host = host_with_gateway();
    host.give(LAN, announce(B, SCATTERED, psid("6,4,1")));
    host.give(LAN, announce(C, WHOLE, FULL));
    for (to, next_hop) in [(SCATTERED, ROUTER_MAC), (WHOLE, C), (SERVER, ROUTER_MAC)] {
        let outcome = host.give(TUN, Frame::from_packet(&echo_request(SHARED, to, 12)));
        outcome.is_forwarded(LAN);
        assert_eq!(addresses(&outcome.frame), (A, next_hop), "{to}");
    }
}

/// Rule 93.
#[test]
fn where_no_identifier_is_free_the_request_is_dropped() {
    let mut config = host_config(A, "0,4,1");
    config.options.stack_ports = Some(2);
    let mut host = host_with(config);
    host.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    let request = |identifier| Frame::from_packet(&echo_request(SHARED, SERVER, identifier));
    host.give(TUN, request(1)).is_forwarded(LAN);
    host.give(TUN, request(2)).is_forwarded(LAN);
    host.give(TUN, request(3)).is_silent_drop(DropReason::EchoIdentifier);
    host.pass(Duration::from_secs(60));
    // The gateway did not confirm itself meanwhile; it says again that it is there.
    host.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    host.give(TUN, request(3)).is_forwarded(LAN);
}

/// Rule 88.
#[test]
fn a_program_knows_its_request_by_its_own_identifier() {
    let mut host = host();
    let request = echo_request(SHARED, WHOLE, 12);
    assert_eq!(host.give(TUN, Frame::from_packet(&request)).verdict, Verdict::Pending);
    let (sent, counted) = host.pass(Duration::from_secs(3));
    assert_eq!((counted["unreachable"], counted["originated"]), (1, 1));
    let (link, told) = sent.last().unwrap();
    assert_eq!((*link, icmp_of(told.bytes()).data), (TUN, &request[..]));
}

/// Rule 61: the answer to a request with an identifier of the set may be the first packet that leaves.
#[test]
fn an_answer_waits_for_the_gateway_and_leaves() {
    let mut host = host();
    let reply_to_server = echo_reply(SHARED, SERVER, 5000);
    let outcome = host.give(TUN, Frame::from_packet(&reply_to_server));
    outcome.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 2)]);
    let answered = host.give(LAN, reply(ROUTER_MAC, &outcome.sent[0].1, FULL));
    answered.is(Verdict::Delivered, &[("delivered", 1), ("pending", -1), ("forwarded", 1)]);
    assert_eq!(packet_of(answered.only_frame(LAN)), reply_to_server);
}
