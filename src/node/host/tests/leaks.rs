//! Source ports outside the set (PE-ARP rule 91).

use smoltcp::wire::{IpProtocol, TcpPacket, UdpPacket};

use super::*;
use crate::node::{LeakPolicy, MappedLeak};
use crate::wire::{TCP, UDP, icmp};

const OUTSIDE: u16 = 3000;

fn mapping() -> Bench<Host> {
    let mut config = host_config(A, "0,4,1");
    config.options.leaks = LeakPolicy::Map;
    let mut bench = host_with(config);
    let answer = plain_arp(2, (ROUTER_MAC, ROUTER), (A, SHARED));
    bench.give(TUN, Frame::from_packet(&udp((SHARED, 5000), (SERVER, 53), b"?")));
    bench.give(LAN, answer);
    bench
}

fn mapped(bench: &Bench<Host>) -> Vec<MappedLeak> {
    bench.node.mapped_leaks().collect()
}

fn ports(packet: &[u8]) -> (u16, u16) {
    let packet = Ipv4Packet::new_checked(packet).unwrap();
    let [a, b, c, d] = *packet.payload().first_chunk().unwrap();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// The checksum of TCP or UDP.
fn is_sound(packet: &[u8]) -> bool {
    let packet = Ipv4Packet::new_checked(packet).unwrap();
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    match packet.next_header() {
        IpProtocol::Udp => UdpPacket::new_checked(packet.payload()).unwrap().verify_checksum(&from, &to),
        _ => TcpPacket::new_checked(packet.payload()).unwrap().verify_checksum(&from, &to),
    }
}

#[test]
fn a_port_outside_the_set_is_mapped_there_and_back() {
    let mut bench = mapping();
    for protocol in [TCP, UDP] {
        let packet = |from, to| if protocol == TCP { tcp(from, to) } else { udp(from, to, b"leak") };
        let outcome = bench.give(TUN, Frame::from_packet(&packet((SHARED, OUTSIDE), (SERVER, 53))));
        outcome.is(Verdict::Forward(LAN), &[("forwarded", 1), ("mapped", 1)]);
        let sent = packet_of(&outcome.frame).to_vec();
        let (port, to) = ports(&sent);
        assert!(bench.node.stack_part().contains(port) && to == 53, "{port}");
        assert!(is_sound(&sent));
        let leak = bench.node.poll_leak().unwrap();
        assert_eq!((leak.protocol, leak.port, leak.mapped), (protocol, OUTSIDE, Some(port)));

        let answer = ethernet(ROUTER_MAC, A, &packet((SERVER, 53), (SHARED, port)));
        let outcome = bench.give(LAN, answer);
        outcome.is(Verdict::Forward(TUN), &[("forwarded", 1)]);
        assert_eq!(ports(outcome.frame.bytes()), (53, OUTSIDE));
        assert!(is_sound(outcome.frame.bytes()));

        // Another packet, to somebody else: the same port, and nothing new to tell.
        let outcome = bench.give(TUN, Frame::from_packet(&packet((SHARED, OUTSIDE), (FAR, 99))));
        assert_eq!(ports(packet_of(&outcome.frame)), (port, 99));
        assert_eq!(bench.node.poll_leak(), None);
        assert!(mapped(&bench).iter().any(|leak| leak.protocol == protocol && leak.packets == 3));

        // An error about it is for the program, too.
        let error = icmp::error_for(&sent, SERVER, icmp::Error::HostUnreachable).unwrap();
        let outcome = bench.give(LAN, ethernet(ROUTER_MAC, A, &error));
        assert_eq!(outcome.verdict, Verdict::Forward(TUN));
        let error = icmp_of(outcome.frame.bytes());
        assert_eq!(&error.data[20..22], &OUTSIDE.to_be_bytes());
    }
}

/// To another program, and to the own stack, by the shared address: the answers come back by the TUN, not by the LAN.
#[test]
fn a_mapped_program_talks_to_its_own_host() {
    let mut bench = mapping();
    let outcome = bench.give(TUN, Frame::from_packet(&udp((SHARED, OUTSIDE), PROGRAM, b"hello")));
    outcome.is(Verdict::Forward(TUN), &[("forwarded", 1), ("mapped", 1)]);
    let (port, to) = ports(outcome.frame.bytes());
    assert!(bench.node.stack_part().contains(port) && to == PROGRAM.1, "{port}");
    let outcome = bench.give(TUN, Frame::from_packet(&udp(PROGRAM, (SHARED, port), b"and back")));
    outcome.is(Verdict::Forward(TUN), &[("forwarded", 1)]);
    assert_eq!(ports(outcome.frame.bytes()), (PROGRAM.1, OUTSIDE));
    assert!(is_sound(outcome.frame.bytes()));

    let echo = bench.node.services().udp_echo.unwrap();
    let outcome = bench.give(TUN, Frame::from_packet(&udp((SHARED, OUTSIDE), (SHARED, echo), b"echo")));
    assert_eq!(outcome.verdict, Verdict::Delivered);
    let answer = outcome.only_packet(TUN);
    assert_eq!(ports(answer), (echo, OUTSIDE));
    assert!(is_sound(answer));
}

/// The program knows its packet by its own port.
#[test]
fn an_error_of_the_own_host_has_the_port_of_the_program() {
    let mut bench = mapping();
    let packet = udp((SHARED, OUTSIDE), (WHOLE, 53), b"anybody?");
    assert_eq!(bench.give(TUN, Frame::from_packet(&packet)).verdict, Verdict::Pending);
    let (sent, _) = bench.pass(Duration::from_secs(5));
    let errors: Vec<_> = sent.iter().filter(|(link, _)| *link == TUN).collect();
    let [(_, error)] = &errors[..] else { panic!("{errors:?}") };
    let error = icmp_of(error.bytes());
    assert_eq!((error.kind, &error.data[20..22]), ((3, 1), &OUTSIDE.to_be_bytes()[..]));
}

/// What a device would have finished.
#[test]
fn an_open_checksum_stays_open() {
    let mut bench = mapping();
    let mut frame = Frame::from_packet(&udp((SHARED, OUTSIDE), (SERVER, 53), b"leak"));
    frame.offload.checksum = Some(crate::wire::Checksum { start: 20, offset: 6 });
    let before = frame.bytes()[26..28].to_vec();
    let outcome = bench.give(TUN, frame);
    assert_eq!(packet_of(&outcome.frame)[26..28], before);
}

/// RFC 768.
#[test]
fn a_datagram_without_a_checksum_gets_none() {
    let mut bench = mapping();
    let mut packet = udp((SHARED, OUTSIDE), (SERVER, 53), b"leak");
    packet[26..28].fill(0);
    let outcome = bench.give(TUN, Frame::from_packet(&packet));
    assert_eq!(packet_of(&outcome.frame)[26..28], [0, 0]);
}

#[test]
fn a_mapping_ends_when_nobody_uses_it() {
    let mut bench = mapping();
    bench.give(TUN, Frame::from_packet(&udp((SHARED, OUTSIDE), (SERVER, 53), b"leak")));
    let port = mapped(&bench)[0].mapped;
    bench.pass(Duration::from_secs(119));
    assert_eq!(mapped(&bench).len(), 1);
    bench.pass(Duration::from_secs(2));
    assert_eq!(mapped(&bench), []);
    // A late answer is for nobody.
    let late = ethernet(ROUTER_MAC, A, &udp((SERVER, 53), (SHARED, port), b"late"));
    assert_ne!(bench.give(LAN, late).verdict, Verdict::Forward(TUN));
}

/// More ports outside the set than the stack part has.
#[test]
fn without_a_free_port_the_program_is_told() {
    let mut bench = mapping();
    let (used, _) = bench.node.stack_use();
    let free = bench.node.stack_part().count() as u16 - used as u16;
    for port in 0..free {
        let packet = udp((SHARED, 20_000 + port), (SERVER, 53), b"leak");
        assert_ne!(bench.give(TUN, Frame::from_packet(&packet)).verdict, DropReason::SourcePort.into());
    }
    assert_eq!(mapped(&bench).len(), usize::from(free));
    let packet = udp((SHARED, 40_000), (SERVER, 53), b"leak");
    let outcome = bench.give(TUN, Frame::from_packet(&packet));
    assert_eq!(outcome.verdict, DropReason::SourcePort.into());
    assert_eq!(icmp_of(outcome.only_packet(TUN)).kind, (3, 13));
    // Two minutes later there is room again.
    bench.now += Duration::from_secs(121);
    let outcome = bench.give(TUN, Frame::from_packet(&packet));
    assert_ne!(outcome.verdict, DropReason::SourcePort.into());
}
