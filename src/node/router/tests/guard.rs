//! Ingress checks (PE-ARP rules 110 and 111): who sends what is not its own is dropped, under a name of its own.

use super::*;
use crate::wire::{ESP, GRE, SCTP};

/// To a port of B, which owns 8192 to 12287.
const TO_B: Endpoint = (SHARED, 9000);

/// A knows {A, 0,4,1} and {B, 0,4,2} from leases and believes nobody else: what is in no lease is nobody's.
fn authority() -> Bench<Router> {
    let mut config = router_config();
    config.authority = true;
    let mut bench = Bench { node: Router::new(config, Instant::ZERO), now: Instant::ZERO };
    bench.step(|router, now| {
        router.grant(SHARED, A, &[psid("0,4,1")], now).unwrap();
        router.grant(SHARED, B, &[psid("0,4,2")], now).unwrap();
    });
    bench.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (EthernetAddress([0; 6]), OUTSIDE_ROUTER)));
    bench
}

fn from(hardware: EthernetAddress, packet: &[u8]) -> Frame {
    ethernet(hardware, ROUTER_MAC, packet)
}

fn esp(from: Ipv4Addr, to: Ipv4Addr, spi: u32) -> Vec<u8> {
    ip(from, to, ESP, &[&spi.to_be_bytes()[..], &[0; 12]].concat())
}

/// GRE with a key, and without a checksum.
fn keyed_gre(from: Ipv4Addr, to: Ipv4Addr, key: u32) -> Vec<u8> {
    ip(from, to, GRE, &[&[0x20, 0, 8, 0][..], &key.to_be_bytes(), &[0; 8]].concat())
}

#[test]
fn a_port_of_another_host_is_dropped() {
    for mut bench in [authority(), router_with_neighbors()] {
        for packet in [
            tcp(TO_B, FROM_SERVER),
            udp(TO_B, FROM_SERVER, b""),
            ip(SHARED, SERVER, SCTP, &[0x23, 0x28, 0, 80, 0, 0, 0, 0]),
            echo_request(SHARED, SERVER, 9000),
            keyed_gre(SHARED, SERVER, 0x0001_2328),
            // To the router, to the own address and to another sharer as well.
            udp(TO_B, (ROUTER, 53), b""),
            tcp(TO_B, TO_A),
        ] {
            bench.give(LAN, from(A, &packet)).is_silent_drop(DropReason::SpoofedPort);
            let outcome = bench.give(LAN, from(B, &packet));
            let end = outcome.verdict;
            assert!(!matches!(end, Verdict::Dropped(DropReason::SpoofedPort)), "{end:?}");
        }
    }
}

#[test]
fn what_nobody_has_leased_is_nobodys() {
    let nobodys = [
        udp((SHARED, 20_000), FROM_SERVER, b""),
        udp((SHARED, 53), FROM_SERVER, b""),
        gre(SHARED, SERVER),
        echo_reply(SHARED, SERVER, 20_000),
    ];
    let mut bench = authority();
    for packet in &nobodys {
        bench.give(LAN, from(A, packet)).is_silent_drop(DropReason::SpoofedPort);
    }
    // Where owners are learned, one that was not heard of yet may speak.
    let mut bench = router_with_neighbors();
    bench.give(LAN, from(A, &nobodys[0])).is_forwarded(OUTSIDE);
}

#[test]
fn a_source_of_another_link_is_dropped() {
    let mut bench = router_with_neighbors();
    let spoofed = DropReason::SpoofedAddress;
    bench.give(OUTSIDE, from_outside(&udp(TO_A, TO_B, b""))).is_silent_drop(spoofed);
    bench.give(OUTSIDE, from_outside(&udp((WHOLE, 1), TO_B, b""))).is_silent_drop(spoofed);
    bench.give(OUTSIDE, from_outside(&udp((SECOND, 1), TO_B, b""))).is_silent_drop(spoofed);
    bench.give(LAN, from(A, &udp(FROM_SERVER, TO_B, b""))).is_silent_drop(spoofed);
    bench.give(LAN, from(A, &udp((SECOND, 1), TO_B, b""))).is_silent_drop(spoofed);
    bench.give(LAN, from(A, &udp((FAR, 1), TO_B, b""))).is_silent_drop(spoofed);
    // Outside is everything that is nowhere else, with a route or without.
    bench.give(OUTSIDE, from_outside(&udp((Ipv4Addr::new(9, 9, 9, 9), 53), TO_B, b""))).is_forwarded(LAN);
    bench.give(OUTSIDE, from_outside(&udp((FAR, 53), TO_B, b""))).is_forwarded(LAN);
}

/// A whole address has one host.
#[test]
fn another_hosts_whole_address_is_dropped() {
    let mut bench = router_with_neighbors();
    let packet = udp((WHOLE, 999), FROM_SERVER, b"");
    bench.give(LAN, from(A, &packet)).is_silent_drop(DropReason::SpoofedAddress);
    bench.give(LAN, from(C, &packet)).is_forwarded(OUTSIDE);
    // It has a new network card, and says so before it asks for its router.
    bench.give(LAN, plain_arp(1, (A, WHOLE), (EthernetAddress([0; 6]), ROUTER)));
    bench.give(LAN, from(A, &packet)).is_forwarded(OUTSIDE);
}

#[test]
fn an_error_about_what_its_sender_did_not_get_is_dropped() {
    for mut bench in [authority(), router_with_neighbors()] {
        let to_b = udp(FROM_SERVER, TO_B, b"secret");
        for kind in [(3, 1), (3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)] {
            let error = |about: &[u8]| icmp_error(SHARED, SERVER, kind, about);
            bench.give(LAN, from(B, &error(&to_b))).is_forwarded(OUTSIDE);
            let forged = [
                to_b.clone(),
                keyed_gre(SERVER, SHARED, 0x0001_2328),
                udp(FROM_SERVER, (WHOLE, 9000), b"not to the shared address"),
                change(to_b.clone(), |packet| packet.set_frag_offset(64)),
            ];
            for about in forged {
                bench.give(LAN, from(A, &error(&about))).is_silent_drop(DropReason::SpoofedError);
            }
            bench
                .give(LAN, from(A, &error(&udp((FAR, 1), TO_B, b""))))
                .is_silent_drop(DropReason::ForeignError);
        }
    }
}

/// Rule 111 is for every host of a LAN, also for one with an address of its own; one that routes tells of what it routes.
#[test]
fn an_error_of_a_whole_address_is_about_what_it_got() {
    let mut config = router_config();
    let behind: Ipv4Cidr = "192.168.7.0/24".parse().unwrap();
    config.routes.push(Route { prefix: behind, gateway: WHOLE });
    let mut bench = Bench { node: Router::new(config, Instant::ZERO), now: Instant::ZERO };
    bench.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (EthernetAddress([0; 6]), OUTSIDE_ROUTER)));
    let far = Ipv4Addr::new(192, 168, 7, 9);
    for source in [WHOLE, far] {
        let error = |about: &[u8]| icmp_error(source, SERVER, (3, 4), about);
        for about in [udp(FROM_SERVER, (source, 9), b""), udp(FROM_SERVER, (far, 9), b"")] {
            bench.give(LAN, from(C, &error(&about))).is_forwarded(OUTSIDE);
        }
        for about in [udp(FROM_SERVER, TO_B, b""), udp(FROM_SERVER, (FAR, 9), b"")] {
            bench.give(LAN, from(C, &error(&about))).is_silent_drop(DropReason::SpoofedError);
        }
    }
    // To a sharer, about its flow with somebody else.
    let forged = icmp_error(WHOLE, SHARED, (5, 1), &udp(TO_A, FROM_SERVER, b""));
    bench.give(LAN, from(C, &forged)).is_silent_drop(DropReason::SpoofedError);
}

/// PE-ARP rule 64: nothing in ESP says which sharer sends it.
#[test]
fn esp_is_from_any_sharer() {
    let mut bench = authority();
    let packet = esp(SHARED, SERVER, 0x1234_0001);
    bench.give(LAN, from(A, &packet)).is_forwarded(OUTSIDE);
    bench.give(LAN, from(C, &packet)).is_silent_drop(DropReason::SpoofedPort);
    // Its receiver is known.
    for (spi, owner) in [(0xFFFF_1388, A), (0x0000_2328, B)] {
        let outcome = bench.give(OUTSIDE, from_outside(&esp(SERVER, SHARED, spi)));
        outcome.is_forwarded(LAN);
        assert_eq!(addresses(&outcome.frame).1, owner);
    }
}

/// A host whose binding is old and wrong is asked, so that the new owner is not shut out.
#[test]
fn a_binding_that_others_contradict_is_confirmed() {
    let mut bench = router_with_neighbors();
    bench.pass(Duration::from_secs(60));
    bench.give(LAN, from(C, &tcp(TO_A, FROM_SERVER))).is_silent_drop(DropReason::SpoofedPort);
    // DELAY, then three questions that nobody answers.
    let (sent, _) = bench.pass(Duration::from_secs(10));
    let asked = sent.iter().filter(|(link, frame)| *link == LAN && addresses(frame).1 == A).count();
    assert_eq!(asked, 3);
    bench.give(LAN, from(C, &tcp(TO_A, FROM_SERVER))).is_forwarded(OUTSIDE);
}
