//! Which bytes of a datagram came.

use super::FragmentRefused;
use crate::wire::{FRAGMENT_UNIT, Piece};

/// Ranges at once, each behind a gap. The largest datagram in packets of 576 bytes, which every host takes (RFC 791
/// §3.1), has 119 fragments; shuffled at random, they make 30 ranges half-way, and hardly ever 50.
pub(super) const MAX_RANGES: usize = 64;

/// The payload of the largest datagram, in bytes: a total length without a header.
const MAX_PAYLOAD: usize = 65_535 - 20;

/// Ranges of a payload, ascending, with a gap between each two. In units of a fragment offset: what is left over at the
/// end of the last one belongs to no other piece.
#[derive(Debug, Default)]
pub(super) struct Covered {
    /// Of each the first unit, and the one behind it.
    ranges: Vec<(u16, u16)>,
    /// Where the datagram ends, once that is known.
    end: Option<u16>,
}

/// Where a piece goes.
pub(super) struct Place {
    from: u16,
    to: u16,
    /// The index of the first range behind it.
    at: usize,
    joins_left: bool,
    joins_right: bool,
}

impl Covered {
    pub(super) const fn new() -> Self {
        Self { ranges: Vec::new(), end: None }
    }

    /// Where a piece fits in, with none of its bytes there so far.
    pub(super) fn place(&self, piece: Piece) -> Result<Place, FragmentRefused> {
        let end = usize::from(piece.offset) + usize::from(piece.len);
        let aligned = piece.offset.is_multiple_of(FRAGMENT_UNIT)
            && (piece.last || piece.len.is_multiple_of(FRAGMENT_UNIT));
        if piece.len == 0 || !aligned {
            return Err(FragmentRefused::Malformed);
        }
        // MAX_PAYLOAD is less than 8192 units.
        let (from, to) = (piece.offset / FRAGMENT_UNIT, end.div_ceil(usize::from(FRAGMENT_UNIT)) as u16);
        let reach = self.ranges.last().map_or(0, |(_, to)| *to);
        if end > MAX_PAYLOAD || self.end.is_some_and(|end| to > end) || (piece.last && reach > to) {
            return Err(FragmentRefused::BeyondEnd);
        }
        let at = self.ranges.partition_point(|(_, to)| *to <= from);
        let right = self.ranges.get(at).map(|(from, _)| *from);
        if right.is_some_and(|right| right < to) {
            return Err(FragmentRefused::Overlap);
        }
        let joins_left = at > 0 && self.ranges[at - 1].1 == from;
        let joins_right = right == Some(to);
        if self.ranges.len() >= MAX_RANGES && !joins_left && !joins_right {
            return Err(FragmentRefused::TooManyPieces);
        }
        Ok(Place { from, to, at, joins_left, joins_right })
    }

    /// Puts a piece in.
    pub(super) fn insert(&mut self, piece: Piece) -> Result<(), FragmentRefused> {
        let Place { from, to, at, joins_left, joins_right } = self.place(piece)?;
        match (joins_left, joins_right) {
            (true, true) => {
                let (_, to) = self.ranges.remove(at);
                self.ranges[at - 1].1 = to;
            }
            (true, false) => self.ranges[at - 1].1 = to,
            (false, true) => self.ranges[at].0 = from,
            (false, false) => self.ranges.insert(at, (from, to)),
        }
        if piece.last {
            self.end = Some(to);
        }
        Ok(())
    }

    /// Whether all of the datagram came.
    pub(super) fn is_whole(&self) -> bool {
        self.end.is_some_and(|end| self.ranges == [(0, end)])
    }

    #[cfg(test)]
    pub(super) fn ranges(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FragmentRefused::{BeyondEnd, Malformed, Overlap, TooManyPieces};

    const fn piece(offset: u16, len: u16) -> Piece {
        Piece { offset, len, last: false }
    }

    const fn last(offset: u16, len: u16) -> Piece {
        Piece { offset, len, last: true }
    }

    fn covered(pieces: &[Piece]) -> Covered {
        let mut covered = Covered::new();
        for piece in pieces {
            assert_eq!(covered.insert(*piece), Ok(()), "{piece:?}");
        }
        covered
    }

    #[test]
    fn ranges_join() {
        let mut covered = covered(&[piece(32, 8), piece(0, 8), piece(16, 8)]);
        assert_eq!(covered.ranges, [(0, 1), (2, 3), (4, 5)]);
        covered.insert(piece(24, 8)).unwrap();
        assert_eq!(covered.ranges, [(0, 1), (2, 5)]);
        covered.insert(last(40, 3)).unwrap();
        assert_eq!((&covered.ranges[..], covered.end), (&[(0, 1), (2, 6)][..], Some(6)));
        assert!(!covered.is_whole());
        covered.insert(piece(8, 8)).unwrap();
        assert!(covered.ranges == [(0, 6)] && covered.is_whole());
    }

    #[test]
    fn what_does_not_fit() {
        let mut open = covered(&[piece(0, 16), piece(32, 16)]);
        for piece in [piece(0, 16), piece(8, 8), piece(8, 16), piece(24, 16), piece(0, 64), last(40, 8)] {
            assert_eq!(open.insert(piece), Err(Overlap), "{piece:?}");
        }
        for (piece, error) in [
            (piece(16, 0), Malformed),
            (last(16, 0), Malformed),
            (piece(16, 7), Malformed),
            (piece(17, 8), Malformed),
            (last(16, 8), BeyondEnd),
            (last(32, 8), BeyondEnd),
            (piece(65_512, 8), BeyondEnd),
            (last(65_512, 4), BeyondEnd),
            (last(65_528, u16::MAX), BeyondEnd),
        ] {
            assert_eq!(open.insert(piece), Err(error), "{piece:?}");
        }
        assert_eq!((&open.ranges[..], open.end), (&[(0, 2), (4, 6)][..], None), "nothing changed");
        open.insert(last(48, 3)).unwrap();
        assert_eq!(open.insert(piece(56, 8)), Err(BeyondEnd));
        assert_eq!(open.insert(last(56, 1)), Err(BeyondEnd), "another end");
        assert_eq!(open.insert(last(16, 8)), Err(BeyondEnd), "another end");
        assert_eq!(open.insert(last(48, 4)), Err(Overlap));
        assert_eq!(open.insert(piece(48, 8)), Err(Overlap));
        covered(&[last(65_512, 3)]);
    }

    #[test]
    fn gaps_are_bounded() {
        let mut covered = Covered::new();
        let inserted =
            (0..8000).step_by(16).filter(|offset| covered.insert(piece(*offset, 8)).is_ok()).count();
        assert_eq!((inserted, covered.ranges()), (MAX_RANGES, MAX_RANGES));
        assert_eq!(covered.insert(last(9000, 8)), Err(TooManyPieces));
        assert_eq!(covered.insert(piece(8, 8)), Ok(()), "what fills one goes on");
        assert_eq!(covered.ranges(), MAX_RANGES - 1);
        assert_eq!(covered.insert(piece(8000, 8)), Ok(()));
    }
}
