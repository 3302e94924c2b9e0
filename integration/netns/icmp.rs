//! ping, traceroute, and the errors that programs get.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::capture::{Capture, ICMP, TCP};
use crate::support::lab::{HOSTS, INET, LEGACY, Lab, ROUTER, SHARED, contains, ranges};
use crate::support::process::{Process, run};
use crate::support::wait::PATIENCE;

/// Seconds that ping waits for an answer.
const PING_WAIT: &str = "20";

/// Long enough for a TCP connection that meets silence, short enough for a test.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

const ECHO_REQUEST: u8 = 8;

/// traceroute with one probe at a time: a kernel sends few ICMP errors per second to one address, and the hosts
/// share theirs.
const ONE_BY_ONE: [&str; 9] = ["-n", "-q", "1", "-N", "1", "-w", "10", "-m", "5"];

#[track_caller]
fn assert_pings(lab: &Lab, node: &str, to: &str) {
    // Once it has had an answer, ping waits for the last one no longer than its interval.
    let answer = lab.exec(node, &["ping", "-n", "-c", "2", "-i", "0.1", "-W", PING_WAIT, to]).ok();
    assert!(answer.contains("2 received") && answer.contains(&format!("from {to}")), "{node}: {answer}");
    assert!(!answer.contains("DUP!") && !answer.contains("duplicates"), "{node}: {answer}");
}

#[test]
fn everybody_pings_everybody() {
    let lab = Lab::up();
    for host in HOSTS {
        for to in [INET, LEGACY, ROUTER, "203.0.113.1", SHARED, "127.0.0.1"] {
            assert_pings(&lab, host, to);
        }
    }
    for node in ["inet", "legacy"] {
        for to in [SHARED, ROUTER, "203.0.113.1", INET, LEGACY] {
            assert_pings(&lab, node, to);
        }
    }
}

#[test]
fn a_ping_of_the_own_address_stays_in_the_host() {
    let lab = Lab::up();
    let lan = Capture::start(&lab, "lan", "lan", "icmp");
    assert_pings(&lab, "h1", SHARED);
    assert_pings(&lab, "h2", INET);
    let packets = lan.await_packet("the ping of h2", |packet| packet.source().to_string() == INET);
    assert!(packets.iter().all(|packet| packet.source() != packet.destination()), "{packets:?}");
}

#[test]
fn the_identifiers_of_two_hosts_do_not_collide() {
    let lab = Lab::up();
    // Before: whoever is asked for the first time is slower than the ping of the other one.
    for host in ["h1", "h2"] {
        assert_pings(&lab, host, INET);
    }
    let lan = Capture::start(&lab, "lan", "lan", "icmp");
    let mut pings = ["h1", "h2"].map(|host| {
        Process::start(
            lab.command(host, "ping")
                .args(["-n", "-e", "77", "-c", "20", "-i", "0.05", "-W", PING_WAIT, INET]),
        )
    });
    for ping in &mut pings {
        assert_eq!(ping.finish(), Some(0), "{}", ping.transcript());
        let said = ping.transcript();
        assert!(said.contains("20 received") && !said.contains("DUP!"), "{said}");
    }
    let packets = lan.await_packet("an echo request", |packet| packet.icmp_type() == Some(ECHO_REQUEST));
    let stack_parts = ["h1", "h2"].map(|host| ranges(&lab.pearp_json(host, &["status"])["stack_ports"]));
    for (host, part) in stack_parts.iter().enumerate() {
        let mac = [2, 0, 0, 0, 2, host as u8 + 1];
        let requests: Vec<_> = packets
            .iter()
            .filter(|packet| packet.ethernet.is_some_and(|addresses| addresses[6..] == mac))
            .filter(|packet| packet.icmp_type() == Some(ECHO_REQUEST))
            .collect();
        assert!(!requests.is_empty());
        assert!(requests.iter().all(|packet| contains(part, packet.echo_identifier())), "{requests:?}");
    }
}

#[test]
fn traceroute_shows_the_router() {
    let lab = Lab::up();
    for host in HOSTS {
        for method in [&[][..], &["-I"]] {
            let mut command = lab.command(host, "traceroute");
            let path = run(command.args(ONE_BY_ONE).args(method).arg(INET)).ok();
            let hops: Vec<_> =
                path.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
            assert_eq!(hops, [ROUTER, INET], "{host} {method:?}: {path}");
        }
    }
    let path = lab.exec("legacy", &[&["traceroute"], &ONE_BY_ONE[..], &[INET]].concat()).ok();
    assert!(path.contains(ROUTER) && path.contains(INET), "{path}");
}

#[test]
fn a_closed_udp_port_of_a_sharer_refuses() {
    let lab = Lab::up();
    let port = lab.ports("h1")[0].0 + 53;
    for client in ["inet", "legacy", "h2", "h1"] {
        let socket = lab.inside(client, || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect((SHARED, port)).unwrap();
        socket.send(b"anybody there?").unwrap();
        let error = socket.recv(&mut [0; 100]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{client}: {error}");
    }
}

#[test]
fn a_closed_tcp_port_of_a_sharer_refuses() {
    let lab = Lab::up();
    let port = lab.ports("h1")[0].0 + 53;
    for client in ["inet", "legacy", "h2", "h1"] {
        let error = connect(&lab, client, port, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{client}: {error}");
    }
}

fn connect(lab: &Lab, node: &str, port: u16, limit: Duration) -> std::io::Result<TcpStream> {
    let to: SocketAddr = format!("{SHARED}:{port}").parse().unwrap();
    lab.inside(node, || TcpStream::connect_timeout(&to, limit))
}

#[test]
fn nobody_answers_for_a_port_that_nobody_owns() {
    let lab = Lab::up();
    // One is in a PSID that no host has, the other one in the one that is given to nobody.
    let unowned = [20_000, 80];
    for client in ["inet", "legacy", "h1"] {
        let (node, interface) = if client == "inet" { ("wan", "wan") } else { ("lan", "lan") };
        let capture = Capture::start(&lab, node, interface, "ip");
        for port in unowned {
            let error = connect(&lab, client, port, CONNECT_LIMIT).unwrap_err();
            let silent = [ErrorKind::TimedOut, ErrorKind::HostUnreachable];
            assert!(silent.contains(&error.kind()), "{client} to {port}: {error}");
        }
        assert_pings(&lab, client, ROUTER);
        let router_answers = |packet: &crate::support::capture::Captured| {
            packet.protocol() == ICMP && packet.icmp_type() == Some(0)
        };
        let packets = capture.await_packet("the router's pong", router_answers);
        if client != "h1" {
            let tried = packets.iter().filter(|packet| packet.protocol() == TCP).count();
            assert!(tried > 0, "the attempts of {client} are in the capture");
        }
        assert!(!packets.iter().any(|packet| packet.is_rst()), "{client}: {packets:?}");
    }
}
