//! Multicast and broadcast: everybody on the link hears them, whoever shares an address (rule 67).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::support::capture::Capture;
use crate::support::lab::{HOSTS, LEGACY, Lab, SHARED, contains};
use crate::support::wait::PATIENCE;

/// Of multicast DNS (RFC 6762 §3).
const MDNS: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);
const IGMP: u8 = 2;
/// All nodes of the LAN that have a kernel.
const LAN: [&str; 4] = ["h1", "h2", "h3", "legacy"];

fn address_of(node: &str) -> Ipv4Addr {
    if node == "legacy" { LEGACY } else { SHARED }.parse().unwrap()
}

/// A socket of a node at a port, with broadcasts.
#[track_caller]
fn socket(lab: &Lab, node: &str, port: u16) -> UdpSocket {
    let socket = lab.inside(node, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_broadcast(true).unwrap();
    socket
}

#[track_caller]
fn member(lab: &Lab, node: &str) -> UdpSocket {
    let socket = socket(lab, node, MDNS.1);
    socket.join_multicast_v4(&MDNS.0, &address_of(node)).unwrap();
    socket
}

#[track_caller]
fn hear(socket: &UdpSocket, who: &str) -> (Vec<u8>, SocketAddr) {
    let mut space = [0; 5000];
    let (len, from) =
        socket.recv_from(&mut space).unwrap_or_else(|error| panic!("{who} hears nothing: {error}"));
    (space[..len].to_vec(), from)
}

/// Who is on the LAN asks from a port of its own; every member hears it, once, and answers.
#[test]
fn every_member_hears_a_group() {
    let lab = Lab::up();
    let lan = Capture::start(&lab, "lan", "lan", "igmp or udp");
    let members = LAN.map(|node| (node, member(&lab, node)));
    for (number, node) in (1..).zip(HOSTS) {
        let reports = |packet: &crate::support::capture::Captured| {
            packet.protocol() == IGMP && packet.is_from_host(number) && packet.source() == address_of(node)
        };
        lan.await_packet("a report of the membership", reports);
    }
    for sender in LAN {
        let asking = socket(&lab, sender, 0);
        // More than a frame holds, too.
        for data in [sender.as_bytes().to_vec(), sender.repeat(800).into_bytes()] {
            asking.send_to(&data, MDNS).unwrap();
            for (node, socket) in &members {
                let (heard, from) = hear(socket, node);
                assert!(heard == data && from.ip() == address_of(sender), "{node}: {from}");
                let port = asking.local_addr().unwrap().port();
                assert_eq!(from.port(), port, "{node} hears {sender}");
                if HOSTS.contains(&sender) {
                    assert!(contains(&lab.ports(sender), from.port()), "{sender} uses {from}");
                }
                // By unicast. A member that is a sharer answers from a port of its own: 5353 is nobody's.
                socket.send_to(node.as_bytes(), from).unwrap();
                let (answer, by) = hear(&asking, sender);
                assert_eq!((&answer[..], by.ip()), (node.as_bytes(), address_of(node).into()), "{sender}");
            }
        }
    }
    for node in HOSTS {
        lab.assert_balanced(node);
    }
}

/// All use port 5353, as real ones do: sharers are heard from another one.
#[test]
fn members_hear_each_other_from_the_port_of_the_group() {
    let lab = Lab::up();
    let members = LAN.map(|node| (node, member(&lab, node)));
    for (sender, socket) in &members {
        socket.send_to(sender.as_bytes(), MDNS).unwrap();
        for (node, socket) in &members {
            let (heard, from) = hear(socket, node);
            assert_eq!((&heard[..], from.ip()), (sender.as_bytes(), address_of(sender).into()), "{node}");
            // A kernel hands its own copy round before the host's stack has the packet.
            let own = HOSTS.contains(sender) && sender != node;
            assert!(
                if own { contains(&lab.ports(sender), from.port()) } else { from.port() == MDNS.1 },
                "{from}"
            );
        }
    }
}

#[test]
fn everybody_hears_a_broadcast() {
    const PORT: u16 = 6000;
    let lab = Lab::up();
    let sockets = LAN.map(|node| (node, socket(&lab, node, PORT)));
    for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(198, 51, 100, 255)] {
        for sender in LAN {
            let asking = socket(&lab, sender, 0);
            let data = format!("{sender} to {to}");
            asking.send_to(data.as_bytes(), (to, PORT)).unwrap();
            for (node, socket) in sockets.iter().filter(|(node, _)| *node != sender) {
                let (heard, from) = hear(socket, node);
                assert_eq!((&heard[..], from.ip()), (data.as_bytes(), address_of(sender).into()), "{node}");
                if HOSTS.contains(&sender) {
                    assert!(contains(&lab.ports(sender), from.port()), "{sender} uses {from}");
                }
            }
            // A kernel hears what it broadcasts itself; what a TUN does with that is not ours.
            let (_, own) = sockets.iter().find(|(node, _)| *node == sender).unwrap();
            own.set_nonblocking(true).unwrap();
            while own.recv(&mut [0; 100]).is_ok() {}
            own.set_nonblocking(false).unwrap();
        }
    }
}
