//! An Ethernet segment: a hub or a switch, and what goes wrong on it.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, EthernetFrame};

use super::scenario::{Faults, NodeId, SegmentId, Wiring};
use crate::node::LinkId;

/// How much later a frame may come that is overtaken, in microseconds.
const OVERTAKEN_MICROS: u64 = 20_000;

/// Where a node is attached.
#[derive(Debug)]
struct Socket {
    node: NodeId,
    link: LinkId,
    /// The cable is cut.
    cut: bool,
    /// When the last frame from each other socket arrives: without a fault the order stays.
    last: BTreeMap<usize, Instant>,
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) segment: SegmentId,
    /// The receiver's socket.
    pub(super) socket: usize,
    pub(super) bytes: Vec<u8>,
}

/// Frames that a segment did not deliver.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// At random.
    pub(super) lost: u64,
    /// On a cut cable.
    pub(super) cut: u64,
}

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    id: SegmentId,
    wiring: Wiring,
    pub(super) faults: Faults,
    sockets: Vec<Socket>,
    /// Where a switch saw each source.
    learned: BTreeMap<EthernetAddress, usize>,
    pub(super) losses: Losses,
}

impl Segment {
    pub(super) fn new(id: SegmentId, wiring: Wiring, faults: Faults) -> Self {
        let (sockets, learned) = (Vec::new(), BTreeMap::new());
        Self { id, wiring, faults, sockets, learned, losses: Losses::default() }
    }

    /// Attaches a link of a node; its socket.
    pub(super) fn attach(&mut self, node: NodeId, link: LinkId) -> usize {
        self.sockets.push(Socket { node, link, cut: false, last: BTreeMap::new() });
        self.sockets.len() - 1
    }

    /// Cuts or mends the cable of a node.
    pub(super) fn set_cut(&mut self, node: NodeId, cut: bool) {
        for socket in self.sockets.iter_mut().filter(|socket| socket.node == node) {
            socket.cut = cut;
        }
    }

    /// Sends a frame into the segment; when it arrives where.
    pub(super) fn send(
        &mut self,
        from: usize,
        bytes: &[u8],
        rng: &mut ChaCha8Rng,
        now: Instant,
    ) -> Vec<(Instant, Flight)> {
        let Ok(header) = EthernetFrame::new_checked(bytes) else { return Vec::new() };
        if self.sockets[from].cut {
            self.losses.cut += 1;
            return Vec::new();
        }
        self.learned.insert(header.src_addr(), from);
        let known = self.learned.get(&header.dst_addr()).copied().filter(|_| self.wiring == Wiring::Switch);
        let receivers: Vec<_> = match known {
            Some(socket) => vec![socket],
            None => (0..self.sockets.len()).collect(),
        };
        let mut flights = Vec::new();
        for socket in receivers.into_iter().filter(|socket| *socket != from) {
            let copies = if rng.random_bool(self.faults.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                if rng.random_bool(self.faults.loss) {
                    self.losses.lost += 1;
                    continue;
                }
                let at = self.arrival(from, socket, rng, now);
                flights.push((at, Flight { segment: self.id, socket, bytes: bytes.to_vec() }));
            }
        }
        flights
    }

    fn arrival(&mut self, from: usize, to: usize, rng: &mut ChaCha8Rng, now: Instant) -> Instant {
        let (shortest, longest) = self.faults.delay;
        let delay = rng.random_range(shortest.total_micros()..=longest.total_micros());
        let at = now + Duration::from_micros(delay);
        if rng.random_bool(self.faults.reorder) {
            return at + Duration::from_micros(rng.random_range(0..=OVERTAKEN_MICROS));
        }
        let last = self.sockets[to].last.entry(from).or_insert(at);
        *last = at.max(*last);
        *last
    }

    /// Whether the cable of a socket is whole.
    pub(super) fn is_attached(&self, socket: usize) -> bool {
        !self.sockets[socket].cut
    }

    /// Whom a frame reaches, if the cable is still whole.
    pub(super) fn receiver(&mut self, socket: usize) -> Option<(NodeId, LinkId)> {
        let Socket { node, link, cut, .. } = self.sockets[socket];
        if cut {
            self.losses.cut += 1;
            return None;
        }
        Some((node, link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EthernetProtocol, Frame};
    use rand::SeedableRng;

    const fn mac(last: u8) -> EthernetAddress {
        EthernetAddress([2, 0, 0, 0, 0, last])
    }

    fn segment(wiring: Wiring, faults: Faults) -> Segment {
        let mut segment = Segment::new(SegmentId(0), wiring, faults);
        for node in 0..3 {
            segment.attach(NodeId(node), LinkId(0));
        }
        segment
    }

    fn receivers(segment: &mut Segment, from: usize, to: EthernetAddress) -> Vec<usize> {
        let frame = Frame::ethernet(mac(from as u8), to, EthernetProtocol::Ipv4, 46);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let flights = segment.send(from, frame.bytes(), &mut rng, Instant::ZERO);
        flights.iter().map(|(_, flight)| flight.socket).collect()
    }

    #[test]
    fn a_switch_learns_and_a_hub_does_not() {
        let mut switch = segment(Wiring::Switch, Faults::default());
        assert_eq!(receivers(&mut switch, 0, mac(1)), [1, 2], "not seen yet");
        assert_eq!(receivers(&mut switch, 1, mac(0)), [0]);
        assert_eq!(receivers(&mut switch, 0, mac(1)), [1]);
        assert_eq!(receivers(&mut switch, 0, EthernetAddress::BROADCAST), [1, 2]);
        let mut hub = segment(Wiring::Hub, Faults::default());
        receivers(&mut hub, 1, mac(0));
        assert_eq!(receivers(&mut hub, 0, mac(1)), [1, 2]);
    }

    #[test]
    fn a_cut_cable_carries_nothing() {
        let mut hub = segment(Wiring::Hub, Faults::default());
        hub.set_cut(NodeId(2), true);
        assert!(receivers(&mut hub, 2, mac(0)).is_empty());
        assert_eq!((hub.receiver(2), hub.receiver(1)), (None, Some((NodeId(1), LinkId(0)))));
        hub.set_cut(NodeId(2), false);
        assert!(hub.receiver(2).is_some());
        assert_eq!(hub.losses.cut, 2);
    }

    #[test]
    fn frames_of_one_sender_stay_in_order_unless_they_are_to_be_reordered() {
        let frame = Frame::ethernet(mac(0), mac(1), EthernetProtocol::Ipv4, 46);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut in_order = |reorder| {
            let delay = (Duration::ZERO, Duration::from_millis(5));
            let mut hub = segment(Wiring::Hub, Faults { reorder, delay, ..Faults::default() });
            let arrivals: Vec<_> = (0..100)
                .flat_map(|_| hub.send(0, frame.bytes(), &mut rng, Instant::ZERO))
                .filter(|(_, flight)| flight.socket == 1)
                .map(|(at, _)| at)
                .collect();
            arrivals.is_sorted()
        };
        assert!(in_order(0.0));
        assert!(!in_order(0.5));
    }
}
