//! The Internet checksum (RFC 1071).

use core::net::Ipv4Addr;

use super::offload::Checksum;

/// The ones' complement sum of 16-bit words; an odd last byte is the high half of one.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    // RFC 1071 §2: the sum does not depend on byte order nor on the width of the words, so that the machine's own
    // order and 32 bits at a time give it sooner. 64 bits cannot overflow: no slice has 2^34 bytes.
    let mut words = bytes.chunks_exact(4);
    let mut sum: u64 = words.by_ref().map(|word| u64::from(word_of(word))).sum();
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    u16::from_be(fold(sum))
}

fn word_of(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

/// The sum of the pseudo-header in front of TCP and UDP (RFC 9293 §3.1, RFC 768).
pub(super) fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> u16 {
    let addresses = [sum(&source.octets()), sum(&destination.octets())];
    fold(addresses.into_iter().chain([protocol.into(), len]).map(u64::from).sum())
}

/// Writes the checksum of what starts at `start`: the sum of those bytes, the field included, and of what else it
/// covers. A place outside of the packet is left alone.
pub(super) fn fill(packet: &mut [u8], Checksum { start, offset }: Checksum, other: u16) {
    let Some(summed) = packet.get_mut(usize::from(start)..) else { return };
    let sum = fold(u64::from(sum(summed)) + u64::from(other));
    // A UDP checksum of zero would say that there is none (RFC 768), and for the others both are the same.
    let checksum = if sum == 0xFFFF { 0xFFFF } else { !sum };
    let at = usize::from(offset);
    if let Some(field) = summed.get_mut(at..at + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_section_3_example() {
        assert_eq!(sum(&[0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]), 0xDDF2);
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0xAB]), 0xAB00);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_16_bit_words(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            prop_assert_eq!(sum(&bytes), fold(bytes.chunks(2).map(word).sum()));
        }
    }
}
