//! Where fragments go, what is held of them, and who makes room.

use FragmentRefused::{BeyondEnd, Full, Malformed, Overlap, Tiny, TooManyPieces};
use proptest::prelude::*;

use super::*;
use crate::wire::{FlowKind, UDP};

const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

const fn at(millis: i64) -> Instant {
    Instant::from_millis_const(millis)
}

/// To the shared address with this last octet.
fn datagram(destination: u8, identification: u16) -> Datagram {
    let destination = Ipv4Addr::new(198, 51, 100, destination);
    Datagram { source: SERVER, destination, protocol: UDP, identification }
}

fn tcp(identification: u16) -> Datagram {
    Datagram { protocol: TCP, ..datagram(1, identification) }
}

const fn piece(offset: u16, len: u16) -> Piece {
    Piece { offset, len, last: false }
}

const fn last(offset: u16, len: u16) -> Piece {
    Piece { offset, len, last: true }
}

/// The key of the first fragment with this number, as those that follow it have it.
fn key(datagram: Datagram, number: u16) -> FlowKey {
    FlowKey {
        source_address: datagram.source,
        destination_address: datagram.destination,
        protocol: datagram.protocol,
        source: Some(53),
        destination: Some(number),
        kind: FlowKind::Transport,
        embedded_destination: None,
        headless: true,
    }
}

/// Everything that comes out.
fn drained<T>(fragments: &mut Fragments<T>) -> (Vec<(u16, T)>, Vec<T>) {
    let port = |(key, held): (FlowKey, T)| (key.destination.unwrap(), held);
    let released = core::iter::from_fn(|| fragments.poll_released()).map(port).collect();
    (released, core::iter::from_fn(|| fragments.poll_expired()).collect())
}

/// Every bound, and that what is kept twice is the same.
fn check<T>(fragments: &Fragments<T>) {
    let Fragments { datagrams, deadlines, queues, sizes, bytes, .. } = fragments;
    assert!(datagrams.len() <= MAX_DATAGRAMS && bytes.total <= MAX_HELD_BYTES_IN_ALL);
    assert_eq!((deadlines.len(), sizes.total), (datagrams.len(), datagrams.len()));
    assert_eq!(queues.values().map(BTreeSet::len).sum::<usize>(), datagrams.len());
    for (queue, queued) in queues {
        assert!((1..=queue.limit()).contains(&queued.len()));
        assert_eq!(sizes.of(*queue), queued.len());
    }
    let mut held = BTreeMap::<_, usize>::new();
    for (datagram, parts) in datagrams {
        assert!(deadlines.contains(&(parts.deadline, *datagram)));
        assert!(queues[&Queue::of(datagram, parts)].contains(&(parts.deadline, *datagram)));
        assert!(parts.held.len() <= MAX_HELD && parts.covered.ranges() <= covered::MAX_RANGES);
        assert!(!parts.covered.is_whole() && (parts.key.is_none() || parts.held.is_empty()));
        assert_eq!(parts.held.is_empty(), parts.held_bytes == 0);
        *held.entry(datagram.destination).or_default() += parts.held_bytes;
    }
    held.retain(|_, bytes| *bytes > 0);
    assert!(held.values().all(|bytes| *bytes <= MAX_HELD_BYTES));
    assert_eq!((&held, held.values().sum()), (&bytes.of, bytes.total));
    for shares in [sizes.ranked.len() == sizes.of.len(), bytes.ranked.len() == bytes.of.len()] {
        assert!(shares);
    }
}

#[test]
fn later_ones_follow_the_first() {
    let mut fragments = Fragments::new();
    let one = datagram(1, 7);
    let hold = || panic!("the first one came");
    assert_eq!(fragments.first(one, piece(0, 16), key(one, 1), at(0)), Ok(()));
    assert_eq!(fragments.later(one, piece(16, 16), 36, hold, at(1)), Ok(Some(key(one, 1))));
    assert_eq!(fragments.later(one, last(32, 5), 25, hold, at(2)), Ok(Some(key(one, 1))));
    assert_eq!((fragments.datagrams(), fragments.poll_timeout()), (0, None), "it is whole");
    assert_eq!(drained::<()>(&mut fragments), (vec![], vec![]));
}

#[test]
fn what_comes_before_the_first_waits_for_it() {
    let mut fragments = Fragments::new();
    let (one, other) = (datagram(1, 7), datagram(1, 8));
    assert_eq!(fragments.later(one, last(32, 5), 25, || 'c', at(0)), Ok(None));
    assert_eq!(fragments.later(other, last(32, 5), 25, || 'x', at(1)), Ok(None));
    assert_eq!(fragments.later(one, piece(16, 16), 36, || 'b', at(1)), Ok(None));
    assert_eq!((fragments.held_bytes(), fragments.datagrams()), (86, 2));
    check(&fragments);
    assert_eq!(fragments.first(one, piece(0, 16), key(one, 1), at(1999)), Ok(()));
    assert_eq!(
        drained(&mut fragments),
        (vec![(1, 'c'), (1, 'b')], vec![]),
        "in the order in which they came"
    );
    assert_eq!((fragments.held_bytes(), fragments.datagrams()), (25, 1), "it is whole");
    check(&fragments);
}

#[test]
fn what_waits_too_long_expires() {
    let mut fragments = Fragments::new();
    let one = datagram(1, 7);
    assert_eq!(fragments.later(one, piece(16, 16), 36, || 'b', at(0)), Ok(None));
    assert_eq!(fragments.later(one, last(32, 5), 25, || 'c', at(1500)), Ok(None));
    assert_eq!(fragments.poll_timeout(), Some(at(2000)), "two seconds from the first that is held");
    fragments.handle_timeout(at(1999));
    assert_eq!(drained(&mut fragments), (vec![], vec![]));
    // What comes when it is due finds it gone, whether or not the timer was served.
    assert_eq!(fragments.first(one, piece(0, 16), key(one, 1), at(2000)), Ok(()));
    assert_eq!(drained(&mut fragments), (vec![], vec!['b', 'c']));
    assert_eq!(fragments.later(one, piece(16, 16), 36, || 'd', at(2000)), Ok(Some(key(one, 1))));
    check(&fragments);
}

#[test]
fn a_first_one_is_remembered_while_there_is_news_but_not_for_ever() {
    let mut fragments = Fragments::<()>::new();
    let one = datagram(1, 7);
    fragments.first(one, piece(0, 8), key(one, 1), at(0)).unwrap();
    for step in 1..10 {
        let now = i64::from(step) * 1600;
        let passed = fragments.later(one, piece(step * 8, 8), 28, || (), at(now));
        assert_eq!(passed, Ok(Some(key(one, 1))));
        let until = at((now + 2000).min(15_000));
        assert_eq!(fragments.poll_timeout(), Some(until));
        // A copy is no news.
        assert_eq!(fragments.later(one, piece(step * 8, 8), 28, || (), at(now + 1)), Err(Overlap));
        assert_eq!(fragments.poll_timeout(), Some(until));
        check(&fragments);
    }
    fragments.handle_timeout(at(14_999));
    assert_eq!(fragments.datagrams(), 1);
    fragments.handle_timeout(at(15_000));
    assert_eq!(fragments.datagrams(), 0);
}

#[test]
fn a_number_is_used_again() {
    let mut fragments = Fragments::new();
    let one = datagram(1, 7);
    for number in 1..=3 {
        assert_eq!(fragments.later(one, last(8, 8), 28, || number, at(0)), Ok(None));
        assert_eq!(fragments.first(one, piece(0, 8), key(one, number), at(0)), Ok(()));
        assert_eq!(drained(&mut fragments), (vec![(number, number)], vec![]));
    }
}

/// RFC 1858 and RFC 3128: no two fragments can show one TCP header here and make another one there.
#[test]
fn tiny_and_overlapping_fragments_are_dropped() {
    let mut fragments = Fragments::new();
    assert_eq!(fragments.first(tcp(1), piece(0, 8), key(tcp(1), 1), at(0)), Err(Tiny));
    assert_eq!(fragments.later(tcp(1), piece(8, 8), 28, || 'a', at(0)), Err(Tiny));
    assert_eq!(fragments.later(tcp(1), last(8, 100), 120, || 'a', at(0)), Err(Tiny));
    assert_eq!(fragments.datagrams(), 0, "nothing is kept of them");
    assert_eq!(fragments.first(tcp(1), piece(0, 16), key(tcp(1), 1), at(0)), Ok(()));
    assert_eq!(fragments.later(tcp(1), piece(8, 8), 28, || 'a', at(0)), Err(Tiny));
    assert_eq!(fragments.first(tcp(1), piece(0, 16), key(tcp(1), 2), at(0)), Err(Overlap));
    assert_eq!(fragments.first(tcp(1), piece(0, 24), key(tcp(1), 2), at(0)), Err(Overlap));
    assert_eq!(fragments.later(tcp(1), piece(16, 8), 28, || 'a', at(0)), Ok(Some(key(tcp(1), 1))));
    // What has its ports in 8 bytes.
    let udp = datagram(1, 1);
    assert_eq!(fragments.first(udp, piece(0, 8), key(udp, 1), at(0)), Ok(()));
    assert_eq!(fragments.later(udp, piece(8, 8), 28, || 'b', at(0)), Ok(Some(key(udp, 1))));
    // A first one that overlaps with what waits for it.
    let other = datagram(1, 2);
    assert_eq!(fragments.later(other, piece(16, 8), 28, || 'c', at(0)), Ok(None));
    assert_eq!(fragments.later(other, piece(16, 8), 28, || 'd', at(0)), Err(Overlap));
    assert_eq!(fragments.first(other, piece(0, 24), key(other, 1), at(0)), Err(Overlap));
    assert_eq!(fragments.first(other, piece(0, 16), key(other, 2), at(0)), Ok(()));
    assert_eq!(drained(&mut fragments), (vec![(2, 'c')], vec![]));
    check(&fragments);
}

#[test]
fn malformed_fragments_are_dropped() {
    let mut fragments = Fragments::new();
    let one = datagram(1, 1);
    assert_eq!(fragments.first(one, piece(8, 8), key(one, 1), at(0)), Err(Malformed));
    assert_eq!(fragments.later(one, piece(0, 8), 28, || (), at(0)), Err(Malformed));
    assert_eq!(fragments.first(one, piece(0, 9), key(one, 1), at(0)), Err(Malformed));
    assert_eq!(fragments.later(one, last(8, 0), 28, || (), at(0)), Err(Malformed));
    assert_eq!(fragments.later(one, last(65_528, 8), 28, || (), at(0)), Err(BeyondEnd));
    assert_eq!(fragments.datagrams(), 0);
    assert_eq!(fragments.later(one, last(16, 8), 28, || (), at(0)), Ok(None));
    assert_eq!(fragments.first(one, piece(0, 32), key(one, 1), at(0)), Err(BeyondEnd));
    assert_eq!(fragments.first(one, last(0, 8), key(one, 1), at(0)), Err(BeyondEnd), "another end");
    let whole = datagram(1, 2);
    assert_eq!(fragments.first(whole, last(0, 8), key(whole, 1), at(0)), Ok(()));
    assert_eq!(fragments.datagrams(), 1, "of a whole datagram nothing else comes");
}

#[test]
fn sixteen_of_a_datagram_are_held() {
    let mut fragments = Fragments::new();
    let one = datagram(1, 1);
    let later = |fragments: &mut Fragments<u16>, number: u16| {
        fragments.later(one, piece(number * 8, 8), 28, || number, at(0))
    };
    assert!((1..=16).all(|number| later(&mut fragments, number) == Ok(None)));
    assert_eq!(later(&mut fragments, 17), Err(TooManyPieces));
    assert_eq!(fragments.first(one, piece(0, 8), key(one, 9), at(0)), Ok(()));
    assert_eq!(drained(&mut fragments), ((1..=16).map(|number| (9, number)).collect(), vec![]));
    assert_eq!(later(&mut fragments, 17), Ok(Some(key(one, 9))));
}

/// A flood of first fragments ends only datagrams to its own destination, and nothing that is held.
#[test]
fn first_fragments_make_room_for_each_other() {
    let mut fragments = Fragments::new();
    let (elsewhere, waiting) = (datagram(2, 0), Datagram { source: Ipv4Addr::LOCALHOST, ..datagram(1, 0) });
    fragments.first(elsewhere, piece(0, 8), key(elsewhere, 1), at(0)).unwrap();
    fragments.later(waiting, piece(8, 8), 28, || 'w', at(0)).unwrap();
    for number in 0..5000 {
        let one = datagram(1, number);
        assert_eq!(
            fragments.first(one, piece(0, 8), key(one, number), at(1)),
            Ok(()),
            "the newest one has room"
        );
    }
    check(&fragments);
    assert_eq!(fragments.datagrams(), MAX_KNOWN + 2);
    let known = |fragments: &mut Fragments<char>, one| fragments.later(one, piece(8, 8), 28, || 'l', at(2));
    for (number, remembered) in
        [(4999, true), (5000 - MAX_KNOWN as u16, true), (4999 - MAX_KNOWN as u16, false)]
    {
        let one = datagram(1, number);
        assert_eq!(known(&mut fragments, one), Ok(remembered.then_some(key(one, number))), "{number}");
    }
    assert_eq!(known(&mut fragments, elsewhere), Ok(Some(key(elsewhere, 1))));
    assert_eq!(fragments.first(waiting, piece(0, 8), key(waiting, 1), at(2)), Ok(()));
    assert_eq!(drained(&mut fragments), (vec![(1, 'w')], vec![]));
    check(&fragments);
}

/// A flood of later fragments ends only what waits for the same destination, and no datagram whose first one came.
#[test]
fn held_fragments_make_room_for_each_other() {
    let mut fragments = Fragments::new();
    let (elsewhere, known) = (datagram(2, 0), Datagram { source: Ipv4Addr::LOCALHOST, ..datagram(1, 0) });
    fragments.later(elsewhere, piece(8, 8), 28, || 10_000, at(0)).unwrap();
    fragments.first(known, piece(0, 8), key(known, 1), at(0)).unwrap();
    for number in 0..5000 {
        let held = fragments.later(datagram(1, number), piece(8, 8), 28, || number, at(1));
        assert_eq!(held, Ok(None), "the newest one has room");
    }
    check(&fragments);
    assert_eq!(
        drained(&mut fragments),
        (vec![], (0..5000 - MAX_WAITING as u16).collect()),
        "the oldest ones go"
    );
    assert_eq!(fragments.datagrams(), MAX_WAITING + 2);
    assert_eq!(fragments.later(known, piece(8, 8), 28, || 0, at(2)), Ok(Some(key(known, 1))));
    fragments.first(elsewhere, piece(0, 8), key(elsewhere, 3), at(2)).unwrap();
    assert_eq!(drained(&mut fragments), (vec![(3, 10_000)], vec![]));
}

#[test]
fn held_bytes_of_a_destination_are_bounded() {
    let mut fragments = Fragments::new();
    let later = |fragments: &mut Fragments<u16>, destination, number: u16, offset, bytes| {
        fragments.later(datagram(destination, number), piece(offset, 8), bytes, || number, at(0))
    };
    later(&mut fragments, 2, 99, 8, 1000).unwrap();
    let half = MAX_HELD_BYTES / 2;
    assert_eq!(later(&mut fragments, 1, 1, 8, half), Ok(None));
    assert_eq!(later(&mut fragments, 1, 2, 8, half), Ok(None));
    assert_eq!(later(&mut fragments, 1, 3, 8, MAX_HELD_BYTES + 1), Err(Full));
    assert_eq!(later(&mut fragments, 1, 2, 8, 1), Err(Overlap), "a copy");
    assert_eq!(drained(&mut fragments), (vec![], vec![]), "what is not held needs no room");
    assert_eq!(later(&mut fragments, 1, 1, 16, 1), Ok(None));
    assert_eq!(drained(&mut fragments), (vec![], vec![2]), "the oldest one, but for the one that grows");
    assert_eq!(later(&mut fragments, 1, 3, 8, half), Ok(None));
    assert_eq!(drained(&mut fragments), (vec![], vec![1, 1]));
    assert_eq!(later(&mut fragments, 1, 3, 16, half + 1), Err(Full), "all of it is its own");
    assert_eq!(later(&mut fragments, 1, 3, 16, half), Ok(None));
    assert_eq!(later(&mut fragments, 1, 3, 24, 1), Err(Full));
    assert_eq!((drained(&mut fragments), fragments.held_bytes()), ((vec![], vec![]), MAX_HELD_BYTES + 1000));
    check(&fragments);
}

#[test]
fn held_bytes_in_all_are_of_those_who_have_least() {
    let mut fragments = Fragments::new();
    let later = |fragments: &mut Fragments<u8>, to, number, bytes| {
        fragments.later(datagram(to, number), piece(8, 8), bytes, || to, at(0))
    };
    later(&mut fragments, 0, 0, 10_000).unwrap();
    for destination in 1..=32 {
        for number in 0..MAX_WAITING as u16 {
            assert_eq!(later(&mut fragments, destination, number, MAX_HELD_BYTES / 64), Ok(None));
        }
    }
    check(&fragments);
    let (released, expired) = drained(&mut fragments);
    assert!(
        released.is_empty() && !expired.is_empty() && !expired.contains(&0),
        "the one with least loses nothing"
    );
    let shares: Vec<_> = (1..=32).map(|to| fragments.bytes.of(datagram(to, 0).destination)).collect();
    assert!(
        shares.iter().all(|share| share.abs_diff(MAX_HELD_BYTES / 2) <= MAX_HELD_BYTES / 64),
        "{shares:?}"
    );

    // Who has most of it, all in one datagram, gets no more.
    let mut fragments = Fragments::new();
    for destination in 1..=16 {
        later(&mut fragments, destination, 0, MAX_HELD_BYTES - 1).unwrap();
    }
    later(&mut fragments, 0, 0, 16).unwrap();
    let more = fragments.later(datagram(16, 0), piece(16, 8), 1, || 16, at(0));
    assert_eq!((more, drained(&mut fragments)), (Err(Full), (vec![], vec![])));
    check(&fragments);
}

#[test]
fn datagrams_in_all_are_of_those_who_have_least() {
    let mut fragments = Fragments::<()>::new();
    let first = |fragments: &mut Fragments<()>, one| fragments.first(one, piece(0, 8), key(one, 1), at(0));
    first(&mut fragments, datagram(0, 0)).unwrap();
    for destination in 1..=32 {
        for number in 0..1000 {
            assert_eq!(first(&mut fragments, datagram(destination, number)), Ok(()));
        }
    }
    check(&fragments);
    assert_eq!(fragments.datagrams(), MAX_DATAGRAMS);
    let shares = (1..=32).map(|to| fragments.sizes.of(Queue { known: true, ..queue(to) }));
    assert!(shares.into_iter().all(|share| share.abs_diff(MAX_DATAGRAMS / 32) <= 1));
    let one = datagram(0, 0);
    assert_eq!(fragments.later(one, piece(8, 8), 28, || (), at(0)), Ok(Some(key(one, 1))));
    fragments.handle_timeout(at(2000));
    assert_eq!((fragments.datagrams(), fragments.poll_timeout()), (0, None));
    check(&fragments);
}

fn queue(destination: u8) -> Queue {
    Queue { destination: datagram(destination, 0).destination, known: false }
}

/// What a fragment came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passed { first: u16 },
    Held,
    Refused(FragmentRefused),
}

/// One datagram, unit by unit.
#[derive(Default)]
struct Naive {
    /// Which units came.
    units: Vec<u16>,
    end: Option<u16>,
    first: Option<u16>,
    /// Number and time.
    held: Vec<u16>,
    since: i64,
    until: i64,
}

/// The rules once more, without any thought of cost, and with no bounds but those of one datagram.
#[derive(Default)]
struct Model {
    datagrams: Vec<(Datagram, Naive)>,
    released: Vec<(u16, u16)>,
    expired: Vec<u16>,
}

impl Model {
    fn expire(&mut self, now: i64) {
        self.datagrams.sort_by_key(|(datagram, naive)| (naive.until, *datagram));
        let (gone, stay): (Vec<_>, _) =
            core::mem::take(&mut self.datagrams).into_iter().partition(|(_, one)| one.until <= now);
        self.datagrams = stay;
        self.expired.extend(gone.into_iter().flat_map(|(_, one)| one.held));
    }

    fn give(&mut self, number: u16, datagram: Datagram, piece: Piece, now: i64) -> Fate {
        self.expire(now);
        let (start, end) = (usize::from(piece.offset), usize::from(piece.offset) + usize::from(piece.len));
        if datagram.protocol == TCP && (start == 8 || (start == 0 && end < 16 && !piece.last)) {
            return Fate::Refused(Tiny);
        }
        if start == end || (!piece.last && end % 8 != 0) {
            return Fate::Refused(Malformed);
        }
        let at = self.datagrams.iter().position(|(other, _)| *other == datagram);
        let mut naive = at.map(|at| self.datagrams.remove(at).1).unwrap_or(Naive {
            since: now,
            until: now + 2000,
            ..Naive::default()
        });
        let known = at.is_some();
        let units: Vec<_> = (start..end).step_by(8).map(|byte| byte as u16 / 8).collect();
        let behind = *units.last().unwrap() + 1;
        let reach = naive.units.iter().max().map_or(0, |unit| unit + 1);
        let refused =
            if end > 65_515 || naive.end.is_some_and(|end| behind > end) || (piece.last && reach > behind) {
                Some(BeyondEnd)
            } else if units.iter().any(|unit| naive.units.contains(unit)) {
                Some(Overlap)
            } else if start > 0 && naive.first.is_none() && naive.held.len() == 16 {
                Some(TooManyPieces)
            } else {
                None
            };
        if let Some(refused) = refused {
            if known {
                self.datagrams.push((datagram, naive));
            }
            return Fate::Refused(refused);
        }
        naive.units.extend(units);
        if piece.last {
            naive.end = Some(behind);
        }
        if start == 0 {
            naive.first = Some(number);
            self.released.extend(naive.held.drain(..).map(|held| (number, held)));
        }
        let fate = match naive.first {
            Some(first) => {
                naive.until = (now + 2000).min(naive.since + 15_000);
                Fate::Passed { first }
            }
            None => {
                naive.held.push(number);
                Fate::Held
            }
        };
        if naive.first.is_none() || naive.end.is_none_or(|end| naive.units.len() < usize::from(end)) {
            self.datagrams.push((datagram, naive));
        }
        fate
    }
}

/// Fragments of one datagram: cut, of which some are lost, come twice, or are of another size, in any order.
fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let cut =
        (prop::collection::vec((1u16..5, 0u8..12, 0u16..4), 1..40), 1u16..=8).prop_map(|(cuts, tail)| {
            let mut pieces = Vec::new();
            let mut offset = 0;
            let count = cuts.len();
            for (at, (units, fate, shift)) in cuts.into_iter().enumerate() {
                let end = at + 1 == count;
                let len = if end { (units - 1) * 8 + tail } else { units * 8 };
                let whole = Piece { offset, len, last: end };
                match fate {
                    0 => {}
                    1 => pieces.extend([whole, whole]),
                    2 => pieces.extend([whole, Piece { offset: offset.saturating_sub(shift * 8), ..whole }]),
                    3 => pieces.extend([whole, Piece { len: len + shift, ..whole }]),
                    4 => pieces.extend([whole, Piece { last: !end, ..whole }]),
                    _ => pieces.push(whole),
                }
                offset += len;
            }
            pieces
        });
    (cut.prop_shuffle(), any::<bool>()).prop_map(|(mut pieces, ordered)| {
        if ordered {
            pieces.sort_by_key(|piece| piece.offset);
        }
        pieces
    })
}

proptest! {
    #[test]
    fn every_fragment_goes_where_its_first_goes(
        datagrams in prop::collection::vec((0u8..3, 0u16..3, any::<bool>(), pieces()), 1..8),
        order in prop::collection::vec((any::<prop::sample::Index>(), 0i64..400, 0u8..40), 400),
    ) {
        // Their fragments side by side, with times between them.
        let mut queues: Vec<_> = datagrams
            .into_iter()
            .map(|(destination, id, is_tcp, pieces)| {
                let one = if is_tcp { tcp(id) } else { datagram(destination, id) };
                (one, VecDeque::from(pieces))
            })
            .collect();
        let (mut fragments, mut model) = (Fragments::new(), Model::default());
        let mut came: Vec<(Datagram, Piece, i64)> = Vec::new();
        let mut passed = BTreeMap::<u16, Vec<(Datagram, Piece)>>::new();
        let mut now = 0;
        for (which, gap, pause) in order {
            queues.retain(|(_, pieces)| !pieces.is_empty());
            if queues.is_empty() {
                break;
            }
            let at_queue = which.index(queues.len());
            let (one, pieces) = &mut queues[at_queue];
            let (one, piece) = (*one, pieces.pop_front().unwrap());
            let next = now + match pause { 0 => gap * 10, 1..8 => gap, _ => 0 };
            while let Some(deadline) = fragments.poll_timeout().filter(|deadline| *deadline <= at(next)) {
                prop_assert!(deadline > at(now), "deadlines that are due were served");
                now = deadline.total_millis();
                fragments.handle_timeout(deadline);
                prop_assert!(fragments.poll_timeout().is_none_or(|later| later > deadline));
                model.expire(now);
            }
            now = next;
            let number = came.len() as u16;
            came.push((one, piece, now));
            let fate = if piece.offset == 0 {
                match fragments.first(one, piece, key(one, number), at(now)) {
                    Ok(()) => Fate::Passed { first: number },
                    Err(refused) => Fate::Refused(refused),
                }
            } else {
                match fragments.later(one, piece, 20 + usize::from(piece.len), || number, at(now)) {
                    Ok(Some(key)) => Fate::Passed { first: key.destination.unwrap() },
                    Ok(None) => Fate::Held,
                    Err(refused) => Fate::Refused(refused),
                }
            };
            prop_assert_eq!(fate, model.give(number, one, piece, now), "{:?} of {:?}", piece, one);
            check(&fragments);
            let (released, expired) = drained(&mut fragments);
            prop_assert_eq!(&released, &core::mem::take(&mut model.released));
            prop_assert_eq!(&expired, &core::mem::take(&mut model.expired));
            prop_assert!(released.iter().all(|(_, held)| now - came[usize::from(*held)].2 < 2000));
            if let Fate::Passed { first } = fate {
                passed.entry(first).or_default().push((one, piece));
            }
            for (first, held) in released {
                let (one, piece, _) = came[usize::from(held)];
                passed.entry(first).or_default().push((one, piece));
            }
        }
        // Behind one first fragment: nothing of another datagram, and no byte twice.
        for (first, pieces) in &passed {
            prop_assert!(pieces.iter().all(|(one, _)| *one == came[usize::from(*first)].0));
            let bytes = |piece: &Piece| piece.offset..piece.offset + piece.len;
            let mut all: Vec<_> = pieces.iter().flat_map(|(_, piece)| bytes(piece)).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), count);
        }
        fragments.handle_timeout(at(now + 15_000));
        prop_assert_eq!((fragments.datagrams(), fragments.held_bytes()), (0, 0));
        check(&fragments);
    }
}
