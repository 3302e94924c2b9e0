use super::super::packet::udp;
use super::*;

const OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

const fn mac(last: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 0, last])
}

fn at(millis: i64) -> Instant {
    Instant::from_millis(millis)
}

fn legacy() -> Legacy {
    Legacy::new(LegacyConfig {
        hardware: mac(10),
        address: Ipv4Cidr::new(OWN, 24),
        gateway: GATEWAY,
        seed: 1,
    })
}

fn hear(host: &mut Legacy, op: ArpOperation, from: (u8, Ipv4Addr), target: Ipv4Addr, now: Instant) {
    let message = ArpRepr::EthernetIpv4 {
        operation: op,
        source_hardware_addr: mac(from.0),
        source_protocol_addr: from.1,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let to = if op == ArpOperation::Reply { mac(10) } else { EthernetAddress::BROADCAST };
    host.handle_frame(&plain_arp(mac(from.0), to, &message), now);
}

/// Destination of each frame sent, and the operation where it is ARP.
fn sent(host: &mut Legacy) -> Vec<(EthernetAddress, Option<ArpOperation>)> {
    let frames = std::iter::from_fn(|| host.poll_transmit());
    frames
        .map(|frame| {
            let ethernet = EthernetFrame::new_checked(frame.bytes()).unwrap();
            let arp = ArpPacket::new_checked(ethernet.payload()).ok();
            let arp = arp.filter(|_| ethernet.ethertype() == EthernetProtocol::Arp);
            (ethernet.dst_addr(), arp.map(|arp| arp.operation()))
        })
        .collect()
}

fn send(host: &mut Legacy, to: Ipv4Addr, now: Instant) {
    host.send(udp((OWN, 5000), (to, 7), 0), now);
}

const REQUEST: ArpOperation = ArpOperation::Request;
const REPLY: ArpOperation = ArpOperation::Reply;
const ALL: EthernetAddress = EthernetAddress::BROADCAST;

#[test]
fn a_sender_without_address_is_answered_and_not_learned() {
    let mut host = legacy();
    hear(&mut host, REQUEST, (20, NOBODY), OWN, at(0));
    assert_eq!(sent(&mut host), [(mac(20), Some(REPLY))]);
    assert!(host.neighbors.is_empty());
    hear(&mut host, REQUEST, (11, PEER), OWN, at(0));
    assert_eq!(sent(&mut host), [(mac(11), Some(REPLY))]);
    send(&mut host, PEER, at(0));
    assert_eq!(sent(&mut host), [(mac(11), None)], "whoever asks is known");
}

#[test]
fn the_first_owner_stands_for_a_second() {
    let mut host = legacy();
    send(&mut host, PEER, at(0));
    hear(&mut host, REPLY, (11, PEER), OWN, at(10));
    hear(&mut host, REPLY, (12, PEER), OWN, at(1000));
    sent(&mut host);
    send(&mut host, PEER, at(1000));
    assert_eq!(sent(&mut host), [(mac(11), None)]);
    hear(&mut host, REPLY, (12, PEER), OWN, at(1010));
    send(&mut host, PEER, at(1010));
    assert_eq!(sent(&mut host), [(mac(12), None)]);
}

#[test]
fn what_is_overheard_updates_and_does_not_create() {
    let mut host = legacy();
    hear(&mut host, REQUEST, (11, PEER), GATEWAY, at(0));
    assert!(host.neighbors.is_empty());
    send(&mut host, PEER, at(0));
    hear(&mut host, REPLY, (11, PEER), OWN, at(10));
    sent(&mut host);
    hear(&mut host, REQUEST, (12, PEER), GATEWAY, at(5000));
    send(&mut host, PEER, at(5000));
    assert_eq!(sent(&mut host), [(mac(12), None)]);
}

#[test]
fn pe_arp_is_ignored() {
    use crate::wire::pe_arp::{DEFAULT_PRO, Message, PeAddress};
    let mut host = legacy();
    let asker = PeAddress::new(PEER);
    let message = Message::resolve(mac(11), asker, PeAddress::new(OWN).with_port(17, Some(7)), &[]);
    host.handle_frame(&crate::wire::pe_arp_frame(ALL, &message, DEFAULT_PRO), at(0));
    assert!(sent(&mut host).is_empty() && host.neighbors.is_empty());
}

#[test]
fn questions_and_probes_end() {
    let mut host = legacy();
    send(&mut host, OUTSIDE, at(0));
    for second in 1..3 {
        assert_eq!(sent(&mut host), [(ALL, Some(REQUEST))]);
        assert_eq!(host.poll_timeout(), Some(at(second * 1000)));
        host.handle_timeout(at(second * 1000));
    }
    sent(&mut host);
    host.handle_timeout(at(3000));
    assert_eq!((host.counters.dropped, host.poll_timeout()), (1, None));
    send(&mut host, OUTSIDE, at(4000));
    hear(&mut host, REPLY, (1, GATEWAY), OWN, at(4010));
    assert_eq!(sent(&mut host), [(ALL, Some(REQUEST)), (mac(1), None)]);
    send(&mut host, OUTSIDE, at(60_000));
    assert_eq!(host.poll_timeout(), Some(at(65_000)), "stale, so that it is probed");
    host.handle_timeout(at(65_000));
    assert_eq!(sent(&mut host), [(mac(1), None), (mac(1), Some(REQUEST))]);
    for second in 66..69 {
        host.handle_timeout(at(second * 1000));
    }
    assert_eq!(host.poll_timeout(), None);
}

#[test]
fn packets_for_others_are_dropped() {
    let mut host = legacy();
    let mut arrive = |to, hardware| {
        let mut frame = Frame::from_packet(&udp((PEER, 4000), (to, 7), 1));
        frame.push_ethernet_header(mac(11), hardware);
        host.handle_frame(&frame, at(0));
        host.poll_received().is_some()
    };
    assert!(arrive(OWN, mac(10)));
    assert!(!arrive(OUTSIDE, mac(10)) && !arrive(OWN, mac(9)) && !arrive(OWN, ALL));
    let counted = host.counters;
    assert_eq!((counted.delivered, counted.dropped, counted.ignored), (1, 1, 2));
}
