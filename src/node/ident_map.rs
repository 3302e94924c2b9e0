//! Identifications: the kernel of a program numbers the datagrams that may be fragmented; the host gives them numbers
//! of its set before they leave, so that those of other sharers of the address are different (PE-ARP rule 63; RFC 6346
//! §5.3.3, RFC 7597 §8.3).
//!
//! A datagram that is atomic – not to be fragmented, and no fragment – needs no number (RFC 6864 §4.1), and keeps what
//! it has.

use core::hash::BuildHasher as _;
use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxBuildHasher;
use smoltcp::time::{Duration, Instant};

use crate::ports::PortBitmap;
use crate::wire::ipv4::updated_checksum;
use crate::wire::{Datagram, Ipv4Packet, Piece};

/// How long a datagram is remembered after its last fragment. A kernel hands out all of them at once; what is missing
/// after that was lost in front of the host.
const IDLE: Duration = Duration::from_secs(5);

/// Datagrams of which some fragments left. Each program that is about to send one has one; where there are more, who
/// was silent for longest is forgotten.
const MAX_DATAGRAMS: usize = 256;

/// Places in the order of numbers, by destination and protocol: numbers must differ only among datagrams with the same
/// of both (RFC 6864 §4.3). Those that have a place in common use numbers up the sooner.
const CURSORS: usize = 256;

/// A datagram of which some fragments left.
#[derive(Debug)]
struct Begun {
    identification: u16,
    /// Bytes of it that left, and its length, once that is known.
    bytes: usize,
    len: Option<usize>,
    used: Instant,
}

/// Numbers of datagrams from one shared address.
#[derive(Debug)]
pub(super) struct IdentMap {
    /// The numbers of the set in an order by chance. Each is used again only when all others have been, as late as can
    /// be, and who sees some does not know the next ones.
    order: Vec<u16>,
    /// The next place in the order, for each group of destinations; the first one by chance, too.
    cursors: [u16; CURSORS],
    begun: BTreeMap<Datagram, Begun>,
    rng: ChaCha8Rng,
}

impl IdentMap {
    /// A map into `identifiers`.
    pub(super) fn new(identifiers: impl IntoIterator<Item = u16>, mut rng: ChaCha8Rng) -> Self {
        let set: PortBitmap = identifiers.into_iter().collect();
        let mut order: Vec<_> = set.ports().collect();
        order.shuffle(&mut rng);
        Self { order, cursors: core::array::from_fn(|_| rng.random()), begun: BTreeMap::new(), rng }
    }

    /// From now on these are the numbers. Those that stay keep their order, so that each is used again after the others.
    pub(super) fn set_identifiers(&mut self, identifiers: impl IntoIterator<Item = u16>) {
        let set: PortBitmap = identifiers.into_iter().collect();
        if self.order.is_empty() {
            *self = Self::new(set.ports(), self.rng.clone());
            return;
        }
        // How many stay of those in front of each place.
        let staying = self.order.iter().scan(0, |staying: &mut u16, identifier| {
            let before = *staying;
            // The last of 65,536 is in front of no place.
            *staying = before.wrapping_add(set.contains(*identifier).into());
            Some(before)
        });
        let staying: Vec<_> = staying.collect();
        for cursor in &mut self.cursors {
            *cursor = staying[usize::from(*cursor) % staying.len()];
        }
        let had: PortBitmap = self.order.iter().copied().collect();
        let mut fresh: Vec<_> = set.ports().filter(|identifier| !had.contains(*identifier)).collect();
        fresh.shuffle(&mut self.rng);
        self.order.retain(|identifier| set.contains(*identifier));
        self.order.extend(fresh);
        self.begun.retain(|_, begun| set.contains(begun.identification));
    }

    /// Gives an outgoing packet a number of the set, and all fragments of one datagram the same; an atomic one stays as
    /// it is. `None` where the set has no numbers. A super-frame stands for several datagrams, which need one each: it
    /// must be cut before.
    pub(super) fn rewrite(&mut self, packet: &mut Ipv4Packet<&mut [u8]>, now: Instant) -> Option<()> {
        let identification = match Piece::of(packet) {
            None if packet.dont_frag() => return Some(()),
            None => self.draw(packet.dst_addr(), packet.next_header().into())?,
            Some((datagram, piece)) => self.of_fragment(datagram, piece, now)?,
        };
        let checksum = updated_checksum(packet.checksum(), packet.ident(), identification);
        packet.set_ident(identification);
        packet.set_checksum(checksum);
        Some(())
    }

    fn of_fragment(&mut self, datagram: Datagram, piece: Piece, now: Instant) -> Option<u16> {
        let earlier = self.begun.remove(&datagram).filter(|begun| now < begun.used + IDLE);
        let mut begun = match earlier {
            Some(begun) => begun,
            None => {
                let identification = self.draw(datagram.destination, datagram.protocol)?;
                Begun { identification, bytes: 0, len: None, used: now }
            }
        };
        begun.used = now;
        // Copies would end it too soon; no kernel sends any.
        begun.bytes += usize::from(piece.len);
        if piece.last {
            begun.len = Some(usize::from(piece.offset) + usize::from(piece.len));
        }
        let identification = begun.identification;
        if begun.len.is_none_or(|len| begun.bytes < len) {
            if self.begun.len() >= MAX_DATAGRAMS {
                let oldest = self.begun.iter().min_by_key(|(_, begun)| begun.used).map(|(oldest, _)| *oldest);
                self.begun.remove(&oldest?);
            }
            self.begun.insert(datagram, begun);
        }
        Some(identification)
    }

    /// The next number for a datagram to this destination.
    fn draw(&mut self, destination: Ipv4Addr, protocol: u8) -> Option<u16> {
        let group = FxBuildHasher.hash_one((destination, protocol)) as usize % CURSORS;
        let at = usize::from(self.cursors[group]).checked_rem(self.order.len())?;
        // Behind the last place is the first one again; behind the last of 65,536 the number is, too.
        self.cursors[group] = (at as u16).wrapping_add(1);
        self.order.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{UDP, fragments, ipv4};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(1)
    }

    const fn at(millis: i64) -> Instant {
        Instant::from_millis_const(millis)
    }

    const fn server(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, last)
    }

    /// A datagram of a program, with the kernel's number and without DF.
    fn sent(to: Ipv4Addr, number: u16, len: usize) -> Vec<u8> {
        change(ipv4::packet(SHARED, to, UDP.into(), len), |packet| {
            packet.clear_flags();
            packet.set_ident(number);
        })
    }

    fn change(mut bytes: Vec<u8>, change: impl FnOnce(&mut Ipv4Packet<&mut [u8]>)) -> Vec<u8> {
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
        change(&mut packet);
        packet.fill_checksum();
        bytes
    }

    fn parts(to: Ipv4Addr, number: u16, len: usize) -> Vec<Vec<u8>> {
        fragments(&sent(to, number, len), 68).unwrap().collect()
    }

    /// The number with which it leaves; nothing else may change.
    fn leaves(map: &mut IdentMap, bytes: &[u8], now: i64) -> Option<u16> {
        let mut rewritten = bytes.to_vec();
        map.rewrite(&mut Ipv4Packet::new_unchecked(&mut rewritten[..]), at(now))?;
        let number = ipv4::check(&rewritten).unwrap().ident();
        let before = ipv4::check(bytes).unwrap().ident();
        assert_eq!(change(rewritten, |packet| packet.set_ident(before)), bytes);
        Some(number)
    }

    #[test]
    fn atomic_packets_stay_as_they_are() {
        let mut map = IdentMap::new(5000..5016, rng());
        let atomic = change(sent(server(1), 7, 100), |packet| packet.set_dont_frag(true));
        let mut rewritten = atomic.clone();
        let (order, cursors) = (map.order.clone(), map.cursors);
        assert_eq!(map.rewrite(&mut Ipv4Packet::new_unchecked(&mut rewritten[..]), at(0)), Some(()));
        assert_eq!(rewritten, atomic);
        assert!(map.order == order && map.cursors == cursors && map.begun.is_empty(), "it costs no number");
        // Without a set, too. RFC 6864 §4: what has DF and is a fragment nevertheless is not atomic.
        let mut none = IdentMap::new([], rng());
        assert_eq!(leaves(&mut none, &atomic, 0), Some(7));
        for not_atomic in [
            change(atomic.clone(), |packet| packet.set_more_frags(true)),
            change(atomic.clone(), |packet| packet.set_frag_offset(8)),
            change(atomic, |packet| packet.set_dont_frag(false)),
        ] {
            assert_eq!(leaves(&mut none, &not_atomic, 0), None);
            assert!((5000..5016).contains(&leaves(&mut map, &not_atomic, 0).unwrap()));
        }
    }

    #[test]
    fn a_number_is_used_again_after_all_others() {
        for count in [1, 15, 1008, 65_536] {
            let mut map = IdentMap::new((0..=u16::MAX).take(count), rng());
            let mut draw = || map.draw(server(1), UDP).unwrap();
            let first: Vec<_> = (0..count).map(|_| draw()).collect();
            assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), count);
            assert!(count < 15 || !first.is_sorted(), "a sequence can be guessed");
            assert!(first.iter().all(|number| draw() == *number));
        }
    }

    #[test]
    fn destinations_use_up_no_numbers_of_each_other() {
        let mut map = IdentMap::new(5000..5016, rng());
        let mut seen = BTreeSet::new();
        for round in 0..16 {
            assert!(seen.insert(leaves(&mut map, &sent(server(1), round, 8), 0).unwrap()));
            leaves(&mut map, &sent(server(2), round, 8), 0).unwrap();
        }
        let first = |to| {
            let mut map = IdentMap::new(5000..6000, rng());
            leaves(&mut map, &sent(server(to), 7, 8), 0)
        };
        assert!(first(1) == first(1) && first(1) != first(2), "the start is by chance");
    }

    #[test]
    fn fragments_of_one_datagram_have_one_number() {
        let mut map = IdentMap::new(5000..5016, rng());
        let (one, other) = (parts(server(1), 7, 200), parts(server(1), 8, 200));
        let mut numbers = BTreeSet::new();
        for (one, other) in one.iter().rev().zip(&other) {
            numbers.insert((leaves(&mut map, one, 0), leaves(&mut map, other, 0)));
        }
        assert_eq!((numbers.len(), map.begun.len()), (1, 0), "whole ones are forgotten");
        let (first, second) = numbers.pop_first().unwrap();
        let again = leaves(&mut map, &one[0], 0);
        assert!(first != second && again != first && again != second, "the kernel uses its number again");
        assert_eq!(leaves(&mut map, &one[1], 4999), again);
        assert_eq!(leaves(&mut map, &one[2], 9998), again);
        assert_ne!(leaves(&mut map, &one[3], 14_998), again, "five seconds later it is another one");
    }

    #[test]
    fn what_is_begun_is_bounded() {
        let mut map = IdentMap::new(5000..6000, rng());
        let begin = |map: &mut IdentMap, number: u16| {
            leaves(map, &parts(server(1), number, 200)[0], i64::from(number)).unwrap()
        };
        let begun: Vec<_> = (0..300).map(|number| begin(&mut map, number)).collect();
        assert_eq!(map.begun.len(), MAX_DATAGRAMS);
        let mut goes_on = |number: u16| leaves(&mut map, &parts(server(1), number, 200)[1], 300).unwrap();
        assert_eq!((goes_on(299), goes_on(44)), (begun[299], begun[44]));
        assert_ne!(goes_on(43), begun[43], "the oldest ones made room");
    }

    #[test]
    fn the_set_changes() {
        let mut map = IdentMap::new(5000..5016, rng());
        let draw = |map: &mut IdentMap| leaves(map, &sent(server(1), 7, 8), 0).unwrap();
        let before: Vec<_> = (0..10).map(|_| draw(&mut map)).collect();
        let (stays, goes) = (parts(server(2), 1, 200), parts(server(2), 2, 200));
        let (number_stays, number_goes) = (leaves(&mut map, &stays[0], 0), leaves(&mut map, &goes[0], 0));
        // It loses one half, of which one number was in use, and gains 8 others.
        let kept: Vec<_> = (5000..5016)
            .filter(|number| Some(*number) != number_goes)
            .filter(|number| number % 2 == 0 || Some(*number) == number_stays)
            .collect();
        map.set_identifiers(kept.iter().copied().chain(7000..7008));
        assert_eq!(leaves(&mut map, &stays[1], 0), number_stays);
        assert_ne!(leaves(&mut map, &goes[1], 0), number_goes);
        let after: Vec<_> = (0..kept.len() + 8).map(|_| draw(&mut map)).collect();
        let mut sorted = after.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, kept.iter().copied().chain(7000..7008).collect::<Vec<_>>());
        let used: Vec<_> = before.iter().filter(|number| kept.contains(number)).copied().collect();
        let again: Vec<_> = after.iter().filter(|number| kept.contains(number)).copied().collect();
        assert!(again.ends_with(&used), "of those that stay, the used ones come last: {again:?}");

        map.set_identifiers([]);
        assert_eq!(leaves(&mut map, &sent(server(1), 7, 8), 0), None);
        assert_eq!(leaves(&mut map, &stays[2], 0), None);
        assert_eq!((map.begun.len(), map.order.len()), (0, 0));
        map.set_identifiers([9, 10]);
        assert!([9, 10].contains(&draw(&mut map)));
    }

    /// A datagram of which some fragments left, with this number.
    struct Leaving {
        given: Option<u16>,
        parts: Vec<Vec<u8>>,
    }

    proptest! {
        /// The kernel's numbers are few, so that it uses them for many datagrams at once, each to another server.
        #[test]
        fn datagrams_on_their_way_have_different_numbers(
            datagrams in prop::collection::vec((0u8..4, 0u16..4, 1usize..600), 1..40),
            order in prop::collection::vec((any::<prop::sample::Index>(), 0i64..10), 400),
        ) {
            let mut map = IdentMap::new(4096..4160, rng());
            let mut waiting: Vec<_> = datagrams.into_iter().map(|(to, number, len)| (server(to), number, len)).collect();
            let mut leaving = BTreeMap::<(Ipv4Addr, u16), Leaving>::new();
            let mut now = 0;
            for (which, gap) in order {
                now += gap;
                // The kernel numbers a datagram once the one before with that number left.
                let next = waiting.pop_if(|(to, number, _)| !leaving.contains_key(&(*to, *number)));
                if let Some((to, number, len)) = next {
                    let whole = sent(to, number, len);
                    let parts = fragments(&whole, 100).map_or_else(|| vec![whole.clone()], Iterator::collect);
                    leaving.insert((to, number), Leaving { given: None, parts });
                }
                let names: Vec<_> = leaving.keys().copied().collect();
                if names.is_empty() {
                    break;
                }
                let name = names[which.index(names.len())];
                let Leaving { given, parts } = leaving.get_mut(&name).unwrap();
                let part = parts.swap_remove(which.index(parts.len()));
                let number = leaves(&mut map, &part, now).unwrap();
                prop_assert!((4096..4160).contains(&number) && given.is_none_or(|given| given == number));
                *given = Some(number);
                if parts.is_empty() {
                    leaving.remove(&name);
                }
                let given = leaving.iter().filter_map(|((to, _), one)| Some((*to, one.given?)));
                let mut given: Vec<_> = given.collect();
                let count = given.len();
                prop_assert_eq!(map.begun.len(), count);
                given.sort_unstable();
                given.dedup();
                prop_assert_eq!(given.len(), count);
            }
        }
    }
}
