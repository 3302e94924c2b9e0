//! For the tests of nodes: packets as bytes, a bench that gives frames to a node and says all that came of it, and a
//! wire between two of them.

pub(super) mod dhcp;

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, Icmpv4Message, Icmpv4Packet, IpAddress, IpProtocol, Ipv4Packet, TcpPacket,
};

use super::{
    Counters, DropReason, EchoAnswer, EchoPort, Host, HostConfig, HostLinks, HostOptions, LeakPolicy, LinkId,
    Node, Role, Route, Router, RouterConfig, RouterLink, SetConfig, Verdict,
};
use crate::ports::{PortSet, Portless, Scheme};
use crate::wire::pe_arp::{Claim, DEFAULT_PRO, Lifetime, Message, Packet, PeAddress, Record};
use crate::wire::{Frame, ipv4, pe_arp_frame};

/// The router on the LAN.
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// A shared address of scheme (0, 4).
pub(super) const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// A shared address of scheme (6, 4).
pub(super) const SCATTERED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// A whole address on the LAN.
pub(super) const WHOLE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);
/// A host outside.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// The router outside.
pub(super) const OUTSIDE_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The next router outside; 10.0.0.0/8 is behind it.
pub(super) const UPSTREAM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// Behind [`UPSTREAM`].
pub(super) const FAR: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
/// A whole address on the second LAN.
pub(super) const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

pub(super) const ROUTER_MAC: EthernetAddress = mac(1);
pub(super) const SECOND_ROUTER_MAC: EthernetAddress = mac(2);
pub(super) const OUTSIDE_MAC: EthernetAddress = mac(3);
pub(super) const AUTHORITY: EthernetAddress = mac(5);
/// Owns PSID 1 of [`SHARED`]: 4096 to 8191.
pub(super) const A: EthernetAddress = mac(0xA);
/// Owns PSID 2 of [`SHARED`]: 8192 to 12287.
pub(super) const B: EthernetAddress = mac(0xB);
pub(super) const C: EthernetAddress = mac(0xC);
pub(super) const SERVER_MAC: EthernetAddress = mac(0x80);

/// Links of [`host`].
pub(super) use super::host::{LAN, TUN};
/// The other links of [`router`].
pub(super) const SECOND_LAN: LinkId = LinkId(1);
pub(super) const OUTSIDE: LinkId = LinkId(2);

const fn mac(last: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 0, last])
}

/// An IPv4 packet of TTL 64, with DF.
pub(super) fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ipv4::packet(from, to, IpProtocol::from(protocol), payload.len());
    bytes[20..].copy_from_slice(payload);
    bytes
}

/// The packet without DF: routers may cut it.
pub(super) fn without_df(packet: Vec<u8>) -> Vec<u8> {
    change(packet, |packet| packet.set_dont_frag(false))
}

/// One fragment of a packet: the bytes `part` of its payload.
pub(super) fn fragment(packet: &[u8], identification: u16, part: core::ops::Range<usize>) -> Vec<u8> {
    let more = part.end < packet.len() - 20;
    let header = [&packet[..20], &packet[20..][part.clone()]].concat();
    change(header, |packet| {
        packet.set_total_len(20 + part.len() as u16);
        packet.set_ident(identification);
        packet.set_dont_frag(false);
        packet.set_more_frags(more);
        packet.set_frag_offset(part.start as u16);
    })
}

/// The packet with its header changed and its header checksum right.
pub(super) fn change(mut bytes: Vec<u8>, change: impl FnOnce(&mut Ipv4Packet<&mut [u8]>)) -> Vec<u8> {
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    change(&mut packet);
    packet.fill_checksum();
    bytes
}

pub(super) type Endpoint = (Ipv4Addr, u16);

pub(super) fn udp(from: Endpoint, to: Endpoint, data: &[u8]) -> Vec<u8> {
    ipv4::udp(from, to, data)
}

/// A SYN.
pub(super) fn tcp(from: Endpoint, to: Endpoint) -> Vec<u8> {
    segment(from, to, |packet| packet.set_syn(true), b"")
}

/// A TCP segment whose numbers and flags the caller sets.
pub(super) fn segment(
    from: Endpoint,
    to: Endpoint,
    set: impl FnOnce(&mut TcpPacket<&mut [u8]>),
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = [&[0; 20][..], data].concat();
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_src_port(from.1);
    packet.set_dst_port(to.1);
    packet.set_header_len(20);
    packet.set_window_len(1000);
    set(&mut packet);
    packet.fill_checksum(&IpAddress::Ipv4(from.0), &IpAddress::Ipv4(to.0));
    ip(from.0, to.0, 6, &bytes)
}

/// A packet without ports.
pub(super) fn gre(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    ip(from, to, 47, &[0; 8])
}

fn echo(message: Icmpv4Message, from: Ipv4Addr, to: Ipv4Addr, identifier: u16) -> Vec<u8> {
    let mut bytes = *b"\0\0\0\0\0\0\0\0abcdefgh";
    let mut icmp = Icmpv4Packet::new_unchecked(&mut bytes[..]);
    icmp.set_msg_type(message);
    icmp.set_echo_ident(identifier);
    icmp.set_echo_seq_no(3);
    icmp.fill_checksum();
    ip(from, to, 1, &bytes)
}

pub(super) fn echo_request(from: Ipv4Addr, to: Ipv4Addr, identifier: u16) -> Vec<u8> {
    echo(Icmpv4Message::EchoRequest, from, to, identifier)
}

pub(super) fn echo_reply(from: Ipv4Addr, to: Ipv4Addr, identifier: u16) -> Vec<u8> {
    echo(Icmpv4Message::EchoReply, from, to, identifier)
}

/// An ICMP error of `kind` and `code` that embeds `about`.
pub(super) fn icmp_error(from: Ipv4Addr, to: Ipv4Addr, (kind, code): (u8, u8), about: &[u8]) -> Vec<u8> {
    let mut bytes = [&[kind, code, 0, 0, 0, 0, 0, 0][..], about].concat();
    Icmpv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
    ip(from, to, 1, &bytes)
}

/// The frame that carries a packet, padded to the minimum with what is not zero.
pub(super) fn ethernet(source: EthernetAddress, destination: EthernetAddress, packet: &[u8]) -> Frame {
    let mut bytes = [&destination.0[..], &source.0, &[8, 0], packet].concat();
    bytes.resize(bytes.len().max(60), 0xEE);
    Frame::from_ethernet(&bytes)
}

/// The packet in a frame that came out of a node.
pub(super) fn packet_of(frame: &Frame) -> &[u8] {
    let ethernet = EthernetFrame::new_checked(frame.bytes()).unwrap();
    let payload = ethernet.payload();
    let packet = Ipv4Packet::new_checked(payload).unwrap();
    assert!(packet.verify_checksum());
    &payload[..usize::from(packet.total_len())]
}

/// The Ethernet source and destination of a frame.
pub(super) fn addresses(frame: &Frame) -> (EthernetAddress, EthernetAddress) {
    let ethernet = EthernetFrame::new_checked(frame.bytes()).unwrap();
    (ethernet.src_addr(), ethernet.dst_addr())
}

/// An ICMP message as addresses, type, code, second half of the unused word, and what it embeds. Both checksums
/// have been verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Icmp<'a> {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) kind: (u8, u8),
    pub(super) word: u16,
    pub(super) data: &'a [u8],
}

pub(super) fn icmp_of(packet: &[u8]) -> Icmp<'_> {
    let packet = Ipv4Packet::new_checked(packet).unwrap();
    assert!(packet.verify_checksum());
    assert_eq!((packet.next_header(), packet.hop_limit()), (IpProtocol::Icmp, 64));
    let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    assert!(icmp.verify_checksum());
    Icmp {
        from: packet.src_addr(),
        to: packet.dst_addr(),
        kind: (icmp.msg_type().into(), icmp.msg_code()),
        word: icmp.echo_seq_no(),
        data: icmp.data(),
    }
}

/// The identifier of the echo message in a packet whose checksums are right.
pub(super) fn identifier_of(packet: &[u8]) -> u16 {
    let packet = Ipv4Packet::new_checked(packet).unwrap();
    let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    assert!(icmp.verify_checksum());
    icmp.echo_ident()
}

pub(super) fn record(claim: Claim) -> Record {
    Record::new(claim, Lifetime::Unknown)
}

pub(super) fn psid(text: &str) -> Record {
    record(Claim::Psid(text.parse().unwrap()))
}

pub(super) const FULL: Record = Record::new(Claim::Full, Lifetime::Unknown);

pub(super) fn shared(ip: Ipv4Addr) -> PeAddress {
    PeAddress { shared: true, ..PeAddress::new(ip) }
}

/// An owner says what it owns: the receiver has a binding, in STALE.
pub(super) fn announce(owner: EthernetAddress, ip: Ipv4Addr, owned: Record) -> Frame {
    let address = if owned == FULL { PeAddress::new(ip) } else { shared(ip) };
    let first = match owned.claim {
        Claim::Psid(psid) => psid.first(),
        _ => 0,
    };
    let message = Message::announce(owner, address.with_port(0, Some(first)), &[owned]);
    pe_arp_frame(EthernetAddress::BROADCAST, &message, DEFAULT_PRO)
}

/// The PE-ARP message in a frame, if it is one.
pub(super) fn message_of(frame: &Frame) -> Option<Message> {
    let payload = frame.bytes().get(14..)?;
    Message::parse(&Packet::new_checked(payload, DEFAULT_PRO).ok()?).ok()
}

/// The answer of `owner` to a RESOLVE in `frame`.
pub(super) fn reply(owner: EthernetAddress, question: &Frame, owned: Record) -> Frame {
    let question = message_of(question).unwrap();
    let asked = if owned == FULL { PeAddress::new(question.target.ip) } else { shared(question.target.ip) };
    let asked = asked.with_port(question.target.protocol, question.target.port);
    let message = Message::reply(owner, asked, question.sender_hardware, question.sender, &[owned]);
    pe_arp_frame(question.sender_hardware, &message, DEFAULT_PRO)
}

/// All that came of one step.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    /// The frame that was given, as the node left it.
    pub(super) frame: Frame,
    /// What the node sends by itself.
    pub(super) sent: Vec<(LinkId, Frame)>,
    /// Every counter that changed, and by how much.
    pub(super) counted: BTreeMap<&'static str, i64>,
}

impl Outcome {
    /// The frame ended like this, with these changes of counters beside `received`, and nothing else changed.
    #[track_caller]
    pub(super) fn is(&self, verdict: Verdict, counted: &[(&'static str, i64)]) {
        assert_eq!(self.verdict, verdict);
        let expected = counted.iter().copied().chain([("received", 1)]).collect();
        assert_eq!(self.counted, expected);
    }

    /// The frame was dropped for this reason, and nothing else happened.
    #[track_caller]
    pub(super) fn is_silent_drop(&self, reason: DropReason) {
        self.is(Verdict::Dropped(reason), &[(reason.name(), 1)]);
        assert!(self.sent.is_empty(), "{:?}", self.sent);
    }

    /// The frame left in place by this link, and nothing else happened.
    #[track_caller]
    pub(super) fn is_forwarded(&self, link: LinkId) {
        self.is(Verdict::Forward(link), &[("forwarded", 1)]);
        assert!(self.sent.is_empty(), "{:?}", self.sent);
    }

    /// The only packet that the node sent, by this link of IP packets.
    #[track_caller]
    pub(super) fn only_packet(&self, link: LinkId) -> &[u8] {
        let [(by, frame)] = &self.sent[..] else { panic!("{:?}", self.sent) };
        assert_eq!(*by, link);
        frame.bytes()
    }

    /// The only frame that the node sent, by this link.
    #[track_caller]
    pub(super) fn only_frame(&self, link: LinkId) -> &Frame {
        let [(by, frame)] = &self.sent[..] else { panic!("{:?}", self.sent) };
        assert_eq!(*by, link);
        frame
    }
}

fn all(counters: &Counters) -> BTreeMap<&'static str, i64> {
    let Counters { received, originated, delivered, forwarded, pending, mapped, arp_sent, arp_lost, .. } =
        *counters;
    let drops = counters.drops().map(|(reason, count)| (reason.name(), count));
    [
        ("received", received),
        ("originated", originated),
        ("delivered", delivered),
        ("forwarded", forwarded),
        ("pending", pending),
        ("arp_sent", arp_sent),
        ("mapped", mapped),
        ("arp_lost", arp_lost),
    ]
    .into_iter()
    .chain(drops)
    .map(|(name, count)| (name, count as i64))
    .collect()
}

/// A node and the time.
#[derive(Debug)]
pub(super) struct Bench<N> {
    pub(super) node: N,
    pub(super) now: Instant,
}

impl<N: Node> Bench<N> {
    /// Gives the node a frame.
    #[track_caller]
    pub(super) fn give(&mut self, link: LinkId, mut frame: Frame) -> Outcome {
        let mut verdict = None;
        let (sent, counted) = self.step(|node, now| verdict = Some(node.handle_frame(link, &mut frame, now)));
        Outcome { verdict: verdict.unwrap(), frame, sent, counted }
    }

    /// Lets the node do one thing: what it sends, and what it counts.
    #[track_caller]
    pub(super) fn step(
        &mut self,
        act: impl FnOnce(&mut N, Instant),
    ) -> (Vec<(LinkId, Frame)>, BTreeMap<&'static str, i64>) {
        let before = all(self.node.counters());
        act(&mut self.node, self.now);
        let sent = core::iter::from_fn(|| self.node.poll_transmit(self.now)).collect();
        assert!(self.node.counters().is_balanced(), "{:?}", self.node.counters());
        let mut counted = all(self.node.counters());
        for (name, count) in before {
            *counted.entry(name).or_default() -= count;
        }
        counted.retain(|_, count| *count != 0);
        (sent, counted)
    }

    /// Lets time pass, with every timer at its time.
    #[track_caller]
    pub(super) fn pass(&mut self, time: Duration) -> (Vec<(LinkId, Frame)>, BTreeMap<&'static str, i64>) {
        let end = self.now + time;
        let (mut sent, mut counted) = (Vec::new(), BTreeMap::new());
        loop {
            let due = self.node.poll_timeout(self.now).filter(|at| *at <= end);
            self.now = due.unwrap_or(end).max(self.now);
            let (more, changes) = self.step(|node, now| node.handle_timeout(now));
            let next = self.node.poll_timeout(self.now);
            assert!(next.is_none_or(|next| next > self.now), "a deadline that stays due");
            sent.extend(more);
            for (name, count) in changes {
                *counted.entry(name).or_default() += count;
            }
            if due.is_none() {
                counted.retain(|_, count| *count != 0);
                return (sent, counted);
            }
        }
    }
}

pub(crate) fn host_config(hardware: EthernetAddress, set: &str) -> HostConfig {
    HostConfig {
        options: HostOptions {
            links: HostLinks { lan: "lan".to_owned(), tun: "tun".to_owned() },
            hardware,
            stack_ports: None,
            echo: EchoPort::Lowest,
            leaks: LeakPolicy::Reject,
            authorities: vec![AUTHORITY],
            mtu: 1500,
            pro: DEFAULT_PRO,
            seed: u64::from(hardware.0[5]),
        },
        first: SetConfig {
            address: "198.51.100.2/24".parse().unwrap(),
            gateway: Some(ROUTER),
            set: set.parse::<crate::ports::Psid>().map_or_else(|_| set.parse().unwrap(), PortSet::Psid),
            portless: Portless::default(),
            lease: None,
        },
    }
}

/// A host that holds its set and has said so.
pub(super) fn host_with(config: HostConfig) -> Bench<Host> {
    let now = Instant::from_secs(1);
    let mut bench = Bench { node: Host::new(config, now).unwrap(), now };
    bench.pass(Duration::from_secs(5));
    assert!(bench.node.phase().holds());
    bench
}

/// A host that shares [`SHARED`]: programs have 4096 to 7679, its stack has the rest.
pub(super) fn host() -> Bench<Host> {
    host_with(host_config(A, "0,4,1"))
}

/// The same, and it knows its gateway.
pub(super) fn host_with_gateway() -> Bench<Host> {
    let mut bench = host();
    bench.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    bench
}

pub(super) fn router_config() -> RouterConfig {
    let link = |name: &str, role, hardware, address: &str| RouterLink {
        name: name.to_owned(),
        role,
        hardware,
        address: address.parse().unwrap(),
        mtu: 1500,
    };
    RouterConfig {
        links: vec![
            link("lan", Role::Lan, ROUTER_MAC, "198.51.100.1/24"),
            link("second", Role::Lan, SECOND_ROUTER_MAC, "192.0.2.1/24"),
            link("outside", Role::Outside, OUTSIDE_MAC, "203.0.113.1/24"),
        ],
        shared: vec![(SHARED, Scheme::new(0, 4).unwrap()), (SCATTERED, Scheme::new(6, 4).unwrap())],
        authority: false,
        echo: EchoAnswer::Router,
        routes: vec![Route { prefix: "10.0.0.0/8".parse().unwrap(), gateway: UPSTREAM }],
        pro: DEFAULT_PRO,
        seed: 7,
    }
}

/// A router that knows nobody and whose first questions have been dealt with.
pub(super) fn router() -> Bench<Router> {
    let now = Instant::from_secs(1);
    let mut bench = Bench { node: Router::new(router_config(), now), now };
    bench.pass(Duration::from_secs(5));
    bench
}

/// A router that knows A and B, the whole addresses on its LANs, and the server outside.
pub(super) fn router_with_neighbors() -> Bench<Router> {
    let mut bench = router();
    bench.give(LAN, announce(A, SHARED, psid("0,4,1")));
    bench.give(LAN, announce(B, SHARED, psid("0,4,2")));
    bench.give(LAN, announce(C, WHOLE, FULL));
    bench.give(SECOND_LAN, announce(C, SECOND, FULL));
    for (ip, hardware) in [(SERVER, SERVER_MAC), (UPSTREAM, C)] {
        bench.give(OUTSIDE, plain_arp(1, (hardware, ip), (EthernetAddress([0; 6]), OUTSIDE_ROUTER)));
    }
    bench
}

/// A plain ARP message, broadcast where it is a request.
pub(super) fn plain_arp(
    operation: u16,
    (hardware, sender): (EthernetAddress, Ipv4Addr),
    (to, target): (EthernetAddress, Ipv4Addr),
) -> Frame {
    let message = smoltcp::wire::ArpRepr::EthernetIpv4 {
        operation: operation.into(),
        source_hardware_addr: hardware,
        source_protocol_addr: sender,
        target_hardware_addr: to,
        target_protocol_addr: target,
    };
    let destination = if operation == 1 { EthernetAddress::BROADCAST } else { to };
    crate::wire::plain_arp(hardware, destination, &message)
}

/// Joins the LANs of two nodes for a time: what each sends there reaches the other after a millisecond. What they
/// sent elsewhere.
pub(super) fn join<M: Node, N: Node>(
    one: &mut Bench<M>,
    two: &mut Bench<N>,
    time: Duration,
) -> Vec<(LinkId, Frame)> {
    let start = one.now.max(two.now);
    let (mut to_one, mut to_two) = (Vec::new(), Vec::new());
    let mut elsewhere = Vec::new();
    let mut carry = |sent: Vec<(LinkId, Frame)>, other: &mut Vec<Frame>| {
        for (link, frame) in sent {
            if link == LAN {
                other.push(frame);
            } else {
                elsewhere.push((link, frame));
            }
        }
    };
    for millis in 0..=time.total_millis() {
        (one.now, two.now) = (start + Duration::from_millis(millis), start + Duration::from_millis(millis));
        for frame in core::mem::take(&mut to_one) {
            carry(give_on(one, frame), &mut to_two);
        }
        for frame in core::mem::take(&mut to_two) {
            carry(give_on(two, frame), &mut to_one);
        }
        let due = |node: &mut dyn Node, now| node.poll_timeout(now).is_some_and(|at| at <= now);
        if due(&mut one.node, one.now) {
            carry(one.step(|node, now| node.handle_timeout(now)).0, &mut to_two);
        }
        if due(&mut two.node, two.now) {
            carry(two.step(|node, now| node.handle_timeout(now)).0, &mut to_one);
        }
        carry(one.step(|_, _| {}).0, &mut to_two);
        carry(two.step(|_, _| {}).0, &mut to_one);
    }
    elsewhere
}

/// Gives a node a frame from the LAN: what it sends, what it forwarded first.
pub(super) fn give_on<N: Node>(bench: &mut Bench<N>, frame: Frame) -> Vec<(LinkId, Frame)> {
    let outcome = bench.give(LAN, frame);
    let mut sent = outcome.sent;
    if let Verdict::Forward(link) = outcome.verdict {
        sent.insert(0, (link, outcome.frame));
    }
    sent
}
