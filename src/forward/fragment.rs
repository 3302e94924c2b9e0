//! Fragments on their way (PE-ARP rule 63). Only the first fragment of a datagram has the ports that name its owner:
//! later ones go where it went, and are held where they come before it. Nothing is put together here; fragments leave
//! as they came, each byte of a datagram once.
//!
//! ```text
//!            a later one                     the first one                   the last byte that was missing
//!   (gone) ──────────────> WAITING, held ──────────────────> KNOWN, passing ───────────────────────────────> (gone)
//!      │                      │ 2 s, or no room                  ^    │ 2 s without news, 15 s in all, or no room
//!      │                      └──> (gone), held ones expire      │    └──> (gone)
//!      └─────────────────────────────────────────────────────────┘
//! ```
//!
//! **Who makes room.** Sources are easily forged, destinations are not: so what is bounded is bounded for each
//! destination, separately for WAITING and KNOWN, and the oldest datagram makes room, not the newest. A flood of first
//! or of later fragments ends only datagrams of its own kind and to its own destination, and it must be so fast that a
//! whole queue passes between two fragments of one datagram. Where a bound in all is reached, the destination that has
//! most gives something up.

mod covered;
mod reassembly;
#[cfg(test)]
mod tests;

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smoltcp::time::{Duration, Instant};

use self::covered::Covered;
pub use self::reassembly::Reassembly;
use crate::wire::{Datagram, FlowKey, Piece, TCP};

/// How long a fragment is held for the first one of its datagram (PE-ARP rule 63).
const HOLD_TIME: Duration = Duration::from_secs(2);
/// How long a datagram whose first fragment came is remembered without news of it. Its fragments left their sender
/// one behind the other, so that no path delays one of them more than [`HOLD_TIME`] and still is of use.
const QUIET_TIME: Duration = HOLD_TIME;
/// How long a datagram is remembered in all: the time that its receiver waits for it (RFC 791 §3.2).
const LIFE_TIME: Duration = Duration::from_secs(15);

/// Fragments held of one datagram (PE-ARP rule 63).
const MAX_HELD: usize = 16;
/// Bytes held for one destination (PE-ARP rule 63).
const MAX_HELD_BYTES: usize = 1 << 20;
/// Bytes held in all: for 16 destinations as much as they may have, for more of them what is their part of it.
const MAX_HELD_BYTES_IN_ALL: usize = 16 * MAX_HELD_BYTES;

/// WAITING datagrams to one destination: fragments that overtake the first one do so by milliseconds, so that only
/// few of them wait at once, and [`MAX_HELD_BYTES`] is enough for 40 only, if they are of ordinary size.
const MAX_WAITING: usize = 256;
/// KNOWN datagrams to one destination: of 10,000 fragmented datagrams in a second, 5 % may lose a fragment and be
/// remembered for [`QUIET_TIME`].
const MAX_KNOWN: usize = 1024;
/// Datagrams in all: at most 10 MiB, when all of them are as fragmented as [`covered::MAX_RANGES`] lets them be.
const MAX_DATAGRAMS: usize = 16_384;

/// Bytes of a TCP header that its first fragment must hold (RFC 1858 §3.2): the ports and the flags.
const MIN_TCP: u16 = 16;

/// Why a fragment is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentRefused {
    /// It has bytes that came before (RFC 1858 §4). Also an exact copy, of which the first one passed.
    #[error("fragment with bytes that came before")]
    Overlap,
    /// TCP whose header is cut in front of its flags (RFC 1858 §3, RFC 3128).
    #[error("tiny fragment of TCP")]
    Tiny,
    /// It reaches behind the end of its datagram, or of the largest one.
    #[error("fragment behind the end of its datagram")]
    BeyondEnd,
    /// No bytes, or a length that is no multiple of 8 though more follow; or it has no ports and is the first one, or
    /// the other way round.
    #[error("malformed fragment")]
    Malformed,
    /// As many of its datagram are held as may be, or came with as many gaps.
    #[error("too many fragments of one datagram")]
    TooManyPieces,
    /// As many bytes are held as may be, and its own datagram has them.
    #[error("too many bytes of fragments")]
    Full,
}

/// Datagrams of which a part came, and what is held of them: `T` is a fragment.
#[derive(Debug)]
pub struct Fragments<T> {
    datagrams: BTreeMap<Datagram, Parts<T>>,
    deadlines: BTreeSet<(Instant, Datagram)>,
    /// The same of each queue: the oldest datagram is first.
    queues: BTreeMap<Queue, BTreeSet<(Instant, Datagram)>>,
    /// Datagrams in each queue.
    sizes: Shares<Queue>,
    /// Bytes held for each destination.
    bytes: Shares<Ipv4Addr>,
    released: VecDeque<(FlowKey, T)>,
    expired: VecDeque<T>,
}

/// What came of one datagram.
#[derive(Debug)]
struct Parts<T> {
    covered: Covered,
    /// By which later ones go, once the first one came.
    key: Option<FlowKey>,
    /// Fragments in the order in which they came, and their bytes.
    held: Vec<T>,
    held_bytes: usize,
    /// When the first of them came, or the first fragment.
    since: Instant,
    deadline: Instant,
}

impl<T> Parts<T> {
    fn new(now: Instant) -> Self {
        Self {
            covered: Covered::new(),
            key: None,
            held: Vec::new(),
            held_bytes: 0,
            since: now,
            deadline: now + HOLD_TIME,
        }
    }

    /// How long it is remembered after news of it, once the first fragment came.
    fn passing_until(&self, now: Instant) -> Instant {
        (now + QUIET_TIME).min(self.since + LIFE_TIME)
    }
}

/// Datagrams that make room for one another: those to one destination, KNOWN or WAITING.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Queue {
    destination: Ipv4Addr,
    known: bool,
}

impl Queue {
    const fn of<T>(datagram: &Datagram, parts: &Parts<T>) -> Self {
        Self { destination: datagram.destination, known: parts.key.is_some() }
    }

    const fn limit(self) -> usize {
        if self.known { MAX_KNOWN } else { MAX_WAITING }
    }
}

impl<T> Fragments<T> {
    /// None so far.
    pub const fn new() -> Self {
        Self {
            datagrams: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            queues: BTreeMap::new(),
            sizes: Shares::new(),
            bytes: Shares::new(),
            released: VecDeque::new(),
            expired: VecDeque::new(),
        }
    }

    /// Takes in the first fragment of a datagram, which has this key and passes. [`Fragments::poll_released`] gives
    /// those that were held for it.
    ///
    /// # Errors
    /// See [`FragmentRefused`].
    pub fn first(
        &mut self,
        datagram: Datagram,
        piece: Piece,
        key: FlowKey,
        now: Instant,
    ) -> Result<(), FragmentRefused> {
        self.handle_timeout(now);
        if piece.offset != 0 {
            return Err(FragmentRefused::Malformed);
        }
        // Other protocols have their ports in the 8 bytes that every piece but the last one has.
        if datagram.protocol == TCP && piece.len < MIN_TCP && !piece.last {
            return Err(FragmentRefused::Tiny);
        }
        let none = Parts::new(now);
        self.datagrams.get(&datagram).unwrap_or(&none).covered.place(piece)?;
        let mut parts = self.forget(&datagram).unwrap_or(none);
        parts.covered.insert(piece)?;
        let key = FlowKey { headless: true, ..key };
        parts.key = Some(key);
        parts.held_bytes = 0;
        self.released.extend(core::mem::take(&mut parts.held).into_iter().map(|held| (key, held)));
        if !parts.covered.is_whole() {
            parts.deadline = parts.passing_until(now);
            self.remember(datagram, parts);
        }
        Ok(())
    }

    /// Takes in a later fragment. It passes with the key of the first one, without a header of its own; where that did not come so far it is held,
    /// with `None`: what `hold` gives is kept, and has so many `bytes`.
    ///
    /// # Errors
    /// See [`FragmentRefused`].
    pub fn later(
        &mut self,
        datagram: Datagram,
        piece: Piece,
        bytes: usize,
        hold: impl FnOnce() -> T,
        now: Instant,
    ) -> Result<Option<FlowKey>, FragmentRefused> {
        self.handle_timeout(now);
        if piece.offset == 0 {
            return Err(FragmentRefused::Malformed);
        }
        // RFC 3128: it could replace the flags that the first one showed.
        if datagram.protocol == TCP && piece.offset < MIN_TCP {
            return Err(FragmentRefused::Tiny);
        }
        if let Some(parts) = self.datagrams.get_mut(&datagram)
            && let Some(key) = parts.key
        {
            parts.covered.insert(piece)?;
            if parts.covered.is_whole() {
                self.forget(&datagram);
            } else {
                self.renew(datagram, now);
            }
            return Ok(Some(key));
        }
        self.hold(datagram, piece, bytes, hold, now)?;
        Ok(None)
    }

    fn hold(
        &mut self,
        datagram: Datagram,
        piece: Piece,
        bytes: usize,
        hold: impl FnOnce() -> T,
        now: Instant,
    ) -> Result<(), FragmentRefused> {
        let none = Parts::new(now);
        let parts = self.datagrams.get(&datagram).unwrap_or(&none);
        // Before anything makes room for it.
        parts.covered.place(piece)?;
        if parts.held.len() >= MAX_HELD {
            return Err(FragmentRefused::TooManyPieces);
        }
        if bytes > MAX_HELD_BYTES - parts.held_bytes {
            return Err(FragmentRefused::Full);
        }
        self.make_room_for_bytes(datagram, bytes)?;
        let mut parts = self.forget(&datagram).unwrap_or(none);
        parts.covered.insert(piece)?;
        parts.held.push(hold());
        parts.held_bytes += bytes;
        self.remember(datagram, parts);
        Ok(())
    }

    /// Ends WAITING datagrams so that one more fragment can be held: those to the same destination, then those to the
    /// destination that has most.
    fn make_room_for_bytes(&mut self, datagram: Datagram, bytes: usize) -> Result<(), FragmentRefused> {
        loop {
            let destination = if self.bytes.of(datagram.destination) + bytes > MAX_HELD_BYTES {
                datagram.destination
            } else if self.bytes.total + bytes > MAX_HELD_BYTES_IN_ALL {
                self.bytes.largest().ok_or(FragmentRefused::Full)?
            } else {
                return Ok(());
            };
            if !self.end_oldest(Queue { destination, known: false }, Some(datagram)) {
                return Err(FragmentRefused::Full);
            }
        }
    }

    /// Takes in a datagram, which is not there, and makes room for it.
    fn remember(&mut self, datagram: Datagram, parts: Parts<T>) {
        let queue = Queue::of(&datagram, &parts);
        while self.sizes.of(queue) >= queue.limit() && self.end_oldest(queue, None) {}
        while self.sizes.total >= MAX_DATAGRAMS
            && self.sizes.largest().is_some_and(|largest| self.end_oldest(largest, None))
        {}
        self.sizes.change(queue, |size| size + 1);
        self.bytes.change(datagram.destination, |bytes| bytes + parts.held_bytes);
        self.deadlines.insert((parts.deadline, datagram));
        self.queues.entry(queue).or_default().insert((parts.deadline, datagram));
        self.datagrams.insert(datagram, parts);
    }

    /// Takes a datagram out.
    fn forget(&mut self, datagram: &Datagram) -> Option<Parts<T>> {
        let parts = self.datagrams.remove(datagram)?;
        let queue = Queue::of(datagram, &parts);
        self.sizes.change(queue, |size| size - 1);
        self.bytes.change(datagram.destination, |bytes| bytes - parts.held_bytes);
        self.deadlines.remove(&(parts.deadline, *datagram));
        if let Some(queued) = self.queues.get_mut(&queue) {
            queued.remove(&(parts.deadline, *datagram));
            if queued.is_empty() {
                self.queues.remove(&queue);
            }
        }
        Some(parts)
    }

    /// There was news of a KNOWN datagram.
    fn renew(&mut self, datagram: Datagram, now: Instant) {
        let Some(parts) = self.datagrams.get_mut(&datagram) else { return };
        let before = parts.deadline;
        parts.deadline = parts.passing_until(now);
        let (deadline, queue) = (parts.deadline, Queue::of(&datagram, parts));
        self.deadlines.remove(&(before, datagram));
        self.deadlines.insert((deadline, datagram));
        if let Some(queued) = self.queues.get_mut(&queue) {
            queued.remove(&(before, datagram));
            queued.insert((deadline, datagram));
        }
    }

    /// Ends the oldest datagram of a queue, which is not this one; whether there was one.
    fn end_oldest(&mut self, queue: Queue, but: Option<Datagram>) -> bool {
        let mut queued = self.queues.get(&queue).into_iter().flatten().map(|(_, datagram)| *datagram);
        let oldest = queued.find(|datagram| but != Some(*datagram));
        oldest.is_some_and(|oldest| self.end(&oldest))
    }

    /// Forgets a datagram, with what is held of it; whether it was there.
    fn end(&mut self, datagram: &Datagram) -> bool {
        let Some(parts) = self.forget(datagram) else { return false };
        self.expired.extend(parts.held);
        true
    }

    /// The next fragment that was held and now passes with this key, in the order in which they came.
    pub fn poll_released(&mut self) -> Option<(FlowKey, T)> {
        self.released.pop_front()
    }

    /// The next fragment that was held and will never pass: the first one of its datagram did not come in time, or
    /// others needed its room.
    pub fn poll_expired(&mut self) -> Option<T> {
        self.expired.pop_front()
    }

    /// When [`Fragments::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Forgets what is too old; afterwards the next deadline is later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, datagram)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.end(&datagram);
        }
    }

    /// Datagrams that are remembered.
    pub fn datagrams(&self) -> usize {
        self.datagrams.len()
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.bytes.total
    }
}

impl<T> Default for Fragments<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// How much each of several has of what is bounded.
#[derive(Debug)]
struct Shares<N> {
    of: BTreeMap<N, usize>,
    /// The same by size.
    ranked: BTreeSet<(usize, N)>,
    total: usize,
}

impl<N: Copy + Ord> Shares<N> {
    const fn new() -> Self {
        Self { of: BTreeMap::new(), ranked: BTreeSet::new(), total: 0 }
    }

    fn of(&self, name: N) -> usize {
        self.of.get(&name).copied().unwrap_or(0)
    }

    /// Who has most.
    fn largest(&self) -> Option<N> {
        self.ranked.last().map(|(_, name)| *name)
    }

    fn change(&mut self, name: N, change: impl FnOnce(usize) -> usize) {
        let before = self.of(name);
        let after = change(before);
        if before == after {
            return;
        }
        self.ranked.remove(&(before, name));
        if after == 0 {
            self.of.remove(&name);
        } else {
            self.of.insert(name, after);
            self.ranked.insert((after, name));
        }
        self.total = self.total - before + after;
    }
}
