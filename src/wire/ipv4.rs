//! IPv4 header checks and in-place changes.

use smoltcp::wire::Ipv4Packet;

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
