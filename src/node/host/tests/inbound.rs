//! From the LAN (PE-ARP rules 59 to 67 and 89).

use smoltcp::wire::EthernetAddress;

use crate::node::support::*;
use crate::node::{DropReason, Verdict};
use crate::wire::{Checksum, Frame, Gso, GsoKind, Medium, Offload};

fn from_router(packet: &[u8]) -> Frame {
    ethernet(ROUTER_MAC, A, packet)
}

#[test]
fn the_stack_gets_whole_checksums() {
    let mut host = host_with_gateway();
    let packet = udp((SERVER, 9), (SHARED, 7680), b"echo this");
    let mut frame = from_router(&packet);
    // As a sender with offload leaves it: the sum of the pseudo-header in the field.
    let mut bytes = packet.clone();
    bytes[26..28].fill(0);
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
    };
    let sum = words(&bytes[12..20]) + 17 + (bytes.len() as u32 - 20);
    let folded = ((sum & 0xFFFF) + (sum >> 16)) as u16;
    bytes[26..28].copy_from_slice(&folded.to_be_bytes());
    assert_ne!(bytes, packet);
    frame.bytes_mut()[14..14 + bytes.len()].copy_from_slice(&bytes);
    host.give(LAN, frame.clone()).is(Verdict::Delivered, &[("delivered", 1)]);

    frame.offload = Offload { checksum: Some(Checksum { start: 20, offset: 6 }), gso: None };
    let outcome = host.give(LAN, frame);
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    assert_eq!(packet_of(outcome.only_frame(LAN))[28..], b"echo this"[..]);
}

/// Bounds of datagrams stay, those of segments need not.
#[test]
fn the_stack_takes_super_frames() {
    let mut host = host_with_gateway();
    let to_echo = |offset, kind, packet: &[u8], header_len| {
        let mut frame = from_router(packet);
        let checksum = Some(Checksum { start: 20, offset });
        frame.offload = Offload { checksum, gso: Some(Gso { kind, size: 1000, header_len }) };
        frame
    };
    let packet = udp((SERVER, 9), (SHARED, 7680), &[7; 2500]);
    let outcome = host.give(LAN, to_echo(6, GsoKind::Udp, &packet, 28));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 3), ("forwarded", 3)]);
    let lengths: Vec<_> = outcome.sent.iter().map(|(_, frame)| packet_of(frame).len() - 28).collect();
    assert_eq!(lengths, [1000, 1000, 500]);

    // Where its offload header lies, nothing of it reaches a socket.
    let mut damaged = to_echo(6, GsoKind::Udp, &packet, 28);
    damaged.offload.gso = Some(Gso { kind: GsoKind::Udp, size: 1000, header_len: 40 });
    host.give(LAN, damaged).is_silent_drop(DropReason::Truncated);
}

/// Rule 62.
#[test]
fn errors_go_to_the_sender_of_the_embedded_packet() {
    let mut host = host();
    let error = |about: &[u8]| from_router(&icmp_error(ROUTER, SHARED, (3, 1), about));
    host.give(LAN, error(&udp((SHARED, 5000), (SERVER, 53), b""))).is_forwarded(TUN);
    host.give(LAN, error(&tcp((SHARED, 5000), (SERVER, 53))[..28])).is_forwarded(TUN);
    let of_stack = tcp((SHARED, 8000), (SERVER, 80));
    host.give(LAN, error(&of_stack)).is(Verdict::Delivered, &[("delivered", 1)]);

    let sent = udp((SHARED, 5000), (SERVER, 53), &[0; 8]);
    let of_the_set = change(sent.clone(), |packet| {
        packet.set_frag_offset(8);
        packet.set_ident(8000);
    });
    host.give(LAN, error(&of_the_set)).is_forwarded(TUN);
    let refused = [
        (udp((SHARED, 9000), (SERVER, 53), b""), DropReason::NotOurPort),
        (udp((WHOLE, 5000), (SERVER, 53), b""), DropReason::ForeignError),
        (change(sent.clone(), |packet| packet.set_frag_offset(8)), DropReason::NotOurPort),
        (sent[..23].to_vec(), DropReason::Truncated),
        (sent[..12].to_vec(), DropReason::Truncated),
        (gre(SHARED, SERVER), DropReason::Portless),
    ];
    for (about, reason) in refused {
        host.give(LAN, error(&about)).is_silent_drop(reason);
    }
}

/// Rule 66.
#[test]
fn packets_without_ports_have_no_owner_here() {
    let mut host = host();
    host.give(LAN, from_router(&gre(SERVER, SHARED))).is_silent_drop(DropReason::Portless);
    let timestamp = icmp_error(SERVER, SHARED, (13, 0), &[0; 12]);
    host.give(LAN, from_router(&timestamp)).is_silent_drop(DropReason::Portless);
    let short = ip(SERVER, SHARED, 17, &[1, 2, 3]);
    host.give(LAN, from_router(&short)).is_silent_drop(DropReason::Truncated);
}

/// Rule 67.
#[test]
fn groups_are_delivered_with_no_port_check() {
    let mut host = host();
    let group = EthernetAddress([1, 0, 0x5E, 0, 0, 1]);
    let groups = [
        ([224, 0, 0, 1], group),
        ([255, 255, 255, 255], EthernetAddress::BROADCAST),
        ([198, 51, 100, 255], EthernetAddress::BROADCAST),
    ];
    for (to, hardware) in groups {
        let packet = udp((WHOLE, 9), (to.into(), 9), b"all");
        let outcome = host.give(LAN, ethernet(C, hardware, &packet));
        outcome.is_forwarded(TUN);
        assert_eq!(outcome.frame.bytes(), packet);
    }
    // RFC 1122 §3.3.6: a packet for one host in a frame for all is not for it.
    let packet = udp((WHOLE, 9), (SHARED, 5000), b"");
    for hardware in [group, EthernetAddress::BROADCAST] {
        host.give(LAN, ethernet(C, hardware, &packet)).is_silent_drop(DropReason::NotOurAddress);
    }
}

/// RFC 1122 §3.2.1.3.
#[test]
fn nobody_else_sends_from_the_own_ports() {
    let mut host = host();
    for from in [5000, 7680] {
        for to in [5001, 7680] {
            let packet = udp((SHARED, from), (SHARED, to), b"loop");
            host.give(LAN, ethernet(B, A, &packet)).is_silent_drop(DropReason::MartianSource);
        }
    }
    // PE-ARP rule 6: another sharer does, from its own.
    host.give(LAN, ethernet(B, A, &udp((SHARED, 9000), (SHARED, 5001), b""))).is_forwarded(TUN);
}

#[test]
fn damaged_packets_are_dropped() {
    let mut host = host();
    let packet = udp((SERVER, 53), (SHARED, 5000), &[7; 20]);
    let damaged = |at: usize, byte| {
        let mut bytes = packet.clone();
        bytes[at] = byte;
        from_router(&bytes)
    };
    host.give(LAN, damaged(8, 1)).is_silent_drop(DropReason::HeaderChecksum);
    host.give(LAN, damaged(0, 0x65)).is_silent_drop(DropReason::NotIpv4);
    // A header of 16 bytes, one past the packet, and a total length past the frame.
    for (at, byte) in [(0, 0x44), (0, 0x4F), (2, 0xFF)] {
        host.give(LAN, damaged(at, byte)).is_silent_drop(DropReason::Truncated);
    }
    host.give(LAN, Frame::from_ethernet(&from_router(&packet).bytes()[..30]))
        .is_silent_drop(DropReason::Truncated);
}

#[test]
fn a_frame_is_read_into_a_used_buffer() {
    let mut host = host();
    let mut buffer = Frame::buffer();
    for round in 0..3 {
        let frame = from_router(&udp((SERVER, 53), (SHARED, 5000), &[round; 30]));
        buffer.space(Medium::Ethernet)[..frame.len()].copy_from_slice(frame.bytes());
        buffer.set_len(frame.len());
        let verdict = crate::node::Node::handle_frame(&mut host.node, LAN, &mut buffer, host.now);
        assert_eq!((verdict, buffer.len(), buffer.bytes()[28]), (Verdict::Forward(TUN), 58, round));
    }
}
