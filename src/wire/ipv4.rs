//! IPv4: header checks, in-place changes, and packets of our own.

use core::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr};

/// TTL of what a node originates (RFC 1700).
pub const TTL: u8 = 64;

/// Why a packet is not a valid IPv4 packet (RFC 1812 §5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than its header or its total length says.
    #[error("truncated IPv4 packet")]
    Truncated,
    /// Version is not 4.
    #[error("not IPv4")]
    Version,
    /// The header checksum is wrong.
    #[error("wrong IPv4 header checksum")]
    Checksum,
}

/// A view of `bytes` whose lengths, version and header checksum have been checked.
///
/// # Errors
/// See [`HeaderError`].
pub fn check(bytes: &[u8]) -> Result<Ipv4Packet<&[u8]>, HeaderError> {
    // The version first: what the other fields mean depends on it.
    if bytes.first().is_some_and(|first| first >> 4 != 4) {
        return Err(HeaderError::Version);
    }
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| HeaderError::Truncated)?;
    if !packet.verify_checksum() {
        return Err(HeaderError::Checksum);
    }
    Ok(packet)
}

/// A packet of `len` bytes for a protocol, with its header and room for the rest. It has DF, and so is atomic: it needs
/// no identification (RFC 6864 §4.1).
///
/// # Panics
/// If `len` is above 65,515, which no packet can hold.
pub fn packet(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, len: usize) -> Vec<u8> {
    let header =
        Ipv4Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len: len, hop_limit: TTL };
    let total_len = header.buffer_len() + len;
    assert!(total_len <= usize::from(u16::MAX), "{total_len} bytes are no IPv4 packet");
    let mut bytes = vec![0; total_len];
    header.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &ChecksumCapabilities::default());
    bytes
}

/// A UDP packet between {address, port} and {address, port}.
///
/// # Panics
/// If `data` is longer than 65,507 bytes, which no packet can hold.
pub fn udp((from, source): (Ipv4Addr, u16), (to, destination): (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: source, dst_port: destination };
    let mut bytes = packet(from, to, IpProtocol::Udp, repr.header_len() + data.len());
    repr.emit(
        &mut UdpPacket::new_unchecked(Ipv4Packet::new_unchecked(&mut bytes[..]).payload_mut()),
        &IpAddress::Ipv4(from),
        &IpAddress::Ipv4(to),
        data.len(),
        |room| room.copy_from_slice(data),
        &ChecksumCapabilities::default(),
    );
    bytes
}

/// A ones' complement checksum after one 16-bit word that it covers went from `old` to `new` (RFC 1624 eqn. 3).
pub const fn updated_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = (!checksum as u32) + (!old as u32) + new as u32;
    let sum = (sum & 0xFFFF) + (sum >> 16);
    let sum = (sum & 0xFFFF) + (sum >> 16);
    !(sum as u16)
}

/// Takes one from the TTL and updates the header checksum. The TTL must be above zero.
pub fn decrement_ttl(packet: &mut Ipv4Packet<&mut [u8]>) {
    let ttl = packet.hop_limit();
    let protocol = u16::from(u8::from(packet.next_header()));
    let old = u16::from(ttl) << 8 | protocol;
    let new = u16::from(ttl.saturating_sub(1)) << 8 | protocol;
    let checksum = updated_checksum(packet.checksum(), old, new);
    packet.set_hop_limit(ttl.saturating_sub(1));
    packet.set_checksum(checksum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1624_section_4_example() {
        assert_eq!(updated_checksum(0xDD2F, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn udp_packets_are_whole() {
        let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 2));
        for data in [&b""[..], b"odd", &[7; 65_507]] {
            let bytes = udp((from, 67), (to, 68), data);
            let ip = check(&bytes).unwrap();
            assert_eq!((ip.src_addr(), ip.dst_addr(), ip.hop_limit()), (from, to, 64));
            assert_eq!(usize::from(ip.total_len()), bytes.len());
            let udp = UdpPacket::new_checked(ip.payload()).unwrap();
            assert!(udp.verify_checksum(&from.into(), &to.into()));
            assert_eq!((udp.src_port(), udp.dst_port(), udp.payload()), (67, 68, data));
        }
    }

    proptest! {
        #[test]
        fn ttl_update_equals_a_full_checksum(mut header in prop::array::uniform20(any::<u8>()), ttl in 1u8..) {
            header[0] = 0x45;
            header[2..4].copy_from_slice(&20u16.to_be_bytes());
            header[8] = ttl;
            let mut packet = Ipv4Packet::new_unchecked(&mut header[..]);
            packet.fill_checksum();
            decrement_ttl(&mut packet);
            prop_assert_eq!(packet.hop_limit(), ttl - 1);
            prop_assert!(packet.verify_checksum());
        }
    }
}
