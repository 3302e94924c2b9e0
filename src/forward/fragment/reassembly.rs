//! Datagrams that are for the node itself, put together (RFC 791 §3.2, RFC 815).

use std::collections::BTreeMap;

use smoltcp::time::{Duration, Instant};

use super::FragmentRefused;
use super::covered::Covered;
use crate::wire::{Datagram, Ipv4Packet, Piece};

/// How long the first fragment waits for the others: what RFC 791 §3.2 begins with.
const LIFE_TIME: Duration = Duration::from_secs(15);
/// Bytes of all datagrams at once: as much as is held for one address, enough for sixteen of the largest.
const MAX_BYTES: usize = 1 << 20;
/// Datagrams at once.
const MAX_DATAGRAMS: usize = 64;
/// Bytes of a header without options.
const HEADER: usize = 20;

/// A datagram of which a part came.
#[derive(Debug)]
struct Partial {
    covered: Covered,
    /// That of the first fragment; empty before it came.
    header: Vec<u8>,
    payload: Vec<u8>,
    since: Instant,
}

/// Datagrams of which a part came. The oldest one makes room.
#[derive(Debug, Default)]
pub struct Reassembly {
    datagrams: BTreeMap<Datagram, Partial>,
    /// Of all payloads.
    bytes: usize,
}

impl Reassembly {
    /// None so far.
    pub const fn new() -> Self {
        Self { datagrams: BTreeMap::new(), bytes: 0 }
    }

    /// Takes in a fragment, whose header has been checked; the datagram, if that is whole now.
    ///
    /// # Errors
    /// See [`FragmentRefused`].
    pub fn add(&mut self, fragment: &[u8], now: Instant) -> Result<Option<Vec<u8>>, FragmentRefused> {
        let packet = Ipv4Packet::new_checked(fragment).map_err(|_| FragmentRefused::Malformed)?;
        let (datagram, piece) = Piece::of(&packet).ok_or(FragmentRefused::Malformed)?;
        self.forget_old(now);
        let mut partial = self.take(&datagram).unwrap_or_else(|| Partial {
            covered: Covered::new(),
            header: Vec::new(),
            payload: Vec::new(),
            since: now,
        });
        if let Err(refused) = partial.covered.insert(piece) {
            self.keep(datagram, partial);
            return Err(refused);
        }
        let (from, to) = (usize::from(piece.offset), usize::from(piece.offset) + usize::from(piece.len));
        if partial.payload.len() < to {
            partial.payload.resize(to, 0);
        }
        partial.payload[from..to].copy_from_slice(packet.payload());
        if from == 0 {
            partial.header = fragment[..usize::from(packet.header_len())].to_vec();
        }
        if !partial.covered.is_whole() {
            self.keep(datagram, partial);
            return Ok(None);
        }
        Ok(whole(partial))
    }

    fn take(&mut self, datagram: &Datagram) -> Option<Partial> {
        let partial = self.datagrams.remove(datagram)?;
        self.bytes -= partial.payload.len();
        Some(partial)
    }

    fn keep(&mut self, datagram: Datagram, partial: Partial) {
        let len = partial.payload.len();
        while self.datagrams.len() >= MAX_DATAGRAMS || self.bytes + len > MAX_BYTES {
            let oldest = self.datagrams.iter().min_by_key(|(_, partial)| partial.since);
            let Some(oldest) = oldest.map(|(oldest, _)| *oldest) else { break };
            self.take(&oldest);
        }
        if len > 0 {
            self.bytes += len;
            self.datagrams.insert(datagram, partial);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        self.datagrams.retain(|_, partial| {
            let stays = now < partial.since + LIFE_TIME;
            if !stays {
                self.bytes -= partial.payload.len();
            }
            stays
        });
    }
}

/// The packet as it was sent; `None` where it is larger than a packet can be.
fn whole(Partial { mut header, payload, .. }: Partial) -> Option<Vec<u8>> {
    header.extend_from_slice(&payload);
    let total = u16::try_from(header.len()).ok().filter(|_| header.len() >= HEADER)?;
    let mut packet = Ipv4Packet::new_unchecked(&mut header[..]);
    packet.set_total_len(total);
    packet.set_more_frags(false);
    packet.fill_checksum();
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{IpProtocol, fragments, ipv4};
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn packet(number: u16, len: usize) -> Vec<u8> {
        let (from, to) = (Ipv4Addr::new(203, 0, 113, 80), Ipv4Addr::new(198, 51, 100, 2));
        let mut bytes = ipv4::packet(from, to, IpProtocol::Icmp, len);
        for (at, byte) in bytes[HEADER..].iter_mut().enumerate() {
            *byte = at as u8;
        }
        let mut view = Ipv4Packet::new_unchecked(&mut bytes[..]);
        view.set_dont_frag(false);
        view.set_ident(number);
        view.fill_checksum();
        bytes
    }

    fn pieces(packet: &[u8]) -> Vec<Vec<u8>> {
        fragments(packet, 576).expect("it is larger").collect()
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_are_the_packet(len in 600..10_000_usize, seed: u64) {
            use rand::{SeedableRng, seq::SliceRandom};
            let packet = packet(1, len);
            let mut pieces = pieces(&packet);
            pieces.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
            let mut reassembly = Reassembly::new();
            let (last, others) = pieces.split_last().unwrap();
            for piece in others {
                prop_assert_eq!(reassembly.add(piece, Instant::ZERO), Ok(None));
                prop_assert_eq!(reassembly.add(piece, Instant::ZERO), Err(FragmentRefused::Overlap));
            }
            prop_assert_eq!(reassembly.add(last, Instant::ZERO), Ok(Some(packet)));
            prop_assert_eq!((reassembly.bytes, reassembly.datagrams.len()), (0, 0));
        }
    }

    #[test]
    fn what_is_never_whole_is_bounded_and_forgotten() {
        let mut reassembly = Reassembly::new();
        for number in 0..1000 {
            let pieces = pieces(&packet(number, 60_000));
            assert_eq!(reassembly.add(&pieces[pieces.len() - 1], Instant::ZERO), Ok(None));
            assert!(reassembly.bytes <= MAX_BYTES && reassembly.datagrams.len() <= MAX_DATAGRAMS);
        }
        assert!(reassembly.datagrams.len() > 10, "as many as there is room for");
        let small = pieces(&packet(1, 600));
        assert_eq!(reassembly.add(&small[0], Instant::ZERO + LIFE_TIME), Ok(None));
        assert_eq!(reassembly.datagrams.len(), 1);
        assert_eq!(reassembly.add(&small[1], Instant::ZERO + LIFE_TIME * 2), Ok(None), "too late");
    }
}
