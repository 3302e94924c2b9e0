//! What a router takes for one small packet, from frame to frame, to one of 1 or 1,000 hosts and from it: `plain`, with
//! bindings of its configuration, and `leased`, where a DHCP server gave them and the packets of each lease are counted.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(missing_docs, reason = "a macro makes the main function")]

use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pearp::dhcp::{ClientId, Config, Lease, LeaseState, Server, ServerLink};
use pearp::node::{EchoAnswer, LinkId, Node, Role, Router, RouterConfig, RouterLink, Verdict};
use pearp::ports::{Psid, Scheme};
use pearp::wire::pe_arp::{Claim, DEFAULT_PRO, Lifetime, Record};
use pearp::wire::{EthernetAddress, Frame, Medium, ipv4, plain_arp};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use smoltcp::time::Instant;
use smoltcp::wire::{ArpOperation, ArpRepr};

const LAN: LinkId = LinkId(0);
const OUTSIDE: LinkId = LinkId(1);
const ROUTER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const OUTSIDE_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);
const SERVER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 3]);
const OUTSIDE_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const NOW: Instant = Instant::from_micros_const(1_000_000);

#[derive(Clone, Copy)]
struct HostKey {
    ip: Ipv4Addr,
    set: Psid,
    hardware: EthernetAddress,
}

/// 15 of them on each address: PSID 0 has the system ports.
fn hosts(count: u16) -> Vec<HostKey> {
    let scheme = Scheme::new(0, 4).unwrap();
    let host = |number: u16| {
        let [high, low] = number.to_be_bytes();
        HostKey {
            ip: Ipv4Addr::from(0xC612_0100 + u32::from(number / 15)),
            set: Psid::new(scheme, 1 + number % 15).unwrap(),
            hardware: EthernetAddress([2, 0, 0, 1, high, low]),
        }
    };
    (0..count).map(host).collect()
}

fn router(hosts: &[HostKey], leased: bool) -> Router {
    let link = |name: &str, role, hardware, address: &str| RouterLink {
        name: name.to_owned(),
        role,
        hardware,
        address: address.parse().unwrap(),
        mtu: 1500,
    };
    let links = vec![
        link("lan", Role::Lan, ROUTER_MAC, "198.18.0.1/16"),
        link("outside", Role::Outside, OUTSIDE_MAC, "203.0.113.1/24"),
    ];
    let shared: Vec<_> = hosts.iter().map(|host| (host.ip, host.set.scheme())).collect();
    let served = vec![ServerLink {
        link: LAN.0,
        address: links[LAN.0].address,
        router: Some(links[LAN.0].address.address()),
    }];
    let config = RouterConfig {
        links,
        shared,
        authority: true,
        echo: EchoAnswer::Router,
        routes: Vec::new(),
        pro: DEFAULT_PRO,
        seed: 1,
    };
    let mut router = Router::new(config, NOW);
    if leased {
        let pools = "lease = 3600\n[[shared]]\naddresses = \"198.18.1.0-198.18.2.255\"\nscheme = [0, 4]\n";
        let until = NOW + smoltcp::time::Duration::from_secs(3600);
        let leases = hosts.iter().map(|host| Lease {
            client: ClientId::of_hardware(host.hardware),
            hardware: host.hardware,
            ip: host.ip,
            set: host.set,
            state: LeaseState::Bound,
            until,
            since: NOW,
            held_until: until,
            host_name: None,
        });
        let server = Server::new(Config::parse(pools, served, 1).unwrap(), leases, NOW);
        router.serve_dhcp(server, NOW);
    } else {
        for host in hosts {
            let record = Record::new(Claim::Psid(host.set), Lifetime::Unknown);
            router.grant(host.ip, host.hardware, &[record], NOW).unwrap();
        }
    }
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: SERVER_MAC,
        source_protocol_addr: SERVER,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: OUTSIDE_ROUTER,
    };
    router.handle_frame(OUTSIDE, &mut plain_arp(SERVER_MAC, EthernetAddress::BROADCAST, &request), NOW);
    while router.poll_transmit(NOW).is_some() {}
    router
}

/// Frames for the router, to hosts and from them, in one random order.
fn frames(hosts: &[HostKey], to_hosts: bool) -> Vec<Vec<u8>> {
    let mut hosts = hosts.to_vec();
    hosts.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    let framed = |host: &HostKey| {
        let (host_end, server_end) = ((host.ip, host.set.first() + 7), (SERVER, 443));
        let (source, destination, packet) = if to_hosts {
            (SERVER_MAC, OUTSIDE_MAC, ipv4::udp(server_end, host_end, &[7; 32]))
        } else {
            (host.hardware, ROUTER_MAC, ipv4::udp(host_end, server_end, &[7; 32]))
        };
        [&destination.0[..], &source.0, &[8, 0], &packet].concat()
    };
    hosts.iter().map(framed).collect()
}

fn forward(c: &mut Criterion) {
    for count in [1, 1000] {
        let hosts = hosts(count);
        for (direction, to_hosts) in [("to-host", true), ("from-host", false)] {
            let frames = frames(&hosts, to_hosts);
            let (ingress, egress) = if to_hosts { (OUTSIDE, LAN) } else { (LAN, OUTSIDE) };
            let mut group = c.benchmark_group(direction);
            group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
            group.throughput(Throughput::Elements(1));
            for (name, leased) in [("plain", false), ("leased", true)] {
                let mut router = router(&hosts, leased);
                let (mut frame, mut next) = (Frame::buffer(), 0);
                group.bench_function(BenchmarkId::new(name, count), |b| {
                    b.iter(|| {
                        let bytes = &frames[next];
                        next = (next + 1) % frames.len();
                        frame.space(Medium::Ethernet)[..bytes.len()].copy_from_slice(bytes);
                        frame.set_len(bytes.len());
                        let verdict = router.handle_frame(ingress, &mut frame, NOW);
                        assert_eq!(verdict, Verdict::Forward(egress));
                    });
                });
            }
        }
    }
}

criterion_group!(benches, forward);
criterion_main!(benches);
