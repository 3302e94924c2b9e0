//! Paths with a link that takes smaller packets than the LAN: who sends learns of it, and no other sharer does.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use tempfile::TempDir;

use crate::support::capture::{Capture, Captured, ICMP, UDP};
use crate::support::lab::{HOSTS, INET, Lab, SHARED, contains, tool};
use crate::support::process::{Process, run};
use crate::support::ssh::{Web, curl};
use crate::support::wait::{PATIENCE, await_true};

/// What the narrow link takes, in bytes.
const NARROW: usize = 1400;
/// A server behind the narrow link.
const FAR: &str = "192.0.2.80";

/// Bytes of a transfer.
const TRANSFER: u32 = 3_000_000;

/// Puts the node `far` behind inet, which routes: both hold the narrow link. It goes with the lab.
#[track_caller]
fn add_far(lab: &Lab) {
    let namespace = lab.netns("far");
    let record = Path::new("/run/pearp/labs").join(lab.name()).join("namespaces");
    let mut record = OpenOptions::new().append(true).open(record).expect("the lab has a record");
    writeln!(record, "{namespace}").expect("it can be written");
    run(tool("ip").args(["netns", "add", &namespace])).ok();
    let near = format!(
        "ip link add far mtu {NARROW} type veth peer name eth0 mtu {NARROW} netns {namespace}
         ip address add 192.0.2.1/24 dev far && ip link set far up && echo 1 >/proc/sys/net/ipv4/ip_forward"
    );
    lab.exec("inet", &["sh", "-ec", &near]).ok();
    // It says that it takes segments for 1500 bytes, as whoever does not know of the narrow link.
    let far = format!(
        "ip link set lo up && ip address add {FAR}/24 dev eth0 && ip link set eth0 up
         ip route add default via 192.0.2.1 advmss 1460"
    );
    lab.exec("far", &["sh", "-ec", &far]).ok();
}

/// A web server that tells what it was sent.
fn web(lab: &Lab, node: &str) -> Web {
    let web = Web::serve(lab, node, 80);
    web.add_program("sum", "head -c \"$CONTENT_LENGTH\" | sha256sum");
    web
}

/// A file for transfers, and its sum.
fn content() -> (TempDir, Vec<u8>, String) {
    let directory = TempDir::new().unwrap();
    let content: Vec<u8> = (0..TRANSFER).map(|number| b'a' + (number % 23) as u8).collect();
    fs::write(directory.path().join("content"), &content).unwrap();
    let sum = run(tool("sha256sum").arg(directory.path().join("content"))).ok();
    (directory, content, sum.split_whitespace().next().unwrap().to_owned())
}

#[track_caller]
fn upload(lab: &Lab, host: &str, server: &str, file: &TempDir, sum: &str) {
    let data = format!("@{}", file.path().join("content").display());
    let url = format!("http://{server}/cgi-bin/sum");
    let said = run(&mut curl(lab, host, &["-H", "Expect:", "--data-binary", &data, &url])).ok();
    assert!(said.starts_with(sum), "{host}: {said}");
}

#[track_caller]
fn download(lab: &Lab, host: &str, server: &str, content: &[u8]) {
    let got = run(&mut curl(lab, host, &[&format!("http://{server}/content")])).ok();
    assert!(got.as_bytes() == content, "{host}: {} bytes", got.len());
}

/// The MTU of a path that the kernel of a node has been told of.
fn learned(lab: &Lab, node: &str, to: &str) -> Option<usize> {
    let route = lab.exec(node, &["ip", "route", "get", to]).ok();
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    words.next().map(|mtu| mtu.parse().unwrap_or_else(|_| panic!("{route}")))
}

/// Small packets of a sharer to a server, there and back.
#[track_caller]
fn talk(lab: &Lab, host: &str, server: &str, node: &str) {
    assert_eq!(run(&mut curl(lab, host, &[&format!("http://{server}/")])).ok(), format!("page of {node}\n"));
    lab.exec(host, &["ping", "-n", "-c", "1", "-W", "20", server]).ok();
}

/// The errors about the MTU that came to the LAN, and to whom.
fn too_big(packets: &[Captured]) -> Vec<(&Captured, u16)> {
    let errors = packets.iter().filter(|packet| packet.protocol() == ICMP && packet.payload()[..2] == [3, 4]);
    // The source port is in the embedded packet, behind its header.
    errors.map(|packet| (packet, u16::from_be_bytes([packet.payload()[28], packet.payload()[29]]))).collect()
}

/// TCP and more from each sharer in turn: it alone learns.
#[track_caller]
fn assert_learned_in_turn(lab: &Lab, server: &str, node: &str, errors_from: &str) {
    let web = web(lab, node);
    let (file, content, sum) = content();
    web.add("content", &content);
    let lan = Capture::start(lab, "lan", "lan", "icmp");
    for host in HOSTS {
        talk(lab, host, server, node);
    }
    for (at, host) in HOSTS.iter().enumerate() {
        upload(lab, host, server, &file, &sum);
        for (other, name) in HOSTS.iter().enumerate() {
            assert_eq!(learned(lab, name, server), (other <= at).then_some(NARROW), "{name} after {host}");
        }
        download(lab, host, server, &content);
    }
    let cache = lab.exec("h1", &["ip", "route", "show", "cache"]).ok();
    assert!(cache.contains(server) && cache.contains(&format!("mtu {NARROW}")), "{cache}");
    let packets = lan.packets();
    let errors = too_big(&packets);
    for host in HOSTS {
        let own = lab.ports(host);
        assert!(errors.iter().any(|(_, port)| contains(&own, *port)), "{host}: {errors:?}");
    }
    assert!(errors.iter().all(|(packet, _)| packet.source().to_string() == errors_from), "{errors:?}");
}

/// The narrow link is far away: who tells of it knows the shared address only.
#[test]
fn a_narrow_link_far_away_is_learned_by_who_sends() {
    let lab = Lab::up();
    let _router = lab.router_with(&["--route", &format!("192.0.2.0/24={INET}")]);
    add_far(&lab);
    assert_learned_in_turn(&lab, FAR, "far", INET);
    for host in ["h1", "h2"] {
        let path = lab.exec(host, &["tracepath", "-n", "-m", "5", FAR]).ok();
        assert!(path.contains(&format!("pmtu {NARROW} hops 3 back 3")), "{path}");
    }
}

/// The router with a narrow link outside, as that of PPPoE.
#[track_caller]
fn narrow_router(lab: &Lab, link: &str) -> Process {
    lab.run_again("router", |arguments| {
        let at = arguments.iter().position(|word| word == link).expect("a router has links");
        arguments[at + 1].push_str(&format!(",mtu={NARROW}"));
    })
}

#[test]
fn a_narrow_uplink_is_learned_by_who_sends() {
    let lab = Lab::up();
    let _router = narrow_router(&lab, "--outside");
    assert_learned_in_turn(&lab, INET, "inet", "198.51.100.1");
}

/// ping learns for itself, too; what it sends afterwards does not even leave.
#[test]
fn a_ping_that_is_too_large_is_told() {
    let lab = Lab::up();
    let _router = narrow_router(&lab, "--outside");
    let ping = |host: &str, len: &str| {
        let options = ["-n", "-M", "do", "-s", len, "-c", "1", "-W", "5", INET];
        run(lab.command(host, "ping").args(options))
    };
    for host in HOSTS {
        assert_eq!(learned(&lab, host, INET), None);
        ping(host, "1372").ok();
        let said = ping(host, "1373");
        assert!(said.stdout.contains("From 198.51.100.1") && said.stdout.contains("mtu = 1400"), "{said:?}");
        await_true("the new MTU", || learned(&lab, host, INET) == Some(NARROW));
        ping(host, "1373").fails_with(1, &["message too long, mtu=1400"]);
    }
}

/// A transfer into a LAN that is narrower than the outside: the server learns.
#[test]
fn a_narrow_lan_is_learned_by_the_server() {
    let lab = Lab::up();
    let _router = narrow_router(&lab, "--lan");
    let web = web(&lab, "inet");
    let (file, content, sum) = content();
    web.add("content", &content);
    assert_eq!(learned(&lab, "inet", SHARED), None);
    for host in ["h1", "h2"] {
        download(&lab, host, INET, &content);
        assert_eq!(learned(&lab, "inet", SHARED), Some(NARROW));
        upload(&lab, host, INET, &file, &sum);
    }
}

/// Bytes that tell where they belong.
fn datagram(host: &str, len: usize) -> Vec<u8> {
    host.bytes().chain((0..).map(|number: usize| (number % 251) as u8)).take(len).collect()
}

/// Rule 83: what may be cut is cut by the router, and arrives whole. So is what was cut before.
#[test]
fn what_may_be_cut_is_cut_and_arrives_whole() {
    let lab = Lab::up();
    let _router = narrow_router(&lab, "--outside");
    let server = lab.inside("inet", || UdpSocket::bind((INET, 7000)).unwrap());
    let outside = Capture::start(&lab, "wan", "wan", "src host 198.51.100.2");
    let lan = Capture::start(&lab, "lan", "lan", "src host 198.51.100.2");
    let sockets = ["h1", "h2"].map(|host| {
        // From now on its kernel lets routers cut.
        lab.set_kernel(host, "ip_no_pmtu_disc", "1");
        (host, lab.inside(host, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()))
    });
    for socket in sockets.iter().map(|(_, socket)| socket).chain([&server]) {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let mut space = [0; 9000];
    let lens = [1372, 1373, 1472, 1473, 4000, 8000];
    for len in lens {
        for (host, socket) in &sockets {
            socket.send_to(&datagram(host, len), (INET, 7000)).unwrap();
        }
        for _ in &sockets {
            let (count, from) = server.recv_from(&mut space).unwrap();
            let host = core::str::from_utf8(&space[..2]).unwrap().to_owned();
            assert!(space[..count] == datagram(&host, len), "{from}: {len}");
            assert!(contains(&lab.ports(&host), from.port()), "{host}: {from}");
            server.send_to(&space[..count], from).unwrap();
        }
        for (host, socket) in &sockets {
            let received = socket.recv(&mut space);
            let count = received.unwrap_or_else(|error| panic!("{host}, {len} bytes: {error}"));
            assert!(space[..count] == datagram(host, len), "{host}: {len}");
        }
    }
    // As a ping does it.
    for (host, _) in &sockets {
        let options = ["-n", "-M", "dont", "-s", "1450", "-c", "5", "-i", "0.1", "-W", "20", INET];
        assert!(lab.exec(host, &[&["ping"], &options[..]].concat()).ok().contains("5 received"), "{host}");
        assert_eq!(learned(&lab, host, INET), None, "nobody complained");
    }
    let packets = outside.await_packet("a ping", |packet| packet.protocol() == ICMP);
    assert!(packets.iter().all(|packet| packet.bytes.len() <= NARROW && packet.has_valid_header()));
    let pieces = |packets: &[Captured]| {
        packets.iter().filter(|packet| packet.protocol() == UDP && packet.is_fragment()).count()
    };
    // Outside: one packet of 1400 bytes, then 2, 2, 2+1, 2+2+2, and so on; on the LAN up to 1500 bytes are one.
    assert!(pieces(&packets) > pieces(&lan.packets()), "cut by the router");
    for len in [1373, 1472] {
        assert!(lan.packets().iter().any(|packet| !packet.is_fragment() && packet.bytes.len() == len + 28));
    }
}
