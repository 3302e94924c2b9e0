//! Nothing above the Ethernet header is rewritten: what is captured at one end is what the other end gets.

use std::net::UdpSocket;

use crate::support::capture::{Capture, Captured, TCP, UDP};
use crate::support::lab::{INET, LEGACY, Lab, SHARED};
use crate::support::process::run;
use crate::support::ssh::{Web, curl};
use crate::support::wait::{PATIENCE, await_some, await_true};

/// Routers that a packet passes between two captures, by the address it comes from.
type Hops<'a> = &'a [(&'a str, u8)];

/// The largest packet of the lab's links.
const WIRE_MTU: usize = 1500;
/// For captures of what a cable would carry.
const WIRE_SIZE: [&str; 2] = ["--offload", "off"];

/// Bytes of a transfer: few enough packets that no queue of a device overflows, so that none is lost.
const TRANSFER: u32 = 400_000;

/// The packets that `wanted` picks. Sorted, as a kernel may reorder packets when a program moves to another CPU.
fn picked(packets: &[Captured], wanted: impl Fn(&Captured) -> bool) -> Vec<Captured> {
    let mut picked: Vec<_> = packets.iter().filter(|packet| wanted(packet)).cloned().collect();
    picked.sort_by_key(Captured::unchanging);
    picked
}

fn one_way(packets: &[Captured], from: &str) -> Vec<Captured> {
    picked(packets, |packet| packet.source().to_string() == from)
}

/// Waits until both captures show the same number of packets, the last ones included, and compares them.
#[track_caller]
fn assert_same(
    near: &Capture,
    far: &Capture,
    is_complete: impl Fn(&[Captured]) -> bool,
    hops: Hops<'_>,
) -> usize {
    let (near, far) = await_some("the same packets in both captures", || {
        let (near, far) = (near.packets(), far.packets());
        (near.len() == far.len() && is_complete(&near) && is_complete(&far)).then_some((near, far))
    });
    assert_eq!(hops.iter().map(|(from, _)| one_way(&near, from).len()).sum::<usize>(), near.len());
    for (from, hops) in hops {
        let (sent, received) = (one_way(&near, from), one_way(&far, from));
        assert!(!sent.is_empty(), "something from {from}");
        assert_eq!(sent.len(), received.len(), "from {from}");
        for (sent, received) in sent.iter().zip(&received) {
            assert!(sent.has_valid_header() && received.has_valid_header());
            assert_eq!(sent.unchanging(), received.unchanging(), "from {from}");
            assert_eq!(sent.ttl().abs_diff(received.ttl()), *hops, "from {from}");
        }
    }
    near.len()
}

/// Both ends of a TCP connection have closed it, and a last ACK follows.
fn tcp_is_over(packets: &[Captured]) -> bool {
    packets.iter().filter(|packet| packet.is_fin()).count() == 2
        && packets.last().is_some_and(|packet| !packet.is_fin())
}

#[test]
fn a_tcp_transfer_is_byte_identical_on_every_link() {
    let lab = Lab::with(&WIRE_SIZE);
    lab.wire_frames("inet");
    let web = Web::serve(&lab, "inet", 80);
    let content: Vec<u8> = (0..TRANSFER).map(|number| (number % 253) as u8).collect();
    web.add("large", &content);
    let captures = [("h1", "pe0"), ("lan", "lan"), ("wan", "wan"), ("inet", "eth0")]
        .map(|(node, interface)| Capture::start(&lab, node, interface, "tcp port 80"));
    let got = run(&mut curl(&lab, "h1", &["-o", "-", "http://203.0.113.80/large"]));
    assert_eq!(got.ok().len(), String::from_utf8_lossy(&content).len());
    assert_eq!(lab.pearp_json("h1", &["status"])["counters"]["mapped"], 0, "no port was chosen anew");

    let [programs, lan, wan, server] = &captures;
    let (one_hop, same_link) = ([(SHARED, 1), (INET, 1)], [(SHARED, 0), (INET, 0)]);
    let count = assert_same(programs, server, tcp_is_over, &one_hop);
    assert!(count > 270, "wire frames, not what offloads make of them: {count}");
    assert_same(programs, lan, tcp_is_over, &same_link);
    assert_same(lan, wan, tcp_is_over, &one_hop);
    assert_same(wan, server, tcp_is_over, &same_link);
    assert_link_addresses(&lan.packets(), [0x02, 0, 0, 0, 0, 1], [0x02, 0, 0, 0, 2, 1]);
    assert_link_addresses(&wan.packets(), [0x02, 0, 0, 0, 1, 0x80], [0x02, 0, 0, 0, 1, 1]);
}

/// With super-frames as well, once they are cut into what a cable would carry.
#[test]
fn a_transfer_in_super_frames_is_byte_identical_on_every_link() {
    let lab = Lab::up();
    let web = Web::serve(&lab, "inet", 80);
    let content: Vec<u8> = (0..TRANSFER).map(|number| (number % 253) as u8).collect();
    web.add("large", &content);
    let captures = [("h1", "pe0"), ("lan", "lan"), ("wan", "wan"), ("inet", "eth0")]
        .map(|(node, interface)| Capture::of_super_frames(&lab, node, interface, "tcp port 80"));
    let got = run(&mut curl(&lab, "h1", &["-o", "-", "http://203.0.113.80/large"]));
    assert_eq!(got.ok().len(), String::from_utf8_lossy(&content).len());
    assert_eq!(lab.pearp_json("h1", &["status"])["counters"]["mapped"], 0, "no port was chosen anew");

    let on_wire = |capture: &Capture| {
        await_true("the end of the connection", || tcp_is_over(&capture.packets()));
        let packets = capture.packets();
        assert!(packets.iter().any(|packet| packet.bytes.len() > WIRE_MTU), "no super-frame at all");
        packets.iter().flat_map(|packet| packet.segments(WIRE_MTU)).collect::<Vec<_>>()
    };
    let [near, lan, wan, far] = captures.each_ref().map(on_wire);
    for from in [SHARED, INET] {
        let expected = one_way(&near, from);
        assert!(expected.len() > 3 && expected.iter().all(|packet| packet.bytes.len() <= WIRE_MTU));
        for (there, packets, hops) in [("lan", &lan, 0), ("wan", &wan, 1), ("inet", &far, 1)] {
            let packets = one_way(packets, from);
            assert_eq!(packets.len(), expected.len(), "{there}, from {from}");
            for (packet, expected) in packets.iter().zip(&expected) {
                assert!(packet.has_valid_header());
                assert_eq!(packet.unchanging(), expected.unchanging(), "{there}, from {from}");
                assert_eq!(packet.ttl().abs_diff(expected.ttl()), hops, "{there}, from {from}");
            }
        }
    }
}

/// Every packet is between these two, whichever way it goes.
fn assert_link_addresses(packets: &[Captured], server_side: [u8; 6], client_side: [u8; 6]) {
    for packet in packets {
        let (to, from) = if packet.source().to_string() == SHARED {
            (server_side, client_side)
        } else {
            (client_side, server_side)
        };
        let addresses = packet.ethernet.expect("a capture of Ethernet");
        assert_eq!((&addresses[..6], &addresses[6..]), (&to[..], &from[..]));
    }
}

#[test]
fn a_udp_exchange_is_byte_identical() {
    let lab = Lab::with(&WIRE_SIZE);
    for node in ["inet", "legacy"] {
        lab.wire_frames(node);
    }
    // A sharer finds legacy by itself; legacy finds the shared address at the router, which answers for it.
    for (server, address, hops) in
        [("inet", INET, [(SHARED, 1), (INET, 1)]), ("legacy", LEGACY, [(SHARED, 0), (LEGACY, 1)])]
    {
        let near = Capture::start(&lab, "h1", "pe0", "udp");
        let far = Capture::start(&lab, server, "eth0", "udp");
        let there = lab.inside(server, || UdpSocket::bind((address, 5353)).unwrap());
        let here = lab.inside("h1", || UdpSocket::bind((SHARED, 0)).unwrap());
        here.connect((address, 5353)).unwrap();
        for socket in [&there, &here] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        // Up to the largest datagram of one frame.
        let sizes = [0, 1, 2, 17, 511, 1000, 1471, 1472];
        let mut space = [0; 2000];
        for size in sizes {
            let content: Vec<u8> = (0..size).map(|number| (number * 7) as u8).collect();
            here.send(&content).unwrap();
            let (len, peer) = there.recv_from(&mut space).unwrap();
            assert_eq!(space[..len], content);
            there.send_to(&content, peer).unwrap();
            let len = here.recv(&mut space).unwrap();
            assert_eq!(space[..len], content);
        }
        let all = |packets: &[Captured]| packets.len() == 2 * sizes.len();
        assert_same(&near, &far, all, &hops);
        assert!(near.packets().iter().all(|packet| packet.protocol() == UDP));
    }
}

#[test]
fn sharers_of_one_address_get_each_others_bytes() {
    let lab = Lab::with(&WIRE_SIZE);
    let port = lab.ports("h2")[0].0 + 80;
    let web = Web::serve(&lab, "h2", port);
    web.add("large", &[b'x'; 300_000]);
    let near = Capture::start(&lab, "h1", "pe0", &format!("tcp port {port}"));
    let far = Capture::start(&lab, "h2", "pe0", &format!("tcp port {port}"));
    run(&mut curl(&lab, "h1", &["-o", "/dev/null", &format!("http://{SHARED}:{port}/large")])).ok();
    let (near, far) = await_some("the same packets in both captures", || {
        let (near, far) = (near.packets(), far.packets());
        (near.len() == far.len() && tcp_is_over(&near) && tcp_is_over(&far)).then_some((near, far))
    });
    assert!(near.len() > 200, "{}", near.len());
    // Source and destination address are equal: the destination port tells the directions apart.
    for wanted in [true, false] {
        let way = |packets: &[Captured]| picked(packets, |packet| (packet.ports().1 == port) == wanted);
        assert_eq!(way(&near), way(&far), "to the port of h2: {wanted}");
    }
    assert!(near.iter().all(|packet| packet.protocol() == TCP && packet.source() == packet.destination()));
}
