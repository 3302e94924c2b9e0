//! ICMP messages that a node originates (RFC 792, RFC 1122 §3.2.2, RFC 1812 §4.3).

use core::net::Ipv4Addr;

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Packet};

use super::ipv4;

/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;

/// The longest ICMP error, in bytes with its IP header (RFC 1812 §4.3.2.3).
const MAX_ERROR: usize = 576;

/// The errors that nodes originate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No route to the destination network.
    NetUnreachable,
    /// The next hop or the owner of the port does not answer.
    HostUnreachable,
    /// Nothing listens on the port.
    PortUnreachable,
    /// The packet is too large for the next link and must not be fragmented; the link's MTU in bytes.
    TooBig(u16),
    /// Forbidden by the host's port set.
    AdminProhibited,
    /// The TTL ran out.
    TimeExceeded,
}

impl Error {
    const fn message(self) -> (Icmpv4Message, u8, u16) {
        match self {
            Self::NetUnreachable => (Icmpv4Message::DstUnreachable, 0, 0),
            Self::HostUnreachable => (Icmpv4Message::DstUnreachable, 1, 0),
            Self::PortUnreachable => (Icmpv4Message::DstUnreachable, 3, 0),
            Self::TooBig(mtu) => (Icmpv4Message::DstUnreachable, 4, mtu),
            Self::AdminProhibited => (Icmpv4Message::DstUnreachable, 13, 0),
            Self::TimeExceeded => (Icmpv4Message::TimeExceeded, 0, 0),
        }
    }
}

/// Whether an ICMP message type is an error, which embeds a packet.
pub fn is_error(message: Icmpv4Message) -> bool {
    use Icmpv4Message::{DstUnreachable, ParamProblem, Redirect, TimeExceeded};
    matches!(message, DstUnreachable | TimeExceeded | ParamProblem | Redirect) || u8::from(message) == 4
}

/// An IP packet with the ICMP error that answers `original`, or `None` where none may be sent: for an ICMP error,
/// a later fragment, or a source or destination that is not one host (RFC 1122 §3.2.2).
pub fn error_for(original: &[u8], source: Ipv4Addr, error: Error) -> Option<Vec<u8>> {
    let packet = Ipv4Packet::new_checked(original).ok()?;
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    if packet.frag_offset() != 0 || to.is_broadcast() || to.is_multicast() || !is_host(from) {
        return None;
    }
    if packet.next_header() == IpProtocol::Icmp {
        let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
        if is_error(icmp.msg_type()) {
            return None;
        }
    }
    let embedded = &original[..usize::from(packet.total_len()).min(MAX_ERROR - 20 - ICMP_HEADER)];
    let (message, code, mtu) = error.message();
    Some(build(source, from, ICMP_HEADER + embedded.len(), |icmp| {
        icmp.set_msg_type(message);
        icmp.set_msg_code(code);
        let bytes = icmp.data_mut();
        bytes[..embedded.len()].copy_from_slice(embedded);
        // The next-hop MTU is in the second half of the unused word (RFC 1191 §4).
        icmp.set_echo_seq_no(mtu);
    }))
}

/// An IP packet with the reply to the echo request in `request`, or `None` where it is none or is damaged.
pub fn echo_reply(request: &[u8]) -> Option<Vec<u8>> {
    let packet = Ipv4Packet::new_checked(request).ok()?;
    let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
    let whole = packet.frag_offset() == 0 && !packet.more_frags();
    if !whole || icmp.msg_type() != Icmpv4Message::EchoRequest || !icmp.verify_checksum() {
        return None;
    }
    let (asker, asked) = (packet.src_addr(), packet.dst_addr());
    if !is_host(asker) {
        return None;
    }
    let mut bytes = build(asked, asker, packet.payload().len(), |reply| {
        reply.set_msg_type(Icmpv4Message::EchoReply);
        reply.set_msg_code(0);
        reply.set_echo_ident(icmp.echo_ident());
        reply.set_echo_seq_no(icmp.echo_seq_no());
        reply.data_mut().copy_from_slice(icmp.data());
    });
    // RFC 1812 §4.3.2.5, RFC 1122 §3.2.2.6: it is as urgent.
    let mut reply = Ipv4Packet::new_unchecked(&mut bytes[..]);
    reply.set_dscp(packet.dscp());
    reply.fill_checksum();
    Some(bytes)
}

/// Whether an address can be one host's: what RFC 1812 §5.3.7 lets a source be.
pub fn is_host(address: Ipv4Addr) -> bool {
    !(address.octets()[0] == 0
        || address.is_loopback()
        || address.is_multicast()
        || address.octets()[0] >= 240)
}

fn build(
    source: Ipv4Addr,
    to: Ipv4Addr,
    len: usize,
    write: impl FnOnce(&mut Icmpv4Packet<&mut [u8]>),
) -> Vec<u8> {
    let mut bytes = ipv4::packet(source, to, IpProtocol::Icmp, len);
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    let mut icmp = Icmpv4Packet::new_unchecked(packet.payload_mut());
    write(&mut icmp);
    icmp.fill_checksum();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const THEM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

    fn echo_request() -> Vec<u8> {
        build(THEM, US, 64, |icmp| {
            icmp.set_msg_type(Icmpv4Message::EchoRequest);
            icmp.set_echo_ident(77);
            icmp.set_echo_seq_no(3);
            icmp.data_mut().fill(0x5A);
        })
    }

    #[test]
    fn echo_is_answered_with_the_same_data() {
        let reply = echo_reply(&echo_request()).unwrap();
        let packet = ipv4::check(&reply).unwrap();
        assert_eq!((packet.src_addr(), packet.dst_addr()), (US, THEM));
        let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert_eq!((icmp.echo_ident(), icmp.echo_seq_no(), icmp.data()[0]), (77, 3, 0x5A));
        assert!(icmp.verify_checksum());
        assert_eq!(echo_reply(&reply), None, "a reply is not answered");
        let mut damaged = echo_request();
        damaged[40] ^= 1;
        assert_eq!(echo_reply(&damaged), None);
    }

    #[test]
    fn an_error_embeds_the_packet_and_is_never_answered() {
        let error = error_for(&echo_request(), US, Error::TooBig(1400)).unwrap();
        let packet = ipv4::check(&error).unwrap();
        let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert_eq!((u8::from(icmp.msg_type()), icmp.msg_code(), icmp.echo_seq_no()), (3, 4, 1400));
        assert!(icmp.verify_checksum());
        assert_eq!(icmp.data(), echo_request());
        assert_eq!(error_for(&error, THEM, Error::HostUnreachable), None);
    }

    #[test]
    fn no_error_for_what_is_not_one_host() {
        for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            let mut packet = echo_request();
            packet[12..16].copy_from_slice(&source);
            assert_eq!(error_for(&packet, US, Error::TimeExceeded), None, "{source:?}");
        }
        let mut fragment = echo_request();
        fragment[7] = 1;
        assert_eq!(error_for(&fragment, US, Error::TimeExceeded), None);
    }
}
