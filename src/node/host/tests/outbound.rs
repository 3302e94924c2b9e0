//! From the programs (PE-ARP rules 86 to 91).

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;

use crate::node::support::*;
use crate::node::{DropReason, Verdict};
use crate::wire::pe_arp::{Claim, DEFAULT_PRO, Kind, Message};
use crate::wire::{Checksum, Frame, Offload, pe_arp_frame};

const LEAK: &[(&str, i64)] = &[("originated", 1), ("forwarded", 1)];

fn program(packet: &[u8]) -> Frame {
    Frame::from_packet(packet)
}

/// A drop of which a program is told with one ICMP message.
fn told(reason: DropReason) -> Vec<(&'static str, i64)> {
    [LEAK, &[(reason.name(), 1)]].concat()
}

/// Rule 47.
#[test]
fn ten_answers_per_second_and_no_more() {
    let mut host = host();
    let packet = udp((SHARED, 9), (SERVER, 53), b"");
    let mut told = 0;
    for _ in 0..30 {
        let outcome = host.give(TUN, program(&packet));
        assert_eq!(outcome.counted["source_port"], 1);
        told += outcome.sent.len();
    }
    assert_eq!(told, 10);
    host.pass(Duration::from_millis(100));
    assert_eq!(host.give(TUN, program(&packet)).sent.len(), 1);
    host.give(TUN, program(&packet)).is_silent_drop(DropReason::SourcePort);
}

/// Rule 87.
#[test]
fn another_source_address_is_a_leak() {
    let mut host = host();
    let packet = udp((WHOLE, 5000), (SERVER, 53), b"");
    let outcome = host.give(TUN, program(&packet));
    outcome.is(Verdict::Dropped(DropReason::SourceAddress), &told(DropReason::SourceAddress));
    let answer = icmp_of(outcome.only_packet(TUN));
    assert_eq!((answer.to, answer.kind), (WHOLE, (3, 13)));
    // Nobody can be told who is no host.
    let packet = udp(([0, 0, 0, 0].into(), 68), ([255; 4].into(), 67), b"");
    host.give(TUN, program(&packet)).is_silent_drop(DropReason::SourceAddress);
}

/// Rule 86.
#[test]
fn with_a_32_mask_everything_goes_to_the_gateway() {
    let mut config = host_config(A, "0,4,1");
    config.first.address = "198.51.100.2/32".parse().unwrap();
    let mut host = host_with(config);
    host.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    for to in [(SERVER, 80), (SHARED, 9000), (WHOLE, 22)] {
        let outcome = host.give(TUN, program(&tcp((SHARED, 5000), to)));
        outcome.is_forwarded(LAN);
        assert_eq!(addresses(&outcome.frame).1, ROUTER_MAC, "{to:?}");
    }
}

/// Rule 90.
#[test]
fn the_own_port_comes_back_and_the_own_stack_answers() {
    let mut host = host();
    let packet = udp((SHARED, 5000), (SHARED, 6000), b"to myself");
    let outcome = host.give(TUN, program(&packet));
    outcome.is_forwarded(TUN);
    assert_eq!(outcome.frame.bytes(), packet);

    // Port 7680 is the echo service of the stack.
    let outcome = host.give(TUN, program(&udp((SHARED, 5000), (SHARED, 7680), b"echo")));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let answer = outcome.only_packet(TUN);
    assert_eq!((&answer[20..24], &answer[28..]), (&[0x1E, 0, 0x13, 0x88][..], &b"echo"[..]));
}

/// Rules 40 and 45.
#[test]
fn a_packet_waits_for_the_owner_and_leaves_as_it_came() {
    let mut host = host();
    let packet = udp((SHARED, 5000), (WHOLE, 53), b"wait");
    let mut given = program(&packet);
    let offload = Offload { checksum: Some(Checksum { start: 20, offset: 6 }), gso: None };
    given.offload = offload;
    let outcome = host.give(TUN, given);
    outcome.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 2)]);
    let question = message_of(&outcome.sent[0].1).unwrap();
    assert_eq!(question.kind(), Kind::Resolve);
    let target = question.target;
    assert_eq!((target.ip, target.protocol, target.port), (WHOLE, 17, Some(53)));

    let outcome = host.give(LAN, reply(C, &outcome.sent[0].1, FULL));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("pending", -1), ("forwarded", 1)]);
    let frame = outcome.only_frame(LAN);
    assert_eq!((addresses(frame), packet_of(frame)), ((A, C), &packet[..]));
    assert_eq!(frame.offload, offload, "the offload header waits with the packet");
}

/// Rule 58: what waits does not leave from a set that ended meanwhile.
#[test]
fn a_packet_that_waits_ends_with_the_set() {
    let mut host = host();
    let outcome = host.give(TUN, program(&udp((SHARED, 5000), (WHOLE, 53), b"late")));
    host.step(|node, now| node.release(now));
    let outcome = host.give(LAN, reply(C, &outcome.sent[0].1, FULL));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("pending", -1), ("set_not_held", 1)]);
    assert!(outcome.sent.is_empty());
}

/// Rule 42.
#[test]
fn a_program_is_told_when_nobody_answers() {
    let mut host = host();
    let packet = udp((SHARED, 5000), (WHOLE, 53), b"");
    host.give(TUN, program(&packet)).is(Verdict::Pending, &[("pending", 1), ("arp_sent", 2)]);
    let (sent, counted) = host.pass(Duration::from_secs(3));
    // Two more questions, each with plain ARP beside it.
    let expected =
        [("pending", -1), ("unreachable", 1), ("arp_sent", 4), ("originated", 1), ("forwarded", 1)];
    assert_eq!(counted, expected.into());
    let (link, last) = sent.last().unwrap();
    let answer = icmp_of(last.bytes());
    assert_eq!((*link, answer.to, answer.kind, answer.data), (TUN, SHARED, (3, 1), &packet[..]));

    // The failure is remembered.
    let outcome = host.give(TUN, program(&packet));
    outcome.is(Verdict::Dropped(DropReason::Unreachable), &told(DropReason::Unreachable));
    assert_eq!(icmp_of(outcome.only_packet(TUN)).kind, (3, 1));
}

/// Rule 43.
#[test]
fn an_authority_ends_the_wait() {
    let mut host = host();
    let packet = udp((SHARED, 5000), (SHARED, 9000), b"");
    let outcome = host.give(TUN, program(&packet));
    // To a shared address there is no plain ARP.
    outcome.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 1)]);
    let question = message_of(&outcome.sent[0].1).unwrap();
    let asked = shared(SHARED).with_port(17, Some(9000));
    let nak = Message::nak(
        AUTHORITY,
        asked,
        A,
        question.sender,
        record(Claim::Range("8192-12287".parse().unwrap())),
    );
    let outcome = host.give(LAN, pe_arp_frame(A, &nak, DEFAULT_PRO));
    let counted = [("delivered", 1), ("pending", -1), ("no_owner", 1), ("originated", 1), ("forwarded", 1)];
    outcome.is(Verdict::Delivered, &counted);
    assert_eq!(icmp_of(outcome.only_packet(TUN)).kind, (3, 1));
    let outcome = host.give(TUN, program(&packet));
    outcome.is(Verdict::Dropped(DropReason::NoOwner), &told(DropReason::NoOwner));
}

/// Rule 46.
#[test]
fn the_oldest_packet_of_a_full_question_gives_way() {
    let mut host = host();
    for tag in 0..16 {
        host.give(TUN, program(&udp((SHARED, 5000), (WHOLE, 53), &[tag])));
    }
    let outcome = host.give(TUN, program(&udp((SHARED, 5000), (WHOLE, 53), &[16])));
    outcome.is(Verdict::Pending, &[("pending_full", 1)]);
    // Too many bytes for one address: the newest is dropped, and nobody told.
    let huge = udp((SHARED, 5000), (SHARED, 9000), &[0; 60_000]);
    assert_eq!(host.give(TUN, program(&huge)).verdict, Verdict::Pending);
    host.give(TUN, program(&huge)).is_silent_drop(DropReason::PendingFull);
}

/// Rule 87.
#[test]
fn without_ports_nothing_leaves_but_to_groups() {
    let mut host = host_with_gateway();
    for packet in [gre(SHARED, SERVER), icmp_error(SHARED, SERVER, (13, 0), &[0; 12])] {
        let outcome = host.give(TUN, program(&packet));
        outcome.is(Verdict::Dropped(DropReason::Portless), &told(DropReason::Portless));
        assert_eq!(icmp_of(outcome.only_packet(TUN)).kind, (3, 13));
    }
    let membership = ip(SHARED, [224, 0, 0, 22].into(), 2, &[0; 8]);
    host.give(TUN, program(&membership)).is_forwarded(LAN);
}

/// Rule 67.
#[test]
fn groups_have_their_own_link_addresses() {
    let mut host = host();
    let multicast = EthernetAddress([1, 0, 0x5E, 0x7F, 1, 2]);
    let groups = [
        ([239, 255, 1, 2], multicast),
        ([255, 255, 255, 255], EthernetAddress::BROADCAST),
        ([198, 51, 100, 255], EthernetAddress::BROADCAST),
    ];
    for (to, hardware) in groups {
        let outcome = host.give(TUN, program(&udp((SHARED, 5000), (to.into(), 9), b"")));
        outcome.is_forwarded(LAN);
        assert_eq!(addresses(&outcome.frame), (A, hardware), "{to:?}");
    }
    // A source port outside the set is a leak, but no error answers a group.
    let leak = udp((SHARED, 9), ([239, 1, 1, 1].into(), 9), b"");
    host.give(TUN, program(&leak)).is_silent_drop(DropReason::SourcePort);
    let nowhere = udp((SHARED, 5000), ([240, 0, 0, 1].into(), 9), b"");
    host.give(TUN, program(&nowhere)).is_silent_drop(DropReason::MartianDestination);
}

#[test]
fn damaged_packets_stay() {
    let mut host = host_with_gateway();
    let packet = udp((SHARED, 5000), (SERVER, 53), &[0; 16]);
    let mut damaged = packet.clone();
    damaged[8] = 9;
    host.give(TUN, program(&damaged)).is_silent_drop(DropReason::HeaderChecksum);
    host.give(TUN, program(&packet[..40])).is_silent_drop(DropReason::Truncated);
    host.give(TUN, program(&ip(SHARED, SERVER, 6, &[1, 2, 3]))).is_silent_drop(DropReason::Truncated);
    let mut six = packet;
    six[0] = 0x65;
    host.give(TUN, program(&six)).is_silent_drop(DropReason::NotIpv4);
}

#[test]
fn without_a_gateway_there_is_no_way_off_the_link() {
    let mut config = host_config(A, "0,4,1");
    config.first.gateway = None;
    let mut host = host_with(config);
    host.give(TUN, program(&udp((SHARED, 5000), (SERVER, 53), b""))).is_silent_drop(DropReason::NoRoute);
}
