//! Datagrams that are larger than a frame: every fragment reaches the sharer to whom its datagram is sent (rule 63).

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;

use tempfile::TempDir;

use super::leaks::unbound;
use crate::support::capture::{Capture, Captured, ICMP, UDP};
use crate::support::lab::{HOSTS, INET, LEGACY, Lab, SHARED, contains};
use crate::support::process::Process;
use crate::support::raw::{Crafter, udp_in_fragments};
use crate::support::wait::{PATIENCE, await_true};

/// Bytes of a datagram that takes three frames.
const LARGE: usize = 4000;

/// What names of [`resolver`] and [`dns_answer`] have: more than two frames of text, which tells them apart.
const STRINGS: usize = 15;
const STRING: usize = 250;

/// The text that belongs to a host's name.
fn string_of(host: &str) -> String {
    format!("{host}-").repeat(STRING).chars().take(STRING).collect()
}

/// The mark of the sharer that owns a port: the number in its name.
fn owners(lab: &Lab) -> impl Fn(u16) -> u8 {
    let sets = HOSTS.map(|host| (host.as_bytes()[1], lab.ports(host)));
    move |port| sets.iter().find(|(_, set)| contains(set, port)).expect("a sharer's port").0
}

fn socket(lab: &Lab, node: &str, port: u16) -> UdpSocket {
    let socket = lab.inside(node, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The fragments that a host has sent, which all have identifications of its set.
#[track_caller]
fn fragments_of(lab: &Lab, number: u8, packets: &[Captured]) -> Vec<Captured> {
    let own = lab.ports(&format!("h{number}"));
    let sent = packets.iter().filter(|packet| packet.is_from_host(number) && packet.is_fragment());
    let sent: Vec<_> = sent.cloned().collect();
    assert!(!sent.is_empty(), "h{number} has sent fragments");
    let foreign = sent.iter().find(|packet| !contains(&own, packet.identification()));
    assert!(foreign.is_none(), "h{number}: {foreign:?}");
    sent
}

/// What nodes have dropped, and for which reason.
pub(super) fn drops(lab: &Lab) -> Vec<serde_json::Value> {
    let nodes = HOSTS.iter().chain(&["router"]);
    nodes.map(|node| lab.pearp_json(node, &["status"])["drops"].clone()).collect()
}

#[test]
fn large_pings_of_two_sharers_at_once() {
    const COUNT: &str = "20";
    let lab = Lab::up();
    let lan = Capture::start(&lab, "lan", "lan", "icmp");
    let before = drops(&lab);
    let ping = |host| {
        let mut command = lab.command(host, "ping");
        Process::start(command.args(["-n", "-s", "4000", "-c", COUNT, "-i", "0.05", "-W", "20", INET]))
    };
    let mut pings = ["h1", "h2"].map(ping);
    for ping in &mut pings {
        assert_eq!(ping.finish(), Some(0), "{}", ping.transcript());
        let said = ping.transcript();
        assert!(said.contains("20 received") && !said.contains("DUP!") && !said.contains("wrong"), "{said}");
    }
    assert_eq!(drops(&lab), before);
    let all =
        |packets: &[Captured]| packets.iter().filter(|packet| packet.is_fragment()).count() == 2 * 2 * 20 * 3;
    await_true("all fragments in the capture", || all(&lan.packets()));
    for number in [1, 2] {
        assert_eq!(fragments_of(&lab, number, &lan.packets()).len(), 20 * 3);
    }
    let back = lan.packets().into_iter().filter(|packet| packet.source().to_string() == INET);
    assert_eq!(back.filter(|packet| packet.protocol() == ICMP && packet.is_fragment()).count(), 2 * 20 * 3);
}

/// Whose names of these hosts are; each has one record with a text of its own.
fn resolver(lab: &Lab, directory: &TempDir) -> Process {
    let mut zone = " edns-buffer-size: 4096\n max-udp-size: 4096\n local-zone: \"lab.\" static\n".to_owned();
    for host in HOSTS {
        let strings = format!("\"{}\" ", string_of(host)).repeat(STRINGS);
        zone.push_str(&format!(" local-data: '{host}.lab. 60 IN TXT {strings}'\n"));
    }
    unbound(lab, "inet", directory.path(), &format!("{INET}@53"), &zone)
}

/// A question that is asked once, by UDP, and whose answer may have 4096 bytes.
fn dig(lab: &Lab, host: &str, name: &str) -> Process {
    let options = ["+bufsize=4096", "+notcp", "+ignore", "+tries=1", "+timeout=20", "+short", "TXT"];
    Process::start(lab.command(host, "dig").arg(format!("@{INET}")).args(options).arg(format!("{name}.lab")))
}

/// An answer came whole, and is about this name.
#[track_caller]
fn assert_answered(dig: &mut Process, name: &str) {
    let code = dig.finish();
    let said = dig.transcript();
    assert_eq!(code, Some(0), "{name}: {said}");
    let strings: Vec<_> = said.split_whitespace().map(|word| word.trim_matches('"')).collect();
    assert!(strings == vec![string_of(name); STRINGS], "{name}: {said:.300}");
}

#[test]
fn large_dns_answers_reach_who_asked() {
    const ROUNDS: usize = 5;
    let lab = Lab::up();
    let directory = TempDir::new().unwrap();
    let _resolver = resolver(&lab, &directory);
    let outside = Capture::start(&lab, "wan", "wan", "udp");
    let before = drops(&lab);
    for _ in 0..ROUNDS {
        for (host, mut dig) in HOSTS.map(|host| (host, dig(&lab, host, host))) {
            assert_answered(&mut dig, host);
        }
    }
    assert_eq!(drops(&lab), before);
    let later = |packet: &&Captured| packet.source().to_string() == INET && packet.fragment_offset() > 0;
    let packets = outside.packets();
    assert_eq!(
        packets.iter().filter(later).count(),
        ROUNDS * HOSTS.len() * 2,
        "each answer has three frames"
    );
}

/// An answer to a question: the record of this host's name.
fn dns_answer(question: &[u8], host: &str) -> Vec<u8> {
    // The name ends with an empty label; type and class follow. What comes behind is EDNS.
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).expect("a name") + 5;
    let mut bytes = question[..end].to_vec();
    // A response, with authority; one question, one answer, nothing more.
    bytes[2..12].copy_from_slice(&[0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    // Its name is that of the question; TXT, IN, 60 s.
    bytes.extend([0xC0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
    bytes.extend(((STRINGS * (STRING + 1)) as u16).to_be_bytes());
    for _ in 0..STRINGS {
        bytes.push(STRING as u8);
        bytes.extend(string_of(host).bytes());
    }
    bytes
}

/// On a path that turns the order of packets round, and mixes those of three answers.
#[test]
fn fragments_in_any_order_reach_who_asked() {
    let lab = Lab::up();
    let server = socket(&lab, "inet", 53);
    let crafter = Crafter::open(&lab, "inet");
    let inet: Ipv4Addr = INET.parse().unwrap();
    let (before, owner) = (drops(&lab), owners(&lab));
    for round in 0..5 {
        let mut digs = HOSTS.map(|host| (host, dig(&lab, host, host)));
        let answers: Vec<_> = HOSTS
            .iter()
            .enumerate()
            .map(|(number, _)| {
                let mut space = [0; 512];
                let (len, from) = server.recv_from(&mut space).unwrap();
                let question = &space[..len];
                let asked = HOSTS.iter().find(|host| question[13..].starts_with(host.as_bytes()));
                let asked = asked.expect("the name of a sharer");
                assert_eq!(owner(from.port()), asked.as_bytes()[1], "{from}");
                let std::net::IpAddr::V4(address) = from.ip() else { panic!("{from}") };
                let number = 1000 + 10 * round + number as u16;
                let answer = dns_answer(question, asked);
                udp_in_fragments((inet, 53), (address, from.port()), number, &answer, 1500)
            })
            .collect();
        assert!(answers.iter().all(|fragments| fragments.len() == 3));
        for place in [2, 0, 1] {
            // Each time, what is first is in another place.
            let place = |number: usize| (place + number * (round as usize % 2)) % 3;
            for (number, fragments) in answers.iter().enumerate() {
                crafter.send(&fragments[place(number)]);
            }
        }
        for (host, dig) in &mut digs {
            assert_answered(dig, host);
        }
    }
    assert_eq!(drops(&lab), before);
    for node in ["router", "h1", "h2", "h3"] {
        lab.assert_balanced(node);
    }
}

/// Datagrams of one sharer: each is answered before the next one is sent, so that no queue overflows.
fn send_datagrams(lab: &Lab, node: &str, port: u16, to: (&str, u16), count: u16) {
    let socket = socket(lab, node, port);
    let mark = node.as_bytes()[1];
    for number in 0..count {
        let mut data = vec![mark; LARGE];
        data[..2].copy_from_slice(&number.to_be_bytes());
        socket.send_to(&data, to).unwrap();
        let mut space = [0; LARGE + 1];
        let len = socket.recv(&mut space).unwrap_or_else(|error| panic!("{node} {number}: {error}"));
        data.reverse();
        assert!(space[..len] == data, "{node}: another datagram than number {number}");
    }
}

/// Takes datagrams that are not mixed up, and sends each back the other way round.
fn take_datagrams(server: &UdpSocket, count: usize, mark_of: impl Fn(u16) -> u8) {
    let mut space = [0; LARGE + 1];
    for _ in 0..count {
        let (len, from) = server.recv_from(&mut space).unwrap();
        let (data, mark) = (&mut space[..len], mark_of(from.port()));
        assert!(len == LARGE && data[2..].iter().all(|byte| *byte == mark), "{from}: mixed up");
        data.reverse();
        server.send_to(data, from).unwrap();
    }
}

#[test]
fn large_datagrams_of_two_sharers_at_once() {
    const COUNT: u16 = 200;
    let lab = Lab::up();
    for (server, address) in [("inet", INET), ("legacy", LEGACY)] {
        let there = socket(&lab, server, 7000);
        let lan = Capture::start(&lab, "lan", "lan", "udp");
        let before = drops(&lab);
        let owner = owners(&lab);
        thread::scope(|scope| {
            for host in ["h1", "h2"] {
                scope.spawn(|| send_datagrams(&lab, host, 0, (address, 7000), COUNT));
            }
            scope.spawn(|| take_datagrams(&there, 2 * usize::from(COUNT), owner));
        });
        assert_eq!(drops(&lab), before);
        let expected = usize::from(COUNT) * 3;
        await_true("all fragments in the capture", || {
            let packets = lan.packets();
            let sent = |number| packets.iter().filter(|packet| packet.is_from_host(number)).count();
            [1, 2].map(sent) == [expected; 2]
        });
        for number in [1, 2] {
            let sent = fragments_of(&lab, number, &lan.packets());
            assert!(
                sent.iter()
                    .all(|packet| packet.protocol() == UDP && packet.destination().to_string() == address)
            );
            // RFC 6864 §4.3: no two datagrams have the same one.
            let mut numbers: Vec<_> = sent.iter().map(Captured::identification).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), usize::from(COUNT), "to {server}");
        }
    }
}

#[test]
fn large_datagrams_between_sharers() {
    const COUNT: u16 = 50;
    let lab = Lab::up();
    let port = lab.ports("h1")[0].0 + 70;
    let there = socket(&lab, "h1", port);
    let before = drops(&lab);
    let owner = owners(&lab);
    thread::scope(|scope| {
        // The last one is the server's own host.
        for host in ["h2", "h3", "h1"] {
            scope.spawn(|| send_datagrams(&lab, host, 0, (SHARED, port), COUNT));
        }
        scope.spawn(|| take_datagrams(&there, 3 * usize::from(COUNT), owner));
    });
    assert_eq!(drops(&lab), before);
}

/// From a port that is not of the set, and gets another one: what is behind the first fragment follows it.
#[test]
fn large_datagrams_from_a_mapped_port() {
    let lab = Lab::up();
    let there = socket(&lab, "inet", 7000);
    let stack = super::ports::parts(&lab, "h1").stack;
    let marks = |port| {
        assert!(contains(&stack, port), "{port}");
        b'1'
    };
    thread::scope(|scope| {
        scope.spawn(|| send_datagrams(&lab, "h1", 2000, (INET, 7000), 20));
        scope.spawn(|| take_datagrams(&there, 20, marks));
    });
}
