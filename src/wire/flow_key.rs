//! What names the owner of a packet (PE-ARP §11): ports, echo identifiers, or the packet that an ICMP error embeds.

use core::net::Ipv4Addr;

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Ipv4Packet};

use super::icmp::is_error;
use super::{ICMP, TCP, UDP};

/// What kind of packet the key was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// TCP or UDP: both ports.
    Transport,
    /// An ICMP echo request: the identifier is the sender's.
    EchoRequest,
    /// An ICMP echo reply: the identifier is the receiver's.
    EchoReply,
    /// An ICMP error: `destination` is the embedded source port, `source` the embedded destination port.
    IcmpError,
    /// Any other protocol or ICMP message: no ports.
    Portless,
}

/// Addresses, protocol and ports that decide where a packet goes and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// IP source address.
    pub source_address: Ipv4Addr,
    /// IP destination address.
    pub destination_address: Ipv4Addr,
    /// IP protocol; of the embedded packet in an ICMP error.
    pub protocol: u8,
    /// The port or identifier that must belong to the sender.
    pub source: Option<u16>,
    /// The port or identifier that names the receiver.
    pub destination: Option<u16>,
    /// Where both came from.
    pub kind: FlowKind,
    /// Whom the packet was for that an ICMP error embeds.
    pub embedded_destination: Option<Ipv4Addr>,
}

/// Why a packet has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unkeyed {
    /// Its transport header, or the packet it embeds, is cut short.
    #[error("truncated transport header")]
    Truncated,
    /// A later fragment carries no ports.
    #[error("fragment without a transport header")]
    Fragment,
    /// An ICMP error about a packet that its receiver did not send (RFC 5508 §3.1).
    #[error("ICMP error about another host's packet")]
    ForeignError,
}

impl FlowKey {
    /// The key of an IPv4 packet.
    ///
    /// # Errors
    /// See [`Unkeyed`].
    pub fn of(packet: &Ipv4Packet<&[u8]>) -> Result<Self, Unkeyed> {
        if packet.frag_offset() != 0 {
            return Err(Unkeyed::Fragment);
        }
        let mut key = Self {
            source_address: packet.src_addr(),
            destination_address: packet.dst_addr(),
            protocol: packet.next_header().into(),
            source: None,
            destination: None,
            kind: FlowKind::Portless,
            embedded_destination: None,
        };
        match key.protocol {
            TCP | UDP => {
                let (source, destination) = ports(packet.payload()).ok_or(Unkeyed::Truncated)?;
                key.source = Some(source);
                key.destination = Some(destination);
                key.kind = FlowKind::Transport;
            }
            ICMP => key.read_icmp(packet.payload())?,
            _ => {}
        }
        Ok(key)
    }

    fn read_icmp(&mut self, payload: &[u8]) -> Result<(), Unkeyed> {
        let icmp = Icmpv4Packet::new_checked(payload).map_err(|_| Unkeyed::Truncated)?;
        match icmp.msg_type() {
            Icmpv4Message::EchoRequest => {
                self.source = Some(icmp.echo_ident());
                self.kind = FlowKind::EchoRequest;
            }
            Icmpv4Message::EchoReply => {
                self.destination = Some(icmp.echo_ident());
                self.kind = FlowKind::EchoReply;
            }
            message if is_error(message) => self.read_embedded(payload.get(8..).unwrap_or_default())?,
            _ => {}
        }
        Ok(())
    }

    /// RFC 5508 §3.1: the embedded packet was sent by the receiver of the error, so its source names the owner.
    fn read_embedded(&mut self, embedded: &[u8]) -> Result<(), Unkeyed> {
        // Not `new_checked`: the embedded packet is shorter than its total length says.
        let header_len = embedded.first().map_or(0, |first| usize::from(first & 0x0F) * 4);
        if header_len < 20 || embedded.len() < header_len {
            return Err(Unkeyed::Truncated);
        }
        let packet = Ipv4Packet::new_unchecked(embedded);
        if packet.src_addr() != self.destination_address {
            return Err(Unkeyed::ForeignError);
        }
        if packet.frag_offset() != 0 {
            return Err(Unkeyed::Fragment);
        }
        let transport = &embedded[header_len..];
        self.protocol = packet.next_header().into();
        self.kind = FlowKind::IcmpError;
        self.embedded_destination = Some(packet.dst_addr());
        match self.protocol {
            TCP | UDP => {
                let (source, destination) = ports(transport).ok_or(Unkeyed::Truncated)?;
                self.destination = Some(source);
                self.source = Some(destination);
            }
            ICMP => {
                let icmp = Icmpv4Packet::new_checked(transport).map_err(|_| Unkeyed::Truncated)?;
                match icmp.msg_type() {
                    Icmpv4Message::EchoRequest => self.destination = Some(icmp.echo_ident()),
                    Icmpv4Message::EchoReply => self.source = Some(icmp.echo_ident()),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn ports(transport: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *transport.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{icmp, ipv4};
    use proptest::prelude::*;
    use smoltcp::wire::IpProtocol;

    const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

    fn packet(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ipv4::packet(from, to, protocol, payload.len());
        bytes[20..].copy_from_slice(payload);
        bytes
    }

    fn key(bytes: &[u8]) -> Result<FlowKey, Unkeyed> {
        FlowKey::of(&ipv4::check(bytes).unwrap())
    }

    #[test]
    fn ports_of_tcp_and_udp() {
        let bytes = packet(SHARED, SERVER, IpProtocol::Udp, &[0x10, 0, 0, 53, 0, 8, 0, 0]);
        let key = key(&bytes).unwrap();
        assert_eq!((key.protocol, key.source, key.destination), (UDP, Some(4096), Some(53)));
    }

    #[test]
    fn an_error_goes_to_the_sender_of_the_embedded_packet() {
        let sent = packet(SHARED, SERVER, IpProtocol::Udp, &[0x10, 0, 0, 53, 0, 8, 0, 0]);
        let error = icmp::error_for(&sent, SERVER, icmp::Error::PortUnreachable).unwrap();
        let read = key(&error).unwrap();
        assert_eq!(read.kind, FlowKind::IcmpError);
        assert_eq!((read.protocol, read.source, read.destination), (UDP, Some(53), Some(4096)));

        // The same error sent to a host that is not the embedded source.
        let mut forged = error.clone();
        forged[19] = 99;
        Ipv4Packet::new_unchecked(&mut forged[..]).fill_checksum();
        assert_eq!(key(&forged), Err(Unkeyed::ForeignError));
    }

    #[test]
    fn what_carries_no_ports() {
        let mut fragment = packet(SHARED, SERVER, IpProtocol::Udp, &[0; 16]);
        let mut view = Ipv4Packet::new_unchecked(&mut fragment[..]);
        view.set_frag_offset(8);
        view.fill_checksum();
        assert_eq!(key(&fragment), Err(Unkeyed::Fragment));
        assert_eq!(key(&packet(SHARED, SERVER, IpProtocol::Tcp, &[1, 2, 3])), Err(Unkeyed::Truncated));
        let gre = key(&packet(SHARED, SERVER, IpProtocol::Unknown(47), &[0; 4])).unwrap();
        assert_eq!((gre.kind, gre.protocol, gre.destination), (FlowKind::Portless, 47, None));
    }

    proptest! {
        #[test]
        fn no_payload_panics(protocol: u8, payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = key(&packet(SHARED, SERVER, IpProtocol::from(protocol), &payload));
        }

        #[test]
        fn no_icmp_error_panics(kind in 3u8..13, payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &payload].concat();
            let _ = key(&packet(SERVER, SHARED, IpProtocol::Icmp, &bytes));
        }
    }
}
