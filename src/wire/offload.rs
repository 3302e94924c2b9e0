//! What a sender leaves to the link – the transport checksum, and cutting a super-frame – and the virtio-net header
//! (virtio 1.2 §5.1.6) in which TAP and TUN say so.
//!
//! ```text
//!   0       1          2         4          6            8             10
//!   | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |  frame ...
//! ```

use super::Medium;

/// Bytes of the header, without the count of buffers that only VIRTIO_NET_F_MRG_RXBUF adds.
pub const VIRTIO_NET_HEADER: usize = 10;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CSUM: u8 = 1;
// VIRTIO_NET_HDR_GSO_*.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Where a TCP header has its checksum, and its own length in 32-bit words (RFC 9293 §3.1).
const TCP_CHECKSUM: u16 = 16;
const TCP_DATA_OFFSET: usize = 12;
/// Where a UDP header has its checksum, and its length (RFC 768).
const UDP_CHECKSUM: u16 = 6;
const UDP_HEADER: usize = 8;

/// A checksum that the sender left to be completed: the ones' complement sum from `start` on goes to
/// `start + offset`. Both in bytes, `start` from the beginning of the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Where the summed bytes start.
    pub start: u16,
    /// Where the field is, from `start`.
    pub offset: u16,
}

/// How a super-frame is to be cut where a link cannot carry it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The protocol to segment.
    pub kind: GsoKind,
    /// Payload bytes of each segment.
    pub size: u16,
    /// Bytes from the IP header to the end of the transport header.
    pub header_len: u16,
}

/// The protocol of a super-frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4 (TSO).
    Tcp4 {
        /// CWR is set in the first segment only.
        ecn: bool,
    },
    /// TCP over IPv6.
    Tcp6 {
        /// As for IPv4.
        ecn: bool,
    },
    /// UDP segmentation (USO).
    Udp,
}

impl Gso {
    /// Bytes of the longest IP packet that the super-frame is cut into.
    pub fn segment_len(self) -> usize {
        usize::from(self.header_len) + usize::from(self.size)
    }

    /// How many packets a super-frame of `len` bytes, from the IP header on, is on the wire, and how many bytes they
    /// have together: each has headers of its own.
    pub fn on_wire(self, len: usize) -> (usize, usize) {
        let header_len = usize::from(self.header_len);
        let payload = len.saturating_sub(header_len);
        let packets = payload.div_ceil(usize::from(self.size).max(1)).max(1);
        (packets, len + (packets - 1) * header_len)
    }
}

impl GsoKind {
    /// Where the transport header has its checksum.
    pub(super) const fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp4 { .. } | Self::Tcp6 { .. } => TCP_CHECKSUM,
            Self::Udp => UDP_CHECKSUM,
        }
    }

    /// The length of a transport header; `None` where it is cut short or wrong.
    pub(super) fn header_len(self, transport: &[u8]) -> Option<usize> {
        let len = match self {
            Self::Tcp4 { .. } | Self::Tcp6 { .. } => usize::from(transport.get(TCP_DATA_OFFSET)? >> 4) * 4,
            Self::Udp => UDP_HEADER,
        };
        let shortest = usize::from(self.checksum_offset()) + 2;
        (len >= shortest && len <= transport.len()).then_some(len)
    }
}

/// The typed virtio-net header that travels with a frame. Its default is a plain frame of wire size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum is partial.
    pub checksum: Option<Checksum>,
    /// The frame is larger than the wire takes.
    pub gso: Option<Gso>,
}

/// Why a virtio-net header makes no sense in front of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The checksum would be outside of the packet.
    #[error("checksum from {start} on at offset {offset} is outside of the packet")]
    Checksum {
        /// csum_start.
        start: u16,
        /// csum_offset.
        offset: u16,
    },
    /// A kind of super-frame that nobody offered to take.
    #[error("gso_type {0} was not offered")]
    Kind(u8),
    /// A super-frame without the place of its transport checksum, or with segments of no size.
    #[error("super-frame without checksum or size")]
    Incomplete,
    /// The transport header of a super-frame is cut short.
    #[error("super-frame with a truncated transport header")]
    Truncated,
}

impl Offload {
    /// Reads the header in front of a frame, little-endian as links set it.
    ///
    /// # Errors
    /// See [`OffloadError`].
    pub fn parse(
        header: &[u8; VIRTIO_NET_HEADER],
        medium: Medium,
        frame: &[u8],
    ) -> Result<Self, OffloadError> {
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let packet = frame.get(medium.header_len()..).unwrap_or_default();
        let checksum = if header[0] & NEEDS_CSUM == 0 {
            None
        } else {
            let (start, offset) = (word(6), word(8));
            let outside = OffloadError::Checksum { start, offset };
            let start = start.checked_sub(medium.header_len() as u16).ok_or(outside)?;
            if usize::from(start) + usize::from(offset) + 2 > packet.len() {
                return Err(outside);
            }
            Some(Checksum { start, offset })
        };
        let ecn = header[1] & GSO_ECN != 0;
        let kind = match header[1] & !GSO_ECN {
            GSO_NONE => return Ok(Self { checksum, gso: None }),
            GSO_TCPV4 => GsoKind::Tcp4 { ecn },
            GSO_TCPV6 => GsoKind::Tcp6 { ecn },
            GSO_UDP_L4 => GsoKind::Udp,
            other => return Err(OffloadError::Kind(other)),
        };
        let (size, place) = (word(4), checksum.ok_or(OffloadError::Incomplete)?);
        if size == 0 || place.offset != kind.checksum_offset() {
            return Err(OffloadError::Incomplete);
        }
        // hdr_len is a hint: Linux writes how much of the frame lies in one piece.
        let start = usize::from(place.start);
        let transport = kind.header_len(&packet[start..]).ok_or(OffloadError::Truncated)?;
        let header_len = u16::try_from(start + transport).map_err(|_| OffloadError::Truncated)?;
        Ok(Self { checksum, gso: Some(Gso { kind, size, header_len }) })
    }

    /// The header to put in front of a frame.
    pub fn emit(&self, medium: Medium) -> [u8; VIRTIO_NET_HEADER] {
        let link_header = medium.header_len() as u16;
        let mut header = [0; VIRTIO_NET_HEADER];
        let mut put = |at: usize, word: u16| header[at..at + 2].copy_from_slice(&word.to_le_bytes());
        if let Some(Gso { size, header_len, .. }) = self.gso {
            put(2, header_len.saturating_add(link_header));
            put(4, size);
        }
        if let Some(Checksum { start, offset }) = self.checksum {
            put(6, start.saturating_add(link_header));
            put(8, offset);
            header[0] = NEEDS_CSUM;
        }
        header[1] = match self.gso.map(|gso| gso.kind) {
            None => GSO_NONE,
            Some(GsoKind::Tcp4 { ecn }) => GSO_TCPV4 | if ecn { GSO_ECN } else { 0 },
            Some(GsoKind::Tcp6 { ecn }) => GSO_TCPV6 | if ecn { GSO_ECN } else { 0 },
            Some(GsoKind::Udp) => GSO_UDP_L4,
        };
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// TCP from byte 20 on with 12 bytes of options, 2,896 bytes of payload; as Linux wrote it in front of a TAP's
    /// frame, hdr_len the length of its linear part.
    const TCP4: [u8; VIRTIO_NET_HEADER] = [1, 1, 0x42, 0, 0xA8, 0x05, 34, 0, 16, 0];
    const SIZE: u16 = 1448;

    fn frame(medium: Medium) -> Vec<u8> {
        let mut bytes = vec![0; medium.header_len() + 52 + 2 * usize::from(SIZE)];
        bytes[medium.header_len() + 20 + TCP_DATA_OFFSET] = 8 << 4;
        bytes
    }

    fn tcp4(ecn: bool) -> Offload {
        Offload {
            checksum: Some(Checksum { start: 20, offset: 16 }),
            gso: Some(Gso { kind: GsoKind::Tcp4 { ecn }, size: SIZE, header_len: 52 }),
        }
    }

    #[test]
    fn parse() {
        let frame = frame(Medium::Ethernet);
        let read = |header| Offload::parse(&header, Medium::Ethernet, &frame);
        assert_eq!(read(TCP4), Ok(tcp4(false)));
        let mut header = TCP4;
        header[1] |= GSO_ECN;
        assert_eq!(read(header), Ok(tcp4(true)));
        // The checksum was verified already (VIRTIO_NET_HDR_F_DATA_VALID): nothing to do.
        assert_eq!(read([2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(Offload::default()));
        let partial = Offload { gso: None, ..tcp4(false) };
        assert_eq!(read([1, 0, 0, 0, 0, 0, 34, 0, 16, 0]), Ok(partial));
    }

    #[test]
    fn emit() {
        assert_eq!(tcp4(false).emit(Medium::Ethernet), TCP4);
        assert_eq!(tcp4(true).emit(Medium::Ip), [1, 0x81, 0x34, 0, 0xA8, 0x05, 20, 0, 16, 0]);
        assert_eq!(Offload::default().emit(Medium::Ip), [0; VIRTIO_NET_HEADER]);
        let udp = Offload {
            checksum: Some(Checksum { start: 24, offset: 6 }),
            gso: Some(Gso { kind: GsoKind::Udp, size: 100, header_len: 32 }),
        };
        assert_eq!(udp.emit(Medium::Ip), [1, 5, 32, 0, 100, 0, 24, 0, 6, 0]);
    }

    #[test]
    fn on_wire() {
        let gso = Gso { kind: GsoKind::Udp, size: 1400, header_len: 28 };
        assert_eq!(gso.on_wire(28 + 1400), (1, 1428));
        assert_eq!(gso.on_wire(28 + 1401), (2, 1429 + 28));
        assert_eq!(gso.on_wire(28 + 9000), (7, 9028 + 6 * 28));
        // No link gives such headers; they must not panic all the same.
        assert_eq!(gso.on_wire(20), (1, 20));
        assert_eq!(Gso { size: 0, ..gso }.on_wire(30), (2, 58));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let frame = frame(Medium::Ethernet);
        let changed = |at: usize, to: u8| {
            let mut header = TCP4;
            header[at] = to;
            Offload::parse(&header, Medium::Ethernet, &frame)
        };
        let outside = |start, offset| Err(OffloadError::Checksum { start, offset });
        assert_eq!(changed(6, 13), outside(13, 16), "before the packet");
        assert_eq!(changed(7, 0xFF), outside(0xFF22, 16), "behind the packet");
        assert_eq!(changed(9, 0xFF), outside(34, 0xFF10), "behind the packet");
        assert_eq!(changed(1, 3), Err(OffloadError::Kind(3)), "UFO is not offered");
        assert_eq!(changed(0, 0), Err(OffloadError::Incomplete));
        assert_eq!(changed(1, GSO_UDP_L4), Err(OffloadError::Incomplete), "not where UDP has its checksum");
        let no_size = [1, 1, 0x42, 0, 0, 0, 34, 0, 16, 0];
        assert_eq!(Offload::parse(&no_size, Medium::Ethernet, &frame), Err(OffloadError::Incomplete));
        for len in 0..frame.len().min(34 + 32) {
            let read = Offload::parse(&TCP4, Medium::Ethernet, &frame[..len]);
            assert!(matches!(read, Err(OffloadError::Truncated | OffloadError::Checksum { .. })), "{len}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(
            header: [u8; VIRTIO_NET_HEADER],
            frame in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            for medium in [Medium::Ethernet, Medium::Ip] {
                let _ = Offload::parse(&header, medium, &frame);
            }
        }

        #[test]
        fn what_was_emitted_is_parsed(
            kind in prop::sample::select(vec![
                GsoKind::Tcp4 { ecn: false }, GsoKind::Tcp4 { ecn: true }, GsoKind::Tcp6 { ecn: true },
                GsoKind::Udp,
            ]),
            (start, words, size) in (0u16..80, 5u8..16, 1u16..),
            super_frame: bool,
        ) {
            let mut packet = vec![0; 300];
            packet[usize::from(start) + TCP_DATA_OFFSET] = words << 4;
            let transport = if kind == GsoKind::Udp { 8 } else { u16::from(words) * 4 };
            let offload = Offload {
                checksum: Some(Checksum { start, offset: kind.checksum_offset() }),
                gso: super_frame.then_some(Gso { kind, size, header_len: start + transport }),
            };
            prop_assert_eq!(Offload::parse(&offload.emit(Medium::Ip), Medium::Ip, &packet), Ok(offload));
            let framed = [&[0; 14][..], &packet].concat();
            let header = offload.emit(Medium::Ethernet);
            prop_assert_eq!(Offload::parse(&header, Medium::Ethernet, &framed), Ok(offload));
        }
    }
}
