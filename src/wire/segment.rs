//! Segmentation: a super-frame becomes the frames that it stands for, for a link that cannot take it whole. The
//! result is what Linux makes of it (`inet_gso_segment`, `tcp_gso_segment`, `__udp_gso_segment`).

use smoltcp::wire::{Ipv4Packet, TcpPacket, UdpPacket};

use super::offload::{Checksum, Gso, GsoKind};
use super::{Frame, Medium, TCP, UDP, checksum};

/// Segments of one super-frame. Linux makes none with less than 8 bytes in a segment (TCP_MIN_GSO_SIZE), so that
/// this is out of reach for an honest sender, and no other one may multiply its frames further.
const MAX_SEGMENTS: usize = 65_536 / 8;

/// Why a super-frame cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Not IPv4, or a fragment, or its protocol is another one than the offload header says.
    #[error("super-frame of another protocol than its offload header says")]
    Protocol,
    /// Its headers are cut short, or end elsewhere than the offload header says.
    #[error("super-frame whose headers do not fit its offload header")]
    Header,
    /// More segments than any honest sender wants.
    #[error("super-frame of more than {MAX_SEGMENTS} segments")]
    TooMany,
}

/// The frames of wire size that a frame stands for, with complete checksums. A frame that is no super-frame stands
/// for itself.
#[derive(Debug)]
pub struct Segments<'a> {
    frame: &'a Frame,
    medium: Medium,
    cut: Option<Cut>,
    count: usize,
    next: usize,
}

/// Where a super-frame is cut.
#[derive(Debug)]
struct Cut {
    kind: GsoKind,
    /// Bytes of the IP header, and of both headers.
    transport: usize,
    header_len: usize,
    /// Bytes of the whole payload, and of one segment's.
    payload: usize,
    size: usize,
}

impl<'a> Segments<'a> {
    /// Prepares to cut `frame`, which is as a link of this medium carries it.
    ///
    /// # Errors
    /// See [`SegmentError`].
    pub fn of(frame: &'a Frame, medium: Medium) -> Result<Self, SegmentError> {
        let cut = match frame.offload.gso {
            None => None,
            Some(gso) => Some(Cut::new(frame.bytes().get(medium.header_len()..).unwrap_or_default(), gso)?),
        };
        let count = cut.as_ref().map_or(1, |cut| cut.payload.div_ceil(cut.size).max(1));
        if count > MAX_SEGMENTS {
            return Err(SegmentError::TooMany);
        }
        Ok(Self { frame, medium, cut, count, next: 0 })
    }

    /// Writes the next segment into `out`, which has room for it; false where there is none.
    pub fn next_into(&mut self, out: &mut Frame) -> bool {
        if self.next == self.count {
            return false;
        }
        let bytes = self.frame.bytes();
        let link_header = self.medium.header_len().min(bytes.len());
        let Some(cut) = &self.cut else {
            out.copy_from(self.medium, &[bytes]);
            if let Some(place) = self.frame.offload.checksum {
                checksum::fill(&mut out.bytes_mut()[link_header..], place, 0);
            }
            self.next += 1;
            return true;
        };
        let (headers, rest) = bytes.split_at(link_header + cut.header_len);
        let from = self.next * cut.size;
        let to = cut.payload.min(from + cut.size);
        out.copy_from(self.medium, &[headers, &rest[from..to]]);
        cut.finish(&mut out.bytes_mut()[link_header..], self.next, self.count);
        self.next += 1;
        true
    }
}

impl Cut {
    fn new(bytes: &[u8], gso: Gso) -> Result<Self, SegmentError> {
        let packet = Ipv4Packet::new_checked(bytes).map_err(|_| SegmentError::Header)?;
        let protocol = match gso.kind {
            GsoKind::Tcp4 { .. } => TCP,
            GsoKind::Udp => UDP,
            GsoKind::Tcp6 { .. } => return Err(SegmentError::Protocol),
        };
        let whole = packet.frag_offset() == 0 && !packet.more_frags();
        if packet.version() != 4 || !whole || u8::from(packet.next_header()) != protocol {
            return Err(SegmentError::Protocol);
        }
        let transport = usize::from(packet.header_len());
        let own = gso.kind.header_len(packet.payload()).ok_or(SegmentError::Header)?;
        let header_len = transport + own;
        if header_len != usize::from(gso.header_len) || gso.size == 0 {
            return Err(SegmentError::Header);
        }
        let payload = usize::from(packet.total_len()) - header_len;
        Ok(Self { kind: gso.kind, transport, header_len, payload, size: gso.size.into() })
    }

    /// Makes the headers of segment `number` of `count`, copied from the super-frame, its own.
    fn finish(&self, packet: &mut [u8], number: usize, count: usize) {
        let total_len = packet.len() as u16;
        let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
        ip.set_total_len(total_len);
        // As Linux: each has an identification of its own, also where it must not be fragmented.
        ip.set_ident(ip.ident().wrapping_add(number as u16));
        ip.fill_checksum();
        let (source, destination) = (ip.src_addr(), ip.dst_addr());

        let transport_len = total_len - self.transport as u16;
        let transport = &mut packet[self.transport..];
        let protocol = if self.kind == GsoKind::Udp {
            UdpPacket::new_unchecked(&mut transport[..]).set_len(transport_len);
            UDP
        } else {
            let mut tcp = TcpPacket::new_unchecked(&mut transport[..]);
            tcp.set_seq_number(tcp.seq_number() + number * self.size);
            if number > 0 {
                // RFC 3168 §6.1.2: on the first data packet after the window was reduced.
                tcp.set_cwr(false);
            }
            if number + 1 < count {
                tcp.set_fin(false);
                tcp.set_psh(false);
            }
            TCP
        };
        let offset = self.kind.checksum_offset();
        transport[usize::from(offset)..][..2].fill(0);
        let pseudo_header = checksum::pseudo_header(source, destination, protocol, transport_len);
        checksum::fill(packet, Checksum { start: self.transport as u16, offset }, pseudo_header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Offload, ipv4};
    use proptest::prelude::*;
    use smoltcp::wire::IpAddress;

    /// From 192.0.2.1 to 198.51.100.2, identification 0xFFFF, DF; the checksums are left open.
    const IP: [u8; 20] = [0x45, 0, 0, 0, 0xFF, 0xFF, 0x40, 0, 64, 0, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];

    /// A packet with these headers: lengths, IP header checksum and offload header are put right.
    fn super_frame(ip: &[u8], transport: &[u8], payload: &[u8], gso: Gso) -> Frame {
        let mut bytes = [ip, transport, payload].concat();
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
        packet.set_header_len(ip.len() as u8);
        packet.set_total_len((ip.len() + transport.len() + payload.len()) as u16);
        packet.set_next_header(if gso.kind == GsoKind::Udp { UDP } else { TCP }.into());
        packet.fill_checksum();
        let mut frame = Frame::from_packet(&bytes);
        let checksum = Checksum { start: ip.len() as u16, offset: gso.kind.checksum_offset() };
        let header_len = (ip.len() + transport.len()) as u16;
        frame.offload = Offload { checksum: Some(checksum), gso: Some(Gso { header_len, ..gso }) };
        frame
    }

    fn tcp_header(flags: u8, options: usize) -> Vec<u8> {
        let mut header =
            vec![0x10, 0, 0, 80, 0xFF, 0xFF, 0xFF, 0xFE, 0, 0, 0, 1, 0, flags, 2, 0, 0xAB, 0xCD, 0, 0];
        header.resize(20 + options, 1);
        header[12] = (header.len() as u8 / 4) << 4;
        header
    }

    const UDP_HEADER: [u8; 8] = [0x10, 0, 0, 53, 0, 0, 0xAB, 0xCD];
    const TCP4: Gso = Gso { kind: GsoKind::Tcp4 { ecn: true }, size: 4, header_len: 0 };

    fn segments(frame: &Frame, medium: Medium) -> Vec<Frame> {
        let mut segments = Segments::of(frame, medium).unwrap();
        let mut out = Frame::buffer();
        let mut all = Vec::new();
        while segments.next_into(&mut out) {
            assert_eq!(out.offload, Offload::default());
            all.push(out.clone());
        }
        assert!(!segments.next_into(&mut out));
        all
    }

    #[test]
    fn a_segment_checked_by_hand() {
        // CWR, ACK, PSH and FIN; "abcdefghij" in pieces of four.
        let frame = super_frame(&IP, &tcp_header(0x80 | 0x10 | 0x08 | 0x01, 0), b"abcdefghij", TCP4);
        let segments = segments(&frame, Medium::Ip);
        let [first, second, third] = &segments[..] else { panic!("{}", segments.len()) };
        #[rustfmt::skip]
        assert_eq!(first.bytes(), [
            // Total length 44, identification 0xffff. The header's words sum up to 0x4500 + 0x002c + 0xffff + 0x4000
            // + 0x4006 + 0xc000 + 0x0201 + 0xc633 + 0x6402 = 0x3b167, folded 0xb16a.
            0x45, 0, 0, 44, 0xFF, 0xFF, 0x40, 0, 64, 6, 0x4E, 0x95, 192, 0, 2, 1, 198, 51, 100, 2,
            // Pseudo-header 0xc000 + 0x0201 + 0xc633 + 0x6402 + 0x0006 + 0x0018 = 0x1ec54; segment 0x1000 + 0x0050
            // + 0xffff + 0xfffe + 0x0000 + 0x0001 + 0x5090 + 0x0200 + 0x6162 + 0x6364 = 0x327a4: 0x513f8, 0x13fd.
            0x10, 0, 0, 80, 0xFF, 0xFF, 0xFF, 0xFE, 0, 0, 0, 1, 0x50, 0x90, 2, 0, 0xEC, 0x02, 0, 0,
            b'a', b'b', b'c', b'd',
        ]);
        #[rustfmt::skip]
        assert_eq!(second.bytes(), [
            // The identification goes round to 0: 0xb16a - 0xffff is 0xb16a again.
            0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0x4E, 0x95, 192, 0, 2, 1, 198, 51, 100, 2,
            // Sequence number 0x00000002; CWR, PSH and FIN gone. 0x1ec54 + 0x1000 + 0x0050 + 0x0002 + 0x0001 + 0x5010
            // + 0x0200 + 0x6566 + 0x6768 = 0x31b85, 0x1b88.
            0x10, 0, 0, 80, 0, 0, 0, 2, 0, 0, 0, 1, 0x50, 0x10, 2, 0, 0xE4, 0x77, 0, 0,
            b'e', b'f', b'g', b'h',
        ]);
        #[rustfmt::skip]
        assert_eq!(third.bytes(), [
            // Two bytes less, identification 1: 0xb16a - 2 + 1.
            0x45, 0, 0, 42, 0, 1, 0x40, 0, 64, 6, 0x4E, 0x96, 192, 0, 2, 1, 198, 51, 100, 2,
            // 0x1ec54 - 2 + 0x1000 + 0x0050 + 0x0006 + 0x0001 + 0x5019 + 0x0200 + 0x696a = 0x2b82c, 0xb82e.
            0x10, 0, 0, 80, 0, 0, 0, 6, 0, 0, 0, 1, 0x50, 0x19, 2, 0, 0x47, 0xD1, 0, 0,
            b'i', b'j',
        ]);
    }

    #[test]
    fn a_datagram_of_several() {
        let gso = Gso { kind: GsoKind::Udp, ..TCP4 };
        let frame = super_frame(&IP, &UDP_HEADER, b"abcdefghi", gso);
        let segments = segments(&frame, Medium::Ip);
        let lens: Vec<_> = segments.iter().map(Frame::len).collect();
        assert_eq!(lens, [32, 32, 29]);
        #[rustfmt::skip]
        assert_eq!(segments[2].bytes(), [
            // 0xb16a with total length 29 and protocol 17 for 44 and 6, identification 1 for 0xffff.
            0x45, 0, 0, 29, 0, 1, 0x40, 0, 64, 17, 0x4E, 0x98, 192, 0, 2, 1, 198, 51, 100, 2,
            // 0xc000 + 0x0201 + 0xc633 + 0x6402 + 0x0011 + 0x0009 + 0x1000 + 0x0035 + 0x0009 + 0x6900 = 0x2658e.
            0x10, 0, 0, 53, 0, 9, 0x9A, 0x6F, b'i',
        ]);
    }

    #[test]
    fn a_frame_of_wire_size_stands_for_itself() {
        let mut whole = super_frame(&IP, &UDP_HEADER, b"abc", Gso { kind: GsoKind::Udp, ..TCP4 });
        whole.offload = Offload::default();
        assert_eq!(segments(&whole, Medium::Ip)[0].bytes(), whole.bytes());

        let mut partial = whole.clone();
        partial.offload.checksum = Some(Checksum { start: 20, offset: 6 });
        let mut completed = partial.clone();
        completed.complete_checksum();
        assert_ne!(completed.bytes(), whole.bytes());
        let address = smoltcp::wire::EthernetAddress([2; 6]);
        for frame in [&mut partial, &mut completed] {
            frame.push_ethernet_header(address, address);
        }
        let [one] = &segments(&partial, Medium::Ethernet)[..] else { panic!("one") };
        assert_eq!(one.bytes(), completed.bytes());

        let arp = Frame::from_ethernet(&[0xFF; 5]);
        assert_eq!(segments(&arp, Medium::Ethernet)[0].bytes(), arp.bytes(), "whatever it is");
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let frame = super_frame(&IP, &tcp_header(0x10, 12), &[7; 100], TCP4);
        let changed = |change: &dyn Fn(&mut Frame)| {
            let mut frame = frame.clone();
            change(&mut frame);
            Segments::of(&frame, Medium::Ip).map(|segments| segments.count)
        };
        assert_eq!(changed(&|_| {}), Ok(25));
        let gso = |change: &'static dyn Fn(&mut Gso)| {
            changed(&move |frame| change(frame.offload.gso.as_mut().unwrap()))
        };
        assert_eq!(gso(&|gso| gso.size = 0), Err(SegmentError::Header));
        assert_eq!(gso(&|gso| gso.header_len = 40), Err(SegmentError::Header));
        assert_eq!(gso(&|gso| gso.kind = GsoKind::Udp), Err(SegmentError::Protocol));
        assert_eq!(gso(&|gso| gso.kind = GsoKind::Tcp6 { ecn: false }), Err(SegmentError::Protocol));
        assert_eq!(changed(&|frame| frame.bytes_mut()[0] = 0x65), Err(SegmentError::Protocol));
        assert_eq!(changed(&|frame| frame.bytes_mut()[7] = 1), Err(SegmentError::Protocol), "a fragment");
        assert_eq!(changed(&|frame| frame.bytes_mut()[32] = 0x40), Err(SegmentError::Header));
        assert_eq!(changed(&|frame| frame.set_len(151)), Err(SegmentError::Header), "truncated");
        assert_eq!(changed(&|frame| frame.set_len(0)), Err(SegmentError::Header));

        let one_byte_each =
            super_frame(&IP, &tcp_header(0x10, 0), &[7; MAX_SEGMENTS + 1], Gso { size: 1, ..TCP4 });
        assert_eq!(Segments::of(&one_byte_each, Medium::Ip).err(), Some(SegmentError::TooMany));
    }

    proptest! {
        #[test]
        fn segments_are_valid_and_give_the_payload_back(
            udp: bool,
            (ip_options, tcp_options) in (0usize..11, 0usize..11),
            (size, flags) in (8u16..2000, any::<u8>()),
            payload in prop::collection::vec(any::<u8>(), 0..20_000),
        ) {
            let kind = if udp { GsoKind::Udp } else { GsoKind::Tcp4 { ecn: false } };
            let transport = if udp { UDP_HEADER.to_vec() } else { tcp_header(flags, tcp_options * 4) };
            let ip = [&IP[..], &vec![1; ip_options * 4]].concat();
            let frame = super_frame(&ip, &transport, &payload, Gso { kind, size, header_len: 0 });
            let segments = segments(&frame, Medium::Ip);
            prop_assert_eq!(segments.len(), payload.len().div_ceil(usize::from(size)).max(1));
            let mut back = Vec::new();
            for (number, segment) in segments.iter().enumerate() {
                let packet = ipv4::check(segment.bytes()).unwrap();
                prop_assert_eq!(usize::from(packet.total_len()), segment.len());
                prop_assert_eq!(packet.ident(), 0xFFFF_u16.wrapping_add(number as u16));
                let (source, destination) = (packet.src_addr(), packet.dst_addr());
                let (source, destination) = (IpAddress::Ipv4(source), IpAddress::Ipv4(destination));
                let piece = if udp {
                    let udp = UdpPacket::new_checked(packet.payload()).unwrap();
                    prop_assert!(udp.checksum() != 0 && udp.verify_checksum(&source, &destination));
                    udp.payload()
                } else {
                    let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
                    prop_assert!(tcp.verify_checksum(&source, &destination));
                    prop_assert_eq!(tcp.seq_number().0, -2 + back.len() as i32);
                    let (first, last) = (number == 0, number + 1 == segments.len());
                    prop_assert_eq!(tcp.cwr(), flags & 0x80 != 0 && first);
                    prop_assert_eq!(tcp.psh(), flags & 0x08 != 0 && last);
                    prop_assert_eq!(tcp.fin(), flags & 0x01 != 0 && last);
                    prop_assert_eq!(tcp.ack(), flags & 0x10 != 0);
                    tcp.payload()
                };
                prop_assert!(piece.len() <= usize::from(size));
                back.extend_from_slice(piece);
            }
            prop_assert_eq!(back, payload);
        }

        #[test]
        fn no_frame_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            likely: bool,
            (start, offset, size, header_len) in (any::<u16>(), any::<u16>(), any::<u16>(), 0u16..100),
            kind in prop::sample::select(vec![GsoKind::Tcp4 { ecn: true }, GsoKind::Udp]),
        ) {
            let mut bytes = bytes;
            if likely && bytes.len() > 20 {
                let len = bytes.len() as u16;
                bytes[0] = 0x45;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[6..8].fill(0);
                bytes[9] = if kind == GsoKind::Udp { UDP } else { TCP };
            }
            let gso = Gso { kind, size, header_len };
            for gso in [None, Some(gso)] {
                let mut frame = Frame::from_packet(&bytes);
                frame.offload = Offload { checksum: Some(Checksum { start, offset }), gso };
                for medium in [Medium::Ip, Medium::Ethernet] {
                    if let Ok(mut segments) = Segments::of(&frame, medium) {
                        let mut out = Frame::buffer();
                        while segments.next_into(&mut out) {}
                    }
                }
            }
        }
    }
}
