//! What the fuzz targets do with their input; the corpus is replayed through the same functions by `cargo test`.
//!
//! Parsers get the bytes as they are. Nodes get a sequence of steps – frames, packets of programs, time – that is
//! decoded from the bytes: addresses and ports come from small pools, so that messages meet the state that earlier
//! ones made, and PE-ARP messages are built field by field, valid or nearly so.

mod dhcp;
mod dhcp_client;

use std::net::Ipv4Addr;

use arbitrary::{Arbitrary, Unstructured};
use pearp::dhcp::client::{self, ClientLease};
use pearp::dhcp::{Config, Lease, LeaseState, Server, ServerLink};
use pearp::forward::Fragments;
use pearp::node::{
    Dhcpd, DhcpdConfig, EchoAnswer, EchoPort, Host, HostConfig, HostLinks, HostOptions, LeakPolicy,
    LeasedConfig, LeasedHost, Lessor, LinkId, Node, Role, Router, RouterConfig, RouterLink, SetConfig, Swarm,
    SwarmConfig,
};
use pearp::ports::PortSet;
use pearp::wire::pe_arp::{self, Claim, DEFAULT_PRO, Lifetime, Message, Packet};
use pearp::wire::{
    Datagram, EthernetAddress, FlowKey, FlowKind, Frame, Ipv4Packet, Medium, Offload, Piece, Segments,
    VIRTIO_NET_HEADER, ipv4,
};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::Ipv4Cidr;

/// Steps of one run.
const MAX_STEPS: usize = 64;

/// Link-layer addresses: router, two hosts, a stranger, broadcast, a group, nobody.
const MACS: [[u8; 6]; 7] = [
    [2, 0, 0, 0, 0, 1],
    [2, 0, 0, 0, 2, 1],
    [2, 0, 0, 0, 2, 2],
    [2, 0, 0, 0, 9, 9],
    [255; 6],
    [1, 0, 0x5E, 0, 0, 1],
    [0; 6],
];

/// IPv4 addresses: shared, router, legacy, another shared one, outside, and those that no host has.
const ADDRESSES: [[u8; 4]; 10] = [
    [198, 51, 100, 2],
    [198, 51, 100, 1],
    [198, 51, 100, 10],
    [198, 51, 100, 3],
    [203, 0, 113, 80],
    [203, 0, 113, 1],
    [0; 4],
    [255; 4],
    [224, 0, 0, 1],
    [198, 51, 100, 255],
];

/// Ports in and around the sets.
const PORTS: [u16; 10] = [4096, 5000, 7680, 8191, 8192, 9000, 80, 0, 65_535, 4095];

/// The steps that an input stands for.
fn steps<'a, S: Arbitrary<'a>>(data: &'a [u8]) -> impl Iterator<Item = S> {
    let mut input = Unstructured::new(data);
    let next = move || (!input.is_empty()).then(|| S::arbitrary(&mut input).ok()).flatten();
    core::iter::from_fn(next).take(MAX_STEPS)
}

/// Overwrites a byte.
fn damage(bytes: &mut [u8], damage: Option<(u8, u8)>) {
    if let Some((at, value)) = damage
        && let Some(byte) = bytes.get_mut(usize::from(at))
    {
        *byte = value;
    }
}

fn pick<T: Copy>(pool: &[T], index: u8) -> T {
    pool[usize::from(index) % pool.len()]
}

#[derive(Arbitrary, Debug)]
enum Port {
    Pool(u8),
    Any(u16),
}

impl Port {
    fn get(&self) -> u16 {
        match self {
            Self::Pool(index) => pick(&PORTS, *index),
            Self::Any(port) => *port,
        }
    }
}

#[derive(Arbitrary, Debug)]
struct PeAddress {
    ip: u8,
    protocol: u8,
    flags: u8,
    port: Port,
}

impl PeAddress {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(pick(&ADDRESSES, self.ip));
        bytes.extend([pick(&[0, 1, 6, 17, 47], self.protocol), self.flags & 0x1F]);
        bytes.extend(self.port.get().to_be_bytes());
    }
}

#[derive(Arbitrary, Debug)]
enum Record {
    Range(Port, Port),
    Psid(u8, u8, u16),
    Full,
    Portless(u8),
    Raw([u8; 6]),
}

#[derive(Arbitrary, Debug)]
struct PeArp {
    operation: u8,
    sender_mac: u8,
    sender: PeAddress,
    target_mac: u8,
    target: PeAddress,
    flags: u8,
    records: Vec<(Record, u8, u8)>,
    count: Option<u8>,
}

impl PeArp {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0x88, 0xB5, 6, 8, 0, pick(&[1, 2, 10, 3], self.operation)];
        bytes.extend(pick(&MACS, self.sender_mac));
        self.sender.write(&mut bytes);
        bytes.extend(pick(&MACS, self.target_mac));
        self.target.write(&mut bytes);
        bytes.extend([0x10 | self.flags & 0x0F, self.count.unwrap_or(self.records.len() as u8)]);
        for (record, scope, lifetime) in &self.records {
            let scope = pick(&[0, 0, 6, 17], *scope);
            match record {
                Record::Range(first, last) => {
                    bytes.extend([1, scope]);
                    bytes.extend(first.get().to_be_bytes());
                    bytes.extend(last.get().to_be_bytes());
                }
                Record::Psid(a, k, psid) => {
                    let (a, k) = (a % 17, k % 17);
                    let mask = !(0xFFFF_u32 >> k) as u16;
                    bytes.extend([2, scope, a, k]);
                    bytes.extend((psid & mask).to_be_bytes());
                }
                Record::Full => bytes.extend([3, scope, 0, 0, 255, 255]),
                Record::Portless(protocol) => bytes.extend([4, 0, *protocol, 0, 0, 0]),
                Record::Raw(raw) => bytes.extend(raw),
            }
            bytes.extend(pick(&[[0, 0], [0, 60], [0x0E, 0x10], [255, 255]], *lifetime));
        }
        bytes
    }
}

#[derive(Arbitrary, Debug)]
struct Arp {
    operation: u8,
    sender_mac: u8,
    sender: u8,
    target_mac: u8,
    target: u8,
}

impl Arp {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, pick(&[1, 2, 3], self.operation)];
        bytes.extend(pick(&MACS, self.sender_mac));
        bytes.extend(pick(&ADDRESSES, self.sender));
        bytes.extend(pick(&MACS, self.target_mac));
        bytes.extend(pick(&ADDRESSES, self.target));
        bytes
    }
}

#[derive(Arbitrary, Debug)]
enum Transport {
    Ports { udp: bool, source: Port, destination: Port, rest: Vec<u8> },
    Echo { reply: bool, identifier: Port, rest: Vec<u8> },
    IcmpError { kind: u8, code: u8, embedded: Box<Ip> },
    Raw { protocol: u8, payload: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
struct Ip {
    source: u8,
    destination: u8,
    ttl: u8,
    fragment: Option<u16>,
    transport: Transport,
    /// A byte to overwrite, after the header checksum was made.
    damage: Option<(u8, u8)>,
}

impl Ip {
    fn bytes(&self, depth: usize) -> Vec<u8> {
        let (protocol, payload) = match &self.transport {
            Transport::Ports { udp, source, destination, rest } => {
                let mut bytes = [source.get().to_be_bytes(), destination.get().to_be_bytes()].concat();
                bytes.extend(rest);
                (if *udp { 17 } else { 6 }, bytes)
            }
            Transport::Echo { reply, identifier, rest } => {
                let mut bytes = vec![if *reply { 0 } else { 8 }, 0, 0, 0];
                bytes.extend(identifier.get().to_be_bytes());
                bytes.extend([0, 1]);
                bytes.extend(rest);
                (1, bytes)
            }
            Transport::IcmpError { kind, code, embedded } => {
                let mut bytes = vec![pick(&[3, 11, 12, 5, 4], *kind), *code, 0, 0, 0, 0, 0, 0];
                if depth > 0 {
                    bytes.extend(embedded.bytes(depth - 1));
                }
                (1, bytes)
            }
            Transport::Raw { protocol, payload } => (*protocol, payload.clone()),
        };
        let length = (20 + payload.len()).min(usize::from(u16::MAX)) as u16;
        let mut bytes = vec![0x45, 0];
        bytes.extend(length.to_be_bytes());
        // Of the first host's set, or of nobody's.
        bytes.extend(if self.ttl & 1 == 0 { 5000_u16 } else { 7 }.to_be_bytes());
        bytes.extend(self.fragment.unwrap_or(0x4000).to_be_bytes());
        bytes.extend([self.ttl, protocol, 0, 0]);
        bytes.extend(pick(&ADDRESSES, self.source));
        bytes.extend(pick(&ADDRESSES, self.destination));
        bytes.extend(payload);
        Ipv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
        damage(&mut bytes, self.damage);
        bytes
    }
}

#[derive(Arbitrary, Debug)]
enum Payload {
    PeArp(PeArp),
    Arp(Arp),
    Ip(Ip),
    Raw { ethertype: u16, bytes: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
enum Step {
    Frame { link: bool, source: u8, destination: u8, payload: Payload },
    Packet(Ip),
    Bytes { link: bool, bytes: Vec<u8> },
    Wait { millis: u16 },
    Connect { address: u8, port: Port },
}

/// The parser of PE-ARP: what parses is emitted again with the same meaning.
pub fn pe_arp(data: &[u8]) {
    let Ok(packet) = Packet::new_checked(data, DEFAULT_PRO) else { return };
    let Ok(message) = Message::parse(&packet) else { return };
    let _ = message.kind();
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut Packet::new_unchecked(&mut bytes[..]), DEFAULT_PRO);
    if let Ok(again) = Packet::new_checked(&bytes[..], DEFAULT_PRO) {
        assert_eq!(Message::parse(&again).as_ref(), Ok(&message));
    } else {
        // More records than a frame of 1500 bytes takes are cut.
        assert!(message.records.len() > pearp::wire::pe_arp::MAX_RECORDS);
    }
}

/// A virtio-net header and its frame; the first byte chooses the medium. What a super-frame is cut into is valid, and
/// no longer than it says.
pub fn offload(data: &[u8]) {
    let Some((medium, data)) = data.split_first() else { return };
    let Some((header, bytes)) = data.split_first_chunk::<VIRTIO_NET_HEADER>() else { return };
    let medium = if medium & 1 == 0 { Medium::Ethernet } else { Medium::Ip };
    let Ok(offload) = Offload::parse(header, medium, bytes) else { return };
    assert_eq!(Offload::parse(&offload.emit(medium), medium, bytes), Ok(offload));
    let mut frame =
        if medium == Medium::Ip { Frame::from_packet(bytes) } else { Frame::from_ethernet(bytes) };
    frame.offload = offload;
    let Ok(mut segments) = Segments::of(&frame, medium) else { return };
    let mut segment = Frame::buffer();
    while segments.next_into(&mut segment) {
        let Some(gso) = offload.gso else { continue };
        let packet = &segment.bytes()[medium.header_len()..];
        assert!(ipv4::check(packet).is_ok() && packet.len() <= gso.segment_len());
    }
}

/// The key of a packet, with its header checksum made right, so that the input gets past it.
pub fn flow_key(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Ok(mut packet) = Ipv4Packet::new_checked(&mut bytes[..]) {
        packet.fill_checksum();
    }
    if let Ok(packet) = ipv4::check(&bytes) {
        let _ = FlowKey::of(&packet);
        let _ = pearp::wire::icmp::echo_reply(&bytes);
        let _ = pearp::wire::icmp::error_for(
            &bytes,
            Ipv4Addr::from(ADDRESSES[1]),
            pearp::wire::icmp::Error::HostUnreachable,
        );
    }
}

/// Hosts under a sequence of steps: with a set of its own, with a lease of one that ends meanwhile, and with a whole
/// address.
pub fn host(data: &[u8]) {
    let lease = Duration::from_secs(10);
    for (set, lease) in [("4096-8191", None), ("4096-8191", Some(lease)), ("0-65535", None)] {
        run_host(data, set.parse().expect("a valid set"), lease);
    }
}

fn host_options(leaks: LeakPolicy) -> HostOptions {
    HostOptions {
        links: HostLinks { lan: "lan".to_owned(), tun: "tun".to_owned() },
        hardware: EthernetAddress(MACS[1]),
        stack_ports: None,
        echo: EchoPort::Lowest,
        leaks,
        authorities: vec![EthernetAddress(MACS[0])],
        mtu: 1500,
        pro: DEFAULT_PRO,
        seed: 1,
    }
}

/// A host that has leased two sets of one address and one of another before, and finds no server, under a sequence of
/// steps. Programs use none of its ports, or all.
pub fn leased(data: &[u8]) {
    let mut now = Instant::ZERO;
    let lease = |address: &str, set: &str| ClientLease {
        address: address.parse().expect("a valid address"),
        set: set.parse().expect("a valid PSID"),
        portless: "47,residual".parse().expect("a valid list"),
        gateway: Some(Ipv4Addr::from(ADDRESSES[1])),
        dns: Vec::new(),
        domain: None,
        server: Ipv4Addr::from(ADDRESSES[1]),
        renew: Instant::from_secs(30),
        rebind: Instant::from_secs(40),
        until: Instant::from_secs(60),
    };
    let client = client::Config {
        hardware: EthernetAddress(MACS[1]),
        iaid: 0,
        host_name: None,
        shares: true,
        wish: client::Wish::Any,
        seed: 1,
    };
    let options = host_options(LeakPolicy::Map);
    let stored = vec![
        (0, lease("198.51.100.2/24", "0,4,1")),
        (1, lease("198.51.100.3/24", "0,4,1")),
        (2, lease("198.51.100.2/24", "0,4,5")),
    ];
    let config = LeasedConfig { options, client, addresses: 2, grows: true, stored };
    let mut leased = LeasedHost::new(config, now);
    // Nobody answers; the set is probed, and in use.
    advance(&mut leased, &mut now, 15_000);
    assert!(leased.clients().all(|client| client.lease().is_some()));
    run(&mut leased, data, &mut now, |leased, address, port, now| {
        let _ = leased.host_mut().map(|host| host.connect(Ipv4Addr::from(address), port, now));
        while leased.poll_event().is_some() {}
        if leased.wants_look() {
            let all =
                || (4096..8192).chain(0x5000..0x6000).map(|port| (Ipv4Addr::UNSPECIFIED, port)).collect();
            let in_use: Vec<_> = if port % 2 == 0 { all() } else { Vec::new() };
            leased.observe(&in_use, now);
        }
    });
}

fn run_host(data: &[u8], set: PortSet, lease: Option<Duration>) {
    let leaks = if lease.is_some() { LeakPolicy::Map } else { LeakPolicy::Reject };
    let config = HostConfig {
        options: host_options(leaks),
        first: SetConfig {
            address: "198.51.100.2/24".parse().expect("a valid address"),
            gateway: Some(Ipv4Addr::from(ADDRESSES[1])),
            set,
            portless: "47,residual".parse().expect("a valid list"),
            lease,
        },
    };
    let Ok(mut host) = Host::new(config, Instant::ZERO) else { return };
    let mut now = Instant::ZERO;
    // Past the probe, so that the set is in use.
    advance(&mut host, &mut now, 250);
    run(&mut host, data, &mut now, |host, address, port, now| {
        let _ = host.connect(Ipv4Addr::from(address), port, now);
    });
}

/// A swarm of hosts on two addresses under a sequence of steps.
pub fn swarm(data: &[u8]) {
    let config = SwarmConfig {
        lan: "lan".to_owned(),
        hardware: EthernetAddress(MACS[1]),
        addresses: ["198.51.100.2/24", "198.51.100.3/24"]
            .map(|text| text.parse().expect("a valid address"))
            .to_vec(),
        scheme: "0,4".parse().expect("a valid scheme"),
        skip: 0,
        hosts: 4,
        gateway: Some(Ipv4Addr::from(ADDRESSES[1])),
        mtu: 1500,
        pro: DEFAULT_PRO,
        seed: 1,
    };
    let mut now = Instant::ZERO;
    let Ok(mut swarm) = Swarm::new(config, now) else { return };
    advance(&mut swarm, &mut now, 250);
    run(&mut swarm, data, &mut now, |_, _, _, _| {});
}

/// A DHCP server under a sequence of messages, restarts, disks that fail, and time.
pub fn dhcp(data: &[u8]) {
    dhcp::run(data);
}

/// A DHCP client under a sequence of answers, probes, restarts and time.
pub fn dhcp_client(data: &[u8]) {
    dhcp_client::run(data);
}

/// Routers under a sequence of steps: one that learns, and one that is told.
pub fn router(data: &[u8]) {
    run_router(data, false);
    run_router(data, true);
}

fn run_router(data: &[u8], authority: bool) {
    // With leases, everything is different from what it is without.
    let link = |name: &str, role, mac, address: &str| RouterLink {
        name: name.to_owned(),
        role,
        hardware: EthernetAddress(mac),
        address: address.parse().expect("a valid address"),
        mtu: if authority { 68 } else { 1500 },
    };
    let config = RouterConfig {
        links: vec![
            link("lan", Role::Lan, MACS[0], "198.51.100.1/24"),
            link("wan", Role::Outside, [2, 0, 0, 0, 1, 1], "203.0.113.1/24"),
        ],
        shared: vec![(Ipv4Addr::from(ADDRESSES[0]), "0,4".parse().expect("a valid scheme"))],
        authority,
        echo: if authority { EchoAnswer::Owner } else { EchoAnswer::Router },
        routes: Vec::new(),
        pro: DEFAULT_PRO,
        seed: 1,
    };
    let mut now = Instant::ZERO;
    let mut router = Router::new(config, now);
    if authority {
        let psid = |text: &str| Claim::Psid(text.parse().expect("a valid PSID"));
        let claims = [psid("0,4,1"), psid("0,16,443"), Claim::Portless(47), Claim::RESIDUAL];
        let records = claims.map(|claim| pe_arp::Record::new(claim, Lifetime::Seconds(10)));
        let granted = router.grant(Ipv4Addr::from(ADDRESSES[0]), EthernetAddress(MACS[1]), &records, now);
        assert_eq!(granted, Ok(()));
    }
    run(&mut router, data, &mut now, |_, _, _, _| {});
}

#[derive(Arbitrary, Debug)]
enum FragmentStep {
    Piece { datagram: u8, offset: u16, len: u16, last: bool },
    Wait { millis: u16 },
}

/// What is remembered of fragments; and a packet that is cut is whole again when it is put together.
pub fn fragments(data: &[u8]) {
    cut(data);
    let mut fragments = Fragments::new();
    let (mut now, mut held) = (Instant::ZERO, 0);
    for step in steps::<FragmentStep>(data) {
        match step {
            FragmentStep::Piece { datagram, offset, len, last } => {
                let datagram = Datagram {
                    source: Ipv4Addr::from(ADDRESSES[4]),
                    destination: Ipv4Addr::from(pick(&ADDRESSES, datagram)),
                    protocol: pick(&[6, 17, 1], datagram >> 4),
                    identification: u16::from(datagram >> 6),
                };
                let piece = Piece { offset: offset & !7, len, last };
                if piece.offset == 0 {
                    let _ = fragments.first(datagram, piece, KEY, now);
                } else if fragments.later(datagram, piece, usize::from(len), || (), now) == Ok(None) {
                    held += 1;
                }
            }
            FragmentStep::Wait { millis } => {
                now += Duration::from_millis(millis.into());
                fragments.handle_timeout(now);
                assert!(fragments.poll_timeout().is_none_or(|next| next > now));
            }
        }
        while let Some((key, ())) = fragments.poll_released() {
            assert_eq!(key, KEY);
            held -= 1;
        }
        while fragments.poll_expired().is_some() {
            held -= 1;
        }
        assert!(fragments.held_bytes() <= 16 << 20 && fragments.datagrams() <= MAX_STEPS);
    }
    now += Duration::from_secs(15);
    fragments.handle_timeout(now);
    while fragments.poll_expired().is_some() {
        held -= 1;
    }
    assert_eq!((held, fragments.datagrams(), fragments.held_bytes()), (0, 0, 0));
}

const KEY: FlowKey = FlowKey {
    source_address: Ipv4Addr::new(203, 0, 113, 80),
    destination_address: Ipv4Addr::new(198, 51, 100, 2),
    protocol: 17,
    source: Some(53),
    destination: Some(5000),
    kind: FlowKind::Transport,
    embedded_destination: None,
    headless: true,
};

fn cut(data: &[u8]) {
    let mut bytes = data.to_vec();
    let Ok(mut packet) = Ipv4Packet::new_checked(&mut bytes[..]) else { return };
    packet.fill_checksum();
    let mtu = 68 + usize::from(packet.ident() % 1500);
    let Ok(packet) = ipv4::check(&bytes) else { return };
    let Some(pieces) = pearp::wire::fragments(&bytes, mtu) else { return };
    let (mut at, mut payload) = (packet.frag_offset(), Vec::new());
    for piece in pieces {
        assert!(piece.len() <= mtu);
        let piece = ipv4::check(&piece).expect("a valid fragment");
        assert_eq!(piece.frag_offset(), at);
        at = at.wrapping_add(piece.payload().len() as u16);
        payload.extend_from_slice(piece.payload());
    }
    assert_eq!(payload, packet.payload());
}

/// A DHCP server beside a router, with one lease, under a sequence of steps.
pub fn dhcpd(data: &[u8]) {
    let mut now = Instant::ZERO;
    let address = Ipv4Cidr::new(Ipv4Addr::from(ADDRESSES[1]), 24);
    let gateway = Some(Ipv4Addr::new(198, 51, 100, 254));
    let pools = "[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n\
                 [[whole]]\naddresses = \"198.51.100.10\"\n";
    let links = vec![ServerLink { link: 0, address, router: gateway }];
    let lease = Lease {
        client: "01:02:00:00:00:02:01".parse().expect("a valid identifier"),
        hardware: EthernetAddress(MACS[1]),
        ip: Ipv4Addr::from(ADDRESSES[0]),
        set: "0,4,1".parse().expect("a valid PSID"),
        state: LeaseState::Bound,
        until: Instant::from_secs(10),
        since: now,
        held_until: Instant::from_secs(10),
        host_name: None,
    };
    let server = Server::new(Config::parse(pools, links, 1).expect("valid pools"), [lease], now);
    let config = DhcpdConfig {
        lan: "lan".to_owned(),
        hardware: EthernetAddress(MACS[0]),
        address,
        gateway,
        pro: DEFAULT_PRO,
        seed: 1,
    };
    let mut dhcpd = Dhcpd::new(config, server, now);
    run(&mut dhcpd, data, &mut now, |dhcpd, _, port, now| {
        if !dhcpd.take_commits().is_empty() {
            // The disk fails now and then.
            dhcpd.committed(port != 0, now);
        }
    });
}

fn run<N: Node>(
    node: &mut N,
    data: &[u8],
    now: &mut Instant,
    connect: impl Fn(&mut N, [u8; 4], u16, Instant),
) {
    let media = node.links();
    for step in steps::<Step>(data) {
        match step {
            Step::Frame { link, source, destination, payload } => {
                let (ethertype, payload) = match &payload {
                    Payload::PeArp(message) => (0x0806, message.bytes()),
                    Payload::Arp(message) => (0x0806, message.bytes()),
                    Payload::Ip(packet) => (0x0800, packet.bytes(2)),
                    Payload::Raw { ethertype, bytes } => (*ethertype, bytes.clone()),
                };
                let mut bytes = [pick(&MACS, destination), pick(&MACS, source)].concat();
                bytes.extend(u16::to_be_bytes(ethertype));
                bytes.extend(payload);
                // A host has one Ethernet link only.
                let second = media.get(1).is_some_and(|(_, medium)| *medium == Medium::Ethernet);
                let link = usize::from(link && second);
                node.handle_frame(LinkId(link), &mut Frame::from_ethernet(&bytes), *now);
            }
            Step::Packet(packet) => {
                let bytes = packet.bytes(2);
                let (link, mut frame) = match media.len() {
                    // To a host that has no programs it comes from the router.
                    1 => (0, Frame::from_ethernet(&[&MACS[1][..], &MACS[0], &[8, 0], &bytes].concat())),
                    _ => (1, Frame::from_packet(&bytes)),
                };
                node.handle_frame(LinkId(link), &mut frame, *now);
            }
            Step::Bytes { link, bytes } => {
                let link = usize::from(link) % media.len();
                let mut frame = match media[link].1 {
                    Medium::Ethernet => Frame::from_ethernet(&bytes),
                    Medium::Ip => Frame::from_packet(&bytes),
                };
                node.handle_frame(LinkId(link), &mut frame, *now);
            }
            Step::Wait { millis } => advance(node, now, millis),
            Step::Connect { address, port } => connect(node, pick(&ADDRESSES, address), port.get(), *now),
        }
        while node.poll_transmit(*now).is_some() {}
        assert!(node.counters().is_balanced(), "{:?}", node.counters());
    }
}

/// Lets time pass, with every deadline on the way.
fn advance(node: &mut impl Node, now: &mut Instant, millis: u16) {
    let end = *now + Duration::from_millis(millis.into());
    while let Some(at) = node.poll_timeout(*now)
        && at <= end
    {
        *now = at.max(*now);
        node.handle_timeout(*now);
        while node.poll_transmit(*now).is_some() {}
        if let Some(next) = node.poll_timeout(*now) {
            assert!(next > *now, "the next deadline is later");
        }
    }
    *now = end;
}
