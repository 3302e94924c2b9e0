//! The buffer in which a frame crosses a node, with its offload header.

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

use super::checksum;
use super::offload::Offload;

/// Length of an Ethernet header, without a VLAN tag, in bytes.
pub const ETHERNET_HEADER: usize = 14;

/// Shortest Ethernet frame without its check sequence, in bytes (IEEE 802.3 §3.2.8).
pub const MIN_ETHERNET_FRAME: usize = 60;

/// Room in front of the IP packet: an Ethernet header and a virtio-net header fit, and the IP header stays aligned.
const HEADROOM: usize = 64;

/// The largest IPv4 packet, in bytes.
const MAX_IP_PACKET: usize = 65_535;

/// What a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Ethernet frames (a TAP).
    Ethernet,
    /// IP packets without a link layer (a TUN).
    Ip,
}

impl Medium {
    /// Bytes in front of the IP packet.
    pub const fn header_len(self) -> usize {
        match self {
            Self::Ethernet => ETHERNET_HEADER,
            Self::Ip => 0,
        }
    }
}

/// One frame or packet, with room in front so that a link-layer header is added or removed in place.
#[derive(Clone, Debug)]
pub struct Frame {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The offload header.
    pub offload: Offload,
}

impl Frame {
    /// An empty buffer that takes any frame; one per link is enough, they are used again and again.
    pub fn buffer() -> Self {
        Self {
            buffer: vec![0; HEADROOM + MAX_IP_PACKET],
            start: HEADROOM,
            end: HEADROOM,
            offload: Offload::default(),
        }
    }

    /// A copy of an IP packet.
    pub fn from_packet(packet: &[u8]) -> Self {
        let mut buffer = vec![0; Self::memory_of(packet.len())];
        buffer[HEADROOM..].copy_from_slice(packet);
        Self { end: buffer.len(), buffer, start: HEADROOM, offload: Offload::default() }
    }

    /// Bytes of memory of a copy of an IP packet of so many bytes.
    pub const fn memory_of(packet_len: usize) -> usize {
        HEADROOM + packet_len
    }

    /// A copy of an Ethernet frame.
    pub fn from_ethernet(bytes: &[u8]) -> Self {
        let start = HEADROOM - ETHERNET_HEADER;
        let mut buffer = vec![0; start + bytes.len()];
        buffer[start..].copy_from_slice(bytes);
        Self { end: buffer.len(), buffer, start, offload: Offload::default() }
    }

    /// A new Ethernet frame with `payload` zero bytes, padded to the minimum.
    pub fn ethernet(
        source: EthernetAddress,
        destination: EthernetAddress,
        ethertype: EthernetProtocol,
        payload: usize,
    ) -> Self {
        let len = (ETHERNET_HEADER + payload).max(MIN_ETHERNET_FRAME);
        let start = HEADROOM - ETHERNET_HEADER;
        let mut frame =
            Self { buffer: vec![0; start + len], start, end: start + len, offload: Offload::default() };
        frame.write_ethernet_header(source, destination, ethertype);
        frame
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The bytes, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// Bytes in the frame.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes of memory that the frame holds.
    pub fn memory(&self) -> usize {
        self.buffer.len()
    }

    /// Empties the frame and gives the space a link of this medium reads into; then call [`Frame::set_len`].
    pub fn space(&mut self, medium: Medium) -> &mut [u8] {
        self.start = HEADROOM - medium.header_len();
        self.end = self.start;
        self.offload = Offload::default();
        &mut self.buffer[self.start..]
    }

    /// As [`Frame::space`], with `len` bytes before it for what a driver puts in front of a frame. A length does not
    /// count them, and [`Frame::front`] gives them after the read.
    pub fn space_behind(&mut self, len: usize, medium: Medium) -> &mut [u8] {
        self.space(medium);
        let at = self.start.checked_sub(len).expect("HEADROOM has room for both headers");
        &mut self.buffer[at..]
    }

    /// The bytes in front of the frame.
    pub fn front<const N: usize>(&self) -> &[u8; N] {
        self.buffer[..self.start].last_chunk().expect("HEADROOM has room for both headers")
    }

    /// The bytes behind a header, which is written in front of them.
    pub fn behind(&mut self, header: &[u8]) -> &[u8] {
        let at = self.start.checked_sub(header.len()).expect("HEADROOM has room for both headers");
        self.buffer[at..self.start].copy_from_slice(header);
        &self.buffer[at..self.end]
    }

    /// Sets the length after a read, or cuts padding off the end. A length past the buffer is cut to it.
    pub fn set_len(&mut self, len: usize) {
        self.end = self.buffer.len().min(self.start + len);
    }

    /// Becomes a frame of wire size with these bytes, which a link of this medium carries. They must fit.
    pub(crate) fn copy_from(&mut self, medium: Medium, parts: &[&[u8]]) {
        let mut len = 0;
        for part in parts {
            self.space(medium)[len..][..part.len()].copy_from_slice(part);
            len += part.len();
        }
        self.set_len(len);
    }

    /// Writes the checksum that the sender of an IP packet left open, for a reader that verifies it.
    pub fn complete_checksum(&mut self) {
        if let Some(place) = self.offload.checksum.take() {
            // The field has the sum of the pseudo-header, so that the sum over all is that of a packet without one.
            checksum::fill(self.bytes_mut(), place, 0);
        }
    }

    /// Removes the Ethernet header; what is left is the IP packet.
    pub fn pop_ethernet_header(&mut self) {
        self.start = self.end.min(self.start + ETHERNET_HEADER);
    }

    /// Puts an Ethernet header in front of an IP packet.
    pub fn push_ethernet_header(&mut self, source: EthernetAddress, destination: EthernetAddress) {
        self.start = self.start.checked_sub(ETHERNET_HEADER).expect("every constructor leaves HEADROOM");
        self.write_ethernet_header(source, destination, EthernetProtocol::Ipv4);
    }

    /// Rewrites the addresses of an Ethernet frame; the type stays.
    pub fn set_ethernet_addresses(&mut self, source: EthernetAddress, destination: EthernetAddress) {
        let mut header = EthernetFrame::new_unchecked(self.bytes_mut());
        header.set_src_addr(source);
        header.set_dst_addr(destination);
    }

    fn write_ethernet_header(
        &mut self,
        source: EthernetAddress,
        destination: EthernetAddress,
        ethertype: EthernetProtocol,
    ) {
        self.set_ethernet_addresses(source, destination);
        EthernetFrame::new_unchecked(self.bytes_mut()).set_ethertype(ethertype);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Checksum;

    const A: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
    const B: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_header_is_added_and_removed_in_place() {
        let mut frame = Frame::buffer();
        frame.space(Medium::Ip)[..4].copy_from_slice(&[0x45, 1, 2, 3]);
        frame.set_len(4);
        let at = frame.bytes().as_ptr();
        frame.push_ethernet_header(A, B);
        assert_eq!(frame.bytes(), [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 1, 2, 3]);
        frame.pop_ethernet_header();
        assert_eq!(frame.bytes(), [0x45, 1, 2, 3]);
        assert_eq!(frame.bytes().as_ptr(), at, "the packet did not move");
    }

    #[test]
    fn an_open_checksum_is_completed() {
        use smoltcp::wire::{IpAddress, UdpPacket};
        let (from, to) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let address = |octets: [u8; 4]| IpAddress::Ipv4(octets.into());
        // Behind an IP header of 20 bytes: UDP from 4096 to 53, 11 bytes long, and the pseudo-header's sum.
        let mut bytes = [&[0; 20][..], &[0x10, 0, 0, 53, 0, 11, 0, 0, 7, 8, 9]].concat();
        let pseudo = 0xC000 + 0x0201 + 0xC000 + 0x0202 + 17 + 11_u32;
        let pseudo = ((pseudo & 0xFFFF) + (pseudo >> 16)) as u16;
        bytes[26..28].copy_from_slice(&pseudo.to_be_bytes());
        let mut frame = Frame::from_packet(&bytes);
        frame.offload.checksum = Some(Checksum { start: 20, offset: 6 });
        frame.complete_checksum();
        assert_eq!(frame.offload, Offload::default());
        assert!(
            UdpPacket::new_checked(&frame.bytes()[20..])
                .unwrap()
                .verify_checksum(&address(from), &address(to))
        );

        for (start, offset) in [(u16::MAX, 0), (20, u16::MAX), (30, 0)] {
            let mut frame = Frame::from_packet(&bytes);
            frame.offload.checksum = Some(Checksum { start, offset });
            frame.complete_checksum();
            assert_eq!(frame.bytes(), bytes, "an impossible place is left alone");
        }
    }

    #[test]
    fn a_read_past_the_end_is_cut() {
        let mut frame = Frame::buffer();
        let space = frame.space(Medium::Ethernet).len();
        frame.set_len(usize::MAX / 2);
        assert_eq!(frame.len(), space);
        let mut short = Frame::from_ethernet(&[1, 2, 3]);
        short.pop_ethernet_header();
        assert!(short.is_empty());
    }
}
