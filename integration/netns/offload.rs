//! Super-frames: the same bytes arrive with and without them, wherever along the way a link takes none.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use serde_json::json;

use crate::support::bulk::{CHUNK, Pair, STALLED, exchange, pattern};
use crate::support::lab::{INET, LEGACY, Lab, SHARED};
use crate::support::process::{Process, run_with_input};
use crate::support::requirements::machine;
use crate::support::wait::{PATIENCE, await_true};

/// Bytes of a large transfer each way.
const LARGE: usize = 1000 * CHUNK;
/// Of one by links of wire-size frames.
const MEDIUM: usize = 200 * CHUNK;
const OUTSIDE: [Pair<'_>; 2] = [("h1", "inet", INET), ("h2", "inet", INET)];
const ON_THE_LAN: [Pair<'_>; 3] = [("h1", "h2", SHARED), ("h3", "legacy", LEGACY), ("legacy", "h1", SHARED)];

/// The offloads of each link, as `pearp status` shows them.
fn shown(lab: &Lab, node: &str) -> Vec<String> {
    let status = lab.pearp_json(node, &["status"]);
    let links = status["links"].as_array().expect("a list");
    links.iter().map(|link| link["offload"].as_str().expect("a text").to_owned()).collect()
}

fn received(lab: &Lab, node: &str) -> u64 {
    lab.pearp_json(node, &["status"])["counters"]["received"].as_u64().expect("a count")
}

#[test]
fn large_transfers_in_super_frames() {
    let lab = Lab::alone(&[]);
    for node in ["h1", "router"] {
        // UDP segmentation is newer than what pearp needs.
        assert!(shown(&lab, node).iter().all(|offload| offload.starts_with("checksum tso ecn")), "{node}");
    }
    exchange(&lab, &OUTSIDE, LARGE);
    let frames = received(&lab, "router");
    let of_wire_size = 4 * LARGE as u64 / 1448;
    assert!(frames < of_wire_size / 3, "{frames} frames instead of {of_wire_size}");
    exchange(&lab, &ON_THE_LAN, MEDIUM);
}

#[test]
fn large_transfers_in_frames_of_wire_size() {
    let lab = Lab::alone(&["--offload", "off"]);
    for node in ["h1", "router"] {
        assert_eq!(shown(&lab, node), ["off", "off"], "{node}");
    }
    exchange(&lab, &OUTSIDE, MEDIUM);
    let frames = received(&lab, "router");
    assert!(
        frames > 4 * MEDIUM as u64 / 1448,
        "{frames} frames are too few: some are larger than the wire takes"
    );
    exchange(&lab, &ON_THE_LAN, MEDIUM);
}

/// Kills the process of a node and starts it again with another choice.
fn restart(lab: &Lab, node: &str, offload: &str) -> Process {
    restart_with(lab, node, offload, &[])
}

fn restart_with(lab: &Lab, node: &str, offload: &str, more: &[&str]) -> Process {
    let mut arguments = lab.arguments(node);
    let at = arguments.iter().position(|word| word == "--offload").expect("the lab says it");
    arguments[at + 1] = offload.to_owned();
    arguments.extend(more.iter().map(|&word| word.to_owned()));
    lab.end(node, Signal::SIGKILL);
    let process = Process::start(lab.command(node, &machine().pearp).args(&arguments));
    await_true("the node serves", || lab.serves(node));
    process
}

#[test]
fn a_host_without_super_frames_among_others() {
    let lab = Lab::alone(&[]);
    let host = restart(&lab, "h1", "off");
    assert_eq!(shown(&lab, "h1"), ["off", "off"]);
    exchange(&lab, &OUTSIDE, MEDIUM);
    exchange(&lab, &ON_THE_LAN, MEDIUM);
    for node in ["inet", "legacy"] {
        lab.wire_frames(node);
    }
    exchange(&lab, &OUTSIDE, MEDIUM);
    exchange(&lab, &ON_THE_LAN, MEDIUM);
    // And back: the devices remember nothing.
    drop(host);
    lab.run(&["restart", "h1"]).ok();
    exchange(&lab, &OUTSIDE, MEDIUM);
}

#[test]
fn a_router_without_super_frames_between_hosts_with_them() {
    let lab = Lab::alone(&[]);
    let _router = restart(&lab, "router", "off");
    exchange(&lab, &OUTSIDE, MEDIUM);
    // By the router, although both are on the LAN.
    exchange(&lab, &[("legacy", "h2", SHARED)], MEDIUM);
}

#[test]
fn a_router_with_super_frames_between_hosts_without() {
    let lab = Lab::alone(&["--offload", "off"]);
    let _router = restart(&lab, "router", "on");
    exchange(&lab, &OUTSIDE, MEDIUM);
    lab.wire_frames("inet");
    exchange(&lab, &OUTSIDE, MEDIUM);
}

/// As on a kernel that has no io_uring.
#[test]
fn one_system_call_for_each_frame() {
    for offload in ["on", "off"] {
        let lab = Lab::alone(&[]);
        let _nodes = ["router", "h1"].map(|node| restart_with(&lab, node, offload, &["--io", "single"]));
        exchange(&lab, &OUTSIDE, MEDIUM);
        exchange(&lab, &ON_THE_LAN, MEDIUM);
    }
}

/// More than the usual packet at a time, up to what the links take.
#[test]
fn an_mtu_of_9000() {
    for offload in ["on", "off"] {
        let lab = Lab::alone(&["--mtu", "9000", "--offload", offload]);
        exchange(&lab, &OUTSIDE, MEDIUM);
        if offload == "off" {
            let frames = received(&lab, "router");
            let packets = 4 * MEDIUM as u64 / 8948;
            assert!((packets..2 * packets).contains(&frames), "{frames} frames for {packets} packets");
        }
        exchange(&lab, &ON_THE_LAN, MEDIUM);
        let ping = ["ping", "-c", "1", "-W", "5", "-M", "do", "-s"];
        lab.exec("h1", &[&ping[..], &["8972", INET]].concat()).ok();
        lab.exec("h1", &[&ping[..], &["8973", INET]].concat()).fails_with(1, &["mtu=9000"]);
    }
}

/// One call of the sender, and the datagrams that it stands for.
fn assert_datagrams(lab: &Lab, (from, source): (&str, &str), (to, address): (&str, &str)) {
    const SIZE: usize = 1000;
    // As many as may wait for an answer about the next hop.
    const DATAGRAMS: usize = 16;
    let port = |node| lab.ports(node).first().map_or(5000, |range| range.0 + 7);
    let there = lab.inside(to, || UdpSocket::bind((address, port(to))).unwrap());
    let here = lab.inside(from, || UdpSocket::bind((source, port(from))).unwrap());
    there.set_read_timeout(Some(PATIENCE)).unwrap();
    setsockopt(&here, UdpGsoSegment, &(SIZE as i32)).unwrap();
    let bytes = &pattern()[..DATAGRAMS * SIZE - 1];
    here.send_to(bytes, (address, port(to))).unwrap();
    let mut space = [0; 2 * SIZE];
    for expected in bytes.chunks(SIZE) {
        let (len, peer) = there.recv_from(&mut space).unwrap();
        assert_eq!((peer.port(), len), (port(from), expected.len()));
        assert!(space[..len] == *expected);
    }
}

#[test]
fn udp_segmentation_keeps_datagrams() {
    for options in [&[][..], &["--offload", "off"]] {
        let lab = Lab::with(options);
        let ways = [
            (("h1", SHARED), ("inet", INET)),
            (("inet", INET), ("h1", SHARED)),
            (("h1", SHARED), ("h2", SHARED)),
            (("h1", SHARED), ("legacy", LEGACY)),
            (("legacy", LEGACY), ("h1", SHARED)),
        ];
        for (from, to) in ways {
            assert_datagrams(&lab, from, to);
        }
        let drops = &lab.pearp_json("router", &["status"])["drops"];
        assert_eq!(*drops, json!({}), "{options:?}");
    }
}

/// A stack's own sockets get super-frames as well.
#[test]
fn the_own_stack_takes_super_frames() {
    for options in [&[][..], &["--offload", "off"]] {
        let lab = Lab::with(options);
        // Printable, since `Finished` holds text.
        let text: String = pattern()[..1 << 20].iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        let listener = lab.inside("inet", || TcpListener::bind((INET, 5000)).unwrap());
        let said = thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(STALLED)).unwrap();
                let mut heard = String::new();
                stream.read_to_string(&mut heard).unwrap();
                assert!(heard == text);
                // `pearp nc` ends with what its peer says, whether it has been heard or not.
                stream.write_all(text.as_bytes()).unwrap();
            });
            let mut nc = lab.command("h1", &machine().pearp);
            run_with_input(nc.args(["nc", INET, "5000"]), text.as_bytes()).ok()
        });
        assert!(said == text);

        // Its UDP echo service answers each datagram.
        let echo = lab.pearp_json("h2", &["status"])["echo_port"].as_u64().expect("it has one") as u16;
        for (node, address) in [("h1", SHARED), ("inet", INET)] {
            let socket = lab.inside(node, || UdpSocket::bind((address, 0)).unwrap());
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            setsockopt(&socket, UdpGsoSegment, &100_i32).unwrap();
            socket.send_to(&pattern()[..950], (SHARED, echo)).unwrap();
            let mut space = [0; 200];
            for expected in pattern()[..950].chunks(100) {
                let len = socket.recv(&mut space).unwrap();
                assert!(space[..len] == *expected, "{node}: {len}");
            }
        }
    }
}
