//! Transports other than TCP and UDP. The kernel speaks UDP-Lite; packets of SCTP and DCCP are made by hand.

use std::io::ErrorKind;
use std::net::UdpSocket;

use crate::support::capture::{Capture, Captured};
use crate::support::lab::{HOSTS, INET, LEGACY, Lab, SHARED, contains};
use crate::support::raw::{DCCP, Raw, SCTP, UDP_LITE, udp_lite};

/// A port of the program part of a host.
fn port_of(lab: &Lab, host: &str) -> u16 {
    lab.ports(host)[0].0 + 90
}

/// Both ends hear each other; the port by which the server knows the client.
#[track_caller]
fn exchange(client: &UdpSocket, server: &UdpSocket, to: (&str, u16), data: &[u8]) -> u16 {
    client.send_to(data, to).unwrap();
    let mut space = vec![0; 5000];
    let (len, from) = server.recv_from(&mut space).unwrap();
    assert!(&space[..len] == data, "{from}");
    let answer: Vec<_> = data.iter().rev().copied().collect();
    server.send_to(&answer, from).unwrap();
    let (len, from_server) = client.recv_from(&mut space).unwrap();
    assert!(
        space[..len] == answer && from_server.to_string() == format!("{}:{}", to.0, to.1),
        "{from_server}"
    );
    from.port()
}

#[test]
fn udp_lite_reaches_each_sharer_by_its_port() {
    let lab = Lab::up();
    let lan = Capture::start(&lab, "lan", "lan", "ip proto 136");
    let servers = HOSTS.map(|host| udp_lite(&lab, host, port_of(&lab, host)));
    for client in ["inet", "legacy", "h1", "h2", "h3"] {
        let socket = udp_lite(&lab, client, 0);
        for (host, server) in HOSTS.iter().zip(&servers) {
            for data in [&b"?"[..], &[7; 1472], &[8; 4000]] {
                let from = exchange(&socket, server, (SHARED, port_of(&lab, host)), data);
                if HOSTS.contains(&client) {
                    assert!(contains(&lab.ports(client), from), "{client} uses {from}");
                }
            }
        }
    }
    // The other way round, from all of them at once.
    for (server, address) in [("inet", INET), ("legacy", LEGACY)] {
        let there = udp_lite(&lab, server, 7000);
        let clients = HOSTS.map(|host| (host, udp_lite(&lab, host, 0)));
        for (host, client) in &clients {
            client.send_to(host.as_bytes(), (address, 7000)).unwrap();
        }
        let mut space = [0; 100];
        for _ in HOSTS {
            let (len, from) = there.recv_from(&mut space).unwrap();
            let host = core::str::from_utf8(&space[..len]).unwrap();
            assert!(
                from.ip().to_string() == SHARED && contains(&lab.ports(host), from.port()),
                "{host}: {from}"
            );
            there.send_to(host.as_bytes(), from).unwrap();
        }
        for (host, client) in &clients {
            let len = client.recv(&mut space).unwrap();
            assert_eq!(&space[..len], host.as_bytes());
        }
    }
    let packets =
        lan.await_packet("a datagram to legacy", |packet| packet.destination().to_string() == LEGACY);
    for (number, host) in (1..).zip(HOSTS) {
        let own = lab.ports(host);
        let sent = packets.iter().filter(|packet| packet.is_from_host(number));
        let mut sent = sent.filter(|packet| packet.protocol() == UDP_LITE).peekable();
        assert!(sent.peek().is_some(), "{host} has sent something");
        // Of what is no first fragment, the identification says whose it is.
        let number_of = |packet: &Captured| {
            if packet.fragment_offset() == 0 { packet.ports().0 } else { packet.identification() }
        };
        assert!(sent.all(|packet| contains(&own, number_of(packet))), "{host}");
    }
    for host in HOSTS {
        assert_eq!(lab.pearp_json(host, &["status"])["counters"]["mapped"], 0, "the kernel chose the ports");
    }
}

/// The error comes back to the sharer that asked, by way of the LAN and the router.
#[test]
fn a_closed_udp_lite_port_of_a_sharer_refuses() {
    let lab = Lab::up();
    for client in ["inet", "legacy", "h2", "h3"] {
        let socket = udp_lite(&lab, client, 0);
        socket.connect((SHARED, port_of(&lab, "h1"))).unwrap();
        socket.send(b"anybody there?").unwrap();
        let error = socket.recv(&mut [0; 100]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{client}: {error}");
    }
    // Nobody listens outside.
    for host in HOSTS {
        let socket = udp_lite(&lab, host, 0);
        socket.connect((INET, 9)).unwrap();
        socket.send(b"?").unwrap();
        let error = socket.recv(&mut [0; 100]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{host}: {error}");
    }
}

#[test]
fn udp_lite_from_a_foreign_port_is_mapped() {
    let lab = Lab::up();
    let there = udp_lite(&lab, "inet", 7000);
    let foreign = port_of(&lab, "h2");
    // Two sharers with the same port, and it is h2's own one.
    let used = ["h1", "h2"].map(|host| {
        let client = udp_lite(&lab, host, foreign);
        let from = exchange(&client, &there, (INET, 7000), &[5; 4000]);
        assert!(contains(&lab.ports(host), from), "{host} uses {from}");
        from
    });
    assert!(used[0] != foreign && used[1] == foreign, "{used:?}");
}

/// A packet of SCTP or DCCP: both begin with the ports. `mark` is its last byte.
fn packet(protocol: u8, from: u16, to: u16, mark: u8) -> Vec<u8> {
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    match protocol {
        // Tag and checksum; a chunk COOKIE ECHO of 8 bytes (RFC 9260 §3).
        SCTP => bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 10, 0, 0, 8, 0, 0, 0, mark]),
        // Five words of header; a DCCP-Data with long sequence numbers (RFC 4340 §5.1).
        _ => bytes.extend([5, 0, 0, 0, 0b101, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, mark]),
    }
    bytes
}

/// To each of the hosts twice: if one heard what is for another one, it would be between the two for itself.
#[track_caller]
fn assert_by_port(lab: &Lab, protocol: u8) {
    const PORT: u16 = 7000;
    let hosts = HOSTS.map(|host| Raw::open(lab, host, protocol));
    for (client, address) in [("inet", INET), ("legacy", LEGACY)] {
        let there = Raw::open(lab, client, protocol);
        for mark in [1, 2] {
            for host in HOSTS {
                there.send(SHARED, &packet(protocol, PORT, port_of(lab, host), mark));
            }
        }
        for (host, socket) in HOSTS.iter().zip(&hosts) {
            for mark in [1, 2] {
                socket.hears(address, &packet(protocol, PORT, port_of(lab, host), mark));
            }
            socket.send(address, &packet(protocol, port_of(lab, host), PORT, 3));
            there.hears(SHARED, &packet(protocol, port_of(lab, host), PORT, 3));
        }
    }
    // Between sharers.
    for mark in [4, 5] {
        for to in ["h2", "h3"] {
            hosts[0].send(SHARED, &packet(protocol, port_of(lab, "h1"), port_of(lab, to), mark));
        }
    }
    for (host, socket) in HOSTS.iter().zip(&hosts).skip(1) {
        for mark in [4, 5] {
            socket.hears(SHARED, &packet(protocol, port_of(lab, "h1"), port_of(lab, host), mark));
        }
    }
}

/// A port that is another one's is not mapped for these protocols (rule 88): what has one is dropped.
#[track_caller]
fn assert_no_foreign_port(lab: &Lab, protocol: u8) {
    let there = Raw::open(lab, "inet", protocol);
    let host = Raw::open(lab, "h1", protocol);
    let dropped = || lab.pearp_json("h1", &["status"])["drops"]["source_port"].as_u64().unwrap_or(0);
    let before = dropped();
    let stack = super::ports::parts(lab, "h1").stack[0].0;
    for (number, foreign) in [port_of(lab, "h2"), stack, 80].into_iter().enumerate() {
        host.send(INET, &packet(protocol, foreign, 7000, 6));
        host.send(INET, &packet(protocol, port_of(lab, "h1"), 7000, 7));
        there.hears(SHARED, &packet(protocol, port_of(lab, "h1"), 7000, 7));
        assert_eq!(dropped() - before, number as u64 + 1);
    }
    // To a port that nobody has: the router says so, and no sharer hears it.
    there.send(SHARED, &packet(protocol, 7000, 20_000, 8));
    there.send(SHARED, &packet(protocol, 7000, port_of(lab, "h1"), 9));
    host.hears(INET, &packet(protocol, 7000, port_of(lab, "h1"), 9));
}

#[test]
fn sctp_reaches_the_owner_of_its_port() {
    let lab = Lab::up();
    assert_by_port(&lab, SCTP);
    assert_no_foreign_port(&lab, SCTP);
}

#[test]
fn dccp_reaches_the_owner_of_its_port() {
    let lab = Lab::up();
    assert_by_port(&lab, DCCP);
    assert_no_foreign_port(&lab, DCCP);
}
