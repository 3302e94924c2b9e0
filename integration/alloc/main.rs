//! The forwarding path allocates nothing: frames are rewritten in place.
//!
//! Its own test program, since the counting allocator counts everything in the process.

#![allow(unsafe_code, reason = "a global allocator is unsafe by its trait")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use pearp::dhcp::{ClientId, Config, Lease, LeaseState, Server, ServerLink};
use pearp::node::{
    EchoAnswer, EchoPort, Host, HostConfig, HostLinks, HostOptions, LeakPolicy, LinkId, Node, Role, Router,
    RouterConfig, RouterLink, SetConfig, Verdict,
};
use pearp::ports::{PortSet, Portless, Psid, Scheme};
use pearp::wire::pe_arp::{Claim, DEFAULT_PRO, Lifetime, Message, PeAddress, Record};
use pearp::wire::{
    Checksum, EthernetAddress, Frame, Gso, GsoKind, Ipv4Packet, Medium, Offload, Segments, pe_arp_frame,
};
use smoltcp::time::{Duration, Instant};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRAMES: u64 = 10_000;
const ROUTER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const OUTSIDE_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 1, 1]);
const HOST_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 2, 1]);
const SERVER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 1, 80]);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

/// A UDP packet.
fn packet((from, source): (Ipv4Addr, u16), (to, destination): (Ipv4Addr, u16)) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 36, 0, 1, 0x40, 0, 64, 17, 0, 0];
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    Ipv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
    bytes
}

fn framed(source: EthernetAddress, destination: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    [&destination.0[..], &source.0, &[8, 0], packet].concat()
}

fn announce(owner: EthernetAddress, address: PeAddress, claim: Claim) -> Frame {
    let message = Message::announce(owner, address, &[Record::new(claim, Lifetime::Unknown)]);
    pe_arp_frame(EthernetAddress::BROADCAST, &message, DEFAULT_PRO)
}

/// The packet as a super-frame, with a checksum that is left open.
const SUPER_FRAME: Offload = Offload {
    checksum: Some(Checksum { start: 20, offset: 6 }),
    gso: Some(Gso { kind: GsoKind::Udp, size: 3, header_len: 28 }),
};

/// Gives the node the same bytes again and again, as a link would into its one buffer; each frame must leave by `out`,
/// and is cut there as for a link without offloads.
#[track_caller]
fn forward(
    node: &mut impl Node,
    from: LinkId,
    medium: Medium,
    bytes: &[u8],
    (out, carried): (LinkId, Medium),
    now: &mut Instant,
) {
    let (mut frame, mut segment) = (Frame::buffer(), Frame::buffer());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for number in 0..FRAMES {
        frame.space(medium)[..bytes.len()].copy_from_slice(bytes);
        frame.set_len(bytes.len());
        if number % 2 == 0 {
            frame.offload = SUPER_FRAME;
        }
        assert_eq!(node.handle_frame(from, &mut frame, *now), Verdict::Forward(out));
        assert!(node.poll_transmit(*now).is_none());
        let mut segments = Segments::of(&frame, carried).unwrap();
        let mut count = 0;
        while segments.next_into(&mut segment) {
            count += 1;
        }
        assert_eq!(count, if number % 2 == 0 { 3 } else { 1 });
        // Nothing is due before the binding is to be confirmed.
        *now += Duration::from_micros(10);
        assert!(node.poll_timeout(*now).is_none_or(|at| at > *now));
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "allocations for {FRAMES} frames");
}

/// One test: another one beside it would allocate, too.
#[test]
fn nothing_is_allocated_per_frame() {
    host_and_router();
    router_that_counts_for_leases();
}

fn host_and_router() {
    let psid: Psid = "0,4,1".parse().unwrap();
    let mut now = Instant::from_secs(1);

    let mut host = Host::new(
        HostConfig {
            options: HostOptions {
                links: HostLinks { lan: "lan".to_owned(), tun: "tun".to_owned() },
                hardware: HOST_MAC,
                stack_ports: None,
                echo: EchoPort::Lowest,
                leaks: LeakPolicy::Map,
                authorities: Vec::new(),
                mtu: 1500,
                pro: DEFAULT_PRO,
                seed: 1,
            },
            first: SetConfig {
                address: "198.51.100.2/24".parse().unwrap(),
                gateway: Some(ROUTER),
                set: PortSet::Psid(psid),
                portless: Portless::default(),
                lease: None,
            },
        },
        now,
    )
    .unwrap();
    let end = now + Duration::from_secs(4);
    while let Some(at) = host.poll_timeout(now).filter(|at| *at <= end) {
        now = at.max(now);
        host.handle_timeout(now);
        while host.poll_transmit(now).is_some() {}
    }
    let (lan, tun) = (LinkId(0), LinkId(1));
    let gateway = PeAddress { router: true, ..PeAddress::new(ROUTER) }.with_port(0, Some(0));
    assert_eq!(
        host.handle_frame(lan, &mut announce(ROUTER_MAC, gateway, Claim::Full), now),
        Verdict::Delivered
    );
    let out = packet((SHARED, 5000), (SERVER, 53));
    // The first use of a binding in STALE starts a timer.
    host.handle_frame(tun, &mut Frame::from_packet(&out), now);
    forward(&mut host, tun, Medium::Ip, &out, (lan, Medium::Ethernet), &mut now);
    let back = framed(ROUTER_MAC, HOST_MAC, &packet((SERVER, 53), (SHARED, 5000)));
    forward(&mut host, lan, Medium::Ethernet, &back, (tun, Medium::Ip), &mut now);

    let mut router = router(false, now);
    let (lan, outside) = (LinkId(0), LinkId(1));
    let owner = PeAddress { shared: true, ..PeAddress::new(SHARED) }.with_port(0, Some(4096));
    router.handle_frame(lan, &mut announce(HOST_MAC, owner, Claim::Psid(psid)), now);
    let out = framed(HOST_MAC, ROUTER_MAC, &packet((SHARED, 5000), (SERVER, 53)));
    let back = framed(SERVER_MAC, OUTSIDE_MAC, &packet((SERVER, 53), (SHARED, 5000)));
    know_the_server(&mut router, now);
    for (link, bytes) in [(lan, &out), (outside, &back)] {
        router.handle_frame(link, &mut Frame::from_ethernet(bytes), now);
    }
    while router.poll_transmit(now).is_some() {}
    forward(&mut router, lan, Medium::Ethernet, &out, (outside, Medium::Ethernet), &mut now);
    forward(&mut router, outside, Medium::Ethernet, &back, (lan, Medium::Ethernet), &mut now);
}

fn router_that_counts_for_leases() {
    let mut now = Instant::from_secs(1);
    let mut router = router(true, now);
    let (lan, outside) = (LinkId(0), LinkId(1));
    let set = |text: &str| text.parse::<Psid>().unwrap();
    let lease = |last, set: Psid| {
        let hardware = EthernetAddress([2, 0, 0, 0, 2, last]);
        let until = now + Duration::from_secs(3600);
        Lease {
            client: ClientId::of_hardware(hardware),
            hardware,
            ip: SHARED,
            set,
            state: LeaseState::Bound,
            until,
            since: now,
            held_until: until,
            host_name: None,
        }
    };
    // The first host has two sets.
    let leases = [lease(1, set("0,4,1")), lease(1, set("0,4,2")), lease(2, set("0,4,3"))];
    let pools = "[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n";
    let links =
        vec![ServerLink { link: lan.0, address: "198.51.100.1/24".parse().unwrap(), router: Some(ROUTER) }];
    let server = Server::new(Config::parse(pools, links, 1).unwrap(), leases.clone(), now);
    router.serve_dhcp(server, now);
    know_the_server(&mut router, now);
    let (server, other) = ((SERVER, 53), (SHARED, 13_000));
    let mut frames = Vec::new();
    for port in [5000, 9000] {
        frames.push((lan, framed(HOST_MAC, ROUTER_MAC, &packet((SHARED, port), server)), outside));
        frames.push((outside, framed(SERVER_MAC, OUTSIDE_MAC, &packet(server, (SHARED, port))), lan));
        frames.push((lan, framed(HOST_MAC, ROUTER_MAC, &packet((SHARED, port), other)), lan));
    }
    for (link, bytes, _) in &frames {
        router.handle_frame(*link, &mut Frame::from_ethernet(bytes), now);
    }
    while router.poll_transmit(now).is_some() {}
    for (link, bytes, out) in &frames {
        forward(&mut router, *link, Medium::Ethernet, bytes, (*out, Medium::Ethernet), &mut now);
    }
    // Every other frame is three packets on the wire.
    let packets = 2 * FRAMES + 1;
    for (lease, (to_host, from_host)) in
        leases.iter().zip([(packets, 2 * packets), (packets, 2 * packets), (2 * packets, 0)])
    {
        let traffic = router.traffic(lease).unwrap();
        assert_eq!((traffic.to_host.packets, traffic.from_host.packets), (to_host, from_host), "{lease:?}");
    }
}

/// A router that knows nobody; `authority`: nobody but its own leases.
fn router(authority: bool, now: Instant) -> Router {
    let link = |name: &str, role, hardware, address: &str| RouterLink {
        name: name.to_owned(),
        role,
        hardware,
        address: address.parse().unwrap(),
        mtu: 1500,
    };
    let mut router = Router::new(
        RouterConfig {
            links: vec![
                link("lan", Role::Lan, ROUTER_MAC, "198.51.100.1/24"),
                link("wan", Role::Outside, OUTSIDE_MAC, "203.0.113.1/24"),
            ],
            shared: vec![(SHARED, Scheme::new(0, 4).unwrap())],
            authority,
            echo: EchoAnswer::Router,
            routes: Vec::new(),
            pro: DEFAULT_PRO,
            seed: 1,
        },
        now,
    );
    while router.poll_transmit(now).is_some() {}
    router
}

fn know_the_server(router: &mut Router, now: Instant) {
    let request = smoltcp::wire::ArpRepr::EthernetIpv4 {
        operation: smoltcp::wire::ArpOperation::Request,
        source_hardware_addr: SERVER_MAC,
        source_protocol_addr: SERVER,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: Ipv4Addr::new(203, 0, 113, 1),
    };
    let mut request = pearp::wire::plain_arp(SERVER_MAC, EthernetAddress::BROADCAST, &request);
    router.handle_frame(LinkId(1), &mut request, now);
}
