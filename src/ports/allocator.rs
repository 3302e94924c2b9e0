//! Source ports for the sockets that a host's own stack opens.

use rand::Rng;

use super::PortBitmap;

/// Hands out ports of one set, each to one user at a time.
#[derive(Clone, Debug)]
pub struct Allocator {
    ports: Vec<u16>,
    used: PortBitmap,
    closed: PortBitmap,
}

impl Allocator {
    /// An allocator over `ports`.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self { ports: ports.into_iter().collect(), used: PortBitmap::new(), closed: PortBitmap::new() }
    }

    /// Puts further ports in.
    pub fn add(&mut self, ports: impl IntoIterator<Item = u16>) {
        self.ports.extend(ports);
    }

    /// Takes ports out. Who has one still has to give it back, before it can be handed out as one of another set.
    pub fn remove(&mut self, ports: &PortBitmap) {
        self.ports.retain(|port| !ports.contains(*port));
        self.set_closed(ports, false);
    }

    /// From now on these ports are handed out no more, or are so again. Who has one keeps it.
    pub fn set_closed(&mut self, ports: &PortBitmap, closed: bool) {
        for port in ports.ports() {
            if closed {
                self.closed.insert(port);
            } else {
                self.closed.remove(port);
            }
        }
    }

    /// A free port chosen at random, or `None` where every port is taken.
    ///
    /// RFC 6056 §3.3.1 (algorithm 1): a random start, then the next free one, so that an off-path attacker
    /// cannot guess the port from earlier ones.
    pub fn allocate(&mut self, rng: &mut impl Rng) -> Option<u16> {
        if self.ports.is_empty() {
            return None;
        }
        let start = rng.random_range(0..self.ports.len());
        let (below, from) = self.ports.split_at(start);
        let free = |port: &u16| !self.used.contains(*port) && !self.closed.contains(*port);
        let port = from.iter().chain(below).copied().find(free)?;
        self.used.insert(port);
        Some(port)
    }

    /// Takes a given port; false where it is not in the set or already taken.
    pub fn reserve(&mut self, port: u16) -> bool {
        self.ports.contains(&port) && self.used.insert(port)
    }

    /// Gives a port back.
    pub fn release(&mut self, port: u16) {
        self.used.remove(port);
    }

    /// Whether a port is taken.
    pub fn uses(&self, port: u16) -> bool {
        self.used.contains(port)
    }

    /// The number of ports that are taken.
    pub fn used(&self) -> usize {
        self.used.count() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn every_port_once_then_none() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut allocator = Allocator::new(7680..=7695);
        assert!(allocator.reserve(7680));
        assert!(!allocator.reserve(7680) && !allocator.reserve(80));
        let mut seen: Vec<_> = (0..15).map(|_| allocator.allocate(&mut rng).unwrap()).collect();
        assert!(!seen.is_sorted(), "a sequential choice is guessable");
        seen.sort_unstable();
        assert_eq!(seen, (7681..=7695).collect::<Vec<_>>());
        assert_eq!(allocator.allocate(&mut rng), None);
        allocator.release(7690);
        assert_eq!(allocator.allocate(&mut rng), Some(7690));
        assert_eq!(Allocator::new([]).allocate(&mut rng), None);
    }

    #[test]
    fn ports_come_and_go() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut allocator = Allocator::new([10, 11]);
        let further: PortBitmap = [20, 21].into_iter().collect();
        allocator.add(further.ports());
        let mut all = |allocator: &mut Allocator| {
            let mut taken: Vec<_> = core::iter::from_fn(|| allocator.allocate(&mut rng)).collect();
            taken.sort_unstable();
            taken
        };
        assert_eq!(all(&mut allocator.clone()), [10, 11, 20, 21]);
        assert!(allocator.reserve(20));
        allocator.set_closed(&further, true);
        assert_eq!(all(&mut allocator.clone()), [10, 11], "21 is closed, 20 is taken");
        assert!(allocator.uses(20));
        let mut open = allocator.clone();
        open.set_closed(&further, false);
        assert_eq!(all(&mut open), [10, 11, 21]);
        allocator.remove(&further);
        assert_eq!(all(&mut allocator), [10, 11]);
        allocator.add(further.ports());
        assert_eq!(all(&mut allocator), [21], "20 was not given back");
    }
}
