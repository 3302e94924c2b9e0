//! Fragments (RFC 791 §3.2): of which datagram a packet is which piece, and a packet cut for a link with a smaller MTU.

use core::net::Ipv4Addr;

use smoltcp::wire::Ipv4Packet;

/// Bytes in one unit of a fragment offset: every piece but the last one is a multiple of that (RFC 791 §3.1).
pub const FRAGMENT_UNIT: u16 = 8;

/// What every link takes in one piece, in bytes (RFC 791 §3.2): the longest header and one unit.
const MIN_MTU: usize = 68;
/// Bytes of a header without options.
const HEADER: usize = 20;

/// The option that ends the list (RFC 791 §3.1), also after the last one as padding.
const END_OF_OPTIONS: u8 = 0;
/// The other option that is one byte.
const NO_OPERATION: u8 = 1;
/// The bit of an option's type that puts it into every fragment.
const COPIED: u8 = 0x80;

/// What all fragments of one datagram have in common (RFC 791 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Datagram {
    /// IP source address.
    pub source: Ipv4Addr,
    /// IP destination address.
    pub destination: Ipv4Addr,
    /// IP protocol.
    pub protocol: u8,
    /// Identification: the sender's number for it.
    pub identification: u16,
}

/// Which part of a datagram's payload a fragment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it starts, in bytes.
    pub offset: u16,
    /// Its length in bytes.
    pub len: u16,
    /// Nothing comes behind it.
    pub last: bool,
}

impl Piece {
    /// The datagram of a fragment, and the piece of it; `None` for a whole datagram. The lengths of `packet` must have
    /// been checked.
    pub fn of<T: AsRef<[u8]>>(packet: &Ipv4Packet<T>) -> Option<(Datagram, Self)> {
        let piece = Self {
            offset: packet.frag_offset(),
            len: packet.total_len() - u16::from(packet.header_len()),
            last: !packet.more_frags(),
        };
        if piece.offset == 0 && piece.last {
            return None;
        }
        let datagram = Datagram {
            source: packet.src_addr(),
            destination: packet.dst_addr(),
            protocol: packet.next_header().into(),
            identification: packet.ident(),
        };
        Some((datagram, piece))
    }
}

/// Cuts a packet for a link that carries `mtu` bytes of IP, by the example procedure of RFC 791 §3.2. The packet may be
/// a fragment; then these are fragments of the same datagram. Its transport checksum must be complete. `None` where it
/// need not, must not (DF) or cannot be cut: less than the MTU of 68 bytes that IPv4 demands, or an invalid packet.
///
/// A packet becomes 8185 fragments at most, where the MTU is the smallest and the header the longest.
pub fn fragments(packet: &[u8], mtu: usize) -> Option<impl Iterator<Item = Vec<u8>>> {
    let view = Ipv4Packet::new_checked(packet).ok().filter(|view| view.version() == 4)?;
    let payload = view.payload();
    let (start, more) = (usize::from(view.frag_offset()), view.more_frags());
    // What reaches behind the largest datagram has no place in one, and its offsets would not fit into their field.
    let possible = start + payload.len() <= usize::from(u16::MAX);
    if mtu < MIN_MTU || usize::from(view.total_len()) <= mtu || view.dont_frag() || !possible {
        return None;
    }
    let header = &packet[..usize::from(view.header_len())];
    let later_header = later_header(header);
    let mut at = 0;
    Some(core::iter::from_fn(move || {
        let rest = payload.get(at..).filter(|rest| !rest.is_empty())?;
        let header = if at == 0 { header } else { &later_header };
        let room = mtu - header.len();
        let len = if rest.len() <= room { rest.len() } else { room - room % usize::from(FRAGMENT_UNIT) };
        let mut bytes = [header, &rest[..len]].concat();
        let total_len = bytes.len() as u16;
        let mut fragment = Ipv4Packet::new_unchecked(&mut bytes[..]);
        fragment.set_header_len(header.len() as u8);
        fragment.set_total_len(total_len);
        fragment.set_frag_offset((start + at) as u16);
        fragment.set_more_frags(more || len < rest.len());
        fragment.fill_checksum();
        at += len;
        Some(bytes)
    }))
}

/// The header of all fragments but the first: with those options only that are copied (RFC 791 §3.1). What stands
/// behind an option that is invalid is none.
fn later_header(header: &[u8]) -> Vec<u8> {
    let (fixed, mut options) = header.split_at(HEADER);
    let mut later = fixed.to_vec();
    while let [kind, rest @ ..] = options {
        match *kind {
            END_OF_OPTIONS => break,
            NO_OPERATION => options = rest,
            kind => {
                let len = rest.first().map_or(0, |len| usize::from(*len));
                let Some((option, behind)) = options.split_at_checked(len).filter(|_| len >= 2) else {
                    break;
                };
                if kind & COPIED != 0 {
                    later.extend_from_slice(option);
                }
                options = behind;
            }
        }
    }
    // The length of a header counts words of four bytes.
    later.resize(later.len().next_multiple_of(4), END_OF_OPTIONS);
    later
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{UDP, ipv4};
    use proptest::prelude::*;

    /// Loose source route, copied; record route, not copied; router alert, copied.
    const OPTIONS: [u8; 20] =
        [0x83, 7, 4, 192, 0, 2, 9, 1, 0x07, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, END_OF_OPTIONS];

    fn packet(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 2));
        let mut header = ipv4::packet(from, to, UDP.into(), 0);
        header.extend_from_slice(options);
        let mut bytes = [&header, payload].concat();
        let total_len = bytes.len() as u16;
        let mut view = Ipv4Packet::new_unchecked(&mut bytes[..]);
        view.set_header_len(header.len() as u8);
        view.set_total_len(total_len);
        view.clear_flags();
        view.set_ident(0xABCD);
        view.fill_checksum();
        bytes
    }

    fn change(mut bytes: Vec<u8>, change: impl FnOnce(&mut Ipv4Packet<&mut [u8]>)) -> Vec<u8> {
        let mut view = Ipv4Packet::new_unchecked(&mut bytes[..]);
        change(&mut view);
        view.fill_checksum();
        bytes
    }

    fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        fragments(packet, mtu).unwrap().collect()
    }

    fn header_of(bytes: &[u8]) -> &[u8] {
        &bytes[..usize::from(ipv4::check(bytes).unwrap().header_len())]
    }

    /// RFC 791 §A, example 2: 452 bytes of data, and 280 bytes of them for a net that takes 276 after the header.
    #[test]
    fn rfc_791_appendix_a_example_2() {
        let packet = change(packet(&[], &[7; 452]), |view| view.set_ident(111));
        let [first, second] = &cut(&packet, 280)[..] else { panic!("two") };
        let place = |bytes: &[u8]| {
            let view = ipv4::check(bytes).unwrap();
            (view.total_len(), view.ident(), view.more_frags(), view.frag_offset() / FRAGMENT_UNIT)
        };
        assert_eq!((place(first), place(second)), ((276, 111, true, 0), (216, 111, false, 32)));
    }

    #[test]
    fn only_copied_options_are_in_later_fragments() {
        let packet = packet(&OPTIONS, &[7; 110]);
        let [first, second, third] = &cut(&packet, 90)[..] else { panic!("three") };
        assert_eq!((&header_of(first)[20..], first.len()), (&OPTIONS[..], 40 + 48));
        let copied = [0x83, 7, 4, 192, 0, 2, 9, 0x94, 4, 0, 0, END_OF_OPTIONS];
        // A shorter header leaves room for one unit more.
        assert_eq!((&header_of(second)[20..], second.len()), (&copied[..], 32 + 56));
        assert_eq!((&header_of(third)[20..], third.len()), (&copied[..], 32 + 6));
    }

    #[test]
    fn options_end_where_they_are_invalid() {
        for (options, copied) in [
            ([0x94, 4, 0, 0, 0x83, 1, 0x94, 4], &[0x94, 4, 0, 0][..]),
            ([0x94, 4, 0, 0, 0x83, 5, 0, 0], &[0x94, 4, 0, 0]),
            ([1, 1, 1, 1, 1, 1, 1, 0x94], &[]),
            ([END_OF_OPTIONS, 0, 0, 0, 0x94, 4, 0, 0], &[]),
            ([0x94, 8, 0, 0, 0, 0, 0, 0], &[0x94, 8, 0, 0, 0, 0, 0, 0]),
        ] {
            let fragments = cut(&packet(&options, &[7; 100]), 68);
            assert_eq!(header_of(&fragments[0])[20..], options);
            assert_eq!(header_of(&fragments[1])[20..], *copied);
        }
    }

    #[test]
    fn what_is_not_cut() {
        let large = packet(&[], &[7; 1000]);
        assert!(fragments(&large, 1020).is_none(), "it fits");
        assert!(fragments(&large, 1019).is_some());
        assert!(fragments(&large, 68).is_some() && fragments(&large, 67).is_none());
        assert!(fragments(&change(large.clone(), |view| view.set_dont_frag(true)), 500).is_none());
        assert!(fragments(&change(large.clone(), |view| view.set_version(6)), 500).is_none());
        assert!(fragments(&large[..1019], 500).is_none() && fragments(&[], 500).is_none());
        let reaching = |offset| change(large.clone(), move |view| view.set_frag_offset(offset));
        assert!(fragments(&reaching(64_528), 500).is_some() && fragments(&reaching(64_536), 500).is_none());
        let padded = [&large[..], &[0; 20]].concat();
        assert_eq!(cut(&padded, 500), cut(&large, 500), "what is behind the packet is no part of it");
    }

    #[test]
    fn the_piece_of_a_packet() {
        let whole = packet(&OPTIONS, &[7; 110]);
        assert_eq!(Piece::of(&ipv4::check(&whole).unwrap()), None);
        let datagram = Datagram {
            source: Ipv4Addr::new(192, 0, 2, 1),
            destination: Ipv4Addr::new(198, 51, 100, 2),
            protocol: UDP,
            identification: 0xABCD,
        };
        let pieces: Vec<_> =
            cut(&whole, 90).iter().map(|bytes| Piece::of(&ipv4::check(bytes).unwrap()).unwrap()).collect();
        let piece = |offset, len, last| (datagram, Piece { offset, len, last });
        assert_eq!(pieces, [piece(0, 48, false), piece(48, 56, false), piece(104, 6, true)]);
    }

    /// The payload of fragments, in whatever order they are, and whether it ends with the last of them.
    fn put_together(fragments: &[Vec<u8>], start: usize) -> (Vec<u8>, bool) {
        let mut pieces: Vec<_> = fragments.iter().map(|bytes| ipv4::check(bytes).unwrap()).collect();
        pieces.sort_by_key(Ipv4Packet::frag_offset);
        let mut payload = Vec::new();
        let mut ended = false;
        for piece in &pieces {
            assert_eq!((usize::from(piece.frag_offset()), ended), (start + payload.len(), false));
            payload.extend_from_slice(piece.payload());
            ended = !piece.more_frags();
        }
        (payload, ended)
    }

    proptest! {
        #[test]
        fn pieces_put_together_are_the_packet(
            payload in prop::collection::vec(any::<u8>(), 1..4000),
            options in prop::collection::vec(any::<u8>(), 0..11),
            mtus in prop::collection::vec(68usize..1600, 1..4),
            start in 0u16..8000,
            (more, fragment) in (any::<bool>(), any::<bool>()),
        ) {
            let options = options.repeat(4);
            let mut payload = payload;
            let (start, more) = if fragment { (start, more) } else { (0, false) };
            if more {
                payload.resize(payload.len().next_multiple_of(8), 1);
            }
            prop_assume!(usize::from(start) * 8 + payload.len() <= 65_515);
            let whole = change(packet(&options, &payload), |view| {
                view.set_frag_offset(start * 8);
                view.set_more_frags(more);
            });
            // One link after the other, each of which may cut the pieces again.
            let mut pieces = vec![whole.clone()];
            for mtu in mtus {
                let again = |piece: Vec<u8>| {
                    let smaller = fragments(&piece, mtu).map(Iterator::collect::<Vec<_>>);
                    smaller.unwrap_or_else(|| vec![piece])
                };
                pieces = pieces.into_iter().flat_map(again).collect();
                prop_assert!(pieces.iter().all(|piece| piece.len() <= mtu));
            }
            let (together, ended) = put_together(&pieces, usize::from(start) * 8);
            prop_assert_eq!((together, ended), (payload, !more));
            prop_assert_eq!(&header_of(&pieces[0])[20..], &options);
            for piece in &pieces {
                let (piece, whole) = (ipv4::check(piece).unwrap(), ipv4::check(&whole).unwrap());
                prop_assert!(piece.payload().len() % 8 == 0 || !piece.more_frags());
                let same = |view: &Ipv4Packet<&[u8]>| {
                    let ends = (view.src_addr(), view.dst_addr(), view.next_header());
                    (ends, view.ident(), view.hop_limit(), view.dscp(), view.ecn(), view.dont_frag())
                };
                prop_assert_eq!(same(&piece), same(&whole));
            }
        }

        #[test]
        fn no_packet_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), likely: bool, mtu in 0usize..200) {
            let mut bytes = bytes;
            if likely && bytes.len() > 20 {
                let len = bytes.len() as u16;
                bytes[0] = 0x40 | bytes[0] & 0x0F;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[6] &= !0x40;
            }
            if let Some(fragments) = fragments(&bytes, mtu) {
                let fragments: Vec<_> = fragments.collect();
                prop_assert!(fragments.len() > 1 && fragments.iter().all(|piece| ipv4::check(piece).is_ok()));
            }
        }
    }
}
