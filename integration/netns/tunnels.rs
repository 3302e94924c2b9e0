//! Tunnels of two sharers at once: ESP by its SPI, GRE by its key or its owner (rules 64 to 66), WireGuard by its port.

use std::fs;

use tempfile::TempDir;

use super::portless::reserve;
use super::ports::parts;
use crate::support::capture::{Capture, UDP};
use crate::support::lab::{INET, LEGACY, Lab, SHARED, contains, tool};
use crate::support::process::{Process, run, run_with_input};
use crate::support::raw::{ESP, GRE, Raw};
use crate::support::ssh::{Web, curl};

/// A number whose low 16 bits are of a host's set.
fn number_of(lab: &Lab, host: &str) -> u32 {
    0x1234_0000 | u32::from(lab.ports(host)[0].0 + 5)
}

/// ESP: SPI, sequence number, and what nobody can read.
fn esp(spi: u32, sequence: u32) -> Vec<u8> {
    [&spi.to_be_bytes()[..], &sequence.to_be_bytes(), &[0xA5; 40]].concat()
}

/// GRE of version 0 with a key (RFC 2890), or without one, around what could be IPv4.
fn gre(key: Option<u32>, mark: u8) -> Vec<u8> {
    let (flags, key) = key.map_or((0, Vec::new()), |key| (0x20, key.to_be_bytes().to_vec()));
    [&[flags, 0, 8, 0][..], &key, &[mark; 30]].concat()
}

fn dropped(lab: &Lab, host: &str, reason: &str) -> u64 {
    lab.pearp_json(host, &["status"])["drops"][reason].as_u64().unwrap_or(0)
}

/// Packets for both hosts, in turn: if one heard what is the other one's, it would be between the two of its own.
#[track_caller]
fn assert_in_turn(from: (&Raw, &str), to: [&Raw; 2], packet: impl Fn(usize, u8) -> Vec<u8>) {
    for mark in [1, 2] {
        for host in [0, 1] {
            from.0.send(SHARED, &packet(host, mark));
        }
    }
    for (host, socket) in to.into_iter().enumerate() {
        for mark in [1, 2] {
            socket.hears(from.1, &packet(host, mark));
        }
    }
}

#[test]
fn esp_of_two_sharers() {
    let lab = Lab::up();
    let [h1, h2, h3, inet, legacy] =
        ["h1", "h2", "h3", "inet", "legacy"].map(|node| Raw::open(&lab, node, ESP));
    let numbers = ["h1", "h2"].map(|host| number_of(&lab, host));
    for (peer, address) in [(&inet, INET), (&legacy, LEGACY)] {
        assert_in_turn((peer, address), [&h1, &h2], |host, mark| esp(numbers[host], mark.into()));
        // SPIs that the peer has chosen, as it likes.
        for (host, spi) in [(&h1, 0xC000_0001), (&h2, numbers[0]), (&h3, 256)] {
            host.send(address, &esp(spi, 9));
            peer.hears(SHARED, &esp(spi, 9));
        }
    }
    assert_in_turn((&h3, SHARED), [&h1, &h2], |host, mark| esp(numbers[host], mark.into()));
    // An SPI of nobody reaches nobody.
    inet.send(SHARED, &esp(20_000, 1));
    inet.send(SHARED, &esp(numbers[0], 10));
    h1.hears(INET, &esp(numbers[0], 10));
}

#[test]
fn gre_with_the_keys_of_two_sharers() {
    let lab = Lab::up();
    let [h1, h2, inet, legacy] = ["h1", "h2", "inet", "legacy"].map(|node| Raw::open(&lab, node, GRE));
    let keys = ["h1", "h2"].map(|host| number_of(&lab, host));
    for (peer, address) in [(&inet, INET), (&legacy, LEGACY)] {
        assert_in_turn((peer, address), [&h1, &h2], |host, mark| gre(Some(keys[host]), mark));
        for (host, key) in [&h1, &h2].into_iter().zip(keys) {
            host.send(address, &gre(Some(key), 3));
            peer.hears(SHARED, &gre(Some(key), 3));
        }
    }
    // The key is the sender's, too.
    let before = dropped(&lab, "h2", "source_port");
    h2.send(INET, &gre(Some(keys[0]), 4));
    h2.send(INET, &gre(Some(keys[1]), 5));
    inet.hears(SHARED, &gre(Some(keys[1]), 5));
    assert_eq!(dropped(&lab, "h2", "source_port"), before + 1);
}

#[test]
fn gre_without_a_key_is_its_owners() {
    let lab = Lab::up();
    reserve(&lab, &[(1, "portless = [47]")]);
    let [h1, h2, inet, legacy] = ["h1", "h2", "inet", "legacy"].map(|node| Raw::open(&lab, node, GRE));
    let key = Some(number_of(&lab, "h2"));
    for (peer, address) in [(&inet, INET), (&legacy, LEGACY)] {
        // h2 has tunnels with keys at the same time.
        assert_in_turn((peer, address), [&h1, &h2], |host, mark| {
            gre(if host == 0 { None } else { key }, mark)
        });
        h1.send(address, &gre(None, 3));
        h2.send(address, &gre(key, 4));
        let mut heard = [peer.receive(), peer.receive()].map(|(_, packet)| packet);
        heard.sort_unstable();
        assert_eq!(heard, [gre(None, 3), gre(key, 4)]);
        let before = dropped(&lab, "h2", "portless");
        h2.send(address, &gre(None, 5));
        h2.send(address, &gre(key, 6));
        peer.hears(SHARED, &gre(key, 6));
        assert_eq!(dropped(&lab, "h2", "portless"), before + 1);
    }
    h2.send(SHARED, &gre(key, 7));
    h2.hears(SHARED, &gre(key, 7));
}

/// wireguard-go with a /run of its own, where it has its socket.
const WIREGUARD: &str = "set -e
    mount -t tmpfs tmpfs /run && mkdir /run/wireguard
    ( until wg show wg0 >/dev/null 2>&1; do sleep 0.02; done
      wg setconf wg0 \"$0\" && ip address add \"$1/24\" dev wg0 && ip link set wg0 up && echo serves ) &
    exec wireguard-go -f wg0";

/// An end of a tunnel: its keys, and its address in there.
struct Peer {
    private: String,
    public: String,
    address: String,
}

impl Peer {
    fn new(number: u8) -> Self {
        let private = run(tool("wg").arg("genkey")).ok();
        let public = run_with_input(tool("wg").arg("pubkey"), private.as_bytes()).ok();
        let [private, public] = [private, public].map(|key| key.trim().to_owned());
        Self { private, public, address: format!("10.9.0.{number}") }
    }

    /// What others are told of it.
    fn told(&self, more: &str) -> String {
        format!("[Peer]\nPublicKey = {}\nAllowedIPs = {}/32\n{more}\n", self.public, self.address)
    }

    #[track_caller]
    fn start(&self, lab: &Lab, node: &str, directory: &TempDir, port: u16, peers: &str) -> Process {
        let config = directory.path().join(format!("{node}.conf"));
        let text = format!("[Interface]\nPrivateKey = {}\nListenPort = {port}\n{peers}", self.private);
        fs::write(&config, text).unwrap();
        let mut command = lab.command(node, "sh");
        let process = Process::start(command.args(["-c", WIREGUARD]).arg(config).arg(&self.address));
        process.await_line("serves");
        process
    }
}

/// h1 and h2 have ports of their sets, h3 has the one that the server has, too, and many have by default.
#[test]
fn wireguard_of_three_sharers_to_one_server() {
    const PORT: u16 = 51_820;
    let lab = Lab::up();
    let directory = TempDir::new().unwrap();
    let server = Peer::new(254);
    let clients = ["h1", "h2", "h3"].map(|host| (host, Peer::new(host.as_bytes()[1] - b'0')));
    let told: String = clients.iter().map(|(_, client)| client.told("")).collect();
    let _server = server.start(&lab, "inet", &directory, PORT, &told);
    let outside = Capture::start(&lab, "wan", "wan", "udp");
    let endpoint = server.told(&format!("Endpoint = {INET}:{PORT}"));
    let ports = ["h1", "h2"].map(|host| lab.ports(host)[0].0 + 820);
    let ports = [ports[0], ports[1], PORT];
    let _running: Vec<_> = clients
        .iter()
        .zip(ports)
        .map(|((host, client), port)| client.start(&lab, host, &directory, port, &endpoint))
        .collect();

    // All at the same time.
    let mut pings = clients.each_ref().map(|(host, _)| {
        let mut command = lab.command(host, "ping");
        Process::start(command.args([
            "-n",
            "-c",
            "20",
            "-i",
            "0.05",
            "-W",
            "20",
            "-s",
            "1300",
            &server.address,
        ]))
    });
    for ping in &mut pings {
        assert_eq!(ping.finish(), Some(0), "{}", ping.transcript());
        assert!(ping.transcript().contains("20 received"), "{}", ping.transcript());
    }
    let page = "x".repeat(500_000);
    let web = Web::serve(&lab, "inet", 80);
    web.add("page", page.as_bytes());
    let url = |address: &str, path: &str| format!("http://{address}/{path}");
    for (host, client) in &clients {
        let got = run(&mut curl(&lab, host, &[&url(&server.address, "page")])).ok();
        assert!(got == page, "{host}: {} bytes", got.len());
        let peer = run(&mut curl(&lab, host, &[&url(&server.address, "cgi-bin/peer")])).ok();
        assert!(peer.starts_with(&format!("{} ", client.address)), "{host}: {peer}");
        // In there, every client has all ports.
        let _web = Web::serve(&lab, host, 80);
        let got = run(&mut curl(&lab, "inet", &[&url(&client.address, "")])).ok();
        assert_eq!(got, format!("page of {host}\n"));
    }

    // By which ports the server knows them.
    let packets = outside.packets();
    let from: std::collections::BTreeSet<_> = packets
        .iter()
        .filter(|packet| packet.protocol() == UDP && packet.source().to_string() == SHARED)
        .map(|packet| packet.ports().0)
        .collect();
    assert_eq!(from.len(), 3, "{from:?}");
    assert!(from.contains(&ports[0]) && from.contains(&ports[1]), "{from:?}");
    assert!(from.iter().any(|port| contains(&parts(&lab, "h3").stack, *port)), "{from:?}");
    for (host, mapped) in [("h1", false), ("h2", false), ("h3", true)] {
        let count = lab.pearp_json(host, &["status"])["counters"]["mapped"].as_u64();
        assert_eq!(count > Some(0), mapped, "{host}: {count:?}");
    }
}
