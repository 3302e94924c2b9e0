//! Whoever sends IP packets in the name of others gets nowhere (PE-ARP §16), nor does who scans and who sends fragments
//! that never become a datagram. The victim's ssh session notices nothing of it.
//!
//! One lie cannot be told: on a LAN that does not check them, a frame with the victim's own link-layer address is the
//! victim's (PE-ARP §19).

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Instant;

use nix::sys::signal::Signal;
use pearp::wire::{EthernetAddress, Frame, IpProtocol, Ipv4Packet, fragments, icmp, ipv4};

use crate::support::attack::{GROWTH, Scene, VICTIM, VICTIM_MAC};
use crate::support::capture::{Capture, Captured};
use crate::support::intruder::{LIAR, OUTSIDE_MAC, Plug, ROUTER_MAC, framed};
use crate::support::lab::{INET, LEGACY, Lab, ROUTER, SHARED};
use crate::support::wait::{PATIENCE, await_true};

/// A host outside, and one on the LAN, that nobody has.
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const H3_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 2, 3]);

/// Frames of a flood in a second: what one processor that is busy with other things takes in.
const FLOOD: u32 = 10_000;

/// Between two datagrams of the victim.
const PROBES: u32 = 512;

fn ip(address: &str) -> Ipv4Addr {
    address.parse().unwrap()
}

/// A TCP segment that ends a connection.
fn reset(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut packet = ipv4::packet(from.0, to.0, IpProtocol::Tcp, 20);
    packet[20..22].copy_from_slice(&from.1.to_be_bytes());
    packet[22..24].copy_from_slice(&to.1.to_be_bytes());
    packet[32..34].copy_from_slice(&[5 << 4, 4]);
    packet
}

fn echo_request(from: Ipv4Addr, to: Ipv4Addr, identifier: u16) -> Vec<u8> {
    let mut packet = ipv4::packet(from, to, IpProtocol::Icmp, 8);
    packet[20] = 8;
    packet[24..26].copy_from_slice(&identifier.to_be_bytes());
    packet[22..24].copy_from_slice(&(!(0x0800_u16.wrapping_add(identifier))).to_be_bytes());
    packet
}

/// A ping of legacy from now on has left when this returns, and so has all that came before it. What was captured.
#[track_caller]
fn until_a_ping(scene: &Scene, capture: &Capture) -> Vec<Captured> {
    scene.lab.exec("legacy", &["ping", "-n", "-c", "1", "-W", "20", INET]).ok();
    let pings = |packet: &Captured| packet.icmp_type() == Some(8) && packet.source() == ip(LEGACY);
    capture.await_packet("the ping of legacy", pings)
}

/// PE-ARP rule 110: h3 has a lease, and a process that sends what it wants; the liar has none.
#[test]
fn a_spoofed_port_goes_nowhere() {
    let scene = Scene::new(Lab::up());
    let inet = (ip(INET), scene.peer);
    let victim = (ip(SHARED), scene.port);
    scene.lab.end("h3", Signal::SIGKILL);
    let outside = Capture::start(&scene.lab, "wan", "wan", "ip");
    let lies = [
        // Of the victim.
        ipv4::udp(victim, inet, b"lie"),
        reset(victim, inet),
        echo_request(victim.0, inet.0, victim.1),
        // Of nobody.
        ipv4::udp((victim.0, 20_000), inet, b"lie"),
        ipv4::udp((victim.0, 53), inet, b"lie"),
    ];
    let port = scene.port.to_string();
    for (who, mut plug) in [(H3_MAC, Plug::of_host(&scene.lab, "h3")), (LIAR, Plug::new(&scene.lab, "lan"))] {
        Scene::until_lines_are_due();
        scene.dropped("router", "spoofed_port", || {
            for _ in 0..100 {
                lies.iter().for_each(|lie| plug.send_packet(who, ROUTER_MAC, lie));
            }
            500
        });
        scene.logged("spoofed_port", &[&who.to_string(), SHARED, &port, "owner"]);
        // What is its own it may send.
        if who == H3_MAC {
            let own = scene.lab.ports("h3")[0].0;
            plug.send_packet(who, ROUTER_MAC, &ipv4::udp((victim.0, own), inet, b"true"));
        }
    }
    let seen = until_a_ping(&scene, &outside);
    let udp: Vec<_> = seen.iter().filter(|packet| packet.protocol() == 17).collect();
    assert!(udp.len() == 1 && udp[0].payload()[8..12] == *b"true", "{udp:?}");
    assert!(seen.iter().all(|packet| !packet.is_rst()), "nobody ends the victim's session");
    assert!(seen.iter().all(|packet| packet.icmp_type() != Some(8) || packet.source() == ip(LEGACY)));
    scene.finish("spoofed ports");
}

/// PE-ARP rule 110, RFC 2827: a whole address that another host has, and one of another link.
#[test]
fn a_spoofed_address_goes_nowhere() {
    let scene = Scene::new(Lab::up());
    let inet = (ip(INET), 53);
    scene.lab.exec("legacy", &["ping", "-n", "-c", "1", "-W", "20", INET]).ok();
    let outside = Capture::start(&scene.lab, "wan", "wan", "ip");
    let lan = Capture::start(&scene.lab, "lan", "lan", "udp");
    let mut plug = Plug::new(&scene.lab, "lan");
    scene.dropped("router", "spoofed_address", || {
        for _ in 0..100 {
            for source in [ip(LEGACY), STRANGER, Ipv4Addr::new(9, 9, 9, 9)] {
                plug.send_packet(LIAR, ROUTER_MAC, &ipv4::udp((source, 999), inet, b"lie"));
            }
        }
        300
    });
    scene.logged("spoofed_address", &[&LIAR.to_string(), LEGACY, "Some(999)", INET]);
    scene.dropped("router", "martian_source", || {
        plug.send_packet(LIAR, ROUTER_MAC, &ipv4::udp((ip(ROUTER), 999), inet, b"lie"));
        1
    });
    let seen = until_a_ping(&scene, &outside);
    assert!(seen.iter().all(|packet| packet.protocol() != 17), "{seen:?}");

    // From outside.
    drop(plug);
    let mut plug = Plug::new(&scene.lab, "wan");
    let before = lan.packets().len();
    scene.dropped("router", "spoofed_address", || {
        for source in [ip(SHARED), ip(LEGACY), NOBODY] {
            let lie = ipv4::udp((source, scene.port), (ip(SHARED), scene.port), b"lie");
            (0..100).for_each(|_| plug.send_packet(LIAR, OUTSIDE_MAC, &lie));
        }
        300
    });
    let truth = ipv4::udp((STRANGER, 53), (ip(SHARED), scene.port), b"true");
    plug.send_packet(LIAR, OUTSIDE_MAC, &truth);
    let seen = lan.await_packet("what is true", |packet| packet.payload()[8..].starts_with(b"true"));
    assert_eq!(seen.len(), before + 1, "{seen:?}");
    scene.finish("spoofed addresses");
}

/// An ICMP error of any kind about a packet.
fn error(from: Ipv4Addr, kind: (u8, u8), about: &[u8]) -> Vec<u8> {
    let mut packet = icmp::error_for(about, from, icmp::Error::TooBig(576)).unwrap();
    // The checksum covers type and code in one word (RFC 1624).
    let old = u16::from_be_bytes([packet[20], packet[21]]);
    (packet[20], packet[21]) = kind;
    let sum = ipv4::updated_checksum(
        u16::from_be_bytes([packet[22], packet[23]]),
        old,
        u16::from_be_bytes([kind.0, kind.1]),
    );
    packet[22..24].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// PE-ARP rule 111: about the victim's session, by h3, by nobody's address, and by legacy's.
#[test]
fn a_forged_error_goes_nowhere() {
    let scene = Scene::new(Lab::up());
    scene.lab.exec("legacy", &["ping", "-n", "-c", "1", "-W", "20", INET]).ok();
    scene.lab.end("h3", Signal::SIGKILL);
    let lan = Capture::start(&scene.lab, "lan", "lan", "icmp and ether src 02:00:00:00:00:01");
    let sent = reset((ip(SHARED), scene.port), (ip(INET), scene.peer));
    // Fragmentation needed, port, host and protocol unreachable, redirect, time exceeded.
    let kinds = [(3, 4), (3, 3), (3, 1), (3, 2), (5, 1), (11, 0)];
    let mut h3 = Plug::of_host(&scene.lab, "h3");
    let mut plug = Plug::new(&scene.lab, "lan");
    scene.dropped("router", "spoofed_error", || {
        for kind in kinds.iter().cycle().take(120) {
            h3.send_packet(H3_MAC, ROUTER_MAC, &error(ip(SHARED), *kind, &sent));
            plug.send_packet(LIAR, ROUTER_MAC, &error(NOBODY, *kind, &sent));
        }
        240
    });
    scene.logged("spoofed_error", &[&H3_MAC.to_string(), SHARED, &scene.peer.to_string()]);
    scene.dropped("router", "spoofed_address", || {
        plug.send_packet(LIAR, ROUTER_MAC, &error(ip(LEGACY), (3, 4), &sent));
        1
    });
    // To the peer outside, about what it never sent to the liar.
    let answer = reset((ip(INET), scene.peer), (ip(SHARED), scene.port));
    scene.dropped("router", "spoofed_error", || {
        h3.send_packet(H3_MAC, ROUTER_MAC, &error(ip(SHARED), (3, 4), &answer));
        1
    });
    let seen = until_a_ping_reply(&scene, &lan);
    let to_victim =
        |packet: &&Captured| packet.ethernet.is_some_and(|addresses| addresses[..6] == VICTIM_MAC);
    assert_eq!(seen.iter().filter(to_victim).count(), 0, "{seen:?}");
    scene.finish("forged errors");
}

/// As [`until_a_ping`], on the way back.
#[track_caller]
fn until_a_ping_reply(scene: &Scene, capture: &Capture) -> Vec<Captured> {
    scene.lab.exec("legacy", &["ping", "-n", "-c", "1", "-W", "20", INET]).ok();
    capture.await_packet("the pong to legacy", |packet| packet.icmp_type() == Some(0))
}

/// PE-ARP rules 47 and 121: every port of three addresses is tried from outside. Of a shared address the router knows
/// what nobody owns; what it asks about other ones is limited.
#[test]
fn a_scan_asks_few_questions() {
    const LINK_QUESTIONS_PER_SECOND: u64 = 200;
    let scene = Scene::new(Lab::up());
    let mut plug = Plug::new(&scene.lab, "wan");
    let sent = || scene.lab.pearp_json("router", &["status"])["counters"]["arp_sent"].as_u64().unwrap();
    let received = || scene.lab.pearp_json("router", &["status"])["counters"]["received"].as_u64().unwrap();
    let scan = |address: Ipv4Addr| {
        (0..=u16::MAX)
            .map(move |port| framed(LIAR, OUTSIDE_MAC, &ipv4::udp((STRANGER, 40_000), (address, port), b"")))
    };
    let (asked, begin) = (sent(), Instant::now());
    let taken = received() + u64::from(u16::MAX) + 1;
    plug.flood(scan(ip(SHARED)), 4 * FLOOD);
    await_true("all probes at the router", || received() >= taken);
    let of_shared = sent() - asked;
    // Its own about the stranger, of legacy and inet about it, and nothing else.
    assert!(of_shared < 20, "{of_shared} questions about the shared address");
    for last in [200, 201] {
        plug.flood(scan(Ipv4Addr::new(198, 51, 100, last)), 4 * FLOOD);
    }
    await_true("all probes at the router", || received() >= taken + 2 * (u64::from(u16::MAX) + 1));
    let (asked, seconds) = (sent() - asked, begin.elapsed().as_secs() + 1);
    println!("scan: {of_shared} about the shared address, {asked} in all, {seconds} s");
    // Plain ARP goes with each first question of an address.
    assert!(asked <= LINK_QUESTIONS_PER_SECOND * (1 + seconds) + 4 * seconds, "{asked} in {seconds} s");
    scene.finish("a scan");
}

/// PE-ARP rule 63: fragments without a beginning, without an end, with bytes twice, and too small ones, to the victim.
/// Its own datagrams of 4 kB arrive meanwhile.
#[test]
fn bombs_of_fragments_hold_up_nothing() {
    const EACH: u32 = 25_000;
    /// What is held for one destination, and what is known of 1024 datagrams.
    const HELD: u64 = 2 << 10;
    let scene = Scene::new(Lab::alone(&[]));
    // First fragments pass, to whom they are for. A kernel has room for 4 MB of them, and then it puts nothing together
    // for half a minute; that is no matter of the router.
    scene.lab.exec(VICTIM, &["sysctl", "-qw", "net.ipv4.ipfrag_high_thresh=268435456"]).ok();
    let mut plug = Plug::new(&scene.lab, "wan");
    let at = (ip(SHARED), scene.port);
    let big = |number: u32| {
        let mut packet = ipv4::udp((STRANGER, 40_000), at, &[7; 4000]);
        let mut header = Ipv4Packet::new_unchecked(&mut packet[..]);
        header.set_dont_frag(false);
        header.set_ident(number as u16);
        header.fill_checksum();
        fragments(&packet, 1500).unwrap().collect::<Vec<_>>()
    };
    let to_router = |packet: &Vec<u8>| framed(LIAR, OUTSIDE_MAC, packet);
    let server = scene.lab.inside(VICTIM, || UdpSocket::bind(("0.0.0.0", scene.port + 1)).unwrap());
    let client = scene.lab.inside("inet", || UdpSocket::bind("0.0.0.0:0").unwrap());
    client.connect((ip(SHARED), scene.port + 1)).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let (mut arrived, mut tried) = (0, 0);
    let mut datagram = || {
        let text = vec![tried as u8; 4000];
        tried += 1;
        client.send(&text).unwrap();
        let mut space = [0; 5000];
        let (len, _) = server.recv_from(&mut space).unwrap();
        assert!(space[..len] == text[..], "as it was sent");
        arrived += 1;
    };
    datagram();
    let tiny = |number: u32| {
        let mut packet = reset((STRANGER, 40_000), at);
        packet.truncate(28);
        let mut header = Ipv4Packet::new_unchecked(&mut packet[..]);
        header.set_total_len(28);
        header.set_dont_frag(false);
        header.set_more_frags(true);
        header.set_ident(number as u16);
        header.fill_checksum();
        packet
    };
    let round = |numbers: core::ops::Range<u32>| -> Vec<Frame> {
        let frames = numbers.flat_map(|number| {
            let pieces = big(number);
            // A first one, a later one of another datagram, one twice, and a tiny one.
            let twice = big(number.wrapping_add(30_000));
            [
                pieces[0].clone(),
                big(number + 10_000)[1].clone(),
                twice[1].clone(),
                twice[1].clone(),
                tiny(number),
            ]
        });
        frames.map(|packet| to_router(&packet)).collect()
    };
    let before = ["fragment_overlap", "fragment_tiny"].map(|reason| scene.drops("router", reason));
    let begin = Instant::now();
    for first in (0..EACH).step_by(PROBES as usize) {
        plug.flood(round(first..(first + PROBES).min(EACH)), 2 * FLOOD);
        datagram();
    }
    let took = begin.elapsed();
    await_true("all tiny ones counted", || {
        scene.drops("router", "fragment_tiny") >= before[1] + u64::from(EACH)
    });
    assert_eq!(scene.drops("router", "fragment_tiny"), before[1] + u64::from(EACH));
    let overlaps = scene.drops("router", "fragment_overlap") - before[0];
    println!("fragments: {} in {took:?}, {arrived} of {tried} datagrams, {overlaps} overlaps", 5 * EACH);
    assert!(overlaps >= u64::from(EACH) * 9 / 10, "{overlaps} of {EACH}");
    assert_eq!(arrived, tried);
    scene.finish_within("bombs of fragments", GROWTH + HELD);
}
