//! Packets and frames as bytes, made without the code under test, but for the PE-ARP messages, which `vectors` pins
//! byte for byte.

use std::net::Ipv4Addr;

use pearp::wire::pe_arp::{Claim, DEFAULT_PRO, Lifetime, Message, PeAddress, Record};
use pearp::wire::{EthernetAddress, Ipv4Packet, pe_arp_frame};
use smoltcp::wire::{Icmpv4Packet, IpAddress, TcpPacket, UdpPacket};

use crate::topology::{EVERYBODY, H1, NO_MAC, OUTSIDE_MAC, ROUTER, ROUTER_MAC, SERVER_MAC, SHARED};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Shortest Ethernet frame without its check sequence (IEEE 802.3).
const MIN_FRAME: usize = 60;
/// The longest ICMP error with its IP header (RFC 1812 §4.3.2.3).
const MAX_ERROR: usize = 576;

/// Address and port.
pub(crate) type End = (Ipv4Addr, u16);

/// An IPv4 packet of others: TTL 64, DSCP 10, an identification, DF.
pub(crate) fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip_with_options(from, to, protocol, &[], payload)
}

/// The same with options, whose length is a multiple of 4.
pub(crate) fn ip_with_options(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let length = u16::try_from(header + payload.len()).unwrap();
    let mut bytes = vec![0x40 | (header / 4) as u8, 0x28];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0x1A, 0x2B, 0x40, 0, 64, protocol, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(options);
    bytes.extend(payload);
    with(bytes, |_| {})
}

/// An IPv4 packet that a node makes itself: TTL 64, no DSCP, no identification, DF.
fn own_ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ip(from, to, protocol, payload);
    (bytes[1], bytes[4], bytes[5]) = (0, 0, 0);
    with(bytes, |_| {})
}

/// The packet with its header changed and its header checksum right.
pub(crate) fn with(mut bytes: Vec<u8>, change: impl FnOnce(&mut Ipv4Packet<&mut [u8]>)) -> Vec<u8> {
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    change(&mut packet);
    packet.fill_checksum();
    bytes
}

/// With another TTL.
pub(crate) fn ttl(bytes: &[u8], ttl: u8) -> Vec<u8> {
    with(bytes.to_vec(), |packet| packet.set_hop_limit(ttl))
}

/// Without DF.
pub(crate) fn without_df(bytes: Vec<u8>) -> Vec<u8> {
    with(bytes, |packet| packet.set_dont_frag(false))
}

/// What a router makes of a packet: one hop less, every other byte as it was (PE-ARP rule 81).
pub(crate) fn forwarded(bytes: &[u8]) -> Vec<u8> {
    with(bytes.to_vec(), |packet| packet.set_hop_limit(packet.hop_limit() - 1))
}

/// The bytes with others from `at` on, and no checksum corrected.
pub(crate) fn patched(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..][..with.len()].copy_from_slice(with);
    bytes
}

/// A UDP packet with 24 bytes of data.
pub(crate) fn udp(from: End, to: End) -> Vec<u8> {
    udp_with(from, to, b"golden capture, 24 bytes")
}

pub(crate) fn udp_with(from: End, to: End, data: &[u8]) -> Vec<u8> {
    ip(from.0, to.0, UDP, &udp_payload(from, to, data))
}

/// A UDP packet of this many bytes, with its IP header.
pub(crate) fn udp_of(from: End, to: End, len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..len - 28).map(|n| n as u8).collect();
    udp_with(from, to, &data)
}

/// A UDP packet that a node makes itself.
pub(crate) fn own_udp(from: End, to: End, data: &[u8]) -> Vec<u8> {
    own_ip(from.0, to.0, UDP, &udp_payload(from, to, data))
}

fn udp_payload(from: End, to: End, data: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; 8][..], data].concat();
    let len = bytes.len() as u16;
    let mut packet = UdpPacket::new_unchecked(&mut bytes[..]);
    packet.set_src_port(from.1);
    packet.set_dst_port(to.1);
    packet.set_len(len);
    packet.fill_checksum(&IpAddress::Ipv4(from.0), &IpAddress::Ipv4(to.0));
    bytes
}

/// A SYN with the options that Linux sends.
pub(crate) fn tcp(from: End, to: End) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes.extend([2, 4, 5, 0xB4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_header_len(40);
    packet.set_seq_number(smoltcp::wire::TcpSeqNumber(0x1234_5678));
    packet.set_syn(true);
    packet.set_window_len(64_240);
    tcp_of(bytes, from, to, ip)
}

/// The RST with which a node's own stack refuses that SYN (RFC 9293 §3.5.2).
pub(crate) fn reset(from: End, to: End) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_header_len(20);
    packet.set_ack_number(smoltcp::wire::TcpSeqNumber(0x1234_5679));
    packet.set_rst(true);
    packet.set_ack(true);
    tcp_of(bytes, from, to, own_ip)
}

fn tcp_of(
    mut bytes: Vec<u8>,
    from: End,
    to: End,
    around: fn(Ipv4Addr, Ipv4Addr, u8, &[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_src_port(from.1);
    packet.set_dst_port(to.1);
    packet.fill_checksum(&IpAddress::Ipv4(from.0), &IpAddress::Ipv4(to.0));
    around(from.0, to.0, TCP, &bytes)
}

/// ICMP with both checksums right: type, code, the four bytes after the checksum, and the rest.
fn icmp_payload((kind, code): (u8, u8), word: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = [&[kind, code, 0, 0][..], &word, data].concat();
    Icmpv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
    bytes
}

/// Any ICMP message of others.
pub(crate) fn icmp(from: Ipv4Addr, to: Ipv4Addr, kind: (u8, u8), word: [u8; 4], data: &[u8]) -> Vec<u8> {
    ip(from, to, ICMP, &icmp_payload(kind, word, data))
}

const PING: &[u8] = b"golden capture: 32 bytes of data";

fn echo_word(identifier: u16) -> [u8; 4] {
    let [high, low] = identifier.to_be_bytes();
    [high, low, 0, 3]
}

/// An echo request with 32 bytes of data and sequence number 3; no DSCP, which the reply should have, too (RFC 1812
/// §4.3.2.5).
pub(crate) fn echo_request(from: Ipv4Addr, to: Ipv4Addr, identifier: u16) -> Vec<u8> {
    with(icmp(from, to, (8, 0), echo_word(identifier), PING), |packet| packet.set_dscp(0))
}

/// The reply to it.
pub(crate) fn echo_reply(from: Ipv4Addr, to: Ipv4Addr, identifier: u16) -> Vec<u8> {
    icmp(from, to, (0, 0), echo_word(identifier), PING)
}

/// The reply to it that a node makes itself.
pub(crate) fn own_echo_reply(from: Ipv4Addr, to: Ipv4Addr, identifier: u16) -> Vec<u8> {
    own_ip(from, to, ICMP, &icmp_payload((0, 0), echo_word(identifier), PING))
}

/// An ICMP error of others that embeds all of `about`.
pub(crate) fn icmp_error(from: Ipv4Addr, to: Ipv4Addr, kind: (u8, u8), about: &[u8]) -> Vec<u8> {
    icmp(from, to, kind, [0; 4], about)
}

/// The ICMP error that a node at `from` sends to the source of `about`.
pub(crate) fn own_error(from: Ipv4Addr, kind: (u8, u8), about: &[u8]) -> Vec<u8> {
    own_error_with(from, kind, 0, about)
}

/// The same with the second half of the unused word: the MTU of the next link (RFC 1191 §4).
pub(crate) fn own_error_with(from: Ipv4Addr, kind: (u8, u8), word: u16, about: &[u8]) -> Vec<u8> {
    let packet = Ipv4Packet::new_unchecked(about);
    let embedded = &about[..usize::from(packet.total_len()).min(MAX_ERROR - 28)];
    let [high, low] = word.to_be_bytes();
    own_ip(from, packet.src_addr(), ICMP, &icmp_payload(kind, [0, 0, high, low], embedded))
}

/// The ICMP error about a packet whose next hop was looked for when the TTL had been lowered: RFC 1812 §4.3.2.3 lets
/// that stay so.
pub(crate) fn own_error_late(from: Ipv4Addr, kind: (u8, u8), about: &[u8]) -> Vec<u8> {
    own_error(from, kind, &forwarded(about))
}

/// An Ethernet frame with an IPv4 packet, padded with zeros.
pub(crate) fn frame(source: EthernetAddress, destination: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    let mut bytes = bare(source, destination, packet);
    bytes.resize(bytes.len().max(MIN_FRAME), 0);
    bytes
}

/// The same without padding.
pub(crate) fn bare(source: EthernetAddress, destination: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    [&destination.0[..], &source.0, &[8, 0], packet].concat()
}

/// A frame on the outside, from the server to the router.
pub(crate) fn from_server(packet: &[u8]) -> Vec<u8> {
    frame(SERVER_MAC, OUTSIDE_MAC, packet)
}

/// A frame on the outside, from the router to the server.
pub(crate) fn to_server(packet: &[u8]) -> Vec<u8> {
    frame(OUTSIDE_MAC, SERVER_MAC, packet)
}

/// A frame on the LAN, from a host to the router.
pub(crate) fn from_host(host: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    frame(host, ROUTER_MAC, packet)
}

/// A frame on the LAN, from the router to a host.
pub(crate) fn to_host(host: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    frame(ROUTER_MAC, host, packet)
}

/// A plain ARP message as RFC 826 has it.
pub(crate) fn plain_arp(
    operation: u8,
    destination: EthernetAddress,
    (hardware, sender): (EthernetAddress, Ipv4Addr),
    (to, target): (EthernetAddress, Ipv4Addr),
) -> Vec<u8> {
    let mut bytes = [&destination.0[..], &hardware.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    bytes.extend(hardware.0);
    bytes.extend(sender.octets());
    bytes.extend(to.0);
    bytes.extend(target.octets());
    bytes.resize(MIN_FRAME, 0);
    bytes
}

/// A plain request.
pub(crate) fn arp_request(sender: (EthernetAddress, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    plain_arp(1, EVERYBODY, sender, (NO_MAC, target))
}

/// A plain reply.
pub(crate) fn arp_reply(sender: (EthernetAddress, Ipv4Addr), to: (EthernetAddress, Ipv4Addr)) -> Vec<u8> {
    plain_arp(2, to.0, sender, to)
}

pub(crate) const FULL: Record = Record::new(Claim::Full, Lifetime::Unknown);

pub(crate) fn psid(text: &str) -> Record {
    Record::new(Claim::Psid(text.parse().unwrap()), Lifetime::Unknown)
}

pub(crate) fn shared(ip: Ipv4Addr) -> PeAddress {
    PeAddress { shared: true, ..PeAddress::new(ip) }
}

/// The router's own PE address.
pub(crate) const ROUTER_PE: PeAddress = PeAddress { router: true, ..PeAddress::new(ROUTER) };

/// The frame of a PE-ARP message.
pub(crate) fn pe(destination: EthernetAddress, message: &Message) -> Vec<u8> {
    pe_arp_frame(destination, message, DEFAULT_PRO).bytes().to_vec()
}

/// ANNOUNCE of one record; a whole address is not shared, and the router's own has its flag.
pub(crate) fn announce(owner: EthernetAddress, ip: Ipv4Addr, owned: Record) -> Vec<u8> {
    pe(EVERYBODY, &Message::announce(owner, first_of(ip, owned), &[owned]))
}

/// The address with the first port of what is owned of it.
pub(crate) fn first_of(ip: Ipv4Addr, owned: Record) -> PeAddress {
    let address = if owned.claim == Claim::Full {
        PeAddress { router: ip == ROUTER, ..PeAddress::new(ip) }
    } else {
        shared(ip)
    };
    let first = match owned.claim {
        Claim::Psid(psid) => Some(psid.first()),
        Claim::Range(range) => Some(range.first()),
        Claim::Full => Some(0),
        Claim::Portless(_) => None,
    };
    address.with_port(0, first)
}

/// The router's RESOLVE for a port of a shared address, to all.
pub(crate) fn router_asks(ip: Ipv4Addr, protocol: u8, port: Option<u16>) -> Vec<u8> {
    router_asks_one(EVERYBODY, shared(ip).with_port(protocol, port))
}

/// The router's RESOLVE to one neighbor, or to all.
pub(crate) fn router_asks_one(to: EthernetAddress, target: PeAddress) -> Vec<u8> {
    pe(to, &Message::resolve(ROUTER_MAC, ROUTER_PE, target, &[FULL]))
}

/// A sharer's REPLY to the router's question.
pub(crate) fn answers(
    owner: EthernetAddress,
    (ip, protocol, port): (Ipv4Addr, u8, u16),
    owned: Record,
) -> Vec<u8> {
    let asked = shared(ip).with_port(protocol, Some(port));
    pe(ROUTER_MAC, &Message::reply(owner, asked, ROUTER_MAC, ROUTER_PE, &[owned]))
}

/// The RESOLVE of h1 with its set of 198.51.100.2.
pub(crate) fn h1_asks(to: EthernetAddress, target: PeAddress) -> Vec<u8> {
    pe(to, &Message::resolve(H1, shared(SHARED), target, &[psid("0,4,1")]))
}
