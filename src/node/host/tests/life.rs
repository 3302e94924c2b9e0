//! The set's life, whole addresses, ARP that is refused, links that fail.

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use crate::neighbor::OwnId;
use crate::node::support::*;
use crate::node::{DropReason, Host, Node, StreamState, Verdict};
use crate::wire::pe_arp::{Claim, DEFAULT_PRO, Message, PeAddress};
use crate::wire::{Frame, pe_arp_frame};

/// Rule 57.
#[test]
fn a_set_in_use_is_lost_and_the_operator_told() {
    let now = Instant::from_secs(1);
    let mut host = Bench { node: Host::new(host_config(A, "0,4,1"), now).unwrap(), now };
    host.pass(Duration::from_millis(100));
    let disputed = shared(SHARED).with_port(0, Some(4096));
    let conflict = Message::conflict(B, disputed, A, &[psid("0,4,1")]);
    host.give(LAN, pe_arp_frame(A, &conflict, DEFAULT_PRO)).is(Verdict::Delivered, &[("delivered", 1)]);
    assert_eq!((host.node.take_lost(), host.node.take_lost()), (Some((OwnId::FIRST, B)), None));
    host.pass(Duration::from_secs(59));
    assert!(!host.node.phase().holds());
    host.pass(Duration::from_secs(3));
    assert!(host.node.phase().holds(), "it asks again after 60 to 61 s");
}

/// Sets and how they are announced: what the host answers when everyone is asked.
/// Rule 76.
#[test]
fn only_the_whole_address_is_announced_as_full() {
    for (set, claim) in [
        ("0-65535", Claim::Full),
        ("0,0,0", Claim::Full),
        ("6,0,0", Claim::Psid("6,0,0".parse().unwrap())),
        ("0,4,1", Claim::Psid("0,4,1".parse().unwrap())),
    ] {
        let mut host = host_with(host_config(A, set));
        let (sent, _) = host.step(|node, now| node.release(now));
        let message = message_of(&sent[0].1).unwrap();
        assert_eq!((message.records.len(), message.records[0].claim), (1, claim), "{set}");
        assert_eq!(message.sender.shared, claim != Claim::Full, "{set}");
    }
}

/// Rule 76.
#[test]
fn a_whole_address_carries_everything() {
    let mut host = host_with(host_config(A, "0-65535"));
    host.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    host.give(LAN, announce(C, WHOLE, FULL));
    let large = udp((SHARED, 5000), (SERVER, 53), &[0; 16]);
    let fragment = change(large, |packet| packet.set_frag_offset(8));
    for packet in [fragment.clone(), gre(SHARED, SERVER), echo_reply(SHARED, SERVER, 9), gre(SHARED, WHOLE)] {
        let outcome = host.give(TUN, Frame::from_packet(&packet));
        outcome.is_forwarded(LAN);
        assert_eq!(packet_of(&outcome.frame), packet);
    }
    let answer = change(fragment, |packet| {
        packet.set_src_addr(SERVER);
        packet.set_dst_addr(SHARED);
    });
    for packet in
        [answer, gre(SERVER, SHARED), echo_request(SERVER, SHARED, 9), tcp((SERVER, 80), (SHARED, 65535))]
    {
        let outcome = host.give(LAN, ethernet(ROUTER_MAC, A, &packet));
        outcome.is_forwarded(TUN);
        assert_eq!(outcome.frame.bytes(), packet);
    }
    // What goes to the own address comes back whole.
    let to_self = change(udp((SHARED, 5000), (SHARED, 53), &[0; 16]), |packet| packet.set_frag_offset(8));
    host.give(TUN, Frame::from_packet(&to_self)).is_forwarded(TUN);
    host.give(TUN, Frame::from_packet(&echo_request(SHARED, SHARED, 1))).is_forwarded(TUN);
}

#[test]
fn on_a_whole_address_the_stack_has_the_ports_that_it_uses() {
    let mut one = host_with(host_config(A, "0-65535"));
    let mut config = host_config(C, "0-65535");
    config.first.address = "198.51.100.50/24".parse().unwrap();
    let mut two = host_with(config);
    let (_, echo) = two.node.stack_use();
    let stream = one.node.connect(WHOLE, echo.unwrap(), one.now).unwrap();
    let elsewhere = join(&mut one, &mut two, Duration::from_millis(50));
    assert!(elsewhere.is_empty(), "nothing goes to programs: {elsewhere:?}");
    let open = StreamState::Open { readable: true, writable: true };
    assert_eq!(one.node.stream_state(stream), open);
    // The next port is a program's, though it is in the stack part.
    let used = one.node.stream_port(stream).unwrap();
    let other = if used == 65535 { used - 1 } else { used + 1 };
    one.give(LAN, ethernet(C, A, &tcp((WHOLE, 80), (SHARED, other)))).is_forwarded(TUN);
    // And an echo identifier is no port.
    one.give(LAN, ethernet(C, A, &echo_reply(WHOLE, SHARED, used))).is_forwarded(TUN);
}

#[test]
fn arp_that_is_refused_has_its_own_counters() {
    let mut host = host();
    let zero = EthernetAddress([0; 6]);
    let pe = |destination, message: &Message| pe_arp_frame(destination, message, DEFAULT_PRO);
    let changed = |at: usize, byte: u8| {
        let mut frame = announce(B, SHARED, psid("0,4,2"));
        frame.bytes_mut()[at] = byte;
        frame
    };
    let mut foreign_source = announce(B, SHARED, psid("0,4,2"));
    foreign_source.bytes_mut()[11] = 0xC;
    let asked = shared(SCATTERED).with_port(6, Some(5000));
    let answer = |to, records: &[_]| Message::reply(B, asked, to, shared(SHARED), records);
    let mut from_no_router = Message::solicit_all(B, PeAddress::new(WHOLE), SHARED);
    from_no_router.sender.router = false;
    let refused = [
        (changed(16, 0x86), DropReason::ArpFormat),
        (changed(18, 7), DropReason::ArpFormat),
        (changed(14 + 36, 0x20), DropReason::PeArpVersion),
        (changed(21, 3), DropReason::PeArpOperation),
        (changed(14 + 38, 9), DropReason::PeArpRecord),
        (Frame::from_ethernet(&changed(0, 0xFF).bytes()[..50]), DropReason::Truncated),
        (foreign_source, DropReason::ArpSender),
        (announce(A, SHARED, psid("0,4,2")), DropReason::OwnEcho),
        (announce(B, [127, 0, 0, 1].into(), psid("0,4,2")), DropReason::ArpAddress),
        (announce(B, SERVER, psid("0,4,2")), DropReason::OffLinkClaim),
        (announce(B, SHARED, psid("0,3,0")), DropReason::ConflictingClaim),
        (pe(A, &answer(A, &[psid("0,4,1")])), DropReason::Unsolicited),
        (pe(A, &answer(B, &[psid("0,4,1")])), DropReason::ArpNotForUs),
        (pe(A, &answer(A, &[psid("0,4,2")])), DropReason::WithoutAsked),
        (plain_arp(1, (B, SHARED), (zero, ROUTER)), DropReason::PlainForShared),
        (
            pe(
                A,
                &Message::nak(
                    B,
                    asked,
                    A,
                    shared(SHARED),
                    record(Claim::Range("4096-8191".parse().unwrap())),
                ),
            ),
            DropReason::NoAuthority,
        ),
        (pe(EthernetAddress::BROADCAST, &from_no_router), DropReason::SolicitAll),
        (
            pe(EthernetAddress::BROADCAST, &Message::probe(B, shared(SHARED).with_port(0, None), &[])),
            DropReason::NoRecords,
        ),
    ];
    for (frame, reason) in refused {
        let outcome = host.give(LAN, frame);
        let counted = &outcome.counted;
        assert_eq!(outcome.verdict, Verdict::Dropped(reason));
        assert_eq!((counted["received"], counted[reason.name()]), (1, 1), "{counted:?}");
        // A claim to the own set is answered with an announcement (rule 55), nothing else with anything.
        let defended = usize::from(reason == DropReason::ConflictingClaim);
        assert_eq!((counted.len(), outcome.sent.len()), (2 + defended, defended), "{counted:?}");
    }
}

#[test]
fn a_link_that_takes_nothing_is_counted() {
    let now = Instant::from_secs(1);
    let mut host = Bench { node: Host::new(host_config(A, "0,4,1"), now).unwrap(), now };
    // Nothing has been forwarded yet when the probe is lost.
    let (_, counted) = host.step(|node, now| {
        node.handle_timeout(now);
        let (link, probe) = node.poll_transmit(now).unwrap();
        node.send_failed(link, &probe);
    });
    assert_eq!(counted, [("arp_sent", -1), ("arp_lost", 1)].into());
    let mut host = host_with_gateway();
    let outcome = host.give(TUN, Frame::from_packet(&udp((SHARED, 5000), (SERVER, 53), b"")));
    let (_, counted) = host.step(|node, _| node.send_failed(LAN, &outcome.frame));
    assert_eq!(counted, [("forwarded", -1), ("link_error", 1)].into());
    // A packet for a program that would be ARP if it had an Ethernet header.
    let mut packet = udp((SERVER, 53), (SHARED, 5000), b"");
    packet[12..14].copy_from_slice(&[8, 6]);
    let packet = change(packet, |_| {});
    let outcome = host.give(LAN, ethernet(ROUTER_MAC, A, &packet));
    outcome.is_forwarded(TUN);
    let (_, counted) = host.step(|node, _| node.send_failed(TUN, &outcome.frame));
    assert_eq!(counted, [("forwarded", -1), ("link_error", 1)].into());
}
