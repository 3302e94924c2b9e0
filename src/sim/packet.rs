//! The packets of programs: each carries a number by which it is known wherever it turns up.

use core::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, UdpPacket};

use crate::wire::icmp::is_error;
use crate::wire::ipv4;

/// Tells payloads of the simulation from others.
const MAGIC: [u8; 8] = *b"PE-ARPno";
/// Bytes of a payload: the magic, the number, the number again with all bits inverted.
const PAYLOAD: usize = 24;
/// Bytes of an IPv4 header without options.
const IP_HEADER: usize = 20;
/// Bytes of a UDP header, and of an ICMP header.
const TRANSPORT_HEADER: usize = 8;

/// The number of a datagram.
pub(super) type Number = u64;

/// One end of a datagram's way.
pub(super) type Endpoint = (Ipv4Addr, u16);

/// What a packet of the simulation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// UDP.
    Datagram { number: Number, from: Endpoint, to: Endpoint },
    /// ICMP echo request.
    EchoRequest(Number),
    /// ICMP echo reply.
    EchoReply(Number),
    /// An ICMP error about a packet of that number and source; port 0 is an echo request's, `None` an echo reply's.
    Error { number: Number, from: (Ipv4Addr, Option<u16>) },
}

fn payload(number: Number) -> [u8; PAYLOAD] {
    let mut bytes = [0; PAYLOAD];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&number.to_be_bytes());
    bytes[16..].copy_from_slice(&(!number).to_be_bytes());
    bytes
}

fn number_of(payload: &[u8]) -> Option<Number> {
    let payload: &[u8; PAYLOAD] = payload.get(..PAYLOAD)?.try_into().ok()?;
    let (magic, rest) = payload.split_at(8);
    let number = Number::from_be_bytes(*rest.first_chunk()?);
    (magic == MAGIC && rest[8..] == (!number).to_be_bytes()).then_some(number)
}

/// A datagram.
pub(super) fn udp(from: Endpoint, to: Endpoint, number: Number) -> Vec<u8> {
    ipv4::udp(from, to, &payload(number))
}

/// An echo request.
pub(super) fn ping(from: Ipv4Addr, to: Ipv4Addr, identifier: u16, number: Number) -> Vec<u8> {
    let data = payload(number);
    // The low bits, as `ping` counts.
    let request = Icmpv4Repr::EchoRequest { ident: identifier, seq_no: number as u16, data: &data };
    let mut bytes = ipv4::packet(from, to, IpProtocol::Icmp, request.buffer_len());
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes[..]);
    request.emit(&mut Icmpv4Packet::new_unchecked(ip.payload_mut()), &ChecksumCapabilities::default());
    bytes
}

/// What a received packet is, or `None` where it is none of the simulation's.
pub(super) fn seen(bytes: &[u8]) -> Option<Seen> {
    let ip = Ipv4Packet::new_checked(bytes).ok()?;
    match ip.next_header() {
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(ip.payload()).ok()?;
            let intact = udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into());
            let number = number_of(udp.payload()).filter(|_| intact)?;
            let (from, to) = ((ip.src_addr(), udp.src_port()), (ip.dst_addr(), udp.dst_port()));
            Some(Seen::Datagram { number, from, to })
        }
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(ip.payload()).ok().filter(Icmpv4Packet::verify_checksum)?;
            match icmp.msg_type() {
                Icmpv4Message::EchoRequest => Some(Seen::EchoRequest(number_of(icmp.data())?)),
                Icmpv4Message::EchoReply => Some(Seen::EchoReply(number_of(icmp.data())?)),
                message if is_error(message) => seen_in_error(ip.payload()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The packet that an ICMP error embeds: those of the simulation fit in whole.
pub(super) fn embedded(error: &[u8]) -> Option<&[u8]> {
    error.get(IP_HEADER + TRANSPORT_HEADER..)
}

/// What an ICMP error is about.
fn seen_in_error(icmp: &[u8]) -> Option<Seen> {
    let embedded = Ipv4Packet::new_checked(icmp.get(TRANSPORT_HEADER..)?).ok()?;
    let (transport, payload) = embedded.payload().split_at_checked(TRANSPORT_HEADER)?;
    let port = match embedded.next_header() {
        IpProtocol::Udp => Some(UdpPacket::new_unchecked(transport).src_port()),
        _ => (Icmpv4Packet::new_unchecked(transport).msg_type() == Icmpv4Message::EchoRequest).then_some(0),
    };
    Some(Seen::Error { number: number_of(payload)?, from: (embedded.src_addr(), port) })
}

/// A packet as it was before routers changed what they may change (PE-ARP rule 81): its TTL, and with it the checksum.
pub(super) fn as_sent(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes[..]);
    ip.set_hop_limit(ipv4::TTL);
    ip.fill_checksum();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::icmp;

    const A: Endpoint = (Ipv4Addr::new(198, 51, 100, 2), 4096);
    const B: Endpoint = (Ipv4Addr::new(203, 0, 113, 80), 53);

    #[test]
    fn a_number_is_found_in_the_datagram_and_in_an_error_about_it() {
        let sent = udp(A, B, 77);
        assert_eq!(seen(&sent), Some(Seen::Datagram { number: 77, from: A, to: B }));
        let error = icmp::error_for(&sent, B.0, icmp::Error::HostUnreachable).unwrap();
        assert_eq!(seen(&error), Some(Seen::Error { number: 77, from: (A.0, Some(A.1)) }));
        let request = ping(A.0, B.0, 9, 78);
        assert_eq!(seen(&request), Some(Seen::EchoRequest(78)));
        let reply = icmp::echo_reply(&request).unwrap();
        assert_eq!(seen(&reply), Some(Seen::EchoReply(78)));
        let error = icmp::error_for(&reply, A.0, icmp::Error::HostUnreachable).unwrap();
        assert_eq!(seen(&error), Some(Seen::Error { number: 78, from: (B.0, None) }));
    }

    #[test]
    fn a_router_changes_nothing_that_counts() {
        let sent = udp(A, B, 1);
        let mut forwarded = sent.clone();
        ipv4::decrement_ttl(&mut Ipv4Packet::new_unchecked(&mut forwarded[..]));
        assert_eq!(as_sent(&forwarded), sent);
        forwarded[21] ^= 1;
        assert_ne!(as_sent(&forwarded), sent);
        assert_eq!(seen(&forwarded), None, "the checksum is wrong");
    }
}
