//! What names the owner of a packet (PE-ARP §11): ports, echo identifiers, the SPI of ESP, the key of GRE, or the packet
//! that an ICMP error embeds.

use core::net::Ipv4Addr;

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Ipv4Packet};

use super::icmp::is_error;
use super::{DCCP, ESP, GRE, ICMP, SCTP, TCP, UDP, UDP_LITE};

/// Where a GRE header says that it has a checksum, and a key (RFC 2890 §2).
const GRE_CHECKSUM: u16 = 0x8000;
const GRE_KEY: u16 = 0x2000;
const GRE_VERSION: u16 = 0x0007;

/// What kind of packet the key was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// TCP, UDP, UDP-Lite, DCCP or SCTP: both ports.
    Transport,
    /// ESP, or GRE with a key: an identifier of the tunnel. Its receiver chose that of ESP, and of GRE version 1, so that
    /// nothing names the sender; GRE version 0 has the same key both ways.
    Tunnel,
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
    /// The packet, or the one that it embeds, has no transport header of its own: it is a later fragment.
    pub headless: bool,
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
    /// An ICMP error about a packet that its receiver did not send (RFC 5508 §3.1), or about an ICMP error.
    #[error("ICMP error about another host's packet, or about an error")]
    ForeignError,
}

/// What a transport header says.
#[derive(Clone, Copy, Debug)]
struct Ends {
    source: Option<u16>,
    destination: Option<u16>,
    kind: FlowKind,
}

impl Ends {
    const NONE: Self = Self { source: None, destination: None, kind: FlowKind::Portless };

    /// Of a protocol other than ICMP (PE-ARP rules 59, 64 and 65).
    fn of(protocol: u8, transport: &[u8]) -> Result<Self, Unkeyed> {
        match protocol {
            TCP | UDP | UDP_LITE | DCCP | SCTP => {
                let [a, b, c, d] = *transport.first_chunk().ok_or(Unkeyed::Truncated)?;
                let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                Ok(Self { source: Some(source), destination: Some(destination), kind: FlowKind::Transport })
            }
            ESP => {
                let [_, _, high, low] = *transport.first_chunk().ok_or(Unkeyed::Truncated)?;
                let spi = u16::from_be_bytes([high, low]);
                Ok(Self { source: None, destination: Some(spi), kind: FlowKind::Tunnel })
            }
            GRE => Self::of_gre(transport),
            _ => Ok(Self::NONE),
        }
    }

    fn of_gre(header: &[u8]) -> Result<Self, Unkeyed> {
        let [high, low, ..] = *header.first_chunk::<4>().ok_or(Unkeyed::Truncated)?;
        let flags = u16::from_be_bytes([high, low]);
        if flags & GRE_KEY == 0 {
            return Ok(Self::NONE);
        }
        let at = if flags & GRE_CHECKSUM == 0 { 4 } else { 8 };
        let [_, _, high, low] = *header.get(at..).and_then(<[u8]>::first_chunk).ok_or(Unkeyed::Truncated)?;
        let key = Some(u16::from_be_bytes([high, low]));
        // RFC 2637 §4.1: in version 1 these bits are the call identifier that the receiver chose.
        let source = key.filter(|_| flags & GRE_VERSION == 0);
        Ok(Self { source, destination: key, kind: FlowKind::Tunnel })
    }
}

impl FlowKey {
    /// The key of an IPv4 packet. A first fragment has one, a later one has none of its own.
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
            headless: false,
        };
        if key.protocol == ICMP {
            key.read_icmp(packet.payload())?;
        } else {
            let Ends { source, destination, kind } = Ends::of(key.protocol, packet.payload())?;
            (key.source, key.destination, key.kind) = (source, destination, kind);
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
        let transport = &embedded[header_len..];
        self.protocol = packet.next_header().into();
        self.kind = FlowKind::IcmpError;
        self.embedded_destination = Some(packet.dst_addr());
        if packet.frag_offset() != 0 {
            // PE-ARP rule 63: sharers take the identification of what is in fragments from their sets.
            self.destination = Some(packet.ident());
            self.headless = true;
            return Ok(());
        }
        if self.protocol == ICMP {
            let icmp = Icmpv4Packet::new_checked(transport).map_err(|_| Unkeyed::Truncated)?;
            match icmp.msg_type() {
                // PE-ARP rules 60 and 61: it is of the set of whichever of both is a sharer.
                Icmpv4Message::EchoRequest | Icmpv4Message::EchoReply => {
                    (self.source, self.destination) = (Some(icmp.echo_ident()), Some(icmp.echo_ident()));
                }
                // RFC 1122 §3.2.2: no error is about an error.
                message if is_error(message) => return Err(Unkeyed::ForeignError),
                _ => {}
            }
            return Ok(());
        }
        let Ends { source, destination, .. } = Ends::of(self.protocol, transport)?;
        (self.source, self.destination) = (destination, source);
        Ok(())
    }
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
        for protocol in [UDP_LITE, DCCP, SCTP] {
            let bytes = packet(SHARED, SERVER, IpProtocol::from(protocol), &[0x10, 0, 0, 53, 0, 8, 0, 0]);
            let key = key(&bytes).unwrap();
            assert_eq!((key.kind, key.source, key.destination), (FlowKind::Transport, Some(4096), Some(53)));
        }
        let gre = key(&packet(SHARED, SERVER, IpProtocol::Unknown(47), &[0; 4])).unwrap();
        assert_eq!((gre.kind, gre.protocol, gre.destination), (FlowKind::Portless, 47, None));
    }

    /// The SPI of ESP is its receiver's; so is the call of PPTP. A key of GRE is of both ends.
    #[test]
    fn tunnels() {
        let ends = |protocol: u8, payload: &[u8]| {
            let key = key(&packet(SHARED, SERVER, IpProtocol::from(protocol), payload))?;
            Ok((key.kind, key.source, key.destination))
        };
        let tunnel = FlowKind::Tunnel;
        assert_eq!(ends(ESP, &[1, 2, 0x10, 1]), Ok((tunnel, None, Some(4097))));
        assert_eq!(ends(ESP, &[1, 2, 3]), Err(Unkeyed::Truncated));
        let key = [0, 1, 0x10, 1];
        let with = |flags: [u8; 2], more: &[u8]| [&flags[..], &[8, 0], more].concat();
        assert_eq!(ends(GRE, &with([0x20, 0], &key)), Ok((tunnel, Some(4097), Some(4097))));
        let checksum = [&[0xAA, 0xBB, 0, 0][..], &key].concat();
        assert_eq!(ends(GRE, &with([0xA0, 0], &checksum)), Ok((tunnel, Some(4097), Some(4097))));
        assert_eq!(ends(GRE, &with([0x30, 1], &key)), Ok((tunnel, None, Some(4097))));
        assert_eq!(ends(GRE, &with([0x80, 0], &checksum)), Ok((FlowKind::Portless, None, None)));
        assert_eq!(ends(GRE, &with([0x20, 0], &key[..3])), Err(Unkeyed::Truncated));
        assert_eq!(ends(GRE, &with([0xA0, 0], &key)), Err(Unkeyed::Truncated));
    }

    /// About a tunnel, an error names the sender where the packet did.
    #[test]
    fn errors_about_tunnels_and_later_fragments() {
        let about = |sent: &[u8]| {
            let error = icmp::error_for(sent, SERVER, icmp::Error::TimeExceeded).unwrap();
            let key = key(&error).unwrap();
            (key.protocol, key.destination, key.source, key.headless)
        };
        let gre = packet(SHARED, SERVER, IpProtocol::from(GRE), &[0x20, 0, 8, 0, 0, 1, 0x10, 1]);
        assert_eq!(about(&gre), (GRE, Some(4097), Some(4097), false));
        let esp = packet(SHARED, SERVER, IpProtocol::from(ESP), &[1, 2, 0x10, 1, 0, 0, 0, 1]);
        assert_eq!(about(&esp), (ESP, None, Some(4097), false));

        // Whoever made the error should not have, but some do (RFC 1122 §3.2.2).
        let mut error = icmp::error_for(&gre, SERVER, icmp::Error::TimeExceeded).unwrap();
        let mut embedded = Ipv4Packet::new_unchecked(&mut error[28..]);
        embedded.set_frag_offset(64);
        embedded.set_ident(4099);
        let key = key(&error).unwrap();
        assert_eq!((key.destination, key.source, key.headless), (Some(4099), None, true));
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
